//! Machine code: what is compiled, how, and in which form it is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wasmtime::Config;

use super::text;
use crate::engine::stack::MAX_WASM_STACK;
use crate::error::Error;
use crate::module::Features;
use crate::threads::COMPILERS;

/// Which of wasmtime's compilers is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Winch: makes code fast.
    Baseline,
    /// Cranelift: makes fast code, and compiles every proposal.
    Optimizing,
}

impl Strategy {
    /// The name of the engine that runs its code, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Baseline => "wasmtime (Winch)",
            Strategy::Optimizing => "wasmtime (Cranelift)",
        }
    }
}

/// What compiled code depends on besides the modules.
#[derive(Clone, Copy)]
pub struct Settings {
    pub features: Features,
    /// Whether a run of it can be ended from outside.
    pub interruptible: bool,
    /// Whether a module imports a shared memory.
    pub shares_memory: bool,
}

/// Machine code for the modules of a run.
#[derive(Clone)]
pub struct Code {
    pub(super) strategy: Strategy,
    pub(super) engine: wasmtime::Engine,
    pub(super) modules: Vec<wasmtime::Module>,
}

impl Code {
    /// An engine for a strategy, without any code.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the compiler does not exist for this machine.
    pub fn engine(strategy: Strategy, settings: Settings) -> Result<wasmtime::Engine, Error> {
        wasmtime::Engine::new(&config(strategy, settings)).map_err(|e| Error::unsupported(text(&e)))
    }

    /// Compiles modules.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the compiler cannot compile one of them, or it is not valid.
    pub fn compile(
        strategy: Strategy,
        engine: wasmtime::Engine,
        modules: &[Arc<Vec<u8>>],
    ) -> Result<Code, Error> {
        // A compiler that gives up by a panic has not touched anything that is kept.
        let compile = |bytes: &Arc<Vec<u8>>| match catch_unwind(AssertUnwindSafe(|| {
            COMPILERS.run(|| wasmtime::Module::from_binary(&engine, bytes))
        })) {
            Ok(Ok(compiled)) => Ok(compiled),
            Ok(Err(error)) => Err(refusal(strategy, text(&error))),
            Err(_) => Err(format!("{} gave up on it", strategy.name())),
        };
        let compiled: Result<_, _> = modules.iter().map(compile).collect();
        let modules = compiled.map_err(Error::unsupported)?;
        Ok(Code {
            strategy,
            engine,
            modules,
        })
    }

    /// Which compiler made it.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// The code in a form that [`Code::deserialize`] reads, one for each module.
    pub fn serialize(&self) -> Option<Vec<Vec<u8>>> {
        self.modules.iter().map(|m| m.serialize().ok()).collect()
    }

    /// Code as it was before it was serialized; `None` if this build cannot use it.
    ///
    /// # Safety
    ///
    /// The bytes must be what [`Code::serialize`] gave: they become machine code.
    pub unsafe fn deserialize(
        strategy: Strategy,
        engine: wasmtime::Engine,
        modules: &[&[u8]],
    ) -> Option<Code> {
        let modules = modules
            .iter()
            // SAFETY: passed on to the caller.
            .map(|bytes| unsafe { wasmtime::Module::deserialize(&engine, bytes) }.ok())
            .collect::<Option<_>>()?;
        Some(Code {
            strategy,
            engine,
            modules,
        })
    }
}

/// The configuration of an engine with this compiler.
pub(super) fn config(strategy: Strategy, settings: Settings) -> Config {
    let Features {
        bulk_memory,
        multi_memory,
        multi_value,
        // The validation refuses what may not be there; what instrumentation adds needs it.
        reference_types: _,
        simd,
        relaxed_simd,
        relaxed_simd_deterministic,
        legacy_exceptions: _,
    } = settings.features;
    let mut config = Config::new();
    // Handles are told by where their objects are: this collector does not move them.
    config.collector(wasmtime::Collector::DeferredReferenceCounting);
    config
        .strategy(match strategy {
            Strategy::Baseline => wasmtime::Strategy::Winch,
            Strategy::Optimizing => wasmtime::Strategy::Cranelift,
        })
        // With copy-on-write images, initial data that is never touched would not be there.
        .memory_init_cow(false)
        .max_wasm_stack(MAX_WASM_STACK)
        // No stack is ever made for asynchronous calls, but the two are compared.
        .async_stack_size(2 * MAX_WASM_STACK)
        .epoch_interruption(settings.interruptible)
        // For native debuggers; wasmtime's own backtraces need it on Windows only.
        .native_unwind_info(cfg!(windows))
        .relaxed_simd_deterministic(relaxed_simd_deterministic)
        .wasm_custom_page_sizes(true)
        .wasm_wide_arithmetic(true)
        .shared_memory(true);
    if settings.shares_memory {
        // wasmtime 48 takes each instance that imports a shared memory for its owner, and panics
        // where an access beyond its end is told by the address at which it failed. With explicit
        // checks there is no such address.
        config
            .memory_reservation(0)
            .memory_guard_size(0)
            .guard_before_linear_memory(false);
    }
    if strategy == Strategy::Baseline {
        // Cranelift makes the entry of each function that a table holds, and is to be quick.
        config
            .cranelift_opt_level(wasmtime::OptLevel::None)
            .cranelift_regalloc_algorithm(wasmtime::RegallocAlgorithm::SinglePass);
    }
    // Only switched off, never on: what a compiler does not support is off by default.
    if !bulk_memory {
        config.wasm_bulk_memory(false);
    }
    if !multi_memory {
        config.wasm_multi_memory(false);
    }
    if !multi_value {
        config.wasm_multi_value(false);
    }
    if !simd {
        config.wasm_simd(false);
    }
    if !relaxed_simd || !simd {
        config.wasm_relaxed_simd(false);
    }
    config
}

/// Why a compiler refuses a module. Winch has no collector and refuses what might need one, also
/// where no type of the module is one of the proposal `gc`, which wasmparser's message names.
pub(super) fn refusal(strategy: Strategy, text: String) -> String {
    match text.contains("gc types are disallowed") {
        true => format!(
            "{} compiles no references but those of functions, and the module has others",
            strategy.name()
        ),
        false => text,
    }
}
