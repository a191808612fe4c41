//! Contents of payloads: params and results that were received, or are being built.
//!
//! ```text
//! Note [Contents are kept in their message]
//! =========================================
//! A content is never taken out of the message around it. A content that was received stays in its frame, which is shared. A
//! content of ours is built in a message that has room for the rpc `Message` around it. When it is sent, that `Message` is
//! written beside the content and not into its message (Note [Envelopes]). So a call's params are written once, where they
//! are sent from, and results that are kept here for pipelined calls are not copied to be sent. A content that is sent as
//! another kind of payload than it was built as is copied.
//!
//! Capability pointers in a content are plain indices into the descriptors beside it. Code that reads or builds a content
//! through the `capnp` crate's setters lends it a table for that time.
//! ```

use std::fmt;

use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::private::arena::GeneratedCodeArena;
use capnp::private::layout::PointerReader;
use capnp::MessageSize;
use capnp::OutputSegments;

use crate::error::Exception;
use crate::generated::rpc_capnp::{message, payload, return_};
use crate::limits::Limits;
use crate::sync::Arc;
use crate::wire::cap_index;
use crate::wire::cap_paths::{self, CapPaths};
use crate::wire::fast::scratch_pool::ScratchBuilder;
use crate::wire::fast::{fast_decode, fast_encode};
use crate::wire::frame::Frame;

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

/// A message that was received, whose root is a content. See Note [A content is lifted].
struct Lifted {
    reader: Reader<Frame>,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} words)", self.words())
    }
}

/// The payload of an rpc `Message` that a content is in.
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

    /// The payload of this kind in a message.
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
    Built(Arc<BuiltContent>),
}

impl Content {
    /// No content: a null pointer.
    pub(crate) fn null() -> Self {
        Content(ContentSource::Null)
    }

    /// The content of a payload of a received message.
    pub(crate) fn received(message: Arc<Received>, kind: PayloadKind) -> Self {
        Content(ContentSource::Received(message, kind))
    }

    /// The content that is the root of a received message, to be read within the given limits.
    pub(super) fn lifted(frame: Frame, limits: &Limits) -> Self {
        let reader = reader(frame, limits, limits.nesting - fast_decode::LEVELS);
        Content(ContentSource::Lifted(Arc::new(Lifted { reader })))
    }

    /// The content, without a table of capabilities.
    pub(crate) fn reader(&self) -> Result<any_pointer::Reader<'_>, capnp::Error> {
        match &self.0 {
            ContentSource::Null => Ok(any_pointer::Reader::new(PointerReader::get_root_from_arena(&NULL)?)),
            ContentSource::Received(message, kind) => Ok(kind.read(message.message()?)?.get_content()),
            ContentSource::Lifted(message) => message.reader.get_root(),
            ContentSource::Built(built) => built.content(),
        }
    }

    /// The number of words of memory that the content keeps, with the message around it.
    pub(crate) fn words(&self) -> usize {
        match &self.0 {
            ContentSource::Null => 0,
            ContentSource::Received(message, _) => message.words(),
            ContentSource::Lifted(message) => message.reader.get_segments().words(),
            ContentSource::Built(built) => built.words(),
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
            ContentSource::Received(message, kind) => {
                // The decoder has checked that the message has a payload of this kind.
                let before = kind.path_in_message();
                cap_paths::index_in(message.reader.get_segments(), before.iter().chain(path).copied())
            }
            ContentSource::Lifted(message) => {
                cap_paths::index_in(message.reader.get_segments(), path.iter().copied())
            }
            ContentSource::Built(built) => {
                let path = std::iter::once(0).chain(path.iter().copied());
                cap_paths::index_in(&built.segments(), path)
            }
        };
        let in_table = |index: Option<u32>| match index {
            Some(index) if index as usize >= caps => Err(Exception::failed("a capability beyond the table")),
            index => Ok(index),
        };
        index.and_then(in_table).map_err(|e| e.with_context("no capability at that path"))
    }

    /// The number of words of memory that the content takes. One that was built has at least a first segment of a fixed size.
    pub(crate) fn words_held(&self) -> usize {
        match &self.0 {
            ContentSource::Built(_) => self.words().max(UNKNOWN_WORDS as usize),
            _ => self.words(),
        }
    }

    /// The paths to its capabilities, if it was built here.
    pub(crate) fn cap_paths(&self) -> Option<CapPaths> {
        match &self.0 {
            ContentSource::Built(built) => cap_paths::find(&built.segments()),
            _ => None,
        }
    }

    /// A copy of a content that was received, to be sent as this kind of payload, so that encoding it can't fail later; and the
    /// index that each capability pointer of the copy had before. `None` for a content of ours, which needs no copy.
    ///
    /// # Errors
    ///
    /// If the content is malformed, has a capability pointer beyond `caps`, or if the copy would be larger than `most_words`. (A
    /// copy is much larger than its original if many pointers lead to one place.)
    pub(crate) fn copy_received(
        &self,
        kind: PayloadKind,
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
        let mut copy = ContentBuilder::new(kind, Some(size));
        let indices = cap_index::copy(from, copy.content(), caps)?;
        Ok(Some((copy.freeze(), indices)))
    }

    /// The content with its message, if it was built as this kind of payload.
    pub(super) fn built(&self, kind: PayloadKind) -> Option<&Arc<BuiltContent>> {
        match &self.0 {
            ContentSource::Built(built) if built.kind == kind => Some(built),
            _ => None,
        }
    }

    /// The content with its message, if it was built here.
    pub(super) fn into_built(self) -> Option<Arc<BuiltContent>> {
        match self.0 {
            ContentSource::Built(built) => Some(built),
            _ => None,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ContentSource::Null => f.write_str("Content(null)"),
            ContentSource::Received(message, kind) => write!(f, "Content({kind:?} of {message:?})"),
            ContentSource::Lifted(_) => write!(f, "Content(received, {} words)", self.words()),
            ContentSource::Built(built) => write!(f, "Content({:?}, {} words)", built.kind, self.words()),
        }
    }
}

/// The reason for not sending a message of so many words.
pub(crate) fn too_large(words: usize, limit: usize) -> Exception {
    Exception::failed(format!("a message of {words} words, where {limit} are allowed"))
}

/// A message that is a null pointer.
static NULL: GeneratedCodeArena = GeneratedCodeArena::new(&[capnp::word(0, 0, 0, 0, 0, 0, 0, 0)]);

/// A content that was built here, in the message that it is sent in: see Note [Envelopes].
pub(super) struct BuiltContent {
    message: ScratchBuilder,
    kind: PayloadKind,
}

impl BuiltContent {
    /// The first segment of the message that the content was built in.
    pub(super) fn first_segment(&self) -> &[u8] {
        self.segments()[0]
    }

    /// The segments of the message that the content was built in.
    pub(super) fn segments(&self) -> OutputSegments<'_> {
        self.message.get_segments_for_output()
    }

    /// The size of that message.
    pub(super) fn words(&self) -> usize {
        self.message.size_in_words()
    }

    fn content(&self) -> Result<any_pointer::Reader<'_>, capnp::Error> {
        fast_encode::content(&self.message, self.kind)
    }
}

/// The size for which a content gets room without a hint, in words.
const UNKNOWN_WORDS: u64 = 88;

/// The largest hint that is believed, in words: a first segment is taken from the system at once.
const MAX_HINT_WORDS: u64 = 1 << 20;

/// The largest first segment, in words. Larger messages have more segments.
pub(super) const MAX_SEGMENT_WORDS: u64 = 1 << 28;

/// A builder of a message whose first segment has the given size.
pub(super) fn builder(words: u64) -> Builder<HeapAllocator> {
    let words = words.clamp(1, MAX_SEGMENT_WORDS) as u32;
    Builder::new(HeapAllocator::new().first_segment_words(words))
}

/// A content that is being built, in the message that it will be sent in.
pub(crate) struct ContentBuilder(BuiltContent);

impl ContentBuilder {
    /// An empty content, with room for as many words as the hint says.
    pub(crate) fn new(kind: PayloadKind, size_hint: Option<MessageSize>) -> Self {
        let words = size_hint.map_or(UNKNOWN_WORDS, |size| size.word_count.min(MAX_HINT_WORDS));
        Self::with_room(kind, words)
    }

    /// An empty content, whose first segment has room for so many words.
    pub(super) fn with_room(kind: PayloadKind, words: u64) -> Self {
        let words = words.saturating_add(kind.words_before() as u64).clamp(1, MAX_SEGMENT_WORDS);
        let message = ScratchBuilder::new(words as u32);
        ContentBuilder(BuiltContent { message, kind })
    }

    /// The content as far as it has been built. It has no table of capabilities: the caller lends it one.
    pub(crate) fn content(&mut self) -> any_pointer::Builder<'_> {
        let BuiltContent { message, kind } = &mut self.0;
        fast_encode::content_mut(message, *kind)
    }

    /// The number of words that have been built, with the message around them.
    pub(crate) fn words(&self) -> usize {
        self.0.message.size_in_words()
    }

    /// Ends the building.
    pub(crate) fn freeze(mut self) -> Content {
        if self.words() == 0 {
            // A content that was never asked for has no root yet.
            self.content();
        }
        Content(ContentSource::Built(Arc::new(self.0)))
    }
}

impl fmt::Debug for ContentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentBuilder({:?}, {} words)", self.0.kind, self.words())
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
