'use strict'

// Node's own modules that are used here. They are not simply required, because a bundle that is an ES module may have
// no `require` (esbuild's has one that throws), and Node before 20.16 has no `getBuiltinModule`.

const builtin = (name) => process.getBuiltinModule?.(name)

module.exports = {
  fs: builtin('node:fs') ?? require('node:fs'),
  module: builtin('node:module') ?? require('node:module'),
  path: builtin('node:path') ?? require('node:path'),
  url: builtin('node:url') ?? require('node:url'),
  util: builtin('node:util') ?? require('node:util'),
  v8: builtin('node:v8') ?? require('node:v8'),
  workerThreads: builtin('node:worker_threads') ?? require('node:worker_threads'),
}
