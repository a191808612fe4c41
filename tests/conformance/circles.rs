//! Promises of this vat that are resolved to what waits for them, by way of calls: rule 7.

use capnp_threads::{Capability, Client, RemotePromise};

use crate::support::*;

/// A call of which the results are called ahead.
fn ahead(client: &Client, tag: u64) -> (RemotePromise, Client) {
    let call = send(client, NOTE, tag, &[]);
    let results = call.pipeline.field(0).client();
    (call, results)
}

/// Fails because of the circle, and says so.
#[track_caller]
fn is_circle(call: RemotePromise) {
    let why = wait_failed(call);
    assert!(why.contains("resolved to itself"), "{why}");
}

/// A promise that is resolved to the results of a call that waits in it.
/// Rules: 7.
#[test]
fn promise_resolved_to_the_results_of_a_call_that_waits_in_it_is_broken() {
    let (promise, fulfiller) = Client::promise();
    let before = send(&promise, NOTE, 1, &[]);
    let (call, results) = ahead(&promise, 2);
    let on_results = send(&results, NOTE, 3, &[]);
    let after = send(&promise, NOTE, 4, &[]);
    fulfiller.fulfill(results.clone());
    [before, call, on_results, after].into_iter().for_each(is_circle);
    is_circle(send(&promise, NOTE, 5, &[]));
    for client in [promise, results] {
        assert!(client.resolve().unwrap_err().to_string().contains("resolved to itself"));
    }
}

/// A promise that is resolved to the end of 1,000 calls, each pipelined on the one before and the first made on the
/// promise.
/// Rules: 7.
#[test]
fn promise_resolved_to_the_end_of_its_own_long_pipeline_is_broken() {
    let (promise, fulfiller) = Client::promise();
    let mut results = promise.clone();
    let mut calls = Vec::new();
    for tag in 0..1000 {
        let (call, next) = ahead(&results, tag);
        calls.push(call);
        results = next;
    }
    fulfiller.fulfill(results.clone());
    calls.into_iter().for_each(is_circle);
    is_circle(send(&results, NOTE, 1000, &[]));
    is_circle(send(&promise, NOTE, 1001, &[]));
}

/// Two promises, each of which is resolved to the results of a call that waits in the other.
/// Rules: 7.
#[test]
fn two_promises_resolved_to_results_of_calls_in_each_other_are_broken() {
    let (one, fulfill_one) = Client::promise();
    let (two, fulfill_two) = Client::promise();
    let (call_one, results_one) = ahead(&one, 1);
    let (call_two, results_two) = ahead(&two, 2);
    fulfill_one.fulfill(results_two);
    fulfill_two.fulfill(results_one);
    for promise in [one, two] {
        is_circle(send(&promise, NOTE, 3, &[]));
    }
    [call_one, call_two].into_iter().for_each(is_circle);
}

/// Two threads resolve one promise each to the results of a call that waits in the other.
/// Rules: 7.
#[test]
fn two_promises_resolved_to_each_others_calls_by_two_threads_are_broken() {
    for _ in 0..1000 {
        let (one, fulfill_one) = Client::promise();
        let (two, fulfill_two) = Client::promise();
        let (call_one, results_one) = ahead(&one, 1);
        let (call_two, results_two) = ahead(&two, 2);
        std::thread::scope(|scope| {
            scope.spawn(|| fulfill_one.fulfill(results_two));
            fulfill_two.fulfill(results_one);
        });
        [call_one, call_two].into_iter().for_each(is_circle);
    }
}

/// A call that is handed on to what will be in its results.
/// Rules: 7.
#[test]
fn tail_call_to_its_own_results_fails() {
    let recorder = Recorder::new();
    let call = send(&recorder.client(), HOLD, 1, &[]);
    let results = call.pipeline.field(0).client();
    recorder.held().tail_call(&results, NOTE, 2, &[]);
    is_circle(call);
    is_circle(send(&results, NOTE, 3, &[]));
}

/// A promise that is resolved to the results of a call in another promise is no circle.
/// Rules: 7.
#[test]
fn promise_resolved_to_the_results_of_a_call_in_another_promise_settles() {
    let recorder = Recorder::new();
    let (one, fulfill_one) = Client::promise();
    let (two, fulfill_two) = Client::promise();
    let first = send(&one, NOTE, 1, &[]);
    let second = send(&two, GIVE, 2, &[recorder.client()]);
    let (third, results) = ahead(&one, 3);
    fulfill_one.fulfill(second.pipeline.field(0).client());
    recorder.expect(&[]);
    fulfill_two.fulfill(recorder.client());
    for call in [first, second, third] {
        wait(call).unwrap();
    }
    recorder.expect(&[2, 1, 3]);
    assert!(one.resolve().unwrap() == recorder.client());
    assert!(results.resolve().unwrap().is_null());
}
