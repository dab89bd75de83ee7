//! What a report tells about a run, gathered from host, module and snapshot.

use crate::engine::Engine;
use crate::error::counted;
use crate::host::HostState;
use crate::module::Module;
use crate::report::{BakedReport, EngineReport, HostCallReport, MemoryReport, PhaseReport, Report};
use crate::rewrite::Rewritten;
use crate::snapshot::{MemorySnapshot, Snapshot};

/// What is known when the output is written.
pub struct Facts<'f> {
    pub input: &'f Module<'f>,
    pub output: &'f Rewritten,
    pub memories: Vec<MemoryReport>,
    /// What the options gave reason to warn of.
    pub warnings: &'f [String],
}

impl Facts<'_> {
    /// The report on a run of this engine.
    pub fn report(
        self,
        engine: &mut dyn Engine,
        reason: String,
        phases: Vec<PhaseReport>,
    ) -> Report {
        let (host_calls, mut warnings) = host_report(engine.host());
        if self.output.moved_bodies != 0 {
            warnings.push(
                "a start function was added, and function bodies moved by a byte within the code \
                 section: debug information is off by as much"
                    .into(),
            );
        }
        Report {
            engine: EngineReport {
                name: engine.name().into(),
                reason,
            },
            phases,
            input_bytes: self.input.bytes.len() as u64,
            output_bytes: self.output.bytes.len() as u64,
            code_shift: self.output.code_shift,
            memories: self.memories,
            baked: BakedReport::count(&host_calls),
            host_calls,
            assumed_globals: assumed_globals(self.input),
            dropped_sections: self.output.dropped_sections.clone(),
            warnings: self.warnings.iter().cloned().chain(warnings).collect(),
        }
    }
}

/// What the host was asked, and what of it a user should know.
fn host_report(host: &HostState) -> (Vec<HostCallReport>, Vec<String>) {
    let calls = host
        .calls
        .iter()
        .map(|((module, name), calls)| HostCallReport {
            module: module.clone(),
            name: name.clone(),
            calls: *calls,
        })
        .collect();
    let mut warnings = Vec::new();
    let open = host.wasi.as_ref().map_or(0, |wasi| wasi.open.len());
    if open > 0 {
        warnings.push(format!(
            "the initialization left {} open, which will not exist when the output runs; close \
             files before the initialization ends",
            counted(open as u64, "file descriptor")
        ));
    }
    (calls, warnings)
}

/// What became of the memories.
pub fn memory_report(module: &Module<'_>, snapshot: &Snapshot<'_>) -> Vec<MemoryReport> {
    let report = |memory: &MemorySnapshot<'_>| MemoryReport {
        index: memory.index,
        pages_before: module.memories.get(memory.index).map_or(0, |ty| ty.initial),
        pages_after: memory.pages,
        segments: memory.segments.len() as u64,
        bytes: memory.segments.iter().map(|s| s.len() as u64).sum(),
    };
    snapshot.memories.iter().map(report).collect()
}

/// The imported immutable globals, as `module::name`.
fn assumed_globals(module: &Module<'_>) -> Vec<String> {
    let is_assumed =
        |ty: &wasmparser::TypeRef| matches!(ty, wasmparser::TypeRef::Global(g) if !g.mutable);
    let imports = module.imports.iter().filter(|i| is_assumed(&i.ty));
    imports
        .map(|i| format!("{}::{}", i.module, i.name))
        .collect()
}
