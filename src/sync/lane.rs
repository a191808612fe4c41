//! The queue in front of a stage, and the turn to work it off.

use std::collections::vec_deque::{Drain, VecDeque};

use super::{Condvar, Duration, Instant, Mutex, MutexGuard, OnceLock, Rank};

/// An unbounded first-in first-out queue that many threads put into, and one at a time works off: its owner, or a thread
/// that has taken the turn. What bounds it stands where work is admitted, because the threads that put into it must never
/// wait for room (see Note [Threads]).
///
/// ```text
/// Note [Turns]
/// ============
/// The thread that deals with what is in a lane has its *turn*. There is one turn: so a stage takes its steps one after the
/// other, in the order of its queue, whichever threads take them.
///
/// The turn is given back in the same critical section that finds the lane empty. A thread that puts something in
/// afterwards calls `wake`, or takes the turn. So either the thread that has the turn finds the item, or the lane's owner is
/// woken, or the thread that put the item there deals with it. Nothing is left lying, and no thread is woken for what
/// another one has in hand already.
///
/// The owner is a thread of the lane's own, or a task that is started when there is something to do and no other thread has
/// the turn ([`Lane::own_on_demand`]):
///
///   a thread:                                        a task:
///
///             nothing to do                                    something to do, no turn taken
///     Awake ----------------> Asleep                   Absent --------------------------------> Awake
///       ^  <----------------    |                         ^  <--------------------------------   |
///       |         woken         |                         |            nothing to do             |
///       |                                                 |
///       '---> Lingering (both kinds): until a burst is complete, or the owner is pressed
///
/// From any of these it becomes `Ended` once, when the lane is closed and empty. The thread that makes it so ends the stage.
/// ```
pub(crate) struct Lane<T> {
    state: Mutex<Items<T>>,
    changed: Condvar,
    /// Starts the owner, where that is a task. It is called without the lock, and may be called under any lock of lower
    /// rank.
    start: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct Items<T> {
    items: VecDeque<T>,
    closed: bool,
    /// A thread has the turn.
    taken: bool,
    owner: Owner,
    request: Request,
}

/// What the owner of a lane does. See Note [Turns].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// There is none: a task is to be started.
    Absent,
    /// It looks whether there is something to do before it sleeps or leaves. (Or a task is about to start.)
    Awake,
    /// It waits for something to do.
    Asleep,
    /// It waits for more to be put in.
    Lingering,
    /// The stage has ended.
    Ended,
}

/// How the owner is to deal with what is in the lane; each takes precedence over those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// As soon as it comes to it.
    Usual,
    /// It may wait for more, for so long from when there was something to do.
    Linger(Duration),
    /// It is not to linger.
    Now,
    /// It is to take the turn, even if the lane is empty: another thread has left it something that is not in the queue.
    EvenIfEmpty,
}

/// The memory of a longer queue is not kept.
const KEPT_ITEMS: usize = 64;

/// What waiting for the turn of a lane gave.
pub(crate) enum Waited<'a, T> {
    Turn(Turn<'a, T>),
    /// There is nothing to do, and the lane has no owner any more.
    Left,
    /// The lane is closed, and all that was in it has been dealt with. The caller ends the stage.
    Closed,
}

impl<T> Lane<T> {
    pub(crate) fn new() -> Self {
        let items = Items {
            items: VecDeque::new(),
            closed: false,
            taken: false,
            owner: Owner::Awake,
            request: Request::Usual,
        };
        Lane { state: Mutex::new(Rank::Queue, items), changed: Condvar::new(), start: OnceLock::new() }
    }

    /// From now on the owner is a task: `start` is called when one is needed, and each ends when it finds nothing to do.
    /// For a new lane.
    pub(crate) fn own_on_demand(&self, start: impl Fn() + Send + Sync + 'static) {
        let set = self.start.set(Box::new(start));
        debug_assert!(set.is_ok(), "a lane gets its owner once");
        let mut state = self.state.lock();
        state.owner = Owner::Absent;
        self.rouse(state);
    }

    /// Appends all items in order, as one step; gives them back if the lane is closed. Wakes no thread: the caller calls
    /// [`wake`](Self::wake) or [`take_turn`](Self::take_turn) after that.
    pub(crate) fn put_all<I: ExactSizeIterator<Item = T>>(&self, items: I) -> Result<(), I> {
        if items.len() == 0 {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(items);
        }
        state.items.extend(items);
        Ok(())
    }

    /// Takes the turn with an item that has not been put in, if no thread has it and nothing is before that item. Else
    /// appends it. Gives it back if the lane is closed.
    pub(crate) fn take_turn_with(&self, item: T) -> Result<Option<Turn<'_, T>>, T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        Ok((!state.taken).then(|| self.turn(&mut state)))
    }

    /// Appends an item, and wakes the owner if no thread has the turn.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.rouse(state);
        Ok(())
    }

    /// Wakes the owner if there is something to do and no thread has the turn.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.items.is_empty() && state.request != Request::EvenIfEmpty {
            state.request = Request::Now;
        }
        self.rouse(state);
    }

    /// As [`wake`](Self::wake), but the owner may linger for so long, in the expectation of more.
    pub(crate) fn wake_later(&self, linger: Duration) {
        let mut state = self.state.lock();
        let shorter = match state.request {
            Request::Usual => true,
            Request::Linger(known) => linger < known,
            Request::Now | Request::EvenIfEmpty => false,
        };
        if shorter {
            state.request = Request::Linger(linger);
            if state.owner == Owner::Lingering {
                self.changed.notify_one();
            }
        }
        self.rouse(state);
    }

    fn rouse(&self, mut state: MutexGuard<'_, Items<T>>) {
        if state.taken || !state.is_due() {
            return;
        }
        match state.owner {
            Owner::Asleep => {
                drop(state);
                self.changed.notify_one();
            }
            Owner::Lingering if state.presses() => {
                drop(state);
                self.changed.notify_one();
            }
            Owner::Absent => {
                state.owner = Owner::Awake;
                drop(state);
                self.start.get().expect("only a task is ever absent")();
            }
            Owner::Awake | Owner::Lingering | Owner::Ended => {}
        }
    }

    /// Takes the turn, if there is something to do and no thread has it.
    pub(crate) fn take_turn(&self) -> Option<Turn<'_, T>> {
        let mut state = self.state.lock();
        if state.taken || state.items.is_empty() {
            return None;
        }
        Some(self.turn(&mut state))
    }

    fn turn(&self, state: &mut Items<T>) -> Turn<'_, T> {
        state.taken = true;
        Turn { lane: self, at_hand: std::mem::take(&mut state.items), stands: Stands::Held }
    }

    /// Takes the turn once there is something to do and no thread has it, and nothing is to be lingered for. For the
    /// owner, if that is a thread.
    pub(crate) fn wait_turn(&self) -> Waited<'_, T> {
        let mut state = self.state.lock();
        loop {
            if let Some(waited) = self.next_turn(&mut state) {
                return waited;
            }
            state.owner = Owner::Asleep;
            self.changed.wait(&mut state);
            state.owner = Owner::Awake;
        }
    }

    /// Takes the turn, if there is something to do and no thread has it, once nothing is to be lingered for. Else the lane
    /// has no owner any more. For the owner, if that is a task.
    pub(crate) fn turn_or_leave(&self) -> Waited<'_, T> {
        let mut state = self.state.lock();
        self.next_turn(&mut state).unwrap_or_else(|| {
            state.owner = Owner::Absent;
            Waited::Left
        })
    }

    /// The next turn of the owner, which lingers for it if it may. `None` if there is nothing to do for it.
    fn next_turn<'a>(&'a self, state: &mut MutexGuard<'a, Items<T>>) -> Option<Waited<'a, T>> {
        let mut since = None;
        while !state.taken && state.is_due() {
            if let Some(until) = state.lingers_until(&mut since) {
                state.owner = Owner::Lingering;
                self.changed.wait_until(state, Some(until));
                state.owner = Owner::Awake;
                continue;
            }
            let request = std::mem::replace(&mut state.request, Request::Usual);
            if state.items.is_empty() && request != Request::EvenIfEmpty {
                state.owner = Owner::Ended;
                return Some(Waited::Closed);
            }
            return Some(Waited::Turn(self.turn(state)));
        }
        let is_over = state.items.is_empty() && state.request != Request::EvenIfEmpty;
        if is_over || matches!(state.request, Request::Linger(_)) {
            state.request = Request::Usual;
        }
        None
    }

    /// Whether something is in the lane, or a thread has the turn.
    pub(crate) fn is_in_use(&self) -> bool {
        let state = self.state.lock();
        state.taken || !state.items.is_empty()
    }

    /// Lets nothing more in. What is in the lane is still dealt with, and then the stage is ended: by the lane's owner, or,
    /// if this returns true, by the caller.
    #[must_use]
    pub(crate) fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.closed = true;
        if state.end() {
            return true;
        }
        self.rouse(state);
        false
    }

    /// As [`close`](Self::close), but does not wake the owner: the caller calls [`end`](Self::end) when it has worked off
    /// the lane.
    pub(crate) fn close_quietly(&self) {
        self.state.lock().closed = true;
    }

    /// Whether the caller is to end the stage: the lane is closed and empty, and has no owner who will. Else the owner is
    /// woken, if it has something to do.
    #[must_use]
    pub(crate) fn end(&self) -> bool {
        let mut state = self.state.lock();
        let ends = state.end();
        if !ends {
            self.rouse(state);
        }
        ends
    }
}

impl<T> Items<T> {
    /// Whether there is something for the owner to do, if no thread has the turn.
    fn is_due(&self) -> bool {
        self.closed || self.request == Request::EvenIfEmpty || !self.items.is_empty()
    }

    /// Until when the owner lingers, if it may: it found something to do for the first time at `since`.
    fn lingers_until(&self, since: &mut Option<Instant>) -> Option<Instant> {
        let Request::Linger(linger) = self.request else { return None };
        if self.closed {
            return None;
        }
        let now = Instant::now();
        let until = since.get_or_insert(now).checked_add(linger)?;
        (now < until).then_some(until)
    }

    /// Whether the owner is not to linger.
    fn presses(&self) -> bool {
        self.closed || matches!(self.request, Request::Now | Request::EvenIfEmpty)
    }

    /// Ends a stage that has no owner, and nothing left to do. True once.
    fn end(&mut self) -> bool {
        let idle = self.owner == Owner::Absent && !self.taken && self.items.is_empty();
        let ends = idle && self.closed && self.request != Request::EvenIfEmpty;
        if ends {
            self.owner = Owner::Ended;
        }
        ends
    }
}

/// The turn of a lane. See Note [Turns].
pub(crate) struct Turn<'a, T> {
    lane: &'a Lane<T>,
    /// What was in the lane when the thread that has the turn last looked, as far as it is still to be dealt with.
    at_hand: VecDeque<T>,
    stands: Stands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Held,
    /// It has been given back.
    Over,
    /// The same, and the thread that had it is to end the stage.
    Ends,
}

impl<T> Turn<'_, T> {
    /// The next item. Without one, the turn is over.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.look();
        self.at_hand.pop_front()
    }

    /// All that is there. If that is nothing, the turn is over.
    pub(crate) fn all(&mut self) -> Option<Drain<'_, T>> {
        self.look();
        (!self.at_hand.is_empty()).then(|| self.at_hand.drain(..))
    }

    /// All that is there, perhaps nothing. The turn goes on.
    pub(crate) fn rest(&mut self) -> Drain<'_, T> {
        self.at_hand.append(&mut self.lane.state.lock().items);
        self.at_hand.drain(..)
    }

    /// Has something at hand, unless the turn is over.
    fn look(&mut self) {
        if self.stands != Stands::Held || !self.at_hand.is_empty() {
            return;
        }
        if self.at_hand.capacity() > KEPT_ITEMS {
            self.at_hand = VecDeque::new();
        }
        let mut state = self.lane.state.lock();
        // Swapped, so that the memory of both is used again.
        std::mem::swap(&mut state.items, &mut self.at_hand);
        if self.at_hand.is_empty() {
            state.taken = false;
            if state.end() {
                self.stands = Stands::Ends;
            } else {
                self.stands = Stands::Over;
                self.lane.rouse(state);
            }
        }
    }

    /// Whether this thread, whose turn may be over, is to end the stage. True once. To be asked of each turn that is not
    /// the owner's.
    #[must_use]
    pub(crate) fn ends_stage(&mut self) -> bool {
        let ends = self.stands == Stands::Ends;
        if ends {
            self.stands = Stands::Over;
        }
        ends
    }

    /// Gives the turn to the lane's owner, which is to go on, also if the lane is empty.
    pub(crate) fn hand_over(self) {
        self.lane.state.lock().request = Request::EvenIfEmpty;
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        match self.stands {
            Stands::Held => {
                let mut state = self.lane.state.lock();
                while let Some(item) = self.at_hand.pop_back() {
                    state.items.push_front(item);
                }
                state.taken = false;
                self.lane.rouse(state);
            }
            Stands::Over => {}
            Stands::Ends => debug_assert!(super::is_panicking(), "a stage is ended by whoever has to"),
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
