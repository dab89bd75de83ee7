//! Values of modules that JavaScript has none for.

use wasmparser::{AbstractHeapType, FuncType, HeapType, ValType};

use crate::engine::count_of_arguments;
use crate::module::val_type_name;
use crate::value::Value;

/// A type of a function that JavaScript has no values of.
pub(super) fn unknown(ty: &FuncType) -> Option<String> {
    let mut types = ty.params().iter().chain(ty.results());
    let is_unknown = |ty: &&ValType| match ty {
        ValType::V128 => true,
        ValType::Ref(ty) => matches!(
            ty.heap_type(),
            HeapType::Abstract {
                ty: AbstractHeapType::Exn
                    | AbstractHeapType::NoExn
                    | AbstractHeapType::Cont
                    | AbstractHeapType::NoCont,
                ..
            }
        ),
        _ => false,
    };
    types.find(is_unknown).map(|ty| val_type_name(*ty))
}

/// A type of a function's results that JavaScript finds out only when the function has returned, which a
/// module could catch: one of a type of its own.
pub(super) fn unchecked(ty: &FuncType) -> Option<String> {
    let is_own = |ty: &&ValType| matches!(ty, ValType::Ref(ty) if !matches!(ty.heap_type(), HeapType::Abstract { .. }));
    ty.results()
        .iter()
        .find(is_own)
        .map(|ty| val_type_name(*ty))
}

/// Whether these are arguments of these types. The error says what does not fit.
pub(super) fn check(args: &[Value], types: &[ValType]) -> Result<(), String> {
    count_of_arguments(args.len(), types.len())?;
    match args.iter().zip(types).find(|(arg, ty)| !arg.fits(**ty)) {
        Some((arg, ty)) => Err(format!(
            "{arg} was given where a value of type {} is wanted",
            val_type_name(*ty)
        )),
        None => Ok(()),
    }
}

/// An argument that JavaScript has no number for: a NaN that is not the one it has.
pub(super) fn special_nan(args: &[Value]) -> Option<Value> {
    let is_special = |arg: &&Value| match **arg {
        Value::F32(bits) => f32::from_bits(bits).is_nan() && bits != f32::NAN.to_bits(),
        Value::F64(bits) => f64::from_bits(bits).is_nan() && bits != f64::NAN.to_bits(),
        _ => false,
    };
    args.iter().find(is_special).copied()
}
