//! A peer that does not read, or does not answer, and the others who call an object that calls it.

use std::sync::Mutex;
use std::time::Duration;

use capnp_threads::{Client, ExceptionKind, Limits};
use crossbeam_channel::{unbounded, Sender};

use crate::support::{answer, ask, cap, echo, failure, limits, object, request, send, shared, until, Two};

/// The time for room in these tests. What they show does not depend on how long it is.
const SHORT: Duration = Duration::from_millis(5);

/// Calls the object that it was given last, with a large text, and says how that went. Whoever calls it with a
/// capability gives it one. All calls have their turns, one after the other.
fn hub() -> Client {
    let (subscriber, calls) = (Mutex::new(None), Mutex::new(Vec::new()));
    object(move |call| {
        if let Ok(given) = cap(call) {
            *subscriber.lock().unwrap() = Some(given);
            return Ok(());
        }
        let subscriber = subscriber.lock().unwrap().clone();
        if let Some(subscriber) = subscriber {
            match request(&subscriber, &"x".repeat(8000)).send().try_take() {
                Ok(outcome) => drop(outcome?),
                // Nobody waits for the answer.
                Err(pending) => calls.lock().unwrap().push(pending),
            }
        }
        Ok(call.results().set_as("sent")?)
    })
}

/// An object that keeps its calls.
fn keeps_calls() -> Client {
    let (keep, kept): (Sender<capnp_threads::Deferred>, _) = unbounded();
    object(move |call| {
        let _ = &kept;
        keep.send(call.defer()?).unwrap();
        Ok(())
    })
}

/// Calls until the object could not call the subscriber, and then some times more: everybody is answered.
#[track_caller]
fn others_are_answered(other: &Two) -> String {
    let refused = (0..10).find_map(|_| {
        let outcome = ask(&other.remote, "");
        outcome.err().map(|e| failure::<()>(Err(e)))
    });
    let why = refused.expect("the subscriber takes no more");
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    for _ in 0..20 {
        assert_eq!(failure(ask(&other.remote, "")).kind(), ExceptionKind::Overloaded);
    }
    why.reason().to_string()
}

#[test]
fn a_peer_that_does_not_read_stops_nobody_elses_calls() {
    let mine = limits(|l| {
        l.send_bytes = 10_000;
        l.room_timeout = Some(SHORT);
    });
    let (subscribed, other, gate) = shared(mine, &hub(), &echo());
    let shut = gate.shut();
    let why = others_are_answered(&other);
    assert!(why.contains("no room for a call in 5ms"), "{why}");
    shut.open();
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(ask(&other.remote, "").unwrap(), "sent", "there is room again");
}

#[test]
fn a_peer_that_does_not_answer_stops_nobody_elses_calls() {
    let mine = limits(|l| {
        l.questions = 4;
        l.room_timeout = Some(SHORT);
    });
    let (_subscribed, other, _gate) = shared(mine, &hub(), &keeps_calls());
    let why = others_are_answered(&other);
    assert!(why.contains("4 calls unanswered"), "{why}");
}

#[test]
fn the_time_for_room_has_a_default() {
    assert!(Limits::default().room_timeout.is_some());
}

/// Of callers that wait, as many go on as there is room for, and in the end all do.
#[test]
fn all_callers_that_wait_get_their_turn() {
    let mine = limits(|l| l.questions = 2);
    let two = Two::in_memory(mine, Limits::default(), &echo());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let remote = &two.remote;
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(ask(remote, &n.to_string()).unwrap(), n.to_string());
                }
            });
        }
    });
    let (first, second) = (send(&two.remote, "1"), send(&two.remote, "2"));
    answer(first).unwrap();
    answer(second).unwrap();
    two.settle();
}

/// A method that waits for room is canceled: it gives way to the next.
#[test]
fn a_caller_that_is_canceled_leaves_the_line() {
    let mine = limits(|l| {
        l.send_bytes = 4000;
        l.room_timeout = None;
    });
    let (subscribed, other, gate) = shared(mine, &hub(), &echo());
    let shut = gate.shut();
    assert_eq!(ask(&other.remote, "").unwrap(), "sent");
    let waits = send(&other.remote, "waits for room");
    until(&other.there, |tables| tables.answers() == 1);
    drop(waits);
    until(&other.there, |tables| tables.answers() == 0);
    shut.open();
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(ask(&other.remote, "").unwrap(), "sent");
}
