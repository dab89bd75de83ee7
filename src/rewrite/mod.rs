//! State back into a module: the input, with a [`Snapshot`] in the place of its initial state.
//!
//! Function bodies are byte-identical and at the same offset from the code section's start, so
//! that debug information stays true. Sections that hold no state are copied as they are.
//!
//! Before, when `wizer.initialize` has counted `$n` to 42 and stored a byte:
//!
//! ```wat
//! (module
//!   (memory (export "memory") 1)
//!   (global $n (mut i32) (i32.const 0))
//!   (func $init (export "wizer.initialize")
//!     (global.set $n (i32.const 42))
//!     (i32.store8 (i32.const 1024) (i32.const 7))))
//! ```
//!
//! After:
//!
//! ```wat
//! (module
//!   (memory (export "memory") 1)
//!   (global $n (mut i32) (i32.const 42))
//!   (func $init
//!     (global.set $n (i32.const 42))
//!     (i32.store8 (i32.const 1024) (i32.const 7)))
//!   (data (i32.const 1024) "\07"))
//! ```

mod dylink;
mod elements;
mod guarded;
mod names;
mod uses;

use std::collections::{BTreeMap, HashSet};

use wasm_encoder::{ConstExpr, Instruction};
use wasmparser::{RefType, TypeRef, ValType};

use crate::added::Functions;
use crate::error::Error;
use crate::module::{self, ExternKind, Module, SegmentMode, section};
use crate::snapshot::references::Item;
use crate::snapshot::{Constant, Snapshot};
use crate::splice::{Rope, Splice, leading_count_len};
use crate::value::Value;
use names::Customs;

/// The largest output, in bytes: 1 GiB, the limit of engines on a module (V8's
/// `kV8MaxWasmModuleSize`, wasmparser's `MAX_WASM_MODULE_SIZE`).
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;

/// What becomes of the exports.
#[derive(Default)]
pub struct Exports {
    /// The exports to remove.
    pub remove: Vec<String>,
    /// The exports of functions without parameters and results that are to do nothing.
    pub empty: Vec<String>,
    /// New name by old name.
    pub rename: BTreeMap<String, String>,
}

impl Exports {
    /// The name that an export has in the output, if it is there. A rename wins over a removal.
    fn name<'n>(&'n self, export: &'n str) -> Option<&'n str> {
        if let Some(new) = self.rename.get(export) {
            return Some(new);
        }
        let is_overwritten = self.rename.values().any(|new| new == export);
        let is_removed = is_overwritten || self.remove.iter().any(|name| name == export);
        (!is_removed).then_some(export)
    }
}

/// The initialized module.
pub struct Rewritten {
    pub bytes: Vec<u8>,
    /// How far function bodies moved from their place in the input, in bytes.
    pub code_shift: i64,
    /// What became of the custom sections.
    pub customs: Customs,
    /// How many data segments it has.
    pub data_segments: usize,
    /// How far function bodies moved within the code section, in bytes: more functions may take a
    /// longer count.
    pub moved_bodies: i64,
}

/// Writes the initialized module.
///
/// # Errors
///
/// [`Error::OutputTooLarge`].
pub fn rewrite(
    module: &Module<'_>,
    snapshot: &Snapshot<'_>,
    exports: &Exports,
) -> Result<Rewritten, Error> {
    let mut splice = Splice::new(module);
    imports(module, snapshot, &mut splice);
    tables(module, snapshot, &mut splice);
    memories(module, snapshot, &mut splice);
    globals(module, snapshot, &mut splice);
    let mut added = Functions::new(module);
    let removed = self::exports(module, exports, &mut added, &mut splice);
    let elements = elements::elements(module, snapshot, &removed, &mut splice);
    let (data, data_segments) = match &snapshot.guard {
        None => {
            splice.drop(section::START);
            data(module, snapshot, &mut splice)?
        }
        Some(guard) => guarded::write(module, snapshot, guard, &mut added, &mut splice)?,
    };
    added.write(&mut splice);
    let customs = names::customs(module, exports, &elements, &data, &mut splice);

    let spliced = splice.finish();
    within_limit(spliced.bytes.len())?;
    let (mut code_shift, mut moved_bodies) = (0, 0);
    if let (Some(new), Some(old)) = (spliced.code, module.section(section::CODE)) {
        let count_len = |contents| leading_count_len(contents) as i64;
        moved_bodies = count_len(&spliced.bytes[new..]) - count_len(module.contents(old));
        code_shift = new as i64 - old.contents.start as i64 + moved_bodies;
    }
    Ok(Rewritten {
        bytes: spliced.bytes,
        code_shift,
        customs,
        data_segments: data_segments as usize,
        moved_bodies,
    })
}

/// Raises the minimum of imported memories and tables whose state is written: that must fit.
fn imports<'a>(module: &'a Module<'a>, snapshot: &Snapshot<'_>, splice: &mut Splice<'a>) {
    let (mut memories, mut tables) = (0.., 0..);
    let mut raised = false;
    let mut contents = Rope::new();
    contents.leb(module.imports.len() as u32);
    for import in &module.imports {
        let mut ty = import.ty;
        let (minimum, size) = match &mut ty {
            TypeRef::Memory(ty) => {
                let memory = snapshot.memory(memories.next().expect("an endless range"));
                (&mut ty.initial, memory.map_or(0, |memory| memory.pages))
            }
            TypeRef::Table(ty) => {
                let table = snapshot.table(tables.next().expect("an endless range"));
                (&mut ty.initial, table.map_or(0, |table| table.size))
            }
            _ => (&mut 0, 0),
        };
        raised |= size > *minimum;
        *minimum = size.max(*minimum);
        let ty: wasm_encoder::EntityType = ty.try_into().expect("an encodable type");
        contents.encode(import.module);
        contents.encode(import.name).encode(&ty);
    }
    if raised {
        splice.replace(section::IMPORT, contents);
    }
}

/// Raises the minimum of tables that grew.
fn tables<'a>(module: &'a Module<'a>, snapshot: &Snapshot<'_>, splice: &mut Splice<'a>) {
    let size = |index| snapshot.table(index).map(|table| table.size);
    let grew = |(index, table): (u32, &crate::module::Table<'_>)| {
        size(index).is_some_and(|size| size != table.ty.initial)
    };
    if !module.tables.defined().any(grew) {
        return;
    }
    let mut contents = Rope::new();
    contents.leb(module.tables.len() - module.tables.imported());
    for (index, table) in module.tables.defined() {
        let mut ty = table.ty;
        ty.initial = size(index).unwrap_or(ty.initial);
        let ty: wasm_encoder::TableType = ty.try_into().expect("an encodable type");
        match &table.init {
            None => contents.encode(&ty),
            // 0x40 0x00: a table with an initializer.
            Some(init) => contents
                .write(&[0x40, 0])
                .encode(&ty)
                .borrow(&module.bytes[init.get_binary_reader().range()]),
        };
    }
    splice.replace(section::TABLE, contents);
}

/// Raises the minimum of memories that grew.
fn memories(module: &Module<'_>, snapshot: &Snapshot<'_>, splice: &mut Splice<'_>) {
    let pages = |index| snapshot.memory(index).map(|memory| memory.pages);
    let mut grew = false;
    let mut contents = Rope::new();
    contents.leb(module.memories.len() - module.memories.imported());
    for (index, ty) in module.memories.defined() {
        let minimum = pages(index).unwrap_or(ty.initial);
        grew |= minimum != ty.initial;
        contents.encode(&wasm_encoder::MemoryType {
            minimum,
            maximum: ty.maximum,
            memory64: ty.memory64,
            shared: ty.shared,
            page_size_log2: ty.page_size_log2,
        });
    }
    if grew {
        splice.replace(section::MEMORY, contents);
    }
}

/// Replaces the initializers of mutable globals.
fn globals<'a>(module: &'a Module<'a>, snapshot: &Snapshot<'_>, splice: &mut Splice<'a>) {
    // Where there is a guard, each instance begins with the initializers.
    if snapshot.globals.is_empty() || snapshot.guard.is_some() {
        return;
    }
    let mut contents = Rope::new();
    contents.leb(module.globals.len() - module.globals.imported());
    for (index, global) in module.globals.defined() {
        contents.borrow(&module.bytes[global.type_range.clone()]);
        let init = global.init.as_ref().expect("a defined global");
        let constant = match (snapshot.globals.get(&index), global.ty.content_type) {
            (Some(Constant::Number(value)), _) => number(*value),
            (Some(Constant::Reference(item)), ValType::Ref(ty)) => Some(reference(*item, ty)),
            _ => None,
        };
        match constant {
            Some(constant) => contents.encode(&constant),
            None => contents.borrow(&module.bytes[init.get_binary_reader().range()]),
        };
    }
    splice.replace(section::GLOBAL, contents);
}

/// A constant expression for a reference that a place of this type holds.
fn reference(item: Item, ty: RefType) -> ConstExpr {
    match item {
        Item::Null => {
            let ty: wasm_encoder::RefType = ty.try_into().expect("an encodable type");
            ConstExpr::ref_null(ty.heap_type)
        }
        Item::Func(index) => ConstExpr::ref_func(index),
        Item::Global(index) => ConstExpr::global_get(index),
        Item::I31(value) => {
            let mut made = vec![Instruction::I32Const(value as i32), Instruction::RefI31];
            if module::is_external(ty) {
                made.push(Instruction::ExternConvertAny);
            }
            ConstExpr::extended(made)
        }
    }
}

/// A constant expression for a number.
pub fn number(value: Value) -> Option<ConstExpr> {
    Some(match value {
        Value::I32(value) => ConstExpr::i32_const(value),
        Value::I64(value) => ConstExpr::i64_const(value),
        Value::F32(bits) => ConstExpr::f32_const(wasm_encoder::Ieee32::new(bits)),
        Value::F64(bits) => ConstExpr::f64_const(wasm_encoder::Ieee64::new(bits)),
        Value::V128(bits) => ConstExpr::v128_const(bits as i128),
        Value::Ref(_) => return None,
    })
}

/// Removes and renames exports, and puts functions that do nothing in the place of others. Returns
/// the functions that are exported no more.
fn exports<'a>(
    module: &'a Module<'a>,
    policy: &Exports,
    added: &mut Functions,
    splice: &mut Splice<'a>,
) -> Vec<u32> {
    if policy.remove.is_empty() && policy.empty.is_empty() && policy.rename.is_empty() {
        return Vec::new();
    }
    // By type: none of them tells which function it is of.
    let mut empty_functions = BTreeMap::new();
    let mut empty = |of: u32| {
        let ty = *module.functions.get(of).expect("an exported function");
        let function = empty_functions.entry(ty);
        *function.or_insert_with(|| added.push(ty, &[]))
    };
    let mut kept: Vec<(&str, ExternKind, u32)> = Vec::new();
    for export in &module.exports {
        let Some(name) = policy.name(export.name) else {
            continue;
        };
        let index = match policy.empty.iter().any(|empty| empty == export.name) {
            true => empty(export.index),
            false => export.index,
        };
        kept.push((name, export.kind, index));
    }
    let mut contents = Rope::new();
    contents.leb(kept.len() as u32);
    for (name, kind, index) in &kept {
        contents.encode(*name);
        contents.encode(&match kind {
            ExternKind::Func => wasm_encoder::ExportKind::Func,
            ExternKind::Table => wasm_encoder::ExportKind::Table,
            ExternKind::Memory => wasm_encoder::ExportKind::Memory,
            ExternKind::Global => wasm_encoder::ExportKind::Global,
            ExternKind::Tag => wasm_encoder::ExportKind::Tag,
        });
        contents.leb(*index);
    }
    match kept.is_empty() {
        true => splice.drop(section::EXPORT),
        false => splice.replace(section::EXPORT, contents),
    }

    let kept = kept.iter().filter(|(_, kind, _)| *kind == ExternKind::Func);
    let kept: HashSet<u32> = kept.map(|(_, _, index)| *index).collect();
    let before = module.exports.iter().filter(|e| e.kind == ExternKind::Func);
    let mut removed: Vec<u32> = before.map(|export| export.index).collect();
    removed.retain(|function| !kept.contains(function));
    removed
}

/// Whether the output can be as large as it is with data of this size.
fn check_size(module: &Module<'_>, data: usize) -> Result<(), Error> {
    let old = module.section(section::DATA);
    let old = old.map_or(0, |section| section.contents.len());
    within_limit(module.bytes.len() - old + data)
}

fn within_limit(bytes: usize) -> Result<(), Error> {
    match bytes as u64 > MAX_OUTPUT_BYTES {
        true => Err(Error::OutputTooLarge {
            bytes: bytes as u64,
            limit: MAX_OUTPUT_BYTES,
        }),
        false => Ok(()),
    }
}

/// Where each segment of the input stands in the output, if it is still there.
type Renumbered = BTreeMap<u32, u32>;

/// Writes the data section: the memories' contents, and the passive segments.
///
/// Where instructions name segments, each one keeps its index. The ones that were active are
/// dropped at instantiation whatever they hold, so their places serve for the new ones.
fn data<'a>(
    module: &'a Module<'a>,
    snapshot: &'a Snapshot<'_>,
    splice: &mut Splice<'a>,
) -> Result<(Renumbered, u32), Error> {
    let places = module
        .data
        .iter()
        .filter(|s| snapshot.replaces_data(s))
        .count();
    let count: usize = snapshot.memories.iter().map(|m| m.segments.len()).sum();
    // Without a data count section no instruction can name a segment; and where no place is
    // left over, nobody needs to know.
    let keep_places =
        module.has_data_count && (count >= places || uses::names(module, uses::Segments::Data));
    let mut planned = snapshot.memories.iter().flat_map(|memory| {
        let ty = module
            .memories
            .get(memory.index)
            .expect("a memory of the module");
        memory.segments.iter().map(move |range| {
            (
                memory.index,
                ty.memory64,
                &memory.bytes[range.clone()],
                range,
            )
        })
    });
    let mut contents = Rope::new();
    let mut count = 0u32;
    let mut renumbered = Renumbered::new();
    let write = |contents: &mut Rope<'a>,
                 planned: (u32, bool, &'a [u8], &std::ops::Range<usize>)| {
        let (memory, memory64, bytes, range) = planned;
        match memory {
            0 => contents.write(&[0]),
            _ => contents.write(&[2]).leb(memory),
        };
        contents.encode(&match memory64 {
            true => ConstExpr::i64_const(range.start as i64),
            false => ConstExpr::i32_const(range.start as u32 as i32),
        });
        contents.leb(bytes.len() as u32).borrow(bytes);
    };
    for (index, segment) in (0..).zip(&module.data) {
        match segment.mode {
            _ if snapshot.replaces_data(segment) => {
                if !keep_places {
                    continue;
                }
                match planned.next() {
                    Some(next) => write(&mut contents, next),
                    // Nothing left to write: an empty passive segment behaves as a dropped one.
                    None => drop(contents.write(&[1, 0])),
                }
            }
            SegmentMode::Passive if snapshot.dropped_data.contains(&index) => {
                contents.write(&[1, 0]);
            }
            _ => {
                contents.borrow(&module.bytes[segment.range.clone()]);
                renumbered.insert(index, count);
            }
        }
        count += 1;
    }
    for next in planned {
        write(&mut contents, next);
        count += 1;
    }

    check_size(module, contents.len())?;
    if module.has_data_count && count == 0 && places > 0 {
        splice.drop(section::DATA_COUNT);
    } else if module.has_data_count {
        let mut data_count = Rope::new();
        data_count.leb(count);
        splice.replace(section::DATA_COUNT, data_count);
    }
    if count == 0 {
        splice.drop(section::DATA);
    } else {
        let mut counted = Rope::new();
        counted.leb(count).append(contents);
        splice.replace(section::DATA, counted);
    }
    Ok((renumbered, count))
}
