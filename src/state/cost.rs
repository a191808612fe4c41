//! How much memory entries of the tables take, and what is refused when they take too much.
//!
//! ```text
//! Note [What an entry costs]
//! ==========================
//! Limits on memory count bytes, and most of what a peer can have us hold is small. So each entry counts with what it
//! really costs: its place in the table, what it has on the heap, and what the allocator adds. The numbers here were
//! measured by `benches/hostile` (growth of the process, divided by entries); they are rounded up, for 64 bits. What an
//! object of the user's takes is not known here, and does not count.
//! ```

use super::State;
use crate::wire::message::{Descriptor, Incoming};

/// An entry of the answer table: a call of the peer's until its Finish, without its params.
pub(super) const ANSWER: usize = 640;
/// A capability in results that are held.
pub(super) const CAP: usize = 48;
/// The path to one.
pub(super) const CAP_PATH: usize = 72;
/// How one was told to the peer, if not as itself.
pub(super) const PINNED: usize = 64;
/// The number of an export that the Finish may release.
pub(super) const EXPORT_ID: usize = 8;
/// An exception that is held, without its text.
pub(super) const EXCEPTION: usize = 160;
/// A message that waits to be sent, without its content.
pub(super) const MESSAGE: usize = 256;
/// A message that was received and is sent back, besides its words.
pub(super) const RECEIVED: usize = 256;
/// A question of ours.
const QUESTION: usize = 384;
/// A capability of ours that the peer holds.
const EXPORT: usize = 256;
/// A capability of the peer's.
const IMPORT: usize = 256;
/// A promise of the peer's, besides the import.
const PROMISE: usize = 256;
/// An embargo of ours, until the peer has sent the Disembargo back.
const EMBARGO: usize = 512;

impl State {
    /// How many bytes the tables take, about. See Note [What an entry costs].
    pub(crate) fn held(&self) -> usize {
        self.held_until_told()
            + self.exports.len() * EXPORT
            + self.imports.len() * IMPORT
            + self.promises.len() * PROMISE
            + self.outstanding() * QUESTION
    }

    /// What stays until the peer has sent a Finish, or a Disembargo back.
    fn held_until_told(&self) -> usize {
        self.answers.len() * ANSWER + self.answer_bytes + self.embargoes.len() * EMBARGO
    }

    /// Whether a call that brings these capabilities is to be refused, because the peer has us hold too much. Results
    /// that are to be kept are for a question of ours, which may be what frees something: they have twice the room.
    pub(super) fn is_full(&self, keep_results: bool, brings: &[Descriptor<Incoming>]) -> bool {
        let room = if keep_results { 2 } else { 1 };
        let imports = self.imports.len() + brings.len();
        // Each may turn out to need an embargo.
        let is_ours = |cap: &&Descriptor<_>| {
            matches!(cap, Descriptor::ReceiverHosted(_) | Descriptor::ReceiverAnswer(_))
        };
        let named = brings.iter().filter(is_ours).count();
        self.held_until_told() + named * EMBARGO >= self.limits.answer_bytes.saturating_mul(room)
            || (!brings.is_empty() && imports > self.limits.imports.saturating_mul(room))
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;
    use crate::state::answers::Answer;
    use crate::state::embargoes::Embargo;
    use crate::state::exports::Export;
    use crate::state::imports::{Import, Pending};
    use crate::state::outcome::PinnedDestination;
    use crate::state::questions::Question;
    use crate::state::QueuedMessage;

    #[test]
    fn an_entry_costs_no_less_than_its_place_in_the_table() {
        assert!(size_of::<Answer>() < ANSWER);
        assert!(size_of::<Question>() < QUESTION);
        assert!(size_of::<QueuedMessage>() < MESSAGE);
        assert!(size_of::<Export>() < EXPORT);
        assert!(size_of::<Import>() < IMPORT);
        assert!(size_of::<Pending>() < PROMISE);
        assert!(size_of::<Embargo>() < EMBARGO);
        assert!(size_of::<PinnedDestination>() <= PINNED);
    }
}
