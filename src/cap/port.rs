//! A connection as capabilities see it, and references to the places in the peer that can be called.

use std::fmt;

use super::answer::Pipeline;
use super::call::{CallInfo, Mode};
use super::client::Client;
use super::object::Crowd;
use super::permits::Permits;
use super::resolution::ResolvedTo;
use super::watchers::Watcher;
use crate::error::Exception;
use crate::id::{AnswerId, ExportId, ImportId, QuestionId};
use crate::peer::Peer;
use crate::promise::{Attachment, Waiter};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{drop_in_turn, Arc, Duration, OnceLock, Timer, TimerKey, Weak};
use crate::table::Key;
use crate::wire::message::Path;

use super::contents::Payload;

/// Tells connections of this process apart. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Counts the uses of an ID: a reference to an earlier use of the same number is not a reference to this one.
pub(crate) type Generation = u64;

/// Names a promise of the peer's within a connection. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RefId(pub(crate) u64);

impl Key for RefId {
    fn number(self) -> u64 {
        self.0
    }

    fn of(number: u64) -> Self {
        RefId(number)
    }
}

/// Names an entry of the answer table for whoever is to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerKey {
    pub(crate) id: AnswerId,
    pub(crate) generation: Generation,
}

/// Names an entry in what waits for an answer of ours. Never reused within a connection.
pub(crate) type Ticket = Generation;

/// An answer of ours that is not there yet, and the entry in what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) answer: AnswerId,
    pub(crate) ticket: Ticket,
}

/// Held by a promise for a capability in an answer of ours, until it is resolved. Tells the connection when the promise
/// is dropped before that. See Note [Wanted answers].
pub(crate) struct Name {
    port: Option<Weak<dyn ConnectionOps>>,
    awaited: Awaited,
}

impl Name {
    pub(crate) fn new(port: Weak<dyn ConnectionOps>, awaited: Awaited) -> Self {
        Name { port: Some(port), awaited }
    }

    pub(crate) fn awaited(&self) -> Awaited {
        self.awaited
    }

    /// The promise has been resolved: there is nothing to tell.
    pub(crate) fn resolved(mut self) {
        self.port = None;
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(port) = self.port.take().and_then(|port| port.upgrade()) {
            port.post(TableEvent::NameDropped(self.awaited));
        }
    }
}

/// What a connection does for the capabilities that lead over it. Each function is one transaction.
pub(crate) trait ConnectionOps: Send + Sync {
    fn connection(&self) -> ConnectionId;

    fn peer(&self) -> &Peer;

    /// Why the connection has ended, if it has.
    fn why_ended(&self) -> Option<Exception>;

    /// For how long a caller waits for room.
    fn room_timeout(&self) -> Option<Duration>;

    /// How many methods may run for the peer's calls.
    fn permits(&self) -> &Arc<Permits>;

    /// Counts a call of the peer's that waits in the mailbox of an object, in this crowd, until the result is dropped. May
    /// be called under the lock of the mailbox; the result may not be dropped under a lock. See Note [Crowds].
    fn in_crowd(&self, crowd: &Arc<Crowd>) -> Box<dyn Attachment>;

    /// Sends a call. Gives it back if `to` has been resolved meanwhile, with what to call instead.
    fn call(&self, to: CallTarget<'_>, call: CallInfo, mode: Mode) -> Sent;

    /// The capability at `path` in the results of a question.
    fn pipelined(&self, question: &Arc<QuestionRef>, path: &[u16]) -> Client;

    /// Has `watcher` told when the promise is resolved; at once if it is.
    fn watch(&self, promise: &RemoteRef, watcher: Watcher);

    /// Answers a call of the peer's. Ignored if it has been answered or is gone.
    fn answer(&self, key: AnswerKey, outcome: Result<Payload, Exception>);

    /// Tells what pipelined calls on an answer go to until it is there.
    fn set_pipeline(&self, key: AnswerKey, pipeline: Pipeline);

    /// Tells what question a call of the peer's has become: it is held until the answer is there or canceled.
    fn forwarded(&self, key: AnswerKey, question: Arc<QuestionRef>);

    /// Reads what the peer sends for a thread that waits for some of it: see [`Reading`](crate::promise::Reading).
    fn read_for(&self, question: Generation, waiter: &dyn Waiter);

    /// Has the connection look at something later. May be called under any lock.
    fn post(&self, notice: TableEvent);
}

/// What a call is addressed to.
pub(crate) enum CallTarget<'a> {
    Remote(&'a RemoteTarget),
    Promise(&'a Arc<RemoteRef>),
}

/// What became of a call given to a [`ConnectionOps`].
pub(crate) enum Sent {
    /// It is on its way, or has been answered.
    Done,
    /// It is not: the promise has become this client.
    Redirect(Box<(Client, CallInfo)>),
}

impl Sent {
    pub(crate) fn redirect(client: Client, call: CallInfo) -> Self {
        Sent::Redirect(Box::new((client, call)))
    }
}

/// Something that a connection is to look at later. A notice that has been overtaken does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TableEvent {
    /// Nobody can use the connection any more.
    Unused,
    /// The last reference to an import is gone.
    ImportDropped(ImportId, Generation),
    /// The last reference to a promise of the peer's is gone.
    PromiseDropped(RefId),
    /// A promise for a capability in an answer of ours is gone.
    NameDropped(Awaited),
    /// Nobody wants a question's results, or calls on them, any more.
    QuestionDropped(QuestionId, Generation),
    /// A promise that we exported may have been resolved.
    ExportResolved(ExportId, Generation),
    /// A question of ours was not answered by its deadline.
    QuestionLate(QuestionId, Generation),
    /// A call of the peer's that it no longer wants has reached its method, and is canceled now.
    AnswerCanceled(AnswerKey),
}

impl TableEvent {
    /// Whether the last reference to something is gone.
    pub(crate) fn is_of_a_drop(&self) -> bool {
        match self {
            TableEvent::ImportDropped(..) | TableEvent::PromiseDropped(_) => true,
            TableEvent::NameDropped(_) | TableEvent::QuestionDropped(..) => true,
            TableEvent::Unused | TableEvent::ExportResolved(..) => false,
            TableEvent::QuestionLate(..) | TableEvent::AnswerCanceled(_) => false,
        }
    }
}

/// A capability in the peer, by our import table. The last one that goes releases the import.
pub(crate) struct ImportRef {
    pub(crate) port: Arc<dyn ConnectionOps>,
    pub(crate) id: ImportId,
    pub(crate) generation: Generation,
}

impl Drop for ImportRef {
    fn drop(&mut self) {
        self.port.post(TableEvent::ImportDropped(self.id, self.generation));
    }
}

/// A question that somebody still wants something of: its results, or calls on them. The last one that goes
/// finishes the question.
pub(crate) struct QuestionRef {
    pub(crate) port: Arc<dyn ConnectionOps>,
    pub(crate) id: QuestionId,
    pub(crate) generation: Generation,
    /// What the question was answered.
    pub(crate) outcome: OnceLock<Result<Payload, Exception>>,
    /// The question is no longer in the table: nothing is left to be finished.
    pub(crate) ended: AtomicBool,
    /// Until when it is to be answered, if there is a limit for all calls of the connection.
    pub(crate) deadline: OnceLock<TimerKey>,
}

impl QuestionRef {
    pub(crate) fn new(port: Arc<dyn ConnectionOps>, id: QuestionId, generation: Generation) -> Self {
        let (outcome, deadline) = (OnceLock::new(), OnceLock::new());
        QuestionRef { port, id, generation, outcome, ended: AtomicBool::new(false), deadline }
    }
}

impl fmt::Debug for QuestionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuestionRef({})", self.id)
    }
}

impl Drop for QuestionRef {
    fn drop(&mut self) {
        if let Some(deadline) = self.deadline.get() {
            Timer::global().cancel(*deadline);
        }
        if !self.ended.load(Ordering::Relaxed) {
            self.port.post(TableEvent::QuestionDropped(self.id, self.generation));
        }
        match self.outcome.take() {
            Some(Ok(payload)) if !payload.caps.is_empty() => drop_in_turn(payload.caps),
            _ => {}
        }
    }
}

/// A promise of the peer's: an import that is to be resolved, or a capability in results that are to come.
/// All clones of a client share one, and so one embargo (see Note [Embargo]).
pub(crate) struct RemoteRef {
    pub(crate) port: Arc<dyn ConnectionOps>,
    pub(crate) id: RefId,
    /// What it was resolved to. Set by the connection, once, within a transaction.
    pub(crate) resolved: ResolvedTo,
}

impl Drop for RemoteRef {
    fn drop(&mut self) {
        match self.resolved.take() {
            // One that was resolved is no longer in the table.
            Some(client) => drop_in_turn(client),
            None => self.port.post(TableEvent::PromiseDropped(self.id)),
        }
    }
}

/// A place in the peer that calls can be addressed to, kept alive there as long as this is held.
#[derive(Clone)]
pub(crate) enum RemoteTarget {
    Import(Arc<ImportRef>),
    Answer(Arc<QuestionRef>, Path),
}

impl RemoteTarget {
    pub(crate) fn port(&self) -> &Arc<dyn ConnectionOps> {
        match self {
            RemoteTarget::Import(import) => &import.port,
            RemoteTarget::Answer(question, _) => &question.port,
        }
    }

    /// Sends a call to this very place.
    pub(crate) fn deliver(&self, call: CallInfo) {
        match self.port().call(CallTarget::Remote(self), call, Mode::Queue) {
            Sent::Done => {}
            Sent::Redirect(follow) => {
                let (client, call) = *follow;
                client.deliver(call, Mode::Queue);
            }
        }
    }

    /// Whether this is the same place of the same connection.
    pub(crate) fn is(&self, other: &RemoteTarget) -> bool {
        match (self, other) {
            (RemoteTarget::Import(a), RemoteTarget::Import(b)) => Arc::ptr_eq(a, b),
            (RemoteTarget::Answer(a, path), RemoteTarget::Answer(b, other)) => {
                Arc::ptr_eq(a, b) && path == other
            }
            _ => false,
        }
    }
}

impl fmt::Debug for RemoteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteTarget::Import(i) => write!(f, "import {}", i.id),
            RemoteTarget::Answer(q, path) => write!(f, "question {} at {path:?}", q.id),
        }
    }
}
