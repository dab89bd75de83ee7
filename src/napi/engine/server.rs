//! The worker's thread: waits for work, and does it by calls of `lib/engine.js`.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use napi::bindgen_prelude::{BigInt, Either3, FromNapiValue, Function, ToNapiValue, Unknown};
use napi::{Env, JsValue, sys};
use napi_derive::napi;
use wasmparser::{FuncType, ValType};

use super::guest::CallingGuest;
use super::seat::Seat;
use super::{FunctionsAt, Store};
use crate::error::{Exception, Frame, TrapReason, demangle};
use crate::napi::Thrown;
use crate::napi::link::{
    JsValues, Place, array_buffer, can_run, check, detach, exception, in_scope, type_names,
    with_types,
};
use crate::value::{Reference, Value};

/// Why something was not done.
pub(super) enum Failure {
    /// The engine does not take it.
    Refused(String),
    /// Something that is imported does not fit.
    Link(String),
    Trap(String, Vec<Frame>),
    Exception(Exception, Vec<Frame>),
    /// A function of the host failed, which the store knows of.
    Host(Vec<Frame>),
    /// The worker is being ended.
    Stopped,
}

/// What an instance imports.
pub(super) enum Import {
    /// The function of the host of this number.
    Host(usize, FuncType),
    /// What the instance of this number exports under this name.
    Export(usize, String),
    /// A global of this value and type, whether it is mutable, and its names.
    Global(Value, ValType, bool, (String, String)),
    /// The tag of this number, by these two names.
    Tag(usize, (String, String), FuncType),
}

/// The JavaScript side of a worker.
pub(super) struct Server {
    env: sys::napi_env,
    /// `operate` of `lib/engine.js`.
    operate: sys::napi_value,
    /// Memories, by their instances and names.
    memories: RefCell<HashMap<(usize, String), sys::napi_ref>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for (_, memory) in self.memories.get_mut().drain() {
            // SAFETY: made in this environment, and deleted once, on its thread.
            unsafe { sys::napi_delete_reference(self.env, memory) };
        }
    }
}

/// What goes on in a worker's thread.
#[derive(Clone, Copy)]
struct Current {
    server: *const Server,
    store: *const UnsafeCell<Store>,
}

thread_local! {
    /// What is being done, for the functions of the host that modules call.
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };

    /// The environment of a worker that serves.
    static THIS: Cell<Option<sys::napi_env>> = const { Cell::new(None) };
}

/// How long the end of the worker may go unnoticed.
const PULSE: Duration = Duration::from_millis(100);

/// Does the work of the run of this number, as long as there is any. `operate` is what `lib/engine.js` does.
#[napi(catch_unwind)]
pub fn serve_engine(env: Env, number: u32, operate: Function<'_, (), Unknown<'_>>) {
    let Some((work, side)) = Seat::of(number).and_then(|seat| seat.take()) else {
        return;
    };
    let server = Server {
        env: env.raw(),
        operate: operate.raw(),
        memories: RefCell::default(),
    };
    THIS.set(Some(server.env));
    loop {
        match work.recv_timeout(PULSE) {
            // What panicked is gone, and with it the sender of the result.
            Ok(work) => drop(catch_unwind(AssertUnwindSafe(|| work(&server)))),
            Err(RecvTimeoutError::Timeout) if !is_ending() => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // Nobody waits for it any more; but somebody may be reading memory, which goes with it.
                drop(work);
                side.end();
                break;
            }
        }
    }
    THIS.set(None);
}

/// Whether this is the thread of a worker that is being ended.
pub fn is_ending() -> bool {
    THIS.get().is_some_and(|env| !can_run(env))
}

/// Calls a function of the host for an instance: the results, or what it throws.
#[napi(catch_unwind)]
pub fn call_host_function(number: u32, args: JsValues) -> Either3<JsValues, Thrown, bool> {
    let Some(current) = CURRENT.get() else {
        return Either3::C(false);
    };
    // SAFETY: the two live as long as what is being done, see `Server::within`.
    let (server, store) = unsafe { (&*current.server, &*current.store) };
    CallingGuest::new(server, store, number as usize).answer(args)
}

type Done<T> = Result<T, Failure>;

impl Server {
    /// Does something for which functions of the host may be called.
    pub(super) fn within<T>(&self, store: &UnsafeCell<Store>, work: impl FnOnce() -> T) -> T {
        /// Also where the work panics.
        struct Restore(Option<Current>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let current = Current {
            server: self,
            store,
        };
        let _restore = Restore(CURRENT.replace(Some(current)));
        work()
    }

    /// Has `operate` do something. What it gives is read by `read`.
    fn operate<T>(
        &self,
        what: &str,
        args: impl FnOnce(sys::napi_env) -> napi::Result<Vec<sys::napi_value>>,
        read: impl FnOnce(sys::napi_env, sys::napi_value) -> napi::Result<T>,
    ) -> Done<T> {
        let env = self.env;
        let done = in_scope(env, || {
            // SAFETY: `env` is the environment of this thread, and all values are its own.
            unsafe {
                let mut given = vec![<&str>::to_napi_value(env, what)?];
                given.extend(args(env)?);
                let (mut this, mut returned) = (ptr::null_mut(), ptr::null_mut());
                check(sys::napi_get_undefined(env, &mut this))?;
                check(sys::napi_call_function(
                    env,
                    this,
                    self.operate,
                    given.len(),
                    given.as_ptr(),
                    &mut returned,
                ))?;
                let kind = u32::from_napi_value(env, element(env, returned, 0)?)?;
                let value = element(env, returned, 1)?;
                if kind == 0 {
                    return Ok(Ok(read(env, value)?));
                }
                let text = |index| String::from_napi_value(env, element(env, returned, index)?);
                Ok(Err(match kind {
                    1 => Failure::Refused(text(1)?),
                    2 => Failure::Link(text(1)?),
                    3 => Failure::Trap(reason(&text(1)?), frames(&text(2)?)),
                    4 => {
                        let thrown = Thrown::from_napi_value(env, value)?;
                        Failure::Exception(thrown_by_module(thrown), frames(&text(2)?))
                    }
                    _ => Failure::Host(frames(&text(2)?)),
                }))
            }
        });
        match done {
            Ok(done) => done,
            Err(_) => Err(self.thrown()),
        }
    }

    pub(super) fn compile(&self, bytes: &[u8]) -> Done<()> {
        let place = Place::of(bytes);
        let mut given = ptr::null_mut();
        let args = |env| {
            let (buffer, _) = array_buffer(env, place)?;
            // SAFETY: `buffer` is a value of this environment.
            check(unsafe { sys::napi_create_reference(env, buffer, 1, &mut given) })?;
            Ok(vec![buffer])
        };
        let done = self.operate("compile", args, nothing);
        if !given.is_null() {
            detach(self.env, given);
        }
        done
    }

    pub(super) fn instantiate(&self, module: usize, imports: &[Import]) -> Done<()> {
        let args = |env| {
            let mut array = ptr::null_mut();
            // SAFETY: `env` is the environment of this thread, and all values are its own.
            unsafe {
                check(sys::napi_create_array_with_length(
                    env,
                    imports.len(),
                    &mut array,
                ))?;
                for (index, import) in (0..).zip(imports) {
                    check(sys::napi_set_element(env, array, index, import.to_js(env)?))?;
                }
                Ok(vec![u32::to_napi_value(env, module as u32)?, array])
            }
        };
        self.operate("instantiate", args, nothing)
    }

    pub(super) fn exports(&self, instance: usize) -> Done<Vec<String>> {
        let args = |env| number(env, instance).map(|number| vec![number]);
        // SAFETY: the value is one of the environment.
        self.operate("exports", args, |env, value| unsafe {
            Vec::<String>::from_napi_value(env, value)
        })
    }

    pub(super) fn call(
        &self,
        instance: usize,
        export: &str,
        args: &[Value],
        ty: &FuncType,
    ) -> Done<Vec<Value>> {
        self.call_by("call", |env| place(env, instance, export), args, ty)
    }

    pub(super) fn call_function(
        &self,
        function: u64,
        args: &[Value],
        ty: &FuncType,
    ) -> Done<Vec<Value>> {
        let place = |env| Ok(vec![number(env, function as usize)?]);
        self.call_by("callFunction", place, args, ty)
    }

    fn call_by(
        &self,
        what: &str,
        place: impl FnOnce(sys::napi_env) -> napi::Result<Vec<sys::napi_value>>,
        args: &[Value],
        ty: &FuncType,
    ) -> Done<Vec<Value>> {
        let given = |env| {
            let mut given = place(env)?;
            // SAFETY: `env` is the environment of this thread.
            unsafe {
                given.push(JsValues::to_napi_value(env, JsValues(args.to_vec()))?);
                given.push(Vec::<String>::to_napi_value(env, type_names(ty.params()))?);
                given.push(Vec::<String>::to_napi_value(env, type_names(ty.results()))?);
            }
            Ok(given)
        };
        self.operate(what, given, |env, value| values(env, value, ty.results()))
    }

    /// Where a memory is. Valid until code runs.
    pub(super) fn memory(&self, instance: usize, export: &str) -> Done<Place> {
        let known = self
            .memories
            .borrow()
            .get(&(instance, export.to_string()))
            .copied();
        let memory = match known {
            Some(memory) => memory,
            None => {
                let read = |env, value| {
                    let mut memory = ptr::null_mut();
                    // SAFETY: `value` is a value of this environment.
                    check(unsafe { sys::napi_create_reference(env, value, 1, &mut memory) })?;
                    Ok(memory)
                };
                let made = self.operate("memory", |env| place(env, instance, export), read)?;
                let mut memories = self.memories.borrow_mut();
                memories.insert((instance, export.to_string()), made);
                made
            }
        };
        let env = self.env;
        let found = in_scope(env, || {
            let (mut value, mut buffer) = (ptr::null_mut(), ptr::null_mut());
            let (mut bytes, mut len) = (ptr::null_mut(), 0);
            // SAFETY: `env` is the environment of this thread, and the reference is one of it.
            let status = unsafe {
                check(sys::napi_get_reference_value(env, memory, &mut value))?;
                let name = c"buffer".as_ptr();
                check(sys::napi_get_named_property(env, value, name, &mut buffer))?;
                sys::napi_get_arraybuffer_info(env, buffer, &mut bytes, &mut len)
            };
            Ok((status == sys::Status::napi_ok).then(|| Place::new(bytes.cast(), len)))
        });
        match found {
            Ok(Some(place)) => Ok(place),
            // Shared ones are told through views only.
            Ok(None) => self.viewed(instance, export),
            Err(_) => Err(self.thrown()),
        }
    }

    /// Why JavaScript has thrown in what throws nothing by itself.
    fn thrown(&self) -> Failure {
        let mut exception = ptr::null_mut();
        // SAFETY: `env` is the environment of this thread. Where it is ending, nothing is cleared.
        unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut exception) };
        match can_run(self.env) {
            true => Failure::Trap(EXHAUSTED.into(), Vec::new()),
            false => Failure::Stopped,
        }
    }

    fn viewed(&self, instance: usize, export: &str) -> Done<Place> {
        let read = |env, value| {
            let (mut ty, mut len, mut bytes) = (0, 0, ptr::null_mut());
            let (mut buffer, mut offset) = (ptr::null_mut(), 0);
            // SAFETY: `value` is a `Uint8Array` over the whole memory.
            check(unsafe {
                sys::napi_get_typedarray_info(
                    env,
                    value,
                    &mut ty,
                    &mut len,
                    &mut bytes,
                    &mut buffer,
                    &mut offset,
                )
            })?;
            Ok(Place::new(bytes.cast(), len))
        };
        self.operate("view", |env| place(env, instance, export), read)
    }

    pub(super) fn global(&self, instance: usize, export: &str, ty: ValType) -> Done<Value> {
        let args = |env| {
            let mut args = place(env, instance, export)?;
            // SAFETY: `env` is the environment of this thread.
            let names = unsafe { Vec::<String>::to_napi_value(env, type_names(&[ty]))? };
            args.push(names);
            Ok(args)
        };
        self.operate("global", args, |env, value| {
            values(env, value, &[ty])?.pop().ok_or_else(unread)
        })
    }

    /// The value of a global of floats or vectors, of what the function gives that was added for it:
    /// its bits.
    pub(super) fn bits(&self, instance: usize, function: &str, ty: ValType) -> Done<Value> {
        let args = |env| place(env, instance, function);
        self.operate("bits", args, |env, value| {
            // SAFETY: `value` is a value of the environment.
            let JsValues(read) = unsafe { JsValues::from_napi_value(env, value)? };
            match (ty, &read[..]) {
                (ValType::F32, &[Value::F64(bits)]) => {
                    Ok(Value::F32(f64::from_bits(bits) as i32 as u32))
                }
                (ValType::F64, &[Value::I64(bits)]) => Ok(Value::F64(bits as u64)),
                (ValType::V128, &[Value::I64(low), Value::I64(high)]) => {
                    let (low, high) = (low as u64, high as u64);
                    Ok(Value::V128(u128::from(low) | u128::from(high) << 64))
                }
                _ => Err(unread()),
            }
        })
    }

    pub(super) fn table(&self, instance: usize, export: &str) -> Done<Vec<Reference>> {
        let read = |env, value| {
            let (mut ty, mut len, mut data) = (0, 0, ptr::null_mut());
            let (mut buffer, mut offset) = (ptr::null_mut(), 0);
            // SAFETY: `value` is a `BigInt64Array`, which lives until this is read.
            let slots = unsafe {
                check(sys::napi_get_typedarray_info(
                    env,
                    value,
                    &mut ty,
                    &mut len,
                    &mut data,
                    &mut buffer,
                    &mut offset,
                ))?;
                match len {
                    0 => &[],
                    _ => std::slice::from_raw_parts(data.cast::<i64>(), len),
                }
            };
            Ok(slots.iter().map(|slot| reference(*slot)).collect())
        };
        self.operate("table", |env| place(env, instance, export), read)
    }

    /// The functions of an instance that references can be of.
    pub(super) fn functions(&self, instance: usize, at: &FunctionsAt) -> Done<Vec<Reference>> {
        match at {
            FunctionsAt::Table(name) => self.table(instance, name),
            FunctionsAt::Globals(names) => {
                let read = |name: &String| match self.global(instance, name, ValType::FUNCREF)? {
                    Value::Ref(reference) => Ok(reference),
                    _ => Err(Failure::Refused(format!("`{name}` holds no reference"))),
                };
                names.iter().map(read).collect()
            }
        }
    }

    /// How many slots a table has, and what is in one of them.
    pub(super) fn slot(
        &self,
        instance: usize,
        export: &str,
        slot: u64,
    ) -> Done<(u64, Option<Reference>)> {
        let args = |env| {
            let mut args = place(env, instance, export)?;
            // SAFETY: `env` is the environment of this thread. No table has as many slots as a
            // double does not count.
            args.push(unsafe { f64::to_napi_value(env, slot as f64)? });
            Ok(args)
        };
        self.operate("slot", args, |env, value| {
            // SAFETY: the value is one of the environment.
            let told = unsafe { Vec::<BigInt>::from_napi_value(env, value)? };
            let [size, rest @ ..] = &told[..] else {
                return Err(unread());
            };
            let slot = rest.first().map(|slot| reference(slot.get_i64().0));
            Ok((size.get_i64().0 as u64, slot))
        })
    }
}

/// What a slot holds, as JavaScript tells it.
fn reference(slot: i64) -> Reference {
    let number = slot >> 3;
    match slot & 7 {
        0 => Reference::Null,
        1 => Reference::Func(number as u64),
        2 => Reference::Extern(number as u32),
        3 => Reference::I31(number as u32 & I31),
        _ => Reference::Object,
    }
}

/// What there is no stack left for.
const EXHAUSTED: &str = "call stack exhausted";

/// The bits of an `i31`.
const I31: u32 = 0x7fff_ffff;

impl Import {
    fn to_js(&self, env: sys::napi_env) -> napi::Result<sys::napi_value> {
        // SAFETY: `env` is the environment of this thread.
        let text = |kind: &str| unsafe { <&str>::to_napi_value(env, kind) };
        // SAFETY: as above.
        let types =
            |types: &[ValType]| unsafe { Vec::<String>::to_napi_value(env, type_names(types)) };
        let parts = match self {
            Import::Host(index, ty) => vec![
                text("host")?,
                number(env, *index)?,
                types(ty.params())?,
                types(ty.results())?,
            ],
            Import::Export(instance, name) => {
                vec![text("export")?, number(env, *instance)?, text(name)?]
            }
            Import::Global(value, ty, mutable, (module, name)) => vec![
                text("global")?,
                // SAFETY: as above.
                unsafe { JsValues::to_napi_value(env, JsValues(vec![*value]))? },
                types(&[*ty])?,
                // SAFETY: as above.
                unsafe { bool::to_napi_value(env, *mutable)? },
                text(module)?,
                text(name)?,
            ],
            Import::Tag(index, (module, name), ty) => vec![
                text("tag")?,
                number(env, *index)?,
                types(ty.params())?,
                text(module)?,
                text(name)?,
            ],
        };
        let mut array = ptr::null_mut();
        // SAFETY: as above, and all values are its own.
        unsafe {
            check(sys::napi_create_array_with_length(
                env,
                parts.len(),
                &mut array,
            ))?;
            for (index, part) in (0..).zip(parts) {
                check(sys::napi_set_element(env, array, index, part))?;
            }
        }
        Ok(array)
    }
}

fn nothing(_: sys::napi_env, _: sys::napi_value) -> napi::Result<()> {
    Ok(())
}

fn number(env: sys::napi_env, number: usize) -> napi::Result<sys::napi_value> {
    // SAFETY: `env` is the environment of this thread.
    unsafe { u32::to_napi_value(env, number as u32) }
}

fn place(env: sys::napi_env, instance: usize, export: &str) -> napi::Result<Vec<sys::napi_value>> {
    // SAFETY: `env` is the environment of this thread.
    let export = unsafe { <&str>::to_napi_value(env, export)? };
    Ok(vec![number(env, instance)?, export])
}

fn element(
    env: sys::napi_env,
    array: sys::napi_value,
    index: u32,
) -> napi::Result<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `array` is a value of this environment.
    check(unsafe { sys::napi_get_element(env, array, index, &mut value) })?;
    Ok(value)
}

/// Values of these types.
fn values(
    env: sys::napi_env,
    value: sys::napi_value,
    types: &[ValType],
) -> napi::Result<Vec<Value>> {
    // SAFETY: `value` is a value of this environment.
    values_of(unsafe { JsValues::from_napi_value(env, value)? }, types)
}

fn values_of(values: JsValues, types: &[ValType]) -> napi::Result<Vec<Value>> {
    with_types(&values, types).ok_or_else(unread)
}

fn unread() -> napi::Error {
    napi::Error::from_reason("values of other types")
}

fn thrown_by_module(thrown: Thrown) -> Exception {
    let number = thrown.number;
    match exception(thrown) {
        TrapReason::Exception(exception) => exception,
        _ => Exception {
            tag: None,
            values: Vec::new(),
            number,
        },
    }
}

/// Why an instruction or an instantiation trapped, in the words of the other engines.
fn reason(message: &str) -> String {
    const MEMORY: &str = "out of bounds memory access";
    const TABLE: &str = "undefined element: out of bounds table access";
    let known = match message {
        "unreachable" => "wasm `unreachable` instruction executed",
        "memory access out of bounds" => MEMORY,
        "divide by zero" | "remainder by zero" => "integer divide by zero",
        "divide result unrepresentable" => "integer overflow",
        "float unrepresentable in integer range" => {
            "integer overflow, or invalid conversion to integer"
        }
        "table index is out of bounds" => TABLE,
        "dereferencing a null pointer" => "null reference",
        "illegal cast" => "cast failure",
        "array element access out of bounds" => "out of bounds array access",
        "operation does not support unaligned accesses" => "unaligned atomic",
        // V8 makes no difference between the two.
        other if other.contains("function signature mismatch") => {
            "uninitialized element, or indirect call type mismatch"
        }
        // Active ones, and what was dropped: how that is told depends on the version.
        other if other.contains("data segment") => MEMORY,
        other if other.contains("element segment") || other.contains("table initializer") => TABLE,
        other => other,
    };
    known.into()
}

/// The calls of WebAssembly in the text that V8 makes of a stack.
fn frames(stack: &str) -> Vec<Frame> {
    stack.lines().filter_map(frame).collect()
}

/// `    at NAME (wasm://wasm/MODULE-HASH:wasm-function[INDEX]:0xOFFSET)`, the name and the module's
/// only where there are any.
fn frame(line: &str) -> Option<Frame> {
    let (before, place) = line
        .trim()
        .strip_prefix("at ")?
        .rsplit_once("wasm://wasm/")?;
    let (url, place) = place.rsplit_once(":wasm-function[")?;
    let (function, offset) = place.trim_end_matches(')').split_once("]:0x")?;
    let name = before
        .trim_end()
        .strip_suffix('(')
        .map(|name| name.trim_end().to_string());
    let module = url.rsplit_once('-').map(|(module, _)| module);
    // V8 writes the module's name before the function's.
    let own = |name: &str| {
        let own = module.and_then(|module| name.strip_prefix(module)?.strip_prefix('.'));
        demangle(own.unwrap_or(name))
    };
    Some(Frame {
        function: function.parse().ok()?,
        name: name.as_deref().map(own),
        module: module.map(Into::into),
        offset: usize::from_str_radix(offset, 16).ok(),
    })
}

/// The worker of this number has ended, or is not to be had.
#[napi(catch_unwind)]
pub fn refuse_engine(number: u32, message: String) {
    if let Some(seat) = Seat::of(number) {
        seat.leave(message);
    }
}
