//! Calls between the thread that runs a module and the thread that runs JavaScript.
//!
//! The module's thread asks ([`ToJs`]) and then serves the JavaScript thread's own requests
//! ([`ToWorker`]) until its question is answered: while a JavaScript function runs, it may want
//! the guest's memory or call one of its exports, which may call JavaScript again. Only one of
//! the two threads ever works while the other waits, so what each sees of the guest's memory is
//! as if there were one thread, and it stays where it is.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use napi::bindgen_prelude::{FromNapiValue, ToNapiValue, TypeName, Unknown, ValidateNapiValue};
use napi::{Either, Env, sys};
use wasmparser::{FuncType, ValType};

use super::{Thrown, engine, import_failed};
use crate::error::{Exception, TrapReason};
use crate::host::interrupt::Interrupt;
use crate::host::{Caller, HostFunction};
use crate::module::val_type_name;
use crate::options::Phase;
use crate::value::{Reference, Value};

/// From the module's thread to JavaScript's.
enum ToJs {
    /// Call the import of this index.
    Call {
        index: u32,
        ty: FuncType,
        args: Vec<Value>,
    },
    /// The run is in this phase now.
    Progress(Phase),
    /// Make the worker of this number, or end it.
    Worker { number: u32, start: bool },
    /// The answer to a [`ToWorker`] request.
    Answer(Answer),
    /// The run is over.
    Done,
}

/// From JavaScript's thread to the module's, while an import is being called.
enum ToWorker {
    /// The import returned, or it failed.
    Return(Result<Vec<Value>, TrapReason>),
    /// Where is this memory?
    Memory(Option<String>),
    /// What is the type of this function?
    Type(Callee),
    /// Call this function.
    Call(Callee, Vec<Value>),
}

/// The texts say what is not there.
enum Answer {
    Memory(Result<Place, String>),
    Type(Result<FuncType, String>),
    Call(Result<Vec<Value>, TrapReason>),
}

/// A function of the instance that calls an import.
#[derive(Clone)]
pub enum Callee {
    /// The export of this name.
    Export(String),
    /// What is in this slot of this table.
    Slot(Option<String>, u64),
}

impl Callee {
    fn ty(&self, guest: &mut dyn Caller) -> Result<FuncType, String> {
        match self {
            Callee::Export(name) => guest
                .function_type(name)
                .ok_or_else(|| format!("the module exports no function `{name}`")),
            Callee::Slot(table, slot) => guest
                .slot_type(table.as_deref(), *slot)
                .map_err(|error| error.to_string()),
        }
    }

    fn call(&self, guest: &mut dyn Caller, args: &[Value]) -> Result<Vec<Value>, TrapReason> {
        match self {
            Callee::Export(name) => guest.call(name, args),
            Callee::Slot(table, slot) => guest.call_indirect(table.as_deref(), *slot, args),
        }
    }
}

/// Where a memory is. Valid until the module's thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    bytes: *mut u8,
    len: usize,
}

impl Place {
    pub fn new(bytes: *mut u8, len: usize) -> Place {
        Place { bytes, len }
    }

    /// Of bytes that are not to be written.
    pub fn of(bytes: &[u8]) -> Place {
        Place::new(bytes.as_ptr().cast_mut(), bytes.len())
    }

    /// # Safety
    ///
    /// The memory has to be there as long, and nobody may write it.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        match self.len {
            0 => &[],
            // SAFETY: passed on to the caller.
            len => unsafe { std::slice::from_raw_parts(self.bytes, len) },
        }
    }

    /// # Safety
    ///
    /// The memory has to be there as long, and nobody else may use it.
    pub unsafe fn bytes_mut<'a>(self) -> &'a mut [u8] {
        match self.len {
            0 => &mut [],
            // SAFETY: passed on to the caller.
            len => unsafe { std::slice::from_raw_parts_mut(self.bytes, len) },
        }
    }
}

// SAFETY: a pointer is only a number until it is used, which happens on the JavaScript thread
// while the module's thread waits.
unsafe impl Send for Place {}

/// Of [`WorkerSide::serving`].
const NO_MORE: u32 = u32::MAX;

/// The module's thread's end.
pub struct WorkerSide {
    to_js: Sender<ToJs>,
    from_js: Mutex<Receiver<ToWorker>>,
    /// The thread-safe function that makes the JavaScript thread look at its messages; null
    /// where that thread is waiting for them anyway.
    wake: AtomicPtr<sys::napi_threadsafe_function__>,
    /// Ends the run.
    interrupt: Arc<Interrupt>,
    /// Whether the process or worker that this is a part of is about to end: JavaScript answers no
    /// more.
    is_ending: AtomicBool,
    /// Whether the run has ended its engine's worker: JavaScript still answers.
    is_stopped: AtomicBool,
    /// How many imports JavaScript is in; [`NO_MORE`] when it is not to begin another.
    serving: AtomicU32,
    /// Held as long as the run or a step of it goes on.
    step: Mutex<()>,
}

impl WorkerSide {
    /// A run or a step of it, until what this gives is dropped: as long, an engine's worker stays, and
    /// with it the module's memory.
    pub fn step(&self) -> MutexGuard<'_, ()> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker that is being ended has nothing to wait for. An import that JavaScript is in may
    /// look at the memory until it has returned, which it does where the run has ended the worker; where
    /// everything ends, it does not go on.
    fn may_leave_call(&self) -> bool {
        if !self.is_stopped.load(Ordering::Relaxed) {
            return true;
        }
        let left = self
            .serving
            .compare_exchange(0, NO_MORE, Ordering::AcqRel, Ordering::Acquire);
        matches!(left, Ok(_) | Err(NO_MORE))
    }

    /// JavaScript is about to call an import, if it may.
    fn begin_serving(&self) -> bool {
        let one_more = |serving| (serving != NO_MORE).then_some(serving + 1);
        self.serving
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    fn end_serving(&self) {
        self.serving.fetch_sub(1, Ordering::AcqRel);
    }

    /// The process or worker is about to end: ends the run, and returns when nobody works on it.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.interrupt.abort();
        drop(self.step());
    }

    /// Tells JavaScript of a new phase. Whether it listens is its own affair.
    pub fn progress(&self, phase: Phase) {
        let _ = self.tell(ToJs::Progress(phase));
    }

    /// Has a worker made that serves [`super::engine`].
    pub fn start_worker(&self, number: u32) -> Result<(), String> {
        let start = true;
        let told = self.tell(ToJs::Worker { number, start });
        told.map_err(|error| error.to_string())
    }

    /// Has it ended, whatever it does.
    pub fn stop_worker(&self, number: u32) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let start = false;
        let _ = self.tell(ToJs::Worker { number, start });
    }

    fn tell(&self, message: ToJs) -> Result<(), TrapReason> {
        let gone = || import_failed("the JavaScript environment is gone");
        self.to_js.send(message).map_err(|_| gone())?;
        let wake = self.wake.load(Ordering::Acquire);
        if wake.is_null() {
            return Ok(());
        }
        // SAFETY: the `Waker` clears the pointer before it releases the function, and it lives
        // until the run is over. The call may be made on any thread.
        let status = unsafe {
            sys::napi_call_threadsafe_function(
                wake,
                ptr::null_mut(),
                sys::ThreadsafeFunctionCallMode::nonblocking,
            )
        };
        match status {
            sys::Status::napi_ok => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Calls an import, and serves what JavaScript wants meanwhile.
    fn call(
        &self,
        guest: &mut dyn Caller,
        index: u32,
        ty: &FuncType,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        self.tell(ToJs::Call {
            index,
            ty: ty.clone(),
            args: args.to_vec(),
        })?;
        loop {
            // The lock is not held while the guest runs: it may call an import again.
            let request = self
                .from_js
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(PULSE);
            let is_over = || {
                self.is_ending.load(Ordering::Relaxed)
                    || (engine::is_ending() && self.may_leave_call())
            };
            let answer = match request {
                Err(RecvTimeoutError::Timeout) if !is_over() => continue,
                Err(_) => return Err(import_failed("the JavaScript environment is gone")),
                Ok(ToWorker::Return(values)) => return values,
                Ok(ToWorker::Memory(name)) => {
                    let memory = guest.memory_and_host(name.as_deref());
                    Answer::Memory(memory.map(|(bytes, _)| Place {
                        bytes: bytes.as_mut_ptr(),
                        len: bytes.len(),
                    }))
                }
                Ok(ToWorker::Type(callee)) => Answer::Type(callee.ty(guest)),
                Ok(ToWorker::Call(callee, args)) => Answer::Call(callee.call(guest, &args)),
            };
            // JavaScript waits for it; no need to wake it.
            if self.to_js.send(ToJs::Answer(answer)).is_err() {
                return Err(import_failed("the JavaScript environment is gone"));
            }
        }
    }
}

/// A function that JavaScript provides.
pub struct JsFunction {
    index: u32,
    worker: Arc<WorkerSide>,
}

impl JsFunction {
    pub fn new(index: u32, worker: Arc<WorkerSide>) -> Self {
        JsFunction { index, worker }
    }
}

impl HostFunction for JsFunction {
    fn call(
        &self,
        guest: &mut dyn Caller,
        ty: &FuncType,
        args: &[Value],
    ) -> Result<Vec<Value>, TrapReason> {
        self.worker.call(guest, self.index, ty, args)
    }
}

/// A view of the guest's memory that JavaScript holds.
struct View {
    name: Option<String>,
    place: Place,
    /// Which of the nested calls of imports it was made for.
    depth: usize,
    /// The array buffer.
    buffer: sys::napi_ref,
    /// The buffer's own bytes, where it is a copy.
    copy: Option<Place>,
}

/// The JavaScript thread's end.
pub struct JsSide {
    env: sys::napi_env,
    /// `dispatch` of index.js, weakly: it knows the run, which has this, so that neither would ever be
    /// collected. While a run or step goes on, its caller has it.
    dispatch: sys::napi_ref,
    from_worker: Receiver<ToJs>,
    /// For the end of a synchronous run.
    to_self: Sender<ToJs>,
    /// Gone when the environment is, so that the module's thread does not wait for it.
    to_worker: RefCell<Option<Sender<ToWorker>>>,
    worker: Arc<WorkerSide>,
    /// Ends the run when the environment goes away.
    interrupt: Arc<Interrupt>,
    /// Whether more steps may follow the one that goes on.
    goes_on: Cell<bool>,
    /// How many bytes JavaScript's collector was told of.
    held: Cell<i64>,
    /// How many imports are being called.
    depth: Cell<usize>,
    views: RefCell<Vec<View>>,
    /// The thread of a synchronous run that nobody waits for any more.
    left: RefCell<Option<JoinHandle<()>>>,
}

/// The two ends of a run's link.
pub fn pair(
    env: sys::napi_env,
    dispatch: sys::napi_value,
    interrupt: Arc<Interrupt>,
) -> napi::Result<(Rc<JsSide>, Arc<WorkerSide>)> {
    let (to_js, from_worker) = channel();
    let (to_worker, from_js) = channel();
    let worker = Arc::new(WorkerSide {
        to_js: to_js.clone(),
        from_js: Mutex::new(from_js),
        wake: AtomicPtr::new(ptr::null_mut()),
        interrupt: Arc::clone(&interrupt),
        is_ending: AtomicBool::new(false),
        is_stopped: AtomicBool::new(false),
        serving: AtomicU32::new(0),
        step: Mutex::default(),
    });
    let js = Rc::new(JsSide {
        env,
        dispatch: reference(env, dispatch, WEAK)?,
        from_worker,
        to_self: to_js,
        to_worker: RefCell::new(Some(to_worker)),
        worker: Arc::clone(&worker),
        interrupt,
        goes_on: Cell::new(false),
        held: Cell::new(0),
        depth: Cell::new(0),
        views: RefCell::default(),
        left: RefCell::default(),
    });
    // SAFETY: the hook is removed when `js` is dropped, and an `Rc` does not move what it holds.
    check(unsafe { sys::napi_add_env_cleanup_hook(env, Some(on_exit), js.hook()) })?;
    Ok((js, worker))
}

impl JsSide {
    /// Does a synchronous run on a thread of its own, and serves it until it is over. Nothing, where
    /// this thread's environment ends before: what the run needs of it ends only when this has returned.
    pub fn run_sync<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<Option<T>> {
        let (done, result) = channel();
        let to_self = self.to_self.clone();
        let worker = Arc::clone(&self.worker);
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn(move || {
            let _step = worker.step();
            let _ = done.send(work());
            let _ = to_self.send(ToJs::Done);
        })?;
        loop {
            match self.from_worker.recv_timeout(PULSE) {
                Ok(ToJs::Done) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(other) => self.serve(other),
                // That of a panic is not sent.
                Err(RecvTimeoutError::Timeout) if thread.is_finished() => break,
                Err(RecvTimeoutError::Timeout) if can_run(self.env) => {}
                // A worker that is being terminated.
                Err(RecvTimeoutError::Timeout) => {
                    self.abandon();
                    *self.left.borrow_mut() = Some(thread);
                    return Ok(None);
                }
            }
        }
        let _ = thread.join();
        Ok(result.try_recv().ok())
    }

    /// Serves what is waiting.
    pub fn serve_waiting(&self) {
        while let Ok(message) = self.from_worker.try_recv() {
            self.serve(message);
        }
    }

    fn serve(&self, message: ToJs) {
        match message {
            ToJs::Call { .. } if !self.worker.begin_serving() => {}
            ToJs::Call { index, ty, args } => {
                self.depth.set(self.depth.get() + 1);
                // The guest may have grown its memory since an outer import looked at it.
                let moved = self.release_moved_views();
                let result = moved
                    .and_then(|()| in_scope(self.env, || self.dispatch_call(index, &ty, args)))
                    .unwrap_or_else(|error| Err(import_failed(&error.to_string())));
                self.release_views(self.depth.get());
                self.depth.set(self.depth.get() - 1);
                self.worker.end_serving();
                self.send(ToWorker::Return(result));
            }
            ToJs::Progress(phase) => {
                // index.js catches what the callback throws.
                let _ = in_scope(self.env, || {
                    let name = string(self.env, phase.name())?;
                    self.call_dispatch(&[name])
                });
            }
            ToJs::Worker { number, start } => {
                let told = in_scope(self.env, || {
                    // SAFETY: `env` is the environment of this thread.
                    let arguments = unsafe {
                        let number = u32::to_napi_value(self.env, number)?;
                        [number, bool::to_napi_value(self.env, start)?]
                    };
                    let why_not = self.call_dispatch(&arguments)?;
                    // SAFETY: as above.
                    unsafe { Option::<String>::from_napi_value(self.env, why_not) }
                });
                let why_not = told.unwrap_or_else(|error| Some(error.to_string()));
                if start {
                    engine::started(number, why_not);
                }
            }
            // Answers are taken where they are waited for.
            ToJs::Answer(_) | ToJs::Done => {}
        }
    }

    /// Calls `dispatch(index, args, params, results)`, which returns the results, or where the
    /// import threw: an exception for the module to catch, or a text.
    fn dispatch_call(
        &self,
        index: u32,
        ty: &FuncType,
        args: Vec<Value>,
    ) -> napi::Result<Result<Vec<Value>, TrapReason>> {
        let env = self.env;
        // SAFETY: `env` is the environment of this thread, and all values are its own.
        let returned = unsafe {
            let arguments = [
                u32::to_napi_value(env, index)?,
                JsValues::to_napi_value(env, JsValues(args))?,
                Vec::<String>::to_napi_value(env, type_names(ty.params()))?,
                Vec::<String>::to_napi_value(env, type_names(ty.results()))?,
            ];
            let returned = self.call_dispatch(&arguments)?;
            let mut is_array = false;
            check(sys::napi_is_array(env, returned, &mut is_array))?;
            match is_array {
                true => Ok(JsValues::from_napi_value(env, returned)?),
                false => Err(Either::<String, Thrown>::from_napi_value(env, returned)?),
            }
        };
        Ok(match returned {
            Ok(values) => with_types(&values, ty.results())
                .ok_or_else(|| import_failed("an import returned values of other types")),
            Err(Either::A(message)) => Err(import_failed(&message)),
            Err(Either::B(thrown)) => Err(exception(thrown)),
        })
    }

    fn call_dispatch(&self, arguments: &[sys::napi_value]) -> napi::Result<sys::napi_value> {
        let env = self.env;
        let mut dispatch = ptr::null_mut();
        let mut this = ptr::null_mut();
        let mut returned = ptr::null_mut();
        // SAFETY: the reference was made in this environment and lives as long as `self`. What it
        // gives is checked: it may be nothing.
        unsafe {
            check(sys::napi_get_reference_value(
                env,
                self.dispatch,
                &mut dispatch,
            ))?;
            if dispatch.is_null() {
                return Err(napi::Error::from_reason("nobody waits for the run"));
            }
            check(sys::napi_get_undefined(env, &mut this))?;
            check(sys::napi_call_function(
                env,
                this,
                dispatch,
                arguments.len(),
                arguments.as_ptr(),
                &mut returned,
            ))?;
        }
        Ok(returned)
    }

    fn send(&self, message: ToWorker) {
        if let Some(to_worker) = &*self.to_worker.borrow() {
            let _ = to_worker.send(message);
        }
    }

    /// Asks the module's thread, and serves it until the answer comes.
    fn ask(&self, message: ToWorker) -> napi::Result<Answer> {
        if self.depth.get() == 0 {
            return Err(only_while_calling());
        }
        let over = || Err(napi::Error::from_reason("the run is over"));
        if self.to_worker.borrow().is_none() {
            return over();
        }
        self.send(message);
        loop {
            match self.from_worker.recv_timeout(PULSE) {
                Ok(ToJs::Answer(answer)) => return Ok(answer),
                Ok(other) => self.serve(other),
                Err(_) if self.worker.is_ending.load(Ordering::Relaxed) => return over(),
                Err(RecvTimeoutError::Timeout) if can_run(self.env) => {}
                Err(_) => {
                    self.abandon();
                    return over();
                }
            }
        }
    }

    fn place(&self, name: Option<String>) -> napi::Result<Place> {
        match self.ask(ToWorker::Memory(name))? {
            Answer::Memory(place) => place.map_err(napi::Error::from_reason),
            _ => Err(napi::Error::from_reason("an answer to another question")),
        }
    }

    /// The bytes of a memory, as an array buffer.
    pub fn memory<'e>(&self, env: &'e Env, name: Option<String>) -> napi::Result<Unknown<'e>> {
        let place = self.place(name.clone())?;
        let raw = env.raw();
        let held = self.views.borrow();
        // By whichever name: a copy could not be written back beside another.
        let is_same = |v: &&View| v.place == place && (v.name == name || place.len > 0);
        let buffer = match held.iter().find(is_same) {
            Some(view) => {
                let mut buffer = ptr::null_mut();
                // SAFETY: the reference was made in this environment and is still held.
                check(unsafe { sys::napi_get_reference_value(raw, view.buffer, &mut buffer) })?;
                buffer
            }
            None => {
                drop(held);
                let (buffer, copy) = array_buffer(raw, place)?;
                self.views.borrow_mut().push(View {
                    name,
                    place,
                    depth: self.depth.get(),
                    buffer: reference(raw, buffer, STRONG)?,
                    copy,
                });
                buffer
            }
        };
        // SAFETY: `buffer` is a value of this environment.
        unsafe { Unknown::from_napi_value(raw, buffer) }
    }

    pub fn function_type(&self, callee: Callee) -> napi::Result<FuncType> {
        match self.ask(ToWorker::Type(callee))? {
            Answer::Type(ty) => ty.map_err(napi::Error::from_reason),
            _ => Err(napi::Error::from_reason("an answer to another question")),
        }
    }

    /// Calls a function, with arguments that fit its type.
    pub fn call(
        &self,
        callee: Callee,
        args: JsValues,
    ) -> napi::Result<Result<JsValues, TrapReason>> {
        let ty = self.function_type(callee.clone())?;
        let Some(args) = with_types(&args, ty.params()) else {
            return Ok(Err(import_failed("the arguments do not fit the function")));
        };
        self.write_copies_back();
        let answer = self.ask(ToWorker::Call(callee, args))?;
        self.release_moved_views()?;
        match answer {
            Answer::Call(Ok(values)) => Ok(Ok(JsValues(values))),
            Answer::Call(Err(reason)) => Ok(Err(reason)),
            _ => Err(napi::Error::from_reason("an answer to another question")),
        }
    }

    /// Passes on what JavaScript wrote into copies of the memory.
    fn write_copies_back(&self) {
        for view in &*self.views.borrow() {
            if let Some(copy) = view.copy {
                // SAFETY: both are `place.len` long and apart; the module's thread waits, and
                // the memory has not moved since `place` was asked for.
                unsafe { ptr::copy_nonoverlapping(copy.bytes, view.place.bytes, view.place.len) }
            }
        }
    }

    /// Takes the views away from JavaScript that imports of this depth and below made: the
    /// memory is the module's again.
    fn release_views(&self, depth: usize) {
        self.write_copies_back();
        self.views.borrow_mut().retain(|view| {
            let keep = view.depth < depth;
            if !keep {
                detach(self.env, view.buffer);
            }
            keep
        });
    }

    /// Takes away the views of memories that grew or moved, as growing detaches a memory's
    /// buffer in JavaScript; and copies, which are out of date.
    fn release_moved_views(&self) -> napi::Result<()> {
        let names: Vec<_> = self.views.borrow().iter().map(|v| v.name.clone()).collect();
        for name in names {
            // Another module may be calling than the one whose memory it was.
            let place = self.place(name.clone()).ok();
            self.views.borrow_mut().retain(|view| {
                let keep = view.name != name || (Some(view.place) == place && view.copy.is_none());
                if !keep {
                    detach(self.env, view.buffer);
                }
                keep
            });
        }
        Ok(())
    }

    /// What the hook for the environment's end is given.
    fn hook(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The environment is going away: ends the run.
    pub fn abandon(&self) {
        // What the process still does must not see memory that goes with the run.
        self.release_views(0);
        self.interrupt.abort();
        self.close();
    }

    /// Tells JavaScript's collector how much memory goes with the run, or it would not look for runs
    /// that were dropped before there are thousands of them.
    pub fn holds(&self, bytes: i64) {
        let change = bytes - self.held.replace(bytes);
        let mut total = 0;
        // SAFETY: `env` is the environment of this thread. Without the hint, all goes on.
        unsafe { sys::napi_adjust_external_memory(self.env, change, &mut total) };
    }

    /// This is a session, of which more steps may follow.
    pub fn goes_on(&self) {
        self.goes_on.set(true);
    }

    /// Nobody is to wait for JavaScript any more.
    fn close(&self) {
        self.to_worker.borrow_mut().take();
    }
}

impl Drop for JsSide {
    fn drop(&mut self) {
        self.holds(0);
        // SAFETY: made in this environment, and deleted once, on its thread. Removing a hook that
        // has run already does nothing.
        unsafe {
            sys::napi_remove_env_cleanup_hook(self.env, Some(on_exit), self.hook());
            sys::napi_delete_reference(self.env, self.dispatch);
        }
    }
}

/// Lets the module's thread reach the JavaScript thread while that goes about its business.
pub struct Waker {
    function: sys::napi_threadsafe_function,
    worker: Arc<WorkerSide>,
    pulse: Option<Pulse>,
}

// SAFETY: a thread-safe function may be released on any thread.
unsafe impl Send for Waker {}

impl Waker {
    /// With `pulse`, the run also ends when JavaScript is stopped, as it is when a worker is
    /// terminated. Node says so only when its thread pool has nothing more to do.
    pub fn new(env: sys::napi_env, js: &Rc<JsSide>, pulse: bool) -> napi::Result<Waker> {
        let mut function = ptr::null_mut();
        let name = string(env, "wizer")?;
        let context = Rc::into_raw(Rc::clone(js)) as *mut c_void;
        // SAFETY: `context` is a strong reference, which `finalize` gives back.
        let status = unsafe {
            sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                ptr::null_mut(),
                name,
                0,
                1,
                context,
                Some(finalize),
                context,
                Some(on_wake),
                &mut function,
            )
        };
        if status != sys::Status::napi_ok {
            // SAFETY: `context` came from `Rc::into_raw` above and was not taken over.
            drop(unsafe { Rc::from_raw(context as *const JsSide) });
            check(status)?;
        }
        js.worker.wake.store(function, Ordering::Release);
        let mut waker = Waker {
            function,
            worker: Arc::clone(&js.worker),
            pulse: None,
        };
        if pulse {
            waker.pulse = Some(Pulse::new(function)?);
        }
        Ok(waker)
    }
}

impl Waker {
    /// See [`WorkerSide::step`].
    pub fn step(&self) -> MutexGuard<'_, ()> {
        self.worker.step()
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.pulse.take();
        self.worker.wake.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: released once; nothing calls it any more.
        unsafe {
            sys::napi_release_threadsafe_function(
                self.function,
                sys::ThreadsafeFunctionReleaseMode::release,
            )
        };
    }
}

/// Wakes the JavaScript thread again and again, so that it notices its own end: while Node waits
/// for its thread pool, it serves thread-safe functions and nothing else of ours.
struct Pulse {
    /// Dropped when it is to stop.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How long a stopped worker may go unnoticed.
const PULSE: Duration = Duration::from_millis(100);

impl Pulse {
    fn new(function: sys::napi_threadsafe_function) -> napi::Result<Pulse> {
        /// A thread-safe function, on its way to another thread.
        struct Shared(sys::napi_threadsafe_function);
        // SAFETY: that is what it is for.
        unsafe impl Send for Shared {}

        let (stop, stopped) = channel::<()>();
        let shared = Shared(function);
        let thread = std::thread::Builder::new()
            .name("wizer-pulse".into())
            .spawn(move || {
                let Shared(function) = { shared };
                while stopped.recv_timeout(PULSE) == Err(RecvTimeoutError::Timeout) {
                    // SAFETY: the `Waker` releases the function after this thread's end.
                    let status = unsafe {
                        sys::napi_call_threadsafe_function(
                            function,
                            ptr::null_mut(),
                            sys::ThreadsafeFunctionCallMode::nonblocking,
                        )
                    };
                    if status != sys::Status::napi_ok {
                        return;
                    }
                }
            })
            .map_err(|e| napi::Error::from_reason(format!("no thread to watch the worker: {e}")))?;
        Ok(Pulse {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether JavaScript can run: not while its environment is being ended.
pub(super) fn can_run(env: sys::napi_env) -> bool {
    in_scope(env, || {
        let mut text = ptr::null_mut();
        // Of the calls that could run JavaScript, and are refused then, one that is cheap.
        // SAFETY: `env` is the environment of this thread.
        check(unsafe { sys::napi_coerce_to_string(env, string(env, "")?, &mut text) })
    })
    .is_ok()
}

/// Called on the JavaScript thread when its environment ends: the process or worker is to exit,
/// and a run that goes on would keep it.
unsafe extern "C" fn on_exit(js: *mut c_void) {
    // SAFETY: the hook is removed before the `JsSide` is dropped.
    let js = unsafe { &*(js as *const JsSide) };
    js.abandon();
    // Workers of this environment have ended by now, and with them what it waited for.
    if let Some(thread) = js.left.take() {
        let _ = thread.join();
    }
}

/// Called on the JavaScript thread for each wake.
unsafe extern "C" fn on_wake(
    env: sys::napi_env,
    _function: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    // SAFETY: the function holds a strong reference until `finalize`.
    let js = unsafe { &*(context as *const JsSide) };
    if env.is_null() || !can_run(env) {
        return js.abandon();
    }
    // A panic must not leave a function that C++ calls. Closing ends the run with an error.
    if catch_unwind(AssertUnwindSafe(|| js.serve_waiting())).is_err() {
        js.close();
    }
}

/// Called on the JavaScript thread when the thread-safe function is gone.
unsafe extern "C" fn finalize(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `data` is what `Rc::into_raw` gave in `Waker::new`, and this is called once.
    let js = unsafe { Rc::from_raw(data as *const JsSide) };
    if !js.goes_on.get() {
        js.close();
    }
}

/// Values on their way from or to JavaScript: numbers, BigInts, and `null` for null references.
/// Functions travel as BigInts; host references and objects as strings, of a letter and a number.
pub struct JsValues(pub Vec<Value>);

impl TypeName for JsValues {
    fn type_name() -> &'static str {
        "Array"
    }

    fn value_type() -> napi::ValueType {
        napi::ValueType::Object
    }
}

impl ValidateNapiValue for JsValues {}

impl ToNapiValue for JsValues {
    unsafe fn to_napi_value(
        env: sys::napi_env,
        JsValues(values): Self,
    ) -> napi::Result<sys::napi_value> {
        let mut array = ptr::null_mut();
        // SAFETY: the caller passes the environment of this thread.
        unsafe {
            check(sys::napi_create_array_with_length(
                env,
                values.len(),
                &mut array,
            ))?;
            for (index, value) in (0..).zip(values) {
                let mut js = ptr::null_mut();
                check(match value {
                    Value::I32(v) => sys::napi_create_int32(env, v, &mut js),
                    Value::I64(v) => sys::napi_create_bigint_int64(env, v, &mut js),
                    Value::F32(bits) => {
                        sys::napi_create_double(env, f32::from_bits(bits).into(), &mut js)
                    }
                    Value::F64(bits) => sys::napi_create_double(env, f64::from_bits(bits), &mut js),
                    Value::Ref(Reference::Null) => sys::napi_get_null(env, &mut js),
                    Value::Ref(Reference::Extern(number)) => {
                        js = string(env, &format!("{EXTERN}{number}"))?;
                        sys::Status::napi_ok
                    }
                    // index.js makes an opaque handle of it.
                    Value::Ref(Reference::Func(number)) => {
                        sys::napi_create_bigint_uint64(env, number, &mut js)
                    }
                    Value::Ref(Reference::Handle(number)) => {
                        js = string(env, &format!("{HANDLE}{number}"))?;
                        sys::Status::napi_ok
                    }
                    Value::Ref(Reference::I31(bits)) => {
                        sys::napi_create_int32(env, (bits << 1) as i32 >> 1, &mut js)
                    }
                    // JavaScript has no value for it; index.js says so by the types.
                    Value::V128(_) | Value::Ref(_) => sys::napi_get_undefined(env, &mut js),
                })?;
                check(sys::napi_set_element(env, array, index, js))?;
            }
        }
        Ok(array)
    }
}

impl FromNapiValue for JsValues {
    unsafe fn from_napi_value(env: sys::napi_env, array: sys::napi_value) -> napi::Result<Self> {
        let mut len = 0;
        let mut values = Vec::new();
        // SAFETY: the caller passes the environment of this thread and a value of it.
        unsafe {
            check(sys::napi_get_array_length(env, array, &mut len))?;
            for index in 0..len {
                let mut js = ptr::null_mut();
                let mut ty = 0;
                check(sys::napi_get_element(env, array, index, &mut js))?;
                check(sys::napi_typeof(env, js, &mut ty))?;
                values.push(match ty {
                    sys::ValueType::napi_bigint => {
                        let (mut value, mut lossless) = (0, false);
                        check(sys::napi_get_value_bigint_int64(
                            env,
                            js,
                            &mut value,
                            &mut lossless,
                        ))?;
                        Value::I64(value)
                    }
                    sys::ValueType::napi_number => {
                        let mut value = 0.0;
                        check(sys::napi_get_value_double(env, js, &mut value))?;
                        Value::F64(value.to_bits())
                    }
                    sys::ValueType::napi_string => {
                        let text = String::from_napi_value(env, js)?;
                        let of = |kind: char| text.strip_prefix(kind)?.parse().ok();
                        let host = of(EXTERN).map(Reference::Extern);
                        let reference = host.or_else(|| of(HANDLE).map(Reference::Handle));
                        Value::Ref(reference.ok_or_else(|| {
                            napi::Error::from_reason("a reference that index.js did not give")
                        })?)
                    }
                    _ => Value::Ref(Reference::Null),
                });
            }
        }
        Ok(JsValues(values))
    }
}

/// How a reference of the host begins, by the number that index.js gave it.
const EXTERN: char = 'e';

/// How an object begins that was handed out.
const HANDLE: char = 'h';

/// The bits of an `i31`.
const I31: u32 = 0x7fff_ffff;

/// Values that index.js has converted for these types.
pub fn with_types(JsValues(values): &JsValues, types: &[ValType]) -> Option<Vec<Value>> {
    let typed = values.iter().zip(types);
    let typed = typed.map(|(value, ty)| with_type(*value, *ty));
    (values.len() == types.len()).then(|| typed.collect())?
}

/// A value that index.js has converted for this type. A number of JavaScript may stand for
/// several types.
fn with_type(value: Value, ty: ValType) -> Option<Value> {
    Some(match (value, ty) {
        (Value::F64(bits), ValType::I32) => Value::I32(f64::from_bits(bits) as i32),
        (Value::F64(bits), ValType::F32) => (f64::from_bits(bits) as f32).into(),
        (Value::F64(bits), ValType::F64) => Value::F64(bits),
        (Value::I64(value), ValType::I64) => Value::I64(value),
        (Value::F64(bits), ValType::Ref(_)) => {
            Value::Ref(Reference::I31(f64::from_bits(bits) as i32 as u32 & I31))
        }
        (Value::I64(number), ValType::Ref(ty)) if !ty.is_extern_ref() => {
            Value::Ref(Reference::Func(number as u64))
        }
        (Value::Ref(Reference::Null), ValType::Ref(ty)) if ty.is_nullable() => value,
        (Value::Ref(Reference::Handle(_) | Reference::Extern(_)), ValType::Ref(_)) => value,
        _ => return None,
    })
}

/// An exception: by its number, or of a tag whose types index.js knows.
pub(super) fn exception(thrown: Thrown) -> TrapReason {
    let types = thrown.params.iter().flatten().map(|ty| {
        Some(match ty.as_str() {
            "i32" => ValType::I32,
            "i64" => ValType::I64,
            "f32" => ValType::F32,
            "f64" => ValType::F64,
            "externref" => ValType::EXTERNREF,
            _ => return None,
        })
    });
    let types = types.collect::<Option<Vec<_>>>();
    let values = thrown.values.unwrap_or(JsValues(Vec::new()));
    match types.and_then(|types| with_types(&values, &types)) {
        Some(values) => TrapReason::Exception(Exception {
            tag: thrown.module.zip(thrown.name),
            values,
            number: thrown.number,
        }),
        None => import_failed("an import threw an exception of other types"),
    }
}

/// The names of value types as index.js knows them.
pub fn type_names(types: &[ValType]) -> Vec<String> {
    types.iter().map(|ty| val_type_name(*ty)).collect()
}

/// An array buffer over foreign bytes; where such buffers are banned, a copy of them.
pub(super) fn array_buffer(
    env: sys::napi_env,
    place: Place,
) -> napi::Result<(sys::napi_value, Option<Place>)> {
    unsafe extern "C" fn nothing(_: sys::napi_env, _: *mut c_void, _: *mut c_void) {}
    let mut buffer = ptr::null_mut();
    // SAFETY: the bytes stay where they are until the buffer is detached, see `release_views`.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env,
            place.bytes.cast(),
            place.len,
            Some(nothing),
            ptr::null_mut(),
            &mut buffer,
        )
    };
    if status == sys::Status::napi_ok {
        return Ok((buffer, None));
    }
    let mut bytes = ptr::null_mut();
    // SAFETY: a new buffer of the same length; the module's thread waits while it is filled.
    unsafe {
        check(sys::napi_create_arraybuffer(
            env,
            place.len,
            &mut bytes,
            &mut buffer,
        ))?;
        ptr::copy_nonoverlapping(place.bytes, bytes.cast(), place.len);
    }
    let copy = Place {
        bytes: bytes.cast(),
        len: place.len,
    };
    Ok((buffer, Some(copy)))
}

/// Detaches an array buffer, and lets go of it.
pub(super) fn detach(env: sys::napi_env, reference: sys::napi_ref) {
    let _ = in_scope(env, || {
        let mut buffer = ptr::null_mut();
        // SAFETY: the reference was made in this environment and is deleted once.
        unsafe {
            check(sys::napi_get_reference_value(env, reference, &mut buffer))?;
            check(sys::napi_detach_arraybuffer(env, buffer))?;
            check(sys::napi_delete_reference(env, reference))
        }
    });
}

/// Frees the values that `work` makes.
pub(super) fn in_scope<T>(
    env: sys::napi_env,
    work: impl FnOnce() -> napi::Result<T>,
) -> napi::Result<T> {
    let mut scope = ptr::null_mut();
    // SAFETY: the scope is closed on every way out; `work` returns no JavaScript values.
    unsafe {
        check(sys::napi_open_handle_scope(env, &mut scope))?;
        let result = work();
        sys::napi_close_handle_scope(env, scope);
        result
    }
}

/// The error of who uses an instance at another time.
pub fn only_while_calling() -> napi::Error {
    napi::Error::from_reason("the instance can be used only while it calls an import")
}

/// How many times a reference counts: whether it keeps its value from being collected.
const WEAK: u32 = 0;
const STRONG: u32 = 1;

fn reference(
    env: sys::napi_env,
    value: sys::napi_value,
    count: u32,
) -> napi::Result<sys::napi_ref> {
    let mut reference = ptr::null_mut();
    // SAFETY: `value` is a value of `env`, on its thread.
    check(unsafe { sys::napi_create_reference(env, value, count, &mut reference) })?;
    Ok(reference)
}

fn string(env: sys::napi_env, text: &str) -> napi::Result<sys::napi_value> {
    // SAFETY: `env` is the environment of this thread.
    unsafe { <&str>::to_napi_value(env, text) }
}

pub(super) fn check(status: sys::napi_status) -> napi::Result<()> {
    match status {
        sys::Status::napi_ok => Ok(()),
        other => Err(napi::Error::new(
            napi::Status::from(other),
            "a call of Node-API failed",
        )),
    }
}
