//! Tests of `reader`.

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
            reader.release_buffers();
            assert!(!reader.buffer.is_empty(), "there are messages in it");
        }
    }
    assert!(matches!(reader.frame_now(), Ok(Arrived::End)));
    assert!(reader.buffer.len() >= BUFFER_WORDS);
    reader.release_buffers();
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
            Arrived::Nothing if messages == 7 => reader.release_buffers(),
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
    assert!(matches!(reader.next_frame(), Err(TransportError::TooLarge { words, .. }) if words == claimed));
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
