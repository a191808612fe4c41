//! Values with which nothing could work are refused where they are set; the least and the greatest that are taken work.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::Stdio;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{
    set_process_memory, set_thread_limit, Client, Connection, ExceptionKind, Limits, Options, Stream, Vat,
};

use crate::support::{
    answer, ask, cap, echo, failure, give, limits, object, request, send, soon, tcp_pair, text, Holding, Two,
    DEADLINE,
};

/// A change that makes limits unusable, and the limit that it changes.
type Wrong = (&'static str, fn(&mut Limits));

const WRONG: &[Wrong] = &[
    ("questions", |l| l.questions = 0),
    ("methods", |l| l.methods = 0),
    ("answer_bytes", |l| l.answer_bytes = 0),
    ("answer_bytes", |l| l.answer_bytes = 2047),
    ("message_words", |l| l.message_words = 0),
    ("message_words", |l| l.message_words = 127),
    ("segments", |l| l.segments = 0),
    ("traversal_words", |l| l.traversal_words = 0),
    ("traversal_words", |l| l.traversal_words = 127),
    ("nesting", |l| l.nesting = 15),
    ("nesting", |l| l.nesting = 0),
    ("nesting", |l| l.nesting = -1),
    ("nesting", |l| l.nesting = 257),
    ("nesting", |l| l.nesting = i32::MAX),
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
        let options = Options::new().limits(wrong.clone());
        let started = Connection::start(Transport::in_memory().0, options).unwrap_err();
        assert_eq!(started.kind(), ExceptionKind::Failed);
        assert!(started.to_string().contains(&why), "{started}");
        let socket = Transport::tcp(tcp_pair().0, &wrong).err().unwrap();
        assert_eq!(socket.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(socket.to_string(), why);
        #[cfg(unix)]
        {
            let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
            assert_eq!(Transport::unix(socket, &wrong).err().unwrap().to_string(), why);
            let mut cat = std::process::Command::new("cat");
            let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(Transport::child(&mut child, &wrong).err().unwrap().to_string(), why);
            drop(child.stdin.take().expect("it was not taken"));
            child.wait().unwrap();
        }
    }
}

#[test]
fn other_values_that_can_not_work_are_refused_where_they_are_set() {
    let why = panics(|| Vat::new().call_timeout(Duration::ZERO));
    assert!(why.contains("call timeout of zero"), "{why}");
    let options = Options::new().call_timeout(Duration::ZERO);
    let why = Connection::start(Transport::in_memory().0, options).unwrap_err();
    assert!(why.to_string().contains("call timeout of zero"), "{why}");
    let why = panics(|| set_thread_limit(Some(7)));
    assert!(why.contains("thread limit must be at least 8"), "{why}");
    for bytes in [0, (256 << 10) - 1] {
        let why = panics(|| set_process_memory(bytes));
        assert_eq!(
            why,
            format!("the memory limit of the process is {bytes} bytes, and must be at least 262144")
        );
    }
}

/// An object that gives its calls back to their callers.
fn calls_back() -> Client {
    object(|call| match cap(call) {
        Ok(caller) => Ok(call.results().set_as(&*ask(&caller, "back")?)?),
        Err(_) => {
            let text = text(call)?;
            Ok(call.results().set_as(&*text)?)
        }
    })
}

/// Makes calls of all kinds over a connection whose ends both have these limits. With `caps`, some bring capabilities.
fn works(limits: &Limits, time: Duration, caps: bool) {
    limits.check().unwrap();
    let vat = Vat::new().limits(limits.clone()).call_timeout(time);
    let listener = vat.clone().bootstrap(calls_back()).listen("127.0.0.1:0").unwrap();
    let connection = vat.connect(listener.local_addr()).unwrap();
    for n in 0..10 {
        assert_eq!(ask(&connection.bootstrap(), &n.to_string()).unwrap(), n.to_string());
    }
    let remote: Client = connection.bootstrap();
    let timed = request(&remote, "timed").timeout(time).send();
    timed.wait_timeout(time).unwrap();
    if caps {
        let response = answer(give(&remote, &echo())).unwrap();
        let text: capnp::text::Reader = response.get_as().unwrap();
        assert_eq!(text, "back");
    }
    let stream = Stream::with_window(0);
    (0..10).for_each(|n| stream.send(request(&remote, &n.to_string())).unwrap());
    stream.finish_timeout(time).unwrap();
    connection.close(time).unwrap();
    listener.close(time).unwrap();
}

#[test]
fn the_least_values_that_are_taken_work() {
    let least = limits(|l| {
        (l.questions, l.methods, l.exports, l.connections) = (1, 1, 1, 1);
        (l.imports, l.answer_bytes) = (0, 2048);
        (l.call_words, l.send_bytes, l.message_words, l.segments) = (0, 0, 128, 1);
        (l.traversal_words, l.nesting) = (128, 16);
        l.keepalive = Some(Duration::from_nanos(1));
        (l.polling, l.linger) = (Duration::ZERO, Duration::ZERO);
    });
    works(&least, DEADLINE, false);
}

/// One is more than the clock reaches, the other just not.
#[test]
fn the_greatest_values_that_are_taken_work() {
    for time in [Duration::MAX, Duration::from_secs(1 << 62)] {
        let greatest = limits(|l| {
            (l.questions, l.methods, l.exports) = (usize::MAX, usize::MAX, usize::MAX);
            (l.imports, l.answer_bytes, l.connections) = (usize::MAX, usize::MAX, usize::MAX);
            (l.call_words, l.send_bytes, l.message_words, l.segments) =
                (usize::MAX, usize::MAX, usize::MAX, usize::MAX);
            (l.traversal_words, l.nesting) = (usize::MAX, 256);
            l.keepalive = Some(Duration::from_secs(32_767));
            (l.first_message, l.room_timeout) = (Some(time), Some(time));
            (l.polling, l.linger) = (time, time);
        });
        works(&greatest, time, true);
    }
}

/// A call that finds no room waits for it, however long that may be; or it fails at once.
#[test]
fn the_least_and_the_greatest_time_for_room_work() {
    for time in [Duration::MAX, Duration::from_secs(1 << 62), Duration::ZERO] {
        let holding = Holding::new();
        let mine = limits(|l| (l.questions, l.room_timeout) = (1, Some(time)));
        let two = Two::in_memory(mine, Limits::default(), &holding.object);
        let first = send(&two.remote, "first");
        soon(&holding.started);
        if time.is_zero() {
            assert_eq!(failure(answer(send(&two.remote, "refused"))).kind(), ExceptionKind::Overloaded);
        } else {
            std::thread::scope(|scope| {
                let second = scope.spawn(|| answer(send(&two.remote, "second")));
                holding.let_go.send(()).unwrap();
                holding.let_go.send(()).unwrap();
                second.join().unwrap().unwrap();
            });
        }
        drop(holding.let_go);
        answer(first).unwrap();
    }
}
