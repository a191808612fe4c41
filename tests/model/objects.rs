//! Objects and their pools: nothing is lost in a mailbox, and nested calls never lack a thread.

use capnp_threads::testing::record;
use capnp_threads::{Capability, Client, ExceptionKind, Pool};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::Arc;
use shuttle::thread;

use super::support::{ask, check, numbers, object, params, send};

/// Answers with one more than `next` does.
fn relay(pool: &Pool, next: Client) -> Client {
    object(pool, move |call| {
        let number = params(call)?.0;
        let answer = ask(&next, number)? + 1;
        record::write(call.results(), answer, &[]);
        Ok(())
    })
}

#[test]
fn a_mailbox_loses_nothing_and_answers_one_at_a_time() {
    check(3000, || {
        let pool = Pool::new();
        let (inside, all) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let count = all.clone();
        let client = numbers(&pool, move |n| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
            n
        });
        call_from_threads(&client);
        assert_eq!(all.load(Ordering::SeqCst), 6);
    });
}

#[test]
fn a_mailbox_loses_nothing_when_methods_let_the_next_one_start() {
    check(3000, || {
        let pool = Pool::new();
        let client = object(&pool, move |call| {
            let number = params(call)?.0;
            if number % 2 == 0 {
                call.allow_next();
            }
            record::write(call.results(), number, &[]);
            Ok(())
        });
        call_from_threads(&client);
    });
}

fn call_from_threads(client: &Client) {
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let client = client.clone();
            thread::spawn(move || {
                let sent = [send(&client, n, &[]), send(&client, n + 1, &[])];
                sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn nested_calls_in_an_elastic_pool_get_their_threads() {
    check(3000, || {
        let pool = Pool::new();
        let client = relay(&pool, relay(&pool, numbers(&pool, |n| n)));
        let other = client.clone();
        let beside = thread::spawn(move || assert_eq!(ask(&other, 5).unwrap(), 7));
        assert_eq!(ask(&client, 1).unwrap(), 3);
        beside.join().unwrap();
    });
}

#[test]
fn nested_calls_in_a_bounded_pool_fail_where_they_would_hang() {
    check(3000, || {
        let pool = Pool::with_limit(2);
        let client = relay(&pool, relay(&pool, numbers(&pool, |n| n)));
        assert_eq!(ask(&client, 1).unwrap_err().kind(), ExceptionKind::Overloaded);
        let enough = relay(&pool, numbers(&pool, |n| n));
        assert_eq!(ask(&enough, 1).unwrap(), 2);
    });
}

#[test]
fn a_thread_of_a_bounded_pool_that_is_woken_is_not_asleep() {
    check(3000, || {
        let pool = Pool::with_limit(1);
        let (promise, fulfiller) = Client::promise();
        let waiting = send(&relay(&pool, promise), 1, &[]);
        let other = numbers(&pool, |n| n);
        fulfiller.fulfill(Client::null());
        assert_eq!(ask(&other, 2).unwrap(), 2);
        assert_eq!(waiting.wait().unwrap_err().kind(), ExceptionKind::Failed);
    });
}

/// Two threads together make a circle of promises and calls that wait in them: whoever is later breaks it.
#[test]
fn a_circle_that_two_threads_close_is_broken() {
    check(3000, || {
        let [(one, fulfill_one), (two, fulfill_two)] = [Client::promise(), Client::promise()];
        let [call_one, call_two] = [one, two].map(|promise| send(&promise, 1, &[]));
        let [first, second] = [&call_one, &call_two].map(|call| call.pipeline.field(0).client());
        let beside = thread::spawn(move || fulfill_one.fulfill(second));
        fulfill_two.fulfill(first);
        assert!(call_one.wait().is_err() && call_two.wait().is_err());
        beside.join().unwrap();
    });
}
