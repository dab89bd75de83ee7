// The child process of compat.mjs for one module, which is its standard input. It prints a Verdict. Each module has a
// process of its own, so that one that takes all memory, or that crashes an engine, is a row of the table and not the end of it.

import { readFileSync } from 'node:fs'
import { judge } from './lib/judge.mjs'
import { packages } from './packages.mjs'

const { id } = JSON.parse(process.argv[2])
const entry = packages.find((entry) => entry.id === id)
console.log(`\n${JSON.stringify(await judge(entry, readFileSync(0)))}`)
