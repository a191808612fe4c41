//! The line of callers that wait for room.
//!
//! ```text
//! Note [Room for callers]
//! =======================
//! A caller that finds room, and nobody in line, makes its call at once. Else it goes to the end of the line. Whoever
//! makes room (a transaction that ends a question, a batch that was sent) grants places to the first in line, to as many
//! as there is room for, and wakes those and nobody else. What is granted counts as taken, until the caller has taken it
//! by its own transaction.
//!
//!            enter                 grant                taken
//!   caller ---------> in line ---------------> granted -------->
//!                        | canceled, too late
//!                        '---------------------------> gone
//!
//! Granting, entering and taking are done under the lock of the connection's state, so each sees the numbers as they are.
//! A caller that is granted a place takes it in any case: if it is canceled, or too late, by the time that it runs, it
//! finds the grant first. So a place that is granted is used, and no wake-up is lost. One that has gone before took no
//! place.
//!
//! If a caller has waited for the whole of `Limits::room_timeout`, and nobody was granted a place meanwhile, the line is
//! stalled: who comes then finds room or is refused, at once, until half of the room is free. So a peer that takes nothing
//! keeps a thread waiting once, and not each thread, each time; and so does one that takes a little now and then.
//! ```

use std::collections::VecDeque;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Instant, Mutex, Rank};

/// Callers that wait for room. See Note [Room for callers].
pub(in crate::conn) struct Line {
    /// Somebody is in line, or was granted what it has not taken, or the line is stalled. Changed under the lock.
    in_use: AtomicBool,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    line: VecDeque<Waiting>,
    next_number: u64,
    granted: Granted,
    /// How many places have been granted in all.
    grants: u64,
    stalled: bool,
}

/// What has been granted and not taken yet.
#[derive(Clone, Copy, Default)]
pub(in crate::conn) struct Granted {
    pub(in crate::conn) calls: usize,
    pub(in crate::conn) bytes: usize,
}

struct Waiting {
    number: u64,
    bytes: usize,
    changed: Arc<Condvar>,
}

/// A caller's place in the line. Numbers rise from the front to the end.
#[derive(Clone)]
pub(in crate::conn) struct Ticket {
    number: u64,
    bytes: usize,
    /// How many places had been granted when the caller came.
    grants: u64,
    changed: Arc<Condvar>,
    canceled: Arc<AtomicBool>,
}

/// How a wait in line has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conn) enum Waited {
    /// There is room, which the caller is to take.
    Granted,
    Canceled,
    Late,
}

impl Callers {
    fn is_in_use(&self) -> bool {
        !self.line.is_empty() || self.granted.calls > 0 || self.stalled
    }

    fn is_granted(&self, ticket: &Ticket) -> bool {
        self.line.front().is_none_or(|first| ticket.number < first.number)
    }

    fn leave(&mut self, ticket: &Ticket) {
        if let Ok(at) = self.line.binary_search_by_key(&ticket.number, |waiting| waiting.number) {
            self.line.remove(at);
        }
    }
}

impl Line {
    pub(in crate::conn) fn new() -> Self {
        Line { in_use: AtomicBool::new(false), callers: Mutex::new(Rank::Queue, Callers::default()) }
    }

    /// Whether there is anything to be done for the line.
    pub(in crate::conn) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Whether somebody is to have the next place before any other caller.
    pub(in crate::conn) fn has_others(&self) -> bool {
        self.is_in_use() && {
            let callers = self.callers.lock();
            !callers.line.is_empty() || callers.granted.calls > 0
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut Callers) -> R) -> R {
        let mut callers = self.callers.lock();
        let result = change(&mut callers);
        self.in_use.store(callers.is_in_use(), Ordering::Relaxed);
        result
    }

    /// Enters a caller that wants to send so many bytes. `None` if it would have to wait, and the line is stalled.
    pub(in crate::conn) fn enter(
        &self,
        bytes: usize,
        has_room: impl FnOnce(Granted) -> bool,
    ) -> Option<Ticket> {
        self.change(|callers| {
            if callers.stalled && !(callers.line.is_empty() && has_room(callers.granted)) {
                return None;
            }
            let number = callers.next_number;
            callers.next_number += 1;
            let changed = Arc::new(Condvar::new());
            callers.line.push_back(Waiting { number, bytes, changed: changed.clone() });
            let canceled = Arc::new(AtomicBool::new(false));
            Some(Ticket { number, bytes, grants: callers.grants, changed, canceled })
        })
    }

    /// Grants places to those in front, while there is room beside what has been granted. A stall ends if half of the room
    /// is free.
    pub(in crate::conn) fn grant(&self, is_half_free: bool, mut has_room: impl FnMut(Granted) -> bool) {
        self.change(|callers| {
            callers.stalled &= !is_half_free;
            while !callers.line.is_empty() && has_room(callers.granted) {
                let Some(first) = callers.line.pop_front() else { break };
                callers.grants += 1;
                callers.granted.calls += 1;
                callers.granted.bytes += first.bytes;
                first.changed.notify_one();
            }
        });
    }

    /// Waits until a place is granted, or the caller is [canceled](Self::cancel), or too late.
    pub(in crate::conn) fn wait(&self, ticket: &Ticket, deadline: Option<Instant>) -> Waited {
        let mut callers = self.callers.lock();
        let mut late = false;
        loop {
            if callers.is_granted(ticket) {
                return Waited::Granted;
            }
            let canceled = ticket.canceled.load(Ordering::Relaxed);
            if canceled || late {
                callers.leave(ticket);
                self.in_use.store(callers.is_in_use(), Ordering::Relaxed);
                return if canceled { Waited::Canceled } else { Waited::Late };
            }
            late = ticket.changed.wait_until(&mut callers, deadline);
        }
    }

    /// Has a caller that waits leave the line.
    pub(in crate::conn) fn cancel(&self, ticket: &Ticket) {
        let callers = self.callers.lock();
        ticket.canceled.store(true, Ordering::Relaxed);
        drop(callers);
        ticket.changed.notify_one();
    }

    /// A caller has taken what it was granted.
    pub(in crate::conn) fn taken(&self, ticket: &Ticket) {
        self.change(|callers| {
            callers.granted.calls -= 1;
            callers.granted.bytes -= ticket.bytes;
        });
    }

    /// A caller has waited as long as any is to.
    pub(in crate::conn) fn waited_in_vain(&self, ticket: &Ticket) {
        self.change(|callers| callers.stalled |= callers.grants == ticket.grants);
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::sync::{deadline, Duration};

    const NOW: Duration = Duration::ZERO;

    fn places(most: usize) -> impl FnMut(Granted) -> bool {
        move |granted| granted.calls < most
    }

    fn enter(line: &Line, bytes: usize) -> Ticket {
        line.enter(bytes, |_| false).unwrap()
    }

    fn outcome(line: &Line, ticket: &Ticket) -> Waited {
        line.wait(ticket, Some(deadline(NOW)))
    }

    #[test]
    fn as_many_are_granted_as_there_are_places_first_come_first() {
        let line = Line::new();
        let tickets: Vec<_> = (0..4).map(|_| enter(&line, 1)).collect();
        line.grant(false, places(2));
        line.grant(false, places(2));
        let outcomes: Vec<_> = tickets.iter().map(|ticket| outcome(&line, ticket)).collect();
        assert_eq!(outcomes, [Waited::Granted, Waited::Granted, Waited::Late, Waited::Late]);
        tickets[..2].iter().for_each(|ticket| line.taken(ticket));
        assert!(!line.is_in_use());
    }

    #[test]
    fn bytes_that_were_granted_count_until_they_are_taken() {
        let line = Line::new();
        let tickets: Vec<_> = (0..3).map(|_| enter(&line, 60)).collect();
        let has_room = |granted: Granted| granted.bytes <= 100;
        line.grant(false, has_room);
        assert_eq!(outcome(&line, &tickets[2]), Waited::Late);
        tickets[..2].iter().for_each(|ticket| assert_eq!(outcome(&line, ticket), Waited::Granted));
    }

    #[test]
    fn who_leaves_is_not_granted_what_others_wait_for() {
        let line = Line::new();
        let [first, second] = [enter(&line, 1), enter(&line, 1)];
        line.cancel(&first);
        assert_eq!(outcome(&line, &first), Waited::Canceled);
        line.grant(false, places(1));
        assert_eq!(outcome(&line, &second), Waited::Granted);
    }

    #[test]
    fn who_is_canceled_after_the_grant_takes_the_place() {
        let line = Line::new();
        let ticket = enter(&line, 1);
        line.grant(false, places(1));
        line.cancel(&ticket);
        assert_eq!(outcome(&line, &ticket), Waited::Granted);
    }

    #[test]
    fn in_a_stalled_line_nobody_waits_until_half_of_the_room_is_free() {
        let line = Line::new();
        let ticket = enter(&line, 1);
        assert_eq!(outcome(&line, &ticket), Waited::Late);
        line.waited_in_vain(&ticket);
        // There is room now and then: who finds it takes it, and nobody waits for it.
        for _ in 0..3 {
            assert!(line.enter(1, places(0)).is_none() && line.is_in_use());
            let finds_room = line.enter(1, places(1)).expect("there is room");
            assert!(line.enter(1, places(2)).is_none(), "the other comes first");
            line.grant(false, places(1));
            assert_eq!(outcome(&line, &finds_room), Waited::Granted);
            line.taken(&finds_room);
        }
        line.grant(true, places(0));
        assert!(!line.is_in_use());
        enter(&line, 1);
    }

    #[test]
    fn a_line_that_moves_is_not_stalled() {
        let line = Line::new();
        let [first, second] = [enter(&line, 1), enter(&line, 1)];
        line.grant(false, places(1));
        assert_eq!(outcome(&line, &second), Waited::Late);
        line.waited_in_vain(&second);
        line.taken(&first);
        enter(&line, 1);
    }
}

/// Every order of the threads' steps: no place is lost, and nobody waits while there is one.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, check_most, spawn, JoinHandle, Role};

    /// What stands for the state of a connection: how many places are taken, of one.
    struct Model {
        taken: Mutex<usize>,
        line: Line,
    }

    impl Model {
        fn new(taken: usize) -> Arc<Self> {
            Arc::new(Model { taken: Mutex::new(Rank::Connection, taken), line: Line::new() })
        }

        fn grant(&self, taken: usize) {
            self.line.grant(taken == 0, |granted| taken + granted.calls < 1);
        }

        fn enter(&self) -> Ticket {
            let taken = self.taken.lock();
            let ticket = self.line.enter(1, |_| false).unwrap();
            self.grant(*taken);
            ticket
        }

        /// Waits, takes the place, and gives it back.
        fn call(&self, ticket: &Ticket) -> Waited {
            let waited = self.line.wait(ticket, None);
            if waited == Waited::Granted {
                let mut taken = self.taken.lock();
                self.line.taken(ticket);
                *taken += 1;
                assert_eq!(*taken, 1, "a place is granted once");
                drop(taken);
                self.free();
            }
            waited
        }

        fn free(&self) {
            let mut taken = self.taken.lock();
            *taken -= 1;
            self.grant(*taken);
        }
    }

    fn on_its_own_thread(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        spawn("other", Role::User, run).unwrap()
    }

    #[test]
    fn loom_each_in_line_gets_the_place_in_its_turn() {
        check_most(|| {
            let model = Model::new(1);
            let callers = [0, 1].map(|_| {
                let model = model.clone();
                on_its_own_thread(move || {
                    let ticket = model.enter();
                    assert_eq!(model.call(&ticket), Waited::Granted);
                })
            });
            model.free();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            assert!(!model.line.is_in_use());
        });
    }

    /// The first in line is canceled while the place is freed: it takes that, or the second one does.
    #[test]
    fn loom_the_place_of_one_who_is_canceled_goes_to_the_next() {
        check_most(|| {
            let model = Model::new(1);
            let [first, second] = [model.enter(), model.enter()];
            let caller = {
                let (model, first) = (model.clone(), first.clone());
                on_its_own_thread(move || {
                    model.call(&first);
                })
            };
            let canceler = {
                let model = model.clone();
                on_its_own_thread(move || model.line.cancel(&first))
            };
            model.free();
            assert_eq!(model.call(&second), Waited::Granted);
            caller.join().unwrap();
            canceler.join().unwrap();
            assert!(!model.line.is_in_use());
        });
    }

    #[test]
    fn loom_one_who_is_canceled_leaves_the_line() {
        check_all(|| {
            let model = Model::new(1);
            let ticket = model.enter();
            let canceler = {
                let (model, ticket) = (model.clone(), ticket.clone());
                on_its_own_thread(move || model.line.cancel(&ticket))
            };
            assert_eq!(model.call(&ticket), Waited::Canceled);
            canceler.join().unwrap();
            assert!(!model.line.is_in_use());
        });
    }
}
