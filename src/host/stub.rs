//! Stand-ins for imports that nobody provides.

use wasmparser::ValType;

use crate::error::Error;
use crate::value::{Reference, Value, to_int32};

/// What stands in for an import. See [`Wizer::stub`](crate::Wizer::stub).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Stub {
    /// Calling it is an error that names it.
    Trap,
    /// A function returns this number for each of its results, and a global has it.
    Integer(i128),
    /// As [`Stub::Integer`].
    Float(f64),
}

impl From<i32> for Stub {
    fn from(number: i32) -> Stub {
        Stub::Integer(number.into())
    }
}

impl From<f64> for Stub {
    fn from(number: f64) -> Stub {
        Stub::Float(number)
    }
}

impl Stub {
    /// Reads `trap` or a number.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for anything else.
    #[cfg(any(feature = "cli", feature = "napi", test))]
    pub(crate) fn parse(text: &str) -> Result<Stub, Error> {
        let text = text.trim();
        if text == "trap" {
            return Ok(Stub::Trap);
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let is_unsigned = digits.starts_with(|c: char| c.is_ascii_digit());
        let integer = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        match (integer, text.parse()) {
            (Ok(integer), _) if is_unsigned => Ok(Stub::Integer(sign * integer)),
            (_, Ok(float)) => Ok(Stub::Float(float)),
            _ => Err(Error::option(format!(
                "a stub returns a number, or is `trap`; `{text}` is neither"
            ))),
        }
    }

    /// The value of a type; null for references. `None` where there is none.
    pub(crate) fn value(self, ty: ValType) -> Option<Value> {
        let number = match self {
            Stub::Trap => Stub::Integer(0),
            number => number,
        };
        Some(match (ty, number) {
            (ValType::Ref(ty), _) => {
                return ty.is_nullable().then_some(Value::Ref(Reference::Null));
            }
            (ValType::I32, Stub::Integer(n)) => Value::I32(n as i32),
            (ValType::I64, Stub::Integer(n)) => Value::I64(n as i64),
            (ValType::F32, Stub::Integer(n)) => (n as f32).into(),
            (ValType::F64, Stub::Integer(n)) => (n as f64).into(),
            (ValType::V128, Stub::Integer(n)) => Value::V128(n as u128),
            (ValType::I32, Stub::Float(n)) => Value::I32(to_int32(n)),
            (ValType::I64, Stub::Float(n)) => Value::I64(n as i64),
            (ValType::F32, Stub::Float(n)) => (n as f32).into(),
            (ValType::F64, Stub::Float(n)) => n.into(),
            (ValType::V128, Stub::Float(n)) => Value::V128(n as i128 as u128),
            (_, Stub::Trap) => return None,
        })
    }
}

/// The names of imports: `module.name`, where `*` in either stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where it does not have two names.
    pub fn parse(text: &str) -> Result<Pattern, Error> {
        match text.contains('.') {
            true => Ok(Pattern(text.into())),
            false => Err(Error::option(format!(
                "the stub `{text}` must have the form `MODULE.NAME`, as in `env.abort`, `env.*` or \
                 `*.*`"
            ))),
        }
    }

    /// Whether it stands for one import only.
    fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// How many characters it fixes.
    fn fixed(&self) -> usize {
        self.0.chars().filter(|c| *c != '*').count()
    }

    /// Whether it stands for an import, whichever of its dots is the one between the two names.
    pub fn matches(&self, module: &str, name: &str) -> bool {
        let mut dots = self.0.match_indices('.');
        dots.any(|(dot, _)| matches(&self.0[..dot], module) && matches(&self.0[dot + 1..], name))
    }
}

/// Whether a text is what a pattern says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(first) else {
        return false;
    };
    let Some((middle, last)) = rest.rsplit_once('*') else {
        return text.ends_with(rest);
    };
    // Each piece where it occurs first, and the last one at the end.
    let mut text = text;
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// The stubs of a run.
#[derive(Clone, Debug, Default)]
pub struct Stubs(Vec<(Pattern, Stub)>);

impl Stubs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, pattern: Pattern, stub: Stub) {
        self.0.push((pattern, stub));
    }

    /// The stub of an import that nobody provides: that of the pattern which says most, and of two
    /// that say as much the later one.
    pub(crate) fn find(&self, module: &str, name: &str) -> Option<Stub> {
        let fitting = self.0.iter().filter(|(of, _)| of.matches(module, name));
        let best = fitting.max_by_key(|(of, _)| (of.is_exact(), of.fixed()))?;
        Some(best.1)
    }

    /// The stub of an import that is named in full.
    pub(crate) fn named(&self, module: &str, name: &str) -> Option<Stub> {
        let exact = self.0.iter().rev().filter(|(of, _)| of.is_exact());
        let mut fitting = exact.filter(|(of, _)| of.matches(module, name));
        Some(fitting.next()?.1)
    }

    /// The patterns that stand for none of these imports.
    pub(crate) fn unused<'s>(
        &'s self,
        imports: &'s [(&'s str, &'s str)],
    ) -> impl Iterator<Item = &'s str> {
        let is_used = |of: &Pattern| {
            imports
                .iter()
                .any(|(module, name)| of.matches(module, name))
        };
        let unused = self.0.iter().filter(move |(of, _)| !is_used(of));
        unused.map(|(of, _)| of.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, module, name, expected) in [
            ("env.abort", "env", "abort", true),
            ("env.abort", "env", "abort2", false),
            ("env.*", "env", "", true),
            ("env.*", "env2", "abort", false),
            ("*.*", "", "", true),
            ("env.a*b*c", "env", "a-b-b-c", true),
            ("env.a*b*c", "env", "a-b-b-d", false),
            ("env.a*a", "env", "a", false),
            ("env.*_get", "env", "x_get", true),
            ("wasi*.fd_*", "wasi_snapshot_preview1", "fd_write", true),
            // Names with dots.
            ("a.b.c", "a", "b.c", true),
            ("a.b.c", "a.b", "c", true),
            ("a.b.c", "a.b.c", "", false),
            ("GOT.mem.*", "GOT.mem", "stack", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(module, name),
                expected,
                "{pattern} {module} {name}"
            );
        }
        assert!(Pattern::parse("env").is_err());
    }

    #[test]
    fn what_says_most_wins() {
        let mut stubs = Stubs::default();
        for (pattern, value) in [
            ("env.abort", 1),
            ("env.*", 2),
            ("*.*", 3),
            ("env.ab*", 4),
            ("*.*", 5),
        ] {
            stubs.push(Pattern::parse(pattern).unwrap(), value.into());
        }
        assert_eq!(stubs.find("env", "abort"), Some(Stub::Integer(1)));
        assert_eq!(stubs.find("env", "about"), Some(Stub::Integer(4)));
        assert_eq!(stubs.find("env", "exit"), Some(Stub::Integer(2)));
        assert_eq!(
            stubs.find("x", "y"),
            Some(Stub::Integer(5)),
            "the later one"
        );
        assert_eq!(stubs.named("env", "exit"), None);
    }

    #[test]
    fn numbers_are_read() {
        for (text, expected) in [
            ("trap", Stub::Trap),
            ("0", Stub::Integer(0)),
            ("-1", Stub::Integer(-1)),
            ("0x10", Stub::Integer(16)),
            ("-0x10", Stub::Integer(-16)),
            ("18446744073709551615", Stub::Integer(u64::MAX.into())),
            ("1.5", Stub::Float(1.5)),
            ("-inf", Stub::Float(f64::NEG_INFINITY)),
            ("1e3", Stub::Float(1000.0)),
        ] {
            assert_eq!(Stub::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "--1", "0x", "1 2"] {
            assert!(Stub::parse(text).is_err(), "{text}");
        }
    }
}
