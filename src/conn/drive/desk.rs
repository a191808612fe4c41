//! Where the receive stage is borrowed and given back.
//!
//! ```text
//! Note [The gate is opened late]
//! ==============================
//! While the stage is free, somebody must see what arrives: the receive thread does, at the open gate. But a thread that
//! keeps a window of calls comes back in a moment, again and again, and what arrives while it makes its next calls
//! would wake the receive thread each time, for nothing. (To open the gate and shut it again takes two system calls,
//! besides.) So whoever gives the stage back leaves the gate shut if it was borrowed some times already within a moment
//! of being given back, and if nobody else depends on what arrives. The keeper then looks from time to time whether
//! somebody has come in a moment, and opens the gate if not.
//!
//! So while the stage is free the gate is open, or the keeper knows of it; and nothing that arrives is left lying for
//! longer than a moment and the keeper's interval. What decides is under the lock. The gate is opened and shut outside of
//! it, and yet is not left shut by mistake: only a borrower shuts it, before it reads, and so before whatever is decided
//! after that. An opening that comes too late, when the next one has borrowed the stage, wakes the receive thread for
//! nothing. (Who opens the gate later takes the stage for that, and lends it: whoever finds it gone in between is seen to
//! by the receive thread.)
//! ```

use super::keeper::{keep, Kept};
use crate::sync::{Arc, Condvar, Duration, Instant, Mutex, MutexGuard, Rank, Weak};
use crate::transport::Readiness;

/// How many times in a row the stage is lent for nothing before the receive thread keeps it.
const CHANCES: u8 = 8;
/// How long whoever has given the stage back may take to come again before the gate is opened.
const MOMENT: Duration = Duration::from_millis(1);
/// After how many quick returns in a row the gate is left shut.
const QUICK: u8 = 4;
/// At how many looks in a row the stage may be out before the keeper looks no more.
const PATIENCE: u8 = 2;

/// What is lent.
pub(in crate::conn) trait Lent: Send {
    /// Nothing may arrive for a while.
    fn rest(&mut self);
}

/// A stage that is lent, and where to wait for what it receives.
pub(in crate::conn) struct Desk<S> {
    state: Mutex<State<S>>,
    /// Never notified: to wait for a moment.
    nothing: Condvar,
}

struct State<S> {
    /// Unless somebody has it, the stage, and its gate.
    stage: Option<(S, Arc<dyn Readiness>)>,
    gate: KnownGate,
    /// How many times more the receive thread lends it without anybody's borrowing it.
    chances: u8,
    /// How the gate stands, or will.
    open: bool,
    /// Whether the keeper knows of this, or is being told.
    kept: bool,
    /// How often the stage has been borrowed, and how often when the keeper looked.
    borrowed: u64,
    seen: u64,
    /// At how many looks in a row somebody had it, the same as before.
    had: u8,
    /// When it was given back, and how many times in a row it was borrowed within a moment of that.
    given_back: Option<Instant>,
    quick: u8,
}

/// Where to wait for what a stage receives, as far as it is known.
enum KnownGate {
    NotAskedFor,
    /// The source can't be waited for by turns.
    None,
    Some(Arc<dyn Readiness>),
    /// The receive thread has ended: nothing is lent any more.
    Gone,
}

impl<S> State<S> {
    fn check(&self) {
        debug_assert!(self.stage.is_none() || self.open || self.kept, "somebody sees what arrives");
    }

    /// The stage, which is borrowed now.
    fn borrow(&mut self) -> Option<(S, Arc<dyn Readiness>)> {
        let stage = self.stage.take()?;
        self.borrowed += 1;
        self.quick = if self.is_recent() { QUICK.min(self.quick + 1) } else { 0 };
        Some(stage)
    }

    /// Whether the stage was given back just now. Model checkers know no time.
    fn is_recent(&self) -> bool {
        cfg!(loom) || self.given_back.is_some_and(|at| at.elapsed() < MOMENT)
    }

    /// Whether who gives the stage back, as somebody does now, has come again in a moment some times.
    fn is_quick(&mut self) -> bool {
        self.given_back = Some(Instant::now());
        self.quick == QUICK
    }
}

impl<S: Lent> Desk<S> {
    pub(in crate::conn) fn new() -> Self {
        let state = State {
            stage: None,
            gate: KnownGate::NotAskedFor,
            chances: 0,
            open: false,
            kept: false,
            borrowed: 0,
            seen: 0,
            had: 0,
            given_back: None,
            quick: 0,
        };
        Desk { state: Mutex::new(Rank::Queue, state), nothing: Condvar::new() }
    }

    /// The gate, if there is one. The receive thread alone asks for it, with `make`.
    pub(in crate::conn) fn gate_or(
        &self,
        make: impl FnOnce() -> Option<Arc<dyn Readiness>>,
    ) -> Option<Arc<dyn Readiness>> {
        if !matches!(self.state.lock().gate, KnownGate::NotAskedFor) {
            return self.gate();
        }
        let gate = make();
        self.state.lock().gate = gate.clone().map_or(KnownGate::None, KnownGate::Some);
        gate
    }

    /// The gate, if there is one.
    pub(in crate::conn) fn gate(&self) -> Option<Arc<dyn Readiness>> {
        match &self.state.lock().gate {
            KnownGate::Some(gate) => Some(gate.clone()),
            KnownGate::NotAskedFor | KnownGate::None | KnownGate::Gone => None,
        }
    }

    /// Whether it is known that there is no gate.
    pub(in crate::conn) fn has_no_gate(&self) -> bool {
        matches!(self.state.lock().gate, KnownGate::None | KnownGate::Gone)
    }

    /// The receive thread has ended. Gives back what is held of the transport: clients may hold this for longer.
    pub(in crate::conn) fn close(&self) {
        let mut state = self.state.lock();
        let stage = state.stage.take();
        let gate = std::mem::replace(&mut state.gate, KnownGate::Gone);
        drop(state);
        drop((stage, gate));
    }

    /// From now on the stage may be lent for nothing some times.
    pub(in crate::conn) fn renew_chances(&self) {
        self.state.lock().chances = CHANCES;
    }

    /// Puts the stage here, and opens the gate.
    pub(in crate::conn) fn lend(&self, mut stage: S, gate: Arc<dyn Readiness>) {
        stage.rest();
        let mut state = self.state.lock();
        if matches!(state.gate, KnownGate::Gone) {
            drop(state);
            return drop(stage);
        }
        debug_assert!(state.stage.is_none(), "one reads");
        (state.stage, state.open) = (Some((stage, gate.clone())), true);
        drop(state);
        gate.arm();
    }

    /// The stage, if it is free, and whether to lend it again. For the receive thread, which has passed the gate.
    pub(in crate::conn) fn take_back(&self) -> Option<(S, bool)> {
        let mut state = self.state.lock();
        let (stage, gate) = state.stage.take()?;
        state.open = false;
        state.chances = state.chances.saturating_sub(1);
        let again = state.chances > 0;
        drop(state);
        drop(gate);
        Some((stage, again))
    }

    /// How often the stage has been borrowed.
    pub(in crate::conn) fn borrows(&self) -> u64 {
        self.state.lock().borrowed
    }

    /// The stage and its gate, if it is free. The gate is shut then.
    pub(in crate::conn) fn borrow(&self) -> Option<(S, Arc<dyn Readiness>)> {
        let mut state = self.state.lock();
        let (stage, gate) = state.borrow()?;
        state.chances = CHANCES;
        let open = std::mem::replace(&mut state.open, false);
        drop(state);
        if open {
            gate.disarm();
        }
        Some((stage, gate))
    }

    /// Opens the gate, if it was left shut: somebody depends on what arrives.
    pub(in crate::conn) fn watch(&self) {
        self.unshut(self.state.lock());
    }

    fn unshut(&self, mut state: MutexGuard<'_, State<S>>) {
        let left_shut = if state.open { None } else { state.stage.take() };
        drop(state);
        if let Some((stage, gate)) = left_shut {
            self.lend(stage, gate);
        }
    }

    /// Waits a moment for somebody to borrow the stage.
    pub(in crate::conn) fn linger(&self, until: Option<Instant>) {
        let mut state = self.state.lock();
        self.nothing.wait_until(&mut state, until);
    }
}

impl<S: Lent + 'static> Desk<S> {
    /// Puts a borrowed stage back. The gate is opened, now or, if `may_leave_shut` (which is asked while nobody can
    /// borrow the stage), later.
    pub(in crate::conn) fn give_back(
        self: &Arc<Self>,
        stage: S,
        gate: Arc<dyn Readiness>,
        may_leave_shut: impl FnOnce() -> bool,
    ) {
        let mut state = self.state.lock();
        debug_assert!(state.stage.is_none(), "one reads");
        let shut = state.is_quick() && may_leave_shut() && !matches!(state.gate, KnownGate::Gone);
        if !shut {
            drop(state);
            return self.lend(stage, gate);
        }
        (state.stage, state.open) = (Some((stage, gate)), false);
        let known = std::mem::replace(&mut state.kept, true);
        state.check();
        drop(state);
        if !known {
            let this: Weak<Self> = Arc::downgrade(self);
            keep(this);
        }
    }
}

impl<S: Lent> Kept for Desk<S> {
    /// Opens the gate if nobody has come since the last look.
    fn look(self: Arc<Self>) -> bool {
        let mut state = self.state.lock();
        let borrowed = state.borrowed;
        let changed = std::mem::replace(&mut state.seen, borrowed) != borrowed;
        let stays = match &state.stage {
            Some(_) => changed && state.is_recent(),
            None => changed || state.had < PATIENCE,
        };
        if stays {
            state.had = if changed { 0 } else { state.had + 1 };
            return true;
        }
        // Should somebody still have it, the keeper will be told again.
        state.kept = false;
        self.unshut(state);
        false
    }

    #[cfg(not(any(shuttle, loom)))]
    fn give_up(&self) {
        let mut state = self.state.lock();
        state.kept = false;
        self.unshut(state);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::sync::atomic::{AtomicBool, Ordering};

    struct Stage;

    impl Lent for Stage {
        fn rest(&mut self) {}
    }

    /// A gate that is open or shut.
    #[derive(Default)]
    struct Door(AtomicBool);

    impl Door {
        fn is_open(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Readiness for Door {
        fn wait_armed(&self) {}

        fn arm(&self) {
            self.0.store(true, Ordering::SeqCst);
        }

        fn disarm(&self) {
            self.0.store(false, Ordering::SeqCst);
        }

        fn wait(&self, _deadline: Option<Instant>) {}

        fn wake(&self) {}
    }

    /// A desk on which the stage lies, with a gate.
    fn desk() -> (Arc<Desk<Stage>>, Arc<Door>) {
        let (desk, door) = (Arc::new(Desk::new()), Arc::new(Door::default()));
        let gate = desk.gate_or(|| Some(door.clone() as Arc<dyn Readiness>)).unwrap();
        desk.lend(Stage, gate);
        (desk, door)
    }

    /// Borrows the stage, unless the keeper has it just now, and gives it back.
    fn turn(desk: &Arc<Desk<Stage>>, may_leave_shut: bool) {
        if let Some((stage, gate)) = desk.borrow() {
            desk.give_back(stage, gate, || may_leave_shut);
        }
    }

    /// Whether somebody sees what arrives, now or after the keeper has looked.
    fn is_seen(desk: &Arc<Desk<Stage>>, door: &Door) -> bool {
        let free = desk.state.lock().stage.is_some();
        while desk.state.lock().kept {
            desk.clone().look();
        }
        free && desk.state.lock().open && door.is_open()
    }

    #[cfg(loom)]
    mod loom_tests {
        use super::*;
        use crate::sync::{check_all, spawn, Role};

        /// A desk whose gate is left shut at the next turn.
        fn quick_desk() -> (Arc<Desk<Stage>>, Arc<Door>) {
            let (desk, door) = desk();
            (1..QUICK).for_each(|_| turn(&desk, true));
            (desk, door)
        }

        /// Borrowers come and go while the keeper looks.
        #[test]
        fn loom_a_gate_is_not_left_shut_for_ever() {
            check_all(|| {
                let (desk, door) = quick_desk();
                let keeper = spawn("other", Role::User, {
                    let desk = desk.clone();
                    move || {
                        desk.clone().look();
                        desk.clone().look();
                    }
                })
                .unwrap();
                turn(&desk, true);
                turn(&desk, true);
                keeper.join().unwrap();
                assert!(is_seen(&desk, &door));
            });
        }

        /// Somebody who does not read comes to depend on what arrives.
        #[test]
        fn loom_who_depends_on_what_arrives_has_it_seen() {
            check_all(|| {
                let (desk, door) = quick_desk();
                let depends = Arc::new(AtomicBool::new(false));
                let other = spawn("other", Role::User, {
                    let (desk, depends) = (desk.clone(), depends.clone());
                    move || {
                        depends.store(true, Ordering::Relaxed);
                        desk.watch();
                    }
                })
                .unwrap();
                // Unless the other one has it just now.
                if let Some((stage, gate)) = desk.borrow() {
                    desk.give_back(stage, gate, || !depends.load(Ordering::Relaxed));
                }
                other.join().unwrap();
                assert!(door.is_open(), "without the keeper");
            });
        }
    }

    #[cfg(not(loom))]
    mod unit_tests {
        use super::*;
        use crate::sync::Duration;

        #[test]
        fn a_gate_is_open_while_the_stage_is_free() {
            let (desk, door) = desk();
            assert!(door.is_open());
            for _ in 0..2 * QUICK {
                let (stage, gate) = desk.borrow().unwrap();
                assert!(!door.is_open() && desk.borrow().is_none());
                desk.give_back(stage, gate, || false);
                assert!(door.is_open());
            }
            assert!(desk.take_back().is_some());
        }

        #[test]
        fn a_closed_desk_holds_no_gate_whoever_gives_the_stage_back() {
            for borrowed in [false, true] {
                let (desk, door) = desk();
                let out = borrowed.then(|| desk.borrow().unwrap());
                desk.close();
                if let Some((stage, gate)) = out {
                    desk.give_back(stage, gate, || true);
                }
                assert_eq!(Arc::strong_count(&door), 1);
                assert!(desk.gate().is_none() && desk.has_no_gate() && desk.borrow().is_none());
            }
        }

        #[test]
        fn a_gate_that_was_left_shut_is_opened_in_a_moment() {
            let (desk, door) = desk();
            // It may take this thread too long to do it quickly.
            while door.is_open() {
                turn(&desk, true);
            }
            assert!(desk.state.lock().kept);
            let deadline = crate::sync::deadline(Duration::from_secs(60));
            while !door.is_open() {
                assert!(Instant::now() < deadline, "the keeper looks");
                crate::sync::yield_now();
            }
            assert!(is_seen(&desk, &door));
        }
    }
}
