//! `dylink.0`: what a dynamic linker wants to know of a module
//! ([conventions](https://github.com/WebAssembly/tool-conventions/blob/main/DynamicLinking.md)).
//!
//! It stays where it is true. What it says of dependencies, search paths and imports is. The sizes
//! it asks for are of the part of memory and table in which the module was linked, wherever that
//! begins; a *main* module's part begins where its glue code always puts it. That of a *library*
//! begins wherever its loader finds room, and the initialized state is only right at one place:
//! there the section has to go, so that no loader puts it elsewhere.

use wasmparser::BinaryReader;

use super::Exports;
use super::names::{Subsection, edit_subsections};
use crate::module::Module;
use crate::splice::Rope;

/// Whether a custom section of this name is for dynamic linkers: today's, or the one before it.
pub fn is_dylink(name: &str) -> bool {
    name == "dylink.0" || name == "dylink"
}

/// The globals by which a loader says where the parts of a module begin.
const BASES: [&str; 2] = ["__memory_base", "__table_base"];

/// Functions of Emscripten's runtime that save and restore the stack, which only main modules
/// have: today's names and the ones before them.
const OF_MAIN: [&str; 4] = [
    "_emscripten_stack_restore",
    "emscripten_stack_get_current",
    "stackRestore",
    "stackSave",
];

/// Whether a loader decides where in memory and table the module has its place.
pub fn is_library(module: &Module<'_>) -> bool {
    let imports_base = module.imports.iter().any(|i| BASES.contains(&i.name));
    imports_base && !OF_MAIN.iter().any(|name| module.export(name).is_some())
}

/// The subsection that tells of exports.
const EXPORT_INFO: u8 = 3;

/// The `dylink.0` section, with the exports that there are; `None` where it is right as it is.
pub fn with_exports<'a>(contents: &'a [u8], start: usize, policy: &Exports) -> Option<Rope<'a>> {
    edit_subsections(contents, start, |id, body| match id {
        EXPORT_INFO => export_info(body, policy),
        _ => Some(Subsection::Kept),
    })
}

fn export_info(body: &[u8], policy: &Exports) -> Option<Subsection> {
    let mut reader = BinaryReader::new(body, 0);
    let mut all = super::names::Items::default();
    let mut changed = false;
    for _ in 0..reader.read_var_u32().ok()? {
        let name = reader.read_string().ok()?;
        let flags = reader.read_var_u32().ok()?;
        let becomes = policy.name(name);
        changed |= becomes != Some(name);
        if let Some(name) = becomes {
            all.push(&(name, flags));
        }
    }
    Some(match changed {
        true => all.subsection(),
        false => Subsection::Kept,
    })
}
