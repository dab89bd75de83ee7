// The packages as a release publishes them, packed; and how a user's commands are run.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join, resolve } from 'node:path'
import { builtFiles } from '../../scripts/build.mjs'
import { stage } from '../../scripts/release.mjs'
import { root } from '../../scripts/run.mjs'
import { serve } from './registry.mjs'

const { platformName, targets } = createRequire(import.meta.url)('../../platform.js')
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))

/** This platform's name. */
export const platform = platformName()

/** Neither the settings of the npm that runs these tests nor an addon chosen for them reach the user's directory. */
export const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|WIZER_)/i.test(name)))

/** Runs a program in a directory; gives back its exit status, and what it wrote. */
export function attempt(cwd, [command, ...args], more = {}) {
  // On Windows, npm and npx are scripts, which only a shell can start.
  const shell = process.platform === 'win32' && ['npm', 'npx'].includes(command)
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, env: { ...env, ...more }, encoding: 'utf8', shell })
  if (error) throw error
  return { status, stdout, stderr }
}

/** Runs a program that has to succeed; gives back its standard output. */
export function run(cwd, command, ...args) {
  return runWith({}, cwd, command, ...args)
}

/** The same, with further environment variables. */
export function runWith(more, cwd, command, ...args) {
  const { status, stdout, stderr } = attempt(cwd, [command, ...args], more)
  assert.equal(status, 0, `${basename(command)} ${args.join(' ')}\n${stdout}${stderr}`)
  return stdout
}

/** Packs the packages into a directory; gives back what npm says of each, with its path in `file`. */
export function pack(directory) {
  const built = builtFiles()
  assert.ok(existsSync(built.addon), `${built.addon} is not built: npm run build:test`)
  assert.ok(existsSync(built.program), `${built.program} is not built: npm run build:test`)
  stage(directory, { [platform]: built })
  const packed = ['main', platform, 'compat'].map((name) => {
    const [one] = JSON.parse(run(join(directory, name), 'npm', 'pack', '--json', '--pack-destination', '..'))
    return { ...one, file: resolve(directory, one.filename) }
  })
  return { main: packed[0], platform: packed[1], compat: packed[2] }
}

/**
 * A registry that has the packages as after a release: those packed into `directory`, and the manifests of the other
 * platforms, which nobody here needs more of. `further` packages are given as `{ manifest, file }`.
 * Gives back `ours` and `registry`, the addresses of it and of the one that npm is set up with, and `close()`.
 */
export async function release(directory, further = []) {
  const packed = pack(directory)
  const ours = [['main', packed.main], [platform, packed.platform], ['compat', packed.compat]]
  const others = Object.keys(targets).filter((name) => name !== platform)
  const { url, close } = await serve([
    ...ours.map(([name, { file }]) => ({ manifest: readJson(join(directory, name, 'package.json')), file })),
    ...others.map((name) => ({ manifest: readJson(join(root, 'npm', name, 'package.json')) })),
    ...further,
  ])
  const { stdout } = spawnSync('npm', ['config', 'get', 'registry'], { cwd: root, encoding: 'utf8', shell: process.platform === 'win32' })
  return { ours: url, registry: stdout.trim(), close }
}

/** What docs/replacing.md says to put into which manifest, so that a package manager takes ours for `@bytecodealliance/wizer`. */
export function override(manager) {
  const document = readFileSync(join(root, 'docs', 'replacing.md'), 'utf8').replaceAll('\r\n', '\n')
  return new RegExp(`^\`\`\`\\w+ manager=${manager}\\n([^]*?)^\`\`\``, 'm').exec(document)[1]
}
