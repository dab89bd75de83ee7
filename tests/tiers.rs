//! A run begins on an interpreter and goes over to compiled code, from the start: wherever that
//! happens, the outside world sees one run. What it sees is compared with that of a run on a
//! compiler alone.
//!
//! Runs that use the process's standard streams are processes of their own: see
//! `tests/tiers/program.rs`.

mod common;

use std::collections::BTreeMap;
use std::io::{PipeReader, Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};

use common::structure::{Items, append};
use serde_json::Value as Json;
use wizer::{CacheLocation, Engine, Value, Wizer};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// ----- guests -----

/// The functions of WASI that guests use.
const WASI: [(&str, &str); 33] = [
    ("args_get", "(param i32 i32) (result i32)"),
    ("args_sizes_get", "(param i32 i32) (result i32)"),
    ("environ_get", "(param i32 i32) (result i32)"),
    ("environ_sizes_get", "(param i32 i32) (result i32)"),
    ("clock_time_get", "(param i32 i64 i32) (result i32)"),
    ("fd_allocate", "(param i32 i64 i64) (result i32)"),
    ("fd_close", "(param i32) (result i32)"),
    ("fd_datasync", "(param i32) (result i32)"),
    ("fd_fdstat_get", "(param i32 i32) (result i32)"),
    ("fd_fdstat_set_flags", "(param i32 i32) (result i32)"),
    ("fd_fdstat_set_rights", "(param i32 i64 i64) (result i32)"),
    ("fd_filestat_get", "(param i32 i32) (result i32)"),
    ("fd_filestat_set_size", "(param i32 i64) (result i32)"),
    (
        "fd_filestat_set_times",
        "(param i32 i64 i64 i32) (result i32)",
    ),
    ("fd_prestat_get", "(param i32 i32) (result i32)"),
    ("fd_pwrite", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_read", "(param i32 i32 i32 i32) (result i32)"),
    ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_renumber", "(param i32 i32) (result i32)"),
    ("fd_seek", "(param i32 i64 i32 i32) (result i32)"),
    ("fd_sync", "(param i32) (result i32)"),
    ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
    ("path_create_directory", "(param i32 i32 i32) (result i32)"),
    (
        "path_open",
        "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    ),
    (
        "path_rename",
        "(param i32 i32 i32 i32 i32 i32) (result i32)",
    ),
    ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
    ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
    ("proc_exit", "(param i32)"),
    ("proc_raise", "(param i32) (result i32)"),
    ("random_get", "(param i32 i32) (result i32)"),
    ("sched_yield", "(result i32)"),
    ("sock_accept", "(param i32 i32 i32) (result i32)"),
    ("sock_shutdown", "(param i32 i32) (result i32)"),
];

/// What every guest has. Whatever the host answers is noted in memory, where the output keeps it.
const HELPERS: &str = r#"
    (memory (export "memory") 4)
    (global $notes (mut i32) (i32.const 0x10000))
    (global $fd (mut i32) (i32.const -1))
    (global $directory (mut i32) (i32.const 3))
    (global $i (mut i32) (i32.const 0))
    (func $note (param $value i32)
      (i32.store (global.get $notes) (local.get $value))
      (global.set $notes (i32.add (global.get $notes) (i32.const 4))))
    (func $print (param $fd i32) (param $at i32) (param $len i32)
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $len))
      (call $note (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $note (i32.load (i32.const 8))))
    ;; What is read is noted behind its length.
    (func $read (param $fd i32) (param $len i32)
      (i32.store (i32.const 0) (i32.add (global.get $notes) (i32.const 8)))
      (i32.store (i32.const 4) (local.get $len))
      (i32.store (i32.const 8) (i32.const 0))
      (call $note (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $note (i32.load (i32.const 8)))
      (global.set $notes (i32.add (global.get $notes) (i32.load (i32.const 8)))))
    (func $open (param $at i32) (param $len i32) (param $how i32) (param $rights i64)
      (call $note (call $path_open (global.get $directory) (i32.const 1) (local.get $at) (local.get $len)
        (local.get $how) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 8)))
      (global.set $fd (i32.load (i32.const 8)))
      (call $note (global.get $fd)))
    ;; Forgets what is different in every run.
    (func $forget (param $at i32) (param $len i32)
      (memory.fill (local.get $at) (i32.const 0) (local.get $len)))"#;

/// Where the notes begin in memory.
const NOTES: usize = 0x10000;

/// The bits of `path_open`.
const CREATE: u32 = 1;
const TRUNCATE: u32 = 8;

/// The rights `fd_read` and `fd_write`.
const READ: u32 = 1 << 1;
const WRITE: u32 = 1 << 6;

/// A module whose initialization does one thing after the other.
#[derive(Clone, Default)]
struct Guest {
    imports: String,
    fields: String,
    data: String,
    code: String,
    /// Where data may begin.
    end: usize,
    /// How many calls of the host there are by now.
    calls: u64,
    /// The number of the first call that must not happen twice.
    once: Option<u64>,
    /// The number of the first read of standard input with output before it.
    prompt: Option<u64>,
    printed: bool,
}

impl Guest {
    /// Any code, without a call of the host.
    fn wat(mut self, code: &str) -> Guest {
        self.code.push_str(code);
        self.code.push('\n');
        self
    }

    /// An import.
    fn import(mut self, import: &str) -> Guest {
        self.imports.push_str(import);
        self
    }

    /// Any field of the module.
    fn field(mut self, field: &str) -> Guest {
        self.fields.push_str(field);
        self
    }

    /// One call of the host.
    fn call(mut self, code: &str) -> Guest {
        self.calls += 1;
        self.wat(code)
    }

    /// One call of the host that must not happen twice.
    fn call_once(mut self, code: &str) -> Guest {
        self.once.get_or_insert(self.calls);
        self.call(code)
    }

    /// A text in memory, as arguments.
    fn text(&mut self, text: &str) -> String {
        let at = 0x1000 + self.end;
        self.end += text.len();
        let escaped: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
        self.data
            .push_str(&format!("(data (i32.const {at}) \"{escaped}\")\n"));
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// Writes to a standard stream.
    fn print(mut self, fd: u32, text: &str) -> Guest {
        let text = self.text(text);
        self.printed = true;
        self.call(&format!("(call $print (i32.const {fd}) {text})"))
    }

    /// Writes to standard output what was read last.
    fn echo(mut self) -> Guest {
        self.printed = true;
        self.call(
            "(call $print (i32.const 1)
               (i32.sub (global.get $notes) (i32.load (i32.const 8)))
               (i32.load (i32.const 8)))",
        )
    }

    /// Reads standard input, up to so many bytes at once.
    fn read(mut self, len: u32) -> Guest {
        if self.printed {
            self.prompt.get_or_insert(self.calls);
        }
        self.call(&format!("(call $read (i32.const 0) (i32.const {len}))"))
    }

    /// Opens a file of the directory to read it.
    fn open(mut self, path: &str) -> Guest {
        let path = self.text(path);
        self.call(&format!(
            "(call $open {path} (i32.const 0) (i64.const {READ}))"
        ))
    }

    /// Makes a file in the directory, or empties it.
    fn create(mut self, path: &str) -> Guest {
        let (path, how) = (self.text(path), CREATE | TRUNCATE);
        self.call_once(&format!(
            "(call $open {path} (i32.const {how}) (i64.const {WRITE}))"
        ))
    }

    /// Writes to the file that was opened last.
    fn write(mut self, text: &str) -> Guest {
        let text = self.text(text);
        self.call_once(&format!("(call $print (global.get $fd) {text})"))
    }

    /// Closes the file that was opened last.
    fn close(self) -> Guest {
        self.call("(call $note (call $fd_close (global.get $fd)))")
    }

    /// Asks what the standard streams are: a program that writes to a terminal may do so otherwise.
    fn streams(mut self) -> Guest {
        for fd in 0..3 {
            self = self.call(&format!(
                "(call $note (call $fd_fdstat_get (i32.const {fd}) (i32.const 64)))
                 (call $note (i32.load (i32.const 64)))"
            ));
        }
        self
    }

    fn clock(self) -> Guest {
        self.call(
            "(call $note (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
             (call $note (i64.ne (i64.load (i32.const 64)) (i64.const 0)))
             (call $forget (i32.const 64) (i32.const 8))",
        )
    }

    fn random(self) -> Guest {
        self.call(
            "(call $note (call $random_get (i32.const 64) (i32.const 16)))
             (call $forget (i32.const 64) (i32.const 16))",
        )
    }

    fn exit(self, status: i32) -> Guest {
        self.call_once(&format!("(call $proc_exit (i32.const {status}))"))
    }

    fn endless(self) -> Guest {
        self.wat("(loop (br 0))")
    }

    fn text_format(&self) -> String {
        let imports: String = WASI
            .iter()
            .map(|(name, ty)| {
                format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} {ty}))\n")
            })
            .collect();
        let Guest {
            imports: more,
            fields,
            data,
            code,
            ..
        } = self;
        format!(
            "(module $guest (type (func)) {imports} {more} {HELPERS} {fields} {data}\n\
             (func $init (export \"wizer.initialize\")\n{code}))"
        )
    }

    fn wasm(&self) -> Vec<u8> {
        wat(&self.text_format())
    }
}

/// Adds 20 MB of functions that nobody calls: so much that the interpreter may run for half a second
/// before a compiler begins, which then takes seconds.
fn with_unused_code(wasm: &[u8]) -> Vec<u8> {
    let mut unused = wasm_encoder::Function::new([]);
    // (loop), at which compiled code looks whether it is to end
    unused.raw([0x03, 0x40, 0x0b].repeat(1_700_000));
    unused.instruction(&wasm_encoder::Instruction::End);
    let [mut types, mut bodies] = [(); 2].map(|()| Items::default());
    for _ in 0..4 {
        types.push(&0_u32);
        bodies.push(&unused);
    }
    append(wasm, &BTreeMap::from([(3, types), (10, bodies)])).unwrap()
}

// ----- runs -----

/// The helper program. `cargo test` without a filter has made it already.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let name = profile.file_name().unwrap().to_str().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--locked", "--example", "tiers"])
            .args(["--profile", if name == "debug" { "dev" } else { name }])
            .arg("--target-dir")
            .arg(profile.parent().unwrap());
        if cfg!(feature = "napi") {
            cargo.arg("--all-features");
        } else if cfg!(feature = "cli") {
            cargo.args(["--features", "cli"]);
        }
        assert!(cargo.status().unwrap().success(), "see above");
        let program = format!("tiers{}", std::env::consts::EXE_SUFFIX);
        profile.join("examples").join(program)
    })
}

/// One run in a process of its own, and a directory for the guest.
struct Process {
    command: Command,
    /// Holds the directory `guest`, and what the helper program leaves behind.
    directory: tempfile::TempDir,
}

impl Process {
    /// A run of a module with some options of the helper program.
    fn new(wasm: &[u8], options: &[(&str, &str)]) -> Process {
        let directory = tempfile::tempdir().unwrap();
        let guest = directory.path().join("guest");
        std::fs::create_dir(&guest).unwrap();
        std::fs::write(guest.join("input.txt"), "from a file\n").unwrap();
        std::fs::write(guest.join("old.txt"), "to be overwritten").unwrap();
        let module = directory.path().join("module.wasm");
        std::fs::write(&module, wasm).unwrap();
        let mut command = Command::new(program());
        command.arg(module).arg(directory.path());
        let readonly = options.contains(&("readonly", "yes"));
        command.arg(if readonly { "readonly-dir" } else { "dir" });
        command.arg(guest);
        let options = options.iter().filter(|option| option.0 != "readonly");
        for (option, value) in options {
            command.args([option, value]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Process { command, directory }
    }

    /// Where the guest's files are.
    fn guest(&self) -> PathBuf {
        self.directory.path().join("guest")
    }

    /// Has these bytes on standard input, and then its end.
    fn input(&mut self, bytes: &[u8]) {
        let (reader, mut writer) = pipe().unwrap();
        // A pipe holds that much without a reader.
        assert!(bytes.len() <= 4096);
        writer.write_all(bytes).unwrap();
        self.command.stdin(reader);
    }

    /// One pipe for both standard output and standard error.
    fn together(&mut self) -> PipeReader {
        let (reader, writer) = pipe().unwrap();
        self.command.stdout(writer.try_clone().unwrap());
        self.command.stderr(writer);
        reader
    }

    /// Closes what is left of the child's ends of its streams, which would keep them open.
    fn close(&mut self) {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }

    fn spawn(&mut self) -> Child {
        self.command.spawn().unwrap()
    }

    /// Runs to the end.
    fn run(mut self) -> World {
        let child = self.spawn();
        self.end(child)
    }

    /// Runs to the end with standard output and error in one pipe: its bytes are those of standard output.
    fn run_together(mut self) -> World {
        let mut reader = self.together();
        let child = self.spawn();
        self.close();
        let mut both = Vec::new();
        reader.read_to_end(&mut both).unwrap();
        let mut world = self.end(child);
        world.stdout = both;
        world
    }

    /// What there is to be seen at the end.
    fn end(self, child: Child) -> World {
        let output = child.wait_with_output().unwrap();
        let results = self.directory.path();
        assert!(
            output.status.success(),
            "{}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let told = std::fs::read(results.join("told.json")).unwrap();
        World {
            stdout: output.stdout,
            stderr: output.stderr,
            files: files(&self.guest()),
            output: std::fs::read(results.join("output.wasm")).ok(),
            told: serde_json::from_slice(&told).unwrap(),
        }
    }
}

/// The names of what is in a directory; of files, with their bytes.
fn files(directory: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let is_file = entry.file_type().unwrap().is_file();
            let bytes = is_file.then(|| std::fs::read(entry.path()).unwrap());
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect()
}

/// What a run leaves behind, as it is seen from outside.
struct World {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: BTreeMap<String, Option<Vec<u8>>>,
    output: Option<Vec<u8>>,
    /// What the helper program tells.
    told: Json,
}

impl World {
    fn reason(&self) -> &str {
        self.told["reason"].as_str().unwrap_or_default()
    }

    fn engine(&self) -> &str {
        self.told["engine"].as_str().unwrap_or_default()
    }

    fn code(&self) -> &str {
        self.told["code"].as_str().unwrap_or("none")
    }

    /// How often the run began.
    fn attempts(&self) -> u64 {
        self.told["attempts"].as_u64().unwrap()
    }

    /// Asserts that it looks the same as another: in everything but who ran it.
    fn assert_same(&self, what: &str, plain: &World) {
        assert_eq!(text(&self.stdout), text(&plain.stdout), "{what}: stdout");
        assert_eq!(text(&self.stderr), text(&plain.stderr), "{what}: stderr");
        assert_eq!(self.files, plain.files, "{what}: files");
        for key in [
            "code", "error", "frames", "report", "stdout", "stderr", "rest",
        ] {
            assert_eq!(self.told[key], plain.told[key], "{what}: {key}");
        }
        assert!(
            self.output == plain.output,
            "{what}: the output is not that of the plain run"
        );
    }
}

// ----- at every call of the host -----

/// Asserts that a run looks like a plain one, at whichever call of the host the interpreter leaves
/// it. `takes_over` is the first call that it leaves at by itself. Returns the plain run.
fn leave_at_every_call(
    guest: &Guest,
    takes_over: Option<u64>,
    run: &dyn Fn(Process) -> World,
    options: &[(&str, &str)],
) -> World {
    let wasm = guest.wasm();
    let start = |more: &[(&str, &str)]| run(Process::new(&wasm, &[options, more].concat()));
    let plain = start(&[("engine", "baseline")]);
    assert_eq!(plain.attempts(), 1);
    if let Some(calls) = plain.told["report"]["hostCalls"].as_array() {
        let calls = calls.iter().map(|c| c["calls"].as_u64().unwrap());
        assert_eq!(calls.sum::<u64>(), guest.calls, "the calls of the host");
    }
    for call in 0..=guest.calls + 1 {
        let what = format!("left at call {call} of {}", guest.calls);
        let world = start(&[("leave-at", &call.to_string())]);
        world.assert_same(&what, &plain);
        let ends_early = plain.code() != "none";
        let leaves = call < guest.calls || takes_over.is_some() || ends_early;
        assert_eq!(world.attempts(), if leaves { 2 } else { 1 }, "{what}");
        if !ends_early {
            let named = world.reason()
                == "the interpreter ended before a call of the host that a test named";
            let is_first = call < guest.calls && takes_over.is_none_or(|first| call <= first);
            assert_eq!(named, is_first, "{what}: {}", world.reason());
            assert_eq!(world.engine() == "wasmi", !leaves, "{what}");
        }
    }
    plain
}

/// Looks at everything that can be looked at.
fn looks_around() -> Guest {
    Guest::default()
        .call("(call $note (call $args_sizes_get (i32.const 64) (i32.const 68)))")
        .call("(call $note (call $args_get (i32.const 0x100) (i32.const 0x200)))")
        .call("(call $note (call $environ_sizes_get (i32.const 72) (i32.const 76)))")
        .call("(call $note (call $environ_get (i32.const 0x300) (i32.const 0x400)))")
        .streams()
        .clock()
        .random()
        .call("(call $note (call $fd_prestat_get (i32.const 3) (i32.const 64)))")
        .open("input.txt")
        .call("(call $read (global.get $fd) (i32.const 6))")
        .call("(call $note (call $fd_seek (global.get $fd) (i64.const 1) (i32.const 1) (i32.const 64)))")
        .call("(call $read (global.get $fd) (i32.const 100))")
        .call("(call $read (global.get $fd) (i32.const 100))")
        .call("(call $note (call $fd_filestat_get (global.get $fd) (i32.const 64))) (call $forget (i32.const 64) (i32.const 64))")
        .close()
        .open("nothing.txt")
        .call("(call $note (call $fd_readdir (i32.const 3) (i32.const 0x800) (i32.const 0x800) (i64.const 0) (i32.const 64)))
          (call $forget (i32.const 0x800) (i32.const 0x800))")
        .call("(call $note (call $sched_yield))")
}

/// Calls that look as if they did something, and do nothing that can be seen from outside.
fn changes_nothing() -> Guest {
    let mut guest = Guest::default();
    // What Go does first.
    for fd in 0..3 {
        guest = guest.call(&format!(
            "(call $note (call $fd_fdstat_set_flags (i32.const {fd}) (i32.const 4)))"
        ));
    }
    guest
        .call("(call $note (call $fd_fdstat_set_rights (i32.const 1) (i64.const 0) (i64.const 0)))")
        .call("(call $note (call $fd_pwrite (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 8)))")
        .call("(call $note (call $fd_filestat_set_size (i32.const 1) (i64.const 0)))")
        .call("(call $note (call $fd_filestat_set_times (i32.const 1) (i64.const 0) (i64.const 0) (i32.const 0)))")
        .call("(call $note (call $proc_raise (i32.const 2)))")
        .call("(call $note (call $sock_accept (i32.const 0) (i32.const 0) (i32.const 64)))")
        .call("(call $note (call $sock_shutdown (i32.const 0) (i32.const 1)))")
        .call(&rest(1_000_000))
        .open("input.txt")
        .call("(call $note (call $fd_fdstat_set_flags (global.get $fd) (i32.const 1)))")
        .call("(call $note (call $fd_allocate (global.get $fd) (i64.const 0) (i64.const 100)))")
        .call("(call $note (call $fd_sync (global.get $fd)))")
        .call("(call $note (call $fd_datasync (global.get $fd)))")
        .call("(call $read (global.get $fd) (i32.const 100))")
        // A number that is not in use, and the standard input's.
        .call("(call $note (call $fd_renumber (global.get $fd) (i32.const 9)))")
        .call("(call $note (call $fd_renumber (global.get $fd) (i32.const 0)))")
        .call("(call $note (call $fd_seek (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 64)))")
        .call("(call $read (i32.const 0) (i32.const 4))")
        .call("(call $note (call $fd_close (i32.const 0)))")
}

/// Rests for so many nanoseconds.
fn rest(time: u64) -> String {
    // A subscription of the monotonic clock.
    format!(
        "(i32.store (i32.const 0x110) (i32.const 1))
         (i64.store (i32.const 0x118) (i64.const {time}))
         (call $note (call $poll_oneoff (i32.const 0x100) (i32.const 0x200) (i32.const 1) (i32.const 64)))"
    )
}

/// What must not happen twice, and what comes after it.
fn changes_something(guest: Guest) -> Guest {
    guest
        .create("new.txt")
        .write("written ")
        .print(1, "written\n")
        .write("twice?")
        .close()
        .create("old.txt")
        .write("new")
        .clock()
        .read(4)
        .print(2, "read\n")
        .read(3)
        .echo()
        .open("new.txt")
        .call("(call $read (global.get $fd) (i32.const 100))")
        .print(1, "the end")
}

const INPUT: &[u8] = b"first,second,third,fourth,fifth,sixth";

#[test]
fn the_outside_world_sees_one_run_wherever_it_is_left() {
    let guest = looks_around()
        .read(6)
        .read(7)
        .random()
        .read(3)
        .print(1, "out 1 ")
        .print(2, "err 1\n")
        .print(1, "out 2\n")
        .clock()
        .print(2, "err 2 ")
        .print(2, "")
        .print(1, "out 3 ");
    let guest = changes_something(guest);
    let run = |mut process: Process| {
        process.input(INPUT);
        process.run()
    };
    let plain = leave_at_every_call(&guest, guest.once, &run, &[("rest", "yes")]);
    // The plain run does what the guest is there for.
    assert_eq!(
        text(&plain.stdout),
        "out 1 out 2\nout 3 written\nourthe end"
    );
    assert_eq!(text(&plain.stderr), "err 1\nerr 2 read\n");
    let files = [
        ("input.txt", "from a file\n"),
        ("new.txt", "written twice?"),
        ("old.txt", "new"),
    ];
    let files = files.map(|(name, text)| (name.to_string(), Some(text.as_bytes().to_vec())));
    assert_eq!(plain.files, BTreeMap::from(files));
    assert_eq!(plain.told["rest"], serde_json::json!(b"th,fifth,sixth"));

    let run = |mut process: Process| {
        process.input(INPUT);
        process.run_together()
    };
    let plain = leave_at_every_call(&guest, guest.once, &run, &[("rest", "yes")]);
    let both = "out 1 err 1\nout 2\nerr 2 out 3 written\nread\nourthe end";
    assert_eq!(text(&plain.stdout), both);
}

/// They are repeated, and nobody sees it.
#[test]
fn calls_that_change_nothing() {
    let plain = leave_at_every_call(&changes_nothing(), None, &|process| process.run(), &[]);
    let noted = memory(&plain.output.unwrap());
    let badf = 8_u32.to_le_bytes();
    assert_eq!(noted[NOTES..][..12], [badf, badf, badf].concat());
    assert!(noted.windows(12).any(|bytes| bytes == b"from a file\n"));
}

/// Where no directory can be written to, whatever would change one fails.
#[test]
fn directories_that_are_only_read() {
    let mut guest = Guest::default();
    let [old, new] = ["old.txt", "new.txt"].map(|name| guest.text(name));
    let guest = guest
        .call(&format!(
            "(call $open {new} (i32.const {}) (i64.const {WRITE}))",
            CREATE | TRUNCATE
        ))
        .call(&format!("(call $open {old} (i32.const {TRUNCATE}) (i64.const {WRITE}))"))
        .call(&format!("(call $note (call $path_create_directory (i32.const 3) {new}))"))
        .call(&format!("(call $note (call $path_unlink_file (i32.const 3) {old}))"))
        .call(&format!("(call $note (call $path_rename (i32.const 3) {old} (i32.const 3) {new}))"))
        .open("old.txt")
        .call("(call $note (call $fd_write (global.get $fd) (i32.const 0) (i32.const 0) (i32.const 8)))")
        .call("(call $note (call $fd_filestat_set_size (global.get $fd) (i64.const 0)))")
        .call("(call $note (call $fd_filestat_set_times (global.get $fd) (i64.const 0) (i64.const 0) (i32.const 5)))")
        .print(1, "done");
    let options = [("readonly", "yes")];
    let plain = leave_at_every_call(&guest, None, &|process| process.run(), &options);
    let old = plain.files["old.txt"].as_deref().unwrap();
    assert_eq!(text(old), "to be overwritten");
    assert!(!plain.files.contains_key("new.txt"));
}

/// No output has to be shown, so that standard input can be read at any time.
#[test]
fn captured_output_is_that_of_one_run_wherever_it_is_left() {
    let guest = looks_around()
        .print(1, "name? ")
        .read(6)
        .echo()
        .print(2, "err ")
        .read(6)
        .echo()
        .random()
        .read(100)
        .read(100)
        .print(2, "end");
    let run = |mut process: Process| {
        process.input(INPUT);
        process.run()
    };
    leave_at_every_call(&guest, None, &run, &[("rest", "yes"), ("capture", "yes")]);
    leave_at_every_call(
        &changes_something(guest.clone()),
        Some(guest.calls),
        &run,
        &[("rest", "yes"), ("capture", "yes")],
    );
}

#[test]
fn a_question_and_its_answer_wherever_the_run_is_left() {
    let guest = Guest::default()
        .read(6)
        .clock()
        .print(2, "err ")
        .print(1, "name? ")
        .read(7)
        .echo()
        .print(2, "age? ")
        .read(6)
        .echo();
    let run = |mut process: Process| {
        process.input(INPUT);
        process.run_together()
    };
    leave_at_every_call(&guest, guest.prompt, &run, &[("rest", "yes")]);
    let guest = changes_something(guest);
    leave_at_every_call(&guest, guest.prompt, &run, &[("rest", "yes")]);
}

/// One read takes 64 KiB at the most, so that the last ones are not what the guest asks for.
#[test]
fn more_input_than_one_read_takes() {
    let bytes: Vec<u8> = (0..150_000_u32).map(|i| (i % 251) as u8).collect();
    let read = |guest: Guest, len| {
        // Over what was read before, of which the beginning stays.
        guest
            .read(len)
            .wat("(global.set $notes (i32.const 0x10010))")
    };
    let guest = read(read(read(Guest::default(), 1000), 100_000), 100_000);
    let guest = guest.read(5).clock().print(1, "end");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let run = |mut process: Process| {
        process
            .command
            .stdin(std::fs::File::open(file.path()).unwrap());
        process.run()
    };
    leave_at_every_call(&guest, None, &run, &[("rest", "yes")]);
}

// ----- runs that fail -----

/// Output on both streams.
fn prints() -> Guest {
    Guest::default()
        .print(1, "out 1\n")
        .print(2, "err 1 ")
        .print(1, "out 2 ")
        .print(2, "err 2")
}

/// Asserts that a run that fails looks like a plain one, at whichever call it is left. Returns the
/// plain run.
fn fail_at_every_call(guest: &Guest, code: &str, options: &[(&str, &str)]) -> World {
    let plain = leave_at_every_call(
        guest,
        guest.once,
        &|process: Process| process.run(),
        options,
    );
    assert_eq!(plain.code(), code);
    assert_eq!(text(&plain.stdout), "out 1\nout 2 ");
    assert_eq!(text(&plain.stderr), "err 1 err 2");
    let together = |process: Process| process.run_together();
    let plain_together = leave_at_every_call(guest, guest.once, &together, options);
    assert_eq!(text(&plain_together.stdout), "out 1\nerr 1 out 2 err 2");
    plain
}

#[test]
fn a_trap_after_output() {
    let guest = prints()
        .field(
            "(func $deep (param i32)
               (drop (i32.div_u (i32.const 1) (local.get 0)))
               (call $deep (i32.sub (local.get 0) (i32.const 1))))",
        )
        .wat("(call $deep (i32.const 2))");
    let plain = fail_at_every_call(&guest, "ERR_WIZER_TRAP", &[]);
    let frames = plain.told["frames"].as_array().unwrap();
    let names: Vec<_> = frames
        .iter()
        .map(|frame| frame.as_str().unwrap().split_once('!').unwrap().1)
        .collect();
    assert_eq!(names, ["deep", "deep", "deep", "init"]);
}

#[test]
fn an_exit_after_output() {
    for status in [0, 3, 255] {
        let plain = fail_at_every_call(&prints().exit(status), "ERR_WIZER_EXIT", &[]);
        let error = plain.told["error"].as_str().unwrap();
        let told = error.contains(&format!("exit status {status}"));
        assert!(
            told && error.contains("--allow-exit") == (status == 0),
            "{error}"
        );
    }
}

#[test]
fn a_call_of_an_import_that_nobody_provides_after_output() {
    let guest = prints()
        .import(r#"(import "env" "missing" (func $missing))"#)
        .call_once("(call $missing)");
    fail_at_every_call(&guest, "ERR_WIZER_IMPORT_MISSING", &[]);
}

#[test]
fn more_memory_than_is_allowed_after_output() {
    let guest = prints().wat("(call $note (memory.grow (i32.const 1)))");
    fail_at_every_call(
        &guest,
        "ERR_WIZER_MEMORY_LIMIT",
        &[("max-memory", "300000")],
    );
}

/// The run itself succeeds, whose state cannot be written.
#[test]
fn state_that_cannot_be_written_after_output() {
    let guest = prints();
    let run = |option, value: &str| {
        let options = [(option, value), ("max-segments", "0")];
        Process::new(&guest.wasm(), &options).run_together()
    };
    let plain = run("engine", "baseline");
    assert_eq!(plain.code(), "ERR_WIZER_TOO_MANY_SEGMENTS");
    assert_eq!(text(&plain.stdout), "out 1\nerr 1 out 2 err 2");
    for call in 0..=guest.calls {
        let world = run("leave-at", &call.to_string());
        world.assert_same(&format!("left at {call}"), &plain);
        assert_eq!(world.attempts(), if call < guest.calls { 2 } else { 1 });
    }
}

/// Compiled code takes over, and does not come to an end either.
#[test]
fn a_timeout_after_output() {
    fail_at_every_call(
        &prints().endless(),
        "ERR_WIZER_TIMEOUT",
        &[("timeout", "600")],
    );
}

/// The interpreter has written nothing yet when the time is over.
#[test]
fn a_timeout_with_output_held_back() {
    assert_ends_once(&[("timeout", "300")], "ERR_WIZER_TIMEOUT");
}

#[test]
fn an_abort_with_output_held_back() {
    assert_ends_once(&[("abort", "300")], "ERR_WIZER_ABORTED");
}

/// Ends an endless loop in the interpreter.
fn assert_ends_once(options: &[(&str, &str)], code: &str) {
    let wasm = with_unused_code(&prints().endless().wasm());
    let world = Process::new(&wasm, options).run_together();
    assert_eq!(world.code(), code);
    assert_eq!(world.attempts(), 1, "no compiler was done before");
    assert_eq!(text(&world.stdout), "out 1\nerr 1 out 2 err 2");
}

/// Neither a wait for who reads the output, nor one for the output of an interpreter that has come
/// to its end.
#[test]
fn output_that_nobody_takes_in_time() {
    // More than a pipe holds.
    let mut guest = Guest::default();
    let text = guest.text(&"0123456789abcde\n".repeat(64));
    let guest = guest.wat(&repeat(400, &format!("(call $print (i32.const 1) {text})")));
    for engine in ["auto", "interpreter", "baseline", "optimizing"] {
        for (option, code) in [
            ("timeout", "ERR_WIZER_TIMEOUT"),
            ("abort", "ERR_WIZER_ABORTED"),
        ] {
            let mut process = Process::new(&guest.wasm(), &[("engine", engine), (option, "300")]);
            let began = std::time::Instant::now();
            let mut output = process.together();
            let mut child = process.spawn();
            process.close();
            child.wait().unwrap();
            assert!(began.elapsed() < std::time::Duration::from_secs(20));
            let mut taken = Vec::new();
            output.read_to_end(&mut taken).unwrap();
            assert!(
                taken.starts_with(b"0123456789abcde\n"),
                "what there was room for"
            );
            let world = process.end(child);
            assert_eq!(world.code(), code, "{engine}");
        }
    }
}

/// Who aborts has seen the output.
#[test]
fn an_abort_after_output() {
    let wasm = prints().endless().wasm();
    for engine in ["auto", "baseline", "optimizing"] {
        let mut process = Process::new(&wasm, &[("engine", engine), ("abort", "input")]);
        process.command.stdin(Stdio::piped());
        let mut output = process.together();
        let mut child = process.spawn();
        process.close();
        let expected = "out 1\nerr 1 out 2 err 2";
        let mut seen = vec![0; expected.len()];
        output.read_exact(&mut seen).unwrap();
        assert_eq!(text(&seen), expected, "{engine}");
        drop(child.stdin.take());
        let world = process.end(child);
        output.read_to_end(&mut seen).unwrap();
        assert_eq!(text(&seen), expected, "{engine}: nothing more");
        assert_eq!(world.code(), "ERR_WIZER_ABORTED", "{engine}");
    }
}

// ----- standard input -----

/// Who answers has seen the question.
#[test]
fn a_question_comes_before_its_answer() {
    for greets in [false, true] {
        let mut guest = Guest::default().clock();
        if greets {
            guest = guest.print(1, "Hello.\n");
        }
        let wasm = guest.print(1, "name? ").read(100).echo().wasm();
        let question = if greets { "Hello.\nname? " } else { "name? " };
        for engine in ["auto", "interpreter", "baseline", "optimizing"] {
            let mut process = Process::new(&wasm, &[("engine", engine)]);
            process.command.stdin(Stdio::piped());
            let mut child = process.spawn();
            let (mut input, mut output) =
                (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut seen = vec![0; question.len()];
            output.read_exact(&mut seen).unwrap();
            assert_eq!(text(&seen), question, "{engine}");
            input.write_all(b"Ada\n").unwrap();
            output.read_to_end(&mut seen).unwrap();
            assert_eq!(text(&seen), format!("{question}Ada\n"), "{engine}");
            let world = process.end(child);
            assert_eq!(world.code(), "none");
            if engine == "auto" {
                assert_eq!(
                    world.reason(),
                    "the interpreter ended before it waited for input with output to show"
                );
            }
        }
    }
}

/// The same on a terminal, which repeats what is typed. What is typed after the question must stand
/// behind it.
#[cfg(unix)]
#[test]
fn a_question_on_a_terminal() {
    let guest = Guest::default()
        .streams()
        .read(100)
        .print(1, "name? ")
        .read(100)
        .echo()
        .print(2, "age? ")
        .read(100)
        .echo();
    let guests = [
        (guest.clone(), "none"),
        (guest.wat("(unreachable)"), "ERR_WIZER_TRAP"),
    ];
    for (guest, code) in guests {
        let mut plain = None;
        for engine in ["baseline", "auto", "interpreter", "optimizing"] {
            let steps = r#"[["", "begin\n"], ["begin\r\nname? ", "Ada\n"], ["age? ", "36\n"]]"#;
            let (seen, world) = on_terminal(&guest, &[("engine", engine)], steps);
            let expected = "begin\r\nname? Ada\r\nAda\r\nage? 36\r\n36\r\n";
            assert_eq!(seen, expected, "{engine}");
            assert_eq!(world.code(), code, "{engine}");
            // The streams are a terminal for all of them.
            let plain = plain.get_or_insert_with(|| world.output.clone());
            assert!(world.output == *plain, "{engine}: the output");
        }
    }
}

/// On a terminal there may be more to read after an end of input. It is the same again in a second
/// run.
#[cfg(unix)]
#[test]
fn the_end_of_input_on_a_terminal_is_not_the_end() {
    // The last read sees whether an end was swallowed: it would wait for ever.
    let guest = Guest::default()
        .read(100)
        .read(100)
        .read(100)
        .read(100)
        .read(100);
    let steps = r#"[["", "one\n\u0004two\nthree\n\u0004"]]"#;
    let (_, plain) = on_terminal(&guest, &[("engine", "baseline")], steps);
    for call in 0..=guest.calls {
        let (_, world) = on_terminal(&guest, &[("leave-at", &call.to_string())], steps);
        world.assert_same(&format!("left at {call}"), &plain);
        assert_eq!(world.attempts(), if call < guest.calls { 2 } else { 1 });
    }
    let notes: Vec<u8> = [&b"one\n"[..], b"", b"two\n", b"three\n", b""]
        .into_iter()
        .flat_map(read_note)
        .collect();
    let noted = memory(&plain.output.unwrap());
    assert!(noted[NOTES..].starts_with(&notes));
}

/// Runs on a pseudo-terminal. In each step, a text is typed once there is another at the end of what
/// is to be seen. Returns what is to be seen at the end.
#[cfg(unix)]
fn on_terminal(guest: &Guest, options: &[(&str, &str)], steps: &str) -> (String, World) {
    let mut process = Process::new(&guest.wasm(), options);
    let mut python = Command::new("python3");
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiers/terminal.py"))
        .arg(steps)
        .arg(process.command.get_program())
        .args(process.command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    process.command = python;
    let world = process.run();
    (text(&world.stdout), world)
}

/// What a guest notes of a read.
#[cfg(unix)]
fn read_note(bytes: &[u8]) -> Vec<u8> {
    let (errno, len) = (0_u32, bytes.len() as u32);
    [&errno.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
}

/// The memory of a guest that was initialized.
#[cfg(unix)]
fn memory(wasm: &[u8]) -> Vec<u8> {
    let judge = common::judge::Judge::new(&[]);
    judge.instantiate(wasm).unwrap().memory("memory")
}

/// Each message is what one read takes. An empty one is the end of the input, and need not be the
/// last.
#[cfg(unix)]
#[test]
fn pieces_of_input_are_the_same_pieces_again() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    // That one may be empty is told of Linux.
    let end = if cfg!(target_os = "linux") { "" } else { "-" };
    let pieces = ["one", end, "three 3", "4", end, end, "seven 7"].map(str::as_bytes);
    let guest = pieces
        .iter()
        .fold(Guest::default(), |guest, _| guest.read(64).clock());
    let guest = guest.create("new.txt").write("end");
    let run = |mut process: Process| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for piece in pieces {
            assert_eq!(ours.send(piece).unwrap(), piece.len());
        }
        process.command.stdin(OwnedFd::from(theirs));
        process.run()
    };
    let plain = leave_at_every_call(&guest, guest.once, &run, &[]);
    let clock = [0, 0, 0, 0, 1, 0, 0, 0];
    let notes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| [read_note(piece), clock.to_vec()].concat())
        .collect();
    let noted = memory(&plain.output.unwrap());
    assert!(noted[NOTES..].starts_with(&notes));
}

/// The guest is not told, as it was done by then. What goes elsewhere is not lost.
#[test]
fn output_that_nobody_takes() {
    let run = |engine| {
        let mut process = Process::new(&prints().wasm(), &[("engine", engine)]);
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        process.command.stdout(writer);
        process.run()
    };
    let (plain, auto) = (run("optimizing"), run("auto"));
    assert_eq!(auto.attempts(), 2);
    assert_eq!(auto.code(), plain.code());
    assert_eq!(text(&auto.stderr), text(&plain.stderr));
    let reason = "the interpreter ended before it wrote to a stream that nobody reads";
    assert_eq!(auto.reason(), reason);
}

// ----- what only compiled code may do -----

/// Asserts that a run looks like a plain one on `engine`, and that the interpreter leaves it for
/// this reason. Returns the plain run.
fn goes_over(
    what: &str,
    guest: &Guest,
    engine: &str,
    reason: &str,
    prepare: &dyn Fn(&mut Process),
) -> World {
    goes_over_wasm(what, &guest.wasm(), engine, reason, prepare)
}

fn goes_over_wasm(
    what: &str,
    wasm: &[u8],
    engine: &str,
    reason: &str,
    prepare: &dyn Fn(&mut Process),
) -> World {
    let run = |engine| {
        let mut process = Process::new(wasm, &[("engine", engine)]);
        prepare(&mut process);
        process.run_together()
    };
    let plain = run(engine);
    assert_eq!(plain.code(), "none", "{what}: {}", plain.told["error"]);
    let mut auto = run("auto");
    for _ in 0..20 {
        auto.assert_same(what, &plain);
        // On a busy machine, compiled code may be there before the interpreter comes so far.
        if !auto
            .reason()
            .starts_with("the interpreter ended before it was done")
        {
            break;
        }
        auto = run("auto");
    }
    assert_eq!(auto.reason(), reason, "{what}");
    assert!(
        auto.engine().starts_with("wasmtime"),
        "{what}: {}",
        auto.engine()
    );
    plain
}

#[test]
fn more_output_than_is_held_back() {
    let chunk = "0123456789abcde\n".repeat(1000);
    let mut guest = Guest::default().print(1, "begin\n").print(2, "err\n");
    let place = guest.text(&chunk);
    let guest = guest
        .wat(&repeat(80, &format!("(call $print (i32.const 1) {place})")))
        .print(2, "end");
    let reason = "the interpreter ended before its output grew beyond 1048576 bytes";
    let plain = goes_over("much output", &guest, "baseline", reason, &|_| {});
    let expected = format!("begin\nerr\n{}end", chunk.repeat(80));
    assert!(text(&plain.stdout) == expected);
}

/// A second run reads everything again.
#[test]
fn more_input_than_is_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; 20 << 20];
    let mut random = common::Random::new(1);
    for piece in bytes.chunks_mut(1000) {
        piece[0] = random.byte();
    }
    std::fs::write(file.path(), &bytes).unwrap();
    // What is read is added up, in a word at the end of the memory.
    let read = format!(
        "(global.set $notes (i32.const {NOTES}))
         (call $read (i32.const 0) (i32.const 0x10000))
         (local.set $at (i32.const 0))
         (loop $sum
           (i32.store (i32.const 0x3fffc) (i32.add (i32.load (i32.const 0x3fffc))
             (i32.mul (global.get $i) (i32.load offset={NOTES} (local.get $at)))))
           (br_if $sum (i32.lt_u
             (local.tee $at (i32.add (local.get $at) (i32.const 1000)))
             (i32.const 0x10000))))"
    );
    let sums = format!("(func $sums (local $at i32) {})", repeat(310, &read));
    let guest = Guest::default()
        .field(&sums)
        .wat("(call $sums)")
        .print(1, "end");
    let input = |process: &mut Process| {
        process.command.args(["rest", "yes"]);
        process
            .command
            .stdin(std::fs::File::open(file.path()).unwrap());
    };
    let reason = "the interpreter ended before its input grew beyond 16 MiB";
    goes_over("much input", &guest, "baseline", reason, &input);
}

/// Code that runs so many times.
fn repeat(times: u32, code: &str) -> String {
    format!(
        "(global.set $i (i32.const 0))
         (loop $next
           {code}
           (global.set $i (i32.add (global.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (global.get $i) (i32.const {times}))))"
    )
}

/// Every piece is for another stream than the one before.
#[test]
fn output_in_many_pieces() {
    const PIECES: usize = 200_000;
    let mut guest = prints();
    let place = guest.text("abc");
    // Without notes, which would fill the memory.
    let print = format!(
        "(global.set $notes (i32.const {NOTES}))
         (call $print (i32.add (i32.const 1) (i32.and (global.get $i) (i32.const 1))) {place})"
    );
    let guest = guest.wat(&repeat(PIECES as u32, &print)).print(1, "end");
    let run = |engine| {
        let process = Process::new(&guest.wasm(), &[("engine", engine)]);
        process.run_together()
    };
    let plain = run("baseline");
    for engine in ["auto", "interpreter"] {
        run(engine).assert_same(engine, &plain);
    }
    let expected = format!("out 1\nerr 1 out 2 err 2{}end", "abc".repeat(PIECES));
    assert!(text(&plain.stdout) == expected);
}

#[test]
fn more_memory_than_an_interpreter_should_have() {
    let reason = "the interpreter ended before its memories took more than 64 MiB";
    let none = |_: &mut Process| {};
    let grown = prints()
        .wat("(call $note (memory.grow (i32.const 1100)))")
        .print(1, "grown");
    goes_over("grown memory", &grown, "baseline", reason, &none);
    let step = "(call $note (memory.grow (i32.const 600)))";
    let grown = prints()
        .wat(step)
        .print(1, "once")
        .wat(step)
        .print(2, "twice");
    goes_over("grown twice", &grown, "baseline", reason, &none);
    let declared = prints().field("(memory 1100)");
    goes_over("declared memory", &declared, "baseline", reason, &none);
    // A slot counts for 8 bytes.
    let table = prints()
        .field("(table $t 1 funcref)")
        .wat("(call $note (table.grow $t (ref.null func) (i32.const 9_000_000)))");
    let run = |engine| Process::new(&table.wasm(), &[("engine", engine)]).run_together();
    let (plain, auto) = (run("baseline"), run("auto"));
    assert_eq!(plain.code(), "none");
    auto.assert_same("grown table", &plain);
    assert_eq!(auto.attempts(), 2);
    // What the module itself does not allow is no growth.
    let wasm = prints()
        .field("(memory $limited 1 2)")
        .wat("(call $note (memory.grow $limited (i32.const 1100)))")
        .wasm();
    let world = Process::new(&wasm, &[]).run();
    assert_eq!((world.engine(), world.attempts()), ("wasmi", 1));
}

#[test]
fn changes_of_directories() {
    let none = |_: &mut Process| {};
    for (name, call) in [
        ("path_create_directory", "new"),
        ("path_unlink_file", "old.txt"),
    ] {
        let mut guest = prints();
        let path = guest.text(call);
        let guest = guest
            .call(&format!("(call $note (call ${name} (i32.const 3) {path}))"))
            .print(1, "done");
        let reason = format!("the interpreter ended before the call of `{name}`");
        let plain = goes_over(name, &guest, "baseline", &reason, &none);
        assert_eq!(plain.files.contains_key("new"), call == "new");
        assert_eq!(plain.files.contains_key("old.txt"), call == "new");
    }
}

/// What was printed before a rest can be seen while it lasts.
#[test]
fn a_rest_comes_after_what_was_printed() {
    let guest = prints().call(&rest(1_000_000)).print(1, "rested");
    let reason = "the interpreter ended before it rested with output to show";
    goes_over("a rest", &guest, "baseline", reason, &|_| {});
    // Nor does a run rest for long that may have to do so again.
    let guest = Guest::default()
        .call(&rest(30_000_000))
        .call(&rest(30_000_000));
    let reason = "the interpreter ended before the call of `poll_oneoff`";
    goes_over("a long rest", &guest, "baseline", reason, &|_| {});
}

/// What is read there is gone, and opening it alone can be seen.
#[cfg(unix)]
#[test]
fn what_is_neither_a_file_nor_a_directory() {
    let reason = "the interpreter ended before `path_open` of what is no file or directory";
    let read = |path: &str| {
        prints()
            .open(path)
            .call("(call $read (global.get $fd) (i32.const 16))")
            .call("(call $read (global.get $fd) (i32.const 16))")
            .close()
    };
    let fifo = |process: &mut Process| {
        let path = process.guest().join("pipe");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // Opening it waits for a reader. There may be none any more, and nobody waits for this.
        std::thread::spawn(move || std::fs::write(path, "from a pipe"));
    };
    goes_over("a pipe", &read("pipe"), "baseline", reason, &fifo);

    let devices = |process: &mut Process| {
        process.command.arg("dir").arg("/dev");
    };
    let zero = prints()
        .wat("(global.set $directory (i32.const 4))")
        .open("zero")
        .call("(call $read (global.get $fd) (i32.const 16))");
    let plain = goes_over("a device", &zero, "baseline", reason, &devices);
    let noted = memory(&plain.output.unwrap());
    assert!(
        noted[NOTES..]
            .windows(4)
            .any(|bytes| bytes == [16, 0, 0, 0])
    );

    // A link to a directory or a file is as good as what it leads to.
    let linked = |process: &mut Process| {
        std::os::unix::fs::symlink("input.txt", process.guest().join("link")).unwrap();
    };
    let mut process = Process::new(&read("link").wasm(), &[]);
    linked(&mut process);
    let world = process.run();
    assert_eq!(
        (world.engine(), world.attempts()),
        ("wasmi", 1),
        "{}",
        world.told
    );
    let noted = memory(&world.output.unwrap());
    assert!(noted.windows(12).any(|bytes| bytes == b"from a file\n"));
}

/// What a guest writes to standard output is not always for the process's.
#[test]
fn a_file_in_the_place_of_standard_output() {
    let none = |_: &mut Process| {};
    let closed = prints()
        .call("(call $note (call $fd_close (i32.const 1)))")
        .open("input.txt")
        .create("new.txt")
        .print(1, "no file is open for writing as 1")
        .write("to the file")
        .print(2, "end");
    let reason = "the interpreter ended before `path_open` for writing";
    let plain = goes_over("closed", &closed, "baseline", reason, &none);
    assert_eq!(text(&plain.stdout), "out 1\nerr 1 out 2 err 2end");

    let mut reopened = prints().call("(call $note (call $fd_close (i32.const 1)))");
    let path = reopened.text("new.txt");
    let how = CREATE | TRUNCATE;
    let reopened = reopened
        .call(&format!(
            "(call $open {path} (i32.const {how}) (i64.const {WRITE}))"
        ))
        .print(1, "to the file")
        .print(2, "end");
    let plain = goes_over("opened again", &reopened, "baseline", reason, &none);
    assert_eq!(text(&plain.stdout), "out 1\nerr 1 out 2 err 2end");
    let file = plain.files["new.txt"].as_deref().unwrap();
    assert_eq!(text(file), "to the file");

    let renumbered = prints()
        .open("input.txt")
        .call("(call $note (call $fd_renumber (global.get $fd) (i32.const 1)))")
        .print(1, "not for standard output")
        .print(2, "end");
    let reason = "the interpreter ended before the call of `fd_write`";
    let plain = goes_over("renumbered", &renumbered, "baseline", reason, &none);
    assert_eq!(text(&plain.stdout), "out 1\nerr 1 out 2 err 2end");

    let read = prints()
        .call("(call $note (call $fd_close (i32.const 0)))")
        .open("input.txt")
        .call("(call $read (i32.const 0) (i32.const 100))")
        .print(2, "end");
    let run = |engine| Process::new(&read.wasm(), &[("engine", engine)]).run_together();
    let auto = run("auto");
    auto.assert_same("another input", &run("baseline"));
    assert_eq!(auto.attempts(), 1, "{}", auto.told);
}

/// wasmi says so when it loads the module, or when it comes to the function.
#[test]
fn what_wasmi_cannot_run() {
    let module = prints().field("(type $s (struct (field i32)))");
    let function = prints()
        .field(
            "(func $relaxed (drop (f32x4.relaxed_min
               (v128.const i32x4 0 0 0 0) (v128.const i32x4 0 0 0 0))))",
        )
        .wat("(call $relaxed)")
        .print(1, "end");
    for (guest, why) in [(module, "struct"), (function, "relaxed SIMD")] {
        let wasm = guest.wasm();
        let plain = Process::new(&wasm, &[("engine", "optimizing")]).run_together();
        let auto = Process::new(&wasm, &[]).run_together();
        auto.assert_same(why, &plain);
        assert!(auto.reason().contains(why), "{}", auto.reason());
        assert!(auto.engine().starts_with("wasmtime"));
        assert!(text(&auto.stdout).starts_with("out 1\nerr 1 out 2 err 2"));
    }
}

#[test]
fn a_provided_function_is_called_once() {
    let guest = prints()
        .import(r#"(import "env" "count" (func $count (param i32) (result i32)))"#)
        .wat("(call $note (call $count (i32.const 7)))")
        .print(1, "between ")
        .wat("(call $note (call $count (i32.const 8)))");
    let run = |engine| {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = calls.clone();
        let mut wizer = Wizer::new();
        wizer
            .engine(engine)
            .capture_output()
            .allow_wasi(true)
            .unwrap();
        wizer.import("env", "count", move |_, args| {
            noted.lock().unwrap().push(args.to_vec());
            Ok(vec![Value::I32(noted.lock().unwrap().len() as i32)])
        });
        let outcome = wizer.snapshot(&guest.wasm()).unwrap();
        let calls = calls.lock().unwrap().clone();
        assert_eq!(calls, [[Value::I32(7)], [Value::I32(8)]]);
        outcome
    };
    let (plain, auto) = (run(Engine::Baseline), run(Engine::Auto));
    assert_eq!(
        auto.report.engine.reason,
        "the interpreter ended before the call of `env::count`"
    );
    assert_eq!(
        (auto.wasm, auto.stdout, auto.stderr),
        (plain.wasm, plain.stdout, plain.stderr)
    );
}

/// The functions of a linker of one's own are wasmtime's.
#[test]
fn a_function_of_a_linker_is_called_once() {
    let text = br#"(module
        (import "env" "count" (func $count (result i32)))
        (global $n (export "n") (mut i32) (i32.const 0))
        (func (export "wizer.initialize") (global.set $n (call $count))))"#;
    let calls = Arc::new(Mutex::new(0));
    let count = calls.clone();
    let mut wizer = Wizer::new();
    let linker = move |engine: &wizer::wasmtime::Engine| {
        let count = count.clone();
        let mut linker = wizer::wasmtime::Linker::new(engine);
        linker.func_wrap("env", "count", move || {
            *count.lock().unwrap() += 1;
            *count.lock().unwrap()
        })?;
        Ok(linker)
    };
    wizer.make_linker(Some(Rc::new(linker))).unwrap();
    let outcome = wizer.snapshot(text).unwrap();
    let reason = &outcome.report.engine.reason;
    assert!(reason.contains("linker"), "{reason}");
    assert_eq!(*calls.lock().unwrap(), 1);
}

// ----- modules that are not valid -----

/// The interpreter looks at a function when it is called. What it has done by then must not be seen.
#[test]
fn a_module_that_turns_out_not_to_be_valid() {
    let invalid = "(func $never (result i32) (i32.add (i32.const 1)))";
    let mut start = Guest::default();
    let greeting = start.text("from the start function");
    let start = start.field(&format!(
        "(start $start) (func $start (call $print (i32.const 1) {greeting}))"
    ));
    let guests = [
        ("start", start),
        ("output", prints()),
        ("endless", prints().endless()),
        ("trap", prints().wat("(unreachable)")),
        ("exit", prints().exit(0)),
        ("file", changes_something(prints())),
        ("called", prints().wat("(drop (call $never))")),
    ];
    for (what, guest) in guests {
        let wasm = guest.field(invalid).wasm();
        for engine in ["auto", "interpreter", "baseline", "optimizing"] {
            let process = Process::new(&wasm, &[("engine", engine)]);
            let before = files(&process.guest());
            let world = process.run();
            let what = format!("{what}, {engine}");
            assert_eq!(world.code(), "ERR_WIZER_INVALID_MODULE", "{what}");
            assert_eq!(text(&world.stdout), "", "{what}");
            assert_eq!(text(&world.stderr), "", "{what}");
            assert_eq!(world.files, before, "{what}");
        }
    }
}

/// It takes nothing from standard input, where nobody has to answer.
#[test]
fn a_module_that_is_not_valid_and_wants_input() {
    let invalid = "(func $never (result i32) (i32.add (i32.const 1)))";
    let wasm = Guest::default().read(10).field(invalid).wasm();
    for engine in ["auto", "interpreter", "baseline", "optimizing"] {
        let mut process = Process::new(&wasm, &[("engine", engine)]);
        process.command.stdin(Stdio::piped());
        let mut child = process.spawn();
        let input = child.stdin.take();
        let world = process.end(child);
        drop(input);
        assert_eq!(world.code(), "ERR_WIZER_INVALID_MODULE", "{engine}");

        let mut process = Process::new(&wasm, &[("engine", engine), ("rest", "yes")]);
        process.input(INPUT);
        let world = process.run();
        assert_eq!(world.told["rest"], serde_json::json!(INPUT), "{engine}");
    }
}

// ----- long runs -----

/// Fills a page with what takes so many steps.
fn long(steps: u32) -> Guest {
    Guest::default().field(&format!(
        "(func $compute (local $x i32) (local $i i32)
           (local.set $x (i32.const 1))
           (loop $next
             (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
             (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
             (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
             (i32.store offset=0x20000 (i32.and (local.get $i) (i32.const 0xfffc)) (local.get $x))
             (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br_if $next (i32.lt_u (local.get $i) (i32.const {steps})))))"
    ))
}

/// More than an interpreter does while a compiler is at work.
const MANY: u32 = 100_000_000;

#[test]
fn compiled_code_takes_over_from_a_long_run() {
    let guest = prints().read(3).wat("(call $compute)").print(1, "end");
    let wasm = Guest {
        fields: long(MANY).fields,
        ..guest
    }
    .wasm();
    let run = |engine| {
        let mut process = Process::new(
            &wasm,
            &[("engine", engine), ("rest", "yes"), ("capture", "yes")],
        );
        process.input(INPUT);
        process.run()
    };
    let auto = run("auto");
    let reason = auto.reason();
    assert!(reason.contains("it was done: "), "{reason}");
    assert_eq!(auto.engine(), "wasmtime (Cranelift)");
    assert_eq!(auto.attempts(), 2);
    for engine in ["interpreter", "baseline", "optimizing"] {
        auto.assert_same(engine, &run(engine));
    }
}

/// Beside each other, the same and different modules.
#[test]
fn several_long_runs_at_once() {
    let guests: Vec<Guest> = (0..3)
        .map(|i| long(MANY + i % 2).wat("(call $compute)").print(1, "end"))
        .collect();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = |guest: &Guest| {
            let wasm = guest.wasm();
            let run = move || {
                let mut wizer = Wizer::new();
                wizer
                    .cache(CacheLocation::Off)
                    .capture_output()
                    .allow_wasi(true)
                    .unwrap();
                wizer.snapshot(&wasm).unwrap()
            };
            scope.spawn(run)
        };
        let threads: Vec<_> = guests.iter().map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (guest, outcome) in guests.iter().zip(&outcomes) {
        let mut wizer = Wizer::new();
        wizer
            .engine(Engine::Optimizing)
            .capture_output()
            .allow_wasi(true)
            .unwrap();
        let plain = wizer.snapshot(&guest.wasm()).unwrap();
        assert!(plain.wasm == outcome.wasm);
        assert_eq!(outcome.stdout.as_deref(), Some(&b"end"[..]));
        assert_eq!(outcome.report.engine.name, "wasmtime (Cranelift)");
        let reason = &outcome.report.engine.reason;
        assert!(reason.contains("it was done: "), "{reason}");
    }
    assert!(outcomes[0].wasm != outcomes[1].wasm, "the modules differ");
}

/// wasmi 2.0.0 gets many of them wrong, where they compare with zero and are given as they are.
#[test]
fn what_the_interpreter_selects_is_right() {
    let conditions = [
        "(local.get $x)",
        "(i32.eqz (local.get $x))",
        "(i32.eqz (call $id (local.get $x)))",
        "(i32.eqz (i32.load (local.get $x)))",
        "(i32.eqz (i32.eqz (local.get $x)))",
        "(i32.eqz (i32.ne (local.get $x) (i32.const 5)))",
        "(i32.eqz (i32.and (local.get $x) (local.get $y)))",
        "(i32.eqz (local.tee $z (local.get $x)))",
        "(i32.eqz (local.tee $z (i32.load (local.get $x))))",
        "(i32.eq (local.get $x) (i32.const 0))",
        "(i32.ne (local.get $x) (i32.const 0))",
        "(i32.ne (i32.const 0) (local.get $x))",
        "(i32.eq (i32.const 0) (call $id (local.get $y)))",
        "(i32.ne (i32.load (local.get $x)) (i32.const 0))",
        "(i32.ne (i32.add (local.get $x) (i32.const 0)) (i32.const 0))",
        "(i32.eq (local.get $x) (i32.sub (i32.const 5) (i32.const 5)))",
        "(i32.eq (local.get $x) (i32.and (local.get $y) (i32.const 0)))",
        "(i32.eq (local.get $x) (i32.mul (local.get $y) (i32.const 0)))",
        "(i32.eq (local.get $x) (i32.shl (local.get $y) (i32.const 0)))",
        "(i32.eq (local.get $x) (i32.xor (local.get $y) (local.get $y)))",
        "(i32.eq (local.get $x) (i32.load (i32.const 0)))",
        "(i32.ne (local.get $x) (i32.const 1))",
        "(i32.eq (local.get $x) (local.get $y))",
        "(i32.ne (i32.wrap_i64 (i64.extend_i32_u (local.get $x))) (i32.const 0))",
        "(i32.ne (i32.wrap_i64 (i64.shr_u (i64.extend_i32_u (local.get $x)) (i64.const 1))) (i32.const 0))",
        "(i64.eqz (i64.extend_i32_u (local.get $x)))",
        "(f32.eq (f32.convert_i32_s (local.get $x)) (f32.const 0))",
        "(block (result i32) (i32.eqz (local.get $x)))",
        "(block (result i32) (i32.ne (i32.const 0) (i32.load (local.get $x))))",
        "(i32.eq (local.get $y) (i32.and (if (result i32) (local.get $x) (then (i32.const 0)) (else (local.get $y))) (i32.const 3)))",
        "(i32.load (local.get $x)) (i32.store offset=64 (i32.const 0) (call $id (local.get $y))) i32.eqz",
        "(i32.load (local.get $x)) (i32.const 0) (i32.store offset=64 (i32.const 0) (call $id (local.get $y))) i32.eq",
        "(i32.eqz (local.get $x)) nop",
        "(i32.eqz (local.get $x)) (local.set $y (local.get $y))",
        "(i32.eqz (local.get $x)) (local.set $y (i32.const 1))",
        // What else wasmi makes no code of.
        "(i32.shl (i32.eqz (local.get $x)) (i32.const 0))",
        "(i64.eqz (i64.extend_i32_u (i32.ne (local.get $x) (i32.const 0))))",
        "(i64.ne (i64.extend_i32_u (i32.eqz (local.get $x))) (i64.const 0))",
        "(i64.eq (i64.const 0) (i64.shl (i64.extend_i32_u (i32.eqz (local.get $x))) (i64.const 64)))",
        "(i32.shr_u (i32.ne (local.get $x) (i32.const 0)) (i32.const 32))",
        "(i32.rotr (i32.eqz (local.get $x)) (i32.sub (i32.const 5) (i32.const 5)))",
        "(i32.rotl (i32.shr_s (i32.eqz (local.get $x)) (i32.const 0)) (i32.const 64))",
        "(block $b (result i32) (br_if $b (i32.eqz (local.get $x)) (i32.const 0)))",
        "(block $b (result i32) (i32.eqz (local.get $x)) (br_if $b (i32.const 0)) nop)",
        "(i32.eqz (local.get $x)) (i32.const 1) (if (param i32) (result i32) (then) (else (drop) (i32.const 1)))",
        "(i32.eqz (local.get $x)) (block (param i32) (result i32))",
        "(i32.eqz (local.get $x)) (loop (param i32) (result i32))",
        "(i32.eqz (local.get $x)) (drop (i32.const 1))",
        "(i32.eqz (local.get $x)) (drop (local.get $y))",
        "(i32.eqz (local.get $x)) (local.set $z (local.tee $z (local.get $z)))",
        "(select (i32.eqz (local.get $x)) (i32.const 4) (i32.const 1))",
        "(select (local.get $y) (local.get $y) (i32.eqz (local.get $x)))",
        "(i32.eqz (i32.xor (local.get $x) (i32.const 0)))",
        "(i32.eqz (i32.xor (local.get $x) (local.get $y)))",
        "(i32.eqz (i32.eq (local.get $x) (i32.const 0)))",
        "(i32.ne (i32.ne (local.get $x) (i32.const 0)) (i32.const 0))",
        "(i32.eqz (local.tee $x (i32.eqz (local.get $x))))",
        "(i32.eqz (i32.wrap_i64 (i64.extend_i32_s (local.get $x))))",
        "(i32.eqz (global.get $zero))",
        "(i32.eq (local.get $x) (global.get $zero))",
        "(i32.eqz (ref.is_null (ref.null func)))",
    ];
    let selected = [
        ("i32", "(i32.const 7)", "(i32.const 9)"),
        ("i32", "(local.get $x)", "(i32.const 9)"),
        ("i32", "(i32.const 7)", "(local.get $y)"),
        (
            "i32",
            "(i32.add (local.get $x) (i32.const 3))",
            "(local.get $y)",
        ),
        ("i64", "(i64.const 7)", "(i64.extend_i32_u (local.get $x))"),
        ("f64", "(f64.const 7)", "(f64.convert_i32_u (local.get $x))"),
        (
            "v128",
            "(v128.const i64x2 7 7)",
            "(i32x4.splat (local.get $x))",
        ),
    ];
    for condition in conditions {
        for (ty, first, second) in selected {
            let mut globals = String::new();
            let mut calls = String::new();
            for (x, y) in [(0, 0), (0, 1), (1, 0), (5, 5), (4, 0)] {
                let zero = if ty == "v128" { "i64x2 0 0" } else { "0" };
                globals += &format!("(global $r{x}{y} (mut {ty}) ({ty}.const {zero}))");
                calls += &format!(
                    "(global.set $r{x}{y} (call $select (i32.const {x}) (i32.const {y})))"
                );
            }
            let text = format!(
                r#"(module (memory 1) (global $zero i32 (i32.const 0)) {globals}
                  (func $id (param i32) (result i32) (local.get 0))
                  (func $select (param $x i32) (param $y i32) (result {ty}) (local $z i32)
                    ;; Something else than what is compared is what was computed last.
                    (i32.store offset=64 (i32.const 0) (i32.xor (local.get $x) (i32.const 5)))
                    {first} {second} {condition} select)
                  (func (export "wizer.initialize") {calls}))"#
            );
            let run = |engine| Wizer::new().engine(engine).run(text.as_bytes());
            let right = run(Engine::Optimizing).unwrap();
            assert!(run(Engine::Interpreter).unwrap() == right, "{text}");
        }
    }
}

/// As above, in a function of a large module, with other functions around it.
#[test]
fn what_the_interpreter_selects_in_a_large_module() {
    let filler = "(drop (select (i32.const 1) (i32.const 2) (i32.eq (i32.const 1) (local.get 0))))";
    let filler = format!("(func (param i32) {})", filler.repeat(40_000));
    let text = format!(
        r#"(module (global $n (export "n") (mut i32) (i32.const 0)) {filler}
          (func $f (param i32) (result i32)
            (drop (i32.mul (global.get $n) (i32.const 3)))
            (select (i32.const 7) (i32.const 9) (i32.eqz (local.get 0))))
          {filler}
          (func (export "wizer.initialize")
            (global.set $n (i32.add (i32.mul (call $f (i32.const 0)) (i32.const 100))
              (call $f (i32.const 1))))))"#
    );
    let mut wizer = Wizer::new();
    let outcome = wizer.engine(Engine::Interpreter).snapshot(text.as_bytes());
    let mut session = Wizer::new().session(&outcome.unwrap().wasm).unwrap();
    assert_eq!(session.global("n").unwrap(), Value::I32(709));
}
