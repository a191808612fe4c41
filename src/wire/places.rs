//! Where the capabilities of a content stand that was built here.

use capnp::message::ReaderSegments;

use super::envelope::{LIST, STRUCT};
use super::message::Path;
use crate::error::Exception;

/// The paths of pointer fields that lead to capabilities, in order, each with the capability's index in the table.
pub(crate) type Places = Vec<(Path, u32)>;

/// Capabilities and far pointers, by the lowest two bits of a pointer.
const FAR: u64 = 2;
const CAPABILITY: u64 = 3;

/// How deep a path may lead: more than whoever reads a content follows.
const MOST_STEPS: usize = 64;

/// A word of a message: its segment, and its number there.
#[derive(Clone, Copy)]
struct At(usize, usize);

/// Finds the capabilities that paths of pointer fields lead to. Those in lists are left out: no path leads there.
///
/// The content is what the first pointer of the root struct points at. `None` if a pointer leads out of the message.
pub(super) fn find(segments: &impl ReaderSegments) -> Option<Places> {
    let Struct { pointers, .. } = follow(segments, At(0, 0))?;
    let mut places = Places::new();
    // Pointers that have not been looked at, each with the number of steps before it and the last of its path.
    let mut left = vec![(pointers, 0usize, 0u16)];
    let mut path: Vec<u16> = Vec::new();
    while let Some((at, steps, field)) = left.pop() {
        path.truncate(steps.saturating_sub(1));
        if steps > 0 {
            path.push(field);
        }
        let pointer = get(segments, at)?;
        match pointer & 3 {
            CAPABILITY => places.push((path[..].into(), (pointer >> 32) as u32)),
            STRUCT | FAR if pointer != 0 && steps < MOST_STEPS => {
                // A far pointer may be that of a list, which holds nothing for us.
                let Some(Struct { pointers: At(segment, start), count }) = follow(segments, at) else {
                    continue;
                };
                left.extend((0..count).map(|i| (At(segment, start + usize::from(i)), steps + 1, i)));
            }
            _ => {}
        }
    }
    places.sort_unstable();
    Some(places)
}

/// Follows pointer fields from the root of a message to a capability, and gives its index in the table. `None` if a
/// pointer on the way, or the last, is null. The cost does not depend on how large the table or the message is.
///
/// # Errors
///
/// If something on the way is no struct, what is at the end no capability, or the way leads out of the message.
pub(super) fn index_in(
    segments: &impl ReaderSegments,
    path: impl Iterator<Item = u16>,
) -> Result<Option<u32>, Exception> {
    let mut at = At(0, 0);
    for field in path {
        let pointer = get(segments, at).ok_or_else(outside)?;
        if pointer == 0 {
            return Ok(None);
        }
        let Struct { pointers: At(segment, start), count } =
            follow(segments, at).ok_or_else(|| Exception::failed("a pointer to no struct"))?;
        if field >= count {
            return Ok(None);
        }
        at = At(segment, start + usize::from(field));
    }
    match get(segments, at).ok_or_else(outside)? {
        0 => Ok(None),
        pointer if pointer as u32 == CAPABILITY as u32 => Ok(Some((pointer >> 32) as u32)),
        _ => Err(Exception::failed("a pointer to no capability")),
    }
}

fn outside() -> Exception {
    Exception::failed("a pointer out of the message")
}

/// The index of the capability at a path, if there is one.
pub(crate) fn index_at(places: &Places, path: &[u16]) -> Option<usize> {
    let found = places.binary_search_by(|(place, _)| place[..].cmp(path)).ok()?;
    Some(places[found].1 as usize)
}

/// Where the pointers of a struct are, and how many.
struct Struct {
    pointers: At,
    count: u16,
}

/// The struct that a pointer leads to, if it leads to one.
fn follow(segments: &impl ReaderSegments, at: At) -> Option<Struct> {
    let pointer = get(segments, at)?;
    let (start, pointer) = match pointer & 3 {
        FAR => {
            let pad = At((pointer >> 32) as usize, (pointer as u32 >> 3) as usize);
            let first = get(segments, pad)?;
            match pointer & 4 {
                0 => (target(pad, first)?, first),
                // The pad is a far pointer to the start, and behind it a tag with the sizes.
                _ => {
                    let start = At((first >> 32) as usize, (first as u32 >> 3) as usize);
                    (start, get(segments, At(pad.0, pad.1 + 1))?)
                }
            }
        }
        LIST | CAPABILITY => return None,
        _ => (target(at, pointer)?, pointer),
    };
    let data = (pointer >> 32) as u16 as usize;
    (pointer & 3 == STRUCT)
        .then(|| Struct { pointers: At(start.0, start.1 + data), count: (pointer >> 48) as u16 })
}

/// Where a pointer that is not far leads to.
fn target(At(segment, word): At, pointer: u64) -> Option<At> {
    let offset = (pointer as u32 as i32) >> 2;
    Some(At(segment, (word + 1).checked_add_signed(offset as isize)?))
}

fn get(segments: &impl ReaderSegments, At(segment, word): At) -> Option<u64> {
    let bytes = segments.get_segment(u32::try_from(segment).ok()?)?.get(word * 8..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
