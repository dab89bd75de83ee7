// The process's own standard streams: what a guest or the program writes arrives whole and in order, however slowly it
// is read, also where Node has made the stream non-blocking; and of what it could read, nobody takes more than asked for.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { launch, node, programs, root, run, runScript, scriptCommand, temporaryDirectory } from './helpers/run.mjs'
import { start } from './helpers/v8.mjs'
import { print, read, wasi } from './helpers/wasi.mjs'

const PAGE = 65536
const MEGABYTE = 16 * PAGE

const directory = temporaryDirectory()
let files = 0

/** A file with this guest. */
function guestFile(wat) {
  const path = join(directory, `${files++}.wat`)
  writeFileSync(path, wat)
  return path
}

/** A function `$fill`, which fills the pages from the second one on with text that repeats itself nowhere near. */
const fill = (pages) => `(func $fill (local $i i32)
  (loop $l
    (i32.store8 (i32.add (local.get $i) (i32.const ${PAGE}))
      (i32.add (i32.const 32)
        (i32.rem_u (i32.add (i32.mul (local.get $i) (i32.const 7)) (i32.div_u (local.get $i) (i32.const 101))) (i32.const 90))))
    (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const ${pages * PAGE})))))`

/** The same text. */
function filling(pages) {
  const bytes = Buffer.alloc(pages * PAGE)
  for (let i = 0; i < bytes.length; i++) bytes[i] = 32 + ((7 * i + Math.floor(i / 101)) % 90)
  return bytes
}

/** A guest that fills some pages and does this then. */
const filled = (pages, then = '', imports = '') => `(module
  ${imports}
  (memory (export "memory") ${pages + 1})
  ${fill(pages)}
  ${imports && print}
  (func (export "wizer.initialize") (call $fill) ${then}))`

/** A guest that writes these pages to a standard stream in one go. */
const writer = (fd, pages) => filled(pages, `(call $print (i32.const ${fd}) (i32.const ${PAGE}) (i32.const ${pages * PAGE}))`, wasi('fd_write'))

/** A guest that reads so many bytes of standard input, or up to its end, and exports what is missing. */
const readerOf = (length) => `(module
  ${wasi('fd_read')}
  (memory (export "memory") ${1 + Math.ceil(length / PAGE)})
  (global $missing (export "missing") (mut i32) (i32.const 0))
  ${read}
  (func (export "wizer.initialize") (global.set $missing (call $read (i32.const 64) (i32.const ${length})))))`

/** What a reader has read. */
function wasRead(output, length) {
  const { memory, missing } = start(output)
  return Buffer.from(memory.buffer, 64, length - missing.value)
}

/** A guest that asks for a name, and says it back. */
const ASKING = `(module
  ${wasi('fd_write', 'fd_read')}
  (memory (export "memory") 1)
  (data (i32.const 16) "name? ")
  (data (i32.const 32) "hello ")
  ${print}
  ${read}
  (func (export "wizer.initialize")
    (call $print (i32.const 1) (i32.const 16) (i32.const 6))
    (drop (call $read (i32.const 38) (i32.const 5)))
    (call $print (i32.const 1) (i32.const 32) (i32.const 11))))`

/** Answers the question of {@link ASKING} once it is there, and gives what was written after it. */
async function answer(child) {
  let seen = ''
  await new Promise((resolve, reject) => {
    child.stdout.on('data', (data) => {
      seen += data
      if (seen === 'name? ') child.stdin.write('alice')
    })
    child.stdout.on('end', resolve).on('error', reject)
  })
  return { seen, ...(await child.done) }
}

// Node makes a pipe non-blocking when its stream is first looked at.
const touch = 'process.stdout; process.stderr'
const touched = node('--import', `data:text/javascript,${encodeURIComponent(touch)}`, join(root, 'bin', 'wizer.js'))
const doors = [...programs, { name: 'bin/wizer.js in a process that has touched its streams', command: touched }]

for (const { name, command } of doors) {
  describe(name, () => {
    const wizer = (args, options) => run([...command, ...args], options)

    it('a guest\'s output arrives whole through a slow pipe', async () => {
      const expected = filling(64).toString()
      for (const [fd, stream] of [[1, 'stdout'], [2, 'stderr']]) {
        const output = join(directory, `${files++}.wasm`)
        const result = await wizer([guestFile(writer(fd, 64)), '--allow-wasi', '-o', output], { patient: true })
        assert.equal(result.status, 0)
        assert.ok(result[stream].toString() === expected, `${result[stream].length} of ${expected.length} bytes`)
        assert.equal(result[fd === 1 ? 'stderr' : 'stdout'].length, 0)
        assert.ok(WebAssembly.validate(readFileSync(output)))
      }
    })

    it('a module of 16 MB arrives whole through a slow pipe', async () => {
      const { status, stdout, stderr } = await wizer([guestFile(filled(256))], { patient: true })
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
      assert.ok(stdout.length > 16 * MEGABYTE)
      assert.ok(Buffer.from(start(stdout).memory.buffer, PAGE).equals(filling(256)))
    })

    it('both streams of a guest in their order', { skip: process.platform === 'win32' && 'there is no shell for it' }, async () => {
      const guest = guestFile(`(module ${wasi('fd_write')} (memory (export "memory") 1) (data (i32.const 16) "abcd") ${print}
        (func (export "wizer.initialize")
          (call $print (i32.const 1) (i32.const 16) (i32.const 1))
          (call $print (i32.const 2) (i32.const 17) (i32.const 1))
          (call $print (i32.const 1) (i32.const 18) (i32.const 1))
          (call $print (i32.const 2) (i32.const 19) (i32.const 1))))`)
      const output = join(directory, `${files++}.wasm`)
      const { stdout } = await run(['sh', '-c', '"$@" 2>&1', 'sh', ...command, guest, '--allow-wasi', '-o', output])
      assert.equal(stdout.toString(), 'abcd')
    })

    it('a guest reads all that the parent writes, when it comes', async () => {
      const input = filling(20)
      const output = join(directory, `${files++}.wasm`)
      const child = launch([...command, guestFile(readerOf(MEGABYTE * 2)), '--allow-wasi', '-o', output], { input: null })
      for (let at = 0; at < input.length; at += 100_000) {
        child.stdin.write(input.subarray(at, at + 100_000))
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      child.stdin.end()
      const { status, stderr } = await child.done
      assert.equal(status, 0, stderr)
      assert.ok(wasRead(readFileSync(output), MEGABYTE * 2).equals(input))
    })

    it('a guest reads no more than it asks for', { skip: process.platform === 'win32' && 'there is no shell for it' }, async () => {
      const output = join(directory, `${files++}.wasm`)
      const { stdout } = await run(['sh', '-c', '"$@" && cat', 'sh', ...command, guestFile(readerOf(6)), '--allow-wasi', '-o', output], { input: 'guest\nothers\n' })
      assert.equal(wasRead(readFileSync(output), 6).toString(), 'guest\n')
      assert.equal(stdout.toString(), 'others\n')
    })

    it('a guest that asks is heard before it is answered', async () => {
      const args = [guestFile(ASKING), '--allow-wasi', '-o', join(directory, `${files++}.wasm`)]
      const { status, seen } = await answer(launch([...command, ...args], { input: null, unread: 'stdout' }))
      assert.equal(seen, 'name? hello alice')
      assert.equal(status, 0)
    })

    it('a guest whose output nobody reads any more is told so', async () => {
      const child = launch([...command, guestFile(writer(1, 64)), '--allow-wasi', '-o', join(directory, `${files++}.wasm`)], { unread: 'stdout' })
      child.stdout.destroy()
      const { status, signal, stderr } = await child.done
      assert.deepEqual({ status, signal }, { status: 1, signal: null })
      // The guest traps when a write fails.
      assert.match(stderr, /^Error: the `wizer.initialize` function trapped/)
    })
  })
}

describe('a Node process that has touched its streams', () => {
  const script = (text) => runScript(`${touch}\n${text}`, { patient: true })

  for (const [fd, stream] of [[1, 'stdout'], [2, 'stderr']]) {
    for (const call of ['await wizer', 'wizerSync']) {
      it(`a guest's output arrives whole, and in its place: ${stream}, ${call}`, async () => {
        const result = await script(`;(async () => {
          process.${stream}.write('before;')
          ${call}(${JSON.stringify(writer(fd, 64))}, { allowWasi: true })
          process.${stream}.write(';after')
        })()`)
        assert.equal(result.status, 0)
        const expected = `before;${filling(64)};after`
        assert.ok(result[stream].toString() === expected, `${result[stream].length} of ${expected.length} bytes`)
      })
    }
  }

  it('several guests write at once, and nothing is lost', async () => {
    const { status, stdout } = await script(`
      const guest = ${JSON.stringify(writer(1, 16))}
      Promise.all([1, 2, 3].map(() => wizer(guest, { allowWasi: true })))`)
    assert.equal(status, 0)
    assert.equal(stdout.length, 3 * MEGABYTE)
    // They may take turns, but every byte is there as often as it was written.
    const count = (bytes) => bytes.reduce((counts, byte) => (counts[byte]++, counts), new Array(256).fill(0))
    assert.deepEqual(count(stdout), count(filling(16)).map((n) => 3 * n))
  })

  for (const call of ['await wizer', 'wizerSync']) {
    it(`a guest reads no more than it asks for: ${call}`, async () => {
      const { stdout } = await runScript(
        `;(async () => {
          const { exports } = new WebAssembly.Instance(new WebAssembly.Module(${call}(${JSON.stringify(readerOf(6))}, { allowWasi: true })), { wasi_snapshot_preview1: { fd_read() {} } })
          console.log(JSON.stringify(Buffer.from(exports.memory.buffer, 64, 6).toString()))
          for await (const chunk of process.stdin) console.log(JSON.stringify(chunk.toString()))
        })()`,
        { input: 'guest\nothers\n' },
      )
      assert.equal(stdout.toString(), '"guest\\n"\n"others\\n"\n')
    })

    it(`a guest waits for input that Node has made non-blocking: ${call}`, async () => {
      const text = `process.stdin; ${touch}; (async () => { ${call}(${JSON.stringify(ASKING)}, { allowWasi: true }) })()`
      const { status, seen } = await answer(launch(scriptCommand(text), { input: null, unread: 'stdout' }))
      assert.equal(seen, 'name? hello alice')
      assert.equal(status, 0)
    })
  }
})

describe('what a stream is', () => {
  /** A guest that keeps the file types of its standard streams. */
  const TYPES = `(module ${wasi('fd_fdstat_get')} (memory (export "memory") 1)
    (global $type0 (export "type0") (mut i32) (i32.const -1))
    (global $type1 (export "type1") (mut i32) (i32.const -1))
    (global $type2 (export "type2") (mut i32) (i32.const -1))
    (func (export "wizer.initialize")
      (drop (call $fd_fdstat_get (i32.const 0) (i32.const 64))) (global.set $type0 (i32.load8_u (i32.const 64)))
      (drop (call $fd_fdstat_get (i32.const 1) (i32.const 64))) (global.set $type1 (i32.load8_u (i32.const 64)))
      (drop (call $fd_fdstat_get (i32.const 2) (i32.const 64))) (global.set $type2 (i32.load8_u (i32.const 64)))))`
  const TERMINAL = 2
  const types = (output) => {
    const { type0, type1, type2 } = start(readFileSync(output))
    return [type0.value, type1.value, type2.value].map((type) => type === TERMINAL)
  }
  const terminalMissing = !/util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '') && 'there is no `script` of util-linux'

  for (const { name, command } of programs) {
    it(`is told truly by ${name}`, { skip: terminalMissing }, async () => {
      const guest = guestFile(TYPES)
      const output = () => join(directory, `${files++}.wasm`)
      const piped = output()
      await run([...command, guest, '--allow-wasi', '-o', piped])
      assert.deepEqual(types(piped), [false, false, false])
      const onTerminal = output()
      const line = (redirect, file) => `${command.map((word) => `'${word}'`).join(' ')} '${guest}' --allow-wasi -o '${file}' ${redirect}`
      await run(['script', '-qec', line('', onTerminal), '/dev/null'], { input: null })
      assert.deepEqual(types(onTerminal), [true, true, true])
      const partly = output()
      await run(['script', '-qec', line('</dev/null 2>/dev/null', partly), '/dev/null'], { input: null })
      assert.deepEqual(types(partly), [false, true, false])
      const ignored = output()
      await run(['script', '-qec', line('--inherit-stdio=false', ignored), '/dev/null'], { input: null })
      assert.deepEqual(types(ignored), [false, false, false])
    })
  }
})

describe('what is for standard output, and what the guest prints there', () => {
  const guest = guestFile(`(module ${wasi('fd_write')} (memory (export "memory") 1) (data (i32.const 16) "hello\\n") ${print}
    (func (export "wizer.initialize") (call $print (i32.const 1) (i32.const 16) (i32.const 6))))`)
  const quiet = guestFile('(module (func (export "wizer.initialize")))')
  const warning = 'warning: what the module wrote to standard output went to standard error, as standard output is for something else\n'

  for (const { name, command } of programs) {
    const file = join(directory, `${name.replaceAll('/', '-')}.wasm`)
    const engines = ['auto', 'baseline']

    it(`do not mix: ${name}`, async () => {
      const outputs = [[], ['-o', '-'], ['-o=-'], ...(process.platform === 'win32' ? [] : [['-o', '/dev/stdout']]), ...(process.platform === 'linux' ? [['-o', '/proc/self/fd/1']] : [])]
      for (const output of outputs) {
        for (const engine of engines) {
          const { status, stdout, stderr } = await run([...command, guest, '--allow-wasi', '--engine', engine, ...output])
          assert.deepEqual({ status, stderr }, { status: 0, stderr: `hello\n${warning}` }, String(output))
          assert.ok(WebAssembly.validate(stdout), String(output))
        }
      }
      const silent = await run([...command, quiet, '--allow-wasi'])
      assert.deepEqual({ status: silent.status, stderr: silent.stderr }, { status: 0, stderr: '' }, 'nothing was printed')
    })

    it(`nor with a report: ${name}`, async () => {
      const { stdout, stderr } = await run([...command, guest, '--allow-wasi', '-o', file, '--report', '-'])
      assert.equal(stderr, `hello\n${warning}`)
      assert.equal(JSON.parse(stdout).warnings.length, 1)
    })

    it(`also in a file: ${name}`, { skip: process.platform === 'win32' }, () => {
      for (const output of [[], ['-o', '/dev/stdout'], ['-o', file]]) {
        const out = openSync(file, 'w')
        const [program, ...args] = command
        const { status, stderr } = spawnSync(program, [...args, guest, '--allow-wasi', ...output], { cwd: root, stdio: ['ignore', out, 'pipe'] })
        closeSync(out)
        assert.deepEqual({ status, stderr: String(stderr) }, { status: 0, stderr: `hello\n${warning}` }, String(output))
        assert.ok(WebAssembly.validate(readFileSync(file)), String(output))
      }
    })

    it(`stays where the output goes elsewhere: ${name}`, async () => {
      const { status, stdout, stderr } = await run([...command, guest, '--allow-wasi', '-o', file])
      assert.deepEqual({ status, stdout: String(stdout), stderr }, { status: 0, stdout: 'hello\n', stderr: '' })
    })
  }
})
