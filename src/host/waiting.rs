//! Waiting for the system, on behalf of a module: until the run is to end, and no longer.
//!
//! A call that may block in the system (opening a pipe that nobody writes to, say) runs on a thread
//! of its own and owns what it works on, so that it can be left behind: it ends with the process at
//! the latest, and nothing that it still does reaches the module.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::interrupt::Interrupt;
use crate::error::Error;

/// Where functions of WASI wait.
pub struct Waiting {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    /// Told when the run is to end.
    ended: Arc<Notify>,
    interrupt: Option<Arc<Interrupt>>,
}

/// How often it is looked whether the run is to end, where nobody tells.
const PULSE: Duration = Duration::from_millis(50);

impl Waiting {
    /// Waits of a run that this ends.
    pub fn new(interrupt: Option<&Arc<Interrupt>>) -> Result<Waiting, Error> {
        let ended = Arc::new(Notify::new());
        if let Some(interrupt) = interrupt {
            let ended = Arc::clone(&ended);
            interrupt.on_end(Box::new(move || ended.notify_one()));
        }
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| Error::internal(format!("no event loop: {e}")))?;
        Ok(Waiting {
            runtime: Some(runtime),
            ended,
            interrupt: interrupt.cloned(),
        })
    }

    /// What the future gives, or nothing where the run is to end before.
    pub fn until<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        let pulse = async {
            while self.interrupt.as_ref().is_none_or(|i| i.check().is_ok()) {
                tokio::time::sleep(PULSE).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                result = future => Some(result),
                () = pulse => None,
                () = self.ended.notified() => {
                    // For those who come later.
                    self.ended.notify_one();
                    None
                }
            }
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped, it would wait for what was left behind.
            runtime.shutdown_background();
        }
    }
}
