// A copy of a module whose state can be seen: every memory, table and global is exported by its index. The bodies of
// functions and all else stay as they are. It is made without wizer, which does something alike, as it judges wizer.

import { setFlagsFromString } from 'node:v8'

// Imports and exports then come with their types, here and for all who use this file.
setFlagsFromString('--experimental-wasm-type-reflection')

const SECTION = { type: 1, import: 2, function: 3, table: 4, memory: 5, global: 6, export: 7, code: 10, tag: 13 }
const KIND = { function: 0, table: 1, memory: 2, global: 3 }
/** The order that the binary format wants, by section id. */
const ORDER = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11]
const TYPE = { i32: 0x7f, i64: 0x7e }

/** No name of a real export begins like this. */
const PREFIX = 'wizer-compat:'

/**
 * Instructions behind `global.get` that make a value an integer, for types whose bits JavaScript cannot see: reading a
 * float may lose the payload of a NaN, and a vector cannot be read.
 */
const BITS = {
  f32: [['i32', [0xbc]]],
  f64: [['i64', [0xbd]]],
  v128: [
    ['i64', [0xfd, 0x1d, 0]],
    ['i64', [0xfd, 0x1d, 1]],
  ],
}

/**
 * @param {Uint8Array} wasm
 * @returns {{ wasm: Uint8Array, memories: string[], tables: string[], globals: string[][] }}
 *   the copy, and the names of the exports; a global has several where its bits are read by functions
 */
export function expose(wasm) {
  const sections = parse(wasm)
  const imports = WebAssembly.Module.imports(new WebAssembly.Module(wasm))
  const count = (kind) => imports.filter((item) => item.kind === kind).length + vectorLength(sections, SECTION[kind])
  const named = (kind) => Array.from({ length: count(kind) }, (_, index) => [`${PREFIX}${kind}${index}`, KIND[kind], index])

  const [memories, tables, globals] = ['memory', 'table', 'global'].map(named)
  const seen = append(sections, SECTION.export, [...memories, ...tables, ...globals].map(exportOf))

  // Only V8 knows the types of the globals by now: the text of their initializers was not read.
  const types = new Map(WebAssembly.Module.exports(new WebAssembly.Module(join(seen))).map(({ name, type }) => [name, type?.value]))
  const functions = { types: [], bodies: [], exports: [] }
  const readers = globals.map(([name, , index]) => {
    const reads = BITS[types.get(name)]
    if (!reads) return [name]
    return reads.map(([result, instructions], part) => {
      const reader = `${name}.${part}`
      functions.exports.push(exportOf([reader, KIND.function, count('function') + functions.bodies.length]))
      functions.types.push(result)
      functions.bodies.push(bodyOf([0x23, ...leb(index), ...instructions]))
      return reader
    })
  })
  return {
    wasm: join(addFunctions(seen, functions)),
    memories: memories.map(([name]) => name),
    tables: tables.map(([name]) => name),
    globals: readers,
  }
}

function addFunctions(sections, { types, bodies, exports }) {
  if (bodies.length === 0) return sections
  const first = countTypes(sections.get(SECTION.type))
  const results = Object.keys(TYPE)
  const withTypes = append(sections, SECTION.type, results.map((result) => [0x60, 0, 1, TYPE[result]]))
  const withFunctions = append(withTypes, SECTION.function, types.map((result) => leb(first + results.indexOf(result))))
  return append(append(withFunctions, SECTION.export, exports), SECTION.code, bodies)
}

const exportOf = ([name, kind, index]) => [...leb(name.length), ...Buffer.from(name), kind, ...leb(index)]
/** A body without locals. */
const bodyOf = (instructions) => [...leb(instructions.length + 2), 0, ...instructions, 0x0b]

/** The contents of the sections by id; custom ones are left out, as nothing runs them. */
function parse(wasm) {
  const reader = new Reader(wasm, 8)
  const sections = new Map()
  while (!reader.atEnd) {
    const id = reader.byte()
    const contents = reader.bytes(reader.u32())
    if (id !== 0) sections.set(id, contents)
  }
  return sections
}

const vectorLength = (sections, id) => (sections.has(id) ? new Reader(sections.get(id)).u32() : 0)

/** The sections with more items at the end of one. */
function append(sections, id, items) {
  const before = new Reader(sections.get(id) ?? Uint8Array.of(0))
  const length = leb(before.u32() + items.length)
  return new Map(sections).set(id, Buffer.concat([Buffer.from(length), before.rest(), ...items.map((item) => Buffer.from(item))]))
}

function join(sections) {
  const parts = [Buffer.from('\0asm\x01\0\0\0', 'latin1')]
  for (const id of ORDER) {
    const contents = sections.get(id)
    if (contents) parts.push(Buffer.from([id, ...leb(contents.length)]), contents)
  }
  return Buffer.concat(parts)
}

/** How many types a type section defines: those of a recursion group count each. */
function countTypes(contents = Uint8Array.of(0)) {
  const reader = new Reader(contents)
  let count = 0
  for (let items = reader.u32(); items > 0; items--) {
    const group = reader.peek() === 0x4e
    if (group) reader.byte()
    const members = group ? reader.u32() : 1
    for (let member = 0; member < members; member++) skipSubtype(reader)
    count += members
  }
  return count
}

function skipSubtype(reader) {
  if (reader.peek() === 0x50 || reader.peek() === 0x4f) {
    reader.byte()
    reader.vector(() => reader.u32())
  }
  if (reader.peek() === 0x65) reader.byte() // shared
  const form = reader.byte()
  const field = () => {
    skipValueType(reader)
    reader.byte()
  }
  if (form === 0x60) for (let list = 0; list < 2; list++) reader.vector(() => skipValueType(reader))
  else if (form === 0x5f) reader.vector(field)
  else if (form === 0x5e) field()
  else throw new Error(`a type of the form 0x${form.toString(16)} is not known here`)
}

function skipValueType(reader) {
  const code = reader.byte()
  if (code !== 0x63 && code !== 0x64) return
  if (reader.peek() === 0x65) reader.byte() // shared
  reader.u32() // a heap type, signed, but as long
}

/** Unsigned LEB128. */
function leb(value) {
  const bytes = []
  do {
    const more = value >= 0x80
    bytes.push((value & 0x7f) | (more ? 0x80 : 0))
    value = Math.floor(value / 0x80)
  } while (value > 0)
  return bytes
}

class Reader {
  #bytes
  #at

  constructor(bytes, at = 0) {
    this.#bytes = bytes
    this.#at = at
  }

  get atEnd() {
    return this.#at >= this.#bytes.length
  }

  peek() {
    return this.#bytes[this.#at]
  }

  byte() {
    if (this.atEnd) throw new Error('the module ends too early')
    return this.#bytes[this.#at++]
  }

  u32() {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
  }

  bytes(length) {
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  rest() {
    return this.#bytes.subarray(this.#at)
  }

  vector(item) {
    for (let length = this.u32(); length > 0; length--) item()
  }
}
