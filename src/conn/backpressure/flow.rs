//! The limits on what is queued for sending and in service, and who waits for room.

use super::crowd::Crowds;
use crate::cap::object::Crowd;
use crate::cap::permits::Output;
use crate::error::Exception;
use crate::limits::Limits;
use crate::memory::{self, WaitsForMemory};
use crate::state::QueuedMessage;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{assert_unlocked, deadline, Arc, Condvar, Duration, Instant, Mutex, Rank, Weak};
use crate::transport::EndWatch;
use crate::wire::message::Message;
use crate::wire::needs::Needs;

/// How many times the limits hold what must be read all the same.
const HARD: usize = 4;
/// How many times the limit on bytes to be sent may wait when a call of the peer's starts. It is more than callers of this
/// vat fill: however fast they call a peer that reads, its calls start.
const START: usize = 2;
/// How many bytes may wait to be sent while messages are read for the sake of what is awaited, though the process has no
/// room. (Each call that is refused then makes an answer.)
const READS_ON: usize = 256 << 10;
/// Results of so many bytes are sent whatever waits before them.
const SMALL_RESULTS: usize = 1024;
/// What a call in service takes besides its message, in words: what stands for it in queues and tables, and what the
/// allocator adds. Measured as told in Note [What an entry costs].
const CALL_WORDS: usize = 88;
/// What each capability in its params takes besides the descriptor, in words.
const CAP_WORDS: usize = 64;

/// Counts what a connection holds in memory for its peer.
///
/// ```text
/// Note [Backpressure]
/// ===================
/// Three things are bounded, and each by the thread that can wait without harm:
///
/// - Questions and bytes to send, by callers: a call waits for room on its caller's own thread. Where nothing
///   may wait (callbacks, forwarded calls, answers) messages are queued above the limit; those are bounded by
///   the limits on the calls that cause them.
/// - Calls in service, by the receive thread: it admits calls while they are below the limit, so one is always
///   admitted. A call that was handed on over another connection is in service until its Return comes from
///   there (or, if none will, until it is sent).
/// - Answers that the peer does not read, by the receive thread too: the peer gets no more calls in. And by the
///   mailboxes: above twice the limit, calls that are in already do not start (Note [Permits]). What runs by then may
///   still answer, and so may who answers later, and other vats; results above four times the limit are dropped, and
///   their callers told.
///
/// What stops is the first message that needs room (`Needs`): it is kept, and nothing behind it is read. What needs
/// none is handled though the limits are reached: a Finish or a Release may be what makes room. While a message waits
/// for room, the receive thread also waits for the end of the input (`EndWatch`). A peer that has gone is noticed
/// whatever it has left unread, and its messages are dropped, up to an Abort: its calls would be canceled.
///
/// But while questions or Disembargoes of ours are outstanding, or somebody watches a promise of the peer's (a
/// thread, or another connection that has exported it), the receive thread reads on: calls in service may
/// wait for what comes, and a peer that waits for us to read would wait for ever. Then calls
/// above four times the limit are refused as `overloaded` instead, and reading stops at four times the limit
/// of unread answers (or at `READS_ON` bytes of them, where the process has no room). A call counts for no more than
/// the limit, however large it is.
///
/// All of this also holds where a connection has more than its part of what the process may hold, whatever its own limits
/// are: Note [Memory of the process].
/// ```
///
/// The counts are read and changed without a lock, for each message. Who waits says so in the very numbers that it waits
/// for, before it looks at them: whoever changes one after that finds it there, and wakes it.
pub(in crate::conn) struct Flow {
    /// Words of messages that arrived and are in service.
    serving: Watched,
    /// What is queued or being written: how many calls ([`CALL`] each) and bytes of messages, and how many bytes of memory.
    queued: AtomicU64,
    bytes: Watched,
    /// What the peer is still to send that calls in service may wait for. Changed under the lock of the state.
    awaited: Watched,
    /// Calls that wait in crowded mailboxes.
    crowds: Crowds,
    /// How many bytes the tables take.
    tables: AtomicUsize,
    /// How much of all that the process knows of, and the most that it was.
    told: AtomicUsize,
    most: AtomicUsize,
    /// It is told when other connections hold less.
    listed: AtomicBool,
    closed: AtomicBool,
    /// Held by the receive thread while it looks whether there is room. What it waits at, if that is not `changed`.
    looks: Mutex<Option<Arc<dyn EndWatch>>>,
    changed: Condvar,
    call_words: usize,
    send_bytes: usize,
}

/// Who is to be told that a number has changed.
#[derive(Clone, Copy, Default)]
pub(in crate::conn) struct Watchers(usize);

/// Who waited for what has been sent.
#[derive(Clone, Copy, Default)]
pub(in crate::conn) struct Freed {
    /// Callers of this vat.
    pub(in crate::conn) callers: bool,
    /// Calls of the peer's that have not started.
    pub(in crate::conn) callees: bool,
}

/// What a wait for room found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conn) enum Found {
    Room,
    /// The connection is closed.
    Closed,
    /// Nothing more comes than is there.
    End,
    /// The message has waited for long enough.
    Late,
}

/// A number, and who wants to know when it changes.
pub(in crate::conn) struct Watched(AtomicUsize);

/// The receive thread waits for room.
pub(in crate::conn) const RECEIVER: usize = 1;
/// Callers do.
const CALLERS: usize = 2;
/// Calls of the peer's do, until they start.
const CALLEES: usize = 4;
const WATCHERS: usize = RECEIVER | CALLERS | CALLEES;
const ONE: usize = WATCHERS + 1;

impl Watched {
    pub(in crate::conn) fn new() -> Self {
        Watched(AtomicUsize::new(0))
    }

    pub(in crate::conn) fn get(&self) -> usize {
        self.0.load(Ordering::Acquire) / ONE
    }

    /// Gives who is to be told.
    pub(in crate::conn) fn add(&self, n: usize) -> usize {
        self.0.fetch_add(n * ONE, Ordering::AcqRel) & WATCHERS
    }

    /// Gives what it was, and who is to be told.
    pub(in crate::conn) fn sub(&self, n: usize) -> (usize, usize) {
        let before = self.0.fetch_sub(n * ONE, Ordering::AcqRel);
        debug_assert!(before / ONE >= n, "what is given back was taken");
        (before / ONE, before & WATCHERS)
    }

    /// From now on somebody is to be told.
    pub(in crate::conn) fn watch(&self, who: usize) {
        self.0.fetch_or(who, Ordering::AcqRel);
    }

    pub(in crate::conn) fn unwatch(&self, who: usize) {
        self.0.fetch_and(!who, Ordering::AcqRel);
    }
}

/// Messages: how many bytes they are, how many of memory they take while they wait, and how many of them are calls.
#[derive(Clone, Copy, Default)]
pub(in crate::conn) struct Sending {
    pub(in crate::conn) calls: usize,
    pub(in crate::conn) bytes: usize,
    pub(in crate::conn) held: usize,
}

/// A call, in a number that counts calls and bytes.
const CALL: u64 = 1 << 40;

impl Sending {
    /// With one message more.
    pub(in crate::conn) fn and(self, departure: &QueuedMessage) -> Self {
        let calls = usize::from(matches!(departure.message, Message::Call(_)));
        Sending {
            calls: self.calls + calls,
            bytes: self.bytes + departure.bytes,
            held: self.held + departure.held,
        }
    }

    /// Calls and bytes, as one number.
    fn packed(self) -> u64 {
        self.calls as u64 * CALL + self.bytes as u64
    }
}

impl Flow {
    pub(in crate::conn) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Flow {
            serving: Watched::new(),
            queued: AtomicU64::new(0),
            bytes: Watched::new(),
            awaited: Watched::new(),
            crowds: Crowds::new(),
            tables: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            listed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            looks: Mutex::new(Rank::Queue, None),
            changed: Condvar::new(),
            call_words: limits.call_words.max(1),
            send_bytes: limits.send_bytes,
        })
    }

    /// Waits until there is what a message needs, the connection is closed, or the input has ended, which `watch` sees; or
    /// until `timeout` has passed, and a refusal may be sent. See Note [Backpressure].
    pub(in crate::conn) fn wait_for_room(
        self: &Arc<Self>,
        needs: Needs,
        watch: Option<&Arc<dyn EndWatch>>,
        timeout: Option<Duration>,
    ) -> Found {
        let numbers = [&self.serving, &self.bytes, &self.awaited];
        let mut looks = self.looks.lock();
        *looks = watch.cloned();
        numbers.iter().for_each(|number| number.watch(RECEIVER));
        let mut late = None;
        let found = loop {
            if self.is_closed() {
                break Found::Closed;
            }
            if !self.listed.swap(true, Ordering::AcqRel) {
                let this: Weak<Self> = Arc::downgrade(self);
                memory::tell_when_less(this);
            }
            if self.has(needs) {
                break Found::Room;
            }
            // A refusal is something to be sent, too: the time runs while there is room for that.
            late =
                timeout.filter(|_| self.may_send()).map(|timeout| late.unwrap_or_else(|| deadline(timeout)));
            if late.is_some_and(|late| late <= Instant::now()) {
                break Found::Late;
            }
            let Some(watch) = watch else {
                self.changed.wait_until(&mut looks, late);
                continue;
            };
            drop(looks);
            let ended = watch.has_ended();
            if !ended {
                watch.wait_end(late);
            }
            looks = self.looks.lock();
            if ended {
                break Found::End;
            }
        };
        numbers.iter().for_each(|number| number.unwatch(RECEIVER));
        let watch = looks.take();
        drop(looks);
        drop(watch);
        found
    }

    pub(in crate::conn) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether there is what a message needs to be handled.
    pub(in crate::conn) fn has(&self, needs: Needs) -> bool {
        match needs {
            Needs::Service if self.awaited.get() == 0 => {
                self.is_below_call_words() && self.may_send() && memory::has_room(self.in_hand())
            }
            Needs::Output if self.awaited.get() == 0 => self.may_send() && memory::has_room(self.in_hand()),
            Needs::Service | Needs::Output => {
                let bytes = self.bytes.get();
                bytes <= self.send_bytes.min(READS_ON)
                    || (bytes <= self.send_bytes.saturating_mul(HARD) && memory::has_room(self.in_hand()))
            }
            Needs::Nothing => self.serving.get() < self.call_words.saturating_mul(HARD + 2),
        }
    }

    /// Whether a message is to wait until it is handled.
    pub(in crate::conn) fn holds(&self, needs: Needs) -> bool {
        !self.has(needs) || self.holds_for_crowd(needs)
    }

    /// The same, for the sake of others that call the same objects. See Note [Crowds].
    pub(in crate::conn) fn holds_for_crowd(&self, needs: Needs) -> bool {
        needs == Needs::Service && self.crowds.holds_calls()
    }

    /// Whether the next message may be handled, whatever it is.
    pub(in crate::conn) fn may_read(&self) -> bool {
        !self.holds(Needs::Service)
    }

    /// Waits while calls are held for the sake of others, or the connection is closed. See Note [Crowds].
    pub(in crate::conn) fn wait_for_crowd(&self) {
        self.crowds.wait(|| self.is_closed(), || self.awaited.get() > 0);
    }

    /// Counts a call that waits in a crowded mailbox, until the result is dropped.
    pub(in crate::conn) fn in_crowd(self: &Arc<Self>, crowd: &Arc<Crowd>) -> InCrowd {
        self.crowds.enter(crowd);
        InCrowd(self.clone())
    }

    fn is_below_call_words(&self) -> bool {
        self.serving.get() < self.call_words
    }

    /// Whether a call that has this share can't be taken on, although messages are read. For the process's limit its share
    /// does not count against it: if there was room before, it was admitted.
    pub(in crate::conn) fn refuses_call(&self, share: &Share) -> bool {
        let own = share.words * 8;
        self.serving.get() >= self.call_words.saturating_mul(HARD)
            || !memory::had_room(self.held().saturating_sub(own), own)
    }

    /// Whether the connection holds more than its part of what the process may hold.
    pub(in crate::conn) fn is_above_process(&self) -> bool {
        !memory::has_room(self.held())
    }

    /// How many bytes are held that go without anything from the peer but its reading.
    fn in_hand(&self) -> usize {
        self.serving.get() * 8 + self.bytes.get()
    }

    /// How many bytes are held in all.
    fn held(&self) -> usize {
        self.in_hand() + self.tables.load(Ordering::Relaxed)
    }

    /// Tells the process how much is held, if that has changed much. The caller holds no lock. See Note [Memory of the
    /// process].
    fn tell_process(&self) {
        // Again, as another thread may have told meanwhile what was held before.
        loop {
            let held = self.held();
            if held.abs_diff(self.told.load(Ordering::Acquire)) < memory::QUANTUM {
                return;
            }
            memory::changed(self.told.swap(held, Ordering::AcqRel), held);
            self.most.fetch_max(held, Ordering::Relaxed);
        }
    }

    /// Counts a call that arrived, of so many words and capabilities, until the result is dropped.
    pub(in crate::conn) fn serve(self: &Arc<Self>, words: usize, caps: usize) -> Share {
        let words = (words + CALL_WORDS + caps * CAP_WORDS).min(self.call_words);
        self.serving.add(words);
        self.tell_process();
        Share { flow: self.clone(), words }
    }

    /// The same, once it is known how many capabilities a call has. It may have been counted without them.
    pub(in crate::conn) fn serve_decoded(
        self: &Arc<Self>,
        share: Option<Share>,
        words: usize,
        caps: usize,
    ) -> Share {
        let Some(mut share) = share else { return self.serve(words, caps) };
        let more = (caps * CAP_WORDS).min(self.call_words - share.words);
        self.serving.add(more);
        share.words += more;
        share
    }

    /// A transaction, whose lock is held, has left so much to be sent, and so much to be awaited. Gives who is to be
    /// [told](Self::tell) once the lock is released.
    #[must_use]
    pub(in crate::conn) fn committed(&self, queued: Sending, awaited: usize, tables: usize) -> Watchers {
        self.tables.store(tables, Ordering::Relaxed);
        if queued.bytes > 0 {
            self.queued.fetch_add(queued.packed(), Ordering::AcqRel);
            self.bytes.add(queued.held);
        }
        let before = self.awaited.get();
        let watchers = match awaited.cmp(&before) {
            std::cmp::Ordering::Equal => return Watchers::default(),
            std::cmp::Ordering::Greater => self.awaited.add(awaited - before),
            std::cmp::Ordering::Less => self.awaited.sub(before - awaited).1,
        };
        if (before == 0) != (awaited == 0) {
            Watchers(watchers)
        } else {
            Watchers::default()
        }
    }

    /// Messages are on their way. Tells who waited for that, and is to be told now that no lock is held.
    pub(in crate::conn) fn sent(&self, sent: Sending) -> Freed {
        self.queued.fetch_sub(sent.packed(), Ordering::AcqRel);
        let (_, watchers) = self.bytes.sub(sent.held);
        self.tell(Watchers(watchers));
        self.tell_process();
        let freed =
            Freed { callers: watchers & CALLERS != 0, callees: watchers & CALLEES != 0 && self.has_room() };
        // They look again, and say so again.
        if freed.callers {
            self.bytes.unwatch(CALLERS);
        }
        if freed.callees {
            self.bytes.unwatch(CALLEES);
        }
        freed
    }

    /// Refuses the results of a call, of so many bytes, if too much waits to be sent. An exception takes as much as small
    /// results do: those are bounded by the calls that they answer.
    pub(in crate::conn) fn check_results(&self, bytes: usize) -> Result<(), Exception> {
        if bytes <= SMALL_RESULTS || !self.is_full() {
            return Ok(());
        }
        let unread = self.bytes.get();
        let reason =
            format!("the results take {bytes} bytes, and the peer has not read {unread} bytes before them");
        Err(Exception::overloaded(reason))
    }

    /// Whether a caller may queue more.
    pub(in crate::conn) fn may_send(&self) -> bool {
        self.may_send_beside(0)
    }

    /// The same, beside so many bytes that others are about to queue.
    pub(in crate::conn) fn may_send_beside(&self, bytes: usize) -> bool {
        self.bytes.get() + bytes <= self.send_bytes
    }

    /// From now on, [`sent`](Self::sent) says when callers are to look again whether they may send.
    pub(in crate::conn) fn watch_for_callers(&self) {
        self.bytes.watch(CALLERS);
    }

    /// What is queued or being written.
    pub(in crate::conn) fn sending(&self) -> Sending {
        let queued = self.queued.load(Ordering::Acquire);
        Sending { calls: (queued / CALL) as usize, bytes: (queued % CALL) as usize, held: self.bytes.get() }
    }

    /// How much the peer is still to send that calls here may wait for.
    pub(in crate::conn) fn awaited(&self) -> usize {
        self.awaited.get()
    }

    /// A number has changed that these watch. No lock is held: what the receive thread waits at may be foreign.
    pub(in crate::conn) fn tell(&self, watchers: Watchers) {
        if watchers.0 & RECEIVER != 0 {
            assert_unlocked();
            let watch = self.looks.lock().clone();
            self.changed.notify_all();
            if let Some(watch) = watch {
                watch.wake();
            }
        }
    }

    /// What a transaction has left was noted, and its lock is released.
    pub(in crate::conn) fn after_commit(&self, watchers: Watchers) {
        self.tell(watchers);
        self.tell_process();
    }

    pub(in crate::conn) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.crowds.tell();
        self.tell(Watchers(RECEIVER));
    }
}

/// A call that waits in a crowded mailbox; not any more when dropped.
pub(in crate::conn) struct InCrowd(Arc<Flow>);

impl Drop for InCrowd {
    fn drop(&mut self) {
        self.0.crowds.leave();
    }
}

/// A share of what may be in service; given back when dropped.
pub(in crate::conn) struct Share {
    flow: Arc<Flow>,
    words: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let (_, watchers) = self.flow.serving.sub(self.words);
        self.flow.tell(Watchers(watchers));
        self.flow.tell_process();
    }
}

impl Output for Flow {
    fn has_room(&self) -> bool {
        let bytes = self.bytes.get();
        let most = self.send_bytes.saturating_mul(START);
        bytes == 0 || (bytes <= most && (bytes <= READS_ON || memory::has_room(self.in_hand())))
    }

    fn is_full(&self) -> bool {
        let bytes = self.bytes.get();
        bytes > self.send_bytes.saturating_mul(HARD)
            || (bytes > READS_ON && !memory::has_room(self.in_hand()))
    }

    fn watch(&self) {
        self.bytes.watch(CALLEES);
    }
}

impl WaitsForMemory for Flow {
    fn wake(&self) {
        self.listed.store(false, Ordering::Release);
        self.tell(Watchers(RECEIVER));
    }
}

/// All that was held for the peer is gone. See Note [Memory is given back].
impl Drop for Flow {
    fn drop(&mut self) {
        let told = self.told.load(Ordering::Relaxed);
        if told > 0 {
            memory::changed(told, 0);
        }
        #[cfg(not(any(shuttle, loom)))]
        memory::trim_soon(self.most.load(Ordering::Relaxed));
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
