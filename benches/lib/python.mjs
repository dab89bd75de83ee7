// Finds Python, and gets packages for it.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const benches = fileURLToPath(new URL('../', import.meta.url))
const cache = fileURLToPath(new URL('../.cache/', import.meta.url))

/** @type {string | null | undefined} */
let found

/**
 * `PYTHON` when it is set, else the first of the usual names that is a
 * Python 3.9 or newer.
 *
 * @returns {string | undefined} the interpreter itself, not a launcher that may
 *   look for it in the environment
 */
export function findPython() {
  if (found === undefined) {
    const names = process.env.PYTHON ? [process.env.PYTHON] : ['python3', 'python', 'py']
    found = names.map(interpreter).find(Boolean) ?? null
  }
  return found ?? undefined
}

function interpreter(name) {
  return output(name, 'import sys; print(sys.executable if sys.version_info >= (3, 9) else "")')
}

function output(python, program) {
  return spawnSync(python, ['-c', program], { encoding: 'utf8' }).stdout?.trim()
}

/**
 * A directory that holds the packages of a list, for `PYTHONPATH`.
 * It is made once, and made anew when the requirements or the Python change.
 *
 * @param {string} python
 * @param {string} [list]  a file beside requirements.txt
 */
export function pythonPackages(python, list = 'requirements.txt') {
  const requirements = join(benches, list)
  const build = output(python, 'import platform, sys; print(sys.version, platform.machine())')
  const key = createHash('sha256').update(readFileSync(requirements)).update(build).digest('hex').slice(0, 16)
  const directory = join(cache, `python-${key}`)
  if (existsSync(directory)) return directory

  mkdirSync(cache, { recursive: true })
  const fresh = mkdtempSync(join(cache, 'installing-'))
  const pip = spawnSync(
    python,
    [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--only-binary',
      ':all:',
      '--target',
      fresh,
      '--requirement',
      requirements,
    ],
    { encoding: 'utf8' },
  )
  if (pip.status !== 0) {
    rmSync(fresh, { recursive: true, force: true })
    throw new Error(`pip could not install ${list}: ${(pip.error?.message ?? pip.stderr).trim()}`)
  }
  renameSync(fresh, directory)
  return directory
}
