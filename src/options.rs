//! One description of a run, filled by the Rust builder, the command line and JavaScript alike.

use crate::invoke::Invocation;
use crate::value::{Reference, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::HostEngine;
use crate::error::Error;
pub use crate::host::config::{Dir, Import, Stdin, Stdout, Wasi};
use crate::host::interrupt::Interrupt;
use crate::host::stub::Stubs;
pub use crate::module::Features;

/// The initialization functions looked for when none is named, the first that is exported wins.
pub const DEFAULT_INIT_FUNCS: [&str; 2] = ["wizer.initialize", "wizer-initialize"];

/// Everything that a run depends on besides the module.
#[derive(Clone, Default)]
pub struct Options {
    /// The export to call; by default the first of [`DEFAULT_INIT_FUNCS`].
    pub init_func: Option<String>,
    /// What becomes of the initialization function's export.
    pub keep_init_func: KeepInitFunc,
    /// Calls before that of the initialization function.
    pub invoke: Vec<Invocation>,
    /// New export names, as (new, old).
    pub renames: Vec<(String, String)>,
    /// Modules that are instantiated first and may be imported from.
    pub preloads: Vec<Preload>,
    /// What is called of preloaded modules.
    pub preload_calls: Vec<PreloadCall>,
    /// Whether a preloaded module's own state may change although the output does not carry it.
    pub allow_preload_changes: bool,
    /// Whether a program that ends itself, with status 0, only ends the call.
    pub allow_exit: bool,
    /// Functions that the module may import.
    pub imports: Vec<Import>,
    /// Other things that modules may import.
    pub items: Vec<ProvidedItem>,
    /// What stands in for imports that nobody provides.
    pub stubs: Stubs,
    /// Whether the module may call WASI.
    pub allow_wasi: bool,
    /// What WASI offers, where it is allowed.
    pub wasi: Wasi,
    pub features: Features,
    pub engine: Engine,
    /// The engine of the host, where there is one.
    pub host_engine: Option<Arc<dyn HostEngine>>,
    pub cache: CacheLocation,
    /// How long initialization may take.
    pub timeout: Option<Duration>,
    /// The most bytes that all memories together may have.
    pub max_memory: Option<u64>,
    /// The most data segments that the output may have; no limit but the engines' by default.
    pub max_segments: Option<usize>,
    /// For tests: the interpreter leaves the run to compiled code before this call of the host.
    pub leave_at: Option<u64>,
    /// For tests: what traps before the module is instantiated does not end the run.
    pub tolerate_traps: bool,
    /// Lets another thread end the run.
    pub interrupt: Option<Arc<Interrupt>>,
    /// Told what the run is doing.
    pub progress: Option<ProgressFn>,
}

impl Options {
    /// Whether the engine of the host may be the one that runs the module.
    pub fn may_use_host_engine(&self) -> bool {
        self.host_engine.is_some()
            && self.max_memory.is_none()
            && matches!(self.engine, Engine::Auto | Engine::Host)
    }
}

/// What becomes of the export of the initialization function, for
/// [`Wizer::keep_init_func`](crate::Wizer::keep_init_func).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepInitFunc {
    /// It is removed.
    #[default]
    No,
    /// It stays as it is.
    Yes,
    /// It stays, of a function that does nothing; and so do `_initialize`, and
    /// `__wasm_apply_data_relocs` where it was called.
    Empty,
}

impl From<bool> for KeepInitFunc {
    fn from(keep: bool) -> Self {
        match keep {
            true => KeepInitFunc::Yes,
            false => KeepInitFunc::No,
        }
    }
}

impl std::str::FromStr for KeepInitFunc {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "true" => Ok(KeepInitFunc::Yes),
            "false" => Ok(KeepInitFunc::No),
            "empty" => Ok(KeepInitFunc::Empty),
            other => Err(Error::option(format!(
                "`{other}` must be `true`, `false` or `empty`"
            ))),
        }
    }
}

/// Something that modules may import under two names. What is not said of its type is as the
/// importing module asks.
#[derive(Clone, Debug)]
pub struct ProvidedItem {
    pub module: String,
    pub name: String,
    pub item: Item,
    /// What a global of host references holds: a global's value, or else the thing itself, which may
    /// be provided under several names.
    pub reference: Option<Reference>,
}

/// What is provided.
#[derive(Clone, Debug)]
pub enum Item {
    Memory(ProvidedMemory),
    Table(ProvidedTable),
    Global(ProvidedGlobal),
    /// With the names of its parameters' types, where they are known.
    Tag(Option<Vec<String>>),
    /// A function, which is called where a function is imported.
    #[allow(dead_code, reason = "JavaScript alone gives it")]
    Function,
    /// Any other value of the host.
    #[allow(dead_code, reason = "JavaScript alone gives it")]
    Value,
}

/// A global.
#[derive(Clone, Debug)]
pub struct ProvidedGlobal {
    /// A number of JavaScript is an `f64`, whatever the global's type is.
    pub value: Value,
    /// The name of its type, and whether it is mutable, where it was made as something.
    pub ty: Option<String>,
    pub mutable: Option<bool>,
}

/// A memory.
#[derive(Clone, Debug)]
pub struct ProvidedMemory {
    /// Its size; that of the contents by default.
    pub pages: Option<u64>,
    pub maximum: Option<u64>,
    /// Whether it is shared, and has 64-bit addresses, where it was made as something.
    pub shared: Option<bool>,
    pub memory64: Option<bool>,
    pub contents: Vec<u8>,
}

/// A table of nulls.
#[derive(Clone, Debug)]
pub struct ProvidedTable {
    pub size: u64,
    pub maximum: Option<u64>,
    /// The name of its elements' type, and whether it has 64-bit addresses, where it was made as
    /// something.
    pub element: Option<String>,
    pub table64: Option<bool>,
}

/// Called with each phase as it begins, on the thread that works.
pub type ProgressFn = Arc<dyn Fn(Phase) + Send + Sync>;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Reading the module's sections.
    Parse,
    /// Making the module's state readable.
    Instrument,
    /// Getting code ready: loading it into the interpreter, or waiting for machine code.
    Compile,
    /// Instantiating, and running the initialization.
    Initialize,
    /// Reading the state.
    Snapshot,
    /// Writing the initialized module.
    Rewrite,
    /// Waiting for the end of the validation, which goes on beside everything else.
    Validate,
}

impl Phase {
    /// The phase's name as reports print it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Parse => "parse",
            Phase::Instrument => "instrument",
            Phase::Compile => "compile",
            Phase::Initialize => "initialize",
            Phase::Snapshot => "snapshot",
            Phase::Rewrite => "rewrite",
            Phase::Validate => "validate",
        }
    }
}

/// A module that is instantiated before the main one, under a name to import from.
#[derive(Clone)]
pub struct Preload {
    pub name: String,
    pub source: PreloadSource,
}

/// A call of a preloaded module before the main one is there.
#[derive(Clone)]
pub struct PreloadCall {
    /// How many modules are preloaded before it.
    pub after: usize,
    /// The name of the module.
    pub module: String,
    pub export: String,
    pub args: Vec<Value>,
}

/// Where a preloaded module comes from.
#[derive(Clone)]
pub enum PreloadSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// Who runs the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// The fastest to be done, as far as one can tell: the interpreter at first, and compiled
    /// code as soon as that pays.
    #[default]
    Auto,
    /// An interpreter, which begins at once (wasmi).
    Interpreter,
    /// A compiler that makes code fast (Winch).
    Baseline,
    /// A compiler that makes fast code (Cranelift).
    Optimizing,
    /// The engine of the process that this is a part of: V8 in Node. Only JavaScript and `npx wizer`
    /// have one.
    Host,
}

impl Engine {
    /// The engine of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for a name that is none of `auto`, `interpreter`, `baseline`, `optimizing`
    /// and `host`.
    pub fn from_name(name: &str) -> Result<Engine, Error> {
        match name {
            "auto" => Ok(Engine::Auto),
            "interpreter" => Ok(Engine::Interpreter),
            "baseline" => Ok(Engine::Baseline),
            "optimizing" => Ok(Engine::Optimizing),
            "host" => Ok(Engine::Host),
            other => Err(Error::option(format!(
                "`{other}` is no engine; choose `auto`, `interpreter`, `baseline`, `optimizing` or `host`"
            ))),
        }
    }
}

/// Where compiled code is kept for later runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheLocation {
    /// In the user's directory for such things.
    #[default]
    OfUser,
    /// In this directory.
    In(PathBuf),
    /// Nowhere.
    Off,
}
