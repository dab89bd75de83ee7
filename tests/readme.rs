//! The documents tell the truth about Rust and about modules: the README's programs are the files in
//! `tests/readme/`, which run here, and a module that a document shows `before` becomes the one that
//! it shows `after`. What else the documents show is run by `__test__/readme.test.mjs`.

use std::path::{Path, PathBuf};

use wizer::{KeepInitFunc, Reference, Value, Wizer};

/// A fenced block: the words behind its language, and its text.
struct Block {
    language: String,
    words: Vec<String>,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.replace("\r\n", "\n")
}

/// The fenced blocks of a document.
fn blocks(path: &Path) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in read(path).lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(info), None) => {
                let mut words = info.split_whitespace().map(String::from);
                open = Some(Block {
                    language: words.next().unwrap_or_default(),
                    words: words.collect(),
                    text: String::new(),
                });
            }
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("docs/ is there");
    let mut paths: Vec<_> = docs.map(|entry| entry.expect("a name").path()).collect();
    paths.sort();
    paths.insert(0, root().join("README.md"));
    paths
}

mod builder {
    include!("readme/builder.rs");

    pub fn run() -> Result<(), Box<dyn std::error::Error>> {
        main()
    }
}

mod linker {
    include!("readme/linker.rs");

    pub fn run() -> Result<(), Box<dyn std::error::Error>> {
        main()
    }
}

/// What instances of a module return from a function without parameters.
fn call(wasm: &[u8], name: &str) -> Result<i32, Box<dyn std::error::Error>> {
    use wizer::wasmtime::{Engine, Linker, Module, Store};
    let engine = Engine::default();
    let module = Module::new(&engine, wasm)?;
    let mut store = Store::new(&engine, ());
    let mut linker = Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&module)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let function = instance.get_typed_func::<(), i32>(&mut store, name)?;
    Ok(function.call(&mut store, ())?)
}

/// One test, as the programs work in the current directory, of which a process has one.
#[test]
fn programs_run() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    std::env::set_current_dir(directory.path())?;

    let primes = r#"
        (module
          (global $prime (mut i32) (i32.const 0))
          (func (export "wizer.initialize") (global.set $prime (i32.const 2)))
          (func (export "prime") (result i32) (global.get $prime)))
    "#;
    std::fs::write("primes.wasm", wat::parse_str(primes)?)?;
    builder::run()?;
    assert_eq!(
        call(&std::fs::read("primes.initialized.wasm")?, "prime")?,
        2
    );

    linker::run()?;
    assert_eq!(call(&std::fs::read("forty-two.wasm")?, "n")?, 42);

    std::env::set_current_dir(root())?;
    Ok(())
}

#[test]
fn programs_are_the_ones_that_are_shown() {
    let mut shown = Vec::new();
    for path in documents() {
        for block in blocks(&path).into_iter().filter(|b| b.language == "rust") {
            let Some(name) = block.words.iter().find_map(|w| w.strip_prefix("test=")) else {
                // A guest, compiled by `__test__/readme.test.mjs`.
                assert!(block.words.iter().any(|w| w.starts_with("file=")));
                continue;
            };
            let file = root().join("tests/readme").join(format!("{name}.rs"));
            assert_eq!(block.text, read(&file), "{}", path.display());
            shown.push(format!("{name}.rs"));
        }
    }
    shown.sort();
    let files = std::fs::read_dir(root().join("tests/readme")).expect("tests/readme is there");
    let mut files: Vec<_> = files
        .map(|entry| {
            entry
                .expect("a name")
                .file_name()
                .into_string()
                .expect("Unicode")
        })
        .collect();
    files.sort();
    assert_eq!(shown, files);
}

#[test]
fn modules_become_what_is_shown() -> Result<(), Box<dyn std::error::Error>> {
    let mut compared = 0;
    for path in documents() {
        let blocks = blocks(&path);
        for (index, block) in blocks.iter().enumerate() {
            if block.language != "wat" || block.words != ["before"] {
                continue;
            }
            let after = &blocks[index + 1];
            assert_eq!(after.words.first().map(String::as_str), Some("after"));
            let mut wizer = Wizer::new();
            for word in &after.words[1..] {
                let what = || panic!("{}: what is `{word}`?", path.display());
                match word.split_once('=') {
                    Some(("rename", names)) => {
                        let (new, old) = names.split_once(':').unwrap_or_else(what);
                        wizer.func_rename(new, old);
                    }
                    Some(("keep-init-func", keep)) => {
                        wizer.keep_init_func(keep.parse::<KeepInitFunc>()?);
                    }
                    Some(("reference", names)) => {
                        let (module, name) = names.split_once(':').unwrap_or_else(what);
                        wizer.import_global(module, name, Value::Ref(Reference::Extern(0)));
                    }
                    _ => drop(what()),
                }
            }
            let output = wizer.run(block.text.as_bytes())?;
            let expected = wat::parse_str(&after.text)?;
            assert!(
                output == expected,
                "{}: the module\n{}does not become\n{}but has the bytes\n{output:02x?}\nand not\n{expected:02x?}",
                path.display(),
                block.text,
                after.text,
            );
            compared += 1;
        }
    }
    assert!(compared > 0, "no document shows a module before and after");
    Ok(())
}
