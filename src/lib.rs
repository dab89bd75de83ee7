//! The WebAssembly pre-initializer: run a module's initialization once, and ship the
//! initialized module.
//!
//! [`Wizer`] instantiates a module, runs its initialization function, and writes a new module
//! whose memories and globals already hold the initialized state:
//!
//! ```
//! let wasm = wat::parse_str(r#"
//!     (module
//!       (memory (export "memory") 1)
//!       (func (export "wizer.initialize")
//!         (i32.store (i32.const 0) (i32.const 42)))
//!       (func (export "answer") (result i32)
//!         (i32.load (i32.const 0))))
//! "#)?;
//! let initialized = wizer::Wizer::new().run(&wasm)?;
//! # let text = initialized;
//! # assert!(text.windows(4).any(|w| w == 42i32.to_le_bytes()) || text.contains(&42));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How it works, in order: [parse](module), [instrument], [run](engine) with a [host],
//! [snapshot], [rewrite]; [`Wizer::run`] tells the story on one page.

mod engine;
mod error;
mod host;
mod instrument;
mod module;
mod options;
mod report;
mod rewrite;
mod snapshot;
mod splice;
mod value;
mod wizer;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "napi")]
mod napi;

pub use engine::StoreData;
pub use error::{Error, Frame, Trap, TrapReason};
pub use host::interrupt::Interrupt;
pub use options::{DEFAULT_INIT_FUNCS, Engine, Phase};
pub use report::{BakedReport, EngineReport, HostCallReport, MemoryReport, PhaseReport, Report};
pub use rewrite::MAX_OUTPUT_BYTES;
pub use value::{Reference, Value};
pub use wizer::{Outcome, Wizer};

/// The WebAssembly engine, for custom linkers: use this and no other version of it.
pub use wasmtime;
