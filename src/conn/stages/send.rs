//! The send stage: writes what is queued.

use std::collections::vec_deque::Drain;
use std::mem;

use super::{turn, Progress, Wait};
use crate::conn::backpressure::Sending;
use crate::conn::shared::Shared;
use crate::error::{Exception, TransportError};
use crate::state::QueuedMessage;
use crate::sync::{Arc, Foreign, Mutex, Rank, Turn};
use crate::transport::Sink;
use crate::wire::encode::encode;
use crate::wire::frame::Outbound;

/// What writes: whoever has the turn of what is queued uses it.
pub(in crate::conn) struct Sender {
    sink: Foreign<Sink>,
    /// A write has failed: nothing more can be sent.
    failed: bool,
    /// Why the connection is to be ended.
    broken: Option<Exception>,
    /// Empty: its memory is used again.
    messages: Vec<Outbound>,
}

/// The memory of a longer list is not kept.
const KEPT_MESSAGES: usize = 64;

impl Sender {
    pub(in crate::conn) fn new(sink: Sink) -> Self {
        Sender { sink: Foreign::new(sink), failed: false, broken: None, messages: Vec::new() }
    }

    pub(in crate::conn) fn sends_now(&self) -> bool {
        matches!(*self.sink, Sink::Nonblocking(_))
    }

    /// Encodes a batch, and gives it to the sink. `None` if nothing can be sent.
    fn write<R>(
        &mut self,
        shared: &Shared,
        batch: Drain<'_, QueuedMessage>,
        send: impl FnOnce(&mut Sink, &[Outbound]) -> Result<R, TransportError>,
    ) -> Option<R> {
        if self.failed {
            shared.sent(batch.fold(Sending::default(), |all, departure| all.and(&departure)));
            return None;
        }
        let mut all = Sending::default();
        let mut messages = mem::take(&mut self.messages);
        let mut shares = Vec::new();
        for departure in batch {
            all = all.and(&departure);
            let QueuedMessage { message, share, .. } = departure;
            shares.extend(share);
            match encode(message) {
                Ok(message) => messages.push(message),
                // Contents were checked before they were queued: see `Content::prepare`.
                Err(e) => self.broken = Some(e.with_context("a message that was queued can't be encoded")),
            }
        }
        let sent = send(&mut self.sink, &messages);
        messages.clear();
        messages.shrink_to(KEPT_MESSAGES);
        self.messages = messages;
        drop(shares);
        shared.sent(all);
        match sent {
            Ok(sent) => Some(sent),
            Err(e) => {
                self.failed = true;
                shared.end_after_failed_write(e);
                None
            }
        }
    }

    /// Sends a batch, without waiting if [`sends_now`](Self::sends_now). False if the send thread has to go on.
    pub(in crate::conn) fn send_now(&mut self, shared: &Shared, batch: Drain<'_, QueuedMessage>) -> bool {
        let sent = self.write(shared, batch, send_now);
        sent == Some(true) && self.broken.is_none()
    }
}

/// Sends a batch, without waiting if the sink can do so. False if something is left.
fn send_now(sink: &mut Sink, messages: &[Outbound]) -> Result<bool, TransportError> {
    match sink {
        Sink::Blocking(sink) => sink.send(messages).map(|()| true),
        Sink::Nonblocking(sink) => sink.send_now(messages),
    }
}

/// Where the sender is, for the thread that has the turn of `outgoing`.
pub(in crate::conn) struct SenderSlot(Mutex<Option<Box<Sender>>>);

impl SenderSlot {
    pub(in crate::conn) fn new(sender: Sender) -> Self {
        SenderSlot(Mutex::new(Rank::Queue, Some(Box::new(sender))))
    }

    /// Takes the sender. `None` once the send thread has ended.
    pub(in crate::conn) fn take(&self) -> Option<Box<Sender>> {
        self.0.lock().take()
    }

    pub(in crate::conn) fn put(&self, sender: Box<Sender>) {
        let before = self.0.lock().replace(sender);
        debug_assert!(before.is_none(), "one has the turn");
    }
}

/// Writes what is queued.
pub(crate) struct SendStage {
    shared: Arc<Shared>,
}

impl SendStage {
    pub(in crate::conn) fn new(shared: &Arc<Shared>) -> Self {
        SendStage { shared: shared.clone() }
    }

    /// Sends all that is queued, as one batch, and what another thread has left. What can't be sent is dropped, until
    /// the receive stage finds the end too. See Note [Shutdown].
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        match turn(&self.shared.outgoing, wait) {
            Ok(turn) => self.send(turn, |sink, messages| sink.send(messages).map(|()| true)),
            Err(progress) => progress,
        }
    }

    /// Sends what can be sent without waiting, for a stage that has no thread to wait on. `Idle`: something is left.
    pub(in crate::conn) fn advance(&mut self) -> Progress {
        loop {
            let sent = match turn(&self.shared.outgoing, Wait::OrLeave) {
                Ok(turn) => self.send(turn, send_now),
                Err(progress) => progress,
            };
            if sent != Progress::Made {
                return sent;
            }
        }
    }

    /// Sends all that is queued. `Idle`: something is left.
    fn send(
        &self,
        mut turn: Turn<'_, QueuedMessage>,
        send: impl FnOnce(&mut Sink, &[Outbound]) -> Result<bool, TransportError>,
    ) -> Progress {
        let Some(mut sender) = self.shared.sender.take() else { return Progress::Ended };
        let all_sent = sender.write(&self.shared, turn.rest(), send);
        let broken = sender.broken.take();
        self.shared.sender.put(sender);
        let progress = match all_sent {
            Some(false) => {
                turn.hand_over();
                Progress::Idle
            }
            Some(true) | None => {
                drop(turn);
                Progress::Made
            }
        };
        if let Some(why) = broken {
            self.shared.end(why.into(), true);
        }
        progress
    }
}
