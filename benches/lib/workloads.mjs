// The rows of bench.mjs: what is initialized, by whom, and what we want of it.

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { unpacked } from '../compat/lib/fetch.mjs'
import { packages } from '../compat/packages.mjs'
import { buildGo } from './go.mjs'
import { bigScript, fastly, helloScript, lodashScript } from './inputs.mjs'

const require = createRequire(import.meta.url)
const here = dirname(fileURLToPath(import.meta.url))
const guest = (name) => join(here, '..', 'guests', `${name}.wasm`)

/**
 * One row.
 *
 * @typedef {object} Workload
 * @property {string} name
 * @property {string} file                the module, as a path
 * @property {string[]} [args]            for both command lines, without the output
 * @property {object} options             the same for `await wizer(bytes, options)`, beside which V8 initializes the module too
 * @property {string} [stdin]
 * @property {Record<string, string>} [env]
 * @property {'cli' | 'process'} ours     our command line, or `await wizer(bytes)` in a Node that runs already
 * @property {() => void} [prepare]       makes the file
 * @property {string} [initFunc]          `wizer.initialize` unless given
 * @property {string[]} [ownArgs]         what only our command line needs
 * @property {string[]} [peerArgs]        what only the peer needs
 * @property {'optimizing'} [besideEngine]  what stands in for the peer, which refuses the module: ours with this engine
 * @property {boolean} [warm]             whether our cache holds what an earlier run left
 * @property {number} time                the ratio of times, peer ÷ ours, that we want
 * @property {number} [memory]            the same of peak memory, 1 unless given
 */

/**
 * @param {string} directory  where scripts and modules may be written
 * @returns {Workload[]}
 */
export function workloads(directory) {
  const input = fastly()
  for (const script of [helloScript(), lodashScript(), bigScript()]) writeFileSync(join(directory, script.name), script.source)
  const spidermonkey = (script) => ({
    file: input.path,
    args: ['--inherit-env=true', '--allow-wasi', '--dir=.', '-r', '_start=wizer.resume', '--wasm-bulk-memory=true'],
    options: { inheritEnv: true, allowWasi: true, dirs: ['.'], renameFuncs: { _start: 'wizer.resume' } },
    stdin: input.stdin(script),
    env: input.env,
  })
  const reactor = (file) => ({ file, args: ['--allow-wasi'], options: { allowWasi: true } })

  const clock = join(directory, 'clock.wasm')
  const computing = join(directory, 'computing.wasm')
  const wizer = require('../../index.js')
  mkdirSync(directory, { recursive: true })
  writeFileSync(clock, assemble(wizer, CLOCK))
  writeFileSync(computing, assemble(wizer, COMPUTING))
  const go = join(directory, 'go.wasm')
  const swc = join(directory, 'swc.wasm')

  return [
    { name: 'fastly.wasm, hello world, command line', ...spidermonkey('hello.js'), ours: 'cli', time: 16, memory: 3 },
    { name: 'fastly.wasm, hello world, in process', ...spidermonkey('hello.js'), ours: 'process', time: 22 },
    { name: 'fastly.wasm, + lodash, in process', ...spidermonkey('lodash.js'), ours: 'process', time: 14 },
    { name: 'fastly.wasm, 5 MB of JavaScript, cold', ...spidermonkey('big.js'), ours: 'cli', time: 5 },
    { name: 'fastly.wasm, 5 MB of JavaScript, cache warm', ...spidermonkey('big.js'), ours: 'cli', warm: true, time: 6 },
    { name: 'ruby.wasm, its constructors, command line', ...ruby(), ours: 'cli', time: 20 },
    { name: 'ruby.wasm, _initialize, in process', ...ruby(), ours: 'process', time: 50 },
    {
      name: '@next/swc-wasm-nodejs, __wbindgen_start, in process',
      file: swc,
      prepare: () => copyFileSync(join(unpacked(SWC), 'wasm_bg.wasm'), swc),
      initFunc: '__wbindgen_start',
      // It has the host fill a table of external references, which an output cannot hold.
      options: { stubs: { '*.*': 0 } },
      besideEngine: 'optimizing',
      ours: 'process',
      time: 30,
    },
    { name: 'a Go reactor, in process', ...reactor(go), prepare: () => buildGo(go), ours: 'process', time: 20 },
    { name: 'a regex module, in process', ...reactor(guest('regex')), ours: 'process', time: 25 },
    { name: 'a user-agent parser, in process', ...reactor(guest('user-agent')), ours: 'process', time: 4, memory: 2 },
    {
      name: 'an import, then 0.5 s of computing, in process',
      file: computing,
      args: [],
      options: { imports: { env: { now: 'clock' } } },
      peerArgs: ['--preload', `env=${clock}`],
      ours: 'process',
      time: 1,
    },
  ]
}

/** CRuby, of the package that `npm run compat` tries; the peer needs no stubs for what is not called. */
function ruby() {
  const entry = packages.find(({ id }) => id === 'ruby')
  return {
    file: join(unpacked(entry), entry.file),
    initFunc: entry.initFunc,
    args: ['--allow-wasi'],
    ownArgs: ['--stub', '*.*=trap'],
    options: { allowWasi: true, stubs: { '*.*': 'trap' } },
  }
}

/** 30 MB of Rust, with external references. */
const SWC = {
  npm: '@next/swc-wasm-nodejs',
  version: '16.3.7',
  integrity: 'sha512-veevK76P+HoNyAauLOvSGwu6IBborZ+/hgCwBDSuw3CkI8Z1vIuQG8HaQL43v9pg62ObSv4oWlPWo7tRTVD/6g==',
}

/** Assembles text: the output of a run that does nothing is the module itself, without its own export. */
function assemble({ wizerSync }, text) {
  return wizerSync(text, { keepInitFunc: true, initFunc: 'nothing', engine: 'interpreter' })
}

const CLOCK = `(module (func (export "now") (result i32) (i32.const 1)) (func (export "nothing")))`

/** Calls an import, and then hashes its own memory for some 0.5 s of a compiled loop. */
const COMPUTING = `(module
  (import "env" "now" (func $now (result i32)))
  (memory (export "memory") 16)
  (global $sum (export "sum") (mut i32) (i32.const 0))
  (func (export "nothing"))
  (func (export "wizer.initialize")
    (local $round i32) (local $at i32) (local $hash i32)
    (local.set $hash (call $now))
    (loop $rounds
      (local.set $at (i32.const 0))
      (loop $words
        (local.set $hash (i32.add
          (i32.mul (i32.xor (local.get $hash) (i32.load (local.get $at))) (i32.const 16777619))
          (i32.rotl (local.get $hash) (i32.const 13))))
        (i32.store (local.get $at) (local.get $hash))
        (br_if $words (i32.lt_u
          (local.tee $at (i32.add (local.get $at) (i32.const 4)))
          (i32.const 1048576))))
      (br_if $rounds (i32.lt_u
        (local.tee $round (i32.add (local.get $round) (i32.const 1)))
        (i32.const 1450))))
    (global.set $sum (local.get $hash))))`

/** 48 MB of which no byte is zero: every word a number that looks random. */
export const DENSE = `(module
  (memory (export "memory") 768)
  (func (export "wizer.initialize")
    (local $at i32) (local $random i64)
    (local.set $random (i64.const 88172645463325252))
    (loop $words
      (local.set $random (i64.xor (local.get $random) (i64.shl (local.get $random) (i64.const 13))))
      (local.set $random (i64.xor (local.get $random) (i64.shr_u (local.get $random) (i64.const 7))))
      (local.set $random (i64.xor (local.get $random) (i64.shl (local.get $random) (i64.const 17))))
      (i64.store (local.get $at) (i64.or (local.get $random) (i64.const 0x0101010101010101)))
      (br_if $words (i32.lt_u
        (local.tee $at (i32.add (local.get $at) (i32.const 8)))
        (i32.const 50331648))))))`

/** 4 GiB of address space, of which 64 KiB in the middle are in use. */
export const WIDE = `(module
  (memory (export "memory") 65536)
  (func (export "wizer.initialize")
    (memory.fill (i32.const 0x80000000) (i32.const 7) (i32.const 65536))))`

/** @param {string} file */
export const read = (file) => readFileSync(file)
