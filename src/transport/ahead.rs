//! Reading ahead, to find out whether the next message is there.
//!
//! ```text
//! Note [Reading ahead]
//! ====================
//! What handling a message leaves to be sent waits while the next message is there already, and leaves together with
//! what that leaves (Note [Lending]). Of small messages the buffer says whether one is there. A large one has only
//! begun in the buffer, so the rest is read, without waiting: if all of it comes, that is the next message, and if not,
//! what has come is not read again. So a stream of large messages that arrives faster than it is dealt with is answered
//! in batches, with no system call more.
//!
//! Answers must not wait for ever while more arrives: the sender may have a window. So after 256 KiB nothing is read
//! ahead, once.
//! ```

use super::Arrived;
use crate::error::TransportError;

/// How many words are read ahead before answers go out.
const MOST_WORDS: usize = 32 << 10;

/// What was read to find out whether it is there. See Note [Reading ahead].
#[derive(Default)]
pub(super) struct Ahead {
    next: Option<Result<Arrived, TransportError>>,
    /// How many words were, since last it was said that nothing is there.
    words: usize,
}

impl Ahead {
    /// What was read.
    pub(super) fn take(&mut self) -> Option<Result<Arrived, TransportError>> {
        self.next.take()
    }

    /// Whether something has been read.
    pub(super) fn is_there(&self) -> bool {
        self.next.is_some()
    }

    /// Reads, with what does not wait, if it is not time to send. Whether a message, or the end, is there.
    pub(super) fn read(&mut self, read: impl FnOnce() -> Result<Arrived, TransportError>) -> bool {
        let next = if self.words < MOST_WORDS { read() } else { Ok(Arrived::Nothing) };
        match &next {
            Ok(Arrived::Nothing) => {
                self.words = 0;
                return false;
            }
            Ok(Arrived::Message(frame)) => self.words += frame.words(),
            Ok(Arrived::End) | Err(_) => {}
        }
        self.next = Some(next);
        true
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::limits::Limits;
    use crate::sync::{spawn, Role};
    use crate::transport::testing::{bytes_of, numbered};
    use crate::transport::{NonblockingSource, Source, Transport};

    const WORDS: usize = 5000;

    fn source() -> (UnixStream, Box<dyn NonblockingSource>) {
        let (a, b) = UnixStream::pair().unwrap();
        match Transport::unix(b, &Limits::default()).unwrap().source {
            Source::Nonblocking(source) => (a, source),
            Source::Blocking(_) => panic!("a socket can be read without waiting"),
        }
    }

    fn message() -> Vec<u8> {
        bytes_of(&[&[numbered(WORDS)][..]])
    }

    fn receive(source: &mut dyn NonblockingSource) {
        assert_eq!(source.receive().unwrap().unwrap().words(), WORDS);
    }

    #[test]
    fn a_message_is_there_once_its_last_byte_is() {
        let (mut stream, mut source) = source();
        let (message, then) = (message(), message());
        stream.write_all(&message).unwrap();
        stream.write_all(&then[..2000]).unwrap();
        receive(&mut *source);
        assert!(!source.is_ready());
        stream.write_all(&then[2000..then.len() - 1]).unwrap();
        assert!(!source.is_ready());
        stream.write_all(&then[then.len() - 1..]).unwrap();
        assert!(source.is_ready());
        assert!(source.is_ready());
        receive(&mut *source);
        assert!(!source.is_ready());
        stream.write_all(&message).unwrap();
        receive(&mut *source);
    }

    #[test]
    fn what_was_not_there_is_waited_for() {
        let (mut stream, mut source) = source();
        let message = message();
        stream.write_all(&message).unwrap();
        stream.write_all(&message[..2000]).unwrap();
        receive(&mut *source);
        assert!(!source.is_ready());
        let rest = move || stream.write_all(&message[2000..]).unwrap();
        let rest = spawn("rest", Role::User, rest).unwrap();
        receive(&mut *source);
        rest.join().unwrap();
        assert!(source.receive().unwrap().is_none());
    }

    #[test]
    fn an_end_inside_a_message_is_there_too() {
        let (mut stream, mut source) = source();
        let message = message();
        stream.write_all(&message).unwrap();
        stream.write_all(&message[..2000]).unwrap();
        receive(&mut *source);
        drop(stream);
        assert!(source.is_ready());
        assert!(matches!(source.receive(), Err(TransportError::Truncated)));
    }

    #[test]
    fn there_is_time_to_answer_while_more_arrives() {
        let (mut stream, mut source) = source();
        let send = move || (0..100).for_each(|_| stream.write_all(&message()).unwrap());
        let send = spawn("send", Role::User, send).unwrap();
        let mut together = 0;
        for _ in 0..100 {
            receive(&mut *source);
            together = if source.is_ready() { together + WORDS } else { 0 };
            assert!(together < MOST_WORDS + WORDS);
        }
        send.join().unwrap();
        assert!(source.receive().unwrap().is_none());
    }

    #[test]
    fn reading_stops_once_after_so_much() {
        let mut ahead = Ahead::default();
        let frame =
            |words| crate::wire::frame::Frame::new(vec![capnp::word(0, 0, 0, 0, 0, 0, 0, 0); words], [words]);
        let mut read = |words| ahead.read(|| Ok(Arrived::Message(frame(words))));
        assert!(read(MOST_WORDS - 1));
        assert!(read(1));
        assert!(!read(1));
        assert!(read(1));
    }
}
