//! Stages that are driven by whichever thread would otherwise have to wake theirs.
//!
//! ```text
//! Note [Lending]
//! ==============
//! Waking a thread costs more than most steps. So, unless the connection is made with `Threads::Strict`, a
//! stage whose turn is free (Note [Turns]) is driven by the thread that gave it something to do:
//!
//! - The receive thread goes on as coordinator and callback runner with each message, since those never wait
//!   either (Note [Threads]). Meanwhile what it causes to be sent is held back, if the next message is there
//!   already: so a batch of messages that arrived together leaves as one.
//! - Any thread whose transaction queued something to send sends it, as far as the system takes it without
//!   waiting. What it doesn't take is the send thread's, and so is a lot of data at once: to write that, or to
//!   wait until it can be, is nothing to put on whoever made a call.
//! - What a thread queues after that without having slept in between is a burst. It goes out as one batch as soon
//!   as that thread waits for an answer, or the batch is large, or its calls are half of all that it keeps under way; else
//!   the send thread sends it after a moment. So do the calls of a thread that keeps a window of them, as its last wait was
//!   not for the call that it had made last.
//! - Of threads whose answers arrived together, most ask the next question as soon as they run again. So a thread that
//!   queues something while others have yet to run leaves it to them, or to whoever reads, if that has more messages at
//!   hand: the last one sends for all. Should they have nothing to send, the send thread does after a moment.
//! - A thread that waits for an answer reads (Note [Reading is lent]).
//! - A receive thread that would sleep has its stage driven by the reactor, which is awake if others have input (Note [One
//!   waits for all]).
//! - What users drop is seen to by whichever transaction is next (Note [Drops are noted]).
//!
//! Callbacks are lent to whoever reads alone: they run foreign code, and a thread of the user's may hold locks that it
//! takes. (One that waits for an answer, and reads meanwhile, would never get it either if another thread ran them.)
//!
//! The stages' own threads do what nobody has borrowed: what is queued while nothing is received (callbacks of
//! users' threads), and what borrowers leave.
//! ```

use std::cell::Cell;

use crate::cap::port::{ConnectionId, Generation};
use crate::conn::backpressure::Sending;
use crate::conn::shared::Shared;
use crate::promise::slept;
use crate::state::QueuedMessage;
use crate::sync::{per_thread, Duration, Turn};

/// How many bytes a borrower sends at most; more is left to the send thread.
const MOST_BYTES: usize = 64 << 10;
/// How many batches a borrower sends at most, while others go on queueing.
const MOST_BATCHES: usize = 4;

/// How many bytes of a burst the thread that makes it leaves to the send thread.
const BURST_BYTES: usize = 48 << 10;
/// How few calls of a burst are not sent by themselves.
const FEW_CALLS: usize = 8;
/// How long the send thread waits for more of a burst, or the receive thread for somebody to borrow its stage. Model
/// checkers know no time.
pub(in crate::conn) const LINGER: Option<Duration> = model_free(Duration::from_micros(150));
/// How long the send thread waits for a thread that keeps a window of calls to wait and send.
const LINGER_FOR_WINDOW: Option<Duration> = model_free(Duration::from_millis(1));

/// Whether a burst is half of what its thread keeps under way: while the peer deals with one half, the thread can make the
/// other one.
fn is_half(burst: Sending, under_way: u64) -> bool {
    burst.calls >= FEW_CALLS && burst.calls as u64 * 2 >= under_way
}

const fn model_free(linger: Duration) -> Option<Duration> {
    if cfg!(any(shuttle, loom)) {
        None
    } else {
        Some(linger)
    }
}

per_thread! {
    /// The connection that this thread, which reads, handles messages of, and whether it has queued callbacks.
    static HANDLING: Cell<Option<(ConnectionId, bool)>> = Cell::new(None);
    /// How often this thread had slept when it last had something sent.
    static SENT_AT: Cell<u64> = Cell::new(u64::MAX);
    /// The question that this thread has asked last.
    static ASKED: Cell<Option<(ConnectionId, Generation)>> = Cell::new(None);
    /// How many questions lay between that and the one whose answer this thread waited for last: as large is the window
    /// of calls that it keeps under way.
    static WINDOW: Cell<u64> = Cell::new(0);
}

/// This thread has asked a question.
pub(in crate::conn) fn asked(connection: ConnectionId, question: Generation) {
    ASKED.with(|asked| asked.set(Some((connection, question))));
}

/// This thread waits for the answer to a question.
pub(in crate::conn) fn waits_for(connection: ConnectionId, question: Generation) {
    let last = ASKED.with(Cell::get).filter(|(asked, _)| *asked == connection);
    WINDOW.with(|window| window.set(last.map_or(u64::MAX, |(_, last)| last.abs_diff(question))));
}

/// This thread handles messages of the connection until the result is dropped: it runs its callbacks, and
/// sends what is queued, afterwards.
pub(in crate::conn) fn handling(id: ConnectionId) -> Handling {
    Handling(HANDLING.with(|handling| handling.replace(Some((id, false)))))
}

/// What this thread handled before.
pub(in crate::conn) struct Handling(Option<(ConnectionId, bool)>);

impl Handling {
    /// Whether callbacks have been queued meanwhile, by this thread.
    pub(in crate::conn) fn called_back(&self) -> bool {
        HANDLING.with(Cell::get).is_some_and(|(_, calls_back)| calls_back)
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.with(|handling| handling.set(self.0));
    }
}

impl Shared {
    /// Closes the queue of callbacks. They run foreign code, which this thread may hold locks of, unless it handles
    /// messages of this connection: then it works the queue off afterwards.
    pub(super) fn close_callbacks_inline(&self) {
        self.callbacks.close_quietly();
        match HANDLING.with(Cell::get) {
            Some((id, _)) if id == self.id => HANDLING.with(|handling| handling.set(Some((id, true)))),
            _ => self.callbacks.wake(),
        }
    }

    /// Sees to what a transaction of this thread's has queued. See Note [Lending].
    pub(super) fn see_to(&self, sends: bool, calls_back: bool) {
        if let Some((id, called_back)) = HANDLING.with(Cell::get).filter(|(id, _)| *id == self.id) {
            return HANDLING.with(|handling| handling.set(Some((id, called_back || calls_back))));
        }
        if calls_back {
            self.callbacks.wake();
        }
        if sends {
            let burst = slept() == SENT_AT.with(|at| at.replace(slept()));
            let window = WINDOW.with(Cell::get);
            let keeps_window = window > 0;
            let (sending, awaited) = (self.flow.sending(), self.flow.awaited());
            let under_way = if keeps_window { window.min(awaited as u64) } else { awaited as u64 };
            let more_comes = (burst || keeps_window) && !is_half(sending, under_way);
            if (more_comes || self.others_come(awaited)) && sending.bytes < BURST_BYTES {
                let linger = if keeps_window { LINGER_FOR_WINDOW } else { LINGER };
                linger.map_or_else(|| self.outgoing.wake(), |linger| self.outgoing.wake_later(linger));
            } else {
                self.send_queued();
            }
        }
    }

    /// Whether what is queued now had better wait for others: whoever reads sends it together with what it handles; or
    /// threads whose answers have come are about to run, as more of them wait than there are questions.
    fn others_come(&self, awaited: usize) -> bool {
        self.drive.reading.is_in_batch() || self.drive.reading.waiting() > awaited
    }

    /// Sends what this thread has left to be sent: it may be what it waits for the answer of.
    pub(super) fn send_left(&self) {
        let (sending, awaited) = (self.flow.sending(), self.flow.awaited());
        match LINGER.filter(|_| self.others_come(awaited) && sending.bytes < BURST_BYTES) {
            Some(linger) => self.outgoing.wake_later(linger),
            None => self.send_queued(),
        }
    }

    /// Sends what is queued, or has it sent.
    pub(super) fn send_queued(&self) {
        if !self.drive.sends_now {
            return self.outgoing.wake();
        }
        if let Some(turn) = self.outgoing.take_turn() {
            self.send_now(turn);
        }
    }

    fn send_now(&self, mut turn: Turn<'_, QueuedMessage>) {
        for _ in 0..MOST_BATCHES {
            if self.flow.sending().bytes > MOST_BYTES {
                break;
            }
            let Some(batch) = turn.all() else {
                if turn.ends_stage() {
                    self.end_send();
                }
                return;
            };
            // Without a sender the send thread has ended, and nobody reads what is sent.
            let Some(mut sender) = self.sender.take() else { return };
            let all_sent = sender.send_now(self, batch);
            self.sender.put(sender);
            if !all_sent {
                break;
            }
        }
        turn.hand_over();
    }
}
