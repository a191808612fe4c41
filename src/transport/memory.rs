//! Transports within this process: two queues.

use std::collections::VecDeque;
use std::io;

use capnp::Word;

use super::{
    Arrived, EndWatch, MessageSink, MessageSource, NonblockingSink, NonblockingSource, PeerAddress,
    Readiness, Shutdown, Sink, Source, Transport,
};
use crate::error::TransportError;
use crate::sync::{Arc, Condvar, Instant, Mutex, Rank};
use crate::wire::fast::buffer_pool;
use crate::wire::frame::{Frame, Outbound};

impl Transport {
    /// Two transports that lead to each other, without a socket between them. Each message is copied once,
    /// so that sender and receiver own their memory. The queues are unbounded: a send never waits.
    ///
    /// What was sent before either end was shut down, or the sending half dropped, can still be received.
    #[must_use]
    pub fn in_memory() -> (Transport, Transport) {
        let (a, b) = (Arc::new(Way::new()), Arc::new(Way::new()));
        (end(a.clone(), b.clone()), end(b, a))
    }
}

fn end(to_peer: Arc<Way>, from_peer: Arc<Way>) -> Transport {
    let (sink, source) = (MemorySink(to_peer.clone()), MemorySource(from_peer.clone()));
    let shutdown = MemoryShutdown([to_peer, from_peer]);
    Transport::new(Sink::nonblocking(sink), Source::nonblocking(source), shutdown, PeerAddress::InMemory)
}

/// What is on its way in one direction.
struct Way {
    state: Mutex<Frames>,
    changed: Condvar,
}

#[derive(Default)]
struct Frames {
    frames: VecDeque<Frame>,
    closed: bool,
    /// See [`Readiness`].
    armed: bool,
    /// A wait is to end, in each way to wait.
    wakes_wait: bool,
    wakes_armed: bool,
    wakes_end_watch: bool,
}

impl Way {
    fn new() -> Self {
        Way { state: Mutex::new(Rank::Queue, Frames::default()), changed: Condvar::new() }
    }

    fn extend(&self, frames: Vec<Frame>) -> Result<(), TransportError> {
        let mut state = self.state.lock();
        if state.closed {
            let source = io::Error::new(io::ErrorKind::BrokenPipe, "the transport was shut down");
            return Err(TransportError::io("sending", source));
        }
        state.frames.extend(frames);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The next frame, once there is one; `None` at the end.
    fn pop(&self) -> Option<Frame> {
        let mut state = self.state.lock();
        loop {
            match state.pop() {
                Arrived::Nothing => self.changed.wait(&mut state),
                Arrived::Message(frame) => return Some(frame),
                Arrived::End => return None,
            }
        }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Frames {
    fn pop(&mut self) -> Arrived {
        match self.frames.pop_front() {
            Some(frame) => Arrived::Message(frame),
            None if self.closed => Arrived::End,
            None => Arrived::Nothing,
        }
    }

    fn readable(&self) -> bool {
        self.closed || !self.frames.is_empty()
    }
}

impl Readiness for Way {
    fn wait_armed(&self) {
        let mut state = self.state.lock();
        while !(state.armed && state.readable() || state.wakes_armed) {
            self.changed.wait(&mut state);
        }
        (state.armed, state.wakes_armed) = (false, false);
    }

    fn arm(&self) {
        self.state.lock().armed = true;
        self.changed.notify_all();
    }

    fn disarm(&self) {
        self.state.lock().armed = false;
    }

    fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while !state.readable() && !state.wakes_wait {
            if self.changed.wait_until(&mut state, deadline) {
                return;
            }
        }
        state.wakes_wait = false;
    }

    fn wake(&self) {
        let mut state = self.state.lock();
        (state.wakes_wait, state.wakes_armed) = (true, true);
        drop(state);
        self.changed.notify_all();
    }
}

impl EndWatch for Way {
    fn has_ended(&self) -> bool {
        self.state.lock().closed
    }

    fn wait_end(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while !state.closed && !state.wakes_end_watch {
            if self.changed.wait_until(&mut state, deadline) {
                return;
            }
        }
        state.wakes_end_watch = false;
    }

    fn wake(&self) {
        self.state.lock().wakes_end_watch = true;
        self.changed.notify_all();
    }
}

struct MemorySink(Arc<Way>);

impl MessageSink for MemorySink {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        let frames = batch.iter().map(|outbound| outbound.with_parts(copied)).collect();
        self.0.extend(frames)
    }
}

impl NonblockingSink for MemorySink {
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        self.send(batch).map(|()| true)
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn copied(first: [&[u8]; 3], others: &[&[u8]]) -> Frame {
    let first_words = first.iter().map(|part| part.len()).sum::<usize>() / 8;
    let lengths = std::iter::once(first_words).chain(others.iter().map(|segment| segment.len() / 8));
    let total = lengths.clone().sum();
    let mut words =
        buffer_pool::take(total).unwrap_or_else(|| Word::allocate_zeroed_vec(buffer_pool::room_for(total)));
    let mut rest = Word::words_to_bytes_mut(&mut words);
    for piece in first.iter().chain(others) {
        let (here, after) = rest.split_at_mut(piece.len());
        here.copy_from_slice(piece);
        rest = after;
    }
    Frame::new(words, lengths)
}

struct MemorySource(Arc<Way>);

impl MessageSource for MemorySource {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        Ok(self.0.pop())
    }
}

impl NonblockingSource for MemorySource {
    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        Ok(self.0.state.lock().pop())
    }

    fn is_ready(&mut self) -> bool {
        !self.0.state.lock().frames.is_empty()
    }

    fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        Some(self.0.clone())
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        Some(self.0.clone())
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct MemoryShutdown([Arc<Way>; 2]);

impl Shutdown for MemoryShutdown {
    fn shutdown(&self) {
        self.0.iter().for_each(|way| way.close());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::transport::testing::{message, segmented, text};

    fn received(t: &mut Transport) -> Option<String> {
        t.source.receive().unwrap().map(text)
    }

    #[cfg(not(shuttle))]
    #[test]
    fn messages_arrive_in_order_both_ways() {
        let (mut a, mut b) = Transport::in_memory();
        a.sink.send(&[message("1"), segmented("two")]).unwrap();
        a.sink.send(&[message("3")]).unwrap();
        b.sink.send(&[message("back")]).unwrap();
        assert_eq!(received(&mut a).unwrap(), "back");
        for expected in ["1", "two", "3"] {
            assert_eq!(received(&mut b).unwrap(), expected);
        }
    }

    #[cfg(not(shuttle))]
    #[test]
    fn after_shutdown_what_was_sent_is_drained_and_nothing_is_let_in() {
        let (mut a, mut b) = Transport::in_memory();
        a.sink.send(&[message("last")]).unwrap();
        a.shutdown.shutdown();
        b.shutdown.shutdown();
        assert!(a.sink.send(&[message("later")]).is_err());
        assert!(b.sink.send(&[message("later")]).is_err());
        assert_eq!(received(&mut b).unwrap(), "last");
        assert_eq!(received(&mut b), None);
        assert_eq!(received(&mut a), None);
    }

    #[cfg(not(shuttle))]
    #[test]
    fn a_dropped_half_is_noticed() {
        let (a, mut b) = Transport::in_memory();
        drop(a.sink);
        assert_eq!(received(&mut b), None);
        b.sink.send(&[message("heard")]).unwrap();
        drop(a.source);
        assert!(b.sink.send(&[message("unheard")]).is_err());
    }

    /// Whatever the threads' order, what was sent before the end arrives, in order, and then the end.
    #[cfg(shuttle)]
    #[test]
    fn order_and_end_hold_in_any_interleaving() {
        let check = || {
            let (mut a, mut b) = Transport::in_memory();
            let send = move || {
                a.sink.send(&[message("1"), segmented("2")]).unwrap();
                a.sink.send(&[message("3")]).unwrap();
                a.shutdown.shutdown();
            };
            let sender = crate::sync::spawn("sender", crate::sync::Role::User, send).unwrap();
            let all: Vec<_> = std::iter::from_fn(|| received(&mut b)).collect();
            assert_eq!(all, ["1", "2", "3"]);
            sender.join().unwrap();
        };
        crate::sync::check_random(check, 500);
    }
}

/// Every order of the threads' steps: whoever waits finds what was sent, and the end.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, spawn, Role};

    fn frame(word: u8) -> Frame {
        Frame::new(vec![capnp::word(word, 0, 0, 0, 0, 0, 0, 0)], [1])
    }

    #[test]
    fn loom_armed_wait_ends_for_each_message_and_the_end() {
        check_all(|| {
            let way = Arc::new(Way::new());
            let far = way.clone();
            let sending = spawn("sending", Role::User, move || {
                far.extend(vec![frame(1)]).unwrap();
                far.close();
            });
            let mut received = 0;
            loop {
                way.arm();
                way.wait_armed();
                match way.state.lock().pop() {
                    Arrived::Message(_) => received += 1,
                    Arrived::Nothing => panic!("the wait ended for nothing"),
                    Arrived::End => break,
                }
            }
            assert_eq!(received, 1);
            sending.unwrap().join().unwrap();
        });
    }

    #[test]
    fn loom_wake_up_ends_a_wait_of_each_kind() {
        check_all(|| {
            let way = Arc::new(Way::new());
            let far = way.clone();
            let waking = spawn("waking", Role::User, move || Readiness::wake(&*far)).unwrap();
            way.wait(None);
            way.wait_armed();
            waking.join().unwrap();
        });
    }
}
