//! The same steps one at a time: instantiate, call, call, snapshot, and go on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use wasmparser::{FuncType, ValType};

use crate::engine::stack::on_large_stack;
use crate::engine::tier::{Job, Ran};
use crate::engine::{Engine, Prepared, call_to_end};
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::instrument::{Instrumented, has_references};
use crate::invoke;
use crate::module::{Directory, ExternKind, Module, Validation, validate};
use crate::options::{Options, Phase};
use crate::report::Clock;
use crate::value::Value;
use crate::wizer::plan::Plan;
use crate::wizer::sources::{Sources, to_binary};
use crate::wizer::steps::{self, Run};
use crate::wizer::{Failure, Outcome};

/// An instance of a module, to be called and written step by step. Made by
/// [`Wizer::session`](crate::Wizer::session).
///
/// Effects happen at once and once: what is printed is printed. A call that traps leaves behind
/// what it did until then, as everywhere in WebAssembly, and the session can go on.
pub struct Session {
    wasm: Vec<u8>,
    sources: Sources,
    options: Options,
    /// How the modules of the run were instrumented, in their order.
    code: Vec<Instrumented>,
    /// Whether there was a shared memory from the start, for which code is compiled otherwise.
    shares_memory: bool,
    ran: Ran<()>,
    run: Run,
    called: BTreeSet<String>,
    exports: BTreeMap<String, Exported>,
    /// Its memories and tables.
    directory: Directory,
}

/// What can be done with an export.
enum Exported {
    Function(FuncType),
    Global(ValType),
    Other,
}

fn exports(module: &Module<'_>) -> BTreeMap<String, Exported> {
    let exports = module.exports.iter().map(|export| {
        let exported = match export.kind {
            ExternKind::Func => {
                let ty = module.function_type(export.index).cloned();
                Exported::Function(ty.unwrap_or_else(|| FuncType::new([], [])))
            }
            ExternKind::Global => match module.globals.get(export.index) {
                Some(global) => Exported::Global(global.ty.content_type),
                None => Exported::Other,
            },
            _ => Exported::Other,
        };
        (export.name.to_string(), exported)
    });
    exports.collect()
}

impl Session {
    pub(crate) fn open(
        wasm: &[u8],
        mut options: Options,
        make_linker: Option<&crate::wizer::LinkerMaker>,
    ) -> Result<Session, Box<Failure>> {
        options.features.legacy_exceptions = options.may_use_host_engine();
        if options.timeout.is_some() || options.interrupt.is_some() {
            options.interrupt = Some(options.interrupt.unwrap_or_default().child());
        }
        let mut clock = Clock::new(options.progress.as_ref());
        clock.begin(Phase::Parse);
        let wasm = to_binary(wasm)?.into_owned();
        let module = Module::parse(&wasm)?;
        let sources = Sources::read(&module, &options)?;
        let exports = exports(&module);
        let directory = Directory::new(&module);
        let (code, shares_memory, ran) = std::thread::scope(|scope| {
            let validation = Validation::begin(scope, sources.of(&wasm), &options.features)?;
            clock.begin(Phase::Instrument);
            let modules = sources.instrument(module)?;
            let job = Job {
                modules: modules.all(),
                options: &options,
                make_linker,
                goes_on: true,
                validation: &validation,
            };
            let ran = job.run(&mut clock, &|engine| {
                steps::instantiate(engine, &modules, &options)
            });
            // An engine may well refuse what is not valid.
            let ran = ran.map_err(|error| validation.wait().err().unwrap_or(error))?;
            let mut all = modules.all().iter();
            let shares_memory = all.any(|prepared| prepared.module.has_shared_memory());
            Ok::<_, Error>((modules.into_code(), shares_memory, ran))
        })?;
        let (run, mut ran) = ran.split();
        let run = run.map_err(|error| Failure::of(error, ran.engine.host()))?;
        Ok(Session {
            run,
            ran,
            shares_memory,
            code,
            wasm,
            sources,
            options,
            called: BTreeSet::new(),
            exports,
            directory,
        })
    }

    /// Calls an exported function.
    ///
    /// Where [`Wizer::allow_exit`](crate::Wizer::allow_exit) lets the program end itself, that is the
    /// end of the call, which gives no results then.
    ///
    /// References come out as handles, which can be given back to this session and mean nothing
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is no such function or the arguments are not what it takes,
    /// and whatever running it gives: [`Error::Trap`], [`Error::Timeout`].
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module (func (export "add") (param i32 i32) (result i32)
    ///   (i32.add (local.get 0) (local.get 1))))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.call("add", &[Value::I32(40), Value::I32(2)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn call(&mut self, export: &str, args: &[Value]) -> Result<Vec<Value>, Error> {
        let Some(ty) = self.function_type(export) else {
            return Err(Error::option(format!(
                "the module exports no function `{export}`"
            )));
        };
        invoke::check(export, ty, args)?;
        self.called.insert(export.into());
        let main = self.run.main;
        self.step(|engine| call_to_end(engine, main, export, export, args))
    }

    /// Lets modules that are instantiated from now on import the module's exports under this name.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is a module of this name.
    ///
    /// ```
    /// let wat = r#"(module (memory (export "memory") 1)
    ///   (func (export "peek") (result i32) (i32.load (i32.const 8))))"#;
    /// let side = r#"(module (import "env" "memory" (memory 1)) (data (i32.const 8) "*"))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// session.register("env")?;
    /// session.instantiate("side", side.as_bytes())?;
    /// assert_eq!(session.call("peek", &[])?, [wizer::Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn register(&mut self, name: &str) -> Result<(), Error> {
        self.sources.is_free(name)?;
        self.ran.engine.register(self.run.main, name)?;
        self.sources.register_main(name);
        Ok(())
    }

    /// Instantiates one module more, given in the binary or the text format, as a dynamic linker
    /// does: it can import from what was preloaded, from those that were instantiated like this
    /// before, and from the module itself where that is [registered](Session::register). Its start
    /// function and `_initialize` are called.
    ///
    /// What it leaves in memories and tables of the module is written with them. The output
    /// carries nothing else of it, as with preloaded modules: a later change of its own state is
    /// an error when the module is written, unless
    /// [`Wizer::allow_preload_changes`](crate::Wizer::allow_preload_changes) says otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is a module of this name, [`Error::Unsupported`] where the
    /// session's engine cannot run it, and those of a preloaded module. What it did before it
    /// failed remains, and the session can go on.
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module (table (export "table") 2 funcref)
    ///   (func $answer (export "answer") (result i32) (i32.const 42))
    ///   (func (export "call") (param i32) (result i32)
    ///     (call_indirect (result i32) (local.get 0))))"#;
    /// let side = r#"(module
    ///   (import "main" "table" (table 2 funcref))
    ///   (import "main" "answer" (func $answer (result i32)))
    ///   (elem (i32.const 1) $answer))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// session.register("main")?;
    /// session.instantiate("side", side.as_bytes())?;
    /// let wasm = session.snapshot()?.wasm;
    /// let mut session = wizer::Wizer::new().session(&wasm)?;
    /// assert_eq!(session.call("call", &[Value::I32(1)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn instantiate(&mut self, name: &str, wasm: &[u8]) -> Result<(), Error> {
        self.sources.is_free(name)?;
        let result = self.instantiate_beside(name, wasm);
        result.map_err(|error| error.in_preload(name))
    }

    fn instantiate_beside(&mut self, name: &str, wasm: &[u8]) -> Result<(), Error> {
        let wasm = to_binary(wasm)?.into_owned();
        let module = Module::parse(&wasm)?;
        validate(&wasm, &self.options.features)?;
        if self.code[0].names.are_used_by(&module) {
            return Err(Error::option(format!(
                "the module `{name}` imports or exports a name that the session uses itself"
            )));
        }
        if module.imports_shared_memory() && !self.shares_memory {
            return Err(Error::unsupported(
                "a shared memory of a module that was not there from the start cannot be shared",
            ));
        }
        for (name, wasm) in self.sources.provide(&module)? {
            self.link(&name, wasm, true)?;
        }
        self.link(name, wasm, false)
    }

    /// Instantiates a module that is valid.
    fn link(&mut self, name: &str, wasm: Vec<u8>, is_provided: bool) -> Result<(), Error> {
        let identify = has_references(&Module::parse(&self.wasm)?);
        let names = &self.code[0].names;
        let number = self.ran.engine.modules();
        let mut prepared = Prepared::new(Module::parse(&wasm)?, names, number, identify);
        let number = self.ran.engine.load(&prepared).map_err(|mut error| {
            if let Error::Unsupported { help, .. } = &mut error {
                *help = Some("a session stays with its engine; open it with `optimizing`".into());
            }
            error
        })?;
        let (instance, baseline) = self.step(|engine| {
            let added = match prepared.code.functions_are_globals {
                true => 0,
                false => prepared.code.functions.len(),
            };
            let before = engine.host().limiter.does_not_count(added);
            let instance = steps::beside(engine, number, &prepared, name);
            engine.host().limiter.ours = before;
            let instance = instance?;
            Ok((instance, steps::state_of(engine, instance, &prepared)?))
        })?;
        prepared.has_run();
        self.code.push(prepared.code);
        let position = self.sources.add(name, wasm, is_provided);
        self.run.add(position, instance, baseline);
        Ok(())
    }

    /// Calls an exported function of a preloaded module, or of one that was
    /// [instantiated](Session::instantiate) beside it.
    ///
    /// # Errors
    ///
    /// As for [`Session::call`].
    ///
    /// ```
    /// use wizer::Value;
    /// let env = r#"(module (func (export "half") (param i32) (result i32)
    ///   (i32.shr_s (local.get 0) (i32.const 1))))"#;
    /// let mut session = wizer::Wizer::new().preload_bytes("env", env).session(b"(module)")?;
    /// assert_eq!(session.call_beside("env", "half", &[Value::I32(84)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn call_beside(
        &mut self,
        module: &str,
        export: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let modules = self.sources.again(Module::parse(&self.wasm)?, &self.code)?;
        let position = modules.callable(module, export, args)?;
        drop(modules);
        let Some(instance) = self.run.other(position) else {
            return Err(Error::option(format!(
                "the module `{module}` trapped and cannot be called"
            )));
        };
        let result = self.step(|engine| call_to_end(engine, instance, export, export, args));
        result.map_err(|error| error.in_preload(module))
    }

    /// The type of a function that a module beside exports.
    #[cfg(all(feature = "napi", not(test)))]
    pub(crate) fn function_type_beside(&self, module: &str, export: &str) -> Option<FuncType> {
        let main = Module::parse(&self.wasm).ok()?;
        let modules = self.sources.again(main, &self.code).ok()?;
        let (_, ty) = modules.function(module, export).ok()?;
        Some(ty.clone())
    }

    /// Has the engine do something, for as long as it may take.
    fn step<T: Send>(
        &mut self,
        work: impl FnOnce(&mut dyn Engine) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let engine = &mut *self.ran.engine;
        let interrupt = engine.host().interrupt.clone();
        Interrupt::during(interrupt.as_ref(), self.options.timeout, || {
            on_large_stack(|| work(engine))?
        })
    }

    /// The type of an exported function.
    ///
    /// ```
    /// let wat = r#"(module (func (export "half") (param f64) (result f64)
    ///   (f64.mul (local.get 0) (f64.const 0.5))))"#;
    /// let session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.function_type("half").unwrap().params(), [wizer::ValType::F64]);
    /// assert!(session.function_type("third").is_none());
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn function_type(&self, export: &str) -> Option<&FuncType> {
        match self.exports.get(export)? {
            Exported::Function(ty) => Some(ty),
            _ => None,
        }
    }

    /// The type of what an exported global holds.
    ///
    /// ```
    /// let wat = r#"(module (global (export "answer") i32 (i32.const 42)))"#;
    /// let session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.global_type("answer"), Some(wizer::ValType::I32));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn global_type(&self, export: &str) -> Option<ValType> {
        match self.exports.get(export)? {
            Exported::Global(ty) => Some(*ty),
            _ => None,
        }
    }

    /// What the guest has written since it was last asked for, to standard output and to standard
    /// error, where that is captured.
    #[cfg(all(feature = "napi", not(test)))]
    pub(crate) fn output(&mut self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        self.ran.engine.host().captured()
    }

    /// The value of an exported global.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is no such global.
    ///
    /// ```
    /// let wat = r#"(module (global (export "answer") i32 (i32.const 42)))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.global("answer")?, wizer::Value::I32(42));
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn global(&mut self, export: &str) -> Result<Value, Error> {
        if self.global_type(export).is_none() {
            return Err(Error::option(format!(
                "the module exports no global `{export}`"
            )));
        }
        self.ran.engine.hand_out_global(self.run.main, export)
    }

    /// The bytes of a memory: the export of this name, else an import, written `module.name`. Without
    /// a name it is the export `memory`, else the only memory that the module has.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is no such memory: which there are.
    ///
    /// ```
    /// let wat = r#"(module (import "env" "memory" (memory 1)) (data (i32.const 8) "hello"))"#;
    /// let mut wizer = wizer::Wizer::new();
    /// let session = wizer.import_memory("env", "memory", [], Some(1)).session(wat.as_bytes())?;
    /// assert_eq!(&session.memory(None)?[8..13], b"hello");
    /// assert_eq!(session.memory(Some("env.memory"))?.len(), 65536);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn memory(&self, name: Option<&str>) -> Result<&[u8], Error> {
        let export = self.exported_memory(name)?;
        let (_, bytes) = self.ran.engine.memory(self.run.main, &export)?;
        Ok(bytes)
    }

    /// Reads `length` bytes of a [memory](Session::memory) from an address on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] where the memory has no such bytes, and those of
    /// [`Session::memory`].
    ///
    /// ```
    /// let wat = r#"(module (memory 1) (data (i32.const 8) "hello"))"#;
    /// let session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.read_memory(None, 8, 5)?, b"hello");
    /// assert!(session.read_memory(None, 65535, 2).is_err());
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn read_memory(
        &self,
        name: Option<&str>,
        address: u64,
        length: u64,
    ) -> Result<&[u8], Error> {
        let bytes = self.memory(name)?;
        Ok(&bytes[within(bytes.len(), address, length)?])
    }

    /// Reads text of C from a [memory](Session::memory): the bytes from an address on, up to the
    /// first one that is 0.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] where there is no 0 up to the end of the memory, and those of
    /// [`Session::memory`].
    ///
    /// ```
    /// let wat = r#"(module (memory 1) (data (i32.const 8) "hello"))"#;
    /// let session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.read_c_string(None, 8)?, b"hello");
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn read_c_string(&self, name: Option<&str>, address: u64) -> Result<&[u8], Error> {
        let bytes = self.memory(name)?;
        let start = usize::try_from(address).unwrap_or(usize::MAX);
        let text = bytes.get(start..).unwrap_or_default();
        match text.iter().position(|byte| *byte == 0) {
            Some(length) => Ok(&text[..length]),
            // With a 0 it would be one byte longer than all that there is.
            None => Err(Error::OutOfBounds {
                address,
                length: text.len() as u64 + 1,
                size: bytes.len() as u64,
            }),
        }
    }

    /// Writes bytes into a [memory](Session::memory), from an address on. They are state like what
    /// the module writes itself.
    ///
    /// # Errors
    ///
    /// As for [`Session::read_memory`]. Nothing is written then.
    ///
    /// ```
    /// use wizer::Value;
    /// // How C is given a string: by memory of its own allocator.
    /// let wat = r#"(module
    ///   (memory (export "memory") 1)
    ///   (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    ///   (func (export "first") (param i32) (result i32) (i32.load8_u (local.get 0))))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// let text = b"*args\0";
    /// let [Value::I32(address)] = session.call("malloc", &[Value::I32(text.len() as i32)])?[..]
    /// else {
    ///     unreachable!("its result is an i32")
    /// };
    /// session.write_memory(None, address as u64, text)?;
    /// assert_eq!(session.call("first", &[Value::I32(address)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn write_memory(
        &mut self,
        name: Option<&str>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let export = self.exported_memory(name)?;
        let memory = self.ran.engine.memory_mut(self.run.main, &export)?;
        let range = within(memory.len(), address, bytes.len() as u64)?;
        memory[range].copy_from_slice(bytes);
        Ok(())
    }

    fn exported_memory(&self, name: Option<&str>) -> Result<String, Error> {
        let index = self.directory.memory(name).map_err(Error::option)?;
        Ok(self.code[0].names.memory(index))
    }

    fn exported_table(&self, name: Option<&str>) -> Result<String, Error> {
        let index = self.directory.table(name).map_err(Error::option)?;
        Ok(self.code[0].names.table(index))
    }

    /// The type of the function in a slot of a table: the export of this name, else an import,
    /// written `module.name`. Without a name it is the export `__indirect_function_table`, else the
    /// only table of functions that the module has.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is no such table, nothing in the slot, or a function with types
    /// that only modules know.
    ///
    /// ```
    /// let wat = r#"(module (table funcref (elem $f)) (func $f (param i64)))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.slot_type(None, 0)?.params(), [wizer::ValType::I64]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn slot_type(&mut self, table: Option<&str>, slot: u64) -> Result<FuncType, Error> {
        let export = self.exported_table(table)?;
        self.ran.engine.slot_type(self.run.main, &export, slot)
    }

    /// Calls the function in a slot of a [table](Session::slot_type), as `call_indirect` does: what C
    /// and C++ know as a pointer to a function is the number of a slot.
    ///
    /// # Errors
    ///
    /// Those of [`Session::slot_type`] and [`Session::call`].
    ///
    /// ```
    /// use wizer::Value;
    /// let wat = r#"(module (table funcref (elem $double))
    ///   (func $double (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1))))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// assert_eq!(session.call_indirect(None, 0, &[Value::I32(21)])?, [Value::I32(42)]);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn call_indirect(
        &mut self,
        table: Option<&str>,
        slot: u64,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let label = format!("slot {slot}");
        let ty = self.slot_type(table, slot)?;
        invoke::check(&label, &ty, args)?;
        let export = self.exported_table(table)?;
        let main = self.run.main;
        self.step(|engine| engine.call_slot(main, &export, slot, &label, args))
    }

    /// Writes the module as it is now. The session can go on, and be written again.
    ///
    /// The initialization functions that were called are exported no more: `_initialize`, and
    /// unless [`Wizer::keep_init_func`](crate::Wizer::keep_init_func) says otherwise,
    /// `wizer.initialize` or what [`Wizer::init_func`](crate::Wizer::init_func) names.
    ///
    /// # Errors
    ///
    /// Where the state cannot be written, as for [`Wizer::run`](crate::Wizer::run).
    ///
    /// ```
    /// let wat = r#"(module (memory (export "memory") 1)
    ///   (func (export "store") (i32.store8 (i32.const 0) (i32.const 1))))"#;
    /// let mut session = wizer::Wizer::new().session(wat.as_bytes())?;
    /// let before = session.snapshot()?.wasm;
    /// session.call("store", &[])?;
    /// assert_ne!(session.snapshot()?.wasm, before);
    /// # Ok::<(), wizer::Error>(())
    /// ```
    pub fn snapshot(&mut self) -> Result<Outcome, Error> {
        // A call that was ended from outside left half of what it was to do.
        if let Some(interrupt) = &self.ran.engine.host().interrupt {
            interrupt.check()?;
        }
        let mut clock = Clock::new(self.options.progress.as_ref());
        clock.begin(Phase::Parse);
        let module = Module::parse(&self.wasm)?;
        let plan = Plan::of_session(&module, &self.options, &|name| self.called.contains(name))?;
        let modules = self.sources.again(module, &self.code)?;
        let engine = &mut *self.ran.engine;
        let written = steps::write(engine, &self.run, &modules, &plan, &mut clock)?;
        Ok(written.outcome(engine, self.ran.reason.clone(), clock))
    }
}

/// Where these bytes are in a memory of this size.
fn within(size: usize, address: u64, length: u64) -> Result<Range<usize>, Error> {
    let out_of_bounds = Error::OutOfBounds {
        address,
        length,
        size: size as u64,
    };
    match address.checked_add(length) {
        // Both are within a size that is one of this machine.
        Some(end) if end <= size as u64 => Ok(address as usize..end as usize),
        _ => Err(out_of_bounds),
    }
}
