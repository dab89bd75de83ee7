'use strict'

// Calls of JavaScript functions by a module.

const { isMarkedAsUntransferable, markAsUntransferable } = require('./node.js').workerThreads
const { isAnyArrayBuffer, isGlobal, isMemory, isObjectPrototype, isSharedArrayBuffer, isTable } = require('./brands.js')
const { WizerError } = require('./error.js')
const { toBytes } = require('./options.js')
const { isOfJavaScript, isTag, paramsOf, thrownBy, toThrow } = require('./tags.js')
const { toBigInt } = require('./values.js')

/** What a function gives back, as the list of its results. */
function toResults(returned, types) {
  if (types.length === 0) return []
  if (types.length === 1) return [returned]
  const results = [...returned]
  if (results.length !== types.length) {
    throw new TypeError(`${results.length} results were returned where ${types.length} are wanted`)
  }
  return results
}

/** The functions that a run may import, and the calls of them. */
class ImportCalls {
  /**
   * @param getRun gives the native run, once there is one
   * @param values the values of the run
   * @param imports the option of that name
   */
  constructor(getRun, values, imports) {
    this.values = values
    /** What the last import threw that failed, as `{ value }`. */
    this.thrown = undefined
    /** The numbers of the module's exceptions, by what was thrown for them in JavaScript. */
    this.exceptions = new WeakMap()
    this.getRun = getRun
    this.functions = []
    /** The names of the functions, in their order. */
    this.names = []
    /** What is no function, and functions as values. */
    this.items = []
    /** The tags whose types are known. */
    this.tags = []
    const given = typeof imports === 'function' ? imports(this.host()) : imports
    if (imports === undefined) return
    if (given === null || typeof given !== 'object' || typeof given.then === 'function') {
      throw importsError('must be an object, or a function that returns one (and no promise of one)')
    }
    for (const [module, names] of Object.entries(given)) {
      if (names === null || typeof names !== 'object') throw importsError(`must hold an object at ${JSON.stringify(module)}`)
      for (const [name, value] of new Map([...methods(names), ...Object.entries(names)])) {
        if (typeof value === 'function') {
          this.functions.push(value)
          this.names.push({ module, name })
        }
        const item = toItem(value)
        if (typeof item === 'string') throw importsError(`${item} at ${JSON.stringify(module)}, ${JSON.stringify(name)}`)
        if (item.kind === 'tag' && item.params) this.tags.push({ module, name, tag: value, params: item.params })
        // What a global of references holds: a global's value, or the thing itself.
        const held = item.kind === 'global' && typeof value === 'object' && value !== null ? value.value : value
        const reference = this.values.reference(held)
        if (item.kind === 'global') item.value ??= reference
        this.items.push({ module, name, ...item, reference })
      }
    }
  }

  /**
   * Handles one call. Returns the results, or what to say where the function threw, or the exception that the module can
   * catch.
   */
  dispatch(index, args, params, results) {
    try {
      const given = args.map((value, i) => this.values.toJavaScript(value, params[i]))
      const call = this.functions[index]
      const returned = call(...given)
      if (typeof returned?.then === 'function') {
        const { module, name } = this.names[index]
        // Nobody will wait for it, so nobody else would hear of its failure.
        Promise.resolve(returned).catch(() => {})
        // V8 would take it for a value: the module must not catch what only wizer throws.
        throw this.misuse = new TypeError(`the import ${module}.${name} returned a promise, but imports must be synchronous`)
      }
      return toResults(returned, results).map((value, i) => this.values.toWebAssembly(value, results[i]))
    } catch (error) {
      const exception = this.exceptionOf(error)
      if (exception) return exception
      this.thrown = { value: error }
      const { module, name } = this.names[index]
      return `the import ${module}.${name} threw: ${describe(error)}`
    }
  }

  /** The exception that the module can catch, where that was thrown: its own, or one of a tag that was provided. */
  exceptionOf(thrown) {
    if (thrown === this.misuse) return undefined
    const number = this.exceptions.get(thrown)
    if (number !== undefined) return { number }
    for (const { module, name, tag, params } of this.tags) {
      // A trap of the module stays one, and nothing catches it.
      const values = thrown instanceof WizerError ? undefined : thrownBy(thrown, tag, params)
      if (values) return { module, name, params, values: values.map((value, i) => this.values.toWebAssembly(value, params[i])) }
    }
    return undefined
  }

  /** What JavaScript sees of an exception of the module, as `{ value }`, if its tag was provided. */
  seen({ number, module, name, values }) {
    const known = this.tags.find((tag) => tag.module === module && tag.name === name)
    if (!known) return undefined
    const value = toThrow(known.tag, values.map((value, i) => this.values.toJavaScript(value, known.params[i])))
    // Thrown again, it is the same one. What JavaScript throws itself has no identity but its own.
    if (!isOfJavaScript(known.tag)) this.exceptions.set(value, number)
    return { value }
  }

  /** What imports may do with the instance that is calling them. */
  host() {
    return {
      memory: (name) => {
        const buffer = this.inCall((run) => run.memory(toName(name)))
        // Transferred to elsewhere, it would outlive the memory.
        // Where Node knows the question, it marks the buffer itself, and a second mark makes detaching it fatal.
        if (!isMarkedAsUntransferable) markAsUntransferable(buffer)
        for (const name of ['transfer', 'transferToFixedLength', 'transferToImmutable']) Object.defineProperty(buffer, name, { value: undefined })
        return new Uint8Array(buffer)
      },
      call: (name, ...args) => this.call({ export: String(name) }, args, () => `the export \`${name}\``),
      callIndirect: (table, slot, ...args) => this.call({ table: toName(table), slot: toSlot(slot) }, args, () => `the slot ${slot} of the table`),
    }
  }

  /** Calls a function of the instance. `tell` gives its name for messages. */
  call(callee, args, tell) {
    const type = this.inCall((run) => run.functionType(callee))
    const given = this.values.args(args, type.params)
    this.thrown = undefined
    const returned = this.inCall((run) => run.call(callee, given))
    if (Array.isArray(returned)) return this.values.result(returned, type.results)
    const { code, message, exception } = returned
    const { thrown } = this
    this.thrown = undefined
    if (thrown && code === 'ERR_WIZER_IMPORT_FAILED') throw thrown.value
    const error = new WizerError(`the call of ${tell()} failed: ${message}`, { code })
    if (!exception) throw error
    const seen = this.seen(exception)
    if (seen) throw seen.value
    this.exceptions.set(error, exception.number)
    throw error
  }

  inCall(work) {
    const run = this.getRun()
    try {
      if (run) return work(run)
    } catch (error) {
      throw hostError(error.message)
    }
    throw hostError('the instance can be used only while it calls an import')
  }
}

const hostError = (message) => new WizerError(message, { code: 'ERR_WIZER_HOST' })

/** The name of a memory or table, or nothing for the usual one. */
const toName = (name) => (name === undefined ? undefined : String(name))

/** The number of a slot, as a BigInt. */
function toSlot(slot) {
  const number = toBigInt(slot)
  if (number !== undefined) return number
  throw hostError(`${describe(slot)} is no slot of a table: a whole number from 0 on is, or a BigInt`)
}

/** The methods of an object's class. Each is called as a function, as V8 does with imports. */
function methods(object) {
  // The first property of a name hides those further up, whatever it is.
  const found = new Map()
  for (let at = object; at !== null && !isObjectPrototype(at); at = Object.getPrototypeOf(at)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (!found.has(name)) found.set(name, value)
    }
  }
  found.delete('constructor')
  return [...found].filter(([, value]) => typeof value === 'function')
}

const isSize = (value) => Number.isSafeInteger(value) && value >= 0

/** What can be imported, as the addon takes it; a text for what cannot be provided. */
function toItem(value) {
  if (typeof value === 'function') return { kind: 'function' }
  if (typeof value === 'number' || typeof value === 'bigint' || value === null) return { kind: 'global', value: [value], mutable: false }
  if (typeof value !== 'object') return { kind: 'value' }
  if (isTag(value)) return { kind: 'tag', params: paramsOf(value) }
  if (isAnyArrayBuffer(value.buffer) && !ArrayBuffer.isView(value)) {
    const shared = isSharedArrayBuffer(value.buffer)
    return { kind: 'memory', contents: new Uint8Array(value.buffer), shared, ...(!shared && typeOfMemory(value)) }
  }
  if (typeof value.get === 'function' && isSize(value.length)) {
    for (let slot = 0; slot < value.length; slot++) {
      if (value.get(slot) !== null) return 'holds a table with something else than null in it (`new WebAssembly.Table(description, null)` fills it with null)'
    }
    return { kind: 'table', size: value.length, ...typeOfTable(value) }
  }
  if ('initial' in value) {
    const { initial, maximum, element, shared, address, contents } = value
    if (!isSize(initial) || (maximum !== undefined && !isSize(maximum))) return 'holds a description whose sizes are no whole numbers'
    if (address !== undefined && address !== 'i32' && address !== 'i64') return 'holds a description whose address is neither `i32` nor `i64`'
    const item = { size: initial, ...(maximum !== undefined && { maximum }), ...(address !== undefined && { is64: address === 'i64' }) }
    if (element !== undefined) return { kind: 'table', ty: element === 'anyfunc' ? 'funcref' : String(element), ...item }
    if (contents !== undefined && !ArrayBuffer.isView(contents) && !isAnyArrayBuffer(contents)) return 'holds a description whose contents are no bytes'
    if (shared !== undefined) item.shared = Boolean(shared)
    return { kind: 'memory', ...item, ...(contents !== undefined && { contents: toBytes(contents, 'contents') }) }
  }
  if ('value' in value) {
    const inner = value.value
    const isConstant = inner === null || typeof inner === 'number' || typeof inner === 'bigint'
    return { kind: 'global', ...(isConstant && { value: [inner] }), ...typeOfGlobal(value) }
  }
  return { kind: 'value' }
}

/** The binary format's codes of value types. */
const REFERENCE_TYPES = { funcref: 0x70, externref: 0x6f, anyref: 0x6e, eqref: 0x6d, i31ref: 0x6c, structref: 0x6b, arrayref: 0x6a }
const TYPES = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, ...REFERENCE_TYPES }

/**
 * What a `WebAssembly.Global` and the like was made as. It does not say, but an instance that imports it can only be made of
 * a module that wants just that.
 *
 * @param is whether it is one
 * @param choices pairs of the type of an import in the binary format, and what that is
 */
function typeOf(value, is, choices) {
  // Anything else would do for an `externref`.
  if (!is(value)) return undefined
  for (const [type, meaning] of choices) {
    // (module (import "" "" …))
    const wanting = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 2, 3 + type.length, 1, 0, 0, ...type)
    try {
      new WebAssembly.Instance(new WebAssembly.Module(wanting), { '': { '': value } })
      return meaning
    } catch {
      // Not this one, or not a type that this V8 knows.
    }
  }
  return undefined
}

const typeOfGlobal = (global) =>
  typeOf(global, isGlobal, Object.entries(TYPES).flatMap(([ty, code]) => [false, true].map((mutable) => [[3, code, Number(mutable)], { ty, mutable }])))

// Of at least no slots or pages; the flag 4 is for 64-bit addresses.
const typeOfTable = (table) =>
  typeOf(table, isTable, Object.entries(REFERENCE_TYPES).flatMap(([ty, code]) => [false, true].map((is64) => [[1, code, is64 ? 4 : 0, 0], { ty, is64 }])))

const typeOfMemory = (memory) => typeOf(memory, isMemory, [false, true].map((is64) => [[2, is64 ? 4 : 0, 0], { is64 }]))

/** A thrown value in one line; throwing one that cannot be shown must not matter. */
function describe(error) {
  try {
    return String(error)
  } catch {
    return 'a value that cannot be shown'
  }
}

const importsError = (message) => new WizerError(`the option \`imports\` ${message}`, { code: 'ERR_WIZER_OPTION' })

module.exports = { ImportCalls }
