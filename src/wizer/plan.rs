//! What the options mean for one module: what to call, and what becomes of the exports.

use std::collections::{BTreeMap, BTreeSet};

use super::REACTOR_INIT;
use crate::error::{Error, counted};
use crate::module::{ExternKind, Module};
use crate::options::{DEFAULT_INIT_FUNCS, Options};
use crate::rewrite::Exports;
use crate::snapshot::plan::MAX_SEGMENTS;

/// What the options mean for one module.
pub struct Plan {
    pub init_func: String,
    /// Whether `_initialize` is to be called before it.
    pub reactor: bool,
    pub exports: Exports,
    /// The most data segments that the output may have.
    pub max_segments: usize,
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
        let initializers = initializers.into_iter().filter(|_| !options.keep_init_func);
        let remove = initializers.chain([REACTOR_INIT]);
        let remove = remove.filter(|name| was_called(name));
        Ok(Plan {
            init_func: String::new(),
            reactor: false,
            exports: Exports {
                remove: remove.map(Into::into).collect(),
                rename,
            },
            max_segments: limit(options),
            warnings,
        })
    }

    /// Finds what the options name.
    ///
    /// # Errors
    ///
    /// Where the initialization function or the renames do not fit the module.
    pub fn new(module: &Module<'_>, options: &Options) -> Result<Plan, Error> {
        let init_func = find_init_func(module, options)?;
        let mut warnings = Vec::new();
        let rename = renames(module, options, &mut warnings)?;
        distinct_preloads(options)?;
        let reactor = module
            .export(REACTOR_INIT)
            .is_some_and(|export| module.is_initializer(export));
        let index = |name: &str| module.export(name).map(|export| export.index);
        let mut remove = Vec::new();
        if !options.keep_init_func {
            remove.push(init_func.clone());
        }
        if reactor && init_func != REACTOR_INIT {
            remove.push(REACTOR_INIT.to_string());
        }
        Ok(Plan {
            // Once, also where both names are of one function.
            reactor: reactor && index(REACTOR_INIT) != index(&init_func),
            init_func,
            exports: Exports { remove, rename },
            max_segments: limit(options),
            warnings,
        })
    }
}

/// The most data segments that the output may have.
fn limit(options: &Options) -> usize {
    let asked = options.max_segments;
    asked.map_or(MAX_SEGMENTS, |limit| limit.min(MAX_SEGMENTS))
}

/// Which of two modules of one name is imported from would be anybody's guess.
fn distinct_preloads(options: &Options) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    match options.preloads.iter().find(|p| !names.insert(&p.name)) {
        Some(twice) => Err(Error::option(format!(
            "two modules are to be preloaded under the name `{}`",
            twice.name
        ))),
        None => Ok(()),
    }
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
