//! Sections in, bytes out: keep, replace, insert or drop sections of a module.
//!
//! Knows the order of sections and nothing of what is in them. Bytes that stay are borrowed
//! until the one allocation at the end.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::module::{Module, section};
use crate::threads::SHORT;

/// Bytes to be written, most of them borrowed.
#[derive(Default)]
pub struct Rope<'a> {
    parts: Vec<Part<'a>>,
    /// The bytes of all [`Part::Own`], so that a small piece costs no allocation.
    own: Vec<u8>,
    len: usize,
}

enum Part<'a> {
    Borrowed(&'a [u8]),
    Own(Range<usize>),
}

impl<'a> Rope<'a> {
    pub fn new() -> Self {
        Rope::default()
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends bytes that live elsewhere.
    pub fn borrow(&mut self, bytes: &'a [u8]) -> &mut Self {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.parts.push(Part::Borrowed(bytes));
        }
        self
    }

    /// Appends a few bytes.
    pub fn write(&mut self, bytes: &[u8]) -> &mut Self {
        self.own(|own| own.extend_from_slice(bytes))
    }

    /// Appends an unsigned LEB128 number.
    pub fn leb(&mut self, value: u32) -> &mut Self {
        self.encode(&value)
    }

    /// Appends a value in the encoding of the binary format.
    pub fn encode(&mut self, value: &(impl wasm_encoder::Encode + ?Sized)) -> &mut Self {
        self.own(|own| value.encode(own))
    }

    /// Appends what `write` adds.
    fn own(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.own.len();
        write(&mut self.own);
        let end = self.own.len();
        self.len += end - start;
        match self.parts.last_mut() {
            Some(Part::Own(range)) if range.end == start => range.end = end,
            _ => self.parts.push(Part::Own(start..end)),
        }
        self
    }

    /// Appends another rope.
    pub fn append(&mut self, other: Rope<'a>) -> &mut Self {
        let shift = self.own.len();
        self.own.extend_from_slice(&other.own);
        self.len += other.len;
        self.parts
            .extend(other.parts.into_iter().map(|part| match part {
                Part::Own(range) => Part::Own(range.start + shift..range.end + shift),
                borrowed => borrowed,
            }));
        self
    }

    /// All bytes, in one allocation of exactly their size, written by as many threads as pays.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; self.len];
        let mut pieces: Vec<(&mut [u8], &[u8])> = Vec::new();
        let mut rest = &mut out[..];
        for part in &self.parts {
            let bytes = match part {
                Part::Borrowed(bytes) => bytes,
                Part::Own(range) => &self.own[range.clone()],
            };
            for bytes in bytes.chunks(PIECE) {
                let (here, behind) = rest.split_at_mut(bytes.len());
                pieces.push((here, bytes));
                rest = behind;
            }
        }
        let copy = |(to, from): (&mut [u8], &[u8])| to.copy_from_slice(from);
        match self.len {
            0..PARALLEL => pieces.into_iter().for_each(copy),
            // Many pieces are a few bytes, which is no work to hand to a thread.
            _ => SHORT.run(|| pieces.into_par_iter().with_min_len(64).for_each(copy)),
        }
        out
    }
}

/// From this size on, several threads write the bytes: they wait for new memory from the system
/// more than for anything else.
const PARALLEL: usize = 1 << 20;

/// The most that one thread copies at once.
const PIECE: usize = 256 << 10;

/// How many bytes an unsigned LEB128 number takes.
pub fn leb_len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros().min(63);
    bits.div_ceil(7) as usize
}

/// Bytes to write over those that are there, at a place in a section's contents.
pub struct Patch {
    pub at: usize,
    pub bytes: Vec<u8>,
}

/// What becomes of one section.
enum Edit<'a> {
    Drop,
    Replace(Rope<'a>),
}

/// A module with edits to its sections.
pub struct Splice<'a> {
    module: &'a Module<'a>,
    /// By section id; at most one section of each id but the custom one.
    edits: BTreeMap<u8, Edit<'a>>,
    /// By the custom section's position in [`Module::sections`].
    customs: BTreeMap<usize, Edit<'a>>,
}

/// The spliced module.
pub struct Spliced {
    pub bytes: Vec<u8>,
    /// Where the code section's contents begin, where there is one.
    pub code: Option<usize>,
}

impl<'a> Splice<'a> {
    pub fn new(module: &'a Module<'a>) -> Self {
        Splice {
            module,
            edits: BTreeMap::new(),
            customs: BTreeMap::new(),
        }
    }

    /// Gives the section new contents, inserting it where the module has none.
    pub fn replace(&mut self, id: u8, contents: Rope<'a>) {
        self.edits.insert(id, Edit::Replace(contents));
    }

    /// Leaves the section out.
    pub fn drop(&mut self, id: u8) {
        self.edits.insert(id, Edit::Drop);
    }

    /// Gives the custom section at `position` new contents (its name included).
    pub fn replace_custom(&mut self, position: usize, contents: Rope<'a>) {
        self.customs.insert(position, Edit::Replace(contents));
    }

    /// Leaves the custom section at `position` out.
    pub fn drop_custom(&mut self, position: usize) {
        self.customs.insert(position, Edit::Drop);
    }

    /// Appends `items`, `count` of them, to a section that is a vector of items.
    pub fn append(&mut self, id: u8, count: u32, items: &[u8]) {
        self.patch_and_append(id, &[], count, items);
    }

    /// As [`Splice::append`], with patches of the items that are there, in their order.
    pub fn patch_and_append(&mut self, id: u8, patches: &[Patch], count: u32, items: &[u8]) {
        if count == 0 && patches.is_empty() {
            return;
        }
        let mut contents = Rope::new();
        match self.module.section(id) {
            Some(section) => {
                let old = self.module.contents(section);
                let (old_count, rest) = split_count(old);
                contents.leb(old_count + count);
                let mut at = old.len() - rest.len();
                for patch in patches {
                    contents.borrow(&old[at..patch.at]).write(&patch.bytes);
                    at = patch.at + patch.bytes.len();
                }
                contents.borrow(&old[at..]);
            }
            None => {
                contents.leb(count);
            }
        }
        contents.write(items);
        self.replace(id, contents);
    }

    /// The module with its edits, in one exactly sized allocation.
    pub fn finish(mut self) -> Spliced {
        let module = self.module;
        let mut order: Vec<(u8, Chunk<'a>)> = Vec::new();
        // The next section of a known order decides where an inserted one goes: right after its
        // predecessor, so that it stays before custom sections which must come later (`name`).
        let ids: Vec<u8> = module.sections.iter().map(|s| s.id).collect();
        let present: std::collections::BTreeSet<u8> = ids.iter().copied().collect();
        let mut inserted: Vec<(u8, Rope<'a>)> = Vec::new();
        for id in self.edits.keys().copied().collect::<Vec<_>>() {
            if !present.contains(&id)
                && let Some(Edit::Replace(rope)) = self.edits.remove(&id)
            {
                inserted.push((id, rope));
            }
        }
        inserted.sort_by_key(|(id, _)| std::cmp::Reverse(section::rank(*id)));

        let mut flush = |order: &mut Vec<(u8, Chunk<'a>)>, before: u8| {
            while let Some((id, _)) = inserted.last()
                && section::rank(*id) < before
            {
                let (id, rope) = inserted.pop().expect("there is a last one");
                order.push((id, Chunk::New(rope)));
            }
        };
        // What belongs before the first ordered section waits until that section is reached;
        // custom sections in front (`dylink.0`) stay in front.
        for (position, old) in module.sections.iter().enumerate() {
            let next = |from: usize| {
                ids[from..]
                    .iter()
                    .map(|id| section::rank(*id))
                    .find(|rank| *rank != 0)
                    .unwrap_or(u8::MAX)
            };
            if old.id != section::CUSTOM {
                flush(&mut order, section::rank(old.id));
            }
            let edit = match old.id {
                section::CUSTOM => self.customs.remove(&position),
                id => self.edits.remove(&id),
            };
            match edit {
                None => order.push((
                    old.id,
                    Chunk::Kept {
                        whole: &module.bytes[old.start..old.contents.end],
                        header: old.contents.start - old.start,
                    },
                )),
                Some(Edit::Drop) => {}
                Some(Edit::Replace(rope)) => order.push((old.id, Chunk::New(rope))),
            }
            if old.id != section::CUSTOM {
                flush(&mut order, next(position + 1));
            }
        }
        flush(&mut order, u8::MAX);

        let mut out = Rope::new();
        out.borrow(&module.bytes[..8]);
        let mut code = None;
        for (id, chunk) in order {
            if id == section::CODE {
                code = Some(out.len() + chunk.header());
            }
            match chunk {
                Chunk::Kept { whole, .. } => out.borrow(whole),
                Chunk::New(rope) => {
                    let size = u32::try_from(rope.len()).expect("the caller bounds the output");
                    out.write(&[id]).leb(size).append(rope)
                }
            };
        }
        let bytes = out.to_bytes();
        Spliced { bytes, code }
    }
}

/// One section of the output.
enum Chunk<'a> {
    Kept { whole: &'a [u8], header: usize },
    New(Rope<'a>),
}

impl Chunk<'_> {
    fn header(&self) -> usize {
        match self {
            Chunk::Kept { header, .. } => *header,
            Chunk::New(rope) => 1 + leb_len(rope.len() as u64),
        }
    }
}

/// The number of items that a vector section begins with, and the bytes of its items.
pub fn split_count(contents: &[u8]) -> (u32, &[u8]) {
    let mut reader = wasmparser::BinaryReader::new(contents, 0);
    let count = reader
        .read_var_u32()
        .expect("the parser has read this section");
    (count, &contents[reader.original_position()..])
}

/// How many bytes the item count takes that a vector section begins with.
pub fn leading_count_len(contents: &[u8]) -> usize {
    contents.len() - split_count(contents).1.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb_len_agrees_with_the_encoder() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut bytes = Vec::new();
            wasm_encoder::Encode::encode(&value, &mut bytes);
            assert_eq!(leb_len(u64::from(value)), bytes.len(), "{value}");
        }
    }

    #[test]
    fn an_inserted_section_stands_in_its_place_and_before_the_name_section() {
        let wasm = wat::parse_str("(module $named (memory 1) (func $f))").unwrap();
        let module = Module::parse(&wasm).unwrap();
        let mut splice = Splice::new(&module);
        let mut data = Rope::new();
        data.write(b"\x01\x00\x41\x00\x0b\x01x");
        splice.replace(section::DATA, data);
        let mut exports = Rope::new();
        exports.write(b"\x00");
        splice.replace(section::EXPORT, exports);
        let out = splice.finish().bytes;
        wasmparser::validate(&out).unwrap();
        let ids: Vec<u8> = Module::parse(&out)
            .unwrap()
            .sections
            .iter()
            .map(|s| s.id)
            .collect();
        assert_eq!(
            ids,
            [
                section::TYPE,
                section::FUNCTION,
                section::MEMORY,
                section::EXPORT,
                section::CODE,
                section::DATA,
                section::CUSTOM
            ]
        );
    }
}
