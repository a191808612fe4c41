//! How much memory all connections of the process hold for their peers, and what is free given back to the system.
//!
//! ```text
//! Note [Memory of the process]
//! ============================
//! Each connection has limits of its own. Many peers together may use so much of each that the process dies. So there is a
//! limit on the sum, too. What a connection may hold before it has to wait falls with what is left: it is a third of the
//! room that all connections have left free (the dynamic threshold of Choudhury and Hahne, which switches use for a
//! common buffer). So the largest users are stopped first, a single one gets a quarter of all at most, and there is always
//! room for the next. A connection that holds no more than `ALWAYS` is never stopped.
//!
//! A connection that is above the threshold reads on when it holds less, or when others do. If it must read on, its calls
//! are refused (Note [Backpressure]). A large message that has begun to arrive counts as it comes; one that finds no room
//! ends its connection.
//!
//! The sum is not exact: a connection tells only when what it holds has changed by `QUANTUM`, so that calls take no
//! common lock, and no common cache line.
//! ```

#[cfg(not(any(shuttle, loom)))]
mod trim;

use crate::sync::atomic::Ordering;
use crate::sync::{ProcessCounter, Weak};

#[cfg(not(any(shuttle, loom)))]
pub(crate) use trim::trim_soon;

/// By how many bytes what a connection holds changes before it tells. What is less than that does not count.
pub(crate) const QUANTUM: usize = 64 << 10;
/// How many bytes a connection may always hold.
const ALWAYS: usize = 4 * QUANTUM;
/// Into how many parts the free room is divided: a connection may hold one.
const PARTS: u64 = 3;

static HELD: ProcessCounter = ProcessCounter::new(0);
static LIMIT: ProcessCounter = ProcessCounter::new(160 << 20);

/// How much memory the connections of this process hold for their peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessMemory {
    /// How many bytes it is now, to within 64 KiB for each connection: calls in service, messages to be sent, entries of
    /// tables, and large messages that have begun to arrive. What the objects of the program take does not count.
    pub held: usize,
    /// How many bytes it may be.
    pub limit: usize,
}

/// How much memory the connections of this process hold for their peers, and may hold: see [`set_process_memory`].
pub fn process_memory() -> ProcessMemory {
    let bytes =
        |counter: &ProcessCounter| usize::try_from(counter.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    ProcessMemory { held: bytes(&HELD), limit: bytes(&LIMIT) }
}

/// Sets how many bytes all connections of this process may hold for their peers together; 160 MiB if this is never
/// called. [`Limits`](crate::Limits) bound each connection by itself.
///
/// No connection may hold more than a third of what all of them leave free. One that holds more stops reading until it holds
/// less or others do; while answers are awaited from its peer, its calls fail as `overloaded` instead. A large message
/// that arrives when there is no room for it ends its connection. So those that hold most are stopped first, and a
/// connection that holds no more than 256 KiB never is.
///
/// The process takes more than that: what the program's objects take, stacks of threads, buffers of at most 64 KiB for each
/// connection, and what the allocator does not give back.
///
/// # Panics
/// If the limit is less than 256 KiB: one connection may always hold that much, so it could not be kept.
#[track_caller]
pub fn set_process_memory(bytes: usize) {
    assert!(
        bytes >= ALWAYS,
        "the memory limit of the process is {bytes} bytes, and must be at least {ALWAYS}"
    );
    LIMIT.store(bytes as u64, Ordering::SeqCst);
    waiting::tell();
}

/// Whether a connection that holds so many bytes may take on more.
pub(crate) fn has_room(held: usize) -> bool {
    had_room(held, 0)
}

/// Whether a connection that held so many bytes might take on more, before it did: `since`.
pub(crate) fn had_room(held: usize, since: usize) -> bool {
    held <= ALWAYS || held as u64 <= threshold(since as u64)
}

/// How much a connection may hold, if `less` of what is held were not.
fn threshold(less: u64) -> u64 {
    // A model checker's runs share nothing.
    match cfg!(any(shuttle, loom)) {
        true => u64::MAX,
        false => {
            let held = HELD.load(Ordering::SeqCst).saturating_sub(less);
            LIMIT.load(Ordering::SeqCst).saturating_sub(held) / PARTS
        }
    }
}

/// A connection that held `before` bytes holds `now`. The caller holds no lock.
pub(crate) fn changed(before: usize, now: usize) {
    if now > before {
        HELD.fetch_add((now - before) as u64, Ordering::SeqCst);
    } else {
        HELD.fetch_sub((before - now) as u64, Ordering::SeqCst);
        waiting::tell();
    }
}

/// Bytes that are held for a message which has not arrived as a whole.
#[derive(Default)]
pub(crate) struct Arriving(usize);

impl Arriving {
    /// So many bytes of it are held now. False if there is no room for them.
    pub(crate) fn grows_to(&mut self, bytes: usize) -> bool {
        if bytes >= self.0 + QUANTUM {
            if !has_room(bytes) {
                return false;
            }
            changed(self.0, bytes);
            self.0 = bytes;
        }
        true
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.0 > 0 {
            changed(self.0, 0);
        }
    }
}

/// What waits until connections hold less.
#[cfg_attr(any(shuttle, loom), allow(dead_code))] // There is no limit on what a model checker's runs hold.
pub(crate) trait WaitsForMemory: Send + Sync {
    /// They do.
    fn wake(&self);
}

pub(crate) use waiting::tell_when_less;

/// Who is told when connections hold less.
#[cfg(not(any(shuttle, loom)))]
mod waiting {
    use super::*;
    use crate::sync::{Mutex, OnceLock, Rank};

    type List = Vec<Weak<dyn WaitsForMemory>>;

    /// One if somebody is in the list.
    static ANY: ProcessCounter = ProcessCounter::new(0);

    fn list() -> &'static Mutex<List> {
        static LIST: OnceLock<Mutex<List>> = OnceLock::new();
        LIST.get_or_init(|| Mutex::new(Rank::Memory, List::new()))
    }

    /// Has it woken when connections hold less than at a moment after this returns.
    pub(crate) fn tell_when_less(who: Weak<dyn WaitsForMemory>) {
        list().lock().push(who);
        ANY.store(1, Ordering::SeqCst);
    }

    pub(super) fn tell() {
        if ANY.load(Ordering::SeqCst) == 0 || ANY.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let all = std::mem::take(&mut *list().lock());
        all.iter().filter_map(Weak::upgrade).for_each(|who| who.wake());
    }
}

#[cfg(any(shuttle, loom))]
mod waiting {
    use super::*;

    pub(crate) fn tell_when_less(_: Weak<dyn WaitsForMemory>) {}

    pub(super) fn tell() {}
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
