//! Functions of the host that a module calls in a worker, and what they may do with the instance that calls.

use std::cell::UnsafeCell;

use napi::bindgen_prelude::Either3;
use wasmparser::FuncType;

use super::server::{Failure, Server};
use super::{Store, values};
use crate::engine::{no_function, no_such_function};
use crate::error::TrapReason;
use crate::host::{Caller, Guest, HostError, HostState};
use crate::napi::Thrown;
use crate::napi::link::{JsValues, with_types};
use crate::value::{Reference, Value};

/// The instance that is calling a function of the host.
pub(super) struct CallingGuest<'s> {
    server: &'s Server,
    store: &'s UnsafeCell<Store>,
    /// The function's number.
    import: usize,
}

impl<'s> CallingGuest<'s> {
    pub(super) fn new(server: &'s Server, store: &'s UnsafeCell<Store>, import: usize) -> Self {
        CallingGuest {
            server,
            store,
            import,
        }
    }

    /// Not to be kept while code of the module runs.
    #[allow(clippy::mut_from_ref, reason = "one thread works, and nothing is kept")]
    fn store(&self) -> &mut Store {
        // SAFETY: the pipeline's thread waits, and on this one nothing else has the store: what is
        // taken from it ends before code of the module runs.
        unsafe { &mut *self.store.get() }
    }

    /// Has the function answer: the results, an exception to be thrown, or nothing, where the run or
    /// this call of the module ends.
    pub(super) fn answer(mut self, args: JsValues) -> Either3<JsValues, Thrown, bool> {
        match self.call_host(args) {
            Ok(values) => Either3::A(JsValues(values)),
            Err(TrapReason::Exception(exception)) => Either3::B((&exception).into()),
            Err(reason) => {
                self.store().failed = Some(reason);
                Either3::C(false)
            }
        }
    }

    fn call_host(&mut self, args: JsValues) -> Result<Vec<Value>, TrapReason> {
        let import = self.store().bindings[self.import].clone();
        let args = with_types(&args, import.ty.params())
            .ok_or_else(|| TrapReason::Host("arguments of other types".into()))?;
        let called = import
            .binding
            .call(self, &import.module, &import.name, &import.ty, &args);
        if let Some(reason) = self.store().ended.take() {
            return Err(reason);
        }
        let values = called?;
        values::check(&values, import.ty.results())
            .map_err(|message| TrapReason::Host(message.into()))?;
        Ok(values)
    }

    /// The number of the calling instance's module, and the instance's.
    fn calling(&self) -> (Option<usize>, Option<usize>) {
        let store = self.store();
        let module = store.bindings[self.import].of;
        (
            Some(module),
            store.instances.instances.get(module).copied().flatten(),
        )
    }

    fn instance(&self) -> Result<usize, String> {
        let (_, instance) = self.calling();
        instance.ok_or_else(|| "no instance of a module of this run has called".into())
    }

    fn type_of_export(&self, export: &str) -> Option<FuncType> {
        let store = self.store();
        let (module, _) = self.calling();
        if store.instances.is_added(export) {
            return None;
        }
        store.modules[module?].functions.get(export).cloned()
    }

    /// The function in a slot of a table, and its type.
    fn slot(&self, table: Option<&str>, slot: u64) -> Result<(u64, FuncType), String> {
        let (module, _) = self.calling();
        let instance = self.instance()?;
        let export = self.store().instances.table(module, table)?;
        let failed = |_| format!("`{export}` cannot be read");
        let read = self.server.slot(instance, &export, slot);
        let (size, found) = read.map_err(failed)?;
        let Some(Reference::Func(number)) = found else {
            return Err(no_function(slot, size));
        };
        let ty = self.type_of_function(number);
        let ty = ty.ok_or("the function's type is known to modules only")?;
        Ok((number, ty))
    }

    /// The type of a function: that of the one with the same number which an instance exports.
    fn type_of_function(&self, number: u64) -> Option<FuncType> {
        let instances = self.store().instances.instances.clone();
        for (module, instance) in instances.into_iter().enumerate() {
            let Some(instance) = instance else { continue };
            let known = &self.store().modules[module];
            let Ok(functions) = self.server.functions(instance, &known.functions_at) else {
                continue;
            };
            let is_it = |function: &Reference| *function == Reference::Func(number);
            if let Some(index) = functions.iter().position(is_it) {
                return known.referable.get(index).cloned().flatten();
            }
        }
        None
    }

    /// Calls a function of the module.
    fn enter(
        &mut self,
        ty: &FuncType,
        args: &[Value],
        call: impl FnOnce(&Server) -> Result<Vec<Value>, Failure>,
    ) -> Result<Vec<Value>, TrapReason> {
        self.store().host.goes_on()?;
        if let Some(ended) = &self.store().ended {
            return Err(ended.ended());
        }
        let misfit = |message: String| TrapReason::Host(message.into());
        values::check(args, ty.params()).map_err(misfit)?;
        if let Some(unknown) = values::unknown(ty) {
            return Err(misfit(format!(
                "JavaScript has no values of the type {unknown}"
            )));
        }
        self.store().failed = None;
        call(self.server).map_err(|failure| self.reason(failure))
    }

    /// Why a call failed, for the function of the host that made it. What that must not catch is
    /// kept, and ends the run.
    fn reason(&self, failure: Failure) -> TrapReason {
        let store = self.store();
        if let Err(ended) = store.host.goes_on() {
            return ended;
        }
        let reason = match failure {
            Failure::Trap(message, _) => TrapReason::Wasm(message),
            Failure::Exception(exception, _) => TrapReason::Exception(exception),
            Failure::Host(_) => match store.failed.take() {
                Some(reason) => reason,
                None => TrapReason::Host("a function of the host failed".into()),
            },
            Failure::Refused(message) | Failure::Link(message) => TrapReason::Host(message.into()),
            Failure::Stopped => TrapReason::Host("the worker has ended".into()),
        };
        if reason.can_be_caught() {
            return reason;
        }
        let ended = reason.ended();
        store.ended = Some(reason);
        ended
    }
}

impl Guest for CallingGuest<'_> {
    fn memory(&mut self, name: Option<&str>) -> Result<&mut [u8], HostError> {
        Ok(self.memory_and_host(name)?.0)
    }

    fn function_type(&mut self, export: &str) -> Option<FuncType> {
        let ty = self.type_of_export(export)?;
        values::unknown(&ty).is_none().then_some(ty)
    }

    fn call(&mut self, export: &str, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        let ty = self.type_of_export(export);
        let ty = ty.ok_or_else(|| no_such_function(export))?;
        let instance = self.instance().map_err(|m| TrapReason::Host(m.into()))?;
        self.enter(&ty, args, |server| server.call(instance, export, args, &ty))
    }

    fn slot_type(&mut self, table: Option<&str>, slot: u64) -> Result<FuncType, HostError> {
        Ok(self.slot(table, slot)?.1)
    }

    fn call_indirect(
        &mut self,
        table: Option<&str>,
        slot: u64,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        let found = self.slot(table, slot);
        let (number, ty) = found.map_err(|message| TrapReason::Host(message.into()))?;
        self.enter(&ty, args, |server| server.call_function(number, args, &ty))
    }
}

impl Caller for CallingGuest<'_> {
    fn host(&mut self) -> &mut HostState {
        &mut self.store().host
    }

    fn memory_and_host(
        &mut self,
        name: Option<&str>,
    ) -> Result<(&mut [u8], &mut HostState), String> {
        let (module, _) = self.calling();
        let instance = self.instance()?;
        let export = self.store().instances.memory(module, name)?;
        let failed = |failure| match (self.store().host.goes_on(), failure) {
            (Err(ended), _) => ended.to_string(),
            (Ok(()), Failure::Trap(message, _)) => message,
            (Ok(()), _) => format!("`{export}` is no memory"),
        };
        let place = self.server.memory(instance, &export).map_err(failed)?;
        // SAFETY: the memory stays where it is until code of the module runs, which takes the guest.
        Ok((unsafe { place.bytes_mut() }, &mut self.store().host))
    }
}
