//! How connections end: closed, drained, aborted; who is told, what of, and when.

use std::error::Error as _;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use capnp::private::capability::ClientHook;
use capnp_threads::transport::Transport;
use capnp_threads::{
    Capability, Client, Connection, Error, Exception, ExceptionKind, Limits, Threads, TransportError, Vat,
};
use crossbeam_channel::{bounded, unbounded, RecvTimeoutError};

use crate::support::wires::{tcp_pair, Two, Wire};
use crate::support::{ask, echo, object, reply, said, send, with_cap, Soon, DEADLINE};
use crate::waiting::block_on;

/// Answers when it is told to.
fn held() -> (Client, crossbeam_channel::Receiver<()>, crossbeam_channel::Sender<()>) {
    let (enter, entered) = unbounded();
    let (go, gone) = unbounded::<()>();
    let held = object(move |call| {
        enter.send(()).unwrap();
        call.allow_next();
        gone.recv().unwrap();
        reply(call, "drained")
    });
    (held, entered, go)
}

/// Calls that are under way when a connection is closed are answered first, from whichever side it is closed.
#[test]
fn close_waits_for_calls_that_are_under_way() {
    for wire in Wire::ALL {
        for closed_here in [true, false] {
            let (held, entered, go) = held();
            let two = Two::offering(wire, &held);
            let answer = send(&two.here.bootstrap::<Client>(), 0, "");
            (&entered).soon();
            let closing = if closed_here { two.here.clone() } else { two.there.clone() };
            std::thread::scope(|scope| {
                let closer = scope.spawn(|| closing.close(DEADLINE).unwrap());
                go.send(()).unwrap();
                closer.join().unwrap();
            });
            assert_eq!(said(&answer.soon().unwrap()), "drained");
            for ended in [&two.here, &two.there] {
                assert_eq!(ended.wait_closed().unwrap().kind(), ExceptionKind::Disconnected);
            }
        }
    }
}

/// What is not answered by then fails.
#[test]
fn close_fails_calls_that_are_not_answered_within_its_timeout() {
    for wire in Wire::ALL {
        for closed_here in [true, false] {
            let (held, entered, go) = held();
            let two = Two::offering(wire, &held);
            let answer = send(&two.here.bootstrap::<Client>(), 0, "");
            (&entered).soon();
            let closing = if closed_here { &two.here } else { &two.there };
            closing.close(Duration::from_millis(5)).unwrap();
            assert!(!closing.is_connected());
            let error = answer.soon().unwrap_err();
            assert_eq!(error.kind(), ExceptionKind::Disconnected);
            assert!(error.to_string().contains("closed"), "{error}");
            go.send(()).unwrap();
        }
    }
}

/// Closing twice, from many threads, and after the end.
#[test]
fn close_called_twice_by_many_threads_and_after_the_end_returns() {
    let two = Two::offering(Wire::Tcp, &echo());
    assert_eq!(ask(&two.here.bootstrap::<Client>(), 0, "x").unwrap(), "x");
    std::thread::scope(|scope| {
        for connection in [&two.here, &two.there, &two.here, &two.there] {
            scope.spawn(|| connection.close(DEADLINE).unwrap());
        }
    });
    two.here.close(DEADLINE).unwrap();
    assert!(!two.here.is_connected() && !two.there.is_connected());
}

/// A method closes the connection that it was called over. It waits for itself only as long as it says.
#[test]
fn method_that_closes_its_own_connection_waits_only_for_the_timeout() {
    let (give, given) = bounded::<capnp_threads::Connection>(1);
    let closing = object(move |_| given.recv().unwrap().close(Duration::from_millis(5)));
    let two = Two::offering(Wire::Tcp, &closing);
    give.send(two.there.clone()).unwrap();
    let error = send(&two.here.bootstrap::<Client>(), 0, "").soon().unwrap_err();
    assert_eq!(error.kind(), ExceptionKind::Disconnected);
    two.there.wait_closed().unwrap();
}

/// On its own threads a connection can be ended; to wait there for its end is refused.
#[test]
fn callback_can_end_its_own_connection_but_not_wait_for_its_end() {
    let (held, entered, go) = held();
    let two = Two::offering(Wire::Tcp, &held);
    let (put, got) = unbounded();
    let connection = two.here.clone();
    send(&two.here.bootstrap::<Client>(), 0, "").on_ready(move |_| {
        put.send(connection.close(DEADLINE)).unwrap();
    });
    (&entered).soon();
    go.send(()).unwrap();
    let refused = (&got).soon().unwrap_err();
    assert!(refused.to_string().contains("own thread"), "{refused}");
    two.here.wait_closed().unwrap();
    two.there.wait_closed().unwrap();
}

/// Each callback runs once, after all waits have ended. One that is registered after the end runs at once.
#[test]
fn disconnect_callbacks_run_once_after_all_waiters_or_at_once_if_late() {
    for wire in Wire::ALL {
        let (held, entered, _go) = held();
        let two = Two::offering(wire, &held);
        let (put, got) = unbounded();
        let answer = send(&two.here.bootstrap::<Client>(), 0, "").into_channel();
        (&entered).soon();
        for n in 0..3 {
            let (put, answer) = (put.clone(), answer.clone());
            two.here.on_disconnect(move |why| {
                let failed = n > 0 || answer.try_recv().unwrap().is_err();
                put.send((n, failed, why.kind())).unwrap();
            });
        }
        assert!(got.try_recv().is_err());
        two.cut.cut();
        for n in 0..3 {
            assert_eq!((&got).soon(), (n, true, ExceptionKind::Disconnected));
        }
        two.here.wait_closed().unwrap();
        two.here.on_disconnect(move |why| put.send((3, true, why.kind())).unwrap());
        assert_eq!(got.try_recv(), Ok((3, true, ExceptionKind::Disconnected)), "at once");
        assert_eq!(got.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected), "the callbacks are gone");
    }
}

/// A callback may make calls (they fail), register others, and panic.
#[test]
fn disconnect_callback_may_call_register_and_panic() {
    let two = Two::offering(Wire::Memory, &echo());
    let remote = two.here.bootstrap::<Client>();
    let (put, got) = unbounded();
    two.here.on_disconnect(|_| panic!("on purpose"));
    let (connection, again) = (two.here.clone(), put.clone());
    two.here.on_disconnect(move |_| {
        let why = send(&remote, 0, "").try_take().unwrap_err().into_failed().expect("it fails at once");
        put.send(why.kind()).unwrap();
        connection.on_disconnect(move |why| again.send(why.kind()).unwrap());
    });
    two.cut.cut();
    assert_eq!((&got).soon(), ExceptionKind::Disconnected);
    assert_eq!((&got).soon(), ExceptionKind::Disconnected);
}

/// The reason travels with its kind, trace and details, and is the cause in both vats.
#[test]
fn abort_reason_reaches_the_peer_with_kind_trace_and_details() {
    for wire in Wire::ALL {
        let (held, entered, go) = held();
        let two = Two::offering(wire, &held);
        let answer = send(&two.here.bootstrap::<Client>(), 0, "");
        (&entered).soon();
        let why = Exception::overloaded("enough is enough").with_trace("a trace").with_detail(7, [1, 2, 3]);
        two.there.abort(why.clone());
        let error = answer.soon().unwrap_err();
        for ended in [Exception::from(error), two.here.wait_closed().unwrap()] {
            assert_eq!(ended.kind(), ExceptionKind::Disconnected);
            assert!(ended.reason().contains("enough is enough"), "{ended}");
            assert_eq!((ended.trace(), ended.details()), (why.trace(), why.details()));
            let source = ended.source().and_then(|source| source.downcast_ref::<Error>());
            let Some(Error::Exception(cause)) = source else { panic!("no cause: {source:?}") };
            assert_eq!(cause.kind(), ExceptionKind::Overloaded);
            assert!(cause.reason().contains("enough is enough"), "{cause}");
            assert_eq!(cause.trace(), "a trace");
            assert_eq!((cause.details()[0].id, &*cause.details()[0].data), (7, &[1, 2, 3][..]));
        }
        let mine = two.there.wait_closed().unwrap();
        assert!(mine.reason().contains("enough is enough"), "{mine}");
        assert_eq!((mine.trace(), mine.details()), (why.trace(), why.details()));
        go.send(()).unwrap();
    }
}

/// Whatever comes later, the first cause stays.
#[test]
fn later_cause_does_not_replace_the_first() {
    let two = Two::offering(Wire::Memory, &echo());
    two.here.abort(Exception::failed("first"));
    two.here.abort(Exception::failed("second"));
    two.cut.cut();
    two.here.close(Duration::ZERO).unwrap();
    let why = two.here.wait_closed().unwrap();
    assert!(why.reason().contains("first"), "{why}");
    assert_eq!(two.here.disconnect_reason().unwrap(), why);
}

fn over(stream: TcpStream) -> Connection {
    Vat::new().over(Transport::tcp(stream, &Limits::default()).unwrap()).unwrap()
}

/// Bytes that are no message are a transport's error, which the cause says.
#[test]
fn bytes_that_are_no_message_are_the_cause_of_the_end() {
    let (mine, mut theirs) = tcp_pair();
    let connection = over(mine);
    let answer = send(&connection.bootstrap::<Client>(), 0, "");
    theirs.write_all(&[0xff; 8]).unwrap();
    let error = Exception::from(answer.soon().unwrap_err());
    assert_eq!(error.kind(), ExceptionKind::Disconnected);
    let cause = error.source().and_then(|source| source.downcast_ref::<Error>());
    assert!(matches!(cause, Some(Error::Transport(TransportError::BadFrame(_)))), "{cause:?}");
}

/// The end of the stream amid a message is a transport's error, which the cause says.
#[test]
fn stream_that_ends_amid_a_message_is_the_cause_of_the_end() {
    let (mine, mut theirs) = tcp_pair();
    let connection = over(mine);
    theirs.write_all(&[0, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3]).unwrap();
    drop(theirs);
    let ended = connection.wait_closed().unwrap();
    let cause = ended.source().and_then(|source| source.downcast_ref::<Error>());
    assert!(matches!(cause, Some(Error::Transport(_))), "{cause:?}");
}

/// A vat that is no longer used by anybody closes, and its peer hears of it; one that is, does not.
#[test]
fn connection_closes_when_its_last_user_is_dropped() {
    for wire in Wire::ALL {
        let Two { here, there, .. } = Two::offering(wire, &echo());
        let other = here.clone();
        drop(here);
        assert_eq!(ask(&other.bootstrap::<Client>(), 0, "x").unwrap(), "x");
        drop(other);
        let why = there.wait_closed().unwrap();
        assert_eq!(why.kind(), ExceptionKind::Disconnected);
    }
}

/// A listener's connections end with it, unless it was told to let them go on.
#[test]
fn dropped_listener_ends_its_connections_unless_told_otherwise() {
    let listen = || Vat::new().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
    let connect = |address: std::net::SocketAddr| {
        let connection = Vat::new().connect(address).unwrap();
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "x").unwrap(), "x");
        connection
    };
    let listener = listen();
    let connection = connect(listener.local_addr());
    drop(listener);
    connection.wait_closed().unwrap();

    let listener = listen();
    let address = listener.local_addr();
    let connection = connect(address);
    listener.detach();
    assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "still").unwrap(), "still");
    connect(address);

    let listener = listen();
    let connection = connect(listener.local_addr());
    listener.close(DEADLINE).unwrap();
    connection.wait_closed().unwrap();
}

/// A listener that is closed lets calls end, all of its connections' together.
#[test]
fn closing_a_listener_drains_its_connections() {
    let (held, entered, go) = held();
    let listener = Vat::new().bootstrap(held).listen("127.0.0.1:0").unwrap();
    let connections: Vec<_> = (0..5).map(|_| Vat::new().connect(listener.local_addr()).unwrap()).collect();
    let answers: Vec<_> = connections.iter().map(|c| send(&c.bootstrap::<Client>(), 0, "")).collect();
    // Under way are those that have arrived.
    (0..5).for_each(|_| (&entered).soon());
    std::thread::scope(|scope| {
        let closer = scope.spawn(|| listener.close(DEADLINE).unwrap());
        (0..5).for_each(|_| go.send(()).unwrap());
        closer.join().unwrap();
    });
    for answer in answers {
        assert_eq!(said(&answer.soon().unwrap()), "drained");
    }
}

/// The socket's file is gone with the listener.
#[test]
fn dropped_unix_listener_removes_its_socket_file() {
    let path = std::env::temp_dir().join(format!("capnp-threads-ending-{}", std::process::id()));
    let listener = Vat::new().bootstrap(echo()).listen_unix(&path).unwrap();
    let connection = Vat::new().connect_unix(&path).unwrap();
    assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "x").unwrap(), "x");
    listener.close(DEADLINE).unwrap();
    connection.wait_closed().unwrap();
    assert!(!path.exists(), "the file stays");
    assert!(Vat::new().connect_unix(&path).is_err());
}

/// Objects of a vat that is gone, passed on before to a third: calls on them fail as disconnected.
#[test]
fn clients_passed_on_from_an_ended_connection_fail_as_disconnected() {
    let identity = object(|call| {
        let given = crate::support::cap(call)?;
        crate::support::reply_cap(call, &given);
        Ok(())
    });
    let far = Two::offering(Wire::Memory, &echo());
    let near = Two::offering(Wire::Memory, &identity);
    let remote = far.here.bootstrap::<Client>();
    assert_eq!(ask(&remote, 0, "x").unwrap(), "x");
    let kept = with_cap(&near.here.bootstrap::<Client>(), 0, &remote).send().soon().unwrap();
    far.cut.cut();
    far.here.wait_closed().unwrap();
    let kept = crate::support::given_back(&kept);
    assert_eq!(ask(&kept, 0, "x").unwrap_err().kind(), ExceptionKind::Disconnected);
    assert!(near.here.is_connected());
}

/// The exception goes on over the proxy's other connection.
#[test]
fn the_details_of_an_abort_reach_callers_behind_a_proxy() {
    let (held, entered, go) = held();
    let far = Two::offering(Wire::Memory, &held);
    let near = Two::offering(Wire::Tcp, &far.here.bootstrap::<Client>());
    let proxied = near.here.bootstrap::<Client>();
    let answer = send(&proxied, 0, "");
    (&entered).soon();
    far.there.abort(Exception::failed("over").with_trace("a trace").with_detail(7, [1, 2, 3]));
    for error in [answer.soon().unwrap_err(), ask(&proxied, 0, "").unwrap_err()] {
        let why = Exception::from(error);
        assert_eq!(why.kind(), ExceptionKind::Disconnected);
        assert_eq!(
            (why.trace(), why.details()[0].id, &*why.details()[0].data),
            ("a trace", 7, &[1, 2, 3][..])
        );
    }
    go.send(()).unwrap();
}

/// Every kind of reference that leads over a connection: it is broken once that has ended, and not before.
#[test]
fn clients_of_a_connection_that_has_ended_are_broken() {
    for threads in [Threads::Lending, Threads::Strict] {
        let (held, entered, go) = held();
        let giving = object(move |call| {
            match call.method_id() {
                0 => crate::support::reply_cap(call, &echo()),
                _ => crate::support::reply_cap(call, &held),
            }
            Ok(())
        });
        let vat = Vat::new().threads(threads);
        let two = Two::new(Wire::Tcp, vat.clone(), vat.bootstrap(giving), &Limits::default());
        let bootstrap = two.here.bootstrap::<Client>();
        let response = send(&bootstrap, 0, "").soon().unwrap();
        let import = crate::support::given_back(&response);
        let answered = send(&bootstrap, 0, "");
        let (ahead, unused) = (answered.pipeline.client(), send(&bootstrap, 0, "").pipeline.client());
        assert_eq!(ask(&ahead, 0, "x").unwrap(), "x");
        drop(answered.soon().unwrap());
        let slow = send(&bootstrap, 1, "").pipeline.client();
        let pending = send(&slow, 0, "");
        (&entered).soon();
        let in_pending = pending.pipeline.client();
        let (promise, fulfiller) = Client::promise();
        fulfiller.fulfill(import.clone());
        let all = [&bootstrap, &import, &ahead, &unused, &slow, &in_pending, &promise];
        assert!(all.iter().all(|client| client.broken_reason().is_none()));
        two.there.abort(Exception::failed("over").with_detail(7, [1]));
        two.here.wait_closed().unwrap();
        for (n, client) in all.iter().enumerate() {
            let why = client.broken_reason().unwrap_or_else(|| panic!("client {n} is not broken"));
            assert_eq!(why.kind(), ExceptionKind::Disconnected);
            assert_eq!(why.details()[0].id, 7);
            assert!(!client.is_promise() && !client.is_null());
            let refused = client.resolve().expect_err("there is no object any more");
            assert_eq!(Exception::from(refused), why);
            assert_eq!(Exception::from(ask(client, 0, "").unwrap_err()), why);
            assert!(block_on(client.when_resolved()).is_err(), "so it is for the `capnp` crate's clients");
        }
        go.send(()).unwrap();
    }
}
