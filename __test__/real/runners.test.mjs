// Test runners run each file in a realm of its own: the package works there as well.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { install, root } from '../../scripts/run.mjs'
import { attempt } from '../helpers/packages.mjs'

const tools = join(root, '__test__', 'runners')
const script = (path) => [process.execPath, join(tools, 'node_modules', path)]

/** What a user's test does; the runners' `test` and `expect` are global. */
const TEST = `
const { Session, WizerError, wizer, wizerSync } = require('@jakechampion/wizer')

const GUEST = Uint8Array.of(
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0,
  7, 20, 1, 16, ...new TextEncoder().encode('wizer.initialize'), 0, 0, 10, 4, 1, 2, 0, 0x0b)

test('is a realm of its own', () => {
  expect(require('node:events') instanceof Function).toBe(false)
})

test('bytes of this realm and of that of Node', async () => {
  for (const bytes of [GUEST, GUEST.buffer, Buffer.from(GUEST), new DataView(GUEST.buffer)]) {
    expect(WebAssembly.validate(await wizer(bytes))).toBe(true)
    expect(WebAssembly.validate(wizerSync(bytes))).toBe(true)
  }
})

test('imports', async () => {
  const env = {
    memory: new WebAssembly.Memory({ initial: 1 }),
    table: new WebAssembly.Table({ initial: 1, element: 'anyfunc' }),
    global: new WebAssembly.Global({ value: 'i32' }, 42),
    f: (n) => n + 1,
  }
  const session = await Session.create(
    \`(module
      (import "env" "memory" (memory 1)) (import "env" "table" (table 1 funcref))
      (import "env" "global" (global i32)) (import "env" "f" (func $f (param i32) (result i32)))
      (func (export "get") (result i32) (call $f (global.get 0))))\`,
    { imports: { env }, files: { a: GUEST.buffer }, allowWasi: true },
  )
  expect(await session.call('get')).toBe(43)
  await session.close()
})

test('errors', async () => {
  const error = await wizer('(module)').catch((error) => error)
  expect(error).toBeInstanceOf(WizerError)
  await expect(wizer(GUEST, { signal: AbortSignal.abort('enough') })).rejects.toMatchObject({ name: 'AbortError', cause: 'enough' })
})
`

const runners = {
  Jest: { command: [...script('jest/bin/jest.js'), '--ci', '--rootDir', '.'], counts: /Tests: +4 passed, 4 total/ },
  "vitest's threads with node:vm": { command: [...script('vitest/vitest.mjs'), 'run', '--globals', '--pool', 'vmThreads'], counts: /Tests +4 passed \(4\)/ },
  "vitest's processes with node:vm": { command: [...script('vitest/vitest.mjs'), 'run', '--globals', '--pool', 'vmForks'], counts: /Tests +4 passed \(4\)/ },
}

describe('test runners', () => {
  let directory

  before(() => {
    install(tools)
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-runners-')))
    mkdirSync(join(directory, 'node_modules', '@jakechampion'), { recursive: true })
    symlinkSync(root, join(directory, 'node_modules', '@jakechampion', 'wizer'), 'junction')
    writeFileSync(join(directory, 'package.json'), '{ "private": true }')
    writeFileSync(join(directory, 'wizer.test.js'), TEST)
    assert.ok(existsSync(join(directory, 'node_modules', '@jakechampion', 'wizer', 'index.js')))
  })

  after(() => rmSync(directory, { recursive: true, force: true }))

  for (const [name, { command, counts }] of Object.entries(runners)) {
    it(name, () => {
      const { status, stdout, stderr } = attempt(directory, command, { NO_COLOR: '1', CI: 'true' })
      assert.equal(status, 0, stdout + stderr)
      assert.match(stdout + stderr, counts)
    })
  }
})
