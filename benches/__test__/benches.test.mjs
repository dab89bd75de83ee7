// The measuring itself: same input everywhere, right arithmetic, and checks that can fail.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import wizer from '../../index.js'
import { chart } from '../lib/chart.mjs'
import { bigScript, expectedBody, helloScript, lodashScript } from '../lib/inputs.mjs'
import { inTurn, median, ratio, resourcesOf, runOnce } from '../lib/measure.mjs'

const directory = mkdtempSync(join(tmpdir(), 'wizer-bench-test-'))
after(() => rmSync(directory, { recursive: true, force: true }))

/** The least that a program under measurement does. */
const WRITES = 'require("fs").writeFileSync("output", "")'

const node = (label, program) => ({
  label,
  command: [process.execPath, '-e', program],
  cwd: directory,
  output: join(directory, 'output'),
})

test('the big script has the same bytes everywhere', () => {
  const { source } = bigScript()
  assert.match(source, /^[\n\x20-\x7e]*$/)
  assert.equal(
    createHash('sha256').update(source).digest('hex'),
    '745542e5ea52c318ebe281396864cbb997e5ef0177997e05bf0d0c0574776824',
  )
})

test('each script answers in Node', () => {
  assert.equal(expectedBody(helloScript()), 'HELLO WORLD')
  assert.equal(expectedBody(lodashScript()), 'HELLO WORLD')
  assert.equal(expectedBody(bigScript()), '1061 modules, checksum 2833822890')
})

test('medians and ratios', () => {
  assert.equal(median([9, 1, 5]), 5)
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.deepEqual(ratio([10, 20, 60], [10, 10, 20]), { ofMedians: 2, min: 1, max: 3 })
})

test('jobs take turns', () => {
  const order = []
  const times = inTurn([node('a', WRITES), node('b', WRITES)], 2, (round, job) =>
    order.push(`${job.label}${round}`),
  )
  assert.deepEqual(order, ['a0', 'b0', 'a1', 'b1'])
  assert.deepEqual(
    times.map((one) => one.length),
    [2, 2],
  )
})

test('a run finds no output and no cache of an earlier one', () => {
  const job = node(
    'leaves traces',
    `
    const fs = require('fs'), path = require('path');
    const cache = path.join(process.env.XDG_CACHE_HOME, 'cache');
    if (fs.existsSync('output') || fs.existsSync(cache)) process.exit(3);
    fs.writeFileSync('output', ''); fs.writeFileSync(cache, '');
  `,
  )
  runOnce(job)
  runOnce(job)
  assert.ok(existsSync(job.output))
})

test('a failed run is an error that shows what the program said', () => {
  assert.throws(
    () => runOnce(node('the program', 'console.error("no such export"); process.exit(2)')),
    /the program ended with status 2:\nno such export/,
  )
})

test('a run without an output is an error', () => {
  assert.throws(() => runOnce(node('the program', '')), /wrote no output/)
})

/** A module that asks its host, and keeps the answer. */
const ASKS = `(module
  (import "env" "answer" (func $answer (result i32)))
  (memory (export "memory") 1)
  (func (export "nothing"))
  (func (export "init") (i32.store (i32.const 0) (i32.add (i32.const 1) (call $answer)))))`

test('wizer and V8 initialize a module in processes that time themselves', () => {
  const file = join(directory, 'asks.wasm')
  const output = join(directory, 'asked.wasm')
  const report = join(directory, 'report.json')
  writeFileSync(file, wizer.wizerSync(ASKS, { initFunc: 'nothing', keepInitFunc: true }))
  const run = (by, stub, report) => {
    const order = JSON.stringify({ file, output, options: { initFunc: 'init', stubs: { '*.*': stub } }, report })
    const program = fileURLToPath(new URL('../lib/in-process.mjs', import.meta.url))
    return runOnce({ label: by, command: [process.execPath, '--no-warnings', program, by, order], cwd: directory, output, tellsTime: true }).ms
  }
  for (const by of ['wizer', 'v8']) {
    assert.ok(run(by, 41) > 0)
    assert.throws(() => run(by, 'trap'), /env(\.|::)answer/)
  }
  run('wizer', 41, report)
  assert.equal(JSON.parse(readFileSync(report, 'utf8')).engine.name, 'wasmi')
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(output)), { env: { answer() {} } })
  assert.equal(new Uint8Array(exports.memory.buffer)[0], 42)
})

test('the picture says where a row stands beside something else than the peer', () => {
  const row = (name, label) => ({ name, programs: [{ label: 'ours' }, { label }], time: { ofMedians: 2, goal: 3 }, memory: { ratio: 2, goal: 1 } })
  const rows = [row('one', 'peer'), row('other', 'another')]
  const svg = chart({ rows, machine: { cpu: 'cpu', cores: 2, node: 'v0' }, programs: { ours: 'ours', peer: 'peer' } })
  assert.deepEqual(svg.match(/>[^<>]*: beside [^<]*/g), ['>other: beside another'])
  assert.doesNotMatch(svg, /: memory</)
})

test("memory is the program's own", (t) => {
  const used = resourcesOf(node('uses 200 MB', `globalThis.x = Buffer.alloc(200e6, 1); ${WRITES}`))
  if (used.notMeasured) return t.skip(used.notMeasured)
  assert.ok(used.peakRssBytes > 200e6 && used.peakRssBytes < 400e6, String(used.peakRssBytes))
  assert.ok(used.cpuMs > 0)
})

test('an output that starts no further along fails the check', () => {
  const json = join(directory, 'result.json')
  const run = spawnSync(
    process.execPath,
    [fileURLToPath(new URL('../fastly.mjs', import.meta.url)), '--without-wasmtime', '--json', json],
    {
      encoding: 'utf8',
      env: { ...process.env, WIZER_CLI: fileURLToPath(new URL('copies-its-input.mjs', import.meta.url)) },
    },
  )
  assert.equal(run.status, 1, run.stderr)
  const { passed, checks, judges } = JSON.parse(readFileSync(json, 'utf8'))
  assert.equal(passed, false)
  assert.ok(checks.find(({ what }) => what === 'the output answers a request as Node would').ok === false)
  assert.deepEqual(
    judges.find(({ name }) => name === 'wasmtime'),
    { name: 'wasmtime', ran: false, why: 'as asked' },
  )
})
