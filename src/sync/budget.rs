//! How many threads this process may have, and how many of them are ours.
//!
//! ```text
//! Note [Thread budget]
//! ====================
//! A thread that the standard library starts maps memory for its signal stack before it runs anything of ours. If the
//! system refuses that mapping (`vm.max_map_count`), the new thread panics there and the process aborts. Nothing can
//! catch it. So a thread is started only while there is room for it, and every thread of the crate comes from `spawn` or
//! from a `Reservation`, both of which count.
//!
//! Invariant: `used` is the number of places that are given out. A place is given out before its thread is started, and
//! given back by that thread as the last thing it does, or by whoever could not start it.
//!
//! `bound` is how many places there are: what the user has set, or else what was used when the system was last measured
//! and what it had room for beside that. A measurement counts for `FRESH`. It counts what the process really has, the
//! program's own mappings and threads included, so it is right whatever the program does. What the program adds within
//! `FRESH`, and threads that have given their place back and not yet unmapped their stack, live on what is spared: an
//! eighth of each of the system's limits.
//!
//! Connections leave a quarter of the bound to the threads that run methods: what serves nobody is no use.
//! ```

use std::fmt;
use std::io;

use super::{Arc, Duration, Instant, JoinHandle, Mutex, OnceLock, Rank, Role};

/// For how long a measurement of the system counts.
const FRESH: Duration = Duration::from_secs(1);

/// The least that the user may set.
const LEAST: usize = 8;

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A stage of a connection. The last quarter of the bound is not for these.
    Connection,
    /// Anything else that can be refused.
    Other,
    /// One thread of the process, which the rest relies on. It is never refused.
    Essential,
}

/// All places are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    used: usize,
    bound: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room for more threads: {} are in use, where {} may be", self.used, self.bound)
    }
}

/// The places for threads of a process. See Note [Thread budget].
pub(crate) struct Budget {
    state: Mutex<BudgetState>,
    /// How many threads more the system has room for.
    room: fn() -> usize,
}

struct BudgetState {
    used: usize,
    bound: usize,
    /// What the user has set.
    chosen: Option<usize>,
    measured: Option<Instant>,
}

impl Budget {
    /// A budget that asks `room` how many threads more the system has room for.
    fn new(room: fn() -> usize) -> Arc<Self> {
        let state = BudgetState { used: 0, bound: 0, chosen: None, measured: None };
        Arc::new(Budget { state: Mutex::new(Rank::Queue, state), room })
    }

    /// The budget of this process.
    pub(crate) fn of_process() -> &'static Arc<Budget> {
        static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
        BUDGET.get_or_init(|| Self::new(super::system::room_for_threads))
    }

    /// Takes so many places, or none.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        places: usize,
        purpose: Purpose,
    ) -> Result<Reservation, Exhausted> {
        // What a model checker runs comes and goes with each execution.
        if cfg!(not(any(shuttle, loom))) {
            self.take(places, purpose)?;
        }
        Ok(Reservation { budget: self.clone(), places })
    }

    fn take(&self, places: usize, purpose: Purpose) -> Result<(), Exhausted> {
        let mut state = self.state.lock();
        if purpose != Purpose::Essential && !state.is_fresh() {
            let used = state.used;
            drop(state);
            let room = (self.room)();
            state = self.state.lock();
            // Threads that were started meanwhile have been measured, those that have ended need no room.
            state.bound = used.min(state.used).saturating_add(room);
            state.measured = Some(Instant::now());
        }
        let bound = state.chosen.unwrap_or(state.bound);
        let most = match purpose {
            Purpose::Connection => bound - bound / 4,
            Purpose::Other => bound,
            Purpose::Essential => usize::MAX,
        };
        if state.used.saturating_add(places) > most {
            return Err(Exhausted { used: state.used, bound: most });
        }
        state.used += places;
        Ok(())
    }

    /// Sets the bound instead of having the system measured. `None`: the system is measured again.
    pub(crate) fn set_bound(&self, bound: Option<usize>) {
        let mut state = self.state.lock();
        state.chosen = bound;
        state.measured = None;
    }

    /// How many places are given out.
    pub(crate) fn used(&self) -> usize {
        self.state.lock().used
    }
}

impl BudgetState {
    /// Whether the bound need not be measured.
    fn is_fresh(&self) -> bool {
        self.chosen.is_some() || self.measured.is_some_and(|at| at.elapsed() < FRESH)
    }
}

/// Places that were taken; given back when dropped.
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    places: usize,
}

impl Reservation {
    /// Whether all its places have been used.
    pub(crate) fn is_empty(&self) -> bool {
        self.places == 0
    }

    /// Starts a named thread in one of the places. Fails if the system has no thread to give.
    pub(crate) fn spawn(
        &mut self,
        name: impl Into<String>,
        role: Role,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        debug_assert!(self.places > 0, "there is a place for each thread");
        self.places -= 1;
        let place = Reservation { budget: self.budget.clone(), places: 1 };
        super::thread::start(name.into(), role, move || {
            // Also if `run` panics.
            let _place = place;
            run();
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.places > 0 && cfg!(not(any(shuttle, loom))) {
            self.budget.state.lock().used -= self.places;
        }
    }
}

/// Starts a named thread with a role. Fails if there is no place for it, or the system has no thread to give.
pub(crate) fn spawn(
    name: impl Into<String>,
    role: Role,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let reserved = Budget::of_process().reserve(1, Purpose::Other);
    reserved.map_err(|e| io::Error::other(e.to_string()))?.spawn(name, role, run)
}

/// Sets how many threads the crate may have in this process: those of all connections, listeners and pools together, and
/// the few that it has for itself. `None`, as at the start: as many as the system has room for.
///
/// What would start a thread beyond that is refused. A new connection fails as `overloaded`, even if it needs none; a
/// listener logs that, and goes on serving those that it has. An established connection that needs a thread is served by
/// those that there are, more slowly ([`thread_shortages`](crate::thread_shortages) counts that). A call for whose method there is no
/// thread waits for one, or fails as `overloaded` if all threads of its pool wait for answers. Connections leave a quarter
/// of the threads to methods.
///
/// The system has room for as many threads as fit into seven eighths of each of its limits, beside what the process has
/// already: `vm.max_map_count` (four mappings for each thread), `kernel.pid_max` and `kernel.threads-max` (for all
/// processes together), the process limit of the user (`ulimit -u`), and `pids.max` of the control groups. It is measured
/// when a thread is started, at most once per second. With a usual `vm.max_map_count` of 65,530 that is about 14,300
/// threads; the [guide](crate::guide::limits#threads-of-the-process) says how to have more. Where those limits can't be read (other systems than Linux), there is no bound.
///
/// Threads that run go on if the limit is set below their number. A limit above what the system has room for is no help: the
/// process ends when a thread finds none.
///
/// # Panics
/// If the limit is less than 8: there would be no room for a connection and a method.
#[track_caller]
pub fn set_thread_limit(threads: Option<usize>) {
    assert!(threads.is_none_or(|threads| threads >= LEAST), "a thread limit must be at least {LEAST}");
    Budget::of_process().set_bound(threads);
}

/// How many threads the crate has in this process, those that are about to start included: what
/// [`set_thread_limit`] bounds.
pub fn thread_count() -> usize {
    Budget::of_process().used()
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};

    fn with_bound(bound: usize) -> Arc<Budget> {
        let budget = Budget::new(|| panic!("a bound that was set is not measured"));
        budget.set_bound(Some(bound));
        budget
    }

    #[test]
    fn places_are_taken_together_or_not_at_all_and_given_back() {
        let budget = with_bound(5);
        let three = budget.reserve(3, Purpose::Other).unwrap();
        let refused = budget.reserve(3, Purpose::Other).err().unwrap();
        assert_eq!(refused.to_string(), "no room for more threads: 3 are in use, where 5 may be");
        assert_eq!(budget.used(), 3);
        let two = budget.reserve(2, Purpose::Other).unwrap();
        drop(three);
        assert_eq!(budget.used(), 2);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn connections_leave_a_quarter_and_what_is_essential_is_never_refused() {
        let budget = with_bound(8);
        let _six = budget.reserve(6, Purpose::Connection).unwrap();
        assert!(budget.reserve(1, Purpose::Connection).is_err());
        let _two = budget.reserve(2, Purpose::Other).unwrap();
        assert!(budget.reserve(1, Purpose::Other).is_err());
        let _more = budget.reserve(1, Purpose::Essential).unwrap();
        assert_eq!(budget.used(), 9);
    }

    #[test]
    fn a_place_is_given_back_when_its_thread_ends_also_by_a_panic() {
        let budget = with_bound(2);
        let mut places = budget.reserve(2, Purpose::Other).unwrap();
        let fine = places.spawn("fine", Role::User, || ()).unwrap();
        let panics = places.spawn("panics", Role::User, || panic!("on purpose")).unwrap();
        assert!(fine.join().is_ok());
        assert!(panics.join().is_err());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_system_is_measured_once_for_many_threads_and_counts_what_is_used() {
        static MEASURED: AtomicUsize = AtomicUsize::new(0);
        let budget = Budget::new(|| {
            MEASURED.fetch_add(1, Ordering::Relaxed);
            3
        });
        let two = budget.reserve(2, Purpose::Other).unwrap();
        budget.state.lock().measured = Some(Instant::now() + FRESH);
        let _one = budget.reserve(1, Purpose::Other).unwrap();
        assert!(budget.reserve(1, Purpose::Other).is_err());
        assert_eq!(MEASURED.load(Ordering::Relaxed), 1);
        // There is room for three beside the three that are used.
        budget.state.lock().measured = None;
        let _three = budget.reserve(3, Purpose::Other).unwrap();
        assert_eq!(MEASURED.load(Ordering::Relaxed), 2);
        drop(two);
    }
}
