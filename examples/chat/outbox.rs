//! How a room speaks to one participant without ever waiting for it.
//!
//! Sending a call waits when its connection has too much outstanding already, as it would have to a participant
//! that does not read. If the room waited, one such participant would silence all. So in front of each stands
//! an object of our own, the [`Forward`]er: its mailbox is the queue, calls on it are put there at once, and it
//! is a thread of the pool that takes them out in order and does any waiting.
//!
//! A queue that only grows would be no better. The outbox counts what has not been heard; who has
//! [`MOST_UNHEARD`] of those is as good as gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use capnp_threads::{Call, Client, RemotePromise, Result, Server};

use crate::generated::chat_capnp::participant::receive_params;
use crate::interface::{begin, receive, RECEIVE};

/// How far a participant may lag behind.
const MOST_UNHEARD: usize = 256;

/// What waits to be heard by a participant.
pub struct Outbox {
    forward: Client,
    unheard: Arc<AtomicUsize>,
}

impl Outbox {
    pub fn new(participant: Client) -> Self {
        Outbox { forward: Client::new(Forward { participant }), unheard: Arc::default() }
    }

    /// Puts a text in, and returns at once; `None` if the participant lags behind too far. What is put in by
    /// threads that agree on an order, under a lock for example, is heard in that order.
    pub fn put(&self, from: &str, text: &str) -> Option<Delivery> {
        if self.unheard.fetch_add(1, Ordering::Relaxed) >= MOST_UNHEARD {
            return None;
        }
        Some(Delivery { answer: receive(&self.forward, from, text), unheard: self.unheard.clone() })
    }
}

/// A text on its way to a participant.
#[must_use = "dropping it takes the text back"]
pub struct Delivery {
    answer: RemotePromise,
    unheard: Arc<AtomicUsize>,
}

impl Delivery {
    /// Lets it go its way. If it can't be heard, `lost` is called: on a thread that must not wait, or right here
    /// if that is known by now. So no lock that `lost` takes may be held.
    pub fn or_else(self, lost: impl FnOnce() + Send + 'static) {
        let Delivery { answer, unheard } = self;
        answer.on_ready(move |heard| {
            unheard.fetch_sub(1, Ordering::Relaxed);
            if heard.is_err() {
                lost();
            }
        });
    }
}

/// Passes calls on to a participant, one at a time and in order.
struct Forward {
    participant: Client,
}

impl Server for Forward {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let mut request = begin(&self.participant, RECEIVE);
        request.get().set_as::<receive_params::Owned>(call.params_as::<receive_params::Reader>()?)?;
        // The participant's answer becomes the answer here. This waits for room to send, not for the answer.
        call.tail_call(request)
    }
}
