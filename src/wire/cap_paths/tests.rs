//! Tests of `cap_paths`.

use super::*;
use crate::generated::rpc_capnp::{join, provide};
use crate::wire::content::{Content, ContentBuilder, PayloadKind};
use crate::wire::testing::{list_of_caps, set_cap};

fn paths_in(content: &Content) -> Vec<(Vec<u16>, u32)> {
    let paths = content.cap_paths().unwrap();
    paths.iter().map(|(path, index)| (path.to_vec(), *index)).collect()
}

/// `join { target = null, keyPart = provide { recipient = capability 2 } }`, with so much data besides, which may need
/// another segment.
fn nested(data: u32) -> Content {
    let mut builder = ContentBuilder::with_room(PayloadKind::ReturnResults, 4);
    let mut join: join::Builder<'_> = builder.content().init_as();
    join.reborrow().init_target().init_promised_answer().init_transform(data);
    let provide: provide::Builder<'_> = join.init_key_part().init_as();
    set_cap(provide.init_recipient(), 2);
    builder.freeze()
}

#[test]
fn a_content_that_is_a_capability_has_it_at_the_empty_path() {
    let mut builder = ContentBuilder::new(PayloadKind::ReturnResults, None);
    set_cap(builder.content(), 7);
    assert_eq!(paths_in(&builder.freeze()), [(vec![], 7)]);
}

#[test]
fn a_capability_is_found_where_paths_lead_to_it_in_any_segment() {
    for data in [0, 1, 10, 100, 1000, 10_000] {
        let content = nested(data);
        assert_eq!(paths_in(&content), [(vec![1, 1], 2)], "beside {data} words");
        let found = content.cap_paths().unwrap();
        for path in [&[][..], &[0], &[1], &[1, 0], &[1, 1], &[1, 1, 0], &[2]] {
            let index = content.cap_index_at(path, 3).ok().flatten().map(|index| index as usize);
            assert_eq!(index_at(&found, path), index, "{path:?}");
        }
    }
}

/// No path leads into a list.
#[test]
fn capabilities_in_lists_are_left_out() {
    assert_eq!(paths_in(&list_of_caps(PayloadKind::ReturnResults, &[2, 0, 1])), []);
}

/// A message that was received is not looked through: its content is kept.
#[test]
fn paths_are_known_of_what_was_built_alone() {
    assert!(Content::null().cap_paths().is_none());
}
