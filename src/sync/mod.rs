//! Locks, condition variables, queues, threads and the clock: the only module that reaches for the
//! primitives of the standard library or of `parking_lot`, so that a model checker can stand in for them
//! (`--cfg shuttle` for whole connections, `--cfg loom` for single primitives).
//!
//! ```text
//! Note [Lock order]
//! =================
//! Every mutex has a `Rank`. A thread takes locks in rising rank only, and never two of one rank; debug
//! builds panic where a thread does not. As there is one rank for the state of connections, no thread
//! holds two connections' locks. Everything above `Rank::Connection` is a leaf: it is held for a few lines
//! that call nothing foreign. Before foreign code runs (user code, I/O, a waker, another connection)
//! `assert_unlocked` says so in debug builds.
//! ```

mod budget;
#[cfg(all(test, not(any(shuttle, loom))))]
pub(crate) mod fault;
mod foreign;
mod lane;
mod lock;
mod system;
mod thread;
#[cfg_attr(any(shuttle, loom), path = "timer_still.rs")]
mod timer;
mod turns;

pub use budget::{set_thread_limit, thread_count};
pub(crate) use budget::{spawn, Budget, Purpose, Reservation};
pub(crate) use foreign::{foreign, foreign_outcome, panic_text, panicked, Foreign};
pub(crate) use lane::{Lane, Turn, Waited};
pub(crate) use lock::{assert_unlocked, Condvar, Mutex, MutexGuard, Rank};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
#[cfg(not(any(shuttle, loom)))]
pub(crate) use thread::processors;
pub(crate) use thread::{enter_role, is_panicking, role, yield_now, JoinHandle, Role};
pub(crate) use timer::{Timer, TimerKey};
pub(crate) use turns::{drop_in_turn, enter_wait, hold_back, in_turn, is_in_turn, puts_off};
pub(crate) use turns::{unwinds_in_transaction, HeldBack, InWait, TooDeep};

#[cfg(all(loom, test))]
pub(crate) use loom::model as check_all;
/// Checks all interleavings in which a thread that could go on is made to wait at most twice: for what has too many.
#[cfg(all(loom, test))]
pub(crate) fn check_most(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(body);
}
#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(all(shuttle, test))]
pub(crate) use shuttle::check_random;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(any(shuttle, loom)))]
pub(crate) use std::sync::atomic;

/// A counter for the whole process, which no model checker starts anew.
pub(crate) use std::sync::atomic::AtomicU64 as ProcessCounter;

pub(crate) use std::time::{Duration, Instant};

/// The moment `timeout` from now. One that is further off than the clock reaches is some decades off.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    const DECADES: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + DECADES)
}

/// Counts one more until the result is dropped.
pub(crate) fn counted(count: &atomic::AtomicUsize) -> impl Drop + '_ {
    struct Counted<'a>(&'a atomic::AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, atomic::Ordering::Relaxed);
        }
    }
    count.fetch_add(1, atomic::Ordering::Relaxed);
    Counted(count)
}

/// Does something when the result is dropped: also if what comes before that panics.
pub(crate) fn finally(last: impl FnOnce()) -> impl Drop {
    struct Finally<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Finally<F> {
        fn drop(&mut self) {
            if let Some(last) = self.0.take() {
                last();
            }
        }
    }
    Finally(Some(last))
}

/// A thread-local that a model checker's threads have one each of, too.
macro_rules! per_thread {
    ($($(#[$doc:meta])* static $name:ident: $ty:ty = $init:expr;)*) => {$(
        #[cfg(shuttle)]
        shuttle::thread_local! { $(#[$doc])* static $name: $ty = $init; }
        #[cfg(loom)]
        loom::thread_local! { $(#[$doc])* static $name: $ty = $init; }
        #[cfg(not(any(shuttle, loom)))]
        std::thread_local! { $(#[$doc])* static $name: $ty = const { $init }; }
    )*};
}
pub(crate) use per_thread;
