//! Transports: what moves whole messages between two vats.
//!
//! A [`Transport`] is two halves and a handle that ends both. The halves are used by one thread each: the
//! send thread alone waits for output, the receive thread alone waits for input.

use std::fmt;

use crate::error::TransportError;
use crate::wire::frame::{Frame, Outbound};

/// The half that sends.
pub trait MessageSink: Send {
    /// Sends all messages of the batch, in order.
    ///
    /// # Blocking
    /// Until the system has taken every byte, or the transport was shut down.
    ///
    /// # Errors
    /// When the system refuses. The connection ends; nothing more is sent.
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError>;
}

/// The half that receives.
pub trait MessageSource: Send {
    /// The next message, or `None` once the peer has ended the stream between two messages.
    ///
    /// # Blocking
    /// Until a whole message has arrived, the stream has ended, or the transport was shut down.
    ///
    /// # Errors
    /// When the system refuses, the stream ends inside a message, or the bytes are no message.
    fn receive(&mut self) -> Result<Option<Frame>, TransportError>;
}

/// The handle that ends a transport from another thread.
pub trait Shutdown: Send + Sync {
    /// Ends both directions, so that both halves return soon if the system can do that (a pipe can't: there
    /// the receiving half returns when the other end closes). May be called more than once.
    fn shutdown(&self);
}

/// A way to a peer.
pub struct Transport {
    /// The half that sends.
    pub sink: Box<dyn MessageSink>,
    /// The half that receives.
    pub source: Box<dyn MessageSource>,
    /// Ends both.
    pub shutdown: Box<dyn Shutdown>,
    /// Who is at the other end.
    pub peer: Peer,
}
