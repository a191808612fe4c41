//! Rule 2, the Tribble race: what was told by a `Resolve` or a `Return` is kept to for ever.
//!
//! Once a promise P of ours was resolved on the wire to R, all that still arrives addressed to P goes to R, even
//! if R is a promise that resolves on. And what the peer names as ours, but turns out to lead back to it, needs
//! an embargo, though it is on the same connection.

use capnp_threads::{Capability, Client};

use crate::support::*;

/// A promise R of the peer's (its export 20), a promise P of ours that is R, and an object of ours. The peer
/// holds P and the object, and was told that P is R.
struct Told {
    peer: Peer,
    recorder: Recorder,
    /// The peer's reference to the object.
    object: u32,
    /// The peer's reference to P.
    p: u32,
    /// Our client of R.
    r: Client,
}

impl Told {
    fn new() -> Self {
        let mut peer = Peer::new(Client::null());
        let recorder = Recorder::new();
        let object = peer.export_hosted(&recorder.client());
        let r = peer.introduce(Cap::Promise(20));
        let (ours, fulfiller) = Client::promise();
        let p = peer.export_promise(&ours);
        fulfiller.fulfill(r.clone());
        assert_eq!(peer.expect_resolve(p), Ok(Cap::Yours(20)));
        Told { peer, recorder, object, p, r }
    }

    /// The peer says that R is our object, of which nobody has made a call.
    fn resolve_r_to_here(&mut self) {
        self.peer.resolve(20, Cap::Yours(self.object));
        self.peer.expect_quiet();
        assert_eq!(self.r, self.recorder.client());
    }

    /// A call of the peer's on P.
    fn call_p(&mut self, tag: u64) -> u32 {
        self.peer.call(Target::Import(self.p), NOTE, tag).send()
    }

    fn end(self) {
        drop(self.r);
        self.peer.finish_clean();
    }
}

/// The next call comes back to `target` as a tail call; the peer takes the answer from there.
#[track_caller]
fn expect_reflected(peer: &mut Peer, question: u32, tag: u64, target: Target) {
    let back = peer.expect_call_of(tag);
    assert_eq!((back.target, back.yourself), (target, true));
    peer.answer(back.question, Outcome::Elsewhere);
    assert_eq!(peer.expect_return(question).outcome, Outcome::Take(back.question));
    peer.finish(question);
}

/// The peer passes a call that it was sent on to our object, and the answer back.
#[track_caller]
fn forward(peer: &mut Peer, call: &Call, object: u32) {
    let tag = call.params.tag;
    let forwarded = peer.call(Target::Import(object), NOTE, tag).send();
    peer.expect_done(forwarded, tag);
    peer.results(call.question, tag, &[]);
}

/// After a Resolve of P to R, calls on P go to R for ever, though R is resolved to an object of ours. R is not
/// released while P is held.
/// Rules: 2.
#[test]
fn export_resolved_to_an_import_sends_calls_there_after_that_resolves_on() {
    let mut test = Told::new();
    test.resolve_r_to_here();
    for tag in 1..=2 {
        let question = test.call_p(tag);
        expect_reflected(&mut test.peer, question, tag, Target::Import(20));
    }
    // Calls of ours go direct.
    wait(send(&test.r, NOTE, 10, &[])).unwrap();
    assert_eq!(test.recorder.log(), [10]);
    // The Disembargo takes the same way.
    let p = test.p;
    test.peer.disembargo(Target::Import(p), 3);
    assert_eq!(test.peer.expect_echo(3), Target::Import(20));
    let Told { mut peer, r, .. } = test;
    drop(r);
    peer.settle();
    assert_eq!(peer.given(20), 1, "held by what was told of P");
    peer.release(p, 1);
    assert_eq!(peer.expect_release(20), 1);
    peer.finish_clean();
}

/// A Return, too, resolves what calls were pipelined on: later pipelined calls go to R for ever.
/// Rules: 2.
#[test]
fn answer_returned_as_an_import_sends_calls_there_after_that_resolves_on() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let r = peer.introduce(Cap::Promise(20));
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let ahead = peer.call(Target::Answer(question, vec![0]), NOTE, 2).send();
    recorder.held().answer(1, std::slice::from_ref(&r));
    assert_eq!(peer.expect_results(question).caps, [Cap::Yours(20)]);
    expect_reflected(&mut peer, ahead, 2, Target::Import(20));
    peer.resolve(20, Cap::Yours(object));
    // Our answer went to the peer, so no call of ours is under way.
    peer.expect_quiet();
    let behind = peer.call(Target::Answer(question, vec![0]), NOTE, 3).send();
    expect_reflected(&mut peer, behind, 3, Target::Import(20));
    peer.disembargo(Target::Answer(question, vec![0]), 0);
    assert_eq!(peer.expect_echo(0), Target::Import(20));
    assert_eq!(recorder.log(), [1]);
    drop(r);
    peer.finish(question);
    assert_eq!(peer.expect_release(20), 1);
    peer.finish_clean();
}

/// R may be a capability in results that the peer owes us. The question is not finished while the promise that was
/// told to be there is held.
/// Rules: 2.
#[test]
fn export_resolved_to_unreturned_results_sends_calls_there_after_they_return() {
    let mut peer = Peer::new(Client::null());
    let recorder = Recorder::new();
    let object = peer.export_hosted(&recorder.client());
    let theirs = peer.introduce(Cap::Hosted(20));
    let asked = send(&theirs, GIVE, 1, &[]);
    let question = peer.expect_call_of(1).question;
    let r = asked.pipeline.field(0).client();
    let (ours, fulfiller) = Client::promise();
    let p = peer.export_promise(&ours);
    fulfiller.fulfill(r.clone());
    assert_eq!(peer.expect_resolve(p), Ok(Cap::YourAnswer(question, vec![0])));
    let first = peer.call(Target::Import(p), NOTE, 2).send();
    expect_reflected(&mut peer, first, 2, Target::Answer(question, vec![0]));
    peer.results(question, 1, &[Cap::Yours(object)]);
    wait(asked).unwrap();
    peer.expect_quiet();
    assert_eq!(r, recorder.client());
    let second = peer.call(Target::Import(p), NOTE, 3).send();
    expect_reflected(&mut peer, second, 3, Target::Answer(question, vec![0]));
    peer.disembargo(Target::Import(p), 8);
    assert_eq!(peer.expect_echo(8), Target::Answer(question, vec![0]));
    assert_eq!(recorder.log(), []);
    drop((r, theirs, ours));
    peer.release(p, 1);
    assert!(!peer.expect_finish(question));
    peer.finish_clean();
}

/// An answer that was told to be in results to come, where those turn out to hold nothing, and no Finish is needed
/// for them: the question's ID is free, and no call may go there.
/// Rules: 2.
#[test]
fn calls_for_results_that_ended_empty_fail_and_do_not_reach_the_reused_id() {
    for ended in [Outcome::Results(Payload::new(1, &[])), Outcome::Exception("there is none".into())] {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let theirs = peer.introduce(Cap::Hosted(20));
        let asked = send(&theirs, GIVE, 1, &[]);
        let owed = peer.expect_call_of(1).question;
        let question = peer.call(Target::Import(object), HOLD, 2).send();
        recorder.held().answer(2, &[asked.pipeline.field(0).client()]);
        assert_eq!(peer.expect_results(question).caps, [Cap::YourAnswer(owed, vec![0])]);
        peer.send(Msg::Return(Return {
            answer: owed,
            release_params: true,
            no_finish: true,
            outcome: ended,
        }));
        // The peer can't have known, when it sent this, that there is nothing.
        let call = peer.call(Target::Answer(question, vec![0]), NOTE, 3).send();
        peer.expect_exception(call, "");
        // The ID is used again by then.
        let other = send(&theirs, NOTE, 4, &[]);
        assert_eq!(peer.expect_call_of(4).question, owed);
        let call = peer.call(Target::Answer(question, vec![0]), NOTE, 5).send();
        peer.expect_exception(call, "");
        peer.results(owed, 4, &[]);
        wait(other).unwrap();
        drop((theirs, asked));
        peer.finish_clean();
    }
}

/// The peer says that its promise Q is P, before it knows that P leads back to it. Calls on Q are under way to P,
/// and so to the peer: new ones are embargoed.
/// Rules: 2.
#[test]
fn promise_resolved_to_an_export_that_leads_back_is_embargoed() {
    let mut test = Told::new();
    test.peer.resolve(20, Cap::Hosted(21));
    test.peer.sync();
    let q = test.peer.introduce(Cap::Promise(30));
    let first = send(&q, NOTE, 1, &[]);
    let call = test.peer.expect_call_of(1);
    let p = test.p;
    test.peer.resolve(30, Cap::Yours(p));
    let (target, embargo) = test.peer.expect_disembargo();
    assert_eq!(target, Target::Import(30));
    let second = send(&q, NOTE, 2, &[]);
    test.peer.expect_quiet();
    let forwarded = test.call_p(1);
    expect_reflected(&mut test.peer, forwarded, 1, Target::Import(20));
    test.peer.echo(Target::Import(p), embargo);
    let behind = test.peer.expect_call_of(2);
    for (call, answer) in [(call, first), (behind, second)] {
        test.peer.results(call.question, 0, &[]);
        wait(answer).unwrap();
    }
    drop(q);
    test.end();
}

/// By what the peer names P in [`calls_on_a_promise_resolved_to_an_export_that_leads_back_stay_in_order`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Named {
    Resolve,
    Return,
    Answer,
    AnswerToCome,
}

/// The peer says that its promise Q is P, and that R, which P was told to be, is an object of ours. Calls on Q that
/// were under way to P go on to R, in the peer, and come back from there; so those that waited for the echo wait
/// for a second one, of R, though we know what R is.
/// Rules: 2, 12.
#[test]
fn calls_on_a_promise_resolved_to_an_export_that_leads_back_stay_in_order() {
    for named in [Named::Resolve, Named::Return, Named::Answer, Named::AnswerToCome] {
        calls_stay_in_order(named);
    }
}

fn calls_stay_in_order(named: Named) {
    let mut test = Told::new();
    // An answer of ours that holds R, or will.
    let (door, p) = (Recorder::new(), test.p);
    let door_id = test.peer.export_hosted(&door.client());
    let question = test.peer.call(Target::Import(door_id), HOLD, 50).send();
    let held = door.held();
    if named == Named::Answer {
        held.answer(50, &[test.r.clone()]);
        assert_eq!(test.peer.expect_results(question).caps, [Cap::Yours(20)]);
        calls_stay_in_order_by(test, named, question, Target::Answer(question, vec![0]), None);
    } else if named == Named::AnswerToCome {
        calls_stay_in_order_by(test, named, question, Target::Answer(question, vec![0]), Some(held));
    } else {
        held.answer(50, &[]);
        test.peer.expect_done(question, 50);
        calls_stay_in_order_by(test, named, question, Target::Import(p), None);
    }
}

fn calls_stay_in_order_by(mut test: Told, named: Named, question: u32, target: Target, held: Option<Held>) {
    let (object, p) = (test.object, test.p);
    let theirs = test.peer.introduce(Cap::Hosted(21));
    // Q: an import, or a capability in results to come.
    let asked = send(&theirs, GIVE, 60, &[]);
    let owed = test.peer.expect_call_of(60).question;
    let q = match named {
        Named::Return => asked.pipeline.field(0).client(),
        _ => test.peer.introduce(Cap::Promise(30)),
    };
    let first = send(&q, NOTE, 1, &[]);
    let call = test.peer.expect_call_of(1);
    let name = match named {
        Named::Resolve | Named::Return => Cap::Yours(p),
        Named::Answer | Named::AnswerToCome => Cap::YourAnswer(question, vec![0]),
    };
    match named {
        Named::Return => test.peer.results(owed, 60, &[name]),
        _ => {
            test.peer.results(owed, 60, &[]);
            test.peer.resolve(30, name);
        }
    }
    let (_, embargo) = test.peer.expect_disembargo();
    if let Some(held) = held {
        held.answer(50, &[test.r.clone()]);
        assert_eq!(test.peer.expect_results(question).caps, [Cap::Yours(20)]);
    }
    let second = send(&q, NOTE, 2, &[]);
    test.resolve_r_to_here();
    // The peer forwards the first call and the Disembargo.
    let forwarded = test.peer.call(target.clone(), NOTE, 1).send();
    test.peer.echo(target, embargo);
    // The first call goes to R, and the others stay behind it.
    expect_reflected(&mut test.peer, forwarded, 1, Target::Import(20));
    let (target, embargo) = test.peer.expect_disembargo();
    assert_eq!(target, Target::Import(20), "{named:?}");
    assert_eq!(test.recorder.log(), [], "{named:?}");
    // And from there to our object.
    forward(&mut test.peer, &call, object);
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), [1], "{named:?}");
    test.peer.echo(Target::Import(object), embargo);
    test.recorder.expect(&[1, 2]);
    assert_eq!(q.resolve().unwrap(), test.recorder.client(), "{named:?}");
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    wait(asked).unwrap();
    drop((q, theirs));
    test.end();
}
