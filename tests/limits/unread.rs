//! Small calls with large answers, which their peer does not read: they do not start, and what answers all the same is
//! bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, ExceptionKind, Pool, RemotePromise, Response, Threads, Vat};
use crossbeam_channel::{bounded, unbounded};

use crate::support::{
    answer, ask, cap, failure, give, limits, object, object_in, send, soon, text, until, Gate, Holding, Shut,
    Two, DEADLINE,
};

/// What an answer takes, and how many of them a connection may hold.
const ANSWER: usize = 2000;
const MOST: usize = 4 * SEND_BYTES / ANSWER + 1;
const SEND_BYTES: usize = 4000;
const CALLS: usize = 50;

fn serving(threads: Threads) -> Vat {
    Vat::new().threads(threads).limits(limits(|l| l.send_bytes = SEND_BYTES))
}

/// Two vats, of which the first does not read what the second sends while the gate is shut.
fn unread(serving: Vat, offered: &Client) -> (Two, Gate) {
    let gate = Gate::default();
    let (a, b) = Transport::in_memory();
    (Two::over([a, gate.before(b)], Vat::new(), serving, offered), gate)
}

fn calls(client: &Client, most: usize) -> Vec<RemotePromise> {
    (0..most).map(|n| send(client, &n.to_string())).collect()
}

/// The text that a call was made with, and many spaces.
fn large(number: &str) -> String {
    format!("{number:ANSWER$}")
}

#[track_caller]
fn is_answered(number: usize, response: Response) {
    assert_eq!(
        response.get_as::<capnp::text::Reader>().unwrap().to_str().unwrap(),
        large(&number.to_string())
    );
}

/// Waits until as many have succeeded as `there` can hold, and the others have failed. Gives how many succeeded.
#[track_caller]
fn outcomes(calls: Vec<RemotePromise>) -> usize {
    let mut succeeded = 0;
    for (number, call) in calls.into_iter().enumerate() {
        match answer(call) {
            Ok(response) => {
                is_answered(number, response);
                succeeded += 1;
            }
            Err(e) => assert_eq!(failure::<()>(Err(e)).kind(), ExceptionKind::Overloaded),
        }
    }
    succeeded
}

#[test]
fn calls_start_as_their_answers_are_read() {
    for threads in [Threads::Lending, Threads::Strict] {
        let pool = Pool::manual();
        let started = Arc::new(AtomicUsize::new(0));
        let starts = started.clone();
        let object = object_in(&pool, move |call| {
            starts.fetch_add(1, Ordering::SeqCst);
            let text = large(&text(call)?);
            Ok(call.results().set_as(&*text)?)
        });
        let (two, gate) = unread(serving(threads), &object);
        let shut = gate.shut();
        let sent = calls(&two.remote, CALLS);
        until(&two.there, |tables| tables.answers() == CALLS);
        while pool.tasks() > 0 {
            pool.run_task(0);
        }
        let before = started.load(Ordering::SeqCst);
        assert!((1..=2 * SEND_BYTES / ANSWER + 1).contains(&before), "{before} have started");
        shut.open();
        // They start in order, as the others are sent.
        let deadline = Instant::now() + DEADLINE;
        while started.load(Ordering::SeqCst) < CALLS {
            assert!(Instant::now() < deadline, "{} have started", started.load(Ordering::SeqCst));
            pool.run_task(0);
            std::thread::yield_now();
        }
        assert_eq!(outcomes(sent), CALLS);
        two.settle();
    }
}

/// An object whose first call waits until it is let go, and the calls behind it.
struct Behind {
    two: Two,
    shut: Shut,
    first: RemotePromise,
    calls: Vec<RemotePromise>,
}

fn behind_the_first(serving: Vat, object: &Client) -> Behind {
    let (two, gate) = unread(serving, object);
    let shut = gate.shut();
    let first = send(&two.remote, "first");
    let calls = calls(&two.remote, CALLS);
    until(&two.there, |tables| tables.answers() == CALLS + 1);
    Behind { two, shut, first, calls }
}

/// What is answered with much, after the first call has been let go.
fn slow_at_first(pool: &Pool) -> (Client, crossbeam_channel::Sender<()>) {
    let (let_go, wait) = bounded(1);
    let object = object_in(pool, move |call| {
        let text = text(call)?;
        match &*text {
            "first" => drop(wait.recv()),
            "small" => call.results().set_as("small")?,
            number => call.results().set_as(&*large(number))?,
        }
        Ok(())
    });
    (object, let_go)
}

#[test]
fn held_calls_are_all_answered_in_the_end_in_any_pool() {
    for threads in [Threads::Lending, Threads::Strict] {
        for pool in [Pool::new(), Pool::with_limit(1), Pool::with_limit(3)] {
            let (object, let_go) = slow_at_first(&pool);
            let Behind { two, shut, first, calls } = behind_the_first(serving(threads), &object);
            let_go.send(()).unwrap();
            shut.open();
            answer(first).unwrap();
            assert_eq!(outcomes(calls), CALLS);
            two.settle();
        }
    }
}

#[test]
fn calls_of_other_peers_do_not_wait_behind_held_calls() {
    for threads in [Threads::Lending, Threads::Strict] {
        for pool in [Pool::new(), Pool::with_limit(1)] {
            let (object, let_go) = slow_at_first(&pool);
            let Behind { two, shut, first, calls } = behind_the_first(serving(threads), &object);
            let (a, b) = Transport::in_memory();
            let other = Two::over([a, b], Vat::new(), serving(threads), &object);
            let small = send(&other.remote, "small");
            until(&other.there, |tables| tables.answers() == 1);
            let_go.send(()).unwrap();
            // The one that reads is answered while nobody reads for the other.
            answer(small).unwrap();
            assert_eq!(ask(&other.remote, "small").unwrap(), "small");
            // From here on, and in a call of this vat, too.
            assert_eq!(ask(&object, "small").unwrap(), "small");
            shut.open();
            answer(first).unwrap();
            let succeeded = outcomes(calls);
            assert!((1..=MOST).contains(&succeeded), "{succeeded}");
            two.settle();
        }
    }
}

#[test]
fn results_that_come_later_are_dropped_if_the_peer_leaves_too_much_unread() {
    let (keep, kept) = unbounded();
    let keeping = object(move |call| {
        keep.send((text(call)?, call.defer()?)).unwrap();
        Ok(())
    });
    let (two, gate) = unread(serving(Threads::Lending), &keeping);
    let shut = gate.shut();
    let sent = calls(&two.remote, CALLS);
    let small = send(&two.remote, "small");
    let mut calls: Vec<_> = (0..=CALLS).map(|_| soon(&kept)).collect();
    let (_, last) = calls.pop().unwrap();
    for (number, call) in calls {
        call.answer(|mut results| Ok(results.set_as(&*large(&number))?));
    }
    last.answer(|mut results| Ok(results.set_as("small")?));
    shut.open();
    let succeeded = outcomes(sent);
    assert!((2..=MOST).contains(&succeeded), "{succeeded}");
    answer(small).expect("small results are sent whatever waits before them");
    two.settle();
}

/// The calls are handed on to a vat whose answers are read.
#[test]
fn results_of_other_vats_are_dropped_if_the_peer_leaves_too_much_unread() {
    let (let_go, wait) = bounded::<()>(0);
    let object = object(move |call| {
        let _ = wait.recv();
        let number = text(call)?;
        Ok(call.results().set_as(&*large(&number))?)
    });
    let (a, b) = Transport::in_memory();
    let behind = Two::over([a, b], Vat::new(), Vat::new(), &object);
    let (two, gate) = unread(serving(Threads::Lending), &behind.remote);
    let shut = gate.shut();
    let sent = calls(&two.remote, CALLS);
    until(&behind.there, |tables| tables.answers() == CALLS);
    drop(let_go);
    until(&behind.here, |tables| tables.questions() == 0);
    shut.open();
    let succeeded = outcomes(sent);
    assert!((1..=MOST).contains(&succeeded), "{succeeded}");
    two.settle();
}

/// A method waits for the peer, which has to read what the method's own call is behind.
#[test]
fn a_method_may_wait_while_calls_are_held() {
    for threads in [Threads::Lending, Threads::Strict] {
        let calls_back = object(|call| {
            let theirs = cap(call)?;
            ask(&theirs, &large("back"))?;
            Ok(())
        });
        let (object, let_go) = slow_at_first(&Pool::new());
        let giver = object_in(Pool::in_place(), move |call| {
            let given = if text(call).is_ok_and(|text| text == "object") { &object } else { &calls_back };
            call.results().set_as_capability(Box::new(given.clone()));
            Ok(())
        });
        let serving = serving(threads).limits(limits(|l| (l.send_bytes, l.methods) = (SEND_BYTES, 2)));
        let (two, gate) = unread(serving, &giver);
        let get = |what: &str| -> Client {
            answer(send(&two.remote, what)).unwrap().get().unwrap().get_as_capability().unwrap()
        };
        let (object, calls_back) = (get("object"), get("calls back"));
        let shut = gate.shut();
        let mut all = vec![send(&object, "first")];
        all.extend(calls(&object, CALLS));
        until(&two.there, |tables| tables.answers() >= CALLS);
        let back = give(&calls_back, &crate::support::echo());
        until(&two.there, |tables| tables.questions() == 1);
        let_go.send(()).unwrap();
        shut.open();
        answer(back).unwrap();
        answer(all.remove(0)).unwrap();
        assert_eq!(outcomes(all), CALLS);
    }
}

/// The call that has a permit first has no use for it any more when it could start.
#[test]
fn a_permit_that_a_held_call_has_no_use_for_goes_to_the_next() {
    for threads in [Threads::Lending, Threads::Strict] {
        let pool = Pool::new();
        let (let_go, wait) = bounded::<()>(1);
        let first = object_in(&pool, move |call| {
            wait.recv().unwrap();
            Ok(call.results().set_as(&*"x".repeat(10 * SEND_BYTES))?)
        });
        let others = [(); 2].map(|()| object_in(&pool, |_| Ok(())));
        let objects = [first, others[0].clone(), others[1].clone()];
        let giver = object_in(Pool::in_place(), move |call| {
            let number: usize = text(call)?.parse().unwrap();
            call.results().set_as_capability(Box::new(objects[number].clone()));
            Ok(())
        });
        let serving = serving(threads).limits(limits(|l| (l.send_bytes, l.methods) = (SEND_BYTES, 1)));
        let (two, gate) = unread(serving, &giver);
        let [first, second, third] = ["0", "1", "2"].map(|number| -> Client {
            answer(send(&two.remote, number)).unwrap().get().unwrap().get_as_capability().unwrap()
        });
        let shut = gate.shut();
        let first = send(&first, "");
        let (pending, _keep) = Client::promise();
        let second = give(&second, &pending);
        let third = send(&third, "");
        until(&two.there, |tables| tables.answers() == 3);
        let_go.send(()).unwrap();
        // The method has returned, and its thread has given the permit back.
        let deadline = Instant::now() + DEADLINE;
        while !format!("{pool:?}").contains("1 idle") {
            assert!(Instant::now() < deadline, "{pool:?}");
            std::thread::yield_now();
        }
        until(&two.there, |tables| tables.answers() == 2);
        drop(second);
        until(&two.there, |tables| tables.answers() == 1);
        shut.open();
        answer(third).expect("a permit is free, and the peer has read");
        answer(first).unwrap();
    }
}

#[test]
fn held_calls_are_dropped_with_their_connection() {
    for threads in [Threads::Lending, Threads::Strict] {
        let holding = Holding::new();
        let (gone, dropped) = bounded::<()>(0);
        let inner = holding.object.clone();
        let offered = object(move |call| {
            let _held = &gone;
            if text(call)? == "first" {
                ask(&inner, "first")?;
            }
            let text = large(&text(call)?);
            Ok(call.results().set_as(&*text)?)
        });
        let Behind { two, shut, first, calls } = behind_the_first(serving(threads), &offered);
        drop(offered);
        holding.let_go.send(()).unwrap();
        // Some have started, the others are held.
        until(&two.there, |tables| tables.answers() < CALLS);
        two.there.abort(capnp_threads::Exception::failed("enough"));
        shut.open();
        drop((answer(first), calls, two));
        assert!(dropped.recv_timeout(DEADLINE).is_err_and(|e| e.is_disconnected()), "the object is dropped");
    }
}
