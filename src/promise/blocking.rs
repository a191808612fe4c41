//! Who must hear of it before a thread goes to sleep.

use std::cell::{Cell, RefCell};

use crate::error::Exception;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, per_thread, puts_off, role, Arc, InWait, Role};

/// Told when a thread is about to sleep for an answer: the pool that the thread belongs to, which may start
/// another thread in its place or refuse.
pub(crate) trait Blocking: Send + Sync {
    /// The thread is about to sleep. An error is given to whoever wanted to wait.
    fn begin(&self) -> Result<(), Exception>;
    /// The thread is awake again, or will be at once: what it waited for is there. Counts once: sets `awake`, and it is
    /// in one critical section with the count, so that whoever finds it set finds the thread counted as awake.
    fn end(&self, awake: &AtomicBool);
}

/// A thread that is asleep, for whoever wakes it. It counts as awake from then on, not only when the system lets it run
/// again: else its pool would take it for one that can't do anything.
pub(crate) struct Sleeper {
    observer: Arc<dyn Blocking>,
    awake: AtomicBool,
}

impl Sleeper {
    /// What the thread waited for is there.
    pub(crate) fn woken(&self) {
        if !self.awake.load(Ordering::SeqCst) {
            self.observer.end(&self.awake);
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
    static OBSERVER: RefCell<Option<Arc<dyn Blocking>>> = RefCell::new(None);
}

/// How often this thread has slept, for an answer or for work.
pub(crate) fn slept() -> u64 {
    SLEPT.with(Cell::get)
}

/// This thread sleeps.
pub(crate) fn count_sleep() {
    SLEPT.with(|slept| slept.set(slept.get() + 1));
}

/// Runs `body` with `observer` told of every wait on this thread.
pub(crate) fn with_blocking<R>(observer: Arc<dyn Blocking>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Blocking>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OBSERVER.with(|o| *o.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(OBSERVER.with(|o| o.borrow_mut().replace(observer)));
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
    let observer = OBSERVER.with(|o| o.borrow().clone());
    if let Some(observer) = &observer {
        observer.begin()?;
    }
    count_sleep();
    Ok(Asleep(observer.map(|observer| Arc::new(Sleeper { observer, awake: AtomicBool::new(false) }))))
}
