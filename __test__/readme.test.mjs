// The README and the documents in docs/ tell the truth: every snippet is run, and what it is said to
// print is compared with what it prints. `UPDATE_DOCS=1` writes what is printed into the documents.
//
// How a block is run stands behind its language, where readers do not see it:
//
//   console               each line that begins with `$ ` is a command; what follows is its output
//     in=DIRECTORY          in a copy of this directory, with the files of the checkout
//     numbers-vary          numbers, bars and the width of columns are not compared
//     fails                 the exit status is not 0
//   js, c, rust, wat file=NAME   a file, for commands that come later
//     in=DIRECTORY          in a copy of this directory
//     real                  with a real package: benches/arguments.mjs runs it
//   json, yaml manager=NAME   a part of a manifest, with which __test__/real/ installs
//   js throws             the error is the text in the block that follows
//     unix                  not on Windows, where the system says it in other words
//   rust test=NAME        a program, which tests/readme.rs runs
//   wat before, wat after a module and what wizer makes of it, which tests/readme.rs compares

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import * as api from '../index.mjs'
import { builtFiles } from '../scripts/build.mjs'
import { install } from '../scripts/run.mjs'
import { override, pack, platform } from './helpers/packages.mjs'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const { targets } = createRequire(import.meta.url)('../platform.js')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const updating = Boolean(process.env.UPDATE_DOCS)

// ----- documents -----

const documents = ['README.md', ...readdirSync(join(root, 'docs')).sort().map((name) => `docs/${name}`)]
const allDocuments = [...documents, 'ARCHITECTURE.md', 'CHANGELOG.md', 'CONTRIBUTING.md']

const read = (path) => readFileSync(join(root, path), 'utf8').replaceAll('\r\n', '\n')

/** The fenced blocks of a document. */
function blocks(path) {
  const found = []
  let block
  for (const [index, line] of read(path).split('\n').entries()) {
    const [fence, info] = /^ *(```)(.*)$/.exec(line)?.slice(1) ?? []
    if (!fence) block?.lines.push(line)
    else if (block) {
      found.push({ ...block, text: block.lines.map((line) => `${line}\n`).join('') })
      block = undefined
    } else {
      const [language, ...words] = info.trim().split(/\s+/)
      const attributes = Object.fromEntries(words.map((word) => [word.split('=')[0], word.includes('=') ? word.split('=')[1] : true]))
      block = { path, line: index + 1, language, attributes, lines: [] }
    }
  }
  assert.equal(block, undefined, `${path} ends inside of a block`)
  return found
}

/** The commands of a console block, each with the output that is shown for it. */
function commands({ path, line, lines }) {
  const found = []
  for (const [index, text] of lines.entries()) {
    if (text.startsWith('$ ')) found.push({ command: text.slice(2), output: [], from: line + index + 1 })
    else if (found.length > 0) found.at(-1).output.push(text)
    else assert.fail(`${path}:${line}: a console block begins with a command`)
  }
  return found
}

/** What is left when numbers, bars and the width of columns may be others: the one rule of `numbers-vary`. */
const mask = (text) =>
  text
    .replace(/\d[\d.,]*/g, '0')
    .replace(/█+/g, '')
    .replace(/ +/g, ' ')
    .replace(/ $/gm, '')

/** Compares the lines that are shown, from a line on (counted from 0), with what is there, or has them replaced. */
function compare(path, from, lines, actual, rule = (text) => text) {
  const [is, was] = [actual, lines.join('\n')].map((text) => rule(text).trimEnd())
  if (is === was) return
  if (!updating) assert.equal(is, was, `${path}:${from + 1} shows something else`)
  updates.push({ path, from, count: lines.length, lines: actual.trimEnd().split('\n') })
}

const updates = []

function update() {
  // From the end, so that the places of the others stay true.
  for (const { path, from, count, lines } of updates.toSorted((a, b) => b.from - a.from)) {
    const text = read(path).split('\n')
    text.splice(from, count, ...lines)
    writeFileSync(join(root, path), text.join('\n'))
  }
}

// ----- where the snippets run -----

let sandbox
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|WIZER_|RUST_BACKTRACE)/i.test(name)))

/** A shell: on Windows, the one that comes with Git. */
const shell = process.platform === 'win32' ? 'C:\\Program Files\\Git\\bin\\bash.exe' : '/bin/sh'

/** Runs a command, and gives back its exit status and what it wrote to both streams, in order. */
function sh(command, cwd) {
  const path = join(sandbox, 'printed')
  const file = openSync(path, 'w')
  const { status, error } = spawnSync(shell, ['-c', command], { cwd, env, stdio: ['ignore', file, file] })
  closeSync(file)
  if (error) throw error
  return { status, printed: readFileSync(path, 'utf8').replaceAll('\r\n', '\n') }
}

const succeeds = (command) => sh(command, sandbox).status === 0
const quote = (word) => `'${word.replaceAll('\\', '/')}'`
const once = (find) => {
  let found
  return () => (found ??= { value: find() }).value
}

// ----- commands that are run in another way than a user would -----

/** Commands that are too much for a test of a document, and where they are run instead. */
const elsewhere = {
  'npm test': ['.ci/run', 'npm test'],
  'npm run demo': ['.github/workflows/ci.yml', 'run: npm run demo'],
  'cargo install --locked --path . --all-features': ['.github/workflows/ci.yml', 'cargo install --locked --path . --all-features'],
  [`git clone ${manifest.homepage.split('#')[0]} && cd wizer`]: ['package.json', `${manifest.homepage.split('#')[0]}.git`],
}

/** The packages as they are published, packed. */
const tarballs = once(() => {
  const { main, platform } = pack(join(sandbox, 'packages'))
  return [main.file, platform.file]
})

const bundlers = once(() => {
  const directory = join(root, '__test__', 'bundlers')
  install(directory)
  return join(directory, 'node_modules')
})

const rustc = once(() =>
  ['rustc', '/usr/bin/rustc'].find((rustc) => {
    writeFileSync(join(sandbox, 'probe.rs'), '')
    return succeeds(`${rustc} --target wasm32-unknown-unknown --crate-type cdylib -o probe.wasm probe.rs`)
  }),
)

const clang = once(() =>
  ['clang', env.WASI_SDK_PATH && quote(join(env.WASI_SDK_PATH, 'bin', 'clang'))].find((clang) => {
    writeFileSync(join(sandbox, 'probe.c'), 'int probe;\n')
    return clang && succeeds(`${clang} --target=wasm32 -nostdlib -Wl,--no-entry probe.c -o probe.wasm`)
  }),
)

/** A module as the compilers make it of primes.rs and primes.c, where there is no such compiler. */
const PRIMES = `(module
  (memory (export "memory") 17)
  (global $count (mut i32) (i32.const 0))
  (func $prime (param $at i32) (result i32) (i32.load (i32.mul (local.get $at) (i32.const 4))))
  (func (export "wizer.initialize") (local $n i32) (local $at i32)
    (local.set $n (i32.const 2))
    (loop $numbers
      (local.set $at (i32.const 0))
      (block $no (block $yes
        (loop $divisors
          (br_if $yes (i32.eq (local.get $at) (global.get $count)))
          (br_if $yes (i32.gt_u (i32.mul (call $prime (local.get $at)) (call $prime (local.get $at))) (local.get $n)))
          (br_if $no (i32.eqz (i32.rem_u (local.get $n) (call $prime (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $divisors)))
        (i32.store (i32.mul (global.get $count) (i32.const 4)) (local.get $n))
        (global.set $count (i32.add (global.get $count) (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $numbers (i32.lt_u (global.get $count) (i32.const 10000)))))
  (func (export "nth_prime") (param $n i32) (result i32)
    (call $prime (i32.sub (local.get $n) (i32.const 1)))))`

/** The command to run for one that is shown; or `{ skip }`, and why; or what else runs it, as `{ elsewhere }`. */
function prepare(command, cwd) {
  if (command in elsewhere) {
    const [file, text] = elsewhere[command]
    assert.ok(read(file).includes(text), `${file} does not run: ${text}`)
    return { elsewhere: file }
  }
  const [name, ...words] = command.split(' ')
  switch (name) {
    case 'npm': {
      assert.equal(command.replace(/ --save-dev/, ''), `npm install ${manifest.name}`)
      const options = '--offline --ignore-scripts --no-audit --no-fund --silent'
      return { run: `npm install ${options} ${words.slice(1, -1).join(' ')} ${tarballs().map(quote).join(' ')}` }
    }
    case 'npx': {
      if (words[0] === 'wizer') return { run: command }
      const scripts = { esbuild: 'esbuild/bin/esbuild', vite: 'vite/bin/vite.js', rollup: 'rollup/dist/bin/rollup' }
      assert.ok(words[0] in scripts, `no test knows how to run: ${command}`)
      return { run: [process.execPath, join(bundlers(), scripts[words[0]])].map(quote).concat(words.slice(1)).join(' ') }
    }
    case 'rustc':
    case 'clang': {
      const compiler = name === 'rustc' ? rustc() : clang()
      if (compiler) return { run: [compiler, ...words].join(' ') }
      const module = words.includes('-o') ? words[words.indexOf('-o') + 1] : words.at(-1).replace(/\.rs$/, '.wasm')
      writeFileSync(join(cwd, module), PRIMES)
      return { skip: `there is no ${name} for WebAssembly` }
    }
    case 'tar': {
      const archive = words.at(-1)
      const directory = archive.replace('.tar.gz', '')
      assert.equal(directory.slice(0, -'x86_64-unknown-linux-gnu'.length), `wizer-v${manifest.version}-`)
      mkdirSync(join(cwd, directory))
      cpSync(builtFiles().program, join(cwd, directory, 'wizer'))
      assert.ok(succeeds(`cd ${quote(cwd)} && tar -czf ${archive} ${directory} && rm -r ${directory}`))
      return { run: command }
    }
    case 'node':
      return { run: command.replaceAll('linux-x64-gnu', platform) }
    case 'mv':
    case 'echo':
    case 'cat':
      return { run: command }
    default:
      return assert.fail(`no test knows how to run: ${command}`)
  }
}

/** What has to be true after a command, besides what it prints. */
const afterwards = {
  mv: () => assert.deepEqual(sh('"$HOME/.local/bin/wizer" --version', sandbox), { status: 0, printed: `wizer ${manifest.version}\n` }),
  'npx vite': (cwd) => assertBundle(cwd, `dist/assets/${readdirSync(join(cwd, 'dist/assets')).find((name) => name.endsWith('.js'))}`),
  'npx rollup main.js': (cwd) => assertBundle(cwd, 'rollup/main.js'),
}

/** Runs what a bundler made of main.js. It is for browsers; what it asks of one is here in a few lines. */
function assertBundle(cwd, script) {
  const browser = join(cwd, 'browser.mjs')
  const site = pathToFileURL(join(cwd, script.split('/')[0])).href
  writeFileSync(
    browser,
    `import { readFileSync } from 'node:fs'
    const headers = { 'content-type': 'application/wasm' }
    const toFile = (url) => new URL(url.startsWith('/') ? ${JSON.stringify(site)} + url : url)
    globalThis.fetch = async (url) => new Response(readFileSync(toFile(url)), { headers })
    globalThis.document = { createElement: () => ({ relList: { supports: () => true } }) }`,
  )
  const { status, printed } = sh(`node --import ${quote(pathToFileURL(browser).href)} ${script}`, cwd)
  assert.deepEqual({ status, printed }, { status: 0, printed: '104729\n' })
}

// ----- blocks -----

/** Runs one block. Returns why it was not run, if so. */
async function run(block, folder) {
  const { path, language, attributes, text } = block
  const directory = attributes.in ? copyOf(attributes.in) : folder
  if (attributes.file) {
    writeFileSync(join(directory, attributes.file), text)
    return undefined
  }
  switch (language) {
    case 'console':
      return runConsole(block, directory)
    case 'js':
      assert.ok(attributes.throws, 'this JavaScript is not run: give it file= or throws')
      if (attributes.unix && process.platform === 'win32') return 'Windows says it in other words'
      return await runThrowing(block)
    case 'toml':
      assert.equal(text, `[dependencies]\nwizer = { git = "${manifest.homepage.split('#')[0]}" }\n`)
      assert.match(read('Cargo.toml'), /^name = "wizer"$/m)
      return undefined
    case 'json':
    case 'yaml':
      assert.equal(override(attributes.manager), text)
      return undefined
    default:
      return assert.fail(`${path}: a block of ${language || 'no language'} is not run`)
  }
}

const copies = new Map()

/** A copy of a directory of the checkout. */
function copyOf(directory) {
  if (!copies.has(directory)) {
    const copy = join(sandbox, 'app', 'copies', basename(directory))
    const filter = (path) => !['target', 'node_modules'].includes(basename(path))
    cpSync(join(root, directory), copy, { recursive: true, filter })
    copies.set(directory, copy)
  }
  return copies.get(directory)
}

function runConsole({ path, attributes, ...block }, cwd) {
  const skipped = []
  for (const { command, output, from } of commands({ path, ...block })) {
    const { run, skip, elsewhere } = prepare(command, cwd)
    if (elsewhere) continue
    if (skip) {
      skipped.push(skip)
      continue
    }
    const { status, printed } = sh(run, cwd)
    assert.equal(status !== 0, Boolean(attributes.fails), `${path}:${from}: the exit status is ${status}\n${printed}`)
    compare(path, from, output, printed, attributes['numbers-vary'] && mask)
    afterwards[Object.keys(afterwards).find((start) => `${command} `.startsWith(`${start} `))]?.(cwd)
  }
  return skipped.length > 0 ? skipped.join(', ') : undefined
}

/** Runs JavaScript that ends with an error, and compares that with the text that follows. */
async function runThrowing({ path, text, next }) {
  const names = Object.keys(api).filter((name) => name !== 'default')
  const AsyncFunction = (async () => {}).constructor
  const error = await new AsyncFunction(...names, text)(...names.map((name) => api[name])).then(
    () => assert.fail('nothing was thrown'),
    (error) => error,
  )
  const shown = [`${error.name} ${error.code}: ${error.message}`]
  for (const frame of error.wasmBacktrace ?? []) shown.push(`  wasmBacktrace: ${frame}`)
  if (error.cause !== undefined) shown.push(`  cause: ${error.cause}`)
  compare(path, next.line, next.lines, shown.join('\n'))
}

describe('what the documents show', { skip: !(platform in targets) && `no package for ${platform}` }, () => {
  const skip = !existsSync(shell) && `no ${shell}`

  before(() => {
    const addon = join(root, `wizer.${platform}.node`)
    assert.ok(existsSync(addon), `${addon} is not built: npm run build:test`)

    sandbox = mkdtempSync(join(tmpdir(), 'wizer-readme-'))
    env.HOME = join(sandbox, 'home')
    env.npm_config_cache = join(sandbox, 'npm')
    env.npm_config_update_notifier = 'false'
    mkdirSync(join(env.HOME, '.local', 'bin'), { recursive: true })
    const app = join(sandbox, 'app')
    mkdirSync(app)
    writeFileSync(join(app, 'package.json'), '{ "private": true, "type": "module" }\n')
    cpSync(join(root, 'examples', 'c', 'wizer.h'), join(app, 'wizer.h'))
  })

  after(() => {
    update()
    if (sandbox) rmSync(sandbox, { recursive: true, force: true })
  })

  for (const path of documents) {
    describe(path, { skip }, () => {
      for (const [index, block] of blocks(path).entries()) {
        const { line, language, attributes, lines } = block
        if (language === 'text') continue
        // tests/readme.rs runs these programs and compares these modules, in every document.
        if (attributes.test || attributes.before || attributes.after) continue
        const title = attributes.file ?? lines.find((line) => line.startsWith('$ '))?.slice(2) ?? lines[0]
        it(`${path}:${line} ${title}`, async (t) => {
          // Below the directory where the README has wizer installed, so that Node finds it there.
          const folder = path === 'README.md' ? join(sandbox, 'app') : join(sandbox, 'app', path)
          mkdirSync(folder, { recursive: true })
          const reason = await run({ ...block, next: blocks(path)[index + 1] }, folder)
          if (reason) t.skip(reason)
        })
      }
    })
  }

  it("Vite's development server gives the initialized module too", { skip }, async () => {
    const app = join(sandbox, 'app')
    const { createServer } = await import(pathToFileURL(join(bundlers(), 'vite/dist/node/index.js')))
    const server = await createServer({ root: app, configFile: join(app, 'vite.config.js'), logLevel: 'error', server: { port: 0, host: '127.0.0.1' } })
    try {
      await server.listen()
      const { port } = server.httpServer.address()
      const get = async (path) => (await fetch(`http://127.0.0.1:${port}${path}`)).text()
      const [, imported] = /from "(.*?)"/.exec(await get('/main.js'))
      const [, url] = /export default '(.*?)'/.exec(await get(imported))
      const { instance } = await WebAssembly.instantiateStreaming(fetch(url))
      assert.equal(instance.exports.nth_prime(10_000), 104729)
      assert.equal(instance.exports['wizer.initialize'], undefined)
    } finally {
      await server.close()
    }
  })
})

describe('every file that a document shows', () => {
  for (const path of documents) {
    it(`${path}: is used by a command or by another file`, () => {
      const all = blocks(path)
      for (const { attributes } of all.filter(({ attributes: { file, real } }) => file && !real)) {
        const users = all.filter(({ attributes: { file }, text }) => file !== attributes.file && text.includes(attributes.file))
        // Found by their names, not by a mention.
        if (!['index.html', 'vite.config.js'].includes(attributes.file)) assert.ok(users.length > 0, attributes.file)
      }
    })
  }
})

it('docs/errors.md explains every code', () => {
  const codes = (text, pattern) => [...text.matchAll(pattern)].map(([, code]) => code).sort()
  const declared = codes(read('index.d.ts'), /^ *\| '(ERR_WIZER_\w+)'/gm)
  assert.ok(declared.length > 20)
  assert.deepEqual(codes(read('docs/errors.md'), /^### (ERR_WIZER_\w+)$/gm), declared)
})

describe('links', () => {
  /** The anchors that GitHub gives to a document's headings. */
  const anchors = (path) => {
    const headings = read(path).replace(/^ *```[^]*?^ *```$/gm, '').match(/^#+ .*$/gm) ?? []
    return headings.map((line) => line.replace(/^#+ /, '').toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))
  }

  for (const path of allDocuments) {
    it(`${path}: lead somewhere`, () => {
      const text = read(path).replace(/^ *```[^]*?^ *```$/gm, '')
      for (const [, target] of text.matchAll(/\]\(([^)]+)\)/g)) {
        if (/^https?:/.test(target)) continue
        const [file, anchor] = target.split('#')
        const to = file ? join(dirname(path), file).replaceAll('\\', '/') : path
        assert.ok(existsSync(join(root, to)), `${path} links to ${target}`)
        if (anchor) assert.ok(anchors(to).includes(anchor), `${path} links to ${target}, but there is ${anchors(to).join(', ')}`)
      }
    })
  }
})
