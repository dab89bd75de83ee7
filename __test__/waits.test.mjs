// Whatever a module waits for, the wait ends when the run is to end: by a deadline, a signal, the exit of the process or
// the end of a worker.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { launch, node, runScript, temporaryDirectory } from './helpers/run.mjs'
import { wasi } from './helpers/wasi.mjs'

const LIMIT = 300

/** How much longer a run may take. What is promised is 100 ms, on a machine that does nothing else. */
const SOON = 2000

/** A guest that rests for an hour, and then is to write its events there. */
const resting = (events) => `(module ${wasi('poll_oneoff')} (memory (export "memory") 1)
  (func (export "wizer.initialize")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3_600_000_000_000))
    (drop (call $poll_oneoff (i32.const 0) (i32.const ${events}) (i32.const 1) (i32.const 128)))))`

const opening = `(module ${wasi('path_open')} (memory (export "memory") 1) (data (i32.const 16) "pipe")
  (func (export "wizer.initialize")
    (drop (call $path_open (i32.const 3) (i32.const 1) (i32.const 16) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0)
      (i32.const 0) (i32.const 32)))))`

const waiting = `(module (memory (export "memory") 1 1 shared)
  (func (export "wizer.initialize") (drop (memory.atomic.wait32 (i32.const 8) (i32.const 0) (i64.const -1)))))`

const reading = `(module ${wasi('fd_read')} (memory (export "memory") 1)
  (func (export "wizer.initialize")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 16))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))`

/** A directory with a pipe in it: who is left behind at one is the other end for the next. */
function withPipe() {
  const directory = temporaryDirectory()
  assert.equal(spawnSync('mkfifo', [join(directory, 'pipe')]).status, 0)
  return directory
}

const hasPipes = process.platform !== 'win32'
const waits = [
  ['a rest', resting(64)],
  ['a rest whose events have an odd place', resting(65)],
  ['a rest whose events have no place', resting(0x7fffff00)],
  ['an atomic wait', waiting],
  ['a loop without end', `(module (func (export "wizer.initialize") (loop (br 0))))`],
  ...(hasPipes ? [['a pipe that nobody writes to', opening]] : []),
]

for (const [what, wat, engine] of waits.flatMap((wait) => ['auto', 'host'].map((engine) => [...wait, engine]))) {
  describe(`${what}, ${engine}`, () => {
    const options = () => ({ allowWasi: true, stdin: Buffer.alloc(0), cache: false, engine, ...(wat === opening && { mapDirs: { '/': withPipe() } }) })

    /** Asserts that a run ends with this error, soon. */
    async function ends(code, run) {
      const began = performance.now()
      await assert.rejects(run, { code })
      const took = performance.now() - began
      assert.ok(took < LIMIT + SOON, `${took} ms`)
    }

    it('ends with the deadline', async () => {
      await ends('ERR_WIZER_TIMEOUT', wizer(wat, { ...options(), timeout: LIMIT }))
      await ends('ERR_WIZER_TIMEOUT', async () => wizerSync(wat, { ...options(), timeout: LIMIT }))
    })

    it('ends with the signal', () => ends('ERR_WIZER_ABORTED', snapshot(wat, { ...options(), signal: AbortSignal.timeout(LIMIT) })))

    it('does not keep the process from its exit', async () => {
      const began = performance.now()
      const { status, stderr } = await runScript(`
        wizer(${JSON.stringify(wat)}, ${JSON.stringify({ ...options(), stdin: 'ignore' })})
        setTimeout(() => process.exit(7), ${LIMIT})`)
      assert.deepEqual({ status, stderr }, { status: 7, stderr: '' })
      assert.ok(performance.now() - began < 10 * SOON)
    })

    it('ends with the worker', async () => {
      const script = `
        const { wizer, wizerSync } = require('@jakechampion/wizer')
        const { workerData: { wat, options, sync }, parentPort } = require('node:worker_threads')
        parentPort.postMessage('begun')
        sync ? wizerSync(wat, options) : wizer(wat, options)`
      for (const sync of [false, true]) {
        const worker = new Worker(script, { eval: true, workerData: { wat, options: { ...options(), stdin: 'ignore' }, sync } })
        await new Promise((resolve) => worker.once('message', resolve))
        await new Promise((resolve) => setTimeout(resolve, LIMIT))
        const began = performance.now()
        await worker.terminate()
        assert.ok(performance.now() - began < SOON)
      }
    })
  })
}

describe('standard streams', () => {
  const script = (wat, options) => `
    const began = performance.now()
    wizer(${JSON.stringify(wat)}, ${JSON.stringify({ allowWasi: true, cache: false, timeout: LIMIT, ...options })}).then(
      () => process.exit(1),
      ({ code }) => {
        process.stderr.write(code)
        process.exit(performance.now() - began < ${LIMIT + SOON} ? 0 : 2)
      },
    )`

  it('input that does not come', async () => {
    const child = launch(node('--input-type=commonjs', '--eval', `const { wizer } = require('@jakechampion/wizer')\n${script(reading)}`), { input: null })
    const { status, stderr } = await child.done
    assert.deepEqual({ status, stderr }, { status: 0, stderr: 'ERR_WIZER_TIMEOUT' })
  })

  // More than a pipe holds, in one call; held back by an interpreter, or by compiled code as it goes.
  const writing = `(module ${wasi('fd_write')} (memory (export "memory") 16)
    (func (export "wizer.initialize")
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (i32.const 1000000))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))`
  for (const engine of ['auto', 'interpreter', 'optimizing', 'host']) {
    it(`output that nobody takes, ${engine}`, async () => {
      const child = launch(node('--input-type=commonjs', '--eval', `const { wizer } = require('@jakechampion/wizer')\n${script(writing, { engine })}`), {
        unread: 'stdout',
      })
      const status = await new Promise((resolve) => child.once('exit', resolve))
      child.stdout.destroy()
      const { stderr } = await child.done
      assert.deepEqual({ status, stderr }, { status: 0, stderr: 'ERR_WIZER_TIMEOUT' })
    })
  }
})
