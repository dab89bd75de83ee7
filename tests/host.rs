//! What a module finds of its host: stubs for its imports, and an end that it may come to by itself.

use std::rc::Rc;

use wizer::{CacheLocation, Engine, Error, Outcome, Stub, Value, Wizer};

const ENGINES: [Engine; 4] = [
    Engine::Auto,
    Engine::Interpreter,
    Engine::Baseline,
    Engine::Optimizing,
];

fn wizer(engine: Engine) -> Wizer {
    let mut wizer = Wizer::new();
    wizer.engine(engine).cache(CacheLocation::Off);
    wizer
}

/// The value of an exported global in an instance of the output.
fn global(wasm: &[u8], name: &str) -> Value {
    let mut wizer = wizer(Engine::Optimizing);
    wizer.stub("*.*", Stub::Trap).unwrap();
    wizer.session(wasm).unwrap().global(name).unwrap()
}

// ----- exits -----

/// A program that ends itself as commands of TinyGo and Go do, in the middle of its functions.
const COMMAND: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (global $stack (export "stack") (mut i32) (i32.const 1000))
  (global $ran (export "ran") (mut i32) (i32.const 0))
  (global $after (export "after") (mut i32) (i32.const 0))
  (func $main (param $status i32)
    (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
    (global.set $ran (i32.add (global.get $ran) (i32.const 1)))
    (i32.store8 (i32.const 8) (i32.const 42))
    (call $exit (local.get $status))
    (global.set $stack (i32.add (global.get $stack) (i32.const 16)))
    (global.set $after (i32.const 1)))
  (func (export "_start") (call $main (i32.const 0)) unreachable)
  (func (export "fails") (call $main (i32.const 1)))
  (func (export "second") (global.set $ran (i32.add (global.get $ran) (i32.const 10))))
  (func (export "results") (result i32) (call $main (i32.const 0)) (i32.const 7)))"#;

fn exits(engine: Engine) -> Wizer {
    let mut wizer = wizer(engine);
    wizer.allow_wasi(true).unwrap().allow_exit(true);
    wizer
}

#[test]
fn the_state_at_an_exit_is_written() {
    let mut outputs = Vec::new();
    for engine in ENGINES {
        let outcome = exits(engine)
            .init_func("_start")
            .snapshot(COMMAND.as_bytes());
        let Outcome { wasm, report, .. } = outcome.unwrap();
        assert!(report.exited);
        let memory = &report.memories[0];
        assert_eq!((memory.bytes, memory.segments), (1, 1));
        assert_eq!(global(&wasm, "ran"), Value::I32(1));
        assert_eq!(
            global(&wasm, "after"),
            Value::I32(0),
            "nothing runs after it"
        );
        assert_eq!(global(&wasm, "stack"), Value::I32(984), "in the middle");
        outputs.push(wasm);
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    let auto = exits(Engine::Auto)
        .init_func("_start")
        .snapshot(COMMAND.as_bytes());
    assert_eq!(
        auto.unwrap().report.engine.name,
        "wasmi",
        "no reason to leave it"
    );
}

#[test]
fn an_exit_is_an_error_where_it_is_not_allowed_or_is_one() {
    for engine in ENGINES {
        let mut none = wizer(engine);
        none.allow_wasi(true).unwrap().init_func("_start");
        let mut failing = exits(engine);
        failing.init_func("fails");
        for (wizer, status) in [(none, 0), (failing, 1)] {
            let error = wizer.run(COMMAND.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "ERR_WIZER_EXIT");
            let Error::Trap(trap) = error else { panic!() };
            let text = format!("Exited with i32 exit status {status}");
            assert!(trap.reason.to_string().starts_with(&text));
        }
    }
}

/// It is the end of one call, and the next one was asked for.
#[test]
fn what_was_to_be_called_next_is_called() {
    for engine in ENGINES {
        let mut wizer = exits(engine);
        wizer.invoke("_start", &[]).init_func("second");
        let wasm = wizer.run(COMMAND.as_bytes()).unwrap();
        assert_eq!(global(&wasm, "ran"), Value::I32(11));
    }
}

#[test]
fn a_start_function_and_a_reactor_may_end_themselves() {
    let wat = COMMAND.replace(
        r#"(func (export "second")"#,
        r#"(func $start (call $main (i32.const 0))) (start $start)
           (func (export "_initialize") (call $main (i32.const 0)))
           (func (export "wizer.initialize")"#,
    );
    for engine in ENGINES {
        let outcome = exits(engine).snapshot(wat.as_bytes()).unwrap();
        assert!(outcome.report.exited);
        assert_eq!(global(&outcome.wasm, "ran"), Value::I32(12));
    }
}

#[test]
fn a_session_goes_on_after_an_exit() {
    let mut session = exits(Engine::Auto).session(COMMAND.as_bytes()).unwrap();
    assert_eq!(session.call("results", &[]).unwrap(), []);
    assert_eq!(session.call("_start", &[]).unwrap(), []);
    let error = session.call("fails", &[]).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_EXIT");
    session.call("second", &[]).unwrap();
    assert_eq!(session.global("ran").unwrap(), Value::I32(13));
    assert!(session.snapshot().unwrap().report.exited);
}

/// A preloaded module that ends the program is no module to go on with.
#[test]
fn a_preloaded_module_may_not_end_the_program() {
    let preload = COMMAND.replace(
        r#"(func (export "second")"#,
        r#"(func (export "_initialize") (call $main (i32.const 0)))
           (func (export "second")"#,
    );
    let mut wizer = exits(Engine::Auto);
    wizer.preload_bytes("env", preload);
    let wat = r#"(module (func (export "wizer.initialize")))"#;
    let error = wizer.run(wat.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_EXIT");
}

/// Also by another implementation of WASI.
#[test]
fn a_linker_may_know_the_exit() {
    let mut wizer = wizer(Engine::Auto);
    wizer.allow_exit(true).init_func("_start");
    let linker = |engine: &wizer::wasmtime::Engine| {
        let mut linker = wizer::wasmtime::Linker::new(engine);
        linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |status: i32| {
            Err::<(), _>(wizer::wasmtime::Error::from(wasmtime_wasi::I32Exit(status)))
        })?;
        Ok(linker)
    };
    wizer.make_linker(Some(Rc::new(linker))).unwrap();
    let outcome = wizer.snapshot(COMMAND.as_bytes()).unwrap();
    assert!(outcome.report.exited);
}

// ----- stubs -----

#[test]
fn a_stub_returns_its_number_for_each_result() {
    let wat = r#"(module
      (import "env" "i32" (func $i32 (param i64) (result i32)))
      (import "env" "i64" (func $i64 (result i64)))
      (import "env" "f32" (func $f32 (result f32)))
      (import "env" "f64" (func $f64 (result f64)))
      (import "env" "two" (func $two (result i32 i64)))
      (import "env" "nothing" (func $nothing (param f64 f64)))
      (import "a.b" "c.d" (func $dots (result i32)))
      (import "env" "reference" (func $reference (result funcref)))
      (global (export "i32") (mut i32) (i32.const 77))
      (global (export "i64") (mut i64) (i64.const 77))
      (global (export "f32") (mut f32) (f32.const 77))
      (global (export "f64") (mut f64) (f64.const 77))
      (global (export "dots") (mut i32) (i32.const 77))
      (global (export "null") (mut i32) (i32.const 77))
      (func (export "wizer.initialize")
        (global.set 0 (call $i32 (i64.const 0)))
        (global.set 1 (call $i64))
        (global.set 2 (call $f32))
        (global.set 3 (call $f64))
        (call $two) (global.set 1) (global.set 0)
        (call $nothing (f64.const 0) (f64.const 0))
        (global.set 4 (call $dots))
        (global.set 5 (ref.is_null (call $reference)))))"#;
    for engine in ENGINES {
        for (stub, i32, i64, f32, f64) in [
            (Stub::Integer(-1), -1, -1, -1.0_f32, -1.0),
            (
                Stub::Integer(0xffff_ffff),
                -1,
                0xffff_ffff,
                4294967296.0,
                4294967295.0,
            ),
            (Stub::Float(2.5), 2, 2, 2.5, 2.5),
        ] {
            let mut wizer = wizer(engine);
            wizer.stub("env.*", stub).unwrap();
            wizer.stub("a.b.c.d", Stub::Integer(5)).unwrap();
            let Outcome { wasm, report, .. } = wizer.snapshot(wat.as_bytes()).unwrap();
            assert_eq!(global(&wasm, "i32"), Value::I32(i32));
            assert_eq!(global(&wasm, "i64"), Value::I64(i64));
            assert_eq!(global(&wasm, "f32"), f32.into());
            assert_eq!(global(&wasm, "f64"), f64.into());
            assert_eq!(global(&wasm, "dots"), Value::I32(5));
            assert_eq!(global(&wasm, "null"), Value::I32(1));
            assert_eq!(report.host_calls.len(), 8);
            assert!(
                report
                    .host_calls
                    .iter()
                    .all(|call| call.stub && call.calls == 1)
            );
            if engine == Engine::Auto {
                assert_eq!(report.engine.name, "wasmi", "they can be repeated");
            }
        }
    }
}

/// What Emscripten's and C's modules import of their host.
const EMSCRIPTEN: &str = r#"(module
  (import "env" "memory" (memory 2 10))
  (import "env" "__indirect_function_table" (table 3 funcref))
  (import "env" "__stack_pointer" (global $stack (mut i32)))
  (import "env" "__memory_base" (global $base i32))
  (import "env" "abort" (func $abort))
  (import "env" "emscripten_date_now" (func $now (result f64)))
  (func $f)
  (elem (i32.const 1) $f)
  (data (global.get $base) "data")
  (func (export "init")
    (if (f64.ne (call $now) (f64.const 1024)) (then (call $abort)))
    (i32.store8 (i32.add (global.get $base) (i32.const 100)) (i32.const 42))
    (table.set (i32.const 2) (table.get (i32.const 1)))))"#;

#[test]
fn memories_tables_and_globals_may_be_stubs() {
    for engine in ENGINES {
        let mut wizer = wizer(engine);
        wizer.init_func("init").stub("env.*", 1024.into()).unwrap();
        wizer.stub("env.abort", Stub::Trap).unwrap();
        let Outcome { wasm, report, .. } = wizer.snapshot(EMSCRIPTEN.as_bytes()).unwrap();
        assert_eq!(report.assumed_globals, ["env::__memory_base"]);
        assert_eq!(report.memories[0].bytes, 5, "its data and what it wrote");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        // It still imports all, and puts its state there.
        let mut session = wizer.session(&wasm).unwrap();
        let module = wasmparser::Parser::new(0).parse_all(&wasm);
        let imports = module.filter_map(|payload| match payload.unwrap() {
            wasmparser::Payload::ImportSection(imports) => Some(imports.count()),
            _ => None,
        });
        assert_eq!(imports.sum::<u32>(), 6);
        drop(session.snapshot().unwrap());
    }
}

#[test]
fn a_stub_that_traps_names_the_import() {
    for engine in ENGINES {
        let mut wizer = wizer(engine);
        wizer.init_func("init").stub("env.*", Stub::Trap).unwrap();
        wizer.stub("env.emscripten_date_now", 0.into()).unwrap();
        let error = wizer.run(EMSCRIPTEN.as_bytes()).unwrap_err();
        let Error::Trap(trap) = error else {
            panic!("{error}")
        };
        let text = trap.reason.to_string();
        assert!(
            text.contains("`env::abort`") && text.contains("stub"),
            "{text}"
        );
    }
}

#[test]
fn whatever_else_provides_an_import_comes_before_its_stub() {
    let wat = r#"(module
      (import "env" "function" (func $function (result i32)))
      (import "env" "preloaded" (func $preloaded (result i32)))
      (import "env" "global" (global $global i32))
      (import "side" "global" (global $side i32))
      (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
      (import "wasi_snapshot_preview1" "proc_raise" (func $raise (param i32) (result i32)))
      (memory (export "memory") 1)
      (global (export "sum") (mut i32) (i32.const 0))
      (func (export "wizer.initialize")
        (global.set 2 (call $function))
        (global.set 2 (i32.add (global.get 2) (call $preloaded)))
        (global.set 2 (i32.add (global.get 2) (global.get $global)))
        (global.set 2 (i32.add (global.get 2) (global.get $side)))
        (global.set 2 (i32.add (global.get 2) (call $yield)))
        (global.set 2 (i32.add (global.get 2) (call $raise (i32.const 2))))))"#;
    let preload = r#"(module (func (export "preloaded") (result i32) (i32.const 10)))"#;
    let side = r#"(module (global (export "global") i32 (i32.const 1000)))"#;
    let mut wizer = wizer(Engine::Auto);
    wizer.allow_wasi(true).unwrap();
    wizer
        .import("env", "function", |_, _| Ok(vec![Value::I32(1)]))
        .import_global("env", "global", Value::I32(100))
        .preload_bytes("env", preload)
        .preload_bytes("side", side)
        .stub("*.*", Stub::Integer(1_000_000))
        .unwrap()
        // In full, it comes before WASI.
        .stub("wasi_snapshot_preview1.proc_raise", Stub::Integer(20_000))
        .unwrap();
    let wasm = wizer.run(wat.as_bytes()).unwrap();
    assert_eq!(global(&wasm, "sum"), Value::I32(21_111));
}

#[test]
fn a_stub_for_nothing_is_told() {
    let mut wizer = wizer(Engine::Auto);
    wizer.init_func("init").stub("env.*", 1024.into()).unwrap();
    wizer.stub("env.abrot", Stub::Trap).unwrap();
    let report = wizer.snapshot(EMSCRIPTEN.as_bytes()).unwrap().report;
    let warning = "the stub `env.abrot` does nothing: the module imports no such thing";
    assert_eq!(report.warnings, [warning]);
    let error = wizer.stub("abort", Stub::Trap).err().unwrap();
    assert_eq!(error.code(), "ERR_WIZER_OPTION");
}
