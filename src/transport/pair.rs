//! Transports over any reader and writer, such as the pipes to a child process.

use std::io::{self, ErrorKind, Read, Write};
use std::process::Child;

use super::{EndWatch, FrameReader, FrameWriter, MessageSink, MessageSource, Peer, Shutdown, Transport};
use crate::error::TransportError;
use crate::limits::Limits;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::Arc;
use crate::wire::frame::{Frame, Outbound};

impl Transport {
    /// A transport over any reader and writer. The reader need not be buffered, nor the writer: it is
    /// flushed after each batch of messages.
    ///
    /// Nothing can interrupt a reader or a writer of which nothing more is known. A [`shutdown`](Shutdown)
    /// lets nothing more begin: later sends fail and later receives give the end. A send or receive under way
    /// goes on until the other end reads, writes, or closes. The writer is closed by being dropped, at the
    /// first send after the shutdown or together with the sink, and then the other end sees the end.
    ///
    /// ```
    /// use capnp_threads::{transport::Transport, Limits};
    ///
    /// let to_parent = Transport::pair(std::io::stdin(), std::io::stdout(), &Limits::default());
    /// assert_eq!(to_parent.peer.to_string(), "a reader and a writer");
    /// ```
    pub fn pair(
        read: impl Read + Send + 'static,
        write: impl Write + Send + 'static,
        limits: &Limits,
    ) -> Transport {
        Transport::of_pair(read, write, limits, None)
    }

    fn of_pair(
        read: impl Read + Send + 'static,
        write: impl Write + Send + 'static,
        limits: &Limits,
        end: Option<Arc<dyn EndWatch>>,
    ) -> Transport {
        let ended = Arc::new(AtomicBool::new(false));
        Transport {
            sink: Box::new(PairSink { write: Some(write), frames: FrameWriter::new(), ended: ended.clone() }),
            source: Box::new(PairSource {
                frames: FrameReader::new(read, limits),
                ended: ended.clone(),
                end,
            }),
            shutdown: Box::new(PairShutdown(ended)),
            peer: Peer::Other("a reader and a writer".into()),
        }
    }

    /// A transport over the stdin and stdout of a child process, which are taken out of `child`. Ending it
    /// closes the child's stdin; waiting for the child, or killing it, remains the caller's. See
    /// [`pair`](Self::pair) for what a shutdown can do.
    ///
    /// # Errors
    /// When the child was not started with both its stdin and its stdout piped, or they are taken already. If the
    /// limits can't work ([`Limits::check`]).
    pub fn child(child: &mut Child, limits: &Limits) -> io::Result<Transport> {
        super::socket::check(limits)?;
        if child.stdin.is_none() || child.stdout.is_none() {
            let reason = "the child's stdin and stdout must be piped";
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).expect("both were seen above");
        let peer = Peer::Other(format!("process {}", child.id()));
        let end = end_of(&stdout)?;
        Ok(Transport { peer, ..Transport::of_pair(stdout, stdin, limits, end) })
    }
}

struct PairSink<W> {
    /// `None` once it was found ended.
    write: Option<W>,
    frames: FrameWriter,
    ended: Arc<AtomicBool>,
}

impl<W: Write + Send> MessageSink for PairSink<W> {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        if self.ended.load(Ordering::Acquire) {
            self.write = None;
        }
        let written = match &mut self.write {
            Some(write) => self.frames.write_batch(write, batch),
            None => Err(io::Error::new(ErrorKind::BrokenPipe, "the transport was shut down")),
        };
        written.map_err(|e| TransportError::io("sending", e))
    }
}

struct PairSource<R> {
    frames: FrameReader<R>,
    ended: Arc<AtomicBool>,
    end: Option<Arc<dyn EndWatch>>,
}

impl<R: Read + Send> MessageSource for PairSource<R> {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        if self.ended.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.frames.next_frame()
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        self.end.clone()
    }
}

/// What sees the end of a child's output.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn end_of(stdout: &std::process::ChildStdout) -> io::Result<Option<Arc<dyn EndWatch>>> {
    use std::os::fd::AsFd;
    Ok(Some(super::end_watch::DescriptorEnd::of(Arc::new(stdout.as_fd().try_clone_to_owned()?))))
}

/// Nothing does.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn end_of(_stdout: &std::process::ChildStdout) -> io::Result<Option<Arc<dyn EndWatch>>> {
    Ok(None)
}

struct PairShutdown(Arc<AtomicBool>);

impl Shutdown for PairShutdown {
    fn shutdown(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(all(test, unix, not(any(shuttle, loom))))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::transport::testing::{message, text};

    fn looped_back() -> Transport {
        let (read, write) = UnixStream::pair().unwrap();
        Transport::pair(read, write, &Limits::default())
    }

    #[test]
    fn what_is_written_is_read_and_a_dropped_sink_ends_it() {
        let mut t = looped_back();
        t.sink.send(&[message("one"), message("two")]).unwrap();
        drop(t.sink);
        assert_eq!(text(t.source.receive().unwrap().unwrap()), "one");
        assert_eq!(text(t.source.receive().unwrap().unwrap()), "two");
        assert!(t.source.receive().unwrap().is_none());
    }

    #[test]
    fn a_send_after_shutdown_fails_and_closes_the_writer() {
        let (mut far, write) = UnixStream::pair().unwrap();
        let mut t = Transport::pair(io::empty(), write, &Limits::default());
        t.sink.send(&[message("one")]).unwrap();
        t.shutdown.shutdown();
        t.shutdown.shutdown();
        assert!(t.sink.send(&[message("two")]).is_err());
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(crate::transport::testing::read_back(&all), ["one"]);
        assert!(t.source.receive().unwrap().is_none());
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn the_end_of_a_child_is_seen_behind_output_that_nobody_reads() {
        use std::process::{Command, Stdio};
        let mut echo = Command::new("echo");
        let mut child = echo.arg("unread").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut t = Transport::child(&mut child, &Limits::default()).unwrap();
        let end = t.source.end_watch().unwrap();
        while !end.has_ended() {
            end.wait_end(None);
        }
        assert!(child.wait().unwrap().success());
        assert!(t.source.receive().is_err(), "it was no message");
    }

    #[test]
    fn a_child_echoes_and_sees_the_end() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut t = Transport::child(&mut child, &Limits::default()).unwrap();
        assert_eq!(t.peer, Peer::Other(format!("process {}", child.id())));
        assert!(Transport::child(&mut child, &Limits::default()).is_err());
        t.sink.send(&[message("meow")]).unwrap();
        assert_eq!(text(t.source.receive().unwrap().unwrap()), "meow");
        drop(t.sink);
        assert!(child.wait().unwrap().success());
        assert!(t.source.receive().unwrap().is_none());
    }
}
