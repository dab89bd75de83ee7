//! Everything that can go wrong, each with a stable code and a message that says what to do.

use std::fmt;
use std::path::PathBuf;

use crate::value::Value;

/// An error of this crate.
///
/// [`Error::code`] is stable across releases; the message is for people and may change.
///
/// ```
/// let error = wizer::Wizer::new().run(b"not wasm").unwrap_err();
/// assert_eq!(error.code(), "ERR_WIZER_INVALID_MODULE");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is not a valid WebAssembly module.
    #[error("{}", invalid(message, *offset))]
    InvalidModule {
        /// What the parser or validator says.
        message: String,
        /// Where in the input, in bytes from its start, if known.
        offset: Option<usize>,
    },

    /// The input looks like text and is not valid WAT.
    #[error("the input is not valid WebAssembly text\n{message}")]
    InvalidText {
        /// The parser's message, with the place in the text.
        message: String,
    },

    /// The input is a component, not a core module.
    #[error(
        "{} is a WebAssembly component, and only core modules can be pre-initialized; \
         pre-initialize the core module before it is made into a component",
        .preload.as_ref().map_or("the input".to_string(), |n| format!("the preloaded module `{n}`"))
    )]
    Component {
        /// The preloaded module that is one, if it is not the input.
        preload: Option<String>,
    },

    /// The initialization function is not exported.
    #[error("{}", missing_init(names, candidates))]
    InitFuncMissing {
        /// The names that were looked for.
        names: Vec<String>,
        /// The exports that could serve.
        candidates: Vec<String>,
    },

    /// The initialization function is something other than a function `[] -> []`.
    #[error(
        "the export `{name}` is {found}, but an initialization function must take no parameters \
         and return nothing{}{}",
        if *callable { "; call it with --invoke (invoke in JavaScript), which takes arguments" } else { "" },
        candidates_hint(candidates)
    )]
    InitFuncType {
        /// The export's name.
        name: String,
        /// What it is instead.
        found: String,
        /// Whether it can be called otherwise.
        callable: bool,
        /// The exports that could serve.
        candidates: Vec<String>,
    },

    /// A function trapped, or called something that failed.
    #[error(transparent)]
    Trap(#[from] Box<Trap>),

    /// A memory, table, global or tag is imported and nothing provides it.
    #[error(
        "the {}module{} imports the {kind} `{module}::{name}`, and nothing provides it; provide \
         it with a preloaded module (--preload), as an import (`imports` in JavaScript; `import_memory` and \
         the like, or a linker, in Rust), or as a stub (--stub)",
        .preload.as_ref().map_or("", |_| "preloaded "),
        .preload.as_ref().map_or(String::new(), |name| format!(" `{name}`"))
    )]
    ImportMissing {
        /// The preloaded module that imports it, if it is not the input.
        preload: Option<String>,
        /// `memory`, `table`, `global` or `tag`.
        kind: &'static str,
        /// The first name of the import.
        module: String,
        /// The second name of the import.
        name: String,
    },

    /// An import is provided with another type than the module asks for.
    #[error("the import `{module}::{name}` does not fit: {message}")]
    ImportType {
        /// The first name of the import.
        module: String,
        /// The second name of the import.
        name: String,
        /// What does not fit.
        message: String,
    },

    /// Initialization changed state that the output cannot hold.
    #[error(
        "{item} {change}, and this cannot be written into the output{}",
        hint(help)
    )]
    Unrepresentable {
        /// Which state, named as the module names it.
        item: String,
        /// What happened to it.
        change: String,
        /// What to do about it.
        help: Option<String>,
    },

    /// The output would be larger than engines accept.
    #[error(
        "the initialized module would have {bytes} bytes, and engines accept modules of up to \
         {limit} bytes; let the initialization leave less non-zero memory behind"
    )]
    OutputTooLarge {
        /// The size that the output would have.
        bytes: u64,
        /// The limit, see [`crate::MAX_OUTPUT_BYTES`].
        limit: u64,
    },

    /// The output would need more data segments than it may have.
    #[error(
        "the initialized module would need at least {needed} data segments, and may have {limit}; \
         raise the limit where it was set, or have the initialization drop passive segments"
    )]
    TooManySegments {
        /// How many it needs at the least: one for each memory, and those that stay.
        needed: usize,
        /// The limit.
        limit: usize,
    },

    /// An option has a value that makes no sense.
    #[error("{message}")]
    Option {
        /// Which option, what is wrong, what would be right.
        message: String,
    },

    /// Bytes of a memory were to be read or written that it does not have.
    #[error(
        "{} from the address {address} on are not all within the memory, which has {}",
        counted(*length, "byte"),
        counted(*size, "byte")
    )]
    OutOfBounds {
        /// Where they begin.
        address: u64,
        /// How many there are.
        length: u64,
        /// How many the memory has.
        size: u64,
    },

    /// Two renames share a source or a destination.
    #[error(
        "duplicated function rename {side} `{name}`; each name can be renamed once, and be the \
         new name of one function"
    )]
    DuplicateRename {
        /// `source` or `destination`.
        side: &'static str,
        /// The name that stands twice.
        name: String,
    },

    /// A file or directory could not be used.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried: `open the input file`, ...
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },

    /// No engine of this build can run the module.
    #[error("no engine can run this module here: {message}{}", hint(.help))]
    Unsupported {
        /// The engine's reason.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },

    /// The time limit passed before initialization, or a step of a session, ended.
    #[error("the module did not come to an end within {} ms; raise the timeout if it needs longer", .limit.as_millis())]
    Timeout {
        /// The limit that was set.
        limit: std::time::Duration,
    },

    /// The caller cancelled the run.
    #[error("the run was cancelled")]
    Aborted,

    /// Our own mistake. Please report it.
    #[error("internal error: {message}; this is a bug in wizer, please report it with the input")]
    Internal {
        /// What was found to be impossible.
        message: String,
    },
}

impl Error {
    /// The stable code of this error, `ERR_WIZER_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidModule { .. } => "ERR_WIZER_INVALID_MODULE",
            Error::InvalidText { .. } => "ERR_WIZER_INVALID_TEXT",
            Error::Component { .. } => "ERR_WIZER_COMPONENT",
            Error::InitFuncMissing { .. } => "ERR_WIZER_INIT_FUNC_MISSING",
            Error::InitFuncType { .. } => "ERR_WIZER_INIT_FUNC_TYPE",
            Error::Trap(trap) => trap.reason.code(),
            Error::ImportMissing { .. } => "ERR_WIZER_IMPORT_MISSING",
            Error::ImportType { .. } => "ERR_WIZER_IMPORT_TYPE",
            Error::Unrepresentable { .. } => "ERR_WIZER_UNREPRESENTABLE_STATE",
            Error::OutputTooLarge { .. } => "ERR_WIZER_OUTPUT_TOO_LARGE",
            Error::TooManySegments { .. } => "ERR_WIZER_TOO_MANY_SEGMENTS",
            Error::Option { .. } => "ERR_WIZER_OPTION",
            Error::OutOfBounds { .. } => "ERR_WIZER_OUT_OF_BOUNDS",
            Error::DuplicateRename { .. } => "ERR_WIZER_DUPLICATE_RENAME",
            Error::Io { .. } => "ERR_WIZER_IO",
            Error::Unsupported { .. } => "ERR_WIZER_UNSUPPORTED",
            Error::Timeout { .. } => "ERR_WIZER_TIMEOUT",
            Error::Aborted => "ERR_WIZER_ABORTED",
            Error::Internal { .. } => "ERR_WIZER_INTERNAL",
        }
    }

    /// An engine's refusal.
    pub(crate) fn unsupported(message: impl Into<String>) -> Error {
        Error::Unsupported {
            message: message.into(),
            help: None,
        }
    }

    /// The same error, said of a preloaded module.
    pub(crate) fn in_preload(mut self, name: &str) -> Error {
        match &mut self {
            Error::Trap(trap) => trap.preload = Some(name.into()),
            Error::InvalidModule { message, .. } | Error::InvalidText { message } => {
                *message = format!("in the preloaded module `{name}`: {message}");
            }
            Error::Component { preload } | Error::ImportMissing { preload, .. } => {
                *preload = Some(name.into());
            }
            Error::ImportType { message, .. } => {
                *message = format!("in the preloaded module `{name}`: {message}");
            }
            _ => {}
        }
        self
    }

    pub(crate) fn option(message: impl Into<String>) -> Error {
        Error::Option {
            message: message.into(),
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Error {
        Error::Internal {
            message: message.into(),
        }
    }
}

impl From<wasmparser::BinaryReaderError> for Error {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Error::InvalidModule {
            message: error.message().to_string(),
            offset: Some(error.offset()),
        }
    }
}

/// A function that did not return: where it was, and why.
#[derive(Debug)]
pub struct Trap {
    /// The export that was called, `start` for the start function, or nothing where
    /// instantiation itself trapped: an active segment lies outside of its memory or table.
    pub function: Option<String>,
    /// The preloaded module that it is a function of, by the name that it is imported under.
    pub preload: Option<String>,
    /// The calls that were active, the innermost first.
    pub frames: Vec<Frame>,
    /// Why it ended.
    pub reason: TrapReason,
}

/// One active call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function's index in the module.
    pub function: u32,
    /// Its name from the `name` section, demangled.
    pub name: Option<String>,
    /// The module's name from the `name` section.
    pub module: Option<String>,
    /// The instruction's place, in bytes from the start of the module that was given.
    pub offset: Option<usize>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offset) = self.offset {
            write!(f, "{offset:#8x} - ")?;
        }
        write!(f, "{}!", self.module.as_deref().unwrap_or("<unknown>"))?;
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "<wasm function {}>", self.function),
        }
    }
}

/// A function's name as its author wrote it.
pub(crate) fn demangle(name: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(name) {
        return format!("{name:#}");
    }
    // Without the prefix, any short name would be taken for the code of a type.
    if !name.starts_with("_Z") {
        return name.into();
    }
    match cpp_demangle::Symbol::new(name) {
        Ok(symbol) => symbol.demangle().unwrap_or_else(|_| name.into()),
        Err(_) => name.into(),
    }
}

/// An exception that a provided function throws, to be caught by the module, or that the module
/// throws and a provided function is given.
///
/// One that comes from the module may be passed on as it is. A new one is of a tag that was
/// [provided](crate::Wizer::import_tag).
///
/// ```
/// use wizer::{Exception, TrapReason, Value, Wizer};
/// let wat = r#"(module
///   (import "env" "tag" (tag $tag (param i32)))
///   (import "env" "fail" (func $fail))
///   (global (export "caught") (mut i32) (i32.const 0))
///   (func (export "wizer.initialize")
///     (block $catch (result i32)
///       (try_table (catch $tag $catch) (call $fail))
///       (return))
///     (global.set 0)))"#;
/// let mut wizer = Wizer::new();
/// wizer.import_tag("env", "tag");
/// wizer.import("env", "fail", |_, _| {
///     let exception = Exception::new("env", "tag", [Value::I32(42)]);
///     Err(TrapReason::Exception(exception).into())
/// });
/// let mut session = wizer.session(wat.as_bytes())?;
/// session.call("wizer.initialize", &[])?;
/// assert_eq!(session.global("caught")?, Value::I32(42));
/// # Ok::<(), wizer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    pub(crate) tag: Option<(String, String)>,
    pub(crate) values: Vec<Value>,
    /// The one under which it was handed out, where it comes from the module.
    pub(crate) number: Option<u32>,
}

impl Exception {
    /// A new exception of the tag that was provided under these two names. It carries values of the
    /// types of the tag's parameters.
    ///
    /// ```
    /// let exception = wizer::Exception::new("env", "tag", [wizer::Value::I32(42)]);
    /// assert_eq!(exception.tag(), Some(("env", "tag")));
    /// ```
    pub fn new(
        module: impl Into<String>,
        name: impl Into<String>,
        values: impl Into<Vec<Value>>,
    ) -> Exception {
        Exception {
            tag: Some((module.into(), name.into())),
            values: values.into(),
            number: None,
        }
    }

    /// The two names under which its tag was provided. `None` where the tag is the module's own.
    ///
    /// ```
    /// let exception = wizer::Exception::new("env", "tag", []);
    /// assert_eq!(exception.tag(), Some(("env", "tag")));
    /// ```
    pub fn tag(&self) -> Option<(&str, &str)> {
        let (module, name) = self.tag.as_ref()?;
        Some((module, name))
    }

    /// What it carries; nothing is known of one whose tag is the module's own.
    ///
    /// ```
    /// let exception = wizer::Exception::new("env", "tag", [wizer::Value::I32(42)]);
    /// assert_eq!(exception.values(), [wizer::Value::I32(42)]);
    /// ```
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// Why a function did not return.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrapReason {
    /// An instruction trapped.
    #[error("wasm trap: {0}")]
    Wasm(String),
    /// The program ended itself. Any status is an error: the state that it would leave behind
    /// is that of a program that has ended.
    #[error("Exited with i32 exit status {status}{}", exit_hint(*.0), status = .0)]
    Exit(i32),
    /// A function import was called that nobody provides.
    #[error(
        "unknown import: `{module}::{name}` has not been defined{}",
        hint(help)
    )]
    ImportMissing {
        /// The first name of the import.
        module: String,
        /// The second name of the import.
        name: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// A provided function failed.
    #[error(transparent)]
    Host(Box<dyn std::error::Error + Send + Sync>),
    /// A memory or table was to be larger than the limit that was set leaves room for.
    #[error(
        "with a {what} of {size} {}, memories and tables would take {wanted} bytes together, \
         beyond the limit of {limit} bytes that was set",
        if *what == "table" { "slots" } else { "bytes" }
    )]
    Limit {
        /// `memory` or `table`.
        what: &'static str,
        /// How large it was to be, in bytes or slots.
        size: u64,
        /// The bytes of all memories and tables together, as asked for.
        wanted: u64,
        /// The limit.
        limit: u64,
    },
    /// An exception that nothing catches: a provided function throws it, or it was thrown by what a
    /// provided function called.
    #[error("an exception was thrown that nothing catches")]
    Exception(Exception),
    /// The run itself is to end, whatever a provided function makes of this.
    #[error("{message}")]
    Ended {
        /// The code of the error that it ends with.
        code: &'static str,
        /// Why.
        message: String,
    },
}

impl TrapReason {
    /// Whether a provided function may catch it and go on: as far as a host can that runs the
    /// output. State that only a limit or a missing import leads to would not be the module's own.
    pub(crate) fn can_be_caught(&self) -> bool {
        match self {
            TrapReason::Wasm(_)
            | TrapReason::Exit(_)
            | TrapReason::Host(_)
            | TrapReason::Exception(_) => true,
            TrapReason::ImportMissing { .. }
            | TrapReason::Limit { .. }
            | TrapReason::Ended { .. } => false,
        }
    }

    /// For a provided function, where the reason itself goes on to the end of the run.
    pub(crate) fn ended(&self) -> TrapReason {
        TrapReason::Ended {
            code: self.code(),
            message: self.to_string(),
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            TrapReason::Wasm(_) | TrapReason::Exception(_) => "ERR_WIZER_TRAP",
            TrapReason::Exit(_) => "ERR_WIZER_EXIT",
            TrapReason::ImportMissing { .. } => "ERR_WIZER_IMPORT_MISSING",
            TrapReason::Host(_) => "ERR_WIZER_IMPORT_FAILED",
            TrapReason::Limit { .. } => "ERR_WIZER_MEMORY_LIMIT",
            TrapReason::Ended { code, .. } => code,
        }
    }
}

impl Trap {
    /// The backtrace in the shape that tools look for in the output of the command line.
    pub fn backtrace(&self) -> String {
        let mut text = String::from("error while executing at wasm backtrace:");
        for (i, frame) in self.frames.iter().enumerate() {
            text.push_str(&format!("\n  {i:>3}: {frame}"));
        }
        text
    }
}

impl TrapReason {
    /// Whether a memory, table or segment was too short.
    pub(crate) fn is_out_of_bounds(&self) -> bool {
        matches!(self, TrapReason::Wasm(text) if text.contains("out of bounds"))
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => write!(f, "the `{name}` function")?,
            None => f.write_str("the instantiation")?,
        }
        if let Some(name) = &self.preload {
            write!(f, " of the preloaded module `{name}`")?;
        }
        f.write_str(" trapped")
    }
}

impl std::error::Error for Trap {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

fn invalid(message: &str, offset: Option<usize>) -> String {
    match offset {
        Some(offset) => {
            format!(
                "the input is not a valid WebAssembly module: {message} (at offset {offset:#x})"
            )
        }
        None => format!("the input is not a valid WebAssembly module: {message}"),
    }
}

/// A number of things: `1 segment`, `2 segments`, `no segments`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    match count {
        0 => format!("no {thing}s"),
        1 => format!("1 {thing}"),
        many => format!("{many} {thing}s"),
    }
}

/// What can be done about a program that ended itself: those with another status have failed.
fn exit_hint(status: i32) -> &'static str {
    match status {
        0 => {
            "; --allow-exit (allowExit in JavaScript) takes that for the end of the initialization"
        }
        _ => "",
    }
}

fn hint(help: &Option<String>) -> String {
    help.as_ref().map_or(String::new(), |h| format!("; {h}"))
}

fn missing_init(names: &[String], candidates: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|n| format!("`{n}`")).collect();
    format!(
        "the module does not export the initialization function {}{}",
        names.join(" or "),
        candidates_hint(candidates)
    )
}

/// At most this many exports are listed in a message.
const MAX_CANDIDATES: usize = 12;

fn candidates_hint(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return "; it exports no function without parameters and results that could serve".into();
    }
    let mut list: Vec<_> = candidates
        .iter()
        .take(MAX_CANDIDATES)
        .map(|c| format!("`{c}`"))
        .collect();
    if candidates.len() > MAX_CANDIDATES {
        list.push(format!("and {} more", candidates.len() - MAX_CANDIDATES));
    }
    format!(
        "; name another with --init-func (initFunc in JavaScript): {}",
        list.join(", ")
    )
}
