//! The modules of a run, and how they hang together.

use std::collections::HashMap;

use wasmparser::TypeRef;

use crate::engine::Prepared;
use crate::module::{ExternKind, Module};

/// The modules of a run, in the order of their instantiation.
pub struct Modules<'a> {
    all: Vec<Prepared<'a>>,
    /// The names of the preloaded modules, which come first.
    names: Vec<String>,
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
    /// The preloaded modules under their names, the module's observer where it has one, and the
    /// module itself.
    pub fn new(all: Vec<Prepared<'a>>, names: Vec<String>) -> Modules<'a> {
        Modules { all, names }
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
        self.all.last().expect("the module itself")
    }

    /// The position of the module that is initialized.
    pub fn main_position(&self) -> usize {
        self.all.len() - 1
    }

    /// The preloaded modules: position, name and module.
    pub fn preloads(&self) -> impl Iterator<Item = (usize, &str, &Prepared<'a>)> {
        let named = self.names.iter().zip(&self.all).enumerate();
        named.map(|(position, (name, module))| (position, name.as_str(), module))
    }

    /// The module's observer and its position.
    pub fn observer(&self) -> Option<(usize, &Prepared<'a>)> {
        let position = self.names.len();
        (position < self.main_position()).then(|| (position, &self.all[position]))
    }

    /// Where a thing of a module comes from.
    pub fn source(&self, position: usize, kind: ExternKind, index: u32) -> Source {
        let module = &self.all[position].module;
        let Some(import) = module.import(kind, index) else {
            return Source::Module(position, index);
        };
        let from = self.preloads().take(position);
        let from = from.filter(|(_, name, _)| *name == import.module);
        let mut exports = from.filter_map(|(position, _, prepared)| {
            let export = prepared.module.export(import.name)?;
            (export.kind == kind).then_some((position, export.index))
        });
        match exports.next() {
            Some((position, index)) => self.source(position, kind, index),
            None => Source::Host(import.module.into(), import.name.into()),
        }
    }

    /// The functions of a module by where they come from; of several of one source, the first.
    pub fn functions(&self, position: usize) -> HashMap<Source, u32> {
        let mut functions = HashMap::new();
        for index in &self.all[position].code.functions {
            let source = self.source(position, ExternKind::Func, *index);
            functions.entry(source).or_insert(*index);
        }
        functions
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
