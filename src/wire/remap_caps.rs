//! New indices for the capability pointers of a message that was built here.

use capnp::Word;

use super::pointer::{set_word, word_at, ElementSize, Pointer, PointerKind, StructSize, WORD};

/// Replaces the index of each capability pointer in a message of one segment by the entry that `indices` has for it. See
/// Note [Copies keep indices].
///
/// `None` if the segment is no message of its own (a far pointer, or one out of the segment), if it is no tree (more
/// pointers than words are met), or if it has an index beyond `indices`. Messages that the `capnp` crate has built into one
/// segment are trees.
pub(super) fn remap_caps(segment: &[u8], indices: &[u32]) -> Option<Vec<Word>> {
    let mut words = Word::allocate_zeroed_vec(segment.len() / WORD);
    let room = words.len();
    let message = Word::words_to_bytes_mut(&mut words);
    message.copy_from_slice(segment);
    let mut left = PointersLeft { positions: vec![0], met: 1, room };
    while let Some(at) = left.positions.pop() {
        let pointer = Pointer(word_at(message, at)?);
        match pointer.kind() {
            PointerKind::Struct if pointer.is_null() => {}
            PointerKind::Struct => left.push_fields(pointer.target(at)?, pointer.struct_size())?,
            PointerKind::List => left.push_elements(message, pointer.target(at)?, pointer)?,
            PointerKind::Far => return None,
            PointerKind::Other => {
                let index = *indices.get(pointer.capability_index()? as usize)?;
                set_word(message, at, Pointer::to_capability(index).0)?;
            }
        }
    }
    Some(words)
}

/// The positions of pointers that have been met but not looked at.
struct PointersLeft {
    positions: Vec<usize>,
    /// The number of pointers that have been met.
    met: usize,
    /// The number of words of the message, which a tree has no more pointers than.
    room: usize,
}

impl PointersLeft {
    fn push(&mut self, start: usize, count: usize) -> Option<()> {
        self.met = self.met.checked_add(count).filter(|met| *met <= self.room)?;
        let end = start.checked_add(count).filter(|end| *end <= self.room)?;
        self.positions.extend(start..end);
        Some(())
    }

    fn push_fields(&mut self, start: usize, size: StructSize) -> Option<()> {
        self.push(start.checked_add(size.data())?, size.pointers())
    }

    fn push_elements(&mut self, message: &[u8], start: usize, list: Pointer) -> Option<()> {
        match list.element_size() {
            ElementSize::Pointer => self.push(start, list.element_count()),
            ElementSize::Composite => {
                let tag = Pointer(word_at(message, start)?);
                let size = tag.struct_size();
                if size.pointers() == 0 {
                    return Some(());
                }
                let mut element = start.checked_add(1)?;
                for _ in 0..tag.tag_count() {
                    self.push_fields(element, size)?;
                    element += size.words();
                }
                Some(())
            }
            _ => Some(()),
        }
    }
}

#[cfg(test)]
mod tests;
