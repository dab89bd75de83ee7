//! Is it valid? Asked where no engine has answered: engines validate what they compile.

use wasmparser::{Validator, WasmFeatures};

use crate::error::Error;

/// Validates a module.
///
/// # Errors
///
/// [`Error::InvalidModule`], with the place in the input.
pub fn validate(bytes: &[u8], features: &Features) -> Result<(), Error> {
    Validator::new_with_features(wasm_features(features)).validate_all(bytes)?;
    Ok(())
}

/// The proposals that the engines run, without the ones that were switched off.
fn wasm_features(features: &Features) -> WasmFeatures {
    let mut all = WasmFeatures::WASM3
        | WasmFeatures::THREADS
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::WIDE_ARITHMETIC;
    all.set(WasmFeatures::BULK_MEMORY, features.bulk_memory);
    all.set(WasmFeatures::MULTI_MEMORY, features.multi_memory);
    all.set(WasmFeatures::MULTI_VALUE, features.multi_value);
    all.set(WasmFeatures::SIMD, features.simd);
    all.set(
        WasmFeatures::RELAXED_SIMD,
        features.simd && features.relaxed_simd,
    );
    if !features.reference_types {
        all.remove(
            WasmFeatures::REFERENCE_TYPES
                | WasmFeatures::FUNCTION_REFERENCES
                | WasmFeatures::GC
                | WasmFeatures::EXCEPTIONS,
        );
    }
    all
}

/// WebAssembly proposals that can be switched off, to have modules that use them refused.
/// Everything else that the engines support is always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    pub bulk_memory: bool,
    pub multi_memory: bool,
    pub multi_value: bool,
    pub reference_types: bool,
    pub simd: bool,
    pub relaxed_simd: bool,
    /// Whether relaxed SIMD instructions give the same results on every machine.
    pub relaxed_simd_deterministic: bool,
}

impl Default for Features {
    fn default() -> Self {
        Features {
            bulk_memory: true,
            multi_memory: true,
            multi_value: true,
            reference_types: true,
            simd: true,
            relaxed_simd: true,
            relaxed_simd_deterministic: false,
        }
    }
}
