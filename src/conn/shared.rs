//! The lock of a connection's state, transactions under it, and their commit.

use std::any::Any;
use std::cell::Cell;
use std::mem;

use super::connection::Options;
use super::drops::Drops;
use super::flow::{Flow, Sending, Share};
use super::lending::{Slot, Threads};
use super::reading::Reading;
use super::room::{Granted, Line, Ticket, Waited};
use super::stages::Sender;
use crate::cap::permits::Permits;
use crate::cap::port::{ConnectionId, Port};
use crate::error::{Error, Exception, ProtocolError};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::promise::{cancel, enter_blocking, enter_wait};
use crate::state::{Callback, Departure, Effects, Snapshot, State};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{
    assert_unlocked, counted, finally, foreign, panicked, Arc, Condvar, Foreign, Instant, Lane, Mutex,
    MutexGuard, ProcessCounter, Rank, Weak,
};
use crate::transport::Shutdown;
use crate::wire::frame::Frame;
use crate::wire::message::{Message, Outcome, Outgoing, Resolution, Resolve, Return};

/// What the threads of a connection share.
///
/// ```text
///                incoming              callbacks
///  receive ---------------> coordinator ----------> callback
///     ^                          |  \                   |
///     |                       [ state ] <---------------'  <---- any thread that calls
///   peer                         |
///     ^                          v outgoing
///     '------------------------ send
/// ```
pub(crate) struct Shared {
    pub(super) id: ConnectionId,
    pub(super) peer: Peer,
    pub(super) limits: Limits,
    pub(super) call_timeout: Option<std::time::Duration>,
    state: Mutex<State>,
    /// Whoever waits for the connection to be idle or to have ended.
    changed: Condvar,
    waiting: AtomicUsize,
    pub(super) outgoing: Lane<Departure>,
    pub(super) incoming: Lane<Incoming>,
    pub(super) callbacks: Lane<Callback>,
    pub(super) drops: Drops,
    /// Used by whoever has the turn of `outgoing`.
    pub(super) sender: Slot,
    /// Whether stages are lent, and whether that of sending is. See Note [Lending].
    pub(super) lends: bool,
    pub(super) sends_now: bool,
    pub(super) reading: Reading,
    pub(super) flow: Arc<Flow>,
    /// Callers that wait for room.
    room: Line,
    /// Until it was used: what it holds of the transport is given back then, though clients may hold this for longer.
    shutdown: Mutex<Option<Foreign<Box<dyn Shutdown>>>>,
    /// How many methods may run for the peer's calls.
    pub(super) permits: Arc<Permits>,
    ending: Mutex<Ending>,
    ended: Condvar,
}

/// What has arrived.
pub(super) enum Incoming {
    /// With its share of the limit on calls in service, if it had to wait.
    Message(Frame, Option<Share>),
    /// A call for which there was no room in time.
    Refused(Frame),
    /// Nothing more will: why. It is handled in its turn, behind all that came before it.
    End(Error),
}

type OnDisconnect = Box<dyn FnOnce(&Exception) + Send>;

/// What a panic is logged as.
const ON_DISCONNECT: &str = "a callback of a disconnect";

/// How far the end of the connection has come.
struct Ending {
    /// Stages that have not ended.
    stages: usize,
    on_disconnect: Vec<Foreign<OnDisconnect>>,
    /// The callbacks above have been run, or are run at once now.
    told: Option<Exception>,
}

impl Shared {
    pub(super) fn new(
        peer: Peer,
        options: Options,
        sender: Sender,
        shutdown: Box<dyn Shutdown>,
        port: impl FnOnce(&Weak<Shared>) -> Weak<dyn Port>,
    ) -> Arc<Self> {
        static NEXT: ProcessCounter = ProcessCounter::new(0);
        let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let Options { limits, bootstrap, call_timeout, threads } = options;
        let lends = threads == Threads::Lending;
        Arc::new_cyclic(|this| {
            let state = State::new(id, port(this), &limits, bootstrap);
            let flow = Flow::new(&limits);
            Shared {
                id,
                peer,
                permits: Permits::new(limits.methods, flow.clone()),
                flow,
                limits,
                call_timeout,
                state: Mutex::new(Rank::Connection, state),
                changed: Condvar::new(),
                waiting: AtomicUsize::new(0),
                outgoing: Lane::new(),
                incoming: Lane::new(),
                callbacks: Lane::new(),
                drops: Drops::new(),
                sends_now: lends && sender.sends_now(),
                sender: Slot::new(sender),
                lends,
                reading: Reading::new(),
                room: Line::new(),
                shutdown: Mutex::new(Rank::Queue, Some(Foreign::new(shutdown))),
                ending: Mutex::new(Rank::Queue, Ending { stages: 4, on_disconnect: Vec::new(), told: None }),
                ended: Condvar::new(),
            }
        })
    }

    /// Runs a transaction. See Note [Effects run after unlock].
    pub(super) fn transact<R>(&self, body: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let mut fx = Effects::default();
        let mut state = self.state.lock();
        self.take_drops(&mut state, &mut fx);
        let result = body(&mut state, &mut fx);
        self.commit(state, fx);
        result
    }

    /// Runs a transaction that leaves no trace if it fails. See Note [Rollback].
    pub(super) fn try_transact(
        &self,
        body: impl FnOnce(&mut State, &mut Effects) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let mut fx = Effects::default();
        let mut state = self.state.lock();
        let found = cfg!(debug_assertions).then(|| state.trace());
        let done = body(&mut state, &mut fx);
        if done.is_ok() {
            self.take_drops(&mut state, &mut fx);
            self.commit(state, fx);
            return Ok(());
        }
        if let Some(found) = found {
            assert_eq!(state.trace(), found, "a transaction that fails changes nothing");
            assert!(fx.is_empty(), "a transaction that fails has nothing done");
        }
        drop(state);
        drop(fx);
        done
    }

    /// Appends what a transaction wants done to the queues, releases the lock, and drops its garbage.
    fn commit(&self, state: MutexGuard<'_, State>, mut fx: Effects) {
        if cfg!(debug_assertions) {
            state.check();
        }
        self.cut_short(&mut fx);
        let queued = fx.send.iter().fold(Sending::default(), Sending::and);
        let (sends, calls_back) = (!fx.send.is_empty(), !fx.callbacks.is_empty());
        let watchers = self.flow.committed(queued, state.awaited(), state.held());
        let lists = &mut *fx;
        let unsent = self.outgoing.put_all(lists.send.drain(..));
        let unsent = unsent.err();
        let unrun = self.callbacks.put_all(lists.callbacks.drain(..));
        self.grant(&state);
        if self.is_waited_for() {
            self.changed.notify_all();
        }
        drop(state);
        if unsent.is_some() {
            self.flow.sent(queued);
        }
        self.flow.after_commit(watchers);
        self.see_to(sends, calls_back);
        drop((unsent, unrun));
        fx.finish();
    }

    /// Makes exceptions that are to be sent small enough: the peer would end the connection. (A payload has
    /// failed its call before.)
    fn cut_short(&self, fx: &mut Effects) {
        let most = self.limits.message_words.saturating_mul(8) / 2;
        let lists = &mut **fx;
        let exceptions = lists.send.iter_mut().filter_map(|departure| exception_in(&mut departure.message));
        for why in exceptions.filter(|why| why.bytes() > most) {
            let short = why.cut_short(most);
            // What it was may hold an error of the user's.
            lists.garbage.push(Box::new(mem::replace(why, short)));
        }
    }

    /// Runs a transaction that sends so many bytes once there is room for them and for another question, waiting for that
    /// until `deadline`, or for as long as anybody is to. The body is not run, and given back, if there is none by then.
    pub(super) fn transact_with_room<R>(
        self: &Arc<Self>,
        bytes: usize,
        deadline: Option<Instant>,
        body: impl FnOnce(&mut State, &mut Effects) -> R,
    ) -> Result<R, Exception> {
        let mut fx = Effects::default();
        let mut state = self.state.lock();
        self.take_drops(&mut state, &mut fx);
        if self.room.has_others() || !self.has_room(&state, Granted::default()) {
            self.commit(state, mem::take(&mut fx));
            assert_unlocked();
            let _in_wait = enter_wait()?;
            let _asleep = enter_blocking()?;
            let ticket = self.wait_for_room(bytes, deadline)?;
            state = self.state.lock();
            self.room.taken(&ticket);
        }
        let result = body(&mut state, &mut fx);
        self.commit(state, fx);
        Ok(result)
    }

    /// Waits in line for a place, which the caller is to take. See Note [Room for callers].
    fn wait_for_room(self: &Arc<Self>, bytes: usize, deadline: Option<Instant>) -> Result<Ticket, Exception> {
        let state = self.state.lock();
        self.grant(&state);
        let ticket = self.room.enter(bytes, |granted| self.has_room(&state, granted));
        self.grant(&state);
        let outstanding = state.outstanding();
        drop(state);
        let Some(ticket) = ticket else { return Err(self.no_room(outstanding)) };
        let _watch = cancel::current().map(|current| {
            let (this, ticket) = (self.clone(), ticket.clone());
            current.watch_while(move || this.room.cancel(&ticket))
        });
        let _waiting = self.wait();
        // No caller waits longer than any call may take.
        let (room_timeout, call_timeout) = (self.limits.room_timeout, self.call_timeout);
        let longest = room_timeout.into_iter().chain(call_timeout).min();
        let until = deadline.into_iter().chain(longest.map(crate::sync::deadline)).min();
        match self.room.wait(&ticket, until) {
            Waited::Granted => Ok(ticket),
            Waited::Canceled => Err(cancel::canceled()),
            Waited::Late if deadline == until => Err(crate::cap::request::deadline_passed()),
            Waited::Late => {
                self.room.waited_in_vain(&ticket);
                match longest == room_timeout {
                    true => Err(self.no_room(self.state.lock().outstanding())),
                    false => Err(crate::cap::request::deadline_passed()),
                }
            }
        }
    }

    fn no_room(&self, outstanding: usize) -> Exception {
        let unsent = self.flow.sending().bytes;
        Exception::overloaded(format!(
            "no room for a call in {:?}: the peer has left {outstanding} calls unanswered, and {unsent} bytes unread",
            self.limits.room_timeout.unwrap_or_default(),
        ))
    }

    /// Whether there is room for another question, and to send, beside what has been granted.
    fn has_room(&self, state: &State, granted: Granted) -> bool {
        state.ended().is_some()
            || (state.outstanding() + granted.calls < self.limits.questions
                && self.flow.may_send_beside(granted.bytes))
    }

    /// Grants places to callers in line, if there is room.
    fn grant(&self, state: &State) {
        if self.room.is_in_use() {
            // Before the look: whoever has sent something after it is to look, too.
            self.flow.watch_for_callers();
            let is_half_free = state.ended().is_some()
                || (state.outstanding() <= self.limits.questions / 2
                    && self.flow.may_send_beside(self.limits.send_bytes / 2));
            self.room.grant(is_half_free, |granted| self.has_room(state, granted));
        }
    }

    /// A message that the coordinator is to handle. While another thread is coordinator, it counts from now on, so that
    /// no more than the limit waits there.
    pub(super) fn admitted(&self, frame: Frame) -> Incoming {
        let share = (!self.lends).then(|| self.flow.serve(frame.words(), 0));
        Incoming::Message(frame, share)
    }

    /// Counts this thread, until the result is dropped, as one that waits for a change: of the tables, by what arrives.
    fn wait(&self) -> impl Drop + '_ {
        let waiting = counted(&self.waiting);
        self.reading.watch();
        waiting
    }

    /// Whether somebody waits for a change.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until the tables are as `wanted`. False if the connection has ended, or the deadline has passed,
    /// before that.
    pub(super) fn wait_until(&self, deadline: Instant, wanted: impl Fn(&Snapshot) -> bool) -> bool {
        // Not kept while waiting: by then it could be the last to hold an object, and drop it under the lock.
        self.wait_for(deadline, |state| wanted(&Snapshot(state.clone())))
    }

    /// Waits until no call is under way in either direction, the connection has ended, or the deadline has passed.
    pub(super) fn wait_idle(&self, deadline: Instant) {
        self.wait_for(deadline, State::is_idle);
    }

    fn wait_for(&self, deadline: Instant, wanted: impl Fn(&State) -> bool) -> bool {
        let _waiting = self.wait();
        let mut state = self.state.lock();
        let found = loop {
            let found = wanted(&state);
            if found || state.ended().is_some() || self.changed.wait_until(&mut state, Some(deadline)) {
                break found || wanted(&state);
            }
        };
        drop(state);
        found
    }

    /// Messages have been sent: callers that wait for room are granted places, and calls that were held start.
    pub(super) fn sent(&self, sent: Sending) {
        let freed = self.flow.sent(sent);
        if freed.callers {
            self.grant(&self.state.lock());
        }
        if freed.callees {
            self.permits.unpark_held();
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.lock().clone())
    }

    /// Why the connection has ended, if it has.
    pub(super) fn why_ended(&self) -> Option<Exception> {
        self.state.lock().ended().cloned()
    }

    /// Ends the connection. The first cause is the one that everybody is told.
    ///
    /// ```text
    /// Note [Shutdown]
    /// ===============
    /// Whoever finds a reason (end of input, a failed write, an abort, a broken rule, the user) ends the state
    /// in one transaction: it empties the tables, and everybody who waits for something in them gets a callback.
    /// (The end of input takes its turn in the coordinator's queue first, so that answers and an Abort that
    /// arrived before are seen.)
    /// Only then are the queues closed, so that transaction's callbacks are in the queue, and the
    /// callback thread runs all that is in its queue before it ends. Later transactions find the state ended
    /// and have nothing to queue. The send thread sends what is queued (an Abort is last), for no longer than
    /// `Limits::linger`, and then shuts the transport down, which ends the receive thread's wait; the
    /// coordinator ends at its closed queue. Nothing is lost, and no thread waits for another.
    ///
    /// After a failed write what arrives still counts: a peer that has closed may have answered before. So the
    /// send thread drops what it can't send, until the end of input comes. If none does, within
    /// `Limits::linger`, the failed write ends all.
    /// ```
    pub(super) fn end(self: &Arc<Self>, cause: Error, abort: bool) {
        let reason = Exception::from(cause.clone());
        let why = reason.as_disconnected(format!("the connection has ended: {cause}")).with_source(cause);
        let message = abort.then_some(reason);
        let first = Cell::new(false);
        let _closed = finally(|| {
            if first.get() {
                self.close();
            }
        });
        self.transact(|state, fx| {
            if state.ended().is_some() {
                return;
            }
            first.set(true);
            state.end(why, fx);
            fx.send.clear();
            if let Some(why) = message {
                fx.send(Message::Abort(why));
            }
        });
    }

    /// Closes the queues, once the state has ended.
    fn close(self: &Arc<Self>) {
        self.outgoing.close();
        self.incoming.close();
        self.callbacks.close();
        self.drops.close();
        self.flow.close();
        if let Some(why) = self.why_ended() {
            self.permits.close(&why);
        }
        drop(self.state.lock());
        self.changed.notify_all();
        let this = Arc::downgrade(self);
        crate::sync::Timer::global().at(crate::sync::deadline(self.limits.linger), move || {
            if let Some(this) = this.upgrade() {
                this.shut_down();
            }
        });
    }

    /// Ends the connection after a panic in one of its stages.
    pub(super) fn end_panicked(self: &Arc<Self>, panic: Box<dyn Any + Send>) {
        let why = Exception::failed(panicked("a thread of the connection", panic));
        self.end(Error::Exception(why), true);
    }

    /// Ends both directions of the transport, once.
    pub(super) fn shut_down(&self) {
        let shutdown = self.shutdown.lock().take();
        if let Some(shutdown) = shutdown {
            foreign("the end of a transport", || shutdown.shutdown());
        }
    }

    /// A stage has ended.
    pub(super) fn stage_ended(&self) {
        self.ending.lock().stages -= 1;
        self.ended.notify_all();
    }

    /// Waits until all stages have ended, or the deadline has passed. True if they have.
    pub(super) fn wait_ended(&self, deadline: Option<Instant>) -> bool {
        let mut ending = self.ending.lock();
        while ending.stages > 0 {
            if self.ended.wait_until(&mut ending, deadline) {
                return ending.stages == 0;
            }
        }
        true
    }

    /// Has `callback` run when the connection has ended, at once if it has.
    pub(super) fn on_disconnect(&self, callback: OnDisconnect) {
        let mut ending = self.ending.lock();
        match &ending.told {
            Some(why) => {
                let why = why.clone();
                drop(ending);
                foreign(ON_DISCONNECT, || callback(&why));
            }
            None => ending.on_disconnect.push(Foreign::new(callback)),
        }
    }

    /// Runs the callbacks of those who want to know that the connection has ended.
    pub(super) fn tell_disconnect(&self) {
        let Some(why) = self.why_ended() else { return };
        let mut ending = self.ending.lock();
        ending.told = Some(why.clone());
        let callbacks = mem::take(&mut ending.on_disconnect);
        drop(ending);
        for callback in callbacks {
            foreign(ON_DISCONNECT, || callback.into_inner()(&why));
        }
    }
}

/// The exception that a message brings.
fn exception_in(message: &mut Message<Outgoing>) -> Option<&mut Exception> {
    match message {
        Message::Abort(why) => Some(why),
        Message::Return(Return { outcome: Outcome::Exception(why), .. }) => Some(why),
        Message::Resolve(Resolve { to: Resolution::Exception(why), .. }) => Some(why),
        _ => None,
    }
}
