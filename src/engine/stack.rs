//! The stack that WebAssembly code runs on.
//!
//! How deep a module may recurse must not depend on the thread that happens to call us: a main
//! thread has 8 MiB, a worker of Node 4 MiB, a thread on Windows 1 MiB. Code therefore runs on a
//! thread of its own with a large stack, of which only the touched part takes memory.

use crate::error::Error;

/// The most stack that WebAssembly code may use, in bytes. It is 16 times wasmtime's default,
/// so that what recurses deeply in a browser or Node does so here as well.
pub const MAX_WASM_STACK: usize = 8 << 20;

/// The size of the thread's stack, in bytes: the code's share and as much for the host.
const THREAD_STACK: usize = 2 * MAX_WASM_STACK;

/// Runs `work` on a thread with a large stack, and waits for it. A panic goes on in the caller.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("wizer".into())
            .stack_size(THREAD_STACK)
            .spawn_scoped(scope, work)
            .map_err(|e| Error::internal(format!("no thread to run on: {e}")))?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
