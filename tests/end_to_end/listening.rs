//! Listeners that are closed: their address is free at once, whatever their accepting thread does, and nobody else's
//! socket suffers.

use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capnp_threads::{Call, Capability, Client, Limits, Listener, Pool, Result, Server, Vat};
use crossbeam_channel::{unbounded, Sender};

use crate::support::{ask, echo, reply, send, Soon, DEADLINE};

/// How often each of these is tried.
const TIMES: usize = 100;

/// What a listener may be doing when it is closed.
const STATES: [fn(&Listener); 3] = [
    |_| {},
    |listener| {
        let connection = Vat::new().connect(listener.local_addr()).unwrap();
        ask(&connection.bootstrap::<Client>(), 0, "x").unwrap();
    },
    |listener| drop(TcpStream::connect(listener.local_addr()).unwrap()),
];

/// An object that tells when it is dropped.
struct Tells(Sender<()>);

impl Server for Tells {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        reply(call, "here")
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("capnp-threads-{name}-{}", std::process::id()))
}

#[test]
fn the_port_of_a_listener_that_was_dropped_or_closed_is_free_at_once() {
    for n in 0..TIMES {
        let listener = Vat::new().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr();
        STATES[n % STATES.len()](&listener);
        if n % 2 == 0 {
            drop(listener);
        } else {
            listener.close(DEADLINE).unwrap();
        }
        assert!(TcpStream::connect(address).is_err(), "{n}: nobody listens");
        let next = Vat::new().bootstrap(echo()).listen(address).unwrap_or_else(|e| panic!("{n}: {e}"));
        let connection = Vat::new().connect(address).unwrap();
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "next").unwrap(), "next");
        drop(next);
    }
}

#[test]
fn the_path_of_a_unix_listener_is_free_at_once_and_stays_its_successors() {
    let path = path("successor");
    let mut before: Option<Listener<PathBuf>> = None;
    for n in 0..TIMES {
        if let Some(before) = before.take() {
            if n % 2 == 0 {
                drop(before);
            } else {
                before.close(DEADLINE).unwrap();
            }
        }
        assert!(!path.exists(), "{n}");
        before = Some(Vat::new().bootstrap(echo()).listen_unix(&path).unwrap_or_else(|e| panic!("{n}: {e}")));
        let connection = Vat::new().connect_unix(&path).unwrap_or_else(|e| panic!("{n}: {e}"));
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "next").unwrap(), "next");
    }
    drop(before);
    assert!(!path.exists());
}

#[test]
fn dropped_unix_listener_leaves_a_path_that_another_socket_has_taken() {
    let path = path("replaced");
    let (tell, told) = unbounded();
    let listener = Vat::new().bootstrap(Client::new(Tells(tell))).listen_unix(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(listener);
    (&told).soon();
    let _connection = UnixStream::connect(&path).unwrap();
    other.accept().unwrap();
    std::fs::remove_file(&path).unwrap();
}

/// By its path nothing could wake the accepting thread, which waits for the next connection.
#[test]
fn a_listener_whose_path_is_gone_ends_with_all_that_it_holds() {
    for n in 0..TIMES {
        let path = path("gone");
        let (tell, told) = unbounded();
        let listener = Vat::new().bootstrap(Client::new(Tells(tell))).listen_unix(&path).unwrap();
        let connection = Vat::new().connect_unix(&path).unwrap();
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "").unwrap(), "here");
        std::fs::remove_file(&path).unwrap();
        if n % 2 == 0 {
            drop(listener);
        } else {
            listener.close(DEADLINE).unwrap();
        }
        (&told).soon();
    }
}

#[test]
fn a_listener_that_waits_for_a_connection_to_end_can_be_closed() {
    let mut limits = Limits::default();
    limits.connections = 1;
    for _ in 0..TIMES {
        let listener = Vat::new().limits(limits.clone()).bootstrap(echo()).listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr();
        let connection = Vat::new().connect(address).unwrap();
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "x").unwrap(), "x");
        let _waits = TcpStream::connect(address).unwrap();
        drop(listener);
        connection.wait_closed().unwrap();
        Vat::new().listen(address).unwrap();
    }
}

/// The accepting thread itself runs the factory.
#[test]
fn listener_can_be_dropped_by_its_own_bootstrap_factory() {
    let place = Arc::new(Mutex::new(None::<Listener>));
    let (tell, told) = unbounded();
    let taken = place.clone();
    let vat = Vat::new().pool(Pool::in_place()).bootstrap_with(move |_| {
        drop(taken.lock().unwrap().take());
        tell.send(()).unwrap();
        Ok(echo())
    });
    let mut held = place.lock().unwrap();
    let listener = vat.listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr();
    *held = Some(listener);
    drop(held);
    let connection = Vat::new().connect(address).unwrap();
    (&told).soon();
    connection.wait_closed().unwrap();
    Vat::new().listen(address).unwrap();
}

/// No peer reads, so each connection takes its linger, which is longer than the test.
#[test]
fn all_connections_of_a_listener_linger_at_the_same_time() {
    let mut limits = Limits::default();
    limits.linger = Duration::from_secs(3600);
    // The calls below are queued without waiting.
    limits.send_bytes = 64 << 20;
    let listener = Vat::new().limits(limits).listen("127.0.0.1:0").unwrap();
    let unread: Vec<_> = (0..4).map(|_| TcpStream::connect(listener.local_addr()).unwrap()).collect();
    let connections = loop {
        let connections = listener.connections();
        if connections.len() == unread.len() {
            break connections;
        }
        std::thread::yield_now();
    };
    let large = "x".repeat(8 << 20);
    let (tell, told) = unbounded();
    let calls: Vec<_> = connections
        .iter()
        .flat_map(|connection| {
            let tell = tell.clone();
            connection.on_disconnect(move |_| tell.send(()).unwrap());
            let remote = connection.bootstrap::<Client>();
            [(); 3].map(|()| send(&remote, 0, &large))
        })
        .collect();
    let (close, closed) = unbounded();
    std::thread::scope(|scope| {
        scope.spawn(move || close.send(listener.close(Duration::ZERO)).unwrap());
        connections.iter().for_each(|_| (&told).soon());
        assert!(closed.is_empty(), "each lingers");
        // Nobody will read what is left to be sent.
        drop(unread);
        (&closed).soon().unwrap();
    });
    calls.into_iter().for_each(|call| assert!(call.soon().is_err()));
}
