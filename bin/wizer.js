#!/usr/bin/env node
'use strict'

// The command line is written in Rust and runs in this process: this only opens the door to it.

let cli
try {
  cli = require('../platform.js').loadBinding().cli
} catch (error) {
  if (error.code !== 'ERR_WIZER_PLATFORM') throw error
  console.error(`Error: ${error.message}`)
}
process.exitCode = cli ? cli(process.argv.slice(2)) : 1
