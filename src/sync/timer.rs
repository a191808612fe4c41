//! One thread that runs things at a deadline, started when the first deadline is set.

use std::collections::BTreeMap;

#[cfg(not(shuttle))]
use super::foreign;
use super::{Arc, Condvar, Instant, Mutex, OnceLock, Rank};

/// Names a deadline that was set, so that it can be taken back. Later deadlines are greater.
pub(crate) type TimerKey = (Instant, u64);

type Action = Box<dyn FnOnce() + Send>;

/// The process's list of deadlines. Its actions must not wait.
pub(crate) struct Timer {
    state: Mutex<Deadlines>,
    changed: Condvar,
}

struct Deadlines {
    actions: BTreeMap<TimerKey, Action>,
    next: u64,
    running: bool,
}

impl Timer {
    /// The timer of this process.
    pub(crate) fn global() -> &'static Arc<Timer> {
        static TIMER: OnceLock<Arc<Timer>> = OnceLock::new();
        TIMER.get_or_init(|| {
            let actions = BTreeMap::new();
            let state = Mutex::new(Rank::Timer, Deadlines { actions, next: 0, running: false });
            Arc::new(Timer { state, changed: Condvar::new() })
        })
    }

    /// Runs `action` on the timer's thread once `at` has passed, unless it is taken back before.
    pub(crate) fn at(self: &Arc<Self>, at: Instant, action: impl FnOnce() + Send + 'static) -> TimerKey {
        let mut state = self.state.lock();
        let key = (at, state.next);
        state.next += 1;
        state.actions.insert(key, Box::new(action));
        let first = state.actions.first_key_value().is_some_and(|(k, _)| *k == key);
        let start = !std::mem::replace(&mut state.running, true);
        drop(state);
        if start {
            self.start();
        } else if first {
            self.changed.notify_one();
        }
        key
    }

    /// Takes a deadline back. False: its action has begun or is done.
    pub(crate) fn cancel(&self, key: TimerKey) -> bool {
        let action = self.state.lock().actions.remove(&key);
        action.is_some()
    }

    /// Whether deadlines that were set will be kept: there is a thread for them.
    #[cfg(not(shuttle))]
    pub(crate) fn is_running(&self) -> bool {
        self.state.lock().running
    }

    /// Under the model checker time stands still, and no deadline passes.
    #[cfg(shuttle)]
    fn start(self: &Arc<Self>) {}

    #[cfg(not(shuttle))]
    fn start(self: &Arc<Self>) {
        let timer = self.clone();
        let run = move || timer.run();
        // Deadlines are what ends connections, and gives their threads back.
        let place = super::Budget::of_process().reserve(1, super::Purpose::Essential);
        let mut place = place.expect("what is essential is never refused");
        if let Err(e) = place.spawn("capnp-timer", super::Role::Timer, run) {
            log::error!("no thread for deadlines: {e}");
            self.state.lock().running = false;
        }
    }

    #[cfg(not(shuttle))]
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let next = state.actions.first_key_value().map(|(k, _)| k.0);
            match next {
                Some(at) if at <= Instant::now() => {
                    let (_, action) = state.actions.pop_first().expect("seen above, under the same lock");
                    drop(state);
                    foreign("a deadline", action);
                    state = self.state.lock();
                }
                deadline => {
                    self.changed.wait_until(&mut state, deadline);
                }
            }
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::super::Duration;
    use super::*;

    #[test]
    fn runs_in_order_of_deadline_and_takes_back() {
        let (put, got) = crossbeam_channel::unbounded();
        let put = |n: u8| {
            let put = put.clone();
            move || put.send(n).unwrap()
        };
        let now = Instant::now();
        let timer = Timer::global();
        let taken = timer.at(now + Duration::from_secs(3600), put(9));
        timer.at(now + Duration::from_millis(20), put(2));
        timer.at(now + Duration::from_millis(10), put(1));
        assert!(timer.cancel(taken));
        assert!(!timer.cancel(taken));
        assert_eq!([got.recv(), got.recv()], [Ok(1), Ok(2)]);
    }
}
