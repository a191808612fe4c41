//! How many calls of a connection wait in crowded mailboxes.

use super::flow::{Watched, RECEIVER};
use crate::cap::object::Crowd;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Duration, Instant, Mutex, Rank};

/// How many calls of a connection may wait in crowded mailboxes.
const PART: usize = 32;
/// After so long without a call of the crowd being started, more are let in: in general, and while what the peer sends is
/// awaited here.
const PATIENCE: Duration = Duration::from_millis(20);
const PATIENCE_IF_AWAITED: Duration = Duration::from_millis(2);
/// After so long they are let in anyway.
const MOST: Duration = Duration::from_secs(1);

/// The calls of a connection that wait in crowded mailboxes.
///
/// ```text
/// Note [Crowds]
/// =============
/// An object answers calls in the order in which they came, over whichever connection. So a connection that sends calls
/// as fast as it can would put many thousands in front of everybody else's. A mailbox is *crowded* while `CROWD` calls
/// wait in it. Of the calls that come then, each connection may have `PART` waiting. Once it has them, its receive thread
/// holds the next call back, whatever that is for, until none of them waits any more. The calls of others go in, and
/// find no more in front of them than the crowd and a part of each connection. Nothing is reordered.
///
/// A method may wait for what the peer has sent behind the call that is held: a call to another object, or an answer. So
/// a call is held no longer than while the crowd moves: without a call started in it for `PATIENCE`, or after `MOST` in
/// all, the part of the connection is doubled, until none of its calls waits in a crowd.
/// ```
pub(in crate::conn) struct Crowds {
    waiting: Watched,
    part: AtomicUsize,
    /// Where a call came into last.
    latest: Mutex<Option<Arc<Crowd>>>,
    changed: Condvar,
}

impl Crowds {
    pub(in crate::conn) fn new() -> Self {
        Crowds {
            waiting: Watched::new(),
            part: AtomicUsize::new(PART),
            latest: Mutex::new(Rank::Queue, None),
            changed: Condvar::new(),
        }
    }

    /// Whether the connection has its part, and its next call is to be held.
    pub(in crate::conn) fn holds_calls(&self) -> bool {
        self.waiting.get() >= self.part.load(Ordering::Relaxed)
    }

    /// A call waits in this crowd from now on.
    pub(in crate::conn) fn enter(&self, crowd: &Arc<Crowd>) {
        self.waiting.add(1);
        let mut latest = self.latest.lock();
        let before = match &*latest {
            Some(known) if Arc::ptr_eq(known, crowd) => None,
            _ => latest.replace(crowd.clone()),
        };
        drop(latest);
        drop(before);
    }

    /// A call waits no more.
    pub(in crate::conn) fn leave(&self) {
        let (before, watchers) = self.waiting.sub(1);
        if before == 1 {
            self.part.store(PART, Ordering::Relaxed);
            if watchers & RECEIVER != 0 {
                self.tell();
            }
        }
    }

    /// Has whatever [waits](Self::wait) look again.
    pub(in crate::conn) fn tell(&self) {
        drop(self.latest.lock());
        self.changed.notify_all();
    }

    /// Waits until none of the calls waits, the crowd stands still, or `is_over`.
    pub(in crate::conn) fn wait(&self, is_over: impl Fn() -> bool, is_awaited: impl Fn() -> bool) {
        let mut latest = self.latest.lock();
        let crowd = latest.clone();
        let started = || crowd.as_ref().map_or(0, |crowd| crowd.started());
        let patience = || if is_awaited() { PATIENCE_IF_AWAITED } else { PATIENCE };
        let begun = Instant::now();
        let (mut seen, mut until) = (started(), begun + patience());
        self.waiting.watch(RECEIVER);
        while self.waiting.get() > 0 && !is_over() {
            self.changed.wait_until(&mut latest, Some(until));
            let now = Instant::now();
            if now < until {
                continue;
            }
            if started() == seen || now >= begun + MOST {
                self.part.store(self.waiting.get().max(PART) * 2, Ordering::Relaxed);
                break;
            }
            (seen, until) = (started(), now + patience());
        }
        self.waiting.unwatch(RECEIVER);
    }
}
