//! What the threads of a connection share: the state behind its lock, and the queues between the stages.

use super::backpressure::{Flow, Line, Share};
use super::connection::Options;
use super::drive::Drive;
use super::shutdown::Ending;
use super::stages::{Sender, SenderSlot};
use super::threads::THREADS;
use crate::cap::permits::Permits;
use crate::cap::port::{ConnectionId, ConnectionOps};
use crate::error::{Error, Exception};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::state::{Callback, QueuedMessage, Snapshot, State, Tables};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{
    counted, Arc, Condvar, Duration, Foreign, Instant, Lane, Mutex, MutexGuard, ProcessCounter, Rank, Weak,
};
use crate::transport::Shutdown;
use crate::wire::frame::Frame;

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
    pub(super) this: Weak<Shared>,
    pub(super) id: ConnectionId,
    /// Its identity is a user's value.
    pub(super) peer: Foreign<Peer>,
    pub(super) limits: Limits,
    pub(super) call_timeout: Option<Duration>,
    pub(super) state: Mutex<State>,
    /// A thread waits for the connection to be idle or to have ended.
    changed: Condvar,
    waiting: AtomicUsize,
    pub(super) outgoing: Lane<QueuedMessage>,
    pub(super) incoming: Lane<Incoming>,
    pub(super) callbacks: Lane<Callback>,
    /// Used by whoever has the turn of `outgoing`.
    pub(super) sender: SenderSlot,
    pub(super) drive: Drive,
    pub(super) flow: Arc<Flow>,
    /// Callers that wait for room.
    pub(super) room: Line,
    /// How many methods may run for the peer's calls.
    pub(super) permits: Arc<Permits>,
    pub(super) ending: Ending,
    #[cfg(all(test, not(any(shuttle, loom))))]
    pub(super) faults: super::transaction::tests::Faults,
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

impl Shared {
    pub(super) fn new(
        peer: Peer,
        options: Options,
        sender: Sender,
        shutdown: Box<dyn Shutdown>,
        port: impl FnOnce(&Weak<Shared>) -> Weak<dyn ConnectionOps>,
    ) -> Arc<Self> {
        static NEXT: ProcessCounter = ProcessCounter::new(0);
        let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let Options { limits, bootstrap, call_timeout, threads } = options;
        Arc::new_cyclic(|this| {
            let state = State::new(id, port(this), &limits, bootstrap);
            let flow = Flow::new(&limits);
            Shared {
                this: this.clone(),
                id,
                peer: Foreign::new(peer),
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
                drive: Drive::new(threads, &sender),
                sender: SenderSlot::new(sender),
                room: Line::new(),
                ending: Ending::new(shutdown, THREADS),
                #[cfg(all(test, not(any(shuttle, loom))))]
                faults: Default::default(),
            }
        })
    }

    /// Counts this thread, until the result is dropped, as one that waits for a change: of the tables, by what arrives.
    pub(super) fn wait(&self) -> impl Drop + '_ {
        let waiting = counted(&self.waiting);
        self.depends_on_input();
        waiting
    }

    /// Whether somebody waits for a change.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until the tables are as `wanted`. False if the connection has ended, or the deadline has passed,
    /// before that.
    #[cfg(feature = "test-util")]
    pub(super) fn wait_until(&self, deadline: Instant, wanted: impl Fn(&Snapshot) -> bool) -> bool {
        let _waiting = self.wait();
        loop {
            let tables = self.tables();
            let snapshot = tables.read();
            let found = wanted(&snapshot);
            let is_over = found || snapshot.ended().is_some() || Instant::now() >= deadline;
            // If the tables have changed meanwhile, they are looked at again.
            let unchanged = self.give_back(tables);
            if is_over {
                return found;
            }
            if let Some(mut state) = unchanged {
                self.changed.wait_until(&mut state, Some(deadline));
            }
        }
    }

    /// Waits until no call is under way in either direction, the connection has ended, or the deadline has passed.
    pub(super) fn wait_idle(&self, deadline: Instant) {
        let _waiting = self.wait();
        let mut state = self.state.lock();
        while !state.is_idle() && state.ended().is_none() {
            if self.changed.wait_until(&mut state, Some(deadline)) {
                break;
            }
        }
    }

    /// All tables at this moment. See Note [Snapshots].
    pub(super) fn snapshot(&self) -> Snapshot {
        let tables = self.tables();
        let snapshot = tables.read();
        drop(self.give_back(tables));
        snapshot
    }

    /// The tables, shared. They are to be [given back](Self::give_back).
    pub(super) fn tables(&self) -> Tables {
        self.state.lock().tables()
    }

    /// Drops tables that were taken: here if the state has the same, and holds all that they hold; else on the callback
    /// thread. Gives the lock of the state in the first case. (If the connection has ended meanwhile, so has that thread,
    /// and they are dropped here.)
    fn give_back(&self, tables: Tables) -> Option<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.is_at(&tables) {
            drop(tables);
            return Some(state);
        }
        drop(state);
        drop(self.callbacks.push(tables.discard_later()));
        None
    }

    /// Why the connection has ended, if it has.
    pub(super) fn why_ended(&self) -> Option<Exception> {
        self.state.lock().ended().cloned()
    }

    /// Wakes all that wait for a change. The lock may be held.
    pub(super) fn tell_changed(&self) {
        self.changed.notify_all();
    }
}
