//! The paths of pointer fields that lead to capabilities in a content.
//!
//! The `capnp` crate follows such a path only with a table that has a hook for each capability of the message. Here the
//! pointers themselves are followed, so that the cost does not depend on the size of the table.

use capnp::message::ReaderSegments;

use super::message::{Path, MAX_STEPS};
use super::pointer::{follow, Pointee, WordPosition};
use crate::error::Exception;

/// The paths of pointer fields that lead to capabilities, in order, each with the capability's index in the table.
pub(crate) type CapPaths = Vec<(Path, u32)>;

/// Finds the capabilities that paths of pointer fields lead to. Those in lists are left out: no path leads there.
///
/// The content is what the first pointer of the root struct points at. `None` if a pointer leads out of the message.
pub(super) fn find(segments: &impl ReaderSegments) -> Option<CapPaths> {
    let Pointee::Struct { start, size } = follow(segments, WordPosition::ROOT)? else { return None };
    let mut found = CapPaths::new();
    // Pointers that have not been looked at, each with the number of steps before it and the last of its path.
    let mut left = vec![(start.after(size.data()), 0usize, 0u16)];
    let mut path: Vec<u16> = Vec::new();
    while let Some((at, steps, field)) = left.pop() {
        path.truncate(steps.saturating_sub(1));
        if steps > 0 {
            path.push(field);
        }
        match follow(segments, at)? {
            Pointee::Capability(index) => found.push((path[..].into(), index)),
            // A longer path is followed by no reader of a content.
            Pointee::Struct { start, size } if steps < MAX_STEPS => {
                let pointers = start.after(size.data());
                let fields = (0..=u16::MAX).take(size.pointers());
                left.extend(fields.map(|i| (pointers.after(usize::from(i)), steps + 1, i)));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    Some(found)
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
    let mut at = WordPosition::ROOT;
    for field in path {
        match follow(segments, at).ok_or_else(malformed)? {
            Pointee::Null => return Ok(None),
            Pointee::Struct { size, .. } if usize::from(field) >= size.pointers() => return Ok(None),
            Pointee::Struct { start, size } => at = start.after(size.data() + usize::from(field)),
            _ => return Err(Exception::failed("a pointer to no struct")),
        }
    }
    match follow(segments, at).ok_or_else(malformed)? {
        Pointee::Null => Ok(None),
        Pointee::Capability(index) => Ok(Some(index)),
        _ => Err(Exception::failed("a pointer to no capability")),
    }
}

fn malformed() -> Exception {
    Exception::failed("a pointer that is malformed, or leads out of the message")
}

/// The index of the capability at a path, if there is one.
pub(crate) fn index_at(paths: &CapPaths, path: &[u16]) -> Option<usize> {
    let found = paths.binary_search_by(|(known, _)| known[..].cmp(path)).ok()?;
    Some(paths[found].1 as usize)
}

#[cfg(test)]
mod tests;
