// Packages that start the program of `@bytecodealliance/wizer`, with ours put in its place as the documents say.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { expectedBody, helloScript } from '../../benches/lib/inputs.mjs'
import { runInV8 } from '../../benches/lib/v8-judge.mjs'
import { root } from '../../scripts/run.mjs'
import { attempt, override, platform, release, run } from '../helpers/packages.mjs'

const { programName } = createRequire(import.meta.url)('../../platform.js')
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))
const PEER = '@bytecodealliance/wizer'

describe('in the place of @bytecodealliance/wizer', () => {
  let directory, app, where, program

  before(async () => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'wizer-clients-')))
    where = await release(directory)
    app = join(directory, 'app')
    mkdirSync(app)

    // The lock file, which cannot know ours, has an empty package in this place. (preview2-shim is there because
    // componentize-js uses it without naming it in its dependencies.)
    const clients = join(root, '__test__', 'clients')
    const lock = readJson(join(clients, 'package-lock.json'))
    delete lock.packages[`node_modules/${PEER}`]
    writeFileSync(join(app, 'package-lock.json'), JSON.stringify(lock))
    writeFileSync(join(app, 'package.json'), JSON.stringify({ ...readJson(join(clients, 'package.json')), ...JSON.parse(override('npm')) }))
    writeFileSync(join(app, '.npmrc'), `registry=${where.registry}\n@jakechampion:registry=${where.ours}\n`)
    run(app, 'npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund')
    program = join(app, 'node_modules', `@jakechampion/wizer-${platform}`, programName(platform))
  })

  after(async () => {
    await where?.close()
    if (directory) rmSync(directory, { recursive: true, force: true })
  })

  const node = (...args) => attempt(app, [process.execPath, ...args])

  /** Without our program, the same fails: so it was that which ran. */
  function withoutProgram(work) {
    renameSync(program, `${program}.away`)
    try {
      work()
    } finally {
      renameSync(`${program}.away`, program)
    }
  }

  it('no other wizer is installed', () => {
    assert.equal(readJson(join(app, 'node_modules', PEER, 'package.json')).name, '@jakechampion/wizer-compat')
    const others = readdirSync(join(app, 'node_modules', '@bytecodealliance')).filter((name) => name.startsWith('wizer-'))
    assert.deepEqual(others, [])
    writeFileSync(join(app, 'path.mjs'), `import wizer from '${PEER}'\nconsole.log(wizer)`)
    assert.equal(node('path.mjs').stdout.trim(), program)
    assert.match(node(join('node_modules', PEER, 'bin', 'wizer.js'), '--version').stdout, /^wizer \d/)
  })

  it('@fastly/js-compute', () => {
    const script = helloScript()
    writeFileSync(join(app, script.name), script.source)
    const build = () => node('node_modules/@fastly/js-compute/dist/cli/js-compute-runtime-cli.js', script.name, 'hello.wasm')
    const { status, stdout, stderr } = build()
    assert.equal(status, 0, `${stdout}${stderr}`)

    const stdin = join(app, 'stdin')
    writeFileSync(stdin, '')
    const { response, exports, error } = runInV8({ wasm: join(app, 'hello.wasm'), calls: ['_start'], stdin, directory: app, hostPrefix: 'fastly_' })
    assert.equal(response?.body, expectedBody(script), error)
    assert.ok(!exports.includes('wizer.initialize'))

    rmSync(join(app, 'hello.wasm'))
    withoutProgram(() => assert.match(build().stderr, /installed without its program/))
    assert.ok(!existsSync(join(app, 'hello.wasm')))
  })

  it('@bytecodealliance/componentize-js', async () => {
    writeFileSync(
      join(app, 'componentize.mjs'),
      `import { mkdirSync, writeFileSync } from 'node:fs'
      import { dirname, join } from 'node:path'
      import { componentize } from '@bytecodealliance/componentize-js'
      import { transpile } from '@bytecodealliance/jco'

      const { component } = await componentize(
        "const made = ['when', 'it', 'was', 'built'].join(' '); export const greet = (name) => name + ': ' + made",
        {
          witWorld: 'package local:greeting; world greeting { export greet: func(name: string) -> string; }',
          disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
        },
      )
      const { files } = await transpile(component, { name: 'greeting' })
      for (const [name, bytes] of Object.entries(files)) {
        const file = join('component', name)
        mkdirSync(dirname(file), { recursive: true })
        writeFileSync(file, bytes)
      }`,
    )
    const build = () => node('componentize.mjs')
    const { status, stdout, stderr } = build()
    assert.equal(status, 0, `${stdout}${stderr}`)
    writeFileSync(join(app, 'component', 'package.json'), '{ "type": "module" }')
    const { greet } = await import(pathToFileURL(join(app, 'component', 'greeting.js')))
    assert.equal(greet('hello'), 'hello: when it was built')

    withoutProgram(() => assert.match(build().stderr, /installed without its program/))
  })
})
