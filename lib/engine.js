'use strict'

// What runs in a worker: modules on this process's own engine, as the addon asks for it.
//
// The thread waits in native code, which calls `operate`. Nothing is thrown there: what went wrong is a
// kind of answer, of which native code makes errors.

const { workerData } = require('./node.js').workerThreads
const { loadBinding } = require('../platform.js')

/** How many calls a stack tells. */
const FRAMES = 200

/** The kinds of answers. */
const [DONE, REFUSED, LINK, TRAP, EXCEPTION, HOST] = [0, 1, 2, 3, 4, 5]

/** How slots of tables are told, in the lowest bits: what it is; above them, which. */
const [NULL, FUNCTION, EXTERN, I31, OBJECT] = [0n, 1n, 2n, 3n, 4n]

const { serveEngine, callHostFunction } = loadBinding()

/** A module that traps. What a trap throws, no module catches, also where it is thrown again. */
const { trap } = new WebAssembly.Instance(
  // (module (func (export "trap") unreachable))
  new WebAssembly.Module(
    Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 8, 1, 4, 116, 114, 97, 112, 0, 0, 10, 5, 1, 3, 0, 0, 11),
  ),
).exports

/** A new error that no module catches. */
function uncatchable() {
  try {
    trap()
  } catch (error) {
    return error
  }
}

/** Where that module's code is, in a stack. */
const OWN = /wasm:\/\/wasm\/[^:)]+/.exec(uncatchable().stack)?.[0]

/** Things, each with a number: the same thing always has the same. */
class Numbered {
  things = []
  #numbers = new Map()

  number(thing) {
    let number = this.#numbers.get(thing)
    if (number === undefined) {
      number = this.things.push(thing) - 1
      this.#numbers.set(thing, number)
    }
    return number
  }

  find(thing) {
    return this.#numbers.get(thing)
  }
}

const modules = []
const instances = []
const functions = new Numbered()
/** Objects and exceptions that were handed out. */
const handles = new Numbered()
/** What stands for references of the host, by their numbers. */
const externs = new Map()
const numbersOfExterns = new Map()
/** The tags that were made, each with the types of its parameters and its names. */
const tags = []
/** What was thrown last where a function of the host failed. */
let ending

const isReference = (type) => type.endsWith('ref') || type.startsWith('(ref')

function extern(number) {
  let object = externs.get(number)
  if (!object) {
    object = Object.freeze({ number })
    externs.set(number, object)
    numbersOfExterns.set(object, number)
  }
  return object
}

/** A value as the addon has it, as this engine does. */
function toEngine(value, type) {
  if (!isReference(type) || value === null || typeof value === 'number') return value
  if (typeof value === 'bigint') return functions.things[Number(value)]
  const number = Number(value.slice(1))
  return value.startsWith('e') ? extern(number) : handles.things[number]
}

function toAddon(value, type) {
  if (!isReference(type) || value === null) return value
  if (typeof value === 'function') return BigInt(functions.number(value))
  if (Number.isInteger(value)) return value
  const number = numbersOfExterns.get(value)
  return number === undefined ? `h${handles.number(value)}` : `e${number}`
}

/** Results as a list. */
const toList = (returned, types) => (types.length === 0 ? [] : types.length === 1 ? [returned] : [...returned])

function call(callee, args, params, results) {
  const returned = callee(...args.map((value, i) => toEngine(value, params[i])))
  return toList(returned, results).map((value, i) => toAddon(value, results[i]))
}

/** A function of the host, as a module imports it. */
const host = (number, params, results) => (...args) => {
  const answer = callHostFunction(number, args.map((value, i) => toAddon(value, params[i])))
  if (Array.isArray(answer)) {
    const values = answer.map((value, i) => toEngine(value, results[i]))
    return results.length > 1 ? values : values[0]
  }
  if (answer !== false) {
    const thrown = toThrow(answer)
    if (thrown) throw thrown.value
  }
  throw (ending = uncatchable())
}

/** What an exception is here, as `{ value }`: one of the module, or of a tag that was made. */
function toThrow({ number, module, name, values }) {
  if (number !== undefined && number !== null) return { value: handles.things[number] }
  const known = tags.find((made) => made?.module === module && made.name === name)
  if (!known) return undefined
  return { value: new WebAssembly.Exception(known.tag, values.map((value, i) => toEngine(value, known.params[i]))) }
}

/** What an exception of the module is to the addon. */
function seen(exception) {
  const made = tags.find((made) => made && exception.is(made.tag))
  const number = handles.number(exception)
  if (!made) return { number }
  const { module, name, params } = made
  return { number, module, name, params, values: params.map((type, i) => toAddon(exception.getArg(made.tag, i), type)) }
}

/** Makes an import, of what the addon says of it. */
function made([kind, ...parts]) {
  if (kind === 'host') return host(...parts)
  if (kind === 'export') return instances[parts[0]].exports[parts[1]]
  if (kind === 'global') {
    const [[value], [type]] = parts
    return new WebAssembly.Global({ value: type === 'funcref' ? 'anyfunc' : type, mutable: false }, toEngine(value, type))
  }
  const [number, params, module, name] = parts
  tags[number] ??= { tag: new WebAssembly.Tag({ parameters: params }), params, module, name }
  return tags[number].tag
}

/** The export of an instance by which it can be read. */
const exported = (instance, name) => instances[instance].exports[name]

function slot(value) {
  if (value === null) return NULL
  const told = (kind, number) => (BigInt(number) << 3n) | kind
  if (typeof value === 'function') return told(FUNCTION, functions.number(value))
  if (Number.isInteger(value)) return told(I31, value)
  const number = numbersOfExterns.get(value)
  return number === undefined ? OBJECT : told(EXTERN, number)
}

const operations = {
  compile(bytes) {
    modules.push(new WebAssembly.Module(bytes))
  },

  instantiate(module, imports) {
    const object = {}
    for (const [i, { module: from, name }] of WebAssembly.Module.imports(modules[module]).entries()) {
      object[from] ??= {}
      object[from][name] = made(imports[i])
    }
    instances.push(new WebAssembly.Instance(modules[module], object))
  },

  exports: (instance) => Object.keys(instances[instance].exports),

  call: (instance, name, args, params, results) => call(exported(instance, name), args, params, results),

  callFunction: (number, args, params, results) => call(functions.things[number], args, params, results),

  memory: (instance, name) => new Uint8Array(exported(instance, name).buffer),

  /** The bits of floats and vectors, where the module has a function for them. */
  global(instance, name, [type]) {
    const bits = exported(instance, `${name}bits`)
    if (typeof bits === 'function' && !isReference(type) && type !== 'i32' && type !== 'i64') return [bits()].flat()
    return [toAddon(exported(instance, name).value, type)]
  },

  table(instance, name) {
    const table = exported(instance, name)
    // Where slots have addresses of 64 bits, they are counted in BigInts.
    const { length } = table
    const address = typeof length === 'bigint' ? BigInt : Number
    return BigInt64Array.from({ length: Number(length) }, (_, i) => slot(table.get(address(i))))
  },
}

function failure(error) {
  const own = (line) => OWN !== undefined && line.includes(OWN)
  if (error === ending) return [HOST, '', error.stack.split('\n').filter((line) => !own(line)).join('\n')]
  if (error instanceof WebAssembly.CompileError) return [REFUSED, error.message, '']
  if (error instanceof WebAssembly.LinkError) return [LINK, error.message, '']
  if (error instanceof WebAssembly.RuntimeError) return [TRAP, error.message, error.stack]
  // What recurses too deeply is no trap in JavaScript.
  if (error instanceof RangeError && /call stack/.test(error.message)) return [TRAP, 'call stack exhausted', error.stack]
  if (error instanceof WebAssembly.Exception) return [EXCEPTION, seen(error), error.stack ?? '']
  return [REFUSED, String(error), '']
}

function operate(what, ...args) {
  try {
    return [DONE, operations[what](...args)]
  } catch (error) {
    return failure(error)
  }
}

Error.stackTraceLimit = FRAMES
serveEngine(workerData.wizer, operate)
