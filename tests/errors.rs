//! Everything that goes wrong is told: its code, a message that says what to do, and for a trap
//! the functions and the places in the input. State that cannot be written is in `pipeline.rs`.

mod common;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::fixtures::{self, Fixture, Setup};
use common::structure::validate;
use common::{chain, initialize_and_judge};
use wasmparser::{Operator, Parser, Payload};
use wizer::wasmtime::Linker;
use wizer::{Engine, Error, Frame, Interrupt, Trap, TrapReason, Wizer};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// The error of a run with default options.
fn error(text: &str) -> Error {
    error_of(&Wizer::new(), text.as_bytes())
}

fn error_of(wizer: &Wizer, wasm: &[u8]) -> Error {
    match wizer.run(wasm) {
        Err(error) => error,
        Ok(_) => panic!("it went well"),
    }
}

/// Asserts an error's code, and that its message and causes hold these texts.
fn assert_error(error: &Error, code: &str, texts: &[&str]) {
    let message = chain(error);
    assert_eq!(error.code(), code, "{message}");
    for text in texts {
        assert!(message.contains(text), "`{text}` is not in: {message}");
    }
}

// ----- input that is no module -----

#[test]
fn text_behind_a_byte_order_mark() {
    let text = r#"(module (func (export "wizer.initialize")))"#;
    let plain = Wizer::new().run(text.as_bytes()).unwrap();
    for before in ["\u{feff}", "\u{feff}\n", "\u{feff};; a comment\n"] {
        let marked = format!("{before}{text}");
        assert_eq!(Wizer::new().run(marked.as_bytes()).unwrap(), plain);
    }
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let marked = format!("\u{feff}{text}");
        let wide: Vec<u8> = marked.encode_utf16().flat_map(order).collect();
        let error = error_of(&Wizer::new(), &wide);
        assert_error(&error, "ERR_WIZER_INVALID_TEXT", &["UTF-16", "UTF-8"]);
    }
}

#[test]
fn exceptions_of_the_old_kind() {
    let texts = ["legacy exceptions", "offset", "--translate-to-exnref"];
    for body in [
        "try nop catch_all end",
        "try nop catch $t end",
        "try nop delegate 0",
        "try nop catch_all rethrow 0 end",
    ] {
        let module = format!("(module (tag $t) (func (export \"wizer.initialize\") {body}))");
        assert_error(&error(&module), "ERR_WIZER_UNSUPPORTED", &texts);
    }
}

const INVALID: &str = "ERR_WIZER_INVALID_MODULE";

#[test]
fn bytes_that_are_no_module() {
    for (bytes, text) in [
        (&b""[..], "the input is empty"),
        (b"\0", "unexpected end"),
        (b"\0asm", "unexpected end"),
        (b"not wasm", "begins neither with"),
        (b"\x7fELF\x02\x01\x01\0", "begins neither with"),
        (b"\0asm\x02\0\0\0", "unknown binary version"),
        (b"\0asm\x01\0\0\0\x7f\x01\0", "unknown section id 127"),
    ] {
        let error = error_of(&Wizer::new(), bytes);
        let intro = "the input is not a valid WebAssembly module";
        assert_error(&error, INVALID, &[intro, text, "at offset"]);
    }
}

#[test]
fn text_that_is_no_module() {
    let code = "ERR_WIZER_INVALID_TEXT";
    for (text, part) in [
        ("(module", "expected `)`"),
        ("(module (func (nonsense)))", "unknown operator"),
        (";; only a comment", ""),
        ("(; open", ""),
        ("(module) (module)", ""),
        ("(module (func (call $missing)))", "unknown func"),
    ] {
        assert_error(
            &error(text),
            code,
            &["the input is not valid WebAssembly text", part],
        );
    }
    assert_error(&error_of(&Wizer::new(), b"(module \xff)"), code, &[]);
    // White space before text is no reason to take it for a binary module.
    assert_error(&error("\n\t (module"), code, &[]);
    let located = error("(module\n  (func (nonsense)))").to_string();
    assert!(located.contains(":2:"), "the line and column: {located}");
}

#[test]
fn a_component() {
    for text in ["(component)", "(component (core module $m))"] {
        let texts = ["component", "before it is made into a component"];
        assert_error(&error(text), "ERR_WIZER_COMPONENT", &texts);
        assert_error(
            &error_of(&Wizer::new(), &wat(text)),
            "ERR_WIZER_COMPONENT",
            &texts,
        );
    }
}

#[test]
fn a_module_cut_off_at_any_byte() {
    for name in [
        "custom-sections",
        "names",
        "elem-passive",
        "proposal-gc-types",
    ] {
        let fixture = fixtures::named(name);
        for len in 0..fixture.wasm.len() {
            let cut = &fixture.wasm[..len];
            match fixture.setup.wizer().run(cut) {
                Err(error) => {
                    // Where a section ends, what is left may be a module of its own.
                    let is_module = validate(cut).is_ok();
                    let codes: &[&str] = match is_module {
                        true => &["ERR_WIZER_INIT_FUNC_MISSING"],
                        false => &[INVALID, "ERR_WIZER_INIT_FUNC_MISSING"],
                    };
                    assert!(
                        codes.contains(&error.code()),
                        "{name}, {len} bytes: {}",
                        chain(&error)
                    );
                }
                Ok(_) => assert!(
                    validate(cut).is_ok(),
                    "{name}, {len} bytes: no module, and accepted"
                ),
            }
        }
    }
}

/// Modules that are not valid for one reason, which the pipeline itself never trips over.
#[test]
fn a_module_that_is_not_valid_is_rejected_whatever_the_reason() {
    let with = |before: &str, section: &[u8]| {
        let mut wasm = wat(before);
        wasm.extend_from_slice(section);
        wasm
    };
    let init = r#"(func $init (export "wizer.initialize"))"#;
    let cases = [
        (
            "a body leaves a value behind",
            wat(&format!("(module {init} (func i32.const 1))")),
        ),
        (
            "a body calls a function that does not exist",
            wat(&format!("(module {init} (func call 7))")),
        ),
        (
            "a body that never runs uses a local that does not exist",
            wat(&format!("(module {init} (func local.get 3 drop))")),
        ),
        (
            "the start function returns something",
            wat(&format!(
                "(module {init} (func $s (result i32) i32.const 1) (start $s))"
            )),
        ),
        (
            "the start function takes something",
            wat(&format!("(module {init} (func $s (param i32)) (start $s))")),
        ),
        (
            "the start function does not exist",
            wat(&format!("(module {init} (start 9))")),
        ),
        (
            "the start section comes after the code",
            with(&format!("(module {init})"), b"\x08\x01\x00"),
        ),
        ("there are two start sections", {
            let mut wasm = wat(&format!("(module {init} (start $init))"));
            let at = wasm.windows(3).position(|w| w == b"\x08\x01\x00").unwrap();
            wasm.splice(at..at, *b"\x08\x01\x00");
            wasm
        }),
        (
            "two exports have one name",
            wat(&format!(
                "(module {init} (func (export \"a\")) (memory (export \"a\") 1))"
            )),
        ),
        (
            "a memory is used and there is none, but a passive segment",
            wat(&format!(
                "(module {init} (data $d \"x\") (func data.drop $d) \
                 (func i32.const 0 i32.load drop))"
            )),
        ),
        (
            "a function is called whose index is that of the first probe",
            wat(&format!(
                "(module {init} (memory 1) (data $d \"x\") (func data.drop $d) (func call 3))"
            )),
        ),
        (
            "a function is exported whose index is that of the first probe",
            wat(&format!(
                "(module {init} (memory 1) (data $d \"x\") (func data.drop $d) \
                 (export \"e\" (func 2)))"
            )),
        ),
        (
            "nothing declares the start function, which a body refers to",
            wat(&format!(
                "(module {init} (func $s) (start $s) (func (drop (ref.func $s))))"
            )),
        ),
        (
            "a function has the type that is the probes'",
            wat(&format!(
                "(module {init} (memory 1) (data $d \"x\") (func data.drop $d) \
                 (func block (type 1) end))"
            )),
        ),
        (
            "a table is used whose index is that of the probes'",
            wat(&format!(
                "(module {init} (table 1 funcref) (elem $e func $init) \
                 (func elem.drop $e) (func table.size 1 drop))"
            )),
        ),
        ("there is more data than the data count says", {
            let mut wasm = wat(&format!(
                "(module {init} (memory 1) (data $d \"x\") (func data.drop $d))"
            ));
            let at = wasm.windows(3).position(|w| w == b"\x0c\x01\x01").unwrap();
            wasm[at + 2] = 2;
            wasm
        }),
        (
            "an active segment is for a memory that does not exist",
            wat(&format!(
                "(module {init} (data (memory 3) (i32.const 0) \"x\"))"
            )),
        ),
        (
            "a global's initializer has another type",
            wat(&format!("(module {init} (global (mut i32) (i64.const 0)))")),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, wasm) in cases {
        assert!(
            validate(&wasm).is_err(),
            "{what}: the test is wrong, as the module is valid"
        );
        match Wizer::new().run(&wasm) {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(Error::InvalidModule { .. }) => {}
            Err(error) => wrong.push(format!("{what}: {}", chain(&error))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The place is one in the input, and not in the module that runs.
#[test]
fn the_place_of_what_is_not_valid_is_that_in_the_input() {
    let wasm = wat(r#"(module
        (memory 1) (data $d "x") (global (mut i32) (i32.const 0))
        (func (export "wizer.initialize") (data.drop $d))
        (func (drop (i32.add (i32.const 1) (i64.const 2)))))"#);
    let expected = validate(&wasm).unwrap_err();
    match error_of(&Wizer::new(), &wasm) {
        Error::InvalidModule { offset, message } => {
            assert_eq!(offset, Some(expected.offset()));
            assert!(message.contains("type mismatch"), "{message}");
        }
        other => panic!("{}", chain(&other)),
    }
}

#[test]
fn proposals_that_are_switched_off() {
    let init = r#"(func (export "wizer.initialize"))"#;
    type Switch = fn(&mut Wizer, bool) -> &mut Wizer;
    let cases: [(Switch, &str); 6] = [
        (
            Wizer::wasm_simd,
            "(func (result v128) (v128.const i64x2 0 0))",
        ),
        (
            Wizer::wasm_relaxed_simd,
            "(func (param v128 v128) (result v128) \
             (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))",
        ),
        (Wizer::wasm_multi_memory, "(memory 1) (memory 1)"),
        (
            Wizer::wasm_multi_value,
            "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        ),
        (
            Wizer::wasm_bulk_memory,
            "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        ),
        (Wizer::wasm_reference_types, "(table 1 externref)"),
    ];
    for (switch, items) in cases {
        let text = format!("(module {items} {init})");
        Wizer::new().run(text.as_bytes()).unwrap();
        let mut wizer = Wizer::new();
        switch(&mut wizer, false);
        assert_error(&error_of(&wizer, text.as_bytes()), INVALID, &["at offset"]);
    }
}

#[test]
fn a_preloaded_module_that_is_none() {
    let text = r#"(module (func (export "wizer.initialize")))"#;
    for (preload, code) in [
        (&b"junk"[..], INVALID),
        (b"(module (func (nonsense)))", "ERR_WIZER_INVALID_TEXT"),
        (b"(component)", "ERR_WIZER_COMPONENT"),
        (b"(module (func i32.const 1))", INVALID),
    ] {
        let mut wizer = Wizer::new();
        wizer.preload_bytes("env", preload);
        assert_error(&error_of(&wizer, text.as_bytes()), code, &[]);
    }
}

// ----- the initialization function -----

#[test]
fn a_missing_initialization_function_and_what_could_serve() {
    let missing = "ERR_WIZER_INIT_FUNC_MISSING";
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "takes something") (param i32))
        (func (export "returns something") (result i32) (i32.const 0))
        (func (export "setup"))
        (func (export "_initialize")))"#;
    let default = error(text);
    let texts = [
        "`wizer.initialize` or `wizer-initialize`",
        "`setup`, `_initialize`",
        "--init-func",
    ];
    assert_error(&default, missing, &texts);
    match default {
        Error::InitFuncMissing { names, candidates } => {
            assert_eq!(names, wizer::DEFAULT_INIT_FUNCS);
            assert_eq!(candidates, ["setup", "_initialize"]);
        }
        other => panic!("{other}"),
    }
    let named = error_of(Wizer::new().init_func("set up"), text.as_bytes());
    assert_error(&named, missing, &["`set up`", "`setup`"]);
    assert!(!named.to_string().contains("wizer.initialize"));

    assert_error(&error("(module)"), missing, &["it exports no function"]);

    let many: String = (0..20)
        .map(|i| format!("(func (export \"f{i}\"))"))
        .collect();
    let texts = ["`f0`", "`f11`", "and 8 more"];
    let error = error(&format!("(module {many})"));
    assert_error(&error, missing, &texts);
    assert!(!error.to_string().contains("`f12`"));
}

#[test]
fn an_initialization_function_of_another_kind() {
    for (export, found) in [
        (
            "(func (export \"init\") (param i32 i64))",
            "a function with 2 parameters and no results",
        ),
        (
            "(func (export \"init\") (result i32) (i32.const 0))",
            "no parameters and 1 result",
        ),
        ("(memory (export \"init\") 1)", "a memory"),
        ("(table (export \"init\") 1 funcref)", "a table"),
        ("(global (export \"init\") i32 (i32.const 0))", "a global"),
        ("(tag (export \"init\"))", "a tag"),
    ] {
        let text = format!("(module {export} (func (export \"other\")))");
        let error = error_of(Wizer::new().init_func("init"), text.as_bytes());
        let texts = [
            "`init`",
            found,
            "must take no parameters and return nothing",
            "`other`",
        ];
        assert_error(&error, "ERR_WIZER_INIT_FUNC_TYPE", &texts);
        let has_way = chain(&error).contains("--invoke");
        assert_eq!(has_way, export.starts_with("(func"), "{error}");
    }
}

// ----- traps -----

fn trap(error: Error) -> Trap {
    match error {
        Error::Trap(trap) => *trap,
        other => panic!("{}", chain(&other)),
    }
}

/// Where in a module the operators stand for which `wanted` is true.
fn places(wasm: &[u8], wanted: impl Fn(&Operator<'_>) -> bool) -> Vec<usize> {
    let mut places = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            for operator in body
                .get_operators_reader()
                .unwrap()
                .into_iter_with_offsets()
            {
                let (operator, offset) = operator.unwrap();
                if wanted(&operator) {
                    places.push(offset);
                }
            }
        }
    }
    places
}

fn places_of_frames(frames: &[Frame]) -> Vec<usize> {
    frames.iter().map(|frame| frame.offset.unwrap()).collect()
}

/// Modules for whose running much is added, before and in the code section.
const STATES: [&str; 4] = [
    "",
    "(memory 1) (global (mut i32) (i32.const 0)) (table 3 funcref)",
    "(memory 1) (data $d \"x\") (elem $e func $init) (func (data.drop $d) (elem.drop $e))",
    "(memory 1) (data \"x\") (data \"y\") (data \"z\") (data $d \"x\") (func (data.drop $d))
     (table 100 externref) (elem externref (ref.null extern)) (global externref (ref.null extern))",
];

#[test]
fn a_backtrace_names_functions_and_places_of_the_input() {
    for state in STATES {
        for engine in [Engine::Baseline, Engine::Optimizing] {
            // Without the types of references, which the baseline compiler does not know.
            if engine == Engine::Baseline && state.contains("externref") {
                continue;
            }
            let wasm = wat(&format!(
                r#"(module $program {state}
                (func $init (export "wizer.initialize") nop (call $middle) nop)
                (func $unused (unreachable))
                (func $middle nop nop (call $_ZN4core3fmt9Formatter3pad17h0123456789abcdefE))
                (func $_ZN4core3fmt9Formatter3pad17h0123456789abcdefE
                  (drop (i32.const 1)) (unreachable)))"#
            ));
            let trap = trap(error_of(Wizer::new().engine(engine), &wasm));
            assert_eq!(trap.function.as_deref(), Some("wizer.initialize"));
            let frame = |f: &Frame| (f.module.clone().unwrap(), f.name.clone().unwrap());
            let frames: Vec<_> = trap.frames.iter().map(frame).collect();
            let program = "program".to_string();
            assert_eq!(
                frames,
                ["core::fmt::Formatter::pad", "middle", "init"]
                    .map(|name| (program.clone(), name.to_string())),
                "{state}"
            );

            let unreachable = places(&wasm, |op| matches!(op, Operator::Unreachable))[1];
            let calls = places(&wasm, |op| matches!(op, Operator::Call { .. }));
            assert_eq!(
                places_of_frames(&trap.frames),
                [unreachable, calls[1], calls[0]],
                "{state}, {engine:?}"
            );
            let first = trap.frames[0].function;
            assert_eq!(trap.frames[1].function, first - 1);
        }
    }
}

#[test]
fn a_trap_is_told_in_the_shape_that_tools_look_for() {
    let wasm = wat(r#"(module
        (memory 1)
        (func (export "wizer.initialize") (call $load))
        (func $load (drop (i32.load (i32.const -1)))))"#);
    let error = error_of(&Wizer::new(), &wasm);
    assert_eq!(error.code(), "ERR_WIZER_TRAP");
    assert_eq!(error.to_string(), "the `wizer.initialize` function trapped");
    let trap = trap(error);
    assert_eq!(
        trap.reason.to_string(),
        "wasm trap: out of bounds memory access"
    );
    let load = places(&wasm, |op| matches!(op, Operator::I32Load { .. }))[0];
    let call = places(&wasm, |op| matches!(op, Operator::Call { .. }))[0];
    assert_eq!(
        trap.backtrace(),
        format!(
            "error while executing at wasm backtrace:\
             \n    0: {load:#8x} - <unknown>!load\
             \n    1: {call:#8x} - <unknown>!<wasm function 0>"
        )
    );
}

#[test]
fn traps_of_every_kind() {
    let module = |body: &str| {
        format!(
            r#"(module (memory 1) (table 1 funcref) (type $t (func))
            (func $deep (call $deep))
            (func (export "wizer.initialize") {body}))"#
        )
    };
    for (body, text) in [
        ("(unreachable)", "wasm `unreachable` instruction executed"),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "integer divide by zero",
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            "integer overflow",
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            "invalid conversion to integer",
        ),
        (
            "(call_indirect (type $t) (i32.const 0))",
            "uninitialized element",
        ),
        (
            "(call_indirect (type $t) (i32.const 7))",
            "undefined element",
        ),
        (
            "(memory.fill (i32.const 0) (i32.const 0) (i32.const 65537))",
            "out of bounds memory",
        ),
        ("(call $deep)", "call stack exhausted"),
    ] {
        let text = ["the `wizer.initialize` function trapped", text];
        assert_error(&error(&module(body)), "ERR_WIZER_TRAP", &text);
    }
}

#[test]
fn which_function_trapped() {
    let trap_of = |module: &str| trap(error(module)).function;
    let start = r#"(module (func $s (unreachable)) (start $s) (func (export "wizer.initialize")))"#;
    assert_eq!(trap_of(start).as_deref(), Some("start"));
    let reactor = r#"(module (func (export "_initialize") (unreachable))
        (func (export "wizer.initialize")))"#;
    assert_eq!(trap_of(reactor).as_deref(), Some("_initialize"));
    let segment = r#"(module (memory 1) (data (i32.const 65536) "x")
        (func (export "wizer.initialize")))"#;
    assert_eq!(trap_of(segment), None);
    assert_error(
        &error(segment),
        "ERR_WIZER_TRAP",
        &["instantiation", "out of bounds memory"],
    );
    let elements = r#"(module (table 1 funcref) (elem (i32.const 1) $f)
        (func $f (export "wizer.initialize")))"#;
    assert_error(
        &error(elements),
        "ERR_WIZER_TRAP",
        &["instantiation", "out of bounds table"],
    );
    let thrown = r#"(module (tag $t) (func (export "wizer.initialize") (throw $t)))"#;
    assert_error(&error(thrown), "ERR_WIZER_TRAP", &["exception"]);
}

/// Frames of a preloaded module point into its own bytes.
#[test]
fn a_trap_in_a_preloaded_module() {
    for state in STATES {
        let preload = wat(&format!(
            r#"(module $library {state}
            (func $init)
            (func $fail (export "fail") nop (unreachable)))"#
        ));
        let main = wat(r#"(module $program
            (import "lib" "fail" (func $fail))
            (memory 1) (data $d "x")
            (func $init (export "wizer.initialize") (data.drop $d) (call $fail)))"#);
        let mut wizer = Wizer::new();
        let trap = trap(error_of(wizer.preload_bytes("lib", preload.clone()), &main));
        let names: Vec<_> = trap
            .frames
            .iter()
            .map(|f| f.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, ["fail", "init"]);
        let unreachable = places(&preload, |op| matches!(op, Operator::Unreachable))[0];
        let call = places(&main, |op| matches!(op, Operator::Call { .. }))[0];
        assert_eq!(
            places_of_frames(&trap.frames),
            [unreachable, call],
            "{state}"
        );
    }
}

// ----- imports -----

#[test]
fn a_call_of_an_import_that_nobody_provides() {
    let text = r#"(module
        (import "env" "missing" (func $missing))
        (func $init (export "wizer.initialize") (call $missing)))"#;
    let error = error(text);
    let texts = [
        "the `wizer.initialize` function trapped",
        "unknown import: `env::missing` has not been defined",
        "preloaded module",
    ];
    assert_error(&error, "ERR_WIZER_IMPORT_MISSING", &texts);
    let trap = trap(error);
    assert_eq!(trap.frames.len(), 1);
    assert_eq!(trap.frames[0].name.as_deref(), Some("init"));
    match trap.reason {
        TrapReason::ImportMissing { module, name, .. } => {
            assert_eq!((module.as_str(), name.as_str()), ("env", "missing"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_call_of_wasi_that_was_not_allowed() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1)
        (func (export "wizer.initialize") (drop (call $yield))))"#;
    let texts = [
        "`wasi_snapshot_preview1::sched_yield`",
        "--allow-wasi (allowWasi in JavaScript)",
    ];
    assert_error(&error(text), "ERR_WIZER_IMPORT_MISSING", &texts);
    Wizer::new()
        .allow_wasi(true)
        .unwrap()
        .inherit_stdio(false)
        .run(text.as_bytes())
        .unwrap();
}

#[test]
fn a_function_of_wasi_with_another_type() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (param i64)))
        (memory (export "memory") 1)
        (func (export "wizer.initialize") (call $yield (i64.const 1)))
        (func (export "leave it")))"#;
    let mut wizer = Wizer::new();
    wizer.allow_wasi(true).unwrap().inherit_stdio(false);
    let texts = ["(i64) -> ()", "not its type in WASI"];
    assert_error(
        &error_of(&wizer, text.as_bytes()),
        "ERR_WIZER_IMPORT_MISSING",
        &texts,
    );
    wizer.init_func("leave it").run(text.as_bytes()).unwrap();
}

#[test]
fn any_exit_is_an_error() {
    for status in [0, 1, 42, -1] {
        let text = format!(
            r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func $init (export "wizer.initialize") (call $exit (i32.const {status}))))"#
        );
        let mut wizer = Wizer::new();
        wizer.allow_wasi(true).unwrap().inherit_stdio(false);
        let error = error_of(&wizer, text.as_bytes());
        let exit = format!("Exited with i32 exit status {status}");
        let texts = ["the `wizer.initialize` function trapped", exit.as_str()];
        assert_error(&error, "ERR_WIZER_EXIT", &texts);
        assert!(matches!(trap(error).reason, TrapReason::Exit(found) if found == status));
    }
}

#[test]
fn imports_that_are_no_functions_must_be_provided() {
    for (import, kind) in [
        ("(memory 1)", "memory"),
        ("(table 1 funcref)", "table"),
        ("(global i32)", "global"),
        ("(global (mut i64))", "global"),
        ("(tag (param i32))", "tag"),
    ] {
        let text =
            format!(r#"(module (import "env" "it" {import}) (func (export "wizer.initialize")))"#);
        let imports = format!("imports the {kind} `env::it`, and nothing provides it");
        let texts = [imports.as_str(), "preloaded module"];
        assert_error(&error(&text), "ERR_WIZER_IMPORT_MISSING", &texts);
    }
}

#[test]
fn imports_that_do_not_fit_what_is_provided() {
    let preload = r#"(module
        (func (export "function") (param i32) (result i64) (i64.const 0))
        (memory (export "memory") 1 2)
        (table (export "table") 1 funcref)
        (global (export "global") i32 (i32.const 0)))"#;
    for import in [
        r#""function" (func (param i64))"#,
        r#""function" (memory 1)"#,
        r#""memory" (func)"#,
        r#""memory" (global i32)"#,
        r#""memory" (memory 2)"#,
        r#""memory" (memory 1 1)"#,
        r#""memory" (memory i64 1)"#,
        r#""table" (table 2 funcref)"#,
        r#""table" (table 1 externref)"#,
        r#""global" (global i64)"#,
        r#""global" (global (mut i32))"#,
    ] {
        let text =
            format!(r#"(module (import "env" {import}) (func (export "wizer.initialize")))"#);
        let mut wizer = Wizer::new();
        wizer.preload_bytes("env", preload);
        let (name, _) = import[1..].split_once('"').unwrap();
        let name = format!("the import `env::{name}` does not fit");
        assert_error(
            &error_of(&wizer, text.as_bytes()),
            "ERR_WIZER_IMPORT_TYPE",
            &[&name],
        );
    }
}

#[test]
fn a_provided_function_that_fails() {
    let text = r#"(module
        (import "host" "fail" (func $fail (param i32) (result i32)))
        (func $init (export "wizer.initialize") (drop (call $fail (i32.const 7)))))"#;
    let mut wizer = Wizer::new();
    wizer
        .make_linker(Some(Rc::new(|engine| {
            let mut linker = Linker::new(engine);
            linker.func_wrap("host", "fail", |n: i32| -> wizer::wasmtime::Result<i32> {
                Err(wizer::wasmtime::Error::msg(format!("no {n} today")))
            })?;
            Ok(linker)
        })))
        .unwrap();
    let with_linker = error_of(&wizer, text.as_bytes());
    let mut wizer = Wizer::new();
    wizer.import("host", "fail", |_, args| {
        Err(format!("no {args:?} today").into())
    });
    let with_function = error_of(&wizer, text.as_bytes());
    for (error, text) in [
        (with_linker, "no 7 today"),
        (with_function, "no [I32(7)] today"),
    ] {
        let texts = ["the `wizer.initialize` function trapped", text];
        assert_error(&error, "ERR_WIZER_IMPORT_FAILED", &texts);
        assert_eq!(trap(error).frames[0].name.as_deref(), Some("init"));
    }
}

#[test]
fn a_provided_function_that_returns_something_else() {
    let text = r#"(module
        (import "host" "f" (func $f (result i32)))
        (func (export "wizer.initialize") (drop (call $f))))"#;
    for values in [vec![], vec![1i64.into()], vec![1i32.into(), 2i32.into()]] {
        let mut wizer = Wizer::new();
        wizer.import("host", "f", move |_, _| Ok(values.clone()));
        let error = error_of(&wizer, text.as_bytes());
        assert_error(&error, "ERR_WIZER_IMPORT_FAILED", &["trapped"]);
    }
}

#[test]
fn a_linker_that_cannot_be_made() {
    let mut wizer = Wizer::new();
    wizer
        .make_linker(Some(Rc::new(|_| {
            Err(wizer::wasmtime::Error::msg("out of luck"))
        })))
        .unwrap();
    let error = error_of(&wizer, br#"(module (func (export "wizer.initialize")))"#);
    assert_error(
        &error,
        "ERR_WIZER_OPTION",
        &["custom linker", "out of luck"],
    );
}

// ----- options -----

#[test]
fn renames_that_share_a_name() {
    let wasm = wat(r#"(module
        (func (export "wizer.initialize")) (func (export "a")) (func (export "b")))"#);
    let code = "ERR_WIZER_DUPLICATE_RENAME";
    let mut wizer = Wizer::new();
    wizer.func_rename("x", "a").func_rename("x", "b");
    assert_error(
        &error_of(&wizer, &wasm),
        code,
        &["duplicated function rename destination `x`"],
    );
    let mut wizer = Wizer::new();
    wizer.func_rename("x", "a").func_rename("y", "a");
    assert_error(
        &error_of(&wizer, &wasm),
        code,
        &["duplicated function rename source `a`"],
    );
    // Overwriting an export is none.
    let setup = Setup {
        renames: vec![("b".into(), "a".into())],
        ..Setup::default()
    };
    initialize_and_judge("overwriting", &wasm, &setup);
}

#[test]
fn two_preloaded_modules_of_one_name() {
    let mut wizer = Wizer::new();
    let library = r#"(module (func (export "f")))"#;
    wizer
        .preload_bytes("lib", library)
        .preload_bytes("lib", library);
    let error = error_of(&wizer, br#"(module (func (export "wizer.initialize")))"#);
    assert_error(&error, "ERR_WIZER_OPTION", &["`lib`"]);
}

#[test]
fn files_and_directories_that_are_not_there() {
    let text = br#"(module (func (export "wizer.initialize")))"#;
    let missing = fixtures::directory().join("missing");
    let mut wizer = Wizer::new();
    let error = error_of(wizer.preload("env", missing.join("module.wasm")), text);
    assert_error(
        &error,
        "ERR_WIZER_IO",
        &["open the preloaded module", "module.wasm"],
    );

    let allow = || {
        let mut wizer = Wizer::new();
        wizer.allow_wasi(true).unwrap().inherit_stdio(false);
        wizer
    };
    for wizer in [
        allow().dir(&missing),
        allow().map_dir("/data", &missing),
        allow().map_dir_readonly("/data", &missing),
    ] {
        assert_error(
            &error_of(wizer, text),
            "ERR_WIZER_IO",
            &["open the directory", "missing"],
        );
    }
    let file = fixtures::directory().join("nothing-to-do.wat");
    let error = error_of(allow().map_dir("/data", file), text);
    assert_error(
        &error,
        "ERR_WIZER_IO",
        &["open the directory", "nothing-to-do.wat"],
    );
}

#[test]
fn an_environment_that_makes_no_sense() {
    let text = br#"(module (func (export "wizer.initialize")))"#;
    for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "x\0")] {
        let mut wizer = Wizer::new();
        let wizer = wizer
            .allow_wasi(true)
            .unwrap()
            .inherit_stdio(false)
            .env(name, value);
        assert_error(
            &error_of(wizer, text),
            "ERR_WIZER_OPTION",
            &["environment variable"],
        );
    }
}

#[test]
fn a_compiler_that_cannot_compile_the_module() {
    let refused = |f: &&Fixture| f.setup.refused_by.contains(&Engine::Baseline);
    for fixture in fixtures::all().iter().filter(refused) {
        let error = error_of(
            fixture.setup.wizer().engine(Engine::Baseline),
            &fixture.wasm,
        );
        assert_error(
            &error,
            "ERR_WIZER_UNSUPPORTED",
            &["no engine can run this module here"],
        );
    }
}

// ----- limits -----

#[test]
fn references_that_winch_does_not_compile() {
    let text = r#"(module (table 1 externref) (func (export "wizer.initialize")))"#;
    let error = error_of(Wizer::new().engine(Engine::Baseline), text.as_bytes());
    let texts = ["no references but those of functions"];
    assert_error(&error, "ERR_WIZER_UNSUPPORTED", &texts);
    assert!(!chain(&error).contains("gc"), "{}", chain(&error));
}

/// A table that is declared is not one that grows while the interpreter's steps are counted.
#[test]
fn a_large_table_is_interpreted() {
    let text = r#"(module
        (table (export "t") 47_926 funcref) (elem (i32.const 0) $f)
        (func $f (export "wizer.initialize") (table.set 0 (i32.const 47_925) (ref.func $f))))"#;
    let limit = Duration::from_secs(60);
    let plain = Wizer::new().engine(Engine::Optimizing).run(text.as_bytes());
    let mut wizer = Wizer::new();
    wizer.timeout(limit).engine(Engine::Interpreter);
    assert_eq!(wizer.run(text.as_bytes()).unwrap(), plain.unwrap());
    let report = Wizer::new().timeout(limit).snapshot(text.as_bytes());
    assert_eq!(report.unwrap().report.engine.name, "wasmi");
}

// ----- WASI -----

#[test]
fn what_cannot_be_given_to_a_program() {
    let text = r#"(module (func (export "wizer.initialize")))"#;
    let error = |set: &dyn Fn(&mut Wizer)| {
        let mut wizer = Wizer::new();
        wizer.allow_wasi(true).unwrap();
        set(&mut wizer);
        error_of(&wizer, text.as_bytes())
    };
    let nul = error(&|wizer| {
        wizer.arg("program").arg("a\0b");
    });
    assert_error(&nul, "ERR_WIZER_OPTION", &["\"a\\0b\"", "NUL"]);
    for path in ["", ".", "/", "./", "a/", "/a/b/", "a\0b"] {
        let error = error(&|wizer| {
            wizer.file(path, "");
        });
        let shown = format!("{path:?}");
        assert_error(&error, "ERR_WIZER_OPTION", &[&shown, "path of a file"]);
    }
    for (one, other) in [
        ("a", "./a"),
        ("/a", "//a"),
        ("a", "a/b"),
        ("a", "./a/b/c"),
        ("./a/b", "a"),
    ] {
        let error = error(&|wizer| {
            wizer.file(one, "1").file(other, "2");
        });
        let texts = [one, other, "cannot both be files"];
        assert_error(&error, "ERR_WIZER_OPTION", &texts);
    }
    let mut wizer = Wizer::new();
    wizer.allow_wasi(true).unwrap();
    for path in ["a", "/a", "a-b", "ab/c", "./d/e"] {
        wizer.file(path, "");
    }
    wizer.run(text.as_bytes()).unwrap();
}

#[test]
fn a_memory_beyond_the_limit() {
    let declared = r#"(module (memory 3) (func (export "wizer.initialize")))"#;
    let grown = r#"(module (memory 1)
        (func (export "wizer.initialize") (drop (memory.grow (i32.const 2)))))"#;
    let together = r#"(module (memory 1) (memory 2) (func (export "wizer.initialize")))"#;
    let table = r#"(module (table 100_000 funcref) (func (export "wizer.initialize")))"#;
    for (text, what) in [
        (declared, "with a memory of 196608 bytes"),
        (grown, "with a memory of 196608 bytes"),
        (together, "with a memory of 131072 bytes"),
        (table, "with a table of 100000 slots"),
    ] {
        let mut wizer = Wizer::new();
        wizer.max_memory(2 << 16);
        let texts = [what, "beyond the limit of 131072 bytes"];
        assert_error(
            &error_of(&wizer, text.as_bytes()),
            "ERR_WIZER_MEMORY_LIMIT",
            &texts,
        );
        wizer.max_memory(20 << 16).run(text.as_bytes()).unwrap();
    }
}

/// Objects of the collected heap are memory too.
#[test]
fn objects_beyond_the_limit() {
    let text = r#"(module
        (type $array (array (mut i64)))
        (func (export "wizer.initialize")
          (drop (array.new_default $array (i32.const 1_000_000)))))"#;
    let mut wizer = Wizer::new();
    wizer.max_memory(1 << 20);
    let texts = ["beyond the limit of 1048576 bytes"];
    assert_error(
        &error_of(&wizer, text.as_bytes()),
        "ERR_WIZER_MEMORY_LIMIT",
        &texts,
    );
    wizer.max_memory(64 << 20).run(text.as_bytes()).unwrap();
}

/// A module that asks for more than it declares as its own limit gets `-1`, as always.
#[test]
fn a_limit_of_the_module_s_own_is_no_error() {
    let wasm = wat(r#"(module
        (memory (export "memory") 1 2)
        (global $result (export "result") (mut i32) (i32.const 0))
        (func (export "wizer.initialize")
          (global.set $result (memory.grow (i32.const 5)))))"#);
    initialize_and_judge("its own limit", &wasm, &Setup::default());
    Wizer::new().max_memory(2 << 16).run(&wasm).unwrap();
}

/// Engines accept modules of up to 1 GiB.
#[test]
fn an_output_that_would_be_too_large() {
    let text = r#"(module
        (memory 16384)
        (func (export "wizer.initialize")
          (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000_0000))))"#;
    let texts = ["engines accept modules of up to 1073741824 bytes"];
    assert_error(&error(text), "ERR_WIZER_OUTPUT_TOO_LARGE", &texts);
}

const ENDLESS: &str = r#"(module (func (export "wizer.initialize") (loop (br 0))))"#;

#[test]
fn a_timeout() {
    let limit = Duration::from_millis(10);
    let endless = [
        ENDLESS,
        r#"(module (func $s (loop (br 0))) (start $s) (func (export "wizer.initialize")))"#,
        r#"(module (func (export "_initialize") (loop (br 0)))
           (func (export "wizer.initialize")))"#,
    ];
    for text in endless {
        for engine in [Engine::Baseline, Engine::Optimizing] {
            let mut wizer = Wizer::new();
            let error = error_of(wizer.timeout(limit).engine(engine), text.as_bytes());
            assert_error(
                &error,
                "ERR_WIZER_TIMEOUT",
                &["within 10 ms", "raise the timeout"],
            );
            assert!(matches!(error, Error::Timeout { limit: found } if found == limit));
        }
    }
}

/// An interpreter that counts its steps counts large copies as more than one, and lets memories and
/// tables grow.
#[test]
fn an_interpreter_with_a_timeout() {
    let module = |init: &str| {
        format!(
            r#"(module (memory 512 600) (table $t 1 funcref)
              (func (export "wizer.initialize") {init}))"#
        )
    };
    let run = |init: &str, limit| {
        let mut wizer = Wizer::new();
        wizer.engine(Engine::Interpreter).timeout(limit);
        wizer.run(module(init).as_bytes())
    };
    let grows = "
        (drop (table.grow $t (ref.null func) (i32.const 10000)))
        (table.fill $t (i32.const 0) (ref.null func) (i32.const 10001))
        (drop (memory.grow (i32.const 80)))
        (memory.copy (i32.const 0) (i32.const 16000000) (i32.const 16000000))";
    run(grows, Duration::from_secs(600)).unwrap();
    let endless = "(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 33554432)) (br 0))";
    let error = run(endless, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn a_timeout_serves_for_every_run() {
    let mut wizer = Wizer::new();
    wizer
        .timeout(Duration::from_millis(10))
        .interrupt(Arc::new(Interrupt::default()));
    for _ in 0..2 {
        assert_eq!(
            error_of(&wizer, ENDLESS.as_bytes()).code(),
            "ERR_WIZER_TIMEOUT"
        );
    }
    wizer.timeout(Duration::from_secs(3600));
    wizer
        .run(br#"(module (func (export "wizer.initialize")))"#)
        .unwrap();
}

#[test]
fn a_run_that_is_cancelled() {
    let before = Arc::new(Interrupt::default());
    before.abort();
    let mut wizer = Wizer::new();
    wizer.interrupt(before);
    let error = error_of(&wizer, ENDLESS.as_bytes());
    assert_error(&error, "ERR_WIZER_ABORTED", &["cancelled"]);
    // Also where nothing would run for long.
    let short = br#"(module (func (export "wizer.initialize")))"#;
    assert_eq!(error_of(&wizer, short).code(), "ERR_WIZER_ABORTED");

    for engine in [Engine::Baseline, Engine::Optimizing] {
        let during = Arc::new(Interrupt::default());
        let mut wizer = Wizer::new();
        let abort = Arc::clone(&during);
        let text = r#"(module (import "host" "begun" (func $begun))
            (func (export "wizer.initialize") (call $begun) (loop (br 0))))"#;
        wizer
            .engine(engine)
            .interrupt(during)
            .import("host", "begun", move |_, _| {
                let abort = Arc::clone(&abort);
                std::thread::spawn(move || abort.abort());
                Ok(vec![])
            });
        assert_eq!(
            error_of(&wizer, text.as_bytes()).code(),
            "ERR_WIZER_ABORTED"
        );
    }
}

/// After a run that failed, the same `Wizer` is as good as new.
#[test]
fn a_failed_run_leaves_nothing_behind() {
    let fixture = fixtures::named("data-passive-dropped");
    let wizer = fixture.setup.wizer();
    let before = wizer.run(&fixture.wasm).unwrap();
    error_of(&wizer, b"junk");
    error_of(
        &wizer,
        br#"(module (func (export "wizer.initialize") (unreachable)))"#,
    );
    assert!(wizer.run(&fixture.wasm).unwrap() == before);
}
