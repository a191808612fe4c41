//! The calls that wait in a promise of this vat.
//!
//! ```text
//! Note [Calls that wait]
//! ======================
//! A promise can become another pending one, and so on: a peer can make a chain as long as it likes while calls wait in
//! it. So the calls are not handed on one by one then: they stay in their list, which becomes that of the next promise.
//! If calls wait there already, the shorter list is moved into the longer one, so that each call is moved
//! O(log n) times, whatever becomes what.
//!
//! - Order: the calls of the promise that has become the next one go behind those that wait there by then, in order.
//!   Calls that are made on either promise after that go behind both. A promise says what it has become only when its own
//!   list is empty, so no call that is made through it later comes to the next one's list first.
//! - A call knows its list and its ticket there (`Cancel::wait_in`), so that it can leave at any time, and is told of a
//!   cancellation wherever it has been moved to. It is entered and moved under the lock of the list it comes to. While
//!   it is in no list, a cancellation finds nothing; whoever enters it next sees that it was canceled.
//! - As long as any call waits that is not to be canceled as soon as it can be, the list holds its promise, if that
//!   keeps something going (`Keeps`). See Note [Wanted answers].
//! ```

use std::any::Any;
use std::mem;

use super::call::CallInfo;
use super::client::Client;
use super::promised::PromiseCell;
use crate::error::Exception;
use crate::promise::cancel::{self, WaitsIn};
use crate::promise::Token;
use crate::queue::Queue;
use crate::sync::{drop_in_turn, Arc, Mutex, Rank, Weak};

/// The calls that wait in a promise. See Note [Calls that wait].
pub(crate) struct Waitlist(Mutex<List>);

struct List {
    calls: Queue<Queued>,
    /// How many of the calls have the promise held.
    holding: usize,
    /// The promise that the calls wait in.
    promise: Weak<PromiseCell>,
    /// The same, as long as it must not go.
    held: Option<Arc<PromiseCell>>,
}

/// A call that waits in a promise.
struct Queued {
    call: CallInfo,
    /// Whether it has the promise held: until it is to be canceled as soon as it can be.
    holds: bool,
}

/// What the list of a promise has left when it became that of another one: to be dropped outside of any lock.
#[must_use]
pub(super) struct Left {
    /// Calls that were canceled meanwhile.
    canceled: Vec<CallInfo>,
    _held: [Option<Arc<PromiseCell>>; 2],
}

impl Left {
    /// Answers the calls that were canceled.
    pub(super) fn fail(self) {
        self.canceled.into_iter().for_each(|call| call.fail(cancel::canceled()));
    }
}

impl List {
    /// Has the promise held, or not, as the calls that wait want it. Gives what is held no longer.
    fn hold(&mut self, promise: &Arc<PromiseCell>, keeps: bool) -> Option<Arc<PromiseCell>> {
        self.promise = Arc::downgrade(promise);
        let hold = keeps && self.holding > 0;
        mem::replace(&mut self.held, hold.then(|| promise.clone()))
    }

    /// A call has left, or has the promise held no longer. Gives the promise if that is held no longer.
    #[must_use]
    fn let_go(&mut self, held: bool) -> Option<Arc<PromiseCell>> {
        self.holding -= usize::from(held);
        if self.holding == 0 {
            self.held.take()
        } else {
            None
        }
    }
}

impl Waitlist {
    pub(super) fn new(promise: &Arc<PromiseCell>) -> Arc<Self> {
        let promise = Arc::downgrade(promise);
        let list = List { calls: Queue::default(), holding: 0, promise, held: None };
        Arc::new(Waitlist(Mutex::new(Rank::Mailbox, list)))
    }

    /// Appends a call that is to wait in `promise`, which `keeps` something going. Gives the call back if it is
    /// canceled. May be called under the lock of the promise.
    pub(super) fn push(
        self: &Arc<Self>,
        call: CallInfo,
        promise: &Arc<PromiseCell>,
        keeps: bool,
    ) -> Option<CallInfo> {
        let mut list = self.0.lock();
        let Some(holds) = call.cancel.wait_in(self.as_place(), list.calls.next_ticket()) else {
            return Some(call);
        };
        list.calls.push(Queued { call, holds });
        list.holding += usize::from(holds);
        if keeps && holds && list.held.is_none() {
            list.held = Some(promise.clone());
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().calls.len()
    }

    fn as_place(self: &Arc<Self>) -> Weak<dyn WaitsIn> {
        Arc::<Self>::downgrade(self) as _
    }

    /// The calls wait in `promise` from now on. May be called under the lock of that.
    pub(super) fn becomes(&self, promise: &Arc<PromiseCell>, keeps: bool) -> Left {
        let held = self.0.lock().hold(promise, keeps);
        Left { canceled: Vec::new(), _held: [held, None] }
    }

    /// Makes one list of two that are to wait in `promise`, `back` behind `front`: one of them. May be called under the
    /// lock of the promise.
    pub(super) fn join(
        front: Arc<Self>,
        back: Arc<Self>,
        promise: &Arc<PromiseCell>,
        keeps: bool,
    ) -> (Arc<Self>, Left) {
        let back_is_longer = front.len() < back.len();
        let (few, many) = if back_is_longer { (front, back) } else { (back, front) };
        let (calls, held) = {
            let mut few = few.0.lock();
            few.holding = 0;
            (few.calls.take_all(), few.held.take())
        };
        let mut list = many.0.lock();
        let mut canceled = Vec::new();
        let mut enter = |Queued { call, holds }: Queued| {
            #[cfg(test)]
            super::promised::count_step();
            let ticket = match back_is_longer {
                true => list.calls.next_ticket_in_front(),
                false => list.calls.next_ticket(),
            };
            let Some(wanted) = call.cancel.wait_in(many.as_place(), ticket) else {
                return canceled.push(call);
            };
            // What `doomed` does, if it came too late to find the call in the list that it was in.
            if holds && !wanted && holds_promises(&call) {
                return canceled.push(call);
            }
            list.holding += usize::from(wanted);
            let queued = Queued { call, holds: wanted };
            match back_is_longer {
                true => list.calls.push_in_front(queued),
                false => _ = list.calls.push(queued),
            }
        };
        if back_is_longer {
            calls.rev().for_each(&mut enter);
        } else {
            calls.for_each(&mut enter);
        }
        let before = list.hold(promise, keeps);
        drop(list);
        (many, Left { canceled, _held: [held, before] })
    }

    /// Takes out all calls, in order, to be handed on.
    pub(super) fn take_all(&self) -> impl Iterator<Item = CallInfo> {
        let mut list = self.0.lock();
        list.holding = 0;
        let (calls, held) = (list.calls.take_all(), list.held.take());
        drop(list);
        drop(held);
        calls.map(|Queued { call, .. }| call)
    }

    /// The promise that a call waits in, if it waits in any.
    pub(super) fn promise_of(call: &Token) -> Option<Arc<PromiseCell>> {
        let (place, ticket) = call.waits_in()?;
        let this = place.into_any().downcast::<Waitlist>().ok()?;
        let mut list = this.0.lock();
        list.calls.get_mut(ticket)?;
        list.promise.upgrade()
    }

    /// Takes a call out of the list that it waits in, and answers it. Nothing happens while it is moved: whoever moves it
    /// looks for circles after that.
    pub(super) fn fail(call: &Token, why: Exception) {
        let mut before: Option<(Arc<Waitlist>, u64)> = None;
        while let Some((place, ticket)) = call.waits_in() {
            let Ok(this) = place.into_any().downcast::<Waitlist>() else { return };
            if let Some(queued) = this.remove(ticket) {
                return queued.call.fail(why);
            }
            // Again if it has been moved meanwhile.
            if before.is_some_and(|before| Arc::ptr_eq(&before.0, &this) && before.1 == ticket) {
                return;
            }
            before = Some((this, ticket));
        }
    }

    fn remove(&self, ticket: u64) -> Option<Queued> {
        let mut list = self.0.lock();
        let queued = list.calls.remove(ticket)?;
        let held = list.let_go(queued.holds);
        drop(list);
        drop(held);
        Some(queued)
    }
}

impl WaitsIn for Waitlist {
    fn canceled(self: Arc<Self>, ticket: u64) {
        if let Some(queued) = self.remove(ticket) {
            queued.call.fail(cancel::canceled());
        }
    }

    /// Until it can be canceled it waits, as long as anything else holds the promise. See Note [Wanted answers].
    fn doomed(self: Arc<Self>, ticket: u64) {
        let mut list = self.0.lock();
        let Some(queued) = list.calls.get_mut(ticket) else { return };
        if holds_promises(&queued.call) {
            drop(list);
            return self.canceled(ticket);
        }
        let held = mem::take(&mut queued.holds);
        let held = list.let_go(held);
        drop(list);
        drop(held);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

fn holds_promises(call: &CallInfo) -> bool {
    call.params.caps.iter().any(Client::may_be_promise)
}

impl Drop for Waitlist {
    fn drop(&mut self) {
        let calls = &mut self.0.get_mut().calls;
        if !calls.is_empty() {
            drop_in_turn(mem::take(calls));
        }
    }
}
