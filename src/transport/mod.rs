//! Transports: what moves whole messages between two vats.
//!
//! A [`Transport`] is two halves, a [`Sink`] and a [`Source`], and a handle that ends both.
//!
//! | made by | moves messages over |
//! | --- | --- |
//! | [`Transport::tcp`], [`Transport::unix`] | a socket |
//! | [`Transport::pair`], [`Transport::child`] | any reader and writer; a child process's stdin and stdout |
//! | [`Transport::in_memory`] | the memory of this process |
//! | [`Transport::traced`] | another transport, showing each message to a callback |
//!
//! # Adding a transport
//!
//! What every transport has to do is three functions: [`MessageSink::send`], [`MessageSource::receive`] and
//! [`Shutdown::shutdown`]. With these alone a connection's send thread sends, and its receive thread receives.
//! [`FrameReader`] and [`FrameWriter`] do the framing of a stream of bytes.
//!
//! A half that also works without waiting implements [`NonblockingSink`] or [`NonblockingSource`], and is put into the
//! transport as such ([`Sink::nonblocking`], [`Source::nonblocking`]). Then other threads may use it in the place of the
//! connection's own, which saves waking those: a caller sends its call itself, and reads its own answer. (Connections with
//! [`Threads::Strict`](crate::Threads::Strict) make no use of it, but for [`end_watch`](NonblockingSource::end_watch).)
//! What a source offers beyond [`receive_now`](NonblockingSource::receive_now) and [`is_ready`](NonblockingSource::is_ready)
//! is up to it:
//!
//! | the source has | so that |
//! | --- | --- |
//! | a [`Readiness`] | a thread that waits for an answer can wait for input in the receive thread's place |
//! | a [descriptor](NonblockingSource::descriptor) | one thread can wait for the input of many connections |
//! | an [`EndWatch`] | a peer that goes is noticed while its messages wait for a limit |
//!
//! ## What callers of a half promise
//!
//! - One thread at a time uses a half, but not always the same one. The two halves may be used at the same time.
//! - No lock of this crate is held. A panic is caught; it ends the connection.
//! - After an error of `send` or `send_now` neither is called again; after an error or the end of `receive` or
//!   `receive_now`, neither of those.
//!
//! ## What a nonblocking source promises
//!
//! Before a thread sleeps for lack of input, it asks [`is_ready`](NonblockingSource::is_ready). If that says no, the
//! thread relies on the readiness, or on the descriptor, to report the next message. Those see the system's buffer alone,
//! not the source's. So a message must never be in the source's own memory, whole, while `is_ready` says no: nothing
//! would report it. In the same way [`receive_now`](NonblockingSource::receive_now) may say
//! [`Arrived::Nothing`] only after the system has said that there is nothing more to read.
//!
//! - **A stream cipher** (TLS) has ciphertext or plaintext in its own memory when the descriptor is not readable. Its
//!   `is_ready` decrypts what it holds, and says yes if that makes a whole message. [`FrameReader::is_ready`] alone does not
//!   know of what the cipher holds. A cipher that has to write in order to read (a key update) may do so in `receive_now`, if
//!   it does not wait for it; the two halves then share a lock of their own. The handshake is done before the transport is
//!   made: see [`Acceptor`](crate::Acceptor).
//! - **A ring in shared memory** has no descriptor. Its readiness waits at whatever wakes it, and is ready while the ring
//!   has a message. Its `is_ready` says whether there is one.
//! - **A session over datagrams** puts messages together in `receive_now`, out of as many datagrams as it needs. If many
//!   sessions share a socket, none has a descriptor of its own, and each has a readiness that the reader of the socket wakes.
//!
//! [`DescriptorReadiness`] and [`DescriptorEndWatch`] are there for whatever has a descriptor (on Linux).
//!
//! ## Decorators
//!
//! A decorator (tracing, recording, faults) is one struct, generic over `S: MessageSource + ?Sized`, that holds a `Box<S>`. It
//! implements `MessageSource` for all of them, and `NonblockingSource` where `S: NonblockingSource + ?Sized`. It matches on the
//! [`Source`], and puts itself into the same variant: so it changes no path that messages take. [`Transport::traced`] does so.
//! A decorator that holds messages back must not forward the `NonblockingSource` as it is; it is a source of the first kind.

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
mod memory;
mod pair;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod readiness;

mod reader;
mod socket;
#[cfg(all(test, not(loom)))]
#[cfg_attr(shuttle, allow(unused_imports))]
mod testing;
mod trace;
mod writer;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
pub(crate) use epoll::Epoll;

pub use crate::peer::{Peer, PeerAddress, PeerCredentials};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use end_watch::DescriptorEndWatch;
pub use reader::FrameReader;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use readiness::DescriptorReadiness;
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
}

/// A half that can also send without waiting: on the thread of whoever has something to send.
pub trait NonblockingSink: MessageSink {
    /// Takes all messages of the batch without waiting for anything, and sends what the system takes now. False
    /// if something is left, which the next [`send`](MessageSink::send), of an empty batch perhaps, sends first.
    ///
    /// # Errors
    /// As [`send`](MessageSink::send).
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError>;
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

/// A half that can also receive without waiting. The [module](self) says what it promises.
pub trait NonblockingSource: MessageSource {
    /// As [`receive`](MessageSource::receive), but [`Arrived::Nothing`] where that would wait. What has arrived of a message
    /// is kept for the next call of either.
    ///
    /// # Errors
    /// As `receive`.
    fn receive_now(&mut self) -> Result<Arrived, TransportError>;

    /// Whether a whole message is at hand, which [`receive`](MessageSource::receive) will give without waiting.
    ///
    /// It must say yes if what was read from the system so far has a whole message in it. Beyond that it may read on, without
    /// waiting, where a message has begun. While it says yes, answers are held back to be sent together. So, while messages
    /// keep coming from the system, it says no from time to time.
    fn is_ready(&mut self) -> bool;

    /// Whether the last [`receive_now`](Self::receive_now) has emptied both the system's buffer and the source's. Then it
    /// is not called again before the descriptor has reported more. As provided: unknown, so no.
    fn is_drained(&self) -> bool {
        false
    }

    /// What threads wait at for this source, without holding it. Asked for at most once. As provided there is nothing, and
    /// only the receive thread waits, in [`receive`](MessageSource::receive) or at the descriptor.
    fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        None
    }

    /// What becomes readable when more arrives than [`receive_now`](Self::receive_now) has taken, or the source ends. It is
    /// always the same one. As provided there is none.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What sees the end of this source behind messages that nobody receives. Asked for when a message has to wait because
    /// a limit is reached, and again as long as there is none. As provided there is none: then such an end is noticed
    /// when there is room again, and the source is read up to it.
    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        None
    }

    /// Gives back memory that is kept for speed alone: nothing may be received for a while. Returns at once. As provided,
    /// nothing is kept.
    fn release_buffers(&mut self) {}
}

/// What [`NonblockingSource::receive_now`] gave.
pub enum Arrived {
    /// A message.
    Message(Frame),
    /// No whole message is there yet.
    Nothing,
    /// Nothing more will come.
    End,
}

/// Where threads wait for a [`NonblockingSource`], without holding it. While it is armed, the receive thread waits for
/// input, in [`wait_armed`](Self::wait_armed). While it is disarmed, one other thread may wait in its place, in
/// [`wait`](Self::wait).
pub trait Readiness: Send + Sync {
    /// Waits until it is armed and there is something to receive, or the source has ended; then it is disarmed. Returns
    /// early after a [`wake`](Self::wake), and may for no reason.
    fn wait_armed(&self);

    /// Has [`wait_armed`](Self::wait_armed) return when there is something to receive: at once if something is there already.
    fn arm(&self);

    /// Has `wait_armed` wait on, whatever arrives.
    fn disarm(&self);

    /// Waits until there is something to receive, the source has ended, [`wake`](Self::wake) was called,
    /// before or meanwhile, or the deadline has passed. May return for no reason.
    fn wait(&self, deadline: Option<Instant>);

    /// Ends both kinds of wait: one that is under way, or else the next. May be called on any thread; must not wait.
    fn wake(&self);
}

/// Sees the end of a [`NonblockingSource`], whether or not the messages in front of it have been received. Used by the
/// receive thread while it must not receive, since a limit is reached: what it waits for then is room, or this end.
pub trait EndWatch: Send + Sync {
    /// Whether the source has ended: the peer has closed its direction, or is gone, or the transport was shut down. If it
    /// says yes, [`receive`](MessageSource::receive) gives all that is left, and then the end, without waiting.
    fn has_ended(&self) -> bool;

    /// Waits until the source has ended, [`wake`](Self::wake) was called, before or meanwhile, or the deadline has passed.
    /// May return for no reason.
    fn wait_end(&self, deadline: Option<Instant>);

    /// Ends a wait that is under way, or else the next. May be called on any thread; must not wait.
    fn wake(&self);
}

/// The handle that ends a transport from another thread.
pub trait Shutdown: Send + Sync {
    /// Ends both directions, so that both halves return soon if the system can do that (a pipe can't: there
    /// the receiving half returns when the other end closes). Must not wait. May be called more than once.
    fn shutdown(&self);
}

/// A sending half, by what it can do.
pub enum Sink {
    /// It waits until the system takes what is sent.
    Blocking(Box<dyn MessageSink>),
    /// It can also send without waiting.
    Nonblocking(Box<dyn NonblockingSink>),
}

impl Sink {
    /// A half that waits until the system takes what is sent.
    pub fn blocking(sink: impl MessageSink + 'static) -> Self {
        Sink::Blocking(Box::new(sink))
    }

    /// A half that can also send without waiting.
    pub fn nonblocking(sink: impl NonblockingSink + 'static) -> Self {
        Sink::Nonblocking(Box::new(sink))
    }

    /// See [`MessageSink::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        match self {
            Sink::Blocking(sink) => sink.send(batch),
            Sink::Nonblocking(sink) => sink.send(batch),
        }
    }

    /// The half as one that sends without waiting, if it can.
    pub fn as_nonblocking(&mut self) -> Option<&mut dyn NonblockingSink> {
        match self {
            Sink::Blocking(_) => None,
            Sink::Nonblocking(sink) => Some(&mut **sink),
        }
    }
}

/// A receiving half, by what it can do.
pub enum Source {
    /// One thread waits for each message.
    Blocking(Box<dyn MessageSource>),
    /// It can also receive without waiting.
    Nonblocking(Box<dyn NonblockingSource>),
}

impl Source {
    /// A half for which one thread waits.
    pub fn blocking(source: impl MessageSource + 'static) -> Self {
        Source::Blocking(Box::new(source))
    }

    /// A half that can also receive without waiting.
    pub fn nonblocking(source: impl NonblockingSource + 'static) -> Self {
        Source::Nonblocking(Box::new(source))
    }

    /// See [`MessageSource::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        match self {
            Source::Blocking(source) => source.receive(),
            Source::Nonblocking(source) => source.receive(),
        }
    }

    /// The half as one that receives without waiting, if it can.
    pub fn as_nonblocking(&mut self) -> Option<&mut dyn NonblockingSource> {
        match self {
            Source::Blocking(_) => None,
            Source::Nonblocking(source) => Some(&mut **source),
        }
    }
}

/// A way to a peer.
pub struct Transport {
    /// The half that sends.
    pub sink: Sink,
    /// The half that receives.
    pub source: Source,
    /// Ends both.
    pub shutdown: Box<dyn Shutdown>,
    /// Who is at the other end.
    pub peer: Peer,
    /// How long the peer may take to send its first message, from the start of the connection: see
    /// [`expect_first_message_within`](Self::expect_first_message_within). `None`: for ever.
    pub first_message: Option<Duration>,
}

impl Transport {
    /// A transport of two halves and what ends both, whose peer may take its time.
    #[must_use]
    pub fn new(sink: Sink, source: Source, shutdown: impl Shutdown + 'static, peer: impl Into<Peer>) -> Self {
        Transport { sink, source, shutdown: Box::new(shutdown), peer: peer.into(), first_message: None }
    }

    /// The same transport, on which the peer must send its first message within `timeout` from when the connection is
    /// started. Otherwise the connection ends with [`TransportError::FirstMessageLate`].
    #[must_use]
    pub fn expect_first_message_within(mut self, timeout: Duration) -> Self {
        self.first_message = Some(timeout);
        self
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("peer", &self.peer).finish_non_exhaustive()
    }
}
