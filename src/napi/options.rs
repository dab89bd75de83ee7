//! The options as JavaScript gives them, into [`Options`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::link::JsValues;
use super::{Contents, ImportItem};
use crate::error::Error;
use crate::host::stub::{Pattern, Stub};
use crate::invoke::Invocation;
use crate::options::{
    CacheLocation, Dir, Engine, Item, KeepInitFunc, Options, Preload, PreloadSource,
    ProvidedGlobal, ProvidedItem, ProvidedMemory, ProvidedTable, Stdin, Stdout,
};
use crate::value::Value;

/// The options that JSON can carry, as `index.d.ts` documents them.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Given {
    init_func: Option<String>,
    keep_init_func: KeepGiven,
    invoke: Vec<String>,
    rename_funcs: BTreeMap<String, String>,
    allow_wasi: bool,
    allow_exit: bool,
    /// Numbers, or `trap`, in text.
    stubs: BTreeMap<String, String>,
    inherit_stdio: Option<bool>,
    inherit_env: bool,
    env: BTreeMap<String, String>,
    args: Vec<String>,
    stdin: Option<StdinName>,
    stdout: Option<StdoutName>,
    stderr: Option<StdoutName>,
    dirs: Vec<String>,
    map_dirs: BTreeMap<String, MapDir>,
    allow_preload_changes: bool,
    wasm_bulk_memory: Option<bool>,
    wasm_multi_memory: Option<bool>,
    wasm_multi_value: Option<bool>,
    wasm_reference_types: Option<bool>,
    wasm_simd: Option<bool>,
    wasm_relaxed_simd: Option<bool>,
    relaxed_simd_deterministic: Option<bool>,
    engine: Option<String>,
    cache: Option<CacheGiven>,
    timeout: Option<u64>,
    max_memory: Option<u64>,
    max_segments: Option<usize>,
    /// Whether there is a callback.
    on_progress: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KeepGiven {
    Kept(bool),
    Named(KeepName),
}

impl Default for KeepGiven {
    fn default() -> Self {
        KeepGiven::Kept(false)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeepName {
    Empty,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CacheGiven {
    On(bool),
    In(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StdinName {
    Inherit,
    Ignore,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StdoutName {
    Inherit,
    Ignore,
    Pipe,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MapDir {
    Host(String),
    Mapping(Mapping),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    host: String,
    #[serde(default)]
    readonly: bool,
}

/// Reads the options, and whether phases are to be told.
///
/// # Errors
///
/// [`Error::Option`] for an unknown option or a value of the wrong kind.
pub fn read(json: &str, contents: Contents) -> Result<(Options, bool), Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let given: Given = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| refusal(&error.path().to_string(), &error.into_inner()))?;
    let mut options = Options {
        init_func: given.init_func,
        keep_init_func: match given.keep_init_func {
            KeepGiven::Kept(keep) => keep.into(),
            KeepGiven::Named(KeepName::Empty) => KeepInitFunc::Empty,
        },
        invoke: invocations(&given.invoke)?,
        renames: given.rename_funcs.into_iter().collect(),
        allow_preload_changes: given.allow_preload_changes,
        allow_wasi: given.allow_wasi,
        allow_exit: given.allow_exit,
        timeout: given.timeout.map(Duration::from_millis),
        max_memory: given.max_memory,
        max_segments: given.max_segments,
        ..Options::default()
    };
    for (pattern, stub) in &given.stubs {
        options
            .stubs
            .push(Pattern::parse(pattern)?, Stub::parse(stub)?);
    }
    if let Some(name) = &given.engine {
        options.engine = Engine::from_name(name)?;
    }
    options.cache = match given.cache {
        None | Some(CacheGiven::On(true)) => CacheLocation::OfUser,
        Some(CacheGiven::On(false)) => CacheLocation::Off,
        Some(CacheGiven::In(directory)) => CacheLocation::In(directory.into()),
    };
    for module in contents.preload {
        options.preloads.push(Preload {
            name: module.name,
            source: PreloadSource::Bytes(module.bytes.to_vec()),
        });
    }

    options.items = contents
        .items
        .into_iter()
        .map(item)
        .collect::<Result<_, _>>()?;

    let wasi = &mut options.wasi;
    wasi.inherit_env = given.inherit_env;
    wasi.env = given.env;
    wasi.args = given.args;
    let inherit = given.inherit_stdio.unwrap_or(true);
    wasi.stdin = match (contents.stdin, given.stdin, inherit) {
        (Some(bytes), _, _) => Stdin::Bytes(bytes.to_vec()),
        (None, Some(StdinName::Inherit), _) | (None, None, true) => Stdin::Inherit,
        (None, Some(StdinName::Ignore), _) | (None, None, false) => Stdin::Ignore,
    };
    let stdout = |given: Option<StdoutName>| match (given, inherit) {
        (Some(StdoutName::Pipe), _) => Stdout::Pipe,
        (Some(StdoutName::Inherit), _) | (None, true) => Stdout::Inherit,
        (Some(StdoutName::Ignore), _) | (None, false) => Stdout::Ignore,
    };
    wasi.stdout = stdout(given.stdout);
    wasi.stderr = stdout(given.stderr);
    wasi.dirs.extend(given.dirs.into_iter().map(|dir| Dir {
        host: dir.clone().into(),
        guest: dir,
        readonly: false,
    }));
    wasi.dirs
        .extend(given.map_dirs.into_iter().map(|(guest, mapping)| {
            let (host, readonly) = match mapping {
                MapDir::Host(host) => (host, false),
                MapDir::Mapping(Mapping { host, readonly }) => (host, readonly),
            };
            Dir {
                host: host.into(),
                guest,
                readonly,
            }
        }));
    for file in contents.files {
        wasi.files.insert(file.name, file.bytes.to_vec());
    }

    let features = &mut options.features;
    for (given, feature) in [
        (given.wasm_bulk_memory, &mut features.bulk_memory),
        (given.wasm_multi_memory, &mut features.multi_memory),
        (given.wasm_multi_value, &mut features.multi_value),
        (given.wasm_reference_types, &mut features.reference_types),
        (given.wasm_simd, &mut features.simd),
        (given.wasm_relaxed_simd, &mut features.relaxed_simd),
        (
            given.relaxed_simd_deterministic,
            &mut features.relaxed_simd_deterministic,
        ),
    ] {
        if let Some(given) = given {
            *feature = given;
        }
    }
    Ok((options, given.on_progress))
}

fn item(given: ImportItem) -> Result<ProvidedItem, Error> {
    let misfit = || Error::option(format!("`imports` at `{}.{}`", given.module, given.name));
    let whole = |number: f64| number as u64;
    let maximum = given.maximum.map(whole);
    let value = |value: Option<JsValues>| value.and_then(|value| value.0.first().copied());
    let reference = match value(given.reference) {
        Some(Value::Ref(reference)) => Some(reference),
        _ => None,
    };
    let item = match given.kind.as_str() {
        "memory" => Item::Memory(ProvidedMemory {
            pages: given.size.map(whole),
            maximum,
            shared: given.shared,
            memory64: given.is_64,
            contents: given.contents.map_or_else(Vec::new, |bytes| bytes.to_vec()),
        }),
        "table" => Item::Table(ProvidedTable {
            size: given.size.map_or(0, whole),
            maximum,
            element: given.ty,
            table64: given.is_64,
        }),
        "global" => Item::Global(ProvidedGlobal {
            value: value(given.value).ok_or_else(misfit)?,
            ty: given.ty,
            mutable: given.mutable,
        }),
        "tag" => Item::Tag(given.params),
        "function" => Item::Function,
        _ => Item::Value,
    };
    Ok(ProvidedItem {
        module: given.module,
        name: given.name,
        item,
        reference,
    })
}

fn invocations(given: &[String]) -> Result<Vec<Invocation>, Error> {
    let parse = |text: &String| {
        Invocation::parse(text)
            .map_err(|what| Error::option(format!("`invoke` at `{text}`: {what}")))
    };
    given.iter().map(parse).collect()
}

/// The error for an option that cannot be read.
fn refusal(path: &str, error: &serde_json::Error) -> Error {
    // serde_json ends its messages with a place in text that the caller has never seen.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let name = rest.split(',').next().unwrap_or(rest);
        return Error::option(format!(
            "there is no option {name}; index.d.ts lists the options"
        ));
    }
    Error::option(format!("the option `{path}` has a wrong value: {message}"))
}
