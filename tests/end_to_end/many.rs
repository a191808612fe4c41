//! A great many: calls inside calls, threads on one client, connections to one listener.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

use capnp_threads::{Capability, Client, Limits, Vat};
use crossbeam_channel::unbounded;

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{ask, cap, echo, object, reply, request, send, text, why, with_cap, Soon, DEADLINE};

/// How deep calls nest: each level is a thread that waits.
const DEEP: usize = 1000;

/// How many promises a chain has.
const PROMISES: usize = 20_000;

const RECURSE: u16 = 0;
const TAIL: u16 = 1;
const INTRODUCE: u16 = 2;

/// Counts down, calling another object for each step, until nothing is left.
fn recursive() -> Client {
    let other: OnceLock<Client> = OnceLock::new();
    object(move |call| {
        if call.method_id() == INTRODUCE {
            other.set(cap(call)?).unwrap();
            return Ok(());
        }
        call.allow_next();
        let left: usize = text(call)?.parse().unwrap();
        if left == 0 {
            return reply(call, "the bottom");
        }
        let next = request(other.get().unwrap(), call.method_id(), &(left - 1).to_string());
        if call.method_id() == TAIL {
            return call.tail_call(next);
        }
        let answer = crate::support::said(&next.send().soon()?);
        reply(call, &answer)
    })
}

/// A calls B, whose method calls A, whose method calls B, and so on, waiting or handing on.
#[test]
fn nested_calls_between_two_vats_a_thousand_deep_are_answered() {
    for (wire, method) in [(Wire::Tcp, RECURSE), (Wire::Memory, TAIL)] {
        let (here, there) = (recursive(), recursive());
        let two = Two::offering(wire, &there);
        let remote = two.here.bootstrap::<Client>();
        with_cap(&here, INTRODUCE, &remote).send().soon().unwrap();
        with_cap(&remote, INTRODUCE, &here).send().soon().unwrap();
        for first in [&remote, &here] {
            assert_eq!(ask(first, method, &DEEP.to_string()).unwrap(), "the bottom");
        }
        two.here.close(Duration::from_secs(30)).unwrap();
    }
}

/// Nested calls in one vat: objects that call the next one, each with a thread.
#[test]
fn nested_calls_between_objects_a_thousand_deep_are_answered() {
    let mut client = echo();
    for _ in 0..DEEP {
        let inner = client.clone();
        client = object(move |call| {
            let answer = ask(&inner, 0, &text(call)?)?;
            reply(call, &answer)
        });
    }
    assert_eq!(ask(&client, 0, "to the bottom").unwrap(), "to the bottom");
}

/// Promises that lead to promises: each is fulfilled with the next one, in an order, and calls are made through the first one
/// before, in between and after. However long the chain is, it is no circle, and it costs no stack.
fn chain_leads_to_its_end(fulfilled: impl Iterator<Item = usize>) {
    let (promises, mut fulfillers): (Vec<_>, Vec<_>) =
        (0..=PROMISES).map(|_| Client::promise()).map(|(promise, its)| (promise, Some(its))).unzip();
    let first = &promises[0];
    let early = send(first, 0, "early");
    for (times, n) in fulfilled.enumerate() {
        fulfillers[n].take().unwrap().fulfill(promises[n + 1].clone());
        if times % (PROMISES / 10) == 0 {
            assert!(first.is_promise());
        }
    }
    let late = send(first, 0, "late");
    fulfillers[PROMISES].take().unwrap().fulfill(echo());
    for (call, said) in [(early, "early"), (late, "late"), (send(first, 0, "last"), "last")] {
        assert_eq!(crate::support::said(&call.soon().unwrap()), said);
    }
    let end = first.resolve().unwrap();
    assert!(promises.iter().all(|promise| *promise == end && promise.broken_reason().is_none()));
}

#[test]
fn a_chain_of_twenty_thousand_promises_that_grows_at_its_end_leads_to_its_end() {
    chain_leads_to_its_end(0..PROMISES);
}

#[test]
fn a_chain_of_twenty_thousand_promises_that_grows_at_its_front_leads_to_its_end() {
    chain_leads_to_its_end((0..PROMISES).rev());
}

#[test]
fn a_chain_of_twenty_thousand_promises_that_is_joined_from_pieces_leads_to_its_end() {
    let pieces = (0..PROMISES).step_by(2);
    chain_leads_to_its_end(pieces.chain((1..PROMISES).step_by(2)));
}

/// The last one of so many promises is fulfilled with the first one: that is a circle, and calls on it fail.
#[test]
fn a_circle_of_twenty_thousand_promises_is_broken() {
    let (first, mut fulfiller) = Client::promise();
    let early = send(&first, 0, "early");
    for _ in 0..PROMISES {
        let (next, its_fulfiller) = Client::promise();
        fulfiller.fulfill(next);
        fulfiller = its_fulfiller;
    }
    fulfiller.fulfill(first.clone());
    for call in [early, send(&first, 0, "late")] {
        let why = why(call.soon());
        assert!(why.contains("resolved to itself"), "{why}");
    }
}

#[test]
fn calls_of_a_hundred_threads_on_one_client_are_answered() {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &echo());
        let remote = two.here.bootstrap::<Client>();
        let start = Barrier::new(100);
        std::thread::scope(|scope| {
            for thread in 0..100 {
                let (remote, start) = (&remote, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..20 {
                        let said = format!("{thread}.{n}");
                        assert_eq!(ask(remote, 0, &said).unwrap(), said);
                    }
                });
            }
        });
        drop(remote);
        two.both_empty();
    }
}

/// Calls of one thread arrive in the order made, whatever other threads call in between.
#[test]
fn calls_of_each_of_a_hundred_threads_arrive_in_the_order_made() {
    let (put, got) = unbounded::<String>();
    let keeper = object(move |call| {
        put.send(text(call)?).unwrap();
        Ok(())
    });
    let two = Two::offering(Wire::Tcp, &keeper);
    let remote = two.here.bootstrap::<Client>();
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let remote = &remote;
            scope.spawn(move || {
                let sent: Vec<_> = (0..10).map(|n| send(remote, 0, &format!("{thread} {n}"))).collect();
                sent.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
            });
        }
    });
    let mut next = [0; 100];
    for said in got.try_iter() {
        let (thread, n) = said.split_once(' ').unwrap();
        let thread: usize = thread.parse().unwrap();
        assert_eq!(n, next[thread].to_string(), "thread {thread}");
        next[thread] += 1;
    }
    assert_eq!(next, [10; 100]);
}

/// All connections are open at once, and each is served.
#[test]
fn a_thousand_connections_to_one_listener_are_served() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let counter = object(move |call| {
        let n = count.fetch_add(1, Ordering::SeqCst).to_string();
        reply(call, &n)
    });
    let listener = Vat::new().bootstrap(counter).listen("127.0.0.1:0").unwrap();
    let vat = Vat::new().limits(Limits::default());
    let connections: Vec<_> = (0..1000).map(|_| vat.connect(listener.local_addr()).unwrap()).collect();
    let answers: Vec<_> = connections.iter().map(|c| send(&c.bootstrap::<Client>(), 0, "")).collect();
    for answer in answers {
        answer.soon().unwrap();
    }
    assert_eq!(served.load(Ordering::SeqCst), 1000);
    let accepted = listener.connections();
    assert_eq!(accepted.len(), 1000);
    // Dropping the connections here ends them there.
    drop(connections);
    for connection in &accepted {
        connection.wait_closed().unwrap();
        assert!(reaches(connection, |tables| tables.is_empty()));
    }
    listener.close(DEADLINE).unwrap();
}

/// Calls that wait for each other's results, and all for one promise, fail one after the other.
#[test]
fn long_chain_of_calls_pipelined_on_a_broken_promise_fails() {
    let (first, fulfiller) = Client::promise();
    let mut next = first;
    let mut promises = Vec::new();
    for _ in 0..20_000 {
        let sent = send(&next, RECURSE, "");
        next = sent.pipeline.field(0).client();
        promises.push(sent.promise);
    }
    fulfiller.reject(capnp_threads::Exception::failed("there is none"));
    for promise in promises {
        assert!(why(promise.soon()).contains("there is none"));
    }
}
