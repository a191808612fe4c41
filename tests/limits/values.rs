//! Values with which nothing could work are refused where they are set; the least and the greatest that are taken work.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{set_thread_limit, Connection, ExceptionKind, Limits, Options, Vat};

use crate::support::{ask, echo, limits, tcp_pair};

/// A change that makes limits unusable, and the limit that it changes.
type Wrong = (&'static str, fn(&mut Limits));

const WRONG: &[Wrong] = &[
    ("questions", |l| l.questions = 0),
    ("methods", |l| l.methods = 0),
    ("message_words", |l| l.message_words = 0),
    ("message_words", |l| l.message_words = 127),
    ("segments", |l| l.segments = 0),
    ("traversal_words", |l| l.traversal_words = 0),
    ("traversal_words", |l| l.traversal_words = 127),
    ("nesting", |l| l.nesting = 15),
    ("nesting", |l| l.nesting = 0),
    ("nesting", |l| l.nesting = -1),
    ("connections", |l| l.connections = 0),
    ("first_message", |l| l.first_message = Some(Duration::ZERO)),
    ("keepalive", |l| l.keepalive = Some(Duration::ZERO)),
    ("keepalive", |l| l.keepalive = Some(Duration::from_secs(32_768))),
    ("keepalive", |l| l.keepalive = Some(Duration::MAX)),
];

/// What a panic says.
#[track_caller]
fn panics<T>(run: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("it does not panic") };
    panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap()
}

#[test]
fn limits_that_can_not_work_are_refused_where_they_are_set() {
    for (name, change) in WRONG {
        let wrong = limits(change);
        let why = wrong.check().unwrap_err().to_string();
        assert!(why.starts_with(&format!("the limit `{name}` is ")) && why.contains("must be"), "{why}");
        assert_eq!(panics(|| Vat::new().limits(wrong.clone())), why);
        let options = Options { limits: wrong.clone(), ..Options::default() };
        let started = Connection::start(Transport::in_memory().0, options).unwrap_err();
        assert_eq!(started.kind(), ExceptionKind::Failed);
        assert!(started.to_string().contains(&why), "{started}");
        let socket = Transport::tcp(tcp_pair().0, &wrong).err().unwrap();
        assert_eq!(socket.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(socket.to_string(), why);
    }
}

#[test]
fn other_values_that_can_not_work_are_refused_where_they_are_set() {
    let why = panics(|| Vat::new().call_timeout(Duration::ZERO));
    assert!(why.contains("call timeout of zero"), "{why}");
    let options = Options { call_timeout: Some(Duration::ZERO), ..Options::default() };
    let why = Connection::start(Transport::in_memory().0, options).unwrap_err();
    assert!(why.to_string().contains("call timeout of zero"), "{why}");
    let why = panics(|| set_thread_limit(Some(7)));
    assert!(why.contains("thread limit must be at least 8"), "{why}");
}

#[test]
fn the_least_and_the_greatest_values_that_are_taken_work() {
    let least = limits(|l| {
        (l.questions, l.methods, l.exports, l.connections) = (1, 1, 1, 1);
        (l.call_words, l.send_bytes, l.message_words, l.segments) = (0, 0, 128, 1);
        (l.traversal_words, l.nesting) = (128, 16);
        l.keepalive = Some(Duration::from_nanos(1));
        (l.polling, l.linger) = (Duration::ZERO, Duration::ZERO);
    });
    let greatest = limits(|l| {
        (l.questions, l.methods, l.exports, l.connections) = (usize::MAX, usize::MAX, usize::MAX, usize::MAX);
        (l.call_words, l.send_bytes, l.message_words, l.segments) =
            (usize::MAX, usize::MAX, usize::MAX, usize::MAX);
        (l.traversal_words, l.nesting) = (usize::MAX, i32::MAX);
        l.keepalive = Some(Duration::from_secs(32_767));
        l.first_message = Some(Duration::MAX);
        (l.polling, l.linger) = (Duration::MAX, Duration::MAX);
    });
    for limits in [least, greatest] {
        limits.check().unwrap();
        let vat = Vat::new().limits(limits).call_timeout(Duration::MAX);
        let listener = vat.clone().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
        let connection = vat.connect(listener.local_addr().unwrap()).unwrap();
        for n in 0..10 {
            assert_eq!(ask(&connection.bootstrap(), &n.to_string()).unwrap(), n.to_string());
        }
        connection.close(Duration::MAX).unwrap();
        listener.close(Duration::MAX).unwrap();
    }
}
