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

use std::collections::BTreeMap;

use wasm_encoder::{ConstExpr, Encode};

use crate::error::Error;
use crate::module::{ExternKind, Module, SegmentMode, section};
use crate::snapshot::{Snapshot, is_rewritten};
use crate::splice::{Rope, Splice};
use crate::value::Value;

/// The largest output, in bytes: 1 GiB, the limit of engines on a module (V8's
/// `kV8MaxWasmModuleSize`, wasmparser's `MAX_WASM_MODULE_SIZE`).
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;

/// What becomes of the exports.
#[derive(Default)]
pub struct Exports {
    /// The exports to remove.
    pub remove: Vec<String>,
    /// New name by old name.
    pub rename: BTreeMap<String, String>,
}

/// The initialized module.
pub struct Rewritten {
    pub bytes: Vec<u8>,
    /// How far function bodies moved from their place in the input, in bytes.
    pub code_shift: i64,
    /// The custom sections that no longer told the truth.
    pub dropped_sections: Vec<String>,
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
    memories(module, snapshot, &mut splice);
    globals(module, snapshot, &mut splice);
    let undeclared = self::exports(module, exports, &mut splice);
    elements(module, snapshot, &undeclared, &mut splice);
    let names = data(module, snapshot, &mut splice)?;
    splice.drop(section::START);
    let dropped_sections = customs(module, &names, &mut splice);

    let spliced = splice.finish();
    let code_shift = match (spliced.code, module.section(section::CODE)) {
        (Some(new), Some(old)) => new as i64 - old.contents.start as i64,
        _ => 0,
    };
    Ok(Rewritten {
        bytes: spliced.bytes,
        code_shift,
        dropped_sections,
    })
}

/// Raises the minimum of memories that grew.
fn memories(module: &Module<'_>, snapshot: &Snapshot<'_>, splice: &mut Splice<'_>) {
    let grew = |memory: &crate::snapshot::MemorySnapshot<'_>| {
        module
            .memories
            .get(memory.index)
            .is_some_and(|ty| ty.initial != memory.pages)
    };
    if !snapshot.memories.iter().any(grew) {
        return;
    }
    let mut contents = Rope::new();
    contents.leb(snapshot.memories.len() as u32);
    for ((_, ty), memory) in module.memories.defined().zip(&snapshot.memories) {
        contents.encode(&wasm_encoder::MemoryType {
            minimum: memory.pages,
            maximum: ty.maximum,
            memory64: ty.memory64,
            shared: ty.shared,
            page_size_log2: ty.page_size_log2,
        });
    }
    splice.replace(section::MEMORY, contents);
}

/// Replaces the initializers of mutable globals.
fn globals<'a>(module: &'a Module<'a>, snapshot: &Snapshot<'_>, splice: &mut Splice<'a>) {
    if snapshot.globals.is_empty() {
        return;
    }
    let mut contents = Rope::new();
    contents.leb(module.globals.len() - module.globals.imported());
    for (index, global) in module.globals.defined() {
        contents.borrow(&module.bytes[global.type_range.clone()]);
        let init = global.init.as_ref().expect("a defined global");
        match snapshot.globals.get(&index).copied().and_then(number) {
            Some(value) => contents.encode(&value),
            None => contents.borrow(&module.bytes[init.get_binary_reader().range()]),
        };
    }
    splice.replace(section::GLOBAL, contents);
}

/// A constant expression for a number.
fn number(value: Value) -> Option<ConstExpr> {
    Some(match value {
        Value::I32(value) => ConstExpr::i32_const(value),
        Value::I64(value) => ConstExpr::i64_const(value),
        Value::F32(bits) => ConstExpr::f32_const(wasm_encoder::Ieee32::new(bits)),
        Value::F64(bits) => ConstExpr::f64_const(wasm_encoder::Ieee64::new(bits)),
        Value::V128(bits) => ConstExpr::v128_const(bits as i128),
        Value::Ref(_) => return None,
    })
}

/// Removes and renames exports. Returns the functions that only a removed export declared for
/// `ref.func`.
fn exports<'a>(module: &'a Module<'a>, policy: &Exports, splice: &mut Splice<'a>) -> Vec<u32> {
    let overwritten: Vec<&str> = policy.rename.values().map(String::as_str).collect();
    let mut kept = Vec::new();
    let mut removed = Vec::new();
    for export in &module.exports {
        if let Some(new) = policy.rename.get(export.name) {
            kept.push((new.as_str(), export));
        } else if policy.remove.iter().any(|name| name == export.name)
            || overwritten.contains(&export.name)
        {
            removed.push(export);
        } else {
            kept.push((export.name, export));
        }
    }
    if removed.is_empty() && policy.rename.is_empty() {
        return Vec::new();
    }
    let mut contents = Rope::new();
    contents.leb(kept.len() as u32);
    for (name, export) in &kept {
        contents.encode(name);
        contents.encode(&match export.kind {
            ExternKind::Func => wasm_encoder::ExportKind::Func,
            ExternKind::Table => wasm_encoder::ExportKind::Table,
            ExternKind::Memory => wasm_encoder::ExportKind::Memory,
            ExternKind::Global => wasm_encoder::ExportKind::Global,
            ExternKind::Tag => wasm_encoder::ExportKind::Tag,
        });
        contents.leb(export.index);
    }
    match kept.is_empty() {
        true => splice.drop(section::EXPORT),
        false => splice.replace(section::EXPORT, contents),
    }

    let mut undeclared: Vec<u32> = removed
        .iter()
        .filter(|e| e.kind == ExternKind::Func)
        .map(|e| e.index)
        .filter(|&f| {
            !module.is_declared(f)
                && !kept
                    .iter()
                    .any(|(_, e)| e.kind == ExternKind::Func && e.index == f)
        })
        .collect();
    undeclared.sort_unstable();
    undeclared.dedup();
    undeclared
}

/// Marks dropped segments as such, and declares functions that would no longer be.
fn elements<'a>(
    module: &'a Module<'a>,
    snapshot: &Snapshot<'_>,
    undeclared: &[u32],
    splice: &mut Splice<'a>,
) {
    // Only a body with `ref.func` needs the declaration, and a module without the byte in its
    // code has none: most modules need no segment, and so get none.
    let mentioned: Vec<u32> = match module.section(section::CODE) {
        Some(code) => mentioned_by_ref_func(module.contents(code), undeclared),
        None => Vec::new(),
    };
    if snapshot.dropped_elements.is_empty() && mentioned.is_empty() {
        return;
    }
    let mut contents = Rope::new();
    contents.leb(module.elements.len() as u32 + u32::from(!mentioned.is_empty()));
    for (index, segment) in (0..).zip(&module.elements) {
        let bytes = &module.bytes[segment.range.clone()];
        if snapshot.dropped_elements.contains(&index) {
            // A declarative segment is dropped from the start, and declares what it declared:
            // the flag's bit 1 makes a passive segment (1 or 5) declarative (3 or 7).
            let (flag, rest) = crate::splice::split_count(bytes);
            contents.leb(flag | 0b10).borrow(rest);
        } else {
            contents.borrow(bytes);
        }
    }
    if !mentioned.is_empty() {
        // Flag 3: declarative, by function index; element kind 0: `funcref`.
        contents.write(&[3, 0]).leb(mentioned.len() as u32);
        for function in mentioned {
            contents.leb(function);
        }
    }
    splice.replace(section::ELEMENT, contents);
}

/// Which of `functions` the code may refer to with `ref.func`. No body is decoded: a match may
/// be chance, and then costs a few bytes of declaration.
fn mentioned_by_ref_func(code: &[u8], functions: &[u32]) -> Vec<u32> {
    const REF_FUNC: u8 = 0xd2;
    functions
        .iter()
        .copied()
        .filter(|function| {
            memchr::memchr_iter(REF_FUNC, code).any(|at| {
                // The index may be written with more bytes than it needs.
                wasmparser::BinaryReader::new(&code[at + 1..], 0)
                    .read_var_u32()
                    .is_ok_and(|index| index == *function)
            })
        })
        .collect()
}

/// Where each data segment of the input stands in the output, if it is still there.
type Renumbered = BTreeMap<u32, u32>;

/// Writes the data section: the memories' contents, and the passive segments.
///
/// Where instructions name segments, each one keeps its index. The ones that were active are
/// dropped at instantiation whatever they hold, so their places serve for the new ones.
fn data<'a>(
    module: &'a Module<'a>,
    snapshot: &'a Snapshot<'_>,
    splice: &mut Splice<'a>,
) -> Result<Renumbered, Error> {
    let places = module
        .data
        .iter()
        .filter(|s| is_rewritten(module, s))
        .count();
    let count: usize = snapshot.memories.iter().map(|m| m.segments.len()).sum();
    // Without a data count section no instruction can name a segment; and where no place is
    // left over, nobody needs to know.
    let keep_places = module.has_data_count && (count >= places || names_data(module));
    let mut planned = snapshot.memories.iter().flat_map(|memory| {
        let ty = module.memories.get(memory.index).expect("a defined memory");
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
            _ if is_rewritten(module, segment) => {
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

    let old = module.section(section::DATA);
    let old = old.map_or(0, |section| section.contents.len());
    let total = (module.bytes.len() - old + contents.len()) as u64;
    if total > MAX_OUTPUT_BYTES {
        return Err(Error::OutputTooLarge {
            bytes: total,
            limit: MAX_OUTPUT_BYTES,
        });
    }
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
    Ok(renumbered)
}

/// Whether an instruction names a data segment.
fn names_data(module: &Module<'_>) -> bool {
    let Some(code) = module.section(section::CODE) else {
        return false;
    };
    let reader = wasmparser::BinaryReader::new(module.contents(code), 0);
    let Ok(bodies) = wasmparser::CodeSectionReader::new(reader) else {
        return true;
    };
    bodies.into_iter().any(|body| match body {
        Ok(body) => may_name_data(body.as_bytes()) && body_names_data(&body).unwrap_or(true),
        Err(_) => true,
    })
}

/// Whether the bytes of such an instruction are there, which may be chance.
fn may_name_data(body: &[u8]) -> bool {
    /// The prefixes of bulk memory and garbage collection, and behind them `memory.init` and
    /// `data.drop`, `array.new_data` and `array.init_data`.
    const PREFIXES: [(u8, [u32; 2]); 2] = [(0xfc, [8, 9]), (0xfb, [9, 18])];
    PREFIXES.iter().any(|(prefix, codes)| {
        memchr::memchr_iter(*prefix, body).any(|at| {
            let mut rest = wasmparser::BinaryReader::new(&body[at + 1..], 0);
            rest.read_var_u32().is_ok_and(|code| codes.contains(&code))
        })
    })
}

fn body_names_data(body: &wasmparser::FunctionBody<'_>) -> wasmparser::Result<bool> {
    use wasmparser::Operator as O;
    for operator in body.get_operators_reader()? {
        if let O::MemoryInit { .. }
        | O::DataDrop { .. }
        | O::ArrayNewData { .. }
        | O::ArrayInitData { .. } = operator?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Custom sections that describe an input to a linker, which the output is no longer.
fn is_for_linkers(name: &str) -> bool {
    name == "dylink" || name == "dylink.0" || name == "linking" || name.starts_with("reloc.")
}

/// Drops custom sections that are no longer true, and keeps the names of data segments true.
fn customs<'a>(
    module: &'a Module<'a>,
    renumbered: &Renumbered,
    splice: &mut Splice<'a>,
) -> Vec<String> {
    let mut dropped = Vec::new();
    for (position, section) in module.sections.iter().enumerate() {
        if section.id != section::CUSTOM {
            continue;
        }
        let contents = module.contents(section);
        let mut reader = wasmparser::BinaryReader::new(contents, 0);
        let Ok(name) = reader.read_string() else {
            continue;
        };
        if is_for_linkers(name) {
            splice.drop_custom(position);
            dropped.push(name.to_string());
        } else if name == "name" {
            let start = reader.original_position();
            if let Some(names) = renumber_data_names(contents, start, module, renumbered) {
                splice.replace_custom(position, names);
            }
        }
    }
    dropped
}

/// The subsection of the `name` section that names data segments.
const DATA_NAMES: u8 = 9;

/// The `name` section with the names of data segments that are still there; `None` where it is
/// right as it is, or not readable (names are for people: a damaged section is kept).
fn renumber_data_names<'a>(
    contents: &'a [u8],
    start: usize,
    module: &Module<'_>,
    renumbered: &Renumbered,
) -> Option<Rope<'a>> {
    if renumbered.len() == module.data.len() && renumbered.iter().all(|(old, new)| old == new) {
        return None;
    }
    let mut out = Rope::new();
    out.borrow(&contents[..start]);
    let mut reader = wasmparser::BinaryReader::new(contents, 0);
    reader.read_bytes(start).ok()?;
    let mut found = false;
    while !reader.eof() {
        let from = reader.original_position();
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let body = reader.read_bytes(size as usize).ok()?;
        if id != DATA_NAMES {
            out.borrow(&contents[from..reader.original_position()]);
            continue;
        }
        found = true;
        let mut names = wasmparser::BinaryReader::new(body, 0);
        let mut kept: Vec<u8> = Vec::new();
        let mut count = 0u32;
        for _ in 0..names.read_var_u32().ok()? {
            let index = names.read_var_u32().ok()?;
            let name = names.read_string().ok()?;
            if let Some(new) = renumbered.get(&index) {
                new.encode(&mut kept);
                name.encode(&mut kept);
                count += 1;
            }
        }
        if count > 0 {
            let mut map = Vec::new();
            count.encode(&mut map);
            map.extend_from_slice(&kept);
            out.write(&[DATA_NAMES]).leb(map.len() as u32).write(&map);
        }
    }
    found.then_some(out)
}
