//! Who runs a module: engines behind one trait, and the policy that picks one.
//!
//! An engine is made with modules, instantiates them one after the other in one store, and lets
//! the pipeline call exports and read state. It knows nothing of JavaScript or the command line,
//! and what imports mean is decided in [`crate::host`].

pub mod cache;
mod compiler;
mod interpreter;
mod making;
pub mod stack;
pub mod tier;
mod unfused;

use std::sync::Arc;

use wasmparser::FuncType;

use crate::error::{Error, TrapReason};
use crate::host::{HostState, Imports};
use crate::instrument::{Instrumented, Names, instrument};
use crate::module::{Directory, Module};
use crate::snapshot::State;
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};

pub use compiler::StoreData;

/// A module and its instrumented twin.
pub struct Prepared<'a> {
    pub module: Module<'a>,
    pub code: Instrumented,
}

impl<'a> Prepared<'a> {
    /// The module, made ready to run. `number` is the one that engines know it by.
    pub fn new(module: Module<'a>, names: &Names, number: usize, identify: bool) -> Self {
        let code = instrument(&module, names, number, identify);
        Prepared { module, code }
    }

    /// Gives back the memory of what was needed to run it, and is not to read its state.
    pub fn has_run(&mut self) {
        self.code.bytes = Default::default();
    }
}

/// An instance in an engine's store.
#[derive(Clone, Copy, Debug)]
pub struct InstanceId(usize);

// For engines of hosts, of which only the addon has one.
#[cfg_attr(any(not(feature = "napi"), test), allow(dead_code))]
impl InstanceId {
    /// An instance, as its engine numbers them.
    pub fn new(number: usize) -> InstanceId {
        InstanceId(number)
    }

    pub fn number(self) -> usize {
        self.0
    }
}

/// One engine with one store.
pub trait Engine: Send {
    /// Which engine this is, for reports: `wasmtime (Winch)`.
    fn name(&self) -> &'static str;

    /// Instantiates one of the engine's modules, each once. The start function was taken out and
    /// does not run.
    fn instantiate(&mut self, module: usize) -> Result<InstanceId, Error>;

    /// Lets modules that are instantiated from now on import an instance's exports under a name.
    fn register(&mut self, instance: InstanceId, name: &str) -> Result<(), Error>;

    /// How many modules it has: the number of the next one.
    fn modules(&self) -> usize;

    /// Takes one module more, to be instantiated by the number that it gets.
    fn load(&mut self, module: &Prepared<'_>) -> Result<usize, Error>;

    /// Calls an exported function. `label` is what an error calls it.
    fn call(
        &mut self,
        instance: InstanceId,
        export: &str,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error>;

    /// The type of the function in a slot of an exported table, where it is of types that a host
    /// can give and take.
    fn slot_type(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
    ) -> Result<FuncType, Error>;

    /// Calls the function in a slot of an exported table. `label` is what an error calls it.
    fn call_slot(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error>;

    /// The size in pages and the bytes of an exported memory.
    fn memory(&self, instance: InstanceId, export: &str) -> Result<(u64, &[u8]), Error>;

    /// The bytes of an exported memory, to be changed.
    fn memory_mut(&mut self, instance: InstanceId, export: &str) -> Result<&mut [u8], Error>;

    /// The value of an exported global.
    fn global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error>;

    /// The value of an exported global, for somebody who may give it back: with a handle for an
    /// object.
    fn hand_out_global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error>;

    /// The slots of an exported table.
    fn table(&mut self, instance: InstanceId, export: &str) -> Result<Vec<Reference>, Error>;

    /// What an object holds of which [`Engine::global`], [`Engine::table`] or this gave a handle;
    /// `None` if that is more than `most` values.
    fn object(&mut self, handle: u32, most: usize) -> Result<Option<Object>, Error>;

    /// The host's state.
    fn host(&mut self) -> &mut HostState;
}

/// An engine that is no part of this crate: who embeds it may provide one.
pub trait HostEngine: Send + Sync {
    /// A module will probably be loaded soon: what takes time can begin.
    fn prepare(&self);

    /// Modules that it may run, in a store of their own.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it cannot run them.
    fn load(&self, modules: &[Prepared<'_>]) -> Result<Arc<dyn Loading>, Error>;
}

/// Modules that a host's engine loads, once that is asked for.
pub trait Loading: Send + Sync {
    /// Begins, where it has not.
    fn begin(&self);

    /// How far it is.
    fn progress(&self) -> Progress;

    /// The engine, as soon as it has loaded the modules.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it cannot run them, or is not to be had.
    fn engine(
        &self,
        modules: &[Prepared<'_>],
        host: HostState,
        imports: Imports,
    ) -> Result<Box<dyn Engine>, Error>;
}

/// How far something is that is being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(any(not(feature = "napi"), test), allow(dead_code))]
pub enum Progress {
    /// Nobody knows how long it will take.
    GoingOn,
    Ready,
    /// There will be nothing.
    Failed,
}

/// Why a call of an engine's function failed.
enum CallError<E> {
    /// It was not called: what does not fit.
    Arguments(String),
    /// What the engine says.
    Run(E),
}

impl<E> From<E> for CallError<E> {
    fn from(error: E) -> Self {
        CallError::Run(error)
    }
}

impl<E> CallError<E> {
    /// For who called the export of this name from outside.
    fn tell(self, label: &str, failure: impl FnOnce(E) -> Error) -> Error {
        match self {
            CallError::Arguments(message) => {
                Error::option(format!("`{label}` cannot be called: {message}"))
            }
            CallError::Run(error) => failure(error),
        }
    }

    /// For a function of the host that called the guest.
    fn reason(self, reason: impl FnOnce(E) -> TrapReason) -> TrapReason {
        match self {
            CallError::Arguments(message) => TrapReason::Host(message.into()),
            CallError::Run(error) => reason(error),
        }
    }
}

/// What a store knows of its modules and instances, and the host of the one that calls it.
///
/// An engine says which instance calls a function of the host, but not of which module that is: a
/// global that was added tells the module's number.
pub(crate) struct Instances<I> {
    /// How the exports that instrumentation added are called.
    pub names: Option<Names>,
    /// The name of that global.
    number: Arc<str>,
    modules: Vec<Directory>,
    /// By the numbers of their modules.
    pub instances: Vec<Option<I>>,
    /// The one whose function was called from outside: it calls a function of the host where
    /// that was called itself, without any code between.
    pub called: Option<usize>,
}

impl<I: Copy> Instances<I> {
    pub fn new(modules: &[Prepared<'_>]) -> Instances<I> {
        let names = modules.first().map(|prepared| prepared.code.names.clone());
        let mut instances = Instances {
            number: names.as_ref().map(Names::module).unwrap_or_default().into(),
            names,
            modules: Vec::new(),
            instances: Vec::new(),
            called: None,
        };
        modules.iter().for_each(|prepared| instances.load(prepared));
        instances
    }

    pub fn load(&mut self, prepared: &Prepared<'_>) {
        self.modules.push(Directory::new(&prepared.module));
        self.instances.push(None);
    }

    /// Whether an export is none of the user's.
    pub fn is_added(&self, export: &str) -> bool {
        let names = &self.names;
        names.as_ref().is_some_and(|names| names.is_added(export))
    }

    /// The instance whose function was called from outside.
    fn called_instance(&self) -> Option<I> {
        *self.instances.get(self.called?)?
    }

    /// The name under which a memory of such an instance is exported.
    pub fn memory(&self, number: Option<usize>, name: Option<&str>) -> Result<String, String> {
        let (directory, names) = self.directory(number)?;
        Ok(names.memory(directory.memory(name)?))
    }

    /// The name under which a table of functions of such an instance is exported.
    pub fn table(&self, number: Option<usize>, name: Option<&str>) -> Result<String, String> {
        let (directory, names) = self.directory(number)?;
        Ok(names.table(directory.table(name)?))
    }

    fn directory(&self, number: Option<usize>) -> Result<(&Directory, &Names), String> {
        let directory = number.and_then(|number| self.modules.get(number));
        directory
            .zip(self.names.as_ref())
            .ok_or_else(|| "no instance of a module of this run has called".into())
    }
}

/// Why no function can be called in a slot of a table.
pub(crate) fn no_function(slot: u64, size: u64) -> String {
    match slot < size {
        true => format!("the slot {slot} of the table is null"),
        false => format!("the table has {size} slots, and none of the number {slot}"),
    }
}

/// Why an export cannot be called.
pub(crate) fn no_such_function(export: &str) -> TrapReason {
    TrapReason::Host(format!("the module exports no function `{export}`").into())
}

/// Where a function is given more arguments than it takes, or fewer.
pub(crate) fn count_of_arguments(given: usize, wanted: usize) -> Result<(), String> {
    match given == wanted {
        true => Ok(()),
        false => Err(format!(
            "{given} arguments were given to a function that takes {wanted}"
        )),
    }
}

/// An instance's state, read through the exports that instrumentation added.
pub struct Live<'e> {
    pub engine: &'e mut dyn Engine,
    pub instance: InstanceId,
    pub code: &'e Instrumented,
}

impl State for Live<'_> {
    fn memory(&self, index: u32) -> Result<(u64, &[u8]), Error> {
        let name = self.code.names.memory(index);
        self.engine.memory(self.instance, &name)
    }

    fn global(&mut self, index: u32) -> Result<Value, Error> {
        let name = self.code.names.global(index);
        self.engine.global(self.instance, &name)
    }

    fn table(&mut self, index: u32) -> Result<Vec<Reference>, Error> {
        let name = self.code.names.table(index);
        self.engine.table(self.instance, &name)
    }

    fn object(&mut self, handle: u32, most: usize) -> Result<Option<Object>, Error> {
        self.engine.object(handle, most)
    }

    fn functions(&mut self) -> Result<Vec<Reference>, Error> {
        let names = &self.code.names;
        if !self.code.functions_are_globals {
            return self.engine.table(self.instance, &names.functions());
        }
        let functions = self.code.functions.iter();
        let read = functions.map(|index| {
            let value = self.engine.global(self.instance, &names.function(*index))?;
            match value {
                Value::Ref(reference) => Ok(reference),
                _ => Err(Error::internal("a function is no reference")),
            }
        });
        read.collect()
    }

    fn traps(&mut self, probe: &str) -> Result<bool, Error> {
        // What a probe takes is not the user's.
        let limit = self.engine.host().limiter.limit.take();
        let called = self.engine.call(self.instance, probe, probe, &[]);
        self.engine.host().limiter.limit = limit;
        match called {
            Ok(_) => Ok(false),
            Err(Error::Trap(trap)) if trap.reason.is_out_of_bounds() => Ok(true),
            Err(other) => Err(other),
        }
    }
}

/// Calls an exported function, whose end may be that of the program: nothing is returned then.
pub fn call_to_end(
    engine: &mut dyn Engine,
    instance: InstanceId,
    export: &str,
    label: &str,
    args: &[Value],
) -> Result<Vec<Value>, Error> {
    match engine.call(instance, export, label, args) {
        Err(error) if engine.host().accepts(&error) => Ok(Vec::new()),
        other => other,
    }
}

/// Two instances cannot export the same thing under one name.
pub(crate) fn name_is_taken(name: &str, export: &str) -> Error {
    Error::option(format!(
        "nothing more can be imported from `{name}`: there is another `{export}` in it"
    ))
}

/// The types of a module's imported functions, in the order of its imports; `None` for imports
/// of other kinds.
fn imported_function_types(module: &Module<'_>) -> Vec<Option<FuncType>> {
    module
        .imports
        .iter()
        .map(|import| match import.ty {
            wasmparser::TypeRef::Func(ty) | wasmparser::TypeRef::FuncExact(ty) => {
                module.function_type_at(ty).cloned()
            }
            _ => None,
        })
        .collect()
}
