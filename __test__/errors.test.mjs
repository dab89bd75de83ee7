// What goes wrong, and that each thing that can go wrong is told by its code and in words that help. Errors of imports
// are in imports.test.mjs, of the command line in cli.test.mjs.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { runScript, temporaryDirectory } from './helpers/run.mjs'
import { assertInitialized, start, state } from './helpers/v8.mjs'
import { print, wasi } from './helpers/wasi.mjs'
import { assemble } from './helpers/wat.mjs'

const init = (body, ...fields) => `(module ${fields.join('\n')} (func (export "wizer.initialize") ${body}))`
const EMPTY = init('')

/** The error of a run, which is the same however the run is started. */
async function failure(code, wasm, options) {
  const caught = (error) => {
    assert.ok(error instanceof WizerError, String(error?.stack ?? error))
    return error
  }
  const errors = []
  for (const call of [wizer, snapshot]) errors.push(await call(wasm, options).then(() => assert.fail('it went well'), caught))
  try {
    wizerSync(wasm, options)
    assert.fail('it went well')
  } catch (error) {
    errors.push(caught(error))
  }
  for (const error of errors) {
    assert.equal(error.code, code, error.message)
    assert.equal(error.message, errors[0].message)
    assert.deepEqual(error.wasmBacktrace, errors[0].wasmBacktrace)
    // A person reads it: nothing of Rust's own, and no backtrace of ours.
    assert.doesNotMatch(error.message, /panicked|RUST_BACKTRACE|src\/|\.rs\b|\bu(8|32|64)\b|\benum\b|variant|untagged|Some\(|None\b/)
  }
  return errors[0]
}

async function fails(code, message, wasm, options) {
  const error = await failure(code, wasm, options)
  assert.match(error.message, message)
  return error
}

describe('a WizerError', () => {
  it('is an Error with a name, a code and a stack', async () => {
    const error = await failure('ERR_WIZER_TRAP', init('unreachable'))
    assert.ok(error instanceof Error)
    assert.equal(error.name, 'WizerError')
    assert.match(String(error), /^WizerError: the `wizer.initialize` function trapped/)
    assert.match(error.stack, /WizerError: the `wizer.initialize` function trapped[^]*\n +at /)
    assert.match(inspect(error), /WizerError[^]*code: 'ERR_WIZER_TRAP'/)
    assert.equal('cause' in error, false)
    assert.equal('stdout' in error, false)
  })

  it('rejects the promise, and is never thrown by `wizer` or `snapshot` themselves', async () => {
    for (const call of [wizer, snapshot]) {
      for (const args of [[], [5], [EMPTY, 5], [EMPTY, { engine: 'none' }], [EMPTY, { imports: 5 }]]) {
        const promise = call(...args)
        await assert.rejects(promise, { name: 'WizerError', code: 'ERR_WIZER_OPTION' })
      }
    }
  })

  it('does not end the process, unless nobody cares', async () => {
    const { stdout, status } = await runScript(`
      wizer('').catch((error) => console.log(error.code)).then(() => wizer(''))
      process.on('unhandledRejection', (error) => console.log('unhandled', error.code))`)
    assert.equal(stdout.toString(), 'ERR_WIZER_INVALID_MODULE\nunhandled ERR_WIZER_INVALID_MODULE\n')
    assert.equal(status, 0)
  })
})

describe('ERR_WIZER_INVALID_MODULE', () => {
  const cases = {
    'nothing': new Uint8Array(),
    'no text': '',
    'zeros': new Uint8Array(64),
    'other text': 'hello',
    'a script': 'export const wasm = 1',
    'only the magic': Buffer.from('\0asm'),
    'another version': Buffer.from('\0asm\x02\0\0\0', 'latin1'),
    'a function without its end': assemble(EMPTY).with(-1 - assemble(EMPTY).slice().reverse().indexOf(0x0b), 0x01),
    'what does not validate': init('(i32.const 1)'),
    'a wrong index': init('(call 7)'),
    'a misplaced section': Buffer.concat([assemble(EMPTY), Buffer.from([1, 1, 0])]),
  }
  for (const [what, wasm] of Object.entries(cases)) {
    it(what, async () => {
      const { message } = await fails('ERR_WIZER_INVALID_MODULE', /not a valid WebAssembly module/, wasm)
      assert.doesNotMatch(message, /\n/)
    })
  }

  it('tells the place in the input, not in something made of it', async () => {
    const module = assemble(init('(drop (i32.const 1)) (drop (i64.add (i64.const 1) (i32.const 2)))'))
    const place = Buffer.from(module).indexOf(Buffer.from([0x42, 1, 0x41, 2, 0x7c])) + 4
    await fails('ERR_WIZER_INVALID_MODULE', new RegExp(`offset 0x${place.toString(16)}\\b`), module)
  })

  it('is found wherever it is, also in what does not run', async () => {
    await failure('ERR_WIZER_INVALID_MODULE', init('', '(func (result i32))'))
    await failure('ERR_WIZER_INVALID_MODULE', init('unreachable', '(func (result i32) (f32.const 1))'))
  })
})

it('ERR_WIZER_INVALID_TEXT', async () => {
  await fails('ERR_WIZER_INVALID_TEXT', /expected `\)`[^]*1:8/, '(module')
  await fails('ERR_WIZER_INVALID_TEXT', /2:4/, '(module\n  (nonsense))')
  await fails('ERR_WIZER_INVALID_TEXT', /unknown func/, init('(call $nobody)'))
})

it('ERR_WIZER_COMPONENT', async () => {
  const bytes = Buffer.from('\0asm\x0d\0\x01\0', 'latin1')
  for (const component of [bytes, '(component)', Buffer.concat([bytes, Buffer.from([0, 2, 1, 97])])]) {
    await fails('ERR_WIZER_COMPONENT', /component/, component)
  }
})

describe('ERR_WIZER_INIT_FUNC_MISSING', () => {
  it('names what was looked for, and what could serve', async () => {
    const module = `(module (func (export "setup")) (func (export "start")) (func (export "add") (param i32)) (memory (export "memory") 1))`
    const { message } = await failure('ERR_WIZER_INIT_FUNC_MISSING', module)
    for (const name of ['wizer.initialize', 'wizer-initialize', 'setup', 'start']) assert.ok(message.includes(`\`${name}\``), message)
    for (const name of ['add', 'memory']) assert.ok(!message.includes(`\`${name}\``), message)
    const { message: asked } = await failure('ERR_WIZER_INIT_FUNC_MISSING', module, { initFunc: 'begin' })
    assert.match(asked, /`begin`/)
    assert.doesNotMatch(asked, /wizer.initialize/)
    assert.match(asked, /initFunc/)
  })

  it('says that nothing could serve', async () => {
    await fails('ERR_WIZER_INIT_FUNC_MISSING', /no function/, '(module)')
  })

  it('does not list hundreds', async () => {
    const exports = Array.from({ length: 500 }, (_, n) => `(func (export "function number ${n}"))`)
    const { message } = await failure('ERR_WIZER_INIT_FUNC_MISSING', `(module ${exports.join('')})`)
    assert.ok(message.length < 1000, message)
  })
})

describe('ERR_WIZER_INIT_FUNC_TYPE', () => {
  for (const [what, field] of Object.entries({
    'parameters': '(func (export "f") (param i32))',
    'a result': '(func (export "f") (result i32) (i32.const 1))',
    'a memory': '(memory (export "f") 1)',
    'a global': '(global (export "f") i32 (i32.const 1))',
    'a table': '(table (export "f") 1 funcref)',
  })) {
    it(what, async () => {
      const module = `(module ${field} (func (export "other")))`
      await fails('ERR_WIZER_INIT_FUNC_TYPE', /`f`.*`other`/, module, { initFunc: 'f' })
    })
  }
})

describe('ERR_WIZER_TRAP', () => {
  const TRAPS = `(module $app
    (memory (export "memory") 1)
    (table 1 funcref)
    (type $t (func))
    (func $inner unreachable)
    (func $s (call $inner))
    (func $_ZN4core5panic17h0123456789abcdefE (call $s))
    (func $_Z3addii (call $_ZN4core5panic17h0123456789abcdefE))
    (func (export "names") (call $_Z3addii))
    (func $load (export "load") (drop (i32.load (i32.const 65533))))
    (func $divide (export "divide") (drop (i32.div_u (i32.const 1) (i32.load (i32.const 0)))))
    (func $convert (export "convert") (drop (i32.trunc_f64_s (f64.const 1e30))))
    (func $indirect (export "indirect") (call_indirect (type $t) (i32.const 0)))
    (func $beyond (export "beyond") (call_indirect (type $t) (i32.const 9)))
    (func $deep (export "deep") (call $deep)))`
  const REASONS = {
    names: /unreachable/,
    load: /out of bounds memory access/,
    divide: /divide by zero/,
    convert: /integer overflow|invalid conversion/,
    indirect: /uninitialized element|null/,
    beyond: /undefined element|out of bounds/,
    deep: /call stack exhausted/,
  }
  for (const [name, reason] of Object.entries(REASONS)) {
    for (const engine of ['baseline', 'optimizing', 'host']) {
      it(`${name} (${engine})`, async () => {
        const error = await fails('ERR_WIZER_TRAP', new RegExp(`the \`${name}\` function trapped`), TRAPS, { initFunc: name, engine })
        assert.match(error.message, reason)
        assert.ok(error.wasmBacktrace.length > 0)
        if (name !== 'names') assert.match(error.wasmBacktrace[0], new RegExp(`!${name}$`))
      })
    }
  }

  it('the backtrace has the names of the functions as their authors wrote them', async () => {
    const { wasmBacktrace } = await failure('ERR_WIZER_TRAP', TRAPS, { initFunc: 'names' })
    const names = wasmBacktrace.map((frame) => /^0x[0-9a-f]+ - app!(.*)$/.exec(frame)?.[1])
    assert.deepEqual(names, ['inner', 's', 'core::panic', 'add(int, int)', '<wasm function 4>'])
  })

  it('says so where a path is given for a module', async () => {
    const { message } = await failure('ERR_WIZER_INVALID_MODULE', 'app.wasm')
    assert.match(message, /readFile/)
    assert.doesNotMatch((await failure('ERR_WIZER_INVALID_MODULE', Buffer.from('app.wasm'))).message, /readFile/)
  })

  it('the backtrace has places in the input', async () => {
    const divide = '(func $f (param i32) (result i32) (i32.div_u (i32.const 77) (local.get 0)))'
    const module = assemble(init('(drop (call $f (i32.const 0)))', divide))
    const place = Buffer.from(module).indexOf(Buffer.from([0x41, 0xcd, 0, 0x20, 0, 0x6e])) + 5
    for (const engine of ['auto', 'baseline', 'optimizing', 'host']) {
      const { wasmBacktrace } = await failure('ERR_WIZER_TRAP', module, { engine })
      assert.match(wasmBacktrace[0], new RegExp(`^0x${place.toString(16)} - `), engine)
      assert.equal(wasmBacktrace.length, 2)
    }
  })

  it('in the start function, in `_initialize`, and in a preloaded module', async () => {
    await fails('ERR_WIZER_TRAP', /`start`/, '(module (func $f unreachable) (start $f) (func (export "wizer.initialize")))')
    await fails('ERR_WIZER_TRAP', /`_initialize`/, '(module (func (export "_initialize") unreachable) (func (export "wizer.initialize")))')
    await fails('ERR_WIZER_TRAP', /`lib`/, EMPTY, { preload: { lib: '(module (func $f unreachable) (start $f))' } })
    const lib = '(module $lib (func $inner (export "f") unreachable))'
    const { wasmBacktrace } = await failure('ERR_WIZER_TRAP', init('(call $f)', '(import "lib" "f" (func $f))'), { preload: { lib } })
    assert.match(wasmBacktrace[0], /lib!inner$/)
  })

  it('while data or elements are put in place', async () => {
    await fails('ERR_WIZER_TRAP', /out of bounds/, init('', '(memory 1) (data (i32.const 65536) "x")'))
    await fails('ERR_WIZER_TRAP', /out of bounds/, init('', '(table 1 funcref) (func $f) (elem (i32.const 1) $f)'))
  })

  it('within WASI, where there is no memory for it', async () => {
    const guest = (memories) => init('(drop (call $random_get (i32.const 0) (i32.const 1)))', wasi('random_get') + memories)
    await fails('ERR_WIZER_TRAP', /`random_get` works on.*has no memory/, guest(''), { allowWasi: true })
    await fails('ERR_WIZER_TRAP', /`random_get` works on.*has to be said.*`a`, `b`/, guest('(memory (export "a") 1) (memory (export "b") 1)'), { allowWasi: true })
  })
})

describe('ERR_WIZER_EXIT', () => {
  for (const status of [0, 1, 3, 255, -1]) {
    it(`status ${status}`, async () => {
      const guest = `(module ${wasi('proc_exit')} (memory (export "memory") 1)
        (func $leave (call $proc_exit (i32.const ${status}))) (func (export "wizer.initialize") (call $leave)))`
      const hint = status === 0 ? '; .*allowExit.*' : ''
      const error = await fails('ERR_WIZER_EXIT', new RegExp(`exit status ${status}${hint}$`), guest, { allowWasi: true })
      assert.equal(error.wasmBacktrace.length, 2)
    })
  }
})

describe('ERR_WIZER_IMPORT_MISSING', () => {
  it('a function that is called', async () => {
    await fails('ERR_WIZER_IMPORT_MISSING', /`env::f`/, init('(call $f)', '(import "env" "f" (func $f))'))
    await wizer(init('', '(import "env" "f" (func $f))'))
  })

  it('WASI that was not allowed', async () => {
    const guest = (body) => init(body, `${wasi('random_get')} (memory (export "memory") 1)`)
    await fails('ERR_WIZER_IMPORT_MISSING', /random_get.*allowWasi/, guest('(drop (call $random_get (i32.const 0) (i32.const 1)))'))
    await wizer(guest(''))
  })

  it('WASI of another type, or a function that WASI does not have', async () => {
    const guest = (name) => init('(call $f (i32.const 1))', `(import "wasi_snapshot_preview1" "${name}" (func $f (param i32)))`)
    await fails('ERR_WIZER_IMPORT_MISSING', /random_get.*type/, guest('random_get'), { allowWasi: true })
    await fails('ERR_WIZER_IMPORT_MISSING', /`wasi_snapshot_preview1::nothing`/, guest('nothing'), { allowWasi: true })
  })

  it('a memory, table or global, also if it is not used', async () => {
    for (const [kind, field] of [['memory', '(memory 1)'], ['table', '(table 1 funcref)'], ['global', '(global i32)']]) {
      await fails('ERR_WIZER_IMPORT_MISSING', new RegExp(`${kind} \`env::it\``), `(module (import "env" "it" ${field}) (func (export "wizer.initialize")))`)
    }
  })
})

describe('ERR_WIZER_IMPORT_TYPE', () => {
  const cases = {
    'a function of another type': ['(func)', '(func (export "it") (param i32))'],
    'a function for a global': ['(global i32)', '(func (export "it"))'],
    'a global for a function': ['(func)', '(global (export "it") i32 (i32.const 1))'],
    'a global of another type': ['(global i64)', '(global (export "it") i32 (i32.const 1))'],
    'an immutable global for a mutable one': ['(global (mut i32))', '(global (export "it") i32 (i32.const 1))'],
    'a memory that is too small': ['(memory 2)', '(memory (export "it") 1)'],
    'a table of other references': ['(table 1 funcref)', '(table (export "it") 1 externref)'],
  }
  for (const [what, [wanted, provided]] of Object.entries(cases)) {
    it(what, async () => {
      const module = `(module (import "lib" "it" ${wanted}) (func (export "wizer.initialize")))`
      await fails('ERR_WIZER_IMPORT_TYPE', /`lib::it`/, module, { preload: { lib: `(module ${provided})` } })
    })
  }
})

describe('preloaded modules', () => {
  it('an error in one names it', async () => {
    for (const [code, lib] of [
      ['ERR_WIZER_INVALID_TEXT', '(module'],
      ['ERR_WIZER_INVALID_MODULE', new Uint8Array(8)],
      ['ERR_WIZER_INVALID_MODULE', '(module (func (result i32)))'],
      ['ERR_WIZER_COMPONENT', '(component)'],
      ['ERR_WIZER_IMPORT_MISSING', '(module (import "a" "m" (memory 1)))'],
    ]) {
      await fails(code, /`lib`/, EMPTY, { preload: { lib } })
    }
  })
})

describe('ERR_WIZER_UNREPRESENTABLE_STATE', () => {
  it('a changed global of a preloaded module', async () => {
    const lib = '(module (global (export "g") (mut i32) (i32.const 1)))'
    const guest = (body) => init(body, '(import "lib" "g" (global $g (mut i32)))')
    const { message } = await fails('ERR_WIZER_UNREPRESENTABLE_STATE', /global/, guest('(global.set $g (i32.const 2))'), { preload: { lib } })
    assert.match(message, /lib/)
    await wizer(guest('(global.set $g (i32.const 1))'), { preload: { lib } })
  })

  it('changed memory of a preloaded module', async () => {
    const lib = '(module (memory (export "m") 1) (func (export "f") (i32.store8 (i32.const 70) (i32.const 1))))'
    await fails('ERR_WIZER_UNREPRESENTABLE_STATE', /memory.*`lib`/, init('(call $f)', '(import "lib" "f" (func $f))'), { preload: { lib } })
  })
})

it('ERR_WIZER_MEMORY_LIMIT', async () => {
  const error = await fails('ERR_WIZER_MEMORY_LIMIT', /131072.*65536|65536.*131072/, init('(drop (memory.grow (i32.const 1)))', '(memory 1)'), { maxMemory: 65536 })
  assert.equal(error.wasmBacktrace.length, 1)
})

it('ERR_WIZER_UNSUPPORTED', async () => {
  await failure('ERR_WIZER_UNSUPPORTED', init('(return_call $f)', '(func $f)'), { engine: 'baseline' })
})

it('what is said to translate legacy exceptions does so', async () => {
  const { default: binaryen } = await import('binaryen')
  const module = binaryen.parseText(`(module
    (import "env" "a" (func $a)) (import "env" "b" (func $b))
    (tag $e (param i32))
    (memory (export "memory") 1)
    (func (export "wizer.initialize")
      (i32.store (i32.const 0) (try (result i32) (do (throw $e (i32.const 42))) (catch $e (pop i32))))))`)
  module.setFeatures(binaryen.Features.ExceptionHandling | binaryen.Features.ReferenceTypes)
  const directory = temporaryDirectory()
  writeFileSync(join(directory, 'in.wasm'), module.emitBinary())

  const { message } = await failure('ERR_WIZER_UNSUPPORTED', readFileSync(join(directory, 'in.wasm')), { maxMemory: 2 ** 30 })
  const [, flags] = /`wasm-opt ([^`]+)`/.exec(message)
  const program = join(dirname(fileURLToPath(import.meta.resolve('binaryen'))), 'bin', 'wasm-opt')
  const { status, stderr } = spawnSync(process.execPath, [program, ...flags.split(' '), 'in.wasm', '-o', 'out.wasm'], { cwd: directory, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  const output = await wizer(readFileSync(join(directory, 'out.wasm')))
  assert.ok(output.includes(Buffer.from([0x41, 0, 0x0b, 1, 42])), 'a data segment with the one byte')
})

describe('ERR_WIZER_OPTION', () => {
  const f = () => {}
  const cases = {
    'an unknown option': [/`nothing`/, { nothing: 1 }],
    'a misspelt one': [/`keepInitFunction`/, { keepInitFunction: true }],
    'a misspelt callback': [/`onprogress`/, { onprogress: f }],
    'options that are no object': [/object/, 5, 'text', null, true, f, []],
    'initFunc': [/`initFunc`/, { initFunc: 5 }, { initFunc: ['a'] }, { initFunc: f }],
    'keepInitFunc': [/`keepInitFunc`/, { keepInitFunc: 1 }, { keepInitFunc: 'true' }, { keepInitFunc: 'Empty' }, { keepInitFunc: f }],
    'renameFuncs': [/`renameFuncs/, { renameFuncs: 'a=b' }, { renameFuncs: ['a=b'] }, { renameFuncs: { a: 1 } }, { renameFuncs: new Map([['a', 'b']]) }],
    'env': [/`env/, { env: ['A=1'] }, { env: { A: 1 } }, { env: new Map([['A', '1']]) }],
    'a variable that cannot be': [/variable/, { env: { 'A=B': '' } }, { env: { '': '' } }, { env: { A: 'a\0b' } }],
    'args': [/`args/, { args: 'a' }, { args: [1] }, { args: [undefined] }, { args: new Set(['a']) }],
    'stdin': [/`stdin`/, { stdin: 5 }, { stdin: 'pipe' }, { stdin: 'some text' }, { stdin: [1] }],
    'stdout': [/`stdout`/, { stdout: 'file' }, { stdout: true }],
    'stderr': [/`stderr`/, { stderr: 1 }, { stderr: 'PIPE' }],
    'dirs': [/`dirs/, { dirs: '.' }, { dirs: [1] }],
    'mapDirs': [/`mapDirs/, { mapDirs: ['.'] }, { mapDirs: { a: 5 } }, { mapDirs: { a: { readonly: true } } }, { mapDirs: { a: { host: '.', readOnly: true } } }],
    'files': [/`files/, { files: { a: 5 } }, { files: ['a'] }, { files: { a: null } }, { files: 'a' }],
    'preload': [/`preload/, { preload: { a: 5 } }, { preload: [EMPTY] }, { preload: EMPTY }],
    'engine': [/engine/, { engine: 'none' }, { engine: 5 }],
    'timeout': [/`timeout`/, { timeout: -1 }, { timeout: '5' }, { timeout: NaN }],
    'maxMemory': [/`maxMemory`/, { maxMemory: -1 }, { maxMemory: '1' }, { maxMemory: NaN }, { maxMemory: 1.5 }],
    'a BigInt': [/maxMemory/, { maxMemory: 1n }],
    'signal': [/`signal`/, { signal: {} }, { signal: 'now' }, { signal: null }],
    'onProgress': [/`onProgress`/, { onProgress: 5 }, { onProgress: null }],
    'switches': [/`wasmSimd`/, { wasmSimd: 'yes' }, { wasmSimd: 1 }],
  }
  for (const [what, [message, ...values]] of Object.entries(cases)) {
    it(what, async () => {
      for (const value of values) {
        const options = value && typeof value === 'object' && !Array.isArray(value) ? { allowWasi: true, ...value } : value
        await fails('ERR_WIZER_OPTION', message, EMPTY, options)
      }
    })
  }

  it('the module', async () => {
    for (const wasm of [undefined, null, 5, {}, [0, 97, 115, 109], new Date(), f]) await fails('ERR_WIZER_OPTION', /module/, wasm)
  })

  it('options that are undefined are not given', async () => {
    const names = ['initFunc', 'keepInitFunc', 'renameFuncs', 'env', 'args', 'stdin', 'stdout', 'stderr', 'dirs', 'mapDirs', 'files', 'preload', 'imports', 'engine', 'timeout', 'maxMemory', 'signal', 'onProgress', 'wasmSimd']
    await wizer(EMPTY, Object.fromEntries(names.map((name) => [name, undefined])))
  })

  it('a timeout may be a fraction, or without an end', async () => {
    await wizer(EMPTY, { timeout: 600_000.5 })
    await wizer(EMPTY, { timeout: Infinity })
  })
})

describe('ERR_WIZER_DUPLICATE_RENAME', () => {
  it('a function that gets two names', async () => {
    await fails('ERR_WIZER_DUPLICATE_RENAME', /source `x`/, EMPTY, { renameFuncs: { a: 'x', b: 'x' } })
  })

  it('but an export may be overwritten', async () => {
    const module = '(module (func (export "wizer.initialize")) (func (export "a") (result i32) (i32.const 1)) (func (export "b") (result i32) (i32.const 2)))'
    const exports = start(await wizer(module, { renameFuncs: { a: 'b' } }))
    assert.equal(exports.a(), 2)
    assert.equal(exports.b, undefined)
  })
})

describe('ERR_WIZER_IO', () => {
  const directory = temporaryDirectory()
  writeFileSync(join(directory, 'file'), '')

  it('a directory that does not exist', async () => {
    const missing = join(directory, 'missing')
    for (const options of [{ dirs: [missing] }, { mapDirs: { '/': missing } }, { mapDirs: { '/': { host: missing, readonly: true } } }]) {
      const { message } = await fails('ERR_WIZER_IO', /directory/, EMPTY, { allowWasi: true, ...options })
      assert.ok(message.includes(missing), message)
    }
  })

  it('a file where a directory is meant', async () => {
    const file = join(directory, 'file')
    const { message } = await fails('ERR_WIZER_IO', /not a directory/i, EMPTY, { allowWasi: true, dirs: [file] })
    assert.ok(message.includes(file), message)
  })

  it('files that exclude each other', async () => {
    await assert.rejects(wizer(EMPTY, { allowWasi: true, files: { a: '', 'a/b': '' } }), { name: 'WizerError', code: /^ERR_WIZER_(IO|OPTION)$/ })
  })
})

describe('what the guest had written', () => {
  const OUTPUT = (end) => `(module
    ${wasi('fd_write', 'proc_exit', 'random_get')}
    (memory (export "memory") 1)
    (data (i32.const 16) "out of the guest\\n")
    ${print}
    (func (export "wizer.initialize")
      (call $print (i32.const 1) (i32.const 16) (i32.const 17))
      (call $print (i32.const 2) (i32.const 20) (i32.const 12))
      ${end}))`
  const ends = {
    ERR_WIZER_TRAP: 'unreachable',
    ERR_WIZER_EXIT: '(call $proc_exit (i32.const 1))',
    ERR_WIZER_TIMEOUT: '(loop (br 0))',
    ERR_WIZER_MEMORY_LIMIT: '(drop (memory.grow (i32.const 100)))',
  }
  for (const [code, end] of Object.entries(ends)) {
    it(`is on the error: ${code}`, async () => {
      const limits = { timeout: 50, maxMemory: 65536 }
      const { stdout, stderr } = await failure(code, OUTPUT(end), { allowWasi: true, stdout: 'pipe', stderr: 'pipe', ...limits })
      assert.equal(stdout.toString(), 'out of the guest\n')
      assert.equal(stderr.toString(), 'of the guest')
      const other = await failure(code, OUTPUT(end), { allowWasi: true, stdout: 'ignore', stderr: 'pipe', ...limits })
      assert.equal(other.stdout, undefined)
      assert.equal(other.stderr.toString(), 'of the guest')
    })
  }

  it('is on the error of a callback that threw, and of a run that was aborted', async () => {
    const options = { allowWasi: true, stdout: 'pipe', stderr: 'ignore' }
    const onProgress = ({ phase }) => {
      if (phase === 'rewrite') throw new Error()
    }
    const error = await failure('ERR_WIZER_CALLBACK', OUTPUT(''), { ...options, onProgress })
    assert.equal(error.stdout?.toString(), 'out of the guest\n')
    const controller = new AbortController()
    const guest = OUTPUT('(call $f) (loop (br 0))').replace('(memory', '(import "a" "b" (func $f))\n(memory')
    const imports = { a: { b: () => controller.abort() } }
    await assert.rejects(wizer(guest, { ...options, imports, signal: controller.signal }), ({ code, stdout }) => {
      assert.equal(code, 'ERR_WIZER_ABORTED')
      assert.equal(stdout?.toString(), 'out of the guest\n')
      return true
    })
  })
})

describe('damaged modules', () => {
  const WHOLE = assemble(`(module
    (import "env" "f" (func $f (param i32) (result i32)))
    (type $t (func (param i32) (result i32)))
    (memory (export "memory") 1 4)
    (table (export "table") 3 funcref)
    (global $n (export "n") (mut i32) (i32.const 7))
    (global $wide (export "wide") (mut f64) (f64.const 0.5))
    (elem (i32.const 1) $twice $f)
    (elem declare func $f)
    (data (i32.const 1000) "some data that is there from the start")
    (data $passive "and some that is not")
    (func $twice (export "twice") (type $t) (i32.mul (local.get 0) (i32.const 2)))
    (func $start (global.set $n (call_indirect (type $t) (global.get $n) (i32.const 1))))
    (func (export "wizer.initialize") (local $i i32)
      (memory.init $passive (i32.const 2000) (i32.const 0) (i32.const 20))
      (loop $l
        (i32.store (i32.mul (local.get $i) (i32.const 4)) (call $twice (local.get $i)))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50))))
      (global.set $wide (f64.sqrt (f64.const 2)))
      (if (i32.eq (memory.grow (i32.const 1)) (i32.const 1)) (then (data.drop $passive)))
      (drop (select (i32.const 1) (i32.const 2) (global.get $n))))
    (start $start))`)
  const imports = { env: { f: (n) => n } }
  // What damage leaves behind may run without an end, or grow without one.
  const limits = { timeout: 100, maxMemory: 64 << 20 }
  const unlike = new Set(['ERR_WIZER_INTERNAL', 'ERR_WIZER_OPTION', 'ERR_WIZER_IO', 'ERR_WIZER_OUTPUT_TOO_LARGE'])

  /** Whether a damaged module is refused with an error, or else initialized right. */
  function judge(module) {
    let output
    try {
      output = wizerSync(module, { ...limits, imports })
    } catch (error) {
      assert.ok(error instanceof WizerError, String(error?.stack ?? error))
      assert.ok(!unlike.has(error.code), `${error.code}: ${error.message}`)
      return error.code
    }
    // V8 may not know all that our engines know; what it knows, it judges.
    if (WebAssembly.validate(module)) {
      assert.ok(WebAssembly.validate(output))
      // Instances may refuse what the run did not touch, in both modules alike.
      const before = attempt(() => start(module, imports))
      const after = attempt(() => start(output, imports))
      if (before && after) {
        const { 'wizer.initialize': init } = before
        before._initialize?.()
        init?.()
        assert.deepEqual(state(after), state(before))
      }
    }
    return 'initialized'
  }
  const attempt = (work) => {
    try {
      return work()
    } catch {
      return undefined
    }
  }

  it('the whole one is good', async () => {
    assert.equal(judge(WHOLE), 'initialized')
    assertInitialized(await wizer(WHOLE, { imports }), WHOLE, { imports })
  })

  it('cut off anywhere', () => {
    const seen = new Map()
    for (let length = 0; length < WHOLE.length; length++) {
      const code = judge(WHOLE.subarray(0, length))
      seen.set(code, (seen.get(code) ?? 0) + 1)
    }
    // At the end of a section there is a module again.
    for (const code of seen.keys()) assert.ok(['ERR_WIZER_INVALID_MODULE', 'ERR_WIZER_INIT_FUNC_MISSING', 'initialized'].includes(code), code)
    assert.ok(seen.get('ERR_WIZER_INVALID_MODULE') > WHOLE.length * 0.9)
  })

  /** Numbers below a limit that look random, and are the same every time. */
  function random(seed) {
    let state = seed
    return (limit) => {
      state = (state + 0x6d2b79f5) | 0
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
      return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
    }
  }

  it('with changed bytes', () => {
    const next = random(1)
    const codes = new Set()
    for (let round = 0; round < 1500; round++) {
      const damaged = WHOLE.slice()
      for (let changes = 1 + next(3); changes > 0; changes--) {
        const at = 8 + next(damaged.length - 8)
        damaged[at] = next(2) ? damaged[at] ^ (1 << next(8)) : next(256)
      }
      try {
        codes.add(judge(damaged))
      } catch (error) {
        throw new Error(`round ${round}: ${Buffer.from(damaged).toString('hex')}`, { cause: error })
      }
    }
    for (const code of ['initialized', 'ERR_WIZER_INVALID_MODULE', 'ERR_WIZER_TRAP']) assert.ok(codes.has(code), code)
  })

  it('of random bytes', () => {
    const next = random(2)
    for (let round = 0; round < 200; round++) {
      const bytes = Buffer.from(Array.from({ length: next(200) }, () => next(256)))
      judge(bytes)
      judge(Buffer.concat([WHOLE.subarray(0, 8), bytes]))
    }
  })

  it('which claim to be larger than they are', () => {
    const header = [0, 97, 115, 109, 1, 0, 0, 0]
    const huge = [0xff, 0xff, 0xff, 0xff, 0x0f]
    for (let section = 0; section < 16; section++) {
      assert.equal(judge(Uint8Array.from([...header, section, ...huge])), 'ERR_WIZER_INVALID_MODULE')
      // A start section may well hold such a number: then it is the function that does not exist.
      const code = judge(Uint8Array.from([...header, section, 5, ...huge]))
      assert.ok(code === 'ERR_WIZER_INVALID_MODULE' || (section === 8 && code === 'ERR_WIZER_INIT_FUNC_MISSING'), code)
    }
  })

  it('leave nothing behind', () => {
    const directory = temporaryDirectory()
    mkdirSync(join(directory, 'd'))
    const bad = WHOLE.subarray(0, 100)
    assert.throws(() => wizerSync(bad, { allowWasi: true, dirs: [directory], files: { '/a': '' } }), { code: 'ERR_WIZER_INVALID_MODULE' })
    assert.deepEqual(readdirSync(directory), ['d'])
  })
})
