'use strict'

// The JavaScript API, documented in index.d.ts. What runs is the native addon; this file turns
// options into plain values, results into promises and errors into `WizerError`.

const { loadBinding } = require('./platform.js')
const { ImportCalls } = require('./lib/imports.js')
const { WizerError } = require('./lib/error.js')

let binding
/** The native addon, loaded when it is first needed. */
const native = () => (binding ??= loadBinding())

/** Bytes as a `Uint8Array` over the same memory; text becomes UTF-8. */
function toBytes(value, what) {
  if (typeof value === 'string') return Buffer.from(value)
  if (value instanceof Uint8Array) return value
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value)
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  throw optionError(`${what} must be a Uint8Array, an ArrayBuffer or a string, not ${describe(value)}`)
}

const describe = (value) => (value === null ? 'null' : Array.isArray(value) ? 'an array' : `a value of type ${typeof value}`)

const optionError = (message) => new WizerError(message, { code: 'ERR_WIZER_OPTION' })

/** The entries of an option that is an object by name. */
function entries(value, what) {
  if (value === undefined) return []
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw optionError(`the option \`${what}\` must be an object, not ${describe(value)}`)
  }
  return Object.entries(value)
}

/** One run of the native addon, made of the caller's options. */
class Job {
  constructor(wasm, options = {}) {
    if (options === null || typeof options !== 'object') {
      throw optionError(`the options must be an object, not ${describe(options)}`)
    }
    this.wasm = toBytes(wasm, 'the module')
    const { imports, signal, onProgress, stdin, files, preload, ...plain } = options
    if (onProgress !== undefined && typeof onProgress !== 'function') {
      throw optionError(`the option \`onProgress\` must be a function, not ${describe(onProgress)}`)
    }
    if (signal !== undefined && typeof signal?.addEventListener !== 'function') {
      throw optionError(`the option \`signal\` must be an AbortSignal, not ${describe(signal)}`)
    }
    this.signal = signal
    this.onProgress = onProgress
    this.calls = new ImportCalls(() => this.run, imports)
    const named = (value, what) =>
      entries(value, what).map(([name, bytes]) => ({ name, bytes: toBytes(bytes, `\`${what}\` at ${JSON.stringify(name)}`) }))
    const contents = { files: named(files, 'files'), preload: named(preload, 'preload') }
    if (typeof stdin === 'string') plain.stdin = stdin
    else if (stdin !== undefined) contents.stdin = toBytes(stdin, 'the option `stdin`')
    let json
    try {
      json = JSON.stringify({ ...plain, signal: signal !== undefined, onProgress: onProgress !== undefined })
    } catch (cause) {
      throw optionError(`the options hold a value that makes no sense: ${cause.message}`)
    }
    const dispatch = (...message) => (message.length === 1 ? this.progress(message[0]) : this.calls.dispatch(...message))
    const { Run } = native()
    try {
      this.run = new Run(json, contents, this.calls.names, dispatch)
    } catch (cause) {
      throw optionError(cause.message)
    }
  }

  progress(phase) {
    try {
      this.onProgress({ phase })
    } catch (error) {
      this.thrown ??= { value: error }
      this.run.abort()
    }
  }

  /** Throws if the signal was aborted before the run. */
  checkSignal() {
    if (this.signal?.aborted) throw this.aborted()
  }

  aborted() {
    return new WizerError('the run was cancelled', { code: 'ERR_WIZER_ABORTED', cause: this.signal?.reason })
  }

  async start() {
    this.checkSignal()
    const abort = () => this.run.abort()
    this.signal?.addEventListener('abort', abort, { once: true })
    try {
      const settled = await this.run.start(this.wasm)
      this.run.flush()
      return this.outcome(settled)
    } finally {
      this.signal?.removeEventListener('abort', abort)
    }
  }

  startSync() {
    this.checkSignal()
    return this.outcome(this.run.runSync(this.wasm))
  }

  outcome({ wasm, report, stdout, stderr, error }) {
    const output = { ...(stdout && { stdout }), ...(stderr && { stderr }) }
    if (this.thrown) {
      const options = { code: 'ERR_WIZER_CALLBACK', cause: this.thrown.value, ...output }
      throw new WizerError('the callback `onProgress` threw', options)
    }
    if (!error) return { wasm, report: JSON.parse(report), ...output }
    const { code, message, wasmBacktrace } = error
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
