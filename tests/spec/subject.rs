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

/// What is done besides asking the module.
pub enum Beside<'m> {
    /// Another one is instantiated.
    Instantiate { name: String, wasm: &'m [u8] },
    /// That is asked.
    Ask { name: &'m str, what: &'m Question },
    /// The module can be imported from by this name.
    Register { name: &'m str },
}

pub trait Subject {
    fn ask(&mut self, what: &Question) -> Result<(), No>;
    fn beside(&mut self, step: &Beside<'_>) -> Result<(), No>;
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
        judge: &'m Judge,
        script: &str,
        before: &[Beside<'_>],
        others_change: bool,
        module: &'m [u8],
    ) -> Result<Box<dyn Subject + 'm>, No> {
        match self {
            Maker::Session(engine) => {
                let mut wizer = Wizer::new();
                wizer.engine(engine).cache(CacheLocation::Off);
                wizer.preload_bytes("spectest", spectest(script));
                wizer.allow_preload_changes(others_change);
                // Scripts want it to.
                wizer.tolerate_traps(true);
                for step in before {
                    match step {
                        Beside::Instantiate { name, wasm } => {
                            wizer.preload_bytes(name, *wasm);
                        }
                        Beside::Ask { name, what } => {
                            if let Question::Call { name: export, args } = what {
                                let args = args.iter().map(|arg| value(*arg));
                                wizer.call_preload(*name, export, args.collect::<Vec<_>>());
                            }
                        }
                        Beside::Register { .. } => unreachable!("it is not there yet"),
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
                let mut others = Others {
                    judge,
                    world: judge.world(script),
                    instances: BTreeMap::new(),
                };
                for step in before {
                    others.step(step)?;
                }
                let instance = others.world.instantiate(&module);
                let instance = instance.map_err(|error| No::Crashed(error.to_string()))?;
                Ok(Box::new(Peer {
                    wizer,
                    context,
                    module,
                    others,
                    instance,
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

    fn beside(&mut self, step: &Beside<'_>) -> Result<(), No> {
        is_done(match step {
            Beside::Instantiate { name, wasm } => self.instantiate(name, wasm),
            Beside::Register { name } => self.register(name),
            Beside::Ask { name, what } => match what {
                // Changes nothing.
                Question::Global { .. } => Ok(()),
                Question::Call { name: export, args } => {
                    let args: Vec<Value> = args.iter().map(|arg| value(*arg)).collect();
                    self.call_beside(name, export, &args).map(drop)
                }
            },
        })
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
        // What a script wants to trap, traps.
        Ok(()) | Err(Error::Trap(_)) => Ok(()),
        Err(other) => Err(No::Crashed(other.to_string())),
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
    others: Others<'m>,
    instance: Instance,
}

/// The other modules of a script, and where they are.
struct Others<'m> {
    judge: &'m Judge,
    world: World,
    instances: BTreeMap<String, Instance>,
}

impl Others<'_> {
    fn step(&mut self, step: &Beside<'_>) -> Result<(), No> {
        match step {
            Beside::Instantiate { name, wasm } => {
                let module = self.judge.compile(wasm).map_err(|_| No::Engine)?;
                // Scripts want some to fail.
                if let Ok(instance) = self.world.instantiate(&module) {
                    self.world.register(name, instance);
                    self.instances.insert(name.clone(), instance);
                }
            }
            Beside::Ask { name, what } => {
                let _ = self
                    .world
                    .ask(self.instances[*name], what, &Wanted::Anything);
            }
            Beside::Register { .. } => unreachable!("the subject knows what it is"),
        }
        Ok(())
    }
}

impl Subject for Peer<'_> {
    fn ask(&mut self, what: &Question) -> Result<(), No> {
        let world = &mut self.others.world;
        let _ = world.ask(self.instance, what, &Wanted::Anything);
        Ok(())
    }

    fn beside(&mut self, step: &Beside<'_>) -> Result<(), No> {
        match step {
            Beside::Register { name } => {
                self.others.world.register(name, self.instance);
                Ok(())
            }
            other => self.others.step(other),
        }
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, No> {
        let mut state = PeerState {
            globals: BTreeMap::new(),
            memories: BTreeMap::new(),
        };
        for export in self.module.exports() {
            let name = export.name();
            let world = &mut self.others.world;
            if let Some(value) = world.global(self.instance, name) {
                state.globals.insert(name.into(), value);
            }
            if let Some(bytes) = world.memory(self.instance, name) {
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
