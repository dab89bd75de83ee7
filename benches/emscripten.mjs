#!/usr/bin/env node
// Modules of Emscripten that call, throw and jump through a table while they are initialized: wasmoon (Lua), z3-solver and
// magick-wasm. V8 does the same to the original, and has to have the same memory byte by byte; then the package's own
// JavaScript works with the output.
//
//   node emscripten.mjs [NAME...]

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Session, snapshot } from '../index.mjs'

const require = createRequire(import.meta.url)

/** An `invoke_*`: calls a slot, and sets a flag where that throws a number. The module exports what it needs by these names. */
const invoke = (host, result, { save, restore, setThrew }) => (slot, ...args) => {
  const stack = host.call(save)
  try {
    return host.callIndirect(undefined, slot, ...args)
  } catch (error) {
    host.call(restore, stack)
    if (typeof error !== 'number') throw error
    host.call(setThrew, 1, 0)
    return result
  }
}

function jump() {
  throw Infinity
}

/** Imports of these names: `invoke_*` and `longjmp` work, and all others do nothing. `calls` counts. */
function env(host, names, exported, calls = {}) {
  const imports = {}
  for (const name of names) {
    const isInvoke = name.startsWith('invoke_')
    const call = isInvoke ? invoke(host, name.startsWith('invoke_j') ? 0n : 0, exported) : name === '_emscripten_throw_longjmp' ? jump : () => 0
    imports[name] = (...args) => {
      calls[name] = (calls[name] ?? 0) + 1
      return call(...args)
    }
  }
  return imports
}

const functionNames = (bytes) =>
  WebAssembly.Module.imports(new WebAssembly.Module(bytes)).filter(({ kind }) => kind === 'function').map(({ name }) => name)

/** An instance in V8 and, for its imports, the host that wizer would give them. */
function inV8(bytes, make, memory) {
  const the = (type) => Object.values(exports).find((value) => value instanceof type)
  const host = {
    call: (name, ...args) => exports[name](...args),
    callIndirect: (_, slot, ...args) => the(WebAssembly.Table).get(slot)(...args),
  }
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), make(host))
  return { exports, memory: () => new Uint8Array((memory ?? the(WebAssembly.Memory)).buffer) }
}

/** Asserts that two memories are the same. */
function sameBytes(ours, theirs) {
  assert.equal(ours.length, theirs.length)
  const CHUNK = 1 << 26
  for (let at = 0; at < ours.length; at += CHUNK) {
    const [one, other] = [ours, theirs].map((memory) => Buffer.from(memory.buffer, at, Math.min(CHUNK, memory.length - at)))
    if (one.equals(other)) continue
    const differs = one.findIndex((byte, i) => byte !== other[i])
    assert.fail(`byte ${at + differs} is ${one[differs]}, and ${other[differs]} in V8`)
  }
}

const count = (calls) => Object.entries(calls).reduce((sum, [name, n]) => sum + (name.startsWith('invoke_') ? n : 0), 0)

/** A Lua state with its libraries, in which a script has run that jumps. */
async function wasmoon() {
  const bytes = readFileSync(require.resolve('wasmoon/dist/glue.wasm'))
  const names = functionNames(bytes)
  const exported = { save: 'stackSave', restore: 'stackRestore', setThrew: 'setThrew' }
  const make = (calls) => (host) => {
    const imports = env(host, names, exported, calls)
    return { env: imports, wasi_snapshot_preview1: imports }
  }
  const calls = {}
  const session = await Session.create(bytes, { imports: make(calls) })
  const theirs = inV8(bytes, make())
  const both = async (name, ...args) => {
    const ours = await session.call(name, ...args)
    assert.equal(ours, theirs.exports[name](...args), `${name} gives the same as in V8`)
    return ours
  }
  await both('emscripten_stack_init')
  await both('__wasm_call_ctors')
  const lua = await both('luaL_newstate')
  await both('luaL_openlibs', lua)
  sameBytes(inV8(await session.snapshot(), make()).memory(), theirs.memory())

  const script = `
    local ok, message = pcall(error, { code = 7 })
    words = {}
    for word in ("state from before"):gmatch("%a+") do words[#words + 1] = word:upper() end
    function tell(name) return table.concat(words, "-") .. " " .. name .. " " .. tostring(ok) .. " " .. message.code end`
  await session.register('lua')
  await session.instantiate('driver', `(module
    (import "lua" "memory" (memory 1))
    (import "lua" "malloc" (func $malloc (param i32) (result i32)))
    (import "lua" "luaL_loadstring" (func $load (param i32 i32) (result i32)))
    (import "lua" "lua_pcallk" (func $pcall (param i32 i32 i32 i32 i32 i32) (result i32)))
    (data $script ${JSON.stringify(script)} "\\00")
    (func (export "run") (param $lua i32) (result i32) (local $at i32)
      (local.set $at (call $malloc (i32.const ${script.length + 1})))
      (memory.init $script (local.get $at) (i32.const 0) (i32.const ${script.length + 1}))
      (i32.or
        (call $load (local.get $lua) (local.get $at))
        (call $pcall (local.get $lua) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))`)
  assert.equal(await session.callBeside('driver', 'run', lua), 0, 'the script runs')
  assert.ok(calls._emscripten_throw_longjmp > 0, 'the script jumps')
  const output = await session.snapshot()
  await session.close()

  const directory = mkdtempSync(join(tmpdir(), 'wizer-wasmoon-'))
  try {
    const path = join(directory, 'glue.wasm')
    writeFileSync(path, output)
    const { LuaFactory, LuaThread } = require('wasmoon')
    const thread = new LuaThread(await new LuaFactory(path).getLuaModule(), [], lua)
    thread.loadString("return tell('wasmoon'), pcall(error, 'again')")
    assert.deepEqual([...thread.runSync()], ['STATE-FROM-BEFORE wasmoon false 7', false, 'again'])
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  return `${count(calls)} calls by invoke_*, ${calls._emscripten_throw_longjmp} of which jumped; the state is used by wasmoon itself`
}

/** The constructors of z3, whose memory is imported, shared and not exported. */
async function z3() {
  const bytes = readFileSync(require.resolve('z3-solver/build/z3-built.wasm'))
  const names = functionNames(bytes)
  const pages = 32768
  const exported = { save: 'emscripten_stack_get_current', restore: '_emscripten_stack_restore', setThrew: 'setThrew' }
  const make = (memory, calls) => (host) => {
    const imports = env(host, names, exported, calls)
    return { env: { ...imports, memory }, wasi_snapshot_preview1: imports }
  }
  const calls = {}
  const { wasm } = await snapshot(bytes, { initFunc: '__wasm_call_ctors', keepInitFunc: 'empty', imports: make({ initial: pages, maximum: pages }, calls) })
  assert.ok(count(calls) > 0, 'the constructors invoke')
  const run = (module, calls) => {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
    const instance = inV8(module, make(memory, calls), memory)
    instance.exports.__wasm_call_ctors()
    return instance.memory()
  }
  const inOutput = {}
  const ours = run(wasm, inOutput)
  assert.equal(count(inOutput), 0, 'the output does not run them again')
  sameBytes(ours, run(bytes))
  return `${count(calls)} calls by invoke_*`
}

/** The constructors of ImageMagick. Names in its module are minified: its JavaScript knows what they mean. */
async function magick() {
  // Of version 0.0.43, as `dist/index.js` has them.
  const minified = { init: 'pb', save: 'Bo', restore: 'Ao', setThrew: 'yo' }
  const script = require.resolve('@imagemagick/magick-wasm')
  const bytes = readFileSync(join(dirname(script), 'x86', 'magick.wasm'))

  // What the package gives its module, and a picture that it makes.
  let given
  const { instantiate } = WebAssembly
  WebAssembly.instantiate = (wasm, imports) => {
    given = imports
    return instantiate.call(WebAssembly, wasm, imports)
  }
  const draw = async (wasm, name) => {
    const { ImageMagick, MagickColors, MagickFormat, initializeImageMagick } = await import(`${pathToFileURL(script.replace(/[^/\\]*$/, 'index.js'))}?${name}`)
    await initializeImageMagick(wasm)
    return ImageMagick.read(MagickColors.Red, 80, 60, (image) => {
      image.rotate(30)
      image.resize(40, 40)
      return image.write(MagickFormat.Rgba, (pixels) => Buffer.from(pixels))
    })
  }
  const picture = await draw(bytes, 'original').finally(() => {
    WebAssembly.instantiate = instantiate
  })

  const isInvoke = (source) => /catch/.test(source) && /\(1, 0\)/.test(source)
  const make = (host) => {
    const a = {}
    for (const [name, own] of Object.entries(given.a)) {
      a[name] = isInvoke(String(own)) ? invoke(host, 0, minified) : () => 0
    }
    return { a }
  }
  const { wasm } = await snapshot(bytes, { initFunc: minified.init, keepInitFunc: 'empty', imports: make })
  const [ours, theirs] = [wasm, bytes].map((module) => {
    const instance = inV8(module, make)
    instance.exports[minified.init]()
    return instance.memory()
  })
  sameBytes(ours, theirs)
  assert.ok(picture.equals(await draw(wasm, 'output')), 'the output draws the same picture')
  return `a picture of ${picture.length} bytes is the same`
}

const subjects = { wasmoon, z3, magick }
const wanted = process.argv.slice(2)
for (const name of wanted.length > 0 ? wanted : Object.keys(subjects)) {
  if (!subjects[name]) throw new Error(`there is no ${name}, but ${Object.keys(subjects).join(', ')}`)
  const start = performance.now()
  const told = await subjects[name]()
  console.log(`ok     ${name}: ${told} (${((performance.now() - start) / 1000).toFixed(1)} s)`)
}
// z3's own script is not loaded, but wasmoon's holds the process.
process.exit()
