// Every fixture of tests/fixtures, judged by the V8 that runs this: the original after its initialization and the
// output of wizer look the same and act the same. A fixture that this V8 cannot compile is not judged, and named.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { wizer, wizerSync } from '../index.mjs'
import { start } from './helpers/v8.mjs'

/** About as many fixtures as the oldest V8 that we support (Node 20) can compile; newer ones compile nearly all. */
const AT_LEAST = 60

const fixtures = join(resolve(fileURLToPath(import.meta.url), '../..'), 'tests', 'fixtures')

/** The fixture in the binary format; tests/pipeline.rs sees to it that it is what the text says. */
const binary = (...path) => readFileSync(join(fixtures, 'binary', dirname(join(...path)), path.at(-1).replace('.wat', '.wasm')))

/** What the lines `;;! …` of a fixture say, which tests/common/fixtures.rs explains. */
function setup(file) {
  const setup = { options: {}, preloads: {}, reactor: true }
  const { options, preloads } = setup
  for (const [, key, value = ''] of readFileSync(join(fixtures, file), 'utf8').matchAll(/^;;! ([\w-]+)(?:: (.*))?$/gm)) {
    const [left, right] = value.split('=')
    if (key === 'init-func') options.initFunc = value
    else if (key === 'keep-init-func') options.keepInitFunc = value === 'true' || value
    else if (key === 'rename') options.renameFuncs = { ...options.renameFuncs, [left]: right }
    else if (key === 'preload') preloads[left] = binary('preload', right)
    else if (key === 'no-reactor') setup.reactor = false
    else assert.equal(key, 'not', `${file}: what is ${key}?`)
  }
  return { ...setup, options: { ...options, preload: preloads } }
}

/** A new instance's exports, with new instances of the modules that it imports from. */
function instantiate(wasm, preloads) {
  const imports = Object.entries(preloads).map(([name, preload]) => [name, start(preload)])
  return start(wasm, Object.fromEntries(imports))
}

/** The exports of the original after its initialization, as the output should have them. */
function initialized(wasm, { options, preloads, reactor }) {
  const exports = { ...instantiate(wasm, preloads) }
  const usual = ['wizer.initialize', 'wizer-initialize'].find((name) => name in exports)
  const { initFunc = usual, keepInitFunc, renameFuncs = {} } = options
  const functions = new Set([...(reactor && '_initialize' in exports ? ['_initialize'] : []), initFunc])
  for (const name of functions) exports[name]()

  for (const name of functions) if (keepInitFunc === 'empty') exports[name] = () => {}
  const renamed = Object.entries(renameFuncs).map(([name, old]) => [name, exports[old]])
  for (const name of functions) if (keepInitFunc !== 'empty' && !(keepInitFunc && name === initFunc)) delete exports[name]
  for (const old of Object.values(renameFuncs)) delete exports[old]
  return Object.assign(exports, Object.fromEntries(renamed))
}

/** A value that can be compared with one of another instance. */
const comparable = (value) => (typeof value === 'function' ? { function: value.name } : value)

/** All that can be seen of the exported memories, globals and tables. */
function state(exports) {
  const seen = {}
  for (const [name, value] of Object.entries(exports)) {
    if (value instanceof WebAssembly.Memory) seen[name] = Buffer.from(value.buffer)
    else if (value instanceof WebAssembly.Global) seen[name] = comparable(value.value)
    else if (value instanceof WebAssembly.Table) {
      // With 64-bit indices, these are BigInts.
      const index = typeof value.length === 'bigint' ? BigInt : Number
      seen[name] = Array.from({ length: Number(value.length) }, (_, slot) => comparable(value.get(index(slot))))
    }
  }
  return seen
}

function assertSameState(output, original, when) {
  const [found, expected] = [state(output), state(original)]
  for (const name of Object.keys(expected)) {
    // Not deepEqual, which would print whole memories.
    if (Buffer.isBuffer(expected[name])) assert.ok(found[name].equals(expected[name]), `the memory \`${name}\` ${when}`)
    else assert.deepEqual(found[name], expected[name], `\`${name}\` ${when}`)
  }
}

/** How a call of a function without parameters ends. */
function call(exported) {
  try {
    const result = exported()
    return { result: Array.isArray(result) ? result.map(comparable) : comparable(result) }
  } catch (error) {
    return { thrown: error.constructor, message: error.message }
  }
}

function assertSame(output, original) {
  assert.deepEqual(Object.keys(output).sort(), Object.keys(original).sort())
  assertSameState(output, original, 'at the start')
  for (const name of Object.keys(original).sort()) {
    if (typeof original[name] !== 'function' || original[name].length > 0) continue
    assert.deepEqual(call(output[name]), call(original[name]), `a call of \`${name}\``)
    assertSameState(output, original, `after a call of \`${name}\``)
  }
}

describe('in V8, an output is what the initialization makes of the original', () => {
  const notJudged = []
  const files = readdirSync(fixtures).filter((name) => name.endsWith('.wat'))
  for (const file of files) {
    const original = binary(file)
    try {
      new WebAssembly.Module(original)
    } catch (error) {
      notJudged.push(`${file}: ${error.message}`)
      continue
    }
    it(file, async () => {
      const described = setup(file)
      const output = await wizer(original, described.options)
      assertSame(instantiate(output, described.preloads), initialized(original, described))
      assert.ok(wizerSync(original, described.options).equals(output))
    })
  }

  it('enough of them were judged', (t) => {
    for (const line of notJudged) t.diagnostic(`not judged, as V8 ${process.versions.v8} cannot compile it: ${line}`)
    const judged = files.length - notJudged.length
    assert.ok(judged >= AT_LEAST, `${judged} of ${files.length}`)
  })
})

describe('on the engine of Node, the output is that of Cranelift, byte for byte', () => {
  const notRun = []
  const files = readdirSync(fixtures).filter((name) => name.endsWith('.wat'))
  for (const file of files) {
    it(file, async () => {
      const [original, { options }] = [binary(file), setup(file)]
      const expected = await wizer(original, { ...options, engine: 'optimizing', cache: false })
      try {
        assert.ok(expected.equals(await wizer(original, { ...options, engine: 'host', cache: false })), 'other bytes')
      } catch (error) {
        if (error.code !== 'ERR_WIZER_UNSUPPORTED') throw error
        notRun.push(`${file}: ${error.message}`)
      }
    })
  }

  it('enough of them were run', (t) => {
    for (const line of notRun) t.diagnostic(`not run by V8 ${process.versions.v8}: ${line}`)
    assert.ok(files.length - notRun.length >= AT_LEAST, `${files.length - notRun.length} of ${files.length}`)
  })
})

/** Fixtures that Binaryen cannot read, whatever their outputs are: custom page sizes, names that are not valid, and the like. */
const NOT_READ_BY_BINARYEN_AT_MOST = 8

describe('Binaryen, the library behind wasm-opt, reads and optimizes outputs', async () => {
  const { default: binaryen } = await import('binaryen')
  // It tells of what it does not read on standard error.
  const quietly = (work) => {
    const { error } = console
    console.error = () => {}
    try {
      return work()
    } finally {
      console.error = error
    }
  }
  /** The module optimized; nothing where Binaryen does not read it. */
  const optimized = (wasm) =>
    quietly(() => {
      let module
      try {
        module = binaryen.readBinary(wasm)
        module.setFeatures(binaryen.Features.All)
        if (!module.validate()) return undefined
        module.optimize()
        return module.validate() ? module.emitBinary() : undefined
      } catch {
        return undefined
      } finally {
        module?.dispose()
      }
    })
  const notRead = []
  for (const file of readdirSync(fixtures).filter((name) => name.endsWith('.wat'))) {
    it(file, async () => {
      const original = binary(file)
      const optimizedOriginal = optimized(original)
      if (!optimizedOriginal) return void notRead.push(file)
      const described = setup(file)
      const output = optimized(await wizer(original, described.options))
      assert.ok(output, 'the output is not read')
      // Binaryen may use types that this V8 does not know yet, then of the original as well.
      if (WebAssembly.validate(optimizedOriginal)) instantiate(output, described.preloads)
    })
  }
  it('enough of them were read', () => {
    assert.ok(notRead.length <= NOT_READ_BY_BINARYEN_AT_MOST, notRead.join(', '))
  })
})
