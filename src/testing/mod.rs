//! What the tests of whole connections use: there with the feature `test-util` only, hidden from the documentation, and no
//! part of the interface.
//!
//! Each [`Side`] is a vat's end of a connection without threads: the test takes every step of every stage, in
//! any order it likes, on one thread. [`line`] has one such end, whose messages the test moves by hand. [`record`] is a
//! message to send between them. [`parts`] is for benchmarks.

pub mod line;
pub mod parts;
pub mod record;

use crate::conn::{Connection, Options, Progress, Stages, Threads, Wait};
use crate::error::TransportError;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{enter_role, Arc, Role};
use crate::transport::{MessageSink, NonblockingSink, Outbound, Sink, TraceEvent, TraceOptions, Transport};

/// The stages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Sends all that is queued.
    Send,
    /// Receives one message.
    Receive,
    /// Handles one message.
    Coordinator,
    /// Runs one callback.
    Callback,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 4] = [Stage::Send, Stage::Receive, Stage::Coordinator, Stage::Callback];
}

/// One end of a connection without threads.
pub struct Side {
    connection: Connection,
    stages: Stages,
    /// How many messages were sent here and have not been received.
    arriving: Arc<AtomicUsize>,
    /// The line that the connection hangs on, if its messages are moved by hand.
    line: Option<line::Line>,
}

/// A connection in memory between two vats, without threads, whose stages do their own work only. `trace` is shown
/// each message that `first` sends or receives.
pub fn pair(
    first: Options,
    second: Options,
    trace: impl Fn(&TraceEvent) + Send + Sync + 'static,
) -> [Side; 2] {
    let (a, b) = Transport::in_memory();
    let a = a.traced(trace, TraceOptions::new());
    let strict = |options| Options { threads: Threads::Strict, ..options };
    sides([a, b], strict(first), strict(second))
}

/// The same without a trace, and with the stages driven as the options say: a stage that is lent does the work of
/// those behind it.
pub fn untraced_pair(first: Options, second: Options) -> [Side; 2] {
    sides(Transport::in_memory().into(), first, second)
}

fn sides([a, b]: [Transport; 2], first: Options, second: Options) -> [Side; 2] {
    let (to_a, to_b) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    [side(a, first, &to_a, &to_b), side(b, second, &to_b, &to_a)]
}

/// One end of a connection without threads, and the transport that leads to it, for a peer that is not of this crate.
pub fn beside(options: Options) -> (Side, Transport) {
    let (ours, theirs) = Transport::in_memory();
    let (to_us, to_peer) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let side = side(ours, options, &to_us, &to_peer);
    (side, counted(theirs, to_us))
}

fn side(
    transport: Transport,
    options: Options,
    to_us: &Arc<AtomicUsize>,
    to_peer: &Arc<AtomicUsize>,
) -> Side {
    side_of(counted(transport, to_peer.clone()), options, to_us.clone())
}

fn side_of(transport: Transport, options: Options, arriving: Arc<AtomicUsize>) -> Side {
    let (connection, stages) = Connection::stepped(transport, options);
    Side { connection, stages, arriving, line: None }
}

impl Side {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Has the connection look at what was dropped, as the timer does in time where stages are lent. True if
    /// anything was.
    pub fn look(&self) -> bool {
        self.stages.callback.look()
    }

    /// Takes one step of a stage, if there is something for it to do. True if there was.
    pub fn step(&mut self, stage: Stage) -> bool {
        let _role = enter_role(Role::Connection);
        let progress = match stage {
            Stage::Send => self.stages.send.step(Wait::No),
            Stage::Receive if self.arriving.load(Ordering::Relaxed) == 0 => Progress::Idle,
            Stage::Receive => {
                // A step that waits for room ends at once if it sees the end.
                let is_cut = self.line.as_ref().is_some_and(line::Line::is_cut);
                let wait = if is_cut && self.stages.receive.holds_message() { Wait::Yes } else { Wait::No };
                let progress = self.stages.receive.step(wait);
                // Idle: there is no room for it now.
                self.arriving.fetch_sub(usize::from(progress != Progress::Idle), Ordering::Relaxed);
                progress
            }
            Stage::Coordinator => self.stages.coordinator.step(Wait::No),
            Stage::Callback => self.stages.callback.step(Wait::No),
        };
        progress == Progress::Made
    }
}

/// Counts what was sent, so that nobody waits for more than there is.
struct Counted<S: ?Sized> {
    sent: Arc<AtomicUsize>,
    inner: Box<S>,
}

fn counted(transport: Transport, sent: Arc<AtomicUsize>) -> Transport {
    let sink = match transport.sink {
        Sink::Blocking(inner) => Sink::blocking(Counted { inner, sent }),
        Sink::Nonblocking(inner) => Sink::nonblocking(Counted { inner, sent }),
    };
    Transport { sink, ..transport }
}

impl<S: MessageSink + ?Sized> MessageSink for Counted<S> {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        self.inner.send(batch)?;
        self.sent.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl<S: NonblockingSink + ?Sized> NonblockingSink for Counted<S> {
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        let all_sent = self.inner.send_now(batch)?;
        self.sent.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(all_sent)
    }
}
