//! The timer under a model checker, where time stands still and no deadline passes.

use super::{Arc, Instant, OnceLock};

/// Names a deadline that was set, so that it can be taken back.
pub(crate) type TimerKey = Instant;

/// Remembers nothing: it outlives each execution that is checked, and what belongs to one must not.
pub(crate) struct Timer;

impl Timer {
    /// The timer of this process.
    pub(crate) fn global() -> &'static Arc<Timer> {
        static TIMER: OnceLock<Arc<Timer>> = OnceLock::new();
        TIMER.get_or_init(|| Arc::new(Timer))
    }

    /// Never runs `action`.
    pub(crate) fn at(self: &Arc<Self>, at: Instant, action: impl FnOnce() + Send + 'static) -> TimerKey {
        drop(action);
        at
    }

    /// Takes a deadline back.
    pub(crate) fn cancel(&self, _key: TimerKey) -> bool {
        true
    }
}
