// Runs modules in a published wasmtime, which compiles them with Cranelift and
// counts what they execute.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { findPython, pythonPackages } from './python.mjs'

const JUDGE = fileURLToPath(new URL('wasmtime_judge.py', import.meta.url))

/**
 * Gets the judge ready.
 *
 * @returns {{ version: string, run: (order: import('./v8-judge.mjs').Order) => Account }}
 * @throws when there is no Python, or the package cannot be had: then nobody judged
 *
 * @typedef {object} Account
 * @property {string} [refused]     why wasmtime does not compile the module
 * @property {boolean} [reached]    whether one of Fastly's imports was called
 * @property {number} [instructions]  executed up to that call, or up to the error
 * @property {string} [error]       what ended the run before that call
 */
export function wasmtimeJudge() {
  const python = findPython()
  if (!python) throw new Error('there is no Python 3.9 or newer')
  const env = { ...process.env, PYTHONPATH: pythonPackages(python) }
  const ask = (order) => {
    const child = spawnSync(python, [JUDGE], {
      env,
      input: JSON.stringify(order),
      encoding: 'utf8',
    })
    if (child.status !== 0) throw new Error(child.error?.message ?? child.stderr.trim())
    return JSON.parse(child.stdout)
  }
  return { version: ask(null).version, run: ask }
}
