//! What holds between the tables after every transition, and that one which failed has changed nothing; checked
//! in debug builds.

use super::entry::Entry;
use super::imports::ImportedPromise;
use super::State;
use crate::cap::port::RemoteTarget;

/// Tells whether a transaction has changed anything. See Note [Rollback].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    tables: [u64; 7],
    sets: [usize; 4],
    counters: [u64; 4],
    peer_ignores_pipeline_hint: bool,
    ended: bool,
}

impl State {
    /// What changes with every change of the state.
    pub(crate) fn trace(&self) -> Trace {
        Trace {
            tables: [
                self.questions.changes(),
                self.pipeline_questions.changes(),
                self.answers.changes(),
                self.exports.changes(),
                self.imports.changes(),
                self.promises.changes(),
                self.embargoes.changes(),
            ],
            sets: [self.ended_answers.len(), self.refused_answers.len(), self.export_ids.len(), self.watched],
            counters: [
                self.next_generation,
                self.asked,
                self.next_ref,
                u64::from(self.next_pipeline_question),
            ],
            peer_ignores_pipeline_hint: self.peer_ignores_pipeline_hint,
            ended: self.ended.is_some(),
        }
    }

    /// Panics if the tables contradict each other.
    pub(crate) fn check(&self) {
        let asked = self.questions.iter().filter(|(_, question)| question.entry.is_new()).count();
        let received = self.answers.iter().filter(|(_, answer)| answer.entry.is_new()).count();
        assert_eq!(asked + received, self.under_way, "calls that are under way are counted");
        if self.ended.is_some() {
            assert!(self.is_empty(), "a connection that has ended holds nothing");
            return;
        }
        self.check_questions();
        self.check_answers();
        self.check_capabilities();
    }

    /// Whether all tables are empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.outstanding() == 0
            && self.answers.is_empty()
            && self.exports.len() == 0
            && self.export_ids.len() == 0
            && self.imports.is_empty()
            && self.promises.is_empty()
            && self.embargoes.len() == 0
    }

    fn check_questions(&self) {
        self.questions.check();
        for (id, question) in self.questions.iter().chain(self.pipeline_questions.iter()) {
            for (path, promise) in question.promised() {
                assert!(question.has_promises(), "{id} has promises for results that are there");
                let pending = self.promises.get(promise);
                let place = &pending.unwrap_or_else(|| panic!("{id} names a promise that is gone")).place;
                assert!(
                    matches!(place, RemoteTarget::Answer(q, p) if q.id == id && p == path),
                    "a promise in the results of {id} stands elsewhere: {place:?}"
                );
            }
            if let Some(answer) = question.taking {
                assert!(question.entry.is_new(), "{id} takes results, yet has some");
                assert!(
                    self.answers.contains_key(&answer.answer),
                    "{id} takes the results of an answer that is gone"
                );
            }
            assert!(!question.tail || question.taking.is_none(), "results of a tail call are not taken back");
        }
    }

    fn check_answers(&self) {
        for (id, answer) in self.answers.iter() {
            assert!(!self.ended_answers.contains(id.0), "answer {id} is both in use and ended");
            if let Some(awaited) = answer.awaits {
                let awaited = self.answers.get(&awaited.answer).expect("an awaited answer is in the table");
                assert!(!awaited.entry.has_returned(), "answer {id} waits for one that is there");
            }
            if let Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } = &answer.entry {
                on_return.check();
            }
            if let Entry::HaveReturn { .. } = &answer.entry {
                assert!(answer.onward.is_none(), "answer {id} has results and was handed on");
                assert!(answer.awaits.is_none(), "answer {id} was returned before it was called");
            }
        }
    }

    fn check_capabilities(&self) {
        self.exports.check();
        self.embargoes.check();
        for (address, id) in self.export_ids.iter() {
            let export = self.exports.get(*id).expect("export_ids names exports");
            assert_eq!(export.client.address(), address, "export {id} is found by its client");
        }
        for (id, export) in self.exports.iter() {
            assert!(export.references > 0, "export {id} is held by nobody");
        }
        let watched = self.promises.iter().filter(|(_, pending)| !pending.watchers.is_empty());
        assert_eq!(watched.count(), self.watched, "promises that are watched are counted");
        for (id, import) in self.imports.iter() {
            assert!(import.references > 0, "import {id} was never given");
            if let Some(ImportedPromise::Pending(promise)) = &import.promise {
                if let Some(pending) = self.promises.get(promise) {
                    let here = matches!(&pending.place, RemoteTarget::Import(i) if i.id == id);
                    assert!(here, "the promise of import {id} stands elsewhere");
                }
            }
        }
    }
}
