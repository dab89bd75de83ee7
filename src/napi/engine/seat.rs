//! A worker, as a run has it: asked for, come or not, and given work until nobody wants more of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::error::Error;
use crate::host::interrupt::Interrupt;
use crate::napi::link::WorkerSide;

/// How long a worker may take to come once its thread was made; where none has come in time before,
/// there is probably a reason, which a blocked thread does not hear.
const START: Duration = Duration::from_secs(10);
const START_AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Whether the last one has not come in time.
static FAILED: AtomicBool = AtomicBool::new(false);

/// How long the end of the run may go unnoticed, as a loop without an end is one of a worker.
const PULSE: Duration = Duration::from_millis(20);

/// Work for a worker's thread.
type Work = Box<dyn FnOnce(&Server) + Send>;

/// Those that there are, by their numbers.
static SEATS: LazyLock<Mutex<Seats>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Seats {
    seats: HashMap<u32, Weak<Seat>>,
    next: u32,
}

/// A worker, as a run has it.
pub(super) struct Seat {
    number: u32,
    side: Arc<WorkerSide>,
    work: Sender<Work>,
    state: Mutex<State>,
}

struct State {
    /// Until the worker comes.
    waiting: Option<Receiver<Work>>,
    /// Since when its thread is there.
    made: Option<Instant>,
    /// Why it is not to be had, or what it has died of.
    gone: Option<String>,
}

impl Seat {
    /// Asks for a worker, by way of the JavaScript thread.
    pub fn ask(side: &Arc<WorkerSide>) -> Arc<Seat> {
        let (work, waiting) = channel();
        let mut seats = lock(&SEATS);
        let number = seats.next;
        seats.next = number.wrapping_add(1);
        let seat = Arc::new(Seat {
            number,
            side: Arc::clone(side),
            work,
            state: Mutex::new(State {
                waiting: Some(waiting),
                made: None,
                gone: None,
            }),
        });
        seats.seats.insert(number, Arc::downgrade(&seat));
        drop(seats);
        if let Err(message) = side.start_worker(number) {
            seat.leave(message);
        }
        seat
    }

    /// The one of this number, as long as a run has it.
    pub fn of(number: u32) -> Option<Arc<Seat>> {
        lock(&SEATS).seats.get(&number)?.upgrade()
    }

    /// The worker's thread is there.
    pub fn made(&self) {
        self.state().made = Some(Instant::now());
    }

    /// The worker is not to be had, or has ended.
    pub fn leave(&self, reason: String) {
        self.state().gone.get_or_insert(reason);
    }

    /// What the worker is to do, once.
    pub fn take(&self) -> Option<(Receiver<Work>, Arc<WorkerSide>)> {
        let work = self.state().waiting.take()?;
        FAILED.store(false, Ordering::Relaxed);
        Some((work, Arc::clone(&self.side)))
    }

    /// Has the worker do something, and waits for it.
    pub fn run<T: Send>(
        &self,
        interrupt: Option<&Interrupt>,
        work: impl FnOnce(&Server) -> T + Send,
    ) -> Result<T, Error> {
        let (done, result) = channel();
        let work: Box<dyn FnOnce(&Server) + Send + '_> = Box::new(move |server| {
            let _ = done.send(work(server));
        });
        // SAFETY: what it borrows outlives this call, which does not return before `done` is used, after
        // the work, or dropped, with it; nothing that is dropped looks at what was borrowed.
        let work: Work = unsafe { std::mem::transmute(work) };
        // Work that nobody takes is gone with the error.
        let _ = self.work.send(work);
        self.wait(interrupt, &result)
    }

    /// Has the worker do something in its own time.
    pub fn post<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (done, result) = channel();
        let _ = self.work.send(Box::new(move |server| {
            let _ = done.send(work(server));
        }));
        result
    }

    /// Waits for the result of work: until it is there, or its sender is gone.
    pub fn wait<T>(&self, interrupt: Option<&Interrupt>, result: &Receiver<T>) -> Result<T, Error> {
        let is_over = || interrupt.is_some_and(|interrupt| interrupt.check().is_err());
        let mut is_stopped = false;
        loop {
            match result.recv_timeout(PULSE) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_not_coming() || is_over() {
                // Where it has not come, all that waits for it is gone with this.
                let waiting = self.state().waiting.take();
                if waiting.is_none() && !is_stopped {
                    is_stopped = true;
                    self.side.stop_worker(self.number);
                }
            }
        }
        let ended = interrupt.and_then(|interrupt| interrupt.check().err());
        Err(ended.unwrap_or_else(|| match self.state().gone.clone() {
            Some(reason) => super::not_to_be_had(&reason),
            None => super::worker_has_ended(),
        }))
    }

    fn is_not_coming(&self) -> bool {
        let mut state = self.state();
        let start = match FAILED.load(Ordering::Relaxed) {
            true => START_AFTER_FAILURE,
            false => START,
        };
        let is_late = state.waiting.is_some() && state.made.is_some_and(|at| at.elapsed() > start);
        if is_late {
            FAILED.store(true, Ordering::Relaxed);
            let reason = || format!("its worker has not begun within {} s", start.as_secs_f32());
            state.gone.get_or_insert_with(reason);
        }
        state.waiting.is_some() && state.gone.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A worker that comes later finds nothing to do.
        lock(&SEATS).seats.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
