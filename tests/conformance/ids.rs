//! IDs: rule 9. Which number is given out when, and that a number names only what it was given for last.

use std::thread;

use capnp_threads::{Capability, Client, Limits, RemotePromise, Vat};
use crossbeam_channel::{bounded, Receiver};

use crate::support::*;

/// The bit that marks questions asked for pipelining alone.
const PIPELINE_BIT: u32 = 1 << 31;

/// The lowest free number is given out first, to questions and to exports, each from a pool of its own.
/// Rules: 9.
#[test]
fn new_questions_and_exports_take_the_lowest_free_id() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let objects: Vec<Client> = (0..4).map(|_| Recorder::new().client()).collect();
    let mut answers: Vec<RemotePromise> =
        (0..4).map(|tag| send(&client, NOTE, tag, &[objects[tag as usize].clone()])).collect();
    for id in 0..4 {
        let call = peer.expect_call_of(id.into());
        assert_eq!((call.question, call.params.caps), (id, vec![Cap::Hosted(id)]));
    }
    for id in [2, 0] {
        peer.results(id, 0, &[]);
        wait(answers.remove(id as usize)).unwrap();
        peer.expect_finish(id);
    }
    for (id, object) in [(0, &objects[0]), (2, &objects[2]), (4, &client)] {
        answers.push(send(&client, NOTE, 9, std::slice::from_ref(object)));
        let call = peer.expect_call_of(9);
        let cap = if id == 4 { Cap::Yours(7) } else { Cap::Hosted(id) };
        assert_eq!((call.question, call.params.caps), (id, vec![cap]));
    }
    for id in 0..=4 {
        peer.results(id, 0, &[]);
    }
    drop((client, answers));
    peer.finish_clean();
}

/// A Return alone does not free a question's ID: the Finish must have been sent too.
/// Rules: 9.
#[test]
fn question_that_has_returned_keeps_its_id_until_its_finish() {
    let mut peer = Peer::strict(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    assert_eq!(peer.expect_call_of(1).question, 0);
    // The Finish is sent when the caller has been told, by the callback thread.
    let frozen = freeze_callbacks(&mut peer, &client);
    peer.results(0, 1, &[]);
    peer.sync();
    let next = send(&client, NOTE, 2, &[]);
    assert_eq!(peer.expect_call_of(2).question, 2, "1 froze the callbacks, 0 has only returned");
    drop(frozen);
    wait(answer).unwrap();
    peer.expect_finish(0);
    peer.expect_finish(1);
    let last = send(&client, NOTE, 3, &[]);
    assert_eq!(peer.expect_call_of(3).question, 0);
    for question in [0, 2] {
        peer.results(question, 0, &[]);
    }
    drop((client, next, last));
    peer.finish_clean();
}

/// A Finish alone does not free a question's ID: the Return must have come too.
/// Rules: 9.
#[test]
fn question_that_is_finished_keeps_its_id_until_its_return() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    drop(send(&client, NOTE, 1, &[]));
    assert_eq!(peer.expect_call_of(1).question, 0);
    peer.expect_finish(0);
    let next = send(&client, NOTE, 2, &[]);
    assert_eq!(peer.expect_call_of(2).question, 1);
    peer.answer(0, Outcome::Canceled);
    peer.sync();
    let last = send(&client, NOTE, 3, &[]);
    assert_eq!(peer.expect_call_of(3).question, 0);
    for question in [0, 1] {
        peer.results(question, 0, &[]);
    }
    drop((client, next, last));
    peer.finish_clean();
}

/// After a Return with `noFinishNeeded` no Finish is sent, and the ID is free at once.
/// Rules: 9.
#[test]
fn return_with_no_finish_needed_frees_the_question_id_at_once() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    for tag in 1..=3 {
        let answer = send(&client, NOTE, tag, &[]);
        assert_eq!(peer.expect_call_of(tag).question, 0);
        let outcome = Outcome::Results(Payload::new(tag, &[]));
        peer.send(Msg::Return(Return { answer: 0, release_params: false, no_finish: true, outcome }));
        assert_eq!(wait(answer).unwrap().0, tag);
    }
    drop(client);
    // The account refuses a Finish for a question that is over.
    peer.finish_clean();
}

/// A pipelined call that waits for room when its question is answered is still sent: to what the promise has
/// become.
/// Rules: 9.
#[test]
fn pipelined_call_that_waits_for_an_id_goes_to_the_result_after_the_return() {
    let mut peer = Peer::of(&Vat::new().limits(two_questions()));
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let promised = answer.pipeline.field(0).client();
    let other = send(&client, NOTE, 2, &[]);
    let (first, second) = (peer.expect_call_of(1), peer.expect_call_of(2));
    let waiting = on_thread(move || waits_for_room(promised));
    peer.results(first.question, 1, &[Cap::Hosted(8)]);
    let third = peer.expect_call_of(3);
    assert_eq!(third.target, Target::Import(8));
    for call in [second, third] {
        peer.results(call.question, call.params.tag, &[]);
    }
    assert_eq!(waiting.recv_timeout(peer::DEADLINE).unwrap(), 3);
    drop((client, answer, other));
    peer.finish_clean();
}

/// A pipelined call that waits for room keeps its question, though nothing else does: the call is sent ahead of the
/// Finish.
/// Rules: 9.
#[test]
fn pipelined_call_that_waits_for_an_id_is_sent_before_the_finish() {
    let mut peer = Peer::of(&Vat::new().limits(two_questions()));
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let promised = answer.pipeline.field(0).client();
    let other = send(&client, NOTE, 2, &[]);
    let (first, second) = (peer.expect_call_of(1), peer.expect_call_of(2));
    drop(answer);
    let waiting = on_thread(move || waits_for_room(promised));
    peer.settle();
    peer.results(second.question, 2, &[]);
    let third = peer.expect_call_of(3);
    assert_eq!(third.target, Target::Answer(first.question, vec![0]));
    assert!(peer.expect_finish(first.question), "sent behind the call, or the account had refused that");
    peer.answer(first.question, Outcome::Canceled);
    peer.results(third.question, 3, &[]);
    assert_eq!(waiting.recv_timeout(peer::DEADLINE).unwrap(), 3);
    drop((client, other));
    peer.finish_clean();
}

/// Embargoes have a pool of their own: neither their numbers nor their return touch those of questions and exports.
/// Rules: 9.
#[test]
fn embargo_ids_are_independent_of_question_and_export_ids() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let promises = [5, 6].map(|id| peer.introduce(Cap::Promise(id)));
    let answers = [5, 6].map(|id| {
        let answer = send(&promises[id as usize - 5], NOTE, id, &[]);
        assert_eq!(peer.expect_call_of(id).question, id as u32 - 5);
        answer
    });
    for id in [5, 6] {
        peer.resolve(id, Cap::Yours(object));
        assert_eq!(
            peer.expect_disembargo(),
            (Target::Import(id), id - 5),
            "0 and 1, as the questions in use"
        );
    }
    // Back in an order of the peer's choosing; then the numbers are free for embargoes, and for nothing else.
    for id in [6, 5] {
        peer.echo(Target::Import(object), id - 5);
    }
    let client = peer.introduce(Cap::Hosted(7));
    let objects = [Recorder::new().client(), Recorder::new().client()];
    let next = send(&client, NOTE, 7, &objects);
    let call = peer.expect_call_of(7);
    assert_eq!((call.question, &call.params.caps[..]), (2, &[Cap::Hosted(1), Cap::Hosted(2)][..]));
    for question in 0..3 {
        peer.results(question, 0, &[]);
    }
    drop((promises, answers, client, next));
    peer.finish_clean();
}

/// Questions for pipelining alone have IDs of their own, with the top bit set. Their Finish ends them. A Return
/// that comes against the hint finds no question, and is no error.
/// Rules: 9.
#[test]
fn question_for_pipelining_only_has_the_top_bit_of_its_id_set() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let pipelines = [1, 2].map(|tag| request(&client, NOTE, tag, &[]).send_for_pipeline());
    let ids = [1, 2].map(|tag| {
        let call = peer.expect_call_of(tag);
        assert!(call.only_pipeline);
        call.question
    });
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id & PIPELINE_BIT != 0), "{ids:?}");
    let answer = send(&pipelines[0].field(0).client(), NOTE, 3, &[]);
    let call = peer.expect_call_of(3);
    assert_eq!((call.question, call.target), (0, Target::Answer(ids[0], vec![0])));
    drop(pipelines);
    for id in ids {
        assert!(peer.expect_finish(id));
    }
    peer.wait_tables(|tables| tables.questions() == 1);
    peer.results(ids[1], 2, &[Cap::Hosted(8)]);
    peer.results(call.question, 3, &[]);
    assert_eq!(wait(answer).unwrap().0, 3);
    drop(client);
    peer.finish_clean();
}

/// An ID names its new question only. Here the results of a call that was sent back to the peer are called after
/// that question has ended, and its ID is in use again.
/// Rules: 9.
#[test]
fn pipelined_call_on_an_ended_tail_question_does_not_reach_the_reused_id() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(8));
    let question = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    let held = recorder.held();
    let theirs = held.caps[0].clone();
    held.tail_call(&theirs, NOTE, 2, &[]);
    let tail = peer.expect_call_of(2);
    assert_eq!((tail.question, tail.yourself), (0, true));
    assert_eq!(peer.expect_return(question).outcome, Outcome::Take(0));
    let outcome = Outcome::Exception("no results".into());
    peer.send(Msg::Return(Return { answer: 0, release_params: false, no_finish: true, outcome }));
    peer.sync();
    let answer = send(&client, NOTE, 3, &[]);
    assert_eq!(peer.expect_call_of(3).question, 0);
    let pipelined = peer.call(Target::Answer(question, vec![0]), NOTE, 4).send();
    peer.expect_exception(pipelined, "no results");
    peer.results(0, 3, &[]);
    assert_eq!(wait(answer).unwrap().0, 3);
    drop((client, theirs));
    peer.finish_clean();
}

/// An ID that stands in results of ours names its question only. The promised answer of the peer's that the results
/// named has ended when they are called.
/// Rules: 9.
#[test]
fn call_on_results_that_named_an_ended_answer_does_not_reach_the_reused_id() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(8));
    let answer = send(&client, NOTE, 1, &[]);
    assert_eq!(peer.expect_call_of(1).question, 0);
    let promised = answer.pipeline.field(0).client();
    let question = peer.call(Target::Import(object), HOLD, 2).send();
    recorder.held().answer(2, &[promised]);
    assert_eq!(peer.expect_results(question).caps, [Cap::YourAnswer(0, vec![0])]);
    let outcome = Outcome::Exception("no results".into());
    peer.send(Msg::Return(Return { answer: 0, release_params: false, no_finish: true, outcome }));
    assert!(wait_failed(answer).contains("no results"));
    let next = send(&client, NOTE, 3, &[]);
    assert_eq!(peer.expect_call_of(3).question, 0);
    let pipelined = peer.call(Target::Answer(question, vec![0]), NOTE, 4).send();
    peer.expect_exception(pipelined, "no results");
    peer.results(0, 3, &[]);
    assert_eq!(wait(next).unwrap().0, 3);
    drop(client);
    peer.finish_clean();
}

/// A client of ours that leads to a place in the results of an ended question is described to the peer as what was
/// there, not as a place in the results of the question that has the ID now.
/// Rules: 9.
#[test]
fn client_of_ended_results_is_described_as_its_value_not_as_the_reused_id() {
    for outcome in [Outcome::Results(Payload::new(1, &[])), Outcome::Exception("no results".into())] {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let client = peer.introduce(Cap::Hosted(8));
        let answer = send(&client, NOTE, 1, &[]);
        assert_eq!(peer.expect_call_of(1).question, 0);
        let promised = answer.pipeline.field(0).client();
        let (ours, fulfiller) = Client::promise();
        let p = peer.export_promise(&ours);
        fulfiller.fulfill(promised);
        assert_eq!(peer.expect_resolve(p), Ok(Cap::YourAnswer(0, vec![0])));
        let failed = matches!(outcome, Outcome::Exception(_));
        peer.send(Msg::Return(Return { answer: 0, release_params: false, no_finish: true, outcome }));
        assert_eq!(wait(answer).is_err(), failed);
        // The peer names the promise that it was told about: that holds our object to the place for ever.
        let back = peer.call(Target::Import(object), HOLD, 2).caps(&[Cap::Yours(p)]).send();
        let held = recorder.held();
        let next = send(&client, NOTE, 3, &held.caps);
        let call = peer.expect_call_of(3);
        assert_eq!(call.question, 0, "the number is used again");
        match (failed, &call.params.caps[..]) {
            (false, [Cap::None]) => {}
            (true, [Cap::Promise(broken)]) => {
                assert!(peer.expect_resolve(*broken).unwrap_err().contains("no results"));
            }
            (_, caps) => panic!("told as {caps:?}"),
        }
        peer.results(0, 3, &[]);
        assert_eq!(wait(next).unwrap().0, 3);
        held.answer(2, &[]);
        peer.expect_done(back, 2);
        peer.release(p, 1);
        drop((client, ours));
        peer.finish_clean();
    }
}

/// Makes a call for which there is no room yet, and waits for its answer.
fn waits_for_room(client: Client) -> u64 {
    let answer = send(&client, NOTE, 3, &[]);
    drop(client);
    wait(answer).unwrap().0
}

/// Runs something on a thread of its own, where it may block.
fn on_thread(run: impl FnOnce() -> u64 + Send + 'static) -> Receiver<u64> {
    let (to, outcome) = bounded(1);
    thread::spawn(move || to.send(run()));
    outcome
}

fn two_questions() -> Limits {
    let mut limits = Limits::default();
    limits.questions = 2;
    limits
}
