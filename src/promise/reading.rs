//! What a thread that waits for a value can do itself to have it come.

use std::ops::Deref;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Instant};

/// Something that goes on as long as somebody wants something of it. Others may refer to it too: those are not counted.
pub(crate) trait InterestCounted: Send + Sync {
    /// How many want something of it.
    fn wants(&self) -> &AtomicUsize;

    /// Nobody does any more, nor ever will.
    fn unwanted(self: Arc<Self>);
}

/// Held by whoever wants something.
pub(crate) struct Interest<T: InterestCounted + ?Sized>(Arc<T>);

impl<T: InterestCounted + ?Sized> Interest<T> {
    /// Wants something of what is wanted already, or has just been made.
    pub(crate) fn new(of: Arc<T>) -> Self {
        of.wants().fetch_add(1, Ordering::Relaxed);
        Interest(of)
    }

    /// A reference that is not counted.
    pub(crate) fn uncounted(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: InterestCounted + ?Sized> Clone for Interest<T> {
    fn clone(&self) -> Self {
        Interest::new(self.0.clone())
    }
}

impl<T: InterestCounted + ?Sized> Deref for Interest<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: InterestCounted + ?Sized> Drop for Interest<T> {
    fn drop(&mut self) {
        if self.0.wants().fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.clone().unwanted();
        }
    }
}

/// Where the value of a promise is read from.
pub(crate) trait Reading: InterestCounted {
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
