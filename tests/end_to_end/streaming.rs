//! Streaming methods that answer later: what they hold up, and what their failure breaks.

use capnp_threads::{Call, Capability, Client, Deferred, Error, Pool, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::wires::{Two, Wire};
use crate::support::{ask, reply, request, said, send, server, text, why, Soon};

/// Streams, and leaves its answer to the test.
const LATER: u16 = 1;
/// Streams, and hands its call on to the object that was given.
const ON: u16 = 2;
/// Streams, is answered by another thread before it returns, and returns after that.
const SOONER: u16 = 3;
/// Streams, lets the next call start, and leaves its answer to the test.
const BESIDE: u16 = 4;
/// Does not stream, and leaves its answer to the test.
const PLAIN: u16 = 5;

/// What an object of [`drain`] tells.
type Told = Receiver<(String, Option<Deferred>)>;

/// An object that tells of each call when its method starts, and answers as the method's number says.
fn drain(pool: &Pool, next: &Client) -> (Client, Told) {
    let (tell, told) = unbounded();
    let next = next.clone();
    let answer = server(move |call| {
        let text = text(call)?;
        serve(call, &tell, &text, &next)
    });
    (Client::with_pool(answer, pool), told)
}

fn serve(
    call: &mut Call,
    tell: &Sender<(String, Option<Deferred>)>,
    text: &str,
    next: &Client,
) -> Result<()> {
    let text = text.to_owned();
    let method = call.method_id();
    if matches!(method, LATER..=BESIDE) {
        let _ = call.streaming::<capnp::any_pointer::Owned>();
    }
    if method == BESIDE {
        call.allow_next();
    }
    let duty = if method == 0 || method == ON { None } else { Some(call.defer()?) };
    match (method, duty) {
        (SOONER, Some(duty)) => {
            let answering = std::thread::spawn(move || duty.fail(Error::failed("sooner")));
            answering.join().expect("it does not panic");
            tell.send((text.clone(), None)).expect("the test listens");
        }
        (_, duty) => tell.send((text.clone(), duty)).expect("the test listens"),
    }
    match method {
        0 => reply(call, &text),
        ON => call.tail_call(request(next, LATER, &text)),
        _ => Ok(()),
    }
}

/// In one vat, and over each kind of connection.
fn near_and_far(object: &Client, test: impl Fn(&Client)) {
    test(object);
    for wire in [Wire::Tcp, Wire::Memory] {
        let two = Two::offering(wire, object);
        test(&two.here.bootstrap::<Client>());
        two.both_empty();
    }
}

/// The next call that has started, and the duty to answer it.
#[track_caller]
fn started(told: &Told) -> (String, Deferred) {
    let (text, duty) = told.soon();
    (text, duty.expect("it answers later"))
}

#[track_caller]
fn done(duty: Deferred) {
    duty.answer(|_| Ok(()));
}

/// Runs the tasks of a pool that has no threads.
fn run_all(pool: &Pool) {
    while pool.tasks() > 0 {
        pool.run_task(0);
    }
}

const BROKEN: &str = "an earlier streaming call failed";

#[test]
fn the_next_call_waits_until_a_streaming_call_is_answered() {
    let pool = Pool::manual();
    let (object, told) = drain(&pool, &Client::null());
    let calls = [send(&object, LATER, "a"), send(&object, LATER, "b"), send(&object, 0, "c")];
    run_all(&pool);
    let (text, duty) = started(&told);
    assert_eq!(text, "a");
    assert!(told.is_empty(), "the object has started another call");
    done(duty);
    run_all(&pool);
    let (text, duty) = started(&told);
    assert_eq!(text, "b");
    assert!(told.is_empty(), "the object has started another call");
    std::thread::spawn(|| done(duty)).join().unwrap();
    run_all(&pool);
    assert_eq!(told.soon().0, "c");
    calls.into_iter().for_each(|call| drop(call.soon().unwrap()));
}

/// In C++ too only streaming calls do that.
#[test]
fn the_next_call_does_not_wait_for_a_plain_call_that_is_answered_later() {
    let (object, told) = drain(Pool::global(), &Client::null());
    near_and_far(&object, |client| {
        let plain = send(client, PLAIN, "a");
        assert_eq!(ask(client, 0, "b").unwrap(), "b");
        let (_, duty) = started(&told);
        assert_eq!(told.soon().0, "b");
        drop(duty);
        assert!(why(plain.soon()).contains("dropped without an answer"));
        assert_eq!(ask(client, 0, "c").unwrap(), "c");
        told.soon();
    });
}

/// Each is answered by another thread while more of them wait: none starts before the one before it is answered.
#[test]
fn streaming_calls_that_are_answered_later_are_served_one_at_a_time() {
    for pool in [Pool::global(), Pool::in_place()] {
        let (object, told) = drain(pool, &Client::null());
        near_and_far(&object, |client| {
            let calls: Vec<_> = (0..100).map(|n| send(client, LATER, &n.to_string())).collect();
            for n in 0..100 {
                let (text, duty) = started(&told);
                assert_eq!(text, n.to_string());
                assert!(told.is_empty(), "call {n} is under way");
                done(duty);
            }
            calls.into_iter().for_each(|call| drop(call.soon().unwrap()));
        });
    }
}

/// The failure comes when the calls that rely on this one have been sent: none of them reaches its method.
#[test]
fn a_late_failure_of_a_streaming_call_fails_what_follows() {
    for pool in [Pool::global(), Pool::in_place()] {
        let fail: [fn(Deferred); 3] = [
            |duty| duty.fail(Error::failed("no more")),
            |duty| duty.answer(|_| Err(Error::failed("no more"))),
            |duty| duty.tail_call(request(&Client::broken(Error::failed("no more")), 0, "")),
        ];
        for fail in fail {
            for far in [false, true] {
                let (object, told) = drain(pool, &Client::null());
                let two = far.then(|| Two::offering(Wire::Tcp, &object));
                let client = two.as_ref().map_or(object, |two| two.here.bootstrap());
                let first = send(&client, LATER, "a");
                let rest = [send(&client, LATER, "b"), send(&client, 0, "c")];
                fail(started(&told).1);
                assert!(why(first.soon()).contains("no more"));
                for call in rest {
                    assert!(why(call.soon()).contains(&format!("{BROKEN}: no more")));
                }
                assert!(why(ask(&client, 0, "d")).contains(BROKEN));
                assert!(told.is_empty());
            }
        }
    }
}

/// As with a `PromiseFulfiller` in C++ that is dropped: whoever sent more relied on an answer that never comes.
#[test]
fn a_streaming_call_that_is_dropped_without_an_answer_fails_what_follows() {
    let (object, told) = drain(Pool::global(), &Client::null());
    let [first, second] = ["a", "b"].map(|text| send(&object, LATER, text));
    drop(started(&told));
    assert!(why(first.soon()).contains("dropped without an answer"));
    assert!(why(second.soon()).contains(&format!("{BROKEN}: the call was dropped without an answer")));
    assert!(told.is_empty());
}

/// Nobody relies on a call that was canceled: the next one starts, and the object is whole, whatever becomes of the duty
/// to answer.
#[test]
fn a_streaming_call_that_is_canceled_holds_nothing_up() {
    for fate in [drop, |duty: Deferred| duty.fail(Error::failed("too late")), done] {
        let (object, told) = drain(Pool::global(), &Client::null());
        near_and_far(&object, |client| {
            let first = send(client, LATER, "a");
            let (_, duty) = started(&told);
            let second = send(client, 0, "b");
            drop(first);
            assert_eq!(said(&second.soon().unwrap()), "b");
            told.soon();
            fate(duty);
            assert_eq!(ask(client, 0, "c").unwrap(), "c");
            told.soon();
        });
    }
}

/// The end of a connection cancels its calls: others use the object.
#[test]
fn streaming_calls_of_a_peer_that_is_gone_hold_nothing_up() {
    let (object, told) = drain(Pool::global(), &Client::null());
    let two = Two::offering(Wire::Tcp, &object);
    let first = send(&two.here.bootstrap::<Client>(), LATER, "a");
    let (_, duty) = started(&told);
    two.cut.cut();
    assert!(first.soon().is_err());
    assert_eq!(ask(&object, 0, "b").unwrap(), "b");
    done(duty);
    assert_eq!(ask(&object, 0, "c").unwrap(), "c");
}

#[test]
fn the_next_call_waits_until_a_streaming_call_that_was_handed_on_is_answered() {
    let pool = Pool::manual();
    let (next, next_told) = drain(Pool::in_place(), &Client::null());
    let (object, told) = drain(&pool, &next);
    let calls =
        [send(&object, ON, "a"), send(&object, 0, "b"), send(&object, ON, "c"), send(&object, 0, "d")];
    run_all(&pool);
    assert_eq!(told.soon().0, "a");
    assert!(told.is_empty(), "the object has started another call");
    let (text, duty) = started(&next_told);
    assert_eq!(text, "a");
    done(duty);
    run_all(&pool);
    assert_eq!([told.soon().0, told.soon().0], ["b", "c"]);
    assert!(told.is_empty(), "the object has started another call");
    started(&next_told).1.fail(Error::failed("not here"));
    run_all(&pool);
    assert!(told.is_empty());
    let [a, b, c, d] = calls;
    a.soon().unwrap();
    assert_eq!(said(&b.soon().unwrap()), "b");
    assert!(why(c.soon()).contains("not here"));
    assert!(why(d.soon()).contains(&format!("{BROKEN}: not here")));
}

/// Over a connection the call that it was handed on to is canceled with it.
#[test]
fn canceling_a_streaming_call_cancels_what_it_was_handed_on_to() {
    let (next, next_told) = drain(Pool::global(), &Client::null());
    let beyond = Two::offering(Wire::Tcp, &next);
    for next in [next, beyond.here.bootstrap()] {
        let (object, told) = drain(Pool::global(), &next);
        near_and_far(&object, |client| {
            let first = send(client, ON, "a");
            told.soon();
            let (_, duty) = started(&next_told);
            drop(first);
            let (canceled, was_canceled) = unbounded();
            duty.cancellation().on_cancel(move || canceled.send(()).unwrap());
            (&was_canceled).soon();
            assert_eq!(ask(client, 0, "b").unwrap(), "b");
            told.soon();
        });
    }
    beyond.both_empty();
}

/// The answer and the end of the method are two things, which come in any order.
#[test]
fn a_streaming_call_that_is_answered_before_its_method_returns_is_over_then() {
    for pool in [Pool::global(), Pool::in_place()] {
        let (object, told) = drain(pool, &Client::null());
        let [first, second] = [send(&object, SOONER, "a"), send(&object, 0, "b")];
        assert!(why(first.soon()).contains("sooner"));
        told.soon();
        assert!(why(second.soon()).contains(BROKEN));
    }
}

/// A method that has said so lets the next call start, also if it answers later.
#[test]
fn a_streaming_method_may_let_the_next_call_start() {
    let (object, told) = drain(Pool::global(), &Client::null());
    near_and_far(&object, |client| {
        let [first, second] = ["a", "b"].map(|text| send(client, BESIDE, text));
        let duties = [started(&told), started(&told)];
        assert_eq!(ask(client, 0, "c").unwrap(), "c");
        told.soon();
        for (_, duty) in duties {
            done(duty);
        }
        first.soon().unwrap();
        second.soon().unwrap();
    });
}
