//! The four stages: what a connection's threads do, one step at a time.
//!
//! A step takes from the queue in front, does one thing, and puts into the queues behind. A dedicated thread
//! drives each stage step by step; a test or a model checker can drive them in any order instead.

use std::panic::{catch_unwind, AssertUnwindSafe};

use super::flow::Share;
use super::shared::{Incoming, Queued, Shared};
use crate::cap::call::{CallInfo, Mode};
use crate::cap::port::Notice;
use crate::error::{Error, Exception, ProtocolError, TransportError};
use crate::promise::Attachment;
use crate::state::{Arrival, Callback, Destination};
use crate::sync::{self, Arc, Instant, Pop};
use crate::transport::{MessageSink, MessageSource};
use crate::wire::content::Received;
use crate::wire::decode::decode;
use crate::wire::encode::encode;
use crate::wire::message::Message;

/// Whether a step waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something.
    Made,
    /// Nothing: there is nothing to do now.
    Idle,
    /// Nothing, and there never will be.
    Ended,
}

/// Takes steps until there will never be another. A panic in one ends the connection, and the stage goes on to
/// its end in order: those who wait for it must hear.
pub(super) fn drive(shared: &Arc<Shared>, mut step: impl FnMut(Wait) -> Progress) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| step(Wait::Yes))) {
            Ok(Progress::Ended) => return,
            Ok(Progress::Made | Progress::Idle) => {}
            Err(_) => {
                let why = Exception::failed("a thread of the connection panicked");
                shared.end(Error::Exception(why), true);
            }
        }
    }
}

/// The four stages of a connection.
pub(crate) struct Stages {
    pub(crate) send: SendStage,
    pub(crate) receive: ReceiveStage,
    pub(crate) coordinator: CoordinatorStage,
    pub(crate) callback: CallbackStage,
}

impl Stages {
    pub(super) fn new(
        shared: &Arc<Shared>,
        sink: Box<dyn MessageSink>,
        source: Box<dyn MessageSource>,
    ) -> Self {
        Stages {
            send: SendStage { shared: shared.clone(), sink, failed: None },
            receive: ReceiveStage { shared: shared.clone(), source },
            coordinator: CoordinatorStage { shared: shared.clone() },
            callback: CallbackStage { shared: shared.clone() },
        }
    }
}

/// Writes what is queued.
pub(crate) struct SendStage {
    shared: Arc<Shared>,
    sink: Box<dyn MessageSink>,
    /// Why nothing more can be sent, and until when what has arrived may say more about it.
    failed: Option<(TransportError, Instant)>,
}

impl SendStage {
    /// Sends all that is queued, as one batch.
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        if let Some((why, until)) = &self.failed {
            return self.discard(why.clone(), *until, wait);
        }
        if wait == Wait::No && self.shared.outgoing.len() == 0 {
            return Progress::Idle;
        }
        let Some(batch) = self.shared.outgoing.pop_all() else { return Progress::Ended };
        let mut bytes = 0;
        let mut messages = Vec::with_capacity(batch.len());
        let mut shares = Vec::new();
        for Queued { departure, bytes: counted } in batch {
            bytes += counted;
            shares.extend(departure.share);
            match encode(departure.message) {
                Ok(message) => messages.push(message),
                // Contents were checked before they were queued: see `Content::prepare`.
                Err(e) => {
                    let context = "a message that was queued can't be encoded";
                    self.shared.end(e.with_context(context).into(), true);
                }
            }
        }
        let sent = self.sink.send(&messages);
        drop((messages, shares));
        self.shared.sent(bytes);
        if let Err(e) = sent {
            self.failed = Some((e, sync::deadline(self.shared.limits.linger)));
        }
        Progress::Made
    }

    /// Drops what can't be sent, until the receive thread finds the end too. See Note [Shutdown].
    fn discard(&self, why: TransportError, until: Instant, wait: Wait) -> Progress {
        let next = match wait {
            Wait::Yes => self.shared.outgoing.pop(Some(until)),
            Wait::No => self.shared.outgoing.try_pop(),
        };
        match next {
            Pop::Item(queued) => self.shared.sent(queued.bytes),
            Pop::Empty if wait == Wait::No => return Progress::Idle,
            Pop::Empty => self.shared.end(why.into(), false),
            Pop::Closed => return Progress::Ended,
        }
        Progress::Made
    }
}

/// Reads what arrives.
pub(crate) struct ReceiveStage {
    shared: Arc<Shared>,
    source: Box<dyn MessageSource>,
}

impl ReceiveStage {
    /// Receives one message, once there is room for it.
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        if wait == Wait::No && !self.shared.flow.may_read() {
            return Progress::Idle;
        }
        if !self.shared.flow.admit() {
            return Progress::Ended;
        }
        let frame = match self.source.receive() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let gone = Exception::disconnected("the peer has closed the connection");
                return self.end(Error::Exception(gone));
            }
            Err(e) => return self.end(e.into()),
        };
        let (words, limit) = (frame.words() as u64, self.shared.limits.message_words as u64);
        if words > limit {
            // A transport of bytes has seen to it before; others need not know of limits.
            return self.end(TransportError::TooLarge { words, limit }.into());
        }
        let received = Arc::new(Received::new(frame, &self.shared.limits));
        let share = self.shared.flow.serve(received.words());
        match self.shared.incoming.push(Incoming::Message(received, share)) {
            Ok(()) => Progress::Made,
            Err(_) => Progress::Ended,
        }
    }

    /// Nothing more will come. See Note [Shutdown].
    fn end(&self, why: Error) -> Progress {
        // If the queue is closed, the connection has ended before.
        let _ = self.shared.incoming.push(Incoming::End(why));
        Progress::Ended
    }
}

/// Handles what was read: one transaction for each message.
pub(crate) struct CoordinatorStage {
    shared: Arc<Shared>,
}

impl CoordinatorStage {
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let next = match wait {
            Wait::Yes => self.shared.incoming.pop(None),
            Wait::No => self.shared.incoming.try_pop(),
        };
        match next {
            Pop::Item(Incoming::Message(received, share)) => {
                if let Err(e) = self.handle(received, share) {
                    self.shared.end(e.into(), true);
                }
                Progress::Made
            }
            Pop::Item(Incoming::End(why)) => {
                self.shared.end(why, false);
                Progress::Made
            }
            Pop::Empty => Progress::Idle,
            Pop::Closed => Progress::Ended,
        }
    }

    fn handle(&self, received: Arc<Received>, share: Share) -> Result<(), ProtocolError> {
        let message = decode(received)?;
        if let Message::Abort(why) = message {
            self.shared.end(Error::Exception(why.with_context("the peer aborted")), false);
            return Ok(());
        }
        if let Message::Call(call) = &message {
            // Kept results are for a question of ours: see Note [Backpressure].
            if self.shared.flow.refuses_calls() && !call.keep_results {
                let question = call.question;
                return self.shared.try_transact(|state, fx| state.refuse_call(question, fx));
            }
        }
        // Only calls stay in service; anything else is done when this returns.
        let is_call = matches!(message, Message::Call(_));
        let share = is_call.then(|| Arc::new(share) as Arc<dyn Attachment>);
        let arrival = Arrival { message, share };
        self.shared.try_transact(|state, fx| state.receive(arrival, fx))
    }
}

/// Does what transactions left to be done outside the lock, in the order of their commits.
pub(crate) struct CallbackStage {
    shared: Arc<Shared>,
}

impl CallbackStage {
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let next = match wait {
            Wait::Yes => self.shared.callbacks.pop(None),
            Wait::No => self.shared.callbacks.try_pop(),
        };
        match next {
            Pop::Item(callback) => {
                self.run(callback);
                Progress::Made
            }
            Pop::Empty => Progress::Idle,
            Pop::Closed => Progress::Ended,
        }
    }

    fn run(&self, callback: Callback) {
        match callback {
            Callback::Deliver { call, to } => self.deliver(call, to),
            Callback::Respond { responder, outcome } => responder.answer(outcome),
            Callback::Resolve { cell, to } => cell.resolve(to.client()),
            Callback::Tell { watchers, client } => watchers.iter().for_each(|w| w.resolved(&client)),
            Callback::Watch { client, watcher } => client.watch(watcher),
            Callback::Echo { embargo, to } => {
                self.shared.transact(|state, fx| state.send_echo(embargo, &to, fx));
            }
            Callback::Cancel { key, token, after_start } => {
                let shared = self.shared.clone();
                token.on_cancel(move || shared.post(Notice::AnswerCanceled(key)));
                token.cancel(after_start);
            }
            Callback::Release(exports) => {
                // A peer that released them twice has broken the protocol.
                let released = self.shared.try_transact(|state, fx| state.release_exports(&exports, fx));
                if let Err(e) = released {
                    self.shared.end(e.into(), true);
                }
            }
            Callback::Notice(Notice::Unused) => {
                let why = Exception::disconnected("nobody uses the connection any more");
                self.shared.end(Error::Exception(why), false);
            }
            Callback::Notice(notice) => self.shared.transact(|state, fx| state.notice(notice, fx)),
        }
    }

    /// Hands a call on. See Note [Order across callbacks].
    fn deliver(&self, call: CallInfo, to: Destination) {
        if let Some(why) = self.shared.why_ended() {
            return call.fail(why);
        }
        match to {
            Destination::Client(client) => client.deliver(call, Mode::Queue),
            Destination::Pipeline(pipeline) => pipeline.client().deliver(call, Mode::Queue),
            Destination::Reflect(place) => place.deliver(call),
        }
    }
}
