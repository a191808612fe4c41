//! Sockets that carry messages, and end.

use std::net::TcpListener;

use super::*;
use crate::sync::{spawn, Role};
use crate::transport::testing::{message, text};

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

fn tcp(stream: TcpStream) -> Transport {
    Transport::tcp(stream, &Limits::default()).unwrap()
}

fn received(t: &mut Transport) -> Option<String> {
    t.source.receive().unwrap().map(text)
}

/// More than the system buffers, so that the sender must wait for the receiver.
fn round_trip(a: Transport, mut b: Transport) {
    let sent: Vec<_> = (0..200usize).map(|i| "x".repeat(i * i)).collect();
    let texts = sent.clone();
    let echo = move || {
        while let Some(text) = received(&mut b) {
            b.sink.send(&[message(&text)]).unwrap();
        }
    };
    let echo = spawn("echo", Role::User, echo).unwrap();
    let Transport { mut sink, mut source, shutdown, .. } = a;
    let send = move || {
        let batch: Vec<_> = texts.iter().map(|t| message(t)).collect();
        batch.chunks(50).for_each(|batch| sink.send(batch).unwrap());
    };
    let send = spawn("send", Role::User, send).unwrap();
    for text_sent in sent {
        assert_eq!(text(source.receive().unwrap().unwrap()), text_sent);
    }
    send.join().unwrap();
    assert!(source.receive().unwrap().is_none(), "the dropped sink ends both directions by way of the echo");
    echo.join().unwrap();
    shutdown.shutdown();
    shutdown.shutdown();
}

#[test]
fn tcp_carries_messages_both_ways() {
    let (a, b) = tcp_pair();
    let (near, far) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let (a, b) = (tcp(a), tcp(b));
    assert_eq!(a.peer.address, PeerAddress::Tcp { local: near, remote: far });
    assert_eq!(b.peer.address, PeerAddress::Tcp { local: far, remote: near });
    round_trip(a, b);
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn what_does_not_go_out_at_once_is_kept_and_sent_first() {
    let (a, b) = tcp_pair();
    let (Transport { sink, .. }, mut b) = (tcp(a), tcp(b));
    let Sink::Nonblocking(mut sink) = sink else { panic!("a socket can be sent to without waiting") };
    let nth = |n: usize| format!("{n} ").repeat(1000);
    let mut sent = 0;
    while sink.send_now(&[message(&nth(sent))]).unwrap() {
        sent += 1;
    }
    let behind = [message(&nth(sent + 1)), message(&nth(sent + 2))];
    assert!(!sink.send_now(&behind).unwrap(), "nobody reads yet");
    let send = spawn("send", Role::User, move || sink.send(&[message("last")]).unwrap()).unwrap();
    for n in 0..=sent + 2 {
        assert_eq!(received(&mut b).unwrap(), nth(n));
    }
    assert_eq!(received(&mut b).unwrap(), "last");
    send.join().unwrap();
}

#[test]
fn tcp_options_are_set() {
    let (a, _b) = tcp_pair();
    a.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let same = a.try_clone().unwrap();
    let _transport = tcp(a);
    assert!(same.nodelay().unwrap());
    assert_eq!(same.read_timeout().unwrap(), None);
    assert!(socket2::SockRef::from(&same).keepalive().unwrap());
}

#[test]
#[cfg(unix)]
fn unix_carries_messages_both_ways() {
    let (a, b) = UnixStream::pair().unwrap();
    let unix = |stream| Transport::unix(stream, &Limits::default()).unwrap();
    round_trip(unix(a), unix(b));
}

#[test]
fn shutdown_wakes_the_receiver_and_fails_the_sender() {
    let (a, b) = tcp_pair();
    let (a, mut b) = (tcp(a), tcp(b));
    let Transport { mut sink, mut source, shutdown, .. } = a;
    let receive = move || assert!(source.receive().unwrap().is_none());
    let receive = spawn("receive", Role::User, receive).unwrap();
    shutdown.shutdown();
    receive.join().unwrap();
    assert!(sink.send(&[message("late")]).is_err());
    assert_eq!(received(&mut b), None);
}
