// The cache of compiled code as JavaScript sees it: where it is, who shares it, and that a run works without it. What
// damage and killed processes do to it is in tests/cache.rs.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { programs, run, runScript, temporaryDirectory } from './helpers/run.mjs'
import { assertInitialized } from './helpers/v8.mjs'
import { assemble } from './helpers/wat.mjs'

/** A module with more than 128 KiB of code, from which on it is kept. */
const large = (body, ...fields) =>
  assemble(`(module ${fields.join('\n')}
    (global $n (export "n") (mut i32) (i32.const 0))
    (func (export "wizer.initialize") ${body} (global.set $n (i32.const 42)))
    ${`(func ${'(drop (i64.const 0x7000000000000000))'.repeat(300)})`.repeat(40)})`)

const MODULE = large('')
/** It calls an import, which is nothing for an interpreter whose run may be thrown away. */
const CALLER = large('(call $f)', '(import "test" "f" (func $f))')
const SMALL = assemble('(module (global $n (export "n") (mut i32) (i32.const 0)) (func (export "wizer.initialize") (global.set $n (i32.const 42))))')

const directory = temporaryDirectory()
let places = 0
/** A path at which nothing is yet. */
const place = () => join(directory, `${places++}`)

const file = (name, bytes) => {
  const path = join(directory, name)
  writeFileSync(path, bytes)
  return path
}
const input = file('module.wasm', MODULE)

/** The paths of the entries of a cache, once nobody writes to it any more. */
function entries(cache) {
  const own = join(cache, 'wizer-1')
  const names = existsSync(own) ? readdirSync(own) : []
  for (const name of names) assert.match(name, /^[0-9a-f]{64}$/)
  return names.map((name) => join(own, name))
}

const IN_THE_CACHE = /in the cache/
const LONG_AGO = new Date(1e12)

/** Runs `body`, and says whether the one entry of a cache was used. */
async function uses(cache, body) {
  const [entry] = entries(cache)
  utimesSync(entry, LONG_AGO, LONG_AGO)
  await body()
  assert.deepEqual(entries(cache), [entry])
  return statSync(entry).mtimeMs > LONG_AGO.getTime()
}

/** The reason for the engine, of a run that went well. */
async function reason(wasm, options) {
  const { wasm: output, report } = await snapshot(wasm, options)
  assertInitialized(output, wasm, { imports: options.imports })
  return report.engine.reason
}

const imports = { test: { f() {} } }

describe('the option `cache`', () => {
  for (const [what, wasm, options] of [
    ['baseline', MODULE, { engine: 'baseline' }],
    ['optimizing', MODULE, { engine: 'optimizing' }],
    // Without a limit, the engine of Node would run it.
    ['auto, where an import is called and memory is limited', CALLER, { imports, maxMemory: 2 ** 30 }],
  ]) {
    it(`a directory: ${what}`, async () => {
      const cache = join(place(), 'not', 'there yet')
      assert.doesNotMatch(await reason(wasm, { ...options, cache }), IN_THE_CACHE)
      const kept = entries(cache)
      assert.equal(kept.length, 1)
      assert.match(await reason(wasm, { ...options, cache }), IN_THE_CACHE)
      assert.ok(await uses(cache, () => wizer(wasm, { ...options, cache })))
      assert.ok(await uses(cache, () => wizerSync(wasm, { ...options, cache })))
      assert.ok(!(await uses(cache, () => wizer(wasm, { ...options, cache: false }))))
    })
  }

  it('the same bytes, from the cache or not', async () => {
    const options = { engine: 'baseline', cache: place() }
    const outputs = [await wizer(MODULE, options), await wizer(MODULE, options), wizerSync(MODULE, options)]
    outputs.push(await wizer(MODULE, { cache: false }))
    for (const output of outputs) assert.deepEqual(output, outputs[0])
    assertInitialized(outputs[0], MODULE)
  })

  it('false: neither read nor written', async () => {
    const home = place()
    const script = `
      wizer(require('node:fs').readFileSync(${JSON.stringify(input)}), { engine: 'baseline', cache: false }).then((wasm) => console.log(wasm.length))`
    const { status, stdout } = await runScript(script, { env: { ...process.env, XDG_CACHE_HOME: home, HOME: home } })
    assert.equal(status, 0)
    assert.ok(Number(stdout) > 128 * 1024)
    assert.ok(!existsSync(home))
  })

  const elsewhere = process.platform !== 'linux' && 'only Linux lets the environment say where it is'
  it('true, or not given: the user\'s directory', { skip: elsewhere }, async () => {
    for (const variable of ['XDG_CACHE_HOME', 'HOME']) {
      const home = place()
      const cache = variable === 'HOME' ? join(home, '.cache') : home
      const env = { ...process.env, [variable]: home }
      if (variable === 'HOME') delete env.XDG_CACHE_HOME
      const reasons = []
      for (const given of ['', 'cache: undefined', 'cache: true']) {
        const script = `
          snapshot(require('node:fs').readFileSync(${JSON.stringify(input)}), { engine: 'baseline', ${given} })
            .then(({ report }) => console.log(report.engine.reason))`
        const { status, stdout, stderr } = await runScript(script, { env })
        assert.equal(status, 0, stderr)
        reasons.push(IN_THE_CACHE.test(stdout))
        assert.equal(entries(cache).length, 1)
      }
      assert.deepEqual(reasons, [false, true, true])
    }
  })

  it('anything else is an error', async () => {
    for (const cache of [null, 0, 1, NaN, 1n, [], ['a'], {}, Symbol('a'), () => true, new String('a'), new URL('file:///tmp'), Buffer.from('a')]) {
      const expected = (error) => {
        assert.ok(error instanceof WizerError)
        assert.equal(error.code, 'ERR_WIZER_OPTION')
        assert.match(error.message, /`cache` must be a boolean or the path of a directory/)
        return true
      }
      assert.throws(() => wizerSync(SMALL, { cache }), expected)
      await assert.rejects(wizer(SMALL, { cache }), expected)
      await assert.rejects(snapshot(SMALL, { cache }), expected)
    }
  })

  it('no trace of what needs no compiler, or next to none', async () => {
    const cache = place()
    for (const [wasm, engine] of [[MODULE, 'interpreter'], [MODULE, 'auto'], [SMALL, 'auto'], [SMALL, 'baseline'], [SMALL, 'optimizing']]) {
      await wizer(wasm, { engine, cache })
      wizerSync(wasm, { engine, cache })
      assert.ok(!existsSync(cache), engine)
    }
  })

  it('a place that cannot be used fails no run', async () => {
    const occupied = place()
    mkdirSync(occupied)
    writeFileSync(join(occupied, 'wizer-1'), 'contents')
    const cache = [input, join(input, 'below'), occupied, `${place()}\0`, join(directory, 'x'.repeat(1000))]
    if (process.platform === 'linux') cache.push('/proc/nothing', '/dev/null')
    for (const unusable of cache) {
      for (let time = 0; time < 2; time++) {
        assert.doesNotMatch(await reason(MODULE, { engine: 'optimizing', cache: unusable }), IN_THE_CACHE, unusable)
      }
    }
    assert.equal(readFileSync(join(occupied, 'wizer-1'), 'utf8'), 'contents')
  })

  it('a damaged entry is replaced', async () => {
    const options = { engine: 'baseline', cache: place() }
    await wizer(MODULE, options)
    const [entry] = entries(options.cache)
    const good = readFileSync(entry)
    const damaged = Buffer.from(good)
    damaged[good.length >> 1] ^= 4
    for (const bytes of [damaged, good.subarray(0, -1), '']) {
      writeFileSync(entry, bytes)
      assert.doesNotMatch(await reason(MODULE, options), IN_THE_CACHE)
      assert.match(await reason(MODULE, options), IN_THE_CACHE)
    }
    assert.deepEqual(entries(options.cache), [entry])
  })

  it('links to the directory are followed', async () => {
    const [target, cache] = [place(), place()]
    mkdirSync(target)
    symlinkSync(target, cache, 'junction')
    await wizer(MODULE, { engine: 'baseline', cache })
    assert.equal(entries(target).length, 1)
    assert.match(await reason(MODULE, { engine: 'baseline', cache }), IN_THE_CACHE)
  })
})

describe('many users of one cache', () => {
  for (const [what, wasm, options] of [
    ['one module', MODULE, { engine: 'baseline' }],
    ['one module that calls imports', CALLER, { imports, engine: 'baseline' }],
  ]) {
    it(`twenty runs at once: ${what}`, async () => {
      const cache = place()
      const twenty = () => Promise.all(Array.from({ length: 20 }, () => snapshot(wasm, { ...options, cache })))
      const [first] = await twenty()
      assertInitialized(first.wasm, wasm, { imports })
      assert.equal(entries(cache).length, 1)
      for (const { wasm: output, report } of await twenty()) {
        assert.deepEqual(output, first.wasm)
        assert.match(report.engine.reason, IN_THE_CACHE)
      }
      assert.equal(entries(cache).length, 1)
    })
  }

  it('workers', async () => {
    const cache = place()
    const script = `
      const { parentPort, workerData: { modules, options } } = require('node:worker_threads')
      const { wizer, wizerSync } = require('@jakechampion/wizer')
      ;(async () => {
        const outputs = []
        for (const wasm of modules) outputs.push(await wizer(wasm, options), wizerSync(wasm, options))
        parentPort.postMessage(outputs)
      })()`
    const modules = [MODULE, large('nop')]
    const options = { engine: 'baseline', cache }
    const worker = () =>
      new Promise((resolve, reject) =>
        new Worker(script, { eval: true, workerData: { modules, options } }).once('message', resolve).once('error', reject))
    const expected = modules.flatMap((wasm) => Array(2).fill(wizerSync(wasm, { cache: false })))
    for (const outputs of await Promise.all(Array.from({ length: 6 }, worker))) {
      for (const [index, output] of outputs.entries()) assert.deepEqual(Buffer.from(output), expected[index])
    }
    assert.equal(entries(cache).length, 2)
    for (const wasm of modules) assert.match(await reason(wasm, options), IN_THE_CACHE)
  })

  it('a worker that is ended leaves no damage', async () => {
    const cache = place()
    const script = `
      const { parentPort, workerData: { wasm, options } } = require('node:worker_threads')
      const { wizer } = require('@jakechampion/wizer')
      wizer(wasm, { ...options, onProgress: ({ phase }) => phase === options.at && parentPort.postMessage(phase) })`
    for (const at of ['compile', 'initialize', 'rewrite']) {
      const worker = new Worker(script.replaceAll('options.at', JSON.stringify(at)), {
        eval: true,
        workerData: { wasm: MODULE, options: { engine: 'baseline', cache } },
      })
      await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
      await worker.terminate()
    }
    await reason(MODULE, { engine: 'baseline', cache })
    assert.match(await reason(MODULE, { engine: 'baseline', cache }), IN_THE_CACHE)
  })

  it('a process that exits as soon as it has the output has kept the code', async () => {
    for (const exit of ['process.exit()', 'process.kill(process.pid, "SIGKILL")']) {
      const cache = place()
      const options = JSON.stringify({ engine: 'baseline', cache })
      const script = `wizer(require('node:fs').readFileSync(${JSON.stringify(input)}), ${options}).then(() => ${exit})`
      await runScript(script)
      assert.equal(entries(cache).length, 1)
      assert.ok(await uses(cache, () => runScript(script)))
    }
  })
})

describe('the command line', () => {
  for (const { name, command } of programs) {
    it(`--cache-dir and --no-cache: ${name}`, async () => {
      const [cache, home] = [place(), place()]
      const env = { ...process.env, XDG_CACHE_HOME: home }
      const go = async (...args) => {
        const { status, stdout, stderr } = await run([...command, '--engine', 'baseline', input, '--verbose', ...args], { env })
        assert.equal(status, 0, stderr)
        assertInitialized(stdout, MODULE)
        return IN_THE_CACHE.test(stderr)
      }
      assert.equal(await go('--no-cache'), false)
      assert.equal(await go('--cache-dir', cache), false)
      assert.equal(entries(cache).length, 1)
      assert.ok(await uses(cache, async () => assert.equal(await go(`--cache-dir=${cache}`), true)))
      assert.ok(!existsSync(home))
    })
  }
})
