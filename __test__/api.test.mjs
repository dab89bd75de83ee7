// The JavaScript API: how it is called, its options, its report, and that it is a good guest in a Node process. Imports
// are in imports.test.mjs, errors in errors.test.mjs, the process's own streams in stdio.test.mjs.

import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import byDefault, { WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { run, runScript, scriptCommand, temporaryDirectory } from './helpers/run.mjs'
import { assertInitialized, exportNames, start } from './helpers/v8.mjs'
import { reader, runShell, sleeper, wasi } from './helpers/wasi.mjs'
import { assemble, customSection } from './helpers/wat.mjs'

/** Every kind of state, changed by every function that runs before the output exists. */
const STATE = `(module
  (memory (export "memory") 1 10)
  (global $count (export "count") (mut i32) (i32.const 1))
  (global $big (export "big") (mut i64) (i64.const 2))
  (global $single (export "single") (mut f32) (f32.const 3))
  (global $double (export "double") (mut f64) (f64.const 4))
  (global (export "constant") i32 (i32.const 5))
  (table (export "table") 2 funcref)
  (elem (i32.const 1) $answer)
  (data (i32.const 100) "initial")
  (data $passive "passive")
  (func $answer (export "answer") (result i32)
    (i32.mul (global.get $count) (i32.load (i32.const 65536))))
  (func $start
    (global.set $count (i32.add (global.get $count) (i32.const 1))))
  (func (export "_initialize")
    (global.set $count (i32.mul (global.get $count) (i32.const 10))))
  (func (export "wizer.initialize")
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (global.set $big (i64.const -9_007_199_254_740_993))
    (global.set $single (f32.const -0.0))
    (global.set $double (f64.const inf))
    (drop (memory.grow (i32.const 2)))
    (i32.store (i32.const 65536) (i32.const 2))
    (i32.store8 (i32.const 101) (i32.const 0))
    (memory.init $passive (i32.const 131072) (i32.const 0) (i32.const 7)))
  (start $start))`

const ORIGINAL = assemble(STATE)

const MEMORIES = assemble(`(module
  (memory (export "first") 1)
  (memory $second (export "second") 1 2)
  (data (memory $second) (i32.const 4) "initial")
  (func (export "wizer.initialize")
    (drop (memory.grow $second (i32.const 1)))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store $second (i32.const 131068) (i32.const 2))))`)
const withoutMultiMemory = !WebAssembly.validate(MEMORIES) && 'this V8 knows one memory per module'

const same = (output) => assert.equal(assertInitialized(output, ORIGINAL).answer(), 42)

/** A module with the initialization function that has this body. */
const init = (body, ...fields) => `(module ${fields.join('\n')} (func (export "wizer.initialize") ${body}))`
const EMPTY = init('')
const ENDLESS = init('(loop (br 0))')

/** A function that is busy for some time and does nothing. */
const BUSY = `(func $busy (local $i i32)
  (loop $again
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $i) (i32.const 300_000_000)))))`

const rejects = (promise, code, message = /(?:)/) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof WizerError, String(error?.stack ?? error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, message)
    return true
  })

describe('the names', () => {
  it('are the same by import and by require', () => {
    const required = createRequire(import.meta.url)('@jakechampion/wizer')
    assert.equal(byDefault, wizer)
    assert.equal(required, wizer)
    for (const [name, value] of Object.entries({ wizer, wizerSync, snapshot, WizerError, default: wizer })) {
      assert.equal(required[name], value, name)
      assert.equal(typeof value, 'function', name)
    }
  })

  it('load nothing until they are called', async () => {
    const script = `console.log(typeof wizer); wizer('(module)').catch((error) => console.log(error.code, error.name))`
    const { stdout } = await runScript(script, { env: { ...process.env, WIZER_BINDING: 'missing.node' } })
    assert.equal(stdout.toString(), 'function\nERR_WIZER_PLATFORM Error\n')
  })
})

describe('the module', () => {
  const inside = Buffer.concat([Buffer.from('before'), ORIGINAL, Buffer.from('after')])
  const inputs = {
    'a Uint8Array': ORIGINAL,
    'a Buffer': Buffer.from(ORIGINAL),
    'an ArrayBuffer': ORIGINAL.slice().buffer,
    'a part of a buffer': inside.subarray(6, -5),
    'a Uint8Array over shared memory': new Uint8Array(new SharedArrayBuffer(ORIGINAL.length)),
    'text': STATE,
    'text in bytes': Buffer.from(STATE),
    'text behind a comment': `;; a comment\n${STATE}`,
  }
  inputs['a Uint8Array over shared memory'].set(ORIGINAL)

  for (const [what, input] of Object.entries(inputs)) {
    it(`may be ${what}`, async () => {
      const output = await wizer(input)
      assert.ok(Buffer.isBuffer(output))
      same(output)
      assert.deepEqual(wizerSync(input), output)
      assert.deepEqual((await snapshot(input)).wasm, output)
    })
  }

  it('is left as it was', async () => {
    const copy = ORIGINAL.slice()
    await wizer(copy)
    wizerSync(copy)
    assert.deepEqual(copy, ORIGINAL)
  })

  it('may be changed right after the call', async () => {
    const changed = ORIGINAL.slice()
    const promise = wizer(changed)
    changed.fill(0)
    same(await promise)
  })

  it('may be transferred right after the call', async () => {
    const transferred = ORIGINAL.slice()
    const promise = wizer(transferred)
    structuredClone(transferred.buffer, { transfer: [transferred.buffer] })
    assert.equal(transferred.length, 0)
    same(await promise)
  })

  it('gives an output that is of the caller alone', async () => {
    const first = await wizer(ORIGINAL)
    const copy = Buffer.from(first)
    first.fill(0)
    assert.deepEqual(await wizer(ORIGINAL), copy)
  })

  it('may be initialized already', async () => {
    const once = await wizer(ORIGINAL, { keepInitFunc: true })
    assertInitialized(await wizer(once), once)
  })
})

describe('the output', () => {
  it('has the same bytes every time', async () => {
    const outputs = await Promise.all([wizer(ORIGINAL), wizer(ORIGINAL), wizer(STATE)])
    outputs.push(wizerSync(ORIGINAL), (await snapshot(ORIGINAL)).wasm)
    // The text format's own assembler may number types otherwise than ours.
    outputs.splice(2, 1)
    for (const output of outputs) assert.deepEqual(output, outputs[0])
  })

  it('has the same bytes with every engine', async () => {
    const [auto, baseline, optimizing] = await Promise.all(
      ['auto', 'baseline', 'optimizing'].map((engine) => snapshot(ORIGINAL, { engine })),
    )
    assert.match(baseline.report.engine.name, /Winch/)
    assert.match(optimizing.report.engine.name, /Cranelift/)
    assert.deepEqual(baseline.wasm, auto.wasm)
    assert.deepEqual(optimizing.wasm, auto.wasm)
    same(auto.wasm)
  })

  it('has the state of several memories', { skip: withoutMultiMemory }, async () => {
    assertInitialized(await wizer(MEMORIES), MEMORIES)
  })
})

describe('the options of the module', () => {
  const TWO = `(module
    (global $n (export "n") (mut i32) (i32.const 0))
    (func (export "wizer.initialize") (global.set $n (i32.const 1)))
    (func (export "wizer-initialize") (global.set $n (i32.const 2)))
    (func (export "setup") (global.set $n (i32.const 3)))
    (func (export "resume") (result i32) (i32.const 4))
    (func (export "_start") (result i32) (i32.const 5)))`
  const two = assemble(TWO)

  it('initFunc: the two names by default, the one with a point first', async () => {
    assertInitialized(await wizer(two), two)
    const dashed = assemble(TWO.replace('"wizer.initialize"', '"other"'))
    assertInitialized(await wizer(dashed), dashed, { init: 'wizer-initialize' })
  })

  it('initFunc: another name', async () => {
    assertInitialized(await wizer(two, { initFunc: 'setup' }), two, { init: 'setup' })
  })

  it('initFunc: `_initialize` itself, which runs once', async () => {
    const output = await wizer(ORIGINAL, { initFunc: '_initialize' })
    assertInitialized(output, ORIGINAL, { init: '_initialize' })
    const kept = await wizer(ORIGINAL, { initFunc: '_initialize', keepInitFunc: true })
    assert.ok(exportNames(kept).includes('_initialize'))
    assert.equal(start(kept).count.value, 20)
  })

  it('keepInitFunc', async () => {
    assertInitialized(await wizer(two, { keepInitFunc: true }), two, { keep: true })
    assertInitialized(await wizer(two, { keepInitFunc: false }), two)
  })

  it("keepInitFunc: 'empty', and a host that calls the initialization, twice", async () => {
    const exports = start(await wizer(ORIGINAL, { keepInitFunc: 'empty' }))
    for (let i = 0; i < 2; i += 1) {
      assert.equal(exports._initialize(), undefined)
      assert.equal(exports['wizer.initialize'](), undefined)
      assert.equal(exports.count.value, 21)
      assert.equal(exports.answer(), 42)
    }
    const { wasm, report } = await snapshot(two, { keepInitFunc: 'empty', renameFuncs: { ready: 'wizer.initialize' } })
    assert.deepEqual(report.warnings, [])
    const renamed = start(wasm)
    const before = renamed.n.value
    renamed.ready()
    assert.equal(renamed.n.value, before)
    assert.ok(!('wizer.initialize' in renamed))
  })

  it('renameFuncs', async () => {
    const renamed = await wizer(two, { renameFuncs: { _start: 'resume', later: 'setup' } })
    assert.deepEqual(exportNames(renamed).sort(), ['_start', 'later', 'n', 'wizer-initialize'])
    const exports = start(renamed)
    assert.equal(exports._start(), 4)
    exports.later()
    assert.equal(exports.n.value, 3)
  })

  it('renameFuncs: two that swap', async () => {
    const exports = start(await wizer(two, { renameFuncs: { _start: 'resume', resume: '_start' } }))
    assert.deepEqual([exports._start(), exports.resume()], [4, 5])
  })

  it('renameFuncs: a name that does not exist is a warning', async () => {
    const { wasm, report } = await snapshot(two, { renameFuncs: { a: 'nothing' } })
    assert.equal(report.warnings.length, 1)
    assert.match(report.warnings[0], /`nothing`/)
    assertInitialized(wasm, two)
  })

  const provider = `(module
    (global (export "base") i32 (i32.const 40))
    (global $calls (mut i32) (i32.const 0))
    (func (export "next") (result i32) (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
    (func (export "two") (result i32) (i32.const 2)))`
  const consumer = (name) => `(module
    (import "lib" "base" (global $base i32))
    (import "lib" "${name}" (func $f (result i32)))
    (global $n (export "n") (mut i32) (i32.const 0))
    (func (export "wizer.initialize") (global.set $n (i32.add (global.get $base) (call $f)))))`

  for (const [what, lib] of [['text', provider], ['bytes', assemble(provider)], ['an ArrayBuffer', assemble(provider).buffer]]) {
    it(`preload: ${what}`, async () => {
      const original = assemble(consumer('two'))
      const { wasm, report } = await snapshot(original, { preload: { lib } })
      const instances = [start(assemble(provider)), start(assemble(provider))]
      const exports = assertInitialized(wasm, original, { imports: { lib: instances[0] }, originalImports: { lib: instances[1] } })
      assert.equal(exports.n.value, 42)
      assert.deepEqual(report.assumedGlobals, ['lib::base'])
    })
  }

  it('allowPreloadChanges', async () => {
    const changing = consumer('next')
    await rejects(wizer(changing, { preload: { lib: provider } }), 'ERR_WIZER_UNREPRESENTABLE_STATE', /`lib`/)
    const output = await wizer(changing, { preload: { lib: provider }, allowPreloadChanges: true })
    assert.equal(start(output, { lib: start(assemble(provider)) }).n.value, 41)
  })

  const FEATURES = {
    wasmBulkMemory: init('(memory.fill (i32.const 0) (i32.const 1) (i32.const 8))', '(memory 1)'),
    wasmMultiMemory: init('(i32.store $b (i32.const 0) (i32.const 1))', '(memory $a 1) (memory $b 1)'),
    wasmMultiValue: init('(drop (drop (call $f)))', '(func $f (result i32 i32) (i32.const 1) (i32.const 2))').replace(
      '(drop (drop (call $f)))', 'call $f drop drop'),
    wasmReferenceTypes: init('(drop (ref.is_null (ref.null extern)))'),
    wasmSimd: init('(drop (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4)))'),
    wasmRelaxedSimd: init('(drop (i8x16.relaxed_swizzle (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4)))'),
  }
  for (const [name, module] of Object.entries(FEATURES)) {
    it(name, async () => {
      await wizer(module)
      await wizer(module, { [name]: true })
      await rejects(wizer(module, { [name]: false }), 'ERR_WIZER_INVALID_MODULE')
      await wizer(EMPTY, { [name]: false })
    })
  }

  it('wasmSimd: false refuses relaxed SIMD too', async () => {
    await rejects(wizer(FEATURES.wasmRelaxedSimd, { wasmSimd: false }), 'ERR_WIZER_INVALID_MODULE')
  })

  it('relaxedSimdDeterministic: an index beyond the vector selects 0', async () => {
    // Without the option, an index from 16 to 127 may just as well select by its last four bits.
    const swizzle = init(
      `(call $see (i64x2.extract_lane 0 (i8x16.relaxed_swizzle
        (v128.const i8x16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
        (v128.const i8x16 0 1 16 127 15 -1 14 64 0 0 0 0 0 0 0 0))))`,
      '(import "test" "see" (func $see (param i64)))',
    )
    let seen
    await wizer(swizzle, { relaxedSimdDeterministic: true, imports: { test: { see: (lanes) => void (seen = lanes) } } })
    assert.equal(seen, 0x00_0f_00_10_00_00_02_01n)
  })
})

describe('the options of WASI', () => {
  it('nothing is reachable by default', async () => {
    const seen = {}
    await runShell({}, (shell) => {
      seen.args = shell.strings('args')
      seen.env = shell.strings('environ')
      seen.directories = shell.directories()
      seen.stdin = shell.read(0).length
    })
    assert.deepEqual(seen, { args: [], env: [], directories: {}, stdin: 0 })
  })

  it('env, inheritEnv', async () => {
    process.env.WIZER_TEST_A = 'inherited'
    process.env.WIZER_TEST_B = 'inherited'
    const environment = async (options) => {
      let strings
      await runShell(options, (shell) => (strings = shell.strings('environ')))
      return strings.sort()
    }
    try {
      assert.deepEqual(await environment({ env: { LANG: 'de', EMPTY: '', 'ÄÖ': 'ü=ü' } }), ['EMPTY=', 'LANG=de', 'ÄÖ=ü=ü'])
      const inherited = await environment({ inheritEnv: true, env: { WIZER_TEST_B: 'given' } })
      assert.deepEqual(inherited.filter((line) => line.startsWith('WIZER_TEST_')), ['WIZER_TEST_A=inherited', 'WIZER_TEST_B=given'])
      assert.ok(inherited.some((line) => /^path=/i.test(line)))
    } finally {
      delete process.env.WIZER_TEST_A
      delete process.env.WIZER_TEST_B
    }
  })

  it('args', async () => {
    await runShell({ args: ['program', '--flag', '', 'ü'] }, (shell) => {
      assert.deepEqual(shell.strings('args'), ['program', '--flag', '', 'ü'])
    })
  })

  for (const [what, stdin] of [['a Buffer', Buffer.from('hello')], ['an ArrayBuffer', new TextEncoder().encode('hello').buffer], ['a part', Buffer.from('<hello>').subarray(1, 6)]]) {
    it(`stdin: ${what}`, async () => {
      await runShell({ stdin }, (shell) => {
        assert.equal(shell.read(0, 3).toString(), 'hel')
        assert.equal(shell.read(0, 3).toString(), 'lo')
        assert.equal(shell.read(0, 3).length, 0)
        assert.equal(shell.read(0, 3).length, 0)
      })
    })
  }

  it('stdin: ignore', async () => {
    await runShell({ inheritStdio: true, stdin: 'ignore' }, (shell) => assert.equal(shell.read(0).length, 0))
  })

  it('stdin may be changed right after the call', async () => {
    const stdin = Buffer.from('hello')
    const promise = runShell({ stdin }, (shell) => assert.equal(shell.read(0).toString(), 'hello'))
    stdin.fill(0)
    await promise
  })

  it('stdout, stderr: pipe and ignore', async () => {
    const write = (shell) => {
      shell.write(1, 'out 1\n')
      shell.write(2, 'err\n')
      shell.write(1, 'out 2')
    }
    const both = await runShell({ stdout: 'pipe', stderr: 'pipe' }, write)
    assert.ok(Buffer.isBuffer(both.stdout) && Buffer.isBuffer(both.stderr))
    assert.equal(both.stdout.toString(), 'out 1\nout 2')
    assert.equal(both.stderr.toString(), 'err\n')
    const one = await runShell({ stdout: 'pipe', stderr: 'ignore' }, write)
    assert.deepEqual(Object.keys(one).sort(), ['report', 'stdout', 'wasm'])
    const none = await runShell({ stdout: 'pipe', stderr: 'pipe' }, () => {})
    assert.deepEqual([none.stdout.length, none.stderr.length], [0, 0])
  })

  describe('directories', () => {
    const parent = temporaryDirectory()
    const make = (name, files) => {
      const directory = join(parent, name)
      mkdirSync(directory)
      for (const [file, contents] of Object.entries(files)) writeFileSync(join(directory, file), contents)
      return directory
    }
    const contents = (directory) =>
      Object.fromEntries(readdirSync(directory).sort().map((name) => [name, statSync(join(directory, name)).isFile() ? readFileSync(join(directory, name), 'utf8') : null]))

    it('dirs: read, write, and nothing outside', async () => {
      const directory = make('plain', { 'a.txt': 'A' })
      writeFileSync(join(parent, 'outside.txt'), 'secret')
      await runShell({ dirs: [directory] }, (shell) => {
        const { [directory]: fd, ...others } = shell.directories()
        assert.deepEqual(others, {})
        assert.equal(shell.readFile(`${directory}/a.txt`), 'A')
        assert.notEqual(shell.tryOpen(fd, '../outside.txt'), 0)
        assert.notEqual(shell.tryOpen(fd, join(parent, 'outside.txt')), 0)
        shell.write(shell.open(fd, 'b.txt', { flags: 1, rights: 64 }), 'B')
      })
      assert.deepEqual(contents(directory), { 'a.txt': 'A', 'b.txt': 'B' })
    })

    it('mapDirs: another name, and several', async () => {
      const data = make('data', { f: '1' })
      const templates = make('templates', { f: '2' })
      await runShell({ mapDirs: { '/data': data, templates: { host: templates }, '/': { host: templates, readonly: true } } }, (shell) => {
        assert.deepEqual(Object.keys(shell.directories()).sort(), ['/', '/data', 'templates'])
        assert.equal(shell.readFile('/data/f'), '1')
        assert.equal(shell.readFile('templates/f'), '2')
        assert.equal(shell.readFile('/f'), '2')
        shell.write(shell.open(shell.directories().templates, 'g', { flags: 1, rights: 64 }), '3')
      })
      assert.deepEqual(contents(templates), { f: '2', g: '3' })
    })

    it('mapDirs: in a readonly one nothing can be changed', async () => {
      const directory = make('readonly', { f: 'contents' })
      const writable = make('writable', { g: '' })
      mkdirSync(join(directory, 'sub'))
      const { mtimeMs, mode } = statSync(join(directory, 'f'))
      let ran = false
      await runShell({ mapDirs: { '/r': { host: directory, readonly: true }, '/w': writable } }, (shell) => {
        const { '/r': fd, '/w': other } = shell.directories()
        const fails = (name, ...args) => assert.notEqual(shell.errno(name, ...args), 0, name)
        assert.equal(shell.readFile('/r/f'), 'contents')
        for (const how of [{ rights: 64 }, { rights: 66 }, { flags: 8, rights: 64 }, { flags: 8 }]) {
          assert.notEqual(shell.tryOpen(fd, 'f', how), 0, JSON.stringify(how))
        }
        assert.notEqual(shell.tryOpen(fd, 'new', { flags: 1, rights: 64 }), 0)
        assert.notEqual(shell.tryOpen(fd, 'new', { flags: 1 }), 0)
        const open = shell.open(fd, 'f')
        assert.notEqual(shell.tryWrite(open, 'x'), 0)
        fails('fd_filestat_set_size', open, 0n)
        shell.call('fd_close', open)
        fails('path_create_directory', fd, ...shell.path('new'))
        fails('path_unlink_file', fd, ...shell.path('f'))
        fails('path_remove_directory', fd, ...shell.path('sub'))
        fails('path_rename', fd, ...shell.path('f'), fd, ...shell.path('new', 2048))
        fails('path_rename', fd, ...shell.path('f'), other, ...shell.path('new', 2048))
        fails('path_rename', other, ...shell.path('g'), fd, ...shell.path('new', 2048))
        fails('path_link', other, 0, ...shell.path('g'), fd, ...shell.path('new', 2048))
        fails('path_symlink', ...shell.path('f'), fd, ...shell.path('new', 2048))
        fails('path_filestat_set_times', fd, 0, ...shell.path('f'), 0n, 0n, 5)
        ran = true
      })
      assert.ok(ran)
      assert.deepEqual(contents(directory), { f: 'contents', sub: null })
      assert.deepEqual(contents(writable), { g: '' })
      assert.equal(statSync(join(directory, 'f')).mtimeMs, mtimeMs)
      assert.equal(statSync(join(directory, 'f')).mode, mode)
    })

    it('what the guest left open is a warning', async () => {
      const directory = make('open', { f: '' })
      const open = async (close) => {
        const { report } = await runShell({ dirs: [directory] }, (shell) => {
          const fd = shell.open(shell.directories()[directory], 'f')
          if (close) shell.call('fd_close', fd)
        })
        return report.warnings
      }
      assert.deepEqual(await open(true), [])
      const [warning, ...others] = await open(false)
      assert.match(warning, /open/)
      assert.deepEqual(others, [])
    })
  })

  describe('files', () => {
    const FILES = { '/etc/app/config.json': '{"ü":1}', '/top': new Uint8Array([0, 255]), 'a/b.txt': Buffer.from('relative'), './c.txt': new TextEncoder().encode('c').buffer }

    it('are there under absolute and relative paths', async () => {
      await runShell({ files: FILES }, (shell) => {
        assert.deepEqual(Object.keys(shell.directories()).sort(), ['.', '/'])
        assert.equal(shell.readFile('/etc/app/config.json'), '{"ü":1}')
        assert.equal(shell.readFile('a/b.txt'), 'relative')
        assert.equal(shell.readFile('c.txt'), 'c')
        const { '/': fd } = shell.directories()
        assert.deepEqual([...shell.read(shell.open(fd, 'top'))], [0, 255])
        shell.write(shell.open(fd, 'new', { flags: 1, rights: 64 }), 'x')
      })
    })

    it('live beside directories', async () => {
      const directory = temporaryDirectory()
      writeFileSync(join(directory, 'f'), 'on the host')
      const files = { '/etc/f': 'given' }
      await runShell({ files, mapDirs: { '/data': directory } }, (shell) => {
        assert.equal(shell.readFile('/etc/f'), 'given')
        assert.equal(shell.readFile('/data/f'), 'on the host')
      })
    })

    it('in a mapped directory are an error, and change nothing there', async () => {
      const directory = temporaryDirectory()
      await rejects(runShell({ files: { '/data/x': '' }, mapDirs: { '/data': directory } }, () => {}), 'ERR_WIZER_OPTION', /\/data/)
      assert.deepEqual(readdirSync(directory), [])
    })

    it('must not lead out', async () => {
      await rejects(runShell({ files: { '../x': '' } }, () => {}), 'ERR_WIZER_OPTION')
      await rejects(runShell({ files: { '/a/../../x': '' } }, () => {}), 'ERR_WIZER_OPTION')
    })

    it('lie in a private directory, which is gone afterwards', async () => {
      const directory = temporaryDirectory()
      const script = `
        const { readdirSync, statSync } = require('node:fs')
        const { tmpdir } = require('node:os')
        const { join } = require('node:path')
        const look = () => readdirSync(tmpdir()).map((name) => (statSync(join(tmpdir(), name)).mode & 0o777).toString(8))
        const options = (during) => ({ allowWasi: true, files: { '/f': 'x' }, imports: { test: { during } } })
        const wat = '(module (import "test" "during" (func $f)) (func (export "wizer.initialize") (call $f)))'
        const seen = []
        ;(async () => {
          await wizer(wat, options(() => seen.push(look())))
          seen.push(look())
          await wizer(wat, options(() => { throw new Error() })).catch(() => seen.push('failed', look()))
          wizerSync(wat, options(() => {}))
          seen.push(look())
          console.log(JSON.stringify(seen))
        })()`
      const env = { ...process.env, TMPDIR: directory, TEMP: directory, TMP: directory }
      const { stdout, stderr } = await runScript(script, { env })
      const mode = process.platform === 'win32' ? '666' : '700'
      assert.deepEqual(JSON.parse(stdout.toString() || stderr), [[mode], [], 'failed', [], []])
      assert.deepEqual(readdirSync(directory), [])
    })
  })
})

describe('limits', () => {
  it('engine: every name, and no other', async () => {
    for (const engine of ['auto', 'interpreter', 'baseline', 'optimizing']) same(await wizer(ORIGINAL, { engine }))
    await rejects(wizer(ORIGINAL, { engine: 'fast' }), 'ERR_WIZER_OPTION', /`baseline`/)
  })

  it('engine: what one cannot run goes to the next, unless it was asked for', async () => {
    const throws = '(module (tag $e) (func (export "wizer.initialize") (block $l (try_table (catch_all $l) (throw $e)))))'
    // Beyond what Cranelift compiles as fast as Winch.
    const large = (module) => module.replace(/\)$/, `(func ${'(drop (i32.const 1))'.repeat(60_000)}))`)
    const small = await snapshot(throws)
    assert.match(small.report.engine.name, /Cranelift/)
    assert.match(small.report.engine.reason, /wasmi cannot run it/)
    // Where V8 knows exceptions, it runs them; with a limit of memory, it runs nothing.
    assert.match((await snapshot(large(throws), { cache: false })).report.engine.name, /V8|Cranelift/)
    const { report } = await snapshot(large(throws), { cache: false, maxMemory: 2 ** 30 })
    assert.match(report.engine.name, /Cranelift/)
    assert.match(report.engine.reason, /wasmi cannot run it.*Winch\) cannot/)
    for (const engine of ['interpreter', 'baseline']) {
      await rejects(wizer(throws, { engine }), 'ERR_WIZER_UNSUPPORTED', /`auto`/)
    }
  })

  for (const [what, guest] of Object.entries({ 'an endless loop': ENDLESS, 'a long sleep': sleeper })) {
    it(`timeout: ${what}`, async () => {
      await rejects(wizer(guest, { allowWasi: true, timeout: 20 }), 'ERR_WIZER_TIMEOUT', /20 ms/)
      assert.throws(() => wizerSync(guest, { allowWasi: true, timeout: 20 }), { code: 'ERR_WIZER_TIMEOUT' })
    })
  }

  it('timeout: not for a run that is in time', async () => {
    same(await wizer(ORIGINAL, { timeout: 600_000 }))
    same(wizerSync(ORIGINAL, { timeout: 600_000 }))
  })

  it('timeout: in the start function and in `_initialize`', async () => {
    await rejects(wizer('(module (func $s (loop (br 0))) (start $s) (func (export "wizer.initialize")))', { timeout: 20 }), 'ERR_WIZER_TIMEOUT')
    await rejects(wizer('(module (func (export "_initialize") (loop (br 0))) (func (export "wizer.initialize")))', { timeout: 20 }), 'ERR_WIZER_TIMEOUT')
  })

  it('maxMemory: of all memories and tables together', async () => {
    const page = 65536
    const grow = init('(drop (memory.grow (i32.const 1)))', '(memory 1)')
    same(await wizer(ORIGINAL, { maxMemory: 3 * page + 16 }))
    await rejects(wizer(ORIGINAL, { maxMemory: 3 * page + 15 }), 'ERR_WIZER_MEMORY_LIMIT')
    await wizer(grow, { maxMemory: 2 * page })
    await rejects(wizer(grow, { maxMemory: 2 * page - 1 }), 'ERR_WIZER_MEMORY_LIMIT')
    await rejects(wizer(init('', '(memory 3)'), { maxMemory: 2 * page }), 'ERR_WIZER_MEMORY_LIMIT')
    await rejects(wizer(init('', '(table 1000 funcref)'), { maxMemory: 7999 }), 'ERR_WIZER_MEMORY_LIMIT')
  })

  it('maxMemory: growing beyond the memory\'s own maximum is the guest\'s affair', async () => {
    const grow = `(module (memory 1 1) (global $got (export "got") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") (global.set $got (memory.grow (i32.const 1)))))`
    assert.equal(start(await wizer(grow, { maxMemory: 65536 })).got.value, -1)
  })
})

describe('signal', () => {
  const aborted = async (promise, reason) => {
    const error = await promise.then(() => assert.fail('it went on'), (error) => error)
    assert.ok(error instanceof WizerError)
    assert.equal(error.name, 'AbortError')
    assert.equal(error.code, 'ERR_WIZER_ABORTED')
    assert.equal(error.cause, reason)
    assert.match(String(error), /^AbortError: the run was cancelled/)
  }

  it('aborted before the run', async () => {
    const reason = new Error('changed my mind')
    const signal = AbortSignal.abort(reason)
    await aborted(wizer(ENDLESS, { signal }), reason)
    assert.throws(() => wizerSync(ENDLESS, { signal }), { name: 'AbortError', code: 'ERR_WIZER_ABORTED', cause: reason })
  })

  for (const [what, guest] of Object.entries({ 'an endless loop': ENDLESS, 'a long sleep': sleeper })) {
    it(`aborted during ${what}`, async () => {
      const controller = new AbortController()
      const onProgress = ({ phase }) => phase === 'initialize' && setTimeout(() => controller.abort('reason'), 20)
      await aborted(wizer(guest, { allowWasi: true, signal: controller.signal, onProgress }), 'reason')
    })
  }

  it('aborted while the guest waits for standard input', async () => {
    const script = `
      const controller = new AbortController()
      const onProgress = ({ phase }) => phase === 'initialize' && setTimeout(() => controller.abort(), 50)
      wizer(${JSON.stringify(reader)}, { allowWasi: true, signal: controller.signal, onProgress })
        .catch((error) => console.log(error.code, error.cause.name))`
    const { stdout, status } = await runScript(script, { input: null })
    assert.equal(stdout.toString(), 'ERR_WIZER_ABORTED AbortError\n')
    assert.equal(status, 0)
  })

  it('aborted by an import, also of wizerSync', { timeout: 30_000 }, async () => {
    const guest = init('(call $f) (loop (br 0))', '(import "a" "b" (func $f))')
    const options = () => {
      const controller = new AbortController()
      // The timeout ends the run should the abortion not be noticed.
      return { signal: controller.signal, timeout: 2000, imports: { a: { b: () => controller.abort('reason') } } }
    }
    await aborted(wizer(guest, options()), 'reason')
    assert.throws(() => wizerSync(guest, options()), { code: 'ERR_WIZER_ABORTED', cause: 'reason' })
  })

  it('not aborted, or too late: nothing happens, and nobody listens any more', async () => {
    const controller = new AbortController()
    const listeners = new Set()
    const { signal } = controller
    const { addEventListener, removeEventListener } = signal
    signal.addEventListener = (type, listener, ...rest) => {
      listeners.add(listener)
      return addEventListener.call(signal, type, listener, ...rest)
    }
    signal.removeEventListener = (type, listener, ...rest) => {
      listeners.delete(listener)
      return removeEventListener.call(signal, type, listener, ...rest)
    }
    same(await wizer(ORIGINAL, { signal }))
    await rejects(wizer(init('unreachable'), { signal }), 'ERR_WIZER_TRAP')
    assert.equal(listeners.size, 0)
    controller.abort()
  })

  it('one signal for several runs', async () => {
    const controller = new AbortController()
    const runs = [ENDLESS, sleeper, ENDLESS].map((guest) => wizer(guest, { allowWasi: true, signal: controller.signal }))
    setTimeout(() => controller.abort('all'), 50)
    await Promise.all(runs.map((run) => aborted(run, 'all')))
  })
})

describe('what is given by mistake', () => {
  it('imports that are no object', async () => {
    for (const imports of [() => {}, async () => ({}), () => null]) {
      await rejects(wizer(ORIGINAL, { imports }), 'ERR_WIZER_OPTION', /`imports`/)
    }
    await rejects(wizer(ORIGINAL, { imports: { env: 'a text' } }), 'ERR_WIZER_OPTION', /`imports`/)
  })

  it('a callback whose promise is rejected', async () => {
    const reason = new Error('mine')
    const onProgress = ({ phase }) => (phase === 'initialize' ? Promise.reject(reason) : undefined)
    const error = await wizer(ENDLESS, { onProgress }).catch((error) => error)
    assert.equal(error.code, 'ERR_WIZER_CALLBACK')
    assert.equal(error.cause, reason)
  })

  it('one signal for many runs warns nobody', async () => {
    const { stderr, status } = await runScript(`
      const controller = new AbortController()
      const runs = Array.from({ length: 30 }, () => wizer(${JSON.stringify(ENDLESS)}, { signal: controller.signal }).catch(({ code }) => code))
      setTimeout(() => controller.abort(), 50)
      Promise.all(runs).then((codes) => process.exit(codes.every((code) => code === 'ERR_WIZER_ABORTED') ? 0 : 1))`)
    assert.equal(stderr.toString(), '')
    assert.equal(status, 0)
  })
})

describe('onProgress', () => {
  const PHASES = ['parse', 'instrument', 'compile', 'initialize', 'snapshot', 'rewrite', 'validate']

  it('tells the phases in their order', async () => {
    const seen = []
    const onProgress = (progress) => seen.push(progress)
    const { report } = await snapshot(ORIGINAL, { onProgress })
    assert.deepEqual(seen, PHASES.map((phase) => ({ phase })))
    assert.deepEqual(report.phases.map(({ phase }) => phase), PHASES)
    seen.length = 0
    wizerSync(ORIGINAL, { onProgress })
    assert.deepEqual(seen, PHASES.map((phase) => ({ phase })))
  })

  for (const at of PHASES) {
    it(`ends the run by throwing at ${at}`, async () => {
      const reason = { at }
      const onProgress = ({ phase }) => {
        if (phase === at) throw reason
      }
      const expected = { name: 'WizerError', code: 'ERR_WIZER_CALLBACK', cause: reason }
      await assert.rejects(wizer(ORIGINAL, { onProgress }), expected)
      assert.throws(() => wizerSync(ORIGINAL, { onProgress }), expected)
    })
  }

  it('ends an endless run by throwing', async () => {
    const onProgress = () => {
      throw undefined
    }
    await rejects(wizer(ENDLESS, { onProgress }), 'ERR_WIZER_CALLBACK')
    assert.throws(() => wizerSync(ENDLESS, { onProgress }), { code: 'ERR_WIZER_CALLBACK' })
  })
})

describe('the report', () => {
  it('tells phases, sizes and memories', async () => {
    const { wasm, report } = await snapshot(ORIGINAL)
    const { report: { memories } } = await snapshot(MEMORIES)
    assert.equal(report.inputBytes, ORIGINAL.length)
    assert.equal(report.outputBytes, wasm.length)
    for (const { ms } of report.phases) assert.ok(ms >= 0)
    assert.deepEqual(memories.map(({ index, pagesBefore, pagesAfter }) => [index, pagesBefore, pagesAfter]), [[0, 1, 1], [1, 1, 2]])
    for (const { segments, bytes } of memories) assert.ok(segments > 0 && bytes > 0)
    assert.deepEqual([report.hostCalls, report.assumedGlobals, report.droppedSections, report.warnings], [[], [], [], []])
    assert.deepEqual(report.baked, { random: 0, clock: 0, environment: 0 })
  })

  it('tells the size of text as that of the binary format', async () => {
    const size = async (module) => (await snapshot(module)).report.inputBytes
    assert.equal(await size(`;; a comment\n\n${EMPTY}`), await size(assemble(EMPTY)))
  })

  it('tells how far the code moved', async () => {
    const module = Buffer.from(assemble(init('(f64.store (i32.const 0) (f64.const 1234.5))', '(memory 1)')))
    const mark = Buffer.alloc(9, 0x44) // f64.const
    mark.writeDoubleLE(1234.5, 1)
    const { wasm, report } = await snapshot(module)
    assert.ok(module.includes(mark))
    assert.equal(wasm.indexOf(mark), module.indexOf(mark) + report.codeShift)
  })

  it('counts what the host was asked', async () => {
    const guest = `(module
      (import "b" "f" (func $f)) (import "a" "g" (func $g)) (import "c" "never" (func))
      ${wasi('random_get', 'clock_time_get', 'environ_sizes_get', 'environ_get', 'sched_yield')}
      (memory (export "memory") 1)
      (func (export "wizer.initialize")
        (call $f) (call $g) (call $f)
        (drop (call $random_get (i32.const 64) (i32.const 8)))
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 128)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 128)))
        (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
        (drop (call $environ_get (i32.const 256) (i32.const 512)))
        (drop (call $sched_yield))))`
    const { report } = await snapshot(guest, { allowWasi: true, env: { A: '1' }, imports: { a: { g() {} }, b: { f() {} } } })
    const wasiCalls = (name, calls) => ({ module: 'wasi_snapshot_preview1', name, calls, stub: false })
    assert.deepEqual(report.hostCalls, [
      { module: 'a', name: 'g', calls: 1, stub: false },
      { module: 'b', name: 'f', calls: 2, stub: false },
      wasiCalls('clock_time_get', 2),
      wasiCalls('environ_get', 1),
      wasiCalls('environ_sizes_get', 1),
      wasiCalls('random_get', 1),
      wasiCalls('sched_yield', 1),
    ])
    assert.deepEqual(report.baked, { random: 1, clock: 2, environment: 1 })
  })

  it('names custom sections that are no longer true, and keeps the others', async () => {
    const module = Buffer.concat([
      assemble(EMPTY),
      customSection('mine', [1, 2, 3]),
      customSection('reloc.CODE', [3, 0]),
      customSection('linking', [2]),
    ])
    const { wasm, report } = await snapshot(module)
    assert.deepEqual([...report.droppedSections].sort(), ['linking', 'reloc.CODE'])
    const kept = WebAssembly.Module.customSections(new WebAssembly.Module(wasm), 'mine')
    assert.deepEqual([...new Uint8Array(kept[0])], [1, 2, 3])
  })
})

describe('the Node process', () => {
  it('ticks on while a run works', async () => {
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    try {
      await wizer(init('(call $busy)', BUSY))
    } finally {
      clearInterval(timer)
    }
    assert.ok(ticks > 0)
  })

  it('gets the turn between two calls of imports', async () => {
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    try {
      // Ends only if the timer fires while it runs.
      await wizer(init('(loop $wait (br_if $wait (i32.lt_s (call $ticks) (i32.const 5))))', '(import "test" "ticks" (func $ticks (result i32)))'), {
        imports: { test: { ticks: () => ticks } },
      })
    } finally {
      clearInterval(timer)
    }
  })

  it('runs several at once', async () => {
    // Each waits for the other to have begun.
    const guest = init('(call $begin) (loop $wait (br_if $wait (i32.lt_s (call $begun) (i32.const 2))))',
      '(import "test" "begin" (func $begin)) (import "test" "begun" (func $begun (result i32)))')
    let count = 0
    const imports = { test: { begin: () => void count++, begun: () => count } }
    await Promise.all([wizer(guest, { imports }), wizer(guest, { imports })])
    assert.equal(count, 2)
  })

  it('runs many at once, each with its own state', async () => {
    const module = (n) => `(module (global $n (export "n") (mut i32) (i32.const 0))
      (func (export "wizer.initialize") ${n % 3 === 2 ? 'unreachable' : `(global.set $n (i32.const ${n}))`}))`
    const numbers = Array.from({ length: 24 }, (_, n) => n)
    const settled = await Promise.allSettled(numbers.map((n) => wizer(module(n))))
    for (const [n, { status, value, reason }] of settled.entries()) {
      if (n % 3 === 2) assert.equal(reason.code, 'ERR_WIZER_TRAP')
      else assert.equal(status === 'fulfilled' && start(value).n.value, n)
    }
  })

  it('runs wizerSync while wizer runs', async () => {
    const promise = wizer(init('(call $busy)', BUSY))
    for (let i = 0; i < 5; i++) same(wizerSync(ORIGINAL))
    await promise
  })

  it('ends by itself after the last run', async () => {
    const { stdout, status } = await runScript(`
      const imports = { a: { b() {} } }
      const wat = '(module (import "a" "b" (func $f)) (func (export "wizer.initialize") (call $f)))'
      wizer(wat, { imports, signal: new AbortController().signal, onProgress() {}, timeout: 600_000 }).then((wasm) => console.log(wasm.length > 8))`)
    assert.equal(stdout.toString(), 'true\n')
    assert.equal(status, 0)
  })

  const WORKER = `
    const { parentPort, workerData } = require('node:worker_threads')
    const { wizer, wizerSync } = require('@jakechampion/wizer')
    `
  const worker = (script, workerData) => new Worker(WORKER + script, { eval: true, workerData })
  const message = (worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))

  it('may load it in several workers', async () => {
    const script = `
      const imports = (host) => ({ test: { get: () => host.memory().length } })
      ;(async () => parentPort.postMessage([await wizer(workerData, { imports }), wizerSync(workerData, { imports })]))()`
    const guest = `(module (import "test" "get" (func $get (result i32))) (memory (export "memory") 2)
      (global $n (export "n") (mut i32) (i32.const 0)) (func (export "wizer.initialize") (global.set $n (call $get))))`
    for (const outputs of await Promise.all(Array.from({ length: 4 }, () => message(worker(script, guest))))) {
      for (const output of outputs) assert.equal(start(output).n.value, 131072)
    }
    same(await wizer(ORIGINAL))
  })

  it('survives the end of a worker during a run', async () => {
    for (const [what, guest, imports] of [
      ['busy', init('(call $busy)', BUSY), '{}'],
      ['calling imports', init('(loop $again (br_if $again (call $f)))', '(import "test" "f" (func $f (result i32)))'), '{ test: { f: () => 1 } }'],
      ['inside an import', init('(call $f)', '(import "test" "f" (func $f))'), '{ test: { f() { for (;;); } } }'],
    ]) {
      const ended = worker(`
        wizer(workerData, { imports: ${imports}, onProgress({ phase }) { if (phase === 'initialize') parentPort.postMessage(phase) } })`, guest)
      assert.equal(await message(ended), 'initialize', what)
      await ended.terminate()
    }
    same(await wizer(ORIGINAL))
  })

  it('survives the end of a worker during wizerSync', async () => {
    const guest = init('(loop $again (br_if $again (call $f)))', '(import "test" "f" (func $f (result i32)))')
    const ended = worker(`parentPort.postMessage('begins'); wizerSync(workerData, { imports: { test: { f: () => 1 } } })`, guest)
    await message(ended)
    await ended.terminate()
    same(await wizer(ORIGINAL))
  })

  const unending = {
    'a process that is asked to exit': `wizer(guest, options).catch(() => {}); setTimeout(() => process.exit(3), 50)`,
    'a process with an uncaught exception': `wizer(guest, options).catch(() => {}); setTimeout(() => { throw 3 }, 50)`,
    'a worker that is ended': `
      const { Worker } = require('node:worker_threads')
      const script = \`${WORKER}
        wizer(workerData.guest, workerData.options)
        setTimeout(() => parentPort.postMessage('begun'), 50)\`
      const worker = new Worker(script, { eval: true, workerData: { guest, options } })
      worker.once('message', () => worker.terminate().then(() => process.exit(3)))`,
    'a worker that is ended in wizerSync': `
      const { Worker } = require('node:worker_threads')
      const script = \`${WORKER}
        parentPort.postMessage('begins')
        wizerSync(workerData.guest, workerData.options)\`
      const worker = new Worker(script, { eval: true, workerData: { guest, options } })
      worker.once('message', () => setTimeout(() => worker.terminate().then(() => process.exit(3)), 50))`,
  }
  describe('is not held by a run that does not end', { concurrency: true }, () => {
    for (const [what, script] of Object.entries(unending)) {
      for (const [when, guest] of Object.entries({ 'an endless loop': ENDLESS, 'a wait for standard input': reader })) {
        // That wait is Node's thread's own.
        if (what.includes('wizerSync') && guest !== ENDLESS) continue
        it(`${when}: ${what}`, async () => {
          const command = scriptCommand(`const guest = ${JSON.stringify(guest)}, options = { allowWasi: true }\n${script}`)
          // The limit only ends a process that hangs.
          const { status, signal } = await run(command, { input: null, timeout: 10_000, killSignal: 'SIGKILL' })
          assert.equal(signal, null, 'it had to be killed')
          assert.notEqual(status, 0)
        })
      }
    }
  })
})

describe('an exit of the process while a run calls imports', { concurrency: true }, () => {
  const guest = init('(loop $again (call $f) (br $again))', '(import "test" "f" (func $f)) (func (export "f") (call $f))')
  const exits = {
    'in the import': '{ test: { f() { process.exit(3) } } }',
    'in an import within an import': '(host, depth = 0) => ({ test: { f() { if (depth++ < 5) host.call("f"); else process.exit(3) } } })',
    'after an exception that nobody catches': '{ test: { f() { setImmediate(() => { throw new Error("elsewhere") }) } } }',
    'from a timer': '(setTimeout(() => process.exit(3), 50), { test: { f() {} } })',
    'from the handler of a signal':
      '(process.on("SIGTERM", () => process.exit(3)), setTimeout(() => process.kill(process.pid), 50), { test: { f() {} } })',
  }
  for (const [where, imports] of Object.entries(exits)) {
    for (const way of ['wizer', 'wizerSync']) {
      // A synchronous run leaves no time for what comes from elsewhere.
      if (way === 'wizerSync' && !where.startsWith('in ')) continue
      if (process.platform === 'win32' && where.includes('signal')) continue
      // Again and again, as it depends on which of the threads is first.
      for (let round = 1; round <= 5; round++) {
        it(`${where} (${way}, ${round})`, async () => {
          const script = `Promise.resolve(${way}(${JSON.stringify(guest)}, { imports: ${imports} })).catch(() => {})`
          const { status, signal } = await run(scriptCommand(script), { input: null, timeout: 20_000, killSignal: 'SIGKILL' })
          assert.equal(signal, null, 'it had to be killed')
          assert.equal(status, where.includes('exception') ? 1 : 3)
        })
      }
    }
  }
})

describe('traps of V8 and of a run in one process', () => {
  const TRAPS = `(module
    (memory (export "memory") 1)
    (table 1 funcref)
    (type $t (func))
    (func (export "outOfBounds") (drop (i32.load (i32.const 65533))))
    (func (export "farOutOfBounds") (drop (i32.load offset=4294967295 (i32.const -1))))
    (func (export "unreachable") unreachable)
    (func (export "divide") (drop (i32.div_u (i32.const 1) (i32.load (i32.const 0)))))
    (func (export "indirect") (call_indirect (type $t) (i32.const 0)))
    (func $deep (export "recursion") (call $deep)))`
  const NAMES = ['outOfBounds', 'farOutOfBounds', 'unreachable', 'divide', 'indirect', 'recursion']
  const module = assemble(TRAPS)
  const inV8 = (name) => {
    const trap = name === 'recursion' ? RangeError : WebAssembly.RuntimeError
    const exports = start(module)
    for (let i = 0; i < 3; i++) assert.throws(() => exports[name](), trap)
  }

  it('before, between and after', async () => {
    for (const name of NAMES) inV8(name)
    for (const engine of ['auto', 'interpreter', 'baseline', 'optimizing']) {
      for (const initFunc of NAMES) {
        await rejects(wizer(module, { initFunc, engine }), 'ERR_WIZER_TRAP')
        inV8(initFunc)
        assert.throws(() => wizerSync(module, { initFunc, engine }), { code: 'ERR_WIZER_TRAP' })
      }
    }
    for (const name of NAMES) inV8(name)
  })

  it('one within the other', async () => {
    const guest = (name) => TRAPS.replace('(memory', '(import "test" "f" (func $f))\n(memory')
      .replace('(func (export "unreachable") unreachable)', `(func (export "unreachable") unreachable) (func (export "both") (call $f) (call $${name}))`)
      .replace(`(func (export "${name}")`, `(func $${name} (export "${name}")`)
    for (const name of NAMES.filter((name) => name !== 'recursion')) {
      const imports = { test: { f: () => inV8(name) } }
      await rejects(wizer(guest(name), { initFunc: 'both', imports }), 'ERR_WIZER_TRAP')
      assert.throws(() => wizerSync(guest(name), { initFunc: 'both', imports }), { code: 'ERR_WIZER_TRAP' })
    }
  })

  it('at the same time', async () => {
    const runs = Array.from({ length: 12 }, (_, i) => rejects(wizer(module, { initFunc: NAMES[i % 6] }), 'ERR_WIZER_TRAP'))
    let over = false
    const all = Promise.all(runs).finally(() => (over = true))
    while (!over) {
      for (const name of NAMES) inV8(name)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await all
  })

  it('in workers', async () => {
    const script = `
      const { parentPort, workerData: { module, names } } = require('node:worker_threads')
      const { wizer } = require('@jakechampion/wizer')
      const inV8 = (name) => { try { new WebAssembly.Instance(new WebAssembly.Module(module)).exports[name]() } catch (error) { return error.name } }
      ;(async () => {
        const seen = []
        for (const initFunc of names) seen.push(inV8(initFunc), await wizer(module, { initFunc }).catch(({ code }) => code), inV8(initFunc))
        parentPort.postMessage(seen)
      })()`
    const expected = NAMES.flatMap((name) => {
      const inV8 = name === 'recursion' ? 'RangeError' : 'RuntimeError'
      return [inV8, 'ERR_WIZER_TRAP', inV8]
    })
    const seen = await Promise.all(
      [1, 2].map(
        () =>
          new Promise((resolve, reject) => {
            new Worker(script, { eval: true, workerData: { module, names: NAMES } }).once('message', resolve).once('error', reject)
          }),
      ),
    )
    assert.deepEqual(seen, [expected, expected])
    for (const name of NAMES) inV8(name)
  })
})
