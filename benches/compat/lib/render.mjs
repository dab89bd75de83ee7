// What was found, as a line on the terminal and as docs/compatibility.md.

import { markdownTable } from 'markdown-table'
import { describe } from '../../lib/machine.mjs'
import { count, megabytes } from '../../lib/table.mjs'

/** A row for somebody who waits for it. */
export function describeRow({ id }, row) {
  const task = row.task && `; its own JavaScript ${outcomeOfTask(row.task)}`
  return `${id}: ${[outcome(row), row.reason, ...(row.differences ?? [])].filter(Boolean).join(', ')}${task ?? ''}`
}

const STATES = { same: 'the same', different: 'DIFFERENT', refused: 'refused', fails: 'fails in V8 too', 'not judged': 'not judged', crashed: 'CRASHED' }

const outcome = (row) => STATES[row.state] + (row.code ? ` (${row.code})` : '')

function outcomeOfTask({ state, does, reason }) {
  if (state === 'same') return `${does}, with the same answer`
  if (state === 'not judged') return `is not judged, as it fails with the original on this Node: ${reason}`
  return state === 'different' ? `answers otherwise: ${reason}` : `fails: ${reason}`
}

/**
 * The page.
 *
 * @param {import('../packages.mjs').Entry[]} packages
 * @param {{ machine: object, rows: Record<string, object> }} found
 */
export function render(packages, found) {
  const entries = packages.filter(({ id }) => found.rows[id]).sort((a, b) => compareText(a.toolchain, b.toolchain) || compareText(a.id, b.id))
  const rows = entries.map((entry) => [entry, found.rows[entry.id]])
  return `${INTRODUCTION}
${summary(rows)}

## End to end

The package's own JavaScript, as it is published, does a task with the initialized module in the place of its own. *The same* means that it
gives the same answer as with the original. (The modules of wasmoon, z3-solver and magick-wasm need imports that call back;
[\`benches/emscripten.mjs\`](../benches/emscripten.mjs) does the same for them.)

${endToEnd(rows)}

## Every module

*State* compares the output's with the original's. *Compared* is how much of it there is: bytes of memory, slots of tables, globals. *Time* is what
\`snapshot(bytes)\` took, once, with an empty cache, on the first engine that is named; where there is a second, that one was asked for afterwards, and wrote
the same bytes. *Translated* means that Binaryen first translated legacy exceptions, as
[\`ERR_WIZER_UNSUPPORTED\`](errors.md#err_wizer_unsupported) says.

${everyModule(rows)}

## What was refused

No output was written in these cases; the error says why.

${refusals(rows)}

Made by \`npm run compat\` on ${describe(found.machine)} (V8 ${found.machine.v8}). The numbers are in [\`compatibility.json\`](compatibility.json).
`
}

const INTRODUCTION = `# Compatibility

Modules that people ship, taken from their packages in npm and PyPI as they are, and initialized. \`npm run compat\` fetches them and makes this page; continuous
integration tries some of them each time.

Each output is compared with its original: V8 runs the original's initialization, instantiates the output, and then *every byte of every memory, every slot
of every table and every global* of the two instances has to be the same. Functions are told by their index, floats and vectors by their bits. Both
get the same imports: functions that do nothing and return zero, and a WASI whose clock stands still and whose random numbers are a count.
Of garbage-collected objects only is compared whether there is one.
`

function summary(rows) {
  const of = (state) => rows.filter(([, row]) => row.state === state).length
  const parts = [`${rows.length} modules were tried. The state of ${of('same')} outputs is the same as the original's.`]
  const twice = rows.filter(([, row]) => row.sameWith).length
  parts.push(`An engine of another kind, interpreter or compiler, wrote the same bytes for ${twice} of them.`)
  if (of('refused') > 0) parts.push(`${of('refused')} modules were refused.`)
  if (of('fails') > 0) parts.push(`${of('fails')} initializations fail in V8 as well, without what the package's JavaScript provides.`)
  if (of('not judged') > 0) parts.push(`${of('not judged')} could not be compared, as this V8 does not compile the original.`)
  parts.push(`${of('different')} are wrong, and ${of('crashed')} crashed.`)
  return parts.join(' ')
}

function endToEnd(rows) {
  const tried = rows.filter(([, row]) => row.task)
  const cells = tried.map(([entry, { task }]) => [nameOf(entry), task.does, task.state === 'same' ? 'the same' : outcomeOfTask(task)])
  return markdownTable([['module', 'what it does', 'answer'], ...cells.map(escaped)], { alignDelimiters: false })
}

function everyModule(rows) {
  const header = ['toolchain', 'module', 'initialized', 'state', 'compared', 'size', 'output', 'time', 'engine']
  const cells = rows.map(([entry, row]) => [
    entry.toolchain,
    nameOf(entry),
    entry.translated ? `${entry.initialized} (translated)` : entry.initialized,
    outcome({ ...row, code: undefined }),
    row.seen ? `${count(row.seen.bytes)}, ${count(row.seen.slots)}, ${count(row.seen.globals)}` : '',
    size(row.inputBytes),
    row.outputBytes === undefined ? '' : size(row.outputBytes),
    row.ms === undefined ? '' : `${count(row.ms)} ms`,
    [row.engine, row.sameWith].filter(Boolean).join(' = '),
  ])
  return markdownTable([header, ...cells.map(escaped)], { align: ['l', 'l', 'l', 'l', 'r', 'r', 'r', 'r', 'l'], alignDelimiters: false })
}

function refusals(rows) {
  const reasons = new Map()
  for (const [entry, row] of rows) {
    if (row.state !== 'refused') continue
    const reason = `\`${row.code}\`: ${shortened(row.reason)}`
    reasons.set(reason, [...(reasons.get(reason) ?? []), entry.id])
  }
  return [...reasons].map(([reason, ids]) => `- ${ids.join(', ')}: ${reason}`).join('\n') || 'None.'
}

/** The first clause, without places in the file. */
const shortened = (reason) => reason.split(';')[0].replace(/ \(at offset 0x[\da-f]+\)/, '').slice(0, 250)

const nameOf = (entry) => `${entry.id} (\`${entry.npm ?? entry.pypi}\` ${entry.version.split('-')[0]})`
const size = (bytes) => (bytes >= 1e6 ? megabytes(bytes) : `${count(Math.ceil(bytes / 1000))} kB`)
const escaped = (cells) => cells.map((cell) => cell.replaceAll('|', '\\|'))
const compareText = (a, b) => (a < b ? -1 : a > b ? 1 : 0)
