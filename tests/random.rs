//! Random modules: whatever a module is and does, its output is right, or there is an error that
//! is true.
//!
//! The modules are the same in every run. A failure names the seed, and
//! `RANDOM_SEEDS=17..18 cargo test --test random` repeats it alone.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use arbitrary::Unstructured;
use common::chain;
use common::fixtures::Setup;
use common::judge::Judge;
use common::structure;
use wasm_encoder::{Encode, ExportKind, Function, Instruction};
use wasmparser::{FuncType, Parser, Payload, TypeRef, ValType};
use wizer::{Engine, Error};

/// What the modules may import.
const IMPORTS: &str = r#"(module
    (import "env" "nothing" (func))
    (import "env" "add" (func (param i32 i32) (result i32)))
    (import "env" "pair" (func (result i64 f64)))
    (import "env" "memory" (memory 1 3))
    (import "env" "table" (table 3 10 funcref))
    (import "env" "constant" (global i32))
    (import "env" "wide" (global i64))
    (import "env" "variable" (global (mut i32))))"#;

/// What provides it.
const ENV: &str = r#"(module
    (func (export "nothing"))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "pair") (result i64 f64) (i64.const 5) (f64.const 0.5))
    (memory (export "memory") 1 3)
    (data (i32.const 10) "in the preloaded module")
    (table (export "table") 3 10 funcref)
    (elem (i32.const 1) 0)
    (global (export "constant") i32 (i32.const 16))
    (global (export "wide") i64 (i64.const 32))
    (global (export "variable") (mut i32) (i32.const 7)))"#;

/// How much a module may do in its whole life, its initialization included: about one unit per
/// call and loop. Also how deep it can recurse.
const FUEL: u32 = 500;

const SEEDS: Range<u64> = 0..600;

fn seeds() -> Range<u64> {
    let Some(range) = std::env::var("RANDOM_SEEDS").ok() else {
        return SEEDS;
    };
    let (from, to) = range.split_once("..").expect("RANDOM_SEEDS is FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn random_modules_are_initialized_rightly_or_not_at_all() {
    let setup = Setup {
        preloads: vec![("env".into(), wat::parse_str(ENV).unwrap())],
        ..Setup::default()
    };
    let judge = Judge::new(&setup.preloads);
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in seeds() {
        let Some(wasm) = module(seed, &judge) else {
            continue;
        };
        match catch_unwind(AssertUnwindSafe(|| {
            judge_module(seed, &wasm, &setup, &judge)
        })) {
            Ok(end) => *ends.entry(end).or_default() += 1,
            Err(_) => failed.push(seed),
        }
    }
    println!("{ends:?}");
    assert!(
        failed.is_empty(),
        "see above what is wrong with the seeds {failed:?}"
    );
    if seeds() == SEEDS {
        let count = |end| ends.get(end).copied().unwrap_or(0);
        let both = count("initialized, by both compilers");
        assert!(
            both > 100 && count("initialized") > 100,
            "too few say much: {ends:?}"
        );
    }
}

/// Runs one module and judges what comes of it. Returns in a word what that is.
fn judge_module(seed: u64, wasm: &[u8], setup: &Setup, judge: &Judge) -> &'static str {
    let what = format!("seed {seed}");
    let run = |engine| {
        let mut wizer = setup.wizer();
        wizer
            .engine(engine)
            .max_memory(64 << 20)
            .timeout(Duration::from_secs(600))
            .snapshot(wasm)
    };
    let outcome = match run(Engine::Auto) {
        Ok(outcome) => outcome,
        Err(error) => {
            assert_true(&what, &error, judge.initialized(wasm, setup).err());
            return error.code();
        }
    };
    structure::check(&what, wasm, &outcome, setup);
    judge.assert_equivalent(&what, wasm, &outcome.wasm, setup);
    if outcome.report.engine.name == "wasmtime (Cranelift)" {
        return "initialized";
    }
    let other = run(Engine::Optimizing).unwrap();
    let same = other.wasm == outcome.wasm;
    assert!(same, "{what}: Cranelift gives other bytes");
    "initialized, by both compilers"
}

/// Asserts that an error is not made up: `original` is how the original's initialization failed
/// without wizer.
fn assert_true(what: &str, error: &Error, original: Option<wizer::wasmtime::Error>) {
    let text = chain(error);
    match error {
        Error::Trap(_) if error.code() == "ERR_WIZER_MEMORY_LIMIT" => {}
        Error::Trap(_) => assert!(original.is_some(), "{what}: only here: {text}"),
        Error::Unrepresentable { .. } => {
            assert!(
                original.is_none(),
                "{what}: {text}, but it fails: {original:?}"
            );
        }
        other => panic!("{what}: {}: {text}", other.code()),
    }
}

// ----- modules -----

/// A module of this seed, with an export `wizer.initialize`. `None` where the generator gives up.
fn module(seed: u64, judge: &Judge) -> Option<Vec<u8>> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as u8
    })
    .take(8192)
    .collect();
    let mut module = wasm_smith::Module::new(config(seed), &mut Unstructured::new(&bytes)).ok()?;
    module.ensure_termination(FUEL).ok()?;
    add_initialization(&module.to_bytes(), seed, judge)
}

fn config(seed: u64) -> wasm_smith::Config {
    // The baseline compiler has its turn where a module needs none of these.
    let recent = seed.is_multiple_of(2);
    wasm_smith::Config {
        available_imports: Some(wat::parse_str(IMPORTS).unwrap()),
        allow_start_export: true,
        bulk_memory_enabled: true,
        // Compilers differ in the bits of a NaN, as they may.
        canonicalize_nans: true,
        custom_page_sizes_enabled: recent,
        disallow_traps: !seed.is_multiple_of(5),
        exceptions_enabled: recent,
        export_everything: true,
        extended_const_enabled: true,
        gc_enabled: seed.is_multiple_of(4),
        generate_custom_sections: true,
        limit_arrays_in_const_exprs: true,
        max_data_segments: 6,
        max_element_segments: 6,
        max_elements: 20,
        max_funcs: 12,
        max_globals: 12,
        max_imports: if seed.is_multiple_of(3) { 6 } else { 0 },
        max_instructions: 150,
        max_memories: 3,
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        max_table_elements: 100,
        max_tables: if recent { 3 } else { 1 },
        max_tags: if recent { 4 } else { 0 },
        memory64_enabled: true,
        memory_max_size_required: true,
        min_data_segments: 1,
        min_element_segments: (seed % 3) as usize,
        min_funcs: 3,
        min_globals: 2,
        min_memories: (seed % 2) as u32,
        min_tables: (seed % 2) as u32,
        reference_types_enabled: recent,
        // Its results may differ from engine to engine.
        relaxed_simd_enabled: false,
        simd_enabled: true,
        table_max_size_required: true,
        tail_call_enabled: recent,
        // A wait would never end.
        threads_enabled: false,
        wide_arithmetic_enabled: recent,
        ..wasm_smith::Config::default()
    }
}

/// Appends a function `wizer.initialize`, which calls some of the functions with some arguments:
/// such that return, for most seeds. `None` for modules without anything to append it to.
fn add_initialization(wasm: &[u8], seed: u64, judge: &Judge) -> Option<Vec<u8>> {
    let shape = Shape::of(wasm);
    let mut calls: Vec<u32> = (0..)
        .zip(&shape.functions)
        .filter(|(_, ty)| arguments(shape.types[**ty as usize].as_ref(), seed).is_some())
        .map(|(index, _)| index)
        .collect();
    if !calls.is_empty() {
        let first = (seed / 10) as usize % calls.len();
        calls.rotate_left(first);
    }
    if !seed.is_multiple_of(10) {
        let alone: Vec<(String, Vec<u32>)> = calls
            .iter()
            .map(|call| (format!("call {call}"), vec![*call]))
            .collect();
        let module = judge
            .compile(&with_functions(wasm, &shape, &alone, seed)?)
            .ok()?;
        calls.retain(|call| {
            let running = judge.start(&module);
            running.is_ok_and(|mut running| running.try_call(&format!("call {call}")).is_ok())
        });
    }
    calls.truncate(3);
    with_functions(wasm, &shape, &[("wizer.initialize".into(), calls)], seed)
}

/// Appends functions of these names, each of which calls some functions.
fn with_functions(
    wasm: &[u8],
    shape: &Shape,
    functions: &[(String, Vec<u32>)],
    seed: u64,
) -> Option<Vec<u8>> {
    let [mut types, mut exports, mut bodies] = [(); 3].map(|()| Items::default());
    for (name, calls) in functions {
        let mut body = Function::new([]);
        for &index in calls {
            let ty = shape.types[shape.functions[index as usize] as usize].as_ref();
            for argument in arguments(ty, seed)? {
                body.instruction(&argument);
            }
            body.instruction(&Instruction::Call(index));
            for _ in ty?.results() {
                body.instruction(&Instruction::Drop);
            }
        }
        body.instruction(&Instruction::End);
        name.encode(&mut exports.bytes);
        ExportKind::Func.encode(&mut exports.bytes);
        exports.push(&(shape.functions.len() as u32 + types.count));
        types.push(&(shape.types.len() as u32));
        bodies.push(&body);
    }
    // `(func)`: form 0x60, no parameters, no results.
    let ty = Items {
        count: 1,
        bytes: vec![0x60, 0, 0],
    };
    append(
        wasm,
        &BTreeMap::from([(1, ty), (3, types), (7, exports), (10, bodies)]),
    )
}

/// Arguments for a function of this type. `None` where it is none, or takes what cannot be made
/// from nothing.
fn arguments(ty: Option<&FuncType>, seed: u64) -> Option<Vec<Instruction<'static>>> {
    let params = (seed..).zip(ty?.params());
    params.map(|(seed, ty)| constant(*ty, seed)).collect()
}

/// A constant of a type of numbers.
fn constant(ty: ValType, seed: u64) -> Option<Instruction<'static>> {
    Some(match ty {
        ValType::I32 => Instruction::I32Const((seed % 100) as i32),
        ValType::I64 => Instruction::I64Const(seed as i64 * 3),
        ValType::F32 => Instruction::F32Const((seed as f32 / 3.0).into()),
        ValType::F64 => Instruction::F64Const((seed as f64 / 7.0).into()),
        ValType::V128 => Instruction::V128Const(seed as i128),
        ValType::Ref(ty) if ty.is_nullable() => {
            Instruction::RefNull(ty.heap_type().try_into().ok()?)
        }
        ValType::Ref(_) => return None,
    })
}

/// The types of a module, and of its functions.
#[derive(Default)]
struct Shape {
    types: Vec<Option<FuncType>>,
    functions: Vec<u32>,
}

impl Shape {
    fn of(wasm: &[u8]) -> Shape {
        let mut shape = Shape::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.unwrap() {
                Payload::TypeSection(groups) => {
                    let types = groups
                        .into_iter()
                        .flat_map(|group| group.unwrap().into_types());
                    shape
                        .types
                        .extend(types.map(|ty| match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        }));
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        if let TypeRef::Func(ty) = import.unwrap().ty {
                            shape.functions.push(ty);
                        }
                    }
                }
                Payload::FunctionSection(functions) => {
                    shape
                        .functions
                        .extend(functions.into_iter().map(Result::unwrap));
                }
                _ => {}
            }
        }
        shape
    }
}

/// Items for the end of a section.
#[derive(Default)]
struct Items {
    count: u32,
    bytes: Vec<u8>,
}

impl Items {
    fn push(&mut self, item: &impl Encode) {
        item.encode(&mut self.bytes);
        self.count += 1;
    }
}

/// A module with more items in some of its sections. `None` where one of them is missing.
fn append(wasm: &[u8], items: &BTreeMap<u8, Items>) -> Option<Vec<u8>> {
    let mut out = wasm[..8].to_vec();
    let mut appended = 0;
    for (id, _, contents) in structure::sections(wasm).all {
        out.push(id);
        let Some(items) = items.get(&id) else {
            contents.encode(&mut out);
            continue;
        };
        appended += 1;
        let mut reader = wasmparser::BinaryReader::new(contents, 0);
        let count = reader.read_var_u32().unwrap();
        let mut section = Vec::new();
        (count + items.count).encode(&mut section);
        section.extend_from_slice(&contents[reader.original_position()..]);
        section.extend_from_slice(&items.bytes);
        section.as_slice().encode(&mut out);
    }
    (appended == items.len()).then_some(out)
}
