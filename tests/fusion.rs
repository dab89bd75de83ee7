//! The interpreter computes what compiled code computes: random functions, made of what an
//! interpreter may make one instruction of. Each comparison, operation, conversion, load and read
//! of a local or global comes before each `select`, branch, store and write of a local or global,
//! with operands in every position and code in between that changes nothing, or something.
//!
//! The bits of a NaN are not determined: it is the same one wherever they are looked at. A failure
//! names the seed, and `SEEDS=17..18 cargo test --test fusion` repeats it alone; each is a module
//! of [`FUNCTIONS`] functions, so that `SEEDS=0..2500` are a million of them.

mod common;

use std::fmt::Write;
use std::ops::Range;

use common::{Random, seeds};
use wizer::{CacheLocation, Engine, Value, Wizer};

/// How many functions there are in a module.
const FUNCTIONS: usize = 400;

/// The most statements in a function; some have one that is short.
const STATEMENTS: usize = 4;

/// How often the functions are called, with what.
const CALLS: [&str; 7] = [
    "(i32.const 0) (i64.const 0) (f32.const 0) (f64.const 0) (v128.const i64x2 0 0)",
    "(i32.const 1) (i64.const -1) (f32.const 1) (f64.const -0) (v128.const i64x2 -1 -1)",
    "(i32.const 0) (i64.const 1) (f32.const -2) (f64.const 1) (v128.const i32x4 1 0 -1 2)",
    "(i32.const 5) (i64.const 5) (f32.const 5) (f64.const 5) (v128.const i64x2 5 0)",
    "(i32.const -1) (i64.const 0x8000000000000000) (f32.const -0) (f64.const 0.5) (v128.const f32x4 1 -0 nan inf)",
    "(i32.const 0x80000000) (i64.const 0x100000000) (f32.const 3.5) (f64.const -7.25) (v128.const i64x2 0 1)",
    "(i32.const 2) (i64.const 2) (f32.const nan) (f64.const nan) (v128.const f64x2 nan 1)",
];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Type {
    I32,
    I64,
    F32,
    F64,
    V128,
}

use Type::{F32, F64, I32, I64, V128};

const TYPES: [Type; 5] = [I32, I64, F32, F64, V128];

impl Type {
    fn name(self) -> &'static str {
        match self {
            I32 => "i32",
            I64 => "i64",
            F32 => "f32",
            F64 => "f64",
            V128 => "v128",
        }
    }

    fn is_integer(self) -> bool {
        matches!(self, I32 | I64)
    }

    fn is_float(self) -> bool {
        matches!(self, F32 | F64)
    }

    /// Where numbers of the type are in the memory: floats lie apart, so that they stay numbers.
    fn base(self) -> u32 {
        match self {
            I32 | I64 => 0x1000,
            F32 => 0x2000,
            F64 => 0x3000,
            V128 => 0x4000,
        }
    }

    fn constants(self) -> &'static [&'static str] {
        match self {
            I32 => &[
                "0",
                "1",
                "-1",
                "2",
                "5",
                "31",
                "32",
                "0x7fffffff",
                "0x80000000",
                "255",
                "4096",
            ],
            I64 => &[
                "0",
                "1",
                "-1",
                "2",
                "5",
                "63",
                "64",
                "0xffffffff",
                "0x100000000",
                "0x7fffffffffffffff",
                "0x8000000000000000",
            ],
            F32 | F64 => &[
                "0", "-0", "1", "-1", "0.5", "5", "3.5", "-7.25", "1000", "inf", "-inf", "nan",
            ],
            V128 => &[
                "i64x2 0 0",
                "i64x2 -1 -1",
                "i64x2 0 1",
                "i32x4 1 2 0 -1",
                "i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 255",
                "f32x4 0 -0 1 nan",
                "f64x2 inf -7.25",
            ],
        }
    }
}

/// Operations of a type, on operands of the type: comparisons make an `i32`.
const INTEGER_BINARY: [&str; 12] = [
    "add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl", "rotr", "add",
];
const INTEGER_COMPARISON: [&str; 10] = [
    "eq", "ne", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s", "ge_u",
];
const INTEGER_UNARY: [&str; 5] = ["clz", "ctz", "popcnt", "extend8_s", "extend16_s"];
const FLOAT_BINARY: [&str; 6] = ["add", "sub", "mul", "min", "max", "copysign"];
const FLOAT_COMPARISON: [&str; 6] = ["eq", "ne", "lt", "gt", "le", "ge"];
const FLOAT_UNARY: [&str; 6] = ["abs", "neg", "ceil", "floor", "trunc", "nearest"];

/// Operations on vectors: none makes a NaN, only comparisons look at floats.
const VECTOR_BINARY: [&str; 22] = [
    "v128.and",
    "v128.or",
    "v128.xor",
    "v128.andnot",
    "i8x16.add",
    "i16x8.sub",
    "i16x8.mul",
    "i32x4.add",
    "i32x4.mul",
    "i64x2.sub",
    "i8x16.eq",
    "i8x16.lt_u",
    "i16x8.gt_s",
    "i32x4.eq",
    "i32x4.ne",
    "i32x4.ge_u",
    "i64x2.ne",
    "i64x2.lt_s",
    "f32x4.lt",
    "f32x4.ne",
    "f64x2.ge",
    "i8x16.swizzle",
];
const VECTOR_UNARY: [&str; 8] = [
    "v128.not",
    "i8x16.neg",
    "i32x4.abs",
    "i64x2.neg",
    "i8x16.popcnt",
    "i16x8.extend_low_i8x16_s",
    "f32x4.neg",
    "f64x2.abs",
];
/// Of a vector and an `i32`.
const VECTOR_SHIFT: [&str; 4] = ["i8x16.shl", "i16x8.shr_s", "i32x4.shr_u", "i64x2.shl"];
/// What a vector says about itself.
const VECTOR_TEST: [&str; 7] = [
    "v128.any_true",
    "i8x16.all_true",
    "i32x4.all_true",
    "i64x2.all_true",
    "i8x16.bitmask",
    "i32x4.bitmask",
    "i64x2.bitmask",
];

/// A function that is being written.
struct Writer<'r> {
    random: &'r mut Random,
    text: String,
    /// How many blocks that make a value it is in.
    values: u32,
}

impl Writer<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn put(&mut self, text: impl std::fmt::Display) {
        writeln!(self.text, "{text}").unwrap();
    }

    /// The name of a local.
    fn local(&mut self, ty: Type) -> String {
        format!("${}_{}", ty.name(), self.below(3))
    }

    /// A value of a type.
    fn value(&mut self, ty: Type, depth: u32) {
        self.value_alone(ty, depth);
        self.between();
    }

    fn value_alone(&mut self, ty: Type, depth: u32) {
        let name = ty.name();
        match self.below(if depth == 0 { 6 } else { 16 }) {
            0 | 1 => {
                let local = self.local(ty);
                self.put(format_args!("local.get {local}"));
            }
            2 => {
                let constant = self.pick(ty.constants());
                self.put(format_args!("{name}.const {constant}"));
            }
            3 => {
                let global = self.below(2);
                self.put(format_args!("global.get ${name}_{global}"));
            }
            4 => self.load(ty),
            5 => {
                self.put(format_args!("local.get ${name}_0"));
                self.put(format_args!("call $same_{name}"));
            }
            6 => {
                self.value(ty, depth - 1);
                let local = self.local(ty);
                self.put(format_args!("local.tee {local}"));
            }
            7 if ty == I32 => self.comparison(depth),
            7 | 8 => self.choice(ty, depth),
            9 => self.conversion(ty, depth),
            10 => self.unary(ty, depth),
            // A zero that wasmi knows, or not.
            11 if ty.is_integer() => {
                self.value(ty, depth - 1);
                self.put(format_args!("{name}.const 0"));
                let operation = self.pick(&INTEGER_BINARY);
                self.put(format_args!("{name}.{operation}"));
            }
            12 if ty.is_integer() => {
                self.value(ty, depth - 1);
                // Never zero, and never -1, which traps with the least of all numbers.
                let divisor = self.pick(&["1", "2", "3", "7", "16"]);
                self.put(format_args!("{name}.const {divisor}"));
                let operation = self.pick(&["div_s", "div_u", "rem_s", "rem_u"]);
                self.put(format_args!("{name}.{operation}"));
            }
            12 | 13 if ty == I32 => self.comparison(depth),
            _ => self.binary(ty, depth),
        }
    }

    fn load(&mut self, ty: Type) {
        let (name, base) = (ty.name(), ty.base());
        self.address();
        let kinds: &[&str] = match ty {
            I32 => &["load", "load8_s", "load8_u", "load16_s", "load16_u"],
            I64 => &[
                "load", "load8_s", "load8_u", "load16_s", "load32_s", "load32_u",
            ],
            F32 | F64 => &["load"],
            V128 => &[
                "load",
                "load8_splat",
                "load32_splat",
                "load64_zero",
                "load16x4_s",
            ],
        };
        let kind = self.pick(kinds);
        self.put(format_args!("{name}.{kind} offset={base}"));
    }

    /// The place of one of four numbers.
    fn address(&mut self) {
        match self.below(2) {
            0 => {
                let place = 8 * self.below(4);
                self.put(format_args!("i32.const {place}"));
            }
            _ => {
                let local = self.local(I32);
                self.put(format_args!("local.get {local}\ni32.const 24\ni32.and"));
            }
        }
    }

    fn comparison(&mut self, depth: u32) {
        let ty = self.pick(&TYPES);
        let name = ty.name();
        self.value(ty, depth - 1);
        if ty == V128 {
            let test = self.pick(&VECTOR_TEST);
            return self.put(test);
        }
        if ty.is_integer() && self.below(3) == 0 {
            return self.put(format_args!("{name}.eqz"));
        }
        self.value(ty, depth - 1);
        let operation = match ty.is_integer() {
            true => self.pick(&INTEGER_COMPARISON),
            false => self.pick(&FLOAT_COMPARISON),
        };
        self.put(format_args!("{name}.{operation}"));
    }

    fn binary(&mut self, ty: Type, depth: u32) {
        let name = ty.name();
        self.value(ty, depth - 1);
        if ty == V128 && self.below(4) == 0 {
            self.value(I32, depth - 1);
            let operation = self.pick(&VECTOR_SHIFT);
            return self.put(operation);
        }
        self.value(ty, depth - 1);
        if ty == V128 {
            let operation = self.pick(&VECTOR_BINARY);
            return self.put(operation);
        }
        let operation = match ty.is_integer() {
            true => self.pick(&INTEGER_BINARY),
            false => self.pick(&FLOAT_BINARY),
        };
        if operation == "copysign" {
            self.determined(ty);
        }
        self.put(format_args!("{name}.{operation}"));
        self.bound(ty);
    }

    fn unary(&mut self, ty: Type, depth: u32) {
        self.value(ty, depth - 1);
        if ty == V128 {
            let operation = self.pick(&VECTOR_UNARY);
            return self.put(operation);
        }
        let operation = match ty.is_integer() {
            true => self.pick(&INTEGER_UNARY),
            false => self.pick(&FLOAT_UNARY),
        };
        self.put(format_args!("{}.{operation}", ty.name()));
    }

    /// Most floats stay far from where they overflow, or all would become NaN.
    fn bound(&mut self, ty: Type) {
        if ty.is_float() && self.below(4) > 0 {
            let name = ty.name();
            self.put(format_args!(
                "{name}.const 1e6\n{name}.min\n{name}.const -1e6\n{name}.max"
            ));
        }
    }

    /// A NaN becomes one whose bits are known, before anything looks at them.
    fn determined(&mut self, ty: Type) {
        if ty.is_float() {
            self.put(format_args!("call $determined_{}", ty.name()));
        }
    }

    fn conversion(&mut self, ty: Type, depth: u32) {
        let (from, operation) = self.pick(match ty {
            I32 => &[
                (I64, "i32.wrap_i64"),
                (F32, "i32.trunc_sat_f32_s"),
                (F64, "i32.trunc_sat_f64_u"),
                (F32, "i32.reinterpret_f32"),
                (I64, "i64.eqz"),
                (V128, "i32x4.extract_lane 1"),
                (V128, "i8x16.extract_lane_s 15"),
            ],
            I64 => &[
                (I32, "i64.extend_i32_s"),
                (I32, "i64.extend_i32_u"),
                (I64, "i64.extend32_s"),
                (F64, "i64.trunc_sat_f64_s"),
                (F64, "i64.reinterpret_f64"),
                (V128, "i64x2.extract_lane 0"),
            ],
            F32 => &[
                (I32, "f32.convert_i32_s"),
                (I32, "f32.convert_i32_u"),
                (I64, "f32.convert_i64_s"),
                (F64, "f32.demote_f64"),
                (I32, "f32.reinterpret_i32"),
                (V128, "f32x4.extract_lane 2"),
            ],
            F64 => &[
                (I32, "f64.convert_i32_s"),
                (I64, "f64.convert_i64_s"),
                (I64, "f64.convert_i64_u"),
                (F32, "f64.promote_f32"),
                (I64, "f64.reinterpret_i64"),
                (V128, "f64x2.extract_lane 1"),
            ],
            V128 => &[
                (I32, "i8x16.splat"),
                (I32, "i32x4.splat"),
                (I64, "i64x2.splat"),
                (F32, "f32x4.splat"),
                (F64, "f64x2.splat"),
            ],
        });
        self.value(from, depth - 1);
        if operation.contains("reinterpret") || operation.contains("splat") {
            self.determined(from);
        }
        self.put(operation);
        self.bound(ty);
    }

    /// A value out of two: by a `select`, an `if`, a branch or a table of them.
    fn choice(&mut self, ty: Type, depth: u32) {
        let name = ty.name();
        match self.below(6) {
            0..=2 => {
                self.value(ty, depth - 1);
                self.value(ty, depth - 1);
                self.condition(depth - 1);
                match self.below(2) {
                    0 => self.put("select"),
                    _ => self.put(format_args!("select (result {name})")),
                }
            }
            3 => {
                self.condition(depth - 1);
                self.open(format_args!("if (result {name})"));
                self.value(ty, depth - 1);
                self.put("else");
                self.value(ty, depth - 1);
                self.close();
            }
            4 => {
                self.open(format_args!("block (result {name})"));
                self.value(ty, depth - 1);
                self.condition(depth - 1);
                self.put("br_if 0");
                self.put("drop");
                self.value(ty, depth - 1);
                self.close();
            }
            _ => {
                self.open(format_args!("block (result {name})\nblock (result {name})"));
                self.value(ty, depth - 1);
                self.condition(depth - 1);
                self.put("br_table 0 1 0\nend");
                self.put("drop");
                self.value(ty, depth - 1);
                self.close();
            }
        }
    }

    /// Begins a block that makes a value.
    fn open(&mut self, block: std::fmt::Arguments<'_>) {
        self.put(block);
        self.values += 1;
    }

    /// Ends it.
    fn close(&mut self) {
        self.put("end");
        self.values -= 1;
    }

    /// What a `select` or branch tests: most often a comparison.
    fn condition(&mut self, depth: u32) {
        match self.below(4) {
            0 => self.value(I32, depth),
            1 => {
                self.value(I32, depth);
                self.put("i32.eqz");
                self.between();
            }
            _ => {
                self.comparison(depth.max(1));
                self.between();
            }
        }
    }

    /// Code that leaves the stack as it is.
    fn between(&mut self) {
        let ty = self.pick(&TYPES);
        let name = ty.name();
        match self.below(24) {
            0 => self.put("nop"),
            1 => self.put("block\nend"),
            2 => self.put(format_args!("local.get ${name}_1\nlocal.set ${name}_1")),
            // Here nothing is to be taken along.
            3 if self.values == 0 => self.put("i32.const 0\nbr_if 0"),
            4 => {
                self.value_alone(ty, 0);
                self.put("drop");
            }
            5 => self.sink(ty, 0),
            6 => self.put("i32.const 1\nif\nend"),
            _ => {}
        }
    }

    /// Uses a value up.
    fn sink(&mut self, ty: Type, depth: u32) {
        let name = ty.name();
        match self.below(4) {
            0 => {
                self.value_alone(ty, depth);
                let local = self.local(ty);
                self.put(format_args!("local.set {local}"));
            }
            1 => {
                self.value_alone(ty, depth);
                self.determined(ty);
                self.put(format_args!("global.set ${name}_0"));
            }
            _ => {
                self.address();
                self.value_alone(ty, depth);
                let kinds: &[&str] = match ty {
                    I32 => &["store", "store8", "store16"],
                    I64 => &["store", "store8", "store16", "store32"],
                    F32 | F64 | V128 => &["store"],
                };
                self.determined(ty);
                let kind = self.pick(kinds);
                self.put(format_args!("{name}.{kind} offset={}", ty.base()));
            }
        }
    }

    /// A statement: something is computed and kept, where a condition says so or always.
    fn statement(&mut self) {
        let ty = self.pick(&TYPES);
        match self.below(4) {
            0 => {
                self.put("block");
                self.condition(2);
                self.put("br_if 0");
                self.sink(ty, 2);
                self.put("end");
            }
            1 => {
                self.condition(2);
                self.put("if");
                self.sink(ty, 2);
                self.put("end");
            }
            _ => self.sink(ty, 3),
        }
    }
}

/// A function: its statements, and a number that all that it changed has a part in.
fn function(random: &mut Random, number: usize) -> String {
    let mut writer = Writer {
        random,
        text: String::new(),
        values: 0,
    };
    let statements = match writer.below(4) {
        0 => 0,
        _ => STATEMENTS,
    };
    for _ in 0..statements {
        // What is between values may branch out of this, and does not.
        writer.put("block");
        writer.statement();
        writer.put("end");
    }
    if statements == 0 {
        // One choice, which nothing comes before that an accumulator could hold.
        let ty = writer.pick(&TYPES);
        writer.put("block");
        writer.choice(ty, 2);
        writer.put(format_args!("local.set ${}_1\nend", ty.name()));
    }
    let mut params = String::new();
    let mut locals = String::new();
    let mut sum = String::from("i64.const 0\n");
    for ty in TYPES {
        let name = ty.name();
        params += &format!(" (param ${name}_0 {name})");
        let convert = match ty {
            I32 => "i64.extend_i32_u",
            I64 => "",
            F32 => "call $determined_f32\ni32.reinterpret_f32\ni64.extend_i32_u",
            F64 => "call $determined_f64\ni64.reinterpret_f64",
            V128 => "call $folded",
        };
        for index in 0..3 {
            if index > 0 {
                locals += &format!(" (local ${name}_{index} {name})");
            }
            sum += &format!(
                "i64.const 1099511628211\ni64.mul\nlocal.get ${name}_{index}\n{convert}\ni64.xor\n"
            );
        }
        sum += &format!(
            "i64.const 1099511628211\ni64.mul\nglobal.get ${name}_0\n{convert}\ni64.xor\n"
        );
    }
    let text = writer.text;
    format!("(func $f{number}{params} (result i64){locals}\n{text}{sum})\n")
}

/// A module of functions, whose initialization calls each and keeps what they gave.
fn module(functions: &[String]) -> String {
    let mut text = String::from("(module (memory 2)\n");
    for ty in TYPES {
        let name = ty.name();
        let zero = ty.constants()[0];
        let _ = write!(
            text,
            "(global ${name}_0 (mut {name}) ({name}.const {zero})) (global ${name}_1 {name} ({name}.const {zero}))
             (func $same_{name} (param {name}) (result {name}) local.get 0)\n"
        );
    }
    for name in [F32, F64].map(Type::name) {
        let _ = write!(
            text,
            "(func $determined_{name} (param {name}) (result {name})
               (if (result {name}) ({name}.eq (local.get 0) (local.get 0))
                 (then local.get 0) (else {name}.const nan)))\n"
        );
    }
    text += "(func $folded (param v128) (result i64)
        (i64.xor
          (i64x2.extract_lane 0 (local.get 0))
          (i64.mul (i64x2.extract_lane 1 (local.get 0)) (i64.const 1099511628211))))\n";
    let mut calls = String::new();
    for (number, function) in functions.iter().enumerate() {
        text += function;
        for (round, args) in CALLS.iter().enumerate() {
            let at = RESULTS + 8 * (number * CALLS.len() + round);
            let _ = writeln!(
                calls,
                "(i64.store (i32.const {at}) (call $f{number} {args}))"
            );
        }
    }
    let _ = write!(
        text,
        "(func (export \"wizer.initialize\")\n{calls})
         (func (export \"result\") (param i32) (result i64) (i64.load (local.get 0))))"
    );
    text
}

/// Where the results are.
const RESULTS: usize = 0x10000;

/// The module, initialized by an engine.
fn initialized(text: &str, engine: Engine) -> Vec<u8> {
    let mut wizer = Wizer::new();
    wizer.engine(engine).cache(CacheLocation::Off);
    wizer.run(text.as_bytes()).unwrap()
}

/// The first function, and its call, of which two outputs have different results.
fn first_difference(outputs: [&[u8]; 2], functions: usize) -> Option<(usize, usize)> {
    let mut sessions = outputs.map(|output| Wizer::new().session(output).unwrap());
    let calls = (0..functions).flat_map(|f| (0..CALLS.len()).map(move |round| (f, round)));
    for (function, round) in calls {
        let at = RESULTS + 8 * (function * CALLS.len() + round);
        let [one, other] = &mut sessions;
        let [one, other] =
            [one, other].map(|s| s.call("result", &[Value::I32(at as i32)]).unwrap());
        if one != other {
            return Some((function, round));
        }
    }
    None
}

fn judge(seeds: Range<u64>, judge: Engine) {
    for seed in seeds {
        let mut random = Random::new(seed);
        let functions: Vec<_> = (0..FUNCTIONS)
            .map(|number| function(&mut random, number))
            .collect();
        let text = module(&functions);
        let outputs = [Engine::Interpreter, judge].map(|engine| initialized(&text, engine));
        if outputs[0] == outputs[1] {
            continue;
        }
        match first_difference([&outputs[0], &outputs[1]], FUNCTIONS) {
            Some((function, round)) => panic!(
                "seed {seed}, function {function}, with {}:\n{}",
                CALLS[round], functions[function]
            ),
            None => panic!("seed {seed}: what the functions left behind differs"),
        }
    }
}

#[test]
fn the_interpreter_computes_what_compiled_code_computes() {
    judge(seeds(0..6), Engine::Optimizing);
}
