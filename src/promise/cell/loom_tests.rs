//! Every order of the threads' steps: whoever waits is told, once.

use super::*;
use crate::promise::{with_blocking, Blocking, Observer};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{check_all, spawn, Role};

fn beside(run: impl FnOnce() + Send + 'static) -> crate::sync::JoinHandle<()> {
    spawn("beside", Role::User, run).unwrap()
}

#[test]
fn loom_a_waiter_gets_the_value() {
    check_all(|| {
        let (p, f) = promise();
        let fulfilling = beside(move || f.fulfill(7));
        assert_eq!(p.wait().unwrap(), 7);
        fulfilling.join().unwrap();
    });
}

#[test]
fn loom_a_waiter_hears_of_a_dropped_fulfiller() {
    check_all(|| {
        let (p, f) = promise::<u8>();
        let dropping = beside(move || drop(f));
        assert!(p.wait().is_err());
        dropping.join().unwrap();
    });
}

#[test]
fn loom_a_callback_is_called_once() {
    check_all(|| {
        let (p, f) = promise();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let fulfilling = beside(move || f.fulfill(1));
        p.on_ready(move |value| {
            count.fetch_add(value.unwrap(), Ordering::SeqCst);
        });
        fulfilling.join().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn loom_a_canceled_waiter_wakes() {
    check_all(|| {
        let cancel = Cancel::new();
        cancel.start();
        let (p, f) = promise::<u8>();
        let canceler = cancel.clone();
        let canceling = beside(move || canceler.cancel(false));
        let outcome = cancel::with_current(cancel, || p.wait());
        assert!(outcome.is_err());
        canceling.join().unwrap();
        drop(f);
    });
}

/// How many threads are asleep: what a pool keeps.
struct Count(Mutex<usize>);

impl Blocking for Count {
    fn begin(&self) -> Result<(), Exception> {
        *self.0.lock() += 1;
        Ok(())
    }

    fn end(&self, awake: &AtomicBool) {
        let mut asleep = self.0.lock();
        if !awake.swap(true, Ordering::SeqCst) {
            *asleep -= 1;
        }
    }
}

/// Else a bounded pool would refuse what the thread is free to do.
#[test]
fn loom_a_canceled_waiter_is_not_counted_as_asleep() {
    check_all(|| {
        let cancel = Cancel::new();
        cancel.start();
        let (p, f) = promise::<u8>();
        let count = Arc::new(Count(Mutex::new(Rank::Pool, 0)));
        let (canceler, asleep) = (cancel.clone(), count.clone());
        let canceling = beside(move || {
            canceler.cancel(false);
            assert_eq!(*asleep.0.lock(), 0);
        });
        let wait = || cancel::with_current(cancel, || p.wait());
        let outcome = with_blocking(Observer::Pool, count, wait);
        assert!(outcome.is_err());
        canceling.join().unwrap();
        drop(f);
    });
}

#[test]
fn loom_a_value_races_with_a_cancellation() {
    check_all(|| {
        let cancel = Cancel::new();
        cancel.start();
        let (p, f) = promise();
        let canceler = cancel.clone();
        let others = [beside(move || canceler.cancel(false)), beside(move || f.fulfill(3))];
        if let Ok(value) = cancel::with_current(cancel, || p.wait()) {
            assert_eq!(value, 3);
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Counts how often it is woken.
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Woken(AtomicUsize::new(0)))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls for a task. The value, if it is there.
fn poll_for<T: Send + 'static>(promise: &mut Promise<T>, task: &Arc<Woken>) -> Option<T> {
    let waker = Waker::from(task.clone());
    match Pin::new(promise).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(value) => Some(value.unwrap()),
        Poll::Pending => None,
    }
}

/// The task that has polled last finds the value, or is woken once; no other is woken for a value that it does not find.
#[test]
fn loom_who_has_polled_last_is_woken() {
    check_all(|| {
        let (mut p, f) = promise();
        let fulfilling = beside(move || f.fulfill(7));
        let tasks = [Woken::new(), Woken::new(), Woken::new()];
        let found = tasks.iter().position(|task| poll_for(&mut p, task).is_some());
        fulfilling.join().unwrap();
        let times = tasks.each_ref().map(|task| task.times());
        match found {
            // Whoever had polled before may have been woken, for nothing.
            Some(n) => assert!(times.iter().sum::<usize>() <= 1 && times[n..].iter().all(|n| *n == 0)),
            None => {
                assert_eq!(times, [0, 0, 1]);
                assert_eq!(poll_for(&mut p, &tasks[0]), Some(7));
            }
        }
    });
}

/// A promise that moves to another thread, and with it to another task, while its value comes.
#[test]
fn loom_a_promise_that_moves_to_another_thread_wakes_who_polls_it_there() {
    check_all(|| {
        let (mut p, f) = promise();
        let fulfilling = beside(move || f.fulfill(7));
        let [here, there] = [Woken::new(), Woken::new()];
        if poll_for(&mut p, &here).is_none() {
            let (task, polled) = (there.clone(), Arc::new(Mutex::new(Rank::Queue, None)));
            let put = polled.clone();
            let polling = beside(move || {
                let found = poll_for(&mut p, &task);
                *put.lock() = Some((found, p));
            });
            polling.join().unwrap();
            let (found, mut p) = polled.lock().take().unwrap();
            fulfilling.join().unwrap();
            if found.is_none() {
                assert_eq!((here.times(), there.times()), (0, 1));
                assert_eq!(poll_for(&mut p, &there), Some(7));
            }
        } else {
            fulfilling.join().unwrap();
        }
    });
}

/// A task gives up, and a thread waits, or a callback is registered, in its place.
#[test]
fn loom_whoever_takes_the_place_of_a_task_gets_the_value() {
    check_all(|| {
        let (mut p, f) = promise();
        let fulfilling = beside(move || f.fulfill(7));
        if poll_for(&mut p, &Woken::new()).is_none() {
            assert_eq!(p.wait().unwrap(), 7);
        }
        fulfilling.join().unwrap();
    });
    check_all(|| {
        let (mut p, f) = promise();
        let fulfilling = beside(move || f.fulfill(7));
        let mut found = poll_for(&mut p, &Woken::new());
        if found.is_none() {
            let mapped = p.map(|n: i32| Ok(n));
            found = Some(mapped.wait().unwrap());
        }
        assert_eq!(found, Some(7));
        fulfilling.join().unwrap();
    });
}
