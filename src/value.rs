//! WebAssembly values, free of any engine.

use wasmparser::ValType;

/// A value that a function takes or returns, or that a global or table holds.
///
/// Floats are kept as bits: a NaN's payload is state like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// An `i32`.
    I32(i32),
    /// An `i64`.
    I64(i64),
    /// The bits of an `f32`.
    F32(u32),
    /// The bits of an `f64`.
    F64(u64),
    /// The bits of a `v128`, lane 0 lowest.
    V128(u128),
    /// A reference.
    Ref(Reference),
}

/// A reference, as far as it can be told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reference {
    /// No reference.
    Null,
    /// A function; equal numbers are the same function in the same run.
    Func(u64),
    /// An unboxed integer, 31 bits.
    I31(u32),
    /// A reference of the host, by the number that the host gave it.
    Extern(u32),
    /// An object of the garbage-collected heap, or an exception, by the number under which it was
    /// handed out; equal numbers are the same object in the same run.
    Handle(u32),
    /// An object of the garbage-collected heap, where nobody may give it back.
    Object,
    /// An exception that was caught, where nobody may give it back.
    Exception,
}

impl Value {
    /// Whether it can be a value of this type, as far as the value itself tells.
    pub(crate) fn fits(self, ty: ValType) -> bool {
        match (self, ty) {
            (Value::I32(_), ValType::I32)
            | (Value::I64(_), ValType::I64)
            | (Value::F32(_), ValType::F32)
            | (Value::F64(_), ValType::F64)
            | (Value::V128(_), ValType::V128) => true,
            (Value::Ref(Reference::Null), ValType::Ref(ty)) => ty.is_nullable(),
            (Value::Ref(_), ValType::Ref(_)) => true,
            _ => false,
        }
    }
}

/// For messages: a reference is called by its kind.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::I32(value) => write!(f, "the i32 {value}"),
            Value::I64(value) => write!(f, "the i64 {value}"),
            Value::F32(bits) => write!(f, "the f32 {}", f32::from_bits(*bits)),
            Value::F64(bits) => write!(f, "the f64 {}", f64::from_bits(*bits)),
            Value::V128(bits) => write!(f, "the v128 {bits:#034x}"),
            Value::Ref(reference) => f.write_str(match reference {
                Reference::Null => "null",
                Reference::Func(_) => "a function",
                Reference::I31(_) => "an i31",
                Reference::Extern(_) => "a reference of the host",
                Reference::Handle(_) | Reference::Object => "an object",
                Reference::Exception => "an exception",
            }),
        }
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::I32(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::I64(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Value::F32(value.to_bits())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::F64(value.to_bits())
    }
}

/// `ToInt32` of ECMAScript.
pub(crate) fn to_int32(number: f64) -> i32 {
    const RANGE: f64 = 4_294_967_296.0;
    match number.is_finite() {
        true => number.trunc().rem_euclid(RANGE) as u32 as i32,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::to_int32;

    #[test]
    fn numbers_wrap_as_in_javascript() {
        for (number, expected) in [
            (0.0, 0),
            (-1.0, -1),
            (1.9, 1),
            (-1.9, -1),
            (4_294_967_295.0, -1),
            (2_147_483_648.0, i32::MIN),
            (1e20, 1_661_992_960),
            (f64::NAN, 0),
            (f64::INFINITY, 0),
        ] {
            assert_eq!(to_int32(number), expected, "{number}");
        }
    }
}
