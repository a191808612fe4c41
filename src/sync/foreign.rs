//! Running users' code on threads that have others to serve.
//!
//! ```text
//! Note [Users' code is guarded]
//! =============================
//! Users' code may panic: methods, callbacks, wakers, and the `Drop` of anything that a user has given to this crate.
//! A panic ends that code alone. It is caught where the code is run: on a thread of a connection it would else end the
//! connection, on a pool's the thread, and in the middle of an end it would leave the rest of the end undone.
//!
//! Values of users' are kept as `Foreign`, which catches a panic of their `Drop`. So nothing of this crate's panics when
//! it is dropped, whatever it holds: a list of such values is dropped to its end, and a thread that is unwinding
//! already does not panic a second time, which would abort the process.
//!
//! The logger is the user's too, and so is what a panic carries.
//! ```

use std::any::Any;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::{assert_unlocked, in_turn};

/// Runs users' code: with no lock held, and so that a panic in it ends that code alone. See Note [Users' code is
/// guarded].
pub(crate) fn foreign(what: &str, body: impl FnOnce()) {
    // What is said of the panic has been logged.
    let _ = foreign_outcome(what, body);
}

/// As [`foreign`], with what the code returns, or what is to be said of its panic: that is logged already.
pub(crate) fn foreign_outcome<R>(what: &str, body: impl FnOnce() -> R) -> Result<R, String> {
    assert_unlocked();
    guard(what, body)
}

fn guard<R>(what: &str, body: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| panicked(what, panic))
}

/// Logs a panic that was caught, and returns what was logged.
pub(crate) fn panicked(what: &str, panic: Box<dyn Any + Send>) -> String {
    let said = panic_text(what, &*panic);
    let logging = catch_unwind(|| log::error!("{said}"));
    for thrown in [Some(panic), logging.err()].into_iter().flatten() {
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
            mem::forget(again);
        }
    }
    said
}

/// What is said of a panic in the user's code `what`.
pub(crate) fn panic_text(what: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("{what} panicked: {}", text.unwrap_or("(no message)"))
}

/// A value of a user's. Its drop is guarded (Note [Users' code is guarded]), and takes its turn (Note [One after the
/// other]).
pub(crate) struct Foreign<T: Send + 'static>(Option<T>);

impl<T: Send> Foreign<T> {
    pub(crate) fn new(value: T) -> Self {
        Foreign(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect("it is there until it is taken out, which consumes this")
    }
}

impl<T: Send> Deref for Foreign<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is taken out, which consumes this")
    }
}

impl<T: Send> DerefMut for Foreign<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is taken out, which consumes this")
    }
}

impl<T: Send + 'static> Drop for Foreign<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            in_turn(move || drop(guard("the drop of a value of the program's", || drop(value))));
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    struct Panics;

    impl Drop for Panics {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        }
    }

    #[test]
    fn a_panic_is_told() {
        assert_eq!(foreign_outcome("a test", || 1), Ok(1));
        let said = |outcome: Result<(), String>| outcome.unwrap_err();
        assert_eq!(said(foreign_outcome("a test", || panic!("for {}", "fun"))), "a test panicked: for fun");
        assert_eq!(
            said(foreign_outcome("a test", || std::panic::panic_any(1))),
            "a test panicked: (no message)"
        );
        assert_eq!(
            said(foreign_outcome("a test", || std::panic::panic_any(Panics))),
            "a test panicked: (no message)"
        );
    }

    #[test]
    fn drops_that_panic_go_no_further_while_the_thread_unwinds_too() {
        let before = DROPPED.load(Ordering::Relaxed);
        drop([Foreign::new(Panics), Foreign::new(Panics)]);
        let unwinding = foreign_outcome("a test", || {
            let _all = [Foreign::new(Panics), Foreign::new(Panics)];
            panic!("first");
        });
        assert_eq!(unwinding, Err("a test panicked: first".into()));
        assert!(DROPPED.load(Ordering::Relaxed) >= before + 4);
    }
}
