//! The descriptors of a connection that has ended are given back, though clients of it are held. A program of its own:
//! it counts all that the process has.

#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(missing_docs)]

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Call, Capability, Client, Connection, Exception, Limits, Result, Server, Threads, Vat};
use crossbeam_channel::{bounded, Receiver, Sender};

const TEST: u64 = 0xde5c_7e57_de5c_7e57;
/// Gives the capability that it is called with back.
const ECHO: u16 = 0;
/// Waits until it is canceled.
const WAIT: u16 = 1;

struct Served(Sender<()>);

impl Server for Served {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        call.allow_next();
        if call.method_id() == WAIT {
            self.0.send(()).unwrap();
            return call.cancellation().wait();
        }
        let given: Client = call.params().get()?.get_as_capability()?;
        call.results().set_as_capability(Box::new(given));
        Ok(())
    }
}

/// How many descriptors this process has open.
fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[derive(Clone, Copy, Debug)]
enum Wire {
    Tcp,
    Unix,
}

fn ends(wire: Wire, limits: &Limits) -> [Transport; 2] {
    match wire {
        Wire::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let b = listener.accept().unwrap().0;
            [a, b].map(|stream| Transport::tcp(stream, limits).unwrap())
        }
        Wire::Unix => {
            let (a, b) = UnixStream::pair().unwrap();
            [a, b].map(|stream| Transport::unix(stream, limits).unwrap())
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Aborted,
    /// While the limit on calls in service is reached.
    Full,
}

/// Two connected vats, which have called each other.
struct Pair {
    near: Connection,
    far: Connection,
    entered: Receiver<()>,
    /// Clients over the connection: they hold what is left of it.
    clients: Vec<Client>,
}

impl Pair {
    fn new(wire: Wire, threads: Threads) -> Self {
        let mut limits = Limits::default();
        limits.call_words = 1;
        limits.room_timeout = None;
        let [a, b] = ends(wire, &limits);
        let (enter, entered) = bounded(1);
        let vat = || Vat::new().limits(limits.clone()).threads(threads);
        let far = vat().bootstrap(Client::new(Served(enter))).over(b).unwrap();
        let near = vat().over(a).unwrap();
        let remote: Client = near.bootstrap();
        let (nobody, _) = bounded(0);
        let mine = Client::new(Served(nobody));
        // Each wait finds the receive stage busy, or has it lent.
        for _ in 0..10 {
            let mut request = remote.request(TEST, ECHO);
            request.get().set_as_capability(Box::new(mine.clone()));
            request.send().wait().unwrap();
        }
        Pair { near, far, entered, clients: vec![remote] }
    }

    fn end(self, end: End) -> Vec<Client> {
        let Pair { near, far, entered, mut clients } = self;
        match end {
            End::Closed => near.close(Duration::ZERO).unwrap(),
            End::Aborted => far.abort(Exception::failed("enough")),
            End::Full => {
                let calls: Vec<_> = (0..10).map(|_| clients[0].request(TEST, WAIT).send()).collect();
                entered.recv().unwrap();
                clients.extend(calls.iter().map(|call| call.pipeline.client()));
                near.abort(Exception::failed("enough"));
            }
        }
        near.wait_closed().unwrap();
        far.wait_closed().unwrap();
        clients
    }
}

#[test]
fn descriptors_of_ended_connections_are_closed_though_clients_are_held() {
    let mut held = Vec::new();
    let mut round = || {
        for threads in [Threads::Lending, Threads::Strict] {
            for wire in [Wire::Tcp, Wire::Unix] {
                for end in [End::Closed, End::Aborted, End::Full] {
                    // So many that the reactor is in use.
                    let pairs: Vec<_> = (0..4).map(|_| Pair::new(wire, threads)).collect();
                    pairs.into_iter().for_each(|pair| held.extend(pair.end(end)));
                }
            }
        }
        open()
    };
    // What the process has for all its connections is made in the first.
    let before = round();
    assert_eq!(round(), before);
    assert!(held.len() > 100);
}
