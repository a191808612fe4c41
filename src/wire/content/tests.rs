//! Tests of `content`.

use capnp::Word;

use super::*;
use crate::generated::rpc_capnp::{bootstrap, exception, join, provide};
use crate::limits::MOST_NESTING;
use crate::sync::{spawn, Role};
use crate::wire::testing::{indices_in, list_of_caps, set_cap};

/// `join { target = null, keyPart = provide { recipient = capability 2 } }`
fn nested() -> Content {
    let mut builder = ContentBuilder::new(PayloadKind::CallParams, None);
    let join: join::Builder<'_> = builder.content().init_as();
    let provide: provide::Builder<'_> = join.init_key_part().init_as();
    set_cap(provide.init_recipient(), 2);
    builder.freeze()
}

#[test]
fn null_content_has_nothing() {
    let content = Content::null();
    assert!(content.reader().unwrap().is_null());
    assert_eq!(content.words(), 0);
    assert_eq!(content.cap_index_at(&[], 0), Ok(None));
    assert_eq!(content.cap_index_at(&[1, 2], 3), Ok(None));
}

#[test]
fn building_goes_on_where_it_was() {
    for place in [PayloadKind::CallParams, PayloadKind::ReturnResults] {
        let mut builder = ContentBuilder::new(place, Some(MessageSize { word_count: 4, cap_count: 1 }));
        assert!(builder.content().is_null());
        builder.content().init_as::<exception::Builder<'_>>().set_reason("first");
        let words = builder.words();
        let mut again: exception::Builder<'_> = builder.content().get_as().unwrap();
        again.set_obsolete_durability(7);
        assert_eq!(builder.words(), words);
        let content = builder.freeze();
        let read: exception::Reader<'_> = content.reader().unwrap().get_as().unwrap();
        assert_eq!(read.get_reason().unwrap(), "first");
        assert_eq!(read.get_obsolete_durability(), 7);
    }
}

#[test]
fn hint_sizes_the_first_segment() {
    let mut builder =
        ContentBuilder::new(PayloadKind::ReturnResults, Some(MessageSize { word_count: 5000, cap_count: 0 }));
    builder.content().initn_as::<capnp::data::Builder<'_>>(39_000);
    assert_eq!(builder.0.message.get_segments_for_output().len(), 1);
}

#[test]
fn immense_hints_are_harmless() {
    let size = MessageSize { word_count: u64::MAX, cap_count: u32::MAX };
    let mut builder = ContentBuilder::new(PayloadKind::CallParams, Some(size));
    builder.content().init_as::<exception::Builder<'_>>();
}

#[test]
fn paths_lead_to_indices() {
    let content = nested();
    assert_eq!(content.cap_index_at(&[1, 1], 3), Ok(Some(2)));
    assert_eq!(content.cap_index_at(&[0, 5], 3), Ok(None), "through a null pointer");
    assert_eq!(content.cap_index_at(&[9], 3), Ok(None), "past the pointers there are");
    assert!(content.cap_index_at(&[1, 1], 2).is_err(), "past the table");
    assert!(content.cap_index_at(&[1], 3).is_err(), "a struct");
    assert!(content.cap_index_at(&[], 3).is_err(), "a struct");
    assert!(content.cap_index_at(&[1, 1, 0], 3).is_err(), "through a capability");
}

/// In a debug build, this would take minutes if the capabilities were looked through each time.
#[test]
fn following_a_path_does_not_cost_more_the_more_capabilities_there_are() {
    let content = nested();
    for _ in 0..100_000 {
        assert_eq!(content.cap_index_at(&[1, 1], 1 << 20), Ok(Some(2)));
    }
}

#[test]
fn lists_are_no_way() {
    let content = list_of_caps(PayloadKind::CallParams, &[0]);
    assert!(content.cap_index_at(&[0], 1).is_err());
    assert_eq!(indices_in(&content, 1), [0]);
}

#[test]
fn a_capability_may_be_the_root() {
    let mut builder = ContentBuilder::new(PayloadKind::ReturnResults, None);
    set_cap(builder.content(), 0);
    assert_eq!(builder.freeze().cap_index_at(&[], 1), Ok(Some(0)));
}

#[test]
fn debug_shows_no_content() {
    let mut builder = ContentBuilder::new(PayloadKind::CallParams, None);
    let bootstrap: bootstrap::Builder<'_> = builder.content().init_as();
    bootstrap.init_deprecated_object_id().set_as::<capnp::text::Owned>("secret").unwrap();
    let shown = format!("{builder:?}");
    let shown = format!("{shown} {:?}", builder.freeze());
    assert!(!shown.contains("secret"), "{shown}");
}

/// A hundred pointers to one text: to send it on takes a hundred times as much.
#[test]
fn a_copy_that_is_much_larger_than_what_was_received_is_refused() {
    const POINTERS: u64 = 100;
    const TEXT_WORDS: u64 = 100;
    // A list of pointers, of which each leads to the same bytes behind them.
    let list = 1 | (6 << 32) | (POINTERS << 35);
    let text = |n: u64| 1 | ((POINTERS - n - 1) << 2) | (2 << 32) | ((8 * TEXT_WORDS) << 35);
    let words = std::iter::once(list).chain((0..POINTERS).map(text)).chain((0..TEXT_WORDS).map(|_| 7));
    let words: Vec<_> = words.map(|word| word.to_le_bytes()).collect();
    let mut memory = Word::allocate_zeroed_vec(words.len());
    Word::words_to_bytes_mut(&mut memory).copy_from_slice(words.as_flattened());
    let content = Content::lifted(Frame::new(memory, [words.len()]), &Limits::default());
    let most = (POINTERS * TEXT_WORDS) as usize;
    let why = content.copy_received(PayloadKind::CallParams, 0, most).unwrap_err();
    assert_eq!(why.reason(), format!("a message of {} words, where {most} are allowed", 101 * POINTERS));
    let (copy, _) = content.copy_received(PayloadKind::CallParams, 0, 2 * most).unwrap().unwrap();
    assert!(copy.words() > most);
}

/// A message whose content nests this deep, as this shape.
fn deep(shape: &str, depth: usize) -> Frame {
    let step: &[[u8; 8]] = match shape {
        "structs" => &[[0, 0, 0, 0, 0, 0, 1, 0]],
        "pointers" => &[[1, 0, 0, 0, 0x0e, 0, 0, 0]],
        "composite" => &[[1, 0, 0, 0, 0x0f, 0, 0, 0], [4, 0, 0, 0, 0, 0, 1, 0]],
        _ => unreachable!(),
    };
    let mut words: Vec<Word> = Vec::new();
    for _ in 0..depth {
        words.extend(step.iter().map(|b| capnp::word(b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7])));
    }
    words.push(capnp::word(0, 0, 0, 0, 0, 0, 0, 0));
    let len = words.len();
    Frame::new(words, [len])
}

/// What recurses with a content (the `capnp` crate's measuring and copying) has room on the stack of a thread of ours.
#[test]
fn a_content_that_nests_as_deep_as_any_limit_allows_is_copied() {
    let limits = Limits { nesting: MOST_NESTING, ..Limits::default() };
    for shape in ["structs", "pointers", "composite"] {
        let limits = limits.clone();
        let body = move || {
            let most = (MOST_NESTING - fast_decode::LEVELS) as usize;
            let copies = |depth| {
                let content = Content::lifted(deep(shape, depth), &limits);
                content.copy_received(PayloadKind::CallParams, 0, 1 << 20)
            };
            let deepest = (1..2 * most).rev().find(|depth| copies(*depth).is_ok());
            assert!(deepest.is_some_and(|deepest| deepest >= most / 2 - 1), "{shape}: {deepest:?}");
        };
        spawn("copies", Role::User, body).unwrap().join().unwrap();
    }
}
