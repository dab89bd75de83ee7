'use strict'

// What a value is, told by its brand: an object of another realm (a test runner's sandbox, a frame, `node:vm`) is as good as
// one of this realm, and `instanceof` knows only this one.

const { isAnyArrayBuffer, isSharedArrayBuffer, isUint8Array } = require('./node.js').util.types

/** A check for what has an internal slot that a getter reads: it throws for anything else. */
function hasSlot(made, name) {
  const { get } = Object.getOwnPropertyDescriptor(made.prototype, name)
  return (value) => {
    try {
      Reflect.apply(get, value, [])
      return true
    } catch {
      return false
    }
  }
}

const isMemory = hasSlot(WebAssembly.Memory, 'buffer')
const isTable = hasSlot(WebAssembly.Table, 'length')
/** But one of vectors, whose value JavaScript cannot read. */
const isGlobal = hasSlot(WebAssembly.Global, 'value')

/** Whether it is the `Object.prototype` of some realm. */
const isObjectPrototype = (object) => Object.getPrototypeOf(object) === null && Object.hasOwn(object, '__lookupGetter__')

module.exports = { isAnyArrayBuffer, isGlobal, isMemory, isObjectPrototype, isSharedArrayBuffer, isTable, isUint8Array }
