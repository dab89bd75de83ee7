'use strict'

// Tags and exceptions of the WebAssembly JavaScript API. A tag does not tell its type (but where an engine has type
// reflection), nor can one ask what it is: what it does with values shows it, whichever realm it is of.

/** The most parameters that are looked for. */
const MAX_PARAMS = 16

/** The tag of all that JavaScript throws, where this V8 knows one. */
const isOfJavaScript = (tag) => tag === WebAssembly.JSTag && tag !== undefined

/** Whether a value is a `WebAssembly.Tag`. */
function isTag(value) {
  if (value === null || typeof value !== 'object' || !WebAssembly.Tag) return false
  const own = new WebAssembly.Tag({ parameters: [] })
  return !fails(() => new WebAssembly.Exception(own, []).is(value))
}

/** The types of a tag's parameters, as far as numbers and external references; nothing where there are others. */
function paramsOf(tag) {
  if (isOfJavaScript(tag)) return ['externref']
  const make = (values) => new WebAssembly.Exception(tag, values)
  const isAll = (values) => {
    try {
      const exception = make(values)
      return fails(() => exception.getArg(tag, values.length))
    } catch {
      return false
    }
  }
  // What is asked for its value throws this: all values before it were right. V8 wants just as many as there are (but not
  // that of Node 20).
  const asked = Symbol()
  const trap = { valueOf: () => { throw asked } }
  const isBeginning = (values) => {
    for (let more = 0; more <= MAX_PARAMS; more++) {
      try {
        make([...values, ...Array(more).fill(trap)])
        return true
      } catch (error) {
        if (error === asked) return true
      }
    }
    return false
  }
  // As an i32 it is 1, and as an f32 without its last bits.
  const number = { valueOf: () => 2 ** 32 + 1.5 }
  const values = []
  while (!isAll(values)) {
    const next = [number, 0n].find((value) => isBeginning([...values, value]))
    if (next === undefined || values.length === MAX_PARAMS) return undefined
    values.push(next)
  }
  const exception = make(values)
  const typeOf = new Map([[1, 'i32'], [2 ** 32, 'f32'], [2 ** 32 + 1.5, 'f64']])
  const params = values.map((value, i) => (value === 0n ? 'i64' : (typeOf.get(exception.getArg(tag, i)) ?? 'externref')))
  return hasParams(tag, params) ? params : undefined
}

const CODES = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, externref: 0x6f }

/** Whether a tag is of this type: an instance that imports it can only be made of a module that wants just that. */
function hasParams(tag, params) {
  // (module (type (func (param …))) (import "" "" (tag (type 0))))
  const type = [1, 4 + params.length, 1, 0x60, params.length, ...params.map((type) => CODES[type]), 0]
  const wanting = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...type, 2, 6, 1, 0, 0, 4, 0, 0)
  return !fails(() => new WebAssembly.Instance(new WebAssembly.Module(wanting), { '': { '': tag } }))
}

function fails(work) {
  try {
    work()
    return false
  } catch {
    return true
  }
}

/** The values of what was thrown, where that is an exception of this tag; of `params`, its types. */
function thrownBy(thrown, tag, params) {
  const exception = WebAssembly.Exception.prototype
  // Everything but the exceptions of all other tags is of JavaScript's own.
  if (isOfJavaScript(tag)) return fails(() => exception.is.call(thrown, tag)) ? [thrown] : undefined
  if (fails(() => exception.is.call(thrown, tag)) || !exception.is.call(thrown, tag)) return undefined
  return params.map((_, i) => exception.getArg.call(thrown, tag, i))
}

/** What is thrown in JavaScript for an exception of this tag. */
const toThrow = (tag, values) => (isOfJavaScript(tag) ? values[0] : new WebAssembly.Exception(tag, values))

module.exports = { isOfJavaScript, isTag, paramsOf, thrownBy, toThrow }
