//! Doing things one after the other that would else be done one inside the other.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::per_thread;

type Turn = Box<dyn FnOnce()>;

per_thread! {
    /// What this thread is to do when it has done what it does now.
    static WAITING: RefCell<Option<VecDeque<Turn>>> = RefCell::new(None);
}

/// Runs `body` now, or, inside another body that this thread runs so, after that: a long chain of things that
/// each lead to the next takes no deep stack.
pub(crate) fn in_turn(body: impl FnOnce() + 'static) {
    let mut body = Some(body);
    let nested = WAITING.try_with(|waiting| match &mut *waiting.borrow_mut() {
        Some(turns) => turns.extend(body.take().map(|body| Box::new(body) as Turn)),
        none => *none = Some(VecDeque::new()),
    });
    let Some(body) = body else { return };
    // Only an error where the thread is ending, and has no such list any more.
    let _end = nested.is_ok().then_some(End);
    body();
    while let Ok(Some(next)) = WAITING.try_with(|waiting| waiting.borrow_mut().as_mut()?.pop_front()) {
        next();
    }
}

/// This thread runs no body any more, also when one panicked.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let rest = WAITING.try_with(|waiting| waiting.borrow_mut().take());
        drop(rest);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_chain_runs_in_order_and_takes_no_stack() {
        fn link(n: u32, seen: &Rc<RefCell<Vec<u32>>>) {
            let seen = seen.clone();
            in_turn(move || {
                if n < 100_000 {
                    link(n + 1, &seen);
                }
                seen.borrow_mut().push(n);
            });
        }
        let seen = Rc::default();
        link(0, &seen);
        assert!(seen.borrow().iter().copied().eq(0..=100_000));
    }

    #[test]
    fn a_panic_ends_the_chain() {
        let panicking = || in_turn(|| panic!("on purpose"));
        assert!(std::panic::catch_unwind(panicking).is_err());
        let ran = Rc::new(RefCell::new(false));
        let run = ran.clone();
        in_turn(move || *run.borrow_mut() = true);
        assert!(*ran.borrow());
    }
}
