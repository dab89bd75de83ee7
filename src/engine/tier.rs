//! Which engine runs a module: the interpreter at once, compiled code where that pays.
//!
//! Compiling a module takes longer than most initialization functions run, so the interpreter
//! begins at once, in a run that may be thrown away ([`crate::host::speculation`]). Compiled
//! code takes over, from the start of the run, when it is there before the interpreter is done,
//! or when the run comes to something that must not happen twice. It comes from the cache, or
//! from a compiler that starts beside the interpreter once that has taken about as long as
//! compiling would: so a run takes at most about twice as long as with the better of the two.
//!
//! Where the process has an engine of its own ([`super::HostEngine`]), that takes the compiler's
//! place for all but small modules: it has hardly anything to do before it begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::compiler::{Compiler, MakeLinker, Settings, Strategy};
use super::interpreter::Interpreter;
use super::making::{Kept, Making, Order, Recipe};
use super::stack::on_large_stack;
use super::{Engine, Loading, Prepared, Progress};
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::host::speculation::Speculation;
use crate::host::stdio::Tape;
use crate::host::{HostState, Imports};
use crate::module::{Validation, legacy_exceptions, section};
use crate::options::{self, CacheLocation, Options, Phase};
use crate::report::Clock;
use wasmparser::ValType;

/// How long this thread has worked, in processor time: on a machine that is busy with other
/// things, the interpreter is not slower than a compiler would be. The thread is one that was
/// made for the run, at about the time `began`.
#[cfg(unix)]
fn time_of_thread(_began: Instant) -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long the run has taken.
#[cfg(not(unix))]
fn time_of_thread(began: Instant) -> Duration {
    began.elapsed()
}

/// How long the interpreter may take, in processor time.
///
/// A compiler needs about as long for each MB of code as [`COMPILING_PER_MB`] says. With several
/// processors it starts well before that beside the interpreter, when most initializations are
/// over: one that turns out not to be needed costs nobody time. With two, the interpreter then
/// takes one of them from it, and gives that up when it has taken about as long as the compiler
/// still needs with both; with one, where each only waits for the other, there is no *beside*.
/// So a run takes at most about twice as long as with the better of the two.
struct Budget {
    /// Before the host's engine begins.
    before_host: Duration,
    /// Before a compiler starts.
    alone: Duration,
    /// Before it is left to the compiler.
    beside: Duration,
}

/// What Winch needs for each MB of code. Measured on two processors: 90 to 130 ms.
const COMPILING_PER_MB: Duration = Duration::from_millis(100);

/// What any run may take before the cache is looked at: that takes a thread and the making of
/// two compilers, which is much for a run that is over by then.
const BEFORE_LOOKING: Duration = Duration::from_millis(5);

/// What any run may take before a compiler starts.
const LEAST_BUDGET: Duration = Duration::from_millis(20);

impl Budget {
    fn of(code_size: usize) -> Budget {
        let compiling = COMPILING_PER_MB.mul_f64(code_size as f64 / 1e6);
        let (alone, beside) = match std::thread::available_parallelism().map_or(1, |n| n.get()) {
            1 => (compiling, compiling),
            2 => (compiling / 4, compiling * 2 / 3),
            _ => (compiling / 4, Duration::MAX),
        };
        Budget {
            before_host: BEFORE_HOST.0 + BEFORE_HOST.1.mul_f64(code_size as f64 / 1e6),
            alone: LEAST_BUDGET + alone,
            beside: LEAST_BUDGET.saturating_add(beside),
        }
    }
}

/// Up to this much code, in bytes, Cranelift is as good as done when Winch is (some 40 ms later
/// at most), and its code runs up to twice as fast.
const SMALL: usize = 128 << 10;

/// From this much code on, in bytes, compiled code is kept: it takes some 20 ms to make, and
/// longer than to read it back.
const WORTH_KEEPING: usize = 128 << 10;

/// Up to this much code, in bytes, a run that takes long is better compiled: Winch is done about as soon
/// as the thread of the host's engine has begun, some 40 ms, and its code is faster than what that makes
/// at first.
const SMALL_FOR_HOST: usize = 1 << 20;

/// From this size of modules on, in bytes, the host's engine runs them at once: it is done before
/// the interpreter with all but the shortest initializations.
const LARGE: usize = 5 << 20;

/// What any run may take before the host's engine is begun beside it, and how much longer for each
/// MB of code.
const BEFORE_HOST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(20));

/// How long the host's engine may take to load before a compiler is started as well: the thread
/// that has to make one may be busy.
const PATIENCE_WITH_HOST: Duration = Duration::from_secs(1);

/// How often a run that wants input looks whether the modules were found valid.
const VERDICT_WAIT: Duration = Duration::from_millis(1);

/// A run to be done.
pub struct Job<'j, 'a> {
    /// In the order of their instantiation.
    pub modules: &'j [Prepared<'a>],
    pub options: &'j Options,
    pub make_linker: Option<&'j MakeLinker>,
    /// Whether more calls follow, which cannot be repeated on another engine.
    pub goes_on: bool,
    /// Nothing may leave the process before it is over.
    pub validation: &'j Validation,
}

/// A run that was done.
pub struct Ran<T> {
    /// With everything that it left behind.
    pub engine: Box<dyn Engine>,
    /// Why this engine.
    pub reason: String,
    pub result: Result<T, Error>,
    /// The compiled code that ran, until it is in the cache.
    _code: Option<Kept>,
}

impl<T> Ran<T> {
    /// The result, and the rest.
    pub fn split(self) -> (Result<T, Error>, Ran<()>) {
        let ran = Ran {
            engine: self.engine,
            reason: self.reason,
            result: Ok(()),
            _code: self._code,
        };
        (self.result, ran)
    }
}

/// What is done with an engine.
pub type Work<'w, T> = dyn Fn(&mut dyn Engine) -> Result<T, Error> + Sync + 'w;

impl Job<'_, '_> {
    /// Has an engine do `work`, which may begin more than once; only the last one counts.
    ///
    /// # Errors
    ///
    /// Where no engine can be made, or a module is not valid. What `work` says is in [`Ran`].
    pub fn run<T: Send>(&self, clock: &mut Clock<'_>, work: &Work<'_, T>) -> Result<Ran<T>, Error> {
        let pinned = self.options.engine != options::Engine::Auto;
        let advise = |mut error| {
            if let (true, Error::Unsupported { help, .. }) = (pinned, &mut error) {
                *help = Some("leave the choice of the engine to `auto`".into());
            }
            error
        };
        let mut ran = self.run_on_some(clock, work).map_err(advise)?;
        ran.result = ran.result.map_err(advise);
        Ok(ran)
    }

    fn run_on_some<T: Send>(
        &self,
        clock: &mut Clock<'_>,
        work: &Work<'_, T>,
    ) -> Result<Ran<T>, Error> {
        let input = Tape::default();
        let (mut host, mut remark) = (None, None);
        let (mut reason, code) = match self.options.engine {
            options::Engine::Interpreter => {
                clock.begin(Phase::Compile);
                let host = self.host(&input, None)?;
                let engine = self.interpreter(host, None)?;
                self.validation.wait()?;
                return self.attempt(engine, "asked for".into(), clock, work);
            }
            options::Engine::Host => {
                clock.begin(Phase::Compile);
                let engine = self.on_host(&*self.load_on_host()?, &input)?;
                return self.attempt(engine, "asked for".into(), clock, work);
            }
            options::Engine::Baseline => ("asked for".into(), self.compile(&[Strategy::Baseline])),
            options::Engine::Optimizing => {
                ("asked for".into(), self.compile(&[Strategy::Optimizing]))
            }
            options::Engine::Auto if self.make_linker.is_some() => (
                "a custom linker works with wasmtime only".into(),
                self.compile(self.strategies()),
            ),
            options::Engine::Auto => {
                let code = self.compile(self.strategies());
                match self.prefers_host().then(|| self.load_on_host()) {
                    Some(Ok(loading)) => host = Some(loading),
                    // What does not fit is left to the others.
                    Some(Err(Error::Unsupported { message, .. })) => remark = Some(message),
                    Some(Err(other)) => return Err(other),
                    None => {}
                }
                match self.begins_compiled(host.is_some()) {
                    Some(reason) => (reason.into(), code),
                    None => {
                        let is_small = self.code_size() <= SMALL_FOR_HOST;
                        let beside = host.as_ref().filter(|_| !is_small);
                        let speculated = self.speculate(&code, beside, &input, clock, work)?;
                        let (reason, is_early) = match speculated {
                            Speculated::Done(ran) => return Ok(ran),
                            Speculated::Left { reason, is_early } => (reason, is_early),
                        };
                        host = host.filter(|_| !is_small || is_early);
                        self.hurry(&code, host.as_ref());
                        (reason, code)
                    }
                }
            }
        };
        clock.begin(Phase::Compile);
        // Where that is there first, the other keeps its thread waiting.
        if let Some(loading) = host.filter(|_| !code.is_ready()) {
            match self.run_on_host(&*loading, reason, &input, clock, work)? {
                OnHost::Done(ran) => {
                    code.order(Order::Stop);
                    return Ok(ran);
                }
                OnHost::Refused {
                    reason: why,
                    message,
                } => {
                    (reason, remark) = (why, Some(message));
                    clock.begin(Phase::Compile);
                }
            }
        }
        if self.validation.wait()?.legacy_exceptions {
            let reason = format!("{reason}; it uses legacy exceptions");
            let refused = |error| match error {
                Error::Unsupported { message, .. } => legacy_exceptions(&message),
                other => other,
            };
            let loading = self.load_on_host().map_err(refused)?;
            return match self.run_on_host(&*loading, reason, &input, clock, work)? {
                OnHost::Done(ran) => Ok(ran),
                OnHost::Refused { message, .. } => Err(legacy_exceptions(&message)),
            };
        }
        let interrupt = self.options.interrupt.as_deref();
        let (code, making) = (code.wait(interrupt)?, Kept(code));
        for remark in remark.iter().chain(&code.remark) {
            reason = format!("{reason}; {remark}");
        }
        let host = self.host(&input, None)?;
        let imports = self.imports();
        let engine = Compiler::new(code.code, self.modules, host, imports, self.make_linker)?;
        let mut ran = self.attempt(Box::new(engine), reason, clock, work)?;
        ran._code = Some(making);
        Ok(ran)
    }

    /// Runs on the host's engine, as far as that does what the module needs.
    fn run_on_host<T: Send>(
        &self,
        loading: &dyn Loading,
        reason: String,
        input: &Tape,
        clock: &mut Clock<'_>,
        work: &Work<'_, T>,
    ) -> Result<OnHost<T>, Error> {
        let engine = match self.on_host(loading, input) {
            Ok(engine) => engine,
            Err(Error::Unsupported { message, .. }) => {
                return Ok(OnHost::Refused { reason, message });
            }
            Err(other) => return Err(other),
        };
        let mut ran = self.attempt(engine, reason, clock, work)?;
        match ran.result {
            // Nobody has seen anything of it yet.
            Err(Error::Unsupported { message, .. }) if ran.engine.host().calls.is_empty() => {
                let reason = ran.reason;
                Ok(OnHost::Refused { reason, message })
            }
            result => Ok(OnHost::Done(Ran { result, ..ran })),
        }
    }

    /// Interprets, as long as nothing happens that must not happen twice, and until compiled
    /// code is there.
    fn speculate<T: Send>(
        &self,
        code: &Making,
        loading: Option<&Arc<dyn Loading>>,
        input: &Tape,
        clock: &mut Clock<'_>,
        work: &Work<'_, T>,
    ) -> Result<Speculated<T>, Error> {
        clock.begin(Phase::Compile);
        input.record();
        let validation = self.validation.clone();
        let is_valid = move || loop {
            match validation.verdict() {
                Some(valid) => return valid,
                None => std::thread::sleep(VERDICT_WAIT),
            }
        };
        let speculation = Speculation::new(self.options.leave_at, Box::new(is_valid));
        let host = self.host(input, Some(speculation))?;
        let began = Instant::now();
        let budget = Budget::of(self.code_size());
        let (validation, making) = (self.validation.clone(), code.clone());
        let mut loading_beside = loading.cloned().map(Beside::new);
        let pause = move || {
            if validation.verdict() == Some(false) {
                return Some("the run of a module that is not valid".into());
            }
            let time = time_of_thread(began);
            if let Some(host) = &mut loading_beside {
                if time > budget.before_host && validation.verdict().is_some() {
                    host.begin();
                }
                match host.progress() {
                    Progress::Ready => {
                        return Some(
                            "it was done: the engine of this process was ready first".into(),
                        );
                    }
                    Progress::GoingOn => return None,
                    Progress::Failed => {}
                }
            }
            if time > BEFORE_LOOKING {
                making.order(Order::LookUp);
            }
            if time > budget.alone && validation.verdict().is_some() {
                making.order(Order::Compile);
            }
            if making.is_ready() {
                return Some("it was done: compiled code was ready first".into());
            }
            (making.is_compiling() && time > budget.beside)
                .then(|| "it was done: the compiler needs the processor".into())
        };
        let engine = match self.interpreter(host, Some(Box::new(pause))) {
            Ok(engine) => engine,
            Err(Error::Unsupported { message, .. }) => {
                let reason = format!("wasmi cannot run it: {message}");
                let is_early = true;
                return Ok(Speculated::Left { reason, is_early });
            }
            Err(other) => return Err(other),
        };
        let reason = "it was done before compiled code would have been";
        let mut ran = self.attempt(engine, reason.into(), clock, work)?;
        let left = match &ran.result {
            Ok(_) | Err(Error::Timeout { .. } | Error::Aborted) => None,
            Err(error) => {
                let speculation = ran.engine.host().speculation.as_ref();
                let left = speculation.and_then(Speculation::left);
                let is_early =
                    left.is_some() && !speculation.is_some_and(Speculation::took_too_much);
                let reason = match (left, error) {
                    (Some(before), _) => format!("the interpreter ended before {before}"),
                    (None, Error::Unsupported { message, .. }) => {
                        format!("wasmi cannot run it: {message}")
                    }
                    // Told with its backtrace by another engine.
                    (None, error) => format!("the interpreter ended with an error: {error}"),
                };
                Some(Speculated::Left { reason, is_early })
            }
        };
        match left {
            None => {
                code.order(Order::Stop);
                Ok(Speculated::Done(ran))
            }
            Some(left) => {
                input.rewind();
                Ok(left)
            }
        }
    }

    /// Runs on one engine.
    fn attempt<T: Send>(
        &self,
        mut engine: Box<dyn Engine>,
        reason: String,
        clock: &mut Clock<'_>,
        work: &Work<'_, T>,
    ) -> Result<Ran<T>, Error> {
        clock.begin(Phase::Initialize);
        let interrupt = engine.host().interrupt.clone();
        let result = Interrupt::during(interrupt.as_ref(), self.options.timeout, || {
            on_large_stack(|| work(&mut *engine))?
        });
        if let (Some(interrupt), false) = (interrupt, self.goes_on) {
            interrupt.over();
        }
        Ok(Ran {
            engine,
            reason,
            result,
            _code: None,
        })
    }

    fn interpreter(
        &self,
        host: HostState,
        pause: Option<super::interpreter::Pause>,
    ) -> Result<Box<dyn Engine>, Error> {
        let features = &self.options.features;
        let imports = self.imports();
        let engine = Interpreter::new(self.modules, features, host, imports, pause)?;
        Ok(Box::new(engine))
    }

    /// Why the interpreter is not to begin, where that is so.
    fn begins_compiled(&self, has_host: bool) -> Option<&'static str> {
        let is_large = |prepared: &Prepared<'_>| prepared.module.bytes.len() >= LARGE;
        match (self.goes_on, has_host) {
            (true, _) => Some("a session stays with its engine"),
            (_, true) if self.modules.iter().any(is_large) => Some("the module is large"),
            _ => None,
        }
    }

    /// Whether the engine of the process that this is a part of is the one for what the interpreter
    /// does not do. Small modules are compiled before it would have begun, some state it does not
    /// show, and a session that modules will be linked to may come to what it does not do.
    fn prefers_host(&self) -> bool {
        let options = self.options;
        let is_shown = |prepared: &Prepared<'_>| {
            let globals = prepared.module.globals.all();
            let globals = globals.map(|(_, global)| global.ty.content_type);
            let tables = prepared.module.tables.all();
            let tables = tables.map(|(_, table)| ValType::Ref(table.ty.element_type));
            globals.chain(tables).all(|ty| match ty {
                ValType::Ref(ty) => ty.is_func_ref() || ty.is_extern_ref(),
                _ => true,
            })
        };
        let is_linked = |prepared: &Prepared<'_>| prepared.module.is_linked_dynamically();
        options.engine == options::Engine::Auto
            && options.may_use_host_engine()
            && self.code_size() > SMALL
            && self.modules.iter().all(is_shown)
            && !(self.goes_on && self.modules.iter().any(is_linked))
    }

    /// The interpreter has given up: compiled code is wanted, where nothing better is.
    fn hurry(&self, code: &Making, loading: Option<&Arc<dyn Loading>>) {
        // A compiler that has begun cannot be stopped.
        match loading {
            Some(loading) => loading.begin(),
            None if self.validation.may_have_legacy_exceptions() => {}
            None => code.order(Order::Now),
        }
    }

    /// The modules, on the engine of the process that this is a part of.
    fn load_on_host(&self) -> Result<Arc<dyn Loading>, Error> {
        if self.options.features.relaxed_simd_deterministic {
            return Err(Error::unsupported(
                "with relaxed SIMD, the engine of the host does not compute the same on every machine",
            ));
        }
        match &self.options.host_engine {
            Some(engine) => engine.load(self.modules),
            None => Err(Error::unsupported("no host provides an engine of its own")),
        }
    }

    fn on_host(&self, loading: &dyn Loading, input: &Tape) -> Result<Box<dyn Engine>, Error> {
        loading.begin();
        // It finds only its own copy of them valid.
        self.validation.wait()?;
        loading.engine(self.modules, self.host(input, None)?, self.imports())
    }

    fn host(&self, input: &Tape, speculation: Option<Speculation>) -> Result<HostState, Error> {
        let options = self.options;
        // Of its own, as a deadline ends one attempt and no other.
        let interrupt = options
            .interrupt
            .as_ref()
            .map(|interrupt| interrupt.child());
        let added = self.modules.iter().map(|m| m.code.functions.len()).sum();
        HostState::new(
            options.allow_wasi.then_some(&options.wasi),
            options.max_memory,
            added,
            interrupt,
            input,
            speculation,
            options.allow_exit,
        )
    }

    fn imports(&self) -> Imports {
        let Options {
            imports,
            items,
            stubs,
            allow_wasi,
            ..
        } = self.options;
        Imports::new(imports, items, stubs.clone(), *allow_wasi)
    }

    /// Where compiled code is kept.
    fn cache(&self) -> Option<Cache> {
        match &self.options.cache {
            CacheLocation::OfUser => Cache::of_user(),
            CacheLocation::In(directory) => Some(Cache::new(directory)),
            CacheLocation::Off => None,
        }
    }

    /// How much code there is, in bytes.
    fn code_size(&self) -> usize {
        let size = |prepared: &Prepared<'_>| {
            let code = prepared.module.section(section::CODE);
            code.map_or(0, |section| section.contents.len())
        };
        self.modules.iter().map(size).sum()
    }

    /// The compilers to try, in this order.
    fn strategies(&self) -> &'static [Strategy] {
        match self.code_size() {
            0..=SMALL => &[Strategy::Optimizing],
            _ => &[Strategy::Baseline, Strategy::Optimizing],
        }
    }

    /// Machine code, in the making as soon as it is ordered.
    fn compile(&self, strategies: &'static [Strategy]) -> Making {
        let keep = self.code_size() >= WORTH_KEEPING;
        Making::new(Recipe {
            strategies,
            settings: Settings {
                features: self.options.features,
                interruptible: self.options.interrupt.is_some(),
                shares_memory: self.modules.iter().any(|prepared| match self.goes_on {
                    // A module that comes later may import it.
                    true => prepared.module.has_shared_memory(),
                    false => prepared.module.imports_shared_memory(),
                }),
            },
            modules: self.modules.iter().map(|m| m.code.bytes.clone()).collect(),
            cache: self.cache().filter(|_| keep),
        })
    }
}

/// An engine that is loaded beside the interpreter.
struct Beside {
    loading: Arc<dyn Loading>,
    began: Option<Instant>,
}

impl Beside {
    fn new(loading: Arc<dyn Loading>) -> Beside {
        let began = None;
        Beside { loading, began }
    }

    fn begin(&mut self) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.loading.begin();
        }
    }

    /// How far it is; what takes too long has failed.
    fn progress(&self) -> Progress {
        let is_late = |began: Instant| began.elapsed() > PATIENCE_WITH_HOST;
        match self.loading.progress() {
            Progress::GoingOn if self.began.is_some_and(is_late) => Progress::Failed,
            other => other,
        }
    }
}

/// Whether the host's engine is probably the first for a module of this size, in bytes.
fn is_for_host(options: &Options, size: usize, goes_on: bool) -> bool {
    let least = if goes_on { SMALL } else { LARGE };
    options.may_use_host_engine() && (size >= least || options.engine == options::Engine::Host)
}

/// Has the host's engine make ready where it will probably run a module of this size, in bytes; whether
/// that is so.
pub fn prepare(options: &Options, size: usize, goes_on: bool) -> bool {
    let engine = options.host_engine.as_ref();
    let engine = engine.filter(|_| is_for_host(options, size, goes_on));
    if let Some(engine) = engine {
        engine.prepare();
    }
    engine.is_some()
}

enum OnHost<T> {
    Done(Ran<T>),
    /// It does not do what the module needs, and nothing has happened. Why it was to run it, and what
    /// it does not do.
    Refused {
        reason: String,
        message: String,
    },
}

enum Speculated<T> {
    Done(Ran<T>),
    /// It was thrown away.
    Left {
        reason: String,
        /// Whether the module came to something that the interpreter does not do, and not to the end of
        /// what it may take.
        is_early: bool,
    },
}
