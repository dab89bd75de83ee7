//! What happened in a run: phases and their time, sizes, what the host was asked, warnings.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::options::{Phase, ProgressFn};

/// What happened in a run.
///
/// ```
/// let wat = r#"(module (memory 1) (func (export "wizer.initialize")
///   (i32.store (i32.const 0) (i32.const 42))))"#;
/// let outcome = wizer::Wizer::new().snapshot(wat.as_bytes()).unwrap();
/// assert_eq!(outcome.report.memories[0].segments, 1);
/// ```
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// The engine that ran the module, and why it was chosen.
    pub engine: EngineReport,
    /// The phases in order, and the time that each took.
    pub phases: Vec<PhaseReport>,
    /// The size of the module that was given, in bytes (of the binary format).
    pub input_bytes: u64,
    /// The size of the initialized module, in bytes.
    pub output_bytes: u64,
    /// How far the code moved in the file, in bytes: add it to an offset of the input's code to
    /// find it in the output. Debuggers that count from the code section's start need nothing.
    pub code_shift: i64,
    /// The memories that the module defines.
    pub memories: Vec<MemoryReport>,
    /// The functions of the host that were called, in order of their names.
    pub host_calls: Vec<HostCallReport>,
    /// How often something was read during initialization that is now the same in every
    /// instance of the output.
    pub baked: BakedReport,
    /// Whether the program ended itself, with status 0, where that was allowed.
    pub exited: bool,
    /// Imported immutable globals, whose values at initialization the output relies on.
    pub assumed_globals: Vec<String>,
    /// Custom sections that were left out, because they would no longer be true.
    pub dropped_sections: Vec<String>,
    /// What a user should know although it is no error.
    pub warnings: Vec<String>,
}

/// The engine that ran the module.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EngineReport {
    /// `wasmtime (Winch)` or `wasmtime (Cranelift)`.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PhaseReport {
    /// Which phase.
    pub phase: Phase,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// One memory.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MemoryReport {
    /// Its index in the module.
    pub index: u32,
    /// Its declared size before, in pages.
    pub pages_before: u64,
    /// Its size after initialization, in pages, which is the output's declared size.
    pub pages_after: u64,
    /// How many data segments the output has for it.
    pub segments: u64,
    /// How many bytes they hold.
    pub bytes: u64,
}

/// One function of the host.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostCallReport {
    /// The first name of the import.
    pub module: String,
    /// The second name of the import.
    pub name: String,
    /// How often it was called.
    pub calls: u64,
    /// Whether a stub stood in for it.
    pub stub: bool,
}

/// Reads whose results are the same in every instance from now on.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BakedReport {
    /// Calls for random bytes.
    pub random: u64,
    /// Reads of a clock.
    pub clock: u64,
    /// Reads of the environment variables.
    pub environment: u64,
}

impl BakedReport {
    /// Counts the calls of WASI that read such things.
    pub(crate) fn count(calls: &[HostCallReport]) -> BakedReport {
        let mut baked = BakedReport::default();
        for call in calls
            .iter()
            .filter(|c| c.module == crate::host::wasi::MODULE && !c.stub)
        {
            match call.name.as_str() {
                "random_get" => baked.random += call.calls,
                "clock_time_get" => baked.clock += call.calls,
                "environ_get" => baked.environment += call.calls,
                _ => {}
            }
        }
        baked
    }
}

/// Measures phases and tells of each as it begins.
pub(crate) struct Clock<'p> {
    progress: Option<&'p ProgressFn>,
    current: Option<(Phase, Instant)>,
    done: Vec<(Phase, Duration)>,
}

impl<'p> Clock<'p> {
    pub fn new(progress: Option<&'p ProgressFn>) -> Self {
        Clock {
            progress,
            current: None,
            done: Vec::new(),
        }
    }

    /// Ends the current phase and begins the next.
    pub fn begin(&mut self, phase: Phase) {
        self.end();
        if let Some(progress) = self.progress {
            progress(phase);
        }
        self.current = Some((phase, Instant::now()));
    }

    fn end(&mut self) {
        if let Some((phase, since)) = self.current.take() {
            match self.done.iter_mut().find(|(p, _)| *p == phase) {
                Some((_, time)) => *time += since.elapsed(),
                None => self.done.push((phase, since.elapsed())),
            }
        }
    }

    /// Ends the last phase.
    pub fn finish(mut self) -> Vec<PhaseReport> {
        self.end();
        self.done
            .iter()
            .map(|(phase, time)| PhaseReport {
                phase: *phase,
                ms: time.as_secs_f64() * 1000.0,
            })
            .collect()
    }
}
