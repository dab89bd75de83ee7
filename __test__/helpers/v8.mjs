// V8 as the judge: runs modules without wizer, and compares what they have become.

import assert from 'node:assert/strict'

/** What V8 gives a module that imports functions nobody should call any more. */
export function stubs(module, provided = {}) {
  const imports = { ...provided }
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (provided[from]?.[name] !== undefined) continue
    if (kind !== 'function') throw new Error(`nothing provides the ${kind} ${from}.${name}`)
    const stub = () => {
      throw new Error(`the output called ${from}.${name}`)
    }
    imports[from] = { ...imports[from], [name]: stub }
  }
  return imports
}

/** The exports of a new instance. */
export function start(wasm, imports) {
  const module = new WebAssembly.Module(wasm)
  return new WebAssembly.Instance(module, stubs(module, imports)).exports
}

export const exportNames = (wasm) => WebAssembly.Module.exports(new WebAssembly.Module(wasm)).map(({ name }) => name)

/** All that can be seen of an instance's state: its exported memories, globals and tables. */
export function state(exports) {
  const seen = {}
  for (const [name, value] of Object.entries(exports)) {
    if (value instanceof WebAssembly.Memory) seen[name] = Buffer.from(value.buffer)
    else if (value instanceof WebAssembly.Global) seen[name] = value.value
    else if (value instanceof WebAssembly.Table) {
      seen[name] = Array.from({ length: value.length }, (_, slot) => value.get(slot)?.name ?? null)
    }
  }
  return seen
}

/**
 * Asserts that an output starts as the original is after its initialization, and that it exports the same, without
 * what initializes it.
 */
export function assertInitialized(output, original, { init = 'wizer.initialize', keep = false, imports, originalImports = imports } = {}) {
  const before = start(original, originalImports)
  before._initialize?.()
  if (init !== '_initialize') before[init]()
  const after = start(output, imports)
  const gone = new Set(['_initialize', ...(keep ? [] : [init])])
  assert.deepEqual(exportNames(output), exportNames(original).filter((name) => !gone.has(name)))
  assert.deepEqual(state(after), state(before))
  return after
}
