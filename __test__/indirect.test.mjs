// Calls of a table's slots by imports, and what an import may catch: traps, exceptions, exits. V8 is the judge: there, an
// import has the exported table, and a `try`.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { start, state } from './helpers/v8.mjs'
import { wasi } from './helpers/wasi.mjs'
import { assemble } from './helpers/wat.mjs'

const engines = ['interpreter', 'baseline', 'optimizing', 'host']

/** Runs a test on each engine. */
function each(name, test, on = engines) {
  for (const engine of on) it(`${name} (${engine})`, () => test((wasm, options) => wizer(wasm, { engine, ...options }), engine))
}

/** The error that a run ends with. */
async function failure(promise) {
  const error = await promise.then(() => assert.fail('the run did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  return error
}

/** The host, for V8: what wizer's would do with an instance's exports. */
const hostOf = (exports) => ({
  call: (name, ...args) => exports[name](...args),
  callIndirect: (table, slot, ...args) => exports[table ?? 'table'].get(slot)(...args),
})

/** The imports for V8: the same functions, with the host of an instance that is made later. */
function inV8(make) {
  const exports = {}
  const imports = make(hostOf(exports))
  return { imports, use: (instance) => (Object.assign(exports, instance), instance) }
}

/** Asserts that initializing with these imports gives what V8 gives. */
async function asInV8(run, wat, make) {
  const original = assemble(wat)
  const output = await run(original, { imports: make })
  const { imports, use } = inV8(make)
  const before = use(start(original, imports))
  before['wizer.initialize']()
  assert.deepEqual(state(start(output, imports)), state(before))
  return output
}

describe('callIndirect', () => {
  const typed = (type) => `(module
    (import "test" "f" (func $f))
    (table (export "table") 6 funcref)
    (elem (i32.const 1) $none $i64 $two $same $f)
    (func $none) (func $i64 (param i64) (result i64) (i64.add (local.get 0) (i64.const 1)))
    (func $two (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))
    (func $same (param ${type}) (result ${type}) (local.get 0))
    (func (export "wizer.initialize") (call $f)))`

  each('converts values by the type of what is in the slot', async (run, engine) => {
    // Winch has no `externref`.
    const [type, value] = engine === 'baseline' ? ['f32', 0.5] : ['externref', {}]
    let calls = 0
    await run(typed(type), {
      imports: (host) => ({
        test: {
          f() {
            if (calls++ > 0) return
            for (const table of [undefined, 'table']) {
              assert.equal(host.callIndirect(table, 1), undefined)
              assert.equal(host.callIndirect(table, 2, 2n ** 63n - 1n), -(2n ** 63n))
              assert.deepEqual(host.callIndirect(table, 3n, '5', '0.5'), [0.5, 5])
              assert.equal(host.callIndirect(table, 4, value), value)
              assert.throws(() => host.callIndirect(table, 2, 1), TypeError)
            }
            host.callIndirect(undefined, 5)
            assert.equal(calls, 2)
          },
        },
      }),
    })
    assert.equal(calls, 2)
  })

  each('says what is not there', async (run) => {
    const isHost = (message) => ({ name: 'WizerError', code: 'ERR_WIZER_HOST', message })
    await run(typed('f32'), {
      imports: (host) => ({
        test: {
          f() {
            assert.throws(() => host.callIndirect(undefined, 0), isHost(/slot 0.*null/))
            assert.throws(() => host.callIndirect(undefined, 6), isHost(/6 slots/))
            assert.throws(() => host.callIndirect(undefined, 2n ** 64n - 1n), isHost(/6 slots/))
            assert.throws(() => host.callIndirect('missing', 1), isHost(/`missing`.*`table`/))
            for (const slot of [-1, 1.5, NaN, '1', undefined, null, -1n, 2n ** 64n, Symbol('s')]) {
              assert.throws(() => host.callIndirect(undefined, slot), isHost(/is no slot/))
            }
          },
        },
      }),
    })
  })

  it('is of use only while an import is called', async () => {
    let host
    await wizer(typed('f32'), { imports: (given) => ((host = given), { test: { f() {} } }) })
    assert.throws(() => host.callIndirect(undefined, 1), { code: 'ERR_WIZER_HOST', message: /only while/ })
  })

  each('finds the only table of functions, imported ones, and those that are named', async (run, engine) => {
    const functions = '(func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))'
    const guest = (tables) => `(module (import "test" "f" (func $f)) ${tables} ${functions} (func (export "wizer.initialize") (call $f)))`
    const other = engine === 'optimizing' ? '(table 1 externref)' : ''
    const call = async (tables, ...calls) => {
      const results = []
      const imports = (host) => ({
        env: { table: { element: 'anyfunc', initial: 2 } },
        test: { f: () => void results.push(...calls.map(([table, slot]) => host.callIndirect(table, slot))) },
      })
      await run(guest(tables), { imports })
      return results
    }
    assert.deepEqual(await call(`${other} (table funcref (elem $one $two))`, [undefined, 0], [undefined, 1]), [1, 2])
    const imported = '(import "env" "table" (table $t 2 funcref)) (elem (table $t) (i32.const 0) func $two $one)'
    assert.deepEqual(await call(imported, [undefined, 0], ['env.table', 1]), [2, 1])
    const two = `${imported} (table (export "__indirect_function_table") funcref (elem $one)) (table (export "two") funcref (elem $two))`
    assert.deepEqual(await call(two, ['env.table', 0], [undefined, 0], ['two', 0]), [2, 1, 2])
    const several = `${imported} (table (export "two") funcref (elem $two))`
    const error = await failure(call(several, [undefined, 0]))
    assert.equal(error.cause.code, 'ERR_WIZER_HOST')
    assert.match(error.cause.message, /`env.table`, `two`/)
  })

  each('takes slots of tables with 64-bit addresses', async (run) => {
    const guest = `(module (import "test" "f" (func $f)) (table i64 funcref (elem $one))
      (func $one (result i32) (i32.const 1)) (func (export "wizer.initialize") (call $f)))`
    const results = []
    await run(guest, { imports: (host) => ({ test: { f: () => void results.push(host.callIndirect(undefined, 0n), host.callIndirect(undefined, 0)) } }) })
    assert.deepEqual(results, [1, 1])
  }, ['optimizing'])

  each('of an import, which finds the instance', async (run) => {
    const guest = `(module (import "test" "f" (func $f)) (import "test" "g" (func $g)) ${wasi('sched_yield', 'random_get')}
      (table funcref (elem $g $random_get)) (memory 3) (func (export "wizer.initialize") (call $f)))`
    const seen = []
    const imports = (host) => ({
      test: {
        f() {
          host.callIndirect(undefined, 0)
          seen.push(host.callIndirect(undefined, 1, 0, 8), host.memory().length)
        },
        g: () => void seen.push(host.memory().length),
      },
    })
    await run(guest, { allowWasi: true, imports })
    assert.deepEqual(seen, [196608, 0, 196608])
  })
})

/**
 * What a compiler makes of code that may throw or jump far: calls by `invoke`, which says in a flag how they ended. Slot 0
 * works, 1 to 7 trap, 8 throws by an import, 9 invokes 8 and returns normally, 10 invokes 8 and throws again, 11 works long.
 */
const THROWING = `(module
  (import "env" "invoke" (func $invoke (param i32 i32) (result i32)))
  (import "env" "throw" (func $throw (param i32)))
  (memory (export "memory") 1)
  (global $stack (export "stack") (mut i32) (i32.const 65536))
  (global $threw (export "threw") (mut i32) (i32.const 0))
  (global $log (export "log") (mut i32) (i32.const 0))
  (type $slot (func (param i32) (result i32)))
  (type $other (func (param i64) (result i64)))
  (table (export "table") 12 funcref)
  (elem (i32.const 0) $works $unreachable $bounds $divides $wrong $null $converts $deep $throws $catches $again $long)
  (func (export "setThrew") (param i32) (global.set $threw (local.get 0)))
  (func (export "stackSave") (result i32) (global.get $stack))
  (func (export "stackRestore") (param i32) (global.set $stack (local.get 0)))
  (func $enter (global.set $stack (i32.sub (global.get $stack) (i32.const 16))))
  (func $leave (global.set $stack (i32.add (global.get $stack) (i32.const 16))))
  (func $note (param i32) (i32.store8 (global.get $log) (local.get 0)) (global.set $log (i32.add (global.get $log) (i32.const 1))))
  (func $works (param i32) (result i32) (call $enter) (call $note (i32.const 1)) (call $leave) (i32.add (local.get 0) (i32.const 1)))
  (func $unreachable (param i32) (result i32) (call $enter) (call $note (i32.const 2)) unreachable)
  (func $bounds (param i32) (result i32) (call $enter) (i32.load (i32.const 65536)))
  (func $divides (param i32) (result i32) (call $enter) (i32.div_s (i32.const 1) (i32.const 0)))
  (func $wrong (param i32) (result i32) (call $enter) (i32.wrap_i64 (call_indirect (type $other) (i64.const 0) (i32.const 0))))
  (func $null (param i32) (result i32) (call $enter) (call_indirect (type $slot) (i32.const 0) (i32.const 99)))
  (func $converts (param i32) (result i32) (call $enter) (i32.trunc_f64_s (f64.const nan)))
  (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
  (func $throws (param i32) (result i32) (call $enter) (call $note (i32.const 3)) (call $throw (local.get 0)) (call $note (i32.const 4)) (i32.const 0))
  (func $catches (param i32) (result i32) (local $result i32)
    (call $enter)
    (local.set $result (call $invoke (i32.const 8) (local.get 0)))
    (call $note (i32.add (i32.const 5) (global.get $threw)))
    (global.set $threw (i32.const 0))
    (call $leave)
    (i32.add (local.get $result) (i32.const 100)))
  (func $again (param i32) (result i32)
    (call $enter)
    (drop (call $invoke (i32.const 8) (local.get 0)))
    (call $throw (i32.add (local.get 0) (i32.const 1)))
    (i32.const 0))
  (func $long (param i32) (result i32) (local $i i32)
    (loop $l
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 300000))))
    (local.get $i))
  (func $try (param $slot i32) (local $result i32)
    (local.set $result (call $invoke (local.get $slot) (local.get $slot)))
    (call $note (i32.add (i32.const 16) (global.get $threw)))
    (call $note (local.get $result))
    (global.set $threw (i32.const 0)))
  (func (export "wizer.initialize") (local $round i32) (local $slot i32)
    (loop $rounds
      (local.set $slot (i32.const 0))
      (loop $slots
        (call $try (local.get $slot))
        (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
        (br_if $slots (i32.lt_u (local.get $slot) (i32.const 12))))
      (local.set $round (i32.add (local.get $round) (i32.const 1)))
      (br_if $rounds (i32.lt_u (local.get $round) (i32.const 5))))))`

/** Throws numbers, and catches those and traps. */
const catching = (seen = []) => (host) => ({
  env: {
    throw(value) {
      throw { value }
    },
    invoke(slot, argument) {
      const stack = host.call('stackSave')
      try {
        return host.callIndirect(undefined, slot, argument)
      } catch (error) {
        seen.push(error.value ?? error)
        host.call('stackRestore', stack)
        host.call('setThrew', 1)
        return 0
      }
    },
  },
})

describe('what an import catches', () => {
  each('leaves the module as in V8', async (run) => {
    const seen = []
    await asInV8(run, THROWING, catching(seen))
    assert.ok(seen.length > 0)
  })

  it('leaves it so for `wizerSync` as well', async () => {
    await asInV8(async (...args) => wizerSync(...args), THROWING, catching())
  })

  each('is the very value that another import threw, or an error with a code', async (run) => {
    const seen = []
    await run(THROWING, { imports: catching(seen) })
    const round = seen.slice(0, seen.length / 5)
    assert.deepEqual(round.filter((error) => typeof error === 'number'), [8, 9, 10, 11])
    const traps = round.filter((error) => typeof error !== 'number')
    assert.equal(traps.length, 7)
    for (const error of traps) {
      assert.ok(error instanceof WizerError)
      assert.equal(error.code, 'ERR_WIZER_TRAP')
    }
    assert.match(traps[0].message, /the slot 1 of the table.*unreachable/)
    assert.match(traps[6].message, /call stack exhausted/)
  })

  each('can be caught ten thousand times', async (run) => {
    const guest = `(module (import "env" "invoke" (func $invoke (param i32)))
      (global $n (export "n") (mut i32) (i32.const 0))
      (table (export "table") funcref (elem $trap))
      (func $trap (global.set $n (i32.add (global.get $n) (i32.const 1))) unreachable)
      (func (export "wizer.initialize") (local $i i32)
        (loop $l
          (call $invoke (i32.const 0))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))))`
    const imports = (host) => ({ env: { invoke: (slot) => assert.throws(() => host.callIndirect(undefined, slot)) } })
    assert.equal(start(await run(guest, { imports })).n.value, 10000)
  })

  each('may be thrown again', async (run) => {
    const imports = (host) => ({
      env: {
        throw: () => {},
        invoke: (slot, argument) => host.callIndirect(undefined, slot, argument),
      },
    })
    const error = await failure(run(THROWING, { imports }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_FAILED')
    assert.equal(error.cause.code, 'ERR_WIZER_TRAP')
    assert.match(error.cause.message, /unreachable/)
  })

  each('is also that the program ended itself', async (run) => {
    const guest = `(module (import "env" "invoke" (func $invoke (param i32))) ${wasi('proc_exit')} (memory 1)
      (global $n (export "n") (mut i32) (i32.const 0))
      (table (export "table") funcref (elem $exit))
      (func $exit (call $proc_exit (i32.const 3)))
      (func (export "wizer.initialize") (call $invoke (i32.const 0)) (global.set $n (i32.const 1))))`
    const imports = (host) => ({ env: { invoke: (slot) => assert.throws(() => host.callIndirect(undefined, slot), { code: 'ERR_WIZER_EXIT', message: /status 3/ }) } })
    assert.equal(start(await run(guest, { allowWasi: true, imports })).n.value, 1)
  })

  each('is an exception of the module too, and the module goes on to throw and catch', async (run) => {
    const guest = `(module (import "env" "invoke" (func $invoke (param i32)))
      (tag $e (param i32))
      (global $n (export "n") (mut i32) (i32.const 0))
      (table (export "table") funcref (elem $throw))
      (func $throw (global.set $n (i32.add (global.get $n) (i32.const 1))) (throw $e (i32.const 10)))
      (func (export "wizer.initialize")
        (call $invoke (i32.const 0))
        (block $caught (result i32)
          (try_table (catch $e $caught) (call $throw))
          (i32.const 0))
        (global.set $n (i32.add (global.get $n)))
        (call $invoke (i32.const 0))))`
    const imports = (host) => ({ env: { invoke: (slot) => assert.throws(() => host.callIndirect(undefined, slot), { code: 'ERR_WIZER_TRAP', message: /exception/ }) } })
    const session = await Session.create(await run(guest, { imports }), { engine: 'optimizing' })
    assert.equal(await session.global('n'), 13)
    await session.close()
  }, ['optimizing'])
})

describe('an exception of the module', () => {
  /** `$outer` is called by `wizer.initialize`, which catches; it may call slot 0, which throws its argument. */
  const guest = `(module (import "env" "outer" (func $outer (param i32))) (import "env" "inner" (func $inner (param i32)))
    (tag $e (param i32))
    (global $caught (export "caught") (mut i32) (i32.const 0))
    (table (export "table") funcref (elem $throw $through))
    (func $throw (param i32) (throw $e (local.get 0)))
    (func $through (param i32) (call $inner (local.get 0)))
    (func (export "wizer.initialize")
      (global.set $caught (i32.add (global.get $caught)
        (block $e (result i32) (try_table (catch $e $e) (call $outer (i32.const 20))) (i32.const 1))))
      (global.set $caught (i32.add (global.get $caught)
        (block $e (result i32) (try_table (catch $e $e) (call $outer (i32.const 4))) (i32.const 1))))))`
  const caught = async (make) => {
    const session = await Session.create(await wizer(guest, { imports: (host) => ({ env: { inner() {}, ...make(host) } }) }))
    const result = await session.global('caught')
    await session.close()
    return result
  }

  it('goes through imports that let it, and the module catches it', async () => {
    assert.equal(await caught((host) => ({ outer: (value) => host.callIndirect(undefined, 0, value) })), 24)
    assert.equal(await caught((host) => ({ outer: (value) => host.callIndirect(undefined, 0, value + 1) })), 26)
  })

  it('goes through several', async () => {
    const make = (host) => ({
      outer: (value) => host.callIndirect(undefined, 1, value),
      inner: (value) => host.callIndirect(undefined, 0, value + 100),
    })
    assert.equal(await caught(make), 224)
  })

  it('is caught by one, and thrown again by the same one or not at all', async () => {
    const make = (keep) => (host) => ({
      outer(value) {
        try {
          host.callIndirect(undefined, 0, value)
        } catch (error) {
          assert.equal(error.code, 'ERR_WIZER_TRAP')
          if (keep(value)) return
          throw error
        }
      },
    })
    assert.equal(await caught(make(() => true)), 2)
    assert.equal(await caught(make((value) => value === 4)), 21)
  })

  it('may come later than it was thrown', async () => {
    let first
    const make = (host) => ({
      outer(value) {
        try {
          host.callIndirect(undefined, 0, value)
        } catch (error) {
          if (first) throw first
          first = error
        }
      },
    })
    assert.equal(await caught(make), 21)
  })

  it('that nothing catches is the error of the run', async () => {
    const uncaught = guest.replaceAll('catch $e $e', 'catch $other $e').replace('(tag $e (param i32))', '(tag $e (param i32)) (tag $other (param i32))')
    const error = await failure(wizer(uncaught, { imports: (host) => ({ env: { inner() {}, outer: (value) => host.callIndirect(undefined, 0, value) } }) }))
    assert.equal(error.code, 'ERR_WIZER_TRAP')
    assert.match(error.message, /an exception was thrown that nothing catches/)
  })
})

describe('what no import catches', () => {
  const swallowing = (host) => ({
    env: {
      invoke(slot) {
        for (let i = 0; i < 3; i++) assert.throws(() => host.callIndirect('table', slot), { name: 'WizerError' })
      },
    },
  })
  const guest = (body, more = '') => `(module (import "env" "invoke" (func $invoke (param i32))) ${more} (memory 1)
    (table (export "table") funcref (elem $it)) (func $it ${body})
    (func (export "wizer.initialize") (call $invoke (i32.const 0))))`

  each('the time limit', async (run) => {
    const { code } = await failure(run(guest('(loop $l (br $l))'), { timeout: 30, imports: swallowing }))
    assert.equal(code, 'ERR_WIZER_TIMEOUT')
  })

  each('an abort', async (run) => {
    const controller = new AbortController()
    const imports = (host) => ({
      env: {
        invoke(slot) {
          controller.abort('enough')
          assert.throws(() => host.callIndirect(undefined, slot))
        },
      },
    })
    const error = await failure(run(guest('(loop $l (br $l))'), { signal: controller.signal, imports }))
    assert.equal(error.code, 'ERR_WIZER_ABORTED')
    assert.equal(error.cause, 'enough')
  })

  each('the limit of memory', async (run) => {
    const { code } = await failure(run(guest('(drop (memory.grow (i32.const 1)))'), { maxMemory: 65544, imports: swallowing }))
    assert.equal(code, 'ERR_WIZER_MEMORY_LIMIT')
    // The engine of Node does not count.
  }, engines.filter((engine) => engine !== 'host'))

  each('the call of an import that nobody provides', async (run) => {
    const { code, message } = await failure(run(guest('(call $missing)', '(import "env" "missing" (func $missing))'), { imports: swallowing }))
    assert.equal(code, 'ERR_WIZER_IMPORT_MISSING')
    assert.match(message, /`env::missing`/)
  })

  it('that its engine cannot run the code', async () => {
    // wasmi 2.0 loses its place where a table grows by as much while it counts.
    const grown = guest('(drop (table.grow $big (ref.null func) (i32.const 100000)))', '(table $big 1 funcref)')
    const { code } = await failure(wizer(grown, { engine: 'interpreter', imports: swallowing }))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    const { report } = await snapshot(grown, { imports: (host) => ({ env: { invoke: (slot) => host.callIndirect('table', slot) } }) })
    assert.match(report.engine.name, /wasmtime/)
  })
})
