//! Reading the tables: see Note [Snapshots].
use std::time::SystemTime;

use super::super::answers::{self, Answer};
use super::super::effects::{self, Callback};
use super::super::embargoes::Embargo;
use super::super::entry::Entry;
use super::super::exports::Export;
use super::super::garbage::Garbage;
use super::super::imports::{self, Import, Pending};
use super::super::moment::Moment;
use super::super::named::Named;
use super::super::outcome::Returned;
use super::super::questions::{self, Ended, Question};
use super::super::State;
use super::*;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{self, RefId};
use crate::error::Exception;
use crate::table::{Key, PeerTable};

/// The tables at one moment, shared with the state. They hold all that their entries hold, so that they may not be dropped
/// under a lock, or on a thread of a user's. See Note [Snapshots].
pub(crate) struct Tables {
    connection: ConnectionId,
    ended: Option<Exception>,
    now: Moment,
    questions: PeerTable<QuestionId, Question>,
    pipeline_questions: PeerTable<QuestionId, Question>,
    answers: PeerTable<AnswerId, Answer>,
    exports: PeerTable<ExportId, Export>,
    imports: PeerTable<ImportId, Import>,
    promises: PeerTable<RefId, Pending>,
    embargoes: PeerTable<EmbargoId, Embargo>,
}

impl State {
    /// The tables as they are.
    pub(crate) fn tables(&self) -> Tables {
        Tables {
            connection: self.connection,
            ended: self.ended.clone(),
            now: Moment::now(),
            questions: self.questions.entries().clone(),
            pipeline_questions: self.pipeline_questions.clone(),
            answers: self.answers.clone(),
            exports: self.exports.entries().clone(),
            imports: self.imports.clone(),
            promises: self.promises.clone(),
            embargoes: self.embargoes.entries().clone(),
        }
    }

    /// Whether nothing has changed since these were taken.
    pub(crate) fn is_at(&self, tables: &Tables) -> bool {
        self.ended.is_some() == tables.ended.is_some()
            && self.questions.changes() == tables.questions.changes()
            && self.pipeline_questions.changes() == tables.pipeline_questions.changes()
            && self.answers.changes() == tables.answers.changes()
            && self.exports.changes() == tables.exports.changes()
            && self.imports.changes() == tables.imports.changes()
            && self.promises.changes() == tables.promises.changes()
            && self.embargoes.changes() == tables.embargoes.changes()
    }
}

impl Tables {
    /// Has the callback thread drop them.
    pub(crate) fn discard_later(self) -> Callback {
        let mut garbage = Garbage::default();
        garbage.push(Box::new(self));
        Callback::Discard(garbage)
    }

    /// Reads all entries.
    pub(crate) fn read(&self) -> Snapshot {
        let asked = self.questions.iter().chain(self.pipeline_questions.iter());
        let age = |since: Moment| since.until(self.now);
        Snapshot(Arc::new(Contents {
            connection: self.connection,
            taken: SystemTime::now(),
            ended: self.ended.as_ref().map(Exception::to_string),
            questions: in_order(asked, |id, question| read_question(id, question, age(question.since))),
            answers: in_order(self.answers.iter(), |id, answer| read_answer(id, answer, age(answer.since))),
            exports: in_order(self.exports.iter(), |id, export| read_export(id, export, age(export.since))),
            imports: in_order(self.imports.iter(), |id, import| read_import(id, import, age(import.since))),
            promises: in_order(self.promises.iter(), |id, promise| {
                read_promise(id, promise, age(promise.since))
            }),
            embargoes: in_order(self.embargoes.iter(), |id, embargo| {
                read_embargo(id, embargo, age(embargo.since))
            }),
        }))
    }
}

/// What is read of each entry, in the order of the IDs: those that a table has in a map may be lower than others.
fn in_order<'a, K: Key, V: 'a, T>(
    entries: impl Iterator<Item = (K, &'a V)>,
    read: impl Fn(K, &'a V) -> T,
) -> Vec<T> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(id, _)| *id);
    entries.into_iter().map(|(id, entry)| read(id, entry)).collect()
}

fn method(interface_id: u64, method_id: Option<u16>) -> Option<Method> {
    method_id.map(|method_id| Method { interface_id, method_id })
}

fn state<R: Clone, F: Clone, A: Clone + Default, B: Clone>(entry: &Entry<R, F, A, B>) -> QaState {
    match entry {
        Entry::NewQA { .. } => QaState::NewQA,
        Entry::HaveReturn { .. } => QaState::HaveReturn,
        Entry::HaveFinish { .. } => QaState::HaveFinish,
    }
}

fn read_question(id: QuestionId, question: &Question, age: Duration) -> QuestionEntry {
    let on_return = |then: &questions::OnReturn| match then {
        questions::OnReturn::Tell(_) => OnQuestionReturn::RespondHere,
        questions::OnReturn::Respond(connection, answer, _) => {
            OnQuestionReturn::RespondTo { connection: *connection, answer: *answer }
        }
    };
    let outcome = match &question.entry {
        Entry::HaveReturn { return_msg, .. } => Some(match return_msg {
            Ended::Results => QuestionOutcome::Results,
            Ended::Exception => QuestionOutcome::Exception,
            Ended::Elsewhere => QuestionOutcome::Elsewhere,
        }),
        Entry::NewQA { .. } | Entry::HaveFinish { .. } => None,
    };
    QuestionEntry {
        id,
        method: method(question.interface_id, question.method_id),
        state: state(&question.entry),
        outcome,
        on_return: question.entry.on_return().iter().flat_map(|all| all.iter().map(on_return)).collect(),
        is_tail_call: question.tail,
        takes_from: question.taking.map(|taking| taking.answer),
        param_exports: question.param_exports.clone(),
        promises: question.promised().map(|(_, promise)| promise.0).collect(),
        age,
    }
}

fn read_answer(id: AnswerId, answer: &Answer, age: Duration) -> AnswerEntry {
    let on_return = answer.entry.on_return().into_iter().flat_map(|waiting| waiting.iter());
    let on_return = on_return.map(|waiter| {
        let action = match &waiter.then {
            answers::OnReturn::Deliver { waiting, path, .. } => {
                OnAnswer::Deliver { answer: *waiting, path: path.to_vec() }
            }
            answers::OnReturn::Resolve { path, .. } => OnAnswer::Resolve { path: path.to_vec() },
            answers::OnReturn::Take(question) => OnAnswer::Respond { question: *question },
            answers::OnReturn::Keep => OnAnswer::Keep,
        };
        OnAnswerReturn { action, wants: waiter.wants }
    });
    let (outcome, on_finish) = match &answer.entry {
        Entry::HaveReturn { return_msg, on_finish } => {
            let releases = on_finish.iter().flat_map(|answers::OnFinish::Release(exports)| exports.iter());
            (Some(outcome(return_msg)), releases.copied().collect())
        }
        Entry::NewQA { .. } | Entry::HaveFinish { .. } => (None, Vec::new()),
    };
    let handed_on = answer.onward.as_ref().and_then(|onward| onward.question.as_ref());
    AnswerEntry {
        id,
        method: method(answer.interface_id, answer.method_id),
        state: state(&answer.entry),
        outcome,
        on_return: on_return.collect(),
        on_finish,
        waits_for: answer.awaits.map(|awaited| awaited.answer),
        names: answer.names.iter().map(|named| named.answer).collect(),
        handed_on: handed_on
            .map(|question| HandedOn { connection: question.port.connection(), question: question.id }),
        has_pipeline: answer.pipeline().is_some(),
        keeps_results: answer.kept.is_some(),
        pipeline_only: answer.silent,
        bytes: answer.bytes,
        age,
    }
}

fn outcome(returned: &Returned) -> AnswerOutcome {
    match returned {
        Returned::Results { payload, .. } => AnswerOutcome::Results { capabilities: payload.caps.len() },
        Returned::Failed(why) => AnswerOutcome::Exception { reason: why.to_string() },
        Returned::Tail(question) => AnswerOutcome::TakenFrom { question: question.id },
    }
}

fn read_export(id: ExportId, export: &Export, age: Duration) -> ExportEntry {
    // Set before `told` was, so it is there.
    let told = export.promise.as_ref().filter(|_| export.resolve_sent).and_then(|frozen| frozen.get());
    ExportEntry {
        id,
        references: export.references,
        destination: client(&export.client),
        is_promise: export.promise.is_some(),
        told: told.map(|to| match to {
            effects::Destination::Client(to) => client(to),
            effects::Destination::Reflect(place) => reflected(place),
            effects::Destination::Pipeline(_) => Destination::Pipeline,
        }),
        age,
    }
}

/// What a client is, by itself: not what it has been resolved to, which changes without the tables.
fn client(client: &Client) -> Destination {
    match &client.0 {
        Kind::Null => Destination::Null,
        Kind::Broken(why) => Destination::Broken { reason: why.to_string() },
        Kind::Local(_) => Destination::Object { address: client.address() as u64 },
        Kind::Promise(cell) => {
            Destination::Promise { address: client.address() as u64, waiting_calls: cell.waiting_calls() }
        }
        Kind::Import(import) => {
            Destination::Import { connection: import.port.connection(), import: import.id }
        }
        Kind::RemotePromise(promise) => {
            Destination::RemotePromise { connection: promise.port.connection(), promise: promise.id.0 }
        }
    }
}

fn reflected(place: &port::RemoteTarget) -> Destination {
    let connection = place.port().connection();
    match place {
        port::RemoteTarget::Import(import) => Destination::Import { connection, import: import.id },
        port::RemoteTarget::Answer(question, path) => {
            Destination::Results { connection, question: question.id, path: path.to_vec() }
        }
    }
}

fn read_import(id: ImportId, import: &Import, age: Duration) -> ImportEntry {
    let promise = match &import.promise {
        None => ImportedPromise::Settled,
        Some(imports::ImportedPromise::Pending(promise)) => ImportedPromise::Pending { promise: promise.0 },
        Some(imports::ImportedPromise::Resolved { client: to, .. }) => {
            ImportedPromise::Resolved { to: client(to) }
        }
    };
    ImportEntry { id, references: import.references, promise, age }
}

fn read_promise(id: RefId, pending: &Pending, age: Duration) -> PromiseEntry {
    let place = match &pending.place {
        port::RemoteTarget::Import(import) => Place::Import(import.id),
        port::RemoteTarget::Answer(question, path) => {
            Place::Results { question: question.id, path: path.to_vec() }
        }
    };
    PromiseEntry { id: id.0, place, is_called: pending.used, watchers: pending.watchers.len(), age }
}

fn read_embargo(id: EmbargoId, embargo: &Embargo, age: Duration) -> EmbargoEntry {
    let target = match &embargo.to {
        Named::Capability(to) | Named::Export(to, _) => EmbargoTarget::Export(client(to)),
        Named::Answer(key, path) => EmbargoTarget::Answer { answer: key.id, path: path.to_vec() },
    };
    EmbargoEntry { id, target, held_calls: embargo.cell.waiting_calls(), age }
}

#[cfg(feature = "test-util")]
impl Contents {
    pub(super) fn check(&self) {
        use std::collections::HashMap;

        let questions: HashMap<_, _> = self.questions.iter().map(|entry| (entry.id, entry)).collect();
        let answers: HashMap<_, _> = self.answers.iter().map(|entry| (entry.id, entry)).collect();
        let promises: HashMap<_, _> = self.promises.iter().map(|entry| (entry.id, entry)).collect();
        for question in &self.questions {
            for promise in &question.promises {
                let place = &promises.get(promise).expect("a promise in results is there").place;
                let there = matches!(place, Place::Results { question: id, .. } if *id == question.id);
                assert!(there, "{question}: promise {promise} stands elsewhere");
            }
            if let Some(answer) = question.takes_from {
                let waiting = &answers.get(&answer).expect("an answer that is taken is there").on_return;
                let respond = OnAnswer::Respond { question: question.id };
                assert!(waiting.iter().any(|waiting| waiting.action == respond), "{question}: no callback");
            }
            assert_eq!(question.outcome.is_some(), question.state == QaState::HaveReturn, "{question}");
            assert!(question.state == QaState::NewQA || question.on_return.is_empty(), "{question}");
        }
        for answer in &self.answers {
            assert_eq!(answer.outcome.is_some(), answer.state == QaState::HaveReturn, "{answer}");
            for waiting in &answer.on_return {
                if let OnAnswer::Respond { question } = waiting.action {
                    let takes_from = questions.get(&question).and_then(|question| question.takes_from);
                    assert_eq!(
                        takes_from,
                        Some(answer.id),
                        "question {question} waits for answer {}",
                        answer.id
                    );
                }
            }
            if let Some(awaited) = answer.waits_for {
                let waiting =
                    &answers.get(&awaited).expect("an answer that is waited for is there").on_return;
                let delivers = |waiting: &OnAnswerReturn| matches!(waiting.action, OnAnswer::Deliver { answer: id, .. } if id == answer.id);
                assert!(waiting.iter().any(delivers), "{answer}: no callback");
            }
        }
        assert!(self
            .exports
            .iter()
            .all(|export| export.references > 0 && (export.is_promise || export.told.is_none())));
        for import in &self.imports {
            assert!(import.references > 0, "{import}");
            if let ImportedPromise::Pending { promise } = import.promise {
                let place = promises.get(&promise).map(|promise| &promise.place);
                assert!(place.is_none_or(|place| *place == Place::Import(import.id)), "{import}");
            }
        }
    }
}
