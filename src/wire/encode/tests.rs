//! Tests of `encode`.

use super::*;
use crate::generated::rpc_capnp::join;
use crate::short::Short;
use crate::wire::content::{Content, ContentBuilder};
use crate::wire::message::Incoming;
use crate::wire::testing::{
    call, decode, indices_in, list_of_caps, receive, receive_segments, samples, transfer, whole,
};

fn hosted(count: u32) -> Short<Descriptor<Outgoing>> {
    (100..100 + count).map(|id| Descriptor::SenderHosted(id.into())).collect()
}

fn call_with(content: Content, caps: u32) -> Message<Outgoing> {
    let mut call = call(Target::ImportedCap(1.into()), false, false, false);
    call.params = Payload { content, descriptors: hosted(caps) };
    Message::Call(call)
}

fn return_with(content: Content, caps: u32) -> Message<Outgoing> {
    Message::Return(Return {
        answer: 2.into(),
        release_param_caps: false,
        no_finish_needed: false,
        outcome: Outcome::Results(Payload { content, descriptors: hosted(caps) }),
    })
}

fn payload(message: Message<Incoming>) -> Payload<Incoming> {
    match message {
        Message::Call(Call { params, .. }) => params,
        Message::Return(Return { outcome: Outcome::Results(results), .. }) => results,
        other => panic!("{other:?}"),
    }
}

/// A content that is a blob, and where its bytes are.
fn blob(place: PayloadKind, len: u32) -> (Content, *const u8) {
    let mut builder = ContentBuilder::new(place, None);
    let bytes = builder.content().initn_as::<capnp::data::Builder<'_>>(len);
    bytes.fill(7);
    let start = bytes.as_ptr();
    (builder.freeze(), start)
}

#[test]
fn every_message_comes_over() {
    let expected = samples::<Incoming>();
    for (sent, expected) in samples::<Outgoing>().into_iter().zip(expected) {
        assert_eq!(format!("{:?}", transfer(sent)), format!("{expected:?}"));
    }
}

#[test]
fn exceptions_come_over_whole() {
    for e in crate::wire::testing::exceptions() {
        let Message::Abort(received) = transfer(Message::Abort(e.clone())) else { panic!("no abort") };
        assert_eq!(received, e);
    }
}

#[test]
fn sizes_are_foreseen() {
    for sent in samples() {
        let shown = format!("{sent:?}");
        let segments = encode(sent).unwrap().with_segments(|s| s.len());
        assert_eq!(segments, 1, "{shown}");
    }
}

#[test]
fn what_was_built_for_a_message_is_sent_in_place() {
    for (place, wrap) in [
        (PayloadKind::CallParams, call_with as fn(_, u32) -> _),
        (PayloadKind::ReturnResults, return_with as fn(_, u32) -> _),
    ] {
        let (content, start) = blob(place, 100_000);
        // Also if somebody else holds it: results are kept for calls pipelined on them.
        let _kept = content.clone();
        let message = encode(wrap(content, 1)).unwrap();
        message.with_segments(|s| assert!(s.iter().any(|s| s.as_ptr_range().contains(&start))));
        let received = payload(decode(receive(&message)).unwrap());
        let bytes: &[u8] = received.content.reader().unwrap().get_as().unwrap();
        assert_eq!(bytes, [7; 100_000]);
        assert_eq!(*received.descriptors, [Descriptor::SenderHosted(100.into())]);
    }
}

#[test]
fn misplaced_contents_are_copied() {
    let (content, start) = blob(PayloadKind::CallParams, 1000);
    let _kept = content.clone();
    let message = encode(return_with(content, 0)).unwrap();
    message.with_segments(|s| {
        assert_eq!(s.len(), 1);
        assert!(!s[0].as_ptr_range().contains(&start));
    });
    let received = payload(decode(receive(&message)).unwrap());
    assert_eq!(received.content.reader().unwrap().get_as::<&[u8]>().unwrap(), [7; 1000]);
}

#[test]
fn received_contents_are_passed_on() {
    let first = payload(transfer(call_with(list_of_caps(PayloadKind::CallParams, &[2, 0]), 3)));
    let second = payload(transfer(return_with(first.content, 3)));
    let third = payload(transfer(call_with(second.content, 3)));
    assert_eq!(indices_in(&third.content, 3), [2, 0]);
}

#[test]
fn copies_keep_indices() {
    for indices in [&[][..], &[0], &[0, 1, 2], &[1, 0], &[2], &[0, 0, 0], &[3, 1, 3, 0]] {
        let content = list_of_caps(PayloadKind::CallParams, indices);
        let received = payload(transfer(return_with(content, 4)));
        assert_eq!(indices_in(&received.content, 4), indices);
        let ids = received.descriptors.iter().map(|d| format!("{d:?}")).collect::<Vec<_>>();
        let all = (100..104).map(|id| format!("SenderHosted(ImportId({id}))")).collect::<Vec<_>>();
        assert_eq!(ids, all, "each descriptor once");
    }
}

#[test]
fn indices_in_nested_lists_are_kept() {
    let mut builder = ContentBuilder::new(PayloadKind::CallParams, None);
    let join: join::Builder<'_> = builder.content().init_as();
    let mut outer: capnp::list_list::Builder<
        '_,
        capnp::struct_list::Owned<crate::generated::rpc_capnp::bootstrap::Owned>,
    > = join.init_key_part().initn_as(3);
    for (i, index) in [(0, 5), (2, 1)] {
        let list = outer.reborrow().init(i, 2);
        crate::wire::testing::set_cap(list.get(1).init_deprecated_object_id(), index);
    }
    let received = payload(transfer(return_with(builder.freeze(), 6)));
    let table = cap_index::table(6);
    let mut root = received.content.reader().unwrap();
    root.imbue(&table);
    let join: join::Reader<'_> = root.get_as().unwrap();
    let outer: capnp::list_list::Reader<
        '_,
        capnp::struct_list::Owned<crate::generated::rpc_capnp::bootstrap::Owned>,
    > = join.get_key_part().get_as().unwrap();
    let at = |i: u32| cap_index::at(outer.get(i).unwrap().get(1).get_deprecated_object_id(), &[]).unwrap();
    assert_eq!((at(0), at(2)), (Some(5), Some(1)));
    assert_eq!(outer.get(1).unwrap().len(), 0);
}

#[test]
fn a_capability_beyond_the_descriptors_fails_the_copy() {
    let content = list_of_caps(PayloadKind::CallParams, &[1]);
    assert!(encode(return_with(content, 1)).is_err());
}

#[test]
fn what_is_only_received_is_not_sent() {
    let received = whole(receive(&encode(Message::Bootstrap { question: 1.into() }).unwrap()));
    assert!(encode(Message::Unknown(received.clone())).is_err());
    let mut ret = return_with(Content::null(), 0);
    if let Message::Return(ret) = &mut ret {
        ret.outcome = Outcome::Unknown(9, received);
    }
    assert!(encode(ret).is_err());
    let mut call = call(Target::ImportedCap(1.into()), false, false, false);
    call.params.descriptors.push(Descriptor::ThirdPartyHosted { vine: 1.into() });
    assert!(encode(Message::Call(call)).is_err());
}

#[test]
fn every_message_comes_back() {
    for (sent, again) in samples::<Outgoing>().into_iter().zip(samples::<Outgoing>()) {
        let there = whole(receive(&encode(sent).unwrap()));
        let Message::Unimplemented(back) = transfer(Message::Unimplemented(there)) else {
            panic!("not back")
        };
        assert_eq!(format!("{back:?}"), format!("{again:?}"));
    }
}

#[test]
fn calls_with_contents_come_back() {
    let there =
        whole(receive(&encode(call_with(list_of_caps(PayloadKind::CallParams, &[2, 0, 2]), 3)).unwrap()));
    let Message::Unimplemented(back) = transfer(Message::Unimplemented(there)) else { panic!("not back") };
    let Message::Call(back) = *back else { panic!("no call") };
    assert_eq!(back.params.descriptors, hosted(3));
    assert!(back.params.content.reader().unwrap().is_null());
}

#[test]
fn calls_with_bad_contents_come_back_in_outline() {
    let message = encode(call_with(list_of_caps(PayloadKind::CallParams, &[1, 0]), 2)).unwrap();
    let mut bytes = message.with_segments(|s| s[0].to_vec());
    let capability = (1u64 << 32 | 3).to_le_bytes();
    let at = bytes.chunks(8).position(|word| word == capability).unwrap();
    bytes[8 * at + 7] = 0xff;
    let Message::Unimplemented(back) = transfer(Message::Unimplemented(whole(receive_segments(&[&bytes]))))
    else {
        panic!("not back")
    };
    let Message::Call(back) = *back else { panic!("no call") };
    assert_eq!((back.question, back.method_id), (12.into(), 13));
}

#[test]
fn an_unimplemented_may_come_back_too() {
    let there = whole(receive(&encode(Message::Bootstrap { question: 1.into() }).unwrap()));
    let back = whole(receive(&encode(Message::Unimplemented(there)).unwrap()));
    let message = transfer(Message::Unimplemented(back));
    let Message::Unimplemented(inner) = message else { panic!("not back") };
    assert!(matches!(*inner, Message::Unimplemented(_)));
}

#[test]
fn a_shared_content_stays_readable() {
    let (content, _) = blob(PayloadKind::CallParams, 10);
    let kept = content.clone();
    // With different heads and tails around it.
    let first = encode(call_with(content, 0)).unwrap();
    let second = encode(call_with(kept.clone(), 3)).unwrap();
    assert_eq!(kept.reader().unwrap().get_as::<&[u8]>().unwrap(), [7; 10]);
    drop(kept);
    for (message, caps) in [(first, 0), (second, 3)] {
        let received = payload(decode(receive(&message)).unwrap());
        assert_eq!(received.descriptors.len(), caps);
        assert_eq!(received.content.reader().unwrap().get_as::<&[u8]>().unwrap(), [7; 10]);
    }
}
