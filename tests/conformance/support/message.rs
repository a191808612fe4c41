//! The messages of the protocol as the raw peer writes and reads them.
//!
//! IDs are those of the message's sender, as on the wire: nothing is flipped.

use capnp::capability::FromClientHook;
use capnp::message::{Builder, ReaderOptions};
use capnp::traits::{Imbue, ImbueMut};
use capnp_threads::generated::rpc_capnp::{
    call, cap_descriptor, disembargo, exception, message, message_target, payload, promised_answer, resolve,
    return_,
};
use capnp_threads::transport::{Frame, Outbound};
use capnp_threads::{Capability, Client};

use super::content;

/// The interface that all calls are of.
pub const INTERFACE: u64 = 0xc0f0_0000_0000_0001;

/// Stands for a message that can't be read by our schema.
pub const FUTURE: u16 = u16::MAX;

/// What a call or Disembargo is addressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Import(u32),
    Answer(u32, Vec<u16>),
}

/// A capability descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cap {
    None,
    Hosted(u32),
    Promise(u32),
    Yours(u32),
    YourAnswer(u32, Vec<u16>),
    Third { vine: u32 },
}

/// Params or results.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Payload {
    pub tag: u64,
    pub caps: Vec<Cap>,
    /// The content is no struct but the one capability itself: the results of a Bootstrap.
    pub bare: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub question: u32,
    pub target: Target,
    pub interface: u64,
    pub method: u16,
    pub params: Payload,
    /// `sendResultsTo.yourself`
    pub yourself: bool,
    pub no_pipelining: bool,
    pub only_pipeline: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub answer: u32,
    pub release_params: bool,
    pub no_finish: bool,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Results(Payload),
    Exception(String),
    Canceled,
    Elsewhere,
    /// `takeFromOtherQuestion`
    Take(u32),
    /// `awaitFromThirdParty`
    ThirdParty,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    Sender(u32),
    Receiver(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Msg {
    Unimplemented(Box<Msg>),
    Abort(String),
    Bootstrap(u32),
    Call(Call),
    Return(Return),
    Finish {
        question: u32,
        release: bool,
        workaround: bool,
    },
    Resolve {
        promise: u32,
        to: Result<Cap, String>,
    },
    Release {
        id: u32,
        count: u32,
    },
    Disembargo {
        target: Target,
        context: Context,
    },
    /// Of level 3 or 4, or obsolete: its ordinal. [`FUTURE`]: with something in it that is not in the schema.
    Other(u16),
}

impl Payload {
    pub fn new(tag: u64, caps: &[Cap]) -> Self {
        Payload { tag, caps: caps.to_vec(), bare: false }
    }

    pub fn capability(cap: Cap) -> Self {
        Payload { tag: 0, caps: vec![cap], bare: true }
    }
}

impl Cap {
    /// The export of the sender's that the descriptor counts a reference to.
    pub fn counts(&self) -> Option<u32> {
        match self {
            Cap::Hosted(id) | Cap::Promise(id) | Cap::Third { vine: id } => Some(*id),
            _ => None,
        }
    }
}

impl Msg {
    pub fn encode(&self) -> Outbound {
        Outbound::from(build(|message| self.build(message)))
    }

    pub fn decode(frame: Frame) -> Msg {
        let reader = capnp::message::Reader::new(frame, ReaderOptions::new());
        read(reader.get_root().unwrap()).unwrap()
    }

    fn build(&self, message: message::Builder<'_>) {
        match self {
            Msg::Unimplemented(inner) => inner.build(message.init_unimplemented()),
            Msg::Abort(reason) => message.init_abort().set_reason(&**reason),
            Msg::Bootstrap(question) => message.init_bootstrap().set_question_id(*question),
            Msg::Call(call) => call.build(message.init_call()),
            Msg::Return(ret) => ret.build(message.init_return()),
            Msg::Finish { question, release, workaround } => {
                let mut finish = message.init_finish();
                finish.set_question_id(*question);
                finish.set_release_result_caps(*release);
                finish.set_require_early_cancellation_workaround(*workaround);
            }
            Msg::Resolve { promise, to } => {
                let mut resolve = message.init_resolve();
                resolve.set_promise_id(*promise);
                match to {
                    Ok(cap) => build_cap(cap, resolve.init_cap()),
                    Err(reason) => resolve.init_exception().set_reason(&**reason),
                }
            }
            Msg::Release { id, count } => {
                let mut release = message.init_release();
                release.set_id(*id);
                release.set_reference_count(*count);
            }
            Msg::Disembargo { target, context } => {
                let mut disembargo = message.init_disembargo();
                build_target(target, disembargo.reborrow().init_target());
                match context {
                    Context::Sender(id) => disembargo.get_context().set_sender_loopback(*id),
                    Context::Receiver(id) => disembargo.get_context().set_receiver_loopback(*id),
                }
            }
            Msg::Other(ordinal) => panic!("no way to build message {ordinal}"),
        }
    }
}

/// A message built by hand.
pub fn build(fill: impl FnOnce(message::Builder<'_>)) -> Builder<capnp::message::HeapAllocator> {
    let mut builder = Builder::new_default();
    fill(builder.init_root());
    builder
}

impl Call {
    fn build(&self, mut call: call::Builder<'_>) {
        call.set_question_id(self.question);
        call.set_interface_id(self.interface);
        call.set_method_id(self.method);
        call.set_no_promise_pipelining(self.no_pipelining);
        call.set_only_promise_pipeline(self.only_pipeline);
        if self.yourself {
            call.reborrow().get_send_results_to().set_yourself(());
        }
        build_target(&self.target, call.reborrow().init_target());
        build_payload(&self.params, call.init_params());
    }
}

impl Return {
    fn build(&self, mut ret: return_::Builder<'_>) {
        ret.set_answer_id(self.answer);
        ret.set_release_param_caps(self.release_params);
        ret.set_no_finish_needed(self.no_finish);
        match &self.outcome {
            Outcome::Results(results) => build_payload(results, ret.init_results()),
            Outcome::Exception(reason) => ret.init_exception().set_reason(&**reason),
            Outcome::Canceled => ret.set_canceled(()),
            Outcome::Elsewhere => ret.set_results_sent_elsewhere(()),
            Outcome::Take(question) => ret.set_take_from_other_question(*question),
            Outcome::ThirdParty => drop(ret.init_await_from_third_party()),
        }
    }
}

fn build_target(target: &Target, mut to: message_target::Builder<'_>) {
    match target {
        Target::Import(id) => to.set_imported_cap(*id),
        Target::Answer(question, path) => build_answer(*question, path, to.init_promised_answer()),
    }
}

fn build_answer(question: u32, path: &[u16], mut to: promised_answer::Builder<'_>) {
    to.set_question_id(question);
    let mut ops = to.init_transform(path.len() as u32);
    for (i, field) in path.iter().enumerate() {
        ops.reborrow().get(i as u32).set_get_pointer_field(*field);
    }
}

fn build_cap(cap: &Cap, mut to: cap_descriptor::Builder<'_>) {
    match cap {
        Cap::None => to.set_none(()),
        Cap::Hosted(id) => to.set_sender_hosted(*id),
        Cap::Promise(id) => to.set_sender_promise(*id),
        Cap::Yours(id) => to.set_receiver_hosted(*id),
        Cap::YourAnswer(question, path) => build_answer(*question, path, to.init_receiver_answer()),
        Cap::Third { vine } => to.init_third_party_hosted().set_vine_id(*vine),
    }
}

/// The n-th pointer field of the content is the n-th capability of the table.
fn build_payload(payload: &Payload, mut to: payload::Builder<'_>) {
    // Null clients stand for the capabilities: only their order counts.
    let caps = vec![Client::null(); payload.caps.len()];
    let mut table = Vec::new();
    let mut builder = to.reborrow().get_content();
    builder.imbue_mut(&mut table);
    match payload.bare {
        true => builder.set_as_capability(Client::null().into_client_hook()),
        false => content::fill(builder, payload.tag, &caps),
    }
    let mut table = to.init_cap_table(payload.caps.len() as u32);
    for (i, cap) in payload.caps.iter().enumerate() {
        build_cap(cap, table.reborrow().get(i as u32));
    }
}

fn read(message: message::Reader<'_>) -> capnp::Result<Msg> {
    Ok(match message.which()? {
        message::Unimplemented(inner) => {
            Msg::Unimplemented(Box::new(read(inner?).unwrap_or(Msg::Other(FUTURE))))
        }
        message::Abort(why) => Msg::Abort(read_reason(why?)?),
        message::Bootstrap(bootstrap) => Msg::Bootstrap(bootstrap?.get_question_id()),
        message::Call(call) => Msg::Call(read_call(call?)?),
        message::Return(ret) => Msg::Return(read_return(ret?)?),
        message::Finish(finish) => {
            let finish = finish?;
            Msg::Finish {
                question: finish.get_question_id(),
                release: finish.get_release_result_caps(),
                workaround: finish.get_require_early_cancellation_workaround(),
            }
        }
        message::Resolve(resolve) => {
            let resolve = resolve?;
            let to = match resolve.which()? {
                resolve::Cap(cap) => Ok(read_cap(cap?)?),
                resolve::Exception(why) => Err(read_reason(why?)?),
            };
            Msg::Resolve { promise: resolve.get_promise_id(), to }
        }
        message::Release(release) => {
            let release = release?;
            Msg::Release { id: release.get_id(), count: release.get_reference_count() }
        }
        message::Disembargo(disembargo) => {
            let disembargo = disembargo?;
            let context = match disembargo.get_context().which()? {
                disembargo::context::SenderLoopback(id) => Context::Sender(id),
                disembargo::context::ReceiverLoopback(id) => Context::Receiver(id),
                disembargo::context::Accept(_) => return Ok(Msg::Other(13)),
            };
            Msg::Disembargo { target: read_target(disembargo.get_target()?)?, context }
        }
        message::ObsoleteSave(_) => Msg::Other(7),
        message::ObsoleteDelete(_) => Msg::Other(9),
        message::Provide(_) => Msg::Other(10),
        message::Accept(_) => Msg::Other(11),
        message::Join(_) => Msg::Other(12),
        message::ThirdPartyAnswer(_) => Msg::Other(14),
    })
}

fn read_call(call: call::Reader<'_>) -> capnp::Result<Call> {
    Ok(Call {
        question: call.get_question_id(),
        target: read_target(call.get_target()?)?,
        interface: call.get_interface_id(),
        method: call.get_method_id(),
        params: read_payload(call.get_params()?)?,
        yourself: matches!(call.get_send_results_to().which()?, call::send_results_to::Yourself(())),
        no_pipelining: call.get_no_promise_pipelining(),
        only_pipeline: call.get_only_promise_pipeline(),
    })
}

fn read_return(ret: return_::Reader<'_>) -> capnp::Result<Return> {
    let outcome = match ret.which()? {
        return_::Results(results) => Outcome::Results(read_payload(results?)?),
        return_::Exception(why) => Outcome::Exception(read_reason(why?)?),
        return_::Canceled(()) => Outcome::Canceled,
        return_::ResultsSentElsewhere(()) => Outcome::Elsewhere,
        return_::TakeFromOtherQuestion(question) => Outcome::Take(question),
        return_::AwaitFromThirdParty(_) => Outcome::ThirdParty,
    };
    Ok(Return {
        answer: ret.get_answer_id(),
        release_params: ret.get_release_param_caps(),
        no_finish: ret.get_no_finish_needed(),
        outcome,
    })
}

fn read_reason(why: exception::Reader<'_>) -> capnp::Result<String> {
    Ok(why.get_reason()?.to_string()?)
}

fn read_target(target: message_target::Reader<'_>) -> capnp::Result<Target> {
    Ok(match target.which()? {
        message_target::ImportedCap(id) => Target::Import(id),
        message_target::PromisedAnswer(answer) => {
            let (question, path) = read_answer(answer?)?;
            Target::Answer(question, path)
        }
    })
}

fn read_answer(answer: promised_answer::Reader<'_>) -> capnp::Result<(u32, Vec<u16>)> {
    let mut path = Vec::new();
    for op in answer.get_transform()? {
        if let promised_answer::op::GetPointerField(field) = op.which()? {
            path.push(field);
        }
    }
    Ok((answer.get_question_id(), path))
}

fn read_cap(cap: cap_descriptor::Reader<'_>) -> capnp::Result<Cap> {
    Ok(match cap.which()? {
        cap_descriptor::None(()) => Cap::None,
        cap_descriptor::SenderHosted(id) => Cap::Hosted(id),
        cap_descriptor::SenderPromise(id) => Cap::Promise(id),
        cap_descriptor::ReceiverHosted(id) => Cap::Yours(id),
        cap_descriptor::ReceiverAnswer(answer) => {
            let (question, path) = read_answer(answer?)?;
            Cap::YourAnswer(question, path)
        }
        cap_descriptor::ThirdPartyHosted(third) => Cap::Third { vine: third?.get_vine_id() },
    })
}

fn read_payload(payload: payload::Reader<'_>) -> capnp::Result<Payload> {
    let caps = payload.get_cap_table()?.iter().map(read_cap).collect::<capnp::Result<Vec<_>>>()?;
    let table = caps.iter().map(|_| Some(Client::null().into_client_hook())).collect();
    let mut content = payload.get_content();
    content.imbue(&table);
    let bare = content.get_as_capability::<Client>().is_ok();
    Ok(Payload { tag: content::tag(content), caps, bare })
}
