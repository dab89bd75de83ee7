// Sessions: an instance that is called and written step by step. What the outputs are is judged by V8.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Session, WizerError, wizer } from '@jakechampion/wizer'
import { start } from './helpers/v8.mjs'

/** Counts, and keeps a function in a table. */
const COUNTER = `(module
  (import "test" "note" (func $note (param i32)))
  (memory (export "memory") 1)
  (table (export "table") 2 funcref)
  (global $n (mut i64) (i64.const 0))
  (func $one (export "one") (result i32) (i32.const 1))
  (func (export "add") (param i64) (result i64)
    (global.set $n (i64.add (global.get $n) (local.get 0)))
    (global.get $n))
  (func (export "keep") (param i32 funcref) (table.set (local.get 0) (local.get 1)))
  (func (export "kept") (param i32) (result funcref) (table.get (local.get 0)))
  (func (export "swap") (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))
  (func (export "i31") (param i32) (result i32) (local.get 0))
  (func (export "note") (param i32) (call $note (local.get 0)))
  (func (export "store then trap") (i32.store8 (i32.const 8) (i32.const 1)) unreachable)
  (func (export "_initialize") (global.set $n (i64.const 100)))
  (func (export "wizer.initialize") (global.set $n (i64.const 200))))`

async function failure(promise, code) {
  const error = await promise.then(() => assert.fail('it did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  assert.equal(error.code, code, error.message)
  return error
}

const instance = async (wasm) => {
  const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(wasm), { test: { note() {} } })
  return exports
}

describe('a session', () => {
  for (const engine of ['auto', 'interpreter', 'baseline', 'optimizing', 'host']) {
    it(`is called, written, and goes on (${engine})`, async () => {
      const session = await Session.create(COUNTER, { engine, cache: false })
      assert.equal(await session.call('add', 2n), 2n)
      const first = await session.snapshot()
      assert.equal(await session.call('add', 40n), 42n)
      const second = await session.snapshot()
      assert.deepEqual(await session.snapshot(), second)
      await session.close()
      assert.equal((await instance(first)).add(1n), 3n)
      assert.equal((await instance(second)).add(1n), 43n)
    })
  }

  it('runs nothing by itself, and removes what was called of the initialization', async () => {
    const session = await Session.create(COUNTER)
    const before = await instance(await session.snapshot())
    assert.equal(before.add(0n), 0n)
    assert.ok(before._initialize && before['wizer.initialize'])
    await session.call('_initialize')
    const between = await instance(await session.snapshot())
    assert.equal(between.add(0n), 100n)
    assert.ok(!between._initialize && between['wizer.initialize'])
    await session.call('wizer.initialize')
    const after = await instance(await session.snapshot())
    assert.equal(after.add(0n), 200n)
    assert.ok(!after._initialize && !after['wizer.initialize'])
    await session.close()
  })

  it('takes and gives the values of the WebAssembly JavaScript API', async () => {
    const session = await Session.create(COUNTER)
    assert.deepEqual(await session.call('swap', 7, 0.5), [0.5, 7])
    assert.equal(await session.call('i31', 4294967295), -1)
    assert.equal(await session.call('i31'), 0)
    await assert.rejects(session.call('add', 1), TypeError)
    await session.close()

    const references = await Session.create(`(module
      (func (export "same") (param externref) (result externref) (local.get 0))
      (func (export "i31") (param i32) (result anyref) (ref.i31 (local.get 0)))
      (func (export "external i31") (param i32) (result externref) (extern.convert_any (ref.i31 (local.get 0))))
      (func (export "eq") (param eqref))
      (func (export "any") (param anyref) (result anyref) (local.get 0)))`)
    const object = {}
    for (const value of [object, null, undefined, 1n, 'text']) assert.equal(await references.call('same', value), value)
    for (const value of [0, 1, -1, 2 ** 30 - 1, -(2 ** 30)]) {
      assert.equal(await references.call('i31', value), value)
      assert.equal(await references.call('external i31', value), value)
      assert.equal(await references.call('any', value), value)
    }
    await assert.rejects(references.call('eq', 2 ** 30), TypeError)
    await assert.rejects(references.call('eq'), TypeError)
    await references.close()

    const strict = await Session.create(`(module
      (func (export "is null") (param funcref) (result i32) (ref.is_null (local.get 0)))
      (func (export "strict") (param externref) (result (ref extern)) (ref.as_non_null (local.get 0)))
      (func (export "lax") (param (ref extern)) (result externref) (local.get 0)))`)
    await assert.rejects(strict.call('is null'), TypeError)
    assert.equal(await strict.call('is null', null), 1)
    assert.equal(await strict.call('strict', object), object)
    assert.equal(await strict.call('lax', object), object)
    await assert.rejects(strict.call('lax', null), TypeError)
    await strict.close()
  })

  it('gives functions as handles, which it takes again', async () => {
    const bytes = `(module
      (table (export "table") 3 funcref)
      (func $one (export "one") (result i32) (i32.const 1))
      (func (export "get one") (result funcref) (ref.func $one))
      (func (export "keep") (param i32 funcref) (table.set (local.get 0) (local.get 1)))
      (func (export "kept") (param i32) (result funcref) (table.get (local.get 0))))`
    for (const engine of ['interpreter', 'baseline', 'optimizing', 'host']) {
      const session = await Session.create(bytes, { engine, cache: false })
      const one = await session.call('get one')
      assert.equal(typeof one, 'object')
      assert.equal(await session.call('kept', 1), null)
      await session.call('keep', 1, one)
      assert.equal(await session.call('kept', 1), one)
      await assert.rejects(session.call('keep', 1, {}), TypeError)
      await assert.rejects(session.call('keep', 1, () => 1), TypeError)
      const other = await Session.create(bytes, { engine, cache: false })
      await assert.rejects(other.call('keep', 1, one), TypeError)
      const { table } = await instance(await session.snapshot())
      assert.equal(table.get(0), null)
      assert.equal(table.get(1)(), 1)
      await Promise.all([session.close(), other.close()])
    }
  })

  it('gives objects and exceptions as handles, which it takes again', async () => {
    const bytes = `(module
      (type $point (struct (field (mut i32))))
      (type $list (array (mut i8)))
      (type $other (struct (field f64)))
      (tag $oops (param i32))
      (global $seen (mut i32) (i32.const 0))
      (global (export "held") (mut anyref) (ref.null any))
      (func (export "point") (param i32) (result (ref $point)) (struct.new $point (local.get 0)))
      (func (export "x") (param (ref $point)) (result i32)
        (global.set $seen (struct.get $point 0 (local.get 0)))
        (global.get $seen))
      (func (export "move") (param (ref $point) i32) (struct.set $point 0 (local.get 0) (local.get 1)))
      (func (export "list") (result (ref $list)) (array.new_default $list (i32.const 7)))
      (func (export "length") (param arrayref) (result i32) (array.len (local.get 0)))
      (func (export "other") (result (ref $other)) (struct.new $other (f64.const 1)))
      (func (export "same") (param anyref) (result anyref) (local.get 0))
      (func (export "outside") (param anyref) (result externref) (extern.convert_any (local.get 0)))
      (func (export "inside") (param externref) (result anyref) (any.convert_extern (local.get 0)))
      (func (export "hold") (param anyref) (global.set 1 (local.get 0)))
      (func (export "exception") (param i32) (result (ref exn))
        (block $caught (result (ref exn))
          (try_table (catch_all_ref $caught) (throw $oops (local.get 0)))
          unreachable))
      (func (export "code") (param exnref) (result i32)
        (block $caught (result i32)
          (try_table (catch $oops $caught) (throw_ref (local.get 0)))
          unreachable))
      (func (export "seen") (result i32) (global.get $seen)))`
    const session = await Session.create(bytes, { cache: false })
    const point = await session.call('point', 3)
    assert.equal(typeof point, 'object')
    await session.call('move', point, 4)
    assert.equal(await session.call('x', point), 4)
    assert.equal(await session.call('length', await session.call('list')), 7)
    // The same object is the same handle, whatever its type is.
    for (const way of ['same', 'outside', 'inside']) assert.equal(await session.call(way, point), point, way)
    assert.notEqual(await session.call('point', 3), point)
    assert.equal(await session.call('same', 5), 5)
    assert.equal(await session.call('same', null), null)
    // What JavaScript gave comes out of the module's hierarchy as it went in.
    const value = { of: 'JavaScript' }
    assert.equal(await session.call('outside', await session.call('inside', value)), value)
    for (const value of ['text', 1.5, 2 ** 30, undefined, Symbol('one'), {}]) {
      assert.equal(await session.call('same', value), value)
      assert.equal(await session.call('outside', value), value)
    }

    const exception = await session.call('exception', 6)
    assert.equal(await session.call('code', exception), 6)

    for (const [name, value] of [['x', await session.call('other')], ['same', exception], ['length', point], ['code', point]]) {
      const error = await failure(session.call(name, value), 'ERR_WIZER_OPTION')
      assert.match(error.message, new RegExp(`^\`${name}\` cannot be called: an (object|exception) was given where (a value of type [(]ref .*|a struct of another type|a value of type .*ref) is wanted$`))
    }
    await assert.rejects(session.call('x', { ...point }), TypeError)
    const other = await Session.create(bytes, { cache: false })
    await assert.rejects(other.call('x', point), TypeError)

    // A handle keeps nothing from being written; what the module itself holds does.
    const next = await Session.create(await session.snapshot(), { cache: false })
    assert.equal(await next.call('seen'), 4)
    await session.call('hold', point)
    assert.match((await failure(session.snapshot(), 'ERR_WIZER_UNREPRESENTABLE_STATE')).message, /held/)
    await session.call('hold', null)
    await session.snapshot()
    await Promise.all([session.close(), next.close(), other.close()])
  })

  it('reads globals', async () => {
    const session = await Session.create(`(module
      (global (export "n") (mut i64) (i64.const 5))
      (global (export "f") funcref (ref.func $f))
      (global (export "v") v128 (v128.const i64x2 0 0))
      (func $f (export "same") (param funcref) (result funcref) (local.get 0)))`)
    assert.equal(await session.global('n'), 5n)
    const f = await session.global('f')
    assert.equal(await session.call('same', f), f)
    await assert.rejects(session.global('v'), TypeError)
    await failure(session.global('same'), 'ERR_WIZER_OPTION')
    await session.close()
  })

  it('calls modules beside its own, and takes their bytes at once', async () => {
    const session = await Session.create(COUNTER)
    const counter = (step) => `(module (global $n (mut i32) (i32.const 0))
      (func (export "count") (param externref) (result externref i32)
        (global.set $n (i32.add (global.get $n) (i32.const ${step})))
        (local.get 0) (global.get $n)))`
    const bytes = new TextEncoder().encode(counter(1))
    const slow = session.call('add', 1n)
    const made = session.instantiate('side', bytes)
    bytes.set(new TextEncoder().encode(counter(2)))
    await Promise.all([slow, made])
    const object = {}
    assert.deepEqual(await session.callBeside('side', 'count', object), [object, 1])
    assert.equal((await session.callBeside('side', 'count', object))[0], object)
    await failure(session.callBeside('side', 'none'), 'ERR_WIZER_OPTION')
    await failure(session.callBeside('none', 'count'), 'ERR_WIZER_OPTION')
    assert.match((await failure(session.snapshot(), 'ERR_WIZER_UNREPRESENTABLE_STATE')).message, /`side`/)
    await session.close()
  })

  it('instantiates modules that share its state', async () => {
    const session = await Session.create(COUNTER)
    const side = `(module
      (import "main" "memory" (memory 1))
      (import "main" "table" (table 2 funcref))
      (import "main" "one" (func $one (result i32)))
      (import "main" "add" (func $add (param i64) (result i64)))
      (data (i32.const 8) "*")
      (elem (i32.const 1) $one)
      (func $start (drop (call $add (i64.const 3))))
      (start $start))`
    await failure(session.instantiate('side', side), 'ERR_WIZER_IMPORT_MISSING')
    await session.register('main')
    await session.instantiate('side', side)
    const written = await instance(await session.snapshot())
    assert.equal(new Uint8Array(written.memory.buffer)[8], 42)
    assert.equal(written.kept(1), written.one)
    assert.equal(written.add(0n), 3n)
    await failure(session.instantiate('side', '(module)'), 'ERR_WIZER_OPTION')
    await failure(session.register('side'), 'ERR_WIZER_OPTION')
    await failure(session.instantiate('other', new Uint8Array(8)), 'ERR_WIZER_INVALID_MODULE')
    for (const name of [undefined, 5]) {
      await failure(session.register(name), 'ERR_WIZER_OPTION')
      await failure(session.instantiate(name, '(module)'), 'ERR_WIZER_OPTION')
    }
    assert.match((await failure(session.instantiate('other', './plugin.wasm'), 'ERR_WIZER_INVALID_MODULE')).message, /no path/)
    assert.doesNotMatch((await failure(session.instantiate('other', new Uint8Array(8)), 'ERR_WIZER_INVALID_MODULE')).message, /no path/)
    await failure(session.instantiate('other', 5), 'ERR_WIZER_OPTION')
    await session.close()
    await failure(session.instantiate('other', '(module)'), 'ERR_WIZER_OPTION')
  })

  it('goes on after a trap, with what was done until then', async () => {
    const session = await Session.create(COUNTER)
    const error = await failure(session.call('store then trap'), 'ERR_WIZER_TRAP')
    assert.ok(error.wasmBacktrace.length > 0)
    assert.equal(await session.call('add', 5n), 5n)
    const { memory } = await instance(await session.snapshot())
    assert.equal(new Uint8Array(memory.buffer)[8], 1)
    await session.close()
  })

  it('is not written where a call was ended from outside', async () => {
    const session = await Session.create('(module (memory 1) (func (export "loop") (loop (i32.store (i32.const 0) (i32.const 1)) (br 0))))', { timeout: 50 })
    await session.snapshot()
    await failure(session.call('loop'), 'ERR_WIZER_TIMEOUT')
    await failure(session.snapshot(), 'ERR_WIZER_TIMEOUT')
    await session.close()
  })

  it('calls imports on this thread', async () => {
    const notes = []
    const session = await Session.create(COUNTER, { imports: { test: { note: (n) => void notes.push(n) } } })
    await session.call('note', 1)
    await session.call('note', 2)
    assert.deepEqual(notes, [1, 2])
    await session.close()

    const value = new Error('no')
    const failing = await Session.create(COUNTER, {
      imports: {
        test: {
          note() {
            throw value
          },
        },
      },
    })
    assert.equal((await failure(failing.call('note', 1), 'ERR_WIZER_IMPORT_FAILED')).cause, value)
    assert.equal(await failing.call('add', 1n), 1n)
    await failing.close()
  })

  it('does one step after the other', async () => {
    const session = await Session.create(COUNTER)
    const steps = [1n, 2n, 3n].map((n) => session.call('add', n))
    const snapshot = session.snapshot()
    const closed = session.close()
    assert.deepEqual(await Promise.all(steps), [1n, 3n, 6n])
    assert.equal((await instance(await snapshot)).add(0n), 6n)
    await closed
    await session.close()
    await failure(session.call('add', 1n), 'ERR_WIZER_OPTION')
    await failure(session.snapshot(), 'ERR_WIZER_OPTION')
  })

  it('is ended by its timeout or its signal', async () => {
    const endless = `(module (func (export "loop") (loop (br 0))) (func (export "f")))`
    for (const engine of ['interpreter', 'baseline', 'optimizing', 'host']) {
      const late = await Session.create(endless, { timeout: 200, engine, cache: false })
      await late.call('f')
      await failure(late.call('loop'), 'ERR_WIZER_TIMEOUT')
      await late.close()
      const controller = new AbortController()
      const aborted = await Session.create(endless, { signal: controller.signal, engine, cache: false })
      const call = aborted.call('loop')
      setTimeout(() => controller.abort('enough'), 50)
      const error = await failure(call, 'ERR_WIZER_ABORTED')
      assert.deepEqual([error.name, error.cause], ['AbortError', 'enough'])
      await failure(aborted.call('f'), 'ERR_WIZER_ABORTED')
      await aborted.close()
    }
  })

  it('tells what it captured since the last time', async () => {
    const prints = `(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\\08\\00\\00\\00\\03\\00\\00\\00abc")
      (func (export "print") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64))))
      (func (export "print then trap") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64))) unreachable))`
    const session = await Session.create(prints, { allowWasi: true, stdout: 'pipe' })
    await session.call('print')
    await session.call('print')
    const { wasm, report, stdout } = await session.snapshotWithReport()
    assert.equal(String(stdout), 'abcabc')
    assert.deepEqual(report.hostCalls, [{ module: 'wasi_snapshot_preview1', name: 'fd_write', calls: 2, stub: false }])
    assert.equal(report.outputBytes, wasm.length)
    const error = await failure(session.call('print then trap'), 'ERR_WIZER_TRAP')
    assert.equal(String(error.stdout), 'abc')
    await session.close()
  })

  it('refuses what cannot be', async () => {
    await failure(Session.create('(module'), 'ERR_WIZER_INVALID_TEXT')
    await failure(Session.create('(module (func $f unreachable) (start $f))'), 'ERR_WIZER_TRAP')
    assert.throws(() => new Session(), TypeError)
    const session = await Session.create(COUNTER)
    await failure(session.call('nothing'), 'ERR_WIZER_OPTION')
    await failure(session.call('memory'), 'ERR_WIZER_OPTION')
    await session.close()
  })
})

describe('the option `invoke`', () => {
  it('calls before the initialization function, or instead', async () => {
    const bytes = `(module
      (global $n (mut i32) (i32.const 1))
      (func (export "n") (result i32) (global.get $n))
      (func (export "times") (param i32) (global.set $n (i32.mul (global.get $n) (local.get 0))))
      (func (export "plus") (param i32) (global.set $n (i32.add (global.get $n) (local.get 0)))))`
    const exports = start(await wizer(bytes, { invoke: ['plus(2)', 'times(0x10)', 'plus(-1)'] }))
    assert.equal(exports.n(), 47)
    await failure(wizer(bytes, { invoke: ['plus'] }), 'ERR_WIZER_OPTION')
    await failure(wizer(bytes, { invoke: ['minus(1)'] }), 'ERR_WIZER_OPTION')
    await failure(wizer(bytes, { invoke: ['plus(1'] }), 'ERR_WIZER_OPTION')
    await failure(wizer(bytes, { invoke: [1] }), 'ERR_WIZER_OPTION')

    const both = await instance(await wizer(COUNTER, { invoke: ['add(1)'] }))
    assert.equal(both.add(0n), 200n)
    const instead = await instance(await wizer(COUNTER, { invoke: ['wizer.initialize', 'add(1)'] }))
    assert.equal(instead.add(0n), 201n)
    assert.ok(!instead['wizer.initialize'] && !instead._initialize)
  })
})
