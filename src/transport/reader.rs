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
use crate::wire::frame::Frame;
use crate::wire::spare;

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

    /// Whether the next message has arrived whole: [`next_frame`](Self::next_frame) will not read the stream.
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

    /// Whether a message has begun to arrive.
    pub(super) fn is_within(&self) -> bool {
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
        self.rest();
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

    /// Gives back what is kept for speed alone: nothing may be read for a while.
    pub(super) fn rest(&mut self) {
        if self.buffer.len() >= BUFFER_WORDS && !self.is_within() {
            (self.start, self.end) = (0, 0);
            let smaller = std::mem::take(&mut self.first_buffer);
            spare::give(std::mem::replace(&mut self.buffer, smaller));
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
        Frame::new(spare::copy(&self.buffer[first..first + words]), self.lengths.iter().copied())
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
        let mut memory = spare::take(words).unwrap_or_default();
        let start = if memory.is_empty() { 0 } else { spare::start(&memory) };
        let arrived = self.buffered();
        grow(&mut memory, arrived, spare::room_for(words));
        let there = &Word::words_to_bytes(&self.buffer)[self.start..self.end];
        Word::words_to_bytes_mut(&mut memory[start..])[..arrived].copy_from_slice(there);
        (self.start, self.end) = (0, 0);
        if words < SMALL_WORDS && self.buffer.len() < BUFFER_WORDS {
            // Small messages come faster than one by one, or are not that small.
            let new = || Word::allocate_zeroed_vec(spare::room_for(BUFFER_WORDS));
            let larger = spare::take(BUFFER_WORDS).unwrap_or_else(new);
            self.first_buffer = std::mem::replace(&mut self.buffer, larger);
        }
        Begun { memory, start, arrived, words }
    }

    /// Reads the rest of a body.
    fn finish(&mut self, mut begun: Begun) -> Result<Frame, TransportError> {
        let room = spare::room_for(begun.words);
        while begun.arrived / WORD < begun.words {
            grow(&mut begun.memory, begun.arrived, room);
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
mod tests {
    use capnp::message::ReaderSegments;

    use super::*;
    use crate::transport::testing::{bytes_of, numbered, Chunks};

    fn limits() -> Limits {
        Limits::default()
    }

    fn all<R: Read>(stream: R) -> Vec<Vec<Vec<u8>>> {
        let mut reader = FrameReader::new(stream, &limits());
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.push((0..frame.len()).map(|i| frame.get_segment(i as u32).unwrap().to_vec()).collect());
        }
        frames
    }

    #[test]
    fn a_frame_is_ready_when_it_is_in_the_buffer_as_a_whole() {
        let segments = [numbered(3), numbered(0), numbered(5)];
        let messages = bytes_of(&[&segments[..1], &segments[..], &segments[..2]]);
        let two = bytes_of(&[&segments[..1], &segments[..]]).len();
        for len in two..=messages.len() {
            let mut reader = FrameReader::new(&messages[..len], &limits());
            assert!(!reader.is_ready(), "nothing was read");
            reader.next_frame().unwrap().unwrap();
            assert!(reader.is_ready());
            reader.next_frame().unwrap().unwrap();
            assert_eq!(reader.is_ready(), len == messages.len(), "{len} bytes");
        }
    }

    #[test]
    fn frames_split_at_every_byte_come_out_whole() {
        let segments = [numbered(3), numbered(0), numbered(5)];
        let one = bytes_of(&[&segments[..], &segments[..1]]);
        for at in 0..=one.len() {
            let stream = Chunks::new(&one, [at, usize::MAX]);
            assert_eq!(all(stream), [segments.to_vec(), segments[..1].to_vec()], "split at {at}");
        }
        assert_eq!(all(Chunks::new(&one, std::iter::repeat(1))), [segments.to_vec(), segments[..1].to_vec()]);
    }

    /// A stream on which nothing more is there after each piece.
    struct Slow<R>(R, bool);

    impl<R: Read> Read for Slow<R> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.read_vectored(&mut [IoSliceMut::new(buf)])
        }

        fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            match self.0.read_vectored(bufs) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => self.0.read_vectored(bufs),
                read => read,
            }
        }
    }

    #[test]
    fn what_has_arrived_is_kept_where_the_stream_would_block() {
        let large = [numbered(AHEAD_WORDS + 100), numbered(1)];
        let small = [numbered(3), numbered(0), numbered(5)];
        let bytes = bytes_of(&[&small[..], &large[..], &small[..1]]);
        for chunk in [1, 7, 4099, 16385, usize::MAX] {
            let stream = Slow(Chunks::new(&bytes, std::iter::repeat(chunk)), false);
            let mut reader = FrameReader::new(stream, &limits());
            let mut frames: Vec<Vec<Vec<u8>>> = Vec::new();
            let mut waits = 0;
            loop {
                match reader.frame_now().unwrap() {
                    Arrived::Message(frame) => {
                        let segments = 0..frame.len() as u32;
                        frames.push(segments.map(|i| frame.get_segment(i).unwrap().to_vec()).collect());
                    }
                    Arrived::Nothing => waits += 1,
                    Arrived::End => break,
                }
            }
            assert_eq!(frames, [small.to_vec(), large.to_vec(), small[..1].to_vec()], "pieces of {chunk}");
            assert!(waits > 1, "pieces of {chunk}");
        }
    }

    /// A page at first, then more; and a page again when nothing more is there.
    #[test]
    fn many_small_frames_cost_one_read() {
        let segment = [numbered(2)];
        let each = FIRST_BUFFER_WORDS / 3;
        let bytes = bytes_of(&vec![&segment[..]; each + 1 + BUFFER_WORDS / 3]);
        let mut reader = FrameReader::new(Chunks::new(&bytes, std::iter::repeat(usize::MAX)), &limits());
        for i in 0..each + 1 + BUFFER_WORDS / 3 {
            assert_eq!(reader.next_frame().unwrap().unwrap().words(), 2);
            assert_eq!(reader.stream_mut().calls(), if i < each { 1 } else { 2 });
            assert_eq!(reader.buffer.len() >= BUFFER_WORDS, i >= each);
        }
        assert!(reader.next_frame().unwrap().is_none());
        assert_eq!(reader.buffer.len(), FIRST_BUFFER_WORDS);
    }

    /// Who does not wait keeps the larger buffer until it rests.
    #[test]
    fn the_larger_buffer_is_kept_until_there_is_a_rest() {
        let segment = [numbered(100)];
        let bytes = bytes_of(&[&segment[..]; 50]);
        let mut reader = FrameReader::new(Chunks::new(&bytes, std::iter::repeat(usize::MAX)), &limits());
        for i in 0..50 {
            assert!(matches!(reader.frame_now(), Ok(Arrived::Message(_))));
            assert_eq!(reader.buffer.len() >= BUFFER_WORDS, i >= FIRST_BUFFER_WORDS / 101);
            if i < 49 {
                reader.rest();
                assert!(!reader.buffer.is_empty(), "there are messages in it");
            }
        }
        assert!(matches!(reader.frame_now(), Ok(Arrived::End)));
        assert!(reader.buffer.len() >= BUFFER_WORDS);
        reader.rest();
        assert_eq!(reader.buffer.len(), FIRST_BUFFER_WORDS);
    }

    /// Where a large message has begun to arrive there is no rest: what comes behind it goes into the buffer.
    #[test]
    fn there_is_no_rest_within_a_message() {
        let (small, large) = ([numbered(100)], [numbered(SMALL_WORDS + 1)]);
        let bytes = bytes_of(&[&[&small[..]; 7][..], &[&large, &small]].concat());
        let stream = Slow(Chunks::new(&bytes, std::iter::repeat(5000)), false);
        let mut reader = FrameReader::new(stream, &limits());
        let mut messages = 0;
        loop {
            match reader.frame_now().unwrap() {
                Arrived::Message(_) => messages += 1,
                Arrived::Nothing if messages == 7 => reader.rest(),
                Arrived::Nothing => {}
                Arrived::End => break,
            }
        }
        assert_eq!(messages, 9);
    }

    #[test]
    fn a_stream_of_large_frames_costs_one_read_each() {
        let segment = [numbered(9000)];
        let bytes = bytes_of(&[&segment[..]; 20]);
        let mut reader = FrameReader::new(Chunks::new(&bytes, std::iter::repeat(usize::MAX)), &limits());
        for i in 1..=20 {
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!(frame.get_segment(0).unwrap(), segment[0]);
            assert!(reader.stream_mut().calls() <= i + 1);
        }
    }

    #[test]
    fn large_frames_arrive_in_any_pieces() {
        let segments = [numbered(AHEAD_WORDS * 3), numbered(7), numbered(BUFFER_WORDS + 1)];
        let bytes = bytes_of(&[&segments[..], &segments[1..]]);
        for chunk in [1000, 4099, 16385, usize::MAX] {
            let stream = Chunks::new(&bytes, std::iter::repeat(chunk));
            assert_eq!(all(stream), [segments.to_vec(), segments[1..].to_vec()], "pieces of {chunk}");
        }
    }

    #[test]
    fn what_another_message_left_in_memory_is_not_seen() {
        for words in [9000, 8000, 8999, 5000, 4500, 5000] {
            let segments = [numbered(words - 1), numbered(1)];
            let bytes = bytes_of(&[&segments[..]]);
            let stream = Chunks::new(&bytes, std::iter::repeat(30_000));
            let mut reader = FrameReader::new(stream, &limits());
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!(frame.words(), words);
            assert_eq!(frame.get_segment(0).unwrap(), segments[0]);
            assert_eq!(frame.get_segment(1).unwrap(), segments[1]);
        }
    }

    #[test]
    fn memory_grows_with_what_has_arrived() {
        let mut body = Vec::new();
        for arrived in (0..40 << 20).step_by(100_000) {
            grow(&mut body, arrived, usize::MAX);
            assert!(body.len() * WORD > arrived);
            assert!(body.capacity() * WORD <= arrived * 2 + (256 << 10), "after {arrived} bytes");
        }
        grow(&mut body, 0, 10);
        let mut small = Vec::new();
        grow(&mut small, 0, 10);
        assert_eq!((small.len(), small.capacity()), (10, 10));
    }

    #[test]
    fn claims_beyond_the_limits_fail_at_once_and_cost_nothing() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        let mut reader = FrameReader::new(&bytes[..], &limits());
        assert!(matches!(reader.next_frame(), Err(TransportError::BadFrame(_))));
        assert!(reader.lengths.capacity() == 0 && reader.buffer.capacity() <= BUFFER_WORDS);

        let mut bytes = 0u32.to_le_bytes().to_vec();
        bytes.extend(u32::MAX.to_le_bytes());
        let mut reader = FrameReader::new(&bytes[..], &limits());
        let claimed = u64::from(u32::MAX);
        assert!(
            matches!(reader.next_frame(), Err(TransportError::TooLarge { words, .. }) if words == claimed)
        );
        assert!(reader.lengths.capacity() == 0 && reader.buffer.capacity() <= BUFFER_WORDS);
    }

    #[test]
    fn claims_within_wide_limits_cost_what_has_arrived() {
        let limits = Limits { segments: usize::MAX, message_words: usize::MAX, ..limits() };
        for table in [[u32::MAX, 1, 1, 1], [2, u32::MAX, u32::MAX, u32::MAX]] {
            let bytes: Vec<u8> = table.iter().flat_map(|n| n.to_le_bytes()).collect();
            let mut reader = FrameReader::new(&bytes[..], &limits);
            assert!(matches!(reader.next_frame(), Err(TransportError::Truncated)));
            assert!(reader.lengths.capacity() <= 8 && reader.buffer.capacity() <= BUFFER_WORDS);
        }
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let bytes = bytes_of(&[&[numbered(2), numbered(1)][..]]);
        assert!(FrameReader::new(&bytes[..0], &limits()).next_frame().unwrap().is_none());
        for len in 1..bytes.len() {
            let result = FrameReader::new(&bytes[..len], &limits()).next_frame();
            assert!(matches!(result, Err(TransportError::Truncated)), "cut at {len}");
        }
    }

    #[test]
    fn an_empty_message_is_a_message() {
        assert_eq!(all(&[0u8; 8][..]), [[Vec::<u8>::new()]]);
    }
}
