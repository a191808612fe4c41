//! Doing things one after the other that would else be done one inside the other.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::per_thread;

/// How many bodies run one inside the other before the next is put off.
const DEEP: usize = 16;

/// What this thread does now, and is to do after that.
struct Turns {
    /// How many bodies, each inside the one before.
    depth: usize,
    later: VecDeque<Box<dyn FnOnce()>>,
}

per_thread! {
    static TURNS: RefCell<Turns> = RefCell::new(Turns { depth: 0, later: VecDeque::new() });
}

/// Runs `body` now, or, deep inside other bodies that this thread runs so, after the outermost of them: a long
/// chain of things that each lead to the next takes no deep stack.
pub(crate) fn in_turn(body: impl FnOnce() + 'static) {
    let depth = TURNS.try_with(|turns| {
        let depth = &mut turns.borrow_mut().depth;
        *depth += 1;
        *depth
    });
    // Only an error where the thread is ending, and has no such list any more.
    let Ok(depth) = depth else { return body() };
    let _end = End;
    if depth > DEEP {
        return TURNS.with(|turns| turns.borrow_mut().later.push_back(Box::new(body)));
    }
    body();
    if depth == 1 {
        while let Ok(Some(next)) = TURNS.try_with(|turns| turns.borrow_mut().later.pop_front()) {
            next();
        }
    }
}

/// This thread runs one body less, also when one panicked. What was put off is done after the next one then.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        // Only an error where the thread is ending.
        let _ = TURNS.try_with(|turns| turns.borrow_mut().depth -= 1);
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
        let panicking = std::panic::AssertUnwindSafe(move || {
            in_turn(move || {
                chain(1, DEEP, &inner);
                panic!("on purpose");
            });
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(seen.borrow().iter().copied().eq(1..DEEP));
        chain(0, 0, &seen);
        assert!(seen.borrow().iter().copied().eq((1..DEEP).chain([0, DEEP])));
    }
}
