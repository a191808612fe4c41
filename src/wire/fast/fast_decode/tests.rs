//! Tests of `fast_decode`: it says what the plain decoder says, or nothing.

use capnp::data;
use capnp::message::{Builder, HeapAllocator};
use proptest::prelude::*;

use super::*;
use crate::generated::rpc_capnp::{exception, message};
use crate::wire::content::{ContentBuilder, PayloadKind};
use crate::wire::decode::decode_plain;
use crate::wire::encode::encode;
use crate::wire::frame::Outbound;
use crate::wire::message::Outgoing;
use crate::wire::testing::{
    call, content_words, descriptors, limits, list_of_caps, receive, receive_segments, samples, set_cap,
    targets, whole, word,
};

/// Reads a message in both ways. If it is a usual one, both must say the same, also of its content, if that is `whole`.
fn is_usual(bytes: &[u8], content_is_whole: bool) -> bool {
    let Ok(mut read) = decode(receive_segments(&[bytes]), &limits()) else { return false };
    let any = decode_plain(whole(receive_segments(&[bytes])));
    let mut any = any.expect("a usual message can be read");
    let contents = (take_content(&mut read), take_content(&mut any));
    assert_eq!(format!("{read:?}"), format!("{any:?}"));
    if let (Some(read), Some(any)) = contents {
        assert_eq!(read.reader().unwrap().is_null(), any.reader().unwrap().is_null());
        let (read, any) = (content_words(&read, 10), content_words(&any, 10));
        assert!(!content_is_whole || read == any, "{read:x?}, where {any:x?} was sent");
    }
    true
}

fn take_content(message: &mut Message<Incoming>) -> Option<Content> {
    payload(message).map(|payload| std::mem::replace(&mut payload.content, Content::null()))
}

fn contents(kind: PayloadKind) -> Vec<Content> {
    let mut contents = vec![Content::null(), list_of_caps(kind, &[2, 0]), list_of_caps(kind, &[])];
    let mut built = |build: &dyn Fn(capnp::any_pointer::Builder<'_>)| {
        let mut builder = ContentBuilder::new(kind, None);
        build(builder.content());
        contents.push(builder.freeze());
    };
    built(&|to| to.initn_as::<data::Builder<'_>>(100).fill(7));
    built(&|to| to.init_as::<exception::Builder<'_>>().set_reason("a text"));
    built(&|to| set_cap(to, 3));
    contents
}

fn some_descriptors() -> Vec<Descriptor<Outgoing>> {
    descriptors().into_iter().filter(|d| !matches!(d, Descriptor::ReceiverAnswer(_))).collect()
}

/// All that is usual.
fn usual() -> Vec<Message<Outgoing>> {
    let mut messages = Vec::new();
    for target in targets() {
        for (content, descriptors) in contents(PayloadKind::CallParams)
            .into_iter()
            .flat_map(|c| [(c.clone(), vec![]), (c, some_descriptors())])
        {
            let flags = messages.len();
            let mut call = call(target.clone(), flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            call.params = Payload { content, descriptors: descriptors.into() };
            messages.push(Message::Call(call));
        }
    }
    for (flags, content) in contents(PayloadKind::ReturnResults).into_iter().enumerate() {
        let descriptors = if flags & 4 == 0 { some_descriptors() } else { vec![] };
        messages.push(Message::Return(Return {
            answer: 9.into(),
            release_param_caps: flags & 1 != 0,
            no_finish_needed: flags & 2 != 0,
            outcome: Outcome::Results(Payload { content, descriptors: descriptors.into() }),
        }));
    }
    let small = |m: &Message<_>| matches!(m, Message::Finish(_) | Message::Release { .. });
    messages.extend(samples().into_iter().filter(small));
    messages
}

fn bytes(message: Message<Outgoing>) -> Vec<u8> {
    encode(message).unwrap().with_segments(|segments| segments.concat())
}

#[test]
fn what_is_usual_is_read() {
    for message in usual() {
        let shown = format!("{message:?}");
        assert!(is_usual(&bytes(message), true), "{shown}");
    }
}

/// The words of a segment.
fn segment(message: &Builder<HeapAllocator>) -> Vec<u8> {
    message.get_segments_for_output().concat()
}

fn write(mut to: message::Builder<'_>, content_first: bool) {
    let mut call = to.reborrow().init_call();
    call.set_question_id(1);
    if content_first {
        call.reborrow().init_params().init_content().initn_as::<data::Builder<'_>>(99).fill(1);
    }
    let mut ops = call.reborrow().init_target().init_promised_answer().init_transform(3);
    ops.reborrow().get(1).set_get_pointer_field(6);
    let mut params = if content_first { call.get_params().unwrap() } else { call.init_params() };
    params.reborrow().init_cap_table(2).get(1).set_sender_promise(8);
    if !content_first {
        params.init_content().initn_as::<data::Builder<'_>>(99).fill(1);
    }
}

#[test]
fn parts_may_stand_in_any_order() {
    for content_first in [false, true] {
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(100));
        write(message.init_root(), content_first);
        assert!(is_usual(&segment(&message), true));
    }
}

#[test]
fn other_messages_are_left() {
    let small = |m: &Message<_>| matches!(m, Message::Finish(_) | Message::Release { .. });
    for message in samples().into_iter().filter(|m| !small(m)) {
        let shown = format!("{message:?}");
        let usual = matches!(&message, Message::Return(Return { outcome: Outcome::Results(results), .. })
            if results.descriptors.is_empty());
        assert_eq!(is_usual(&bytes(message), true), usual, "{shown}");
    }
}

#[test]
fn messages_of_several_segments_are_left() {
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(16));
    write(message.init_root(), false);
    let frame = receive(&Outbound::from(message));
    assert!(frame.segments() > 1);
    assert!(decode(frame, &limits()).is_err());
    assert!(decode(receive_segments(&[]), &limits()).is_err());
}

#[test]
fn what_may_cross_a_limit_is_left() {
    for message in usual() {
        let bytes = bytes(message);
        let frame = || receive_segments(&[&bytes]);
        let words = frame().words();
        let narrow = Limits { traversal_words: words + ENOUGH_WORDS - 1, ..limits() };
        assert!(decode(frame(), &narrow).is_err());
        assert!(decode(frame(), &Limits { nesting: ENOUGH_NESTING - 1, ..limits() }).is_err());
        let just = Limits { traversal_words: words + ENOUGH_WORDS, nesting: ENOUGH_NESTING, ..limits() };
        assert!(decode(frame(), &just).is_ok());
    }
}

/// Only what is before a content is damaged, so that what is read must be the same.
#[test]
fn one_bit_off_is_the_same_or_left() {
    let mut usual = 0;
    for message in self::usual().into_iter().step_by(5) {
        let content = if matches!(message, Message::Call(_)) { 11 } else { 6 };
        let mut bytes = bytes(message);
        for bit in (0..bytes.len() * 8).filter(|bit| bit / 64 <= content + 1) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            usual += usize::from(is_usual(&bytes, bit / 64 != content));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert!(usual > 1000, "{usual} were usual");
}

proptest! {
    #[test]
    fn damaged_messages_are_the_same_or_left(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), word()), 1..4),
    ) {
        let mut messages = usual();
        let mut bytes = bytes(messages.swap_remove(which.index(messages.len())));
        for (at, word) in damage {
            let at = at.index(bytes.len() / WORD) * WORD;
            bytes[at..][..WORD].copy_from_slice(&word.to_le_bytes());
        }
        // A content that leads to the first word would be another: see Note [A content is lifted].
        is_usual(&bytes, false);
    }

    #[test]
    fn random_words_are_the_same_or_left(words in prop::collection::vec(word(), 0..60)) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        is_usual(&bytes, false);
    }
}
