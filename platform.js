'use strict'

// Finds the native addon and the program for the machine this runs on, also where a bundler has moved this code into
// another file. The API is index.js.

const node = require('./lib/node.js')

const { closeSync, existsSync, openSync, readFileSync, readSync } = node.fs
const { dirname, isAbsolute, join, resolve } = node.path

const NAME = '@jakechampion/wizer'
const SOURCE = 'https://github.com/JakeChampion/wizer'

/** The platforms that have a package, by Node's names for them, each with its Rust target. */
const targets = {
  'linux-x64-gnu': 'x86_64-unknown-linux-gnu',
  'linux-x64-musl': 'x86_64-unknown-linux-musl',
  'linux-arm64-gnu': 'aarch64-unknown-linux-gnu',
  'linux-arm64-musl': 'aarch64-unknown-linux-musl',
  'linux-riscv64-gnu': 'riscv64gc-unknown-linux-gnu',
  'linux-s390x-gnu': 's390x-unknown-linux-gnu',
  'darwin-x64': 'x86_64-apple-darwin',
  'darwin-arm64': 'aarch64-apple-darwin',
  'win32-x64-msvc': 'x86_64-pc-windows-msvc',
  'win32-arm64-msvc': 'aarch64-pc-windows-msvc',
}

/**
 * Whether this Linux has musl instead of glibc, told by the dynamic loader that the running
 * executable names. `process.report` knows too, but it costs milliseconds and waits for every
 * worker thread to answer, so it is asked only when the executable does not say.
 */
function isMusl(executable = process.execPath) {
  const head = Buffer.alloc(4096)
  try {
    const file = openSync(executable, 'r')
    try {
      readSync(file, head, 0, head.length, 0)
    } finally {
      closeSync(file)
    }
  } catch {
    // Not readable: the report below decides.
  }
  const loader = /\/ld-(linux|musl)-/.exec(head.toString('latin1'))
  if (loader) return loader[1] === 'musl'

  // Without this, the report resolves the name of every open connection's peer.
  const { excludeNetwork } = process.report
  process.report.excludeNetwork = true
  try {
    return !process.report.getReport().header.glibcVersionRuntime
  } finally {
    process.report.excludeNetwork = excludeNetwork
  }
}

/** The file that this code is in. In a bundle that is an ES module, only the call stack knows. */
function thisFile() {
  if (typeof __filename === 'string') return __filename
  const { prepareStackTrace } = Error
  try {
    Error.prepareStackTrace = (_error, [site]) => site?.getFileName()
    const name = String(new Error().stack)
    const file = name.startsWith('file:') ? node.url.fileURLToPath(name) : name
    // Code that is in no file has only what is beside the executable.
    return isAbsolute(file) ? file : process.execPath
  } finally {
    Error.prepareStackTrace = prepareStackTrace
  }
}

/** Whether this code is in another file than that of its package. */
function isBundled(file) {
  try {
    return JSON.parse(readFileSync(join(dirname(file), 'package.json'), 'utf8')).name !== NAME
  } catch {
    return true
  }
}

/** The machine this runs on; tests pass others to the functions below. */
const here = {
  platform: process.platform,
  arch: process.arch,
  isMusl,
  env: process.env,
  file: thisFile(),
  isBundled,
  exists: existsSync,
  requireFrom: node.module.createRequire,
}

/** A file of the package, or nothing in a bundle. */
const fileOf = (name) => (here.isBundled(here.file) ? undefined : join(dirname(here.file), name))

/** The platform's name as it stands in the names of packages and files: `linux-x64-gnu`. */
function platformName({ platform, arch, isMusl } = here) {
  const abi = { linux: () => (isMusl() ? '-musl' : '-gnu'), win32: () => '-msvc' }[platform]
  return `${platform}-${arch}${abi ? abi() : ''}`
}

/** The program's file in the packages of a platform, given by Node's name or by ours. */
const programName = (platform) => (platform.startsWith('win32') ? 'wizer.exe' : 'wizer')

/** The addon beside this file: built there in a source checkout, or copied beside a bundle. */
const addonBeside = (host) => join(dirname(host.file), `wizer.${platformName(host)}.node`)

/**
 * Loads the native addon: the file that the environment variable `WIZER_BINDING` names, else the one beside this file,
 * else the one in this platform's package.
 * Throws an error with the code `ERR_WIZER_PLATFORM` when there is none that loads.
 */
function loadBinding(host = here) {
  if (host.env.WIZER_BINDING) {
    const named = resolve(host.env.WIZER_BINDING)
    return load(host, named, `the environment variable WIZER_BINDING names ${named}`)
  }

  const platform = platformName(host)
  const beside = addonBeside(host)
  if (host.exists(beside)) return load(host, beside, `${beside} was built for another system than ${platform}, or is damaged`)

  const addon = addonOfPackage(host)
  return load(host, addon, `the package ${NAME}-${platform} is installed, but does not load on this ${platform}`)
}

function load({ file, requireFrom }, addon, problem) {
  try {
    return requireFrom(file)(addon)
  } catch (cause) {
    throw platformError(problem, cause)
  }
}

/**
 * The path of a `wizer` that can be executed. It is the program in this platform's package: a script would need an
 * interpreter that the caller's environment need not have, nor Windows at all. Where `loadBinding` takes an addon
 * built from source, it is the launcher of that, but for Windows.
 */
function programPath(host = here) {
  const { platform, env, exists, file } = host
  const launcher = join(dirname(file), 'bin', 'wizer.js')
  const fromSource = env.WIZER_BINDING || exists(addonBeside(host))
  if (fromSource && platform !== 'win32' && exists(launcher)) return launcher

  const program = join(dirname(addonOfPackage(host)), programName(platform))
  // Electron gives files that it has unpacked by their path in the archive, where no program can be started.
  const unpacked = program.replace(/\.asar(?=[\\/])/, '.asar.unpacked')
  if (exists(unpacked)) return unpacked
  throw platformError(`the package ${NAME}-${platformName(host)} is installed without its program`, new Error(`there is no file ${program}`))
}

/** The addon in this platform's package. */
function addonOfPackage(host) {
  const { file, isBundled, requireFrom } = host
  const { resolve } = requireFrom(file)
  const name = `${NAME}-${platformName(host)}`
  try {
    return resolve(name)
  } catch (cause) {
    // Whichever resolver it is, and whatever it says (Yarn's has words of its own): nothing was found.
    if (!isBundled(file)) throw notFound(host, name, cause)
    try {
      // A bundle need not see what the package depends on. The package does, if it is installed.
      return requireFrom(resolve(`${NAME}/package.json`)).resolve(name)
    } catch {
      throw notFound(host, name, cause)
    }
  }
}

function notFound(host, name, cause) {
  const { file, isBundled } = host
  const platform = platformName(host)
  if (!(platform in targets)) {
    const known = Object.keys(targets).join(', ')
    return platformError(`there is no package for the platform ${platform} (looked for ${name}; there are: ${known})`, cause)
  }
  if (isBundled(file)) {
    return platformError(
      `${NAME} seems to be bundled into ${file}, from where the package ${name}, the native addon for ${platform}, is not found. ` +
        `Keep ${NAME} out of the bundle and install it: name it in \`external\` (esbuild, Rollup, Rolldown), ` +
        '`ssr.external` (Vite) or `externals` (webpack). ' +
        `Or copy wizer.${platform}.node from ${name} beside that file, or name the addon in the environment variable WIZER_BINDING. ` +
        `See ${SOURCE}/blob/main/docs/bundling.md`,
      cause,
    )
  }
  return platformError(
    `the package ${name}, the native addon for ${platform}, is not installed. ` +
      'It is an optional dependency: install again without leaving those out, ' +
      'and without a lock file that was made on another platform',
    cause,
  )
}

function platformError(what, cause) {
  const reason = String(cause.message).split('\n', 1)[0]
  const error = new Error(
    `wizer's native addon could not be loaded: ${what}.\n` +
      `  Reason: ${reason}\n` +
      '  To build it from source (needs Rust):\n' +
      `    git clone ${SOURCE} && cd wizer && npm ci && npm run build\n` +
      '  For the command line alone:\n' +
      `    cargo install --git ${SOURCE} --all-features`,
    { cause },
  )
  error.code = 'ERR_WIZER_PLATFORM'
  return error
}

module.exports = { fileOf, isMusl, loadBinding, platformName, programName, programPath, targets }
