#!/usr/bin/env node
// Ruby, initialized with arguments as docs/javascript.md shows it: the snippet is run as it stands there, on the real package.
// Then the package's own JavaScript evaluates Ruby in an instance of the output, and does not initialize that.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { WASI } from 'node:wasi'
import { unpacked } from './compat/lib/fetch.mjs'
import { packages } from './compat/packages.mjs'
import { tasks } from './compat/tasks.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const snippet = /^```js file=(ruby\.mjs) real$\n([^]*?)^```$/m.exec(readFileSync(join(root, 'docs', 'javascript.md'), 'utf8').replaceAll('\r\n', '\n'))
assert.ok(snippet, 'docs/javascript.md shows no ruby.mjs')
const [, file, script] = snippet

const directory = mkdtempSync(join(tmpdir(), 'wizer-ruby-'))
try {
  const install = (name, from) => {
    const at = join(directory, 'node_modules', name)
    mkdirSync(dirname(at), { recursive: true })
    symlinkSync(from, at, 'junction')
  }
  install('@jakechampion/wizer', root)
  for (const pin of [packages.find(({ id }) => id === 'ruby+stdlib'), ...tasks.ruby.beside]) install(pin.npm, unpacked(pin))
  writeFileSync(join(directory, file), script)
  const { status, stderr } = spawnSync(process.execPath, [file], { cwd: directory, encoding: 'utf8' })
  assert.equal(status, 0, stderr)

  const here = join(directory, 'vm.mjs')
  writeFileSync(here, "export { RubyVM } from '@ruby/wasm-wasi/dist/vm'")
  const { RubyVM } = await import(pathToFileURL(here).href)
  const wasi = new WASI({ version: 'preview1' })
  const vm = new RubyVM()
  const imports = { wasi_snapshot_preview1: wasi.wasiImport }
  vm.addToImports(imports)
  const { instance } = await WebAssembly.instantiate(readFileSync(join(directory, 'ruby.wasm')), imports)
  wasi.initialize({ exports: { memory: instance.exports.memory } })
  await vm.setInstance(instance)
  const evaluated = vm.eval('require "set"; [RUBY_VERSION, "é".encoding.to_s, Set[3, 1].sort].inspect').toString()
  assert.match(evaluated, /^\["3\.4\.\d+", "UTF-8", \[1, 3\]\]$/)
  console.log(`Ruby evaluates ${evaluated}`)
} finally {
  rmSync(directory, { recursive: true, force: true })
}
