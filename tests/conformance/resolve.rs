//! `Resolve`, in both directions: rule 7. What becomes of promises beyond that is in `promises` and `circles`.

use capnp_threads::{Capability, Client, ClientFulfiller, Exception};

use crate::support::*;

/// What a Resolve for a promise brings that was released already is released: once for each reference.
/// Rules: 7.
#[test]
fn resolve_of_a_released_promise_releases_the_capability_it_brings() {
    let mut peer = Peer::new(Client::null());
    for cap in [Cap::Hosted(6), Cap::Promise(6), Cap::Third { vine: 6 }] {
        for used in [false, true] {
            let promise = peer.introduce(Cap::Promise(5));
            if used {
                let answer = send(&promise, NOTE, 1, &[]);
                let call = peer.expect_call_of(1);
                peer.results(call.question, 1, &[]);
                wait(answer).unwrap();
                peer.expect_finish(call.question);
            }
            drop(promise);
            assert_eq!(peer.expect_release(5), 1);
            peer.resolve(5, cap.clone());
            assert_eq!(peer.expect_release(6), 1);
            assert_eq!(peer.vat.snapshot().imports(), 0);
        }
    }
    peer.finish_clean();
}

/// A Resolve for a released promise brings a capability that is held already: that is one reference more, released
/// with the others.
/// Rules: 7.
#[test]
fn resolve_of_a_released_promise_to_a_held_import_adds_a_reference() {
    for cap in [Cap::Hosted(6), Cap::Promise(6)] {
        let mut peer = Peer::new(Client::null());
        let held = peer.introduce(cap.clone());
        drop(peer.introduce(Cap::Promise(5)));
        assert_eq!(peer.expect_release(5), 1);
        peer.resolve(5, cap);
        peer.settle();
        assert_eq!(peer.given(6), 2, "still held");
        drop(held);
        assert_eq!(peer.expect_release(6), 2);
        peer.finish_clean();
    }
}

/// A Resolve for a released promise that brings nothing of the peer's changes nothing.
/// Rules: 7.
#[test]
fn resolve_of_a_released_promise_without_a_capability_changes_nothing() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    for to in [Ok(Cap::Yours(object)), Ok(Cap::None), Err("no".to_owned())] {
        drop(peer.introduce(Cap::Promise(5)));
        assert_eq!(peer.expect_release(5), 1);
        peer.send(Msg::Resolve { promise: 5, to });
        peer.settle();
        // The last reference that settling took is given back by a callback.
        peer.wait_tables(|tables| tables.imports() == 0 && tables.export_references() == 1);
        let call = peer.call(Target::Import(object), NOTE, 1).send();
        peer.expect_done(call, 1);
    }
    peer.finish_clean();
}

/// A promise that is resolved to itself fails its calls, whether it was called before or not.
/// Rules: 7.
#[test]
fn resolve_of_a_promise_to_itself_breaks_it() {
    for used in [false, true] {
        let mut peer = Peer::new(Client::null());
        let promise = peer.introduce(Cap::Promise(5));
        let early = used.then(|| send(&promise, NOTE, 1, &[]));
        peer.resolve(5, Cap::Promise(5));
        assert!(promise.resolve().unwrap_err().to_string().contains("resolved to itself"));
        assert!(wait_failed(send(&promise, NOTE, 2, &[])).contains("resolved to itself"));
        if let Some(early) = early {
            let call = peer.expect_call_of(1);
            peer.results(call.question, 1, &[]);
            wait(early).unwrap();
        }
        assert_eq!(peer.expect_release(5), 2);
        drop(promise);
        peer.finish_clean();
    }
}

/// Two promises of the peer's that are resolved to each other fail their calls.
/// Rules: 7.
#[test]
fn two_promises_resolved_to_each_other_are_broken() {
    let mut peer = Peer::strict(Client::null());
    let (five, six) = (peer.introduce(Cap::Promise(5)), peer.introduce(Cap::Promise(6)));
    let other = peer.introduce(Cap::Hosted(7));
    // So that 5 is not released before the circle is closed.
    let frozen = freeze_callbacks(&mut peer, &other);
    peer.resolve(5, Cap::Promise(6));
    peer.resolve(6, Cap::Promise(5));
    peer.sync();
    drop(frozen);
    for promise in [five, six] {
        assert!(promise.resolve().unwrap_err().to_string().contains("resolved to itself"));
        assert!(wait_failed(send(&promise, NOTE, 2, &[])).contains("resolved to itself"));
    }
    for id in [5, 6] {
        assert_eq!(peer.expect_release(id), 2);
    }
    drop(other);
    peer.finish_clean();
}

/// Two promises of the peer's are resolved to each other after we have released the first: its ID then is a new
/// promise, which the peer may break.
/// Rules: 7.
#[test]
fn promise_circle_closed_after_a_release_leads_to_a_new_promise() {
    let mut peer = Peer::new(Client::null());
    let (five, six) = (peer.introduce(Cap::Promise(5)), peer.introduce(Cap::Promise(6)));
    peer.resolve(5, Cap::Promise(6));
    assert_eq!(peer.expect_release(5), 1);
    peer.resolve(6, Cap::Promise(5));
    assert_eq!(peer.expect_release(6), 2);
    let answers = [&five, &six].map(|promise| send(promise, NOTE, 1, &[]));
    for answer in answers {
        let call = peer.expect_call_of(1);
        assert_eq!(call.target, Target::Import(5));
        peer.answer(call.question, Outcome::Exception("a circle".into()));
        assert!(wait_failed(answer).contains("a circle"));
    }
    peer.send(Msg::Resolve { promise: 5, to: Err("a circle".into()) });
    assert_eq!(five.resolve().unwrap_err().to_string(), six.resolve().unwrap_err().to_string());
    assert_eq!(peer.expect_release(5), 1);
    peer.finish_clean();
}

/// Only a promise can be resolved.
/// Rules: 7.
#[test]
fn resolve_of_a_capability_that_is_no_promise_aborts() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    peer.send_wrong(Msg::Resolve { promise: 7, to: Ok(Cap::Hosted(8)) });
    peer.expect_abort("which is not a promise");
    assert!(wait_failed(send(&client, NOTE, 1, &[])).contains("which is not a promise"));
}

/// A promise can be resolved only once.
/// Rules: 7.
#[test]
fn second_resolve_of_a_promise_aborts() {
    let mut peer = Peer::strict(Client::null());
    let (promise, other) = (peer.introduce(Cap::Promise(5)), peer.introduce(Cap::Hosted(7)));
    // So that 5 is not released in between.
    let frozen = freeze_callbacks(&mut peer, &other);
    peer.resolve(5, Cap::Hosted(8));
    peer.send_wrong(Msg::Resolve { promise: 5, to: Ok(Cap::Hosted(9)) });
    peer.wait_ended();
    drop(frozen);
    peer.expect_abort("second Resolve");
    assert!(wait_failed(send(&promise, NOTE, 1, &[])).contains("second Resolve"));
}

/// The capability of ours that a Resolve names must exist.
/// Rules: 7.
#[test]
fn resolve_to_an_unknown_export_aborts() {
    let mut peer = Peer::new(Client::null());
    let promise = peer.introduce(Cap::Promise(5));
    peer.send_wrong(Msg::Resolve { promise: 5, to: Ok(Cap::Yours(99)) });
    peer.expect_abort("not in the export table");
    assert!(wait_failed(send(&promise, NOTE, 1, &[])).contains("not in the export table"));
}

/// A promise that the peer breaks fails its calls and those who wait for it, and is released.
/// Rules: 7.
#[test]
fn resolve_with_an_exception_breaks_the_promise_and_releases_it() {
    for used in [false, true] {
        let mut peer = Peer::new(Client::null());
        let promise = peer.introduce(Cap::Promise(5));
        let early = used.then(|| send(&promise, NOTE, 1, &[]));
        peer.send(Msg::Resolve { promise: 5, to: Err("no luck".into()) });
        assert!(promise.resolve().unwrap_err().to_string().contains("no luck"));
        assert!(wait_failed(send(&promise, NOTE, 2, &[])).contains("no luck"));
        if let Some(early) = early {
            let call = peer.expect_call_of(1);
            peer.answer(call.question, Outcome::Exception("no luck".into()));
            assert!(wait_failed(early).contains("no luck"));
        }
        assert_eq!(peer.expect_release(5), 1);
        // It can be passed on as what it is.
        let id = peer.export_promise(&promise);
        assert_eq!(peer.expect_resolve(id), Err("no luck".into()));
        let call = peer.call(Target::Import(id), NOTE, 3).send();
        peer.expect_exception(call, "no luck");
        drop(promise);
        peer.finish_clean();
    }
}

/// A promise that the peer resolves to nothing is null; no embargo is needed.
/// Rules: 7, 1.
#[test]
fn resolve_to_none_makes_the_promise_null_without_embargo() {
    let mut peer = Peer::new(Client::null());
    let promise = peer.introduce(Cap::Promise(5));
    let early = send(&promise, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    peer.resolve(5, Cap::None);
    assert!(promise.resolve().unwrap().is_null());
    assert!(wait_failed(send(&promise, NOTE, 2, &[])).contains("null"));
    peer.results(call.question, 1, &[]);
    wait(early).unwrap();
    assert_eq!(peer.expect_release(5), 1);
    drop(promise);
    peer.finish_clean();
}

/// A promise of ours that is rejected, fulfilled with null, or whose fulfiller is dropped is told to be broken. Its
/// calls fail.
/// Rules: 7.
#[test]
fn exported_promise_broken_null_or_dropped_sends_an_exception_in_its_resolve() {
    type End = fn(ClientFulfiller);
    let ends: [(&str, End); 3] = [
        ("no luck", |fulfiller| fulfiller.reject(Exception::failed("no luck"))),
        // Other implementations do not take `none` in a Resolve.
        ("null", |fulfiller| fulfiller.fulfill(Client::null())),
        ("dropped", drop),
    ];
    for (why, end) in ends {
        let (mut peer, client, id, fulfiller, exported) = exported_promise();
        let early = peer.call(Target::Import(id), NOTE, 5).send();
        peer.settle();
        end(fulfiller);
        assert!(peer.expect_resolve(id).unwrap_err().contains(why));
        let late = peer.call(Target::Import(id), NOTE, 6).send();
        for question in [early, late] {
            peer.expect_exception(question, why);
        }
        drop((client, exported));
        peer.finish_clean();
    }
}

/// A promise that has been resolved is described as what it became: never as the promise again, although the peer
/// still holds that.
/// Rules: 7.
#[test]
fn exported_promise_that_is_resolved_is_described_as_its_resolution() {
    let object = Recorder::new();
    let (mut peer, client, id, fulfiller, exported) = exported_promise();
    assert_eq!(described(&mut peer, &client, &exported), Cap::Promise(id), "until it is resolved");
    fulfiller.fulfill(object.client());
    let Ok(Cap::Hosted(settled)) = peer.expect_resolve(id) else { panic!("hosted here") };
    assert_ne!(settled, id);
    assert_eq!(described(&mut peer, &client, &exported), Cap::Hosted(settled));
    let call = peer.call(Target::Import(id), NOTE, 5).send();
    peer.expect_done(call, 5);
    drop((client, exported));
    peer.finish_clean();

    let (mut peer, client, id, fulfiller, exported) = exported_promise();
    fulfiller.fulfill(client.clone());
    assert_eq!(peer.expect_resolve(id), Ok(Cap::Yours(7)));
    assert_eq!(described(&mut peer, &client, &exported), Cap::Yours(7));
    drop((client, exported));
    peer.finish_clean();
}

/// A promise that was broken is not named by its old number either; the new one is broken in turn.
/// Rules: 7.
#[test]
fn exported_promise_that_is_broken_is_described_as_a_new_broken_promise() {
    let (mut peer, client, id, fulfiller, exported) = exported_promise();
    fulfiller.reject(Exception::failed("no luck"));
    assert!(peer.expect_resolve(id).unwrap_err().contains("no luck"));
    let Cap::Promise(new) = described(&mut peer, &client, &exported) else { panic!("a promise") };
    assert_ne!(new, id);
    assert!(peer.expect_resolve(new).unwrap_err().contains("no luck"));
    drop((client, exported));
    peer.finish_clean();
}

/// A promise that became another promise is described as that one, and both are told what it becomes, when that is
/// known; whether the peer had the other one before or not.
/// Rules: 7.
#[test]
fn exported_promise_that_became_another_promise_is_described_as_that_one() {
    for known in [false, true] {
        let object = Recorder::new();
        let (mut peer, client, id, fulfiller, exported) = exported_promise();
        let (next, next_fulfiller) = Client::promise();
        let before = known.then(|| described(&mut peer, &client, &next));
        fulfiller.fulfill(next);
        // Once to see that it is resolved, and once to watch the next.
        peer.settle();
        peer.settle();
        peer.expect_quiet();
        let Cap::Promise(second) = described(&mut peer, &client, &exported) else { panic!("a promise") };
        assert_ne!(second, id);
        assert!(before.is_none_or(|before| before == Cap::Promise(second)));
        peer.settle();
        next_fulfiller.fulfill(object.client());
        let mut told = [peer.expect_any_resolve(), peer.expect_any_resolve()];
        told.sort_by_key(|(id, _)| *id);
        let Ok(Cap::Hosted(settled)) = told[0].1 else { panic!("hosted here") };
        let mut expected = [id, second].map(|id| (id, Ok(Cap::Hosted(settled))));
        expected.sort_by_key(|(id, _)| *id);
        assert_eq!(told, expected);
        assert_eq!(described(&mut peer, &client, &exported), Cap::Hosted(settled));
        drop((client, exported));
        peer.finish_clean();
    }
}

/// A promise of ours that the peer holds, and a client of the peer's capability 7.
fn exported_promise() -> (Peer, Client, u32, ClientFulfiller, Client) {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let (promise, fulfiller) = Client::promise();
    let Cap::Promise(id) = described(&mut peer, &client, &promise) else { panic!("a promise") };
    // The lowest ID: what is introduced later uses it again.
    peer.expect_finish(0);
    (peer, client, id, fulfiller, promise)
}

/// How `cap` is described in the params of a call. The peer keeps it.
#[track_caller]
fn described(peer: &mut Peer, client: &Client, cap: &Client) -> Cap {
    let answer = send(client, NOTE, 1, std::slice::from_ref(cap));
    let call = peer.expect_call_of(1);
    peer.answer_keeping(call.question, Outcome::Results(Payload::new(1, &[])));
    wait(answer).unwrap();
    call.params.caps[0].clone()
}

/// A promise of one peer's that another peer holds becomes other promises, in any order, before it is settled. The
/// other peer is told once, what it is in the end.
/// Rules: 7.
#[test]
fn promise_that_becomes_other_promises_sends_one_resolve_when_it_is_settled() {
    for order in [[7, 8, 9], [9, 8, 7], [8, 9, 7]] {
        let (mut far, mut near) = (Peer::new(Client::null()), Peer::new(Client::null()));
        let held: Vec<Client> = (7..11).map(|id| far.introduce(Cap::Promise(id))).collect();
        let exports: Vec<u32> = held.iter().map(|promise| near.export_promise(promise)).collect();
        for (n, id) in order.into_iter().enumerate() {
            // A promise that has been resolved is not named any more.
            let next = (id + 1..).find(|next| !order[..n].contains(next)).expect("the last is not resolved");
            far.resolve(id, Cap::Promise(next));
            far.sync();
        }
        near.expect_quiet();
        far.resolve(10, Cap::Hosted(11));
        let mut told: Vec<u32> = exports
            .iter()
            .map(|_| match near.expect_any_resolve() {
                (promise, Ok(Cap::Hosted(_))) => promise,
                other => panic!("told {other:?}"),
            })
            .collect();
        told.sort_unstable();
        assert_eq!(told, exports);
        drop(held);
        near.finish_clean();
        far.finish_clean();
    }
}
