// Tools that depend on wizer, put into one file by real bundlers: where that works, and what it says where it cannot.

import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { install, root } from '../../scripts/run.mjs'
import { attempt, pack, platform, run } from '../helpers/packages.mjs'

const tools = join(root, '__test__', 'bundlers')
const require = createRequire(join(tools, 'package.json'))
const load = async (name) => {
  const module = await import(pathToFileURL(require.resolve(name)))
  return module.default?.[Object.keys(module)[0]] ? module.default : module
}

const NAME = '@jakechampion/wizer'
const TOOL = `wizer(process.argv[2]).then(
  (wasm) => console.log(WebAssembly.validate(wasm)),
  (error) => console.error(error.code, error.message),
)`
const SOURCES = {
  'import.mjs': `import wizer from '${NAME}'\n${TOOL}`,
  'require.cjs': `const { wizer } = require('${NAME}')\n${TOOL}`,
}
const FORMATS = { esm: 'mjs', cjs: 'cjs' }

/** Each bundles a tool; with `external`, without our package. */
const bundlers = {
  async esbuild({ input, output, format, external }) {
    const { build } = await load('esbuild')
    // What is left out cannot be required by a bundle that is an ES module, unless it is given a `require`.
    const banner = external && format === 'esm' ? { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" } : {}
    await build({ entryPoints: [input], outfile: output, bundle: true, platform: 'node', format, external: external ? [NAME] : [], banner, logLevel: 'error' })
  },

  async webpack({ input, output, format, external }) {
    const webpack = require('webpack')
    const type = { esm: 'module', cjs: 'commonjs2' }[format]
    const stats = await promisify(webpack)({
      entry: input,
      target: 'node20',
      mode: 'production',
      experiments: { outputModule: format === 'esm' },
      output: { path: dirname(output), filename: basename(output), library: { type }, module: format === 'esm', chunkFormat: format === 'esm' ? 'module' : 'commonjs' },
      externals: external ? { [NAME]: NAME } : {},
      externalsType: format === 'esm' ? 'module' : 'commonjs',
    })
    const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true })
    assert.deepEqual([...errors, ...warnings], [])
  },

  async rollup({ input, output, format, external }) {
    const [{ rollup }, commonjs, resolve] = [await load('rollup'), require('@rollup/plugin-commonjs'), require('@rollup/plugin-node-resolve')]
    const plugins = [commonjs(), resolve.default({ preferBuiltins: true })]
    const bundle = await rollup({ input, external: external ? [NAME] : [], plugins, onwarn: (warning) => assert.fail(warning.message) })
    await bundle.write({ file: output, format })
  },

  async rolldown({ input, output, format, external }) {
    const { rolldown } = await load('rolldown')
    const bundle = await rolldown({ input, platform: 'node', external: external ? [NAME] : [], onLog: (level, log) => level === 'warn' && assert.fail(log.message) })
    await bundle.write({ file: output, format })
  },

  async vite({ input, output, format, external }) {
    const { build } = await load('vite')
    await build({
      root: dirname(input),
      configFile: false,
      logLevel: 'error',
      // Left out of a bundle for servers unless told otherwise.
      ssr: { noExternal: external ? undefined : true },
      build: { ssr: input, outDir: dirname(output), emptyOutDir: false, rolldownOptions: { output: { format, entryFileNames: basename(output) } } },
    })
  },
}

describe('bundled by', () => {
  let directory, project
  const addon = `wizer.${platform}.node`

  before(() => {
    install(tools)
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-bundlers-')))
    const packed = pack(directory)
    project = join(directory, 'project')
    mkdirSync(project)
    for (const [name, text] of Object.entries(SOURCES)) writeFileSync(join(project, name), text)
    run(project, 'npm', 'install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', packed.main.file, packed.platform.file)
  })

  after(() => directory && rmSync(directory, { recursive: true, force: true }))

  const tool = (file) => attempt(directory, [process.execPath, file, '(module (func (export "wizer.initialize")))'])
  const works = (file) => assert.deepEqual(tool(file), { status: 0, stdout: 'true\n', stderr: '' })

  for (const [name, bundle] of Object.entries(bundlers)) {
    for (const [format, extension] of Object.entries(FORMATS)) {
      for (const source of Object.keys(SOURCES)) {
        describe(`${name}, ${format}, ${source}`, () => {
          const input = () => join(project, source)
          const file = (folder) => join(folder, `${name}-${source.split('.')[0]}.${extension}`)

          it('inside of the bundle, with the packages installed', async () => {
            const output = file(join(project, 'dist'))
            await bundle({ input: input(), output, format })
            works(output)
          })

          it('inside of the bundle, without the packages: the message says so; with the addon beside, it works', () => {
            const alone = join(directory, `${name}-${format}-${source}`)
            mkdirSync(alone)
            const output = file(alone)
            copyFileSync(file(join(project, 'dist')), output)
            const { stdout, stderr } = tool(output)
            assert.equal(stdout, '')
            assert.ok(stderr.startsWith(`ERR_WIZER_PLATFORM wizer's native addon could not be loaded: ${NAME} seems to be bundled into ${output}`), stderr)
            assert.match(stderr, /Keep @jakechampion\/wizer out of the bundle/)

            copyFileSync(join(project, 'node_modules', `@jakechampion/wizer-${platform}`, addon), join(alone, addon))
            works(output)
          })

          it('left out of the bundle', async () => {
            const output = file(join(project, 'dist', 'external'))
            await bundle({ input: input(), output, format, external: true })
            assert.ok(existsSync(output))
            works(output)
          })
        })
      }
    }
  }

  it('a single executable, with the addon beside it', async (t) => {
    const versions = join(root, '__test__', 'node-versions')
    install(versions)
    // Node makes one by itself from 25.5 on.
    const node = join(versions, 'node_modules', `node-26-${process.platform}-${process.arch}`, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
    if (!existsSync(node) || platform.endsWith('-musl')) return t.skip(`no package of Node 26 for ${platform}`)

    const folder = join(directory, 'executable')
    mkdirSync(folder)
    await bundlers.esbuild({ input: join(project, 'require.cjs'), output: join(folder, 'bundle.cjs'), format: 'cjs' })
    const executable = process.platform === 'win32' ? 'tool.exe' : 'tool'
    writeFileSync(join(folder, 'sea.json'), JSON.stringify({ main: 'bundle.cjs', output: executable, disableExperimentalSEAWarning: true }))
    run(folder, node, '--build-sea', 'sea.json')
    const start = () => attempt(folder, [join(folder, executable), '(module (func (export "wizer.initialize")))'])
    const { stderr } = start()
    assert.ok(stderr.includes(`seems to be bundled into ${join(folder, executable)}`), stderr)
    copyFileSync(join(project, 'node_modules', `@jakechampion/wizer-${platform}`, addon), join(folder, addon))
    assert.deepEqual(start(), { status: 0, stdout: 'true\n', stderr: '' })
  })
})
