//! A transport that shows each message to a callback.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::BorrowedFd;

use super::{
    Arrived, EndWatch, Frame, MessageSink, MessageSource, NonblockingSink, NonblockingSource, Outbound,
    Readiness, Sink, Source, Transport,
};
use crate::error::TransportError;
use crate::sync::{assert_unlocked, panicked, Arc};

mod describe;
mod parts;
mod untyped;

pub use describe::{MessageKind, TraceMessage};

/// What [`Transport::traced`] shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceOptions {
    /// Whether the content of params and results is shown too. It is shown without its schema, since rpc.capnp
    /// does not know it, and cut after some thousand characters.
    pub payloads: bool,
}

impl TraceOptions {
    /// Shows everything but the content of params and results.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`payloads`](Self::payloads).
    #[must_use]
    pub fn payloads(mut self, payloads: bool) -> Self {
        self.payloads = payloads;
        self
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From us to the peer.
    Sent,
    /// From the peer to us.
    Received,
}

/// One thing that happened on a transport. Its `Display` is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TraceEvent {
    /// Which way.
    pub direction: Direction,
    /// How many messages went this way before.
    pub sequence: u64,
    /// What happened.
    pub what: Traced,
}

/// What happened on a transport.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Traced {
    /// A message is about to be sent, or was received.
    Message(TraceMessage),
    /// Nothing more goes this way: the peer ended the stream, or there was an error. After an error while
    /// sending, the last messages may not have been sent.
    Ended(Option<TransportError>),
}

impl TraceEvent {
    /// The message, unless this is the end.
    pub fn message(&self) -> Option<&TraceMessage> {
        match &self.what {
            Traced::Message(message) => Some(message),
            Traced::Ended(_) => None,
        }
    }

    /// See [`TraceMessage::kind`].
    pub fn kind(&self) -> Option<MessageKind> {
        self.message().map(TraceMessage::kind)
    }

    /// See [`TraceMessage::question_id`].
    pub fn question_id(&self) -> Option<u32> {
        self.message().and_then(TraceMessage::question_id)
    }

    /// See [`TraceMessage::interface_id`].
    pub fn interface_id(&self) -> Option<u64> {
        self.message().and_then(TraceMessage::interface_id)
    }

    /// See [`TraceMessage::method_id`].
    pub fn method_id(&self) -> Option<u16> {
        self.message().and_then(TraceMessage::method_id)
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        write!(f, "{direction} {}: ", self.sequence)?;
        match &self.what {
            Traced::Message(message) => message.fmt(f),
            Traced::Ended(None) => f.write_str("end"),
            Traced::Ended(Some(e)) => write!(f, "error: {e}"),
        }
    }
}

impl Transport {
    /// The same transport, showing each message to `callback`: before it is sent, after it was received, and
    /// in the order of each direction. The end of a direction is shown once.
    ///
    /// The messages take the same paths as without it. So the callback runs on whichever thread sends or receives: the
    /// connection's own, or that of a caller, which may hold locks of yours. Both directions may be shown at the same
    /// time. The callback holds up all other messages of its direction, so it must neither wait, for a lock that is held
    /// during a call least of all, nor make calls. A panic in it is logged, and changes nothing else.
    ///
    /// ```
    /// use capnp_threads::transport::{TraceOptions, Transport};
    ///
    /// let (here, there) = Transport::in_memory();
    /// let here = here.traced(|event| eprintln!("{event}"), TraceOptions::new());
    /// ```
    #[must_use]
    pub fn traced(
        self,
        callback: impl Fn(&TraceEvent) + Send + Sync + 'static,
        options: TraceOptions,
    ) -> Transport {
        let callback: Callback = Arc::new(callback);
        let direction =
            |direction| Trace { callback: callback.clone(), direction, options, messages: 0, ended: false };
        let (sent, received) = (direction(Direction::Sent), direction(Direction::Received));
        let sink = match self.sink {
            Sink::Blocking(sink) => Sink::blocking(TracedSink { sink, trace: sent }),
            Sink::Nonblocking(sink) => Sink::nonblocking(TracedSink { sink, trace: sent }),
        };
        let source = match self.source {
            Source::Blocking(source) => Source::blocking(TracedSource { source, trace: received }),
            Source::Nonblocking(source) => Source::nonblocking(TracedSource { source, trace: received }),
        };
        Transport { sink, source, ..self }
    }
}

type Callback = Arc<dyn Fn(&TraceEvent) + Send + Sync>;

/// One direction of a traced transport.
struct Trace {
    callback: Callback,
    direction: Direction,
    options: TraceOptions,
    messages: u64,
    ended: bool,
}

impl Trace {
    fn message(&mut self, segments: &[&[u8]]) {
        self.show(Traced::Message(TraceMessage::new(segments, self.options)));
        self.messages += 1;
    }

    fn ended(&mut self, error: Option<&TransportError>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.show(Traced::Ended(error.cloned()));
        }
    }

    fn show(&self, what: Traced) {
        assert_unlocked();
        let event = TraceEvent { direction: self.direction, sequence: self.messages, what };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.callback)(&event))) {
            panicked(&format!("the trace callback (at {event})"), panic);
        }
    }
}

struct TracedSink<S: ?Sized> {
    trace: Trace,
    sink: Box<S>,
}

impl<S: ?Sized> TracedSink<S> {
    /// Shows what is about to be sent, sends it with `send`, and shows if that has failed.
    fn sent<R>(
        &mut self,
        batch: &[Outbound],
        send: impl FnOnce(&mut S) -> Result<R, TransportError>,
    ) -> Result<R, TransportError> {
        for outbound in batch {
            outbound.with_segments(|segments| self.trace.message(segments));
        }
        send(&mut self.sink).inspect_err(|e| self.trace.ended(Some(e)))
    }
}

impl<S: MessageSink + ?Sized> MessageSink for TracedSink<S> {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        self.sent(batch, |sink| sink.send(batch))
    }
}

impl<S: NonblockingSink + ?Sized> NonblockingSink for TracedSink<S> {
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        self.sent(batch, |sink| sink.send_now(batch))
    }
}

struct TracedSource<S: ?Sized> {
    trace: Trace,
    source: Box<S>,
}

impl<S: MessageSource + ?Sized> MessageSource for TracedSource<S> {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        let received = self.source.receive();
        match &received {
            Ok(Some(frame)) => self.trace.message(&segments(frame)),
            Ok(None) => self.trace.ended(None),
            Err(e) => self.trace.ended(Some(e)),
        }
        received
    }
}

impl<S: NonblockingSource + ?Sized> NonblockingSource for TracedSource<S> {
    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        let received = self.source.receive_now();
        match &received {
            Ok(Arrived::Message(frame)) => self.trace.message(&segments(frame)),
            Ok(Arrived::Nothing) => {}
            Ok(Arrived::End) => self.trace.ended(None),
            Err(e) => self.trace.ended(Some(e)),
        }
        received
    }

    fn is_ready(&mut self) -> bool {
        self.source.is_ready()
    }

    fn is_drained(&self) -> bool {
        self.source.is_drained()
    }

    fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        self.source.readiness()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.source.descriptor()
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        self.source.end_watch()
    }

    fn release_buffers(&mut self) {
        self.source.release_buffers();
    }
}

fn segments(frame: &Frame) -> Vec<&[u8]> {
    use capnp::message::ReaderSegments;
    (0..frame.segments()).filter_map(|i| frame.get_segment(i as u32)).collect()
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use capnp::message::Builder;

    use super::*;
    use crate::generated::rpc_capnp::message;
    use crossbeam_channel::{unbounded, Receiver};

    use crate::sync::{Mutex, Rank};
    use crate::transport::testing::outbound;

    fn built(fill: impl FnOnce(message::Builder<'_>)) -> Outbound {
        let mut builder = Builder::new_default();
        fill(builder.init_root());
        outbound(builder)
    }

    fn bootstrap(question: u32) -> Outbound {
        built(|m| m.init_bootstrap().set_question_id(question))
    }

    fn call() -> Outbound {
        built(|m| {
            let mut call = m.init_call();
            call.set_question_id(5);
            call.set_interface_id(0xabcd);
            call.set_method_id(2);
            let mut answer = call.reborrow().init_target().init_promised_answer();
            answer.set_question_id(3);
            answer.init_transform(1).get(0).set_get_pointer_field(7);
            let mut params = call.init_params();
            params.reborrow().get_content().set_as::<capnp::text::Owned>("secret").unwrap();
            let mut caps = params.init_cap_table(2);
            caps.reborrow().get(0).set_sender_hosted(8);
            caps.get(1).set_receiver_hosted(9);
        })
    }

    /// The lines that are shown for a message, sent with and without payloads.
    fn lines(message: Outbound) -> [String; 2] {
        [false, true].map(|payloads| {
            let options = TraceOptions::new().payloads(payloads);
            message.with_segments(|segments| TraceMessage::new(segments, options).to_string())
        })
    }

    type Events = Receiver<TraceEvent>;

    fn recorded(events: &Events) -> Vec<String> {
        events.try_iter().map(|event| event.to_string()).collect()
    }

    fn traced(transport: Transport) -> (Transport, Events) {
        let (sink, events) = unbounded();
        (transport.traced(move |e| sink.send(e.clone()).unwrap(), TraceOptions::new()), events)
    }

    #[test]
    fn each_direction_is_shown_in_order_with_its_end() {
        let (here, mut there) = Transport::in_memory();
        let (mut here, events) = traced(here);
        here.sink.send(&[bootstrap(1), bootstrap(2)]).unwrap();
        there.sink.send(&[bootstrap(3)]).unwrap();
        here.sink.send(&[bootstrap(4)]).unwrap();
        here.source.receive().unwrap().unwrap();
        there.shutdown.shutdown();
        assert!(here.source.receive().unwrap().is_none());
        assert!(here.source.receive().unwrap().is_none());
        assert!(here.sink.send(&[bootstrap(5)]).is_err());
        let expected = [
            "sent 0: Bootstrap question 1 (3 words)",
            "sent 1: Bootstrap question 2 (3 words)",
            "sent 2: Bootstrap question 4 (3 words)",
            "received 0: Bootstrap question 3 (3 words)",
            "received 1: end",
            "sent 3: Bootstrap question 5 (3 words)",
            "sent 4: error: sending: the transport was shut down",
        ];
        let words = |line: String| line.rsplit_once(" (").map_or(line.clone(), |(l, _)| l.into());
        let found: Vec<_> = recorded(&events).into_iter().map(words).collect();
        assert_eq!(found, expected.map(|line| words(line.into())));
    }

    #[test]
    fn the_parts_of_a_call_can_be_asked_for() {
        let (here, _there) = Transport::in_memory();
        let (mut here, events) = traced(here);
        let call = call();
        let words = call.words();
        here.sink.send(&[call]).unwrap();
        let event = events.try_recv().unwrap();
        assert_eq!((event.direction, event.sequence), (Direction::Sent, 0));
        assert_eq!(event.kind(), Some(MessageKind::Call));
        assert_eq!((event.question_id(), event.interface_id()), (Some(5), Some(0xabcd)));
        assert_eq!((event.method_id(), event.message().unwrap().words()), (Some(2), words));
    }

    #[test]
    fn payloads_are_shown_only_when_asked_for() {
        let [without, with] = lines(call());
        let start = "Call question 5 to answer 3.7, interface 0xabcd method 2, \
                     capabilities [senderHosted 8, receiverHosted 9]";
        assert!(without.starts_with(&format!("{start} (")), "{without}");
        assert!(with.starts_with(&format!("{start}, content \"secret\" (")), "{with}");
        let [without, with] = lines(built(|m| {
            let results = m.init_return().init_results();
            results.get_content().set_as::<capnp::text::Owned>("secret").unwrap();
        }));
        assert!(without.starts_with("Return question 0, results ("), "{without}");
        assert!(with.starts_with("Return question 0, results, content \"secret\" ("), "{with}");
    }

    #[test]
    fn every_kind_has_a_line() {
        let line = |fill: fn(message::Builder<'_>)| {
            let [line, same] = lines(built(fill));
            assert_eq!(line, same);
            line.rsplit_once(" (").unwrap().0.to_owned()
        };
        assert_eq!(line(|m| m.init_abort().set_reason("no\nmore")), r#"Abort, exception failed: "no\nmore""#);
        assert_eq!(line(|m| m.init_unimplemented().init_call().set_question_id(1)), "Unimplemented Call");
        assert_eq!(line(|m| m.init_release().set_id(4)), "Release of capability 4, 0 references");
        assert_eq!(line(|m| m.init_resolve().set_promise_id(6)), "Resolve of promise 6 to none");
        let disembargo = "Disembargo of capability 0, sender loopback 9";
        assert_eq!(line(|m| m.init_disembargo().init_context().set_sender_loopback(9)), disembargo);
        let canceled = "Return question 0, canceled, keeping the params' capabilities";
        let cancel = |m: message::Builder<'_>| {
            let mut m = m.init_return();
            m.set_canceled(());
            m.set_release_param_caps(false);
        };
        assert_eq!(line(cancel), canceled);
        let finish = "Finish question 2, releasing the results' capabilities";
        let finished = |m: message::Builder<'_>| {
            let mut m = m.init_finish();
            m.set_question_id(2);
            m.set_require_early_cancellation_workaround(false);
        };
        assert_eq!(line(finished), finish);
        assert_eq!(line(|m| m.init_accept().set_question_id(1)), "Accept question 1");
    }

    #[test]
    fn what_is_not_understood_is_shown_as_such() {
        let line =
            |segments: &[&[u8]]| TraceMessage::new(segments, TraceOptions::new().payloads(true)).to_string();
        assert!(line(&[&[0xff; 16]]).starts_with("Malformed: "));
        let unknown = [0, 0, 0, 0, 1, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0u8];
        let mut words = capnp::Word::allocate_zeroed_vec(2);
        capnp::Word::words_to_bytes_mut(&mut words).copy_from_slice(&unknown);
        assert_eq!(line(&[capnp::Word::words_to_bytes(&words)]), "Unknown(77) (2 words)");
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn traced_socket_offers_all_that_the_socket_does() {
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixStream;
        let limits = crate::limits::Limits::default();
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Transport::unix(a, &limits).unwrap(), Transport::unix(b, &limits).unwrap());
        let Source::Nonblocking(socket) = &a.source else { panic!("a socket does not block") };
        let descriptor = socket.descriptor().unwrap().as_raw_fd();
        let ((mut a, events), Transport { sink: to_a, source: _keeps_open, .. }) = (traced(a), b);
        let Sink::Nonblocking(mut to_a) = to_a else { panic!("a socket does not block") };
        let source = a.source.as_nonblocking().unwrap();
        assert_eq!(source.descriptor().unwrap().as_raw_fd(), descriptor);
        assert!(matches!(source.receive_now(), Ok(Arrived::Nothing)));
        assert!(to_a.send_now(&[bootstrap(1), bootstrap(2)]).unwrap());
        source.readiness().unwrap().wait(None);
        assert!(matches!(source.receive_now(), Ok(Arrived::Message(_))));
        assert!(source.is_ready() && source.is_drained());
        let end = source.end_watch().unwrap();
        assert!(!end.has_ended());
        drop(to_a);
        assert!(end.has_ended());
        source.release_buffers();
        assert!(matches!(source.receive_now(), Ok(Arrived::Message(_))));
        assert!(matches!(source.receive_now(), Ok(Arrived::End)));
        assert!(a.sink.as_nonblocking().unwrap().send_now(&[bootstrap(3)]).unwrap());
        let events = recorded(&events);
        let starts = ["received 0", "received 1", "received 2: end", "sent 0"];
        assert_eq!(events.len(), starts.len());
        assert!(events.iter().zip(starts).all(|(event, start)| event.starts_with(start)), "{events:?}");
    }

    #[test]
    fn a_callback_that_panics_loses_no_message() {
        let (here, mut there) = Transport::in_memory();
        let mut here = here.traced(|e| assert_ne!(e.sequence, 0), TraceOptions::new());
        here.sink.send(&[bootstrap(1)]).unwrap();
        assert!(there.source.receive().unwrap().is_some());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "foreign code")]
    fn the_callback_never_runs_under_a_lock() {
        let (here, _there) = Transport::in_memory();
        let (mut here, _events) = traced(here);
        let lock = Mutex::new(Rank::Connection, ());
        let _held = lock.lock();
        let _ = here.sink.send(&[bootstrap(1)]);
    }
}
