//! References that users have dropped, until the tables know.
//!
//! ```text
//! Note [Drops are noted]
//! ======================
//! The last reference to something of the peer's may go on any thread, under any lock: there and then it can only be
//! noted. With `Threads::Strict` it is a callback (Note [Four tables]), whose thread is woken for it. Otherwise the
//! note waits for the next transaction, whoever's: it looks at what has been noted as well, under the lock that it
//! has anyway. So a response that is dropped before the next call is made costs no thread, no lock and no write: its
//! Finish and its Release leave with that call. A thread that is about to wait, or to wait for input, sees to what is
//! noted first.
//!
//! Where no transaction comes, the timer's thread sees to it. The first note sets a deadline, a moment later; then it looks at
//! intervals, for as long as anything is noted between one look and the next:
//!
//!             note (sets a deadline)  looks: nothing was noted since
//!   Unwatched ---------------> Watched -----------------------------> Unwatched
//!                              |     ^
//!                              '-----' looks, and sees to what there is
//!
//! Only what is gone for good is noted: nothing else refers to it, so that it does not matter before or after which
//! callbacks it is seen to (Note [Order across callbacks]). Others of the notices do: they stay callbacks.
//!
//! What it leaves to be dropped may hold objects of users', and the thread of the transaction a lock that their `drop`
//! takes. So that is a callback, unless it is known to run nothing foreign.
//! ```

use std::mem;

use crate::cap::port::TableEvent;
use crate::conn::shared::Shared;
use crate::promise::count_sleep;
use crate::state::{Callback, Effects, State};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Duration, Mutex, Rank};

/// After what time the noted drops are looked at for the first time, and at which intervals after that.
const MOMENT: Duration = Duration::from_micros(50);
const INTERVAL: Duration = Duration::from_millis(1);

/// What has been dropped. See Note [Drops are noted].
pub(in crate::conn) struct Drops {
    noted: Mutex<Noted>,
    /// Whether there may be anything. Whoever misses it leaves it to the next who looks.
    any: AtomicBool,
}

struct Noted {
    notices: Vec<TableEvent>,
    watched: bool,
    /// Something has been noted since the last look.
    since: bool,
    closed: bool,
}

impl Drops {
    pub(in crate::conn) fn new() -> Self {
        let noted = Noted { notices: Vec::new(), watched: false, since: false, closed: false };
        Drops { noted: Mutex::new(Rank::Queue, noted), any: AtomicBool::new(false) }
    }

    /// Notes something. True if nobody is to look at it yet.
    fn note(&self, notice: TableEvent) -> bool {
        let mut noted = self.noted.lock();
        if noted.closed {
            return false;
        }
        noted.notices.push(notice);
        noted.since = true;
        self.any.store(true, Ordering::Relaxed);
        !mem::replace(&mut noted.watched, true)
    }

    /// Takes what is noted, if there is anything, into `notices`, whose memory is used again.
    fn take(&self, notices: &mut Vec<TableEvent>) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut noted = self.noted.lock();
        self.any.store(false, Ordering::Relaxed);
        mem::swap(&mut noted.notices, notices);
        !notices.is_empty()
    }

    /// Somebody has looked. True if there is to be another look.
    fn looked(&self) -> bool {
        let mut noted = self.noted.lock();
        noted.watched = mem::take(&mut noted.since);
        noted.watched
    }

    /// Notes nothing more.
    pub(in crate::conn) fn close(&self) {
        let mut noted = self.noted.lock();
        noted.closed = true;
        let notices = mem::take(&mut noted.notices);
        drop(noted);
        drop(notices);
    }
}

impl Shared {
    /// Notes a drop. May be called under any lock.
    pub(super) fn note_drop(&self, notice: TableEvent) {
        if self.drive.drops.note(notice) {
            self.look_at_drops_after(MOMENT);
        }
    }

    /// Has the drops looked at. A connection whose stages a test drives has no threads that could.
    #[cfg(not(any(shuttle, loom)))]
    fn look_at_drops_after(&self, after: Duration) {
        if self.drive.has_threads() {
            let this = self.this.clone();
            crate::sync::Timer::global().at(crate::sync::deadline(after), move || {
                if let Some(this) = this.upgrade() {
                    this.look_at_drops();
                }
            });
        }
    }

    /// Model checkers know no time: the drops are looked at at once.
    #[cfg(any(shuttle, loom))]
    fn look_at_drops_after(&self, _: Duration) {
        if let Some(this) = self.this.upgrade().filter(|_| self.drive.has_threads()) {
            super::on_demand::submit(super::on_demand::Task::Drops(this));
        }
    }

    /// Looks at what has been noted, and has it looked at again while drops come.
    pub(super) fn look_at_drops(&self) {
        // What this thread has done before was before a wait.
        count_sleep();
        self.see_to_drops();
        if self.drive.drops.looked() {
            self.look_at_drops_after(INTERVAL);
        }
    }

    /// Looks at what has been noted, with a transaction of somebody's.
    pub(in crate::conn) fn take_drops(&self, state: &mut State, fx: &mut Effects) {
        let mut notices = mem::take(&mut fx.notices);
        // What is dropped may have been the last to hold something else.
        while self.drive.drops.take(&mut notices) {
            let before = fx.garbage.len();
            notices.drain(..).for_each(|notice| state.notice(notice, fx));
            if let Some(garbage) = fx.garbage.take_foreign(before) {
                fx.later(Callback::Discard(garbage));
            }
        }
        fx.notices = notices;
    }

    /// Looks at what has been noted, if there is anything. True if there was.
    pub(in crate::conn) fn see_to_drops(&self) -> bool {
        let any = self.drive.drops.any.load(Ordering::Relaxed);
        if any {
            self.transact_or_end(|_, _| ());
        }
        any
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::cap::port::RefId;

    #[test]
    fn the_first_drop_is_told_and_all_are_taken_in_order() {
        let (drops, mut taken) = (Drops::new(), Vec::new());
        assert!(!drops.take(&mut taken));
        let notice = |n| TableEvent::PromiseDropped(RefId(n));
        assert_eq!([1, 2, 3].map(|n| drops.note(notice(n))), [true, false, false]);
        assert!(drops.take(&mut taken));
        assert_eq!(std::mem::take(&mut taken), [notice(1), notice(2), notice(3)]);
        assert!(!drops.note(notice(4)), "it is watched until somebody has looked in vain");
        assert!(drops.take(&mut taken));
        assert_eq!(std::mem::take(&mut taken), [notice(4)]);
        drops.note(notice(5));
        drops.close();
        assert!(!drops.note(notice(6)) && !drops.take(&mut taken), "after the end nothing is noted");
    }
}
