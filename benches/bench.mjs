#!/usr/bin/env node
// Everything that is fast or small here, beside the npm package `@bytecodealliance/wizer`: one table,
// with what we want of each row.

import { mkdtempSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import wizer from '../index.js'
import { chart } from './lib/chart.mjs'
import { describe, machine } from './lib/machine.mjs'
import { inTurn, median, ratio, resourcesOf, runOnce, spread } from './lib/measure.mjs'
import { ours, peer } from './lib/programs.mjs'
import { megabytes, ms, table, times } from './lib/table.mjs'
import { DENSE, WIDE, workloads } from './lib/workloads.mjs'

const HELP = `Usage: npm run bench -- [--runs N] [--only TEXT] [--json FILE] [--svg FILE]

  --runs N     runs of each program, in turn (5 unless given)
  --only TEXT  only rows with this in their name
  --json FILE  write the results to FILE as well
  --svg FILE   draw them
  -h, --help   print this
`

const OPTIONS = {
  runs: { type: 'string', default: '5' },
  only: { type: 'string', default: '' },
  json: { type: 'string' },
  svg: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
}

const IN_PROCESS = fileURLToPath(new URL('lib/in-process.mjs', import.meta.url))

const say = (text) => {
  if (process.stderr.isTTY) process.stderr.write(text)
}

/**
 * The jobs of a row: ours, the peer's, and V8's where ours is in process too. With `report`, a path, ours writes its
 * report there.
 */
function jobsOf(workload, programs, directory, report) {
  const { file, args, options, initFunc, stdin, env, besideEngine, ownArgs = [], peerArgs = [] } = workload
  const job = (role, label, command) => ({ role, label, command, cwd: directory, stdin, env, output: join(directory, `${role}.wasm`) })
  const inProcess = (role, label, more) => {
    const one = job(role, label)
    const order = JSON.stringify({ file, options: { ...options, initFunc, ...more }, stdin, output: one.output, report: role === 'ours' ? report : undefined })
    return { ...one, command: [process.execPath, '--no-warnings', IN_PROCESS, role === 'v8' ? 'v8' : 'wizer', order], stdin: '', tellsTime: true }
  }
  const cli = (role, { label, command }, more) => {
    const one = job(role, label)
    return { ...one, command: [...command, ...args, ...more, `-o=${one.output}`, file] }
  }
  const jobs = [
    workload.ours === 'cli' ? cli('ours', programs.ours, report ? [...ownArgs, `--report=${report}`] : ownArgs) : inProcess('ours', programs.ours.label),
    // The peer keeps no code either.
    besideEngine ? inProcess('peer', `wizer, engine ${besideEngine}`, { engine: besideEngine, cache: false }) : cli('peer', programs.peer, peerArgs),
  ]
  if (workload.warm) jobs[0].home = join(directory, 'home')
  if (workload.ours === 'process') jobs.push(inProcess('v8', `V8 ${process.versions.v8}`))
  return jobs
}

function measure(workload, programs, directory, runs) {
  const jobs = jobsOf(workload, programs, directory)
  if (workload.warm) runOnce(jobs[0])
  // The run for the memory comes first and is not timed: it brings the files into the page cache, and
  // tells which engine ran.
  const report = join(directory, 'report.json')
  const resources = jobsOf(workload, programs, directory, report).map((job) => {
    const used = resourcesOf(job)
    if (job.role !== 'v8' && !WebAssembly.validate(readFileSync(job.output))) throw new Error(`V8 refuses the output of ${job.label}`)
    return { ...used, outputBytes: statSync(job.output).size }
  })
  const samples = inTurn(jobs, runs, () => say('.'))
  const programsOfRow = jobs.map(({ role, label }, i) => ({ role, label, ms: { ...spread(samples[i]), samples: samples[i] }, ...resources[i] }))
  const [our, their, v8] = programsOfRow
  return {
    name: workload.name,
    tier: tierOf(report),
    programs: programsOfRow,
    time: { ...ratio(samples[1], samples[0]), goal: workload.time },
    memory:
      our.peakRssBytes && their.peakRssBytes
        ? { ratio: their.peakRssBytes / our.peakRssBytes, goal: workload.memory ?? 1 }
        : undefined,
    v8: v8 && { ratio: our.ms.median / v8.ms.median, goal: 1.3 },
  }
}

/** The engine that ran, by a report in a file. */
const tierOf = (report) => JSON.parse(readFileSync(report, 'utf8')).engine.name

/** Snapshot and rewrite of dense state, beside one copy of as many bytes into new memory. */
async function dense(runs) {
  const ours = []
  const copies = []
  let tier
  for (let run = 0; run < runs; run++) {
    const { wasm, report } = await wizer.snapshot(DENSE, { engine: 'optimizing' })
    tier = report.engine.name
    const phase = (name) => report.phases.find(({ phase }) => phase === name).ms
    ours.push(phase('snapshot') + phase('rewrite'))
    const begin = performance.now()
    Buffer.allocUnsafeSlow(wasm.length).set(wasm)
    copies.push(performance.now() - begin)
    say('.')
  }
  return { name: '48 MB of dense state: snapshot and rewrite', tier, ours: spread(ours), copy: spread(copies), ratio: median(ours) / median(copies), goal: 6 }
}

/** A memory of 4 GiB with a page in use: what it costs beside the compiler. */
function wide(directory, program, runs) {
  const report = join(directory, 'report.json')
  const output = join(directory, 'wide.wasm')
  const job = (text) => {
    const input = join(directory, 'wide.wat')
    writeFileSync(input, text)
    return { label: program.label, command: [...program.command, '--no-cache', `--report=${report}`, '-o', output, input], cwd: directory, output }
  }
  const beyond = []
  for (let run = 0; run < runs; run++) {
    runOnce(job(WIDE))
    const { phases } = JSON.parse(readFileSync(report, 'utf8'))
    const total = phases.reduce((sum, phase) => sum + phase.ms, 0)
    beyond.push(total - phases.find(({ phase }) => phase === 'compile').ms)
    say('.')
  }
  const used = resourcesOf(job(WIDE))
  const tier = tierOf(report)
  const empty = resourcesOf(job('(module (func (export "wizer.initialize")))'))
  return { name: '4 GiB of memory with 64 KiB in use: beyond the compile', tier, ms: spread(beyond), goalMs: 50, peakRssBytes: used.peakRssBytes, emptyRssBytes: empty.peakRssBytes, goalBytes: 64 * 2 ** 20 }
}

async function bench() {
  const { values: options } = parseArgs({ options: OPTIONS })
  if (options.help) return void process.stdout.write(HELP)
  const runs = Number(options.runs)
  if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs takes a count, not ${options.runs}`)
  const programsFor = async (initFunc) => ({ ours: ours(['-f', initFunc]), peer: await peer(initFunc) })
  const programs = await programsFor('wizer.initialize')
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-bench-')))
  try {
    const chosen = (name) => name.includes(options.only)
    const rows = []
    for (const workload of workloads(directory)) {
      if (!chosen(workload.name)) continue
      say(`${workload.name} `)
      workload.prepare?.()
      rows.push(measure(workload, await programsFor(workload.initFunc ?? 'wizer.initialize'), directory, runs))
      say('\n')
    }
    const extra = {}
    if (chosen('48 MB of dense state')) extra.dense = await dense(runs)
    if (chosen('4 GiB of memory')) extra.wide = wide(directory, programs.ours, runs)
    say('\n')
    const results = { date: new Date().toISOString(), machine: machine(), programs: { ours: programs.ours.label, peer: programs.peer.label }, runs, rows, ...extra }
    print(results)
    if (options.json) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`)
    if (options.svg) writeFileSync(options.svg, chart(results))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function print({ machine, programs, runs, rows, dense, wide }) {
  console.log(`${programs.ours} beside ${programs.peer}: medians of ${runs} runs, in turn.`)
  console.log(`${describe(machine)}\n`)
  const or = (value, format) => (value === undefined ? '–' : format(value))
  if (rows.length > 0) {
    const cells = rows.map(({ name, tier, programs: [our, their], time, memory, v8 }) => [
      name,
      ms(our.ms.median),
      tier,
      their.label === programs.peer ? ms(their.ms.median) : `${ms(their.ms.median)} (${their.label})`,
      times(time.ofMedians),
      `≥ ${time.goal}`,
      or(memory && our.peakRssBytes, megabytes),
      or(memory?.ratio, times),
      or(memory?.goal, (goal) => `≥ ${goal}`),
      or(v8?.ratio, times),
      or(v8?.goal, (goal) => `≤ ${goal}`),
    ])
    console.log(table(['', 'ours', 'tier', 'peer', 'peer ÷ ours', 'goal', 'memory', 'peer ÷ ours', 'goal', 'ours ÷ V8', 'goal'], cells))
  }
  const others = []
  if (dense) others.push([dense.name, ms(dense.ours.median), dense.tier, `${times(dense.ratio)} one copy (${ms(dense.copy.median)})`, `≤ ${dense.goal} ×`])
  if (wide) {
    others.push([wide.name, ms(wide.ms.median), wide.tier, '', `≤ ${wide.goalMs} ms`])
    const empty = or(wide.emptyRssBytes, megabytes)
    others.push(['the same: peak memory', or(wide.peakRssBytes, megabytes), wide.tier, `${empty} for an empty module`, `≤ ${megabytes(wide.goalBytes)}`])
  }
  if (others.length > 0) console.log(`\n${table(['', 'ours', 'tier', '', 'goal'], others)}`)
}

try {
  await bench()
} catch (error) {
  console.error(`${basename(fileURLToPath(import.meta.url))}: ${error.message}`)
  process.exitCode = 1
}
