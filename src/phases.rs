//! The phases of a run one by one, for `benches/phases.rs`. Not a public interface.

use crate::instrument::{Names, instrument};
use crate::module::{Features, Module, validate};
use crate::rewrite::{Exports, rewrite};
use crate::snapshot::{MemorySnapshot, Snapshot, plan};

/// A parsed module.
pub struct Parsed<'a>(Module<'a>);

/// Reads a module's sections.
///
/// # Panics
///
/// Where that cannot be done.
pub fn parse(wasm: &[u8]) -> Parsed<'_> {
    Parsed(Module::parse(wasm).expect("a module"))
}

/// Validates a module.
///
/// # Panics
///
/// Where it is not valid.
pub fn validate_all(wasm: &[u8]) {
    validate(wasm, &Features::default()).expect("a valid module");
}

/// Finds the runs of non-zero bytes. Returns how many there are.
pub fn scan(memory: &[u8]) -> usize {
    plan::runs(memory).len()
}

/// Plans the data segments of a memory. Returns how many there are.
pub fn plan_segments(memory: &[u8]) -> usize {
    memory_snapshot(memory).segments.len()
}

fn memory_snapshot(bytes: &[u8]) -> MemorySnapshot<'_> {
    let mut memory = [MemorySnapshot {
        index: 0,
        pages: bytes.len() as u64 >> 16,
        bytes,
        segments: plan::segments(bytes, 0, false),
    }];
    plan::limit(&mut memory, plan::MAX_SEGMENTS);
    let [memory] = memory;
    memory
}

impl Parsed<'_> {
    /// Makes the module's state readable. Returns the size of the copy.
    pub fn instrument(&self) -> usize {
        instrument(&self.0, &Names::new([&self.0]), 0, true)
            .bytes
            .len()
    }

    /// Writes the module with this memory. Returns the size of the output.
    ///
    /// # Panics
    ///
    /// Where it would be too large.
    pub fn rewrite(&self, planned: &Planned<'_>) -> usize {
        let output = rewrite(&self.0, &planned.0, &Exports::default());
        output.expect("a module of usual size").bytes.len()
    }
}

/// A state that is one memory.
pub struct Planned<'s>(Snapshot<'s>);

/// Plans what there is to be written of a memory.
pub fn planned(memory: &[u8]) -> Planned<'_> {
    Planned(Snapshot {
        memories: vec![memory_snapshot(memory)],
        ..Default::default()
    })
}
