//! Memories, tables, globals and tags that a caller provides, with the types that the importing
//! module asks for. Modules that are made for it export them: one for the globals of each name, as there
//! may be thousands, and one for each memory and table. But a reference of the host has no constant
//! expression, and a tag of a module would not be the host's: engines make those.

use std::collections::{BTreeMap, HashMap, HashSet};

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
    let names = |item: &'_ ProvidedItem| (item.module.clone(), item.name.clone());
    let mut provided: HashSet<_> = items.iter().map(names).collect();
    let mut stubbed: Vec<ProvidedItem> = Vec::new();
    for import in importers.iter().flat_map(|importer| &importer.imports) {
        let (module, name) = (import.module, import.name);
        let stub = stubs.find(module, name);
        if let Some(item) = stub.and_then(|stub| stub_item(stub, import.ty))
            && !is_exported(module, name)
            && provided.insert((module.into(), name.into()))
        {
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
    // By their names, with the positions of the importers.
    let mut imports: HashMap<(&str, &str), Vec<(usize, TypeRef)>> = HashMap::new();
    for (position, importer) in importers.iter().enumerate() {
        for import in &importer.imports {
            let named = imports.entry((import.module, import.name)).or_default();
            named.push((position, import.ty));
        }
    }
    let wanted = |item: &ProvidedItem| {
        // A function is called there, whoever provides it.
        let is_called = |ty: &TypeRef| {
            matches!(item.item, Item::Function)
                && matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_))
        };
        let named = imports
            .get(&(&*item.module, &*item.name))
            .into_iter()
            .flatten();
        named.copied().find(|(_, ty)| !is_called(ty))
    };
    let mut modules = Vec::new();
    let mut globals: BTreeMap<(&str, Option<usize>), Globals> = BTreeMap::new();
    let mut is_wanted = Vec::new();
    for item in &*items {
        let found = wanted(item);
        is_wanted.push(found.is_some());
        let Some((position, ty)) = found else {
            continue;
        };
        let importer = importers[position];
        let made = match (is_made(item, importer, ty), &item.item, ty) {
            (Ok(false), Item::Global(global), TypeRef::Global(ty)) => {
                let types = names_type(ty.content_type).then_some(position);
                let globals = globals.entry((&item.module, types)).or_default();
                globals.add(&item.name, global.value, ty).map(|()| None)
            }
            (Ok(false), ..) => module(item, importer, ty).map(Some),
            (made, ..) => made.map(|_| None),
        };
        let made = made.map_err(|message| Error::ImportType {
            module: item.module.clone(),
            name: item.name.clone(),
            message,
        })?;
        modules.extend(made.map(|bytes| (item.module.clone(), bytes)));
    }
    for ((name, types), globals) in globals {
        let types = types.map(|position| importers[position]);
        modules.push((name.into(), globals.finish(types)));
    }
    let mut is_wanted = is_wanted.into_iter();
    items.retain(|_| is_wanted.next() == Some(false));
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

/// Whether a type is one that a module defines.
fn names_type(ty: wasmparser::ValType) -> bool {
    match ty {
        wasmparser::ValType::Ref(ty) => !matches!(ty.heap_type(), HeapType::Abstract { .. }),
        _ => false,
    }
}

/// Globals that are exported by one module.
#[derive(Default)]
struct Globals {
    names: HashSet<String>,
    section: GlobalSection,
    exports: ExportSection,
}

impl Globals {
    fn add(&mut self, name: &str, value: Value, ty: wasmparser::GlobalType) -> Result<(), String> {
        if !self.names.insert(name.into()) {
            return Err("it is provided twice".into());
        }
        let value = constant(value, ty.content_type).ok_or("it cannot be written as a constant")?;
        let ty = ty.try_into().map_err(|_| "its type is not known")?;
        let index = self.section.len();
        self.exports.export(name, ExportKind::Global, index);
        self.section.global(ty, &value);
        Ok(())
    }

    /// The module, with the types of another one.
    fn finish(self, types: Option<&Module<'_>>) -> Vec<u8> {
        let mut out = wasm_encoder::Module::new();
        if let Some(importer) = types {
            copy_types(&mut out, importer);
        }
        out.section(&self.section).section(&self.exports);
        out.finish()
    }
}

fn copy_types(out: &mut wasm_encoder::Module, of: &Module<'_>) {
    if let Some(types) = of.section(section::TYPE) {
        out.section(&wasm_encoder::RawSection {
            id: section::TYPE,
            data: of.contents(types),
        });
    }
}

/// A module that exports a memory or a table.
fn module(item: &ProvidedItem, importer: &Module<'_>, ty: TypeRef) -> Result<Vec<u8>, String> {
    let mut out = wasm_encoder::Module::new();
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
            if names_type(wasmparser::ValType::Ref(ty.element_type)) {
                copy_types(&mut out, importer);
            }
            let mut tables = TableSection::new();
            tables.table(ty.try_into().map_err(|_| "its type is not known")?);
            out.section(&tables);
            export(ExportKind::Table);
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
