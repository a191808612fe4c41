//! A peer that does not read, or does not answer, and the others who call an object that calls it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Client, Deferred, ExceptionKind, Limits, Vat, WaitError};
use crossbeam_channel::{unbounded, Sender};

use crate::support::{
    answer, ask, cap, echo, failure, give, limits, object, request, send, shared, soon, text, until, Gate,
    Two, DEADLINE,
};

/// The time for room in these tests. What they show does not depend on how long it is.
const SHORT: Duration = Duration::from_millis(5);

/// How long the text is that the hub calls with.
const TEXT: usize = 8000;

/// Calls the object that it was given last, with a text of this length, and says how that went. Whoever calls it with a
/// capability gives it one. All calls have their turns, one after the other.
fn hub(length: usize) -> Client {
    let (subscriber, calls) = (Mutex::new(None), Mutex::new(Vec::new()));
    object(move |call| {
        if let Ok(given) = cap(call) {
            *subscriber.lock().unwrap() = Some(given);
            return Ok(());
        }
        let subscriber = subscriber.lock().unwrap().clone();
        if let Some(subscriber) = subscriber {
            match request(&subscriber, &"x".repeat(length)).send().try_take() {
                Ok(_) => {}
                Err(WaitError::Failed(why)) => return Err(why),
                // Nobody waits for the answer.
                Err(WaitError::Pending(pending)) => calls.lock().unwrap().push(pending),
            }
        }
        Ok(call.results().set_as("sent")?)
    })
}

/// An object that keeps its calls.
fn keeps_calls() -> Client {
    let (keep, kept): (Sender<Deferred>, _) = unbounded();
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
fn peer_that_does_not_read_stops_no_other_callers_calls() {
    let mine = limits(|l| {
        l.send_bytes = 10_000;
        l.room_timeout = Some(SHORT);
    });
    let (subscribed, other, gate) = shared(mine, &hub(TEXT), &echo());
    let shut = gate.shut();
    let why = others_are_answered(&other);
    assert!(why.contains("no room for a call in 5ms"), "{why}");
    shut.open();
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(ask(&other.remote, "").unwrap(), "sent", "there is room again");
}

#[test]
fn peer_that_does_not_answer_stops_no_other_callers_calls() {
    let mine = limits(|l| {
        l.questions = 4;
        l.room_timeout = Some(SHORT);
    });
    let (_subscribed, other, _gate) = shared(mine, &hub(TEXT), &keeps_calls());
    let why = others_are_answered(&other);
    assert!(why.contains("4 calls unanswered"), "{why}");
}

/// No limit is set: eight of these calls fill what may be queued for the peer, and then it takes the default `room_timeout`
/// until the first caller is told.
#[test]
fn peer_that_does_not_read_stops_no_other_callers_calls_with_default_limits() {
    let (subscribed, other, gate) = shared(Limits::default(), &hub(1 << 20), &echo());
    let shut = gate.shut();
    let why = others_are_answered(&other);
    assert!(why.contains("no room for a call in 10s"), "{why}");
    shut.open();
    until(&subscribed.there, |tables| tables.questions() == 0);
    assert_eq!(ask(&other.remote, "").unwrap(), "sent", "there is room again");
}

/// No call of that vat may take longer than two seconds: so long the first one waits, and none of the others.
#[test]
fn call_timeout_bounds_the_wait_for_a_peer_that_does_not_read_once_for_all_calls() {
    let gate = Gate::default();
    let (a, b) = Transport::in_memory();
    let vat = Vat::new().limits(limits(|l| l.send_bytes = 10_000)).call_timeout(Duration::from_secs(2));
    let hub = hub(8000);
    let subscribed = Two::over([a, gate.before(b)], Vat::new(), vat, &hub);
    answer(give(&subscribed.remote, &echo())).unwrap();
    let _shut = gate.shut();
    // Two seconds for each would be more than a test may take.
    let mut calls: Vec<_> = (0..60).map(|_| send(&hub, "")).collect();
    let last = calls.pop().unwrap();
    assert_eq!(failure(answer(last)).kind(), ExceptionKind::Overloaded);
}

/// Eight threads call an object that answers when it is told to, where two calls may be under way: as often as one of the
/// two is answered, one caller more goes on, and no more than that.
#[test]
fn callers_that_wait_go_on_as_room_is_made_and_all_do_in_the_end() {
    const CALLERS: usize = 8;
    const EACH: usize = 20;
    const ROOM: usize = 2;
    let (keep, kept) = unbounded();
    let object = object(move |call| {
        keep.send((text(call)?, call.defer()?)).unwrap();
        Ok(())
    });
    let mine = limits(|l| (l.questions, l.room_timeout) = (ROOM, Some(2 * DEADLINE)));
    let two = Two::in_memory(mine, Limits::default(), &object);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let remote = &two.remote;
            scope.spawn(move || {
                for _ in 0..EACH {
                    answer(send(remote, &caller.to_string())).unwrap();
                }
            });
        }
        let (mut left, mut under_way) = ([EACH; CALLERS], VecDeque::new());
        while left.iter().any(|calls| *calls > 0) {
            let callers = left.iter().filter(|calls| **calls > 0).count();
            while under_way.len() < ROOM.min(callers) {
                under_way.push_back(soon(&kept));
                assert!(two.here.snapshot().questions() <= ROOM);
            }
            assert!(kept.is_empty(), "there is room for two");
            let (caller, deferred): (String, Deferred) = under_way.pop_front().unwrap();
            left[caller.parse::<usize>().unwrap()] -= 1;
            deferred.done();
        }
    });
    two.settle();
}

/// A method that waits for room is canceled: it gives way to the next.
#[test]
fn caller_that_is_canceled_gives_its_place_in_line_to_the_next() {
    let mine = limits(|l| {
        l.send_bytes = 4000;
        l.room_timeout = None;
    });
    let (subscribed, other, gate) = shared(mine, &hub(TEXT), &echo());
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
