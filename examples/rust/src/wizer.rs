//! What a Rust program needs so that wizer can initialize it. Copy this file
//! into yours, and write
//!
//! ```ignore
//! mod wizer;
//! wizer::command!(init, main);
//! ```
//!
//! where `init` is the function to run at build time.
//!
//! The module's own entry, `_start`, belongs to the C library under Rust's
//! standard library: it prepares that library, then calls `main`. wizer
//! doesn't call `_start`, so the library is prepared here, before `init`. The
//! module that comes out starts at `wizer.resume`, which doesn't prepare it
//! again:
//!
//! ```sh
//! npx wizer in.wasm -o out.wasm --allow-wasi -r _start=wizer.resume
//! ```
//!
//! Arguments, environment and open directories are those of the run, not those
//! of the build.
//!
//! Written for the target `wasm32-wasip1`. The targets named `wasm32-wasi`
//! before it had C libraries that were prepared in other ways, by the linker or
//! when first needed, so nothing is done for them here. What they knew of open
//! directories when wizer ran, they keep.

/// Exports `wizer.initialize` and `wizer.resume`.
macro_rules! command {
    ($init:path, $main:path) => {
        #[export_name = "wizer.initialize"]
        pub extern "C" fn wizer_initialize() {
            $crate::wizer::prepare();
            $init();
            $crate::wizer::flush();
        }

        // `main` never calls this: it is an entry of its own.
        #[allow(clippy::main_recursion)]
        #[export_name = "wizer.resume"]
        pub extern "C" fn wizer_resume() {
            $crate::wizer::meet_host();
            $main();
            $crate::wizer::flush();
        }
    };
}
pub(crate) use command;

#[cfg(target_env = "p1")]
extern "C" {
    /// Written by the linker: runs all constructors of the C library.
    fn __wasm_call_ctors();
    /// Forgets the open directories; the host is asked when they are needed.
    fn __wasilibc_reset_preopens();
}

#[cfg(target_os = "wasi")]
extern "C" {
    /// Reads the environment from the host.
    fn __wasilibc_initialize_environ();
}

/// Does what `_start` would do before `main`.
pub fn prepare() {
    // SAFETY: nothing of the program has run before this, and nothing will run
    // it again: `wizer.resume` takes the place of `_start`.
    #[cfg(target_env = "p1")]
    unsafe {
        __wasm_call_ctors()
    };
}

/// Replaces what the C library knows of the host that ran wizer.
pub fn meet_host() {
    // SAFETY: both only write the C library's own state, and the program has
    // one thread.
    #[cfg(target_env = "p1")]
    unsafe {
        __wasilibc_reset_preopens()
    };
    #[cfg(target_os = "wasi")]
    // SAFETY: as above.
    unsafe {
        __wasilibc_initialize_environ()
    };
}

/// Writes out what `print!` still holds: after `init`, or every later start
/// would print it again; after `main`, where `_start` would have done it.
pub fn flush() {
    use std::io::Write;
    // A closed standard output is no reason to fail, as in any Rust program.
    let _ = std::io::stdout().flush();
}
