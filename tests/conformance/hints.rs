//! Hints, in both roles: `noPromisePipelining`, `onlyPromisePipeline` and `noFinishNeeded`.

use std::time::Duration;

use capnp_threads::{Capability, Client, Limits, Vat};

use crate::support::*;

const PIPELINE_BIT: u32 = 1 << 31;

/// `noPromisePipelining` is sent on the calls for which the caller asked for it, and on no other.
/// Rules: none.
#[test]
fn no_promise_pipelining_is_sent_on_calls_that_ask_for_it_only() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answers =
        [request(&client, NOTE, 1, &[]).no_pipelining().send(), request(&client, NOTE, 2, &[]).send()];
    for (tag, hint) in [(1, true), (2, false)] {
        let call = peer.expect_call_of(tag);
        assert_eq!((call.no_pipelining, call.only_pipeline), (hint, false));
        peer.results(call.question, tag, &[]);
    }
    for (tag, answer) in (1..).zip(answers) {
        assert_eq!(wait(answer).unwrap().0, tag);
    }
    drop(client);
    peer.finish_clean();
}

/// `noPromisePipelining` changes nothing for an object that is called, and goes on where a call is forwarded: to
/// another vat, and back to its own.
/// Rules: none.
#[test]
fn no_promise_pipelining_from_the_peer_is_passed_on_with_forwarded_calls() {
    let recorder = Recorder::new();
    let mut far = Peer::new(Client::null());
    let proxied = far.introduce(Cap::Hosted(7));
    let mut near = Peer::new(recorder.client());
    let object = near.get_bootstrap();
    let theirs = near.introduce(Cap::Hosted(8));
    let give = near.call(Target::Import(object), GIVE, 1).caps(&[Cap::Hosted(8)]).no_pipelining().send();
    assert_eq!(near.expect_results(give), Payload::new(1, &[Cap::Yours(8)]));
    for hint in [true, false] {
        let call = near.call(Target::Answer(give, vec![0]), NOTE, 2);
        let call = if hint { call.no_pipelining().send() } else { call.send() };
        let back = near.expect_call_of(2);
        assert_eq!((back.target, back.yourself, back.no_pipelining), (Target::Import(8), true, hint));
        assert_eq!(near.expect_return(call).outcome, Outcome::Take(back.question));
        near.answer(back.question, Outcome::Elsewhere);
        near.finish(call);
        near.expect_finish(back.question);
    }
    near.finish(give);
    let answer = send(&theirs, NOTE, 3, std::slice::from_ref(&proxied));
    let given = near.expect_call_of(3);
    let [Cap::Hosted(proxy)] = given.params.caps[..] else { panic!("{given:?}") };
    near.answer_keeping(given.question, Outcome::Results(Payload::new(3, &[])));
    wait(answer).unwrap();
    for hint in [true, false] {
        let call = near.call(Target::Import(proxy), NOTE, 4);
        let call = if hint { call.no_pipelining().send() } else { call.send() };
        let forwarded = far.expect_call_of(4);
        assert_eq!((forwarded.yourself, forwarded.no_pipelining), (false, hint));
        far.results(forwarded.question, 5, &[]);
        near.expect_done(call, 5);
    }
    drop((theirs, proxied));
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// `onlyPromisePipeline` in our calls: their IDs have the top bit, no Return is waited for, and Finish ends them.
/// Rules: 9.
#[test]
fn only_promise_pipeline_call_of_ours_ends_with_its_finish_and_no_return() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    for _ in 0..2 {
        let pipeline = request(&client, NOTE, 1, &[Recorder::new().client()]).send_for_pipeline();
        let first = peer.expect_call_of(1);
        let [Cap::Hosted(param)] = first.params.caps[..] else { panic!("{first:?}") };
        assert!(first.only_pipeline && first.question & PIPELINE_BIT != 0, "{first:?}");
        let answer = send(&pipeline.field(0).client(), NOTE, 2, &[]);
        let second = peer.expect_call_of(2);
        assert!(!second.only_pipeline && second.question & PIPELINE_BIT == 0, "{second:?}");
        assert_eq!(second.target, Target::Answer(first.question, vec![0]));
        peer.results(second.question, 2, &[]);
        assert_eq!(wait(answer).unwrap().0, 2);
        assert!(!peer.expect_finish(second.question));
        assert_eq!(peer.vat.snapshot().questions(), 1, "as long as its pipeline is held");
        drop(pipeline);
        assert!(peer.expect_finish(first.question));
        assert_eq!(peer.vat.snapshot().questions(), 0);
        // No Return gives the params back: the peer does.
        peer.release(param, 1);
    }
    drop(client);
    peer.finish_clean();
}

/// A peer that returns a question for pipelining alone does not know the hint: our side sets it no more. The
/// results serve the pipeline if it is still held.
/// Rules: none.
#[test]
fn only_promise_pipeline_is_not_used_again_after_the_peer_returns_such_a_call() {
    for finished in [false, true] {
        let mut peer = Peer::new(Client::null());
        let client = peer.introduce(Cap::Hosted(7));
        let pipeline = request(&client, NOTE, 1, &[]).send_for_pipeline();
        let call = peer.expect_call_of(1);
        assert!(call.only_pipeline);
        if finished {
            drop(pipeline);
            assert!(peer.expect_finish(call.question));
            peer.results(call.question, 1, &[Cap::Hosted(8)]);
            peer.sync();
        } else {
            let promised = pipeline.field(0).client();
            peer.results(call.question, 1, &[Cap::Hosted(8)]);
            assert!(!promised.resolve().unwrap().is_null());
            let answer = send(&promised, NOTE, 2, &[]);
            let direct = peer.expect_call_of(2);
            assert_eq!(direct.target, Target::Import(8));
            peer.results(direct.question, 2, &[]);
            wait(answer).unwrap();
            peer.expect_finish(direct.question);
            drop((pipeline, promised));
            assert!(!peer.expect_finish(call.question));
            assert_eq!(peer.expect_release(8), 1);
        }
        let pipeline = request(&client, NOTE, 3, &[]).send_for_pipeline();
        let plain = peer.expect_call_of(3);
        assert!(!plain.only_pipeline && plain.question & PIPELINE_BIT == 0, "{plain:?}");
        drop(pipeline);
        assert!(peer.expect_finish(plain.question));
        peer.answer(plain.question, Outcome::Canceled);
        drop(client);
        peer.finish_clean();
    }
}

/// `onlyPromisePipeline` in the peer's calls: no Return is sent, and the results can be called until the Finish.
/// Rules: none.
#[test]
fn only_promise_pipeline_call_from_the_peer_gets_no_return() {
    let (recorder, inner) = (Recorder::new(), Recorder::new());
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 1).send_for_pipeline();
    assert!(first & PIPELINE_BIT != 0);
    let early = peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    recorder.held().answer(3, &[inner.client()]);
    peer.expect_done(early, 2);
    let late = peer.call(Target::Answer(first, vec![0]), NOTE, 4).send();
    peer.expect_done(late, 4);
    inner.expect(&[2, 4]);
    assert_eq!((peer.vat.snapshot().answers(), peer.vat.snapshot().exports()), (1, 1), "nothing was given");
    peer.expect_quiet();
    peer.finish(first);
    peer.sync();
    assert_eq!(peer.vat.snapshot().answers(), 0);
    peer.finish_clean();
}

/// A call with `onlyPromisePipeline` that fails says so only to the calls pipelined on it. One that is finished
/// early is canceled, and gets no Return either.
/// Rules: none.
#[test]
fn only_promise_pipeline_call_that_fails_gets_no_return() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 1).send_for_pipeline();
    let early = peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    recorder.held().fail("no luck");
    let late = peer.call(Target::Answer(first, vec![0]), NOTE, 3).send();
    for question in [early, late] {
        peer.expect_exception(question, "no luck");
        peer.finish(question);
    }
    peer.finish(first);
    let second = peer.call(Target::Import(object), HOLD, 4).send_for_pipeline();
    let held = recorder.held();
    peer.finish(second);
    held.wait_canceled();
    peer.expect_quiet();
    assert_eq!(peer.vat.snapshot().answers(), 0);
    peer.finish_clean();
}

/// A call with `onlyPromisePipeline` that is refused, because there is no room for it, gets no Return. So its
/// params are given back by Release. Calls pipelined on it fail with the exception that it was refused with.
/// Rules: 5.
#[test]
fn only_promise_pipeline_call_that_is_refused_gets_no_return() {
    for answers in [false, true] {
        let recorder = Recorder::new();
        let mut limits = Limits::default();
        limits.room_timeout = Some(Duration::ZERO);
        let calls = match answers {
            true => 4,
            false => 1,
        };
        if answers {
            limits.answer_bytes = 2048;
        } else {
            // One large call fills it.
            limits.call_words = 1500;
        }
        let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
        let object = peer.get_bootstrap();
        let call =
            |peer: &mut Peer, n| peer.call(Target::Import(object), HOLD, n).caps(&vec![Cap::None; 64]).send();
        let large: Vec<_> = (0..calls).map(|n| call(&mut peer, n)).collect();
        peer.sync();
        let params = [Cap::Hosted(8), Cap::Promise(9), Cap::Hosted(8)];
        let refused = peer.call(Target::Import(object), NOTE, 9).caps(&params).send_for_pipeline();
        assert_eq!((peer.expect_release(8), peer.expect_release(9)), (2, 1));
        for call in large {
            recorder.held().answer(0, &[]);
            peer.expect_done(call, 0);
        }
        // A call is in service until its method has let go of the params, which may be after the Return.
        let on_it = loop {
            let again = peer.call(Target::Import(object), NOTE, 8).send();
            if let Outcome::Results(_) = peer.expect_return(again).outcome {
                break peer.call(Target::Answer(refused, vec![0]), NOTE, 10).send();
            }
        };
        peer.expect_exception(on_it, "too many calls are in service");
        peer.finish(on_it);
        peer.finish(refused);
        peer.finish_clean();
    }
}

/// `onlyPromisePipeline` goes on where a call is forwarded to another vat, and calls pipelined on it follow.
/// Rules: none.
#[test]
fn only_promise_pipeline_is_passed_on_with_forwarded_calls() {
    let mut far = Peer::new(Client::null());
    let mut near = Peer::new(far.introduce(Cap::Hosted(7)));
    let proxy = near.get_bootstrap();
    let first = near.call(Target::Import(proxy), NOTE, 1).send_for_pipeline();
    let forwarded = far.expect_call_of(1);
    assert!(forwarded.only_pipeline && forwarded.question & PIPELINE_BIT != 0, "{forwarded:?}");
    let second = near.call(Target::Answer(first, vec![0]), NOTE, 2).send();
    let pipelined = far.expect_call_of(2);
    assert_eq!(pipelined.target, Target::Answer(forwarded.question, vec![0]));
    far.results(pipelined.question, 3, &[]);
    near.expect_done(second, 3);
    near.finish(first);
    assert!(far.expect_finish(forwarded.question));
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// `noFinishNeeded` is sent where the results hold no capability, and only there. A Finish that crosses it, or
/// comes after it, is ignored.
/// Rules: 11.
#[test]
fn no_finish_needed_is_sent_with_results_without_capabilities_only() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let plain = peer.call(Target::Import(object), NOTE, 1).send();
    recorder.expect(&[1]);
    peer.wait_tables(|tables| tables.answers() == 0);
    peer.finish(plain);
    assert!(peer.expect_return(plain).no_finish);
    let with_cap = peer.call(Target::Import(object), GIVE, 2).caps(&[Cap::Hosted(7)]).send();
    assert!(!peer.expect_return(with_cap).no_finish);
    assert_eq!(peer.vat.snapshot().answers(), 1);
    peer.finish(with_cap);
    let again = peer.call(Target::Import(object), NOTE, 3).send();
    assert!(peer.expect_return(again).no_finish);
    peer.send_wrong(Msg::Finish { question: again, release: true, workaround: false });
    // Its number is free at once.
    let same = peer.call(Target::Import(object), NOTE, 4).question(again).send();
    peer.expect_done(same, 4);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A call that the peer pipelined on results without capabilities, before it knew that they need no Finish, gets an
/// exception.
/// Rules: 11.
#[test]
fn call_pipelined_on_an_answer_that_needed_no_finish_fails() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let ended = peer.call(Target::Import(object), NOTE, 1).send();
    recorder.expect(&[1]);
    peer.wait_tables(|tables| tables.answers() == 0);
    let late = peer.call(Target::Answer(ended, vec![0]), NOTE, 2).send();
    let described =
        peer.call(Target::Import(object), GIVE, 3).caps(&[Cap::YourAnswer(ended, vec![0])]).send();
    peer.finish(ended);
    assert!(peer.expect_return(ended).no_finish);
    peer.expect_exception(late, "hold none");
    // What names such a place names nothing.
    assert!(matches!(peer.expect_return(described).outcome, Outcome::Results(p) if p.tag == 3));
    recorder.expect(&[1, 3]);
    peer.finish_clean();
}

/// `noFinishNeeded` from the peer ends our question at once: no Finish follows, and what is pipelined later fails
/// here.
/// Rules: 9.
#[test]
fn no_finish_needed_from_the_peer_ends_our_question_without_a_finish() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    for outcome in [Outcome::Results(Payload::new(1, &[])), Outcome::Exception("no luck".into())] {
        let answer = send(&client, NOTE, 1, &[]);
        let promised = answer.pipeline.field(0).client();
        let early = send(&promised, NOTE, 2, &[]);
        let (call, pipelined) = (peer.expect_call_of(1), peer.expect_call_of(2));
        let failed = matches!(outcome, Outcome::Exception(_));
        peer.send(ended(call.question, outcome));
        assert_eq!(wait(answer).is_err(), failed);
        wait_failed(send(&promised, NOTE, 3, &[]));
        peer.sync();
        assert_eq!(peer.vat.snapshot().questions(), 1, "the pipelined one");
        peer.answer(pipelined.question, Outcome::Exception("nothing there".into()));
        assert!(wait_failed(early).contains("nothing there"));
    }
    drop(client);
    // The account refuses a Finish for what has ended.
    peer.finish_clean();
}

/// `noFinishNeeded` that crosses our Finish is no error, and frees the ID.
/// Rules: 9.
#[test]
fn no_finish_needed_that_crosses_our_finish_frees_the_id() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    drop(send(&client, NOTE, 1, &[]));
    let call = peer.expect_call_of(1);
    assert!(peer.expect_finish(call.question));
    peer.send(ended(call.question, Outcome::Results(Payload::new(1, &[]))));
    peer.sync();
    assert_eq!(peer.vat.snapshot().questions(), 0);
    drop(client);
    peer.finish_clean();
}

/// `noFinishNeeded` for a tail call whose results the peer keeps ends that question, too: what is pipelined on the
/// answer then fails here, as nothing can be addressed to an ID that is free.
/// Rules: 4, 9.
#[test]
fn no_finish_needed_for_a_tail_call_ends_its_question() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    let held = recorder.held();
    let to = held.caps[0].clone();
    held.tail_call(&to, NOTE, 2, &[]);
    drop(to);
    let tail = peer.expect_call_of(2);
    assert_eq!(peer.expect_return(call).outcome, Outcome::Take(tail.question));
    peer.send(ended(tail.question, Outcome::Elsewhere));
    peer.sync();
    assert_eq!(peer.vat.snapshot().questions(), 0);
    let late = peer.call(Target::Answer(call, vec![0]), NOTE, 3).send();
    peer.expect_exception(late, "hold none");
    peer.finish(call);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// `noFinishNeeded` with capabilities of any kind in the results ends the connection.
/// Rules: 11.
#[test]
fn no_finish_needed_with_any_kind_of_capability_aborts() {
    for cap in [Cap::Hosted(8), Cap::Promise(8), Cap::Yours(0)] {
        let mut peer = Peer::new(Recorder::new().client());
        assert_eq!(peer.get_bootstrap(), 0);
        let client = peer.introduce(Cap::Hosted(7));
        let answer = send(&client, NOTE, 1, &[]);
        let call = peer.expect_call_of(1);
        peer.send_wrong(ended(call.question, Outcome::Results(Payload::new(1, &[cap]))));
        assert!(wait_failed(answer).contains("yet holds capabilities"));
        peer.expect_abort("yet holds capabilities");
    }
}

fn ended(answer: u32, outcome: Outcome) -> Msg {
    Msg::Return(Return { answer, release_params: true, no_finish: true, outcome })
}
