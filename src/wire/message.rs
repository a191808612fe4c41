//! The messages of `rpc.capnp` as Rust values: the input and the output of the state machine.
//!
//! A message is the same for both vats but for whose table each ID names. [`Side`] says which:
//! [`Message<Outgoing>`] is what we send, [`Message<Incoming>`] what the peer sent, and in both every ID
//! already has the type of *our* table. See Note [IDs flip on receipt].

use std::fmt::Debug;

use crate::error::Exception;
use crate::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use crate::short::Short;
use crate::sync::Arc;
use crate::wire::content::{Content, Received};

/// The sender of a message, which decides which of our tables its IDs name.
pub(crate) trait Side: Sized + Debug + 'static {
    /// A question of the message's sender.
    type Question: Id;
    /// An answer of the message's sender, which is the receiver's question.
    type Answer: Id;
    /// An export of the message's sender.
    type Export: Id;
    /// An import of the message's sender, which is the receiver's export.
    type Import: Id;
    /// An embargo that the message's sender began.
    type OwnEmbargo: Id;
    /// An embargo that the message's receiver began.
    type PeerEmbargo: Id;
    /// The message inside an `Unimplemented` message.
    type Bounced: Debug + Send + Sync;
}

/// The traits that every kind of ID has.
pub(crate) trait Id: Copy + Ord + Debug + From<u32> + Into<u32> + Send + Sync + 'static {}
impl<T: Copy + Ord + Debug + From<u32> + Into<u32> + Send + Sync + 'static> Id for T {}

/// The side of messages that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {}

/// The side of messages that the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {}

impl Side for Outgoing {
    type Question = QuestionId;
    type Answer = AnswerId;
    type Export = ExportId;
    type Import = ImportId;
    type OwnEmbargo = EmbargoId;
    type PeerEmbargo = PeerEmbargoId;
    /// A message of the peer's, which goes back whole.
    type Bounced = Arc<Received>;
}

impl Side for Incoming {
    type Question = AnswerId;
    type Answer = QuestionId;
    type Export = ImportId;
    type Import = ExportId;
    type OwnEmbargo = PeerEmbargoId;
    type PeerEmbargo = EmbargoId;
    /// A message of ours, come back.
    type Bounced = Box<Message<Outgoing>>;
}

/// An embargo ID of the peer's choosing, which we only ever send back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerEmbargoId(pub(crate) u32);

impl From<u32> for PeerEmbargoId {
    fn from(id: u32) -> Self {
        PeerEmbargoId(id)
    }
}

impl From<PeerEmbargoId> for u32 {
    fn from(id: PeerEmbargoId) -> u32 {
        id.0
    }
}

/// A message of the protocol.
#[derive(Debug)]
pub(crate) enum Message<S: Side> {
    Unimplemented(S::Bounced),
    Abort(Exception),
    Bootstrap {
        question: S::Question,
    },
    Call(Call<S>),
    Return(Return<S>),
    Finish(Finish<S>),
    Resolve(Resolve<S>),
    Release {
        id: S::Import,
        count: u32,
    },
    Disembargo(Disembargo<S>),
    /// A message of level 3 or 4, of the future, or with a variant inside that we do not know and cannot do
    /// without (an unknown target or destination of results): it is sent back whole, as `unimplemented`.
    /// Only ever received.
    Unknown(Arc<Received>),
}

/// `rpc.capnp`'s `Call`.
#[derive(Debug)]
pub(crate) struct Call<S: Side> {
    pub(crate) question: S::Question,
    pub(crate) target: Target<S>,
    pub(crate) interface_id: u64,
    pub(crate) method_id: u16,
    pub(crate) params: Payload<S>,
    /// `sendResultsTo.yourself`: the callee keeps the results.
    pub(crate) keep_results: bool,
    pub(crate) no_promise_pipelining: bool,
    pub(crate) only_promise_pipeline: bool,
}

/// `rpc.capnp`'s `MessageTarget`: what a call or disembargo is addressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target<S: Side> {
    ImportedCap(S::Import),
    PromisedAnswer(PromisedAnswer<S::Question>),
}

/// `rpc.capnp`'s `PromisedAnswer`: the capability at `path` in the results of a question of the sender's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromisedAnswer<Q> {
    pub(crate) question: Q,
    pub(crate) path: Path,
}

/// Pointer fields to follow, from the root of some results to a capability. `noop`s are left out.
pub(crate) type Path = Arc<[u16]>;

/// The largest number of steps that a [`Path`] may have.
pub(crate) const MAX_STEPS: usize = 64;

/// `rpc.capnp`'s `Payload`: a content, and the descriptors that its capability pointers name by index.
#[derive(Debug)]
pub(crate) struct Payload<S: Side> {
    pub(crate) content: Content,
    pub(crate) descriptors: Short<Descriptor<S>>,
}

/// `rpc.capnp`'s `CapDescriptor`. `attachedFd` is not represented: no transport of ours carries descriptors,
/// and the field's default says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Descriptor<S: Side> {
    None,
    SenderHosted(S::Export),
    SenderPromise(S::Export),
    ReceiverHosted(S::Import),
    ReceiverAnswer(PromisedAnswer<S::Question>),
    /// Introduced by a third party; at level 1 the vine is all we use. Only ever received.
    ThirdPartyHosted {
        vine: S::Export,
    },
    /// A variant of the future. Only ever received.
    Unknown(u16),
}

/// `rpc.capnp`'s `Return`.
#[derive(Debug)]
pub(crate) struct Return<S: Side> {
    pub(crate) answer: S::Answer,
    pub(crate) release_param_caps: bool,
    pub(crate) no_finish_needed: bool,
    pub(crate) outcome: Outcome<S>,
}

/// How a call ended: the union in `Return`.
#[derive(Debug)]
pub(crate) enum Outcome<S: Side> {
    Results(Payload<S>),
    Exception(Exception),
    Canceled,
    ResultsSentElsewhere,
    /// The results are those of a question that the receiver was asked with `sendResultsTo.yourself`.
    TakeFromOtherQuestion(S::Question),
    /// A variant of level 3 or of the future, with its ordinal and the message for bouncing it. Only ever
    /// received.
    Unknown(u16, Arc<Received>),
}

/// `rpc.capnp`'s `Finish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finish<S: Side> {
    pub(crate) question: S::Question,
    pub(crate) release_result_caps: bool,
    /// `requireEarlyCancellationWorkaround`.
    pub(crate) cancel_after_delivery: bool,
}

/// `rpc.capnp`'s `Resolve`.
#[derive(Debug)]
pub(crate) struct Resolve<S: Side> {
    pub(crate) promise: S::Export,
    pub(crate) to: Resolution<S>,
}

/// What a promise resolves to. An unknown variant makes the whole message `Message::Unknown`.
#[derive(Debug)]
pub(crate) enum Resolution<S: Side> {
    Cap(Descriptor<S>),
    Exception(Exception),
}

/// `rpc.capnp`'s `Disembargo`, of the two contexts of level 1. Others are `Message::Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disembargo<S: Side> {
    pub(crate) target: Target<S>,
    pub(crate) context: DisembargoContext<S>,
}

/// `rpc.capnp`'s `Disembargo.context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisembargoContext<S: Side> {
    SenderLoopback(S::OwnEmbargo),
    ReceiverLoopback(S::PeerEmbargo),
}
