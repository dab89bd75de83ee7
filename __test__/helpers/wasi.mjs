// Guests that use WASI preview 1, and a guest whose calls of it are written in JavaScript.

import { snapshot } from '@jakechampion/wizer'

// https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
const PARAMETERS = {
  args_get: 'i32 i32',
  args_sizes_get: 'i32 i32',
  clock_time_get: 'i32 i64 i32',
  environ_get: 'i32 i32',
  environ_sizes_get: 'i32 i32',
  fd_close: 'i32',
  fd_fdstat_get: 'i32 i32',
  fd_filestat_set_size: 'i32 i64',
  fd_prestat_dir_name: 'i32 i32 i32',
  fd_prestat_get: 'i32 i32',
  fd_read: 'i32 i32 i32 i32',
  fd_write: 'i32 i32 i32 i32',
  path_create_directory: 'i32 i32 i32',
  path_filestat_set_times: 'i32 i32 i32 i32 i64 i64 i32',
  path_link: 'i32 i32 i32 i32 i32 i32 i32',
  path_open: 'i32 i32 i32 i32 i32 i64 i64 i32 i32',
  path_remove_directory: 'i32 i32 i32',
  path_rename: 'i32 i32 i32 i32 i32 i32',
  path_symlink: 'i32 i32 i32 i32 i32',
  path_unlink_file: 'i32 i32 i32',
  poll_oneoff: 'i32 i32 i32 i32',
  proc_exit: 'i32',
  random_get: 'i32 i32',
  sched_yield: '',
}

const signature = (name) => `(param ${PARAMETERS[name]})${name === 'proc_exit' ? '' : ' (result i32)'}`

/** Imports of these functions, in the text format, as `$name`. */
export const wasi = (...names) =>
  names.map((name) => `(import "wasi_snapshot_preview1" "${name}" (func $${name} ${signature(name)}))`).join('\n')

/** A function `$print` (file descriptor, address, length), which writes until all is written. It uses the first 12 bytes of the memory. */
export const print = `(func $print (param $fd i32) (param $at i32) (param $len i32)
  (loop $more
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
    (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
    (br_if $more (local.get $len))))`

/** A function `$read` (address, length), which reads standard input until it has all, and returns what is missing at its end. It uses the first 12 bytes of the memory. */
export const read = `(func $read (param $at i32) (param $len i32) (result i32)
  (loop $more
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
    (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
    (if (i32.eqz (i32.load (i32.const 8))) (then (return (local.get $len))))
    (br_if $more (local.get $len)))
  (i32.const 0))`

/** A guest that sleeps for a day. */
export const sleeper = `(module
  ${wasi('poll_oneoff')}
  (memory (export "memory") 1)
  (func (export "wizer.initialize")
    ;; A subscription to the monotonic clock (1), relative, in nanoseconds.
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 86_400_000_000_000))
    (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))`

/** A guest that waits for a byte on standard input. */
export const reader = `(module
  ${wasi('fd_read')}
  (memory (export "memory") 1)
  ${read}
  (func (export "wizer.initialize")
    (drop (call $read (i32.const 16) (i32.const 1)))))`

const names = Object.keys(PARAMETERS)
const call = (name) => {
  const args = PARAMETERS[name].split(' ').filter(Boolean)
  return `(func (export "${name}") ${signature(name)} (call $${name} ${args.map((_, i) => `(local.get ${i})`).join(' ')}))`
}

const shell = `(module
  (import "test" "script" (func $script))
  ${wasi(...names)}
  (memory (export "memory") 1)
  ${names.map(call).join('\n')}
  (func (export "wizer.initialize") (call $script)))`

/** Runs `script` in an initialization, with a {@link Shell} to call WASI by, and gives what `snapshot` gives. */
export const runShell = (options, script) =>
  snapshot(shell, {
    allowWasi: true,
    inheritStdio: false,
    ...options,
    imports: (host) => ({ test: { script: () => script(new Shell(host)) } }),
  })

/** WASI, called from JavaScript. Every function gives an error number, or throws it as an `Errno`. */
class Shell {
  // Addresses of what is passed in memory: a list of buffers, a result, a path, other bytes.
  static BUFFERS = 0
  static RESULT = 16
  static PATH = 1024
  static OTHER_PATH = 2048
  static BYTES = 4096

  constructor(host) {
    this.host = host
  }

  /** The error number that a function returns, 0 where all is well. */
  errno(name, ...args) {
    return this.host.call(name, ...args)
  }

  call(name, ...args) {
    const errno = this.errno(name, ...args)
    if (errno !== 0) throw new Error(`${name} failed with error number ${errno}`)
  }

  view() {
    const { buffer } = this.host.memory()
    return new DataView(buffer)
  }

  u32(at) {
    return this.view().getUint32(at, true)
  }

  bytes(at, length) {
    return Buffer.from(this.host.memory().subarray(at, at + length))
  }

  /** Puts text into memory, and gives its place as two arguments. */
  path(text, at = Shell.PATH) {
    const bytes = Buffer.from(text)
    this.host.memory().set(bytes, at)
    return [at, bytes.length]
  }

  /** What `args_get` or `environ_get` tells. */
  strings(what) {
    this.call(`${what}_sizes_get`, 0, 4)
    const [count, size] = [this.u32(0), this.u32(4)]
    this.call(`${what}_get`, Shell.PATH, Shell.BYTES)
    return this.bytes(Shell.BYTES, size).toString().split('\0').slice(0, count)
  }

  /** The directories that are open from the start: descriptors by name. */
  directories() {
    const found = {}
    for (let fd = 3; this.errno('fd_prestat_get', fd, Shell.RESULT) === 0; fd++) {
      const length = this.u32(Shell.RESULT + 4)
      this.call('fd_prestat_dir_name', fd, Shell.PATH, length)
      found[this.bytes(Shell.PATH, length).toString()] = fd
    }
    return found
  }

  /** The error number of opening a file. The flags are `creat` 1, `directory` 2, `excl` 4, `trunc` 8; rights `read` 2, `write` 64. */
  tryOpen(directory, path, { flags = 0, rights = 2 } = {}) {
    return this.errno('path_open', directory, 1, ...this.path(path), flags, BigInt(rights), 0n, 0, Shell.RESULT)
  }

  open(directory, path, how) {
    const errno = this.tryOpen(directory, path, how)
    if (errno !== 0) throw new Error(`opening ${path} failed with error number ${errno}`)
    return this.u32(Shell.RESULT)
  }

  /** Up to so many bytes of a file. */
  read(fd, length = 1024) {
    this.buffer(length)
    this.call('fd_read', fd, Shell.BUFFERS, 1, Shell.RESULT)
    return this.bytes(Shell.BYTES, this.u32(Shell.RESULT))
  }

  tryWrite(fd, text) {
    const bytes = Buffer.from(text)
    this.host.memory().set(bytes, Shell.BYTES)
    this.buffer(bytes.length)
    return this.errno('fd_write', fd, Shell.BUFFERS, 1, Shell.RESULT)
  }

  write(fd, text) {
    const errno = this.tryWrite(fd, text)
    if (errno !== 0) throw new Error(`writing failed with error number ${errno}`)
  }

  buffer(length) {
    const view = this.view()
    view.setUint32(Shell.BUFFERS, Shell.BYTES, true)
    view.setUint32(Shell.BUFFERS + 4, length, true)
  }

  /** A file's contents, found as the C library does: in the directory whose name begins the path. */
  readFile(path) {
    const directories = Object.entries(this.directories()).sort(([a], [b]) => b.length - a.length)
    const prefix = (name) => (name === '.' ? '' : name.endsWith('/') ? name : `${name}/`)
    const [name, fd] = directories.find(([name]) => path.startsWith(prefix(name)) && path.startsWith('/') === name.startsWith('/'))
    const file = this.open(fd, path.slice(prefix(name).length))
    const contents = this.read(file)
    this.call('fd_close', file)
    return contents.toString()
  }
}
