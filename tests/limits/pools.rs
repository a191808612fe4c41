//! Bounded pools: what would wait for a thread for ever fails instead.

use std::time::Instant;

use capnp_threads::{Capability, Client, ExceptionKind, Pool, Result, Stream};

use crate::support::{answer, ask, echo, failure, limits, object_in, request, send, Two, DEADLINE};

/// A chain of objects, each of which calls the next and waits for it.
fn chain(pool: &Pool, length: usize) -> Client {
    (1..length).fold(object_in(pool, |call| Ok(call.results().set_as("the end")?)), |next, _| {
        object_in(pool, move |call| {
            let answer = ask(&next, "")?;
            Ok(call.results().set_as(&*answer)?)
        })
    })
}

#[track_caller]
fn lacks_a_thread(client: &Client) {
    let why = failure(ask(client, ""));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    assert!(why.reason().contains("all threads of the bounded pool wait for answers"), "{why}");
}

#[test]
fn nested_calls_fail_where_no_thread_is_left() {
    for threads in 1..5 {
        let pool = Pool::with_limit(threads);
        lacks_a_thread(&chain(&pool, threads + 1));
        assert!(pool.threads() <= threads);
        let pool = Pool::with_limit(threads);
        assert_eq!(ask(&chain(&pool, threads), "").unwrap(), "the end", "as many as there are threads");
    }
}

#[test]
fn nested_calls_over_a_connection_fail_where_no_thread_is_left() {
    let pool = Pool::with_limit(1);
    let offered = object_in(&pool, |call| Ok(call.results().set_as("answered")?));
    let two = Two::in_memory(limits(|_| {}), limits(|_| {}), &offered);
    let remote = two.remote.clone();
    let calling = object_in(&pool, move |call| {
        let answer = ask(&remote, "")?;
        Ok(call.results().set_as(&*answer)?)
    });
    lacks_a_thread(&calling);
    assert_eq!(ask(&two.remote, "").unwrap(), "answered");
    two.settle();
}

#[test]
fn bounded_pool_queues_calls_that_only_have_to_wait_their_turn() {
    let pool = Pool::with_limit(2);
    let objects: Vec<_> = (0..20).map(|_| chain(&pool, 1)).collect();
    let calls: Vec<_> = (0..500).map(|n| send(&objects[n % 20], "")).collect();
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
    assert!(pool.threads() <= 2);
}

#[test]
fn an_unbounded_pool_always_has_a_thread() {
    let pool = Pool::new();
    assert_eq!(ask(&chain(&pool, 50), "").unwrap(), "the end");
    assert_eq!(ask(&echo(), "and the common one").unwrap(), "and the common one");
}

/// A thread whose answer is there can do something again, though the system has not let it run yet.
#[test]
fn thread_whose_answer_has_come_counts_as_awake_in_a_bounded_pool() {
    woken_is_not_asleep(|promise| answer(send(promise, "")).map(drop));
}

/// The thread waits in a stream.
#[test]
fn thread_that_a_stream_wakes_counts_as_awake_in_a_bounded_pool() {
    woken_is_not_asleep(|promise| {
        let stream = Stream::new();
        stream.send(request(promise, ""))?;
        stream.finish()
    });
    woken_is_not_asleep(|promise| {
        let stream = Stream::with_window(0);
        (0..3).try_for_each(|_| stream.send(request(promise, "")))
    });
}

/// `wait` returns when the promise that it is given is known to be null.
#[track_caller]
fn woken_is_not_asleep(wait: fn(&Client) -> Result<()>) {
    for _ in 0..20 {
        let pool = Pool::with_limit(2);
        let waiting = [(); 2].map(|()| {
            let (promise, fulfiller) = Client::promise();
            let object = object_in(&pool, move |_| wait(&promise));
            (send(&object, ""), fulfiller)
        });
        let until = Instant::now() + DEADLINE;
        while !format!("{pool:?}").contains("2 asleep") {
            assert!(Instant::now() < until, "{pool:?}");
            std::thread::yield_now();
        }
        let other = object_in(&pool, |call| Ok(call.results().set_as("answered")?));
        let [(first, fulfill_first), (second, fulfill_second)] = waiting;
        fulfill_first.fulfill(Client::null());
        assert_eq!(ask(&other, "").unwrap(), "answered");
        fulfill_second.fulfill(Client::null());
        for woken in [first, second] {
            assert!(failure(answer(woken)).reason().contains("null"));
        }
    }
}
