//! Waits that can be ended: `memory.atomic.wait32` and `wait64` block in the engine, where nothing
//! from outside reaches them. In the module that runs, each is a call of an added function that
//! waits a little, again and again; engines look for the end of the run between two turns of a loop.
//!
//! A call takes the place of the instruction byte for byte, so that everything stays where it is.
//!
//! Before:
//!
//! ```wat
//! (memory.atomic.wait32 offset=8 (local.get $at) (local.get $expected) (local.get $timeout))
//! ```
//!
//! After:
//!
//! ```wat
//! (call $wait (local.get $at) (local.get $expected) (local.get $timeout))
//! ```

use wasm_encoder::{BlockType, Function, Instruction, MemArg, ValType};
use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, Operator};

use crate::added::{Functions, Types};
use crate::module::{Module, section};
use crate::splice::Patch;

/// How long one wait lasts, in nanoseconds.
const TURN: i64 = 20_000_000;

/// What `memory.atomic.wait` returns when the time is up.
const TIMED_OUT: i32 = 2;

/// The opcodes, behind the prefix 0xfe.
const WAIT_OPCODES: [u8; 2] = [0x01, 0x02];

/// A kind of wait: an added function serves all instructions that are the same.
#[derive(Clone, Copy, PartialEq)]
struct Wait {
    memarg: wasmparser::MemArg,
    /// Whether it compares 64 bits.
    is_64: bool,
}

/// Makes calls of the module's waits on shared memories; on others they trap. Adds the functions
/// that are called.
pub fn end_waits(module: &Module<'_>, types: &mut Types, added: &mut Functions) -> Vec<Patch> {
    let code = module
        .section(section::CODE)
        .map(|code| module.contents(code));
    let (Some(code), true) = (code, module.has_shared_memory()) else {
        return Vec::new();
    };
    let mut functions: Vec<(Wait, u32)> = Vec::new();
    let mut patches = Vec::new();
    for (at, len, wait) in waits(code) {
        let known = functions.iter().find(|(of, _)| *of == wait);
        let function = known.map(|(_, function)| *function).unwrap_or_else(|| {
            let function = add(module, wait, types, added);
            functions.push((wait, function));
            function
        });
        patches.push(Patch {
            at,
            bytes: call(function, len),
        });
    }
    patches
}

/// The waits in a code section: where in its contents, how long in bytes, and which. A module that is
/// not valid, which validation says, has none behind what is wrong.
fn waits(code: &[u8]) -> Vec<(usize, usize, Wait)> {
    let mut found = Vec::new();
    let Ok(bodies) = CodeSectionReader::new(BinaryReader::new(code, 0)) else {
        return found;
    };
    for body in bodies.into_iter().map_while(Result::ok) {
        if may_wait(&code[body.range()]) {
            let _ = waits_of(&body, &mut found);
        }
    }
    found
}

/// Whether the bytes of such an instruction occur.
fn may_wait(body: &[u8]) -> bool {
    let mut prefixes = memchr::memchr_iter(0xfe, body);
    prefixes.any(|at| body.get(at + 1).is_some_and(|b| WAIT_OPCODES.contains(b)))
}

fn waits_of(
    body: &FunctionBody<'_>,
    found: &mut Vec<(usize, usize, Wait)>,
) -> wasmparser::Result<()> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, at) = operators.read_with_offset()?;
        let (memarg, is_64) = match operator {
            Operator::MemoryAtomicWait32 { memarg } => (memarg, false),
            Operator::MemoryAtomicWait64 { memarg } => (memarg, true),
            _ => continue,
        };
        found.push((
            at,
            operators.original_position() - at,
            Wait { memarg, is_64 },
        ));
    }
    Ok(())
}

/// The bytes of a call that takes as many as another instruction.
fn call(function: u32, len: usize) -> Vec<u8> {
    const CALL: u8 = 0x10;
    const NOP: u8 = 0x01;
    /// The most bytes of a LEB128 number of 32 bits.
    const MAX_LEB: usize = 5;
    // Prefix, opcode, alignment and offset of a wait are four bytes or more; three of them take
    // the number of any function (engines accept a million).
    let digits = (len - 1).min(MAX_LEB);
    let mut bytes = vec![CALL];
    bytes.extend((0..digits).map(|i| {
        let more = if i + 1 < digits { 0x80 } else { 0 };
        (function >> (7 * i)) as u8 & 0x7f | more
    }));
    bytes.resize(len, NOP);
    bytes
}

/// Adds the function of a wait. It takes what the instruction takes.
fn add(module: &Module<'_>, wait: Wait, types: &mut Types, added: &mut Functions) -> u32 {
    let is_memory64 = module
        .memories
        .get(wait.memarg.memory)
        .is_some_and(|m| m.memory64);
    let number = |is_64| match is_64 {
        true => ValType::I64,
        false => ValType::I32,
    };
    let params = [number(is_memory64), number(wait.is_64), ValType::I64];
    let ty = types.function(&params, &[ValType::I32]);
    let (address, expected, timeout, turn, result) = (0, 1, 2, 3, 4);
    let memarg = MemArg {
        offset: wait.memarg.offset,
        align: wait.memarg.align.into(),
        memory_index: wait.memarg.memory,
    };
    let mut body = Function::new([(1, ValType::I64), (1, ValType::I32)]);
    use Instruction as I;
    for instruction in [
        I::Loop(BlockType::Empty),
        // A negative time is without end, and as an unsigned number a very long one.
        I::LocalGet(timeout),
        I::I64Const(TURN),
        I::LocalGet(timeout),
        I::I64Const(TURN),
        I::I64LtU,
        I::Select,
        I::LocalSet(turn),
        I::LocalGet(address),
        I::LocalGet(expected),
        I::LocalGet(turn),
        match wait.is_64 {
            true => I::MemoryAtomicWait64(memarg),
            false => I::MemoryAtomicWait32(memarg),
        },
        I::LocalTee(result),
        I::I32Const(TIMED_OUT),
        I::I32Eq,
        I::If(BlockType::Empty),
        I::LocalGet(timeout),
        I::I64Const(0),
        I::I64LtS,
        I::BrIf(1),
        I::LocalGet(timeout),
        I::LocalGet(turn),
        I::I64Sub,
        I::LocalTee(timeout),
        I::I64Const(0),
        I::I64Ne,
        I::BrIf(1),
        I::End,
        I::End,
        I::LocalGet(result),
        I::End,
    ] {
        body.instruction(&instruction);
    }
    added.push_function(ty, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_the_place_of_any_wait() {
        for function in [0, 127, 128, 1_000_000] {
            for len in 4..=12 {
                let bytes = call(function, len);
                assert_eq!(bytes.len(), len);
                let mut reader = BinaryReader::new(&bytes[1..], 0);
                assert_eq!(reader.read_var_u32().unwrap(), function);
            }
        }
    }
}
