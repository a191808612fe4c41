//! Transports that are decorated, or made outside of the crate, are served on the same paths as sockets.

#![cfg(any(target_os = "linux", target_os = "android"))]

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use capnp_threads::transport::{Direction, MessageKind, TraceEvent, TraceOptions, Transport};
use capnp_threads::{
    Capability, Client, Connection, Exception, Limits, PeerAddress, Pool, Snapshot, Threads, Vat,
};
use crossbeam_channel::{unbounded, Receiver};

use crate::support::cipher::cipher;
use crate::support::wires::{reaches, tcp_pair};
use crate::support::*;

const MODES: [Threads; 2] = [Threads::Lending, Threads::Strict];
const KEY: u8 = 0x5a;

/// Makes a transport of a socket.
type Make = fn(TcpStream) -> Transport;

fn plain(stream: TcpStream) -> Transport {
    Transport::tcp(stream, &still()).unwrap()
}

fn traced(stream: TcpStream) -> Transport {
    plain(stream).traced(|_| (), TraceOptions::new())
}

fn encrypted(stream: TcpStream) -> Transport {
    cipher(stream, KEY, PeerAddress::Other("a cipher".into()).into(), &still())
}

fn traced_encrypted(stream: TcpStream) -> Transport {
    encrypted(stream).traced(|_| (), TraceOptions::new())
}

const ALL: [Make; 4] = [plain, traced, encrypted, traced_encrypted];

/// Nobody polls, so that stages rest at once.
fn still() -> Limits {
    let mut limits = Limits::default();
    limits.polling = Duration::ZERO;
    limits
}

/// Methods of what is served here: what it is called with, the name of the thread that it runs on, and the answer of
/// another object to a call of that method.
const ECHO: u16 = 0;
const WHERE: u16 = 1;
const CALL_BACK: u16 = 2;

fn thread_name() -> String {
    thread::current().name().unwrap_or("?").to_owned()
}

fn served() -> Client {
    let object = server(|call| match call.method_id() {
        ECHO => {
            let said = text(call)?;
            reply(call, &said)
        }
        WHERE => reply(call, &thread_name()),
        _ => unexpected(call),
    });
    Client::with_pool(object, Pool::in_place())
}

/// Calls its caller's object, which says where it runs.
fn calls_back() -> Client {
    object(|call| match call.method_id() {
        CALL_BACK => {
            let said = ask(&cap(call)?, WHERE, "")?;
            reply(call, &said)
        }
        _ => unexpected(call),
    })
}

/// Two vats with one kind of transport between them.
struct Ends {
    server: Connection,
    client: Connection,
    remote: Client,
}

impl Ends {
    fn over([near, far]: [Transport; 2], threads: Threads, offered: &Client) -> Self {
        let vat = Vat::new().limits(still()).threads(threads);
        let server = vat.clone().bootstrap(offered.clone()).over(far).unwrap();
        let client = vat.over(near).unwrap();
        let remote = client.bootstrap::<Client>().resolve().unwrap();
        Ends { server, client, remote }
    }

    fn new(make: Make, threads: Threads, offered: &Client) -> Self {
        let (near, far) = tcp_pair();
        Ends::over([make(near), make(far)], threads, offered)
    }
}

/// Tries again until something is found.
#[track_caller]
fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// Runs as a thread that can be told from those of the crate.
fn as_caller(run: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = thread::Builder::new().name("caller".into()).spawn_scoped(scope, run);
        run.unwrap().join().unwrap();
    });
}

#[test]
fn connections_over_any_transport_with_a_descriptor_are_read_by_the_reactor() {
    let crowd: Vec<_> = (0..4).map(|_| Ends::new(plain, Threads::Lending, &served())).collect();
    for make in ALL {
        let ends = Ends::new(make, Threads::Lending, &served());
        found("the reactor drives it", || {
            (ask(&ends.remote, WHERE, "").unwrap() == "capnp-reactor").then_some(())
        });
    }
    drop(crowd);
}

#[test]
fn caller_over_any_transport_with_a_readiness_reads_its_own_answer() {
    for make in ALL {
        let ends = Ends::new(make, Threads::Lending, &calls_back());
        let mine = served();
        // What comes before the answer is handled by whoever reads it.
        let read_by = || {
            let request = with_cap(&ends.remote, CALL_BACK, &mine);
            Some(said(&request.send().soon().unwrap())).filter(|by| by == "caller")
        };
        as_caller(|| drop(found("the caller reads", read_by)));
    }
}

/// A traced end, and on which thread each call was sent.
fn calls_sent_on(make: Make, stream: TcpStream) -> (Transport, Receiver<String>) {
    let (put, sent_on) = unbounded();
    let trace = move |event: &TraceEvent| {
        if (event.direction, event.kind()) == (Direction::Sent, Some(MessageKind::Call)) {
            put.send(thread_name()).unwrap();
        }
    };
    (make(stream).traced(trace, TraceOptions::new()), sent_on)
}

#[test]
fn caller_over_any_transport_that_sends_without_waiting_sends_its_own_call() {
    for make in ALL {
        let (near, far) = tcp_pair();
        let (near, sent_on) = calls_sent_on(make, near);
        let ends = Ends::over([near, make(far)], Threads::Lending, &served());
        let sent_by = || {
            ask(&ends.remote, ECHO, "").unwrap();
            sent_on.try_iter().find(|by| by == "caller")
        };
        as_caller(|| drop(found("the caller sends", sent_by)));
    }
}

#[test]
fn strict_connections_over_any_transport_use_their_own_threads_alone() {
    let crowd: Vec<_> = (0..4).map(|_| Ends::new(plain, Threads::Strict, &served())).collect();
    for make in ALL {
        let (near, far) = tcp_pair();
        let (near, sent_on) = calls_sent_on(make, near);
        let ends = Ends::over([near, make(far)], Threads::Strict, &served());
        for _ in 0..100 {
            assert_eq!(ask(&ends.remote, WHERE, "").unwrap(), "capnp-callback");
        }
        assert!(sent_on.try_iter().all(|by| by == "capnp-send"));
    }
    drop(crowd);
}

/// Windows of calls whose messages share records, so that some lie in the cipher's own memory while the socket is empty;
/// and messages of many records.
#[test]
fn messages_in_a_sources_own_memory_are_seen() {
    for threads in MODES {
        for crowd in [1, 5] {
            let crowd: Vec<_> = (0..crowd).map(|_| Ends::new(encrypted, threads, &served())).collect();
            thread::scope(|scope| {
                for ends in &crowd {
                    scope.spawn(|| {
                        for (length, calls) in [(0, 50), (10, 50), (1000, 50), (10_000, 20), (100_000, 5)] {
                            let text = "x".repeat(length);
                            let window: Vec<_> =
                                (0..calls).map(|_| send(&ends.remote, ECHO, &text)).collect();
                            for call in window {
                                assert_eq!(said(&call.soon().unwrap()), text);
                            }
                            assert_eq!(ask(&ends.remote, ECHO, &text).unwrap(), text);
                        }
                    });
                }
            });
            for ends in crowd {
                drop(ends.remote);
                for connection in [&ends.client, &ends.server] {
                    assert!(reaches(connection, Snapshot::is_empty), "{}", connection.snapshot());
                }
            }
        }
    }
}

#[test]
fn end_of_a_transport_made_outside_is_noticed_on_both_sides() {
    for threads in MODES {
        let ends = Ends::new(encrypted, threads, &served());
        ends.client.close(DEADLINE).unwrap();
        ends.server.wait_closed().unwrap();
        let ends = Ends::new(encrypted, threads, &served());
        ends.server.abort(Exception::failed("on purpose"));
        let why = ends.client.wait_closed().unwrap();
        assert!(why.to_string().contains("on purpose"), "{why}");
    }
}
