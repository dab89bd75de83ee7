//! wasmtime as judge: it runs a module without wizer, and compares *the original after its
//! initialization* with *the output*, by everything that can be seen from outside.

use std::collections::BTreeMap;

use wizer::wasmtime::{
    Config, Engine, Error, Extern, ExternType, Func, FuncType, Instance, Linker, Module, Ref,
    Store, Strategy, Val,
};

use wizer::KeepInitFunc;

use super::fixtures::Setup;

/// How many instructions a call may run after the initialization, so that every call ends. Both
/// sides get as many.
const FUEL: u64 = 5_000_000_000;

/// Runs modules that import from the same preloaded modules.
pub struct Judge {
    engine: Engine,
    preloads: Vec<(String, Module)>,
}

/// An instance, and its exports by name.
pub struct Running {
    store: Store<()>,
    exports: BTreeMap<String, Extern>,
}

/// All of an instance's state that is exported.
#[derive(PartialEq)]
pub struct State {
    memories: BTreeMap<String, (u64, Vec<u8>)>,
    globals: BTreeMap<String, Seen>,
    tables: BTreeMap<String, Vec<Seen>>,
}

/// A value as it is seen from outside of its store.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Number(&'static str, u128),
    Null,
    I31(u32),
    Function,
    Object,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Returned(Vec<Seen>),
    Trapped(String),
}

impl Judge {
    pub fn new(preloads: &[(String, Vec<u8>)]) -> Self {
        let mut config = Config::new();
        config
            .strategy(Strategy::Cranelift)
            .consume_fuel(true)
            .shared_memory(true)
            // wasmtime 48 panics where the address of an access beyond the end of a shared memory
            // that several instances have tells of it.
            .memory_reservation(0)
            .memory_guard_size(0)
            .wasm_custom_page_sizes(true)
            .wasm_wide_arithmetic(true);
        let engine = Engine::new(&config).unwrap();
        let compile =
            |(name, wasm): &(String, Vec<u8>)| (name.clone(), Module::new(&engine, wasm).unwrap());
        Judge {
            preloads: preloads.iter().map(compile).collect(),
            engine,
        }
    }

    /// Compiles a module.
    pub fn compile(&self, wasm: &[u8]) -> Result<Module, Error> {
        Module::new(&self.engine, wasm)
    }

    /// A new instance.
    pub fn instantiate(&self, wasm: &[u8]) -> Result<Running, Error> {
        self.start(&self.compile(wasm)?)
    }

    /// A new instance, with new instances of the preloaded modules. Functions that nobody
    /// provides trap.
    pub fn start(&self, module: &Module) -> Result<Running, Error> {
        self.start_with(module, false)
    }

    /// As [`Judge::start`]; what it imports may be as large as it wants, as what grew during an
    /// initialization is wanted as large by the output.
    fn start_with(&self, module: &Module, as_large_as_wanted: bool) -> Result<Running, Error> {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(u64::MAX)?;
        let mut linker = Linker::new(&self.engine);
        for (name, preload) in &self.preloads {
            let instance = linker.instantiate(&mut store, preload)?;
            linker.instance(&mut store, name, instance)?;
        }
        for import in module.imports() {
            if linker.get_by_import(&mut store, &import).is_none()
                && let Some(ty) = import.ty().func()
            {
                linker.func_new(import.module(), import.name(), ty.clone(), |_, _, _| {
                    Err(Error::msg("nobody provides this function"))
                })?;
            }
        }
        if as_large_as_wanted {
            for import in module.imports() {
                match (linker.get_by_import(&mut store, &import), import.ty()) {
                    (Some(Extern::Memory(memory)), ExternType::Memory(ty)) => {
                        let more = ty.minimum().saturating_sub(memory.size(&store));
                        memory.grow(&mut store, more)?;
                    }
                    (Some(Extern::Table(table)), ExternType::Table(ty)) => {
                        let more = ty.minimum().saturating_sub(table.size(&store));
                        if more > 0 {
                            table.grow(&mut store, more, Ref::null(ty.element().heap_type()))?;
                        }
                    }
                    _ => {}
                }
            }
        }
        let instance: Instance = linker.instantiate(&mut store, module)?;
        let exports = instance
            .exports(&mut store)
            .map(|e| (e.name().to_string(), e.into_extern()))
            .collect();
        Ok(Running { store, exports })
    }

    /// Whether the preloaded modules provide memories and tables that are large enough.
    pub fn fits(&self, wasm: &[u8]) -> bool {
        let module = self.compile(wasm).expect("a valid module");
        module.imports().all(|import| {
            let preloads = self.preloads.iter();
            let mut exports = preloads.flat_map(|(name, m)| m.exports().map(move |e| (name, e)));
            let provided = exports.find_map(|(name, export)| {
                let is_it = name == import.module() && export.name() == import.name();
                is_it.then(|| export.ty())
            });
            match (import.ty(), provided) {
                (ExternType::Memory(wanted), Some(ExternType::Memory(found))) => {
                    wanted.minimum() <= found.minimum()
                }
                (ExternType::Table(wanted), Some(ExternType::Table(found))) => {
                    wanted.minimum() <= found.minimum()
                }
                _ => true,
            }
        })
    }

    /// A new instance of a module that was not initialized, after its initialization.
    pub fn initialized(&self, wasm: &[u8], setup: &Setup) -> Result<Running, Error> {
        let mut running = self.instantiate(wasm)?;
        for name in setup.initializers(&running.callable()) {
            running.call_with_fuel(&name, u64::MAX)?;
        }
        Ok(running)
    }

    /// Asserts that an instance of `output` is what an instance of `original` is after its
    /// initialization.
    pub fn assert_equivalent(&self, what: &str, original: &[u8], output: &[u8], setup: &Setup) {
        let original = self
            .initialized(original, setup)
            .unwrap_or_else(|e| panic!("{what}: the original cannot be initialized: {e:?}"));
        let output = self
            .compile(output)
            .and_then(|output| self.start_with(&output, true))
            .unwrap_or_else(|e| panic!("{what}: the output cannot be instantiated: {e:?}"));
        assert_same(what, original, output, setup);
    }
}

/// Asserts that two instances have the same exports, up to removed and renamed ones, that these
/// hold the same state, that calls of functions without parameters end in the same way, and
/// leave the same state behind.
pub fn assert_same(what: &str, mut original: Running, mut output: Running, setup: &Setup) {
    original.apply(setup);
    assert_eq!(
        original.names(),
        output.names(),
        "{what}: the names of the exports"
    );
    assert_same_state(what, &mut original, &mut output);
    for name in original.nullary() {
        let [expected, found] = [&mut original, &mut output].map(|running| running.call(&name));
        assert_eq!(expected, found, "{what}: a call of `{name}`");
        assert_same_state(
            &format!("{what}, after a call of `{name}`"),
            &mut original,
            &mut output,
        );
    }
}

fn assert_same_state(what: &str, original: &mut Running, output: &mut Running) {
    let [expected, found] = [original, output].map(Running::state);
    assert_eq!(expected.globals, found.globals, "{what}: globals");
    assert_eq!(expected.tables, found.tables, "{what}: tables");
    for (name, (size, bytes)) in &expected.memories {
        let (found_size, found_bytes) = &found.memories[name];
        assert_eq!(size, found_size, "{what}: the pages of `{name}`");
        let differs = bytes.iter().zip(found_bytes).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!(
                "{what}: byte {at:#x} of `{name}` is {} and should be {}",
                found_bytes[at], bytes[at]
            );
        }
        assert_eq!(bytes.len(), found_bytes.len(), "{what}: bytes of `{name}`");
    }
}

impl Running {
    /// The names of all exports.
    pub fn names(&self) -> Vec<String> {
        self.exports.keys().cloned().collect()
    }

    /// Removes and renames exports as the output's are.
    fn apply(&mut self, setup: &Setup) {
        let mut removed = setup.initializers(&self.callable());
        match setup.keep_init_func {
            KeepInitFunc::Empty => {
                for name in removed.drain(..) {
                    let nothing = Func::wrap(&mut self.store, || {});
                    self.exports.insert(name, nothing.into());
                }
            }
            KeepInitFunc::Yes => drop(removed.pop()),
            _ => {}
        }
        let renamed = setup.renames.iter();
        let renamed: Vec<(String, Extern)> = renamed
            .filter_map(|(new, old)| Some((new.clone(), self.exports.get(old)?.clone())))
            .collect();
        for name in removed {
            self.exports.remove(&name);
        }
        for (_, old) in &setup.renames {
            self.exports.remove(old);
        }
        self.exports.extend(renamed);
    }

    /// The exported functions that take no parameters.
    fn nullary(&self) -> Vec<String> {
        self.functions(|ty| ty.params().len() == 0)
    }

    /// The exported functions that neither take nor return anything.
    pub fn callable(&self) -> Vec<String> {
        self.functions(|ty| ty.params().len() == 0 && ty.results().len() == 0)
    }

    fn functions(&self, wanted: impl Fn(FuncType) -> bool) -> Vec<String> {
        let is_wanted = |e: &Extern| match e {
            Extern::Func(f) => wanted(f.ty(&self.store)),
            _ => false,
        };
        let names = self.exports.iter().filter(|(_, e)| is_wanted(e));
        names.map(|(name, _)| name.clone()).collect()
    }

    /// The bytes of an exported memory.
    pub fn memory(&mut self, name: &str) -> Vec<u8> {
        self.state()
            .memories
            .remove(name)
            .expect("an exported memory")
            .1
    }

    /// The value of an exported global.
    pub fn global(&mut self, name: &str) -> Seen {
        self.state()
            .globals
            .remove(name)
            .expect("an exported global")
    }

    /// Calls an exported function.
    pub fn call(&mut self, name: &str) -> Ended {
        match self.try_call(name) {
            Ok(values) => Ended::Returned(values),
            Err(error) => Ended::Trapped(error.root_cause().to_string()),
        }
    }

    /// Calls an exported function that takes no parameters.
    pub fn try_call(&mut self, name: &str) -> Result<Vec<Seen>, Error> {
        self.call_with_fuel(name, FUEL)
    }

    fn call_with_fuel(&mut self, name: &str, fuel: u64) -> Result<Vec<Seen>, Error> {
        self.store.set_fuel(fuel)?;
        let Some(Extern::Func(function)) = self.exports.get(name) else {
            panic!("`{name}` is no exported function")
        };
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call(&mut self.store, &[], &mut results)?;
        Ok(results.iter().map(|v| self.see(v)).collect())
    }

    /// All state that is exported.
    pub fn state(&mut self) -> State {
        let mut state = State {
            memories: BTreeMap::new(),
            globals: BTreeMap::new(),
            tables: BTreeMap::new(),
        };
        for (name, export) in self.exports.clone() {
            match export {
                Extern::Memory(memory) => {
                    let bytes = memory.data(&self.store).to_vec();
                    let pages = memory.size(&self.store);
                    state.memories.insert(name, (pages, bytes));
                }
                Extern::SharedMemory(memory) => {
                    // SAFETY: no other thread was started, and no code of the module runs.
                    let bytes = memory.data().iter().map(|b| unsafe { *b.get() }).collect();
                    state.memories.insert(name, (memory.size(), bytes));
                }
                Extern::Global(global) => {
                    let value = global.get(&mut self.store);
                    state.globals.insert(name, self.see(&value));
                }
                Extern::Table(table) => {
                    let slots = (0..table.size(&self.store)).map(|slot| {
                        let slot: Ref = table.get(&mut self.store, slot).unwrap();
                        slot.into()
                    });
                    let slots: Vec<Val> = slots.collect();
                    let seen = slots.iter().map(|slot| self.see(slot)).collect();
                    state.tables.insert(name, seen);
                }
                Extern::Func(_) | Extern::Tag(_) => {}
            }
        }
        state
    }

    fn see(&self, value: &Val) -> Seen {
        match value {
            Val::I32(v) => Seen::Number("i32", *v as u32 as u128),
            Val::I64(v) => Seen::Number("i64", *v as u64 as u128),
            Val::F32(bits) => Seen::Number("f32", (*bits).into()),
            Val::F64(bits) => Seen::Number("f64", (*bits).into()),
            Val::V128(v) => Seen::Number("v128", v.as_u128()),
            Val::FuncRef(Some(_)) => Seen::Function,
            Val::AnyRef(Some(any)) => match any.as_i31(&self.store) {
                Ok(Some(i31)) => Seen::I31(i31.get_u32()),
                _ => Seen::Object,
            },
            Val::ExternRef(Some(_)) | Val::ExnRef(Some(_)) | Val::ContRef(Some(_)) => Seen::Object,
            Val::FuncRef(None)
            | Val::AnyRef(None)
            | Val::ExternRef(None)
            | Val::ExnRef(None)
            | Val::ContRef(None) => Seen::Null,
        }
    }
}
