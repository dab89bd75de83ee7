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
}

/** The stack of an error, without that module. */
const stackOf = ({ stack = '' }) =>
  stack
    .split('\n')
    .filter((line) => OWN === undefined || !line.includes(OWN))
    .join('\n')

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
  /** The tags that were made, each with the types of its parameters and its names. */
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
    this.modules.push(new WebAssembly.Module(bytes))
  }

  instantiate(module, imports) {
    const object = {}
    for (const [i, { module: from, name }] of WebAssembly.Module.imports(this.modules[module]).entries()) {
      object[from] ??= {}
      object[from][name] = this.#import(...imports[i])
    }
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
    return new Uint8Array(this.#exported(instance, name).buffer)
  }

  /** The bits of floats and vectors, where the module has a function for them. */
  global(instance, name, [type]) {
    const bits = this.#exported(instance, `${name}bits`)
    if (typeof bits === 'function' && ['f32', 'f64', 'v128'].includes(type)) return [bits()].flat()
    return [this.#toAddon(this.#exported(instance, name).value, type)]
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
        const [[value], [type], mutable] = parts
        return new WebAssembly.Global({ value: type === 'funcref' ? 'anyfunc' : type, mutable }, this.#toEngine(value, type))
      }
      case 'tag': {
        const [number, params, module, name] = parts
        this.tags[number] ??= { tag: new WebAssembly.Tag({ parameters: params }), params, module, name }
        return this.tags[number].tag
      }
    }
  }

  /** A function of the host, as a module imports it. */
  #host(number, params, results) {
    return (...args) => {
      const answer = callHostFunction(number, args.map((value, i) => this.#toAddon(value, params[i])))
      if (Array.isArray(answer)) {
        const values = answer.map((value, i) => this.#toEngine(value, results[i]))
        return results.length > 1 ? values : values[0]
      }
      const thrown = answer === false ? undefined : this.#toThrow(answer)
      if (thrown) throw thrown.value
      throw (this.ending = uncatchable())
    }
  }

  /** What an exception is here, as `{ value }`: one of the module, or of a tag that was made. */
  #toThrow({ number, module, name, values }) {
    if (typeof number === 'number') return { value: this.handles.things[number] }
    const known = this.tags.find((made) => made?.module === module && made.name === name)
    if (!known) return undefined
    return { value: new WebAssembly.Exception(known.tag, values.map((value, i) => this.#toEngine(value, known.params[i]))) }
  }

  /** What an exception of the module is to the addon. */
  #seen(exception) {
    const made = this.tags.find((made) => made && exception.is(made.tag))
    const number = this.handles.number(exception)
    if (!made) return { number }
    const { module, name, params } = made
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
const { port } = workerData
port.on('message', (number) => {
  const store = new Store()
  serveEngine(number, (...asked) => store.operate(...asked))
  port.postMessage(number)
})
