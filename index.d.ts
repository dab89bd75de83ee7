/**
 * The WebAssembly pre-initializer: run a module's initialization once, and ship the initialized
 * module.
 *
 * @example
 * import { wizer } from '@jakechampion/wizer'
 *
 * const initialized = await wizer(await readFile('app.wasm'), { allowWasi: true })
 *
 * @packageDocumentation
 */

/** A module in the binary format, or text in the WebAssembly text format. */
export type Wasm = Uint8Array | ArrayBuffer | string

/**
 * A `Buffer` of its own memory, never of a `SharedArrayBuffer`: `WebAssembly.compile` takes it as it is, with any
 * version of `@types/node`.
 */
export type Bytes = ReturnType<typeof Buffer.alloc>

/** How a module is initialized. Everything is optional, and nothing of the host is reachable that is not named here. */
export interface WizerOptions {
  /**
   * The exported function that initializes the module. It takes no parameters and returns nothing. The start function
   * and a WASI reactor's `_initialize` run before it, once each.
   *
   * @default 'wizer.initialize', or else 'wizer-initialize'
   */
  initFunc?: string

  /**
   * Whether the output still exports the initialization function. With `'empty'` it does, and so does a reactor's
   * `_initialize` (and `__wasm_apply_data_relocs` where it was called), and a call of them does nothing: for glue code
   * and hosts that make this call themselves. A rename of such an export is of what does nothing; one that overwrites it
   * wins. A function that returns something cannot be replaced so (`ERR_WIZER_OPTION`).
   *
   * @example 'empty'
   * @default false
   */
  keepInitFunc?: boolean | 'empty'

  /**
   * Calls of exports before that of the initialization function, or instead where the module has none: in their order,
   * after a reactor's `_initialize`. Arguments are numbers as the WebAssembly text format writes them, and `null` for a
   * reference; a name with other characters stands in quotation marks. A call of the initialization function takes its
   * place. {@link Session} calls with values of JavaScript, and gives results.
   *
   * @example ['load(1, 2.5)', '"my func"()']
   * @default []
   */
  invoke?: string[]

  /**
   * New names for exports, as `{ newName: oldName }`. An export that has the new name already is overwritten. An old
   * name that the module does not export is a warning in the report.
   *
   * @example { _start: 'wizer.resume' }
   * @default {}
   */
  renameFuncs?: Record<string, string>

  /**
   * Whether initialization may call WASI (preview 1). What it reads (random numbers, clocks, the environment) becomes
   * part of the output; {@link Report.baked} counts such reads.
   *
   * @default false
   */
  allowWasi?: boolean

  /**
   * Whether a program that ends itself with status 0 (WASI's `proc_exit`, as commands of TinyGo and Go do at the end of
   * `_start`) only ends the call that is going on; what was to be called next is called. Any other status is an error
   * always (`ERR_WIZER_EXIT`). What is snapshotted is the state at that moment: functions that were going on have not
   * come to their end, and globals such as a stack pointer are as they were in the middle of them. A call of a
   * {@link Session} gives nothing then. {@link Report.exited} tells.
   *
   * @example true, with `initFunc: '_start'`
   * @default false: any such end is an error
   */
  allowExit?: boolean

  /**
   * What stands in for imports that nothing else provides, by `module.name`, where `*` in either name stands for
   * anything: a number, or `'trap'`, with which a call is an error that names the import. Where several fit, the one
   * that says most wins, and of two that say as much the later one. `imports` and `preload` come first, and so does
   * WASI where it is allowed, but for a stub that names the import in full.
   *
   * A function returns the number for each of its results, converted to the type, and null for references. A memory or
   * table that the module or a preloaded one imports is as large as it has to be, and empty; a global has the number,
   * or is null. {@link Report.hostCalls} counts the calls. A pattern without a dot is `ERR_WIZER_OPTION`.
   *
   * @example { 'env.*': 0, 'env.abort': 'trap' }
   * @default {}
   */
  stubs?: Record<string, number | bigint | 'trap'>

  /**
   * Whether WASI's standard streams are the process's own; if not, standard input is empty and output goes nowhere.
   * `stdin`, `stdout` and `stderr` win over it.
   *
   * @default true
   */
  inheritStdio?: boolean

  /**
   * Whether WASI shows the process's environment variables.
   *
   * @default false
   */
  inheritEnv?: boolean

  /**
   * Environment variables for WASI; they win over inherited ones.
   *
   * @default {}
   */
  env?: Record<string, string>

  /**
   * Arguments for WASI, the program's own name first. None may hold a NUL.
   *
   * @default []
   */
  args?: string[]

  /**
   * WASI's standard input: bytes, the process's own, or nothing.
   *
   * @default 'inherit', or 'ignore' where `inheritStdio` is false
   */
  stdin?: Uint8Array | ArrayBuffer | 'inherit' | 'ignore'

  /**
   * Where WASI's standard output goes: the process's own, nowhere, or into `stdout` of what {@link snapshot} gives (and
   * of a {@link WizerError}).
   *
   * @default 'inherit', or 'ignore' where `inheritStdio` is false
   */
  stdout?: 'inherit' | 'ignore' | 'pipe'

  /**
   * Where WASI's standard error goes, as for `stdout`.
   *
   * @default 'inherit', or 'ignore' where `inheritStdio` is false
   */
  stderr?: 'inherit' | 'ignore' | 'pipe'

  /**
   * Directories that WASI may use, under the names that they have here.
   *
   * @default []
   */
  dirs?: string[]

  /**
   * Directories that WASI may use, by the name that the guest has for each. In a `readonly` one the guest can change
   * nothing.
   *
   * @example { '/data': './testdata', '/templates': { host: './templates', readonly: true } }
   * @default {}
   */
  mapDirs?: Record<string, string | { host: string; readonly?: boolean }>

  /**
   * Files for WASI by guest path, with their contents (a string is UTF-8). They are written to a private temporary
   * directory, which is removed after the run: what the guest changes in it is lost. Absolute paths are offered under
   * `/` and relative ones under `.`. A path inside of a directory of `dirs` or `mapDirs` is an error, and so is one that
   * names no file ('', 'a/') or the same file as another.
   *
   * @default {}
   */
  files?: Record<string, Uint8Array | ArrayBuffer | string>

  /**
   * Modules that are instantiated first, by the name under which the module may import from them. The output still
   * imports from these names. It does not carry the preloaded modules' state, and a change of that is an error.
   *
   * @default {}
   */
  preload?: Record<string, Wasm>

  /**
   * Whether the state of preloaded modules may change although the output does not carry it.
   *
   * @default false
   */
  allowPreloadChanges?: boolean

  /**
   * What the module may import, as `{ module: { name: function } }`, or a function that returns such an object and is
   * given a {@link Host} to work with. Functions win over WASI. An import that nobody provides is an error when it
   * is called, not before.
   *
   * The functions are called on this thread, also while the module runs on another; values are converted as the
   * WebAssembly JavaScript API does (`i64` is a BigInt; a reference to a function or an object is an opaque handle, which
   * can be given back). They are synchronous: a returned promise is an error. What one throws ends the run, and no
   * `catch` of the module sees it: it is the `cause` of the {@link WizerError}. But what the module can catch goes on through
   * the module: an exception of its own that comes from {@link Host.call}, and one of a tag that is given here. Where nothing
   * catches that, it is the `cause` of an error with the code `ERR_WIZER_TRAP`.
   *
   * Memories, tables and globals are given as `WebAssembly.Memory`, `Table` and `Global`, as what these are made of
   * (`{ initial: 1 }`), or as the value of a global (any value, where that is of external references). They are copied: the run
   * does not change them. The output still imports them, holds what the initialization changed in them, and wants them as they
   * were given here, but for the size. Tags are given as `WebAssembly.Tag`.
   *
   * @default {}
   */
  imports?: Imports | ((host: Host) => Imports)

  /**
   * Whether modules may use the bulk memory proposal.
   *
   * @default true
   */
  wasmBulkMemory?: boolean

  /**
   * Whether modules may use the multi-memory proposal.
   *
   * @default true
   */
  wasmMultiMemory?: boolean

  /**
   * Whether modules may use the multi-value proposal.
   *
   * @default true
   */
  wasmMultiValue?: boolean

  /**
   * Whether modules may use the reference types proposal and what builds on it.
   *
   * @default true
   */
  wasmReferenceTypes?: boolean

  /**
   * Whether modules may use the SIMD proposal.
   *
   * @default true
   */
  wasmSimd?: boolean

  /**
   * Whether modules may use the relaxed SIMD proposal.
   *
   * @default true
   */
  wasmRelaxedSimd?: boolean

  /**
   * Whether relaxed SIMD instructions give the same results on every machine.
   *
   * @default false
   */
  relaxedSimdDeterministic?: boolean

  /**
   * Who runs the module: `interpreter` begins at once (wasmi), `baseline` compiles fast (Winch), `optimizing` makes fast
   * code (Cranelift), `host` is the engine of this process (V8), in a worker. `auto` begins with the interpreter, or with V8
   * where a module is large, and goes over to V8 or compiled code where that pays; nothing that the module does to the
   * outside happens twice.
   *
   * @default 'auto'
   */
  engine?: 'auto' | 'interpreter' | 'baseline' | 'optimizing' | 'host'

  /**
   * Where compiled code is kept for later runs: `true` is the user's cache directory, a text another directory, `false`
   * nowhere. Only code of 128 KiB and more is kept; a run that the interpreter finishes leaves no trace there.
   *
   * @default true
   */
  cache?: boolean | string

  /**
   * The longest time that instantiation and initialization may take, in milliseconds, whatever they wait for; compiling
   * does not count. Where compiled code takes over, it has that time again, and so has passing on what was printed. 0 is over at once, `Infinity` is no limit.
   *
   * @default no limit
   */
  timeout?: number

  /**
   * The most bytes that all memories (and tables, at 8 bytes a slot) may have together. Growing beyond it is an error.
   *
   * @default no limit
   */
  maxMemory?: number

  /**
   * The most data segments that the output may have, up to 100,000 (the limit of engines). Fewer segments make a larger
   * file: those with the least zeros between them become one.
   *
   * @default 100000
   */
  maxSegments?: number

  /**
   * Ends the run when it is aborted. Compiling is not interrupted; the run ends after it. {@link wizerSync} looks at it
   * only before the run and when an import of the run aborts it.
   *
   * @default undefined
   */
  signal?: AbortSignal

  /**
   * Called as each phase begins, on this thread. If it throws, the run ends with a {@link WizerError} whose `cause` is
   * what it threw.
   *
   * @default undefined
   */
  onProgress?: (progress: Progress) => void
}

/**
 * An instance of a module that goes on: call its exports, write it as it is, go on, write it again. Steps that are asked
 * for while another one goes on come after it, in their order.
 *
 * Effects happen at once and once. A call that traps leaves behind what it did until then, and the session can go on. The
 * `timeout` is for instantiation and for each call; a session that it or `signal` has ended is of no more use.
 *
 * @example
 * const session = await Session.create(bytes, { allowWasi: true })
 * await session.call('load', 1, 2n)
 * await writeFile('loaded.wasm', await session.snapshot())
 * await session.close()
 */
export class Session {
  private constructor()

  /**
   * Instantiates a module. Nothing but its start function runs: neither `_initialize` nor the initialization function.
   * With the engine `auto`, large modules run on V8 and small ones are compiled: a session cannot begin anew on another engine.
   */
  static create(wasm: Wasm, options?: WizerOptions): Promise<Session>

  /**
   * Calls an exported function, with values converted as the WebAssembly JavaScript API does: an `i64` is a BigInt, an
   * `externref` any value, an `i31` a number. A reference to a function, a struct, an array or an exception is an opaque
   * handle: the same for the same thing, and to be given back to this session only. Handles keep what they stand for
   * until the session is closed. A `v128` is a `TypeError`.
   *
   * @returns nothing, the result, or an array of the results
   * @throws a {@link WizerError} where it traps, or with the code `ERR_WIZER_OPTION` where a handle is of another type
   * than the function takes; a `TypeError` for values that do not fit
   */
  call(name: string, ...args: unknown[]): Promise<any>

  /**
   * Calls the function in a slot of a table, as `call_indirect` does: a pointer to a function in C and C++ is the number of
   * a slot.
   *
   * @param table the name of an export, else of an import, written `module.name`; `undefined` for the export
   * `__indirect_function_table`, else the only table of functions that the module has
   * @param slot the number of the slot, from 0 on; a BigInt for those that no number can say
   * @returns as {@link Session.call}
   * @throws as {@link Session.call}; a {@link WizerError} with the code `ERR_WIZER_OPTION` where there is no such table or slot,
   * or the slot is null
   */
  callIndirect(table: string | undefined, slot: number | bigint, ...args: unknown[]): Promise<any>

  /**
   * A memory of the module, to read and to write between calls. What is written is state, as if the module had written it.
   *
   * @param name the name of an export, else of an import, written `module.name`
   * @default name = the export `memory`, else the only memory that the module has
   * @example
   * const text = Buffer.from('--verbose\0')
   * const address = await session.call('malloc', text.length)
   * await session.memory().write(address, text)
   */
  memory(name?: string): SessionMemory

  /**
   * The value of an exported global, converted as the results of {@link Session.call} are.
   *
   * @throws a {@link WizerError} with the code `ERR_WIZER_OPTION` where there is no such global
   */
  global(name: string): Promise<any>

  /**
   * Lets modules that are instantiated from now on import the module's exports under this name. It may have several, and
   * share one with what `imports` provides: what the module exports comes first.
   *
   * @throws a {@link WizerError} with the code `ERR_WIZER_OPTION` where there is a module of this name
   */
  register(name: string): Promise<void>

  /**
   * Instantiates one module more, as a dynamic linker does. It can import from what was preloaded, from those that were
   * instantiated like this before, and from the module itself where that was registered. Its start function and
   * `_initialize` are called. What it leaves in memories and tables of the module is written with the module; the output
   * carries nothing else of it, and a later change of its own state is an error as for `preload`, unless
   * `allowPreloadChanges` is set.
   *
   * With the engine `auto`, large modules run on V8; where a module needs what that does not run, open the session with the
   * engine `optimizing`.
   *
   * @param name the name under which those that follow can import from it
   * @throws a {@link WizerError}. What it did before it failed remains, and the session can go on.
   * @example
   * await session.register('main')
   * await session.instantiate('plugin', await readFile('plugin.wasm')) // imports "main" "memory"
   */
  instantiate(name: string, wasm: Wasm): Promise<void>

  /**
   * Calls an exported function of a module that was preloaded or instantiated beside the session's own, as
   * {@link Session.call} does.
   *
   * @param module the name that the module was given
   */
  callBeside(module: string, name: string, ...args: unknown[]): Promise<any>

  /**
   * Writes the module as it is. Initialization functions that were called are exported no more: `_initialize`, and unless
   * `keepInitFunc` says otherwise, `initFunc` or what it is by default.
   */
  snapshot(): Promise<Bytes>

  /** As {@link Session.snapshot}, and tells what happened. Captured output is what was written since the last time. */
  snapshotWithReport(): Promise<Snapshot>

  /** Gives the instance's memory back. Steps that were asked for are done before. */
  close(): Promise<void>
}

/**
 * A memory of a {@link Session}. Each call is a step of the session, in the order in which steps are asked for. Addresses and
 * lengths are in bytes: numbers, or BigInts. An `i32` that is an address comes as a negative number from 2 GiB on: make it
 * one without a sign, `address >>> 0`.
 *
 * Each rejects with a {@link WizerError}: `ERR_WIZER_OUT_OF_BOUNDS` where the bytes are not all within the memory,
 * `ERR_WIZER_OPTION` where there is no such memory.
 */
export interface SessionMemory {
  /** How many bytes it has now. */
  size(): Promise<number>

  /** A copy of these bytes. */
  read(address: number | bigint, length: number | bigint): Promise<Bytes>

  /**
   * Text in UTF-8.
   *
   * @param length how many bytes it has
   * @default length = up to the first byte that is 0, as C has it
   */
  readString(address: number | bigint, length?: number | bigint): Promise<string>

  /** Writes bytes, or a string as UTF-8 (of which C wants one that ends with `\0`). The bytes are copied at once. */
  write(address: number | bigint, bytes: Uint8Array | ArrayBuffer | string): Promise<void>
}

/**
 * What a module imports, by the two names of the imports. The inner objects may be of a class; its methods are called as
 * functions, without `this`, as V8 calls imports.
 */
export type Imports = Record<string, Record<string, ImportValue>>

/** A function, or something else that a module may import. Sizes are in pages (of a memory) and slots (of a table). */
export type ImportValue =
  | ((...args: any[]) => unknown)
  /** As in `WebAssembly.Imports`. */
  | Function
  /** A `WebAssembly.Memory`. Its maximum is what the module asks for. */
  | { readonly buffer: ArrayBuffer | SharedArrayBuffer }
  /**
   * A memory, with what is in it from the start on; zeros by default. It is shared and has 64-bit addresses where the
   * module says so; `shared` and `address` make it an error where the module says otherwise.
   */
  | { initial: number; maximum?: number; shared?: boolean; address?: 'i32' | 'i64'; contents?: Uint8Array | ArrayBuffer }
  /** A `WebAssembly.Table` in which nothing is. */
  | { readonly length: number; get(slot: number): unknown }
  /** A table of nulls. `element` is `anyfunc`, `externref` or another type of references, as the module says. */
  | { element: string; initial: number; maximum?: number; address?: 'i32' | 'i64' }
  /** A `WebAssembly.Global`. */
  | { value: any }
  /** The value of an immutable global. */
  | number
  | bigint
  /**
   * A `WebAssembly.Tag`. A function of `imports` that throws a `WebAssembly.Exception` of it can be caught by the module, and
   * one that leaves the module reaches the function that called it by {@link Host.call}: of tags whose parameters are
   * numbers and external references. With `WebAssembly.JSTag`, that is so with whatever JavaScript throws.
   */
  | object
  /** Any other value: that of an immutable global of external references (a string, for example). */
  | string
  | boolean
  | symbol
  | null
  | undefined

/** What an import may do with the instance that is calling it. Usable only while an import is being called. */
export interface Host {
  /**
   * The bytes of a memory, to read and to write. The view is detached (its length becomes 0) when the import returns, and
   * when the memory grows meanwhile.
   *
   * It is for use at once only: never give it to what goes on after the import has returned (`fs.write`, `zlib.gzip`,
   * `crypto.randomFill` and the like), which would read or write memory that is no longer there, and crash the process.
   * Give such a function a copy, `view.slice()`.
   *
   * @param name the name of an export, else of an import, written `module.name`
   * @default name = the export `memory`, else the only memory that the module has
   * @throws a {@link WizerError} with the code `ERR_WIZER_HOST` where there is no such memory; it names what there is
   * @example
   * const bytes = host.memory('env.memory').slice(address, address + length)
   */
  memory(name?: string): Uint8Array

  /**
   * Calls an exported function, with values converted as for imports. The usual need is the guest's allocator.
   *
   * What it throws may be caught, and the module goes on; but not that the run is to end: by the time limit, an abort,
   * `maxMemory`, the call of an import that nobody provides.
   *
   * @param name the name of the export
   * @returns nothing, the result, or an array of the results
   * @throws what an import threw that the function called, and a `WebAssembly.Exception` of a tag that is given in
   * {@link WizerOptions.imports}; else a {@link WizerError} where the function traps or throws another exception
   * (`ERR_WIZER_TRAP`), or ends the program (`ERR_WIZER_EXIT`). Thrown again, an exception of the module is that exception,
   * which the module's own handlers catch.
   */
  call(name: string, ...args: unknown[]): any

  /**
   * Calls the function in a slot of a table, as `call_indirect` does, with arguments converted as by its own type. This is
   * what the `invoke_*` imports of Emscripten need.
   *
   * @param table the name of an export, else of an import, written `module.name`; `undefined` for the export
   * `__indirect_function_table`, else the only table of functions that the module has
   * @param slot the number of the slot, from 0 on; a BigInt for those that no number can say
   * @returns nothing, the result, or an array of the results
   * @throws as {@link Host.call}; a {@link WizerError} with the code `ERR_WIZER_HOST` where there is no such table or slot, or
   * the slot is null
   * @example
   * invoke_vii(slot, a, b) {
   *   try {
   *     host.callIndirect(undefined, slot, a, b)
   *   } catch (error) {
   *     if (error !== LONGJMP) throw error
   *     host.call('setThrew', 1, 0)
   *   }
   * }
   */
  callIndirect(table: string | undefined, slot: number | bigint, ...args: unknown[]): any
}

/** What a run is doing. */
export interface Progress {
  /** The phase that begins. */
  phase: Phase
}

/**
 * The phases of a run, in their order. A run that goes over to compiled code comes to `compile` and `initialize` a second
 * time.
 */
export type Phase = 'parse' | 'instrument' | 'compile' | 'initialize' | 'snapshot' | 'rewrite' | 'validate'

/** What {@link snapshot} gives. */
export interface Snapshot {
  /** The initialized module. */
  wasm: Bytes
  /** What happened. */
  report: Report
  /** What the guest wrote to standard output, where `stdout` is 'pipe'. */
  stdout?: Bytes
  /** What the guest wrote to standard error, where `stderr` is 'pipe'. */
  stderr?: Bytes
}

/** What happened in a run. */
export interface Report {
  /** The engine that ran the module, and why it was chosen. */
  engine: { name: string; reason: string }
  /** The phases in their order, and how long each took, in milliseconds, in all where a run came to it twice. */
  phases: { phase: Phase; ms: number }[]
  /** The size of the given module in the binary format, in bytes. */
  inputBytes: number
  /** The size of the initialized module, in bytes. */
  outputBytes: number
  /**
   * How far the code moved in the file, in bytes: add it to an offset of the input's code to find it in the output.
   * What counts from the start of the code section, as DWARF does, needs nothing.
   */
  codeShift: number
  /** The memories that the module defines, and imported ones that changed. */
  memories: MemoryReport[]
  /** The functions of the host that were called, how often, and whether a stub stood in for them. */
  hostCalls: { module: string; name: string; calls: number; stub: boolean }[]
  /** How often something was read during initialization that is the same in every instance from now on. */
  baked: { random: number; clock: number; environment: number }
  /** Whether the program ended itself, with status 0, where {@link WizerOptions.allowExit} lets it. */
  exited: boolean
  /** Imported immutable globals, as `module::name`: the output relies on the values that they had. */
  assumedGlobals: string[]
  /** Custom sections that were left out because they would no longer be true. */
  droppedSections: string[]
  /** What one should know although it is no error. */
  warnings: string[]
}

/** One memory of the module. */
export interface MemoryReport {
  /** Its index in the module. */
  index: number
  /** Its declared size before, in pages. */
  pagesBefore: number
  /** Its declared size in the output, in pages. */
  pagesAfter: number
  /** How many data segments the output has for it. */
  segments: number
  /** How many bytes these hold. */
  bytes: number
}

/** The codes of a {@link WizerError}. They are stable; messages are not. */
export type WizerErrorCode =
  /** The input is not a valid module. */
  | 'ERR_WIZER_INVALID_MODULE'
  /** The input is text, and not valid as such. */
  | 'ERR_WIZER_INVALID_TEXT'
  /** The input is a component. */
  | 'ERR_WIZER_COMPONENT'
  /** The initialization function is not exported. */
  | 'ERR_WIZER_INIT_FUNC_MISSING'
  /** The initialization function has parameters or results, or is no function. */
  | 'ERR_WIZER_INIT_FUNC_TYPE'
  /** Code of the module trapped. */
  | 'ERR_WIZER_TRAP'
  /** The program ended itself, with whatever status. */
  | 'ERR_WIZER_EXIT'
  /** A function import was called that nobody provides, or another import is not provided. */
  | 'ERR_WIZER_IMPORT_MISSING'
  /** An import is provided with another type. */
  | 'ERR_WIZER_IMPORT_TYPE'
  /** A provided function failed; `cause` is what it threw. */
  | 'ERR_WIZER_IMPORT_FAILED'
  /** The `host` of an import was used wrongly. */
  | 'ERR_WIZER_HOST'
  /** The callback `onProgress` threw; `cause` is what it threw. */
  | 'ERR_WIZER_CALLBACK'
  /** State was changed that cannot be written; the message names it. */
  | 'ERR_WIZER_UNREPRESENTABLE_STATE'
  /** The output would be larger than engines accept. */
  | 'ERR_WIZER_OUTPUT_TOO_LARGE'
  /** The output would need more data segments than engines or `maxSegments` allow. */
  | 'ERR_WIZER_TOO_MANY_SEGMENTS'
  /** Memories or tables grew beyond `maxMemory`. */
  | 'ERR_WIZER_MEMORY_LIMIT'
  /** The time of `timeout` passed. */
  | 'ERR_WIZER_TIMEOUT'
  /** `signal` was aborted; `cause` is its reason, and the error's `name` is `AbortError`. */
  | 'ERR_WIZER_ABORTED'
  /** An option makes no sense. */
  | 'ERR_WIZER_OPTION'
  /** Bytes were to be read or written that a memory of a session does not have. */
  | 'ERR_WIZER_OUT_OF_BOUNDS'
  /** Two renames share a name. */
  | 'ERR_WIZER_DUPLICATE_RENAME'
  /** A file or directory could not be used. */
  | 'ERR_WIZER_IO'
  /** No engine can run the module on this machine. */
  | 'ERR_WIZER_UNSUPPORTED'
  /** A bug in wizer. */
  | 'ERR_WIZER_INTERNAL'
  /** The native addon for this platform is missing. Thrown as a plain `Error`. */
  | 'ERR_WIZER_PLATFORM'

/** Why a run failed. The input is never changed, and no output is half written. */
export class WizerError extends Error {
  /** Only this package makes them; `error instanceof WizerError` tells them apart. */
  private constructor()
  /** `AbortError` where `signal` was aborted, as everywhere in Node; the `code` is `ERR_WIZER_ABORTED` then. */
  readonly name: 'WizerError' | 'AbortError'
  /** Which error it is. */
  readonly code: WizerErrorCode
  /** The calls of the module that were active, the innermost first, where its code was running. */
  readonly wasmBacktrace?: string[]
  /** What the guest had written to standard output, where `stdout` is 'pipe'. */
  readonly stdout?: Bytes
  /** What the guest had written to standard error, where `stderr` is 'pipe'. */
  readonly stderr?: Bytes
}

/**
 * Initializes a module, on the thread pool: this thread goes on meanwhile.
 *
 * @param wasm the module; the bytes are copied at once and may be changed afterwards
 * @returns the initialized module
 * @throws {WizerError} by rejecting the promise
 */
export function wizer(wasm: Wasm, options?: WizerOptions): Promise<Bytes>

/**
 * Initializes a module, and returns when it is done.
 *
 * @returns the initialized module
 * @throws {WizerError}
 */
export function wizerSync(wasm: Wasm, options?: WizerOptions): Bytes

/**
 * As {@link wizer}, and tells what happened.
 *
 * @throws {WizerError} by rejecting the promise
 */
export function snapshot(wasm: Wasm, options?: WizerOptions): Promise<Snapshot>

export default wizer
