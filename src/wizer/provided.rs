//! Memories, tables, globals and tags that a caller provides, with the types that the importing
//! module asks for. Each becomes a module of its own, which exports it; but a reference of the host
//! has no constant expression, and a tag of a module would not be the host's: engines make those.

use wasm_encoder::{
    ConstExpr, DataSection, ExportKind, ExportSection, GlobalSection, Instruction, MemorySection,
    TableSection,
};
use wasmparser::{HeapType, RefType, TypeRef};

use crate::error::Error;
use crate::host::stub::{Stub, Stubs};
use crate::module::{Module, ref_type_name, section, val_type_name};
use crate::options::{Item, ProvidedGlobal, ProvidedItem, ProvidedMemory, ProvidedTable};
use crate::rewrite::number;
use crate::snapshot::plan;
use crate::value::{Reference, Value, to_int32};

/// What stubs provide: the memories, tables and globals that these modules import, where there is a
/// stub for one, and nothing else is provided, nor exported as `is_exported` says.
pub fn stubs(
    stubs: &Stubs,
    items: &[ProvidedItem],
    importers: &[&Module<'_>],
    is_exported: &dyn Fn(&str, &str) -> bool,
) -> Vec<ProvidedItem> {
    let mut stubbed: Vec<ProvidedItem> = Vec::new();
    for import in importers.iter().flat_map(|importer| &importer.imports) {
        let (module, name) = (import.module, import.name);
        let is_it = |item: &ProvidedItem| item.module == module && item.name == name;
        if is_exported(module, name) || items.iter().chain(&stubbed).any(is_it) {
            continue;
        }
        let stub = stubs.find(module, name);
        if let Some(item) = stub.and_then(|stub| stub_item(stub, import.ty)) {
            stubbed.push(ProvidedItem {
                module: module.into(),
                name: name.into(),
                item,
                reference: None,
            });
        }
    }
    stubbed
}

/// What a stub provides of this type: no more than the module asks for, and nothing in it.
fn stub_item(stub: Stub, ty: TypeRef) -> Option<Item> {
    Some(match ty {
        TypeRef::Memory(ty) => Item::Memory(ProvidedMemory {
            pages: Some(ty.initial),
            maximum: None,
            shared: None,
            memory64: None,
            contents: Vec::new(),
        }),
        TypeRef::Table(ty) => Item::Table(ProvidedTable {
            size: ty.initial,
            maximum: None,
            element: None,
            table64: None,
        }),
        TypeRef::Global(ty) => Item::Global(ProvidedGlobal {
            value: stub.value(ty.content_type)?,
            ty: None,
            mutable: None,
        }),
        _ => return None,
    })
}

/// The modules that export what is provided and imported, under the names of the imports. What
/// nobody imports stays among the items.
///
/// # Errors
///
/// [`Error::ImportType`] where what is provided is not what a module imports.
pub fn modules(
    items: &mut Vec<ProvidedItem>,
    importers: &[&Module<'_>],
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let wanted = |item: &ProvidedItem| {
        // A function is called there, whoever provides it.
        let is_called = |ty: &TypeRef| {
            matches!(item.item, Item::Function)
                && matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_))
        };
        importers.iter().find_map(|importer| {
            let imports = importer.imports.iter();
            let mut named = imports.filter(|i| i.module == item.module && i.name == item.name);
            let import = named.find(|import| !is_called(&import.ty))?;
            Some((importer, import.ty))
        })
    };
    let mut modules = Vec::new();
    for item in &*items {
        let Some((importer, ty)) = wanted(item) else {
            continue;
        };
        let made = match is_made(item, importer, ty) {
            Ok(false) => module(item, importer, ty).map(Some),
            made => made.map(|_| None),
        };
        let made = made.map_err(|message| Error::ImportType {
            module: item.module.clone(),
            name: item.name.clone(),
            message,
        })?;
        modules.extend(made.map(|bytes| (item.module.clone(), bytes)));
    }
    items.retain(|item| wanted(item).is_none());
    Ok(modules)
}

/// Whether an engine makes what is provided, where a module imports it as this.
fn is_made(item: &ProvidedItem, importer: &Module<'_>, ty: TypeRef) -> Result<bool, String> {
    match (&item.item, ty) {
        (Item::Tag(params), TypeRef::Tag(ty)) => {
            let wanted = importer.function_type_at(ty.func_type_idx);
            let wanted = wanted.map_or(&[][..], |ty| ty.params()).iter();
            let wanted: Vec<_> = wanted.map(|ty| val_type_name(*ty)).collect();
            match params {
                Some(found) if *found != wanted => Err(format!(
                    "the module wants a tag of ({}), and a tag of ({}) is provided",
                    wanted.join(", "),
                    found.join(", ")
                )),
                _ => Ok(true),
            }
        }
        (Item::Global(global), TypeRef::Global(ty)) => {
            let name = val_type_name(ty.content_type);
            has_type(global.ty.as_deref(), &name)?;
            agrees((global.mutable, ty.mutable, "mutable global"))?;
            match constant(global.value, ty.content_type) {
                Some(_) => Ok(false),
                None if item.reference.is_some() && takes_host(ty.content_type) => Ok(true),
                None => Err(format!("what is provided is no value of type {name}")),
            }
        }
        // The thing itself, as any value.
        (_, TypeRef::Global(ty)) if item.reference.is_some() && takes_host(ty.content_type) => {
            agrees((Some(false), ty.mutable, "mutable global"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Whether references of the host are values of this type.
fn takes_host(ty: wasmparser::ValType) -> bool {
    use wasmparser::AbstractHeapType as H;
    match ty {
        wasmparser::ValType::Ref(ty) => match ty.heap_type() {
            HeapType::Abstract { shared, ty } => !shared && matches!(ty, H::Extern | H::Any),
            _ => false,
        },
        _ => false,
    }
}

/// A module that exports one thing.
fn module(item: &ProvidedItem, importer: &Module<'_>, ty: TypeRef) -> Result<Vec<u8>, String> {
    let mut out = wasm_encoder::Module::new();
    if let Some(types) = importer.section(section::TYPE) {
        out.section(&wasm_encoder::RawSection {
            id: section::TYPE,
            data: importer.contents(types),
        });
    }
    let mut exports = ExportSection::new();
    let mut export = |kind| {
        exports.export(&item.name, kind, 0);
    };
    match (&item.item, ty) {
        (Item::Memory(memory), TypeRef::Memory(mut ty)) => {
            let wanted = [
                (memory.shared, ty.shared, "shared memory"),
                (memory.memory64, ty.memory64, "memory of 64-bit addresses"),
            ];
            wanted.into_iter().try_for_each(agrees)?;
            let page = 1u64 << ty.page_size_log2.unwrap_or(16);
            let len = memory.contents.len() as u64;
            ty.initial = memory.pages.unwrap_or(len.div_ceil(page));
            ty.maximum = memory.maximum.or(ty.maximum);
            let most = match ty.memory64 {
                true => u64::MAX,
                false => (1 << 32) / page,
            };
            if ty.initial > ty.maximum.unwrap_or(most).min(most) {
                return Err(format!("it cannot have {} pages", ty.initial));
            }
            if ty.initial.saturating_mul(page) < len {
                return Err(format!("{len} bytes do not fit into {} pages", ty.initial));
            }
            let mut memories = MemorySection::new();
            memories.memory(ty.into());
            out.section(&memories);
            export(ExportKind::Memory);
            out.section(&exports);
            let mut data = DataSection::new();
            for range in plan::segments(&memory.contents, 0, ty.memory64) {
                let offset = match ty.memory64 {
                    true => ConstExpr::i64_const(range.start as i64),
                    false => ConstExpr::i32_const(range.start as u32 as i32),
                };
                data.active(0, &offset, memory.contents[range].iter().copied());
            }
            out.section(&data);
        }
        (Item::Table(table), TypeRef::Table(mut ty)) => {
            agrees((table.table64, ty.table64, "table of 64-bit addresses"))?;
            has_type(table.element.as_deref(), &ref_type_name(ty.element_type))?;
            ty.initial = table.size;
            ty.maximum = table.maximum.or(ty.maximum);
            let most = match ty.table64 {
                true => u64::MAX,
                false => u32::MAX.into(),
            };
            if ty.initial > ty.maximum.unwrap_or(most).min(most) {
                return Err(format!("it cannot have {} slots", ty.initial));
            }
            if !ty.element_type.is_nullable() {
                return Err(
                    "a table whose slots are never null cannot be provided like this".into(),
                );
            }
            let mut tables = TableSection::new();
            tables.table(ty.try_into().map_err(|_| "its type is not known")?);
            out.section(&tables);
            export(ExportKind::Table);
            out.section(&exports);
        }
        (Item::Global(global), TypeRef::Global(ty)) => {
            let value = constant(global.value, ty.content_type)
                .ok_or("it cannot be written as a constant")?;
            let mut globals = GlobalSection::new();
            globals.global(ty.try_into().map_err(|_| "its type is not known")?, &value);
            out.section(&globals);
            export(ExportKind::Global);
            out.section(&exports);
        }
        _ => return Err("what is provided is of another kind".into()),
    }
    Ok(out.finish())
}

/// Whether a thing is what its name says, where that is known, as the module wants it to be or not.
fn agrees((is, wanted, name): (Option<bool>, bool, &str)) -> Result<(), String> {
    match is {
        Some(is) if is != wanted => Err(match wanted {
            true => format!("the module wants a {name}, which is not what is provided"),
            false => format!("a {name} is provided, which the module does not want"),
        }),
        _ => Ok(()),
    }
}

fn has_type(found: Option<&str>, wanted: &str) -> Result<(), String> {
    match found {
        Some(found) if found != wanted => {
            Err(format!("what is provided is of type {found}, not {wanted}"))
        }
        _ => Ok(()),
    }
}

/// A constant expression for a number of JavaScript, or for what has the type already.
fn constant(value: Value, ty: wasmparser::ValType) -> Option<ConstExpr> {
    use wasmparser::ValType as T;
    if let (Some(bits), T::Ref(ty)) = (as_i31(value), ty)
        && takes_i31(ty)
    {
        let made = [Instruction::I32Const(bits), Instruction::RefI31];
        return Some(ConstExpr::extended(made));
    }
    number(match (value, ty) {
        (Value::F64(bits), T::I32) => Value::I32(to_int32(f64::from_bits(bits))),
        (Value::F64(bits), T::F32) => (f64::from_bits(bits) as f32).into(),
        (Value::F64(_), T::F64)
        | (Value::I64(_), T::I64)
        | (Value::I32(_), T::I32)
        | (Value::F32(_), T::F32)
        | (Value::V128(_), T::V128) => value,
        (Value::Ref(Reference::Null), T::Ref(ty)) if ty.is_nullable() => {
            let ty: wasm_encoder::RefType = ty.try_into().ok()?;
            return Some(ConstExpr::ref_null(ty.heap_type));
        }
        _ => return None,
    })
}

/// The integer that a value is as an `i31`. A number of JavaScript is one where nothing is lost.
fn as_i31(value: Value) -> Option<i32> {
    match value {
        Value::Ref(Reference::I31(bits)) => Some(bits as i32),
        Value::F64(bits) => {
            let number = f64::from_bits(bits);
            let integer = number as i32;
            let fits = (-(1 << 30)..1 << 30).contains(&integer);
            (fits && f64::from(integer).to_bits() == bits).then_some(integer)
        }
        _ => None,
    }
}

/// Whether an `i31` is a value of this type.
fn takes_i31(ty: RefType) -> bool {
    use wasmparser::AbstractHeapType as H;
    match ty.heap_type() {
        HeapType::Abstract { ty, .. } => matches!(ty, H::Any | H::Eq | H::I31),
        _ => false,
    }
}
