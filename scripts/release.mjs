// Puts together and publishes what a release consists of. `.github/workflows/release.yml` runs it.
//
//   node scripts/release.mjs check <tag>                  whether the tag names the version in package.json
//   node scripts/release.mjs stage <addons> <directory>   the npm packages, ready to publish
//   node scripts/release.mjs publish <directory>          publishes them, the main package last

import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure, main, root, run } from './run.mjs'

const { targets } = createRequire(import.meta.url)('../platform.js')
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))
const MAIN = 'main'

/**
 * Copies the packages, as they are published, below `directory`: one for each given addon (an object
 * of platform names and paths), and the main package, which depends on the package of every platform.
 * The repository's own package.json has no such dependencies: they aren't published yet when a commit
 * is tested, and `npm ci` could not install them.
 */
export function stage(directory, addons) {
  for (const [platform, addon] of Object.entries(addons)) {
    const into = join(directory, platform)
    cpSync(join(root, 'npm', platform), into, { recursive: true })
    copyFileSync(join(root, 'LICENSE'), join(into, 'LICENSE'))
    copyFileSync(addon, join(into, readJson(join(into, 'package.json')).main))
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
  writeFileSync(join(directory, MAIN, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
}

function check(tag) {
  const { version } = readJson(join(root, 'package.json'))
  if (tag !== `v${version}`) throw new Failure(`the tag is ${tag}, but package.json has the version ${version}`)
}

function stageAll(from, directory) {
  const addons = Object.fromEntries(Object.keys(targets).map((platform) => [platform, join(from, `wizer.${platform}.node`)]))
  const missing = Object.values(addons).filter((addon) => !existsSync(addon))
  if (missing.length > 0) throw new Failure(`not built: ${missing.join(', ')}`)
  stage(directory, addons)
}

function publish(directory) {
  const packages = readdirSync(directory).filter((name) => name !== MAIN)
  for (const name of [...packages, MAIN]) {
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
