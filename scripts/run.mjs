// How the scripts here run other programs, and what they say meanwhile.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout's top directory. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** An error whose message says everything: shown without a stack trace. */
export class Failure extends Error {}

/**
 * Runs a program in the checkout, with this process's standard streams. Throws a `Failure` when it
 * can't be started or doesn't succeed. With `capture`, gives back what it wrote to stdout,
 * and doesn't say that it runs; `shown` is how the command is shown otherwise.
 */
export function run(command, args, { cwd = root, env = {}, capture = false, shown = [command, ...args].join(' ') } = {}) {
  if (!capture) console.log(`$ ${shown}`)
  const { error, status, signal, stdout } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', capture ? 'pipe' : 'inherit', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    // npm is a script on Windows, which only a shell can start.
    shell: process.platform === 'win32' && command === 'npm',
  })
  if (error?.code === 'ENOENT') throw new Failure(`${command} is not installed, or not in PATH (needed for: ${shown})`)
  if (error) throw error
  if (status !== 0) throw new Failure(`${shown} ${signal ? `was ended by ${signal}` : `gave exit status ${status}`}`)
  return stdout
}

/** Installs a package's dependencies as its lock file names them, unless that was done already. */
export function install(directory = root) {
  const hash = createHash('sha256').update(readFileSync(join(directory, 'package-lock.json'))).digest('hex')
  const stamp = join(directory, 'node_modules', '.installed')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: directory })
  writeFileSync(stamp, hash)
}

/** Runs a script's main function: a `Failure` is shown as one line and ends it with exit status 1. */
export async function main(body) {
  try {
    await body()
  } catch (error) {
    console.error(error instanceof Failure ? `\nFAILED: ${error.message}` : error)
    process.exitCode = 1
  }
}
