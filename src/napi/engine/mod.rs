//! The engine that runs JavaScript, as one that runs modules: V8 in Node.
//!
//! It lives in a worker, whose thread waits in [`server`] for work and is then the module's thread:
//! the host's functions are called on it, with nothing in between. The thread of the pipeline waits
//! meanwhile. So only one of the two ever works, and what belongs to the run needs no lock.

mod guest;
mod seat;
mod server;
mod values;

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use wasmparser::{FuncType, TypeRef, ValType};

use super::link::WorkerSide;
use crate::engine::{
    Engine, HostEngine, InstanceId, Instances, Loading, Prepared, Progress, name_is_taken,
    no_function,
};
use crate::error::{Error, Frame, Trap, TrapReason};
use crate::host::interrupt::Interrupt;
use crate::host::{Binding, HostState, Imports};
use crate::instrument::bits_of;
use crate::module::ExternKind;
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};
use seat::Seat;
use server::{Failure, Import, Server};

pub use server::is_ending;

/// Makes workers, by way of the JavaScript thread.
pub struct Workers {
    side: Arc<WorkerSide>,
    /// One that was asked for before anything was loaded.
    early: Mutex<Option<Arc<Seat>>>,
}

impl Workers {
    pub fn new(side: Arc<WorkerSide>) -> Workers {
        let early = Mutex::default();
        Workers { side, early }
    }

    fn early(&self) -> std::sync::MutexGuard<'_, Option<Arc<Seat>>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostEngine for Workers {
    fn prepare(&self) {
        self.early().get_or_insert_with(|| Seat::ask(&self.side));
    }

    fn load(&self, modules: &[Prepared<'_>]) -> Result<Arc<dyn Loading>, Error> {
        let loaded: Result<Vec<_>, _> = modules.iter().map(Loaded::new).collect();
        let loaded = loaded?;
        check_slots(loaded.iter())?;
        Ok(Arc::new(LoadingModules {
            side: Arc::clone(&self.side),
            loaded: Mutex::new(loaded),
            bytes: modules.iter().map(|m| Arc::clone(&m.code.bytes)).collect(),
            early: Mutex::new(self.early().take()),
            begun: Mutex::default(),
            progress: Arc::default(),
        }))
    }
}

/// Modules that a worker compiles, once that is asked for.
struct LoadingModules {
    side: Arc<WorkerSide>,
    loaded: Mutex<Vec<Loaded>>,
    bytes: Vec<Arc<Vec<u8>>>,
    early: Mutex<Option<Arc<Seat>>>,
    begun: Mutex<Option<Begun>>,
    /// A [`Progress`].
    progress: Arc<AtomicU8>,
}

struct Begun {
    seat: Arc<Seat>,
    compiled: Receiver<Result<(), Failure>>,
}

impl LoadingModules {
    fn begun(&self) -> std::sync::MutexGuard<'_, Option<Begun>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.get_or_insert_with(|| {
            let early = self
                .early
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let seat = early.unwrap_or_else(|| Seat::ask(&self.side));
            let (bytes, progress) = (self.bytes.clone(), Arc::clone(&self.progress));
            let compiled = seat.post(move |server| {
                let compiled = bytes.iter().try_for_each(|bytes| server.compile(bytes));
                let reached = match compiled {
                    Ok(()) => Progress::Ready,
                    Err(_) => Progress::Failed,
                };
                progress.store(reached as u8, Ordering::Release);
                compiled
            });
            Begun { seat, compiled }
        });
        begun
    }
}

impl Loading for LoadingModules {
    fn begin(&self) {
        drop(self.begun());
    }

    fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            ready if ready == Progress::Ready as u8 => Progress::Ready,
            failed if failed == Progress::Failed as u8 => Progress::Failed,
            _ => Progress::GoingOn,
        }
    }

    fn engine(
        &self,
        modules: &[Prepared<'_>],
        host: HostState,
        imports: Imports,
    ) -> Result<Box<dyn Engine>, Error> {
        if host.limiter.limit.is_some() {
            return Err(Error::unsupported(
                "the engine of the host does not count the memory that a module takes, and a limit was set",
            ));
        }
        let interrupt = host.interrupt.clone();
        if let Some(interrupt) = &interrupt {
            interrupt.ask(Box::new(is_ending));
        }
        let begun = self.begun().take();
        let Begun { seat, compiled } = begun.ok_or_else(|| Error::internal("loaded twice"))?;
        let compiled = seat.wait(interrupt.as_deref(), &compiled)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let remote = Remote {
            seat,
            interrupt,
            store: Box::new(UnsafeCell::new(Store {
                host,
                imports,
                instances: Instances::new(modules),
                modules: std::mem::take(&mut *loaded),
                linked: BTreeMap::new(),
                bindings: Vec::new(),
                tags: Vec::new(),
                failed: None,
                ended: None,
            })),
            of_instances: Vec::new(),
            types: HashMap::new(),
        };
        compiled.map_err(|failure| remote.failure(failure, None))?;
        Ok(Box::new(remote))
    }
}

/// Whether the tables of these modules have their place in V8's heap, however they grow.
fn check_slots<'m>(modules: impl Iterator<Item = &'m Loaded>) -> Result<(), Error> {
    match modules.map(|module| module.slots).sum::<u64>() > MOST_SLOTS {
        true => Err(refused(format!(
            "where its tables fill the heap, the process ends (they may grow to more than {MOST_SLOTS} slots)"
        ))),
        false => Ok(()),
    }
}

/// JavaScript has made the worker of this number, or says why not.
pub fn started(number: u32, why_not: Option<String>) {
    if let Some(seat) = Seat::of(number) {
        match why_not {
            None => seat.made(),
            Some(reason) => seat.leave(reason),
        }
    }
}

/// Nobody has ended it.
fn worker_has_ended() -> Error {
    refused("its worker has ended, as it does where its heap is full".into())
}

fn not_to_be_had(reason: &str) -> Error {
    Error::unsupported(format!("the engine of the host cannot be had: {reason}"))
}

/// What a run has besides the worker.
struct Store {
    host: HostState,
    imports: Imports,
    instances: Instances<usize>,
    modules: Vec<Loaded>,
    /// Where things are that instances export, by the names under which they are imported.
    linked: BTreeMap<(String, String), (usize, String)>,
    /// The functions of the host that instances import.
    bindings: Vec<Arc<HostImport>>,
    /// The tags that were made.
    tags: Vec<MadeTag>,
    /// Why the host's function failed that was called last.
    failed: Option<TrapReason>,
    /// What ends the run, whatever functions of the host make of it.
    ended: Option<TrapReason>,
}

/// A tag of the host, by the two names under which it is imported.
struct MadeTag {
    names: (String, String),
    /// What the host knows it by.
    identity: Option<Reference>,
    /// Its number in JavaScript.
    number: usize,
}

/// A function of the host, as an instance of a module imports it.
struct HostImport {
    binding: Binding,
    module: String,
    name: String,
    ty: FuncType,
    /// The number of the importing module.
    of: usize,
}

/// A module, as far as it has to be known when it runs.
struct Loaded {
    imports: Vec<(String, String, Wanted)>,
    functions: HashMap<String, FuncType>,
    /// The types of exported globals, and the names of the exports that were added for them.
    globals: HashMap<String, (ValType, String)>,
    /// The types of the functions that references can be of, and where they are.
    referable: Vec<Option<FuncType>>,
    functions_at: FunctionsAt,
    code_shift: i64,
    /// How many slots its tables may have together.
    slots: u64,
    /// Whether an instance of it passes a function of the host on.
    passes_host_on: bool,
    /// How many functions it has without those that were added, and how many it defines.
    count: u32,
    defined: u32,
}

/// Where the functions of a module are that references can be of.
enum FunctionsAt {
    /// In the table of this name.
    Table(String),
    /// In globals of these names.
    Globals(Vec<String>),
}

/// What a module imports.
enum Wanted {
    /// A function of this type, and whether somebody else may get it.
    Function(FuncType, bool),
    Tag(Option<FuncType>),
    Global(ValType, bool),
    Other(&'static str),
}

impl Loaded {
    fn new(prepared: &Prepared<'_>) -> Result<Loaded, Error> {
        let Prepared { module, code } = prepared;
        if module.has_objects() {
            return Err(refused(
                "where objects of the garbage-collected heap fill it, the process ends".into(),
            ));
        }
        let passed_on = module.imports_passed_on();
        let mut functions = 0;
        let mut imports = Vec::new();
        for import in &module.imports {
            let wanted = match import.ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                    let ty = module.function_type_at(ty);
                    let is_passed_on = passed_on.contains(&functions);
                    functions += 1;
                    Wanted::Function(ty.cloned().ok_or_else(unknown_type)?, is_passed_on)
                }
                TypeRef::Tag(tag) => {
                    Wanted::Tag(module.function_type_at(tag.func_type_idx).cloned())
                }
                TypeRef::Global(global) => Wanted::Global(global.content_type, global.mutable),
                TypeRef::Memory(_) => Wanted::Other("memory"),
                TypeRef::Table(_) => Wanted::Other("table"),
            };
            if let Wanted::Function(ty, _) | Wanted::Tag(Some(ty)) = &wanted
                && let Some(unknown) = values::unknown(ty)
            {
                return Err(refused(format!(
                    "`{}::{}` is of values of the type {unknown}, which JavaScript has none of",
                    import.module, import.name
                )));
            }
            if let Wanted::Function(ty, _) = &wanted
                && let Some(unchecked) = values::unchecked(ty)
            {
                return Err(refused(format!(
                    "`{}::{}` returns values of the type {unchecked}, which JavaScript does not check in time",
                    import.module, import.name
                )));
            }
            imports.push((import.module.into(), import.name.into(), wanted));
        }
        let mut functions = HashMap::new();
        let mut globals = HashMap::new();
        for export in &module.exports {
            match export.kind {
                ExternKind::Func => {
                    if let Some(ty) = module.function_type(export.index) {
                        functions.insert(export.name.to_string(), ty.clone());
                    }
                }
                ExternKind::Global => {
                    if let Some(global) = module.globals.get(export.index) {
                        // Those that nobody changes have no other.
                        let added = match code.globals.contains(&export.index) {
                            true => code.names.global(export.index),
                            false => export.name.to_string(),
                        };
                        let known = (global.ty.content_type, added);
                        globals.insert(export.name.to_string(), known);
                    }
                }
                _ => {}
            }
        }
        for (index, global) in module.globals.all() {
            let name = code.names.global(index);
            globals.insert(name.clone(), (global.ty.content_type, name));
        }
        if code.functions_are_globals {
            for &index in &code.functions {
                let name = code.names.function(index);
                globals.insert(name.clone(), (ValType::FUNCREF, name));
            }
        }
        let referable = code.functions.iter();
        let referable = referable.map(|index| module.function_type(*index).cloned());
        Ok(Loaded {
            imports,
            functions,
            globals,
            referable: referable.collect(),
            functions_at: match code.functions_are_globals {
                false => FunctionsAt::Table(code.names.functions()),
                true => {
                    let functions = code.functions.iter();
                    let names = functions.map(|index| code.names.function(*index));
                    FunctionsAt::Globals(names.collect())
                }
            },
            code_shift: code.code_shift,
            passes_host_on: false,
            slots: {
                let tables = module.tables.all().map(|(_, table)| &table.ty);
                let slots = tables.map(|ty| ty.maximum.unwrap_or(u64::MAX));
                slots.map(|slots| slots.min(MOST_SLOTS_OF_TABLE)).sum()
            },
            count: module.functions.len(),
            defined: module.functions.len() - module.functions.imported(),
        })
    }
}

impl Loaded {
    /// Whether functions of others can be called by it, or as one of it.
    fn may_call(&self) -> bool {
        let mut imports = self.imports.iter();
        self.defined > 0
            || imports
                .any(|(.., wanted)| matches!(wanted, Wanted::Function(..) | Wanted::Other("table")))
    }

    /// It is not instantiated: nothing of it is there for others.
    fn leave(&mut self) {
        self.passes_host_on = false;
        self.defined = 0;
        self.imports.clear();
    }
}

fn unknown_type() -> Error {
    Error::internal("a function of no known type")
}

/// The engine, as the pipeline's thread has it.
struct Remote {
    seat: Arc<Seat>,
    /// The host's.
    interrupt: Option<Arc<Interrupt>>,
    store: Box<UnsafeCell<Store>>,
    /// The number of each instance's module.
    of_instances: Vec<usize>,
    /// The types of functions, by what tells them from others.
    types: HashMap<u64, FuncType>,
}

// SAFETY: the store is used by the worker's thread only while this waits for it, in `on_worker`.
unsafe impl Send for Remote {}

impl Remote {
    /// Has the worker do something, and waits for it.
    fn on_worker<T: Send>(
        &self,
        work: impl FnOnce(&Server, &UnsafeCell<Store>) -> Result<T, Failure> + Send,
    ) -> Result<Result<T, Failure>, Error> {
        /// The store, on its way to the worker's thread.
        struct Shared<'s>(&'s UnsafeCell<Store>);
        // SAFETY: this thread waits until the work is done or dropped.
        unsafe impl Send for Shared<'_> {}

        let shared = Shared(&self.store);
        self.seat.run(self.interrupt.as_deref(), move |server| {
            let Shared(store) = { shared };
            server.within(store, || work(server, store))
        })
    }

    /// Why the run is to end, where it is.
    fn ended(&self) -> Option<Error> {
        self.interrupt.as_ref()?.check().err()
    }

    fn store(&mut self) -> &mut Store {
        self.store.get_mut()
    }

    /// What a module imports, for JavaScript.
    fn imports(&mut self, of: usize) -> Result<Vec<Import>, Error> {
        let Store {
            imports,
            modules,
            linked,
            bindings,
            tags,
            ..
        } = self.store.get_mut();
        let mut resolved = Vec::new();
        let mut passes_host_on = false;
        for (module, name, wanted) in &modules[of].imports {
            let names = (module.clone(), name.clone());
            if let Some((instance, export)) = linked.get(&names) {
                resolved.push(Import::Export(*instance, export.clone()));
                continue;
            }
            let missing = |kind| Error::ImportMissing {
                preload: None,
                kind,
                module: module.clone(),
                name: name.clone(),
            };
            use crate::host::Made;
            let made = imports.made(module, name);
            resolved.push(match (wanted, made) {
                (Wanted::Function(ty, is_passed_on), _) => {
                    passes_host_on |= is_passed_on;
                    bindings.push(Arc::new(HostImport {
                        binding: imports.resolve(module, name, ty),
                        module: module.clone(),
                        name: name.clone(),
                        ty: ty.clone(),
                        of,
                    }));
                    Import::Host(bindings.len() - 1, ty.clone())
                }
                (Wanted::Global(ty, mutable), Some(Made::Global(reference))) => {
                    Import::Global(Value::Ref(reference), *ty, *mutable, names)
                }
                (Wanted::Tag(Some(ty)), Some(Made::Tag(identity))) => {
                    let known = tags.iter().find(|tag| {
                        tag.names == names || (identity.is_some() && tag.identity == identity)
                    });
                    let number = known.map_or(tags.len(), |tag| tag.number);
                    tags.push(MadeTag {
                        names,
                        identity,
                        number,
                    });
                    Import::Tag(number, (module.clone(), name.clone()), ty.clone())
                }
                (Wanted::Tag(_), _) => return Err(missing("tag")),
                (Wanted::Global(..), _) => return Err(missing("global")),
                (Wanted::Other(kind), _) => return Err(missing(kind)),
            });
        }
        modules[of].passes_host_on = passes_host_on;
        Ok(resolved)
    }

    /// Whether it can be told whose memory a function of the host works on.
    fn check_callers(&mut self) -> Result<(), Error> {
        let modules = &self.store().modules;
        // Also one without code may export what it imports, to be called from outside.
        let has_others = |passing: &Loaded| {
            let others = modules.iter();
            let mut others = others.filter(|other| !std::ptr::eq(*other, passing));
            others.any(Loaded::may_call)
        };
        if !modules.iter().any(|m| m.passes_host_on && has_others(m)) {
            return Ok(());
        }
        Err(Error::Unsupported {
            message: "V8 does not tell which instance calls a function of the host that a module passes on".into(),
            help: Some("choose another engine, as `optimizing`".into()),
        })
    }

    /// Calls a function of an instance.
    fn enter(
        &mut self,
        of: usize,
        label: &str,
        args: &[Value],
        ty: &FuncType,
        call: impl FnOnce(&Server) -> Result<Vec<Value>, Failure> + Send,
    ) -> Result<Vec<Value>, Error> {
        let misfit =
            |message: String| Error::option(format!("`{label}` cannot be called: {message}"));
        values::check(args, ty.params()).map_err(misfit)?;
        if let Some(unknown) = values::unknown(ty) {
            return Err(refused(format!(
                "`{label}` takes or returns a value of the type {unknown}, which JavaScript has no values of"
            )));
        }
        if let Some(nan) = values::special_nan(args) {
            return Err(refused(format!("JavaScript has no number for {nan}")));
        }
        let store = self.store();
        store.instances.called = Some(of);
        store.failed = None;
        let result = self.on_worker(|server, _| call(server))?;
        result.map_err(|failure| self.failure(failure, Some(label)))
    }

    /// The error of something that failed.
    fn failure(&self, failure: Failure, function: Option<&str>) -> Error {
        if let Some(ended) = self.ended() {
            return ended;
        }
        // SAFETY: the worker waits for work.
        let store = unsafe { &mut *self.store.get() };
        let (reason, frames) = match failure {
            Failure::Refused(message) => return refused(message),
            Failure::Stopped => return worker_has_ended(),
            Failure::Link(message) => return Error::internal(message),
            Failure::Trap(message, frames) => (TrapReason::Wasm(message), frames),
            Failure::Exception(exception, frames) => (TrapReason::Exception(exception), frames),
            Failure::Host(frames) => {
                let reason = store.failed.take().or(store.ended.take());
                let unknown = || TrapReason::Host("a function of the host failed".into());
                (reason.unwrap_or_else(unknown), frames)
            }
        };
        // A place is that of a module, which V8 does not tell: of the only one that has code.
        let mut with_code = store.modules.iter().filter(|m| m.defined > 0);
        let frames = match (with_code.next(), with_code.next()) {
            (Some(module), None) => frames
                .into_iter()
                .filter(|frame| frame.function < module.count)
                .map(|frame| Frame {
                    offset: frame
                        .offset
                        .and_then(|offset| usize::try_from(offset as i64 - module.code_shift).ok()),
                    ..frame
                })
                .collect(),
            _ => Vec::new(),
        };
        Error::Trap(Box::new(Trap {
            function: function.map(Into::into),
            preload: None,
            frames,
            reason,
        }))
    }

    /// The error of an import that does not fit. V8 tells its number: `Import #0 "env" "f": function import
    /// requires a callable`, or in Node 20 `memory import 0 is smaller than initial 3`.
    fn misfit(&mut self, module: usize, message: String) -> Error {
        let imports = &self.store().modules[module].imports;
        let behind = |mark| message.split_once(mark).map(|(_, rest)| rest);
        let place = behind("Import #").or_else(|| behind(" import "));
        let digits = place.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let index: Option<usize> = digits.flatten().and_then(|digits| digits.parse().ok());
        match index.and_then(|index| imports.get(index)) {
            Some((module, name, _)) => Error::ImportType {
                module: module.clone(),
                name: name.clone(),
                message: message
                    .rsplit_once(": ")
                    .map_or(message.clone(), |(_, why)| why.into()),
            },
            None => refused(message),
        }
    }

    /// The type of a function that was told by this number.
    fn type_of(&mut self, number: u64) -> Option<FuncType> {
        if let Some(ty) = self.types.get(&number) {
            return Some(ty.clone());
        }
        for (instance, &module) in self.of_instances.iter().enumerate() {
            let read = self.on_worker(|server, store| {
                // SAFETY: nobody else has the store while this works.
                let store = unsafe { &*store.get() };
                server.functions(instance, &store.modules[module].functions_at)
            });
            let Ok(Ok(functions)) = read else { continue };
            // SAFETY: the worker waits for work.
            let store = unsafe { &*self.store.get() };
            for (function, ty) in functions.into_iter().zip(&store.modules[module].referable) {
                if let (Reference::Func(number), Some(ty)) = (function, ty) {
                    self.types.insert(number, ty.clone());
                }
            }
        }
        self.types.get(&number).cloned()
    }

    /// The function in a slot of a table.
    fn function_in(&mut self, instance: InstanceId, export: &str, slot: u64) -> Result<u64, Error> {
        let read = self.on_worker(|server, _| server.slot(instance.number(), export, slot))?;
        match read.map_err(|failure| self.failure(failure, None))? {
            (_, Some(Reference::Func(number))) => Ok(number),
            (size, _) => Err(Error::option(no_function(slot, size))),
        }
    }
}

fn refused(message: String) -> Error {
    Error::unsupported(format!("V8 does not run it: {message}"))
}

impl Engine for Remote {
    fn name(&self) -> &'static str {
        "V8"
    }

    fn instantiate(&mut self, module: usize) -> Result<InstanceId, Error> {
        let imports = self.imports(module)?;
        if let Err(error) = self.check_callers() {
            // It will not be there.
            self.store().modules[module].leave();
            return Err(error);
        }
        let made = self.on_worker(|server, _| server.instantiate(module, &imports))?;
        made.map_err(|failure| match failure {
            Failure::Link(message) => self.misfit(module, message),
            other => self.failure(other, None),
        })?;
        let number = self.of_instances.len();
        self.of_instances.push(module);
        self.store().instances.instances[module] = Some(number);
        Ok(InstanceId::new(number))
    }

    fn register(&mut self, instance: InstanceId, name: &str) -> Result<(), Error> {
        let exports = self.on_worker(|server, _| server.exports(instance.number()))?;
        let exports = exports.map_err(|failure| self.failure(failure, None))?;
        let store = self.store();
        let own = exports.into_iter();
        let own: Vec<_> = own
            .filter(|export| !store.instances.is_added(export))
            .collect();
        // All of them or none.
        let names = |export: &String| (name.to_string(), export.clone());
        if let Some(taken) = own.iter().find(|e| store.linked.contains_key(&names(e))) {
            return Err(name_is_taken(name, taken));
        }
        for export in own {
            let place = (instance.number(), export.clone());
            store.linked.insert(names(&export), place);
        }
        Ok(())
    }

    fn modules(&self) -> usize {
        // SAFETY: the worker waits for work.
        unsafe { &*self.store.get() }.modules.len()
    }

    fn load(&mut self, module: &Prepared<'_>) -> Result<usize, Error> {
        let loaded = Loaded::new(module)?;
        check_slots(self.store().modules.iter().chain([&loaded]))?;
        let bytes: &[u8] = &module.code.bytes;
        let compiled = self.on_worker(|server, _| server.compile(bytes))?;
        compiled.map_err(|failure| self.failure(failure, None))?;
        let store = self.store();
        store.modules.push(loaded);
        store.instances.load(module);
        Ok(store.modules.len() - 1)
    }

    fn call(
        &mut self,
        instance: InstanceId,
        export: &str,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let number = instance.number();
        let of = self.of_instances[number];
        // The others are what was added: they take nothing.
        let known = self.store().modules[of].functions.get(export).cloned();
        let ty = known.unwrap_or_else(|| FuncType::new([], []));
        self.enter(of, label, args, &ty, |server| {
            server.call(number, export, args, &ty)
        })
    }

    fn slot_type(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
    ) -> Result<FuncType, Error> {
        let function = self.function_in(instance, export, slot)?;
        let ty = self.type_of(function);
        ty.ok_or_else(|| Error::option("the function's type is known to modules only"))
    }

    fn call_slot(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let function = self.function_in(instance, export, slot)?;
        let ty = self.slot_type(instance, export, slot)?;
        let of = self.of_instances[instance.number()];
        self.enter(of, label, args, &ty, |server| {
            server.call_function(function, args, &ty)
        })
    }

    fn memory(&self, instance: InstanceId, export: &str) -> Result<(u64, &[u8]), Error> {
        let place = self.on_worker(|server, _| server.memory(instance.number(), export))?;
        let place = place.map_err(|failure| self.failure(failure, None))?;
        // SAFETY: the memory stays where it is as long as no code runs, and that takes `&mut self`.
        let bytes = unsafe { place.bytes() };
        Ok((bytes.len() as u64 / PAGE, bytes))
    }

    fn memory_mut(&mut self, instance: InstanceId, export: &str) -> Result<&mut [u8], Error> {
        let place = self.on_worker(|server, _| server.memory(instance.number(), export))?;
        let place = place.map_err(|failure| self.failure(failure, None))?;
        // SAFETY: as in `memory`, and nobody else looks at it.
        Ok(unsafe { place.bytes_mut() })
    }

    fn global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        let of = self.of_instances[instance.number()];
        let known = self.store().modules[of].globals.get(export).cloned();
        let known =
            known.ok_or_else(|| Error::internal(format!("`{export}` is no known global")))?;
        let (ty, name) = known;
        let has_bits = matches!(ty, ValType::F32 | ValType::F64 | ValType::V128);
        let bits = (has_bits && self.store().instances.is_added(&name)).then(|| bits_of(&name));
        let read = self.on_worker(|server, _| match &bits {
            // Numbers of JavaScript have not all of them.
            Some(bits) => server.bits(instance.number(), bits, ty),
            None => server.global(instance.number(), &name, ty),
        })?;
        read.map_err(|failure| self.failure(failure, None))
    }

    fn hand_out_global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        self.global(instance, export)
    }

    fn table(&mut self, instance: InstanceId, export: &str) -> Result<Vec<Reference>, Error> {
        let read = self.on_worker(|server, _| server.table(instance.number(), export))?;
        read.map_err(|failure| self.failure(failure, None))
    }

    fn object(&mut self, _handle: u32, _most: usize) -> Result<Option<Object>, Error> {
        Err(refused(
            "objects of the garbage-collected heap cannot be looked into".into(),
        ))
    }

    fn host(&mut self) -> &mut HostState {
        &mut self.store().host
    }
}

/// `kV8MaxWasmTableSize` of V8's `wasm-limits.h`.
const MOST_SLOTS_OF_TABLE: u64 = 10_000_000;

/// How many slots there may be in all tables, of 8 bytes, and twice as many while one grows: the heap of
/// a worker has `HEAP_MB` of lib/workers.js.
const MOST_SLOTS: u64 = 100_000_000;

/// The size of a page, in bytes.
const PAGE: u64 = 64 << 10;
