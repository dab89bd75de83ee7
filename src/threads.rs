//! The threads that share work which is worth sharing: validation, compiling, scanning, writing.
//!
//! They are pools of our own. The one that rayon has for a whole program may be full of threads
//! that wait for us: a program may well run wizer in parallel with rayon itself. And compilers
//! have one to themselves, as a compiler that has begun cannot be stopped: the snapshot of a run
//! that was over first does not wait for it, nor does another run.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The stack of each, in bytes: a compiler recurses.
const STACK: usize = 8 << 20;

/// Threads that share work.
pub struct Pool(LazyLock<Option<ThreadPool>>);

/// For what takes some milliseconds, and is waited for.
pub static SHORT: Pool = Pool(LazyLock::new(|| build("wizer")));

/// For what goes on beside a run, which has other work to wait for: validation.
pub static BESIDE: Pool = Pool(LazyLock::new(|| build("wizer-beside")));

/// For compilers.
pub static COMPILERS: Pool = Pool(LazyLock::new(|| build("wizer-compile")));

fn build(name: &'static str) -> Option<ThreadPool> {
    let pool = ThreadPoolBuilder::new()
        .thread_name(move |index| format!("{name}-{index}"))
        .stack_size(STACK)
        .build();
    pool.ok()
}

impl Pool {
    /// Does work whose parallel parts go to the pool, and waits for it. Where there can be no threads,
    /// rayon finds another way.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Some(pool) = &*self.0 else {
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
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, mpsc};
    use std::time::Duration;

    use super::*;

    /// With one pool for both, the compilers would wait for what waits for them.
    #[test]
    fn short_work_does_not_wait_for_compilers() {
        let (busy, is_busy) = mpsc::channel();
        let done = (Mutex::new(false), Condvar::new());
        let compile = || {
            busy.send(()).unwrap();
            let waited = done.1.wait_timeout_while(
                done.0.lock().unwrap(),
                Duration::from_secs(60),
                |done| !*done,
            );
            assert!(*waited.unwrap().0, "it waits for the compilers");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| COMPILERS.run(|| rayon::broadcast(|_| compile())));
            let threads = COMPILERS.0.as_ref().unwrap().current_num_threads();
            (0..threads).for_each(|_| is_busy.recv().unwrap());
            SHORT.run(|| {
                *done.0.lock().unwrap() = true;
                done.1.notify_all();
            });
        });
    }
}
