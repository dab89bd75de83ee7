//! Sessions from JavaScript: each step is a task of its own on the thread pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use napi::{Env, Task};

use super::link::{JsValues, Waker};
use super::{SendWizer, Settled, panicked};
use crate::error::Error;
use crate::session::Session;
use crate::value::Value;
use crate::wizer::Failure;

/// A session, where there is one, for the steps to come.
pub type Slot = Arc<Mutex<Option<Session>>>;

/// What is done with a session.
pub enum Step {
    Open(Box<SendWizer>, Vec<u8>),
    Call(String, Vec<Value>),
    CallBeside(String, String, Vec<Value>),
    CallIndirect(Option<String>, u64, Vec<Value>),
    Global(String),
    /// How many bytes a memory has.
    MemorySize(Option<String>),
    /// As many bytes, or those up to the first that is 0.
    ReadMemory(Option<String>, u64, Option<u64>),
    WriteMemory(Option<String>, u64, Vec<u8>),
    Register(String),
    Instantiate(String, Vec<u8>),
    Snapshot,
    Close,
}

/// One step on the thread pool.
pub struct StepTask {
    pub slot: Slot,
    pub step: Step,
    /// Lets the step reach the JavaScript thread as long as it lasts.
    pub waker: Waker,
}

impl Task for StepTask {
    type Output = Result<Stepped, Box<Failure>>;
    type JsValue = Settled;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        let _step = self.waker.step();
        let work = AssertUnwindSafe(|| step(&self.slot, &mut self.step));
        Ok(catch_unwind(work).unwrap_or_else(|_| Err(panicked())))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> napi::Result<Settled> {
        Ok(match output {
            Ok(Stepped::Nothing) => Settled::default(),
            Ok(Stepped::Values(values)) => Settled {
                values: Some(JsValues(values)),
                ..Settled::default()
            },
            Ok(Stepped::Bytes(bytes)) => Settled {
                bytes: Some(bytes.into()),
                ..Settled::default()
            },
            Ok(Stepped::Written(outcome)) => Ok(*outcome).into(),
            Err(failure) => Err(failure).into(),
        })
    }
}

/// What a step gives.
pub enum Stepped {
    Nothing,
    Values(Vec<Value>),
    Bytes(Vec<u8>),
    Written(Box<crate::wizer::Outcome>),
}

fn step(slot: &Slot, step: &mut Step) -> Result<Stepped, Box<Failure>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Step::Open(wizer, wasm) = step {
        *slot = Some(wizer.0.session_or_output(wasm)?);
        return Ok(Stepped::Nothing);
    }
    if let Step::Close = step {
        slot.take();
        return Ok(Stepped::Nothing);
    }
    let Some(session) = &mut *slot else {
        return Err(Error::option("the session is closed").into());
    };
    let done = match step {
        Step::Call(name, args) => session.call(name, args).map(Stepped::Values),
        Step::CallBeside(module, name, args) => {
            let called = session.call_beside(module, name, args);
            called.map(Stepped::Values)
        }
        Step::CallIndirect(table, slot, args) => {
            let called = session.call_indirect(table.as_deref(), *slot, args);
            called.map(Stepped::Values)
        }
        Step::MemorySize(name) => {
            let size = session.memory(name.as_deref()).map(<[u8]>::len);
            size.map(|size| Stepped::Values(vec![(size as f64).into()]))
        }
        Step::ReadMemory(name, address, length) => {
            let (name, address) = (name.as_deref(), *address);
            let bytes = match length {
                Some(length) => session.read_memory(name, address, *length),
                None => session.read_c_string(name, address),
            };
            bytes.map(|bytes| Stepped::Bytes(bytes.to_vec()))
        }
        Step::WriteMemory(name, address, bytes) => {
            let written = session.write_memory(name.as_deref(), *address, bytes);
            written.map(|()| Stepped::Nothing)
        }
        Step::Global(name) => session.global(name).map(|v| Stepped::Values(vec![v])),
        Step::Register(name) => session.register(name).map(|()| Stepped::Nothing),
        Step::Instantiate(name, wasm) => {
            let done = session.instantiate(name, wasm);
            done.map(|()| Stepped::Nothing)
        }
        _ => session
            .snapshot()
            .map(|outcome| Stepped::Written(Box::new(outcome))),
    };
    done.map_err(|error| {
        let (stdout, stderr) = session.output();
        Box::new(Failure {
            error,
            stdout,
            stderr,
        })
    })
}
