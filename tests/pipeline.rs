//! From a module to the initialized module: every fixture, judged by wasmtime, and the bytes of
//! the output. How failures are told is in `errors.rs`.

mod common;

use common::fixtures::{self, Fixture, Setup};
use common::judge::{Ended, Judge, Seen, assert_same};
use common::{chain, initialize_and_judge, structure};
use wizer::{Engine, Error, KeepInitFunc, Outcome, Value, Wizer};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn snapshot(fixture: &Fixture) -> Outcome {
    let result = fixture.setup.wizer().snapshot(&fixture.wasm);
    result.unwrap_or_else(|error| panic!("{}: {}", fixture.name, chain(&error)))
}

#[test]
fn every_fixture_becomes_what_its_initialization_makes_of_it() {
    fixtures::each(|Fixture { name, wasm, setup }| {
        initialize_and_judge(name, wasm, setup);
    });
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    fixtures::each(|fixture| {
        let [first, second] = [(); 2].map(|()| snapshot(fixture).wasm);
        assert!(first == second, "{}", fixture.name);
    });
}

#[test]
fn text_and_binary_give_the_same_bytes() {
    fixtures::each(|fixture| {
        let text = fixtures::directory().join(format!("{}.wat", fixture.name));
        let from_text = fixture.setup.wizer().run(&std::fs::read(text).unwrap());
        assert!(
            from_text.unwrap() == snapshot(fixture).wasm,
            "{}",
            fixture.name
        );
    });
}

#[test]
fn all_engines_give_the_same_bytes() {
    fixtures::each(|Fixture { name, wasm, setup }| {
        let run = |engine| setup.wizer().engine(engine).snapshot(wasm);
        let auto = run(Engine::Auto).unwrap();
        for (engine, runs_on) in [
            (Engine::Interpreter, "wasmi"),
            (Engine::Baseline, "wasmtime (Winch)"),
            (Engine::Optimizing, "wasmtime (Cranelift)"),
        ] {
            let refused = setup.refused_by.contains(&engine);
            match run(engine) {
                Ok(outcome) => {
                    assert!(!refused, "{name}: {runs_on} can run it");
                    assert_eq!(outcome.report.engine.name, runs_on);
                    assert_eq!(outcome.report.engine.reason, "asked for");
                    assert!(outcome.wasm == auto.wasm, "{name}: {runs_on}");
                }
                Err(error @ Error::Unsupported { .. }) => {
                    assert!(refused, "{name}: {runs_on}: {}", chain(&error));
                }
                Err(error) => panic!("{name}: {runs_on}: {}", chain(&error)),
            }
        }
        // No fixture does what cannot be done twice.
        let interpreted = auto.report.engine.name == "wasmi";
        assert_eq!(
            interpreted,
            !setup.refused_by.contains(&Engine::Interpreter),
            "{name}"
        );
    });
}

/// With the initialization function kept, an output is an input again.
#[test]
fn an_output_can_be_initialized_once_more() {
    fixtures::each(|Fixture { name, wasm, setup }| {
        let keep = Setup {
            keep_init_func: KeepInitFunc::Yes,
            renames: Vec::new(),
            ..setup.clone()
        };
        let once = keep.wizer().run(wasm).unwrap();
        let twice = keep.wizer().snapshot(&once);

        let judge = Judge::new(&keep.preloads);
        let mut original = judge.initialized(wasm, &keep).unwrap();
        let init = keep.initializers(&original.callable()).pop().unwrap();
        match (original.call(&init), twice) {
            (Ended::Returned(_), Ok(twice)) => {
                structure::check(name, &once, &twice, &keep);
                let output = judge.instantiate(&twice.wasm).unwrap();
                assert_same(&format!("{name}, twice"), original, output, &keep);
            }
            // It uses a segment that it has dropped.
            (Ended::Trapped(_), Err(Error::Trap(_))) => {}
            (ended, Ok(_)) => panic!("{name}: {ended:?}"),
            (_, Err(error)) => panic!("{name}: {}", chain(&error)),
        }
    });
}

/// The JavaScript tests read these. After a change of a fixture, run this test once with
/// `UPDATE_FIXTURES=1` in the environment.
#[test]
fn the_fixtures_in_the_binary_format_are_up_to_date() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let binary = fixtures::directory().join("binary");
    let mut expected = Vec::new();
    for folder in ["", "preload"] {
        for text in fixtures::text_files(&fixtures::directory().join(folder)) {
            let file = binary
                .join(folder)
                .join(text.with_extension("wasm").file_name().unwrap());
            let wasm = wat::parse_file(&text).unwrap();
            if update {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, &wasm).unwrap();
            }
            let found = std::fs::read(&file).unwrap_or_default();
            assert!(
                found == wasm,
                "{} is not {}",
                file.display(),
                text.display()
            );
            expected.push(file);
        }
    }
    for folder in ["", "preload"] {
        for entry in std::fs::read_dir(binary.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_left_over = path.is_file() && !expected.contains(&path);
            assert!(!is_left_over, "{} belongs to no fixture", path.display());
        }
    }
}

// ----- what single fixtures are there to show -----

/// The value that an exported function of the output returns first.
fn first_result(wasm: &[u8], setup: &Setup, function: &str) -> Seen {
    let mut output = Judge::new(&setup.preloads).instantiate(wasm).unwrap();
    match output.call(function) {
        Ended::Returned(mut values) => values.swap_remove(0),
        Ended::Trapped(why) => panic!("{function}: {why}"),
    }
}

#[test]
fn start_function_and_reactor_run_exactly_once() {
    for (name, function) in [
        ("start-once", "counts"),
        ("initialize-once", "counts"),
        ("initialize-is-init", "count"),
    ] {
        let fixture = fixtures::named(name);
        let count = first_result(&snapshot(&fixture).wasm, &fixture.setup, function);
        assert_eq!(count, Seen::Number("i32", 1), "{name}");
    }
}

#[test]
fn start_function_reactor_and_initialization_run_in_this_order() {
    let fixture = fixtures::named("start-initialize-init");
    let output = snapshot(&fixture).wasm;
    let mut running = Judge::new(&[]).instantiate(&output).unwrap();
    assert!(running.names() == ["length", "log", "run"]);
    assert_eq!(running.memory("log")[..4], [1, 2, 3, 0]);
}

#[test]
fn an_initialization_that_does_nothing_leaves_the_module_as_it_is() {
    let fixture = fixtures::named("nothing-to-do");
    let with_its_export_removed = wat(r#"(module
        (memory (export "memory") 1)
        (data (i32.const 1024) "data")
        (func)
        (func (export "load") (result i32) (i32.load (i32.const 1024))))"#);
    let expected = structure::sections(&with_its_export_removed);
    let outcome = snapshot(&fixture);
    // The text gives function 0 the type 0, in whatever order the types come.
    assert_eq!(structure::sections(&outcome.wasm).all, expected.all);
}

#[test]
fn a_memory_that_was_cleared_needs_no_data_section() {
    let outcome = snapshot(&fixtures::named("memory-cleared"));
    assert!(structure::sections(&outcome.wasm).data.is_empty());
    assert_eq!(outcome.report.memories[0].segments, 0);
    assert!(outcome.report.output_bytes < outcome.report.input_bytes);
}

#[test]
fn active_segments_are_not_kept_as_empty_ones_where_nothing_names_them() {
    let active: String = (0..100)
        .map(|i| format!("(data (i32.const {i}) \"x\")"))
        .collect();
    let wasm = wat(&format!(
        "(module (memory (export \"memory\") 1) {active} (func (export \"wizer.initialize\")))"
    ));
    let output = initialize_and_judge("many segments", &wasm, &Setup::default());
    assert_eq!(structure::sections(&output).data, [(false, 100)]);
}

#[test]
fn segments_keep_their_indices_where_instructions_name_them() {
    let outcome = snapshot(&fixtures::named("data-active-named-by-instructions"));
    // The memory needs one segment, which takes the place of the first active one.
    let segments = structure::sections(&outcome.wasm).data;
    assert_eq!(segments, [(false, 1), (true, 7), (true, 0), (true, 0)]);

    let outcome = snapshot(&fixtures::named("data-more-segments-than-before"));
    let segments = structure::sections(&outcome.wasm).data;
    assert_eq!(segments[1], (true, 7));
    assert_eq!(segments.len(), 5);
}

#[test]
fn dropped_segments_take_no_room() {
    let outcome = snapshot(&fixtures::named("data-passive-dropped"));
    let passive: Vec<(bool, usize)> = structure::sections(&outcome.wasm).data;
    assert_eq!(passive, [(true, 6), (true, 0), (true, 5), (false, 7)]);
}

/// A passive segment that no instruction can name, in a module that has no data count section.
#[test]
fn a_passive_segment_without_a_data_count_stays() {
    let mut wasm = wat(r#"(module (memory (export "memory") 1)
        (func (export "wizer.initialize") (i32.store8 (i32.const 9) (i32.const 1))))"#);
    // A data section of 5 bytes with 1 segment: passive, of 2 bytes.
    wasm.extend_from_slice(b"\x0b\x05\x01\x01\x02ab");
    let output = initialize_and_judge("no data count", &wasm, &Setup::default());
    let sections = structure::sections(&output);
    assert!(!sections.has_data_count);
    assert_eq!(sections.data, [(true, 2), (false, 1)]);
}

#[test]
fn names_of_segments_that_are_gone_are_gone() {
    let output = snapshot(&fixtures::named("names")).wasm;
    let names = structure::data_names(&structure::sections(&output));
    assert_eq!(names, [(2, "kept-data".to_string())]);

    let output = snapshot(&fixtures::named("names-of-active-data")).wasm;
    assert!(structure::data_names(&structure::sections(&output)).is_empty());
}

/// A module with a place in memory that its loader gives it, and a `dylink.0` section that tells of
/// exports and more; `own` are exports that Emscripten's main modules have.
fn linked_dynamically(imports: &str, own: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module
          (@dylink.0
            (mem-info (memory 16 2) (table 1 0))
            (needed "libc.so" "libm.so")
            (export-info "wizer.initialize" binding-weak)
            (export-info "old" tls)
            (export-info "stays" binding-weak)
            (import-info "env" "f" binding-weak)
            (runtime-path "/lib"))
          {imports}
          (memory (export "memory") 1)
          (func (export "wizer.initialize") (i32.store8 (i32.const 8) (i32.const 1)))
          (func (export "old")) (func (export "stays")) (func (export "new"))
          {own})"#
    ))
}

const BASE: &str = r#"(import "env" "__memory_base" (global i32))"#;

#[test]
fn what_dynamic_linkers_are_told_of_exports_stays_true() {
    use wasmparser::{Dylink0SectionReader, Dylink0Subsection as Told, SymbolFlags};
    let stack = r#"(func (export "_emscripten_stack_restore") (param i32))"#;
    // One has its place itself; the other is a main module, whose loader always gives it the same.
    for wasm in [linked_dynamically("", ""), linked_dynamically(BASE, stack)] {
        let mut wizer = Wizer::new();
        let wizer = wizer.func_rename("new", "old");
        let wizer = wizer.import_global("env", "__memory_base", Value::I32(1024));
        let outcome = wizer.snapshot(&wasm).unwrap();
        assert_eq!(outcome.report.warnings, [""; 0]);
        assert_eq!(outcome.report.dropped_sections, [""; 0]);
        let [before, after] = [&wasm, &outcome.wasm].map(|wasm| structure::sections(wasm));
        assert_eq!(
            after.all[0].1,
            Some("dylink.0"),
            "loaders want it to be the first"
        );
        let told = |contents| {
            let mut reader = wasmparser::BinaryReader::new(contents, 0);
            reader.read_string().unwrap();
            let start = reader.original_position();
            let rest = wasmparser::BinaryReader::new(&contents[start..], 0);
            let told: Result<Vec<_>, _> = Dylink0SectionReader::new(rest).collect();
            told.unwrap()
        };
        let [before, after] = [&before, &after].map(|sections| told(sections.all[0].2));
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            if let (Told::ExportInfo(_), Told::ExportInfo(exports)) = (before, after) {
                let exports: Vec<_> = exports.iter().map(|e| (e.name, e.flags)).collect();
                let (tls, weak) = (SymbolFlags::TLS, SymbolFlags::BINDING_WEAK);
                assert_eq!(exports, [("new", tls), ("stays", weak)]);
            } else {
                assert_eq!(format!("{before:?}"), format!("{after:?}"));
            }
        }
    }
}

#[test]
fn a_library_that_is_initialized_for_one_place_is_none_any_more() {
    let wasm = linked_dynamically(BASE, "");
    let mut wizer = Wizer::new();
    let wizer = wizer.import_global("env", "__memory_base", Value::I32(4096));
    let report = wizer.snapshot(&wasm).unwrap().report;
    assert_eq!(report.dropped_sections, ["dylink.0"]);
    let [warning] = &report.warnings[..] else {
        panic!("{:?}", report.warnings);
    };
    assert!(warning.contains("`dylink.0` was left out"), "{warning}");
    assert_eq!(report.assumed_globals, ["env::__memory_base"]);
}

/// As a dynamic loader does: pointers are put right, then the constructors run.
#[test]
fn relocations_that_were_applied_are_not_applied_again() {
    let wasm = wat(r#"(module
          (memory (export "memory") 1)
          (func (export "__wasm_apply_data_relocs") (i32.store (i32.const 0) (i32.const 1024)))
          (func (export "__wasm_call_ctors")
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 8))))
          (func (export "pointer") (result i32) (i32.load (i32.const 0))))"#);
    let mut wizer = Wizer::new();
    let wizer = wizer.init_func("__wasm_call_ctors");
    let wizer = wizer.invoke("__wasm_apply_data_relocs", &[]);
    let output = wizer
        .keep_init_func(KeepInitFunc::Empty)
        .run(&wasm)
        .unwrap();
    let mut instance = Judge::new(&[]).instantiate(&output).unwrap();
    for name in ["__wasm_apply_data_relocs", "__wasm_call_ctors"] {
        assert_eq!(instance.call(name), Ended::Returned(vec![]));
    }
    assert_eq!(
        instance.call("pointer"),
        Ended::Returned(vec![Seen::Number("i32", 1032)])
    );
}

#[test]
fn a_source_map_whose_places_moved_is_a_warning() {
    let module = |grows: &str| {
        wat(&format!(
            r#"(module (@custom "sourceMappingURL" "\05a.map")
              (memory 127 1000)
              (func (export "kept")) (func (export "wizer.initialize")
                (drop (memory.grow (i32.const {grows})))))"#
        ))
    };
    // Without the export the code begins earlier in the file, and with a longer size later.
    for (grows, shift) in [("0", 0), ("1", 1)] {
        let wasm = module(grows);
        let mut wizer = Wizer::new();
        let outcome = wizer.keep_init_func(true).snapshot(&wasm).unwrap();
        assert_eq!(outcome.report.code_shift, shift);
        let warnings = outcome.report.warnings;
        assert_eq!(warnings.len() as i64, shift, "{warnings:?}");
        assert!(
            warnings.iter().all(|w| w.contains("moved by 1 byte")),
            "{warnings:?}"
        );
    }
}

#[test]
fn only_functions_that_need_it_are_declared() {
    const ELEMENT: u8 = 9;
    let has_elements = |name: &str| {
        let output = snapshot(&fixtures::named(name)).wasm;
        let sections = structure::sections(&output).all;
        sections.iter().any(|(id, ..)| *id == ELEMENT)
    };
    assert!(has_elements("ref-func-declared-by-init"));
    assert!(!has_elements("nothing-to-do"));
}

#[test]
fn a_function_that_does_nothing_may_lengthen_the_head_of_the_code_section() {
    for (functions, moved) in [(126, 0), (127, 1), (128, 0)] {
        // One of them is the initialization function.
        let others = "(func)".repeat(functions - 1);
        let wasm = wat(&format!(
            r#"(module (func (export "wizer.initialize")) {others})"#
        ));
        let mut wizer = Wizer::new();
        let outcome = wizer.keep_init_func(KeepInitFunc::Empty).snapshot(&wasm);
        let outcome = outcome.unwrap();
        let [before, after] = [&wasm, &outcome.wasm].map(|wasm| structure::sections(wasm));
        assert_eq!(after.bodies.len(), functions + 1);
        let (old, new) = (&before.bodies[0], &after.bodies[0]);
        assert_eq!(new.start - after.code, old.start - before.code + moved);
        assert_eq!(
            outcome.report.code_shift,
            new.start as i64 - old.start as i64
        );
        let warnings = outcome.report.warnings;
        assert_eq!(warnings.len(), moved, "{warnings:?}");
        assert!(warnings.iter().all(|w| w.contains("moved by a byte")));
    }
}

#[test]
fn an_imported_initialization_function_can_be_replaced_in_a_module_without_code() {
    let setup = Setup {
        keep_init_func: KeepInitFunc::Empty,
        init_func: Some("init".into()),
        preloads: vec![("env".into(), wat(r#"(module (func (export "f")))"#))],
        ..Setup::default()
    };
    let wasm = wat(r#"(module (import "env" "f" (func $f)) (export "init" (func $f)))"#);
    initialize_and_judge("an import", &wasm, &setup);
}

#[test]
fn a_rename_of_what_is_not_exported_is_a_warning() {
    let fixture = fixtures::named("nothing-to-do");
    let outcome = Wizer::new()
        .func_rename("_start", "resume")
        .snapshot(&fixture.wasm)
        .unwrap();
    assert!(outcome.wasm == snapshot(&fixture).wasm);
    let [warning] = &outcome.report.warnings[..] else {
        panic!("{:?}", outcome.report.warnings)
    };
    assert!(
        warning.contains("`resume`") && warning.contains("`_start`"),
        "{warning}"
    );
}

#[test]
fn the_report_tells_of_memories_and_of_what_the_output_relies_on() {
    let outcome = snapshot(&fixtures::named("memory-several"));
    let memories = outcome.report.memories.iter();
    let pages: Vec<_> = memories
        .map(|m| (m.index, m.pages_before, m.pages_after))
        .collect();
    assert_eq!(pages, [(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 0, 2)]);

    let outcome = snapshot(&fixtures::named("globals-imported"));
    assert_eq!(outcome.report.assumed_globals, ["env::base", "env::big"]);

    let outcome = snapshot(&fixtures::named("memory-imported-and-own"));
    let memories = outcome.report.memories;
    assert_eq!(memories.len(), 1, "the imported one is not the output's");
    assert_eq!(memories[0].index, 1);
}

#[test]
fn the_report_tells_of_phases_and_of_calls_of_the_host() {
    use wizer::Phase::*;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let see = seen.clone();
    let text = r#"(module
        (import "host" "f" (func $f (param i32) (result i32)))
        (import "host" "never" (func $never))
        (global $n (export "n") (mut i32) (i32.const 1))
        (func $f3 (global.set $n (call $f (call $f (call $f (global.get $n))))))
        (start $f3)
        (func (export "wizer.initialize") (call $f3)))"#;
    let outcome = Wizer::new()
        .on_progress(move |phase| see.lock().unwrap().push(phase))
        .import("host", "f", |_, args| match args {
            [Value::I32(n)] => Ok(vec![(n * 2).into()]),
            _ => Err("one i32 is wanted".into()),
        })
        .snapshot(text.as_bytes())
        .unwrap();
    // The interpreter comes to the import, which must not be called twice.
    let told = [
        Parse, Instrument, Compile, Initialize, Compile, Initialize, Snapshot, Rewrite, Validate,
    ];
    assert_eq!(*seen.lock().unwrap(), told);
    let phases = [
        Parse, Instrument, Compile, Initialize, Snapshot, Rewrite, Validate,
    ];
    let reported: Vec<_> = outcome.report.phases.iter().map(|p| p.phase).collect();
    assert_eq!(reported, phases);
    let calls = outcome.report.host_calls.iter();
    let calls: Vec<_> = calls
        .map(|c| (c.module.as_str(), c.name.as_str(), c.calls))
        .collect();
    assert_eq!(calls, [("host", "f", 6)]);
    let mut output = Judge::new(&[]).instantiate(&outcome.wasm).unwrap();
    assert_eq!(output.global("n"), Seen::Number("i32", 64));
}

/// A module of which every data segment is overwritten by zeros; with an instruction that names
/// one, or with bytes that only look like it.
fn module_that_clears_its_data(names_data: bool) -> Vec<u8> {
    use wasm_encoder::*;
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0).function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("wizer.initialize", ExportKind::Func, 0);
    exports.export("memory", ExportKind::Memory, 0);
    let mut code = CodeSection::new();
    let mut clear = Function::new([]);
    let [to, value, len] = [0, 0, 65536].map(Instruction::I32Const);
    for instruction in [to, value, len, Instruction::MemoryFill(0), Instruction::End] {
        clear.instruction(&instruction);
    }
    let mut other = Function::new([]);
    match names_data {
        true => other.instruction(&Instruction::DataDrop(1)),
        // In LEB128 this number is the bytes of `memory.init`.
        false => other
            .instruction(&Instruction::I32Const(0x47c))
            .instruction(&Instruction::Drop),
    };
    other.instruction(&Instruction::End);
    code.function(&clear).function(&other);
    let mut data = DataSection::new();
    for offset in 0..3 {
        data.active(0, &ConstExpr::i32_const(offset * 100), *b"data");
    }
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&DataCountSection { count: 3 })
        .section(&code)
        .section(&data);
    module.finish()
}

#[test]
fn places_of_segments_go_where_no_instruction_names_one() {
    for (names_data, left) in [(false, 0), (true, 3)] {
        let wasm = module_that_clears_its_data(names_data);
        let output = initialize_and_judge("cleared data", &wasm, &Setup::default());
        assert_eq!(structure::sections(&output).data.len(), left);
    }
}

#[test]
fn the_output_has_no_more_segments_than_it_may() {
    let wasm = wat(r#"(module
        (memory (export "memory") 4)
        (func (export "wizer.initialize")
          (local $at i32)
          (loop $next
            (i32.store8 (local.get $at) (i32.const 1))
            (local.set $at (i32.add (local.get $at) (i32.const 1000)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 200_000))))))"#);
    for limit in [1, 2, 7, 199, 200, 1_000_000] {
        let outcome = Wizer::new().max_segments(limit).snapshot(&wasm).unwrap();
        assert_eq!(outcome.report.memories[0].segments, limit.min(200) as u64);
        let judge = Judge::new(&[]);
        judge.assert_equivalent("limited", &wasm, &outcome.wasm, &Setup::default());
    }
    let error = Wizer::new().max_segments(0).run(&wasm).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_TOO_MANY_SEGMENTS");
}

/// A page is 64 KiB, a runtime's own state is often a few MiB: every byte of a larger memory.
#[test]
fn every_byte_of_a_large_memory_is_there() {
    let wasm = wat(r#"(module
        (memory (export "memory") 64)
        (func (export "wizer.initialize")
          (local $at i32) (local $random i32)
          (local.set $random (i32.const 1))
          (loop $next
            ;; xorshift
            (local.set $random (i32.xor (local.get $random) (i32.shl (local.get $random) (i32.const 13))))
            (local.set $random (i32.xor (local.get $random) (i32.shr_u (local.get $random) (i32.const 17))))
            (local.set $random (i32.xor (local.get $random) (i32.shl (local.get $random) (i32.const 5))))
            (if (i32.eqz (i32.and (local.get $random) (i32.const 7)))
              (then (i32.store8 (local.get $at) (local.get $random))))
            (local.set $at (i32.add (local.get $at) (i32.const 3)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 0x400000))))))"#);
    let output = initialize_and_judge("a large memory", &wasm, &Setup::default());
    assert!(structure::sections(&output).data.len() > 1000);
}

/// Offsets of 2 GiB and more are negative numbers to `i32.const`, those of 4 GiB need `i64.const`.
#[test]
fn bytes_at_the_end_of_large_memories() {
    for (memory, at) in [
        ("(memory 65536)", "i32.const 0xffff_fff8"),
        ("(memory i64 65537)", "i64.const 0x1_0000_0010"),
    ] {
        // Not exported: nobody shall compare 4 GiB.
        let text = format!(
            r#"(module {memory}
            (func (export "wizer.initialize") (i64.store ({at}) (i64.const -2)))
            (func (export "load") (result i64) (i64.load ({at}))))"#
        );
        let output = initialize_and_judge(memory, &wat(&text), &Setup::default());
        assert_eq!(structure::sections(&output).data, [(false, 8)]);
    }
}

/// Engines accept 100,000 data segments.
#[test]
fn more_runs_of_bytes_than_engines_accept_segments() {
    let wasm = wat(r#"(module
        (memory (export "memory") 128)
        (func (export "wizer.initialize")
          (local $at i32)
          (loop $next
            (i32.store8 (local.get $at) (i32.const 1))
            (local.set $at (i32.add (local.get $at) (i32.const 64)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 0x800000))))))"#);
    let output = initialize_and_judge("many runs", &wasm, &Setup::default());
    assert_eq!(structure::sections(&output).data.len(), 100_000);
}

// ----- state that cannot be written -----

/// Asserts that a module cannot be initialized, because `item` is what `change` says.
fn assert_unrepresentable(setup: &Setup, text: &str, item: &str, change: &str) {
    match setup.wizer().run(text.as_bytes()) {
        Err(error @ Error::Unrepresentable { .. }) => {
            assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
            let message = error.to_string();
            let expected = format!("{item} {change}");
            assert!(message.starts_with(&expected), "{message}\n{expected}");
        }
        Err(other) => panic!("{item}: {}", chain(&other)),
        Ok(_) => panic!("{item}: the change was not noticed"),
    }
}

const OBJECT: &str = "holds an object of the garbage-collected heap";

#[test]
fn changed_tables_are_written() {
    let table = |init: &str| {
        format!(
            r#"(module
            (table $other (export "other") 1 funcref)
            (table $t (export "dispatch") 4 10 funcref)
            (elem (table $t) (i32.const 1) func $f $g)
            (elem $passive func $g $f)
            (func $f (result i32) (i32.const 1)) (func $g (result i32) (i32.const 2))
            {}
            (func (export "wizer.initialize") {init}))"#,
            calls("$t", 8)
        )
    };
    for init in [
        "(table.set $t (i32.const 0) (ref.func $f))",
        "(table.set $t (i32.const 1) (ref.func $g))",
        "(table.set $t (i32.const 2) (ref.null func))",
        "(table.fill $t (i32.const 2) (ref.func $g) (i32.const 2))",
        "(table.copy $t $t (i32.const 2) (i32.const 1) (i32.const 2))",
        "(table.init $t $passive (i32.const 1) (i32.const 0) (i32.const 2))",
        "(drop (table.grow $t (ref.null func) (i32.const 3)))",
        "(drop (table.grow $t (ref.func $g) (i32.const 3)))",
        "(table.set $other (i32.const 0) (ref.func $f))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 4))",
    ] {
        initialize_and_judge(init, &wat(&table(init)), &Setup::default());
    }
}

/// Functions that call each of the first `slots` slots of a table.
fn calls(table: &str, slots: u32) -> String {
    let call = |slot| {
        format!(
            r#"(func (export "call {slot}") (result i32)
              (call_indirect {table} (result i32) (i32.const {slot})))"#
        )
    };
    (0..slots).map(call).collect()
}

#[test]
fn changed_reference_globals_are_written() {
    let module = |ty: &str, before: &str, after: &str| {
        format!(
            r#"(module
            (type $t (func (result i32)))
            (func $f (export "f") (type $t) (i32.const 1))
            (func $g (export "g") (type $t) (i32.const 2))
            (func $own (type $t) (i32.const 3))
            (elem declare func $own)
            (table $calls 1 funcref)
            (global i32 (i32.const 0))
            (global $r (export "current") (mut {ty}) ({before}))
            (func (export "wizer.initialize") (global.set $r ({after}))))"#
        )
    };
    for (ty, before, after) in [
        ("funcref", "ref.null func", "ref.func $f"),
        ("funcref", "ref.func $f", "ref.func $g"),
        ("funcref", "ref.func $f", "ref.func $own"),
        ("funcref", "ref.func $f", "ref.null func"),
        ("(ref $t)", "ref.func $f", "ref.func $own"),
        ("(ref null $t)", "ref.func $f", "ref.null $t"),
        ("i31ref", "ref.null i31", "ref.i31 (i32.const 1)"),
        ("i31ref", "ref.i31 (i32.const 1)", "ref.i31 (i32.const -2)"),
        ("anyref", "ref.null any", "ref.i31 (i32.const 77)"),
    ] {
        let text = module(ty, before, after);
        initialize_and_judge(after, &wat(&text), &Setup::default());
    }
}

fn with_preload(file: &str) -> Setup {
    let preload = wat::parse_file(fixtures::directory().join("preload").join(file)).unwrap();
    Setup {
        preloads: vec![("env".into(), preload)],
        ..Setup::default()
    }
}

#[test]
fn changed_imports_are_written() {
    let importing = |import: &str, init: &str| {
        format!(
            r#"(module
            (import "env" "{import})
            (func $own (result i32) (i32.const 12))
            (elem declare func $own)
            (export "shared" ({} 0))
            (func (export "wizer.initialize") {init}))"#,
            import
                .split_once("\" (")
                .unwrap()
                .1
                .split_once(' ')
                .unwrap()
                .0
        )
    };
    let memory = r#"memory" (memory 1)"#;
    let table = r#"table" (table 4 funcref)"#;
    for (file, import, init) in [
        (
            "memory.wat",
            memory,
            "(i32.store8 (i32.const 77) (i32.const 1))",
        ),
        (
            "memory.wat",
            memory,
            "(i64.store (i32.const 0) (i64.const 0))",
        ),
        ("memory.wat", memory, "(drop (memory.grow (i32.const 1)))"),
        (
            "table.wat",
            table,
            "(table.set 0 (i32.const 0) (ref.null func))",
        ),
        (
            "table.wat",
            table,
            "(table.set 0 (i32.const 3) (ref.func $own))",
        ),
        (
            "table.wat",
            table,
            "(drop (table.grow 0 (ref.func $own) (i32.const 2)))",
        ),
    ] {
        let text = importing(import, init);
        let output = with_preload(file).wizer().run(text.as_bytes()).unwrap();
        let judge = Judge::new(&with_preload(file).preloads);
        // The judge provides them as large as they were.
        judge.assert_equivalent(init, &wat(&text), &output, &Setup::default());
        assert_eq!(judge.fits(&output), !init.contains("grow"), "{init}");
    }
}

#[test]
fn changed_imported_globals_are_named() {
    let text = r#"(module
        (import "env" "counter" (global (mut i32)))
        (func (export "wizer.initialize") (global.set 0 (i32.const 9))))"#;
    let setup = with_preload("globals.wat");
    // The preloaded module is looked at first, and calls the thing by its own index.
    assert_unrepresentable(&setup, text, "global 2", "(the export");

    // Where a preloaded module may change, the import is still an import.
    let mut wizer = setup.wizer();
    let error = wizer.allow_preload_changes(true).run(text.as_bytes());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("(the import `env::counter`)"), "{message}");
}

/// Growing a table in the middle of counted steps goes on behind it, not before.
#[test]
fn a_table_that_grows_grows_once() {
    let module = |slots: u32| {
        format!(
            r#"(module (global $n (export "count") (mut i32) (i32.const 0)) (table $t 1 funcref) (memory 1)
            (func $h (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
            (func (export "wizer.initialize")
              (global.set $n (call $h (global.get $n)))
              (drop (memory.grow (i32.const 1)))
              (global.set $n (i32.add (global.get $n) (i32.const 10)))
              (drop (table.grow $t (ref.null func) (i32.const {slots})))))"#
        )
    };
    for slots in [1, 1000, 16_000, 17_000, 1_000_000] {
        let wasm = wat(&module(slots));
        initialize_and_judge(&format!("{slots} slots"), &wasm, &Setup::default());
        let mut counted = Wizer::new();
        counted.engine(Engine::Interpreter);
        counted.timeout(std::time::Duration::from_secs(600));
        match counted.run(&wasm) {
            Ok(output) => assert!(output == Wizer::new().run(&wasm).unwrap(), "{slots}"),
            Err(error) => {
                assert!(slots > 16_000, "{}", chain(&error));
                assert_eq!(error.code(), "ERR_WIZER_UNSUPPORTED");
            }
        }
    }
}

/// Growth counts once for the limit, whatever was counted meanwhile.
#[test]
fn memory_that_grows_counts_once() {
    let text = r#"(module (memory 1)
        (func (export "wizer.initialize") (local $i i32)
          (loop $more
            (drop (memory.grow (i32.const 8)))
            (br_if $more (i32.lt_u
              (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20))))))"#;
    let mut wizer = Wizer::new();
    wizer.engine(Engine::Interpreter).max_memory(161 << 16);
    wizer.timeout(std::time::Duration::from_secs(600));
    wizer.run(text.as_bytes()).unwrap();
}

/// A host gives a function of each type that it is asked for under one name.
#[test]
fn functions_of_one_name_and_several_types() {
    let text = r#"(module
        (import "env" "f" (func $a))
        (import "env" "f" (func $b (param i32) (result i32)))
        (table (export "t") 1 funcref)
        (elem declare func $a $b)
        (func (export "wizer.initialize") (table.set (i32.const 0) (ref.func $b))))"#;
    for engine in [Engine::Interpreter, Engine::Optimizing] {
        let output = Wizer::new().engine(engine).run(text.as_bytes()).unwrap();
        let printed = structure::sections(&output);
        let (_, _, elements) = printed.all.iter().find(|(id, ..)| *id == 9).unwrap();
        // A segment at 0 of one function, which is the second.
        assert!(
            elements
                .windows(5)
                .any(|bytes| bytes == [0x41, 0, 0x0b, 1, 1]),
            "{elements:?}"
        );
    }
}

/// What an import says of a function may be less than what it is.
#[test]
fn imported_functions_of_narrower_types_are_named() {
    let preload = r#"(module
        (type $s (sub (func))) (type $u (sub $s (func))) (func (export "f") (type $u)))"#;
    let text = r#"(module
        (type $s (sub (func))) (type $u (sub $s (func)))
        (import "p" "f" (func $f (type $s)))
        (elem declare func $f)
        (global $g (mut (ref null $u)) (ref.null $u))
        (func (export "wizer.initialize")
          (global.set $g (ref.cast (ref $u) (ref.func $f)))))"#;
    let mut wizer = Wizer::new();
    wizer.preload_bytes("p", preload);
    let error = wizer.run(text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("wider type"), "{error}");
    // Where the import says it, it can be written.
    let exact = text.replace("(type $s)))", "(type $u)))");
    structure::validate(&wizer.run(exact.as_bytes()).unwrap()).unwrap();
    // Nor does more than is wanted matter.
    let more = exact.replace("ref null $u", "ref null $s");
    let more = more.replace("ref.null $u", "ref.null $s");
    structure::validate(&wizer.run(more.as_bytes()).unwrap()).unwrap();
    // Two types are one where they say the same.
    let text = r#"(module
        (type $a (func)) (type $b (func))
        (import "p" "f" (func $f (type $a)))
        (elem declare func $f)
        (global $g (mut (ref null $b)) (ref.null $b))
        (func (export "wizer.initialize") (global.set $g (ref.func $f))))"#;
    let mut wizer = Wizer::new();
    wizer.preload_bytes("p", r#"(module (func (export "f")))"#);
    structure::validate(&wizer.run(text.as_bytes()).unwrap()).unwrap();
}

/// Engines accept 100,000 element segments.
#[test]
fn more_runs_of_slots_than_engines_accept_segments() {
    let wasm = wat(
        r#"(module (table (export "t") 210000 funcref) (func $a (export "a"))
        (func (export "wizer.initialize") (local $i i32)
          (loop $next
            (table.set (local.get $i) (ref.func $a))
            (local.set $i (i32.add (local.get $i) (i32.const 2)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 209990))))))"#,
    );
    initialize_and_judge("many slots", &wasm, &Setup::default());
}

/// Where slots may be written, runs are joined; where only the host knows what is between them,
/// there is no room.
#[test]
fn runs_of_several_tables_are_counted_together() {
    let tables = 12;
    let table = |i| format!("(table $t{i} (export \"t{i}\") 21000 funcref)");
    let sets = |i| format!("(table.set $t{i} (local.get $i) (ref.func $a))");
    let wasm = wat(&format!(
        r#"(module {} (func $a (export "a"))
        (func (export "wizer.initialize") (local $i i32)
          (loop $next {}
            (local.set $i (i32.add (local.get $i) (i32.const 2)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 20990))))))"#,
        (0..tables).map(table).collect::<String>(),
        (0..tables).map(sets).collect::<String>(),
    ));
    let output = Wizer::new().run(&wasm).unwrap();
    structure::validate(&output).unwrap();

    let env = r#"(module (table (export "t") 210000 funcref))"#;
    let text = r#"(module (import "env" "t" (table 210000 funcref)) (func $a (export "a"))
        (func (export "wizer.initialize") (local $i i32)
          (loop $next
            (table.set (local.get $i) (ref.func $a))
            (local.set $i (i32.add (local.get $i) (i32.const 2)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 209990))))))"#;
    let mut wizer = Wizer::new();
    wizer.preload_bytes("env", env);
    let error = wizer.run(text.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
    assert!(error.to_string().contains("the import `env::t`"), "{error}");
}

/// An instruction that names the place of a segment was valid for its type.
#[test]
fn places_of_element_segments_keep_their_types() {
    for (other, segment) in [
        ("externref", "externref (ref.null extern)"),
        ("i64 10 externref", "externref (ref.null extern)"),
        ("(ref null $sig)", "(ref null $sig) (ref.func $a)"),
        ("(ref null $sig)", "(ref $sig) (ref.func $a)"),
    ] {
        let (address, size) = match other.starts_with("i64") {
            true => ("i64", ""),
            false => ("i32", "10"),
        };
        let wasm = wat(&format!(
            r#"(module
            (type $sig (func))
            (table $f (export "f") 10 funcref)
            (table $e (export "e") {size} {other})
            (elem $s0 (table $f) (i32.const 0) func $a)
            (elem $s1 (table $e) ({address}.const 0) {segment})
            (func $a (type $sig))
            (func (export "late")
              (table.init $e $s1 ({address}.const 0) (i32.const 0) (i32.const 0)))
            (func (export "later")
              (table.init $f $s0 (i32.const 0) (i32.const 0) (i32.const 0)))
            (func (export "wizer.initialize")
              (table.set $f (i32.const 5) (ref.func $a))
              (table.set $f (i32.const 7) (ref.func $a))
              (drop (table.grow $e (table.get $e ({address}.const 0)) ({address}.const 1)))))"#
        ));
        initialize_and_judge(other, &wasm, &Setup::default());
    }
}

/// The limit holds for what is left of segments as well.
#[test]
fn places_that_are_kept_count_as_segments() {
    let text = format!(
        r#"(module (memory 1) {} (data $last "last")
        (func (export "drop") (data.drop $last))
        (func (export "wizer.initialize") (i32.store8 (i32.const 9) (i32.const 1))))"#,
        (0..9)
            .map(|at| format!("(data (i32.const {at}) \"x\")"))
            .collect::<String>()
    );
    let with = |max: usize| Wizer::new().max_segments(max).run(text.as_bytes());
    assert_eq!(with(9).unwrap_err().code(), "ERR_WIZER_TOO_MANY_SEGMENTS");
    let output = with(10).unwrap();
    assert_eq!(structure::sections(&output).data.len(), 10);
}

/// A thread that found the flag set would go on while the first one is still at work.
#[test]
fn the_flag_of_a_shared_memory_is_written_last() {
    use wasmparser::{Operator as O, Parser, Payload};
    let text = r#"(module
        (import "env" "memory" (memory 1 1 shared))
        (data $initial "abc")
        (func $start
          (block (block (block
            (br_table 0 1 2
              (i32.atomic.rmw.cmpxchg (i32.const 64) (i32.const 0) (i32.const 1))))
            (memory.init $initial (i32.const 0) (i32.const 0) (i32.const 3))
            (i32.atomic.store (i32.const 64) (i32.const 2))
            (drop (memory.atomic.notify (i32.const 64) (i32.const -1)))
            (br 1))
            (drop (memory.atomic.wait32 (i32.const 64) (i32.const 1) (i64.const -1))))
          (data.drop $initial))
        (func (export "wizer.initialize")
          (i32.store8 (i32.const 62) (i32.const 1))
          (i32.store8 (i32.const 70) (i32.const 1))
          (i32.store8 (i32.const 4000) (i32.const 1)))
        (start $start))"#;
    let mut lengths = Vec::new();
    for max in 3..8 {
        let mut wizer = Wizer::new();
        wizer
            .import_memory("env", "memory", [], Some(1))
            .max_segments(max);
        let output = wizer.run(text.as_bytes()).unwrap();
        let mut written = Vec::new();
        let mut last = None;
        for payload in Parser::new(0).parse_all(&output) {
            if let Payload::CodeSectionEntry(body) = payload.unwrap() {
                last = Some(body);
            }
        }
        let operators = last.unwrap().get_operators_reader().unwrap().into_iter();
        let operators: Vec<_> = operators.map(Result::unwrap).collect();
        for window in operators.windows(4) {
            if let [
                O::I32Const { value: at },
                _,
                O::I32Const { value: len },
                O::MemoryInit { .. },
            ] = window
            {
                assert!(at + len <= 64 || *at >= 68, "{at} {len}");
                written.push((*at, *len));
            }
        }
        assert!(written.len() < max, "{written:?}");
        lengths.push(written.len());
    }
    assert_eq!(lengths, [2, 3, 4, 4, 4]);
}

/// One exception cannot be told from another, nor what is in it from what was.
#[test]
fn exceptions_of_preloaded_modules_are_named() {
    let env = |start: &str| {
        format!(
            r#"(module
        (tag $t (export "tag") (param i32))
        (table (export "table") 2 exnref)
        (global (export "global") (mut exnref) (ref.null exn))
        (global $own (mut exnref) (ref.null exn))
        (func $make (export "make") (param i32) (result exnref)
          (block $caught (result exnref)
            (try_table (catch_all_ref $caught) (throw $t (local.get 0)))
            (unreachable)))
        (func (export "set own") (global.set $own (call $make (i32.const 4))))
        (func $start {start})
        (start $start))"#
        )
    };
    for (start, import, change, item) in [
        (
            "(table.set 0 (i32.const 0) (call $make (i32.const 1)))",
            r#"(import "env" "table" (table $x 2 exnref))"#,
            "(table.set $x (i32.const 0) (call $make (i32.const 42)))",
            "slot 0 of table 0",
        ),
        (
            "(global.set 0 (call $make (i32.const 2)))",
            r#"(import "env" "global" (global $x (mut exnref)))"#,
            "(global.set $x (call $make (i32.const 42)))",
            "global 0 (the export `global`) of type exnref of the preloaded module",
        ),
        (
            "(global.set $own (call $make (i32.const 3)))",
            r#"(import "env" "set own" (func $set))"#,
            "(call $set)",
            "global 1 of type exnref of the preloaded module",
        ),
    ] {
        let text = format!(
            r#"(module {import} (import "env" "make" (func $make (param i32) (result exnref)))
            (func (export "wizer.initialize") {change}))"#
        );
        let mut wizer = Wizer::new();
        wizer.preload_bytes("env", env(start));
        let error = wizer.run(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(item), "{error}");
        assert!(
            error.contains("holds an exception that was caught"),
            "{error}"
        );
    }
}

#[test]
fn exceptions_that_are_kept_are_named() {
    for (place, keep, item) in [
        (
            r#"(global $g (export "last") (mut exnref) (ref.null exn))"#,
            "global.set $g",
            "global 0 (the export `last`) of type exnref",
        ),
        ("(table $t 2 exnref)", "call $keep", "slot 1 of table 0"),
    ] {
        let text = format!(
            r#"(module (tag $e) {place}
            {}
            (func (export "wizer.initialize")
              (block $caught (result exnref)
                (try_table (catch_all_ref $caught) (throw $e))
                (unreachable))
              ({keep})))"#,
            match keep {
                "call $keep" =>
                    "(func $keep (param exnref) (table.set $t (i32.const 1) (local.get 0)))",
                _ => "",
            }
        );
        let change = "holds an exception that was caught";
        assert_unrepresentable(&Setup::default(), &text, item, change);
    }
}

/// Objects in a passive segment of a preloaded module are state of its own.
#[test]
fn objects_of_a_preloaded_module_are_named() {
    let preload = r#"(module
        (type $s (struct (field (mut i32)))) (type $a (array (mut (ref null $s))))
        (elem $e (ref null $s) (item (struct.new $s (i32.const 0))))
        (func $o (result (ref null $s))
          (array.get $a (array.new_elem $a $e (i32.const 0) (i32.const 1)) (i32.const 0)))
        (func (export "inc")
          (struct.set $s 0 (call $o) (i32.add (i32.const 1) (struct.get $s 0 (call $o))))))"#;
    let text = r#"(module (import "p" "inc" (func $i))
        (func (export "wizer.initialize") (call $i) (call $i)))"#;
    let mut wizer = Wizer::new();
    wizer.preload_bytes("p", preload);
    let error = wizer.run(text.as_bytes()).unwrap_err();
    assert!(
        error.to_string().starts_with("element segment 0"),
        "{error}"
    );
    wizer
        .allow_preload_changes(true)
        .run(text.as_bytes())
        .unwrap();
}

/// A preloaded module without a place for references hands them out all the same.
#[test]
fn functions_of_a_preloaded_module_without_tables() {
    let preload = r#"(module
        (func $f (export "f") (result i32) (i32.const 42))
        (func (export "get") (result funcref) (ref.func $f)))"#;
    let text = r#"(module
        (import "p" "get" (func $get (result funcref)))
        (import "p" "f" (func (result i32)))
        (global $g (export "g") (mut funcref) (ref.null func))
        (func (export "wizer.initialize") (global.set $g (call $get))))"#;
    let mut outputs = Vec::new();
    for engine in [
        Engine::Auto,
        Engine::Interpreter,
        Engine::Baseline,
        Engine::Optimizing,
    ] {
        let mut wizer = Wizer::new();
        wizer.preload_bytes("p", preload).engine(engine);
        outputs.push(wizer.run(text.as_bytes()).unwrap());
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

/// `_initialize` runs once, also where the user says when.
#[test]
fn what_is_invoked_is_not_called_again() {
    let text = r#"(module (global $n (mut i32) (i32.const 0))
        (func $init (export "_initialize") (export "setup")
          (global.set $n (i32.add (global.get $n) (i32.const 1))))
        (func (export "n") (result i32) (global.get $n)))"#;
    for name in ["_initialize", "setup"] {
        let output = Wizer::new().invoke(name, &[]).run(text.as_bytes()).unwrap();
        let mut session = Wizer::new().session(&output).unwrap();
        assert_eq!(session.call("n", &[]).unwrap(), [Value::I32(1)], "{name}");
        assert!(session.function_type("_initialize").is_none());
    }
}

/// `_initialize` comes before what is invoked, also where it is named as the initialization function.
#[test]
fn a_reactor_is_initialized_before_anything_is_invoked() {
    let text = r#"(module (global $n (mut i32) (i32.const 0))
        (func $init (export "_initialize") (export "setup") (global.set $n (i32.const 10)))
        (func (export "double") (global.set $n (i32.mul (global.get $n) (i32.const 2))))
        (func (export "n") (result i32) (global.get $n)))"#;
    for name in [None, Some("_initialize"), Some("setup")] {
        let mut wizer = Wizer::new();
        if let Some(name) = name {
            wizer.init_func(name);
        }
        let output = wizer.invoke("double", &[]).run(text.as_bytes()).unwrap();
        let mut session = Wizer::new().session(&output).unwrap();
        assert_eq!(
            session.call("n", &[]).unwrap(),
            [Value::I32(20)],
            "{name:?}"
        );
    }
}

#[test]
fn objects_of_the_collected_heap_are_named() {
    let module = |declarations: &str, init: &str| {
        format!(
            r#"(module
            (type $s (struct (field $n (mut i32))))
            {declarations}
            (func (export "wizer.initialize") {init}))"#
        )
    };
    let object = "(struct.new $s (i32.const 1))";
    let cases = [
        (
            module(
                "(global $g (export \"root\") (mut (ref null $s)) (ref.null $s))",
                &format!("(global.set $g {object})"),
            ),
            "global 0 (the export `root`) of type (ref null 0)",
        ),
        (
            module(
                &format!("(global $g (ref $s) {object})"),
                "(struct.set $s $n (global.get $g) (i32.const 2))",
            ),
            "global 0 of type (ref 0)",
        ),
        (
            module(
                "(table $t 3 anyref)",
                &format!("(table.set $t (i32.const 1) {object})"),
            ),
            "slot 1 of table 0",
        ),
        (
            module(
                &format!(
                    "(table $t 3 anyref) (elem (table $t) (i32.const 2) anyref (item {object}))"
                ),
                "(table.set $t (i32.const 1) (table.get $t (i32.const 2)))",
            ),
            "slot 1 of table 0",
        ),
        (
            module(&format!("(elem anyref (item {object}))"), ""),
            "element segment 0",
        ),
    ];
    for (text, item) in cases {
        match Wizer::new().run(text.as_bytes()) {
            Err(error @ Error::Unrepresentable { .. }) => {
                let message = error.to_string();
                assert!(message.starts_with(item), "{message}\n{item}");
                assert!(
                    message.contains(OBJECT) || message.contains("objects"),
                    "{message}"
                );
            }
            Err(other) => panic!("{}", chain(&other)),
            Ok(_) => panic!("{text}: it was not noticed"),
        }
    }
}

/// From outside, an object of the heap can look like a host reference, and be changed all the
/// same.
#[test]
fn objects_behind_host_references_are_named() {
    let module = |declarations: &str, object: &str| {
        format!(
            r#"(module
            {declarations}
            (func $object (result (ref $s)) (ref.cast (ref $s) (any.convert_extern ({object}))))
            (func (export "wizer.initialize") (struct.set $s $n (call $object) (i32.const 2)))
            (func (export "n") (result i32) (struct.get $s $n (call $object))))"#
        )
    };
    let ty = "(type $s (struct (field $n (mut i32))))";
    let make = "(extern.convert_any (struct.new $s (i32.const 1)))";
    let preload = format!("(module {ty} (global (export \"g\") externref {make}))");
    let mut wrong = Vec::new();
    for (declarations, object, item) in [
        (
            format!("{ty} (global externref {make})"),
            "global.get 0",
            "global 0",
        ),
        (
            format!("{ty} (global (ref extern) {make})"),
            "global.get 0",
            "global 0",
        ),
        (
            format!("{ty} (global (mut externref) {make})"),
            "global.get 0",
            "global 0",
        ),
        (
            format!("{ty} (table 1 externref {make})"),
            "table.get (i32.const 0)",
            "slot 0 of table 0",
        ),
        (
            format!("{ty} (import \"lib\" \"g\" (global externref))"),
            "global.get 0",
            "global 0",
        ),
    ] {
        let mut wizer = Wizer::new();
        if declarations.contains("import") {
            wizer.preload_bytes("lib", &*preload);
        }
        match wizer.run(module(&declarations, object).as_bytes()) {
            Err(error @ Error::Unrepresentable { .. }) => {
                let message = error.to_string();
                assert!(
                    message.starts_with(item) && message.contains(OBJECT),
                    "{message}"
                );
            }
            Err(other) => panic!("{declarations}: {}", chain(&other)),
            Ok(_) => wrong.push(declarations),
        }
    }
    assert!(wrong.is_empty(), "the change was not noticed: {wrong:#?}");
}

/// As compilers of Kotlin make them: tables of methods as structs of functions, strings as arrays,
/// constants that refer to other constants.
#[test]
fn objects_that_cannot_change_keep_their_initializers() {
    let wasm = wat(r#"(module
        (rec
          (type $method (func (param (ref null $object)) (result i32)))
          (type $vtable (sub (struct (field (ref $method)))))
          (type $object (sub (struct (field (ref $vtable))))))
        (type $chars (array i16))
        (type $string (sub final $object (struct (field (ref $vtable)) (field (ref $chars)))))
        (func $length (type $method)
          (array.len (struct.get $string 1 (ref.cast (ref $string) (local.get 0)))))
        (global $vtable (ref $vtable) (struct.new $vtable (ref.func $length)))
        (global $chars (ref $chars)
          (array.new_fixed $chars 3 (i32.const 97) (i32.const 98) (i32.const 99)))
        (global $abc (ref $string) (struct.new $string (global.get $vtable) (global.get $chars)))
        (global $other (ref $string) (struct.new $string (global.get $vtable) (global.get $chars)))
        (global $external externref (extern.convert_any (global.get $abc)))
        (global $unchanged (mut (ref null $object)) (struct.new $string
          (global.get $vtable) (array.new_default $chars (i32.const 5))))
        (global $current (mut (ref null $object)) (ref.null $object))
        (table $filled 2 (ref $object) (struct.new $string
          (struct.new $vtable (ref.func $length)) (array.new_default $chars (i32.const 4))))
        (table $unchanged 2 (ref null $object))
        (elem (table $unchanged) (i32.const 1) (ref null $object) (item (global.get $other)))
        (table $objects 3 anyref)
        (elem $passive (ref null $string)
          (item (global.get $abc))
          (item (struct.new $string (global.get $vtable) (array.new $chars (i32.const 1) (i32.const 2)))))
        (func (export "wizer.initialize")
          (global.set $current (global.get $abc))
          (table.set $objects (i32.const 0) (global.get $other))
          (table.set $objects (i32.const 1) (ref.i31 (i32.const 7)))
          (table.set $objects (i32.const 2) (global.get $abc)))
        (func $is (param $slot i32) (param $of eqref) (result i32)
          (ref.eq (ref.cast eqref (table.get $objects (local.get $slot))) (local.get $of)))
        (func (export "0 is other") (result i32) (call $is (i32.const 0) (global.get $other)))
        (func (export "0 is abc") (result i32) (call $is (i32.const 0) (global.get $abc)))
        (func (export "2 is current") (result i32) (call $is (i32.const 2) (global.get $current)))
        (func (export "current is abc") (result i32)
          (ref.eq (global.get $current) (global.get $abc)))
        (func (export "external is abc") (result i32)
          (ref.eq (ref.cast eqref (any.convert_extern (global.get $external))) (global.get $abc)))
        (func (export "length") (result i32)
          (call_ref $method (global.get $current)
            (struct.get $vtable 0 (struct.get $object 0 (global.get $current)))))
        (func (export "unchanged") (result i32) (call $length (global.get $unchanged)))
        (func (export "of the table") (result i32)
          (ref.eq (table.get $unchanged (i32.const 1)) (global.get $other)))
        (func (export "filled") (result i32)
          (i32.add
            (call $length (table.get $filled (i32.const 0)))
            (ref.eq (table.get $filled (i32.const 0)) (table.get $filled (i32.const 1)))))
        (func (export "passive") (result i32)
          (table.init $objects $passive (i32.const 1) (i32.const 0) (i32.const 1))
          (call $is (i32.const 1) (global.get $abc))))"#);
    let output = initialize_and_judge("constants", &wasm, &Setup::default());
    let mut instance = Judge::new(&[]).instantiate(&output).unwrap();
    for (name, result) in [
        ("0 is other", 1),
        ("0 is abc", 0),
        ("2 is current", 1),
        ("current is abc", 1),
        ("external is abc", 1),
        ("length", 3),
        ("unchanged", 5),
        ("of the table", 1),
        ("filled", 5),
        ("passive", 1),
    ] {
        let expected = Ended::Returned(vec![Seen::Number("i32", result)]);
        assert_eq!(instance.call(name), expected, "{name}");
    }
    // Once more, from what is written now.
    let setup = Setup {
        keep_init_func: KeepInitFunc::Yes,
        ..Setup::default()
    };
    let once = setup.wizer().run(&wasm).unwrap();
    initialize_and_judge("constants, twice", &once, &setup);
}

/// As compilers of Dart make them: constants of which fields and elements could be set.
const CHANGEABLE: &str = r#"
    (type $bytes (array (mut i8)))
    (type $object (sub (struct (field $hash (mut i32)) (field $next (mut anyref)))))
    (type $list (array (mut anyref)))
    (type $numbers (sub final $object (struct
      (field $hash (mut i32)) (field $next (mut anyref))
      (field (mut f32)) (field (mut f64)) (field (mut i64)) (field (mut v128)) (field (mut i16))
      (field (mut funcref)) (field (mut externref)) (field (mut i31ref)))))
    (func $function)
    (elem declare func $function)
    (global $text (ref $bytes) (array.new_fixed $bytes 3
      (i32.const 97) (i32.const 255) (i32.const 99)))
    (global $numbers (ref $numbers) (struct.new $numbers
      (i32.const 0) (global.get $text)
      (f32.const nan:0x200001) (f64.const -0) (i64.const -1) (v128.const i64x2 1 2) (i32.const -1)
      (ref.func $function) (extern.convert_any (global.get $text)) (ref.i31 (i32.const -5))))
    (global $list (ref $list) (array.new_fixed $list 3
      (global.get $text) (struct.new_default $object) (global.get $numbers)))
    (global $root (mut (ref null $object)) (struct.new $object (i32.const 3) (global.get $list)))
    (table $t 2 (ref $object) (struct.new $object (i32.const 4) (struct.new_default $object)))
    (func $inner (param (ref null $object)) (result (ref $object))
      (ref.cast (ref $object) (struct.get $object $next (local.get 0))))"#;

#[test]
fn objects_that_did_not_change_keep_their_initializers() {
    let wasm = wat(&format!(
        r#"(module {CHANGEABLE}
        (global $seen (mut anyref) (ref.null any))
        (func (export "wizer.initialize")
          ;; Changed and changed back.
          (array.set $bytes (global.get $text) (i32.const 1) (i32.const 7))
          (array.set $bytes (global.get $text) (i32.const 1) (i32.const 255))
          ;; A cycle that is broken again, and an object that is let go.
          (struct.set $object $next (global.get $numbers) (global.get $numbers))
          (struct.set $object $next (global.get $numbers) (global.get $text))
          (drop (struct.new $object (i32.const 1) (global.get $list)))
          (global.set $seen (global.get $list)))
        (func (export "text") (result i32)
          (array.get_u $bytes (global.get $text) (i32.const 1)))
        (func (export "seen is list") (result i32)
          (ref.eq (ref.cast eqref (global.get $seen)) (global.get $list)))
        (func (export "root's is list") (result i32)
          (ref.eq (ref.cast eqref (struct.get $object $next (global.get $root))) (global.get $list)))
        (func (export "change") (result i32)
          (struct.set $object $hash (call $inner (table.get $t (i32.const 0))) (i32.const 9))
          (struct.get $object $hash (call $inner (table.get $t (i32.const 1))))))"#
    ));
    let output = initialize_and_judge("unchanged objects", &wasm, &Setup::default());
    let mut instance = Judge::new(&[]).instantiate(&output).unwrap();
    for (name, result) in [
        ("text", 255),
        ("seen is list", 1),
        ("root's is list", 1),
        ("change", 9),
    ] {
        let expected = Ended::Returned(vec![Seen::Number("i32", result)]);
        assert_eq!(instance.call(name), expected, "{name}");
    }
}

#[test]
fn changes_in_objects_are_named_by_their_fields() {
    let numbers = "(global.get $numbers)";
    let set = |field: u32, value: &str| format!("(struct.set $numbers {field} {numbers} {value})");
    let mut cases = vec![
        (
            "(array.set $bytes (global.get $text) (i32.const 2) (i32.const 100))".to_string(),
            "global 0 of type (ref 0)",
            "element 2".to_string(),
        ),
        (
            "(struct.set $object $hash (global.get $root) (i32.const 5))".to_string(),
            "global 3 of type (ref null 1)",
            "field 0".to_string(),
        ),
        (
            "(struct.set $object $hash (call $inner (table.get $t (i32.const 1))) (i32.const 5))"
                .to_string(),
            "slot 0 of table 0",
            "field 0 of field 1".to_string(),
        ),
        (
            "(struct.set $object $hash (ref.cast (ref $object)
               (array.get $list (global.get $list) (i32.const 1))) (i32.const 5))"
                .to_string(),
            "global 2 of type (ref 2)",
            "field 0 of element 1".to_string(),
        ),
        (
            "(array.set $list (global.get $list) (i32.const 0) (ref.null any))".to_string(),
            "global 2 of type (ref 2)",
            "element 0".to_string(),
        ),
        // One like it, but not the same.
        (
            "(array.set $list (global.get $list) (i32.const 1) (struct.new_default $object))"
                .to_string(),
            "global 2 of type (ref 2)",
            "element 1".to_string(),
        ),
    ];
    for (field, value) in [
        (0, "(i32.const 1)"),
        (1, "(ref.null any)"),
        (2, "(f32.const nan:0x200002)"),
        (3, "(f64.const 0)"),
        (4, "(i64.const 1)"),
        (5, "(v128.const i64x2 1 3)"),
        (6, "(i32.const 1)"),
        (7, "(ref.null func)"),
        (8, "(extern.convert_any (global.get $list))"),
        (9, "(ref.i31 (i32.const 5))"),
    ] {
        let item = "global 1 of type (ref 3)";
        cases.push((set(field, value), item, format!("field {field}")));
    }
    for (init, item, path) in cases {
        let text = format!(r#"(module {CHANGEABLE} (func (export "wizer.initialize") {init}))"#);
        let change = format!("{OBJECT} of which {path} was changed by the initialization");
        assert_unrepresentable(&Setup::default(), &text, item, &change);
    }
}

#[test]
fn objects_of_which_no_constant_is_known_are_named() {
    const MADE: &str = "that was not there from the start";
    const HELD: &str = "that it can get from no immutable global";
    let types = r#"(type $s (sub (struct (field i32)))) (type $a (array i32))"#;
    for (declarations, init, item, change) in [
        (
            "(global $g (mut anyref) (ref.null any))",
            "(global.set $g (struct.new $s (i32.const 1)))",
            "global 0 of type anyref",
            MADE,
        ),
        // Its object is not the value of a global that stays.
        (
            "(global $a (mut anyref) (struct.new $s (i32.const 1)))
             (global $b (mut anyref) (ref.null any))",
            "(global.set $b (global.get $a))",
            "global 1 of type anyref",
            HELD,
        ),
        // An initializer can get globals before it only.
        (
            "(global $b (mut anyref) (ref.null any))
             (global $a anyref (struct.new $s (i32.const 1)))",
            "(global.set $b (global.get $a))",
            "global 0 of type anyref",
            HELD,
        ),
        (
            "(table $t 2 anyref)
             (elem (table $t) (i32.const 0) anyref (item (struct.new $s (i32.const 1))))",
            "(table.set $t (i32.const 1) (table.get $t (i32.const 0)))",
            "slot 0 of table 0",
            HELD,
        ),
        // A place of another type than the global's.
        (
            "(global $a anyref (struct.new $s (i32.const 1))) (table $t 1 (ref null $s))",
            "(table.set $t (i32.const 0) (ref.cast (ref $s) (global.get $a)))",
            "slot 0 of table 0",
            HELD,
        ),
        (
            "(global $a externref (extern.convert_any (array.new_default $a (i32.const 1))))
             (table $t 1 eqref)",
            "(table.set $t (i32.const 0)
               (ref.cast eqref (any.convert_extern (global.get $a))))",
            "slot 0 of table 0",
            HELD,
        ),
    ] {
        let text =
            format!(r#"(module {types} {declarations} (func (export "wizer.initialize") {init}))"#);
        let change = format!("{OBJECT} {change}");
        assert_unrepresentable(&Setup::default(), &text, item, &change);
    }
}

/// Places of every type that the global's type fits.
#[test]
fn objects_are_written_where_their_types_fit() {
    for (held, made, place) in [
        ("(ref $s)", "struct.new_default $s", "(ref null $s)"),
        ("(ref $sub)", "struct.new_default $sub", "(ref null $s)"),
        ("(ref $s)", "struct.new_default $s", "structref"),
        ("(ref $s)", "struct.new_default $s", "eqref"),
        ("(ref $s)", "struct.new_default $s", "anyref"),
        ("(ref $a)", "array.new_default $a (i32.const 2)", "arrayref"),
        ("(ref $a)", "array.new_default $a (i32.const 2)", "eqref"),
        ("structref", "struct.new_default $s", "eqref"),
        ("arrayref", "array.new_default $a (i32.const 2)", "anyref"),
    ] {
        let wasm = wat(&format!(
            r#"(module
            (type $s (sub (struct (field i32))))
            (type $sub (sub $s (struct (field i32) (field i64))))
            (type $a (array i32))
            (global $held {held} ({made}))
            (global $external (ref null extern) (extern.convert_any ({made})))
            (global $place (mut {place}) (ref.null none))
            (global $converted (mut anyref) (ref.null none))
            (table $t 3 {place})
            (table $external 2 externref)
            (func (export "wizer.initialize")
              (table.set $t (i32.const 1) (global.get $held))
              (table.set $external (i32.const 0) (extern.convert_any (global.get $held)))
              (table.set $external (i32.const 1) (global.get $external))
              (global.set $converted (any.convert_extern (global.get $external)))
              (global.set $place (global.get $held)))
            (func $same (param eqref eqref) (result i32) (ref.eq (local.get 0) (local.get 1)))
            (func $external (param i32) (result eqref)
              (ref.cast eqref (any.convert_extern (table.get $external (local.get 0)))))
            (func (export "same") (result i32)
              (call $same (ref.cast eqref (global.get $place)) (ref.cast eqref (global.get $held)))
              (call $same (ref.cast eqref (table.get $t (i32.const 1))) (ref.cast eqref (global.get $held)))
              (call $same (call $external (i32.const 0)) (ref.cast eqref (global.get $held)))
              (call $same (call $external (i32.const 1)) (ref.cast eqref (global.get $converted)))
              i32.add i32.add i32.add))"#
        ));
        let output = initialize_and_judge(place, &wasm, &Setup::default());
        let mut instance = Judge::new(&[]).instantiate(&output).unwrap();
        let expected = Ended::Returned(vec![Seen::Number("i32", 4)]);
        assert_eq!(instance.call("same"), expected, "{held} in {place}");
    }
}

/// Kotlin and Dart make some ten times as many.
#[test]
fn thousands_of_constants() {
    const COUNT: u32 = 2_000;
    let mut text =
        String::from("(module (type $s (struct (field (mut i32)) (field (ref null $s))))");
    text += "(global $g0 (ref $s) (struct.new $s (i32.const 0) (ref.null $s)))";
    for n in 1..COUNT {
        let last = n - 1;
        text += &format!(
            "(global $g{n} (ref $s) (struct.new $s (i32.const {n}) (global.get $g{last})))"
        );
    }
    let last = COUNT - 1;
    let module = |text: &str, init: &str| {
        wat(&format!(
            r#"{text}(global $last (mut (ref null $s)) (ref.null $s))
            (func (export "wizer.initialize") {init} (global.set $last (global.get $g{last})))
            (func (export "last") (result i32)
              (struct.get $s 0 (struct.get $s 1 (global.get $last)))))"#
        ))
    };
    let output = Wizer::new().run(&module(&text, "")).unwrap();
    let mut instance = Judge::new(&[]).instantiate(&output).unwrap();
    let expected = Ended::Returned(vec![Seen::Number("i32", u128::from(last) - 1)]);
    assert_eq!(instance.call("last"), expected);
}

/// Of a long way to what changed, the end is told.
#[test]
fn the_way_to_a_change_is_cut_short() {
    let next = "(struct.get $s 1 ".repeat(5);
    let text = format!(
        r#"(module (type $s (struct (field (mut i32)) (field (ref null $s))))
        (global $g (ref $s) {}(ref.null $s){})
        (func (export "wizer.initialize")
          (struct.set $s 0 {next}(global.get $g){} (i32.const 1))))"#,
        "(struct.new $s (i32.const 0) ".repeat(6),
        ")".repeat(6),
        ")".repeat(5),
    );
    let path = "field 0 of field 1 of field 1 of field 1 of an object 2 steps away";
    let change = format!("{OBJECT} of which {path} was changed by the initialization");
    assert_unrepresentable(
        &Setup::default(),
        &text,
        "global 0 of type (ref 0)",
        &change,
    );
}

#[test]
fn a_passive_segment_of_objects_that_can_change_is_named() {
    for made in [
        "struct.new $m (i32.const 1)",
        "struct.new_default $m",
        "struct.new $s (struct.new_default $m)",
        "array.new $a (i32.const 1) (i32.const 2)",
        "array.new_default $a (i32.const 2)",
        "array.new_fixed $a 1 (i32.const 1)",
    ] {
        let text = format!(
            r#"(module
            (type $m (struct (field (mut i32)))) (type $s (struct (field anyref)))
            (type $a (array (mut i32)))
            (elem anyref (item (ref.null any)) (item ({made})))
            (func (export "wizer.initialize")))"#
        );
        let change = "holds objects of the garbage-collected heap that can be changed";
        assert_unrepresentable(&Setup::default(), &text, "element segment 0", change);
    }
}

#[test]
fn an_element_segment_with_objects_may_be_dropped() {
    let wasm = wat(r#"(module
        (type $s (struct (field i32)))
        (table $t 2 anyref)
        (elem $e anyref (item (struct.new $s (i32.const 1))))
        (func (export "wizer.initialize") (elem.drop $e))
        (func (export "init") (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))))"#);
    initialize_and_judge("dropped objects", &wasm, &Setup::default());
}

#[test]
fn changed_state_of_a_preloaded_module_is_named() {
    let preload = |state: &str, change: &str| {
        wat(&format!(
            "(module {state} (func (export \"change\") {change}))"
        ))
    };
    let text = r#"(module
        (import "lib" "change" (func $change))
        (func (export "wizer.initialize") (call $change)))"#;
    let cases = [
        (
            "(global $n (mut i32) (i32.const 0))",
            "(global.set $n (i32.const 1))",
            "global 0 of type i32",
        ),
        (
            "(memory 1)",
            "(i32.store8 (i32.const 5) (i32.const 1))",
            "memory 0",
        ),
        (
            "(memory 1)",
            "(drop (memory.grow (i32.const 1)))",
            "memory 0",
        ),
        (
            "(table $t 2 funcref) (func $f) (elem declare func $f)",
            "(table.set $t (i32.const 1) (ref.func $f))",
            "slot 1 of table 0",
        ),
        (
            "(table $t 2 funcref)",
            "(drop (table.grow $t (ref.null func) (i32.const 1)))",
            "table 0",
        ),
        ("(data $d \"x\")", "(data.drop $d)", "data segment 0"),
        (
            "(func $f) (elem $e func $f)",
            "(elem.drop $e)",
            "element segment 0",
        ),
        (
            "(func $f) (global $r (mut funcref) (ref.null func)) (elem declare func $f)",
            "(global.set $r (ref.func $f))",
            "global 0 of type funcref",
        ),
    ];
    for (state, change, item) in cases {
        let setup = Setup {
            preloads: vec![("lib".into(), preload(state, change))],
            ..Setup::default()
        };
        let error = setup.wizer().run(text.as_bytes()).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE", "{message}");
        assert!(message.starts_with(item), "{message}\n{item}");
        assert!(
            message.contains("of the preloaded module `lib`"),
            "{message}"
        );
        assert!(message.contains("--allow-preload-changes"), "{message}");

        setup
            .wizer()
            .allow_preload_changes(true)
            .run(text.as_bytes())
            .unwrap_or_else(|error| panic!("{item}: {}", chain(&error)));
    }
}

/// The order of the preloads is the order in which they can import from each other, and their
/// start functions and reactors run.
#[test]
fn preloaded_modules_are_initialized_before_they_are_used() {
    let first = wat(r#"(module
        (global $n (mut i32) (i32.const 0))
        (func $start (global.set $n (i32.const 3)))
        (start $start)
        (func (export "n") (result i32) (global.get $n)))"#);
    let second = wat(r#"(module
        (import "first" "n" (func $first (result i32)))
        (global $n (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $n (i32.mul (call $first) (i32.const 7))))
        (func (export "n") (result i32) (global.get $n)))"#);
    let text = r#"(module
        (import "second" "n" (func $second (result i32)))
        (global $n (export "n") (mut i32) (i32.const 0))
        (func (export "wizer.initialize") (global.set $n (i32.mul (call $second) (i32.const 2)))))"#;
    let mut wizer = Wizer::new();
    wizer
        .preload_bytes("first", first.clone())
        .preload_bytes("second", second.clone());
    let output = wizer.run(text.as_bytes()).unwrap();
    let preloads = [("first".to_string(), first), ("second".to_string(), second)];
    let mut running = Judge::new(&preloads).instantiate(&output).unwrap();
    assert_eq!(running.global("n"), Seen::Number("i32", 42));
}

/// Instrumentation adds tables and memories of its own, and must not need features for them that
/// are switched off.
#[test]
fn a_module_of_few_features_can_be_initialized_with_only_those() {
    let text = r#"(module
        (table 1 funcref)
        (elem $e func $f)
        (data $d "data")
        (memory (export "memory") 1)
        (func $f (result i32) (i32.const 1))
        (func (export "wizer.initialize")
          (memory.init $d (i32.const 0) (i32.const 0) (i32.const 4))
          (data.drop $d)
          (elem.drop $e)))"#;
    let output = Wizer::new()
        .wasm_reference_types(false)
        .wasm_multi_memory(false)
        .wasm_simd(false)
        .wasm_multi_value(false)
        .run(text.as_bytes())
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let judge = Judge::new(&[]);
    judge.assert_equivalent("few features", &wat(text), &output, &Setup::default());
}

/// Only an expression can write null over what the host's table has.
#[test]
fn a_proposal_that_only_the_state_demands_is_told() {
    let env = r#"(module
        (table (export "table") 2 funcref)
        (elem (i32.const 0) func $f)
        (func $f (export "f"))
        (func (export "clear") (param i32) (table.set (local.get 0) (ref.null func))))"#;
    let main = |slot: u32, more: &str| {
        format!(
            r#"(module
            (import "env" "table" (table 2 funcref))
            (import "env" "clear" (func $clear (param i32)))
            (func (export "wizer.initialize") (call $clear (i32.const {slot}))) {more})"#
        )
    };
    let warnings = |text: &str| {
        let mut wizer = Wizer::new();
        let outcome = wizer.preload_bytes("env", env).snapshot(text.as_bytes());
        outcome.unwrap().report.warnings
    };
    let told = warnings(&main(0, ""));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("the output needs reference types"),
        "{told:?}"
    );
    assert!(warnings(&main(1, "")).is_empty());
    assert!(warnings(&main(0, "(global externref (ref.null extern))")).is_empty());
}

/// Engines accept 100 tables and 100 memories.
#[test]
fn a_module_at_the_limits_of_engines_can_be_initialized() {
    let tables = "(table 1 funcref)".repeat(100);
    let text = format!(
        r#"(module {tables} (elem $e func $f) (func $f)
        (func (export "wizer.initialize") (elem.drop $e))
        (func (export "init") (table.init 99 $e (i32.const 0) (i32.const 0) (i32.const 1))))"#
    );
    initialize_and_judge("100 tables", &wat(&text), &Setup::default());

    // With no room for a table to tell functions apart.
    let text = format!(
        r#"(module {tables} (elem declare func $f) (func $f (result i32) (i32.const 7))
        (func (export "wizer.initialize") (table.set 98 (i32.const 0) (ref.func $f)))
        (func (export "call") (result i32) (call_indirect 98 (result i32) (i32.const 0))))"#
    );
    initialize_and_judge("a function", &wat(&text), &Setup::default());

    // Nor for one to see whether a segment was dropped that only arrays are made of.
    for dropped in ["(elem.drop $e)", ""] {
        let text = format!(
            r#"(module {tables} (type $a (array i31ref))
            (elem $e i31ref (item (ref.i31 (i32.const 5))) (item (ref.i31 (i32.const 6))))
            (func (export "wizer.initialize") {dropped})
            (func (export "get") (result i32)
              (i31.get_s (array.get $a
                (array.new_elem $a $e (i32.const 0) (i32.const 2)) (i32.const 1)))))"#
        );
        let engines = vec![Engine::Interpreter, Engine::Baseline];
        let setup = Setup {
            refused_by: engines,
            ..Setup::default()
        };
        initialize_and_judge("an array", &wat(&text), &setup);
        // What wizer itself takes to see that is not the module's.
        let mut limited = Wizer::new();
        let free = Wizer::new().run(text.as_bytes()).unwrap();
        assert!(limited.max_memory(1000).run(text.as_bytes()).unwrap() == free);
    }
    let memories = "(memory 0)".repeat(100);
    let text = format!(r#"(module {memories} (func (export "wizer.initialize")))"#);
    initialize_and_judge("100 memories", &wat(&text), &Setup::default());
}

/// No export of the module may stand in the way of those that instrumentation adds.
#[test]
fn exports_that_look_like_ours_do_no_harm() {
    let wasm = wat(r#"(module
        (memory (export "wizer:memory0") 1)
        (global $n (export "wizer:global0") (mut i32) (i32.const 0))
        (func (export "wizer:start") (export "wizer::data0") (result i32) (i32.const 7))
        (func $start (i32.store8 (i32.const 3) (i32.const 1)))
        (start $start)
        (func (export "wizer.initialize") (global.set $n (i32.const 5))))"#);
    initialize_and_judge("names", &wasm, &Setup::default());
}

/// A program may run wizer on every thread that rayon has, all of which then wait for us.
#[test]
fn in_parallel_with_rayon() {
    use rayon::prelude::*;
    let (done, is_done) = std::sync::mpsc::channel();
    // Long enough for validation, compilers, scanning and writing in parallel.
    let body = "(drop (i32.const 1))".repeat(50_000);
    let lib = wat(r#"(module (memory (export "memory") 64))"#);
    let wasm = wat(&format!(
        r#"(module
          (import "lib" "memory" (memory 64))
          (memory (export "memory") 64)
          (func {body})
          (func (export "wizer.initialize")
            (memory.fill 1 (i32.const 0) (i32.const 7) (i32.const 4000000))))"#
    ));
    std::thread::spawn(move || {
        let runs = 4 * rayon::current_num_threads();
        (0..runs).into_par_iter().for_each(|run| {
            let engines = [Engine::Auto, Engine::Baseline, Engine::Optimizing];
            let mut wizer = Wizer::new();
            wizer
                .engine(engines[run % engines.len()])
                .cache(wizer::CacheLocation::Off)
                .preload_bytes("lib", &lib[..]);
            assert!(wizer.run(&wasm).unwrap().len() > 4_000_000);
        });
        done.send(()).unwrap();
    });
    let limit = std::time::Duration::from_secs(120);
    is_done
        .recv_timeout(limit)
        .expect("they wait for each other");
}

/// However deep: a trap, and no end of the process.
#[test]
fn calls_within_calls_end_in_a_trap() {
    let wasm = wat(r#"(module
        (import "host" "f" (func $f))
        (func (export "again") (call $f))
        (func (export "wizer.initialize") (call $f)))"#);
    for engine in [Engine::Interpreter, Engine::Baseline, Engine::Optimizing] {
        let mut wizer = Wizer::new();
        wizer.engine(engine).import("host", "f", |guest, _| {
            guest.call("again", &[])?;
            Ok(Vec::new())
        });
        let error = wizer.run(&wasm).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_TRAP", "{engine:?}");
        assert!(chain(&error).contains("call stack exhausted"), "{engine:?}");
    }
}

#[test]
fn a_provided_function_returns_what_its_type_says() {
    let wasm = wat(r#"(module
        (import "host" "f" (func $f (result i32)))
        (func (export "wizer.initialize") (drop (call $f))))"#);
    for engine in [Engine::Interpreter, Engine::Baseline, Engine::Optimizing] {
        for values in [vec![], vec![1.into(), 2.into()], vec![Value::I64(1)]] {
            let mut wizer = Wizer::new();
            wizer
                .engine(engine)
                .import("host", "f", move |_, _| Ok(values.clone()));
            let error = wizer.run(&wasm).unwrap_err();
            assert_eq!(error.code(), "ERR_WIZER_IMPORT_FAILED", "{engine:?}");
        }
    }
}
