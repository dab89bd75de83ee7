'use strict'

// The JavaScript API, documented in index.d.ts. What runs is the native addon; this file turns
// options into plain values, results into promises and errors into `WizerError`.

const { isMainThread } = require('node:worker_threads')
const { loadBinding } = require('./platform.js')
const { ImportCalls } = require('./lib/imports.js')
const { WizerError } = require('./lib/error.js')
const { check, optionError, toBytes } = require('./lib/options.js')

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
    this.calls = new ImportCalls(() => this.run, imports)
    const named = (value = {}, what) =>
      Object.entries(value).map(([name, bytes]) => ({ name, bytes: toBytes(bytes, `\`${what}\` at ${JSON.stringify(name)}`) }))
    const contents = { files: named(files, 'files'), preload: named(preload, 'preload') }
    if (typeof stdin === 'string') plain.stdin = stdin
    else if (stdin !== undefined) contents.stdin = toBytes(stdin, 'the option `stdin`')
    const json = JSON.stringify({ ...plain, onProgress: onProgress !== undefined })
    const dispatch = (...message) => (message.length === 1 ? this.progress(message[0]) : this.calls.dispatch(...message))
    const { Run } = native()
    try {
      this.run = new Run(json, contents, this.calls.names, dispatch)
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

  async start() {
    const unlisten = this.listen()
    try {
      const settled = await this.run.start(this.wasm, !isMainThread)
      this.run.flush()
      return this.outcome(settled)
    } finally {
      unlisten()
    }
  }

  startSync() {
    const unlisten = this.listen()
    try {
      return this.outcome(this.run.runSync(this.wasm))
    } finally {
      unlisten()
    }
  }

  outcome({ wasm, report, stdout, stderr, error }) {
    const output = { ...(stdout && { stdout }), ...(stderr && { stderr }) }
    if (this.thrown) {
      const options = { code: 'ERR_WIZER_CALLBACK', cause: this.thrown.value, ...output }
      throw new WizerError('the callback `onProgress` threw', options)
    }
    if (!error) return { wasm, report: JSON.parse(report), ...output }
    const { code, wasmBacktrace } = error
    const isPath = this.isText && code === 'ERR_WIZER_INVALID_MODULE'
    const message = isPath ? `${error.message}; a string is a module's text and no path: give the bytes, from \`readFile\`` : error.message
    const cause =
      code === 'ERR_WIZER_IMPORT_FAILED' ? this.calls.thrown : code === 'ERR_WIZER_ABORTED' && { value: this.signal?.reason }
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
  return new Job(wasm, options).start()
}

module.exports = wizer
module.exports.wizer = wizer
module.exports.wizerSync = wizerSync
module.exports.snapshot = snapshot
module.exports.WizerError = WizerError
module.exports.default = wizer
