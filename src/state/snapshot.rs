//! All tables at one moment, for tests and tools.

use std::fmt;

use super::State;

/// A consistent copy of a connection's tables: a moment between two transactions. Taking one costs a few
/// reference counts, and it does not change afterwards.
///
/// Holding one keeps alive what the tables held.
#[derive(Clone)]
pub struct Snapshot(pub(crate) State);

impl Snapshot {
    /// Questions of ours: calls that are under way to the peer.
    pub fn questions(&self) -> usize {
        self.0.outstanding()
    }

    /// Answers of ours: calls of the peer's that are not finished.
    pub fn answers(&self) -> usize {
        self.0.answers.len()
    }

    /// Capabilities of ours that the peer holds.
    pub fn exports(&self) -> usize {
        self.0.exports.len()
    }

    /// References to our capabilities that the peer holds, counted as the protocol does.
    pub fn export_references(&self) -> u64 {
        self.0.exports.iter().map(|(_, export)| u64::from(export.references)).sum()
    }

    /// Capabilities of the peer's that this vat holds.
    pub fn imports(&self) -> usize {
        self.0.imports.len()
    }

    /// References to the peer's capabilities that this vat holds, counted as the protocol does.
    pub fn import_references(&self) -> u64 {
        self.0.imports.iter().map(|(_, import)| u64::from(import.references)).sum()
    }

    /// Promises of the peer's that this vat holds: imports to be resolved, and capabilities in results to come.
    pub fn promises(&self) -> usize {
        self.0.promises.len()
    }

    /// Disembargoes of ours that have not come back.
    pub fn embargoes(&self) -> usize {
        self.0.embargoes.len()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Panics if the tables contradict each other.
    #[doc(hidden)]
    pub fn check(&self) {
        self.0.check();
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.0;
        writeln!(f, "connection {}", state.connection)?;
        for (id, question) in state.questions.iter() {
            writeln!(f, "question {id}: {:?}", question.entry)?;
        }
        for (id, question) in state.pipeline_questions.iter() {
            writeln!(f, "question {id}: {:?}", question.entry)?;
        }
        for (id, answer) in state.answers.iter() {
            writeln!(f, "answer {id}: {:?}", answer.entry)?;
        }
        for (id, export) in state.exports.iter() {
            writeln!(f, "export {id}: {} references to {:?}", export.references, export.client)?;
        }
        for (id, import) in state.imports.iter() {
            writeln!(f, "import {id}: {} references", import.references)?;
        }
        for (id, pending) in state.promises.iter() {
            writeln!(f, "promise {}: at {:?}, used: {}", id.0, pending.place, pending.used)?;
        }
        for (id, _) in state.embargoes.iter() {
            writeln!(f, "embargo {id}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
