//! Third parties (rule 14): a capability of another vat is used through its vine; what level 1 does not have, and
//! what is not in the schema, comes back as `unimplemented` or is an exception. None of it ends the connection.

use std::sync::{Arc, Mutex};

use capnp::any_pointer;
use capnp::capability::FromClientHook;
use capnp::message::{Builder, ReaderOptions, SegmentArray};
use capnp::traits::{Imbue, ImbueMut};
use capnp::Word;
use capnp_threads::error::TransportError;
use capnp_threads::generated::rpc_capnp::message;
use capnp_threads::transport::{MessageSink, Outbound, Sink, Transport};
use capnp_threads::{Capability, Client, ExceptionKind, RemotePromise, Vat};

use crate::support::message::{build, FUTURE, INTERFACE};
use crate::support::*;

/// An ID that no word of a message but one begins or ends with.
const MARK: u32 = 0x5eed_0123;
/// A variant that no union of the schema has.
const VARIANT: u16 = 99;

/// A `thirdPartyHosted` in params is called through its vine, and released as the vine.
/// Rules: 14.
#[test]
fn third_party_in_params_is_called_and_released_as_its_vine() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let question = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Third { vine: 7 }]).send();
    let held = recorder.held();
    call_through(&mut peer, &held.caps[0], 7);
    held.answer(1, &[]);
    peer.expect_done(question, 1);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A `thirdPartyHosted` in results is called through its vine. Calls that were pipelined on it stay before later
/// ones.
/// Rules: 14.
#[test]
fn third_party_in_results_is_called_as_its_vine_in_order() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(8));
    let answer = send(&client, NOTE, 1, &[]);
    let promised = answer.pipeline.field(0).client();
    let early = send(&promised, NOTE, 2, &[]);
    let (call, pipelined) = (peer.expect_call_of(1), peer.expect_call_of(2));
    peer.results(call.question, 1, &[Cap::Third { vine: 7 }]);
    peer.results(pipelined.question, 2, &[]);
    wait(early).unwrap();
    let (_, caps) = wait(answer).unwrap();
    call_through(&mut peer, &caps[0], 7);
    call_through(&mut peer, &promised, 7);
    drop((caps, promised, client));
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A promise that is resolved to a `thirdPartyHosted` is called through its vine.
/// Rules: 14.
#[test]
fn promise_resolved_to_a_third_party_is_called_as_its_vine() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Promise(5));
    peer.resolve(5, Cap::Third { vine: 7 });
    assert_eq!(peer.expect_release(5), 1);
    call_through(&mut peer, &client, 7);
    drop(client);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}

/// A vine counts its references as any export of the peer's does. Both clients are the same object.
/// Rules: 14.
#[test]
fn vine_received_twice_is_one_object_and_counts_both_references() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let caps = [Cap::Third { vine: 7 }, Cap::Hosted(7), Cap::Third { vine: 7 }];
    let question = peer.call(Target::Import(object), HOLD, 1).caps(&caps).send();
    let held = recorder.held();
    assert_eq!((peer.vat.snapshot().imports(), peer.vat.snapshot().import_references()), (1, 3));
    assert!(held.caps.iter().all(|cap| *cap == held.caps[0]));
    held.answer(1, &[]);
    peer.expect_done(question, 1);
    assert_eq!(peer.expect_release(7), 3);
    peer.finish_clean();
}

/// A vine goes back to its vat as its own, and to another vat as an object of ours that forwards.
/// Rules: 14.
#[test]
fn vine_passed_on_is_its_vats_own_there_and_an_export_elsewhere() {
    let mut far = Peer::new(Client::null());
    let vine = far.introduce(Cap::Third { vine: 7 });
    let mut near = Peer::new(vine.clone());
    let proxy = near.get_bootstrap();
    let question = near.call(Target::Import(proxy), NOTE, 1).send();
    let forwarded = far.expect_call_of(1);
    assert_eq!(forwarded.target, Target::Import(7));
    far.results(forwarded.question, 1, &[]);
    near.expect_done(question, 1);
    near.finish_clean();
    let answer = send(&vine, NOTE, 2, std::slice::from_ref(&vine));
    let call = far.expect_call_of(2);
    assert_eq!(call.params.caps, [Cap::Yours(7)]);
    far.results(call.question, 2, &[]);
    wait(answer).unwrap();
    drop(vine);
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// Provide, Accept, ThirdPartyAnswer and Join come back whole and change nothing, as do the obsolete ones.
/// Rules: 14.
#[test]
fn level_3_and_obsolete_messages_come_back_whole_and_change_nothing() {
    let mut tried = Tried::start();
    tried.comes_back(Msg::Other(10), |message| {
        let mut provide = message.init_provide();
        provide.set_question_id(3);
        provide.reborrow().init_target().set_imported_cap(0);
        provide.get_recipient().set_as("whom").unwrap();
    });
    tried.comes_back(Msg::Other(11), |message| {
        let mut accept = message.init_accept();
        accept.set_question_id(3);
        accept.set_embargo(b"embargo");
        accept.get_provision().set_as("what").unwrap();
    });
    tried.comes_back(Msg::Other(12), |message| {
        let mut join = message.init_join();
        join.set_question_id(3);
        join.reborrow().init_target().init_promised_answer().set_question_id(0);
        join.get_key_part().set_as("key").unwrap();
    });
    tried.comes_back(Msg::Other(14), |message| {
        let mut answer = message.init_third_party_answer();
        answer.set_answer_id(3);
        answer.get_completion().set_as("done").unwrap();
    });
    tried.comes_back(Msg::Other(7), |message| message.init_obsolete_save().set_as("old").unwrap());
    tried.comes_back(Msg::Other(9), |message| message.init_obsolete_delete().set_as("old").unwrap());
    tried.finish();
}

/// A message that is not in the schema comes back whole and changes nothing.
/// Rules: 14.
#[test]
fn message_that_is_not_in_the_schema_comes_back_whole_and_changes_nothing() {
    let mut tried = Tried::start();
    for ordinal in [15, VARIANT, u16::MAX] {
        let known = Msg::Release { id: MARK, count: 1 };
        let ordinal = u64::from(ordinal);
        tried.raw_comes_back(Msg::Other(FUTURE), patched(&known, RELEASE, ordinal));
    }
    tried.finish();
}

/// A Disembargo for an Accept, and one in a context that is not in the schema, come back and change nothing.
/// Rules: 14.
#[test]
fn disembargo_in_a_level_3_or_unknown_context_comes_back_and_changes_nothing() {
    let mut tried = Tried::start();
    let object = tried.object;
    tried.comes_back(Msg::Other(13), |message| {
        let mut disembargo = message.init_disembargo();
        disembargo.reborrow().init_target().set_imported_cap(object);
        disembargo.get_context().set_accept(b"embargo");
    });
    // 3 has been `provide`, with a question ID, and 2 `accept`, without the data that it has now.
    for (variant, inner) in [(2, 13), (3, FUTURE), (VARIANT, FUTURE)] {
        let known = Msg::Disembargo { target: Target::Import(object), context: Context::Sender(MARK) };
        let message = patched(&known, MARK.into(), word(MARK, variant, 0));
        tried.raw_comes_back(Msg::Other(inner), message);
    }
    tried.finish();
}

/// A Disembargo to a target of unknown kind comes back and changes nothing.
/// Rules: 14.
#[test]
fn disembargo_to_an_unknown_kind_of_target_comes_back_and_changes_nothing() {
    let mut tried = Tried::start();
    let known = Msg::Disembargo { target: Target::Import(MARK), context: Context::Sender(3) };
    let message = patched(&known, MARK.into(), word(MARK, VARIANT, 0));
    tried.raw_comes_back(Msg::Other(FUTURE), message);
    tried.finish();
}

/// A Call whose results should go to a third party comes back; its ID is free, its params gave nothing.
/// Rules: 14.
#[test]
fn call_with_results_for_a_third_party_comes_back_and_gives_nothing() {
    let mut tried = Tried::start();
    let call = a_call(MARK, Target::Import(tried.object), &[Cap::Hosted(7), Cap::Promise(8)]);
    let known = Msg::Call(call);
    let before = tried.tables();
    let message = patched(&known, MARK.into(), word(MARK, 0, 2));
    let sent = contents(&message);
    tried.peer.send_as(&known, message);
    assert_eq!(tried.peer.expect_unimplemented(), known);
    assert_eq!(tried.tap.taken(), [sent]);
    assert_eq!(tried.tables(), before);
    let again = tried.peer.call(Target::Import(tried.object), NOTE, 1).question(MARK).send();
    tried.peer.expect_done(again, 1);
    tried.finish();
}

/// A Call whose results should go to a place that is not in the schema, or that is addressed to a target of unknown
/// kind, comes back and changes nothing.
/// Rules: 14.
#[test]
fn call_with_an_unknown_target_or_results_place_comes_back_and_changes_nothing() {
    let mut tried = Tried::start();
    let object = Target::Import(tried.object);
    let results =
        patched(&Msg::Call(a_call(MARK, object, &[Cap::Hosted(7)])), MARK.into(), word(MARK, 0, VARIANT));
    let target = Msg::Call(a_call(0, Target::Import(MARK), &[Cap::Hosted(7)]));
    let target = patched(&target, MARK.into(), word(MARK, VARIANT, 0));
    // A step that is not in the schema, on the way to a capability in results.
    let step = Msg::Call(a_call(0, Target::Answer(0, vec![0x5eed]), &[]));
    let step = patched(&step, word_of([1, 0x5eed, 0, 0]), word_of([VARIANT, 0x5eed, 0, 0]));
    for message in [results, target, step] {
        tried.raw_comes_back(Msg::Other(FUTURE), message);
    }
    tried.finish();
}

/// A Return that says to await a third party, or what is not in the schema, comes back, and the question fails as
/// unimplemented; it is finished, and its params are given back as the Return says.
/// Rules: 14.
#[test]
fn return_of_unknown_kind_comes_back_and_fails_the_question() {
    let mut tried = Tried::start();
    let peer = &mut tried.peer;
    let client = peer.introduce(Cap::Hosted(7));
    for (variant, inner) in [(5, None), (6, Some(FUTURE)), (VARIANT, Some(FUTURE))] {
        let answer = send(&client, NOTE, 1, &[Recorder::new().client()]);
        let promised = answer.pipeline.field(0).client();
        let call = peer.expect_call_of(1);
        let ret = |outcome| {
            Msg::Return(Return { answer: call.question, release_params: true, no_finish: false, outcome })
        };
        let known = ret(Outcome::Canceled);
        let was = word_of([call.question as u16, 0, 0, 2]);
        peer.send_as(&known, patched(&known, was, word_of([call.question as u16, 0, 0, variant])));
        let inner = inner.map_or_else(|| ret(Outcome::ThirdParty), Msg::Other);
        assert_eq!(peer.expect_unimplemented(), inner);
        expect_failed_unimplemented(answer);
        expect_failed_unimplemented(send(&promised, NOTE, 2, &[]));
        peer.expect_finish(call.question);
        peer.wait_tables(|tables| tables.questions() == 0 && tables.exports() == 1);
    }
    call_through(peer, &client, 7);
    drop(client);
    tried.finish();
}

/// A capability of unknown kind in params or results is broken as unimplemented; those beside it are not.
/// Rules: 14.
#[test]
fn capability_of_unknown_kind_is_broken_and_those_beside_it_are_not() {
    let mut tried = Tried::start();
    let peer = &mut tried.peer;
    let call = a_call(MARK + 1, Target::Import(tried.object), &[Cap::Hosted(MARK), Cap::Hosted(7)]);
    let entered = a_call(MARK + 1, Target::Import(tried.object), &[Cap::None, Cap::Hosted(7)]);
    let call = Call { method: HOLD, ..call };
    peer.send_as(&Msg::Call(entered), unknown_cap(&Msg::Call(call)));
    let held = tried.recorder.held();
    expect_failed_unimplemented(send(&held.caps[0], NOTE, 2, &[]));
    call_through(peer, &held.caps[1], 7);

    let answer = send(&held.caps[1], NOTE, 3, &[]);
    let question = peer.expect_call_of(3).question;
    let results = |cap| {
        let outcome = Outcome::Results(Payload::new(3, &[cap, Cap::Hosted(8)]));
        Msg::Return(Return { answer: question, release_params: true, no_finish: false, outcome })
    };
    peer.send_as(&results(Cap::None), unknown_cap(&results(Cap::Hosted(MARK))));
    let (_, caps) = wait(answer).unwrap();
    expect_failed_unimplemented(send(&caps[0], NOTE, 4, &[]));
    call_through(peer, &caps[1], 8);
    held.answer(1, &[]);
    peer.expect_done(MARK + 1, 1);
    drop(caps);
    tried.finish();
}

/// A promise that is resolved to a capability of unknown kind is broken as unimplemented.
/// Rules: 14.
#[test]
fn promise_resolved_to_a_capability_of_unknown_kind_is_broken() {
    let mut tried = Tried::start();
    let peer = &mut tried.peer;
    let client = peer.introduce(Cap::Promise(5));
    let entered = Msg::Resolve { promise: 5, to: Ok(Cap::None) };
    peer.send_as(&entered, unknown_cap(&Msg::Resolve { promise: 5, to: Ok(Cap::Hosted(MARK)) }));
    peer.sync();
    expect_failed_unimplemented(send(&client, NOTE, 1, &[]));
    drop(client);
    assert_eq!(peer.expect_release(5), 1);
    tried.finish();
}

/// A Resolve of unknown kind comes back, and the promise goes on as it was: it may be resolved still.
/// Rules: 14.
#[test]
fn resolve_of_unknown_kind_comes_back_and_leaves_the_promise() {
    let mut tried = Tried::start();
    let client = tried.peer.introduce(Cap::Promise(MARK));
    let known = Msg::Resolve { promise: MARK, to: Ok(Cap::Hosted(6)) };
    tried.raw_comes_back(Msg::Other(FUTURE), patched(&known, MARK.into(), word(MARK, VARIANT, 0)));
    assert!(client.is_promise());
    call_through(&mut tried.peer, &client, MARK);
    tried.peer.resolve(MARK, Cap::Hosted(6));
    assert_eq!(tried.peer.expect_release(MARK), 1);
    call_through(&mut tried.peer, &client, 6);
    drop(client);
    assert_eq!(tried.peer.expect_release(6), 1);
    tried.finish();
}

/// A connection on which strange messages are tried, with our object that the peer holds.
struct Tried {
    peer: Peer,
    tap: Tap,
    recorder: Recorder,
    object: u32,
}

impl Tried {
    fn start() -> Self {
        let (recorder, tap) = (Recorder::new(), Tap::default());
        let mut peer = Peer::over(&Vat::new().bootstrap(recorder.client()), |ours| tap.wrap(ours));
        let object = peer.get_bootstrap();
        Tried { peer, tap, recorder, object }
    }

    /// Sends a message: it comes back as `inner`, the same to the last bit, and the tables are as they were.
    #[track_caller]
    fn comes_back(&mut self, inner: Msg, fill: impl FnOnce(message::Builder<'_>)) {
        self.raw_comes_back(inner, Outbound::from(build(fill)));
    }

    #[track_caller]
    fn raw_comes_back(&mut self, inner: Msg, message: Outbound) {
        let (before, sent) = (self.tables(), contents(&message));
        self.peer.send_raw(format!("{inner:?}, by hand"), message);
        assert_eq!(self.peer.expect_unimplemented(), inner);
        assert_eq!(self.tap.taken(), [sent]);
        assert_eq!(self.tables(), before, "nothing has changed");
    }

    fn tables(&mut self) -> String {
        self.peer.sync();
        self.tap.taken();
        self.peer.vat.snapshot().to_string()
    }

    /// The connection works as before, and ends clean.
    #[track_caller]
    fn finish(mut self) {
        let question = self.peer.call(Target::Import(self.object), NOTE, 77).send();
        self.peer.expect_done(question, 77);
        self.peer.finish_clean();
    }
}

/// A call of ours on `client` goes to this capability of the peer's, and is answered.
#[track_caller]
fn call_through(peer: &mut Peer, client: &Client, to: u32) {
    let answer = send(client, NOTE, 55, &[]);
    let call = peer.expect_call_of(55);
    assert_eq!(call.target, Target::Import(to));
    peer.results(call.question, 56, &[]);
    assert_eq!(wait(answer).unwrap().0, 56);
}

#[track_caller]
fn expect_failed_unimplemented(answer: RemotePromise) {
    let outcome = answer.wait_timeout(peer::DEADLINE);
    let why = outcome.expect_err("an exception").into_failed().expect("an answer in time");
    assert_eq!(why.kind(), ExceptionKind::Unimplemented, "{why}");
}

fn a_call(question: u32, target: Target, caps: &[Cap]) -> Call {
    Call {
        question,
        target,
        interface: INTERFACE,
        method: NOTE,
        params: Payload::new(1, caps),
        yourself: false,
        no_pipelining: false,
        only_pipeline: false,
    }
}

/// The ordinal of Release: the first data word of such a message.
const RELEASE: u64 = 6;

/// A word of an ID and the two halves behind it.
fn word(id: u32, third: u16, fourth: u16) -> u64 {
    word_of([id as u16, (id >> 16) as u16, third, fourth])
}

fn word_of(halves: [u16; 4]) -> u64 {
    halves.iter().rev().fold(0, |word, half| word << 16 | u64::from(*half))
}

/// The message in which the descriptor of the capability `MARK` is of unknown kind.
fn unknown_cap(message: &Msg) -> Outbound {
    let id = u64::from(MARK) << 32;
    patched(message, id | 1, id | u64::from(VARIANT))
}

/// The message with its one word `from` replaced by `to`.
fn patched(message: &Msg, from: u64, to: u64) -> Outbound {
    message.encode().with_segments(|segments| {
        assert_eq!(segments.len(), 1);
        let mut words = Word::allocate_zeroed_vec(segments[0].len() / 8);
        let bytes = Word::words_to_bytes_mut(&mut words);
        bytes.copy_from_slice(segments[0]);
        let mut found = bytes.chunks_exact_mut(8).filter(|word| **word == from.to_le_bytes());
        found.next().expect("a word to replace").copy_from_slice(&to.to_le_bytes());
        assert!(found.next().is_none(), "one word only");
        Outbound::from(words)
    })
}

/// What is in a message, told from others however it is laid out.
fn contents(message: &Outbound) -> Vec<u8> {
    message.with_segments(|segments| with_message(segments, copy))
}

/// Null clients stand for the capabilities in params: only their order counts.
fn with_message<R>(segments: &[&[u8]], f: impl FnOnce(message::Reader<'_>) -> R) -> R {
    let reader = capnp::message::Reader::new(SegmentArray::new(segments), ReaderOptions::new());
    let table = vec![Some(Client::null().into_client_hook()); 8];
    let mut root: any_pointer::Reader<'_> = reader.get_root().expect("a message");
    root.imbue(&table);
    f(root.get_as().expect("a message"))
}

fn copy(message: message::Reader<'_>) -> Vec<u8> {
    let (mut copy, mut table) = (Builder::new_default(), Vec::new());
    let mut root: any_pointer::Builder<'_> = copy.init_root();
    root.imbue_mut(&mut table);
    root.set_as(message).expect("a message that can be copied");
    capnp::serialize::write_message_to_words(&copy)
}

/// Sees each message that our side sends, and keeps what is in those that are `unimplemented`.
#[derive(Clone, Default)]
struct Tap(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tap {
    fn wrap(&self, ours: Transport) -> Transport {
        let sink = Sink::blocking(Tapped { sink: ours.sink, tap: self.clone() });
        Transport { sink, ..ours }
    }

    /// What was inside of those that came since this was last asked.
    fn taken(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn see(&self, message: message::Reader<'_>) {
        if let Ok(message::Unimplemented(inner)) = message.which() {
            self.0.lock().unwrap().push(copy(inner.expect("a message inside")));
        }
    }
}

struct Tapped {
    sink: Sink,
    tap: Tap,
}

impl MessageSink for Tapped {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        for message in batch {
            message.with_segments(|segments| with_message(segments, |message| self.tap.see(message)));
        }
        self.sink.send(batch)
    }
}
