//! Mutexes that know their place in the lock order, and the condition variable that goes with them.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use super::{per_thread, Instant};

/// Where a mutex stands in the order in which a thread may take locks. See Note [Lock order].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    /// The set of connections of a vat or listener.
    Vat = 1,
    /// The state of a connection: the four tables. Never two at once.
    Connection = 2,
    /// A promise's state.
    Promise = 3,
    /// An object's mailbox.
    Mailbox = 4,
    /// Whether a call was canceled, and who wants to know.
    Cancel = 5,
    /// A pool of threads.
    Pool = 6,
    /// A queue between two stages, and the counters beside it.
    Queue = 7,
    /// The timer's list of deadlines.
    #[cfg(not(any(shuttle, loom)))]
    Timer = 8,
    /// The list of memory to be used again: messages may be dropped under any other lock.
    #[cfg(not(any(shuttle, loom)))]
    Memory = 9,
}

per_thread! {
    /// One bit for each rank that this thread holds.
    static HELD: Cell<u16> = Cell::new(0);
}

fn acquire(rank: Rank) {
    if cfg!(debug_assertions) {
        let held = HELD.with(Cell::get);
        assert!(
            held >> (rank as u8) == 0,
            "lock order: a thread that holds ranks {held:#b} takes {rank:?} ({})",
            rank as u8
        );
        HELD.with(|h| h.set(held | 1 << (rank as u8)));
    }
}

fn release(rank: Rank) {
    if cfg!(debug_assertions) {
        HELD.with(|h| h.set(h.get() & !(1 << (rank as u8))));
    }
}

/// Panics in debug builds if this thread holds any lock of this crate: what follows is foreign code.
#[track_caller]
pub(crate) fn assert_unlocked() {
    if cfg!(debug_assertions) && !std::thread::panicking() {
        let held = HELD.with(Cell::get);
        assert!(held == 0, "foreign code would run under locks of ranks {held:#b}");
    }
}

#[cfg(not(any(shuttle, loom)))]
mod raw {
    pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};

    pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
        m.lock()
    }

    pub(super) fn get_mut<T>(m: &mut Mutex<T>) -> &mut T {
        m.get_mut()
    }

    pub(super) fn wait<'a, T>(c: &Condvar, mut g: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        c.wait(&mut g);
        g
    }

    pub(super) fn wait_until<'a, T>(
        c: &Condvar,
        mut g: MutexGuard<'a, T>,
        deadline: std::time::Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        let timed_out = c.wait_until(&mut g, deadline).timed_out();
        (g, timed_out)
    }
}

#[cfg(any(shuttle, loom))]
mod raw {
    #[cfg(loom)]
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
    #[cfg(shuttle)]
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};

    pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
        m.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn get_mut<T>(m: &mut Mutex<T>) -> &mut T {
        m.get_mut().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn wait<'a, T>(c: &Condvar, g: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        c.wait(g).unwrap_or_else(|e| e.into_inner())
    }

    /// Time stands still under the model checker: a deadline never passes.
    pub(super) fn wait_until<'a, T>(
        c: &Condvar,
        g: MutexGuard<'a, T>,
        _deadline: std::time::Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        (wait(c, g), false)
    }
}

/// A mutual exclusion lock with a [`Rank`]. Not poisoned by a panic: what it guards is consistent whenever
/// it is unlocked, because nothing foreign runs under it.
pub(crate) struct Mutex<T> {
    rank: Rank,
    raw: raw::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Mutex { rank, raw: raw::Mutex::new(value) }
    }

    /// Locks, waiting as long as another thread holds the lock.
    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        acquire(self.rank);
        MutexGuard { rank: self.rank, raw: Some(raw::lock(&self.raw)) }
    }

    /// What it guards: nobody else can have locked it.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        raw::get_mut(&mut self.raw)
    }
}

/// Proof that a [`Mutex`] is locked; unlocks when dropped.
pub(crate) struct MutexGuard<'a, T> {
    rank: Rank,
    raw: Option<raw::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.raw.as_ref().expect("a guard is empty only inside a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.raw.as_mut().expect("a guard is empty only inside a wait")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.raw = None;
        release(self.rank);
    }
}

/// A condition variable.
pub(crate) struct Condvar(raw::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(raw::Condvar::new())
    }

    /// Unlocks, sleeps until notified (or for no reason), and locks again.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let raw = guard.raw.take().expect("a guard is empty only inside a wait");
        guard.raw = Some(raw::wait(&self.0, raw));
    }

    /// As [`wait`](Self::wait), until `deadline` at the latest, or without one. True if it has passed.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.wait(guard);
            return false;
        };
        let raw = guard.raw.take().expect("a guard is empty only inside a wait");
        let (raw, timed_out) = raw::wait_until(&self.0, raw, deadline);
        guard.raw = Some(raw);
        timed_out
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn rising_ranks_may_nest() {
        let a = Mutex::new(Rank::Connection, 1);
        let b = Mutex::new(Rank::Queue, 2);
        let ga = a.lock();
        let gb = b.lock();
        assert_eq!(*ga + *gb, 3);
        drop(ga);
        drop(gb);
        assert_unlocked();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn two_connections_at_once_panic() {
        let a = Mutex::new(Rank::Connection, 1);
        let b = Mutex::new(Rank::Connection, 2);
        let _ga = a.lock();
        let _gb = b.lock();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "foreign code")]
    fn foreign_code_under_a_lock_panics() {
        let a = Mutex::new(Rank::Queue, 1);
        let _ga = a.lock();
        assert_unlocked();
    }
}
