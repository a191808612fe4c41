//! Bytes of a stream, and one message.

use std::io::{self, Read};

use capnp::message::ReaderSegments;
use capnp::Word;
use capnp_threads::testing::parts::{decode, decode_both};
use capnp_threads::transport::{Arrived, FrameReader};
use capnp_threads::{Limits, TransportError};

/// Small, so that inputs of a few hundred bytes cross them.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_words = 256;
    limits.segments = 8;
    limits.traversal_words = 2048;
    limits.nesting = 16;
    limits
}

/// Splits the input into a plan of reads and a stream, and reads the stream at once and by the plan.
pub fn frames(data: &[u8]) {
    let Some((&plan, rest)) = data.split_first() else { return };
    let (plan, stream) = rest.split_at(rest.len().min(usize::from(plan % 32)));
    let whole = read_all(stream, &[]);
    let pieces = read_all(stream, plan);
    assert_eq!(whole, pieces, "the same stream, read whole and in pieces");
    for segments in whole.0 {
        let words: usize = segments.iter().map(|segment| segment.len() / 8).sum();
        assert!(words <= limits().message_words && segments.len() <= limits().segments);
        let frame = capnp_threads::transport::Frame::new(
            words_of(&segments.concat()),
            segments.iter().map(|segment| segment.len() / 8),
        );
        // Decoded or refused.
        let _ = decode(frame, &limits());
    }
}

/// One message of one segment, decoded in both ways.
pub fn message(data: &[u8]) {
    decode_both(&words_of(data), &limits());
}

fn words_of(bytes: &[u8]) -> Vec<Word> {
    let mut words = Word::allocate_zeroed_vec(bytes.len() / 8);
    let whole = words.len() * 8;
    Word::words_to_bytes_mut(&mut words).copy_from_slice(&bytes[..whole]);
    words
}

type Messages = Vec<Vec<Vec<u8>>>;

/// All messages of a stream as their segments, and how it ended. Each byte of the plan is the most that one read
/// gives; zero, that nothing has arrived yet.
fn read_all(stream: &[u8], plan: &[u8]) -> (Messages, Result<(), String>) {
    let mut reader = FrameReader::new(Pieces { stream, plan }, &limits());
    let mut messages = Vec::new();
    loop {
        match reader.frame_now() {
            Ok(Arrived::Message(frame)) => {
                let segment = |i| frame.get_segment(i as u32).expect("it has so many").to_vec();
                messages.push((0..frame.len()).map(segment).collect());
            }
            Ok(Arrived::Nothing) => {}
            Ok(Arrived::End) => return (messages, Ok(())),
            Err(e) => return (messages, Err(shown(&e))),
        }
    }
}

fn shown(error: &TransportError) -> String {
    error.to_string()
}

/// A stream that gives what it has in pieces.
struct Pieces<'a> {
    stream: &'a [u8],
    plan: &'a [u8],
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = match self.plan.split_first() {
            None => buffer.len(),
            Some((&most, rest)) => {
                self.plan = rest;
                if most == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                usize::from(most).min(buffer.len())
            }
        };
        self.stream.read(&mut buffer[..most])
    }
}
