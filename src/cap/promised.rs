//! Promise clients of this vat: calls wait in them until it is known where they go.

use std::fmt;
use std::marker::PhantomData;
use std::mem;

use super::answer::Awaiting;
use super::call::{CallInfo, Mode};
use super::client::{Client, Kind};
use super::port::{Awaited, Name, Sent};
use super::resolution::ResolvedTo;
use super::watchers::{Watcher, Watchers};
use crate::error::Exception;
use crate::promise::cancel::{self, Unwatch};
use crate::promise::Stake;
use crate::queue::Queue;
use crate::sync::{drop_in_turn, in_turn, Arc, Mutex, Rank};

/// A promise client's state. One thread at a time (the one that resolves it) hands the waiting calls on.
///
/// ```text
///            resolve                  nothing waits any more
///  Pending ------------> Draining --------------------------> Resolved
/// ```
///
/// Calls that come while `Draining` wait behind those that came before: that keeps their order, although no
/// lock is held while they are handed on. An embargo is a promise of this kind that is resolved when the
/// `Disembargo` comes back (see Note [Embargo]).
pub(crate) struct PromiseCell {
    state: Mutex<State>,
    /// What it was resolved to, once nothing waits any more.
    pub(crate) resolved: ResolvedTo,
}

enum State {
    Pending(Waiting),
    Draining(Waiting),
    Resolved,
}

#[derive(Default)]
struct Waiting {
    calls: Queue<Queued>,
    watchers: Watchers,
    keeps: Option<Keeps>,
}

/// What must go on as long as anything holds a promise: the call whose results it stands in. Let go when the promise is
/// resolved: those results hold the promise, and would hold themselves.
pub(crate) enum Keeps {
    /// A call made in this vat.
    Call(Stake<dyn Awaiting>),
    /// A call of the peer's.
    Answer(Name),
}

/// A call that waits in a promise.
struct Queued {
    call: CallInfo,
    /// Tells the promise when the call is canceled.
    _watch: Unwatch,
    /// The promise, if it must not go while the call waits: not for a call that is canceled as soon as it can be.
    promise: Option<Arc<PromiseCell>>,
}

impl PromiseCell {
    pub(crate) fn new(keeps: Option<Keeps>) -> Arc<Self> {
        let state = State::Pending(Waiting { keeps, ..Waiting::default() });
        Arc::new(PromiseCell { state: Mutex::new(Rank::Promise, state), resolved: ResolvedTo::default() })
    }

    /// Takes a call to hold until the promise is resolved or the call is canceled, or gives it back with what to
    /// call instead.
    pub(crate) fn deliver(self: &Arc<Self>, call: CallInfo) -> Sent {
        if let Some(client) = self.resolved.get() {
            return Sent::follow(client.clone(), call);
        }
        if self.waits_for(&call) {
            call.fail(circle());
            return Sent::Done;
        }
        let mut state = self.state.lock();
        match &mut *state {
            State::Pending(waiting) | State::Draining(waiting) => {
                let ticket = waiting.calls.next_ticket();
                // A cancellation that comes after this finds the call in the queue, as it takes the lock for that.
                let Some(watch) = call.cancel.watch_unless_canceled(self.when(ticket, Self::let_go)) else {
                    drop(state);
                    call.fail(cancel::canceled());
                    return Sent::Done;
                };
                let keeps = waiting.keeps.is_some()
                    && call.cancel.watch_unless_doomed(self.when(ticket, Self::keep_no_longer));
                let promise = keeps.then(|| self.clone());
                waiting.calls.push(Queued { call, _watch: watch, promise });
                Sent::Done
            }
            State::Resolved => {
                drop(state);
                let client = self.resolved.get().expect("set before the state says Resolved").clone();
                Sent::follow(client, call)
            }
        }
    }

    /// Whether this promise waits for the answer of a call that is to wait in it.
    ///
    /// ```text
    /// Note [Circles]
    /// ==============
    /// A promise can be resolved to a capability in the results of a call that waits in it, directly or by way of
    /// other calls and promises. The call would wait for its own answer for ever, so it fails. To find that out,
    /// the answer of each call knows the promise that the call waits in, and each promise for a capability in
    /// results knows that call: that is a path, since a call waits in one promise, and a promise for one call.
    ///
    /// A circle is closed by a call that comes to wait in some promise: a new promise for its results is waited
    /// in by nobody, and when a promise is resolved, the calls in it are delivered anew. So it is enough to look
    /// then, after the call's own place has been entered: of two threads that close a circle together, the later
    /// one finds it. A call whose results nobody can wait for yet closes none; long pipelines are not looked
    /// through again for each call.
    ///
    /// A circle that leads over a connection is not found here: it waits until one of its calls is canceled.
    /// ```
    fn waits_for(self: &Arc<Self>, call: &CallInfo) -> bool {
        /// More than any chain of calls that makes sense has.
        const MANY: usize = 10_000;
        let Some(answer) = call.responder.route().here() else { return false };
        if !answer.wait_in(Arc::downgrade(self)) {
            return false;
        }
        let mut promise = self.clone();
        for _ in 0..MANY {
            let Some(awaited) = promise.stands_in() else { return false };
            if std::ptr::addr_eq(Arc::as_ptr(&awaited), Arc::as_ptr(answer)) {
                return true;
            }
            let place = awaited.waits_in().map(|promise| Client(Kind::Promise(promise)).resolved());
            match place {
                Some(Client(Kind::Promise(next))) => promise = next,
                _ => return false,
            }
        }
        false
    }

    /// The call in whose results this promise stands, as long as those are not known.
    fn stands_in(&self) -> Option<Arc<dyn Awaiting>> {
        match &*self.state.lock() {
            State::Pending(Waiting { keeps: Some(Keeps::Call(call)), .. })
            | State::Draining(Waiting { keeps: Some(Keeps::Call(call)), .. }) => {
                Some(call.uncounted().clone())
            }
            _ => None,
        }
    }

    /// The answer to the peer that this promise stands in, as long as that is not there.
    pub(super) fn awaited_answer(&self) -> Option<Awaited> {
        match &*self.state.lock() {
            State::Pending(Waiting { keeps: Some(Keeps::Answer(name)), .. }) => Some(name.awaited()),
            _ => None,
        }
    }

    /// Does something with a call that waits, if it still does and the promise is still there.
    fn when(self: &Arc<Self>, ticket: u64, does: fn(&Self, u64)) -> impl FnOnce() + Send + 'static {
        let this = Arc::downgrade(self);
        move || {
            if let Some(this) = this.upgrade() {
                does(&this, ticket);
            }
        }
    }

    /// A call has been canceled: it waits no longer.
    fn let_go(&self, ticket: u64) {
        let mut state = self.state.lock();
        let (State::Pending(waiting) | State::Draining(waiting)) = &mut *state else { return };
        let queued = waiting.calls.remove(ticket);
        drop(state);
        if let Some(queued) = queued {
            queued.call.fail(cancel::canceled());
        }
    }

    /// A call will be canceled as soon as it can be. Until then it waits, as long as anything else holds the promise.
    /// See Note [Wanted answers].
    fn keep_no_longer(&self, ticket: u64) {
        let mut state = self.state.lock();
        let (State::Pending(waiting) | State::Draining(waiting)) = &mut *state else { return };
        let Some(queued) = waiting.calls.get_mut(ticket) else { return };
        if queued.call.params.caps.iter().any(Client::may_be_promise) {
            drop(state);
            return self.let_go(ticket);
        }
        let promise = queued.promise.take();
        drop(state);
        drop(promise);
    }

    pub(crate) fn watch(&self, watcher: Watcher) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Pending(waiting) | State::Draining(waiting) => {
                let useless = waiting.watchers.push(watcher);
                drop(state);
                drop(useless);
            }
            State::Resolved => {
                drop(state);
                watcher.resolved(self.resolved.get().expect("set before the state says Resolved"));
            }
        }
    }

    /// How many watch it, of use or not.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        match &*self.state.lock() {
            State::Pending(waiting) | State::Draining(waiting) => waiting.watchers.len(),
            State::Resolved => 0,
        }
    }

    /// The same for all that watched a promise which has become this one.
    fn watch_all(&self, watchers: Watchers) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Pending(waiting) | State::Draining(waiting) => {
                let useless = waiting.watchers.append(watchers);
                drop(state);
                drop(useless);
            }
            State::Resolved => {
                drop(state);
                watchers.resolved(self.resolved.get().expect("set before the state says Resolved"));
            }
        }
    }

    /// Says what the promise is, and hands on all calls that wait. The first to resolve wins.
    ///
    /// Handing a call on may answer it, and so resolve promises in its results, and so on down a chain of calls.
    /// A long chain takes no deep stack: that is done in turn.
    pub(crate) fn resolve(self: &Arc<Self>, client: Client) {
        let this = self.clone();
        in_turn(move || this.resolve_now(client));
    }

    fn resolve_now(self: &Arc<Self>, client: Client) {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Resolved) {
            State::Pending(waiting) => *state = State::Draining(waiting),
            other => {
                *state = other;
                return;
            }
        }
        drop(state);
        let mut client = client;
        loop {
            // Each time: another thread may be closing a circle meanwhile, in which calls would run for ever.
            client = self.without_circle(client);
            let mut state = self.state.lock();
            let State::Draining(waiting) = &mut *state else {
                unreachable!("only the thread that began to drain ends it");
            };
            if waiting.calls.is_empty() {
                let Waiting { watchers, keeps, .. } = mem::take(waiting);
                let set = self.resolved.set(client.clone());
                debug_assert!(set.is_ok(), "a promise is resolved once");
                *state = State::Resolved;
                drop(state);
                match &client.0 {
                    Kind::Promise(next) if !watchers.is_empty() => next.watch_all(watchers),
                    _ => watchers.resolved(&client),
                }
                match keeps {
                    Some(Keeps::Answer(name)) => name.resolved(),
                    other => drop(other),
                }
                return;
            }
            let calls = waiting.calls.take_all();
            drop(state);
            for Queued { call, _watch, promise: _promise } in calls {
                client.deliver(call, Mode::Queue);
            }
        }
    }

    /// What `client` leads to, or a broken one if that is this promise.
    fn without_circle(self: &Arc<Self>, client: Client) -> Client {
        let last = client.resolved();
        match &last.0 {
            Kind::Promise(cell) if Arc::ptr_eq(cell, self) => Client::broken(circle()),
            _ => last,
        }
    }
}

fn circle() -> Exception {
    Exception::failed("a promise was resolved to itself")
}

impl Drop for PromiseCell {
    fn drop(&mut self) {
        if let Some(client) = self.resolved.take() {
            drop_in_turn(client);
        }
        if let State::Pending(waiting) | State::Draining(waiting) = self.state.get_mut() {
            drop_in_turn(mem::take(waiting));
        }
    }
}

impl fmt::Debug for PromiseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromiseCell({:?})", self.resolved.get())
    }
}

/// The right to say what a promise client is, once. Dropped unused, it breaks the promise.
///
/// `C` is the type of the client: untyped, or one that the compiler generated for an interface.
pub struct ClientFulfiller<C = Client> {
    cell: Option<Arc<PromiseCell>>,
    marker: PhantomData<fn(C)>,
}

impl<C> ClientFulfiller<C> {
    pub(crate) fn new(cell: Arc<PromiseCell>) -> Self {
        ClientFulfiller { cell: Some(cell), marker: PhantomData }
    }

    /// There will be no object: calls that waited, and all to come, fail with `why`.
    pub fn reject(self, why: impl Into<Exception>) {
        self.resolve(Client::broken(why));
    }

    fn resolve(mut self, client: Client) {
        if let Some(cell) = self.cell.take() {
            cell.resolve(client);
        }
    }
}

impl<C: Into<Client>> ClientFulfiller<C> {
    /// The promise is `client`, which may be another promise. Calls that waited are handed on in order, on
    /// this thread; this does not wait for them. Resolving a promise to itself breaks it.
    pub fn fulfill(self, client: C) {
        self.resolve(client.into());
    }
}

impl<C> Drop for ClientFulfiller<C> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            cell.resolve(Client::broken(Exception::failed(
                "the promise was dropped by the side that was to fulfill it",
            )));
        }
    }
}

impl<C> fmt::Debug for ClientFulfiller<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientFulfiller")
    }
}
