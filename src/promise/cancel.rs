//! Whether a call was canceled, and who wants to know.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;

use super::blocking::{enter_blocking, Asleep};
use crate::error::Exception;
use crate::queue::Queue;
use crate::sync::{foreign, per_thread, Arc, Foreign, Mutex, MutexGuard, Rank, Weak};

/// Tells a method whether its caller still wants the answer. A handle: clones speak of the same call.
///
/// Rule: `rpc.capnp`'s `Finish`, sent before the `Return`, cancels the call.
#[derive(Clone)]
pub struct Cancel(Arc<dyn Cancelable>);

/// What a call's token is in: the token itself, or what else there is of the call.
pub(crate) trait Cancelable: Send + Sync {
    fn token(&self) -> &Token;
}

type Watcher = Foreign<Box<dyn FnOnce() + Send>>;

/// What a panic is logged as.
const CALLBACK: &str = "a callback of a cancellation";

/// ```text
///            start()                 cancel(*)
///  Waiting ----------> Started ----------------> Canceled
///     | cancel(after_start: false)                  ^ ^
///     |---------------------------------------------' |
///     | cancel(after_start: true)         start()     |
///     '--------------------------> Doomed ------------'
///
///  any but Canceled --- end() ---> Ended
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The call has not reached its method.
    Waiting,
    /// As `Waiting`; to be canceled once it does.
    Doomed,
    /// The method runs, or has run.
    Started,
    /// Nobody wants the answer.
    Canceled,
    /// The answer was given before anybody could cancel the call.
    Ended,
}

/// Whether a call is canceled.
pub(crate) struct Token(Mutex<Watched>);

struct Watched {
    phase: Phase,
    watchers: Queue<Watcher>,
    /// Where the call waits, or waited last, and its ticket there. It waits in one place at a time.
    waits_in: Option<(Weak<dyn WaitsIn>, u64)>,
}

/// Where a call waits that can leave at any time, by its ticket. Nothing happens if it has left.
pub(crate) trait WaitsIn: Send + Sync {
    /// The call has been canceled.
    fn canceled(self: Arc<Self>, ticket: u64);

    /// The call will be canceled as soon as it reaches its method.
    fn doomed(self: Arc<Self>, ticket: u64);

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl Watched {
    /// To be dropped outside of the lock.
    fn place(&self) -> Option<(Arc<dyn WaitsIn>, u64)> {
        let (place, ticket) = self.waits_in.as_ref()?;
        Some((place.upgrade()?, *ticket))
    }
}

impl Token {
    pub(crate) fn new() -> Self {
        let watched = Watched { phase: Phase::Waiting, watchers: Queue::default(), waits_in: None };
        Token(Mutex::new(Rank::Cancel, watched))
    }

    /// Where the call waits, or waited last, if that is still there, and its ticket there.
    pub(crate) fn waits_in(&self) -> Option<(Arc<dyn WaitsIn>, u64)> {
        self.0.lock().place()
    }
}

impl Cancelable for Token {
    fn token(&self) -> &Token {
        self
    }
}

per_thread! {
    /// The call whose method this thread runs.
    static CURRENT: RefCell<Option<Cancel>> = RefCell::new(None);
}

impl Cancel {
    pub(crate) fn new() -> Self {
        Cancel::of(Arc::new(Token::new()))
    }

    /// The cancellation of a call.
    pub(crate) fn of(call: Arc<dyn Cancelable>) -> Self {
        Cancel(call)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.token().0.lock()
    }

    /// Whether the caller has canceled the call before it was answered.
    pub fn is_canceled(&self) -> bool {
        self.lock().phase == Phase::Canceled
    }

    /// Runs `action` when the call is canceled; at once, on this thread, if it is already; never, if it was
    /// answered before that.
    ///
    /// The action runs on whichever thread learns of the cancellation, often one of the connection's own:
    /// it must not wait for anything. It is dropped without being run if the call ends uncanceled.
    pub fn on_cancel(&self, action: impl FnOnce() + Send + 'static) {
        self.watch(Foreign::new(Box::new(action)));
    }

    /// Blocks until the call is canceled.
    ///
    /// # Errors
    /// If the call is answered instead. On one of a connection's own threads, where nothing may wait.
    pub fn wait(&self) -> crate::error::Result<()> {
        let (promise, fulfiller) = super::promise::<()>();
        self.on_cancel(move || fulfiller.fulfill(()));
        without_current(|| promise.wait())
    }

    /// The call has reached its method (or has left this vat).
    pub(crate) fn start(&self) {
        let mut token = self.lock();
        match token.phase {
            Phase::Waiting => token.phase = Phase::Started,
            Phase::Doomed => {
                drop(token);
                self.cancel(false);
            }
            Phase::Started | Phase::Canceled | Phase::Ended => {}
        }
    }

    /// Whether the call will be canceled when it reaches its method.
    pub(crate) fn is_doomed(&self) -> bool {
        self.lock().phase == Phase::Doomed
    }

    /// Nobody wants the answer. With `after_start`, not before the method has been reached.
    pub(crate) fn cancel(&self, after_start: bool) {
        let mut token = self.lock();
        token.phase = match token.phase {
            Phase::Waiting if after_start => Phase::Doomed,
            Phase::Doomed if after_start => return,
            Phase::Canceled | Phase::Ended => return,
            _ => Phase::Canceled,
        };
        let place = token.place();
        if token.phase == Phase::Doomed {
            drop(token);
            if let Some((place, ticket)) = place {
                foreign(CALLBACK, || place.doomed(ticket));
            }
            return;
        }
        let watchers = token.watchers.take_all();
        drop(token);
        if let Some((place, ticket)) = place {
            foreign(CALLBACK, || place.canceled(ticket));
        }
        for watcher in watchers {
            foreign(CALLBACK, watcher.into_inner());
        }
    }

    /// The call is about to be answered: nobody is told any more. (Who gets the answer lets go of the call.)
    pub(crate) fn end(&self) {
        let mut token = self.lock();
        if token.phase != Phase::Canceled {
            token.phase = Phase::Ended;
        }
        let watchers = (token.watchers.take_all(), token.waits_in.take());
        drop(token);
        drop(watchers);
    }

    fn watch(&self, action: Watcher) -> Option<u64> {
        let mut token = self.lock();
        match token.phase {
            Phase::Canceled => {
                drop(token);
                foreign(CALLBACK, action.into_inner());
                return None;
            }
            Phase::Ended => {
                drop(token);
                return None;
            }
            Phase::Waiting | Phase::Doomed | Phase::Started => {}
        }
        Some(token.watchers.push(action))
    }

    /// Watches until the result is dropped. `None` if the call is canceled. May be called under a lock.
    pub(crate) fn watch_unless_canceled(&self, action: impl FnOnce() + Send + 'static) -> Option<Unwatch> {
        let mut token = self.lock();
        let id = match token.phase {
            Phase::Canceled => return None,
            Phase::Ended => None,
            Phase::Waiting | Phase::Doomed | Phase::Started => {
                Some(token.watchers.push(Foreign::new(Box::new(action))))
            }
        };
        Some(Unwatch(self.clone(), id))
    }

    /// The call waits in this place from now on, and in no other. `None` if it is canceled; else, whether it is wanted:
    /// it is not if it is to be canceled once it reaches its method. May be called under a lock.
    pub(crate) fn wait_in(&self, place: Weak<dyn WaitsIn>, ticket: u64) -> Option<bool> {
        let mut token = self.lock();
        if token.phase == Phase::Canceled {
            return None;
        }
        token.waits_in = Some((place, ticket));
        Some(matches!(token.phase, Phase::Waiting | Phase::Started))
    }

    /// Watches until the result is dropped.
    pub(crate) fn watch_while(&self, action: impl FnOnce() + Send + 'static) -> Unwatch {
        Unwatch(self.clone(), self.watch(Foreign::new(Box::new(action))))
    }

    /// Asks whether this thread may sleep, and watches until the result is dropped, at one stroke: whoever cancels the
    /// call finds a thread that is counted as asleep together with the watcher that wakes it. Were it counted first, it
    /// would stay so after the cancellation until the system let it run, and its pool would take it for one that can't
    /// do anything.
    pub(crate) fn enter_blocking<A: FnOnce() + Send + 'static>(
        &self,
        action: impl FnOnce(&Asleep) -> A,
    ) -> Result<(Asleep, Unwatch), Exception> {
        let mut token = self.lock();
        if token.phase == Phase::Canceled {
            return Err(canceled());
        }
        let asleep = enter_blocking()?;
        let id = (token.phase != Phase::Ended)
            .then(|| token.watchers.push(Foreign::new(Box::new(action(&asleep)))));
        drop(token);
        Ok((asleep, Unwatch(self.clone(), id)))
    }
}

/// Keeps a watcher, if there is one.
pub(crate) struct Unwatch(Cancel, Option<u64>);

impl Drop for Unwatch {
    fn drop(&mut self) {
        let Some(id) = self.1 else { return };
        let mut token = self.0.lock();
        let watcher = token.watchers.remove(id);
        drop(token);
        drop(watcher);
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel(canceled: {})", self.is_canceled())
    }
}

/// The error of a wait in a method whose call was canceled.
pub(crate) fn canceled() -> Exception {
    Exception::canceled("the call was canceled by its caller")
}

/// The call whose method this thread runs.
pub(crate) fn current() -> Option<Cancel> {
    CURRENT.with(|c| c.borrow().clone())
}

/// Runs `body` as the method of the call that `cancel` belongs to.
pub(crate) fn with_current<R>(cancel: Cancel, body: impl FnOnce() -> R) -> R {
    replace_current(Some(cancel), body)
}

/// Runs `body` as no call's method.
pub(crate) fn without_current<R>(body: impl FnOnce() -> R) -> R {
    replace_current(None, body)
}

fn replace_current<R>(cancel: Option<Cancel>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Cancel>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|c| *c.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with(|c| c.replace(cancel)));
    body()
}
