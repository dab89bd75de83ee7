// The public types in an ES module, and uses that they must refuse. The common ones are in types.test-d.ts.
// `npm run lint` compiles it; nothing runs.

import byDefault, { Session, WizerError, snapshot, wizer, wizerSync } from '@jakechampion/wizer'
import * as everything from '@jakechampion/wizer'
import path from '@jakechampion/wizer/bin-path'
import type { Host, Imports, MemoryReport, Phase, Progress, Report, Snapshot, Wasm, WizerErrorCode, WizerOptions } from '@jakechampion/wizer'

/** Compiles where both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : never
const same = <A, B>(_: Same<A, B>) => {}

// ----- the names, and what they are -----

same<typeof byDefault, typeof wizer>(true)
same<typeof path, string>(true)
same<typeof everything.default, typeof wizer>(true)
same<keyof typeof everything, 'default' | 'Session' | 'WizerError' | 'snapshot' | 'wizer' | 'wizerSync'>(true)
same<Parameters<typeof wizer>, [wasm: Wasm, options?: WizerOptions | undefined]>(true)
same<Parameters<typeof wizerSync>, Parameters<typeof wizer>>(true)
same<Parameters<typeof snapshot>, Parameters<typeof wizer>>(true)
same<ReturnType<typeof wizer>, Promise<Snapshot['wasm']>>(true)
same<ReturnType<typeof wizerSync>, Snapshot['wasm']>(true)
same<ReturnType<typeof snapshot>, Promise<Snapshot>>(true)
same<Parameters<typeof Session.create>, Parameters<typeof wizer>>(true)
same<ReturnType<Session['snapshot']>, Promise<Snapshot['wasm']>>(true)
same<ReturnType<Session['snapshotWithReport']>, Promise<Snapshot>>(true)
// @ts-expect-error: `Session.create` makes them
export const own = new Session()
same<Wasm, Uint8Array | ArrayBuffer | string>(true)
same<Phase, 'parse' | 'instrument' | 'compile' | 'initialize' | 'snapshot' | 'rewrite' | 'validate'>(true)

export async function loaded(): Promise<Buffer> {
  const { wizer, default: same } = await import('@jakechampion/wizer')
  return (await same('(module)')) ?? wizer('(module)')
}

// ----- inputs and outputs -----

const bytes = new Uint8Array(8)
export const outputs: Promise<Buffer>[] = [wizer(bytes), wizer(Buffer.from(bytes)), wizer(bytes.buffer), wizer('(module)'), wizer(bytes.subarray(1), {})]
/** As `WebAssembly.compile` is declared. */
declare function compile(bytes: ArrayBufferView<ArrayBuffer> | ArrayBuffer): Promise<object>
export const usable: Promise<object> = wizer(bytes).then((output) => compile(output))

export async function tell(): Promise<string> {
  const { wasm, report, stdout, stderr }: Snapshot = await snapshot(bytes, { stdout: 'pipe' })
  const output: Buffer = wasm
  same<typeof stdout, Snapshot['wasm'] | undefined>(true)
  same<typeof stderr, Snapshot['wasm'] | undefined>(true)
  return describe(report) + output.toString('hex')
}

function describe(report: Report): string {
  const { engine, phases, inputBytes, outputBytes, codeShift, memories, hostCalls, baked, assumedGlobals, droppedSections, warnings } = report
  const numbers: number[] = [inputBytes, outputBytes, codeShift, baked.random, baked.clock, baked.environment]
  const lists: string[] = [...assumedGlobals, ...droppedSections, ...warnings]
  const memory = ({ index, pagesBefore, pagesAfter, segments, bytes }: MemoryReport): number => index + pagesBefore + pagesAfter + segments + bytes
  const phase: Phase | undefined = phases[0]?.phase
  return [engine.name, engine.reason, phase, phases[0]?.ms.toFixed(), numbers, lists, memories.map(memory), hostCalls.map(({ module, name, calls }) => module + name + calls)].join()
}

// ----- options -----

export const options: WizerOptions[] = [
  {},
  { stdin: 'inherit', stdout: 'inherit', stderr: 'inherit' },
  { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
  { stdin: bytes.buffer, stdout: 'pipe', stderr: 'pipe' },
  { engine: 'auto' },
  { engine: 'baseline' },
  { mapDirs: { a: { host: '.' }, b: '.', c: { host: '.', readonly: false } } },
  { preload: { a: bytes, b: bytes.buffer, c: '(module)' }, files: { a: bytes, b: bytes.buffer, c: '' } },
  { signal: AbortSignal.timeout(1000) },
  { onProgress() {} },
  { onProgress: (progress) => same<typeof progress, Progress>(true) },
  { imports: { env: { now: () => Date.now(), log(at: number, length: number) { console.log(at, length) } } } },
  { imports: (host) => (same<typeof host, Host>(true), { env: { f: () => host.memory('other').fill(0) } }) },
]

export const imports = (host: Host): Imports => ({
  env: {
    read(path: number, length: number): bigint {
      const view: Uint8Array = host.memory()
      const at: number = host.call('malloc', view[path + length])
      host.memory().set([1, 2, 3], at)
      return BigInt(at)
    },
  },
})

// ----- errors -----

export function explain(error: unknown): string {
  if (!(error instanceof WizerError)) throw error
  const code: WizerErrorCode = error.code
  same<typeof error.name, 'WizerError' | 'AbortError'>(true)
  same<typeof error.wasmBacktrace, string[] | undefined>(true)
  same<typeof error.stdout, Snapshot['wasm'] | undefined>(true)
  same<typeof error.stderr, Snapshot['wasm'] | undefined>(true)
  const { message, stack, cause }: Error = error
  // Every code has a meaning, and there are no others.
  const meanings: Record<WizerErrorCode, string> = {
    ERR_WIZER_INVALID_MODULE: '', ERR_WIZER_INVALID_TEXT: '', ERR_WIZER_COMPONENT: '', ERR_WIZER_INIT_FUNC_MISSING: '',
    ERR_WIZER_INIT_FUNC_TYPE: '', ERR_WIZER_TRAP: '', ERR_WIZER_EXIT: '', ERR_WIZER_IMPORT_MISSING: '', ERR_WIZER_IMPORT_TYPE: '',
    ERR_WIZER_IMPORT_FAILED: '', ERR_WIZER_HOST: '', ERR_WIZER_CALLBACK: '', ERR_WIZER_UNREPRESENTABLE_STATE: '',
    ERR_WIZER_OUTPUT_TOO_LARGE: '', ERR_WIZER_MEMORY_LIMIT: '', ERR_WIZER_TIMEOUT: '', ERR_WIZER_ABORTED: '', ERR_WIZER_OPTION: '', ERR_WIZER_OUT_OF_BOUNDS: '',
  ERR_WIZER_TOO_MANY_SEGMENTS: '',
    ERR_WIZER_DUPLICATE_RENAME: '', ERR_WIZER_IO: '', ERR_WIZER_UNSUPPORTED: '', ERR_WIZER_INTERNAL: '', ERR_WIZER_PLATFORM: '',
  }
  return meanings[code] + message + stack + cause
}

// ----- what is refused -----

export async function wrong(host: Host, error: WizerError): Promise<void> {
  // @ts-expect-error the module is missing
  await wizer()
  // @ts-expect-error a list of numbers is no module
  await wizer([0, 97, 115, 109])
  // @ts-expect-error a promise of a module is none
  await wizer(wizer(bytes))
  // @ts-expect-error a misspelt option
  await wizer(bytes, { initFunction: 'setup' })
  // @ts-expect-error a misspelt callback
  await wizer(bytes, { onprogress() {} })
  // @ts-expect-error a name, not a function
  await wizer(bytes, { initFunc: () => {} })
  // @ts-expect-error a boolean, not a text
  await wizer(bytes, { keepInitFunc: 'true' })
  // @ts-expect-error an object by new name
  await wizer(bytes, { renameFuncs: ['_start=wizer.resume'] })
  // @ts-expect-error a text for every variable
  await wizer(bytes, { env: { A: 1 } })
  // @ts-expect-error variables one by one
  await wizer(bytes, { env: process.env })
  // @ts-expect-error bytes, not text
  await wizer(bytes, { stdin: 'some input' })
  // @ts-expect-error there is no such place
  await wizer(bytes, { stdout: 'file' })
  // @ts-expect-error a list
  await wizer(bytes, { dirs: '.' })
  // @ts-expect-error the host's directory is missing
  await wizer(bytes, { mapDirs: { '/data': { readonly: true } } })
  // @ts-expect-error a misspelt property
  await wizer(bytes, { mapDirs: { '/data': { host: '.', readOnly: true } } })
  // @ts-expect-error a module, not a number
  await wizer(bytes, { preload: { lib: 5 } })
  await wizer(bytes, { imports: { env: { text: 'text', tag: new Date(), nothing: undefined } } })
  // @ts-expect-error two names, not one
  await wizer(bytes, { imports: { f() {} } })
  // @ts-expect-error imports are there at once
  await wizer(bytes, { imports: async () => ({}) })
  // @ts-expect-error an engine that there is not
  await wizer(bytes, { engine: 'fast' })
  // @ts-expect-error a number of milliseconds
  await wizer(bytes, { timeout: '1s' })
  // @ts-expect-error a number, not a BigInt
  await wizer(bytes, { maxMemory: 1n })
  // @ts-expect-error the signal, not its controller
  await wizer(bytes, { signal: new AbortController() })
  // @ts-expect-error the promise's value has no such property
  void (await wizer(bytes)).report
  // @ts-expect-error what runs at once gives no promise
  void wizerSync(bytes).then()
  // @ts-expect-error a memory is named, not numbered
  host.memory(0)
  // @ts-expect-error a slot is a number, and stands behind the table
  host.callIndirect(undefined, 'slot')
  // @ts-expect-error an error stays what it is
  error.code = 'ERR_WIZER_TRAP'
  // @ts-expect-error a code that there is not
  if (error.code === 'ERR_WIZER_NOTHING') throw error
  // @ts-expect-error only wizer makes its errors
  throw new WizerError('mine')
}
