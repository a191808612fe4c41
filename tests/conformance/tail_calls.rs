//! Tail calls, in both roles: rule 4. `sendResultsTo.yourself`, `resultsSentElsewhere` and
//! `takeFromOtherQuestion`, with cancellation in each order.

use capnp_threads::{Capability, Client, ClientFulfiller, RemotePromise};

use crate::support::*;

/// A method that hands its call on to its caller has the caller keep the results.
/// Rules: 4.
#[test]
fn tail_call_to_its_caller_has_the_caller_keep_the_results() {
    let (mut peer, _, call, held) = called();
    let tail = tail_call(&mut peer, call, held);
    assert_eq!(tail.target, Target::Import(7));
    assert_eq!(peer.expect_release(7), 1);
    peer.answer(tail.question, Outcome::Elsewhere);
    peer.sync();
    assert_eq!(peer.vat.snapshot().questions(), 1, "its results can be called until the caller is done");
    peer.finish(call);
    assert!(!peer.expect_finish(tail.question), "what the results hold is the peer's own affair");
    peer.finish_clean();
}

/// Calls pipelined on an answer that became a tail call go to the question of that, before and after it was
/// returned, in order, as tail calls themselves.
/// Rules: 4.
#[test]
fn calls_pipelined_on_a_tail_call_go_to_the_tail_question_in_order() {
    let (mut peer, _, call, held) = called();
    let early = peer.call(Target::Answer(call, vec![0]), NOTE, 10).send();
    peer.settle();
    let tail = tail_call(&mut peer, call, held);
    reflected(&mut peer, early, 10, &Target::Answer(tail.question, vec![0]));
    for (tag, path) in [(11, vec![0]), (12, vec![3, 1])] {
        let late = peer.call(Target::Answer(call, path.clone()), NOTE, tag).send();
        reflected(&mut peer, late, tag, &Target::Answer(tail.question, path));
        if tag == 11 {
            peer.answer(tail.question, Outcome::Elsewhere);
        }
    }
    peer.finish(call);
    assert!(!peer.expect_finish(tail.question));
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A Finish of the caller before the tail call was returned cancels that.
/// Rules: 4.
#[test]
fn finish_before_results_sent_elsewhere_cancels_the_tail_call() {
    for outcome in [Outcome::Elsewhere, Outcome::Canceled, Outcome::Exception("canceled".into())] {
        let (mut peer, _, call, held) = called();
        let tail = tail_call(&mut peer, call, held);
        peer.finish(call);
        assert!(peer.expect_finish(tail.question));
        assert_eq!(peer.vat.snapshot().questions(), 1, "its ID is in use until the Return");
        peer.answer(tail.question, outcome);
        peer.sync();
        assert_eq!(peer.vat.snapshot().questions(), 0);
        assert_eq!(peer.expect_release(7), 1);
        peer.finish_clean();
    }
}

/// A call that was canceled before its method hands it on goes nowhere.
/// Rules: 4.
#[test]
fn call_canceled_before_its_tail_call_is_not_handed_on() {
    let (mut peer, _, call, held) = called();
    peer.finish(call);
    peer.expect_canceled(call);
    let to = held.caps[0].clone();
    held.tail_call(&to, NOTE, 2, &[]);
    drop(to);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A call that its caller has finished, and that goes on for one pipelined on it, takes no results from another
/// question: it is handed on as a plain call. The pipelined one is a tail call.
/// Rules: 4.
#[test]
fn finished_call_with_pipelined_calls_is_handed_on_as_a_plain_call() {
    let (mut peer, _, call, held) = called();
    let early = peer.call(Target::Answer(call, vec![0]), NOTE, 10).send();
    peer.finish(call);
    peer.settle();
    let to = held.caps[0].clone();
    held.tail_call(&to, NOTE, 2, &[]);
    drop(to);
    let plain = peer.expect_call_of(2);
    assert!(!plain.yourself, "nobody takes the results");
    let back = peer.expect_call_of(10);
    assert_eq!((back.target, back.yourself), (Target::Answer(plain.question, vec![0]), true));
    peer.expect_canceled(call);
    assert_eq!(peer.expect_return(early).outcome, Outcome::Take(back.question));
    assert!(peer.expect_finish(plain.question));
    peer.answer(plain.question, Outcome::Canceled);
    peer.answer(back.question, Outcome::Elsewhere);
    peer.finish(early);
    peer.expect_finish(back.question);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A tail call gives the params' capabilities like any call, and its Return may give them back.
/// Rules: 4.
#[test]
fn return_of_a_tail_call_releases_its_params_as_it_says() {
    let (mut peer, object, call, held) = called();
    let (to, ours) = (held.caps[0].clone(), Recorder::new().client());
    held.tail_call(&to, NOTE, 2, &[ours.clone(), ours]);
    drop(to);
    let tail = peer.expect_call_of(2);
    assert!(
        matches!(tail.params.caps[..], [Cap::Hosted(id), Cap::Hosted(same)] if id == same && id != object)
    );
    assert_eq!(peer.expect_return(call).outcome, Outcome::Take(tail.question));
    assert_eq!(peer.vat.snapshot().export_references(), 3);
    peer.answer(tail.question, Outcome::Elsewhere);
    peer.sync();
    assert_eq!(peer.vat.snapshot().export_references(), 1);
    peer.finish(call);
    assert!(!peer.expect_finish(tail.question));
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A tail call may be returned with its exception, which is what calls pipelined on the answer get then.
/// Rules: 4.
#[test]
fn tail_call_returned_with_an_exception_fails_its_pipelined_calls_with_it() {
    let (mut peer, _, call, held) = called();
    let tail = tail_call(&mut peer, call, held);
    peer.answer(tail.question, Outcome::Exception("no luck".into()));
    peer.sync();
    let late = peer.call(Target::Answer(call, vec![0]), NOTE, 10).send();
    peer.expect_exception(late, "no luck");
    peer.finish(late);
    peer.finish(call);
    assert!(!peer.expect_finish(tail.question));
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// Results that were to be kept can't be sent in the Return.
/// Rules: 4.
#[test]
fn return_with_results_for_a_tail_call_aborts() {
    let (mut peer, _, call, held) = called();
    let tail = tail_call(&mut peer, call, held);
    peer.send_wrong(wrong_return(tail.question, Outcome::Results(Payload::new(2, &[]))));
    peer.expect_abort("although they were to be kept");
}

/// Results that were not to be kept can't be sent elsewhere.
/// Rules: 4.
#[test]
fn results_sent_elsewhere_for_a_plain_call_abort() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    peer.send_wrong(wrong_return(call.question, Outcome::Elsewhere));
    assert!(wait_failed(answer).contains("unasked"));
    peer.expect_abort("unasked");
}

/// The other role: the peer answers our question with results that we keep for it. They may be there when the
/// Return takes them, or not yet.
/// Rules: 4.
#[test]
fn kept_results_are_taken_whether_they_exist_already_or_come_later() {
    for there in [true, false] {
        let mut ours = Ours::start();
        let object = Recorder::new().client();
        let mut held = Some(ours.recorder.held());
        if there {
            held.take().unwrap().answer(3, &[object.clone(), ours.client.clone()]);
            ours.peer.sync();
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        ours.peer.answer(ours.question, Outcome::Take(ours.kept));
        if let Some(held) = held {
            ours.peer.settle();
            held.answer(3, &[object.clone(), ours.client.clone()]);
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        let (tag, caps) = wait(ours.answer).unwrap();
        assert_eq!((tag, &caps[..]), (3, &[object, ours.client.clone()][..]), "they never left");
        drop(caps);
        ours.peer.expect_finish(ours.question);
        assert_eq!(ours.peer.vat.snapshot().exports(), 1, "none of it was exported");
        ours.peer.finish(ours.kept);
        drop(ours.client);
        assert_eq!(ours.peer.expect_release(7), 1);
        ours.peer.finish_clean();
    }
}

/// An exception that is kept is taken like results.
/// Rules: 4.
#[test]
fn kept_exception_is_taken_like_results() {
    for there in [true, false] {
        let mut ours = Ours::start();
        let mut held = Some(ours.recorder.held());
        if there {
            held.take().unwrap().fail("no luck");
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        ours.peer.answer(ours.question, Outcome::Take(ours.kept));
        if let Some(held) = held {
            ours.peer.settle();
            held.fail("no luck");
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        assert!(wait_failed(ours.answer).contains("no luck"));
        ours.peer.expect_finish(ours.question);
        ours.peer.finish(ours.kept);
        drop(ours.client);
        ours.peer.finish_clean();
    }
}

/// Calls pipelined on our question before its results were taken here come back first; later ones wait for the
/// Disembargo.
/// Rules: 4, 1.
#[test]
fn calls_pipelined_on_results_that_are_taken_here_keep_their_order() {
    let mut ours = Ours::start();
    let other = Recorder::new();
    let promised = ours.answer.pipeline.field(0).client();
    let first = send(&promised, NOTE, 10, &[]);
    let call = ours.peer.expect_call_of(10);
    assert_eq!(call.target, Target::Answer(ours.question, vec![0]));
    ours.recorder.held().answer(3, &[other.client()]);
    ours.peer.answer(ours.question, Outcome::Take(ours.kept));
    let (target, embargo) = ours.peer.expect_disembargo();
    assert_eq!(target, Target::Answer(ours.question, vec![0]));
    let second = send(&promised, NOTE, 11, &[]);
    let kept = Target::Answer(ours.kept, vec![0]);
    let back = ours.peer.call(kept.clone(), NOTE, 10).yourself().send();
    ours.peer.answer(call.question, Outcome::Take(back));
    ours.peer.echo(kept, embargo);
    assert_eq!((wait(first).unwrap().0, wait(second).unwrap().0), (10, 11));
    other.expect(&[10, 11]);
    for kept in [ours.kept, back] {
        assert_eq!(ours.peer.expect_return(kept).outcome, Outcome::Elsewhere);
        ours.peer.finish(kept);
    }
    wait(ours.answer).unwrap();
    drop((promised, ours.client));
    ours.peer.finish_clean();
}

/// The Finish of a call whose results are taken but not there does not cancel it.
/// Rules: 4.
#[test]
fn finish_of_a_call_whose_results_are_taken_does_not_cancel_it() {
    let mut ours = Ours::start();
    ours.peer.answer(ours.question, Outcome::Take(ours.kept));
    ours.peer.finish(ours.kept);
    let held = ours.recorder.held();
    ours.peer.settle();
    assert!(!held.is_canceled());
    held.answer(3, &[]);
    assert_eq!(wait(ours.answer).unwrap().0, 3);
    assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
    ours.peer.expect_finish(ours.question);
    drop(ours.client);
    ours.peer.finish_clean();
}

/// Kept results that no question has taken are dropped by the Finish. A call that has not returned is canceled by
/// it.
/// Rules: 4.
#[test]
fn finish_of_a_kept_call_drops_its_results_or_cancels_it() {
    for there in [true, false] {
        let mut ours = Ours::start();
        let held = ours.recorder.held();
        if there {
            held.answer(3, &[Recorder::new().client()]);
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
            ours.peer.finish(ours.kept);
        } else {
            ours.peer.finish(ours.kept);
            held.wait_canceled();
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        ours.peer.results(ours.question, 4, &[]);
        assert_eq!(wait(ours.answer).unwrap().0, 4);
        drop(ours.client);
        ours.peer.finish_clean();
    }
}

/// Results are taken once; results that are unknown or were not to be kept are not taken at all.
/// Rules: 4.
#[test]
fn taking_results_twice_or_that_are_not_kept_aborts() {
    for there in [true, false] {
        let mut ours = Ours::start();
        let second = send(&ours.client, NOTE, 5, &[]);
        let call = ours.peer.expect_call_of(5);
        let held = ours.recorder.held();
        ours.peer.answer(ours.question, Outcome::Take(ours.kept));
        let mut held = Some(held);
        if there {
            held.take().unwrap().answer(3, &[]);
            wait(ours.answer).unwrap();
        }
        ours.peer.send_wrong(wrong_return(call.question, Outcome::Take(ours.kept)));
        assert!(wait_failed(second).contains("holds none for it"), "taken twice");
        ours.peer.expect_abort("holds none for it");
    }
    let mut ours = Ours::start();
    ours.peer.send_wrong(wrong_return(ours.question, Outcome::Take(1000)));
    ours.peer.expect_abort("holds none for it");
    let mut ours = Ours::start();
    let object = ours.object;
    let plain = ours.peer.call(Target::Import(object), HOLD, 6).send();
    ours.peer.send_wrong(wrong_return(ours.question, Outcome::Take(plain)));
    ours.peer.expect_abort("holds none for it");
}

/// While the results that answer our question are not there, a second Return for it is one too many.
/// Rules: 4.
#[test]
fn second_return_after_take_from_other_question_aborts() {
    let mut ours = Ours::start();
    ours.peer.answer(ours.question, Outcome::Take(ours.kept));
    ours.peer.send_wrong(wrong_return(ours.question, Outcome::Results(Payload::new(3, &[]))));
    assert!(wait_failed(ours.answer).contains("second Return"));
    ours.peer.expect_abort("second Return");
}

/// We cancel our question before the Return that takes results comes; in each order with the Finish of the kept
/// call.
/// Rules: 4.
#[test]
fn our_finish_before_take_from_other_question_cancels_in_each_order() {
    for finish_first in [true, false] {
        let mut ours = Ours::start();
        let held = ours.recorder.held();
        drop(ours.answer);
        assert!(ours.peer.expect_finish(ours.question));
        if finish_first {
            ours.peer.finish(ours.kept);
            held.wait_canceled();
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
            ours.peer.answer(ours.question, Outcome::Take(ours.kept));
        } else {
            ours.peer.answer(ours.question, Outcome::Take(ours.kept));
            ours.peer.finish(ours.kept);
            held.wait_canceled();
            assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        }
        drop(ours.client);
        ours.peer.finish_clean();
    }
}

/// We cancel our question after the Return that takes results, which are not there yet: our Finish ends the
/// question, and the peer's Finish, before or after ours, the call.
/// Rules: 4.
#[test]
fn our_finish_after_take_from_other_question_ends_the_question_in_each_order() {
    for finish_first in [true, false] {
        let mut ours = Ours::start();
        let held = ours.recorder.held();
        ours.peer.answer(ours.question, Outcome::Take(ours.kept));
        if finish_first {
            ours.peer.finish(ours.kept);
        }
        ours.peer.settle();
        assert!(!held.is_canceled());
        drop(ours.answer);
        ours.peer.expect_finish(ours.question);
        if !finish_first {
            ours.peer.settle();
            assert!(!held.is_canceled(), "it is the peer's call");
            ours.peer.finish(ours.kept);
        }
        held.wait_canceled();
        assert_eq!(ours.peer.expect_return(ours.kept).outcome, Outcome::Elsewhere);
        drop(ours.client);
        ours.peer.finish_clean();
    }
}

/// A plain call on a promise of ours that has become the peer's capability is a tail call, held back or not.
/// Rules: 4.
#[test]
fn call_forwarded_to_the_vat_that_it_came_from_is_a_tail_call() {
    let (mut peer, client, promise, fulfiller) = exported_promise();
    let early = peer.call(Target::Import(promise), NOTE, 5).send();
    peer.settle();
    fulfiller.fulfill(client.clone());
    reflected(&mut peer, early, 5, &Target::Import(7));
    assert_eq!(peer.expect_resolve(promise), Ok(Cap::Yours(7)));
    let late = peer.call(Target::Import(promise), NOTE, 6).send();
    reflected(&mut peer, late, 6, &Target::Import(7));
    drop(client);
    peer.finish_clean();
}

/// A call on results of ours that are the peer's capability is a tail call, too.
/// Rules: 4.
#[test]
fn call_on_results_that_are_the_peers_capability_is_a_tail_call() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    let give = peer.call(Target::Import(object), GIVE, 1).caps(&[Cap::Hosted(7)]).send();
    let call = peer.call(Target::Answer(give, vec![0]), NOTE, 2).send();
    reflected(&mut peer, call, 2, &Target::Import(7));
    assert_eq!(peer.expect_results(give), Payload::new(1, &[Cap::Yours(7)]));
    peer.finish(give);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A call whose results are to be kept here is no tail call when it goes back: its results come here.
/// Rules: 4.
#[test]
fn kept_call_forwarded_to_the_vat_that_it_came_from_is_no_tail_call() {
    let (mut peer, client, promise, fulfiller) = exported_promise();
    fulfiller.fulfill(client.clone());
    assert_eq!(peer.expect_resolve(promise), Ok(Cap::Yours(7)));
    let kept = peer.call(Target::Import(promise), NOTE, 5).yourself().send();
    let back = peer.expect_call_of(5);
    assert_eq!((back.target, back.yourself), (Target::Import(7), false));
    let answer = send(&client, NOTE, 8, &[]);
    let ours = peer.expect_call_of(8);
    peer.answer(ours.question, Outcome::Take(kept));
    peer.results(back.question, 9, &[]);
    assert_eq!(peer.expect_return(kept).outcome, Outcome::Elsewhere);
    assert_eq!(wait(answer).unwrap().0, 9);
    peer.expect_finish(ours.question);
    peer.finish(kept);
    drop(client);
    peer.finish_clean();
}

/// A call that is forwarded to another vat is no tail call.
/// Rules: 4.
#[test]
fn call_forwarded_to_another_vat_is_no_tail_call() {
    let mut far = Peer::new(Client::null());
    let mut near = Peer::new(far.introduce(Cap::Hosted(7)));
    let proxy = near.get_bootstrap();
    let call = near.call(Target::Import(proxy), NOTE, 1).send();
    let forwarded = far.expect_call_of(1);
    assert!(!forwarded.yourself);
    far.results(forwarded.question, 2, &[]);
    near.expect_done(call, 2);
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// A call of the peer's that an object of ours holds, with capability 7 of the peer's: the object, and the question.
fn called() -> (Peer, u32, u32, Held) {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    let held = recorder.held();
    (peer, object, call, held)
}

/// Hands such a call on to the capability in its params: first the Call goes out, then the Return.
#[track_caller]
fn tail_call(peer: &mut Peer, call: u32, held: Held) -> Call {
    let to = held.caps[0].clone();
    held.tail_call(&to, NOTE, 2, &[]);
    let tail = peer.expect_call_of(2);
    assert!(tail.yourself);
    assert_eq!(peer.expect_return(call).outcome, Outcome::Take(tail.question));
    tail
}

/// Expects that a call of the peer's comes back as a tail call, and ends both.
#[track_caller]
fn reflected(peer: &mut Peer, call: u32, tag: u64, target: &Target) {
    let back = peer.expect_call_of(tag);
    assert_eq!((&back.target, back.yourself), (target, true));
    assert_eq!(peer.expect_return(call).outcome, Outcome::Take(back.question));
    peer.answer(back.question, Outcome::Elsewhere);
    peer.finish(call);
    peer.expect_finish(back.question);
}

fn wrong_return(answer: u32, outcome: Outcome) -> Msg {
    Msg::Return(Return { answer, release_params: true, no_finish: false, outcome })
}

/// A promise of ours that the peer holds, and a client of the peer's capability 7.
fn exported_promise() -> (Peer, Client, u32, ClientFulfiller) {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let (promise, fulfiller) = Client::promise();
    let answer = send(&client, NOTE, 1, &[promise]);
    let call = peer.expect_call_of(1);
    let [Cap::Promise(id)] = call.params.caps[..] else { panic!("{call:?}") };
    peer.answer_keeping(call.question, Outcome::Results(Payload::new(1, &[])));
    wait(answer).unwrap();
    (peer, client, id, fulfiller)
}

/// A question of ours for which the peer has sent a call back, with the results to be kept here.
struct Ours {
    peer: Peer,
    recorder: Recorder,
    object: u32,
    client: Client,
    answer: RemotePromise,
    question: u32,
    /// The peer's call.
    kept: u32,
}

impl Ours {
    fn start() -> Self {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let client = peer.introduce(Cap::Hosted(7));
        let answer = send(&client, NOTE, 1, &[]);
        let question = peer.expect_call_of(1).question;
        let kept = peer.call(Target::Import(object), HOLD, 2).yourself().send();
        Ours { peer, recorder, object, client, answer, question, kept }
    }
}
