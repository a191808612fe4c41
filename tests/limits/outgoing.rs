//! Limits on what we ask of a peer: questions, exports, bytes to send, and time.

use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, ExceptionKind, Limits, Vat};
use crossbeam_channel::{bounded, unbounded};

use crate::support::{
    answer, ask, cap, echo, failure, give, limits, object, request, send, soon, until, Gate, Holding, Two,
};

/// A time after which a call gives up. What the tests below show does not depend on how long it is.
const SHORT: Duration = Duration::from_millis(20);

#[track_caller]
fn gives_up(request: capnp_threads::Request) {
    let why = failure(answer(request.timeout(SHORT).send()));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the call's deadline has passed");
}

#[test]
fn caller_at_the_limit_of_questions_waits_for_one() {
    let holding = Holding::new();
    let two = Two::in_memory(limits(|l| l.questions = 2), Limits::default(), &holding.object);
    let first = [send(&two.remote, "1"), send(&two.remote, "2")];
    gives_up(request(&two.remote, "gives up"));
    assert_eq!(two.here.snapshot().questions(), 2, "what gave up was never asked");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| answer(send(&two.remote, "3")).unwrap());
        for n in ["1", "2", "3"] {
            assert_eq!(soon(&holding.started), n);
            holding.let_go.send(()).unwrap();
        }
        waiting.join().unwrap();
    });
    first.into_iter().for_each(|call| drop(answer(call).unwrap()));
    two.settle();
    assert!(holding.started.is_empty());
}

#[test]
fn caller_that_waits_for_a_question_fails_at_disconnect() {
    let holding = Holding::new();
    let two = Two::in_memory(limits(|l| l.questions = 1), Limits::default(), &holding.object);
    let _first = send(&two.remote, "1");
    std::thread::scope(|scope| {
        let (begin, begun) = bounded(0);
        let waiting = scope.spawn(move || {
            begin.send(()).unwrap();
            failure(answer(send(&two.remote, "2")))
        });
        soon(&begun);
        two.there.abort(capnp_threads::Exception::failed("enough"));
        assert_eq!(waiting.join().unwrap().kind(), ExceptionKind::Disconnected);
    });
}

/// On a connection's own threads nothing may wait: calls are sent above the limit.
#[test]
fn calls_made_in_callbacks_do_not_wait() {
    let (start, started) = unbounded();
    let (keep, kept) = unbounded();
    let keeping = object(move |call| {
        keep.send(call.defer()?).unwrap();
        start.send(()).unwrap();
        Ok(())
    });
    let two = Two::in_memory(limits(|l| l.questions = 2), Limits::default(), &keeping);
    let remote = two.remote.clone();
    let (sent, all_sent) = bounded(1);
    send(&two.remote, "first").on_ready(move |_| {
        let calls: Vec<_> = (0..5).map(|_| send(&remote, "in a callback")).collect();
        sent.send(calls).unwrap();
    });
    let second = send(&two.remote, "second");
    soon(&kept).fail(capnp_threads::Exception::failed("done"));
    let calls = soon(&all_sent);
    (0..7).for_each(|_| soon(&started));
    until(&two.here, |tables| tables.questions() == 6);
    gives_up(request(&two.remote, "a caller waits all the same"));
    (0..6).for_each(|_| soon(&kept).answer(|_| Ok(())));
    calls.into_iter().chain([second]).for_each(|call| drop(answer(call).unwrap()));
    two.settle();
}

#[test]
fn a_call_that_exports_too_much_fails() {
    let (keep, kept) = unbounded::<Client>();
    let keeper = object(move |call| {
        keep.send(cap(call)?).unwrap();
        Ok(())
    });
    let two = Two::in_memory(limits(|l| l.exports = 2), Limits::default(), &keeper);
    let mine = [echo(), echo()];
    mine.iter().for_each(|mine| drop(answer(give(&two.remote, mine)).unwrap()));
    let why = failure(answer(give(&two.remote, &echo())));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the limit of 2 exported capabilities is reached");
    assert_eq!(two.here.snapshot().exports(), 2);
    answer(give(&two.remote, &mine[0])).expect("what is exported already is no new export");
    let theirs: Vec<_> = (0..3).map(|_| soon(&kept)).collect();
    for their in &theirs {
        assert_eq!(ask(their, "still here").unwrap(), "still here");
    }
    drop(theirs);
    until(&two.here, |tables| tables.exports() == 0);
    answer(give(&two.remote, &echo())).expect("there is room again");
}

#[test]
fn an_answer_that_exports_too_much_fails() {
    let maker = object(|call| {
        call.results().set_as_capability(Box::new(echo()));
        Ok(())
    });
    // The bootstrap object is an export too.
    let two = Two::in_memory(Limits::default(), limits(|l| l.exports = 2), &maker);
    let made: Client = {
        let response = answer(send(&two.remote, "")).unwrap();
        response.get().unwrap().get_as_capability().unwrap()
    };
    let refused = send(&two.remote, "");
    let ahead = refused.pipeline.client();
    let why = failure(answer(refused));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the limit of 2 exported capabilities is reached");
    assert_eq!(failure(ask(&ahead, "")).kind(), ExceptionKind::Overloaded);
    assert_eq!(ask(&made, "still here").unwrap(), "still here");
    drop(made);
    until(&two.there, |tables| tables.exports() == 1);
    answer(send(&two.remote, "")).expect("there is room again");
}

fn behind_a_gate(here: Vat, offered: &Client) -> (Two, Gate) {
    let (a, b) = Transport::in_memory();
    let gate = Gate::default();
    (Two::over([gate.before(a), b], here, Vat::new(), offered), gate)
}

#[test]
fn a_caller_waits_while_the_peer_does_not_read() {
    let (two, gate) = behind_a_gate(Vat::new().limits(limits(|l| l.send_bytes = 4000)), &echo());
    let large = "x".repeat(8000);
    let shut = gate.shut();
    let first = send(&two.remote, &large);
    assert_eq!(two.here.snapshot().questions(), 1, "one call is let in, however large");
    gives_up(request(&two.remote, "gives up"));
    assert_eq!(two.here.snapshot().questions(), 1, "what gave up was never asked");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&two.remote, "waited").unwrap());
        shut.open();
        assert_eq!(waiting.join().unwrap(), "waited");
    });
    answer(first).unwrap();
    two.settle();
}

#[test]
fn call_that_exceeds_the_call_timeout_fails_as_overloaded() {
    let (a, b) = Transport::in_memory();
    let holding = Holding::new();
    let vat = Vat::new().call_timeout(SHORT);
    let there = Vat::new().bootstrap(holding.object.clone()).over(b).unwrap();
    let here = vat.over(a).unwrap();
    let held = send(&here.bootstrap::<Client>(), "held");
    let ahead = held.pipeline.client();
    let why = failure(answer(held));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the call's deadline has passed");
    assert_eq!(failure(ask(&ahead, "")).kind(), ExceptionKind::Overloaded);
    assert!(here.is_connected() && there.is_connected());
    drop(holding.let_go);
    until(&here, |tables| tables.questions() == 0);
    until(&there, |tables| tables.answers() == 0);
}

/// The time applies to the question for the bootstrap object, too. Those who wait for the object, or call it, get
/// the error.
#[test]
fn bootstrap_that_exceeds_the_call_timeout_fails_as_overloaded() {
    let (a, b) = Transport::in_memory();
    let gate = Gate::default();
    let there = Vat::new().bootstrap(echo()).over(gate.before(b)).unwrap();
    let here = Vat::new().call_timeout(SHORT).over(a).unwrap();
    let shut = gate.shut();
    let bootstrap = here.bootstrap::<Client>();
    let (tell, told) = bounded(1);
    let waiting = bootstrap.clone();
    std::thread::spawn(move || tell.send(waiting.resolve()));
    let why = failure(soon(&told));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the call's deadline has passed");
    assert_eq!(failure(ask(&bootstrap, "")), why);
    shut.open();
    until(&here, |tables| tables.questions() == 0);
    until(&there, |tables| tables.answers() == 0 && tables.exports() == 0);
    assert!(here.is_connected() && there.is_connected());
}

/// The time of a call counts from when its caller begins to wait for room.
#[test]
fn call_that_waits_for_room_longer_than_the_call_timeout_fails_as_overloaded() {
    let vat = Vat::new().call_timeout(SHORT).limits(limits(|l| l.send_bytes = 4000));
    let (a, b) = Transport::in_memory();
    let gate = Gate::default();
    let there = Vat::new().bootstrap(echo()).over(b).unwrap();
    let here = vat.over(gate.before(a)).unwrap();
    let shut = gate.shut();
    let remote = here.bootstrap::<Client>();
    let first = send(&remote, &"x".repeat(8000));
    let why = failure(answer(send(&remote, "waits for room")));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert_eq!(why.reason(), "the call's deadline has passed");
    assert_eq!(failure(answer(first)).kind(), ExceptionKind::Overloaded);
    shut.open();
    until(&here, |tables| tables.questions() == 0);
    assert!(here.is_connected() && there.is_connected());
}
