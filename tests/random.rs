//! Random and damaged modules: whatever a module is and does, its output is right, or there is
//! an error that is true.
//!
//! The modules are the same in every run. A failure names the seed, and
//! `SEEDS=17..18 cargo test --test random` repeats it alone.
//!
//! With `CORPUS=DIR` in the environment, they are written down for Node's own engine as well.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use arbitrary::Unstructured;
use common::corpus;
use common::fixtures::{self, Fixture, Setup};
use common::judge::Judge;
use common::structure::{Items, append};
use common::{Random, chain, seeds, structure};
use wasm_encoder::{Encode, ExportKind, Function, Instruction};
use wasmparser::{FuncType, Parser, Payload, TypeRef, ValType};
use wizer::{Engine, Error, KeepInitFunc, Outcome};

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

/// How much memory a module may have, in bytes: a damaged one may ask for a lot.
const MAX_MEMORY: u64 = 64 << 20;

/// How long a module may run: a damaged one may never end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Judges what comes of the modules of some seeds, and tells how often it was what. Fails at the
/// end if it was wrong for any.
fn judge_all(
    seeds: Range<u64>,
    judge: impl Fn(u64) -> Option<&'static str>,
) -> BTreeMap<&'static str, usize> {
    let mut ends = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| judge(seed))) {
            Ok(Some(end)) => *ends.entry(end).or_default() += 1,
            Ok(None) => {}
            Err(_) => wrong.push(seed),
        }
    }
    println!("{ends:?}");
    assert!(
        wrong.is_empty(),
        "see above what is wrong with the seeds {wrong:?}"
    );
    ends
}

/// Asserts that there were enough of each end for the test to say something.
fn assert_enough(ends: &BTreeMap<&str, usize>, minimum: &[(&str, usize)]) {
    for (end, minimum) in minimum {
        let found = ends.get(end).copied().unwrap_or(0);
        assert!(
            found >= *minimum || std::env::var_os("SEEDS").is_some(),
            "{end}: {ends:?}"
        );
    }
}

const BY_ALL: &str = "initialized, by every engine";
const BY_SOME: &str = "initialized, by those that can";

#[test]
fn random_modules_are_initialized_rightly_or_not_at_all() {
    let setup = Setup {
        preloads: vec![("env".into(), wat::parse_str(ENV).unwrap())],
        ..Setup::default()
    };
    let judge = Judge::new(&setup.preloads);
    let ends = judge_all(seeds(0..600), |seed| {
        let wasm = module(seed, &judge)?;
        Some(judge_module(&format!("seed {seed}"), &wasm, &setup, &judge))
    });
    let enough = [(BY_ALL, 100), (BY_SOME, 100), ("ERR_WIZER_TRAP", 50)];
    assert_enough(&ends, &enough);
}

/// Bytes of fixtures are changed, removed and inserted.
#[test]
fn damaged_modules_are_initialized_rightly_or_not_at_all() {
    let fixtures = fixtures::all();
    let judges: Vec<Judge> = fixtures
        .iter()
        .map(|f| Judge::new(&f.setup.preloads))
        .collect();
    let ends = judge_all(seeds(0..4000), |seed| {
        let mut random = Random::new(seed);
        let which = random.below(fixtures.len());
        let Fixture { name, wasm, setup } = &fixtures[which];
        let mut wasm = wasm.clone();
        for _ in 0..=random.below(2) {
            let at = random.below(wasm.len());
            match random.below(8) {
                0..4 => wasm[at] ^= 1 << random.below(8),
                4..6 => wasm[at] = random.byte(),
                6 => drop(wasm.remove(at)),
                _ => wasm.insert(at, random.byte()),
            }
        }
        let what = format!("seed {seed}, {name} damaged");
        Some(judge_module(&what, &wasm, setup, &judges[which]))
    });
    let enough = [
        (BY_ALL, 300),
        (BY_SOME, 50),
        ("ERR_WIZER_INVALID_MODULE", 1000),
    ];
    assert_enough(&ends, &enough);
}

/// Runs one module and judges what comes of it: the same on every engine that can run it. Returns
/// in a word what that is.
fn judge_module(what: &str, wasm: &[u8], setup: &Setup, judge: &Judge) -> &'static str {
    let run = |engine| {
        let mut wizer = setup.wizer();
        wizer.engine(engine).max_memory(MAX_MEMORY).timeout(TIMEOUT);
        wizer.snapshot(wasm)
    };
    let auto = run(Engine::Auto);
    let mut refused = false;
    for engine in [Engine::Interpreter, Engine::Baseline, Engine::Optimizing] {
        let ran = run(engine);
        if engine == Engine::Optimizing && corpus::is_wanted() {
            write_down(what, wasm, setup, &ran);
        }
        match (ran, &auto) {
            (Err(Error::Unsupported { .. }), _) => refused = true,
            (Ok(other), Ok(auto)) => {
                assert!(other.wasm == auto.wasm, "{what}: {engine:?}: other bytes");
            }
            (Err(other), Err(auto)) => assert_eq!(other.code(), auto.code(), "{what}: {engine:?}"),
            (Ok(_), Err(auto)) => panic!("{what}: {engine:?} can do it: {}", chain(auto)),
            (Err(other), Ok(_)) => panic!("{what}: only on {engine:?}: {}", chain(&other)),
        }
    }
    match auto {
        Ok(outcome) => {
            structure::check(what, wasm, &outcome, setup);
            judge.assert_equivalent(what, wasm, &outcome.wasm, setup);
            if refused { BY_SOME } else { BY_ALL }
        }
        Err(error) => {
            assert_true(what, &error, wasm, setup, judge);
            error.code()
        }
    }
}

/// Puts a run into the corpus.
fn write_down(what: &str, wasm: &[u8], setup: &Setup, ran: &Result<Outcome, Error>) {
    let preloads = setup.preloads.iter();
    corpus::line(&serde_json::json!({
        "name": what,
        "wasm": corpus::bytes(wasm),
        "preload": corpus::modules(preloads.map(|(name, wasm)| (name.as_str(), wasm.as_slice()))),
        "options": {
            "initFunc": setup.init_func,
            "keepInitFunc": match setup.keep_init_func {
                KeepInitFunc::Empty => "empty".into(),
                keep => serde_json::json!(keep == KeepInitFunc::Yes),
            },
            "renameFuncs": BTreeMap::from_iter(setup.renames.iter().cloned()),
        },
        "output": corpus::outcome(ran, |outcome| corpus::bytes(&outcome.wasm)),
    }));
}

/// Asserts that an error is not made up.
fn assert_true(what: &str, error: &Error, wasm: &[u8], setup: &Setup, judge: &Judge) {
    let text = format!("{what}: {}: {}", error.code(), chain(error));
    let valid = structure::validate(wasm);
    if let Error::InvalidModule { .. } = error {
        // Valid, perhaps, with a proposal that no engine here has.
        assert!(valid.is_err() || judge.compile(wasm).is_err(), "{text}");
        return;
    }
    let original = || judge.initialized(wasm, setup).map(|_| ());
    match error {
        // What is looked at first may be missing in a module that is not valid besides.
        Error::InitFuncMissing { .. } | Error::InitFuncType { .. } => {}
        Error::Timeout { .. } => {}
        // What begins with a parenthesis is taken for text.
        Error::InvalidText { .. } => assert!(!wasm.starts_with(b"\0asm"), "{text}"),
        Error::Trap(_) if error.code() == "ERR_WIZER_MEMORY_LIMIT" => {}
        // It fails without wizer, too.
        Error::Trap(_)
        | Error::Unsupported { .. }
        | Error::ImportMissing { .. }
        | Error::ImportType { .. } => assert!(original().is_err(), "only here: {text}"),
        Error::Unrepresentable { .. } => original().unwrap_or_else(|e| panic!("{text}: {e:?}")),
        _ => panic!("{text}"),
    }
    let looked_at_first = matches!(
        error,
        Error::InitFuncMissing { .. } | Error::InitFuncType { .. } | Error::InvalidText { .. }
    );
    assert!(valid.is_ok() || looked_at_first, "not valid, but {text}");
}

// ----- modules -----

/// A module of this seed, with an export `wizer.initialize`. `None` where the generator gives up.
fn module(seed: u64, judge: &Judge) -> Option<Vec<u8>> {
    let mut random = Random::new(seed);
    let bytes: Vec<u8> = (0..8192).map(|_| random.byte()).collect();
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
        // Numbers may be written with more bytes than they need.
        min_uleb_size: 1 + (seed % 3) as u8,
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
