// Time and memory of cold processes. What the processes do is not known here.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findPython } from './python.mjs'

const RESOURCES = fileURLToPath(new URL('resources.py', import.meta.url))

/**
 * One process to run.
 *
 * @typedef {object} Job
 * @property {string} label
 * @property {string[]} command
 * @property {string} cwd
 * @property {string} [stdin]
 * @property {Record<string, string>} [env]  in addition to this process's own
 * @property {string} output                 the file it writes; removed before it starts
 * @property {boolean} [tellsTime]           whether it measures itself, and prints the milliseconds
 * @property {string} [home]                 where programs keep caches; an empty directory by default
 */

/**
 * Runs a job once in a process of its own, with nothing left over from earlier
 * runs: no output file, and an empty directory where programs keep caches.
 *
 * @param {Job} job
 * @returns {{ ms: number, stderr: string }} `ms` is from spawn to exit
 */
export function runOnce(job) {
  return inCleanPlace(job, (env) => {
    const start = process.hrtime.bigint()
    const result = spawn(job.command, job, env)
    const ms = Number(process.hrtime.bigint() - start) / 1e6
    mustSucceed(job, result)
    return { ms: job.tellsTime ? Number(result.stdout) : ms, stderr: result.stderr }
  })
}

/**
 * Runs a job once, and asks the operating system what it used. Not for timing:
 * a helper process stands in between.
 *
 * @param {Job} job
 * @returns {{ peakRssBytes: number, cpuMs: number } | { notMeasured: string }}
 *   the largest process's peak of resident memory, and the processor time of all its threads
 */
export function resourcesOf(job) {
  const python = findPython()
  if (process.platform === 'win32' || !python) {
    runOnce(job)
    return { notMeasured: python ? 'not on Windows' : 'needs Python 3' }
  }
  return inCleanPlace(job, (env, place) => {
    const report = join(place, 'resources.json')
    mustSucceed(job, spawn([python, RESOURCES, report, ...job.command], job, env))
    return JSON.parse(readFileSync(report, 'utf8'))
  })
}

/**
 * Times jobs in turn (A B A B …), so that whatever else the machine does in
 * the meantime falls on all of them alike.
 *
 * @param {Job[]} jobs
 * @param {number} rounds
 * @param {(round: number, job: Job, ms: number) => void} [onRun]
 * @returns {number[][]} for each job its times in milliseconds, round by round
 */
export function inTurn(jobs, rounds, onRun = () => {}) {
  const times = jobs.map(() => [])
  for (let round = 0; round < rounds; round++) {
    jobs.forEach((job, index) => {
      const { ms } = runOnce(job)
      times[index].push(ms)
      onRun(round, job, ms)
    })
  }
  return times
}

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** @param {number[]} values */
export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

/**
 * How many times as long `slow` took as `fast`: of the medians, and the lowest
 * and highest within a round.
 *
 * @param {number[]} slow
 * @param {number[]} fast  of the same rounds
 */
export function ratio(slow, fast) {
  const byRound = slow.map((ms, round) => ms / fast[round])
  return { ofMedians: median(slow) / median(fast), min: Math.min(...byRound), max: Math.max(...byRound) }
}

function inCleanPlace(job, run) {
  rmSync(job.output, { force: true })
  const place = mkdtempSync(join(tmpdir(), 'wizer-bench-home-'))
  try {
    const home = job.home ?? join(place, 'home')
    mkdirSync(home, { recursive: true })
    // HOME and the two others decide where Linux, macOS and Windows programs keep caches.
    const caches = { HOME: home, XDG_CACHE_HOME: home, LOCALAPPDATA: home }
    return run({ ...process.env, ...job.env, ...caches }, place)
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

function spawn([file, ...args], job, env) {
  return spawnSync(file, args, {
    cwd: job.cwd,
    env,
    input: job.stdin ?? '',
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
}

function mustSucceed(job, { status, signal, error, stderr }) {
  if (error) throw new Error(`${job.label} could not be started: ${error.message}`)
  if (status !== 0) {
    throw new Error(`${job.label} ended with ${signal ?? `status ${status}`}:\n${stderr.trimEnd()}`)
  }
  if (!existsSync(job.output)) throw new Error(`${job.label} ended with status 0 and wrote no output`)
}
