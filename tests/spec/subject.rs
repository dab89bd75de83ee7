//! Who is judged: a session of this crate, or the crate `wasmtime-wizer` of the same wasmtime.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use serde_json::{Value as Json, json};
use wasmtime_wizer::{InstanceState, ModuleContext, SnapshotVal};
use wizer::wasmtime::{ExternType, Instance, Module, Val};
use wizer::{CacheLocation, Engine, Error, Reference, Session, Value, Wizer};

use crate::corpus;
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
                                wizer.call_preload(*name, export, values(args));
                            }
                        }
                        Beside::Register { .. } => unreachable!("it is not there yet"),
                    }
                }
                let session = wizer.session(module);
                if engine == Engine::Optimizing && corpus::is_wanted() {
                    let record = Record::new(judge, script, before, others_change, module);
                    return record.follow(session);
                }
                Ok(Box::new(session.map_err(no)?))
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
        is_done(ask(self, what))
    }

    fn beside(&mut self, step: &Beside<'_>) -> Result<(), No> {
        is_done(beside(self, step))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, No> {
        let outcome = Session::snapshot(self);
        outcome.map(|outcome| outcome.wasm).map_err(no)
    }
}

fn ask(session: &mut Session, what: &Question) -> Result<Vec<Value>, Error> {
    match what {
        Question::Global { name } => session.global(name).map(|value| vec![value]),
        Question::Call { name, args } => session.call(name, &values(args)),
    }
}

fn beside(session: &mut Session, step: &Beside<'_>) -> Result<Vec<Value>, Error> {
    let nothing = |()| Vec::new();
    match step {
        Beside::Instantiate { name, wasm } => session.instantiate(name, wasm).map(nothing),
        Beside::Register { name } => session.register(name).map(nothing),
        Beside::Ask { name, what } => match what {
            // Changes nothing.
            Question::Global { .. } => Ok(Vec::new()),
            Question::Call { name: export, args } => {
                session.call_beside(name, export, &values(args))
            }
        },
    }
}

fn is_done<T>(asked: Result<T, Error>) -> Result<(), No> {
    match asked {
        Err(Error::Unsupported { .. }) => Err(No::Engine),
        // What a script wants to trap, traps.
        Ok(_) | Err(Error::Trap(_)) => Ok(()),
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

fn values(args: &[Arg]) -> Vec<Value> {
    args.iter().map(|arg| value(*arg)).collect()
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

/// What is done with a session and what comes of it, for the corpus.
struct Record {
    /// The line of the corpus, without the steps.
    line: Json,
    steps: Vec<Json>,
}

impl Record {
    /// What comes before the session, as JavaScript can ask for it: calls of preloaded modules are
    /// made by further modules, and none may trap.
    fn new(
        judge: &Judge,
        name: &str,
        before: &[Beside<'_>],
        others_change: bool,
        module: &[u8],
    ) -> Record {
        let mut modules = vec![("spectest".to_string(), spectest(name).into_bytes())];
        let mut can_be_asked = true;
        for step in before {
            match step {
                Beside::Instantiate { name, wasm } => modules.push((name.clone(), wasm.to_vec())),
                Beside::Ask { name, what } => {
                    if let Question::Call { name: export, args } = what {
                        let of = modules.iter().find(|(other, _)| other == name);
                        match of.and_then(|(_, wasm)| caller(judge, name, wasm, export, args)) {
                            Some(wasm) => modules.push((format!("call {}", modules.len()), wasm)),
                            None => can_be_asked = false,
                        }
                    }
                }
                Beside::Register { .. } => unreachable!("it is not there yet"),
            }
        }
        let mut wizer = Wizer::new();
        wizer
            .engine(Engine::Optimizing)
            .cache(CacheLocation::Off)
            .allow_preload_changes(others_change);
        for (name, wasm) in &modules {
            wizer.preload_bytes(name, wasm.as_slice());
        }
        can_be_asked &= !matches!(wizer.session(module), Err(Error::Trap(_)));
        let modules = modules.iter();
        let modules = modules.map(|(name, wasm)| (name.as_str(), wasm.as_slice()));
        Record {
            line: json!({
                "name": name,
                "wasm": corpus::bytes(module),
                "preload": corpus::modules(modules),
                "options": { "allowPreloadChanges": others_change },
                "canBeAsked": can_be_asked,
            }),
            steps: Vec::new(),
        }
    }

    /// The session as a subject that is written down.
    fn follow<'m>(mut self, session: Result<Session, Error>) -> Result<Box<dyn Subject + 'm>, No> {
        self.line["opened"] = corpus::outcome(&session, |_| Json::Null);
        Ok(Box::new(Recorded {
            record: self,
            session: session.map_err(no)?,
        }))
    }

    fn step(&mut self, step: Json, ended: &Result<Vec<Value>, Error>) {
        let ended = corpus::outcome(ended, |values| corpus::values(values));
        self.steps.push(json!([step, ended]));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.line["steps"] = std::mem::take(&mut self.steps).into();
        corpus::line(&self.line);
    }
}

/// A module that makes a call as it is instantiated. `None` where that cannot be written so.
fn caller(judge: &Judge, name: &str, wasm: &[u8], export: &str, args: &[Arg]) -> Option<Vec<u8>> {
    let module = judge.compile(wasm).ok()?;
    let ExternType::Func(ty) = module.get_export(export)? else {
        return None;
    };
    let params: String = ty.params().map(|ty| format!(" {ty}")).collect();
    let results: String = ty.results().map(|ty| format!(" {ty}")).collect();
    let args = args.iter().map(|arg| {
        Some(match arg {
            Arg::I32(v) => format!("(i32.const {v})"),
            Arg::I64(v) => format!("(i64.const {v})"),
            Arg::F32(bits) => format!("(f32.reinterpret_i32 (i32.const {bits}))"),
            Arg::F64(bits) => format!("(f64.reinterpret_i64 (i64.const {bits}))"),
            Arg::V128(bits) => format!("(v128.const i64x2 {} {})", *bits as u64, bits >> 64),
            Arg::Null(_) | Arg::Extern(_) | Arg::Host(_) => return None,
        })
    });
    let args = args.collect::<Option<String>>()?;
    let drops = "(drop)".repeat(ty.results().len());
    let text = format!(
        "(module (import {name:?} {export:?} (func $f (param{params}) (result{results})))
           (func $call {args} (call $f) {drops}) (start $call))"
    );
    wat::parse_str(text).ok()
}

/// A session, and what is written down of it.
struct Recorded {
    session: Session,
    record: Record,
}

impl Subject for Recorded {
    fn ask(&mut self, what: &Question) -> Result<(), No> {
        let asked = ask(&mut self.session, what);
        let step = match what {
            Question::Global { name } => json!(["global", name]),
            Question::Call { name, args } => json!(["call", name, corpus::values(&values(args))]),
        };
        self.record.step(step, &asked);
        is_done(asked)
    }

    fn beside(&mut self, step: &Beside<'_>) -> Result<(), No> {
        let done = beside(&mut self.session, step);
        let step = match step {
            Beside::Instantiate { name, wasm } => {
                json!(["instantiate", name, corpus::bytes(wasm)])
            }
            Beside::Register { name } => json!(["register", name]),
            Beside::Ask { name, what } => match what {
                Question::Global { .. } => return is_done(done),
                Question::Call { name: export, args } => {
                    json!(["callBeside", name, export, corpus::values(&values(args))])
                }
            },
        };
        self.record.step(step, &done);
        is_done(done)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, No> {
        let written = self.session.snapshot();
        let ended = corpus::outcome(&written, |outcome| corpus::bytes(&outcome.wasm));
        self.record.steps.push(json!([["snapshot"], ended]));
        written.map(|outcome| outcome.wasm).map_err(no)
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
