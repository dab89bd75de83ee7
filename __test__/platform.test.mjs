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

const { isMusl, loadBinding, platformName, programName, programPath, targets } = createRequire(import.meta.url)('../platform.js')
const root = resolve(fileURLToPath(import.meta.url), '../..')
const readJson = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'))

/**
 * A machine on which the given files and packages are there, by the end of their path or name: each with what loading it
 * gives, or the error. Everything else is missing.
 */
function machine(platform, arch, { loads = {}, env = {}, musl = false, bundle, notFound = cannotFind } = {}) {
  const asked = []
  const find = (path) => Object.keys(loads).find((end) => path.endsWith(end))
  const requireFrom = (file) => {
    const load = (path) => {
      const found = loads[find(path)]
      if (!found || found instanceof Error) throw found ?? notFound(path)
      return found
    }
    load.resolve = (request) => {
      asked.push(bundle ? `${request} from ${file}` : request)
      const found = loads[`${request} from ${file}`] ?? (find(request) && request)
      if (found) return found
      throw notFound(request)
    }
    return load
  }
  const exists = (path) => {
    asked.push(path)
    return find(path) !== undefined
  }
  const file = bundle ?? join(root, 'platform.js')
  return { platform, arch, isMusl: () => musl, env, file, isBundled: () => Boolean(bundle), exists, requireFrom, asked }
}

const cannotFind = (request) => Object.assign(new Error(`Cannot find module '${request}'\nRequire stack:\n- here`), { code: 'MODULE_NOT_FOUND' })

const failure = (host, find = loadBinding) => {
  try {
    find(host)
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
  assert.deepEqual(host.asked, [])
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
    // A dependency of the addon's own that is missing is no missing addon.
    const { message: needs } = failure(machine('linux', 'x64', { loads: { [request]: cannotFind('something else') } }))
    assert.match(needs, /does not load on this|is damaged/)
    const { message, cause } = failure(machine('linux', 'x64', { loads: { [request]: broken } }))
    assert.ok(message.includes(request))
    assert.match(message, /Reason: version `GLIBC_2.17' not found/)
    assert.equal(cause, broken)
  }
})

test("a package that Yarn's Plug'n'Play does not find", () => {
  const notFound = (request) => Object.assign(new Error(`Your application tried to access ${request}, but …`), { code: 'MODULE_NOT_FOUND', pnpCode: 'UNDECLARED_DEPENDENCY' })
  const { message } = failure(machine('linux', 'x64', { notFound }))
  assert.match(message, /wizer-linux-x64-gnu, the native addon for linux-x64-gnu, is not installed/)
  assert.match(message, /Reason: Your application tried to access/)
})

const name = '@jakechampion/wizer-linux-x64-gnu'
const bundle = '/app/dist/bundle.mjs'

test('bundled: the addon beside the bundle, what the bundle sees, what the installed package sees', () => {
  const [beside, seen, through] = [{}, {}, {}]
  assert.equal(loadBinding(machine('linux', 'x64', { bundle, loads: { [join('/app/dist/wizer.linux-x64-gnu.node')]: beside, [name]: seen } })), beside)
  assert.equal(loadBinding(machine('linux', 'x64', { bundle, loads: { [name]: seen } })), seen)

  const installed = '/app/node_modules/@jakechampion/wizer/package.json'
  const addon = '/store/wizer.linux-x64-gnu.node'
  const host = machine('linux', 'x64', {
    bundle,
    loads: { [`@jakechampion/wizer/package.json from ${bundle}`]: installed, [`${name} from ${installed}`]: addon, [addon]: through },
  })
  assert.equal(loadBinding(host), through)
})

test('bundled, and found nowhere: the message says what to do', () => {
  const host = machine('linux', 'x64', { bundle })
  const { message, cause } = failure(host)
  assert.match(message, /seems to be bundled into \/app\/dist\/bundle\.mjs/)
  for (const part of ['`external`', 'esbuild', 'Rollup', '`ssr.external`', '`externals` (webpack)', 'wizer.linux-x64-gnu.node', 'WIZER_BINDING', 'docs/bundling.md']) {
    assert.ok(message.includes(part), part)
  }
  assert.doesNotMatch(message, /is not installed|damaged/)
  assert.match(cause.message, /Cannot find module '@jakechampion\/wizer-linux-x64-gnu'/)
  assert.match(failure(host, programPath).message, /seems to be bundled/)
})

test('the path of the program is in the package of the platform', () => {
  for (const [platform, arch, folder, program] of [
    ['linux', 'x64', 'wizer-linux-x64-gnu', 'wizer'],
    ['darwin', 'arm64', 'wizer-darwin-arm64', 'wizer'],
    ['win32', 'x64', 'wizer-win32-x64-msvc', 'wizer.exe'],
  ]) {
    const installed = `/node_modules/@jakechampion/${folder}`
    const addon = `@jakechampion/${folder} from ${join(root, 'platform.js')}`
    const path = join(installed, program)
    assert.equal(programPath(machine(platform, arch, { loads: { [addon]: `${installed}/wizer.node`, [path]: {} } })), path)

    const { message } = failure(machine(platform, arch, { loads: { [addon]: `${installed}/wizer.node` } }), programPath)
    assert.match(message, new RegExp(`@jakechampion/${folder} is installed without its program`))
    assert.ok(message.includes(`Reason: there is no file ${path}`), message)
    assert.match(failure(machine(platform, arch), programPath).message, /is not installed/)
  }
})

test('the path of the program is the unpacked one where Electron has an archive', () => {
  const inArchive = join('/app/app.asar/node_modules/@jakechampion/wizer-linux-x64-gnu')
  const unpacked = join(inArchive.replace('app.asar', 'app.asar.unpacked'), 'wizer')
  const loads = { [`${name} from ${join(root, 'platform.js')}`]: join(inArchive, 'wizer.node'), [join(inArchive, 'wizer')]: {}, [unpacked]: {} }
  assert.equal(programPath(machine('linux', 'x64', { loads })), unpacked)
})

test('the path of the program is the launcher where the addon was built from source, but on Windows', () => {
  const launcher = join(root, 'bin', 'wizer.js')
  const built = { loads: { [launcher]: {}, 'wizer.linux-x64-gnu.node': {}, 'wizer.win32-x64-msvc.node': {} } }
  assert.equal(programPath(machine('linux', 'x64', built)), launcher)
  assert.equal(programPath(machine('freebsd', 'x64', { loads: { [launcher]: {} }, env: { WIZER_BINDING: 'addon.node' } })), launcher)
  assert.match(failure(machine('win32', 'x64', { loads: { [launcher]: {} }, env: { WIZER_BINDING: 'addon.node' } }), programPath).message, /is not installed/)
})

test('require and import give the same path, of a program that runs', { skip: process.platform === 'win32' && 'nothing is built from source that Windows can start' }, async () => {
  const path = createRequire(import.meta.url)('@jakechampion/wizer/bin-path')
  assert.equal((await import('@jakechampion/wizer/bin-path')).default, path)
  const { status, stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' })
  assert.equal(status, 0)
  assert.equal(stdout.trim(), `wizer ${readJson('package.json').version}`)
})

test('the launcher is exported', () => {
  assert.equal(createRequire(import.meta.url).resolve('@jakechampion/wizer/bin/wizer.js'), join(root, 'bin', 'wizer.js'))
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
  assert.deepEqual(readdirSync(join(root, 'npm')).toSorted(), ['compat', ...Object.keys(targets)].toSorted())
  assert.equal(readJson('npm/compat/package.json').version, main.version)

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
      files: [`wizer.${name}.node`, programName(name)],
      // An addon or a program that is inside of an archive cannot be run.
      preferUnplugged: true,
      os: [os],
      cpu: [cpu],
      ...(os === 'linux' && { libc: [{ gnu: 'glibc', musl: 'musl' }[abi]] }),
      engines: main.engines,
      publishConfig: { access: 'public' },
    })
  }
})
