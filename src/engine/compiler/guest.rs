//! Functions of the host that compiled code calls, and what they may do with the instance that calls.

use std::convert::Infallible;

use wasmparser::FuncType;
use wasmtime::{
    AsContext, AsContextMut, ExnRef, Extern, Func, Ref, RootScope, Rooted, Table, Tag, Val,
};

use super::objects;
use super::values::{hand_out, numeric, to_val, wanted};
use super::{StoreData, reason, shared_bytes};
use crate::engine::{CallError, count_of_arguments, no_function, no_such_function};
use crate::error::{Exception, TrapReason};
use crate::host::{Binding, Caller, Guest, HostError, HostState};
use crate::module::MEMORY;
use crate::value::Value;

/// A function import, answered by the host.
pub(super) struct Host {
    pub(super) binding: Binding,
    pub(super) module: String,
    pub(super) name: String,
    pub(super) ty: FuncType,
    pub(super) results: Vec<wasmtime::ValType>,
}

impl Host {
    pub(super) fn call(
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
pub(super) struct CallingGuest<'c, 's> {
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

/// What a function of the host failed with; an exception is thrown.
pub(super) fn failure(
    store: impl AsContextMut<Data = StoreData>,
    reason: TrapReason,
) -> wasmtime::Error {
    match reason {
        TrapReason::Exception(exception) => match throw(store, exception) {
            Ok(never) => match never {},
            Err(thrown) => thrown,
        },
        other => other.into(),
    }
}

/// Throws an exception of the module again, or a new one of a tag that was made.
pub(super) fn throw(
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
pub(super) fn seen(
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

/// The function in a slot of a table.
pub(super) fn function_in(
    mut store: impl AsContextMut,
    table: Table,
    slot: u64,
) -> Result<Func, String> {
    match table.get(&mut store, slot) {
        Some(Ref::Func(Some(func))) => Ok(func),
        _ => Err(no_function(slot, table.size(&store))),
    }
}

/// The type of a function, where a host can give and take values of its types.
pub(super) fn function_type(store: impl AsContext, func: Func) -> Result<FuncType, String> {
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

pub(super) fn call(
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

/// Whether a function of the host may catch what a function failed with that it called.
pub(super) fn can_be_caught(error: &wasmtime::Error) -> bool {
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
pub(super) fn ended(error: &wasmtime::Error) -> TrapReason {
    match error.downcast_ref::<TrapReason>() {
        Some(reason) => reason.ended(),
        None => TrapReason::Wasm(error.root_cause().to_string()).ended(),
    }
}
