//! What the integration tests share: fixtures, a judge that runs modules without wizer, and the
//! promises on an output's bytes.

// Every test binary compiles this, and none uses all of it.
#![allow(dead_code)]

pub mod corpus;
pub mod fixtures;
pub mod judge;
pub mod structure;

use std::ops::Range;

use fixtures::Setup;
use judge::Judge;

/// Initializes a module, and asserts all that is promised of the output. Returns it.
///
/// # Panics
///
/// Where the output is not right; `what` says for which module.
pub fn initialize_and_judge(what: &str, wasm: &[u8], setup: &Setup) -> Vec<u8> {
    let outcome = setup
        .wizer()
        .snapshot(wasm)
        .unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
    structure::check(what, wasm, &outcome, setup);
    Judge::new(&setup.preloads).assert_equivalent(what, wasm, &outcome.wasm, setup);
    outcome.wasm
}

/// An error with all its causes, as the command line prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The seeds to use, where the environment does not say others.
pub fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(range) = std::env::var("SEEDS") else {
        return usual;
    };
    let (from, to) = range.split_once("..").expect("SEEDS is FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Numbers that look random and are the same in every run (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit as u64) as usize
    }

    pub fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}
