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
use crate::threads::in_parallel;

/// The most data segments that engines accept in one module: 100,000 in V8
/// (`kV8MaxWasmDataSegments`) and in wasmparser (`MAX_WASM_DATA_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 100_000;

/// No gap shorter than this pays for a segment of its own: flag, offset opcode, offset, `end`
/// and length take a byte each at the least.
const MIN_GAP: usize = 5;

/// How much of a memory one thread looks through at once, in bytes.
const PIECE: usize = 512 << 10;

/// The runs of non-zero bytes, with less than [`MIN_GAP`] zeros in a row.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut pieces = Vec::new();
    for range in pages::touched(bytes) {
        let starts = range.clone().step_by(PIECE);
        pieces.extend(starts.map(|start| start..(start + PIECE).min(range.end)));
    }
    let find = |piece: &Range<usize>| runs_in(&bytes[piece.clone()]);
    let found: Vec<Vec<(u32, u32)>> = match pieces.len() {
        0..4 => pieces.iter().map(find).collect(),
        _ => in_parallel(|| pieces.par_iter().map(find).collect()),
    };
    let in_memory = pieces.into_iter().zip(found).flat_map(|(piece, runs)| {
        let place = move |at: u32| piece.start + at as usize;
        runs.into_iter()
            .map(move |(start, end)| place(start)..place(end))
    });
    // A run may be cut in two where one piece ends and the next begins.
    let mut in_memory = in_memory.peekable();
    std::iter::from_fn(move || {
        let mut run = in_memory.next()?;
        while let Some(next) = in_memory.next_if(|next| next.start - run.end < MIN_GAP) {
            run.end = next.end;
        }
        Some(run)
    })
}

/// The runs of a zero-filled memory's bytes that are worth a segment each.
pub fn segments(bytes: &[u8], memory: u32, memory64: bool) -> Vec<Range<usize>> {
    join(runs(bytes), memory, memory64)
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
    join(changed.into_iter(), memory, memory64)
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
fn join(
    runs: impl Iterator<Item = Range<usize>>,
    memory: u32,
    memory64: bool,
) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for run in runs {
        if let Some(last) = out.last_mut() {
            let apart = size(last, memory, memory64) + size(&run, memory, memory64);
            let joined = last.start..run.end;
            if size(&joined, memory, memory64) <= apart {
                *last = joined;
                continue;
            }
        }
        out.push(run);
    }
    out
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
            runs: runs(bytes).map(copy).collect(),
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
    fn bytes(&self, part: Range<usize>) -> Vec<u8> {
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

/// The runs of bytes in a piece of memory that begin and end with a non-zero byte and hold no
/// [`MIN_GAP`] zeros in a row, as (start, end).
fn runs_in(piece: &[u8]) -> Vec<(u32, u32)> {
    const REACH: u32 = MIN_GAP as u32 - 1;
    let mut runs = Vec::new();
    let mut start = None;
    // Which of the last bytes are not zero, the latest in the highest bit; and where the last
    // one of all ends.
    let mut before = 0u64;
    let mut last = 0;
    let mut inside = 0u64;
    for (at, bytes) in (0u32..).step_by(WIDE).zip(piece.chunks(WIDE)) {
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
                last = at + WIDE as u32;
            }
            continue;
        }
        // Each byte that is not zero reaches over the zeros behind it that do not end a run.
        let stream = u128::from(mask) << REACH | u128::from(before >> (64 - REACH));
        let reached = (0..=REACH).fold(0, |all, n| all | stream >> n) as u64;
        let mut changes = reached ^ (reached << 1 | inside);
        while changes != 0 {
            let place = at + changes.trailing_zeros();
            changes &= changes - 1;
            match start.take() {
                None => start = Some(place),
                Some(start) => runs.push((start, place - REACH)),
            }
        }
        inside = reached >> 63;
        before = mask;
        if mask != 0 {
            last = at + WIDE as u32 - mask.leading_zeros();
        }
    }
    if let Some(start) = start {
        runs.push((start, last));
    }
    runs
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

    /// Where the memory is cut for several threads cannot be seen.
    #[test]
    fn several_threads_find_what_one_finds() {
        let mut bytes = random(7 * PIECE + 123);
        for border in 1..7 {
            // Short and long runs of zeros and of others across a border.
            let at = border * PIECE;
            bytes[at - 2 * border..at + border].fill(u8::from(border % 2 == 0));
        }
        let one = runs_in(&bytes).into_iter();
        assert!(runs(&bytes).eq(one.map(|(start, end)| start as usize..end as usize)));
    }

    /// What the bit patterns of [`runs_in`] are to find, byte by byte.
    fn slowly(bytes: &[u8]) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let non_zero = (0u32..).zip(bytes).filter(|(_, byte)| **byte != 0);
        for (at, _) in non_zero {
            match runs.last_mut() {
                Some((_, end)) if at - *end < MIN_GAP as u32 => *end = at + 1,
                _ => runs.push((at, at + 1)),
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
                    assert_eq!(runs_in(&bytes), slowly(&bytes), "{bytes:?}");
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
