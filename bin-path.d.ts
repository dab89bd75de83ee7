/**
 * The path of a `wizer` that can be started as it is, on every platform and with any environment, by `child_process`
 * for example. It takes the arguments of the command line.
 *
 * Loading it throws an `Error` with the code `ERR_WIZER_PLATFORM` where the platform's package is not installed.
 *
 * @example
 * import { execFileSync } from 'node:child_process'
 * import wizer from '@jakechampion/wizer/bin-path'
 *
 * execFileSync(wizer, ['app.wasm', '-o', 'app.initialized.wasm'], { stdio: 'inherit' })
 */
declare const wizer: string

export = wizer
