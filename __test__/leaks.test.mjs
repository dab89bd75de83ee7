// Runs leave nothing behind: neither in the JavaScript heap nor in the addon. benches/leaks.mjs makes more of them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { measureAll, names } from './helpers/leaks.mjs'

const FIRST = 500
const RUNS = 1_500

/** A run that stayed would be more than 1,000 bytes in the heap, and more outside of it; code that V8 makes meanwhile is some. */
const BYTES_OF_HEAP = 600

/** Far less than what would stay, and far more than what a process takes in passing. */
const RESIDENT = 24e6

describe('what stays of runs that are over', { concurrency: 2 }, () => {
  for (const name of names) {
    it(name, async () => {
      const [{ before, after }] = measureAll(FIRST, RUNS, [name])
      const bytes = (after.heapUsed - before.heapUsed) / (RUNS - FIRST)
      assert.ok(bytes < BYTES_OF_HEAP, `${bytes.toFixed(0)} bytes of the heap a run`)
      assert.ok(after.rss - before.rss < RESIDENT, `${((after.rss - before.rss) / 1e6).toFixed(1)} MB more are resident`)
    })
  }
})
