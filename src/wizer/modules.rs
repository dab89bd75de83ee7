//! The modules of a run, and how they hang together.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use wasmparser::{FuncType, TypeRef};

use super::provided;
use crate::engine::Prepared;
use crate::error::Error;
use crate::instrument::{Instrumented, Names, has_references, observer};
use crate::invoke;
use crate::module::{ExternKind, Module};
use crate::options::{Options, Preload, PreloadSource};
use crate::value::Value;

/// The modules that a run needs besides the one that is initialized, in the binary format.
pub struct Sources {
    /// The modules that are imported from, by name: first those that export what the caller
    /// provides, and then the preloaded ones.
    preloads: Vec<(String, Vec<u8>)>,
    provided: usize,
    observer: Option<Vec<u8>>,
    /// The modules that were instantiated after the one that is initialized, by name.
    later: Vec<(String, Vec<u8>)>,
    names: Vec<Registered>,
}

/// A name from which the exports of a module can be imported.
#[derive(Clone)]
struct Registered {
    name: String,
    position: usize,
    /// The first module that can.
    since: usize,
}

impl Sources {
    /// Reads the preloaded modules, and makes the module's observer.
    pub fn read(module: &Module<'_>, options: &Options) -> Result<Sources, Error> {
        distinct_preloads(options)?;
        let read = |preload: &Preload| Ok((preload.name.clone(), read_preload(preload)?));
        let preloads = options.preloads.iter().map(read);
        let preloads = preloads.collect::<Result<Vec<_>, Error>>()?;
        let provided = match options.items.is_empty() {
            true => Vec::new(),
            false => {
                let parsed = parse(&preloads)?;
                let importers: Vec<&Module<'_>> = [module].into_iter().chain(&parsed).collect();
                provided::modules(&options.items, &importers)?
            }
        };
        let provides = provided.len();
        let preloads: Vec<_> = provided.into_iter().chain(preloads).collect();
        let names = preloads.iter().enumerate();
        let names = names.map(|(position, (name, _))| Registered {
            name: name.clone(),
            position,
            since: position + 1,
        });
        Ok(Sources {
            names: names.collect(),
            provided: provides,
            preloads,
            observer: observer(module),
            later: Vec::new(),
        })
    }

    /// The position of the module that is initialized.
    fn main(&self) -> usize {
        self.preloads.len() + usize::from(self.observer.is_some())
    }

    /// How many modules there are.
    fn len(&self) -> usize {
        self.main() + 1 + self.later.len()
    }

    /// Whether modules can be called, or imported from, by this name.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where there is one of this name.
    pub fn is_free(&self, name: &str) -> Result<(), Error> {
        let mut names = self.names.iter().filter(|of| of.position >= self.provided);
        match names.any(|of| of.name == name) {
            true => Err(Error::option(format!(
                "there is a module of the name `{name}` already"
            ))),
            false => Ok(()),
        }
    }

    /// From now on, the module that is initialized can be imported from.
    pub fn register_main(&mut self, name: &str) {
        self.names.push(Registered {
            name: name.into(),
            position: self.main(),
            since: self.len(),
        });
    }

    /// Takes note of one module more. Returns its position.
    pub fn add(&mut self, name: &str, wasm: Vec<u8>) -> usize {
        let position = self.len();
        self.later.push((name.into(), wasm));
        self.names.push(Registered {
            name: name.into(),
            position,
            since: position + 1,
        });
        position
    }

    /// The modules of users: the preloaded ones, by name, and the one that is initialized.
    pub fn of<'s>(&'s self, main: &'s [u8]) -> Vec<(&'s [u8], Option<&'s str>)> {
        let preloads = self.preloads.iter();
        let preloads = preloads.map(|(name, bytes)| (&bytes[..], Some(name.as_str())));
        preloads.chain([(main, None)]).collect()
    }

    /// All modules of a run, in the order of their instantiation.
    fn parse<'s>(&'s self, main: Module<'s>) -> Result<Vec<Module<'s>>, Error> {
        let mut modules = parse(&self.preloads)?;
        if let Some(observer) = &self.observer {
            modules.push(Module::parse(observer)?);
        }
        modules.push(main);
        modules.extend(parse(&self.later)?);
        Ok(modules)
    }

    fn modules<'s>(&self, all: Vec<Prepared<'s>>) -> Modules<'s> {
        Modules {
            all,
            names: self.names.clone(),
            provided: self.provided,
            main: self.main(),
        }
    }

    /// Makes the modules ready to run.
    pub fn instrument<'s>(&'s self, main: Module<'s>) -> Result<Modules<'s>, Error> {
        let modules = self.parse(main)?;
        let names = Names::new(&modules);
        let identify = modules.last().is_some_and(has_references);
        let prepared = modules
            .into_iter()
            .map(|m| Prepared::new(m, &names, identify));
        Ok(self.modules(prepared.collect()))
    }

    /// The modules as they were made ready before.
    pub fn again<'s>(
        &'s self,
        main: Module<'s>,
        code: &[Instrumented],
    ) -> Result<Modules<'s>, Error> {
        let modules = self.parse(main)?.into_iter().zip(code);
        let prepared = modules.map(|(module, code)| Prepared {
            module,
            code: code.clone(),
        });
        Ok(self.modules(prepared.collect()))
    }
}

fn parse(modules: &[(String, Vec<u8>)]) -> Result<Vec<Module<'_>>, Error> {
    let modules = modules.iter();
    let parsed = modules.map(|(name, bytes)| Module::parse(bytes).map_err(|e| e.in_preload(name)));
    parsed.collect()
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

fn read_preload(preload: &Preload) -> Result<Vec<u8>, Error> {
    let bytes = match &preload.source {
        PreloadSource::Bytes(bytes) => bytes.clone(),
        PreloadSource::File(path) => std::fs::read(path).map_err(|source| Error::Io {
            action: "open the preloaded module",
            path: path.clone(),
            source,
        })?,
    };
    let binary = to_binary(&bytes).map_err(|error| error.in_preload(&preload.name))?;
    Ok(binary.into_owned())
}

/// The module in the binary format, whichever of the two formats it is given in.
pub fn to_binary(wasm: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    // Text begins with a parenthesis or a comment; anything else is for the binary parser to
    // judge, which says what is wrong with it.
    match wasm.trim_ascii_start().first() {
        Some(b'(' | b';') => wat::parse_bytes(wasm).map_err(|error| Error::InvalidText {
            message: error.to_string(),
        }),
        _ => Ok(Cow::Borrowed(wasm)),
    }
}

/// The modules of a run, in the order of their instantiation.
pub struct Modules<'a> {
    all: Vec<Prepared<'a>>,
    names: Vec<Registered>,
    /// How many of them, the first ones, only export what the caller provides.
    provided: usize,
    /// The position of the one that is initialized.
    main: usize,
}

/// Where a thing comes from that a module defines or imports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The module of this position defines it, under this index.
    Module(usize, u32),
    /// The host provides it under these names.
    Host(String, String),
}

impl<'a> Modules<'a> {
    /// Whether the preloaded module of this position only exports what the caller provides.
    pub fn is_provided(&self, position: usize) -> bool {
        position < self.provided
    }

    /// How they were instrumented, without the memory of what was needed to run them.
    pub fn into_code(mut self) -> Vec<Instrumented> {
        self.have_run();
        self.all.into_iter().map(|prepared| prepared.code).collect()
    }

    /// All of them.
    pub fn all(&self) -> &[Prepared<'a>] {
        &self.all
    }

    /// Gives back the memory of what was needed to run them.
    pub fn have_run(&mut self) {
        self.all.iter_mut().for_each(Prepared::has_run);
    }

    /// The module that is initialized.
    pub fn main(&self) -> &Prepared<'a> {
        &self.all[self.main]
    }

    /// The position of the module that is initialized.
    pub fn main_position(&self) -> usize {
        self.main
    }

    /// The modules besides that one: position, name and module.
    pub fn others(&self) -> impl Iterator<Item = (usize, &str, &Prepared<'a>)> {
        let others = self.names.iter().filter(|of| of.position != self.main);
        others.map(|of| (of.position, of.name.as_str(), &self.all[of.position]))
    }

    /// Those of them that come before it.
    pub fn preloads(&self) -> impl Iterator<Item = (usize, &str, &Prepared<'a>)> {
        self.others().filter(|(position, ..)| *position < self.main)
    }

    /// How many of them only export what the caller provides.
    pub fn provided(&self) -> usize {
        self.provided
    }

    /// The position of a module that is to be called besides the one that is initialized.
    ///
    /// # Errors
    ///
    /// Where there is none of this name, or what it exports cannot be called so.
    pub fn callable(&self, name: &str, export: &str, args: &[Value]) -> Result<usize, Error> {
        let mut named = self.others().filter(|(position, found, _)| {
            // What the caller provides goes by the same names.
            *found == name && !self.is_provided(*position)
        });
        let Some((position, _, prepared)) = named.next() else {
            return Err(Error::option(format!(
                "there is no module `{name}` to call"
            )));
        };
        let module = &prepared.module;
        let function = module.export(export).filter(|e| e.kind == ExternKind::Func);
        let Some(ty) = function.and_then(|e| module.function_type(e.index)) else {
            return Err(Error::option(format!(
                "the module `{name}` exports no function `{export}`"
            )));
        };
        invoke::check(export, ty, args)?;
        Ok(position)
    }

    /// The module's observer and its position.
    pub fn observer(&self) -> Option<(usize, &Prepared<'a>)> {
        let position = self.preloads().count();
        (position < self.main).then(|| (position, &self.all[position]))
    }

    /// Where a thing of a module comes from.
    pub fn source(&self, position: usize, kind: ExternKind, index: u32) -> Source {
        let module = &self.all[position].module;
        let Some(import) = module.import(kind, index) else {
            return Source::Module(position, index);
        };
        let from = self.names.iter().filter(|of| of.since <= position);
        let from = from.filter(|of| of.name == import.module);
        let mut exports = from.filter_map(|of| {
            let export = self.all[of.position].module.export(import.name)?;
            (export.kind == kind).then_some((of.position, export.index))
        });
        match exports.next() {
            Some((position, index)) => self.source(position, kind, index),
            None => Source::Host(import.module.into(), import.name.into()),
        }
    }

    /// The functions of the module itself by where they come from and their types: a host gives
    /// a function of each type that it is asked for. Of several that are the same, the first.
    pub fn functions(&self) -> HashMap<(Source, Option<FuncType>), u32> {
        let mut functions = HashMap::new();
        let main = self.main_position();
        for index in &self.main().code.functions {
            functions
                .entry(self.identity(main, *index))
                .or_insert(*index);
        }
        functions
    }

    /// What tells a function from others.
    pub fn identity(&self, position: usize, function: u32) -> (Source, Option<FuncType>) {
        let source = self.source(position, ExternKind::Func, function);
        let ty = self.all[position].module.function_type(function).cloned();
        match source {
            Source::Host(..) => (source, ty),
            // It is what the module that defines it says.
            Source::Module(..) => (source, None),
        }
    }

    /// Whether the module itself imports a thing of another one.
    pub fn is_imported(&self, source: &Source, kind: ExternKind) -> bool {
        let main = self.main_position();
        let count = imported(&self.main().module, kind);
        (0..count).any(|index| self.source(main, kind, index) == *source)
    }
}

/// How many things of a kind a module imports.
fn imported(module: &Module<'_>, kind: ExternKind) -> u32 {
    match kind {
        ExternKind::Func => module.functions.imported(),
        ExternKind::Table => module.tables.imported(),
        ExternKind::Memory => module.memories.imported(),
        ExternKind::Global => module.globals.imported(),
        ExternKind::Tag => module.tags.imported(),
    }
}

/// Whether a module imports something besides functions that preloaded modules may share.
pub fn shares(module: &Module<'_>, name: &str) -> bool {
    module.imports.iter().any(|import| {
        import.module == name && !matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_))
    })
}
