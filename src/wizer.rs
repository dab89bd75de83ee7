//! The whole story: bytes in, initialized bytes out.

mod builder;
mod facts;
mod modules;
pub(crate) mod plan;
mod provided;
pub(crate) mod sources;
pub(crate) mod steps;

use std::rc::Rc;

use crate::engine::tier::{self, Job};
use crate::engine::{Engine, StoreData, call_to_end};
use crate::error::Error;
use crate::host::HostState;
use crate::module::{Module, Validation};
use crate::options::{Options, Phase};
use crate::report::{Clock, Report};
use crate::session::Session;
use modules::Modules;
use plan::Plan;
use sources::{Sources, to_binary};
use steps::Run;

/// The export that WASI reactors are initialized by, before anything else.
pub(crate) const REACTOR_INIT: &str = "_initialize";

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

    /// Instantiates a module, to be called and written step by step. Nothing but its start function
    /// has run then.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a module that cannot be instantiated.
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module
    ///   (global $n (mut i32) (i32.const 0))
    ///   (func (export "add") (param i32) (result i32)
    ///     (global.set $n (i32.add (global.get $n) (local.get 0)))
    ///     (global.get $n)))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.call("add", &[Value::I32(40)])?, [Value::I32(40)]);
    /// assert_eq!(session.call("add", &[Value::I32(2)])?, [Value::I32(42)]);
    /// let outcome = session.snapshot()?;
    /// // A new instance goes on from there.
    /// let mut session = wizer::Wizer::new().session(&outcome.wasm)?;
    /// assert_eq!(session.call("add", &[Value::I32(0)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn session(&self, wasm: &[u8]) -> Result<Session, Error> {
        self.session_or_output(wasm)
            .map_err(|failure| failure.error)
    }

    /// As [`Wizer::session`], and keeps the guest's captured output of a start that failed.
    pub(crate) fn session_or_output(&self, wasm: &[u8]) -> Result<Session, Box<Failure>> {
        Session::open(wasm, self.options.clone(), self.make_linker.as_deref())
    }

    /// As [`Wizer::snapshot`], and keeps the guest's captured output of a run that failed.
    pub(crate) fn snapshot_or_output(&self, wasm: &[u8]) -> Result<Outcome, Box<Failure>> {
        let mut options = self.options.clone();
        options.features.legacy_exceptions = options.may_use_host_engine();
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

impl Failure {
    /// With what the guest has written.
    pub fn of(error: Error, host: &mut HostState) -> Box<Failure> {
        let (stdout, stderr) = host.captured();
        Box::new(Failure {
            error,
            stdout,
            stderr,
        })
    }
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
    tier::prepare(options, wasm.len(), false);
    let module = Module::parse(&wasm)?;
    let plan = Plan::new(&module, options)?;
    let sources = Sources::read(&module, options)?;

    std::thread::scope(|scope| {
        let validation = Validation::begin(scope, sources.of(&wasm), &options.features)?;

        clock.begin(Phase::Instrument);
        let mut modules = sources.instrument(module)?;
        let job = Job {
            modules: modules.all(),
            options,
            make_linker,
            goes_on: false,
            validation: &validation,
        };
        let ran = job.run(&mut clock, &|engine| {
            initialize(engine, &plan, &modules, options)
        });
        let mut ran = match ran {
            Ok(ran) => ran,
            // An engine may well refuse what is not valid.
            Err(error) => return Err(validation.wait().err().unwrap_or(error).into()),
        };
        modules.have_run();
        let engine = &mut *ran.engine;
        let written = ran
            .result
            .and_then(|run| steps::write(engine, &run, &modules, &plan, &mut clock));

        clock.begin(Phase::Validate);
        validation.wait()?;
        let released = engine.host().release(options.timeout);
        let written = written.and_then(|written| released.map(|()| written));
        match written {
            Ok(written) => Ok(written.outcome(engine, ran.reason, clock)),
            Err(error) => Err(Failure::of(error, engine.host())),
        }
    })
}

/// Instantiates everything and runs what is to be run, each function once: the start function,
/// the reactor's `_initialize`, what the user asks for, the initialization function.
fn initialize(
    engine: &mut dyn Engine,
    plan: &Plan,
    modules: &Modules<'_>,
    options: &Options,
) -> Result<Run, Error> {
    let run = steps::instantiate(engine, modules, options)?;
    if plan.reactor {
        call_to_end(engine, run.main, REACTOR_INIT, REACTOR_INIT, &[])?;
    }
    for (name, args) in &plan.invoke {
        call_to_end(engine, run.main, name, name, args)?;
    }
    if let Some(name) = &plan.init_func {
        call_to_end(engine, run.main, name, name, &[])?;
    }
    Ok(run)
}
