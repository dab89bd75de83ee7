//! What wasmi 2.0.0 gets wrong: a `select` whose condition is a comparison with zero.
//!
//! wasmi makes one instruction of the two, by a swap of what is selected from. Where the value
//! that is compared is not in its accumulator, it drops the comparison and tests the accumulator
//! all the same, whatever that holds. Optimizing compilers make that swap themselves and leave
//! few such pairs, so the modules that are not interpreted for it are few.
//!
//! ```wat
//! (select (i32.const 1) (local.get $x) (i32.eqz (local.get $x)))
//! ```
//!
//! What is found here may be harmless, but nothing harmful is overlooked: an operand of `i32.eq`
//! and `i32.ne` counts as zero unless it can be no constant.

use std::sync::atomic::{AtomicBool, Ordering};

use wasmparser::{
    BinaryReader, BlockType, CodeSectionReader, FuncType, FunctionBody, VisitOperator,
    VisitSimdOperator,
};

use crate::error::Error;
use crate::module::{Module, section};

/// Refuses a module that wasmi gets wrong.
///
/// # Errors
///
/// [`Error::Unsupported`] with the first function in which there is such a `select`.
pub fn check(module: &Module<'_>) -> Result<(), Error> {
    match find(module, &AtomicBool::new(false)) {
        Some(function) => Err(Error::unsupported(format!(
            "wasmi gets a `select` by a comparison with zero wrong, as in function {function}"
        ))),
        None => Ok(()),
    }
}

/// Whether wasmi gets a module wrong; anything, if nobody wants to know any more.
pub fn is_in(module: &Module<'_>, nobody_cares: &AtomicBool) -> bool {
    find(module, nobody_cares).is_some()
}

/// The first function in which there is such a `select`, by its index.
fn find(module: &Module<'_>, nobody_cares: &AtomicBool) -> Option<u32> {
    let code = module.section(section::CODE)?;
    let contents = module.contents(code);
    let bodies = CodeSectionReader::new(BinaryReader::new(contents, 0)).ok()?;
    let bodies = bodies.into_iter().flatten().enumerate();
    let mut operators = Operators {
        module,
        all: Vec::new(),
    };
    let found = bodies.into_iter().find(|(_, body)| {
        if nobody_cares.load(Ordering::Relaxed) {
            return true;
        }
        last_suspect(body.as_bytes()).is_some_and(|end| {
            // What cannot be read is refused elsewhere.
            let read = operators.read(body, body.range().start + end);
            read.is_none_or(|()| is_misread(&operators.all))
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
        ) || matches!(
            before_number(before),
            Some(opcode::BLOCK | opcode::LOCAL_SET)
        )
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

/// What matters of an operator.
#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Constant {
        is_zero: bool,
    },
    LocalGet(u32),
    LocalSet(u32),
    LocalTee,
    Load,
    Wrap,
    Eqz,
    EqOrNe,
    Select,
    Nop,
    Call {
        pops: u32,
        pushes: u32,
    },
    /// Of a block: what it takes besides a condition, and what it makes.
    Open {
        pops: u32,
        pushes: u32,
        is_if: bool,
    },
    End,
    /// Any other one.
    Makes {
        pops: u32,
        pushes: u32,
    },
    /// One that is no part of an expression, or of which that is not known.
    Opaque,
}

/// The operators of a function.
struct Operators<'m, 'a> {
    module: &'m Module<'a>,
    all: Vec<Operator>,
}

impl Operators<'_, '_> {
    /// Reads the operators of a function up to one that begins at `end`.
    fn read(&mut self, body: &FunctionBody<'_>, end: usize) -> Option<()> {
        self.all.clear();
        let mut reader = body.get_operators_reader().ok()?;
        while reader.original_position() <= end && !reader.eof() {
            let operator = reader.visit_operator(self).ok()?;
            self.all.push(operator);
        }
        Some(())
    }

    /// A read of a global: wasmi knows the values of some.
    fn global(&self, index: u32) -> Operator {
        let global = self.module.globals.get(index);
        match global.is_some_and(|global| global.ty.mutable) {
            true => Operator::Makes { pops: 0, pushes: 1 },
            false => Operator::Constant { is_zero: true },
        }
    }

    /// A call that takes `more` than the function's parameters.
    fn call(&self, ty: Option<&FuncType>, more: u32) -> Operator {
        match ty {
            Some(ty) => Operator::Call {
                pops: ty.params().len() as u32 + more,
                pushes: ty.results().len() as u32,
            },
            None => Operator::Opaque,
        }
    }

    fn open(&self, ty: BlockType, is_if: bool) -> Operator {
        let (pops, pushes) = match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => match self.module.function_type_at(ty) {
                Some(ty) => (ty.params().len() as u32, ty.results().len() as u32),
                None => return Operator::Opaque,
            },
        };
        Operator::Open {
            pops,
            pushes,
            is_if,
        }
    }
}

/// The visits of operators: by name, those that matter, and the others by what they take and make.
macro_rules! visits {
    ($(@$proposal:ident $name:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($arity:tt)*))*) => {
        $(
            fn $visit(&mut self $($(, $arg: $ty)*)?) -> Operator {
                $($(let _ = &$arg;)*)?
                visits!(self $name ($($($arg)*)?) $($arity)*)
            }
        )*
    };
    ($this:ident I32Const ($value:ident) $($arity:tt)*) => { Operator::Constant { is_zero: $value == 0 } };
    ($this:ident I64Const ($value:ident) $($arity:tt)*) => { Operator::Constant { is_zero: $value == 0 } };
    // Zero, or what may become one.
    ($this:ident F32Const ($value:ident) $($arity:tt)*) => { Operator::Constant { is_zero: true } };
    ($this:ident F64Const ($value:ident) $($arity:tt)*) => { Operator::Constant { is_zero: true } };
    ($this:ident V128Const ($value:ident) $($arity:tt)*) => { Operator::Constant { is_zero: true } };
    ($this:ident RefNull ($ty:ident) $($arity:tt)*) => { Operator::Constant { is_zero: true } };
    ($this:ident GlobalGet ($index:ident) $($arity:tt)*) => { $this.global($index) };
    ($this:ident LocalGet ($index:ident) $($arity:tt)*) => { Operator::LocalGet($index) };
    ($this:ident LocalSet ($index:ident) $($arity:tt)*) => { Operator::LocalSet($index) };
    ($this:ident LocalTee ($index:ident) $($arity:tt)*) => { Operator::LocalTee };
    ($this:ident I32Load ($at:ident) $($arity:tt)*) => { Operator::Load };
    ($this:ident I32Load8S ($at:ident) $($arity:tt)*) => { Operator::Load };
    ($this:ident I32Load8U ($at:ident) $($arity:tt)*) => { Operator::Load };
    ($this:ident I32Load16S ($at:ident) $($arity:tt)*) => { Operator::Load };
    ($this:ident I32Load16U ($at:ident) $($arity:tt)*) => { Operator::Load };
    ($this:ident I32WrapI64 () $($arity:tt)*) => { Operator::Wrap };
    ($this:ident I32Eqz () $($arity:tt)*) => { Operator::Eqz };
    ($this:ident I32Eq () $($arity:tt)*) => { Operator::EqOrNe };
    ($this:ident I32Ne () $($arity:tt)*) => { Operator::EqOrNe };
    ($this:ident Select () $($arity:tt)*) => { Operator::Select };
    ($this:ident TypedSelect ($ty:ident) $($arity:tt)*) => { Operator::Select };
    ($this:ident Nop () $($arity:tt)*) => { Operator::Nop };
    ($this:ident Call ($index:ident) $($arity:tt)*) => {
        $this.call($this.module.function_type($index), 0)
    };
    ($this:ident CallIndirect ($ty:ident $table:ident) $($arity:tt)*) => {
        $this.call($this.module.function_type_at($ty), 1)
    };
    ($this:ident Block ($ty:ident) $($arity:tt)*) => { $this.open($ty, false) };
    ($this:ident Loop ($ty:ident) $($arity:tt)*) => { $this.open($ty, false) };
    ($this:ident If ($ty:ident) $($arity:tt)*) => { $this.open($ty, true) };
    ($this:ident End () $($arity:tt)*) => { Operator::End };
    ($this:ident $name:ident ($($arg:ident)*) arity custom) => { Operator::Opaque };
    ($this:ident $name:ident ($($arg:ident)*) arity $pops:tt -> $pushes:tt) => {
        Operator::Makes { pops: $pops, pushes: $pushes }
    };
}

impl<'a> VisitOperator<'a> for Operators<'_, '_> {
    type Output = Operator;

    fn simd_visitor(&mut self) -> Option<&mut dyn VisitSimdOperator<'a, Output = Operator>> {
        Some(self)
    }

    wasmparser::for_each_visit_operator!(visits);
}

impl VisitSimdOperator<'_> for Operators<'_, '_> {
    wasmparser::for_each_visit_simd_operator!(visits);
}

/// How many operators before a `select` are looked at, so that hostile code takes no time. Those of
/// real code that matter are a dozen.
const WINDOW: usize = 500;

fn is_misread(operators: &[Operator]) -> bool {
    let selects = operators.iter().enumerate();
    let selects = selects.filter(|(_, operator)| **operator == Operator::Select);
    let mut conditions =
        selects.filter_map(|(at, _)| condition(&operators[at.saturating_sub(WINDOW)..at]));
    conditions.any(|(condition, before)| match condition {
        Operator::Eqz => !matches!(value(before), Some((Value::Accumulator, _))),
        Operator::EqOrNe => match value(before) {
            Some((Value::Constant { is_zero: false }, _)) => false,
            Some((Value::Constant { is_zero: true }, before)) => {
                !matches!(value(before), Some((Value::Accumulator, _)))
            }
            Some((second, before)) if second.is_variable() => {
                value(before).is_none_or(|(first, _)| first.may_be_zero())
            }
            _ => true,
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

    /// The same value, when other code has run.
    fn after_others(self) -> Value {
        match self {
            Value::Accumulator => Value::Variable,
            // What is compared with it may not be in the accumulator any more.
            Value::Constant { is_zero: true } => Value::Unknown,
            other => other,
        }
    }

    fn is_variable(&self) -> bool {
        matches!(self, Value::Accumulator | Value::Variable)
    }
}

/// The operator that makes the value on top of the stack, and those before it, where nothing comes
/// in between that wasmi sees.
fn condition(mut operators: &[Operator]) -> Option<(Operator, &[Operator])> {
    loop {
        operators = match operators {
            [
                before @ ..,
                Operator::Nop | Operator::Open { .. } | Operator::End,
            ] => before,
            // A local that is set to itself.
            [
                before @ ..,
                Operator::LocalGet(from),
                Operator::LocalSet(to),
            ] if from == to => before,
            [before @ .., condition] => return Some((*condition, before)),
            [] => return None,
        }
    }
}

/// The value that operators end with, and the operators before those that make it. `None` where
/// that is more than meets the eye.
fn value(operators: &[Operator]) -> Option<(Value, &[Operator])> {
    let (last, before) = operators.split_last()?;
    let mut of_if = false;
    let (mut before, pops, pushes) = match *last {
        Operator::Constant { is_zero } => return Some((Value::Constant { is_zero }, before)),
        Operator::LocalGet(_) => return Some((Value::Variable, before)),
        // What was set may be pushed again.
        Operator::LocalTee => {
            let (value, before) = value(before)?;
            let is_variable = value.is_variable();
            return Some((if is_variable { Value::Variable } else { value }, before));
        }
        Operator::LocalSet(_) => (before, 1, 0),
        Operator::Load | Operator::Wrap | Operator::Eqz => (before, 1, 1),
        Operator::EqOrNe => (before, 2, 1),
        Operator::Select => (before, 3, 1),
        Operator::Nop => (before, 0, 0),
        Operator::Call { pops, pushes } | Operator::Makes { pops, pushes } => {
            (before, pops, pushes)
        }
        Operator::End => {
            let (rest, pops, pushes, is_if) = block(before)?;
            of_if = is_if;
            (rest, pops + u32::from(is_if), pushes)
        }
        // What comes before it need not be what ran before.
        Operator::Open { .. } | Operator::Opaque => return None,
    };
    let mut taken = Vec::new();
    for _ in 0..pops {
        let (value, rest) = value(before)?;
        taken.push(value);
        before = rest;
    }
    let value = match (pushes, last, &taken[..]) {
        // What makes no value stands between the value and what it is used for.
        (0, ..) => {
            let (value, before) = self::value(before)?;
            return Some((value.after_others(), before));
        }
        (1, Operator::Load, _) => Value::Accumulator,
        (1, Operator::Call { .. }, _) => Value::Variable,
        // One of two values: which one is not known.
        (1, Operator::End, [condition, ..]) if of_if && condition.is_variable() => Value::Variable,
        (1, Operator::End | Operator::Select, _) => Value::Unknown,
        (1, _, []) => Value::Variable,
        (1, Operator::Wrap, [of]) if of.is_variable() => Value::Accumulator,
        (1, _, [of]) if of.is_variable() => Value::Variable,
        // Zero is what may make a constant of an operation.
        (1, _, [second, first]) if first.is_variable() && !second.may_be_zero() => Value::Variable,
        (1, ..) => Value::Unknown,
        _ => return None,
    };
    Some((value, before))
}

/// The block that ends behind these operators: what is before it, what it takes and makes, and
/// whether it is an `if`.
fn block(operators: &[Operator]) -> Option<(&[Operator], u32, u32, bool)> {
    let mut depth = 1;
    for (at, operator) in operators.iter().enumerate().rev() {
        match operator {
            Operator::End => depth += 1,
            Operator::Open {
                pops,
                pushes,
                is_if,
            } => {
                depth -= 1;
                if depth == 0 {
                    return Some((&operators[..at], *pops, *pushes, *is_if));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::module::Module;

    fn is_found(body: &str) -> bool {
        let text = format!(
            "(module (memory 1) (global $zero i32 (i32.const 0)) (global $n (mut i32) (i32.const 0)) (func $f (result i32) (i32.const 1))
               (func (param $x i32) (param $y i32) (result i32) {body}))"
        );
        let wasm = wat::parse_str(text).unwrap();
        let module = Module::parse(&wasm).unwrap();
        match check(&module) {
            Ok(()) => false,
            Err(error) => {
                assert!(error.to_string().contains("function 1"), "{error}");
                true
            }
        }
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
            "(i32.load (local.get $x)) (i32.store (i32.const 1) (call $f)) i32.eqz",
            "(i32.load (local.get $x)) (i32.const 0) (i32.store (i32.const 1) (call $f)) i32.eq",
            "(i32.eq (local.get $x) (i32.reinterpret_f32 (f32.const 0)))",
            "(i32.eq (local.get $x) (global.get $zero))",
            "(i32.eq (i32.load (local.get $x)) (block (result i32) (i32.const 0)))",
            "(i32.eq (local.get $x) (if (result i32) (i32.const 1) (then (i32.const 0)) (else (local.get $y))))",
            "(i32.eqz (local.get $x)) (block (param i32) (result i32))",
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
            "(i32.eq (global.get $n) (local.get $x))",
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

    /// As deep as a module can be, and with as many of them as fit.
    #[test]
    fn hostile_code_takes_no_time() {
        let deep = "(i32.clz ".repeat(200_000) + "(local.get $x)" + &")".repeat(200_000);
        let many =
            "(drop (select (i32.const 1) (i32.const 2) (i32.ne (local.get $x) (local.get $y))))";
        let body = format!("{} {}", many.repeat(20_000), "(local.get $x)");
        assert!(!is_found(&body));
        let body = format!("(select (i32.const 1) (i32.const 2) (i32.eq (local.get $x) {deep}))");
        // More than is looked at.
        assert!(is_found(&body));
    }
}
