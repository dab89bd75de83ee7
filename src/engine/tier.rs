//! Which engine runs a module: the interpreter at once, compiled code where that pays.
//!
//! Compiling a module takes longer than most initialization functions run, so the interpreter
//! begins at once, in a run that may be thrown away ([`crate::host::speculation`]). Compiled
//! code takes over, from the start of the run, when it is there before the interpreter is done,
//! or when the run comes to something that must not happen twice. It comes from the cache, or
//! from a compiler that starts beside the interpreter once that has taken about as long as
//! compiling would: so a run takes at most about twice as long as with the better of the two.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::cache::{Cache, Key};
use super::compiler::{Code, Compiler, MakeLinker, Settings, Strategy};
use super::interpreter::Interpreter;
use super::stack::on_large_stack;
use super::{Engine, Prepared};
use crate::error::Error;
use crate::host::speculation::Speculation;
use crate::host::stdio::Tape;
use crate::host::{HostState, Imports};
use crate::module::{Validation, section};
use crate::options::{self, CacheLocation, Options, Phase};
use crate::report::Clock;

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

/// How long the interpreter may take before a compiler starts, for each MB of code: about what
/// Winch needs, where both have to share one processor (measured: 90 to 130 ms). With others
/// idle, a compiler that turns out not to be needed costs nobody time, so that it starts as soon
/// as most initializations are over.
fn budget_per_mb() -> Duration {
    match std::thread::available_parallelism() {
        Ok(processors) if processors.get() > 1 => Duration::from_millis(25),
        _ => Duration::from_millis(100),
    }
}

/// And in any case.
const LEAST_BUDGET: Duration = Duration::from_millis(10);

/// Up to this much code, in bytes, Cranelift is as good as done when Winch is (some 40 ms later
/// at most), and its code runs two to three times as fast.
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
                match self.speculate(&code, &input, clock, work)? {
                    Speculated::Done(ran) => return Ok(ran),
                    Speculated::Left(reason) => (reason, code),
                }
            }
        };
        clock.begin(Phase::Compile);
        self.validation.wait()?;
        let (code, making) = (code.wait()?, Kept(code));
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
        let budget = LEAST_BUDGET + budget_per_mb().mul_f64(self.code_size() as f64 / 1e6);
        let (validation, making) = (self.validation.clone(), code.clone());
        let pause = move || match validation.verdict() {
            None => None,
            Some(false) => Some("the run of a module that is not valid".into()),
            Some(true) => {
                making.order(match time_of_thread(began) > budget {
                    true => Order::Compile,
                    false => Order::LookUp,
                });
                making
                    .is_ready()
                    .then(|| "it was done: compiled code was ready first".into())
            }
        };
        let engine = match self.interpreter(host, Some(Box::new(pause))) {
            Ok(engine) => engine,
            Err(Error::Unsupported { message, .. }) => {
                code.order(Order::Now);
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
                code.order(Order::Now);
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
        if let (Some(limit), Some(interrupt)) = (self.options.timeout, &interrupt) {
            interrupt
                .watch(limit)
                .map_err(|e| Error::internal(format!("no thread for the timeout: {e}")))?;
        }
        let mut result = on_large_stack(|| work(&mut *engine))?;
        if let Some(interrupt) = interrupt {
            result = result.and_then(|value| interrupt.check().map(|()| value));
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

    fn host(&self, input: &Tape, speculation: Option<Speculation>) -> Result<HostState, Error> {
        let options = self.options;
        // Of its own, as a deadline ends one attempt and no other.
        let interrupt = options
            .interrupt
            .as_ref()
            .map(|interrupt| interrupt.child());
        HostState::new(
            options.allow_wasi.then_some(&options.wasi),
            options.max_memory,
            interrupt,
            input,
            speculation,
        )
    }

    fn imports(&self) -> Imports {
        Imports::new(&self.options.imports, self.options.allow_wasi)
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

/// Everything that machine code follows from.
struct Recipe {
    strategies: &'static [Strategy],
    settings: Settings,
    modules: Vec<Arc<Vec<u8>>>,
    cache: Option<Cache>,
}

/// What is wanted of a [`Making`]. Later ones include earlier ones, but for `Stop`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// Nothing yet.
    Wait,
    /// Code that is in the cache.
    LookUp,
    /// Code that is compiled when nobody else in this process does so.
    Compile,
    /// Code, as soon as possible: somebody waits for it.
    Now,
    /// Nothing more. A compiler that has begun goes on, for the cache.
    Stop,
}

/// Machine code in the making, on a thread of its own.
#[derive(Clone)]
struct Making(Arc<(Mutex<State>, Condvar)>);

struct State {
    order: Order,
    recipe: Option<Recipe>,
    made: Option<Result<Made, Error>>,
    /// Whether the thread has done all that it will do.
    over: bool,
}

/// Code that was used, and so is worth keeping: waits for that when it is dropped, where a
/// program would end before it is done.
struct Kept(Making);

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.0.state();
        while !state.over {
            state = self.0.wait_for_change(state);
        }
    }
}

/// Machine code, and what is to be said of it: why an earlier compiler could not make it, or that
/// it was there.
struct Made {
    code: Code,
    remark: Option<String>,
}

/// Held by the one thread of the process that compiles beside an interpreter.
static COMPILING: Mutex<()> = Mutex::new(());

/// How often a thread looks whether it is its turn to compile.
const TURN: Duration = Duration::from_millis(5);

impl Making {
    fn new(recipe: Recipe) -> Making {
        let state = State {
            order: Order::Wait,
            recipe: Some(recipe),
            made: None,
            over: false,
        };
        Making(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wanted. The first order that wants anything starts the thread.
    fn order(&self, order: Order) {
        let mut state = self.state();
        if order <= state.order {
            return;
        }
        state.order = order;
        self.0.1.notify_all();
        if order == Order::Stop {
            return;
        }
        if let Some(recipe) = state.recipe.take() {
            let making = self.clone();
            let thread = std::thread::Builder::new().name("wizer-compile".into());
            // Not waited for at exit: it has no effects but on the cache, where half is nothing.
            let work = move || {
                let made = catch_unwind(AssertUnwindSafe(|| making.make(&recipe)));
                making.over(match made {
                    Ok(()) => "the code was taken already",
                    Err(_) => "the compiler panicked",
                });
            };
            if let Err(error) = thread.spawn(work) {
                drop(state);
                self.over(&format!("no thread to compile on: {error}"));
            }
        }
    }

    /// The thread has done all that it will do. Who still waits for code is told why there is
    /// none.
    fn over(&self, why: &str) {
        let mut state = self.state();
        state.over = true;
        if state.made.is_none() && state.order != Order::Stop {
            state.made = Some(Err(Error::internal(why)));
        }
        self.0.1.notify_all();
    }

    /// Whether there is code. That there will be none is for [`Making::wait`] to tell.
    fn is_ready(&self) -> bool {
        matches!(self.state().made, Some(Ok(_)))
    }

    /// Waits for the code.
    fn wait(&self) -> Result<Made, Error> {
        self.order(Order::Now);
        let mut state = self.state();
        loop {
            match state.made.take() {
                Some(made) => return made,
                None => state = self.wait_for_change(state),
            }
        }
    }

    fn wait_for_change<'s>(&'s self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let changed = &self.0.1;
        changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, recipe: &Recipe) {
        let mut keys = Vec::new();
        let mut made = None;
        if let Some(cache) = &recipe.cache {
            for &strategy in recipe.strategies {
                let Ok(engine) = Code::engine(strategy, recipe.settings) else {
                    continue;
                };
                let key = key(&engine, &recipe.modules);
                keys.push((strategy, key));
                made = made.or_else(|| load(cache, &key, strategy, engine));
            }
        }
        if let Some(code) = made {
            return self.done(Ok(Made {
                code,
                remark: Some("its code was in the cache".into()),
            }));
        }
        let Some(_turn) = self.wait_for_turn() else {
            return;
        };
        let made = recipe.compile();
        let code = made.as_ref().ok().map(|made| made.code.clone());
        self.done(made);
        if let (Some(cache), Some(code)) = (&recipe.cache, code)
            && let Some((_, key)) = keys
                .iter()
                .find(|(strategy, _)| *strategy == code.strategy())
            && let Some(bytes) = code.serialize()
        {
            // A run does without a cache as well.
            let _ = cache.store(key, &pack(&bytes));
        }
    }

    fn done(&self, made: Result<Made, Error>) {
        self.state().made = Some(made);
        self.0.1.notify_all();
    }

    /// Waits until it is time to compile; `None` if it never will be.
    fn wait_for_turn(&self) -> Option<Option<MutexGuard<'static, ()>>> {
        let mut state = self.state();
        loop {
            match state.order {
                Order::Stop => return None,
                Order::Now => return Some(COMPILING.try_lock().ok()),
                Order::Compile => match COMPILING.try_lock() {
                    Ok(turn) => return Some(Some(turn)),
                    Err(TryLockError::Poisoned(turn)) => return Some(Some(turn.into_inner())),
                    Err(TryLockError::WouldBlock) => {
                        let waited = self.0.1.wait_timeout(state, TURN);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                },
                Order::Wait | Order::LookUp => state = self.wait_for_change(state),
            }
        }
    }
}

impl Recipe {
    /// Has the first compiler that can do it make the code.
    fn compile(&self) -> Result<Made, Error> {
        let mut remark = None;
        for (i, &strategy) in self.strategies.iter().enumerate() {
            let made = Code::engine(strategy, self.settings)
                .and_then(|engine| Code::compile(strategy, engine, &self.modules));
            match made {
                Ok(code) => return Ok(Made { code, remark }),
                Err(Error::Unsupported { message, .. }) if i + 1 < self.strategies.len() => {
                    remark = Some(format!("{} cannot: {message}", strategy.name()));
                }
                Err(other) => return Err(other),
            }
        }
        Err(Error::internal("no compiler was tried"))
    }
}

/// The key of the code that this engine makes of these modules.
fn key(engine: &wasmtime::Engine, modules: &[Arc<Vec<u8>>]) -> Key {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    // What wasmtime says its code depends on: its version, the processor, the configuration.
    let compatibility = BuildHasherDefault::<DefaultHasher>::default()
        .hash_one(engine.precompile_compatibility_hash());
    let compatibility = compatibility.to_le_bytes();
    let mut parts: Vec<&[u8]> = vec![env!("CARGO_PKG_VERSION").as_bytes(), &compatibility];
    parts.extend(modules.iter().map(|module| &module[..]));
    Key::new(&parts)
}

fn load(cache: &Cache, key: &Key, strategy: Strategy, engine: wasmtime::Engine) -> Option<Code> {
    let modules = unpack(&cache.load(key)?)?;
    // SAFETY: the cache gives back what `make` stored under this key, as it compares a hash of
    // both; the key names everything that the code depends on.
    unsafe { Code::deserialize(strategy, engine, &modules) }
}

/// Several byte strings as one.
fn pack(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        packed.extend_from_slice(&(part.len() as u64).to_le_bytes());
        packed.extend_from_slice(part);
    }
    packed
}

fn unpack(mut packed: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !packed.is_empty() {
        let (len, rest) = packed.split_first_chunk()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (part, rest) = rest.split_at_checked(len)?;
        parts.push(part.to_vec());
        packed = rest;
    }
    Some(parts)
}
