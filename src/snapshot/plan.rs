//! Which bytes of a memory become data segments.
//!
//! A segment costs its header, and so does every zero byte inside of it. Two neighbouring runs
//! of non-zero bytes are joined exactly when that makes the file smaller, counted in true LEB128
//! sizes, and beyond that only as far as the engines' limit on segments demands.

use std::ops::Range;

use rayon::prelude::*;

use super::{MemorySnapshot, pages};
use crate::splice::leb_len;

/// The most data segments that engines accept in one module: 100,000 in V8
/// (`kV8MaxWasmDataSegments`) and in wasmparser (`MAX_WASM_DATA_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 100_000;

/// No gap shorter than this pays for a segment of its own: flag, offset opcode, offset, `end`
/// and length take a byte each at the least.
const MIN_GAP: usize = 5;

/// How much of a memory one thread looks through at once, in bytes.
const PIECE: usize = 512 << 10;

/// The runs of non-zero bytes, with less than [`MIN_GAP`] zeros in a row.
fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for range in pages::touched(bytes) {
        let starts = range.clone().step_by(PIECE);
        pieces.extend(starts.map(|start| start..(start + PIECE).min(range.end)));
    }
    let find = |piece: Range<usize>| -> Vec<Range<usize>> {
        let shift = |run: Range<usize>| run.start + piece.start..run.end + piece.start;
        let bytes = &bytes[piece.clone()];
        Runs { bytes, at: 0 }.map(shift).collect()
    };
    let found: Vec<Vec<Range<usize>>> = match pieces.len() {
        0..4 => pieces.into_iter().map(find).collect(),
        _ => pieces.into_par_iter().map(find).collect(),
    };
    let mut runs: Vec<Range<usize>> = Vec::new();
    for run in found.into_iter().flatten() {
        match runs.last_mut() {
            // Cut in two where one piece ends and the next begins.
            Some(last) if run.start - last.end < MIN_GAP => last.end = run.end,
            _ => runs.push(run),
        }
    }
    runs
}

/// The runs of a zero-filled memory's bytes that are worth a segment each.
pub fn segments(bytes: &[u8], memory: u32, memory64: bool) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for run in runs(bytes) {
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
            runs: runs(bytes).into_iter().map(copy).collect(),
        }
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
    let mut gaps: Vec<(usize, usize, usize)> = Vec::new();
    for (m, memory) in memories.iter().enumerate() {
        for (s, pair) in memory.segments.windows(2).enumerate() {
            gaps.push((pair[1].start - pair[0].end, m, s));
        }
    }
    // Ties fall by position, so that the same state always gives the same bytes.
    gaps.sort_unstable();
    gaps.truncate(count - max);
    gaps.sort_unstable_by_key(|&(_, m, s)| (m, s));
    let mut gaps = gaps.into_iter().map(|(_, m, s)| (m, s)).peekable();
    for (m, memory) in memories.iter_mut().enumerate() {
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(memory.segments.len());
        let mut join_next = false;
        for (s, segment) in memory.segments.drain(..).enumerate() {
            match joined.last_mut() {
                Some(last) if join_next => last.end = segment.end,
                _ => joined.push(segment),
            }
            join_next = gaps.next_if_eq(&(m, s)).is_some();
        }
        memory.segments = joined;
    }
}

/// The runs of bytes that begin and end with a non-zero byte and hold no [`MIN_GAP`] zeros in
/// a row.
struct Runs<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at + leading_zeros(&self.bytes[self.at..]);
        if start == self.bytes.len() {
            self.at = start;
            return None;
        }
        let mut end = start;
        loop {
            let Some(zero) = memchr::memchr(0, &self.bytes[end..]) else {
                self.at = self.bytes.len();
                return Some(start..self.bytes.len());
            };
            end += zero;
            let gap = leading_zeros(&self.bytes[end..]);
            if gap >= MIN_GAP || end + gap == self.bytes.len() {
                self.at = end + gap;
                return Some(start..end);
            }
            end += gap;
        }
    }
}

/// How many zero bytes stand at the start.
fn leading_zeros(bytes: &[u8]) -> usize {
    const WIDE: usize = 64;
    let mut zeros = 0;
    let mut chunks = bytes.chunks_exact(WIDE);
    for chunk in chunks.by_ref() {
        let chunk: &[u8; WIDE] = chunk.try_into().expect("exact chunks");
        if *chunk != [0; WIDE] {
            break;
        }
        zeros += WIDE;
    }
    zeros + bytes[zeros..].iter().take_while(|b| **b == 0).count()
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
        let one: Vec<_> = Runs {
            bytes: &bytes,
            at: 0,
        }
        .collect();
        assert_eq!(runs(&bytes), one);
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
