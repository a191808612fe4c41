//! `Disembargo`, sent by the peer: rule 3.
//!
//! It is echoed only behind all calls that came before it, and only where its target leads back to the peer.

use capnp_threads::{Capability, Client, ClientFulfiller};

use crate::support::*;

/// A promise of ours that the peer holds as the export `id`, and an object of the peer's, its export 20.
struct Reflecting {
    peer: Peer,
    fulfiller: Option<ClientFulfiller>,
    theirs: Client,
    id: u32,
}

impl Reflecting {
    fn new() -> Self {
        let mut peer = Peer::new(Client::null());
        let theirs = peer.introduce(Cap::Hosted(20));
        let (ours, fulfiller) = Client::promise();
        let id = peer.export_promise(&ours);
        Reflecting { peer, fulfiller: Some(fulfiller), theirs, id }
    }

    /// Our promise is the peer's object.
    fn fulfill(&mut self) {
        self.fulfiller.take().unwrap().fulfill(self.theirs.clone());
    }

    /// The peer calls our promise.
    fn call(&mut self, tag: u64) -> u32 {
        self.peer.call(Target::Import(self.id), NOTE, tag).send()
    }

    /// The next call that comes back is this one, as a tail call; the peer takes it from there.
    fn expect_back(&mut self, question: u32, tag: u64) {
        let back = self.peer.expect_call_of(tag);
        assert_eq!(back.target, Target::Import(20));
        assert!(back.yourself, "a call forwarded to where it came from is a tail call");
        self.peer.answer(back.question, Outcome::Elsewhere);
        assert_eq!(self.peer.expect_return(question).outcome, Outcome::Take(back.question));
    }

    fn end(self) {
        drop(self.theirs);
        self.peer.finish_clean();
    }
}

/// The echo comes behind the calls that came before, and before those that came after, with the ID that the peer
/// chose, addressed to the peer's object.
/// Rules: 3.
#[test]
fn disembargo_echo_follows_earlier_calls_and_precedes_later_ones() {
    let mut test = Reflecting::new();
    test.fulfill();
    let id = test.id;
    assert_eq!(test.peer.expect_resolve(id), Ok(Cap::Yours(20)));
    let before = [test.call(1), test.call(2)];
    test.peer.disembargo(Target::Import(id), 77);
    let after = test.call(3);
    test.expect_back(before[0], 1);
    test.expect_back(before[1], 2);
    assert_eq!(test.peer.expect_echo(77), Target::Import(20));
    test.expect_back(after, 3);
    test.end();
}

/// Calls that waited in a promise are forwarded before the Resolve that tells the peer what it is; so they are
/// before any Disembargo for it.
/// Rules: 3.
#[test]
fn promise_fulfilled_with_the_peers_capability_forwards_waiting_calls_first() {
    let mut test = Reflecting::new();
    let waiting = [test.call(1), test.call(2)];
    test.peer.expect_quiet();
    test.fulfill();
    test.expect_back(waiting[0], 1);
    test.expect_back(waiting[1], 2);
    let id = test.id;
    assert_eq!(test.peer.expect_resolve(id), Ok(Cap::Yours(20)));
    test.peer.disembargo(Target::Import(id), 0);
    assert_eq!(test.peer.expect_echo(0), Target::Import(20));
    test.end();
}

/// Calls that waited in a promise which is fulfilled with another promise are forwarded before the Resolve.
/// Rules: 3.
#[test]
fn promise_fulfilled_with_another_promise_forwards_waiting_calls_first() {
    let mut test = Reflecting::new();
    let (inner, inner_fulfiller) = Client::promise();
    let first = test.call(1);
    test.fulfiller.take().unwrap().fulfill(inner);
    let second = test.call(2);
    // What it is, is not told before it is no promise of ours any more.
    test.peer.expect_quiet();
    inner_fulfiller.fulfill(test.theirs.clone());
    test.expect_back(first, 1);
    test.expect_back(second, 2);
    let id = test.id;
    assert_eq!(test.peer.expect_resolve(id), Ok(Cap::Yours(20)));
    test.peer.disembargo(Target::Import(id), 5);
    assert_eq!(test.peer.expect_echo(5), Target::Import(20));
    test.end();
}

/// A Disembargo for a capability in results, behind calls that were pipelined on them before they were there.
/// Rules: 3.
#[test]
fn disembargo_of_results_is_echoed_after_calls_pipelined_before_the_return() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let theirs = peer.introduce(Cap::Hosted(20));
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let promised = Target::Answer(question, vec![1]);
    let calls = [2, 3].map(|tag| peer.call(promised.clone(), NOTE, tag).send());
    recorder.held().answer(1, &[Client::null(), theirs.clone()]);
    assert_eq!(peer.expect_results(question), Payload::new(1, &[Cap::None, Cap::Yours(20)]));
    peer.disembargo(promised, 9);
    for (tag, call) in (2..).zip(calls) {
        let back = peer.expect_call_of(tag);
        assert_eq!((&back.target, back.yourself), (&Target::Import(20), true));
        peer.answer(back.question, Outcome::Elsewhere);
        assert_eq!(peer.expect_return(call).outcome, Outcome::Take(back.question));
    }
    assert_eq!(peer.expect_echo(9), Target::Import(20));
    drop(theirs);
    peer.finish_clean();
}

/// Results that were sent ahead of the answer (`set_pipeline`) keep calls and echo in order as well.
/// Rules: 3.
#[test]
fn disembargo_of_a_set_pipeline_is_echoed_after_the_calls_on_it() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), AHEAD, 1).caps(&[Cap::Hosted(20)]).send();
    let promised = Target::Answer(question, vec![0]);
    let held = recorder.held();
    let first = peer.call(promised.clone(), NOTE, 2).send();
    let back = peer.expect_call_of(2);
    let caps = held.caps.clone();
    held.answer(1, &caps);
    assert_eq!(peer.expect_results(question).caps, [Cap::Yours(20)]);
    let second = peer.call(promised.clone(), NOTE, 3).send();
    peer.disembargo(promised, 1);
    assert_eq!(peer.expect_return(first).outcome, Outcome::Take(back.question));
    let again = peer.expect_call_of(3);
    assert_eq!(peer.expect_return(second).outcome, Outcome::Take(again.question));
    assert_eq!(peer.expect_echo(1), Target::Import(20));
    peer.answer(again.question, Outcome::Elsewhere);
    peer.answer(back.question, Outcome::Elsewhere);
    drop(caps);
    peer.finish_clean();
}

/// Results that are those of a tail call to the peer lead back to it: the echo names the tail call's question.
/// Rules: 3.
#[test]
fn disembargo_of_tail_call_results_is_echoed_to_the_tail_question() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let theirs = peer.introduce(Cap::Hosted(20));
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let promised = Target::Answer(question, vec![0]);
    let first = peer.call(promised.clone(), NOTE, 2).send();
    recorder.held().tail_call(&theirs, NOTE, 1, &[]);
    let tail = peer.expect_call_of(1);
    assert_eq!(peer.expect_return(question).outcome, Outcome::Take(tail.question));
    peer.disembargo(promised, 3);
    let back = peer.expect_call_of(2);
    assert_eq!(back.target, Target::Answer(tail.question, vec![0]));
    assert_eq!(peer.expect_return(first).outcome, Outcome::Take(back.question));
    assert_eq!(peer.expect_echo(3), Target::Answer(tail.question, vec![0]));
    peer.answer(tail.question, Outcome::Elsewhere);
    peer.answer(back.question, Outcome::Elsewhere);
    drop(theirs);
    peer.finish_clean();
}

/// The target of a Disembargo must lead back to the peer: any other target is an error of the peer's.
/// Rules: 3.
#[test]
fn disembargo_of_an_export_that_does_not_lead_back_aborts() {
    let here = Recorder::new();
    let to_peer_of_another = |other: &mut Peer| other.introduce(Cap::Hosted(5));
    let mut other = Peer::new(Client::null());
    let (promise, fulfiller) = Client::promise();
    for (what, client) in
        [("here", here.client()), ("elsewhere", to_peer_of_another(&mut other)), ("a promise", promise)]
    {
        let mut peer = Peer::new(Client::null());
        let (Cap::Hosted(id) | Cap::Promise(id)) = peer.export(&client) else { panic!("{what}") };
        peer.disembargo(Target::Import(id), 0);
        peer.expect_abort("does not resolve to a capability of the sender's");
    }
    drop(fulfiller);
    other.finish_clean();
}

/// Targets in answers that are not there yet, that failed, or that hold no capability or one of ours at that place.
/// Rules: 3.
#[test]
fn disembargo_of_results_that_do_not_lead_back_aborts() {
    for case in 0..4 {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let question = peer.call(Target::Import(object), HOLD, 1).send();
        let held = recorder.held();
        match case {
            0 => {}
            1 => held.fail("no"),
            2 => held.answer(1, &[]),
            _ => held.answer(1, &[Client::null(), recorder.client()]),
        }
        if case > 0 {
            peer.expect_return(question);
        }
        let field = if case == 3 { 1 } else { 0 };
        let target = Target::Answer(question, vec![field]);
        peer.send_wrong(Msg::Disembargo { target, context: Context::Sender(0) });
        peer.expect_abort(if case == 2 { "promised answer" } else { "does not resolve" });
    }
}

/// A target that does not exist is an error of the peer's.
/// Rules: 3.
#[test]
fn disembargo_of_a_target_that_does_not_exist_aborts() {
    for (target, why) in
        [(Target::Import(99), "not in the export table"), (Target::Answer(99, vec![]), "promised answer")]
    {
        let mut peer = Peer::new(Client::null());
        peer.send_wrong(Msg::Disembargo { target, context: Context::Sender(0) });
        peer.expect_abort(why);
    }
}
