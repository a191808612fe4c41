//! Changing the indices of capability pointers in a finished message, word by word.

use capnp::Word;

/// Replaces the index of each capability pointer in a message of one segment by the entry that `indices` has
/// for it. See Note [Copies keep indices].
///
/// `None` if the segment is not a whole message by itself, or has an index beyond `indices`. Messages that
/// the `capnp` crate has built into one segment are whole, and trees: no word is visited twice.
pub(super) fn replace_indices(segment: &[u8], indices: &[u32]) -> Option<Vec<Word>> {
    let mut words = Word::allocate_zeroed_vec(segment.len() / WORD);
    Word::words_to_bytes_mut(&mut words).copy_from_slice(segment);
    let mut message = Segment(Word::words_to_bytes_mut(&mut words));
    let mut pointers = vec![0];
    while let Some(at) = pointers.pop() {
        let pointer = message.get(at)?;
        match pointer & 3 {
            STRUCT if pointer == 0 => {}
            STRUCT => push_fields(&mut pointers, target(at, pointer)?, pointer),
            LIST => push_elements(&mut pointers, &message, target(at, pointer)?, pointer)?,
            OTHER => {
                let index = *indices.get((pointer >> 32) as usize)?;
                message.set(at, u64::from(index) << 32 | pointer & 0xffff_ffff);
            }
            _ => return None,
        }
    }
    Some(words)
}

const WORD: usize = 8;

const STRUCT: u64 = 0;
const LIST: u64 = 1;
const OTHER: u64 = 3;

const POINTERS: u64 = 6;
const STRUCTS: u64 = 7;

/// The bytes of a segment, taken as words.
struct Segment<'a>(&'a mut [u8]);

impl Segment<'_> {
    fn get(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at * WORD..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    fn set(&mut self, at: usize, word: u64) {
        self.0[at * WORD..][..WORD].copy_from_slice(&word.to_le_bytes());
    }
}

/// Where a pointer leads to.
fn target(at: usize, pointer: u64) -> Option<usize> {
    let offset = (pointer as u32 as i32) >> 2;
    (at + 1).checked_add_signed(offset as isize)
}

/// The two sizes of a struct: words of data, and pointers.
fn sizes(pointer: u64) -> (usize, usize) {
    ((pointer >> 32) as u16 as usize, (pointer >> 48) as usize)
}

fn push_fields(pointers: &mut Vec<usize>, start: usize, pointer: u64) {
    let (data, count) = sizes(pointer);
    pointers.extend((start + data..).take(count));
}

fn push_elements(pointers: &mut Vec<usize>, message: &Segment<'_>, start: usize, pointer: u64) -> Option<()> {
    match pointer >> 32 & 7 {
        POINTERS => pointers.extend((start..).take((pointer >> 35) as usize)),
        STRUCTS => {
            let tag = message.get(start)?;
            let (data, count) = sizes(tag);
            let elements = (tag as u32 >> 2) as usize;
            if count > 0 {
                (0..elements).for_each(|i| push_fields(pointers, start + 1 + i * (data + count), tag));
            }
        }
        _ => {}
    }
    Some(())
}
