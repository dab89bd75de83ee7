// What another realm made: a test runner's sandbox, a frame, `node:vm`. There, `ArrayBuffer`, `WebAssembly.Memory` and the
// others are classes of their own, and objects are as good as those of this realm all the same.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createContext, runInContext } from 'node:vm'
import { Session, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { start } from './helpers/v8.mjs'
import { assemble } from './helpers/wat.mjs'

const context = createContext({})
const elsewhere = (code) => runInContext(code, context)
const { ArrayBuffer: TheirBuffer, Uint8Array: TheirBytes } = elsewhere('({ ArrayBuffer, Uint8Array })')

/** The bytes, in a buffer of the other realm. */
function theirs(bytes, kind = 'ArrayBuffer') {
  const buffer = elsewhere(`new ${kind}(${bytes.length})`)
  new Uint8Array(buffer).set(bytes)
  return buffer
}

const GUEST = assemble(`(module
  (global $n (export "n") (mut i32) (i32.const 0))
  (func (export "wizer.initialize") (global.set $n (i32.const 42))))`)

it('the realms are two', () => {
  const bytes = new TheirBytes(theirs(GUEST))
  assert.equal(bytes instanceof Uint8Array, false)
  assert.equal(bytes.buffer instanceof ArrayBuffer, false)
  assert.equal(elsewhere('new WebAssembly.Memory({ initial: 1 })') instanceof WebAssembly.Memory, false)
  assert.notEqual(TheirBuffer, ArrayBuffer)
})

describe('bytes', () => {
  const kinds = {
    ArrayBuffer: theirs(GUEST),
    SharedArrayBuffer: theirs(GUEST, 'SharedArrayBuffer'),
    Uint8Array: new TheirBytes(theirs(GUEST)),
    DataView: elsewhere('(buffer) => new DataView(buffer)')(theirs(GUEST)),
  }
  for (const [kind, wasm] of Object.entries(kinds)) {
    it(kind, async () => {
      assert.equal(start(await wizer(wasm)).n.value, 42)
      assert.equal(start(wizerSync(wasm)).n.value, 42)
      const session = await Session.create(wasm)
      await session.call('wizer.initialize')
      assert.equal(start(await session.snapshot()).n.value, 42)
      await session.close()
    })
  }

  it('of options', async () => {
    const options = elsewhere('({ allowWasi: true, files: {}, preload: {}, args: ["program"], env: { A: "b" }, mapDirs: {} })')
    options.files['/a'] = theirs(Buffer.from('contents'))
    options.stdin = theirs(Buffer.from('input'))
    options.preload.lib = theirs(assemble('(module)'))
    const { wasm } = await snapshot(GUEST, options)
    assert.equal(start(wasm).n.value, 42)
  })
})

describe('imports', () => {
  it('memories, tables, globals and functions', async () => {
    const env = elsewhere(`({
      memory: new WebAssembly.Memory({ initial: 1, maximum: 2 }),
      table: new WebAssembly.Table({ initial: 2, element: 'anyfunc' }),
      global: new WebAssembly.Global({ value: 'i64', mutable: true }, 7n),
      pair: (a) => [a, 2],
    })`)
    new Uint8Array(env.memory.buffer)[3] = 5
    const guest = `(module
      (import "env" "memory" (memory 1 2))
      (import "env" "table" (table 2 funcref))
      (import "env" "global" (global $global (mut i64)))
      (import "env" "pair" (func $pair (param i32) (result i32 i32)))
      (global $sum (export "sum") (mut i32) (i32.const 0))
      (func (export "wizer.initialize")
        (global.set $sum (i32.add (i32.load8_u (i32.const 3)) (i32.wrap_i64 (global.get $global))))
        (global.set $sum (i32.add (global.get $sum) (i32.add (call $pair (i32.const 1)))))))`
    const output = await wizer(guest, { imports: { env } })
    assert.equal(start(output, { env }).sum.value, 15)
  })

  it('a memory that is described', async () => {
    const env = elsewhere('({ memory: { initial: 1, contents: new Uint8Array([9]) } })')
    const guest = `(module (import "env" "memory" (memory 1)) (global $n (export "n") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") (global.set $n (i32.load8_u (i32.const 0)))))`
    const output = await wizer(guest, { imports: { env } })
    assert.equal(start(output, { env: { memory: new WebAssembly.Memory({ initial: 1 }) } }).n.value, 9)
  })

  it('what they were made as is checked', async () => {
    const cases = [
      ['(memory i64 1)', 'new WebAssembly.Memory({ initial: 1 })'],
      ['(table 1 externref)', 'new WebAssembly.Table({ initial: 1, element: "anyfunc" })'],
      ['(global i32)', 'new WebAssembly.Global({ value: "i64" }, 7n)'],
      ['(global (mut i32))', 'new WebAssembly.Global({ value: "i32" }, 7)'],
    ]
    for (const [type, item] of cases) {
      const guest = `(module (import "env" "item" ${type}) (func (export "wizer.initialize")))`
      const imports = { env: { item: elsewhere(item) } }
      await assert.rejects(wizer(guest, { imports }), { code: 'ERR_WIZER_IMPORT_TYPE' }, item)
    }
  })

  it('only their own functions and methods are offered', async () => {
    const env = elsewhere('({ plain: { own() {} }, ofClass: new (class { own() {} })() })')
    for (const names of [env.plain, env.ofClass]) {
      const calls = (name) => `(module (import "env" "${name}" (func $f)) (func (export "wizer.initialize") (call $f)))`
      await wizer(calls('own'), { imports: { env: names } })
      for (const name of ['toString', 'valueOf', 'hasOwnProperty', 'constructor']) {
        await assert.rejects(wizer(calls(name), { imports: { env: names } }), { code: 'ERR_WIZER_IMPORT_MISSING' }, name)
      }
    }
  })

  it('what they throw is the cause', async () => {
    const imports = { env: { f: elsewhere('() => { throw new RangeError("theirs") }') } }
    const guest = '(module (import "env" "f" (func $f)) (func (export "wizer.initialize") (call $f)))'
    const error = await wizer(guest, { imports }).catch((error) => error)
    assert.equal(error.code, 'ERR_WIZER_IMPORT_FAILED')
    assert.equal(error.cause.message, 'theirs')
    assert.match(error.message, /RangeError: theirs/)
  })

  it('a promise of theirs is one', async () => {
    const imports = { env: { f: elsewhere('async () => {}') } }
    const guest = '(module (import "env" "f" (func $f)) (func (export "wizer.initialize") (call $f)))'
    await assert.rejects(wizer(guest, { imports }), /returned a promise/)
  })
})
