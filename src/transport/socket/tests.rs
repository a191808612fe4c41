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
fn round_trip(mut a: Transport, mut b: Transport) {
    let sent: Vec<_> = (0..200usize).map(|i| "x".repeat(i * i)).collect();
    let texts = sent.clone();
    let echo = move || {
        while let Some(text) = received(&mut b) {
            b.sink.send(&[message(&text)]).unwrap();
        }
    };
    let echo = spawn("echo", Role::User, echo).unwrap();
    let Transport { mut sink, mut source, .. } = a;
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
    a = Transport { sink: Box::new(Nothing), source, shutdown: a.shutdown, peer: a.peer };
    a.shutdown.shutdown();
    a.shutdown.shutdown();
}

struct Nothing;

impl MessageSink for Nothing {
    fn send(&mut self, _: &[Outbound]) -> Result<(), TransportError> {
        Ok(())
    }
}

#[test]
fn tcp_carries_messages_both_ways() {
    let (a, b) = tcp_pair();
    let (near, far) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let (a, b) = (tcp(a), tcp(b));
    assert_eq!(a.peer, Peer::Tcp { local: near, remote: far });
    assert_eq!(b.peer, Peer::Tcp { local: far, remote: near });
    round_trip(a, b);
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn what_does_not_go_out_at_once_is_kept_and_sent_first() {
    let (a, b) = tcp_pair();
    let (Transport { mut sink, .. }, mut b) = (tcp(a), tcp(b));
    assert!(sink.sends_now());
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

#[test]
fn the_first_message_has_its_time_in_all() {
    let (a, mut b) = tcp_pair();
    let limit = Duration::from_millis(20);
    let mut a = tcp(a).expect_first_message_within(limit);
    let trickle = move || {
        let million_words = [0, 0, 0, 0, 0x40, 0x42, 0x0f, 0];
        let _ = b.write_all(&million_words);
        while b.write_all(&[0]).is_ok() {}
    };
    let trickle = spawn("trickle", Role::User, trickle).unwrap();
    let late = a.source.receive();
    assert!(matches!(late, Err(TransportError::FirstMessageLate(l)) if l == limit), "{late:?}");
    drop(a);
    trickle.join().unwrap();
}

#[test]
fn later_messages_have_all_the_time() {
    let (a, b) = tcp_pair();
    let same = a.try_clone().unwrap();
    let mut b = tcp(b);
    let mut a = tcp(a).expect_first_message_within(Duration::from_secs(3600));
    b.sink.send(&[message("first")]).unwrap();
    assert_eq!(received(&mut a).unwrap(), "first");
    assert_eq!(same.read_timeout().unwrap(), None);
    a.source.set_first_message_timeout(Duration::ZERO);
    b.sink.send(&[message("second")]).unwrap();
    assert_eq!(received(&mut a).unwrap(), "second");
}
