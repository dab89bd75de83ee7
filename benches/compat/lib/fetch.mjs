// Packages from their registries, each once, into a directory outside of git. Only npm and pip talk to a registry.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findPython } from '../../lib/python.mjs'

const cache = fileURLToPath(new URL('../../.cache/compat/', import.meta.url))

/** The base64 of what every module begins with, but for the last bits of the version. */
const MODULE_IN_BASE64 = /AGFzbQEAAA[\w+/]+={0,2}/g

/** @typedef {{ npm?: string, pypi?: string, version: string, integrity: string }} Pin */

/** The module of an entry, as it is tried. */
export function moduleOf(entry) {
  const file = join(unpacked(entry), entry.file)
  if (entry.translated) return translated(file)
  return entry.embedded ? Buffer.from(embedded(readFileSync(file)), 'base64') : readFileSync(file)
}

/** What ERR_WIZER_UNSUPPORTED says to do about legacy exceptions; the checkout's Binaryen does it, once. */
function translated(file) {
  const output = `${file}.translated`
  if (!existsSync(output)) {
    const wasmOpt = join(dirname(fileURLToPath(import.meta.resolve('binaryen'))), 'bin', 'wasm-opt')
    const features = ['--all-features', '--disable-compact-imports', '--disable-custom-descriptors']
    run(process.execPath, [wasmOpt, ...features, '--translate-to-exnref', file, '-o', output])
  }
  return readFileSync(output)
}

/** A script with another module in the place of its own. */
export const embed = (script, wasm) => script.toString('latin1').replace(embedded(script), () => wasm.toString('base64'))

/** The largest module in a script, in base64. */
function embedded(script) {
  const found = script.toString('latin1').match(MODULE_IN_BASE64)
  if (!found) throw new Error('there is no module in the script')
  return found.reduce((largest, text) => (text.length > largest.length ? text : largest))
}

/**
 * The directory of a package's files. It is fetched where it is not there, and refused where it is not the pinned one.
 *
 * @param {Pin} pin
 */
export function unpacked(pin) {
  const directory = placeOf(pin)
  if (existsSync(directory)) return directory
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, 'fetching-'))
  try {
    if (pin.npm) pack(pin, work)
    else download(pin, work)
    const [archive] = readdirSync(work)
    verify(pin, join(work, archive))
    // Relative paths: some `tar` takes the drive of an absolute one for the name of a host.
    mkdirSync(join(work, 'contents'))
    if (pin.npm) run('tar', ['-xzf', archive, '-C', 'contents', '--strip-components=1'], { cwd: work })
    else run(python(), ['-m', 'zipfile', '-e', archive, 'contents'], { cwd: work })
    renameSync(join(work, 'contents'), directory)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return directory
}

/** Gives back the space of a package. */
export const remove = (pin) => rmSync(placeOf(pin), { recursive: true, force: true })

const placeOf = (pin) => join(cache, `${nameOf(pin).replace('/', '+')}@${pin.version}`)
const nameOf = (pin) => pin.npm ?? pin.pypi

function pack({ npm, version }, cwd) {
  // npm is a script on Windows, which only a shell can start.
  run('npm', ['pack', `${npm}@${version}`, '--silent'], { cwd, shell: process.platform === 'win32' })
}

function download({ pypi, version }, cwd) {
  run(python(), ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--quiet', '--disable-pip-version-check', `${pypi}==${version}`], { cwd })
}

function python() {
  const found = findPython()
  if (!found) throw new Error('Python 3.9 or newer is needed for packages of PyPI')
  return found
}

function verify(pin, archive) {
  const [, algorithm] = /^(sha\d+)[-:]/.exec(pin.integrity)
  const hash = createHash(algorithm).update(readFileSync(archive))
  const found = pin.npm ? `${algorithm}-${hash.digest('base64')}` : `${algorithm}:${hash.digest('hex')}`
  if (found !== pin.integrity) throw new Error(`${nameOf(pin)} ${pin.version} has the integrity ${found}, not ${pin.integrity}`)
}

function run(command, args, options) {
  const { error, status, stderr } = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (error || status !== 0) throw new Error(`${command} ${args.join(' ')}: ${(error?.message ?? stderr).trim()}`)
}
