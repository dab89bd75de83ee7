//! Values of wasmtime, and values of ours.

use std::ffi::c_void;

use wasmtime::{AsContextMut, Func, Val};

use super::objects;
use super::{StoreData, text};
use crate::value::{Reference, Value};

/// A value for those who may give it back.
pub(super) fn hand_out(mut store: impl AsContextMut<Data = StoreData>, val: &Val) -> Value {
    let value = from_val(&mut store, val);
    if let Value::Ref(Reference::Func(number)) = value {
        let mut store = store.as_context_mut();
        store.data_mut().handed_out.insert(number);
    }
    if let Value::Ref(Reference::Object | Reference::Exception) = value
        && let Some(number) = objects::keep(store, val)
    {
        return Value::Ref(Reference::Handle(number));
    }
    value
}

/// A value type as functions of the host see it; `None` for types that only modules know.
pub(super) fn numeric(ty: &wasmtime::ValType) -> Option<wasmparser::ValType> {
    Some(match ty {
        wasmtime::ValType::I32 => wasmparser::ValType::I32,
        wasmtime::ValType::I64 => wasmparser::ValType::I64,
        wasmtime::ValType::F32 => wasmparser::ValType::F32,
        wasmtime::ValType::F64 => wasmparser::ValType::F64,
        wasmtime::ValType::V128 => wasmparser::ValType::V128,
        wasmtime::ValType::Ref(ty) => match ty.heap_type() {
            wasmtime::HeapType::Extern => wasmparser::ValType::EXTERNREF,
            wasmtime::HeapType::Func => wasmparser::ValType::FUNCREF,
            _ => return None,
        },
    })
}

pub(super) fn from_val(mut store: impl AsContextMut, value: &Val) -> Value {
    let reference = match value {
        Val::I32(v) => return Value::I32(*v),
        Val::I64(v) => return Value::I64(*v),
        Val::F32(v) => return Value::F32(*v),
        Val::F64(v) => return Value::F64(*v),
        Val::V128(v) => return Value::V128(v.as_u128()),
        Val::FuncRef(None)
        | Val::ExternRef(None)
        | Val::AnyRef(None)
        | Val::ExnRef(None)
        | Val::ContRef(None) => Reference::Null,
        Val::FuncRef(Some(func)) => {
            let raw: *mut c_void = func.to_raw(&mut store);
            Reference::Func(raw as usize as u64)
        }
        Val::ExternRef(Some(reference)) => from_extern(&mut store, *reference),
        Val::AnyRef(Some(any)) => match (any.as_i31(&store), any.is_eqref(&store)) {
            (Ok(Some(i31)), _) => Reference::I31(i31.get_u32()),
            (_, Ok(true)) => Reference::Object,
            // It came from the host.
            _ => match wasmtime::ExternRef::convert_any(&mut store, *any) {
                Ok(reference) => from_extern(&mut store, reference),
                Err(_) => Reference::Object,
            },
        },
        Val::ExnRef(Some(_)) => Reference::Exception,
        Val::ContRef(Some(_)) => Reference::Object,
    };
    Value::Ref(reference)
}

/// A reference of the host, or what went out as one; an object where it is of another host.
pub(super) fn from_extern(
    mut store: impl AsContextMut,
    reference: wasmtime::Rooted<wasmtime::ExternRef>,
) -> Reference {
    let data = reference.data(&store).ok().flatten();
    if let Some(number) = data.and_then(|data| data.downcast_ref::<u32>().copied()) {
        return Reference::Extern(number);
    }
    let inside = wasmtime::AnyRef::convert_extern(&mut store, reference);
    match inside.and_then(|any| any.as_i31(&store)) {
        Ok(Some(i31)) => Reference::I31(i31.get_u32()),
        _ => Reference::Object,
    }
}

/// A value of this type. The error says what does not fit.
pub(super) fn to_val(
    mut store: impl AsContextMut<Data = StoreData>,
    value: Value,
    ty: &wasmtime::ValType,
) -> Result<Val, String> {
    let val = match (value, ty) {
        (Value::I32(v), wasmtime::ValType::I32) => return Ok(Val::I32(v)),
        (Value::I64(v), wasmtime::ValType::I64) => return Ok(Val::I64(v)),
        (Value::F32(v), wasmtime::ValType::F32) => return Ok(Val::F32(v)),
        (Value::F64(v), wasmtime::ValType::F64) => return Ok(Val::F64(v)),
        (Value::V128(v), wasmtime::ValType::V128) => return Ok(Val::V128(v.into())),
        (Value::Ref(reference), wasmtime::ValType::Ref(ty)) => {
            to_reference(&mut store, reference, ty)?
        }
        _ => None,
    };
    val.filter(|val| val.matches_ty(&store, ty).unwrap_or(false))
        .ok_or_else(|| format!("{value} was given where {} is wanted", wanted(ty)))
}

/// A type, for messages.
pub(super) fn wanted(ty: &wasmtime::ValType) -> String {
    use wasmtime::HeapType as H;
    match ty.as_ref().map(|ty| ty.heap_type()) {
        // wasmtime would tell the number under which it knows the type.
        Some(H::ConcreteFunc(_)) => "a function of another type".into(),
        Some(H::ConcreteStruct(_)) => "a struct of another type".into(),
        Some(H::ConcreteArray(_)) => "an array of another type".into(),
        _ => format!("a value of type {ty}"),
    }
}

/// A reference, as one of the hierarchy of this type.
pub(super) fn to_reference(
    mut store: impl AsContextMut<Data = StoreData>,
    reference: Reference,
    ty: &wasmtime::RefType,
) -> Result<Option<Val>, String> {
    let is_extern = matches!(ty.heap_type(), wasmtime::HeapType::Extern);
    Ok(match reference {
        Reference::Null => Some(Val::null_ref(ty.heap_type())),
        Reference::Extern(number) => {
            let reference = wasmtime::ExternRef::new(&mut store, number)
                .map_err(|e| format!("there is no room for a reference: {}", text(&e)))?;
            match is_extern {
                true => Some(reference.into()),
                false => {
                    let inside = wasmtime::AnyRef::convert_extern(&mut store, reference);
                    inside.ok().map(Val::from)
                }
            }
        }
        Reference::I31(bits) => {
            let i31 = wasmtime::I31::wrapping_u32(bits);
            let any = wasmtime::AnyRef::from_i31(&mut store, i31);
            match is_extern {
                true => wasmtime::ExternRef::convert_any(&mut store, any)
                    .ok()
                    .map(Val::from),
                false => Some(any.into()),
            }
        }
        Reference::Func(number) if store.as_context().data().handed_out.contains(&number) => {
            // SAFETY: the number is what `Func::to_raw` gave for a function of this store, which
            // lives as long as the store.
            Some(unsafe { Func::from_raw(&mut store, number as usize as *mut c_void) }.into())
        }
        Reference::Handle(number) => objects::kept(store, number, is_extern),
        _ => None,
    })
}
