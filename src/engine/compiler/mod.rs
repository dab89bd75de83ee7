//! The compiled tier: wasmtime, with Winch or Cranelift.

mod code;
mod guest;
mod objects;
mod values;

use std::collections::{HashMap, HashSet};

use wasmparser::FuncType;
use wasmtime::{
    AsContextMut, Extern, Func, Global, Instance, Linker, RootScope, SharedMemory, Store, Table,
    Tag, Val,
};

use super::{Engine, InstanceId, Instances, Prepared, imported_function_types, name_is_taken};
use crate::error::{Error, Frame, Trap, TrapReason, demangle};
use crate::host::{HostState, Imports, Limiter, Made};
use crate::module::signature;
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};
pub use code::{Code, Settings, Strategy};
use guest::{Host, call, function_in, function_type, seen};
use objects::Objects;
use values::{hand_out, to_val};

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

/// Whether an error comes from running code or from the host, and not from the engine.
fn is_of_a_run(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::Trap>()
        || error.is::<TrapReason>()
        || error.is::<wasmtime::ThrownException>()
        || error.is::<wasmtime::GcHeapOutOfMemory<()>>()
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
