//! Messages that break a rule half-way: nothing of them is done (in debug builds our side panics if a message that it
//! refuses has changed a table), and what only looks like such a message is accepted.

use std::time::Duration;

use capnp_threads::{Capability, Client, ExceptionKind, Limits, Vat};

use crate::support::*;

/// Params whose last descriptor names nothing, or an import as what it is not, refuse the whole call, whatever
/// comes before.
/// Rules: 11.
#[test]
fn params_with_one_invalid_descriptor_are_refused_as_a_whole() {
    let unknown = "is not in the export table";
    let mixed = "described both as a promise and as settled";
    let cases: &[(&[Cap], &str)] = &[
        (&[Cap::Hosted(8), Cap::Promise(9), Cap::Yours(99)], unknown),
        (&[Cap::Third { vine: 8 }, Cap::YourAnswer(5, vec![0]), Cap::Yours(99)], unknown),
        (&[Cap::Hosted(8), Cap::YourAnswer(99, vec![0])], "is not in the answer table"),
        // One that is held as settled, and one that the same message brings as such.
        (&[Cap::Hosted(8), Cap::Promise(7)], mixed),
        (&[Cap::Hosted(8), Cap::Hosted(9), Cap::Promise(8)], mixed),
        (&[Cap::Third { vine: 8 }, Cap::Promise(8)], mixed),
    ];
    for (caps, reason) in cases {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let client = peer.introduce(Cap::Hosted(7));
        peer.send_wrong(Msg::Call(Call {
            question: 5,
            target: Target::Import(object),
            interface: message::INTERFACE,
            method: NOTE,
            params: Payload::new(1, caps),
            yourself: false,
            no_pipelining: false,
            only_pipeline: false,
        }));
        peer.expect_abort(reason);
        drop(client);
        assert_eq!(recorder.log(), [] as [u64; 0]);
    }
}

/// What a message brings as a promise first stays one, though it is named as hosted further on. Each of the two
/// counts.
/// Rules: 6.
#[test]
fn capability_named_as_promise_and_as_hosted_in_one_message_stays_a_promise() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), HOLD, 1);
    let call = call.caps(&[Cap::Promise(8), Cap::Hosted(8), Cap::Promise(8)]).send();
    let held = recorder.held();
    assert!(held.caps.iter().all(|cap| *cap == held.caps[0] && cap.is_promise()));
    assert_eq!((peer.vat.snapshot().imports(), peer.vat.snapshot().import_references()), (1, 3));
    held.answer(1, &[]);
    peer.expect_done(call, 1);
    assert_eq!(peer.expect_release(8), 3);
    peer.finish_clean();
}

/// A Return that gives back more than is held, or whose results name nothing, is refused as a whole: the caller is
/// told why, and gets none of the results.
/// Rules: 5, 11.
#[test]
fn return_with_an_invalid_release_or_descriptor_is_refused_as_a_whole() {
    let cases: &[(u32, &[Cap], &str)] = &[
        (1, &[Cap::Hosted(8)], "is not in the export table"),
        (0, &[Cap::Hosted(8), Cap::Yours(99)], "is not in the export table"),
        (
            0,
            &[Cap::Promise(8), Cap::Hosted(9), Cap::Promise(9)],
            "described both as a promise and as settled",
        ),
        (0, &[Cap::Promise(7)], "described both as a promise and as settled"),
    ];
    for (released, caps, reason) in cases {
        let object = Recorder::new().client();
        let mut peer = Peer::new(Client::null());
        let client = peer.introduce(Cap::Hosted(7));
        let answer = send(&client, NOTE, 1, &[object.clone(), object]);
        let call = peer.expect_call_of(1);
        let Cap::Hosted(id) = call.params.caps[0] else { panic!("{call:?}") };
        if *released > 0 {
            peer.release(id, *released);
        }
        peer.send_wrong(Msg::Return(Return {
            answer: call.question,
            release_params: true,
            no_finish: false,
            outcome: Outcome::Results(Payload::new(1, caps)),
        }));
        peer.expect_abort(reason);
        assert!(wait_failed(answer).contains(reason));
    }
}

/// The results of a call may name what its params gave, though the same Return releases the params.
/// Rules: 5.
#[test]
fn results_that_name_params_which_the_return_releases_are_accepted() {
    let object = Recorder::new().client();
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, std::slice::from_ref(&object));
    let call = peer.expect_call_of(1);
    let Cap::Hosted(id) = call.params.caps[0] else { panic!("{call:?}") };
    peer.results(call.question, 2, &[Cap::Yours(id)]);
    let (tag, caps) = wait(answer).unwrap();
    assert_eq!((tag, &*caps), (2, &[object][..]));
    assert_eq!(peer.vat.snapshot().exports(), 0);
    drop((client, caps));
    peer.finish_clean();
}

/// A Resolve to a capability that does not exist is refused. The promise stays a promise until the connection ends.
/// Rules: 11.
#[test]
fn resolve_to_an_unknown_capability_is_refused_and_the_promise_stays() {
    for (to, reason) in [
        (Cap::Yours(99), "is not in the export table"),
        (Cap::YourAnswer(99, vec![]), "is not in the answer table"),
        (Cap::Promise(7), "described both as a promise and as settled"),
    ] {
        let mut peer = Peer::new(Client::null());
        let settled = peer.introduce(Cap::Hosted(7));
        let promise = peer.introduce(Cap::Promise(8));
        let answer = send(&promise, NOTE, 1, &[]);
        peer.expect_call_of(1);
        peer.send_wrong(Msg::Resolve { promise: 8, to: Ok(to) });
        peer.expect_abort(reason);
        assert!(wait_failed(answer).contains(reason));
        assert!(promise.resolve().unwrap_err().to_string().contains(reason));
        drop(settled);
    }
}

/// A call is refused, as there is no room for it. What the peer calls or names in its results, not knowing of the
/// refusal, fails with the same exception, although nothing is kept of the call.
/// Rules: 11.
#[test]
fn calls_pipelined_on_a_refused_call_fail_with_the_same_exception() {
    let recorder = Recorder::new();
    let mut limits = Limits::default();
    // One large call fills it, and a few small ones don't.
    limits.call_words = 1500;
    limits.room_timeout = Some(Duration::ZERO);
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let large = peer.call(Target::Import(object), HOLD, 0).caps(&vec![Cap::None; 64]).send();
    // Its capabilities are counted when it is handled.
    peer.sync();
    let mut held = recorder.held();
    let refused = peer.call(Target::Import(object), NOTE, 9).send();
    peer.expect_exception(refused, "too many calls are in service");
    held.caps.clear();
    held.answer(0, &[]);
    peer.expect_done(large, 0);
    // The call is in service until its method has let go of the params, which may be after the Return.
    loop {
        let again = peer.call(Target::Import(object), NOTE, 8).send();
        match peer.expect_return(again).outcome {
            Outcome::Exception(why) => assert!(why.contains("too many calls are in service"), "{why}"),
            _ => break,
        }
    }
    let crossed = [
        Msg::Call(pipelined(90, Target::Answer(refused, vec![0]), NOTE, &[])),
        Msg::Call(pipelined(91, Target::Import(object), HOLD, &[Cap::YourAnswer(refused, vec![0])])),
    ];
    let as_entered = [
        Msg::Call(pipelined(90, Target::Import(object), NOTE, &[])),
        Msg::Call(pipelined(91, Target::Import(object), HOLD, &[])),
    ];
    for (message, entered) in crossed.iter().zip(&as_entered) {
        peer.send_as(entered, message.encode());
    }
    peer.expect_exception(90, "too many calls are in service");
    let names = recorder.held();
    let why = names.caps[0].broken_reason().expect("it is known to be broken");
    assert_eq!((why.kind(), why.reason()), (ExceptionKind::Overloaded, "too many calls are in service"));
    names.answer(1, &[]);
    peer.expect_done(91, 1);
    // The ID has another use, which is not refused.
    let again = peer.call(Target::Import(object), HOLD, 2).question(refused).send();
    let on_it = peer.call(Target::Answer(again, vec![0]), NOTE, 3).send();
    recorder.held().answer(2, &[recorder.client()]);
    peer.expect_results(again);
    peer.expect_done(on_it, 3);
    peer.finish_clean();
}

/// The peer sends a call whose results are to be taken for a question of ours, and the Return that takes them,
/// before it knows that the call is refused: the question gets the exception that the call was refused with.
/// Rules: 4.
#[test]
fn results_taken_from_a_refused_call_are_its_exception() {
    for canceled in [false, true] {
        let recorder = Recorder::new();
        let mut limits = Limits::default();
        limits.answer_bytes = 2048;
        let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
        let object = peer.get_bootstrap();
        let client = peer.introduce(Cap::Hosted(7));
        let answer = send(&client, NOTE, 1, &[]);
        let question = peer.expect_call_of(1).question;
        let mut kept = Vec::new();
        let refused = loop {
            let before = peer.vat.snapshot().answers();
            let call = peer.call(Target::Import(object), HOLD, 2).yourself().send();
            peer.sync();
            if peer.vat.snapshot().answers() == before {
                break call;
            }
            kept.push(call);
            assert!(kept.len() < 100, "no call is refused");
        };
        peer.expect_exception(refused, "too many calls are in service");
        let mut answer = Some(answer);
        if canceled {
            drop(answer.take());
            assert!(peer.expect_finish(question));
        }
        let ret = |outcome| {
            Msg::Return(Return { answer: question, release_params: true, no_finish: false, outcome })
        };
        peer.send_as(&ret(Outcome::Exception("refused".into())), ret(Outcome::Take(refused)).encode());
        if let Some(answer) = answer {
            let why = answer.wait().map(drop).unwrap_err().to_string();
            assert!(why.contains("too many calls are in service"), "{why}");
            assert!(!peer.expect_finish(question));
        }
        for call in kept {
            recorder.held().answer(0, &[]);
            assert_eq!(peer.expect_return(call).outcome, Outcome::Elsewhere);
            peer.finish(call);
        }
        let again = peer.call(Target::Import(object), NOTE, 3).send();
        peer.expect_done(again, 3);
        drop(client);
        peer.finish_clean();
    }
}

/// What the peer names of ours in a call, by a promise of its own that it has resolved to that, is behind an
/// embargo until the peer sends the Disembargo back. It has us hold so many at most, and its calls are served again
/// once it has.
/// Rules: 1, 11.
#[test]
fn peer_that_sends_no_disembargo_back_is_refused_calls() {
    let mut limits = Limits::default();
    limits.answer_bytes = 40_000;
    let recorder = Recorder::new();
    let mut peer = Peer::of(&Vat::new().limits(limits).bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let given = peer.call(Target::Import(object), GIVE, 1).caps(&[Cap::Promise(20)]).send();
    peer.expect_results(given);
    peer.resolve(20, Cap::Yours(object));
    let caps = vec![Cap::YourAnswer(given, vec![0]); 10];
    let mut embargoes = Vec::new();
    let refused = loop {
        let names = peer.call(Target::Import(object), NOTE, 2).caps(&caps).send();
        let outcome = loop {
            let next = peer.expect("a Disembargo or the Return", |m| match m {
                Msg::Disembargo { target, context: Context::Sender(id) } => Some(Err((target.clone(), *id))),
                Msg::Return(ret) if ret.answer == names => Some(Ok(ret.outcome.clone())),
                _ => None,
            });
            match next {
                Ok(outcome) => break outcome,
                Err(embargo) => embargoes.push(embargo),
            }
        };
        if let Outcome::Exception(why) = outcome {
            break why;
        }
        assert!(embargoes.len() <= 80, "{} embargoes", embargoes.len());
    };
    assert!(refused.contains("too many calls are in service"), "{refused}");
    assert!(embargoes.len() >= 10, "{} embargoes", embargoes.len());
    assert_eq!(peer.vat.snapshot().embargoes(), embargoes.len());
    peer.finish(given);
    embargoes.into_iter().for_each(|(target, embargo)| peer.echo(target, embargo));
    let again = peer.call(Target::Import(object), NOTE, 3).send();
    peer.expect_done(again, 3);
    assert_eq!(peer.vat.snapshot().embargoes(), 0);
    peer.finish_clean();
}

fn pipelined(question: u32, target: Target, method: u16, caps: &[Cap]) -> Call {
    Call {
        question,
        target,
        interface: INTERFACE,
        method,
        params: Payload::new(1, caps),
        yourself: false,
        no_pipelining: false,
        only_pipeline: false,
    }
}
