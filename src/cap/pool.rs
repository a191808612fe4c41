//! The threads that run methods: as many as are needed, as few as will do.

use std::collections::VecDeque;
use std::fmt;

use super::object::LocalObject;
use crate::error::Exception;
use crate::promise::{with_blocking, Blocking};
use crate::sync::{self, Arc, Condvar, Duration, Instant, Mutex, OnceLock, Rank, Role};

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// An elastic pool of threads that run the methods of objects.
///
/// It grows when all its threads are busy or asleep in a method, and shrinks when they idle. Unbounded (the
/// default), nested calls between objects never lack a thread. Bounded, a wait or a call for which no thread
/// would be left fails as `overloaded` instead of hanging.
///
/// A handle: clones are of the same pool. Its threads end when the last handle and the last object of it are
/// gone and they have no work left.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// Something for a thread of a pool to do.
pub(crate) enum Task {
    /// Answer an object's calls.
    Object(Arc<LocalObject>),
    /// Anything else that may wait: a bootstrap factory, say.
    Run(Box<dyn FnOnce() + Send>),
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    /// Threads that wait for a task.
    idle: usize,
    /// Threads asleep inside a method, waiting for an answer.
    asleep: usize,
}

impl Pool {
    /// A pool without a bound.
    pub fn new() -> Self {
        Self::with_limit(usize::MAX)
    }

    /// A pool of at most `threads` threads, and at least one.
    pub fn with_limit(threads: usize) -> Self {
        Pool(Arc::new(Shared {
            state: Mutex::new(Rank::Pool, State::default()),
            work: Condvar::new(),
            limit: threads.max(1),
        }))
    }

    /// The process's common pool, which is unbounded.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(Pool::new)
    }

    /// How many threads the pool has now.
    pub fn threads(&self) -> usize {
        self.0.state.lock().threads
    }

    /// Has a thread do `task`, a new one if all are busy. Never waits.
    pub(crate) fn submit(&self, task: Task) {
        let mut state = self.0.state.lock();
        state.tasks.push_back(task);
        if state.idle >= state.tasks.len() {
            drop(state);
            self.0.work.notify_one();
        } else if state.threads < self.0.limit {
            state.threads += 1;
            drop(state);
            self.start();
        } else if state.asleep == state.threads {
            let stuck = std::mem::take(&mut state.tasks);
            drop(state);
            refuse(stuck, &no_thread());
        }
    }

    fn start(&self) {
        let shared = self.0.clone();
        let run = move || {
            let observer: Arc<dyn Blocking> = shared.clone();
            with_blocking(observer, || shared.run());
        };
        if let Err(e) = sync::spawn("capnp-object", Role::User, run) {
            let mut state = self.0.state.lock();
            state.threads -= 1;
            let stuck = if state.threads == 0 { std::mem::take(&mut state.tasks) } else { VecDeque::new() };
            drop(state);
            refuse(stuck, &Exception::overloaded(format!("no thread for the call: {e}")));
        }
    }
}

fn refuse(tasks: VecDeque<Task>, why: &Exception) {
    for task in tasks {
        match task {
            Task::Object(object) => object.refuse(why),
            Task::Run(_) => {}
        }
    }
}

fn no_thread() -> Exception {
    Exception::overloaded("all threads of the bounded pool wait for answers")
}

impl Shared {
    fn run(&self) {
        while let Some(task) = self.next() {
            match task {
                Task::Object(object) => object.run(),
                Task::Run(run) => sync::foreign("a task of a pool", run),
            }
        }
    }

    /// The next task, or `None` when the thread has been idle for long enough.
    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        let deadline = Instant::now() + IDLE;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            state.idle += 1;
            let timed_out = self.work.wait_until(&mut state, Some(deadline));
            state.idle -= 1;
            if timed_out && state.tasks.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

impl Blocking for Shared {
    fn begin(&self) -> Result<(), Exception> {
        let mut state = self.state.lock();
        let last = state.threads == self.limit && state.asleep + 1 == state.threads;
        if last && !state.tasks.is_empty() {
            return Err(no_thread());
        }
        state.asleep += 1;
        Ok(())
    }

    fn end(&self) {
        self.state.lock().asleep -= 1;
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::global().clone()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        write!(f, "Pool({} threads, {} idle, {} asleep)", state.threads, state.idle, state.asleep)
    }
}
