//! Reading the stream framing of Cap'n Proto.
//!
//! ```text
//! Note [Stream framing]
//! =====================
//! On a stream, a message is its segment table and then its segments, with nothing between messages. All
//! numbers are 32-bit, little-endian:
//!
//!     segments - 1 | words of segment 0 | words of segment 1 | ... | padding to 8 bytes | segment 0 | ...
//!
//! So a message is always a whole number of words, and starts at a multiple of 8 bytes from the start of the
//! stream. The first word holds the number of segments and the length of the first; each further word of the
//! table holds two lengths.
//! ```

use std::io::{self, IoSliceMut, Read};

use capnp::{word, Word};

use super::Arrived;
use crate::error::TransportError;
use crate::limits::Limits;
use crate::memory::Arriving;
use crate::wire::fast::buffer_pool;
use crate::wire::frame::Frame;

/// The size of the buffer that small messages, and the beginnings of large ones, are read into where many come: so many
/// as a window of calls of 1 KiB has.
const BUFFER_WORDS: usize = 8192;
/// Its size else: all that a connection needs that is hardly used.
const FIRST_BUFFER_WORDS: usize = 512;
/// Smaller messages come one by one through the buffer; larger ones are read where they stay.
const SMALL_WORDS: usize = 4096;
/// How many words of a large message memory is made for ahead of their arrival.
const AHEAD_WORDS: usize = 16384;
/// How much is read of what comes after a large message, together with its end: enough for small messages, and
/// little to copy if it is the beginning of another large one.
const BEHIND_WORDS: usize = FIRST_BUFFER_WORDS;
const WORD: usize = 8;
const ZERO: Word = word(0, 0, 0, 0, 0, 0, 0, 0);

/// Reads messages from a stream of bytes, as [`FrameWriter`](super::FrameWriter) writes them.
///
/// One `read` of the stream takes whatever has arrived: many small messages come out of it without another
/// one. What does not fit into the buffer is read straight into the message's own memory, together with the
/// beginning of the next message where the stream can read into two places at once.
///
/// What a message claims about itself costs nothing before it is true: memory grows with the bytes that have
/// arrived, to at most twice their number and 256 KiB. Memory that another message has left is used again (a few
/// megabytes of it in all are kept for the process), so a stream of large messages neither makes nor clears any. So is
/// the buffer, if it is more than a page: a reader that waits has no larger one.
pub struct FrameReader<R> {
    stream: R,
    buffer: Vec<Word>,
    /// The smaller buffer, while there is a larger one.
    first_buffer: Vec<Word>,
    /// The bytes in the buffer that no message has taken. `start` is a multiple of the word size.
    start: usize,
    end: usize,
    /// The segment table of the message being read.
    lengths: Vec<usize>,
    /// What has not arrived as a whole, while its reading is interrupted.
    table: Option<Table>,
    begun: Option<Begun>,
    max_words: u64,
    max_segments: u64,
}

/// A segment table, as far as it has arrived.
#[derive(Clone, Copy)]
struct Table {
    segments: u64,
    /// The sum of the `lengths` so far.
    total: u64,
}

/// A body that is not in the buffer as a whole, as far as it has arrived.
struct Begun {
    memory: Vec<Word>,
    /// Where the body begins in the memory, in words.
    start: usize,
    /// Bytes.
    arrived: usize,
    words: usize,
    /// The memory counts from when there is much of it.
    counted: Arriving,
}

impl<R: Read> FrameReader<R> {
    /// Reads from `stream` messages of at most [`Limits::message_words`] and [`Limits::segments`].
    pub fn new(stream: R, limits: &Limits) -> Self {
        FrameReader {
            stream,
            buffer: Vec::new(),
            first_buffer: Vec::new(),
            start: 0,
            end: 0,
            lengths: Vec::new(),
            table: None,
            begun: None,
            max_words: limits.message_words as u64,
            max_segments: limits.segments as u64,
        }
    }

    /// The stream, for setting its options.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The stream.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// Whether the next message has been read whole: [`next_frame`](Self::next_frame) will not read the stream.
    pub fn is_ready(&self) -> bool {
        let bytes = &Word::words_to_bytes(&self.buffer)[self.start..self.end];
        let number_at = |at: usize| bytes.get(at..at + 4).map(|bytes| number(bytes) as usize);
        let Some(segments) = number_at(0).map(|last| last.saturating_add(1)) else { return false };
        if segments > bytes.len() / 4 {
            return false;
        }
        let table = (segments / 2 + 1) * WORD;
        let lengths = (1..=segments).map(|i| number_at(4 * i));
        let words = lengths.sum::<Option<usize>>();
        words.is_some_and(|words| words <= bytes.len() / WORD && table + words * WORD <= bytes.len())
    }

    /// Whether a message has been read in part, or bytes have been read that no message has taken.
    pub fn is_within(&self) -> bool {
        self.begun.is_some() || self.table.is_some() || self.buffered() > 0
    }

    /// The next message, or `None` if the stream ended between two messages.
    ///
    /// # Errors
    /// [`Truncated`](TransportError::Truncated) if the stream ended inside a message,
    /// [`BadFrame`](TransportError::BadFrame) and [`TooLarge`](TransportError::TooLarge) as soon as the
    /// segment table crosses a limit, [`Io`](TransportError::Io) if the stream could not be read. After any
    /// of these the place in the stream is lost.
    ///
    /// # Blocking
    /// As long as the stream does, until it has given a whole message.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TransportError> {
        self.release_buffers();
        self.frame()
    }

    fn frame(&mut self) -> Result<Option<Frame>, TransportError> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let Some(words) = self.table()? else { return Ok(None) };
                if words <= self.buffered() / WORD {
                    return Ok(Some(self.take(words)));
                }
                self.begin(words)
            }
        };
        self.finish(begun).map(Some)
    }

    /// As [`next_frame`](Self::next_frame), for a stream that does not block: [`Arrived::Nothing`] where it says
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). What has arrived is kept for the next call of either.
    ///
    /// # Errors
    /// As there.
    pub fn frame_now(&mut self) -> Result<Arrived, TransportError> {
        match self.frame() {
            Ok(frame) => Ok(frame.map_or(Arrived::End, Arrived::Message)),
            Err(TransportError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(Arrived::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// Gives back memory that is kept for speed alone, for a stream of which nothing may be read for a while.
    pub fn release_buffers(&mut self) {
        if self.buffer.len() >= BUFFER_WORDS && !self.is_within() {
            (self.start, self.end) = (0, 0);
            let smaller = std::mem::take(&mut self.first_buffer);
            buffer_pool::give(std::mem::replace(&mut self.buffer, smaller));
        }
    }

    /// Reads the segment table into `lengths`. Gives their sum, or `None` at the end of the stream.
    fn table(&mut self) -> Result<Option<usize>, TransportError> {
        let mut table = match self.table.take() {
            Some(table) => table,
            None => match self.table_start()? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        while (self.lengths.len() as u64) < table.segments {
            let numbers = self.two_numbers();
            if numbers.is_err() {
                self.table = Some(table);
            }
            let (a, b) = numbers?.ok_or(TransportError::Truncated)?;
            self.segment(a, &mut table.total)?;
            if (self.lengths.len() as u64) < table.segments {
                self.segment(b, &mut table.total)?;
            }
        }
        Ok(Some(table.total as usize))
    }

    fn table_start(&mut self) -> Result<Option<Table>, TransportError> {
        let Some((last, first_length)) = self.two_numbers()? else {
            return if self.buffered() == 0 { Ok(None) } else { Err(TransportError::Truncated) };
        };
        let segments = u64::from(last) + 1;
        if segments > self.max_segments {
            let limit = self.max_segments;
            return Err(TransportError::BadFrame(format!("{segments} segments, where {limit} are allowed")));
        }
        self.lengths.clear();
        let mut table = Table { segments, total: 0 };
        self.segment(first_length, &mut table.total)?;
        Ok(Some(table))
    }

    fn segment(&mut self, words: u32, total: &mut u64) -> Result<(), TransportError> {
        *total += u64::from(words);
        if *total > self.max_words {
            return Err(TransportError::TooLarge { words: *total, limit: self.max_words });
        }
        self.lengths.push(words as usize);
        Ok(())
    }

    /// The next word of a segment table, or `None` if the stream ends before it does.
    fn two_numbers(&mut self) -> Result<Option<(u32, u32)>, TransportError> {
        while self.buffered() < WORD {
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
        let bytes = &Word::words_to_bytes(&self.buffer)[self.start..];
        let numbers = (number(&bytes[..4]), number(&bytes[4..]));
        self.start += WORD;
        Ok(Some(numbers))
    }

    fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Takes words that are all in the buffer.
    fn take(&mut self, words: usize) -> Frame {
        let first = self.start / WORD;
        self.start += words * WORD;
        Frame::new(buffer_pool::copy(&self.buffer[first..first + words]), self.lengths.iter().copied())
    }

    /// Reads once into the buffer, which holds less than a word. Zero: the stream has ended.
    fn fill(&mut self) -> Result<usize, TransportError> {
        if self.buffer.is_empty() {
            self.buffer = vec![ZERO; FIRST_BUFFER_WORDS];
        }
        let bytes = Word::words_to_bytes_mut(&mut self.buffer);
        bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let n = retried(|| self.stream.read(&mut bytes[self.end..]))?;
        self.end += n;
        Ok(n)
    }

    /// The beginning of a body that is not in the buffer as a whole.
    fn begin(&mut self, words: usize) -> Begun {
        let mut memory = buffer_pool::take(words).unwrap_or_default();
        let start = if memory.is_empty() { 0 } else { buffer_pool::start(&memory) };
        let arrived = self.buffered();
        grow(&mut memory, arrived, buffer_pool::room_for(words));
        let there = &Word::words_to_bytes(&self.buffer)[self.start..self.end];
        Word::words_to_bytes_mut(&mut memory[start..])[..arrived].copy_from_slice(there);
        (self.start, self.end) = (0, 0);
        if words < SMALL_WORDS && self.buffer.len() < BUFFER_WORDS {
            // Small messages come faster than one by one, or are not that small.
            let new = || Word::allocate_zeroed_vec(buffer_pool::room_for(BUFFER_WORDS));
            let larger = buffer_pool::take(BUFFER_WORDS).unwrap_or_else(new);
            self.first_buffer = std::mem::replace(&mut self.buffer, larger);
        }
        Begun { memory, start, arrived, words, counted: Arriving::default() }
    }

    /// Reads the rest of a body.
    fn finish(&mut self, mut begun: Begun) -> Result<Frame, TransportError> {
        let room = buffer_pool::room_for(begun.words);
        while begun.arrived / WORD < begun.words {
            grow(&mut begun.memory, begun.arrived, room);
            if !begun.counted.grows_to(begun.memory.len() * WORD) {
                let why = "no room for a large message: connections hold as much as the process allows";
                return Err(TransportError::io("receiving", io::Error::new(io::ErrorKind::OutOfMemory, why)));
            }
            match self.read_body(&mut begun.memory[begun.start..], begun.arrived, begun.words) {
                Ok(bytes) => begun.arrived += bytes,
                Err(e) => {
                    self.begun = Some(begun);
                    return Err(e);
                }
            }
        }
        if begun.memory.len() < room {
            begun.memory.resize(room, ZERO);
        }
        Ok(Frame::within(begun.memory, begun.start, self.lengths.iter().copied()))
    }

    /// Reads once into `body` after what has arrived, and into the empty buffer what comes after the body.
    /// Gives the number of bytes of the body that came.
    fn read_body(
        &mut self,
        body: &mut [Word],
        arrived: usize,
        words: usize,
    ) -> Result<usize, TransportError> {
        let end = words.min(body.len());
        let complete = end == words;
        let rest = &mut Word::words_to_bytes_mut(&mut body[..end])[arrived..];
        let wanted = rest.len();
        let n = if complete {
            let behind = if words < SMALL_WORDS { self.buffer.len() } else { BEHIND_WORDS };
            let buffer = Word::words_to_bytes_mut(&mut self.buffer[..behind]);
            let both = &mut [IoSliceMut::new(rest), IoSliceMut::new(buffer)];
            retried(|| self.stream.read_vectored(both))?
        } else {
            retried(|| self.stream.read(rest))?
        };
        if n == 0 {
            return Err(TransportError::Truncated);
        }
        self.end = n.saturating_sub(wanted);
        Ok(n.min(wanted))
    }
}

/// Makes room for what may arrive next of a body of `words`, of which `arrived` bytes are there.
fn grow(body: &mut Vec<Word>, arrived: usize, words: usize) {
    let len = words.min(arrived / WORD + AHEAD_WORDS);
    if len > body.capacity() {
        let capacity = words.min(len.max(body.capacity().saturating_mul(2)));
        body.reserve_exact(capacity - body.len());
    }
    if len > body.len() {
        body.resize(len, ZERO);
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Reads once, again if a signal came between.
fn retried(mut read: impl FnMut() -> io::Result<usize>) -> Result<usize, TransportError> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|e| TransportError::io("receiving", e)),
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
