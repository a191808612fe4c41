//! Vats: connecting to others, and letting others connect.
//!
//! | file | what |
//! | --- | --- |
//! | [`listener`] | the thread that accepts, and the listener's handle |
//! | [`acceptor`] | what a listener serves |
//! | [`socket`] | the two acceptors of this crate: TCP and Unix sockets |
//! | [`connections`] | the set of a listener's connections and handshakes |

mod acceptor;
mod connections;
mod listener;
mod socket;

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::{Path, PathBuf};

pub use acceptor::{Accepted, Acceptor};
pub use listener::Listener;
pub use socket::TcpAcceptor;
#[cfg(unix)]
pub use socket::UnixAcceptor;

use crate::cap::pool::{Pool, Task};
use crate::cap::{Capability, Client};
use crate::conn::{Connection, Options, Threads};
use crate::error::{catch_panic, Error, Exception, Result, TransportError};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::sync::{Arc, Duration, Foreign};
use crate::transport::Transport;

/// What a program is on the network: its limits, and what it offers to those whom it is connected to.
///
/// ```no_run
/// # use capnp_threads::{Client, Vat};
/// # fn main() -> capnp_threads::Result<()> {
/// let connection = Vat::new().connect("localhost:4000")?;
/// let bootstrap: Client = connection.bootstrap();
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone. Connections keep what the vat was when they were made.
#[derive(Clone, Default)]
pub struct Vat {
    limits: Limits,
    offer: Offer,
    pool: Pool,
    call_timeout: Option<Duration>,
    threads: Threads,
}

type Factory = dyn Fn(&Peer) -> Result<Client> + Send + Sync;

/// The bootstrap object.
#[derive(Clone, Default)]
enum Offer {
    #[default]
    Nothing,
    One(Client),
    /// One for each peer.
    Each(Arc<Foreign<Box<Factory>>>),
}

impl Vat {
    /// A vat that offers nothing, with default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limits of each connection.
    ///
    /// # Panics
    /// If no connection can work with them: see [`Limits::check`].
    #[must_use]
    #[track_caller]
    pub fn limits(mut self, limits: Limits) -> Self {
        if let Err(e) = limits.check() {
            panic!("{e}");
        }
        self.limits = limits;
        self
    }

    /// Offers one bootstrap object to all peers.
    #[must_use]
    pub fn bootstrap(mut self, client: impl Into<Client>) -> Self {
        self.offer = Offer::One(client.into());
        self
    }

    /// Offers each peer a bootstrap object of its own, which `factory` makes when the connection is made. The
    /// factory sees who the peer is, runs on a thread of the pool, and may wait; calls wait for it. Its error, or that it
    /// panicked, is what calls on the bootstrap object fail with.
    #[must_use]
    pub fn bootstrap_with<C: Into<Client>>(
        mut self,
        factory: impl Fn(&Peer) -> Result<C> + Send + Sync + 'static,
    ) -> Self {
        let made = move |peer: &Peer| factory(peer).map(Into::into);
        self.offer = Offer::Each(Arc::new(Foreign::new(Box::new(made))));
        self
    }

    /// Runs bootstrap factories on this pool. (Objects bring their own: [`Client::with_pool`].)
    #[must_use]
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.pool = pool.clone();
        self
    }

    /// Has every call over each connection fail as `overloaded` unless it is answered within `timeout`. So does the
    /// question for a bootstrap object: its client is broken then. `None`: they take as long as they do.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn call_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        assert!(
            timeout.is_none_or(|time| !time.is_zero()),
            "a call timeout of zero lets no call be answered"
        );
        self.call_timeout = timeout;
        self
    }

    /// Says which threads drive the stages of each connection.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Connects over TCP.
    ///
    /// # Blocking
    /// Until the name is resolved and the other side has accepted.
    ///
    /// # Errors
    /// When the system says so.
    pub fn connect(&self, address: impl ToSocketAddrs) -> Result<Connection> {
        let stream = TcpStream::connect(address).map_err(|e| TransportError::io("connect over TCP", e))?;
        self.over(socket(Transport::tcp(stream, &self.limits))?)
    }

    /// Connects to a Unix socket.
    ///
    /// # Blocking
    /// Until the other side has accepted.
    ///
    /// # Errors
    /// When the system says so.
    #[cfg(unix)]
    pub fn connect_unix(&self, path: impl AsRef<Path>) -> Result<Connection> {
        let connected = UnixStream::connect(path);
        let stream = connected.map_err(|e| TransportError::io("connect to a Unix socket", e))?;
        self.over(socket(Transport::unix(stream, &self.limits))?)
    }

    /// Starts a connection over any transport. Both sides are equal once it is there.
    ///
    /// # Errors
    /// As [`Connection::start`].
    pub fn over(&self, transport: Transport) -> Result<Connection> {
        let bootstrap = self.offer_to(&transport.peer);
        let Vat { limits, call_timeout, threads, .. } = self;
        let options =
            Options { limits: limits.clone(), bootstrap, call_timeout: *call_timeout, threads: *threads };
        Connection::start(transport, options)
    }

    /// Listens for TCP connections. Port 0 lets the system choose one: see [`Listener::local_addr`].
    ///
    /// # Errors
    /// When the system says so.
    pub fn listen(&self, address: impl ToSocketAddrs) -> Result<Listener> {
        let acceptor = TcpListener::bind(address).and_then(TcpAcceptor::new);
        self.serve(acceptor.map_err(|e| TransportError::io("listen for TCP", e))?)
    }

    /// Listens for connections to a Unix socket, which is made at `path` and removed when the listener ends.
    ///
    /// # Errors
    /// When the system says so.
    #[cfg(unix)]
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<Listener<PathBuf>> {
        let acceptor = UnixAcceptor::bind(path);
        self.serve(acceptor.map_err(|e| TransportError::io("listen on a Unix socket", e))?)
    }

    /// Serves the peers that an acceptor gives: what it listens on is up to it. The limits, the time for the first message, and
    /// how the listener ends are those of sockets.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn serve<A: Acceptor>(&self, acceptor: A) -> Result<Listener<A::Address>> {
        Listener::start(self.clone(), acceptor)
    }

    fn offer_to(&self, peer: &Peer) -> Client {
        match &self.offer {
            Offer::Nothing => Client::null(),
            Offer::One(client) => client.clone(),
            Offer::Each(factory) => {
                let (client, fulfiller) = Client::promise();
                let (factory, peer) = (factory.clone(), Foreign::new(peer.clone()));
                let run = move |thread: Result<(), Exception>| {
                    let made = thread
                        .map_err(Error::from)
                        .and_then(|()| catch_panic("the bootstrap factory", || factory(&peer)));
                    match made {
                        Ok(bootstrap) => fulfiller.fulfill(bootstrap),
                        Err(e) => fulfiller.reject(e),
                    }
                };
                self.pool.submit(Task::Run(Box::new(run)));
                client
            }
        }
    }
}

fn socket(transport: io::Result<Transport>) -> Result<Transport> {
    transport.map_err(|e| Error::Transport(TransportError::io("set up a socket", e)))
}

impl fmt::Debug for Vat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vat").field("limits", &self.limits).finish_non_exhaustive()
    }
}
