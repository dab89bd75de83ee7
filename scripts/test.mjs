// Runs every check of the project, on a bare clone too: `npm test`.
//
//   node scripts/test.mjs             everything
//   node scripts/test.mjs lint        formatting, clippy, eslint, the public types
//   node scripts/test.mjs rust        cargo test, doc tests included
//   node scripts/test.mjs js          the JavaScript tests, on every Node version there is for this machine
//   node scripts/test.mjs real        real modules: one of 10 MB through the command line, ones of Emscripten, and some of docs/compatibility.md;
//                                     the packages in real package managers, bundlers and packages that start wizer
//   … --prebuilt                      don't build the addon, and test on the running Node only

import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from './build.mjs'
import { Failure, install, main, root, run } from './run.mjs'
import { findPython } from '../benches/lib/python.mjs'

const { platformName } = createRequire(import.meta.url)('../platform.js')

/**
 * For what is tested: a user's cache in which nothing is yet, and in which nothing stays. (On Linux. Elsewhere it
 * cannot be moved alone, and the code that tests compile stays in the real one, within its bound.)
 */
const cacheHome = mkdtempSync(join(tmpdir(), 'wizer-test-cache-'))
process.on('exit', () => rmSync(cacheHome, { recursive: true, force: true }))
const inTest = { XDG_CACHE_HOME: cacheHome }

/** Where `cargo test` writes down what it does with modules, for the engine that there is in Node only. */
const corpus = mkdtempSync(join(tmpdir(), 'wizer-test-corpus-'))
process.on('exit', () => rmSync(corpus, { recursive: true, force: true }))

/** Tests with other people's programs, which take long: once is enough. */
const REAL = join('__test__', 'real')

/** The Node versions that we promise to work on. */
const VERSIONS = [20, 22, 24, 26]

const { values: options, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { prebuilt: { type: 'boolean', default: false } },
})

/**
 * Every step, in the order of how soon it can fail: groups, name, what it does.
 * A step that gives back a text was not done, for the reason that this text says.
 */
const steps = [
  ['lint js', 'npm ci', () => install()],
  ['lint', 'eslint', () => npmBin('eslint/bin/eslint.js', ['.'])],
  ['lint', 'types', () => npmBin('typescript/bin/tsc', [])],
  ['lint', 'cargo fmt', () => run('cargo', ['fmt', '--check'])],
  ['lint', 'cargo clippy', () => run('cargo', ['clippy', '--locked', '--all-features', '--all-targets', '--', '-D', 'warnings'])],
  ['rust', 'cargo test', () => run('cargo', ['test', '--locked', '--all-features'], { env: { ...inTest, SPEC: 'all', CORPUS: corpus } })],
  ['js real', 'build the addon', () => (options.prebuilt ? 'skipped: --prebuilt' : void build())],
  ['js real', 'build the program', () => (options.prebuilt ? 'skipped: --prebuilt' : void build({ program: true }))],
  ['js', 'install AssemblyScript', () => install(join(root, 'examples', 'assemblyscript'))],
  ...nodeSteps(),
  ['real', 'install real modules', () => install(join(root, 'benches'))],
  ['real', 'fastly.wasm', () => realInput()],
  ['real', 'Emscripten: wasmoon, z3, ImageMagick', () => void run(process.execPath, [join('benches', 'emscripten.mjs')], { env: inTest })],
  ['real', 'Ruby with arguments', () => void run(process.execPath, [join('benches', 'arguments.mjs')], { env: inTest })],
  ['real', 'modules of packages', () => void run(process.execPath, [join('benches', 'compat', 'compat.mjs'), '--quick'], { env: inTest })],
  ['real', 'package managers, bundlers, packages that start wizer', () => testFilesOn(process.execPath, REAL)],
]

/** Initializes fastly.wasm and has V8 judge the output, and a published wasmtime where there is Python to install it. */
function realInput() {
  const judges = findPython() ? [] : ['--without-wasmtime']
  run(process.execPath, [join('benches', 'fastly.mjs'), ...judges], { env: inTest })
}

function npmBin(script, args) {
  run(process.execPath, [join(root, 'node_modules', script), ...args])
}

/** One step for the running Node, and one for each version that there is a package of. */
function nodeSteps() {
  const running = ['js', `JavaScript tests on Node ${process.versions.node}`, () => testOn(process.execPath)]
  if (options.prebuilt) return [running]
  const directory = join(root, '__test__', 'node-versions')
  return [
    ['js', 'install other Node versions', () => install(directory)],
    running,
    ...VERSIONS.map((version) => ['js', `JavaScript tests on Node ${version}`, () => testOnVersion(directory, version)]),
    ['js', `what cargo test did, on the engine of Node ${VERSIONS.at(-1)}`, () => testCorpus(directory)],
  ]
}

/** The program of a Node version; nothing where there is no package of it. */
function nodeOf(directory, version) {
  const { platform, arch } = process
  const name = `node-${version}-${platform}-${arch}`
  const node = join(directory, 'node_modules', name, 'bin', platform === 'win32' ? 'node.exe' : 'node')
  // The packages for Linux are built for glibc.
  return existsSync(node) && !platformName().endsWith('-musl') ? node : undefined
}

function testOnVersion(directory, version) {
  const node = nodeOf(directory, version)
  if (!node) return `skipped: no package of Node ${version} for ${platformName()}`
  const exact = run(node, ['--version'], { capture: true }).trim()
  if (exact === process.version) return `skipped: ${exact} is the running Node`
  return testOn(node)
}

/** On the newest V8, which runs most. */
function testCorpus(directory) {
  if (readdirSync(corpus).length === 0) return 'skipped: `cargo test` was not run, which writes it down'
  const node = nodeOf(directory, VERSIONS.at(-1))
  if (!node) return `skipped: no package of Node ${VERSIONS.at(-1)} for ${platformName()}`
  run(node, [join('scripts', 'corpus.mjs'), corpus], { env: inTest })
}

const testOn = (node) => testFilesOn(node, '__test__', 'examples')

function testFilesOn(node, ...directories) {
  const tests = directories.flatMap((directory) => testFiles(join(root, directory)))
  if (tests.length === 0) throw new Failure('there are no JavaScript tests')
  // What the tests start (npm, npx, the launcher) finds this Node first, and runs on it as well.
  const PATH = [dirname(node), process.env.PATH].join(delimiter)
  run(node, ['--test', '--test-reporter=spec', ...tests], { env: { ...inTest, PATH } })
}

/** Every `*.test.mjs` below a directory, but for those in `REAL` where that is not the directory: Node 20 takes no patterns. */
function testFiles(directory) {
  return readdirSync(directory, { withFileTypes: true })
    .filter(({ name }) => name !== 'node_modules')
    .flatMap((entry) => {
      const path = join(directory, entry.name)
      if (path === join(root, REAL)) return []
      if (entry.isDirectory()) return testFiles(path)
      return entry.name.endsWith('.test.mjs') ? [relative(root, path)] : []
    })
    .sort()
}

main(() => {
  const groups = new Set(steps.flatMap(([groups]) => groups.split(' ')))
  const unknown = wanted.filter((group) => !groups.has(group))
  if (unknown.length > 0) throw new Failure(`no such group of tests: ${unknown.join(', ')} (there are: ${[...groups].join(', ')})`)

  const chosen = steps.filter(([groups]) => wanted.length === 0 || wanted.some((group) => groups.split(' ').includes(group)))
  const results = []
  try {
    for (const [index, [, name, body]] of chosen.entries()) {
      console.log(`\n── ${index + 1}/${chosen.length} ${name}`)
      const start = performance.now()
      let outcome = 'FAILED'
      try {
        outcome = body() ?? 'passed'
      } catch (error) {
        if (error instanceof Failure) throw new Failure(`${name}: ${error.message}`)
        throw error
      } finally {
        results.push([name, `${((performance.now() - start) / 1000).toFixed(1)} s`, outcome])
        if (outcome !== 'passed' && outcome !== 'FAILED') console.log(outcome)
      }
    }
  } finally {
    summary(results)
  }
})

function summary(rows) {
  const width = (column) => Math.max(...rows.map((row) => row[column].length))
  console.log('\n── Summary')
  for (const [name, time, outcome] of rows) {
    console.log(`${name.padEnd(width(0))}  ${time.padStart(width(1))}  ${outcome}`)
  }
}
