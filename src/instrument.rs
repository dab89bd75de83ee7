//! Make the state readable: a module for running, whose private state is exported.
//!
//! Nothing outside an instance can see its memories, globals and tables unless they are
//! exported, nor whether a passive segment was dropped. The module that runs is therefore the
//! input with more exports and, per passive segment, one *probe* function; function bodies are
//! not touched (but for [`waits`] on shared memories), and the output is made from the input, never
//! from this.
//!
//! A reference is told apart from others by comparing it: a table that is added holds every
//! function that a reference can be of (or globals do, where there is no room for one table more).
//!
//! A function of the host is told which instance calls it, but not which module that is an instance
//! of. So a global is added with the module's number in the run.
//!
//! Before:
//!
//! ```wat
//! (module
//!   (memory 1)
//!   (global $heap (mut i32) (i32.const 1024))
//!   (global $limit i32 (i32.const 4096))
//!   (data $table "abc")
//!   (func $main)
//!   (start $main))
//! ```
//!
//! After (a trap in the probe says that `$table` was dropped; it writes nothing):
//!
//! ```wat
//! (module
//!   (memory 1)
//!   (global $heap (mut i32) (i32.const 1024))
//!   (global $limit i32 (i32.const 4096))
//!   (global $number i32 (i32.const 0))
//!   (data $table "abc")
//!   (func $main)
//!   (func $probe
//!     (memory.init $table (i32.const 0) (i32.const 3) (i32.const 0)))
//!   (export "wizer:memory0" (memory 0))
//!   (export "wizer:global0" (global $heap))
//!   (export "wizer:data0" (func $probe))
//!   (export "wizer:start" (func $main))
//!   (export "wizer:module" (global $number)))
//! ```

mod waits;

use std::sync::Arc;

use wasm_encoder::{Encode, ExportKind, Instruction};

use crate::added::{Functions, Items, Types};
use crate::module::{Module, SegmentMode, Table, needs_collector, section};
use crate::splice::{Splice, leading_count_len};
use wasmparser::{RefType, TypeRef, ValType};

/// The most tables that engines accept in one module (wasmparser's `MAX_WASM_TABLES`, and V8's
/// limit).
const MAX_TABLES: u32 = 100;

/// A module made ready to be run and read.
#[derive(Clone)]
pub struct Instrumented {
    /// The module in the binary format; shared with the thread that compiles it.
    pub bytes: Arc<Vec<u8>>,
    /// How the added exports are called.
    pub names: Names,
    /// Which globals can be read: the mutable ones, and immutable ones that may hold objects.
    pub globals: Vec<u32>,
    /// What the added table holds: the functions that references can be of. Empty where the module
    /// has no place for references.
    pub functions: Vec<u32>,
    /// Whether there was no room for that table, and each of them is in an added global.
    pub functions_are_globals: bool,
    /// How far function bodies moved from their place in the input, in bytes.
    pub code_shift: i64,
}

/// The names of the added exports. No export of a module of the run begins with their prefix.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names for a run of these modules.
    pub fn new<'m, 'a: 'm>(modules: impl IntoIterator<Item = &'m Module<'a>> + Clone) -> Names {
        let mut names = Names {
            prefix: "wizer:".into(),
        };
        while modules.clone().into_iter().any(|m| names.are_used_by(m)) {
            names.prefix.push(':');
        }
        names
    }

    /// Whether a module has such names of its own, or could get at another one's by importing
    /// them.
    pub fn are_used_by(&self, module: &Module<'_>) -> bool {
        let imports = module.imports.iter().map(|import| import.name);
        let mut names = module.exports.iter().map(|e| e.name).chain(imports);
        names.any(|name| self.is_added(name))
    }

    pub fn memory(&self, index: u32) -> String {
        format!("{}memory{index}", self.prefix)
    }

    pub fn table(&self, index: u32) -> String {
        format!("{}table{index}", self.prefix)
    }

    /// The table of the functions that references can be of.
    pub fn functions(&self) -> String {
        format!("{}functions", self.prefix)
    }

    /// The global of a function that references can be of.
    pub fn function(&self, index: u32) -> String {
        format!("{}function{index}", self.prefix)
    }

    pub fn global(&self, index: u32) -> String {
        format!("{}global{index}", self.prefix)
    }

    /// The function that gives the bits of a global of floats or vectors.
    pub fn bits(&self, index: u32) -> String {
        bits_of(&self.global(index))
    }

    /// The probe of a data segment.
    pub fn data(&self, index: u32) -> String {
        format!("{}data{index}", self.prefix)
    }

    /// The probe of an element segment.
    pub fn element(&self, index: u32) -> String {
        format!("{}element{index}", self.prefix)
    }

    /// The global of the module's number.
    pub fn module(&self) -> String {
        format!("{}module", self.prefix)
    }

    /// Whether an export is one of those that were added.
    pub fn is_added(&self, export: &str) -> bool {
        export.starts_with(&self.prefix)
    }

    /// The start function.
    pub fn start(&self) -> String {
        format!("{}start", self.prefix)
    }
}

/// How the function is called that gives the bits of a global with this added export.
pub fn bits_of(global: &str) -> String {
    format!("{global}bits")
}

/// Instruments a module.
///
/// `number` tells the module from the others of the run, and `identify` says whether references may
/// have to be told apart, of this or another module.
pub fn instrument(
    module: &Module<'_>,
    names: &Names,
    number: usize,
    identify: bool,
) -> Instrumented {
    let mut splice = Splice::new(module);
    let mut exports = Items::default();

    for (index, _) in module.memories.all() {
        exports.export(&names.memory(index), ExportKind::Memory, index);
    }
    for (index, _) in module.tables.all() {
        exports.export(&names.table(index), ExportKind::Table, index);
    }
    let mut globals = Vec::new();
    for (index, global) in module.globals.all() {
        let may_hold_object =
            matches!(global.ty.content_type, ValType::Ref(ty) if needs_collector(ty));
        if global.ty.mutable || may_hold_object {
            exports.export(&names.global(index), ExportKind::Global, index);
            globals.push(index);
        }
    }
    let mut tables = Tables::new(module);
    let mut types = Types::new(module);
    let mut added = Functions::new(module);
    let mut constants = Constants::new(module);
    let number = wasm_encoder::ConstExpr::i32_const(number as u32 as i32);
    constants.push(
        &names.module(),
        wasm_encoder::ValType::I32,
        &number,
        &mut exports,
    );
    if let Some(start) = module.start {
        exports.export(&names.start(), ExportKind::Func, start);
        splice.drop(section::START);
    }
    for index in &globals {
        let ty = module
            .globals
            .get(*index)
            .map(|global| global.ty.content_type);
        add_bits(*index, ty, names, &mut types, &mut added, &mut exports);
    }
    add_probes(
        module,
        names,
        &mut types,
        &mut added,
        &mut tables,
        &mut splice,
        &mut exports,
    );
    let functions = match identify {
        true => module.referable_functions(),
        false => Vec::new(),
    };
    let functions_are_globals = !functions.is_empty()
        && match tables.push(RefType::FUNCREF, functions.len() as u32) {
            Some(table) => {
                add_functions(names, &functions, table, &mut splice, &mut exports);
                false
            }
            None => {
                for index in &functions {
                    let name = names.function(*index);
                    let function = wasm_encoder::ConstExpr::ref_func(*index);
                    constants.push(
                        &name,
                        wasm_encoder::ValType::FUNCREF,
                        &function,
                        &mut exports,
                    );
                }
                true
            }
        };
    let patches = waits::end_waits(module, &mut types, &mut added);
    types.write(&mut splice);
    splice.append(section::TABLE, tables.types.count, &tables.types.bytes);
    splice.append(
        section::GLOBAL,
        constants.items.count,
        &constants.items.bytes,
    );
    added.write(&mut splice, &patches);
    splice.append(section::EXPORT, exports.count, &exports.bytes);

    let spliced = splice.finish();
    let code_shift = match (spliced.code, module.section(section::CODE)) {
        (Some(new), Some(old)) => {
            let new_count = leading_count_len(&spliced.bytes[new..]);
            let old_count = leading_count_len(module.contents(old));
            (new + new_count) as i64 - (old.contents.start + old_count) as i64
        }
        _ => 0,
    };
    Instrumented {
        bytes: Arc::new(spliced.bytes),
        names: names.clone(),
        globals,
        functions,
        functions_are_globals,
        code_shift,
    }
}

/// A module that imports what the module imports besides functions, under the same indices, and
/// has nothing of its own: instantiated before the module, it shows what that will find. `None`
/// where there is nothing of the kind whose contents matter.
pub fn observer(module: &Module<'_>) -> Option<Vec<u8>> {
    let is_shown = |ty: &TypeRef| matches!(ty, TypeRef::Memory(_) | TypeRef::Table(_));
    let shown = module.imports.iter().filter(|import| is_shown(&import.ty));
    let mut imports = wasm_encoder::ImportSection::new();
    for import in shown {
        let ty: wasm_encoder::EntityType = import.ty.try_into().ok()?;
        imports.import(import.module, import.name, ty);
    }
    if imports.is_empty() {
        return None;
    }
    let mut observer = wasm_encoder::Module::new();
    if let Some(types) = module.section(section::TYPE) {
        observer.section(&wasm_encoder::RawSection {
            id: section::TYPE,
            data: module.contents(types),
        });
    }
    observer.section(&imports);
    Some(observer.finish())
}

/// The tables that are added, behind those of the module.
struct Tables {
    next: u32,
    types: Items,
}

impl Tables {
    fn new(module: &Module<'_>) -> Tables {
        Tables {
            next: module.tables.len(),
            types: Items::default(),
        }
    }

    /// Adds a table of this type and size, where there is room. Returns its index.
    fn push(&mut self, element_type: RefType, size: u32) -> Option<u32> {
        if self.next >= MAX_TABLES {
            return None;
        }
        self.types.push(&wasm_encoder::TableType {
            element_type: element_type
                .try_into()
                .expect("an encodable reference type"),
            table64: false,
            minimum: size.into(),
            maximum: Some(size.into()),
            shared: false,
        });
        self.next += 1;
        Some(self.next - 1)
    }
}

/// The immutable globals that are added, behind those of the module.
struct Constants {
    next: u32,
    items: Items,
}

impl Constants {
    fn new(module: &Module<'_>) -> Constants {
        Constants {
            next: module.globals.len(),
            items: Items::default(),
        }
    }

    /// Adds a global of this type and value, and exports it.
    fn push(
        &mut self,
        name: &str,
        val_type: wasm_encoder::ValType,
        value: &wasm_encoder::ConstExpr,
        exports: &mut Items,
    ) {
        let ty = wasm_encoder::GlobalType {
            val_type,
            mutable: false,
            shared: false,
        };
        ty.encode(&mut self.items.bytes);
        self.items.push(value);
        exports.export(name, ExportKind::Global, self.next);
        self.next += 1;
    }
}

/// Whether the module has a place where a reference can be.
pub fn has_references(module: &Module<'_>) -> bool {
    let is_place = |global: &crate::module::Global<'_>| {
        global.ty.mutable && matches!(global.ty.content_type, ValType::Ref(_))
    };
    !module.tables.is_empty() || module.globals.all().any(|(_, global)| is_place(global))
}

/// Fills an added table with these functions.
fn add_functions(
    names: &Names,
    functions: &[u32],
    table: u32,
    splice: &mut Splice<'_>,
    exports: &mut Items,
) {
    exports.export(&names.functions(), ExportKind::Table, table);
    // Flag 2: active, by function index, with the table named; element kind 0: `funcref`.
    let mut segment = vec![2];
    table.encode(&mut segment);
    wasm_encoder::ConstExpr::i32_const(0).encode(&mut segment);
    segment.push(0);
    functions.encode(&mut segment);
    splice.append(section::ELEMENT, 1, &segment);
}

/// Adds a function that gives the bits of a global as integers, where its values are floats or
/// vectors: a host that sees them as its own numbers would lose what a NaN carries.
fn add_bits(
    index: u32,
    ty: Option<ValType>,
    names: &Names,
    types: &mut Types,
    added: &mut Functions,
    exports: &mut Items,
) {
    use wasm_encoder::ValType as T;
    let get = Instruction::GlobalGet(index);
    let (results, body): (&[T], _) = match ty {
        Some(ValType::F32) => (&[T::I32], vec![get, Instruction::I32ReinterpretF32]),
        Some(ValType::F64) => (&[T::I64], vec![get, Instruction::I64ReinterpretF64]),
        Some(ValType::V128) => {
            let lane = Instruction::I64x2ExtractLane;
            let halves = vec![get.clone(), lane(0), get, lane(1)];
            (&[T::I64, T::I64], halves)
        }
        _ => return,
    };
    let ty = types.function(&[], results);
    let function = added.push(ty, &body);
    exports.export(&names.bits(index), ExportKind::Func, function);
}

/// Adds one function per passive segment of a length above 0, which traps exactly when the
/// segment was dropped: a dropped segment has length 0, and `init` checks its bounds even where
/// it copies nothing.
fn add_probes(
    module: &Module<'_>,
    names: &Names,
    types: &mut Types,
    added: &mut Functions,
    tables: &mut Tables,
    splice: &mut Splice<'_>,
    exports: &mut Items,
) {
    let mut empty_tables: Vec<(RefType, u32)> = Vec::new();
    let mut needs_memory = false;
    let mut probe_type = None;
    let mut probe = |name: String, body: &[Instruction<'_>], types: &mut Types| {
        let ty = *probe_type.get_or_insert_with(|| types.function(&[], &[]));
        let function = added.push(ty, body);
        exports.export(&name, ExportKind::Func, function);
    };

    // Without a data count section no instruction can drop a data segment.
    if module.has_data_count {
        let memory64 = module.memories.get(0).is_some_and(|m| m.memory64);
        for (index, segment) in (0..).zip(&module.data) {
            if segment.mode != SegmentMode::Passive || segment.bytes.is_empty() {
                continue;
            }
            needs_memory |= module.memories.is_empty();
            let destination = match memory64 {
                true => Instruction::I64Const(0),
                false => Instruction::I32Const(0),
            };
            let init = Instruction::MemoryInit {
                mem: 0,
                data_index: index,
            };
            let source = Instruction::I32Const(segment.bytes.len() as i32);
            let body = [destination, source, Instruction::I32Const(0), init];
            probe(names.data(index), &body, types);
        }
    }
    for (index, segment) in (0..).zip(&module.elements) {
        if segment.mode != SegmentMode::Passive || segment.len == 0 {
            continue;
        }
        // A table of the segment's own type, and one of the module's own where there is one.
        let ty = segment.ty.nullable();
        let fits =
            |(_, table): &(u32, &Table<'_>)| table.ty.element_type == ty && !table.ty.table64;
        let own = module.tables.all().find(fits).map(|(table, _)| table);
        let known = empty_tables.iter().find(|(of, _)| *of == ty);
        let table = own.or(known.map(|(_, table)| *table)).or_else(|| {
            let table = tables.push(ty, 0)?;
            empty_tables.push((ty, table));
            Some(table)
        });
        let len = Instruction::I32Const(segment.len as i32);
        let zero = Instruction::I32Const(0);
        let body = match table {
            Some(table) => {
                let elem_index = index;
                let init = Instruction::TableInit { elem_index, table };
                vec![zero.clone(), len, zero, init]
            }
            // With no room for a table, an array has to do, which some engines do not have.
            None => {
                // Form 0x5e; the last byte says that elements are immutable.
                let mut array = vec![0x5e];
                let element: wasm_encoder::RefType =
                    ty.try_into().expect("an encodable reference type");
                element.encode(&mut array);
                array.push(0);
                let array_type_index = types.push(&array);
                let new = Instruction::ArrayNewElem {
                    array_type_index,
                    array_elem_index: index,
                };
                vec![len, zero, new, Instruction::Drop]
            }
        };
        probe(names.element(index), &body, types);
    }
    if needs_memory {
        let mut memory = Items::default();
        memory.push(&wasm_encoder::MemoryType {
            minimum: 0,
            maximum: Some(0),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        splice.append(section::MEMORY, 1, &memory.bytes);
    }
}
