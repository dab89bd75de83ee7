//! The state of an instance as plain data, free of any engine.
//!
//! Two looks at an instance make a snapshot: a [`Baseline`] before any of its code ran, and the
//! state after. What the module's own initializers and segments would bring about again is not
//! state; the difference is.

pub mod objects;
mod pages;
pub mod plan;
pub mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use wasmparser::ValType;

use crate::error::Error;
use crate::instrument::{Instrumented, Names};
use crate::module::{DataSegment, ElementSegment, ExternKind, Module, SegmentMode, val_type_name};
use crate::value::{Reference, Value};
use objects::{Object, Objects};
use plan::Contents;
use references::{Item, Referents, TableSnapshot};

/// A live instance of an instrumented module, whoever runs it.
pub trait State {
    /// A memory: its size in pages, and its bytes.
    fn memory(&self, index: u32) -> Result<(u64, &[u8]), Error>;
    /// A global's value.
    fn global(&mut self, index: u32) -> Result<Value, Error>;
    /// A table's slots.
    fn table(&mut self, index: u32) -> Result<Vec<Reference>, Error>;
    /// What an object holds that a global, a table or another object gave a handle of; `None` if
    /// that is more than `most` values.
    fn object(&mut self, handle: u32, most: usize) -> Result<Option<Object>, Error>;
    /// The functions that references can be of, as in [`Instrumented::functions`].
    fn functions(&mut self) -> Result<Vec<Reference>, Error>;
    /// Whether the probe of this name traps.
    fn traps(&mut self, probe: &str) -> Result<bool, Error>;
}

/// What a module imports, as it was before the module was instantiated: the output finds it like
/// this again.
#[derive(Default)]
pub struct Found {
    memories: Vec<Contents>,
    tables: Vec<Vec<Reference>>,
}

impl Found {
    /// Reads it through an instance of the module's observer, which imports the same.
    pub fn capture(state: &mut dyn State, observer: &Module<'_>) -> Result<Found, Error> {
        let mut found = Found::default();
        for (index, _) in observer.memories.all() {
            found.memories.push(Contents::of(state.memory(index)?.1));
        }
        for (index, _) in observer.tables.all() {
            found.tables.push(state.table(index)?);
        }
        Ok(found)
    }
}

/// State as it was before any code of the instance ran: what is still like this, the output's own
/// instantiation brings about again.
pub struct Baseline {
    tables: Vec<Vec<Reference>>,
    globals: BTreeMap<u32, Value>,
    /// The objects to which these lead.
    objects: Objects,
    memories: BTreeMap<u32, Contents>,
    /// Whether each segment was dropped, by its probe.
    segments: BTreeMap<String, bool>,
    /// The numbers in the module's own mutable globals, where other instances may need them.
    numbers: BTreeMap<u32, Value>,
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
            .collect::<Result<Vec<_>, _>>()?;
        let mut globals = BTreeMap::new();
        for &index in &code.globals {
            if all || !is_written(module, index) {
                globals.insert(index, state.global(index)?);
            }
        }
        let mut objects = Objects::default();
        let slots = tables.iter().flatten().copied().map(Value::Ref);
        for value in slots.chain(globals.values().copied()) {
            objects.read(state, value)?;
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
        let mut numbers = BTreeMap::new();
        if module.imports_shared_memory() {
            for (index, global) in module.globals.defined() {
                if global.ty.mutable && is_number(global.ty.content_type) {
                    numbers.insert(index, state.global(index)?);
                }
            }
        }
        Ok(Baseline {
            tables,
            globals,
            objects,
            memories,
            segments,
            numbers,
        })
    }

    /// Compares the state of an instance that will not be written with what it was. What is
    /// `shared` with the module that will be is written there.
    ///
    /// # Errors
    ///
    /// [`Error::Unrepresentable`] with the first item that is not what it was.
    pub fn check(
        &self,
        state: &mut dyn State,
        module: &Module<'_>,
        names: &Names,
        shared: &dyn Fn(ExternKind, u32) -> bool,
    ) -> Result<(), Error> {
        let mut comparison = self.objects.comparison();
        for (&index, &before) in &self.globals {
            if shared(ExternKind::Global, index) {
                continue;
            }
            let after = state.global(index)?;
            if let Some(what) = untold(after) {
                return Err(unrepresentable(describe_global(module, index), what));
            }
            if let Some(complaint) = comparison.complaint(state, after)? {
                return Err(unrepresentable(describe_global(module, index), &complaint));
            }
            if after != before {
                return Err(unrepresentable(describe_global(module, index), CHANGED));
            }
        }
        for ((index, _), before) in module.tables.all().zip(&self.tables) {
            if shared(ExternKind::Table, index) {
                continue;
            }
            let after = state.table(index)?;
            let table = || describe(module, ExternKind::Table, index);
            if after.len() != before.len() {
                let (from, to) = (before.len(), after.len());
                let change = format!("was grown by the initialization from {from} to {to} slots");
                return Err(unrepresentable(table(), &change));
            }
            for (slot, (before, after)) in before.iter().zip(&after).enumerate() {
                let item = || format!("slot {slot} of {}", table());
                if let Some(what) = untold(Value::Ref(*after)) {
                    return Err(unrepresentable(item(), what));
                }
                if let Some(complaint) = comparison.complaint(state, Value::Ref(*after))? {
                    return Err(unrepresentable(item(), &complaint));
                }
                if before != after {
                    return Err(unrepresentable(item(), CHANGED));
                }
            }
        }
        for (&index, before) in &self.memories {
            if shared(ExternKind::Memory, index) {
                continue;
            }
            if Contents::of(state.memory(index)?.1) != *before {
                let memory = describe(module, ExternKind::Memory, index);
                return Err(unrepresentable(memory, CHANGED));
            }
        }
        let data = passive_data(module).map(|i| (format!("data segment {i}"), names.data(i)));
        let elements = passive_elements(module);
        let elements = elements.map(|i| (format!("element segment {i}"), names.element(i)));
        for (segment, probe) in data.chain(elements) {
            if state.traps(&probe)? != self.segments[&probe] {
                return Err(unrepresentable(segment, "was dropped"));
            }
        }
        for index in passive_elements(module) {
            let is_dropped = self.segments.get(&names.element(index)) == Some(&true);
            if module.elements[index as usize].makes_mutable && !is_dropped {
                return Err(unrepresentable(format!("element segment {index}"), OBJECTS));
            }
        }
        Ok(())
    }
}

const CHANGED: &str = "was changed by the initialization";
const OBJECT: &str = "holds an object of the garbage-collected heap";
const OBJECTS: &str = "holds objects of the garbage-collected heap that can be changed";

/// What a value is that cannot be told from another one, and whose insides may have changed.
fn untold(value: Value) -> Option<&'static str> {
    match value {
        Value::Ref(Reference::Object) => Some(OBJECT),
        Value::Ref(Reference::Exception) => Some("holds an exception that was caught"),
        _ => None,
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
#[derive(Default)]
pub struct Snapshot<'s> {
    /// The memories that the module defines, and imported ones that changed.
    pub memories: Vec<MemorySnapshot<'s>>,
    /// The tables that changed.
    pub tables: Vec<TableSnapshot>,
    /// The values of the mutable globals that the module defines; of those that hold references,
    /// the ones that changed.
    pub globals: BTreeMap<u32, Constant>,
    /// The passive data segments that were dropped.
    pub dropped_data: BTreeSet<u32>,
    /// The passive element segments that were dropped.
    pub dropped_elements: BTreeSet<u32>,
    /// Where state is shared, and the first instance alone is to bring it about.
    pub guard: Option<Guard>,
}

/// How the first instance knows that it is the first.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// The shared memory.
    pub memory: u32,
    pub memory64: bool,
    /// Where in it the flag is: 0 at first, 1 while the first instance is at work, and then 2.
    pub flag: u64,
}

impl Guard {
    /// The bytes of the flag.
    fn flag(&self) -> Range<usize> {
        let start = self.flag as usize;
        start..start + 4
    }
}

/// A value that a constant expression can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// A number or vector.
    Number(Value),
    Reference(Item),
}

/// One memory.
pub struct MemorySnapshot<'s> {
    pub index: u32,
    /// Its size, in pages.
    pub pages: u64,
    pub bytes: &'s [u8],
    /// What to write as data segments; everything else is there without.
    pub segments: Vec<Range<usize>>,
}

/// What a module was before it ran.
pub struct Origin {
    pub found: Found,
    pub baseline: Baseline,
}

impl<'s> Snapshot<'s> {
    /// Reads the state of an instance after its initialization, for an output of at most
    /// `max_segments` data segments. `identify` tells which references are of which functions.
    ///
    /// # Errors
    ///
    /// [`Error::Unrepresentable`] where the state changed in a way that cannot be written, and
    /// [`Error::TooManySegments`].
    pub fn capture<S: State>(
        state: &'s mut S,
        module: &Module<'_>,
        code: &Instrumented,
        origin: &Origin,
        max_segments: usize,
        identify: impl FnOnce(&mut S) -> Result<Referents, Error>,
    ) -> Result<Snapshot<'s>, Error> {
        let mut snapshot = Snapshot::default();
        snapshot.read_references(state, module, origin, identify)?;
        for (index, global) in module.globals.defined() {
            if global.ty.mutable && is_number(global.ty.content_type) {
                let value = Constant::Number(state.global(index)?);
                snapshot.globals.insert(index, value);
            }
        }
        for index in passive_data(module) {
            if state.traps(&code.names.data(index))? {
                snapshot.dropped_data.insert(index);
            }
        }
        for index in passive_elements(module) {
            if state.traps(&code.names.element(index))? {
                snapshot.dropped_elements.insert(index);
            } else if module.elements[index as usize].makes_mutable {
                let segment = format!("element segment {index}");
                return Err(unrepresentable(segment, OBJECTS));
            }
        }
        snapshot.read_memories(state, module, origin, max_segments)?;
        if snapshot.guard.is_some() {
            let before = &origin.baseline.numbers;
            let changed = |index: &u32, now: &mut Constant| match before.get(index) {
                Some(before) => *now != Constant::Number(*before),
                None => true,
            };
            snapshot.globals.retain(changed);
        }
        Ok(snapshot)
    }

    /// The guard of an imported shared memory that changed.
    ///
    /// Every thread's instance would write it again, over what others have done, and has globals,
    /// tables and memories of its own, which the initialization of the first one did not change.
    fn guard(&self, module: &Module<'_>, memory: u32, origin: &Origin) -> Result<Guard, Error> {
        let item = describe(module, ExternKind::Memory, memory);
        let refuse = |why: &str| Err(unrepresentable(item.clone(), why));
        let has_reference = |constant: &Constant| matches!(constant, Constant::Reference(_));
        if !self.tables.is_empty()
            || !self.dropped_elements.is_empty()
            || self.globals.values().any(has_reference)
        {
            return refuse(
                "is shared between instances, and tables or references changed besides it, which \
                 each instance has for itself",
            );
        }
        if self.guard.is_some() || module.memories.len() > 1 {
            return refuse("is shared between instances, and the module has another memory");
        }
        let Some(init) = module.shared_memory_init(memory) else {
            return refuse(
                "is shared between instances, and the module has no start function like that of \
                 `wasm-ld`, by whose flag one of them could write it",
            );
        };
        let guard = Guard {
            memory,
            memory64: module.memories.get(memory).is_some_and(|ty| ty.memory64),
            flag: init.flag,
        };
        if origin.found.memories[memory as usize].bytes(guard.flag()) != [0; 4] {
            return refuse(
                "is shared between instances, and its flag said before that one of them has \
                 initialized it",
            );
        }
        if self
            .dropped_data
            .iter()
            .any(|index| !init.drops.contains(index))
        {
            return refuse(
                "is shared between instances, and a passive data segment was dropped besides it, \
                 which each instance has for itself",
            );
        }
        Ok(guard)
    }

    /// Reads tables and globals of reference types.
    fn read_references<S: State>(
        &mut self,
        state: &mut S,
        module: &Module<'_>,
        origin: &Origin,
        identify: impl FnOnce(&mut S) -> Result<Referents, Error>,
    ) -> Result<(), Error> {
        let mut comparison = origin.baseline.objects.comparison();
        let mut globals = Vec::new();
        for (&index, before) in &origin.baseline.globals {
            let after = state.global(index)?;
            if let Some(what) = untold(after) {
                return Err(unrepresentable(describe_global(module, index), what));
            }
            if let Some(complaint) = comparison.complaint(state, after)? {
                return Err(unrepresentable(describe_global(module, index), &complaint));
            }
            if after == *before {
                continue;
            }
            match after {
                Value::Ref(after) if index >= module.globals.imported() => {
                    globals.push((index, after));
                }
                _ => return Err(unrepresentable(describe_global(module, index), CHANGED)),
            }
        }
        let mut tables = Vec::new();
        for ((index, _), before) in module.tables.all().zip(&origin.baseline.tables) {
            let after = state.table(index)?;
            for (slot, now) in after.iter().copied().map(Value::Ref).enumerate() {
                let complaint = match untold(now) {
                    Some(what) => Some(what.into()),
                    None => comparison.complaint(state, now)?,
                };
                if let Some(complaint) = complaint {
                    let table = describe(module, ExternKind::Table, index);
                    let item = format!("slot {slot} of {table}");
                    return Err(unrepresentable(item, &complaint));
                }
            }
            if after != *before {
                tables.push((index, after));
            }
        }
        if globals.is_empty() && tables.is_empty() {
            return Ok(());
        }
        let mut referents = identify(state)?;
        for (&index, value) in &origin.baseline.globals {
            if let (Value::Ref(value), Some(global)) = (value, module.globals.get(index))
                && !global.ty.mutable
            {
                referents.add_global(index, *value, global.ty.content_type);
            }
        }
        for (index, value) in globals {
            let item = referents.of_global(module, index, value)?;
            self.globals.insert(index, Constant::Reference(item));
        }
        for (index, slots) in tables {
            let found = origin.found.tables.get(index as usize);
            let found = found.map(Vec::as_slice);
            let table = TableSnapshot::plan(module, index, &slots, found, &referents)?;
            self.tables.push(table);
        }
        let kept = module
            .elements
            .iter()
            .filter(|s| !self.replaces_elements(s));
        // And one that declares functions.
        let others = kept.count() + 1;
        references::limit(module, &mut self.tables, others)
    }

    /// Reads memories, which stay where they are.
    fn read_memories<S: State>(
        &mut self,
        state: &'s S,
        module: &Module<'_>,
        origin: &Origin,
        max_segments: usize,
    ) -> Result<(), Error> {
        for (index, ty) in module.memories.all() {
            let (pages, bytes) = state.memory(index)?;
            let segments = match origin.baseline.memories.get(&index) {
                Some(before) if *before == Contents::of(bytes) => continue,
                Some(_) => {
                    let found = &origin.found.memories[index as usize];
                    let mut differences = plan::differences(found, bytes, index, ty.memory64);
                    if ty.shared {
                        let guard = self.guard(module, index, origin)?;
                        plan::leave_out(&mut differences, guard.flag());
                        self.guard = Some(guard);
                    }
                    differences
                }
                None => plan::segments(bytes, index, ty.memory64),
            };
            self.memories.push(MemorySnapshot {
                index,
                pages,
                bytes,
                segments,
            });
        }
        let kept = module.data.iter().filter(|s| !self.replaces_data(s));
        let others = kept.count();
        let mut room = max_segments.saturating_sub(others);
        // What is joined over the flag is cut there again.
        let spare = usize::from(self.guard.is_some());
        room = room.saturating_sub(spare);
        let needed = self.memories.iter().filter(|m| !m.segments.is_empty());
        let needed = needed.count();
        if needed > room {
            return Err(Error::TooManySegments {
                needed: needed + others + spare,
                limit: max_segments,
            });
        }
        plan::limit(&mut self.memories, room);
        if let Some(guard) = &self.guard {
            for memory in &mut self.memories {
                plan::leave_out(&mut memory.segments, guard.flag());
            }
        }
        Ok(())
    }

    /// Whether the output has new segments in the place of this one.
    pub fn replaces_data(&self, segment: &DataSegment<'_>) -> bool {
        match segment.mode {
            SegmentMode::Active(memory) => self.memories.iter().any(|m| m.index == memory),
            _ => false,
        }
    }

    /// Whether the output has new segments in the place of this one.
    pub fn replaces_elements(&self, segment: &ElementSegment) -> bool {
        match segment.mode {
            SegmentMode::Active(table) => self.tables.iter().any(|t| t.index == table),
            _ => false,
        }
    }

    /// The memory of this index, if it is written.
    pub fn memory(&self, index: u32) -> Option<&MemorySnapshot<'s>> {
        self.memories.iter().find(|memory| memory.index == index)
    }

    /// The table of this index, if it is written.
    pub fn table(&self, index: u32) -> Option<&TableSnapshot> {
        self.tables.iter().find(|table| table.index == index)
    }
}

/// Whether the snapshot always holds a global's value, so that it may change.
fn is_written(module: &Module<'_>, index: u32) -> bool {
    index >= module.globals.imported()
        && module
            .globals
            .get(index)
            .is_some_and(|g| is_number(g.ty.content_type))
}

fn is_number(ty: ValType) -> bool {
    !matches!(ty, ValType::Ref(_))
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
