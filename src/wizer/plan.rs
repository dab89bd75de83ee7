//! What the options mean for one module: what to call, and what becomes of the exports.

use std::collections::{BTreeMap, BTreeSet};

use super::REACTOR_INIT;
use crate::error::{Error, counted};
use crate::invoke::Invocation;
use crate::module::{ExternKind, Module};
use crate::options::{DEFAULT_INIT_FUNCS, KeepInitFunc, Options};
use crate::rewrite::Exports;
use crate::snapshot::plan::MAX_SEGMENTS;
use crate::value::Value;

/// What the options mean for one module.
pub struct Plan {
    /// Calls in their order, before that of the initialization function.
    pub invoke: Vec<(String, Vec<Value>)>,
    /// `None` where other calls take its place.
    pub init_func: Option<String>,
    /// Whether `_initialize` is to be called before it.
    pub reactor: bool,
    pub exports: Exports,
    /// The most data segments that the output may have.
    pub max_segments: usize,
    /// Whether a preloaded module's own state may be another.
    pub allow_preload_changes: bool,
    pub warnings: Vec<String>,
}

impl Plan {
    /// What the options mean where functions of the user's choice are called: `was_called` says
    /// which ones. The ones that initialize have then done their work.
    ///
    /// # Errors
    ///
    /// Where the renames do not fit the module.
    pub fn of_session(
        module: &Module<'_>,
        options: &Options,
        was_called: &dyn Fn(&str) -> bool,
    ) -> Result<Plan, Error> {
        let mut warnings = Vec::new();
        let rename = renames(module, options, &mut warnings)?;
        let initializers = match &options.init_func {
            Some(name) => vec![name.as_str()],
            None => DEFAULT_INIT_FUNCS.to_vec(),
        };
        let called = initializers.into_iter().filter(|name| was_called(name));
        let called = called.map(Into::into).collect();
        Ok(Plan {
            invoke: Vec::new(),
            init_func: None,
            reactor: false,
            exports: exports(module, options, called, was_called, rename)?,
            max_segments: limit(options),
            allow_preload_changes: options.allow_preload_changes,
            warnings,
        })
    }

    /// Finds what the options name.
    ///
    /// # Errors
    ///
    /// Where the initialization function or the renames do not fit the module.
    pub fn new(module: &Module<'_>, options: &Options) -> Result<Plan, Error> {
        let invoke = invocations(module, options)?;
        let init_func = match find_init_func(module, options) {
            Ok(name) => Some(name),
            Err(_) if !invoke.is_empty() && options.init_func.is_none() => None,
            Err(error) => return Err(error),
        };
        let mut warnings = Vec::new();
        let rename = renames(module, options, &mut warnings)?;
        let reactor = module
            .export(REACTOR_INIT)
            .is_some_and(|export| module.is_initializer(export));
        let index = |name: &str| module.export(name).map(|export| export.index);
        let initializers = init_func.clone().into_iter().collect();
        let was_called = |name: &str| match name {
            REACTOR_INIT => reactor,
            _ => invoke.iter().any(|(invoked, _)| invoked == name),
        };
        let exports = exports(module, options, initializers, &was_called, rename)?;
        let is_invoked = |name: &String| {
            invoke
                .iter()
                .any(|(invoked, _)| index(invoked) == index(name))
        };
        Ok(Plan {
            // Once, also where both names are of one function.
            reactor: reactor
                && !is_invoked(&REACTOR_INIT.to_string())
                && init_func
                    .as_ref()
                    .is_none_or(|name| index(REACTOR_INIT) != index(name)),
            // Nor a second time where the user says when it is to be called.
            init_func: init_func.filter(|name| !is_invoked(name)),
            invoke,
            exports,
            max_segments: limit(options),
            allow_preload_changes: options.allow_preload_changes,
            warnings,
        })
    }
}

/// The export by which modules that are linked dynamically have their pointers put right, once,
/// before all else. Those who load them call it, where it is there.
const RELOCATIONS: &str = "__wasm_apply_data_relocs";

/// What becomes of the exports, where `initializers` and other functions have initialized the
/// module.
fn exports(
    module: &Module<'_>,
    options: &Options,
    initializers: Vec<String>,
    was_called: &dyn Fn(&str) -> bool,
    rename: BTreeMap<String, String>,
) -> Result<Exports, Error> {
    let mut exports = Exports {
        rename,
        ..Exports::default()
    };
    let others = |names: &[&str]| {
        // What is both goes by what the user names.
        let others = names.iter().map(|name| name.to_string());
        let others = others.filter(|name| was_called(name) && !initializers.contains(name));
        others.collect::<Vec<_>>()
    };
    let (reactor, linked) = (others(&[REACTOR_INIT]), others(&[RELOCATIONS]));
    match options.keep_init_func {
        KeepInitFunc::No => exports.remove = [initializers, reactor].concat(),
        KeepInitFunc::Yes => exports.remove = reactor,
        KeepInitFunc::Empty => exports.empty = [initializers, reactor, linked].concat(),
    }
    for name in &exports.empty {
        let export = module.export(name);
        let ty = export.and_then(|export| module.function_type(export.index));
        if ty.is_some_and(|ty| !ty.results().is_empty()) {
            return Err(Error::option(format!(
                "`{name}` returns something, so that no function which does nothing can take its \
                 place; keep the export or remove it"
            )));
        }
    }
    Ok(exports)
}

/// The most data segments that the output may have.
fn limit(options: &Options) -> usize {
    let asked = options.max_segments;
    asked.map_or(MAX_SEGMENTS, |limit| limit.min(MAX_SEGMENTS))
}

/// The calls that are asked for, with arguments of the functions' types.
fn invocations(module: &Module<'_>, options: &Options) -> Result<Vec<(String, Vec<Value>)>, Error> {
    let one = |invocation: &Invocation| {
        let name = &invocation.name;
        let export = module.export(name).filter(|e| e.kind == ExternKind::Func);
        let ty = export.and_then(|export| module.function_type(export.index));
        let Some(ty) = ty else {
            return Err(Error::option(format!(
                "`{name}` is to be called, and the module exports no such function"
            )));
        };
        Ok((name.clone(), invocation.values(ty)?))
    };
    options.invoke.iter().map(one).collect()
}

fn find_init_func(module: &Module<'_>, options: &Options) -> Result<String, Error> {
    let names: Vec<&str> = match &options.init_func {
        Some(name) => vec![name],
        None => DEFAULT_INIT_FUNCS.to_vec(),
    };
    let candidates = || {
        let fits = module.exports.iter().filter(|e| module.is_initializer(e));
        fits.map(|e| e.name.to_string()).collect()
    };
    let Some(export) = names.iter().find_map(|name| module.export(name)) else {
        return Err(Error::InitFuncMissing {
            names: names.into_iter().map(Into::into).collect(),
            candidates: candidates(),
        });
    };
    if !module.is_initializer(export) {
        let found = match export.kind {
            ExternKind::Func => match module.function_type(export.index) {
                Some(ty) => format!(
                    "a function with {} and {}",
                    counted(ty.params().len() as u64, "parameter"),
                    counted(ty.results().len() as u64, "result")
                ),
                None => "a function".into(),
            },
            kind => format!("a {}", kind.name()),
        };
        return Err(Error::InitFuncType {
            name: export.name.into(),
            found,
            callable: export.kind == ExternKind::Func,
            candidates: candidates(),
        });
    }
    Ok(export.name.into())
}

/// New names by old names.
fn renames(
    module: &Module<'_>,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut by_source = BTreeMap::new();
    let mut destinations = BTreeSet::new();
    for (new, old) in &options.renames {
        let duplicate = |side, name: &String| Error::DuplicateRename {
            side,
            name: name.clone(),
        };
        if !destinations.insert(new) {
            return Err(duplicate("destination", new));
        }
        if by_source.insert(old.clone(), new.clone()).is_some() {
            return Err(duplicate("source", old));
        }
    }
    by_source.retain(|old, new| {
        let exported = module.export(old).is_some();
        if !exported {
            warnings.push(format!(
                "the rename of `{old}` to `{new}` did nothing: the module does not export `{old}`"
            ));
        }
        exported
    });
    Ok(by_source)
}
