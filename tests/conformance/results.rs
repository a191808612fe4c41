//! Embargoes for capabilities in results: rule 1, where a `Return` resolves the promise.

use capnp_threads::{Capability, Client, RemotePromise};

use crate::support::*;

/// A call of ours to the peer whose results will hold an object of ours.
struct Asked {
    peer: Peer,
    recorder: Recorder,
    /// The peer's reference to the object.
    object: u32,
    theirs: Client,
    question: u32,
    promise: RemotePromise,
}

impl Asked {
    fn new() -> Self {
        Self::of(Peer::new(Client::null()))
    }

    fn of(mut peer: Peer) -> Self {
        let recorder = Recorder::new();
        let object = peer.export_hosted(&recorder.client());
        let theirs = peer.introduce(Cap::Hosted(20));
        let promise = send(&theirs, GIVE, 100, &[]);
        let question = peer.expect_call_of(100).question;
        Asked { peer, recorder, object, theirs, question, promise }
    }

    /// A client for the capability in a field of the results.
    fn field(&self, field: u16) -> Client {
        self.promise.pipeline.field(field).client()
    }

    /// The next call is this one, on the capability in a field of the results; the peer will answer it.
    fn expect_ahead(&mut self, field: u16, tag: u64) -> u32 {
        let call = self.peer.expect_call_of(tag);
        assert_eq!(call.target, Target::Answer(self.question, vec![field]));
        call.question
    }

    /// The results, with the object of ours in as many fields.
    fn return_here(&mut self, fields: usize) {
        let caps = vec![Cap::Yours(self.object); fields];
        self.peer.results(self.question, 100, &caps);
    }

    fn expect_disembargo(&mut self, field: u16) -> u32 {
        let (target, embargo) = self.peer.expect_disembargo();
        assert_eq!(target, Target::Answer(self.question, vec![field]));
        embargo
    }

    /// The peer passes a call on to the object, and its answer back.
    fn forward(&mut self, ahead: u32, tag: u64) {
        let forwarded = self.peer.call(Target::Import(self.object), NOTE, tag).send();
        self.peer.expect_done(forwarded, tag);
        self.peer.results(ahead, tag, &[]);
    }

    fn echo(&mut self, embargo: u32) {
        self.peer.echo(Target::Import(self.object), embargo);
    }

    fn end(self) {
        drop((self.theirs, self.promise));
        self.peer.finish_clean();
    }
}

/// Calls on the promise and on the capability in the response wait for the same echo. The question is finished
/// behind the Disembargo that is addressed to it.
/// Rules: 1.
#[test]
fn called_results_that_are_a_local_object_hold_calls_until_the_echo() {
    let mut test = Asked::new();
    let client = test.field(0);
    let first = send(&client, NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    test.return_here(1);
    let embargo = test.expect_disembargo(0);
    let Asked { peer, recorder, object, theirs, question, promise } = test;
    let second = send(&client, NOTE, 2, &[]);
    let (_, caps) = wait(promise).unwrap();
    let third = send(&caps[0], NOTE, 3, &[]);
    assert_eq!(recorder.log(), []);
    let promise = send(&theirs, NOTE, 0, &[]);
    let mut test = Asked { peer, recorder, object, theirs, question, promise };
    let other = test.peer.expect_call().question;
    drop(client);
    assert!(!test.peer.expect_finish(question));
    test.forward(ahead, 1);
    test.echo(embargo);
    test.recorder.expect(&[1, 2, 3]);
    for answer in [first, second, third] {
        wait(answer).unwrap();
    }
    test.peer.results(other, 0, &[]);
    test.end();
}

/// No call, no embargo.
/// Rules: 1.
#[test]
fn uncalled_results_that_are_a_local_object_are_not_embargoed() {
    let mut test = Asked::new();
    let client = test.field(0);
    test.return_here(2);
    assert!(!test.peer.expect_finish(test.question));
    wait(send(&client, NOTE, 1, &[])).unwrap();
    assert_eq!(client, test.recorder.client());
    let Asked { peer, recorder, theirs, promise, .. } = test;
    let (_, caps) = wait(promise).unwrap();
    wait(send(&caps[1], NOTE, 2, &[])).unwrap();
    recorder.expect(&[1, 2]);
    drop((theirs, caps, client));
    peer.finish_clean();
}

/// Where two fields hold the same object, each has calls of its own under way.
/// Rules: 1.
#[test]
fn two_places_in_results_with_one_local_object_are_embargoed_separately() {
    let mut test = Asked::new();
    let clients = [test.field(0), test.field(1)];
    let first = send(&clients[0], NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    let second = send(&clients[1], NOTE, 2, &[]);
    let other_ahead = test.expect_ahead(1, 2);
    test.return_here(2);
    let embargoes = [test.expect_disembargo(0), test.expect_disembargo(1)];
    let held = [send(&clients[0], NOTE, 3, &[]), send(&clients[1], NOTE, 4, &[])];
    test.forward(other_ahead, 2);
    test.echo(embargoes[1]);
    test.recorder.expect(&[2, 4]);
    test.forward(ahead, 1);
    test.echo(embargoes[0]);
    test.recorder.expect(&[2, 4, 1, 3]);
    for answer in held.into_iter().chain([first, second]) {
        wait(answer).unwrap();
    }
    drop(clients);
    test.end();
}

/// The place in the results is the reference, not the client that was made for one call: a call ahead whose client
/// was dropped is under way all the same.
/// Rules: 1, 12.
#[test]
fn call_ahead_by_a_client_that_was_dropped_still_embargoes_the_results() {
    let mut test = Asked::new();
    let first = send(&test.field(0), NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    test.peer.settle();
    test.return_here(1);
    let embargo = test.expect_disembargo(0);
    let second = send(&test.field(0), NOTE, 2, &[]);
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), []);
    let Asked { peer, recorder, object, theirs, question, promise } = test;
    let (_, caps) = wait(promise).unwrap();
    let third = send(&caps[0], NOTE, 3, &[]);
    let promise = send(&theirs, NOTE, 0, &[]);
    let mut test = Asked { peer, recorder, object, theirs, question, promise };
    let other = test.peer.expect_call().question;
    test.forward(ahead, 1);
    test.echo(embargo);
    test.recorder.expect(&[1, 2, 3]);
    for answer in [first, second, third] {
        wait(answer).unwrap();
    }
    test.peer.results(other, 0, &[]);
    drop(caps);
    test.end();
}

/// A call ahead counts for a client that was made after the call's own client was dropped, and before the results
/// came.
/// Rules: 1, 12.
#[test]
fn call_ahead_embargoes_a_client_that_was_made_after_its_own_was_dropped() {
    let mut test = Asked::new();
    let first = send(&test.field(0), NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    test.peer.settle();
    let client = test.field(0);
    test.return_here(1);
    let embargo = test.expect_disembargo(0);
    let second = send(&client, NOTE, 2, &[]);
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), []);
    test.forward(ahead, 1);
    test.echo(embargo);
    test.recorder.expect(&[1, 2]);
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    drop(client);
    test.end();
}

/// A call ahead counts where the callback thread has not yet processed the drop of the client that made it.
/// Rules: 1, 12.
#[test]
fn call_ahead_embargoes_the_results_before_its_clients_drop_is_processed() {
    let mut test = Asked::of(Peer::strict(Client::null()));
    let frozen = freeze_callbacks(&mut test.peer, &test.theirs);
    let first = send(&test.field(0), NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    let client = test.field(0);
    test.return_here(1);
    let embargo = test.expect_disembargo(0);
    let second = send(&client, NOTE, 2, &[]);
    drop(frozen);
    test.peer.expect_quiet();
    assert_eq!(test.recorder.log(), []);
    test.forward(ahead, 1);
    test.echo(embargo);
    test.recorder.expect(&[1, 2]);
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    drop(client);
    test.end();
}

/// Results that are a promise of the peer's pass on that they were used.
/// Rules: 1.
#[test]
fn called_results_that_are_an_imported_promise_embargo_that_one_later() {
    let mut test = Asked::new();
    let client = test.field(0);
    let first = send(&client, NOTE, 1, &[]);
    let ahead = test.expect_ahead(0, 1);
    test.peer.results(test.question, 100, &[Cap::Promise(30)]);
    test.peer.expect_quiet();
    test.peer.resolve(30, Cap::Yours(test.object));
    let (target, embargo) = test.peer.expect_disembargo();
    assert_eq!(target, Target::Import(30));
    let second = send(&client, NOTE, 2, &[]);
    assert_eq!(test.recorder.log(), []);
    test.forward(ahead, 1);
    test.echo(embargo);
    test.recorder.expect(&[1, 2]);
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    drop(client);
    test.end();
}

/// Results that failed, or hold nothing there, are never embargoed.
/// Rules: 1.
#[test]
fn results_that_failed_or_hold_no_capability_are_not_embargoed() {
    for outcome in [Outcome::Exception("no".into()), Outcome::Results(Payload::new(1, &[]))] {
        let mut test = Asked::new();
        let client = test.field(0);
        let first = send(&client, NOTE, 1, &[]);
        let ahead = test.expect_ahead(0, 1);
        test.peer.answer(test.question, outcome);
        test.peer.sync();
        wait_failed(send(&client, NOTE, 2, &[]));
        test.peer.expect_quiet();
        test.peer.answer(ahead, Outcome::Exception("no".into()));
        assert!(wait_failed(first).contains("no"));
        drop(client);
        test.end();
    }
}

/// The bootstrap object is a result like any other.
/// Rules: 1.
#[test]
fn called_bootstrap_object_that_is_local_holds_calls_until_the_echo() {
    let mut peer = Peer::new(Client::null());
    let recorder = Recorder::new();
    let object = peer.export_hosted(&recorder.client());
    let client = peer.vat.bootstrap::<Client>();
    let question = peer.expect_bootstrap();
    let first = send(&client, NOTE, 1, &[]);
    let ahead = peer.expect_call_of(1);
    assert_eq!(ahead.target, Target::Answer(question, vec![]));
    peer.answer(question, Outcome::Results(Payload::capability(Cap::Yours(object))));
    let (target, embargo) = peer.expect_disembargo();
    assert_eq!(target, Target::Answer(question, vec![]));
    let second = send(&client, NOTE, 2, &[]);
    assert_eq!(recorder.log(), []);
    let forwarded = peer.call(Target::Import(object), NOTE, 1).send();
    peer.expect_done(forwarded, 1);
    peer.results(ahead.question, 1, &[]);
    peer.echo(Target::Import(object), embargo);
    recorder.expect(&[1, 2]);
    for answer in [first, second] {
        wait(answer).unwrap();
    }
    drop(client);
    peer.finish_clean();
}
