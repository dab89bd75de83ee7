// The examples: in V8, what wizer makes of each does what the example itself does once it is
// initialized, and doesn't initialize anything any more.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { WASI } from 'node:wasi'
import { build, examples } from '../examples/build.mjs'
import { snapshot, wizer } from '../index.mjs'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const directory = (example) => join(root, 'examples', example)
const read = (...path) => readFileSync(join(root, 'examples', ...path))

const temporary = mkdtempSync(join(tmpdir(), 'wizer-examples-'))
after(() => rmSync(temporary, { recursive: true, force: true }))

let files = 0
const newFile = (name) => join(temporary, `${files++}-${name}`)

// ----- running modules in V8 -----

async function instantiate(wasm, imports = {}) {
  return (await WebAssembly.instantiate(wasm, imports)).instance
}

const exportNames = async (wasm) => WebAssembly.Module.exports(await WebAssembly.compile(wasm)).map(({ name }) => name)

/** Every byte of an instance's memory. */
const memoryOf = (instance) => Buffer.from(instance.exports.memory.buffer)

/**
 * A WASI host, and how often it was asked for what. (Where WebAssembly calls node:wasi directly,
 * Node 20 and 22 sometimes crash, see nodejs/node#53087; the functions here lie between.)
 */
function wasiHost(options) {
  const wasi = new WASI({ version: 'preview1', returnOnExit: true, ...options })
  const calls = {}
  const counted = Object.entries(wasi.wasiImport).map(([name, call]) => {
    const count = (...args) => {
      calls[name] = (calls[name] ?? 0) + 1
      return call(...args)
    }
    return [name, count]
  })
  return { wasi, calls, imports: { wasi_snapshot_preview1: Object.fromEntries(counted) } }
}

/** Runs a WASI command to its end. Without `preopen`, it has no directory. */
async function command(wasm, { args = [], stdin = '', env = {}, preopen } = {}) {
  const paths = ['stdin', 'stdout', 'stderr'].map(newFile)
  writeFileSync(paths[0], stdin)
  const fds = paths.map((path, fd) => openSync(path, fd === 0 ? 'r' : 'w'))
  const { wasi, calls, imports } = wasiHost({
    args: ['command', ...args],
    env,
    preopens: preopen ? { '.': preopen } : {},
    stdin: fds[0],
    stdout: fds[1],
    stderr: fds[2],
  })
  let status, error
  try {
    status = wasi.start(await instantiate(wasm, imports))
  } catch (trap) {
    error = trap
  }
  fds.forEach(closeSync)
  const [stdout, stderr] = paths.slice(1).map((path) => readFileSync(path, 'utf8'))
  return { status, error, stdout, stderr, calls }
}

/** Runs one that has to succeed. */
async function succeed(wasm, options) {
  const result = await command(wasm, options)
  assert.ifError(result.error)
  assert.equal(result.status, 0, result.stderr)
  return result
}

// ----- wizer, through two doors -----

/** The line of an example's README that runs wizer on a file, as arguments. */
function documentedLine(example, input) {
  const lines = read(example, 'README.md').toString().match(/^npx wizer .*$/gm) ?? []
  const found = lines.map((line) => line.split(/ +/).slice(2)).filter(([file]) => file === input)
  assert.equal(found.length, 1, `${example}/README.md has one line that starts with: npx wizer ${input}`)
  return found[0]
}

function cli(args, cwd) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'bin', 'wizer.js'), ...args], { cwd, encoding: 'utf8' })
  return { status, stdout, stderr }
}

/** Does what an example's README says. */
function cliOutput(example, input) {
  const args = documentedLine(example, input)
  const out = newFile(input)
  args[args.indexOf('-o') + 1] = out
  assert.deepEqual(cli(args, directory(example)), { status: 0, stdout: '', stderr: '' })
  return readFileSync(out)
}

/**
 * Registers the tests of one module: `check` gets the module as it is built, and what wizer made
 * of it, once by the JavaScript function and once by the documented command line. Where the
 * module can be built here, the built one is put to the same tests as the one that is kept.
 */
function example(name, file, { options = {}, input = file, check }) {
  it(`${file}, by wizer()`, async () => {
    const source = input.endsWith('.wat') ? read(name, input).toString() : read(name, input)
    await check(read(name, file), await wizer(source, options))
  })

  it(`${file}, by the command line in the README`, async () => {
    await check(read(name, file), cliOutput(name, input))
  })

  if (examples[name].toolchain() === undefined) return
  it(`${file}, built from source`, async () => {
    const built = rebuilt(name, file)
    await check(built, await wizer(built, options))
  })
}

const builds = new Map()

function rebuilt(name, file) {
  if (!builds.has(name)) {
    const place = (path) => join(temporary, 'built', path)
    mkdirSync(dirname(place(`${name}/file`)), { recursive: true })
    build(name, place)
    builds.set(name, place)
  }
  return readFileSync(builds.get(name)(`${name}/${file}`))
}

// ----- the examples -----

describe('wat', () => {
  const formula = (x) => ((2 * x - 5) * x + 3) * x + 7

  example('wat', 'formula.wasm', {
    input: 'formula.wat',
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('wizer.initialize'))
      assert.ok(original.includes('2 x * 5'))
      assert.ok(!output.includes('2 x * 5'), 'the text of the formula is gone')

      const initialized = await instantiate(original)
      assert.throws(() => initialized.exports.run(1), WebAssembly.RuntimeError)
      initialized.exports['wizer.initialize']()
      const instance = await instantiate(output)

      assert.ok(memoryOf(instance).equals(memoryOf(initialized)))
      for (const { exports } of [initialized, instance]) {
        assert.equal(exports.steps(), 13)
        assert.equal(exports.characters_read(), 25)
        for (const x of [0, 1, -3, 1.5, 1e6, NaN]) assert.equal(exports.run(x), formula(x))
      }
    },
  })
})

describe('c', () => {
  const requests = `GET /
GET /articles/new
GET /articles/first-post
PUT /articles/first-post?draft
DELETE /articles/first-post/comments/17
GET /authors/ada/articles
GET /assets/css/site/main.css
GET /feeds/latest
GET /feeds/atom
PATCH /articles
GET /articles//comments
GET /nowhere
`
  const answers = `home
new_article
show_article slug=first-post
update_article slug=first-post
delete_comment slug=first-post id=17
list_articles_by_author author=ada
serve_asset path=css/site/main.css
feed_redirect
feed format=atom
405 method not allowed
404 not found
404 not found
`
  const options = { allowWasi: true, mapDirs: { '.': directory('c') }, renameFuncs: { _start: 'wizer.resume' } }

  example('c', 'router.wasm', {
    options,
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('wizer.initialize'))

      const before = await succeed(original, { stdin: requests, preopen: directory('c') })
      assert.equal(before.stdout, answers)
      assert.equal(before.calls.path_open, 1)

      // No file is opened, so no directory is needed.
      const after = await succeed(output, { stdin: requests })
      assert.equal(after.stdout, answers)
      assert.equal(after.calls.path_open, undefined)
      assert.equal((await command(original, { stdin: requests })).status, 1)
    },
  })

  it('router.wasm leaves nothing open', async () => {
    const { report } = await snapshot(read('c', 'router.wasm'), options)
    assert.deepEqual(report.warnings, [])
  })

  it('a mistake in routes.txt is an error of the build', () => {
    const broken = join(temporary, 'broken')
    mkdirSync(broken)
    writeFileSync(join(broken, 'routes.txt'), 'GET / home\nGET /about\n')
    const { status, stderr } = cli([join(directory('c'), 'router.wasm'), '-o', newFile('out'), '--allow-wasi', '--dir', '.'], broken)
    assert.equal(status, 1)
    assert.match(stderr, /^routes\.txt:2: expected a method, a pattern and a handler$/m)
  })

  it('wizer.h: without the rename, the output says what is missing', async () => {
    const { allowWasi, mapDirs } = options
    const output = await wizer(read('c', 'router.wasm'), { allowWasi, mapDirs })
    const { error, stdout, stderr } = await command(output, { stdin: requests, preopen: directory('c') })
    assert.ok(error instanceof WebAssembly.RuntimeError)
    assert.equal(stdout, '')
    assert.match(stderr, /Run wizer with `-r _start=wizer\.resume`/)
  })

  /** CRC-32 bit by bit. */
  const reference = (bytes) => {
    let crc = ~0
    for (const byte of bytes) {
      crc ^= byte
      for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
    }
    return ~crc
  }

  example('c', 'crc32.wasm', {
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('wizer.initialize'))
      assert.deepEqual(WebAssembly.Module.imports(await WebAssembly.compile(output)), [])

      const crc32 = ({ exports }, bytes, before = 0) => {
        new Uint8Array(exports.memory.buffer, exports.buffer(), bytes.length).set(bytes)
        return exports.crc32(before, bytes.length)
      }
      const digits = Buffer.from('123456789')
      const uninitialized = await instantiate(original)
      assert.notEqual(crc32(uninitialized, digits), 0xcbf43926 | 0)

      const initialized = await instantiate(original)
      initialized.exports['wizer.initialize']()
      const instance = await instantiate(output)
      assert.ok(memoryOf(instance).equals(memoryOf(initialized)))

      const bytes = Buffer.from(Array.from({ length: 1003 }, (_, i) => i * 7))
      for (const one of [initialized, instance]) {
        assert.equal(crc32(one, digits), 0xcbf43926 | 0)
        assert.equal(crc32(one, bytes), reference(bytes))
        assert.equal(crc32(one, bytes.subarray(500), crc32(one, bytes.subarray(0, 500))), reference(bytes))
      }
    },
  })
})

describe('cpp', () => {
  const guesses = {
    'good morning everyone, is this your bag?': 'English',
    'wo ist hier der nächste Bahnhof?': 'German',
    'où est la gare ?': 'French',
    '¿dónde está la estación?': 'Spanish',
    'waar is het station?': 'Dutch',
    '...': '?',
  }
  const texts = Object.keys(guesses)

  example('cpp', 'command.wasm', {
    options: { allowWasi: true, renameFuncs: { _start: 'wizer.resume' } },
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('wizer.initialize'))

      // The initialized original and the output hold the same objects when they start.
      const initialized = await instantiate(original, wasiHost({}).imports)
      const uninitialized = memoryOf(initialized)
      initialized.exports['wizer.initialize']()
      const started = memoryOf(await instantiate(output, wasiHost({}).imports))
      assert.ok(started.equals(memoryOf(initialized)))
      assert.ok(!started.equals(uninitialized))

      // Five constructors in all, and one destructor at the end: nothing runs twice.
      for (const wasm of [original, output]) {
        const { stdout, stderr } = await succeed(wasm, { stdin: texts.join('\n') })
        assert.equal(stdout, texts.map((text) => `${guesses[text]}: ${text}\n`).join(''))
        assert.equal(stderr, `texts: ${texts.length}, languages: 5\n`)
      }
    },
  })

  example('cpp', 'reactor.wasm', {
    options: { allowWasi: true },
    async check(original, output) {
      const names = await exportNames(output)
      assert.ok(!names.includes('wizer.initialize'))
      assert.ok(!names.includes('_initialize'))

      const host = wasiHost({})
      const initialized = await instantiate(original, host.imports)
      assert.equal(initialized.exports.constructed(), 0)
      host.wasi.initialize(initialized)
      initialized.exports['wizer.initialize']()

      const otherHost = wasiHost({})
      const instance = await instantiate(output, otherHost.imports)
      assert.ok(memoryOf(instance).equals(memoryOf(initialized)))
      // What every host does with a library: nothing is left to do.
      otherHost.wasi.initialize(instance)

      for (const { exports } of [initialized, instance]) {
        for (const text of texts) {
          const bytes = Buffer.from(text)
          new Uint8Array(exports.memory.buffer, exports.buffer(), exports.buffer_size()).set(bytes)
          const name = memoryOf({ exports }).subarray(exports.guess(bytes.length))
          assert.equal(name.toString('latin1', 0, name.indexOf(0)), guesses[text])
        }
        assert.equal(exports.constructed(), 5)
      }
    },
  })
})

describe('rust', () => {
  example('rust', 'search.wasm', {
    options: { allowWasi: true, mapDirs: { '.': directory('rust') }, renameFuncs: { _start: 'wizer.resume' } },
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('wizer.initialize'))

      const queries = {
        '': /^6 documents, 209 words\n$/,
        'the moon and the tide': /^0\.301 {2}docs\/tides\.txt {2}Why the sea rises and falls\n$/,
        'clock stars ships': /^\S+ {2}docs\/stars\.txt .*\n\S+ {2}docs\/lighthouse\.txt .*\n$/,
        zebra: /^$/,
      }
      for (const [query, answer] of Object.entries(queries)) {
        const args = query.split(' ').filter(Boolean)
        const before = await succeed(original, { args, preopen: directory('rust') })
        assert.match(before.stdout, answer)
        assert.equal(before.calls.fd_readdir > 0, true)
        assert.equal(before.calls.path_open, 7)

        // No file is opened, so no directory is needed.
        const after = await succeed(output, { args })
        assert.equal(after.stdout, before.stdout)
        assert.equal(after.calls.fd_readdir, undefined)
        assert.equal(after.calls.path_open, undefined)
      }
    },
  })
})

describe('assemblyscript', () => {
  /** A string lies in memory as UTF-16; its length in bytes, in the four bytes before it. */
  const string = ({ exports }, pointer) => {
    const memory = memoryOf({ exports })
    return memory.toString('utf16le', pointer, pointer + memory.readUInt32LE(pointer - 4))
  }

  example('assemblyscript', 'colors.wasm', {
    options: { initFunc: 'initialize' },
    async check(original, output) {
      assert.ok(!(await exportNames(output)).includes('initialize'))

      const uninitialized = await instantiate(original)
      assert.throws(() => uninitialized.exports.nearest(0, 0, 0), WebAssembly.RuntimeError)

      const initialized = await instantiate(original)
      initialized.exports.initialize()
      const instance = await instantiate(output)
      assert.ok(memoryOf(instance).equals(memoryOf(initialized)))

      const colors = { floralwhite: [255, 250, 241], black: [1, 2, 3], crimson: [210, 25, 60], rebeccapurple: [100, 50, 150] }
      for (const one of [initialized, instance]) {
        assert.equal(one.exports.count(), 139)
        for (const [name, rgb] of Object.entries(colors)) assert.equal(string(one, one.exports.nearest(...rgb)), name)
      }
      // Many more allocations, so that the garbage collector meets what the initialization left.
      for (let i = 0; i < 20_000; i++) instance.exports.nearest(i & 255, (i >> 3) & 255, (i >> 6) & 255)
      assert.equal(string(instance, instance.exports.nearest(255, 255, 255)), 'white')
    },
  })
})
