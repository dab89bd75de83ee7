//! The cache of compiled code, with real processes: what is kept, who may use it, and that neither
//! damage nor other processes come through to a run.
#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use common::Random;
use tempfile::TempDir;
use wizer::{CacheLocation, Engine, Wizer};

/// What the program makes in the directory that it is given.
const OWN: &str = "wizer-1";

/// Modules, a cache, and a home in which nothing else is.
struct Place {
    root: TempDir,
}

/// What came of a run.
struct Ran {
    output: Vec<u8>,
    /// Of the report: why this engine.
    reason: String,
}

impl Ran {
    fn used_the_cache(&self) -> bool {
        self.reason.contains("in the cache")
    }
}

impl Place {
    fn new() -> Place {
        Place {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A module in a file.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
        path
    }

    /// A module whose code is worth keeping. Those of different marks are different.
    fn module(&self, mark: u8) -> PathBuf {
        self.file(&format!("{mark}.wasm"), &large(mark, "", ""))
    }

    /// The program, which finds the user's directories in this place.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wizer"));
        self.at_home(&mut command);
        command
    }

    /// The program, started by a shell that has run `setup` before.
    #[cfg(unix)]
    fn program_after(&self, setup: &str) -> Command {
        let mut command = Command::new("sh");
        let script = format!("{setup}; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_wizer")]);
        self.at_home(&mut command);
        command
    }

    fn at_home(&self, command: &mut Command) {
        command
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .env_remove("XDG_CACHE_HOME")
            .env("HOME", self.path("home"))
            .env("LOCALAPPDATA", self.path("home"));
    }

    /// Runs the program with `--cache-dir cache`.
    fn run(&self, module: &Path, args: &[&str]) -> Ran {
        let cache = self.path("cache");
        self.run_in(&cache, module, args)
    }

    fn run_in(&self, cache: &Path, module: &Path, args: &[&str]) -> Ran {
        let mut command = self.program();
        command.arg("--cache-dir").arg(cache);
        self.succeed(command.arg(module).args(args))
    }

    /// Runs the program to its end, which has to be a good one.
    fn succeed(&self, command: &mut Command) -> Ran {
        static REPORTS: AtomicUsize = AtomicUsize::new(0);
        let number = REPORTS.fetch_add(1, Ordering::Relaxed);
        let report = self.path(&format!("report-{number}.json"));
        let output = command.arg("--report").arg(&report).output().unwrap();
        let Output { status, stdout, .. } = &output;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(status.success(), "{command:?}: {status}: {told}");
        assert_eq!(told, "", "{command:?}");
        let report = fs::read(report).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        Ran {
            output: stdout.clone(),
            reason: report["engine"]["reason"].as_str().unwrap().into(),
        }
    }

    /// Where entries are.
    fn entries_at(&self) -> PathBuf {
        self.path("cache").join(OWN)
    }

    /// The one entry that is there.
    fn entry(&self) -> PathBuf {
        let [entry] = &entries(&self.entries_at())[..] else {
            panic!("{:?}", names(&self.entries_at()))
        };
        entry.clone()
    }
}

/// What stands in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = entries.map(name).map(|name| name.into_string().unwrap());
    BTreeSet::from_iter(names).into_iter().collect()
}

/// The entries under their final names. Anything else is unfinished, and called so.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let (unfinished, finished): (Vec<_>, Vec<_>) = names(directory)
        .into_iter()
        .partition(|name| name.starts_with(".tmp"));
    assert!(unfinished.iter().all(|name| name.len() < 64));
    for name in &finished {
        let hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(hash, "what is {name}?");
    }
    finished.iter().map(|name| directory.join(name)).collect()
}

/// A module with a little more than 128 KiB of code, none of which takes a compiler long, and an
/// initialization that writes `mark` and then does what `init` says. Its entry is larger than
/// one block of any file system, thanks to its data.
fn large(mark: u8, imports: &str, init: &str) -> String {
    let function = format!(
        "(func {})",
        "(drop (i64.const 0x7000000000000000))".repeat(300)
    );
    let data = "0123456789abcdef".repeat(1 << 14);
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 5)
            (data (i32.const 64) "{data}")
            (func (export "wizer.initialize")
                (i32.store8 (i32.const 0) (i32.const {mark}))
                {init})
            {})"#,
        function.repeat(40)
    )
}

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read"
        (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))"#;

/// Prints, and then waits for input, which a run that may be thrown away must not do.
const PRINT: &str = r#"
    (i32.store (i32.const 8) (i32.const 64))
    (i32.store (i32.const 12) (i32.const 16))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
    (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))"#;

/// Takes an interpreter seconds.
const LONG: &str = r#"
    (loop $again
        (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1)))
        (br_if $again (i32.lt_u (i32.load (i32.const 4)) (i32.const 300_000_000))))"#;

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

// ----- what is kept, and used -----

#[test]
fn compiled_code_is_kept_and_used() {
    let plain = large(1, "", "");
    let printing = large(1, IMPORTS, PRINT);
    let long = large(1, "", LONG);
    for (engine, text, wasi) in [
        ("baseline", &plain, "--allow-wasi=false"),
        ("optimizing", &plain, "--allow-wasi=false"),
        ("auto", &printing, "--allow-wasi=true"),
        ("auto", &long, "--allow-wasi=false"),
    ] {
        let place = Place::new();
        let module = place.file("a.wasm", text);
        let args = ["--engine", engine, wasi, "-o", "out.wasm"];
        let run = || {
            let ran = place.run(&module, &args);
            (ran, fs::read(place.path("out.wasm")).unwrap())
        };
        let (first, output) = run();
        assert!(!first.used_the_cache(), "{engine}: {}", first.reason);
        let entry = place.entry();
        let contents = fs::read(&entry).unwrap();
        for _ in 0..3 {
            set_modified(&entry, long_ago());
            let (next, next_output) = run();
            assert!(next.used_the_cache(), "{engine}: {}", next.reason);
            assert!(next_output == output, "{engine}");
            // What was printed.
            assert_eq!(next.output, first.output, "{engine}");
            // It is used, which is what the order of removal goes by, and not written again.
            assert!(modified(&entry) > long_ago(), "{engine}");
            assert!(fs::read(&entry).unwrap() == contents, "{engine}");
            assert_eq!(names(&place.entries_at()).len(), 1, "{engine}");
        }
        let printed: &[u8] = match wasi {
            "--allow-wasi=true" => b"0123456789abcdef",
            _ => b"",
        };
        assert_eq!(first.output, printed, "{engine}");
    }
}

/// A trap has the same message and backtrace in code from the cache.
#[test]
fn code_of_a_run_that_fails_is_kept_as_well() {
    let place = Place::new();
    let module = place.file("trap.wasm", &large(1, "", "(unreachable)"));
    let run = || {
        let mut command = place.program();
        command.args(["--engine", "baseline", "--cache-dir", "cache"]);
        let output = command.arg(&module).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let first = run();
    assert!(first.contains("unreachable"), "{first}");
    set_modified(&place.entry(), long_ago());
    assert_eq!(run(), first);
    assert!(modified(&place.entry()) > long_ago());
}

#[test]
fn the_library_keeps_code_where_it_is_told_to() {
    let place = Place::new();
    let wasm = fs::read(place.module(1)).unwrap();
    let run = |location| {
        let mut wizer = Wizer::new();
        wizer.engine(Engine::Optimizing).cache(location);
        wizer.snapshot(&wasm).unwrap()
    };
    let off = run(CacheLocation::Off);
    assert_eq!(names(place.root.path()), ["1.wasm"]);
    let reasons = [(); 2].map(|()| {
        let outcome = run(CacheLocation::In(place.path("cache")));
        assert!(outcome.wasm == off.wasm);
        outcome.report.engine.reason
    });
    assert_eq!(reasons[0], "asked for");
    assert!(reasons[1].contains("in the cache"), "{}", reasons[1]);
    // The program finds what the library has kept.
    let ran = place.run(&place.path("1.wasm"), &["--engine", "optimizing"]);
    assert!(ran.used_the_cache(), "{}", ran.reason);
}

#[test]
fn what_no_compiler_has_to_do_with_leaves_no_trace() {
    let place = Place::new();
    let module = place.module(1);
    let small = place.file(
        "small.wasm",
        r#"(module (func (export "wizer.initialize")))"#,
    );
    for (module, engine, reason) in [
        (&module, "interpreter", "asked for"),
        (&module, "auto", "before compiled code"),
        (&small, "baseline", "asked for"),
        (&small, "optimizing", "asked for"),
    ] {
        let ran = place.run(module, &["--engine", engine]);
        assert!(ran.reason.contains(reason), "{engine}: {}", ran.reason);
        let ran = place.succeed(place.program().args(["--engine", engine]).arg(module));
        assert!(ran.reason.contains(reason), "{engine}: {}", ran.reason);
        assert!(!place.path("cache").exists(), "{engine}");
        assert!(!place.path("home").exists(), "{engine}");
    }
    // Nor does one that asks for the interpreter read what is there.
    let compiled = place.run(&module, &["--engine", "baseline"]);
    set_modified(&place.entry(), long_ago());
    let ran = place.run(&module, &["--engine", "interpreter"]);
    assert!(ran.output == compiled.output);
    assert_eq!(modified(&place.entry()), long_ago());
    // Where it is up to wizer, an entry is used, or it stays as it is.
    let ran = place.run(&module, &[]);
    assert!(ran.output == compiled.output);
    assert_eq!(modified(&place.entry()) != long_ago(), ran.used_the_cache());
}

#[test]
fn without_a_cache_nothing_is_read_or_written() {
    let place = Place::new();
    let module = place.module(1);
    let without = || {
        let mut command = place.program();
        // The user's place is the one that it would take.
        command.env("XDG_CACHE_HOME", place.path("cache"));
        place.succeed(
            command
                .args(["--no-cache", "--engine", "baseline"])
                .arg(&module),
        )
    };
    let ran = without();
    assert!(!place.path("cache").exists() && !place.path("home").exists());
    assert!(place.run(&module, &["--engine", "baseline"]).output == ran.output);
    let entry = place.entry();
    set_modified(&entry, long_ago());
    assert!(!without().used_the_cache());
    assert_eq!(modified(&entry), long_ago());

    for args in [
        &["--no-cache", "--cache-dir", "cache"][..],
        &["--cache-dir", "cache", "--no-cache"],
        &["--cache-dir"],
        &["--cache-dir", ""],
        &["--no-cache=x"],
    ] {
        let output = place.program().arg(&module).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("error:"), "{told}");
        assert!(told.contains("cache"), "{told}");
    }
}

/// Code of one configuration is never used in another.
#[test]
fn every_configuration_has_an_entry_of_its_own() {
    let place = Place::new();
    let module = place.module(1);
    let preload = place.file("preload.wasm", "(module)");
    let preload = format!("p={}", preload.display());
    let configurations: &[&[&str]] = &[
        &["--engine=baseline"],
        &["--engine=optimizing"],
        &["--engine=baseline", "--timeout=1000000"],
        &["--engine=baseline", "--relaxed-simd-deterministic"],
        &["--engine=optimizing", "--relaxed-simd-deterministic"],
        &["--engine=optimizing", "--wasm-relaxed-simd=false"],
        &["--engine=optimizing", "--wasm-simd=false"],
        &["--engine=optimizing", "--wasm-multi-value=false"],
        &["--engine=optimizing", "--wasm-multi-memory=false"],
        &["--engine=optimizing", "--wasm-bulk-memory=false"],
        &["--engine=baseline", "--preload", &preload],
    ];
    let mut outputs = BTreeSet::new();
    for (kept, args) in configurations.iter().enumerate() {
        assert_eq!(entries(&place.entries_at()).len(), kept, "{args:?}");
        let ran = place.run(&module, args);
        assert!(!ran.used_the_cache(), "{args:?}: {}", ran.reason);
        outputs.insert(ran.output);
    }
    assert_eq!(entries(&place.entries_at()).len(), configurations.len());
    for args in configurations {
        let ran = place.run(&module, args);
        assert!(ran.used_the_cache(), "{args:?}: {}", ran.reason);
        outputs.insert(ran.output);
    }
    assert_eq!(outputs.len(), 1);
    // What has nothing to do with the code is no other configuration.
    for args in [
        &["--engine=baseline", "--keep-init-func"][..],
        &["--engine=baseline", "--rename-func", "a=memory"],
        &["--engine=baseline", "--allow-wasi", "--max-memory=1000000"],
    ] {
        let ran = place.run(&module, args);
        assert!(ran.used_the_cache(), "{args:?}: {}", ran.reason);
    }
}

#[test]
fn the_cache_is_bounded() {
    let place = Place::new();
    let module = place.module(1);
    place.run(&module, &["--engine", "baseline"]);
    let directory = place.entries_at();
    set_modified(&place.entry(), long_ago());
    // Files with a hole, which take no room.
    let plant = |name: &str, age: u64| {
        let path = directory.join(name);
        File::create(&path).unwrap().set_len(150 << 20).unwrap();
        set_modified(&path, SystemTime::now() - Duration::from_secs(age));
        path
    };
    let names = ["a", "b", "c"].map(|name| name.repeat(64));
    let [oldest, old, young] =
        [(0, 30_000), (1, 20_000), (2, 10_000)].map(|(name, age)| plant(&names[name], age));
    let (abandoned, in_work) = (plant(".tmpabandoned", 7200), plant(".tmpinwork", 60));
    place.run(&module, &["--engine", "optimizing"]);
    assert!(!abandoned.exists(), "nobody writes it any more");
    assert!(in_work.exists(), "somebody may write it");
    let left = entries(&directory);
    assert!(!left.contains(&oldest), "{left:?}");
    assert!(left.contains(&old) && left.contains(&young), "{left:?}");
    assert_eq!(left.len(), 3, "with the new one: {left:?}");
    // No entry is as large as all of them may be.
    File::create(&young).unwrap().set_len(600 << 20).unwrap();
    place.run(&module, &["--engine", "baseline"]);
    assert!(!old.exists() && !young.exists());
    for engine in ["baseline", "optimizing"] {
        assert!(place.run(&module, &["--engine", engine]).output.len() > 1 << 18);
        assert!(place.run(&module, &["--engine", engine]).used_the_cache());
    }
}

// ----- where -----

#[test]
#[cfg(target_os = "linux")]
fn the_user_s_directory_is_where_the_environment_says() {
    let places: &[(&[(&str, &str)], &str)] = &[
        (&[("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home")], "xdg"),
        (&[("XDG_CACHE_HOME", "/xdg/a/b")], "xdg/a/b"),
        (&[("HOME", "/home")], "home/.cache"),
        // Neither counts, says the specification.
        (&[("XDG_CACHE_HOME", ""), ("HOME", "/home")], "home/.cache"),
        (
            &[("XDG_CACHE_HOME", "xdg"), ("HOME", "/home")],
            "home/.cache",
        ),
    ];
    for (variables, expected) in places {
        let place = Place::new();
        let module = place.module(1);
        let run = || {
            let mut command = place.program();
            command.env_clear();
            for (name, value) in *variables {
                let value = match value.strip_prefix('/') {
                    Some(below) => place.path(below).into_os_string(),
                    None => value.into(),
                };
                command.env(name, value);
            }
            place.succeed(command.args(["--engine", "baseline"]).arg(&module))
        };
        assert!(!run().used_the_cache(), "{variables:?}");
        assert_eq!(entries(&place.path(expected).join(OWN)).len(), 1);
        assert!(run().used_the_cache(), "{variables:?}");
        assert_eq!(entries(&place.path(expected).join(OWN)).len(), 1);
        assert!(!place.root.path().join(OWN).exists());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_user_without_a_directory() {
    let place = Place::new();
    let nothing = place.module(1);
    let run = |command: &mut Command, module| {
        let ran = place.succeed(command.args(["--engine", "baseline"]).arg(module));
        assert!(!ran.used_the_cache());
    };
    for home in ["/dev/null", "/proc/nothing", "/dev/null/nothing"] {
        run(place.program().env("HOME", home), &nothing);
    }
    // Of a size that is not kept: there may be a real home behind it.
    let small = place.file(
        "small.wasm",
        r#"(module (func (export "wizer.initialize")))"#,
    );
    run(place.program().env_clear(), &small);
    run(place.program().env("HOME", ""), &small);
}

/// Where nothing can be kept, a run does without. All of these hold for root, too.
#[test]
fn a_place_that_cannot_be_used_fails_no_run() {
    let place = Place::new();
    let module = place.module(1);
    let file = place.path("file");
    fs::write(&file, "contents").unwrap();
    let occupied = place.path("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join(OWN), "contents").unwrap();
    let mut places = vec![file.clone(), file.join("below"), occupied.clone()];
    // Longer than any file name.
    places.push(place.path(&"x".repeat(1000)));
    if cfg!(target_os = "linux") {
        // Nobody can create anything there.
        places.extend(["/proc", "/proc/nothing"].map(PathBuf::from));
    }
    let expected = place.run(&module, &["--engine", "optimizing"]);
    for cache in places {
        for _ in 0..2 {
            let ran = place.run_in(&cache, &module, &["--engine", "optimizing"]);
            assert!(!ran.used_the_cache(), "{}", cache.display());
            assert!(ran.output == expected.output, "{}", cache.display());
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"contents");
    assert_eq!(fs::read(occupied.join(OWN)).unwrap(), b"contents");
}

// ----- who may use it -----

#[cfg(unix)]
mod permissions {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_the_user_s_own() {
        for umask in ["000", "022", "077"] {
            let place = Place::new();
            let module = place.module(1);
            let mut command = place.program_after(&format!("umask {umask}"));
            command.args(["--engine=baseline", "--cache-dir=cache"]);
            place.succeed(command.arg(&module));
            assert_eq!(mode(&place.entries_at()), 0o700, "{umask}");
            assert_eq!(mode(&place.entry()), 0o600, "{umask}");
        }
    }

    /// What others could have put there is not run.
    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let place = Place::new();
        let module = place.module(1);
        let run = |engine: &str| place.run(&module, &["--engine", engine]);
        let expected = run("baseline").output;
        let (directory, entry) = (place.entries_at(), place.entry());
        let is_used = || {
            set_modified(&entry, long_ago());
            // One that is there, and one that would be stored.
            let ran = [run("baseline"), run("optimizing")];
            assert!(ran.iter().all(|ran| ran.output == expected));
            let used = ran[0].used_the_cache();
            assert_eq!(modified(&entry) > long_ago(), used);
            assert_eq!(entries(&directory).len(), if used { 2 } else { 1 });
            if let Some(stored) = entries(&directory).iter().find(|path| **path != entry) {
                fs::remove_file(stored).unwrap();
            }
            used
        };
        for open in [0o777, 0o770, 0o702, 0o720, 0o1777] {
            set_mode(&directory, open);
            assert!(!is_used(), "{open:o}");
            assert_eq!(mode(&directory), open, "it is left as it is");
        }
        for closed in [0o700, 0o755, 0o711] {
            set_mode(&directory, closed);
            assert!(is_used(), "{closed:o}");
        }
        // Who owns it could write to it. Only root can give it away.
        if chown(&directory, Some(54_321), None).is_ok() {
            assert!(!is_used());
            chown(&directory, Some(0), None).unwrap();
            assert!(is_used());
        }
        // Nor is a link used, which could lead somewhere else tomorrow.
        let moved = place.path("moved");
        fs::rename(&directory, &moved).unwrap();
        symlink(&moved, &directory).unwrap();
        assert!(!is_used());
        // The directory that is given may be one.
        let link = place.path("link");
        fs::remove_file(&directory).unwrap();
        fs::rename(&moved, &directory).unwrap();
        symlink(place.path("cache"), &link).unwrap();
        let ran = place.run_in(&link, &module, &["--engine", "baseline"]);
        assert!(ran.used_the_cache());
    }

    /// Not for root, whom permissions do not bind; but its runs succeed as well.
    #[test]
    fn a_directory_that_cannot_be_written_to_is_read_only() {
        let place = Place::new();
        let module = place.module(1);
        let baseline = place.run(&module, &["--engine", "baseline"]);
        set_mode(&place.entry(), 0o400);
        set_mode(&place.entries_at(), 0o500);
        assert!(
            place
                .run(&module, &["--engine", "baseline"])
                .used_the_cache()
        );
        for _ in 0..2 {
            let ran = place.run(&module, &["--engine", "optimizing"]);
            assert!(ran.output == baseline.output);
        }
        set_mode(&place.entries_at(), 0o700);

        let closed = place.path("closed");
        fs::create_dir(&closed).unwrap();
        set_mode(&closed, 0o500);
        let ran = place.run_in(&closed, &module, &["--engine", "baseline"]);
        assert!(ran.output == baseline.output);
        set_mode(&closed, 0o700);
    }
}

// ----- damage -----

/// Each is done to an entry, with another module's entry beside it.
type Damage<'d> = (&'d str, &'d dyn Fn(&Path, &Path));

/// Does each damage to the entry of a module, and asserts that no run minds. Where `mends`, the
/// next run but one finds good code again.
fn survives(damages: &[Damage<'_>], mends: bool) {
    let place = Place::new();
    let [module, other] = [place.module(1), place.module(2)];
    let args = ["--engine", "baseline"];
    let expected = place.run(&module, &args).output;
    let entry = place.entry();
    let expected_of_other = place.run(&other, &args).output;
    let all = entries(&place.entries_at());
    let other_entry = all.iter().find(|path| **path != entry).unwrap();
    let contents = fs::read(other_entry).unwrap();
    for (what, damage) in damages {
        damage(&entry, other_entry);
        let ran = place.run(&module, &args);
        assert!(ran.output == expected, "{what}");
        assert!(!ran.used_the_cache(), "{what}");
        let ran = place.run(&module, &args);
        assert!(ran.output == expected, "{what}");
        assert_eq!(ran.used_the_cache(), mends, "{what}");
        assert_eq!(entry.symlink_metadata().unwrap().is_file(), mends, "{what}");
        // Nobody else is touched.
        assert!(fs::read(other_entry).unwrap() == contents, "{what}");
        let ran = place.run(&other, &args);
        assert!(
            ran.used_the_cache() && ran.output == expected_of_other,
            "{what}"
        );
        assert_eq!(names(&place.entries_at()).len(), 2, "{what}");
    }
}

#[test]
fn damaged_entries_are_replaced() {
    let change = |entry: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(entry).unwrap();
        change(&mut bytes);
        fs::write(entry, bytes).unwrap();
    };
    survives(
        &[
            ("emptied", &|entry, _| fs::write(entry, "").unwrap()),
            ("only a seal", &|entry, _| {
                change(entry, &|bytes| bytes.truncate(32))
            }),
            ("half a seal", &|entry, _| {
                change(entry, &|bytes| bytes.truncate(16))
            }),
            ("half", &|entry, _| {
                change(entry, &|bytes| bytes.truncate(bytes.len() / 2))
            }),
            ("all but a byte", &|entry, _| {
                change(entry, &|bytes| bytes.truncate(bytes.len() - 1))
            }),
            ("a byte more", &|entry, _| {
                change(entry, &|bytes| bytes.push(0))
            }),
            ("zeros", &|entry, _| change(entry, &|bytes| bytes.fill(0))),
            ("of another module", &|entry, other| {
                fs::copy(other, entry).unwrap();
            }),
            ("of another module, its seal its own", &|entry, other| {
                let other = fs::read(other).unwrap();
                change(entry, &|bytes| bytes[32..].copy_from_slice(&other[32..]));
            }),
            ("text", &|entry, _| fs::write(entry, "no code").unwrap()),
            ("larger than all", &|entry, _| {
                File::options()
                    .write(true)
                    .open(entry)
                    .unwrap()
                    .set_len(1 << 30)
                    .unwrap();
            }),
            ("gone", &|entry, _| fs::remove_file(entry).unwrap()),
        ],
        true,
    );
}

#[test]
fn every_bit_that_is_flipped_is_noticed() {
    let mut random = Random::new(17);
    let places: Vec<(usize, u8)> = (0..24)
        .map(|n| match n {
            0..8 => (random.below(48), 1 << random.below(8)),
            _ => (random.below(usize::MAX), 1 << random.below(8)),
        })
        .collect();
    let flips: Vec<_> = places
        .iter()
        .map(|&(at, bit)| {
            let flip = move |entry: &Path, _: &Path| {
                let mut bytes = fs::read(entry).unwrap();
                let at = at % bytes.len();
                bytes[at] ^= bit;
                fs::write(entry, bytes).unwrap();
            };
            (format!("bit {bit:#x} of byte {at}"), flip)
        })
        .collect();
    let damages: Vec<Damage<'_>> = flips
        .iter()
        .map(|(what, flip)| (&what[..], flip as _))
        .collect();
    survives(&damages, true);
}

#[test]
fn what_is_no_file_is_no_entry() {
    let directory = |entry: &Path, _: &Path| {
        fs::remove_file(entry).unwrap();
        fs::create_dir(entry).unwrap();
    };
    survives(&[("a directory", &directory)], false);
}

#[test]
#[cfg(unix)]
fn links_and_pipes_are_replaced() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let link = |entry: &Path, target: &Path| {
        fs::remove_file(entry).unwrap();
        symlink(target, entry).unwrap();
    };
    survives(
        &[
            ("a link to another entry", &link),
            ("a link to itself", &|entry, _| link(entry, entry)),
            ("a link to nothing", &|entry, _| {
                link(entry, &entry.join("nothing"))
            }),
            ("a link without an end", &|entry, _| {
                link(entry, Path::new("/dev/zero"))
            }),
            ("a link to itself elsewhere", &|entry, _| {
                let directory = entry.parent().unwrap().parent().unwrap();
                let moved = directory.join("moved");
                fs::rename(entry, &moved).unwrap();
                symlink(moved, entry).unwrap();
            }),
            ("a hard link to another entry", &|entry, other| {
                fs::remove_file(entry).unwrap();
                fs::hard_link(other, entry).unwrap();
            }),
            ("a pipe", &|entry, _| {
                fs::remove_file(entry).unwrap();
                let made = Command::new("mkfifo").arg(entry).status().unwrap();
                assert!(made.success());
            }),
            ("unreadable, and damaged, as root reads it", &|entry, _| {
                fs::write(entry, "damaged").unwrap();
                fs::set_permissions(entry, fs::Permissions::from_mode(0o0)).unwrap();
            }),
        ],
        true,
    );
    // Root reads it, and others replace it.
    let place = Place::new();
    let module = place.module(1);
    let run = || place.run(&module, &["--engine", "baseline"]);
    let expected = run().output;
    fs::set_permissions(place.entry(), fs::Permissions::from_mode(0o0)).unwrap();
    assert!(run().output == expected);
    assert!(run().used_the_cache());
}

// ----- many processes -----

/// How many run in all, and how many of them at once.
const PROCESSES: usize = 200;
const AT_ONCE: usize = 16;

/// How a process ends.
#[derive(Clone, Copy)]
enum End {
    /// By itself, and well.
    Good,
    /// Killed after so many microseconds, if it still runs.
    KilledAfter(u64),
    /// Killed when it, or another one, begins to write.
    KilledInWriting,
}

/// Readers and writers of eight entries, of whom every third is killed. Now and then somebody
/// removes all entries, so that there is something to write to the end.
#[test]
fn two_hundred_processes_and_some_are_killed() {
    let place = Place::new();
    let modules = [1, 2, 3, 4].map(|mark| place.module(mark));
    let engines = ["baseline", "optimizing"];
    let expected = modules.each_ref().map(|module| {
        let mut command = place.program();
        command.args(["--no-cache", "--engine", "interpreter"]);
        place.succeed(command.arg(module)).output
    });
    let mut random = Random::new(3);
    let mut job = |number: usize| {
        let end = match number % 6 {
            2 => End::KilledAfter(random.below(60_000) as u64),
            5 => End::KilledInWriting,
            _ => End::Good,
        };
        // Most of them want the same.
        let module = [0, 0, 0, random.below(4)][random.below(4)];
        (module, engines[random.below(2)], end)
    };
    let jobs: Vec<_> = (0..PROCESSES).map(&mut job).collect();
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let entries_at = place.entries_at();
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(&(module, engine, end)) = jobs.get(number) else {
            return;
        };
        if number % 8 == 7 {
            for entry in entries(&entries_at) {
                let _ = fs::remove_file(entry);
            }
        }
        let args = ["--engine", engine];
        let module_file = &modules[module];
        if let End::Good = end {
            let ran = place.run(module_file, &args);
            assert!(ran.output == expected[module]);
            continue;
        }
        let mut command = place.program();
        command.args(["--cache-dir", "cache"]).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let before = names(&entries_at);
        let mut child = command.arg(module_file).spawn().unwrap();
        match end {
            End::KilledAfter(moment) => std::thread::sleep(Duration::from_micros(moment)),
            _ => {
                let is_new = |name: &String| name.starts_with(".tmp") && !before.contains(name);
                while !names(&entries_at).iter().any(is_new) && child.try_wait().unwrap().is_none()
                {
                    std::thread::yield_now();
                }
            }
        }
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            killed.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    assert!(killed.into_inner() > 0, "no process was killed in time");

    // All entries that are there are good, and what is missing is made again.
    let kept = entries(&entries_at).len();
    let mut used = 0;
    for (module, engine) in (0..4).flat_map(|module| engines.map(|engine| (module, engine))) {
        let args = ["--engine", engine];
        let ran = place.run(&modules[module], &args);
        assert!(ran.output == expected[module]);
        used += usize::from(ran.used_the_cache());
        let ran = place.run(&modules[module], &args);
        assert!(ran.used_the_cache() && ran.output == expected[module]);
    }
    assert_eq!(used, kept);
    assert_eq!(entries(&entries_at).len(), 8);
}

/// Processes that only read what is there all find it, whoever writes the same meanwhile. (On
/// Windows, a file that somebody reads cannot be replaced, and stays.)
#[test]
#[cfg(unix)]
fn readers_never_miss_what_others_replace() {
    let place = Place::new();
    let module = place.module(1);
    let args = ["--engine", "baseline"];
    let expected = place.run(&module, &args).output;
    let contents = fs::read(place.entry()).unwrap();
    let (entry, directory) = (place.entry(), place.entries_at());
    let reading = AtomicUsize::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let ran = place.run(&module, &args);
                    assert!(ran.used_the_cache() && ran.output == expected);
                }
                reading.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // As a process does that has compiled the same.
        scope.spawn(|| {
            while reading.load(Ordering::Relaxed) > 0 {
                let mut file = tempfile::NamedTempFile::with_prefix_in(".tmp", &directory).unwrap();
                std::io::Write::write_all(&mut file, &contents).unwrap();
                file.persist(&entry).unwrap();
            }
        });
    });
}

/// The kernel ends a writer, or fails its write, where a file becomes too large: in the middle of
/// an entry, every time.
#[cfg(unix)]
mod half_written {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Less than an entry has, in blocks of 512 or 1024 bytes.
    const LIMIT: &str = "ulimit -c 0; ulimit -f 100";

    #[test]
    fn a_killed_writer_does_no_harm() {
        let place = Place::new();
        let module = place.module(1);
        for killed in 1..=3 {
            let mut command = place.program_after(LIMIT);
            command.args(["--engine=baseline", "--cache-dir=cache"]);
            let status = command.arg(&module).output().unwrap().status;
            assert!(status.signal().is_some(), "{status}");
            assert_eq!(names(&place.entries_at()).len(), killed, "unfinished ones");
            assert!(entries(&place.entries_at()).is_empty());
        }
        let unfinished: Vec<_> = names(&place.entries_at());
        let first = place.run(&module, &["--engine", "baseline"]);
        assert!(!first.used_the_cache());
        let next = place.run(&module, &["--engine", "baseline"]);
        assert!(next.used_the_cache() && next.output == first.output);
        // Who knows who still writes them; but an hour is enough for anybody.
        assert_eq!(names(&place.entries_at()).len(), unfinished.len() + 1);
        for name in unfinished {
            let hours_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
            set_modified(&place.entries_at().join(name), hours_ago);
        }
        place.run(&module, &["--engine", "optimizing"]);
        assert_eq!(names(&place.entries_at()).len(), 2);
        assert_eq!(entries(&place.entries_at()).len(), 2);
    }

    #[test]
    fn a_full_disk_does_no_harm() {
        let place = Place::new();
        let module = place.module(1);
        for _ in 0..2 {
            let mut command = place.program_after(&format!("trap '' XFSZ; {LIMIT}"));
            command.args(["--engine=baseline", "--cache-dir=cache"]);
            let ran = place.succeed(command.arg(&module));
            assert!(!ran.used_the_cache());
            assert!(names(&place.entries_at()).is_empty());
        }
        place.run(&module, &["--engine", "baseline"]);
        // There is still something to read.
        let mut command = place.program_after(&format!("trap '' XFSZ; {LIMIT}"));
        command.args(["--engine=baseline", "--cache-dir=cache"]);
        assert!(place.succeed(command.arg(&module)).used_the_cache());
    }
}
