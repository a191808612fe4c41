//! How many methods run for the calls of one connection.
//!
//! ```text
//! Note [Permits]
//! ==============
//! A method may block, and then its thread is lost to everybody else. So a call that came over a connection is answered by
//! a thread of a pool only with a *permit* of that connection: the thread holds it while it runs the method. A connection
//! has so many (`Limits::methods`). A pool whose threads run more such calls than it should (`Pool::with_call_limit`) gives
//! a connection a permit only if it has fewer than `FEW`: so those who call much wait first, and whoever calls little is
//! always served. Calls made in this vat need no permit: a method that calls another object never lacks a thread for that.
//!
//! A call for which there is no permit waits in its object's mailbox, in its place, and the object is *parked* with the
//! permits of that connection. That goes only as long as all calls in the mailbox came over that connection. If one of
//! somebody else comes, those before it are refused: they may neither stop it nor be overtaken (both could be made on one
//! reference, one of them by a detour through the peer).
//!
//! A call waits only as long as some thread with a permit of its connection is awake. If all of them wait for answers,
//! it may be this very call that they wait for: then it is refused. For the same reason the last one that is awake may not
//! wait for an answer while a call waits for a permit.
//!
//! Invariants, all under the lock of the permits:
//! - `running` is the number of permits that exist, `asleep` of those whose thread waits for an answer.
//! - While an object is in `waiting`, some permit exists whose thread is awake, or is about to be given back. When it is
//!   given back, the first object that waits is unparked, and the next one if that had no use for it.
//! - An object is in `waiting` exactly while its mailbox says that it is parked with this ticket. (Both change under the
//!   mailbox's lock, which is taken first. Whoever unparks takes the object out before, and the mailbox after.)
//! ```

use std::collections::BTreeMap;

use crate::error::Exception;
use crate::promise::Blocking;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{assert_unlocked, Arc, Mutex, Rank};

/// How many calls of a connection are always answered at a time, however many the pool answers.
const FEW: usize = 8;

/// An object whose next call waits for a permit.
pub(crate) trait Parked: Send + Sync {
    /// There may be a permit now. Ignored if the object is not parked with this ticket any more.
    fn unpark(self: Arc<Self>, ticket: Ticket) -> Unparked;
    /// Fails the calls that wait, if the object is parked with this ticket.
    fn refuse_parked(&self, ticket: Ticket, why: &Exception);
}

/// What became of an object that was unparked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unparked {
    /// It has taken a permit.
    Runs,
    /// It had no use for one.
    Passes,
    /// There was none for it.
    ParkedAgain,
}

/// Names an object that is parked. Later tickets are greater.
pub(crate) type Ticket = u64;

/// How many calls of connections a pool answers.
pub(crate) struct CallCount {
    running: AtomicUsize,
    limit: usize,
}

impl CallCount {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(CallCount { running: AtomicUsize::new(0), limit: limit.max(1) })
    }
}

/// The permits of a connection. See Note [Permits].
pub(crate) struct Permits {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    asleep: usize,
    waiting: BTreeMap<Ticket, Arc<dyn Parked>>,
    next: Ticket,
    /// The connection has ended.
    closed: bool,
}

/// What a call that needs a permit gets.
pub(crate) enum Admission {
    Now(Permit),
    Waits(Ticket),
    Refused(Exception),
}

impl Permits {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Permits { limit: limit.max(1), state: Mutex::new(Rank::Pool, State::default()) })
    }

    /// A permit for a call, if there is one.
    pub(crate) fn try_admit(self: &Arc<Self>, pool: &Arc<CallCount>) -> Option<Permit> {
        let mut state = self.state.lock();
        self.may_start(&state, pool).then(|| self.give(&mut state, pool))
    }

    /// A permit for a call, or a place among those who wait for one, if that makes sense.
    pub(crate) fn admit(
        self: &Arc<Self>,
        pool: &Arc<CallCount>,
        object: impl FnOnce() -> Arc<dyn Parked>,
    ) -> Admission {
        let mut state = self.state.lock();
        if self.may_start(&state, pool) {
            return Admission::Now(self.give(&mut state, pool));
        }
        if state.closed || state.asleep >= state.running {
            return Admission::Refused(all_asleep(state.running));
        }
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket, object());
        Admission::Waits(ticket)
    }

    fn may_start(&self, state: &State, pool: &CallCount) -> bool {
        let pool_has_room = pool.running.load(Ordering::Relaxed) < pool.limit;
        !state.closed && state.running < self.limit && (pool_has_room || state.running < FEW)
    }

    fn give(self: &Arc<Self>, state: &mut State, pool: &Arc<CallCount>) -> Permit {
        state.running += 1;
        pool.running.fetch_add(1, Ordering::Relaxed);
        Permit { permits: self.clone(), pool: pool.clone() }
    }

    /// The object does not wait any more.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let object = self.state.lock().waiting.remove(&ticket);
        // Never the last reference: whoever calls this has another.
        drop(object);
    }

    /// The connection has ended: nothing of it waits any more.
    pub(crate) fn close(&self, why: &Exception) {
        assert_unlocked();
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|(ticket, object)| object.refuse_parked(ticket, why));
    }

    /// A call is refused so that one of somebody else's, behind it in the mailbox, need not wait.
    pub(crate) fn refusal(&self) -> Exception {
        let running = self.state.lock().running;
        let reason =
            format!("{running} calls of this connection run, and calls of others wait for the same object");
        Exception::overloaded(reason)
    }
}

fn all_asleep(running: usize) -> Exception {
    let reason = format!("all {running} methods that may run for calls of this connection wait for answers");
    Exception::overloaded(reason)
}

impl Blocking for Permits {
    fn begin(&self) -> Result<(), Exception> {
        let mut state = self.state.lock();
        if state.asleep + 1 == state.running && !state.waiting.is_empty() {
            return Err(all_asleep(state.running));
        }
        state.asleep += 1;
        Ok(())
    }

    fn end(&self, awake: &AtomicBool) {
        let mut state = self.state.lock();
        if !awake.swap(true, Ordering::SeqCst) {
            state.asleep -= 1;
        }
    }
}

/// The right to run a method for a call that came over a connection. Given back when dropped, outside all locks.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    pool: Arc<CallCount>,
}

impl Permit {
    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        assert_unlocked();
        self.pool.running.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.permits.state.lock();
        state.running -= 1;
        while let Some((ticket, object)) = state.waiting.pop_first() {
            drop(state);
            if object.unpark(ticket) != Unparked::Passes {
                return;
            }
            state = self.permits.state.lock();
        }
    }
}
