// A memory that is shared between threads, and imported: the output is instantiated in each thread, and V8 judges that
// every instance behaves as the original's do after the first one was initialized.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { WizerError, wizer } from '@jakechampion/wizer'

/** With the start function that `wasm-ld` makes for threads: the flag is at 64. */
const guest = ({ start = START, more = '', init = '' } = {}) => `(module
  (import "env" "memory" (memory 1 4 shared))
  (global $stack (export "stack") (mut i32) (i32.const 4096))
  (global $tls (export "tls") (mut i32) (i32.const 0))
  (global $kept (export "kept") (mut i64) (i64.const 7))
  (data $initial "abcdef")
  (data $tdata "tls")
  ${more}
  ${start}
  (func (export "take") (param i32) (result i32) (i32.atomic.rmw.add (i32.const 128) (local.get 0)))
  (func (export "thread") (param i32)
    (global.set $tls (local.get 0))
    (memory.init $tdata (local.get 0) (i32.const 0) (i32.const 3)))
  (func (export "wizer.initialize")
    (global.set $tls (i32.const 512))
    (global.set $stack (i32.const 2048))
    (i32.store8 (i32.const 1) (i32.const 66))
    (i32.store8 (i32.const 5) (i32.const 0))
    (i32.store (i32.const 128) (i32.const 1000))
    ${init})
  (start $start))`
const START = `(func $start
    (block (block (block
      (br_table 0 1 2 (i32.atomic.rmw.cmpxchg (i32.const 64) (i32.const 0) (i32.const 1))))
      (memory.init $initial (i32.const 0) (i32.const 0) (i32.const 6))
      (global.set $tls (i32.const 256))
      (memory.init $tdata (i32.const 256) (i32.const 0) (i32.const 3))
      (memory.fill (i32.const 300) (i32.const 0) (i32.const 50))
      (i32.atomic.store (i32.const 64) (i32.const 2))
      (drop (memory.atomic.notify (i32.const 64) (i32.const -1)))
      (br 1))
      (drop (memory.atomic.wait32 (i32.const 64) (i32.const 1) (i64.const -1))))
    (data.drop $initial))`

const memory = (initial = 1) => new WebAssembly.Memory({ initial, maximum: 4, shared: true })
const instantiate = (module, memory) => new WebAssembly.Instance(module, { env: { memory } }).exports
describe('an imported shared memory', () => {
  it('is written by the first instance, and found by the others', async () => {
    const output = new WebAssembly.Module(await wizer(guest(), { imports: { env: { memory: memory() } } }))
    const shared = memory()
    const first = instantiate(output, shared)
    const bytes = new Uint8Array(shared.buffer)
    assert.deepEqual([first.stack.value, first.tls.value, first.kept.value], [2048, 512, 7n])
    assert.equal(Buffer.from(bytes.slice(0, 6)).toString('latin1'), 'aBcde\0')
    assert.equal(Buffer.from(bytes.slice(256, 259)).toString(), 'tls')
    assert.equal(new Int32Array(shared.buffer)[16], 2)
    assert.equal(first.take(5), 1000)

    // What has happened since then stays, and the second instance begins as any does that is not the first.
    bytes[1] = 99
    const second = instantiate(output, shared)
    assert.equal(bytes[1], 99)
    assert.deepEqual([second.stack.value, second.tls.value, second.kept.value], [4096, 0, 7n])
    assert.equal(second.take(1), 1005)
    // The segment that the start function keeps for threads is there in each.
    second.thread(1024)
    assert.equal(Buffer.from(bytes.slice(1024, 1027)).toString(), 'tls')
  })

  it('is written once, however many threads begin at the same time', async () => {
    const output = new WebAssembly.Module(await wizer(guest(), { imports: { env: { memory: memory() } } }))
    const shared = memory()
    const code = `const { workerData: { output, memory }, parentPort } = require('node:worker_threads')
      const { exports } = new WebAssembly.Instance(output, { env: { memory } })
      exports.take(1)
      parentPort.postMessage(exports.tls.value)`
    const workers = Array.from({ length: 6 }, () => new Worker(code, { eval: true, workerData: { output, memory: shared } }))
    const tls = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]))
    assert.deepEqual(tls.sort(), [0, 0, 0, 0, 0, 512])
    assert.equal(new Int32Array(shared.buffer)[32], 1006)
  })

  it('grows, and wants to be as large', async () => {
    const output = new WebAssembly.Module(await wizer(guest({ init: '(drop (memory.grow (i32.const 1)))' }), { imports: { env: { memory: memory() } } }))
    assert.throws(() => instantiate(output, memory()), WebAssembly.LinkError)
    assert.equal(instantiate(output, memory(2)).take(0), 1000)
  })

  it('is left alone where it was not changed', async () => {
    const text = `(module (import "env" "memory" (memory 1 4 shared)) (global $n (export "n") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") (global.set $n (i32.load8_u (i32.const 8)))))`
    const { n } = instantiate(new WebAssembly.Module(await wizer(text, { imports: { env: { memory: memory() } } })), memory())
    assert.equal(n.value, 0)
  })

  it('is refused where instances could not agree, or have changes for themselves', async () => {
    const refused = async (text, what, given = memory()) => {
      const error = await wizer(text, { imports: { env: { memory: given } } }).then(() => assert.fail('it was not'), (error) => error)
      assert.ok(error instanceof WizerError, String(error))
      assert.equal(error.code, 'ERR_WIZER_UNREPRESENTABLE_STATE')
      assert.match(error.message, /memory 0 \(the import `env::memory`\) is shared between instances/)
      assert.match(error.message, what)
    }
    await refused(guest({ start: '(func $start (data.drop $initial))' }), /no start function/)
    // More than the linker's: each instance would have done it.
    await refused(guest({ start: START.replace('(data.drop $initial))', '(data.drop $initial) (global.set $kept (i64.const 1)))') }), /no start function/)
    await refused(guest({ start: START.replace('(br_table 0 1 2', '(br_table 0 2 1') }), /no start function/)
    const table = '(table $t 1 funcref) (func $f) (elem declare func $f)'
    const spare = '(data $spare "spare") (func (export "use") (memory.init $spare (i32.const 0) (i32.const 0) (i32.const 5)))'
    await refused(guest({ more: spare, init: '(data.drop $spare)' }), /a passive data segment was dropped/)
    const contents = new Uint8Array(65536)
    contents[64] = 2
    await refused(guest(), /its flag said before/, { initial: 1, maximum: 4, contents })
    await refused(guest({ more: table, init: '(table.set $t (i32.const 0) (ref.func $f))' }), /tables or references/)
  })
})
