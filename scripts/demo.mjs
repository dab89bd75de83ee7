// Shows what wizer is for, on the program in examples/rust: `npm run demo`.
//
// That program is a search engine. As it was compiled, it reads and indexes its texts at every start;
// as wizer writes it, the index is a part of the program. Both answer the same question here, each
// start in a process of its own, so that V8 has compiled nothing for the one that the other can use.

import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from './build.mjs'
import { Failure, main, root, run } from './run.mjs'

const STARTS = 25
const EXAMPLE = join(root, 'examples', 'rust')
const INPUT = join(EXAMPLE, 'search.wasm')
const QUESTION = ['the', 'moon', 'and', 'the', 'tide']

/** In a process of its own: starts the module once, and prints the milliseconds from bytes to answer. */
async function start(file, answer, folder) {
  const { WASI } = await import('node:wasi')
  const bytes = readFileSync(file)
  const stdout = openSync(answer, 'w')
  // The program finds its texts only where a folder is given.
  const preopens = folder ? { '.': folder } : {}
  const wasi = new WASI({ version: 'preview1', args: ['search', ...QUESTION], preopens, stdout })

  const begin = performance.now()
  const module = new WebAssembly.Module(bytes)
  // Plain functions in between: V8's fast calls into node:wasi crashed in Node 20 and 22.
  // https://github.com/nodejs/node/issues/53087
  const calls = Object.entries(wasi.wasiImport).map(([name, call]) => [name, (...args) => call(...args)])
  const { exports } = new WebAssembly.Instance(module, { wasi_snapshot_preview1: Object.fromEntries(calls) })
  const { memory, _start, 'wizer.initialize': initialize, 'wizer.resume': resume } = exports
  // What wizer runs once, a program that it did not initialize runs at every start.
  wasi.start({ exports: { memory, _start: initialize ? () => (initialize(), resume()) : _start } })
  const time = performance.now() - begin

  closeSync(stdout)
  console.log(time)
}

function measure(directory, file, folder) {
  const answer = join(directory, 'answer')
  const args = ['--no-warnings', fileURLToPath(import.meta.url), 'start', file, answer, ...(folder ? [folder] : [])]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  if (status !== 0) throw new Failure(`${file} did not run:\n${stderr}`)
  return { time: Number(stdout), answer: readFileSync(answer, 'utf8') }
}

const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1]

function demo() {
  build()
  const directory = mkdtempSync(join(tmpdir(), 'wizer-demo-'))
  try {
    compare(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function compare(directory) {
  const output = join(directory, 'search.wasm')
  console.log('\n1. Initialize the program: it reads and indexes its texts now, once.\n')
  const begin = performance.now()
  const options = ['--allow-wasi', '--dir', '.', '-r', '_start=wizer.resume']
  run(process.execPath, [join(root, 'bin', 'wizer.js'), INPUT, '-o', output, ...options], {
    cwd: EXAMPLE,
    shown: `npx wizer search.wasm -o output.wasm ${options.join(' ')}`,
  })
  console.log(`took ${(performance.now() - begin).toFixed(0)} ms`)

  console.log('\n2. Ask both programs the same; the second one is given no folder to read from.\n')
  const before = []
  const after = []
  for (let round = 0; round < STARTS; round++) {
    before.push(measure(directory, INPUT, EXAMPLE))
    after.push(measure(directory, output))
  }
  const answers = new Set([...before, ...after].map(({ answer }) => answer))
  if (answers.size !== 1) throw new Failure(`the answers differ:\n${[...answers].join('\n')}`)
  console.log(`$ search ${QUESTION.join(' ')}\n${[...answers][0]}`)

  const time = [before, after].map((starts) => median(starts.map((one) => one.time)))
  const size = [INPUT, output].map((file) => statSync(file).size)
  const rows = [
    ['', 'before', 'after'],
    ['from the bytes to the answer', ...time.map((ms) => `${ms.toFixed(2)} ms`)],
    ['size of the program', ...size.map((bytes) => `${(bytes / 1000).toFixed(1)} kB`)],
  ]
  for (const [name, ...values] of rows) console.log(name.padEnd(30) + values.map((value) => value.padStart(12)).join(''))
  console.log(`\nThe initialized program starts ${(time[0] / time[1]).toFixed(1)} times as fast.`)
  console.log(`(Medians of ${STARTS} starts each, in turn, in V8 ${process.versions.v8}.)`)
}

const [, , command, ...args] = process.argv
main(() => (command === 'start' ? start(...args) : demo()))
