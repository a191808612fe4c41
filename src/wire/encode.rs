//! From messages as Rust values to messages as bytes.

use capnp::message::{Builder, HeapAllocator};
use capnp::private::layout::CapTable;
use capnp::traits::{Imbue, ImbueMut};

use crate::error::{Exception, ExceptionKind};
use crate::generated::rpc_capnp::{
    cap_descriptor, disembargo, exception, finish, message, message_target, payload, promised_answer,
    resolve, return_,
};
use crate::wire::cap_index;
use crate::wire::content::{self, PayloadKind, Received};
use crate::wire::fast::fast_encode;
use crate::wire::frame::Outbound;
use crate::wire::message::{
    Call, Descriptor, Disembargo, DisembargoContext, Finish, Message, Outcome, Outgoing, Payload,
    PromisedAnswer, Resolution, Resolve, Return, Target,
};
use crate::wire::remap_caps::remap_caps;

/// Encodes a message.
///
/// A content that was built for this kind of message is not copied. Any other content is copied. See
/// Note [Contents are kept in their message].
///
/// # Errors
///
/// If a content is malformed (which only a received one can be), or has a capability pointer beyond the
/// descriptors; and for a message or descriptor that is only ever received.
pub(crate) fn encode(message: Message<Outgoing>) -> Result<Outbound, Exception> {
    match message {
        // These two are so small that another call, and the drop of what is left of the message, would show.
        Message::Finish(finish) => Ok(fast_encode::encode_finish(&finish)),
        Message::Release { id, count } => Ok(fast_encode::encode_release(id.into(), count)),
        mut message => match fast_encode::encode(&mut message) {
            Some(outbound) => Ok(outbound),
            None => encode_plain(message),
        },
    }
}

/// Encodes a message with the builders of the `capnp` crate. Any content is copied.
pub(super) fn encode_plain(message: Message<Outgoing>) -> Result<Outbound, Exception> {
    match message {
        Message::Unimplemented(received) => bounce(&received),
        Message::Abort(e) => small(exception_words(&e), |to| write_exception(to.init_abort(), &e)),
        Message::Bootstrap { question } => {
            small(0, |to| to.init_bootstrap().set_question_id(question.into()))
        }
        Message::Call(call) => encode_call(&call),
        Message::Return(ret) => encode_return(&ret),
        Message::Finish(finish) => small(0, |to| write_finish(to.init_finish(), &finish)),
        Message::Resolve(resolve) => encode_resolve(&resolve),
        Message::Release { id, count } => small(0, |to| {
            let mut to = to.init_release();
            to.set_id(id.into());
            to.set_reference_count(count);
        }),
        Message::Disembargo(d) => {
            small(target_words(&d.target), |to| write_disembargo(to.init_disembargo(), &d))
        }
        Message::Unknown(_) => Err(never_sent("a message of unknown kind")),
    }
}

fn never_sent(what: &str) -> Exception {
    Exception::failed(format!("{what} is never sent"))
}

/// The largest message without its texts, paths and payload, in words.
const SMALL_WORDS: usize = 20;

/// A message without a payload; `extra` is the size of its texts and paths.
fn small(extra: usize, write: impl FnOnce(message::Builder<'_>)) -> Result<Outbound, Exception> {
    let mut message = content::builder((SMALL_WORDS + extra) as u64);
    write(message.init_root());
    Ok(message.into())
}

fn encode_call(call: &Call<Outgoing>) -> Result<Outbound, Exception> {
    let extra = target_words(&call.target);
    with_payload(&call.params, extra, |to| {
        let mut to = to.init_call();
        to.set_question_id(call.question.into());
        to.set_interface_id(call.interface_id);
        to.set_method_id(call.method_id);
        to.set_no_promise_pipelining(call.no_promise_pipelining);
        to.set_only_promise_pipeline(call.only_promise_pipeline);
        if call.keep_results {
            to.reborrow().init_send_results_to().set_yourself(());
        }
        write_target(to.reborrow().init_target(), &call.target);
        to.init_params()
    })
}

fn encode_return(ret: &Return<Outgoing>) -> Result<Outbound, Exception> {
    match &ret.outcome {
        Outcome::Results(results) => with_payload(results, 0, |to| write_return(to, ret).init_results()),
        Outcome::Exception(e) => {
            small(exception_words(e), |to| write_exception(write_return(to, ret).init_exception(), e))
        }
        Outcome::Canceled => small(0, |to| write_return(to, ret).set_canceled(())),
        Outcome::ResultsSentElsewhere => small(0, |to| write_return(to, ret).set_results_sent_elsewhere(())),
        Outcome::TakeFromOtherQuestion(question) => {
            small(0, |to| write_return(to, ret).set_take_from_other_question((*question).into()))
        }
        Outcome::Unknown(..) => Err(never_sent("a return of unknown kind")),
    }
}

/// Writes a Return, but for its outcome.
fn write_return<'a>(to: message::Builder<'a>, ret: &Return<Outgoing>) -> return_::Builder<'a> {
    let mut to = to.init_return();
    to.set_answer_id(ret.answer.into());
    to.set_release_param_caps(ret.release_param_caps);
    to.set_no_finish_needed(ret.no_finish_needed);
    to
}

/// A message with a copy of a payload. `init` writes all but that; `extra` is the size of its paths.
fn with_payload(
    payload: &Payload<Outgoing>,
    extra: usize,
    init: impl FnOnce(message::Builder<'_>) -> payload::Builder<'_>,
) -> Result<Outbound, Exception> {
    let Payload { content, descriptors } = payload;
    let content = content.reader()?;
    let words = content.target_size()?.word_count;
    if words > content::MAX_SEGMENT_WORDS {
        return Err(Exception::failed(format!("a content of {words} words is too large to copy")));
    }
    let extra = SMALL_WORDS + extra + descriptors_words(descriptors);
    let mut message = content::builder(words + extra as u64);
    let mut to = init(message.init_root());
    let indices = cap_index::copy(content, to.reborrow().init_content(), descriptors.len())?;
    if !descriptors.is_empty() {
        let mut table = to.init_cap_table(descriptors.len() as u32);
        for (i, descriptor) in (0..).zip(descriptors.iter()) {
            write_descriptor(table.reborrow().get(i), descriptor)?;
        }
    }
    // See Note [Copies keep indices].
    if indices.iter().copied().eq((0..).take(indices.len())) {
        return Ok(message.into());
    }
    let remapped = match *message.get_segments_for_output() {
        [segment] => remap_caps(segment, &indices),
        _ => None,
    };
    Ok(remapped.ok_or_else(|| Exception::failed("a copied content could not be given its indices"))?.into())
}

fn write_finish(mut to: finish::Builder<'_>, finish: &Finish<Outgoing>) {
    to.set_question_id(finish.question.into());
    to.set_release_result_caps(finish.release_result_caps);
    to.set_require_early_cancellation_workaround(finish.cancel_after_delivery);
}

/// Sends a message back as `unimplemented`: whole, or, if its content can't be copied, without the content.
///
/// Its capability pointers may be numbered anew: they mean nothing in a message that was not understood.
fn bounce(received: &Received) -> Result<Outbound, Exception> {
    let original = received.message()?;
    let whole = copy_whole(received, original);
    let message = whole.or_else(|e| copy_outline(original).map_err(|_| e))?;
    Ok(message.into())
}

fn copy_whole(
    received: &Received,
    original: message::Reader<'_>,
) -> Result<Builder<HeapAllocator>, capnp::Error> {
    let table = cap_index::table(cap_table_len(original).min(received.words()));
    let mut met = CapTable::new();
    let mut message = content::builder(original.total_size()?.word_count + SMALL_WORDS as u64);
    let mut original = original;
    original.imbue(&table);
    let mut to = message.init_root::<message::Builder<'_>>();
    to.imbue_mut(&mut met);
    to.set_unimplemented(original)?;
    Ok(message)
}

/// The number of descriptors of a message, as far as it can be read.
fn cap_table_len(original: message::Reader<'_>) -> usize {
    let len = |kind: PayloadKind| Some(kind.read(original).ok()?.get_cap_table().ok()?.len() as usize);
    len(PayloadKind::CallParams).or_else(|| len(PayloadKind::ReturnResults)).unwrap_or(0)
}

/// The fields by which its sender knows which call comes back.
fn copy_outline(original: message::Reader<'_>) -> Result<Builder<HeapAllocator>, capnp::Error> {
    let message::Call(call) = original.which()? else {
        return Err(capnp::Error::failed("only a call has an outline".into()));
    };
    let call = call?;
    let mut message = content::builder(SMALL_WORDS as u64);
    let mut to = message.init_root::<message::Builder<'_>>().init_unimplemented().init_call();
    to.set_question_id(call.get_question_id());
    to.set_interface_id(call.get_interface_id());
    to.set_method_id(call.get_method_id());
    Ok(message)
}

fn encode_resolve(resolve: &Resolve<Outgoing>) -> Result<Outbound, Exception> {
    let extra = match &resolve.to {
        Resolution::Cap(descriptor) => descriptors_words(std::slice::from_ref(descriptor)),
        Resolution::Exception(e) => exception_words(e),
    };
    let mut result = Ok(());
    let message = small(extra, |to| result = write_resolve(to.init_resolve(), resolve))?;
    result.map(|()| message)
}

fn write_resolve(mut to: resolve::Builder<'_>, resolve: &Resolve<Outgoing>) -> Result<(), Exception> {
    to.set_promise_id(resolve.promise.into());
    match &resolve.to {
        Resolution::Cap(descriptor) => write_descriptor(to.init_cap(), descriptor),
        Resolution::Exception(e) => {
            write_exception(to.init_exception(), e);
            Ok(())
        }
    }
}

fn write_disembargo(mut to: disembargo::Builder<'_>, disembargo: &Disembargo<Outgoing>) {
    write_target(to.reborrow().init_target(), &disembargo.target);
    let mut context = to.init_context();
    match disembargo.context {
        DisembargoContext::SenderLoopback(id) => context.set_sender_loopback(id.into()),
        DisembargoContext::ReceiverLoopback(id) => context.set_receiver_loopback(id.into()),
    }
}

fn write_target(mut to: message_target::Builder<'_>, target: &Target<Outgoing>) {
    match target {
        Target::ImportedCap(id) => to.set_imported_cap((*id).into()),
        Target::PromisedAnswer(answer) => write_promised_answer(to.init_promised_answer(), answer),
    }
}

fn write_promised_answer<Q: Copy + Into<u32>>(
    mut to: promised_answer::Builder<'_>,
    answer: &PromisedAnswer<Q>,
) {
    to.set_question_id(answer.question.into());
    if !answer.path.is_empty() {
        let mut ops = to.init_transform(answer.path.len() as u32);
        for (i, &field) in (0..).zip(answer.path.iter()) {
            ops.reborrow().get(i).set_get_pointer_field(field);
        }
    }
}

fn write_descriptor(
    mut to: cap_descriptor::Builder<'_>,
    descriptor: &Descriptor<Outgoing>,
) -> Result<(), Exception> {
    match descriptor {
        Descriptor::None => to.set_none(()),
        Descriptor::SenderHosted(id) => to.set_sender_hosted((*id).into()),
        Descriptor::SenderPromise(id) => to.set_sender_promise((*id).into()),
        Descriptor::ReceiverHosted(id) => to.set_receiver_hosted((*id).into()),
        Descriptor::ReceiverAnswer(answer) => write_promised_answer(to.init_receiver_answer(), answer),
        Descriptor::ThirdPartyHosted { .. } | Descriptor::Unknown(_) => {
            return Err(never_sent("a descriptor of a third party or of unknown kind"))
        }
    }
    Ok(())
}

fn write_exception(mut to: exception::Builder<'_>, e: &Exception) {
    to.set_reason(e.reason());
    to.set_type(match e.kind() {
        ExceptionKind::Failed => exception::Type::Failed,
        ExceptionKind::Overloaded => exception::Type::Overloaded,
        ExceptionKind::Disconnected => exception::Type::Disconnected,
        ExceptionKind::Unimplemented => exception::Type::Unimplemented,
    });
    if !e.trace().is_empty() {
        to.set_trace(e.trace());
    }
    if !e.details().is_empty() {
        let mut details = to.init_details(e.details().len() as u32);
        for (i, detail) in (0..).zip(e.details()) {
            let mut to = details.reborrow().get(i);
            to.set_detail_id(detail.id);
            to.set_data(&detail.data);
        }
    }
}

// Sizes of the parts that vary, so that a message has room in its first segment.

fn target_words(target: &Target<Outgoing>) -> usize {
    match target {
        Target::ImportedCap(_) => 0,
        Target::PromisedAnswer(answer) => answer.path.len(),
    }
}

fn descriptors_words(descriptors: &[Descriptor<Outgoing>]) -> usize {
    let one = |descriptor: &_| match descriptor {
        Descriptor::ReceiverAnswer(answer) => 5 + answer.path.len(),
        _ => 2,
    };
    descriptors.iter().map(one).sum()
}

fn exception_words(e: &Exception) -> usize {
    let bytes = |len: usize| len / 8 + 1;
    let details = e.details().iter().map(|detail| 2 + bytes(detail.data.len()));
    bytes(e.reason().len()) + bytes(e.trace().len()) + details.sum::<usize>()
}

#[cfg(test)]
mod tests;
