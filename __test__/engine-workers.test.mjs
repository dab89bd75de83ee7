// The workers in which this process's own engine runs modules: how they come and go, whatever happens around them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Session, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { node, run, runScript } from './helpers/run.mjs'

const host = { engine: 'host', cache: false }
const ADD = '(module (global $n (mut i32) (i32.const 40)) (func (export "wizer.initialize") (global.set $n (i32.add (global.get $n) (i32.const 2)))))'
const CALLS = '(module (import "env" "f" (func $f)) (func (export "wizer.initialize") (call $f)))'
/** So much memory that taking the snapshot is work. */
const DENSE = `(module (memory 4096) (func (export "wizer.initialize") (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x10000000))))`
/** What is promised is 100 ms, on a machine that does nothing else. */
const SOON = 3000

const json = JSON.stringify

/** Runs a script that is to end with this status, and soon. */
async function exits(status, script) {
  const began = performance.now()
  const { status: seen, signal, stderr } = await runScript(script)
  assert.deepEqual({ status: seen, signal, stderr }, { status, signal: null, stderr: '' })
  assert.ok(performance.now() - began < 2 * SOON)
}

describe('the end of the process', () => {
  it('in an import', async () => {
    const imports = '{ env: { f() { process.exit(7) } } }'
    await exits(7, `wizer(${json(CALLS)}, { ...${json(host)}, imports: ${imports} })`)
    await exits(7, `wizerSync(${json(CALLS)}, { ...${json(host)}, imports: ${imports} })`)
  })

  // Also without a worker: the module's memory goes before listeners of the exit do.
  it('in an import, and a listener that looks at the memory', async () => {
    for (const engine of ['host', 'optimizing'])
      for (const run of ['wizer', 'wizerSync'])
        await exits(0, `${run}(${json(CALLS.replace('(func $f)', '(func $f))(memory (export "memory") 100'))}, { engine: '${engine}', imports: (instance) => ({ env: { f() {
          const memory = instance.memory()
          process.on('exit', () => {
            memory[0] = 1
            try { instance.memory() } catch {}
          })
          process.exit(0)
        } } }) })`)
  })

  it('in each phase', async () => {
    for (const phase of ['compile', 'initialize', 'snapshot', 'rewrite'])
      for (const run of ['wizer', 'wizerSync'])
        await exits(7, `${run}(${json(DENSE)}, { ...${json(host)}, onProgress: ({ phase }) => phase === '${phase}' && process.exit(7) })`)
  })

  it('at any time', async () => {
    for (const ms of [0, 20, 40, 60, 100, 200, 400])
      await exits(7, `wizer(${json(DENSE)}, ${json(host)}); setTimeout(() => process.exit(7), ${ms})`)
  })

  it('does not wait for a worker that rests', async () => {
    await exits(0, `wizer(${json(ADD)}, ${json(host)}).then(() => process.stdout.write('.'))`)
    await exits(0, `wizerSync(${json(ADD)}, ${json(host)})`)
  })

  it('with sessions that nobody closes', async () => {
    const open = `const { Session } = require('@jakechampion/wizer'); Session.create(${json(ADD)}, ${json(host)}).then(async (session) => {
      await session.call('wizer.initialize')`
    await exits(0, `${open} })`)
    await exits(7, `${open}; process.exit(7) })`)
    await exits(7, `${open}; session.snapshot(); process.exit(7) })`)
  })
})

describe('the end of a worker that uses it', () => {
  const script = `
    const { wizer, wizerSync, Session } = require('@jakechampion/wizer')
    const { workerData: { wat, options, how }, parentPort } = require('node:worker_threads')
    const imports = (instance) => ({ env: { f() {
      if (wat.includes('"g"')) {
        parentPort.postMessage('nested')
        instance.call('g')
      }
      parentPort.postMessage('called')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    } } })
    const onProgress = ({ phase }) => parentPort.postMessage(phase)
    const given = { ...options, onProgress, ...(wat.includes('import') && { imports }) }
    const ways = {
      async: () => wizer(wat, given),
      sync: () => wizerSync(wat, given),
      session: async () => { const session = await Session.create(wat, given); await session.call('wizer.initialize'); parentPort.postMessage('rests') },
    }
    ways[how]()`
  /** Ends a worker as soon as it says this. */
  async function terminates(wat, how, at) {
    const worker = new Worker(script, { eval: true, workerData: { wat, options: host, how } })
    await new Promise((resolve, reject) => {
      worker.on('message', (message) => message === at && resolve())
      worker.on('error', reject)
    })
    const began = performance.now()
    await worker.terminate()
    assert.ok(performance.now() - began < SOON, `${how} at ${at}`)
  }

  it('in an import', async () => {
    for (const how of ['async', 'sync', 'session']) await terminates(CALLS, how, 'called')
  })

  it('in each phase', async () => {
    for (const phase of ['compile', 'initialize', 'snapshot', 'rewrite'])
      for (const how of ['async', 'sync']) await terminates(DENSE, how, phase)
  })

  it('in an export without end that an import has called', async () => {
    const wat = '(module (import "env" "f" (func $f)) (func (export "g") (loop (br 0))) (func (export "wizer.initialize") (call $f)))'
    for (const how of ['async', 'sync', 'session']) await terminates(wat, how, 'nested')
  })

  it('that has no time for an import, when the time of the run is over', async () => {
    const script = `
      const { wizer } = require('@jakechampion/wizer')
      const { workerData: { wat, options }, parentPort } = require('node:worker_threads')
      wizer(wat, { ...options, timeout: 300, imports: { env: { f() {} } } }).catch(() => {})
      const until = performance.now() + 1500
      while (performance.now() < until);
      parentPort.postMessage('over')
      while (true);`
    const worker = new Worker(script, { eval: true, workerData: { wat: CALLS, options: host } })
    await new Promise((resolve) => worker.once('message', resolve))
    const began = performance.now()
    await worker.terminate()
    assert.ok(performance.now() - began < SOON)
  })

  it('with a session that rests', () => terminates(ADD, 'session', 'rests'))
})

describe('many', () => {
  it('runs at once', async () => {
    const expected = wizerSync(ADD)
    const all = await Promise.all(Array.from({ length: 64 }, () => wizer(ADD, host)))
    for (const output of all) assert.deepEqual(output, expected)
  })

  it('threads', async () => {
    const script = `
      const { wizer, wizerSync } = require('@jakechampion/wizer')
      const { workerData: { wat, options }, parentPort } = require('node:worker_threads')
      wizer(wat, options).then((output) => parentPort.postMessage([output, wizerSync(wat, options)]))`
    const one = () =>
      new Promise((resolve, reject) => {
        const worker = new Worker(script, { eval: true, workerData: { wat: ADD, options: host } })
        worker.on('message', resolve)
        worker.on('error', reject)
      })
    const expected = new Uint8Array(wizerSync(ADD))
    for (const outputs of await Promise.all(Array.from({ length: 16 }, one)))
      for (const output of outputs) assert.deepEqual(new Uint8Array(output), expected)
  })

  it('runs of which some are cancelled', async () => {
    const endless = '(module (func (export "wizer.initialize") (loop (br 0))))'
    const runs = Array.from({ length: 24 }, (_, i) => (i % 3 ? wizer(ADD, host) : wizer(endless, { ...host, timeout: 50 + 10 * i })))
    for (const [i, { status, reason }] of (await Promise.allSettled(runs)).entries())
      assert.deepEqual({ status, code: reason?.code }, i % 3 ? { status: 'fulfilled', code: undefined } : { status: 'rejected', code: 'ERR_WIZER_TIMEOUT' })
  })

  it('sessions, one inside the other', async () => {
    const sessions = await Promise.all(Array.from({ length: 8 }, () => Session.create(ADD, host)))
    for (const session of sessions) await session.call('wizer.initialize')
    for (const session of sessions) {
      assert.equal((await session.snapshotWithReport()).report.engine.name, 'V8')
      await session.close()
    }
  })

  it('runs while this thread is busy', async () => {
    const running = snapshot(ADD, host)
    const until = performance.now() + 1000
    while (performance.now() < until);
    assert.equal((await running).report.engine.name, 'V8')
  })
})

describe('no worker', () => {
  const largeScript = (options) => `
    const filled = '${'x'.repeat(100)}'.repeat(55_000)
    const code = Array.from({ length: 100 }, () => '(func ' + '(drop (i32.add (i32.const 1) (i32.mul (i32.const 2) (i32.const 3))))'.repeat(1200) + ')').join(' ')
    const wat = '(module (memory 100) (data (i32.const 0) "' + filled + '") ' + code + ' (func (export "wizer.initialize")))'
    snapshot(wat, ${json(options)}).then(
      ({ report: { engine } }) => process.stdout.write(engine.name + ': ' + engine.reason),
      ({ code, message }) => process.stdout.write(code + ': ' + message),
    )`

  it('may be made: other engines run the module, and the report says why', async () => {
    const broken = `require('node:worker_threads').Worker = class { constructor() { throw new Error('not today') } };`
    const { status, stdout } = await runScript(`${broken}${largeScript({ cache: false })}`)
    assert.equal(status, 0)
    assert.match(stdout.toString(), /^wasmtime \(\w+\): the module is large; the engine of the host cannot be had: .*not today/)
    const pinned = await runScript(`${broken}${largeScript(host)}`)
    assert.match(pinned.stdout.toString(), /^ERR_WIZER_UNSUPPORTED: .*the engine of the host cannot be had: .*not today/)
  })

  it('begins: the script of the worker fails', async () => {
    const broken = `
      const { Worker } = require('node:worker_threads')
      require('node:worker_threads').Worker = class extends Worker { constructor(file, options) { super('throw new Error("no")', { ...options, eval: true }) } };`
    const { stdout } = await runScript(`${broken}${largeScript({ cache: false })}`)
    assert.match(stdout.toString(), /^wasmtime \(\w+\): the module is large; the engine of the host cannot be had: no/)
  })

  it('is allowed', async () => {
    const flag = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission'
    const addons = process.allowedNodeEnvironmentFlags.has('--allow-addons') ? ['--allow-addons'] : []
    const script = `const { snapshot } = require('@jakechampion/wizer');${largeScript({ cache: false })}`
    const command = node('--no-warnings', flag, ...addons, '--allow-fs-read=*', '--input-type=commonjs', '--eval', script)
    const { stdout, stderr } = await run(command)
    assert.match(stdout.toString(), /^wasmtime \(\w+\): the module is large; the engine of the host cannot be had: /, stderr)
  })
})
