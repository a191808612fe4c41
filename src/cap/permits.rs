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
//! Small calls can have large answers. So no call of a connection starts while its peer leaves too much unread
//! (`Output`): its object is parked, and *held*. That ends when the peer has read, whoever sleeps, so it can't be what
//! others wait for. If a call of somebody else's comes behind it, it starts all the same, as long as the output is not
//! full; then it is refused, as above.
//!
//! Invariants, all under the lock of the permits:
//! - `running` is the number of permits that exist, `asleep` of those whose thread waits for an answer.
//! - While an object is in `waiting`, some permit exists whose thread is awake, or is about to be given back. When it is
//!   given back, the first object that waits is unparked, and the next one if that had no use for it.
//! - While an object is in `held`, the output has no room and will tell when it has, or somebody who was told is about
//!   to unpark all that are held, until there is no room again.
//! - An object is in `waiting` or `held` exactly while its mailbox says that it is parked with this ticket. (Both change
//!   under the mailbox's lock, which is taken first. Whoever unparks takes the object out before, and the mailbox after.)
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
    /// It had no use for one: its calls have gone, need none, or are held until the peer has read.
    Passes,
    /// There was none for it: it waits for one again.
    ParkedAgain,
}

/// Names an object that is parked. Later tickets are greater.
pub(crate) type Ticket = u64;

/// What a connection has to send, which grows with each answer that its peer does not read.
pub(crate) trait Output: Send + Sync {
    /// Whether the peer reads well enough for another call to start.
    fn has_room(&self) -> bool;
    /// Whether no call may start, whoever waits behind it.
    fn is_full(&self) -> bool;
    /// From now on, whoever makes room calls [`Permits::unpark_held`], once.
    fn watch(&self);
}

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
    output: Arc<dyn Output>,
    state: Mutex<PermitState>,
}

#[derive(Default)]
struct PermitState {
    running: usize,
    asleep: usize,
    /// Who waits for a permit.
    waiting: BTreeMap<Ticket, Arc<dyn Parked>>,
    /// Who waits until the peer has read.
    held: BTreeMap<Ticket, Arc<dyn Parked>>,
    next: Ticket,
    /// Why the connection has ended, if it has.
    closed: Option<Exception>,
}

/// What a call that is the next of its object gets.
pub(crate) enum Admission {
    /// It starts, with a permit if it needs one.
    Now(Option<Permit>),
    /// Its object is parked, and waits for a permit.
    Waits(Ticket),
    /// Its object is parked until the peer has read. It has no use for a permit before that.
    Held(Ticket),
    Refused(Exception),
}

impl PermitState {
    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next - 1
    }
}

impl Permits {
    pub(crate) fn new(limit: usize, output: Arc<dyn Output>) -> Arc<Self> {
        Arc::new(Permits {
            limit: limit.max(1),
            output,
            state: Mutex::new(Rank::Pool, PermitState::default()),
        })
    }

    /// What a call starts with, if it may start now: a permit, if it is for a pool that counts calls. A `kept` one is
    /// used again, if it is of this connection.
    pub(crate) fn try_admit(
        self: &Arc<Self>,
        pool: Option<&Arc<CallCount>>,
        kept: &mut Option<Permit>,
    ) -> Option<Option<Permit>> {
        self.output.has_room().then(|| self.permit(pool, kept)).flatten()
    }

    fn permit(
        self: &Arc<Self>,
        pool: Option<&Arc<CallCount>>,
        kept: &mut Option<Permit>,
    ) -> Option<Option<Permit>> {
        let Some(pool) = pool else { return Some(None) };
        if let Some(permit) = kept.take_if(|permit| Arc::ptr_eq(&permit.permits, self)) {
            return Some(Some(permit));
        }
        let mut state = self.state.lock();
        self.may_start(&state, pool).then(|| Some(self.give(&mut state, pool)))
    }

    /// The same, or a place among those who wait, if that makes sense.
    pub(crate) fn admit(
        self: &Arc<Self>,
        pool: Option<&Arc<CallCount>>,
        kept: &mut Option<Permit>,
        object: impl FnOnce() -> Arc<dyn Parked>,
    ) -> Admission {
        let mut state = self.state.lock();
        if state.closed.is_none() && !self.has_room_or_tells() {
            let ticket = state.ticket();
            state.held.insert(ticket, object());
            return Admission::Held(ticket);
        }
        let Some(pool) = pool else { return Admission::Now(None) };
        if let Some(permit) = kept.take_if(|permit| Arc::ptr_eq(&permit.permits, self)) {
            return Admission::Now(Some(permit));
        }
        if self.may_start(&state, pool) {
            return Admission::Now(Some(self.give(&mut state, pool)));
        }
        if let Some(why) = &state.closed {
            return Admission::Refused(why.clone());
        }
        if state.asleep >= state.running {
            return Admission::Refused(all_asleep(state.running));
        }
        let ticket = state.ticket();
        state.waiting.insert(ticket, object());
        Admission::Waits(ticket)
    }

    /// What a call starts with behind which one of somebody else's waits.
    pub(crate) fn admit_before_others(
        self: &Arc<Self>,
        pool: Option<&Arc<CallCount>>,
        kept: &mut Option<Permit>,
    ) -> Admission {
        if self.output.is_full() {
            let reason = "the peer leaves answers unread, and calls of others wait for the same object";
            return Admission::Refused(Exception::overloaded(reason));
        }
        match self.permit(pool, kept) {
            Some(permit) => Admission::Now(permit),
            None => Admission::Refused(self.refusal()),
        }
    }

    /// Whether the peer reads well enough. If not, somebody will [unpark](Self::unpark_held) who is held.
    fn has_room_or_tells(&self) -> bool {
        self.output.has_room() || {
            self.output.watch();
            self.output.has_room()
        }
    }

    fn may_start(&self, state: &PermitState, pool: &CallCount) -> bool {
        let pool_has_room = pool.running.load(Ordering::Relaxed) < pool.limit;
        state.closed.is_none() && state.running < self.limit && (pool_has_room || state.running < FEW)
    }

    fn give(self: &Arc<Self>, state: &mut PermitState, pool: &Arc<CallCount>) -> Permit {
        state.running += 1;
        pool.running.fetch_add(1, Ordering::Relaxed);
        Permit { permits: self.clone(), pool: pool.clone() }
    }

    /// The object does not wait any more.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        let object = state.waiting.remove(&ticket).or_else(|| state.held.remove(&ticket));
        drop(state);
        // Never the last reference: whoever calls this has another.
        drop(object);
    }

    /// The peer has read: the calls that are held start, as far as there is room.
    pub(crate) fn unpark_held(&self) {
        assert_unlocked();
        loop {
            let mut state = self.state.lock();
            if state.held.is_empty() || !self.has_room_or_tells() {
                return;
            }
            let first = state.held.pop_first();
            drop(state);
            if let Some((ticket, object)) = first {
                object.unpark(ticket);
            }
        }
    }

    /// The connection has ended: nothing of it waits any more.
    pub(crate) fn close(&self, why: &Exception) {
        assert_unlocked();
        let mut state = self.state.lock();
        state.closed = Some(why.clone());
        let (waiting, held) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.held));
        drop(state);
        waiting.into_iter().chain(held).for_each(|(ticket, object)| object.refuse_parked(ticket, why));
    }

    /// A call is refused so that one of somebody else's, behind it in the mailbox, need not wait.
    fn refusal(&self) -> Exception {
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

/// Every order of the steps of those who give permits back, wait for answers, park and end: nobody is left parked.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, spawn, Role};

    /// Has room for everything.
    struct Endless;

    impl Output for Endless {
        fn has_room(&self) -> bool {
            true
        }

        fn is_full(&self) -> bool {
            false
        }

        fn watch(&self) {}
    }

    /// What an object's mailbox does with a call that needs a permit.
    struct Object {
        permits: Arc<Permits>,
        pool: Arc<CallCount>,
        parked: Mutex<Option<Ticket>>,
        /// How often its call ran, and was refused.
        ran: AtomicUsize,
        refused: AtomicUsize,
    }

    impl Object {
        fn new(permits: &Arc<Permits>, pool: &Arc<CallCount>) -> Arc<Self> {
            Arc::new(Object {
                permits: permits.clone(),
                pool: pool.clone(),
                parked: Mutex::new(Rank::Mailbox, None),
                ran: AtomicUsize::new(0),
                refused: AtomicUsize::new(0),
            })
        }

        /// A call comes, or may go on if it was parked with this ticket.
        fn go_on(self: &Arc<Self>, ticket: Option<Ticket>) -> Unparked {
            let mut parked = self.parked.lock();
            if *parked != ticket {
                return Unparked::Passes;
            }
            *parked = None;
            match self.permits.admit(Some(&self.pool), &mut None, || self.clone()) {
                Admission::Now(permit) => {
                    drop(parked);
                    self.ran.fetch_add(1, Ordering::SeqCst);
                    drop(permit);
                    Unparked::Runs
                }
                Admission::Held(_) => unreachable!("there is room for everything"),
                Admission::Waits(ticket) => {
                    *parked = Some(ticket);
                    Unparked::ParkedAgain
                }
                Admission::Refused(_) => {
                    drop(parked);
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    Unparked::Passes
                }
            }
        }

        /// The call has run or been refused, once, and nothing is held for it.
        fn is_done(&self) {
            let outcomes = self.ran.load(Ordering::SeqCst) + self.refused.load(Ordering::SeqCst);
            assert_eq!((outcomes, *self.parked.lock()), (1, None));
            let state = self.permits.state.lock();
            assert_eq!((state.running, state.asleep, state.waiting.len()), (0, 0, 0));
            assert!(state.held.is_empty());
        }
    }

    impl Parked for Object {
        fn unpark(self: Arc<Self>, ticket: Ticket) -> Unparked {
            self.go_on(Some(ticket))
        }

        fn refuse_parked(&self, ticket: Ticket, _: &Exception) {
            let mut parked = self.parked.lock();
            if *parked == Some(ticket) {
                *parked = None;
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// One method runs, which is all that may, and a call comes for another object while `run` does what it does with its
    /// permit.
    fn beside(run: impl Fn(Arc<Permits>, Permit) + Clone + Send + Sync + 'static) {
        check_all(move || {
            let (permits, pool) = (Permits::new(1, Arc::new(Endless)), CallCount::new(8));
            let permit = permits.try_admit(Some(&pool), &mut None).flatten().expect("none is in use");
            let object = Object::new(&permits, &pool);
            let (comes, run, held) = (object.clone(), run.clone(), permits.clone());
            let call = spawn("call", Role::User, move || _ = comes.go_on(None)).unwrap();
            let method = spawn("method", Role::User, move || run(held, permit)).unwrap();
            call.join().unwrap();
            method.join().unwrap();
            object.is_done();
        });
    }

    #[test]
    fn loom_a_permit_that_is_given_back_unparks() {
        beside(|_, permit| drop(permit));
    }

    /// The method that waits for an answer is the last that is awake: it may not wait while the call is parked, or the call
    /// is refused.
    #[test]
    fn loom_a_call_is_not_parked_while_all_sleep() {
        beside(|permits, permit| {
            if permits.begin().is_ok() {
                let state = permits.state.lock();
                assert!(state.waiting.is_empty(), "nobody is awake who could unpark it");
                drop(state);
                permits.end(&AtomicBool::new(false));
            }
            drop(permit);
        });
    }

    #[test]
    fn loom_the_end_of_a_connection_leaves_nobody_parked() {
        beside(|permits, permit| {
            permits.close(&Exception::disconnected("it has ended"));
            drop(permit);
        });
    }
}
