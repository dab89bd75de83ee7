// Programs that end themselves, and imports that nobody provides.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Session, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { programs, run, temporaryDirectory } from './helpers/run.mjs'
import { start } from './helpers/v8.mjs'
import { wasi } from './helpers/wasi.mjs'

const directory = temporaryDirectory()

/** Ends itself in the middle of `_start`, as commands of TinyGo and Go do. */
const COMMAND = `(module ${wasi('proc_exit')}
  (memory (export "memory") 1)
  (global $ran (export "ran") (mut i32) (i32.const 0))
  (func $main (param $status i32)
    (global.set $ran (i32.add (global.get $ran) (i32.const 1)))
    (call $proc_exit (local.get $status))
    unreachable)
  (func (export "_start") (call $main (i32.const 0)))
  (func (export "fails") (call $main (i32.const 3)))
  (func (export "answer") (result i32) (call $main (i32.const 0)) (i32.const 42)))`

const ran = (wasm) => start(wasm).ran.value

describe('a program that ends itself', () => {
  const options = { allowWasi: true, allowExit: true, initFunc: '_start' }

  it('is snapshotted where that is allowed', async () => {
    const { wasm, report } = await snapshot(COMMAND, options)
    assert.equal(ran(wasm), 1)
    assert.equal(report.exited, true)
    assert.equal(ran(wizerSync(COMMAND, options)), 1)
  })

  it('is an error by default, and with any other status', async () => {
    await assert.rejects(wizer(COMMAND, { ...options, allowExit: false }), { code: 'ERR_WIZER_EXIT' })
    await assert.rejects(wizer(COMMAND, { ...options, initFunc: 'fails' }), { code: 'ERR_WIZER_EXIT', message: /exit status 3/ })
    await assert.rejects(wizer(COMMAND, { ...options, allowExit: 1 }), { code: 'ERR_WIZER_OPTION' })
  })

  it('ends a call of a session, which gives nothing', async () => {
    const session = await Session.create(COMMAND, options)
    assert.equal(await session.call('answer'), undefined)
    assert.equal(await session.global('ran'), 1)
    await assert.rejects(session.call('fails'), { code: 'ERR_WIZER_EXIT' })
    assert.equal((await session.snapshotWithReport()).report.exited, true)
    await session.close()
  })
})

/** What modules of Emscripten import. */
const IMPORTING = `(module
  (import "env" "memory" (memory 1))
  (import "env" "__stack_pointer" (global $stack (mut i32)))
  (import "env" "abort" (func $abort))
  (import "env" "now" (func $now (result f64)))
  (import "env" "count" (func $count (param i32) (result i64)))
  (global (export "now") (mut f64) (f64.const -1))
  (global (export "count") (mut i64) (i64.const -1))
  (func (export "wizer.initialize")
    (global.set 1 (call $now))
    (global.set 2 (call $count (i32.const 0)))
    (drop (call $count (i32.const 0)))
    (i32.store8 (i32.const 64) (i32.const 42)))
  (func (export "aborts") (call $abort)))`

/** An instance of the output with what the host provides. */
function instance(wasm) {
  const env = {
    memory: new WebAssembly.Memory({ initial: 1 }),
    __stack_pointer: new WebAssembly.Global({ value: 'i32', mutable: true }, 0),
    abort() {},
    now: () => 1,
    count: () => 1n,
  }
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(wasm), { env })
  return { byte: new Uint8Array(env.memory.buffer)[64], now: exports.now.value, count: exports.count.value }
}

describe('stubs', () => {
  it('stand in for functions, memories and globals', async () => {
    const { wasm, report } = await snapshot(IMPORTING, { stubs: { 'env.*': 0 } })
    assert.deepEqual(instance(wasm), { byte: 42, now: 0, count: 0n })
    assert.deepEqual(report.hostCalls, [
      { module: 'env', name: 'count', calls: 2, stub: true },
      { module: 'env', name: 'now', calls: 1, stub: true },
    ])
    assert.equal(report.engine.name, 'wasmi', 'they may be called twice')
  })

  it('have numbers of any kind', async () => {
    for (const [value, now, count] of [
      [1.5, 1.5, 1n],
      [-1, -1, -1n],
      [2n ** 63n - 1n, 2 ** 63, 2n ** 63n - 1n],
      [Infinity, Infinity, 2n ** 63n - 1n],
      [NaN, NaN, 0n],
    ]) {
      const wasm = await wizer(IMPORTING, { stubs: { 'env.*': 0, 'env.now': value, 'env.count': value } })
      assert.deepEqual(instance(wasm), { byte: 42, now, count })
    }
  })

  it('trap where that is asked for, and the most said wins', async () => {
    await assert.rejects(wizer(IMPORTING, { initFunc: 'aborts', stubs: { 'env.abort': 'trap', 'env.*': 0 } }), {
      code: 'ERR_WIZER_IMPORT_MISSING',
      message: /`env::abort`.*stub/s,
    })
  })

  it('come after what is provided', async () => {
    const wasm = await wizer(IMPORTING, { stubs: { '*.*': 7 }, imports: { env: { now: () => 5 } } })
    assert.deepEqual(instance(wasm), { byte: 42, now: 5, count: 7n })
  })

  it('stand in for thousands of globals, as compilers of Dart import them', async () => {
    // One module for each would take minutes.
    const globals = Array.from({ length: 4000 }, (_, i) => `(import "${i % 2 ? 'S' : 'GOT.mem'}" "${i}" (global ${i % 2 ? 'externref' : '(mut i32)'}))`)
    const wasm = await wizer(
      `(module ${globals.join('')} (import "S" "f" (func $f (result i32)))
        (global (export "last") (mut i32) (i32.const 0))
        (func (export "wizer.initialize") (global.set 4000 (i32.add (call $f) (global.get 3998)))))`,
      { stubs: { 'S.*': 1, 'GOT.mem.*': 5 } },
    )
    const S = { f: () => 0 }
    const GOT = {}
    for (let i = 0; i < 4000; i++) (i % 2 ? S : GOT)[i] = i % 2 ? 'text' : new WebAssembly.Global({ value: 'i32', mutable: true }, i)
    assert.equal(start(wasm, { S, 'GOT.mem': GOT }).last.value, 6)
  })

  it('are refused where they make no sense', async () => {
    for (const stubs of [{ env: 0 }, { 'env.f': '0' }, { 'env.f': null }, [], 'env.*']) {
      await assert.rejects(wizer(IMPORTING, { stubs }), { code: 'ERR_WIZER_OPTION' }, JSON.stringify(stubs))
    }
  })
})

for (const { name, command } of programs) {
  describe(`on the command line: ${name}`, () => {
    let files = 0
    const file = (text) => {
      const path = join(directory, `${files++}.wat`)
      writeFileSync(path, text)
      return path
    }
    const output = join(directory, `${name.replaceAll('/', '-')}.wasm`)
    const wizerOn = (text, ...args) => run([...command, file(text), '-o', output, ...args])

    it('--allow-exit', async () => {
      for (const flag of [['--allow-exit'], ['--allow-exit=true'], ['--allow-exit', 'true']]) {
        const { status, stderr } = await wizerOn(COMMAND, '--allow-wasi', '-f', '_start', ...flag)
        assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
        assert.equal(ran(readFileSync(output)), 1)
      }
      const { status, stderr } = await wizerOn(COMMAND, '--allow-wasi', '-f', '_start')
      assert.equal(status, 1)
      assert.match(stderr, /Exited with i32 exit status 0/)
      const told = await wizerOn(COMMAND, '--allow-wasi', '-f', '_start', '--allow-exit', '-v')
      assert.match(told.stderr, /the program ended itself, with status 0/)
    })

    it('--stub', async () => {
      for (const [stubs, expected] of [
        [['--stub', 'env.*'], { byte: 42, now: 0, count: 0n }],
        [['--stub', 'env.*=-1', '--stub', 'env.now=0.5'], { byte: 42, now: 0.5, count: -1n }],
        [['--stub', 'env.count=0x10', '--stub=*.*'], { byte: 42, now: 0, count: 16n }],
        [['--stub', 'env.abort=trap', '--stub', 'e*v.*=2'], { byte: 42, now: 2, count: 2n }],
      ]) {
        const { status, stderr } = await wizerOn(IMPORTING, ...stubs)
        assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
        assert.deepEqual(instance(readFileSync(output)), expected)
      }
      const told = await wizerOn(IMPORTING, '--stub', 'env.*', '--verbose')
      assert.match(told.stderr, /env::count +2× +\(a stub\)/)
      for (const stub of ['env', 'env.f=x', 'env.f=']) {
        const { status, stderr } = await wizerOn(IMPORTING, '--stub', stub)
        assert.equal(status, 2, stderr)
      }
    })
  })
}
