// The child process of v8-judge.mjs: `node v8-run.mjs`, an Order on stdin, an
// Account on stdout. Both are described there.

import { openSync, readFileSync } from 'node:fs'
import { WASI } from 'node:wasi'
import { fastlyHost } from './fastly-host.mjs'

class ProcessExit extends Error {}

/** How often a clock is read depends on the clock. */
const isClock = (name) => name.endsWith('.clock_time_get')

/**
 * @param {import('./v8-judge.mjs').Order} order
 * @returns {import('./v8-judge.mjs').Account}
 */
function run(order) {
  const module = new WebAssembly.Module(readFileSync(order.wasm))
  const wasi = new WASI({
    version: 'preview1',
    args: ['guest'],
    env: {},
    preopens: { '.': order.directory },
    stdin: openSync(order.stdin),
    stdout: 2,
  })
  const fastly = fastlyHost(() => instance.exports.memory)
  const host = order.calls.map(() => [])
  const before = []
  let current = 0
  let reached = false

  const imports = {}
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    const isFastly = from.startsWith(order.hostPrefix)
    const implementation = isFastly ? fastly.import(from, name) : wasiImport(wasi, name)
    const fullName = `${from}.${name}`
    imports[from] ??= {}
    imports[from][name] = (...args) => {
      reached ||= isFastly
      if (!isClock(fullName)) {
        host[current].push(fullName)
        if (!reached) before.push(fullName)
      }
      return implementation(...args)
    }
  }

  const start = performance.now()
  const instance = new WebAssembly.Instance(module, imports)
  // Only gives node:wasi the memory: the module's own `_initialize` is one of the calls.
  wasi.initialize({ exports: { memory: instance.exports.memory } })

  let error
  try {
    for (; current < order.calls.length; current++) {
      const name = order.calls[current]
      if (!instance.exports[name]) throw new Error(`there is no export ${name}`)
      instance.exports[name]()
    }
  } catch (cause) {
    error = String(cause)
  }
  return {
    imports: WebAssembly.Module.imports(module).map((item) => `${item.module}.${item.name}`),
    exports: WebAssembly.Module.exports(module).map((item) => item.name),
    host,
    before,
    reached,
    response: fastly.response,
    unsupported: fastly.unsupported,
    error,
    msToResponse: performance.now() - start,
  }
}

function wasiImport(wasi, name) {
  if (name === 'proc_exit') {
    return (status) => {
      throw new ProcessExit(`proc_exit(${status})`)
    }
  }
  const implementation = wasi.wasiImport[name]
  if (!implementation) throw new Error(`node:wasi has no ${name}`)
  return implementation
}

process.stdout.write(JSON.stringify(run(JSON.parse(readFileSync(0, 'utf8')))))
