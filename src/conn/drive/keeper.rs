//! Who looks after what nobody else does: gates that were left shut (Note [The gate is opened late]), and threads that
//! take too long (Note [One waits for all]).

use crate::sync::{Arc, Weak};

/// What the keeper looks after.
pub(in crate::conn) trait Kept: Send + Sync {
    /// Looks what has become of it since the last look. False: this need not be looked after any more.
    #[cfg_attr(any(shuttle, loom), allow(dead_code))]
    fn look(self: Arc<Self>) -> bool;

    /// Nobody looks after this.
    #[cfg(not(any(shuttle, loom)))]
    fn give_up(&self);
}

#[cfg(not(any(shuttle, loom)))]
pub(in crate::conn) use of_the_process::keep;

#[cfg(not(any(shuttle, loom)))]
mod of_the_process {
    use std::mem;

    use super::*;
    use crate::sync::{deadline, Duration, Mutex, OnceLock, Rank, Timer};

    /// How long after one look the next one is. (In a virtual machine a timer is dear: with a quarter of this time, a
    /// twentieth of all time went into it where a hundred threads make calls.)
    const INTERVAL: Duration = Duration::from_millis(4);

    /// What is looked at.
    #[derive(Default)]
    struct Keeper {
        kept: Vec<Weak<dyn Kept>>,
        /// The timer is to look, or does.
        looks: bool,
    }

    fn keeper() -> &'static Mutex<Keeper> {
        static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();
        KEEPER.get_or_init(|| Mutex::new(Rank::Queue, Keeper::default()))
    }

    /// Has something looked after.
    pub(in crate::conn) fn keep(kept: Weak<dyn Kept>) {
        let mut keeper = keeper().lock();
        keeper.kept.push(kept);
        let looks = mem::replace(&mut keeper.looks, true);
        drop(keeper);
        if !looks {
            look_later();
        }
    }

    fn look_later() {
        let timer = Timer::global();
        let key = timer.at(deadline(INTERVAL), look);
        if !timer.is_running() && timer.cancel(key) {
            // There is no thread for it.
            let mut keeper = keeper().lock();
            keeper.looks = false;
            let all = mem::take(&mut keeper.kept);
            drop(keeper);
            all.iter().filter_map(Weak::upgrade).for_each(|kept| kept.give_up());
        }
    }

    fn look() {
        let mut all = mem::take(&mut keeper().lock().kept);
        all.retain(|kept| kept.upgrade().is_some_and(|kept| kept.look()));
        let mut keeper = keeper().lock();
        keeper.kept.append(&mut all);
        keeper.looks = !keeper.kept.is_empty();
        let looks = keeper.looks;
        drop(keeper);
        if looks {
            look_later();
        }
    }
}

/// Model checkers know no time: a test looks itself.
#[cfg(any(shuttle, loom))]
pub(in crate::conn) fn keep(_: Weak<dyn Kept>) {}
