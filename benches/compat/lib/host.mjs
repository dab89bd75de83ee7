// What modules get as imports when their initialization is compared: the same functions for wizer and for V8, and with
// the same answers each time. Nothing of them comes from a clock, from randomness or from this machine.

const BAD_FILE = 8
const NOT_IMPLEMENTED = 52

/** How a program ends itself. */
export class Exit extends Error {
  constructor(status) {
    super(`proc_exit(${status})`)
    this.status = status
  }
}

/**
 * @param {object[]} wanted  what `WebAssembly.Module.imports` gives, with the types that `expose.mjs` asks V8 for
 * @param {object} given
 * @param {() => { buffer: ArrayBuffer, byteOffset?: number }} given.memory  the memory that WASI works on, when it is called
 * @param {string[]} [given.variables]  of the environment, each as `NAME=value`
 * @param {Record<string, unknown>} [given.values]  what an import is, by `module.name`, where it is not a stub
 */
export function hostImports(wanted, { memory, values = {}, variables = [] }) {
  const wasi = wasiFunctions(memory, variables)
  const imports = {}
  for (const { module, name, kind, type } of wanted) {
    imports[module] ??= {}
    const given = values[`${module}.${name}`]
    if (kind === 'function') imports[module][name] = given ?? (isWasi(module) ? wasi[name] : undefined) ?? stub(type)
    else if (kind === 'memory') imports[module][name] = new WebAssembly.Memory(ofSize(type, given))
    else if (kind === 'table') imports[module][name] = new WebAssembly.Table(ofSize(type, given))
    else if (kind === 'global') imports[module][name] = global(type, given, name)
    else if (kind === 'tag') imports[module][name] = new WebAssembly.Tag({ parameters: ['externref'], ...type })
  }
  return imports
}

export const isWasi = (module) => /^wasi_(snapshot_preview1|unstable)$/.test(module)

/**
 * Of the size that is wanted, or of this one where it is larger. Type reflection says `minimum` where constructors want
 * `initial`, and `funcref` where older ones want `anyfunc`.
 */
const ofSize = ({ minimum, element, ...type }, size = 0) => ({
  ...type,
  ...(element && { element: element === 'funcref' ? 'anyfunc' : element }),
  initial: Math.max(minimum, size),
})

/** Globals of references are constant strings, which are what their names say: compilers of garbage-collected languages use them. */
function global({ value, mutable }, given, name) {
  if (!mutable) return given ?? (value.includes('extern') ? name : zero(value))
  return new WebAssembly.Global({ value, mutable }, given ?? zero(value))
}

const zero = (type) => (type === 'i64' ? 0n : ['i32', 'f32', 'f64'].includes(type) ? 0 : null)

/** A function that does nothing, and returns zero or null. */
function stub({ results }) {
  const values = results.map(zero)
  return () => (values.length > 1 ? values : values[0])
}

/** A small WASI: no arguments, files or input; output goes nowhere; each clock stands still, and randomness is a count. */
function wasiFunctions(memory, variables) {
  const view = () => {
    const { buffer, byteOffset = 0 } = memory()
    return new DataView(buffer, byteOffset)
  }
  let random = 0
  const two = (a, b) => (first, second) => {
    view().setUint32(first, a, true)
    view().setUint32(second, b, true)
    return 0
  }
  const environment = variables.map((variable) => Buffer.from(`${variable}\0`))
  return new Proxy(
    {
      args_sizes_get: two(0, 0),
      environ_sizes_get: two(environment.length, Buffer.concat(environment).length),
      args_get: () => 0,
      environ_get(pointers, at) {
        const bytes = view()
        for (const [i, variable] of environment.entries()) {
          bytes.setUint32(pointers + 4 * i, at, true)
          for (const byte of variable) bytes.setUint8(at++, byte)
        }
        return 0
      },
      clock_time_get(clock, precision, at) {
        view().setBigUint64(at, 1_700_000_000_000_000_000n, true)
        return 0
      },
      clock_res_get(clock, at) {
        view().setBigUint64(at, 1_000_000n, true)
        return 0
      },
      random_get(at, length) {
        const bytes = view()
        for (let i = 0; i < length; i++) bytes.setUint8(at + i, (random = (random * 73 + 41) & 0xff))
        return 0
      },
      fd_fdstat_get(fd, at) {
        if (fd > 2) return BAD_FILE
        const bytes = view()
        for (let i = 0; i < 24; i++) bytes.setUint8(at + i, i === 0 ? 2 : 0) // a character device
        return 0
      },
      fd_fdstat_set_flags: () => 0,
      fd_prestat_get: () => BAD_FILE,
      fd_prestat_dir_name: () => BAD_FILE,
      fd_close: () => 0,
      fd_read(fd, buffers, count, at) {
        view().setUint32(at, 0, true)
        return 0
      },
      fd_write(fd, buffers, count, at) {
        const bytes = view()
        let written = 0
        for (let i = 0; i < count; i++) written += bytes.getUint32(buffers + 8 * i + 4, true)
        bytes.setUint32(at, written, true)
        return 0
      },
      sched_yield: () => 0,
      proc_exit(status) {
        throw new Exit(status)
      },
    },
    { get: (functions, name) => functions[name] ?? (() => NOT_IMPLEMENTED) },
  )
}
