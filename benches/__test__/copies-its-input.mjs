// A wizer that initializes nothing: the checks must not let its output pass.
import { copyFileSync } from 'node:fs'

const args = process.argv.slice(2)
const output = args.find((arg) => arg.startsWith('-o=')).slice('-o='.length)
copyFileSync(args.at(-1), output)
