//! Transports: what moves whole messages between two vats.
//!
//! A [`Transport`] is two halves and a handle that ends both. Each half is used by one thread at a time: only the
//! send thread waits for output; the receive thread waits for input, or a thread that waits for an answer, in its
//! place, if the source has a [`Gate`].
//!
//! | made by | moves messages over |
//! | --- | --- |
//! | [`Transport::tcp`], [`Transport::unix`] | a socket |
//! | [`Transport::pair`], [`Transport::child`] | any reader and writer; a child process's stdin and stdout |
//! | [`Transport::in_memory`] | the memory of this process |
//! | [`Transport::traced`] | another transport, showing each message to a callback |
//!
//! For anything else, implement [`MessageSink`], [`MessageSource`] and [`Shutdown`]; [`FrameReader`] and
//! [`FrameWriter`] do the framing of a stream of bytes.

use std::fmt;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::error::TransportError;
use crate::sync::{Arc, Instant};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod ahead;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod end_watch;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod gate;
mod memory;
mod pair;

mod reader;
mod socket;
#[cfg(all(test, not(loom)))]
#[cfg_attr(shuttle, allow(unused_imports))]
mod testing;
mod trace;
mod writer;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
pub(crate) use epoll::Epoll;

pub use crate::peer::{Peer, PeerCredentials};
pub use reader::FrameReader;
pub use trace::{Direction, MessageKind, TraceEvent, TraceMessage, TraceOptions, Traced};
pub use writer::FrameWriter;

pub use crate::wire::frame::{Frame, Outbound};

/// The half that sends. Dropping it tells the peer, where the transport can, that nothing more will come.
pub trait MessageSink: Send {
    /// Sends all messages of the batch, in order.
    ///
    /// # Blocking
    /// Until the system has taken every byte, or the transport was shut down.
    ///
    /// # Errors
    /// When the system refuses. The connection ends; nothing more is sent.
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError>;

    /// Whether [`send_now`](Self::send_now) may be called. As provided: no.
    fn sends_now(&self) -> bool {
        false
    }

    /// Takes all messages of the batch without waiting for anything, and sends what the system takes now. False
    /// if something is left, which the next [`send`](Self::send), of an empty batch perhaps, sends first.
    ///
    /// May be called on any thread, by one at a time. Only called if [`sends_now`](Self::sends_now).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        self.send(batch).map(|()| true)
    }
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

    /// Whether a whole message has arrived that [`receive`](Self::receive) will give without waiting, as far as
    /// can be told without waiting: it may read on where a message has begun. While it says yes, answers are held back
    /// to be sent together; so, as long as messages keep coming, it says no from time to time. As provided: unknown,
    /// so no.
    fn is_ready(&mut self) -> bool {
        false
    }

    /// What lets threads take turns at waiting for this source, if that is possible. Asked for at most once. As
    /// provided, it is not: the receive thread alone waits, in [`receive`](Self::receive).
    fn gate(&mut self) -> Option<Arc<dyn Gate>> {
        None
    }

    /// Whether [`receive_now`](Self::receive_now) may be called now. As provided: not, unless there is a
    /// [`gate`](Self::gate).
    fn receives_now(&self) -> bool {
        false
    }

    /// As [`receive`](Self::receive), but [`Arrived::Nothing`] where that would wait. What has arrived of a message is
    /// kept for the next call of either. May be called on any thread, by one at a time; only if there is a
    /// [`gate`](Self::gate), or if [`receives_now`](Self::receives_now).
    ///
    /// # Errors
    /// As `receive`.
    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        self.receive().map(|received| received.map_or(Arrived::End, Arrived::Message))
    }

    /// What becomes readable when more arrives than [`receive_now`](Self::receive_now) has taken, or the source ends: one
    /// thread can wait for many of these. Only asked for if [`receives_now`](Self::receives_now). As provided there is
    /// none, and the receive thread waits in [`receive`](Self::receive).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether `receive_now` would only say that nothing is there, had nothing come since it was called last. As
    /// provided: unknown, so no.
    fn is_drained(&self) -> bool {
        false
    }

    /// What sees the end of this source behind messages that nobody receives. Asked for when a message has to wait because
    /// a limit is reached, and again as long as there is none. As provided there is none: then such an end is noticed
    /// when there is room again, and the source is read up to it.
    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        None
    }

    /// Nothing may be received for a while: what is kept for speed alone can be given back. Returns at once. As provided,
    /// nothing is kept.
    fn rest(&mut self) {}

    /// From now on the first message may take this long in all; then [`receive`](Self::receive) fails with
    /// [`TransportError::FirstMessageLate`]. Without effect once a message has come, and, as provided, on a
    /// source that can only wait forever.
    fn set_first_message_timeout(&mut self, timeout: Duration) {
        let _ = timeout;
    }
}

/// What [`MessageSource::receive_now`] gave.
pub enum Arrived {
    /// A message.
    Message(Frame),
    /// No whole message is there yet.
    Nothing,
    /// Nothing more will come.
    End,
}

/// Where threads wait for a [`MessageSource`], without holding it: the receive thread at the open gate, or, with the
/// gate shut, one other thread in its place.
pub trait Gate: Send + Sync {
    /// Waits until the gate is open and there is something to receive, or the source has ended; then the gate is
    /// shut. Returns early after an [`interrupt`](Self::interrupt), and may for no reason.
    fn wait_open(&self);

    /// Opens the gate: [`wait_open`](Self::wait_open) returns at once if something is there already.
    fn open(&self);

    /// Shuts the gate.
    fn shut(&self);

    /// Waits until there is something to receive, the source has ended, [`interrupt`](Self::interrupt) was called,
    /// before or meanwhile, or the deadline has passed. May return for no reason.
    fn wait(&self, deadline: Option<Instant>);

    /// Has whoever waits, in either way, return, or the next that does, if nobody does now.
    fn interrupt(&self);
}

/// Sees the end of a [`MessageSource`], whether or not the messages in front of it have been received. Used by the receive
/// thread while it must not receive, since a limit is reached: what it waits for then is room, or this end.
pub trait EndWatch: Send + Sync {
    /// Whether the source has ended: the peer has closed its direction, or is gone, or the transport was shut down. If it
    /// says yes, [`receive`](MessageSource::receive) gives all that is left, and then the end, without waiting.
    fn has_ended(&self) -> bool;

    /// Waits until the source has ended, [`wake`](Self::wake) was called, before or meanwhile, or the deadline has passed.
    /// May return for no reason.
    fn wait_end(&self, deadline: Option<Instant>);

    /// Has whoever waits return, or the next that does, if nobody does now. May be called on any thread; must not wait.
    fn wake(&self);
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

impl Transport {
    /// The same transport, on which the peer must send its first message within `timeout` from now, or
    /// receiving fails with [`TransportError::FirstMessageLate`]. Works for sockets and in memory; any other
    /// source goes on waiting unless it implements [`MessageSource::set_first_message_timeout`].
    #[must_use]
    pub fn expect_first_message_within(mut self, timeout: Duration) -> Self {
        self.source.set_first_message_timeout(timeout);
        self
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("peer", &self.peer).finish_non_exhaustive()
    }
}
