//! Transactions: what runs under the one lock of a connection's state, and its commit.
//!
//! ```text
//! Note [Panics in transactions]
//! =============================
//! A panic in a transaction is a mistake of this crate's, and the tables that it leaves can't be trusted. It may happen
//! on any thread: a stage's, a pool's or the user's. So each transaction catches a panic of its body, before it unlocks.
//! It ends the state (`State::end` tells all that wait in the tables, and empties these, even if another panic stops a
//! part of that), drops the messages that the body wanted sent, keeps the callbacks, since these answer calls that are
//! in no table any more, and sends an Abort. Then the connection is closed as at any other end (Note [Shutdown]).
//!
//! The caller of the transaction gets `Broken`, and goes on as with a connection that has ended. Nothing unwinds into
//! the caller: it may be a stage of another connection, a method's thread with its object's turn, or the user's code.
//!
//! While a body unwinds, it drops what it holds, and the lock is still held. So all drops that lead to further work are
//! put off until after the unlock (Note [One after the other]).
//! ```

use std::any::Any;
use std::mem;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::backpressure::Sending;
use super::shared::Shared;
use crate::cap::{Capability, Client};
use crate::error::{Exception, ProtocolError};
use crate::state::{Effects, State};
use crate::sync::{hold_back, panic_text, panicked, HeldBack, MutexGuard};
use crate::wire::message::{Message, Outcome, Outgoing, Resolution, Resolve, Return};

/// A transaction has panicked, and its connection has ended for that reason. See Note [Panics in transactions].
#[derive(Debug)]
pub(super) struct Broken(Exception);

impl Broken {
    /// What stands for a client that the transaction would have given.
    pub(super) fn client(self) -> Client {
        Client::broken(self.0)
    }
}

impl From<Broken> for Exception {
    fn from(Broken(why): Broken) -> Self {
        why
    }
}

/// Why a transaction was not carried out.
#[derive(Debug)]
pub(super) enum Failed {
    /// The peer broke a rule. The transaction has left no trace.
    Rule(ProtocolError),
    /// It has panicked, and the connection has ended.
    Broken,
}

/// What a transaction that panics is logged as.
const TRANSACTION: &str = "a transaction of a connection";

#[cfg(all(test, not(any(shuttle, loom))))]
pub(super) mod tests;

impl Shared {
    /// Runs a transaction. See Note [Effects run after unlock].
    pub(super) fn transact<R>(&self, body: impl FnOnce(&mut State, &mut Effects) -> R) -> Result<R, Broken> {
        self.run(|state, fx| {
            self.take_drops(state, fx);
            body(state, fx)
        })
    }

    /// Runs a transaction that changes the tables for nobody who waits for the outcome: if it panics, the connection has
    /// ended, and that is all.
    pub(super) fn transact_or_end(&self, body: impl FnOnce(&mut State, &mut Effects)) {
        // What there is to be said has been logged.
        let _: Result<(), Broken> = self.transact(body);
    }

    /// Runs a transaction that leaves no trace if it fails. See Note [Rollback].
    pub(super) fn try_transact(
        &self,
        body: impl FnOnce(&mut State, &mut Effects) -> Result<(), ProtocolError>,
    ) -> Result<(), Failed> {
        let done = self.run(|state, fx| {
            let found = cfg!(debug_assertions).then(|| state.trace());
            let done = body(state, fx);
            if done.is_ok() {
                self.take_drops(state, fx);
            } else if let Some(found) = found {
                assert_eq!(state.trace(), found, "a transaction that fails changes nothing");
                assert!(fx.is_empty(), "a transaction that fails has nothing done");
            }
            done
        });
        match done {
            Ok(done) => done.map_err(Failed::Rule),
            Err(Broken(_)) => Err(Failed::Broken),
        }
    }

    fn run<R>(&self, body: impl FnOnce(&mut State, &mut Effects) -> R) -> Result<R, Broken> {
        // In the reverse of this order: a panic outside of the body unlocks first.
        let held_back = hold_back();
        let mut fx = Effects::default();
        let mut state = self.state.lock();
        let done = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(all(test, not(any(shuttle, loom))))]
            let _faults = self.faults.enter();
            let result = body(&mut state, &mut fx);
            if cfg!(debug_assertions) {
                state.check();
            }
            result
        }));
        match done {
            Ok(result) => {
                self.commit(state, fx, held_back);
                Ok(result)
            }
            Err(panic) => Err(self.end_broken(state, fx, held_back, panic)),
        }
    }

    /// Appends what a transaction wants done to the queues, releases the lock, and drops its garbage.
    fn commit(&self, state: MutexGuard<'_, State>, mut fx: Effects, held_back: HeldBack) {
        self.cut_short(&mut fx);
        let queued = fx.send.iter().fold(Sending::default(), Sending::and);
        let (sends, calls_back) = (!fx.send.is_empty(), !fx.callbacks.is_empty());
        let watchers = self.flow.committed(queued, state.awaited(), state.held());
        let lists = &mut *fx;
        let unsent = self.outgoing.put_all(lists.send.drain(..));
        let unsent = unsent.err();
        let unrun = self.callbacks.put_all(lists.callbacks.drain(..));
        self.grant(&state);
        if self.is_waited_for() {
            self.tell_changed();
        }
        drop(state);
        drop(held_back);
        if unsent.is_some() {
            self.flow.sent(queued);
        }
        self.flow.after_commit(watchers);
        self.after_commit(sends, calls_back);
        drop((unsent, unrun));
        fx.finish();
    }

    /// Ends the connection after a panic in the body of a transaction. See Note [Panics in transactions].
    #[cold]
    fn end_broken(
        &self,
        mut state: MutexGuard<'_, State>,
        mut fx: Effects,
        held_back: HeldBack,
        panic: Box<dyn Any + Send>,
    ) -> Broken {
        let cause = Exception::failed(panic_text(TRANSACTION, &*panic));
        let why = super::shutdown::reason(&cause.clone().into());
        let was_alive = state.ended().is_none();
        let unsent = mem::take(&mut fx.send);
        fx.garbage.push(Box::new(unsent));
        let end = catch_unwind(AssertUnwindSafe(|| state.end(why.clone(), &mut fx)));
        if was_alive {
            fx.send(Message::Abort(cause));
        }
        self.commit(state, fx, held_back);
        for panic in [Some(panic), end.err()].into_iter().flatten() {
            panicked(TRANSACTION, panic);
        }
        self.close();
        Broken(why)
    }

    /// Makes exceptions that are to be sent small enough: the peer would end the connection. (A payload has
    /// failed its call before.)
    fn cut_short(&self, fx: &mut Effects) {
        let most = self.limits.message_words.saturating_mul(8) / 2;
        let lists = &mut **fx;
        let exceptions = lists.send.iter_mut().filter_map(|departure| exception_in(&mut departure.message));
        for why in exceptions.filter(|why| why.bytes() > most) {
            let short = why.cut_short(most);
            // What it was may hold an error of the user's.
            lists.garbage.push(Box::new(mem::replace(why, short)));
        }
    }
}

/// The exception that a message brings.
fn exception_in(message: &mut Message<Outgoing>) -> Option<&mut Exception> {
    match message {
        Message::Abort(why) => Some(why),
        Message::Return(Return { outcome: Outcome::Exception(why), .. }) => Some(why),
        Message::Resolve(Resolve { to: Resolution::Exception(why), .. }) => Some(why),
        _ => None,
    }
}
