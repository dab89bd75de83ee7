// The comparing itself: what is different is found, in every kind of state, and what a module does not export as well.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { assemble } from '../../../__test__/helpers/wat.mjs'
import { wizerSync } from '../../../index.mjs'
import { compare, instantiate } from '../lib/compare.mjs'
import { embed } from '../lib/fetch.mjs'
import { hostImports } from '../lib/host.mjs'
import { judge } from '../lib/judge.mjs'
import { describeRow, render } from '../lib/render.mjs'
import { packages } from '../packages.mjs'
import { tasks } from '../tasks.mjs'

/** A module in the binary format, with an initialization function that does nothing. */
const binary = (fields) => wizerSync(`(module ${fields} (func (export "wizer.initialize")))`)

const stateOf = (wasm) => instantiate(wasm, (wanted, memory) => hostImports(wanted, { memory })).state()
const differences = (left, right) => compare(stateOf(binary(left)), stateOf(binary(right))).differences

const PRIVATE = `
  (memory 1) (data (i32.const 70) "a")
  (table 3 funcref) (func $f) (func $g) (elem (i32.const 1) $f $g)
  (global i32 (i32.const 7)) (global (mut i64) (i64.const 8))
  (global (mut f32) (f32.const nan:0x200001)) (global (mut f64) (f64.const -0))
  (global (mut v128) (v128.const i32x4 1 2 3 4)) (global (mut funcref) (ref.func $f))`

test('a state is the same as itself, and all of it is seen', () => {
  const { differences, seen } = compare(stateOf(binary(PRIVATE)), stateOf(binary(PRIVATE)))
  assert.deepEqual(differences, [])
  assert.deepEqual(seen, { bytes: 65536, slots: 3, globals: 6, opaque: 0 })
})

for (const [what, from, to, expected] of [
  ['a byte', '"a"', '"b"', 'memory 0: 1 bytes, the first at 70: 97, in the output 98'],
  ['the size of a memory', '(memory 1)', '(memory 2)', 'memory 0: 65536 bytes, in the output 131072'],
  ['a function in a slot', '$f $g)', '$g $g)', 'table 0, slot 1: function 0, in the output function 1'],
  ['a null in a slot', '$f $g)', '$f)', 'table 0, slot 2: function 1, in the output object null'],
  ['the size of a table', '(table 3', '(table 4', 'table 0: 3 slots, in the output 4'],
  ['an immutable global', '(i32.const 7)', '(i32.const 6)', 'global 0: number 7, in the output number 6'],
  ['an i64', '(i64.const 8)', '(i64.const -8)', 'global 1: bigint 8, in the output bigint -8'],
  ['the payload of a NaN', 'nan:0x200001', 'nan:0x200002', 'global 2: number 2141192193, in the output number 2141192194'],
  ['the sign of a zero', '-0', '0', 'global 3: bigint -9223372036854775808, in the output bigint 0'],
  ['a lane of a vector', '3 4)', '3 5)', 'global 4: bigint 17179869187, in the output bigint 21474836483'],
  ['a reference', '(ref.func $f)', '(ref.func $g)', 'global 5: function 0, in the output function 1'],
]) {
  test(`${what} is a difference`, () => {
    const other = PRIVATE.replace(from, to)
    assert.notEqual(other, PRIVATE)
    assert.deepEqual(differences(PRIVATE, other), [expected])
  })
}

test('types in recursion groups are counted', { skip: Number(process.versions.node.split('.')[0]) < 22 }, () => {
  const fields = `
    (rec (type $a (sub (struct (field (mut (ref null $b)))))) (type $b (sub final $a (struct (field (mut (ref null $b))) (field i8)))))
    (type $c (array (mut i16)))
    (global (mut f64) (f64.const 1.5))`
  assert.deepEqual(differences(fields, fields), [])
  assert.equal(differences(fields, fields.replace('1.5', '2.5')).length, 1)
})

const MODULE = assemble(`(module
  (import "env" "now" (func $now (result i64)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $runs (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $runs (i32.add (global.get $runs) (i32.const 1))))
  (func (export "fill") (param i32 i32) (drop (call $random (local.get 0) (local.get 1))) (i64.store (i32.const 0) (call $now)))
  (func (export "init") (global.set $runs (i32.mul (global.get $runs) (i32.const 10))))
  (func (export "trap") unreachable))`)

test('a module is initialized in V8 as wizer does it, with the same host', async () => {
  const entry = { initFunc: 'init', calls: ['fill(64, 32)'], imports: () => ({ 'env.now': () => 5n }) }
  const { state, seen } = await judge(entry, MODULE)
  assert.deepEqual([state, seen.bytes, seen.globals], ['same', 65536, 1])
  assert.equal((await judge({ initFunc: 'trap' }, MODULE)).state, 'fails')
  assert.deepEqual(await judge({ initFunc: 'none' }, MODULE).then(({ state, code }) => [state, code]), ['fails', 'ERR_WIZER_INIT_FUNC_MISSING'])
})

test('an output that is not what the original becomes is found', async () => {
  const wasm = binary('(import "env" "n" (func $n (result i32))) (memory (export "memory") 1) (func (export "init") (i32.store (i32.const 0) (call $n)))')
  let calls = 0
  // Another answer each time: what wizer sees is not what V8 sees.
  const { state, differences } = await judge({ initFunc: 'init', imports: () => ({ 'env.n': () => ++calls }) }, wasm)
  assert.equal(state, 'different')
  assert.deepEqual(differences, ['memory 0: 1 bytes, the first at 0: 2, in the output 1', 'wasmi writes other bytes than wasmtime (Cranelift)'])
})

test('the module in a script is found and replaced', () => {
  const [module, other] = [binary('(func (export "a"))'), binary('(func (export "b") (nop))')]
  const script = Buffer.from(`const wasm = "${module.toString('base64')}"; // ${Buffer.from('\0asm').toString('base64')}`)
  assert.equal(embed(script, other), script.toString().replace(module.toString('base64'), other.toString('base64')))
  assert.throws(() => embed(Buffer.from('nothing'), other), /no module/)
})

test('every row is pinned, and every task is of a row', () => {
  assert.equal(new Set(packages.map(({ id }) => id)).size, packages.length)
  const pins = [...packages, ...Object.values(tasks).flatMap(({ beside = [] }) => beside)]
  for (const { npm, version, integrity } of pins) {
    assert.match(integrity, npm ? /^sha512-[\w+/]{86}==$/ : /^sha256:[\da-f]{64}$/)
    assert.match(version, /^\d+\.\d+/)
  }
  for (const id of Object.keys(tasks)) assert.ok(packages.some((entry) => entry.id === id), id)
  assert.ok(packages.some(({ quick }) => quick))
})

test('a wrong output stands out in the page', () => {
  const [entry] = packages
  const row = { state: 'different', differences: ['global 0: number 1, in the output number 2'], inputBytes: 10, outputBytes: 10 }
  assert.match(describeRow(entry, row), /DIFFERENT, global 0/)
  const machine = { cpu: 'x', cores: 1, memoryBytes: 1, system: 'y', node: 'v0', v8: '0' }
  assert.match(render(packages, { machine, rows: { [entry.id]: row } }), /1 are wrong/)
})

test('the page is what the numbers beside it say, and no output in it is wrong', () => {
  const [numbers, page] = ['json', 'md'].map((kind) => readFileSync(new URL(`../../../docs/compatibility.${kind}`, import.meta.url), 'utf8'))
  const found = JSON.parse(numbers)
  assert.equal(page.replaceAll('\r\n', '\n'), render(packages, found))
  for (const [id, { state, task }] of Object.entries(found.rows)) {
    assert.ok(packages.some((entry) => entry.id === id), id)
    assert.ok(!['different', 'crashed'].includes(state) && task?.state !== 'different', id)
  }
})
