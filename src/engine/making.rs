//! Machine code in the making: from the cache or a compiler, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::cache::{Cache, Key};
use super::compiler::{Code, Settings, Strategy};
use crate::error::Error;
use crate::host::interrupt::Interrupt;

/// Everything that machine code follows from.
pub struct Recipe {
    /// The compilers to try, in this order.
    pub strategies: &'static [Strategy],
    pub settings: Settings,
    pub modules: Vec<Arc<Vec<u8>>>,
    pub cache: Option<Cache>,
}

/// What is wanted of a [`Making`]. Later ones include earlier ones, but for `Stop`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Nothing yet.
    Wait,
    /// Code that is in the cache.
    LookUp,
    /// Code that is compiled when nobody else in this process does so.
    Compile,
    /// Code, as soon as possible: somebody waits for it.
    Now,
    /// Nothing more: the interpreter was done first, and leaves no trace in the cache. A compiler
    /// that has begun cannot be stopped, but nobody waits for it.
    Stop,
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Loading,
    Compiling,
}

/// Machine code in the making, on a thread of its own.
#[derive(Clone)]
pub struct Making(Arc<(Mutex<State>, Condvar)>);

struct State {
    order: Order,
    recipe: Option<Recipe>,
    stage: Stage,
    made: Option<Result<Made, Error>>,
    /// Whether the thread has done all that it will do.
    over: bool,
}

/// Code that was used, and so is worth keeping: waits for that when it is dropped, where a
/// program would end before it is done.
pub struct Kept(pub Making);

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
pub struct Made {
    pub code: Code,
    pub remark: Option<String>,
}

/// Held by the one thread of the process that compiles beside an interpreter.
static COMPILING: Mutex<()> = Mutex::new(());

/// How often a thread looks whether it is its turn to compile, or the run has been ended.
const TURN: Duration = Duration::from_millis(5);

impl Making {
    /// Nothing is made before it is ordered.
    pub fn new(recipe: Recipe) -> Making {
        let state = State {
            order: Order::Wait,
            recipe: Some(recipe),
            stage: Stage::Waiting,
            made: None,
            over: false,
        };
        Making(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wanted. The first order that wants anything starts the thread.
    pub fn order(&self, order: Order) {
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

    /// Whether there is code, or will be in a moment. That there will be none is for
    /// [`Making::wait`] to tell.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        matches!(state.made, Some(Ok(_))) || state.stage == Stage::Loading
    }

    /// Whether a compiler is at work.
    pub fn is_compiling(&self) -> bool {
        let state = self.state();
        state.made.is_none() && state.stage == Stage::Compiling
    }

    /// Waits for the code, or until the run is ended from outside. A compiler that has begun
    /// goes on by itself then.
    pub fn wait(&self, interrupt: Option<&Interrupt>) -> Result<Made, Error> {
        self.order(Order::Now);
        let mut state = self.state();
        loop {
            if let Some(made) = state.made.take() {
                return made;
            }
            if let Some(interrupt) = interrupt
                && let Err(ended) = interrupt.check()
            {
                state.order = Order::Stop;
                return Err(ended);
            }
            let waited = self.0.1.wait_timeout(state, TURN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
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
            let modules: Vec<&[u8]> = recipe.modules.iter().map(|module| &module[..]).collect();
            let modules = Key::new(&modules);
            for &strategy in recipe.strategies {
                let Ok(engine) = Code::engine(strategy, recipe.settings) else {
                    continue;
                };
                let key = key(&engine, &modules);
                keys.push((strategy, key));
                if made.is_none() && cache.has(&key) {
                    self.state().stage = Stage::Loading;
                    made = load(cache, &key, strategy, engine).map(|code| (code, key));
                }
            }
        }
        if let (Some(cache), Some((code, key))) = (&recipe.cache, made) {
            self.done(Ok(Made {
                code,
                remark: Some("its code was in the cache".into()),
            }));
            if self.is_used() {
                cache.touch(&key);
            }
            return;
        }
        self.state().stage = Stage::Waiting;
        let Some(turn) = self.wait_for_turn() else {
            return;
        };
        self.state().stage = Stage::Compiling;
        let made = recipe.compile();
        drop(turn);
        let code = made.as_ref().ok().map(|made| made.code.clone());
        self.done(made);
        if let (Some(cache), Some(code)) = (&recipe.cache, code)
            && self.is_used()
            && let Some((_, key)) = keys
                .iter()
                .find(|(strategy, _)| *strategy == code.strategy())
            && let Some(bytes) = code.serialize()
        {
            // A run does without a cache as well.
            let _ = cache.store(key, &pack(bytes));
        }
    }

    /// Waits until it is known whether the code is used.
    fn is_used(&self) -> bool {
        let mut state = self.state();
        while state.order < Order::Now {
            state = self.wait_for_change(state);
        }
        state.order == Order::Now
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

/// The key of the code that this engine makes of these modules, which have a key of their own.
fn key(engine: &wasmtime::Engine, modules: &Key) -> Key {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    // What wasmtime says its code depends on: its version, the processor, the configuration.
    let compatibility = BuildHasherDefault::<DefaultHasher>::default()
        .hash_one(engine.precompile_compatibility_hash())
        .to_le_bytes();
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    Key::new(&[version, &compatibility, modules.as_bytes()])
}

fn load(cache: &Cache, key: &Key, strategy: Strategy, engine: wasmtime::Engine) -> Option<Code> {
    let packed = cache.load(key)?;
    let modules = unpack(&packed)?;
    // SAFETY: the cache gives back what `make` stored under this key, as it compares a hash of
    // both; the key names everything that the code depends on.
    unsafe { Code::deserialize(strategy, engine, &modules) }
}

/// Several byte strings as one, with their lengths and their number behind them: the first, which
/// is all there is for most modules, is not copied.
fn pack(parts: Vec<Vec<u8>>) -> Vec<u8> {
    let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
    let mut parts = parts.into_iter();
    let mut packed = parts.next().unwrap_or_default();
    parts.for_each(|part| packed.extend_from_slice(&part));
    for number in lengths.iter().chain([&lengths.len()]) {
        packed.extend_from_slice(&(*number as u64).to_le_bytes());
    }
    packed
}

fn unpack(mut packed: &[u8]) -> Option<Vec<&[u8]>> {
    let number = |packed: &mut &[u8]| {
        let (rest, number) = packed.split_last_chunk()?;
        *packed = rest;
        usize::try_from(u64::from_le_bytes(*number)).ok()
    };
    let count = number(&mut packed)?;
    let mut lengths = Vec::new();
    for _ in 0..count {
        lengths.push(number(&mut packed)?);
    }
    let mut parts = Vec::new();
    for len in lengths.into_iter().rev() {
        let (part, rest) = packed.split_at_checked(len)?;
        parts.push(part);
        packed = rest;
    }
    packed.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let part = |len: usize| vec![len as u8; len];
        for lens in [&[][..], &[0], &[5], &[3, 0, 7], &[1, 2, 3, 4]] {
            let parts: Vec<_> = lens.iter().map(|len| part(*len)).collect();
            let packed = pack(parts.clone());
            assert_eq!(unpack(&packed).unwrap(), parts);
            for end in 0..packed.len() {
                assert_ne!(unpack(&packed[..end]), unpack(&packed), "{end}");
            }
        }
    }
}
