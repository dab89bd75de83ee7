// An assembler for the fixtures: WebAssembly text to the binary format, for as much of both as the tests use. With it
// the original module of a test has not passed through wizer, so that V8 can compare the two.
//
// Known: types, imports, functions, memories (also 64-bit and several), tables of funcref, globals, exports, start,
// data and element segments, numeric and memory instructions, folded or not; blocks only folded. Names of functions
// end up in the name section.

// ----- text to nested lists -----

/** Reads text into lists of tokens; a string token is a `Text`. */
function read(text) {
  const tokens = text.matchAll(/;;[^\n]*|\(;[^]*?;\)|\s+|([()])|"((?:[^"\\]|\\[^])*)"|([^\s()";]+)/g)
  const root = []
  const open = [root]
  let end = 0
  for (const { 0: all, 1: parenthesis, 2: string, 3: atom, index } of tokens) {
    if (index !== end) throw new SyntaxError(`unexpected ${text.slice(end, index)}`)
    end = index + all.length
    const list = open.at(-1)
    if (parenthesis === '(') {
      open.push([])
      list.push(open.at(-1))
    } else if (parenthesis) open.pop()
    else if (string !== undefined) list.push(new Text(string))
    else if (atom !== undefined) list.push(atom)
  }
  if (end !== text.length || open.length !== 1 || root.length !== 1) throw new SyntaxError('unbalanced text')
  return root[0]
}

/** A string of the text format, as its bytes. */
class Text {
  constructor(source) {
    const bytes = []
    const named = { t: 9, n: 10, r: 13, '"': 34, "'": 39, '\\': 92 }
    for (const [, hex, escape, plain] of source.matchAll(/\\([0-9a-fA-F]{2})|\\([tnr"'\\])|([^\\]+)/g)) {
      if (hex) bytes.push(parseInt(hex, 16))
      else if (escape) bytes.push(named[escape])
      else bytes.push(...Buffer.from(plain))
    }
    this.bytes = bytes
  }

  get name() {
    return [...unsigned(this.bytes.length), ...this.bytes]
  }
}

// ----- the binary format -----

function unsigned(value) {
  const bytes = []
  let rest = BigInt(value)
  do {
    const more = rest > 127n
    bytes.push(Number(rest & 127n) | (more ? 128 : 0))
    rest >>= 7n
  } while (rest > 0n)
  return bytes
}

function signed(value) {
  const bytes = []
  for (;;) {
    const byte = Number(value & 127n)
    value >>= 7n
    if (value === (byte & 64 ? -1n : 0n)) return [...bytes, byte]
    bytes.push(byte | 128)
  }
}

/** An integer of the text format: `-5`, `0x1f`, `1_000`. */
function integer(text) {
  const digits = text.replaceAll('_', '')
  return digits.startsWith('-') ? -BigInt(digits.slice(1)) : BigInt(digits.replace(/^\+/, ''))
}

function float(text, size) {
  const known = { nan: NaN, inf: Infinity, '-inf': -Infinity }
  const bytes = Buffer.alloc(size)
  const value = text in known ? known[text] : Number(text)
  if (size === 4) bytes.writeFloatLE(value)
  else bytes.writeDoubleLE(value)
  return [...bytes]
}

const vector = (items) => [...unsigned(items.length), ...items.flat()]
const sized = (bytes) => [...unsigned(bytes.length), ...bytes]
const section = (id, items) => (items.length === 0 ? [] : [id, ...sized(vector(items))])

/** A custom section, to be put behind a module. */
export const customSection = (name, bytes) => Uint8Array.from([0, ...sized([...sized([...Buffer.from(name)]), ...bytes])])

const TYPES = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b, funcref: 0x70, externref: 0x6f }
const KINDS = { func: 0, table: 1, memory: 2, global: 3 }
const HEAP_TYPES = { func: 0x70, extern: 0x6f }

// From 0x45 on, without a gap.
const NUMERIC = `
  i32.eqz i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u i32.ge_s i32.ge_u
  i64.eqz i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u i64.ge_s i64.ge_u
  f32.eq f32.ne f32.lt f32.gt f32.le f32.ge f64.eq f64.ne f64.lt f64.gt f64.le f64.ge
  i32.clz i32.ctz i32.popcnt i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u
  i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr
  i64.clz i64.ctz i64.popcnt i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u
  i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr
  f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign
  f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign
  i32.wrap_i64 i32.trunc_f32_s i32.trunc_f32_u i32.trunc_f64_s i32.trunc_f64_u i64.extend_i32_s i64.extend_i32_u
  i64.trunc_f32_s i64.trunc_f32_u i64.trunc_f64_s i64.trunc_f64_u f32.convert_i32_s f32.convert_i32_u f32.convert_i64_s
  f32.convert_i64_u f32.demote_f64 f64.convert_i32_s f64.convert_i32_u f64.convert_i64_s f64.convert_i64_u f64.promote_f32
  i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64
  i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s`.trim().split(/\s+/)

// From 0x28 on, without a gap, each with the binary logarithm of its natural alignment.
const MEMORY = `
  i32.load:2 i64.load:3 f32.load:2 f64.load:3 i32.load8_s:0 i32.load8_u:0 i32.load16_s:1 i32.load16_u:1
  i64.load8_s:0 i64.load8_u:0 i64.load16_s:1 i64.load16_u:1 i64.load32_s:2 i64.load32_u:2
  i32.store:2 i64.store:3 f32.store:2 f64.store:3 i32.store8:0 i32.store16:1 i64.store8:0 i64.store16:1 i64.store32:2`
  .trim().split(/\s+/).map((entry) => entry.split(':'))

const numeric = new Map(NUMERIC.map((name, i) => [name, 0x45 + i]))
const memory = new Map(MEMORY.map(([name, align], i) => [name, [0x28 + i, Number(align)]]))
const plain = { unreachable: 0x00, nop: 0x01, return: 0x0f, drop: 0x1a, select: 0x1b, 'ref.is_null': 0xd1 }
// Instructions with one index, of the space named.
const indexed = {
  br: [0x0c, 'label'],
  br_if: [0x0d, 'label'],
  call: [0x10, 'func'],
  'local.get': [0x20, 'local'],
  'local.set': [0x21, 'local'],
  'local.tee': [0x22, 'local'],
  'global.get': [0x23, 'global'],
  'global.set': [0x24, 'global'],
  'table.get': [0x25, 'table'],
  'table.set': [0x26, 'table'],
  'ref.func': [0xd2, 'func'],
}

/** Assembles one module. */
export function assemble(text) {
  const [head, ...fields] = read(text)
  if (head !== 'module') throw new SyntaxError('not a module')
  return new Assembler(fields).bytes()
}

class Assembler {
  spaces = { type: [], func: [], table: [], memory: [], global: [], data: [], elem: [] }
  types = []
  imports = []
  functions = []
  tables = []
  memories = []
  globals = []
  exports = []
  start = []
  elements = []
  codes = []
  data = []

  constructor(fields) {
    this.fields = fields.filter(Array.isArray)
  }

  bytes() {
    // Names first: bodies and exports may look ahead.
    const later = []
    for (const field of this.fields) {
      const [kind, ...rest] = field
      const imported = kind === 'import' || rest.some((part) => part[0] === 'import')
      const work = this.field(kind, rest)
      if (imported || kind === 'type') work()
      else later.push(work)
    }
    for (const work of later) work()
    const names = this.spaces.func.map((name, i) => [i, name]).filter(([, name]) => name)
    const named = vector(names.map(([i, name]) => [...unsigned(i), ...sized([...Buffer.from(name.slice(1))])]))
    return Uint8Array.from([
      0, 97, 115, 109, 1, 0, 0, 0,
      ...section(1, this.types),
      ...section(2, this.imports),
      ...section(3, this.functions),
      ...section(4, this.tables),
      ...section(5, this.memories),
      ...section(6, this.globals),
      ...section(7, this.exports),
      ...(this.start.length > 0 ? [8, ...sized(this.start)] : []),
      ...section(9, this.elements),
      ...(this.data.length > 0 ? [12, ...sized(unsigned(this.data.length))] : []),
      ...section(10, this.codes),
      ...section(11, this.data),
      ...(names.length > 0 ? customSection('name', [1, ...sized(named)]) : []),
    ])
  }

  /** Gives the field its index, and returns what is to be done once all have theirs. */
  field(kind, rest) {
    if (kind === 'import') {
      const [module, name, [imported, ...description]] = rest
      return this.field(imported, [...description.slice(0, isName(description[0])), ['import', module, name], ...description.slice(isName(description[0]))])
    }
    if (kind === 'start') return () => (this.start = this.index('func', rest[0]))
    if (kind === 'export') return () => this.exports.push([...rest[0].name, KINDS[rest[1][0]], ...this.index(rest[1][0], rest[1][1])])
    const name = isName(rest[0]) ? rest.shift() : undefined
    const index = this.spaces[kind].push(name) - 1
    while (rest[0]?.[0] === 'export') this.exports.push([...rest.shift()[1].name, KINDS[kind], ...unsigned(index)])
    const imported = rest[0]?.[0] === 'import' ? rest.shift() : undefined
    const declare = (list, bytes) => (imported ? this.imports.push([...imported[1].name, ...imported[2].name, KINDS[kind], ...bytes]) : list.push(bytes))
    switch (kind) {
      case 'type':
        return () => this.types.push(this.signature(rest[0].slice(1)).bytes)
      case 'memory':
        return () => declare(this.memories, limits(rest))
      case 'table':
        return () => declare(this.tables, [TYPES[rest.pop()], ...limits(rest)])
      case 'global': {
        return () => {
          const [type, ...init] = rest
          const mutable = type[0] === 'mut'
          const bytes = [TYPES[mutable ? type[1] : type], Number(mutable)]
          declare(this.globals, imported ? bytes : [...bytes, ...this.expression(init)])
        }
      }
      case 'data':
        return () => {
          const target = Array.isArray(rest[0]) && rest[0][0] === 'memory' ? this.index('memory', rest.shift()[1]) : [0]
          const offset = Array.isArray(rest[0]) ? this.expression([rest.shift()]) : undefined
          const bytes = sized(rest.flatMap((text) => text.bytes))
          if (!offset) this.data.push([1, ...bytes])
          else this.data.push(target[0] === 0 ? [0, ...offset, ...bytes] : [2, ...target, ...offset, ...bytes])
        }
      case 'elem':
        return () => {
          const declared = rest[0] === 'declare' && rest.shift()
          const offset = Array.isArray(rest[0]) ? this.expression([rest.shift()]) : undefined
          if (rest[0] === 'func') rest.shift()
          const functions = vector(rest.map((name) => this.index('func', name)))
          if (offset) this.elements.push([0, ...offset, ...functions])
          else this.elements.push([declared ? 3 : 1, 0, ...functions])
        }
      case 'func':
        return () => {
          const { bytes, names, rest: body } = this.signature(rest)
          const type = unsigned(this.typeIndex(bytes))
          declare(this.functions, type)
          if (imported) return
          const locals = []
          while (body[0]?.[0] === 'local') {
            const [, ...list] = body.shift()
            if (isName(list[0])) names.push(list.shift())
            else names.push(...list.map(() => undefined))
            locals.push(...list)
          }
          this.locals = names
          this.labels = []
          this.codes.push(sized([...vector(locals.map((type) => [1, TYPES[type]])), ...this.expression(body)]))
        }
    }
    throw new SyntaxError(`unknown field ${kind}`)
  }

  /** A type, given or referred to, with the names of its parameters and what follows it. */
  signature(list) {
    const rest = [...list]
    const lists = { param: [], result: [] }
    const names = []
    let given
    if (rest[0]?.[0] === 'type') given = this.types[this.index('type', rest.shift()[1])[0]]
    while (rest[0]?.[0] === 'param' || rest[0]?.[0] === 'result') {
      const [which, ...types] = rest.shift()
      const name = isName(types[0]) ? types.shift() : undefined
      if (which === 'param') names.push(...types.map(() => name))
      lists[which].push(...types.map((type) => [TYPES[type]]))
    }
    return { bytes: given ?? [0x60, ...vector(lists.param), ...vector(lists.result)], names, rest }
  }

  typeIndex(bytes) {
    const known = this.types.findIndex((type) => type.join() === bytes.join())
    if (known >= 0) return known
    this.spaces.type.push(undefined)
    return this.types.push(bytes) - 1
  }

  index(space, name) {
    if (!isName(name)) return unsigned(name)
    const names = space === 'local' ? this.locals : space === 'label' ? this.labels : this.spaces[space]
    const index = names.lastIndexOf(name)
    if (index < 0) throw new SyntaxError(`unknown ${space} ${name}`)
    return unsigned(space === 'label' ? names.length - 1 - index : index)
  }

  expression(list) {
    return [...this.instructions([...list]), 0x0b]
  }

  instructions(list) {
    const bytes = []
    while (list.length > 0) {
      const next = list.shift()
      if (Array.isArray(next)) bytes.push(...this.folded([...next]))
      else bytes.push(...this.instruction(next, list))
    }
    return bytes
  }

  folded(list) {
    const op = list.shift()
    if (op === 'block' || op === 'loop' || op === 'if') {
      const label = isName(list[0]) ? list.shift() : undefined
      const type = list[0]?.[0] === 'result' ? TYPES[list.shift()[1]] : 0x40
      if (op !== 'if') return this.labelled(label, () => [op === 'block' ? 0x02 : 0x03, type, ...this.expression(list)])
      const [, otherwise] = list.at(-1)[0] === 'else' ? [null, list.pop()] : []
      const [, ...then] = list.pop()
      const condition = this.instructions(list)
      return this.labelled(label, () => [
        ...condition, 0x04, type, ...this.instructions(then),
        ...(otherwise ? [0x05, ...this.instructions(otherwise.slice(1))] : []), 0x0b,
      ])
    }
    // Immediates stand before the operands.
    const instruction = this.instruction(op, list)
    return [...this.instructions(list), ...instruction]
  }

  labelled(label, work) {
    this.labels.push(label)
    const bytes = work()
    this.labels.pop()
    return bytes
  }

  /** One instruction, whose immediates are taken from the front of `list`. */
  instruction(op, list) {
    const optional = (space) => (isName(list[0]) ? this.index(space, list.shift()) : [0])
    if (op in plain) return [plain[op]]
    if (numeric.has(op)) return [numeric.get(op)]
    if (op in indexed) return [indexed[op][0], ...this.index(indexed[op][1], list.shift())]
    if (memory.has(op)) {
      const [opcode, align] = memory.get(op)
      const [index] = optional('memory')
      const offset = list[0]?.startsWith?.('offset=') ? list.shift().slice(7) : 0
      return [opcode, ...(index ? [align | 64, index] : [align]), ...unsigned(offset)]
    }
    switch (op) {
      case 'i32.const':
        return [0x41, ...signed(BigInt.asIntN(32, integer(list.shift())))]
      case 'i64.const':
        return [0x42, ...signed(BigInt.asIntN(64, integer(list.shift())))]
      case 'f32.const':
        return [0x43, ...float(list.shift(), 4)]
      case 'f64.const':
        return [0x44, ...float(list.shift(), 8)]
      case 'ref.null':
        return [0xd0, HEAP_TYPES[list.shift()]]
      case 'memory.size':
        return [0x3f, ...optional('memory')]
      case 'memory.grow':
        return [0x40, ...optional('memory')]
      case 'memory.init':
        return [0xfc, 8, ...this.index('data', list.shift()), 0]
      case 'data.drop':
        return [0xfc, 9, ...this.index('data', list.shift())]
      case 'memory.copy':
        return [0xfc, 10, 0, 0]
      case 'memory.fill':
        return [0xfc, 11, ...optional('memory')]
      case 'call_indirect':
        return [0x11, ...this.index('type', list.shift()[1]), 0]
      default:
        throw new SyntaxError(`unknown instruction ${op}`)
    }
  }
}

const isName = (token) => typeof token === 'string' && token.startsWith('$')

function limits(list) {
  const wide = list[0] === 'i64' && list.shift()
  const [min, max] = list
  return [(wide ? 4 : 0) | (max === undefined ? 0 : 1), ...unsigned(integer(min)), ...(max === undefined ? [] : unsigned(integer(max)))]
}

/** Whether the V8 of this Node compiles a module with these fields: another version may be too old. */
export const hostRuns = (fields) => WebAssembly.validate(assemble(`(module ${fields})`))
