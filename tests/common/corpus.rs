//! What is done with modules and what comes of it on Cranelift, written down for the engine that
//! there is in Node only: `scripts/corpus.mjs` does the same on it, and compares.
//!
//! With `CORPUS=DIR` in the environment, a test writes `DIR/NAME.jsonl`, a line of JSON for each
//! run or session, and `DIR/NAME.bin`: all bytes, each once, of which the lines say `[from, to]`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::{Value as Json, json};
use wizer::{Error, Reference, Value};

struct Corpus {
    lines: File,
    bytes: File,
    /// Where bytes are, by their hash.
    places: HashMap<blake3::Hash, [usize; 2]>,
    end: usize,
}

static CORPUS: LazyLock<Option<Mutex<Corpus>>> = LazyLock::new(|| {
    let directory = PathBuf::from(std::env::var_os("CORPUS")?);
    std::fs::create_dir_all(&directory).unwrap();
    let create = |kind: &str| {
        let name = format!("{}.{kind}", env!("CARGO_CRATE_NAME"));
        File::create(directory.join(name)).unwrap()
    };
    Some(Mutex::new(Corpus {
        lines: create("jsonl"),
        bytes: create("bin"),
        places: HashMap::new(),
        end: 0,
    }))
});

/// Whether there is one to be written.
pub fn is_wanted() -> bool {
    CORPUS.is_some()
}

fn with<T>(work: impl FnOnce(&mut Corpus) -> T) -> T {
    let corpus = CORPUS.as_ref().expect("a corpus is wanted");
    work(&mut corpus.lock().unwrap_or_else(PoisonError::into_inner))
}

pub fn line(line: &Json) {
    with(|corpus| corpus.lines.write_all(format!("{line}\n").as_bytes())).unwrap();
}

/// Bytes, as a line says them.
pub fn bytes(bytes: &[u8]) -> Json {
    let place = with(|corpus| {
        *corpus.places.entry(blake3::hash(bytes)).or_insert_with(|| {
            corpus.bytes.write_all(bytes).unwrap();
            let from = corpus.end;
            corpus.end += bytes.len();
            [from, corpus.end]
        })
    });
    json!(place)
}

/// Modules with their names, as a line says them.
pub fn modules<'m>(modules: impl IntoIterator<Item = (&'m str, &'m [u8])>) -> Json {
    let modules = modules.into_iter();
    modules
        .map(|(name, wasm)| json!([name, bytes(wasm)]))
        .collect()
}

/// What something gave, or the error's code.
pub fn outcome<T>(outcome: &Result<T, Error>, told: impl FnOnce(&T) -> Json) -> Json {
    match outcome {
        Ok(given) => told(given),
        Err(error) => json!(error.code()),
    }
}

/// Values, each with its type; floats as their bits.
pub fn values(values: &[Value]) -> Json {
    let value = |value: &Value| match value {
        Value::I32(v) => json!(["i32", v]),
        Value::I64(v) => json!(["i64", v.to_string()]),
        Value::F32(bits) => json!(["f32", format!("{bits:08x}")]),
        Value::F64(bits) => json!(["f64", format!("{bits:016x}")]),
        Value::V128(_) => json!(["v128"]),
        Value::Ref(Reference::Null) => json!(["null"]),
        Value::Ref(Reference::I31(v)) => json!(["i31", (*v << 1).cast_signed() >> 1]),
        Value::Ref(Reference::Extern(n)) => json!(["extern", n]),
        _ => json!(["handle"]),
    };
    values.iter().map(value).collect()
}
