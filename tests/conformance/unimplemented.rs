//! `Unimplemented`: rule 8. What the peer does not know concerns that message alone; only nonsense ends the
//! connection.

use capnp_threads::{Capability, Client, ExceptionKind, RemotePromise};

use crate::support::*;

/// A Resolve that comes back releases what it had resolved to. The promise goes on as it was.
/// Rules: 8.
#[test]
fn unimplemented_resolve_releases_its_capability_and_leaves_the_promise() {
    let recorder = Recorder::new();
    let (mut peer, promise, resolve) = resolved_to(|_| recorder.client());
    let Msg::Resolve { to: Ok(Cap::Hosted(object)), .. } = resolve else { panic!("{resolve:?}") };
    assert_eq!(peer.vat.snapshot().exports(), 2);
    bounce(&mut peer, resolve);
    peer.sync();
    assert_eq!(peer.vat.snapshot().exports(), 1, "the promise, which the peer still holds");
    let call = peer.call(Target::Import(promise), NOTE, 3).send();
    peer.expect_done(call, 3);
    recorder.expect(&[3]);
    peer.send_wrong(Msg::Release { id: object, count: 1 });
    peer.expect_abort("not in the export table");
}

/// A Resolve to a capability of the peer's own gave nothing, and so releases nothing.
/// Rules: 8.
#[test]
fn unimplemented_resolve_to_the_peers_own_capability_releases_nothing() {
    let (mut peer, promise, resolve) = resolved_to(|peer| peer.introduce(Cap::Hosted(8)));
    assert_eq!(resolve, Msg::Resolve { promise, to: Ok(Cap::Yours(8)) });
    bounce(&mut peer, resolve);
    peer.sync();
    assert_eq!(peer.vat.snapshot().export_references(), 1);
    peer.release(promise, 1);
    assert_eq!(peer.expect_release(8), 1);
    peer.finish_clean();
}

/// A Resolve with an exception gave nothing, and so releases nothing.
/// Rules: 8.
#[test]
fn unimplemented_resolve_with_an_exception_releases_nothing() {
    let (mut peer, promise, resolve) =
        resolved_to(|_| Client::broken(capnp_threads::Exception::failed("no")));
    assert_eq!(resolve, Msg::Resolve { promise, to: Err("no".into()) });
    bounce(&mut peer, resolve);
    peer.finish_clean();
}

/// A Call that comes back fails its question and those pipelined on it, and gives back what its params gave. The ID
/// is free, and the connection goes on.
/// Rules: 8.
#[test]
fn unimplemented_call_fails_its_question_and_frees_its_id() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[Recorder::new().client()]);
    let promised = answer.pipeline.field(0).client();
    let call = peer.expect_call_of(1);
    bounce(&mut peer, Msg::Call(call));
    expect_unimplemented(answer);
    expect_unimplemented(send(&promised, NOTE, 2, &[]));
    assert_eq!(peer.vat.snapshot().exports(), 0);
    assert_eq!(peer.vat.snapshot().questions(), 0);
    let answer = send(&client, NOTE, 3, &[]);
    let call = peer.expect_call_of(3);
    assert_eq!(call.question, 0);
    peer.results(call.question, 3, &[]);
    assert_eq!(wait(answer).unwrap().0, 3);
    drop(client);
    peer.finish_clean();
}

/// A Call that comes back ends its question where that was finished before, too.
/// Rules: 8.
#[test]
fn unimplemented_call_ends_a_question_that_was_finished() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    drop(send(&client, NOTE, 1, &[Recorder::new().client()]));
    let call = peer.expect_call_of(1);
    peer.expect_finish(call.question);
    bounce(&mut peer, Msg::Call(call));
    peer.sync();
    let tables = peer.vat.snapshot();
    assert!(tables.questions() == 0 && tables.exports() == 0, "{tables}");
    drop(tables);
    drop(client);
    peer.finish_clean();
}

/// A call that was forwarded fails in the vat that made it, as unimplemented.
/// Rules: 8.
#[test]
fn unimplemented_forwarded_call_fails_in_the_vat_that_it_came_from() {
    let mut far = Peer::new(Client::null());
    let mut near = Peer::new(far.introduce(Cap::Hosted(7)));
    let proxy = near.get_bootstrap();
    let question = near.call(Target::Import(proxy), NOTE, 1).send();
    let forwarded = far.expect_call_of(1);
    bounce(&mut far, Msg::Call(forwarded));
    near.expect_exception(question, "does not implement");
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// A Bootstrap that comes back fails the calls on its object: those made meanwhile, and later ones.
/// Rules: 8.
#[test]
fn unimplemented_bootstrap_fails_earlier_and_later_calls_on_the_object() {
    let mut peer = Peer::new(Client::null());
    let client = peer.vat.bootstrap::<Client>();
    let question = peer.expect_bootstrap();
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    bounce(&mut peer, Msg::Bootstrap(question));
    peer.answer(call.question, Outcome::Exception("pipelined on what is not there".into()));
    assert!(wait_failed(answer).contains("not there"));
    let why = client.resolve().expect_err("no object");
    assert_eq!(why.kind(), ExceptionKind::Unimplemented);
    expect_unimplemented(send(&client, NOTE, 2, &[]));
    peer.finish_clean();
}

/// A Disembargo that comes back fails the calls that waited behind it, which can't go on in order, and gives back
/// the embargo's ID.
/// Rules: 8.
#[test]
fn unimplemented_disembargo_fails_the_calls_that_the_embargo_holds() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    for tag in [10, 20] {
        let client = peer.introduce(Cap::Promise(5));
        let first = send(&client, NOTE, tag, &[]);
        let call = peer.expect_call_of(tag);
        peer.resolve(5, Cap::Yours(object));
        let (target, id) = peer.expect_disembargo();
        assert_eq!((&target, id), (&Target::Import(5), 0));
        let held = send(&client, NOTE, tag + 1, &[]);
        bounce(&mut peer, Msg::Disembargo { target, context: Context::Sender(id) });
        expect_unimplemented(held);
        expect_unimplemented(send(&client, NOTE, tag + 2, &[]));
        peer.results(call.question, tag, &[]);
        assert_eq!(wait(first).unwrap().0, tag);
        drop(client);
        peer.expect_release(5);
    }
    recorder.expect(&[]);
    peer.finish_clean();
}

/// Finish, Release and `unimplemented` itself change nothing: what a peer does not count is its own affair.
/// Rules: 8.
#[test]
fn unimplemented_finish_release_or_unimplemented_changes_nothing() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    drop(send(&client, NOTE, 1, &[]));
    let question = peer.expect_call_of(1).question;
    peer.expect_finish(question);
    bounce(&mut peer, Msg::Finish { question, release: true, workaround: false });
    drop(client);
    let count = peer.expect_release(7);
    bounce(&mut peer, Msg::Release { id: 7, count });
    peer.sync();
    bounce(&mut peer, Msg::Unimplemented(Box::new(Msg::Bootstrap(9))));
    peer.answer(question, Outcome::Canceled);
    peer.finish_clean();
}

/// A Return that comes back is the peer's own affair, and changes nothing: capnp-rpc sends back those that end tail
/// calls.
/// Rules: 8.
#[test]
fn unimplemented_return_changes_nothing() {
    let mut peer = Peer::new(Client::null());
    let question = peer.bootstrap();
    let ret = peer.expect_return(question);
    bounce(&mut peer, Msg::Return(ret));
    peer.finish(question);
    peer.finish_clean();
}

/// An Abort that comes back ends the connection: it would be over.
/// Rules: 8.
#[test]
fn unimplemented_abort_aborts() {
    let mut peer = Peer::new(Client::null());
    bounce(&mut peer, Msg::Abort("never sent".into()));
    peer.expect_abort("Abort, which was never sent");
}

/// The echo of a Disembargo that the peer itself sent ends the connection if it comes back.
/// Rules: 8.
#[test]
fn unimplemented_echo_of_a_disembargo_aborts() {
    let mut peer = Peer::new(Client::null());
    bounce(&mut peer, Msg::Disembargo { target: Target::Import(0), context: Context::Receiver(0) });
    peer.expect_abort("the Disembargo that it asked for");
}

/// A Resolve that comes back twice, and a Disembargo or Resolve that never went out, end the connection.
/// Rules: 8.
#[test]
fn unimplemented_for_a_message_that_was_never_sent_aborts() {
    let never = [
        Msg::Resolve { promise: 0, to: Ok(Cap::Hosted(9)) },
        Msg::Disembargo { target: Target::Import(0), context: Context::Sender(9) },
    ];
    for message in never {
        let mut peer = Peer::new(Client::null());
        peer.send_wrong(Msg::Unimplemented(Box::new(message)));
        peer.expect_abort("9");
    }
}

/// A peer that was given a promise of ours, which then became `to`: the promise's ID, and the Resolve.
fn resolved_to(to: impl FnOnce(&mut Peer) -> Client) -> (Peer, u32, Msg) {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let to = to(&mut peer);
    let (promise, fulfiller) = Client::promise();
    let answer = send(&client, NOTE, 1, &[promise]);
    let call = peer.expect_call_of(1);
    let [Cap::Promise(id)] = call.params.caps[..] else { panic!("{call:?}") };
    peer.answer_keeping(call.question, Outcome::Results(Payload::new(1, &[])));
    wait(answer).unwrap();
    fulfiller.fulfill(to);
    let to = peer.expect_resolve(id);
    drop(client);
    peer.expect_release(7);
    (peer, id, Msg::Resolve { promise: id, to })
}

/// Sends a message of our side's back as unimplemented.
fn bounce(peer: &mut Peer, message: Msg) {
    peer.send(Msg::Unimplemented(Box::new(message)));
}

#[track_caller]
fn expect_unimplemented(answer: RemotePromise) {
    let outcome = answer.wait_timeout(peer::DEADLINE);
    let why = outcome.expect_err("an exception").into_failed().expect("an answer in time");
    assert_eq!(why.kind(), ExceptionKind::Unimplemented, "{why}");
}
