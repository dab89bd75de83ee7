//! What wasmi 2.0.0 gets wrong, written so that it does not.
//!
//! wasmi makes one instruction of a `select` and of the comparison with zero that is its condition
//! (`i32.eqz`, or `i32.eq` and `i32.ne` with zero). Where the value that is compared is not in its
//! accumulator, it drops the comparison and tests the accumulator all the same, whatever that
//! holds. So nothing to make one instruction of is left before a `select` in the copy that it runs.
//! Before every one, as it is hard to tell what wasmi sees before it: it computes with constants, and
//! looks through what changes nothing.
//!
//! ```wat
//! (i32.eqz (local.get $x))
//! (i32.const 0) (drop)
//! select
//! ```
//!
//! wasmi makes no code of the constant, but with a `drop` it is done with the comparison. Other
//! engines run the module as it is, and so do backtraces and places in the code count in that.

use std::borrow::Cow;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, VisitOperator, VisitSimdOperator};

use crate::module::{Module, section};
use crate::splice::{Rope, Splice};
use crate::threads::SHORT;

/// `i32.const 0` and `drop`.
const NOTHING: &[u8] = &[0x41, 0, 0x1a];

/// How many bytes of code are worth a second thread.
const PARALLEL: usize = 256 << 10;

/// The opcodes of the two kinds of `select`.
const SELECT: u8 = 0x1b;
const TYPED_SELECT: u8 = 0x1c;

/// The module as wasmi is given it. What cannot be read stays as it is, and is refused elsewhere.
pub fn unfused(wasm: &[u8]) -> Cow<'_, [u8]> {
    rewritten(wasm).map_or(Cow::Borrowed(wasm), Cow::Owned)
}

/// The module, where anything in it has to be written otherwise.
fn rewritten(wasm: &[u8]) -> Option<Vec<u8>> {
    let module = Module::parse(wasm).ok()?;
    let contents = module.contents(module.section(section::CODE)?);
    let bodies = CodeSectionReader::new(BinaryReader::new(contents, 0)).ok()?;
    let bodies: Vec<_> = bodies.into_iter().collect::<Result<_, _>>().ok()?;
    let separated: Vec<_> = match contents.len() {
        0..PARALLEL => bodies.iter().map(separated).collect(),
        _ => SHORT.run(|| bodies.par_iter().with_min_len(64).map(separated).collect()),
    };
    if separated.iter().all(Option::is_none) {
        return None;
    }
    let mut code = Rope::new();
    code.leb(bodies.len() as u32);
    for (body, separated) in bodies.iter().zip(&separated) {
        let bytes = separated.as_deref().unwrap_or(body.as_bytes());
        code.leb(bytes.len() as u32).borrow(bytes);
    }
    let mut splice = Splice::new(&module);
    splice.replace(section::CODE, code);
    Some(splice.finish().bytes)
}

/// A function with something before each `select`, where there is one.
fn separated(body: &FunctionBody<'_>) -> Option<Vec<u8>> {
    let bytes = body.as_bytes();
    // Most functions have not even a byte like one.
    memchr::memchr2(SELECT, TYPED_SELECT, bytes)?;
    let start = body.range().start;
    let mut operators = body.get_operators_reader().ok()?;
    let mut out = Vec::with_capacity(bytes.len() + 16 * NOTHING.len());
    let mut done = 0;
    while !operators.eof() {
        let at = operators.original_position() - start;
        if operators.visit_operator(&mut IsSelect).ok()? {
            out.extend_from_slice(&bytes[done..at]);
            out.extend_from_slice(NOTHING);
            done = at;
        }
    }
    out.extend_from_slice(&bytes[done..]);
    (done > 0).then_some(out)
}

/// Tells of an operator whether it is a `select`. Reading operators in this way makes none of them,
/// and takes half the time.
struct IsSelect;

macro_rules! is_select {
    ($(@$proposal:ident $name:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($arity:tt)*))*) => {
        $(fn $visit(&mut self $($(, _: $ty)*)?) -> bool { is_select!($name) })*
    };
    (Select) => { true };
    (TypedSelect) => { true };
    ($name:ident) => { false };
}

impl<'a> VisitOperator<'a> for IsSelect {
    type Output = bool;

    fn simd_visitor(&mut self) -> Option<&mut dyn VisitSimdOperator<'a, Output = bool>> {
        Some(self)
    }

    wasmparser::for_each_visit_operator!(is_select);
}

impl VisitSimdOperator<'_> for IsSelect {
    wasmparser::for_each_visit_simd_operator!(is_select);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_each_select() {
        let module = |separator: &str| {
            let text = format!(
                r#"(module
                  (func (param i32) (result i32) (i32.const 27) (i32.const 28) (local.get 0) {separator} select)
                  (func (result i32) (i32.const 27))
                  (func (param i64 i32) (result i64)
                    (local.get 0) (i64.const 1)
                    (i32.const 3) (i32.const 4) (local.get 1) {separator} select
                    {separator} (select (result i64))))"#
            );
            wat::parse_str(text).unwrap()
        };
        assert!(unfused(&module("")) == module("i32.const 0 drop"));
    }

    #[test]
    fn without_one_nothing_is_copied() {
        let wasm = wat::parse_str("(module (func (result i32) (i32.const 27)))").unwrap();
        assert!(matches!(unfused(&wasm), Cow::Borrowed(_)));
        assert!(matches!(unfused(b"nothing"), Cow::Borrowed(_)));
    }
}
