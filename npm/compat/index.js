'use strict'

// The path of the program, as `@bytecodealliance/wizer` exports it.

module.exports = require('@jakechampion/wizer/bin-path')
