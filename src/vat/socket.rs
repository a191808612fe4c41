//! Listening sockets, which another thread can stop.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::{Path, PathBuf};

use super::acceptor::{Accepted, Acceptor};
use crate::error::{Result, TransportError};
use crate::limits::Limits;
use crate::sync::Arc;
use crate::transport::{Shutdown, Transport};

/// Accepts TCP connections. [`Vat::listen`](crate::Vat::listen) makes one; an acceptor of one's own that needs the stream
/// itself, as TLS does, can be built upon it.
pub struct TcpAcceptor {
    socket: TcpListener,
    address: SocketAddr,
    stop: Stop,
}

impl TcpAcceptor {
    /// Accepts what connects to `socket`, which is made nonblocking.
    ///
    /// # Errors
    /// When the system refuses that, or has no file descriptors for what stops it.
    pub fn new(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(TcpAcceptor { address: socket.local_addr()?, socket, stop: Stop::new()? })
    }

    /// The next connection, as a blocking stream; `None` once it was [stopped](Acceptor::stop).
    ///
    /// # Blocking
    /// Until then.
    ///
    /// # Errors
    /// When the system says so.
    pub fn accept_stream(&mut self) -> io::Result<Option<TcpStream>> {
        let accepted = self.stop.accept(&self.socket, || self.socket.accept())?;
        accepted.map(|(stream, _)| stream.set_nonblocking(false).map(|()| stream)).transpose()
    }
}

impl Acceptor for TcpAcceptor {
    type Address = SocketAddr;

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn stop(&self) -> Box<dyn Shutdown> {
        Box::new(self.stop.clone())
    }

    fn accept(&mut self, limits: &Limits) -> Result<Option<Accepted>> {
        accepted(self.accept_stream(), |stream| Transport::tcp(stream, limits))
    }
}

impl fmt::Debug for TcpAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpAcceptor").field(&self.address).finish()
    }
}

/// Accepts connections to a Unix socket. [`Vat::listen_unix`](crate::Vat::listen_unix) makes one. When it is dropped, the path
/// of the socket is removed, unless another file stands there by then.
#[cfg(unix)]
pub struct UnixAcceptor {
    /// Declared first: it is dropped, and so the path removed, before the socket is closed.
    path: SocketPath,
    socket: UnixListener,
    stop: Stop,
}

#[cfg(unix)]
impl UnixAcceptor {
    /// Makes a socket at `path`, and accepts what connects to it.
    ///
    /// # Errors
    /// When the system says so.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let socket = UnixListener::bind(path)?;
        let path = SocketPath::of(path);
        socket.set_nonblocking(true)?;
        Ok(UnixAcceptor { path, socket, stop: Stop::new()? })
    }

    /// The next connection, as a blocking stream; `None` once it was [stopped](Acceptor::stop).
    ///
    /// # Blocking
    /// Until then.
    ///
    /// # Errors
    /// When the system says so.
    pub fn accept_stream(&mut self) -> io::Result<Option<UnixStream>> {
        let accepted = self.stop.accept(&self.socket, || self.socket.accept())?;
        accepted.map(|(stream, _)| stream.set_nonblocking(false).map(|()| stream)).transpose()
    }
}

#[cfg(unix)]
impl Acceptor for UnixAcceptor {
    type Address = PathBuf;

    fn local_addr(&self) -> PathBuf {
        self.path.path.clone()
    }

    fn stop(&self) -> Box<dyn Shutdown> {
        Box::new(self.stop.clone())
    }

    fn accept(&mut self, limits: &Limits) -> Result<Option<Accepted>> {
        accepted(self.accept_stream(), |stream| Transport::unix(stream, limits))
    }
}

#[cfg(unix)]
impl fmt::Debug for UnixAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnixAcceptor").field(&self.path.path).finish()
    }
}

fn accepted<S>(
    stream: io::Result<Option<S>>,
    transport: impl FnOnce(S) -> io::Result<Transport>,
) -> Result<Option<Accepted>> {
    let made = stream.and_then(|stream| stream.map(transport).transpose());
    Ok(made.map_err(|e| TransportError::io("accept a connection", e))?.map(Accepted::from))
}

/// The path of a Unix socket, which is removed when this is dropped, unless another file stands there by then. That is
/// decided while the socket is open: its inode is not given to another file before it is closed.
#[cfg(unix)]
struct SocketPath {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl SocketPath {
    fn of(path: &Path) -> Self {
        // The process may change its working directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = identity(&path);
        SocketPath { path, file }
    }
}

#[cfg(unix)]
impl Drop for SocketPath {
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            if let Err(e) = std::fs::remove_file(&self.path) {
                log::warn!("the path of a Unix socket could not be removed: {e}");
            }
        }
    }
}

/// The device and inode of what stands at a path.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Has an accepting thread stop waiting. Clones stop the same thread.
#[derive(Clone)]
struct Stop {
    /// A pair of sockets. What the thread waits for, beside the connection, is the end of the second one.
    #[cfg(unix)]
    ends: Arc<(UnixStream, UnixStream)>,
    #[cfg(not(unix))]
    stopped: Arc<(crate::sync::Mutex<bool>, crate::sync::Condvar)>,
}

impl Stop {
    /// Accepts the next connection to `socket`, which does not block, with `accept`. `None` once this was stopped.
    fn accept<S>(
        &self,
        socket: &impl Listening,
        accept: impl Fn() -> io::Result<S>,
    ) -> io::Result<Option<S>> {
        loop {
            if self.wait(socket)? {
                return Ok(None);
            }
            match accept() {
                // The connection was gone before it was accepted.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted.map(Some),
            }
        }
    }
}

/// A socket that listens.
#[cfg(unix)]
trait Listening: AsFd {}
#[cfg(unix)]
impl<S: AsFd> Listening for S {}
#[cfg(not(unix))]
trait Listening {}
#[cfg(not(unix))]
impl<S> Listening for S {}

#[cfg(unix)]
impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Stop { ends: Arc::new(UnixStream::pair()?) })
    }

    /// Waits until there is a connection, or for no reason. True: it is to stop.
    fn wait(&self, socket: &impl Listening) -> io::Result<bool> {
        use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
        let mut either = [
            PollFd::new(self.ends.1.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut either, PollTimeout::NONE) {
            Ok(_) => Ok(either[0].any().unwrap_or(true)),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(unix)]
impl Shutdown for Stop {
    /// From now on nothing waits. Needs nothing that the system could lack.
    fn shutdown(&self) {
        // It fails only for a socket that is not connected.
        let _ = self.ends.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Where no system call waits for two things, the thread looks for a connection again and again.
#[cfg(not(unix))]
impl Stop {
    const INTERVAL: crate::sync::Duration = crate::sync::Duration::from_millis(20);

    fn new() -> io::Result<Self> {
        use crate::sync::{Condvar, Mutex, Rank};
        Ok(Stop { stopped: Arc::new((Mutex::new(Rank::Queue, false), Condvar::new())) })
    }

    /// Waits until there may be a connection. True: it is to stop.
    fn wait(&self, _: &impl Listening) -> io::Result<bool> {
        let mut stopped = self.stopped.0.lock();
        if !*stopped {
            self.stopped.1.wait_until(&mut stopped, Some(crate::sync::deadline(Self::INTERVAL)));
        }
        Ok(*stopped)
    }
}

#[cfg(not(unix))]
impl Shutdown for Stop {
    /// From now on nothing waits.
    fn shutdown(&self) {
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
    }
}
