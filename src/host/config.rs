//! What a caller allows a module to reach. Nothing is on by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::HostFunction;

/// A function that the module may import.
#[derive(Clone)]
pub struct Import {
    pub module: String,
    pub name: String,
    pub function: Arc<dyn HostFunction>,
}

/// What WASI offers to the module.
#[derive(Clone)]
pub struct Wasi {
    /// The guest's arguments, its own name first.
    pub args: Vec<String>,
    /// Whether the process's environment is visible.
    pub inherit_env: bool,
    /// Further environment variables; they win over inherited ones.
    pub env: BTreeMap<String, String>,
    pub stdin: Stdin,
    pub stdout: Stdout,
    pub stderr: Stdout,
    pub dirs: Vec<Dir>,
    /// Files by guest path, in a private directory that is removed after the run.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Default for Wasi {
    fn default() -> Self {
        Wasi {
            args: Vec::new(),
            inherit_env: false,
            env: BTreeMap::new(),
            stdin: Stdin::Inherit,
            stdout: Stdout::Inherit,
            stderr: Stdout::Inherit,
            dirs: Vec::new(),
            files: BTreeMap::new(),
        }
    }
}

/// Where the guest's standard input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// The process's.
    Inherit,
    /// Empty.
    Ignore,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Where the guest's standard output or error goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    /// The process's.
    Inherit,
    /// The process's standard error, as something else goes to its standard output.
    StandardError,
    /// Nowhere.
    Ignore,
    /// Into a buffer of the outcome.
    Pipe,
}

/// A directory of the host that the guest may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    pub readonly: bool,
}
