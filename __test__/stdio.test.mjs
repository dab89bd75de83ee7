// What goes through the standard streams arrives whole, however slowly it is read.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { node, programs, root, run, temporaryDirectory } from './helpers/run.mjs'

const MEGABYTE = 1 << 20

/** A guest that writes `pages` pages of a pattern to a descriptor; its memory makes a large module too. */
const writer = (fd, pages) => `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") ${pages + 1})
  (func (export "wizer.initialize") (local $at i32) (local $end i32)
    (local.set $at (i32.const 65536))
    (local.set $end (i32.const ${(pages + 1) * 65536}))
    (loop $fill
      (i32.store (local.get $at) (i32.or (i32.mul (local.get $at) (i32.const 2654435761)) (i32.const 16843009)))
      (br_if $fill (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))
    (local.set $at (i32.const 65536))
    (loop $write
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (i32.sub (local.get $end) (local.get $at)))
      (if (call $write (i32.const ${fd}) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (br_if $write (i32.lt_u (local.get $at) (local.get $end))))))`

/** What the guest writes. */
function pattern(pages) {
  const words = new Uint32Array((pages * 65536) / 4)
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(65536 + 4 * i, 2654435761) | 0x01010101
  return Buffer.from(words.buffer)
}

for (const { name, command } of programs) {
  describe(name, () => {
    it('a guest writes megabytes through a slow pipe', async () => {
      const directory = temporaryDirectory()
      for (const [fd, stream] of [[1, 'stdout'], [2, 'stderr']]) {
        writeFileSync(join(directory, 'in.wat'), writer(fd, 48))
        const result = await run([...command, 'in.wat', '--allow-wasi', '-o', 'out.wasm'], { cwd: directory, patient: true })
        assert.equal(result.status, 0)
        if (stream === 'stdout') assert.ok(result.stdout.equals(pattern(48)))
        else assert.ok(result.stderr.length > 0)
      }
    })

    it('a module of 16 MB arrives on standard output', async () => {
      const result = await run([...command, '--allow-wasi', '--inherit-stdio=false'], { input: writer(1, 256), patient: true })
      assert.equal(result.status, 0, result.stderr)
      assert.ok(result.stdout.length > 16 * MEGABYTE)
      assert.ok(WebAssembly.validate(result.stdout))
      assert.ok(result.stdout.includes(pattern(256).subarray(-65536)))
    })
  })
}

describe('a Node process that has touched its streams', () => {
  for (const [fd, stream] of [[1, 'stdout'], [2, 'stderr']]) {
    it(`passes the guest's ${stream} on whole`, async () => {
      const script = `
        process.${stream}.on('error', () => {})
        const { wizer } = require(${JSON.stringify(join(root, 'index.js'))})
        wizer(${JSON.stringify(writer(fd, 48))}, { allowWasi: true, stdin: 'ignore' }).catch((error) => { process.exitCode = 9 })`
      const result = await run(node('--eval', script), { patient: true })
      assert.equal(result.status, 0)
      if (stream === 'stdout') assert.ok(result.stdout.equals(pattern(48)))
      else assert.ok(result.stderr.length > 0)
    })
  }

  it('runs the command line with a module of 16 MB on standard output', async () => {
    const script = `
      process.stdout.on('error', () => {})
      const cli = require(${JSON.stringify(join(root, 'platform.js'))}).loadBinding().cli
      process.exitCode = cli(['--allow-wasi', '--inherit-stdio=false'])`
    const result = await run(node('--eval', script), { input: writer(1, 256), patient: true })
    assert.equal(result.status, 0, result.stderr)
    assert.ok(result.stdout.length > 16 * MEGABYTE)
    assert.ok(WebAssembly.validate(result.stdout))
  })
})
