//! Tests of `decode`.

use capnp::message::Builder;
use capnp::traits::Imbue;
use capnp::Word;
use proptest::prelude::*;

use super::*;
use crate::wire::cap_index;
use crate::wire::encode::encode;
use crate::wire::frame::{Frame, Outbound};
use crate::wire::testing::{call, decode, list_of_caps, receive, receive_segments, samples, whole, word};

/// Decodes a message that was written with the generated code.
fn decode_built(write: impl FnOnce(message::Builder<'_>)) -> Result<Message<Incoming>, ProtocolError> {
    let mut message = Builder::new_default();
    write(message.init_root());
    decode(receive(&Outbound::from(message)))
}

fn assert_unknown(write: impl FnOnce(message::Builder<'_>)) {
    let message = decode_built(write).unwrap();
    assert!(matches!(message, Message::Unknown(_)), "{message:?}");
}

fn assert_malformed(result: Result<Message<Incoming>, ProtocolError>) {
    assert!(matches!(result, Err(ProtocolError::Malformed(_))), "{result:?}");
}

/// The message with the word that has this value replaced. There must be just one.
fn replaced(write: impl FnOnce(message::Builder<'_>), old: u64, new: u64) -> Frame {
    let mut message = Builder::new_default();
    write(message.init_root());
    let mut bytes = message.get_segments_for_output()[0].to_vec();
    let places: Vec<_> = (0..bytes.len() / 8).filter(|i| bytes[i * 8..][..8] == old.to_le_bytes()).collect();
    assert_eq!(places.len(), 1, "{old:#x} in {bytes:x?}");
    bytes[places[0] * 8..][..8].copy_from_slice(&new.to_le_bytes());
    receive_segments(&[&bytes])
}

#[test]
fn messages_of_other_levels_are_unknown() {
    assert_unknown(|m| {
        m.init_provide();
    });
    assert_unknown(|m| {
        m.init_accept();
    });
    assert_unknown(|m| {
        m.init_third_party_answer();
    });
    assert_unknown(|m| {
        m.init_join();
    });
    assert_unknown(|m| {
        m.init_obsolete_save();
    });
    assert_unknown(|m| {
        m.init_obsolete_delete();
    });
    assert_unknown(|m| m.init_disembargo().init_context().set_accept(b"id"));
    assert_unknown(|m| {
        m.init_call().init_send_results_to().init_third_party();
    });
}

#[test]
fn messages_of_the_future_are_unknown() {
    let message =
        receive_segments(&[&[0, 0, 0, 0, 1, 0, 1, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
    assert!(matches!(decode(message), Ok(Message::Unknown(_))));
}

#[test]
fn unknown_variants_that_matter_make_the_message_unknown() {
    // A target: its discriminant is the upper half of the word that the ID begins.
    let write = |m: message::Builder<'_>| m.init_call().init_target().set_imported_cap(0xabcd);
    assert!(matches!(decode(replaced(write, 0xabcd, 0xabcd | 7 << 32)), Ok(Message::Unknown(_))));
    // A step of a path.
    let write = |m: message::Builder<'_>| {
        let mut ops = m.init_call().init_target().init_promised_answer().init_transform(1);
        ops.reborrow().get(0).set_get_pointer_field(0x55);
    };
    let step = 1 | 0x55 << 16;
    assert!(matches!(decode(replaced(write, step, step | 2)), Ok(Message::Unknown(_))));
    // A resolution.
    let write = |m: message::Builder<'_>| {
        let mut resolve = m.init_resolve();
        resolve.set_promise_id(0x77);
        resolve.init_exception();
    };
    assert!(matches!(decode(replaced(write, 0x77 | 1 << 32, 0x77 | 9 << 32)), Ok(Message::Unknown(_))));
}

#[test]
fn unknown_descriptors_are_single() {
    let write = |m: message::Builder<'_>| {
        let mut table = m.init_call().init_params().init_cap_table(2);
        table.reborrow().get(0).set_sender_hosted(0x1234);
        table.reborrow().get(1).set_sender_hosted(0x5678);
    };
    // The default of `attachedFd` is all ones, and stored inverted: as zero.
    let word = 1 | 0x1234 << 32;
    let Ok(Message::Call(call)) = decode(replaced(write, word, word + 10)) else { panic!("no call") };
    assert_eq!(*call.params.descriptors, [Descriptor::Unknown(11), Descriptor::SenderHosted(0x5678.into())]);
}

#[test]
fn third_parties_offer_a_vine() {
    let message = decode_built(|m| {
        let table = m.init_call().init_params().init_cap_table(1);
        table.get(0).init_third_party_hosted().set_vine_id(3);
    });
    let Ok(Message::Call(call)) = message else { panic!("no call") };
    assert_eq!(*call.params.descriptors, [Descriptor::ThirdPartyHosted { vine: 3.into() }]);
}

#[test]
fn unknown_outcomes_say_which() {
    let message = decode_built(|m| {
        m.init_return().init_await_from_third_party();
    });
    let Ok(Message::Return(ret)) = message else { panic!("no return") };
    assert!(matches!(ret.outcome, Outcome::Unknown(5, _)));
}

#[test]
fn unknown_kinds_of_exception_are_failures() {
    let write = |m: message::Builder<'_>| {
        m.init_abort().set_type(exception::Type::Overloaded);
    };
    let Ok(Message::Abort(e)) = decode(replaced(write, 1 << 32, 77 << 32)) else { panic!("no abort") };
    assert_eq!(e.kind(), ExceptionKind::Failed);
}

#[test]
fn unknown_messages_come_back_as_such() {
    let message = decode_built(|m| {
        m.init_unimplemented().init_join();
    });
    let Ok(Message::Unimplemented(inner)) = message else { panic!("not back") };
    assert!(matches!(*inner, Message::Unknown(_)));
}

#[test]
fn defaults_are_the_schemas() {
    let Ok(Message::Finish(finish)) = decode_built(|m| {
        m.init_finish();
    }) else {
        panic!("no finish")
    };
    assert!(finish.release_result_caps && finish.cancel_after_delivery);
    let Ok(Message::Return(ret)) = decode_built(|m| {
        m.init_return();
    }) else {
        panic!("no return")
    };
    assert!(ret.release_param_caps && !ret.no_finish_needed);
}

#[test]
fn noops_are_left_out_of_paths() {
    let message = decode_built(|m| {
        let mut ops = m.init_call().init_target().init_promised_answer().init_transform(3);
        ops.reborrow().get(1).set_get_pointer_field(6);
    });
    let Ok(Message::Call(Call { target: Target::PromisedAnswer(answer), .. })) = message else {
        panic!("no call")
    };
    assert_eq!(*answer.path, [6]);
}

#[test]
fn long_paths_are_malformed() {
    let with_steps = |count| {
        decode_built(|m| {
            m.init_call().init_target().init_promised_answer().init_transform(count);
        })
    };
    assert!(with_steps(64).is_ok());
    assert_malformed(with_steps(65));
}

#[test]
fn tables_larger_than_the_message_are_malformed() {
    // A list of empty structs, whose length is only claimed.
    let mut message = Builder::new_default();
    message.init_root::<message::Builder<'_>>().init_call().init_params().init_cap_table(0x123);
    let mut bytes = message.get_segments_for_output()[0].to_vec();
    let tag = (0x123u64 << 2 | 1 << 32 | 1 << 48).to_le_bytes();
    let at = bytes.chunks(8).position(|word| word == tag).unwrap() * 8;
    bytes[at..][..8].copy_from_slice(&(0x4000u64 << 2).to_le_bytes());
    let what = "table of capabilities: larger than the message".to_string();
    assert_eq!(decode(receive_segments(&[&bytes])).err(), Some(ProtocolError::Malformed(what)));
}

#[test]
fn details_larger_than_the_message_are_malformed() {
    // Many details that all point to the same data.
    let mut message = Builder::new_default();
    let mut details = message.init_root::<message::Builder<'_>>().init_abort().init_details(100);
    details.reborrow().get(99).init_data(800);
    let mut bytes = message.get_segments_for_output()[0].to_vec();
    let words = bytes.len() / 8;
    let last = words - 101;
    for i in 1..100 {
        let pointer = (i * 2u64) << 2 | 1 | 2 << 32 | 800 << 35;
        let at = last - 2 * i as usize;
        bytes[at * 8..][..8].copy_from_slice(&pointer.to_le_bytes());
    }
    let result = decode(receive_segments(&[&bytes]));
    let what = "details of an exception: larger than the message".to_string();
    assert_eq!(result.err(), Some(ProtocolError::Malformed(what)));
}

#[test]
fn texts_may_be_anything() {
    let message = decode_built(|m| m.init_abort().init_reason(3).clear());
    let Ok(Message::Abort(e)) = message else { panic!("no abort") };
    assert_eq!(e.reason(), "\0\0\0");
    let mut message = Builder::new_default();
    message.init_root::<message::Builder<'_>>().init_abort().set_reason("abcdefg");
    let mut bytes = message.get_segments_for_output()[0].to_vec();
    let at = bytes.windows(7).position(|w| w == b"abcdefg").unwrap();
    bytes[at] = 0xff;
    let Ok(Message::Abort(e)) = decode(receive_segments(&[&bytes])) else { panic!("no abort") };
    assert_eq!(e.reason(), "\u{fffd}bcdefg");
}

#[test]
fn no_message_is_malformed() {
    assert_malformed(decode(receive_segments(&[])));
    assert_malformed(decode(receive_segments(&[&[]])));
    // An empty one is `unimplemented`, of an `unimplemented`: the defaults of the schema.
    assert!(matches!(decode(receive_segments(&[&[0; 8]])), Ok(Message::Unimplemented(_))));
}

/// Does everything with a message that the program may do.
fn exercise(message: &dyn Fn() -> Frame) {
    let _ = encode(Message::Unimplemented(whole(message())));
    use_up(decode(message()));
    use_up(decode_plain(whole(message())));
}

fn use_up(message: Result<Message<Incoming>, ProtocolError>) {
    let Ok(message) = message else { return };
    let _ = format!("{message:?}");
    let payload = match message {
        Message::Call(Call { params, .. }) => params,
        Message::Return(Return { outcome: Outcome::Results(results), .. }) => results,
        _ => return,
    };
    let caps = payload.descriptors.len();
    for path in [&[][..], &[0], &[1, 0], &[0, 0, 0, 0]] {
        let (found, table) = (payload.content.cap_index_at(path, caps), cap_index::table(caps));
        let by_table = payload.content.reader().and_then(|mut root| {
            root.imbue(&table);
            cap_index::at(root, path)
        });
        if let Ok(index) = by_table {
            assert_eq!(found, Ok(index), "{path:?}");
        }
    }
    let descriptors = (0..caps).map(|_| Descriptor::None).collect();
    let mut call = call(Target::ImportedCap(1.into()), false, false, false);
    call.params = Payload { content: payload.content, descriptors };
    let _ = encode(Message::Call(call));
}

/// All samples, and some messages with a content.
fn messages() -> Vec<Message<Outgoing>> {
    let mut messages = samples();
    for indices in [&[0][..], &[1, 0, 3], &[4, 4]] {
        let mut call = call(Target::ImportedCap(1.into()), false, false, false);
        call.params.content = list_of_caps(PayloadKind::CallParams, indices);
        messages.push(Message::Call(call));
    }
    messages
}

fn received(words: &[u64], segments: &[usize]) -> Frame {
    let mut buffer = Word::allocate_zeroed_vec(words.len());
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    Word::words_to_bytes_mut(&mut buffer).copy_from_slice(&bytes);
    Frame::new(buffer, segments.iter().copied())
}

proptest! {
    #[test]
    fn random_words_are_harmless(
        words in prop::collection::vec(word(), 0..60),
        segments in prop::collection::vec(0usize..40, 0..4),
    ) {
        exercise(&|| received(&words, &segments));
    }

    #[test]
    fn damaged_messages_are_harmless(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), word()), 1..4),
    ) {
        let mut messages = messages();
        let index = which.index(messages.len());
        let message = encode(messages.swap_remove(index)).unwrap();
        let mut words: Vec<u64> = message.with_segments(|s| {
            s.concat().chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
        });
        for (at, word) in damage {
            let at = at.index(words.len());
            words[at] = word;
        }
        let len = words.len();
        exercise(&|| received(&words, &[len]));
    }

    #[test]
    fn one_bit_off_is_harmless(which in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let mut messages = messages();
        let index = which.index(messages.len());
        let message = encode(messages.swap_remove(index)).unwrap();
        let mut bytes = message.with_segments(|s| s.concat());
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        exercise(&|| receive_segments(&[&bytes]));
    }
}
