//! What a transaction wants done outside the lock.
//!
//! ```text
//! Note [Effects run after unlock]
//! ===============================
//! A transaction changes the tables and nothing else. What it wants done beyond them it writes down here:
//! messages to send, callbacks to run, values to drop. At its commit, still under the lock, the messages and
//! callbacks are appended to the connection's queues, so that the order of the queues is the order of the
//! commits. The values are dropped after the lock is released, because dropping a client may drop a user's
//! object, whose `drop` is foreign code. A panic in debug builds tells where that was forgotten: an object
//! that is dropped under a lock, and a lock taken out of order (Note [Lock order]).
//! ```

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use super::cost;
use super::garbage::{Discard, Garbage};
use crate::cap::answer::Pipeline;
use crate::cap::call::{CallInfo, Responder};
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{AnswerKey, RemoteTarget, TableEvent};
use crate::cap::promised::PromiseCell;
use crate::cap::watchers::{Watcher, Watchers};
use crate::error::Exception;
use crate::id::ExportId;
use crate::promise::{Attachment, Cancel};
use crate::sync::{per_thread, Arc};
use crate::wire::content::Content;
use crate::wire::message::{Message, Outcome, Outgoing, PeerEmbargoId, Resolution, Resolve};

/// What a transaction wants done. See Note [Effects run after unlock].
pub(crate) struct Effects(Box<Lists>);

/// What is to be done.
#[derive(Default)]
pub(crate) struct Lists {
    pub(crate) send: Vec<QueuedMessage>,
    pub(crate) callbacks: Vec<Callback>,
    pub(crate) garbage: Garbage,
    /// Empty: memory for the notices that the transaction looks at.
    pub(crate) notices: Vec<TableEvent>,
}

per_thread! {
    /// Lists that have been seen to: their memory is used again.
    static SPARE: Cell<Option<Box<Lists>>> = Cell::new(None);
}

impl Default for Effects {
    fn default() -> Self {
        Effects(SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default())
    }
}

impl Deref for Effects {
    type Target = Lists;

    fn deref(&self) -> &Lists {
        &self.0
    }
}

impl DerefMut for Effects {
    fn deref_mut(&mut self) -> &mut Lists {
        &mut self.0
    }
}

impl Effects {
    /// Has been seen to: what is left in it is dropped.
    pub(crate) fn finish(self) {
        let Effects(mut lists) = self;
        lists.send.clear();
        lists.callbacks.clear();
        lists.garbage.clear();
        /// More than a transaction that concerns few has done, or leaves.
        const MANY: usize = 64;
        let Lists { send, callbacks, garbage, notices } = &*lists;
        let capacities = [send.capacity(), callbacks.capacity(), garbage.capacity(), notices.capacity()];
        if capacities.iter().all(|capacity| *capacity <= MANY) {
            // At the end of a thread there is no place for them.
            let _ = SPARE.try_with(|spare| spare.set(Some(lists)));
        }
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.send.is_empty() && self.callbacks.is_empty() && self.garbage.is_empty()
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: Message<Outgoing>) {
        self.send_on(message, None);
    }

    /// Sends a call that goes on, with its share of the limit on incoming calls.
    pub(crate) fn send_on(&mut self, message: Message<Outgoing>, share: Option<Arc<dyn Attachment>>) {
        let (bytes, held) = estimate(&message);
        self.send.push(QueuedMessage { message, share, bytes, held });
        fault_point();
    }

    /// Has the callback thread do something.
    pub(crate) fn later(&mut self, callback: Callback) {
        self.callbacks.push(callback);
        fault_point();
    }

    /// Drops something once the lock is released.
    pub(crate) fn discard(&mut self, waste: impl Discard) {
        waste.discard(&mut self.garbage);
        fault_point();
    }
}

/// Where a test may have a transaction panic.
fn fault_point() {
    #[cfg(all(test, not(any(shuttle, loom))))]
    crate::sync::fault::point();
}

/// A message to be sent.
pub(crate) struct QueuedMessage {
    pub(crate) message: Message<Outgoing>,
    /// Given back once it is sent.
    pub(crate) share: Option<Arc<dyn Attachment>>,
    /// About how many bytes it is when it is sent. Exact sizes are known only when it is encoded.
    pub(crate) bytes: usize,
    /// How many bytes of memory it takes while it waits.
    pub(crate) held: usize,
}

/// About how many bytes a message is, and how many it takes while it waits.
fn estimate(message: &Message<Outgoing>) -> (usize, usize) {
    const HEADER: usize = 128;
    let (bytes, held) = match message {
        Message::Call(call) => size(&call.params.content),
        Message::Return(ret) => match &ret.outcome {
            Outcome::Results(results) => size(&results.content),
            Outcome::Exception(why) => (why.bytes(), why.bytes()),
            _ => (0, 0),
        },
        Message::Resolve(Resolve { to: Resolution::Exception(why), .. }) => (why.bytes(), why.bytes()),
        Message::Unimplemented(whole) => (whole.words() * 8, whole.words() * 8 + cost::RECEIVED),
        _ => (0, 0),
    };
    (HEADER + bytes, cost::MESSAGE + held)
}

fn size(content: &Content) -> (usize, usize) {
    (content.words() * 8, content.words_held() * 8)
}

/// Something for the callback thread to do, with no lock held, in the order of the queue.
///
/// ```text
/// Note [Order across callbacks]
/// =============================
/// Every call of the peer's is handed to its object by the callback thread, and where it goes is decided
/// when its message is handled, or, for a call on an answer that has yet to come, when that comes. So calls
/// reach their objects in the order in which those decisions were made, which is what a peer can rely on:
/// a call on a promised answer that arrived before the answer was given is handed on before any that
/// arrived after it, on the answer or on the capability in it. Embargo echoes take the same queue, and so
/// come after all calls that came before them.
///
/// A promise of ours for a capability in an answer that has yet to come is resolved behind the calls on that
/// answer which came before the promise was made, and ahead of those which came later: calls of one reference may
/// wait in the promise first, and then come to the answer by way of the peer. Where they come back by way of the
/// peer first, there is an embargo, and the promise is made when that ends (Note [Named by the peer]).
/// ```
#[derive(Debug)]
pub(crate) enum Callback {
    /// Hand a call on.
    Deliver { call: CallInfo, to: Destination },
    /// Give a question's outcome to whoever asked.
    Respond { responder: Responder, outcome: Result<Payload, Exception> },
    /// Say what a promise of ours is.
    Resolve { cell: Arc<PromiseCell>, to: Destination },
    /// Tell those who watch a promise of the peer's what it became.
    Tell { watchers: Watchers, client: Client },
    /// Watch a promise.
    Watch { client: Client, watcher: Watcher },
    /// Send a Disembargo back.
    Echo { embargo: PeerEmbargoId, to: RemoteTarget },
    /// Cancel a call of the peer's.
    Cancel { key: AnswerKey, token: Cancel, after_start: bool },
    /// Take back references that results gave to the peer.
    Release(Vec<ExportId>),
    /// Look at something that changed outside.
    TableEvent(TableEvent),
    /// Drop what may hold objects of users'.
    Discard(Garbage),
}

/// Where a call that arrived goes.
///
/// ```text
/// Note [Tribble]
/// ==============
/// Once we have told the peer, by a Resolve or a Return, that a promise P of ours is R, whatever still
/// arrives addressed to P goes to R for ever, even if R resolves further: the peer orders what it sends to
/// the two by that. Where R is hosted by the peer, calls to P must be reflected there, and its Disembargo
/// after them on the same way. So that moment fixes the destination as `Reflect`: a place in the peer, not a
/// client that would follow R's own resolution. For an R that is here or behind another connection, following
/// is harmless: all that arrives for P and for R takes the same client, in order.
///
/// Whatever in this vat gets to hold P because the peer has named it (`receiverHosted`, `receiverAnswer`), which
/// it may do before it has seen the Resolve or Return, has to stay behind the calls that arrive for P: see
/// Note [Named by the peer].
/// ```
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To a client, and on with it if it is resolved.
    Client(Client),
    /// Back to the peer, to this very place.
    Reflect(RemoteTarget),
    /// To a capability that a method has said will be in its results.
    Pipeline(Pipeline),
}
