//! What a thread that waits for a value can do itself to have it come.

use crate::sync::{Arc, Instant};

/// Where the value of a promise is read from.
pub(crate) trait Reading: Send + Sync {
    /// Reads on this thread until `waiter` no longer waits; has it sleep if somebody else reads. May return early.
    fn read_for(&self, waiter: &dyn Waiter);
}

/// A thread that waits, and reads meanwhile.
pub(crate) trait Waiter {
    /// Whether what it waits for has yet to come.
    fn waits(&self) -> bool;

    /// Sleeps on until it no longer waits.
    fn sleep_on(&self);

    /// Until when it waits.
    fn deadline(&self) -> Option<Instant>;

    /// From now on, whatever ends the wait calls `reader`.
    fn interrupts(&self, reader: Arc<dyn Interrupt>);
}

/// Told when a thread that reads need not any more.
pub(crate) trait Interrupt: Send + Sync {
    /// Has the thread look. On that very thread: nothing.
    fn interrupt(&self);
}
