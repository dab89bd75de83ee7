//! The interpreted tier: wasmi, which translates a function when it is first called.

use std::collections::{BTreeMap, HashSet};

use wasmi::errors::{ErrorKind, InstantiationError};
use wasmi::{
    AsContext, AsContextMut, CompilationMode, Config, CustomFuelCosts, Extern, ExternRef, Func,
    Instance, Memory, Nullable, Ref, ResumableCall, Store, StoreContextMut, Table, Val,
};
use wasmi_core::LimiterError;
use wasmparser::FuncType;

use super::unfused::unfused;
use super::{
    CallError, Engine, InstanceId, Instances, Prepared, count_of_arguments,
    imported_function_types, name_is_taken, no_function, no_such_function,
};
use crate::error::{Error, Frame, Trap, TrapReason};
use crate::host::{Binding, Caller, Guest, HostError, HostState, Imports, Limiter, Made};
use crate::module::{Features, MEMORY, signature};
use crate::snapshot::objects::Object;
use crate::value::{Reference, Value};

/// How much fuel is burnt between two looks at the clock. An instruction takes one unit or a
/// few, so that a slice lasts some hundred microseconds.
const SLICE: u64 = 100_000;

/// How many bytes are copied or grown for a unit of fuel.
const BYTES_PER_FUEL: u32 = 256 << 10;

/// The most slots that a table may grow by while fuel is burnt. More could run dry in the middle,
/// and wasmi 2.0 then goes on in the wrong place (`table.grow` does not note where it was). A
/// slot counts for 16 bytes at most.
const MAX_METERED_SLOTS: usize = BYTES_PER_FUEL as usize / 16 - 1;

/// The most value stack that code may use, in bytes, and the deepest recursion. Both are far
/// above wasmi's defaults (1 MB and 1,000 calls): what recurses deeply in a browser or Node, does
/// so here as well.
const MAX_STACK: usize = 32 << 20;
const MAX_DEPTH: usize = 100_000;

/// How many calls from functions of the host may go on within each other. Each takes some of the
/// thread's own stack, which wasmi does not count.
const MAX_NESTED: usize = 200;

/// The most memory of a run that may be thrown away, in bytes: wasmi writes every byte of a
/// memory when it makes or grows one, where other engines only reserve room.
const MAX_SPECULATIVE_MEMORY: u64 = 64 << 20;

/// Asked between slices whether the run is to be left, and why.
pub type Pause = Box<dyn FnMut() -> Option<String> + Send>;

/// What a store holds.
struct Data {
    host: HostState,
    instances: Instances<Instance>,
    /// What ends the run, on its way through functions of the host that may not catch it.
    ended: Option<wasmi::Error>,
    /// Why the limiter refused growth; wasmi's own error does not tell.
    refused: Option<TrapReason>,
    /// `None`: the run goes to its end.
    pause: Option<Pause>,
    /// Whether fuel is burnt.
    metered: bool,
    /// Whether memories and tables are made, which burns none.
    instantiating: bool,
    /// How many bytes a memory was to grow by last: it is asked for again where fuel runs dry
    /// before it does.
    asked_for: u64,
    /// Why wasmi cannot go on.
    cannot: Option<String>,
    /// How many calls from functions of the host are going on.
    nested: usize,
    /// The functions whose references were handed out, and may come back.
    handed_out: HashSet<u64>,
}

/// A loaded module.
struct Loaded {
    module: wasmi::Module,
    function_types: Vec<Option<FuncType>>,
}

impl Loaded {
    fn new(engine: &wasmi::Engine, prepared: &Prepared<'_>) -> Result<Loaded, Error> {
        let module = wasmi::Module::new(engine, &unfused(&prepared.code.bytes)[..]);
        Ok(Loaded {
            module: module.map_err(|error| refusal(&error))?,
            function_types: imported_function_types(&prepared.module),
        })
    }
}

/// wasmi with one store.
pub struct Interpreter {
    store: Store<Data>,
    imports: Imports,
    modules: Vec<Loaded>,
    /// Each with the number of its module.
    instances: Vec<(Instance, usize)>,
    /// The exports of named instances, by the names under which they are imported.
    linked: BTreeMap<(String, String), Extern>,
}

impl Interpreter {
    /// Loads modules.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a module that wasmi cannot run, or that is not valid.
    pub fn new(
        modules: &[Prepared<'_>],
        features: &Features,
        host: HostState,
        imports: Imports,
        pause: Option<Pause>,
    ) -> Result<Interpreter, Error> {
        let metered = pause.is_some() || host.interrupt.is_some();
        let engine = wasmi::Engine::new(&config(features, metered));
        let loaded = modules
            .iter()
            .map(|prepared| Loaded::new(&engine, prepared));
        let loaded = loaded.collect::<Result<_, Error>>()?;
        let data = Data {
            host,
            instances: Instances::new(modules),
            ended: None,
            refused: None,
            pause,
            metered,
            instantiating: false,
            asked_for: 0,
            cannot: None,
            nested: 0,
            handed_out: HashSet::new(),
        };
        let mut store = Store::new(&engine, data);
        store.limiter(|data| data);
        Ok(Interpreter {
            store,
            imports,
            modules: loaded,
            instances: Vec::new(),
            linked: BTreeMap::new(),
        })
    }

    fn resolve(&mut self, id: usize) -> Result<Vec<Extern>, Error> {
        let Loaded {
            module,
            function_types,
        } = &self.modules[id];
        let mut externs = Vec::new();
        // wasmi tells imports kind by kind, those of one kind in their order.
        let mut function_types = function_types.iter().flatten();
        for import in module.imports() {
            let (from, name) = (import.module(), import.name());
            let function_type = import.ty().func().and_then(|_| function_types.next());
            if let Some(found) = self.linked.get(&(from.to_string(), name.to_string())) {
                externs.push(*found);
                continue;
            }
            if let (wasmi::ExternType::Global(ty), Some(Made::Global(reference))) =
                (import.ty(), self.imports.made(from, name))
                && let Ok(value) = to_val(&mut self.store, Value::Ref(reference), ty.content())
            {
                let global = wasmi::Global::new(&mut self.store, value, ty.mutability());
                let names = (from.to_string(), name.to_string());
                self.linked.insert(names, global.into());
                externs.push(global.into());
                continue;
            }
            let wasmi::ExternType::Func(ty) = import.ty() else {
                return Err(Error::ImportMissing {
                    preload: None,
                    kind: match import.ty() {
                        wasmi::ExternType::Memory(_) => "memory",
                        wasmi::ExternType::Table(_) => "table",
                        _ => "global",
                    },
                    module: from.into(),
                    name: name.into(),
                });
            };
            let function_type = function_type.expect("a function import has a type");
            let function_type = function_type.clone();
            let host = Host {
                binding: self.imports.resolve(from, name, &function_type),
                module: from.into(),
                name: name.into(),
                ty: function_type,
            };
            let results = ty.results().to_vec();
            let func = Func::new(&mut self.store, ty.clone(), move |caller, params, out| {
                host.call(caller, params, out, &results)
            });
            externs.push(func.into());
        }
        Ok(externs)
    }

    fn failure(&mut self, error: wasmi::Error, function: Option<&str>) -> Error {
        if let Some(interrupt) = &self.store.data().host.interrupt
            && let Err(ended) = interrupt.check()
        {
            return ended;
        }
        let refused = self.store.data_mut().refused.take();
        if let Some(cannot) = self.store.data_mut().cannot.take() {
            return Error::unsupported(cannot);
        }
        if let ErrorKind::Wasm(_) | ErrorKind::Translation(_) = error.kind() {
            // A function that is looked at only when it is called.
            return refusal(&error);
        }
        if let ErrorKind::Instantiation(error) = error.kind()
            && let Some(misfit) = misfit(error)
        {
            return misfit;
        }
        Error::Trap(Box::new(Trap {
            function: function.map(Into::into),
            preload: None,
            // wasmi does not tell which calls were active.
            frames: Vec::<Frame>::new(),
            reason: refused.unwrap_or_else(|| reason(error)),
        }))
    }

    fn export(&self, instance: InstanceId, export: &str) -> Result<Extern, Error> {
        let (instance, _) = self.instances[instance.0];
        instance
            .get_export(&self.store, export)
            .ok_or_else(|| Error::internal(format!("the instance does not export `{export}`")))
    }

    fn exported_table(&self, instance: InstanceId, export: &str) -> Result<Table, Error> {
        self.export(instance, export)?
            .into_table()
            .ok_or_else(|| Error::internal(format!("`{export}` is no table")))
    }

    fn exported_memory(&self, instance: InstanceId, export: &str) -> Result<Memory, Error> {
        self.export(instance, export)?
            .into_memory()
            .ok_or_else(|| Error::internal(format!("`{export}` is no memory")))
    }

    /// Calls a function of an instance.
    fn enter(
        &mut self,
        instance: InstanceId,
        func: Func,
        label: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        self.store.data_mut().instances.called = Some(self.instances[instance.0].1);
        let result = call(&mut self.store, func, args);
        result.map_err(|error| error.tell(label, |error| self.failure(error, Some(label))))
    }
}

/// What wasmi does not run. Its offset is left out: it is one in the copy that wasmi reads.
fn refusal(error: &wasmi::Error) -> Error {
    match error.kind() {
        ErrorKind::Wasm(error) => Error::unsupported(error.message()),
        _ => Error::unsupported(error.to_string()),
    }
}

/// Calls a function and runs it to its end, slice by slice where the engine is metered.
fn call(
    mut store: impl AsContextMut<Data = Data>,
    func: Func,
    args: &[Value],
) -> Result<Vec<Value>, CallError<wasmi::Error>> {
    let ty = func.ty(&store);
    let (params, mut results) = arguments(&mut store, &ty, args).map_err(CallError::Arguments)?;
    let mut context = store.as_context_mut();
    match context.get_fuel() {
        // Not metered.
        Err(_) => func.call(&mut context, &params, &mut results)?,
        // Within a call from a host function: the outer call goes on with the fuel that it had.
        Ok(outer) => {
            let ended = in_slices(&mut context, func, &params, &mut results);
            // Also where the call failed: who made it may go on.
            context.set_fuel(outer)?;
            ended?;
        }
    }
    Ok(results.iter().map(|v| hand_out(&mut store, v)).collect())
}

/// Runs a function to its end, with a look at the clock between two slices.
fn in_slices(
    context: &mut StoreContextMut<'_, Data>,
    func: Func,
    params: &[Val],
    results: &mut [Val],
) -> Result<(), wasmi::Error> {
    context.set_fuel(SLICE)?;
    let mut call = func.call_resumable(&mut *context, params, results)?;
    loop {
        call = match call {
            ResumableCall::Finished => return Ok(()),
            ResumableCall::HostTrap(trap) => return Err(trap.into_host_error()),
            ResumableCall::OutOfFuel(paused) => {
                context.data_mut().ran_dry(paused.required_fuel());
                pause(context.data_mut()).map_err(failed)?;
                context.set_fuel(SLICE.max(paused.required_fuel()))?;
                paused.resume(&mut *context, results)?
            }
        }
    }
}

/// A value for those who may give it back.
fn hand_out(mut store: impl AsContextMut<Data = Data>, value: &Val) -> Value {
    let value = from_val(&store, value);
    if let Value::Ref(Reference::Func(number)) = value {
        let mut store = store.as_context_mut();
        store.data_mut().handed_out.insert(number);
    }
    value
}

/// Between two slices: whether the run is to end.
fn pause(data: &mut Data) -> Result<(), TrapReason> {
    let host = &mut data.host;
    host.goes_on()?;
    match (
        data.pause.as_mut().and_then(|pause| pause()),
        &mut host.speculation,
    ) {
        (Some(before), Some(speculation)) => Err(speculation.give_up(before)),
        _ => Ok(()),
    }
}

fn config(features: &Features, metered: bool) -> Config {
    let mut config = Config::default();
    config
        .compilation_mode(CompilationMode::Lazy)
        .ignore_custom_sections(true)
        .set_max_stack_height(MAX_STACK)
        .set_max_recursion_depth(MAX_DEPTH)
        .consume_fuel(metered)
        // Running dry in the middle of a translation could not be resumed, so that translating
        // costs nothing. Copying does, or a loop of large copies would not end.
        .fuel_cost(CustomFuelCosts {
            bytes_copied_per_fuel: BYTES_PER_FUEL,
            fuel_per_bytes_translated: 0,
            fuel_per_bytes_validated: 0,
        })
        .wasm_custom_page_sizes(true)
        .wasm_wide_arithmetic(true)
        .wasm_bulk_memory(features.bulk_memory)
        .wasm_multi_memory(features.multi_memory)
        .wasm_multi_value(features.multi_value)
        .wasm_simd(features.simd)
        // What these give is up to the machine, and must not be up to the tier.
        .wasm_relaxed_simd(false);
    config
}

impl Engine for Interpreter {
    fn name(&self) -> &'static str {
        "wasmi"
    }

    fn instantiate(&mut self, id: usize) -> Result<InstanceId, Error> {
        let externs = self.resolve(id)?;
        // The start function was taken out, and nothing else could cost much. Without a meter
        // there is nothing to set.
        let _ = self.store.set_fuel(SLICE);
        self.store.data_mut().instantiating = true;
        let instance = Instance::new(&mut self.store, &self.modules[id].module, &externs);
        self.store.data_mut().instantiating = false;
        let instance = instance.map_err(|error| self.failure(error, None))?;
        self.store.data_mut().instances.instances[id] = Some(instance);
        self.instances.push((instance, id));
        Ok(InstanceId(self.instances.len() - 1))
    }

    fn register(&mut self, instance: InstanceId, name: &str) -> Result<(), Error> {
        let added = &self.store.data().instances;
        let exports = self.instances[instance.0].0.exports(&self.store);
        let exports = exports.map(|e| ((name.to_string(), e.name().to_string()), e.into_extern()));
        let exports = exports.filter(|((_, export), _)| !added.is_added(export));
        let exports: Vec<_> = exports.collect();
        // All of them or none.
        for (names, _) in &exports {
            if self.linked.contains_key(names) {
                return Err(name_is_taken(name, &names.1));
            }
        }
        self.linked.extend(exports);
        Ok(())
    }

    fn modules(&self) -> usize {
        self.modules.len()
    }

    fn load(&mut self, module: &Prepared<'_>) -> Result<usize, Error> {
        let loaded = Loaded::new(self.store.engine(), module)?;
        self.modules.push(loaded);
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
        let func = function_in(&self.store, table, slot).map_err(Error::option)?;
        Ok(func_type(&func.ty(&self.store)))
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
        let func = function_in(&self.store, table, slot).map_err(Error::option)?;
        self.enter(instance, func, label, args)
    }

    fn memory(&self, instance: InstanceId, export: &str) -> Result<(u64, &[u8]), Error> {
        let memory = self.exported_memory(instance, export)?;
        Ok((memory.size(&self.store), memory.data(&self.store)))
    }

    fn memory_mut(&mut self, instance: InstanceId, export: &str) -> Result<&mut [u8], Error> {
        let memory = self.exported_memory(instance, export)?;
        Ok(memory.data_mut(&mut self.store))
    }

    fn global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        let global = self
            .export(instance, export)?
            .into_global()
            .ok_or_else(|| Error::internal(format!("`{export}` is no global")))?;
        let value = global.get(&self.store);
        Ok(hand_out(&mut self.store, &value))
    }

    fn hand_out_global(&mut self, instance: InstanceId, export: &str) -> Result<Value, Error> {
        self.global(instance, export)
    }

    fn table(&mut self, instance: InstanceId, export: &str) -> Result<Vec<Reference>, Error> {
        let table = self.exported_table(instance, export)?;
        let mut slots = Vec::new();
        for slot in 0..table.size(&self.store) {
            let value = table
                .get(&self.store, slot)
                .ok_or_else(|| Error::internal("a table shrank while it was read"))?;
            slots.push(match value {
                Ref::Func(func) => from_func(func),
                Ref::Extern(reference) => from_extern(&self.store, reference),
            });
        }
        Ok(slots)
    }

    fn object(&mut self, _: u32, _: usize) -> Result<Option<Object>, Error> {
        Err(Error::internal(
            "the interpreter has no garbage-collected heap",
        ))
    }

    fn host(&mut self) -> &mut HostState {
        &mut self.store.data_mut().host
    }
}

/// A [`TrapReason`] on its way through wasmi.
#[derive(Debug)]
struct HostFailure(TrapReason);

impl std::fmt::Display for HostFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl wasmi::errors::HostError for HostFailure {}

fn failed(reason: TrapReason) -> wasmi::Error {
    wasmi::Error::host(HostFailure(reason))
}

/// The error of an import that does not fit.
fn misfit(error: &InstantiationError) -> Option<Error> {
    use InstantiationError as E;
    let (name, message) = match error {
        E::FuncTypeMismatch {
            name,
            expected,
            actual,
        } => {
            let [wanted, found] = [expected, actual].map(|ty| signature(&func_type(ty)));
            let message =
                format!("the module wants a function {wanted}, and a function {found} is provided");
            (name, message)
        }
        E::ImportTypeMismatch { name, .. } => (name, "what is provided is of another kind".into()),
        E::GlobalTypeMismatch { name, .. }
        | E::TableTypeMismatch { name, .. }
        | E::MemoryTypeMismatch { name, .. } => {
            (name, "what is provided is of another type".into())
        }
        _ => return None,
    };
    Some(Error::ImportType {
        module: name.module().into(),
        name: name.name().into(),
        message,
    })
}

/// Whether a function of the host may catch what a function failed with that it called.
fn can_be_caught(data: &Data, error: &wasmi::Error) -> bool {
    if data.refused.is_some() || data.cannot.is_some() {
        return false;
    }
    match error.downcast_ref::<HostFailure>() {
        Some(HostFailure(reason)) => reason.can_be_caught(),
        // Anything else is wasmi's own: a function that it cannot translate.
        None => error.as_trap_code().is_some(),
    }
}

/// What ends the run, as it is told to functions of the host.
fn ended(data: &Data, error: &wasmi::Error) -> TrapReason {
    match (&data.refused, error.downcast_ref::<HostFailure>()) {
        (Some(reason), _) | (_, Some(HostFailure(reason))) => reason.ended(),
        (None, None) => TrapReason::Wasm(error.to_string()).ended(),
    }
}

/// Why a call failed.
fn reason(error: wasmi::Error) -> TrapReason {
    match error.downcast_ref::<HostFailure>() {
        Some(_) => error.downcast::<HostFailure>().expect("it is one").0,
        None => TrapReason::Wasm(match error.as_trap_code() {
            // As the compiled tier says it.
            Some(wasmi::TrapCode::IndirectCallToNull) => "uninitialized element".into(),
            _ => error.to_string(),
        }),
    }
}

/// A function import, answered by the host.
struct Host {
    binding: Binding,
    module: String,
    name: String,
    ty: FuncType,
}

impl Host {
    fn call(
        &self,
        mut caller: wasmi::Caller<'_, Data>,
        params: &[Val],
        out: &mut [Val],
        types: &[wasmi::ValType],
    ) -> Result<(), wasmi::Error> {
        let args: Vec<Value> = params.iter().map(|v| hand_out(&mut caller, v)).collect();
        let mut guest = CallingGuest {
            caller: &mut caller,
        };
        let values = self
            .binding
            .call(&mut guest, &self.module, &self.name, &self.ty, &args);
        if let Some(error) = caller.data_mut().ended.take() {
            return Err(error);
        }
        let values = values.map_err(failed)?;
        for ((out, value), ty) in out.iter_mut().zip(values).zip(types) {
            *out = to_val(&mut caller, value, *ty)
                .map_err(|message| failed(TrapReason::Host(message.into())))?;
        }
        Ok(())
    }
}

/// The instance that is calling a host function.
struct CallingGuest<'c, 's> {
    caller: &'c mut wasmi::Caller<'s, Data>,
}

impl CallingGuest<'_, '_> {
    /// The number of its module, where code of it calls.
    fn calling(&self) -> Option<usize> {
        let number = &self.caller.data().instances.number;
        let number = self.caller.get_export(number)?.into_global()?;
        let number = number.get(&*self.caller).i32()?;
        Some(number as u32 as usize)
    }

    /// The number of its module.
    fn module(&self) -> Option<usize> {
        self.calling().or(self.caller.data().instances.called)
    }

    /// Something that the instance exports, added exports included.
    fn export(&self, name: &str) -> Option<Extern> {
        let found = self.caller.get_export(name);
        if found.is_some() || self.calling().is_some() {
            return found;
        }
        let called = self.caller.data().instances.called_instance()?;
        called.get_export(&*self.caller, name)
    }

    fn named_memory(&self, name: Option<&str>) -> Result<Memory, String> {
        // Nearly always, and then there is nothing to look up.
        if name.is_none()
            && let Some(Extern::Memory(memory)) = self.caller.get_export(MEMORY)
        {
            return Ok(memory);
        }
        let export = self.caller.data().instances.memory(self.module(), name)?;
        let memory = self.export(&export).and_then(Extern::into_memory);
        memory.ok_or_else(|| format!("`{export}` is no memory"))
    }

    fn function(&self, export: &str) -> Option<Func> {
        match self.caller.data().instances.is_added(export) {
            true => None,
            false => self.export(export)?.into_func(),
        }
    }

    fn slot(&self, table: Option<&str>, slot: u64) -> Result<Func, String> {
        let export = self.caller.data().instances.table(self.module(), table)?;
        let table = self.export(&export).and_then(Extern::into_table);
        let table = table.ok_or_else(|| format!("`{export}` is no table"))?;
        function_in(&*self.caller, table, slot)
    }

    /// Calls a function of the instance, or one that it has in a table.
    fn enter(&mut self, func: Func, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        let module = self.module();
        let data = self.caller.data_mut();
        data.host.goes_on()?;
        if let Some(error) = &data.ended {
            return Err(ended(data, error));
        }
        if data.nested == MAX_NESTED {
            return Err(TrapReason::Wasm("call stack exhausted".into()));
        }
        data.nested += 1;
        let outer = std::mem::replace(&mut data.instances.called, module);
        let result = call(&mut *self.caller, func, args);
        let data = self.caller.data_mut();
        data.instances.called = outer;
        data.nested -= 1;
        result.map_err(|error| error.reason(|error| self.failed(error)))
    }

    /// Why a call failed, for the function of the host that made it. What that must not catch is
    /// kept, and ends the run.
    fn failed(&mut self, error: wasmi::Error) -> TrapReason {
        let data = self.caller.data_mut();
        if can_be_caught(data, &error) {
            return reason(error);
        }
        let reason = ended(data, &error);
        data.ended = Some(error);
        reason
    }
}

impl Guest for CallingGuest<'_, '_> {
    fn memory(&mut self, name: Option<&str>) -> Result<&mut [u8], HostError> {
        Ok(self.memory_and_host(name)?.0)
    }

    fn function_type(&mut self, export: &str) -> Option<FuncType> {
        let func = self.function(export)?;
        Some(func_type(&func.ty(&*self.caller)))
    }

    fn call(&mut self, export: &str, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        let func = self.function(export);
        let func = func.ok_or_else(|| no_such_function(export))?;
        self.enter(func, args)
    }

    fn slot_type(&mut self, table: Option<&str>, slot: u64) -> Result<FuncType, HostError> {
        let func = self.slot(table, slot)?;
        Ok(func_type(&func.ty(&*self.caller)))
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
        let memory = self.named_memory(name)?;
        let (bytes, data) = memory.data_and_store_mut(&mut *self.caller);
        Ok((bytes, &mut data.host))
    }
}

/// The function in a slot of a table.
fn function_in(store: impl AsContext, table: Table, slot: u64) -> Result<Func, String> {
    match table.get(&store, slot) {
        Some(Ref::Func(Nullable::Val(func))) => Ok(func),
        _ => Err(no_function(slot, table.size(&store))),
    }
}

/// Arguments for a function, and room for its results.
fn arguments(
    mut store: impl AsContextMut<Data = Data>,
    ty: &wasmi::FuncType,
    args: &[Value],
) -> Result<(Vec<Val>, Vec<Val>), String> {
    count_of_arguments(args.len(), ty.params().len())?;
    let params = ty
        .params()
        .iter()
        .zip(args)
        .map(|(ty, value)| to_val(&mut store, *value, *ty))
        .collect::<Result<_, _>>()?;
    let results = ty
        .results()
        .iter()
        .map(|ty| Val::default_for_ty(*ty))
        .collect();
    Ok((params, results))
}

fn func_type(ty: &wasmi::FuncType) -> FuncType {
    let convert = |types: &[wasmi::ValType]| types.iter().map(|t| val_type(*t)).collect::<Vec<_>>();
    FuncType::new(convert(ty.params()), convert(ty.results()))
}

fn val_type(ty: wasmi::ValType) -> wasmparser::ValType {
    match ty {
        wasmi::ValType::I32 => wasmparser::ValType::I32,
        wasmi::ValType::I64 => wasmparser::ValType::I64,
        wasmi::ValType::F32 => wasmparser::ValType::F32,
        wasmi::ValType::F64 => wasmparser::ValType::F64,
        wasmi::ValType::V128 => wasmparser::ValType::V128,
        wasmi::ValType::FuncRef => wasmparser::ValType::FUNCREF,
        wasmi::ValType::ExternRef => wasmparser::ValType::EXTERNREF,
    }
}

fn from_val(store: impl AsContext<Data = Data>, value: &Val) -> Value {
    match value {
        Val::I32(v) => Value::I32(*v),
        Val::I64(v) => Value::I64(*v),
        Val::F32(v) => Value::F32(v.to_bits()),
        Val::F64(v) => Value::F64(v.to_bits()),
        Val::V128(v) => Value::V128(v.as_u128()),
        Val::FuncRef(func) => Value::Ref(from_func(*func)),
        Val::ExternRef(reference) => Value::Ref(from_extern(store, *reference)),
    }
}

fn from_func(func: Nullable<Func>) -> Reference {
    match func {
        Nullable::Null => Reference::Null,
        // SAFETY: a `Func` is two numbers of 32 bits, the store's and its own, without padding;
        // the sizes are compared when this is compiled. They are only compared with each other.
        Nullable::Val(func) => Reference::Func(unsafe { std::mem::transmute::<Func, u64>(func) }),
    }
}

fn from_extern(store: impl AsContext<Data = Data>, reference: Nullable<ExternRef>) -> Reference {
    match reference {
        Nullable::Null => Reference::Null,
        Nullable::Val(reference) => match reference.data(&store).downcast_ref::<u32>() {
            Some(number) => Reference::Extern(*number),
            None => Reference::Object,
        },
    }
}

fn to_val(
    mut store: impl AsContextMut<Data = Data>,
    value: Value,
    ty: wasmi::ValType,
) -> Result<Val, String> {
    Ok(match (value, ty) {
        (Value::I32(v), wasmi::ValType::I32) => Val::I32(v),
        (Value::I64(v), wasmi::ValType::I64) => Val::I64(v),
        (Value::F32(v), wasmi::ValType::F32) => Val::F32(wasmi::F32::from_bits(v)),
        (Value::F64(v), wasmi::ValType::F64) => Val::F64(wasmi::F64::from_bits(v)),
        (Value::V128(v), wasmi::ValType::V128) => Val::V128(v.into()),
        (Value::Ref(Reference::Null), wasmi::ValType::FuncRef) => Val::FuncRef(Nullable::Null),
        (Value::Ref(Reference::Null), wasmi::ValType::ExternRef) => Val::ExternRef(Nullable::Null),
        (Value::Ref(Reference::Extern(number)), wasmi::ValType::ExternRef) => {
            Val::ExternRef(Nullable::Val(ExternRef::new(&mut store, number)))
        }
        (Value::Ref(Reference::Func(number)), wasmi::ValType::FuncRef)
            if store.as_context().data().handed_out.contains(&number) =>
        {
            // SAFETY: the number is what `from_func` gave for a function of this store.
            let func = unsafe { std::mem::transmute::<u64, Func>(number) };
            Val::FuncRef(Nullable::Val(func))
        }
        (value, ty) => {
            let ty = val_type(ty);
            return Err(format!(
                "{value} was given where a value of type {ty} is wanted"
            ));
        }
    })
}

impl wasmi::ResourceLimiter for Data {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.growing("memory", current, desired, maximum)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.growing("table", current, desired, maximum)
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}

impl Data {
    /// Fuel ran dry. Where that was in the middle of growth, that will be asked for again.
    fn ran_dry(&mut self, required: u64) {
        let bytes = std::mem::take(&mut self.asked_for);
        let cost = bytes / u64::from(BYTES_PER_FUEL);
        if cost > 0 && cost == required {
            let limiter = &mut self.host.limiter;
            limiter.used = limiter.used.saturating_sub(bytes);
        }
    }

    fn growing(
        &mut self,
        what: &'static str,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let burns = self.metered && !self.instantiating;
        if what == "table" && burns && desired - current > MAX_METERED_SLOTS {
            let slots = desired - current;
            let cannot = format!("a table grew by {slots} slots at once while steps were counted");
            match &mut self.host.speculation {
                Some(speculation) => drop(speculation.leave(cannot)),
                None => self.cannot = Some(cannot),
            }
            return Err(LimiterError::ResourceLimiterDeniedAllocation);
        }
        if what == "memory" {
            self.asked_for = (desired - current) as u64;
        }
        let limiter: &mut Limiter = &mut self.host.limiter;
        match limiter.grow(what, current as u64, desired as u64) {
            Ok(()) => match &mut self.host.speculation {
                Some(speculation) if limiter.used > MAX_SPECULATIVE_MEMORY => {
                    let size = MAX_SPECULATIVE_MEMORY >> 20;
                    speculation.give_up(format!("its memories took more than {size} MiB"));
                    Err(LimiterError::ResourceLimiterDeniedAllocation)
                }
                _ => Ok(true),
            },
            Err(reason) => {
                self.refused = Some(reason);
                Err(LimiterError::ResourceLimiterDeniedAllocation)
            }
        }
    }
}
