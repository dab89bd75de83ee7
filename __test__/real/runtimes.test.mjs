// The package in other runtimes: what Node's API is there does, on the engines that it brings along.

import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { install, root } from '../../scripts/run.mjs'
import { run } from '../helpers/run.mjs'

const tools = join(root, '__test__', 'runners')
const program = (path) => join(tools, 'node_modules', path)

/** The programs, of packages that are there for one platform. */
const runtimes = {
  Bun: [program('@oven/bun-linux-x64/bin/bun')],
  Deno: [program('@deno/linux-x64-glibc/deno'), 'run', '--allow-all'],
}

const SCRIPT = `
const assert = require('node:assert')
const { Session, snapshot, wizer, wizerSync } = require(process.argv[2])
const GUEST = \`(module (import "env" "f" (func $f (param i32) (result i32))) (memory (export "memory") 1) (global $n (mut i32) (i32.const 40))
  (func (export "wizer.initialize") (i32.store (i32.const 0) (i32.const 77)) (global.set $n (call $f (i32.const 2)))))\`
const ENDLESS = '(module (func (export "wizer.initialize") (loop (br 0))))'
const options = { imports: { env: { f: (n) => n + 1 } }, cache: false }
const code = ('(drop (i32.const 1))'.repeat(2000))
const LARGE = '(module (memory 100) (data (i32.const 0) "' + 'x'.repeat(5_500_000) + '")' + ('(func ' + code + ')').repeat(200) + '(func (export "wizer.initialize")))'

async function work() {
  const output = wizerSync(GUEST, options)
  assert.deepEqual(await wizer(GUEST, options), output)
  const session = await Session.create(GUEST, options)
  await session.call('wizer.initialize')
  await session.close()
  await assert.rejects(wizer(ENDLESS, { timeout: 200 }), { code: 'ERR_WIZER_TIMEOUT' })
  assert.throws(() => wizerSync(ENDLESS, { timeout: 200 }), { code: 'ERR_WIZER_TIMEOUT' })
  await assert.rejects(wizer(GUEST, { ...options, engine: 'host' }), { code: 'ERR_WIZER_UNSUPPORTED' })
  // What would be V8's.
  const { engine } = (await snapshot(LARGE, { cache: false })).report
  console.log(engine.name + ': ' + engine.reason)
}
work().then(() => process.exit(0), (error) => { console.error(error); process.exit(1) })
`

describe('another runtime', () => {
  before(() => install(tools))
  for (const [name, command] of Object.entries(runtimes)) {
    const isThere = process.platform === 'linux' && process.arch === 'x64'
    it(name, { skip: !isThere && 'its package is for another platform' }, async () => {
      assert.ok(existsSync(command[0]))
      const file = join(tools, 'node_modules', '.wizer-runtime.cjs')
      writeFileSync(file, SCRIPT)
      const { status, stdout, stderr } = await run([...command, file, join(root, 'index.js')])
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
      assert.match(stdout.toString(), new RegExp(`^wasmtime \\(\\w+\\): the module is large; the engine of the host cannot be had: ${name} does not end a worker`))
    })
  }
})
