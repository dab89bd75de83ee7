//! Values of modules that JavaScript has none for.

use wasmparser::{AbstractHeapType, FuncType, HeapType, ValType};

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

/// Whether these are arguments of these types. The error says what does not fit.
pub(super) fn check(args: &[Value], types: &[ValType]) -> Result<(), String> {
    if args.len() != types.len() {
        return Err(format!(
            "{} arguments were given to a function that takes {}",
            args.len(),
            types.len()
        ));
    }
    match args.iter().zip(types).find(|(arg, ty)| !arg.fits(**ty)) {
        Some((arg, ty)) => Err(format!(
            "{arg} was given where a value of type {} is wanted",
            val_type_name(*ty)
        )),
        None => Ok(()),
    }
}
