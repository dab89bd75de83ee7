// What stays of runs when they are over, as a table: `node leaks.mjs [runs]`.

import { measureAll } from '../__test__/helpers/leaks.mjs'
import { megabytes, table } from './lib/table.mjs'

const runs = Number(process.argv[2] ?? 50_000)
const first = Math.min(1_000, runs / 2)
const growth = (from, to) => `${(((to - from) / from) * 100).toFixed(1)} %`

const rows = measureAll(first, runs).map(({ name, before, after }) => [
  name,
  ...['heapUsed', 'rss'].flatMap((what) => [megabytes(before[what]), megabytes(after[what]), growth(before[what], after[what])]),
])
console.log(`In use after ${first} and after ${runs} runs, by process.memoryUsage() of Node ${process.versions.node}:\n`)
console.log(table(['runs', 'heap', 'then', 'growth', 'resident', 'then', 'growth'], rows))
