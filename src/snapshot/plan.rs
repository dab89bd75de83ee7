//! Which bytes of a memory become data segments.
//!
//! A segment costs its header, and so does every zero byte inside of it. Two neighbouring runs
//! of non-zero bytes are joined exactly when that makes the file smaller, counted in true LEB128
//! sizes, and beyond that only as far as the engines' limit on segments demands.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::{MemorySnapshot, pages};
use crate::splice::leb_len;
use crate::threads::SHORT;

/// The most data segments that engines accept in one module: 100,000 in V8
/// (`kV8MaxWasmDataSegments`) and in wasmparser (`MAX_WASM_DATA_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 100_000;

/// No gap shorter than this pays for a segment of its own: flag, offset opcode, offset, `end`
/// and length take a byte each at the least.
const MIN_GAP: usize = 5;

/// No gap as long as this is closed to save bytes: no header of a segment is longer.
const WIDE_GAP: usize = 32;

/// How much of a memory one thread looks through at once, in bytes, and a little more.
const PIECE: usize = 512 << 10;

/// The runs of non-zero bytes, with less than [`MIN_GAP`] zeros in a row.
pub fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    in_pieces(bytes, |piece| {
        let mut runs = Vec::new();
        runs_in(bytes, piece, |run| runs.push(run));
        runs
    })
}

/// The runs of a zero-filled memory's bytes that are worth a segment each.
pub fn segments(bytes: &[u8], memory: u32, memory64: bool) -> Vec<Range<usize>> {
    in_pieces(bytes, |piece| {
        let mut joining = Joining::new(memory, memory64);
        runs_in(bytes, piece, |run| joining.add(run));
        joining.segments
    })
}

/// Has several threads look through a memory, and puts together what they find.
fn in_pieces(
    bytes: &[u8],
    find: impl Fn(Range<usize>) -> Vec<Range<usize>> + Send + Sync,
) -> Vec<Range<usize>> {
    let pieces = pieces(bytes);
    let found: Vec<_> = match pieces.len() {
        0..4 => pieces.into_iter().map(find).collect(),
        _ => SHORT.run(|| pieces.into_par_iter().map(find).collect()),
    };
    found.concat()
}

/// The parts of a memory that may hold something, with a wide gap between any two: so whatever is
/// done with the runs of one, those of the others do not matter.
fn pieces(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for mut rest in pages::touched(bytes) {
        while let Some(cut) = cut(&bytes[rest.clone()]) {
            pieces.push(rest.start..rest.start + cut);
            rest.start += cut;
        }
        pieces.push(rest);
    }
    pieces
}

/// Where the first piece of these bytes ends: behind a wide gap that comes soon behind a multiple of
/// [`PIECE`]. Bytes that are hardly ever zero are not worth a longer search.
fn cut(bytes: &[u8]) -> Option<usize> {
    const SEARCHED: usize = 64 << 10;
    (PIECE..bytes.len()).step_by(PIECE).find_map(|at| {
        let (chunks, _) = bytes[at..bytes.len().min(at + SEARCHED)].as_chunks();
        let gap = chunks.iter().position(|chunk| *chunk == [0; WIDE_GAP])?;
        Some(at + (gap + 1) * WIDE_GAP)
    })
}

/// The runs of bytes, worth a segment each, that are not what they were; a memory that grew was
/// zero there.
pub fn differences(
    before: &Contents,
    bytes: &[u8],
    memory: u32,
    memory64: bool,
) -> Vec<Range<usize>> {
    let mut changed: Vec<Range<usize>> = Vec::new();
    let mut note = |run: Range<usize>| match changed.last_mut() {
        Some(last) if run.start - last.end < MIN_GAP => last.end = run.end,
        _ => changed.push(run),
    };
    for piece in before.or(bytes) {
        let old = before.bytes(piece.clone());
        let new = &bytes[piece.clone()];
        for (at, (old, new)) in (piece.start..).zip(old.iter().zip(new)) {
            if old != new {
                note(at..at + 1);
            }
        }
    }
    let mut joining = Joining::new(memory, memory64);
    changed.into_iter().for_each(|run| joining.add(run));
    joining.segments
}

/// Takes a range out of runs.
pub fn leave_out(runs: &mut Vec<Range<usize>>, range: Range<usize>) {
    let parts = runs.iter().flat_map(|run| {
        let before = run.start..run.end.min(range.start);
        let behind = run.start.max(range.end)..run.end;
        [before, behind].into_iter().filter(|part| !part.is_empty())
    });
    *runs = parts.collect();
}

/// Joins neighbouring runs where that makes the file smaller.
struct Joining {
    memory: u32,
    memory64: bool,
    segments: Vec<Range<usize>>,
}

impl Joining {
    fn new(memory: u32, memory64: bool) -> Joining {
        Joining {
            memory,
            memory64,
            segments: Vec::new(),
        }
    }

    /// Adds a run behind the others.
    fn add(&mut self, run: Range<usize>) {
        let size = |run: &Range<usize>| size(run, self.memory, self.memory64);
        if let Some(last) = self.segments.last_mut() {
            let joined = last.start..run.end;
            if size(&joined) <= size(last) + size(&run) {
                *last = joined;
                return;
            }
        }
        self.segments.push(run);
    }
}

/// What is in a memory, without its zeros.
#[derive(PartialEq, Eq)]
pub struct Contents {
    len: usize,
    runs: Vec<(usize, Vec<u8>)>,
}

impl Contents {
    pub fn of(bytes: &[u8]) -> Contents {
        let copy = |run: Range<usize>| (run.start, bytes[run].to_vec());
        Contents {
            len: bytes.len(),
            runs: runs(bytes).into_iter().map(copy).collect(),
        }
    }

    /// The parts of a memory where either these contents or `bytes` are not zero, in order, apart,
    /// and no longer than [`PIECE`].
    fn or(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let own = self
            .runs
            .iter()
            .map(|(start, run)| *start..start + run.len());
        let mut parts: Vec<Range<usize>> = own.chain(runs(bytes)).collect();
        parts.sort_unstable_by_key(|part| part.start);
        let mut apart: Vec<Range<usize>> = Vec::new();
        for part in parts {
            match apart.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => apart.push(part),
            }
        }
        let pieces = apart.into_iter().flat_map(|part| {
            let starts = part.clone().step_by(PIECE);
            starts.map(move |start| start..(start + PIECE).min(part.end))
        });
        pieces.collect()
    }

    /// A part of the contents, zeros included.
    pub fn bytes(&self, part: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; part.len()];
        let first = self
            .runs
            .partition_point(|(start, run)| start + run.len() <= part.start);
        for (start, run) in &self.runs[first..] {
            let from = (*start).max(part.start);
            let to = (start + run.len()).min(part.end);
            if from >= to {
                break;
            }
            bytes[from - part.start..to - part.start]
                .copy_from_slice(&run[from - start..to - start]);
        }
        bytes
    }
}

/// How many bytes a segment takes in the data section.
pub fn size(run: &Range<usize>, memory: u32, memory64: bool) -> usize {
    let index = if memory == 0 {
        0
    } else {
        leb_len(memory.into())
    };
    1 + index + 1 + offset_len(run.start, memory64) + 1 + leb_len(run.len() as u64) + run.len()
}

/// How many bytes an offset takes as the signed LEB128 number of `i32.const` or `i64.const`.
fn offset_len(offset: usize, memory64: bool) -> usize {
    let value = match memory64 {
        true => offset as i64,
        // An offset of 2 GiB and more is a negative `i32`.
        false => i64::from(offset as u32 as i32),
    };
    let magnitude = if value < 0 { !value } else { value };
    let bits = 64 - magnitude.leading_zeros() + 1;
    bits.div_ceil(7) as usize
}

/// Joins neighbouring segments, smallest gaps first, until there are at most `max` of them.
pub fn limit(memories: &mut [MemorySnapshot<'_>], max: usize) {
    let count: usize = memories.iter().map(|m| m.segments.len()).sum();
    if count <= max {
        return;
    }
    // How many gaps there are of each length, to find the length up to which they are closed.
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    let mut short = [0; 64];
    for pair in memories.iter().flat_map(|m| m.segments.windows(2)) {
        let gap = pair[1].start - pair[0].end;
        match short.get_mut(gap) {
            Some(count) => *count += 1,
            None => *lengths.entry(gap).or_default() += 1,
        }
    }
    lengths.extend(short.into_iter().enumerate());
    let mut to_close = count - max;
    let mut longest = 0;
    for (length, count) in lengths {
        longest = length;
        if count >= to_close {
            break;
        }
        to_close -= count;
    }
    // Of the gaps of this length, as many as it takes: the first ones, so that the same state
    // always gives the same bytes.
    for memory in memories {
        memory.segments.dedup_by(|next, last| {
            let gap = next.start - last.end;
            let close = gap < longest || (gap == longest && to_close > 0);
            if close {
                to_close -= usize::from(gap == longest);
                last.end = next.end;
            }
            close
        });
        memory.segments.shrink_to_fit();
    }
}

/// How many bytes are looked at together.
const WIDE: usize = 64;

/// Finds the runs of bytes in a piece of memory that begin and end with a non-zero byte and hold
/// no [`MIN_GAP`] zeros in a row.
fn runs_in(bytes: &[u8], piece: Range<usize>, mut found: impl FnMut(Range<usize>)) {
    const REACH: usize = MIN_GAP - 1;
    let mut start = None;
    // Which of the last bytes are not zero, the latest in the highest bit; and where the last
    // one of all ends.
    let mut before = 0u64;
    let mut last = 0;
    let mut inside = 0u64;
    for (at, bytes) in (piece.start..).step_by(WIDE).zip(bytes[piece].chunks(WIDE)) {
        let mask = match bytes.try_into() {
            Ok(bytes) => non_zero(bytes),
            Err(_) => {
                let mut padded = [0; WIDE];
                padded[..bytes.len()].copy_from_slice(bytes);
                non_zero(&padded)
            }
        };
        // Nothing begins or ends where all is zero since long, or nothing is.
        if (mask == 0 && before >> (64 - REACH) == 0 && inside == 0)
            || (mask == u64::MAX && inside == 1)
        {
            before = mask;
            if mask != 0 {
                last = at + WIDE;
            }
            continue;
        }
        // Each byte that is not zero reaches over the zeros behind it that do not end a run.
        let stream = u128::from(mask) << REACH | u128::from(before >> (64 - REACH));
        let reached = (0..=REACH).fold(0, |all, n| all | stream >> n) as u64;
        let mut changes = reached ^ (reached << 1 | inside);
        while changes != 0 {
            let place = at + changes.trailing_zeros() as usize;
            changes &= changes - 1;
            match start.take() {
                None => start = Some(place),
                Some(start) => found(start..place - REACH),
            }
        }
        inside = reached >> 63;
        before = mask;
        if mask != 0 {
            last = at + WIDE - mask.leading_zeros() as usize;
        }
    }
    if let Some(start) = start {
        found(start..last);
    }
}

/// Which of the bytes are not zero, the first in the lowest bit.
fn non_zero(bytes: &[u8; WIDE]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    /// Brings the lowest bits of eight bytes together in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let words = bytes.as_chunks().0.iter().zip((0..).step_by(8));
    words.fold(0, |mask, (word, shift)| {
        let word = u64::from_le_bytes(*word);
        // The highest bit of each byte says whether any bit of it is set.
        let set = (((word & LOW) + LOW) | word) & !LOW;
        mask | ((set >> 7).wrapping_mul(GATHER) >> 56) << shift
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(len: usize, set: &[Range<usize>]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for range in set {
            bytes[range.clone()].fill(7);
        }
        bytes
    }

    /// The smallest total over every way to join neighbouring runs.
    fn cheapest(runs: &[Range<usize>]) -> usize {
        let mut best = usize::MAX;
        for mask in 0..1u32 << (runs.len() - 1) {
            let mut total = 0;
            let mut current = runs[0].clone();
            for (i, run) in runs[1..].iter().enumerate() {
                if mask & (1 << i) != 0 {
                    current.end = run.end;
                } else {
                    total += size(&current, 0, false);
                    current = run.clone();
                }
            }
            best = best.min(total + size(&current, 0, false));
        }
        best
    }

    #[test]
    fn a_zero_memory_needs_no_segment() {
        assert!(segments(&[0; 70_000], 0, false).is_empty());
        assert!(segments(&[], 0, false).is_empty());
    }

    #[test]
    fn runs_are_joined_exactly_when_it_saves_bytes() {
        for gap in 1..12 {
            let sets = [10..20, 20 + gap..30 + gap];
            let bytes = memory(256, &sets);
            let total: usize = segments(&bytes, 0, false)
                .iter()
                .map(|s| size(s, 0, false))
                .sum();
            assert_eq!(total, cheapest(&sets), "gap {gap}");
        }
    }

    #[test]
    fn a_size_is_what_the_encoder_writes() {
        for start in [
            0,
            63,
            64,
            8191,
            8192,
            1 << 20,
            (1 << 31) - 1,
            1 << 31,
            (1 << 32) - 2,
        ] {
            for memory64 in [false, true] {
                let mut section = wasm_encoder::DataSection::new();
                let offset = match memory64 {
                    true => wasm_encoder::ConstExpr::i64_const(start as i64),
                    false => wasm_encoder::ConstExpr::i32_const(start as u32 as i32),
                };
                section.active(0, &offset, [1]);
                let run = start..start + 1;
                let mut bytes = Vec::new();
                wasm_encoder::Encode::encode(&section, &mut bytes);
                // The section begins with its size and the number of segments, a byte each.
                assert_eq!(size(&run, 0, memory64), bytes.len() - 2, "{start}");
            }
        }
    }

    #[test]
    fn the_limit_joins_the_smallest_gaps() {
        let bytes = memory(1000, &[0..1, 100..101, 150..151, 400..401]);
        let mut memories = [MemorySnapshot {
            index: 0,
            pages: 1,
            bytes: &bytes,
            segments: segments(&bytes, 0, false),
        }];
        assert_eq!(memories[0].segments.len(), 4);
        limit(&mut memories, 2);
        assert_eq!(memories[0].segments, [0..151, 400..401]);
    }

    /// Bytes of which one in eight is not zero.
    fn random(len: usize) -> Vec<u8> {
        let mut seed = 1u64;
        let mut bytes = vec![0u8; len];
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 61 == 0 {
                *byte = (seed >> 32) as u8;
            }
        }
        bytes
    }

    /// Where a memory is cut for several threads cannot be seen: gaps of all lengths around those
    /// that matter, between runs of all lengths around those that matter, where one byte more
    /// takes another byte to be written.
    #[test]
    fn several_threads_find_what_one_finds() {
        let mut seed = 7u64;
        let mut below = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        for widest in [1, 9, 12, WIDE_GAP, WIDE_GAP + 1, 3 * WIDE_GAP, 10_000] {
            let mut bytes = vec![0u8; 6 * PIECE + 123];
            let mut at = 0;
            while at < bytes.len() {
                let len = [1, 3, 120, 126, 127, 128, 16_380, 16_384][below(8)] + below(3);
                let end = (at + len).min(bytes.len());
                bytes[at..end].fill(1);
                at = end + below(widest);
            }
            match widest {
                0..=WIDE_GAP => assert_eq!(pieces(&bytes).len(), 1),
                _ => assert!(widest < 2 * WIDE_GAP || pieces(&bytes).len() > 1),
            }
            let mut one = Vec::new();
            runs_in(&bytes, 0..bytes.len(), |run| one.push(run));
            assert!(runs(&bytes) == one, "{widest}");
            for (memory, memory64) in [(0, false), (1, false), (300, true)] {
                let mut joining = Joining::new(memory, memory64);
                one.iter().for_each(|run| joining.add(run.clone()));
                assert!(
                    segments(&bytes, memory, memory64) == joining.segments,
                    "{widest}"
                );
            }
        }
    }

    /// What [`WIDE_GAP`] says of itself.
    #[test]
    fn a_wide_gap_is_never_closed() {
        for len in [1, 127, 128, 1 << 14, 1 << 21, 1 << 28, 1 << 35] {
            for start in [0, 1 << 20, 1 << 30, 1 << 62] {
                let size = |run: &Range<usize>| size(run, u32::MAX, true);
                let first = start..start + len;
                let second = first.end + WIDE_GAP..first.end + WIDE_GAP + len;
                assert!(size(&(first.start..second.end)) > size(&first) + size(&second));
            }
        }
    }

    /// What the bit patterns of [`runs_in`] are to find, byte by byte.
    fn slowly(bytes: &[u8]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        let non_zero = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        for (at, _) in non_zero {
            match runs.last_mut() {
                Some(last) if at - last.end < MIN_GAP => last.end = at + 1,
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    #[test]
    fn runs_of_every_length_at_every_place() {
        for len in [0, 1, 63, 64, 65, 127, 128, 200] {
            for density in 0..=8 {
                for seed in 0..200u64 {
                    let mut state = seed * 9 + density + 1;
                    let mut byte = || {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        // Each of 1 to 255, so that each bit of a byte counts.
                        match (state >> 40) % 8 < density {
                            true => (state % 255) as u8 + 1,
                            false => 0,
                        }
                    };
                    let bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
                    let mut runs = Vec::new();
                    runs_in(&bytes, 0..len, |run| runs.push(run));
                    assert_eq!(runs, slowly(&bytes), "{bytes:?}");
                }
            }
        }
        for byte in 1..=255 {
            assert_eq!(non_zero(&[byte; WIDE]), u64::MAX);
            for at in 0..WIDE {
                let mut bytes = [0; WIDE];
                bytes[at] = byte;
                assert_eq!(non_zero(&bytes), 1 << at);
            }
        }
    }

    #[test]
    fn contents_are_equal_exactly_when_the_bytes_are() {
        let bytes = random(10_000);
        assert!(Contents::of(&bytes) == Contents::of(&bytes.clone()));
        assert!(Contents::of(&bytes) != Contents::of(&bytes[..9_999]));
        for at in (0..10_000).step_by(97) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Contents::of(&bytes) != Contents::of(&other), "{at}");
        }
    }

    #[test]
    fn differences_are_all_that_is_needed() {
        let before = random(3 * PIECE);
        let mut after = before.clone();
        after.resize(4 * PIECE, 0);
        for at in [
            0,
            5,
            7,
            1000,
            PIECE - 1,
            PIECE,
            2 * PIECE + 3,
            3 * PIECE,
            4 * PIECE - 1,
        ] {
            after[at] ^= 0x55;
        }
        after[5000..9000].fill(0);
        let found = Contents::of(&before);
        assert!(differences(&found, &before, 0, false).is_empty());
        let segments = differences(&found, &after, 0, false);
        let mut again = before;
        again.resize(after.len(), 0);
        for segment in segments {
            assert_ne!(again[segment.start], after[segment.start]);
            assert_ne!(again[segment.end - 1], after[segment.end - 1]);
            again[segment.clone()].copy_from_slice(&after[segment]);
        }
        assert!(again == after);
    }

    #[test]
    fn every_byte_of_a_random_memory_is_covered() {
        let bytes = random(20_000);
        let mut again = vec![0u8; bytes.len()];
        for run in segments(&bytes, 0, false) {
            assert_ne!(bytes[run.start], 0);
            assert_ne!(bytes[run.end - 1], 0);
            again[run.clone()].copy_from_slice(&bytes[run]);
        }
        assert_eq!(again, bytes);
    }
}
