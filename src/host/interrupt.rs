//! Ending a run from outside: a deadline, or a caller who has changed their mind.

use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Why a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Aborted,
    Timeout(Duration),
}

/// Called when a run is to end, from the thread that ends it.
type Waker = Box<dyn Fn() + Send + Sync>;

/// Whether a run is to end for a reason that nobody tells: asked on the thread that looks.
type Probe = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct Inner {
    reason: Option<Reason>,
    wakers: Vec<Waker>,
    /// Interrupts that end with this one.
    children: Vec<Weak<Interrupt>>,
    /// How many times what was watched has ended, so that the watcher of a deadline can go.
    ended: u64,
}

/// Ends runs from outside. One that was aborted also ends every later run that it is given to.
///
/// ```
/// use std::sync::Arc;
/// let interrupt = Arc::new(wizer::Interrupt::default());
/// interrupt.abort();
/// let wat = r#"(module (func (export "wizer.initialize") (loop (br 0))))"#;
/// let error = wizer::Wizer::new().interrupt(interrupt).run(wat.as_bytes()).unwrap_err();
/// assert_eq!(error.code(), "ERR_WIZER_ABORTED");
/// ```
#[derive(Default)]
pub struct Interrupt {
    inner: Mutex<Inner>,
    changed: Condvar,
    probe: OnceLock<Probe>,
}

impl Interrupt {
    /// Ends the run as soon as possible. What it has done by then stays done.
    pub fn abort(&self) {
        self.end(Reason::Aborted);
    }

    /// An interrupt for one run, which ends with this one or by itself.
    pub(crate) fn child(&self) -> Arc<Interrupt> {
        let child = Arc::new(Interrupt::default());
        let mut inner = self.lock();
        if let Some(reason) = inner.reason {
            child.end(reason);
        }
        inner.children.retain(|child| child.strong_count() > 0);
        inner.children.push(Arc::downgrade(&child));
        child
    }

    /// The error to end with, if the run is to end.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.probe.get().is_some_and(|is_over| is_over()) {
            self.abort();
        }
        match self.lock().reason {
            None => Ok(()),
            Some(Reason::Aborted) => Err(Error::Aborted),
            Some(Reason::Timeout(limit)) => Err(Error::Timeout { limit }),
        }
    }

    /// Has `probe` asked in each [`Interrupt::check`]. Once.
    #[cfg_attr(any(not(feature = "napi"), test), allow(dead_code))]
    pub(crate) fn ask(&self, probe: Probe) {
        let _ = self.probe.set(probe);
    }

    /// Has `waker` called when the run is to end, at once if that is so already.
    pub(crate) fn on_end(&self, waker: Waker) {
        let mut inner = self.lock();
        if inner.reason.is_some() {
            waker();
        }
        inner.wakers.push(waker);
    }

    /// Ends the run `limit` from now, unless [`Interrupt::rest`] comes first.
    fn watch(self: &Arc<Self>, limit: Duration) -> std::io::Result<()> {
        let interrupt = Arc::clone(self);
        let deadline = Instant::now() + limit;
        let watched = self.lock().ended;
        std::thread::Builder::new()
            .name("wizer-timeout".into())
            .spawn(move || {
                let mut inner = interrupt.lock();
                while inner.ended == watched {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                        drop(inner);
                        return interrupt.end(Reason::Timeout(limit));
                    };
                    inner = interrupt
                        .changed
                        .wait_timeout(inner, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0;
                }
            })?;
        Ok(())
    }

    /// Does some work, which this ends `limit` from now, where there is one.
    ///
    /// # Errors
    ///
    /// The work's own; why it was to end; and where nobody can watch the time.
    pub(crate) fn during<T>(
        interrupt: Option<&Arc<Interrupt>>,
        limit: Option<Duration>,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(interrupt) = interrupt else {
            return work();
        };
        if let Some(limit) = limit {
            let watching = interrupt.watch(limit);
            watching.map_err(|e| Error::internal(format!("no thread for the timeout: {e}")))?;
        }
        let result = work();
        interrupt.rest();
        result.and_then(|value| interrupt.check().map(|()| value))
    }

    /// The run has ended.
    pub(crate) fn over(&self) {
        self.rest();
        self.lock().wakers.clear();
    }

    /// What was watched has ended, and more may follow.
    fn rest(&self) {
        self.lock().ended += 1;
        self.changed.notify_all();
    }

    fn end(&self, reason: Reason) {
        let mut inner = self.lock();
        inner.reason.get_or_insert(reason);
        for waker in &inner.wakers {
            waker();
        }
        for child in inner.children.iter().filter_map(Weak::upgrade) {
            child.end(reason);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
