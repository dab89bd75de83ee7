//! Where the modules of a run come from, in the binary format.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::modules::{Modules, Registered};
use super::provided;
use crate::engine::Prepared;
use crate::error::Error;
use crate::instrument::{Instrumented, Names, has_references, observer};
use crate::module::Module;
use crate::options::{Options, Preload, PreloadSource, ProvidedItem};

/// The modules that a run needs besides the one that is initialized, in the binary format.
pub struct Sources {
    /// The modules that are imported from, by name: first those that export what the caller
    /// provides, and then the preloaded ones.
    preloads: Vec<(String, Vec<u8>)>,
    observer: Option<Vec<u8>>,
    /// The modules that were instantiated after the one that is initialized, by name.
    later: Vec<(String, Vec<u8>)>,
    names: Vec<Registered>,
    /// What the caller provides and nobody has imported.
    items: Vec<ProvidedItem>,
}

impl Sources {
    /// Reads the preloaded modules, and makes the module's observer.
    pub fn read(module: &Module<'_>, options: &Options) -> Result<Sources, Error> {
        distinct_preloads(options)?;
        let read = |preload: &Preload| Ok((preload.name.clone(), read_preload(preload)?));
        let preloads = options.preloads.iter().map(read);
        let preloads = preloads.collect::<Result<Vec<_>, Error>>()?;
        let mut items = options.items.clone();
        let provided = match items.is_empty() && options.stubs.is_empty() {
            true => Vec::new(),
            false => {
                let parsed = parse(&preloads)?;
                let importers: Vec<&Module<'_>> = [module].into_iter().chain(&parsed).collect();
                let is_exported = |from: &str, name: &str| {
                    let mut named = preloads.iter().zip(&parsed);
                    named.any(|((of, _), module)| of == from && module.export(name).is_some())
                };
                let stubs = provided::stubs(&options.stubs, &items, &importers, &is_exported);
                items.extend(stubs);
                provided::modules(&mut items, &importers)?
            }
        };
        let provides = provided.len();
        let preloads: Vec<_> = provided.into_iter().chain(preloads).collect();
        let names = preloads.iter().enumerate();
        let names = names.map(|(position, (name, _))| Registered {
            name: name.clone(),
            position,
            since: position + 1,
            is_provided: position < provides,
        });
        Ok(Sources {
            names: names.collect(),
            items,
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
        let mut names = self.names.iter().filter(|of| !of.is_provided);
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
            is_provided: false,
        });
    }

    /// Takes note of one module more. Returns its position.
    pub fn add(&mut self, name: &str, wasm: Vec<u8>, is_provided: bool) -> usize {
        let position = self.len();
        self.later.push((name.into(), wasm));
        self.names.push(Registered {
            name: name.into(),
            position,
            since: position + 1,
            is_provided,
        });
        position
    }

    /// The modules that export what one module more imports of what the caller provides.
    ///
    /// # Errors
    ///
    /// [`Error::ImportType`] where that is not what it imports.
    pub fn provide(&mut self, importer: &Module<'_>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        provided::modules(&mut self.items, &[importer])
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
        Modules::new(all, self.names.clone(), self.main())
    }

    /// Makes the modules ready to run.
    pub fn instrument<'s>(&'s self, main: Module<'s>) -> Result<Modules<'s>, Error> {
        let modules = self.parse(main)?;
        let names = Names::new(&modules);
        let identify = has_references(&modules[self.main()]);
        let prepared = (0..).zip(modules);
        let prepared = prepared.map(|(number, m)| Prepared::new(m, &names, number, identify));
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
    const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
    const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
    if UTF_16_MARKS.iter().any(|mark| wasm.starts_with(mark)) {
        return Err(Error::InvalidText {
            message: "it is UTF-16; save it as UTF-8".into(),
        });
    }
    // Text begins with a parenthesis or a comment, perhaps behind a byte order mark; anything else
    // is for the binary parser to judge, which says what is wrong with it.
    let text = wasm.strip_prefix(UTF_8_MARK).unwrap_or(wasm);
    match text.trim_ascii_start().first() {
        Some(b'(' | b';') => wat::parse_bytes(text).map_err(|error| Error::InvalidText {
            message: error.to_string(),
        }),
        _ => Ok(Cow::Borrowed(wasm)),
    }
}
