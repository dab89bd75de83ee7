//! The threads that share work which is worth sharing: validation, compiling, scanning, writing.
//!
//! They are a pool of our own. The one that rayon has for a whole program may be full of threads
//! that wait for us: a program may well run wizer in parallel with rayon itself.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The stack of each, in bytes: a compiler recurses.
const STACK: usize = 8 << 20;

static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new()
        .thread_name(|index| format!("wizer-{index}"))
        .stack_size(STACK)
        .build();
    pool.ok()
});

/// Does work whose parallel parts go to the pool, and waits for it. Where there can be no threads,
/// rayon finds another way.
pub fn in_parallel<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let Some(pool) = &*POOL else {
        return work();
    };
    if rayon::current_thread_index().is_none() {
        return pool.install(work);
    }
    // A thread of another pool would take up other work of that while it waits, which may be
    // another run, and another within that.
    std::thread::scope(|scope| {
        let done = scope.spawn(|| pool.install(work)).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
