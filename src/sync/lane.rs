//! The queue in front of a stage, and the turn to work it off.

use std::collections::VecDeque;

use super::{Condvar, Duration, Instant, Mutex, MutexGuard, Rank};

/// An unbounded first-in first-out queue that many threads put into, and one at a time works off: its own thread,
/// or one that has borrowed the turn. What bounds it stands where work is admitted, because the threads that put
/// into it must never wait for room (see Note [Threads]).
///
/// ```text
/// Note [Turns]
/// ============
/// Who deals with what is in a lane has its *turn*. There is one: so a stage takes its steps one after the
/// other, in the order of its queue, whichever threads take them.
///
/// The turn is given back in the same critical section that finds the lane empty. Who puts something in
/// afterwards calls `wake`, or takes the turn: so either whoever has the turn finds it, or the lane's own
/// thread is woken, or whoever put it there deals with it. Nothing is left lying, and nobody is woken for
/// what is in hand already.
/// ```
pub(crate) struct Lane<T> {
    state: Mutex<Items<T>>,
    changed: Condvar,
}

struct Items<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Somebody has the turn.
    taken: bool,
    /// Whoever had the turn has left something to the lane's own thread that is not in the queue.
    left: bool,
    /// Whether the lane's own thread sleeps.
    asleep: bool,
    /// Whether it waits for more to be put in.
    lingers: bool,
    /// How long it may, from when there was something to do.
    linger: Option<Duration>,
    /// It is not to linger.
    hurry: bool,
}

/// What waiting for the turn of a lane gave.
pub(crate) enum Waited<'a, T> {
    Turn(Turn<'a, T>),
    TimedOut,
    /// The lane is closed, and all that was in it has been dealt with.
    Closed,
}

impl<T> Lane<T> {
    pub(crate) fn new() -> Self {
        let items = Items {
            items: VecDeque::new(),
            closed: false,
            taken: false,
            left: false,
            asleep: false,
            lingers: false,
            linger: None,
            hurry: false,
        };
        Lane { state: Mutex::new(Rank::Queue, items), changed: Condvar::new() }
    }

    /// Appends all items in order, as one step; gives them back if the lane is closed. Wakes nobody: whoever
    /// puts something in calls [`wake`](Self::wake) or [`take_turn`](Self::take_turn) after that.
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

    /// Takes the turn with an item that has not been put in, if nobody has it and nothing is before that item. Else
    /// appends it. Gives it back if the lane is closed.
    pub(crate) fn take_turn_with(&self, item: T) -> Result<Option<Turn<'_, T>>, T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        Ok((!state.taken).then(|| self.turn(&mut state)))
    }

    /// Appends an item, and wakes the lane's own thread if nobody has the turn.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.rouse(state);
        Ok(())
    }

    /// Wakes the lane's own thread if there is something to do and nobody has the turn.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.hurry = !state.items.is_empty();
        self.rouse(state);
    }

    /// Gives the lane's own thread a turn, also if the lane is empty.
    pub(crate) fn call(&self) {
        let mut state = self.state.lock();
        state.left = true;
        self.rouse(state);
    }

    /// As [`wake`](Self::wake), but its thread may linger for so long, in the expectation of more.
    pub(crate) fn wake_later(&self, linger: Duration) {
        let mut state = self.state.lock();
        if state.linger.is_none_or(|known| linger < known) {
            state.linger = Some(linger);
            if state.lingers {
                self.changed.notify_one();
            }
        }
        self.rouse(state);
    }

    fn rouse(&self, state: MutexGuard<'_, Items<T>>) {
        let waits = state.asleep || (state.lingers && state.presses());
        let wake = waits && !state.taken && state.due();
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Takes the turn, if there is something to do and nobody has it.
    pub(crate) fn take_turn(&self) -> Option<Turn<'_, T>> {
        let mut state = self.state.lock();
        if state.taken || state.items.is_empty() {
            return None;
        }
        Some(self.turn(&mut state))
    }

    fn turn(&self, state: &mut Items<T>) -> Turn<'_, T> {
        state.taken = true;
        Turn { lane: self, at_hand: std::mem::take(&mut state.items), over: false }
    }

    /// Takes the turn once there is something to do and nobody has it, and nothing is to be lingered for. For the lane's
    /// own thread.
    pub(crate) fn wait_turn(&self, deadline: Option<Instant>) -> Waited<'_, T> {
        let mut state = self.state.lock();
        let mut since = None;
        loop {
            if !state.taken && state.due() {
                if let Some(until) = state.lingers_until(&mut since) {
                    state.lingers = true;
                    self.changed.wait_until(&mut state, Some(until));
                    state.lingers = false;
                    continue;
                }
                (state.linger, state.hurry) = (None, false);
                if state.items.is_empty() && !state.left {
                    return Waited::Closed;
                }
                state.left = false;
                return Waited::Turn(self.turn(&mut state));
            }
            (state.linger, since) = (None, None);
            state.asleep = true;
            let timed_out = self.changed.wait_until(&mut state, deadline);
            state.asleep = false;
            if timed_out && !state.due() {
                return Waited::TimedOut;
            }
        }
    }

    /// Lets nothing more in. What is in the lane is still dealt with.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

impl<T> Items<T> {
    /// Whether there is something for the lane's own thread to do, if nobody has the turn.
    fn due(&self) -> bool {
        self.closed || self.left || !self.items.is_empty()
    }

    /// Until when the lane's own thread lingers, if it may: it found something to do for the first time at `since`.
    fn lingers_until(&self, since: &mut Option<Instant>) -> Option<Instant> {
        let linger = self.linger.filter(|_| !self.presses())?;
        let now = Instant::now();
        let until = since.get_or_insert(now).checked_add(linger)?;
        (now < until).then_some(until)
    }

    /// Whether the lane's own thread is not to linger.
    fn presses(&self) -> bool {
        self.closed || self.left || self.hurry
    }
}

/// The turn of a lane. See Note [Turns].
pub(crate) struct Turn<'a, T> {
    lane: &'a Lane<T>,
    /// What was in the lane when whoever has the turn last looked, as far as it is still to be dealt with.
    at_hand: VecDeque<T>,
    /// It has been given back.
    over: bool,
}

impl<T> Turn<'_, T> {
    /// The next item; without one, the turn is over.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.look();
        self.at_hand.pop_front()
    }

    /// All that is there; if that is nothing, the turn is over.
    pub(crate) fn all(&mut self) -> Option<VecDeque<T>> {
        self.look();
        (!self.at_hand.is_empty()).then(|| std::mem::take(&mut self.at_hand))
    }

    /// Takes back what [`all`](Self::all) gave, empty: memory to be used again.
    pub(crate) fn reuse(&mut self, mut emptied: VecDeque<T>) {
        /// More than is there while few put something in.
        const MANY: usize = 64;
        emptied.clear();
        if self.at_hand.is_empty() && emptied.capacity() <= MANY {
            self.at_hand = emptied;
        }
    }

    /// All that is there, perhaps nothing. The turn goes on.
    pub(crate) fn rest(&mut self) -> VecDeque<T> {
        let mut rest = std::mem::take(&mut self.at_hand);
        rest.append(&mut self.lane.state.lock().items);
        rest
    }

    /// Has something at hand, unless the turn is over.
    fn look(&mut self) {
        if self.over || !self.at_hand.is_empty() {
            return;
        }
        let mut state = self.lane.state.lock();
        // Swapped, so that the memory of both is used again.
        std::mem::swap(&mut state.items, &mut self.at_hand);
        if self.at_hand.is_empty() {
            self.over = true;
            state.taken = false;
            self.lane.rouse(state);
        }
    }

    /// Gives the turn to the lane's own thread, which is to go on, also if the lane is empty.
    pub(crate) fn hand_over(self) {
        self.lane.state.lock().left = true;
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            let mut state = self.lane.state.lock();
            while let Some(item) = self.at_hand.pop_back() {
                state.items.push_front(item);
            }
            state.taken = false;
            self.lane.rouse(state);
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn one_turn_at_a_time_which_ends_with_the_items() {
        let lane = Lane::new();
        assert!(lane.take_turn().is_none());
        lane.put_all([1, 2].into_iter()).unwrap();
        let mut turn = lane.take_turn().unwrap();
        assert!(lane.take_turn().is_none());
        assert_eq!([turn.next(), turn.next(), turn.next()], [Some(1), Some(2), None]);
        lane.put_all([3].into_iter()).unwrap();
        assert_eq!(turn.next(), None, "it is over");
        let mut turn = lane.take_turn().unwrap();
        assert_eq!(turn.all().unwrap(), [3]);
        assert_eq!(turn.all(), None);
    }

    #[test]
    fn what_is_left_is_the_own_threads() {
        let lane = Lane::new();
        lane.put_all([1].into_iter()).unwrap();
        let mut turn = lane.take_turn().unwrap();
        assert_eq!(turn.next(), Some(1));
        turn.hand_over();
        assert!(lane.take_turn().is_none(), "there is nothing in the lane");
        let Waited::Turn(mut turn) = lane.wait_turn(None) else { panic!("something was left") };
        assert_eq!(turn.next(), None);
    }

    #[test]
    fn drains_after_close() {
        let lane = Lane::new();
        lane.put_all([1].into_iter()).unwrap();
        lane.close();
        assert_eq!(lane.push(2), Err(2));
        assert_eq!(lane.put_all([3].into_iter()).unwrap_err().collect::<Vec<_>>(), [3]);
        let Waited::Turn(mut turn) = lane.wait_turn(None) else { panic!("something is in it") };
        assert_eq!(turn.all().unwrap(), [1]);
        drop(turn);
        assert!(matches!(lane.wait_turn(None), Waited::Closed));
    }

    #[test]
    fn a_deadline_that_passed_gives_no_turn() {
        let lane = Lane::<u8>::new();
        assert!(matches!(lane.wait_turn(Some(Instant::now())), Waited::TimedOut));
    }
}

/// Every order of the threads' steps: nothing is left lying, and nobody sleeps on.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, spawn, Arc, Role};

    type Log = Arc<Mutex<Vec<u8>>>;

    fn beside(run: impl FnOnce() + Send + 'static) -> crate::sync::JoinHandle<()> {
        spawn("beside", Role::User, run).unwrap()
    }

    fn log() -> Log {
        Arc::new(Mutex::new(Rank::Promise, Vec::new()))
    }

    fn own_thread(lane: &Lane<u8>, log: &Log) {
        while let Waited::Turn(mut turn) = lane.wait_turn(None) {
            while let Some(item) = turn.next() {
                log.lock().push(item);
            }
        }
    }

    #[test]
    fn loom_a_borrower_and_the_own_thread_deal_with_all() {
        check_all(|| {
            let (lane, log) = (Arc::new(Lane::new()), log());
            let (lanes, logs) = (lane.clone(), log.clone());
            let borrower = beside(move || {
                if lanes.put_all([1, 2].into_iter()).is_err() {
                    return;
                }
                if let Some(mut turn) = lanes.take_turn() {
                    while let Some(item) = turn.next() {
                        logs.lock().push(item);
                    }
                }
            });
            let lanes = lane.clone();
            let pusher = beside(move || {
                lanes.push(3).unwrap();
                lanes.close();
            });
            own_thread(&lane, &log);
            pusher.join().unwrap();
            borrower.join().unwrap();
            // What came too late for the closed lane was refused.
            let log = log.lock().clone();
            assert!([vec![3], vec![1, 2, 3], vec![3, 1, 2]].contains(&log), "{log:?}");
        });
    }

    #[test]
    fn loom_what_is_handed_over_is_taken_up() {
        check_all(|| {
            let (lane, log) = (Arc::new(Lane::new()), log());
            let lanes = lane.clone();
            let borrower = beside(move || {
                lanes.put_all([1].into_iter()).unwrap();
                if let Some(mut turn) = lanes.take_turn() {
                    assert_eq!(turn.next(), Some(1));
                    turn.hand_over();
                }
            });
            let Waited::Turn(turn) = lane.wait_turn(None) else { panic!("it is not closed") };
            drop(turn);
            borrower.join().unwrap();
            drop(log);
        });
    }
}
