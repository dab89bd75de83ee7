//! Runs that may be thrown away and begun anew on another engine.
//!
//! No effect may happen twice, and none may be lost. A speculative run therefore does only what
//! can be repeated unseen: it reads. What it writes to standard output and error is held back;
//! any other effect ends the run *before* it happens, and another engine, without speculation,
//! starts from the beginning.

use std::time::Duration;

use super::stdio::{Held, Tape};
use super::wasi::WasiState;
use crate::error::{Error, TrapReason};
use crate::value::Value;

/// The most output that is held back, in bytes.
const MAX_HELD: usize = 1 << 20;

/// The most input that is kept to be read again, in bytes.
const MAX_INPUT: usize = 16 << 20;

/// How long a run may rest altogether: what takes over rests as long again.
const MAX_REST: Duration = Duration::from_millis(50);

/// Waits until it is known whether the modules are valid, and tells.
pub type IsValid = Box<dyn Fn() -> bool + Send>;

/// A run that may be thrown away.
pub struct Speculation {
    /// What it ended before.
    left: Option<String>,
    /// Whether that is the end of what it may take.
    took_too_much: bool,
    /// What it wrote to the process's streams.
    pub(super) held: Held,
    /// How many calls of the host are still to be answered, for tests: the next one ends the
    /// run.
    calls_left: Option<u64>,
    /// How long it has rested.
    rested: Duration,
    is_valid: IsValid,
}

impl Speculation {
    /// A run of modules that are yet to be found valid. It ends before its call of the number
    /// `leave_at`, counted from 0; for tests.
    pub fn new(leave_at: Option<u64>, is_valid: IsValid) -> Speculation {
        Speculation {
            left: None,
            took_too_much: false,
            held: Held::default(),
            calls_left: leave_at,
            rested: Duration::ZERO,
            is_valid,
        }
    }

    /// Takes note of a call of the host.
    ///
    /// # Errors
    ///
    /// Where the run is to end before it.
    pub(super) fn count_call(&mut self) -> Result<(), TrapReason> {
        match &mut self.calls_left {
            Some(0) => Err(self.leave("a call of the host that a test named")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Ends the run before something that must not happen twice. The engine passes the reason
    /// on, as with any failure.
    pub fn leave(&mut self, before: impl Into<String>) -> TrapReason {
        let before = self.left.get_or_insert_with(|| before.into());
        TrapReason::Ended {
            code: Error::Aborted.code(),
            message: format!("the run was left before {before}"),
        }
    }

    /// Ends the run before something that it would have come to in more time or space than it may take.
    pub fn give_up(&mut self, before: impl Into<String>) -> TrapReason {
        self.took_too_much |= self.left.is_none();
        self.leave(before)
    }

    /// Whether the run has ended as it took too much.
    pub fn took_too_much(&self) -> bool {
        self.took_too_much
    }

    /// What the run ended before, if it did.
    pub fn left(&self) -> Option<&str> {
        self.left.as_deref()
    }

    /// What it wrote to the process's streams.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whether a call of WASI can be repeated unseen: it reads, changes only what WASI itself keeps
    /// of this run, or fails whatever there is. docs/how-it-works.md has the list.
    ///
    /// # Errors
    ///
    /// What the run has to end before.
    pub(super) fn allows(
        &mut self,
        wasi: &mut WasiState,
        name: &str,
        memory: &[u8],
        args: &[Value],
    ) -> Result<(), String> {
        let arg = |i: usize| match args.get(i) {
            Some(Value::I32(value)) => *value as u32,
            _ => 0,
        };
        let is_stream = wasi.is_stream(arg(0));
        match name {
            "args_get"
            | "args_sizes_get"
            | "environ_get"
            | "environ_sizes_get"
            | "clock_res_get"
            | "clock_time_get"
            | "random_get"
            | "sched_yield"
            | "fd_advise"
            | "fd_close"
            | "fd_fdstat_get"
            | "fd_filestat_get"
            | "fd_prestat_get"
            | "fd_prestat_dir_name"
            | "fd_readdir"
            | "fd_seek"
            | "fd_tell"
            | "path_filestat_get"
            | "path_readlink" => Ok(()),
            // Flags are WASI's own, and nothing was written that could be made lasting.
            "fd_fdstat_set_flags" | "fd_datasync" | "fd_sync" => Ok(()),
            // These always fail.
            "fd_allocate"
            | "fd_fdstat_set_rights"
            | "proc_raise"
            | "sock_accept"
            | "sock_recv"
            | "sock_send"
            | "sock_shutdown" => Ok(()),
            "fd_pwrite" | "fd_filestat_set_size" | "fd_filestat_set_times" if is_stream => Ok(()),
            // Only the first three numbers are looked for where streams are used.
            "fd_renumber" if arg(0) > 2 => Ok(()),
            "fd_read" | "fd_pread" => match &wasi.input {
                Some(input) if arg(0) == 0 && is_stream => self.allows_input(input),
                _ => Ok(()),
            },
            "fd_write" if is_stream => match self.held.len() {
                // The guest is to be told so, which makes it another run.
                _ if wasi.is_broken(arg(0)) => Err("it wrote to a stream that nobody reads".into()),
                0..MAX_HELD => Ok(()),
                _ => Err(format!("its output grew beyond {MAX_HELD} bytes")),
            },
            "path_open" => {
                const CREATE_EXCLUSIVE_TRUNCATE: u32 = 1 | 4 | 8;
                if arg(4) & CREATE_EXCLUSIVE_TRUNCATE != 0 && !wasi.is_readonly {
                    return Err("`path_open` for writing".into());
                }
                match wasi.names_device(memory, arg(0), arg(1), arg(2), arg(3)) {
                    true => Err("`path_open` of what is no file or directory".into()),
                    false => Ok(()),
                }
            }
            "poll_oneoff" => self.allows_rest(memory, arg(0), arg(2)),
            "fd_write"
            | "fd_pwrite"
            | "fd_filestat_set_size"
            | "fd_filestat_set_times"
            | "path_create_directory"
            | "path_filestat_set_times"
            | "path_link"
            | "path_remove_directory"
            | "path_rename"
            | "path_symlink"
            | "path_unlink_file"
                if wasi.is_readonly =>
            {
                Ok(())
            }
            _ => Err(format!("the call of `{name}`")),
        }
    }

    /// Whether `poll_oneoff` may be called: for a short rest, and before there is output, which is to
    /// be seen meanwhile.
    fn allows_rest(&mut self, memory: &[u8], at: u32, count: u32) -> Result<(), String> {
        let rest = match self.held.len() {
            0 => shortest_rest(memory, at as usize, count as usize),
            _ => return Err("it rested with output to show".into()),
        };
        match rest.map(|rest| self.rested.saturating_add(rest)) {
            Some(rested) if rested <= MAX_REST => {
                self.rested = rested;
                Ok(())
            }
            _ => Err("the call of `poll_oneoff`".into()),
        }
    }

    /// Whether the process's standard input may be read.
    fn allows_input(&self, input: &Tape) -> Result<(), String> {
        if self.held.len() > 0 {
            return Err("it waited for input with output to show".into());
        }
        if input.len() >= MAX_INPUT {
            return Err(format!("its input grew beyond {} MiB", MAX_INPUT >> 20));
        }
        // A module that is not valid takes nothing, and nobody has to answer it.
        match (self.is_valid)() {
            true => Ok(()),
            false => Err("the run of a module that is not valid".into()),
        }
    }
}

/// How long subscriptions of `poll_oneoff` make it wait, where all are of clocks and none is for a
/// time of day. Their layout is that of the witx files of preview 1.
fn shortest_rest(memory: &[u8], at: usize, count: usize) -> Option<Duration> {
    const SIZE: usize = 48;
    const TAG: usize = 8;
    const TIMEOUT: usize = 24;
    const FLAGS: usize = 40;
    const CLOCK: u8 = 0;
    let end = at.checked_add(count.checked_mul(SIZE)?)?;
    let rests = memory.get(at..end)?.chunks_exact(SIZE).map(|bytes| {
        let timeout = bytes[TIMEOUT..TIMEOUT + 8].try_into().ok()?;
        let is_rest = bytes[TAG] == CLOCK && bytes[FLAGS..FLAGS + 2] == [0; 2];
        is_rest.then(|| Duration::from_nanos(u64::from_le_bytes(timeout)))
    });
    rests.collect::<Option<Vec<_>>>()?.into_iter().min()
}
