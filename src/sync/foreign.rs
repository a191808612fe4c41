//! Running what users registered, on threads that have others to serve.

use std::panic::{catch_unwind, AssertUnwindSafe};

use super::assert_unlocked;

/// Runs code of the user's: with no lock held, and so that a panic in it ends that code alone. The thread goes
/// on, for whoever else waits for it. (The panic hook has reported the panic by then.)
pub(crate) fn foreign(what: &str, body: impl FnOnce()) {
    assert_unlocked();
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        log::error!("{what} panicked");
    }
}
