//! Doing each part of something, whatever panics.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

/// The parts of something that are all to be done. The first panic in one goes on when the others have been done.
#[derive(Default)]
pub(super) struct AllParts(Option<Box<dyn Any + Send>>);

impl AllParts {
    pub(super) fn part(&mut self, part: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
            self.0.get_or_insert(panic);
        }
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.0.is_some()
    }

    /// # Panics
    /// If a part has.
    pub(super) fn finish(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
