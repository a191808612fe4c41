//! The set of a listener's connections.

use std::collections::BTreeMap;

use crate::cap::port::ConnectionId;
use crate::conn::Connection;
use crate::sync::{foreign, Arc, Foreign};
use crate::transport::Shutdown;

/// The connections that are there, and the handshakes that are to become some. Each counts once towards the limit.
#[derive(Default)]
pub(super) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    pending: BTreeMap<Pending, Arc<HandshakeEnd>>,
    /// How many handshakes there have been.
    begun: u64,
}

/// Names a handshake. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pending(u64);

/// What ends a handshake from another thread.
pub(super) struct HandshakeEnd(Foreign<Box<dyn Shutdown>>);

impl HandshakeEnd {
    pub(super) fn new(shutdown: Box<dyn Shutdown>) -> Arc<Self> {
        Arc::new(HandshakeEnd(Foreign::new(shutdown)))
    }

    pub(super) fn shut_down(&self) {
        foreign("the end of a handshake", || self.0.shutdown());
    }
}

impl Connections {
    /// How many there are, those that are to become some included.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.pending.len()
    }

    /// Those that are there.
    pub(super) fn open(&self) -> Vec<Connection> {
        self.open.values().cloned().collect()
    }

    /// A handshake has begun.
    pub(super) fn begin(&mut self, end: Arc<HandshakeEnd>) -> Pending {
        let pending = Pending(self.begun);
        self.begun += 1;
        self.pending.insert(pending, end);
        pending
    }

    /// A handshake has ended without a connection.
    pub(super) fn fail(&mut self, pending: Pending) -> Option<Arc<HandshakeEnd>> {
        self.pending.remove(&pending)
    }

    /// A connection is there; it takes the place of the handshake that it came from.
    pub(super) fn insert(
        &mut self,
        connection: Connection,
        from: Option<Pending>,
    ) -> Option<Arc<HandshakeEnd>> {
        self.open.insert(connection.id(), connection);
        self.pending.remove(&from?)
    }

    /// A connection has ended.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.open.remove(&id)
    }

    /// The handshakes, which are to be ended.
    pub(super) fn pending(&self) -> Vec<Arc<HandshakeEnd>> {
        self.pending.values().cloned().collect()
    }

    /// Takes the connections out, which are to be ended.
    pub(super) fn take_open(&mut self) -> BTreeMap<ConnectionId, Connection> {
        std::mem::take(&mut self.open)
    }
}
