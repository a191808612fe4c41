//! `Abort`: what makes our side send one (rule 11), and what it does with the peer's (rule 13).

use std::error::Error as _;

use capnp_threads::{Capability, Client, Error, Exception, ExceptionKind};

use crate::support::*;

/// A question ID that is still in use ends the connection: that of a call, that of a Bootstrap, and that of a call
/// which was returned and not finished.
/// Rules: 11.
#[test]
fn question_id_that_is_still_in_use_aborts() {
    let recorder = Recorder::new();
    for which in 0..3 {
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let question = match which {
            0 => peer.call(Target::Import(object), HOLD, 1).send(),
            1 => peer.bootstrap(),
            _ => peer.call(Target::Import(object), 99, 1).send(),
        };
        if which == 2 {
            peer.expect_exception(question, "not implemented");
        }
        let call = Call { question, ..call_of(Target::Import(object), &[]) };
        peer.send_wrong(if which == 1 { Msg::Call(call) } else { Msg::Bootstrap(question) });
        if which == 1 {
            peer.expect_return(question);
        }
        peer.expect_abort(&format!("question ID {question} is already in use"));
    }
}

/// A Return for a question that was never asked ends the connection, and so does one for a question that is over.
/// Rules: 11.
#[test]
fn return_for_a_question_that_is_not_outstanding_aborts() {
    for over in [false, true] {
        let mut peer = Peer::new(Client::null());
        let client = peer.introduce(Cap::Hosted(7));
        let mut question = 9;
        if over {
            let answer = send(&client, NOTE, 1, &[]);
            question = peer.expect_call_of(1).question;
            peer.results(question, 1, &[]);
            wait(answer).unwrap();
            peer.expect_finish(question);
        }
        peer.send_wrong(return_of(question));
        peer.expect_abort(&format!("Return for question {question}, which is not outstanding"));
    }
}

/// A second Return for a question that is not finished ends the connection. The first one counts.
/// Rules: 11.
#[test]
fn second_return_aborts_and_the_first_one_counts() {
    let mut peer = Peer::strict(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let question = peer.expect_call_of(1).question;
    // The Finish is sent when the caller has been told, by the callback thread.
    let frozen = freeze_callbacks(&mut peer, &client);
    peer.results(question, 1, &[]);
    peer.send_wrong(return_of(question));
    peer.expect_abort(&format!("second Return for question {question}"));
    drop(frozen);
    assert_eq!(wait(answer).unwrap().0, 1);
}

/// A target that does not exist ends the connection: no such capability, no such answer, or the call itself.
/// Rules: 11.
#[test]
fn call_on_a_target_that_does_not_exist_aborts() {
    let targets = [
        (Target::Import(9), "capability 9 is not in the export table"),
        (Target::Answer(9, vec![]), "promised answer 9 is not in the answer table"),
        (Target::Answer(5, vec![]), "promised answer 5 is not in the answer table"),
    ];
    for (target, reason) in targets {
        let mut peer = Peer::new(Client::null());
        peer.send_wrong(Msg::Call(Call { question: 5, ..call_of(target, &[]) }));
        peer.expect_abort(reason);
    }
}

/// A descriptor in params that names nothing ends the connection. Nothing of such a message is left: the method is
/// not called, and what the other descriptors gave is neither kept nor released.
/// Rules: 11.
#[test]
fn params_that_name_an_unknown_capability_abort_and_no_method_is_called() {
    let descriptors = [
        (Cap::Yours(9), "capability 9 is not in the export table"),
        (Cap::YourAnswer(9, vec![0]), "promised answer 9 is not in the answer table"),
    ];
    for (cap, reason) in descriptors {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let before = peer.call(Target::Import(object), NOTE, 1).send();
        peer.expect_done(before, 1);
        peer.send_wrong(Msg::Call(Call {
            question: 5,
            ..call_of(Target::Import(object), &[Cap::Hosted(8), cap])
        }));
        peer.expect_abort(reason);
        peer.vat.wait_closed().unwrap();
        assert_eq!(recorder.log(), [1]);
    }
}

/// Results with `noFinishNeeded` and a capability end the connection: no message would say what becomes of the
/// capability.
/// Rules: 11.
#[test]
fn no_finish_needed_with_a_capability_in_the_results_aborts() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let question = peer.expect_call_of(1).question;
    let outcome = Outcome::Results(Payload::new(1, &[Cap::Hosted(8)]));
    peer.send_wrong(Msg::Return(Return {
        answer: question,
        release_params: false,
        no_finish: true,
        outcome,
    }));
    peer.expect_abort("needs no Finish, yet holds capabilities");
    assert!(wait_failed(answer).contains("yet holds capabilities"));
}

/// A message that cannot be read ends the connection.
/// Rules: 11.
#[test]
fn malformed_message_aborts() {
    let mut peer = Peer::new(Client::null());
    // A struct pointer that leads out of the message.
    let wild = vec![capnp::word(0xfc, 0xff, 0xff, 0x7f, 1, 0, 1, 0)];
    peer.send_raw("wild pointer", wild.into());
    peer.expect_abort("malformed message");
}

/// Waiting callers get the rule that the peer broke as the source of their error, by its variant.
/// Rules: 11, 13.
#[test]
fn rule_broken_by_the_peer_is_the_source_of_the_callers_error() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    peer.expect_call_of(1);
    peer.send_wrong(return_of(9));
    peer.expect_abort("question 9");
    let why = answer.wait_timeout(peer::DEADLINE).unwrap_err().into_failed().unwrap();
    assert_eq!(why.kind(), ExceptionKind::Disconnected);
    let source = why.source().and_then(|e| e.downcast_ref::<Error>());
    assert!(
        matches!(source, Some(Error::Protocol(capnp_threads::error::ProtocolError::UnknownQuestion(_)))),
        "{source:?}"
    );
}

/// An Abort of the peer's ends the connection, with its reason; it is not answered by another.
/// Rules: 13.
#[test]
fn abort_from_the_peer_ends_the_connection_and_is_not_answered() {
    let mut peer = Peer::new(Client::null());
    peer.send(Msg::Abort("enough".into()));
    peer.expect_end();
    let why = peer.vat.disconnect_reason().unwrap();
    assert_eq!(why.kind(), ExceptionKind::Disconnected);
    assert!(why.reason().contains("the peer aborted: enough"), "{why}");
}

/// What our side sent before it aborts comes before the Abort.
/// Rules: 13.
#[test]
fn abort_of_ours_is_sent_after_the_messages_before_it() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    peer.vat.abort(Exception::failed("enough"));
    peer.expect_call_of(1);
    peer.expect_abort("enough");
    assert!(wait_failed(answer).contains("enough"));
}

/// The first cause is the one that counts, whatever comes after it.
/// Rules: 13.
#[test]
fn abort_after_the_end_does_not_replace_the_first_cause() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    peer.send(Msg::Abort("first".into()));
    peer.vat.wait_closed().unwrap();
    peer.vat.abort(Exception::failed("second"));
    peer.expect_end();
    let reason = peer.vat.disconnect_reason().unwrap();
    assert!(reason.reason().contains("first"), "{reason}");
    assert!(wait_failed(send(&client, NOTE, 1, &[])).contains("first"));
}

/// A call without content, that no one knows of.
fn call_of(target: Target, caps: &[Cap]) -> Call {
    Call {
        question: 0,
        target,
        interface: message::INTERFACE,
        method: NOTE,
        params: Payload::new(2, caps),
        yourself: false,
        no_pipelining: false,
        only_pipeline: false,
    }
}

/// A Return that no one expects.
fn return_of(answer: u32) -> Msg {
    let outcome = Outcome::Results(Payload::new(2, &[]));
    Msg::Return(Return { answer, release_params: false, no_finish: false, outcome })
}
