'use strict'

// Values between JavaScript and a module, converted as the WebAssembly JavaScript API converts them.
// https://webassembly.github.io/spec/js-api/#towebassemblyvalue

/** A reference to a function, an object or an exception of a module: opaque, and of use to the run that it comes from. */
class Handle {
  /** A BigInt for a function, a string that begins with `h` for anything else. */
  #number

  constructor(number) {
    this.#number = number
  }

  static numberOf(value) {
    return #number in value ? value.#number : undefined
  }
}

/** The values of one run. */
class Values {
  /** Host references that the module may hold, by their number. */
  #externs = []
  /** The numbers of those that are objects: the same one has the same number. */
  #numbers = new Map()
  /** What was handed out, by its number: the same thing always has the same handle. */
  #handles = new Map()

  /** Makes a JavaScript value one of a WebAssembly type, or throws a `TypeError`. */
  toWebAssembly(value, type) {
    const handle = isReference(type) ? this.#numberOf(value) : undefined
    if (handle !== undefined && (typeof handle === 'string' || !takesAll(type))) return handle
    switch (type) {
      case 'i32':
        return value | 0
      case 'i64':
        return BigInt.asIntN(64, value)
      case 'f32':
        return Math.fround(value)
      case 'f64':
        return +value
    }
    if (isReference(type)) {
      const isNullable = !type.startsWith('(ref ') || type.startsWith('(ref null ')
      if (value === null && isNullable) return null
      if (isI31(type) && Number.isInteger(value) && value >= -(2 ** 30) && value < 2 ** 30) return value
      if (value !== null && takesAll(type)) return `e${this.#externNumber(value)}`
    }
    throw new TypeError(`a value of the WebAssembly type ${type} cannot come from JavaScript here`)
  }

  /** Any value as a reference of the host, alone as a global holds it; nothing for null. */
  reference(value) {
    return value === null ? undefined : [`e${this.#externNumber(value)}`]
  }

  toJavaScript(value, type) {
    if (typeof value === 'string' && value.startsWith('e')) return this.#externs[Number(value.slice(1))]
    if (isReference(type) && (typeof value === 'bigint' || typeof value === 'string')) {
      if (!this.#handles.has(value)) this.#handles.set(value, new Handle(value))
      return this.#handles.get(value)
    }
    if (value === undefined) throw new TypeError(`a value of the WebAssembly type ${type} cannot be seen by JavaScript here`)
    return value
  }

  #externNumber(value) {
    const isObject = typeof value === 'object' || typeof value === 'function'
    if (!isObject) return this.#externs.push(value) - 1
    if (!this.#numbers.has(value)) this.#numbers.set(value, this.#externs.push(value) - 1)
    return this.#numbers.get(value)
  }

  /** The number of a handle of this run. */
  #numberOf(value) {
    const number = typeof value === 'object' && value !== null ? Handle.numberOf(value) : undefined
    return this.#handles.get(number) === value ? number : undefined
  }

  /** Arguments of these types. Missing ones are undefined and further ones ignored, as for exports in JavaScript. */
  args(values, types) {
    return types.map((type, i) => this.toWebAssembly(values[i], type))
  }

  /** What a call gives back: nothing, the result, or an array of the results. */
  result(values, types) {
    const results = values.map((value, i) => this.toJavaScript(value, types[i]))
    return results.length > 1 ? results : results[0]
  }
}

/** An address, a length or the number of a slot as a BigInt; nothing for what is none. */
function toBigInt(value) {
  const number = Number.isSafeInteger(value) ? BigInt(value) : value
  return typeof number === 'bigint' && number === BigInt.asUintN(64, number) ? number : undefined
}

const isReference = (type) => type.endsWith('ref') || type.startsWith('(ref')
/** Whether any value of JavaScript has the type. */
const takesAll = (type) => ['externref', '(ref extern)', 'anyref', '(ref any)'].includes(type)
const isI31 = (type) => /\b(i31|eq|any)(ref)?\b/.test(type)

module.exports = { Values, toBigInt }
