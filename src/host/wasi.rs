//! WASI preview 1 for every engine: the functions of `wasmtime-wasi`, called on plain bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use wasmparser::ValType;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};
use wiggle::GuestMemory;

use super::config::{self, Wasi};
use super::interrupt::Interrupt;
use super::stdio::{Held, Standard, Stdin, Stdout, Tape};
use super::waiting::Waiting;
use super::{Caller, HostState};
use crate::error::{Error, TrapReason};
use crate::value::Value;

/// The name under which modules import WASI preview 1.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// How many bytes one call may copy: an array in a 32-bit memory cannot be larger. It bounds
/// what a call with a wrong length allocates.
const HOSTCALL_FUEL: usize = 1 << 30;

/// What WASI keeps during a run.
pub struct WasiState {
    ctx: WasiP1Ctx,
    waiting: Waiting,
    pub(crate) stdout: Stdout,
    pub(crate) stderr: Stdout,
    /// Standard input, where it is the process's.
    pub(super) input: Option<Tape>,
    /// The descriptors that the guest opened and has not closed.
    pub(crate) open: BTreeSet<u32>,
    /// Whether no directory can be written to.
    pub(super) is_readonly: bool,
    /// Holds the files that were given by content, and removes them.
    _files: Option<tempfile::TempDir>,
}

impl WasiState {
    /// WASI as the options describe it. `input` is the process's standard input, and what goes
    /// to its streams is held back where there is something to hold it.
    pub fn new(
        options: &Wasi,
        interrupt: Option<Arc<Interrupt>>,
        input: &Tape,
        held: Option<&Held>,
    ) -> Result<WasiState, Error> {
        let waiting = Waiting::new(interrupt.as_ref())?;
        let stdout = Stdout::new(options.stdout, Standard::Out, held, interrupt.clone());
        let stderr = Stdout::new(options.stderr, Standard::Err, held, interrupt);
        let mut builder = WasiCtxBuilder::new();
        builder
            // What may block is to run where it can be left behind.
            .allow_blocking_current_thread(false)
            .args(arguments(options)?)
            .stdin(Stdin::new(&options.stdin, input))
            .stdout(stdout.clone())
            .stderr(stderr.clone());
        for (name, value) in environment(options)? {
            builder.env(name, value);
        }
        for dir in &options.dirs {
            let perms = match dir.readonly {
                true => FsPerms::ReadOnly,
                false => FsPerms::ReadWrite,
            };
            preopen(&mut builder, &dir.host, &dir.guest, perms)?;
        }
        let files = lay_out_files(options, &mut builder)?;
        Ok(WasiState {
            ctx: builder.build_p1(),
            waiting,
            stdout,
            stderr,
            input: (options.stdin == config::Stdin::Inherit).then(|| input.clone()),
            open: BTreeSet::new(),
            is_readonly: options.files.is_empty() && options.dirs.iter().all(|dir| dir.readonly),
            _files: files,
        })
    }

    /// Whether a descriptor has the number of a standard stream, and is no file in its place.
    pub(super) fn is_stream(&self, fd: u32) -> bool {
        fd <= 2 && !self.open.contains(&fd)
    }

    /// Whether standard output or error takes nothing any more.
    pub(super) fn is_broken(&self, fd: u32) -> bool {
        match fd {
            1 => self.stdout.is_broken(),
            2 => self.stderr.is_broken(),
            _ => false,
        }
    }

    /// Whether a path, as `path_open` is given it, names something whose reading could be seen
    /// from outside: neither a file nor a directory.
    pub(super) fn names_device(
        &mut self,
        memory: &[u8],
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
    ) -> bool {
        // In the witx files of preview 1: the size of a `filestat`, and where its type is.
        const FILESTAT: usize = 64;
        const FILETYPE: usize = 16;
        const DIRECTORY: u8 = 3;
        const REGULAR_FILE: u8 = 4;
        let Some(path) = memory
            .get(path as usize..)
            .and_then(|rest| rest.get(..len as usize))
        else {
            return false;
        };
        let mut scratch = vec![0; FILESTAT];
        scratch.extend_from_slice(path);
        self.ctx.set_hostcall_fuel(HOSTCALL_FUEL);
        let found = {
            let mut memory = GuestMemory::Unshared(&mut scratch);
            let [fd, lookup, len] = [fd, lookup, len].map(|v| v as i32);
            let path = FILESTAT as i32;
            let stat = p1::path_filestat_get(&mut self.ctx, &mut memory, fd, lookup, path, len, 0);
            self.waiting.until(stat)
        };
        match found {
            Some(Ok(0)) => !matches!(scratch[FILETYPE], DIRECTORY | REGULAR_FILE),
            // What cannot be looked at cannot be opened either.
            _ => false,
        }
    }
}

/// The guest's arguments, each of which ends with a NUL where the guest reads it.
fn arguments(options: &Wasi) -> Result<&[String], Error> {
    match options.args.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(Error::option(format!(
            "{arg:?} cannot be an argument of the program: it holds a NUL"
        ))),
        None => Ok(&options.args),
    }
}

/// The guest's environment. Variables that are not Unicode are left out, as WASI has no way to
/// pass them.
fn environment(options: &Wasi) -> Result<Vec<(String, String)>, Error> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    if options.inherit_env {
        for (name, value) in std::env::vars_os() {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                env.insert(name.into(), value.into());
            }
        }
    }
    for (name, value) in &options.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::option(format!(
                "`{name}` cannot be an environment variable: a name must not be empty or hold \
                 `=`, and neither name nor value may hold a NUL"
            )));
        }
        env.insert(name.clone(), value.clone());
    }
    Ok(env.into_iter().collect())
}

fn preopen(
    builder: &mut WasiCtxBuilder,
    host: &Path,
    guest: &str,
    perms: FsPerms,
) -> Result<(), Error> {
    let failed = |source| Error::Io {
        action: "open the directory",
        path: host.into(),
        source,
    };
    // Checked by hand for a reason in plain words; the open below settles it.
    if !std::fs::metadata(host).map_err(failed)?.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    builder.preopened_dir(host, guest, perms).map_err(|e| {
        match e.downcast::<std::io::Error>() {
            Ok(source) => failed(source),
            Err(other) => failed(std::io::Error::other(other.to_string())),
        }
    })?;
    Ok(())
}

/// Writes the files that are given by content into a private directory, and offers it under
/// `/` for absolute guest paths and under `.` for relative ones.
fn lay_out_files(
    options: &Wasi,
    builder: &mut WasiCtxBuilder,
) -> Result<Option<tempfile::TempDir>, Error> {
    if options.files.is_empty() {
        return Ok(None);
    }
    let mut temporary = tempfile::Builder::new();
    temporary.prefix("wizer-files-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary.permissions(std::fs::Permissions::from_mode(0o700));
    }
    let root = temporary.tempdir().map_err(|source| Error::Io {
        action: "create a private directory in",
        path: std::env::temp_dir(),
        source,
    })?;
    let mut used = [false; 2];
    for (absolute, relative, guest) in places(options)? {
        let contents = &options.files[guest];
        for dir in &options.dirs {
            if dir.guest.starts_with('/') == absolute
                && relative.starts_with(guest_path(&dir.guest)?)
            {
                return Err(Error::option(format!(
                    "the file `{guest}` lies in the directory `{}`, which is mapped to the \
                     host's `{}`; put the file there, or give it another path",
                    dir.guest,
                    dir.host.display()
                )));
            }
        }
        let base = root
            .path()
            .join(if absolute { "absolute" } else { "relative" });
        let path = base.join(&relative);
        let parent = path.parent().unwrap_or(&base);
        create_private_dirs(parent)
            .and_then(|()| std::fs::write(&path, contents))
            .map_err(|source| Error::Io {
                action: "write the file",
                path: path.clone(),
                source,
            })?;
        used[usize::from(absolute)] = true;
    }
    for (used, host, guest) in [(used[0], "relative", "."), (used[1], "absolute", "/")] {
        if used {
            preopen(builder, &root.path().join(host), guest, FsPerms::ReadWrite)?;
        }
    }
    Ok(Some(root))
}

/// Where each of the given files goes: whether its path is absolute, the path from there, and the
/// path as it was given.
fn places(options: &Wasi) -> Result<Vec<(bool, PathBuf, &str)>, Error> {
    let mut places = Vec::new();
    for guest in options.files.keys() {
        let relative = guest_path(guest)?;
        if relative.as_os_str().is_empty() || guest.ends_with('/') || guest.contains('\0') {
            return Err(Error::option(format!(
                "{guest:?} cannot be the path of a file"
            )));
        }
        places.push((guest.starts_with('/'), relative, guest.as_str()));
    }
    // What lies in a directory comes right behind it.
    places.sort();
    let misplaced = places
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0 && pair[1].1.starts_with(&pair[0].1));
    match misplaced {
        Some(pair) => Err(Error::option(format!(
            "`{}` and `{}` cannot both be files: they are the same path, or one lies in the other",
            pair[0].2, pair[1].2
        ))),
        None => Ok(places),
    }
}

/// Creates a directory and its parents, for this user only.
fn create_private_dirs(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A guest path, relative to its root, without `.` and never leading out.
fn guest_path(path: &str) -> Result<PathBuf, Error> {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => out.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::option(format!(
                    "the guest path `{path}` must not lead out of its root"
                )));
            }
        }
    }
    Ok(out)
}

/// What one WASI function returns to the engine: an `errno`, or nothing for `proc_exit`.
type Returned<'a> = Pin<Box<dyn Future<Output = wiggle::error::Result<Option<i32>>> + Send + 'a>>;

/// One function of WASI.
#[derive(Clone, Copy)]
pub struct Function {
    call: for<'a> fn(&'a mut WasiP1Ctx, &'a mut GuestMemory<'_>, &'a [Value]) -> Returned<'a>,
    params: &'static [ValType],
    results: &'static [ValType],
}

impl Function {
    /// Whether a module imports the function with the type that it has.
    pub fn has_type(&self, ty: &wasmparser::FuncType) -> bool {
        ty.params() == self.params && ty.results() == self.results
    }
}

macro_rules! functions {
    ($($kind:ident $name:ident($($arg:ident: $ty:ident),*);)*) => {
        /// The WASI function of this name.
        pub fn lookup(module: &str, name: &str) -> Option<Function> {
            if module != MODULE {
                return None;
            }
            match name {
                $(stringify!($name) => Some(Function {
                    call: |ctx, memory, args| Box::pin(async move {
                        let [$($arg),*] = args else { unreachable!("a checked type") };
                        $(let $arg = functions!(@value $ty $arg);)*
                        functions!(@call $kind p1::$name(ctx, memory, $($arg),*))
                    }),
                    params: &[$(ValType::$ty),*],
                    results: functions!(@results $kind),
                }),)*
                _ => None,
            }
        }
    };
    // The engine has checked the types of the arguments against `params`.
    (@value I32 $arg:expr) => {
        match $arg { Value::I32(v) => *v, _ => unreachable!("a checked type") }
    };
    (@value I64 $arg:expr) => {
        match $arg { Value::I64(v) => *v, _ => unreachable!("a checked type") }
    };
    (@call wait $call:expr) => { $call.await.map(Some) };
    (@call now $call:expr) => { $call.map(Some) };
    (@call exit $call:expr) => { $call.map(|()| None) };
    (@results exit) => { &[] };
    (@results $kind:ident) => { &[ValType::I32] };
}

functions! {
    now args_get(argv: I32, buffer: I32);
    now args_sizes_get(count: I32, size: I32);
    now environ_get(environ: I32, buffer: I32);
    now environ_sizes_get(count: I32, size: I32);
    now clock_res_get(id: I32, resolution: I32);
    now clock_time_get(id: I32, precision: I64, time: I32);
    wait fd_advise(fd: I32, offset: I64, len: I64, advice: I32);
    now fd_allocate(fd: I32, offset: I64, len: I64);
    wait fd_close(fd: I32);
    wait fd_datasync(fd: I32);
    wait fd_fdstat_get(fd: I32, stat: I32);
    now fd_fdstat_set_flags(fd: I32, flags: I32);
    now fd_fdstat_set_rights(fd: I32, base: I64, inheriting: I64);
    wait fd_filestat_get(fd: I32, stat: I32);
    wait fd_filestat_set_size(fd: I32, size: I64);
    wait fd_filestat_set_times(fd: I32, atim: I64, mtim: I64, flags: I32);
    wait fd_pread(fd: I32, iovs: I32, len: I32, offset: I64, read: I32);
    now fd_prestat_get(fd: I32, stat: I32);
    now fd_prestat_dir_name(fd: I32, path: I32, len: I32);
    wait fd_pwrite(fd: I32, iovs: I32, len: I32, offset: I64, written: I32);
    wait fd_read(fd: I32, iovs: I32, len: I32, read: I32);
    wait fd_readdir(fd: I32, buffer: I32, len: I32, cookie: I64, used: I32);
    wait fd_renumber(from: I32, to: I32);
    wait fd_seek(fd: I32, offset: I64, whence: I32, position: I32);
    wait fd_sync(fd: I32);
    now fd_tell(fd: I32, position: I32);
    wait fd_write(fd: I32, iovs: I32, len: I32, written: I32);
    wait path_create_directory(fd: I32, path: I32, len: I32);
    wait path_filestat_get(fd: I32, flags: I32, path: I32, len: I32, stat: I32);
    wait path_filestat_set_times(
        fd: I32, flags: I32, path: I32, len: I32, atim: I64, mtim: I64, set: I32);
    wait path_link(
        fd: I32, flags: I32, path: I32, len: I32, new_fd: I32, new_path: I32, new_len: I32);
    wait path_open(
        fd: I32, flags: I32, path: I32, len: I32, oflags: I32, base: I64, inheriting: I64,
        fdflags: I32, opened: I32);
    wait path_readlink(fd: I32, path: I32, len: I32, buffer: I32, size: I32, used: I32);
    wait path_remove_directory(fd: I32, path: I32, len: I32);
    wait path_rename(fd: I32, path: I32, len: I32, new_fd: I32, new_path: I32, new_len: I32);
    wait path_symlink(path: I32, len: I32, fd: I32, new_path: I32, new_len: I32);
    wait path_unlink_file(fd: I32, path: I32, len: I32);
    wait poll_oneoff(subscriptions: I32, events: I32, count: I32, happened: I32);
    exit proc_exit(status: I32);
    now proc_raise(signal: I32);
    now sched_yield();
    now random_get(buffer: I32, len: I32);
    now sock_accept(fd: I32, flags: I32, accepted: I32);
    now sock_recv(fd: I32, iovs: I32, len: I32, flags: I32, read: I32, out: I32);
    now sock_send(fd: I32, iovs: I32, len: I32, flags: I32, written: I32);
    now sock_shutdown(fd: I32, how: I32);
}

/// Answers one call.
pub fn call(
    function: Function,
    name: &str,
    guest: &mut dyn Caller,
    args: &[Value],
) -> Result<Vec<Value>, TrapReason> {
    // The one that is exported as `memory`, or the only one: the running copy exports all.
    let (memory, host) = guest.memory_and_host(None).map_err(|message| {
        TrapReason::Wasm(format!("`{name}` works on the module's memory: {message}"))
    })?;
    let HostState {
        wasi,
        speculation,
        allow_exit,
        ..
    } = host;
    let wasi = wasi
        .as_mut()
        .expect("WASI is bound only where it is allowed");
    let ends = *allow_exit && name == "proc_exit" && args == [Value::I32(0)];
    if let (Some(speculation), false) = (speculation, ends) {
        speculation
            .allows(wasi, name, memory, args)
            .map_err(|before| speculation.leave(before))?;
    }
    // wasmtime-wasi knows no status beyond 125, and C programs exit with 255.
    if let ("proc_exit", [Value::I32(status)]) = (name, args) {
        return Err(TrapReason::Exit(*status));
    }
    wasi.ctx.set_hostcall_fuel(HOSTCALL_FUEL);
    let result = {
        let mut memory = GuestMemory::Unshared(&mut *memory);
        let call = (function.call)(&mut wasi.ctx, &mut memory, args);
        wasi.waiting.until(call)
    };
    let Some(result) = result else {
        host.goes_on()?;
        return Err(TrapReason::Wasm("interrupted".into()));
    };
    match result {
        Ok(Some(errno)) => {
            if errno == 0 {
                follow_descriptors(&mut wasi.open, name, memory, args);
            }
            Ok(vec![Value::I32(errno)])
        }
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(match error.downcast_ref::<I32Exit>() {
            Some(exit) => TrapReason::Exit(exit.0),
            None => TrapReason::Wasm(format!("`{name}` failed: {}", error.root_cause())),
        }),
    }
}

/// Keeps the list of descriptors that the guest has open.
fn follow_descriptors(open: &mut BTreeSet<u32>, name: &str, memory: &[u8], args: &[Value]) {
    let arg = |i: usize| match args.get(i) {
        Some(Value::I32(value)) => *value as u32,
        _ => 0,
    };
    match name {
        "path_open" => {
            let at = arg(8) as usize;
            if let Some(fd) = memory.get(at..at + 4) {
                open.insert(u32::from_le_bytes(fd.try_into().expect("four bytes")));
            }
        }
        "fd_close" => drop(open.remove(&arg(0))),
        "fd_renumber" => {
            open.remove(&arg(0));
            open.insert(arg(1));
        }
        _ => {}
    }
}
