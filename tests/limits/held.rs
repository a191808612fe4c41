//! Limits on what a peer leaves in our tables: calls that it does not finish, and capabilities of its own.

use capnp::message::{Builder, Reader, ReaderOptions};
use capnp_threads::generated::rpc_capnp::{exception, message, return_};
use capnp_threads::transport::{Outbound, Transport};
use capnp_threads::{Capability, Client, ExceptionKind, Limits, Vat};
use crossbeam_channel::unbounded;

use crate::support::{answer, ask, cap, echo, failure, give, limits, object, send, until, Two};

/// As much as a few answers take.
const FEW: usize = 4_000;

/// A message of a peer's that is built by hand.
fn message(fill: impl FnOnce(message::Builder<'_>)) -> Outbound {
    let mut builder = Builder::new_default();
    fill(builder.init_root());
    Outbound::from(builder)
}

/// Asks for the bootstrap object, and does not finish that. Whether there are results.
fn asked(peer: &mut Transport, question: u32) -> bool {
    let bootstrap = message(|message| message.init_bootstrap().set_question_id(question));
    peer.sink.send(&[bootstrap]).unwrap();
    let frame = peer.source.receive().unwrap().unwrap();
    let received = Reader::new(frame, ReaderOptions::new());
    let root: message::Reader<'_> = received.get_root().unwrap();
    let message::Return(Ok(ret)) = root.which().unwrap() else { panic!("a Return comes") };
    assert_eq!(ret.get_answer_id(), question);
    match ret.which().unwrap() {
        return_::Results(_) => true,
        return_::Exception(why) => {
            assert_eq!(why.unwrap().get_type(), Ok(exception::Type::Overloaded));
            assert!(ret.get_no_finish_needed());
            false
        }
        _ => panic!("results or an exception come"),
    }
}

#[test]
fn calls_are_refused_while_answers_that_are_not_finished_take_too_much() {
    let (ours, mut peer) = Transport::in_memory();
    let vat = Vat::new().limits(limits(|l| l.answer_bytes = FEW)).bootstrap(echo()).over(ours).unwrap();
    let answered: Vec<_> = (0..20).filter(|question| asked(&mut peer, *question)).collect();
    assert!((2..10).contains(&answered.len()), "an answer counts with 400 to 2,000 bytes: {answered:?}");
    assert!(
        answered.iter().copied().eq(0..answered.len() as u32),
        "the first ones are answered: {answered:?}"
    );
    for question in answered {
        let finish = message(|message| message.init_finish().set_question_id(question));
        peer.sink.send(&[finish]).unwrap();
    }
    until(&vat, |tables| tables.answers() == 0);
    assert!(asked(&mut peer, 100), "there is room again");
}

/// What the content of results is besides its capabilities is not held: of 400 KB for each answer, nothing counts.
#[test]
fn of_results_that_are_not_finished_only_the_capabilities_are_held() {
    let maker = object(|call| {
        let mut results: capnp_threads::generated::rpc_capnp::payload::Builder<'_> = call.init_results();
        results.reborrow().init_cap_table(25_000);
        results.get_content().set_as_capability(Box::new(echo()));
        Ok(())
    });
    let two = Two::in_memory(Limits::default(), limits(|l| l.answer_bytes = FEW), &maker);
    let calls: Vec<_> = (0..2).map(|_| send(&two.remote, "")).collect();
    let ahead: Vec<_> = calls.iter().map(|call| call.pipeline.field(0).client()).collect();
    calls.into_iter().for_each(|call| assert!(answer(call).unwrap().words() > 50_000));
    for ahead in &ahead {
        assert_eq!(ask(ahead, "called").unwrap(), "called");
    }
}

#[test]
fn a_call_that_brings_too_many_capabilities_is_refused() {
    let (keep, kept) = unbounded();
    let keeper = object(move |call| {
        keep.send(cap(call)?).unwrap();
        Ok(())
    });
    let two = Two::in_memory(Limits::default(), limits(|l| l.imports = 2), &keeper);
    for _ in 0..2 {
        answer(give(&two.remote, &echo())).unwrap();
    }
    let why = failure(answer(give(&two.remote, &echo())));
    assert_eq!(why.kind(), ExceptionKind::Overloaded);
    until(&two.here, |tables| tables.exports() == 2);
    kept.try_iter().for_each(drop);
    until(&two.there, |tables| tables.imports() == 0);
    answer(give(&two.remote, &echo())).expect("there is room again");
}

/// The bootstrap object of a vat counts as an answer until it is finished, and no more after that.
#[test]
fn bootstraps_that_are_finished_do_not_count() {
    let (a, b) = Transport::in_memory();
    let there = Vat::new().limits(limits(|l| l.answer_bytes = FEW)).bootstrap(echo()).over(b).unwrap();
    let here = Vat::new().over(a).unwrap();
    for _ in 0..50 {
        let object = here.bootstrap::<Client>().resolve().unwrap();
        assert_eq!(ask(&object, "here").unwrap(), "here");
        until(&there, |tables| tables.answers() == 0);
    }
}
