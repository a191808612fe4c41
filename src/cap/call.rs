//! A call under way, and where its answer goes.

use std::fmt;

use super::answer::{PendingCall, Pipeline};
use super::contents::Payload;
use super::permits::Permits;
use super::port::{AnswerKey, ConnectionId, ConnectionOps, QuestionRef};
use crate::error::Exception;
use crate::promise::Cancel;
use crate::sync::{in_turn, Arc, Instant, Mutex, OnceLock, Rank};

/// A call on its way from whoever made it to whatever serves it.
pub(crate) struct CallInfo {
    pub(crate) interface_id: u64,
    pub(crate) method_id: u16,
    pub(crate) params: Payload,
    pub(crate) responder: Responder,
    pub(crate) cancel: Cancel,
    pub(crate) hints: Hints,
}

/// What the caller says of the use it will make of the results: `rpc.capnp`'s `Call.noPromisePipelining` and
/// `Call.onlyPromisePipeline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) no_promise_pipelining: bool,
    pub(crate) only_promise_pipeline: bool,
}

impl CallInfo {
    /// Of whom a thread that answers it needs a permit; `None` for a call made in this vat. See Note [Permits].
    pub(crate) fn permits(&self) -> Option<&Arc<Permits>> {
        self.came_over().map(|port| port.permits())
    }

    /// The connection that it came over, unless it was made in this vat.
    pub(super) fn came_over(&self) -> Option<&Arc<dyn ConnectionOps>> {
        match self.responder.route() {
            Route::Remote(port, _) => Some(port),
            Route::Here(_) => None,
        }
    }

    /// Answers with an exception instead of calling anything.
    pub(crate) fn fail(self, why: Exception) {
        self.responder.answer(Err(why));
    }
}

impl fmt::Debug for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call of method {:#x}.{}", self.interface_id, self.method_id)
    }
}

/// Whether whoever makes a call may be made to wait until there is room for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Wait for room, until the deadline if there is one.
    Block(Option<Instant>),
    /// Never wait. See Note [Threads].
    Queue,
}

/// Something that is used once, kept in a table. Tables are cloned when they are changed: it is taken out of
/// all clones together.
pub(crate) struct TakeOnce<T>(Arc<Mutex<Option<T>>>);

impl<T> TakeOnce<T> {
    pub(crate) fn new(value: T) -> Self {
        TakeOnce(Arc::new(Mutex::new(Rank::Queue, Some(value))))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }

    /// Looks at it, if it has not been taken. `look` must do no more than that.
    pub(crate) fn look<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        look(self.0.lock().as_ref())
    }
}

impl<T> Clone for TakeOnce<T> {
    fn clone(&self) -> Self {
        TakeOnce(self.0.clone())
    }
}

impl<T> fmt::Debug for TakeOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakeOnce")
    }
}

/// Where an answer goes.
#[derive(Clone)]
pub(crate) enum Route {
    /// To a call made in this vat.
    Here(Arc<dyn PendingCall>),
    /// To a call that came over a connection.
    Remote(Arc<dyn ConnectionOps>, AnswerKey),
}

impl Route {
    /// What pipelined calls on the answer go to until it is there.
    pub(crate) fn set_pipeline(&self, pipeline: Pipeline) {
        match self {
            Route::Here(cell) => cell.set_pipeline(pipeline),
            Route::Remote(port, key) => port.set_pipeline(*key, pipeline),
        }
    }

    fn answer(self, outcome: Result<Payload, Exception>) {
        match self {
            Route::Here(cell) => cell.answer(outcome),
            Route::Remote(port, key) => port.answer(key, outcome),
        }
    }

    /// The call has become a question: that goes on until it is answered or nobody wants the answer, and
    /// pipelined calls go there too.
    pub(crate) fn forwarded(&self, question: Arc<QuestionRef>) {
        match self {
            Route::Here(cell) => cell.forwarded(question),
            Route::Remote(port, key) => port.forwarded(*key, question),
        }
    }

    /// Where the answer arrives, if it does in this vat.
    pub(crate) fn here(&self) -> Option<&Arc<dyn PendingCall>> {
        match self {
            Route::Here(cell) => Some(cell),
            Route::Remote(..) => None,
        }
    }

    /// The entry of the answer table of `connection` that this route leads to, if it does.
    pub(crate) fn answer_on(&self, connection: ConnectionId) -> Option<AnswerKey> {
        match self {
            Route::Remote(port, key) if port.connection() == connection => Some(*key),
            _ => None,
        }
    }
}

/// The duty to answer a call, once. Dropped unused, it answers with an exception: nothing that was called is
/// left without an answer.
pub(crate) struct Responder(Option<Route>);

impl Responder {
    pub(crate) fn new(route: Route) -> Self {
        Responder(Some(route))
    }

    pub(crate) fn route(&self) -> &Route {
        self.0.as_ref().expect("a responder has its route until it is consumed")
    }

    pub(crate) fn answer(self, outcome: Result<Payload, Exception>) {
        self.disarm().answer(outcome);
    }

    /// Gives up the duty, because somebody else has it now.
    pub(crate) fn disarm(mut self) -> Route {
        self.0.take().expect("a responder has its route until it is consumed")
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(route) = self.0.take() {
            // A transaction that panics may drop it, under the lock that the answer takes.
            in_turn(move || route.answer(Err(unanswered())));
        }
    }
}

/// The answer to a call that nobody answers any more.
pub(super) fn unanswered() -> Exception {
    static UNANSWERED: OnceLock<Exception> = OnceLock::new();
    UNANSWERED.get_or_init(|| Exception::failed("the call was dropped without an answer")).clone()
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(Route::Here(_)) => f.write_str("Responder(here)"),
            Some(Route::Remote(_, key)) => write!(f, "Responder({})", key.id),
            None => f.write_str("Responder(done)"),
        }
    }
}
