//! The threads that run methods: as many as are needed, as few as will do.

use std::collections::VecDeque;
use std::fmt;

use super::permits::CallCount;
use crate::error::Exception;
use crate::promise::{count_sleep, with_blocking, Blocking, Observer};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, enter_role, in_turn, Arc, Condvar, Duration, Instant, Mutex, OnceLock, Rank, Role};

/// How many calls of connections a pool answers at a time, unless it is made for another number.
const CALLS: usize = 4096;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// An elastic pool of threads that run the methods of objects.
///
/// It grows when all its threads are busy or asleep in a method, and shrinks when they idle.
///
/// What peers can make it grow to is bounded. Of the calls that came over one connection it answers
/// [`Limits::methods`](crate::Limits::methods) at a time, and of those of all connections 4096
/// ([`with_call_limit`](Self::with_call_limit) sets another number); above that, up to eight for each connection. A call
/// above these bounds waits, in order, in the mailbox of its object. It fails as `overloaded` if all methods that run for
/// its connection wait for answers (it may be what they wait for), or if a call that came another way waits behind it for
/// the same object. Calls that are made in this process are not bounded: nested calls between its objects never lack a
/// thread.
///
/// A pool with a limit on its threads ([`with_limit`](Self::with_limit)) has none of these bounds. There a wait or a call
/// for which no thread would be left fails as `overloaded` instead of hanging.
///
/// All pools of a process share its [thread limit](crate::set_thread_limit).
///
/// A handle: clones are of the same pool. Its threads end when the last handle and the last object of it are
/// gone and they have no work left.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

/// Held by all handles, and not by the pool's own threads.
struct Handle(Arc<PoolShared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_all();
    }
}

/// Something for a thread of a pool to do.
pub(crate) enum Task {
    /// Answer an object's calls.
    Object(Arc<dyn Scheduled>),
    /// Anything else that may wait: a bootstrap factory, say. It is told if there is no thread for it.
    Run(Box<dyn FnOnce(Result<(), Exception>) + Send>),
}

/// An object with calls to answer. A trait object, so that the compiler need not look through pools, objects
/// and the calls in them to see that a `Client` is `Send` and `Sync`: it would reach its recursion limit in
/// the crates of users.
pub(crate) trait Scheduled: Send + Sync {
    /// Answers at most so many calls.
    fn run(self: Arc<Self>, calls: usize);
    /// Answers all calls that wait with an exception: the pool has no thread for them.
    fn refuse(&self, why: &Exception);
}

struct PoolShared {
    state: Mutex<PoolState>,
    work: Condvar,
    limit: usize,
    /// There are no threads: tasks are run where they are submitted.
    in_place: bool,
    /// Of a pool whose threads have no limit: how many calls of connections they answer. See Note [Permits].
    calls: Option<Arc<CallCount>>,
}

#[derive(Default)]
struct PoolState {
    tasks: VecDeque<Task>,
    threads: usize,
    /// Threads that wait for a task.
    idle: usize,
    /// Threads asleep inside a method, waiting for an answer.
    asleep: usize,
    /// The last handle is gone: no task will come.
    closed: bool,
    /// Why the last thread that was wanted could not be started.
    no_more: Option<Exception>,
}

impl Pool {
    /// A pool with as many threads as are needed.
    pub fn new() -> Self {
        Self::with_call_limit(CALLS)
    }

    /// A pool with as many threads as are needed, which answers at most `calls` calls of all connections at a time (at
    /// least one, and above that still up to eight of each connection).
    pub fn with_call_limit(calls: usize) -> Self {
        Self::made(usize::MAX, false, Some(CallCount::new(calls)))
    }

    /// A pool of at most `threads` threads, and at least one.
    pub fn with_limit(threads: usize) -> Self {
        Self::made(threads.max(1), false, None)
    }

    /// A pool without threads, for objects whose methods do not block: they run on the thread that has the call.
    /// For calls from a peer that is the connection's receive thread, which reads nothing meanwhile; for calls from
    /// this vat, the caller's own. No thread is woken for the call.
    ///
    /// Waiting is refused in such methods, wherever they run: they compute, make calls, and answer, at once or
    /// [later](crate::Results::defer).
    pub fn in_place() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Self::made(0, true, None))
    }

    /// A pool without threads: whoever made it runs its tasks, with [`run_task`](Self::run_task). For tests.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn manual() -> Self {
        Self::made(0, false, None)
    }

    fn made(limit: usize, in_place: bool, calls: Option<Arc<CallCount>>) -> Self {
        let state = Mutex::new(Rank::Pool, PoolState::default());
        Pool(Arc::new(Handle(Arc::new(PoolShared { state, work: Condvar::new(), limit, in_place, calls }))))
    }

    /// How many tasks a manual pool has. For tests.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn tasks(&self) -> usize {
        self.shared().state.lock().tasks.len()
    }

    /// Runs one task of a manual pool, for one call. They are numbered by age. For tests.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn run_task(&self, number: usize) {
        let task = self.shared().state.lock().tasks.remove(number);
        if let Some(task) = task {
            task.run(1);
        }
    }

    fn shared(&self) -> &Arc<PoolShared> {
        &self.0 .0
    }

    /// The process's common pool, as [`new`](Self::new) makes it.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(Pool::new)
    }

    /// How many threads the pool has now.
    pub fn threads(&self) -> usize {
        self.shared().state.lock().threads
    }

    /// What counts the calls of connections that are answered, if those need permits.
    pub(crate) fn call_count(&self) -> Option<&Arc<CallCount>> {
        self.shared().calls.as_ref()
    }

    /// Whether tasks run on the thread that has them.
    pub(crate) fn runs_in_place(&self) -> bool {
        self.shared().in_place
    }

    /// Runs `body` as a pool in place does.
    pub(crate) fn run_in_place(body: impl FnOnce() + 'static) {
        in_turn(move || {
            let _role = enter_role(Role::Connection);
            body();
        });
    }

    /// Has a thread do `task`, a new one if all are busy. Never waits.
    pub(crate) fn submit(&self, task: Task) {
        let shared = self.shared();
        if shared.in_place {
            return Self::run_in_place(move || task.run(usize::MAX));
        }
        let mut state = shared.state.lock();
        state.tasks.push_back(task);
        if state.idle >= state.tasks.len() {
            drop(state);
            shared.work.notify_one();
        } else if state.threads < shared.limit {
            state.threads += 1;
            drop(state);
            self.start();
        } else if state.asleep == state.threads && shared.limit > 0 {
            let stuck = std::mem::take(&mut state.tasks);
            drop(state);
            refuse(stuck, &all_wait());
        }
    }

    fn start(&self) {
        let shared = self.shared().clone();
        let run = move || {
            let observer: Arc<dyn Blocking> = shared.clone();
            with_blocking(Observer::Pool, observer, || shared.run());
        };
        let why = sync::spawn("capnp-object", Role::User, run)
            .err()
            .map(|e| Exception::overloaded(format!("no thread for the call: {e}")));
        let mut state = self.shared().state.lock();
        state.no_more = why;
        let Some(why) = state.no_more.clone() else { return };
        state.threads -= 1;
        // Threads that are awake will come to it: none of them may wait before (see `begin`).
        let none_awake = state.asleep >= state.threads;
        let stuck = if none_awake { std::mem::take(&mut state.tasks) } else { VecDeque::new() };
        drop(state);
        refuse(stuck, &why);
    }
}

/// How many calls an object answers before it lets others of its pool have the thread.
const TURN: usize = 64;

impl Task {
    fn run(self, calls: usize) {
        sync::foreign("a task of a pool", || match self {
            Task::Object(object) => object.run(calls),
            Task::Run(run) => run(Ok(())),
        });
    }
}

fn refuse(tasks: VecDeque<Task>, why: &Exception) {
    for task in tasks {
        match task {
            Task::Object(object) => object.refuse(why),
            Task::Run(run) => sync::foreign("a task of a pool", || run(Err(why.clone()))),
        }
    }
}

fn all_wait() -> Exception {
    Exception::overloaded("all threads of the bounded pool wait for answers")
}

impl PoolShared {
    fn run(&self) {
        while let Some(task) = self.next() {
            task.run(TURN);
        }
    }

    /// The next task, or `None` when the thread has been idle for long enough, or no task will come.
    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        let deadline = Instant::now() + IDLE;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            count_sleep();
            let timed_out = self.work.wait_until(&mut state, Some(deadline));
            state.idle -= 1;
            if timed_out && state.tasks.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

impl Blocking for PoolShared {
    fn begin(&self) -> Result<(), Exception> {
        let mut state = self.state.lock();
        let last = state.asleep + 1 == state.threads && !state.tasks.is_empty();
        if last && state.threads == self.limit {
            return Err(all_wait());
        }
        if let Some(why) = state.no_more.as_ref().filter(|_| last) {
            return Err(why.clone());
        }
        state.asleep += 1;
        Ok(())
    }

    fn end(&self, awake: &AtomicBool) {
        let mut state = self.state.lock();
        if !awake.swap(true, Ordering::SeqCst) {
            state.asleep -= 1;
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::global().clone()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared().state.lock();
        write!(f, "Pool({} threads, {} idle, {} asleep)", state.threads, state.idle, state.asleep)
    }
}
