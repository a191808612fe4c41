//! Objects of this vat, and their mailboxes.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::call::CallInfo;
use super::capability::FromServer;
use super::pool::{Pool, Scheduled, Task};
use super::serving::Call;
use crate::error::{Exception, Result};
use crate::promise::cancel;
use crate::sync::{Arc, Mutex, OnceLock, Rank};

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
/// An object is scheduled (a task in its pool, or a thread running it) exactly while `busy` is true: a call
/// that finds it false makes it true and submits the task, and it becomes false in the critical section
/// that finds the queue empty. So no call is left lying, and two threads never run one object unless a
/// method has let the next call start. That method's thread gives its turn away, and ends after the method.
/// ```
pub(crate) struct LocalObject {
    /// The user's value, for whoever has a client of it and wants it back.
    pub(crate) server: Arc<dyn Any + Send + Sync>,
    /// Runs a method of that value, which is its first argument.
    dispatch: Dispatch,
    pool: Pool,
    mailbox: Mutex<Mailbox>,
    /// Why no call is answered any more: a streaming call has failed.
    broken: OnceLock<Exception>,
}

type Dispatch = fn(&(dyn Any + Send + Sync), &mut Call) -> Result<()>;

struct Mailbox {
    calls: VecDeque<CallInfo>,
    busy: bool,
}

impl LocalObject {
    /// An object that a `C` can be a client of: which methods `server` has is known there.
    pub(crate) fn new<S: Any + Send + Sync, C: FromServer<S>>(server: S, pool: Pool) -> Arc<Self> {
        let mailbox = Mutex::new(Rank::Mailbox, Mailbox { calls: VecDeque::new(), busy: false });
        let (server, broken) = (Arc::new(server), OnceLock::new());
        Arc::new(LocalObject { server, dispatch: dispatch::<S, C>, pool, mailbox, broken })
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
        mailbox.calls.push_back(call);
        drop(mailbox);
        if idle {
            self.pool.submit(Task::Object(self.clone()));
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
    pub(crate) fn break_stream(&self, why: &Exception) {
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
        let body = || (self.dispatch)(&*self.server, &mut call);
        let outcome = cancel::with_current(token, || catch_unwind(AssertUnwindSafe(body)));
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        call.finish(outcome)
    }
}

impl Scheduled for LocalObject {
    /// Answers calls until none is left, so many have been answered, or a method has given the turn away.
    fn run(self: Arc<Self>, calls: usize) {
        for _ in 0..calls {
            let mut mailbox = self.mailbox.lock();
            let Some(call) = mailbox.calls.pop_front() else {
                mailbox.busy = false;
                return;
            };
            drop(mailbox);
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
        let calls = std::mem::take(&mut mailbox.calls);
        drop(mailbox);
        for call in calls {
            call.fail(why.clone());
        }
    }
}

fn dispatch<S: Any, C: FromServer<S>>(server: &(dyn Any + Send + Sync), call: &mut Call) -> Result<()> {
    C::dispatch(server.downcast_ref().expect("the object was made with this value"), call)
}

fn panicked(panic: &(dyn Any + Send)) -> Exception {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    Exception::failed(format!("the method panicked: {}", text.unwrap_or("(no message)")))
}

impl Drop for LocalObject {
    fn drop(&mut self) {
        // The user's value goes now: see Note [Effects run after unlock].
        crate::sync::assert_unlocked();
    }
}
