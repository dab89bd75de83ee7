//! What a report tells about a run, gathered from host, module and snapshot.

use super::Outcome;
use crate::engine::Engine;
use crate::error::counted;
use crate::host::HostState;
use crate::module::{Module, Proposal, is_valid_without};
use crate::report::{BakedReport, Clock, EngineReport, HostCallReport, MemoryReport, Report};
use crate::rewrite::Rewritten;
use crate::snapshot::references::Item;
use crate::snapshot::{Constant, MemorySnapshot, Snapshot};

/// The custom section that names a source map. Engines count its columns from the file's start,
/// and each of them from the one before.
const SOURCE_MAP: &str = "sourceMappingURL";

/// The output, and what is to be told of it.
pub struct Written<'w> {
    input: &'w Module<'w>,
    output: Rewritten,
    memories: Vec<MemoryReport>,
    warnings: Vec<String>,
}

impl<'w> Written<'w> {
    /// `warnings` are what the options gave reason to warn of.
    pub fn new(
        input: &'w Module<'w>,
        output: Rewritten,
        snapshot: &Snapshot<'_>,
        warnings: &[String],
    ) -> Written<'w> {
        let mut warnings = warnings.to_vec();
        warnings.extend(demanded(input, snapshot));
        warnings.extend(output.customs.warnings.iter().cloned());
        let has_source_map = input.customs().any(|c| c.name == SOURCE_MAP);
        if has_source_map && output.code_shift != 0 {
            warnings.push(format!(
                "the source map of `{SOURCE_MAP}` counts from the start of the file, where the code \
                 moved by {}: add that to the first column in it",
                bytes(output.code_shift)
            ));
        }
        if output.moved_bodies != 0 {
            warnings.push(
                "a function was added, and function bodies moved by a byte within the code section: \
                 debug information is off by as much"
                    .into(),
            );
        }
        Written {
            input,
            output,
            memories: memory_report(input, snapshot),
            warnings,
        }
    }

    /// The output of a run of this engine, with the report.
    pub fn outcome(self, engine: &mut dyn Engine, reason: String, clock: Clock<'_>) -> Outcome {
        let (host_calls, warnings) = host_report(engine.host());
        let report = Report {
            engine: EngineReport {
                name: engine.name().into(),
                reason,
            },
            phases: clock.finish(),
            input_bytes: self.input.bytes.len() as u64,
            output_bytes: self.output.bytes.len() as u64,
            code_shift: self.output.code_shift,
            memories: self.memories,
            baked: BakedReport::count(&host_calls),
            host_calls,
            assumed_globals: assumed_globals(self.input),
            dropped_sections: self.output.customs.dropped,
            warnings: self.warnings.into_iter().chain(warnings).collect(),
        };
        let (stdout, stderr) = engine.host().captured();
        Outcome {
            wasm: self.output.bytes,
            report,
            stdout,
            stderr,
        }
    }
}

/// How far something moved, which may be backwards.
fn bytes(shift: i64) -> String {
    let sign = if shift < 0 { "-" } else { "" };
    format!("{sign}{}", counted(shift.unsigned_abs(), "byte"))
}

/// The proposals that the state demands, where the input does without: only an expression can put
/// null where the host's table has a function, or an integer where references are.
fn demanded(input: &Module<'_>, snapshot: &Snapshot<'_>) -> Vec<String> {
    let holds = |wanted: fn(&Item) -> bool| {
        let tables = snapshot.tables.iter();
        let mut tables = tables.filter(|t| t.runs.iter().flat_map(|run| &run.items).any(wanted));
        tables.next().map(|table| format!("table {}", table.index))
    };
    let is_integer = |constant: &Constant| matches!(constant, Constant::Reference(Item::I31(_)));
    let global = || {
        let mut globals = snapshot.globals.iter();
        let (index, _) = globals.find(|(_, constant)| is_integer(constant))?;
        Some(format!("global {index}"))
    };
    let mut all = Vec::new();
    if let Some(table) = holds(|item| *item == Item::Null)
        && is_valid_without(input.bytes, Proposal::ReferenceTypes)
    {
        all.push(format!(
            "the output needs reference types, which the input does not: {table} has null where \
             its host has a function"
        ));
    }
    if let Some(place) = holds(|item| matches!(item, Item::I31(_))).or_else(global)
        && is_valid_without(input.bytes, Proposal::Gc)
    {
        all.push(format!(
            "the output needs garbage collection, which the input does not: {place} holds an `i31`"
        ));
    }
    all
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
fn memory_report(module: &Module<'_>, snapshot: &Snapshot<'_>) -> Vec<MemoryReport> {
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
