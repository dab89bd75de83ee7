'use strict'

// A memory of a session, as `session.memory()` gives it. Documented in index.d.ts.

const { isMainThread } = require('./node.js').workerThreads
const { optionError, toBytes } = require('./options.js')
const { toBigInt } = require('./values.js')

/** Only a session makes them. Each call is one of its steps. */
class SessionMemory {
  #name
  #step

  /** @param step does something with the native run, in its turn, and gives its outcome */
  constructor(name, step) {
    this.#name = name
    this.#step = step
  }

  async size() {
    const { values } = await this.#step((run) => run.memorySize(this.#name, !isMainThread))
    return values[0]
  }

  async read(address, length) {
    return this.#read(address, toSize(length, 'length'))
  }

  async readString(address, length) {
    const bytes = await this.#read(address, length === undefined ? undefined : toSize(length, 'length'))
    return bytes.toString()
  }

  async #read(address, length) {
    const at = toSize(address, 'address')
    const { bytes } = await this.#step((run) => run.readMemory(this.#name, at, length, !isMainThread))
    return bytes
  }

  async write(address, bytes) {
    const at = toSize(address, 'address')
    // The caller may change its bytes from now on.
    const copy = Buffer.from(toBytes(bytes, 'what is written'))
    await this.#step((run) => run.writeMemory(this.#name, at, copy, !isMainThread))
  }
}

function toSize(value, what) {
  const number = toBigInt(value)
  if (number === undefined) throw optionError(`the ${what} in a memory must be a whole number from 0 on, or a BigInt`)
  return number
}

module.exports = { SessionMemory }
