//! What an error says of itself: whether it is a timeout, a disconnection or a cancellation, for each way in which one of
//! these comes about.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{
    Call, Capability, Client, Connection, Error, Exception, ExceptionKind, Limits, ProtocolError, Result,
    Stream, TransportError, Vat,
};
use crossbeam_channel::unbounded;

use crate::support::wires::{Two, Wire};
use crate::support::{ask, echo, object, request, send, Soon};

/// The time that passes in these tests. What they show does not depend on how long it is.
const SHORT: Duration = Duration::from_millis(5);

/// The answers of an error to the three questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Says {
    timeout: bool,
    disconnected: bool,
    canceled: bool,
}

const NOTHING: Says = Says { timeout: false, disconnected: false, canceled: false };
const TIMEOUT: Says = Says { timeout: true, ..NOTHING };
const DISCONNECTED: Says = Says { disconnected: true, ..NOTHING };
const BOTH: Says = Says { timeout: true, disconnected: true, canceled: false };
const CANCELED: Says = Says { canceled: true, ..NOTHING };

#[track_caller]
fn assert_says(why: impl Into<Error>, says: Says) {
    let why = why.into();
    let said =
        Says { timeout: why.is_timeout(), disconnected: why.is_disconnected(), canceled: why.is_canceled() };
    assert_eq!(said, says, "{why}");
    assert_eq!(why.kind() == ExceptionKind::Disconnected, says.disconnected, "{why}");
    // As an exception it says the same.
    let why = Exception::from(why);
    let said =
        Says { timeout: why.is_timeout(), disconnected: why.is_disconnected(), canceled: why.is_canceled() };
    assert_eq!(said, says, "{why}");
}

/// An object that answers no call, and has no turns.
fn silent() -> Client {
    object(|call: &mut Call| {
        call.allow_next();
        call.cancellation().wait()
    })
}

fn limits(set: impl Fn(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

#[test]
fn late_answers_are_timeouts() {
    let two = Two::offering(Wire::Tcp, &silent());
    let remote = two.here.bootstrap::<Client>();
    for client in [&silent(), &remote] {
        let late = request(client, 0, "").timeout(SHORT).send();
        assert_says(late.soon().unwrap_err(), TIMEOUT);
        assert_says(send(client, 0, "").wait_timeout(SHORT).map(drop).unwrap_err(), TIMEOUT);
        assert_says(send(client, 0, "").try_take().map(drop).unwrap_err(), TIMEOUT);
        let stream = Stream::new();
        stream.send(request(client, 0, "")).unwrap();
        assert_says(stream.finish_timeout(SHORT).unwrap_err(), TIMEOUT);
    }
    let of_vat = Two::new(
        Wire::Tcp,
        Vat::new().call_timeout(SHORT),
        Vat::new().bootstrap(silent()),
        &Limits::default(),
    );
    assert_says(ask(&of_vat.here.bootstrap(), 0, "").unwrap_err(), TIMEOUT);
}

/// Also at once, where there was none for a call before.
#[test]
fn calls_without_room_in_time_are_timeouts() {
    let mine = limits(|l| (l.questions, l.room_timeout) = (2, Some(SHORT)));
    let vats = [(Vat::new(), &mine), (Vat::new().bootstrap(silent()), &Limits::default())];
    let two = Two::with_limits(Wire::Memory, vats);
    let remote = two.here.bootstrap::<Client>().resolve().unwrap();
    let _calls = [(); 2].map(|()| send(&remote, 0, ""));
    for _ in 0..3 {
        assert_says(send(&remote, 0, "").soon().unwrap_err(), TIMEOUT);
    }
    let stream = Stream::with_window(0).room_timeout(Some(SHORT));
    let silent = silent();
    // The window, and the size of the largest call more.
    (0..2).for_each(|_| stream.send(request(&silent, 0, "")).unwrap());
    for _ in 0..3 {
        assert_says(stream.send(request(&silent, 0, "")).unwrap_err(), TIMEOUT);
    }
}

#[test]
fn late_first_message_is_a_timeout_and_a_disconnection() {
    let (_silent, waiting) = Transport::in_memory();
    let vat = Vat::new().over(waiting.expect_first_message_within(SHORT)).unwrap();
    let call = send(&vat.bootstrap(), 0, "");
    assert_says(vat.wait_closed().unwrap(), BOTH);
    assert_says(call.soon().unwrap_err(), BOTH);
    assert_says(TransportError::FirstMessageLate(SHORT), BOTH);
}

/// The system takes minutes until it says so.
#[test]
fn connection_that_the_system_takes_too_long_to_make_is_a_timeout_and_a_disconnection() {
    let late = io::Error::from(io::ErrorKind::TimedOut);
    assert_says(TransportError::io("connect over TCP", late), BOTH);
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert_says(TransportError::io("connect over TCP", refused), DISCONNECTED);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_says(Vat::new().connect(nobody).unwrap_err(), DISCONNECTED);
}

#[test]
fn ends_of_a_connection_are_disconnections() {
    let ends: [fn(&Two); 5] = [
        |two| two.here.close(Duration::ZERO).unwrap(),
        |two| two.there.close(Duration::ZERO).unwrap(),
        |two| two.here.abort(Error::overloaded("here")),
        |two| two.there.abort(Error::failed("there")),
        |two| two.cut.cut(),
    ];
    for end in ends {
        let two = Two::offering(Wire::Tcp, &silent());
        let remote = two.here.bootstrap::<Client>();
        let call = send(&remote, 0, "");
        end(&two);
        assert_says(call.soon().unwrap_err(), DISCONNECTED);
        assert_says(two.here.wait_closed().unwrap(), DISCONNECTED);
        assert_says(remote.broken_reason().unwrap(), DISCONNECTED);
        assert_says(remote.resolve().unwrap_err(), DISCONNECTED);
    }
    for e in [TransportError::Truncated, TransportError::TooLarge { words: 2, limit: 1 }] {
        assert_says(e, DISCONNECTED);
    }
    assert_says(ProtocolError::DisembargoNotReflected, NOTHING);
}

/// What a connection ends with because of a timeout is one; `abort` takes any error.
#[test]
fn connection_aborted_for_a_timeout_says_both() {
    let two = Two::offering(Wire::Tcp, &silent());
    let remote = two.here.bootstrap::<Client>();
    let late = request(&remote, 0, "").timeout(SHORT).send().soon().unwrap_err();
    two.here.abort(late);
    assert_says(ask(&remote, 0, "").unwrap_err(), BOTH);
    // The peer is told the kind and the reason.
    assert_says(two.there.wait_closed().unwrap(), DISCONNECTED);
}

/// An object behind a proxy: the connection beyond that is the one that ends.
#[test]
fn remote_exceptions_say_what_their_kind_says() {
    let far = Two::offering(Wire::Tcp, &silent());
    let near = Two::offering(Wire::Tcp, &far.here.bootstrap::<Client>());
    let remote = near.here.bootstrap::<Client>();
    let call = send(&remote, 0, "");
    far.there.abort(Error::failed("there"));
    assert_says(call.soon().unwrap_err(), DISCONNECTED);
    assert!(near.here.is_connected());

    let failing = object(|call| match call.method_id() {
        0 => silent().request(1, 2).timeout(SHORT).send().wait().map(drop),
        1 => request(&silent(), 0, "").timeout(SHORT).send().wait().map(drop),
        2 => Err(Error::disconnected("a device")),
        3 => Err(Error::overloaded("too much")),
        4 => Err(Error::unimplemented("not yet")),
        _ => Err(Error::failed("as told")),
    });
    let two = Two::offering(Wire::Tcp, &failing);
    let remote = two.here.bootstrap::<Client>();
    let says = [NOTHING, NOTHING, DISCONNECTED, NOTHING, NOTHING, NOTHING];
    for (method, says) in (0..).zip(says) {
        assert_says(ask(&remote, method, "").unwrap_err(), says);
    }
    // Within this vat, they are known.
    assert_says(ask(&failing, 1, "").unwrap_err(), TIMEOUT);
}

#[test]
fn waits_in_a_canceled_method_are_cancellations() {
    let waits: [fn(&Client) -> Result<()>; 3] = [
        |inner| send(inner, 0, "").wait().map(drop),
        |inner| send(inner, 0, "").pipeline.client().resolve().map(drop),
        |inner| {
            let stream = Stream::new();
            stream.send(request(inner, 0, ""))?;
            stream.finish()
        },
    ];
    for wait in waits {
        let (put, got) = unbounded();
        let (entered, entering) = unbounded();
        let inner = silent();
        let outer = object(move |_| {
            entered.send(()).unwrap();
            put.send(wait(&inner)).unwrap();
            Ok(())
        });
        let two = Two::offering(Wire::Tcp, &outer);
        let call = send(&two.here.bootstrap::<Client>(), 0, "");
        (&entering).soon();
        drop(call);
        assert_says((&got).soon().unwrap_err(), CANCELED);
    }
}

/// With a source that says more, and text before the reason.
#[test]
fn what_is_added_to_an_exception_changes_no_answer() {
    let late = request(&silent(), 0, "").timeout(SHORT).send().soon().unwrap_err();
    let late = Exception::from(late).with_context("one").with_trace("two").with_detail(3, []);
    assert_says(late.clone(), TIMEOUT);
    assert_says(Exception::failed("because of it").with_source(late), TIMEOUT);
    let other = io::Error::from(io::ErrorKind::TimedOut);
    let why = Error::from(other);
    assert!(Exception::from(why.clone()).source().is_some());
    assert_says(why, NOTHING);
    assert_says(Connection::start(Transport::in_memory().0, limited(0)).unwrap_err(), NOTHING);
    assert_says(ask(&Client::null(), 0, "").unwrap_err(), NOTHING);
    assert!(ask(&echo(), 0, "fine").is_ok());
}

fn limited(questions: usize) -> capnp_threads::Options {
    let mut options = capnp_threads::Options::default();
    options.limits.questions = questions;
    options
}
