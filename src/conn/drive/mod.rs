//! For speed alone: the steps of the stages are taken by threads that would otherwise have to wake the stages' own.
//!
//! Nothing here changes what a user can observe. With `Threads::Strict` the hooks do nothing of it.
//!
//! The rest of `conn` knows of this folder what stands in this file: [`Drive`], the hooks (functions of `Shared` below), and
//! [`Receive`]; of `drops.rs` what a transaction and the callback stage ask it (`take_drops`, `see_to_drops`); and of
//! `on_demand.rs` what starts a connection.
//!
//! | file | what |
//! | --- | --- |
//! | [`on_demand`] | what a connection starts with |
//! | [`pool`] | the threads for the stages of all connections (Note [Stage threads]) |
//! | [`lending`] | a thread that has queued something takes the next stage's step (Note [Lending]) |
//! | [`polling`] | looking for input over and over before sleeping (Note [Polling]) |
//! | [`reading`] | the receive stage, on a thread that waits for what it reads (Note [Reading is lent]) |
//! | [`desk`] | where that stage is borrowed (Note [The gate is opened late]) |
//! | [`reactor`] | one thread that waits for the input of all connections whose receive threads would sleep |
//! | [`keeper`] | looks after the last two from time to time |
//! | [`receive`] | the receive stage, with those behind it |
//! | [`drops`] | references that users have dropped wait for the next transaction (Note [Drops are noted]) |

mod desk;
mod drops;
mod keeper;
mod lending;
mod on_demand;
mod polling;
#[cfg_attr(any(shuttle, loom), path = "pool_still.rs")]
mod pool;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(shuttle), any(not(loom), test)))]
mod reactor;
mod reading;
mod receive;

pub use on_demand::thread_shortages;
pub(super) use on_demand::{own_threads, reserve, start};

use super::shared::Shared;
use super::stages::{Progress, ReceiveStage, Sender, Wait};
use super::threads::Threads;
use crate::cap::port::{Generation, TableEvent};
use crate::promise::Waiter;
use crate::state::Callback;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::Arc;
use drops::Drops;
use reading::{Reading, Receiver};

/// Whether other threads take the steps of a connection's stages, and what they know.
pub(super) struct Drive {
    inline: bool,
    /// Whether what is queued can be sent on any thread.
    sends_now: bool,
    /// Whether the connection was started. A test drives the stages of one that was not.
    started: AtomicBool,
    reading: Reading,
    drops: Drops,
}

impl Drive {
    pub(super) fn new(threads: Threads, sender: &Sender) -> Self {
        let inline = threads == Threads::Lending;
        let sends_now = inline && sender.sends_now();
        let started = AtomicBool::new(false);
        Drive { inline, sends_now, started, reading: Reading::new(), drops: Drops::new() }
    }

    fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether stages that have something to do get threads.
    fn has_threads(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// The connection has ended.
    pub(super) fn close(&self) {
        self.drops.close();
    }
}

/// What drives the receive stage.
pub(crate) enum Receive {
    /// Its own thread alone.
    Own(ReceiveStage),
    Inline(Receiver),
}

impl Receive {
    pub(super) fn new(shared: &Arc<Shared>, stage: ReceiveStage) -> Self {
        match shared.drive.inline {
            true => Receive::Inline(Receiver::new(shared, stage)),
            false => Receive::Own(stage),
        }
    }

    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        match self {
            Receive::Own(stage) => stage.step(wait),
            Receive::Inline(receiver) => receiver.step(wait),
        }
    }

    /// Whether a message has been received that waits for room, or did.
    #[cfg(feature = "test-util")]
    pub(crate) fn holds_message(&self) -> bool {
        match self {
            Receive::Own(stage) => stage.holds_message(),
            Receive::Inline(receiver) => receiver.holds_message(),
        }
    }
}

/// The hooks.
impl Shared {
    /// A transaction has queued messages to be sent, or callbacks.
    pub(super) fn after_commit(&self, sends: bool, calls_back: bool) {
        if self.drive.inline {
            return self.see_to(sends, calls_back);
        }
        if calls_back {
            self.callbacks.wake();
        }
        if sends {
            self.outgoing.wake();
        }
    }

    /// Has a notice looked at. May be called under any lock.
    pub(super) fn post(&self, notice: TableEvent) {
        if self.drive.inline && notice.is_of_a_drop() {
            return self.note_drop(notice);
        }
        // After the end nothing is left for a notice to change.
        let _ = self.callbacks.push(Callback::TableEvent(notice));
    }

    /// The connection has ended, and its queues are about to be closed: what is queued can be sent.
    pub(super) fn before_close(&self) {
        if self.drive.inline {
            self.send_queued();
        }
    }

    /// Closes the queue of callbacks. This thread does not run them, unless it is one that does anyway.
    pub(super) fn close_callbacks(&self) {
        match self.drive.inline {
            true => self.close_callbacks_inline(),
            false => {
                self.callbacks.close_quietly();
                self.callbacks.wake();
            }
        }
    }

    /// A stage is about to wait: what this thread has left undone is done before.
    pub(super) fn before_sleep(&self) {
        if self.drive.inline {
            self.drive.reading.goes_on(false);
            self.see_to_drops();
            self.send_queued();
        }
    }

    /// Another thread than one that reads waits for what arrives from now on.
    pub(super) fn depends_on_input(&self) {
        self.drive.reading.watch();
    }

    /// This thread has asked a question.
    pub(super) fn after_question(&self, question: Generation) {
        lending::asked(self.id, question);
    }

    /// This thread waits for the answer to a question, which it may read itself.
    pub(super) fn wait_for_answer(self: &Arc<Self>, question: Generation, waiter: &dyn Waiter) {
        if self.drive.inline {
            lending::waits_for(self.id, question);
            self.read_for(waiter);
        }
    }
}
