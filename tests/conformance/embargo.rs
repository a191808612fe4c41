//! `Disembargo`, sent by us: rule 1.
//!
//! A promise that received calls and turns out to be here needs a Disembargo round before new calls go direct.

use capnp_threads::{Capability, Client, Exception, Limits, RemotePromise, Vat};

use crate::support::*;

/// A promise of the peer's (export 10) that one call with tag 1 was made on, and an object of ours that the
/// peer holds.
struct Used {
    peer: Peer,
    promise: Client,
    recorder: Recorder,
    /// The peer's reference to the object.
    object: u32,
    /// The call that is at the peer.
    first: Call,
    answer: RemotePromise,
}

impl Used {
    fn new() -> Self {
        let mut peer = Peer::new(Client::null());
        let recorder = Recorder::new();
        let object = peer.export_hosted(&recorder.client());
        let promise = peer.introduce(Cap::Promise(10));
        let answer = send(&promise, NOTE, 1, &[]);
        let first = peer.expect_call_of(1);
        assert_eq!(first.target, Target::Import(10));
        Used { peer, promise, recorder, object, first, answer }
    }

    /// The peer says that the promise is the object, and is asked to echo.
    fn resolve(&mut self) -> u32 {
        self.peer.resolve(10, Cap::Yours(self.object));
        let (target, embargo) = self.peer.expect_disembargo();
        assert_eq!(target, Target::Import(10));
        embargo
    }

    /// The peer passes the first call on to the object, and its answer back.
    fn forward_first(&mut self) {
        let forwarded = self.peer.call(Target::Import(self.object), NOTE, 1).send();
        self.peer.expect_done(forwarded, 1);
        self.peer.results(self.first.question, 1, &[]);
    }

    fn echo(&mut self, embargo: u32) {
        self.peer.echo(Target::Import(self.object), embargo);
    }

    fn end(self) {
        let Used { peer, promise, recorder, answer, .. } = self;
        drop(promise);
        wait(answer).unwrap();
        drop(recorder);
        peer.finish_clean();
    }
}

/// Calls are held until the Disembargo has come back, and go on in order.
/// Rules: 1.
#[test]
fn called_promise_resolved_to_a_local_object_holds_calls_until_the_echo() {
    let mut test = Used::new();
    let embargo = test.resolve();
    let held: Vec<_> = (2..=4).map(|tag| send(&test.promise, NOTE, tag, &[])).collect();
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), []);
    test.forward_first();
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), [1]);
    test.echo(embargo);
    test.recorder.expect(&[1, 2, 3, 4]);
    for (tag, answer) in (2..).zip(held) {
        assert_eq!(wait(answer).unwrap(), (tag, vec![]));
    }
    // From now on calls go direct: the peer sees none.
    wait(send(&test.promise, NOTE, 5, &[])).unwrap();
    test.recorder.expect(&[1, 2, 3, 4, 5]);
    test.end();
}

/// The promise is released at once, but behind the Disembargo that is addressed to it.
/// Rules: 1.
#[test]
fn embargoed_promise_is_released_after_its_disembargo() {
    let mut test = Used::new();
    let embargo = test.resolve();
    assert_eq!(test.peer.expect_release(10), 1);
    test.forward_first();
    test.echo(embargo);
    test.end();
}

/// No call, no embargo.
/// Rules: 1.
#[test]
fn promise_without_calls_resolved_to_a_local_object_is_not_embargoed() {
    let mut peer = Peer::new(Client::null());
    let recorder = Recorder::new();
    let object = peer.export_hosted(&recorder.client());
    let promise = peer.introduce(Cap::Promise(10));
    peer.resolve(10, Cap::Yours(object));
    assert_eq!(peer.expect_release(10), 1);
    assert_eq!(wait(send(&promise, NOTE, 1, &[])).unwrap(), (1, vec![]));
    peer.expect_quiet();
    assert_eq!(promise, recorder.client());
    drop(promise);
    peer.finish_clean();
}

/// The embargo belongs to the reference: all clones of the promise share it, those made before and after the
/// resolution, and those of a promise that the peer named twice.
/// Rules: 1.
#[test]
fn clones_of_an_embargoed_promise_share_the_embargo() {
    let mut test = Used::new();
    let before = test.promise.clone();
    let again = test.peer.introduce(Cap::Promise(10));
    assert_eq!(again, test.promise);
    let embargo = test.resolve();
    assert_eq!(test.peer.expect_release(10), 2);
    let after = test.promise.clone();
    let held: Vec<_> =
        (2..).zip([&before, &again, &after]).map(|(tag, clone)| send(clone, NOTE, tag, &[])).collect();
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), []);
    test.forward_first();
    test.echo(embargo);
    test.recorder.expect(&[1, 2, 3, 4]);
    held.into_iter().for_each(|answer| drop(wait(answer).unwrap()));
    drop((before, again, after));
    test.end();
}

/// A null or broken capability is never embargoed: calls fail at once.
/// Rules: 1.
#[test]
fn promise_resolved_to_null_or_an_exception_fails_calls_without_embargo() {
    for to in [Ok(Cap::None), Err("no such thing".to_owned())] {
        let mut test = Used::new();
        let is_null = to.is_ok();
        test.peer.send(Msg::Resolve { promise: 10, to });
        assert_eq!(test.peer.expect_release(10), 1);
        assert_eq!(test.promise.is_null(), is_null);
        let why = wait_failed(send(&test.promise, NOTE, 2, &[]));
        assert!(why.contains(if is_null { "null" } else { "no such thing" }), "{why}");
        test.peer.expect_quiet();
        test.peer.results(test.first.question, 1, &[]);
        test.end();
    }
}

/// A promise of ours that was broken, and that the peer names, is not embargoed.
/// Rules: 1.
#[test]
fn promise_resolved_to_a_broken_export_is_not_embargoed() {
    let mut test = Used::new();
    let (ours, fulfiller) = Client::promise();
    let id = test.peer.export_promise(&ours);
    fulfiller.reject(Exception::failed("never mind"));
    assert_eq!(test.peer.expect_resolve(id), Err("never mind".into()));
    test.peer.resolve(10, Cap::Yours(id));
    assert_eq!(test.peer.expect_release(10), 1);
    assert!(wait_failed(send(&test.promise, NOTE, 2, &[])).contains("never mind"));
    test.peer.expect_quiet();
    test.peer.results(test.first.question, 1, &[]);
    test.end();
}

/// A promise that turns out to be another promise of the peer's needs none, but passes on that it was used; the
/// Disembargo goes by the later promise.
/// Rules: 1.
#[test]
fn called_promise_resolved_to_another_import_embargoes_that_one_later() {
    let mut test = Used::new();
    test.peer.resolve(10, Cap::Promise(11));
    assert_eq!(test.peer.expect_release(10), 1);
    test.peer.expect_quiet();
    test.peer.resolve(11, Cap::Yours(test.object));
    let (target, embargo) = test.peer.expect_disembargo();
    assert_eq!(target, Target::Import(11));
    let held = send(&test.promise, NOTE, 2, &[]);
    test.forward_first();
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), [1]);
    test.echo(embargo);
    test.recorder.expect(&[1, 2]);
    wait(held).unwrap();
    test.end();
}

/// No embargo is needed for an object in the peer: later calls take the same way and stay behind the earlier ones.
/// Rules: 1.
#[test]
fn promise_resolved_to_an_object_in_the_peer_is_not_embargoed() {
    let mut test = Used::new();
    test.peer.resolve(10, Cap::Hosted(12));
    assert_eq!(test.peer.expect_release(10), 1);
    let second = send(&test.promise, NOTE, 2, &[]);
    let call = test.peer.expect_call_of(2);
    assert_eq!(call.target, Target::Import(12));
    test.peer.results(test.first.question, 1, &[]);
    test.peer.results(call.question, 2, &[]);
    wait(second).unwrap();
    test.end();
}

/// A promise of ours that the peer names is here as well, whatever becomes of it.
/// Rules: 1.
#[test]
fn promise_resolved_to_an_exported_promise_is_embargoed() {
    let mut test = Used::new();
    let (ours, fulfiller) = Client::promise();
    let id = test.peer.export_promise(&ours);
    test.peer.resolve(10, Cap::Yours(id));
    let (_, embargo) = test.peer.expect_disembargo();
    let held = send(&test.promise, NOTE, 2, &[]);
    // The peer passes the first call on, to our promise, where it waits; the echo overtakes nothing.
    let forwarded = test.peer.call(Target::Import(id), NOTE, 1).send();
    test.peer.echo(Target::Import(id), embargo);
    test.peer.settle();
    assert_eq!(test.recorder.log(), []);
    fulfiller.fulfill(test.recorder.client());
    test.recorder.expect(&[1, 2]);
    let resolved = test.peer.expect_resolve(id);
    assert_eq!(resolved, Ok(Cap::Hosted(test.object)));
    test.peer.expect_done(forwarded, 1);
    test.peer.results(test.first.question, 1, &[]);
    wait(held).unwrap();
    test.end();
}

/// What is behind another connection of ours is here, to this peer.
/// Rules: 1.
#[test]
fn promise_resolved_to_an_export_of_another_connections_object_is_embargoed() {
    let mut test = Used::new();
    let mut other = Peer::new(Client::null());
    let proxy = other.introduce(Cap::Hosted(5));
    let id = test.peer.export_hosted(&proxy);
    test.peer.resolve(10, Cap::Yours(id));
    let (_, embargo) = test.peer.expect_disembargo();
    let held = send(&test.promise, NOTE, 2, &[]);
    other.expect_quiet();
    let forwarded = test.peer.call(Target::Import(id), NOTE, 1).send();
    let first = other.expect_call_of(1);
    other.expect_quiet();
    test.peer.echo(Target::Import(id), embargo);
    let second = other.expect_call_of(2);
    other.results(second.question, 2, &[]);
    other.results(first.question, 1, &[]);
    test.peer.expect_done(forwarded, 1);
    test.peer.results(test.first.question, 1, &[]);
    wait(held).unwrap();
    drop(proxy);
    test.end();
    other.finish_clean();
}

/// Calls that are held go on when no client of the promise is left.
/// Rules: 1.
#[test]
fn calls_held_by_an_embargo_are_delivered_after_the_promise_is_dropped() {
    let mut test = Used::new();
    let embargo = test.resolve();
    let held = send(&test.promise, NOTE, 2, &[]);
    let promise = std::mem::replace(&mut test.promise, Client::null());
    drop(promise);
    test.forward_first();
    test.echo(embargo);
    test.recorder.expect(&[1, 2]);
    wait(held).unwrap();
    test.end();
}

/// A call that is canceled while it is held is not delivered.
/// Rules: 1.
#[test]
fn call_canceled_while_an_embargo_holds_it_is_not_delivered() {
    let mut test = Used::new();
    let embargo = test.resolve();
    let canceled = send(&test.promise, NOTE, 2, &[]);
    let held = send(&test.promise, NOTE, 3, &[]);
    drop(canceled);
    test.forward_first();
    test.echo(embargo);
    test.recorder.expect(&[1, 3]);
    wait(held).unwrap();
    test.end();
}

/// A promise that has no client when it is resolved needs no embargo: no new call can be made.
/// Rules: 1.
#[test]
fn dropped_promise_resolved_to_a_local_object_is_not_embargoed() {
    let mut test = Used::new();
    let promise = std::mem::replace(&mut test.promise, Client::null());
    drop(promise);
    assert_eq!(test.peer.expect_release(10), 1);
    // As if it had been sent before the Release came.
    test.peer.resolve(10, Cap::Yours(test.object));
    test.peer.expect_quiet();
    test.forward_first();
    test.recorder.expect(&[1]);
    test.end();
}

/// Embargoes are told apart.
/// Rules: 1.
#[test]
fn two_embargoes_are_each_lifted_by_their_own_echo() {
    let mut test = Used::new();
    let other = test.peer.introduce(Cap::Promise(11));
    let other_answer = send(&other, NOTE, 10, &[]);
    let other_first = test.peer.expect_call_of(10);
    let embargo = test.resolve();
    test.peer.resolve(11, Cap::Yours(test.object));
    let (target, other_embargo) = test.peer.expect_disembargo();
    assert_eq!(target, Target::Import(11));
    assert_ne!(embargo, other_embargo);
    let held = send(&test.promise, NOTE, 2, &[]);
    let other_held = send(&other, NOTE, 11, &[]);
    test.echo(other_embargo);
    test.recorder.expect(&[11]);
    test.echo(embargo);
    test.recorder.expect(&[11, 2]);
    for answer in [held, other_held] {
        wait(answer).unwrap();
    }
    test.peer.results(other_first.question, 10, &[]);
    wait(other_answer).unwrap();
    test.peer.results(test.first.question, 1, &[]);
    drop(other);
    test.end();
}

/// An echo for which no Disembargo was sent, or a second one, is an error of the peer's.
/// Rules: 1, 11.
#[test]
fn echo_of_an_unknown_or_lifted_embargo_aborts() {
    let mut peer = Peer::new(Client::null());
    let context = Context::Receiver(0);
    peer.send_wrong(Msg::Disembargo { target: Target::Import(0), context });
    peer.expect_abort("embargo");

    let mut test = Used::new();
    let embargo = test.resolve();
    test.echo(embargo);
    let context = Context::Receiver(embargo);
    test.peer.send_wrong(Msg::Disembargo { target: Target::Import(test.object), context });
    test.peer.expect_abort("embargo");
    assert!(wait_failed(test.answer).contains("embargo"));
}

/// Calls in service may wait for the Disembargo to come back: it is read although they fill the limit, and no
/// question is outstanding.
/// Rules: 1.
#[test]
fn disembargo_is_read_while_calls_in_service_are_at_the_limit() {
    let mut limits = Limits::default();
    limits.call_words = 1;
    let recorder = Recorder::new();
    let mut peer = Peer::of(&Vat::new().bootstrap(recorder.client()).limits(limits));
    let object = peer.get_bootstrap();
    let promise = peer.introduce(Cap::Promise(10));
    let first = send(&promise, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    let serving = peer.call(Target::Import(object), HOLD, 9).send();
    peer.resolve(10, Cap::Yours(object));
    let (_, embargo) = peer.expect_disembargo();
    let second = send(&promise, NOTE, 2, &[]);
    peer.results(call.question, 1, &[]);
    wait(first).unwrap();
    peer.expect_finish(call.question);
    assert_eq!(peer.vat.snapshot().questions(), 0);
    // What was read while the question was outstanding.
    peer.sync();
    peer.echo(Target::Import(object), embargo);
    wait(second).unwrap();
    recorder.held().answer(9, &[]);
    peer.expect_done(serving, 9);
    drop(promise);
    peer.finish_clean();
}

/// A promise that the peer names again is the same promise, also where the callback thread has not yet processed
/// the drop of its last client.
/// Rules: 1, 12.
#[test]
fn promise_named_again_before_its_drop_is_processed_is_still_embargoed() {
    let recorder = Recorder::new();
    let mut peer = Peer::strict(recorder.client());
    let object = peer.get_bootstrap();
    let other = peer.introduce(Cap::Hosted(20));
    let promise = peer.introduce(Cap::Promise(10));
    let first = send(&promise, NOTE, 1, &[]);
    let ahead = peer.expect_call_of(1).question;
    let frozen = freeze_callbacks(&mut peer, &other);
    drop(promise);
    let naming = peer.call(Target::Import(object), HOLD, 9).caps(&[Cap::Promise(10)]).send();
    peer.resolve(10, Cap::Yours(object));
    let (target, embargo) = peer.expect_disembargo();
    assert_eq!(target, Target::Import(10));
    drop(frozen);
    let held = recorder.held();
    let second = send(&held.caps[0], NOTE, 2, &[]);
    peer.expect_quiet();
    let forwarded = peer.call(Target::Import(object), NOTE, 1).send();
    peer.expect_done(forwarded, 1);
    peer.results(ahead, 1, &[]);
    peer.echo(Target::Import(object), embargo);
    recorder.expect(&[9, 1, 2]);
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    held.answer(9, &[]);
    peer.expect_done(naming, 9);
    drop(other);
    peer.finish_clean();
}
