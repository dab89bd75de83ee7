//! Custom sections: what is no longer true is left out, and names stay with what they name.

use wasm_encoder::Encode;
use wasmparser::BinaryReader;

use super::{Exports, Renumbered, dylink};
use crate::module::{Custom, Module};
use crate::splice::{Rope, Splice};

/// Custom sections that describe an input to a linker, which the output is no longer.
fn is_for_linkers(name: &str) -> bool {
    name == "linking" || name.starts_with("reloc.")
}

/// What became of the custom sections.
#[derive(Default)]
pub struct Customs {
    /// The ones that were left out.
    pub dropped: Vec<String>,
    /// Why a user might miss one of them.
    pub warnings: Vec<String>,
}

/// Drops custom sections that are no longer true, and keeps true what names segments and exports.
pub fn customs<'a>(
    module: &'a Module<'a>,
    policy: &Exports,
    elements: &Renumbered,
    data: &Renumbered,
    splice: &mut Splice<'a>,
) -> Customs {
    let mut customs = Customs::default();
    for custom in module.customs() {
        let Custom { name, position, .. } = custom;
        let is_library = dylink::is_dylink(name) && dylink::is_library(module);
        if is_library {
            customs.warnings.push(format!(
                "the section `{name}` was left out: the module is a library, and is initialized for \
                 the one place in memory and table that it had; instantiate it there yourself"
            ));
        }
        if is_library || is_for_linkers(name) {
            splice.drop_custom(position);
            customs.dropped.push(name.to_string());
            continue;
        }
        let edited = match name {
            "dylink.0" => dylink::with_exports(custom.contents, custom.start, policy),
            "name" => {
                let maps = [
                    (ELEMENT_NAMES, elements, module.elements.len()),
                    (DATA_NAMES, data, module.data.len()),
                ];
                renumber(custom.contents, custom.start, &maps)
            }
            _ => None,
        };
        if let Some(contents) = edited {
            splice.replace_custom(position, contents);
        }
    }
    customs
}

/// The subsections of the `name` section that name segments.
const ELEMENT_NAMES: u8 = 8;
const DATA_NAMES: u8 = 9;

/// The `name` section with the names of segments that are still there; `None` where it is right
/// as it is. Each of `maps` is of a subsection, and says where the segments, so many in all, are
/// now.
fn renumber<'a>(
    contents: &'a [u8],
    start: usize,
    maps: &[(u8, &Renumbered, usize)],
) -> Option<Rope<'a>> {
    let is_same =
        |map: &Renumbered, len| map.len() == len && map.iter().all(|(old, new)| old == new);
    edit_subsections(contents, start, |id, body| {
        let mut maps = maps.iter();
        let Some((_, map, _)) = maps.find(|(of, map, len)| *of == id && !is_same(map, *len)) else {
            return Some(Subsection::Kept);
        };
        let mut names = BinaryReader::new(body, 0);
        let mut kept = Items::default();
        for _ in 0..names.read_var_u32().ok()? {
            let index = names.read_var_u32().ok()?;
            let name = names.read_string().ok()?;
            if let Some(new) = map.get(&index) {
                kept.push(&(*new, name));
            }
        }
        Some(kept.subsection())
    })
}

/// What becomes of a subsection.
pub enum Subsection {
    Kept,
    Dropped,
    Is(Vec<u8>),
}

/// The items of a subsection that is a vector of pairs.
#[derive(Default)]
pub struct Items {
    count: u32,
    bytes: Vec<u8>,
}

impl Items {
    pub fn push<A: Encode, B: Encode>(&mut self, (first, second): &(A, B)) {
        first.encode(&mut self.bytes);
        second.encode(&mut self.bytes);
        self.count += 1;
    }

    /// The subsection that they make, if there are any.
    pub fn subsection(self) -> Subsection {
        if self.count == 0 {
            return Subsection::Dropped;
        }
        let mut body = Vec::new();
        self.count.encode(&mut body);
        body.extend_from_slice(&self.bytes);
        Subsection::Is(body)
    }
}

/// A custom section with other subsections, which begin at `start`; `None` where all of them are
/// kept, or cannot be read (they are for tools and people: a damaged section stays as it is).
pub fn edit_subsections<'a>(
    contents: &'a [u8],
    start: usize,
    mut edit: impl FnMut(u8, &'a [u8]) -> Option<Subsection>,
) -> Option<Rope<'a>> {
    let mut out = Rope::new();
    out.borrow(&contents[..start]);
    let mut reader = BinaryReader::new(contents, 0);
    reader.read_bytes(start).ok()?;
    let mut changed = false;
    while !reader.eof() {
        let from = reader.original_position();
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let body = reader.read_bytes(size as usize).ok()?;
        match edit(id, body)? {
            Subsection::Kept => {
                out.borrow(&contents[from..reader.original_position()]);
                continue;
            }
            Subsection::Dropped => {}
            Subsection::Is(body) => drop(out.write(&[id]).leb(body.len() as u32).write(&body)),
        }
        changed = true;
    }
    changed.then_some(out)
}
