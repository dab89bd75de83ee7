// Programs that the tests start, and the files that these leave behind.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'

export const root = resolve(fileURLToPath(import.meta.url), '../../..')

/** The Node that runs the tests, with a script. */
export const node = (...args) => [process.execPath, ...args]

const launcher = { name: 'bin/wizer.js', command: node(join(root, 'bin', 'wizer.js')) }
const native = join(root, 'target', 'debug', process.platform === 'win32' ? 'wizer.exe' : 'wizer')

/** The command line behind each of its doors. The native program is there where Rust's tests have been built. */
export const programs = existsSync(native) ? [launcher, { name: 'the native program', command: [native] }] : [launcher]

/** A new directory, which is removed when the tests of the file are over. */
export function temporaryDirectory() {
  const directory = mkdtempSync(join(tmpdir(), 'wizer-test-'))
  after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/**
 * Starts a program. `input` is what it gets on standard input (`null`: nothing yet, its stdin stays open); `patient`
 * reads its output a piece at a time, with pauses, so that the pipe is full meanwhile; `unread` names an output that
 * the caller takes care of.
 *
 * @returns the process, with `done`: a promise of its status, signal and outputs
 */
export function launch([program, ...args], { input = '', patient = false, unread, ...options } = {}) {
  const child = spawn(program, args, { cwd: root, ...options, stdio: 'pipe' })
  // Whoever does not read its input closes the pipe, which is their right.
  child.stdin.on('error', () => {})
  if (input !== null) child.stdin.end(input)
  const read = async (name) => {
    const chunks = []
    if (name === unread) return Buffer.alloc(0)
    for await (const chunk of child[name]) {
      chunks.push(chunk)
      if (patient) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return Buffer.concat(chunks)
  }
  const exit = new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status, signal) => resolve({ status, signal }))
  })
  child.done = Promise.all([exit, read('stdout'), read('stderr')]).then(([end, stdout, stderr]) => ({
    ...end,
    stdout,
    stderr: stderr.toString(),
  }))
  return child
}

/** Runs a program to its end. */
export const run = (command, options) => launch(command, options).done

/** Runs a script in a Node of its own, in which `wizer`, `wizerSync` and `snapshot` are there. */
export function runScript(script, options) {
  return run(scriptCommand(script), options)
}

export function scriptCommand(script) {
  return node('--input-type=commonjs', '--eval', `const { wizer, wizerSync, snapshot } = require('@jakechampion/wizer')\n${script}`)
}
