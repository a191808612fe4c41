//! A queue between two stages: many threads put, one takes, and it can be closed.

use std::collections::VecDeque;

use super::{Condvar, Instant, Mutex, Rank};

/// An unbounded first-in first-out queue. What bounds it stands where work is admitted, because the threads
/// that put into it must never wait for room (see Note [Threads]).
pub(crate) struct Queue<T> {
    state: Mutex<Items<T>>,
    changed: Condvar,
}

struct Items<T> {
    items: VecDeque<T>,
    closed: bool,
    sleepers: usize,
}

/// What taking from a queue gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pop<T> {
    Item(T),
    /// Nothing is there now.
    Empty,
    /// Nothing is there and nothing will be.
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue {
            state: Mutex::new(Rank::Queue, Items { items: VecDeque::new(), closed: false, sleepers: 0 }),
            changed: Condvar::new(),
        }
    }

    /// Appends one item; gives it back if the queue is closed. Never waits for room.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        let wake = state.sleepers > 0;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Appends all items in order, as one step; gives them back if the queue is closed.
    pub(crate) fn extend(&self, items: Vec<T>) -> Result<(), Vec<T>> {
        if items.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(items);
        }
        state.items.extend(items);
        let wake = state.sleepers > 0;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Takes the first item without waiting.
    pub(crate) fn try_pop(&self) -> Pop<T> {
        let mut state = self.state.lock();
        match state.items.pop_front() {
            Some(item) => Pop::Item(item),
            None if state.closed => Pop::Closed,
            None => Pop::Empty,
        }
    }

    /// Takes the first item, waiting for one until `deadline`, or without limit. `Empty` means that the
    /// deadline passed; `Closed`, that the queue was closed and everything in it has been taken.
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Pop<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Pop::Item(item);
            }
            if state.closed {
                return Pop::Closed;
            }
            state.sleepers += 1;
            let timed_out = self.changed.wait_until(&mut state, deadline);
            state.sleepers -= 1;
            if timed_out && state.items.is_empty() && !state.closed {
                return Pop::Empty;
            }
        }
    }

    /// Lets nothing more in. What is in the queue can still be taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().items.len()
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_drains_after_close() {
        let q = Queue::new();
        q.push(1).unwrap();
        q.extend(vec![2, 3]).unwrap();
        q.close();
        assert_eq!(q.push(4), Err(4));
        assert_eq!(q.extend(vec![5]), Err(vec![5]));
        assert_eq!([q.pop(None), q.try_pop(), q.pop(None)], [Pop::Item(1), Pop::Item(2), Pop::Item(3)]);
        assert_eq!(q.pop(None), Pop::Closed);
    }

    #[test]
    fn a_deadline_that_passed_gives_empty() {
        let q = Queue::<u8>::new();
        assert_eq!(q.pop(Some(Instant::now())), Pop::Empty);
    }
}

/// Every order of the threads' steps: nothing is lost, and nobody sleeps on.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, spawn, Arc, Role};

    fn beside(run: impl FnOnce() + Send + 'static) -> crate::sync::JoinHandle<()> {
        spawn("beside", Role::User, run).unwrap()
    }

    #[test]
    fn loom_items_arrive_and_then_the_end() {
        check_all(|| {
            let queue = Arc::new(Queue::new());
            let other = queue.clone();
            let pushing = beside(move || {
                other.push(1).unwrap();
                other.extend(vec![2, 3]).unwrap();
                other.close();
            });
            let got: Vec<_> = (0..4).map(|_| queue.pop(None)).collect();
            assert_eq!(got, [Pop::Item(1), Pop::Item(2), Pop::Item(3), Pop::Closed]);
            pushing.join().unwrap();
        });
    }

    #[test]
    fn loom_all_that_two_threads_push_is_taken() {
        check_all(|| {
            let queue = Arc::new(Queue::new());
            let push = |n: u8| {
                let queue = queue.clone();
                beside(move || queue.push(n).unwrap())
            };
            let pushing = [push(1), push(2)];
            let mut got = Vec::new();
            while got.len() < 2 {
                let Pop::Item(item) = queue.pop(None) else { panic!("it is not closed") };
                got.push(item);
            }
            got.sort_unstable();
            assert_eq!(got, [1, 2]);
            pushing.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_what_a_closed_queue_refuses_is_given_back() {
        check_all(|| {
            let queue = Arc::new(Queue::new());
            let (pusher, closer) = (queue.clone(), queue.clone());
            let closing = beside(move || closer.close());
            let pushing = beside(move || {
                if let Err(item) = pusher.push(1) {
                    assert_eq!(item, 1);
                    assert_eq!(pusher.try_pop(), Pop::Closed);
                }
            });
            let first = queue.pop(None);
            if first == Pop::Item(1) {
                assert_eq!(queue.pop(None), Pop::Closed);
            } else {
                assert_eq!(first, Pop::Closed);
            }
            closing.join().unwrap();
            pushing.join().unwrap();
        });
    }
}
