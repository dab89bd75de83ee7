// The packages, installed by npm, pnpm and Yarn (as Plug'n'Play) out of a registry that has them as after a release.
// The addon loads, the commands are there, and the package for others' `@bytecodealliance/wizer` stands in for that.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { install, root } from '../../scripts/run.mjs'
import { attempt, override, platform, release, run } from '../helpers/packages.mjs'

const tools = join(root, '__test__', 'package-managers')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

const WAT = `(module
  (memory (export "memory") 1)
  (func (export "wizer.initialize") (i32.store (i32.const 8) (i32.const 42)))
  (func (export "answer") (result i32) (i32.load (i32.const 8))))`

/** A package of somebody else, which starts the program that its dependency names: in a bare environment, as some do. */
const CLIENT = {
  'package.json': JSON.stringify({
    name: '@jakechampion/wizer-client',
    version,
    type: 'module',
    exports: './client.js',
    files: ['client.js'],
    dependencies: { '@bytecodealliance/wizer': '^7.0.5' },
  }),
  'client.js': `
    import { spawnSync } from 'node:child_process'
    import wizer from '@bytecodealliance/wizer'
    export const initialize = (input, output) => spawnSync(wizer, [input, '-o', output], { env: {}, encoding: 'utf8' })
  `,
}

const script = (name) => [process.execPath, join(tools, 'node_modules', name)]

/** How each is set up, told where packages are, and used. */
const managers = {
  npm: {
    files: ({ ours, registry }) => ({ '.npmrc': `registry=${registry}\n@jakechampion:registry=${ours}\n` }),
    manifest: JSON.parse(override('npm')),
    env: (directory) => ({ npm_config_cache: join(directory, 'npm-cache') }),
    install: ['npm', 'install', '--no-audit', '--no-fund'],
    makes: 'node_modules/.package-lock.json',
    withoutPlatform: { install: ['npm', 'install', '--no-audit', '--no-fund', '--omit=optional'] },
    exec: ['npx', '--no', '--offline', '--'],
    node: [process.execPath],
  },
  pnpm: {
    files: ({ ours, registry }) => ({
      '.npmrc': `registry=${registry}\n@jakechampion:registry=${ours}\n`,
      'pnpm-workspace.yaml': override('pnpm'),
    }),
    env: (directory) => ({ npm_config_store_dir: join(directory, 'pnpm-store'), npm_config_cache_dir: join(directory, 'pnpm-cache') }),
    install: [...script('pnpm/bin/pnpm.cjs'), 'install'],
    makes: 'node_modules/.pnpm',
    withoutPlatform: { install: [...script('pnpm/bin/pnpm.cjs'), 'install', '--no-optional'] },
    exec: [...script('pnpm/bin/pnpm.cjs'), 'exec'],
    node: [process.execPath],
  },
  Yarn: {
    files: ({ ours, registry }, architectures = '') => ({
      '.yarnrc.yml':
        `npmRegistryServer: ${registry}\nnpmScopes: { jakechampion: { npmRegistryServer: '${ours}' } }\n` +
        `unsafeHttpWhitelist: [127.0.0.1]\n${architectures}`,
      // Yarn takes the directory for a project of its own by this.
      'yarn.lock': '',
    }),
    manifest: JSON.parse(override('Yarn')),
    env: (directory) => ({ YARN_GLOBAL_FOLDER: join(directory, 'yarn'), YARN_ENABLE_TELEMETRY: '0', YARN_ENABLE_IMMUTABLE_INSTALLS: '0' }),
    install: [...script('@yarnpkg/cli-dist/bin/yarn.js'), 'install'],
    makes: '.pnp.cjs',
    withoutPlatform: { files: 'supportedArchitectures: { os: [sunos] }\n' },
    exec: [...script('@yarnpkg/cli-dist/bin/yarn.js'), 'run'],
    node: [...script('@yarnpkg/cli-dist/bin/yarn.js'), 'node'],
  },
}

describe('installed by', () => {
  let directory, where

  before(async () => {
    install(tools)
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-managers-')))
    const client = write('client', CLIENT)
    const [{ filename }] = JSON.parse(run(client, 'npm', 'pack', '--json'))
    where = await release(directory, [{ manifest: JSON.parse(CLIENT['package.json']), file: join(client, filename) }])
  })

  after(async () => {
    await where?.close()
    if (directory) rmSync(directory, { recursive: true, force: true })
  })

  function write(name, files) {
    const into = join(directory, name)
    mkdirSync(into)
    for (const [file, text] of Object.entries(files)) writeFileSync(join(into, file), text)
    return into
  }

  for (const [name, manager] of Object.entries(managers)) {
    describe(name, () => {
      let app

      const use = (...command) => {
        const { status, stdout, stderr } = attempt(app, command, manager.env(directory))
        assert.equal(status, 0, `${command.join(' ')}\n${stdout}${stderr}`)
        return stdout
      }

      /** Runs a script; gives back the last line of what it writes. */
      const runScript = (file, text) => {
        writeFileSync(join(app, file), text)
        return use(...manager.node, file).trim().split('\n').at(-1)
      }

      /** V8 is the judge. */
      const assertInitialized = async (wasm) => {
        const { instance } = await WebAssembly.instantiate(wasm)
        assert.equal(instance.exports.answer(), 42)
        assert.equal(instance.exports['wizer.initialize'], undefined)
      }

      before(() => {
        const manifest = {
          private: true,
          dependencies: { '@jakechampion/wizer': `^${version}`, '@jakechampion/wizer-client': version },
          ...manager.manifest,
        }
        app = write(name, { 'package.json': JSON.stringify(manifest), 'input.wat': WAT, ...manager.files(where) })
        use(...manager.install)
        assert.ok(existsSync(join(app, manager.makes)), `no ${manager.makes}`)
      })

      it('require', async () => {
        const print = `wizer(${JSON.stringify(WAT)}).then((wasm) => console.log(wasm.toString('base64')))`
        await assertInitialized(Buffer.from(runScript('main.cjs', `const { wizer } = require('@jakechampion/wizer')\n${print}`), 'base64'))
      })

      it('import', async () => {
        const print = `console.log((await wizer(${JSON.stringify(WAT)})).toString('base64'))`
        await assertInitialized(Buffer.from(runScript('main.mjs', `import wizer from '@jakechampion/wizer'\n${print}`), 'base64'))
      })

      it('the command', async () => {
        assert.match(use(...manager.exec, 'wizer', '--version'), new RegExp(`^wizer ${version}$`, 'm'))
        use(...manager.exec, 'wizer', 'input.wat', '-o', 'out.wasm')
        await assertInitialized(readFileSync(join(app, 'out.wasm')))
      })

      it('the path of the program, which needs nothing of the environment', () => {
        const start = "console.log(require('node:child_process').execFileSync(wizer, ['--version'], { env: {}, encoding: 'utf8' }))"
        assert.equal(runScript('path.cjs', `const wizer = require('@jakechampion/wizer/bin-path')\n${start}`), `wizer ${version}`)
      })

      it("in the place of another package's @bytecodealliance/wizer", async () => {
        const result = runScript(
          'client.mjs',
          `import { initialize } from '@jakechampion/wizer-client'
          const { status, stderr, error } = initialize('input.wat', 'client.wasm')
          console.log(JSON.stringify({ status, stderr, error: error?.message }))`,
        )
        assert.deepEqual(JSON.parse(result), { status: 0, stderr: '' })
        await assertInitialized(readFileSync(join(app, 'client.wasm')))
      })

      it('without the package of the platform', () => {
        const { files, install = manager.install } = manager.withoutPlatform
        const manifest = { private: true, dependencies: { '@jakechampion/wizer': `^${version}` } }
        const bare = write(`${name}-bare`, { 'package.json': JSON.stringify(manifest), ...manager.files(where, files) })
        const installed = attempt(bare, install, manager.env(directory))
        assert.equal(installed.status, 0, `${installed.stdout}${installed.stderr}`)
        for (const entry of ['@jakechampion/wizer', '@jakechampion/wizer/bin-path']) {
          writeFileSync(join(bare, 'main.cjs'), `const wizer = require('${entry}')\nwizer.wizerSync('(module)')`)
          const { status, stderr, stdout } = attempt(bare, [...manager.node, 'main.cjs'], manager.env(directory))
          assert.notEqual(status, 0, stdout)
          assert.ok(stderr.includes(`the package @jakechampion/wizer-${platform}, the native addon for ${platform}, is not installed`), stderr)
          assert.match(stderr, /code: 'ERR_WIZER_PLATFORM'/)
        }
      })
    })
  }
})
