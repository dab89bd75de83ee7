// Puts together and publishes what a release consists of. `.github/workflows/release.yml` runs it.
//
//   node scripts/release.mjs check <tag>                  whether the tag names the version in package.json
//   node scripts/release.mjs stage <built> <directory>    the npm packages, ready to publish
//   node scripts/release.mjs publish <directory>          publishes them, each after what it depends on

import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { builtFiles } from './build.mjs'
import { Failure, main, root, run } from './run.mjs'

const { programName, targets } = createRequire(import.meta.url)('../platform.js')
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))
const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
const MAIN = 'main'
const COMPAT = 'compat'

/**
 * Copies the packages, as they are published, below `directory`: one for each platform in `built` (an object
 * of platform names and `{ addon, program }`, two paths), the main package, which depends on the package of every
 * platform, and the one that stands in for another package. The repository's own manifests have no such dependencies:
 * they aren't published yet when a commit is tested, and `npm ci` could not install them.
 */
export function stage(directory, built) {
  for (const [platform, { addon, program }] of Object.entries(built)) {
    const into = stageFolder(directory, platform)
    copyFileSync(addon, join(into, readJson(join(into, 'package.json')).main))
    const to = join(into, programName(platform))
    copyFileSync(program, to)
    // Artifacts of a workflow have lost it.
    chmodSync(to, 0o755)
  }

  const [{ files }] = JSON.parse(run('npm', ['pack', '--dry-run', '--json'], { capture: true }))
  for (const { path } of files) {
    const to = join(directory, MAIN, path)
    mkdirSync(dirname(to), { recursive: true })
    copyFileSync(join(root, path), to)
  }
  const manifest = readJson(join(root, 'package.json'))
  manifest.optionalDependencies = Object.fromEntries(
    Object.keys(targets).map((platform) => [`${manifest.name}-${platform}`, manifest.version]),
  )
  writeJson(join(directory, MAIN, 'package.json'), manifest)

  const compat = join(stageFolder(directory, COMPAT), 'package.json')
  writeJson(compat, { ...readJson(compat), dependencies: { [manifest.name]: manifest.version } })
}

/** Copies a folder of npm/, and gives back where it is now. */
function stageFolder(directory, name) {
  const into = join(directory, name)
  cpSync(join(root, 'npm', name), into, { recursive: true })
  copyFileSync(join(root, 'LICENSE'), join(into, 'LICENSE'))
  return into
}

function check(tag) {
  const { version } = readJson(join(root, 'package.json'))
  if (tag !== `v${version}`) throw new Failure(`the tag is ${tag}, but package.json has the version ${version}`)
}

function stageAll(from, directory) {
  const built = Object.fromEntries(Object.keys(targets).map((platform) => [platform, builtFiles(platform, from)]))
  const missing = Object.values(built).flatMap(Object.values).filter((file) => !existsSync(file))
  if (missing.length > 0) throw new Failure(`not built: ${missing.join(', ')}`)
  stage(directory, built)
}

function publish(directory) {
  // What others depend on comes first.
  const last = [MAIN, COMPAT]
  for (const name of [...readdirSync(directory).filter((name) => !last.includes(name)), ...last]) {
    const cwd = join(directory, name)
    const manifest = readJson(join(cwd, 'package.json'))
    // So that a release that stopped half-way can be run again.
    if (isPublished(manifest)) {
      console.log(`${manifest.name} ${manifest.version} is published already`)
      continue
    }
    const tag = manifest.version.includes('-') ? 'next' : 'latest'
    run('npm', ['publish', '--provenance', '--tag', tag], { cwd })
  }
}

function isPublished({ name, version }) {
  try {
    return run('npm', ['view', `${name}@${version}`, 'version'], { capture: true }).trim() === version
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(() => {
    const [command, ...args] = process.argv.slice(2)
    const commands = { check, stage: stageAll, publish }
    if (!(command in commands)) throw new Failure(`one of these is needed: ${Object.keys(commands).join(', ')}`)
    commands[command](...args)
  })
}
