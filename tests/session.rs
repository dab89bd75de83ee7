//! Modules that a session instantiates beside its own. What the outputs are is judged by wasmtime.

use wizer::wasmtime::{Engine as Judge, Linker, Module, Store};
use wizer::{CacheLocation, Engine, Error, KeepInitFunc, Session, Value, Wizer};

/// A module that others share a memory and a table with.
const MAIN: &str = r#"(module
  (memory (export "memory") 1)
  (table (export "table") 4 funcref)
  (func (export "seven") (result i32) (i32.const 7))
  (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0))))"#;

const ENGINES: [Engine; 4] = [
    Engine::Auto,
    Engine::Interpreter,
    Engine::Baseline,
    Engine::Optimizing,
];

/// A session whose module can be imported from as `main`.
fn session(wat: &str, engine: Engine) -> Session {
    let mut wizer = Wizer::new();
    let mut session = wizer
        .engine(engine)
        .cache(CacheLocation::Off)
        .session(wat.as_bytes())
        .unwrap();
    session.register("main").unwrap();
    session
}

/// What a call of a new instance gives; `None` where it traps.
fn call(wasm: &[u8], name: &str, arg: i32) -> Option<i32> {
    let judge = Judge::default();
    let mut store = Store::new(&judge, ());
    let module = Module::new(&judge, wasm).unwrap();
    let instance = Linker::new(&judge)
        .instantiate(&mut store, &module)
        .unwrap();
    let function = instance.get_typed_func::<i32, i32>(&mut store, name);
    function.unwrap().call(&mut store, arg).ok()
}

#[test]
fn what_a_module_beside_leaves_is_written() {
    let side = r#"(module
      (import "main" "memory" (memory 1))
      (import "main" "table" (table 1 funcref))
      (import "main" "seven" (func $seven (result i32)))
      (memory $own 1)
      (data (i32.const 1) "\05")
      (elem (i32.const 2) $seven)
      (func $start (i32.store8 (i32.const 2) (i32.const 6)))
      (func (export "_initialize") (i32.store8 (i32.const 3) (call $seven)))
      (func (export "poke") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
      (start $start))"#;
    for engine in ENGINES {
        let mut session = session(MAIN, engine);
        session.instantiate("side", side.as_bytes()).unwrap();
        let args = [Value::I32(4), Value::I32(8)];
        assert_eq!(session.call_beside("side", "poke", &args).unwrap(), []);
        let wasm = session.snapshot().unwrap().wasm;
        let bytes = [0, 1, 2, 3, 4].map(|at| call(&wasm, "peek", at).unwrap());
        assert_eq!(bytes, [0, 5, 6, 7, 8], "{engine:?}");
        let called = [1, 2].map(|slot| call(&wasm, "call", slot));
        assert_eq!(called, [None, Some(7)], "{engine:?}");

        // One more can import from both.
        let more = r#"(module
          (import "side" "poke" (func $poke (param i32 i32)))
          (import "main" "peek" (func $peek (param i32) (result i32)))
          (func (export "_initialize") (call $poke (i32.const 9) (call $peek (i32.const 4)))))"#;
        session.instantiate("more", more.as_bytes()).unwrap();
        let wasm = session.snapshot().unwrap().wasm;
        assert_eq!(call(&wasm, "peek", 9), Some(8), "{engine:?}");
    }
}

#[test]
fn what_a_module_beside_has_itself_cannot_be_written() {
    for engine in ENGINES {
        let refusal = |side: &str, calls: &[&str]| {
            let mut session = session(MAIN, engine);
            session.instantiate("side", side.as_bytes()).unwrap();
            for name in calls {
                session.call_beside("side", name, &[]).unwrap();
            }
            session.snapshot().unwrap_err()
        };
        let function = r#"(module
          (import "main" "table" (table 1 funcref))
          (func $own (result i32) (i32.const 8))
          (elem (i32.const 2) $own))"#;
        let error = refusal(function, &[]);
        assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
        let text = error.to_string();
        assert!(text.contains("slot 2 of table 0"), "{text}");

        let state = r#"(module (global $n (export "n") (mut i32) (i32.const 0))
          (func (export "count") (global.set $n (i32.const 1))))"#;
        let error = refusal(state, &["count"]);
        assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
        let text = error.to_string();
        assert!(text.contains("of the preloaded module `side`"), "{text}");
    }
}

#[test]
fn what_a_module_did_that_failed_remains() {
    let fails = r#"(module
      (import "main" "memory" (memory 1))
      (data (i32.const 1) "\05")
      (data (i32.const 65536) "\06"))"#;
    let traps = r#"(module
      (import "main" "memory" (memory 1))
      (func $start (i32.store8 (i32.const 2) (i32.const 6)) (unreachable))
      (start $start))"#;
    for engine in ENGINES {
        let mut session = session(MAIN, engine);
        for (name, wat) in [("fails", fails), ("traps", traps)] {
            let error = session.instantiate(name, wat.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Trap(_)), "{engine:?}: {error}");
            let error = session.call_beside(name, "any", &[]).unwrap_err();
            assert_eq!(error.code(), "ERR_WIZER_OPTION");
        }
        let wasm = session.snapshot().unwrap().wasm;
        let bytes = [0, 1, 2].map(|at| call(&wasm, "peek", at).unwrap());
        assert_eq!(bytes, [0, 5, 6], "{engine:?}");
    }
}

/// A module that was there before a name was given has not imported by it.
#[test]
fn a_name_means_what_it_meant_when_a_module_was_instantiated() {
    let main = r#"(module
      (table (export "table") 1 funcref)
      (func (export "f") (result i32) (i32.const 1)))"#;
    let side = r#"(module
      (import "first" "table" (table 1 funcref))
      (import "second" "f" (func $f (result i32)))
      (elem (i32.const 0) $f))"#;
    for engine in ENGINES {
        let mut wizer = Wizer::new();
        wizer.engine(engine).cache(CacheLocation::Off);
        wizer.import("second", "f", |_, _| Ok(vec![Value::I32(2)]));
        let mut session = wizer.session(main.as_bytes()).unwrap();
        session.register("first").unwrap();
        session.instantiate("side", side.as_bytes()).unwrap();
        session.register("second").unwrap();
        let error = session.snapshot().unwrap_err();
        assert_eq!(
            error.code(),
            "ERR_WIZER_UNREPRESENTABLE_STATE",
            "{engine:?}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_and_the_session_goes_on() {
    for engine in ENGINES {
        let mut session = session(MAIN, engine);
        session.instantiate("side", b"(module)").unwrap();
        for (name, wat, code) in [
            ("side", "(module)", "ERR_WIZER_OPTION"),
            ("main", "(module)", "ERR_WIZER_OPTION"),
            ("a", "(module", "ERR_WIZER_INVALID_TEXT"),
            (
                "a",
                "(module (func (result i32)))",
                "ERR_WIZER_INVALID_MODULE",
            ),
            (
                "a",
                r#"(module (import "main" "wizer:memory0" (memory 1)))"#,
                "ERR_WIZER_OPTION",
            ),
            (
                "a",
                r#"(module (import "main" "none" (memory 1)))"#,
                "ERR_WIZER_IMPORT_MISSING",
            ),
            (
                "a",
                r#"(module (import "main" "memory" (memory 2)))"#,
                "ERR_WIZER_IMPORT_TYPE",
            ),
        ] {
            let error = session.instantiate(name, wat.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{engine:?}: {wat}: {error}");
        }
        assert_eq!(
            session.register("side").unwrap_err().code(),
            "ERR_WIZER_OPTION"
        );
        session.instantiate("a", b"(module)").unwrap();
        let again = session.snapshot().unwrap().wasm;
        assert_eq!(call(&again, "peek", 0), Some(0));
    }
}

/// wasmtime cannot have every module share a memory.
#[test]
fn a_shared_memory_is_shared_or_refused() {
    let shares = r#"(module (import "main" "memory" (memory 1 1 shared))
      (func (export "beyond") (result i32) (i32.load (i32.const 65536))))"#;
    let main = r#"(module (memory (export "memory") 1 1 shared))"#;
    let mut first = session(main, Engine::Auto);
    first.instantiate("side", shares.as_bytes()).unwrap();
    let error = first.call_beside("side", "beyond", &[]).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_TRAP");

    let mut second = session("(module)", Engine::Auto);
    second.instantiate("late", main.as_bytes()).unwrap();
    let side = shares.replace("\"main\"", "\"late\"");
    let error = second.instantiate("side", side.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_UNSUPPORTED");
}

/// A side module of Emscripten imports from one name what the module exports, and what the host has.
#[test]
fn a_name_may_have_exports_of_the_module_and_what_the_host_provides() {
    let main = r#"(module
      (import "env" "log" (func $log (param i32)))
      (import "env" "base" (global $base i32))
      (memory (export "memory") 1)
      (global (export "top") (mut i32) (i32.const 5))
      (func (export "top of it") (result i32) (global.get 1))
      (func (export "raise") (global.set 1 (i32.add (global.get 1) (i32.const 1))))
      (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0))))"#;
    let side = r#"(module
      (import "env" "memory" (memory 1))
      (import "env" "top" (global $top (mut i32)))
      (import "env" "base" (global $base i32))
      (import "env" "more" (global $more i32))
      (import "env" "own" (memory $own 1))
      (import "env" "log" (func $log (param i32)))
      (data (global.get $base) "\2a")
      (func (export "_initialize")
        (call $log (global.get $more))
        (global.set $top (i32.add (global.get $top) (global.get $more)))))"#;
    for engine in ENGINES {
        let logged = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&logged);
        let mut wizer = Wizer::new();
        wizer.engine(engine).cache(CacheLocation::Off);
        wizer.import("env", "log", move |_, args| {
            log.lock().unwrap().push(args[0]);
            Ok(Vec::new())
        });
        wizer.import_global("env", "base", Value::I32(16));
        wizer.import_global("env", "more", Value::I32(30));
        wizer.import_memory("env", "own", [1], Some(1));
        let mut session = wizer.session(main.as_bytes()).unwrap();
        session.register("env").unwrap();
        session.instantiate("side", side.as_bytes()).unwrap();
        assert_eq!(*logged.lock().unwrap(), [Value::I32(30)], "{engine:?}");
        assert_eq!(session.global("top").unwrap(), Value::I32(35));
        session.snapshot().unwrap();
        // It is the module's own, whoever else sees it.
        session.call("raise", &[]).unwrap();
        let wasm = session.snapshot().unwrap().wasm;

        let mut again = wizer.session(&wasm).unwrap();
        assert_eq!(again.call("top of it", &[]).unwrap(), [Value::I32(36)]);
        let peeked = again.call("peek", &[Value::I32(16)]).unwrap();
        assert_eq!(peeked, [Value::I32(42)], "{engine:?}");
    }
}

/// What cannot be registered as a whole is not there in part.
#[test]
fn a_name_has_all_exports_of_a_module_or_none() {
    let main = r#"(module
      (import "env" "f" (func $f (result i32)))
      (import "env" "mem" (memory 1))
      (table (export "t") 2 funcref)
      (func (export "f") (result i32) (i32.const 7))
      (func (export "mem") (result i32) (i32.const 8))
      (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0))))"#;
    let late =
        r#"(module (func (export "f") (result i32) (i32.const 9)) (memory (export "mem") 1))"#;
    let side = r#"(module
      (import "env" "f" (func $f (result i32)))
      (import "main" "t" (table 2 funcref))
      (elem (i32.const 1) $f))"#;
    for engine in ENGINES {
        let mut wizer = Wizer::new();
        wizer.engine(engine).cache(CacheLocation::Off);
        wizer.import("env", "f", |_, _| Ok(vec![Value::I32(1)]));
        wizer.import_memory("env", "mem", [], Some(1));
        let mut session = wizer.session(main.as_bytes()).unwrap();
        for refused in [
            session.register("env").unwrap_err(),
            session.instantiate("env", late.as_bytes()).unwrap_err(),
        ] {
            assert_eq!(refused.code(), "ERR_WIZER_OPTION");
            assert!(refused.to_string().contains("another `mem`"), "{refused}");
        }
        session.register("main").unwrap();
        session.instantiate("side", side.as_bytes()).unwrap();
        let called = session.call("call", &[Value::I32(1)]).unwrap();
        assert_eq!(called, [Value::I32(1)], "{engine:?}");
        let wasm = session.snapshot().unwrap().wasm;
        let mut again = wizer.session(&wasm).unwrap();
        let called = again.call("call", &[Value::I32(1)]).unwrap();
        assert_eq!(called, [Value::I32(1)], "{engine:?}");
    }
}

/// The host gives a function of each type that it is asked for, and types are more than they look.
#[test]
fn functions_of_the_host_are_told_apart_by_their_types() {
    let main = r#"(module
      (type $t (sub (func (result i32))))
      (import "env" "f" (func $f (type $t)))
      (table (export "table") 4 funcref)
      (func (export "is") (result i32) (ref.test (ref $t) (table.get (i32.const 1)))))"#;
    let side = r#"(module
      (import "env" "f" (func $f (result i32)))
      (import "main" "table" (table 2 funcref))
      (elem (i32.const 1) $f))"#;
    let mut session = session(main, Engine::Optimizing);
    session.instantiate("side", side.as_bytes()).unwrap();
    assert_eq!(session.call("is", &[]).unwrap(), [Value::I32(0)]);
    let error = session.snapshot().unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
}

/// The module needs no garbage collection; the one that fills its table does.
#[test]
fn a_proposal_that_only_the_state_demands_is_a_warning() {
    let main = r#"(module (table (export "table") 2 externref))"#;
    let side = r#"(module
      (import "main" "table" (table 2 externref))
      (func $start (table.set (i32.const 1) (extern.convert_any (ref.i31 (i32.const 5)))))
      (start $start))"#;
    let mut session = session(main, Engine::Optimizing);
    session.instantiate("side", side.as_bytes()).unwrap();
    let warnings = session.snapshot().unwrap().report.warnings;
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("garbage collection"), "{warning}");
}

/// Winch does not know all that Cranelift does.
#[test]
fn a_module_that_the_sessions_engine_cannot_run_is_refused_with_advice() {
    let gc = "(module (type $s (struct)) (func (export \"_initialize\") (drop (struct.new $s))))";
    let mut on_winch = session(MAIN, Engine::Baseline);
    let error = on_winch.instantiate("side", gc.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_UNSUPPORTED");
    assert!(error.to_string().contains("`optimizing`"), "{error}");
    session(MAIN, Engine::Optimizing)
        .instantiate("side", gc.as_bytes())
        .unwrap();
}

/// What instrumentation adds does not count, and what does, does, also where modules fail.
#[test]
fn memory_is_limited_beside() {
    let functions = "(func)".repeat(2000);
    let all = (0..2000).map(|f| format!(" {f}")).collect::<String>();
    let fails = format!(
        r#"(module (import "main" "table" (table 4 funcref)) {functions} (elem declare func{all})
          (func (export "f") (drop (ref.func 0))) (func $start unreachable) (start $start))"#
    );
    let large = "(module (table 20000 funcref))";
    for engine in ENGINES {
        let mut wizer = Wizer::new();
        wizer.engine(engine).max_memory(128 << 10);
        let mut session = wizer.session(MAIN.as_bytes()).unwrap();
        session.register("main").unwrap();
        for n in 0..10 {
            let error = session.instantiate(&format!("{n}"), fails.as_bytes());
            assert_eq!(error.unwrap_err().code(), "ERR_WIZER_TRAP", "{engine:?}");
        }
        let error = session.instantiate("large", large.as_bytes()).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_MEMORY_LIMIT", "{engine:?}");
    }
}

/// In a session, an initialization function may be called with arguments, and give results.
#[test]
fn an_initialization_function_that_was_called_can_do_nothing_from_then_on() {
    let wat = r#"(module
      (global $n (mut i32) (i32.const 0))
      (func (export "init") (param i32) (global.set $n (local.get 0)))
      (func (export "both") (result i32) (i32.const 1))
      (func (export "n") (result i32) (global.get $n)))"#;
    let session = |init_func: &str| {
        let mut wizer = Wizer::new();
        let wizer = wizer
            .init_func(init_func)
            .keep_init_func(KeepInitFunc::Empty);
        wizer.session(wat.as_bytes()).unwrap()
    };
    let mut first = session("init");
    first.call("init", &[Value::I32(7)]).unwrap();
    let output = first.snapshot().unwrap().wasm;
    let mut again = Wizer::new().session(&output).unwrap();
    again.call("init", &[Value::I32(8)]).unwrap();
    assert_eq!(again.call("n", &[]).unwrap(), [Value::I32(7)]);

    let mut first = session("both");
    first.call("both", &[]).unwrap();
    let error = first.snapshot().unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error:?}");
    assert!(error.to_string().contains("`both`"), "{error}");
}
