//! Holding up one direction of a transport, as a peer that does not read, or a slow network, would.

use std::sync::{Arc, Condvar, Mutex};

use capnp_threads::transport::{Frame, MessageSource, Source, Transport};
use capnp_threads::TransportError;

/// Lets messages through while it is open.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open() -> Self {
        Gate(Arc::new((Mutex::new(true), Condvar::new())))
    }

    pub fn set_open(&self, open: bool) {
        *self.0 .0.lock().unwrap() = open;
        self.0 .1.notify_all();
    }

    fn pass(&self) {
        let open = self.0 .0.lock().unwrap();
        drop(self.0 .1.wait_while(open, |open| !*open).unwrap());
    }

    /// The same transport, which receives only while the gate is open.
    pub fn before_receiving(&self, transport: Transport) -> Transport {
        let source = Source::blocking(Gated { half: transport.source, gate: self.clone() });
        Transport { source, ..transport }
    }
}

struct Gated<T> {
    half: T,
    gate: Gate,
}

impl MessageSource for Gated<Source> {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        let received = self.half.receive();
        self.gate.pass();
        received
    }
}
