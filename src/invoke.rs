//! Calls that are asked for in text: `name(1, 2.5, null)`.

use wasmparser::{FuncType, ValType};
use wast::core::WastArgCore;
use wast::parser::{self, ParseBuffer};

use crate::error::{Error, counted};
use crate::module::{signature, val_type_name};
use crate::value::{Reference, Value};

/// A call of an exported function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub name: String,
    pub args: Arguments,
}

/// The arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    Values(Vec<Value>),
    /// As they were written, which the function's type gives a meaning.
    Text(Vec<String>),
}

impl Invocation {
    /// Reads `name(…)`, or a name alone. A name with spaces, commas or parentheses stands in
    /// quotation marks, as a JSON string.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Invocation, String> {
        let text = text.trim();
        let (name, rest) = if text.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
            match strings.next() {
                Some(Ok(name)) => (name, &text[strings.byte_offset()..]),
                _ => return Err("the quoted name does not end".into()),
            }
        } else {
            let end = text.find('(').unwrap_or(text.len());
            (text[..end].trim_end().to_string(), &text[end..])
        };
        if name.is_empty() {
            return Err("the name of a function is wanted".into());
        }
        let is_special = |c: char| c.is_whitespace() || c == ',' || c == ')';
        if !text.starts_with('"') && name.contains(is_special) {
            return Err(format!("the name `{name}` has to stand in quotation marks"));
        }
        let rest = rest.trim();
        let inner = rest
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'));
        let args = match (rest, inner) {
            ("", _) => Vec::new(),
            (_, Some(inner)) if inner.trim().is_empty() => Vec::new(),
            (_, Some(inner)) => inner.split(',').map(|arg| arg.trim().to_string()).collect(),
            _ => return Err("arguments stand in parentheses, as in `add(1, 2)`".into()),
        };
        Ok(Invocation {
            name,
            args: Arguments::Text(args),
        })
    }

    /// The arguments for a function of this type.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where they do not fit.
    pub fn values(&self, ty: &FuncType) -> Result<Vec<Value>, Error> {
        let misfit = |what| misfit(&self.name, ty, what);
        match &self.args {
            Arguments::Values(values) => {
                check(&self.name, ty, values)?;
                Ok(values.clone())
            }
            Arguments::Text(texts) if texts.len() != ty.params().len() => {
                Err(misfit(with_arguments(texts.len())))
            }
            Arguments::Text(texts) => {
                let typed = texts.iter().zip(ty.params());
                let read = typed.map(|(text, ty)| {
                    let wanted = || misfit(format!("with `{text}` for {}", val_type_name(*ty)));
                    value(text, *ty).ok_or_else(wanted)
                });
                read.collect()
            }
        }
    }
}

/// Checks the arguments of a call of a function of this name and type.
///
/// # Errors
///
/// [`Error::Option`] where they do not fit.
pub fn check(name: &str, ty: &FuncType, values: &[Value]) -> Result<(), Error> {
    if values.len() != ty.params().len() {
        return Err(misfit(name, ty, with_arguments(values.len())));
    }
    let misfits = |(value, ty): &(&Value, &ValType)| !value.fits(**ty);
    match values.iter().zip(ty.params()).find(misfits) {
        Some((value, _)) => Err(misfit(name, ty, format!("with {value}"))),
        None => Ok(()),
    }
}

fn with_arguments(count: usize) -> String {
    format!("with {}", counted(count as u64, "argument"))
}

fn misfit(name: &str, ty: &FuncType, what: String) -> Error {
    let ty = signature(ty);
    Error::option(format!(
        "`{name}` cannot be called {what}: its type is {ty}"
    ))
}

/// A value as the text format writes the operand of a constant instruction.
fn value(text: &str, ty: ValType) -> Option<Value> {
    let instruction = match ty {
        ValType::I32 => "i32.const",
        ValType::I64 => "i64.const",
        ValType::F32 => "f32.const",
        ValType::F64 => "f64.const",
        ValType::V128 => "v128.const",
        ValType::Ref(ty) => {
            return (text == "null" && ty.is_nullable()).then_some(Value::Ref(Reference::Null));
        }
    };
    // Nothing but the operand: no comment, and no further instruction.
    if text.contains(['(', ')', ';', '"']) {
        return None;
    }
    let text = format!("{instruction} {text}");
    let buffer = ParseBuffer::new(&text).ok()?;
    Some(match parser::parse::<WastArgCore<'_>>(&buffer).ok()? {
        WastArgCore::I32(value) => Value::I32(value),
        WastArgCore::I64(value) => Value::I64(value),
        WastArgCore::F32(value) => Value::F32(value.bits),
        WastArgCore::F64(value) => Value::F64(value.bits),
        WastArgCore::V128(value) => Value::V128(u128::from_le_bytes(value.to_le_bytes())),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Result<(String, Vec<String>), String> {
        let Invocation { name, args } = Invocation::parse(text)?;
        match args {
            Arguments::Text(texts) => Ok((name, texts)),
            Arguments::Values(_) => unreachable!("it was text"),
        }
    }

    #[test]
    fn names_and_arguments() {
        let is = |text, name: &str, args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_string()).collect();
            assert_eq!(texts(text), Ok((name.into(), args)), "{text}");
        };
        is("setup", "setup", &[]);
        is(" setup ( ) ", "setup", &[]);
        is("add(1, 2.5)", "add", &["1", "2.5"]);
        is("wizer.initialize(-0x1)", "wizer.initialize", &["-0x1"]);
        is(
            r#""a (strange), \"name\""(null)"#,
            "a (strange), \"name\"",
            &["null"],
        );
        for wrong in ["", "(1)", "add(1", "add 1)", "\"add(1)", "add(1) 2"] {
            assert!(Invocation::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_of_the_functions_types() {
        let ty = |params: &[ValType]| FuncType::new(params.to_vec(), []);
        let values = |text: &str, params: &[ValType]| {
            let invocation = Invocation::parse(text).unwrap();
            invocation.values(&ty(params)).map_err(|e| e.to_string())
        };
        use ValType as T;
        let numbers = [T::I32, T::I64, T::F32, T::F64];
        assert_eq!(
            values("f(-1, 0xffff_ffff_ffff_ffff, nan, 0x1.8p1)", &numbers).unwrap(),
            [
                Value::I32(-1),
                Value::I64(-1),
                Value::F32(0x7fc0_0000),
                Value::F64(3f64.to_bits()),
            ]
        );
        assert_eq!(
            values("f(i32x4 1 2 3 4, null)", &[T::V128, T::FUNCREF]).unwrap(),
            [
                Value::V128(1 | 2 << 32 | 3 << 64 | 4 << 96),
                Value::Ref(Reference::Null),
            ]
        );
        for (text, params) in [
            ("f()", &[T::I32][..]),
            ("f(1, 2)", &[T::I32]),
            ("f(1.5)", &[T::I32]),
            ("f(4294967296)", &[T::I32]),
            ("f(1 (; comment ;))", &[T::I32]),
            ("f(\"text\")", &[T::I32]),
            ("f(1)", &[T::FUNCREF]),
            ("f()", &[T::FUNCREF]),
        ] {
            let error = values(text, params).unwrap_err();
            assert!(error.contains("its type is ("), "{error}");
        }
    }
}
