//! What the tests of this folder share.

use capnp::any_pointer;
use capnp::private::layout::CapTable;
use capnp::struct_list;
use capnp::traits::{Imbue, ImbueMut};
use capnp::Word;
use proptest::prelude::*;

use crate::error::{Exception, ProtocolError};
use crate::generated::rpc_capnp::bootstrap;
use crate::limits::Limits;
use crate::short::Short;
use crate::sync::Arc;
use crate::wire::content::{Content, ContentBuilder, PayloadKind, Received};
use crate::wire::encode::encode;
use crate::wire::frame::{Frame, Outbound};
use crate::wire::message::{
    Call, Descriptor, Disembargo, DisembargoContext, Finish, Incoming, Message, Outcome, Outgoing, Path,
    Payload, PromisedAnswer, Resolution, Resolve, Return, Side, Target,
};
use crate::wire::{self, cap_index};

/// The message as the peer receives it.
pub(super) fn receive(message: &Outbound) -> Frame {
    message.with_segments(receive_segments)
}

pub(super) fn receive_segments(segments: &[&[u8]]) -> Frame {
    let bytes = segments.concat();
    let mut words = Word::allocate_zeroed_vec(bytes.len() / 8);
    Word::words_to_bytes_mut(&mut words).copy_from_slice(&bytes);
    Frame::new(words, segments.iter().map(|s| s.len() / 8))
}

/// A message that is kept whole.
pub(super) fn whole(frame: Frame) -> Arc<Received> {
    Arc::new(Received::new(frame, &limits()))
}

pub(super) fn decode(frame: Frame) -> Result<Message<Incoming>, ProtocolError> {
    wire::decode::decode(frame, &limits())
}

pub(super) fn limits() -> Limits {
    Limits { traversal_words: 1 << 16, ..Limits::default() }
}

/// What the peer makes of a message of ours.
pub(super) fn transfer(message: Message<Outgoing>) -> Message<Incoming> {
    decode(receive(&encode(message).unwrap())).unwrap()
}

/// A content that is a list of capability pointers with the given indices.
pub(super) fn list_of_caps(place: PayloadKind, indices: &[u32]) -> Content {
    let mut builder = ContentBuilder::new(place, None);
    let mut list: struct_list::Builder<'_, bootstrap::Owned> =
        builder.content().initn_as(indices.len() as u32);
    for (i, &index) in (0..).zip(indices) {
        let element = list.reborrow().get(i).init_deprecated_object_id();
        set_cap(element, index);
    }
    builder.freeze()
}

/// Sets a pointer to a capability of the given index.
pub(super) fn set_cap(to: any_pointer::Builder<'_>, index: u32) {
    let mut table: CapTable = cap_index::table(index as usize);
    let mut to = to;
    let mut to = to.reborrow();
    to.imbue_mut(&mut table);
    to.set_as_capability(cap_index::table(1).remove(0).unwrap());
}

/// The indices that [`list_of_caps`] was made with.
pub(super) fn indices_in(content: &Content, caps: usize) -> Vec<u32> {
    let table = cap_index::table(caps);
    let mut root = content.reader().unwrap();
    root.imbue(&table);
    let list: struct_list::Reader<'_, bootstrap::Owned> = root.get_as().unwrap();
    list.iter().map(|e| cap_index::at(e.get_deprecated_object_id(), &[]).unwrap().unwrap()).collect()
}

/// The words of a content, copied, and the index of each capability in it.
pub(super) type ContentWords = (Vec<u8>, Vec<u32>);

/// Copies a content. `None` if it can't be read.
pub(super) fn content_words(content: &Content, caps: usize) -> Option<ContentWords> {
    let mut to = ContentBuilder::with_room(PayloadKind::CallParams, 1000);
    let indices = cap_index::copy(content.reader().ok()?, to.content(), caps).ok()?;
    Some((to.freeze().into_built()?.segments().concat(), indices))
}

/// The payload of a call, or of a Return with results.
pub(super) fn payload_mut<S: Side>(message: &mut Message<S>) -> Option<&mut Payload<S>> {
    match message {
        Message::Call(call) => Some(&mut call.params),
        Message::Return(Return { outcome: Outcome::Results(results), .. }) => Some(results),
        _ => None,
    }
}

/// Words that are likely to be pointers.
pub(super) fn word() -> impl Strategy<Value = u64> {
    let small = 0u64..8;
    prop_oneof![
        any::<u64>(),
        small.clone(),
        (0u64..4, 0u64..6, small.clone(), small)
            .prop_map(|(kind, to, a, b)| kind | to << 2 | a << 32 | b << 48),
    ]
}

pub(super) fn path(fields: &[u16]) -> Path {
    Path::from(fields)
}

/// One message of every kind and variant that both sides have, without contents.
pub(super) fn samples<S: Side + Clone>() -> Vec<Message<S>> {
    let mut samples = vec![
        Message::Abort(exceptions().remove(0)),
        Message::Bootstrap { question: 1.into() },
        Message::Release { id: 2.into(), count: 3 },
    ];
    samples.extend(targets().into_iter().map(|t| Message::Call(call(t, false, true, false))));
    samples.push(Message::Call(call(Target::ImportedCap(4.into()), true, false, true)));
    for (i, outcome) in outcomes().into_iter().enumerate() {
        let (release_param_caps, no_finish_needed) = (i % 2 == 0, i % 3 == 0);
        let ret = Return { answer: 9.into(), release_param_caps, no_finish_needed, outcome };
        samples.push(Message::Return(ret));
    }
    for flags in 0..4 {
        samples.push(Message::Finish(Finish {
            question: 5.into(),
            release_result_caps: flags & 1 != 0,
            cancel_after_delivery: flags & 2 != 0,
        }));
    }
    let resolutions = descriptors().into_iter().map(Resolution::Cap);
    for to in resolutions.chain(exceptions().into_iter().map(Resolution::Exception)) {
        samples.push(Message::Resolve(Resolve { promise: 6.into(), to }));
    }
    for target in targets() {
        let context = DisembargoContext::SenderLoopback(7.into());
        samples.push(Message::Disembargo(Disembargo { target: target.clone(), context }));
        let context = DisembargoContext::ReceiverLoopback(8.into());
        samples.push(Message::Disembargo(Disembargo { target, context }));
    }
    samples
}

pub(super) fn exceptions() -> Vec<Exception> {
    vec![
        Exception::failed("broken").with_trace("here\nthere").with_detail(0xdead, *b"one").with_detail(2, []),
        Exception::overloaded("busy"),
        Exception::disconnected(""),
        Exception::unimplemented("ünbekannt").with_trace("t"),
    ]
}

pub(super) fn targets<S: Side>() -> Vec<Target<S>> {
    let answer = |fields: &[u16]| PromisedAnswer { question: 11.into(), path: path(fields) };
    vec![
        Target::ImportedCap(10.into()),
        Target::PromisedAnswer(answer(&[])),
        Target::PromisedAnswer(answer(&[0, 65535, 2])),
        Target::PromisedAnswer(answer(&[1; 64])),
    ]
}

pub(super) fn call<S: Side>(target: Target<S>, keep: bool, no: bool, only: bool) -> Call<S> {
    Call {
        question: 12.into(),
        target,
        interface_id: u64::MAX - 1,
        method_id: 13,
        params: Payload { content: Content::null(), descriptors: descriptors().into() },
        keep_results: keep,
        no_promise_pipelining: no,
        only_promise_pipeline: only,
    }
}

pub(super) fn descriptors<S: Side>() -> Vec<Descriptor<S>> {
    vec![
        Descriptor::None,
        Descriptor::SenderHosted(14.into()),
        Descriptor::SenderPromise(15.into()),
        Descriptor::ReceiverHosted(16.into()),
        Descriptor::ReceiverAnswer(PromisedAnswer { question: 17.into(), path: path(&[3, 4]) }),
    ]
}

fn outcomes<S: Side>() -> Vec<Outcome<S>> {
    let mut outcomes = vec![
        Outcome::Results(Payload { content: Content::null(), descriptors: Short::new() }),
        Outcome::Results(Payload { content: Content::null(), descriptors: descriptors().into() }),
        Outcome::Canceled,
        Outcome::ResultsSentElsewhere,
        Outcome::TakeFromOtherQuestion(18.into()),
    ];
    outcomes.extend(exceptions().into_iter().map(Outcome::Exception));
    outcomes
}
