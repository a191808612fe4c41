//! How long a call goes on that the peer has finished (rule 10): as long as anything can use the name that the peer
//! gave to its results, and no longer.
//!
//! Each test runs in both thread modes.

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;

use capnp_threads::{Call as Served, Capability, Client, Result, Server};

use crate::support::*;

/// The kinds of Finish: of a peer since version 1.0, and of an older one.
const WORKAROUND: [bool; 2] = [false, true];

fn in_both_modes(test: impl Fn(fn(Client) -> Peer)) {
    for start in [Peer::new, Peer::strict] {
        test(start);
    }
}

/// A peer, an object of ours, its ID, and a call that is kept: its results are what the peer names.
fn with_kept_call(start: fn(Client) -> Peer) -> (Peer, Recorder, u32, u32, Held) {
    let recorder = Recorder::new();
    let mut peer = start(recorder.client());
    let object = peer.get_bootstrap();
    let kept = peer.call(Target::Import(object), HOLD, 1).send();
    let held = recorder.held();
    (peer, recorder, object, kept, held)
}

fn finish(peer: &mut Peer, question: u32, workaround: bool) {
    peer.send(Msg::Finish { question, release: true, workaround });
}

/// The call is canceled: its answer says so, and its method is told.
fn expect_canceled(peer: &mut Peer, question: u32, held: &Held) {
    peer.expect_canceled(question);
    held.wait_canceled();
}

/// The method to whose params the name belongs ignores it and returns at once.
/// Rules: 10.
#[test]
fn finished_call_named_in_ignored_params_is_canceled() {
    in_both_modes(|start| {
        for workaround in WORKAROUND {
            let (mut peer, _recorder, object, kept, held) = with_kept_call(start);
            let named = Cap::YourAnswer(kept, vec![0]);
            let ignored = peer.call(Target::Import(object), NOTE, 2).caps(&[named.clone(), named]).send();
            peer.expect_done(ignored, 2);
            finish(&mut peer, kept, workaround);
            expect_canceled(&mut peer, kept, &held);
            peer.finish_clean();
        }
    });
}

/// The name comes back in results. The peer can use it as long as it has the export that stands for it.
/// Rules: 10.
#[test]
fn finished_call_named_by_an_export_runs_until_the_export_is_released() {
    in_both_modes(|start| {
        let (mut peer, _recorder, object, kept, held) = with_kept_call(start);
        let give = peer.call(Target::Import(object), GIVE, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        let Cap::Promise(export) = peer.expect_results(give).caps[0] else {
            panic!("it is a promise of ours")
        };
        peer.finish_keeping(give);
        peer.finish(kept);
        peer.settle();
        assert!(!held.is_canceled());
        peer.release(export, 1);
        expect_canceled(&mut peer, kept, &held);
        peer.finish_clean();
    });
}

/// The Finish of the call that gave the name back releases the results, and so the name.
/// Rules: 10.
#[test]
fn finished_call_named_by_results_is_canceled_when_those_are_finished() {
    in_both_modes(|start| {
        let (mut peer, _recorder, object, kept, held) = with_kept_call(start);
        let give = peer.call(Target::Import(object), GIVE, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        peer.expect_results(give);
        peer.finish(kept);
        peer.settle();
        assert!(!held.is_canceled());
        peer.finish(give);
        expect_canceled(&mut peer, kept, &held);
        peer.finish_clean();
    });
}

/// An object of ours holds the name until it drops its client. A call through the client counts as well.
/// Rules: 10.
#[test]
fn finished_call_named_by_an_objects_client_runs_until_that_is_dropped() {
    in_both_modes(|start| {
        let (mut peer, recorder, object, kept, held) = with_kept_call(start);
        let holds = peer.call(Target::Import(object), HOLD, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        let mut holder = recorder.held();
        peer.finish(kept);
        let call = send(&holder.caps[0], NOTE, 3, &[]);
        holder.caps.clear();
        holder.answer(2, &[]);
        peer.expect_done(holds, 2);
        peer.settle();
        assert!(!held.is_canceled(), "a call waits in the promise");
        drop(call);
        expect_canceled(&mut peer, kept, &held);
        peer.finish_clean();
    });
}

/// A method holds the name: the call goes on, and the method gets its results.
/// Rules: 10.
#[test]
fn finished_call_named_by_an_objects_client_gives_that_its_results() {
    in_both_modes(|start| {
        let (mut peer, recorder, object, kept, held) = with_kept_call(start);
        let inner = Recorder::new();
        let holds = peer.call(Target::Import(object), HOLD, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        let holder = recorder.held();
        peer.finish(kept);
        peer.settle();
        held.answer(1, &[inner.client()]);
        peer.expect_canceled(kept);
        assert_eq!(wait(send(&holder.caps[0], NOTE, 7, &[])).unwrap().0, 7);
        inner.expect(&[7]);
        holder.answer(2, &[]);
        peer.expect_done(holds, 2);
        peer.finish_clean();
    });
}

/// The call that brought the name is canceled, wherever it waits: for the very answer that it names, for another
/// one, or in a promise.
/// Rules: 10.
#[test]
fn finished_call_named_by_a_call_canceled_while_it_waits_is_canceled() {
    in_both_modes(|start| {
        for workaround in WORKAROUND {
            for first in 0..2 {
                let (mut peer, recorder, object, kept, held) = with_kept_call(start);
                let (promise, fulfiller) = Client::promise();
                let promise_id = peer.export_promise(&promise);
                let other = peer.call(Target::Import(object), HOLD, 2).send();
                let other_held = recorder.held();
                let places = [
                    Target::Answer(kept, vec![1]),
                    Target::Answer(other, vec![1]),
                    Target::Import(promise_id),
                ];
                let named = [Cap::YourAnswer(kept, vec![0])];
                let waiting = places.map(|to| peer.call(to, NOTE, 3).caps(&named).send());
                let mut questions = [&waiting[..], &[kept, other]].concat();
                questions.rotate_left(first * 3);
                for question in questions {
                    finish(&mut peer, question, workaround);
                }
                expect_canceled(&mut peer, kept, &held);
                expect_canceled(&mut peer, other, &other_held);
                peer.expect_canceled(waiting[0]);
                peer.expect_canceled(waiting[1]);
                if workaround {
                    // It is delivered first, and so waits for the promise.
                    fulfiller.fulfill(recorder.client());
                    peer.expect_resolve(promise_id).unwrap();
                }
                peer.expect_canceled(waiting[2]);
                peer.finish_clean();
            }
        }
    });
}

/// The call that brought the name is canceled while it waits for its turn, behind the call that it names.
/// Rules: 10.
#[test]
fn finished_call_named_by_a_call_canceled_in_the_mailbox_is_canceled() {
    in_both_modes(|start| {
        for workaround in WORKAROUND {
            let (entered, has_entered) = channel();
            let mut peer = start(Client::new(Waits { entered: Mutex::new(entered) }));
            let object = peer.get_bootstrap();
            let busy = peer.call(Target::Import(object), 0, 1).send();
            next(&has_entered);
            let named = [Cap::YourAnswer(busy, vec![0])];
            let behind = peer.call(Target::Import(object), 1, 2).caps(&named).send();
            finish(&mut peer, behind, workaround);
            finish(&mut peer, busy, workaround);
            peer.expect_canceled(busy);
            peer.expect_canceled(behind);
            peer.finish_clean();
        }
    });
}

/// The name was handed on in a call to another object of ours, which is canceled before its turn.
/// Rules: 10.
#[test]
fn finished_call_named_by_a_nested_call_canceled_in_the_mailbox_is_canceled() {
    in_both_modes(|start| {
        let (entered, has_entered) = channel();
        let waits = Client::new(Waits { entered: Mutex::new(entered) });
        let recorder = Recorder::new();
        let mut peer = start(recorder.client());
        let object = peer.get_bootstrap();
        let waits_id = peer.export_hosted(&waits);
        let busy = peer.call(Target::Import(waits_id), 0, 1).send();
        next(&has_entered);
        let named = [Cap::YourAnswer(busy, vec![0])];
        let handed_on = peer.call(Target::Import(object), HOLD, 2).caps(&named).send();
        let mut held = recorder.held();
        let nested = send(&waits, 1, 3, &std::mem::take(&mut held.caps));
        peer.finish(handed_on);
        peer.expect_canceled(handed_on);
        drop(held);
        peer.finish(busy);
        peer.settle();
        drop(nested);
        peer.expect_canceled(busy);
        drop(waits);
        peer.finish_clean();
    });
}

/// The peer names its call in the results of a call of ours, and in a Resolve.
/// Rules: 10.
#[test]
fn finished_call_named_by_the_peers_results_or_resolve_runs_until_dropped() {
    in_both_modes(|start| {
        for by_resolve in [false, true] {
            let (mut peer, _recorder, _, kept, held) = with_kept_call(start);
            let named = Cap::YourAnswer(kept, vec![0]);
            let client = if by_resolve {
                let client = peer.introduce(Cap::Promise(8));
                peer.resolve(8, named);
                peer.sync();
                client
            } else {
                peer.introduce(named)
            };
            peer.finish(kept);
            peer.settle();
            assert!(!held.is_canceled());
            drop(client);
            expect_canceled(&mut peer, kept, &held);
            peer.finish_clean();
        }
    });
}

/// The name was passed on to a third vat, which holds a promise of ours for it.
/// Rules: 10.
#[test]
fn finished_call_named_to_another_vat_runs_until_that_vat_releases_it() {
    in_both_modes(|start| {
        let mut far = start(Client::null());
        let proxy = far.introduce(Cap::Hosted(7));
        let (mut peer, _recorder, _, kept, held) = with_kept_call(start);
        let proxy_id = peer.export_hosted(&proxy);
        let forwarded =
            peer.call(Target::Import(proxy_id), NOTE, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        let call = far.expect_call_of(2);
        let Cap::Promise(export) = call.params.caps[0] else { panic!("it is a promise of ours") };
        far.answer_keeping(call.question, Outcome::Results(Payload::new(2, &[])));
        peer.expect_done(forwarded, 2);
        peer.finish(kept);
        peer.settle();
        far.sync();
        assert!(!held.is_canceled());
        far.release(export, 1);
        expect_canceled(&mut peer, kept, &held);
        drop(proxy);
        peer.finish_clean();
        far.finish_clean();
    });
}

/// A call names its own results in its params. Nothing but that call could use the name.
/// Rules: 10.
#[test]
fn finished_call_that_names_its_own_results_is_canceled() {
    in_both_modes(|start| {
        for workaround in WORKAROUND {
            let recorder = Recorder::new();
            let mut peer = start(recorder.client());
            let object = peer.get_bootstrap();
            let question = peer.new_question();
            let mut params = Payload::new(1, &[]);
            params.caps = vec![Cap::YourAnswer(question, vec![0])];
            let call = Call {
                question,
                target: Target::Import(object),
                interface: INTERFACE,
                method: HOLD,
                params,
                yourself: false,
                no_pipelining: false,
                only_pipeline: false,
            };
            let named_by_itself = Msg::Call(Call { params: Payload::new(1, &[]), ..call.clone() });
            peer.send_as(&named_by_itself, Msg::Call(call).encode());
            let held = recorder.held();
            finish(&mut peer, question, workaround);
            expect_canceled(&mut peer, question, &held);
            drop(held);
            peer.finish_clean();
        }
    });
}

/// Calls of an older peer wait for each other's results, in a chain, and all are finished, in any order.
/// Rules: 10.
#[test]
fn finished_calls_with_the_workaround_that_wait_for_each_other_are_canceled() {
    in_both_modes(|start| {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (mut peer, recorder, _, kept, held) = with_kept_call(start);
            let second = peer.call(Target::Answer(kept, vec![0]), NOTE, 2).send();
            let third = peer.call(Target::Answer(second, vec![0]), NOTE, 3).send();
            let questions = [kept, second, third];
            for at in order {
                peer.settle();
                assert!(!held.is_canceled());
                finish(&mut peer, questions[at], true);
            }
            for question in [third, second, kept] {
                peer.expect_canceled(question);
            }
            held.wait_canceled();
            recorder.expect(&[1]);
            peer.finish_clean();
        }
    });
}

/// A finished call of an older peer waits in a promise that stands for the results of another one.
/// Rules: 10.
#[test]
fn finished_call_that_waits_for_another_calls_results_does_not_keep_that_running() {
    in_both_modes(|start| {
        let (mut peer, _recorder, object, kept, held) = with_kept_call(start);
        let give = peer.call(Target::Import(object), GIVE, 2).caps(&[Cap::YourAnswer(kept, vec![0])]).send();
        let Cap::Promise(export) = peer.expect_results(give).caps[0] else {
            panic!("it is a promise of ours")
        };
        peer.finish_keeping(give);
        let waiting = peer.call(Target::Import(export), NOTE, 3).send();
        peer.settle();
        for question in [kept, waiting] {
            finish(&mut peer, question, true);
        }
        peer.settle();
        assert!(!held.is_canceled(), "the peer has the promise");
        peer.release(export, 1);
        expect_canceled(&mut peer, kept, &held);
        peer.expect_canceled(waiting);
        peer.finish_clean();
    });
}

/// As long as the call that others wait for is not finished, the workaround holds: they are delivered.
/// Rules: 10.
#[test]
fn finished_call_with_the_workaround_is_delivered_when_its_target_returns() {
    in_both_modes(|start| {
        let (mut peer, _recorder, _, kept, held) = with_kept_call(start);
        let inner = Recorder::new();
        let waiting = peer.call(Target::Answer(kept, vec![0]), NOTE, 2).send();
        finish(&mut peer, waiting, true);
        peer.settle();
        held.answer(1, &[inner.client()]);
        peer.expect_results(kept);
        let ret = peer.expect_return(waiting);
        assert_eq!(ret.outcome, Outcome::Canceled);
        inner.expect(&[2]);
        peer.finish_clean();
    });
}

#[track_caller]
fn next(entered: &Receiver<()>) {
    entered.recv_timeout(peer::DEADLINE).expect("the method is entered");
}

/// Method 0 keeps its turn until its call is canceled; others return at once.
struct Waits {
    entered: Mutex<Sender<()>>,
}

impl Server for Waits {
    fn dispatch(&self, call: &mut Served) -> Result<()> {
        if call.method_id() == 0 {
            self.entered.lock().unwrap().send(()).unwrap();
            call.cancellation().wait()?;
        }
        Ok(())
    }
}
