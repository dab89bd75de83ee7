// Is an output of `fastly.wasm` right, and does it start further along than the
// input? V8 and wasmtime run both, and what they saw is compared here.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expectedBody } from './inputs.mjs'
import { count, ms } from './table.mjs'
import { runInV8 } from './v8-judge.mjs'
import { wasmtimeJudge } from './wasmtime-judge.mjs'

/** Calls by which the module would get at its script. */
const READS_A_FILE = /\.(path_open|fd_read|fd_pread|fd_readdir|path_filestat_get)$/

/**
 * Prints each check as it is made.
 *
 * @param {object} subject
 * @param {ReturnType<import('./inputs.mjs').fastly>} subject.input
 * @param {import('./inputs.mjs').Script} subject.script
 * @param {string} subject.directory  where the script lies
 * @param {string} subject.output     the module to judge
 * @param {boolean} subject.wasmtime  ask wasmtime as well
 * @returns {{ passed: boolean, judges: object[], checks: { judge: string, what: string, ok: boolean, seen?: string }[], seen: object }}
 */
export function checkFastly({ input, script, directory, output, wasmtime }) {
  const checks = []
  const check = (judge, what, ok, seen) => {
    checks.push({ judge, what, ok, ...(seen && { seen }) })
    console.log(`${ok ? 'ok    ' : 'FAILED'} ${judge}: ${what}${seen ? ` (${seen})` : ''}`)
    return ok
  }

  const stdin = join(directory, 'stdin')
  writeFileSync(stdin, input.stdin(script.name))
  const scriptless = join(directory, 'empty-stdin')
  writeFileSync(scriptless, '')
  const order = { stdin, directory, hostPrefix: input.hostPrefix }
  const orders = {
    // An output needs neither the script nor its name any more, so it doesn't get the name.
    output: { ...order, stdin: scriptless, wasm: output, calls: ['_start'] },
    input: { ...order, wasm: input.path, calls: ['_initialize', input.initFunc, input.resumeFunc] },
    unprepared: { ...order, wasm: input.path, calls: ['_initialize', input.resumeFunc] },
  }

  const judges = [{ name: `V8 ${process.versions.v8}`, ran: true }]
  const seen = { v8: inV8(orders, { check, input, output, script }) }
  const wasmtimeRan = { name: 'wasmtime', ran: false }
  judges.push(wasmtimeRan)
  if (wasmtime) {
    try {
      const judge = wasmtimeJudge()
      wasmtimeRan.name = `wasmtime ${judge.version}`
      seen.wasmtime = inWasmtime(orders, { check, judge })
      wasmtimeRan.ran = true
    } catch (error) {
      wasmtimeRan.why = error.message
    }
  } else {
    wasmtimeRan.why = 'as asked'
  }

  const missing = wasmtime && !wasmtimeRan.ran
  if (!wasmtimeRan.ran) console.log(`NOT RUN ${wasmtimeRan.name}: ${wasmtimeRan.why}`)
  const failed = checks.filter(({ ok }) => !ok).length
  const ran = judges
    .filter((judge) => judge.ran)
    .map((judge) => judge.name)
    .join(' and ')
  console.log(
    `\n${checks.length - failed} of ${checks.length} checks passed. Judged by ${ran}${missing ? ' alone: not enough' : ''}.`,
  )
  return { passed: failed === 0 && !missing, judges, checks, seen }
}

function inV8(orders, { check, input, output, script }) {
  const v8 = check.bind(null, 'V8')
  if (!v8('accepts the output', accepts(output))) return undefined

  const [before, after, unprepared] = [orders.input, orders.output, orders.unprepared].map(runInV8)

  const exportsWanted = before.exports
    .filter((name) => name !== input.initFunc && name !== '_initialize')
    .map((name) => (name === input.resumeFunc ? '_start' : name))
    .sort()
  v8(
    `exports: ${input.resumeFunc} became _start, ${input.initFunc} and _initialize are gone`,
    same(after.exports.toSorted(), exportsWanted),
    list(after.exports),
  )
  v8("imports are the input's", same(after.imports, before.imports), `${after.imports.length}`)

  const body = expectedBody(script)
  v8(
    'the output answers a request as Node would',
    after.response?.body === body,
    after.response?.body ?? after.error,
  )
  v8(
    'the input, when it has initialized itself, gives the same answer',
    before.response !== undefined && same(before.response, after.response),
    before.error,
  )
  v8(
    'and from there on both make the same host calls',
    before.response !== undefined && same(after.host[0], before.host.at(-1)),
    `${after.host[0].length} calls`,
  )
  v8(
    'the script is not read again',
    after.reached && !after.before.some((name) => READS_A_FILE.test(name)),
    `before the request: ${list(after.before)}`,
  )
  v8('the input without initialization does not get to the request', !unprepared.reached, unprepared.error)
  v8(
    'fewer host calls before the request',
    after.reached && after.before.length < before.before.length,
    `${after.before.length}, the input ${before.before.length}`,
  )
  console.log(
    `       V8, for information only: response after ${ms(after.msToResponse)}, the input's after ${ms(before.msToResponse)}`,
  )
  return { input: before, output: after, unprepared }
}

function inWasmtime(orders, { check, judge }) {
  const wasmtime = check.bind(null, `wasmtime ${judge.version}`)
  const after = judge.run(orders.output)
  if (!wasmtime('accepts the output', after.refused === undefined, after.refused)) return { output: after }
  const before = judge.run(orders.input)
  wasmtime('the output gets to the request', after.reached, after.error)
  wasmtime(
    'with fewer instructions than the input',
    after.reached && before.reached && after.instructions < before.instructions,
    `${count(after.instructions)}, the input ${count(before.instructions)}`,
  )
  return { input: before, output: after }
}

function accepts(path) {
  try {
    new WebAssembly.Module(readFileSync(path))
    return true
  } catch {
    return false
  }
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)
const list = (names) => names.join(', ') || 'nothing'
