//! What a person sees while a run takes longer than a moment.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::options::{Phase, ProgressFn};

/// Shorter runs show nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// Time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// A spinner on standard error, if that is a terminal.
pub struct Spinner {
    thread: Option<(Sender<Phase>, JoinHandle<()>)>,
}

impl Spinner {
    /// Starts the spinner. While a guest that writes to the terminal runs, it stands aside.
    pub fn start(guest_writes: bool) -> Spinner {
        if !std::io::stderr().is_terminal() {
            return Spinner { thread: None };
        }
        let (sender, receiver) = channel::<Phase>();
        let thread = std::thread::Builder::new()
            .name("wizer-progress".into())
            .spawn(move || {
                let since = Instant::now();
                let mut bar: Option<ProgressBar> = None;
                let mut phase = Phase::Parse;
                loop {
                    match receiver.recv_timeout(TICK) {
                        Ok(next) => phase = next,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    if since.elapsed() < PATIENCE {
                        continue;
                    }
                    if phase == Phase::Initialize && guest_writes {
                        if let Some(bar) = bar.take() {
                            bar.finish_and_clear();
                        }
                        continue;
                    }
                    let bar = bar.get_or_insert_with(spinner);
                    bar.set_message(doing(phase));
                    bar.tick();
                }
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            });
        Spinner {
            // Without a thread there is no spinner, and nothing else is lost.
            thread: thread.ok().map(|thread| (sender, thread)),
        }
    }

    /// What tells the spinner of a new phase.
    pub fn progress(&self) -> Option<ProgressFn> {
        let (sender, _) = self.thread.as_ref()?;
        let sender = Mutex::new(sender.clone());
        Some(Arc::new(move |phase| {
            if let Ok(sender) = sender.lock() {
                let _ = sender.send(phase);
            }
        }))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Parse => "reading the module",
        Phase::Instrument => "instrumenting the module",
        Phase::Compile => "getting the code ready",
        Phase::Initialize => "running the initialization",
        Phase::Snapshot => "reading the state",
        Phase::Rewrite => "writing the module",
        Phase::Validate => "validating the module",
    }
}
