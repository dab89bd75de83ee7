// The command line behind both of its doors: the launcher of the package and the native program.

import assert from 'node:assert/strict'
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { programs, run, temporaryDirectory } from './helpers/run.mjs'

const { version } = createRequire(import.meta.url)('../package.json')

const COUNTER = `(module
  (memory (export "memory") 1)
  (global $n (export "n") (mut i32) (i32.const 0))
  (func (export "wizer.initialize") (global.set $n (i32.const 7)))
  (func (export "setup") (global.set $n (i32.const 9)))
  (func (export "_start") (unreachable))
  (func (export "wizer.resume")))`
const TRAPS = '(module $guest (func $boom unreachable) (func (export "wizer.initialize") (call $boom)))'
const EXITS = `(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (func (export "wizer.initialize") (call $exit (i32.const 3))))`

const start = (bytes) => new WebAssembly.Instance(new WebAssembly.Module(bytes), {}).exports

for (const { name, command } of programs) {
  describe(name, () => {
    const wizer = (args, options) => run([...command, ...args], options)

    /** A directory with a module, and a way to run the program in it. */
    function place(text = COUNTER) {
      const cwd = temporaryDirectory()
      writeFileSync(join(cwd, 'in.wat'), text)
      const path = (file) => join(cwd, file)
      return {
        path,
        wizer: (args, options) => wizer(args, { cwd, ...options }),
        output: (file = 'out.wasm') => start(readFileSync(path(file))),
      }
    }

    async function succeeds(result) {
      const { status, stderr } = await result
      assert.equal(status, 0, stderr)
    }

    it('writes to -o in every spelling, and to standard output', async () => {
      const { wizer, output } = place()
      for (const args of [['-o', 'a.wasm'], ['-o=b.wasm'], ['-oc.wasm']]) await succeeds(wizer(['in.wat', ...args]))
      for (const file of ['a.wasm', 'b.wasm', 'c.wasm']) assert.equal(output(file).n.value, 7)
      const { stdout } = await wizer(['in.wat'])
      assert.equal(start(stdout).n.value, 7)
    })

    it('reads standard input', async () => {
      const { stdout } = await wizer([], { input: COUNTER })
      assert.equal(start(stdout).n.value, 7)
    })

    it('calls the function that is named', async () => {
      const { wizer, output } = place()
      for (const args of [['-f', 'setup'], ['--init-func', 'setup'], ['--init-func=setup']]) {
        await succeeds(wizer(['in.wat', '-o', 'out.wasm', ...args]))
        assert.equal(output().n.value, 9)
        assert.equal(output().setup, undefined)
      }
    })

    it('renames, in every spelling', async () => {
      const { wizer, output } = place()
      for (const args of [
        ['-r', '_start=wizer.resume'],
        ['-r', ' _start=wizer.resume'],
        ['-r=_start=wizer.resume'],
        ['--rename-func', '_start=wizer.resume'],
        ['--func-rename=_start=wizer.resume'],
      ]) {
        await succeeds(wizer(['in.wat', '-o', 'out.wasm', ...args]))
        output()._start()
        assert.equal(output()['wizer.resume'], undefined)
      }
    })

    it('takes booleans bare, with `=` and apart, also before the file', async () => {
      const { wizer, output } = place()
      const kept = async (...args) => {
        await succeeds(wizer(['-o', 'out.wasm', ...args]))
        return output()['wizer.initialize'] !== undefined
      }
      assert.equal(await kept('in.wat'), false)
      assert.equal(await kept('--keep-init-func', 'in.wat'), true)
      assert.equal(await kept('--keep-init-func=true', 'in.wat'), true)
      assert.equal(await kept('--keep-init-func', 'true', 'in.wat'), true)
      assert.equal(await kept('--keep-init-func', 'false', 'in.wat'), false)
      assert.equal(await kept('in.wat', '--keep-init-func=false'), false)
      const switches = ['multi-memory', 'multi-value', 'bulk-memory', 'simd', 'relaxed-simd', 'reference-types'].map((name) => `--wasm-${name}`)
      for (const flag of [...switches, '--allow-wasi', '--inherit-stdio', '--inherit-env', '--relaxed-simd-deterministic']) {
        for (const args of [[flag], [`${flag}=true`], [flag, 'false']]) await succeeds(wizer(['in.wat', '-o', 'out.wasm', ...args]))
      }
    })

    it('refuses what a switch turns off', async () => {
      const { wizer } = place('(module (memory 1) (memory 1) (func (export "wizer.initialize")))')
      const { status, stderr } = await wizer(['in.wat', '--wasm-multi-memory=false'])
      assert.equal(status, 1)
      assert.match(stderr, /^Error: the input is not a valid WebAssembly module: .*multi/)
    })

    it('prints a trap in the shape that tools look for', async () => {
      const { wizer } = place(TRAPS)
      const { status, stdout, stderr } = await wizer(['in.wat'], { env: { ...process.env, RUST_BACKTRACE: '1' } })
      assert.equal(status, 1)
      assert.equal(stdout.length, 0)
      assert.match(
        stderr,
        /^Error: the `wizer\.initialize` function trapped\n\nCaused by:\n {4}0: error while executing at wasm backtrace:\n {11}0: +0x[0-9a-f]+ - guest!boom\n {11}1: +0x[0-9a-f]+ - guest!<wasm function 1>\n {4}1: wasm trap: wasm `unreachable` instruction executed\n$/,
      )
    })

    it('names the status of an exit', async () => {
      const { wizer } = place(EXITS)
      const { status, stderr } = await wizer(['in.wat', '--allow-wasi'])
      assert.equal(status, 1)
      assert.match(stderr, /\n {4}1: Exited with i32 exit status 3\n$/)
    })

    it('ends with one clear error and status 1', async () => {
      const { wizer } = place()
      for (const [args, message] of [
        [['missing.wasm'], /^Error: failed to open the input file `missing\.wasm`\n\nCaused by:\n {4}.+\n$/],
        [['in.wat', '-o', 'no/where.wasm'], /^Error: failed to write the output file `no\/where\.wasm`\n/],
        [['in.wat', '-f', 'nothing'], /^Error: .*`nothing`.*`setup`.*\n$/],
        [['in.wat', '-r', 'a=setup', '-r', 'a=_start'], /^Error: duplicated function rename destination `a`/],
        [['in.wat', '-r', 'a=setup', '-r', 'b=setup'], /^Error: duplicated function rename source `setup`/],
        [['in.wat', '--allow-wasi', '--dir', 'missing'], /^Error: failed to open the directory `missing`\n/],
        [['in.wat', '--preload', 'a=missing.wasm'], /^Error: failed to open the preloaded module `missing\.wasm`\n/],
      ]) {
        const { status, stdout, stderr } = await wizer(args)
        assert.equal(status, 1, args.join(' '))
        assert.equal(stdout.length, 0)
        assert.match(stderr, message)
        assert.doesNotMatch(stderr, /panicked|Stack backtrace/)
      }
    })

    it('warns of a rename that does nothing', async () => {
      const { wizer, output } = place()
      const { status, stderr } = await wizer(['in.wat', '-o', 'out.wasm', '-r', '_start=missing'])
      assert.equal(status, 0)
      assert.match(stderr, /^warning: .*`missing`/)
      assert.throws(() => output()._start(), WebAssembly.RuntimeError)
    })

    it('leaves an existing output alone when it fails, and nothing else behind', async () => {
      const { wizer, path } = place(TRAPS)
      writeFileSync(path('out.wasm'), 'old')
      const before = statSync(path('out.wasm'), { bigint: true }).mtimeNs
      assert.equal((await wizer(['in.wat', '-o', 'out.wasm'])).status, 1)
      assert.equal(readFileSync(path('out.wasm'), 'utf8'), 'old')
      assert.equal(statSync(path('out.wasm'), { bigint: true }).mtimeNs, before)
      assert.deepEqual(readdirSync(path('.')).sort(), ['in.wat', 'out.wasm'])
    })

    it('replaces a file: mode kept, link kept, also the input itself', { skip: process.platform === 'win32' && 'modes and links' }, async () => {
      const { wizer, path, output } = place()
      writeFileSync(path('real.wasm'), 'old')
      chmodSync(path('real.wasm'), 0o640)
      symlinkSync('real.wasm', path('link.wasm'))
      await succeeds(wizer(['in.wat', '-o', 'link.wasm']))
      assert.ok(lstatSync(path('link.wasm')).isSymbolicLink())
      assert.equal(statSync(path('real.wasm')).mode & 0o777, 0o640)
      assert.equal(output('real.wasm').n.value, 7)
      await succeeds(wizer(['in.wat', '-o', 'in.wat']))
      assert.equal(output('in.wat').n.value, 7)
      await succeeds(wizer(['real.wasm', '-f', 'setup', '-o', '/dev/null']))
      assert.ok(statSync('/dev/null').isCharacterDevice())
      assert.deepEqual(readdirSync(path('.')).sort(), ['in.wat', 'link.wasm', 'real.wasm'])
    })

    it('preloads a module', async () => {
      const { wizer, path } = place(`(module (import "lib" "f" (func $f (result i32)))
        (global $n (export "n") (mut i32) (i32.const 0)) (func (export "wizer.initialize") (global.set $n (call $f))))`)
      writeFileSync(path('lib.wat'), '(module (func (export "f") (result i32) (i32.const 5)))')
      await succeeds(wizer(['in.wat', '--preload', 'lib=lib.wat', '-o', 'out.wasm']))
      const module = new WebAssembly.Module(readFileSync(path('out.wasm')))
      assert.equal(new WebAssembly.Instance(module, { lib: { f() {} } }).exports.n.value, 5)
    })

    it('maps directories', async () => {
      const { wizer, path } = place(`(module
        (import "wasi_snapshot_preview1" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "file.txt") (global $errno (export "errno") (mut i32) (i32.const -1))
        (func (export "wizer.initialize")
          (global.set $errno (call $stat (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 64)))))`)
      mkdirSync(path('data'))
      writeFileSync(path('data/file.txt'), '')
      const errno = async (...args) => {
        await succeeds(wizer(['in.wat', '--allow-wasi', '-o', 'out.wasm', ...args]))
        const imports = { wasi_snapshot_preview1: { path_filestat_get() {} } }
        return new WebAssembly.Instance(new WebAssembly.Module(readFileSync(path('out.wasm'))), imports).exports.errno.value
      }
      assert.equal(await errno('--dir', 'data'), 0)
      assert.equal(await errno('--dir=data'), 0)
      assert.equal(await errno('--mapdir', '/there::data'), 0)
      assert.equal(await errno('--mapdir-readonly', '/there::data'), 0)
      assert.notEqual(await errno('--dir', '.'), 0)
      assert.notEqual(await errno(), 0)
    })

    it('tells what happened: --verbose as a table, --report as JSON', async () => {
      const { wizer, path } = place()
      const { stderr } = await wizer(['in.wat', '-o', 'out.wasm', '--verbose', '--report', 'report.json'])
      assert.match(stderr, /^Time, with wasmtime[\s\S]*initialize[\s\S]*total[\s\S]*Size[\s\S]*memory 0/)
      // eslint-disable-next-line no-control-regex
      assert.doesNotMatch(stderr, /\x1b/)
      const report = JSON.parse(readFileSync(path('report.json'), 'utf8'))
      assert.equal(report.outputBytes, statSync(path('out.wasm')).size)
      assert.equal((await wizer(['in.wat', '-f', 'nothing', '--report', 'report.json'])).status, 1)
      assert.equal(JSON.parse(readFileSync(path('report.json'), 'utf8')).error.code, 'ERR_WIZER_INIT_FUNC_MISSING')
    })

    it('helps', async () => {
      const short = await wizer(['-h'])
      const long = await wizer(['--help'])
      assert.equal(short.status, 0)
      assert.ok(short.stdout.toString().split('\n').length <= 40, 'fits a screen')
      assert.ok(long.stdout.length > 2 * short.stdout.length)
      for (const flag of ['--timeout', '--engine', '--wasm-simd', '--report']) assert.match(long.stdout.toString(), new RegExp(flag))
      assert.equal((await wizer(['--version'])).stdout.toString(), `wizer ${version}\n`)
      const wrong = await wizer(['--nothing'])
      assert.equal(wrong.status, 2)
      assert.match(wrong.stderr, /unexpected argument '--nothing'/)
    })

    it('uses colours on a terminal only, and not with NO_COLOR', { skip: !existsSync('/usr/bin/script') && 'no `script` to make a terminal with' }, async () => {
      const { path } = place()
      const line = [...command, 'missing.wasm'].map((word) => `'${word}'`).join(' ')
      const terminal = async (env) => (await run(['/usr/bin/script', '-qec', line, path('typescript')], { cwd: path('.'), env })).stdout.toString()
      const env = { ...process.env }
      delete env.NO_COLOR
      // eslint-disable-next-line no-control-regex
      assert.match(await terminal(env), /\x1b\[1;31mError:\x1b\[0m/)
      assert.match(await terminal({ ...env, NO_COLOR: '1' }), /^Error:/m)
    })
  })
}
