//! What wasmi 2.0.0 gets wrong: a `select` whose condition is a comparison with zero.
//!
//! wasmi makes one instruction of the two, by a swap of what is selected from. Where the value
//! that is compared is not in its accumulator, it drops the comparison and tests the accumulator
//! all the same, whatever that holds. Compilers of the LLVM family make that swap themselves and
//! leave no such pair, so the modules that are not interpreted for it are few.
//!
//! ```wat
//! (select (i32.const 1) (local.get $x) (i32.eqz (local.get $x)))
//! ```
//!
//! What is found here may be harmless, but nothing harmful is overlooked: an operand of `i32.eq`
//! and `i32.ne` counts as zero unless it can be no constant.

use wasmparser::{BinaryReader, BlockType, CodeSectionReader, FunctionBody, Operator};

use crate::module::{Module, section};

/// The first function in which there is such a `select`, by its index.
pub fn find(module: &Module<'_>) -> Option<u32> {
    let code = module.section(section::CODE)?;
    let contents = module.contents(code);
    let bodies = CodeSectionReader::new(BinaryReader::new(contents, 0)).ok()?;
    let bodies = bodies.into_iter().flatten().enumerate();
    let mut operators = Vec::new();
    let found = bodies.into_iter().find(|(_, body)| {
        last_suspect(body.as_bytes()).is_some_and(|end| {
            let end = body.range().start + end;
            // What cannot be read is refused elsewhere.
            read(body, end, &mut operators).is_none_or(|()| is_misread(module, &operators))
        })
    });
    Some(module.functions.imported() + found?.0 as u32)
}

/// The opcodes that matter, and of those that may stand between them.
mod opcode {
    pub const NOP: u8 = 0x01;
    pub const BLOCK: u8 = 0x02;
    pub const END: u8 = 0x0b;
    pub const SELECT: u8 = 0x1b;
    pub const TYPED_SELECT: u8 = 0x1c;
    pub const LOCAL_SET: u8 = 0x21;
    pub const I32_EQZ: u8 = 0x45;
    pub const I32_NE: u8 = 0x47;
}

/// The last byte like a `select` that is behind one which makes it worth a closer look: most
/// functions are done with at the speed of a search for bytes.
fn last_suspect(body: &[u8]) -> Option<usize> {
    memchr::memrchr2_iter(opcode::SELECT, opcode::TYPED_SELECT, body).find(|at| {
        let before = &body[..*at];
        matches!(
            before,
            [
                ..,
                opcode::NOP | opcode::END | opcode::I32_EQZ..=opcode::I32_NE
            ]
        ) || matches!(before, [.., opcode::BLOCK, _])
            || is_behind_local_set(before)
    })
}

/// Whether these bytes may end with a `local.set`: that and a number, all bytes of which but the
/// last have the highest bit.
fn is_behind_local_set(bytes: &[u8]) -> bool {
    let Some((_, bytes)) = bytes.split_last() else {
        return false;
    };
    let number = bytes.iter().rev().take_while(|byte| **byte >= 0x80);
    let before = bytes.len() - number.take(4).count();
    bytes[..before].last() == Some(&opcode::LOCAL_SET)
}

/// Reads the operators of a function up to one that begins at `end`.
fn read<'a>(body: &FunctionBody<'a>, end: usize, operators: &mut Vec<Operator<'a>>) -> Option<()> {
    operators.clear();
    let mut reader = body.get_operators_reader().ok()?;
    while reader.original_position() <= end && !reader.eof() {
        operators.push(reader.read().ok()?);
    }
    Some(())
}

fn is_misread(module: &Module<'_>, operators: &[Operator<'_>]) -> bool {
    let selects = operators.iter().enumerate().filter(|(_, operator)| {
        matches!(operator, Operator::Select | Operator::TypedSelect { .. })
    });
    let mut conditions = selects.filter_map(|(at, _)| condition(&operators[..at]));
    conditions.any(|(condition, before)| match condition {
        Operator::I32Eqz => !matches!(value(module, before), Some((Value::Accumulator, _))),
        Operator::I32Eq | Operator::I32Ne => match value(module, before) {
            // Neither is zero.
            Some((Value::Constant { is_zero: false }, _)) => false,
            Some((second, before)) => match (value(module, before), second.may_be_zero()) {
                (Some((Value::Accumulator, _)), true) => false,
                (Some((first, _)), false) => first.may_be_zero(),
                _ => true,
            },
            None => true,
        },
        _ => false,
    })
}

/// What wasmi knows of a value.
enum Value {
    /// It was just computed.
    Accumulator,
    /// It is known only when the code runs.
    Variable,
    Constant {
        is_zero: bool,
    },
    /// It may be a constant: wasmi computes with these.
    Unknown,
}

impl Value {
    fn may_be_zero(&self) -> bool {
        matches!(self, Value::Constant { is_zero: true } | Value::Unknown)
    }

    fn is_variable(&self) -> bool {
        matches!(self, Value::Accumulator | Value::Variable)
    }
}

/// The operator that makes the value on top of the stack, and those before it, where nothing comes
/// in between that wasmi sees.
fn condition<'o, 'a>(
    mut operators: &'o [Operator<'a>],
) -> Option<(&'o Operator<'a>, &'o [Operator<'a>])> {
    loop {
        operators = match operators {
            [
                before @ ..,
                Operator::Nop | Operator::Block { .. } | Operator::End,
            ] => before,
            // A local that is set to itself.
            [
                before @ ..,
                Operator::LocalGet { local_index: from },
                Operator::LocalSet { local_index: to },
            ] if from == to => before,
            [before @ .., condition] => return Some((condition, before)),
            [] => return None,
        }
    }
}

/// The value that operators end with, and the operators before those that make it. `None` where
/// that is more than meets the eye.
fn value<'o, 'a>(
    module: &Module<'_>,
    operators: &'o [Operator<'a>],
) -> Option<(Value, &'o [Operator<'a>])> {
    let (last, before) = operators.split_last()?;
    let constant = |is_zero| Some((Value::Constant { is_zero }, before));
    match last {
        Operator::I32Const { value } => return constant(*value == 0),
        Operator::I64Const { value } => return constant(*value == 0),
        // What was set may be pushed again.
        Operator::LocalTee { .. } => {
            let (value, before) = value(module, before)?;
            let is_variable = value.is_variable();
            return Some((if is_variable { Value::Variable } else { value }, before));
        }
        _ => {}
    }
    let (mut before, pops, pushes) = arity(module, last, before)?;
    let mut taken = Vec::new();
    for _ in 0..pops {
        let (value, rest) = value(module, before)?;
        taken.push(value);
        before = rest;
    }
    let value = match (pushes, &taken[..]) {
        // What makes no value stands between the value and what it is used for.
        (0, _) => return self::value(module, before),
        (1, _) if is_load(last) => Value::Accumulator,
        (1, [of]) if *last == Operator::I32WrapI64 && of.is_variable() => Value::Accumulator,
        (1, []) if *last != Operator::End => Value::Variable,
        (1, _) if matches!(last, Operator::Call { .. } | Operator::CallIndirect { .. }) => {
            Value::Variable
        }
        // Nothing and one are what makes an operation simple.
        (
            1,
            [
                Value::Constant { is_zero: false } | Value::Accumulator | Value::Variable,
                first,
            ],
        ) if first.is_variable() => Value::Variable,
        (1, [of]) if of.is_variable() => Value::Variable,
        (1, _) => Value::Unknown,
        _ => return None,
    };
    Some((value, before))
}

fn is_load(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::I32Load { .. }
            | Operator::I32Load8S { .. }
            | Operator::I32Load8U { .. }
            | Operator::I32Load16S { .. }
            | Operator::I32Load16U { .. }
    )
}

/// How many values the last operator takes and makes, and those before it: before the whole of a
/// block, where it is the end of one.
fn arity<'o, 'a>(
    module: &Module<'_>,
    last: &Operator<'_>,
    before: &'o [Operator<'a>],
) -> Option<(&'o [Operator<'a>], u32, u32)> {
    let of = |ty: &wasmparser::FuncType| (ty.params().len() as u32, ty.results().len() as u32);
    let (pops, pushes) = match last {
        Operator::Call { function_index } => of(module.function_type(*function_index)?),
        Operator::CallIndirect { type_index, .. } => {
            let (params, results) = of(module.function_type_at(*type_index)?);
            (params + 1, results)
        }
        Operator::End => {
            let (ty, condition, before) = block(before)?;
            let (pops, pushes) = match ty {
                BlockType::Empty => (0, 0),
                BlockType::Type(_) => (0, 1),
                BlockType::FuncType(ty) => of(module.function_type_at(ty)?),
            };
            return Some((before, pops + condition, pushes));
        }
        // What comes before them need not be what ran before.
        Operator::Else | Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
            return None;
        }
        other => other.operator_arity(&NoTypes)?,
    };
    Some((before, pops, pushes))
}

/// The block that ends behind these operators: its type, how many conditions it takes, and what
/// is before it.
fn block<'o, 'a>(operators: &'o [Operator<'a>]) -> Option<(BlockType, u32, &'o [Operator<'a>])> {
    let mut depth = 1;
    for (at, operator) in operators.iter().enumerate().rev() {
        match operator {
            Operator::End => depth += 1,
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth -= 1,
            // Of the exceptions' proposal; wasmi knows none.
            Operator::TryTable { .. } => return None,
            _ => {}
        }
        if depth == 0 {
            let (ty, condition) = match operator {
                Operator::Block { blockty } | Operator::Loop { blockty } => (*blockty, 0),
                Operator::If { blockty } => (*blockty, 1),
                _ => return None,
            };
            return Some((ty, condition, &operators[..at]));
        }
    }
    None
}

/// What [`Operator::operator_arity`] asks for where a number alone does not do.
struct NoTypes;

impl wasmparser::ModuleArity for NoTypes {
    fn sub_type_at(&self, _: u32) -> Option<&wasmparser::SubType> {
        None
    }
    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }
    fn type_index_of_function(&self, _: u32) -> Option<u32> {
        None
    }
    fn func_type_of_cont_type(&self, _: &wasmparser::ContType) -> Option<&wasmparser::FuncType> {
        None
    }
    fn sub_type_of_ref_type(&self, _: &wasmparser::RefType) -> Option<&wasmparser::SubType> {
        None
    }
    fn control_stack_height(&self) -> u32 {
        0
    }
    fn label_block(&self, _: u32) -> Option<(wasmparser::BlockType, wasmparser::FrameKind)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::module::Module;

    fn is_found(body: &str) -> bool {
        let text = format!(
            "(module (memory 1) (func $f (result i32) (i32.const 1))
               (func (param $x i32) (param $y i32) (result i32) {body}))"
        );
        let wasm = wat::parse_str(text).unwrap();
        let module = Module::parse(&wasm).unwrap();
        find(&module).inspect(|at| assert_eq!(*at, 1)).is_some()
    }

    #[test]
    fn comparisons_with_zero_are_found() {
        for condition in [
            "(i32.eqz (local.get $x))",
            "(i32.eqz (call $f))",
            "(i32.eqz (i32.ne (local.get $x) (i32.const 5)))",
            "(i32.eq (local.get $x) (i32.const 0))",
            "(i32.ne (local.get $x) (i32.const 0))",
            "(i32.eq (i32.const 0) (local.get $x))",
            "(i32.ne (i32.const 0) (call $f))",
            "(i32.eq (local.get $x) (i32.sub (i32.const 5) (i32.const 5)))",
            "(i32.eq (local.get $x) (i32.and (local.get $y) (i32.const 0)))",
            "(i32.eqz (local.get $x)) nop",
            "(i32.eqz (local.get $x)) (local.set $y (local.get $y))",
            "(i32.eqz (local.get $x)) (block)",
            "(block (result i32) (i32.eqz (local.get $x)))",
            "i32.const 0 (i32.store (i32.const 1) (i32.const 1)) local.get $x i32.eq",
            "i32.const 0 local.get $x (i32.store (i32.const 1) (i32.const 1)) i32.eq",
            "(i32.const 0) (block (result i32) (local.get $x)) i32.ne",
        ] {
            let body = format!("(i32.const 1) (i32.const 2) {condition} select");
            assert!(is_found(&body), "{condition}");
            let body = format!("(i32.const 1) (i32.const 2) {condition} (select (result i32))");
            assert!(is_found(&body), "{condition}");
        }
    }

    #[test]
    fn other_conditions_are_not() {
        for condition in [
            "(local.get $x)",
            "(i32.eq (local.get $x) (local.get $y))",
            "(i32.ne (local.get $x) (i32.const 7))",
            "(i32.eq (i32.load (local.get $x)) (i32.and (call $f) (i32.const 3)))",
            "(i32.eq (i32.load (i32.const 0)) (local.get $x))",
            "(i32.lt_s (local.get $x) (i32.const 0))",
            "(i32.and (i32.eqz (local.get $x)) (local.get $y))",
            "(i32.eqz (local.get $x)) (local.set $y (i32.const 1)) (local.get $y) i32.or",
            "(i32.eqz (i32.load (local.get $x)))",
            "(i32.ne (i32.wrap_i64 (i64.extend_i32_u (local.get $x))) (i32.const 0))",
            "(i32.eq (local.get $y) (i32.and (if (result i32) (local.get $x) (then (i32.const 0)) (else (local.get $y))) (i32.const 3)))",
        ] {
            let body = format!("(i32.const 1) (i32.const 2) {condition} select");
            assert!(!is_found(&body), "{condition}");
        }
        assert!(!is_found(
            "(if (result i32) (i32.eqz (local.get $x)) (then (i32.const 1)) (else (local.get $y)))"
        ));
    }
}
