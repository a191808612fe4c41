//! Streaming calls: many in flight, as many as a window allows.

use std::fmt;

use capnp::any_pointer;
use capnp::traits::{Owned, SetterInput};
use capnp::MessageSize;

use super::request::{Filled, Request};
use super::window::{Patience, Window};
use crate::error::{Exception, Result};
use crate::sync::{Arc, Duration};

/// How many bytes of streaming calls are in flight by default: 1 MiB, about what the C++ implementation has on a
/// connection of TCP (there it is the size of the socket's buffer). A smaller window than what the callee can work
/// off while an answer is on its way makes sender and callee wait for each other by turns: see the guide.
pub const DEFAULT_WINDOW: usize = 1 << 20;

/// A window for streaming calls, mostly on one object: each call is sent ahead of the answers to those before
/// it, until more bytes of params are unanswered than the window has; then sending blocks.
///
/// The first failure is reported by the next [`send`](Self::send) and by [`finish`](Self::finish). Streaming
/// and other calls on the same client arrive in the order made. Any thread can share a stream. Threads that wait for room
/// get it in the order in which they came, and each is woken when it has it.
pub struct Stream {
    window: Arc<Window>,
    room_timeout: Option<Option<Duration>>,
}

impl Stream {
    /// A stream with the default window.
    pub fn new() -> Self {
        Self::with_window(DEFAULT_WINDOW)
    }

    /// A stream with a window of `bytes`, and the size of the largest call more. One call is always let through,
    /// however large.
    pub fn with_window(bytes: usize) -> Self {
        Stream { window: Window::new(bytes), room_timeout: None }
    }

    /// Sets for how long [`send`](Self::send) waits for room in the window. `None`: for as long as it takes.
    ///
    /// By default this is the [`Limits::room_timeout`](crate::Limits::room_timeout) of the connection that the call goes
    /// over, and 10 s where it goes over none: to an object of this vat, or a promise of this vat.
    #[must_use]
    pub fn room_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.room_timeout = Some(timeout.into());
        self
    }

    /// Sends a streaming call.
    ///
    /// # Blocking
    /// While the window is full, until answers have made room, for at most the [room timeout](Self::room_timeout) and
    /// [`Request::timeout`], which counts from here. The end of the connection ends the wait. And as [`Request::send`].
    ///
    /// # Errors
    /// The first failure of an earlier call of this stream. As `overloaded` if there was no room in time: other
    /// senders then find room or fail, at once, until half of the window is free. As [`Promise::wait`](crate::Promise::wait) if the wait
    /// itself fails.
    ///
    /// In each case the request is not sent. Only a failure of an earlier call is the stream's: after the others, the
    /// stream can be used as before, and the same call may be made again.
    pub fn send<P, R: 'static>(&self, mut request: Request<P, R>) -> Result<()> {
        let (bytes, deadline) = (request.size(), request.deadline());
        let room_timeout = self.room_timeout.unwrap_or_else(|| request.room_timeout());
        self.window.take_place(bytes, Patience { deadline, room_timeout })?;
        let window = self.window.clone();
        let promise = request.due(deadline).no_pipelining().send();
        window.reads(promise.reading());
        promise.on_ready(move |outcome| {
            window.answered(bytes, outcome.map(drop).map_err(Exception::from));
        });
        Ok(())
    }

    /// Waits until every call sent so far has been answered.
    ///
    /// # Blocking
    /// Until then, or until the connection has ended. As [`Promise::wait`](crate::Promise::wait) it has no limit of its
    /// own: [`finish_timeout`](Self::finish_timeout) has.
    ///
    /// # Errors
    /// The first failure of a call of this stream, which stays: a stream that failed has failed. As
    /// [`Promise::wait`](crate::Promise::wait) if the wait itself fails.
    pub fn finish(&self) -> Result<()> {
        self.window.wait_answers(None)
    }

    /// As [`finish`](Self::finish), for at most `timeout`.
    ///
    /// # Errors
    /// As there; and as `overloaded` if calls have not been answered by then. They go on, and the stream can be used
    /// and finished as before.
    pub fn finish_timeout(&self, timeout: Duration) -> Result<()> {
        self.window.wait_answers(Some(timeout))
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt(f)
    }
}

/// A call of a streaming method that has not been sent: fill in the params, then [`send`](Self::send).
pub struct StreamingRequest<P = any_pointer::Owned>(Request<P, ()>);

impl<P> StreamingRequest<P> {
    /// Sends the call within `stream`'s window: [`Stream::send`].
    ///
    /// # Blocking
    /// As there.
    ///
    /// # Errors
    /// As there.
    pub fn send(self, stream: &Stream) -> Result<()> {
        stream.send(self.0)
    }

    /// Has the call fail as `overloaded` unless it is answered in time: [`Request::timeout`]. The time that it waits for
    /// room in the window counts.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        StreamingRequest(self.0.timeout(timeout))
    }
}

impl<P: Owned> StreamingRequest<P> {
    /// The params, to be filled in.
    pub fn get(&mut self) -> P::Builder<'_> {
        self.0.get()
    }

    /// As [`get`](Self::get), with a hint of their size: [`Request::get_sized`].
    pub fn get_sized(&mut self, size_hint: MessageSize) -> P::Builder<'_> {
        self.0.get_sized(size_hint)
    }

    /// Copies the params from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set(&mut self, params: impl SetterInput<P>) -> Result<()> {
        self.0.set(params)
    }

    /// Fills the params in with `fill`, and sends the call: [`send`](Self::send).
    ///
    /// # Blocking
    /// As there.
    ///
    /// # Errors
    /// As there, and those of `fill`.
    pub fn send_with<F: Filled>(
        mut self,
        stream: &Stream,
        fill: impl FnOnce(P::Builder<'_>) -> F,
    ) -> Result<()> {
        fill(self.get()).into_result()?;
        self.send(stream)
    }
}

impl<P> From<Request<P, ()>> for StreamingRequest<P> {
    fn from(request: Request<P, ()>) -> Self {
        StreamingRequest(request)
    }
}

impl<P> fmt::Debug for StreamingRequest<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
