// Initializes modules of real packages and compares the outputs with the originals: `npm run compat`. Arguments go on to
// benches/compat/compat.mjs, whose --help lists them; with --prebuilt, the addon that is there is taken.

import { join } from 'node:path'
import { build } from './build.mjs'
import { install, main, root, run } from './run.mjs'

main(() => {
  const args = process.argv.slice(2)
  const given = args.filter((arg) => arg !== '--prebuilt')
  if (!args.some((arg) => ['--prebuilt', '--help', '-h'].includes(arg))) build({ release: true })
  install(join(root, 'benches'))
  run(process.execPath, [join('benches', 'compat', 'compat.mjs'), ...given])
})
