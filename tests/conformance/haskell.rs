//! The errors of the Haskell source that are not carried over: for each a test that fails if the error is put back
//! in, which was tried with each. In the order of `RULES.md`, H1 to H11.

use std::time::Duration;

use capnp_threads::{Call as Served, Capability, Client, ExceptionKind, Limits, Result, Server, Vat};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::*;

/// The error: an embargo takes its ID from the pool of questions, so that with question 0 in use it is not 0.
/// Rules: H1.
#[test]
fn embargo_with_question_0_in_use_has_id_0() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let promise = peer.introduce(Cap::Promise(5));
    let answer = send(&promise, NOTE, 1, &[]);
    assert_eq!(peer.expect_call_of(1).question, 0);
    peer.resolve(5, Cap::Yours(object));
    assert_eq!(peer.expect_disembargo(), (Target::Import(5), 0));
    let client = peer.introduce(Cap::Hosted(7));
    let next = send(&client, NOTE, 2, &[]);
    assert_eq!(peer.expect_call_of(2).question, 1, "the next number after 0");
    peer.echo(Target::Import(object), 0);
    for question in [0, 1] {
        peer.results(question, 0, &[]);
    }
    drop((promise, answer, client, next));
    peer.finish_clean();
}

/// The error: an embargo gives its ID back to the pool of exports, so that the number of an export in use is given
/// out a second time.
/// Rules: H1.
#[test]
fn lifted_embargo_does_not_free_the_export_with_the_same_id() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    assert_eq!(object, 0);
    let promise = peer.introduce(Cap::Promise(5));
    let answer = send(&promise, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    peer.resolve(5, Cap::Yours(object));
    let (_, embargo) = peer.expect_disembargo();
    peer.echo(Target::Import(object), embargo);
    let client = peer.introduce(Cap::Hosted(7));
    let objects = [Recorder::new().client(), Recorder::new().client()];
    let next = send(&client, NOTE, 2, &objects);
    let exports = peer.expect_call_of(2);
    assert_eq!(exports.params.caps, [Cap::Hosted(1), Cap::Hosted(2)]);
    for question in [call.question, exports.question] {
        peer.results(question, 0, &[]);
    }
    drop((promise, answer, client, next));
    peer.finish_clean();
}

/// The error: the Finish of a Bootstrap looks for `receiverHosted` in the results, which are `senderHosted`, and
/// releases nothing.
/// Rules: H2.
#[test]
fn finish_of_a_bootstrap_releases_the_exports_of_its_results() {
    let mut peer = Peer::new(Recorder::new().client());
    let question = peer.bootstrap();
    assert_eq!(peer.expect_results(question).caps, [Cap::Hosted(0)]);
    peer.finish(question);
    peer.wait_tables(|tables| tables.exports() == 0);
    peer.finish_clean();
}

/// The error: the Finish of a Call releases what stands in the descriptors of its params. Here these name the
/// object that is called, which the peer goes on holding; the results hold another.
/// Rules: H2.
#[test]
fn finish_of_a_call_releases_the_exports_of_its_results_not_of_its_params() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Yours(object)]).send();
    recorder.held().answer(1, &[Recorder::new().client()]);
    assert_eq!(peer.expect_results(question).caps, [Cap::Hosted(1)]);
    assert_eq!(peer.vat.snapshot().export_references(), 2);
    peer.finish(question);
    peer.wait_tables(|tables| tables.export_references() == 1);
    let call = peer.call(Target::Import(object), NOTE, 2).send();
    peer.expect_done(call, 2);
    peer.finish_clean();
}

/// The error: of what a Resolve for a promise that was released brings, `senderHosted` and `senderPromise` are not
/// released; instead a `receiverHosted` is, which gave nothing.
/// Rules: H3.
#[test]
fn resolve_of_a_released_promise_releases_hosted_and_promise_capabilities() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    for cap in [Cap::Hosted(6), Cap::Promise(6), Cap::Yours(object)] {
        drop(peer.introduce(Cap::Promise(5)));
        assert_eq!(peer.expect_release(5), 1);
        // As the peer sends it that has not read the Release.
        peer.resolve(5, cap.clone());
        if cap.counts().is_some() {
            assert_eq!(peer.expect_release(6), 1);
        }
        // The account refuses a Release of what was not given.
        peer.settle();
    }
    peer.finish_clean();
}

/// The error: any `unimplemented` ends the connection, but for `unimplemented` itself and an Abort of the peer's.
/// Rules: H4.
#[test]
fn unimplemented_for_each_message_that_was_sent_does_not_abort() {
    let mut peer = Peer::new(Recorder::new().client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let promise = peer.introduce(Cap::Promise(5));
    let (resolver, fulfiller) = Client::promise();

    let bootstrap = peer.vat.bootstrap::<Client>();
    let question = peer.expect_bootstrap();
    peer.send(Msg::Unimplemented(Box::new(Msg::Bootstrap(question))));
    assert_eq!(bootstrap.resolve().unwrap_err().kind(), ExceptionKind::Unimplemented);

    let answer = send(&promise, NOTE, 1, &[resolver]);
    let call = peer.expect_call_of(1);
    let [Cap::Promise(id)] = call.params.caps[..] else { panic!("{call:?}") };
    fulfiller.fulfill(Recorder::new().client());
    let to = peer.expect_resolve(id);
    peer.send(Msg::Unimplemented(Box::new(Msg::Resolve { promise: id, to })));

    peer.resolve(5, Cap::Yours(object));
    let (target, embargo) = peer.expect_disembargo();
    let context = Context::Sender(embargo);
    peer.send(Msg::Unimplemented(Box::new(Msg::Disembargo { target, context })));

    peer.send(Msg::Unimplemented(Box::new(Msg::Call(call))));
    assert!(wait_failed(answer).contains("unimplemented"));
    drop(promise);
    let count = peer.expect_release(5);
    peer.send(Msg::Unimplemented(Box::new(Msg::Release { id: 5, count })));
    peer.sync();
    assert!(peer.vat.is_connected());
    drop(client);
    peer.finish_clean();
}

/// The error: `sendResultsTo` is ignored: the results of a call that asked to have them kept are sent all the same,
/// and there is nothing to take when the peer says that they answer another question.
/// Rules: H5.
#[test]
fn results_of_a_call_to_be_kept_are_kept_and_taken_by_another_question() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    let question = peer.call(Target::Import(object), NOTE, 2).yourself().send();
    assert_eq!(peer.expect_return(question).outcome, Outcome::Elsewhere);
    peer.answer(call.question, Outcome::Take(question));
    assert_eq!(wait(answer).unwrap().0, 2);
    peer.finish(question);
    drop(client);
    peer.finish_clean();
}

/// The error: a Finish never cancels: the call goes on, and its results are sent.
/// Rules: H6.
#[test]
fn finish_of_a_running_call_returns_canceled() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).send();
    let held = recorder.held();
    peer.finish(question);
    peer.expect_canceled(question);
    assert!(held.is_canceled());
    peer.finish_clean();
}

/// The error: a promise that is received again counts no further local reference, so that it is released while the
/// second one is held.
/// Rules: H7.
#[test]
fn promise_received_twice_is_not_released_while_its_second_client_is_held() {
    let mut peer = Peer::new(Client::null());
    let first = peer.introduce(Cap::Promise(5));
    let second = peer.introduce(Cap::Promise(5));
    drop(first);
    peer.settle();
    assert_eq!(peer.given(5), 2, "both references are held for the second client");
    let answer = send(&second, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    assert_eq!(call.target, Target::Import(5));
    peer.results(call.question, 1, &[]);
    wait(answer).unwrap();
    drop(second);
    assert_eq!(peer.expect_release(5), 2);
    peer.finish_clean();
}

/// The error: a promise client keeps the target that it was made with (`origTarget`), so that the import of a
/// promise that was resolved is not released as long as the client is held.
/// Rules: H7.
#[test]
fn resolved_promise_is_released_while_its_client_is_held() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Promise(5));
    peer.resolve(5, Cap::Hosted(6));
    assert_eq!(peer.expect_release(5), 1);
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    assert_eq!(call.target, Target::Import(6));
    peer.results(call.question, 1, &[]);
    wait(answer).unwrap();
    drop(client);
    assert_eq!(peer.expect_release(6), 1);
    peer.finish_clean();
}

/// The error: what the callback thread has taken from its queue is lost if the thread is stopped. Here it stands in
/// one callback when the connection ends, and others lie behind: answers that had come by then are delivered.
/// Rules: H8.
#[test]
fn answers_behind_a_blocked_callback_are_delivered_at_the_end() {
    let mut peer = Peer::strict(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answers = [1, 2, 3].map(|tag| send(&client, NOTE, tag, &[]));
    let calls = [1, 2, 3].map(|tag| peer.expect_call_of(tag));
    let unanswered = send(&client, NOTE, 4, &[]);
    peer.expect_call_of(4);
    let frozen = freeze_callbacks(&mut peer, &client);
    for call in &calls {
        peer.results(call.question, call.params.tag, &[]);
    }
    peer.sync();
    peer.close();
    peer.wait_ended();
    drop(frozen);
    for (tag, answer) in (1..).zip(answers) {
        assert_eq!(wait(answer).unwrap().0, tag);
    }
    assert!(wait_failed(unanswered).contains("disconnected"));
    peer.expect_end();
}

/// The error: a call that is larger than the limit on calls in service is waited for, which stops all others. It is
/// served; it may call back; and then what came behind it is.
/// Rules: H9.
#[test]
fn call_larger_than_the_limit_is_served_and_so_are_the_calls_behind_it() {
    let recorder = Recorder::new();
    let mut limits = Limits::default();
    limits.call_words = 16;
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let large = peer.call(Target::Import(object), HOLD, 1).caps(&[const { Cap::Hosted(7) }; 200]).send();
    let behind = peer.call(Target::Import(object), NOTE, 2).send();
    let held = recorder.held();
    let nested = send(&held.caps[0], NOTE, 3, &[]);
    let call = peer.expect_call_of(3);
    peer.results(call.question, 3, &[]);
    assert_eq!(wait(nested).unwrap().0, 3, "the answer is read, though the large call is in service");
    held.answer(1, &[]);
    peer.expect_done(large, 1);
    peer.expect_done(behind, 2);
    assert_eq!(peer.expect_release(7), 200);
    peer.finish_clean();
}

/// The error: the coordinator waits for room in the send queue, and so answers nothing, and delivers no answer,
/// while the peer does not read.
/// Rules: H9.
#[test]
fn full_send_queue_does_not_stop_the_coordinator() {
    let gate = Gate::default();
    let mut peer = Peer::over(&Vat::new(), |ours| gate.wrap(ours));
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    peer.sync();
    gate.close();
    // Each is answered by the coordinator itself.
    let questions: Vec<u32> = (0..1000).map(|_| peer.bootstrap()).collect();
    gate.wait_reached();
    peer.results(call.question, 2, &[]);
    assert_eq!(wait(answer).unwrap().0, 2);
    gate.open();
    for question in questions {
        peer.expect_exception(question, "no bootstrap object");
        peer.finish(question);
    }
    drop(client);
    peer.finish_clean();
}

/// The error: each embargo uses up an ID of questions, so that after as many pipelined results that turned out to
/// be objects of ours as there may be questions, none can be asked any more.
/// Rules: H9.
#[test]
fn embargoes_in_number_of_all_questions_leave_questions_free() {
    let recorder = Recorder::new();
    let mut limits = Limits::default();
    limits.questions = 4;
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    for tag in (0..20).step_by(2) {
        // The deadline makes a failure of what would be a hang.
        let answer = request(&client, NOTE, tag, &[]).timeout(peer::DEADLINE).send();
        let promised = answer.pipeline.field(0).client();
        let early = request(&promised, NOTE, tag + 1, &[]).timeout(peer::DEADLINE).send();
        let (call, pipelined) = (peer.expect_call_of(tag), peer.expect_call_of(tag + 1));
        peer.results(call.question, tag, &[Cap::Yours(object)]);
        let (target, embargo) = peer.expect_disembargo();
        assert_eq!(target, Target::Answer(call.question, vec![0]));
        let back = peer.call(Target::Import(object), NOTE, tag + 1).send();
        peer.echo(Target::Import(object), embargo);
        peer.expect_done(back, tag + 1);
        peer.results(pipelined.question, tag + 1, &[]);
        assert_eq!(wait(early).unwrap().0, tag + 1);
        drop((answer, promised));
    }
    drop(client);
    peer.finish_clean();
}

/// The error: an object whose thread dies leaves the calls in its queue unanswered. Here a method panics while
/// others wait: its call is answered too, and the object lives on.
/// Rules: H10.
#[test]
fn object_whose_method_panics_answers_the_calls_in_its_mailbox() {
    let ((to, entered), (leave, left)) = (unbounded(), unbounded());
    let mut peer = Peer::new(Client::new(Panics { entered: to, leave: left }));
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), 0, 0).send();
    entered.recv_timeout(peer::DEADLINE).expect("the method runs");
    let queued = [1, 1, 0, 1].map(|method| peer.call(Target::Import(object), method, 0).send());
    peer.settle();
    leave.send(()).unwrap();
    leave.send(()).unwrap();
    peer.expect_exception(first, "the method panicked");
    peer.expect_done(queued[0], 0);
    peer.expect_done(queued[1], 0);
    peer.expect_exception(queued[2], "the method panicked");
    peer.expect_done(queued[3], 0);
    peer.finish_clean();
}

/// The error: closing a connection whose bootstrap object was never exported throws, so that the questions that are
/// pending are not failed.
/// Rules: H11.
#[test]
fn close_without_an_exported_bootstrap_object_fails_pending_questions() {
    let mut peer = Peer::new(Recorder::new().client());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    peer.expect_call_of(1);
    assert_eq!(peer.vat.snapshot().exports(), 0, "the peer never asked for the bootstrap object");
    peer.vat.close(Duration::ZERO).unwrap();
    assert!(wait_failed(answer).contains("disconnected"));
    peer.expect_end();
}

/// Method 0 panics, once it is told to go on; 1 answers.
struct Panics {
    entered: Sender<()>,
    leave: Receiver<()>,
}

impl Server for Panics {
    fn dispatch(&self, call: &mut Served) -> Result<()> {
        if call.method_id() == 0 {
            self.entered.send(()).unwrap();
            self.leave.recv().unwrap();
            panic!("as the test wants it");
        }
        Ok(())
    }
}
