//! The whole story: bytes in, initialized bytes out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    Compiler, Engine, InstanceId, Live, ModuleId, StoreData, Strategy, on_large_stack,
};
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::host::{Guest, HostError};
use crate::instrument::{Instrumented, instrument};
use crate::module::{ExternKind, Module, validate};
use crate::options::{
    self, DEFAULT_INIT_FUNCS, Dir, Import, Options, Phase, Preload, PreloadSource,
};
use crate::report::{BakedReport, Clock, EngineReport, HostCallReport, MemoryReport, Report};
use crate::rewrite::{Exports, rewrite};
use crate::snapshot::{Baseline, Snapshot};
use crate::value::Value;

/// The export that WASI reactors are initialized by, before anything else.
const REACTOR_INIT: &str = "_initialize";

/// Makes a linker for an engine.
pub type LinkerMaker = dyn Fn(&wasmtime::Engine) -> wasmtime::Result<wasmtime::Linker<StoreData>>;

/// The pre-initializer: set it up, then [`run`](Wizer::run) it on as many modules as you like.
///
/// ```
/// let wasm = wat::parse_str(r#"
///     (module
///       (global $ready (mut i32) (i32.const 0))
///       (func (export "setup") (global.set $ready (i32.const 1)))
///       (func (export "ready") (result i32) (global.get $ready)))
/// "#)?;
/// let initialized = wizer::Wizer::new().init_func("setup").run(&wasm)?;
/// assert!(initialized.len() < wasm.len() + 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Wizer {
    pub(crate) options: Options,
    make_linker: Option<Rc<LinkerMaker>>,
}

/// What a run gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The initialized module.
    pub wasm: Vec<u8>,
    /// What happened.
    pub report: Report,
    /// What the guest wrote to standard output, where that was to be captured.
    pub stdout: Option<Vec<u8>>,
    /// What the guest wrote to standard error, where that was to be captured.
    pub stderr: Option<Vec<u8>>,
}

impl Wizer {
    /// A run with default options: no WASI, and `wizer.initialize` or `wizer-initialize` as the
    /// initialization function.
    pub fn new() -> Wizer {
        Wizer::default()
    }

    /// A run with these options.
    #[cfg(feature = "cli")]
    pub(crate) fn with_options(options: Options) -> Wizer {
        Wizer {
            options,
            make_linker: None,
        }
    }

    /// Initializes a module, given in the binary or the text format.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; nothing is lost or half done.
    pub fn run(&self, wasm: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.snapshot(wasm)?.wasm)
    }

    /// Initializes a module, and tells what happened.
    ///
    /// # Errors
    ///
    /// As for [`Wizer::run`].
    ///
    /// ```
    /// let wat = r#"(module (func (export "wizer.initialize")))"#;
    /// let outcome = wizer::Wizer::new().snapshot(wat.as_bytes())?;
    /// assert!(outcome.report.warnings.is_empty());
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn snapshot(&self, wasm: &[u8]) -> Result<Outcome, Error> {
        self.snapshot_or_output(wasm)
            .map_err(|failure| failure.error)
    }

    /// As [`Wizer::snapshot`], and keeps the guest's captured output of a run that failed.
    pub(crate) fn snapshot_or_output(&self, wasm: &[u8]) -> Result<Outcome, Box<Failure>> {
        let mut options = self.options.clone();
        if options.timeout.is_some() || options.interrupt.is_some() {
            // Of its own, as a deadline ends this run and no other.
            options.interrupt = Some(options.interrupt.unwrap_or_default().child());
        }
        let result = pipeline(wasm, &options, self.make_linker.as_deref());
        if let Some(interrupt) = &options.interrupt {
            interrupt.over();
        }
        result
    }
}

/// A run that failed, and what the guest wrote until then.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub stdout: Option<Vec<u8>>,
    pub stderr: Option<Vec<u8>>,
}

impl From<Error> for Box<Failure> {
    fn from(error: Error) -> Self {
        Box::new(Failure {
            error,
            stdout: None,
            stderr: None,
        })
    }
}

/// The pipeline: parse, instrument, compile, initialize, snapshot, rewrite.
fn pipeline(
    wasm: &[u8],
    options: &Options,
    make_linker: Option<&LinkerMaker>,
) -> Result<Outcome, Box<Failure>> {
    let mut clock = Clock::new(options.progress.as_ref());
    clock.begin(Phase::Parse);
    let wasm = to_binary(wasm)?;
    let module = Module::parse(&wasm)?;
    let plan = Plan::new(&module, options)?;
    let sources = read_preloads(&options.preloads)?;

    clock.begin(Phase::Instrument);
    let main = Prepared::new(module);
    let preloads = sources
        .iter()
        .map(|bytes| Ok(Prepared::new(Module::parse(bytes)?)))
        .collect::<Result<Vec<_>, Error>>()?;

    clock.begin(Phase::Compile);
    let mut compiled = compile(&main, &preloads, options, make_linker)?;

    clock.begin(Phase::Initialize);
    if let (Some(limit), Some(interrupt)) = (options.timeout, &options.interrupt) {
        interrupt
            .watch(limit)
            .map_err(|e| Error::internal(format!("no thread for the timeout: {e}")))?;
    }
    let names: Vec<&str> = options.preloads.iter().map(|p| p.name.as_str()).collect();
    let run = on_large_stack(|| initialize(&mut compiled, &plan, &main, &preloads, &names))
        .and_then(|run| run)
        .and_then(|run| match &options.interrupt {
            Some(interrupt) => interrupt.check().map(|()| run),
            None => Ok(run),
        });
    let (stdout, stderr) = match &compiled.engine.host().wasi {
        Some(wasi) => (wasi.stdout.take(), wasi.stderr.take()),
        None => (None, None),
    };
    let written = |error| {
        Box::new(Failure {
            error,
            stdout: stdout.clone(),
            stderr: stderr.clone(),
        })
    };
    let run = run.map_err(written)?;

    clock.begin(Phase::Snapshot);
    if !options.allow_preload_changes {
        check_preloads(&mut compiled, &run, &preloads, &names).map_err(written)?;
    }
    let (host_calls, mut warnings) = host_report(&mut compiled);
    warnings.splice(0..0, plan.warnings);
    let mut live = Live {
        engine: &mut compiled.engine,
        instance: run.main.0,
        names: &main.code.names,
    };
    let snapshot =
        Snapshot::capture(&mut live, &main.module, &main.code, &run.main.1).map_err(written)?;

    clock.begin(Phase::Rewrite);
    let rewritten = rewrite(&main.module, &snapshot, &plan.exports).map_err(written)?;
    let memories = memory_report(&main.module, &snapshot);
    drop(snapshot);
    let report = Report {
        engine: EngineReport {
            name: compiled.engine.name().into(),
            reason: compiled.reason,
        },
        phases: clock.finish(),
        input_bytes: wasm.len() as u64,
        output_bytes: rewritten.bytes.len() as u64,
        code_shift: rewritten.code_shift,
        memories,
        baked: BakedReport::count(&host_calls),
        host_calls,
        assumed_globals: assumed_globals(&main.module),
        dropped_sections: rewritten.dropped_sections,
        warnings,
    };
    Ok(Outcome {
        wasm: rewritten.bytes,
        report,
        stdout,
        stderr,
    })
}

/// The module in the binary format, whichever of the two formats it is given in.
fn to_binary(wasm: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    // Text begins with a parenthesis or a comment; anything else is for the binary parser to
    // judge, which says what is wrong with it.
    match wasm.trim_ascii_start().first() {
        Some(b'(' | b';') => wat::parse_bytes(wasm).map_err(|error| Error::InvalidText {
            message: error.to_string(),
        }),
        _ => Ok(Cow::Borrowed(wasm)),
    }
}

/// What the options mean for this module.
struct Plan {
    init_func: String,
    /// Whether `_initialize` is to be called before it.
    reactor: bool,
    exports: Exports,
    warnings: Vec<String>,
}

impl Plan {
    fn new(module: &Module<'_>, options: &Options) -> Result<Plan, Error> {
        let init_func = find_init_func(module, options)?;
        let mut warnings = Vec::new();
        let rename = renames(module, options, &mut warnings)?;
        let reactor = module
            .export(REACTOR_INIT)
            .is_some_and(|export| module.is_initializer(export));
        let mut remove = Vec::new();
        if !options.keep_init_func {
            remove.push(init_func.clone());
        }
        if reactor && init_func != REACTOR_INIT {
            remove.push(REACTOR_INIT.to_string());
        }
        Ok(Plan {
            reactor: reactor && init_func != REACTOR_INIT,
            init_func,
            exports: Exports { remove, rename },
            warnings,
        })
    }
}

fn find_init_func(module: &Module<'_>, options: &Options) -> Result<String, Error> {
    let names: Vec<&str> = match &options.init_func {
        Some(name) => vec![name],
        None => DEFAULT_INIT_FUNCS.to_vec(),
    };
    let candidates = || {
        let fits = module.exports.iter().filter(|e| module.is_initializer(e));
        fits.map(|e| e.name.to_string()).collect()
    };
    let Some(export) = names.iter().find_map(|name| module.export(name)) else {
        return Err(Error::InitFuncMissing {
            names: names.into_iter().map(Into::into).collect(),
            candidates: candidates(),
        });
    };
    if !module.is_initializer(export) {
        let found = match export.kind {
            ExternKind::Func => match module.function_type(export.index) {
                Some(ty) => format!(
                    "a function with {} parameters and {} results",
                    ty.params().len(),
                    ty.results().len()
                ),
                None => "a function".into(),
            },
            ExternKind::Table => "a table".into(),
            ExternKind::Memory => "a memory".into(),
            ExternKind::Global => "a global".into(),
            ExternKind::Tag => "a tag".into(),
        };
        return Err(Error::InitFuncType {
            name: export.name.into(),
            found,
            candidates: candidates(),
        });
    }
    Ok(export.name.into())
}

/// New names by old names.
fn renames(
    module: &Module<'_>,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut by_source = BTreeMap::new();
    let mut destinations = BTreeSet::new();
    for (new, old) in &options.renames {
        let duplicate = |side, name: &String| Error::DuplicateRename {
            side,
            name: name.clone(),
        };
        if !destinations.insert(new) {
            return Err(duplicate("destination", new));
        }
        if by_source.insert(old.clone(), new.clone()).is_some() {
            return Err(duplicate("source", old));
        }
    }
    by_source.retain(|old, new| {
        let exported = module.export(old).is_some();
        if !exported {
            warnings.push(format!(
                "the rename of `{old}` to `{new}` did nothing: the module does not export `{old}`"
            ));
        }
        exported
    });
    Ok(by_source)
}

fn read_preloads(preloads: &[Preload]) -> Result<Vec<Vec<u8>>, Error> {
    let read = |preload: &Preload| {
        let bytes = match &preload.source {
            PreloadSource::Bytes(bytes) => bytes.clone(),
            PreloadSource::File(path) => std::fs::read(path).map_err(|source| Error::Io {
                action: "open the preloaded module",
                path: path.clone(),
                source,
            })?,
        };
        Ok(to_binary(&bytes)?.into_owned())
    };
    preloads.iter().map(read).collect()
}

/// A module and its instrumented twin.
struct Prepared<'a> {
    module: Module<'a>,
    code: Instrumented,
}

impl<'a> Prepared<'a> {
    fn new(module: Module<'a>) -> Self {
        let code = instrument(&module);
        Prepared { module, code }
    }
}

/// An engine with all modules loaded.
struct Compiled {
    engine: Compiler,
    /// Why this engine.
    reason: String,
    main: ModuleId,
    preloads: Vec<ModuleId>,
}

/// Loads the modules into the engine that the options ask for, or the first that can.
fn compile(
    main: &Prepared<'_>,
    preloads: &[Prepared<'_>],
    options: &Options,
    make_linker: Option<&LinkerMaker>,
) -> Result<Compiled, Error> {
    let (strategies, mut reason) = match options.engine {
        options::Engine::Auto => (
            &[Strategy::Baseline, Strategy::Optimizing][..],
            "the compiler that is done first".to_string(),
        ),
        options::Engine::Baseline => (&[Strategy::Baseline][..], "asked for".into()),
        options::Engine::Optimizing => (&[Strategy::Optimizing][..], "asked for".into()),
    };
    let mut last = None;
    for &strategy in strategies {
        let load = || {
            let mut engine = Compiler::new(strategy, options, make_linker)?;
            let load = |engine: &mut Compiler, p: &Prepared<'_>| engine.load(&p.module, &p.code);
            let preloads = preloads
                .iter()
                .map(|p| load(&mut engine, p))
                .collect::<Result<_, _>>()?;
            let main = load(&mut engine, main)?;
            Ok((engine, main, preloads))
        };
        match load() {
            Ok((engine, main, preloads)) => {
                return Ok(Compiled {
                    engine,
                    reason,
                    main,
                    preloads,
                });
            }
            Err(Error::Unsupported { message }) => {
                // A module that no engine can compile is most often not valid, and then the
                // error names the place in the input rather than in its instrumented twin.
                for prepared in preloads.iter().chain([main]) {
                    validate(prepared.module.bytes, &options.features)?;
                }
                reason = format!("Winch cannot compile it: {message}");
                last = Some(Error::Unsupported { message });
            }
            Err(other) => return Err(other),
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("no engine was tried")))
}

/// The instances of a run, each with its state before any of its code ran.
struct Run {
    main: (InstanceId, Baseline),
    preloads: Vec<(InstanceId, Baseline)>,
}

/// Instantiates everything and runs what is to be run, each function once: the start function,
/// the reactor's `_initialize`, the initialization function.
fn initialize(
    compiled: &mut Compiled,
    plan: &Plan,
    main: &Prepared<'_>,
    preloads: &[Prepared<'_>],
    names: &[&str],
) -> Result<Run, Error> {
    let engine: &mut dyn Engine = &mut compiled.engine;
    let mut preloaded = Vec::new();
    for ((prepared, module), name) in preloads.iter().zip(&compiled.preloads).zip(names) {
        let instance = engine.instantiate(*module, Some(name))?;
        start(engine, instance, prepared)?;
        if let Some(export) = prepared.module.export(REACTOR_INIT)
            && prepared.module.is_initializer(export)
        {
            engine.call(instance, REACTOR_INIT, REACTOR_INIT, &[])?;
        }
        preloaded.push(instance);
    }
    let instance = engine.instantiate(compiled.main, None)?;

    // After instantiation, as the output's instantiation repeats what it does to imports.
    let mut baselines = Vec::new();
    for (instance, prepared) in preloaded.into_iter().zip(preloads) {
        let mut live = live(engine, instance, prepared);
        let baseline = Baseline::capture_all(&mut live, &prepared.module, &prepared.code)?;
        baselines.push((instance, baseline));
    }
    let baseline = Baseline::capture(&mut live(engine, instance, main), &main.module, &main.code)?;

    start(engine, instance, main)?;
    if plan.reactor {
        engine.call(instance, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
    engine.call(instance, &plan.init_func, &plan.init_func, &[])?;
    Ok(Run {
        main: (instance, baseline),
        preloads: baselines,
    })
}

/// Runs the start function that instrumentation took out.
fn start(
    engine: &mut dyn Engine,
    instance: InstanceId,
    prepared: &Prepared<'_>,
) -> Result<(), Error> {
    if prepared.module.start.is_some() {
        engine.call(instance, &prepared.code.names.start(), "start", &[])?;
    }
    Ok(())
}

fn live<'e>(
    engine: &'e mut dyn Engine,
    instance: InstanceId,
    prepared: &'e Prepared<'_>,
) -> Live<'e> {
    Live {
        engine,
        instance,
        names: &prepared.code.names,
    }
}

/// The output does not carry preloaded modules, so their state must be what it was.
fn check_preloads(
    compiled: &mut Compiled,
    run: &Run,
    preloads: &[Prepared<'_>],
    names: &[&str],
) -> Result<(), Error> {
    for (((instance, baseline), prepared), name) in run.preloads.iter().zip(preloads).zip(names) {
        let mut live = live(&mut compiled.engine, *instance, prepared);
        baseline
            .check(&mut live, &prepared.module, &prepared.code)
            .map_err(|error| match error {
                Error::Unrepresentable { item, change, .. } => Error::Unrepresentable {
                    item: format!("{item} of the preloaded module `{name}`"),
                    change,
                    help: Some(
                        "the output does not carry preloaded modules; allow it with \
                         --allow-preload-changes (allowPreloadChanges in JavaScript) if the \
                         output will find that state in place"
                            .into(),
                    ),
                },
                other => other,
            })?;
    }
    Ok(())
}

/// What the host was asked, and what of it a user should know.
fn host_report(compiled: &mut Compiled) -> (Vec<HostCallReport>, Vec<String>) {
    let host = compiled.engine.host();
    let calls = host
        .calls
        .iter()
        .map(|((module, name), calls)| HostCallReport {
            module: module.clone(),
            name: name.clone(),
            calls: *calls,
        })
        .collect();
    let mut warnings = Vec::new();
    let open = host.wasi.as_ref().map_or(0, |wasi| wasi.open.len());
    if open > 0 {
        warnings.push(format!(
            "the initialization left {open} file descriptor{} open, which will not exist when \
             the output runs; close files before the initialization ends",
            if open == 1 { "" } else { "s" }
        ));
    }
    (calls, warnings)
}

fn memory_report(module: &Module<'_>, snapshot: &Snapshot<'_>) -> Vec<MemoryReport> {
    let report = |memory: &crate::snapshot::MemorySnapshot<'_>| MemoryReport {
        index: memory.index,
        pages_before: module.memories.get(memory.index).map_or(0, |ty| ty.initial),
        pages_after: memory.pages,
        segments: memory.segments.len() as u64,
        bytes: memory.segments.iter().map(|s| s.len() as u64).sum(),
    };
    snapshot.memories.iter().map(report).collect()
}

fn assumed_globals(module: &Module<'_>) -> Vec<String> {
    let is_assumed =
        |ty: &wasmparser::TypeRef| matches!(ty, wasmparser::TypeRef::Global(g) if !g.mutable);
    let imports = module.imports.iter().filter(|i| is_assumed(&i.ty));
    imports
        .map(|i| format!("{}::{}", i.module, i.name))
        .collect()
}

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
    /// ```
    /// let wat = r#"(module (func (export "wizer.initialize")))"#;
    /// let wasm = wizer::Wizer::new().keep_init_func(true).run(wat.as_bytes())?;
    /// assert!(wasm.windows(16).any(|w| w == b"wizer.initialize"));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn keep_init_func(&mut self, keep: bool) -> &mut Self {
        self.options.keep_init_func = keep;
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
    pub fn dir(&mut self, path: impl Into<std::path::PathBuf>) -> &mut Self {
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
    pub fn map_dir(
        &mut self,
        guest: impl Into<String>,
        host: impl Into<std::path::PathBuf>,
    ) -> &mut Self {
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
        host: impl Into<std::path::PathBuf>,
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
    pub fn preload(
        &mut self,
        name: impl Into<String>,
        file: impl Into<std::path::PathBuf>,
    ) -> &mut Self {
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
    ///         let memory = guest.memory("memory").ok_or("no memory")?;
    ///         memory[at as usize..][..5].copy_from_slice(b"wizer");
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

    /// The longest time that instantiation and initialization may take. Default: no limit.
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
