//! Pointer words of messages as typed values. No other file knows their bits.
//!
//! The `capnp` crate's readers and builders show neither a pointer nor the index of a capability. Code that needs one of
//! these goes by this module: the paths to capabilities ([`cap_paths`](super::cap_paths)), new indices in a copy
//! ([`remap_caps`](super::remap_caps)), the trace of contents without a schema, and the [fast paths](super::fast).
//!
//! A pointer that was received may claim any place and any size. No arithmetic on it overflows, and a read beyond the end
//! of a segment gives `None`.
//!
//! ```text
//!                lowest bits                                             highest bits
//! struct         kind 0 (2) | offset, signed (30)                      | data words (16) | pointers (16)
//! list           kind 1 (2) | offset, signed (30)                      | element size (3) | count (29)
//! far            kind 2 (2) | two-word pad (1) | word of the pad (29)  | segment of the pad (32)
//! capability     kind 3 (2) | 0 (30)                                   | index (32)
//! tag            kind 0 (2) | number of elements (30)                  | data words (16) | pointers (16)
//! ```
//!
//! An offset counts words from the word behind the pointer. A tag is the first word of a list of structs, whose pointer
//! counts the words behind the tag instead of the elements.

use capnp::message::ReaderSegments;

/// The size of a word in bytes.
pub(crate) const WORD: usize = 8;

/// A pointer word. The all-zero word is the null pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) u64);

/// The kind of a pointer: its lowest two bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointerKind {
    Struct,
    List,
    Far,
    /// A capability, or a kind of pointer that does not exist yet.
    Other,
}

/// The size of a struct, as it stands in the upper half of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StructSize(u32);

impl StructSize {
    pub(crate) const fn new(data: u16, pointers: u16) -> Self {
        StructSize(data as u32 | (pointers as u32) << 16)
    }

    /// The number of words of data.
    pub(crate) const fn data(self) -> usize {
        self.0 as u16 as usize
    }

    /// The number of pointers, which stand behind the data.
    pub(crate) const fn pointers(self) -> usize {
        (self.0 >> 16) as usize
    }

    pub(crate) const fn words(self) -> usize {
        self.data() + self.pointers()
    }

    const fn upper_half(self) -> u64 {
        (self.0 as u64) << 32
    }
}

/// The size of an element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementSize {
    Void,
    Bit,
    Byte,
    TwoBytes,
    FourBytes,
    EightBytes,
    Pointer,
    /// The elements are structs, which a tag describes.
    Composite,
}

/// The largest and the smallest offset that a pointer has room for.
const MAX_OFFSET: i64 = (1 << 29) - 1;
const MIN_OFFSET: i64 = -(1 << 29);

/// The low half of a pointer from the word `from` to the word `to` of the same segment.
const fn way(from: usize, to: usize, kind: PointerKind) -> u64 {
    let offset = to as i64 - from as i64 - 1;
    debug_assert!(MIN_OFFSET <= offset && offset <= MAX_OFFSET);
    ((offset << 2) as u32) as u64 | kind as u64
}

impl Pointer {
    pub(crate) const NULL: Pointer = Pointer(0);

    /// A pointer from the word `from` to a struct at the word `to` of the same segment.
    pub(crate) const fn to_struct(from: usize, to: usize, size: StructSize) -> Self {
        Pointer(way(from, to, PointerKind::Struct) | size.upper_half())
    }

    /// A pointer from the word `from` to a list at the word `to` of the same segment. For a list of structs, `to` is the
    /// tag, and `count` the number of words behind it.
    pub(crate) const fn to_list(from: usize, to: usize, element: ElementSize, count: usize) -> Self {
        Pointer(way(from, to, PointerKind::List) | (element as u64) << 32 | (count as u64) << 35)
    }

    /// The tag of a list of so many structs.
    pub(crate) const fn tag(elements: usize, size: StructSize) -> Self {
        Pointer((elements as u32 as u64) << 2 | size.upper_half())
    }

    /// A pointer to the capability at an index of the message's table.
    pub(crate) const fn to_capability(index: u32) -> Self {
        Pointer((index as u64) << 32 | PointerKind::Other as u64)
    }

    pub(crate) const fn is_null(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn kind(self) -> PointerKind {
        match self.0 & 3 {
            0 => PointerKind::Struct,
            1 => PointerKind::List,
            2 => PointerKind::Far,
            _ => PointerKind::Other,
        }
    }

    const fn low(self) -> u32 {
        self.0 as u32
    }

    const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number of words from the word behind a pointer to a struct or list to where it leads.
    const fn offset(self) -> i32 {
        self.low() as i32 >> 2
    }

    /// The word that a pointer to a struct or list leads to, if the pointer stands at the word `at`. `None` if that is
    /// before the segment.
    pub(crate) fn target(self, at: usize) -> Option<usize> {
        at.checked_add_signed(self.offset() as isize + 1)
    }

    /// The size of the struct that a pointer leads to, or of the elements that a tag describes.
    pub(crate) const fn struct_size(self) -> StructSize {
        StructSize(self.high())
    }

    pub(crate) const fn element_size(self) -> ElementSize {
        match self.high() & 7 {
            0 => ElementSize::Void,
            1 => ElementSize::Bit,
            2 => ElementSize::Byte,
            3 => ElementSize::TwoBytes,
            4 => ElementSize::FourBytes,
            5 => ElementSize::EightBytes,
            6 => ElementSize::Pointer,
            _ => ElementSize::Composite,
        }
    }

    /// The number of elements of the list that a pointer leads to; of words behind the tag, if it is a list of structs.
    pub(crate) const fn element_count(self) -> usize {
        (self.high() >> 3) as usize
    }

    /// The number of elements that a tag describes.
    pub(crate) const fn tag_count(self) -> usize {
        (self.low() >> 2) as usize
    }

    /// The index of the capability, if this is a pointer to one.
    pub(crate) const fn capability_index(self) -> Option<u32> {
        match self.low() == PointerKind::Other as u32 {
            true => Some(self.high()),
            false => None,
        }
    }

    /// The pad that a far pointer leads to, and whether that has two words.
    fn pad(self) -> (WordPosition, bool) {
        (WordPosition { segment: self.high(), word: (self.low() >> 3) as usize }, self.0 & 4 != 0)
    }

    /// The pointer that leads from the word `to` to where this one leads from the word `from` of the same segment. `None`
    /// if there is no such pointer, or if this one is no near pointer.
    pub(crate) fn moved(self, from: usize, to: usize) -> Option<Self> {
        match self.kind() {
            PointerKind::Struct | PointerKind::List => {
                let offset = i64::from(self.offset()) + from as i64 - to as i64;
                let near = (MIN_OFFSET..=MAX_OFFSET).contains(&offset);
                let moved = self.0 & !0xffff_fffc | u64::from((offset << 2) as u32);
                // A pointer to an empty struct at the word behind itself would be null.
                (near && moved != 0).then_some(Pointer(moved))
            }
            PointerKind::Far => None,
            PointerKind::Other => self.capability_index().map(|_| self),
        }
    }
}

/// The word of a segment at this position.
pub(crate) fn word_at(segment: &[u8], at: usize) -> Option<u64> {
    let bytes = segment.get(at.checked_mul(WORD)?..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The `N` words of a segment from this position on.
pub(crate) fn words_at<const N: usize>(segment: &[u8], at: usize) -> Option<[u64; N]> {
    let bytes = segment.get(at.checked_mul(WORD)?..)?.get(..N * WORD)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
        *word = u64::from_le_bytes(*bytes.first_chunk()?);
    }
    Some(words)
}

/// Overwrites the word at this position. `None` if the segment has no such word.
pub(crate) fn set_word(segment: &mut [u8], at: usize, word: u64) -> Option<()> {
    let bytes = segment.get_mut(at.checked_mul(WORD)?..)?.first_chunk_mut()?;
    *bytes = word.to_le_bytes();
    Some(())
}

/// A word of a message of any number of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WordPosition {
    pub(crate) segment: u32,
    pub(crate) word: usize,
}

impl WordPosition {
    /// The root pointer of a message.
    pub(crate) const ROOT: WordPosition = WordPosition { segment: 0, word: 0 };

    /// The position so many words further on. (What is beyond the largest position is beyond any segment.)
    pub(crate) fn after(self, words: usize) -> Self {
        WordPosition { word: self.word.saturating_add(words), ..self }
    }
}

/// The value that a pointer leads to, as the pointer says. Whether that is within the message has not been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pointee {
    Null,
    Struct {
        start: WordPosition,
        size: StructSize,
    },
    List {
        start: WordPosition,
        element: ElementSize,
        count: usize,
    },
    /// A capability, by its index in the message's table.
    Capability(u32),
}

/// The word at a position of a message.
pub(crate) fn word_in(segments: &(impl ReaderSegments + ?Sized), at: WordPosition) -> Option<u64> {
    word_at(segments.get_segment(at.segment)?, at.word)
}

/// Follows the pointer at a position of a message, through another segment if it is far. `None` if the pointer is
/// malformed, or if it or its pad is outside of the message.
pub(crate) fn follow(segments: &(impl ReaderSegments + ?Sized), at: WordPosition) -> Option<Pointee> {
    let pointer = Pointer(word_in(segments, at)?);
    if pointer.kind() != PointerKind::Far {
        return near(pointer, at);
    }
    let (pad, has_two_words) = pointer.pad();
    let landing = Pointer(word_in(segments, pad)?);
    match (landing.kind(), has_two_words) {
        (PointerKind::Struct | PointerKind::List, false) => near(landing, pad),
        // The first word of the pad leads to the value, and the second says what it is.
        (PointerKind::Far, true) => value(Pointer(word_in(segments, pad.after(1))?), landing.pad().0),
        _ => None,
    }
}

/// The value that a pointer leads to which is not far.
fn near(pointer: Pointer, at: WordPosition) -> Option<Pointee> {
    if pointer.is_null() {
        return Some(Pointee::Null);
    }
    if pointer.kind() == PointerKind::Other {
        return pointer.capability_index().map(Pointee::Capability);
    }
    value(pointer, WordPosition { word: pointer.target(at.word)?, ..at })
}

/// The struct or list that begins at `start`, and has the size that the pointer says.
fn value(pointer: Pointer, start: WordPosition) -> Option<Pointee> {
    match pointer.kind() {
        PointerKind::Struct => Some(Pointee::Struct { start, size: pointer.struct_size() }),
        PointerKind::List => {
            Some(Pointee::List { start, element: pointer.element_size(), count: pointer.element_count() })
        }
        PointerKind::Far | PointerKind::Other => None,
    }
}

#[cfg(test)]
mod tests;
