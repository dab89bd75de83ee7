//! What a module may call while it runs, whoever runs it.
//!
//! Engines bring a [`Caller`], the instance that calls; this room decides what happens. Nothing
//! is reachable that was not allowed.

pub mod config;
pub mod interrupt;
pub mod speculation;
pub mod stdio;
pub mod stub;
mod waiting;
pub mod wasi;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wasmparser::FuncType;

use crate::error::{Error, TrapReason};
use crate::module::signature;
use crate::options::{Item, ProvidedItem};
use crate::value::{Reference, Value};
use interrupt::Interrupt;
use speculation::Speculation;
use stdio::Tape;
use stub::{Stub, Stubs};

/// The instance whose code is calling the host, as a provided function may use it.
///
/// A memory or table goes by the name of an export, else by that of an import, written
/// `module.name`. Without a name it is the export `memory` or `__indirect_function_table`, else the
/// only memory or table of functions that the module has.
///
/// ```
/// use wizer::{Value, Wizer};
/// let wat = r#"(module
///   (import "env" "memory" (memory 1))
///   (import "env" "invoke" (func $invoke (param i32)))
///   (table funcref (elem $fails $works))
///   (func $fails (unreachable))
///   (func $works (i32.store (i32.const 4) (i32.const 7)))
///   (func (export "wizer.initialize")
///     (call $invoke (i32.const 0))
///     (call $invoke (i32.const 1)))
///   (func (export "peek") (result i32)
///     (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 4)))))"#;
/// let mut wizer = Wizer::new();
/// wizer.import_memory("env", "memory", [], Some(1));
/// wizer.import("env", "invoke", |guest, args| {
///     let &[Value::I32(slot)] = args else { return Err("one i32 is wanted".into()) };
///     // A trap is caught, and noted in the memory that the module imports.
///     if guest.call_indirect(None, slot as u64, &[]).is_err() {
///         guest.memory(Some("env.memory"))?[0] = 1;
///     }
///     Ok(vec![])
/// });
/// let mut session = wizer.session(wat.as_bytes())?;
/// session.call("wizer.initialize", &[])?;
/// assert_eq!(session.call("peek", &[])?, [Value::I32(8)]);
/// # Ok::<(), wizer::Error>(())
/// ```
pub trait Guest {
    /// The bytes of a memory.
    ///
    /// # Errors
    ///
    /// Where there is no such memory: which there are.
    fn memory(&mut self, name: Option<&str>) -> Result<&mut [u8], HostError>;

    /// The type of an exported function, if there is one of this name and its type is of
    /// numbers, vectors, `funcref` and `externref`.
    fn function_type(&mut self, export: &str) -> Option<FuncType>;

    /// Calls an exported function; the guest's allocator is the usual need.
    ///
    /// # Errors
    ///
    /// What ended the call, which the provided function may pass on, or go on without: but not
    /// where the run itself is to end, by a time or memory limit, for example.
    fn call(&mut self, export: &str, args: &[Value]) -> Result<Vec<Value>, TrapReason>;

    /// The type of the function in a slot of a table.
    ///
    /// # Errors
    ///
    /// Where there is no such table, nothing in the slot, or a function with other types than those
    /// of [`Guest::function_type`].
    fn slot_type(&mut self, table: Option<&str>, slot: u64) -> Result<FuncType, HostError>;

    /// Calls the function in a slot of a table, as `call_indirect` does: what C and C++ know as a
    /// pointer to a function is the number of a slot.
    ///
    /// # Errors
    ///
    /// Those of [`Guest::slot_type`] and [`Guest::call`].
    fn call_indirect(
        &mut self,
        table: Option<&str>,
        slot: u64,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason>;
}

/// A [`Guest`], as this crate uses it.
pub trait Caller: Guest {
    /// The host's state, which travels with the instance.
    fn host(&mut self) -> &mut HostState;
    /// The bytes of a memory, and the host's state beside them. The error says which memories
    /// there are.
    fn memory_and_host(
        &mut self,
        name: Option<&str>,
    ) -> Result<(&mut [u8], &mut HostState), String>;
}

/// A function of the host that a module can import.
///
/// It is called with values of the import's parameter types and must return values of its
/// result types.
pub trait HostFunction: Send + Sync {
    /// Handles one call.
    fn call(
        &self,
        guest: &mut dyn Caller,
        ty: &FuncType,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason>;
}

/// Why a provided function failed: an error of its own, or the [`TrapReason`] of a call that it
/// made.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

impl<F> HostFunction for F
where
    F: Fn(&mut dyn Guest, &[Value]) -> Result<Vec<Value>, HostError> + Send + Sync,
{
    fn call(
        &self,
        guest: &mut dyn Caller,
        _: &FuncType,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        self(guest, args).map_err(|error| match error.downcast::<TrapReason>() {
            Ok(reason) => *reason,
            Err(error) => TrapReason::Host(error),
        })
    }
}

/// What the host keeps while a module runs, and knows afterwards.
pub struct HostState {
    pub(crate) wasi: Option<wasi::WasiState>,
    /// How often each function was called, by module and name.
    pub(crate) calls: BTreeMap<(String, String), u64>,
    /// Which of them a stub stood in for.
    pub(crate) stubbed: BTreeSet<(String, String)>,
    /// Whether a program that ends itself, with status 0, only ends the call.
    allow_exit: bool,
    /// Whether one did.
    pub(crate) exited: bool,
    pub(crate) limiter: Limiter,
    pub(crate) interrupt: Option<Arc<Interrupt>>,
    /// Set where the run may be thrown away and repeated.
    pub(crate) speculation: Option<Speculation>,
}

impl HostState {
    /// The state for a run: with WASI where that is allowed, and with these limits, which the
    /// slots that instrumentation added to tables do not count for. `input` is the process's
    /// standard input, and `allow_exit` says whether a program that ends itself, with status 0, only
    /// ends the call.
    pub fn new(
        wasi: Option<&config::Wasi>,
        max_memory: Option<u64>,
        added_slots: usize,
        interrupt: Option<Arc<Interrupt>>,
        input: &Tape,
        speculation: Option<Speculation>,
        allow_exit: bool,
    ) -> Result<HostState, Error> {
        let held = speculation.as_ref().map(|s| &s.held);
        Ok(HostState {
            wasi: wasi
                .map(|wasi| wasi::WasiState::new(wasi, interrupt.clone(), input, held))
                .transpose()?,
            speculation,
            calls: BTreeMap::new(),
            stubbed: BTreeSet::new(),
            allow_exit,
            exited: false,
            limiter: Limiter {
                limit: max_memory,
                used: 0,
                ours: added_slots as u64 * BYTES_PER_SLOT,
                refused: None,
            },
            interrupt,
        })
    }

    /// Whether the run is to go on.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn goes_on(&self) -> Result<(), TrapReason> {
        let interrupt = self.interrupt.as_ref();
        let ended = interrupt.map_or(Ok(()), |interrupt| interrupt.check());
        ended.map_err(|error| TrapReason::Ended {
            code: error.code(),
            message: error.to_string(),
        })
    }

    /// Passes on what was held back, within this time: the run counts.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where a stream of the process cannot take it, which the guest was not told, and
    /// why the run was to end where that comes first.
    pub fn release(&mut self, limit: Option<Duration>) -> Result<(), Error> {
        let Some(speculation) = self.speculation.take() else {
            return Ok(());
        };
        let interrupt = self.interrupt.as_ref();
        let failed = |(to, source)| Error::Io {
            action: "write the module's output to",
            path: match to {
                stdio::Standard::Out => "standard output".into(),
                stdio::Standard::Err => "standard error".into(),
            },
            source,
        };
        Interrupt::during(interrupt, limit, || {
            let released = speculation.held().release(interrupt.map(|i| &**i));
            released.map_err(|error| {
                let ended = interrupt.and_then(|interrupt| interrupt.check().err());
                ended.unwrap_or_else(|| failed(error))
            })
        })
    }

    /// Whether the end of a call is not an error: the program has ended itself, with status 0, and
    /// may do so.
    pub fn accepts(&mut self, error: &Error) -> bool {
        let accepted = self.allow_exit && is_exit(error);
        self.exited |= accepted;
        accepted
    }

    /// What the guest wrote to standard output and error, where that was to be captured.
    pub fn captured(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match &self.wasi {
            Some(wasi) => (wasi.stdout.take(), wasi.stderr.take()),
            None => (None, None),
        }
    }
}

/// Whether a program ended itself, with status 0.
fn is_exit(error: &Error) -> bool {
    matches!(error, Error::Trap(trap) if matches!(trap.reason, TrapReason::Exit(0)))
}

/// Who answers calls of an import.
pub enum Binding {
    /// A function that was provided.
    Provided(Arc<dyn HostFunction>),
    /// WASI.
    Wasi(wasi::Function),
    /// A stub, with these results.
    Stub(Vec<Value>),
    /// Nobody: calling it is the error.
    Missing { help: Option<String> },
}

/// Something besides functions that an engine makes where a module imports it, as the import's
/// type says: no module could export it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A global that holds this reference of the host.
    Global(Reference),
    /// A tag: the same one for all names with the same reference.
    Tag(Option<Reference>),
}

/// The rules by which imports find what they are.
pub struct Imports {
    functions: BTreeMap<(String, String), Arc<dyn HostFunction>>,
    made: BTreeMap<(String, String), Made>,
    stubs: Stubs,
    allow_wasi: bool,
}

impl Imports {
    /// These functions, references of these items, WASI where it is allowed, and stubs for the rest.
    pub fn new(
        functions: &[config::Import],
        items: &[ProvidedItem],
        stubs: Stubs,
        allow_wasi: bool,
    ) -> Imports {
        let made = items.iter().filter_map(|item| {
            let made = match item.item {
                Item::Tag(_) => Made::Tag(item.reference),
                _ => Made::Global(item.reference?),
            };
            Some(((item.module.clone(), item.name.clone()), made))
        });
        Imports {
            made: made.collect(),
            functions: functions
                .iter()
                .map(|i| ((i.module.clone(), i.name.clone()), i.function.clone()))
                .collect(),
            stubs,
            allow_wasi,
        }
    }

    /// What an engine is to make for an import that is no function.
    pub fn made(&self, module: &str, name: &str) -> Option<Made> {
        self.made.get(&(module.into(), name.into())).copied()
    }

    /// Who answers calls of an import of this type: a provided function, a stub that names it in
    /// full, WASI where it is allowed, any stub.
    pub fn resolve(&self, module: &str, name: &str, ty: &FuncType) -> Binding {
        if let Some(function) = self.functions.get(&(module.into(), name.into())) {
            return Binding::Provided(function.clone());
        }
        if let Some(stub) = self.stubs.named(module, name) {
            return Binding::of_stub(stub, ty);
        }
        let wasi = wasi::lookup(module, name);
        match wasi {
            Some(function) if self.allow_wasi && function.has_type(ty) => Binding::Wasi(function),
            _ if let Some(stub) = self.stubs.find(module, name) => Binding::of_stub(stub, ty),
            Some(_) if self.allow_wasi => Binding::Missing {
                help: Some(format!(
                    "the module imports it as {}, which is not its type in WASI",
                    signature(ty)
                )),
            },
            Some(_) => Binding::Missing {
                help: Some(
                    "allow WASI with --allow-wasi (allowWasi in JavaScript) to let the \
                     initialization call it"
                        .into(),
                ),
            },
            None => Binding::Missing {
                help: Some(
                    "provide it as a preloaded module, an import or a stub, or keep the \
                     initialization from calling it"
                        .into(),
                ),
            },
        }
    }
}

impl Binding {
    /// What a stub of this type does.
    fn of_stub(stub: Stub, ty: &FuncType) -> Binding {
        let results = ty.results().iter().map(|ty| stub.value(*ty));
        let help = match (stub, results.collect::<Option<_>>()) {
            (Stub::Trap, _) => "the stub in its place traps",
            (_, Some(results)) => return Binding::Stub(results),
            (_, None) => "the stub in its place has no value of its results' types",
        };
        Binding::Missing {
            help: Some(help.into()),
        }
    }

    /// Answers one call.
    pub fn call(
        &self,
        guest: &mut dyn Caller,
        module: &str,
        name: &str,
        ty: &FuncType,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        let host = guest.host();
        *host.calls.entry((module.into(), name.into())).or_default() += 1;
        if let Some(speculation) = &mut host.speculation {
            speculation.count_call()?;
        }
        if let (Some(speculation), Binding::Provided(_) | Binding::Missing { .. }) =
            (&mut host.speculation, self)
        {
            return Err(speculation.leave(format!("the call of `{module}::{name}`")));
        }
        let values = match self {
            Binding::Provided(function) => {
                let values = function.call(guest, ty, args);
                // Whatever it made of that.
                guest.host().goes_on()?;
                values
            }
            Binding::Wasi(function) => wasi::call(*function, name, guest, args),
            Binding::Stub(results) => {
                guest.host().stubbed.insert((module.into(), name.into()));
                Ok(results.clone())
            }
            Binding::Missing { help } => Err(TrapReason::ImportMissing {
                module: module.into(),
                name: name.into(),
                help: help.clone(),
            }),
        }?;
        if values.len() != ty.results().len() {
            let (given, wanted) = (values.len(), ty.results().len());
            let message = format!("`{module}::{name}` returned {given} values instead of {wanted}");
            return Err(TrapReason::Host(message.into()));
        }
        Ok(values)
    }
}

/// Keeps memories and tables within the limit that was set.
pub(crate) struct Limiter {
    /// The most bytes in all memories and tables together.
    pub limit: Option<u64>,
    /// The bytes in use.
    pub used: u64,
    /// How many bytes of tables are not the module's own, and do not count.
    pub ours: u64,
    /// What was refused last: wasmtime takes no error from the growth of its collected heap.
    pub refused: Option<Refused>,
}

/// What there was no room for, as [`TrapReason::Limit`] tells it.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    what: &'static str,
    size: u64,
    wanted: u64,
    limit: u64,
}

impl From<Refused> for TrapReason {
    fn from(refused: Refused) -> Self {
        let Refused {
            what,
            size,
            wanted,
            limit,
        } = refused;
        TrapReason::Limit {
            what,
            size,
            wanted,
            limit,
        }
    }
}

/// How many bytes a table slot counts for.
const BYTES_PER_SLOT: u64 = 8;

impl Limiter {
    /// Slots that instrumentation is going to add do not count. Returns what did not before.
    pub fn does_not_count(&mut self, added_slots: usize) -> u64 {
        let more = self.ours + added_slots as u64 * BYTES_PER_SLOT;
        std::mem::replace(&mut self.ours, more)
    }

    /// Takes note of growth. Growth beyond the limit is an error and not a `-1` for the guest:
    /// what it would make of that is state that no run without the limit would reach.
    pub fn grow(&mut self, what: &'static str, from: u64, to: u64) -> Result<(), TrapReason> {
        let unit = if what == "table" { BYTES_PER_SLOT } else { 1 };
        let mut more = to.saturating_sub(from).saturating_mul(unit);
        if what == "table" {
            let ours = self.ours.min(more);
            self.ours -= ours;
            more -= ours;
        }
        let wanted = self.used.saturating_add(more);
        match self.limit {
            Some(limit) if wanted > limit => {
                let refused = Refused {
                    what,
                    size: to,
                    wanted,
                    limit,
                };
                self.refused = Some(refused);
                Err(refused.into())
            }
            _ => {
                self.used = wanted;
                Ok(())
            }
        }
    }
}
