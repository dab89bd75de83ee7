// Tags and references of the host among the imports: JavaScript strings as globals, `WebAssembly.Tag`. What the outputs are
// is judged by V8.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import vm from 'node:vm'
import { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { start } from './helpers/v8.mjs'

const ways = { wizer, wizerSync: async (...args) => wizerSync(...args) }

async function failure(promise, code) {
  const error = await promise.then(() => assert.fail('it did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  assert.equal(error.code, code, error.message)
  return error
}

/** Whether this V8 knows what a type section of these bytes has, as the option `skip` of a test. */
const without = (what, ...types) => !WebAssembly.validate(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, types.length + 1, 1, ...types)) && `this V8 does not know ${what}`
const withoutCollector = without('garbage collection', 0x5e, 0x77, 1)
const withoutExceptions = without('`exnref`', 0x60, 1, 0x69, 0)

describe('a global of external references', () => {
  /** Asks what it is given, and counts. */
  const guest = (type, mutable) => `(module
    (import "env" "value" (global $value ${mutable ? `(mut ${type})` : type}))
    (import "env" "see" (func $see (param externref)))
    (global (export "ready") (mut i32) (i32.const 0))
    (func (export "wizer.initialize") (call $see (global.get $value)) (global.set 1 (i32.const 1)))
    (func (export "value") (result externref) (global.get $value)))`
  const values = { text: 'text', empty: '', number: 1.5, integer: 7, bigint: 7n, boolean: false, symbol: Symbol('s'), nothing: undefined, none: null, object: {}, array: [1], function: () => {}, bytes: Buffer.of(1), memory: { buffer: new ArrayBuffer(65536) } }

  for (const [what, value] of Object.entries(values)) {
    for (const [way, call] of Object.entries(ways)) {
      it(`holds any value: ${what} (${way})`, async () => {
        const seen = []
        const env = { value, see: (it) => void seen.push(it) }
        const output = new WebAssembly.Module(await call(guest('externref'), { imports: { env } }))
        const { value: got, ready } = new WebAssembly.Instance(output, { env: { value, see() {} } }).exports
        assert.deepEqual([seen, got(), ready.value], [[value], value, 1])
        assert.equal(seen[0], value)
      })
    }
  }

  it('is given as a WebAssembly.Global, immutable or mutable', async () => {
    for (const mutable of [false, true]) {
      const value = new WebAssembly.Global({ value: 'externref', mutable }, 'text')
      const seen = []
      const env = { value, see: (it) => void seen.push(it) }
      const { wasm, report } = await snapshot(guest('externref', mutable), { imports: { env } })
      assert.deepEqual(seen, ['text'])
      assert.deepEqual(report.assumedGlobals, mutable ? [] : ['env::value'])
      assert.equal(start(wasm, { env: { value, see() {} } }).value(), 'text')
      await failure(wizer(guest('externref', !mutable), { imports: { env } }), 'ERR_WIZER_IMPORT_TYPE')
    }
  })

  for (const engine of ['auto', 'optimizing']) {
    it(`is never null, or of another hierarchy (${engine})`, { skip: withoutCollector }, async () => {
      const seen = []
      const env = { text: 'text', integer: 5, see: (it) => void seen.push(it) }
      const bytes = `(module
        (import "env" "text" (global $text (ref extern)))
        (import "env" "text" (global $any anyref))
        (import "env" "integer" (global $integer anyref))
        (import "env" "see" (func $see (param externref)))
        (func (export "wizer.initialize")
          (call $see (global.get $text))
          (call $see (extern.convert_any (global.get $any)))
          (call $see (extern.convert_any (global.get $integer)))))`
      // One name is one thing, of one type.
      await failure(wizer(bytes, { imports: { env }, engine }), 'ERR_WIZER_IMPORT_TYPE')
      const two = { ...env, other: 'other' }
      start(await wizer(bytes.replace('"text" (global $any', '"other" (global $any'), { imports: { env: two }, engine }), { env: { ...two, see() {} } })
      assert.deepEqual(seen, ['text', 'other', 5])
      await failure(wizer(bytes, { imports: { env: { ...env, text: null } }, engine }), 'ERR_WIZER_IMPORT_TYPE')
    })
  }

  it('that the initialization changes is an error', async () => {
    const bytes = `(module (import "env" "value" (global $value (mut externref)))
      (func (export "wizer.initialize") (global.set $value (ref.null extern))))`
    const value = new WebAssembly.Global({ value: 'externref', mutable: true }, 'text')
    for (const engine of ['interpreter', 'optimizing', 'host']) {
      const { message } = await failure(wizer(bytes, { imports: { env: { value } }, engine }), 'ERR_WIZER_UNREPRESENTABLE_STATE')
      assert.match(message, /env::value/)
    }
  })

  it('that nobody provides, or that is no value of the type, is an error', async () => {
    await failure(wizer(guest('externref'), { imports: { env: { see() {} } } }), 'ERR_WIZER_IMPORT_MISSING')
    const number = '(module (import "env" "value" (global i32)) (func (export "wizer.initialize")))'
    for (const value of ['1', {}, undefined, () => {}, null]) {
      await failure(wizer(number, { imports: { env: { value } } }), 'ERR_WIZER_IMPORT_TYPE')
    }
    await failure(wizer('(module (import "env" "f" (func)) (func (export "wizer.initialize")))', { imports: { env: { f: 'text' } } }), 'ERR_WIZER_IMPORT_TYPE')
  })

  for (const engine of ['auto', 'interpreter', 'optimizing', 'host']) {
    it(`is where the output takes from what the module kept of it (${engine})`, async () => {
      const bytes = `(module
        (import "strings" "hello" (global $hello externref))
        (import "strings" "world" (global $world externref))
        (import "env" "other" (func $other (result externref)))
        (global $kept (mut externref) (ref.null extern))
        (table $words (export "words") 4 externref)
        (table $filled (export "filled") 3 externref)
        (elem (table $filled) (i32.const 0) externref (global.get $hello) (global.get $hello))
        (elem (table $words) (i32.const 3) externref (global.get $world))
        (func (export "keep other") (global.set $kept (call $other)))
        (func (export "wizer.initialize")
          (global.set $kept (global.get $hello))
          (table.set $words (i32.const 1) (global.get $world))
          (table.set $words (i32.const 2) (global.get $hello))
          (table.set $filled (i32.const 2) (global.get $world)))
        (func (export "kept") (result externref) (global.get $kept)))`
      const imports = { strings: { hello: 'hello', world: { word: 'world' } }, env: { other: () => ({}) } }
      const { kept, words, filled } = start(await wizer(bytes, { imports, engine }), imports)
      const { hello, world } = imports.strings
      assert.deepEqual([kept(), ...[0, 1, 2, 3].map((slot) => words.get(slot))], [hello, null, world, hello, world])
      assert.deepEqual([0, 1, 2].map((slot) => filled.get(slot)), [hello, hello, world])
      assert.equal(words.get(1), world)

      // What no import holds cannot be written.
      const error = await failure(wizer(bytes, { imports, engine, initFunc: 'keep other' }), 'ERR_WIZER_UNREPRESENTABLE_STATE')
      assert.match(error.message, /global 2 .*holds a reference of the host/)
    })
  }

  it('fills tables from the start on', { skip: withoutCollector }, async () => {
    const bytes = `(module
      (import "env" "value" (global $value externref))
      (table $t (export "t") 3 externref (global.get $value))
      (func (export "wizer.initialize") (table.set $t (i32.const 1) (ref.null extern)) (drop (table.grow (ref.null extern) (i32.const 1)))))`
    const imports = { env: { value: 'text' } }
    const { t } = start(await wizer(bytes, { imports }), imports)
    assert.deepEqual([0, 1, 2, 3].map((slot) => t.get(slot)), ['text', null, 'text', null])
  })

  it('is taken where types differ but fit', { skip: withoutCollector }, async () => {
    const bytes = (to, from, get) => `(module
      (import "env" "value" (global $value ${from}))
      (global $kept (export "kept") (mut ${to}) (${to === '(ref extern)' ? 'global.get $value' : `ref.null ${to === 'anyref' ? 'any' : 'extern'}`}))
      (func (export "wizer.initialize") (global.set $kept ${get})))`
    const imports = { env: { value: 'text' } }
    const convert = '(any.convert_extern (global.get $value))'
    for (const [to, from, get] of [['externref', '(ref extern)', '(global.get $value)'], ['anyref', 'externref', convert], ['anyref', '(ref extern)', convert], ['externref', 'anyref', '(extern.convert_any (global.get $value))']]) {
      assert.equal(start(await wizer(bytes(to, from, get), { imports }), imports).kept.value, 'text', `${from} as ${to}`)
    }
  })

  it('is found by modules that come later', async () => {
    const imports = { env: { text: 'text', unused: 'unused' } }
    const session = await Session.create('(module (func (export "f")))', { imports })
    await session.instantiate('side', `(module (import "env" "text" (global $text externref))
      (func (export "text") (result externref) (global.get $text)))`)
    assert.equal(await session.callBeside('side', 'text'), 'text')
    await session.close()
    const preload = { side: '(module (import "env" "text" (global $text externref)) (func (export "text") (result externref) (global.get $text)))' }
    const seen = []
    await wizer(`(module (import "side" "text" (func $text (result externref))) (import "env" "see" (func $see (param externref)))
      (func (export "wizer.initialize") (call $see (call $text))))`, { preload, imports: { env: { text: 'text', see: (text) => void seen.push(text) } } })
    assert.deepEqual(seen, ['text'])
  })
})

describe('the builtins of JavaScript strings', () => {
  const builtins = {
    length: (text) => text.length,
    concat: (one, other) => one + other,
    charCodeAt: (text, at) => text.charCodeAt(at),
    cast: (text) => {
      if (typeof text !== 'string') throw new TypeError('no string')
      return text
    },
    test: (text) => Number(typeof text === 'string'),
    equals: (one, other) => Number(one === other),
  }
  const guest = `(module
    (import "'" "Hello, " (global $hello (ref extern)))
    (import "'" "wizer" (global $name (ref extern)))
    (import "wasm:js-string" "concat" (func $concat (param externref externref) (result (ref extern))))
    (import "wasm:js-string" "length" (func $length (param externref) (result i32)))
    (import "wasm:js-string" "charCodeAt" (func $char_code_at (param externref i32) (result i32)))
    (import "wasm:js-string" "cast" (func $cast (param externref) (result (ref extern))))
    (import "wasm:js-string" "test" (func $test (param externref) (result i32)))
    (import "wasm:js-string" "equals" (func $equals (param externref externref) (result i32)))
    (import "wasm:js-string" "fromCharCodeArray" (func $from (param (ref null (array (mut i16))) i32 i32) (result (ref extern))))
    (memory (export "memory") 1)
    (global $kept (mut externref) (ref.null extern))
    (func (export "wizer.initialize") (local $text externref) (local $at i32)
      (local.set $text (call $cast (call $concat (global.get $hello) (global.get $name))))
      (loop $again
        (i32.store8 (local.get $at) (call $char_code_at (local.get $text) (local.get $at)))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (call $length (local.get $text)))))
      (i32.store8 (i32.const 100) (i32.add (call $test (local.get $text)) (call $equals (global.get $name) (global.get $name))))
      (global.set $kept (global.get $name)))
    (func (export "kept") (result externref) (global.get $kept)))`
    .replace('(ref null (array (mut i16)))', '(ref null $codes)').replace('(module', '(module (type $codes (array (mut i16)))')
  const constants = { "'": { 'Hello, ': 'Hello, ', wizer: 'wizer' } }

  it('are imports like any other', { skip: withoutCollector }, async () => {
    const output = await wizer(guest, { imports: { ...constants, 'wasm:js-string': builtins } })
    const { memory, kept } = start(output, { ...constants, 'wasm:js-string': { ...builtins, fromCharCodeArray() {} } })
    assert.equal(Buffer.from(memory.buffer, 0, 12).toString(), 'Hello, wizer')
    assert.equal(new Uint8Array(memory.buffer)[100], 2)
    assert.equal(kept(), 'wizer')
  })

  it('are named where nobody provides one', async () => {
    const { message } = await failure(wizer(guest, { imports: constants }), 'ERR_WIZER_IMPORT_MISSING')
    assert.match(message, /wasm:js-string::concat/)
  })
})

describe('a tag', () => {
  const tag = new WebAssembly.Tag({ parameters: ['i32', 'f64'] })
  const guest = `(module
    (import "env" "tag" (tag $tag (param i32 f64)))
    (import "env" "f" (func $f))
    (global $kept (export "kept") (mut f64) (f64.const 0))
    (func $catch (export "catch") (param $throws i32) (result f64)
      (block $caught (result i32 f64)
        (try_table (catch $tag $caught)
          (if (local.get $throws) (then (throw $tag (i32.const 40) (f64.const 2.5))) (else (call $f))))
        (return (f64.const -1)))
      (local.set $throws (i32.trunc_f64_s (f64.mul (f64.const 2)))) (drop)
      (f64.convert_i32_s (local.get $throws)))
    (func (export "throw") (throw $tag (i32.const 7) (f64.const 4.5)))
    (func (export "wizer.initialize") (global.set $kept (call $catch (i32.const 1)))))`

  for (const [way, call] of Object.entries(ways)) {
    it(`is thrown, caught, and imported by the output (${way})`, { skip: withoutExceptions }, async () => {
      const env = { tag, f() {} }
      const exports = start(await call(guest, { imports: { env } }), { env: { tag, f: () => { throw new WebAssembly.Exception(tag, [1, 8]) } } })
      assert.equal(exports.kept.value, 5)
      assert.equal(exports.catch(0), 16)
      assert.throws(exports.throw, (error) => error.is(tag))
    })

    it(`is what imports throw, and the module catches (${way})`, { skip: withoutExceptions }, async () => {
      const bytes = guest.replace('(call $catch (i32.const 1))', '(call $catch (i32.const 0))')
      const throws = (thrown) => ({ imports: { env: { tag, f: () => { throw thrown } } } })
      const exports = start(await call(bytes, throws(new WebAssembly.Exception(tag, [1, 8]))), { env: { tag, f() {} } })
      assert.equal(exports.kept.value, 16)
      // What is of no tag that was provided ends the run, as any other value.
      const other = new WebAssembly.Exception(new WebAssembly.Tag({ parameters: [] }), [])
      assert.equal((await failure(call(bytes, throws(other)), 'ERR_WIZER_IMPORT_FAILED')).cause, other)
    })

    it(`is seen by an import that calls the module (${way})`, { skip: withoutExceptions }, async () => {
      const caught = []
      const imports = (host) => ({
        env: {
          tag,
          f() {
            try {
              host.call('throw')
            } catch (error) {
              caught.push(error)
              throw error
            }
          },
        },
      })
      const bytes = guest.replace('(call $catch (i32.const 1))', '(call $catch (i32.const 0))')
      const exports = start(await call(bytes, { imports }), { env: { tag, f() {} } })
      assert.ok(caught[0] instanceof WebAssembly.Exception && caught[0].is(tag))
      assert.deepEqual([caught[0].getArg(tag, 0), caught[0].getArg(tag, 1)], [7, 4.5])
      assert.equal(exports.kept.value, 9)
    })
  }

  it('that nothing catches ends the run', async () => {
    const bytes = guest.replace('(call $catch (i32.const 1))', '(f64.const 0) (call $f)')
    const f = () => { throw new WebAssembly.Exception(tag, [1, 8]) }
    const { cause } = await failure(wizer(bytes, { imports: { env: { tag, f } } }), 'ERR_WIZER_TRAP')
    assert.deepEqual([cause.is(tag), cause.getArg(tag, 0), cause.getArg(tag, 1)], [true, 1, 8])
    await failure(wizer(guest, { initFunc: 'throw', imports: { env: { tag } } }), 'ERR_WIZER_TRAP')
  })

  it('has the type that the module wants, or is an error', async () => {
    const wants = (params) => wizer(`(module (import "env" "tag" (tag (param ${params}))) (func (export "wizer.initialize")))`, { imports: { env: { tag } } })
    await wants('i32 f64')
    for (const params of ['', 'i32', 'i64 f64', 'i32 f32', 'externref f64', 'i32 f64 i32', 'f64 i32']) {
      const { message } = await failure(wants(params), 'ERR_WIZER_IMPORT_TYPE')
      assert.match(message, /a tag of \(i32, f64\) is provided/)
    }
    await failure(wizer('(module (import "env" "tag" (tag)) (func (export "wizer.initialize")))'), 'ERR_WIZER_IMPORT_MISSING')
    await failure(wizer('(module (import "env" "tag" (tag)) (func (export "wizer.initialize")))', { imports: { env: { tag: {} } } }), 'ERR_WIZER_IMPORT_TYPE')
  })

  it('carries numbers and references of every kind', async () => {
    const parameters = ['i32', 'i64', 'f32', 'f64', 'externref', 'i64', 'externref']
    const every = new WebAssembly.Tag({ parameters })
    const object = {}
    const values = [-1, 2n ** 63n - 1n, 0.5, 0.1, object, -1n, 'text']
    const seen = []
    const bytes = `(module
      (import "env" "tag" (tag $tag (param ${parameters.join(' ')})))
      (import "env" "f" (func $f))
      (import "env" "see" (func $see (param ${parameters.join(' ')})))
      (func (export "wizer.initialize")
        (block $caught (result ${parameters.join(' ')})
          (try_table (catch $tag $caught) (call $f))
          unreachable)
        (call $see)))`
    const env = { tag: every, f: () => { throw new WebAssembly.Exception(every, values) }, see: (...all) => void seen.push(all) }
    await wizer(bytes, { imports: { env } })
    assert.deepEqual(seen, [values])
    assert.equal(seen[0][4], object)
  })

  it('may be of types that only modules know, and of another realm', { skip: withoutExceptions }, async () => {
    const bytes = '(module (import "env" "tag" (tag $tag (param funcref))) (func (export "wizer.initialize")))'
    // V8's name for it in JavaScript.
    start(await wizer(bytes, { imports: { env: { tag: new WebAssembly.Tag({ parameters: ['anyfunc'] }) } } }), { env: { tag: new WebAssembly.Tag({ parameters: ['anyfunc'] }) } })
    const [foreign, exception] = vm.runInNewContext(`const tag = new WebAssembly.Tag({ parameters: ['i32', 'f64'] }); [tag, new WebAssembly.Exception(tag, [1, 8])]`)
    const caught = guest.replace('(call $catch (i32.const 1))', '(call $catch (i32.const 0))')
    const exports = start(await wizer(caught, { imports: { env: { tag: foreign, f: () => { throw exception } } } }), { env: { tag: foreign, f() {} } })
    assert.equal(exports.kept.value, 16)
  })

  it('is that of JavaScript itself, where V8 has one', { skip: !WebAssembly.JSTag }, async () => {
    const bytes = `(module
      (import "env" "tag" (tag $tag (param externref)))
      (import "env" "f" (func $f))
      (import "env" "see" (func $see (param externref)))
      (func (export "throw") (param externref) (throw $tag (local.get 0)))
      (func (export "wizer.initialize")
        (block $caught (result externref)
          (try_table (catch $tag $caught) (call $f))
          unreachable)
        (call $see)))`
    const seen = []
    const thrown = new RangeError('thrown')
    const imports = (host) => ({ env: { tag: WebAssembly.JSTag, see: (it) => void seen.push(it), f: () => host.call('throw', thrown) } })
    await wizer(bytes, { imports })
    assert.deepEqual(seen, [thrown])
    assert.equal(seen[0], thrown)
  })

  it('that JavaScript has beside others is of all that they are not', { skip: !WebAssembly.JSTag || withoutExceptions }, async () => {
    const bytes = (f) => [`(module
      (import "env" "js" (tag $js (param externref)))
      (import "env" "tag" (tag $tag (param i32 f64)))
      (import "env" "f" (func $f))
      (import "env" "see" (func $see (param i32)))
      (func (export "trap") unreachable)
      (func (export "wizer.initialize")
        (block $own (result i32 f64)
          (block $other (result externref)
            (try_table (catch $js $other) (catch $tag $own) (call $f))
            (return))
          (drop) (call $see (i32.const -1)) (return))
        (drop) (call $see)))`, f]
    const seen = []
    const run = ([bytes, f]) => wizer(bytes, { imports: (host) => ({ env: { js: WebAssembly.JSTag, tag, see: (it) => void seen.push(it), f: () => f(host) } }) })
    await run(bytes(() => { throw new WebAssembly.Exception(tag, [3, 4]) }))
    await run(bytes(() => { throw new Error('mine') }))
    assert.deepEqual(seen, [3, -1])
    // A trap is no exception, nor is what only wizer throws.
    await failure(run(bytes((host) => host.call('trap'))), 'ERR_WIZER_IMPORT_FAILED')
    await failure(run(bytes(async () => {})), 'ERR_WIZER_IMPORT_FAILED')
    // What nothing catches is told.
    const thrown = new Error('mine')
    const uncaught = '(module (import "env" "js" (tag (param externref))) (import "env" "f" (func $f)) (func (export "wizer.initialize") (call $f)))'
    const error = await failure(run([uncaught, () => { throw thrown }]), 'ERR_WIZER_TRAP')
    assert.equal(error.cause, thrown)
  })

  it('that has two names is one', async () => {
    const bytes = `(module
      (import "one" "tag" (tag $one (param i32)))
      (import "other" "tag" (tag $other (param i32)))
      (import "env" "see" (func $see (param i32)))
      (func (export "wizer.initialize")
        (block $caught (result i32)
          (try_table (catch $other $caught) (throw $one (i32.const 5)))
          unreachable)
        (call $see)))`
    const [one, other] = [0, 1].map(() => new WebAssembly.Tag({ parameters: ['i32'] }))
    const seen = []
    const env = { see: (it) => void seen.push(it) }
    await wizer(bytes, { imports: { one: { tag: one }, other: { tag: one }, env } })
    assert.deepEqual(seen, [5])
    const { cause } = await failure(wizer(bytes, { imports: { one: { tag: one }, other: { tag: other }, env } }), 'ERR_WIZER_TRAP')
    assert.ok(cause.is(one) && cause.getArg(one, 0) === 5)
  })

  it('is the one for all modules', { skip: withoutExceptions }, async () => {
    const preload = { side: '(module (import "env" "tag" (tag $tag (param i32 f64))) (func (export "throw") (throw $tag (i32.const 1) (f64.const 8))))' }
    const bytes = guest.replace('(import "env" "f" (func $f))', '(import "side" "throw" (func $f))').replace('(call $catch (i32.const 1))', '(call $catch (i32.const 0))')
    const exports = start(await wizer(bytes, { preload, imports: { env: { tag } } }), { env: { tag }, side: { throw() {} } })
    assert.equal(exports.kept.value, 16)
  })
})
