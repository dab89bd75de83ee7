//! Who is judged: a session of this crate, or the crate `wasmtime-wizer` of the same wasmtime.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use wasmtime_wizer::{InstanceState, ModuleContext, SnapshotVal};
use wizer::wasmtime::{Instance, Module, Val};
use wizer::{CacheLocation, Engine, Error, Reference, Session, Value, Wizer};

use crate::script::{Arg, Question, Wanted};
use crate::world::{Judge, World, spectest};

/// Why there is no output.
pub enum No {
    /// The engine cannot run the module.
    Engine,
    /// A clear error, without what is of one module only.
    Refused(String),
    Crashed(String),
}

/// What is done before the module is instantiated.
pub enum Before<'m> {
    /// A module is, that it may import from.
    Preload { name: &'m str, wasm: &'m [u8] },
    /// Such a module is asked.
    Ask { name: &'m str, what: &'m Question },
}

pub trait Subject {
    fn ask(&mut self, what: &Question) -> Result<(), No>;
    /// Asks a module that was instantiated before.
    fn ask_preload(&mut self, name: &str, what: &Question) -> Result<(), No>;
    fn snapshot(&mut self) -> Result<Vec<u8>, No>;
}

/// Makes subjects.
#[derive(Clone, Copy)]
pub enum Maker {
    Session(Engine),
    Peer,
}

impl Maker {
    /// A subject that was just instantiated.
    pub fn make<'m>(
        self,
        judge: &Judge,
        script: &str,
        before: &[Before<'_>],
        asks_preloads: bool,
        module: &'m [u8],
    ) -> Result<Box<dyn Subject + 'm>, No> {
        match self {
            Maker::Session(engine) => {
                let mut wizer = Wizer::new();
                wizer.engine(engine).cache(CacheLocation::Off);
                wizer.preload_bytes("spectest", spectest(script));
                // The judge does the same with the originals.
                wizer.allow_preload_changes(asks_preloads);
                for step in before {
                    match step {
                        Before::Preload { name, wasm } => {
                            wizer.preload_bytes(*name, *wasm);
                        }
                        Before::Ask { name, what } => {
                            if let Question::Call { name: export, args } = what {
                                let args = args.iter().map(|arg| value(*arg));
                                wizer.call_preload(*name, export, args.collect::<Vec<_>>());
                            }
                        }
                    }
                }
                let session = wizer.session(module).map_err(no)?;
                Ok(Box::new(session))
            }
            Maker::Peer => {
                let wizer = wasmtime_wizer::Wizer::new();
                let instrumented = wizer.instrument(module);
                let (context, wasm) =
                    instrumented.map_err(|error| No::Refused(error.root_cause().to_string()))?;
                let module = judge.compile(&wasm).map_err(|_| No::Engine)?;
                let mut world = judge.world(script);
                let mut preloads = BTreeMap::new();
                for step in before {
                    match step {
                        Before::Preload { name, wasm } => {
                            let preload = judge.compile(wasm).map_err(|_| No::Engine)?;
                            let preload = world.instantiate(&preload).map_err(|_| No::Engine)?;
                            world.register(name, preload);
                            preloads.insert(name.to_string(), preload);
                        }
                        Before::Ask { name, what } => {
                            let _ = world.ask(preloads[*name], what, &Wanted::Anything);
                        }
                    }
                }
                let instance = world.instantiate(&module);
                let instance = instance.map_err(|error| No::Crashed(error.to_string()))?;
                Ok(Box::new(Peer {
                    wizer,
                    context,
                    module,
                    world,
                    instance,
                    preloads,
                }))
            }
        }
    }
}

impl Subject for Session {
    fn ask(&mut self, what: &Question) -> Result<(), No> {
        let asked = match what {
            Question::Global { name } => self.global(name).map(drop),
            Question::Call { name, args } => {
                let args: Vec<Value> = args.iter().map(|arg| value(*arg)).collect();
                self.call(name, &args).map(drop)
            }
        };
        is_done(asked)
    }

    fn ask_preload(&mut self, name: &str, what: &Question) -> Result<(), No> {
        match what {
            // Changes nothing.
            Question::Global { .. } => Ok(()),
            Question::Call { name: export, args } => {
                let args: Vec<Value> = args.iter().map(|arg| value(*arg)).collect();
                is_done(self.call_preload(name, export, &args).map(drop))
            }
        }
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, No> {
        Session::snapshot(self)
            .map(|outcome| outcome.wasm)
            .map_err(no)
    }
}

fn is_done(asked: Result<(), Error>) -> Result<(), No> {
    match asked {
        Err(Error::Unsupported { .. }) => Err(No::Engine),
        Err(error @ Error::Option { .. }) => Err(No::Crashed(error.to_string())),
        // What a script wants to trap, traps.
        _ => Ok(()),
    }
}

fn no(error: Error) -> No {
    match error {
        Error::Unsupported { .. } => No::Engine,
        Error::Unrepresentable { item, change, .. } => {
            let kind = item.split(|c: char| c.is_ascii_digit()).next();
            No::Refused(format!("a {}… {change}", kind.unwrap_or_default()))
        }
        error @ (Error::Internal { .. } | Error::ImportMissing { .. }) => {
            No::Crashed(error.to_string())
        }
        other => No::Refused(other.to_string()),
    }
}

fn value(arg: Arg) -> Value {
    match arg {
        Arg::I32(v) => Value::I32(v),
        Arg::I64(v) => Value::I64(v),
        Arg::F32(v) => Value::F32(v),
        Arg::F64(v) => Value::F64(v),
        Arg::V128(v) => Value::V128(v),
        Arg::Null(_) => Value::Ref(Reference::Null),
        Arg::Extern(n) | Arg::Host(n) => Value::Ref(Reference::Extern(n)),
    }
}

struct Peer<'m> {
    wizer: wasmtime_wizer::Wizer,
    context: ModuleContext<'m>,
    module: Module,
    world: World,
    instance: Instance,
    preloads: BTreeMap<String, Instance>,
}

impl Subject for Peer<'_> {
    fn ask(&mut self, what: &Question) -> Result<(), No> {
        let _ = self.world.ask(self.instance, what, &Wanted::Anything);
        Ok(())
    }

    fn ask_preload(&mut self, name: &str, what: &Question) -> Result<(), No> {
        let _ = self.world.ask(self.preloads[name], what, &Wanted::Anything);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, No> {
        let mut state = PeerState {
            globals: BTreeMap::new(),
            memories: BTreeMap::new(),
        };
        for export in self.module.exports() {
            let name = export.name();
            if let Some(value) = self.world.global(self.instance, name) {
                state.globals.insert(name.into(), value);
            }
            if let Some(bytes) = self.world.memory(self.instance, name) {
                state.memories.insert(name.into(), bytes);
            }
        }
        let mut future = std::pin::pin!(self.wizer.snapshot(&self.context, &mut state));
        let mut context = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Ready(Ok(wasm)) => Ok(wasm),
            Poll::Ready(Err(error)) => Err(No::Refused(error.to_string())),
            Poll::Pending => Err(No::Crashed("it waits for nothing".into())),
        }
    }
}

/// What the peer reads of an instance, by the names of its exports.
struct PeerState {
    globals: BTreeMap<String, Val>,
    memories: BTreeMap<String, Vec<u8>>,
}

impl InstanceState for PeerState {
    async fn global_get(&mut self, name: &str, _: wasmparser::ValType) -> SnapshotVal {
        match &self.globals[name] {
            Val::I32(v) => SnapshotVal::I32(*v),
            Val::I64(v) => SnapshotVal::I64(*v),
            Val::F32(v) => SnapshotVal::F32(*v),
            Val::F64(v) => SnapshotVal::F64(*v),
            Val::V128(v) => SnapshotVal::V128(v.as_u128()),
            _ => panic!("it refuses such globals"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        contents(&self.memories[name]);
    }
}
