//! The modules in `tests/fixtures`, and what their first lines say of how to initialize them.
//!
//! Each is a `.wat` file. Lines that begin with `;;!` are instructions for the tests:
//!
//! - `init-func: NAME`: the initialization function, where it has no usual name;
//! - `no-reactor`: the module exports another `_initialize` than a reactor's (for JavaScript, which
//!   cannot see that it returns something);
//! - `keep-init-func: KEEP`: what becomes of the export of the initialization function, `true` or `empty`;
//! - `rename: NEW=OLD`: a renamed export;
//! - `preload: NAME=FILE`: a module to import from, in `tests/fixtures/preload`;
//! - `not: interpreter`, `not: baseline`: an engine that cannot run the module.
//!
//! The same modules in the binary format are in `tests/fixtures/binary`, for the JavaScript
//! tests, which cannot read text without wizer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use wizer::{DEFAULT_INIT_FUNCS, Engine, KeepInitFunc, Wizer};

/// How to initialize a module.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub init_func: Option<String>,
    pub keep_init_func: KeepInitFunc,
    /// As (new, old).
    pub renames: Vec<(String, String)>,
    /// Modules to import from, by name.
    pub preloads: Vec<(String, Vec<u8>)>,
    /// The engines that cannot run the module.
    pub refused_by: Vec<Engine>,
}

impl Setup {
    /// A run as described.
    pub fn wizer(&self) -> Wizer {
        let mut wizer = Wizer::new();
        wizer.keep_init_func(self.keep_init_func);
        if let Some(name) = &self.init_func {
            wizer.init_func(name);
        }
        for (new, old) in &self.renames {
            wizer.func_rename(new, old);
        }
        for (name, wasm) in &self.preloads {
            wizer.preload_bytes(name, wasm.clone());
        }
        wizer
    }

    /// The functions that initialize an instance, in order, after its start function. `callable`
    /// are the exported functions without parameters and results.
    pub fn initializers(&self, callable: &[String]) -> Vec<String> {
        let has = |name: &&str| callable.iter().any(|export| export == name);
        let init = self
            .init_func
            .as_deref()
            .or_else(|| DEFAULT_INIT_FUNCS.into_iter().find(has));
        let reactor = Some("_initialize").filter(has);
        let mut names: Vec<String> = reactor.into_iter().chain(init).map(Into::into).collect();
        names.dedup();
        names
    }
}

/// One module of `tests/fixtures`.
pub struct Fixture {
    pub name: String,
    pub wasm: Vec<u8>,
    pub setup: Setup,
}

/// Where the fixtures are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All fixtures, by name.
pub fn all() -> Vec<Fixture> {
    let mut fixtures: Vec<Fixture> = text_files(&directory()).iter().map(|p| read(p)).collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(fixtures.len() > 50, "the fixtures are not where they were");
    fixtures
}

/// Runs `judge` on every fixture, and fails at the end if it panicked for any.
pub fn each(judge: impl Fn(&Fixture)) {
    let failed: Vec<String> = all()
        .into_iter()
        .filter(|fixture| catch_unwind(AssertUnwindSafe(|| judge(fixture))).is_err())
        .map(|fixture| fixture.name)
        .collect();
    assert!(failed.is_empty(), "see above what is wrong with {failed:?}");
}

/// The fixture of this name.
pub fn named(name: &str) -> Fixture {
    read(&directory().join(format!("{name}.wat")))
}

/// The `.wat` files in a directory.
pub fn text_files(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wat"))
        .collect()
}

fn read(path: &Path) -> Fixture {
    let text = std::fs::read_to_string(path).unwrap();
    let mut setup = Setup::default();
    for line in text.lines().filter_map(|line| line.strip_prefix(";;! ")) {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        let pair = || value.split_once('=').expect(line);
        match key {
            "init-func" => setup.init_func = Some(value.into()),
            "no-reactor" => {}
            "keep-init-func" => setup.keep_init_func = value.parse().unwrap(),
            "rename" => {
                let (new, old) = pair();
                setup.renames.push((new.into(), old.into()));
            }
            "preload" => {
                let (name, file) = pair();
                let file = directory().join("preload").join(file);
                setup
                    .preloads
                    .push((name.into(), wat::parse_file(file).unwrap()));
            }
            "not" => setup.refused_by.push(Engine::from_name(value).unwrap()),
            _ => panic!("{}: what is `{line}`?", path.display()),
        }
    }
    Fixture {
        name: path.file_stem().unwrap().to_str().unwrap().into(),
        wasm: wat::parse_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        setup,
    }
}
