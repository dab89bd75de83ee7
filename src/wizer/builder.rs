//! The options of a [`Wizer`], one by one.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{LinkerMaker, Wizer};
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::host::stub::{Pattern, Stub};
use crate::host::{Guest, HostError};
use crate::invoke::{Arguments, Invocation};
use crate::options::{
    self, CacheLocation, Dir, Import, Item, KeepInitFunc, Phase, Preload, PreloadCall,
    PreloadSource, ProvidedGlobal, ProvidedItem, ProvidedMemory, ProvidedTable,
};
use crate::value::{Reference, Value};

/// The options, one by one.
impl Wizer {
    /// The export to call for initialization. Default: `wizer.initialize`, else
    /// `wizer-initialize`.
    ///
    /// ```
    /// let wat = r#"(module (func (export "setup")))"#;
    /// wizer::Wizer::new().init_func("setup").run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn init_func(&mut self, name: impl Into<String>) -> &mut Self {
        self.options.init_func = Some(name.into());
        self
    }

    /// Calls an export before the initialization function, or instead of one where the module has
    /// none. May be given several times; the calls come in their order, after `_initialize`. One
    /// of the initialization function itself takes its place.
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module (memory (export "memory") 1)
    ///   (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1))))"#;
    /// let outcome = wizer::Wizer::new()
    ///     .invoke("store", &[Value::I32(8), Value::I32(1)])
    ///     .invoke("store", &[Value::I32(9), Value::I32(2)])
    ///     .snapshot(wat.as_bytes())?;
    /// assert_eq!(outcome.report.memories[0].bytes, 2);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn invoke(&mut self, name: impl Into<String>, args: &[Value]) -> &mut Self {
        self.options.invoke.push(Invocation {
            name: name.into(),
            args: Arguments::Values(args.to_vec()),
        });
        self
    }

    /// Renames the export `old` to `new` in the output, overwriting an export of that name.
    ///
    /// ```
    /// let wat = r#"(module
    ///   (func (export "wizer.initialize"))
    ///   (func (export "_start") unreachable)
    ///   (func (export "wizer.resume")))"#;
    /// let wasm = wizer::Wizer::new().func_rename("_start", "wizer.resume").run(wat.as_bytes())?;
    /// assert!(wasm.windows(6).any(|w| w == b"_start"));
    /// assert!(!wasm.windows(12).any(|w| w == b"wizer.resume"));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn func_rename(&mut self, new: impl Into<String>, old: impl Into<String>) -> &mut Self {
        self.options.renames.push((new.into(), old.into()));
        self
    }

    /// Whether the output still exports the initialization function. Default: `false`.
    ///
    /// With [`KeepInitFunc::Empty`](crate::KeepInitFunc::Empty) it does, and so does a reactor's
    /// `_initialize`, and a call of them does nothing: for hosts that make this call themselves. A
    /// rename of such an export is of what does nothing, and one that overwrites it wins.
    ///
    /// ```
    /// use wizer::{KeepInitFunc, Wizer};
    /// let wat = r#"(module
    ///   (global $n (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize")
    ///     (global.set $n (i32.add (global.get $n) (i32.const 1))))
    ///   (func (export "n") (result i32) (global.get $n)))"#;
    /// let kept = Wizer::new().keep_init_func(true).run(wat.as_bytes())?;
    /// let empty = Wizer::new().keep_init_func(KeepInitFunc::Empty).run(wat.as_bytes())?;
    /// for (wasm, n) in [(kept, 2), (empty, 1)] {
    ///     let mut session = Wizer::new().session(&wasm)?;
    ///     session.call("wizer.initialize", &[])?;
    ///     assert_eq!(session.call("n", &[])?, [n.into()]);
    /// }
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn keep_init_func(&mut self, keep: impl Into<KeepInitFunc>) -> &mut Self {
        self.options.keep_init_func = keep.into();
        self
    }

    /// Whether initialization may call WASI. Default: `false`. Directories, the environment and
    /// arguments are offered one by one with the other options.
    ///
    /// # Errors
    ///
    /// None today; the result is there so that `?` reads the same as in other versions of this
    /// interface.
    ///
    /// ```
    /// wizer::Wizer::new().allow_wasi(true)?.inherit_stdio(false);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn allow_wasi(&mut self, allow: bool) -> Result<&mut Self, Error> {
        self.options.allow_wasi = allow;
        Ok(self)
    }

    /// Whether a program that ends itself with status 0 (`proc_exit` of WASI) only ends the call that
    /// is going on; what was to be called next is called. Default: `false`, such an end is an error.
    /// Any other status is one always.
    ///
    /// What is snapshotted is the state at that moment: functions that were going on have not come to
    /// their end, and globals such as a stack pointer are as they were in the middle of them.
    ///
    /// ```
    /// let wat = r#"(module
    ///   (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    ///   (memory (export "memory") 1)
    ///   (func (export "_start")
    ///     (i32.store8 (i32.const 8) (i32.const 42))
    ///     (call $exit (i32.const 0))))"#;
    /// let outcome = wizer::Wizer::new()
    ///     .allow_wasi(true)?
    ///     .allow_exit(true)
    ///     .init_func("_start")
    ///     .snapshot(wat.as_bytes())?;
    /// assert!(outcome.report.exited);
    /// assert_eq!(outcome.report.memories[0].bytes, 1);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn allow_exit(&mut self, allow: bool) -> &mut Self {
        self.options.allow_exit = allow;
        self
    }

    /// Whether the guest's standard streams are the process's; else they are empty and go
    /// nowhere. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().inherit_stdio(false);
    /// ```
    pub fn inherit_stdio(&mut self, inherit: bool) -> &mut Self {
        let wasi = &mut self.options.wasi;
        (wasi.stdin, wasi.stdout, wasi.stderr) = match inherit {
            true => (
                options::Stdin::Inherit,
                options::Stdout::Inherit,
                options::Stdout::Inherit,
            ),
            false => (
                options::Stdin::Ignore,
                options::Stdout::Ignore,
                options::Stdout::Ignore,
            ),
        };
        self
    }

    /// Gives the guest these bytes on standard input.
    ///
    /// ```
    /// wizer::Wizer::new().stdin("config.json\n");
    /// ```
    pub fn stdin(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.options.wasi.stdin = options::Stdin::Bytes(bytes.into());
        self
    }

    /// Captures the guest's standard output and error into [`Outcome::stdout`] and
    /// [`Outcome::stderr`].
    ///
    /// ```
    /// let wat = r#"(module (memory (export "memory") 1) (func (export "wizer.initialize")))"#;
    /// let outcome = wizer::Wizer::new().allow_wasi(true)?.capture_output().snapshot(wat.as_bytes())?;
    /// assert_eq!(outcome.stdout, Some(Vec::new()));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn capture_output(&mut self) -> &mut Self {
        self.options.wasi.stdout = options::Stdout::Pipe;
        self.options.wasi.stderr = options::Stdout::Pipe;
        self
    }

    /// Whether the guest sees the process's environment variables. Default: `false`.
    ///
    /// ```
    /// wizer::Wizer::new().inherit_env(true);
    /// ```
    pub fn inherit_env(&mut self, inherit: bool) -> &mut Self {
        self.options.wasi.inherit_env = inherit;
        self
    }

    /// Sets one environment variable of the guest.
    ///
    /// ```
    /// wizer::Wizer::new().env("LANG", "C");
    /// ```
    pub fn env(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.options.wasi.env.insert(name.into(), value.into());
        self
    }

    /// Adds one argument of the guest. The first is the program's name.
    ///
    /// ```
    /// wizer::Wizer::new().arg("program").arg("--verbose");
    /// ```
    pub fn arg(&mut self, arg: impl Into<String>) -> &mut Self {
        self.options.wasi.args.push(arg.into());
        self
    }

    /// Lets the guest use a directory, under the name that it has on the host.
    ///
    /// ```
    /// wizer::Wizer::new().dir(".");
    /// ```
    pub fn dir(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        let host = path.into();
        let guest = host.to_string_lossy().into_owned();
        self.options.wasi.dirs.push(Dir {
            host,
            guest,
            readonly: false,
        });
        self
    }

    /// Lets the guest use the directory `host` under the name `guest`.
    ///
    /// ```
    /// wizer::Wizer::new().map_dir("/data", "./testdata");
    /// ```
    pub fn map_dir(&mut self, guest: impl Into<String>, host: impl Into<PathBuf>) -> &mut Self {
        self.options.wasi.dirs.push(Dir {
            host: host.into(),
            guest: guest.into(),
            readonly: false,
        });
        self
    }

    /// As [`Wizer::map_dir`], and the guest can change nothing in it.
    ///
    /// ```
    /// wizer::Wizer::new().map_dir_readonly("/data", "./testdata");
    /// ```
    pub fn map_dir_readonly(
        &mut self,
        guest: impl Into<String>,
        host: impl Into<PathBuf>,
    ) -> &mut Self {
        self.options.wasi.dirs.push(Dir {
            host: host.into(),
            guest: guest.into(),
            readonly: true,
        });
        self
    }

    /// Gives the guest a file with this content, under a path of its own. Files are written to
    /// a private directory that is removed after the run.
    ///
    /// ```
    /// wizer::Wizer::new().file("/etc/config.json", "{}");
    /// ```
    pub fn file(&mut self, guest: impl Into<String>, contents: impl Into<Vec<u8>>) -> &mut Self {
        self.options
            .wasi
            .files
            .insert(guest.into(), contents.into());
        self
    }

    /// Instantiates the module in `file` first, so that the main module can import from it under
    /// `name`. The output still imports from `name`, and does not carry the preloaded module's
    /// state: a change of that is an error.
    ///
    /// ```
    /// wizer::Wizer::new().preload("env", "./stubs.wasm");
    /// ```
    pub fn preload(&mut self, name: impl Into<String>, file: impl Into<PathBuf>) -> &mut Self {
        self.options.preloads.push(Preload {
            name: name.into(),
            source: PreloadSource::File(file.into()),
        });
        self
    }

    /// As [`Wizer::preload`], with the module's bytes in the binary or the text format.
    ///
    /// ```
    /// let stub = r#"(module (func (export "f") (result i32) (i32.const 7)))"#;
    /// let wat = r#"(module
    ///   (import "env" "f" (func $f (result i32)))
    ///   (global $n (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize") (global.set $n (call $f))))"#;
    /// wizer::Wizer::new().preload_bytes("env", stub).run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn preload_bytes(
        &mut self,
        name: impl Into<String>,
        wasm: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.options.preloads.push(Preload {
            name: name.into(),
            source: PreloadSource::Bytes(wasm.into()),
        });
        self
    }

    /// Calls an export of a module that was preloaded until here: after it was instantiated, and before
    /// the next preloaded module is. What it changes is there when the module itself is
    /// instantiated, and not a change that the output would have to carry.
    ///
    /// ```
    /// use wizer::Value;
    /// let env = r#"(module
    ///   (global $n (mut i32) (i32.const 0))
    ///   (func (export "set") (param i32) (global.set $n (local.get 0)))
    ///   (func (export "get") (result i32) (global.get $n)))"#;
    /// let wat = r#"(module
    ///   (import "env" "get" (func $get (result i32)))
    ///   (global (export "found") (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize") (global.set 0 (call $get))))"#;
    /// let wasm = wizer::Wizer::new()
    ///     .preload_bytes("env", env)
    ///     .call_preload("env", "set", [Value::I32(42)])
    ///     .run(wat.as_bytes())?;
    /// # let mut session = wizer::Wizer::new().session(&wasm)?;
    /// # assert_eq!(session.global("found")?, Value::I32(42));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn call_preload(
        &mut self,
        module: impl Into<String>,
        export: impl Into<String>,
        args: impl Into<Vec<Value>>,
    ) -> &mut Self {
        self.options.preload_calls.push(PreloadCall {
            after: self.options.preloads.len(),
            module: module.into(),
            export: export.into(),
            args: args.into(),
        });
        self
    }

    /// Whether a preloaded module's state may change although the output does not carry it.
    /// Default: `false`, such a change is an error.
    ///
    /// ```
    /// wizer::Wizer::new().allow_preload_changes(true);
    /// ```
    pub fn allow_preload_changes(&mut self, allow: bool) -> &mut Self {
        self.options.allow_preload_changes = allow;
        self
    }

    /// Provides a function that the module may import, for any engine. It wins over WASI.
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module
    ///   (import "env" "name" (func $name (param i32) (result i32)))
    ///   (memory (export "memory") 1)
    ///   (global $len (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize")
    ///     (global.set $len (call $name (i32.const 64)))))"#;
    /// wizer::Wizer::new()
    ///     .import("env", "name", |guest, args| {
    ///         let &[Value::I32(at)] = args else { return Err("one i32 is wanted".into()) };
    ///         guest.memory(None)?[at as usize..][..5].copy_from_slice(b"wizer");
    ///         Ok(vec![Value::I32(5)])
    ///     })
    ///     .run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn import(
        &mut self,
        module: impl Into<String>,
        name: impl Into<String>,
        function: impl Fn(&mut dyn Guest, &[Value]) -> Result<Vec<Value>, HostError>
        + Send
        + Sync
        + 'static,
    ) -> &mut Self {
        self.options.imports.push(Import {
            module: module.into(),
            name: name.into(),
            function: Arc::new(function),
        });
        self
    }

    /// Provides a memory that modules may import, with these bytes in it. It has as many pages as
    /// they need, or `pages`, and the other properties that the module asks for. The output still
    /// imports it, and holds what the initialization changed in it.
    ///
    /// ```
    /// let wat = r#"(module (import "env" "memory" (memory 1))
    ///   (func (export "wizer.initialize")
    ///     (i32.store8 (i32.const 8) (i32.load8_u (i32.const 1)))))"#;
    /// let outcome = wizer::Wizer::new()
    ///     .import_memory("env", "memory", [1, 2, 3], Some(1))
    ///     .snapshot(wat.as_bytes())?;
    /// assert_eq!(outcome.report.memories[0].bytes, 1);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn import_memory(
        &mut self,
        module: impl Into<String>,
        name: impl Into<String>,
        contents: impl Into<Vec<u8>>,
        pages: Option<u64>,
    ) -> &mut Self {
        let memory = ProvidedMemory {
            pages,
            maximum: None,
            shared: None,
            memory64: None,
            contents: contents.into(),
        };
        self.item(module, name, Item::Memory(memory))
    }

    /// Provides a table that modules may import, of this many slots that are null. The output
    /// still imports it, and holds what the initialization changed in it.
    ///
    /// ```
    /// let wat = r#"(module (import "env" "table" (table 2 funcref))
    ///   (func $f) (elem declare func $f)
    ///   (func (export "wizer.initialize") (table.set (i32.const 1) (ref.func $f))))"#;
    /// wizer::Wizer::new().import_table("env", "table", 2).run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn import_table(
        &mut self,
        module: impl Into<String>,
        name: impl Into<String>,
        size: u64,
    ) -> &mut Self {
        let table = ProvidedTable {
            size,
            maximum: None,
            element: None,
            table64: None,
        };
        self.item(module, name, Item::Table(table))
    }

    /// Provides a global that modules may import, with this value: a number of its type, a null
    /// reference, or a [reference of the host](Reference::Extern) by a number of your choice.
    ///
    /// The output still imports the global. Where the module left that very reference in globals and
    /// tables of its own, the output has them take it from there.
    ///
    /// ```
    /// let wat = r#"(module (import "env" "base" (global i32))
    ///   (global (export "sum") (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize") (global.set 1 (global.get 0))))"#;
    /// let outcome = wizer::Wizer::new()
    ///     .import_global("env", "base", wizer::Value::I32(42))
    ///     .snapshot(wat.as_bytes())?;
    /// assert_eq!(outcome.report.assumed_globals, ["env::base"]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn import_global(
        &mut self,
        module: impl Into<String>,
        name: impl Into<String>,
        value: Value,
    ) -> &mut Self {
        let global = ProvidedGlobal {
            value,
            ty: None,
            mutable: None,
        };
        self.item(module, name, Item::Global(global))
    }

    /// Lets something stand in for imports that nobody provides. `pattern` is `MODULE.NAME`, where `*`
    /// in either name stands for anything; where several fit, the one that says most wins, and of two
    /// that say as much the later one. Whatever else provides an import comes first, but for WASI,
    /// over which a stub wins that names the import in full.
    ///
    /// A function returns the number for each of its results, and null for references. A memory or
    /// table that the module or a preloaded one imports is as large as it has to be, and empty; a
    /// global has the number, or is null.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for a pattern without a dot.
    ///
    /// ```
    /// use wizer::Stub;
    /// let wat = r#"(module
    ///   (import "env" "memory" (memory 1))
    ///   (import "env" "now" (func $now (result f64)))
    ///   (import "env" "abort" (func $abort))
    ///   (func (export "wizer.initialize")
    ///     (if (f64.ne (call $now) (f64.const 0)) (then (call $abort)))
    ///     (i32.store8 (i32.const 8) (i32.const 42))))"#;
    /// let outcome = wizer::Wizer::new()
    ///     .stub("env.*", Stub::Integer(0))?
    ///     .stub("env.abort", Stub::Trap)?
    ///     .snapshot(wat.as_bytes())?;
    /// assert!(outcome.report.host_calls[0].stub);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn stub(&mut self, pattern: &str, stub: Stub) -> Result<&mut Self, Error> {
        self.options.stubs.push(Pattern::parse(pattern)?, stub);
        Ok(self)
    }

    /// Provides a tag that modules may import, of the type that they ask for. Provided functions
    /// throw and are given its exceptions as [`Exception`](crate::Exception).
    ///
    /// ```
    /// let wat = r#"(module
    ///   (import "env" "tag" (tag $tag (param i32)))
    ///   (func (export "wizer.initialize")
    ///     (block $catch (result i32)
    ///       (try_table (result i32) (catch $tag $catch) (throw $tag (i32.const 1))))
    ///     (drop)))"#;
    /// wizer::Wizer::new().import_tag("env", "tag").run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn import_tag(&mut self, module: impl Into<String>, name: impl Into<String>) -> &mut Self {
        self.item(module, name, Item::Tag(None))
    }

    fn item(
        &mut self,
        module: impl Into<String>,
        name: impl Into<String>,
        item: Item,
    ) -> &mut Self {
        let (module, name) = (module.into(), name.into());
        let reference = match item {
            Item::Global(ProvidedGlobal {
                value: Value::Ref(reference @ Reference::Extern(_)),
                ..
            }) => Some(reference),
            _ => None,
        };
        self.options.items.push(ProvidedItem {
            module,
            name,
            item,
            reference,
        });
        self
    }

    /// Resolves imports with a linker of your own; what it does not define is resolved as
    /// without. It is called once per engine that is tried, and its functions run on a thread
    /// of the pipeline's. It may be used together with [`Wizer::allow_wasi`].
    ///
    /// # Errors
    ///
    /// None today, as for [`Wizer::allow_wasi`].
    ///
    /// ```
    /// use std::rc::Rc;
    /// let wat = r#"(module
    ///   (import "foo" "bar" (func $bar (param i32) (result i32)))
    ///   (global $n (mut i32) (i32.const 0))
    ///   (func (export "wizer.initialize") (global.set $n (call $bar (i32.const 41)))))"#;
    /// wizer::Wizer::new()
    ///     .make_linker(Some(Rc::new(|engine| {
    ///         let mut linker = wizer::wasmtime::Linker::new(engine);
    ///         linker.func_wrap("foo", "bar", |x: i32| x + 1)?;
    ///         Ok(linker)
    ///     })))?
    ///     .run(wat.as_bytes())?;
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn make_linker(&mut self, make: Option<Rc<LinkerMaker>>) -> Result<&mut Self, Error> {
        self.make_linker = make;
        Ok(self)
    }

    /// Who runs the module. Default: [`options::Engine::Auto`].
    ///
    /// ```
    /// wizer::Wizer::new().engine(wizer::Engine::Optimizing);
    /// ```
    pub fn engine(&mut self, engine: options::Engine) -> &mut Self {
        self.options.engine = engine;
        self
    }

    /// Where compiled code is kept for later runs. Default: [`CacheLocation::OfUser`].
    ///
    /// Only code of 128 KiB and more is kept, and a run that the interpreter finishes leaves no
    /// trace there.
    ///
    /// ```
    /// wizer::Wizer::new().cache(wizer::CacheLocation::Off);
    /// ```
    pub fn cache(&mut self, cache: CacheLocation) -> &mut Self {
        self.options.cache = cache;
        self
    }

    /// The most data segments that the output may have. Default: 100,000, the limit of engines,
    /// which is the largest value too.
    ///
    /// Fewer segments make a larger file: those with the least zeros between them become one.
    ///
    /// ```
    /// let wat = r#"(module (memory 2) (func (export "wizer.initialize")
    ///   (i32.store (i32.const 0) (i32.const 1))
    ///   (i32.store (i32.const 65536) (i32.const 1))))"#;
    /// let outcome = wizer::Wizer::new().max_segments(1).snapshot(wat.as_bytes())?;
    /// assert_eq!(outcome.report.memories[0].segments, 1);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn max_segments(&mut self, max: usize) -> &mut Self {
        self.options.max_segments = Some(max);
        self
    }

    /// For tests: has the interpreter leave the run to compiled code before its call of the host
    /// of this number, counted from 0. Nothing but the report may tell.
    #[doc(hidden)]
    pub fn leave_at(&mut self, call: u64) -> &mut Self {
        self.options.leave_at = Some(call);
        self
    }

    /// For tests: whether a run goes on where a preloaded module or a call of one traps, with what
    /// that has left behind.
    #[doc(hidden)]
    pub fn tolerate_traps(&mut self, tolerate: bool) -> &mut Self {
        self.options.tolerate_traps = tolerate;
        self
    }

    /// The longest time that instantiation and initialization may take, whatever they wait for;
    /// compiling does not count. Where compiled code takes over, it has that time again, and so has
    /// passing on what was printed. A provided function has to return by itself. Default: no limit.
    ///
    /// ```
    /// let wat = r#"(module (func (export "wizer.initialize") (loop (br 0))))"#;
    /// let limit = std::time::Duration::from_millis(20);
    /// let error = wizer::Wizer::new().timeout(limit).run(wat.as_bytes()).unwrap_err();
    /// assert_eq!(error.code(), "ERR_WIZER_TIMEOUT");
    /// ```
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.options.timeout = Some(limit);
        self
    }

    /// The most bytes that all memories (and tables, at 8 bytes a slot) may have together.
    /// Default: no limit. Growing beyond it is an error.
    ///
    /// ```
    /// let wat = r#"(module (memory 2) (func (export "wizer.initialize")))"#;
    /// let error = wizer::Wizer::new().max_memory(1 << 16).run(wat.as_bytes()).unwrap_err();
    /// assert_eq!(error.code(), "ERR_WIZER_MEMORY_LIMIT");
    /// ```
    pub fn max_memory(&mut self, bytes: u64) -> &mut Self {
        self.options.max_memory = Some(bytes);
        self
    }

    /// Lets another thread end the run.
    ///
    /// ```
    /// let interrupt = std::sync::Arc::new(wizer::Interrupt::default());
    /// wizer::Wizer::new().interrupt(interrupt);
    /// ```
    pub fn interrupt(&mut self, interrupt: Arc<Interrupt>) -> &mut Self {
        self.options.interrupt = Some(interrupt);
        self
    }

    /// Has `progress` called with each phase as it begins.
    ///
    /// ```
    /// wizer::Wizer::new().on_progress(|phase| println!("{}", phase.name()));
    /// ```
    pub fn on_progress(&mut self, progress: impl Fn(Phase) + Send + Sync + 'static) -> &mut Self {
        self.options.progress = Some(Arc::new(progress));
        self
    }
}

/// Switches for WebAssembly proposals.
impl Wizer {
    /// Whether modules may use the bulk memory proposal. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_bulk_memory(false);
    /// ```
    pub fn wasm_bulk_memory(&mut self, enable: bool) -> &mut Self {
        self.options.features.bulk_memory = enable;
        self
    }

    /// Whether modules may use the multi-memory proposal. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_multi_memory(false);
    /// ```
    pub fn wasm_multi_memory(&mut self, enable: bool) -> &mut Self {
        self.options.features.multi_memory = enable;
        self
    }

    /// Whether modules may use the multi-value proposal. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_multi_value(false);
    /// ```
    pub fn wasm_multi_value(&mut self, enable: bool) -> &mut Self {
        self.options.features.multi_value = enable;
        self
    }

    /// Whether modules may use the reference types proposal and what builds on it. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_reference_types(false);
    /// ```
    pub fn wasm_reference_types(&mut self, enable: bool) -> &mut Self {
        self.options.features.reference_types = enable;
        self
    }

    /// Whether modules may use the SIMD proposal. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_simd(false);
    /// ```
    pub fn wasm_simd(&mut self, enable: bool) -> &mut Self {
        self.options.features.simd = enable;
        self
    }

    /// Whether modules may use the relaxed SIMD proposal. Default: `true`.
    ///
    /// ```
    /// wizer::Wizer::new().wasm_relaxed_simd(false);
    /// ```
    pub fn wasm_relaxed_simd(&mut self, enable: bool) -> &mut Self {
        self.options.features.relaxed_simd = enable;
        self
    }

    /// Whether relaxed SIMD instructions give the same results on every machine. Default:
    /// `false`.
    ///
    /// ```
    /// wizer::Wizer::new().relaxed_simd_deterministic(true);
    /// ```
    pub fn relaxed_simd_deterministic(&mut self, enable: bool) -> &mut Self {
        self.options.features.relaxed_simd_deterministic = enable;
        self
    }
}
