//! The modules of a run, and how they hang together.

use std::collections::HashMap;

use wasmparser::{FuncType, TypeRef};

use crate::engine::Prepared;
use crate::error::Error;
use crate::instrument::Instrumented;
use crate::invoke;
use crate::module::{ExternKind, Module};
use crate::value::Value;

/// A name from which the exports of a module can be imported.
#[derive(Clone)]
pub struct Registered {
    pub name: String,
    pub position: usize,
    /// The first module that can.
    pub since: usize,
    /// Whether the module only exports what the caller provides.
    pub is_provided: bool,
}

/// The modules of a run, in the order of their instantiation.
pub struct Modules<'a> {
    all: Vec<Prepared<'a>>,
    names: Vec<Registered>,
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

/// What tells a function from others.
#[derive(PartialEq, Eq, Hash)]
pub struct Identity {
    source: Source,
    ty: Type,
}

/// The type of a function: a host gives one for each.
#[derive(PartialEq, Eq, Hash)]
enum Type {
    /// What the module that defines it says.
    AsDefined,
    /// The same wherever it is.
    Plain(FuncType),
    /// The type of this index of the module of this position.
    Own(usize, u32),
}

impl<'a> Modules<'a> {
    pub fn new(all: Vec<Prepared<'a>>, names: Vec<Registered>, main: usize) -> Modules<'a> {
        Modules { all, names, main }
    }

    /// Whether the preloaded module of this position only exports what the caller provides.
    pub fn is_provided(&self, position: usize) -> bool {
        let mut names = self.names.iter();
        names.any(|of| of.position == position && of.is_provided)
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

    /// How many of them, the first ones, only export what the caller provides.
    pub fn provided(&self) -> usize {
        let preloads = self.names.iter().filter(|of| of.position < self.main);
        preloads.filter(|of| of.is_provided).count()
    }

    /// The position of a module that is to be called besides the one that is initialized.
    ///
    /// # Errors
    ///
    /// Where there is none of this name, or what it exports cannot be called so.
    pub fn callable(&self, name: &str, export: &str, args: &[Value]) -> Result<usize, Error> {
        let (position, ty) = self.function(name, export)?;
        invoke::check(export, ty, args)?;
        Ok(position)
    }

    /// A function that such a module exports: the module's position, and the function's type.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn function(&self, name: &str, export: &str) -> Result<(usize, &FuncType), Error> {
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
        Ok((position, ty))
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
    pub fn functions(&self) -> HashMap<Identity, u32> {
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
    pub fn identity(&self, position: usize, function: u32) -> Identity {
        let source = self.source(position, ExternKind::Func, function);
        let module = &self.all[position].module;
        let ty = match (&source, module.functions.get(function)) {
            (Source::Host(..), Some(ty)) => match module.plain_type_at(*ty) {
                Some(structure) => Type::Plain(structure.clone()),
                None => Type::Own(position, *ty),
            },
            _ => Type::AsDefined,
        };
        Identity { source, ty }
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
