//! Transports over any reader and writer, such as the pipes to a child process.

use std::io::{self, ErrorKind, Read, Write};
use std::process::Child;

use super::{
    FrameReader, FrameWriter, MessageSink, MessageSource, PeerAddress, Shutdown, Sink, Source, Transport,
};
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
        let ended = Arc::new(AtomicBool::new(false));
        let source = PairSource { frames: FrameReader::new(read, limits), ended: ended.clone() };
        of_pair(Source::blocking(source), write, ended, "a reader and a writer".into())
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
        let ended = Arc::new(AtomicBool::new(false));
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let stdout = child_output::Output::new(stdout)?;
        let source = PairSource { frames: FrameReader::new(stdout, limits), ended: ended.clone() };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let source = Source::nonblocking(source);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let source = Source::blocking(source);
        Ok(of_pair(source, stdin, ended, format!("process {}", child.id())))
    }
}

fn of_pair(
    source: Source,
    write: impl Write + Send + 'static,
    ended: Arc<AtomicBool>,
    peer: String,
) -> Transport {
    let sink = PairSink { write: Some(write), frames: FrameWriter::new(), ended: ended.clone() };
    Transport::new(Sink::blocking(sink), source, PairShutdown(ended), PeerAddress::Other(peer))
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
}

impl<R> PairSource<R> {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl<R: Read + Send> MessageSource for PairSource<R> {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        if self.has_ended() {
            return Ok(None);
        }
        self.frames.next_frame()
    }
}

/// The output of a child is a pipe, of which Linux tells whether it can be read.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod child_output {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::process::ChildStdout;

    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

    use super::*;
    use crate::transport::{
        Arrived, DescriptorEndWatch, DescriptorReadiness, EndWatch, NonblockingSource, Readiness,
    };

    pub(super) struct Output {
        stdout: ChildStdout,
        /// The same pipe, for whatever waits for it.
        descriptor: Arc<OwnedFd>,
        /// Nothing is to be waited for.
        now: bool,
    }

    impl Output {
        pub(super) fn new(stdout: ChildStdout) -> io::Result<Self> {
            let descriptor = Arc::new(stdout.as_fd().try_clone_to_owned()?);
            Ok(Output { stdout, descriptor, now: false })
        }
    }

    impl Read for Output {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            // A pipe that can be read does not make its only reader wait.
            let mut stdout = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            if self.now && poll(&mut stdout, PollTimeout::ZERO)? == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.stdout.read(bytes)
        }
    }

    impl NonblockingSource for PairSource<Output> {
        fn receive_now(&mut self) -> Result<Arrived, TransportError> {
            if self.has_ended() {
                return Ok(Arrived::End);
            }
            self.frames.stream_mut().now = true;
            let arrived = self.frames.frame_now();
            self.frames.stream_mut().now = false;
            arrived
        }

        fn is_ready(&mut self) -> bool {
            self.frames.is_ready()
        }

        fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
            let readiness = DescriptorReadiness::new(self.frames.stream().descriptor.clone());
            // Without one, for want of file descriptors, the receive thread alone waits.
            readiness.ok().map(|readiness| Arc::new(readiness) as Arc<dyn Readiness>)
        }

        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.frames.stream().descriptor.as_fd())
        }

        fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
            Some(Arc::new(DescriptorEndWatch::new(self.frames.stream().descriptor.clone())))
        }

        fn release_buffers(&mut self) {
            self.frames.release_buffers();
        }
    }
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
        let end = t.source.as_nonblocking().unwrap().end_watch().unwrap();
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
        assert_eq!(t.peer.address, PeerAddress::Other(format!("process {}", child.id())));
        assert!(Transport::child(&mut child, &Limits::default()).is_err());
        t.sink.send(&[message("meow")]).unwrap();
        assert_eq!(text(t.source.receive().unwrap().unwrap()), "meow");
        drop(t.sink);
        assert!(child.wait().unwrap().success());
        assert!(t.source.receive().unwrap().is_none());
    }
}
