// One module through wizer, and its output beside the original in V8.

import { Session, snapshot } from '../../../index.mjs'
import { compare, instantiate } from './compare.mjs'
import { Exit, hostImports } from './host.mjs'

/** How long one initialization may take, in milliseconds. */
const LIMIT = 120_000

/**
 * @typedef {object} Verdict
 * @property {'same' | 'different' | 'refused' | 'fails' | 'not judged'} state
 *   `fails` is for initializations that fail in V8 as well, `not judged` for what this V8 does not compile
 * @property {string} [code]    of the error, where wizer refused
 * @property {string} [reason]
 * @property {string[]} [differences]
 * @property {{ bytes: number, slots: number, globals: number, opaque: number }} [seen]  how much was compared
 * @property {number} inputBytes
 * @property {number} [outputBytes]
 * @property {number} [ms]      what wizer took, from the bytes of the input to those of the output
 * @property {string} [engine]
 * @property {string} [sameWith]  another engine that wrote the same bytes; without, no other runs the module here
 */

/**
 * @param {import('../packages.mjs').Entry} entry
 * @param {Uint8Array} wasm
 * @returns {Promise<Verdict>}
 */
export async function judge(entry, wasm) {
  const made = await run(entry, wasm)
  const sizes = { inputBytes: wasm.length, ...(made.output && { outputBytes: made.output.length, ms: made.ms, engine: made.engine }) }
  const refusal = made.error && { code: made.error.code, reason: firstLine(made.error.message) }

  const original = attempt(() => initialized(entry, wasm))
  if (original.error instanceof WebAssembly.CompileError) return { state: 'not judged', reason: original.error.message, ...sizes }
  if (refusal) return { state: original.error ? 'fails' : 'refused', ...refusal, ...sizes }
  if (original.error) {
    return { state: 'different', differences: [`the original fails in V8: ${firstLine(original.error.message)}`], ...sizes }
  }
  const output = attempt(() => instantiate(made.output, (wanted, memory) => importsFor(entry, wanted, memory)).state())
  if (output.error) return { state: 'different', differences: [`the output: ${firstLine(output.error.message)}`], ...sizes }
  const { differences, seen } = compare(original.value, output.value)
  const other = await onAnother(entry, wasm, made)
  if (other && Buffer.compare(made.output, other.output) !== 0) differences.push(`${other.engine} writes other bytes than ${made.engine}`)
  const same = differences.length === 0
  const found = same ? { state: 'same', ...(other && { sameWith: other.engine }) } : { state: 'different', differences: differences.slice(0, 20) }
  return { ...found, seen, ...sizes }
}

/** The same on an engine of the other kind, where one runs the module. */
async function onAnother(entry, wasm, { engine }) {
  for (const other of engine === 'wasmi' ? ['baseline', 'optimizing'] : ['interpreter', 'baseline']) {
    if (engine.includes('Winch') && other === 'baseline') continue
    const made = await run(entry, wasm, { engine: other })
    if (made.output) return made
  }
}

/** What wizer makes of it, or why it does not. */
async function run(entry, wasm, more = {}) {
  const started = performance.now()
  try {
    const { wasm: output, report } = await initialize(wasm, { ...options(entry, wasm), ...more })
    return { output, ms: Math.round(performance.now() - started), engine: report?.engine.name }
  } catch (error) {
    if (error.code === undefined) throw error
    return { error }
  }
}

/** A module that has nothing to call is done with its start function, which a session runs. */
async function initialize(wasm, { initFunc, invoke, ...options }) {
  if (initFunc || invoke) return snapshot(wasm, { initFunc, invoke, ...options })
  const session = await Session.create(wasm, options)
  const made = await session.snapshotWithReport()
  await session.close()
  return made
}

/** The options of an initialization. */
export function options(entry, wasm) {
  const wanted = typesOfImports(wasm)
  return {
    initFunc: entry.initFunc,
    invoke: entry.calls,
    imports: (host) => {
      const imports = importsFor(entry, wanted, () => host.memory(entry.memory))
      if (entry.options?.allowExit) delete imports.wasi_snapshot_preview1.proc_exit
      return imports
    },
    stdout: 'ignore',
    stderr: 'ignore',
    cache: false,
    timeout: LIMIT,
    ...entry.options,
  }
}

function typesOfImports(wasm) {
  try {
    return WebAssembly.Module.imports(new WebAssembly.Module(wasm))
  } catch {
    return []
  }
}

const importsFor = (entry, wanted, memory) => hostImports(wanted, { memory, values: entry.imports?.(), variables: entry.variables })

/** The original, initialized in V8 as wizer does it. */
function initialized(entry, wasm) {
  const instance = instantiate(wasm, (wanted, memory) => importsFor(entry, wanted, memory))
  const calls = (entry.calls ?? []).map(parseCall)
  const isCalled = (name) => calls.some((call) => call.name === name)
  if (instance.exports._initialize && !isCalled('_initialize')) calls.unshift({ name: '_initialize', args: [] })
  if (entry.initFunc && !isCalled(entry.initFunc)) calls.push({ name: entry.initFunc, args: [] })
  try {
    for (const { name, args } of calls) instance.exports[name](...args)
  } catch (error) {
    if (!(entry.options?.allowExit && error instanceof Exit && error.status === 0)) throw error
  }
  return instance.state()
}

/** `name(1, 2)` or `"a name"(1)`, with whole numbers. */
function parseCall(text) {
  const [, quoted, plain, args] = /^(?:"(.*)"|([^"]*))\((.*)\)$/.exec(text)
  return { name: quoted ?? plain, args: args.split(',').filter((arg) => arg.trim() !== '').map(Number) }
}

function attempt(work) {
  try {
    return { value: work() }
  } catch (error) {
    return { error }
  }
}

const firstLine = (text) => String(text).split('\n')[0]
