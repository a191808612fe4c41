//! Streaming calls: many in flight, as many as a window allows.

use std::fmt;

use super::client::Client;
use super::request::Request;
use crate::error::{Error, Exception, Result};
use crate::promise::{cancel, enter_blocking};
use crate::sync::{Arc, Condvar, Mutex, Rank};

/// How many bytes of streaming calls are in flight by default: what the C++ implementation starts with.
pub const DEFAULT_WINDOW: usize = 64 << 10;

/// A window for streaming calls on one object: each call is sent ahead of the answers to those before it,
/// until more bytes of params are unanswered than the window has; then sending blocks.
///
/// The first failure is reported by the next [`send`](Self::send) and by [`finish`](Self::finish). Streaming
/// and other calls on the same client arrive in the order made.
pub struct Stream {
    client: Client,
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
    /// A stream of calls on `client` with the default window.
    pub fn new(client: Client) -> Self {
        Self::with_window(client, DEFAULT_WINDOW)
    }

    /// A stream with a window of `bytes`, and the size of the largest call more. One call is always let through,
    /// however large.
    pub fn with_window(client: Client, bytes: usize) -> Self {
        let state = Flow { in_flight: 0, largest: 0, calls: 0, failed: None };
        let shared = Shared { state: Mutex::new(Rank::Promise, state), changed: Condvar::new() };
        Stream { client, window: bytes, shared: Arc::new(shared) }
    }

    /// The object that is called.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a streaming call on the object.
    pub fn request(&self, interface_id: u64, method_id: u16) -> Request {
        self.client.request(interface_id, method_id)
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
    pub fn send(&self, mut request: Request) -> Result<()> {
        let bytes = request.get().target_size().map_or(0, |size| size.word_count as usize * 8);
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

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.shared.state.lock();
        write!(f, "Stream({} calls, {} bytes of {})", flow.calls, flow.in_flight, self.window)
    }
}
