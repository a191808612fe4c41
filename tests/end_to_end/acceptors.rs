//! Listeners that serve acceptors made outside of the crate: with a handshake that tells who the peer is, and without a socket.

#![cfg(any(target_os = "linux", target_os = "android"))]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use capnp_threads::transport::{Shutdown, Transport};
use capnp_threads::{
    Accepted, Acceptor, Client, Connection, Error, Limits, Listener, Peer, PeerAddress, Result, TcpAcceptor,
    Threads, TransportError, Vat,
};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::cipher::{cipher, CipherShutdown};
use crate::support::*;

const MODES: [Threads; 2] = [Threads::Lending, Threads::Strict];
const KEY: u8 = 0x77;
const ACKNOWLEDGED: u8 = 6;
/// The first byte of a handshake in which the acceptor's part panics.
const PANICS: u8 = 0;

/// A key that the handshake has shown the peer to have, for all that the tests care.
#[derive(Debug, PartialEq)]
struct PublicKey(u8);

/// Accepts TCP connections that are encrypted, after the peer has said which key it has.
struct CipherAcceptor(TcpAcceptor);

impl CipherAcceptor {
    fn bind() -> Self {
        CipherAcceptor(TcpAcceptor::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap())
    }
}

fn io(e: std::io::Error) -> Error {
    TransportError::io("a handshake", e).into()
}

impl Acceptor for CipherAcceptor {
    type Address = SocketAddr;

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn stop(&self) -> Box<dyn Shutdown> {
        self.0.stop()
    }

    fn accept(&mut self, limits: &Limits) -> Result<Option<Accepted>> {
        let Some(stream) = self.0.accept_stream().map_err(io)? else { return Ok(None) };
        let (stream, limits) = (Arc::new(stream), limits.clone());
        let shutdown = CipherShutdown(stream.clone());
        let handshake = move || {
            let mut key = [0];
            (&*stream).read_exact(&mut key).map_err(io)?;
            assert_ne!(key[0], PANICS);
            (&*stream).write_all(&[ACKNOWLEDGED]).map_err(io)?;
            let address = PeerAddress::Tcp {
                local: stream.local_addr().map_err(io)?,
                remote: stream.peer_addr().map_err(io)?,
            };
            let peer = Peer::new(address).with_identity(PublicKey(key[0]));
            Ok(cipher(stream.try_clone().map_err(io)?, KEY, peer, &limits))
        };
        Ok(Some(Accepted::pending(handshake, shutdown)))
    }
}

/// The other side of the handshake.
fn connect(address: SocketAddr, key: u8) -> Connection {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[key]).unwrap();
    let mut acknowledged = [0];
    stream.read_exact(&mut acknowledged).unwrap();
    assert_eq!(acknowledged, [ACKNOWLEDGED]);
    let peer = PeerAddress::Other("a cipher".into());
    Vat::new().over(cipher(stream, KEY, peer.into(), &Limits::default())).unwrap()
}

/// Waits until the other side has ended a stream.
#[track_caller]
fn assert_ended(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => {}
        // It may also be reset.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// Serves each peer an object that says which key it has.
fn keyed() -> Vat {
    Vat::new().bootstrap_with(|peer| {
        let key = peer.identity::<PublicKey>().ok_or_else(|| Error::failed("no key"))?;
        let greeting = format!("{key:?}");
        Ok(object(move |call| {
            assert_eq!(
                call.peer().unwrap().identity::<PublicKey>().map(|key| format!("{key:?}")).unwrap(),
                greeting
            );
            reply(call, &greeting)
        }))
    })
}

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    // Nothing here depends on when it is over, but for what is said to.
    limits.first_message = Some(Duration::from_secs(3600));
    set(&mut limits);
    limits
}

#[track_caller]
fn assert_serves(address: SocketAddr, key: u8) {
    let connection = connect(address, key);
    assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "").unwrap(), format!("PublicKey({key})"));
}

#[test]
fn factory_serves_a_peer_by_the_identity_that_the_handshake_has_shown() {
    for threads in MODES {
        let listener = keyed().threads(threads).serve(CipherAcceptor::bind()).unwrap();
        let connections: Vec<_> = (1..4).map(|key| (key, connect(listener.local_addr(), key))).collect();
        for (key, connection) in &connections {
            let remote = connection.bootstrap::<Client>();
            assert_eq!(ask(&remote, 0, "").unwrap(), format!("PublicKey({key})"));
        }
        let served = listener.connections();
        let keys = |connection: &Connection| connection.peer().identity::<PublicKey>().unwrap().0;
        let mut keys: Vec<_> = served.iter().map(keys).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2, 3]);
        listener.close(DEADLINE).unwrap();
        for (_, connection) in connections {
            connection.wait_closed().unwrap();
        }
    }
}

#[test]
fn peers_that_never_complete_the_handshake_stop_no_others_and_end_with_the_listener() {
    for threads in MODES {
        for close in [true, false] {
            let vat = keyed().threads(threads).limits(limits(|_| ()));
            let listener = vat.serve(CipherAcceptor::bind()).unwrap();
            let address = listener.local_addr();
            let silent: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
            for key in 1..4 {
                assert_serves(address, key);
            }
            if close {
                listener.close(DEADLINE).unwrap();
            } else {
                drop(listener);
            }
            assert!(TcpStream::connect(address).is_err(), "nobody listens");
            silent.iter().for_each(assert_ended);
        }
    }
}

/// Until its time is over a handshake counts as a connection.
#[test]
fn handshake_that_takes_longer_than_the_first_message_may_ends_and_gives_its_place_back() {
    for threads in MODES {
        let limits = limits(|l| {
            l.connections = 1;
            l.first_message = Some(Duration::from_millis(50));
        });
        let listener = keyed().threads(threads).limits(limits).serve(CipherAcceptor::bind()).unwrap();
        let address = listener.local_addr();
        let silent = TcpStream::connect(address).unwrap();
        // Is accepted once the first has ended.
        let behind = TcpStream::connect(address).unwrap();
        assert_ended(&silent);
        assert_ended(&behind);
        assert!(listener.connections().is_empty());
    }
}

/// The time is one for both: what the handshake leaves is for the first message.
#[test]
fn peer_that_is_silent_after_the_handshake_ends() {
    for threads in MODES {
        let limits = limits(|l| l.first_message = Some(Duration::from_millis(50)));
        let listener = keyed().threads(threads).limits(limits).serve(CipherAcceptor::bind()).unwrap();
        let mut silent = TcpStream::connect(listener.local_addr()).unwrap();
        silent.write_all(&[1]).unwrap();
        silent.set_read_timeout(Some(DEADLINE)).unwrap();
        // On a busy machine it ends before the handshake is done.
        let _ = silent.read_exact(&mut [0]);
        assert_ended(&silent);
    }
}

#[test]
fn handshake_that_fails_or_panics_ends_alone_and_gives_its_place_back() {
    for threads in MODES {
        let limits = limits(|l| l.connections = 1);
        let listener = keyed().threads(threads).limits(limits).serve(CipherAcceptor::bind()).unwrap();
        let address = listener.local_addr();
        for _ in 0..5 {
            drop(TcpStream::connect(address).unwrap());
            let mut panics = TcpStream::connect(address).unwrap();
            panics.write_all(&[PANICS]).unwrap();
            assert_ended(&panics);
            assert_serves(address, 1);
        }
    }
}

/// Gives what it is sent, over no socket at all.
struct ChannelAcceptor {
    peers: Receiver<Next>,
    stop: Sender<Next>,
    dropped: Arc<AtomicUsize>,
}

enum Next {
    Peer(Transport),
    Fails,
    Panics,
    End,
}

struct Stop(Sender<Next>);

impl Shutdown for Stop {
    fn shutdown(&self) {
        // Nobody receives any more once the acceptor is gone.
        let _ = self.0.send(Next::End);
    }
}

impl Acceptor for ChannelAcceptor {
    type Address = &'static str;

    fn local_addr(&self) -> &'static str {
        "a channel"
    }

    fn stop(&self) -> Box<dyn Shutdown> {
        Box::new(Stop(self.stop.clone()))
    }

    fn accept(&mut self, _: &Limits) -> Result<Option<Accepted>> {
        match self.peers.recv().unwrap() {
            Next::Peer(transport) => Ok(Some(transport.into())),
            Next::Fails => Err(Error::failed("on purpose")),
            Next::Panics => panic!("on purpose"),
            Next::End => Ok(None),
        }
    }
}

impl Drop for ChannelAcceptor {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }
}

/// A listener on a channel, what sends to it, and how many acceptors were dropped.
fn on_channel(vat: &Vat) -> (Listener<&'static str>, Sender<Next>, Arc<AtomicUsize>) {
    let (stop, peers) = unbounded();
    let dropped = Arc::new(AtomicUsize::new(0));
    let acceptor = ChannelAcceptor { peers, stop: stop.clone(), dropped: dropped.clone() };
    (vat.serve(acceptor).unwrap(), stop, dropped)
}

fn connect_by(channel: &Sender<Next>) -> Connection {
    let (near, far) = Transport::in_memory();
    channel.send(Next::Peer(far)).unwrap();
    Vat::new().over(near).unwrap()
}

#[test]
fn acceptor_that_fails_and_panics_serves_other_peers_and_is_dropped_with_its_listener() {
    for threads in MODES {
        for close in [true, false] {
            let (listener, channel, dropped) = on_channel(&Vat::new().threads(threads).bootstrap(echo()));
            assert_eq!(listener.local_addr(), "a channel");
            assert_eq!(format!("{listener:?}"), r#"Listener("a channel")"#);
            let mut connections = Vec::new();
            for next in [Next::Fails, Next::Panics] {
                channel.send(next).unwrap();
                let connection = connect_by(&channel);
                assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "served").unwrap(), "served");
                connections.push(connection);
            }
            if close {
                listener.close(DEADLINE).unwrap();
            } else {
                drop(listener);
            }
            assert_eq!(dropped.load(Ordering::SeqCst), 1);
            for connection in connections {
                connection.wait_closed().unwrap();
            }
        }
    }
}

#[test]
fn silent_peer_over_any_transport_ends_in_the_time_for_the_first_message() {
    for threads in MODES {
        let limits = limits(|l| l.first_message = Some(Duration::from_millis(20)));
        let (_listener, channel, _) = on_channel(&Vat::new().threads(threads).limits(limits));
        connect_by(&channel).wait_closed().unwrap();
    }
}

#[test]
fn listener_whose_acceptor_has_no_more_peers_keeps_its_connections() {
    let (listener, channel, dropped) = on_channel(&Vat::new().bootstrap(echo()));
    let connection = connect_by(&channel);
    channel.send(Next::End).unwrap();
    listener.wait().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "still").unwrap(), "still");
    drop(listener);
    connection.wait_closed().unwrap();
}

#[test]
fn listeners_of_several_kinds_can_be_kept_in_one_list() {
    let path = std::env::temp_dir().join(format!("capnp-threads-kinds-{}", std::process::id()));
    let vat = Vat::new().bootstrap(echo());
    let tcp = vat.listen("127.0.0.1:0").unwrap();
    let address = tcp.local_addr();
    let unix = vat.listen_unix(&path).unwrap();
    let list = vec![tcp.map_addr(|address| address.to_string()), unix.map_addr(|path| format!("{path:?}"))];
    let named: Vec<_> = list.iter().map(Listener::local_addr).collect();
    assert_eq!(named, [address.to_string(), format!("{path:?}")]);
    let connections = [Vat::new().connect(address).unwrap(), Vat::new().connect_unix(&path).unwrap()];
    for connection in &connections {
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "served").unwrap(), "served");
    }
    drop(list);
    connections.iter().for_each(|connection| drop(connection.wait_closed().unwrap()));
    assert!(TcpStream::connect(address).is_err() && !path.exists());
}
