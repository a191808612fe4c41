//! `Finish`: what it cancels (rule 10), what it gives back (rule 5), and when it is late (rule 11).

use std::sync::Mutex;
use std::time::Instant;

use capnp_threads::{Call as Served, Capability, Client, Limits, Result, Server, Snapshot, Vat};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::*;

/// A Finish before the Return cancels. The method sees the flag, its callback runs, the wait that it is in ends
/// with an error, and the answer says `canceled`.
/// Rules: 10.
#[test]
fn finish_before_return_cancels_the_running_method() {
    let (to, seen) = unbounded();
    let nested = Mutex::new(None);
    let mut peer = Peer::new(Client::new(Nested { nested, seen: to }));
    let object = peer.get_bootstrap();
    let give = peer.call(Target::Import(object), 0, 0).caps(&[Cap::Hosted(7)]).send();
    peer.expect_done(give, 0);
    let question = peer.call(Target::Import(object), 1, 0).send();
    let inner = peer.expect_call_of(0);
    assert_eq!(next(&seen), "canceled: false");
    peer.finish(question);
    let mut then: Vec<String> = (0..3).map(|_| next(&seen)).collect();
    then.sort();
    assert_eq!(then[..2], ["callback", "canceled: true"]);
    assert!(then[2].contains("canceled by its caller"), "{then:?}");
    peer.expect_canceled(question);
    assert!(peer.expect_finish(inner.question), "what the method waited for is canceled too");
    peer.answer(inner.question, Outcome::Canceled);
    let let_go = peer.call(Target::Import(object), 2, 0).send();
    peer.expect_done(let_go, 0);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A Finish before the Return cancels a deferred call. An answer that is given later goes nowhere: its capabilities
/// are not exported.
/// Rules: 10.
#[test]
fn finish_before_return_cancels_a_deferred_call() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let held = recorder.held();
    assert!(!held.is_canceled());
    peer.finish(question);
    held.wait_canceled();
    peer.expect_canceled(question);
    held.answer(1, &[Recorder::new().client()]);
    assert_eq!(peer.vat.snapshot().exports(), 1, "the object that was called");
    peer.finish_clean();
}

/// The answer does not say `canceled` if the result was there already, though the peer had not seen it.
/// Rules: 10.
#[test]
fn finish_after_the_method_has_returned_does_not_change_the_return_to_canceled() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    recorder.held().answer(1, &[Recorder::new().client()]);
    // Sent before the Finish came, and not yet read by the peer.
    peer.finish(question);
    let ret = peer.expect_return(question);
    assert!(matches!(ret.outcome, Outcome::Results(_)), "{ret:?}");
    peer.wait_tables(|tables| tables.exports() == 1);
    peer.finish_clean();
}

/// A call that waits for its turn is canceled at once, and never reaches its method.
/// Rules: 10.
#[test]
fn finish_of_a_call_in_the_mailbox_cancels_it_before_its_method_runs() {
    let (object, mut peer, busy) = Turns::start();
    let waits = peer.call(Target::Import(object.id), 2, 0).send();
    peer.finish(waits);
    peer.expect_canceled(waits);
    object.go_on();
    peer.expect_done(busy, 0);
    let last = peer.call(Target::Import(object.id), 3, 0).send();
    assert_eq!(next(&object.entered), (3, false), "2 was never entered");
    object.go_on();
    peer.expect_done(last, 0);
    peer.finish_clean();
}

/// Where the peer sends `requireEarlyCancellationWorkaround`, the cancellation waits until the call has reached its
/// method.
/// Rules: 10.
#[test]
fn finish_with_the_workaround_delivers_a_waiting_call_before_canceling_it() {
    let (object, mut peer, busy) = Turns::start();
    let waits = peer.call(Target::Import(object.id), 2, 0).send();
    peer.send(Msg::Finish { question: waits, release: true, workaround: true });
    peer.settle();
    assert_eq!(peer.vat.snapshot().answers(), 2, "neither call is over");
    object.go_on();
    peer.expect_done(busy, 0);
    assert_eq!(next(&object.entered), (2, true), "delivered, and canceled by then");
    peer.expect_canceled(waits);
    object.go_on();
    peer.finish_clean();
}

/// A call that has reached its method is canceled at once, with the workaround as without.
/// Rules: 10.
#[test]
fn finish_with_the_workaround_cancels_a_delivered_call_at_once() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let held = recorder.held();
    peer.send(Msg::Finish { question, release: true, workaround: true });
    held.wait_canceled();
    peer.expect_canceled(question);
    peer.finish_clean();
}

/// A call on which others are pipelined goes on for them after its Finish; they get what it returns.
/// Rules: 10.
#[test]
fn finish_of_a_call_with_pipelined_calls_does_not_cancel_it() {
    let (recorder, inner) = (Recorder::new(), Recorder::new());
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 1).send();
    let second = peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    peer.finish(first);
    let held = recorder.held();
    peer.settle();
    assert!(!held.is_canceled());
    assert_eq!(peer.vat.snapshot().answers(), 2);
    held.answer(3, &[inner.client()]);
    peer.expect_canceled(first);
    peer.expect_done(second, 2);
    inner.expect(&[2]);
    assert_eq!(peer.vat.snapshot().exports(), 1, "the peer was given nothing");
    peer.finish_clean();
}

/// A call that was finished while calls were pipelined on it is canceled when the last of those is, in a chain too.
/// Rules: 10.
#[test]
fn finish_of_the_last_pipelined_call_cancels_the_finished_call_below_it() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 1).send();
    let second = peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    let third = peer.call(Target::Answer(second, vec![0]), NOTE, 3).send();
    let also = peer.call(Target::Answer(first, vec![1]), NOTE, 4).send();
    let held = recorder.held();
    for question in [first, second, third] {
        peer.finish(question);
    }
    for question in [third, second] {
        peer.expect_canceled(question);
    }
    peer.settle();
    assert!(!held.is_canceled(), "one call is still pipelined on it");
    peer.finish(also);
    peer.expect_canceled(also);
    held.wait_canceled();
    peer.expect_canceled(first);
    recorder.expect(&[1]);
    peer.finish_clean();
}

/// The cancellation goes on to the vat that a call was forwarded to.
/// Rules: 10.
#[test]
fn finish_of_a_forwarded_call_cancels_it_in_the_next_vat() {
    let mut far = Peer::new(Client::null());
    let mut near = Peer::new(far.introduce(Cap::Hosted(7)));
    let proxy = near.get_bootstrap();
    for no_pipelining in [false, true] {
        let call = near.call(Target::Import(proxy), NOTE, 1);
        let question = if no_pipelining { call.no_pipelining().send() } else { call.send() };
        let forwarded = far.expect_call_of(1);
        assert_eq!((forwarded.target, forwarded.no_pipelining), (Target::Import(7), no_pipelining));
        near.finish(question);
        near.expect_canceled(question);
        assert!(far.expect_finish(forwarded.question));
        far.results(forwarded.question, 1, &[Cap::Hosted(8)]);
        far.sync();
    }
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// Dropping a client cancels nothing, neither a call of ours on it nor one of the peer's.
/// Rules: 10.
#[test]
fn dropping_a_client_cancels_no_call_on_it() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    drop(client);
    let call = peer.expect_call_of(1);
    assert_eq!(peer.expect_release(7), 1);
    peer.results(call.question, 2, &[]);
    assert_eq!(wait(answer).unwrap().0, 2);

    let question = peer.call(Target::Import(object), HOLD, 3).send();
    peer.release(object, 1);
    let held = recorder.held();
    peer.settle();
    assert!(!held.is_canceled());
    held.answer(3, &[]);
    peer.expect_done(question, 3);
    peer.finish_clean();
}

/// A call of ours is canceled when neither the promise for its results is held, nor a pipeline, nor a client from
/// one. Our Finish never asks for the workaround: `expect_finish` checks that.
/// Rules: 10.
#[test]
fn call_of_ours_is_finished_when_promise_pipeline_and_clients_are_dropped() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    let promised = answer.pipeline.field(0).client();
    drop(answer);
    peer.settle();
    assert_eq!(peer.vat.snapshot().questions(), 1);
    drop(promised);
    assert!(peer.expect_finish(call.question));
    peer.answer(call.question, Outcome::Canceled);
    drop(client);
    peer.finish_clean();
}

/// `releaseResultCaps` gives back exactly what the results of that call gave.
/// Rules: 5.
#[test]
fn finish_with_release_result_caps_releases_exactly_the_exports_of_its_return() {
    let (recorder, a, b) = (Recorder::new(), Recorder::new().client(), Recorder::new().client());
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let questions = [1, 2, 3].map(|tag| {
        // The params give to us: that is no affair of the Finish.
        peer.call(Target::Import(object), HOLD, tag).caps(&[Cap::Hosted(7)]).send()
    });
    for _ in questions {
        let held = recorder.held();
        let theirs = held.caps[0].clone();
        held.answer(0, &[a.clone(), a.clone(), b.clone(), theirs]);
    }
    let results = questions.map(|question| peer.expect_results(question));
    assert_eq!(results[0].caps[3], Cap::Yours(7));
    assert_eq!(peer.vat.snapshot().export_references(), 1 + 9);
    peer.finish(questions[0]);
    peer.wait_tables(|tables| tables.export_references() == 1 + 6);
    peer.finish_keeping(questions[1]);
    peer.settle();
    peer.wait_tables(|tables| tables.export_references() == 1 + 6);
    assert_eq!(peer.vat.snapshot().exports(), 3);
    peer.finish_clean();
}

/// Results that would cross the limit on exports are not sent, and nothing of them is counted.
/// Rules: 5.
#[test]
fn results_above_the_limit_on_exports_are_not_sent_and_export_nothing() {
    let recorder = Recorder::new();
    let mut limits = Limits::default();
    limits.exports = 2;
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    recorder.held().answer(1, &[Recorder::new().client(), Recorder::new().client()]);
    peer.expect_exception(question, "limit of 2 exported capabilities");
    peer.finish(question);
    assert_eq!(peer.vat.snapshot().export_references(), 1);
    let question = peer.call(Target::Import(object), HOLD, 2).send();
    recorder.held().answer(2, &[Recorder::new().client()]);
    assert_eq!(peer.expect_results(question).caps, [Cap::Hosted(1)], "the ID is free as well");
    peer.finish_clean();
}

/// Params that would cross the limit on exports are not sent, and nothing of them is counted.
/// Rules: 5.
#[test]
fn params_above_the_limit_on_exports_are_not_sent_and_export_nothing() {
    let mut limits = Limits::default();
    limits.exports = 1;
    let mut peer = Peer::of(&Vat::new().limits(limits));
    let client = peer.introduce(Cap::Hosted(7));
    let (a, b) = (Recorder::new().client(), Recorder::new().client());
    let refused = send(&client, NOTE, 1, &[a.clone(), b]);
    assert!(wait_failed(refused).contains("limit of 1 exported capabilities"));
    assert!(peer.vat.snapshot().exports() == 0 && peer.vat.snapshot().questions() == 0);
    let answer = send(&client, NOTE, 2, &[a.clone(), a]);
    let call = peer.expect_call_of(2);
    assert_eq!((call.question, call.params.caps), (0, vec![Cap::Hosted(0); 2]));
    peer.results(call.question, 2, &[]);
    wait(answer).unwrap();
    drop(client);
    peer.finish_clean();
}

/// A message that is too large is not sent, and gives nothing: neither params nor results.
/// Rules: 5.
#[test]
fn message_that_is_too_large_is_not_sent_and_exports_nothing() {
    let recorder = Recorder::new();
    let mut limits = Limits::default();
    limits.message_words = 256;
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let many = vec![Recorder::new().client(); 100];
    let refused = send(&client, NOTE, 1, &many);
    assert!(wait_failed(refused).contains("256 are allowed"));
    let question = peer.call(Target::Import(object), HOLD, 2).send();
    recorder.held().answer(2, &many);
    peer.expect_exception(question, "256 are allowed");
    assert_eq!(peer.vat.snapshot().exports(), 1, "the bootstrap object");
    drop(client);
    peer.finish_clean();
}

/// Our Finish after the Return keeps the results' capabilities: they are given back by Release, once.
/// Rules: 5.
#[test]
fn results_received_before_our_finish_are_released_once_by_release() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    peer.results(call.question, 2, &[Cap::Hosted(8), Cap::Hosted(8), Cap::Promise(9)]);
    let (_, caps) = wait(answer).unwrap();
    assert!(!peer.expect_finish(call.question));
    drop(caps);
    assert_eq!(peer.expect_release(8), 2);
    assert_eq!(peer.expect_release(9), 1);
    drop(client);
    peer.finish_clean();
}

/// A Return with capabilities for a question that was finished with `releaseResultCaps` releases nothing a second
/// time, and makes no import.
/// Rules: 5.
#[test]
fn return_after_our_finish_releases_nothing_again_and_imports_nothing() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    drop(send(&client, NOTE, 1, &[]));
    let call = peer.expect_call_of(1);
    assert!(peer.expect_finish(call.question));
    // 7 is held besides: it must keep that one reference.
    peer.results(call.question, 2, &[Cap::Hosted(7), Cap::Hosted(8), Cap::Promise(9)]);
    peer.settle();
    assert_eq!(peer.vat.snapshot().import_references(), 1);
    assert_eq!(peer.given(7), 1);
    drop(client);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A Finish that comes after a Return with `noFinishNeeded` crossed it, and is ignored.
/// Rules: 11.
#[test]
fn finish_that_crosses_no_finish_needed_is_ignored() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), NOTE, 1).send();
    let ret = peer.expect_return(question);
    assert!(ret.no_finish, "results without capabilities");
    for workaround in [false, true] {
        peer.send_wrong(Msg::Finish { question, release: true, workaround });
        peer.settle();
        assert!(peer.vat.is_connected());
    }
    peer.finish_clean();
}

/// The late Finish of one call is not taken for that of the next with the same ID.
/// Rules: 11.
#[test]
fn late_finish_does_not_end_the_next_call_with_the_same_id() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), NOTE, 1).send();
    assert!(peer.expect_return(question).no_finish);
    peer.call(Target::Import(object), HOLD, 2).question(question).send();
    let held = recorder.held();
    peer.finish(question);
    held.wait_canceled();
    peer.expect_canceled(question);
    peer.send_wrong(Msg::Finish { question, release: true, workaround: false });
    peer.finish_clean();
}

/// A Finish for a question that was never asked ends the connection.
/// Rules: 11.
#[test]
fn finish_of_a_question_that_was_never_asked_aborts() {
    for asked in [false, true] {
        let mut peer = Peer::new(Client::null());
        if asked {
            peer.settle();
        }
        peer.send_wrong(Msg::Finish { question: 99, release: true, workaround: false });
        peer.expect_abort("Finish for question 99");
    }
}

/// A second Finish changes nothing, neither for a call that goes on nor for one that is over.
/// Rules: 11.
#[test]
fn second_finish_changes_nothing() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 1).send();
    let second = peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    let given = peer.call(Target::Import(object), HOLD, 3).send();
    let (held, giving) = (recorder.held(), recorder.held());
    giving.answer(3, &[recorder.client()]);
    peer.expect_results(given);
    for question in [first, given] {
        peer.finish(question);
        for (release, workaround) in [(true, false), (false, true)] {
            peer.send_wrong(Msg::Finish { question, release, workaround });
        }
    }
    peer.settle();
    assert!(!held.is_canceled(), "a call is pipelined on it");
    // What the peer asked for in order to settle may be given back a moment later.
    let once = |tables: &Snapshot| tables.export_references() == 1;
    assert!(
        peer.vat.wait_until(Instant::now() + peer::DEADLINE, once),
        "what the results gave is released once"
    );
    peer.finish(second);
    peer.expect_canceled(second);
    peer.expect_canceled(first);
    peer.finish_clean();
}

#[track_caller]
fn next<T>(seen: &Receiver<T>) -> T {
    seen.recv_timeout(peer::DEADLINE).expect("something happens")
}

/// Method 0 keeps the capability in its params, 1 calls it and says what it sees meanwhile, 2 lets go of it.
struct Nested {
    nested: Mutex<Option<Client>>,
    seen: Sender<String>,
}

impl Server for Nested {
    fn dispatch(&self, call: &mut Served) -> Result<()> {
        let say = |what: String| self.seen.send(what).unwrap();
        match call.method_id() {
            0 => *self.nested.lock().unwrap() = control::caps_of(call)?.pop(),
            1 => {
                let seen = self.seen.clone();
                call.cancellation().on_cancel(move || seen.send("callback".into()).unwrap());
                say(format!("canceled: {}", call.is_canceled()));
                let nested = self.nested.lock().unwrap().clone().expect("given before");
                let outcome = send(&nested, NOTE, 0, &[]).wait();
                say(format!("the wait ended: {}", outcome.expect_err("it is not answered")));
                say(format!("canceled: {}", call.is_canceled()));
            }
            _ => *self.nested.lock().unwrap() = None,
        }
        Ok(())
    }
}

/// An object whose methods keep their turn until they are told to go on.
struct Turns {
    entered: Sender<(u16, bool)>,
    leave: Receiver<()>,
}

/// The handle of such an object, as the peer sees it.
struct Driven {
    id: u32,
    entered: Receiver<(u16, bool)>,
    leave: Sender<()>,
}

impl Turns {
    /// An object that is busy with method 1, a peer of it, and the call's question.
    fn start() -> (Driven, Peer, u32) {
        let ((to, entered), (leave, left)) = (unbounded(), unbounded());
        let mut peer = Peer::new(Client::new(Turns { entered: to, leave: left }));
        let object = Driven { id: peer.get_bootstrap(), entered, leave };
        let busy = peer.call(Target::Import(object.id), 1, 0).send();
        assert_eq!(next(&object.entered), (1, false));
        (object, peer, busy)
    }
}

impl Driven {
    fn go_on(&self) {
        self.leave.send(()).unwrap();
    }
}

impl Server for Turns {
    fn dispatch(&self, call: &mut Served) -> Result<()> {
        self.entered.send((call.method_id(), call.is_canceled())).unwrap();
        self.leave.recv().unwrap();
        Ok(())
    }
}

/// The caller of a call that the peer says was canceled is told so.
/// Rules: 10.
#[test]
fn return_that_says_canceled_fails_the_call_as_canceled() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let question = peer.expect_call_of(1).question;
    peer.answer(question, Outcome::Canceled);
    let why = answer.wait_timeout(peer::DEADLINE).unwrap_err().into_failed().expect("an answer in time");
    assert!(why.is_canceled() && !why.is_timeout() && !why.is_disconnected(), "{why}");
    peer.expect_finish(question);
    drop(client);
    peer.finish_clean();
}
