"""Compiles and runs a module in wasmtime up to its first call of a host import.

Reads an Order (see v8-judge.mjs) as JSON on stdin, and writes what happened as
JSON on stdout. The order `null` asks for the version.

A run ends with the first call of an import whose module has the order's host
prefix. Fuel counts the instructions up to there: wasmtime takes one unit for
most of them, and none for `block`, `loop`, `nop` and `drop`. Two runs differ by
a little where the module reads clocks and random numbers.
"""

import json
import sys
from importlib.metadata import version

from wasmtime import Config, Engine, Func, Linker, Module, Store, WasiConfig, WasmtimeError, Trap

FUEL = 2**62


class HostReached(Exception):
    pass


def judge(order):
    config = Config()
    config.consume_fuel = True
    engine = Engine(config)
    try:
        module = Module.from_file(engine, order["wasm"])
    except WasmtimeError as error:
        return {"refused": str(error)}

    wasi = WasiConfig()
    wasi.argv = ["guest"]
    wasi.stdin_file = order["stdin"]
    wasi.preopen_dir(order["directory"], ".")
    store = Store(engine)
    store.set_wasi(wasi)
    store.set_fuel(FUEL)

    reached = False

    def stop(*_):
        nonlocal reached
        reached = True
        raise HostReached()

    linker = Linker(engine)
    linker.define_wasi()
    for item in module.imports:
        if item.module.startswith(order["hostPrefix"]):
            linker.define(store, item.module, item.name, Func(store, item.type, stop))

    error = None
    try:
        exports = linker.instantiate(store, module).exports(store)
        for name in order["calls"]:
            if name not in exports:
                raise WasmtimeError(f"there is no export {name}")
            exports[name](store)
    except HostReached:
        pass
    except (Trap, WasmtimeError) as cause:
        error = str(cause).splitlines()[-1].strip()
    return {"reached": reached, "instructions": FUEL - store.get_fuel(), "error": error}


order = json.load(sys.stdin)
json.dump({"version": version("wasmtime")} if order is None else judge(order), sys.stdout)
