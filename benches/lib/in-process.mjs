// A process that initializes one module itself, and prints how long that took, in milliseconds:
//
//   node in-process.mjs wizer|v8 '{ "file", "output", "options", "stdin", "report" }'
//
// `options` are wizer's, and what V8 does follows them as far as the rows need it. With `report`, a path, wizer's
// report is written there: not for timing. The clock starts when the bytes are there and the addon is loaded, as V8 is.

import { openSync, readFileSync, writeFileSync } from 'node:fs'
import { WASI } from 'node:wasi'
import wizer from '../../index.js'

const HOST = { clock: { env: { now: () => 1 } } }

const [, , by, json] = process.argv
const order = JSON.parse(json)
const { imports: given, ...options } = order.options
const host = given ? HOST[given.env.now] : {}
const bytes = readFileSync(order.file)
const ms = await { wizer: byWizer, v8: byV8 }[by]()
process.stdout.write(String(ms))

async function byWizer() {
  if (given) options.imports = host
  if (order.stdin !== undefined) options.stdin = Buffer.from(order.stdin)
  // In a process that has used it before: loading the addon is over.
  wizer.wizerSync('(module (func (export "wizer.initialize")))')
  const begin = performance.now()
  const { wasm, report } = order.report ? await wizer.snapshot(bytes, options) : { wasm: await wizer.wizer(bytes, options) }
  const ms = performance.now() - begin
  writeFileSync(order.output, wasm)
  if (order.report) writeFileSync(order.report, JSON.stringify(report))
  return ms
}

/** What a program waits for that is not initialized: V8 compiles as it goes. */
async function byV8() {
  const stdin = `${order.output}.stdin`
  writeFileSync(stdin, order.stdin ?? '')
  const { initFunc = 'wizer.initialize', stubs } = options
  const ofWasi = { version: 'preview1', args: ['guest'], env: process.env, preopens: { '.': '.' }, stdin: openSync(stdin) }
  const begin = performance.now()
  const wasi = new WASI(ofWasi)
  const module = await WebAssembly.compile(bytes)
  const imports = {}
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (kind !== 'function') throw new Error(`no ${kind} for ${from}.${name}`)
    const call = host[from]?.[name] ?? (from === 'wasi_snapshot_preview1' ? wasi.wasiImport[name] : undefined)
    const missing = () => {
      if (typeof stubs?.['*.*'] !== 'number') throw new Error(`${from}.${name} was called`)
      return stubs['*.*']
    }
    // Plain functions in between: V8's fast calls into node:wasi crashed in Node 20 and 22.
    // https://github.com/nodejs/node/issues/53087
    imports[from] ??= {}
    imports[from][name] = call ? (...args) => call(...args) : missing
  }
  const { exports } = await WebAssembly.instantiate(module, imports)
  wasi.initialize({ exports: { memory: exports.memory } })
  exports._initialize?.()
  if (initFunc !== '_initialize') exports[initFunc]()
  const ms = performance.now() - begin
  writeFileSync(order.output, '')
  return ms
}
