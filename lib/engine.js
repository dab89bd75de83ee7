'use strict'

// What runs in a worker: modules on this process's own engine, as the addon asks for it.
//
// The thread waits in native code, which calls `operate`. Nothing is thrown there: what went wrong is a
// kind of answer, of which native code makes errors.

const { v8, workerThreads } = require('./node.js')
const { loadBinding } = require('../platform.js')

const { setFlagsFromString } = v8
const { port, flags } = workerThreads.workerData

/** How many calls a stack tells, those of this file among them. */
const FRAMES = 32

/**
 * How much of a function runs, roughly in bytes of code, before V8 makes better code of it. By default in V8 11 (Node 20), it
 * is most functions that an initialization calls, and V8 12 has 13,000,000. Initializations gain from still more.
 */
const [BUDGET, LARGE_BUDGET] = ['--wasm-tiering-budget=1800000', '--wasm-tiering-budget=30000000']

/** Whether this is V8 11, and nobody has chosen something else. */
const isHasty = process.versions.v8.startsWith('11.') && !flags.some((flag) => /wasm|liftoff/.test(flag))

/**
 * Makes a module, with the large budget. V8 reads the flag then, and flags are the process's: so it has its own value
 * again at once.
 */
function makeModule(bytes) {
  if (!isHasty) return new WebAssembly.Module(bytes)
  setFlagsFromString(LARGE_BUDGET)
  try {
    return new WebAssembly.Module(bytes)
  } finally {
    setFlagsFromString(BUDGET)
  }
}

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
}

/** The stack of an error, without that module. */
const stackOf = ({ stack = '' }) =>
  stack
    .split('\n')
    .filter((line) => OWN === undefined || !line.includes(OWN))
    .join('\n')

/** A type as WebAssembly's JavaScript API calls it. */
const toJsType = (type) => (type === 'funcref' ? 'anyfunc' : type)

const isReference = (type) => type.endsWith('ref') || type.startsWith('(ref')

/** Results as a list. */
const toList = (returned, types) => (types.length === 0 ? [] : types.length === 1 ? [returned] : [...returned])

/** What a run has. */
class Store {
  modules = []
  instances = []
  functions = new Numbered()
  /** Objects and exceptions that were handed out. */
  handles = new Numbered()
  /** What stands for references of the host, by their numbers; and the numbers. */
  externs = new Map()
  numbersOfExterns = new Map()
  /** The globals that were made, by their names. */
  globals = new Map()
  /** The tags that were made, each with the types of its parameters and all names that it has. */
  tags = []
  /** What was thrown last where a function of the host failed. */
  ending = undefined

  /** Does what native code asks for. */
  operate(what, ...args) {
    try {
      return [DONE, this[what](...args)]
    } catch (error) {
      return this.#failure(error)
    }
  }

  compile(bytes) {
    this.modules.push(makeModule(bytes))
  }

  instantiate(module, imports) {
    // One by one, in their order: several may have the same names.
    const given = imports.map((parts) => this.#import(...parts))[Symbol.iterator]()
    const next = { get: () => given.next().value }
    const object = new Proxy({}, { get: () => new Proxy({}, next) })
    this.instances.push(new WebAssembly.Instance(this.modules[module], object))
  }

  exports(instance) {
    return Object.keys(this.instances[instance].exports)
  }

  call(instance, name, args, params, results) {
    return this.#call(this.#exported(instance, name), args, params, results)
  }

  callFunction(number, args, params, results) {
    return this.#call(this.functions.things[number], args, params, results)
  }

  memory(instance, name) {
    return this.#exported(instance, name)
  }

  view(instance, name) {
    return new Uint8Array(this.#exported(instance, name).buffer)
  }

  global(instance, name, [type]) {
    return [this.#toAddon(this.#exported(instance, name).value, type)]
  }

  bits(instance, name) {
    return [this.#exported(instance, name)()].flat()
  }

  /** How many slots there are, and what is in this one. */
  slot(instance, name, slot) {
    const table = this.#exported(instance, name)
    const size = Number(table.length)
    const address = typeof table.length === 'bigint' ? BigInt : Number
    return slot < size ? [BigInt(size), this.#slot(table.get(address(slot)))] : [BigInt(size)]
  }

  table(instance, name) {
    const table = this.#exported(instance, name)
    // Where slots have addresses of 64 bits, they are counted in BigInts.
    const address = typeof table.length === 'bigint' ? BigInt : Number
    return BigInt64Array.from({ length: Number(table.length) }, (_, i) => this.#slot(table.get(address(i))))
  }

  #exported(instance, name) {
    return this.instances[instance].exports[name]
  }

  #call(callee, args, params, results) {
    const returned = callee(...args.map((value, i) => this.#toEngine(value, params[i])))
    return toList(returned, results).map((value, i) => this.#toAddon(value, results[i]))
  }

  #slot(value) {
    if (value === null) return NULL
    const told = (kind, number) => (BigInt(number) << 3n) | kind
    if (typeof value === 'function') return told(FUNCTION, this.functions.number(value))
    if (Number.isInteger(value)) return told(I31, value)
    const number = this.numbersOfExterns.get(value)
    return number === undefined ? OBJECT : told(EXTERN, number)
  }

  /** A value as the addon has it, as this engine does. */
  #toEngine(value, type) {
    if (!isReference(type) || value === null || typeof value === 'number') return value
    if (typeof value === 'bigint') return this.functions.things[Number(value)]
    const number = Number(value.slice(1))
    return value.startsWith('e') ? this.#extern(number) : this.handles.things[number]
  }

  #toAddon(value, type) {
    if (!isReference(type) || value === null) return value
    if (typeof value === 'function') return BigInt(this.functions.number(value))
    if (Number.isInteger(value)) return value
    const number = this.numbersOfExterns.get(value)
    return number === undefined ? `h${this.handles.number(value)}` : `e${number}`
  }

  #extern(number) {
    let object = this.externs.get(number)
    if (!object) {
      object = Object.freeze({ number })
      this.externs.set(number, object)
      this.numbersOfExterns.set(object, number)
    }
    return object
  }

  /** An import, of what the addon says of it. */
  #import(kind, ...parts) {
    switch (kind) {
      case 'host':
        return this.#host(...parts)
      case 'export':
        return this.#exported(...parts)
      case 'global': {
        const [[value], [type], mutable, module, name] = parts
        const key = JSON.stringify([module, name])
        if (!this.globals.has(key)) {
          const given = { value: toJsType(type), mutable }
          this.globals.set(key, new WebAssembly.Global(given, this.#toEngine(value, type)))
        }
        return this.globals.get(key)
      }
      case 'tag': {
        const [number, params, module, name] = parts
        const made = (this.tags[number] ??= { tag: new WebAssembly.Tag({ parameters: params.map(toJsType) }), params, names: [] })
        made.names.push({ module, name })
        return made.tag
      }
    }
  }

  /** A function of the host, as a module imports it. No module catches what fails in it; only exceptions that it throws. */
  #host(number, params, results) {
    const [isPlain, givesPlain] = [params, results].map((types) => !types.some(isReference))
    return (...args) => {
      let thrown
      try {
        const answer = callHostFunction(number, isPlain ? args : args.map((value, i) => this.#toAddon(value, params[i])))
        if (Array.isArray(answer)) {
          const values = givesPlain ? answer : answer.map((value, i) => this.#toEngine(value, results[i]))
          return results.length > 1 ? values : values[0]
        }
        thrown = answer === false ? undefined : this.#toThrow(answer)
      } catch {
        // Told as a failure of the host.
      }
      if (thrown) throw thrown.value
      throw (this.ending = uncatchable())
    }
  }

  /** What an exception is here, as `{ value }`: one of the module, or of a tag that was made. */
  #toThrow({ number, module, name, values }) {
    if (typeof number === 'number') return { value: this.handles.things[number] }
    const known = this.tags.find((made) => made?.names.some((its) => its.module === module && its.name === name))
    if (!known) return undefined
    return { value: new WebAssembly.Exception(known.tag, values.map((value, i) => this.#toEngine(value, known.params[i]))) }
  }

  /** What an exception of the module is to the addon. */
  #seen(exception) {
    const made = this.tags.find((made) => made && exception.is(made.tag))
    const number = this.handles.number(exception)
    if (!made) return { number }
    const { names, params } = made
    const [{ module, name }] = names
    return { number, module, name, params, values: params.map((type, i) => this.#toAddon(exception.getArg(made.tag, i), type)) }
  }

  #failure(error) {
    /* eslint-disable no-restricted-syntax -- a worker has one realm */
    if (error === this.ending) return [HOST, '', stackOf(error)]
    if (error instanceof WebAssembly.CompileError) return [REFUSED, error.message, '']
    if (error instanceof WebAssembly.LinkError) return [LINK, error.message, '']
    if (error instanceof WebAssembly.RuntimeError) return [TRAP, error.message, stackOf(error)]
    // What recurses too deeply is no trap in JavaScript.
    if (error instanceof RangeError && /call stack/.test(error.message)) return [TRAP, 'call stack exhausted', stackOf(error)]
    if (error instanceof WebAssembly.Exception) return [EXCEPTION, this.#seen(error), stackOf(error)]
    /* eslint-enable no-restricted-syntax */
    return [REFUSED, String(error), '']
  }
}

Error.stackTraceLimit = FRAMES
port.on('message', (number) => {
  const store = new Store()
  serveEngine(number, (...asked) => store.operate(...asked))
  port.postMessage(number)
})
