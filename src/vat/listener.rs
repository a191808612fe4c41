//! Listening: a thread that accepts, and the set of connections that it made.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(unix)]
use std::path::{Path, PathBuf};

use super::socket::{ListeningSocket, Stop};
use super::Vat;
use crate::cap::port::ConnectionId;
use crate::conn::Connection;
use crate::error::{Error, Exception, Result, TransportError};
use crate::promise::{enter_blocking, enter_wait};
use crate::sync::{self, Arc, Condvar, Duration, Instant, Mutex, Rank, Role};
use crate::transport::Transport;

/// How long a listener waits at most after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections, each served on threads of its own.
///
/// Dropping it closes the socket and ends its connections; to let them go on without it, [`detach`](Self::detach). When the
/// drop is done, the same address can be listened on again. The path of a Unix socket is removed, unless another file
/// stands there by then.
pub struct Listener {
    shared: Arc<Shared>,
    detached: bool,
}

struct Shared {
    vat: Vat,
    address: Address,
    stop: Stop,
    state: Mutex<State>,
    changed: Condvar,
}

/// ```text
/// Note [Closing a listener]
/// =========================
/// The socket is in one of three places, which the lock guards: here (`Idle`), with the accepting thread while that waits
/// for a connection or accepts it (`Accepting`), or nowhere (`Closed`). Foreign code never runs in `Accepting`.
///
/// Whoever stops the listener takes the socket out of `Idle` and closes it. If it is with the accepting thread, that is woken
/// by a socket of its own (`Stop`), finds that it is to stop, closes the socket and says so. So `stop` returns when the
/// socket is closed, and waits for two or three system calls at most.
/// ```
struct State {
    connections: BTreeMap<ConnectionId, Connection>,
    socket: SocketState,
    closing: bool,
    /// The accepting thread has ended.
    ended: bool,
}

enum SocketState {
    Idle(ListeningSocket),
    Accepting,
    Closed,
}

enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Listener {
    pub(super) fn tcp(vat: Vat, socket: TcpListener) -> Result<Self> {
        let (socket, address) =
            ListeningSocket::tcp(socket).map_err(|e| TransportError::io("listen for TCP", e))?;
        Self::start(vat, socket, Address::Tcp(address))
    }

    #[cfg(unix)]
    pub(super) fn unix(vat: Vat, socket: UnixListener, path: &Path) -> Result<Self> {
        let made = ListeningSocket::unix(socket, path);
        let (socket, path) = made.map_err(|e| TransportError::io("listen on a Unix socket", e))?;
        Self::start(vat, socket, Address::Unix(path))
    }

    fn start(vat: Vat, socket: ListeningSocket, address: Address) -> Result<Self> {
        let stop = Stop::new().map_err(|e| TransportError::io("set up a listener", e))?;
        let socket = SocketState::Idle(socket);
        let state = State { connections: BTreeMap::new(), socket, closing: false, ended: false };
        let state = Mutex::new(Rank::Vat, state);
        let shared = Arc::new(Shared { vat, address, stop, state, changed: Condvar::new() });
        let accepting = shared.clone();
        sync::spawn("capnp-accept", Role::User, move || accepting.accept_all())
            .map_err(|e| TransportError::io("start a thread of a listener", e))?;
        Ok(Listener { shared, detached: false })
    }

    /// The address that is listened on; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.shared.address {
            Address::Tcp(address) => Some(*address),
            #[cfg(unix)]
            Address::Unix(_) => None,
        }
    }

    /// The connections that were accepted and have not ended.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.state.lock().connections.values().cloned().collect()
    }

    /// Closes the socket, lets calls that are under way end for at most `drain`, and closes all connections. The same
    /// address can be listened on as soon as the socket is closed, which comes first.
    ///
    /// # Blocking
    /// As [`Connection::close`], for all connections together: for at most `drain`, and the longest
    /// [`Limits::linger`](crate::Limits::linger) once.
    ///
    /// # Errors
    /// As [`Connection::close`].
    pub fn close(self, drain: Duration) -> Result<()> {
        self.shared.stop();
        Connection::close_all(&self.connections(), drain)
    }

    /// Waits until the listener has stopped accepting: for a server that runs until it is killed, for ever.
    ///
    /// # Errors
    /// On a connection's own threads, where nothing may wait.
    pub fn wait(&self) -> Result<()> {
        let _in_wait = enter_wait()?;
        let _asleep = enter_blocking()?;
        let mut state = self.shared.state.lock();
        while !state.ended {
            self.shared.changed.wait(&mut state);
        }
        Ok(())
    }

    /// Lets the socket and its connections go on, until the process ends.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.detached {
            self.shared.stop();
            let connections = std::mem::take(&mut self.shared.state.lock().connections);
            connections.into_values().for_each(end);
        }
    }
}

fn end(connection: Connection) {
    connection.end(Error::Exception(Exception::disconnected("the listener was closed")));
}

impl Shared {
    fn accept_all(self: &Arc<Self>) {
        let _ended = sync::finally(|| {
            self.state.lock().ended = true;
            self.changed.notify_all();
        });
        while let Some(accepted) = self.accept() {
            if let Err(e) = accepted.and_then(|transport| self.serve(transport)) {
                log::warn!("a connection could not be accepted: {e}");
                self.pause();
            }
        }
    }

    /// Accepts the next connection, once another one may be served. `None`: no more. See Note [Closing a listener].
    fn accept(&self) -> Option<Result<Transport>> {
        let mut state = self.state.lock();
        while !state.closing && state.connections.len() >= self.vat.limits.connections {
            self.changed.wait(&mut state);
        }
        let SocketState::Idle(socket) = std::mem::replace(&mut state.socket, SocketState::Accepting) else {
            state.socket = SocketState::Closed;
            return None;
        };
        drop(state);
        let accepted = socket.accept(&self.stop, &self.vat.limits);
        let mut state = self.state.lock();
        if !state.closing {
            state.socket = SocketState::Idle(socket);
            drop(state);
            let failed = |e: io::Error| Error::Transport(TransportError::io("accept a connection", e));
            return accepted.map_err(failed).transpose();
        }
        drop(state);
        drop((accepted, socket));
        self.state.lock().socket = SocketState::Closed;
        self.changed.notify_all();
        None
    }

    /// Gives the system time to have what it lacked (descriptors, threads): until a connection ends, and not
    /// for long.
    fn pause(&self) {
        let deadline = Instant::now() + PAUSE;
        self.changed.wait_until(&mut self.state.lock(), Some(deadline));
    }

    fn serve(self: &Arc<Self>, transport: Transport) -> Result<()> {
        let transport = match self.vat.limits.first_message {
            Some(timeout) => transport.expect_first_message_within(timeout),
            None => transport,
        };
        let connection = self.vat.over(transport)?;
        let id = connection.id();
        let mut state = self.state.lock();
        if state.closing {
            drop(state);
            end(connection);
            return Ok(());
        }
        state.connections.insert(id, connection.clone());
        drop(state);
        let this = Arc::downgrade(self);
        connection.on_disconnect(move |_| {
            if let Some(this) = this.upgrade() {
                let ended = this.state.lock().connections.remove(&id);
                this.changed.notify_all();
                drop(ended);
            }
        });
        Ok(())
    }

    /// Closes the socket, and has the accepting thread end. See Note [Closing a listener].
    fn stop(&self) {
        self.stop.stop();
        let mut state = self.state.lock();
        state.closing = true;
        self.changed.notify_all();
        match std::mem::replace(&mut state.socket, SocketState::Closed) {
            SocketState::Idle(socket) => {
                drop(state);
                drop(socket);
            }
            SocketState::Accepting => {
                state.socket = SocketState::Accepting;
                while matches!(state.socket, SocketState::Accepting) {
                    self.changed.wait(&mut state);
                }
            }
            SocketState::Closed => {}
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared.address {
            Address::Tcp(address) => write!(f, "Listener({address})"),
            #[cfg(unix)]
            Address::Unix(path) => write!(f, "Listener({path:?})"),
        }
    }
}
