// What a session does with memories and tables of the module: bytes, text, functions in slots. What the outputs are is
// judged by V8.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Session, WizerError } from '@jakechampion/wizer'
import { start } from './helpers/v8.mjs'
import { hostRuns } from './helpers/wat.mjs'

const engines = ['auto', 'interpreter', 'baseline', 'optimizing', 'host']

async function failure(promise, code) {
  const error = await promise.then(() => assert.fail('it did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  assert.equal(error.code, code, error.message)
  return error
}

/** Works with a session that is closed in the end. */
async function within(wasm, options, work) {
  const session = await Session.create(wasm, options)
  try {
    return await work(session)
  } finally {
    await session.close()
  }
}

const GUEST = `(module
  (memory (export "memory") 2 4)
  (data (i32.const 16) "hello\\00world")
  (func (export "byte") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "grow") (result i32) (memory.grow (i32.const 1))))`

describe('a memory of a session', () => {
  for (const engine of engines) {
    it(`is read and written between calls, and the output has what was written (${engine})`, async () => {
      const output = await within(GUEST, { engine, cache: false }, async (session) => {
        const memory = session.memory()
        assert.equal(await memory.size(), 131072)
        assert.equal((await memory.read(16, 5)).toString(), 'hello')
        assert.equal(await memory.readString(16), 'hello')
        assert.equal(await memory.readString(16, 11), 'hello\0world')
        await memory.write(16, 'jello')
        // A page that nobody has touched.
        await memory.write(100_000, Uint16Array.of(0x0201, 0x0403))
        assert.equal(await session.call('byte', 16), 'j'.charCodeAt())
        await session.call('store', 100_000, 9)
        assert.deepEqual([...await memory.read(100_000n, 5n)], [9, 2, 3, 4, 0])
        assert.equal(await session.call('grow'), 2)
        assert.equal(await memory.size(), 3 * 65536)
        await session.memory('memory').write(3 * 65536 - 1, Buffer.of(7))
        return session.snapshot()
      })
      const bytes = Buffer.from(start(output).memory.buffer)
      assert.equal(bytes.toString('latin1', 16, 27), 'jello\0world')
      assert.deepEqual([...bytes.subarray(100_000, 100_004)], [9, 2, 3, 4])
      assert.equal(bytes.at(-1), 7)
    })
  }

  it('is what it is in the order of the steps', () => within(GUEST, {}, async (session) => {
    const memory = session.memory()
    const bytes = Buffer.from('one')
    const steps = [memory.write(0, bytes), session.call('byte', 0), session.snapshot(), memory.write(0, 'two'), memory.readString(0)]
    // It is copied when it is given.
    bytes.fill(0)
    const [, first, output, , text] = await Promise.all(steps)
    assert.deepEqual([first, text], ['o'.charCodeAt(), 'two'])
    assert.equal(Buffer.from(start(output).memory.buffer, 0, 3).toString(), 'one')
  }))

  it('gives copies', () => within(GUEST, {}, async (session) => {
    const bytes = await session.memory().read(16, 5)
    bytes.fill(0)
    assert.equal(await session.memory().readString(16), 'hello')
  }))

  for (const engine of ['interpreter', 'optimizing', 'host']) {
    it(`ends where it ends (${engine})`, () => within(GUEST, { engine }, async (session) => {
      const memory = session.memory()
      const size = 131072
      assert.equal((await memory.read(size, 0)).length, 0)
      await memory.write(size, '')
      for (const [address, length] of [[size, 1], [0, size + 1], [size + 1, 0], [2n ** 64n - 1n, 2], [2 ** 53 - 1, 1]]) {
        const { message } = await failure(memory.read(address, length), 'ERR_WIZER_OUT_OF_BOUNDS')
        assert.match(message, /131072 bytes/)
      }
      await failure(memory.write(size - 2, 'abc'), 'ERR_WIZER_OUT_OF_BOUNDS')
      assert.deepEqual([...await memory.read(size - 2, 2)], [0, 0])
      await memory.write(size - 2, 'ab')
      await failure(memory.readString(size - 2), 'ERR_WIZER_OUT_OF_BOUNDS')
      await failure(memory.readString(size), 'ERR_WIZER_OUT_OF_BOUNDS')
      for (const address of [-1, 0.5, NaN, '16', undefined, null, -1n, 2n ** 64n]) {
        await failure(memory.read(address, 1), 'ERR_WIZER_OPTION')
        await failure(memory.read(0, address ?? 'none'), 'ERR_WIZER_OPTION')
        await failure(memory.write(address, ''), 'ERR_WIZER_OPTION')
      }
      await failure(memory.write(0, 5), 'ERR_WIZER_OPTION')
      // And the session goes on.
      assert.equal(await session.call('byte', size - 1), 'b'.charCodeAt())
    }))
  }

  it('is named as for imports, and an error says which there are', () => within(`(module
    (import "env" "memory" (memory 1)) (memory (export "own") 2) (table 1 funcref))`, { imports: { env: { memory: { initial: 1 } } } }, async (session) => {
    assert.equal(await session.memory('env.memory').size(), 65536)
    assert.equal(await session.memory('own').size(), 131072)
    for (const name of [undefined, 'memory', 'env']) {
      assert.match((await failure(session.memory(name).read(0, 1), 'ERR_WIZER_OPTION')).message, /`env.memory`, `own`|`own`, `env.memory`/)
    }
  }))

  it('may be imported, provided, private, or have 64-bit addresses', async () => {
    const imports = { env: { memory: { initial: 1, contents: Buffer.from('provided') } } }
    const imported = await within('(module (import "env" "memory" (memory 1)))', { imports }, async (session) => {
      assert.equal(await session.memory().readString(0), 'provided')
      await session.memory('env.memory').write(3, 'vol')
      return session.snapshot()
    })
    const memory = new WebAssembly.Memory({ initial: 1 })
    Buffer.from(memory.buffer).write('provided')
    start(imported, { env: { memory } })
    assert.equal(Buffer.from(memory.buffer, 0, 8).toString(), 'provoled')

    const preload = { lib: '(module (memory (export "m") 1))' }
    const shared = await within('(module (import "lib" "m" (memory 1)))', { preload }, async (session) => {
      await session.memory('lib.m').write(0, 'x')
      return session.snapshot()
    })
    const m = new WebAssembly.Memory({ initial: 1 })
    start(shared, { lib: { m } })
    assert.equal(new Uint8Array(m.buffer)[0], 'x'.charCodeAt())

    const wide = '(module (memory i64 1) (func (export "byte") (param i64) (result i32) (i32.load8_u (local.get 0))))'
    for (const engine of engines.filter((engine) => engine !== 'host' || hostRuns('(memory i64 1)'))) {
      const output = await within(wide, { engine, cache: false }, async (session) => {
        await session.memory().write(65535n, '!')
        assert.equal(await session.call('byte', 65535n), 33)
        return session.snapshot()
      })
      assert.ok(Buffer.from(output).includes('!'))
    }
  })

  it('may be shared', async () => {
    const output = await within('(module (memory (export "memory") 1 1 shared))', {}, async (session) => {
      await session.memory().write(8, 'shared')
      assert.equal(await session.memory().readString(8), 'shared')
      return session.snapshot()
    })
    assert.equal(Buffer.from(start(output).memory.buffer).toString('latin1', 8, 14), 'shared')
    // One that each thread imports is written by none.
    const imports = { env: { memory: { initial: 1, maximum: 1, shared: true } } }
    await within('(module (import "env" "memory" (memory 1 1 shared)))', { imports }, async (session) => {
      const unchanged = await session.snapshot()
      await session.memory().write(8, 'shared')
      await failure(session.snapshot(), 'ERR_WIZER_UNREPRESENTABLE_STATE')
      await session.memory().write(8, Buffer.alloc(6))
      assert.deepEqual(await session.snapshot(), unchanged)
    })
  })

  it('is of no use after the session is closed', async () => {
    const session = await Session.create(GUEST)
    const memory = session.memory()
    await session.close()
    await failure(memory.read(0, 1), 'ERR_WIZER_OPTION')
    await failure(memory.write(0, 'a'), 'ERR_WIZER_OPTION')
    await failure(memory.size(), 'ERR_WIZER_OPTION')
    await failure(session.callIndirect(undefined, 0), 'ERR_WIZER_OPTION')
  })
})

describe('a slot of a table of a session', () => {
  const guest = `(module
    (import "env" "see" (func $see (param i32)))
    (table (export "__indirect_function_table") 5 funcref)
    (table $other (export "other") 1 funcref)
    (elem (i32.const 1) $add $trap $see)
    (elem (table $other) (i32.const 0) func $count)
    (global $n (mut i32) (i32.const 0))
    (func $add (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
    (func $trap unreachable)
    (func $count (export "count") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))`

  for (const engine of engines) {
    it(`is called (${engine})`, async () => {
      const seen = []
      const output = await within(guest, { engine, cache: false, imports: { env: { see: (it) => void seen.push(it) } } }, async (session) => {
        assert.equal(await session.callIndirect(undefined, 1, 40n, 2n), 42n)
        assert.equal(await session.callIndirect('__indirect_function_table', 3n, 7), undefined)
        assert.equal(await session.callIndirect('other', 0), 1)
        await failure(session.callIndirect(undefined, 2), 'ERR_WIZER_TRAP')
        assert.equal(await session.callIndirect('other', 0), 2)
        return session.snapshot()
      })
      assert.deepEqual(seen, [7])
      assert.equal(start(output).count(), 3)
    })
  }

  it('that cannot be called is an error', () => within(guest, {}, async (session) => {
    assert.match((await failure(session.callIndirect(undefined, 0), 'ERR_WIZER_OPTION')).message, /slot 0 .* null/)
    assert.match((await failure(session.callIndirect(undefined, 5), 'ERR_WIZER_OPTION')).message, /5 slots/)
    assert.match((await failure(session.callIndirect('third', 0), 'ERR_WIZER_OPTION')).message, /`other`/)
    for (const slot of [-1, 0.5, '1', undefined]) await failure(session.callIndirect(undefined, slot), 'ERR_WIZER_OPTION')
    await assert.rejects(session.callIndirect(undefined, 1, 40, 2), TypeError)
  }))
})
