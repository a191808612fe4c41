//! Limits on what a peer may have us hold: calls in service, and answers that it does not read.

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, Limits, Vat};
use crossbeam_channel::{unbounded, Receiver};

use crate::support::{
    answer, ask, cap, echo, give, limits, object, send, soon, text, until, Gate, Holding, Log, Two,
};

/// Two vats, of which the second has limits, and what it reads is noted.
fn watched(theirs: Limits, offered: &Client) -> (Two, Log, Gate) {
    let (a, b) = Transport::in_memory();
    let (log, gate) = (Log::default(), Gate::default());
    let ends = [a, log.of(gate.before(b))];
    let two = Two::over(ends, Vat::new(), Vat::new().limits(theirs), offered);
    log.take();
    (two, log, gate)
}

/// One is read, and waits for room.
#[test]
fn no_more_calls_are_read_while_those_in_service_are_at_the_limit() {
    let holding = Holding::new();
    let (two, log, _) = watched(limits(|l| l.call_words = 1), &holding.object);
    let calls: Vec<_> = ["1", "2", "3", "4"].map(|n| send(&two.remote, n)).into();
    for n in ["1", "2", "3", "4"] {
        assert_eq!(soon(&holding.started), n);
        log.add("let go");
        holding.let_go.send(()).unwrap();
    }
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
    let (mut read, mut let_go) = (0, 0);
    for event in log.take() {
        match event {
            Log::READ => read += 1,
            _ => let_go += 1,
        }
        assert!(read <= let_go + 2, "one in service, and one that waits");
    }
    assert_eq!((read, let_go), (4, 4));
}

/// Params that a method keeps are in service until they are dropped.
#[test]
fn params_that_a_method_keeps_count_until_they_are_dropped() {
    let (keep, kept) = unbounded();
    let keeper = object(move |call| {
        keep.send(call.params().clone()).unwrap();
        Ok(())
    });
    let (two, log, _) = watched(limits(|l| l.call_words = 1), &keeper);
    answer(send(&two.remote, "1")).unwrap();
    let params = soon(&kept);
    let second = send(&two.remote, "2");
    until(&two.here, |tables| tables.questions() == 1);
    assert!(kept.is_empty(), "the second waits for room");
    drop(params);
    answer(second).unwrap();
    // The second may have been read before, but waited for room.
    assert_eq!(log.take().iter().filter(|event| **event == Log::READ).count(), 2);
    assert_eq!(soon(&kept).get_as::<capnp::text::Reader>().unwrap(), "2");
}

#[test]
fn calls_below_the_limit_are_read_side_by_side() {
    let (start, started) = unbounded();
    let (let_go, wait) = unbounded::<()>();
    let beside = object(move |call| {
        call.allow_next();
        start.send(text(call)?).unwrap();
        let _ = wait.recv();
        Ok(())
    });
    let (two, _, _) = watched(Limits::default(), &beside);
    let calls: Vec<_> = (0..20).map(|n| send(&two.remote, &n.to_string())).collect();
    (0..20).for_each(|_| drop(soon(&started)));
    drop(let_go);
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
}

#[test]
fn call_larger_than_the_limit_is_admitted_alone() {
    let (two, _, _) = watched(limits(|l| l.call_words = 1), &echo());
    let large = "x".repeat(1 << 20);
    for _ in 0..3 {
        assert_eq!(ask(&two.remote, &large).unwrap(), large);
    }
}

/// A call in service that waits for an answer of its caller's gets it, although it fills the limit.
#[test]
fn a_call_at_the_limit_can_call_back() {
    let calling_back = object(|call| {
        let answer = ask(&cap(call)?, "back")?;
        Ok(call.results().set_as(&*answer)?)
    });
    let (two, _, _) = watched(limits(|l| l.call_words = 1), &calling_back);
    for _ in 0..10 {
        let response = answer(give(&two.remote, &echo())).unwrap();
        assert_eq!(response.get_as::<capnp::text::Reader>().unwrap(), "back");
    }
}

/// A call in service that waits for what a promise of its caller's is hears of it, although it fills the limit.
#[test]
fn a_call_at_the_limit_can_wait_for_a_promise() {
    let (resolving, started) = resolving();
    let (two, _, _) = watched(limits(|l| l.call_words = 1), &resolving);
    resolves(&two, &started);
}

/// The call that waits is behind another connection, and this one has only handed the promise on.
#[test]
fn a_call_at_the_limit_can_wait_for_a_promise_in_another_vat() {
    let (resolving, started) = resolving();
    let beyond = Two::in_memory(Limits::default(), Limits::default(), &resolving);
    let (two, _, _) = watched(limits(|l| l.call_words = 1), &beyond.remote);
    resolves(&two, &started);
}

/// Waits until it is known what the capability that it is called with is.
fn resolving() -> (Client, Receiver<()>) {
    let (start, started) = unbounded();
    let resolving = object(move |call| {
        start.send(()).unwrap();
        cap(call)?.resolve().map(drop)
    });
    (resolving, started)
}

#[track_caller]
fn resolves(two: &Two, started: &Receiver<()>) {
    for _ in 0..10 {
        let (promise, fulfiller) = Client::promise();
        let call = give(&two.remote, &promise);
        soon(started);
        fulfiller.fulfill(echo());
        answer(call).unwrap();
    }
}

/// A refusal is an answer more: while answers are not read, no call is refused, however little time there is for room.
#[test]
fn calls_that_wait_because_answers_are_not_read_are_not_refused() {
    let theirs = limits(|l| {
        l.send_bytes = 20_000;
        l.room_timeout = Some(std::time::Duration::ZERO);
    });
    let (start, started) = unbounded();
    let large = object(move |call| {
        start.send(()).unwrap();
        Ok(call.results().set_as(&*"x".repeat(8000))?)
    });
    let (two, _, gate) = watched(theirs, &large);
    let shut = gate.shut();
    let calls: Vec<_> = (0..50).map(|n| send(&two.remote, &n.to_string())).collect();
    // With three answers the limit is exceeded. If each is given before the next call is read, no further call starts.
    (0..3).for_each(|_| soon(&started));
    shut.open();
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
}

/// Answers that a peer does not read stop its calls, and all are answered once it reads.
#[test]
fn answers_that_are_not_read_stop_the_reading_of_calls() {
    let (start, started) = unbounded();
    let large = object(move |call| {
        start.send(text(call)?).unwrap();
        Ok(call.results().set_as(&*"x".repeat(8000))?)
    });
    let theirs = limits(|l| {
        l.send_bytes = 20_000;
        // So that each call is answered before the next is read.
        l.call_words = 1;
    });
    let (two, log, gate) = watched(theirs, &large);
    let shut = gate.shut();
    let calls: Vec<_> = (0..50).map(|n| send(&two.remote, &n.to_string())).collect();
    (0..3).for_each(|n| assert_eq!(soon(&started), n.to_string()));
    until(&two.there, |tables| tables.answers() == 0);
    log.add("opened");
    shut.open();
    for call in calls {
        let response = answer(call).unwrap();
        assert_eq!(response.get_as::<capnp::text::Reader>().unwrap().len(), 8000);
    }
    let order = log.take();
    let before = order.iter().position(|event| *event == "opened").unwrap();
    assert!(before <= 4, "three answers of 8000 bytes are more than 20000, and one call waits: {order:?}");
    assert_eq!(order.len(), 51);
    assert_eq!(started.iter().take(47).last().unwrap(), "49");
}
