// The command line, behind both of its doors: Node's launcher and the native program. What the JavaScript API has as
// well (options, errors, state) is tested there; here it is how to ask for it, and what files and screens look like.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { snapshot, wizerSync } from '@jakechampion/wizer'
import { launch, programs, root, run, temporaryDirectory } from './helpers/run.mjs'
import { assertInitialized, exportNames, start } from './helpers/v8.mjs'
import { print, wasi } from './helpers/wasi.mjs'
import { assemble } from './helpers/wat.mjs'

const windows = process.platform === 'win32' && 'this is about files as Unix has them'
const isRoot = process.getuid?.() === 0

const init = (body, ...fields) => `(module ${fields.join('\n')} (func (export "wizer.initialize") ${body}))`

const GUEST = `(module
  (memory (export "memory") 1)
  (global $n (export "n") (mut i32) (i32.const 0))
  (data (i32.const 32) "initial")
  (func (export "wizer.initialize")
    (global.set $n (i32.const 1))
    (i32.store8 (i32.const 32) (i32.const 73)))
  (func (export "setup") (global.set $n (i32.const 2)))
  (func (export "resume") (result i32) (i32.const 4))
  (func (export "_start") (result i32) (i32.const 5)))`
const ORIGINAL = assemble(GUEST)

const TRAP = `(module $app
  (func $inner unreachable)
  (func $main (export "wizer.initialize") (call $inner)))`

/** The escape sequences of terminals begin with it. */
const ESCAPE = '\x1b'

// ----- files -----

const directory = temporaryDirectory()
let files = 0

/** A new path in a new directory, with this file there if there are contents. */
function file(name, contents) {
  const parent = join(directory, `${files++}`)
  mkdirSync(parent)
  const path = join(parent, name)
  if (contents !== undefined) writeFileSync(path, contents)
  return path
}

const input = file('input.wasm', ORIGINAL)
const text = file('input.wat', GUEST)
const trap = file('trap.wat', TRAP)

/** What lies beside a file. */
const beside = (path) => readdirSync(join(path, '..')).filter((name) => name !== basename(path))

for (const { name, command } of programs) {
  describe(name, () => {
    /** Runs the program to its end, with arguments and how it is to be started. */
    const wizer = (args, options) => run([...command, ...args], options)

    /** Runs the program, which is to go well and to say nothing, and gives the output file. */
    async function initialize(...args) {
      const output = file('output.wasm')
      const { status, stdout, stderr } = await wizer([...args, '-o', output])
      assert.deepEqual({ status, stdout: stdout.toString(), stderr }, { status: 0, stdout: '', stderr: '' })
      return readFileSync(output)
    }

    /** Runs the program, which is to fail, and gives what it says. */
    async function fails(args, options) {
      const { status, stdout, stderr } = await wizer(args, { env: { ...process.env, RUST_BACKTRACE: '1' }, ...options })
      assert.equal(status, 1, `${args.join(' ')}: ${stderr}`)
      assert.equal(stdout.length, 0)
      assert.match(stderr, /^Error: /)
      assert.doesNotMatch(stderr, /panicked|RUST_BACKTRACE|stack backtrace|\.rs:\d/i)
      assert.ok(!stderr.includes(ESCAPE))
      return stderr
    }

    describe('input and output', { concurrency: true }, () => {
      it('from file to file', async () => {
        assertInitialized(await initialize(input), ORIGINAL)
      })

      it('from standard input to standard output', async () => {
        for (const module of [Buffer.from(ORIGINAL), GUEST]) {
          const { status, stdout, stderr } = await wizer([], { input: module })
          assert.equal(stderr, '')
          assert.equal(status, 0)
          assertInitialized(stdout, ORIGINAL)
        }
      })

      it('from file to standard output, and from standard input to file', async () => {
        const { stdout } = await wizer([text])
        const output = file('output.wasm')
        await wizer(['-o', output], { input: Buffer.from(ORIGINAL) })
        assertInitialized(stdout, ORIGINAL)
        assertInitialized(readFileSync(output), ORIGINAL)
      })

      for (const spell of [(path) => ['-o', path], (path) => [`-o=${path}`], (path) => [`-o${path}`]]) {
        it(spell('PATH').join(' '), async () => {
          const output = file('output.wasm')
          const { status } = await wizer([...spell(output), input])
          assert.equal(status, 0)
          assertInitialized(readFileSync(output), ORIGINAL)
        })
      }

      it('a path relative to the directory it runs in', async () => {
        const output = file('output.wasm')
        const { status } = await wizer(['-o', 'output.wasm', input], { cwd: join(output, '..') })
        assert.equal(status, 0)
        assertInitialized(readFileSync(output), ORIGINAL)
      })

      it('a file whose name begins like an option', async () => {
        const dashed = file('--allow-wasi', ORIGINAL)
        const { status, stdout } = await wizer(['--', '--allow-wasi'], { cwd: join(dashed, '..') })
        assert.equal(status, 0)
        assertInitialized(stdout, ORIGINAL)
      })

      it('- for the standard streams', async () => {
        const { status, stdout, stderr } = await wizer(['-', '-o', '-'], { input: GUEST })
        assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
        assertInitialized(stdout, ORIGINAL)

        const output = file('output.wasm')
        const reported = await wizer([input, '-o', output, '--report', '-'])
        assert.equal(reported.status, 0)
        assert.equal(JSON.parse(reported.stdout).outputBytes, readFileSync(output).length)
        assertInitialized(readFileSync(output), ORIGINAL)
        const failed = await wizer([trap, '-o', output, '--report=-'])
        assert.equal(failed.status, 1)
        assert.equal(JSON.parse(failed.stdout).error.code, 'ERR_WIZER_TRAP')

        for (const to of [[], ['-o', '-']]) {
          const both = await wizer([input, ...to, '--report', '-'])
          assert.equal(both.status, 1)
          assert.match(both.stderr, /the module and the report cannot both go to standard output/)
        }
      })

      it('the same bytes as from the API', async () => {
        assert.deepEqual(await initialize(input), wizerSync(ORIGINAL))
      })
    })

    describe('options with a value', { concurrency: true }, () => {
      for (const spelling of [['-f', 'setup'], ['-f=setup'], ['-fsetup'], ['--init-func', 'setup'], ['--init-func=setup']]) {
        it(spelling.join(' '), async () => {
          assertInitialized(await initialize(...spelling, input), ORIGINAL, { init: 'setup' })
        })
      }

      const renames = [
        ['-r', '_start=resume'],
        ['-r', ' _start=resume'],
        ['-r', ' _start = resume '],
        ['-r=_start=resume'],
        ['-r_start=resume'],
        ['--rename-func', '_start=resume'],
        ['--rename-func=_start=resume'],
        ['--func-rename', '_start=resume'],
        ['--func-rename=_start=resume'],
      ]
      for (const spelling of renames) {
        it(JSON.stringify(spelling.join(' ')), async () => {
          const output = await initialize(...spelling, input)
          assert.deepEqual(exportNames(output).sort(), ['_start', 'memory', 'n', 'setup'])
          assert.equal(start(output)._start(), 4)
        })
      }

      it('several renames', async () => {
        const output = await initialize(input, '-r', 'a=resume', '--func-rename', 'b=setup', '--rename-func=c=n')
        assert.deepEqual(exportNames(output).sort(), ['_start', 'a', 'b', 'c', 'memory'])
      })

      it('a rename of nothing is a warning', async () => {
        const output = file('output.wasm')
        const { status, stderr } = await wizer([input, '-o', output, '-r', 'a=nothing'])
        assert.equal(status, 0)
        assert.match(stderr, /^warning: .*`nothing`.*\n$/)
        assertInitialized(readFileSync(output), ORIGINAL)
      })

      it('--engine, --timeout, --max-memory', async () => {
        for (const engine of ['auto', 'baseline', 'optimizing']) assertInitialized(await initialize(input, '--engine', engine), ORIGINAL)
        assertInitialized(await initialize(input, '--timeout=600000', '--max-memory=65536'), ORIGINAL)
        assert.match(await fails([file('a.wat', init('(loop (br 0))')), '--timeout', '20']), /20 ms/)
        assert.match(await fails([input, '--max-memory', '65535']), /65536[^]*65535/)
      })

      it('--preload', async () => {
        const lib = file('lib.wat', '(module (func (export "f") (result i32) (i32.const 7)))')
        const guest = file('a.wat', `(module (import "lib" "f" (func $f (result i32))) (global $n (export "n") (mut i32) (i32.const 0))
          (func (export "wizer.initialize") (global.set $n (call $f))))`)
        const output = await initialize(guest, '--preload', `lib=${lib}`)
        assert.equal(start(output).n.value, 7)
        assert.match(await fails([guest, '--preload', `lib=${lib}.missing`]), /^Error: failed to open the preloaded module `.*lib\.wat\.missing`\n/)
      })
    })

    describe('options of WASI', { concurrency: true }, () => {
      const strings = (memory) => Buffer.from(memory.buffer).toString('utf8').split('\0').filter(Boolean)

      it('--arg, --env', async () => {
        const guest = file('a.wat', `(module ${wasi('args_get', 'environ_get')} (memory (export "memory") 1)
          (func (export "wizer.initialize")
            (drop (call $args_get (i32.const 0) (i32.const 4096)))
            (drop (call $environ_get (i32.const 0) (i32.const 8192)))
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 4096))))`)
        const output = await initialize(guest, '--allow-wasi', '--arg', 'program', '--arg', '--flag', '--arg=x y', '--env', 'A=1', '--env=B=ü=ü')
        assert.deepEqual(strings(start(output).memory), ['program', '--flag', 'x y', 'A=1', 'B=ü=ü'])
      })

      // Reads from the file `f` of the first directory, then makes a file `new` there, and keeps the error number.
      const guest = file('files.wat', `(module ${wasi('path_open', 'fd_read', 'fd_prestat_dir_name', 'fd_close')}
        (memory (export "memory") 1)
        (global $made (export "made") (mut i32) (i32.const -1))
        (data (i32.const 0) "fnew")
        (func $open (param $at i32) (param $len i32) (param $flags i32) (param $rights i64) (result i32)
          (call $path_open (i32.const 3) (i32.const 0) (local.get $at) (local.get $len) (local.get $flags)
            (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 16)))
        (func (export "wizer.initialize")
          (if (call $fd_prestat_dir_name (i32.const 3) (i32.const 2048) (global.get $length)) (then unreachable))
          (if (call $open (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 2)) (then unreachable))
          (i32.store (i32.const 24) (i32.const 1024))
          (i32.store (i32.const 28) (i32.const 64))
          (drop (call $fd_read (i32.load (i32.const 16)) (i32.const 24) (i32.const 1) (i32.const 32)))
          (drop (call $fd_close (i32.load (i32.const 16))))
          (global.set $made (call $open (i32.const 1) (i32.const 3) (i32.const 1) (i64.const 64)))
          (if (i32.eqz (global.get $made)) (then (drop (call $fd_close (i32.load (i32.const 16))))))))`)
      /** The guest for a directory of this name. */
      const guestFor = (name) => file('files.wat', readFileSync(guest, 'utf8').replace('(global.get $length)', `(i32.const ${name.length})`))
      const seen = (output) => {
        const { memory, made } = start(output)
        const bytes = Buffer.from(memory.buffer)
        const string = (at) => bytes.toString('utf8', at, bytes.indexOf(0, at))
        return { contents: string(1024), guest: string(2048), made: made.value }
      }

      it('--dir', async () => {
        const host = file('f', 'contents')
        const output = file('output.wasm')
        const { status, stderr } = await wizer([guestFor('.'), '--allow-wasi', '--dir', '.', '-o', output], { cwd: join(host, '..') })
        assert.equal(status, 0, stderr)
        assert.deepEqual(seen(readFileSync(output)), { contents: 'contents', guest: '.', made: 0 })
        assert.deepEqual(beside(host), ['new'])
      })

      it('--dir HOST::GUEST, as in wasmtime', async () => {
        const host = join(file('f', 'contents'), '..')
        const output = await initialize(guestFor('/data'), '--allow-wasi', '--dir', `${host}::/data`)
        assert.deepEqual(seen(output), { contents: 'contents', guest: '/data', made: 0 })

        // A directory that has this name is meant itself.
        const inside = join(file('f', 'contents'), '..')
        mkdirSync(join(inside, 'a::b'))
        writeFileSync(join(inside, 'a::b', 'f'), 'named so')
        const named = join(inside, 'output.wasm')
        const { status, stderr } = await wizer([guestFor('a::b'), '--allow-wasi', '--dir', 'a::b', '-o', named], { cwd: inside })
        assert.equal(status, 0, stderr)
        assert.equal(seen(readFileSync(named)).contents, 'named so')
      })

      it('--dir the wrong way round', async () => {
        const host = join(file('f', 'contents'), '..')
        for (const [given, expected] of [
          [`/no such::${host}`, /--dir .*::\/no such` has the host's directory first, and `--mapdir/],
          ['/no such::/neither', /`\/no such` is no directory/],
          ['::/data', /must have the form `host` or `host::guest`/],
          [`${host}::`, /must have the form `host` or `host::guest`/],
        ]) {
          const { status, stderr } = await wizer([input, '--allow-wasi', '--dir', given])
          assert.equal(status, 2, stderr)
          assert.match(stderr, expected)
        }
      })

      it('--mapdir', async () => {
        const host = file('f', 'contents')
        const output = await initialize(guestFor('/data'), '--allow-wasi', '--mapdir', `/data::${join(host, '..')}`)
        assert.deepEqual(seen(output), { contents: 'contents', guest: '/data', made: 0 })
        assert.deepEqual(beside(host), ['new'])
      })

      it('--mapdir-readonly', async () => {
        const host = file('f', 'contents')
        const output = await initialize(guestFor('/data'), '--allow-wasi', `--mapdir-readonly=/data::${join(host, '..')}`)
        const { made, ...others } = seen(output)
        assert.deepEqual(others, { contents: 'contents', guest: '/data' })
        assert.notEqual(made, 0)
        assert.deepEqual(beside(host), [])
      })

      it('a directory that does not exist', async () => {
        const missing = join(directory, 'missing')
        for (const option of [`--dir=${missing}`, `--mapdir=/::${missing}`, `--mapdir-readonly=/::${missing}`]) {
          assert.ok((await fails([input, '--allow-wasi', option])).startsWith(`Error: failed to open the directory \`${missing}\`\n`))
        }
      })
    })

    describe('booleans', { concurrency: true }, () => {
      const says = `(module ${wasi('fd_write')} (memory (export "memory") 1) (data (i32.const 16) "said") ${print}
        (func (export "wizer.initialize") (call $print (i32.const 1) (i32.const 16) (i32.const 4))))`
      const asksEnvironment = `(module ${wasi('environ_sizes_get')} (memory (export "memory") 1)
        (func (export "wizer.initialize") (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))))`
      const changing = `(module (import "lib" "f" (func $f)) (func (export "wizer.initialize") (call $f)))`
      const lib = file('lib.wat', '(module (global $n (mut i32) (i32.const 0)) (func (export "f") (global.set $n (i32.const 1))))')
      const worked = ({ status }) => status === 0

      // Each with the value it has without being named, other options, an input, and how to see from what happened
      // whether it is on.
      const BOOLEANS = {
        'keep-init-func': [false, [], GUEST, ({ output }) => exportNames(output).includes('wizer.initialize')],
        'allow-wasi': [false, [], asksEnvironment, worked],
        'inherit-stdio': [true, ['--allow-wasi'], says, ({ stdout }) => stdout.toString() === 'said'],
        'inherit-env': [false, ['--allow-wasi'], asksEnvironment, ({ output }) => new Uint32Array(start(output).memory.buffer)[0] > 0],
        'allow-preload-changes': [false, ['--preload', `lib=${lib}`], changing, worked],
        'wasm-multi-memory': [true, [], init('', '(memory 1) (memory 1)'), worked],
        'wasm-multi-value': [true, [], init('', '(func (result i32 i32) (i32.const 1) (i32.const 2))'), worked],
        'wasm-bulk-memory': [true, [], init('(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))', '(memory 1)'), worked],
        'wasm-simd': [true, [], init('(drop (v128.const i64x2 1 2))'), worked],
        'wasm-relaxed-simd': [true, [], init('(drop (i8x16.relaxed_swizzle (v128.const i64x2 1 2) (v128.const i64x2 1 2)))'), worked],
        'wasm-reference-types': [true, [], init('(drop (ref.null extern))'), worked],
        // Which of the two it is cannot be seen on every machine.
        'relaxed-simd-deterministic': [undefined, [], GUEST, worked],
      }
      for (const [option, [without, others, wat, isOn]] of Object.entries(BOOLEANS)) {
        it(`--${option}`, async () => {
          const guest = file(`${option}.wat`, wat)
          const on = async (...spelling) => {
            const output = file('output.wasm')
            // The input follows the option, which must not take it for a value.
            const result = await wizer([...others, '-o', output, ...spelling, guest])
            assert.notEqual(result.status, 2, `${spelling.join(' ')}: ${result.stderr}`)
            if (result.status === 0) result.output = readFileSync(output)
            return isOn(result)
          }
          const flag = `--${option}`
          const found = {
            'not named': await on(),
            [flag]: await on(flag),
            [`${flag}=true`]: await on(`${flag}=true`),
            [`${flag} true`]: await on(flag, 'true'),
            [`${flag}=false`]: await on(`${flag}=false`),
            [`${flag} false`]: await on(flag, 'false'),
          }
          const off = without === undefined
          assert.deepEqual(found, {
            'not named': without ?? true,
            [flag]: true,
            [`${flag}=true`]: true,
            [`${flag} true`]: true,
            [`${flag}=false`]: off,
            [`${flag} false`]: off,
          })
        })
      }

      it('--keep-init-func=empty', async () => {
        const exports = start(await initialize('--keep-init-func=empty', input))
        const before = exports._start()
        exports['wizer.initialize']()
        assert.equal(exports._start(), before)
      })

      it('with a value that is none', async () => {
        const { status, stderr } = await wizer(['--keep-init-func=maybe', input])
        assert.equal(status, 2)
        assert.match(stderr, /maybe/)
      })

      it('as the tools of @fastly/js-compute pass them', async () => {
        const output = await initialize('--allow-wasi', '--dir=.', '--inherit-env=true', '-r', '_start=resume', '--wasm-bulk-memory=true', input)
        assert.equal(start(output)._start(), 4)
      })
    })

    describe('errors', { concurrency: true }, () => {
      it('a trap has the shape that tools look for', async () => {
        const stderr = await fails([trap, '-o', file('output.wasm')])
        const lines = stderr.split('\n')
        assert.deepEqual(lines.slice(0, 4), [
          'Error: the `wizer.initialize` function trapped',
          '',
          'Caused by:',
          '    0: error while executing at wasm backtrace:',
        ])
        assert.match(lines[4], /^ {11}0: +0x[0-9a-f]+ - app!inner$/)
        assert.match(lines[5], /^ {11}1: +0x[0-9a-f]+ - app!main$/)
        assert.match(lines[6], /^ {4}1: wasm trap: wasm `unreachable` instruction executed$/)
        assert.deepEqual(lines.slice(7), [''])
      })

      it('a trap of another function has its name', async () => {
        const start = file('a.wat', '(module (func $f unreachable) (start $f) (func (export "wizer.initialize")))')
        assert.match(await fails([start]), /^Error: the `start` function trapped\n\nCaused by:\n {4}0: error while executing at wasm backtrace:\n/)
        const setup = file('a.wat', '(module (func (export "setup") unreachable))')
        assert.match(await fails([setup, '-f', 'setup']), /^Error: the `setup` function trapped\n/)
      })

      for (const [what, args] of [
        ['the output', (place) => ['-o', place('x.wasm'), '--report', place('./x.wasm')]],
        ['the input', (place) => ['-o', place('x.wasm'), '--report', place('ok.wat')]],
        ['a preloaded module', (place) => ['-o', place('x.wasm'), '--preload', `p=${place('p.wat')}`, '--report', place('p.wat')]],
        ['what it cannot write to', (place) => ['-o', place('x.wasm'), '--report', place('no/such/directory')]],
      ]) {
        it(`the report over ${what}: nothing is lost`, async () => {
          const given = { 'ok.wat': '(module (func (export "wizer.initialize")))', 'p.wat': '(module)', 'x.wasm': 'old' }
          const places = Object.fromEntries(Object.entries(given).map(([name, text]) => [name, file(name, text)]))
          const place = (name) => places[name] ?? `${dirname(places['x.wasm'])}/${name}`
          await fails([place('ok.wat'), ...args(place)])
          for (const [name, text] of Object.entries(given)) assert.equal(readFileSync(places[name], 'utf8'), text)
        })
      }

      for (const status of [0, 1, 3, 42, 200]) {
        it(`proc_exit(${status})`, async () => {
          const guest = file('a.wat', `(module ${wasi('proc_exit')} (memory (export "memory") 1)
            (func (export "wizer.initialize") (call $proc_exit (i32.const ${status}))))`)
          const stderr = await fails([guest, '--allow-wasi'])
          assert.match(stderr, /^Error: the `wizer.initialize` function trapped\n\nCaused by:\n {4}0: error while executing at wasm backtrace:\n/)
          const hint = status === 0 ? '; --allow-exit [^\n]*' : ''
          assert.match(stderr, new RegExp(`\n    1: Exited with i32 exit status ${status}${hint}\n$`))
        })
      }

      it('an import that is not allowed, or that nobody provides', async () => {
        const guest = file('a.wat', init('(drop (call $sched_yield))', wasi('sched_yield')))
        assert.match(await fails([guest]), /wasi_snapshot_preview1::sched_yield[^]*--allow-wasi/)
        assert.match(await fails([file('a.wat', init('(call $f)', '(import "a" "b" (func $f))'))]), /`a::b`/)
      })

      it('an input that does not exist, or is a directory', async () => {
        const missing = join(directory, 'missing.wasm')
        assert.ok((await fails([missing])).startsWith(`Error: failed to open the input file \`${missing}\`\n\nCaused by:\n    `))
        assert.ok((await fails([directory])).includes(directory))
      })

      it('an input that is no module', async () => {
        assert.match(await fails([file('a.wasm', 'no module')]), /not a valid WebAssembly module/)
        assert.match(await fails([file('a.wasm', '')]), /empty/)
        assert.match(await fails([file('a.wasm', ORIGINAL.subarray(0, 40))]), /offset 0x/)
        assert.match(await fails([file('a.wat', '(module (oops))')]), /not valid WebAssembly text[^]*1:10/)
        assert.match(await fails([file('a.wasm', Buffer.from('\0asm\x0d\0\x01\0', 'latin1'))]), /component/)
        assert.match(await fails([], { input: '' }), /empty/)
      })

      it('an initialization function that is missing or of another type', async () => {
        assert.match(await fails([input, '-f', 'nothing']), /`nothing`[^]*--init-func[^]*`setup`/)
        assert.match(await fails([input, '-f', 'resume']), /`resume`/)
      })

      it('renames that share a name', async () => {
        assert.match(await fails([input, '-r', 'a=setup', '-r', 'a=resume']), /destination `a`/)
        assert.match(await fails([input, '-r', 'a=setup', '-r', 'b=setup']), /source `setup`/)
      })

      it('options that make no sense have a status of their own', async () => {
        const cases = [
          ['--nothing'], ['-r', 'a'], ['-r', 'a=b=c'], ['-r', '=b'], ['-r', 'a='], ['--mapdir', 'a'], ['--preload', 'a'], ['--env', 'a'],
          ['--engine', 'none'], ['--timeout', 'soon'], ['--max-memory', '-1'], ['-o'], [input],
        ]
        for (const args of cases) {
          const output = file('output.wasm')
          const { status, stdout, stderr } = await wizer([input, '-o', output, ...args])
          assert.equal(status, 2, args.join(' '))
          assert.equal(stdout.length, 0)
          assert.match(stderr, /^error: /)
          assert.ok(!existsSync(output))
        }
      })

      it('a reader of the output that goes away', async () => {
        const module = file('a.wat', init('(memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304))', '(memory 64)'))
        const child = launch([...command, module], { unread: 'stdout' })
        child.stdout.destroy()
        const { status, stderr } = await child.done
        assert.equal(status, 1)
        assert.match(stderr, /^Error: failed to write to `standard output`/)
      })
    })

    describe('the output file', { concurrency: true }, () => {
      const failures = {
        'a trap': [trap],
        'an invalid module': [file('a.wat', init('(i32.const 1)'))],
        'no module': [join(directory, 'missing')],
        'options that make no sense': [input, '--nothing'],
      }
      for (const [what, args] of Object.entries(failures)) {
        it(`stays as it was: ${what}`, async () => {
          const output = file('output.wasm', 'precious')
          utimesSync(output, 1000, 1000)
          assert.notEqual((await wizer([...args, '-o', output])).status, 0)
          assert.equal(readFileSync(output, 'utf8'), 'precious')
          assert.equal(statSync(output).mtimeMs, 1_000_000)
          assert.deepEqual(beside(output), [])
        })

        it(`does not come to be: ${what}`, async () => {
          const output = file('output.wasm')
          assert.notEqual((await wizer([...args, '-o', output])).status, 0)
          assert.deepEqual(readdirSync(join(output, '..')), [])
        })
      }

      it('is replaced, with nothing beside it', async () => {
        const output = file('output.wasm', Buffer.alloc(100_000, 1))
        assert.equal((await wizer([input, '-o', output])).status, 0)
        assertInitialized(readFileSync(output), ORIGINAL)
        assert.deepEqual(beside(output), [])
      })

      it('may be the input', async () => {
        const both = file('both.wasm', ORIGINAL)
        assert.equal((await wizer([both, '-o', both])).status, 0)
        assertInitialized(readFileSync(both), ORIGINAL)
        const bad = file('bad.wat', TRAP)
        await fails([bad, '-o', bad])
        assert.equal(readFileSync(bad, 'utf8'), TRAP)
      })

      it('keeps its mode', { skip: windows }, async () => {
        for (const mode of [0o600, 0o755, 0o640]) {
          const output = file('output.wasm', '')
          chmodSync(output, mode)
          assert.equal((await wizer([input, '-o', output])).status, 0)
          assert.equal(statSync(output).mode & 0o7777, mode)
        }
      })

      it('has the mode of any new file', { skip: windows }, async () => {
        const output = file('output.wasm')
        const other = file('other', '')
        assert.equal((await wizer([input, '-o', output])).status, 0)
        assert.equal(statSync(output).mode, statSync(other).mode)
      })

      it('may be a symbolic link, which stays one', { skip: windows }, async () => {
        const target = file('target.wasm', 'old')
        const link = file('link.wasm')
        symlinkSync(target, link)
        assert.equal((await wizer([input, '-o', link])).status, 0)
        assert.equal(readlinkSync(link), target)
        assertInitialized(readFileSync(target), ORIGINAL)
        assert.deepEqual([...beside(link), ...beside(target)], [])
        await fails([trap, '-o', link])
        assertInitialized(readFileSync(target), ORIGINAL)
      })

      it('may be a symbolic link to a file that does not exist yet', { skip: windows }, async () => {
        const target = file('target.wasm')
        const link = file('link.wasm')
        symlinkSync(target, link)
        assert.equal((await wizer([input, '-o', link])).status, 0)
        assert.ok(lstatSync(link).isSymbolicLink(), 'the link was replaced')
        assertInitialized(readFileSync(target), ORIGINAL)
      })

      it('may be a device', { skip: windows }, async () => {
        const { status, stdout, stderr } = await wizer([input, '-o', '/dev/null'])
        assert.deepEqual({ status, stdout: stdout.toString(), stderr }, { status: 0, stdout: '', stderr: '' })
        assert.ok(statSync('/dev/null').isCharacterDevice())
        await fails([trap, '-o', '/dev/null'])
      })

      it('may be standard output by another name', { skip: process.platform !== 'linux' && 'there is no /proc' }, async () => {
        // A link like /dev/stdout, which itself must not be in danger here.
        const link = file('stdout')
        symlinkSync('/proc/self/fd/1', link)
        const { status, stdout, stderr } = await wizer([input, '-o', link])
        assert.equal(status, 0, stderr)
        assert.ok(lstatSync(link).isSymbolicLink(), 'the link was replaced')
        assertInitialized(stdout, ORIGINAL)
      })

      it('may be a named pipe', { skip: windows }, async () => {
        const pipe = file('pipe')
        assert.equal(spawnSync('mkfifo', [pipe]).status, 0)
        const [{ status }, { stdout }] = await Promise.all([wizer([input, '-o', pipe]), run(['cat', pipe])])
        assert.equal(status, 0)
        assertInitialized(stdout, ORIGINAL)
        assert.ok(statSync(pipe).isFIFO())
      })

      it('cannot be where nothing can be written', async () => {
        const missing = join(directory, 'missing', 'output.wasm')
        const within = join(file('a-file', ''), 'output.wasm')
        for (const output of [missing, within, directory]) {
          const stderr = await fails([input, '-o', output])
          assert.ok(stderr.startsWith(`Error: failed to write the output file \`${output}\`\n\nCaused by:\n`), stderr)
        }
      })

      it('cannot be in a directory that forbids it', { skip: windows }, async (test) => {
        // Nothing is forbidden to root, but even root cannot make files in /proc.
        if (isRoot && process.platform !== 'linux') return test.skip('root may write everywhere')
        const output = isRoot ? '/proc/output.wasm' : file('output.wasm')
        if (!isRoot) chmodSync(join(output, '..'), 0o555)
        const stderr = await fails([input, '-o', output])
        assert.ok(stderr.includes(output))
      })
    })

    describe('help', { concurrency: true }, () => {
      it('--version', async () => {
        const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
        for (const flag of ['--version', '-V']) {
          const { status, stdout, stderr } = await wizer([flag])
          assert.deepEqual([status, stdout.toString(), stderr], [0, `wizer ${version}\n`, ''])
        }
      })

      it('-h fits one screen', async () => {
        const { status, stdout, stderr } = await wizer(['-h'])
        assert.deepEqual([status, stderr], [0, ''])
        const lines = stdout.toString().trimEnd().split('\n')
        assert.ok(lines.length <= 40, `${lines.length} lines`)
        assert.ok(lines.every((line) => line.length <= 100))
        for (const word of ['Usage: wizer', '--init-func', '--allow-wasi', '--verbose', 'Example']) assert.ok(stdout.includes(word), word)
      })

      it('--help tells everything', async () => {
        const { status, stdout, stderr } = await wizer(['--help'])
        assert.deepEqual([status, stderr], [0, ''])
        const words = [
          '-o', '-f', '-r', '--func-rename', '--rename-func', '--keep-init-func', '--allow-wasi', '--inherit-stdio', '--inherit-env', '--env', '--arg', '--dir',
          '--mapdir', '--mapdir-readonly', '--preload', '--allow-preload-changes', '--engine', '--timeout', '--max-memory', '--report', '--verbose',
          '--relaxed-simd-deterministic', '--wasm-multi-memory', '--wasm-multi-value', '--wasm-bulk-memory', '--wasm-simd', '--wasm-relaxed-simd',
          '--wasm-reference-types', 'EXIT STATUS', 'NO_COLOR',
        ]
        for (const word of words) assert.ok(stdout.includes(word), word)
      })
    })

    describe('reports', { concurrency: true }, () => {
      const guest = file('reported.wat', `(module ${wasi('random_get')} (memory (export "memory") 1)
        (func (export "wizer.initialize") (drop (call $random_get (i32.const 64) (i32.const 8)))))`)

      for (const flag of ['--verbose', '-v']) {
        it(`${flag}: a table on standard error`, async () => {
          const { status, stdout, stderr } = await wizer([guest, '--allow-wasi', flag])
          assert.equal(status, 0)
          assert.ok(WebAssembly.validate(stdout))
          for (const phase of ['parse', 'instrument', 'compile', 'initialize', 'snapshot', 'rewrite']) {
            assert.match(stderr, new RegExp(`^ *${phase} +[0-9.]+ ms`, 'm'))
          }
          assert.match(stderr, new RegExp(`\\b${stdout.length} bytes`))
          assert.match(stderr, /wasi_snapshot_preview1::random_get +1/)
          assert.match(stderr, /1 +reads? of random numbers/)
          assert.ok(!stderr.includes(ESCAPE))
        })
      }

      it('--report: what went well', async () => {
        const report = file('report.json')
        const output = await initialize(input, '--report', report)
        const json = JSON.parse(readFileSync(report, 'utf8'))
        assert.equal(json.outputBytes, output.length)
        const { report: expected } = await snapshot(ORIGINAL)
        for (const { phases } of [json, expected]) {
          for (const phase of phases) delete phase.ms
        }
        assert.deepEqual(json, expected)
      })

      it('--report: what went wrong', async () => {
        const cases = [
          ['ERR_WIZER_TRAP', trap],
          ['ERR_WIZER_INIT_FUNC_MISSING', input, '-f', 'nothing'],
          ['ERR_WIZER_IO', join(directory, 'missing.wasm')],
          ['ERR_WIZER_IO', input, '-o', join(directory, 'missing', 'output.wasm')],
        ]
        for (const [code, ...args] of cases) {
          const report = file('report.json')
          const stderr = await fails([...args, '--report', report])
          assert.ok(existsSync(report), `no report of ${code}`)
          const { error, ...others } = JSON.parse(readFileSync(report, 'utf8'))
          assert.equal(error?.code, code)
          assert.ok(stderr.startsWith(`Error: ${error.message}\n`))
          assert.deepEqual(others, {})
        }
      })

      it('--report: which cannot be written', async () => {
        const report = join(directory, 'missing', 'report.json')
        assert.ok((await fails([input, '-o', file('output.wasm'), '--report', report])).includes(report))
      })
    })

    describe('on a terminal', { skip: terminalMissing(), concurrency: true }, () => {
      /** Runs the program on a terminal of its own, which sees its standard output and error. */
      const onTerminal = async (args, { env = {}, redirect = '' } = {}) => {
        const line = `${[...command, ...args].map((arg) => `'${arg}'`).join(' ')} ${redirect}`
        // How colourful a terminal is must not come from where the tests run.
        const others = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/COLOR/.test(name)))
        const { status, stdout } = await run(['script', '--quiet', '--return', '--command', line, '/dev/null'], {
          env: { ...others, TERM: 'xterm-256color', ...env },
          // As long as it is open, the terminal is.
          input: null,
        })
        return { status, screen: stdout.toString() }
      }
      /** A sleep of so many nanoseconds. */
      const sleep = (time) => `
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const ${time}))
        (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))`
      // Longer than what the spinner waits before it shows.
      const slow = file('slow.wat', `(module ${wasi('poll_oneoff')} (memory (export "memory") 1)
        (func (export "wizer.initialize") ${sleep(1_200_000_000)}))`)
      const slowly = ['--allow-wasi', '--inherit-stdio=false', slow, '-o']

      it('errors are coloured', async () => {
        const { status, screen } = await onTerminal([trap, '-o', '/dev/null'])
        assert.equal(status, 1)
        assert.ok(screen.startsWith(`${ESCAPE}[`))
        const plain = screen.split(ESCAPE).map((part, i) => (i === 0 ? part : part.replace(/^\[[0-9;]*m/, '')))
        assert.match(plain.join(''), /^Error: the `wizer.initialize` function trapped\r\n\r\nCaused by:/)
      })

      it('unless NO_COLOR says otherwise', async () => {
        for (const args of [[trap, '-o', '/dev/null'], ['--nothing'], ['--help'], [input, '-v', '-o', '/dev/null']]) {
          const { screen } = await onTerminal(args, { env: { NO_COLOR: '1' } })
          assert.ok(screen.length > 0 && !screen.includes(ESCAPE), screen)
        }
      })

      it('a run that takes a moment tells what it does', async () => {
        const output = file('output.wasm')
        const { status, screen } = await onTerminal([...slowly, output])
        assert.equal(status, 0)
        assert.match(screen, /running the initialization/)
        assert.ok(WebAssembly.validate(readFileSync(output)))
      })

      it('a run that is done at once shows nothing', async () => {
        assert.deepEqual(await onTerminal([input, '-o', file('output.wasm')]), { status: 0, screen: '' })
      })

      it('a standard error that goes elsewhere shows nothing', async () => {
        const errors = file('errors')
        const { status, screen } = await onTerminal([...slowly, file('output.wasm'), '-v'], { redirect: `2>'${errors}'` })
        assert.deepEqual({ status, screen }, { status: 0, screen: '' })
        const written = readFileSync(errors, 'utf8')
        assert.match(written, /initialize/)
        assert.ok(!written.includes(ESCAPE))
        assert.doesNotMatch(written, /running the initialization/)
      })

      it('a module is not printed', async () => {
        const { status, screen } = await onTerminal([input])
        assert.equal(status, 1)
        assert.match(screen, /terminal[^]*-o/)
        assert.ok(!screen.includes('\0asm'))
      })

      it('a module is not waited for', async () => {
        const { status, screen } = await onTerminal(['-o', file('output.wasm')])
        assert.equal(status, 1)
        assert.match(screen, /no module[^]*--help/)
      })

      it('the guest writes to it undisturbed', async () => {
        const guest = file('a.wat', `(module ${wasi('fd_write', 'poll_oneoff')} (memory (export "memory") 1) (data (i32.const 256) "said by the guest\\n") ${print}
          (func (export "wizer.initialize")
            (call $print (i32.const 1) (i32.const 256) (i32.const 18))
            ${sleep(700_000_000)}
            (call $print (i32.const 2) (i32.const 256) (i32.const 18))))`)
        const { status, screen } = await onTerminal(['--allow-wasi', guest, '-o', file('output.wasm')])
        assert.deepEqual({ status, screen }, { status: 0, screen: 'said by the guest\r\n'.repeat(2) })
      })
    })
  })
}

/** Why there is no terminal to test on, if so. */
function terminalMissing() {
  const { stdout } = spawnSync('script', ['--version'], { encoding: 'utf8' })
  return !/util-linux/.test(stdout ?? '') && 'there is no `script` of util-linux to make a terminal'
}

describe('the launcher', () => {
  const [{ command }] = programs

  it('says what is wrong where the addon is missing', async () => {
    const { status, stdout, stderr } = await run([...command, input], { env: { ...process.env, WIZER_BINDING: 'missing.node' } })
    assert.equal(status, 1)
    assert.equal(stdout.length, 0)
    assert.match(stderr, /^Error: wizer's native addon could not be loaded: .*missing\.node/)
    assert.doesNotMatch(stderr, /\n +at /)
  })
})
