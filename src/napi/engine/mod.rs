//! The engine that runs JavaScript, as one that runs modules: V8 in Node.
//!
//! It lives in a worker, whose thread waits in [`server`] for work and is then the module's thread:
//! the host's functions are called on it, with nothing in between. The thread of the pipeline waits
//! meanwhile. So only one of the two ever works, and what belongs to the run needs no lock.

mod guest;
mod server;
mod values;

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmparser::{FuncType, TypeRef, ValType};

use super::link::WorkerSide;
use crate::engine::{
    Engine, HostEngine, InstanceId, Instances, Prepared, name_is_taken, no_function,
};
use crate::error::{Error, Frame, Trap, TrapReason};
use crate::host::{Binding, HostState, Imports};
use crate::module::ExternKind;
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};
use server::{Failure, Import, Server};

/// How long a worker may take to begin.
const START: Duration = Duration::from_secs(10);

/// How long the end of the run may go unnoticed, as a loop without an end is one of a worker.
const PULSE: Duration = Duration::from_millis(20);

/// Work for a worker's thread. What it borrows lives until it is done or dropped: see
/// [`Remote::on_worker`].
type Work = Box<dyn FnOnce(&Server) + Send>;

/// What workers that were asked for are to do, by their numbers.
static WAITING: LazyLock<Mutex<HashMap<u32, Receiver<Work>>>> = LazyLock::new(Mutex::default);

/// Why workers were not to be had, by their numbers.
static REFUSED: LazyLock<Mutex<HashMap<u32, String>>> = LazyLock::new(Mutex::default);

/// The worker of this number is not to be had, or has ended.
pub fn refuse(number: u32, message: String) {
    if work_of(number).is_some() {
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(number, message);
    }
}

/// The work for the worker of this number, once.
fn work_of(number: u32) -> Option<Receiver<Work>> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.remove(&number)
}

/// Makes workers, by way of the JavaScript thread.
pub struct Workers(pub Arc<WorkerSide>);

impl HostEngine for Workers {
    fn load(
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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (work, waiting) = channel();
        let mut all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(number, waiting);
        drop(all);
        let mut remote = Remote {
            number,
            work,
            to_js: self.0.clone(),
            has_begun: false,
            store: Box::new(UnsafeCell::new(Store {
                host,
                imports,
                instances: Instances::new(modules),
                modules: Vec::new(),
                linked: BTreeMap::new(),
                bindings: Vec::new(),
                tags: Vec::new(),
                failed: None,
                ended: None,
            })),
            of_instances: Vec::new(),
            types: HashMap::new(),
        };
        self.0.start_worker(number).map_err(refusal)?;
        for prepared in modules {
            remote.compile(prepared)?;
        }
        Ok(Box::new(remote))
    }
}

fn refusal(message: String) -> Error {
    Error::unsupported(format!("the engine of the host cannot be had: {message}"))
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
    globals: HashMap<String, ValType>,
    /// The types of the functions in the table that was added.
    referable: Vec<Option<FuncType>>,
    code_shift: i64,
    /// How many functions it has without those that were added, and how many it defines.
    count: u32,
    defined: u32,
}

/// What a module imports.
enum Wanted {
    Function(FuncType),
    Tag(Option<FuncType>),
    Global(ValType, bool),
    Other(&'static str),
}

impl Loaded {
    fn new(prepared: &Prepared<'_>) -> Result<Loaded, Error> {
        let Prepared { module, code } = prepared;
        let mut imports = Vec::new();
        for import in &module.imports {
            let wanted = match import.ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                    let ty = module.function_type_at(ty);
                    Wanted::Function(ty.cloned().ok_or_else(unknown_type)?)
                }
                TypeRef::Tag(tag) => {
                    Wanted::Tag(module.function_type_at(tag.func_type_idx).cloned())
                }
                TypeRef::Global(global) => Wanted::Global(global.content_type, global.mutable),
                TypeRef::Memory(_) => Wanted::Other("memory"),
                TypeRef::Table(_) => Wanted::Other("table"),
            };
            if let Wanted::Function(ty) | Wanted::Tag(Some(ty)) = &wanted
                && let Some(unknown) = values::unknown(ty)
            {
                return Err(refused(format!(
                    "`{}::{}` is of values of the type {unknown}, which JavaScript has none of",
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
                        globals.insert(export.name.to_string(), global.ty.content_type);
                    }
                }
                _ => {}
            }
        }
        for (index, global) in module.globals.all() {
            globals.insert(code.names.global(index), global.ty.content_type);
        }
        let referable = code.functions.iter();
        let referable = referable.map(|index| module.function_type(*index).cloned());
        Ok(Loaded {
            imports,
            functions,
            globals,
            referable: referable.collect(),
            code_shift: code.code_shift,
            count: module.functions.len(),
            defined: module.functions.len() - module.functions.imported(),
        })
    }
}

fn unknown_type() -> Error {
    Error::internal("a function of no known type")
}

/// The engine, as the pipeline's thread has it.
struct Remote {
    number: u32,
    work: Sender<Work>,
    to_js: Arc<WorkerSide>,
    /// Whether the worker has done something already.
    has_begun: bool,
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

        let (done, result) = channel();
        let shared = Shared(&self.store);
        let work: Box<dyn FnOnce(&Server) + Send + '_> = Box::new(move |server| {
            let Shared(store) = { shared };
            let _ = done.send(server.within(store, || work(server, store)));
        });
        // SAFETY: what it borrows outlives this call, which does not return before `done` is gone;
        // and with that all of the work is.
        let work: Work = unsafe { std::mem::transmute(work) };
        let gone = || match REFUSED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number)
        {
            Some(message) => refusal(message),
            None => Error::internal("the worker that runs the module has ended"),
        };
        if self.work.send(work).is_err() {
            return Err(self.ended().unwrap_or_else(gone));
        }
        let began = Instant::now();
        let mut stopped = false;
        loop {
            match result.recv_timeout(PULSE) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.ended().unwrap_or_else(gone));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let is_late = !self.has_begun && began.elapsed() > START;
            if !stopped && (is_late || self.ended().is_some()) {
                stopped = true;
                // Where it has not begun, nobody takes the work out any more.
                refuse(
                    self.number,
                    format!("no worker has begun within {} s", START.as_secs()),
                );
                self.to_js.stop_worker(self.number);
            }
        }
    }

    /// Why the run is to end, where it is.
    fn ended(&self) -> Option<Error> {
        // SAFETY: an interrupt may be asked by any thread, and is never replaced.
        let host = unsafe { &(*self.store.get()).host };
        host.interrupt.as_ref()?.check().err()
    }

    fn store(&mut self) -> &mut Store {
        self.store.get_mut()
    }

    fn compile(&mut self, prepared: &Prepared<'_>) -> Result<(), Error> {
        let bytes: &[u8] = &prepared.code.bytes;
        let compiled = self.on_worker(|server, _| server.compile(bytes))?;
        self.has_begun = true;
        compiled.map_err(|failure| match failure {
            Failure::Refused(message) => refused(message),
            other => self.failure(other, None),
        })?;
        let loaded = Loaded::new(prepared)?;
        self.store().modules.push(loaded);
        Ok(())
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
                (Wanted::Function(ty), _) => {
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
                    Import::Global(Value::Ref(reference), *ty, *mutable)
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
        Ok(resolved)
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
            Failure::Stopped => {
                return Error::internal("the worker that runs the module has ended");
            }
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
        let names = self.store().instances.names.clone()?;
        for instance in 0..self.of_instances.len() {
            let table = names.functions();
            let Ok(Ok(functions)) = self.on_worker(|server, _| server.table(instance, &table))
            else {
                continue;
            };
            // SAFETY: the worker waits for work.
            let store = unsafe { &*self.store.get() };
            let types = &store.modules[self.of_instances[instance]].referable;
            for (function, ty) in functions.into_iter().zip(types) {
                if let (Reference::Func(number), Some(ty)) = (function, ty) {
                    self.types.insert(number, ty.clone());
                }
            }
        }
        self.types.get(&number).cloned()
    }

    /// The function in a slot of a table.
    fn function_in(&mut self, instance: InstanceId, export: &str, slot: u64) -> Result<u64, Error> {
        let read = self.on_worker(|server, _| server.table(instance.number(), export))?;
        let slots = read.map_err(|failure| self.failure(failure, None))?;
        let found = usize::try_from(slot).ok().and_then(|slot| slots.get(slot));
        match found {
            Some(Reference::Func(number)) => Ok(*number),
            _ => Err(Error::option(no_function(slot, slots.len() as u64))),
        }
    }
}

fn refused(message: String) -> Error {
    Error::unsupported(format!("V8 does not run it: {message}"))
}

impl Drop for Remote {
    fn drop(&mut self) {
        // A worker that was never there takes nothing out.
        drop(work_of(self.number));
    }
}

impl Engine for Remote {
    fn name(&self) -> &'static str {
        "V8"
    }

    fn instantiate(&mut self, module: usize) -> Result<InstanceId, Error> {
        let imports = self.imports(module)?;
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
        self.compile(module)?;
        let store = self.store();
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
        let known = self.store().modules[of].globals.get(export).copied();
        let ty = known.ok_or_else(|| Error::internal(format!("`{export}` is no known global")))?;
        let read = self.on_worker(|server, _| server.global(instance.number(), export, ty))?;
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

/// The size of a page, in bytes.
const PAGE: u64 = 64 << 10;
