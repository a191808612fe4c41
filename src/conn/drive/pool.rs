//! Threads for the stages of all connections: a stage has one for as long as it has something to do.
//!
//! ```text
//! Note [Stage threads]
//! ====================
//! A stage that needs a thread is a task here (Note [Turns]): to send what the system did not take at once, to run callbacks
//! that no reading thread runs, to wait for room for a message, to read for a connection that is busy. A thread takes a task,
//! runs it until the stage has nothing more to do, and goes back. So there are as many threads as stages that have something
//! to do, and a connection that is idle has none.
//!
//! Invariant: while a thread runs a task that may wait, another one of the pool is a standby: it waits for a task, or is about
//! to. So a task never waits for another one to end. A thread that takes a task and finds no standby starts one first.
//!
//! Where the system gives no thread for that, the thread that found none takes only steps that do not wait, of each task
//! that there is in turn: it is the standby itself. A stage that could only go on by waiting is looked at again after `TICK`.
//! So all stages go on, if more slowly, until there are threads again. `thread_shortages` counts how often that was so.
//!
//! A thread that has waited for `IDLE` without a task ends, except for the last standby, which is there for as long as
//! the process.
//!
//! Only stages come here that can do without waiting what they do, if need be. One whose transport can only wait has a
//! thread of its own from the start.
//! ```

use std::collections::VecDeque;
use std::io;

use crate::sync::atomic::Ordering;
use crate::sync::{foreign, Arc, Condvar, Duration, Instant, Mutex, ProcessCounter, Rank};

/// How long a thread without a task stays.
const IDLE: Duration = Duration::from_secs(5);
/// After what time a stage is looked at again that could only go on by waiting, where there is no thread for that.
const TICK: Duration = Duration::from_millis(4);

/// Something for a thread to do.
pub(super) trait Work: Send + Sized + 'static {
    /// Does it. May wait.
    fn run(self);

    /// Does what can be done without waiting. What is given back is to be tried again.
    fn advance(self) -> Option<Self>;
}

/// Starts a thread that calls [`StagePool::work`].
type Start<W> = Box<dyn Fn(Arc<StagePool<W>>) -> io::Result<()> + Send + Sync>;

/// The threads, and what they have to do. See Note [Stage threads].
pub(super) struct StagePool<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
    start: Start<W>,
    /// How often there was no thread for a task.
    shortages: ProcessCounter,
}

struct State<W> {
    tasks: VecDeque<W>,
    /// Tasks that could only go on by waiting, and had no thread for that; and when they are tried again.
    unfinished: Vec<W>,
    retry_at: Option<Instant>,
    threads: usize,
    /// Threads that wait for a task, or will look for one before they wait for anything else.
    standby: usize,
}

impl<W: Work> StagePool<W> {
    pub(super) fn new(
        start: impl Fn(Arc<StagePool<W>>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state =
            State { tasks: VecDeque::new(), unfinished: Vec::new(), retry_at: None, threads: 0, standby: 0 };
        Arc::new(StagePool {
            state: Mutex::new(Rank::Queue, state),
            changed: Condvar::new(),
            start: Box::new(start),
            shortages: ProcessCounter::new(0),
        })
    }

    /// Makes sure that there is a thread. Tasks are for a pool that has one.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let started = self.state.lock().threads > 0;
        match started {
            true => Ok(()),
            false => self.start_standby(),
        }
    }

    /// Has a thread do this. May be called under any lock of lower rank.
    pub(super) fn submit(&self, task: W) {
        self.state.lock().tasks.push_back(task);
        self.changed.notify_one();
    }

    /// How often there was no thread for a task.
    pub(super) fn shortages(&self) -> u64 {
        self.shortages.load(Ordering::Relaxed)
    }

    fn start_standby(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        state.threads += 1;
        state.standby += 1;
        drop(state);
        let started = (self.start)(self.clone());
        if started.is_err() {
            let mut state = self.state.lock();
            state.threads -= 1;
            state.standby -= 1;
        }
        started
    }

    /// What a thread of the pool runs. It was counted as a standby when it was started.
    pub(super) fn work(self: &Arc<Self>) {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            if state.retry_at.is_some_and(|at| at <= now) {
                state.retry_at = None;
                let State { tasks, unfinished, .. } = &mut *state;
                tasks.extend(unfinished.drain(..));
            }
            if let Some(task) = state.tasks.pop_front() {
                state.standby -= 1;
                let is_last = state.standby == 0;
                drop(state);
                let unfinished = self.take(task, is_last);
                state = self.state.lock();
                if let Some(task) = unfinished {
                    state.unfinished.push(task);
                    state.retry_at.get_or_insert(now + TICK);
                }
                continue;
            }
            let until = state.retry_at.unwrap_or(now + IDLE);
            let timed_out = self.changed.wait_until(&mut state, Some(until));
            let idle = timed_out && state.tasks.is_empty() && state.retry_at.is_none();
            if idle && state.standby > 1 {
                state.threads -= 1;
                state.standby -= 1;
                return;
            }
        }
    }

    /// Does a task, or what can be done of it by the last standby. This thread counts as a standby again afterwards.
    fn take(self: &Arc<Self>, task: W, is_last: bool) -> Option<W> {
        let mut unfinished = None;
        if is_last && self.start_standby().is_err() {
            self.shortages.fetch_add(1, Ordering::Relaxed);
            self.state.lock().standby += 1;
            foreign("a stage without a thread", || unfinished = task.advance());
        } else {
            foreign("a thread of a stage", || task.run());
            self.state.lock().standby += 1;
        }
        unfinished
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use crossbeam_channel::{unbounded, Receiver, Sender};

    use super::*;
    use crate::sync::atomic::AtomicUsize;
    use crate::sync::{spawn, Role};

    /// Says that it has begun, and waits for the end of a channel.
    struct Task {
        begun: Sender<()>,
        ends: Receiver<()>,
    }

    impl Work for Task {
        fn run(self) {
            self.begun.send(()).unwrap();
            assert!(self.ends.recv().is_err());
        }

        fn advance(self) -> Option<Self> {
            match self.ends.try_recv() {
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    self.begun.send(()).unwrap();
                    None
                }
                _ => Some(self),
            }
        }
    }

    /// A pool for which the system has at most so many threads.
    fn pool(most: usize) -> Arc<StagePool<Task>> {
        let started = AtomicUsize::new(0);
        let pool = StagePool::new(move |pool: Arc<StagePool<Task>>| {
            if started.fetch_add(1, Ordering::Relaxed) >= most {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            spawn("of-test", Role::Connection, move || pool.work()).map(drop)
        });
        pool.start().unwrap();
        pool
    }

    #[test]
    fn tasks_that_wait_do_not_wait_for_each_other() {
        let pool = pool(usize::MAX);
        let (begun, begins) = unbounded();
        let (end, ends) = unbounded();
        for _ in 0..10 {
            pool.submit(Task { begun: begun.clone(), ends: ends.clone() });
        }
        (0..10).for_each(|_| begins.recv().unwrap());
        assert!(pool.state.lock().threads > 10);
        assert_eq!(pool.shortages(), 0);
        drop(end);
    }

    #[test]
    fn without_threads_a_task_that_would_wait_stops_no_other_one_and_ends_in_time() {
        let pool = pool(2);
        let (begun, begins) = unbounded();
        let ends: Vec<Sender<()>> = (0..5)
            .map(|_| {
                let (end, ends) = unbounded();
                pool.submit(Task { begun: begun.clone(), ends });
                end
            })
            .collect();
        // One has a thread, and the last standby looks after all others.
        begins.recv().unwrap();
        let mut ends = ends.into_iter();
        let waiting = ends.next().unwrap();
        ends.for_each(drop);
        (0..4).for_each(|_| begins.recv().unwrap());
        assert!(pool.shortages() >= 4);
        drop(waiting);
    }

    #[test]
    fn a_pool_without_a_thread_is_refused() {
        let pool = StagePool::<Task>::new(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(pool.start().is_err());
        assert_eq!(pool.state.lock().threads, 0);
    }
}
