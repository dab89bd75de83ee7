// The engine of Node itself, V8, as one that runs modules: in a worker, with the addon's host. The other engines are the judges:
// an output is the same, byte for byte, whoever made it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import { wasi } from './helpers/wasi.mjs'
import { hostRuns } from './helpers/wat.mjs'

const host = { engine: 'host', cache: false }

async function failure(promise) {
  const error = await promise.then(() => assert.fail('it did not fail'), (error) => error)
  assert.ok(error instanceof WizerError, String(error?.stack ?? error))
  return error
}

/** So many functions: of 10 kB each. */
const code = (functions) => `(func ${'(drop (i32.add (i32.const 1) (i32.mul (i32.const 2) (i32.const 3))))'.repeat(1200)})\n`.repeat(functions)
/** So much that V8 is begun beside the interpreter where that takes long. */
const LARGE = code(110)
/** So much that V8 takes over where the interpreter comes to something that it does not do. */
const MEDIUM = code(20)
/** So large that nothing but V8 begins, with code for which there is something to begin. */
const LARGE_DATA = `${MEDIUM} (memory 100) (data (i32.const 0) "${'x'.repeat(5_500_000)}")`

/** A module whose initialization does this. */
const guest = (body, fields = '') => `(module ${fields} (func $initialize (export "wizer.initialize") ${body}))`

/** Whether this V8 knows exceptions as WebAssembly 3.0 has them. */
const EXCEPTIONS = WebAssembly.validate(
  // (module (func (block (try_table (catch_all 0)))))
  Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 13, 1, 11, 0, 2, 64, 31, 64, 1, 2, 0, 11, 11, 11),
)

const imports = (host) => ({
  env: {
    twice: (n) => n * 2,
    nested() {
      host.memory()[3] = host.call('add', 8)
      host.memory()[4] = host.callIndirect('table', 1, 30)
    },
    grows() {
      host.memory()[5] = 1
      host.call('grow')
      host.memory()[200_000] = 7
    },
  },
})

const FIELDS = `
  (import "env" "twice" (func $twice (param i32) (result i32)))
  (import "env" "nested" (func $nested)) (import "env" "grows" (func $grows))
  (memory (export "memory") 1)
  (table (export "table") 4 funcref) (elem (i32.const 1) $add)
  (func $add (export "add") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func (export "grow") (drop (memory.grow (i32.const 3))))`

describe('the engine of Node writes the bytes that the others write', () => {
  for (const [what, wasm, options] of [
    ['imports, calls of the guest, growing', guest('(i32.store (i32.const 8) (call $twice (i32.const 21))) (call $nested) (call $grows)', FIELDS), { imports }],
    [
      'floats and vectors, bit for bit',
      guest(
        `(global.set 0 (f32.reinterpret_i32 (i32.const 0x7fa00001))) (global.set 1 (f64.reinterpret_i64 (i64.const 0xfff4000000000001)))
         (global.set 2 (v128.const i32x4 1 2 3 0x7fa00001)) (global.set 3 (f32.const -0))`,
        `(global (mut f32) (f32.const 0)) (global (mut f64) (f64.const 0)) (global (mut v128) (v128.const i64x2 0 0))
         (global (export "zero") (mut f32) (f32.const 0)) (global (mut i64) (i64.const 5))`,
      ),
    ],
    ['tables and references', guest('(table.set 0 (i32.const 2) (ref.func $f)) (table.set 0 (i32.const 0) (table.get 0 (i32.const 1))) (global.set 0 (ref.func $g))', '(table 3 funcref) (elem (i32.const 1) $g) (elem declare func $f) (global (mut funcref) (ref.null func)) (func $f) (func $g)')],
    ['segments that were dropped', guest('(data.drop 0) (elem.drop 0) (memory.init 1 (i32.const 0) (i32.const 1) (i32.const 2))', '(memory 1) (table 1 funcref) (data "abc") (data "def") (elem func $f) (elem func $f) (func $f)')],
    ['a start function', '(module (memory 1) (func $s (i32.store (i32.const 1) (i32.const 2))) (start $s) (func (export "wizer.initialize")))'],
    ['a shared memory', guest('(i32.atomic.store (i32.const 8) (i32.const 9))', '(memory 1 2 shared)')],
    ['a preloaded module', guest('(call $x)', '(import "lib" "x" (func $x)) (import "lib" "m" (memory 1))'), {
      preload: { lib: '(module (memory (export "m") 1) (func (export "x") (i32.store (i32.const 0) (i32.const 9))))' },
    }],
    ['references of the host, null again', guest('(global.set 0 (call $f)) (call $g (global.get 0)) (global.set 0 (ref.null extern))', `
      (import "env" "f" (func $f (result externref))) (import "env" "g" (func $g (param externref))) (global (mut externref) (ref.null extern))`), {
      imports: () => {
        const object = {}
        return { env: { f: () => object, g: (given) => assert.equal(given, object) } }
      },
    }],
    ['WASI', guest('(drop (call $random (i32.const 0) (i32.const 0))) (drop (call $sizes (i32.const 0) (i32.const 4)))', `
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32))) (memory (export "memory") 1)`), {
      allowWasi: true, env: { A: 'b' },
    }],
    ['a program that ends itself', guest('(i32.store (i32.const 0) (i32.const 5)) (call $exit (i32.const 0))', `
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)`), { allowWasi: true, allowExit: true }],
    ...(hostRuns('(memory i64 1)') ? [['64-bit addresses', guest('(i64.store (i64.const 8) (i64.const 9))', '(memory i64 1)')]] : []),
    ...(EXCEPTIONS ? [['an exception of the host', guest('(block $c (result i32) (try_table (catch $t $c) (call $f)) (return)) (global.set 0)', `
      (import "env" "t" (tag $t (param i32))) (import "env" "f" (func $f)) (global (mut i32) (i32.const 0))`), {
      imports: () => {
        const t = new WebAssembly.Tag({ parameters: ['i32'] })
        return { env: { t, f() { throw new WebAssembly.Exception(t, [42]) } } }
      },
    }]] : []),
  ]) {
    it(what, async () => {
      const given = () => ({ ...options, ...(typeof options?.imports === 'function' && { imports: options.imports.length > 0 ? options.imports : options.imports() }) })
      const { wasm: output, report } = await snapshot(wasm, { ...given(), ...host })
      assert.equal(report.engine.name, 'V8')
      assert.deepEqual(output, await wizer(wasm, { ...given(), engine: 'optimizing', cache: false }))
      assert.deepEqual(output, wizerSync(wasm, { ...given(), ...host }))
    })
  }
})

describe('what goes wrong is told as by the others', () => {
  for (const [what, wasm, options] of [
    ['a load', guest('(call $f)', '(memory 1) (func $f (drop (i32.load (i32.const 70000))))')],
    ['a division', guest('(drop (i32.div_s (i32.const 1) (i32.const 0)))')],
    ['an overflow', guest('(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))')],
    ['a table', guest('(call_indirect (i32.const 9))', '(table 1 funcref)')],
    ['a segment', guest('', '(memory 1) (data (i32.const 65536) "a")')],
    ['an import that throws', guest('(call $f)', '(import "env" "f" (func $f))'), { imports: { env: { f() { throw new Error('boom') } } } }],
    ['an import that nobody provides', guest('(call $f)', '(import "env" "f" (func $f))')],
    ['the end of the program', guest('(call $exit (i32.const 3))', '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'), { allowWasi: true }],
    ...(EXCEPTIONS ? [
      ['what no module catches: of an import', guest('(block $c (try_table (catch_all $c) (call $f)))', '(import "env" "f" (func $f))'), { imports: { env: { f() { throw new Error('boom') } } } }],
      ['what no module catches: a trap', guest('(block $c (try_table (catch_all $c) (call $f)))', '(memory 1) (func $f (drop (i32.load (i32.const 70000))))')],
    ] : []),
  ]) {
    it(what, async () => {
      const [one, other] = await Promise.all(['host', 'optimizing'].map((engine) => failure(wizer(wasm, { ...options, engine, cache: false }))))
      for (const part of ['code', 'message', 'wasmBacktrace']) assert.deepEqual(one[part], other[part])
      assert.equal(String(one.cause), String(other.cause))
    })
  }

  it('a recursion without end', async () => {
    const error = await failure(wizer(guest('(call $f)', '(func $f (call $f))'), host))
    assert.equal(error.code, 'ERR_WIZER_TRAP')
    assert.match(error.message, /call stack exhausted/)
    assert.match(error.wasmBacktrace[3], /!f$/)
  })

  it('an import that does not fit', async () => {
    const memory = new WebAssembly.Memory({ initial: 1 })
    const error = await failure(wizer(guest('', '(import "env" "f" (func $f)) (import "env" "m" (memory 3))'), { ...host, imports: { env: { f() {}, m: memory } } }))
    assert.equal(error.code, 'ERR_WIZER_IMPORT_TYPE')
    assert.match(error.message, /`env::m`/)
  })

  for (const [what, wasm, options, expected] of [
    ['vectors that a function would have to be given', guest('(call $f (v128.const i64x2 1 2))', '(import "env" "f" (func $f (param v128)))'), {}, /v128/],
    ['a limit of memory', guest('', '(memory 1)'), { maxMemory: 65536 }, /limit/],
    ['relaxed SIMD that is the same everywhere', guest(''), { relaxedSimdDeterministic: true }, /relaxed SIMD/],
    ['tables that fill the heap', guest('', '(table 0 funcref)'.repeat(11)), {}, /tables/],
    ['objects that fill the heap', guest('', '(type (struct))'), {}, /objects/],
    ['a NaN that JavaScript has not', '(module (global (mut f32) (f32.const 0)) (func (export "f") (param f32) (global.set 0 (local.get 0))))', { invoke: ['f(nan:0x200001)'] }, /NaN/],
    ['results that are checked too late', guest('', '(type $t (func)) (import "env" "f" (func (result (ref null $t))))'), { imports: { env: { f() {} } } }, /check/],
    [
      'functions of the host that a module passes on',
      guest('(call $f)', '(import "pre" "f" (func $f)) (memory (export "memory") 1)'),
      { preload: { pre: '(module (import "env" "f" (func $f)) (memory (export "memory") 1) (export "f" (func $f)))' }, imports: { env: { f() {} } } },
      /which instance/,
    ],
  ]) {
    it(`what it does not do: ${what}`, async () => {
      const { code, message } = await failure(wizer(wasm, { ...host, ...options }))
      assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
      assert.match(message, expected)
    })
  }
})

describe('several modules', () => {
  const pre = '(module (import "env" "f" (func $f)) (memory (export "memory") 1) (export "f" (func $f)))'

  it('of which one has no code, and calls what another passes on', async () => {
    const codeless = '(module (import "pre" "f" (func $f)) (memory (export "memory") 2) (export "wizer.initialize" (func $f)))'
    const { code, message } = await failure(wizer(codeless, { ...host, preload: { pre }, imports: { env: { f() {} } } }))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    assert.match(message, /which instance/)
  })

  it('whose tables fill the heap together', async () => {
    const preload = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`m${i}`, '(module (table 1 funcref))']))
    const { code, message } = await failure(wizer(guest(''), { ...host, preload }))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    assert.match(message, /tables/)
  })

  if (EXCEPTIONS) {
    it('a tag by two names', async () => {
      const tag = new WebAssembly.Tag({ parameters: ['i32'] })
      const imports = { env: { a: tag, b: tag, f() { throw new WebAssembly.Exception(tag, [42]) } } }
      for (const [one, other] of ['ab', 'ba']) {
        const wasm = guest('(global.set 0 (block $c (result i32) (try_table (catch $t $c) (call $f)) (i32.const 1)))', `
          (import "env" "${one}" (tag $t (param i32))) (import "env" "${other}" (tag (param i32))) (import "env" "f" (func $f)) (global (mut i32) (i32.const 0))`)
        assert.deepEqual(await wizer(wasm, { ...host, imports }), await wizer(wasm, { cache: false, engine: 'optimizing', imports }))
      }
    })
  }
})

describe('a module beside a session', () => {
  const main = guest('', `(memory (export "memory") 1) (func (export "peek") (result i32) (i32.load8_u (i32.const 8)))`)

  it('is linked to it', async () => {
    const session = await Session.create(main, host)
    await session.register('main')
    await session.instantiate('side', '(module (import "main" "memory" (memory 1)) (data (i32.const 8) "*"))')
    assert.equal(await session.call('peek'), 42)
    await session.close()
  })

  it('is refused where one of them passes a function of the host on, and the session goes on', async () => {
    const passing = '(module (import "env" "f" (func $f)) (export "f" (func $f)))'
    const session = await Session.create(main, { ...host, imports: { env: { f() {} } } })
    const { code, message } = await failure(session.instantiate('side', passing))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    assert.match(message, /which instance .*choose another engine/)
    assert.equal(await session.call('peek'), 0)
    await session.close()
  })
})

describe('another engine runs', () => {
  const vector = guest('', `(func (export "f") (result v128) (v128.const i64x2 1 2)) ${LARGE_DATA}`)
  it('what V8 finds that it does not do, before anybody has seen anything of it', async () => {
    const { report } = await snapshot(vector, { cache: false, invoke: ['f'] })
    assert.match(report.engine.name, /^wasmtime/)
    assert.match(report.engine.reason, /^the module is large; V8 does not run it: .*v128/)
  })
})

describe('a module that is valid only with what wizer adds to it', () => {
  for (const [what, wasm] of [
    ['a global', guest('(drop (global.get 0))')],
    ['a table', guest('(drop (table.size 0))')],
    ['a function', '(module (global (mut f32) (f32.const 1)) (func (export "wizer.initialize") (drop (call 1))))'],
    ['a type', guest('(drop (block (type 1) (i32.const 1)))', '(global (mut f32) (f32.const 1))')],
  ]) {
    it(what, async () => {
      for (const more of ['', LARGE_DATA]) {
        const { code } = await failure(wizer(`${wasm.slice(0, -1)} ${more})`, more ? { cache: false } : host))
        assert.equal(code, 'ERR_WIZER_INVALID_MODULE')
      }
    })
  }
})

describe('an import that goes on when the time is over', () => {
  const wasm = guest('(call $f)', '(import "env" "f" (func $f)) (memory (export "memory") 100)')
  const busy = (ms) => {
    const until = performance.now() + ms
    while (performance.now() < until);
  }
  for (const run of [wizer, async (...args) => wizerSync(...args)]) {
    it(`keeps the memory that it holds, and is told that the run is over (${run.name || 'wizerSync'})`, async () => {
      const seen = []
      const imports = (instance) => ({
        env: {
          f() {
            const memory = instance.memory()
            memory[5] = 9
            busy(300)
            for (let i = 0; i < 3; i++) {
              try {
                seen.push(instance.memory().length)
              } catch (error) {
                seen.push(error.message)
              }
              busy(200)
            }
            for (let i = 0; i < memory.length; i += 4096) memory[i]++
            seen.push(memory[5])
          },
        },
      })
      assert.equal((await failure(run(wasm, { ...host, timeout: 100, imports }))).code, 'ERR_WIZER_TIMEOUT')
      assert.equal(seen.at(-1), 9)
      assert.match(String(seen.at(-2)), /did not come to an end within 100 ms/)
    })
  }
})

describe('a loop without end is ended', () => {
  const ENDLESS = guest('(loop (br 0))')

  it('by the timeout', async () => {
    assert.equal((await failure(wizer(ENDLESS, { ...host, timeout: 200 }))).code, 'ERR_WIZER_TIMEOUT')
    assert.throws(() => wizerSync(ENDLESS, { ...host, timeout: 200 }), { code: 'ERR_WIZER_TIMEOUT' })
    // And the next run has another worker.
    assert.ok(await wizer(guest(''), host))
  })

  it('by the signal', async () => {
    const signal = AbortSignal.timeout(200)
    const { code, cause } = await failure(wizer(ENDLESS, { ...host, signal }))
    assert.deepEqual([code, cause], ['ERR_WIZER_ABORTED', signal.reason])
  })

  it('by the end of the process, and of the worker that began it', async () => {
    const index = fileURLToPath(import.meta.resolve('@jakechampion/wizer'))
    const program = `import { wizer } from ${JSON.stringify(`file://${index.replace(/index\.js$/, 'index.mjs')}`)}
      wizer('${ENDLESS}', { engine: 'host' }).catch(() => {})`
    const directory = mkdtempSync(join(tmpdir(), 'wizer-host-'))
    try {
      const file = join(directory, 'endless.mjs')
      writeFileSync(file, `${program}\nsetTimeout(() => process.exit(7), 300)`)
      assert.equal(spawnSync(process.execPath, [file], { timeout: 30_000 }).status, 7)
      writeFileSync(file, program)
      const worker = new Worker(file)
      await new Promise((resolve) => setTimeout(resolve, 300))
      await worker.terminate()
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })
})

describe('sessions', () => {
  const MODULE = `(module (memory (export "memory") 1) (global $n (export "n") (mut i32) (i32.const 0)) (table (export "table") funcref (elem $add))
    (func $add (export "add") (param i32) (result i32) (global.set $n (i32.add (global.get $n) (local.get 0))) (global.get $n)))`

  it('go on in one worker', async () => {
    const session = await Session.create(MODULE, host)
    assert.deepEqual([await session.call('add', 4), await session.callIndirect('table', 0, 5), await session.global('n')], [4, 9, 9])
    await session.memory().write(70, 'text')
    assert.equal(await session.memory().readString(70), 'text')
    const { wasm, report } = await session.snapshotWithReport()
    assert.equal(report.engine.name, 'V8')
    await session.close()
    const other = await Session.create(wasm, { engine: 'interpreter' })
    assert.deepEqual([await other.global('n'), await other.memory().readString(70)], [9, 'text'])
  })

  it('sixteen at once', async () => {
    const sessions = await Promise.all(Array.from({ length: 16 }, () => Session.create(MODULE, host)))
    const added = await Promise.all(sessions.map((session, i) => session.call('add', i)))
    assert.deepEqual(added, sessions.map((_, i) => i))
    await Promise.all(sessions.map((session) => session.close()))
  })

  it('that are dropped do not keep the process', () => {
    const index = fileURLToPath(import.meta.resolve('@jakechampion/wizer'))
    const program = `require(${JSON.stringify(index)}).Session.create('(module)', { engine: 'host' }).then(() => console.log('made'))`
    const { status, stdout } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', timeout: 30_000 })
    assert.deepEqual([status, stdout], [0, 'made\n'])
  })
})

describe('`auto` leaves to it', () => {
  const run = async (body, fields, options) => (await snapshot(guest(body, `${fields} ${LARGE}`), { cache: false, ...options })).report.engine

  it('a large module that calls an import, or takes long', async () => {
    assert.equal((await run('(call $f)', '(import "env" "f" (func $f))', { imports: { env: { f() {} } } })).name, 'V8')
    const loop = '(local $i i32) (loop (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000000))))'
    assert.equal((await run(loop, '')).name, 'V8')
    // So large that nothing else begins before.
    const { name, reason } = await run('', `(memory 100) (data (i32.const 0) "${'x'.repeat(5_500_000)}")`)
    assert.deepEqual({ name, reason }, { name: 'V8', reason: 'the module is large' })
    const session = await Session.create(guest('', LARGE))
    assert.equal((await session.snapshotWithReport()).report.engine.name, 'V8')
    await session.close()
  })

  it('not what it does not do', async () => {
    const given = { imports: { env: { f() {} } } }
    assert.equal((await run('(call $f)', '(import "env" "f" (func $f))', { ...given, maxMemory: 2 ** 30 })).name, 'wasmtime (Winch)')
    const { name, reason } = await run('(call $f)', '(import "env" "f" (func $f)) (import "env" "v" (func (param v128)))', given)
    assert.notEqual(name, 'V8')
    assert.match(reason, /v128/)
  })

  it('legacy exceptions, whatever the size', async () => {
    const legacy = guest('try call $f catch $t global.set 0 end', `
      (tag $t (param i32)) (global (mut i32) (i32.const 0)) (func $f (throw $t (i32.const 42)))`)
    const { wasm, report } = await snapshot(legacy, { keepInitFunc: true })
    assert.equal(report.engine.name, 'V8')
    // The code is as it was, and the global what the initialization made of it.
    assert.deepEqual(await wizer(wasm, { keepInitFunc: true }), wasm)
    assert.ok(wasm.includes(Buffer.from([0x41, 42, 0x0b])), 'the global is 42')
    const { code, message } = await failure(wizer(legacy, { engine: 'baseline' }))
    assert.equal(code, 'ERR_WIZER_UNSUPPORTED')
    assert.match(message, /legacy exceptions/)
  })
})

// Whatever the guest has done by then is done again, and nobody sees it.
describe('V8 takes over from the interpreter', () => {
  const text = (address, content) => `(data (i32.const ${address}) "${content}")`
  const write = (fd, address, length) => `(i32.store (i32.const 0) (i32.const ${address})) (i32.store (i32.const 4) (i32.const ${length}))
    (drop (call $fd_write (i32.const ${fd}) (i32.const 0) (i32.const 1) (i32.const 8)))`
  const read = (fd, address, length) => `(i32.store (i32.const 0) (i32.const ${address})) (i32.store (i32.const 4) (i32.const ${length}))
    (drop (call $fd_read (i32.const ${fd}) (i32.const 0) (i32.const 1) (i32.const 8)))`
  const steps = [
    write(1, 100, 4),
    read(0, 200, 3),
    '(drop (call $args_sizes_get (i32.const 16) (i32.const 20)))',
    write(2, 104, 4),
    '(drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 108) (i32.const 8) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 24)))',
    '(drop (call $fd_fdstat_get (i32.const 4) (i32.const 32)))',
    read(4, 300, 4),
    read(0, 210, 5),
    write(1, 200, 8),
    read(4, 310, 40),
    '(drop (call $fd_close (i32.const 4)))',
    '(drop (call $sched_yield))',
    read(0, 220, 50),
    write(1, 300, 4),
  ]
  const names = ['fd_write', 'fd_read', 'args_sizes_get', 'path_open', 'fd_fdstat_get', 'fd_close', 'sched_yield']

  it('before each call of the host', async () => {
    for (let at = 0; at <= steps.length; at++) {
      const body = steps.toSpliced(at, 0, '(global.set $n (call $f (global.get $n)))').join('\n')
      const fields = `(import "env" "f" (func $f (param i32) (result i32))) ${wasi(...names)} (memory (export "memory") 1)
        (global $n (mut i32) (i32.const 5)) ${text(100, 'out\\0aerr\\0afile.txt')} ${MEDIUM}`
      const run = async (engine) => {
        const calls = []
        const { wasm, stdout, stderr, report } = await snapshot(guest(body, fields), {
          engine,
          cache: false,
          allowWasi: true,
          args: ['guest', 'x'],
          stdin: Buffer.from('the input of the module'),
          files: { 'file.txt': Buffer.from('what is in the file') },
          stdout: 'pipe',
          stderr: 'pipe',
          imports: { env: { f: (n) => calls.push(n) + n } },
        })
        return [{ wasm, stdout: stdout.toString(), stderr: stderr.toString(), calls }, report.engine]
      }
      const [[one, ran], [other]] = [await run('auto'), await run('optimizing')]
      assert.deepEqual({ ...ran }, { name: 'V8', reason: 'the interpreter ended before the call of `env::f`' }, `at ${at}`)
      assert.deepEqual(one, other, `at ${at}`)
    }
  })
})
