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
use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, Operator};

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
    let selects: Vec<Vec<usize>> = match contents.len() {
        0..PARALLEL => bodies.iter().map(selects).collect(),
        _ => SHORT.run(|| bodies.par_iter().with_min_len(64).map(selects).collect()),
    };
    if selects.iter().all(Vec::is_empty) {
        return None;
    }
    let mut code = Rope::new();
    code.leb(bodies.len() as u32);
    for (body, selects) in bodies.iter().zip(&selects) {
        let mut rest = body.as_bytes();
        code.leb((rest.len() + selects.len() * NOTHING.len()) as u32);
        let mut done = 0;
        for at in selects {
            let before;
            (before, rest) = rest.split_at(at - done);
            code.borrow(before).borrow(NOTHING);
            done = *at;
        }
        code.borrow(rest);
    }
    let mut splice = Splice::new(&module);
    splice.replace(section::CODE, code);
    Some(splice.finish().bytes)
}

/// Where in a function each `select` begins.
fn selects(body: &FunctionBody<'_>) -> Vec<usize> {
    let bytes = body.as_bytes();
    // Many functions have not even a byte like one.
    if memchr::memchr2(SELECT, TYPED_SELECT, bytes).is_none() {
        return Vec::new();
    }
    let Ok(operators) = body.get_operators_reader() else {
        return Vec::new();
    };
    let code = operators.original_position() - body.range().start;
    let mut found = quickly(&bytes[code..])
        .or_else(|| slowly(body, code))
        .unwrap_or_default();
    found.iter_mut().for_each(|at| *at += code);
    found
}

/// The same in its code; `None` where there is something that is not known here.
///
/// The run waits for this, so it makes no operator of each instruction, as `wasmparser` does.
fn quickly(code: &[u8]) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    let mut rest = Immediates { code, at: 0 };
    while rest.at < code.len() {
        let at = rest.at;
        match rest.byte()? {
            // `unreachable`, `nop`, `else`, `end`, `return`, `drop`, `ref.is_null`, and all that only computes.
            0x00 | 0x01 | 0x05 | 0x0b | 0x0f | 0x1a | 0x45..=0xc4 | 0xd1 => {}
            SELECT => found.push(at),
            TYPED_SELECT => {
                found.push(at);
                for _ in 0..rest.leb()? {
                    rest.ty()?;
                }
            }
            // `block`, `loop` and `if`.
            0x02..=0x04 => rest.ty()?,
            // `br`, `br_if`, calls, locals, globals, tables, sizes of memories, constants, references.
            0x0c | 0x0d | 0x10 | 0x12 | 0x20..=0x26 | 0x3f..=0x42 | 0xd0 | 0xd2 => {
                rest.skip_leb()?
            }
            // `br_table`.
            0x0e => {
                for _ in 0..=rest.leb()? {
                    rest.skip_leb()?;
                }
            }
            // `call_indirect` and `return_call_indirect`.
            0x11 | 0x13 => rest.lebs(2)?,
            0x28..=0x3e => rest.access()?,
            0x43 => rest.bytes(4)?,
            0x44 => rest.bytes(8)?,
            0xfc => match rest.leb()? {
                0..=7 => {}
                // `data.drop`, `memory.fill`, `elem.drop`, and sizes of tables.
                9 | 11 | 13 | 15..=17 => rest.skip_leb()?,
                // `init` and `copy`.
                8 | 10 | 12 | 14 => rest.lebs(2)?,
                _ => return None,
            },
            0xfd => match rest.leb()? {
                0..=11 | 92 | 93 => rest.access()?,
                // `v128.const` and `i8x16.shuffle`.
                12 | 13 => rest.bytes(16)?,
                21..=34 => rest.bytes(1)?,
                84..=91 => {
                    rest.access()?;
                    rest.bytes(1)?;
                }
                14..=255 => {}
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(found)
}

/// What comes behind opcodes.
struct Immediates<'a> {
    code: &'a [u8],
    at: usize,
}

impl Immediates<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn bytes(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.code.len()).then_some(())
    }

    fn skip_leb(&mut self) -> Option<()> {
        while self.byte()? >= 0x80 {}
        Some(())
    }

    fn lebs(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.skip_leb())
    }

    fn leb(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A type of one part: `0x63` and `0x64` begin a reference type of two.
    fn ty(&mut self) -> Option<()> {
        match self.code.get(self.at)? {
            0x63 | 0x64 => None,
            _ => self.skip_leb(),
        }
    }

    /// The alignment, which tells whether a memory is named, and the offset.
    fn access(&mut self) -> Option<()> {
        const NAMES_MEMORY: u32 = 1 << 6;
        let names_memory = self.leb()? & NAMES_MEMORY != 0;
        self.lebs(1 + usize::from(names_memory))
    }
}

/// The same, with any operator.
fn slowly(body: &FunctionBody<'_>, code: usize) -> Option<Vec<usize>> {
    let start = body.range().start + code;
    let mut found = Vec::new();
    for operator in body.get_operators_reader().ok()?.into_iter_with_offsets() {
        let (operator, at) = operator.ok()?;
        if matches!(operator, Operator::Select | Operator::TypedSelect { .. }) {
            found.push(at - start);
        }
    }
    Some(found)
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

    /// In random functions of every proposal, both ways find the same.
    #[test]
    fn every_select_is_found() {
        let config = wasm_smith::Config {
            min_funcs: 20,
            max_funcs: 40,
            max_instructions: 400,
            memory64_enabled: true,
            relaxed_simd_enabled: false,
            threads_enabled: false,
            wide_arithmetic_enabled: false,
            exceptions_enabled: false,
            gc_enabled: false,
            max_memories: 3,
            max_tables: 3,
            ..wasm_smith::Config::default()
        };
        let (mut known, mut all, mut count) = (0, 0, 0);
        for seed in 0..100u64 {
            let mut bytes = vec![0; 100_000];
            let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            let mut input = arbitrary::Unstructured::new(&bytes);
            let Ok(module) = wasm_smith::Module::new(config.clone(), &mut input) else {
                continue;
            };
            let wasm = module.to_bytes();
            for payload in wasmparser::Parser::new(0).parse_all(&wasm) {
                let Ok(wasmparser::Payload::CodeSectionEntry(body)) = payload else {
                    continue;
                };
                let start = body.get_operators_reader().unwrap().original_position();
                let code = start - body.range().start;
                let expected = slowly(&body, code).unwrap();
                all += 1;
                if let Some(found) = quickly(&body.as_bytes()[code..]) {
                    known += 1;
                    count += found.len();
                    assert_eq!(found, expected, "seed {seed}");
                }
            }
        }
        assert!(
            known == all && count > 30,
            "{known} of {all}, {count} found"
        );
    }

    #[test]
    fn without_one_nothing_is_copied() {
        let wasm = wat::parse_str("(module (func (result i32) (i32.const 27)))").unwrap();
        assert!(matches!(unfused(&wasm), Cow::Borrowed(_)));
        assert!(matches!(unfused(b"nothing"), Cow::Borrowed(_)));
    }
}
