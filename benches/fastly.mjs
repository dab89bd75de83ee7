#!/usr/bin/env node
// `fastly.wasm` through wizer's command line, as `@fastly/js-compute` does it:
// is the output right, and how long does it take beside `@bytecodealliance/wizer`?

import { mkdtempSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { checkFastly } from './lib/check-fastly.mjs'
import { bigScript, fastly, helloScript } from './lib/inputs.mjs'
import { describe, machine } from './lib/machine.mjs'
import { inTurn, ratio, resourcesOf, runOnce, spread } from './lib/measure.mjs'
import { ours, peer } from './lib/programs.mjs'
import { megabytes, ms, table, times } from './lib/table.mjs'

const HELP = `Usage: node fastly.mjs [--time [RUNS]] [--big] [--json FILE]

Without --time: runs wizer on fastly.wasm and a script, and checks the output
in V8 and in wasmtime. Ends with status 1 when a check fails or a judge is missing.

  --time [RUNS]        time our wizer and the package @bytecodealliance/wizer in
                       turn, RUNS times each (5 unless given)
  --big                load about 5 MB of JavaScript, not a hello world
  --json FILE          write the results to FILE as well
  --init-func NAME     name the initialization function to our program too, for a
                       WIZER_CLI with another default than wizer.initialize
  --without-wasmtime   do not ask wasmtime
  -h, --help           print this

WIZER_CLI may name another wizer program than bin/wizer.js of this checkout,
PYTHON another Python than the one in PATH.
`

const OPTIONS = {
  time: { type: 'boolean' },
  big: { type: 'boolean' },
  json: { type: 'string' },
  'init-func': { type: 'string' },
  'without-wasmtime': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
}

async function main() {
  const { values: options, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
  if (options.help) {
    process.stdout.write(HELP)
    return
  }
  const runs = Number(positionals[0] ?? 5)
  if (positionals.length > (options.time ? 1 : 0) || !Number.isInteger(runs) || runs < 1) {
    throw new Error(`only --time takes a number, and that is a count of runs; got ${positionals.join(' ')}`)
  }
  const input = fastly()
  const script = options.big ? bigScript() : helloScript()
  const program = ours(options['init-func'] ? ['-f', options['init-func']] : [])
  // Its real path: a guest sees what the operating system says the directory is called.
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-bench-')))
  try {
    writeFileSync(join(directory, script.name), script.source)
    const jobOf = ({ role, label, command }) => {
      const output = join(directory, `${role}.wasm`)
      return {
        label,
        command: [...command, ...input.args(output)],
        cwd: directory,
        stdin: input.stdin(script.name),
        env: input.env,
        output,
      }
    }
    const facts = {
      date: new Date().toISOString(),
      input: {
        file: input.name,
        from: `${input.package} ${input.version}`,
        bytes: statSync(input.path).size,
      },
      script: { name: script.name, bytes: script.source.length },
      machine: machine(),
    }
    console.log(
      `${facts.input.file} (${facts.input.from}, ${megabytes(facts.input.bytes)}), ${script.name} (${facts.script.bytes} bytes)`,
    )
    console.log(`${describe(facts.machine)}\n`)

    const results = options.time
      ? time([jobOf(program), jobOf(await peer(input.initFunc))], runs)
      : check(jobOf(program), { input, script, directory, wasmtime: !options['without-wasmtime'] })
    if (options.json) writeFileSync(options.json, `${JSON.stringify({ ...facts, ...results }, null, 2)}\n`)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function check(job, context) {
  runOnce(job)
  const bytes = statSync(job.output).size
  console.log(`${job.label} wrote ${megabytes(bytes)}`)
  const result = checkFastly({ ...context, output: job.output })
  if (!result.passed) process.exitCode = 1
  return { program: job.label, outputBytes: bytes, ...result }
}

function time(jobs, runs) {
  // The run for the memory comes first and is not timed: it also brings the files into the page cache.
  const resources = jobs.map((job) => {
    const used = resourcesOf(job)
    if (!WebAssembly.validate(readFileSync(job.output)))
      throw new Error(`V8 refuses the output of ${job.label}`)
    return { ...used, outputBytes: statSync(job.output).size }
  })
  const samples = inTurn(jobs, runs, (round, job, value) => {
    if (process.stderr.isTTY) console.error(`${round + 1}/${runs} ${job.label}: ${ms(value)}`)
  })
  const programs = jobs.map(({ label }, index) => ({
    label,
    ms: { ...spread(samples[index]), samples: samples[index] },
    ...resources[index],
  }))
  const peerByOurs = ratio(samples[1], samples[0])

  const or = (value, format) => (value === undefined ? '–' : format(value))
  console.log(
    table(
      ['', 'median', 'min', 'max', 'peak memory', 'processor', 'output'],
      programs.map((one) => [
        one.label,
        ms(one.ms.median),
        ms(one.ms.min),
        ms(one.ms.max),
        or(one.peakRssBytes, megabytes),
        or(one.cpuMs, ms),
        megabytes(one.outputBytes),
      ]),
    ),
  )
  const unmeasured = resources.find((used) => used.notMeasured)?.notMeasured
  if (unmeasured) console.log(`\nMemory and processor time: not measured (${unmeasured}).`)
  console.log(
    `\npeer ÷ ours, ${runs} runs each, in turn: ${times(peerByOurs.ofMedians)} by the medians` +
      ` (${times(peerByOurs.min)} to ${times(peerByOurs.max)} from round to round)`,
  )
  return { runs, programs, peerByOurs }
}

try {
  await main()
} catch (error) {
  console.error(`fastly.mjs: ${error.message}`)
  process.exitCode = 1
}
