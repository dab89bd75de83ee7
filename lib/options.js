'use strict'

// What the options must look like, checked before the native addon reads them. What each means
// is documented in index.d.ts.

const { isAnyArrayBuffer, isUint8Array } = require('./brands.js')
const { WizerError } = require('./error.js')

const optionError = (message) => new WizerError(message, { code: 'ERR_WIZER_OPTION' })

const describe = (value) =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'an array'
      : typeof value === 'string'
        ? JSON.stringify(value)
        : typeof value === 'number' || typeof value === 'boolean'
          ? String(value)
          : `a value of type ${typeof value}`

/** Not a Map, an array or bytes, whose entries are not properties. */
const isRecord = (value) => Object.prototype.toString.call(value) === '[object Object]'
const isString = (value) => typeof value === 'string'

/** Kinds of values: what a message calls one, and the check. */
const kinds = {
  string: ['a string', isString],
  boolean: ['a boolean', (value) => typeof value === 'boolean'],
  strings: ['an array of strings', (value) => Array.isArray(value) && value.every(isString)],
  stringsByName: ['an object of strings', (value) => isRecord(value) && Object.values(value).every(isString)],
  record: ['an object', isRecord],
  function: ['a function', (value) => typeof value === 'function'],
  signal: ['an AbortSignal', (value) => typeof value?.addEventListener === 'function'],
  stdin: ["bytes, 'inherit' or 'ignore'", (value) => value === 'inherit' || value === 'ignore' || isBytes(value)],
  stdout: ["'inherit', 'ignore' or 'pipe'", (value) => ['inherit', 'ignore', 'pipe'].includes(value)],
  milliseconds: ['a number of milliseconds from 0', (value) => typeof value === 'number' && value >= 0],
  bytes: ['a whole number of bytes from 0', (value) => value === Infinity || (Number.isInteger(value) && value >= 0)],
  count: ['a whole number from 0', (value) => value === Infinity || (Number.isInteger(value) && value >= 0)],
  mapDirs: [
    'an object that holds a host path, or { host, readonly }, for each guest path',
    (value) =>
      isRecord(value) &&
      Object.values(value).every(
        (dir) =>
          isString(dir) ||
          (isRecord(dir) &&
            isString(dir.host) &&
            ['undefined', 'boolean'].includes(typeof dir.readonly) &&
            Object.keys(dir).every((key) => key === 'host' || key === 'readonly')),
      ),
  ],
  keep: ["a boolean or 'empty'", (value) => typeof value === 'boolean' || value === 'empty'],
  cache: ['a boolean or the path of a directory', (value) => typeof value === 'boolean' || (isString(value) && value !== '')],
  stubs: [
    "an object that holds a number or 'trap' for each `module.name`",
    (value) => isRecord(value) && Object.values(value).every((stub) => stub === 'trap' || typeof stub === 'number' || typeof stub === 'bigint'),
  ],
  imports: ['an object, or a function that returns one', (value) => isRecord(value) || typeof value === 'function'],
}

const options = {
  initFunc: 'string',
  keepInitFunc: 'keep',
  invoke: 'strings',
  renameFuncs: 'stringsByName',
  allowWasi: 'boolean',
  allowExit: 'boolean',
  stubs: 'stubs',
  inheritStdio: 'boolean',
  inheritEnv: 'boolean',
  env: 'stringsByName',
  args: 'strings',
  stdin: 'stdin',
  stdout: 'stdout',
  stderr: 'stdout',
  dirs: 'strings',
  mapDirs: 'mapDirs',
  files: 'record',
  preload: 'record',
  allowPreloadChanges: 'boolean',
  imports: 'imports',
  wasmBulkMemory: 'boolean',
  wasmMultiMemory: 'boolean',
  wasmMultiValue: 'boolean',
  wasmReferenceTypes: 'boolean',
  wasmSimd: 'boolean',
  wasmRelaxedSimd: 'boolean',
  relaxedSimdDeterministic: 'boolean',
  engine: 'string',
  cache: 'cache',
  timeout: 'milliseconds',
  maxMemory: 'bytes',
  maxSegments: 'count',
  signal: 'signal',
  onProgress: 'function',
}

const isBytes = (value) => ArrayBuffer.isView(value) || isAnyArrayBuffer(value)

/** The given options without undefined ones, or an error for the first that is wrong. */
function check(given) {
  if (!isRecord(given)) throw optionError(`the options must be an object, not ${describe(given)}`)
  const checked = {}
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(options, name)) throw optionError(`there is no option \`${name}\`; index.d.ts lists the options`)
    if (value === undefined) continue
    const [called, isRight] = kinds[options[name]]
    if (!isRight(value)) throw optionError(`the option \`${name}\` must be ${called}, not ${describe(value)}`)
    checked[name] = value
  }
  // A limit without end is none; the addon counts whole milliseconds.
  for (const name of ['timeout', 'maxMemory', 'maxSegments']) if (checked[name] > Number.MAX_SAFE_INTEGER) delete checked[name]
  // JSON has no BigInt, and no number that is none.
  if (checked.stubs) checked.stubs = Object.fromEntries(Object.entries(checked.stubs).map(([pattern, stub]) => [pattern, String(stub)]))
  if (checked.timeout !== undefined) checked.timeout = Math.ceil(checked.timeout)
  return checked
}

/** Bytes as a `Uint8Array` over the same memory; text becomes UTF-8. */
function toBytes(value, what) {
  if (isString(value)) return Buffer.from(value)
  if (isUint8Array(value)) return value
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  if (isBytes(value)) return new Uint8Array(value)
  throw optionError(`${what} must be a Uint8Array, an ArrayBuffer or a string, not ${describe(value)}`)
}

module.exports = { check, optionError, toBytes }
