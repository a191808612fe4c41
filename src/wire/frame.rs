//! A whole message as bytes: its segments, without the table that goes before them on a stream.

use capnp::message::{Builder, HeapAllocator, ReaderSegments};
use capnp::Word;

use super::content::BuiltContent;
use super::fast::buffer_pool;
use super::fast::fast_encode::Envelope;
use super::pointer::Pointer;
use crate::sync::Arc;

/// A message that was received: segments of words, in one allocation.
pub struct Frame {
    /// The segments, and around them words of earlier messages. See Note [Spare memory].
    memory: Vec<Word>,
    /// Where the first segment begins, in words.
    start: usize,
    ends: Ends,
}

/// Where each segment ends, in words from where the first begins.
enum Ends {
    One(usize),
    Many(Vec<usize>),
}

impl Ends {
    fn get(&self) -> &[usize] {
        match self {
            Ends::One(end) => std::slice::from_ref(end),
            Ends::Many(ends) => ends,
        }
    }
}

impl Frame {
    /// A message out of all its words and the length of each segment. Lengths past the words are cut short.
    pub fn new(words: Vec<Word>, segment_words: impl IntoIterator<Item = usize>) -> Self {
        Frame::within(words, 0, segment_words)
    }

    /// The same, where the first segment begins after `start` words.
    pub(crate) fn within(
        memory: Vec<Word>,
        start: usize,
        segment_words: impl IntoIterator<Item = usize>,
    ) -> Self {
        let room = memory.len() - start;
        let mut end = 0usize;
        let mut ends = segment_words.into_iter().map(|n| {
            end = end.saturating_add(n).min(room);
            end
        });
        let (first, second) = (ends.next(), ends.next());
        let ends = match (first, second) {
            (Some(one), None) => Ends::One(one),
            _ => Ends::Many(first.into_iter().chain(second).chain(ends).collect()),
        };
        Frame { memory, start, ends }
    }

    /// The size of all segments together.
    pub fn words(&self) -> usize {
        self.ends.get().last().copied().unwrap_or(0)
    }

    /// The segment, if it is the only one.
    pub(super) fn only_segment(&self) -> Option<&[u8]> {
        match self.ends {
            Ends::One(end) => Some(Word::words_to_bytes(&self.memory[self.start..self.start + end])),
            Ends::Many(_) => None,
        }
    }

    /// Puts another root pointer into the first word, which must be there.
    pub(super) fn set_root(&mut self, pointer: Pointer) {
        let first = &mut self.memory[self.start..self.start + 1];
        Word::words_to_bytes_mut(first).copy_from_slice(&pointer.0.to_le_bytes());
    }

    /// The number of segments.
    pub fn segments(&self) -> usize {
        self.ends.get().len()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.memory));
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} words in {} segments)", self.words(), self.segments())
    }
}

impl ReaderSegments for Frame {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        let index = index as usize;
        let ends = self.ends.get();
        let end = *ends.get(index)?;
        let start = if index == 0 { 0 } else { ends[index - 1] };
        Some(Word::words_to_bytes(&self.memory[self.start + start..self.start + end]))
    }

    fn len(&self) -> usize {
        self.ends.get().len()
    }
}

/// A message that is ready to be sent.
pub struct Outbound(OutboundBody);

enum OutboundBody {
    Built(Builder<HeapAllocator>),
    /// See Note [Envelopes].
    Enclosed(Arc<BuiltContent>, Envelope),
    Segment(Vec<Word>),
    Small([Word; 4]),
}

impl Outbound {
    /// The segments to write, in order. Their table is the transport's to write.
    pub fn with_segments<R>(&self, f: impl FnOnce(&[&[u8]]) -> R) -> R {
        match &self.0 {
            OutboundBody::Built(message) => f(&message.get_segments_for_output()),
            OutboundBody::Enclosed(..) => self.with_parts(|first, others| {
                let first = first.concat();
                let segments: Vec<&[u8]> =
                    std::iter::once(&first[..]).chain(others.iter().copied()).collect();
                f(&segments)
            }),
            OutboundBody::Segment(words) => f(&[Word::words_to_bytes(words)]),
            OutboundBody::Small(words) => f(&[Word::words_to_bytes(words)]),
        }
    }

    /// The same, with the three parts of the first segment, which are not copied together.
    pub(crate) fn with_parts<'a, R>(&'a self, f: impl FnOnce([&'a [u8]; 3], &[&'a [u8]]) -> R) -> R {
        let (segments, envelope) = match &self.0 {
            OutboundBody::Built(message) => (message.get_segments_for_output(), None),
            OutboundBody::Enclosed(content, envelope) => (content.segments(), Some(envelope)),
            OutboundBody::Segment(words) => return f([Word::words_to_bytes(words), &[], &[]], &[]),
            OutboundBody::Small(words) => return f([Word::words_to_bytes(words), &[], &[]], &[]),
        };
        let (first, others) = segments.split_first().expect("a message has a segment");
        f(envelope.map_or([first, &[], &[]], |envelope| envelope.parts(first)), others)
    }

    /// A content that was built here, in its envelope.
    pub(super) fn enclosed(content: Arc<BuiltContent>, envelope: Envelope) -> Self {
        Outbound(OutboundBody::Enclosed(content, envelope))
    }

    /// The size of all segments together, in words.
    pub fn words(&self) -> usize {
        match &self.0 {
            OutboundBody::Built(message) => message.size_in_words(),
            OutboundBody::Enclosed(content, envelope) => content.words() + envelope.added(),
            OutboundBody::Segment(words) => words.len(),
            OutboundBody::Small(words) => words.len(),
        }
    }
}

impl From<Builder<HeapAllocator>> for Outbound {
    fn from(message: Builder<HeapAllocator>) -> Self {
        Outbound(OutboundBody::Built(message))
    }
}

/// A message of one segment.
impl From<Vec<Word>> for Outbound {
    fn from(segment: Vec<Word>) -> Self {
        Outbound(OutboundBody::Segment(segment))
    }
}

/// A message of one segment, of few words.
impl From<[Word; 4]> for Outbound {
    fn from(segment: [Word; 4]) -> Self {
        Outbound(OutboundBody::Small(segment))
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({} words)", self.words())
    }
}
