'use strict'

// The JavaScript API, documented in index.d.ts. What runs is the native addon; this file turns
// options into plain values, results into promises and errors into `WizerError`.

const { isMainThread } = require('./lib/node.js').workerThreads
const { loadBinding } = require('./platform.js')
const { ImportCalls } = require('./lib/imports.js')
const { WizerError } = require('./lib/error.js')
const { SessionMemory } = require('./lib/memory.js')
const { Values, toBigInt } = require('./lib/values.js')
const { check, optionError, toBytes } = require('./lib/options.js')
const { worker } = require('./lib/workers.js')

let binding
/** The native addon, loaded when it is first needed. */
const native = () => (binding ??= loadBinding())

/** The runs that go on. One that doesn't end would keep the process from its exit. */
const active = new Set()
const abandonAll = () => {
  for (const run of active) run.abandon()
}

/** The runs that each signal ends. One listener serves all: a bundler may give one signal to a hundred runs. */
const followers = new WeakMap()

function follow(signal, run) {
  let follower = followers.get(signal)
  if (!follower) {
    const runs = new Set()
    const abort = () => {
      for (const run of runs) run.abort()
    }
    followers.set(signal, (follower = { runs, abort }))
    signal.addEventListener('abort', abort, { once: true })
  }
  follower.runs.add(run)
}

function unfollow(signal, run) {
  const { runs, abort } = followers.get(signal)
  runs.delete(run)
  if (runs.size > 0) return
  signal.removeEventListener('abort', abort)
  followers.delete(signal)
}

/** One run of the native addon, made of the caller's options. */
class Job {
  constructor(wasm, options = {}) {
    const { imports, signal, onProgress, stdin, files, preload, ...plain } = check(options)
    this.wasm = toBytes(wasm, 'the module')
    this.isText = typeof wasm === 'string'
    this.signal = signal
    this.onProgress = onProgress
    this.values = new Values()
    this.calls = new ImportCalls(() => this.run, this.values, imports)
    const named = (value = {}, what) =>
      Object.entries(value).map(([name, bytes]) => ({ name, bytes: toBytes(bytes, `\`${what}\` at ${JSON.stringify(name)}`) }))
    const contents = { files: named(files, 'files'), preload: named(preload, 'preload'), items: this.calls.items }
    if (typeof stdin === 'string') plain.stdin = stdin
    else if (stdin !== undefined) contents.stdin = toBytes(stdin, 'the option `stdin`')
    const json = JSON.stringify({ ...plain, onProgress: onProgress !== undefined })
    /** What the native run calls. It does not keep it alive: that would be for ever, as this keeps the run. */
    this.dispatch = (...message) => {
      if (message.length === 1) return this.progress(message[0])
      return message.length === 2 ? worker(native(), ...message) : this.calls.dispatch(...message)
    }
    const { Run } = native()
    try {
      this.run = new Run(json, contents, this.calls.names, this.dispatch)
    } catch (cause) {
      throw optionError(cause.message)
    }
  }

  progress(phase) {
    const fail = (error) => {
      this.thrown ??= { value: error }
      this.run.abort()
    }
    try {
      const returned = this.onProgress({ phase })
      // Of a run that is over by then, nobody is left to tell.
      if (typeof returned?.then === 'function') returned.then(undefined, fail)
    } catch (error) {
      fail(error)
    }
  }

  aborted() {
    return new WizerError('the run was cancelled', { code: 'ERR_WIZER_ABORTED', cause: this.signal?.reason })
  }

  /** Listens to the signal until the function that it gives back is called. */
  listen() {
    if (this.signal?.aborted) throw this.aborted()
    const { signal, run } = this
    if (signal) follow(signal, run)
    if (active.size === 0) process.on('exit', abandonAll)
    active.add(this.run)
    return () => {
      if (signal) unfollow(signal, run)
      active.delete(this.run)
      if (active.size === 0) process.off('exit', abandonAll)
    }
  }

  /** Does one thing on the thread pool: a whole run, or a step of a session. */
  async during(work) {
    const unlisten = this.listen()
    try {
      const settled = await work(this.run)
      this.run.flush()
      return this.outcome(settled)
    } finally {
      unlisten()
    }
  }

  async start() {
    try {
      return await this.during((run) => run.start(this.wasm, !isMainThread))
    } finally {
      this.run.over()
    }
  }

  startSync() {
    const unlisten = this.listen()
    try {
      return this.outcome(this.run.runSync(this.wasm))
    } finally {
      unlisten()
      this.run.over()
    }
  }

  outcome({ wasm, report, stdout, stderr, error, values, bytes }) {
    const output = { ...(stdout && { stdout }), ...(stderr && { stderr }) }
    if (this.thrown) {
      const options = { code: 'ERR_WIZER_CALLBACK', cause: this.thrown.value, ...output }
      throw new WizerError('the callback `onProgress` threw', options)
    }
    if (!error) return { values, bytes, wasm, ...(report && { report: JSON.parse(report) }), ...output }
    const { code, wasmBacktrace, exception } = error
    const isPath = this.isText && code === 'ERR_WIZER_INVALID_MODULE'
    const message = isPath ? `${error.message}; a string is a module's text and no path: give the bytes, from \`readFile\`` : error.message
    const cause = {
      ERR_WIZER_IMPORT_FAILED: () => this.calls.thrown,
      ERR_WIZER_ABORTED: () => ({ value: this.signal?.reason }),
      ERR_WIZER_TRAP: () => exception && this.calls.seen(exception),
    }[code]?.()
    throw new WizerError(message, { code, wasmBacktrace, ...(cause && { cause: cause.value }), ...output })
  }
}

async function wizer(wasm, options) {
  return (await snapshot(wasm, options)).wasm
}

function wizerSync(wasm, options) {
  return new Job(wasm, options).startSync().wasm
}

async function snapshot(wasm, options) {
  const { wasm: initialized, report, stdout, stderr } = await new Job(wasm, options).start()
  return { wasm: initialized, report, ...(stdout && { stdout }), ...(stderr && { stderr }) }
}

/** Only this file makes sessions. */
const MADE_HERE = Symbol()

/** An instance that goes on: one step after the other, in the order in which they were asked for. */
class Session {
  #job
  #last = Promise.resolve()
  #closed = false

  constructor(made, job) {
    if (made !== MADE_HERE) throw new TypeError('a session is made by `Session.create`')
    this.#job = job
  }

  static async create(wasm, options) {
    const job = new Job(wasm, options)
    await job.during((run) => run.open(job.wasm, !isMainThread))
    job.wasm = undefined
    return new Session(MADE_HERE, job)
  }

  #step(work) {
    if (this.#closed) return Promise.reject(new WizerError('the session is closed', { code: 'ERR_WIZER_OPTION' }))
    const step = this.#last.then(work)
    this.#last = step.then(noop, noop)
    return step
  }

  call(name, ...args) {
    return this.#step(async () => {
      const job = this.#job
      const type = job.run.exportType(String(name))
      if (!type) throw optionError(`the module exports no function \`${name}\``)
      return this.#invoke(type, args, (run, given) => run.callExport(String(name), given, !isMainThread))
    })
  }

  /** Calls a function of this type, within a step. */
  async #invoke(type, args, call) {
    const job = this.#job
    const given = job.values.args(args, type.params)
    job.calls.thrown = undefined
    const { values } = await job.during((run) => call(run, given))
    return job.values.result(values, type.results)
  }

  callIndirect(table, slot, ...args) {
    return this.#step(async () => {
      const [name, number] = [table === undefined ? undefined : String(table), toBigInt(slot)]
      if (number === undefined) throw optionError('the slot of a table must be a whole number from 0 on, or a BigInt')
      const type = this.#native((run) => run.slotType(name, number))
      return this.#invoke(type, args, (run, given) => run.callSlot(name, number, given, !isMainThread))
    })
  }

  /** Asks the native run something within a step. */
  #native(work) {
    try {
      return work(this.#job.run)
    } catch (error) {
      throw optionError(error.message)
    }
  }

  memory(name) {
    return new SessionMemory(name === undefined ? undefined : String(name), (work) => this.#step(() => this.#job.during(work)))
  }

  global(name) {
    return this.#step(async () => {
      const job = this.#job
      const type = job.run.globalType(String(name))
      if (!type) throw new WizerError(`the module exports no global \`${name}\``, { code: 'ERR_WIZER_OPTION' })
      const { values } = await job.during((run) => run.readGlobal(String(name), !isMainThread))
      return job.values.result(values, [type])
    })
  }

  async register(name) {
    checkName(name)
    await this.#step(() => this.#job.during((run) => run.register(name, !isMainThread)))
  }

  async instantiate(name, wasm) {
    checkName(name)
    // The caller may change its bytes from now on.
    const bytes = Buffer.from(toBytes(wasm, 'the module'))
    await this.#step(() => {
      this.#job.isText = typeof wasm === 'string'
      return this.#job.during((run) => run.instantiate(name, bytes, !isMainThread))
    })
  }

  callBeside(module, name, ...args) {
    return this.#step(async () => {
      const type = this.#job.run.besideType(String(module), String(name))
      if (!type) throw optionError(`no module \`${module}\` beside the session's exports a function \`${name}\``)
      return this.#invoke(type, args, (run, given) => run.callBeside(String(module), String(name), given, !isMainThread))
    })
  }

  async snapshot() {
    return (await this.snapshotWithReport()).wasm
  }

  snapshotWithReport() {
    return this.#step(async () => {
      const { wasm, report, stdout, stderr } = await this.#job.during((run) => run.write(!isMainThread))
      return { wasm, report, ...(stdout && { stdout }), ...(stderr && { stderr }) }
    })
  }

  async close() {
    if (this.#closed) return
    // Also where the signal was aborted.
    const closed = this.#step(async () => {
      const { run } = this.#job
      await run.close(!isMainThread)
      run.over()
    })
    this.#closed = true
    await closed
  }
}

const noop = () => {}

const checkName = (name) => {
  if (typeof name !== 'string') throw optionError(`the name of a module must be a string, not a value of type ${typeof name}`)
}

module.exports = wizer
module.exports.wizer = wizer
module.exports.wizerSync = wizerSync
module.exports.snapshot = snapshot
module.exports.Session = Session
module.exports.WizerError = WizerError
module.exports.default = wizer
