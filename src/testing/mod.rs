//! What the tests of whole connections use: hidden from the documentation, and no part of the interface.
//!
//! Each [`Side`] is a vat's end of a connection without threads: the test takes every step of every stage, in
//! any order it likes, on one thread. [`record`] is a message to send between them.

pub mod record;

use crate::conn::{Connection, Options, Progress, Stages, Wait};
use crate::error::TransportError;
use crate::sync::{enter_role, Arc, Pop, Queue, Role};
use crate::transport::{MessageSink, Outbound, TraceEvent, TraceOptions, Transport};

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
    /// One token for each message that was sent here and has not been received.
    arriving: Arc<Queue<()>>,
}

/// A connection in memory between two vats, without threads. `trace` is shown each message that `first` sends
/// or receives.
pub fn pair(
    first: Options,
    second: Options,
    trace: impl Fn(&TraceEvent) + Send + Sync + 'static,
) -> [Side; 2] {
    let (a, b) = Transport::in_memory();
    let a = a.traced(trace, TraceOptions::new());
    let (to_a, to_b) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
    [side(a, first, &to_a, &to_b), side(b, second, &to_b, &to_a)]
}

fn side(transport: Transport, options: Options, to_us: &Arc<Queue<()>>, to_peer: &Arc<Queue<()>>) -> Side {
    let Transport { sink, source, shutdown, peer } = transport;
    let sink = Box::new(Counted { inner: sink, sent: to_peer.clone() });
    let transport = Transport { sink, source, shutdown, peer };
    let (connection, stages) = Connection::stepped(transport, options);
    Side { connection, stages, arriving: to_us.clone() }
}

impl Side {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes one step of a stage, if there is something for it to do. True if there was.
    pub fn step(&mut self, stage: Stage) -> bool {
        let _role = enter_role(Role::Connection);
        let progress = match stage {
            Stage::Send => self.stages.send.step(Wait::No),
            Stage::Receive => match self.arriving.try_pop() {
                Pop::Item(()) => match self.stages.receive.step(Wait::No) {
                    // There is no room for it now.
                    Progress::Idle => {
                        self.arriving.push(()).expect("it is never closed");
                        Progress::Idle
                    }
                    progress => progress,
                },
                Pop::Empty | Pop::Closed => Progress::Idle,
            },
            Stage::Coordinator => self.stages.coordinator.step(Wait::No),
            Stage::Callback => self.stages.callback.step(Wait::No),
        };
        progress == Progress::Made
    }
}

/// Counts what was sent, so that nobody waits for more than there is.
struct Counted {
    inner: Box<dyn MessageSink>,
    sent: Arc<Queue<()>>,
}

impl MessageSink for Counted {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        self.inner.send(batch)?;
        self.sent.extend(vec![(); batch.len()]).expect("it is never closed");
        Ok(())
    }
}
