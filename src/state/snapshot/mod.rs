//! Snapshots: what stands in the tables of a connection at one moment, as plain data.
//!
//! [`Connection::snapshot`](crate::Connection::snapshot) takes one. It can be read entry by entry, printed, and written as JSON.
//!
//! ```text
//! Note [Snapshots]
//! ================
//! A snapshot is made in three steps.
//!
//! 1. Under the lock of the state, the tables are cloned (`State::tables`). That takes some reference counts (Note [What a
//!    clone costs]), however many entries there are.
//! 2. Without the lock, each entry is read into plain data (`Tables::read`). Only what the entry itself says is read, never
//!    a cell that changes without the table. So all of it is of the moment of step 1, with one exception: how many calls
//!    wait in a promise of this vat is known to the promise alone, and is read in step 2.
//! 3. The clone is dropped. While it existed, entries may have left the tables, and the clone may be the last that holds
//!    them, with objects of users', duties to answer, and references whose end makes the connection send something. So they
//!    are dropped by the callback thread, like all else that may run foreign code (Note [Drops are noted]). If no table has
//!    changed, the clone holds nothing alone, and is dropped at once.
//!
//! A snapshot holds nothing but data for that reason. If it held the clone, a question that is over would not be finished,
//! an import not released, a call not canceled and a connection not closed before whoever looks at them has put the
//! snapshot away.
//! ```

mod entries;
mod json;
mod read;
mod text;

use std::fmt;
use std::time::SystemTime;

pub use entries::{
    AnswerEntry, AnswerOutcome, Destination, EmbargoEntry, EmbargoTarget, ExportEntry, HandedOn, ImportEntry,
    ImportedPromise, Method, OnAnswer, OnAnswerReturn, OnQuestionReturn, Place, PromiseEntry, QaState,
    QuestionEntry, QuestionOutcome,
};
pub(crate) use read::Tables;

use crate::cap::port::ConnectionId;
use crate::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use crate::sync::{Arc, Duration};

/// What stands in a connection's tables at one moment, between two transactions.
///
/// It is plain data: it does not change, it holds no object, no reference and no connection, and it may be dropped
/// anywhere. Entries of each kind are in the order of their IDs.
///
/// # Display and JSON
/// `{}` prints one entry a line: the same text for the same tables. `{:#}` prints the age of each entry too.
/// [`to_json`](Self::to_json) writes all of it for other programs.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(Arc<Contents>);

#[derive(Clone, PartialEq, Eq)]
struct Contents {
    connection: ConnectionId,
    taken: SystemTime,
    ended: Option<String>,
    questions: Vec<QuestionEntry>,
    answers: Vec<AnswerEntry>,
    exports: Vec<ExportEntry>,
    imports: Vec<ImportEntry>,
    promises: Vec<PromiseEntry>,
    embargoes: Vec<EmbargoEntry>,
}

impl Snapshot {
    /// The connection that the tables are of.
    pub fn connection(&self) -> ConnectionId {
        self.0.connection
    }

    /// When it was taken.
    pub fn taken(&self) -> SystemTime {
        self.0.taken
    }

    /// By how much the age of an entry may be wrong, at most, in either direction: 10 ms.
    ///
    /// Ages are taken from a clock that costs calls little: on Linux that of the kernel's ticks, of which there are 100 to
    /// 1,000 in a second.
    pub const fn resolution() -> Duration {
        Duration::from_millis(10)
    }

    /// Why the connection has ended, if it has: the kind and reason of the exception. All tables are empty then.
    pub fn ended(&self) -> Option<&str> {
        self.0.ended.as_deref()
    }

    /// How many questions there are: calls of this vat that are under way to the peer.
    pub fn questions(&self) -> usize {
        self.0.questions.len()
    }

    /// How many answers there are: calls of the peer's that are not finished.
    pub fn answers(&self) -> usize {
        self.0.answers.len()
    }

    /// How many capabilities of this vat the peer holds.
    pub fn exports(&self) -> usize {
        self.0.exports.len()
    }

    /// How many references to capabilities of this vat the peer holds, counted as the protocol does.
    pub fn export_references(&self) -> u64 {
        self.0.exports.iter().map(|export| u64::from(export.references)).sum()
    }

    /// How many capabilities of the peer's this vat holds.
    pub fn imports(&self) -> usize {
        self.0.imports.len()
    }

    /// How many references to the peer's capabilities this vat holds, counted as the protocol does.
    pub fn import_references(&self) -> u64 {
        self.0.imports.iter().map(|import| u64::from(import.references)).sum()
    }

    /// How many promises of the peer's this vat holds: imports to be resolved, and capabilities in results to come.
    pub fn promises(&self) -> usize {
        self.0.promises.len()
    }

    /// How many Disembargoes of this vat have not come back.
    pub fn embargoes(&self) -> usize {
        self.0.embargoes.len()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        let Contents { questions, answers, exports, imports, promises, embargoes, .. } = &*self.0;
        questions.is_empty()
            && answers.is_empty()
            && exports.is_empty()
            && imports.is_empty()
            && promises.is_empty()
            && embargoes.is_empty()
    }

    /// The questions, in the order of their IDs.
    pub fn question_entries(&self) -> impl ExactSizeIterator<Item = &QuestionEntry> {
        self.0.questions.iter()
    }

    /// The answers, in the order of their IDs.
    pub fn answer_entries(&self) -> impl ExactSizeIterator<Item = &AnswerEntry> {
        self.0.answers.iter()
    }

    /// The exports, in the order of their IDs.
    pub fn export_entries(&self) -> impl ExactSizeIterator<Item = &ExportEntry> {
        self.0.exports.iter()
    }

    /// The imports, in the order of their IDs.
    pub fn import_entries(&self) -> impl ExactSizeIterator<Item = &ImportEntry> {
        self.0.imports.iter()
    }

    /// The promises of the peer's, in the order in which they were made.
    pub fn promise_entries(&self) -> impl ExactSizeIterator<Item = &PromiseEntry> {
        self.0.promises.iter()
    }

    /// The embargoes, in the order of their IDs.
    pub fn embargo_entries(&self) -> impl ExactSizeIterator<Item = &EmbargoEntry> {
        self.0.embargoes.iter()
    }

    /// Writes all of it as JSON, in one line.
    ///
    /// The text is an object with the fields of this value: `version` (1), `connection`, `taken_ms` (milliseconds since
    /// 1970), `ended`, and a list for each table: `questions`, `answers`, `exports`, `imports`, `promises`, `embargoes`.
    /// The fields of an entry have the names that they have here, but `age_ms` stands for `age`. An enum is an object whose
    /// field `kind` has the variant's name as it is here, beside the fields of the variant; one whose variants have no fields is
    /// that name alone. What is `None` is `null`. IDs are numbers; the ID of an interface is a string like
    /// `"0xe1d7751bb3fa53db"`, since many readers of JSON round numbers of 64 bits.
    ///
    /// A later version of the crate may add fields and kinds. If it changes or removes any, `version` is increased.
    pub fn to_json(&self) -> String {
        self.0.json()
    }

    /// Panics if the entries contradict each other.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn check(&self) {
        self.0.check();
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.print(f)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
