//! Order (rule 12): calls made on one reference arrive in the order made, whatever becomes of the reference
//! meanwhile.

use capnp_threads::{Capability, Client, RemotePromise, Stream, Vat};

use crate::support::*;

/// Calls on a promise of ours arrive in order, before and after it is fulfilled with a peer's capability.
/// Rules: 12.
#[test]
fn promise_fulfilled_with_the_peers_capability_keeps_call_order() {
    let mut peer = Peer::new(Client::null());
    let theirs = peer.introduce(Cap::Hosted(7));
    let (promise, fulfiller) = Client::promise();
    let early = notes(&promise, 1..4);
    fulfiller.fulfill(theirs);
    let late = notes(&promise, 4..7);
    serve(&mut peer, &Target::Import(7), 1..7);
    done(early, 1);
    done(late, 4);
    drop(promise);
    peer.finish_clean();
}

/// Calls on a promise of ours arrive in order, before and after it is fulfilled with an object of ours.
/// Rules: 12.
#[test]
fn promise_fulfilled_with_a_local_object_keeps_call_order() {
    let recorder = Recorder::new();
    let (promise, fulfiller) = Client::promise();
    let mut peer = Peer::new(promise.clone());
    let question = peer.bootstrap();
    let [Cap::Promise(object)] = peer.expect_results(question).caps[..] else { panic!("a promise") };
    peer.finish_keeping(question);
    let early = notes(&promise, 1..4);
    let theirs = calls(&mut peer, &Target::Import(object), 4..6);
    peer.settle();
    fulfiller.fulfill(recorder.client());
    let late = notes(&promise, 6..9);
    done(early, 1);
    done(late, 6);
    recorder.expect(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(matches!(peer.expect_resolve(object), Ok(Cap::Hosted(_))));
    returned(&mut peer, theirs, 4);
    drop(promise);
    peer.finish_clean();
}

/// Calls on a promise of ours arrive in order, before and after it is fulfilled with another promise, which becomes
/// the peer's later.
/// Rules: 12.
#[test]
fn promise_fulfilled_with_another_promise_keeps_call_order() {
    let mut peer = Peer::new(Client::null());
    let theirs = peer.introduce(Cap::Hosted(7));
    let (first, fulfill_first) = Client::promise();
    let (second, fulfill_second) = Client::promise();
    let mut answers = notes(&first, 1..3);
    fulfill_first.fulfill(second.clone());
    answers.extend(notes(&first, 3..5));
    answers.extend(notes(&second, 5..7));
    fulfill_second.fulfill(theirs);
    answers.extend(notes(&first, 7..9));
    answers.extend(notes(&second, 9..11));
    serve(&mut peer, &Target::Import(7), 1..11);
    done(answers, 1);
    drop((first, second));
    peer.finish_clean();
}

/// Calls on a capability in results to come are sent to the answer, and after the Return to what it was.
/// Rules: 12.
#[test]
fn pipelined_capability_that_is_the_peers_keeps_call_order() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 0, &[]);
    let promised = answer.pipeline.field(0).client();
    let early = notes(&promised, 1..4);
    let call = peer.expect_call_of(0);
    serve(&mut peer, &Target::Answer(call.question, vec![0]), 1..4);
    peer.results(call.question, 0, &[Cap::Hosted(8)]);
    let (_, caps) = wait(answer).unwrap();
    let late = [notes(&promised, 4..6), notes(&caps[0], 6..8)].into_iter().flatten().collect();
    serve(&mut peer, &Target::Import(8), 4..8);
    done(early, 1);
    done(late, 4);
    drop((promised, caps, client));
    peer.finish_clean();
}

/// Where a capability in results to come turns out to be an object of ours, calls after the Return wait for those
/// that come back.
/// Rules: 12.
#[test]
fn pipelined_capability_that_is_a_local_object_keeps_call_order() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 0, &[]);
    let promised = answer.pipeline.field(0).client();
    let early = notes(&promised, 1..3);
    let call = peer.expect_call_of(0);
    let at = Target::Answer(call.question, vec![0]);
    let under_way = take(&mut peer, &at, 1..3);
    peer.results(call.question, 0, &[Cap::Yours(object)]);
    let (target, embargo) = peer.expect_disembargo();
    assert_eq!(target, at);
    let (_, caps) = wait(answer).unwrap();
    let late = [notes(&promised, 3..5), notes(&caps[0], 5..7)].into_iter().flatten().collect();
    reflect(&mut peer, object, under_way, 1);
    assert_eq!(recorder.log(), [1, 2], "the others wait for the Disembargo");
    peer.echo(Target::Import(object), embargo);
    done(early, 1);
    done(late, 3);
    recorder.expect(&[1, 2, 3, 4, 5, 6]);
    drop((promised, caps, client));
    peer.finish_clean();
}

/// Calls on a promise of the peer's go to the promise, and after its Resolve to what it was: without an embargo, as
/// it is the peer's own.
/// Rules: 12.
#[test]
fn imported_promise_resolved_to_the_peers_capability_keeps_call_order() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Promise(5));
    let early = notes(&client, 1..4);
    serve(&mut peer, &Target::Import(5), 1..4);
    peer.resolve(5, Cap::Promise(6));
    peer.sync();
    let middle = notes(&client, 4..6);
    serve(&mut peer, &Target::Import(6), 4..6);
    peer.resolve(6, Cap::Hosted(7));
    peer.sync();
    let late = notes(&client, 6..8);
    serve(&mut peer, &Target::Import(7), 6..8);
    for (answers, first) in [(early, 1), (middle, 4), (late, 6)] {
        done(answers, first);
    }
    drop(client);
    peer.finish_clean();
}

/// Where a promise of the peer's becomes an object of ours, calls after the Resolve, through any clone of the
/// client, stay behind the embargo until the echo.
/// Rules: 12.
#[test]
fn imported_promise_resolved_to_a_local_object_keeps_call_order() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Promise(5));
    let clone = client.clone();
    let early = notes(&client, 1..3);
    let under_way = take(&mut peer, &Target::Import(5), 1..3);
    peer.resolve(5, Cap::Yours(object));
    let (target, embargo) = peer.expect_disembargo();
    assert_eq!(target, Target::Import(5));
    let late = [notes(&client, 3..5), notes(&clone, 5..7)].into_iter().flatten().collect();
    reflect(&mut peer, object, under_way, 1);
    peer.settle();
    assert_eq!(recorder.log(), [1, 2], "the others wait for the Disembargo");
    peer.echo(Target::Import(object), embargo);
    done(early, 1);
    done(late, 3);
    recorder.expect(&[1, 2, 3, 4, 5, 6]);
    drop((client, clone));
    peer.finish_clean();
}

/// Through a proxy. Calls of A on our export of B's capability, and on the answers of those, are forwarded ahead
/// and in order; after the Return, A's calls on the result stay behind those on the answer.
/// Rules: 12.
#[test]
fn proxy_of_a_capability_forwards_calls_and_pipelined_calls_in_order() {
    let (mut a, mut b, proxy) = proxied();
    let first = a.call(Target::Import(proxy), NOTE, 0).send();
    let on_answer = Target::Answer(first, vec![0]);
    let early = calls(&mut a, &on_answer, 1..4);
    let call = b.expect_call_of(0);
    assert_eq!(call.target, Target::Import(7));
    let ahead = Target::Answer(call.question, vec![0]);
    serve(&mut b, &ahead, 1..4);
    let beside = calls(&mut a, &Target::Import(proxy), 10..12);
    serve(&mut b, &Target::Import(7), 10..12);
    b.results(call.question, 0, &[Cap::Hosted(8)]);
    let results = a.expect_results(first);
    let [Cap::Hosted(result)] = results.caps[..] else { panic!("{results:?}") };
    let late = calls(&mut a, &Target::Import(result), 4..6);
    let later = calls(&mut a, &on_answer, 6..8);
    let last = calls(&mut a, &Target::Import(result), 8..10);
    serve(&mut b, &Target::Import(8), 4..10);
    for (questions, tag) in [(early, 1), (late, 4), (later, 6), (last, 8), (beside, 10)] {
        returned(&mut a, questions, tag);
    }
    a.finish_clean();
    b.finish_clean();
}

/// Where B returns an object of ours, what A calls after the Return waits until the calls that were forwarded to B
/// have come back from there.
/// Rules: 12.
#[test]
fn proxy_of_a_capability_that_returns_a_local_object_keeps_call_order() {
    let recorder = Recorder::new();
    let (mut a, mut b, proxy) = proxied();
    // B has a capability of ours, by way of the params of a call.
    let theirs = b.introduce(Cap::Hosted(9));
    let given = send(&theirs, NOTE, 50, &[recorder.client()]);
    let call = b.expect_call_of(50);
    let [Cap::Hosted(object)] = call.params.caps[..] else { panic!("{call:?}") };
    b.answer_keeping(call.question, Outcome::Results(Payload::new(50, &[])));
    wait(given).unwrap();

    let first = a.call(Target::Import(proxy), NOTE, 0).send();
    let on_answer = Target::Answer(first, vec![0]);
    let early = calls(&mut a, &on_answer, 1..3);
    let call = b.expect_call_of(0);
    let ahead = Target::Answer(call.question, vec![0]);
    let under_way = take(&mut b, &ahead, 1..3);
    b.results(call.question, 0, &[Cap::Yours(object)]);
    let (target, embargo) = b.expect_disembargo();
    assert_eq!(target, ahead);
    let results = a.expect_results(first);
    let [Cap::Promise(result)] = results.caps[..] else { panic!("behind the embargo: {results:?}") };
    let late = calls(&mut a, &Target::Import(result), 3..5);
    let later = calls(&mut a, &on_answer, 5..7);
    a.settle();
    reflect(&mut b, object, under_way, 1);
    b.settle();
    assert_eq!(recorder.log(), [1, 2], "the others wait for the Disembargo");
    b.echo(Target::Import(object), embargo);
    assert!(matches!(a.expect_resolve(result), Ok(Cap::Hosted(_))));
    for (questions, tag) in [(early, 1), (late, 3), (later, 5)] {
        returned(&mut a, questions, tag);
    }
    recorder.expect(&[1, 2, 3, 4, 5, 6]);
    drop(theirs);
    a.finish_clean();
    b.finish_clean();
}

/// Calls of A on a promise of B's are forwarded in order, before B resolves it and after, and the second time too,
/// when it becomes an object of ours: behind the embargo then.
/// Rules: 12.
#[test]
fn proxy_of_an_imported_promise_keeps_call_order_before_and_after_resolves() {
    let recorder = Recorder::new();
    let mut b = Peer::new(recorder.client());
    let object = b.get_bootstrap();
    let mut a = Peer::new(b.introduce(Cap::Promise(5)));
    let question = a.bootstrap();
    let [Cap::Promise(proxy)] = a.expect_results(question).caps[..] else { panic!("a promise") };
    a.finish_keeping(question);
    let proxy = Target::Import(proxy);
    let early = calls(&mut a, &proxy, 1..3);
    serve(&mut b, &Target::Import(5), 1..3);
    b.resolve(5, Cap::Promise(6));
    b.sync();
    let middle = calls(&mut a, &proxy, 3..5);
    let under_way = take(&mut b, &Target::Import(6), 3..5);
    b.resolve(6, Cap::Yours(object));
    let (target, embargo) = b.expect_disembargo();
    assert_eq!(target, Target::Import(6));
    let late = calls(&mut a, &proxy, 5..7);
    a.settle();
    reflect(&mut b, object, under_way, 3);
    b.settle();
    assert_eq!(recorder.log(), [3, 4], "the others wait for the Disembargo");
    b.echo(Target::Import(object), embargo);
    let Target::Import(promise) = proxy else { unreachable!("as made above") };
    assert!(matches!(a.expect_resolve(promise), Ok(Cap::Hosted(_))));
    for (questions, tag) in [(early, 1), (middle, 3), (late, 5)] {
        returned(&mut a, questions, tag);
    }
    recorder.expect(&[3, 4, 5, 6]);
    a.finish_clean();
    b.finish_clean();
}

/// Streaming and plain calls wait behind an embargo together.
/// Rules: 12.
#[test]
fn streaming_and_plain_calls_held_by_an_embargo_arrive_in_order() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Promise(5));
    let stream = Stream::new();
    let mixed = |tag| {
        stream.send(request(&client, NOTE, tag, &[])).unwrap();
        send(&client, NOTE, tag + 1, &[])
    };
    let early = mixed(1);
    let under_way = take(&mut peer, &Target::Import(5), 1..3);
    peer.resolve(5, Cap::Yours(object));
    let (_, embargo) = peer.expect_disembargo();
    let late = [mixed(3), mixed(5)];
    reflect(&mut peer, object, under_way, 1);
    peer.echo(Target::Import(object), embargo);
    assert_eq!(wait(early).unwrap().0, 2);
    assert_eq!(late.map(|answer| wait(answer).unwrap().0), [4, 6]);
    stream.finish().unwrap();
    recorder.expect(&[1, 2, 3, 4, 5, 6]);
    drop((stream, client));
    peer.finish_clean();
}

/// Streaming and plain calls on one client arrive in the order made.
/// Rules: 12.
#[test]
fn streaming_and_plain_calls_on_one_client_arrive_in_order() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Promise(5));
    let stream = Stream::new();
    let mut answers = Vec::new();
    for tag in (1..9).step_by(2) {
        stream.send(request(&client, NOTE, tag, &[])).unwrap();
        answers.push(send(&client, NOTE, tag + 1, &[]));
    }
    serve(&mut peer, &Target::Import(5), 1..9);
    peer.resolve(5, Cap::Hosted(6));
    peer.sync();
    for tag in (9..17).step_by(2) {
        stream.send(request(&client, NOTE, tag, &[])).unwrap();
        answers.push(send(&client, NOTE, tag + 1, &[]));
    }
    serve(&mut peer, &Target::Import(6), 9..17);
    for (answer, tag) in answers.into_iter().zip((2..17).step_by(2)) {
        assert_eq!(wait(answer).unwrap().0, tag);
    }
    stream.finish().unwrap();
    drop((stream, client));
    peer.finish_clean();
}

/// Streaming and plain calls that wait in a promise of ours arrive in the order made when it is fulfilled with an
/// object.
/// Rules: 12.
#[test]
fn streaming_and_plain_calls_in_an_unfulfilled_promise_arrive_in_order() {
    let recorder = Recorder::new();
    let peer = Peer::new(recorder.client());
    let (promise, fulfiller) = Client::promise();
    let stream = Stream::new();
    let mut answers = Vec::new();
    for tag in (1..9).step_by(2) {
        stream.send(request(&promise, NOTE, tag, &[])).unwrap();
        answers.extend(notes(&promise, tag + 1..tag + 2));
    }
    fulfiller.fulfill(recorder.client());
    stream.send(request(&promise, NOTE, 9, &[])).unwrap();
    answers.extend(notes(&promise, 10..11));
    stream.finish().unwrap();
    for answer in answers {
        wait(answer).unwrap();
    }
    recorder.expect(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    peer.finish_clean();
}

/// Where the peer's promise becomes a place in results of ours to come, calls that were sent to it come back to
/// that place, and wait there, while those that are made behind the Disembargo wait in a promise. They go on in
/// order when the results are there, and when a method says ahead what they will be.
/// Rules: 12.
#[test]
fn imported_promise_resolved_to_unreturned_results_of_ours_keeps_call_order() {
    for method in [GIVE, AHEAD] {
        let (recorder, result) = (Recorder::new(), Recorder::new());
        let (promise, fulfiller) = Client::promise();
        let mut peer = Peer::new(promise);
        let question = peer.bootstrap();
        let [Cap::Promise(object)] = peer.expect_results(question).caps[..] else { panic!("a promise") };
        peer.finish_keeping(question);
        let id = peer.export_hosted(&result.client());
        let theirs = peer.introduce(Cap::Promise(20));
        let asked = peer.call(Target::Import(object), method, 0).caps(&[Cap::Yours(id)]).send();
        let at = Target::Answer(asked, vec![0]);
        let early = notes(&theirs, 1..3);
        let under_way = take(&mut peer, &Target::Import(20), 1..3);
        peer.resolve(20, Cap::YourAnswer(asked, vec![0]));
        let (target, embargo) = peer.expect_disembargo();
        assert_eq!(target, Target::Import(20));
        let back = calls(&mut peer, &at, 1..3);
        peer.echo(at, embargo);
        peer.settle();
        let late = notes(&theirs, 3..5);
        fulfiller.fulfill(recorder.client());
        assert!(matches!(peer.expect_resolve(object), Ok(Cap::Hosted(_))));
        returned(&mut peer, back, 1);
        result.expect(&[1, 2, 3, 4]);
        for (question, tag) in under_way.into_iter().zip(1..) {
            peer.results(question, tag, &[]);
        }
        done(early, 1);
        done(late, 3);
        if method == AHEAD {
            recorder.held().answer(0, &[result.client()]);
        }
        assert_eq!(peer.expect_results(asked).caps, [Cap::Hosted(id)]);
        drop(theirs);
        peer.finish_clean();
    }
}

/// Calls that come for a promised answer of ours, and for the capability in it after its Return, reach it in the
/// order of their arrival.
/// Rules: 12.
#[test]
fn calls_on_an_answer_before_and_after_its_return_arrive_in_order() {
    let (recorder, result) = (Recorder::new(), Recorder::new());
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let first = peer.call(Target::Import(object), HOLD, 0).send();
    let on_answer = Target::Answer(first, vec![0]);
    let early = calls(&mut peer, &on_answer, 1..4);
    recorder.held().answer(0, &[result.client()]);
    let results = peer.expect_results(first);
    let [Cap::Hosted(id)] = results.caps[..] else { panic!("{results:?}") };
    let late = calls(&mut peer, &Target::Import(id), 4..6);
    let later = calls(&mut peer, &on_answer, 6..8);
    let last = calls(&mut peer, &Target::Import(id), 8..10);
    for (questions, tag) in [(early, 1), (late, 4), (later, 6), (last, 8)] {
        returned(&mut peer, questions, tag);
    }
    result.expect(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    peer.finish_clean();
}

/// Where a method says ahead what its results will be, calls on them before that, after it, and after the Return
/// arrive in order.
/// Rules: 12.
#[test]
fn calls_on_results_before_and_after_set_pipeline_arrive_in_order() {
    let (recorder, result) = (Recorder::new(), Recorder::new());
    let mut peer = Peer::of(&Vat::new().bootstrap(recorder.client()));
    let object = peer.get_bootstrap();
    let give = peer.call(Target::Import(object), HOLD, 100).send();
    recorder.held().answer(0, &[result.client()]);
    let [Cap::Hosted(id)] = peer.expect_results(give).caps[..] else { panic!("an object of ours") };
    // The first call waits in the mailbox, so that those on its answer do, too.
    let first = peer.call(Target::Import(object), AHEAD, 0).caps(&[Cap::Yours(id)]).send();
    let on_answer = Target::Answer(first, vec![0]);
    let early = calls(&mut peer, &on_answer, 1..4);
    returned(&mut peer, early, 1);
    let held = recorder.held();
    let middle = calls(&mut peer, &on_answer, 4..6);
    returned(&mut peer, middle, 4);
    let Held { caps, .. } = &held;
    assert_eq!(caps[0], result.client());
    let caps = caps.clone();
    held.answer(0, &caps);
    assert_eq!(peer.expect_results(first).caps, [Cap::Hosted(id)]);
    let late = calls(&mut peer, &on_answer, 6..8);
    let last = calls(&mut peer, &Target::Import(id), 8..10);
    returned(&mut peer, late, 6);
    returned(&mut peer, last, 8);
    result.expect(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    drop(caps);
    peer.finish_clean();
}

type Tags = std::ops::Range<u64>;

/// Calls of ours, in this order.
fn notes(client: &Client, tags: Tags) -> Vec<RemotePromise> {
    tags.map(|tag| send(client, NOTE, tag, &[])).collect()
}

/// They are answered, each with its tag.
#[track_caller]
fn done(answers: Vec<RemotePromise>, first: u64) {
    for (answer, tag) in answers.into_iter().zip(first..) {
        assert_eq!(wait(answer).unwrap().0, tag);
    }
}

/// The next calls that come to the peer: these, in order, to this target. Their questions.
#[track_caller]
fn take(peer: &mut Peer, target: &Target, tags: Tags) -> Vec<u32> {
    let mut questions = Vec::new();
    for tag in tags {
        let call = peer.expect_call_of(tag);
        assert_eq!(call.target, *target, "call {tag}");
        questions.push(call.question);
    }
    questions
}

/// The next calls that come to the peer: these, in order, to this target. They are answered.
#[track_caller]
fn serve(peer: &mut Peer, target: &Target, tags: Tags) {
    for (question, tag) in take(peer, target, tags.clone()).into_iter().zip(tags) {
        peer.results(question, tag, &[]);
    }
}

/// The peer sends calls of ours back to an object of ours, and answers them with what that says.
#[track_caller]
fn reflect(peer: &mut Peer, object: u32, under_way: Vec<u32>, first: u64) {
    let last = first + under_way.len() as u64;
    let back = calls(peer, &Target::Import(object), first..last);
    returned(peer, back, first);
    for (question, tag) in under_way.into_iter().zip(first..) {
        peer.results(question, tag, &[]);
    }
}

/// Calls of the peer's, in this order: their questions.
fn calls(peer: &mut Peer, target: &Target, tags: Tags) -> Vec<u32> {
    tags.map(|tag| peer.call(target.clone(), NOTE, tag).send()).collect()
}

/// They are answered, each with its tag.
#[track_caller]
fn returned(peer: &mut Peer, questions: Vec<u32>, first: u64) {
    for (question, tag) in questions.into_iter().zip(first..) {
        peer.expect_done(question, tag);
    }
}

/// Two peers of one vat of ours: A has our export of a capability of B's, which is 7 there.
#[track_caller]
fn proxied() -> (Peer, Peer, u32) {
    let mut b = Peer::new(Client::null());
    let mut a = Peer::new(b.introduce(Cap::Hosted(7)));
    let proxy = a.get_bootstrap();
    (a, b, proxy)
}

/// A place in the results of a call made here is one reference, although clients of it have gone before.
/// Rules: 12.
#[test]
fn new_clients_of_a_place_in_results_are_one_reference_after_others_dropped() {
    let recorder = Recorder::new();
    let (promise, fulfiller) = Client::promise();
    let call = send(&promise, GIVE, 1, &[recorder.client()]);
    let place = call.pipeline.field(0);
    drop(place.client());
    let clients = [place.client(), place.client()];
    assert!(clients[0] == clients[1]);
    let sent: Vec<_> = (2..8).map(|tag| send(&clients[tag as usize % 2], NOTE, tag, &[])).collect();
    fulfiller.fulfill(recorder.client());
    sent.into_iter().for_each(|call| drop(wait(call).unwrap()));
    recorder.expect(&[1, 2, 3, 4, 5, 6, 7]);
}
