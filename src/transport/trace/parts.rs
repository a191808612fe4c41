//! The parts of messages in words.

use capnp::struct_list;

use crate::generated::rpc_capnp::{
    call, cap_descriptor, disembargo, exception, finish, message_target, payload, promised_answer, resolve,
    return_,
};

/// How many entries of a list are shown.
const SHOWN: usize = 16;
/// How many bytes of an exception's reason are shown.
const REASON: usize = 300;

pub(super) fn call(call: call::Reader<'_>) -> capnp::Result<String> {
    use call::send_results_to::{Caller, ThirdParty, Yourself};
    let results = match call.get_send_results_to().which() {
        Ok(Caller(())) => "",
        Ok(Yourself(())) => ", results kept by the callee",
        Ok(ThirdParty(_)) => ", results to a third party",
        Err(_) => ", results to an unknown place",
    };
    Ok(format!(
        " to {}, interface {:#x} method {}{results}{}{}{}",
        target(call.get_target()?)?,
        call.get_interface_id(),
        call.get_method_id(),
        flag(call.get_no_promise_pipelining(), ", no promise pipelining"),
        flag(call.get_only_promise_pipeline(), ", only promise pipeline"),
        capabilities(call.get_params()?)?,
    ))
}

pub(super) fn outcome(m: return_::Reader<'_>) -> capnp::Result<String> {
    let outcome = match m.which() {
        Ok(return_::Results(payload)) => format!(", results{}", capabilities(payload?)?),
        Ok(return_::Exception(e)) => exception(e?)?,
        Ok(return_::Canceled(())) => ", canceled".into(),
        Ok(return_::ResultsSentElsewhere(())) => ", results sent elsewhere".into(),
        Ok(return_::TakeFromOtherQuestion(other)) => format!(", results of question {other}"),
        Ok(return_::AwaitFromThirdParty(_)) => ", results from a third party".into(),
        Err(capnp::NotInSchema(ordinal)) => format!(", unknown variant {ordinal}"),
    };
    let keep = flag(!m.get_release_param_caps(), ", keeping the params' capabilities");
    Ok(outcome + keep + flag(m.get_no_finish_needed(), ", no Finish needed"))
}

pub(super) fn finish(m: finish::Reader<'_>) -> String {
    let release = flag(m.get_release_result_caps(), ", releasing the results' capabilities");
    let delivered = m.get_require_early_cancellation_workaround();
    release.to_owned() + flag(delivered, ", canceling only after delivery")
}

pub(super) fn resolution(m: resolve::Reader<'_>) -> capnp::Result<String> {
    let to = match m.which() {
        Ok(resolve::Cap(cap)) => format!(" to {}", descriptor(cap?)?),
        Ok(resolve::Exception(e)) => exception(e?)?,
        Err(capnp::NotInSchema(ordinal)) => format!(" to unknown variant {ordinal}"),
    };
    Ok(format!(" of promise {}{to}", m.get_promise_id()))
}

pub(super) fn disembargo(m: disembargo::Reader<'_>) -> capnp::Result<String> {
    use disembargo::context::{Accept, ReceiverLoopback, SenderLoopback};
    let context = match m.get_context().which() {
        Ok(SenderLoopback(id)) => format!("sender loopback {id}"),
        Ok(ReceiverLoopback(id)) => format!("receiver loopback {id}"),
        Ok(Accept(_)) => "accept".into(),
        Err(capnp::NotInSchema(ordinal)) => format!("unknown context {ordinal}"),
    };
    Ok(format!(" of {}, {context}", target(m.get_target()?)?))
}

pub(super) fn exception(e: exception::Reader<'_>) -> capnp::Result<String> {
    let kind = e.get_type().map_or_else(|unknown| format!("kind {}", unknown.0), |kind| format!("{kind:?}"));
    let reason = e.get_reason()?.as_bytes();
    let shown = String::from_utf8_lossy(&reason[..reason.len().min(REASON)]);
    let cut = if reason.len() > REASON { "..." } else { "" };
    Ok(format!(", exception {}: {shown:?}{cut}", kind.to_lowercase()))
}

fn target(target: message_target::Reader<'_>) -> capnp::Result<String> {
    match target.which() {
        Ok(message_target::ImportedCap(id)) => Ok(format!("capability {id}")),
        Ok(message_target::PromisedAnswer(answer)) => promised(answer?),
        Err(capnp::NotInSchema(ordinal)) => Ok(format!("unknown target {ordinal}")),
    }
}

/// `answer 3.0.1`: the pointer fields to follow from the root.
fn promised(answer: promised_answer::Reader<'_>) -> capnp::Result<String> {
    use promised_answer::op;
    let mut text = format!("answer {}", answer.get_question_id());
    let transform = answer.get_transform()?;
    for step in transform.iter().take(SHOWN) {
        match step.which() {
            Ok(op::Noop(())) => {}
            Ok(op::GetPointerField(field)) => text += &format!(".{field}"),
            Err(_) => text += ".?",
        }
    }
    Ok(text + flag(transform.len() as usize > SHOWN, "..."))
}

/// What the capability pointers in a payload stand for.
fn capabilities(payload: payload::Reader<'_>) -> capnp::Result<String> {
    let table: struct_list::Reader<'_, cap_descriptor::Owned> = payload.get_cap_table()?;
    if table.is_empty() {
        return Ok(String::new());
    }
    let shown: capnp::Result<Vec<_>> = table.iter().take(SHOWN).map(descriptor).collect();
    let more = (table.len() as usize).saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(format!(", capabilities [{}]{more}", shown?.join(", ")))
}

fn descriptor(cap: cap_descriptor::Reader<'_>) -> capnp::Result<String> {
    Ok(match cap.which() {
        Ok(cap_descriptor::None(())) => "none".into(),
        Ok(cap_descriptor::SenderHosted(id)) => format!("senderHosted {id}"),
        Ok(cap_descriptor::SenderPromise(id)) => format!("senderPromise {id}"),
        Ok(cap_descriptor::ReceiverHosted(id)) => format!("receiverHosted {id}"),
        Ok(cap_descriptor::ReceiverAnswer(answer)) => format!("receiverAnswer {}", promised(answer?)?),
        Ok(cap_descriptor::ThirdPartyHosted(third)) => {
            format!("thirdPartyHosted, vine {}", third?.get_vine_id())
        }
        Err(capnp::NotInSchema(ordinal)) => format!("unknown descriptor {ordinal}"),
    })
}

fn flag(set: bool, text: &'static str) -> &'static str {
    if set {
        text
    } else {
        ""
    }
}
