//! From messages as bytes to messages as Rust values.
//!
//! A message of the peer's is not trusted: a pointer may lead anywhere, a list may claim any length, and a variant may be one
//! of the future. The `capnp` crate's limits bound how much is read. This module bounds what is kept, by the size of the
//! message.

use capnp::NotInSchema;

use crate::error::{Exception, ExceptionKind, ProtocolError};
use crate::generated::rpc_capnp::{
    call, cap_descriptor, disembargo, exception, finish, message, message_target, payload, promised_answer,
    resolve, return_,
};
use crate::limits::Limits;
use crate::sync::Arc;
use crate::wire::content::{Content, PayloadKind, Received};
use crate::wire::fast::fast_decode;
use crate::wire::frame::Frame;
use crate::wire::message::{
    Call, Descriptor, Disembargo, DisembargoContext, Finish, Incoming, Message, Outcome, Outgoing, Path,
    Payload, PromisedAnswer, Resolution, Resolve, Return, Side, Target, MAX_STEPS,
};

/// Decodes a message of the peer's, to be read within the given limits. See Note [Usual messages].
///
/// A variant that is not known, where the message makes no sense without, makes the whole
/// [`Message::Unknown`].
///
/// # Errors
///
/// [`ProtocolError::Malformed`] if a part of the message other than the contents of payloads can't be read,
/// or holds more than its size allows for. Contents are checked where they are used.
pub(crate) fn decode(frame: Frame, limits: &Limits) -> Result<Message<Incoming>, ProtocolError> {
    match fast_decode::decode(frame, limits) {
        Ok(message) => Ok(message),
        Err(frame) => decode_plain(Arc::new(Received::new(frame, limits))),
    }
}

/// Decodes a message with the readers of the `capnp` crate.
pub(crate) fn decode_plain(received: Arc<Received>) -> Result<Message<Incoming>, ProtocolError> {
    let decoder = Decoder { source: &received, contents: true };
    let message = received.message().map_err(Stop::from).and_then(|message| decoder.message(message));
    match message {
        Ok(message) => Ok(message),
        Err(Stop::Unknown) => Ok(Message::Unknown(received)),
        Err(Stop::Malformed(what)) => Err(ProtocolError::Malformed(what)),
    }
}

/// The reason why decoding ends early.
enum Stop {
    Malformed(String),
    /// A variant is not known.
    Unknown,
}

impl From<capnp::Error> for Stop {
    fn from(e: capnp::Error) -> Self {
        Stop::Malformed(e.to_string())
    }
}

impl From<NotInSchema> for Stop {
    fn from(_: NotInSchema) -> Self {
        Stop::Unknown
    }
}

/// Sides that differ in what an `unimplemented` message means.
trait Decode: Side {
    /// Decodes what is inside an `unimplemented` message.
    fn bounced(inner: message::Reader<'_>, source: &Arc<Received>) -> Result<Self::Bounced, Stop>;
}

impl Decode for Incoming {
    /// The message inside is one of ours.
    fn bounced(inner: message::Reader<'_>, source: &Arc<Received>) -> Result<Self::Bounced, Stop> {
        let decoder = Decoder { source, contents: false };
        match decoder.message(inner) {
            Err(Stop::Unknown) => Ok(Box::new(Message::Unknown(source.clone()))),
            result => result.map(Box::new),
        }
    }
}

impl Decode for Outgoing {
    /// The message inside is an `unimplemented` of ours. The message inside that does not matter any more.
    fn bounced(_inner: message::Reader<'_>, source: &Arc<Received>) -> Result<Self::Bounced, Stop> {
        Ok(source.clone())
    }
}

#[derive(Clone, Copy)]
struct Decoder<'a> {
    source: &'a Arc<Received>,
    /// Whether contents are kept. Those of a message inside another one are not.
    contents: bool,
}

impl Decoder<'_> {
    fn message<S: Decode>(self, reader: message::Reader<'_>) -> Result<Message<S>, Stop> {
        Ok(match reader.which()? {
            message::Unimplemented(inner) => Message::Unimplemented(S::bounced(inner?, self.source)?),
            message::Abort(e) => Message::Abort(self.exception(e?)?),
            message::Bootstrap(bootstrap) => {
                Message::Bootstrap { question: bootstrap?.get_question_id().into() }
            }
            message::Call(call) => Message::Call(self.call(call?)?),
            message::Return(ret) => Message::Return(self.return_(ret?)?),
            message::Finish(finish) => Message::Finish(self::finish(finish?)),
            message::Resolve(resolve) => Message::Resolve(self.resolve(resolve?)?),
            message::Release(release) => {
                let release = release?;
                Message::Release { id: release.get_id().into(), count: release.get_reference_count() }
            }
            message::Disembargo(disembargo) => Message::Disembargo(self::disembargo(disembargo?)?),
            message::ObsoleteSave(_)
            | message::ObsoleteDelete(_)
            | message::Provide(_)
            | message::Accept(_)
            | message::ThirdPartyAnswer(_)
            | message::Join(_) => return Err(Stop::Unknown),
        })
    }

    fn call<S: Side>(self, reader: call::Reader<'_>) -> Result<Call<S>, Stop> {
        let keep_results = match reader.get_send_results_to().which()? {
            call::send_results_to::Caller(()) => false,
            call::send_results_to::Yourself(()) => true,
            call::send_results_to::ThirdParty(_) => return Err(Stop::Unknown),
        };
        Ok(Call {
            question: reader.get_question_id().into(),
            target: target(reader.get_target()?)?,
            interface_id: reader.get_interface_id(),
            method_id: reader.get_method_id(),
            params: self.payload(reader.get_params()?, PayloadKind::CallParams)?,
            keep_results,
            no_promise_pipelining: reader.get_no_promise_pipelining(),
            only_promise_pipeline: reader.get_only_promise_pipeline(),
        })
    }

    fn return_<S: Side>(self, reader: return_::Reader<'_>) -> Result<Return<S>, Stop> {
        Ok(Return {
            answer: reader.get_answer_id().into(),
            release_param_caps: reader.get_release_param_caps(),
            no_finish_needed: reader.get_no_finish_needed(),
            outcome: self.outcome(reader)?,
        })
    }

    fn outcome<S: Side>(self, reader: return_::Reader<'_>) -> Result<Outcome<S>, Stop> {
        Ok(match reader.which() {
            Ok(return_::Results(results)) => {
                Outcome::Results(self.payload(results?, PayloadKind::ReturnResults)?)
            }
            Ok(return_::Exception(e)) => Outcome::Exception(self.exception(e?)?),
            Ok(return_::Canceled(())) => Outcome::Canceled,
            Ok(return_::ResultsSentElsewhere(())) => Outcome::ResultsSentElsewhere,
            Ok(return_::TakeFromOtherQuestion(id)) => Outcome::TakeFromOtherQuestion(id.into()),
            Ok(return_::AwaitFromThirdParty(_)) => {
                Outcome::Unknown(AWAIT_FROM_THIRD_PARTY, self.source.clone())
            }
            Err(NotInSchema(variant)) => Outcome::Unknown(variant, self.source.clone()),
        })
    }

    fn payload<S: Side>(self, reader: payload::Reader<'_>, kind: PayloadKind) -> Result<Payload<S>, Stop> {
        let content = if self.contents && !reader.get_content().is_null() {
            Content::received(self.source.clone(), kind)
        } else {
            Content::null()
        };
        let table = reader.get_cap_table()?;
        self.check_size("table of capabilities", table.len() as usize)?;
        let descriptors = table.iter().map(descriptor).collect::<Result<_, _>>()?;
        Ok(Payload { content, descriptors })
    }

    fn resolve<S: Side>(self, reader: resolve::Reader<'_>) -> Result<Resolve<S>, Stop> {
        let to = match reader.which()? {
            resolve::Cap(cap) => Resolution::Cap(descriptor(cap?)?),
            resolve::Exception(e) => Resolution::Exception(self.exception(e?)?),
        };
        Ok(Resolve { promise: reader.get_promise_id().into(), to })
    }

    /// Bytes that are no UTF-8 are replaced, and a kind of the future is read as `failed`: people read exceptions, programs
    /// hardly do.
    fn exception(self, reader: exception::Reader<'_>) -> Result<Exception, Stop> {
        let kind = match reader.get_type() {
            Ok(exception::Type::Overloaded) => ExceptionKind::Overloaded,
            Ok(exception::Type::Disconnected) => ExceptionKind::Disconnected,
            Ok(exception::Type::Unimplemented) => ExceptionKind::Unimplemented,
            Ok(exception::Type::Failed) | Err(NotInSchema(_)) => ExceptionKind::Failed,
        };
        let mut e = Exception::new(kind, lossy(reader.get_reason()?));
        if reader.has_trace() {
            e = e.with_trace(lossy(reader.get_trace()?));
        }
        let details = reader.get_details()?;
        let mut words = 0;
        for detail in details {
            let data = detail.get_data()?;
            words += 1 + data.len() / 8;
            self.check_size("details of an exception", words)?;
            e = e.with_detail(detail.get_detail_id(), data);
        }
        Ok(e)
    }

    /// Refuses a list that is larger than the message that it came in: lists may overlap, and a list of empty structs may have
    /// any length.
    fn check_size(self, what: &str, words: usize) -> Result<(), Stop> {
        if words > self.source.words() {
            return Err(Stop::Malformed(format!("{what}: larger than the message")));
        }
        Ok(())
    }
}

/// The discriminant of `Return.awaitFromThirdParty`.
const AWAIT_FROM_THIRD_PARTY: u16 = 5;

fn lossy(text: capnp::text::Reader<'_>) -> String {
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

fn finish<S: Side>(reader: finish::Reader<'_>) -> Finish<S> {
    Finish {
        question: reader.get_question_id().into(),
        release_result_caps: reader.get_release_result_caps(),
        cancel_after_delivery: reader.get_require_early_cancellation_workaround(),
    }
}

fn disembargo<S: Side>(reader: disembargo::Reader<'_>) -> Result<Disembargo<S>, Stop> {
    let context = match reader.get_context().which()? {
        disembargo::context::SenderLoopback(id) => DisembargoContext::SenderLoopback(id.into()),
        disembargo::context::ReceiverLoopback(id) => DisembargoContext::ReceiverLoopback(id.into()),
        disembargo::context::Accept(_) => return Err(Stop::Unknown),
    };
    Ok(Disembargo { target: target(reader.get_target()?)?, context })
}

fn target<S: Side>(reader: message_target::Reader<'_>) -> Result<Target<S>, Stop> {
    Ok(match reader.which()? {
        message_target::ImportedCap(id) => Target::ImportedCap(id.into()),
        message_target::PromisedAnswer(answer) => Target::PromisedAnswer(promised_answer(answer?)?),
    })
}

fn promised_answer<Q: From<u32>>(reader: promised_answer::Reader<'_>) -> Result<PromisedAnswer<Q>, Stop> {
    let ops = reader.get_transform()?;
    if ops.len() as usize > MAX_STEPS {
        return Err(Stop::Malformed(format!("a path of {} steps to a capability", ops.len())));
    }
    let mut path = Vec::new();
    for op in ops {
        match op.which()? {
            promised_answer::op::Noop(()) => {}
            promised_answer::op::GetPointerField(field) => path.push(field),
        }
    }
    Ok(PromisedAnswer { question: reader.get_question_id().into(), path: Path::from(path) })
}

/// A descriptor that is not understood concerns one capability, not the message.
fn descriptor<S: Side>(reader: cap_descriptor::Reader<'_>) -> Result<Descriptor<S>, Stop> {
    Ok(match reader.which() {
        Ok(cap_descriptor::None(())) => Descriptor::None,
        Ok(cap_descriptor::SenderHosted(id)) => Descriptor::SenderHosted(id.into()),
        Ok(cap_descriptor::SenderPromise(id)) => Descriptor::SenderPromise(id.into()),
        Ok(cap_descriptor::ReceiverHosted(id)) => Descriptor::ReceiverHosted(id.into()),
        Ok(cap_descriptor::ReceiverAnswer(answer)) => match promised_answer(answer?) {
            Ok(answer) => Descriptor::ReceiverAnswer(answer),
            Err(Stop::Unknown) => Descriptor::Unknown(RECEIVER_ANSWER),
            Err(stop) => return Err(stop),
        },
        Ok(cap_descriptor::ThirdPartyHosted(third)) => {
            Descriptor::ThirdPartyHosted { vine: third?.get_vine_id().into() }
        }
        Err(NotInSchema(variant)) => Descriptor::Unknown(variant),
    })
}

/// The discriminant of `CapDescriptor.receiverAnswer`.
const RECEIVER_ANSWER: u16 = 4;

#[cfg(test)]
mod tests;
