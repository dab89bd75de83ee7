// The two programs under comparison: the wizer of this checkout, and the npm
// package `@bytecodealliance/wizer`. Only how to start them; nothing is run here.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)
const checkout = fileURLToPath(new URL('../../', import.meta.url))

/**
 * @typedef {object} Program
 * @property {string} role       'ours' or 'peer'
 * @property {string} label      name and version, for people
 * @property {string[]} command  what to spawn, followed by the arguments of the run
 */

/**
 * Our command-line program: `WIZER_CLI` when it is set, else the launcher of
 * this checkout.
 *
 * @param {string[]} extraArgs  arguments that only this program gets
 * @returns {Program}
 */
export function ours(extraArgs = []) {
  const chosen = process.env.WIZER_CLI
  const file = chosen ? resolve(chosen) : resolve(checkout, 'bin', 'wizer.js')
  if (!existsSync(file)) {
    throw new Error(
      chosen
        ? `WIZER_CLI is ${chosen}, and there is no such file`
        : 'bin/wizer.js is not there: build the package first, or set WIZER_CLI to another wizer program',
    )
  }
  const label = chosen ? `${basename(file)} (WIZER_CLI)` : packageLabel(resolve(checkout, 'package.json'))
  return { role: 'ours', label, command: [...startOf(file), ...extraArgs] }
}

/**
 * The native binary of `@bytecodealliance/wizer`, started without the Node
 * launcher around it: that is how `@fastly/js-compute` starts it, and the
 * faster of the two ways.
 *
 * @param {string} initFunc  version 11 has another default name than `fastly.wasm` uses
 * @returns {Promise<Program>}
 */
export async function peer(initFunc) {
  const { default: file } = await import('@bytecodealliance/wizer')
  const manifest = resolve(require.resolve('@bytecodealliance/wizer'), '..', 'package.json')
  return { role: 'peer', label: packageLabel(manifest), command: [file, '-f', initFunc] }
}

/** JavaScript is started with the Node that runs this program, anything else as it is. */
function startOf(file) {
  return /\.[cm]?js$/.test(file) ? [process.execPath, file] : [file]
}

function packageLabel(manifest) {
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8'))
  return `${name} ${version}`
}
