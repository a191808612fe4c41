//! A listening socket that another thread can stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::{Path, PathBuf};

use crate::limits::Limits;
use crate::sync::Arc;
use crate::transport::Transport;

/// A socket that listens, until it is dropped.
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        /// Declared first: it is dropped, and so the path removed, before the socket is closed.
        _path: SocketPath,
        socket: UnixListener,
    },
}

impl ListeningSocket {
    /// One that never blocks: what waits for a connection is [`Stop::wait`].
    pub(super) fn tcp(socket: TcpListener) -> io::Result<(Self, SocketAddr)> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((ListeningSocket::Tcp(socket), address))
    }

    /// One that has just been bound to `path`.
    #[cfg(unix)]
    pub(super) fn unix(socket: UnixListener, path: &Path) -> io::Result<(Self, PathBuf)> {
        let path = SocketPath::of(path);
        socket.set_nonblocking(true)?;
        let address = path.path.clone();
        Ok((ListeningSocket::Unix { _path: path, socket }, address))
    }

    /// Accepts the next connection, waiting for it. `None` once `stop` says so.
    pub(super) fn accept(&self, stop: &Stop, limits: &Limits) -> io::Result<Option<Transport>> {
        loop {
            if stop.wait(self)? {
                return Ok(None);
            }
            let accepted = match self {
                ListeningSocket::Tcp(socket) => {
                    socket.accept().and_then(|(stream, _)| Transport::tcp(stream, limits))
                }
                #[cfg(unix)]
                ListeningSocket::Unix { socket, .. } => {
                    socket.accept().and_then(|(stream, _)| Transport::unix(stream, limits))
                }
            };
            match accepted {
                // The connection was gone before it was accepted.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted.map(Some),
            }
        }
    }
}

#[cfg(unix)]
impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

/// The path of a Unix socket, which is removed when this is dropped, unless another file stands there by then. That is
/// decided while the socket is open: its inode is not given to another file before it is closed.
#[cfg(unix)]
pub(super) struct SocketPath {
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
pub(super) struct Stop {
    /// A pair of sockets. What the thread waits for, beside the connection, is the end of the second one.
    #[cfg(unix)]
    ends: Arc<(UnixStream, UnixStream)>,
    #[cfg(not(unix))]
    stopped: Arc<(crate::sync::Mutex<bool>, crate::sync::Condvar)>,
}

#[cfg(unix)]
impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Stop { ends: Arc::new(UnixStream::pair()?) })
    }

    /// From now on nothing waits. Needs nothing that the system could lack.
    pub(super) fn stop(&self) {
        // It fails only for a socket that is not connected.
        let _ = self.ends.0.shutdown(std::net::Shutdown::Both);
    }

    /// Waits until there is a connection, or for no reason. True: it is to stop.
    fn wait(&self, socket: &ListeningSocket) -> io::Result<bool> {
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

/// Where no system call waits for two things, the thread looks for a connection again and again.
#[cfg(not(unix))]
impl Stop {
    const INTERVAL: crate::sync::Duration = crate::sync::Duration::from_millis(20);

    pub(super) fn new() -> io::Result<Self> {
        use crate::sync::{Condvar, Mutex, Rank};
        Ok(Stop { stopped: Arc::new((Mutex::new(Rank::Queue, false), Condvar::new())) })
    }

    /// From now on nothing waits.
    pub(super) fn stop(&self) {
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
    }

    /// Waits until there may be a connection. True: it is to stop.
    fn wait(&self, _: &ListeningSocket) -> io::Result<bool> {
        let mut stopped = self.stopped.0.lock();
        if !*stopped {
            self.stopped.1.wait_until(&mut stopped, Some(crate::sync::deadline(Self::INTERVAL)));
        }
        Ok(*stopped)
    }
}
