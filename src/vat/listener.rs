//! Listening: a thread that accepts, and the set of connections that it made.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::{socket, Vat};
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
/// Dropping it closes the socket and ends its connections; to let them go on without it, [`detach`](Self::detach).
pub struct Listener {
    shared: Arc<Shared>,
    detached: bool,
}

struct Shared {
    vat: Vat,
    address: Address,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<ConnectionId, Connection>,
    closing: bool,
    /// The accepting thread has ended.
    ended: bool,
}

enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn tcp(vat: Vat, socket: TcpListener) -> Result<Self> {
        let address = socket.local_addr().map_err(|e| TransportError::io("listen for TCP", e))?;
        Self::start(vat, Socket::Tcp(socket), Address::Tcp(address))
    }

    #[cfg(unix)]
    pub(super) fn unix(vat: Vat, socket: UnixListener, path: &std::path::Path) -> Result<Self> {
        Self::start(vat, Socket::Unix(socket), Address::Unix(path.to_owned()))
    }

    fn start(vat: Vat, socket: Socket, address: Address) -> Result<Self> {
        let state = Mutex::new(Rank::Vat, State::default());
        let shared = Arc::new(Shared { vat, address, state, changed: Condvar::new() });
        let accepting = shared.clone();
        sync::spawn("capnp-accept", Role::User, move || accepting.accept_all(&socket))
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

    /// Accepts no more, lets calls that are under way end for at most `drain`, and closes all connections.
    ///
    /// # Blocking
    /// As [`Connection::close`], for all connections together.
    ///
    /// # Errors
    /// As [`Connection::close`].
    pub fn close(self, drain: Duration) -> Result<()> {
        self.shared.stop();
        let deadline = sync::deadline(drain);
        for connection in self.connections() {
            connection.close(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
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
            for connection in connections.into_values() {
                let why = Exception::disconnected("the listener was closed");
                connection.end(Error::Exception(why));
            }
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>, socket: &Socket) {
        let _ended = sync::finally(|| {
            self.state.lock().ended = true;
            self.changed.notify_all();
        });
        while self.wait_for_room() {
            let accepted = socket.accept(self);
            if self.state.lock().closing {
                break;
            }
            let started = accepted.and_then(|transport| self.serve(transport));
            if let Err(e) = started {
                log::warn!("a connection could not be accepted: {e}");
                self.pause();
            }
        }
        #[cfg(unix)]
        if let Address::Unix(path) = &self.address {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Waits until another connection may be accepted. False: no more.
    fn wait_for_room(&self) -> bool {
        let mut state = self.state.lock();
        while !state.closing && state.connections.len() >= self.vat.limits.connections {
            self.changed.wait(&mut state);
        }
        !state.closing
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
        self.state.lock().connections.insert(id, connection.clone());
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

    /// Has the accepting thread end: it is woken by a connection to itself.
    fn stop(&self) {
        if std::mem::replace(&mut self.state.lock().closing, true) {
            return;
        }
        self.changed.notify_all();
        match &self.address {
            Address::Tcp(address) => {
                let mut to = *address;
                if to.ip().is_unspecified() {
                    to.set_ip(match to {
                        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                drop(TcpStream::connect_timeout(&to, Duration::from_secs(1)));
            }
            #[cfg(unix)]
            Address::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl Socket {
    fn accept(&self, shared: &Shared) -> Result<Transport> {
        let limits = &shared.vat.limits;
        let failed = |e: io::Error| Error::Transport(TransportError::io("accept a connection", e));
        match self {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().map_err(failed)?;
                socket(Transport::tcp(stream, limits))
            }
            #[cfg(unix)]
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().map_err(failed)?;
                socket(Transport::unix(stream, limits))
            }
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
