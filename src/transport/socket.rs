//! Transports over sockets: TCP and Unix.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, TcpStream};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::UnixStream;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::{
    ahead::Ahead, Arrived, DescriptorEndWatch, DescriptorReadiness, EndWatch, NonblockingSink,
    NonblockingSource, Readiness,
};
use super::{
    FrameReader, FrameWriter, MessageSink, MessageSource, Peer, PeerAddress, Shutdown, Sink, Source,
    Transport,
};
use crate::error::TransportError;
use crate::limits::Limits;
use crate::sync::{Arc, Duration};
use crate::wire::frame::{Frame, Outbound};

impl Transport {
    /// A transport over a TCP connection, which sends without delay and asks after
    /// [`Limits::keepalive`] of silence whether the peer is still there. The stream is made blocking, and
    /// loses its read timeout.
    ///
    /// # Errors
    /// When the system refuses an option, the stream is not connected, or the limits can't work ([`Limits::check`]).
    pub fn tcp(stream: TcpStream, limits: &Limits) -> io::Result<Transport> {
        check(limits)?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        if let Some(silence) = limits.keepalive {
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive(silence))?;
        }
        let peer = PeerAddress::Tcp { local: stream.local_addr()?, remote: stream.peer_addr()? };
        over(stream, peer.into(), limits)
    }

    /// A transport over a Unix socket. The stream is made blocking, and loses its read timeout.
    ///
    /// # Errors
    /// When the system refuses an option, or the limits can't work ([`Limits::check`]).
    #[cfg(unix)]
    pub fn unix(stream: UnixStream, limits: &Limits) -> io::Result<Transport> {
        check(limits)?;
        stream.set_nonblocking(false)?;
        let peer = crate::peer::of_unix(&stream);
        over(stream, peer, limits)
    }
}

/// Refuses limits that can't work, where a transport is made with them.
pub(super) fn check(limits: &Limits) -> io::Result<()> {
    limits.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

/// Asks after `silence`, and again every so often until the system gives up. Systems count whole seconds.
fn keepalive(silence: Duration) -> socket2::TcpKeepalive {
    let silence = silence.max(Duration::from_secs(1));
    let keepalive = socket2::TcpKeepalive::new().with_time(silence);
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
    let keepalive = keepalive.with_interval((silence / 4).max(Duration::from_secs(1)));
    keepalive
}

fn over<S: Socket>(socket: S, peer: Peer, limits: &Limits) -> io::Result<Transport>
where
    for<'a> &'a S: Read + Write,
{
    socket.read_timeout(None)?;
    let socket = Arc::new(socket);
    let sink =
        SocketSink { outgoing: Outgoing(socket.clone()), frames: FrameWriter::new(), left: Vec::new() };
    let incoming = Incoming { socket: socket.clone(), now: false, drained: false };
    let source = SocketSource {
        frames: FrameReader::new(incoming, limits),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        ahead: Ahead::default(),
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let (sink, source) = (Sink::nonblocking(sink), Source::nonblocking(source));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let (sink, source) = (Sink::blocking(sink), Source::blocking(source));
    Ok(Transport::new(sink, source, SocketShutdown(socket), peer))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
trait Descriptor: AsFd {}
#[cfg(any(target_os = "linux", target_os = "android"))]
impl<S: AsFd> Descriptor for S {}
#[cfg(not(any(target_os = "linux", target_os = "android")))]
trait Descriptor {}
#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl<S> Descriptor for S {}

/// What TCP and Unix sockets have in common beside reading and writing.
trait Socket: Descriptor + Send + Sync + 'static {
    fn read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn shut(&self, which: net::Shutdown) -> io::Result<()>;
    /// Writes what the system takes without waiting.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Reads what has arrived, without waiting.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn read_now(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
}

/// `send` with the flags that make it neither wait nor raise a signal. (One piece takes the system less time without
/// `sendmsg`, and so below.)
#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_now(socket: socket2::SockRef<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    use nix::sys::socket::MsgFlags;
    let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).bits();
    match pieces {
        [piece] => socket.send_with_flags(piece, flags),
        _ => socket.send_vectored_with_flags(pieces, flags),
    }
}

/// Reads what has arrived.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn receive_now(socket: &impl AsRawFd, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    use nix::sys::socket::{recv, recvmsg, MsgFlags};
    let (socket, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let received = match pieces {
        [piece] => recv(socket, piece, flags)?,
        _ => recvmsg::<()>(socket, pieces, None, flags)?.bytes,
    };
    Ok(received)
}

impl Socket for TcpStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        send_now(self.into(), pieces)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn read_now(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        receive_now(self, pieces)
    }

    fn read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)
    }

    fn shut(&self, which: net::Shutdown) -> io::Result<()> {
        self.shutdown(which)
    }
}

#[cfg(unix)]
impl Socket for UnixStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        send_now(self.into(), pieces)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn read_now(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        receive_now(self, pieces)
    }

    fn read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)
    }

    fn shut(&self, which: net::Shutdown) -> io::Result<()> {
        self.shutdown(which)
    }
}

struct SocketSink<S: Socket> {
    outgoing: Outgoing<S>,
    frames: FrameWriter,
    /// What was to be sent without waiting, and was too much for that.
    left: Vec<u8>,
}

impl<S: Socket> MessageSink for SocketSink<S>
where
    for<'a> &'a S: Write,
{
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        let left = std::mem::take(&mut self.left);
        let written = self.outgoing.write_all(&left);
        let written = written.and_then(|()| self.frames.write_batch(&mut self.outgoing, batch));
        written.map_err(|e| TransportError::io("sending", e))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl<S: Socket> NonblockingSink for SocketSink<S>
where
    for<'a> &'a S: Write,
{
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        if !self.left.is_empty() {
            match self.outgoing.0.write_now(&[IoSlice::new(&self.left)]) {
                Ok(sent) => drop(self.left.drain(..sent)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(TransportError::io("sending", e)),
            }
        }
        let mut now = Now { socket: &*self.outgoing.0, left: &mut self.left };
        let written = self.frames.write_batch(&mut now, batch);
        written.map_err(|e| TransportError::io("sending", e))?;
        Ok(self.left.is_empty())
    }
}

/// Writes what the system takes without waiting, and keeps the rest.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct Now<'a, S> {
    socket: &'a S,
    left: &'a mut Vec<u8>,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl<S: Socket> Write for Now<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.left.is_empty() {
            match self.socket.write_now(pieces) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        pieces.iter().for_each(|piece| self.left.extend_from_slice(piece));
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing end of a socket. Dropping it ends that direction, so that the peer sees the end.
struct Outgoing<S: Socket>(Arc<S>);

impl<S: Socket> Write for Outgoing<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.0).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

impl<S: Socket> Drop for Outgoing<S> {
    fn drop(&mut self) {
        // Fails if the connection is gone, which is what is wanted.
        let _ = self.0.shut(net::Shutdown::Write);
    }
}

struct SocketSource<S: Socket> {
    frames: FrameReader<Incoming<S>>,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    ahead: Ahead,
}

impl<S: Socket> MessageSource for SocketSource<S>
where
    for<'a> &'a S: Read,
{
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        match self.ahead.take() {
            Some(Ok(Arrived::Message(frame))) => return Ok(Some(frame)),
            Some(Ok(Arrived::End)) => return Ok(None),
            Some(Err(e)) => return Err(e),
            Some(Ok(Arrived::Nothing)) | None => {}
        }
        self.frames.next_frame()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl<S: Socket> NonblockingSource for SocketSource<S>
where
    for<'a> &'a S: Read,
{
    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        match self.ahead.take() {
            Some(next) => next,
            None => read_now(&mut self.frames),
        }
    }

    fn is_ready(&mut self) -> bool {
        if self.ahead.is_there() || self.frames.is_ready() {
            return true;
        }
        // See Note [Reading ahead].
        let SocketSource { frames, ahead } = self;
        ahead.read(|| if frames.is_within() { read_now(frames) } else { Ok(Arrived::Nothing) })
    }

    fn is_drained(&self) -> bool {
        self.frames.stream().drained
    }

    fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        let readiness = DescriptorReadiness::new(self.frames.stream().socket.clone());
        // Without one, for want of file descriptors, the receive thread alone waits.
        readiness.ok().map(|readiness| Arc::new(readiness) as Arc<dyn Readiness>)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.frames.stream().socket.as_fd())
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        Some(Arc::new(DescriptorEndWatch::new(self.frames.stream().socket.clone())))
    }

    fn release_buffers(&mut self) {
        self.frames.release_buffers();
    }
}

/// Gives what has arrived.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn read_now<S: Socket>(frames: &mut FrameReader<Incoming<S>>) -> Result<Arrived, TransportError>
where
    for<'a> &'a S: Read,
{
    frames.stream_mut().now = true;
    let arrived = frames.frame_now();
    frames.stream_mut().now = false;
    arrived
}

/// The reading end of a socket.
struct Incoming<S: Socket> {
    socket: Arc<S>,
    /// Nothing is to be waited for.
    now: bool,
    /// The last read that did not wait gave less than it had room for: nothing was left.
    drained: bool,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl<S: Socket> Incoming<S> {
    fn read_now(&mut self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room: usize = pieces.iter().map(|piece| piece.len()).sum();
        let read = self.socket.read_now(pieces);
        self.drained = read.as_ref().is_ok_and(|n| *n < room);
        read
    }
}

impl<S: Socket> Read for Incoming<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.now {
            return self.read_now(&mut [IoSliceMut::new(buf)]);
        }
        (&*self.socket).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.now {
            return self.read_now(bufs);
        }
        (&*self.socket).read_vectored(bufs)
    }
}

struct SocketShutdown<S: Socket>(Arc<S>);

impl<S: Socket> Shutdown for SocketShutdown<S> {
    fn shutdown(&self) {
        // Fails if the connection is gone, which is what is wanted.
        let _ = self.0.shut(net::Shutdown::Both);
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
