//! `Release`, and the releases that a `Return` stands for: rules 5, 6 and 11.

use capnp_threads::{Call as Served, Capability, Client, Result, Server};
use crossbeam_channel::{unbounded, Sender};

use crate::support::*;

/// An import counts every time it was received, and its one Release gives back exactly that count.
/// Rules: 6.
#[test]
fn import_received_four_times_is_released_with_count_four() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    // Once in params twice over, and once in results.
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7), Cap::Hosted(7)]).send();
    let held = recorder.held();
    let answer = send(&client, NOTE, 2, &[]);
    let ours = peer.expect_call_of(2);
    peer.results(ours.question, 3, &[Cap::Hosted(7)]);
    let (_, caps) = wait(answer).unwrap();
    assert_eq!(peer.vat.snapshot().import_references(), 4);
    assert_eq!(peer.vat.snapshot().imports(), 1);
    assert!(held.caps.iter().chain(&caps).all(|cap| *cap == client), "all are one object");
    held.answer(4, &[]);
    peer.expect_done(call, 4);
    drop((client, caps));
    assert_eq!(peer.expect_release(7), 4);
    peer.finish_clean();
}

/// A reference that is on its way while the Release travels counts from one, and is no error.
/// Rules: 6.
#[test]
fn reference_that_crosses_the_release_counts_from_one() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    drop(client);
    peer.wait_tables(|tables| tables.imports() == 0);
    // The Release is on its way, and the peer does not know yet.
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    let held = recorder.held();
    assert_eq!(peer.expect_release(7), 1);
    assert_eq!(peer.given(7), 1);
    let answer = send(&held.caps[0], NOTE, 2, &[]);
    let ours = peer.expect_call_of(2);
    assert_eq!(ours.target, Target::Import(7));
    peer.results(ours.question, 2, &[]);
    wait(answer).unwrap();
    held.answer(1, &[]);
    peer.expect_done(call, 1);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A reference that comes between the dropping of the last client and the Release keeps the import. The Release
/// that was on its way is not sent; the one for both references comes when the new client goes.
/// Rules: 6.
#[test]
fn reference_received_before_the_release_is_sent_keeps_the_import() {
    let recorder = Recorder::new();
    let mut peer = Peer::strict(recorder.client());
    let object = peer.get_bootstrap();
    let (client, other) = (peer.introduce(Cap::Hosted(7)), peer.introduce(Cap::Hosted(8)));
    let frozen = freeze_callbacks(&mut peer, &other);
    drop(client);
    // The callback thread would send the Release; the coordinator sees the new reference first.
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    peer.sync();
    assert_eq!(peer.vat.snapshot().import_references(), 3, "two to 7, one to 8");
    drop(frozen);
    let held = recorder.held();
    peer.settle();
    assert_eq!(peer.given(7), 2, "nothing was released");
    held.answer(1, &[]);
    peer.expect_done(call, 1);
    assert_eq!(peer.expect_release(7), 2);
    drop(other);
    assert_eq!(peer.expect_release(8), 1);
    peer.finish_clean();
}

/// All references to a promise are one import, which lives until it is resolved or dropped.
/// Rules: 6.
#[test]
fn imported_promise_received_twice_is_released_with_count_two() {
    let mut peer = Peer::new(Client::null());
    let first = peer.introduce(Cap::Promise(5));
    let second = peer.introduce(Cap::Promise(5));
    drop(first);
    peer.settle();
    assert_eq!(peer.given(5), 2);
    drop(second);
    assert_eq!(peer.expect_release(5), 2);
    peer.finish_clean();
}

/// From the other side: an export lives until the peer has released every reference that it was given, and the
/// object is dropped then.
/// Rules: 6.
#[test]
fn export_lives_until_all_its_references_are_released() {
    let (to, dropped) = unbounded();
    let object = Client::new(Mortal(to));
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[object.clone(), object.clone(), object]);
    let call = peer.expect_call_of(1);
    let Cap::Hosted(id) = call.params.caps[0] else { panic!("{call:?}") };
    assert_eq!(call.params.caps, vec![Cap::Hosted(id); 3]);
    peer.answer_keeping(call.question, Outcome::Results(Payload::new(1, &[])));
    wait(answer).unwrap();
    peer.release(id, 2);
    let alive = peer.call(Target::Import(id), NOTE, 2).send();
    peer.expect_done(alive, 0);
    assert!(dropped.is_empty());
    peer.release(id, 1);
    dropped.recv_timeout(peer::DEADLINE).expect("the object is dropped");
    drop(client);
    peer.finish_clean();
}

/// `releaseParamCaps` gives back exactly what the params of that call gave, counted as often as they did.
/// Rules: 5.
#[test]
fn release_param_caps_releases_exactly_the_exports_of_that_call() {
    let (a, b) = (Recorder::new().client(), Recorder::new().client());
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let first = send(&client, NOTE, 1, &[a.clone(), a.clone(), b.clone(), client.clone()]);
    let second = send(&client, NOTE, 2, &[a, b]);
    let (one, two) = (peer.expect_call_of(1), peer.expect_call_of(2));
    assert_eq!(one.params.caps[3], Cap::Yours(7), "the peer's own capability counts for nothing");
    assert_eq!(peer.vat.snapshot().export_references(), 5);
    peer.results(one.question, 1, &[]);
    peer.sync();
    assert_eq!(peer.vat.snapshot().export_references(), 2, "those of the second call");
    peer.answer_keeping(two.question, Outcome::Results(Payload::new(2, &[])));
    peer.sync();
    assert_eq!(peer.vat.snapshot().export_references(), 2, "the peer keeps them");
    wait(first).unwrap();
    wait(second).unwrap();
    drop(client);
    peer.finish_clean();
}

/// `releaseParamCaps` counts in an exception too.
/// Rules: 5.
#[test]
fn release_param_caps_in_an_exception_releases_the_params() {
    let object = Recorder::new().client();
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[object]);
    let call = peer.expect_call_of(1);
    peer.answer(call.question, Outcome::Exception("no".into()));
    assert!(wait_failed(answer).contains("no"));
    assert_eq!(peer.vat.snapshot().exports(), 0);
    drop(client);
    peer.finish_clean();
}

/// After a cancellation, too, the late Return says whether the params' capabilities are given back.
/// Rules: 5.
#[test]
fn release_param_caps_in_a_return_after_our_finish_releases_the_params() {
    for release in [true, false] {
        let object = Recorder::new().client();
        let mut peer = Peer::new(Client::null());
        let client = peer.introduce(Cap::Hosted(7));
        drop(send(&client, NOTE, 1, &[object.clone(), object]));
        let call = peer.expect_call_of(1);
        assert!(peer.expect_finish(call.question));
        assert_eq!(peer.vat.snapshot().export_references(), 2, "the call may still use them");
        match release {
            true => peer.answer(call.question, Outcome::Canceled),
            false => peer.answer_keeping(call.question, Outcome::Canceled),
        }
        peer.sync();
        assert_eq!(peer.vat.snapshot().export_references(), if release { 0 } else { 2 });
        drop(client);
        peer.finish_clean();
    }
}

/// Results that name params count for themselves. Our Return does not release the params: Release messages do, and
/// the results stay.
/// Rules: 5.
#[test]
fn return_of_ours_leaves_the_params_to_release_messages() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), GIVE, 1).caps(&[Cap::Hosted(7), Cap::Hosted(8)]).send();
    let ret = peer.expect_return(call);
    assert!(!ret.release_params, "they are given back by Release");
    assert_eq!(ret.outcome, Outcome::Results(Payload::new(1, &[Cap::Yours(7), Cap::Yours(8)])));
    peer.settle();
    assert_eq!(peer.vat.snapshot().imports(), 2, "as long as the results can be called");
    peer.finish(call);
    assert_eq!(peer.expect_release(7), 1);
    assert_eq!(peer.expect_release(8), 1);
    peer.finish_clean();
}

/// A Release of more references than were given ends the connection.
/// Rules: 11.
#[test]
fn release_of_more_references_than_were_given_aborts() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    peer.send_wrong(Msg::Release { id: object, count: 2 });
    peer.expect_abort("Release of 2 references");
}

/// A Release of a capability that was never given, or is no longer held, ends the connection.
/// Rules: 11.
#[test]
fn release_of_an_unknown_capability_aborts() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    peer.release(object, 1);
    peer.send_wrong(Msg::Release { id: object, count: 1 });
    peer.expect_abort("not in the export table");
}

/// Params that were released already can't be given back by the Return as well.
/// Rules: 5, 11.
#[test]
fn release_param_caps_of_params_that_were_released_already_aborts() {
    let object = Recorder::new().client();
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[object]);
    let call = peer.expect_call_of(1);
    let Cap::Hosted(id) = call.params.caps[0] else { panic!("{call:?}") };
    peer.release(id, 1);
    peer.send_wrong(Msg::Return(Return {
        answer: call.question,
        release_params: true,
        no_finish: false,
        outcome: Outcome::Results(Payload::new(1, &[])),
    }));
    assert!(wait_failed(answer).contains("not in the export table"));
    peer.expect_abort("not in the export table");
}

/// An object that says when it is dropped.
struct Mortal(Sender<()>);

impl Server for Mortal {
    fn dispatch(&self, _: &mut Served) -> Result<()> {
        Ok(())
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
