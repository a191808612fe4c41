//! Two vats that are connected, in each way that vats can be.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use capnp_threads::transport::{Shutdown, Transport};
use capnp_threads::{Client, Connection, Limits, Snapshot, Vat};

use super::DEADLINE;

/// A way to connect two vats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tcp,
    Unix,
    /// A reader and a writer of which nothing more is known.
    Streams,
    Memory,
}

impl Wire {
    pub const ALL: [Wire; 4] = [Wire::Tcp, Wire::Unix, Wire::Streams, Wire::Memory];

    /// Both ends, and what cuts them as if the second had died.
    pub fn ends(self, limits: [&Limits; 2]) -> (Transport, Transport, Cut) {
        let (a, b) = match self {
            Wire::Tcp => {
                let (a, b) = tcp_pair();
                (Transport::tcp(a, limits[0]).unwrap(), Transport::tcp(b, limits[1]).unwrap())
            }
            Wire::Unix => {
                let (a, b) = UnixStream::pair().unwrap();
                (Transport::unix(a, limits[0]).unwrap(), Transport::unix(b, limits[1]).unwrap())
            }
            Wire::Streams => return streams(limits),
            Wire::Memory => Transport::in_memory(),
        };
        let (b, cut) = cuttable(b);
        (a, b, cut)
    }
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

/// Two one-way streams, as pipes are.
fn streams(limits: [&Limits; 2]) -> (Transport, Transport, Cut) {
    let (a_write, b_read) = UnixStream::pair().unwrap();
    let (b_write, a_read) = UnixStream::pair().unwrap();
    let cut = Cut(Arc::new(Sockets([b_read.try_clone().unwrap(), b_write.try_clone().unwrap()])));
    let a = Transport::pair(a_read, a_write, limits[0]);
    (a, Transport::pair(b_read, Writer(b_write), limits[1]), cut)
}

/// A stream that ends when it is dropped, although there is a copy.
struct Writer(UnixStream);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

struct Sockets([UnixStream; 2]);

impl Shutdown for Sockets {
    fn shutdown(&self) {
        for socket in &self.0 {
            // Fails if it was shut already, which is what is wanted.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Ends a transport from outside, as the death of its process would.
#[derive(Clone)]
pub struct Cut(Arc<dyn Shutdown>);

impl Cut {
    pub fn cut(&self) {
        self.0.shutdown();
    }
}

impl Shutdown for Cut {
    fn shutdown(&self) {
        self.cut();
    }
}

fn cuttable(transport: Transport) -> (Transport, Cut) {
    let cut = Cut(transport.shutdown.into());
    (Transport { shutdown: Box::new(cut.clone()), ..transport }, cut)
}

/// Two connected vats.
pub struct Two {
    pub here: Connection,
    pub there: Connection,
    pub cut: Cut,
}

impl Two {
    /// A vat that offers nothing, and one that offers `object`.
    pub fn offering(wire: Wire, object: &Client) -> Self {
        Two::new(wire, Vat::new(), Vat::new().bootstrap(object.clone()), &Limits::default())
    }

    /// Two vats with the same limits.
    pub fn new(wire: Wire, here: Vat, there: Vat, limits: &Limits) -> Self {
        Two::with_limits(wire, [(here, limits), (there, limits)])
    }

    /// Two vats with limits of their own.
    pub fn with_limits(wire: Wire, [(here, mine), (there, theirs)]: [(Vat, &Limits); 2]) -> Self {
        let (a, b, cut) = wire.ends([mine, theirs]);
        let here = here.limits(mine.clone()).over(a).unwrap();
        Two { here, there: there.limits(theirs.clone()).over(b).unwrap(), cut }
    }

    /// Waits until neither side has anything in its tables.
    #[track_caller]
    pub fn both_empty(&self) {
        for connection in [&self.here, &self.there] {
            assert!(reaches(connection, Snapshot::is_empty), "{}", connection.snapshot());
        }
    }
}

/// Waits until a connection's tables are as wanted. False if they do not become so.
pub fn reaches(connection: &Connection, wanted: impl Fn(&Snapshot) -> bool) -> bool {
    connection.wait_until(Instant::now() + DEADLINE, wanted)
}
