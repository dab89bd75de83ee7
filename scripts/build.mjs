// Builds the native addon and puts it where platform.js looks for it: `wizer.<platform>.node`. The program goes into
// `programs/<platform>/`.
//
//   node scripts/build.mjs                      the addon as the tests use it
//   node scripts/build.mjs --release            the addon as it is published
//   node scripts/build.mjs --release --program  the program `wizer`, without the addon
//   … --target <Rust target>                    for another machine
//   … --target <Rust target> --zig              the same, with cargo-zigbuild as C compiler and linker
//   … --target <Rust target> --glibc <version>  the same, for this or a newer glibc
//
// `napi build` is not used: types and loader are written by hand here, so that all it would do is
// the one `cargo build` and the one copy below.

import { copyFileSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Failure, main, root, run } from './run.mjs'

const { platformName, programName, targets } = createRequire(import.meta.url)('../platform.js')

/** What a published addon may weigh, in bytes. */
const LIMIT = 20_000_000

/** Builds what the options ask for, and gives back the path of the file. */
export function build({ release = false, program = false, target, glibc, zig = Boolean(glibc) } = {}) {
  const platform = target ? Object.keys(targets).find((name) => targets[name] === target) : platformName()
  if (!platform) throw new Failure(`no platform in platform.js has the target ${target}`)

  const args = [zig ? 'zigbuild' : 'build', '--locked', '--message-format=json-render-diagnostics']
  args.push(...(program ? ['--bin', 'wizer'] : ['--lib']))
  // What is built for tests takes exactly what `cargo test --all-features` compiles, so that both share it.
  args.push(...(release ? ['--features', program ? 'cli' : 'napi'] : ['--all-features']))
  if (release) args.push('--release')
  if (target) args.push('--target', glibc ? `${target}.${glibc}` : target)
  // A shared library can't bring its own libc, which is what Rust's musl targets do if not told otherwise.
  const env = platform.endsWith('-musl') && !program ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {}

  console.log(`$ cargo ${args.join(' ')}`)
  const messages = run('cargo', args, { env, capture: true })
  const built = artifact(messages, program ? 'bin' : 'cdylib')
  const file = builtFiles(platform)[program ? 'program' : 'addon']
  place(built, file)
  const { size } = statSync(file)
  console.log(`${basename(file)}: ${(size / 1e6).toFixed(1)} MB (${release ? 'release' : 'for tests'})`)
  if (release && !program && size >= LIMIT) throw new Failure(`${basename(file)} has ${size} bytes; it must stay under ${LIMIT}`)
  return file
}

/** Where the addon and the program for a platform are, once they are built. */
export function builtFiles(platform = platformName(), directory = root) {
  return {
    addon: join(directory, `wizer.${platform}.node`),
    program: join(directory, 'programs', platform, programName(platform)),
  }
}

/** The file that cargo made of our own crate, from its messages: one JSON object a line. */
function artifact(messages, kind) {
  const ours = messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .find(({ reason, target }) => reason === 'compiler-artifact' && target.name === 'wizer' && target.kind.includes(kind))
  const file = ours?.executable ?? ours?.filenames.find((name) => /\.(so|dylib|dll)$/.test(name))
  if (!file) throw new Failure(`cargo made no ${kind} of the crate wizer`)
  return file
}

/** Copies by way of a rename: a process that has the old file loaded keeps it. */
function place(from, to) {
  const partial = `${to}.${process.pid}`
  mkdirSync(dirname(to), { recursive: true })
  try {
    copyFileSync(from, partial)
    renameSync(partial, to)
  } finally {
    rmSync(partial, { force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(() => {
    const { values } = parseArgs({
      options: {
        release: { type: 'boolean' },
        program: { type: 'boolean' },
        target: { type: 'string' },
        zig: { type: 'boolean' },
        glibc: { type: 'string' },
      },
    })
    const file = build(values)
    if (values.program) console.log(file)
  })
}
