// Imports that are JavaScript functions: values, the instance's memory and exports, exceptions. Everything holds for
// `wizer`, which calls them from another thread, and for `wizerSync`.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { runScript } from './helpers/run.mjs'
import { assertInitialized, start } from './helpers/v8.mjs'
import { wasi } from './helpers/wasi.mjs'
import { assemble, hostRuns } from './helpers/wat.mjs'

const ways = { wizer, wizerSync: async (...args) => wizerSync(...args) }

/** Runs a test by each way of calling. */
function both(name, test) {
  for (const [way, call] of Object.entries(ways)) it(`${name} (${way})`, () => test(call))
}

/** The error that a run ends with. */
async function failure(promise) {
  const error = await promise.then(() => assert.fail('the run did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  return error
}

/** The error of a run whose import threw, with what it threw as its cause. */
async function thrown(promise, value) {
  const error = await failure(promise)
  assert.equal(error.code, 'ERR_WIZER_IMPORT_FAILED', error.message)
  assert.ok('cause' in error)
  assert.equal(error.cause, value)
  return error
}

/** A module that calls `test.f` when it is initialized. */
const CALLER = `(module
  (import "test" "f" (func $f))
  (memory (export "memory") 1 4)
  (data (i32.const 16) "initial")
  (func (export "grow") (result i32) (memory.grow (i32.const 1)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "unreachable") unreachable)
  (func (export "wizer.initialize") (call $f)))`

/** The option that makes `work`, which is given the host, the import of {@link CALLER}. */
const during = (work) => ({ imports: (host) => ({ test: { f: () => work(host) } }) })

describe('values', () => {
  /** A module that passes what `give` returns to `take`, and keeps what numbers it was. */
  const passing = (type) => `(module
    (import "test" "give" (func $give (result ${type})))
    (import "test" "take" (func $take (param ${type})))
    ${type === 'externref' ? '' : `(global $kept (export "kept") (mut ${type}) (${type}.const 0))`}
    (func (export "wizer.initialize")
      ${type === 'externref' ? '' : '(global.set $kept (call $give))'}
      (call $take ${type === 'externref' ? '(call $give)' : '(global.get $kept)'})))`

  const host = (value) => {
    const seen = []
    return { seen, imports: { test: { give: () => value, take: (...args) => void seen.push(...args) } } }
  }

  const CASES = {
    i32: [0, -1, 42, 1.9, -1.9, 2 ** 31, 2 ** 32 + 5, -(2 ** 40) - 7, 1e300, NaN, Infinity, '12', true, null, undefined, [], { valueOf: () => 7 }],
    i64: [0n, -1n, 2n ** 63n, 2n ** 64n + 5n, -(2n ** 63n), '-3', true, [], { valueOf: () => 7n }],
    f32: [0, -0, 0.1, 1e39, -1e-46, NaN, Infinity, '1.5', null, undefined, true],
    f64: [0, -0, 0.1, Number.MAX_VALUE, 5e-324, NaN, -Infinity, '1.5', null, undefined],
  }
  for (const [type, values] of Object.entries(CASES)) {
    both(`${type} as in V8`, async (way) => {
      const original = assemble(passing(type))
      for (const value of values) {
        const ours = host(value)
        const output = await way(original, { imports: ours.imports })
        const theirs = host(value)
        assertInitialized(output, original, { imports: theirs.imports })
        assert.deepEqual(ours.seen, theirs.seen)
      }
    })

    both(`${type}: what cannot be converted throws as in V8`, async (way) => {
      const original = assemble(passing(type))
      for (const value of [type === 'i64' ? 1 : 1n, Symbol('no'), Object.create(null)]) {
        const { imports } = host(value)
        const { cause } = await failure(way(original, { imports }))
        assert.throws(() => start(original, imports)['wizer.initialize'](), cause.constructor)
        assert.equal(cause.name, 'TypeError')
      }
    })
  }

  both('externref: any value comes back as itself', async (way) => {
    const values = [{}, () => {}, 'text', 5, 0, -1, 1.5, NaN, 10n, Symbol('it'), true, null, undefined, new Date()]
    for (const value of values) {
      const { imports, seen } = host(value)
      await way(passing('externref'), { imports })
      assert.equal(seen.length, 1)
      assert.ok(Object.is(seen[0], value), String(value))
    }
  })

  both('externref: many at once, kept in a table meanwhile', async (way) => {
    const guest = `(module
      (import "test" "give" (func $give (result externref)))
      (import "test" "take" (func $take (param externref)))
      (table $t 100 externref)
      (func (export "wizer.initialize") (local $i i32)
        (loop $l
          (table.set $t (local.get $i) (call $give))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))
        (loop $l
          (local.set $i (i32.sub (local.get $i) (i32.const 1)))
          (call $take (table.get $t (local.get $i)))
          (table.set $t (local.get $i) (ref.null extern))
          (br_if $l (local.get $i)))))`
    const given = []
    const taken = []
    const give = () => given[given.push({ n: given.length }) - 1]
    await way(guest, { imports: { test: { give, take: (value) => void taken.push(value) } } })
    assert.equal(given.length, 100)
    assert.ok(taken.reverse().every((value, i) => value === given[i]))
  })

  both('externref: one that stays behind is an error that names its place', async (way) => {
    const guest = `(module
      (import "test" "give" (func $give (result externref)))
      (global $kept (export "kept") (mut externref) (ref.null extern))
      (func (export "wizer.initialize") (global.set $kept (call $give))))`
    const error = await failure(way(guest, { imports: { test: { give: () => ({}) } } }))
    assert.equal(error.code, 'ERR_WIZER_UNREPRESENTABLE_STATE')
    assert.match(error.message, /global.*kept/)
    assert.equal(start(await way(guest, { imports: { test: { give: () => null } } })).kept.value, null)
  })

  const MANY = assemble(`(module
    (import "test" "many" (func $many (param i32 i64 f32 f64) (result f64 i64 i32)))
    (global $a (export "a") (mut i32) (i32.const 0))
    (global $b (export "b") (mut i64) (i64.const 0))
    (global $c (export "c") (mut f64) (f64.const 0))
    (func (export "wizer.initialize")
      i32.const -1 i64.const -2 f32.const 0.5 f64.const 0.25
      call $many
      global.set $a global.set $b global.set $c))`)

  both('several results, from anything that can be iterated', async (way) => {
    const results = {
      array: [1.5, 2n, 3],
      iterable: new Set([1.5, 2n, 3]),
      generator: (function* () { yield* [1.5, 2n, 3] })(),
      converted: ['1.5', '2', '3'],
    }
    for (const [what, result] of Object.entries(results)) {
      const seen = []
      const output = await way(MANY, { imports: { test: { many: (...args) => (seen.push(...args), result) } } })
      assert.deepEqual(seen, [-1, -2n, 0.5, 0.25], what)
      assertInitialized(output, MANY, { originalImports: { test: { many: () => [1.5, 2n, 3] } } })
    }
  })

  both('several results: a wrong number of them, or nothing to iterate', async (way) => {
    for (const result of [[], [1, 2n], [1, 2n, 3, 4], undefined, 5, {}]) {
      const imports = { test: { many: () => result } }
      const { code, cause } = await failure(way(MANY, { imports }))
      assert.equal(code, 'ERR_WIZER_IMPORT_FAILED')
      assert.equal(cause.name, 'TypeError')
      assert.throws(() => start(MANY, imports)['wizer.initialize'](), TypeError)
    }
  })

  both('no result wanted: what is returned is not looked at', async (way) => {
    for (const result of [1n, Symbol('no'), [], {}]) await way(CALLER, { imports: { test: { f: () => result } } })
  })

  both('a function that a module gave can be given back to it', async (way) => {
    const guest = `(module
      (import "test" "f" (func $f (param funcref) (result funcref)))
      (table (export "table") 2 funcref)
      (func $one (result i32) (i32.const 1)) (elem declare func $one)
      (func (export "wizer.initialize") (table.set (i32.const 1) (call $f (ref.func $one)))))`
    let other
    const { table } = start(await way(guest, { imports: { test: { f: (one) => (other = one) } } }), { test: { f() {} } })
    assert.equal(table.get(1)(), 1)
    assert.equal(table.get(0), null)
    // Of use to the run that it comes from, and to no other.
    assert.equal((await failure(way(guest, { imports: { test: { f: () => other } } }))).cause.name, 'TypeError')
    assert.equal((await failure(way(guest, { imports: { test: { f: () => () => 1 } } }))).cause.name, 'TypeError')
  })

  both('an object of the module is a handle', async (way) => {
    const guest = `(module
      (type $point (struct (field i32)))
      (import "test" "f" (func $f (param (ref $point) anyref) (result (ref null $point))))
      (global (mut i32) (i32.const 0))
      (func (export "x") (result i32) (global.get 0))
      (func (export "wizer.initialize")
        (global.set 0 (struct.get $point 0 (call $f (struct.new $point (i32.const 8)) (struct.new $point (i32.const 9)))))))`
    const f = (one, other) => (assert.notEqual(one, other), other)
    const session = await Session.create(await way(guest, { imports: { test: { f } } }))
    assert.equal(await session.call('x'), 9)
    await session.close()
    let other
    await way(guest, { imports: { test: { f: (one) => (other = one) } } })
    assert.equal((await failure(way(guest, { imports: { test: { f: () => other } } }))).cause.name, 'TypeError')
  })

  both('v128 has no counterpart, and a function is a handle', async (way) => {
    const imports = { test: { f: () => {} } }
    const vector = '(module (import "test" "f" (func $f (param v128))) (func (export "wizer.initialize") (call $f (v128.const i64x2 1 2))))'
    assert.equal((await failure(way(vector, { imports }))).cause.name, 'TypeError')
    const reference = (value) => `(module (import "test" "f" (func $f (param funcref))) (func $g) (elem declare func $g)
      (func (export "wizer.initialize") (call $f (${value}))))`
    const seen = []
    await way(reference('ref.func $g'), { imports: { test: { f: (value) => void seen.push(value) } } })
    assert.equal(typeof seen.pop(), 'object')
    await way(reference('ref.null func'), { imports: { test: { f: (value) => void seen.push(value) } } })
    assert.deepEqual(seen, [null])
  })
})

describe('the functions', () => {
  both('are found by both names, and are called as functions', async (way) => {
    const guest = `(module
      (import "a" "x" (func $ax)) (import "a" "y" (func $ay)) (import "b" "x" (func $bx)) (import "" "" (func $empty))
      (func (export "wizer.initialize") (call $ax) (call $ay) (call $bx) (call $empty)))`
    const seen = []
    const see = (what) => function () { seen.push([what, this, arguments.length]) }
    await way(guest, { imports: { a: { x: see('ax'), y: see('ay') }, b: { x: see('bx') }, '': { '': see('') } } })
    assert.deepEqual(seen, [['ax', undefined, 0], ['ay', undefined, 0], ['bx', undefined, 0], ['', undefined, 0]])
  })

  both('may be methods of a class', async (way) => {
    class Base {
      one() {
        return 1
      }
      two() {
        return 0
      }
      get three() {
        throw new Error('nobody asked')
      }
    }
    class Env extends Base {
      three = () => 100
      two() {
        assert.equal(this, undefined)
        return 10
      }
    }
    const names = ['one', 'two', 'three']
    const guest = `(module
      ${names.map((name) => `(import "env" "${name}" (func $${name} (result i32)))`).join('\n')}
      (global $n (mut i32) (i32.const 0))
      (func (export "n") (result i32) (global.get $n))
      (func (export "wizer.initialize")
        ${names.map((name) => `(global.set $n (i32.add (global.get $n) (call $${name})))`).join('\n')}))`
    const env = new Env()
    assert.equal(start(await way(guest, { imports: { env } }), { env }).n(), 111)
    // What is nearer hides what is further up, also where it is no function for wizer.
    const own = Object.defineProperty(new Env(), 'one', { value: () => 3 })
    assert.equal(start(await way(guest, { imports: { env: own } }), { env: own }).n(), 113)
    class Getter extends Env {
      get one() {
        return () => 4
      }
    }
    const error = await failure(way(guest, { imports: { env: new Getter() } }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_MISSING')
  })

  both('win over WASI', async (way) => {
    const guest = `(module ${wasi('random_get', 'sched_yield')} (memory (export "memory") 1)
      (func (export "wizer.initialize")
        (drop (call $random_get (i32.const 0) (i32.const 8))) (drop (call $sched_yield))))`
    const imports = (host) => ({ wasi_snapshot_preview1: { random_get: (at, length) => (host.memory().fill(7, at, at + length), 0) } })
    const { memory } = start(await way(guest, { allowWasi: true, imports }))
    assert.deepEqual([...new Uint8Array(memory.buffer, 0, 9)], [7, 7, 7, 7, 7, 7, 7, 7, 0])
  })

  both('are called in the order of the calls, also by the start function and `_initialize`', async (way) => {
    const guest = `(module (import "test" "f" (func $f (param i32)))
      (func $start (call $f (i32.const 1))) (start $start)
      (func (export "_initialize") (call $f (i32.const 2)))
      (func (export "wizer.initialize") (call $f (i32.const 3)) (call $f (i32.const 4))))`
    const seen = []
    await way(guest, { imports: { test: { f: (n) => void seen.push(n) } } })
    assert.deepEqual(seen, [1, 2, 3, 4])
  })

  both('serve preloaded modules too, and see their memory then', async (way) => {
    const lib = `(module (import "test" "f" (func $f)) (memory (export "memory") 2) (func (export "g") (call $f)))`
    const guest = `(module (import "lib" "g" (func $g)) (import "test" "f" (func $f)) (memory (export "memory") 1)
      (func (export "wizer.initialize") (call $f) (call $g) (call $f)))`
    const seen = []
    await way(guest, { preload: { lib }, ...during((host) => seen.push(host.memory().length)) })
    assert.deepEqual(seen, [65536, 131072, 65536])
  })

  both('may be missing until they are called', async (way) => {
    const guest = (body) => `(module (import "test" "missing" (func $missing)) (import "test" "f" (func $f)) (func (export "wizer.initialize") ${body}))`
    const imports = { test: { f() {} } }
    await way(guest('(call $f)'), { imports })
    const error = await failure(way(guest('(call $missing)'), { imports }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_MISSING')
    assert.match(error.message, /`test::missing`/)
    assert.deepEqual(error.wasmBacktrace?.length, 1)
  })

  both('may be called very often', async (way) => {
    const guest = `(module (import "test" "f" (func $f (param i32) (result i32)))
      (global $sum (export "sum") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") (local $i i32)
        (loop $l
          (global.set $sum (i32.add (global.get $sum) (call $f (local.get $i))))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000))))))`
    const module = assemble(guest)
    const output = await way(module, { imports: { test: { f: (i) => 2 * i } } })
    assert.equal(start(output).sum.value, 10000 * 9999)
  })

  both('of several runs do not mix', async (way) => {
    const guest = `(module (import "test" "f" (func $f (result i32)))
      (global $sum (export "sum") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") (local $i i32)
        (loop $l
          (global.set $sum (i32.add (global.get $sum) (call $f)))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))))`
    const outputs = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => way(guest, { imports: { test: { f: () => n } } })))
    assert.deepEqual(outputs.map((output) => start(output).sum.value), [100, 200, 300, 400, 500, 600])
  })

  both('may start other runs', async (way) => {
    const lengths = []
    const empty = '(module (func (export "wizer.initialize")))'
    const later = []
    await way(CALLER, during(() => {
      lengths.push(wizerSync(empty).length)
      later.push(wizer(empty))
    }))
    assert.equal((await later[0]).length, lengths[0])
  })

  both('are checked before the run', async (way) => {
    for (const imports of [5, null, 'text', { test: null }, { test: 5 }, () => 5, () => null, () => {}, async () => ({}), () => ({ test: undefined })]) {
      const { code, message } = await failure(way(CALLER, { imports }))
      assert.equal(code, 'ERR_WIZER_OPTION')
      assert.match(message, /`imports`/)
    }
    // Other globals may hold it.
    for (const f of ['text', null, {}]) {
      const { code, message } = await failure(way(CALLER, { imports: { test: { f } } }))
      assert.equal(code, 'ERR_WIZER_IMPORT_TYPE')
      assert.match(message, /test::f/)
    }
  })

  both('come from a function that is called once, before anything else', async (way) => {
    const order = []
    const imports = (host) => {
      order.push('imports')
      assert.deepEqual(Object.keys(host).sort(), ['call', 'callIndirect', 'memory'])
      return { test: { f: () => void order.push('f') } }
    }
    const promise = way(CALLER, { imports, onProgress: ({ phase }) => phase === 'parse' && order.push(phase) })
    assert.equal(order[0], 'imports')
    await promise
    assert.deepEqual(order, ['imports', 'parse', 'f'])
    const reason = new Error('no imports today')
    await assert.rejects(way(CALLER, { imports: () => { throw reason } }), reason)
  })

  it('leave a report of how often they were called', async () => {
    const { report } = await snapshot(CALLER, during(() => {}))
    assert.deepEqual(report.hostCalls, [{ module: 'test', name: 'f', calls: 1, stub: false }])
  })
})

describe('the memory', () => {
  both('can be read and written', async (way) => {
    const output = await way(CALLER, during((host) => {
      const view = host.memory()
      assert.ok(view instanceof Uint8Array)
      assert.equal(view.length, 65536)
      assert.equal(Buffer.from(view.subarray(16, 23)).toString(), 'initial')
      view.set(Buffer.from('changed'), 16)
      new DataView(view.buffer).setUint32(65532, 0x04030201, true)
    }))
    const bytes = Buffer.from(start(output).memory.buffer)
    assert.equal(bytes.toString('latin1', 16, 23), 'changed')
    assert.deepEqual([...bytes.subarray(65531)], [0, 1, 2, 3, 4])
    assert.equal(bytes.filter((byte) => byte !== 0).length, 11)
  })

  both('is the one that is named', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) (memory (export "memory") 1) (memory (export "other") 2)
      (func (export "no memory")) (func (export "wizer.initialize") (call $f)))`
    await way(guest, during((host) => {
      assert.equal(host.memory('memory').length, 65536)
      assert.equal(host.memory('other').length, 131072)
      for (const name of ['missing', 'no memory']) assert.throws(() => host.memory(name), { name: 'WizerError', code: 'ERR_WIZER_HOST', message: new RegExp(name) })
    }))
  })

  /** Memories that nobody exports, and how a module names them. */
  const UNEXPORTED = {
    'an imported one': { memory: '(import "env" "memory" (memory 2))', name: 'env.memory' },
    'an imported one with 64-bit addresses': { memory: '(import "env" "memory" (memory i64 2))', name: 'env.memory' },
    'an imported one that is shared': { memory: '(import "env" "memory" (memory 2 2 shared))', name: 'env.memory' },
    'a private one': { memory: '(memory 2)' },
    'a private one that is shared': { memory: '(memory 2 2 shared)' },
  }
  for (const [what, { memory, name }] of Object.entries(UNEXPORTED)) {
    both(`is the only one: ${what}, for imports and WASI`, async (way) => {
      const guest = `(module
        (import "test" "f" (func $f)) ${wasi('environ_sizes_get')} ${memory}
        (func (export "wizer.initialize")
          (call $f)
          (if (call $environ_sizes_get (i32.const 64) (i32.const 68)) (then unreachable))
          (call $f)))`
      const seen = []
      const look = (host) => {
        const view = host.memory()
        if (name) assert.equal(host.memory(name).buffer.byteLength, view.length)
        seen.push(view.length, view[64])
        // Nothing changes: a shared memory that others may use at the same time is not written.
        view.fill(0, 64, 72)
      }
      const imports = (host) => ({ test: { f: () => look(host) }, env: { memory: { initial: 2 } } })
      await way(guest, { allowWasi: true, env: { A: 'a' }, imports })
      assert.deepEqual(seen, [131072, 0, 131072, 1])
    })
  }

  both('is imported, and what is written there is in the output', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) (import "env" "memory" (memory 1))
      (func (export "wizer.initialize") (call $f)))`
    const write = (host) => ({ test: { f: () => void host.memory('env.memory').set([1, 2, 3], 100) }, env: { memory: { initial: 1 } } })
    const memory = new WebAssembly.Memory({ initial: 1 })
    start(await way(guest, { imports: write }), { test: { f() {} }, env: { memory } })
    assert.deepEqual([...new Uint8Array(memory.buffer, 99, 5)], [0, 1, 2, 3, 0])
  })

  both('has to be named where there are several, and the error says how', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) ${wasi('sched_yield')} (import "env" "memory" (memory 1)) (memory (export "own") 2) (memory 3)
      (func (export "yield") (result i32) (call $sched_yield))
      (func (export "wizer.initialize") (call $f)))`
    const there = /`own`, `env.memory`|`env.memory`, `own`/
    const imports = (host) => ({
      env: { memory: { initial: 1 } },
      test: {
        f() {
          assert.equal(host.memory('env.memory').length, 65536)
          assert.equal(host.memory('own').length, 131072)
          for (const name of [undefined, 'memory', 'env', 'env.own', 'env::memory']) {
            assert.throws(() => host.memory(name), { name: 'WizerError', code: 'ERR_WIZER_HOST', message: there })
          }
          assert.throws(() => host.call('yield'), { code: 'ERR_WIZER_TRAP', message: there })
        },
      },
    })
    await way(guest, { allowWasi: true, imports })
  })

  both('is that of the module that calls, also where it is imported', async (way) => {
    const preload = {
      lib: `(module (import "test" "f" (func $f)) (memory (export "memory") 2) (func (export "g") (call $f)))`,
      side: `(module (import "test" "f" (func $f)) (import "lib" "memory" (memory 1)) ${wasi('random_get')}
        (func (export "h") (call $f) (drop (call $random_get (i32.const 131064) (i32.const 0)))))`,
    }
    const guest = `(module (import "side" "h" (func $h)) (import "lib" "g" (func $g)) (import "test" "f" (func $f)) (memory 1)
      (func (export "wizer.initialize") (call $f) (call $g) (call $h) (call $f)))`
    const seen = []
    await way(guest, { allowWasi: true, preload, ...during((host) => seen.push(host.memory().length)) })
    assert.deepEqual(seen, [65536, 131072, 131072, 65536])
  })

  for (const engine of ['interpreter', 'baseline', 'optimizing', ...(hostRuns('(memory 1) (memory 1)') ? ['host'] : [])]) {
    it(`is that of the module that calls, also of one that a session instantiated later (${engine})`, async () => {
      const seen = []
      const main = `(module (import "test" "f" (func $f)) (memory 1) (memory (export "shared") 4)
        (table (export "table") 2 funcref)
        (func (export "run") (param i32) (call_indirect (local.get 0))))`
      const side = (pages, slot, end) => `(module (import "test" "f" (func $f)) (import "main" "table" (table 2 funcref)) ${pages}
        (elem (i32.const ${slot}) $g) (func $g (call $f)) (func $start ${end}) (start $start))`
      const imports = (host) => ({ test: { f: () => void seen.push(host.memory().length >> 16) } })
      const session = await Session.create(main, { engine, imports })
      await session.register('main')
      // This one fails, and leaves its function behind.
      await failure(session.instantiate('failing', side('(memory 3)', 0, 'unreachable')))
      await session.instantiate('side', side('(import "main" "shared" (memory 4))', 1, ''))
      await session.call('run', 0)
      await session.call('run', 1)
      await session.close()
      assert.deepEqual(seen, [3, 4])
    })
  }

  both('is the same for every view of it', async (way) => {
    await way(CALLER, during((host) => {
      const [a, b] = [host.memory(), host.memory('memory')]
      a[0] = 1
      b[1] = 2
      assert.deepEqual([...a.subarray(0, 2)], [1, 2])
      assert.equal(a.buffer, b.buffer)
    }))
  })

  both('is taken away when the import returns or throws', async (way) => {
    const views = []
    const look = (host) => views.push(host.memory(), host.memory().subarray(16, 20))
    await way(CALLER, during(look))
    await failure(way(CALLER, during((host) => {
      look(host)
      throw new Error()
    })))
    assert.equal(views.length, 4)
    for (const view of views) assert.deepEqual([view.length, view.buffer.byteLength, view[0]], [0, 0, undefined])
  })

  both('is taken away between two calls', async (way) => {
    const guest = CALLER.replace('(call $f)))', '(call $f) (call $f)))')
    const views = []
    await way(guest, during((host) => {
      if (views.length > 0) assert.equal(views[0].length, 0)
      views.push(host.memory())
      assert.equal(views.at(-1).length, 65536)
    }))
    assert.equal(views.length, 2)
  })

  both('is taken away when it grows, as in V8', async (way) => {
    const output = await way(CALLER, during((host) => {
      const before = host.memory()
      before[100] = 1
      assert.equal(host.call('add', 1, 2), 3)
      assert.equal(before.length, 65536)
      assert.equal(host.call('grow'), 1)
      assert.equal(before.length, 0)
      const after = host.memory()
      assert.equal(after.length, 131072)
      assert.equal(after[100], 1)
      after[131071] = 2
    }))
    const bytes = Buffer.from(start(output).memory.buffer)
    assert.equal(bytes.length, 131072)
    assert.deepEqual([bytes[100], bytes[131071]], [1, 2])
  })

  both('is taken away when it grows, also for an import that is called meanwhile', async (way) => {
    const guest = `(module
      (import "test" "outer" (func $outer)) (import "test" "inner" (func $inner))
      (memory (export "memory") 1)
      (func (export "grow") (drop (memory.grow (i32.const 1))) (call $inner))
      (func (export "wizer.initialize") (call $outer)))`
    const seen = []
    await way(guest, {
      imports: (host) => {
        let view
        const outer = () => {
          view = host.memory()
          seen.push(view.length)
          host.call('grow')
          seen.push(view.length)
        }
        const inner = () => seen.push(view.length, host.memory().length)
        return { test: { outer, inner } }
      },
    })
    assert.deepEqual(seen, [65536, 0, 131072, 0])
  })

  both('stays with the outer import when an inner one returns', async (way) => {
    const guest = `(module
      (import "test" "outer" (func $outer)) (import "test" "inner" (func $inner))
      (memory (export "memory") 1)
      (func (export "again") (call $inner))
      (func (export "wizer.initialize") (call $outer)))`
    const output = await way(guest, {
      imports: (host) => ({
        test: {
          outer() {
            const view = host.memory()
            view[0] = 1
            host.call('again')
            assert.equal(view.length, 65536)
            assert.equal(view[1], 2)
            view[2] = 3
          },
          inner() {
            const view = host.memory()
            assert.equal(view[0], 1)
            view[1] = 2
          },
        },
      }),
    })
    assert.deepEqual([...new Uint8Array(start(output).memory.buffer, 0, 4)], [1, 2, 3, 0])
  })

  it('does not leave by a transfer', async () => {
    // In a process of its own, as this would write memory that is not its own.
    const { stdout, signal } = await runScript(`
      const seen = []
      const imports = (host) => ({ test: { f() {
        const { buffer } = host.memory()
        const taken = []
        try { taken.push(structuredClone(buffer, { transfer: [buffer] })) } catch {}
        if (buffer.transfer) taken.push(buffer.transfer())
        for (const copy of taken) new Uint8Array(copy)[100] = 77
        seen.push(host.memory()[100])
      } } })
      wizer(${JSON.stringify(CALLER)}, { imports }).then(() => console.log(seen.join()))`)
    assert.equal(signal, null)
    assert.match(stdout.toString(), /^0(,0)*\n$/)
  })
})

describe('calls of exports', () => {
  const ALLOCATING = assemble(`(module
    (import "test" "read" (func $read (param i32 i32) (result i64)))
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 1024))
    (global $at (export "at") (mut i64) (i64.const 0))
    (data (i32.const 8) "config.json")
    (func (export "malloc") (param $size i32) (result i32) (local $at i32)
      (local.set $at (global.get $top))
      (global.set $top (i32.add (global.get $top) (local.get $size)))
      (block $enough (loop $more
        (br_if $enough (i32.ge_u (i32.mul (memory.size) (i32.const 65536)) (global.get $top)))
        (drop (memory.grow (i32.const 1)))
        (br $more)))
      (local.get $at))
    (func (export "wizer.initialize")
      (global.set $at (call $read (i32.const 8) (i32.const 11)))))`)

  both('the guest\'s allocator, which lets the memory grow', async (way) => {
    const contents = Buffer.alloc(300_000, 'a file with some text, ')
    const imports = (host) => ({
      test: {
        read(at, length) {
          assert.equal(Buffer.from(host.memory().subarray(at, at + length)).toString(), 'config.json')
          const place = host.call('malloc', contents.length)
          host.memory().set(contents, place)
          return (BigInt(place) << 32n) | BigInt(contents.length)
        },
      },
    })
    const { at, memory } = start(await way(ALLOCATING, { imports }))
    const [place, length] = [Number(at.value >> 32n), Number(at.value & 0xffffffffn)]
    assert.deepEqual([place, length], [1024, contents.length])
    assert.ok(Buffer.from(memory.buffer, place, length).equals(contents))
  })

  const TYPED = `(module
    (import "test" "f" (func $f))
    (func (export "none"))
    (func (export "i64") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1)))
    (func (export "f32") (param f32) (result f32) (local.get 0))
    (func (export "two") (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))
    (func (export "ref") (param externref) (result externref) (local.get 0))
    (func (export "v128") (param v128))
    (global (export "global") i32 (i32.const 1))
    (func (export "wizer.initialize") (call $f)))`

  both('convert values as V8 does', async (way) => {
    const object = {}
    await way(TYPED, during((host) => {
      assert.equal(host.call('none'), undefined)
      assert.equal(host.call('none', 1, 2), undefined)
      assert.equal(host.call('i64', 2n ** 63n - 1n), -(2n ** 63n))
      assert.equal(host.call('f32', 0.1), Math.fround(0.1))
      assert.deepEqual(host.call('two', '5', '0.5'), [0.5, 5])
      assert.deepEqual(host.call('two'), [NaN, 0])
      assert.equal(host.call('ref', object), object)
      assert.equal(host.call('ref', null), null)
      assert.equal(host.call('ref'), undefined)
      assert.throws(() => host.call('i64', 1), TypeError)
      assert.throws(() => host.call('i64'), TypeError)
      assert.throws(() => host.call('f32', 1n), TypeError)
      assert.throws(() => host.call('v128', 1), TypeError)
    }))
  })

  both('of what is not there', async (way) => {
    await way(TYPED, during((host) => {
      for (const name of ['missing', 'global', undefined]) {
        assert.throws(() => host.call(name), { name: 'WizerError', code: 'ERR_WIZER_HOST', message: new RegExp(String(name)) })
      }
    }))
  })

  both('of another module than the one that calls', async (way) => {
    const lib = `(module (import "test" "f" (func $f)) (func (export "g") (call $f)))`
    const guest = `(module (import "lib" "g" (func $g)) (memory (export "memory") 1) (table (export "t") funcref (elem $h))
      (func $h (export "h")) (func (export "wizer.initialize") (call $g)))`
    const isHost = { code: 'ERR_WIZER_HOST' }
    await way(guest, {
      preload: { lib },
      ...during((host) => {
        assert.throws(() => host.call('h'), isHost)
        assert.throws(() => host.callIndirect('t', 0), isHost)
        assert.throws(() => host.memory(), isHost)
      }),
    })
  })

  both('of the import itself, where it is exported again', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) (memory (export "memory") 1)
      (export "f" (func $f)) (func (export "wizer.initialize") (call $f)))`
    const seen = []
    await way(guest, during((host) => {
      seen.push(host.memory().length)
      if (seen.length < 3) host.call('f')
    }))
    assert.deepEqual(seen, [65536, 65536, 65536])
  })

  both('of WASI, where it is exported again', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) ${wasi('random_get')} (memory (export "memory") 1)
      (export "random_get" (func $random_get)) (func (export "wizer.initialize") (call $f)))`
    await way(guest, { allowWasi: true, ...during((host) => assert.equal(host.call('random_get', 0, 8), 0)) })
  })

  both('which trap', async (way) => {
    let error
    const output = await way(CALLER, during((host) => {
      try {
        host.call('unreachable')
      } catch (caught) {
        error = caught
      }
      assert.equal(host.call('add', 1, 2), 3)
      host.memory()[0] = 1
    }))
    assert.ok(error instanceof WizerError)
    assert.equal(error.code, 'ERR_WIZER_TRAP')
    assert.match(error.message, /unreachable/)
    assert.equal(new Uint8Array(start(output).memory.buffer)[0], 1)
    const { cause } = await failure(way(CALLER, during((host) => host.call('unreachable'))))
    assert.equal(cause.code, 'ERR_WIZER_TRAP')
  })

  both('which end the program', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) ${wasi('proc_exit')} (memory (export "memory") 1)
      (func (export "exit") (call $proc_exit (i32.const 3))) (func (export "wizer.initialize") (call $f)))`
    const { code, cause } = await failure(way(guest, { allowWasi: true, ...during((host) => host.call('exit')) }))
    assert.equal(code, 'ERR_WIZER_IMPORT_FAILED')
    assert.match(cause.message, /exit status 3/)
    assert.equal(cause.code, 'ERR_WIZER_EXIT')
  })

  /** `wizer.initialize` and `again` call the import `down` with a number; it may call `again` with one less. */
  const DEEP = `(module
    (import "test" "down" (func $down (param i32) (result i32)))
    (global $sum (export "sum") (mut i32) (i32.const 0))
    (func $again (export "again") (param i32) (result i32)
      (global.set $sum (i32.add (global.get $sum) (local.get 0)))
      (call $down (local.get 0)))
    (func (export "wizer.initialize") (drop (call $again (i32.const 20)))))`

  both('within calls of imports within calls of exports', async (way) => {
    const order = []
    const output = await way(DEEP, {
      imports: (host) => ({
        test: {
          down(n) {
            order.push(n)
            const result = n === 0 ? 100 : host.call('again', n - 1) + 1
            order.push(-n)
            return result
          },
        },
      }),
    })
    const numbers = Array.from({ length: 21 }, (_, n) => 20 - n)
    assert.deepEqual(order, [...numbers, ...numbers.reverse().map((n) => -n)])
    assert.equal(start(output).sum.value, 210)
  })

  both('without an end', async (way) => {
    const error = await failure(way(DEEP, { imports: (host) => ({ test: { down: (n) => host.call('again', n) } }) }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_FAILED')
    assert.ok(error.cause instanceof RangeError || error.cause instanceof WizerError, String(error.cause))
  })
})

describe('exceptions', () => {
  both('are the cause, whatever was thrown', async (way) => {
    for (const value of [new Error('mine'), 'text', 0, null, undefined, { a: 1 }, new WizerError('mine', { code: 'ERR_WIZER_TRAP' })]) {
      const error = await thrown(way(CALLER, during(() => { throw value })), value)
      assert.deepEqual(error.wasmBacktrace?.length, 1)
    }
  })

  both('say in the message what was thrown', async (way) => {
    const { message } = await failure(way(CALLER, during(() => { throw new RangeError('the config is wrong') })))
    assert.match(message, /the `wizer.initialize` function trapped/)
    assert.match(message, /test[.:]+f/)
    assert.match(message, /the config is wrong/)
  })

  const NESTED = `(module
    (import "test" "outer" (func $outer)) (import "test" "inner" (func $inner))
    (func (export "again") (call $inner))
    (func (export "trap") (call $outer) unreachable)
    (func (export "wizer.initialize") (call $outer)))`
  const nested = (make) => ({ imports: (host) => ({ test: make(host) }) })

  both('pass through the module to an outer import', async (way) => {
    const reason = new Error('inner')
    let caught
    await way(NESTED, nested((host) => ({
      inner() { throw reason },
      outer() {
        try {
          host.call('again')
        } catch (error) {
          caught = error
        }
        assert.equal(caught, reason)
      },
    })))
    assert.equal(caught, reason)
  })

  both('pass on if nobody catches them', async (way) => {
    const reason = new Error('inner')
    await thrown(way(NESTED, nested((host) => ({ inner() { throw reason }, outer: () => host.call('again') }))), reason)
    const other = new Error('outer')
    await thrown(
      way(NESTED, nested((host) => ({
        inner() { throw reason },
        outer() { try { host.call('again') } catch { throw other } },
      }))),
      other,
    )
  })

  both('which were caught are not taken for a later trap', async (way) => {
    const reason = new Error('inner')
    let depth = 0
    const seen = []
    await way(NESTED, nested((host) => ({
      inner() { throw reason },
      outer() {
        if (depth++ > 0) {
          // Called by `trap`: the exception of `inner` is caught here.
          assert.throws(() => host.call('again'), reason)
          return
        }
        try {
          host.call('trap')
        } catch (error) {
          seen.push(error)
        }
      },
    })))
    assert.equal(seen[0].code, 'ERR_WIZER_TRAP')
    assert.match(seen[0].message, /unreachable/)
  })

  both('which were caught are not taken for the end of the run', async (way) => {
    const guest = CALLER.replace('(call $f)))', '(call $f) unreachable))')
    const error = await failure(way(guest, during((host) => {
      try {
        host.call('unreachable')
      } catch { /* the run goes on */ }
    })))
    assert.equal(error.code, 'ERR_WIZER_TRAP')
    assert.equal(error.cause, undefined)
  })

  for (const [what, promise] of Object.entries({
    'a promise': () => Promise.resolve(1),
    'a rejected promise': () => Promise.reject(new Error('nobody hears of it')),
    'an async function\'s': async () => 1,
    'a thenable': () => ({ then() {} }),
  })) {
    both(`${what} is one, as imports are synchronous`, async (way) => {
      const { code, cause } = await failure(way(CALLER, { imports: { test: { f: promise } } }))
      assert.equal(code, 'ERR_WIZER_IMPORT_FAILED')
      assert.ok(cause instanceof TypeError)
      assert.match(cause.message, /test\.f.*promise.*synchronous/)
    })
  }
})

describe('the host', () => {
  const isOver = { name: 'WizerError', code: 'ERR_WIZER_HOST', message: /only while/ }
  const unusable = (host) => {
    assert.throws(() => host.memory(), isOver)
    assert.throws(() => host.memory('missing'), isOver)
    assert.throws(() => host.call('add', 1, 2), isOver)
  }

  both('is of use only while an import is called', async (way) => {
    let host
    const imports = (given) => {
      host = given
      unusable(host)
      return { test: { f: () => void host.memory() } }
    }
    const promise = way(CALLER, { imports, onProgress: () => unusable(host) })
    unusable(host)
    await promise
    unusable(host)
    await failure(way(CALLER.replace('(call $f)))', 'unreachable))'), { imports }))
    unusable(host)
  })

  it('is not of use to what runs later', async () => {
    let later
    const imports = (host) => ({
      test: { f: () => void (later = new Promise((resolve) => setImmediate(() => resolve(assert.throws(() => host.memory(), isOver))))) },
    })
    const endless = CALLER.replace('(call $f)))', '(call $f) (loop (br 0))))')
    const controller = new AbortController()
    const run = failure(wizer(endless, { imports, signal: controller.signal, onProgress() {} }))
    while (!later) await new Promise((resolve) => setImmediate(resolve))
    await later
    controller.abort()
    assert.equal((await run).code, 'ERR_WIZER_ABORTED')
  })
})

describe('limits', () => {
  both('a timeout that passes within an import ends the run after it', async (way) => {
    const busy = () => {
      const end = performance.now() + 50
      while (performance.now() < end);
    }
    assert.equal((await failure(way(CALLER, { timeout: 10, imports: { test: { f: busy } } }))).code, 'ERR_WIZER_TIMEOUT')
  })

  both('a timeout that passes within an export that an import calls', async (way) => {
    const guest = CALLER.replace('(func (export "unreachable") unreachable)', '(func (export "endless") (loop (br 0)))')
    for (const work of [(host) => host.call('endless'), (host) => assert.throws(() => host.call('endless'))]) {
      assert.equal((await failure(way(guest, { timeout: 20, ...during(work) }))).code, 'ERR_WIZER_TIMEOUT')
    }
  })

  both('maxMemory holds for an export that an import calls, whatever that makes of it', async (way) => {
    const grow = (host) => assert.throws(() => host.call('grow'), { code: 'ERR_WIZER_MEMORY_LIMIT' })
    for (const work of [(host) => host.call('grow'), grow]) {
      assert.equal((await failure(way(CALLER, { maxMemory: 65536, ...during(work) }))).code, 'ERR_WIZER_MEMORY_LIMIT')
    }
  })
})

describe('what wizer added', () => {
  both('cannot be seen by imports', async (way) => {
    const guest = `(module (import "test" "f" (func $f)) (memory 1) (func (export "wizer.initialize") (call $f)))`
    for (const use of [(host) => host.memory('wizer:memory0'), (host) => host.call('wizer:start')]) {
      const error = await failure(way(guest, { imports: (host) => ({ test: { f: () => void use(host) } }) }))
      assert.equal(error.cause.code, 'ERR_WIZER_HOST')
    }
  })
})

describe('memories, tables and globals', () => {
  /** Uses one of each, and changes what can be changed. */
  const GUEST = `(module
    (import "env" "memory" (memory 1 10))
    (import "env" "table" (table 4 funcref))
    (import "env" "base" (global $base i32))
    (import "env" "wide" (global $wide i64))
    (import "env" "third" (global $third f64))
    (global $sum (mut i64) (i64.const 0))
    (func $own (result i32) (i32.const 12))
    (elem (i32.const 0) $own)
    (data (i32.const 16) "abc")
    (export "memory" (memory 0))
    (export "table" (table 0))
    (func (export "sum") (result i64) (global.get $sum))
    (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
    (func (export "wizer.initialize")
      (i32.store8 (global.get $base) (i32.add (i32.load8_u (i32.const 1)) (i32.const 1)))
      (i32.store8 (i32.const 16) (i32.const 0))
      (table.set (i32.const 3) (table.get (i32.const 0)))
      (global.set $sum (i64.add (global.get $wide) (i64.trunc_f64_s (global.get $third))))))`

  const given = () => {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 10 })
    new Uint8Array(memory.buffer).set([1, 2, 3], 0)
    return { memory, table: new WebAssembly.Table({ element: 'anyfunc', initial: 4 }), base: 100, wide: 5n, third: 2.5 }
  }
  const asGlobals = () => ({
    base: new WebAssembly.Global({ value: 'i32' }, 100),
    wide: new WebAssembly.Global({ value: 'i64' }, 5n),
    third: new WebAssembly.Global({ value: 'f64' }, 2.5),
  })
  const described = () => ({
    memory: { initial: 2, maximum: 10, contents: new Uint8Array([1, 2, 3]) },
    table: { element: 'anyfunc', initial: 4 },
  })

  const ends = { 'as values': given, 'as globals': () => ({ ...given(), ...asGlobals() }), described: () => ({ ...given(), ...described() }) }
  for (const [what, make] of Object.entries(ends)) {
    for (const engine of ['auto', 'interpreter', 'baseline', 'optimizing', 'host']) {
      both(`${what}: the output makes of them what the initialization made (${engine})`, async (way) => {
        const env = make()
        const output = await way(GUEST, { imports: { env }, engine, cache: false })
        if (env.memory instanceof WebAssembly.Memory) assert.deepEqual([...new Uint8Array(env.memory.buffer).subarray(0, 101)].slice(-2), [0, 0])
        const provided = given()
        const exports = start(output, { env: provided })
        const bytes = new Uint8Array(exports.memory.buffer)
        assert.deepEqual([bytes[0], bytes[1], bytes[2], bytes[16], bytes[17], bytes[18], bytes[100]], [1, 2, 3, 0, 98, 99, 3])
        assert.equal(exports.sum(), 7n)
        assert.deepEqual([exports.call(0), exports.call(3)], [12, 12])
        assert.equal(exports.table.get(1), null)
        // It wants a memory as large as the one that it was initialized with.
        const small = { ...given(), memory: new WebAssembly.Memory({ initial: 1, maximum: 10 }) }
        assert.throws(() => start(output, { env: small }), WebAssembly.LinkError)
      })
    }
  }

  both('are left alone where they were not changed', async (way) => {
    const guest = `(module
      (import "env" "memory" (memory 1))
      (import "env" "f" (func $f (result i32)))
      (global $n (mut i32) (i32.const 0))
      (data (i32.const 0) "x")
      (func (export "n") (result i32) (global.get $n))
      (func (export "wizer.initialize") (global.set $n (i32.add (call $f) (i32.load8_u (i32.const 1))))))`
    const output = await way(guest, { imports: { env: { f: () => 40, memory: { initial: 3, contents: new Uint8Array([0, 2]) } } } })
    const exports = start(output, { env: { f: () => 0, memory: new WebAssembly.Memory({ initial: 1 }) } })
    assert.equal(exports.n(), 42)
  })

  both('may be imported by preloaded modules', async (way) => {
    const lib = `(module (import "env" "memory" (memory 1))
      (func (export "store") (i32.store8 (i32.const 7) (i32.const 7))))`
    const guest = `(module
      (import "env" "memory" (memory 1)) (import "lib" "store" (func $store))
      (export "memory" (memory 0))
      (func (export "wizer.initialize") (call $store)))`
    const output = await way(guest, { imports: { env: { memory: { initial: 1 } } }, preload: { lib } })
    const { memory } = start(output, { env: { memory: new WebAssembly.Memory({ initial: 1 }) }, lib: { store() {} } })
    assert.equal(new Uint8Array(memory.buffer)[7], 7)
  })

  both('that do not fit are named', async (way) => {
    const importing = (type, init = '') => `(module (import "env" "it" ${type}) (func (export "wizer.initialize") ${init}))`
    const ends = async (type, it, code, init) => {
      const error = await failure(way(importing(type, init), { imports: { env: { it } } }))
      assert.equal(error.code, code, error.message)
      return error.message
    }
    assert.match(await ends('(memory 2)', { initial: 1 }, 'ERR_WIZER_IMPORT_TYPE'), /env::it/)
    await ends('(memory 1)', 5, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', () => {}, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(global i32)', 5n, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(global i64)', 5, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(global v128)', 5, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(table 2 funcref)', { element: 'anyfunc', initial: 1 }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', { initial: 1, contents: new Uint8Array(65537) }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', { initial: -1 }, 'ERR_WIZER_OPTION')
    await ends('(memory 1)', {}, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', 'text', 'ERR_WIZER_IMPORT_TYPE')
    await ends('(func)', { initial: 1 }, 'ERR_WIZER_IMPORT_TYPE')
    const changed = '(global.set 0 (i32.const 1))'
    assert.match(await ends('(global (mut i32))', new WebAssembly.Global({ value: 'i32', mutable: true }, 0), 'ERR_WIZER_UNREPRESENTABLE_STATE', changed), /the import `env::it`/)
    // As V8 has it.
    await ends('(memory 1)', new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1 1 shared)', new WebAssembly.Memory({ initial: 1, maximum: 1 }), 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', { initial: 1, shared: true }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', { initial: 1e9 }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory 1)', { initial: 2, maximum: 1 }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(table 1 funcref)', { element: 'anyfunc', initial: 2, maximum: 1 }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory i64 1)', { initial: 1, address: 'i16' }, 'ERR_WIZER_OPTION')
    await way(importing('(global i32)'), { imports: { env: { it: { value: 4 } } } })
    await way(importing('(global (mut f64))'), { imports: { env: { it: { value: 4 } } } })
    await ends('(memory i64 1)', new WebAssembly.Memory({ initial: 1 }), 'ERR_WIZER_IMPORT_TYPE')
    await ends('(memory i64 1)', { initial: 1, address: 'i32' }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(table 1 externref)', new WebAssembly.Table({ element: 'anyfunc', initial: 1 }), 'ERR_WIZER_IMPORT_TYPE')
    assert.match(
      await ends('(table 1 funcref)', new WebAssembly.Table({ element: 'externref', initial: 1 }, null), 'ERR_WIZER_IMPORT_TYPE'),
      /is of type externref, not funcref/,
    )
    await ends('(table 1 externref)', { element: 'anyfunc', initial: 1 }, 'ERR_WIZER_IMPORT_TYPE')
    await ends('(table i64 1 funcref)', new WebAssembly.Table({ element: 'anyfunc', initial: 1 }), 'ERR_WIZER_IMPORT_TYPE')
    await way(importing('(memory i64 1 1 shared)'), { imports: { env: { it: { initial: 1, address: 'i64', shared: true } } } })
    await way(importing('(table 1 externref)'), { imports: { env: { it: new WebAssembly.Table({ element: 'externref', initial: 1 }, null) } } })
    const global = (value, mutable, number) => new WebAssembly.Global({ value, mutable }, number)
    for (const [type, given, what] of [
      ['(global i32)', global('f64', false, 5), /of type f64, not i32/],
      ['(global f32)', global('f64', false, 5), /of type f64, not f32/],
      ['(global i32)', global('i32', true, 5), /a mutable global is provided/],
      ['(global (mut i32))', global('i32', false, 5), /wants a mutable global/],
      ['(global (mut i64))', 5n, /wants a mutable global/],
      ['(global externref)', global('anyfunc', false, null), /of type funcref, not externref/],
    ]) {
      assert.match(await ends(type, given, 'ERR_WIZER_IMPORT_TYPE'), what)
    }
    const full = new WebAssembly.Table({ element: 'anyfunc', initial: 1 })
    full.set(0, new WebAssembly.Instance(new WebAssembly.Module(await wizer('(module (func (export "f")) (func (export "wizer.initialize")))'))).exports.f)
    await ends('(table 1 funcref)', full, 'ERR_WIZER_OPTION')
  })

  both('numbers become what the WebAssembly JavaScript API makes of them', async (way) => {
    const guest = `(module (import "env" "i" (global i32)) (import "env" "f" (global f32)) (import "env" "r" (global externref))
      (func (export "i") (result i32) (global.get 0))
      (global $i (export "kept i") (mut i32) (i32.const 0)) (global $f (export "kept f") (mut f32) (f32.const 0))
      (func (export "wizer.initialize") (global.set $i (global.get 0)) (global.set $f (global.get 1))))`
    for (const i of [0, -1, 1.9, 4294967295, 2147483648, 1e20, NaN, Infinity]) {
      const env = { i, f: 0.1, r: new WebAssembly.Global({ value: 'externref' }, null) }
      const exports = start(await way(guest, { imports: { env } }), { env })
      assert.equal(exports['kept i'].value, exports.i())
      assert.equal(exports['kept f'].value, Math.fround(0.1))
    }
  })
})
