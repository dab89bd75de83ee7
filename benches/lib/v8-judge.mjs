// Runs modules in this Node's V8, each in a process of its own, and tells what
// they did. It judges nothing: what is right is for the caller to say.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const RUN = fileURLToPath(new URL('v8-run.mjs', import.meta.url))

/**
 * @typedef {object} Order
 * @property {string} wasm        the module's path
 * @property {string[]} calls     exports without parameters to call, one after another
 * @property {string} stdin       a file that the module reads as its stdin
 * @property {string} directory   a directory that it sees as `.`
 * @property {string} hostPrefix  imports from modules with this prefix are Fastly's
 *
 * @typedef {object} Account
 * @property {string[]} imports   `module.name`
 * @property {string[]} exports
 * @property {string[][]} host    for each call the imports it called, in order, without clock reads
 * @property {string[]} before    the same, of all calls, up to the first one of Fastly's
 * @property {boolean} reached    whether one of Fastly's imports was called at all
 * @property {{ status: number, headers: [string, string][], body: string }} [response]
 * @property {string[]} unsupported  Fastly imports that were called and are not there
 * @property {string} [error]     what ended the last call early
 * @property {number} msToResponse  from instantiation on, compiled lazily; for information only
 */

/**
 * @param {Order} order
 * @returns {Account}
 */
export function runInV8(order) {
  const child = spawnSync(
    process.execPath,
    // node:wasi prints a warning that it is experimental.
    ['--no-warnings', RUN],
    { input: JSON.stringify(order), encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  if (child.status !== 0) {
    throw new Error(`Node could not run ${order.wasm}: ${child.error?.message ?? child.stderr}`)
  }
  return JSON.parse(child.stdout)
}
