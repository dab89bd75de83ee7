//! The state of an instance as plain data, free of any engine.
//!
//! Two looks at an instance make a snapshot: a [`Baseline`] before any of its code ran, and the
//! state after. What the module's own initializers and segments would bring about again is not
//! state; the difference is.

mod pages;
pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use wasmparser::ValType;

use crate::error::Error;
use crate::instrument::Instrumented;
use crate::module::{DataSegment, ExternKind, Module, SegmentMode, val_type_name};
use crate::value::{Reference, Value};
use plan::Contents;

/// A live instance of an instrumented module, whoever runs it.
pub trait State {
    /// A memory: its size in pages, and its bytes.
    fn memory(&self, index: u32) -> Result<(u64, &[u8]), Error>;
    /// A global's value.
    fn global(&mut self, index: u32) -> Result<Value, Error>;
    /// A table's slots.
    fn table(&mut self, index: u32) -> Result<Vec<Reference>, Error>;
    /// Whether the probe of this name traps.
    fn traps(&mut self, probe: &str) -> Result<bool, Error>;
}

/// State that will not be written, as it was before any code of the instance ran: the output's
/// own instantiation brings it about again, so it must not have changed.
pub struct Baseline {
    tables: Vec<Vec<Reference>>,
    globals: BTreeMap<u32, Value>,
    memories: BTreeMap<u32, Contents>,
    /// Whether each segment was dropped, by its probe.
    segments: BTreeMap<String, bool>,
}

impl Baseline {
    /// Reads what a snapshot of this instance will not write.
    pub fn capture(
        state: &mut dyn State,
        module: &Module<'_>,
        code: &Instrumented,
    ) -> Result<Baseline, Error> {
        Baseline::read(state, module, code, false)
    }

    /// Reads everything, of an instance that will not be written at all.
    pub fn capture_all(
        state: &mut dyn State,
        module: &Module<'_>,
        code: &Instrumented,
    ) -> Result<Baseline, Error> {
        Baseline::read(state, module, code, true)
    }

    fn read(
        state: &mut dyn State,
        module: &Module<'_>,
        code: &Instrumented,
        all: bool,
    ) -> Result<Baseline, Error> {
        let tables = module
            .tables
            .all()
            .map(|(index, _)| state.table(index))
            .collect::<Result<_, _>>()?;
        let mut globals = BTreeMap::new();
        for &index in &code.globals {
            if all || !is_written(module, index) {
                globals.insert(index, state.global(index)?);
            }
        }
        let mut memories = BTreeMap::new();
        for (index, _) in module.memories.all() {
            if all || index < module.memories.imported() {
                memories.insert(index, Contents::of(state.memory(index)?.1));
            }
        }
        let mut segments = BTreeMap::new();
        if all {
            let data = passive_data(module).map(|index| code.names.data(index));
            let elements = passive_elements(module).map(|index| code.names.element(index));
            for probe in data.chain(elements) {
                let dropped = state.traps(&probe)?;
                segments.insert(probe, dropped);
            }
        }
        Ok(Baseline {
            tables,
            globals,
            memories,
            segments,
        })
    }

    /// Compares the state with what it was.
    ///
    /// # Errors
    ///
    /// [`Error::Unrepresentable`] with the first item that is not what it was.
    pub fn check(
        &self,
        state: &mut dyn State,
        module: &Module<'_>,
        _: &Instrumented,
    ) -> Result<(), Error> {
        const CHANGED: &str = "was changed by the initialization";
        const OBJECT: &str = "holds an object of the garbage-collected heap";
        for (&index, &before) in &self.globals {
            let after = state.global(index)?;
            let global = || describe_global(module, index);
            if after == Value::Ref(Reference::Object) {
                return Err(unrepresentable(global(), OBJECT));
            }
            if after != before {
                return Err(unrepresentable(global(), CHANGED));
            }
        }
        for ((index, _), before) in module.tables.all().zip(&self.tables) {
            let after = state.table(index)?;
            let table = || describe(module, ExternKind::Table, index);
            if after.len() != before.len() {
                let (from, to) = (before.len(), after.len());
                let change = format!("was grown by the initialization from {from} to {to} slots");
                return Err(unrepresentable(table(), &change));
            }
            for (slot, (before, after)) in before.iter().zip(&after).enumerate() {
                let item = || format!("slot {slot} of {}", table());
                if *after == Reference::Object {
                    return Err(unrepresentable(item(), OBJECT));
                }
                if before != after {
                    return Err(unrepresentable(item(), CHANGED));
                }
            }
        }
        for (&index, before) in &self.memories {
            if Contents::of(state.memory(index)?.1) != *before {
                let memory = describe(module, ExternKind::Memory, index);
                return Err(unrepresentable(memory, CHANGED));
            }
        }
        for (probe, before) in &self.segments {
            if state.traps(probe)? != *before {
                return Err(unrepresentable("a passive segment".into(), "was dropped"));
            }
        }
        Ok(())
    }
}

/// The passive data segments that can be dropped, and whose drop can be noticed.
fn passive_data(module: &Module<'_>) -> impl Iterator<Item = u32> {
    (0..).zip(&module.data).filter_map(|(index, segment)| {
        let passive = segment.mode == SegmentMode::Passive && !segment.bytes.is_empty();
        // Without a data count section no instruction can drop a data segment.
        (passive && module.has_data_count).then_some(index)
    })
}

/// The passive element segments whose drop can be noticed.
fn passive_elements(module: &Module<'_>) -> impl Iterator<Item = u32> {
    (0..).zip(&module.elements).filter_map(|(index, segment)| {
        (segment.mode == SegmentMode::Passive && segment.len > 0).then_some(index)
    })
}

/// What the output must hold that the input does not.
pub struct Snapshot<'s> {
    /// The memories that the module defines.
    pub memories: Vec<MemorySnapshot<'s>>,
    /// The values of the mutable numeric globals that the module defines.
    pub globals: BTreeMap<u32, Value>,
    /// The passive data segments that were dropped.
    pub dropped_data: BTreeSet<u32>,
    /// The passive element segments that were dropped.
    pub dropped_elements: BTreeSet<u32>,
}

/// One memory.
pub struct MemorySnapshot<'s> {
    pub index: u32,
    /// Its size, in pages.
    pub pages: u64,
    pub bytes: &'s [u8],
    /// What to write as data segments; everything else is zero.
    pub segments: Vec<Range<usize>>,
}

impl<'s> Snapshot<'s> {
    /// Reads the state of an instance after its initialization, for an output of at most
    /// `max_segments` data segments.
    ///
    /// # Errors
    ///
    /// [`Error::Unrepresentable`] where the state changed in a way that cannot be written, and
    /// [`Error::TooManySegments`].
    pub fn capture<S: State>(
        state: &'s mut S,
        module: &Module<'_>,
        code: &Instrumented,
        baseline: &Baseline,
        max_segments: usize,
    ) -> Result<Snapshot<'s>, Error> {
        baseline.check(state, module, code)?;
        let mut globals = BTreeMap::new();
        for (index, global) in module.globals.defined() {
            if global.ty.mutable && is_written(module, index) {
                globals.insert(index, state.global(index)?);
            }
        }
        let mut dropped_data = BTreeSet::new();
        for index in passive_data(module) {
            if state.traps(&code.names.data(index))? {
                dropped_data.insert(index);
            }
        }
        let mut dropped_elements = BTreeSet::new();
        for index in passive_elements(module) {
            if state.traps(&code.names.element(index))? {
                dropped_elements.insert(index);
            } else if module.elements[index as usize].makes_objects {
                return Err(unrepresentable(
                    format!("element segment {index}"),
                    "holds objects of the garbage-collected heap",
                ));
            }
        }

        let state: &'s S = state;
        let mut memories = Vec::new();
        for (index, ty) in module.memories.defined() {
            let (pages, bytes) = state.memory(index)?;
            memories.push(MemorySnapshot {
                index,
                pages,
                bytes,
                segments: plan::segments(bytes, index, ty.memory64),
            });
        }
        let others = module
            .data
            .iter()
            .filter(|s| !is_rewritten(module, s))
            .count();
        let room = max_segments.saturating_sub(others);
        let needed = memories.iter().filter(|m| !m.segments.is_empty()).count();
        if needed > room {
            return Err(Error::TooManySegments {
                needed: needed + others,
                limit: max_segments,
            });
        }
        plan::limit(&mut memories, room);
        Ok(Snapshot {
            memories,
            globals,
            dropped_data,
            dropped_elements,
        })
    }
}

/// Whether the output has new segments in the place of this one.
pub fn is_rewritten(module: &Module<'_>, segment: &DataSegment<'_>) -> bool {
    matches!(segment.mode, SegmentMode::Active(memory) if memory >= module.memories.imported())
}

/// Whether the snapshot holds a global's value, so that it may change.
fn is_written(module: &Module<'_>, index: u32) -> bool {
    index >= module.globals.imported()
        && module
            .globals
            .get(index)
            .is_some_and(|g| !matches!(g.ty.content_type, ValType::Ref(_)))
}

fn unrepresentable(item: String, change: &str) -> Error {
    Error::Unrepresentable {
        item,
        change: change.into(),
        help: None,
    }
}

fn describe_global(module: &Module<'_>, index: u32) -> String {
    let name = describe(module, ExternKind::Global, index);
    match module.globals.get(index) {
        Some(global) => format!("{name} of type {}", val_type_name(global.ty.content_type)),
        None => name,
    }
}

/// A thing's name for people: its kind and index, and how it is imported or exported.
fn describe(module: &Module<'_>, kind: ExternKind, index: u32) -> String {
    let name = format!("{} {index}", kind.name());
    if let Some(import) = module.import(kind, index) {
        return format!("{name} (the import `{}::{}`)", import.module, import.name);
    }
    let mut exports = module.exports.iter();
    match exports.find(|e| e.kind == kind && e.index == index) {
        Some(export) => format!("{name} (the export `{}`)", export.name),
        None => name,
    }
}
