//! Streaming calls to a peer that does not answer, or does not read: the wait for room in a stream's window ends in time,
//! and others who call an object that streams are answered.

use std::sync::Mutex;
use std::time::Duration;

use capnp_threads::{Capability, Client, ExceptionKind, Limits, Result, Stream};
use crossbeam_channel::bounded;

use crate::support::{
    ask, cap, echo, failure, limits, object, request, shared, soon, until, Holding, Two, DEADLINE,
};

/// The time for room in these tests. What they show does not depend on how long it is.
const SHORT: Duration = Duration::from_millis(5);

fn stream_to(stream: &Stream, client: &Client, text: &str) -> Result<()> {
    stream.send(request(client, text))
}

/// Runs what ends, on a thread of its own.
#[track_caller]
fn ends<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = bounded(1);
    std::thread::spawn(move || tell.send(run()));
    soon(&told)
}

/// Streams to the object that it was given last, and says how that went. A call with a capability gives it one. All calls
/// have their turns, one after the other.
fn hub(stream: Stream) -> Client {
    let subscriber = Mutex::new(None);
    object(move |call| {
        if let Ok(given) = cap(call) {
            *subscriber.lock().unwrap() = Some(given);
            return Ok(());
        }
        let subscriber = subscriber.lock().unwrap().clone();
        if let Some(subscriber) = subscriber {
            stream_to(&stream, &subscriber, &"x".repeat(1000))?;
        }
        Ok(call.results().set_as("sent")?)
    })
}

/// Calls until the object has no room to stream, and then some times more: everybody is answered.
#[track_caller]
fn others_are_answered(other: &Two) {
    let refused = (0..10).find_map(|_| {
        let outcome = ask(&other.remote, "");
        outcome.err().map(|e| failure::<()>(Err(e)))
    });
    let mut why = refused.expect("the subscriber takes no more");
    for _ in 0..20 {
        assert_eq!(why.kind(), ExceptionKind::Overloaded);
        let reason = why.reason();
        assert!(
            reason.contains("no room in the window of a stream in 5ms: 2 streaming calls of 2"),
            "{reason}"
        );
        assert!(reason.contains("where 500 bytes may be under way"), "{reason}");
        why = failure(ask(&other.remote, ""));
    }
}

/// Calls until there is room: a stream hears of an answer a moment after that has left the table.
#[track_caller]
fn once_there_is_room<T>(call: impl Fn() -> Result<T>) -> T {
    loop {
        match call() {
            Ok(outcome) => return outcome,
            refused => assert_eq!(failure(refused).kind(), ExceptionKind::Overloaded),
        }
    }
}

#[test]
fn peer_that_does_not_answer_a_stream_stops_no_other_callers_calls() {
    let holding = Holding::new();
    let mine = limits(|l| l.room_timeout = Some(SHORT));
    let (subscribed, other, _gate) = shared(mine, &hub(Stream::with_window(500)), &holding.object);
    others_are_answered(&other);
    drop(holding.let_go);
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(once_there_is_room(|| ask(&other.remote, "")), "sent", "the stream has not failed");
}

#[test]
fn peer_that_does_not_read_a_stream_stops_no_other_callers_calls() {
    let mine = limits(|l| l.room_timeout = Some(SHORT));
    let (subscribed, other, gate) = shared(mine, &hub(Stream::with_window(500)), &echo());
    let shut = gate.shut();
    others_are_answered(&other);
    shut.open();
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(once_there_is_room(|| ask(&other.remote, "")), "sent", "the stream has not failed");
}

/// A stream in whose window there is no room, and what its calls wait for.
fn full(mine: Limits) -> (Two, Holding, Stream) {
    let holding = Holding::new();
    let two = Two::in_memory(mine, Limits::default(), &holding.object);
    let stream = Stream::with_window(1);
    (0..2).for_each(|n| stream_to(&stream, &two.remote, &n.to_string()).unwrap());
    (two, holding, stream)
}

#[test]
fn a_call_that_was_refused_is_not_sent_and_the_stream_goes_on() {
    let (two, holding, stream) = full(limits(|l| l.room_timeout = Some(SHORT)));
    assert_eq!(failure(stream_to(&stream, &two.remote, "refused")).kind(), ExceptionKind::Overloaded);
    assert_eq!(failure(stream_to(&stream, &two.remote, "at once")).kind(), ExceptionKind::Overloaded);
    holding.let_go.send(()).unwrap();
    once_there_is_room(|| stream_to(&stream, &two.remote, "2"));
    (0..2).for_each(|_| holding.let_go.send(()).unwrap());
    stream.finish().unwrap();
    assert_eq!(holding.started.try_iter().collect::<Vec<_>>(), ["0", "1", "2"]);
}

#[test]
fn streaming_call_that_waits_for_room_longer_than_its_timeout_fails() {
    let (two, _holding, stream) = full(limits(|l| l.room_timeout = None));
    let own = request(&two.remote, "gives up").timeout(SHORT);
    assert_eq!(failure(stream.send(own)).reason(), "the call's deadline has passed");
    assert_eq!(two.here.snapshot().questions(), 2, "what gave up was never asked");
    assert_eq!(
        failure(stream.finish_timeout(SHORT)).kind(),
        ExceptionKind::Overloaded,
        "no call of the stream failed"
    );
}

#[test]
fn room_timeout_of_a_stream_replaces_that_of_the_limits() {
    let (two, _holding, _stream) = full(limits(|l| l.room_timeout = None));
    let stream = Stream::with_window(1).room_timeout(Some(SHORT));
    (0..2).for_each(|n| stream_to(&stream, &two.remote, &n.to_string()).unwrap());
    assert!(failure(stream_to(&stream, &two.remote, "")).reason().contains("in 5ms"));

    let (two, holding, _stream) = full(limits(|l| l.room_timeout = Some(Duration::ZERO)));
    let stream = Stream::with_window(1).room_timeout(None);
    (0..2).for_each(|n| stream_to(&stream, &two.remote, &n.to_string()).unwrap());
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| stream_to(&stream, &two.remote, ""));
        (0..5).for_each(|_| holding.let_go.send(()).unwrap());
        patient.join().unwrap().unwrap();
    });
}

/// A wrapper in this vat may depend on a peer, too.
#[test]
fn a_stream_to_an_object_of_this_vat_has_a_room_timeout() {
    let holding = Holding::new();
    let (promised, _fulfiller) = Client::promise();
    for client in [&holding.object, &promised] {
        let stream = Stream::with_window(1).room_timeout(Some(SHORT));
        (0..2).for_each(|n| stream_to(&stream, client, &n.to_string()).unwrap());
        assert!(failure(stream_to(&stream, client, "")).reason().contains("in 5ms"));
    }
}

#[test]
fn finish_of_a_stream_with_a_timeout_ends_in_time() {
    let (two, holding, stream) = full(Limits::default());
    let why = failure(stream.finish_timeout(SHORT));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "2 streaming calls have not been answered in 5ms");
    (0..3).for_each(|_| holding.let_go.send(()).unwrap());
    stream_to(&stream, &two.remote, "goes on").unwrap();
    stream.finish_timeout(DEADLINE).unwrap();
    stream.finish().unwrap();
}

/// Of threads that share a stream, each gets its room in the end, however many wait.
#[test]
fn all_threads_that_wait_for_room_in_a_stream_get_it() {
    let two = Two::in_memory(Limits::default(), Limits::default(), &echo());
    let stream = Stream::with_window(1);
    ends(move || {
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (stream, remote) = (&stream, &two.remote);
                scope.spawn(move || (0..50).for_each(|_| stream_to(stream, remote, &n.to_string()).unwrap()));
            }
        });
        stream.finish().unwrap();
        two.settle();
    });
}
