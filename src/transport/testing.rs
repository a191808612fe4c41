//! Messages and streams for the tests of transports.

use std::io::{self, Read};

use capnp::message::{Builder, HeapAllocator, ReaderOptions};

use super::FrameReader;
use crate::limits::Limits;
use crate::wire::frame::{Frame, Outbound};

/// A message that holds a text.
pub(super) fn message(text: &str) -> Outbound {
    built(Builder::new_default(), text)
}

/// The same in more than one segment.
pub(super) fn segmented(text: &str) -> Outbound {
    let outbound = built(Builder::new(HeapAllocator::new().first_segment_words(1)), text);
    assert!(outbound.with_segments(|segments| segments.len()) > 1);
    outbound
}

fn built(mut message: Builder<HeapAllocator>, text: &str) -> Outbound {
    message.set_root::<capnp::text::Owned>(text).unwrap();
    outbound(message)
}

/// A message that was built.
pub(super) fn outbound(message: Builder<HeapAllocator>) -> Outbound {
    message.into()
}

/// The text in a message.
pub(super) fn text(frame: Frame) -> String {
    let message = capnp::message::Reader::new(frame, ReaderOptions::new());
    message.get_root::<capnp::text::Reader<'_>>().unwrap().to_string().unwrap()
}

/// The texts in all messages of a stream.
#[cfg(not(shuttle))]
pub(super) fn read_back(bytes: &[u8]) -> Vec<String> {
    let mut reader = FrameReader::new(bytes, &Limits::default());
    std::iter::from_fn(|| reader.next_frame().unwrap()).map(text).collect()
}

/// A segment whose words are all different.
#[cfg(not(shuttle))]
pub(super) fn numbered(words: usize) -> Vec<u8> {
    (0..words as u64).flat_map(u64::to_le_bytes).collect()
}

/// Messages as they are on a stream, out of their segments.
#[cfg(not(shuttle))]
pub(super) fn bytes_of(messages: &[&[Vec<u8>]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segments in messages {
        bytes.extend((segments.len() as u32 - 1).to_le_bytes());
        segments.iter().for_each(|s| bytes.extend((s.len() as u32 / 8).to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        segments.iter().for_each(|s| bytes.extend(s));
    }
    bytes
}

/// A stream that gives the bytes in pieces of the given sizes, with a signal after each.
#[cfg(not(shuttle))]
pub(super) struct Chunks<'a, I> {
    bytes: &'a [u8],
    sizes: I,
    interrupt: bool,
    calls: usize,
}

#[cfg(not(shuttle))]
impl<'a, I: Iterator<Item = usize>> Chunks<'a, I> {
    pub(super) fn new(bytes: &'a [u8], sizes: impl IntoIterator<IntoIter = I>) -> Self {
        Chunks { bytes, sizes: sizes.into_iter(), interrupt: false, calls: 0 }
    }

    /// How many reads gave something.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }
}

#[cfg(not(shuttle))]
impl<I: Iterator<Item = usize>> Read for Chunks<'_, I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [io::IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        if std::mem::replace(&mut self.interrupt, false) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = match self.sizes.next() {
            Some(0) => self.sizes.next().unwrap_or(usize::MAX),
            size => size.unwrap_or(usize::MAX),
        };
        let (mut chunk, _) = self.bytes.split_at(size.min(self.bytes.len()));
        let n = chunk.read_vectored(bufs)?;
        self.bytes = &self.bytes[n..];
        self.calls += usize::from(n > 0);
        self.interrupt = n > 0;
        Ok(n)
    }
}
