//! What brings our side to one exact moment: a gate that stops its sending, a callback that does not return, and
//! looking at its tables.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use capnp_threads::error::TransportError;
use capnp_threads::transport::{MessageSink, Outbound, Shutdown, Sink, Transport};
use capnp_threads::{Call, Client, Result, Snapshot};
use crossbeam_channel::{bounded, Sender};

use super::content;
use super::message::Outcome;
use super::peer::{Peer, DEADLINE};
use super::recorder::{send, NOTE};

/// Holds the callback thread of our side, in a callback, until the result is dropped. `client` is of a
/// capability of the peer's, which is [strict](Peer::strict).
#[track_caller]
pub fn freeze_callbacks(peer: &mut Peer, client: &Client) -> Frozen {
    const TAG: u64 = 0xf0f0;
    let (entered, has_entered) = bounded(1);
    let (release, released) = bounded::<()>(0);
    send(client, NOTE, TAG, &[]).on_ready(move |_| {
        entered.send(()).unwrap();
        let _ = released.recv();
    });
    let call = peer.expect_call_of(TAG);
    peer.results(call.question, TAG, &[]);
    has_entered.recv_timeout(DEADLINE).expect("the callback runs");
    Frozen(release)
}

/// The callback thread is held as long as this is.
#[must_use = "the callback thread goes on when this is dropped"]
pub struct Frozen(#[expect(dead_code, reason = "dropping it is what counts")] Sender<()>);

impl Peer {
    /// Waits until our side's tables are as wanted.
    #[track_caller]
    pub fn wait_tables(&self, wanted: impl Fn(&Snapshot) -> bool) {
        let found = self.vat.wait_until(Instant::now() + DEADLINE, wanted);
        assert!(found, "the tables do not become so:\n{}", self.vat.snapshot());
    }

    /// Waits until our side knows that the connection has ended, not until it has told everybody.
    #[track_caller]
    pub fn wait_ended(&self) {
        self.vat.wait_until(Instant::now() + DEADLINE, |_| false);
        assert!(self.vat.disconnect_reason().is_some(), "the connection does not end");
    }

    #[track_caller]
    pub fn expect_canceled(&mut self, question: u32) {
        assert_eq!(self.expect_return(question).outcome, Outcome::Canceled);
    }
}

/// The capabilities in the params of a call that an object of ours serves.
pub fn caps_of(call: &Call) -> Result<Vec<Client>> {
    content::caps(call.params().get()?)
}

/// Stops what our side sends while it is closed.
#[derive(Clone, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    shut: bool,
    /// Somebody stands before the gate.
    waiting: bool,
}

impl Gate {
    /// The transport with this gate before its sink.
    pub fn wrap(&self, transport: Transport) -> Transport {
        let sink = Sink::blocking(GatedSink { sink: transport.sink, gate: self.clone() });
        let shutdown = Box::new(GatedShutdown { shutdown: transport.shutdown, gate: self.clone() });
        Transport { sink, shutdown, ..transport }
    }

    pub fn close(&self) {
        self.0.state.lock().unwrap().closed = true;
    }

    pub fn open(&self) {
        self.0.state.lock().unwrap().closed = false;
        self.0.changed.notify_all();
    }

    /// Waits until our side's send thread stands before the closed gate.
    #[track_caller]
    pub fn wait_reached(&self) {
        let state = self.0.state.lock().unwrap();
        let (state, _) = self.0.changed.wait_timeout_while(state, DEADLINE, |s| !s.waiting).unwrap();
        assert!(state.waiting, "nothing was sent");
    }

    /// Whether what comes is let through. Waits while the gate is closed.
    fn pass(&self) -> bool {
        let mut state = self.0.state.lock().unwrap();
        while state.closed && !state.shut {
            state.waiting = true;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap();
        }
        state.waiting = false;
        !state.shut
    }
}

struct GatedSink {
    sink: Sink,
    gate: Gate,
}

impl MessageSink for GatedSink {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        if !self.gate.pass() {
            return Err(TransportError::io("sending", io::ErrorKind::BrokenPipe.into()));
        }
        self.sink.send(batch)
    }
}

struct GatedShutdown {
    shutdown: Box<dyn Shutdown>,
    gate: Gate,
}

impl Shutdown for GatedShutdown {
    fn shutdown(&self) {
        self.gate.0.state.lock().unwrap().shut = true;
        self.gate.0.changed.notify_all();
        self.shutdown.shutdown();
    }
}
