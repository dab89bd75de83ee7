//! Whatever a module waits for, the wait ends when the run is to end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wizer::{CacheLocation, Engine, Interrupt, Value, Wizer};

/// How long a run goes on before it is to end.
const LIMIT: Duration = Duration::from_millis(300);

/// How much longer it may take. What is promised is 100 ms, on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(2);

/// A module that does this with WASI.
fn guest(code: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
          (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
          (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 16) "pipe")
        ;; Opens `pipe` with these rights. Returns the descriptor.
        (func $open (param $rights i64) (result i32)
          (if (call $path_open (i32.const 3) (i32.const 1) (i32.const 16) (i32.const 4) (i32.const 0)
                (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 32))
            (then unreachable))
          (i32.load (i32.const 32)))
        ;; A subscription of a clock: in how many nanoseconds, or at which.
        (func $clock (param $at i32) (param $id i32) (param $time i64) (param $absolute i32)
          (i32.store (i32.add (local.get $at) (i32.const 16)) (local.get $id))
          (i64.store (i32.add (local.get $at) (i32.const 24)) (local.get $time))
          (i32.store16 (i32.add (local.get $at) (i32.const 40)) (local.get $absolute)))
        (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
        (func (export "wizer.initialize") {code}))"#
    )
}

/// An hour, in nanoseconds.
const HOUR: &str = "(i64.const 3_600_000_000_000)";

fn wizer(engine: Engine) -> Wizer {
    let mut wizer = Wizer::new();
    wizer.engine(engine).cache(CacheLocation::Off);
    wizer
}

/// With WASI, and this directory.
fn with_wasi(engine: Engine, directory: &Path) -> Wizer {
    let mut wizer = wizer(engine);
    wizer.allow_wasi(true).unwrap();
    wizer.stdin("").map_dir("/", directory);
    wizer
}

/// Asserts that a run ends soon after it is to end, by a deadline and by somebody who calls it off.
fn assert_ends(what: &str, wizer: &Wizer, wat: &str) {
    let mut timed = wizer.clone();
    let began = Instant::now();
    let error = timed.timeout(LIMIT).run(wat.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_TIMEOUT", "{what}: {error}");
    assert!(
        began.elapsed() < LIMIT + SOON,
        "{what}: {:?}",
        began.elapsed()
    );

    let interrupt = Arc::new(Interrupt::default());
    let mut aborted = wizer.clone();
    let ends = interrupt.clone();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(LIMIT);
        ends.abort();
    });
    let error = aborted
        .interrupt(interrupt)
        .run(wat.as_bytes())
        .unwrap_err();
    assert_eq!(error.code(), "ERR_WIZER_ABORTED", "{what}: {error}");
    assert!(
        began.elapsed() < LIMIT + SOON,
        "{what}: {:?}",
        began.elapsed()
    );
    thread.join().unwrap();
}

const ENGINES: [Engine; 4] = [
    Engine::Auto,
    Engine::Interpreter,
    Engine::Baseline,
    Engine::Optimizing,
];

#[test]
fn rests() {
    let poll = |events: &str, count: u32, happened: &str| {
        format!(
            "(drop (call $poll_oneoff (i32.const 0x100) (i32.const {events}) (i32.const {count})
              (i32.const {happened})))"
        )
    };
    let clock = format!("(call $clock (i32.const 0x100) (i32.const 1) {HOUR} (i32.const 0))");
    let wall = format!("(call $clock (i32.const 0x100) (i32.const 0) {HOUR} (i32.const 0))");
    let second = format!("(call $clock (i32.const 0x130) (i32.const 0) {HOUR} (i32.const 0))");
    // In the year 2262.
    let absolute = "(call $clock (i32.const 0x100) (i32.const 0)
        (i64.const 0x7fff_ffff_ffff_ffff) (i32.const 1))";
    let directory = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let wizer = with_wasi(engine, directory.path());
        for (what, code) in [
            ("a rest", format!("{clock} {}", poll("0x200", 1, "64"))),
            (
                "by the wall clock",
                format!("{wall} {}", poll("0x200", 1, "64")),
            ),
            (
                "until a time",
                format!("{absolute} {}", poll("0x200", 1, "64")),
            ),
            (
                "two of them",
                format!("{clock} {second} {}", poll("0x200", 2, "64")),
            ),
            (
                "an odd place for events",
                format!("{clock} {}", poll("0x201", 1, "64")),
            ),
            (
                "no place for events",
                format!("{clock} {}", poll("0x7fffff00", 1, "64")),
            ),
            (
                "an odd place for their number",
                format!("{clock} {}", poll("0x200", 1, "65")),
            ),
            (
                "no place for their number",
                format!("{clock} {}", poll("0x200", 1, "0x7fffff00")),
            ),
        ] {
            assert_ends(&format!("{what}, {engine:?}"), &wizer, &guest(&code));
        }
    }
}

/// As before, where nobody ends them.
#[test]
fn rests_that_end_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let wizer = with_wasi(engine, directory.path());
        let rest = |events: &str| {
            guest(&format!(
                "(call $clock (i32.const 0x100) (i32.const 1) (i64.const 20_000_000) (i32.const 0))
                 (i64.store (i32.const 0x100) (i64.const 42))
                 (i32.store (i32.const 0x300) (call $poll_oneoff (i32.const 0x100)
                   (i32.const {events}) (i32.const 1) (i32.const 64)))"
            ))
        };
        let began = Instant::now();
        let wasm = wizer.run(rest("0x200").as_bytes()).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(20));
        let mut session = wizer.session(&wasm).unwrap();
        let mut load = |at: i32| session.call("load", &[Value::I32(at)]).unwrap();
        assert_eq!(load(0x300), [Value::I32(0)], "no error");
        assert_eq!(load(64), [Value::I32(1)], "one event");
        assert_eq!(load(0x200), [Value::I32(42)], "of this subscription");
        let error = wizer.run(rest("0x201").as_bytes()).unwrap_err();
        assert_eq!(error.code(), "ERR_WIZER_TRAP", "{error}");
    }
}

#[cfg(unix)]
#[test]
fn pipes() {
    const READ: u32 = 1 << 1;
    const WRITE: u32 = 1 << 6;
    let open = |rights: u32| format!("(call $open (i64.const {rights}))");
    for engine in ENGINES {
        for (what, code) in [
            ("opened to be read", format!("(drop {})", open(READ))),
            ("opened to be written", format!("(drop {})", open(WRITE))),
        ] {
            // A new one each time: those who were left behind at one would be the other end of it.
            let directory = tempfile::tempdir().unwrap();
            let made = Command::new("mkfifo")
                .arg(directory.path().join("pipe"))
                .status();
            assert!(made.unwrap().success());
            let wizer = with_wasi(engine, directory.path());
            assert_ends(&format!("a pipe {what}, {engine:?}"), &wizer, &guest(&code));
        }
    }
}

/// A module that waits like this, with a shared memory.
fn waiting(memory: &str, code: &str) -> String {
    format!(
        r#"(module (memory (export "memory") {memory} shared)
        (global $result (export "result") (mut i32) (i32.const -1))
        (func (export "wizer.initialize") (global.set $result {code})))"#
    )
}

#[test]
fn atomic_waits() {
    let without_end = "(i64.const -1)";
    // Neither wasmi nor Winch knows them.
    for engine in [Engine::Auto, Engine::Optimizing] {
        for time in [without_end, HOUR, "(i64.const 0x7fff_ffff_ffff_ffff)"] {
            for wat in [
                waiting(
                    "1 1",
                    &format!("(memory.atomic.wait32 (i32.const 8) (i32.const 0) {time})"),
                ),
                waiting(
                    "1 1",
                    &format!("(memory.atomic.wait64 offset=16 (i32.const 8) (i64.const 0) {time})"),
                ),
                waiting(
                    "i64 1 1",
                    &format!(
                        "(memory.atomic.wait32 offset=0x8000 (i64.const 8) (i32.const 0) {time})"
                    ),
                ),
            ] {
                assert_ends(&format!("{engine:?}\n{wat}"), &wizer(engine), &wat);
            }
        }
        let mut imported = wizer(engine);
        imported.import_memory("env", "memory", [], Some(1));
        let wat = r#"(module (import "env" "memory" (memory 1 1 shared))
            (func (export "wizer.initialize")
              (drop (memory.atomic.wait32 (i32.const 8) (i32.const 0) (i64.const -1)))))"#;
        assert_ends(&format!("{engine:?}\n{wat}"), &imported, wat);
    }
}

/// What they return, and where they trap, is as ever.
#[test]
fn atomic_waits_that_end_by_themselves() {
    let result = |wat: &str| {
        let wasm = wizer(Engine::Optimizing).run(wat.as_bytes()).unwrap();
        let mut session = wizer(Engine::Optimizing).session(&wasm).unwrap();
        session.global("result").unwrap()
    };
    const NOT_EQUAL: Value = Value::I32(1);
    const TIMED_OUT: Value = Value::I32(2);
    for (expected, time, wanted, least) in [
        (1, 0, NOT_EQUAL, 0),
        (1, -1, NOT_EQUAL, 0),
        (0, 0, TIMED_OUT, 0),
        (0, 1, TIMED_OUT, 0),
        (0, 20_000_000, TIMED_OUT, 20),
        (0, 90_000_000, TIMED_OUT, 90),
    ] {
        for (bits, ty) in [(32, "i32"), (64, "i64")] {
            let began = Instant::now();
            let wat = waiting(
                "1 1",
                &format!(
                    "(memory.atomic.wait{bits} offset=8 (i32.const 0) ({ty}.const {expected})
                      (i64.const {time}))"
                ),
            );
            assert_eq!(result(&wat), wanted, "{wat}");
            assert!(began.elapsed() >= Duration::from_millis(least), "{wat}");
        }
    }
    // Not aligned; and on a memory that nobody shares.
    let odd = waiting(
        "1 1",
        "(memory.atomic.wait32 (i32.const 2) (i32.const 0) (i64.const 0))",
    );
    let own = odd.replace(" shared", "").replace("const 2", "const 0");
    for wat in [odd, own] {
        let wasm = wat::parse_str(&wat).unwrap();
        let wait = wasm.windows(2).position(|bytes| bytes == [0xfe, 0x01]);
        let error = wizer(Engine::Optimizing).run(&wasm).unwrap_err();
        let wizer::Error::Trap(trap) = error else {
            panic!("{error}")
        };
        let frames: Vec<_> = trap.frames.iter().map(|frame| frame.offset).collect();
        assert_eq!(frames, [wait], "{wat}: {}", trap.reason);
    }
}
