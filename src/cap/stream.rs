//! Streaming calls: many in flight, as many as a window allows.

use std::fmt;

use capnp::any_pointer;
use capnp::traits::{Owned, SetterInput};
use capnp::MessageSize;

use super::request::{Filled, Request};
use crate::error::{Error, Exception, Result};
use crate::promise::{cancel, enter_blocking};
use crate::sync::{Arc, Condvar, Duration, Mutex, Rank};

/// How many bytes of streaming calls are in flight by default: what the C++ implementation starts with.
pub const DEFAULT_WINDOW: usize = 64 << 10;

/// A window for streaming calls, mostly on one object: each call is sent ahead of the answers to those before
/// it, until more bytes of params are unanswered than the window has; then sending blocks.
///
/// The first failure is reported by the next [`send`](Self::send) and by [`finish`](Self::finish). Streaming
/// and other calls on the same client arrive in the order made. Any thread can share a stream.
pub struct Stream {
    window: usize,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Flow>,
    changed: Condvar,
}

struct Flow {
    /// Bytes sent and not answered.
    in_flight: usize,
    /// The largest call so far, which the window is widened by, as in C++: else calls of its size would go one
    /// by one.
    largest: usize,
    calls: usize,
    failed: Option<Exception>,
}

impl Stream {
    /// A stream with the default window.
    pub fn new() -> Self {
        Self::with_window(DEFAULT_WINDOW)
    }

    /// A stream with a window of `bytes`, and the size of the largest call more. One call is always let through,
    /// however large.
    pub fn with_window(bytes: usize) -> Self {
        let state = Flow { in_flight: 0, largest: 0, calls: 0, failed: None };
        let shared = Shared { state: Mutex::new(Rank::Promise, state), changed: Condvar::new() };
        Stream { window: bytes, shared: Arc::new(shared) }
    }

    /// Sends a streaming call.
    ///
    /// # Blocking
    /// While the window is full, until answers have made room; the end of the connection ends the wait. And
    /// as [`Request::send`].
    ///
    /// # Errors
    /// The first failure of an earlier call of this stream; the request is not sent then. As
    /// [`Promise::wait`](crate::Promise::wait) if the wait itself fails.
    pub fn send<P, R: 'static>(&self, mut request: Request<P, R>) -> Result<()> {
        let bytes = request.size();
        self.wait(|flow| flow.calls == 0 || flow.in_flight <= self.window.saturating_add(flow.largest))?;
        let mut flow = self.shared.state.lock();
        flow.in_flight += bytes;
        flow.largest = flow.largest.max(bytes);
        flow.calls += 1;
        drop(flow);
        let shared = self.shared.clone();
        request.no_pipelining().send().on_ready(move |outcome| {
            let mut flow = shared.state.lock();
            flow.in_flight -= bytes;
            flow.calls -= 1;
            if let Err(e) = outcome {
                flow.failed.get_or_insert(e.into());
            }
            drop(flow);
            shared.changed.notify_all();
        });
        Ok(())
    }

    /// Waits until every call sent so far has been answered.
    ///
    /// # Blocking
    /// Until then, or until the connection has ended.
    ///
    /// # Errors
    /// The first failure of a call of this stream, which stays: a stream that failed has failed.
    pub fn finish(&self) -> Result<()> {
        self.wait(|flow| flow.calls == 0)?;
        match &self.shared.state.lock().failed {
            Some(why) => Err(why.clone().into()),
            None => Ok(()),
        }
    }

    fn wait(&self, enough: impl Fn(&Flow) -> bool) -> Result<()> {
        let ready = |flow: &Flow| match &flow.failed {
            Some(why) => Some(Err(Error::from(why.clone()))),
            None => enough(flow).then_some(Ok(())),
        };
        if let Some(result) = ready(&self.shared.state.lock()) {
            return result;
        }
        let _asleep = enter_blocking()?;
        let current = cancel::current();
        let _watch = current.as_ref().map(|c| {
            let shared = self.shared.clone();
            c.watch_while(move || {
                drop(shared.state.lock());
                shared.changed.notify_all();
            })
        });
        let mut flow = self.shared.state.lock();
        loop {
            if let Some(result) = ready(&flow) {
                return result;
            }
            if current.as_ref().is_some_and(|c| c.is_canceled()) {
                return Err(cancel::canceled().into());
            }
            self.shared.changed.wait(&mut flow);
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.shared.state.lock();
        write!(f, "Stream({} calls, {} bytes of {})", flow.calls, flow.in_flight, self.window)
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

    /// Has the call fail as `overloaded` unless it is answered in time: [`Request::timeout`].
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
