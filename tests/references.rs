//! Tags and references of the host that a Rust program provides. What the outputs are is judged by wasmtime.

use std::sync::{Arc, Mutex};

use wizer::wasmtime::{
    Config, Engine as Judge, ExternRef, Global, GlobalType, HeapType, Linker, Module, Mutability,
    RefType, Store, Val, ValType,
};
use wizer::{CacheLocation, Engine, Exception, Reference, TrapReason, Value, Wizer};

fn wizer(engine: Engine) -> Wizer {
    let mut wizer = Wizer::new();
    wizer.engine(engine).cache(CacheLocation::Off);
    wizer
}

const KEEPER: &str = r#"(module
  (import "env" "one" (global $one externref))
  (import "env" "two" (global $two externref))
  (global $kept (export "kept") (mut externref) (ref.null extern))
  (table $slots (export "slots") 3 externref)
  (func (export "wizer.initialize")
    (global.set $kept (global.get $two))
    (table.set $slots (i32.const 0) (global.get $one))
    (table.set $slots (i32.const 2) (global.get $two))))"#;

#[test]
fn what_the_module_kept_of_an_imported_global_comes_from_there() {
    for engine in [Engine::Auto, Engine::Interpreter, Engine::Optimizing] {
        let mut wizer = wizer(engine);
        wizer.import_global("env", "one", Value::Ref(Reference::Extern(1)));
        wizer.import_global("env", "two", Value::Ref(Reference::Extern(2)));
        let outcome = wizer.snapshot(KEEPER.as_bytes()).unwrap();
        assert_eq!(outcome.report.assumed_globals, ["env::one", "env::two"]);

        // Another host has others.
        let judge = Judge::new(Config::new().wasm_gc(true)).unwrap();
        let mut store = Store::new(&judge, ());
        let mut linker = Linker::new(&judge);
        let ty = RefType::new(true, HeapType::Extern);
        let ty = GlobalType::new(ValType::Ref(ty), Mutability::Const);
        for (name, value) in [("one", 10u32), ("two", 20)] {
            let value = ExternRef::new(&mut store, value).unwrap();
            let global = Global::new(&mut store, ty.clone(), value.into()).unwrap();
            linker.define(&store, "env", name, global).unwrap();
        }
        let module = Module::new(&judge, &outcome.wasm).unwrap();
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let number = |store: &Store<()>, value: Val| match value {
            Val::ExternRef(None) => None,
            Val::ExternRef(Some(value)) => {
                let data = value.data(store).unwrap().unwrap();
                Some(*data.downcast_ref::<u32>().unwrap())
            }
            other => panic!("{other:?} is no external reference"),
        };
        let kept = instance.get_global(&mut store, "kept").unwrap();
        let kept = kept.get(&mut store);
        assert_eq!(number(&store, kept), Some(20));
        let slots = instance.get_table(&mut store, "slots").unwrap();
        let slots = [0, 1, 2].map(|slot| {
            let value = slots.get(&mut store, slot).unwrap();
            number(&store, value.into())
        });
        assert_eq!(slots, [Some(10), None, Some(20)]);
    }
}

#[test]
fn what_no_imported_immutable_global_holds_cannot_be_written() {
    let mutable = KEEPER.replace("$two externref", "$two (mut externref)");
    let mut wizer = wizer(Engine::Optimizing);
    wizer.import_global("env", "one", Value::Ref(Reference::Extern(1)));
    wizer.import_global("env", "two", Value::Ref(Reference::Extern(2)));
    let error = wizer.run(mutable.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_UNREPRESENTABLE_STATE");
    assert!(error.to_string().contains("global 2 (the export `kept`)"));

    wizer.import_global("env", "two", Value::I32(2));
    let numbers = Wizer::new()
        .import_global("env", "one", Value::I32(1))
        .run(KEEPER.as_bytes())
        .unwrap_err();
    assert_eq!(numbers.code(), "ERR_WIZER_IMPORT_TYPE");
}

const THROWER: &str = r#"(module
  (import "env" "tag" (tag $tag (param i32 i64)))
  (import "env" "other" (tag $other))
  (import "env" "f" (func $f))
  (memory (export "memory") 1)
  (func (export "throw") (throw $tag (i32.const 7) (i64.const 8)))
  (func (export "throw other") (throw $other))
  (func (export "throw own") (throw $own))
  (tag $own)
  (func (export "run") (result i32)
    (block $caught (result i32 i64)
      (try_table (catch $tag $caught) (call $f))
      (return (i32.const -1)))
    (i32.add (i32.wrap_i64))))"#;

fn thrown(name: &str, values: &[Value]) -> TrapReason {
    TrapReason::Exception(Exception::new("env", name, values))
}

#[test]
fn exceptions_go_to_and_fro() {
    let seen: Arc<Mutex<Vec<Exception>>> = Arc::default();
    let notes = seen.clone();
    let mut wizer = wizer(Engine::Auto);
    wizer.import_tag("env", "tag").import_tag("env", "other");
    wizer.import("env", "f", move |guest, _| {
        let reason = guest.call("throw", &[]).unwrap_err();
        if let TrapReason::Exception(exception) = &reason {
            notes.lock().unwrap().push(exception.clone());
        }
        // Caught and forgotten.
        assert!(guest.call("throw other", &[]).is_err());
        let own = guest.call("throw own", &[]).unwrap_err();
        let TrapReason::Exception(own) = own else {
            panic!("{own}");
        };
        assert_eq!((own.tag(), own.values()), (None, &[][..]));
        Err(reason.into())
    });
    let mut session = wizer.session(THROWER.as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(session.call("run", &[]).unwrap(), [Value::I32(15)]);
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].values(), [Value::I32(7), Value::I64(8)]);
    assert_eq!(seen[0].tag(), Some(("env", "tag")));
}

#[test]
fn exceptions_that_nothing_catches_and_those_that_do_not_fit() {
    for (reason, code, text) in [
        (
            thrown("other", &[]),
            "ERR_WIZER_TRAP",
            "exception was thrown",
        ),
        (
            thrown("tag", &[Value::I32(1)]),
            "ERR_WIZER_IMPORT_FAILED",
            "1 arguments",
        ),
        (
            thrown("tag", &[Value::I32(1), Value::I32(1)]),
            "ERR_WIZER_IMPORT_FAILED",
            "the i32 1",
        ),
        (
            thrown("third", &[]),
            "ERR_WIZER_IMPORT_FAILED",
            "`env::third`",
        ),
    ] {
        let reason = Mutex::new(Some(reason));
        let mut wizer = wizer(Engine::Auto);
        wizer.import_tag("env", "tag").import_tag("env", "other");
        wizer.import("env", "f", move |_, _| {
            Err(reason.lock().unwrap().take().unwrap().into())
        });
        let mut session = wizer.session(THROWER.as_bytes()).unwrap();
        let error = session.call("run", &[]).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let trap = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("{error} {}", trap.unwrap_or_default());
        assert!(message.contains(text), "{message}");
    }
}
