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

use capnp_threads::{Capability, RemotePromise, Result};

use crate::generated::chat_capnp::participant::{self, receive_results};

/// How far a participant may lag behind.
const MOST_UNHEARD: usize = 256;

/// What waits to be heard by a participant.
pub struct Outbox {
    forward: participant::Client,
    unheard: Arc<AtomicUsize>,
}

impl Outbox {
    pub fn new(participant: participant::Client) -> Self {
        let forward = participant::Client::new(Forward { participant });
        Outbox { forward, unheard: Arc::default() }
    }

    /// Puts a text in, and returns at once; `None` if the participant lags behind too far. What is put in by
    /// threads that agree on an order, under a lock for example, is heard in that order.
    pub fn put(&self, from: &str, text: &str) -> Option<Delivery> {
        if self.unheard.fetch_add(1, Ordering::Relaxed) >= MOST_UNHEARD {
            return None;
        }
        let answer = self.forward.receive(|mut params| {
            params.set_from(from);
            params.set_text(text);
        });
        Some(Delivery { answer, unheard: self.unheard.clone() })
    }
}

/// A text on its way to a participant.
#[must_use = "dropping it takes the text back"]
pub struct Delivery {
    answer: RemotePromise<receive_results::Owned>,
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
    participant: participant::Client,
}

impl participant::Server for Forward {
    fn receive(
        &self,
        params: participant::ReceiveParams,
        results: participant::ReceiveResults,
    ) -> Result<()> {
        let mut request = self.participant.receive_request();
        request.set(params.get()?)?;
        // The participant's answer becomes the answer here. This waits for room to send, not for the answer.
        results.tail_call(request)
    }
}
