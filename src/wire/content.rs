//! Contents of payloads: params and results, as they were received or as they are being built.
//!
//! ```text
//! Note [Contents are kept in their message]
//! =========================================
//! A content is never taken out of the message around it. What was received stays in the frame, which is
//! shared; what is built is built in a message that has room for what an rpc `Message` has around it, and
//! `encode` puts that there when it goes out (Note [Envelopes]), beside the content and not into its message. So a
//! call's params are written once, where they are sent from, and results that are kept here for calls pipelined on
//! them are not copied to be sent.
//! Capability pointers in a content are plain indices into the descriptors beside it; whoever reads or
//! builds a content through the `capnp` crate's setters lends it a table for that time.
//! ```

use std::fmt;

use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::private::arena::GeneratedCodeArena;
use capnp::private::layout::PointerReader;
use capnp::MessageSize;

use crate::error::Exception;
use crate::generated::rpc_capnp::{message, payload, return_};
use crate::limits::Limits;
use crate::sync::Arc;
use crate::wire::envelope::{InCall, InReturn};
use crate::wire::frame::Frame;
use crate::wire::places::{self, Places};
use crate::wire::segments::Building;
use crate::wire::{index, usual};

/// A message that was received.
pub(crate) struct Received {
    reader: Reader<Frame>,
}

impl Received {
    /// A message out of its frame, read within the given limits.
    pub(crate) fn new(frame: Frame, limits: &Limits) -> Self {
        Received { reader: reader(frame, limits, limits.nesting) }
    }

    /// The size of the message.
    pub(crate) fn words(&self) -> usize {
        self.reader.get_segments().words()
    }

    /// The message.
    pub(crate) fn message(&self) -> Result<message::Reader<'_>, capnp::Error> {
        self.reader.get_root()
    }
}

fn reader(frame: Frame, limits: &Limits, nesting_limit: i32) -> Reader<Frame> {
    let traversal_limit_in_words = Some(limits.traversal_words);
    Reader::new(frame, ReaderOptions { traversal_limit_in_words, nesting_limit })
}

/// A message that was received, with nothing but a content. See Note [A content is lifted].
struct Lifted {
    reader: Reader<Frame>,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} words)", self.words())
    }
}

/// Which payload of an rpc `Message` a content is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    /// `call.params`.
    CallParams,
    /// `return.results`.
    ReturnResults,
}

impl PayloadKind {
    /// The pointer fields that lead to the content, from the root of a message.
    fn path_in_message(self) -> [u16; 3] {
        match self {
            PayloadKind::CallParams => [0, 1, 0],
            PayloadKind::ReturnResults => [0, 0, 0],
        }
    }

    /// The payload at this place of a message.
    pub(super) fn read(self, message: message::Reader<'_>) -> Result<payload::Reader<'_>, capnp::Error> {
        match (self, message.which()?) {
            (PayloadKind::CallParams, message::Call(call)) => call?.get_params(),
            (PayloadKind::ReturnResults, message::Return(ret)) => match ret?.which()? {
                return_::Results(results) => results,
                _ => Err(absent()),
            },
            _ => Err(absent()),
        }
    }
}

fn absent() -> capnp::Error {
    capnp::Error::failed("the message holds no such payload".into())
}

/// The content of a payload: null, or a pointer inside a message. Cheap to clone. It can't be changed.
///
/// See Note [Contents are kept in their message].
#[derive(Clone)]
pub(crate) struct Content(ContentSource);

#[derive(Clone)]
enum ContentSource {
    Null,
    Received(Arc<Received>, PayloadKind),
    Lifted(Arc<Lifted>),
    Built(Arc<Built>),
}

impl Content {
    /// No content: a null pointer.
    pub(crate) fn null() -> Self {
        Content(ContentSource::Null)
    }

    /// The content at a place of a received message.
    pub(crate) fn received(message: Arc<Received>, place: PayloadKind) -> Self {
        Content(ContentSource::Received(message, place))
    }

    /// The content that is the root of a received message, to be read within the given limits.
    pub(super) fn lifted(frame: Frame, limits: &Limits) -> Self {
        let reader = reader(frame, limits, limits.nesting - usual::LEVELS);
        Content(ContentSource::Lifted(Arc::new(Lifted { reader })))
    }

    /// The content, without a table of capabilities.
    pub(crate) fn reader(&self) -> Result<any_pointer::Reader<'_>, capnp::Error> {
        match &self.0 {
            ContentSource::Null => Ok(any_pointer::Reader::new(PointerReader::get_root_from_arena(&NULL)?)),
            ContentSource::Received(message, place) => Ok(place.read(message.message()?)?.get_content()),
            ContentSource::Lifted(message) => message.reader.get_root(),
            ContentSource::Built(built) => built.content(),
        }
    }

    /// How many words of memory the content keeps, with the message around it.
    pub(crate) fn words(&self) -> usize {
        match &self.0 {
            ContentSource::Null => 0,
            ContentSource::Received(message, _) => message.words(),
            ContentSource::Lifted(message) => message.reader.get_segments().words(),
            ContentSource::Built(built) => built.message.size_in_words(),
        }
    }

    /// Follows pointer fields from the content's root to a capability, and returns its index in the table of
    /// `caps` descriptors. `None` if a pointer on the way, or the last, is null.
    ///
    /// # Errors
    ///
    /// If something on the way is no struct, or what is at the end no capability of the table.
    pub(crate) fn cap_index_at(&self, path: &[u16], caps: usize) -> Result<Option<u32>, Exception> {
        let index = match &self.0 {
            ContentSource::Null => return Ok(None),
            ContentSource::Received(message, place) => {
                // That it is there, and is of this kind, was checked when it was received.
                let before = place.path_in_message();
                places::index_in(message.reader.get_segments(), before.iter().chain(path).copied())
            }
            ContentSource::Lifted(message) => {
                places::index_in(message.reader.get_segments(), path.iter().copied())
            }
            ContentSource::Built(built) => {
                let path = std::iter::once(0).chain(path.iter().copied());
                places::index_in(&built.message.get_segments_for_output(), path)
            }
        };
        let in_table = |index: Option<u32>| match index {
            Some(index) if index as usize >= caps => Err(Exception::failed("a capability beyond the table")),
            index => Ok(index),
        };
        index.and_then(in_table).map_err(|e| e.with_context("no capability at that path"))
    }

    /// How many words of memory the content takes: one that was built has a first segment of a fixed size, or more.
    pub(crate) fn words_held(&self) -> usize {
        match &self.0 {
            ContentSource::Built(_) => self.words().max(UNKNOWN_WORDS as usize),
            _ => self.words(),
        }
    }

    /// Where its capabilities stand, if it was built here.
    pub(crate) fn places(&self) -> Option<Places> {
        match &self.0 {
            ContentSource::Built(built) => places::find(&built.message.get_segments_for_output()),
            _ => None,
        }
    }

    /// A copy of a content that was received, ready to be sent from `place`, so that encoding it can't fail later; and
    /// what each capability pointer of the copy was before. `None` for any other content, which needs none.
    ///
    /// # Errors
    ///
    /// If the content is malformed, has a capability pointer beyond `caps`, or would be larger than `most_words`: much
    /// larger than what was received, where many pointers lead to one place.
    pub(crate) fn copy_received(
        &self,
        place: PayloadKind,
        caps: usize,
        most_words: usize,
    ) -> Result<Option<(Self, Vec<u32>)>, Exception> {
        let (ContentSource::Received(..) | ContentSource::Lifted(_)) = &self.0 else { return Ok(None) };
        let from = self.reader()?;
        let mut size = from.target_size()?;
        if size.word_count > most_words as u64 {
            return Err(too_large(size.word_count as usize, most_words));
        }
        size.cap_count = caps as u32;
        let mut copy = ContentBuilder::new(place, Some(size));
        let indices = index::copy(from, copy.content(), caps)?;
        Ok(Some((copy.freeze(), indices)))
    }

    /// What the content was built in, if it was built for this place.
    pub(super) fn into_built(self, place: PayloadKind) -> Result<Arc<Built>, Content> {
        match self.0 {
            ContentSource::Built(built) if built.place == place => Ok(built),
            other => Err(Content(other)),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ContentSource::Null => f.write_str("Content(null)"),
            ContentSource::Received(message, place) => write!(f, "Content({place:?} of {message:?})"),
            ContentSource::Lifted(_) => write!(f, "Content(received, {} words)", self.words()),
            ContentSource::Built(built) => write!(f, "Content({:?}, {} words)", built.place, self.words()),
        }
    }
}

/// Why a message is not sent.
pub(crate) fn too_large(words: usize, limit: usize) -> Exception {
    Exception::failed(format!("a message of {words} words, where {limit} are allowed"))
}

/// A message that is a null pointer.
static NULL: GeneratedCodeArena = GeneratedCodeArena::new(&[capnp::word(0, 0, 0, 0, 0, 0, 0, 0)]);

/// A content in the envelope for its place.
pub(super) struct Built {
    message: Building,
    place: PayloadKind,
}

impl Built {
    /// The message that the content was built in.
    pub(super) fn message(&self) -> &Building {
        &self.message
    }

    fn content(&self) -> Result<any_pointer::Reader<'_>, capnp::Error> {
        Ok(match self.place {
            PayloadKind::CallParams => self.message.get_root_as_reader::<InCall<_>>()?.0,
            PayloadKind::ReturnResults => self.message.get_root_as_reader::<InReturn<_>>()?.0,
        })
    }
}

/// The size of a content that nothing is known of.
const UNKNOWN_WORDS: u64 = 88;

/// The most that a hint is believed: the first segment is taken from the system at once.
const MAX_HINT_WORDS: u64 = 1 << 20;

/// The most that the first segment of a message is made for. Larger messages have more segments.
pub(super) const MAX_SEGMENT_WORDS: u64 = 1 << 28;

/// A builder of a message whose first segment has the given size.
pub(super) fn builder(words: u64) -> Builder<HeapAllocator> {
    let words = words.clamp(1, MAX_SEGMENT_WORDS) as u32;
    Builder::new(HeapAllocator::new().first_segment_words(words))
}

/// A content that is being built, in the message that it will be sent in.
pub(crate) struct ContentBuilder(Built);

impl ContentBuilder {
    /// An empty content for a place, with room for what the hint says.
    pub(crate) fn new(place: PayloadKind, size_hint: Option<MessageSize>) -> Self {
        let words = size_hint.map_or(UNKNOWN_WORDS, |size| size.word_count.min(MAX_HINT_WORDS));
        Self::with_room(place, words)
    }

    /// An empty content for a place, whose first segment has room for so many words.
    pub(super) fn with_room(place: PayloadKind, words: u64) -> Self {
        let words = words.saturating_add(place.words_before() as u64).clamp(1, MAX_SEGMENT_WORDS);
        let message = Building::new(words as u32);
        ContentBuilder(Built { message, place })
    }

    /// What has been built so far, to go on. Without a table of capabilities: the caller lends one.
    pub(crate) fn content(&mut self) -> any_pointer::Builder<'_> {
        let Built { message, place } = &mut self.0;
        let content = match place {
            PayloadKind::CallParams => message.get_root::<InCall<_>>().map(|root| root.0),
            PayloadKind::ReturnResults => message.get_root::<InReturn<_>>().map(|root| root.0),
        };
        content.expect("the root is what was made here, the first time")
    }

    /// How many words have been built, with the message around them.
    pub(crate) fn words(&self) -> usize {
        self.0.message.size_in_words()
    }

    /// Ends the building.
    pub(crate) fn freeze(mut self) -> Content {
        if self.words() == 0 {
            // Nobody has looked at it: without that it has no root.
            self.content();
        }
        Content(ContentSource::Built(Arc::new(self.0)))
    }
}

impl fmt::Debug for ContentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentBuilder({:?}, {} words)", self.0.place, self.words())
    }
}

const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Received>();
    crosses_threads::<Lifted>();
    crosses_threads::<Content>();
    crosses_threads::<ContentBuilder>();
};

#[cfg(test)]
mod tests;
