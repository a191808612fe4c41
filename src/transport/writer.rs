//! Writing the stream framing of Cap'n Proto. See Note [Stream framing].

use std::io::{self, ErrorKind, IoSlice, Write};

use crate::wire::frame::Outbound;

/// Segments shorter than this are copied together before they are written; longer ones are written from
/// where they are. Copying so few bytes costs less than one more piece does.
const COPY_BELOW: usize = 2048;
/// How many bytes are copied together before they are written.
const COPIED_BYTES: usize = 64 << 10;
/// How many segments are written from where they are at once: with what is copied between them, less than
/// the 1024 pieces that systems take.
const BORROWED_SEGMENTS: usize = 500;

/// Writes messages to a stream of bytes, as [`FrameReader`](super::FrameReader) reads them.
///
/// Small messages are copied into one piece, large segments are written from where they are, and as much as
/// possible goes into one (vectored) write.
#[derive(Default)]
pub struct FrameWriter {
    /// Segment tables and short segments; its memory is used again.
    copied: Vec<u8>,
}

/// A long segment, and how many of the copied bytes go before it.
type Borrowed<'a> = (usize, &'a [u8]);

impl FrameWriter {
    /// A writer with no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes all messages of the batch, in order, and flushes the stream.
    ///
    /// # Errors
    /// When the stream refuses. How much of the batch it took is unknown.
    ///
    /// # Blocking
    /// Until the stream has taken every byte.
    pub fn write_batch(&mut self, stream: &mut impl Write, batch: &[Outbound]) -> io::Result<()> {
        let mut borrowed = Vec::new();
        self.copied.clear();
        for outbound in batch {
            outbound.with_parts(|first, others| self.add(stream, first, others, &mut borrowed))?;
        }
        self.write_pieces(stream, &mut borrowed)?;
        stream.flush()
    }

    /// Adds a message to what is to be written, and writes when that has become enough.
    fn add<'a>(
        &mut self,
        stream: &mut impl Write,
        first: [&'a [u8]; 3],
        others: &[&'a [u8]],
        borrowed: &mut Vec<Borrowed<'a>>,
    ) -> io::Result<()> {
        self.table(first.iter().map(|part| part.len()).sum(), others);
        for piece in first.iter().chain(others) {
            if piece.len() < COPY_BELOW {
                self.copied.extend_from_slice(piece);
            } else {
                borrowed.push((self.copied.len(), piece));
            }
            if self.copied.len() >= COPIED_BYTES || borrowed.len() >= BORROWED_SEGMENTS {
                self.write_pieces(stream, borrowed)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, first: usize, others: &[&[u8]]) {
        self.number(others.len());
        self.number(first / 8);
        for segment in others {
            self.number(segment.len() / 8);
        }
        if others.len() % 2 == 1 {
            self.number(0);
        }
    }

    fn number(&mut self, n: usize) {
        self.copied.extend_from_slice(&(n as u32).to_le_bytes());
    }

    /// Writes what is copied and what is borrowed, and forgets both.
    fn write_pieces(&mut self, stream: &mut impl Write, borrowed: &mut Vec<Borrowed<'_>>) -> io::Result<()> {
        if borrowed.is_empty() {
            stream.write_all(&self.copied)?;
        } else {
            write_all_vectored(stream, &mut interleave(&self.copied, borrowed))?;
            borrowed.clear();
        }
        self.copied.clear();
        Ok(())
    }
}

fn interleave<'a>(copied: &'a [u8], borrowed: &[Borrowed<'a>]) -> Vec<IoSlice<'a>> {
    let mut pieces = Vec::with_capacity(borrowed.len() * 2 + 1);
    let mut done = 0;
    for (before, segment) in borrowed {
        pieces.push(IoSlice::new(&copied[done..*before]));
        pieces.push(IoSlice::new(segment));
        done = *before;
    }
    pieces.push(IoSlice::new(&copied[done..]));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn write_all_vectored(stream: &mut impl Write, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !pieces.is_empty() {
        match stream.write_vectored(pieces) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut pieces, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::transport::testing::{message, read_back, segmented};

    /// Takes at most so many bytes of each write, and every third time none, for a signal.
    struct Reluctant {
        most: usize,
        calls: usize,
        taken: Vec<u8>,
        flushed: bool,
    }

    impl Reluctant {
        fn new(most: usize) -> Self {
            Reluctant { most, calls: 0, taken: Vec::new(), flushed: false }
        }
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            assert!(pieces.len() <= 1024);
            self.calls += 1;
            if self.calls % 3 == 0 {
                return Err(ErrorKind::Interrupted.into());
            }
            let before = self.taken.len();
            for piece in pieces {
                let room = self.most - (self.taken.len() - before);
                self.taken.extend(&piece[..piece.len().min(room)]);
            }
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed = true;
            Ok(())
        }
    }

    fn written(writer: &mut FrameWriter, most: usize, batch: &[Outbound]) -> Reluctant {
        let mut stream = Reluctant::new(most);
        writer.write_batch(&mut stream, batch).unwrap();
        assert!(stream.flushed);
        stream
    }

    #[test]
    fn partial_writes_lose_nothing() {
        let texts = ["a".repeat(5000), String::new(), "b".repeat(30), "c".repeat(COPY_BELOW)];
        let mut batch: Vec<_> = texts.iter().map(|t| message(t)).collect();
        batch.push(segmented(&texts[0]));
        let mut expected: Vec<_> = texts.to_vec();
        expected.push(texts[0].clone());
        let mut writer = FrameWriter::new();
        for most in (1..50).chain([100, 1000, 5000, 5100, usize::MAX]) {
            assert_eq!(read_back(&written(&mut writer, most, &batch).taken), expected, "writes of {most}");
        }
    }

    #[test]
    fn small_messages_share_one_write() {
        let batch: Vec<_> = (0..100).map(|i| message(&i.to_string())).collect();
        assert_eq!(written(&mut FrameWriter::new(), usize::MAX, &batch).calls, 1);
    }

    #[test]
    fn large_segments_are_not_copied() {
        let batch: Vec<_> = (0..10).map(|_| message(&"x".repeat(10_000))).collect();
        let mut writer = FrameWriter::new();
        assert_eq!(written(&mut writer, usize::MAX, &batch).calls, 1);
        assert!(writer.copied.capacity() < 1000);
    }

    #[test]
    fn huge_batches_are_cut() {
        let texts: Vec<_> = (0..1200).map(|i| "y".repeat(COPY_BELOW * (i % 2) + 100)).collect();
        let batch: Vec<_> = texts.iter().map(|t| message(t)).collect();
        let mut writer = FrameWriter::new();
        let stream = written(&mut writer, usize::MAX, &batch);
        assert_eq!(read_back(&stream.taken), texts);
        assert!(writer.copied.capacity() <= 4 * COPIED_BYTES);
    }

    #[test]
    fn an_empty_batch_writes_nothing() {
        assert!(written(&mut FrameWriter::new(), 1, &[]).taken.is_empty());
    }

    #[test]
    fn a_stream_that_takes_nothing_is_an_error() {
        for text in ["short".to_owned(), "z".repeat(5000)] {
            let mut stream = Reluctant::new(0);
            let e = FrameWriter::new().write_batch(&mut stream, &[message(&text)]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::WriteZero);
        }
    }
}
