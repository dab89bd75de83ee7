'use strict'

// Values between JavaScript and a module, converted as the WebAssembly JavaScript API converts them.
// https://webassembly.github.io/spec/js-api/#towebassemblyvalue

/** A reference to a function of a module: opaque, and of use to the run that it comes from. */
class FunctionReference {
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
  /** The functions of which references were handed out, by their number. */
  #functions = new Map()

  /** Makes a JavaScript value one of a WebAssembly type, or throws a `TypeError`. */
  toWebAssembly(value, type) {
    switch (type) {
      case 'i32':
        return value | 0
      case 'i64':
        return BigInt.asIntN(64, value)
      case 'f32':
        return Math.fround(value)
      case 'f64':
        return +value
      case 'externref':
        return value === null ? null : this.#externs.push(value) - 1
      case '(ref extern)':
        if (value !== null) return this.#externs.push(value) - 1
    }
    if (isReference(type)) {
      if (value === null && (!type.startsWith('(ref ') || type.startsWith('(ref null '))) return null
      if (isI31(type) && Number.isInteger(value) && value >= -(2 ** 30) && value < 2 ** 30) return value
      const number = typeof value === 'object' ? FunctionReference.numberOf(value) : undefined
      if (number !== undefined && this.#functions.get(number) === value) return number
    }
    throw new TypeError(`a value of the WebAssembly type ${type} cannot come from JavaScript here`)
  }

  toJavaScript(value, type) {
    if (type === 'externref' || type === '(ref extern)') return value === null ? null : this.#externs[value]
    if (typeof value === 'bigint' && isReference(type)) {
      if (!this.#functions.has(value)) this.#functions.set(value, new FunctionReference(value))
      return this.#functions.get(value)
    }
    if (value === undefined) throw new TypeError(`a value of the WebAssembly type ${type} cannot be seen by JavaScript here`)
    return value
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

const isReference = (type) => type.endsWith('ref') || type.startsWith('(ref')
const isI31 = (type) => /\b(i31|eq|any)(ref)?\b/.test(type)

module.exports = { Values }
