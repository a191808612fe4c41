//! Who must hear of it before a thread goes to sleep.

use std::cell::{Cell, RefCell};

use crate::error::Exception;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, per_thread, puts_off, role, Arc, InWait, Role};

/// Told when a thread is about to sleep for an answer, which it may refuse: the pool that the thread belongs to, and the
/// permits of the connection whose call it answers.
pub(crate) trait Blocking: Send + Sync {
    /// The thread is about to sleep. An error is given to whoever wanted to wait.
    fn begin(&self) -> Result<(), Exception>;
    /// The thread is awake again, or will be at once: what it waited for is there. Counts once: sets `awake`, and it is
    /// in one critical section with the count, so that whoever finds it set finds the thread counted as awake.
    fn end(&self, awake: &AtomicBool);
}

/// Who may observe a thread's waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observer {
    /// The pool that the thread belongs to.
    Pool,
    /// The connection that the call which the thread answers came over.
    Connection,
}

const OBSERVERS: usize = 2;

/// A thread that is asleep, for whoever wakes it. It counts as awake from then on, not only when the system lets it run
/// again: else its pool would take it for one that can't do anything.
pub(crate) struct Sleeper([Option<Counted>; OBSERVERS]);

/// By whom a thread is counted as asleep, and whether it is awake again.
struct Counted {
    by: Arc<dyn Blocking>,
    awake: AtomicBool,
}

impl Sleeper {
    /// What the thread waited for is there.
    pub(crate) fn woken(&self) {
        for Counted { by, awake } in self.0.iter().flatten() {
            if !awake.load(Ordering::SeqCst) {
                by.end(awake);
            }
        }
    }
}

/// Kept by a thread while it sleeps.
pub(crate) struct Asleep(Option<Arc<Sleeper>>);

impl Asleep {
    /// For whoever will wake the thread; `None` if nobody counts it.
    pub(crate) fn sleeper(&self) -> Option<Arc<Sleeper>> {
        self.0.clone()
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        if let Some(sleeper) = &self.0 {
            sleeper.woken();
        }
    }
}

per_thread! {
    /// How often this thread has slept.
    static SLEPT: Cell<u64> = Cell::new(0);
    static OBSERVED_BY: RefCell<[Option<Arc<dyn Blocking>>; OBSERVERS]> = RefCell::new([None, None]);
}

/// How often this thread has slept, for an answer or for work.
pub(crate) fn slept() -> u64 {
    SLEPT.with(Cell::get)
}

/// This thread sleeps.
pub(crate) fn count_sleep() {
    SLEPT.with(|slept| slept.set(slept.get() + 1));
}

/// Runs `body` with an observer told of every wait on this thread.
pub(crate) fn with_blocking<R>(which: Observer, observer: Arc<dyn Blocking>, body: impl FnOnce() -> R) -> R {
    struct Restore(Observer, Option<Arc<dyn Blocking>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            replace(self.0, self.1.take());
        }
    }
    fn replace(which: Observer, by: Option<Arc<dyn Blocking>>) -> Option<Arc<dyn Blocking>> {
        OBSERVED_BY.with(|observers| std::mem::replace(&mut observers.borrow_mut()[which as usize], by))
    }
    let _restore = Restore(which, replace(which, Some(observer)));
    body()
}

/// Does what this thread has put off, as it is about to sleep for an answer: see Note [One after the other]. The result is
/// kept while it sleeps. Not to be called under a lock.
pub(crate) fn enter_wait() -> Result<Option<InWait>, Exception> {
    // Where waiting is refused, there is no need to.
    if !sync::is_in_turn() || role() != Role::User {
        return Ok(None);
    }
    let too_deep = "waits too many levels deep in what runs before a wait (drops and callbacks that wait)";
    sync::enter_wait().map(Some).map_err(|sync::TooDeep| Exception::overloaded(too_deep))
}

/// Asks whether this thread may sleep for an answer, after [`enter_wait`]. The result is kept while it sleeps.
///
/// ```text
/// Note [Threads]
/// ==============
/// A connection's four threads wait for one thing each: send for output, receive for input (and for room in
/// the limits, which is what stops a peer that sends faster than it is served), coordinator and callback for
/// their own queue. They never wait for an answer, for room in a queue, for a question ID, or for a user's
/// method; neither does the timer. Two vats whose coordinators wait for each other would never wake. So
/// waiting on such a thread is refused here, and calls made there are queued instead of blocking. That is why
/// one of them can do another's work (Note [Lending]), or the reactor that of all receive threads (Note [One waits for
/// all]), and why methods that run in place may not wait either.
/// ```
pub(crate) fn enter_blocking() -> Result<Asleep, Exception> {
    if role() != Role::User {
        return Err(Exception::failed(
            "waiting on a connection's own thread, or in an object that runs in place, would stop the connection: \
             wait on a thread of your own",
        ));
    }
    debug_assert!(!puts_off(), "what this thread has put off is done before it waits");
    let observers = OBSERVED_BY.with(|observers| observers.borrow().clone());
    if observers.iter().all(Option::is_none) {
        count_sleep();
        return Ok(Asleep(None));
    }
    let sleeper =
        Arc::new(Sleeper(observers.map(|by| by.map(|by| Counted { by, awake: AtomicBool::new(true) }))));
    let asleep = Asleep(Some(sleeper.clone()));
    for Counted { by, awake } in sleeper.0.iter().flatten() {
        // Should the second one refuse, the first one is told that the thread is awake.
        by.begin()?;
        awake.store(false, Ordering::SeqCst);
    }
    count_sleep();
    Ok(asleep)
}
