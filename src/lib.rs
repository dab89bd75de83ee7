//! The WebAssembly pre-initializer: run a module's initialization once, and ship the
//! initialized module.
//!
//! [`Wizer`] instantiates a module, runs its initialization function, and writes a new module
//! whose memories and globals already hold the initialized state:
//!
//! ```
//! use wizer::wasmtime::{Engine, Instance, Module, Store};
//!
//! let wasm = wat::parse_str(r#"
//!     (module
//!       (memory 1)
//!       (func (export "wizer.initialize")
//!         (i32.store (i32.const 0) (i32.const 42)))
//!       (func (export "answer") (result i32)
//!         (i32.load (i32.const 0))))
//! "#)?;
//! let initialized = wizer::Wizer::new().run(&wasm)?;
//!
//! // No instance of the output runs the initialization; it starts with what that left behind.
//! let engine = Engine::default();
//! let mut store = Store::new(&engine, ());
//! let instance = Instance::new(&mut store, &Module::new(&engine, &initialized)?, &[])?;
//! let answer = instance.get_typed_func::<(), i32>(&mut store, "answer")?;
//! assert_eq!(answer.call(&mut store, ())?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The pipeline: parse, instrument, run, snapshot, rewrite. The file `src/wizer.rs` tells it on
//! one page, and each step has a file or folder of its name.
//!
//! # Features
//!
//! - `cli`: the program `wizer`, as `wizer::cli::run`.
//! - `napi`: the addon for Node.js.

mod added;
mod engine;
mod error;
mod host;
mod instrument;
// Text is what the command line and JavaScript give.
#[cfg_attr(not(any(feature = "cli", test)), allow(dead_code))]
mod invoke;
mod module;
mod options;
mod report;
mod rewrite;
mod session;
mod snapshot;
mod splice;
mod threads;
mod value;
mod wizer;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod phases;

#[cfg(feature = "cli")]
pub mod cli;
// Only the loaded addon can be tested, and it is, from JavaScript.
#[cfg(all(feature = "napi", not(test)))]
mod napi;

pub use engine::StoreData;
pub use error::{Error, Exception, Frame, Trap, TrapReason};
pub use host::interrupt::Interrupt;
pub use host::stub::Stub;
pub use host::{Guest, HostError};
pub use options::{CacheLocation, DEFAULT_INIT_FUNCS, Engine, KeepInitFunc, Phase};
pub use report::{BakedReport, EngineReport, HostCallReport, MemoryReport, PhaseReport, Report};
pub use rewrite::MAX_OUTPUT_BYTES;
pub use session::Session;
pub use value::{Reference, Value};
pub use wizer::{Outcome, Wizer};

pub use wasmparser::{FuncType, ValType};

/// The WebAssembly engine, for custom linkers: use this and no other version of it.
pub use wasmtime;
