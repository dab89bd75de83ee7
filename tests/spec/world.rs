//! wasmtime as judge: instances in a store, made and asked as a script says.

use wizer::wasmtime::{
    AnyRef, Config, Engine, Error, Extern, ExternRef, ExternType, HeapType, Instance, Linker,
    Module, Ref, Store, ThrownException, Val,
};

use crate::script::{Arg, Heap, Pattern, Question, Wanted};

/// The module `spectest` of the specification's scripts, as a module.
const SPECTEST: &str = r#"(module
  (global (export "global_i32") i32 (i32.const 666))
  (global (export "global_i64") i64 (i64.const 666))
  (global (export "global_f32") f32 (f32.const 666.6))
  (global (export "global_f64") f64 (f64.const 666.6))
  (table (export "table") 10 20 funcref)
  (table (export "table64") i64 10 20 funcref)
  (memory (export "memory") 1 2)
  (func (export "print"))
  (func (export "print_i32") (param i32))
  (func (export "print_i64") (param i64))
  (func (export "print_f32") (param f32))
  (func (export "print_f64") (param f64))
  (func (export "print_i32_f32") (param i32 f32))
  (func (export "print_f64_f64") (param f64 f64)))"#;

/// The same for a script: those on threads have a shared memory as well.
pub fn spectest(script: &str) -> String {
    match script.starts_with("threads/") {
        true => SPECTEST.replace(
            "(memory (export \"memory\") 1 2)",
            "(memory (export \"memory\") 1 2) (memory (export \"shared_memory\") 1 2 shared)",
        ),
        false => SPECTEST.into(),
    }
}

/// An engine, and modules compiled for it.
pub struct Judge {
    pub engine: Engine,
    /// `spectest` without and with shared memory.
    spectest: [Module; 2],
}

impl Judge {
    pub fn new() -> Judge {
        let mut config = Config::new();
        config
            .wasm_gc(true)
            .wasm_function_references(true)
            .wasm_exceptions(true)
            .wasm_tail_call(true)
            .wasm_memory64(true)
            .wasm_custom_page_sizes(true)
            .wasm_wide_arithmetic(true)
            .shared_memory(true)
            // What a script tells of recursion without end is told sooner.
            .max_wasm_stack(256 << 10);
        let engine = Engine::new(&config).unwrap();
        let spectest = ["", "threads/"]
            .map(|script| Module::new(&engine, wat::parse_str(spectest(script)).unwrap()).unwrap());
        Judge { engine, spectest }
    }

    pub fn compile(&self, wasm: &[u8]) -> Result<Module, Error> {
        Module::new(&self.engine, wasm)
    }

    /// A store for a script.
    pub fn world(&self, script: &str) -> World {
        let mut store = Store::new(&self.engine, ());
        let mut linker = Linker::new(&self.engine);
        linker.allow_shadowing(true);
        let spectest = &self.spectest[usize::from(script.starts_with("threads/"))];
        let spectest = linker.instantiate(&mut store, spectest).unwrap();
        linker.instance(&mut store, "spectest", spectest).unwrap();
        World { store, linker }
    }
}

/// A store with what can be imported.
pub struct World {
    store: Store<()>,
    linker: Linker<()>,
}

impl World {
    pub fn instantiate(&mut self, module: &Module) -> Result<Instance, Error> {
        self.linker.instantiate(&mut self.store, module)
    }

    /// As [`World::instantiate`], with memories and tables that grew if need be: their host has to
    /// provide them as large as they were.
    pub fn instantiate_as_large_as_wanted(&mut self, module: &Module) -> Result<Instance, Error> {
        let store = &mut self.store;
        for import in module.imports() {
            match (self.linker.get_by_import(&mut *store, &import), import.ty()) {
                (Some(Extern::Memory(memory)), ExternType::Memory(ty)) => {
                    let more = ty.minimum().saturating_sub(memory.size(&*store));
                    memory.grow(&mut *store, more)?;
                }
                (Some(Extern::Table(table)), ExternType::Table(ty)) => {
                    let more = ty.minimum().saturating_sub(table.size(&*store));
                    if more > 0 {
                        let null = Ref::null(ty.element().heap_type());
                        table.grow(&mut *store, more, null)?;
                    }
                }
                _ => {}
            }
        }
        self.instantiate(module)
    }

    pub fn register(&mut self, name: &str, instance: Instance) {
        self.linker
            .instance(&mut self.store, name, instance)
            .unwrap();
    }

    /// The value of an exported global.
    pub fn global(&mut self, instance: Instance, name: &str) -> Option<Val> {
        let global = instance.get_global(&mut self.store, name)?;
        Some(global.get(&mut self.store))
    }

    /// What is in an exported memory.
    pub fn memory(&mut self, instance: Instance, name: &str) -> Option<Vec<u8>> {
        let memory = instance.get_memory(&mut self.store, name)?;
        Some(memory.data(&self.store).to_vec())
    }

    /// Asks an instance, and says what is wrong with the answer.
    pub fn ask(
        &mut self,
        instance: Instance,
        what: &Question,
        wanted: &Wanted,
    ) -> Result<(), String> {
        let answer = match what {
            Question::Global { name } => {
                let global = instance.get_global(&mut self.store, name);
                let global = global.ok_or_else(|| format!("no global `{name}`"))?;
                Ok(vec![global.get(&mut self.store)])
            }
            Question::Call { name, args } => {
                let func = instance.get_func(&mut self.store, name);
                let func = func.ok_or_else(|| format!("no function `{name}`"))?;
                let args: Vec<Val> = args.iter().map(|arg| self.val(*arg)).collect();
                let mut results = vec![Val::I32(0); func.ty(&self.store).results().len()];
                let ended = func.call(&mut self.store, &args, &mut results);
                ended.map(|()| results)
            }
        };
        match (wanted, answer) {
            (Wanted::Anything, Ok(_)) => Ok(()),
            (Wanted::Anything, Err(error)) => Err(format!("it ended with {error}")),
            (Wanted::Trap, Err(error)) if !error.is::<ThrownException>() => Ok(()),
            (Wanted::Exception, Err(error)) if error.is::<ThrownException>() => {
                self.store.take_pending_exception();
                Ok(())
            }
            (Wanted::Trap | Wanted::Exception, other) => Err(format!("it ended with {other:?}")),
            (Wanted::Results(_), Err(error)) => Err(format!("it ended with {error:?}")),
            (Wanted::Results(patterns), Ok(found)) => {
                let fits = patterns.len() == found.len()
                    && patterns.iter().zip(&found).all(|(p, v)| self.matches(p, v));
                fits.then_some(())
                    .ok_or_else(|| format!("it returned {found:?}"))
            }
        }
    }

    fn val(&mut self, arg: Arg) -> Val {
        match arg {
            Arg::I32(v) => Val::I32(v),
            Arg::I64(v) => Val::I64(v),
            Arg::F32(v) => Val::F32(v),
            Arg::F64(v) => Val::F64(v),
            Arg::V128(v) => Val::V128(v.into()),
            Arg::Null(heap) => Val::null_ref(&match heap {
                Heap::Func => HeapType::Func,
                Heap::Extern => HeapType::Extern,
                Heap::Any => HeapType::Any,
                Heap::Exn => HeapType::Exn,
            }),
            Arg::Extern(n) => ExternRef::new(&mut self.store, n).unwrap().into(),
            Arg::Host(n) => {
                let reference = ExternRef::new(&mut self.store, n).unwrap();
                AnyRef::convert_extern(&mut self.store, reference)
                    .unwrap()
                    .into()
            }
        }
    }

    fn matches(&mut self, pattern: &Pattern, found: &Val) -> bool {
        let number = |store: &Store<()>, reference: &ExternRef| -> Option<u32> {
            reference.data(store).ok()??.downcast_ref().copied()
        };
        match (pattern, found) {
            (Pattern::I32(wanted), Val::I32(found)) => wanted == found,
            (Pattern::I64(wanted), Val::I64(found)) => wanted == found,
            (Pattern::F32(wanted), Val::F32(found)) => wanted.matches(*found),
            (Pattern::F64(wanted), Val::F64(found)) => wanted.matches(*found),
            (Pattern::V128(wanted), Val::V128(found)) => wanted.matches(found.as_u128()),
            (
                Pattern::Null,
                Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None),
            ) => true,
            (Pattern::Extern(None), Val::ExternRef(Some(_))) => true,
            (Pattern::Extern(Some(wanted)), Val::ExternRef(Some(found))) => {
                number(&self.store, &found.clone()) == Some(*wanted)
            }
            (Pattern::Host(wanted), Val::AnyRef(Some(found))) => {
                let found = ExternRef::convert_any(&mut self.store, *found).unwrap();
                number(&self.store, &found) == Some(*wanted)
            }
            (Pattern::Func, Val::FuncRef(Some(_))) => true,
            (Pattern::Any, Val::AnyRef(Some(_))) => true,
            (Pattern::I31, Val::AnyRef(Some(found))) => found.is_i31(&self.store).unwrap_or(false),
            (Pattern::Either(patterns), found) => {
                patterns.iter().any(|pattern| self.matches(pattern, found))
            }
            _ => false,
        }
    }
}
