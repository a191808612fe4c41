//! Tests of `fast_encode`: a message that it writes is the message that the plain encoder writes.

use proptest::prelude::*;

use super::*;
use crate::generated::rpc_capnp::{exception, join};
use crate::short::Short;
use crate::wire::content::ContentBuilder;
use crate::wire::decode::decode_plain;
use crate::wire::encode::encode_plain;
use crate::wire::testing::{
    content_words, list_of_caps, path, payload_mut, receive, samples, set_cap, transfer, whole, ContentWords,
};

/// What a content is made of.
#[derive(Clone, Debug)]
enum Filling {
    Nothing,
    Bytes(Vec<u8>),
    Text(String),
    Cap(u32),
    Caps(Vec<u32>),
    Nested(Box<Filling>),
}

fn fill(to: any_pointer::Builder<'_>, filling: &Filling) {
    match filling {
        Filling::Nothing => {}
        Filling::Bytes(bytes) => {
            to.initn_as::<capnp::data::Builder<'_>>(bytes.len() as u32).copy_from_slice(bytes)
        }
        Filling::Text(text) => to.init_as::<exception::Builder<'_>>().set_reason(text.as_str()),
        Filling::Cap(index) => set_cap(to, *index),
        Filling::Caps(indices) => {
            let mut list: capnp::list_list::Builder<'_, capnp::any_pointer_list::Owned> =
                to.initn_as(indices.len() as u32);
            for (i, index) in (0..).zip(indices) {
                set_cap(list.reborrow().init(i, 2).get(1), *index);
            }
        }
        Filling::Nested(inner) => fill(to.init_as::<join::Builder<'_>>().init_key_part(), inner),
    }
}

/// Capabilities have lower indices than this.
const CAPS: u32 = 6;

fn has_caps(filling: &Filling) -> bool {
    match filling {
        Filling::Nothing | Filling::Bytes(_) | Filling::Text(_) => false,
        Filling::Cap(_) | Filling::Caps(_) => true,
        Filling::Nested(inner) => has_caps(inner),
    }
}

fn filling() -> impl Strategy<Value = Filling> {
    let leaf = prop_oneof![
        Just(Filling::Nothing),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Filling::Bytes),
        ".{0,40}".prop_map(Filling::Text),
        (0..CAPS).prop_map(Filling::Cap),
        prop::collection::vec(0..CAPS, 0..6).prop_map(Filling::Caps),
    ];
    leaf.prop_recursive(3, 4, 1, |inner| inner.prop_map(|inner| Filling::Nested(Box::new(inner))))
}

/// The parts of a message, of which it can be made more than once.
#[derive(Clone, Debug)]
struct Parts {
    ids: [u32; 3],
    numbers: (u64, u16),
    flags: [bool; 3],
    path: Option<Vec<u16>>,
    descriptors: Vec<(u8, u32, Vec<u16>)>,
    filling: Filling,
    /// How much room the first segment has: if too little, there are more segments.
    room: u64,
}

fn parts() -> impl Strategy<Value = Parts> {
    let path = || prop::collection::vec(any::<u16>(), 0..5);
    let descriptor = (0u8..5, any::<u32>(), path());
    (
        (any::<[u32; 3]>(), any::<(u64, u16)>(), any::<[bool; 3]>(), prop::option::of(path())),
        prop::collection::vec(descriptor, CAPS as usize),
        0..=CAPS as usize,
        filling(),
        prop_oneof![Just(0u64), 0u64..300],
    )
        .prop_map(|((ids, numbers, flags, path), mut descriptors, len, filling, room)| {
            if !has_caps(&filling) {
                descriptors.truncate(len);
            }
            Parts { ids, numbers, flags, path, descriptors, filling, room }
        })
}

impl Parts {
    fn payload(&self, kind: PayloadKind) -> Payload<Outgoing> {
        let mut content = ContentBuilder::with_room(kind, self.room);
        fill(content.content(), &self.filling);
        let descriptors = self.descriptors.iter().map(|(kind, id, fields)| match kind {
            0 => Descriptor::None,
            1 => Descriptor::SenderHosted((*id).into()),
            2 => Descriptor::SenderPromise((*id).into()),
            3 => Descriptor::ReceiverHosted((*id).into()),
            _ => Descriptor::ReceiverAnswer(PromisedAnswer { question: (*id).into(), path: path(fields) }),
        });
        Payload { content: content.freeze(), descriptors: descriptors.collect() }
    }

    fn messages(&self) -> [Message<Outgoing>; 4] {
        let ([a, b, c], [x, y, z]) = (self.ids, self.flags);
        let call = Call {
            question: a.into(),
            target: match &self.path {
                None => Target::ImportedCap(b.into()),
                Some(fields) => {
                    Target::PromisedAnswer(PromisedAnswer { question: b.into(), path: path(fields) })
                }
            },
            interface_id: self.numbers.0,
            method_id: self.numbers.1,
            params: self.payload(PayloadKind::CallParams),
            keep_results: x,
            no_promise_pipelining: y,
            only_promise_pipeline: z,
        };
        let ret = Return {
            answer: a.into(),
            release_param_caps: x,
            no_finish_needed: y,
            outcome: Outcome::Results(self.payload(PayloadKind::ReturnResults)),
        };
        let finish = Finish { question: a.into(), release_result_caps: x, cancel_after_delivery: y };
        let release = Message::Release { id: b.into(), count: c };
        [Message::Call(call), Message::Return(ret), Message::Finish(finish), release]
    }
}

/// What the plain decoder makes of a message of ours: all but its content, and the content.
fn read(message: &Outbound) -> (String, Option<ContentWords>) {
    let mut message = decode_plain(whole(receive(message))).unwrap();
    let content =
        payload_mut(&mut message).map(|payload| std::mem::replace(&mut payload.content, Content::null()));
    (format!("{message:?}"), content.map(|content| content_words(&content, CAPS as usize).unwrap()))
}

proptest! {
    #[test]
    fn both_encoders_write_the_same_message(parts in parts()) {
        for (mut fast, plain) in parts.messages().into_iter().zip(parts.messages()) {
            let fast = encode(&mut fast).expect("a message that the fast encoder knows");
            prop_assert_eq!(read(&fast), read(&encode_plain(plain).unwrap()));
        }
    }
}

/// Finish and Release are no larger than the generated code makes them, and not different.
#[test]
fn messages_of_one_word_are_the_same_words() {
    let parts = Parts {
        ids: [0xfedc_ba98, 0x8765_4321, u32::MAX],
        numbers: (0, 0),
        flags: [false; 3],
        path: None,
        descriptors: vec![],
        filling: Filling::Nothing,
        room: 0,
    };
    for (x, y) in [(false, false), (false, true), (true, false), (true, true)] {
        let parts = Parts { flags: [x, y, false], ..parts.clone() };
        for (mut fast, plain) in parts.messages().into_iter().zip(parts.messages()).skip(2) {
            let words = |message: Outbound| message.with_segments(|segments| segments.concat());
            assert_eq!(words(encode(&mut fast).unwrap()), words(encode_plain(plain).unwrap()));
        }
    }
}

#[test]
fn a_message_that_the_fast_encoder_does_not_know_is_left() {
    let call = |content| {
        let mut call = crate::wire::testing::call(Target::ImportedCap(1.into()), false, false, false);
        call.params.content = content;
        Message::Call(call)
    };
    let built = list_of_caps(PayloadKind::CallParams, &[0]);
    let received = match transfer(call(built.clone())) {
        Message::Call(call) => call.params.content,
        other => panic!("{other:?}"),
    };
    let misplaced = list_of_caps(PayloadKind::ReturnResults, &[0]);
    assert!(encode(&mut call(built.clone())).is_some());
    for content in [Content::null(), received, misplaced] {
        assert!(encode(&mut call(content)).is_none());
    }
    for descriptor in [Descriptor::ThirdPartyHosted { vine: 1.into() }, Descriptor::Unknown(9)] {
        let mut message = call(built.clone());
        if let Message::Call(call) = &mut message {
            call.params.descriptors = Short::from(vec![descriptor]);
        }
        assert!(encode(&mut message).is_none(), "a descriptor that is never sent");
    }
    for mut message in samples() {
        let known = matches!(message, Message::Finish(_) | Message::Release { .. });
        assert_eq!(encode(&mut message).is_some(), known, "{message:?}");
    }
}
