// What stays of a run when it is over.
//
// Each case makes runs of a small module. What is in use of the JavaScript heap and the resident set is looked at after the
// first of them and after all: runs leave nothing behind if both stay where they are. Each case has a process of its own, in
// which collecting is forced before each look.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { Session, snapshot, wizer, wizerSync } from '../../index.mjs'

const GUEST = `(module
  (import "env" "f" (func $f (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (export "n") (mut i32) (i32.const 0))
  (func (export "wizer.initialize") (global.set $n (i32.const 42)))
  (func (export "call") (global.set $n (call $f (i32.const 1))))
  (func (export "trap") unreachable)
  (func (export "endless") (loop (br 0))))`

const imports = (host) => ({ env: { f: (n) => host.memory().length + n } })
const fails = (promise) => promise.then(() => Promise.reject(new Error('it went well')), () => {})

/** What is done again and again. */
const CASES = {
  'wizer()': () => wizer(GUEST),
  'wizerSync()': () => wizerSync(GUEST),
  'snapshot()': () => snapshot(GUEST),
  'with imports': () => wizer(GUEST, { imports, initFunc: 'call' }),
  'with imports, wizerSync()': () => wizerSync(GUEST, { imports, initFunc: 'call' }),
  'on V8': () => wizer(GUEST, { engine: 'host' }),
  'on V8, with imports, wizerSync()': () => wizerSync(GUEST, { engine: 'host', imports, initFunc: 'call' }),
  'on V8, an error': () => fails(wizer(GUEST, { engine: 'host', initFunc: 'trap' })),
  'on V8, a session, closed': async () => {
    const session = await Session.create(GUEST, { engine: 'host', imports })
    await session.call('call')
    await session.snapshot()
    await session.close()
  },
  'on V8, a session, dropped': async () => {
    const session = await Session.create(GUEST, { engine: 'host', imports })
    await session.call('call')
  },
  'with progress': () => wizer(GUEST, { onProgress: () => {} }),
  'an error': () => fails(wizer(GUEST, { initFunc: 'trap' })),
  'an abort': () => {
    const controller = new AbortController()
    const run = wizer(GUEST, { signal: controller.signal, initFunc: 'endless' })
    controller.abort()
    return fails(run)
  },
  'one signal for all': () => wizer(GUEST, { signal }),
  'Session, closed': async () => {
    const session = await Session.create(GUEST, { imports })
    await session.call('call')
    await session.snapshot()
    await session.close()
  },
  'Session, dropped': async () => {
    const session = await Session.create(GUEST, { imports })
    await session.call('call')
  },
}
const { signal } = new AbortController()

/** In workers, a case makes this many calls before its worker ends. */
const CALLS_OF_WORKER = 100

async function repeat(work, calls) {
  for (let call = 0; call < calls; call++) {
    await work()
    // Node-API frees what belongs to collected objects between two turns of the event loop only.
    if (call % 100 === 99) await new Promise((resolve) => setImmediate(resolve))
  }
}

const inWorkers = (name) => async (calls) => {
  for (let done = 0; done < calls; done += CALLS_OF_WORKER) {
    const worker = new Worker(new URL(import.meta.url), { workerData: null, argv: ['worker', name] })
    await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject))
  }
}

/** The memory in use, in bytes, once all that can be collected is. */
async function used() {
  for (let round = 0; round < 5; round++) {
    globalThis.gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const { heapUsed, rss } = process.memoryUsage()
  return { heapUsed, rss }
}

async function measure(name, warm, calls) {
  const many = name.endsWith(IN_WORKERS) ? inWorkers(name.slice(0, -IN_WORKERS.length)) : (calls) => repeat(CASES[name], calls)
  await many(warm)
  const before = await used()
  await many(calls - warm)
  return { before, after: await used() }
}

const IN_WORKERS = ', in workers that end'
export const names = [...Object.keys(CASES), `wizer()${IN_WORKERS}`, `wizerSync()${IN_WORKERS}`]

/**
 * V8's young generation grows to 16 MB in a program that allocates for long, whatever that does, and is resident from then on. It
 * stays small here, or it would be most of what is measured.
 */
const FLAGS = ['--expose-gc', '--no-warnings', '--max-semi-space-size=1']

/** The growth of each case between the first `warm` and all `calls` of its runs. */
export function measureAll(warm, calls, chosen = names) {
  return chosen.map((name) => {
    const args = [...FLAGS, fileURLToPath(import.meta.url), 'case', name, warm, calls]
    const { status, stdout, stderr } = spawnSync(process.execPath, args.map(String), { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${name}:\n${stderr}`)
    return { name, ...JSON.parse(stdout) }
  })
}

const [command, ...args] = process.argv.slice(2)
if (command === 'worker') {
  await repeat(CASES[args[0]], CALLS_OF_WORKER)
} else if (command === 'case') {
  const [name, warm, calls] = args
  console.log(JSON.stringify(await measure(name, Number(warm), Number(calls))))
}
