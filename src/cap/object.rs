//! Objects of this vat, and their mailboxes.

use std::any::Any;

use super::call::CallInfo;
use super::capability::FromServer;
use super::client::Client;
use super::pool::{Pool, Scheduled, Task};
use super::serving::Call;
use crate::error::{catch_panic, Exception, Result};
use crate::promise::cancel::{self, Unwatch};
use crate::promise::Cancel;
use crate::queue::Queue;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Arc, Foreign, Mutex, OnceLock, Rank};

/// An object: what answers calls.
///
/// `&self` is shared by all calls. By default they come one at a time and in order; a method that calls
/// [`Call::allow_next`] lets the next one start beside it, on another thread of the pool.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot serve calls",
    note = "implement `capnp_threads::Server` for `{Self}`, or make the client of a generated interface"
)]
pub trait Server: Any + Send + Sync {
    /// Answers one call: reads [`Call::params`], fills in [`Call::results`], and returns.
    ///
    /// Runs on a thread of the object's pool, outside all locks: it may take its time, wait, and call others.
    /// It owns the params and results, so nothing is taken from under it when the connection ends. To answer
    /// later, from any thread, take [`Call::defer`] and return `Ok`.
    ///
    /// A method that waits for a call to its own object, over however many others, waits for itself, unless it
    /// has called [`Call::allow_next`].
    ///
    /// # Errors
    /// An error is the answer. So is a panic, as an exception of kind `failed`; the object lives on.
    fn dispatch(&self, call: &mut Call) -> Result<()>;
}

/// An object and the calls that wait for it.
///
/// ```text
/// Note [Mailbox]
/// ==============
/// An object is scheduled (a task in its pool, or a thread running it), or a streaming call holds its turn (Note [A
/// streaming call holds the turn]), exactly while `busy` is true: a call that finds it false makes it true and submits
/// the task, and it becomes false in the critical section that finds the queue empty. So no call is left lying, and two
/// threads never run one object unless a method has let the next call start. That method's thread gives its turn away,
/// and ends after the method.
/// ```
pub(crate) struct LocalObject {
    /// The user's value, for whoever has a client of it and wants it back.
    pub(crate) server: Foreign<Arc<dyn Any + Send + Sync>>,
    /// Runs a method of that value, which is its first argument.
    dispatch: Dispatch,
    pool: Pool,
    mailbox: Mutex<Mailbox>,
    /// Why no call is answered any more: a streaming call has failed.
    broken: OnceLock<Exception>,
}

type Dispatch = fn(&(dyn Any + Send + Sync), &mut Call) -> Result<()>;

struct Mailbox {
    calls: Queue<Queued>,
    busy: bool,
}

/// A call that waits for its turn.
struct Queued {
    call: CallInfo,
    /// Takes the call out when it is canceled, if its params hold a promise: they may be what keeps another call going,
    /// for whose end the object waits. (Other canceled calls stay until their turn.)
    watch: Option<Box<Unwatch>>,
}

impl LocalObject {
    /// An object that a `C` can be a client of: which methods `server` has is known there.
    pub(crate) fn new<S: Any + Send + Sync, C: FromServer<S>>(server: S, pool: Pool) -> Self {
        let mailbox = Mutex::new(Rank::Mailbox, Mailbox { calls: Queue::default(), busy: false });
        let server: Arc<dyn Any + Send + Sync> = Arc::new(server);
        let (server, broken) = (Foreign::new(server), OnceLock::new());
        LocalObject { server, dispatch: dispatch::<S, C>, pool, mailbox, broken }
    }

    /// Appends a call to the mailbox. Never waits. See Note [Mailbox].
    pub(crate) fn deliver(self: &Arc<Self>, call: CallInfo) {
        let mut mailbox = self.mailbox.lock();
        let idle = !std::mem::replace(&mut mailbox.busy, true);
        if idle && self.pool.runs_in_place() {
            drop(mailbox);
            let this = self.clone();
            return Pool::run_in_place(move || this.run_from(call));
        }
        let mut watch = None;
        if call.params.caps.iter().any(Client::may_be_promise) {
            let (this, ticket) = (Arc::downgrade(self), mailbox.calls.next_ticket());
            let let_go = move || {
                if let Some(this) = this.upgrade() {
                    this.let_go(ticket);
                }
            };
            // One that is canceled already is answered when its turn comes.
            watch = call.cancel.watch_unless_canceled(let_go).map(Box::new);
        }
        mailbox.calls.push(Queued { call, watch });
        drop(mailbox);
        if idle {
            self.pool.submit(Task::Object(self.clone()));
        }
    }

    /// A call that waits has been canceled.
    fn let_go(&self, ticket: u64) {
        let queued = self.mailbox.lock().calls.remove(ticket);
        if let Some(queued) = queued {
            queued.call.fail(cancel::canceled());
        }
    }

    /// Answers a call that found the object idle, before any that has come to its mailbox since.
    fn run_from(self: Arc<Self>, call: CallInfo) {
        if self.answer(call) {
            self.run(usize::MAX);
        }
    }

    /// Lets the next call start beside the one that runs.
    pub(crate) fn pass_turn(self: &Arc<Self>) {
        let mut mailbox = self.mailbox.lock();
        mailbox.busy = !mailbox.calls.is_empty();
        let waiting = mailbox.busy;
        drop(mailbox);
        if waiting {
            self.pool.submit(Task::Object(self.clone()));
        }
    }

    /// A streaming call has failed. The calls that were sent after it relied on it, so they fail too.
    pub(super) fn break_stream(&self, why: &Exception) {
        // The first failure counts.
        let _ = self.broken.set(why.clone().with_context("an earlier streaming call failed"));
    }

    /// Runs the method. False if it has given the turn away.
    fn answer(self: &Arc<Self>, call: CallInfo) -> bool {
        if call.cancel.is_canceled() {
            call.fail(cancel::canceled());
            return true;
        }
        if let Some(why) = self.broken.get() {
            call.fail(why.clone());
            return true;
        }
        call.cancel.start();
        let token = call.cancel.clone();
        let mut call = Call::new(self.clone(), call);
        let body = || (self.dispatch)(&**self.server, &mut call);
        let outcome = cancel::with_current(token, || catch_panic("the method", body));
        call.finish(outcome)
    }
}

/// The turn of an object, while a streaming call is answered later than its method returns.
///
/// ```text
/// Note [A streaming call holds the turn]
/// ======================================
/// Whoever sends streaming calls relies on each of them before it is answered, so in C++ an object starts no other call
/// before a streaming one is answered, and none at all after one has failed. A method that answers before it returns has
/// the object's turn for that long anyway. One that answers later (`Call::defer`), or hands its call on, leaves the turn
/// to the call: two then hold the turn together, the method that runs and the call that is not answered. The one that
/// ends last has it: the method's thread goes on with the next call, or whoever answers passes the turn on. If the call
/// fails, the object is broken before that.
///
/// A call that is canceled is answered by that (nobody relies on it), so it no longer holds the turn, whatever becomes of
/// the duty to answer it. A method that has called `Call::allow_next` has given the turn away: nobody holds it then.
/// ```
pub(super) struct StreamTurn {
    object: Arc<LocalObject>,
    /// Which of the two have let go of the turn.
    gone: AtomicU8,
}

impl StreamTurn {
    /// The method has returned.
    const RETURNED: u8 = 1;
    /// The call has been answered or canceled, or the turn has been given away.
    const ANSWERED: u8 = 2;

    /// Has a call hold the turn until it is [answered](Self::answered) or canceled.
    pub(super) fn new(object: Arc<LocalObject>, cancel: &Cancel) -> Arc<Self> {
        let turn = Arc::new(StreamTurn { object, gone: AtomicU8::new(0) });
        let canceled = turn.clone();
        cancel.on_cancel(move || canceled.answered());
        turn
    }

    /// The method has returned. True if it has the turn now.
    pub(super) fn returned(&self) -> bool {
        self.let_go(Self::RETURNED) & Self::ANSWERED != 0
    }

    /// The call has been answered or canceled. The first time counts.
    pub(super) fn answered(&self) {
        if self.let_go(Self::ANSWERED) == Self::RETURNED {
            self.object.pass_turn();
        }
    }

    /// The method gives the turn away before the call is answered.
    pub(super) fn give_away(&self) {
        self.let_go(Self::ANSWERED);
    }

    /// The call has failed.
    pub(super) fn failed(&self, why: &Exception) {
        self.object.break_stream(why);
    }

    /// Tells who had let go before.
    fn let_go(&self, who: u8) -> u8 {
        self.gone.fetch_or(who, Ordering::AcqRel)
    }
}

impl Scheduled for LocalObject {
    /// Answers calls until none is left, so many have been answered, or a method has given the turn away.
    fn run(self: Arc<Self>, calls: usize) {
        for _ in 0..calls {
            let mut mailbox = self.mailbox.lock();
            let Some(Queued { call, watch }) = mailbox.calls.pop() else {
                mailbox.busy = false;
                return;
            };
            drop(mailbox);
            drop(watch);
            if !self.answer(call) {
                return;
            }
        }
        let pool = self.pool.clone();
        pool.submit(Task::Object(self));
    }

    fn refuse(&self, why: &Exception) {
        let mut mailbox = self.mailbox.lock();
        mailbox.busy = false;
        let calls = mailbox.calls.take_all();
        drop(mailbox);
        for Queued { call, .. } in calls {
            call.fail(why.clone());
        }
    }
}

fn dispatch<S: Any, C: FromServer<S>>(server: &(dyn Any + Send + Sync), call: &mut Call) -> Result<()> {
    C::dispatch(server.downcast_ref().expect("the object was made with this value"), call)
}

impl Drop for LocalObject {
    fn drop(&mut self) {
        // The user's value goes now, or in its turn: see Note [Effects run after unlock].
        crate::sync::assert_unlocked();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::cap::Client;
    use crate::sync::{check_all, spawn, Role};

    struct Nothing;

    impl Server for Nothing {
        fn dispatch(&self, _: &mut Call) -> Result<()> {
            Ok(())
        }
    }

    /// The method returns, the call is answered, and it is canceled: one of them has the turn in the end.
    #[test]
    fn loom_the_turn_of_a_streaming_call_goes_to_one() {
        check_all(|| {
            let pool = Pool::manual();
            let object = Arc::new(LocalObject::new::<_, Client>(Nothing, pool.clone()));
            object.mailbox.lock().busy = true;
            let cancel = Cancel::new();
            cancel.start();
            let turn = StreamTurn::new(object.clone(), &cancel);
            let answered = turn.clone();
            let answering = spawn("answering", Role::User, move || answered.answered()).unwrap();
            let canceling = spawn("canceling", Role::User, move || cancel.cancel(false)).unwrap();
            let has_turn = turn.returned();
            answering.join().unwrap();
            canceling.join().unwrap();
            assert_eq!(object.mailbox.lock().busy, has_turn);
        });
    }
}
