//! What a listener serves: where peers come from, and how what they need before their first message is done.

use std::fmt;

use crate::error::Result;
use crate::limits::Limits;
use crate::sync::Foreign;
use crate::transport::{Shutdown, Transport};

/// Where peers come from: a socket that listens ([`TcpAcceptor`](crate::TcpAcceptor),
/// [`UnixAcceptor`](crate::UnixAcceptor)), or anything that is made outside of this crate. [`Vat::serve`](crate::Vat::serve)
/// makes a [`Listener`](crate::Listener) of it.
///
/// The listener calls [`local_addr`](Self::local_addr) and [`stop`](Self::stop) once, at the beginning. Then a thread of its
/// own calls [`accept`](Self::accept) again and again, while fewer than [`Limits::connections`] of its connections are there.
/// When the listener ends, it uses the handle that `stop` gave, waits until `accept` returns, and drops the acceptor. So
/// none of these may close or drop the listener: it would wait for itself.
pub trait Acceptor: Send + 'static {
    /// What is listened on, for [`Listener::local_addr`](crate::Listener::local_addr).
    type Address: Clone + fmt::Debug + Send + Sync + 'static;

    /// What is listened on.
    fn local_addr(&self) -> Self::Address;

    /// What has [`accept`](Self::accept) return `None`, now and from then on, when it is used by another thread. It may be
    /// used before, during, and after an `accept`.
    fn stop(&self) -> Box<dyn Shutdown>;

    /// The next peer, for a connection with these limits; `None` if there will be no more.
    ///
    /// # Blocking
    /// Until a peer has come. It must not wait for anything that a peer does after that, or that one peer would keep all
    /// others from being accepted: what has to be done before there is a transport (a handshake) is returned as
    /// [`Accepted::pending`].
    ///
    /// # Errors
    /// If this one peer could not be accepted. That is logged, as is a panic; the listener accepts again within 100 ms.
    fn accept(&mut self, limits: &Limits) -> Result<Option<Accepted>>;
}

/// A peer that an [`Acceptor`] has accepted: a [`Transport`], or what has to be done before there is one.
pub struct Accepted(pub(super) Foreign<Kind>);

pub(super) enum Kind {
    Ready(Transport),
    Pending(Handshake),
}

/// What has to be done before there is a transport.
pub(super) struct Handshake {
    pub(super) complete: Box<dyn FnOnce() -> Result<Transport> + Send>,
    pub(super) shutdown: Box<dyn Shutdown>,
}

impl Accepted {
    /// A peer with which `handshake` makes a transport. It runs on a thread of its own, and may wait for the peer. `shutdown`
    /// has it fail, soon, if the listener ends, or if it takes longer than [`Limits::first_message`]; what is left of that
    /// time then is for the first message.
    ///
    /// Until the handshake is done the peer counts towards [`Limits::connections`]. If it fails or panics, that is logged.
    pub fn pending(
        handshake: impl FnOnce() -> Result<Transport> + Send + 'static,
        shutdown: impl Shutdown + 'static,
    ) -> Self {
        let (complete, shutdown) = (Box::new(handshake), Box::new(shutdown));
        Accepted(Foreign::new(Kind::Pending(Handshake { complete, shutdown })))
    }
}

/// A peer with which nothing has to be done.
impl From<Transport> for Accepted {
    fn from(transport: Transport) -> Self {
        Accepted(Foreign::new(Kind::Ready(transport)))
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Ready(transport) => f.debug_tuple("Accepted").field(transport).finish(),
            Kind::Pending(_) => f.write_str("Accepted(pending)"),
        }
    }
}
