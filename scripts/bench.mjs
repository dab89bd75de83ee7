// Times a release build beside the npm package `@bytecodealliance/wizer`: `npm run bench`. Arguments go on
// to benches/bench.mjs, whose --help lists them.

import { join } from 'node:path'
import { build } from './build.mjs'
import { install, main, root, run } from './run.mjs'

main(() => {
  const args = process.argv.slice(2)
  if (!args.includes('--help') && !args.includes('-h')) build({ release: true })
  install(join(root, 'benches'))
  run(process.execPath, [join('benches', 'bench.mjs'), ...args])
})
