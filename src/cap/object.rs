//! Objects of this vat, and their mailboxes.

use std::any::Any;

use super::call::CallInfo;
use super::capability::FromServer;
use super::client::Client;
use super::permits::{Admission, Parked, Permit, Permits, Ticket, Unparked};
use super::pool::{Pool, Scheduled, Task};
use super::serving::Call;
use crate::error::{catch_panic, Exception, Result};
use crate::promise::cancel::{self, Unwatch};
use crate::promise::{with_blocking, Attachment, Cancel, Observer};
use crate::queue::Queue;
use crate::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use crate::sync::{foreign, Arc, Foreign, Mutex, MutexGuard, OnceLock, Rank};

/// An object: what answers calls.
///
/// `&self` is shared by all calls. By default they come one at a time and in order; a method that calls
/// [`Call::allow_next`] lets the next one start beside it, on another thread of the pool.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot serve calls",
    note = "implement `capnp_threads::Server` for `{Self}`, or make the client of a generated interface"
)]
pub trait Server: Any + Send + Sync {
    /// Answers one call: reads [`Call::params`], fills in [`Call::results`], and returns.
    ///
    /// Runs on a thread of the object's pool, outside all locks: it may take its time, wait, and call others.
    /// It owns the params and results, so nothing is taken from under it when the connection ends. To answer
    /// later, from any thread, take [`Call::defer`] and return `Ok`.
    ///
    /// A method that waits for a call to its own object, over however many others, waits for itself, unless it
    /// has called [`Call::allow_next`].
    ///
    /// # Errors
    /// An error is the answer. So is a panic, as an exception of kind `failed`; the object lives on.
    fn dispatch(&self, call: &mut Call) -> Result<()>;
}

/// An object and the calls that wait for it.
///
/// ```text
/// Note [Mailbox]
/// ==============
/// Who may take calls out of the mailbox has its *turn*:
///
///           a call comes               no more calls
///     Idle --------------> Taken ---------------------------> Idle
///                           | ^
///        no permit, or held | | a permit, or room, or a call of
///          (Note [Permits]) | | somebody else's
///                           v |
///                          Parked
///
/// An object is scheduled (a task in its pool, or a thread running it), or a streaming call holds its turn (Note [A
/// streaming call holds the turn]), exactly while the turn is taken: a call that finds it idle takes it and submits the
/// task, and it becomes idle in the critical section that finds the queue empty. So no call is left lying, and two
/// threads never run one object unless a method has let the next call start. That method's thread gives its turn away,
/// and ends after the method.
///
/// The permit that a task is to begin with is taken before the task is submitted (`reserved`): so no thread is started
/// for a call that has to wait for one. The call itself stays in the queue until the thread has come to it, and is held
/// then if the peer has left too much unread meanwhile.
/// ```
pub(crate) struct LocalObject {
    /// The user's value, for whoever has a client of it and wants it back.
    pub(crate) server: Foreign<Arc<dyn Any + Send + Sync>>,
    /// Runs a method of that value, which is its first argument.
    dispatch: Dispatch,
    pool: Pool,
    mailbox: Mutex<Mailbox>,
    /// Why no call is answered any more: a streaming call has failed.
    broken: OnceLock<Exception>,
}

/// How many calls make a crowd, in one mailbox. See Note [Crowds].
const CROWD: usize = 256;

/// The crowd in a mailbox.
#[derive(Default)]
pub(crate) struct Crowd {
    started: AtomicU64,
}

impl Crowd {
    /// Goes on whenever a call leaves the mailbox in its turn.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }
}

type Dispatch = fn(&(dyn Any + Send + Sync), &mut Call) -> Result<()>;

struct Mailbox {
    calls: Queue<Queued>,
    /// The calls in the queue whose tickets are below this came over the same connection.
    alike: u64,
    turn: Turn,
    /// The permit that the task which was submitted begins with.
    reserved: Option<Permit>,
    /// Since the mailbox was crowded for the first time.
    crowd: Option<Arc<Crowd>>,
}

/// See Note [Mailbox].
enum Turn {
    Idle,
    Taken,
    /// All calls in the queue came over the connection that these are the permits of.
    Parked(Arc<Permits>, Ticket, WaitsFor),
}

/// What the first call of a parked object waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Permit,
    /// That the peer reads.
    Room,
}

/// A call that is to be answered now, with its permit if it needs one.
struct Ready {
    queued: Queued,
    permit: Option<Permit>,
}

/// What is left to be done once the mailbox is unlocked.
#[derive(Default)]
struct Leftovers {
    refused: Vec<(Queued, Exception)>,
    /// Of another connection than the next call's.
    unused: Option<Permit>,
}

impl Leftovers {
    fn finish(self) {
        drop(self.unused);
        self.refused.into_iter().for_each(|(queued, why)| queued.fail(why));
    }
}

impl Mailbox {
    /// Takes the first call.
    fn pop(&mut self, permit: Option<Permit>) -> Option<Ready> {
        if let Some(crowd) = &self.crowd {
            crowd.started.fetch_add(1, Ordering::Relaxed);
        }
        self.calls.pop().map(|queued| Ready { queued, permit })
    }

    /// Counts a call that is to wait, if there is a crowd.
    fn enter(&mut self, call: &CallInfo) -> Option<Box<dyn Attachment>> {
        let port = call.came_over().filter(|_| self.calls.len() >= CROWD)?;
        Some(port.in_crowd(self.crowd.get_or_insert_default()))
    }

    fn is_parked_with(&self, ticket: Ticket) -> bool {
        matches!(self.turn, Turn::Parked(_, its, _) if its == ticket)
    }

    /// Whether all calls in the queue came over the connection that these are the permits of, as did the first one. Each
    /// call is looked at once.
    fn all_alike(&mut self, permits: &Arc<Permits>) -> bool {
        let is_other = |queued: &Queued| queued.call.permits().is_none_or(|its| !Arc::ptr_eq(its, permits));
        let other =
            self.calls.since(self.alike).find(|(_, queued)| is_other(queued)).map(|(ticket, _)| ticket);
        self.alike = other.unwrap_or(self.calls.next_ticket());
        other.is_none()
    }
}

/// A call that waits for its turn.
struct Queued {
    call: CallInfo,
    /// Takes the call out when it is canceled, if its params hold a promise: they may be what keeps another call going,
    /// for whose end the object waits. (Other canceled calls stay until their turn.)
    watch: Option<Box<Unwatch>>,
    /// It came into a crowd.
    in_crowd: Option<Box<dyn Attachment>>,
}

impl Queued {
    /// Answers with an exception instead of running the method.
    fn fail(self, why: Exception) {
        drop((self.watch, self.in_crowd));
        self.call.fail(why);
    }
}

impl LocalObject {
    /// An object that a `C` can be a client of: which methods `server` has is known there.
    pub(crate) fn new<S: Any + Send + Sync, C: FromServer<S>>(server: S, pool: Pool) -> Self {
        let mailbox =
            Mailbox { calls: Queue::default(), alike: 0, turn: Turn::Idle, reserved: None, crowd: None };
        let mailbox = Mutex::new(Rank::Mailbox, mailbox);
        let server: Arc<dyn Any + Send + Sync> = Arc::new(server);
        let (server, broken) = (Foreign::new(server), OnceLock::new());
        LocalObject { server, dispatch: dispatch::<S, C>, pool, mailbox, broken }
    }

    /// Appends a call to the mailbox. Never waits. See Note [Mailbox].
    pub(crate) fn deliver(self: &Arc<Self>, call: CallInfo) {
        let mut mailbox = self.mailbox.lock();
        let idle = match &mailbox.turn {
            Turn::Idle if self.pool.runs_in_place() => {
                mailbox.turn = Turn::Taken;
                drop(mailbox);
                let (this, queued) = (self.clone(), Queued { call, watch: None, in_crowd: None });
                return Pool::run_in_place(move || this.run_from(Ready { queued, permit: None }, usize::MAX));
            }
            Turn::Idle => true,
            Turn::Parked(permits, ticket, _)
                if call.permits().is_none_or(|its| !Arc::ptr_eq(its, permits)) =>
            {
                permits.leave(*ticket);
                true
            }
            Turn::Taken | Turn::Parked(..) => false,
        };
        let mut watch = None;
        if call.params.caps.iter().any(Client::may_be_promise) {
            let (this, ticket) = (Arc::downgrade(self), mailbox.calls.next_ticket());
            let let_go = move || {
                if let Some(this) = this.upgrade() {
                    this.let_go(ticket);
                }
            };
            // One that is canceled already is answered when its turn comes.
            watch = call.cancel.watch_unless_canceled(let_go).map(Box::new);
        }
        let in_crowd = mailbox.enter(&call);
        mailbox.calls.push(Queued { call, watch, in_crowd });
        if idle {
            self.schedule(mailbox, Leftovers::default());
        }
    }

    /// A call that waits has been canceled.
    fn let_go(&self, ticket: u64) {
        let mut mailbox = self.mailbox.lock();
        let queued = mailbox.calls.remove(ticket);
        let turn = match &mailbox.turn {
            Turn::Parked(permits, ticket, _) if mailbox.calls.is_empty() => {
                permits.leave(*ticket);
                Some(std::mem::replace(&mut mailbox.turn, Turn::Idle))
            }
            _ => None,
        };
        drop(mailbox);
        drop(turn);
        if let Some(queued) = queued {
            queued.fail(cancel::canceled());
        }
    }

    /// Has a task of the pool answer the next call, if there is one that may be answered now.
    fn schedule(
        self: &Arc<Self>,
        mut mailbox: MutexGuard<'_, Mailbox>,
        mut leftovers: Leftovers,
    ) -> Unparked {
        let (runs, outcome) = match self.ready(&mut mailbox, &mut leftovers) {
            Some(permit) => {
                let outcome = if permit.is_some() { Unparked::Runs } else { Unparked::Passes };
                mailbox.reserved = permit;
                (true, outcome)
            }
            None if matches!(mailbox.turn, Turn::Parked(.., WaitsFor::Permit)) => {
                (false, Unparked::ParkedAgain)
            }
            None => (false, Unparked::Passes),
        };
        drop(mailbox);
        if runs {
            self.pool.submit(Task::Object(self.clone()));
        }
        leftovers.finish();
        outcome
    }

    /// Takes the next call that may be answered now out of the queue, and the turn with it. Without one, the object is
    /// idle or parked after this.
    fn next(self: &Arc<Self>, mailbox: &mut Mailbox, leftovers: &mut Leftovers) -> Option<Ready> {
        self.ready(mailbox, leftovers).and_then(|permit| mailbox.pop(permit))
    }

    /// What the first call in the queue is answered with, if it may be answered now: a permit, if it needs one. It takes
    /// the turn. If there is none, the object is idle or parked after this. The permit that is left over is used again, if
    /// it fits.
    fn ready(self: &Arc<Self>, mailbox: &mut Mailbox, leftovers: &mut Leftovers) -> Option<Option<Permit>> {
        mailbox.turn = Turn::Taken;
        while let Some(Queued { call, .. }) = mailbox.calls.first() {
            let Some(permits) = call.permits() else { return Some(None) };
            // A canceled call runs nothing. What runs in place stops its connection's reading.
            if call.cancel.is_canceled() || self.pool.runs_in_place() {
                return Some(None);
            }
            let (pool, kept) = (self.pool.call_count(), &mut leftovers.unused);
            if let Some(permit) = permits.try_admit(pool, kept) {
                return Some(permit);
            }
            let permits = permits.clone();
            let admission = match mailbox.all_alike(&permits) {
                true => permits.admit(pool, kept, || self.clone()),
                false => permits.admit_before_others(pool, kept),
            };
            match admission {
                Admission::Now(permit) => return Some(permit),
                Admission::Waits(ticket) => {
                    mailbox.turn = Turn::Parked(permits, ticket, WaitsFor::Permit);
                    return None;
                }
                Admission::Held(ticket) => {
                    mailbox.turn = Turn::Parked(permits, ticket, WaitsFor::Room);
                    return None;
                }
                Admission::Refused(why) => {
                    leftovers.refused.extend(mailbox.calls.pop().map(|queued| (queued, why)));
                }
            }
        }
        mailbox.turn = Turn::Idle;
        None
    }

    /// Answers a call for which the turn was taken, and calls after it (so many in all at most), until none is left that
    /// may be answered, or a method has given the turn away.
    fn run_from(self: Arc<Self>, first: Ready, calls: usize) {
        let mut next = Some(first);
        for left in (0..calls).rev() {
            let Some(Ready { queued: Queued { call, watch, in_crowd }, permit }) = next else { return };
            drop((watch, in_crowd));
            let goes_on = match &permit {
                None => self.answer(call),
                Some(permit) => {
                    with_blocking(Observer::Connection, permit.permits().clone(), || self.answer(call))
                }
            };
            if !goes_on {
                return;
            }
            let mut leftovers = Leftovers { unused: permit, ..Leftovers::default() };
            let mut mailbox = self.mailbox.lock();
            if left == 0 {
                self.schedule(mailbox, leftovers);
                return;
            }
            next = self.next(&mut mailbox, &mut leftovers);
            drop(mailbox);
            leftovers.finish();
        }
    }

    /// Lets the next call start beside the one that runs.
    pub(crate) fn pass_turn(self: &Arc<Self>) {
        self.schedule(self.mailbox.lock(), Leftovers::default());
    }

    /// Fails all calls, without running anything.
    fn refuse_all(&self, mut mailbox: MutexGuard<'_, Mailbox>, why: &Exception) {
        mailbox.turn = Turn::Idle;
        let (reserved, calls) = (mailbox.reserved.take(), mailbox.calls.take_all());
        drop(mailbox);
        drop(reserved);
        calls.for_each(|queued| queued.fail(why.clone()));
    }

    /// A streaming call has failed. The calls that were sent after it relied on it, so they fail too.
    pub(super) fn break_stream(&self, why: &Exception) {
        // The first failure counts.
        let _ = self.broken.set(why.clone().with_context("an earlier streaming call failed"));
    }

    /// Runs the method. False if it has given the turn away.
    fn answer(self: &Arc<Self>, call: CallInfo) -> bool {
        if call.cancel.is_canceled() {
            call.fail(cancel::canceled());
            return true;
        }
        if let Some(why) = self.broken.get() {
            call.fail(why.clone());
            return true;
        }
        call.cancel.start();
        let token = call.cancel.clone();
        let mut call = Call::new(self.clone(), call);
        let body = || (self.dispatch)(&**self.server, &mut call);
        let outcome = cancel::with_current(token, || catch_panic("the method", body));
        // The turn is passed on whatever happens to the answer.
        foreign("the answer of a call", || call.answer(outcome));
        call.returned()
    }
}

/// The turn of an object, while a streaming call is answered later than its method returns.
///
/// ```text
/// Note [A streaming call holds the turn]
/// ======================================
/// Whoever sends streaming calls relies on each of them before it is answered, so in C++ an object starts no other call
/// before a streaming one is answered, and none at all after one has failed. A method that answers before it returns has
/// the object's turn for that long anyway. One that answers later (`Call::defer`), or hands its call on, leaves the turn
/// to the call: two then hold the turn together, the method that runs and the call that is not answered. The one that
/// ends last has it: the method's thread goes on with the next call, or whoever answers passes the turn on. If the call
/// fails, the object is broken before that.
///
/// A call that is canceled is answered by that (nobody relies on it), so it no longer holds the turn, whatever becomes of
/// the duty to answer it. A method that has called `Call::allow_next` has given the turn away: nobody holds it then.
/// ```
pub(super) struct StreamTurn {
    object: Arc<LocalObject>,
    /// Which of the two have let go of the turn.
    gone: AtomicU8,
}

impl StreamTurn {
    /// The method has returned.
    const RETURNED: u8 = 1;
    /// The call has been answered or canceled, or the turn has been given away.
    const ANSWERED: u8 = 2;

    /// Has a call hold the turn until it is [answered](Self::answered) or canceled.
    pub(super) fn new(object: Arc<LocalObject>, cancel: &Cancel) -> Arc<Self> {
        let turn = Arc::new(StreamTurn { object, gone: AtomicU8::new(0) });
        let canceled = turn.clone();
        cancel.on_cancel(move || canceled.answered());
        turn
    }

    /// The method has returned. True if it has the turn now.
    pub(super) fn returned(&self) -> bool {
        self.let_go(Self::RETURNED) & Self::ANSWERED != 0
    }

    /// The call has been answered or canceled. The first time counts.
    pub(super) fn answered(&self) {
        if self.let_go(Self::ANSWERED) == Self::RETURNED {
            self.object.pass_turn();
        }
    }

    /// The method gives the turn away before the call is answered.
    pub(super) fn give_away(&self) {
        self.let_go(Self::ANSWERED);
    }

    /// The call has failed.
    pub(super) fn failed(&self, why: &Exception) {
        self.object.break_stream(why);
    }

    /// Tells who had let go before.
    fn let_go(&self, who: u8) -> u8 {
        self.gone.fetch_or(who, Ordering::AcqRel)
    }
}

impl Scheduled for LocalObject {
    fn run(self: Arc<Self>, calls: usize) {
        let mut mailbox = self.mailbox.lock();
        let mut leftovers = Leftovers { unused: mailbox.reserved.take(), ..Leftovers::default() };
        let first = self.next(&mut mailbox, &mut leftovers);
        drop(mailbox);
        leftovers.finish();
        if let Some(first) = first {
            self.run_from(first, calls);
        }
    }

    fn refuse(&self, why: &Exception) {
        self.refuse_all(self.mailbox.lock(), why);
    }
}

impl Parked for LocalObject {
    fn unpark(self: Arc<Self>, ticket: Ticket) -> Unparked {
        let mailbox = self.mailbox.lock();
        if !mailbox.is_parked_with(ticket) {
            return Unparked::Passes;
        }
        self.schedule(mailbox, Leftovers::default())
    }

    fn refuse_parked(&self, ticket: Ticket, why: &Exception) {
        let mailbox = self.mailbox.lock();
        if mailbox.is_parked_with(ticket) {
            self.refuse_all(mailbox, why);
        }
    }
}

fn dispatch<S: Any, C: FromServer<S>>(server: &(dyn Any + Send + Sync), call: &mut Call) -> Result<()> {
    C::dispatch(server.downcast_ref().expect("the object was made with this value"), call)
}

impl Drop for LocalObject {
    fn drop(&mut self) {
        // The user's value goes now, or in its turn: see Note [Effects run after unlock].
        crate::sync::assert_unlocked();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::cap::Client;
    use crate::sync::{check_all, spawn, Role};

    struct Nothing;

    impl Server for Nothing {
        fn dispatch(&self, _: &mut Call) -> Result<()> {
            Ok(())
        }
    }

    /// The method returns, the call is answered, and it is canceled: one of them has the turn in the end.
    #[test]
    fn loom_the_turn_of_a_streaming_call_goes_to_one() {
        check_all(|| {
            let pool = Pool::manual();
            let object = Arc::new(LocalObject::new::<_, Client>(Nothing, pool.clone()));
            object.mailbox.lock().turn = Turn::Taken;
            let cancel = Cancel::new();
            cancel.start();
            let turn = StreamTurn::new(object.clone(), &cancel);
            let answered = turn.clone();
            let answering = spawn("answering", Role::User, move || answered.answered()).unwrap();
            let canceling = spawn("canceling", Role::User, move || cancel.cancel(false)).unwrap();
            let has_turn = turn.returned();
            answering.join().unwrap();
            canceling.join().unwrap();
            let taken = matches!(object.mailbox.lock().turn, Turn::Taken);
            assert_eq!(taken, has_turn);
        });
    }
}
