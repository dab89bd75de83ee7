//! The compiled tier: wasmtime, with Winch or Cranelift.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wasmparser::FuncType;
use wasmtime::{
    AsContext, AsContextMut, Config, ExnRef, Extern, Func, Global, Instance, Linker, Ref,
    RootScope, Rooted, SharedMemory, Store, Table, Tag, Val,
};

use super::objects::{self, Objects};
use super::stack::MAX_WASM_STACK;
use super::{
    CallError, Engine, InstanceId, Instances, Prepared, count_of_arguments,
    imported_function_types, name_is_taken, no_function, no_such_function,
};
use crate::error::{Error, Exception, Frame, Trap, TrapReason};
use crate::host::{Binding, Caller, Guest, HostError, HostState, Imports, Limiter, Made};
use crate::module::{Features, MEMORY, signature};
use crate::snapshot::objects::Object;
use crate::threads::COMPILERS;
use crate::value::{Reference, Value};

/// What a store holds for functions of a custom [`wasmtime::Linker`]. Opaque.
pub struct StoreData {
    host: HostState,
    instances: Instances<Instance>,
    /// What ends the run, on its way through functions of the host that may not catch it.
    ended: Option<wasmtime::Error>,
    /// The functions whose references were handed out, and may come back.
    handed_out: HashSet<u64>,
    /// The objects of which handles were given out.
    pub(super) objects: Objects,
    /// The tags that were made.
    tags: Vec<MadeTag>,
}

/// A tag of the host, by the two names under which it is imported.
struct MadeTag {
    names: (String, String),
    /// What the host knows it by.
    identity: Option<Reference>,
    tag: Tag,
}

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
    strategy: Strategy,
    engine: wasmtime::Engine,
    modules: Vec<wasmtime::Module>,
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

/// A module, and what instantiating it takes.
struct Loaded {
    module: wasmtime::Module,
    function_types: Vec<Option<FuncType>>,
    code_shift: i64,
    /// How many functions it has without those that were added.
    functions: u32,
}

impl Loaded {
    fn new(module: wasmtime::Module, prepared: &Prepared<'_>) -> Loaded {
        Loaded {
            module,
            function_types: imported_function_types(&prepared.module),
            code_shift: prepared.code.code_shift,
            functions: prepared.module.functions.len(),
        }
    }
}

/// An instance.
struct Instantiated {
    instance: Instance,
    /// The number of its module.
    module: usize,
    /// Its exported memories: looking an export up takes the store mutably, and reading one
    /// must not.
    memories: HashMap<String, Extern>,
}

/// wasmtime with one store.
pub struct Compiler {
    strategy: Strategy,
    store: Store<StoreData>,
    linker: Linker<StoreData>,
    imports: Imports,
    modules: Vec<Loaded>,
    instances: Vec<Instantiated>,
}

/// Makes the linker that a Rust caller provides, for an engine.
pub type MakeLinker = dyn Fn(&wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>>;

impl Compiler {
    /// An engine that runs this code, made of these modules.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where the custom linker cannot be made.
    pub fn new(
        code: Code,
        modules: &[Prepared<'_>],
        host: HostState,
        imports: Imports,
        make_linker: Option<&MakeLinker>,
    ) -> Result<Compiler, Error> {
        let Code {
            strategy, engine, ..
        } = code;
        let interrupt = host.interrupt.clone();
        let data = StoreData {
            host,
            instances: Instances::new(modules),
            ended: None,
            handed_out: HashSet::new(),
            objects: Objects::default(),
            tags: Vec::new(),
        };
        let mut store = Store::new(&engine, data);
        store.limiter(|data| &mut data.host.limiter);
        if let Some(interrupt) = interrupt {
            store.set_epoch_deadline(1);
            let engine = engine.weak();
            interrupt.on_end(Box::new(move || {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }));
        }
        let linker = match make_linker {
            Some(make) => make(&engine).map_err(|e| {
                Error::option(format!("the custom linker could not be made: {}", text(&e)))
            })?,
            None => Linker::new(&engine),
        };
        let loaded = code.modules.into_iter().zip(modules);
        let loaded = loaded.map(|(compiled, prepared)| Loaded::new(compiled, prepared));
        Ok(Compiler {
            strategy,
            store,
            linker,
            imports,
            modules: loaded.collect(),
            instances: Vec::new(),
        })
    }

    /// The things that a module imports, in order: from the linker, else from the host.
    fn resolve(&mut self, id: usize) -> Result<Vec<Extern>, Error> {
        let Loaded {
            module,
            function_types,
            ..
        } = &self.modules[id];
        let mut externs = Vec::new();
        for (import, function_type) in module.imports().zip(function_types) {
            if let Some(found) = self.linker.get_by_import(&mut self.store, &import) {
                externs.push(found);
                continue;
            }
            let (from, name) = (import.module(), import.name());
            let made = self.imports.made(from, name);
            let made = made.and_then(|made| {
                let names = (from.to_string(), name.to_string());
                make(&mut self.store, names, made, &import.ty())
            });
            if let Some(made) = made {
                // Whoever imports it next finds the same.
                let defined = self.linker.define(&self.store, from, name, made.clone());
                defined.map_err(|e| Error::internal(text(&e)))?;
                externs.push(made);
                continue;
            }
            let Some(ty) = import.ty().func().cloned() else {
                return Err(Error::ImportMissing {
                    preload: None,
                    kind: match import.ty() {
                        wasmtime::ExternType::Memory(_) => "memory",
                        wasmtime::ExternType::Table(_) => "table",
                        wasmtime::ExternType::Tag(_) => "tag",
                        _ => "global",
                    },
                    module: from.into(),
                    name: name.into(),
                });
            };
            let function_type = function_type.clone().expect("a function import has a type");
            let binding = self.imports.resolve(from, name, &function_type);
            let host = Host {
                binding,
                module: from.into(),
                name: name.into(),
                ty: function_type,
                results: ty.results().collect(),
            };
            let func = Func::new(&mut self.store, ty, move |caller, params, results| {
                host.call(caller, params, results)
            });
            externs.push(func.into());
        }
        Ok(externs)
    }

    fn export(&mut self, instance: InstanceId, export: &str) -> Result<Extern, Error> {
        self.instances[instance.0]
            .instance
            .get_export(&mut self.store, export)
            .ok_or_else(|| Error::internal(format!("the instance does not export `{export}`")))
    }

    fn exported_global(&mut self, instance: InstanceId, export: &str) -> Result<Global, Error> {
        self.export(instance, export)?
            .into_global()
            .ok_or_else(|| Error::internal(format!("`{export}` is no global")))
    }

    fn exported_table(&mut self, instance: InstanceId, export: &str) -> Result<Table, Error> {
        self.export(instance, export)?
            .into_table()
            .ok_or_else(|| Error::internal(format!("`{export}` is no table")))
    }

    /// Calls a function of an instance.
    fn enter(
        &mut self,
        instance: InstanceId,
        func: Func,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        self.store.data_mut().instances.called = Some(self.instances[instance.0].module);
        let result = call(&mut self.store, func, args);
        // Nobody is left to catch it.
        let mut scope = RootScope::new(&mut self.store);
        let thrown = scope.as_context_mut().take_pending_exception();
        let thrown = thrown.and_then(|thrown| seen(&mut scope, thrown));
        drop(scope);
        result.map_err(|error| {
            error.tell(label, |error| {
                let thrown = thrown.filter(|_| error.is::<wasmtime::ThrownException>());
                let mut failure = self.failure(error, Some(label));
                if let (Error::Trap(trap), Some(exception)) = (&mut failure, thrown) {
                    trap.reason = TrapReason::Exception(exception);
                }
                failure
            })
        })
    }

    /// The error of something that failed while code of `module` ran.
    fn failure(&self, error: wasmtime::Error, function: Option<&str>) -> Error {
        if let Some(interrupt) = &self.store.data().host.interrupt
            && let Err(ended) = interrupt.check()
        {
            return ended;
        }
        let loaded = |of: &wasmtime::Module| {
            let mut modules = self.modules.iter();
            modules.find(|m| wasmtime::Module::same(&m.module, of))
        };
        let shift = |of: &wasmtime::Module| loaded(of).map_or(0, |m| m.code_shift);
        // Functions that were added are nothing that the user knows.
        let is_own = |frame: &&wasmtime::FrameInfo| {
            loaded(frame.module()).is_none_or(|m| frame.func_index() < m.functions)
        };
        let frames = match error.downcast_ref::<wasmtime::WasmBacktrace>() {
            Some(backtrace) => backtrace
                .frames()
                .iter()
                .filter(is_own)
                .map(|frame| Frame {
                    function: frame.func_index(),
                    name: frame.func_name().map(demangle),
                    module: frame.module().name().map(Into::into),
                    offset: frame
                        .module_offset()
                        .and_then(|o| usize::try_from(o as i64 - shift(frame.module())).ok()),
                })
                .collect(),
            None => Vec::new(),
        };
        Error::Trap(Box::new(Trap {
            function: function.map(Into::into),
            preload: None,
            frames,
            reason: match self.store.data().host.limiter.refused {
                Some(refused) if error.is::<wasmtime::GcHeapOutOfMemory<()>>() => refused.into(),
                _ => reason(error),
            },
        }))
    }
}

/// The configuration of an engine with this compiler.
fn config(strategy: Strategy, settings: Settings) -> Config {
    let Features {
        bulk_memory,
        multi_memory,
        multi_value,
        // The validation refuses what may not be there; what instrumentation adds needs it.
        reference_types: _,
        simd,
        relaxed_simd,
        relaxed_simd_deterministic,
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

impl Engine for Compiler {
    fn name(&self) -> &'static str {
        self.strategy.name()
    }

    fn instantiate(&mut self, id: usize) -> Result<InstanceId, Error> {
        let externs = self.resolve(id)?;
        let Loaded {
            module,
            function_types,
            ..
        } = &self.modules[id];
        for ((import, provided), function_type) in
            module.imports().zip(&externs).zip(function_types)
        {
            let provided = provided.ty(&self.store);
            if let Some(message) = mismatch(&import.ty(), &provided, function_type.as_ref()) {
                return Err(Error::ImportType {
                    module: import.module().into(),
                    name: import.name().into(),
                    message,
                });
            }
        }
        let instance = Instance::new(&mut self.store, module, &externs).map_err(|e| {
            // wasmtime tells of an import that does not fit in the outermost message only.
            let text = e.to_string();
            let misfit = module.imports().find(|import| {
                let (from, name) = (import.module(), import.name());
                text == format!("incompatible import type for `{from}::{name}`")
            });
            match misfit {
                Some(import) => Error::ImportType {
                    module: import.module().into(),
                    name: import.name().into(),
                    message: e.root_cause().to_string(),
                },
                None if is_of_a_run(&e) => self.failure(e, None),
                // What it declares is more than there can be.
                None => Error::unsupported(e.to_string()),
            }
        })?;
        let memories = instance
            .exports(&mut self.store)
            .map(|export| (export.name().to_string(), export.into_extern()))
            .filter(|(_, e)| matches!(e, Extern::Memory(_) | Extern::SharedMemory(_)))
            .collect();
        self.store.data_mut().instances.instances[id] = Some(instance);
        self.instances.push(Instantiated {
            instance,
            module: id,
            memories,
        });
        Ok(InstanceId(self.instances.len() - 1))
    }

    fn register(&mut self, instance: InstanceId, name: &str) -> Result<(), Error> {
        let instance = self.instances[instance.0].instance;
        let exports = instance.exports(&mut self.store);
        let exports = exports.map(|e| (e.name().to_string(), e.into_extern()));
        let mut exports: Vec<_> = exports.collect();
        exports.retain(|(export, _)| !self.store.data().instances.is_added(export));
        // All of them or none.
        for (export, _) in &exports {
            if self.linker.get(&mut self.store, name, export).is_ok() {
                return Err(name_is_taken(name, export));
            }
        }
        for (export, item) in exports {
            let defined = self.linker.define(&self.store, name, &export, item);
            defined.map_err(|e| Error::internal(text(&e)))?;
        }
        Ok(())
    }

    fn modules(&self) -> usize {
        self.modules.len()
    }

    fn load(&mut self, module: &Prepared<'_>) -> Result<usize, Error> {
        let engine = self.store.engine().clone();
        let code = Code::compile(
            self.strategy,
            engine,
            std::slice::from_ref(&module.code.bytes),
        )?;
        let compiled = code.modules.into_iter();
        self.modules
            .extend(compiled.map(|compiled| Loaded::new(compiled, module)));
        self.store.data_mut().instances.load(module);
        Ok(self.modules.len() - 1)
    }

    fn call(
        &mut self,
        instance: InstanceId,
        export: &str,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let func = self.export(instance, export)?;
        let func = func
            .into_func()
            .ok_or_else(|| Error::internal(format!("`{export}` is no function")))?;
        self.enter(instance, func, label, args)
    }

    fn slot_type(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
    ) -> Result<FuncType, Error> {
        let table = self.exported_table(instance, export)?;
        let func = function_in(&mut self.store, table, slot);
        func.and_then(|func| function_type(&self.store, func))
            .map_err(Error::option)
    }

    fn call_slot(
        &mut self,
        instance: InstanceId,
        export: &str,
        slot: u64,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let table = self.exported_table(instance, export)?;
        let func = function_in(&mut self.store, table, slot).map_err(Error::option)?;
        self.enter(instance, func, label, args)
    }

    fn memory(&self, instance: InstanceId, export: &str) -> Result<(u64, &[u8]), Error> {
        match self.instances[instance.0].memories.get(export) {
            Some(Extern::Memory(memory)) => {
                Ok((memory.size(&self.store), memory.data(&self.store)))
            }
            // SAFETY: the memory is shared in type only. No other thread can reach it: this run has
            // started none, and its instance made it. Nothing runs while the caller looks at it.
            Some(Extern::SharedMemory(memory)) => {
                Ok((memory.size(), unsafe { shared_bytes(memory) }))
            }
            _ => Err(Error::internal(format!("`{export}` is no exported memory"))),
        }
    }

    fn memory_mut(&mut self, instance: InstanceId, export: &str) -> Result<&mut [u8], Error> {
        match self.export(instance, export)? {
            Extern::Memory(memory) => Ok(memory.data_mut(&mut self.store)),
            // SAFETY: as in `memory`.
            Extern::SharedMemory(memory) => Ok(unsafe { shared_bytes(&memory) }),
            _ => Err(Error::internal(format!("`{export}` is no memory"))),
        }
    }

    fn global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        let global = self.exported_global(instance, export)?;
        let mut store = RootScope::new(&mut self.store);
        let value = global.get(&mut store);
        Ok(objects::tell(&mut store, &value))
    }

    fn hand_out_global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        let global = self.exported_global(instance, export)?;
        let mut store = RootScope::new(&mut self.store);
        let value = global.get(&mut store);
        Ok(hand_out(&mut store, &value))
    }

    fn table(&mut self, instance: InstanceId, export: &str) -> Result<Vec<Reference>, Error> {
        let table = self.exported_table(instance, export)?;
        let size = table.size(&self.store);
        let mut slots = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        for slot in 0..size {
            let mut store = RootScope::new(&mut self.store);
            let value: Val = table
                .get(&mut store, slot)
                .ok_or_else(|| Error::internal("a table shrank while it was read"))?
                .into();
            match objects::tell(&mut store, &value) {
                Value::Ref(reference) => slots.push(reference),
                _ => return Err(Error::internal("a table slot is no reference")),
            }
        }
        Ok(slots)
    }

    fn object(&mut self, handle: u32, most: usize) -> Result<Option<Object>, Error> {
        objects::read(&mut self.store, handle, most).map_err(|e| Error::internal(text(&e)))
    }

    fn host(&mut self) -> &mut HostState {
        &mut self.store.data_mut().host
    }
}

/// A function import, answered by the host.
struct Host {
    binding: Binding,
    module: String,
    name: String,
    ty: FuncType,
    results: Vec<wasmtime::ValType>,
}

impl Host {
    fn call(
        &self,
        mut caller: wasmtime::Caller<'_, StoreData>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        let args: Vec<Value> = params
            .iter()
            .map(|value| hand_out(&mut caller, value))
            .collect();
        let mut guest = CallingGuest {
            caller: &mut caller,
        };
        let values = self
            .binding
            .call(&mut guest, &self.module, &self.name, &self.ty, &args);
        if let Some(error) = caller.data_mut().ended.take() {
            return Err(error);
        }
        let values = values.map_err(|reason| failure(&mut caller, reason))?;
        for ((result, value), ty) in results.iter_mut().zip(values).zip(&self.results) {
            *result = to_val(&mut caller, value, ty)
                .map_err(|message| TrapReason::Host(message.into()))?;
        }
        Ok(())
    }
}

/// The instance that is calling a host function.
struct CallingGuest<'c, 's> {
    caller: &'c mut wasmtime::Caller<'s, StoreData>,
}

impl CallingGuest<'_, '_> {
    /// The number of its module, where code of it calls.
    fn calling(&mut self) -> Option<usize> {
        let name = self.caller.data().instances.number.clone();
        let number = self.caller.get_export(&name)?.into_global()?;
        let number = number.get(&mut *self.caller).i32()?;
        Some(number as u32 as usize)
    }

    /// The number of its module.
    fn module(&mut self) -> Option<usize> {
        self.calling().or(self.caller.data().instances.called)
    }

    /// Something that the instance exports, added exports included.
    fn export(&mut self, name: &str) -> Option<Extern> {
        let found = self.caller.get_export(name);
        if found.is_some() || self.calling().is_some() {
            return found;
        }
        let called = self.caller.data().instances.called_instance()?;
        called.get_export(&mut *self.caller, name)
    }

    fn named_memory(&mut self, name: Option<&str>) -> Result<Extern, String> {
        // Nearly always, and then there is nothing to look up.
        if name.is_none()
            && let Some(memory @ (Extern::Memory(_) | Extern::SharedMemory(_))) =
                self.caller.get_export(MEMORY)
        {
            return Ok(memory);
        }
        let module = self.module();
        let export = self.caller.data().instances.memory(module, name)?;
        let memory = self.export(&export);
        memory.ok_or_else(|| format!("`{export}` is no memory"))
    }

    fn function(&mut self, export: &str) -> Option<Func> {
        match self.caller.data().instances.is_added(export) {
            true => None,
            false => self.export(export)?.into_func(),
        }
    }

    fn slot(&mut self, table: Option<&str>, slot: u64) -> Result<Func, String> {
        let module = self.module();
        let export = self.caller.data().instances.table(module, table)?;
        let table = self.export(&export).and_then(Extern::into_table);
        let table = table.ok_or_else(|| format!("`{export}` is no table"))?;
        function_in(&mut *self.caller, table, slot)
    }

    /// Calls a function of the instance, or one that it has in a table.
    fn enter(&mut self, func: Func, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        let data = self.caller.data_mut();
        data.host.goes_on()?;
        if let Some(error) = &data.ended {
            return Err(ended(error));
        }
        let module = self.module();
        let instances = &mut self.caller.data_mut().instances;
        let outer = std::mem::replace(&mut instances.called, module);
        let result = call(&mut *self.caller, func, args);
        self.caller.data_mut().instances.called = outer;
        result.map_err(|error| error.reason(|error| self.failed(error)))
    }

    /// Why a call failed, for the function of the host that made it. What that must not catch is
    /// kept, and ends the run.
    fn failed(&mut self, error: wasmtime::Error) -> TrapReason {
        if error.is::<wasmtime::ThrownException>()
            && let Some(exception) = self.caller.as_context_mut().take_pending_exception()
            && let Some(exception) = seen(&mut *self.caller, exception)
        {
            return TrapReason::Exception(exception);
        }
        if can_be_caught(&error) {
            return reason(error);
        }
        let reason = ended(&error);
        self.caller.data_mut().ended = Some(error);
        reason
    }
}

impl Guest for CallingGuest<'_, '_> {
    fn memory(&mut self, name: Option<&str>) -> Result<&mut [u8], HostError> {
        Ok(self.memory_and_host(name)?.0)
    }

    fn function_type(&mut self, export: &str) -> Option<FuncType> {
        let func = self.function(export)?;
        function_type(&*self.caller, func).ok()
    }

    fn call(&mut self, export: &str, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        let func = self.function(export);
        let func = func.ok_or_else(|| no_such_function(export))?;
        self.enter(func, args)
    }

    fn slot_type(&mut self, table: Option<&str>, slot: u64) -> Result<FuncType, HostError> {
        let func = self.slot(table, slot)?;
        Ok(function_type(&*self.caller, func)?)
    }

    fn call_indirect(
        &mut self,
        table: Option<&str>,
        slot: u64,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        let func = self.slot(table, slot);
        let func = func.map_err(|message| TrapReason::Host(message.into()))?;
        self.enter(func, args)
    }
}

impl Caller for CallingGuest<'_, '_> {
    fn host(&mut self) -> &mut HostState {
        &mut self.caller.data_mut().host
    }

    fn memory_and_host(
        &mut self,
        name: Option<&str>,
    ) -> Result<(&mut [u8], &mut HostState), String> {
        match self.named_memory(name)? {
            Extern::Memory(memory) => {
                let (bytes, data) = memory.data_and_store_mut(&mut *self.caller);
                Ok((bytes, &mut data.host))
            }
            // SAFETY: as in `Compiler::memory`.
            Extern::SharedMemory(memory) => Ok((
                unsafe { shared_bytes(&memory) },
                &mut self.caller.data_mut().host,
            )),
            _ => Err("what was found is no memory".into()),
        }
    }
}

/// Something that is made where it is imported as this.
fn make(
    store: &mut Store<StoreData>,
    names: (String, String),
    made: Made,
    wanted: &wasmtime::ExternType,
) -> Option<Extern> {
    Some(match (made, wanted) {
        (Made::Global(reference), wasmtime::ExternType::Global(ty)) => {
            let mut store = RootScope::new(store);
            let value = to_val(&mut store, Value::Ref(reference), ty.content()).ok()?;
            Global::new(&mut store, ty.clone(), value).ok()?.into()
        }
        (Made::Tag(identity), wasmtime::ExternType::Tag(ty)) => {
            // One that has two names is still one.
            let mut known = store.data().tags.iter();
            let known = known.find(|known| identity.is_some() && known.identity == identity);
            let tag = match known {
                Some(known) => known.tag,
                None => Tag::new(&mut *store, ty).ok()?,
            };
            store.data_mut().tags.push(MadeTag {
                names,
                identity,
                tag,
            });
            tag.into()
        }
        _ => return None,
    })
}

/// What a function of the host failed with; an exception is thrown.
fn failure(store: impl AsContextMut<Data = StoreData>, reason: TrapReason) -> wasmtime::Error {
    match reason {
        TrapReason::Exception(exception) => match throw(store, exception) {
            Ok(never) => match never {},
            Err(thrown) => thrown,
        },
        other => other.into(),
    }
}

/// Throws an exception of the module again, or a new one of a tag that was made.
fn throw(
    mut store: impl AsContextMut<Data = StoreData>,
    exception: Exception,
) -> wasmtime::Result<Infallible> {
    if let Some(number) = exception.number
        && let Some(Val::ExnRef(Some(exception))) = objects::kept(&mut store, number, false)
    {
        return store.as_context_mut().throw(exception);
    }
    let misfit = |message: String| TrapReason::Host(message.into());
    let names = exception.tag.as_ref();
    let names = names.ok_or_else(|| misfit("an exception of another run".into()))?;
    let mut tags = store.as_context().data().tags.iter();
    let tag = tags.find(|made| made.names == *names).map(|made| made.tag);
    let tag = tag.ok_or_else(|| {
        let (module, name) = names;
        misfit(format!(
            "an exception was thrown of a tag that no module imports, `{module}::{name}`"
        ))
    })?;
    let ty = tag.ty(&store);
    let params = ty.ty().params();
    count_of_arguments(exception.values.len(), params.len()).map_err(misfit)?;
    let fields = params.zip(exception.values);
    let fields = fields.map(|(ty, value)| to_val(&mut store, value, &ty));
    let fields = fields.collect::<Result<Vec<_>, _>>().map_err(misfit)?;
    let ty = wasmtime::ExnType::from_tag_type(&ty)?;
    let allocator = wasmtime::ExnRefPre::new(&mut store, ty);
    let exception = ExnRef::new(&mut store, &allocator, &tag, &fields)?;
    store.as_context_mut().throw(exception)
}

/// An exception of the module for functions of the host, with what it carries where its tag is one
/// of theirs.
fn seen(
    mut store: impl AsContextMut<Data = StoreData>,
    exception: Rooted<ExnRef>,
) -> Option<Exception> {
    let number = objects::keep(&mut store, &exception.into());
    let tag = exception.tag(&mut store).ok()?;
    let mut tags = store.as_context().data().tags.iter();
    let made = tags.find(|made| Tag::eq(&made.tag, &tag, &store));
    let tag = made.map(|made| made.names.clone());
    let fields = match tag {
        Some(_) => exception.fields(&mut store).ok()?.collect(),
        None => Vec::new(),
    };
    let values = fields.iter().map(|value| hand_out(&mut store, value));
    Some(Exception {
        values: values.collect(),
        tag,
        number,
    })
}

/// The bytes of a shared memory.
///
/// # Safety
///
/// No other thread may reach the memory, nor any code of the store run, as long as they are used.
unsafe fn shared_bytes<'a>(memory: &SharedMemory) -> &'a mut [u8] {
    let data = memory.data();
    // SAFETY: the memory is as long, and nobody else uses it: passed on to the caller. It lives as
    // long as its store.
    unsafe { std::slice::from_raw_parts_mut(data.as_ptr() as *mut u8, data.len()) }
}

/// The function in a slot of a table.
fn function_in(mut store: impl AsContextMut, table: Table, slot: u64) -> Result<Func, String> {
    match table.get(&mut store, slot) {
        Some(Ref::Func(Some(func))) => Ok(func),
        _ => Err(no_function(slot, table.size(&store))),
    }
}

/// The type of a function, where a host can give and take values of its types.
fn function_type(store: impl AsContext, func: Func) -> Result<FuncType, String> {
    let ty = func.ty(store);
    let convert = |ty: wasmtime::ValType| {
        numeric(&ty)
            .ok_or_else(|| format!("the function has {}, which only modules know", wanted(&ty)))
    };
    Ok(FuncType::new(
        ty.params().map(convert).collect::<Result<Vec<_>, _>>()?,
        ty.results().map(convert).collect::<Result<Vec<_>, _>>()?,
    ))
}

fn call(
    store: impl AsContextMut<Data = StoreData>,
    func: Func,
    args: &[Value],
) -> Result<Vec<Value>, CallError<wasmtime::Error>> {
    let mut store = RootScope::new(store);
    let ty = func.ty(&store);
    count_of_arguments(args.len(), ty.params().len()).map_err(CallError::Arguments)?;
    let params = ty
        .params()
        .zip(args)
        .map(|(ty, value)| to_val(&mut store, *value, &ty))
        .collect::<Result<Vec<_>, _>>()
        .map_err(CallError::Arguments)?;
    let mut results = vec![Val::I32(0); ty.results().len()];
    func.call(&mut store, &params, &mut results)?;
    let values = results.iter().map(|value| hand_out(&mut store, value));
    Ok(values.collect())
}

/// A value for those who may give it back.
fn hand_out(mut store: impl AsContextMut<Data = StoreData>, val: &Val) -> Value {
    let value = from_val(&mut store, val);
    if let Value::Ref(Reference::Func(number)) = value {
        let mut store = store.as_context_mut();
        store.data_mut().handed_out.insert(number);
    }
    if let Value::Ref(Reference::Object | Reference::Exception) = value
        && let Some(number) = objects::keep(store, val)
    {
        return Value::Ref(Reference::Handle(number));
    }
    value
}

/// Whether an error comes from running code or from the host, and not from the engine.
fn is_of_a_run(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::Trap>()
        || error.is::<TrapReason>()
        || error.is::<wasmtime::ThrownException>()
        || error.is::<wasmtime::GcHeapOutOfMemory<()>>()
}

/// Whether a function of the host may catch what a function failed with that it called.
fn can_be_caught(error: &wasmtime::Error) -> bool {
    match (
        error.downcast_ref::<wasmtime::Trap>(),
        error.downcast_ref::<TrapReason>(),
    ) {
        (Some(trap), _) => *trap != wasmtime::Trap::Interrupt,
        (_, Some(reason)) => reason.can_be_caught(),
        // Of a custom linker's function, or an exception; but with more room all would be well.
        _ => !error.is::<wasmtime::GcHeapOutOfMemory<()>>(),
    }
}

/// What ends the run, as it is told to functions of the host.
fn ended(error: &wasmtime::Error) -> TrapReason {
    match error.downcast_ref::<TrapReason>() {
        Some(reason) => reason.ended(),
        None => TrapReason::Wasm(error.root_cause().to_string()).ended(),
    }
}

/// Why a call failed.
fn reason(error: wasmtime::Error) -> TrapReason {
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        let text = trap.to_string();
        return TrapReason::Wasm(text.strip_prefix("wasm trap: ").unwrap_or(&text).into());
    }
    if error.is::<wasmtime::ThrownException>() {
        return TrapReason::Wasm("an exception was thrown that nothing catches".into());
    }
    if error.is::<wasmtime::GcHeapOutOfMemory<()>>() {
        return TrapReason::Wasm(error.root_cause().to_string());
    }
    // A custom linker may have WASI of its own.
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return TrapReason::Exit(exit.0);
    }
    match error.downcast::<TrapReason>() {
        Ok(reason) => reason,
        Err(other) => {
            // A function of a custom linker failed, with an error of its own.
            let message = other.root_cause().to_string();
            TrapReason::Host(message.into())
        }
    }
}

/// What does not fit between an import and what is provided for it.
fn mismatch(
    wanted: &wasmtime::ExternType,
    provided: &wasmtime::ExternType,
    function: Option<&FuncType>,
) -> Option<String> {
    use wasmtime::ExternType as T;
    match (wanted, provided) {
        (T::Func(wanted), T::Func(found)) => (!found.matches(wanted)).then(|| {
            format!(
                "the module wants a function {}, and a function {found} is provided",
                function.map_or_else(|| wanted.to_string(), signature)
            )
        }),
        (T::Global(_), T::Global(_))
        | (T::Table(_), T::Table(_))
        | (T::Memory(_), T::Memory(_))
        | (T::Tag(_), T::Tag(_)) => None,
        _ => Some("what is provided is of another kind".into()),
    }
}

/// A value type as functions of the host see it; `None` for types that only modules know.
fn numeric(ty: &wasmtime::ValType) -> Option<wasmparser::ValType> {
    Some(match ty {
        wasmtime::ValType::I32 => wasmparser::ValType::I32,
        wasmtime::ValType::I64 => wasmparser::ValType::I64,
        wasmtime::ValType::F32 => wasmparser::ValType::F32,
        wasmtime::ValType::F64 => wasmparser::ValType::F64,
        wasmtime::ValType::V128 => wasmparser::ValType::V128,
        wasmtime::ValType::Ref(ty) => match ty.heap_type() {
            wasmtime::HeapType::Extern => wasmparser::ValType::EXTERNREF,
            wasmtime::HeapType::Func => wasmparser::ValType::FUNCREF,
            _ => return None,
        },
    })
}

pub(super) fn from_val(mut store: impl AsContextMut, value: &Val) -> Value {
    let reference = match value {
        Val::I32(v) => return Value::I32(*v),
        Val::I64(v) => return Value::I64(*v),
        Val::F32(v) => return Value::F32(*v),
        Val::F64(v) => return Value::F64(*v),
        Val::V128(v) => return Value::V128(v.as_u128()),
        Val::FuncRef(None)
        | Val::ExternRef(None)
        | Val::AnyRef(None)
        | Val::ExnRef(None)
        | Val::ContRef(None) => Reference::Null,
        Val::FuncRef(Some(func)) => {
            let raw: *mut c_void = func.to_raw(&mut store);
            Reference::Func(raw as usize as u64)
        }
        Val::ExternRef(Some(reference)) => from_extern(&mut store, *reference),
        Val::AnyRef(Some(any)) => match (any.as_i31(&store), any.is_eqref(&store)) {
            (Ok(Some(i31)), _) => Reference::I31(i31.get_u32()),
            (_, Ok(true)) => Reference::Object,
            // It came from the host.
            _ => match wasmtime::ExternRef::convert_any(&mut store, *any) {
                Ok(reference) => from_extern(&mut store, reference),
                Err(_) => Reference::Object,
            },
        },
        Val::ExnRef(Some(_)) => Reference::Exception,
        Val::ContRef(Some(_)) => Reference::Object,
    };
    Value::Ref(reference)
}

/// A reference of the host, or what went out as one; an object where it is of another host.
fn from_extern(
    mut store: impl AsContextMut,
    reference: wasmtime::Rooted<wasmtime::ExternRef>,
) -> Reference {
    let data = reference.data(&store).ok().flatten();
    if let Some(number) = data.and_then(|data| data.downcast_ref::<u32>().copied()) {
        return Reference::Extern(number);
    }
    let inside = wasmtime::AnyRef::convert_extern(&mut store, reference);
    match inside.and_then(|any| any.as_i31(&store)) {
        Ok(Some(i31)) => Reference::I31(i31.get_u32()),
        _ => Reference::Object,
    }
}

/// A value of this type. The error says what does not fit.
fn to_val(
    mut store: impl AsContextMut<Data = StoreData>,
    value: Value,
    ty: &wasmtime::ValType,
) -> Result<Val, String> {
    let val = match (value, ty) {
        (Value::I32(v), wasmtime::ValType::I32) => return Ok(Val::I32(v)),
        (Value::I64(v), wasmtime::ValType::I64) => return Ok(Val::I64(v)),
        (Value::F32(v), wasmtime::ValType::F32) => return Ok(Val::F32(v)),
        (Value::F64(v), wasmtime::ValType::F64) => return Ok(Val::F64(v)),
        (Value::V128(v), wasmtime::ValType::V128) => return Ok(Val::V128(v.into())),
        (Value::Ref(reference), wasmtime::ValType::Ref(ty)) => {
            to_reference(&mut store, reference, ty)?
        }
        _ => None,
    };
    val.filter(|val| val.matches_ty(&store, ty).unwrap_or(false))
        .ok_or_else(|| format!("{value} was given where {} is wanted", wanted(ty)))
}

/// A type, for messages.
fn wanted(ty: &wasmtime::ValType) -> String {
    use wasmtime::HeapType as H;
    match ty.as_ref().map(|ty| ty.heap_type()) {
        // wasmtime would tell the number under which it knows the type.
        Some(H::ConcreteFunc(_)) => "a function of another type".into(),
        Some(H::ConcreteStruct(_)) => "a struct of another type".into(),
        Some(H::ConcreteArray(_)) => "an array of another type".into(),
        _ => format!("a value of type {ty}"),
    }
}

/// A reference, as one of the hierarchy of this type.
fn to_reference(
    mut store: impl AsContextMut<Data = StoreData>,
    reference: Reference,
    ty: &wasmtime::RefType,
) -> Result<Option<Val>, String> {
    let is_extern = matches!(ty.heap_type(), wasmtime::HeapType::Extern);
    Ok(match reference {
        Reference::Null => Some(Val::null_ref(ty.heap_type())),
        Reference::Extern(number) => {
            let reference = wasmtime::ExternRef::new(&mut store, number)
                .map_err(|e| format!("there is no room for a reference: {}", text(&e)))?;
            match is_extern {
                true => Some(reference.into()),
                false => {
                    let inside = wasmtime::AnyRef::convert_extern(&mut store, reference);
                    inside.ok().map(Val::from)
                }
            }
        }
        Reference::I31(bits) => {
            let i31 = wasmtime::I31::wrapping_u32(bits);
            let any = wasmtime::AnyRef::from_i31(&mut store, i31);
            match is_extern {
                true => wasmtime::ExternRef::convert_any(&mut store, any)
                    .ok()
                    .map(Val::from),
                false => Some(any.into()),
            }
        }
        Reference::Func(number) if store.as_context().data().handed_out.contains(&number) => {
            // SAFETY: the number is what `Func::to_raw` gave for a function of this store, which
            // lives as long as the store.
            Some(unsafe { Func::from_raw(&mut store, number as usize as *mut c_void) }.into())
        }
        Reference::Handle(number) => objects::kept(store, number, is_extern),
        _ => None,
    })
}

/// An error and its causes in one line. The Rust backtrace that an error may carry where
/// `RUST_BACKTRACE` is set stays out.
fn text(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| {
            let text = cause.to_string();
            let end = text.find("\nStack backtrace:").unwrap_or(text.len());
            text[..end].trim_end().to_string()
        })
        .collect();
    causes.join(": ")
}

/// Why a compiler refuses a module. Winch has no collector and refuses what might need one, also
/// where no type of the module is one of the proposal `gc`, which wasmparser's message names.
fn refusal(strategy: Strategy, text: String) -> String {
    match text.contains("gc types are disallowed") {
        true => format!(
            "{} compiles no references but those of functions, and the module has others",
            strategy.name()
        ),
        false => text,
    }
}

/// A function's name as its author wrote it.
fn demangle(name: &str) -> String {
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

impl wasmtime::ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        growing(self, "memory", current, desired, maximum)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        growing(self, "table", current, desired, maximum)
    }
}

/// Whether something may grow. Beyond its own maximum it may not, as with any limit or none.
fn growing(
    limiter: &mut Limiter,
    what: &'static str,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
) -> wasmtime::Result<bool> {
    // Nor beyond what there can be on any machine.
    if maximum.is_some_and(|maximum| desired > maximum) || desired > isize::MAX as usize {
        return Ok(false);
    }
    limiter.grow(what, current as u64, desired as u64)?;
    Ok(true)
}
