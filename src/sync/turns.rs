//! Doing things one after the other that would else be done one inside the other.
//!
//! ```text
//! Note [One after the other]
//! ==========================
//! What this crate does for one thing may lead to the next: a promise that is resolved hands on a call, whose answer
//! resolves a promise; an object that is dropped held the last client of another one. Peers can make such chains as long
//! as they like, and the stack of a thread is short. So each link is a *body*, which `in_turn` runs: at once, or, if
//! this thread runs `DEEP` bodies already, each inside the one before, once the outermost of them has returned. Users'
//! own recursion counts too, as it goes through such bodies. Each kind of link is a body: resolving a promise, calling an
//! object in place, calling a callback, abandoning a call, and dropping what a promise, an answer or an object holds.
//!
//! While a thread waits, it would not come to what it has put off, and may wait for that very thing: a call in place,
//! say, whose answer a user's `Drop` waits for. So a thread that is to wait does that first (`enter_wait`). What it
//! does while it waits (it may read, and handle what it reads) is not inside any body: it puts off nothing beyond that.
//! (A wait that this crate does not know of, at a channel of the user's, say, does not do it.)
//!
//! The bodies that are done before a wait may wait in turn, and so on: where that is nested `WAITS` times and something
//! is still put off, a wait is refused.
//!
//! A thread that runs a transaction holds a lock, so no body may run before it has unlocked, whatever the transaction
//! drops, and also if it panics. All bodies are put off until then (`hold_back`).
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::{self, ManuallyDrop};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::thread::panicking;

use super::{panicked, per_thread};

/// How many bodies run one inside the other before the next is put off.
const DEEP: usize = 16;

/// How many waits may begin one inside the other, each while the one before does what was put off.
const WAITS: usize = 4;

type Body = Box<dyn FnOnce()>;

/// What this thread does now, and is to do after that.
struct Turns {
    /// How many bodies run, each inside the one before, since this thread began to wait last.
    depth: usize,
    /// Bodies that are put off: none, unless a body runs or all are held back. (It needs no drop, so that it is there until the very end
    /// of the thread, when users' thread-locals may drop what they hold.)
    later: ManuallyDrop<VecDeque<Body>>,
    /// How many waits have begun inside bodies, and have not ended.
    waits: usize,
    /// All bodies are put off.
    held_back: bool,
}

per_thread! {
    static TURNS: RefCell<Turns> =
        RefCell::new(Turns { depth: 0, later: ManuallyDrop::new(VecDeque::new()), waits: 0, held_back: false });
}

/// Runs `body` now, or, deep inside other bodies that this thread runs so, after the outermost of them. See Note [One
/// after the other].
pub(crate) fn in_turn(body: impl FnOnce() + 'static) {
    let runs = TURNS.try_with(|turns| {
        let mut turns = turns.borrow_mut();
        let runs = turns.depth < DEEP && !turns.held_back;
        turns.depth += usize::from(runs);
        runs
    });
    match runs {
        Ok(true) => {
            let _running = Running;
            body();
        }
        Ok(false) => TURNS.with(|turns| turns.borrow_mut().later.push_back(Box::new(body))),
        // A model checker's thread is ending.
        Err(_) => body(),
    }
}

/// Drops `value` as [`in_turn`] would: for what may hold a long chain of such values. Its drop must not panic.
pub(crate) fn drop_in_turn(value: impl Sized + 'static) {
    in_turn(move || drop(value));
}

/// Puts off every body of this thread until the result is dropped, which is to happen after the lock has been released
/// that this thread is about to take. See Note [One after the other].
pub(crate) fn hold_back() -> HeldBack {
    set_held_back(true);
    HeldBack(())
}

/// Every body of this thread is put off.
pub(crate) struct HeldBack(());

impl Drop for HeldBack {
    fn drop(&mut self) {
        if set_held_back(false) {
            // An outermost body, after which all is done.
            in_turn(|| ());
        }
    }
}

/// Whether this thread unwinds, and a transaction of its own is what has panicked: what is dropped now may be lost.
pub(crate) fn unwinds_in_transaction() -> bool {
    panicking() && TURNS.try_with(|turns| turns.borrow().held_back).unwrap_or(false)
}

/// Whether something is put off that nobody else will come to.
fn set_held_back(held_back: bool) -> bool {
    let is_left = TURNS.try_with(|turns| {
        let mut turns = turns.borrow_mut();
        debug_assert!(turns.held_back != held_back, "a thread runs one transaction at a time");
        turns.held_back = held_back;
        turns.depth == 0 && !turns.later.is_empty()
    });
    is_left.unwrap_or(false)
}

/// A body runs.
struct Running;

impl Drop for Running {
    /// The body has returned, or panicked. The outermost does what was put off, whatever happens.
    fn drop(&mut self) {
        let mut first = None;
        while let Some(next) = next_or_end() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(next)) {
                match first {
                    None if !panicking() => first = Some(panic),
                    _ => drop(panicked("what a thread had put off", panic)),
                }
            }
        }
        if let Some(panic) = first {
            resume_unwind(panic);
        }
    }
}

/// A body has ended. If it was the outermost, what is to be done before that.
fn next_or_end() -> Option<Body> {
    TURNS.with(|turns| {
        let mut turns = turns.borrow_mut();
        let next = if turns.depth == 1 { turns.later.pop_front() } else { None };
        if next.is_none() {
            turns.depth -= 1;
            if turns.depth == 0 && turns.later.capacity() > 0 {
                *turns.later = VecDeque::new();
            }
        }
        next
    })
}

/// Too many waits of this thread are nested for what it would have to do first.
#[derive(Debug)]
pub(crate) struct TooDeep;

/// Whether this thread runs a body: it has to do what it has put off before it waits.
pub(crate) fn is_in_turn() -> bool {
    TURNS.try_with(|turns| turns.borrow().depth > 0).unwrap_or(false)
}

/// Whether something is put off.
pub(crate) fn puts_off() -> bool {
    TURNS.try_with(|turns| !turns.borrow().later.is_empty()).unwrap_or(false)
}

/// Does what this thread has put off, because it is about to wait. It waits until the result is dropped. Not to be called
/// under a lock.
pub(crate) fn enter_wait() -> Result<InWait, TooDeep> {
    let outer = TURNS.try_with(|turns| {
        let mut turns = turns.borrow_mut();
        if turns.waits >= WAITS && !turns.later.is_empty() {
            return Err(TooDeep);
        }
        turns.waits += 1;
        Ok(mem::take(&mut turns.depth))
    });
    let in_wait = InWait(outer.unwrap_or(Ok(0))?);
    // An outermost body, after which all is done.
    in_turn(|| ());
    Ok(in_wait)
}

/// This thread waits.
pub(crate) struct InWait(usize);

impl Drop for InWait {
    fn drop(&mut self) {
        let _ = TURNS.try_with(|turns| {
            let mut turns = turns.borrow_mut();
            turns.waits -= 1;
            turns.depth = self.0;
        });
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::rc::Rc;

    use super::*;

    type Seen = Rc<RefCell<Vec<usize>>>;

    /// A chain of bodies, each of which leads to the next, and sees itself before that.
    fn chain(n: usize, end: usize, seen: &Seen) {
        let seen = seen.clone();
        in_turn(move || {
            seen.borrow_mut().push(n);
            if n < end {
                chain(n + 1, end, &seen);
            }
        });
    }

    #[test]
    fn a_chain_runs_in_order_and_takes_no_stack() {
        let seen = Seen::default();
        chain(0, 100_000, &seen);
        assert!(seen.borrow().iter().copied().eq(0..=100_000));
    }

    #[test]
    fn what_is_not_deep_is_done_at_once() {
        let seen = Seen::default();
        let inner = seen.clone();
        in_turn(move || {
            chain(1, DEEP, &inner);
            inner.borrow_mut().push(0);
        });
        // The last of the chain would have been one too deep.
        assert!(seen.borrow().iter().copied().eq((1..DEEP).chain([0, DEEP])));
    }

    #[test]
    fn a_panic_loses_nothing() {
        let seen = Seen::default();
        let inner = seen.clone();
        let panicking = AssertUnwindSafe(move || {
            in_turn(move || {
                chain(1, DEEP, &inner);
                panic!("on purpose");
            });
        });
        assert!(catch_unwind(panicking).is_err());
        assert!(seen.borrow().iter().copied().eq(1..=DEEP));
        assert!(!is_in_turn());
    }

    /// A body that was put off, and panics: the others are done, and the panic goes on.
    #[test]
    fn a_panic_of_what_was_put_off_goes_on_when_all_is_done() {
        fn deep(depth: usize, seen: Seen) {
            in_turn(move || match depth {
                DEEP => {
                    in_turn(|| panic!("on purpose"));
                    in_turn(move || seen.borrow_mut().push(1));
                }
                _ => deep(depth + 1, seen),
            });
        }
        let seen = Seen::default();
        let inner = seen.clone();
        assert!(catch_unwind(AssertUnwindSafe(move || deep(1, inner))).is_err());
        assert_eq!(*seen.borrow(), [1]);
        assert!(!is_in_turn());
    }

    #[test]
    fn bodies_that_are_held_back_run_when_that_ends_also_after_a_panic() {
        let seen = Seen::default();
        let held_back = hold_back();
        chain(1, 3, &seen);
        assert!(seen.borrow().is_empty() && puts_off());
        drop(held_back);
        assert_eq!(*seen.borrow(), [1, 2, 3]);
        let inner = seen.clone();
        let panicking = AssertUnwindSafe(move || {
            let _held_back = hold_back();
            chain(4, 5, &inner);
            assert_eq!(*inner.borrow(), [1, 2, 3]);
            panic!("on purpose");
        });
        assert!(catch_unwind(panicking).is_err());
        assert_eq!(*seen.borrow(), [1, 2, 3, 4, 5]);
        assert!(!is_in_turn());
    }

    /// A transaction inside a body: what it puts off is done when the body has returned.
    #[test]
    fn bodies_that_were_held_back_inside_a_body_run_after_it() {
        let seen = Seen::default();
        let inner = seen.clone();
        in_turn(move || {
            let held_back = hold_back();
            chain(1, 1, &inner);
            drop(held_back);
            assert!(inner.borrow().is_empty());
        });
        assert_eq!(*seen.borrow(), [1]);
    }

    /// Bodies as deep as can be: the one within is put off, and done before a wait, in which nothing is.
    #[test]
    fn what_was_put_off_is_done_before_a_wait() {
        fn deep(depth: usize, seen: Seen) {
            in_turn(move || {
                if depth < DEEP {
                    return deep(depth + 1, seen);
                }
                let (put_off, read) = (seen.clone(), seen.clone());
                in_turn(move || put_off.borrow_mut().push(1));
                assert!(seen.borrow().is_empty() && puts_off());
                let in_wait = enter_wait().unwrap();
                assert_eq!(*seen.borrow(), [1]);
                in_turn(move || read.borrow_mut().push(2));
                assert_eq!(*seen.borrow(), [1, 2]);
                drop(in_wait);
                chain(3, 3, &seen);
                assert_eq!(*seen.borrow(), [1, 2], "it is as deep as before");
            });
        }
        let seen = Seen::default();
        deep(1, seen.clone());
        assert_eq!(*seen.borrow(), [1, 2, 3]);
    }

    /// Bodies that were put off, each of which waits.
    #[test]
    fn waits_are_nested_only_so_deep() {
        fn deep(depth: usize, seen: Seen) {
            in_turn(move || {
                if depth < DEEP {
                    return deep(depth + 1, seen);
                }
                for n in 0..WAITS + 3 {
                    let seen = seen.clone();
                    in_turn(move || {
                        let refused = enter_wait().is_err();
                        seen.borrow_mut().push(if refused { n } else { n + 100 });
                    });
                }
            });
        }
        let seen = Seen::default();
        deep(1, seen.clone());
        let (refused, begun): (Vec<usize>, Vec<usize>) = seen.take().into_iter().partition(|n| *n < 100);
        assert_eq!(refused, [4, 5], "all but the last, for which nothing is put off any more");
        assert_eq!(begun, [106, 103, 102, 101, 100]);
    }
}
