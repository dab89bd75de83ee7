//! The whole story: bytes in, initialized bytes out.

mod builder;
mod facts;
mod plan;

use std::borrow::Cow;
use std::rc::Rc;

use wasmparser::TypeRef;

use crate::engine::tier::Job;
use crate::engine::{Engine, InstanceId, Live, Prepared, StoreData};
use crate::error::Error;
use crate::instrument::Names;
use crate::module::{Module, Validation};
use crate::options::{Options, Phase, Preload, PreloadSource};
use crate::report::{BakedReport, Clock, EngineReport, Report};
use crate::rewrite::rewrite;
use crate::snapshot::{Baseline, Snapshot};
use facts::{assumed_globals, host_report, memory_report};
use plan::Plan;

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

/// The pipeline: parse, instrument, initialize, snapshot, rewrite; and validate beside them.
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
    let preload_names: Vec<&str> = options.preloads.iter().map(|p| p.name.as_str()).collect();
    let mut inputs = Vec::new();
    for (bytes, name) in sources.iter().zip(&preload_names) {
        inputs.push(Module::parse(bytes).map_err(|error| error.in_preload(name))?);
    }
    inputs.push(module);

    std::thread::scope(|scope| {
        let labels = preload_names.iter().copied().map(Some).chain([None]);
        let to_validate = inputs.iter().map(|m| m.bytes).zip(labels).collect();
        let validation = Validation::begin(scope, to_validate, &options.features)?;

        clock.begin(Phase::Instrument);
        let names = Names::new(&inputs);
        let mut modules: Vec<_> = inputs
            .into_iter()
            .map(|module| Prepared::new(module, &names))
            .collect();

        let job = Job {
            modules: &modules,
            options,
            make_linker,
            validation: &validation,
        };
        let ran = job.run(&mut clock, &|engine| {
            initialize(engine, &plan, &modules, &preload_names)
        });
        let mut ran = match ran {
            Ok(ran) => ran,
            // An engine may well refuse what is not valid.
            Err(error) => return Err(validation.wait().err().unwrap_or(error).into()),
        };
        modules.iter_mut().for_each(Prepared::has_run);
        let engine = &mut *ran.engine;
        let written = ran.result.and_then(|run| {
            clock.begin(Phase::Snapshot);
            if !options.allow_preload_changes {
                check_preloads(engine, &run, &modules, &preload_names)?;
            }
            let main = modules.last().expect("the module itself");
            let mut live = live(engine, run.main.0, main);
            let (baseline, limit) = (&run.main.1, plan.max_segments);
            let snapshot = Snapshot::capture(&mut live, &main.module, &main.code, baseline, limit)?;

            clock.begin(Phase::Rewrite);
            let rewritten = rewrite(&main.module, &snapshot, &plan.exports)?;
            Ok((rewritten, memory_report(&main.module, &snapshot)))
        });

        clock.begin(Phase::Validate);
        validation.wait()?;
        let released = engine.host().release();
        let (stdout, stderr) = engine.host().captured();
        let failed = |error| {
            Box::new(Failure {
                error,
                stdout: stdout.clone(),
                stderr: stderr.clone(),
            })
        };
        let (rewritten, memories) = written.map_err(failed)?;
        released.map_err(failed)?;

        let (host_calls, mut warnings) = host_report(engine.host());
        warnings.splice(0..0, plan.warnings.iter().cloned());
        let main = modules.last().expect("the module itself");
        let report = Report {
            engine: EngineReport {
                name: engine.name().into(),
                reason: ran.reason,
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
        let binary = to_binary(&bytes).map_err(|error| error.in_preload(&preload.name))?;
        Ok(binary.into_owned())
    };
    preloads.iter().map(read).collect()
}

/// The instances of a run, each with its state before any of its code ran.
struct Run {
    main: (InstanceId, Baseline),
    preloads: Vec<(InstanceId, Baseline)>,
}

/// Instantiates everything and runs what is to be run, each function once: the start function,
/// the reactor's `_initialize`, the initialization function.
fn initialize(
    engine: &mut dyn Engine,
    plan: &Plan,
    modules: &[Prepared<'_>],
    preload_names: &[&str],
) -> Result<Run, Error> {
    let (main, preloads) = modules.split_last().expect("the module itself");
    let mut preloaded = Vec::new();
    for (index, (prepared, name)) in preloads.iter().zip(preload_names).enumerate() {
        let instance = preload(engine, index, prepared, name).map_err(|e| e.in_preload(name))?;
        preloaded.push(instance);
    }
    let instance = engine.instantiate(preloads.len(), None)?;

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

/// Instantiates a module to import from, and runs its own initialization.
fn preload(
    engine: &mut dyn Engine,
    index: usize,
    prepared: &Prepared<'_>,
    name: &str,
) -> Result<InstanceId, Error> {
    let instance = engine.instantiate(index, Some(name))?;
    start(engine, instance, prepared)?;
    if let Some(export) = prepared.module.export(REACTOR_INIT)
        && prepared.module.is_initializer(export)
    {
        engine.call(instance, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
    Ok(instance)
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
    engine: &mut dyn Engine,
    run: &Run,
    modules: &[Prepared<'_>],
    names: &[&str],
) -> Result<(), Error> {
    let main = modules.last().expect("the module itself");
    for (((instance, baseline), prepared), name) in run.preloads.iter().zip(modules).zip(names) {
        // What it imports besides functions is state of its own as well, and is compared again.
        let shares = main.module.imports.iter().any(|import| {
            import.module == *name && !matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_))
        });
        let mut live = live(engine, *instance, prepared);
        baseline
            .check(&mut live, &prepared.module, &prepared.code)
            .map_err(|error| match error {
                Error::Unrepresentable { item, change, .. } => Error::Unrepresentable {
                    item: format!("{item} of the preloaded module `{name}`"),
                    change,
                    help: Some(match shares {
                        true => "the output does not carry preloaded modules".into(),
                        false => "the output does not carry preloaded modules; allow it with \
                                  --allow-preload-changes (allowPreloadChanges in JavaScript) if \
                                  the output will find that state in place"
                            .into(),
                    }),
                },
                other => other,
            })?;
    }
    Ok(())
}
