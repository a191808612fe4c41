//! Tests of `pointer`: it says of a pointer what the `capnp` crate does.

use capnp::message::{Builder, HeapAllocator};
use proptest::prelude::*;

use super::*;
use crate::generated::rpc_capnp::{join, provide};
use crate::wire::testing::{set_cap, word};

const SIZE: StructSize = StructSize::new(3, 2);

#[test]
fn a_pointer_has_the_parts_that_it_was_made_of() {
    for (from, to) in [(0, 1), (5, 100), (100, 5), (7, 7)] {
        let pointer = Pointer::to_struct(from, to, SIZE);
        assert_eq!(pointer.kind(), PointerKind::Struct);
        assert_eq!((pointer.target(from), pointer.struct_size()), (Some(to), SIZE));
        for element in [ElementSize::Void, ElementSize::Byte, ElementSize::Pointer, ElementSize::Composite] {
            let pointer = Pointer::to_list(from, to, element, 9);
            assert_eq!(pointer.kind(), PointerKind::List);
            assert_eq!((pointer.target(from), pointer.element_size()), (Some(to), element));
            assert_eq!(pointer.element_count(), 9);
        }
    }
    let tag = Pointer::tag(12, SIZE);
    assert_eq!((tag.tag_count(), tag.struct_size()), (12, SIZE));
    assert_eq!(Pointer::to_capability(7).capability_index(), Some(7));
    assert_eq!(Pointer(7).capability_index(), None, "a pointer of unknown kind");
    assert_eq!(tag.capability_index(), None);
}

#[test]
fn a_pointer_to_before_its_segment_leads_nowhere() {
    let before = Pointer::to_struct(9, 0, SIZE);
    assert_eq!(before.target(9), Some(0));
    assert_eq!(before.target(8), None);
    assert_eq!(Pointer(u64::MAX).target(usize::MAX), Some(usize::MAX), "no overflow");
    assert_eq!(Pointer::to_struct(0, 2, SIZE).target(usize::MAX), None);
}

#[test]
fn a_word_beyond_its_segment_is_none() {
    let mut segment = [7; 2 * WORD + 5];
    let seven = u64::from_le_bytes([7; WORD]);
    assert_eq!((word_at(&segment, 1), word_at(&segment, 2)), (Some(seven), None));
    assert_eq!((words_at::<2>(&segment, 0), words_at::<2>(&segment, 1)), (Some([seven; 2]), None));
    for at in [usize::MAX, usize::MAX / WORD, usize::MAX / WORD + 1, usize::MAX / WORD + 2] {
        assert_eq!((word_at(&segment, at), words_at::<1>(&segment, at)), (None, None));
        assert_eq!(set_word(&mut segment, at, 0), None);
    }
    assert_eq!((set_word(&mut segment, 2, 0), set_word(&mut segment, 1, 1)), (None, Some(())));
    assert_eq!(word_at(&segment, 1), Some(1));
}

/// `join { keyPart = provide { recipient = capability 2 } }` in segments of so many words.
fn nested(segment_words: u32) -> Builder<HeapAllocator> {
    let allocator = HeapAllocator::new()
        .first_segment_words(segment_words)
        .allocation_strategy(capnp::message::AllocationStrategy::FixedSize);
    let mut message = Builder::new(allocator);
    let provide: provide::Builder<'_> = message.init_root::<join::Builder<'_>>().init_key_part().init_as();
    set_cap(provide.init_recipient(), 2);
    message
}

#[test]
fn far_pointers_are_followed_to_other_segments() {
    let mut counts = Vec::new();
    for segment_words in 1..20 {
        let message = nested(segment_words);
        let segments = message.get_segments_for_output();
        counts.push(segments.len());
        let mut at = WordPosition::ROOT;
        // The last pointer of each struct.
        for _ in 0..2 {
            let Some(Pointee::Struct { start, size }) = follow(&*segments, at) else { panic!("a struct") };
            assert_eq!(size, StructSize::new(1, 2));
            at = start.after(2);
        }
        assert_eq!(follow(&*segments, at), Some(Pointee::Capability(2)), "segments of {segment_words} words");
    }
    assert!(counts.contains(&1) && counts.iter().any(|count| *count > 2), "{counts:?}");
}

#[test]
fn a_far_pointer_to_no_pad_leads_nowhere() {
    let [far, double] = [2u64 | 1 << 3, 2 | 4 | 1 << 3];
    let capability = Pointer::to_capability(1).0;
    let followed = |words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        follow(&[bytes][..], WordPosition::ROOT)
    };
    let empty = Pointer::to_struct(0, 1, SIZE).0;
    assert!(matches!(followed(&[far, empty]), Some(Pointee::Struct { .. })));
    assert_eq!(followed(&[far, far]), None, "a far pointer that is the pad of another");
    assert_eq!(followed(&[far, capability]), None);
    assert_eq!(followed(&[far | 1 << 32, empty]), None, "another segment, which is not there");
    assert!(matches!(followed(&[double, far, empty]), Some(Pointee::Struct { .. })));
    assert_eq!(followed(&[double, far]), None, "half a pad");
    assert_eq!(followed(&[double, empty, empty]), None, "a pad that does not begin with a far pointer");
    assert_eq!(followed(&[double, far, far]), None);
}

proptest! {
    #[test]
    fn any_word_may_be_a_pointer(words in prop::collection::vec(word(), 0..9), at in any::<usize>()) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let segments = [&bytes[..], &bytes[..]];
        for word in (0..words.len()).chain([at]) {
            for segment in [0, 1, 2, u32::MAX] {
                let followed = follow(&segments[..], WordPosition { segment, word });
                prop_assert!(followed.is_none() || (segment < 2 && word < words.len()));
            }
        }
    }

    #[test]
    fn a_moved_pointer_leads_to_the_same_place(
        pointer in any::<u64>(),
        from in 0usize..1 << 29,
        to in 0usize..1 << 29,
    ) {
        let pointer = Pointer(pointer);
        if let Some(moved) = pointer.moved(from, to) {
            prop_assert!(!moved.is_null() || pointer.is_null());
            prop_assert_eq!((moved.kind(), moved.high()), (pointer.kind(), pointer.high()));
            if pointer.kind() != PointerKind::Other {
                let way = |at: usize, pointer: Pointer| at as i64 + i64::from(pointer.offset());
                prop_assert_eq!(way(to, moved), way(from, pointer));
            }
        }
    }
}

#[test]
fn a_pointer_that_would_lead_too_far_is_not_moved() {
    let far = |offset: i32| Pointer(u64::from((offset << 2) as u32) | 1 << 32);
    let low_half = |pointer: Pointer| Pointer(pointer.0 & 0xffff_ffff);
    assert_eq!(far((1 << 29) - 11).moved(10, 0), Some(far((1 << 29) - 1)));
    assert_eq!(far((1 << 29) - 10).moved(10, 0), None);
    assert_eq!(far(-(1 << 29)).moved(10, 0), Some(far(10 - (1 << 29))));
    assert_eq!(low_half(far(-10)).moved(10, 0), None, "it would be null");
    assert_eq!(low_half(far(-1)).moved(10, 0), Some(Pointer(9 << 2)), "an empty struct");
    assert_eq!(Pointer(2 | 5 << 32).moved(10, 0), None, "a far pointer");
    assert_eq!(Pointer::to_capability(5).moved(10, 0), Some(Pointer::to_capability(5)));
    assert_eq!(Pointer(7 | 5 << 32).moved(10, 0), None, "a pointer of unknown kind");
}
