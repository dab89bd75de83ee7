//! What the integration tests share: fixtures, a judge that runs modules without wizer, and the
//! promises on an output's bytes.

// Every test binary compiles this, and none uses all of it.
#![allow(dead_code)]

pub mod fixtures;
pub mod judge;
pub mod structure;

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
