// The child process of compat.mjs for a package's own JavaScript. It installs the package twice, once with the initialized
// module in the place of its own, has the task done with each, in processes of their own, and compares the answers.

import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { snapshot } from '../../index.mjs'
import { embed, moduleOf, unpacked } from './lib/fetch.mjs'
import { options } from './lib/judge.mjs'
import { packages } from './packages.mjs'
import { tasks } from './tasks.mjs'

const LIMIT = 120_000

const { id, directory } = JSON.parse(process.argv[2])
const entry = packages.find((entry) => entry.id === id)
const outcome = directory ? await answer(directory) : await compareAnswers()
writeSync(1, `\n${JSON.stringify(outcome)}\n`)
// What a package leaves behind (workers, timers) is not waited for.
process.exit()

async function compareAnswers() {
  const { wasm } = await snapshot(moduleOf(entry), { ...options(entry, moduleOf(entry)), keepInitFunc: 'empty', ...tasks[id].options })
  const [original, initialized] = [undefined, wasm].map(answerWith)
  const { does } = tasks[id]
  if (original.failed) return { state: 'not judged', does, reason: original.failed }
  if (initialized.failed) return { state: 'fails', does, reason: initialized.failed }
  const [expected, found] = [original, initialized].map(({ answer }) => JSON.stringify(answer))
  if (expected === found) return { state: 'same', does }
  return { state: 'different', does, reason: `${found.slice(0, 200)} instead of ${expected.slice(0, 200)}` }
}

/** What the package answers in a process of its own, with this module in it, or with its own. */
function answerWith(wasm) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-compat-')))
  try {
    for (const pin of [entry, ...(tasks[id].beside ?? [])]) cpSync(unpacked(pin), join(directory, 'node_modules', pin.npm), { recursive: true })
    if (wasm) {
      const file = join(directory, 'node_modules', entry.npm, entry.file)
      writeFileSync(file, entry.embedded ? embed(readFileSync(file), wasm) : wasm, 'latin1')
    }
    const program = fileURLToPath(import.meta.url)
    const args = ['--no-warnings', program, JSON.stringify({ id, directory })]
    const { status, stdout, stderr, error } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: LIMIT })
    if (status !== 0) return { failed: error?.message ?? lastWords(stderr) }
    return JSON.parse(stdout.trimEnd().split('\n').at(-1))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function lastWords(stderr) {
  return stderr.split('\n').find((line) => /^(Uncaught )?\w*Error\b/.test(line)) ?? stderr.trim().slice(-200)
}

/** In the child: does the task with what is installed in a directory. */
async function answer(directory) {
  const require = createRequire(join(directory, 'here.js'))
  const load = (name) => import(pathToFileURL(resolveModule(directory, name)))
  const path = (name) => join(directory, 'node_modules', name)
  return { answer: await tasks[id].run({ require, load, path }) }
}

/** The file that `import` finds: a module in the directory asks for it. */
function resolveModule(directory, name) {
  const asks = join(directory, 'ask.mjs')
  writeFileSync(asks, `process.stdout.write(import.meta.resolve(${JSON.stringify(name)}))`)
  return fileURLToPath(spawnSync(process.execPath, [asks], { encoding: 'utf8' }).stdout)
}
