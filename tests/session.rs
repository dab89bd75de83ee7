//! Modules that a session instantiates beside its own. What the outputs are is judged by wasmtime.

use wizer::wasmtime::{Engine as Judge, Linker, Module, Store};
use wizer::{CacheLocation, Engine, Error, Session, Value, Wizer};

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
