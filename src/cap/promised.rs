//! Promise clients of this vat: calls wait in them until it is known where they go.

use std::fmt;
use std::marker::PhantomData;
use std::mem;

use super::answer::PendingCall;
use super::call::{CallInfo, Mode};
use super::capability::Capability;
use super::client::{Client, Kind};
use super::port::{Awaited, Name, Sent};
use super::resolution::ResolvedTo;
use super::waiting::Waitlist;
use super::watchers::{Watcher, Watchers};
use crate::error::Exception;
use crate::promise::{cancel, Interest};
use crate::sync::{drop_in_turn, in_turn, Arc, Mutex, Rank, Weak};

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
    state: Mutex<PromiseState>,
    /// What it was resolved to, once nothing waits any more.
    pub(crate) resolved: ResolvedTo,
}

enum PromiseState {
    Pending(Waiting),
    Draining(Waiting),
    Resolved,
}

#[derive(Default)]
struct Waiting {
    /// Made when the first call comes.
    calls: Option<Arc<Waitlist>>,
    watchers: Watchers,
    keeps: Option<Keeps>,
    /// The furthest promise that is known to be waited for. See Note [Circles].
    furthest: Weak<PromiseCell>,
}

/// What must go on as long as anything holds a promise: the call whose results it stands in. Let go when the promise is
/// resolved: those results hold the promise, and would hold themselves.
pub(crate) enum Keeps {
    /// A call made in this vat.
    Call(Interest<dyn PendingCall>),
    /// A call of the peer's.
    Answer(Name),
}

impl PromiseCell {
    pub(crate) fn new(keeps: Option<Keeps>) -> Arc<Self> {
        let state = PromiseState::Pending(Waiting { keeps, ..Waiting::default() });
        Arc::new(PromiseCell { state: Mutex::new(Rank::Promise, state), resolved: ResolvedTo::default() })
    }

    /// Takes a call to hold until the promise is resolved or the call is canceled, or gives it back with what to
    /// call instead.
    pub(crate) fn deliver(self: &Arc<Self>, call: CallInfo) -> Sent {
        if let Some(client) = self.resolved.get() {
            return Sent::redirect(client.clone(), call);
        }
        let answer = call.responder.route().here().cloned();
        let mut state = self.state.lock();
        match &mut *state {
            PromiseState::Pending(waiting) | PromiseState::Draining(waiting) => {
                let calls = waiting.calls.get_or_insert_with(|| Waitlist::new(self));
                let canceled = calls.push(call, self, waiting.keeps.is_some());
                drop(state);
                match (canceled, answer) {
                    (Some(call), _) => call.fail(cancel::canceled()),
                    (None, Some(answer)) if answer.has_promises() && self.circle().is_some() => {
                        Waitlist::fail(answer.token(), circle());
                    }
                    (None, _) => {}
                }
                Sent::Done
            }
            PromiseState::Resolved => {
                drop(state);
                let client = self.resolved.get().expect("set before the state says Resolved").clone();
                Sent::redirect(client, call)
            }
        }
    }

    /// Looks for a circle of promises and calls that this promise waits for. Gives a call on it.
    ///
    /// ```text
    /// Note [Circles]
    /// ==============
    /// A promise can be resolved to a capability in the results of a call that waits in it, directly or by way of
    /// other calls and promises. The call would wait for its own answer for ever, so it fails. To find that out,
    /// each call knows where it waits, and each promise for a capability in results knows that call: that is a path,
    /// since a call waits in one promise, and a promise for one call.
    ///
    /// A circle is closed by a call that comes to wait in some promise, or by the calls of a promise that has become
    /// another one: a new promise for a call's results is waited in by nobody. So it is enough to look then, from that
    /// promise on, after the calls have been entered there: of two threads that close a circle together, the later
    /// one finds it. A call whose results nobody can wait for yet closes none; long pipelines are not looked
    /// through again for each call.
    ///
    /// The path can be as long as a peer likes, and be looked along for each call that is added. So whoever has gone along
    /// it leaves a shortcut in each promise on the way, as in Note [Chains of promises]: to the last one that waits for a
    /// call. As long as that is pending, the shortcut holds, unless something on the way was canceled: then all that is
    /// before that fails, and it does no harm to take it for a part of a circle. When it has been resolved, its calls
    /// may wait elsewhere, and the path is followed step by step once more. A circle is found as in that Note. Whatever
    /// leads into one will fail with it, so any call that does may be the one to break it; shortcuts are left only where
    /// there is none, so that they lead past nothing.
    ///
    /// A circle that leads over a connection is not found here: it waits until one of its calls is canceled.
    /// ```
    fn circle(self: &Arc<Self>) -> Option<Arc<dyn PendingCall>> {
        let (mut passed, mut at, mut noted) = (Vec::new(), self.clone(), None);
        while let Some(next) = at.waits_for() {
            #[cfg(test)]
            count_step();
            passed.push(mem::replace(&mut at, next));
            if noted == Some(Arc::as_ptr(&at)) {
                return at.stands_in().map(|(call, _)| call);
            }
            if passed.len().is_power_of_two() {
                noted = Some(Arc::as_ptr(&at));
            }
        }
        let last = passed.pop()?;
        for promise in passed {
            promise.leads_past(&last);
        }
        None
    }

    /// The promise that whatever this one becomes waits for, the furthest that is known.
    fn waits_for(&self) -> Option<Arc<PromiseCell>> {
        let (call, furthest) = self.stands_in()?;
        match furthest.upgrade().map(|furthest| Client(Kind::Promise(furthest)).resolved().0) {
            Some(Kind::Promise(furthest)) => Some(furthest),
            _ => Waitlist::promise_of(call.token()),
        }
    }

    fn leads_past(&self, promise: &Arc<PromiseCell>) {
        let mut state = self.state.lock();
        if let PromiseState::Pending(waiting) | PromiseState::Draining(waiting) = &mut *state {
            waiting.furthest = Arc::downgrade(promise);
        }
    }

    /// The call in whose results this promise stands, as long as those are not known, and the shortcut.
    fn stands_in(&self) -> Option<(Arc<dyn PendingCall>, Weak<PromiseCell>)> {
        match &*self.state.lock() {
            PromiseState::Pending(Waiting { keeps: Some(Keeps::Call(call)), furthest, .. })
            | PromiseState::Draining(Waiting { keeps: Some(Keeps::Call(call)), furthest, .. }) => {
                Some((call.uncounted().clone(), furthest.clone()))
            }
            _ => None,
        }
    }

    /// The answer to the peer that this promise stands in, as long as that is not there.
    pub(super) fn awaited_answer(&self) -> Option<Awaited> {
        match &*self.state.lock() {
            PromiseState::Pending(Waiting { keeps: Some(Keeps::Answer(name)), .. }) => Some(name.awaited()),
            _ => None,
        }
    }

    /// How many calls wait in it.
    pub(crate) fn waiting_calls(&self) -> usize {
        match &*self.state.lock() {
            PromiseState::Pending(waiting) | PromiseState::Draining(waiting) => {
                waiting.calls.as_ref().map_or(0, |calls| calls.len())
            }
            PromiseState::Resolved => 0,
        }
    }

    pub(crate) fn watch(&self, watcher: Watcher) {
        let mut state = self.state.lock();
        match &mut *state {
            PromiseState::Pending(waiting) | PromiseState::Draining(waiting) => {
                let useless = waiting.watchers.push(watcher);
                drop(state);
                drop(useless);
            }
            PromiseState::Resolved => {
                drop(state);
                watcher.resolved(self.resolved.get().expect("set before the state says Resolved"));
            }
        }
    }

    /// How many watch it, of use or not.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        match &*self.state.lock() {
            PromiseState::Pending(waiting) | PromiseState::Draining(waiting) => waiting.watchers.len(),
            PromiseState::Resolved => 0,
        }
    }

    /// The same for all that watched a promise which has become this one.
    fn watch_all(&self, watchers: Watchers) {
        let mut state = self.state.lock();
        match &mut *state {
            PromiseState::Pending(waiting) | PromiseState::Draining(waiting) => {
                let useless = waiting.watchers.append(watchers);
                drop(state);
                drop(useless);
            }
            PromiseState::Resolved => {
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
        match mem::replace(&mut *state, PromiseState::Resolved) {
            PromiseState::Pending(waiting) => *state = PromiseState::Draining(waiting),
            other => {
                *state = other;
                return;
            }
        }
        drop(state);
        let mut client = client;
        // Calls on their way.
        let mut calls = None;
        loop {
            // Each time: another thread may be closing a circle meanwhile, in which calls would run for ever.
            client = self.without_circle(client);
            let Some(list) = calls.take().or_else(|| self.take_calls(&client)) else { return };
            match &client.0 {
                Kind::Promise(next) => calls = next.take_over(list).err(),
                _ => list.take_all().for_each(|call| client.deliver(call, Mode::Queue)),
            }
        }
    }

    /// Takes out the calls that wait. If there are none, the promise is resolved.
    fn take_calls(&self, client: &Client) -> Option<Arc<Waitlist>> {
        let mut state = self.state.lock();
        let PromiseState::Draining(waiting) = &mut *state else {
            unreachable!("only the thread that began to drain ends it");
        };
        if let Some(calls) = waiting.calls.take() {
            return Some(calls);
        }
        let Waiting { watchers, keeps, .. } = mem::take(waiting);
        let set = self.resolved.set(client.clone());
        debug_assert!(set.is_ok(), "a promise is resolved once");
        *state = PromiseState::Resolved;
        drop(state);
        match &client.0 {
            Kind::Promise(next) if !watchers.is_empty() => next.watch_all(watchers),
            _ => watchers.resolved(client),
        }
        match keeps {
            Some(Keeps::Answer(name)) => name.resolved(),
            other => drop(other),
        }
        None
    }

    /// Calls that waited in a promise which has become this one wait here from now on, behind those that do already. Given
    /// back if this promise is resolved.
    fn take_over(self: &Arc<Self>, calls: Arc<Waitlist>) -> Result<(), Arc<Waitlist>> {
        let mut state = self.state.lock();
        let (PromiseState::Pending(waiting) | PromiseState::Draining(waiting)) = &mut *state else {
            return Err(calls);
        };
        let keeps = waiting.keeps.is_some();
        let (calls, left) = match waiting.calls.take() {
            Some(before) => Waitlist::join(before, calls, self, keeps),
            None => {
                let left = calls.becomes(self, keeps);
                (calls, left)
            }
        };
        waiting.calls = Some(calls);
        drop(state);
        left.fail();
        if let Some(call) = self.circle() {
            Waitlist::fail(call.token(), circle());
        }
        Ok(())
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
        if let PromiseState::Pending(waiting) | PromiseState::Draining(waiting) = self.state.get_mut() {
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

/// Counts a step of what must take near-linear time.
#[cfg(test)]
pub(super) fn count_step() {
    tests::STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(test)]
mod tests;
