//! Is it valid? All function bodies are looked at in parallel, beside whatever else goes on.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Scope;

use rayon::prelude::*;
use wasmparser::{FuncToValidate, FuncValidatorAllocations, FunctionBody, Parser};
use wasmparser::{ValidPayload, Validator, ValidatorResources, WasmFeatures};

use crate::error::Error;
use crate::threads::BESIDE;

/// The validation of the modules of a run, on threads of its own.
#[derive(Clone)]
pub struct Validation(Arc<(Mutex<Progress>, Condvar)>);

enum Progress {
    GoingOn,
    Over(Result<Valid, Error>),
}

/// What is known of a valid module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Valid {
    /// Whether it uses legacy exceptions, which only the engine of a host may run.
    pub legacy_exceptions: bool,
}

impl Validation {
    /// Begins to validate modules. Each comes with its name, if it is a preloaded one.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where there is no thread for it.
    pub fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        modules: Vec<(&'scope [u8], Option<&'scope str>)>,
        features: &'scope Features,
    ) -> Result<Validation, Error> {
        let validation = Validation(Arc::new((Mutex::new(Progress::GoingOn), Condvar::new())));
        let shared = validation.clone();
        let work = move || {
            let all = || -> Result<Valid, Error> {
                let mut all = Valid::default();
                for (bytes, preload) in modules {
                    let valid = validate(bytes, features).map_err(|error| match preload {
                        Some(name) => error.in_preload(name),
                        None => error,
                    })?;
                    all.legacy_exceptions |= valid.legacy_exceptions;
                }
                Ok(all)
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(all))
                .unwrap_or_else(|_| Err(Error::internal("the validation panicked")));
            let (progress, changed) = &*shared.0;
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = Progress::Over(result);
            changed.notify_all();
        };
        std::thread::Builder::new()
            .name("wizer-validate".into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::internal(format!("no thread to validate on: {e}")))?;
        Ok(validation)
    }

    /// Whether all modules were found valid; `None` while that is not known.
    pub fn verdict(&self) -> Option<bool> {
        match &*self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Progress::GoingOn => None,
            Progress::Over(result) => Some(result.is_ok()),
        }
    }

    /// Whether it was not found yet that there are none.
    pub fn may_have_legacy_exceptions(&self) -> bool {
        match &*self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Progress::GoingOn => true,
            Progress::Over(result) => result.as_ref().is_ok_and(|valid| valid.legacy_exceptions),
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidModule`], once.
    pub fn wait(&self) -> Result<Valid, Error> {
        let (progress, changed) = &*self.0;
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *progress {
                Progress::GoingOn => {
                    progress = changed
                        .wait(progress)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Progress::Over(result) => {
                    let again = Ok(*result.as_ref().unwrap_or(&Valid::default()));
                    return std::mem::replace(result, again);
                }
            }
        }
    }
}

/// Validates a module.
///
/// # Errors
///
/// [`Error::InvalidModule`], with the first place in the input that is wrong, and
/// [`Error::Unsupported`] where that is an instruction which no engine here runs.
pub fn validate(bytes: &[u8], features: &Features) -> Result<Valid, Error> {
    let enabled = wasm_features(features);
    let error = match validate_for(bytes, enabled) {
        Ok(()) => return Ok(Valid::default()),
        Err(error) => error,
    };
    match error {
        Error::InvalidModule {
            message,
            offset: Some(offset),
        } if message.starts_with(LEGACY_EXCEPTIONS) => {
            // What is not valid with them either is just that.
            validate_for(bytes, enabled | WasmFeatures::LEGACY_EXCEPTIONS)?;
            match features.legacy_exceptions {
                true => Ok(Valid {
                    legacy_exceptions: true,
                }),
                false => Err(legacy_exceptions(&format!("at offset {offset:#x}"))),
            }
        }
        other => Err(other),
    }
}

/// That no engine runs a module with legacy exceptions, for this reason or at this place.
pub fn legacy_exceptions(why_or_where: &str) -> Error {
    Error::Unsupported {
        message: format!("it uses legacy exceptions ({why_or_where})"),
        help: Some(LEGACY_EXCEPTIONS_HELP.into()),
    }
}

/// What wasmparser calls the feature, and begins its message with where it is not enabled.
const LEGACY_EXCEPTIONS: &str = "legacy_exceptions";

/// Flags of Binaryen 132, Emscripten 4 and LLVM 20.
const LEGACY_EXCEPTIONS_HELP: &str = "translate them into the exceptions of WebAssembly 3.0, by \
    `wasm-opt --all-features --disable-compact-imports --disable-custom-descriptors --translate-to-exnref`, or compile \
    the module with these (`-sWASM_LEGACY_EXCEPTIONS=0` in Emscripten, `-mllvm -wasm-use-legacy-eh=false` in clang)";

fn validate_for(bytes: &[u8], features: WasmFeatures) -> Result<(), Error> {
    let mut validator = Validator::new_with_features(features);
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        if let ValidPayload::Func(function, body) = validator.payload(&payload?)? {
            bodies.push((function, body));
        }
    }
    type Body<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);
    let one = |allocations: &mut FuncValidatorAllocations, (function, body): Body<'_>| {
        let mut validator = function.into_validator(std::mem::take(allocations));
        let result = validator.validate(&body);
        *allocations = validator.into_allocations();
        result.err()
    };
    let first = BESIDE.run(|| {
        let errors = bodies
            .into_par_iter()
            .map_init(FuncValidatorAllocations::default, one)
            .flatten();
        errors.min_by_key(|error| error.offset())
    });
    match first {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// A proposal that a module may do without.
#[derive(Clone, Copy)]
pub enum Proposal {
    ReferenceTypes,
    Gc,
}

/// Whether a module is valid for an engine that does not know a proposal.
pub fn is_valid_without(bytes: &[u8], proposal: Proposal) -> bool {
    let mut features = wasm_features(&Features {
        reference_types: !matches!(proposal, Proposal::ReferenceTypes),
        ..Features::default()
    });
    features.remove(WasmFeatures::GC);
    validate_for(bytes, features).is_ok()
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
    /// Whether there is an engine that may run legacy exceptions.
    pub legacy_exceptions: bool,
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
            legacy_exceptions: false,
        }
    }
}
