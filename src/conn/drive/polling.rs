//! Looking for input again and again before sleeping until it comes.
//!
//! ```text
//! Note [Polling]
//! ==============
//! To be woken takes a thread longer than most answers take to come, and costs whoever wakes it more than most steps
//! do. So who waits for input first looks for it over and over, for `Limits::polling` at most. On a machine with a
//! processor to spare neither side of a conversation sleeps then. Between two looks it lets other threads run: where they
//! are what it waits for (in a process with many connections, say), its input is there when its turn comes again.
//!
//! It is done only while it pays. Each time nothing has come meanwhile, the next waits go without polling: none
//! after one miss, and then 2, 6, and 14 each time. Each time something has, one miss is forgotten. So a connection that
//! is idle costs nothing, and one whose peer takes its time little.
//!
//! Who lets others run may have to wait while they use up their time, which is long where they have nothing to do with
//! input: some milliseconds. (Who sleeps, and uses little, is let run at once when woken.) That counts as several
//! misses, and ever more waits go without polling for it (14, 254, 1022). So that many threads that poll don't take each
//! other for such, the more they are, the longer it may take.
//!
//! Connections made with `Threads::Strict` never poll.
//! ```

use crate::sync::atomic::Ordering;
use crate::sync::{yield_now, Duration, Instant, ProcessCounter};

/// After so many misses, no more waits go without polling for another one.
const SOME_MISSES: u32 = 4;
/// How many misses it is to have waited long for a processor, and after how many no more waits go without polling for
/// that.
const CROWDED: u32 = 4;
const MOST_MISSES: u32 = 10;
/// How much of the time between two looks counts. In more others run, and nothing is lost.
const BRIEF: Duration = Duration::from_micros(5);
/// How long is too long, and how much longer for each thread that polls.
const LONG: Duration = Duration::from_micros(500);
const LONGER: Duration = Duration::from_micros(100);

/// How many threads of this process poll.
static POLLING: ProcessCounter = ProcessCounter::new(0);

/// A thread that polls.
struct Counted;

impl Counted {
    fn new() -> Self {
        POLLING.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

/// How long others may keep a thread that polls from running.
fn long() -> Duration {
    let polling = POLLING.load(Ordering::Relaxed);
    LONG + LONGER * u32::try_from(polling).unwrap_or(u32::MAX).saturating_sub(1)
}

impl Drop for Counted {
    fn drop(&mut self) {
        POLLING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When to look for the first time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::conn) enum First {
    AtOnce,
    /// When others have run: what is looked for has just been asked for, and can't be there.
    AfterOthers,
}

/// See Note [Polling].
#[derive(Default)]
pub(in crate::conn) struct Polling {
    misses: u32,
    /// How many waits go without polling.
    skip: u32,
}

impl Polling {
    pub(in crate::conn) const fn new() -> Self {
        Polling { misses: 0, skip: 0 }
    }

    /// Something has changed: the next wait may go with polling.
    pub(in crate::conn) fn retry(&mut self) {
        self.skip = 0;
    }

    /// Has `look` look until it has found something, or has taken `longest`, or the deadline has passed. Whether it
    /// has found something. Model checkers know no time, and do not poll.
    pub(in crate::conn) fn poll(
        &mut self,
        longest: Duration,
        deadline: Option<Instant>,
        first: First,
        mut look: impl FnMut() -> bool,
    ) -> bool {
        self.poll_many(longest, deadline, first, || usize::from(look()))
    }

    /// The same for one thread that looks for many: `look` says how many it has found, and the more have come meanwhile,
    /// the longer that may have taken.
    pub(in crate::conn) fn poll_many(
        &mut self,
        longest: Duration,
        deadline: Option<Instant>,
        first: First,
        look: impl FnMut() -> usize,
    ) -> bool {
        if longest.is_zero() || cfg!(any(shuttle, loom)) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let counted = Counted::new();
        let start = Instant::now();
        if first == First::AfterOthers {
            yield_now();
        }
        let polled = poll(start, longest, long, deadline, look);
        drop(counted);
        self.learn(polled);
        polled.found
    }

    fn learn(&mut self, polled: Polled) {
        self.misses = match polled {
            Polled { crowded: true, .. } => MOST_MISSES.min(self.misses + CROWDED),
            Polled { found: true, .. } => {
                self.misses = self.misses.saturating_sub(1);
                return;
            }
            Polled { .. } => SOME_MISSES.min(self.misses + 1).max(self.misses),
        };
        self.skip = (1 << self.misses) - 2;
    }
}

#[derive(Clone, Copy)]
struct Polled {
    found: bool,
    /// Other threads kept this one from running.
    crowded: bool,
}

fn poll(
    mut before: Instant,
    mut left: Duration,
    long: impl Fn() -> Duration,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> usize,
) -> Polled {
    loop {
        let many = look();
        let found = many > 0;
        let now = Instant::now();
        let took = now.duration_since(before);
        let crowded = took > LONG && took > long().saturating_mul(many.max(1) as u32);
        left = left.saturating_sub(took.min(BRIEF));
        if found || crowded || left.is_zero() || deadline.is_some_and(|deadline| deadline <= now) {
            return Polled { found, crowded };
        }
        before = now;
        yield_now();
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    const FOUND: Polled = Polled { found: true, crowded: false };
    const MISSED: Polled = Polled { found: false, crowded: false };

    const HOUR: Duration = Duration::from_secs(3600);

    /// How many waits go without polling, if each time that it polls goes like that.
    fn skipped(polling: &mut Polling, polled: Polled) -> u32 {
        polling.learn(polled);
        let skipped = polling.skip;
        for _ in 0..skipped {
            assert!(!polling.poll(HOUR, None, First::AtOnce, || panic!("it is not done now")));
        }
        assert!(polling.poll(HOUR, None, First::AtOnce, || true));
        polling.misses += 1;
        skipped
    }

    #[test]
    fn what_pays_is_done_each_time() {
        let mut polling = Polling::new();
        assert!((0..100).all(|_| polling.poll(HOUR, None, First::AtOnce, || true)));
    }

    #[test]
    fn what_does_not_pay_is_done_ever_more_seldom() {
        let mut polling = Polling::new();
        let skipped: Vec<_> = (0..6).map(|_| skipped(&mut polling, MISSED)).collect();
        assert_eq!(skipped, [0, 2, 6, 14, 14, 14]);
    }

    #[test]
    fn misses_are_forgotten_one_by_one() {
        let mut polling = Polling::new();
        for polled in [MISSED, MISSED, MISSED, FOUND, FOUND, MISSED] {
            polling.learn(polled);
        }
        assert_eq!(polling.skip, 2);
    }

    #[test]
    fn while_others_run_nothing_is_lost() {
        let before = Instant::now().checked_sub(LONG / 2).unwrap();
        let mut looks = 0;
        let polled = poll(
            before,
            BRIEF * 2,
            || LONG * 100,
            None,
            || {
                looks += 1;
                0
            },
        );
        assert!(!polled.found && !polled.crowded && looks >= 2);
    }

    #[test]
    fn to_have_waited_for_a_processor_is_several_misses() {
        let start = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let polled = poll(start, HOUR, || LONG, None, || 1);
        assert!(polled.found && polled.crowded);
        let mut polling = Polling::new();
        polling.learn(polled);
        assert_eq!(polling.skip, 14);
    }

    #[test]
    fn to_have_waited_again_and_again_is_many_misses() {
        let mut polling = Polling::new();
        let crowded = Polled { found: true, crowded: true };
        let skipped: Vec<_> = (0..4).map(|_| skipped(&mut polling, crowded)).collect();
        assert_eq!(skipped, [14, 254, 1022, 1022]);
        polling.learn(MISSED);
        assert_eq!(polling.skip, 1022);
    }

    #[test]
    fn no_time_is_none() {
        assert!(!Polling::new().poll(Duration::ZERO, None, First::AtOnce, || true));
    }

    #[test]
    fn a_deadline_ends_it() {
        assert!(!Polling::new().poll(HOUR, Some(Instant::now()), First::AfterOthers, || false));
    }
}
