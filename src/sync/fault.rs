//! Panics on purpose, for tests: in the middle of transactions, at each point in turn.

use std::cell::Cell;

use super::per_thread;

per_thread! {
    /// How many points this thread passes before it panics at one, if it is to.
    static LEFT: Cell<Option<u32>> = Cell::new(None);
}

/// Has this thread panic after so many points. Gives what was left of the same before.
pub(crate) fn set(left: Option<u32>) -> Option<u32> {
    LEFT.with(|kept| kept.replace(left))
}

/// A point at which this thread may be made to panic, once.
pub(crate) fn point() {
    let left = LEFT.with(Cell::get);
    if let Some(left) = left {
        LEFT.with(|kept| kept.set(left.checked_sub(1)));
        if left == 0 {
            std::panic::panic_any(PANIC);
        }
    }
}

/// What such a panic says.
pub(crate) const PANIC: &str = "a panic on purpose";
