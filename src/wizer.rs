//! The whole story: bytes in, initialized bytes out.

mod builder;
mod facts;
mod modules;
mod plan;
mod steps;

use std::borrow::Cow;
use std::rc::Rc;

use crate::engine::tier::Job;
use crate::engine::{Engine, Prepared, StoreData};
use crate::error::Error;
use crate::instrument::{Names, observer};
use crate::module::{Module, Validation};
use crate::options::{Options, Phase, Preload, PreloadSource};
use crate::report::{BakedReport, Clock, EngineReport, Report};
use crate::rewrite::rewrite;
use facts::{assumed_globals, host_report, memory_report};
use modules::Modules;
use plan::Plan;
use steps::Run;

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
    let preloads = || options.preloads.iter().map(|preload| preload.name.as_str());
    let observer = observer(&module);
    let mut inputs = Vec::new();
    for (bytes, name) in sources.iter().zip(preloads()) {
        inputs.push(Module::parse(bytes).map_err(|error| error.in_preload(name))?);
    }
    if let Some(observer) = &observer {
        inputs.push(Module::parse(observer)?);
    }
    inputs.push(module);

    std::thread::scope(|scope| {
        let labelled = sources.iter().map(Vec::as_slice).zip(preloads().map(Some));
        let to_validate = labelled.chain([(&*wasm, None)]).collect();
        let validation = Validation::begin(scope, to_validate, &options.features)?;

        clock.begin(Phase::Instrument);
        let names = Names::new(&inputs);
        let prepared = inputs.into_iter().map(|m| Prepared::new(m, &names));
        let mut modules = Modules::new(prepared.collect(), preloads().map(Into::into).collect());

        let job = Job {
            modules: modules.all(),
            options,
            make_linker,
            validation: &validation,
        };
        let ran = job.run(&mut clock, &|engine| initialize(engine, &plan, &modules));
        let mut ran = match ran {
            Ok(ran) => ran,
            // An engine may well refuse what is not valid.
            Err(error) => return Err(validation.wait().err().unwrap_or(error).into()),
        };
        modules.have_run();
        let engine = &mut *ran.engine;
        let written = ran.result.and_then(|run| {
            clock.begin(Phase::Snapshot);
            if !options.allow_preload_changes {
                steps::check_preloads(engine, &run, &modules)?;
            }
            let mut live = steps::live_main(engine, &run, &modules);
            let snapshot = steps::capture(&mut live, &run, &modules, plan.max_segments)?;

            clock.begin(Phase::Rewrite);
            let module = &modules.main().module;
            let rewritten = rewrite(module, &snapshot, &plan.exports)?;
            Ok((rewritten, memory_report(module, &snapshot)))
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
            assumed_globals: assumed_globals(&modules.main().module),
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

/// Instantiates everything and runs what is to be run, each function once: the start function,
/// the reactor's `_initialize`, the initialization function.
fn initialize(engine: &mut dyn Engine, plan: &Plan, modules: &Modules<'_>) -> Result<Run, Error> {
    let run = steps::instantiate(engine, modules)?;
    if plan.reactor {
        engine.call(run.main, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
    engine.call(run.main, &plan.init_func, &plan.init_func, &[])?;
    Ok(run)
}
