// Builds the examples' .wasm files from their sources.
//
//   node examples/build.mjs            every example whose toolchain is installed
//   node examples/build.mjs c rust     these; a toolchain that is missing is an error
//
// The built files are kept beside the sources, so this is only needed after a change to a source.

import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))

/** An error whose message says everything. */
class Failure extends Error {}

function spawn(command, args, options) {
  return spawnSync(command, args, { encoding: 'utf8', ...options })
}

function run(command, args, { cwd = here, env = {} } = {}) {
  const { error, status, stdout, stderr } = spawn(command, args, { cwd, env: { ...process.env, ...env } })
  if (status !== 0) {
    throw new Failure(`${[command, ...args].join(' ')}\n${error?.message ?? ''}${stdout ?? ''}${stderr ?? ''}`)
  }
}

/** Whether a command succeeds; `{out}` in its arguments stands for a file that it may write. */
function succeeds(command, args, { input = '', env = {} } = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'wizer-examples-'))
  try {
    const out = join(directory, 'probe')
    const filled = args.map((arg) => arg.replace('{out}', out))
    return spawn(command, filled, { cwd: directory, input, env: { ...process.env, ...env } }).status === 0
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Finds out once, and only when asked. */
function once(find) {
  let found
  return () => (found ??= { value: find() }).value
}

// ----- toolchains: each gives the means to build, or undefined where it isn't installed -----

/** A package's program, as installed for the AssemblyScript example. */
function npmProgram(name, program) {
  const require = createRequire(join(here, 'assemblyscript', 'package.json'))
  // Not `require.resolve`: a package need not export its package.json.
  const directory = require.resolve.paths(name).map((path) => join(path, name)).find(existsSync)
  return directory && join(directory, 'bin', program)
}

const assemblyscript = once(() => npmProgram('assemblyscript', 'asc.js'))

const textAssembler = once(() => {
  if (succeeds('wasm-tools', ['--version'])) return { command: 'wasm-tools', args: ['parse'] }
  if (succeeds('wat2wasm', ['--version'])) return { command: 'wat2wasm', args: [] }
  // Binaryen comes with AssemblyScript.
  const script = npmProgram('binaryen', 'wasm-as')
  return script && { command: process.execPath, args: [script] }
})

/** A compiler for C and C++: its command for each language, and the names that it gives the targets. */
const c = once(() => {
  const sdk = process.env.WASI_SDK_PATH
  return (sdk && clang(join(sdk, 'bin', 'clang'))) || zig('zig') || zig('python3', '-m', 'ziglang') || zig('python', '-m', 'ziglang') || clang('clang')
})

// Zig brings the libraries along.
function zig(...zig) {
  if (!succeeds(zig[0], [...zig.slice(1), 'version'])) return
  return { c: [...zig, 'cc'], cpp: [...zig, 'c++'], wasi: '--target=wasm32-wasi', bare: '--target=wasm32-freestanding' }
}

// Most clangs have neither a libc nor a C++ library for WebAssembly; and wizer.h asks for clang 15.
function clang(clang) {
  const source = '#include <string>\n#if __clang_major__ < 15\n#error\n#endif\nint main(int n, char **) { return std::string(n, 32).size(); }'
  const probe = ['--target=wasm32-wasi', '-fno-exceptions', '-x', 'c++', '-', '-o', '{out}']
  if (!succeeds(`${clang}++`, probe, { input: source })) return
  return { c: [clang], cpp: [`${clang}++`], wasi: '--target=wasm32-wasi', bare: '--target=wasm32' }
}

/** Cargo with a WASI target. A distribution's Rust may lie behind another one in PATH. */
const cargo = once(() => {
  const rusts = [
    { command: 'cargo', rustc: 'rustc' },
    { command: '/usr/bin/cargo', rustc: '/usr/bin/rustc' },
  ]
  for (const { command, rustc } of rusts) {
    // Named wasm32-wasi until Rust 1.78.
    for (const target of ['wasm32-wasip1', 'wasm32-wasi']) {
      const probe = ['--target', target, '-o', '{out}', '-']
      if (succeeds(rustc, probe, { input: 'fn main() {}' })) return { command, rustc, target }
    }
  }
})

// ----- the examples -----

function compile(command, args) {
  run(command[0], [...command.slice(1), ...args])
}

const warnings = ['-Wall', '-Wextra']
const cppFlags = ['-Os', '-s', '-std=c++17', '-fno-exceptions', '-fno-rtti', ...warnings]

/** For each example: what it needs, how to get that, and for each file that is built, how. */
export const examples = {
  wat: {
    toolchain: textAssembler,
    missing: 'wat2wasm (apt-get install wabt), wasm-tools (cargo install wasm-tools), or wasm-as, which comes with AssemblyScript (npm ci --prefix examples/assemblyscript)',
    files: {
      'wat/formula.wasm': ({ command, args }, out) => run(command, [...args, 'wat/formula.wat', '-o', out]),
    },
  },
  c: {
    toolchain: c,
    missing: 'Zig (pip install ziglang), or clang 15 with a C++ library for WASI (WASI_SDK_PATH names a wasi-sdk)',
    files: {
      'c/router.wasm': ({ c, wasi }, out) =>
        compile(c, [wasi, '-Os', '-s', '-std=c99', ...warnings, 'c/router.c', '-o', out]),
      'c/crc32.wasm': ({ c, bare }, out) =>
        compile(c, [bare, '-nostdlib', '-Wl,--no-entry', '-O2', '-s', '-std=c99', ...warnings, 'c/crc32.c', '-o', out]),
    },
  },
  cpp: {
    toolchain: c,
    missing: 'Zig (pip install ziglang), or clang 15 with a C++ library for WASI (WASI_SDK_PATH names a wasi-sdk)',
    files: {
      'cpp/command.wasm': ({ cpp, wasi }, out) =>
        compile(cpp, [wasi, ...cppFlags, 'cpp/language.cpp', ...languages(), 'cpp/command.cpp', '-o', out]),
      'cpp/reactor.wasm': ({ cpp, wasi }, out) =>
        compile(cpp, [wasi, '-mexec-model=reactor', ...cppFlags, 'cpp/language.cpp', ...languages(), 'cpp/reactor.cpp', '-o', out]),
    },
  },
  rust: {
    toolchain: cargo,
    missing: "Rust's standard library for WASI (rustup target add wasm32-wasip1; on Debian, apt-get install libstd-rust-dev-wasm32 lld)",
    files: {
      'rust/search.wasm': ({ command, rustc, target }, out) => {
        const directory = join(here, 'rust', 'target')
        const args = ['build', '--release', '--locked', '--offline', '--target', target, '--target-dir', directory]
        run(command, args, { cwd: join(here, 'rust'), env: { RUSTC: rustc } })
        copyFileSync(join(directory, target, 'release', 'search.wasm'), out)
      },
    },
  },
  assemblyscript: {
    toolchain: assemblyscript,
    missing: 'AssemblyScript (npm ci --prefix examples/assemblyscript)',
    files: {
      'assemblyscript/colors.wasm': (script, out) =>
        run(process.execPath, [script, 'assemblyscript/colors.ts', '-O', '--exportStart', 'initialize', '--use', 'abort=', '-o', out]),
    },
  },
}

function languages() {
  return readdirSync(join(here, 'cpp', 'languages')).map((name) => `cpp/languages/${name}`).sort()
}

/** Builds the files of one example; `place` says where each goes. */
export function build(name, place = (file) => join(here, file)) {
  const { toolchain, missing, files } = examples[name]
  const tools = toolchain()
  if (tools === undefined) throw new Failure(`needs ${missing}`)
  for (const [file, make] of Object.entries(files)) {
    const out = place(file)
    make(tools, out)
    // Some linkers mark their output as a program, which a module is not.
    chmodSync(out, 0o644)
  }
}

function main(names) {
  const unknown = names.filter((name) => !Object.hasOwn(examples, name))
  if (unknown.length > 0) {
    console.error(`no such example: ${unknown.join(', ')} (there are ${Object.keys(examples).join(', ')})`)
    return 1
  }
  let failed = false
  for (const [name, { toolchain, missing, files }] of Object.entries(examples)) {
    if (names.length > 0 && !names.includes(name)) continue
    if (names.length === 0 && toolchain() === undefined) {
      console.log(`${name}: not built: needs ${missing}`)
      continue
    }
    try {
      build(name)
      console.log(`${name}: ${Object.keys(files).join(', ')}`)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      console.error(`${name}: ${error.message}`)
      failed = true
    }
  }
  return failed ? 1 : 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = main(process.argv.slice(2))
