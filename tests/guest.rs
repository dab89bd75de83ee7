//! What functions of the host can do with the instance that calls them: memories and tables by their
//! names, and what they may catch of it.

use wizer::{CacheLocation, Engine, Error, Guest, HostError, TrapReason, Value, Wizer};

const ENGINES: [Engine; 3] = [Engine::Interpreter, Engine::Baseline, Engine::Optimizing];

/// Initializes a module that imports `env.host`, on an engine.
fn run(
    wat: &str,
    engine: Engine,
    setup: impl FnOnce(&mut Wizer),
    host: impl Fn(&mut dyn Guest) -> Result<(), HostError> + Send + Sync + 'static,
) -> Result<Vec<u8>, Error> {
    let mut wizer = Wizer::new();
    wizer.engine(engine).cache(CacheLocation::Off);
    wizer.import("env", "host", move |guest, _| {
        host(guest).map(|()| Vec::new())
    });
    setup(&mut wizer);
    wizer.run(wat.as_bytes())
}

/// A module that calls its import, with a table in whose slot 1 this body is.
fn module(fields: &str, body: &str) -> String {
    format!(
        r#"(module (import "env" "host" (func $host)) {fields}
             (table (export "table") 2 funcref) (elem (i32.const 1) $it)
             (func $it {body})
             (func (export "wizer.initialize") (call $host)))"#
    )
}

#[test]
fn memories_go_by_the_names_of_exports_and_imports() {
    let wat = module(
        r#"(import "env" "memory" (memory 1)) (memory (export "own") 2) (memory 3)"#,
        "",
    );
    for engine in ENGINES {
        let memory = |wizer: &mut Wizer| {
            wizer.import_memory("env", "memory", [], Some(1));
        };
        run(&wat, engine, memory, |guest| {
            assert_eq!(guest.memory(Some("env.memory"))?.len(), 1 << 16);
            assert_eq!(guest.memory(Some("own"))?.len(), 2 << 16);
            for name in [None, Some("memory"), Some("env"), Some("wizer:memory2")] {
                let message = guest.memory(name).unwrap_err().to_string();
                assert!(message.contains("`env.memory`, `own`"), "{message}");
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{engine:?}: {error:?}"));
    }
}

#[test]
fn slots_are_called_with_values_of_their_types() {
    let wat = module(
        "",
        "(param i32 i64) (result i64) (i64.add (local.get 1) (i64.extend_i32_s (local.get 0)))",
    );
    for engine in ENGINES {
        run(
            &wat,
            engine,
            |_| (),
            |guest| {
                let ty = guest.slot_type(None, 1)?;
                assert_eq!((ty.params().len(), ty.results().len()), (2, 1));
                let args = [Value::I32(2), Value::I64(40)];
                assert_eq!(guest.call_indirect(None, 1, &args)?, [Value::I64(42)]);
                let wrong: [(Option<&str>, u64, &[Value], &str); 4] = [
                    (None, 0, &args, "slot 0 of the table is null"),
                    (None, 2, &args, "2 slots"),
                    (None, 1, &args[..1], "1 arguments"),
                    (Some("no"), 1, &args, "`table`"),
                ];
                for (table, slot, args, why) in wrong {
                    let error = guest.call_indirect(table, slot, args).unwrap_err();
                    assert!(error.to_string().contains(why), "{error}");
                }
                Ok(())
            },
        )
        .unwrap_or_else(|error| panic!("{engine:?}: {error:?}"));
    }
}

#[test]
fn a_trap_is_caught_or_passed_on() {
    for engine in ENGINES {
        let wat = module("", "unreachable");
        run(
            &wat,
            engine,
            |_| (),
            |guest| {
                for _ in 0..1000 {
                    let trap = guest.call_indirect(None, 1, &[]).unwrap_err();
                    assert!(matches!(trap, TrapReason::Wasm(_)), "{trap:?}");
                }
                Ok(())
            },
        )
        .unwrap_or_else(|error| panic!("{engine:?}: {error:?}"));
        let passed = |guest: &mut dyn Guest| {
            guest.call_indirect(None, 1, &[])?;
            Ok(())
        };
        let error = run(&wat, engine, |_| (), passed).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_TRAP", "{engine:?}");
    }
}

#[test]
fn limits_and_missing_imports_are_not_caught() {
    let swallows = |guest: &mut dyn Guest| {
        for _ in 0..2 {
            guest.call_indirect(None, 1, &[]).unwrap_err();
        }
        Ok(())
    };
    for engine in ENGINES {
        let grows = module("(memory 1)", "(drop (memory.grow (i32.const 10)))");
        let limit = |wizer: &mut Wizer| {
            wizer.max_memory(1 << 17);
        };
        let error = run(&grows, engine, limit, swallows).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_MEMORY_LIMIT", "{engine:?}");

        let endless = module("", "(loop (br 0))");
        let limit = |wizer: &mut Wizer| {
            wizer.timeout(std::time::Duration::from_millis(20));
        };
        let error = run(&endless, engine, limit, swallows).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_TIMEOUT", "{engine:?}");

        let calls = module(r#"(import "env" "none" (func $none))"#, "(call $none)");
        let error = run(&calls, engine, |_| (), swallows).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_IMPORT_MISSING", "{engine:?}");
    }
}

/// As in any host where an exception goes through a function that does not catch it.
#[test]
fn an_exception_that_is_passed_on_reaches_the_handlers_of_the_module() {
    let wat = r#"(module (import "env" "host" (func $host))
        (tag $e (param i32))
        (memory (export "memory") 1)
        (table funcref (elem $throw))
        (func $throw (throw $e (i32.const 7)))
        (func (export "wizer.initialize")
          (i32.store (i32.const 0)
            (block $caught (result i32)
              (try_table (catch $e $caught) (call $host))
              (i32.const 1))))
        (func (export "peek") (result i32) (i32.load (i32.const 0))))"#;
    let peek = |wasm: &[u8]| {
        let mut session = Wizer::new()
            .engine(Engine::Optimizing)
            .session(wasm)
            .unwrap();
        session.call("peek", &[]).unwrap()
    };
    let passed = |guest: &mut dyn Guest| {
        guest.call_indirect(None, 0, &[])?;
        Ok(())
    };
    let wasm = run(wat, Engine::Auto, |_| (), passed).unwrap();
    assert_eq!(peek(&wasm), [Value::I32(7)]);
    let caught = |guest: &mut dyn Guest| {
        let exception = guest.call_indirect(None, 0, &[]).unwrap_err();
        assert!(matches!(exception, TrapReason::Exception(_)));
        Ok(())
    };
    let wasm = run(wat, Engine::Auto, |_| (), caught).unwrap();
    assert_eq!(peek(&wasm), [Value::I32(1)]);
}
