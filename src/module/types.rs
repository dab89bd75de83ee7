//! Facts about value types, and their names for people.

use wasmparser::{AbstractHeapType, FuncType, HeapType, RefType, ValType};

/// The text format's name of a value type.
pub fn val_type_name(ty: ValType) -> String {
    match ty {
        ValType::I32 => "i32".into(),
        ValType::I64 => "i64".into(),
        ValType::F32 => "f32".into(),
        ValType::F64 => "f64".into(),
        ValType::V128 => "v128".into(),
        ValType::Ref(ty) => ref_type_name(ty),
    }
}

/// The text format's name of a reference type; a type that the module defines goes by its index.
pub fn ref_type_name(ty: RefType) -> String {
    let (index, exact) = match ty.heap_type() {
        // These have names of their own.
        HeapType::Abstract { .. } => return ty.to_string(),
        HeapType::Concrete(index) => (index, false),
        HeapType::Exact(index) => (index, true),
    };
    let null = if ty.is_nullable() { "null " } else { "" };
    match (index.as_module_index(), exact) {
        (Some(index), false) => format!("(ref {null}{index})"),
        (Some(index), true) => format!("(ref {null}(exact {index}))"),
        // Types are read from modules, where there are no other indices.
        (None, _) => ty.to_string(),
    }
}

/// Whether values of this type can be objects of the garbage-collected heap: structs, arrays,
/// or what hides one. Functions, host references and exceptions cannot.
pub fn needs_collector(ty: RefType) -> bool {
    match ty.heap_type() {
        HeapType::Abstract { ty, .. } => matches!(
            ty,
            AbstractHeapType::Any
                | AbstractHeapType::Extern
                | AbstractHeapType::Eq
                | AbstractHeapType::Struct
                | AbstractHeapType::Array
        ),
        // A concrete type may be a function type too; reading the value tells.
        HeapType::Concrete(_) | HeapType::Exact(_) => true,
    }
}

/// Whether references of this type are external ones.
pub fn is_external(ty: RefType) -> bool {
    matches!(
        ty.heap_type(),
        HeapType::Abstract {
            ty: AbstractHeapType::Extern | AbstractHeapType::NoExtern,
            ..
        }
    )
}

/// A function type in the text format's terms: `(i32, i64) -> (f32)`.
pub fn signature(ty: &FuncType) -> String {
    let list = |types: &[ValType]| {
        let names: Vec<_> = types.iter().map(|t| val_type_name(*t)).collect();
        format!("({})", names.join(", "))
    };
    format!("{} -> {}", list(ty.params()), list(ty.results()))
}
