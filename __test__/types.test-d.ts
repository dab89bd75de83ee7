// The public types, used as a user would. `npm run lint` compiles it; nothing runs.

import wizer, { Session, WizerError, snapshot, wizer as named, wizerSync } from '@jakechampion/wizer'
import type { Host, Imports, MemoryReport, Phase, Progress, Report, SessionMemory, Snapshot, Wasm, WizerErrorCode, WizerOptions } from '@jakechampion/wizer'

const everything: Required<WizerOptions> = {
  initFunc: 'wizer.initialize',
  keepInitFunc: 'empty',
  invoke: ['load(1, 2.5)'],
  renameFuncs: { _start: 'wizer.resume' },
  allowWasi: true,
  allowExit: true,
  stubs: { 'env.*': 0, 'env.f': 1n, 'env.abort': 'trap' },
  inheritStdio: true,
  inheritEnv: false,
  env: { A: '1' },
  args: ['program'],
  stdin: new Uint8Array(1),
  stdout: 'pipe',
  stderr: 'ignore',
  dirs: ['.'],
  mapDirs: { '/a': './a', '/b': { host: './b', readonly: true } },
  files: { '/etc/config': 'text', b: new Uint8Array(1) },
  preload: { lib: '(module)' },
  allowPreloadChanges: false,
  imports: (host: Host): Imports => ({ env: { f: (x: number) => host.memory()[x] ?? host.call('g', 1n), g: (slot: bigint) => host.callIndirect(undefined, slot, 1) } }),
  wasmBulkMemory: true,
  wasmMultiMemory: true,
  wasmMultiValue: true,
  wasmReferenceTypes: true,
  wasmSimd: true,
  wasmRelaxedSimd: true,
  relaxedSimdDeterministic: false,
  engine: 'optimizing',
  timeout: 1000,
  maxMemory: 1 << 20,
  maxSegments: 1000,
  cache: false,
  signal: new AbortController().signal,
  onProgress: ({ phase }: Progress): Phase => phase,
}

export async function use(wasm: Wasm): Promise<void> {
  const a: Buffer = await named(wasm, everything)
  const b: Buffer = wizerSync(new ArrayBuffer(8))
  const { report, stdout, stderr }: Snapshot = await snapshot('(module)', { imports: { env: { f() {} } } })
  const facts: Report = report
  const memory: MemoryReport | undefined = facts.memories[0]
  const phases: { phase: Phase; ms: number }[] = facts.phases
  const outputs: (Buffer | undefined)[] = [a, b, stdout, stderr]
  try {
    await wizer(wasm)
  } catch (error) {
    if (error instanceof WizerError) {
      const code: WizerErrorCode = error.code
      const trace: string[] | undefined = error.wasmBacktrace
      console.log(code, trace, error.stdout, error.cause, memory, phases, outputs)
    }
  }
}

// @ts-expect-error an option that does not exist
void wizer('(module)', { initFunction: 'f' })
// @ts-expect-error an engine that does not exist
void wizer('(module)', { engine: 'fast' })
// @ts-expect-error text is no standard input: it could be a file's name
void wizer('(module)', { stdin: 'some text' })
// @ts-expect-error a number is no module
void wizer(5)

export async function stepByStep(): Promise<Buffer[]> {
  const session: Session = await Session.create('(module)', { timeout: 1000 })
  const sum: number = await session.call('add', 1, 2n, null)
  const total: number = await session.global('total')
  const memory: SessionMemory = session.memory('env.memory')
  const size: number = await memory.size()
  const bytes: Buffer = await memory.read(0n, size)
  await memory.write(0, bytes)
  await memory.write(0n, 'text')
  const text: string = (await memory.readString(0)) + (await memory.readString(0, 4))
  await session.callIndirect(undefined, 1, text)
  await session.register('main')
  await session.instantiate('plugin', '(module)')
  const first: Buffer = await session.snapshot()
  const { wasm, report }: Snapshot = await session.snapshotWithReport()
  await session.close()
  return sum > total + report.outputBytes ? [first] : [wasm]
}
