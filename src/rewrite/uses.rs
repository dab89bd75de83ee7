//! What function bodies refer to by index. Looked at only where the answer saves bytes, as it
//! takes reading the code.

use std::collections::HashSet;

use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, Operator};

use crate::module::{Module, section};

/// Segments that instructions name.
#[derive(Clone, Copy)]
pub enum Segments {
    Data,
    Elements,
}

impl Segments {
    /// The prefixes of bulk memory and garbage collection, and behind them the instructions that
    /// [`Segments::are_named_by`] knows.
    fn codes(self) -> [(u8, [u32; 2]); 2] {
        match self {
            Segments::Data => [(0xfc, [8, 9]), (0xfb, [9, 18])],
            Segments::Elements => [(0xfc, [12, 13]), (0xfb, [10, 19])],
        }
    }

    fn are_named_by(self, operator: &Operator<'_>) -> bool {
        use Operator as O;
        match self {
            Segments::Data => matches!(
                operator,
                O::MemoryInit { .. }
                    | O::DataDrop { .. }
                    | O::ArrayNewData { .. }
                    | O::ArrayInitData { .. }
            ),
            Segments::Elements => matches!(
                operator,
                O::TableInit { .. }
                    | O::ElemDrop { .. }
                    | O::ArrayNewElem { .. }
                    | O::ArrayInitElem { .. }
            ),
        }
    }

    /// Whether the bytes of such an instruction are there, which may be chance.
    fn may_be_named(self, body: &[u8]) -> bool {
        self.codes().iter().any(|(prefix, codes)| {
            memchr::memchr_iter(*prefix, body).any(|at| {
                let mut rest = BinaryReader::new(&body[at + 1..], 0);
                rest.read_var_u32().is_ok_and(|code| codes.contains(&code))
            })
        })
    }

    fn are_named_in(self, body: &FunctionBody<'_>) -> wasmparser::Result<bool> {
        for operator in body.get_operators_reader()? {
            if self.are_named_by(&operator?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an instruction names a segment.
pub fn names(module: &Module<'_>, segments: Segments) -> bool {
    let Some(code) = module.section(section::CODE) else {
        return false;
    };
    let reader = BinaryReader::new(module.contents(code), 0);
    let Ok(bodies) = CodeSectionReader::new(reader) else {
        return true;
    };
    bodies.into_iter().any(|body| match body {
        Ok(body) => {
            segments.may_be_named(body.as_bytes()) && segments.are_named_in(&body).unwrap_or(true)
        }
        Err(_) => true,
    })
}

/// Which of `functions` the code may refer to with `ref.func`, in order. No body is decoded: a
/// match may be chance, and then costs a few bytes of declaration.
pub fn referred_to(module: &Module<'_>, functions: &HashSet<u32>) -> Vec<u32> {
    const REF_FUNC: u8 = 0xd2;
    let code = module.section(section::CODE);
    let code = code.map_or(&[][..], |code| module.contents(code));
    let mut found = Vec::new();
    if functions.is_empty() {
        return found;
    }
    for at in memchr::memchr_iter(REF_FUNC, code) {
        // The index may be written with more bytes than it needs.
        let index = BinaryReader::new(&code[at + 1..], 0).read_var_u32();
        found.extend(index.ok().filter(|index| functions.contains(index)));
    }
    found.sort_unstable();
    found.dedup();
    found
}
