//! Tests of `remap_caps`: the `capnp` crate's readers see the same message with other indices.

use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions, SegmentArray};
use capnp::traits::Imbue;
use proptest::prelude::*;

use super::*;
use crate::generated::rpc_capnp::{bootstrap, join};
use crate::wire::cap_index;
use crate::wire::testing::{set_cap, word};

/// How many indices there are.
const CAPS: u32 = 5;

/// A tree of all that pointers lead to.
#[derive(Clone, Debug)]
enum Tree {
    Null,
    Cap(u32),
    Bytes(Vec<u8>),
    Struct(Box<Tree>),
    ListOfStructs(Vec<Tree>),
    ListOfPointers(Vec<u32>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        (0..CAPS).prop_map(Tree::Cap),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Tree::Bytes),
        prop::collection::vec(0..CAPS, 0..5).prop_map(Tree::ListOfPointers),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Tree::Struct(Box::new(inner))),
            prop::collection::vec(inner, 0..4).prop_map(Tree::ListOfStructs),
        ]
    })
}

fn build(to: any_pointer::Builder<'_>, tree: &Tree) {
    match tree {
        Tree::Null => {}
        Tree::Cap(index) => set_cap(to, *index),
        Tree::Bytes(bytes) => {
            to.initn_as::<capnp::data::Builder<'_>>(bytes.len() as u32).copy_from_slice(bytes)
        }
        Tree::Struct(inner) => build(to.init_as::<join::Builder<'_>>().init_key_part(), inner),
        Tree::ListOfStructs(elements) => {
            let mut list: capnp::struct_list::Builder<'_, bootstrap::Owned> =
                to.initn_as(elements.len() as u32);
            for (i, element) in (0..).zip(elements) {
                build(list.reborrow().get(i).init_deprecated_object_id(), element);
            }
        }
        Tree::ListOfPointers(indices) => {
            let mut list: capnp::any_pointer_list::Builder<'_> = to.initn_as(indices.len() as u32);
            for (i, index) in (0..).zip(indices) {
                set_cap(list.reborrow().get(i), *index);
            }
        }
    }
}

/// A message as the `capnp` crate reads it: a copy, in which indices count the pointers met, and the index of each of these.
fn read(segment: &[u8]) -> capnp::Result<(Vec<u8>, Vec<u32>)> {
    let table = cap_index::table(1 << 8);
    let options = ReaderOptions { traversal_limit_in_words: Some(1 << 16), nesting_limit: 64 };
    let segments = [segment];
    let reader = Reader::new(SegmentArray::new(&segments), options);
    let mut root: any_pointer::Reader<'_> = reader.get_root()?;
    root.imbue(&table);
    let mut copy = Builder::new(HeapAllocator::new());
    let indices = cap_index::copy(root, copy.init_root(), 1 << 8)?;
    Ok((copy.get_segments_for_output().concat(), indices))
}

proptest! {
    #[test]
    fn all_indices_are_replaced_and_nothing_else(tree in tree(), indices in prop::array::uniform5(0u32..1 << 8)) {
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(4096));
        build(message.init_root(), &tree);
        let segments = message.get_segments_for_output();
        prop_assert_eq!(segments.len(), 1);
        let remapped = remap_caps(segments[0], &indices).unwrap();
        let (words, before) = read(segments[0]).unwrap();
        let expected: Vec<u32> = before.iter().map(|index| indices[*index as usize]).collect();
        prop_assert_eq!(read(Word::words_to_bytes(&remapped)).unwrap(), (words, expected));
    }

    #[test]
    fn random_words_are_harmless(words in prop::collection::vec(word(), 0..60)) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Some(remapped) = remap_caps(&bytes, &[7; 8]) {
            prop_assert_eq!(remapped.len(), words.len());
        }
    }
}

#[test]
fn a_segment_that_is_no_message_of_its_own_is_refused() {
    let remap = |words: &[u64], indices: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        remap_caps(&bytes, indices).map(|words| Word::words_to_bytes(&words).to_vec())
    };
    let [capability, other] = [0, 9].map(Pointer::to_capability);
    assert_eq!(remap(&[capability.0], &[9]), Some(other.0.to_le_bytes().to_vec()));
    assert_eq!(remap(&[], &[]), None, "no root");
    assert_eq!(remap(&[2], &[]), None, "a far pointer");
    assert_eq!(remap(&[capability.0], &[]), None, "an index beyond the table");
    assert_eq!(remap(&[7], &[0]), None, "a pointer of unknown kind");
    let two_pointers = StructSize::new(0, 2);
    assert_eq!(remap(&[Pointer::to_struct(0, 1, two_pointers).0], &[]), None, "out of the segment");
    let immense = Pointer::to_list(0, 1, ElementSize::Pointer, (1 << 29) - 1);
    assert_eq!(remap(&[immense.0, 0], &[]), None, "a list that is larger than the segment");
    let itself = Pointer::to_struct(0, 0, StructSize::new(0, 1));
    assert_eq!(remap(&[itself.0], &[]), None, "no tree");
}
