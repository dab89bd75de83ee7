// The measuring itself: same input everywhere, right arithmetic, and checks that can fail.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bigScript, expectedBody, helloScript } from '../lib/inputs.mjs'
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

test('both scripts answer in Node', () => {
  assert.equal(expectedBody(helloScript()), 'HELLO WORLD')
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
