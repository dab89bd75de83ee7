// How the native addon is found, for machines other than this one too; and that the packages under
// npm/ are those that will be looked for.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const { isMusl, loadBinding, platformName, targets } = createRequire(import.meta.url)('../platform.js')
const root = resolve(fileURLToPath(import.meta.url), '../..')
const readJson = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'))

/** A machine on which the given requests load, by the end of their name; everything else is missing. */
function machine(platform, arch, { loads = {}, env = {}, musl = false } = {}) {
  const asked = []
  const load = (request) => {
    asked.push(request)
    const [, found] = Object.entries(loads).find(([end]) => request.endsWith(end)) ?? []
    if (found instanceof Error) throw found
    if (found) return found
    throw Object.assign(new Error(`Cannot find module '${request}'\nRequire stack:\n- here`), { code: 'MODULE_NOT_FOUND' })
  }
  return { platform, arch, isMusl: () => musl, env, load, asked }
}

const failure = (host) => {
  try {
    loadBinding(host)
  } catch (error) {
    assert.equal(error.code, 'ERR_WIZER_PLATFORM')
    assert.ok(error.cause instanceof Error)
    assert.match(error.message, /git clone https:\/\/\S+ && cd wizer && npm ci && npm run build/)
    assert.match(error.message, /cargo install .*--all-features/)
    assert.doesNotMatch(error.message, /Require stack/)
    return error
  }
  assert.fail('loaded')
}

test('names every platform as its package is named', () => {
  const cases = [
    ['linux', 'x64', false, 'linux-x64-gnu'],
    ['linux', 'x64', true, 'linux-x64-musl'],
    ['linux', 'arm64', false, 'linux-arm64-gnu'],
    ['linux', 'arm64', true, 'linux-arm64-musl'],
    ['linux', 'riscv64', false, 'linux-riscv64-gnu'],
    ['linux', 's390x', false, 'linux-s390x-gnu'],
    ['darwin', 'x64', false, 'darwin-x64'],
    ['darwin', 'arm64', false, 'darwin-arm64'],
    ['win32', 'x64', false, 'win32-x64-msvc'],
    ['win32', 'arm64', false, 'win32-arm64-msvc'],
  ]
  for (const [platform, arch, musl, name] of cases) {
    assert.equal(platformName(machine(platform, arch, { musl })), name)
  }
  assert.deepEqual(cases.map(([, , , name]) => name), Object.keys(targets))
})

test('asks which libc this is on Linux only', () => {
  const isMusl = () => assert.fail('asked')
  assert.equal(platformName({ platform: 'darwin', arch: 'arm64', isMusl }), 'darwin-arm64')
  assert.equal(platformName({ platform: 'win32', arch: 'x64', isMusl }), 'win32-x64-msvc')
})

test('tells musl from glibc by the loader that the executable names', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'wizer-test-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const executable = join(directory, 'node')
  for (const [loader, musl] of [['/lib64/ld-linux-x86-64.so.2', false], ['/lib/ld-musl-aarch64.so.1', true]]) {
    writeFileSync(executable, `\x7fELF…\0${loader}\0…`)
    assert.equal(isMusl(executable), musl, loader)
  }
})

test('asks the report when the executable does not tell', { skip: process.platform !== 'linux' }, () => {
  const before = process.report.excludeNetwork
  assert.equal(isMusl(join(root, 'package.json')), isMusl())
  assert.equal(isMusl(join(root, 'no such file')), isMusl())
  assert.equal(process.report.excludeNetwork, before)
})

test('prefers WIZER_BINDING, then an addon built here, then the package', () => {
  const built = { from: 'built' }
  const installed = { from: 'installed' }
  const named = { from: 'named' }
  const loads = { 'named.node': named, 'wizer.linux-x64-gnu.node': built, '@jakechampion/wizer-linux-x64-gnu': installed }

  assert.equal(loadBinding(machine('linux', 'x64', { loads, env: { WIZER_BINDING: 'named.node' } })), named)
  assert.equal(loadBinding(machine('linux', 'x64', { loads })), built)

  delete loads['wizer.linux-x64-gnu.node']
  const host = machine('linux', 'x64', { loads })
  assert.equal(loadBinding(host), installed)
  assert.deepEqual(host.asked, [join(root, 'wizer.linux-x64-gnu.node'), '@jakechampion/wizer-linux-x64-gnu'])
})

test('WIZER_BINDING is a path from the working directory, and nothing is tried after it', () => {
  const host = machine('linux', 'x64', { env: { WIZER_BINDING: 'some/addon.node' } })
  assert.match(failure(host).message, /WIZER_BINDING names .*addon\.node/)
  assert.deepEqual(host.asked, [resolve('some/addon.node')])
})

test('a platform without a package', () => {
  const { message, cause } = failure(machine('freebsd', 'x64'))
  assert.match(message, /no package for the platform freebsd-x64/)
  assert.match(message, /looked for @jakechampion\/wizer-freebsd-x64/)
  assert.match(message, /there are: linux-x64-gnu, .*win32-arm64-msvc/)
  assert.match(cause.message, /Cannot find module '@jakechampion\/wizer-freebsd-x64'/)
})

test('an addon built from source serves a platform without a package', () => {
  const built = {}
  assert.equal(loadBinding(machine('freebsd', 'x64', { loads: { 'wizer.freebsd-x64.node': built } })), built)
})

test('a package that is not installed', () => {
  const { message } = failure(machine('linux', 'arm64', { musl: true }))
  assert.match(message, /@jakechampion\/wizer-linux-arm64-musl, the native addon for linux-arm64-musl, is not installed/)
  assert.match(message, /optional dependency/)
})

test('a package, or an addon built here, that does not load', () => {
  const broken = Object.assign(new Error("version `GLIBC_2.17' not found"), { code: 'ERR_DLOPEN_FAILED' })
  for (const request of ['@jakechampion/wizer-linux-x64-gnu', 'wizer.linux-x64-gnu.node']) {
    const { message, cause } = failure(machine('linux', 'x64', { loads: { [request]: broken } }))
    assert.ok(message.includes(request))
    assert.match(message, /Reason: version `GLIBC_2.17' not found/)
    assert.equal(cause, broken)
  }
})

test('the launcher shows the message alone and ends with status 1', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'bin/wizer.js'), '--version'], {
    encoding: 'utf8',
    env: { ...process.env, WIZER_BINDING: join(root, 'no such file.node') },
  })
  assert.equal(status, 1)
  assert.equal(stdout, '')
  assert.match(stderr, /^Error: wizer's native addon could not be loaded: /)
  assert.doesNotMatch(stderr, /\n {4}at /)
})

test('package.json, Cargo.toml and npm/ name the same version and platforms', () => {
  const main = readJson('package.json')
  assert.equal(/^version = "(.*)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))[1], main.version)
  assert.deepEqual(main.napi.targets.toSorted(), Object.values(targets).toSorted())
  assert.deepEqual(readdirSync(join(root, 'npm')).toSorted(), Object.keys(targets).toSorted())

  for (const name of Object.keys(targets)) {
    const [os, cpu, abi] = name.split('-')
    const { description, ...manifest } = readJson(`npm/${name}/package.json`)
    assert.ok(description.length > 0)
    assert.deepEqual(manifest, {
      name: `@jakechampion/wizer-${name}`,
      version: main.version,
      license: main.license,
      repository: { ...main.repository, directory: `npm/${name}` },
      main: `wizer.${name}.node`,
      files: [`wizer.${name}.node`],
      os: [os],
      cpu: [cpu],
      ...(os === 'linux' && { libc: [{ gnu: 'glibc', musl: 'musl' }[abi]] }),
      engines: main.engines,
      publishConfig: { access: 'public' },
    })
  }
})
