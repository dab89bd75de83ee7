//! Which pages of a memory have ever been touched.
//!
//! A memory may be far larger than what is in it: 4 GiB of address space with a few pages in
//! use. Looking at a page that was never touched would make the system provide it. Engines keep
//! memories in private memory of no file (their copy-on-write images are switched off), where a
//! page that is neither present nor swapped out is one that nobody wrote to: it is zero.

use std::ops::Range;

/// Below this size, looking at the bytes is as fast as asking, in bytes.
const WORTH_ASKING: usize = 1 << 20;

/// The parts of `bytes` that may hold something else than zeros, in order and apart.
pub fn touched(bytes: &[u8]) -> Vec<Range<usize>> {
    let asked = match bytes.len() {
        0..WORTH_ASKING => None,
        _ => ask(bytes),
    };
    asked.unwrap_or_else(|| std::iter::once(0..bytes.len()).collect())
}

/// Asks Linux, in the file that says of each page of this process where it is. `None` where it
/// does not say, or not the truth.
#[cfg(target_os = "linux")]
fn ask(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    use std::os::unix::fs::FileExt;

    /// The size of an entry, and what it says: from the kernel's `pagemap.rst`.
    const ENTRY: usize = 8;
    const PRESENT_OR_SWAPPED: u64 = 1 << 63 | 1 << 62;

    let pagemap = std::fs::File::open("/proc/self/pagemap").ok()?;
    let page = rustix::param::page_size();
    let entry_of = |address: usize| (address / page * ENTRY) as u64;
    // A kernel that is emulated may give a file of zeros: it has to know a page that is there.
    let mut known = [0; ENTRY];
    let here = std::hint::black_box(&known).as_ptr().addr();
    pagemap.read_exact_at(&mut known, entry_of(here)).ok()?;
    if u64::from_ne_bytes(known) & PRESENT_OR_SWAPPED == 0 {
        return None;
    }

    let start = bytes.as_ptr().addr();
    let end = start + bytes.len();
    let mut touched: Vec<Range<usize>> = Vec::new();
    let mut entries = vec![0; ENTRY << 15];
    let mut at = start / page * page;
    while at < end {
        let pages = (end - at).div_ceil(page).min(entries.len() / ENTRY);
        let entries = &mut entries[..pages * ENTRY];
        pagemap.read_exact_at(entries, entry_of(at)).ok()?;
        for entry in entries.chunks_exact(ENTRY) {
            let entry = u64::from_ne_bytes(entry.try_into().expect("exact chunks"));
            if entry & PRESENT_OR_SWAPPED != 0 {
                let from = at.max(start) - start;
                let to = (at + page).min(end) - start;
                match touched.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => touched.push(from..to),
                }
            }
            at += page;
        }
    }
    Some(touched)
}

#[cfg(not(target_os = "linux"))]
fn ask(_: &[u8]) -> Option<Vec<Range<usize>>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_written_is_left_out() {
        for len in [0, 1, 4096, WORTH_ASKING - 1, WORTH_ASKING, (64 << 20) + 5] {
            let mut bytes = vec![0u8; len];
            let places = [0, 1, 4095, 4096, len / 2, len.saturating_sub(1)];
            for at in places.into_iter().filter(|at| *at < len) {
                bytes[at] = 1;
            }
            let touched = touched(&bytes);
            for at in places.into_iter().filter(|at| *at < len) {
                assert!(
                    touched.iter().any(|range| range.contains(&at)),
                    "{at} of {len}"
                );
            }
            assert!(touched.iter().all(|range| range.end <= len));
            assert!(touched.is_sorted_by(|a, b| a.end < b.start));
        }
    }

    /// Where the system tells, which is where the file is.
    #[cfg(target_os = "linux")]
    #[test]
    fn pages_that_nobody_touched_are_left_out() {
        if std::fs::File::open("/proc/self/pagemap").is_err() {
            return;
        }
        let mut bytes = vec![0u8; 1 << 30];
        bytes[500 << 20] = 1;
        let touched: usize = touched(&bytes).iter().map(|range| range.len()).sum();
        assert!(touched < 16 << 20, "{touched}");
    }
}
