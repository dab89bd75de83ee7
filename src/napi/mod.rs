//! The door to JavaScript: converts, and passes on.
//!
//! `index.js` checks what only JavaScript can check and hands over plain values; the options
//! come as JSON, so that one description of them ([`options::Given`]) also refuses what is
//! misspelt. Results and errors go back as plain values too, and `index.js` makes promises and
//! error classes of them.

mod engine;
mod link;
mod options;
mod session;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use napi::bindgen_prelude::{AsyncTask, BigInt, Buffer, Env, Function, Uint8Array, Unknown};
use napi::{JsValue, Task};
use napi_derive::napi;

use crate::error::{Error, Exception, TrapReason};
use crate::host::interrupt::Interrupt;
use crate::options::{Import, Options};
use crate::wizer::{Failure, Outcome, Wizer};
use engine::Workers;
use link::{JsFunction, JsSide, JsValues, Waker};
use session::{Slot, Step, StepTask};

/// Runs the command line in this process, and returns its exit status. `dispatch` makes workers.
#[napi]
pub fn cli(
    env: Env,
    args: Vec<String>,
    dispatch: Function<'_, (), Unknown<'_>>,
) -> napi::Result<u8> {
    let interrupt = Arc::new(Interrupt::default());
    let (js, worker) = link::pair(env.raw(), dispatch.raw(), interrupt)?;
    let run = move || {
        let engine = Arc::new(Workers::new(worker));
        let run = || crate::cli::run_with(args, Some(engine));
        catch_unwind(AssertUnwindSafe(run)).unwrap_or(1)
    };
    Ok(js.run_sync("wizer-cli", run)?.unwrap_or(1))
}

/// What is given besides the options: bytes, which JSON cannot carry.
#[napi(object, object_to_js = false)]
pub struct Contents {
    pub items: Vec<ImportItem>,
    pub stdin: Option<Uint8Array>,
    pub files: Vec<NamedBytes>,
    pub preload: Vec<NamedBytes>,
}

/// A file or module, by name.
#[napi(object, object_to_js = false)]
pub struct NamedBytes {
    pub name: String,
    pub bytes: Uint8Array,
}

/// Something that is provided, by the names under which modules import it.
#[napi(object, object_to_js = false)]
pub struct ImportItem {
    pub module: String,
    pub name: String,
    /// `memory`, `table`, `global`, `tag`, `function` or `value`.
    pub kind: String,
    /// Its size in pages or slots; a memory's is that of its contents by default.
    pub size: Option<f64>,
    pub maximum: Option<f64>,
    pub contents: Option<Uint8Array>,
    /// A global's value, alone.
    pub value: Option<JsValues>,
    /// What a global of host references holds, alone.
    pub reference: Option<JsValues>,
    /// What it was made as, where that is known: the type of a global or of a table's elements,
    /// whether a global is mutable, a memory shared, and whether addresses have 64 bits.
    pub ty: Option<String>,
    pub mutable: Option<bool>,
    pub shared: Option<bool>,
    pub is_64: Option<bool>,
    /// The types of a tag's parameters, where they are known.
    pub params: Option<Vec<String>>,
}

/// A function that is provided, by the names under which modules import it.
#[napi(object, object_to_js = false)]
pub struct ImportName {
    pub module: String,
    pub name: String,
}

/// The end of a run: either `wasm` and `report` are there, or `error`. Of a call, `values`; of a look
/// into a memory, `bytes`.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct Settled {
    pub wasm: Option<Buffer>,
    /// JSON.
    pub report: Option<String>,
    pub stdout: Option<Buffer>,
    pub stderr: Option<Buffer>,
    pub error: Option<NativeError>,
    pub values: Option<JsValues>,
    pub bytes: Option<Buffer>,
}

/// An error, in plain values.
#[napi(object, object_from_js = false)]
pub struct NativeError {
    pub code: String,
    pub message: String,
    /// The frames of the module's code, innermost first, where there are some.
    pub wasm_backtrace: Option<Vec<String>>,
    /// The exception that nothing caught, if it was one.
    pub exception: Option<Thrown>,
}

/// Why a call of an export failed.
#[napi(object, object_from_js = false)]
pub struct CallFailure {
    pub code: String,
    pub message: String,
    /// The exception that the module threw, if it was one.
    pub exception: Option<Thrown>,
}

/// An exception: of the module, by its number, or of a tag that is provided, by the names of that.
#[napi(object)]
pub struct Thrown {
    pub number: Option<u32>,
    pub module: Option<String>,
    pub name: Option<String>,
    /// The types of the values, where index.js gives them.
    pub params: Option<Vec<String>>,
    pub values: Option<JsValues>,
}

/// A function that is called: an export, or what is in a slot of a table.
#[napi(object, object_to_js = false)]
pub struct Callee {
    pub export: Option<String>,
    pub table: Option<String>,
    pub slot: Option<BigInt>,
}

impl From<Callee> for link::Callee {
    fn from(callee: Callee) -> Self {
        match (callee.export, callee.slot) {
            (Some(export), _) => link::Callee::Export(export),
            // index.js gives one of the two.
            (None, slot) => link::Callee::Slot(callee.table, slot.map_or(0, |s| s.get_u64().1)),
        }
    }
}

/// The type of a function, by names of value types.
#[napi(object, object_from_js = false)]
pub struct FunctionType {
    pub params: Vec<String>,
    pub results: Vec<String>,
}

/// What a session takes besides its modules, roughly: a store with its stacks and tables, and where
/// JavaScript's engine runs it, a worker.
const SESSION_BYTES: i64 = 256 << 10;
const WORKER_BYTES: i64 = 10 << 20;

/// One run, from JavaScript's side.
#[napi]
pub struct Run {
    /// Until it is over: the object may be collected long after.
    live: RefCell<Option<Live>>,
    interrupt: Arc<Interrupt>,
    session: Slot,
}

/// What a run takes as long as it goes on.
struct Live {
    options: Options,
    js: Rc<JsSide>,
}

#[napi]
impl Run {
    /// Prepares a run. `dispatch` is called for every call of an import and every phase.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: Env,
        given: String,
        contents: Contents,
        imports: Vec<ImportName>,
        dispatch: Function<'_, (), Unknown<'_>>,
    ) -> napi::Result<Run> {
        let (mut options, progress) = options::read(&given, contents)
            .map_err(|error| napi::Error::new(napi::Status::InvalidArg, error.to_string()))?;
        let interrupt = Arc::new(Interrupt::default());
        let (js, worker) = link::pair(env.raw(), dispatch.raw(), Arc::clone(&interrupt))?;
        for (index, import) in (0..).zip(imports) {
            options.imports.push(Import {
                module: import.module,
                name: import.name,
                function: Arc::new(JsFunction::new(index, Arc::clone(&worker))),
            });
        }
        options.host_engine = Some(Arc::new(Workers::new(Arc::clone(&worker))));
        options.interrupt = Some(interrupt.clone());
        if progress {
            options.progress = Some(Arc::new(move |phase| worker.progress(phase)));
        }
        Ok(Run {
            live: RefCell::new(Some(Live { options, js })),
            interrupt,
            session: Slot::default(),
        })
    }

    /// Opens a session on the thread pool. This and each further step is awaited before the next.
    #[napi(catch_unwind)]
    pub fn open(
        &self,
        env: Env,
        wasm: Uint8Array,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let wizer = Box::new(self.wizer()?);
        let worker = match self.prepare(&wasm, true)? {
            true => WORKER_BYTES,
            false => 0,
        };
        self.js()?
            .holds(SESSION_BYTES + worker + 4 * wasm.len() as i64);
        self.step(env, Step::Open(wizer, wasm.to_vec()), in_worker)
    }

    /// Calls an export of the session.
    #[napi(catch_unwind)]
    pub fn call_export(
        &self,
        env: Env,
        name: String,
        args: JsValues,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let ty = session.as_ref().and_then(|s| s.function_type(&name));
        let args = ty.and_then(|ty| link::with_types(&args, ty.params()));
        drop(session);
        let misfit = || napi::Error::from_reason("the arguments do not fit the function");
        self.step(env, Step::Call(name, args.ok_or_else(misfit)?), in_worker)
    }

    /// Calls what is in a slot of a table of the session.
    #[napi(catch_unwind)]
    pub fn call_slot(
        &self,
        env: Env,
        table: Option<String>,
        slot: BigInt,
        args: JsValues,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let slot = slot.get_u64().1;
        let ty = self.type_in_slot(table.as_deref(), slot)?;
        let args = link::with_types(&args, ty.params());
        let misfit = || napi::Error::from_reason("the arguments do not fit the function");
        let step = Step::CallIndirect(table, slot, args.ok_or_else(misfit)?);
        self.step(env, step, in_worker)
    }

    /// The type of a function in a slot of a table of the session. An error says what is not there.
    /// Not while a step goes on.
    #[napi(catch_unwind)]
    pub fn slot_type(&self, table: Option<String>, slot: BigInt) -> napi::Result<FunctionType> {
        Ok((&self.type_in_slot(table.as_deref(), slot.get_u64().1)?).into())
    }

    fn type_in_slot(&self, table: Option<&str>, slot: u64) -> napi::Result<wasmparser::FuncType> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.as_mut();
        let session = session.ok_or_else(|| napi::Error::from_reason("the session is closed"))?;
        let ty = session.slot_type(table, slot);
        ty.map_err(|error| napi::Error::from_reason(error.to_string()))
    }

    /// How many bytes a memory of the session has.
    #[napi(catch_unwind)]
    pub fn memory_size(
        &self,
        env: Env,
        name: Option<String>,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::MemorySize(name), in_worker)
    }

    /// Reads as many bytes of a memory of the session, or those up to the first that is 0.
    #[napi(catch_unwind)]
    pub fn read_memory(
        &self,
        env: Env,
        name: Option<String>,
        address: BigInt,
        length: Option<BigInt>,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let length = length.map(|length| length.get_u64().1);
        let step = Step::ReadMemory(name, address.get_u64().1, length);
        self.step(env, step, in_worker)
    }

    /// Writes bytes into a memory of the session.
    #[napi(catch_unwind)]
    pub fn write_memory(
        &self,
        env: Env,
        name: Option<String>,
        address: BigInt,
        bytes: Uint8Array,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let step = Step::WriteMemory(name, address.get_u64().1, bytes.to_vec());
        self.step(env, step, in_worker)
    }

    /// Calls an export of a module beside the session's.
    #[napi(catch_unwind)]
    pub fn call_beside(
        &self,
        env: Env,
        module: String,
        name: String,
        args: JsValues,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        let ty = self.type_beside(&module, &name);
        let args = ty.and_then(|ty| link::with_types(&args, ty.params()));
        let misfit = || napi::Error::from_reason("the arguments do not fit the function");
        let step = Step::CallBeside(module, name, args.ok_or_else(misfit)?);
        self.step(env, step, in_worker)
    }

    /// The type of a function that a module beside the session's exports, or nothing where there
    /// is no such function. Not while a step goes on.
    #[napi(catch_unwind)]
    pub fn beside_type(&self, module: String, name: String) -> Option<FunctionType> {
        Some((&self.type_beside(&module, &name)?).into())
    }

    fn type_beside(&self, module: &str, name: &str) -> Option<wasmparser::FuncType> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref()?.function_type_beside(module, name)
    }

    /// Reads an exported global of the session's module.
    #[napi(catch_unwind)]
    pub fn read_global(
        &self,
        env: Env,
        name: String,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::Global(name), in_worker)
    }

    /// Lets other modules of the session import its module's exports.
    #[napi(catch_unwind)]
    pub fn register(
        &self,
        env: Env,
        name: String,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::Register(name), in_worker)
    }

    /// Instantiates one module more in the session.
    #[napi(catch_unwind)]
    pub fn instantiate(
        &self,
        env: Env,
        name: String,
        wasm: Uint8Array,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::Instantiate(name, wasm.to_vec()), in_worker)
    }

    /// Writes the session's module as it is.
    #[napi(catch_unwind)]
    pub fn write(&self, env: Env, in_worker: bool) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::Snapshot, in_worker)
    }

    /// Ends the session.
    #[napi(catch_unwind)]
    pub fn close(&self, env: Env, in_worker: bool) -> napi::Result<AsyncTask<StepTask>> {
        self.step(env, Step::Close, in_worker)
    }

    /// The type of a function that the session's module exports, or nothing where there is no
    /// such function. Not while a step goes on.
    #[napi(catch_unwind)]
    pub fn export_type(&self, name: String) -> Option<FunctionType> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        Some(session.as_ref()?.function_type(&name)?.into())
    }

    /// The type of a global that the session's module exports, or nothing where there is none.
    /// Not while a step goes on.
    #[napi(catch_unwind)]
    pub fn global_type(&self, name: String) -> Option<String> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let ty = session.as_ref()?.global_type(&name)?;
        link::type_names(&[ty]).pop()
    }

    fn js(&self) -> napi::Result<Rc<JsSide>> {
        let js = self.live.borrow().as_ref().map(|live| Rc::clone(&live.js));
        js.ok_or_else(link::only_while_calling)
    }

    fn wizer(&self) -> napi::Result<SendWizer> {
        let live = self.live.borrow();
        let options = live.as_ref().map(|live| live.options.clone());
        let options = options.ok_or_else(link::only_while_calling)?;
        Ok(SendWizer(Wizer::with_options(options)))
    }

    /// Has what will be needed made by JavaScript while it is on this thread: later it may be busy.
    fn prepare(&self, wasm: &[u8], goes_on: bool) -> napi::Result<bool> {
        let live = self.live.borrow();
        let live = live.as_ref().ok_or_else(link::only_while_calling)?;
        let is_prepared = crate::engine::tier::prepare(&live.options, wasm.len(), goes_on);
        live.js.serve_waiting();
        Ok(is_prepared)
    }

    fn step(&self, env: Env, step: Step, in_worker: bool) -> napi::Result<AsyncTask<StepTask>> {
        let js = self.js()?;
        js.goes_on();
        Ok(AsyncTask::new(StepTask {
            slot: Arc::clone(&self.session),
            step,
            waker: Waker::new(env.raw(), &js, in_worker)?,
        }))
    }

    /// Runs on the thread pool. The promise is always resolved. `in_worker` says that this is no
    /// main thread, and may be stopped at any time.
    #[napi(catch_unwind)]
    pub fn start(
        &self,
        env: Env,
        wasm: Uint8Array,
        in_worker: bool,
    ) -> napi::Result<AsyncTask<Job>> {
        self.prepare(&wasm, false)?;
        Ok(AsyncTask::new(Job {
            // JavaScript may change or transfer its buffer while another thread reads.
            wasm: wasm.to_vec(),
            wizer: self.wizer()?,
            waker: Waker::new(env.raw(), &self.js()?, in_worker)?,
        }))
    }

    /// Runs to the end, and calls JavaScript on this thread in between.
    #[napi(catch_unwind)]
    pub fn run_sync(&self, wasm: Uint8Array) -> napi::Result<Settled> {
        self.prepare(&wasm, false)?;
        let (wizer, js) = (self.wizer()?, self.js()?);
        // This call may end before the run does: see `JsSide::run_sync`.
        let wasm = wasm.to_vec();
        let settled = match js.run_sync("wizer-sync", move || run(&wizer, &wasm)) {
            Ok(Some(settled)) => settled,
            Ok(None) => Err(Error::Aborted.into()),
            Err(error) => Err(Error::internal(format!("no thread to run on: {error}")).into()),
        };
        Ok(settled.into())
    }

    /// Tells JavaScript what it has not been told yet.
    #[napi(catch_unwind)]
    pub fn flush(&self) -> napi::Result<()> {
        self.js()?.serve_waiting();
        Ok(())
    }

    /// Gives back what the run took: it is over, and no step follows.
    #[napi(catch_unwind)]
    pub fn over(&self) {
        self.live.take();
    }

    /// Ends the run as soon as possible.
    #[napi(catch_unwind)]
    pub fn abort(&self) {
        self.interrupt.abort();
    }

    /// Ends the run as soon as possible, and has it wait for JavaScript no more: the process is
    /// about to exit.
    #[napi(catch_unwind)]
    pub fn abandon(&self) {
        if let Ok(js) = self.js() {
            js.abandon();
        }
    }

    /// The bytes of a memory of the instance whose import is being called. An error says which
    /// there are.
    #[napi(catch_unwind)]
    pub fn memory<'e>(&self, env: &'e Env, name: Option<String>) -> napi::Result<Unknown<'e>> {
        self.js()?.memory(env, name)
    }

    /// The type of a function of the instance whose import is being called. An error says what is
    /// not there.
    #[napi(catch_unwind)]
    pub fn function_type(&self, callee: Callee) -> napi::Result<FunctionType> {
        Ok((&self.js()?.function_type(callee.into())?).into())
    }

    /// Calls a function of the instance whose import is being called. Returns an error's text
    /// where it fails.
    #[napi(catch_unwind)]
    pub fn call(
        &self,
        callee: Callee,
        args: JsValues,
    ) -> napi::Result<napi::Either<JsValues, CallFailure>> {
        Ok(match self.js()?.call(callee.into(), args)? {
            Ok(values) => napi::Either::A(values),
            Err(reason) => napi::Either::B(CallFailure {
                code: reason.code().into(),
                message: reason.to_string(),
                exception: (&reason).into(),
            }),
        })
    }
}

impl From<&wasmparser::FuncType> for FunctionType {
    fn from(ty: &wasmparser::FuncType) -> Self {
        FunctionType {
            params: link::type_names(ty.params()),
            results: link::type_names(ty.results()),
        }
    }
}

/// A [`Wizer`] without a custom linker, the one part of it that is bound to its thread.
pub struct SendWizer(Wizer);

// SAFETY: `Wizer::with_options` leaves the linker out, and all options are `Send` and `Sync`.
unsafe impl Send for SendWizer {}

/// A run on the thread pool.
pub struct Job {
    wasm: Vec<u8>,
    wizer: SendWizer,
    /// Lets the run reach the JavaScript thread as long as it lasts.
    waker: Waker,
}

impl Task for Job {
    type Output = Result<Outcome, Box<Failure>>;
    type JsValue = Settled;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        let _step = self.waker.step();
        Ok(run(&self.wizer, &self.wasm))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> napi::Result<Settled> {
        Ok(output.into())
    }
}

/// Runs without ever panicking.
fn run(wizer: &SendWizer, wasm: &[u8]) -> Result<Outcome, Box<Failure>> {
    catch_unwind(AssertUnwindSafe(|| wizer.0.snapshot_or_output(wasm)))
        .unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Box<Failure> {
    Error::internal("a panic").into()
}

impl From<Result<Outcome, Box<Failure>>> for Settled {
    fn from(result: Result<Outcome, Box<Failure>>) -> Self {
        match result {
            Ok(outcome) => Settled {
                report: serde_json::to_string(&outcome.report).ok(),
                wasm: Some(outcome.wasm.into()),
                stdout: outcome.stdout.map(Into::into),
                stderr: outcome.stderr.map(Into::into),
                ..Settled::default()
            },
            Err(failure) => Settled {
                stdout: failure.stdout.map(Into::into),
                stderr: failure.stderr.map(Into::into),
                error: Some((&failure.error).into()),
                ..Settled::default()
            },
        }
    }
}

impl From<&Error> for NativeError {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        NativeError {
            code: error.code().into(),
            message,
            wasm_backtrace: match error {
                Error::Trap(trap) => Some(
                    trap.frames
                        .iter()
                        .map(|f| f.to_string().trim().into())
                        .collect(),
                ),
                _ => None,
            },
            exception: match error {
                Error::Trap(trap) => (&trap.reason).into(),
                _ => None,
            },
        }
    }
}

impl From<&TrapReason> for Option<Thrown> {
    fn from(reason: &TrapReason) -> Self {
        match reason {
            TrapReason::Exception(exception) => Some(exception.into()),
            _ => None,
        }
    }
}

impl From<&Exception> for Thrown {
    fn from(exception: &Exception) -> Self {
        let (module, name) = exception.tag.clone().unzip();
        Thrown {
            number: exception.number,
            module,
            name,
            params: None,
            values: Some(JsValues(exception.values.clone())),
        }
    }
}

/// The failure of an import whose reason JavaScript knows.
fn import_failed(message: &str) -> TrapReason {
    TrapReason::Host(message.into())
}
