//! One end of a connection without threads, whose messages the test moves by hand: it can be the peer, or stand
//! between two vats and delay, change or cut.

use std::collections::VecDeque;
use std::io;

use super::{side_of, Side};
use crate::conn::Options;
use crate::error::TransportError;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Instant, Mutex, Rank};
use crate::transport::{
    Arrived, EndWatch, Frame, MessageSink, MessageSource, NonblockingSink, NonblockingSource, Outbound,
    PeerAddress, Shutdown, Sink, Source, Transport,
};

/// What a vat has sent and is to receive.
#[derive(Clone)]
pub struct Line(Arc<Ways>);

struct Ways {
    state: Mutex<LineState>,
    /// How many steps of the receive stage find something: messages, and then the end.
    arriving: Arc<AtomicUsize>,
}

#[derive(Default)]
struct LineState {
    sent: VecDeque<Frame>,
    arriving: VecDeque<Frame>,
    cut: bool,
}

/// A vat's end of a connection without threads, and the line that it hangs on. The stages are driven as the options
/// say.
pub fn line(options: Options) -> (Side, Line) {
    let state = Mutex::new(Rank::Queue, LineState::default());
    let line = Line(Arc::new(Ways { state, arriving: Arc::new(AtomicUsize::new(0)) }));
    let (sink, source) = (Sink::nonblocking(line.clone()), Source::nonblocking(line.clone()));
    let transport = Transport::new(sink, source, line.clone(), PeerAddress::InMemory);
    let arriving = line.0.arriving.clone();
    let side = Side { line: Some(line.clone()), ..side_of(transport, options, arriving) };
    (side, line)
}

impl Line {
    /// A message for the vat to receive. Lost if the line is cut.
    pub fn put(&self, message: Frame) {
        let mut state = self.0.state.lock();
        if !state.cut {
            state.arriving.push_back(message);
            self.0.arriving.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The oldest message that the vat has sent and that has not been taken.
    pub fn take(&self) -> Option<Frame> {
        self.0.state.lock().sent.pop_front()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.state.lock().cut
    }

    /// Ends both directions: the vat still receives what is on its way, and then the end.
    pub fn cut(&self) {
        let mut state = self.0.state.lock();
        if !std::mem::replace(&mut state.cut, true) {
            self.0.arriving.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl MessageSink for Line {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        let mut state = self.0.state.lock();
        if state.cut {
            return Err(TransportError::io("sending", io::ErrorKind::BrokenPipe.into()));
        }
        state.sent.extend(batch.iter().map(copy));
        Ok(())
    }
}

impl NonblockingSink for Line {
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        self.send(batch).map(|()| true)
    }
}

impl MessageSource for Line {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        match self.receive_now()? {
            Arrived::Message(message) => Ok(Some(message)),
            Arrived::End => Ok(None),
            Arrived::Nothing => unreachable!("a step waits only once the line is cut"),
        }
    }
}

impl NonblockingSource for Line {
    fn is_ready(&mut self) -> bool {
        !self.0.state.lock().arriving.is_empty()
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        Some(Arc::new(self.clone()))
    }

    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        let mut state = self.0.state.lock();
        Ok(match state.arriving.pop_front() {
            Some(message) => Arrived::Message(message),
            None if state.cut => Arrived::End,
            None => Arrived::Nothing,
        })
    }
}

impl EndWatch for Line {
    fn has_ended(&self) -> bool {
        self.is_cut()
    }

    fn wait_end(&self, _: Option<Instant>) {
        unreachable!("a step waits only once the line is cut");
    }

    fn wake(&self) {}
}

impl Shutdown for Line {
    fn shutdown(&self) {
        self.cut();
    }
}

/// The message as it is received.
pub fn copy(message: &Outbound) -> Frame {
    message.with_segments(|segments| {
        let mut words = capnp::Word::allocate_zeroed_vec(segments.iter().map(|s| s.len() / 8).sum());
        capnp::Word::words_to_bytes_mut(&mut words).copy_from_slice(&segments.concat());
        Frame::new(words, segments.iter().map(|s| s.len() / 8))
    })
}
