'use strict'

/** Every error of this package, told apart by its `code`. Documented in index.d.ts. */
class WizerError extends Error {
  constructor(message, { code, wasmBacktrace, stdout, stderr, ...rest }) {
    super(message, 'cause' in rest ? { cause: rest.cause } : undefined)
    this.code = code
    if (wasmBacktrace !== undefined) this.wasmBacktrace = wasmBacktrace
    if (stdout !== undefined) this.stdout = stdout
    if (stderr !== undefined) this.stderr = stderr
  }

  /** As everywhere in Node, what was cancelled is told by this name. */
  get name() {
    return this.code === 'ERR_WIZER_ABORTED' ? 'AbortError' : 'WizerError'
  }
}

module.exports = { WizerError }
