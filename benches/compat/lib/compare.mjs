// Is the state of two instances the same: every byte of every memory, every slot of every table, every global?

import { expose } from './expose.mjs'

/**
 * An instance in V8 whose whole state can be seen.
 *
 * @param {Uint8Array} wasm
 * @param {(wanted: object[], memory: () => WebAssembly.Memory) => WebAssembly.Imports} importsFor
 * @returns {{ exports: WebAssembly.Exports, state: () => State }}
 */
export function instantiate(wasm, importsFor) {
  const copy = expose(wasm)
  const module = new WebAssembly.Module(copy.wasm)
  const imports = importsFor(WebAssembly.Module.imports(module), () => exports[copy.memories[0]])
  const { exports } = new WebAssembly.Instance(module, imports)
  const state = () => ({
    memories: copy.memories.map((name) => exports[name]),
    tables: copy.tables.map((name) => exports[name]),
    globals: copy.globals.map((names) => names.map((name) => read(exports[name]))),
  })
  return { exports, state }
}

/**
 * What differs between two states, one line each; nothing where they are the same.
 *
 * @returns {{ differences: string[], seen: { bytes: number, slots: number, globals: number, opaque: number } }}
 *   `opaque` counts references to objects, which are compared as to whether there is one
 */
export function compare(original, output) {
  const differences = []
  const seen = { bytes: 0, slots: 0, globals: 0, opaque: 0 }
  const pairs = (kind, visit) => {
    const [left, right] = [original[kind], output[kind]]
    if (left.length !== right.length) differences.push(`${left.length} and ${right.length} ${kind}`)
    for (let index = 0; index < Math.min(left.length, right.length); index++) visit(left[index], right[index], index)
  }
  const same = (left, right, where) => {
    if (left.opaque) seen.opaque++
    if (left.text !== right.text) differences.push(`${where}: ${left.text}, in the output ${right.text}`)
  }
  pairs('memories', (left, right, index) => {
    const [bytes, others] = [Buffer.from(left.buffer), Buffer.from(right.buffer)]
    seen.bytes += bytes.length
    if (!bytes.equals(others)) differences.push(`memory ${index}: ${describeBytes(bytes, others)}`)
  })
  pairs('tables', (left, right, index) => {
    seen.slots += Number(left.length)
    if (left.length !== right.length) return void differences.push(`table ${index}: ${left.length} slots, in the output ${right.length}`)
    for (let slot = 0; slot < left.length; slot++) same(slotOf(left, slot), slotOf(right, slot), `table ${index}, slot ${slot}`)
  })
  pairs('globals', (left, right, index) => {
    seen.globals++
    left.forEach((part, at) => same(part, right[at], `global ${index}`))
  })
  return { differences, seen }
}

/** With 64-bit indices, lengths and slots are BigInts. */
const slotOf = (table, slot) => comparable(table.get(typeof table.length === 'bigint' ? BigInt(slot) : slot))

/** The value of a global, read as it is or by a function that gives its bits. */
function read(exported) {
  return comparable(typeof exported === 'function' ? exported() : exported.value)
}

/** A function is told by its index in the module, which is its name for JavaScript. */
function comparable(value) {
  if (typeof value === 'function') return { text: `function ${value.name}` }
  if (typeof value === 'object' && value !== null) return { text: 'an object', opaque: true }
  return { text: `${typeof value} ${value}` }
}

function describeBytes(left, right) {
  if (left.length !== right.length) return `${left.length} bytes, in the output ${right.length}`
  const first = left.findIndex((byte, at) => byte !== right[at])
  let count = 0
  for (let at = first; at < left.length; at++) if (left[at] !== right[at]) count++
  return `${count} bytes, the first at ${first}: ${left[first]}, in the output ${right[first]}`
}
