//! The guest's standard streams, and writing to the process's own.
//!
//! Standard streams inside of Node may be non-blocking (touching `process.stdout` on a pipe
//! makes it so), where a plain write fails once the pipe is full: ours wait and go on. Standard
//! input is read when the guest asks for it and not a byte further, and waiting for it can be
//! interrupted.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as Terminal, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::config;

/// A standard stream of the process to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Out,
    Err,
}

/// Writes all bytes to a standard stream, however often it has to wait for it.
pub fn write_all(to: Standard, bytes: &[u8]) -> io::Result<()> {
    match to {
        Standard::Out => write_waiting(&mut io::stdout().lock(), to, bytes),
        Standard::Err => write_waiting(&mut io::stderr().lock(), to, bytes),
    }
}

fn write_waiting(stream: &mut impl Write, to: Standard, mut bytes: &[u8]) -> io::Result<()> {
    // The stream of the standard library keeps what follows the last line feed; what it could
    // not pass on yet stays with it, so that nothing is written twice.
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => wait_after(error, to)?,
        }
    }
    loop {
        match stream.flush() {
            Ok(()) => return Ok(()),
            Err(error) => wait_after(error, to)?,
        }
    }
}

/// Waits until the stream takes more, if that is what the error asks for.
fn wait_after(error: io::Error, to: Standard) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => wait_writable(to),
        _ => Err(error),
    }
}

#[cfg(unix)]
fn wait_writable(to: Standard) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let fd = match to {
        Standard::Out => rustix::stdio::stdout(),
        Standard::Err => rustix::stdio::stderr(),
    };
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether nobody takes what is written to the stream: it is closed, or its reader is gone.
#[cfg(unix)]
pub fn is_broken(to: Standard) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = match to {
        Standard::Out => rustix::stdio::stdout(),
        Standard::Err => rustix::stdio::stderr(),
    };
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Not `NVAL`: macOS says so of every device.
    let polled = poll(&mut fds, Some(&at_once)).is_ok();
    let gone = fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    (polled && gone) || rustix::io::fcntl_getfd(fd).is_err()
}

/// As far as one can tell, somebody does.
#[cfg(not(unix))]
pub fn is_broken(_: Standard) -> bool {
    false
}

#[cfg(not(unix))]
fn wait_writable(_: Standard) -> io::Result<()> {
    std::thread::sleep(INPUT_WAIT);
    Ok(())
}

/// How long one wait for input lasts before timers and interrupts get their turn.
const INPUT_WAIT: Duration = Duration::from_millis(10);

/// The most bytes that one read of standard input takes, whatever the guest offers.
const MAX_READ: usize = 64 * 1024;

/// Waits a moment for standard input. Returns whether a read would not block.
#[cfg(unix)]
fn wait_readable(timeout: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let stdin = rustix::stdio::stdin();
    match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => false,
        // What cannot be polled is not a stream that could block.
        Err(_) => true,
    }
}

#[cfg(not(unix))]
fn wait_readable(_: Duration) -> bool {
    true
}

/// Reads standard input directly: `std::io::Stdin` reads ahead into a buffer of the process,
/// and what the guest has not asked for is not ours.
fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?);
    #[cfg(not(unix))]
    return io::stdin().read(buffer);
}

/// What was read from the process's standard input, so that a second run can read it again.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Chunks>>);

#[derive(Default)]
struct Chunks {
    recording: bool,
    /// As they were read; an empty one is the end of the input.
    recorded: Vec<Vec<u8>>,
    /// How many bytes that is.
    len: usize,
    /// What is still to be read again.
    replay: VecDeque<Vec<u8>>,
}

impl Tape {
    /// Records what is read from now on.
    pub fn record(&self) {
        lock(&self.0).recording = true;
    }

    /// Gives what was recorded once more, in the same pieces, and records nothing more.
    pub fn rewind(&self) {
        let mut chunks = lock(&self.0);
        chunks.recording = false;
        chunks.replay = std::mem::take(&mut chunks.recorded).into();
    }

    /// How many bytes were recorded.
    pub fn len(&self) -> usize {
        lock(&self.0).len
    }

    /// Whether a read would wait for nothing.
    fn has_more(&self) -> bool {
        !lock(&self.0).replay.is_empty()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(read) = self.read_again(buffer) {
            return Ok(read);
        }
        let read = read_stdin(buffer)?;
        let mut chunks = lock(&self.0);
        if chunks.recording {
            chunks.recorded.push(buffer[..read].to_vec());
            chunks.len += read;
        }
        Ok(read)
    }

    /// Reads what was recorded, if there is more of it.
    fn read_again(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut chunks = lock(&self.0);
        let mut chunk = chunks.replay.pop_front()?;
        let read = chunk.len().min(buffer.len());
        buffer[..read].copy_from_slice(&chunk[..read]);
        if read < chunk.len() {
            chunks.replay.push_front(chunk.split_off(read));
        }
        Some(read)
    }
}

/// The guest's standard input.
#[derive(Clone)]
pub struct Stdin {
    from: Source,
}

#[derive(Clone)]
enum Source {
    /// The process's.
    Process(Tape),
    Bytes(Arc<Mutex<io::Cursor<Vec<u8>>>>),
}

impl Stdin {
    /// The stream that the options ask for. `tape` stands for the process's.
    pub fn new(stdin: &config::Stdin, tape: &Tape) -> Stdin {
        let bytes = match stdin {
            config::Stdin::Inherit => {
                return Stdin {
                    from: Source::Process(tape.clone()),
                };
            }
            config::Stdin::Ignore => Vec::new(),
            config::Stdin::Bytes(bytes) => bytes.clone(),
        };
        Stdin {
            from: Source::Bytes(Arc::new(Mutex::new(io::Cursor::new(bytes)))),
        }
    }

    /// Whether a read may have to wait for it.
    fn would_wait(&self, timeout: Duration) -> bool {
        match &self.from {
            Source::Process(tape) => !tape.has_more() && !wait_readable(timeout),
            Source::Bytes(_) => false,
        }
    }

    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.from {
            Source::Process(tape) => tape.read(buffer),
            Source::Bytes(bytes) => lock(bytes).read(buffer),
        }
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        matches!(self.from, Source::Process(_)) && Terminal::is_terminal(&io::stdin())
    }
}

impl StdinStream for Stdin {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        while self.would_wait(INPUT_WAIT) {
            tokio::task::yield_now().await;
        }
    }
}

impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 || self.would_wait(Duration::ZERO) {
            return Ok(Bytes::new());
        }
        let mut buffer = vec![0; size.min(MAX_READ)];
        match self.read_some(&mut buffer) {
            Ok(0) => Err(StreamError::Closed),
            Ok(read) => {
                buffer.truncate(read);
                Ok(buffer.into())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Bytes::new())
            }
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        }
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.read_some(buffer.initialize_unfilled());
        Poll::Ready(read.map(|n| buffer.advance(n)))
    }
}

/// What a guest wrote to the process's streams and they have not been given yet, in order.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    /// What was written, and where to.
    pieces: Vec<(Standard, Vec<u8>)>,
    /// How many bytes that is.
    len: usize,
}

impl Held {
    /// How many bytes it is.
    pub fn len(&self) -> usize {
        lock(&self.0).len
    }

    fn push(&self, to: Standard, bytes: &[u8]) {
        let mut log = lock(&self.0);
        log.len += bytes.len();
        match log.pieces.last_mut() {
            Some((last, text)) if *last == to => text.extend_from_slice(bytes),
            _ => log.pieces.push((to, bytes.to_vec())),
        }
    }

    /// Writes it out, once. Where one of the streams fails, the other one gets its part.
    pub fn release(&self) -> Result<(), (Standard, io::Error)> {
        let mut failed = None;
        for (to, bytes) in std::mem::take(&mut *lock(&self.0)).pieces {
            if let Some((stream, _)) = &failed
                && *stream == to
            {
                continue;
            }
            if let Err(error) = write_all(to, &bytes) {
                failed.get_or_insert((to, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// The guest's standard output or error.
#[derive(Clone)]
pub struct Stdout {
    to: Sink,
}

#[derive(Clone)]
enum Sink {
    Inherit(Standard),
    Hold(Standard, Held),
    Ignore,
    Pipe(Arc<Mutex<Vec<u8>>>),
}

impl Stdout {
    /// The stream that the options ask for. What goes to the process's is held back, where there
    /// is something to hold it.
    pub fn new(stdout: config::Stdout, standard: Standard, held: Option<&Held>) -> Stdout {
        Stdout {
            to: match (stdout, held) {
                (config::Stdout::Inherit, None) => Sink::Inherit(standard),
                (config::Stdout::Inherit, Some(held)) => Sink::Hold(standard, held.clone()),
                (config::Stdout::Ignore, _) => Sink::Ignore,
                (config::Stdout::Pipe, _) => Sink::Pipe(Arc::default()),
            },
        }
    }

    /// Whether it is held back for a stream that takes nothing any more.
    pub fn is_broken(&self) -> bool {
        matches!(self.to, Sink::Hold(standard, _) if is_broken(standard))
    }

    /// What was written so far, where the stream is a pipe.
    pub fn take(&self) -> Option<Vec<u8>> {
        match &self.to {
            Sink::Pipe(bytes) => Some(std::mem::take(&mut *lock(bytes))),
            _ => None,
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.to {
            Sink::Inherit(standard) => write_all(*standard, bytes),
            Sink::Hold(standard, held) => {
                held.push(*standard, bytes);
                Ok(())
            }
            Sink::Ignore => Ok(()),
            Sink::Pipe(buffer) => {
                lock(buffer).extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        match self.to {
            Sink::Inherit(Standard::Out) | Sink::Hold(Standard::Out, _) => {
                Terminal::is_terminal(&io::stdout())
            }
            Sink::Inherit(Standard::Err) | Sink::Hold(Standard::Err, _) => {
                Terminal::is_terminal(&io::stderr())
            }
            _ => false,
        }
    }
}

impl StdoutStream for Stdout {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {}
}

impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_all(&bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::Closed,
            _ => StreamError::LastOperationFailed(error.into()),
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(1024 * 1024)
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The run that follows may ask for less at once, or for more.
    #[test]
    fn pieces_are_read_again_by_any_buffer() {
        for size in [1, 2, 3, 5, 100] {
            let tape = Tape::default();
            tape.record();
            lock(&tape.0).recorded = vec![b"abc".to_vec(), Vec::new(), b"defgh".to_vec()];
            tape.rewind();
            let mut seen = Vec::new();
            let mut buffer = vec![0; size];
            while tape.has_more() {
                let read = tape.read(&mut buffer).unwrap();
                assert!(read <= size);
                seen.extend_from_slice(&buffer[..read]);
                assert_eq!(tape.read(&mut []).unwrap(), 0);
            }
            assert_eq!(seen, b"abcdefgh");
        }
    }
}
