//! Promises and what becomes of them, in both directions, circles above all: rule 7. `Resolve` itself is in `resolve`.

use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, Exception, Vat};

use crate::support::*;

/// The promise is released when it is resolved, once for each time that it was named. What it has become is held as
/// long as a client of it is.
/// Rules: 7.
#[test]
fn resolved_promise_is_released_and_its_resolution_is_held() {
    let mut peer = Peer::new(Client::null());
    let promise = peer.introduce(Cap::Promise(10));
    let again = peer.introduce(Cap::Promise(10));
    peer.resolve(10, Cap::Hosted(11));
    assert_eq!(peer.expect_release(10), 2);
    let answer = send(&again, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    assert_eq!(call.target, Target::Import(11));
    peer.results(call.question, 1, &[]);
    wait(answer).unwrap();
    drop(promise);
    peer.settle();
    assert_eq!(peer.given(11), 1);
    drop(again);
    assert_eq!(peer.expect_release(11), 1);
    peer.finish_clean();
}

/// Calls go to a promise until it is resolved, and those who wait for it are told.
/// Rules: 7.
#[test]
fn promise_gets_calls_until_it_is_resolved_and_then_its_waiters_are_told() {
    let mut peer = Peer::new(Client::null());
    let promise = peer.introduce(Cap::Promise(10));
    assert!(promise.is_promise());
    let waiting = std::thread::spawn({
        let promise = promise.clone();
        move || promise.resolve()
    });
    peer.resolve(10, Cap::Promise(11));
    peer.sync();
    assert!(promise.is_promise());
    peer.resolve(11, Cap::Hosted(12));
    let settled = waiting.join().unwrap().unwrap();
    assert!(!settled.is_promise());
    assert_eq!(settled, promise);
    drop((promise, settled));
    peer.finish_clean();
}

/// Two promises of the peer's that lead to each other by way of ours.
/// Rules: 7.
#[test]
fn two_imported_promises_that_lead_to_each_other_through_ours_are_broken() {
    let mut peer = Peer::new(Client::null());
    let theirs = [10, 11].map(|id| peer.introduce(Cap::Promise(id)));
    let ours = [11, 10].map(|other: u32| {
        let (ours, fulfiller) = Client::promise();
        let id = peer.export_promise(&ours);
        fulfiller.fulfill(theirs[other as usize - 10].clone());
        assert_eq!(peer.expect_resolve(id), Ok(Cap::Yours(other)));
        id
    });
    peer.resolve(10, Cap::Yours(ours[0]));
    peer.resolve(11, Cap::Yours(ours[1]));
    peer.sync();
    for promise in &theirs {
        assert!(wait_failed(send(promise, NOTE, 1, &[])).contains("resolved to itself"));
    }
    // Calls of the peer's end too.
    for (id, tag) in ours.into_iter().zip(2..) {
        let call = peer.call(Target::Import(id), NOTE, tag).send();
        peer.expect_exception(call, "resolved to itself");
    }
    drop(theirs);
    peer.finish_clean();
}

/// A promise of the peer's and one of ours that were made each other, while the news crossed. Calls that come for
/// ours end, instead of going round for ever.
/// Rules: 7.
#[test]
fn promise_circle_closed_by_crossing_resolves_ends_the_calls_in_it() {
    for used in [false, true] {
        let mut peer = Peer::new(Client::null());
        let theirs = peer.introduce(Cap::Promise(10));
        let (ours, fulfiller) = Client::promise();
        let id = peer.export_promise(&ours);
        fulfiller.fulfill(theirs.clone());
        assert_eq!(peer.expect_resolve(id), Ok(Cap::Yours(10)));
        let first = used.then(|| send(&theirs, NOTE, 1, &[]));
        let call = used.then(|| peer.expect_call_of(1).question);
        // The peer had not seen that when it said this.
        peer.resolve(10, Cap::Yours(id));
        peer.sync();
        let forwarded = call.map(|_| peer.call(Target::Import(id), NOTE, 1).send());
        let other = peer.call(Target::Import(id), NOTE, 2).send();
        for question in forwarded.into_iter().chain([other]) {
            peer.expect_exception(question, "resolved to itself");
        }
        for promise in [&theirs, &ours] {
            assert!(promise.resolve().unwrap_err().to_string().contains("resolved to itself"));
            assert!(wait_failed(send(promise, NOTE, 3, &[])).contains("resolved to itself"));
        }
        if let (Some(first), Some(call)) = (first, call) {
            peer.answer(call, Outcome::Exception("resolved to itself".into()));
            wait_failed(first);
        }
        drop((theirs, ours));
        peer.finish_clean();
    }
}

/// A promise of the peer's and one of ours are made each other before the peer was told what ours is: the circle
/// closes in our vat.
/// Rules: 7.
#[test]
fn promise_circle_closed_before_our_resolve_is_broken() {
    for used in [false, true] {
        let mut peer = Peer::new(Client::null());
        let theirs = peer.introduce(Cap::Promise(10));
        let (ours, fulfiller) = Client::promise();
        let id = peer.export_promise(&ours);
        let first = used.then(|| send(&theirs, NOTE, 1, &[]));
        let call = used.then(|| peer.expect_call_of(1).question);
        peer.resolve(10, Cap::Yours(id));
        if used {
            let (target, embargo) = peer.expect_disembargo();
            assert_eq!(target, Target::Import(10));
            peer.echo(Target::Import(id), embargo);
        }
        peer.sync();
        fulfiller.fulfill(theirs.clone());
        let why = peer.expect_resolve(id).unwrap_err();
        assert!(why.contains("resolved to itself"), "{why}");
        for promise in [&theirs, &ours] {
            assert!(promise.resolve().unwrap_err().to_string().contains("resolved to itself"));
            assert!(wait_failed(send(promise, NOTE, 3, &[])).contains("resolved to itself"));
        }
        if let (Some(first), Some(call)) = (first, call) {
            peer.results(call, 1, &[]);
            wait(first).unwrap();
        }
        drop((theirs, ours));
        peer.finish_clean();
    }
}

/// Two vats of ours that make their promises each other: calls in both fail.
/// Rules: 7.
#[test]
fn two_vats_that_resolve_their_promises_to_each_other_fail_calls_in_both() {
    let (ours, our_fulfiller) = Client::promise();
    let (theirs, their_fulfiller) = Client::promise();
    let (a, b) = Transport::in_memory();
    let a = Vat::new().bootstrap(ours.clone()).over(a).unwrap();
    let b = Vat::new().bootstrap(theirs.clone()).over(b).unwrap();
    let (their_promise, our_promise) = (a.bootstrap::<Client>(), b.bootstrap::<Client>());
    // Known to each other as promises, and used.
    let calls = [send(&their_promise, NOTE, 1, &[]), send(&our_promise, NOTE, 2, &[])];
    our_fulfiller.fulfill(their_promise.clone());
    their_fulfiller.fulfill(our_promise.clone());
    for call in calls {
        wait_failed(call);
    }
    for client in [&ours, &theirs, &our_promise, &their_promise] {
        wait_failed(send(client, NOTE, 3, &[]));
    }
    // What leads to itself keeps itself alive, until the connection ends.
    a.close(Duration::ZERO).unwrap();
    b.close(Duration::ZERO).unwrap();
}

/// Our promise is told once, when it is known what it is. Each time that it is told counts a reference to that.
/// Rules: 7.
#[test]
fn exported_promise_sends_one_resolve_when_it_is_settled() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(Client::null());
    let object = peer.export_hosted(&recorder.client());
    let (ours, fulfiller) = Client::promise();
    let id = peer.export_promise(&ours);
    assert_eq!(peer.export_promise(&ours), id, "the same promise, once more");
    let call = peer.call(Target::Import(id), NOTE, 1).send();
    peer.expect_quiet();
    fulfiller.fulfill(recorder.client());
    assert_eq!(peer.expect_resolve(id), Ok(Cap::Hosted(object)));
    peer.expect_done(call, 1);
    peer.release(object, 1);
    peer.release(object, 1);
    let call = peer.call(Target::Import(id), NOTE, 2).send();
    peer.expect_done(call, 2);
    drop(ours);
    peer.finish_clean();
}

/// The ID of a promise that was released and given out again is another promise's; nothing is told of the first.
/// Rules: 7.
#[test]
fn released_promise_whose_id_is_in_use_again_sends_no_resolve() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(Client::null());
    let (first, first_fulfiller) = Client::promise();
    let id = peer.export_promise(&first);
    peer.release(id, 1);
    let (second, second_fulfiller) = Client::promise();
    assert_eq!(peer.export_promise(&second), id, "IDs are given out lowest first");
    first_fulfiller.fulfill(recorder.client());
    peer.expect_quiet();
    second_fulfiller.reject(Exception::failed("the second"));
    assert_eq!(peer.expect_resolve(id), Err("the second".into()));
    peer.finish_clean();
}
