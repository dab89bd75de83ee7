#!/usr/bin/env node
'use strict'

// The command line is written in Rust and runs in this process: this only opens the door to it.

let native
try {
  native = require('../platform.js').loadBinding()
} catch (error) {
  if (error.code !== 'ERR_WIZER_PLATFORM') throw error
  console.error(`Error: ${error.message}`)
}
// Asked for a worker where one is needed.
const dispatch = (number, start) => require('../lib/workers.js').worker(native, number, start)
process.exitCode = native ? native.cli(process.argv.slice(2), dispatch) : 1
