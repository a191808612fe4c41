//! Promises of this vat that are resolved to what waits for them, by way of calls: rule 7.

use capnp_threads::{Client, RemotePromise};

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

/// Rule 7: a promise that is resolved to the results of a call that waits in it.
#[test]
fn rule7_a_promise_that_is_the_answer_of_its_own_call_is_broken() {
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

/// Rule 7: the same, by way of a long pipeline.
#[test]
fn rule7_a_promise_that_is_far_down_its_own_pipeline_is_broken() {
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

/// Rule 7: two promises, each of which is resolved to the results of a call that waits in the other.
#[test]
fn rule7_two_promises_that_are_the_answers_of_each_others_calls_are_broken() {
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

/// Rule 7: and where two threads close the circle together.
#[test]
fn rule7_a_circle_that_two_threads_close_is_broken() {
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

/// Rule 7: a call that is handed on to what will be in its results.
#[test]
fn rule7_a_call_that_is_handed_on_to_its_own_results_fails() {
    let recorder = Recorder::new();
    let call = send(&recorder.client(), HOLD, 1, &[]);
    let results = call.pipeline.field(0).client();
    recorder.held().tail_call(&results, NOTE, 2, &[]);
    is_circle(call);
    is_circle(send(&results, NOTE, 3, &[]));
}

/// Rule 7: a promise that is resolved to the results of a call in another promise is none of these.
#[test]
fn rule7_a_promise_that_is_the_answer_of_another_ones_call_is_resolved() {
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
