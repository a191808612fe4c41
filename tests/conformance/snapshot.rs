//! What a snapshot says of each entry, in each of its states, while a peer takes our side there message by message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use capnp_threads::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use capnp_threads::snapshot::*;
use capnp_threads::{Capability, Client, Vat};

use crate::support::*;

fn question(snapshot: &Snapshot, id: u32) -> QuestionEntry {
    let mut entries = snapshot.question_entries();
    entries.find(|entry| entry.id == QuestionId(id)).unwrap_or_else(|| panic!("{id}: {snapshot}")).clone()
}

fn answer(snapshot: &Snapshot, id: u32) -> AnswerEntry {
    let mut entries = snapshot.answer_entries();
    entries.find(|entry| entry.id == AnswerId(id)).unwrap_or_else(|| panic!("{id}: {snapshot}")).clone()
}

fn export(snapshot: &Snapshot, id: u32) -> ExportEntry {
    let mut entries = snapshot.export_entries();
    entries.find(|entry| entry.id == ExportId(id)).unwrap_or_else(|| panic!("{id}: {snapshot}")).clone()
}

fn import(snapshot: &Snapshot, id: u32) -> ImportEntry {
    let mut entries = snapshot.import_entries();
    entries.find(|entry| entry.id == ImportId(id)).unwrap_or_else(|| panic!("{id}: {snapshot}")).clone()
}

fn called(method: Option<Method>) -> Option<(u64, u16)> {
    method.map(|method| (method.interface_id, method.method_id))
}

/// Reads a snapshot of our side, which must not contradict itself.
fn taken(peer: &Peer) -> Snapshot {
    let snapshot = peer.vat.snapshot();
    snapshot.check();
    snapshot
}

/// Rules: none.
#[test]
fn a_question_is_shown_in_each_of_its_states_with_who_is_told() {
    let mut peer = Peer::new(Client::null());
    let client = peer.vat.bootstrap::<Client>();
    let bootstrap = peer.expect_bootstrap();
    let tables = taken(&peer);
    let entry = question(&tables, bootstrap);
    assert_eq!((entry.method, entry.state, entry.outcome), (None, QaState::NewQA, None));
    assert_eq!((entry.on_return, entry.promises.len()), (vec![], 1));
    let promise = tables.promise_entries().next().unwrap().clone();
    assert_eq!(entry.promises, [promise.id]);
    assert_eq!(promise.place, Place::Results { question: QuestionId(bootstrap), path: vec![] });
    assert!(!promise.is_called);
    peer.answer(bootstrap, Outcome::Results(Payload::capability(Cap::Hosted(7))));
    peer.expect_finish(bootstrap);

    // NewQA; a local caller waits, and the params have given an object.
    let object = Recorder::new().client();
    let call = send(&client, HOLD, 1, std::slice::from_ref(&object));
    let first = peer.expect_call_of(1);
    let entry = question(&taken(&peer), first.question);
    assert_eq!((called(entry.method), entry.state), (Some((INTERFACE, HOLD)), QaState::NewQA));
    assert_eq!((entry.on_return, entry.is_tail_call), (vec![OnQuestionReturn::RespondHere], false));
    let [Cap::Hosted(given)] = first.params.caps[..] else { panic!("{first:?}") };
    assert_eq!(entry.param_exports, [ExportId(given)]);

    // HaveFinish: canceled, and not returned.
    drop(call);
    peer.expect_finish(first.question);
    let entry = question(&taken(&peer), first.question);
    assert_eq!((entry.state, entry.outcome, entry.on_return), (QaState::HaveFinish, None, vec![]));
    peer.answer(first.question, Outcome::Canceled);

    // Called ahead, in its results.
    let call = send(&client, NOTE, 2, &[]);
    let second = peer.expect_call_of(2);
    let field = call.pipeline.field(0).client();
    let ahead = send(&field, NOTE, 3, &[]);
    let third = peer.expect_call_of(3);
    let tables = taken(&peer);
    let [promise] = question(&tables, second.question).promises[..] else { panic!("{tables}") };
    let promise = tables.promise_entries().find(|entry| entry.id == promise).unwrap();
    assert_eq!(promise.place, Place::Results { question: QuestionId(second.question), path: vec![0] });
    assert!(promise.is_called);
    peer.results(second.question, 2, &[Cap::Promise(8)]);
    peer.results(third.question, 3, &[]);
    wait(ahead).unwrap();
    drop((field, call, client, object));
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn a_question_whose_caller_has_yet_to_be_told_has_returned() {
    let mut peer = Peer::strict(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let calls = [1, 2].map(|tag| send(&client, NOTE, tag, &[]));
    let asked = [1, 2].map(|tag| peer.expect_call_of(tag).question);
    let frozen = freeze_callbacks(&mut peer, &client);
    peer.results(asked[0], 1, &[]);
    peer.answer(asked[1], Outcome::Exception("on purpose".into()));
    peer.sync();
    for (id, outcome) in asked.into_iter().zip([QuestionOutcome::Results, QuestionOutcome::Exception]) {
        let entry = question(&taken(&peer), id);
        assert_eq!((entry.state, entry.outcome), (QaState::HaveReturn, Some(outcome)));
        assert_eq!(entry.on_return, [], "the callback is in the queue");
    }
    drop(frozen);
    let outcomes = calls.map(|call| wait(call).is_ok());
    assert_eq!(outcomes, [true, false]);
    drop(client);
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn a_call_that_is_handed_on_is_shown_on_both_connections() {
    let mut far = Peer::new(Client::null());
    let theirs = far.introduce(Cap::Hosted(7));
    let mut near = Peer::of(&Vat::new().bootstrap(theirs));
    let proxied = near.get_bootstrap();
    let tables = taken(&near);
    let destination = Destination::Import { connection: far.vat.id(), import: ImportId(7) };
    assert_eq!(tables.export_entries().next().unwrap().destination, destination);
    let call = near.call(Target::Import(proxied), NOTE, 1).send();
    let forwarded = far.expect_call_of(1);
    near.wait_tables(|tables| answer(tables, call).handed_on.is_some());
    let entry = answer(&taken(&near), call);
    assert_eq!((called(entry.method), entry.state), (Some((INTERFACE, NOTE)), QaState::NewQA));
    let handed_on = entry.handed_on.unwrap();
    assert_eq!((handed_on.connection, handed_on.question), (far.vat.id(), QuestionId(forwarded.question)));
    assert!(entry.has_pipeline, "calls on the results go to the question");
    let entry = question(&taken(&far), forwarded.question);
    let then = OnQuestionReturn::RespondTo { connection: near.vat.id(), answer: AnswerId(call) };
    assert_eq!(entry.on_return, [then]);
    far.results(forwarded.question, 1, &[]);
    near.expect_done(call, 1);
    near.finish_clean();
    assert_eq!(far.expect_release(7), 1);
    far.finish_clean();
}

/// Rules: none.
#[test]
fn a_tail_call_back_to_the_peer_is_shown_as_question_and_as_answer() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(7)]).send();
    let held = recorder.held();
    let to = held.caps[0].clone();
    held.tail_call(&to, NOTE, 2, &[]);
    drop(to);
    let tail = peer.expect_call_of(2);
    peer.expect_return(call);
    let tables = taken(&peer);
    let entry = question(&tables, tail.question);
    assert_eq!((entry.is_tail_call, entry.state, entry.on_return), (true, QaState::NewQA, vec![]));
    let entry = answer(&tables, call);
    let from = AnswerOutcome::TakenFrom { question: QuestionId(tail.question) };
    assert_eq!((entry.state, entry.outcome), (QaState::HaveReturn, Some(from)));
    peer.answer(tail.question, Outcome::Elsewhere);
    peer.wait_tables(|tables| question(tables, tail.question).state == QaState::HaveReturn);
    assert_eq!(question(&taken(&peer), tail.question).outcome, Some(QuestionOutcome::Elsewhere));
    peer.finish(call);
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn a_question_that_takes_the_results_of_an_answer_waits_for_it() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let client = peer.introduce(Cap::Hosted(7));
    let call = send(&client, NOTE, 1, &[]);
    let ours = peer.expect_call_of(1);
    let kept = peer.call(Target::Import(object), HOLD, 2).yourself().send();
    let held = recorder.held();
    peer.answer(ours.question, Outcome::Take(kept));
    peer.sync();
    let tables = taken(&peer);
    assert_eq!(question(&tables, ours.question).takes_from, Some(AnswerId(kept)));
    let entry = answer(&tables, kept);
    assert!(entry.keeps_results);
    let then = OnAnswer::Respond { question: QuestionId(ours.question) };
    assert_eq!((entry.waiting(), &entry.on_return[0].action), (1, &then));
    held.answer(3, &[]);
    assert_eq!(wait(call).unwrap().0, 3);
    assert_eq!(peer.expect_return(kept).outcome, Outcome::Elsewhere);
    drop(client);
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn an_answer_is_shown_in_each_of_its_states_with_all_that_waits_for_it() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let call = peer.call(Target::Import(object), HOLD, 1).send();
    let held = recorder.held();
    let ahead = peer.call(Target::Answer(call, vec![0]), NOTE, 2).send();
    let names = peer.call(Target::Import(object), HOLD, 3).caps(&[Cap::YourAnswer(call, vec![1])]).send();
    let names_held = recorder.held();
    peer.settle();
    let tables = taken(&peer);
    let entry = answer(&tables, call);
    assert_eq!((called(entry.method), entry.state), (Some((INTERFACE, HOLD)), QaState::NewQA));
    let actions: Vec<_> =
        entry.on_return.iter().map(|waiting| (waiting.action.clone(), waiting.wants)).collect();
    let deliver = OnAnswer::Deliver { answer: AnswerId(ahead), path: vec![0] };
    assert_eq!(actions, [(deliver, true), (OnAnswer::Resolve { path: vec![1] }, true)]);
    assert_eq!(answer(&tables, ahead).waits_for, Some(AnswerId(call)));
    assert_eq!(answer(&tables, names).names, [AnswerId(call)]);

    // HaveFinish: the peer has finished it, and others want it.
    peer.finish(call);
    peer.settle();
    let entry = answer(&taken(&peer), call);
    assert_eq!((entry.state, entry.outcome.clone(), entry.waiting()), (QaState::HaveFinish, None, 2));
    held.answer(1, &[recorder.client(), recorder.client()]);
    peer.expect_done(ahead, 2);
    names_held.answer(3, &[]);
    peer.expect_done(names, 3);
    peer.expect_canceled(call);

    // HaveReturn, with results that the Finish may give back, and with an exception.
    let gives = peer.call(Target::Import(object), GIVE, 4).caps(&[Cap::Yours(object)]).send();
    peer.expect_results(gives);
    let fails = peer.call(Target::Import(object), 99, 5).send();
    peer.expect_exception(fails, "");
    let tables = taken(&peer);
    let entry = answer(&tables, gives);
    assert_eq!(entry.outcome, Some(AnswerOutcome::Results { capabilities: 1 }));
    assert_eq!((entry.state, entry.on_finish.clone()), (QaState::HaveReturn, vec![ExportId(object)]));
    assert!(entry.bytes > 0);
    let failed = answer(&tables, fails).outcome;
    assert!(
        matches!(&failed, Some(AnswerOutcome::Exception { reason }) if reason.contains("unimplemented")),
        "{failed:?}"
    );
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn exports_are_shown_with_references_destination_and_what_was_told() {
    let mut peer = Peer::new(Client::null());
    let recorder = Recorder::new();
    let object = peer.export_hosted(&recorder.client());
    assert_eq!(peer.export_hosted(&recorder.client()), object);
    let (promise, fulfiller) = Client::promise();
    let promised = peer.export_promise(&promise);
    let call = peer.call(Target::Import(promised), NOTE, 1).send();
    peer.settle();
    let tables = taken(&peer);
    let entry = export(&tables, object);
    assert!(matches!(entry.destination, Destination::Object { address } if address != 0));
    assert_eq!((entry.references, entry.is_promise, entry.told), (2, false, None));
    let before = export(&tables, promised);
    assert!(matches!(before.destination, Destination::Promise { waiting_calls: 1, .. }), "{before}");
    assert_eq!((before.references, before.is_promise, &before.told), (1, true, &None));

    // The promise becomes a place in the peer: calls that arrive for it are reflected there.
    let place = peer.introduce(Cap::Hosted(7));
    fulfiller.fulfill(place);
    let reflected = peer.expect_call_of(1);
    assert_eq!(peer.expect_resolve(promised), Ok(Cap::Yours(7)));
    let told = Destination::Import { connection: peer.vat.id(), import: ImportId(7) };
    assert_eq!(export(&taken(&peer), promised).told, Some(told));
    assert_eq!(export(&tables, promised), before, "a snapshot does not change");
    peer.answer(reflected.question, Outcome::Elsewhere);
    peer.expect_return(call);
    peer.finish(call);
    drop((promise, recorder));
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn imports_and_promises_are_shown_until_they_are_resolved_and_after() {
    let mut peer = Peer::new(Client::null());
    let settled = peer.introduce(Cap::Hosted(7));
    let promise = peer.introduce(Cap::Promise(8));
    let waits = promise.clone();
    let (entered, has_entered) = crossbeam_channel::bounded(1);
    let waiter = std::thread::spawn(move || {
        entered.send(()).unwrap();
        waits.resolve().is_ok()
    });
    has_entered.recv().unwrap();
    peer.wait_tables(|tables| tables.promise_entries().any(|promise| promise.watchers == 1));
    let call = send(&promise, NOTE, 1, &[]);
    let first = peer.expect_call_of(1);
    let tables = taken(&peer);
    let pending = tables.promise_entries().next().unwrap().clone();
    assert_eq!((&pending.place, pending.is_called, pending.watchers), (&Place::Import(ImportId(8)), true, 1));
    assert_eq!(import(&tables, 7).promise, ImportedPromise::Settled);
    assert_eq!((import(&tables, 7).references, import(&tables, 8).references), (1, 1));
    assert_eq!(import(&tables, 8).promise, ImportedPromise::Pending { promise: pending.id });

    // A promise of ours that has become this one keeps the import in the table when that is resolved.
    let (ours, fulfiller) = Client::promise();
    let exported = peer.export_promise(&ours);
    fulfiller.fulfill(promise.clone());
    assert_eq!(peer.expect_resolve(exported), Ok(Cap::Yours(8)));
    peer.resolve(8, Cap::Hosted(7));
    assert!(waiter.join().unwrap());
    let tables = taken(&peer);
    let to = Destination::Import { connection: peer.vat.id(), import: ImportId(7) };
    assert_eq!(import(&tables, 8).promise, ImportedPromise::Resolved { to });
    let place = Destination::Import { connection: peer.vat.id(), import: ImportId(8) };
    assert_eq!(export(&tables, exported).told, Some(place));
    assert_eq!((import(&tables, 7).references, tables.promises()), (2, 0));
    peer.results(first.question, 1, &[]);
    wait(call).unwrap();
    drop((settled, promise, ours));
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn an_embargo_is_shown_with_the_calls_that_it_holds() {
    let mut peer = Peer::new(Client::null());
    let recorder = Recorder::new();
    let object = peer.export_hosted(&recorder.client());
    let promise = peer.introduce(Cap::Promise(10));
    let first = send(&promise, NOTE, 1, &[]);
    let at_peer = peer.expect_call_of(1);
    peer.resolve(10, Cap::Yours(object));
    let (_, embargo) = peer.expect_disembargo();
    let held: Vec<_> = (2..=4).map(|tag| send(&promise, NOTE, tag, &[])).collect();
    let tables = taken(&peer);
    let entry = tables.embargo_entries().next().unwrap().clone();
    assert_eq!((entry.id, entry.held_calls), (EmbargoId(embargo), 3));
    assert!(matches!(entry.target, EmbargoTarget::Export(Destination::Object { .. })), "{entry}");
    peer.results(at_peer.question, 1, &[]);
    peer.echo(Target::Import(object), embargo);
    for answer in held.into_iter().chain([first]) {
        wait(answer).unwrap();
    }
    assert_eq!(tables.embargo_entries().next(), Some(&entry), "a snapshot does not change");
    drop((promise, recorder));
    peer.finish_clean();
}

/// Rules: none.
#[test]
fn a_snapshot_is_printed_one_entry_a_line_in_the_order_of_ids() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let promise = peer.introduce(Cap::Promise(10));
    let first = send(&promise, NOTE, 1, &[]);
    peer.expect_call_of(1);
    peer.resolve(10, Cap::Yours(object));
    peer.expect_disembargo();
    let later = peer.introduce(Cap::Promise(11));
    let call = peer.call(Target::Import(object), HOLD, 2).send();
    let held = recorder.held();
    peer.call(Target::Answer(call, vec![3, 1]), NOTE, 3).send();
    peer.settle();
    let tables = taken(&peer);
    let id = peer.vat.id();
    let calls = tables.answer_entries().map(|answer| answer.id.0).collect::<Vec<_>>();
    let [held_call, ahead] = calls[..] else { panic!("{tables}") };
    let called = tables.question_entries().next().unwrap().id;
    let (promise, method) = (tables.promise_entries().next().unwrap().id, format!("of {INTERFACE:#x}"));
    let lines = [
        format!("connection {id}"),
        format!("question {called}: NewQA, method {NOTE} {method}, on Return: respond to a local caller"),
        format!("answer {held_call}: NewQA, method {HOLD} {method}, on Return: deliver call {ahead} to results.3.1"),
        format!("answer {ahead}: NewQA, method {NOTE} {method}, waits for answer {held_call}"),
        "export 0: references 1, object".to_owned(),
        format!("import 11: references 1, promise {promise}"),
        format!("promise {promise}: import 11"),
        "embargo 0: calls held 0, for object".to_owned(),
    ];
    assert_eq!(tables.to_string(), lines.join("\n") + "\n");
    let with_ages = format!("{tables:#}");
    for (line, plain) in with_ages.lines().zip(lines).skip(1) {
        let age = line.strip_prefix(&*plain).unwrap_or_else(|| panic!("{line}"));
        let age = age.strip_prefix(", ").and_then(|age| age.strip_suffix(" ms old"));
        assert!(age.is_some_and(|age| age.parse::<u64>().is_ok()), "{line}");
    }
    drop((promise, first, later, held));
    peer.vat.close(Duration::ZERO).unwrap();
    peer.expect_end();
}

/// The peer is told that a call is canceled and a promise given up, and the connection closes, while a snapshot of both is held.
/// Rules: none.
#[test]
fn a_snapshot_that_is_held_keeps_nothing_of_the_connection() {
    let mut peer = Peer::new(Client::null());
    let promise = peer.introduce(Cap::Promise(8));
    let call = send(&promise, HOLD, 1, &[Recorder::new().client()]);
    let first = peer.expect_call_of(1);
    let pipelined = call.pipeline.field(0).client();
    let snapshot = taken(&peer);
    let text = format!("{snapshot:#}\n{}", snapshot.to_json());
    assert_eq!(
        (snapshot.questions(), snapshot.exports(), snapshot.imports(), snapshot.promises()),
        (1, 1, 1, 2)
    );
    drop((pipelined, call));
    assert!(peer.expect_finish(first.question));
    peer.answer(first.question, Outcome::Canceled);
    peer.sync();
    drop(promise);
    assert_eq!(peer.expect_release(8), 1);
    let vat = peer.vat.clone();
    peer.finish_clean();
    let ended = vat.snapshot();
    assert!(ended.is_empty() && ended.ended().is_some_and(|why| why.contains("closed here")), "{ended}");
    assert_eq!(format!("{snapshot:#}\n{}", snapshot.to_json()), text, "it reads the same");
    assert_ne!(snapshot, ended);
}

/// The last handle of a connection goes while a snapshot of it is held.
/// Rules: none.
#[test]
fn a_connection_is_closed_when_its_last_handle_goes_though_a_snapshot_is_held() {
    let (here, there) = capnp_threads::transport::Transport::in_memory();
    let recorder = Recorder::new();
    let serving = Vat::new().bootstrap(recorder.client()).over(there).unwrap();
    let calling = Vat::new().over(here).unwrap();
    let client: Client = calling.bootstrap();
    let call = send(&client, HOLD, 1, &[]);
    let held = recorder.held();
    let field = call.pipeline.field(0).client();
    let snapshots = [calling.snapshot(), serving.snapshot()];
    assert!(snapshots[0].questions() > 0 && snapshots[0].promises() > 0, "{}", snapshots[0]);
    assert!(snapshots[1].answers() > 0, "{}", snapshots[1]);
    drop((client, field, call, calling));
    serving.wait_closed().unwrap();
    drop((held, snapshots));
}

/// Snapshots are taken while four threads call, pipeline, cancel and pass capabilities: each is consistent in itself.
/// Rules: none.
#[test]
fn snapshots_of_a_busy_connection_are_consistent() {
    const CALLS: u64 = 300;
    const THREADS: u64 = 4;
    let (here, there) = capnp_threads::transport::Transport::in_memory();
    let recorder = Recorder::new();
    let serving = Vat::new().bootstrap(recorder.client()).over(there).unwrap();
    let calling = Vat::new().over(here).unwrap();
    let client: Client = calling.bootstrap();
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..THREADS)
            .map(|_| {
                let client = client.clone();
                scope.spawn(move || {
                    for tag in 0..CALLS {
                        let own = Recorder::new();
                        let (promise, fulfiller) = Client::promise();
                        let gives = send(&client, GIVE, tag, &[own.client(), promise]);
                        let given = gives.pipeline.field(0).client();
                        let ahead = send(&given, NOTE, tag, &[]);
                        drop(send(&client, NOTE, tag, &[own.client()]));
                        fulfiller.fulfill(own.client());
                        assert_eq!(wait(ahead).unwrap().0, tag);
                        assert_eq!(wait(gives).unwrap().1.len(), 2);
                        wait(send(&given, NOTE, tag, &[])).unwrap();
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut most = [0; 2];
            while !over.load(Ordering::Relaxed) {
                for (connection, most) in [&calling, &serving].into_iter().zip(&mut most) {
                    let snapshot = connection.snapshot();
                    snapshot.check();
                    *most = snapshot.questions().max(snapshot.answers()).max(*most);
                }
            }
            most
        });
        for thread in busy {
            thread.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen.iter().all(|most| *most > 0), "the connections were seen at work: {seen:?}");
    drop(client);
    for connection in [calling, serving] {
        // What the peer holds of the bootstrap object is released in time.
        let empty = connection.wait_until(Instant::now() + peer::DEADLINE, Snapshot::is_empty);
        assert!(empty, "{}", connection.snapshot());
    }
}
