//! How a connection ends.
//!
//! ```text
//! Note [Shutdown]
//! ===============
//! Whatever finds a reason (end of input, a failed write, an abort, a broken rule, the user) ends the state in one
//! transaction: it empties the tables, and all that wait for something in them get a callback. (The end of input takes
//! its turn in the coordinator's queue first, so that answers and an Abort that arrived before are seen.)
//!
//! Only then are the queues closed. So that transaction's callbacks are in the queue, and the callback stage runs all that is
//! in its queue before it ends. Later transactions find the state ended and have nothing to queue. The send stage sends what
//! is queued (an Abort is last), for no longer than `Limits::linger`, and then shuts the transport down, which ends the
//! receive stage; the coordinator ends at its closed queue. Nothing is lost, and no thread waits for another.
//!
//! Each of the four stages is ended once: by its own thread, or by the thread that finds its closed queue empty while no
//! other thread is at it (Note [Turns]).
//!
//! After a failed write what arrives still counts: a peer that has closed may have answered before. So the send stage
//! drops what it can't send, until the end of input comes. If none does, within `Limits::linger`, the failed write ends
//! all.
//! ```

use std::any::Any;
use std::mem;

use super::shared::Shared;
use crate::error::{Error, Exception, TransportError};
use crate::sync::{deadline, foreign, panicked, Condvar, Foreign, Instant, Mutex, Rank, Timer};
use crate::transport::Shutdown;
use crate::wire::message::Message;

type OnDisconnect = Box<dyn FnOnce(&Exception) + Send>;

/// What a panic is logged as.
const ON_DISCONNECT: &str = "a callback of a disconnect";

/// How far the end of a connection has come.
pub(super) struct Ending {
    /// Until it was used: what it holds of the transport is given back then, though clients may hold this for longer.
    shutdown: Mutex<Option<Foreign<Box<dyn Shutdown>>>>,
    state: Mutex<EndingState>,
    /// A stage has ended.
    changed: Condvar,
}

struct EndingState {
    /// Stages that have not ended.
    stages: usize,
    on_disconnect: Vec<Foreign<OnDisconnect>>,
    /// The callbacks above have been run, or are run at once now.
    told: Option<Exception>,
}

impl Ending {
    /// Of a connection with so many stages.
    pub(super) fn new(shutdown: Box<dyn Shutdown>, stages: usize) -> Self {
        let state = EndingState { stages, on_disconnect: Vec::new(), told: None };
        Ending {
            shutdown: Mutex::new(Rank::Queue, Some(Foreign::new(shutdown))),
            state: Mutex::new(Rank::Queue, state),
            changed: Condvar::new(),
        }
    }

    /// A stage has ended.
    pub(super) fn stage_ended(&self) {
        self.state.lock().stages -= 1;
        self.changed.notify_all();
    }

    /// Waits until all stages have ended, or the deadline has passed. True if they have.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while state.stages > 0 {
            if self.changed.wait_until(&mut state, deadline) {
                return state.stages == 0;
            }
        }
        true
    }

    /// Ends both directions of the transport, once.
    pub(super) fn shut_down(&self) {
        let shutdown = self.shutdown.lock().take();
        if let Some(shutdown) = shutdown {
            foreign("the end of a transport", || shutdown.shutdown());
        }
    }

    /// Has `callback` run when the connection has ended, at once if it has.
    pub(super) fn on_disconnect(&self, callback: OnDisconnect) {
        let mut state = self.state.lock();
        match &state.told {
            Some(why) => {
                let why = why.clone();
                drop(state);
                foreign(ON_DISCONNECT, || callback(&why));
            }
            None => state.on_disconnect.push(Foreign::new(callback)),
        }
    }

    /// Runs the callbacks of those who want to know that the connection has ended.
    pub(super) fn tell(&self, why: &Exception) {
        let mut state = self.state.lock();
        state.told = Some(why.clone());
        let callbacks = mem::take(&mut state.on_disconnect);
        drop(state);
        for callback in callbacks {
            foreign(ON_DISCONNECT, || callback.into_inner()(why));
        }
    }
}

/// What all that wait are told when a connection ends for this cause.
pub(super) fn reason(cause: &Error) -> Exception {
    let text = format!("the connection has ended: {cause}");
    Exception::from(cause.clone()).as_disconnected(text).with_source(cause.clone())
}

impl Shared {
    /// Ends the connection, with an Abort to the peer if `abort`. The first cause is the one that everybody is told. See
    /// Note [Shutdown].
    pub(super) fn end(&self, cause: Error, abort: bool) {
        let why = reason(&cause);
        let ended = self.transact(|state, fx| {
            if state.ended().is_some() {
                return false;
            }
            state.end(why, fx);
            fx.send.clear();
            if abort {
                fx.send(Message::Abort(cause.into()));
            }
            true
        });
        // A transaction that panics closes the connection itself.
        if let Ok(true) = ended {
            self.close();
        }
    }

    /// Closes the queues, once the state has ended.
    pub(super) fn close(&self) {
        self.before_close();
        let sent = self.outgoing.close();
        if sent {
            self.end_send();
        }
        if self.incoming.close() {
            self.ending.stage_ended();
        }
        self.close_callbacks();
        self.drive.close();
        self.flow.close();
        if let Some(why) = self.why_ended() {
            self.permits.close(&why);
        }
        // A thread that is about to wait has the lock: it waits by the time that it is told.
        drop(self.state.lock());
        self.tell_changed();
        if !sent {
            let this = self.this.clone();
            Timer::global().at(deadline(self.limits.linger), move || {
                if let Some(this) = this.upgrade() {
                    this.ending.shut_down();
                }
            });
        }
    }

    /// Ends the connection for a write that failed, unless the end of input comes before.
    pub(super) fn end_after_failed_write(&self, why: TransportError) {
        let this = self.this.clone();
        Timer::global().at(deadline(self.limits.linger), move || {
            if let Some(this) = this.upgrade() {
                this.end(why.into(), false);
            }
        });
    }

    /// The send stage has sent all that it will.
    pub(super) fn end_send(&self) {
        drop(self.sender.take());
        self.ending.shut_down();
        self.ending.stage_ended();
    }

    /// The callback stage has run all that it will.
    pub(super) fn end_callbacks(&self) {
        self.tell_disconnect();
        self.ending.stage_ended();
    }

    /// Ends the connection after a panic in one of its stages.
    pub(super) fn end_panicked(&self, panic: Box<dyn Any + Send>) {
        let why = Exception::failed(panicked("a thread of the connection", panic));
        self.end(Error::Exception(why), true);
    }

    /// Runs the callbacks of those who want to know that the connection has ended.
    fn tell_disconnect(&self) {
        if let Some(why) = self.why_ended() {
            self.ending.tell(&why);
        }
    }
}
