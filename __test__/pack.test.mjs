// What a user gets: the packages as they are published, packed, installed into an empty directory
// without a network, and used from there.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { builtFiles } from '../scripts/build.mjs'
import { attempt, pack, platform, run } from './helpers/packages.mjs'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const { programName, targets } = createRequire(import.meta.url)('../platform.js')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

const WAT = `(module
  (memory (export "memory") 1)
  (func (export "wizer.initialize") (i32.store (i32.const 8) (i32.const 42)))
  (func (export "answer") (result i32) (i32.load (i32.const 8))))`

/** V8 is the judge: the initialization is done, and its function is gone. */
async function assertInitialized(wasm) {
  const { instance } = await WebAssembly.instantiate(wasm)
  assert.equal(instance.exports.answer(), 42)
  assert.equal(instance.exports['wizer.initialize'], undefined)
}

describe('the packed packages', { skip: !(platform in targets) && `no package for ${platform}` }, () => {
  let directory, app, packed

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'wizer-pack-'))
    packed = pack(directory)
    app = join(directory, 'app')
    mkdirSync(app)
    writeFileSync(join(app, 'input.wat'), WAT)
    run(app, 'npm', 'install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', packed.main.file, packed.platform.file)
  })

  after(() => directory && rmSync(directory, { recursive: true, force: true }))

  it('hold what they should, and nothing else', () => {
    const files = (name) => packed[name].files.map(({ path }) => path).sort()
    assert.deepEqual(files('main'), [
      'LICENSE',
      'README.md',
      'bin-path.d.ts',
      'bin-path.js',
      'bin/wizer.js',
      'index.d.mts',
      'index.d.ts',
      'index.js',
      'index.mjs',
      'lib/brands.js',
      'lib/engine.js',
      'lib/error.js',
      'lib/imports.js',
      'lib/memory.js',
      'lib/node.js',
      'lib/options.js',
      'lib/tags.js',
      'lib/values.js',
      'lib/workers.js',
      'package.json',
      'platform.js',
    ])
    assert.deepEqual(files('platform'), ['LICENSE', 'README.md', 'package.json', programName(platform), `wizer.${platform}.node`].sort())
    assert.deepEqual(files('compat'), ['LICENSE', 'README.md', 'bin/wizer.js', 'index.d.ts', 'index.js', 'package.json'])
  })

  it('name every platform of the same version, and no registry', () => {
    const text = readFileSync(join(app, 'node_modules/@jakechampion/wizer/package.json'), 'utf8')
    const manifest = JSON.parse(text)
    assert.deepEqual(
      manifest.optionalDependencies,
      Object.fromEntries(Object.keys(targets).map((name) => [`@jakechampion/wizer-${name}`, version])),
    )
    assert.equal(manifest.dependencies, undefined)
    assert.equal(manifest.publishConfig.registry, undefined)
    assert.doesNotMatch(text, /registry\./)
  })

  it('npx wizer --version', () => {
    assert.equal(run(app, 'npx', '--no', '--offline', '--', 'wizer', '--version').trim(), `wizer ${version}`)
  })

  it('npx wizer input.wat -o out.wasm', async () => {
    run(app, 'npx', '--no', '--offline', '--', 'wizer', 'input.wat', '-o', 'out.wasm')
    await assertInitialized(readFileSync(join(app, 'out.wasm')))
  })

  it("require('@jakechampion/wizer')", async () => {
    await assertInitialized(fromScript('main.cjs', "const { wizer } = require('@jakechampion/wizer')"))
  })

  it("import from '@jakechampion/wizer', by name and by default", async () => {
    await assertInitialized(fromScript('named.mjs', "import { wizer } from '@jakechampion/wizer'"))
    await assertInitialized(fromScript('default.mjs', "import wizer from '@jakechampion/wizer'"))
  })

  it('types, for both', { skip: !existsSync(join(root, 'node_modules/typescript')) && 'npm ci was not run' }, () => {
    const use = "const bytes: Promise<Buffer> = wizer('(module)', { initFunc: 'go' })\nvoid bytes\n"
    writeFileSync(join(app, 'use.cts'), `import { wizer } from '@jakechampion/wizer'\n${use}`)
    writeFileSync(join(app, 'use.mts'), `import wizer from '@jakechampion/wizer'\n${use}`)
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
    const options = ['--module', 'nodenext', '--target', 'es2022', '--strict', '--noEmit', ...types]
    run(app, process.execPath, join(root, 'node_modules/typescript/bin/tsc'), ...options, 'use.cts', 'use.mts')
  })

  /** Runs a script that gets `wizer` by its first line; gives back the module that it made. */
  function fromScript(name, first) {
    const file = join(app, name)
    writeFileSync(file, `${first}\nwizer(${JSON.stringify(WAT)}).then((wasm) => console.log(wasm.toString('base64')))\n`)
    return Buffer.from(run(app, process.execPath, file), 'base64')
  }
})

describe('what a release puts together', () => {
  let directory
  const stage = () => attempt(root, [process.execPath, 'scripts/release.mjs', 'stage', join(directory, 'built'), join(directory, 'packages')])

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'wizer-release-'))
    for (const name of Object.keys(targets)) {
      for (const file of Object.values(builtFiles(name, join(directory, 'built')))) {
        mkdirSync(dirname(file), { recursive: true })
        writeFileSync(file, name, { mode: 0o644 })
      }
    }
  })

  after(() => rmSync(directory, { recursive: true, force: true }))

  it('has an addon and a program for every platform, and what depends on them', () => {
    assert.equal(stage().status, 0)
    const packages = join(directory, 'packages')
    assert.deepEqual(readdirSync(packages).sort(), ['compat', 'main', ...Object.keys(targets)].sort())
    for (const name of Object.keys(targets)) {
      const { files } = JSON.parse(readFileSync(join(packages, name, 'package.json'), 'utf8'))
      assert.deepEqual(files, [`wizer.${name}.node`, name.startsWith('win32') ? 'wizer.exe' : 'wizer'])
      for (const file of files) assert.equal(readFileSync(join(packages, name, file), 'utf8'), name)
      const { mode } = statSync(join(packages, name, files[1]))
      if (process.platform !== 'win32') assert.equal(mode & 0o777, 0o755)
    }
    const { dependencies } = JSON.parse(readFileSync(join(packages, 'compat', 'package.json'), 'utf8'))
    assert.deepEqual(dependencies, { '@jakechampion/wizer': version })
  })

  it('is refused where something was not built', () => {
    const { program } = builtFiles('win32-x64-msvc', join(directory, 'built'))
    rmSync(program)
    const { status, stderr } = stage()
    assert.equal(status, 1)
    assert.ok(stderr.includes(`not built: ${program}`), stderr)
  })
})
