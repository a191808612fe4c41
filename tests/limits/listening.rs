//! Limits of a listener, and of sockets: connections, the first message, silence, and closing.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Client, Error, Limits, Threads, TransportError, Vat};
use crossbeam_channel::unbounded;

use crate::support::{answer, ask, echo, limits, send, soon, tcp_pair, transport_error, until, Gate, Two};

#[test]
fn one_connection_more_waits_until_another_ends() {
    let (serve, served) = unbounded();
    let offering = Vat::new().limits(limits(|l| l.connections = 2)).bootstrap_with(move |_| {
        serve.send(()).unwrap();
        Ok(echo())
    });
    let listener = offering.listen("127.0.0.1:0").unwrap();
    let connect = || Vat::new().connect(listener.local_addr()).unwrap();
    let two = [connect(), connect()];
    let remotes: [Client; 2] = [two[0].bootstrap::<Client>(), two[1].bootstrap::<Client>()];
    remotes.iter().for_each(|remote| assert_eq!(ask(remote, "hello").unwrap(), "hello"));
    (0..2).for_each(|_| soon(&served));
    let third = connect();
    let waiting = send(&third.bootstrap::<Client>(), "waited");
    for n in 0..100 {
        remotes.iter().for_each(|remote| assert_eq!(ask(remote, &n.to_string()).unwrap(), n.to_string()));
    }
    assert!(served.is_empty(), "a third connection is served beside two");
    assert_eq!(listener.connections().len(), 2);
    drop(remotes);
    let [first, second] = two;
    first.close(Duration::ZERO).unwrap();
    soon(&served);
    answer(waiting).unwrap();
    assert_eq!(ask(&second.bootstrap::<Client>(), "still here").unwrap(), "still here");
}

#[test]
fn a_first_message_that_does_not_come_ends_its_connection_alone() {
    let patience = Duration::from_millis(50);
    let limits = limits(|l| l.first_message = Some(patience));
    let listener = Vat::new().limits(limits).bootstrap(echo()).listen("127.0.0.1:0").unwrap();
    // On a busy machine one that speaks at once may be late too.
    let speak = |_| {
        let remote = Vat::new().connect(listener.local_addr()).unwrap().bootstrap::<Client>();
        ask(&remote, "in time").is_ok().then_some(remote)
    };
    let remote = (0..1000).find_map(speak).expect("one of them is in time");
    let mut silent = TcpStream::connect(listener.local_addr()).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0, "the connection is closed");
    assert_eq!(ask(&remote, "later messages have their time").unwrap(), "later messages have their time");
}

/// Over a reader of which nothing more is known, too, whose thread nothing can interrupt.
#[test]
fn missing_first_message_is_the_reason_of_the_end() {
    let patience = Duration::from_millis(1);
    for threads in [Threads::Lending, Threads::Strict] {
        let (a, b) = tcp_pair();
        let limits = Limits::default();
        let tcp = (Transport::tcp(a, &limits).unwrap(), Transport::tcp(b, &limits).unwrap());
        let (c, d) = tcp_pair();
        let pair = Transport::pair(d.try_clone().unwrap(), d, &limits);
        let streams = (Transport::tcp(c, &limits).unwrap(), pair);
        for (_silent, waiting) in [tcp, Transport::in_memory(), streams] {
            let (tell, told) = unbounded();
            let vat = Vat::new().threads(threads);
            let connection = vat.over(waiting.expect_first_message_within(patience)).unwrap();
            connection.on_disconnect(move |why| tell.send(why.clone()).unwrap());
            let why = soon(&told);
            let source = why.source().and_then(|source| source.downcast_ref::<Error>());
            let Some(Error::Transport(TransportError::FirstMessageLate(limit))) = source else {
                panic!("{why}");
            };
            assert_eq!(*limit, patience);
        }
    }
}

#[test]
fn first_message_that_arrives_byte_by_byte_has_its_time_in_all() {
    let (a, mut b) = tcp_pair();
    let limits = Limits::default();
    let waiting = Transport::tcp(a, &limits).unwrap();
    let connection = Vat::new().over(waiting.expect_first_message_within(Duration::from_millis(20))).unwrap();
    // A message of 1,000,000 words begins.
    b.write_all(&[0, 0, 0, 0, 0x40, 0x42, 0x0f, 0]).unwrap();
    while b.write_all(&[0]).is_ok() {}
    assert!(matches!(transport_error(&connection), TransportError::FirstMessageLate(_)));
}

#[test]
fn connection_whose_first_message_came_in_time_may_be_silent() {
    for threads in [Threads::Lending, Threads::Strict] {
        let (near, far) = Transport::in_memory();
        let patience = Duration::from_millis(200);
        let here = Vat::new().threads(threads).over(near).unwrap();
        let remote = here.bootstrap::<Client>();
        let offering = Vat::new().threads(threads).bootstrap(echo());
        let there = offering.over(far.expect_first_message_within(patience)).unwrap();
        // On a busy machine it may come too late.
        let Ok(_) = ask(&remote, "in time") else { continue };
        // A connection whose first message does not come, and which is given its time later, ends.
        let (_silent, waiting) = Transport::in_memory();
        let silent = Vat::new().over(waiting.expect_first_message_within(patience)).unwrap();
        transport_error(&silent);
        assert!(there.is_connected());
        assert_eq!(ask(&remote, "still here").unwrap(), "still here");
    }
}

#[test]
fn keepalive_is_set_on_the_socket_if_the_limit_is_set() {
    for wanted in [None, Some(Duration::from_secs(30))] {
        let (a, b) = tcp_pair();
        let same = a.try_clone().unwrap();
        let limits = limits(|l| l.keepalive = wanted);
        let _connection = Vat::new().over(Transport::tcp(a, &limits).unwrap()).unwrap();
        assert_eq!(socket2::SockRef::from(&same).keepalive().unwrap(), wanted.is_some());
        drop(b);
    }
}

/// The other end of a socket does not read, and more is to be sent than the system takes.
#[test]
fn closing_does_not_wait_for_a_peer_that_does_not_read() {
    let (a, _unread) = tcp_pair();
    let limits = limits(|l| {
        l.linger = Duration::from_millis(50);
        l.send_bytes = 64 << 20;
    });
    let connection = Vat::new().limits(limits.clone()).over(Transport::tcp(a, &limits).unwrap()).unwrap();
    let remote = connection.bootstrap::<Client>();
    let large = "x".repeat(8 << 20);
    let calls: Vec<_> = (0..4).map(|_| send(&remote, &large)).collect();
    connection.close(Duration::ZERO).unwrap();
    let why = connection.wait_closed().unwrap();
    assert!(why.reason().contains("the connection was closed here"), "{why}");
    for call in calls {
        assert!(answer(call).unwrap_err().to_string().contains("the connection was closed here"));
    }
}

/// What is still to be sent when a peer reads within that time is sent: here the reason of an abort.
#[test]
fn the_reason_of_an_abort_is_sent_to_a_peer_that_reads_in_time() {
    let (a, b) = Transport::in_memory();
    let gate = Gate::default();
    let patient = limits(|l| l.linger = Duration::from_secs(60));
    let ends = [gate.before(a), b];
    let two = Two::over(ends, Vat::new().limits(patient), Vat::new(), &echo());
    let shut = gate.shut();
    two.here.abort(capnp_threads::Exception::failed("enough"));
    assert!(!two.here.is_connected());
    shut.open();
    let why = two.there.wait_closed().unwrap();
    assert!(why.reason().contains("enough"), "{why}");
    assert!(two.there.snapshot().is_empty());
    until(&two.there, |tables| tables.is_empty());
}
