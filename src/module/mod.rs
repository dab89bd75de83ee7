//! What the input is: its sections, index spaces and types.
//!
//! One pass over the section headers. Every section is a borrowed slice of the input, and no
//! function body is decoded here: validation is the engines' work.

mod directory;
mod init;
mod parse;
mod types;
mod validate;

use std::ops::Range;

use wasmparser::{
    ConstExpr, FuncType, GlobalType, HeapType, MemoryType, RefType, TableType, TypeRef, ValType,
};

pub use directory::{Directory, MEMORY};
pub use init::SharedMemoryInit;
pub use types::{is_external, needs_collector, ref_type_name, signature, val_type_name};
pub use validate::{Features, Proposal, Validation, is_valid_without, legacy_exceptions, validate};

/// Section ids, as the binary format numbers them.
pub mod section {
    pub const CUSTOM: u8 = 0;
    pub const TYPE: u8 = 1;
    pub const IMPORT: u8 = 2;
    pub const FUNCTION: u8 = 3;
    pub const TABLE: u8 = 4;
    pub const MEMORY: u8 = 5;
    pub const GLOBAL: u8 = 6;
    pub const EXPORT: u8 = 7;
    pub const START: u8 = 8;
    pub const ELEMENT: u8 = 9;
    pub const CODE: u8 = 10;
    pub const DATA: u8 = 11;
    pub const DATA_COUNT: u8 = 12;
    pub const TAG: u8 = 13;

    /// Where a section stands in the order that the binary format prescribes. It is not the
    /// order of the ids: tag, data count and code are out of line.
    pub fn rank(id: u8) -> u8 {
        match id {
            TYPE => 1,
            IMPORT => 2,
            FUNCTION => 3,
            TABLE => 4,
            MEMORY => 5,
            TAG => 6,
            GLOBAL => 7,
            EXPORT => 8,
            START => 9,
            ELEMENT => 10,
            DATA_COUNT => 11,
            CODE => 12,
            DATA => 13,
            _ => 0,
        }
    }
}

/// One section of the input.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its id, see [`section`].
    pub id: u8,
    /// Where the section begins: its id byte.
    pub start: usize,
    /// Its contents, after id and size.
    pub contents: Range<usize>,
}

/// One custom section.
pub struct Custom<'a> {
    pub name: &'a str,
    /// Its place in [`Module::sections`].
    pub position: usize,
    /// Its contents, the name included.
    pub contents: &'a [u8],
    /// Where in them the name ends.
    pub start: usize,
}

/// The items of one kind, the imported ones first: an *index space* of the specification.
#[derive(Clone, Debug)]
pub struct IndexSpace<T> {
    items: Vec<T>,
    imported: usize,
}

impl<T> Default for IndexSpace<T> {
    fn default() -> Self {
        IndexSpace {
            items: Vec::new(),
            imported: 0,
        }
    }
}

impl<T> IndexSpace<T> {
    /// All items, with their indices.
    pub fn all(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.items)
    }

    /// The items that the module defines itself, with their indices.
    pub fn defined(&self) -> impl Iterator<Item = (u32, &T)> {
        self.all().skip(self.imported)
    }

    /// The item at `index`, imported or defined.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.items.get(index as usize)
    }

    /// How many items there are, imported ones included.
    pub fn len(&self) -> u32 {
        u32::try_from(self.items.len()).expect("a parsed module has fewer than 2^32 items")
    }

    /// Whether the space has no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many of the items are imported.
    pub fn imported(&self) -> u32 {
        u32::try_from(self.imported).expect("a parsed module has fewer than 2^32 items")
    }

    fn import(&mut self, item: T) {
        debug_assert_eq!(self.imported, self.items.len());
        self.items.push(item);
        self.imported += 1;
    }

    fn define(&mut self, item: T) {
        self.items.push(item);
    }
}

/// One import, in the order of the import section.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// The first of its two names.
    pub module: &'a str,
    /// The second of its two names.
    pub name: &'a str,
    /// What is imported.
    pub ty: TypeRef,
}

/// One export.
#[derive(Clone, Debug)]
pub struct Export<'a> {
    /// Its name, unique in the module.
    pub name: &'a str,
    /// What is exported.
    pub kind: ExternKind,
    /// The index in the index space of its kind.
    pub index: u32,
}

/// The kinds of things that can be imported and exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExternKind {
    Func,
    Table,
    Memory,
    Global,
    Tag,
}

impl ExternKind {
    /// The kind's name for people.
    pub fn name(self) -> &'static str {
        match self {
            ExternKind::Func => "function",
            ExternKind::Table => "table",
            ExternKind::Memory => "memory",
            ExternKind::Global => "global",
            ExternKind::Tag => "tag",
        }
    }
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    pub ty: TableType,
    /// What its slots hold at first, where that is not null.
    pub init: Option<ConstExpr<'a>>,
}

/// One global.
#[derive(Clone, Debug)]
pub struct Global<'a> {
    pub ty: GlobalType,
    /// The initializer; `None` for an imported global.
    pub init: Option<ConstExpr<'a>>,
    /// Where the global's type stands in the input, and then its initializer.
    pub type_range: Range<usize>,
}

/// How a data or element segment takes part in instantiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentMode {
    /// Copied into the memory or table of this index, then dropped.
    Active(u32),
    /// Kept for `memory.init` or `table.init`, until dropped.
    Passive,
    /// Only declares functions for `ref.func`.
    Declarative,
}

/// One data segment.
#[derive(Clone, Debug)]
pub struct DataSegment<'a> {
    pub mode: SegmentMode,
    pub bytes: &'a [u8],
    /// The whole segment in the input.
    pub range: Range<usize>,
}

/// One element segment.
#[derive(Clone, Debug)]
pub struct ElementSegment {
    pub mode: SegmentMode,
    /// How many elements it holds.
    pub len: u32,
    /// The type of its items: `(ref func)` where they are indices of functions.
    pub ty: RefType,
    /// Whether an item makes an object of the garbage-collected heap that can be changed.
    pub makes_mutable: bool,
    /// The whole segment in the input.
    pub range: Range<usize>,
}

/// A type of objects of the garbage-collected heap.
#[derive(Clone, Copy, Debug)]
struct ObjectType {
    /// Whether they are arrays; else they are structs.
    is_array: bool,
    /// Whether something in them can be set.
    is_mutable: bool,
}

/// A module, parsed as far as the pipeline needs it.
#[derive(Debug, Default)]
pub struct Module<'a> {
    /// The input itself.
    pub bytes: &'a [u8],
    /// All sections, in order.
    pub sections: Vec<Section>,
    /// The function type at each type index, `None` for other composite types.
    types: Vec<Option<FuncType>>,
    /// What objects of each type are, `None` for types of functions and others.
    objects: Vec<Option<ObjectType>>,
    /// The declared supertype of each type.
    supertypes: Vec<Option<u32>>,
    /// Whether a type is what its structure says: alone in its group, final, without supertype.
    stand_alone: Vec<bool>,
    pub imports: Vec<Import<'a>>,
    /// The type index of each function.
    pub functions: IndexSpace<u32>,
    pub tables: IndexSpace<Table<'a>>,
    pub memories: IndexSpace<MemoryType>,
    pub globals: IndexSpace<Global<'a>>,
    pub tags: IndexSpace<()>,
    pub exports: Vec<Export<'a>>,
    /// The function that instantiation calls.
    pub start: Option<u32>,
    pub elements: Vec<ElementSegment>,
    pub data: Vec<DataSegment<'a>>,
    /// Whether there is a data count section; without one, no instruction names a data segment.
    pub has_data_count: bool,
    /// The functions that something other than an export declares for `ref.func`.
    declared: std::collections::HashSet<u32>,
}

impl<'a> Module<'a> {
    /// The section with this id, if the module has one. Not for custom sections.
    pub fn section(&self, id: u8) -> Option<&Section> {
        self.sections.iter().find(|s| s.id == id)
    }

    /// The contents of a section.
    pub fn contents(&self, section: &Section) -> &'a [u8] {
        &self.bytes[section.contents.clone()]
    }

    /// The custom sections whose names can be read, in order.
    pub fn customs(&self) -> impl Iterator<Item = Custom<'a>> {
        let sections = self.sections.iter().enumerate();
        let customs = sections.filter(|(_, section)| section.id == section::CUSTOM);
        customs.filter_map(|(position, section)| {
            let contents = self.contents(section);
            let mut reader = wasmparser::BinaryReader::new(contents, 0);
            Some(Custom {
                name: reader.read_string().ok()?,
                position,
                contents,
                start: reader.original_position(),
            })
        })
    }

    /// The export of this name.
    pub fn export(&self, name: &str) -> Option<&Export<'a>> {
        self.exports.iter().find(|e| e.name == name)
    }

    /// The import that is the thing of this kind and index, if it is imported.
    pub fn import(&self, kind: ExternKind, index: u32) -> Option<&Import<'a>> {
        let of_kind = |import: &&Import<'_>| {
            kind == match import.ty {
                TypeRef::Func(_) | TypeRef::FuncExact(_) => ExternKind::Func,
                TypeRef::Table(_) => ExternKind::Table,
                TypeRef::Memory(_) => ExternKind::Memory,
                TypeRef::Global(_) => ExternKind::Global,
                TypeRef::Tag(_) => ExternKind::Tag,
            }
        };
        self.imports.iter().filter(of_kind).nth(index as usize)
    }

    /// How many types the module declares.
    pub fn type_count(&self) -> u32 {
        u32::try_from(self.types.len()).expect("a parsed module has fewer than 2^32 types")
    }

    /// The type of a function, by function index.
    pub fn function_type(&self, function: u32) -> Option<&FuncType> {
        self.function_type_at(*self.functions.get(function)?)
    }

    /// The function type at a type index.
    pub fn function_type_at(&self, ty: u32) -> Option<&FuncType> {
        self.types.get(ty as usize)?.as_ref()
    }

    /// A function type that is the same in every module: one that stands alone, and names no types
    /// of this module.
    pub fn plain_type_at(&self, ty: u32) -> Option<&FuncType> {
        let structure = self.function_type_at(ty)?;
        let is_plain = |ty: &ValType| match ty {
            ValType::Ref(ty) => matches!(ty.heap_type(), HeapType::Abstract { .. }),
            _ => true,
        };
        let mut all = structure.params().iter().chain(structure.results());
        (self.stands_alone(ty) && all.all(is_plain)).then_some(structure)
    }

    /// Whether a type is what its structure says.
    fn stands_alone(&self, ty: u32) -> bool {
        self.stand_alone.get(ty as usize) == Some(&true)
    }

    /// Whether each value of the function type `ty` is one of the type `wanted`, as far as can be
    /// told: by declaration, or by the structure of plain types.
    pub fn is_subtype(&self, ty: u32, wanted: u32) -> bool {
        let supertype = |ty: &u32| *self.supertypes.get(*ty as usize)?;
        let plain = |ty: u32| {
            let structure = self.function_type_at(ty);
            structure.filter(|_| self.stands_alone(ty))
        };
        let mut chain = std::iter::successors(Some(ty), supertype);
        chain.any(|ty| ty == wanted)
            || plain(ty).is_some_and(|structure| plain(wanted) == Some(structure))
    }

    /// Whether it declares types of objects.
    #[cfg_attr(any(not(feature = "napi"), test), allow(dead_code))]
    pub fn has_objects(&self) -> bool {
        self.objects.iter().any(Option::is_some)
    }

    /// The type of objects at a type index.
    fn object_type(&self, ty: u32) -> Option<ObjectType> {
        *self.objects.get(ty as usize)?
    }

    /// Whether each value of the reference type `ty` is one of the type `wanted`, as far as
    /// declarations tell.
    pub fn is_reference_subtype(&self, ty: RefType, wanted: RefType) -> bool {
        use wasmparser::AbstractHeapType as A;
        if ty.is_nullable() && !wanted.is_nullable() {
            return false;
        }
        let index = |ty: HeapType| match ty {
            HeapType::Concrete(index) | HeapType::Exact(index) => index.as_module_index(),
            HeapType::Abstract { .. } => None,
        };
        let (ty, wanted) = (ty.heap_type(), wanted.heap_type());
        if ty == wanted {
            return true;
        }
        match (ty, wanted) {
            (HeapType::Abstract { ty, .. }, HeapType::Abstract { ty: wanted, .. }) => matches!(
                (ty, wanted),
                (A::Eq | A::Struct | A::Array | A::I31, A::Any)
                    | (A::Struct | A::Array | A::I31, A::Eq)
            ),
            (_, HeapType::Abstract { ty: wanted, .. }) => {
                match index(ty).and_then(|ty| self.object_type(ty)) {
                    Some(ObjectType { is_array: true, .. }) => {
                        matches!(wanted, A::Any | A::Eq | A::Array)
                    }
                    Some(_) => matches!(wanted, A::Any | A::Eq | A::Struct),
                    None => wanted == A::Func,
                }
            }
            // Of an exact type, nothing but the type itself is one.
            (_, HeapType::Exact(_)) => false,
            _ => match (index(ty), index(wanted)) {
                (Some(ty), Some(wanted)) => self.is_subtype(ty, wanted),
                _ => false,
            },
        }
    }

    /// Whether an export is a function without parameters and results.
    pub fn is_initializer(&self, export: &Export<'_>) -> bool {
        export.kind == ExternKind::Func
            && self
                .function_type(export.index)
                .is_some_and(|ty| ty.params().is_empty() && ty.results().is_empty())
    }

    /// Whether a memory that it defines or imports is shared.
    pub fn has_shared_memory(&self) -> bool {
        self.memories.all().any(|(_, memory)| memory.shared)
    }

    /// Whether a memory that it imports is shared.
    pub fn imports_shared_memory(&self) -> bool {
        let mut imported = self.memories.all().take(self.memories.imported);
        imported.any(|(_, ty)| ty.shared)
    }

    /// How the start function lets one instance initialize a shared memory, if it has the shape of
    /// the one that `wasm-ld` makes (`__wasm_init_memory`).
    pub fn shared_memory_init(&self, memory: u32) -> Option<SharedMemoryInit> {
        let body = self.start?.checked_sub(self.functions.imported())?;
        let code = self.section(section::CODE)?;
        let reader = wasmparser::BinaryReader::new(self.contents(code), 0);
        let bodies = wasmparser::CodeSectionReader::new(reader).ok()?;
        let body = bodies.into_iter().nth(body as usize)?.ok()?;
        let operators = body.get_operators_reader().ok()?.into_iter();
        init::recognize(&operators.collect::<Result<Vec<_>, _>>().ok()?, memory)
    }

    /// The imported functions that somebody else may get: where such a one is called, the module is
    /// not always the one that calls.
    #[cfg_attr(any(not(feature = "napi"), test), allow(dead_code))]
    pub fn imports_passed_on(&self) -> std::collections::HashSet<u32> {
        let exported = self.exports.iter().filter(|e| e.kind == ExternKind::Func);
        let passed = exported
            .map(|e| e.index)
            .chain(self.declared.iter().copied());
        passed
            .filter(|function| *function < self.functions.imported())
            .collect()
    }

    /// Whether other modules are probably linked to it while it runs, by what tools leave of that: a
    /// section for the linker, or imports of its offset table.
    pub fn is_linked_dynamically(&self) -> bool {
        let mut customs = self.customs();
        let mut imports = self.imports.iter();
        customs.any(|custom| matches!(custom.name, "dylink.0" | "dylink"))
            || imports.any(|import| import.module.starts_with("GOT."))
    }

    /// The functions that a reference can be of, in order: those that something declares or
    /// exports, and imported ones, which others may have handed out.
    pub fn referable_functions(&self) -> Vec<u32> {
        let exported = self.exports.iter().filter(|e| e.kind == ExternKind::Func);
        let mut functions: Vec<u32> = self.declared.iter().copied().collect();
        functions.extend(exported.map(|e| e.index));
        functions.extend(0..self.functions.imported());
        functions.sort_unstable();
        functions.dedup();
        functions
    }
}
