//! Custom sections: what is no longer true is left out, and names stay with what they name.

use wasm_encoder::Encode;

use super::Renumbered;
use crate::module::{Module, section};
use crate::splice::{Rope, Splice};

/// Custom sections that describe an input to a linker, which the output is no longer.
fn is_for_linkers(name: &str) -> bool {
    name == "dylink" || name == "dylink.0" || name == "linking" || name.starts_with("reloc.")
}

/// Drops custom sections that are no longer true, and keeps the names of segments true.
pub fn customs<'a>(
    module: &'a Module<'a>,
    elements: &Renumbered,
    data: &Renumbered,
    splice: &mut Splice<'a>,
) -> Vec<String> {
    let mut dropped = Vec::new();
    for (position, section) in module.sections.iter().enumerate() {
        if section.id != section::CUSTOM {
            continue;
        }
        let contents = module.contents(section);
        let mut reader = wasmparser::BinaryReader::new(contents, 0);
        let Ok(name) = reader.read_string() else {
            continue;
        };
        if is_for_linkers(name) {
            splice.drop_custom(position);
            dropped.push(name.to_string());
        } else if name == "name" {
            let start = reader.original_position();
            let maps = [
                (ELEMENT_NAMES, elements, module.elements.len()),
                (DATA_NAMES, data, module.data.len()),
            ];
            if let Some(names) = renumber(contents, start, &maps) {
                splice.replace_custom(position, names);
            }
        }
    }
    dropped
}

/// The subsections of the `name` section that name segments.
const ELEMENT_NAMES: u8 = 8;
const DATA_NAMES: u8 = 9;

/// The `name` section with the names of segments that are still there; `None` where it is right
/// as it is, or not readable (names are for people: a damaged section is kept). Each of `maps` is
/// of a subsection, and says where the segments, so many in all, are now.
fn renumber<'a>(
    contents: &'a [u8],
    start: usize,
    maps: &[(u8, &Renumbered, usize)],
) -> Option<Rope<'a>> {
    let is_same =
        |map: &Renumbered, len| map.len() == len && map.iter().all(|(old, new)| old == new);
    let mut out = Rope::new();
    out.borrow(&contents[..start]);
    let mut reader = wasmparser::BinaryReader::new(contents, 0);
    reader.read_bytes(start).ok()?;
    let mut found = false;
    while !reader.eof() {
        let from = reader.original_position();
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let body = reader.read_bytes(size as usize).ok()?;
        let map = maps
            .iter()
            .find(|(of, map, len)| *of == id && !is_same(map, *len));
        let Some((_, map, _)) = map else {
            out.borrow(&contents[from..reader.original_position()]);
            continue;
        };
        found = true;
        let mut names = wasmparser::BinaryReader::new(body, 0);
        let mut kept: Vec<u8> = Vec::new();
        let mut count = 0u32;
        for _ in 0..names.read_var_u32().ok()? {
            let index = names.read_var_u32().ok()?;
            let name = names.read_string().ok()?;
            if let Some(new) = map.get(&index) {
                new.encode(&mut kept);
                name.encode(&mut kept);
                count += 1;
            }
        }
        if count > 0 {
            let mut map = Vec::new();
            count.encode(&mut map);
            map.extend_from_slice(&kept);
            out.write(&[id]).leb(map.len() as u32).write(&map);
        }
    }
    found.then_some(out)
}
