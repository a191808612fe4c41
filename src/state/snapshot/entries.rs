//! What a snapshot says of each entry.

use crate::cap::port::ConnectionId;
use crate::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use crate::sync::Duration;

/// A method of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Method {
    /// The interface's ID, from its schema.
    pub interface_id: u64,
    /// The method's number in the interface.
    pub method_id: u16,
}

/// Which of the two messages that end a question or an answer has passed.
///
/// For a question the Return is received and the Finish is sent; for an answer it is the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QaState {
    /// Neither.
    NewQA,
    /// The Return, and not the Finish.
    HaveReturn,
    /// The Finish, and not the Return: the call was canceled.
    HaveFinish,
}

/// A question: a call that this vat has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuestionEntry {
    /// Its ID. The top bit is set if it was asked for pipelining alone: no Return is expected then.
    pub id: QuestionId,
    /// The method that was called; `None` if the bootstrap object was asked for.
    pub method: Option<Method>,
    /// How far it has come.
    pub state: QaState,
    /// How it was answered, if it was.
    pub outcome: Option<QuestionOutcome>,
    /// Who is told when the Return comes. Empty if nobody is: the bootstrap object was asked for, or a tail call made.
    pub on_return: Vec<OnQuestionReturn>,
    /// The results are to stay in the peer (`sendResultsTo.yourself`): a call of the peer's that was sent back to it.
    pub is_tail_call: bool,
    /// The results are those of this answer (`takeFromOtherQuestion`), which has not been returned.
    pub takes_from: Option<AnswerId>,
    /// Exports that the params gave to the peer, until a Return has said whether it keeps them: one for each time.
    pub param_exports: Vec<ExportId>,
    /// Promises for capabilities in the results, by [`PromiseEntry::id`].
    pub promises: Vec<u64>,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuestionOutcome {
    /// By results.
    Results,
    /// By an exception.
    Exception,
    /// The results stay in the peer (`resultsSentElsewhere`).
    Elsewhere,
}

/// What is done when a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnQuestionReturn {
    /// Respond to a caller in this vat.
    RespondHere,
    /// Respond to a call that came in, and was handed on: return this answer of that connection.
    RespondTo {
        /// The connection that the call came over.
        connection: ConnectionId,
        /// The call, by the ID that it has there.
        answer: AnswerId,
    },
}

/// An answer: a call that the peer has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnswerEntry {
    /// Its ID.
    pub id: AnswerId,
    /// The method that was called; `None` if the peer asked for the bootstrap object, or the call was refused.
    pub method: Option<Method>,
    /// How far it has come.
    pub state: QaState,
    /// What it was returned with, if it was.
    pub outcome: Option<AnswerOutcome>,
    /// What waits for the answer, in the order in which it will be done.
    pub on_return: Vec<OnAnswerReturn>,
    /// Exports that the results gave to the peer, which its Finish may give back: one for each time.
    pub on_finish: Vec<ExportId>,
    /// The call is pipelined on this answer, and waits for it.
    pub waits_for: Option<AnswerId>,
    /// Answers that the params named as not yet returned.
    pub names: Vec<AnswerId>,
    /// Where the call was handed on to, if it was.
    pub handed_on: Option<HandedOn>,
    /// A method has said where calls pipelined on the results go; so they do not wait here.
    pub has_pipeline: bool,
    /// The results stay here (`sendResultsTo.yourself`).
    pub keeps_results: bool,
    /// No Return is sent (`onlyPromisePipeline`).
    pub pipeline_only: bool,
    /// How many bytes the results that are held take, about.
    pub bytes: usize,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

impl AnswerEntry {
    /// How many calls, promises, questions and embargoes wait for the answer.
    pub fn waiting(&self) -> usize {
        self.on_return.len()
    }
}

/// What an answer was returned with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerOutcome {
    /// Results.
    Results {
        /// How many capabilities are in them.
        capabilities: usize,
    },
    /// An exception.
    Exception {
        /// Its kind and reason.
        reason: String,
    },
    /// The results of a question that was sent back to the peer, and which the peer keeps.
    TakenFrom {
        /// The question.
        question: QuestionId,
    },
}

/// Something that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OnAnswerReturn {
    /// What is done.
    pub action: OnAnswer,
    /// Whether it has the call go on though the peer has finished it.
    pub wants: bool,
}

/// What is done when an answer is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnAnswer {
    /// Hand on a call that the peer has pipelined on it.
    Deliver {
        /// That call.
        answer: AnswerId,
        /// The pointer fields that lead to the capability that is called.
        path: Vec<u16>,
    },
    /// Resolve a promise of this vat to a capability in the results.
    Resolve {
        /// The pointer fields that lead to the capability.
        path: Vec<u16>,
    },
    /// It is the outcome of a question.
    Respond {
        /// The question.
        question: QuestionId,
    },
    /// Nothing: an embargo is for a capability in the results.
    Keep,
}

/// The question that a call of the peer's has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HandedOn {
    /// The connection that it was sent over.
    pub connection: ConnectionId,
    /// The question, in the tables of that connection.
    pub question: QuestionId,
}

/// An export: a capability of this vat that the peer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportEntry {
    /// Its ID.
    pub id: ExportId,
    /// How many references the peer holds, counted as the protocol does.
    pub references: u32,
    /// What was exported.
    pub destination: Destination,
    /// Whether it was told to the peer as a promise.
    pub is_promise: bool,
    /// What the peer was told that the promise has become, if it was told: where all calls that arrive for it go.
    pub told: Option<Destination>,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

/// Where calls on a capability go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// Nowhere: the null capability.
    Null,
    /// Nowhere: calls fail.
    Broken {
        /// The kind and reason of the exception that they fail with.
        reason: String,
    },
    /// To an object of this vat.
    Object {
        /// A number that tells the object from others of this process as long as it lives.
        address: u64,
    },
    /// To a promise of this vat. They wait in it until it is resolved.
    Promise {
        /// A number that tells the promise from others of this process as long as it lives.
        address: u64,
        /// How many calls wait in it. Read a little after the tables.
        waiting_calls: usize,
    },
    /// To an import.
    Import {
        /// The connection to the peer.
        connection: ConnectionId,
        /// The import, in the tables of that connection.
        import: ImportId,
    },
    /// To a promise of a peer's.
    RemotePromise {
        /// The connection to the peer.
        connection: ConnectionId,
        /// The promise, by its [`PromiseEntry::id`] in the tables of that connection.
        promise: u64,
    },
    /// To a capability in the results of a question.
    Results {
        /// The connection that the question was sent over.
        connection: ConnectionId,
        /// The question, in the tables of that connection.
        question: QuestionId,
        /// The pointer fields that lead to the capability.
        path: Vec<u16>,
    },
    /// To a capability that a method has said will be in its results.
    Pipeline,
}

/// An import: a capability of the peer's that this vat holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportEntry {
    /// Its ID.
    pub id: ImportId,
    /// How many references to it were received, which its Release will give back.
    pub references: u32,
    /// Whether it is a promise, and what that has become.
    pub promise: ImportedPromise,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

/// Whether an import is a promise, and what that has become.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImportedPromise {
    /// It is no promise.
    Settled,
    /// It has not been resolved.
    Pending {
        /// The promise, by its [`PromiseEntry::id`]. If nobody holds that any more, it has no entry.
        promise: u64,
    },
    /// It has been resolved.
    Resolved {
        /// What it is for those who held it: an embargo may stand before that, as a promise of this vat.
        to: Destination,
    },
}

/// A promise of the peer's that this vat holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromiseEntry {
    /// A number that tells it from all other promises of the connection. It is not sent.
    pub id: u64,
    /// Where calls on it go.
    pub place: Place,
    /// Whether calls have gone there: then its resolution may need an embargo.
    pub is_called: bool,
    /// How many wait to be told what it has become: threads and functions of users', and exports of other connections. Some
    /// may have given up.
    pub watchers: usize,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

/// A place in the peer that can be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// An import.
    Import(ImportId),
    /// A capability in the results of a question.
    Results {
        /// The question.
        question: QuestionId,
        /// The pointer fields that lead to the capability.
        path: Vec<u16>,
    },
}

/// An embargo: a Disembargo that this vat has sent, and which has not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbargoEntry {
    /// Its ID.
    pub id: EmbargoId,
    /// What the calls that it holds will go to.
    pub target: EmbargoTarget,
    /// How many calls it holds. Read a little after the tables.
    pub held_calls: usize,
    /// For how long the entry had been there when the snapshot was taken. See [`Snapshot::resolution`](super::Snapshot::resolution).
    pub age: Duration,
}

/// What the peer has named as what one of its promises has become.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmbargoTarget {
    /// An export, or what it was when it was named.
    Export(Destination),
    /// A capability in an answer.
    Answer {
        /// The answer.
        answer: AnswerId,
        /// The pointer fields that lead to the capability.
        path: Vec<u16>,
    },
}
