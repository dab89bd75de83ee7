//! Which engine runs a module: the interpreter at once, compiled code where that pays.
//!
//! Compiling a module takes longer than most initialization functions run, so the interpreter
//! begins at once, in a run that may be thrown away ([`crate::host::speculation`]). Compiled
//! code takes over, from the start of the run, when it is there before the interpreter is done,
//! or when the run comes to something that must not happen twice. It comes from the cache, or
//! from a compiler that starts beside the interpreter once that has taken about as long as
//! compiling would: so a run takes at most about twice as long as with the better of the two.

use std::time::{Duration, Instant};

use super::cache::Cache;
use super::compiler::{Compiler, MakeLinker, Settings, Strategy};
use super::interpreter::Interpreter;
use super::making::{Kept, Making, Order, Recipe};
use super::stack::on_large_stack;
use super::{Engine, Prepared};
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::host::speculation::Speculation;
use crate::host::stdio::Tape;
use crate::host::{HostState, Imports};
use crate::module::{Validation, section};
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
                self.validation.wait()?;
                let engine = self.host_engine(&input)?;
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
            options::Engine::Auto if self.goes_on => (
                "a session stays with its engine".into(),
                self.compile(self.strategies()),
            ),
            options::Engine::Auto => {
                let code = self.compile(self.strategies());
                match self.speculate(&code, &input, clock, work)? {
                    Speculated::Done(ran) => return Ok(ran),
                    Speculated::Left(reason) => (reason, code),
                }
            }
        };
        clock.begin(Phase::Compile);
        let valid = self.validation.wait()?;
        if valid.legacy_exceptions || self.prefers_host() {
            match self.host_engine(&input) {
                Ok(engine) => {
                    reason = match valid.legacy_exceptions {
                        true => format!("{reason}; it uses legacy exceptions"),
                        false => format!("{reason}; this process has the engine"),
                    };
                    return self.attempt(engine, reason, clock, work);
                }
                Err(Error::Unsupported { message, .. }) if !valid.legacy_exceptions => {
                    reason = format!("{reason}; {message}");
                }
                Err(other) => return Err(other),
            }
        }
        let interrupt = self.options.interrupt.as_deref();
        let (code, making) = (code.wait(interrupt)?, Kept(code));
        if let Some(remark) = &code.remark {
            reason = format!("{reason}; {remark}");
        }
        let host = self.host(&input, None)?;
        let imports = self.imports();
        let engine = Compiler::new(code.code, self.modules, host, imports, self.make_linker)?;
        let mut ran = self.attempt(Box::new(engine), reason, clock, work)?;
        ran._code = Some(making);
        Ok(ran)
    }

    /// Interprets, as long as nothing happens that must not happen twice, and until compiled
    /// code is there.
    fn speculate<T: Send>(
        &self,
        code: &Making,
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
        let prefers_host = self.prefers_host();
        let pause = move || {
            if validation.verdict() == Some(false) {
                return Some("the run of a module that is not valid".into());
            }
            let time = time_of_thread(began);
            if time > BEFORE_LOOKING && !prefers_host {
                making.order(Order::LookUp);
            }
            if time > budget.alone && validation.verdict().is_some() {
                if prefers_host {
                    return Some("it was done: it takes long".into());
                }
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
                self.hurry(code);
                return Ok(Speculated::Left(format!("wasmi cannot run it: {message}")));
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
                Some(match (left, error) {
                    (Some(before), _) => format!("the interpreter ended before {before}"),
                    (None, Error::Unsupported { message, .. }) => {
                        format!("wasmi cannot run it: {message}")
                    }
                    // Told with its backtrace by another engine.
                    (None, error) => format!("the interpreter ended with an error: {error}"),
                })
            }
        };
        match left {
            None => {
                code.order(Order::Stop);
                Ok(Speculated::Done(ran))
            }
            Some(why) => {
                self.hurry(code);
                input.rewind();
                Ok(Speculated::Left(why))
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

    /// Whether the engine of the process that this is a part of is the one for what the interpreter does
    /// not do: it compiles function by function, as they are called. Small modules are compiled before it
    /// would have begun, and some state it does not show.
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
        options.engine == options::Engine::Auto
            && options.may_use_host_engine()
            && !options.features.relaxed_simd_deterministic
            && self.code_size() > SMALL
            && self.modules.iter().all(is_shown)
    }

    /// The interpreter has given up: compiled code is wanted, where nothing better is.
    fn hurry(&self, code: &Making) {
        // A compiler that has begun cannot be stopped.
        if !self.prefers_host() && !self.options.features.legacy_exceptions {
            code.order(Order::Now);
        }
    }

    /// The engine of the process that this is a part of.
    fn host_engine(&self, input: &Tape) -> Result<Box<dyn Engine>, Error> {
        let Some(engine) = &self.options.host_engine else {
            return Err(Error::unsupported("no host provides an engine of its own"));
        };
        engine.load(self.modules, self.host(input, None)?, self.imports())
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

enum Speculated<T> {
    Done(Ran<T>),
    /// Why it was thrown away.
    Left(String),
}
