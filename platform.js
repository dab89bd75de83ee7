'use strict'

// Finds and loads the native addon for the machine this runs on. The API is index.js.

const { closeSync, openSync, readSync } = require('node:fs')
const { join, resolve } = require('node:path')

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

/** The machine this runs on; tests pass others to the functions below. */
const here = { platform: process.platform, arch: process.arch, isMusl, env: process.env, load: require }

/** The platform's name as it stands in the names of packages and files: `linux-x64-gnu`. */
function platformName({ platform, arch, isMusl } = here) {
  const abi = { linux: () => (isMusl() ? '-musl' : '-gnu'), win32: () => '-msvc' }[platform]
  return `${platform}-${arch}${abi ? abi() : ''}`
}

/**
 * Loads the native addon: the file that the environment variable `WIZER_BINDING` names, else one
 * built in this directory (a source checkout), else the one in this platform's package.
 * Throws an error with the code `ERR_WIZER_PLATFORM` when there is none that loads.
 */
function loadBinding(host = here) {
  const { env, load } = host
  if (env.WIZER_BINDING) {
    const file = resolve(env.WIZER_BINDING)
    try {
      return load(file)
    } catch (cause) {
      throw platformError(`the environment variable WIZER_BINDING names ${file}`, cause)
    }
  }

  const platform = platformName(host)
  const built = join(__dirname, `wizer.${platform}.node`)
  try {
    return load(built)
  } catch (cause) {
    if (!isMissing(cause, built)) throw platformError(`${built} was built for another system than ${platform}, or is damaged`, cause)
  }

  const name = `@jakechampion/wizer-${platform}`
  try {
    return load(name)
  } catch (cause) {
    if (!(platform in targets)) {
      const known = Object.keys(targets).join(', ')
      throw platformError(`there is no package for the platform ${platform} (looked for ${name}; there are: ${known})`, cause)
    }
    if (!isMissing(cause, name)) throw platformError(`the package ${name} is installed, but does not load on this ${platform}`, cause)
    throw platformError(
      `the package ${name}, the native addon for ${platform}, is not installed. ` +
        'It is an optional dependency: install again without leaving those out, ' +
        'and without a lock file that was made on another platform',
      cause,
    )
  }
}

/** Whether it is `request` itself that does not exist, not something that it needs. */
function isMissing(error, request) {
  return error.code === 'MODULE_NOT_FOUND' && error.message.includes(`'${request}'`)
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

module.exports = { isMusl, loadBinding, platformName, targets }
