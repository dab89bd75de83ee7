'use strict'

// The path of the program `wizer`, for those who start it themselves. Documented in bin-path.d.ts.

module.exports = require('./platform.js').programPath()
