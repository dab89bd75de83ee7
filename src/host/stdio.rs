//! The guest's standard streams, and writing to the process's own.
//!
//! Standard streams inside of Node may be non-blocking (touching `process.stdout` on a pipe
//! makes it so), where a plain write fails once the pipe is full: ours wait and go on. Standard
//! input is read when the guest asks for it and not a byte further, and waiting for it can be
//! interrupted.

use std::collections::VecDeque;
#[cfg(not(unix))]
use std::io::BufRead;
use std::io::{self, IsTerminal as Terminal, Read, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(any(not(unix), test))]
use std::sync::mpsc::Receiver;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
#[cfg(unix)]
use rustix::event::PollFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::config;
use super::interrupt::Interrupt;

/// A standard stream of the process to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Out,
    Err,
}

/// How long one wait for a stream lasts before timers and interrupts get their turn.
const TURN: Duration = Duration::from_millis(10);

/// How long a stream may take nothing once the run is to end, before the rest is given up.
const LAST_WAIT: Duration = Duration::from_millis(50);

/// Writes all bytes to a standard stream, however often it has to wait for it: while it takes
/// some, and also while it takes none, until the run is to end.
pub fn write_all(to: Standard, bytes: &[u8], interrupt: Option<&Interrupt>) -> io::Result<()> {
    if let Standard::Out = to {
        // What the standard library has kept comes first. What it cannot pass on stays with it.
        let _ = io::stdout().flush();
    }
    let mut patience = Patience::of(interrupt);
    match interrupt.is_none() || passes_on_at_once(to) {
        true => write_pieces(to, bytes, &mut patience),
        false => write_beside(to, bytes, &mut patience),
    }
}

/// How much longer to wait for a stream.
struct Patience<'i> {
    interrupt: Option<&'i Interrupt>,
    /// Since when the run is to end and the stream takes nothing.
    since: Option<Instant>,
}

impl<'i> Patience<'i> {
    fn of(interrupt: Option<&'i Interrupt>) -> Patience<'i> {
        Patience {
            interrupt,
            since: None,
        }
    }

    /// How long the next wait may last; no limit where nobody can end the run.
    #[cfg(unix)]
    fn turn(&self) -> Option<Duration> {
        self.interrupt.map(|_| TURN)
    }

    /// A wait was in vain. The error is that the time is up.
    fn waited(&mut self) -> io::Result<()> {
        if self.interrupt.is_none_or(|i| i.check().is_ok()) {
            return Ok(());
        }
        match self.since.get_or_insert_with(Instant::now).elapsed() < LAST_WAIT {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The stream took something.
    fn rewarded(&mut self) {
        self.since = None;
    }
}

/// The most bytes that a pipe takes without a wait, once it says that it takes some; 512 is the
/// least that POSIX promises.
#[cfg(unix)]
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Whether a stream that says that it takes something then takes a piece without a wait. A terminal
/// may have room for a part of it.
#[cfg(unix)]
fn passes_on_at_once(to: Standard) -> bool {
    !is_terminal(to)
}

/// Elsewhere a stream cannot be asked.
#[cfg(not(unix))]
fn passes_on_at_once(_: Standard) -> bool {
    false
}

fn is_terminal(to: Standard) -> bool {
    match to {
        Standard::Out => Terminal::is_terminal(&io::stdout()),
        Standard::Err => Terminal::is_terminal(&io::stderr()),
    }
}

#[cfg(unix)]
fn descriptor(to: Standard) -> rustix::fd::BorrowedFd<'static> {
    match to {
        Standard::Out => rustix::stdio::stdout(),
        Standard::Err => rustix::stdio::stderr(),
    }
}

/// Writes piece by piece, each when the stream takes it.
#[cfg(unix)]
fn write_pieces(to: Standard, mut bytes: &[u8], patience: &mut Patience<'_>) -> io::Result<()> {
    use rustix::io::Errno;
    while !bytes.is_empty() {
        if !wait_for(descriptor(to), PollFlags::OUT, patience.turn()) {
            patience.waited()?;
            continue;
        }
        // Where nobody can end the run, it may as well wait in the system.
        let most = patience.interrupt.map_or(usize::MAX, |_| PIECE);
        match rustix::io::write(descriptor(to), &bytes[..bytes.len().min(most)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                patience.rewarded();
            }
            Err(Errno::INTR | Errno::AGAIN) => patience.waited()?,
            // Closed: nobody wants it, as the standard library has it.
            Err(Errno::BADF) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn write_pieces(to: Standard, bytes: &[u8], _: &mut Patience<'_>) -> io::Result<()> {
    match to {
        Standard::Out => io::stdout()
            .write_all(bytes)
            .and_then(|()| io::stdout().flush()),
        Standard::Err => io::stderr().write_all(bytes),
    }
}

/// Writes on a thread that is left behind where the run is to end and the stream takes nothing.
fn write_beside(to: Standard, bytes: &[u8], patience: &mut Patience<'_>) -> io::Result<()> {
    /// What one thread writes.
    const SHARE: usize = 64 << 10;
    for share in bytes.chunks(SHARE) {
        let share = share.to_vec();
        let (tell, told) = channel();
        let write = move || tell.send(write_pieces(to, &share, &mut Patience::of(None)));
        std::thread::Builder::new()
            .name("wizer-output".into())
            .spawn(write)?;
        loop {
            match told.recv_timeout(TURN) {
                Ok(written) => break written?,
                Err(RecvTimeoutError::Timeout) => patience.waited()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the writing thread is gone"));
                }
            }
        }
        patience.rewarded();
    }
    Ok(())
}

/// Waits for a stream, and says whether it is ready. What cannot be polled is one that does not
/// block.
#[cfg(unix)]
fn wait_for(fd: rustix::fd::BorrowedFd<'_>, what: PollFlags, timeout: Option<Duration>) -> bool {
    use rustix::event::{PollFd, Timespec, poll};
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(&mut [PollFd::new(&fd, what)], timeout.as_ref()) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Whether nobody takes what is written to the stream: it is closed, or its reader is gone.
#[cfg(unix)]
pub fn is_broken(to: Standard) -> bool {
    use rustix::event::{PollFd, Timespec, poll};
    let fd = descriptor(to);
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

/// The most bytes that one read of standard input takes, whatever the guest offers.
const MAX_READ: usize = 64 * 1024;

/// Waits a moment for standard input. Returns whether a read would not block.
#[cfg(unix)]
fn wait_readable(timeout: Duration) -> bool {
    wait_for(rustix::stdio::stdin(), PollFlags::IN, Some(timeout))
}

#[cfg(not(unix))]
fn wait_readable(timeout: Duration) -> bool {
    lock(&FILLING).wait(timeout, || drop(io::stdin().lock().fill_buf()))
}

/// Standard input where it cannot be polled.
#[cfg(not(unix))]
static FILLING: Mutex<Filling> = Mutex::new(Filling::new());

/// Waits on a thread that may be left behind until the buffer of a stream is filled: nobody loses
/// what is in there.
#[cfg(any(not(unix), test))]
struct Filling {
    /// Told when the thread is done.
    told: Option<Receiver<()>>,
    /// Whether the buffer was filled, and not read since.
    filled: bool,
}

#[cfg(any(not(unix), test))]
impl Filling {
    const fn new() -> Filling {
        Filling {
            told: None,
            filled: false,
        }
    }

    /// Waits so long for a buffer that `fill` fills, and says whether it is.
    fn wait(&mut self, timeout: Duration, fill: impl FnOnce() + Send + 'static) -> bool {
        if self.filled {
            return true;
        }
        let told = self.told.get_or_insert_with(|| {
            let (tell, told) = channel();
            std::thread::spawn(move || {
                fill();
                tell.send(())
            });
            told
        });
        if let Err(RecvTimeoutError::Timeout) = told.recv_timeout(timeout) {
            return false;
        }
        self.told = None;
        self.filled = true;
        true
    }

    /// What was in the buffer is read.
    fn read(&mut self) {
        self.filled = false;
    }
}

/// Reads standard input directly: `std::io::Stdin` reads ahead into a buffer of the process,
/// and what the guest has not asked for is not ours.
fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?);
    #[cfg(not(unix))]
    return {
        lock(&FILLING).read();
        io::stdin().read(buffer)
    };
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
        while self.would_wait(TURN) {
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
    pub fn release(&self, interrupt: Option<&Interrupt>) -> Result<(), (Standard, io::Error)> {
        let mut failed = None;
        for (to, bytes) in std::mem::take(&mut *lock(&self.0)).pieces {
            if let Some((stream, _)) = &failed
                && *stream == to
            {
                continue;
            }
            if let Err(error) = write_all(to, &bytes, interrupt) {
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
    /// Whether something was written, where it went elsewhere than the guest meant.
    redirected: Option<Arc<AtomicBool>>,
}

#[derive(Clone)]
enum Sink {
    Inherit(Standard, Option<Arc<Interrupt>>),
    Hold(Standard, Held),
    Ignore,
    Pipe(Arc<Mutex<Vec<u8>>>),
}

impl Stdout {
    /// The stream that the options ask for. What goes to the process's is held back, where there
    /// is something to hold it; else the end of the run ends waiting for them.
    pub fn new(
        stdout: config::Stdout,
        standard: Standard,
        held: Option<&Held>,
        interrupt: Option<Arc<Interrupt>>,
    ) -> Stdout {
        let (stdout, standard, redirected) = match stdout {
            config::Stdout::StandardError => {
                let redirected = Some(Arc::default());
                (config::Stdout::Inherit, Standard::Err, redirected)
            }
            stdout => (stdout, standard, None),
        };
        Stdout {
            redirected,
            to: match (stdout, held) {
                (config::Stdout::Inherit, None) => Sink::Inherit(standard, interrupt),
                (config::Stdout::Inherit, Some(held)) => Sink::Hold(standard, held.clone()),
                (config::Stdout::Ignore | config::Stdout::StandardError, _) => Sink::Ignore,
                (config::Stdout::Pipe, _) => Sink::Pipe(Arc::default()),
            },
        }
    }

    /// Whether it is held back for a stream that takes nothing any more.
    pub fn is_broken(&self) -> bool {
        matches!(self.to, Sink::Hold(standard, _) if is_broken(standard))
    }

    /// Whether something was written that went elsewhere than the guest meant.
    pub fn was_redirected(&self) -> bool {
        let redirected = self.redirected.as_ref();
        redirected.is_some_and(|written| written.load(Ordering::Relaxed))
    }

    /// What was written so far, where the stream is a pipe.
    pub fn take(&self) -> Option<Vec<u8>> {
        match &self.to {
            Sink::Pipe(bytes) => Some(std::mem::take(&mut *lock(bytes))),
            _ => None,
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(written) = &self.redirected {
            written.fetch_or(!bytes.is_empty(), Ordering::Relaxed);
        }
        match &self.to {
            Sink::Inherit(to, interrupt) => write_all(*to, bytes, interrupt.as_deref()),
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
            Sink::Inherit(to, _) | Sink::Hold(to, _) => is_terminal(to),
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

    /// Also where a stream cannot be polled.
    #[test]
    fn a_wait_for_a_buffer_can_be_left() {
        let mut filling = Filling::new();
        let (fill, filled) = channel::<()>();
        let wait = move || filled.recv().unwrap_or_default();
        assert!(!filling.wait(Duration::from_millis(1), wait));
        assert!(!filling.wait(Duration::ZERO, || unreachable!("one thread waits")));
        fill.send(()).unwrap();
        assert!(filling.wait(Duration::from_secs(60), || unreachable!()));
        assert!(filling.wait(Duration::ZERO, || unreachable!("nobody has read")));
        filling.read();
        let (_held, never) = channel::<()>();
        assert!(!filling.wait(Duration::from_millis(1), move || {
            never.recv().unwrap_or_default()
        }));
    }

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
