//! `Bootstrap`: rules 5, 9 and 10.

use capnp_threads::{Capability, Client};

use crate::support::*;

/// The Finish of a Bootstrap gives back the one reference that its Return gave, and no more.
/// Rules: 5.
#[test]
fn finish_of_a_bootstrap_releases_one_reference() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let (first, second) = (peer.bootstrap(), peer.bootstrap());
    let results = peer.expect_results(first);
    assert_eq!(results, peer.expect_results(second));
    assert_eq!(peer.vat.snapshot().export_references(), 2);
    peer.finish(first);
    peer.wait_tables(|tables| tables.export_references() == 1);
    let [Cap::Hosted(id)] = results.caps[..] else { panic!("{results:?}") };
    let call = peer.call(Target::Import(id), NOTE, 1).send();
    peer.expect_done(call, 1);
    peer.finish(second);
    peer.wait_tables(|tables| tables.exports() == 0);
    peer.finish_clean();
}

/// A Finish that keeps the capabilities leaves the reference to be released, once.
/// Rules: 5.
#[test]
fn bootstrap_object_kept_by_the_finish_lives_until_its_release() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    peer.settle();
    peer.wait_tables(|tables| tables.export_references() == 1);
    peer.release(object, 1);
    peer.sync();
    assert_eq!(peer.vat.snapshot().exports(), 0);
    peer.finish_clean();
}

/// A bootstrap object that is still a promise is given back like any other. Nothing is told of it then.
/// Rules: 5.
#[test]
fn finish_of_a_bootstrap_that_returned_a_promise_releases_the_promise() {
    let (promise, fulfiller) = Client::promise();
    let mut peer = Peer::new(promise);
    let question = peer.bootstrap();
    let results = peer.expect_results(question);
    assert!(matches!(results.caps[..], [Cap::Promise(_)]), "{results:?}");
    peer.finish(question);
    peer.wait_tables(|tables| tables.exports() == 0);
    fulfiller.fulfill(Recorder::new().client());
    peer.finish_clean();
}

/// A Bootstrap of ours whose client is dropped is finished before its Return. The capability that the Return brings
/// is the peer's to release: no Release is sent for it.
/// Rules: 5, 10.
#[test]
fn return_after_the_finish_of_a_bootstrap_is_not_released_again() {
    let mut peer = Peer::new(Client::null());
    drop(peer.vat.bootstrap::<Client>());
    let question = peer.expect_bootstrap();
    assert!(peer.expect_finish(question), "the Finish gives back what the Return will bring");
    peer.answer(question, Outcome::Results(Payload::capability(Cap::Hosted(7))));
    peer.sync();
    assert_eq!(peer.vat.snapshot().imports(), 0);
    peer.finish_clean();
}

/// The question ID of a Bootstrap is free again once its Return came and its Finish was sent, no sooner.
/// Rules: 9.
#[test]
fn bootstrap_question_id_is_free_after_return_and_finish() {
    let mut peer = Peer::new(Client::null());
    let first = peer.vat.bootstrap::<Client>();
    assert_eq!(peer.expect_bootstrap(), 0);
    drop(first);
    peer.expect_finish(0);
    let second = peer.vat.bootstrap::<Client>();
    assert_eq!(peer.expect_bootstrap(), 1, "0 was finished, and not returned");
    peer.answer(0, Outcome::Canceled);
    peer.sync();
    let third = peer.vat.bootstrap::<Client>();
    assert_eq!(peer.expect_bootstrap(), 0);
    for question in [0, 1] {
        peer.answer(question, Outcome::Exception("no object here".into()));
    }
    drop((second, third));
    peer.finish_clean();
}

/// A vat that offers no object answers with an exception, and stays connected.
/// Rules: none.
#[test]
fn bootstrap_of_a_vat_without_an_object_fails_and_the_connection_stays() {
    let mut peer = Peer::new(Client::null());
    let question = peer.bootstrap();
    peer.expect_exception(question, "no bootstrap object");
    peer.finish_clean();
}
