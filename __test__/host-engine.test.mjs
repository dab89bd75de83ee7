// The engine of Node itself, V8, as one that runs modules: in a worker, with the addon's host. The other engines are the judges:
// an output is the same, byte for byte, whoever made it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { hostRuns } from './helpers/wat.mjs'

const host = { engine: 'host', cache: false }

async function failure(promise) {
  const error = await promise.then(() => assert.fail('it did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  return error
}

/** A module whose initialization does this. */
const guest = (body, fields = '') => `(module ${fields} (func $initialize (export "wizer.initialize") ${body}))`

/** Whether this V8 knows exceptions as WebAssembly 3.0 has them. */
const EXCEPTIONS = WebAssembly.validate(
  // (module (func (block (try_table (catch_all 0)))))
  Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 13, 1, 11, 0, 2, 64, 31, 64, 1, 2, 0, 11, 11, 11),
)

const imports = (host) => ({
  env: {
    twice: (n) => n * 2,
    nested() {
      host.memory()[3] = host.call('add', 8)
      host.memory()[4] = host.callIndirect('table', 1, 30)
    },
    grows() {
      host.memory()[5] = 1
      host.call('grow')
      host.memory()[200_000] = 7
    },
  },
})

const FIELDS = `
  (import "env" "twice" (func $twice (param i32) (result i32)))
  (import "env" "nested" (func $nested)) (import "env" "grows" (func $grows))
  (memory (export "memory") 1)
  (table (export "table") 4 funcref) (elem (i32.const 1) $add)
  (func $add (export "add") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func (export "grow") (drop (memory.grow (i32.const 3))))`

describe('the engine of Node writes the bytes that the others write', () => {
  for (const [what, wasm, options] of [
    ['imports, calls of the guest, growing', guest('(i32.store (i32.const 8) (call $twice (i32.const 21))) (call $nested) (call $grows)', FIELDS), { imports }],
    [
      'floats and vectors, bit for bit',
      guest(
        `(global.set 0 (f32.reinterpret_i32 (i32.const 0x7fa00001))) (global.set 1 (f64.reinterpret_i64 (i64.const 0xfff4000000000001)))
         (global.set 2 (v128.const i32x4 1 2 3 0x7fa00001)) (global.set 3 (f32.const -0))`,
        `(global (mut f32) (f32.const 0)) (global (mut f64) (f64.const 0)) (global (mut v128) (v128.const i64x2 0 0))
         (global (export "zero") (mut f32) (f32.const 0)) (global (mut i64) (i64.const 5))`,
      ),
    ],
    ['tables and references', guest('(table.set 0 (i32.const 2) (ref.func $f)) (table.set 0 (i32.const 0) (table.get 0 (i32.const 1))) (global.set 0 (ref.func $g))', '(table 3 funcref) (elem (i32.const 1) $g) (elem declare func $f) (global (mut funcref) (ref.null func)) (func $f) (func $g)')],
    ['segments that were dropped', guest('(data.drop 0) (elem.drop 0) (memory.init 1 (i32.const 0) (i32.const 1) (i32.const 2))', '(memory 1) (table 1 funcref) (data "abc") (data "def") (elem func $f) (elem func $f) (func $f)')],
    ['a start function', '(module (memory 1) (func $s (i32.store (i32.const 1) (i32.const 2))) (start $s) (func (export "wizer.initialize")))'],
    ['a shared memory', guest('(i32.atomic.store (i32.const 8) (i32.const 9))', '(memory 1 2 shared)')],
    ['a preloaded module', guest('(call $x)', '(import "lib" "x" (func $x)) (import "lib" "m" (memory 1))'), {
      preload: { lib: '(module (memory (export "m") 1) (func (export "x") (i32.store (i32.const 0) (i32.const 9))))' },
    }],
    ['references of the host, null again', guest('(global.set 0 (call $f)) (call $g (global.get 0)) (global.set 0 (ref.null extern))', `
      (import "env" "f" (func $f (result externref))) (import "env" "g" (func $g (param externref))) (global (mut externref) (ref.null extern))`), {
      imports: () => {
        const object = {}
        return { env: { f: () => object, g: (given) => assert.equal(given, object) } }
      },
    }],
    ['WASI', guest('(drop (call $random (i32.const 0) (i32.const 0))) (drop (call $sizes (i32.const 0) (i32.const 4)))', `
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32))) (memory (export "memory") 1)`), {
      allowWasi: true, env: { A: 'b' },
    }],
    ['a program that ends itself', guest('(i32.store (i32.const 0) (i32.const 5)) (call $exit (i32.const 0))', `
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)`), { allowWasi: true, allowExit: true }],
    ...(hostRuns('(memory i64 1)') ? [['64-bit addresses', guest('(i64.store (i64.const 8) (i64.const 9))', '(memory i64 1)')]] : []),
    ...(EXCEPTIONS ? [['an exception of the host', guest('(block $c (result i32) (try_table (catch $t $c) (call $f)) (return)) (global.set 0)', `
      (import "env" "t" (tag $t (param i32))) (import "env" "f" (func $f)) (global (mut i32) (i32.const 0))`), {
      imports: () => {
        const t = new WebAssembly.Tag({ parameters: ['i32'] })
        return { env: { t, f() { throw new WebAssembly.Exception(t, [42]) } } }
      },
    }]] : []),
  ]) {
    it(what, async () => {
      const given = () => ({ ...options, ...(typeof options?.imports === 'function' && { imports: options.imports.length > 0 ? options.imports : options.imports() }) })
      const { wasm: output, report } = await snapshot(wasm, { ...given(), ...host })
      assert.equal(report.engine.name, 'V8')
      assert.deepEqual(output, await wizer(wasm, { ...given(), engine: 'optimizing', cache: false }))
      assert.deepEqual(output, wizerSync(wasm, { ...given(), ...host }))
    })
  }
})

describe('what goes wrong is told as by the others', () => {
  for (const [what, wasm, options] of [
    ['a load', guest('(call $f)', '(memory 1) (func $f (drop (i32.load (i32.const 70000))))')],
    ['a division', guest('(drop (i32.div_s (i32.const 1) (i32.const 0)))')],
    ['an overflow', guest('(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))')],
    ['a conversion', guest('(drop (i32.trunc_f32_s (f32.const nan)))')],
    ['a table', guest('(call_indirect (i32.const 9))', '(table 1 funcref)')],
    ['a segment', guest('', '(memory 1) (data (i32.const 65536) "a")')],
    ['an import that throws', guest('(call $f)', '(import "env" "f" (func $f))'), { imports: { env: { f() { throw new Error('boom') } } } }],
    ['an import that nobody provides', guest('(call $f)', '(import "env" "f" (func $f))')],
    ['the end of the program', guest('(call $exit (i32.const 3))', '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'), { allowWasi: true }],
    ...(EXCEPTIONS ? [
      ['what no module catches: of an import', guest('(block $c (try_table (catch_all $c) (call $f)))', '(import "env" "f" (func $f))'), { imports: { env: { f() { throw new Error('boom') } } } }],
      ['what no module catches: a trap', guest('(block $c (try_table (catch_all $c) (call $f)))', '(memory 1) (func $f (drop (i32.load (i32.const 70000))))')],
    ] : []),
  ]) {
    it(what, async () => {
      const [one, other] = await Promise.all(['host', 'optimizing'].map((engine) => failure(wizer(wasm, { ...options, engine, cache: false }))))
      for (const part of ['code', 'message', 'wasmBacktrace']) assert.deepEqual(one[part], other[part])
      assert.equal(String(one.cause), String(other.cause))
    })
  }

  it('a recursion without end', async () => {
    const error = await failure(wizer(guest('(call $f)', '(func $f (call $f))'), host))
    assert.equal(error.code, 'ERR_WIZER_TRAP')
    assert.match(error.message, /call stack exhausted/)
    assert.match(error.wasmBacktrace[3], /!f$/)
  })

  it('an import that does not fit', async () => {
    const memory = new WebAssembly.Memory({ initial: 1 })
    const error = await failure(wizer(guest('', '(import "env" "f" (func $f)) (import "env" "m" (memory 3))'), { ...host, imports: { env: { f() {}, m: memory } } }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_TYPE')
    assert.match(error.message, /`env::m`/)
  })

  for (const [what, wasm, options, expected] of [
    ['vectors that a function would have to be given', guest('(call $f (v128.const i64x2 1 2))', '(import "env" "f" (func $f (param v128)))'), {}, /v128/],
    ['a limit of memory', guest('', '(memory 1)'), { maxMemory: 65536 }, /limit/],
  ]) {
    it(`what it does not do: ${what}`, async () => {
      const { code, message } = await failure(wizer(wasm, { ...host, ...options }))
      assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
      assert.match(message, expected)
    })
  }
})

describe('a loop without end is ended', () => {
  const ENDLESS = guest('(loop (br 0))')

  it('by the timeout', async () => {
    assert.equal((await failure(wizer(ENDLESS, { ...host, timeout: 200 }))).code, 'ERR_WIZER_TIMEOUT')
    assert.throws(() => wizerSync(ENDLESS, { ...host, timeout: 200 }), { code: 'ERR_WIZER_TIMEOUT' })
    // And the next run has another worker.
    assert.ok(await wizer(guest(''), host))
  })

  it('by the signal', async () => {
    const signal = AbortSignal.timeout(200)
    const { code, cause } = await failure(wizer(ENDLESS, { ...host, signal }))
    assert.deepEqual([code, cause], ['ERR_WIZER_ABORTED', signal.reason])
  })

  it('by the end of the process, and of the worker that began it', async () => {
    const index = fileURLToPath(import.meta.resolve('@jakechampion/wizer'))
    const program = `import { wizer } from ${JSON.stringify(`file://${index.replace(/index\.js$/, 'index.mjs')}`)}
      wizer('${ENDLESS}', { engine: 'host' }).catch(() => {})`
    const directory = mkdtempSync(join(tmpdir(), 'wizer-host-'))
    try {
      const file = join(directory, 'endless.mjs')
      writeFileSync(file, `${program}\nsetTimeout(() => process.exit(7), 300)`)
      assert.equal(spawnSync(process.execPath, [file], { timeout: 30_000 }).status, 7)
      writeFileSync(file, program)
      const worker = new Worker(file)
      await new Promise((resolve) => setTimeout(resolve, 300))
      await worker.terminate()
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })
})

describe('sessions', () => {
  const MODULE = `(module (memory (export "memory") 1) (global $n (export "n") (mut i32) (i32.const 0)) (table (export "table") funcref (elem $add))
    (func $add (export "add") (param i32) (result i32) (global.set $n (i32.add (global.get $n) (local.get 0))) (global.get $n)))`

  it('go on in one worker', async () => {
    const session = await Session.create(MODULE, host)
    assert.deepEqual([await session.call('add', 4), await session.callIndirect('table', 0, 5), await session.global('n')], [4, 9, 9])
    await session.memory().write(70, 'text')
    assert.equal(await session.memory().readString(70), 'text')
    const { wasm, report } = await session.snapshotWithReport()
    assert.equal(report.engine.name, 'V8')
    await session.close()
    const other = await Session.create(wasm, { engine: 'interpreter' })
    assert.deepEqual([await other.global('n'), await other.memory().readString(70)], [9, 'text'])
  })

  it('sixteen at once', async () => {
    const sessions = await Promise.all(Array.from({ length: 16 }, () => Session.create(MODULE, host)))
    const added = await Promise.all(sessions.map((session, i) => session.call('add', i)))
    assert.deepEqual(added, sessions.map((_, i) => i))
    await Promise.all(sessions.map((session) => session.close()))
  })

  it('that are dropped do not keep the process', () => {
    const index = fileURLToPath(import.meta.resolve('@jakechampion/wizer'))
    const program = `require(${JSON.stringify(index)}).Session.create('(module)', { engine: 'host' }).then(() => console.log('made'))`
    const { status, stdout } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', timeout: 30_000 })
    assert.deepEqual([status, stdout], [0, 'made\n'])
  })
})

/** More code than is compiled before another engine would have begun. */
const LARGE = `(func ${'(drop (i32.add (i32.const 1) (i32.mul (i32.const 2) (i32.const 3))))'.repeat(15_000)})`

describe('`auto` leaves to it', () => {
  const run = async (body, fields, options) => (await snapshot(guest(body, `${fields} ${LARGE}`), { cache: false, ...options })).report.engine

  it('a large module that calls an import, or takes long', async () => {
    assert.equal((await run('(call $f)', '(import "env" "f" (func $f))', { imports: { env: { f() {} } } })).name, 'V8')
    const loop = '(local $i i32) (loop (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000000))))'
    assert.equal((await run(loop, '')).name, 'V8')
    const session = await Session.create(guest('', LARGE))
    assert.equal((await session.snapshotWithReport()).report.engine.name, 'V8')
    await session.close()
  })

  it('not what it does not do', async () => {
    const given = { imports: { env: { f() {} } } }
    assert.equal((await run('(call $f)', '(import "env" "f" (func $f))', { ...given, maxMemory: 2 ** 30 })).name, 'wasmtime (Winch)')
    const { name, reason } = await run('(call $f)', '(import "env" "f" (func $f)) (import "env" "v" (func (param v128)))', given)
    assert.notEqual(name, 'V8')
    assert.match(reason, /v128/)
  })

  it('legacy exceptions, whatever the size', async () => {
    const legacy = guest('try call $f catch $t global.set 0 end', `
      (tag $t (param i32)) (global (mut i32) (i32.const 0)) (func $f (throw $t (i32.const 42)))`)
    const { wasm, report } = await snapshot(legacy, { keepInitFunc: true })
    assert.equal(report.engine.name, 'V8')
    // The code is as it was, and the global what the initialization made of it.
    assert.deepEqual(await wizer(wasm, { keepInitFunc: true }), wasm)
    assert.ok(wasm.includes(Buffer.from([0x41, 42, 0x0b])), 'the global is 42')
    const { code, message } = await failure(wizer(legacy, { engine: 'baseline' }))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    assert.match(message, /legacy exceptions/)
  })
})
