//! What wasmi 2.0.0 gets wrong, written so that it does not.
//!
//! wasmi makes one instruction of a `select` and of the comparison with zero that is its condition
//! (`i32.eqz`, or `i32.eq` and `i32.ne` with zero). Where the value that is compared is not in its
//! accumulator, it drops the comparison and tests the accumulator all the same, whatever that
//! holds. So nothing to make one instruction of is left before a `select` in the copy that it runs:
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

use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, Operator};

use crate::module::{Module, section};
use crate::splice::{Rope, Splice};

/// `i32.const 0` and `drop`.
const NOTHING: &[u8] = &[opcode::I32_CONST, 0, opcode::DROP];

/// The opcodes that matter.
mod opcode {
    pub const NOP: u8 = 0x01;
    pub const BLOCK: u8 = 0x02;
    pub const IF: u8 = 0x04;
    pub const END: u8 = 0x0b;
    pub const BR_IF: u8 = 0x0d;
    pub const DROP: u8 = 0x1a;
    pub const SELECT: u8 = 0x1b;
    pub const TYPED_SELECT: u8 = 0x1c;
    pub const LOCAL_SET: u8 = 0x21;
    pub const I32_CONST: u8 = 0x41;
    pub const I32_EQZ: u8 = 0x45;
    pub const I32_NE: u8 = 0x47;
    pub const I64_EQZ: u8 = 0x50;
    pub const I64_NE: u8 = 0x52;
    pub const I32_SHL: u8 = 0x74;
    pub const I32_ROTR: u8 = 0x78;
}

/// The module as wasmi is given it. What cannot be read stays as it is, and is refused elsewhere.
pub fn unfused(wasm: &[u8]) -> Cow<'_, [u8]> {
    rewritten(wasm).map_or(Cow::Borrowed(wasm), Cow::Owned)
}

/// The module, where anything in it has to be written otherwise.
fn rewritten(wasm: &[u8]) -> Option<Vec<u8>> {
    let module = Module::parse(wasm).ok()?;
    let contents = module.contents(module.section(section::CODE)?);
    let bodies = CodeSectionReader::new(BinaryReader::new(contents, 0)).ok()?;
    let mut code = Rope::new();
    code.leb(bodies.count());
    let mut changed = false;
    for body in bodies {
        let body = body.ok()?;
        match separated(&body) {
            Some(bytes) => {
                changed = true;
                code.leb(bytes.len() as u32).write(&bytes);
            }
            None => {
                code.leb(body.as_bytes().len() as u32)
                    .borrow(body.as_bytes());
            }
        }
    }
    if !changed {
        return None;
    }
    let mut splice = Splice::new(&module);
    splice.replace(section::CODE, code);
    Some(splice.finish().bytes)
}

/// A function with something before each `select`, where one of them may need it.
fn separated(body: &FunctionBody<'_>) -> Option<Vec<u8>> {
    let bytes = body.as_bytes();
    if !has_suspect(bytes) {
        return None;
    }
    let start = body.range().start;
    let mut operators = body.get_operators_reader().ok()?;
    let mut out = Vec::with_capacity(bytes.len() + 16 * NOTHING.len());
    let mut done = 0;
    while !operators.eof() {
        let (operator, at) = operators.read_with_offset().ok()?;
        if let Operator::Select | Operator::TypedSelect { .. } = operator {
            let at = at - start;
            out.extend_from_slice(&bytes[done..at]);
            out.extend_from_slice(NOTHING);
            done = at;
        }
    }
    out.extend_from_slice(&bytes[done..]);
    (done > 0).then_some(out)
}

/// Whether there is a byte like a `select` that is behind a comparison, or behind what may stand
/// between the two and be nothing to wasmi. Most functions are done with at the speed of a search
/// for bytes.
fn has_suspect(body: &[u8]) -> bool {
    memchr::memchr2_iter(opcode::SELECT, opcode::TYPED_SELECT, body).any(|at| {
        let before = &body[..at];
        match before.last() {
            Some(&(opcode::I32_EQZ..=opcode::I32_NE)) => true,
            // A comparison of an `i32` that was extended becomes one of the `i32` itself.
            Some(&(opcode::I64_EQZ..=opcode::I64_NE)) => true,
            // The end of a block, a shift by zero, a `select` between two of the same.
            Some(&(opcode::NOP | opcode::END | opcode::SELECT)) => true,
            Some(&(opcode::I32_SHL..=opcode::I32_ROTR)) => true,
            // A block with parameters, one that a constant chooses, a branch that it does not, and
            // a local that is set to itself.
            _ => matches!(
                before_number(before),
                Some(opcode::BLOCK | opcode::IF | opcode::BR_IF | opcode::LOCAL_SET)
            ),
        }
    })
}

/// The byte before a number that bytes end with: all of its bytes but the last have the highest
/// bit.
fn before_number(bytes: &[u8]) -> Option<u8> {
    let (_, bytes) = bytes.split_last()?;
    let number = bytes.iter().rev().take_while(|byte| **byte >= 0x80);
    let before = bytes.len() - number.take(4).count();
    bytes[..before].last().copied()
}
