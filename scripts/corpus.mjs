// Has the judges of Rust's tests judge the engine that there is in Node only: does with modules what the tests did, and
// compares what comes of it with what came of it on Cranelift, byte for byte.
//
//   CORPUS=DIR cargo test --test spec --test random     writes down what the tests do (tests/common/corpus.rs)
//   node scripts/corpus.mjs DIR                         does the same on `engine: 'host'`
//   … --engine NAME                                     on another engine; on `optimizing`, nothing may differ
//   … --only NAME                                       what has this in its name alone, each step told; what differs is put into DIR/*.wasm

import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Session, wizer } from '../index.mjs'
import { Failure, main } from './run.mjs'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: 'string', default: 'host' }, only: { type: 'string' } },
})

/** How many differences are told. */
const TOLD = 40

/** Damaged modules may never end. */
const TIMEOUT = 20_000

/** What ends a run by a limit that this engine does not have, or for which all would wait. */
const LIMITS = ['ERR_WIZER_TIMEOUT', 'ERR_WIZER_MEMORY_LIMIT']

/** How many points were the same, and how many were left out, by reason. Of results of calls, those that NaNs made others. */
const counts = { same: new Map(), 'left out': new Map(), 'other results': new Map() }
const wrong = []

function count(kind, reason, points = 1) {
  counts[kind].set(reason, (counts[kind].get(reason) ?? 0) + points)
}

/** One run or session of the corpus. */
class Entry {
  constructor(line, bytes, file) {
    Object.assign(this, JSON.parse(line))
    this.bytes = ([from, to]) => bytes.subarray(from, to)
    this.file = file
  }

  /** The options for JavaScript. */
  get given() {
    const preload = Object.fromEntries(this.preload.map(([name, place]) => [name, this.bytes(place)]))
    const given = Object.fromEntries(Object.entries(this.options).filter(([, value]) => value !== null))
    return { ...given, preload, engine: options.engine, cache: false, timeout: TIMEOUT }
  }

  tell(...what) {
    if (options.only !== undefined) console.log(`${this.name}:`, ...what)
  }

  wrong(what) {
    wrong.push(`${this.name}: ${what}`)
    this.tell('WRONG', what)
  }

  async judge() {
    await (this.steps ? this.judgeSession() : this.judgeRun())
  }

  async judgeRun() {
    if (LIMITS.includes(this.output)) return count('left out', this.output)
    const ended = await end(() => wizer(this.bytes(this.wasm), this.given))
    this.tell('ended', ended)
    this.compare(ended, this.output, 'the run')
  }

  /** Whether the bytes, or the error, are those of the corpus. */
  compare({ code, value, refused }, expected, what) {
    if (refused) return void count('left out', refused)
    const wanted = Array.isArray(expected) ? this.bytes(expected) : undefined
    if (wanted ? value?.equals(wanted) : code === expected) return void count('same', wanted ? 'bytes' : expected)
    this.wrong(`${what} gave ${code ?? 'other bytes'} in the place of ${wanted ? 'these bytes' : expected}`)
    if (options.only === undefined) return
    const files = { module: this.bytes(this.wasm), found: value, expected: wanted }
    for (const [name, bytes] of Object.entries(files)) if (bytes) writeFileSync(join(positionals[0], `${name}.wasm`), bytes)
  }

  async judgeSession() {
    const isPoint = ([[what]]) => what === 'snapshot'
    const points = this.steps.filter(isPoint).length || 1
    if (!this.canBeAsked) return count('left out', 'JavaScript cannot have traps before the module is there, or references given', points)
    const made = await end(() => Session.create(this.bytes(this.wasm), this.given))
    this.tell('opened', made.code ?? '')
    if (made.refused) return count('left out', made.refused, points)
    if (made.code || this.opened) {
      if (made.code !== this.opened) this.wrong(`the session was opened with ${made.code} in the place of ${this.opened}`)
      else count('same', made.code)
      return made.value?.close()
    }
    const session = made.value
    const externs = new Externs()
    let [before, refused, done] = [undefined, undefined, 0]
    for (const [[what, ...parts], expected] of this.steps) {
      if (what === 'snapshot') {
        // What is not done here, and does nothing, is no reason to go no further.
        if (refused && String(expected) !== before) break
        done++
        before = String(expected)
        if (refused) count('left out', refused)
        else this.compare(await end(() => session.snapshot()), expected, `snapshot ${done}`)
        refused = undefined
        continue
      }
      const args = parts.map((part) => {
        if (!Array.isArray(part)) return [part]
        return what === 'instantiate' ? [this.bytes(part)] : part.map((value) => externs.value(value))
      })
      const isV128 = [parts.at(-1), expected].some((values) => Array.isArray(values) && values.some((value) => value[0] === 'v128'))
      const ended = isV128 ? { refused: 'values of the type v128' } : await end(() => session[what](...args.flat()))
      this.tell(what, ...args.flat().filter((arg) => !Buffer.isBuffer(arg)), ended.refused ?? ended.code ?? ended.value ?? '')
      refused ??= ended.refused
      // Others may go on differently from here, which no snapshot tells.
      if (ended.refused && what !== 'call' && what !== 'global') break
      if (ended.refused) continue
      if (!externs.fits(ended, expected)) {
        // What the call has done is compared all the same, in the next snapshot.
        if (ended.code === undefined && Array.isArray(expected) && args.flat().some(Number.isNaN)) {
          count('other results', 'JavaScript does not say which NaN it gives')
          continue
        }
        this.wrong(`${what} ${parts[0]} before snapshot ${done + 1} gave ${ended.code ?? String(ended.value)} in the place of ${JSON.stringify(expected)}`)
        refused = 'what follows on what is wrong'
        break
      }
    }
    if (done < points && refused) count('left out', refused, points - done)
    await session.close()
  }
}

/** How something ended: with a value, an error's code, or that this engine does not do it. */
async function end(work) {
  try {
    return { value: await work() }
  } catch (error) {
    const { code, message } = error
    // Without what is of one module only, and what to do.
    if (code === 'ERR_WIZER_UNSUPPORTED') return { refused: message.replace(/; .*/s, '').replace(/`[^`]*`|#\d+(:"[^"]*")?/g, '…').replace(/ @\+.*/s, '') }
    if (!code?.startsWith('ERR_WIZER_')) return { code: String(error?.stack ?? error) }
    return { code, message }
  }
}

/** Values of the corpus as ones of JavaScript, where a reference of the host is always the same. */
class Externs {
  #externs = new Map()

  value([type, text]) {
    switch (type) {
      case 'i64':
        return BigInt(text)
      case 'f32':
        return bits((view) => view.setUint32(0, parseInt(text, 16))).getFloat32(0)
      case 'f64':
        return bits((view) => view.setBigUint64(0, BigInt(`0x${text}`))).getFloat64(0)
      case 'null':
        return null
      case 'extern':
        if (!this.#externs.has(text)) this.#externs.set(text, { number: text })
        return this.#externs.get(text)
      default:
        return text
    }
  }

  /** Whether something ended as the corpus says. Which NaN it is, JavaScript does not tell. */
  fits({ code, value }, expected) {
    if (code || typeof expected === 'string') return code === expected
    const found = expected.length === 1 ? [value] : (value ?? [])
    return found.length === expected.length && expected.every((one, i) => (one[0] === 'handle' ? typeof found[i] === 'object' : Object.is(found[i], this.value(one))))
  }
}

function bits(write) {
  const view = new DataView(new ArrayBuffer(8))
  write(view)
  return view
}

function entries(directory) {
  const files = readdirSync(directory).filter((name) => name.endsWith('.jsonl'))
  const all = files.sort().flatMap((file) => {
    const bytes = readFileSync(join(directory, file.replace('.jsonl', '.bin')))
    const lines = readFileSync(join(directory, file), 'utf8').trimEnd().split('\n')
    return lines.map((line) => new Entry(line, bytes, file))
  })
  // Threads write in no order.
  all.sort((a, b) => (a.file + a.name < b.file + b.name ? -1 : 1))
  return all.filter(({ name }) => options.only === undefined || name.includes(options.only))
}

main(async () => {
  if (positionals.length !== 1) throw new Failure('which directory is the corpus in?')
  const left = entries(positionals[0])
  if (left.length === 0) throw new Failure('there is nothing in the corpus')
  const work = async () => {
    for (let entry; (entry = left.shift()); ) await entry.judge()
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  for (const [kind, reasons] of Object.entries(counts)) {
    for (const [reason, points] of [...reasons].sort()) console.log(`${kind} ${String(points).padStart(6)}: ${reason}`)
  }
  for (const what of wrong.slice(0, TOLD)) console.log(`wrong: ${what}`)
  if (wrong.length > 0) throw new Failure(`${wrong.length} are wrong`)
  const [same, leftOut] = [counts.same, counts['left out']].map((points) => [...points.values()].reduce((a, b) => a + b, 0))
  if (same < leftOut && options.only === undefined) throw new Failure('more was left out than was compared')
})
