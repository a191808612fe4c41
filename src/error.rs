//! What can go wrong, by who is to blame.
//!
//! * [`Exception`]: a call failed. This is what travels in `rpc.capnp`'s `Exception`, with its four kinds.
//! * [`ProtocolError`]: the peer broke a rule of the protocol; one variant for each sin. Ends the connection
//!   with an `Abort`.
//! * [`TransportError`]: bytes could not be moved, or were no Cap'n Proto message. Ends the connection.
//! * [`Error`]: any of the three, which is what the functions of this crate return.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use crate::limits::InvalidLimits;
use crate::sync::{foreign_outcome, panic_text, Arc, Foreign};

/// How a failed call may be reacted to: `rpc.capnp`'s `Exception.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExceptionKind {
    /// A generic problem; trying again is not expected to help.
    Failed,
    /// A resource was exhausted for now, or a deadline passed; trying again later may help.
    Overloaded,
    /// The connection that was needed is gone; a new connection may help.
    Disconnected,
    /// The method, or a feature of the protocol, is not implemented by the callee.
    Unimplemented,
}

impl fmt::Display for ExceptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExceptionKind::Failed => "failed",
            ExceptionKind::Overloaded => "overloaded",
            ExceptionKind::Disconnected => "disconnected",
            ExceptionKind::Unimplemented => "unimplemented",
        })
    }
}

/// Further facts about an exception, for programs: `rpc.capnp`'s `Exception.Detail`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detail {
    /// A 64-bit ID that tells what `data` means, unique like the ID of a type.
    pub id: u64,
    /// The fact, encoded as `id` says.
    pub data: Vec<u8>,
}

/// A call that failed: kind, reason, and what is known beside them.
///
/// Cheap to clone: one allocation, shared. Equality is by content, without the source.
#[derive(Clone)]
pub struct Exception(Arc<Body>);

#[derive(Clone)]
struct Body {
    kind: ExceptionKind,
    reason: String,
    trace: String,
    details: Vec<Detail>,
    source: Option<Arc<dyn Source>>,
    cause: Cause,
}

/// What this vat knows of the cause of an exception that it made, beyond the kind. It does not travel: the protocol has
/// no place for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Other,
    /// A time that had been set for something has passed.
    Timeout,
    /// The call, or the one whose method waits for it, was canceled.
    Cancellation,
}

/// An error that caused an exception: it may be of a type of the user's.
trait Source: Send + Sync {
    fn error(&self) -> &(dyn StdError + 'static);
}

impl<E: StdError + Send + Sync> Source for Foreign<E> {
    fn error(&self) -> &(dyn StdError + 'static) {
        &**self
    }
}

impl Exception {
    /// An exception of the given kind.
    pub fn new(kind: ExceptionKind, reason: impl Into<String>) -> Self {
        Self::caused(Cause::Other, kind, reason)
    }

    fn caused(cause: Cause, kind: ExceptionKind, reason: impl Into<String>) -> Self {
        let (reason, trace, details) = (reason.into(), String::new(), Vec::new());
        Exception(Arc::new(Body { kind, reason, trace, details, source: None, cause }))
    }

    /// Of kind `overloaded`: a time that had been set for something has passed.
    pub(crate) fn timed_out(reason: impl Into<String>) -> Self {
        Self::caused(Cause::Timeout, ExceptionKind::Overloaded, reason)
    }

    /// Of kind `failed`: the call, or the one whose method waits for it, was canceled.
    pub(crate) fn canceled(reason: impl Into<String>) -> Self {
        Self::caused(Cause::Cancellation, ExceptionKind::Failed, reason)
    }

    /// An exception of kind [`Failed`](ExceptionKind::Failed).
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::new(ExceptionKind::Failed, reason)
    }

    /// An exception of kind [`Overloaded`](ExceptionKind::Overloaded).
    pub fn overloaded(reason: impl Into<String>) -> Self {
        Self::new(ExceptionKind::Overloaded, reason)
    }

    /// An exception of kind [`Disconnected`](ExceptionKind::Disconnected).
    pub fn disconnected(reason: impl Into<String>) -> Self {
        Self::new(ExceptionKind::Disconnected, reason)
    }

    /// An exception of kind [`Unimplemented`](ExceptionKind::Unimplemented).
    pub fn unimplemented(reason: impl Into<String>) -> Self {
        Self::new(ExceptionKind::Unimplemented, reason)
    }

    /// The kind.
    pub fn kind(&self) -> ExceptionKind {
        self.0.kind
    }

    /// Whether a time that was set in this vat has passed: as [`Error::is_timeout`] says.
    pub fn is_timeout(&self) -> bool {
        self.0.cause == Cause::Timeout || self.source().is_some_and(is_timeout)
    }

    /// Whether a connection that was needed is gone: the kind is [`Disconnected`](ExceptionKind::Disconnected).
    pub fn is_disconnected(&self) -> bool {
        self.kind() == ExceptionKind::Disconnected
    }

    /// Whether a call was canceled: as [`Error::is_canceled`] says.
    pub fn is_canceled(&self) -> bool {
        self.0.cause == Cause::Cancellation
    }

    /// The reason, for people.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The stack trace that the callee chose to send, or an empty string.
    pub fn trace(&self) -> &str {
        &self.0.trace
    }

    /// Further facts, for programs.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// The same exception with a stack trace.
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<String>) -> Self {
        self.body_mut().trace = trace.into();
        self
    }

    /// The same exception with one more detail.
    #[must_use]
    pub fn with_detail(mut self, id: u64, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        self.body_mut().details.push(Detail { id, data });
        self
    }

    /// The same exception with a cause, which [`source`](StdError::source) gives back. Causes do not travel.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.body_mut().source = Some(Arc::new(Foreign::new(source)));
        self
    }

    /// The same exception with words put before its reason.
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        let body = self.body_mut();
        body.reason = format!("{context}: {}", body.reason);
        self
    }

    /// What those are told who needed a connection that this exception has ended: its trace and details say why, as in the
    /// C++ implementation.
    pub(crate) fn as_disconnected(&self, reason: String) -> Self {
        let (trace, details) = (self.0.trace.clone(), self.0.details.clone());
        let (kind, cause) = (ExceptionKind::Disconnected, Cause::Other);
        Exception(Arc::new(Body { kind, reason, trace, details, source: None, cause }))
    }

    /// What callers are told of a panic in the user's code `what`.
    pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Self {
        Exception::failed(panic_text(what, panic))
    }

    /// How many bytes it takes to send, about.
    pub(crate) fn bytes(&self) -> usize {
        let details = self.0.details.iter().map(|detail| 32 + detail.data.len()).sum::<usize>();
        self.0.reason.len() + self.0.trace.len() + details
    }

    /// The same exception with as much of its reason as so many bytes hold, and nothing else.
    pub(crate) fn cut_short(&self, bytes: usize) -> Self {
        const CUT: &str = " [cut short]";
        let mut end = bytes.saturating_sub(CUT.len()).min(self.0.reason.len());
        while !self.0.reason.is_char_boundary(end) {
            end -= 1;
        }
        Exception::new(self.0.kind, format!("{}{CUT}", &self.0.reason[..end]))
    }

    fn body_mut(&mut self) -> &mut Body {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.reason)
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exception")
            .field("kind", &self.0.kind)
            .field("reason", &self.0.reason)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Exception {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        a.kind == b.kind && a.reason == b.reason && a.trace == b.trace && a.details == b.details
    }
}

impl Eq for Exception {}

impl StdError for Exception {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.error())
    }
}

impl From<capnp::Error> for Exception {
    fn from(e: capnp::Error) -> Self {
        let (kind, reason) = match e.kind {
            capnp::ErrorKind::Failed => (ExceptionKind::Failed, e.extra.clone()),
            capnp::ErrorKind::Overloaded => (ExceptionKind::Overloaded, e.extra.clone()),
            capnp::ErrorKind::Disconnected => (ExceptionKind::Disconnected, e.extra.clone()),
            capnp::ErrorKind::Unimplemented => (ExceptionKind::Unimplemented, e.extra.clone()),
            // What is wrong with a message: one of many kinds of their own.
            _ => (ExceptionKind::Failed, e.to_string()),
        };
        Exception::new(kind, reason).with_source(e)
    }
}

/// For code that is written against the `capnp` crate: kind and reason are kept, what else is known is not.
impl From<Error> for capnp::Error {
    fn from(e: Error) -> Self {
        let why = Exception::from(e);
        let make = match why.kind() {
            ExceptionKind::Failed => capnp::Error::failed,
            ExceptionKind::Overloaded => capnp::Error::overloaded,
            ExceptionKind::Disconnected => capnp::Error::disconnected,
            ExceptionKind::Unimplemented => capnp::Error::unimplemented,
        };
        make(why.reason().to_owned())
    }
}

impl From<ProtocolError> for Exception {
    fn from(e: ProtocolError) -> Self {
        Exception::failed(e.to_string()).with_source(e)
    }
}

impl From<Error> for Exception {
    fn from(e: Error) -> Self {
        match e {
            Error::Exception(e) => e,
            Error::Protocol(e) => e.into(),
            Error::Transport(e) => Exception::disconnected(e.to_string()).with_source(e),
        }
    }
}

/// A rule of the protocol that the peer broke. The connection is aborted with this as the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message could not be decoded.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A `Call` or `Bootstrap` used the ID of a question that is still in the answer table.
    #[error("question ID {0} is already in use")]
    DuplicateQuestion(AnswerId),
    /// A `Return` answered a question that is not in the question table.
    #[error("Return for question {0}, which is not outstanding")]
    UnknownQuestion(QuestionId),
    /// A second `Return` for the same question.
    #[error("second Return for question {0}")]
    DuplicateReturn(QuestionId),
    /// A `Finish` for a question that was never asked.
    #[error("Finish for question {0}, which was never asked")]
    UnknownAnswer(AnswerId),
    /// A target or descriptor named a promised answer that is not in the answer table.
    #[error("promised answer {0} is not in the answer table")]
    UnknownPromisedAnswer(AnswerId),
    /// A target, descriptor or `Release` named a capability that is not in the export table.
    #[error("capability {0} is not in the export table")]
    UnknownExport(ExportId),
    /// A `Release` of more references than were given.
    #[error("Release of {released} references to capability {id}, of {held} held")]
    ReleaseBelowZero {
        /// The export.
        id: ExportId,
        /// How many the message released.
        released: u32,
        /// How many the peer held.
        held: u32,
    },
    /// A `Resolve` for an import that is not a promise.
    #[error("Resolve for capability {0}, which is not a promise")]
    ResolveOfSettled(ImportId),
    /// A second `Resolve` for the same promise.
    #[error("second Resolve for promise {0}")]
    DuplicateResolve(ImportId),
    /// A descriptor called an import settled that is a promise, or the other way round.
    #[error("capability {0} was described both as a promise and as settled")]
    PromiseMismatch(ImportId),
    /// A `Disembargo` came back that was never sent.
    #[error("Disembargo for embargo {0}, which is not outstanding")]
    UnknownEmbargo(EmbargoId),
    /// A `Disembargo` of context `senderLoopback` named a target that does not lead back to its sender.
    #[error("Disembargo of a target that does not resolve to a capability of the sender's")]
    DisembargoNotReflected,
    /// `Return.takeFromOtherQuestion` named an answer that is unknown, taken already, or not kept for it.
    #[error("Return takes its results from question {0}, which holds none for it")]
    NothingToTake(AnswerId),
    /// `Return.resultsSentElsewhere` for a question whose results were to come to us.
    #[error("results of question {0} were sent elsewhere, unasked")]
    ResultsSentElsewhere(QuestionId),
    /// Results for a question whose results were to be kept by the callee.
    #[error("results of question {0} were sent here, although they were to be kept")]
    ResultsNotKept(QuestionId),
    /// `Return.noFinishNeeded` with results that hold capabilities.
    #[error("Return for question {0} needs no Finish, yet holds capabilities")]
    NoFinishWithCapabilities(QuestionId),
    /// `unimplemented` for a message that every vat must implement, or that we never sent.
    #[error("peer does not implement {0}")]
    Unimplemented(&'static str),
    /// A message crossed a limit of [`Limits`](crate::Limits) that the peer must keep.
    #[error("limit crossed: {0}")]
    Limit(String),
}

/// Bytes could not be moved, or were not a Cap'n Proto message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The operating system said so.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// A message's segment table is out of bounds.
    #[error("not a message: {0}")]
    BadFrame(String),
    /// A message is larger than [`Limits::message_words`](crate::Limits::message_words).
    #[error("message of {words} words, where {limit} are allowed")]
    TooLarge {
        /// The size that its segment table claims.
        words: u64,
        /// The limit.
        limit: u64,
    },
    /// The peer did not complete its handshake, or send its first message, in time.
    #[error("no message within {0:?} of connecting")]
    FirstMessageLate(std::time::Duration),
}

impl TransportError {
    /// Whether a time has passed: the peer's first message is late, or the system says that what was being done has taken
    /// too long ([`io::ErrorKind::TimedOut`]): to connect, say, or to get a sign of life from the peer.
    pub fn is_timeout(&self) -> bool {
        match self {
            TransportError::FirstMessageLate(_) => true,
            TransportError::Io { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            TransportError::Truncated | TransportError::BadFrame(_) | TransportError::TooLarge { .. } => {
                false
            }
        }
    }

    /// Wraps an I/O error with what was being done.
    pub fn io(context: &'static str, source: io::Error) -> Self {
        TransportError::Io { context, source: Arc::new(source) }
    }
}

/// Whether this error of the crate, which is the source of another, says that a time has passed.
fn is_timeout(source: &(dyn StdError + 'static)) -> bool {
    let exception = || source.downcast_ref().is_some_and(Exception::is_timeout);
    let transport = || source.downcast_ref().is_some_and(TransportError::is_timeout);
    source.downcast_ref().map_or_else(|| exception() || transport(), Error::is_timeout)
}

/// Any error of this crate.
///
/// The [`kind`](Self::kind) says what may help. Of timeouts and cancellations, which have no kind of their own, this vat
/// knows besides: [`is_timeout`](Self::is_timeout), [`is_canceled`](Self::is_canceled).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Exception(#[from] Exception),
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Error {
    /// The kind of exception that this is to a caller.
    pub fn kind(&self) -> ExceptionKind {
        match self {
            Error::Exception(e) => e.kind(),
            Error::Protocol(_) => ExceptionKind::Failed,
            Error::Transport(_) => ExceptionKind::Disconnected,
        }
    }

    /// Whether a time that was set in this vat, or by its system, has passed:
    ///
    /// - a call was not answered within [`Request::timeout`](crate::Request::timeout) or
    ///   [`Vat::call_timeout`](crate::Vat::call_timeout);
    /// - there was no room for a call within [`Limits::room_timeout`](crate::Limits::room_timeout) or
    ///   [`Stream::room_timeout`](crate::Stream::room_timeout), or it was refused because none was found for calls before it;
    /// - [`Stream::finish_timeout`](crate::Stream::finish_timeout) has passed;
    /// - [`TransportError::is_timeout`] says so.
    ///
    /// All but the last are of kind [`Overloaded`](ExceptionKind::Overloaded). An error whose source is one of these is one
    /// too: so is each that a connection's end caused, if it ended because of a timeout. Those are
    /// [`Disconnected`](ExceptionKind::Disconnected) as well.
    ///
    /// A timeout in another vat arrives as `Overloaded`. The protocol does not tell it from other lack of resources, and this
    /// says false.
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::Exception(e) => e.is_timeout(),
            Error::Transport(e) => e.is_timeout(),
            Error::Protocol(_) => false,
        }
    }

    /// Whether a connection that was needed is gone, or could not be made: the [`kind`](Self::kind) is
    /// [`Disconnected`](ExceptionKind::Disconnected).
    ///
    /// That is each [`TransportError`], each exception that a connection's end causes (closed here or by the peer, aborted by
    /// either side, broken off, ended by a [`ProtocolError`]), and each exception of that kind that another vat sends: there it
    /// is a connection further on that is gone. A `ProtocolError` by itself is of kind `Failed`.
    pub fn is_disconnected(&self) -> bool {
        self.kind() == ExceptionKind::Disconnected
    }

    /// Whether a call was canceled: a wait in a method whose own call was canceled ends with this, and so do calls that
    /// were canceled before they reached their method, and one of which the peer says so in its `Return`.
    ///
    /// The kind is [`Failed`](ExceptionKind::Failed). A method that returns such an error to another vat sends an exception
    /// of that kind: the protocol does not tell it from other failures, and there this says false.
    pub fn is_canceled(&self) -> bool {
        matches!(self, Error::Exception(e) if e.is_canceled())
    }

    /// An error of kind [`Failed`](ExceptionKind::Failed).
    pub fn failed(reason: impl Into<String>) -> Self {
        Exception::failed(reason).into()
    }

    /// An error of kind [`Overloaded`](ExceptionKind::Overloaded).
    pub fn overloaded(reason: impl Into<String>) -> Self {
        Exception::overloaded(reason).into()
    }

    /// An error of kind [`Disconnected`](ExceptionKind::Disconnected).
    pub fn disconnected(reason: impl Into<String>) -> Self {
        Exception::disconnected(reason).into()
    }

    /// An error of kind [`Unimplemented`](ExceptionKind::Unimplemented).
    pub fn unimplemented(reason: impl Into<String>) -> Self {
        Exception::unimplemented(reason).into()
    }
}

impl From<InvalidLimits> for Error {
    fn from(e: InvalidLimits) -> Self {
        Exception::failed(e.to_string()).into()
    }
}

impl From<capnp::Error> for Error {
    fn from(e: capnp::Error) -> Self {
        Error::Exception(e.into())
    }
}

/// Runs the user's code `what`, guarded: a panic in it is an exception, with the panic's text.
pub(crate) fn catch_panic<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    foreign_outcome(what, body).unwrap_or_else(|said| Err(Error::failed(said)))
}

/// What `?` in a method most often meets besides: the call fails for that reason, and it is the source.
macro_rules! failed_because {
    ($($source:ty),*) => {
        $(
            impl From<$source> for Error {
                fn from(e: $source) -> Self {
                    Error::Exception(Exception::failed(e.to_string()).with_source(e))
                }
            }
        )*
    };
}

failed_because!(capnp::NotInSchema, std::str::Utf8Error, io::Error);

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
