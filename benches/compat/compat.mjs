#!/usr/bin/env node
// Modules of real packages through wizer: is the output in the state that the original has after its initialization?
// And does a package's own JavaScript do the same with the output as with the original?

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { machine } from '../lib/machine.mjs'
import { moduleOf, remove } from './lib/fetch.mjs'
import { describeRow, render } from './lib/render.mjs'
import { packages } from './packages.mjs'
import { tasks } from './tasks.mjs'

const HELP = `Usage: node compat.mjs [NAME…] [--quick] [--write] [--keep]

Fetches packages from their registries, initializes a module of each, and compares
the output's whole state in this Node's V8 with the original's. NAME is the name of a
row; without names, all are tried. Ends with status 1 where an output is wrong, or
where a row is worse than docs/compatibility.json says.

  --quick     only those that continuous integration tries
  --write     write what was found to docs/compatibility.json and .md
  --keep      keep the packages in .cache
  -h, --help  print this

Modules with garbage-collected objects need Node 22 or newer.
`

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  write: { type: 'boolean', default: false },
  keep: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h' },
}

const docs = new URL('../../docs/', import.meta.url)
const KNOWN = new URL('compatibility.json', docs)
const PAGE = new URL('compatibility.md', docs)

/** How long one module may take in all, in milliseconds. */
const LIMIT = 600_000

function main() {
  const { values: options, positionals: names } = parseArgs({ options: OPTIONS, allowPositionals: true })
  if (options.help) return void process.stdout.write(HELP)
  const unknown = names.filter((name) => !packages.some(({ id }) => id === name))
  if (unknown.length > 0) throw new Error(`there is no row of the name ${unknown.join(', ')}`)

  const known = readKnown()
  const chosen = packages.filter(({ id, quick }) => (names.length > 0 ? names.includes(id) : quick || !options.quick))
  const rows = {}
  for (const [index, entry] of chosen.entries()) {
    rows[entry.id] = tryOne(entry)
    console.log(`${index + 1}/${chosen.length} ${describeRow(entry, rows[entry.id])}`)
    if (options.write) write({ machine: machine(), rows: { ...readKnown().rows, [entry.id]: rows[entry.id] } })
    const again = chosen.slice(index + 1).some(({ npm, pypi }) => npm === entry.npm && pypi === entry.pypi)
    if (!options.keep && !again) remove(entry)
  }
  const problems = chosen.flatMap(({ id }) => problemsOf(id, rows[id], known.rows[id]))
  for (const problem of problems) console.error(`FAILED ${problem}`)
  if (problems.length > 0) process.exitCode = 1
  console.log(`\n${chosen.length - problems.length} passed, ${problems.length} failed`)
}

/** One row: what became of the module, and of the package's own task where there is one. */
function tryOne(entry) {
  const verdict = child('run-one.mjs', { id: entry.id }, moduleOf(entry))
  const task = tasks[entry.id] && verdict.outputBytes !== undefined ? child('run-task.mjs', { id: entry.id }) : undefined
  return { ...verdict, ...(task && { task }) }
}

/** What a process of its own says; one that ends early or takes too long is a failure of the row. */
function child(script, order, wasm) {
  const program = fileURLToPath(new URL(script, import.meta.url))
  const args = ['--no-warnings', program, JSON.stringify(order)]
  const { status, signal, stdout, stderr, error } = spawnSync(process.execPath, args, {
    input: wasm,
    encoding: 'utf8',
    timeout: LIMIT,
    maxBuffer: 1 << 28,
  })
  const last = stdout?.trimEnd().split('\n').at(-1)
  if (status === 0 && last?.startsWith('{')) return JSON.parse(last)
  return { state: 'crashed', reason: error?.message ?? (signal ? `ended by ${signal}` : stderr.trim().split('\n').slice(-8).join(' ')) }
}

/** What is wrong with a row: an output that is, or less than was reached before. */
function problemsOf(id, row, before) {
  const wrong = []
  if (row.state === 'different') wrong.push(`${id}: ${row.differences.slice(0, 3).join('; ')}`)
  else if (row.state === 'crashed') wrong.push(`${id}: ${row.reason}`)
  else if (before?.state === 'same' && !['same', 'not judged'].includes(row.state)) wrong.push(`${id}: ${row.state} (${row.reason}), and was the same`)
  const reached = ['same', 'not judged'].includes(row.task?.state)
  if (row.task?.state === 'different' || (before?.task?.state === 'same' && row.state !== 'not judged' && !reached)) {
    wrong.push(`${id}, end to end: ${row.task?.reason ?? 'not done'}`)
  }
  return wrong
}

const readKnown = () => (existsSync(KNOWN) ? JSON.parse(readFileSync(KNOWN, 'utf8')) : { rows: {} })

function write(found) {
  writeFileSync(KNOWN, `${JSON.stringify(found, null, 1)}\n`)
  writeFileSync(PAGE, render(packages, found))
}

try {
  main()
} catch (error) {
  console.error(`compat.mjs: ${error.message}`)
  process.exitCode = 1
}
