//! Reading on the thread that waits for what is read.
//!
//! ```text
//! Note [Reading is lent]
//! ======================
//! A thread that waits for an answer would be woken by the receive thread once that has read it. If nobody else
//! reads, it reads itself instead, and handles what it has read as the receive thread would (Note [Lending]): what
//! comes before its answer, its answer, and what has arrived together with it. (So does who waits for a stream's
//! window.) Who reads holds the receive stage:
//!
//!            lend                          borrow
//!   Own  -----------> Free (gate open) ---------------> Lent (gate shut)
//!      <-----------       <-----------------------------
//!       something               give back
//!       has arrived
//!
//! (Before anybody has wanted to borrow it, the reactor may have it: Note [One waits for all].)
//!
//! While it is free, the receive thread waits at the open gate, which it passes when something has arrived: so
//! nothing is left unread, and nobody is woken to hand the role on. (While answers are awaited, whoever may borrow the
//! stage again is given a moment to come, before the receive thread takes it, and, if that has proved right, before the
//! gate is opened: Note [The gate is opened late].) A borrower opens the gate after it has put the stage back, with no
//! whole message left in the buffer, where the gate does not see it. The receive thread lends the stage once somebody
//! has found it busy, and keeps it after it was lent some times for nothing.
//!
//! Who finds the stage busy polls for its answer, or for the stage (Note [Polling]), and then sleeps until whoever
//! reads wakes it. It is counted meanwhile, and until it runs again: of those whose answers came together, each leaves
//! it to the next to send what they all ask next (Note [Lending]).
//!
//! A borrower never waits for anything but input, the end of its own wait, or its deadline. What makes the receive
//! thread wait (Note [Backpressure]) makes a borrower give the stage back. Foreign code that it runs (callbacks,
//! objects in place) finds itself on one of the connection's own threads (Note [Threads]).
//! ```

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::desk::{Desk, Lent};
use super::lending::LINGER;
use super::polling::{First, Polling};
use super::receive::{InlineReceiver, RECEIVERS};
use crate::cap::port::ConnectionId;
use crate::conn::shared::Shared;
use crate::conn::stages::{Progress, ReceiveStage, Wait};
use crate::conn::threads::repeat;
use crate::promise::cancel::without_current;
use crate::promise::{Interrupt, Waiter};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{counted, deadline, enter_role, per_thread, Arc, Duration, Instant, OnceLock, Role, Timer};
use crate::transport::Readiness;

/// Who reads. See Note [Reading is lent].
pub(in crate::conn) struct Reading {
    desk: Arc<Desk<Box<InlineReceiver>>>,
    /// Threads would have borrowed the stage, `OFTEN` times in quick succession.
    wanted: AtomicBool,
    /// When a thread would have, last, and how many times in quick succession: see [`Wants`].
    wants: Wants,
    /// How many threads wait for an answer, or have not run since it came.
    waiting: AtomicUsize,
    /// Whoever reads has more messages at hand, and sends what is queued after them.
    batch: AtomicBool,
}

per_thread! {
    /// How it went when this thread polled for its answer, while another one read.
    static POLLING: Cell<Polling> = Cell::new(Polling::new());
    /// The connection that this thread reads from in the place of its receive thread.
    static READING: Cell<Option<ConnectionId>> = Cell::new(None);
}

impl Reading {
    pub(in crate::conn) fn new() -> Self {
        Reading {
            desk: Arc::new(Desk::new()),
            wanted: AtomicBool::new(false),
            wants: Wants(AtomicU64::new(0)),
            waiting: AtomicUsize::new(0),
            batch: AtomicBool::new(false),
        }
    }

    /// Has what arrives be seen from now on, though nobody waits for it who reads.
    pub(in crate::conn) fn watch(&self) {
        self.desk.watch();
    }

    /// How many threads wait for an answer, or have not run since it came.
    pub(in crate::conn) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether whoever reads has more messages at hand, and sends what is queued after them.
    pub(in crate::conn) fn is_in_batch(&self) -> bool {
        self.batch.load(Ordering::Relaxed)
    }

    /// Another message is at hand, or none is.
    pub(in crate::conn) fn goes_on(&self, more: bool) {
        self.batch.store(more, Ordering::Relaxed);
    }

    /// Counts this thread as one that waits until the result is dropped.
    fn wait(&self) -> impl Drop + '_ {
        counted(&self.waiting)
    }

    /// The receive stage has ended. Gives back what is held of the transport.
    pub(super) fn close(&self) {
        self.desk.close();
    }

    /// Whether the receive thread is to lend its stage.
    pub(in crate::conn) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// How many times in quick succession threads have to wait before the stage is lent to them: that takes a thread and two
/// descriptors, which a connection with few calls does without.
const OFTEN: u64 = 4;
/// What quick succession is, in milliseconds.
const QUICK: u64 = 10;

/// When a thread would have borrowed the stage last, in milliseconds, and, in the last `COUNT` bits, how many times in quick
/// succession one would have.
struct Wants(AtomicU64);

impl Wants {
    const COUNT: u32 = 8;

    /// A thread would borrow the stage. True if that is the last of many times. Two at the same time may count as one.
    fn is_one_of_many(&self) -> bool {
        if cfg!(any(shuttle, loom)) {
            // Model checkers know no time.
            return true;
        }
        static START: OnceLock<Instant> = OnceLock::new();
        let now = START.get_or_init(Instant::now).elapsed().as_millis() as u64;
        self.is_one_of_many_at(now)
    }

    fn is_one_of_many_at(&self, now: u64) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        let (last, count) = (before >> Self::COUNT, before & ((1 << Self::COUNT) - 1));
        let count = if now.saturating_sub(last) <= QUICK { OFTEN.min(count + 1) } else { 1 };
        self.0.store(now << Self::COUNT | count, Ordering::Relaxed);
        count >= OFTEN
    }
}

impl Lent for Box<InlineReceiver> {
    fn rest(&mut self) {
        self.stage.rest();
    }
}

/// What a thread runs that has the receive stage.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    /// `None` after a panic, and where it was left.
    stage: Option<Box<InlineReceiver>>,
    /// It was given to this thread because there is something to do.
    is_new: bool,
}

/// What became of a receive stage that a thread would leave with the reactor, to wait for its input.
pub(super) enum Left<R> {
    /// It rests there.
    Resting,
    /// It has input, and was given back.
    #[cfg_attr(
        not(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom)))),
        expect(dead_code)
    )]
    Ready(R),
    /// No other thread can wait for its input.
    Unsupported(R),
}

impl<R> Left<R> {
    fn map<Q>(self, as_what: impl FnOnce(R) -> Q) -> Left<Q> {
        match self {
            Left::Resting => Left::Resting,
            Left::Ready(stage) => Left::Ready(as_what(stage)),
            Left::Unsupported(stage) => Left::Unsupported(as_what(stage)),
        }
    }
}

/// How long a thread waits for the input of a stage that it has lent, and no other thread has borrowed.
const IDLE: Duration = Duration::from_secs(5);
/// With fewer connections each one's thread waits for its own input: that takes a system call less.
const MANY_RECEIVERS: u64 = 4;

impl Receiver {
    pub(in crate::conn) fn new(shared: &Arc<Shared>, stage: ReceiveStage) -> Self {
        let stage = Box::new(InlineReceiver::new(shared, stage));
        Receiver { shared: shared.clone(), stage: Some(stage), is_new: false }
    }

    /// Of a stage that the reactor gives to a thread.
    #[cfg_attr(any(shuttle, loom), allow(dead_code))]
    pub(super) fn given(stage: Box<InlineReceiver>) -> Self {
        Receiver { shared: stage.shared.clone(), stage: Some(stage), is_new: true }
    }

    /// Whether a message has been received that waits for room, or did.
    #[cfg(feature = "test-util")]
    pub(in crate::conn) fn holds_message(&self) -> bool {
        self.stage.as_ref().is_some_and(|receiver| receiver.stage.holds_message())
    }

    /// Leaves the stage with the reactor. For one that has read nothing yet.
    pub(super) fn leave(self) -> Left<Self> {
        let Receiver { shared, stage: Some(stage), is_new } = self else { return Left::Unsupported(self) };
        leave(stage).map(|stage| Receiver { shared, stage: Some(stage), is_new })
    }

    /// Takes steps until the stage is left, or has ended.
    pub(super) fn run(mut self, wait: Wait) {
        let shared = self.shared.clone();
        let last = repeat(&shared, || self.step(wait));
        drop(self);
        if last == Progress::Ended {
            shared.ending.stage_ended();
        }
    }

    /// Receives what is there without waiting, and leaves the stage. Gives itself back if it has to wait for room.
    pub(super) fn advance(mut self) -> Option<Self> {
        let Some(mut stage) = self.stage.take() else {
            self.shared.ending.stage_ended();
            return None;
        };
        match catch_unwind(AssertUnwindSafe(|| stage.receive_all())) {
            Ok(Progress::Ended) => {
                drop(stage);
                self.shared.ending.stage_ended();
                return None;
            }
            Ok(_) if stage.stage.is_ready() => self.stage = Some(stage),
            Ok(_) => match leave(stage) {
                Left::Resting => return None,
                Left::Ready(stage) | Left::Unsupported(stage) => self.stage = Some(stage),
            },
            Err(panic) => self.shared.end_panicked(panic),
        }
        Some(self)
    }

    /// Receives, and then lends the stage if somebody may borrow it.
    pub(in crate::conn) fn step(&mut self, wait: Wait) -> Progress {
        let Some(mut stage) = self.stage.take() else { return Progress::Ended };
        let mut progress;
        if std::mem::take(&mut self.is_new) {
            stage.poll_anew();
            progress = match stage.receive_all() {
                Progress::Ended => Progress::Ended,
                // Something was, there.
                _ => Progress::Made,
            };
        } else if wait == Wait::No {
            progress = stage.step(Wait::No);
        } else {
            let is_idle = stage.stage.has_room()
                && !stage.stage.is_ready()
                && !stage.poll(None, First::AtOnce, || true);
            if is_idle && wait == Wait::OrLeave && RECEIVERS.load(Ordering::Relaxed) >= MANY_RECEIVERS {
                stage = match leave(stage) {
                    Left::Resting => return Progress::Left,
                    Left::Ready(stage) | Left::Unsupported(stage) => stage,
                };
            }
            progress = stage.step(Wait::Yes);
        }
        let lends = wait != Wait::No && progress == Progress::Made && self.shared.drive.reading.is_wanted();
        if lends && !stage.stage.is_ready() {
            (stage, progress) = self.lend(stage);
        }
        self.stage = Some(stage);
        progress
    }

    /// Lends the stage until something has arrived that nobody waited for.
    fn lend(&self, mut stage: Box<InlineReceiver>) -> (Box<InlineReceiver>, Progress) {
        let reading = &self.shared.drive.reading;
        let desk = &reading.desk;
        let Some(gate) = desk.gate_or(|| stage.stage.readiness()) else {
            reading.wanted.store(false, Ordering::Relaxed);
            return (stage, Progress::Made);
        };
        desk.renew_chances();
        loop {
            desk.lend(stage, gate.clone());
            let (before, again, idle);
            before = desk.borrows();
            (stage, again, idle) = loop {
                let timed_out = wait_armed(&gate);
                if let Some(linger) = LINGER.filter(|_| self.shared.flow.awaited() > 0) {
                    desk.linger(Instant::now().checked_add(linger));
                }
                if let Some((stage, again)) = desk.take_back() {
                    break (stage, again, timed_out && desk.borrows() == before);
                }
            };
            let progress = stage.receive_all();
            let again = again && !idle;
            if !again {
                reading.wanted.store(false, Ordering::Relaxed);
            }
            if !again || progress == Progress::Ended || !stage.stage.has_room() {
                return (stage, progress);
            }
        }
    }
}

/// Waits for input, for `IDLE` at most. True if none has come in that time.
fn wait_armed(gate: &Arc<dyn Readiness>) -> bool {
    let wakes = gate.clone();
    let idle = Timer::global().at(deadline(IDLE), move || wakes.wake());
    gate.wait_armed();
    !Timer::global().cancel(idle)
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
pub(super) use super::reactor::{can_be_left, leave};

/// No other thread can wait for its input.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom)))))]
fn leave(stage: Box<InlineReceiver>) -> Left<Box<InlineReceiver>> {
    Left::Unsupported(stage)
}

/// No other thread can wait for its input.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom)))))]
pub(super) fn can_be_left(_: &crate::transport::Source) -> bool {
    false
}

/// The receive stage, borrowed. Given back when dropped.
struct Borrowed<'a> {
    shared: &'a Shared,
    stage: Option<(Box<InlineReceiver>, Arc<dyn Readiness>)>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some((mut stage, gate)) = self.stage.take() else { return };
        // There are, for want of room. The gate does not see them.
        let messages_left = stage.stage.is_ready();
        // Without room, this thread does not come again: the receive thread waits for it.
        let may_come_again = !messages_left && stage.stage.has_room();
        let interrupted = messages_left.then(|| gate.clone());
        self.shared.drive.reading.desk.give_back(stage, gate, || may_come_again && self.shared.is_alone());
        if let Some(gate) = interrupted {
            gate.wake();
        }
    }
}

impl Shared {
    /// Reads for a thread that waits. See Note [Reading is lent].
    pub(super) fn read_for(self: &Arc<Self>, waiter: &dyn Waiter) {
        self.see_to_drops();
        let _waiting = self.drive.reading.wait();
        self.send_left();
        let Some(mut borrowed) = self.borrow_in_time(waiter) else { return waiter.sleep_on() };
        let _reading = self.enter_reading();
        waiter.interrupts(self.clone());
        without_current(|| borrowed.read(self, waiter));
    }

    /// The stage, if it is free, or becomes so while this thread polls for its answer. See Note [Polling].
    fn borrow_in_time(&self, waiter: &dyn Waiter) -> Option<Borrowed<'_>> {
        let mut borrowed = self.borrow();
        if borrowed.is_none() {
            let reading = &self.drive.reading;
            let wanted = reading.wants.is_one_of_many() && !reading.desk.has_no_gate();
            if wanted {
                reading.wanted.store(true, Ordering::Relaxed);
            }
            let mut polling = POLLING.with(Cell::take);
            polling.poll(self.limits.polling, waiter.deadline(), First::AtOnce, || {
                borrowed = self.borrow();
                borrowed.is_some() || !waiter.waits()
            });
            POLLING.with(|kept| kept.set(polling));
        }
        borrowed
    }

    fn borrow(&self) -> Option<Borrowed<'_>> {
        let desk = &self.drive.reading.desk;
        desk.borrow().map(|stage| Borrowed { shared: self, stage: Some(stage) })
    }

    /// Whether only this thread, which has read, is known to depend on what arrives, as far as anybody does. Model
    /// checkers know no time, in which it may come again.
    fn is_alone(&self) -> bool {
        !cfg!(any(shuttle, loom)) && self.drive.reading.waiting() <= 1 && !self.is_waited_for()
    }

    /// This thread reads until the result is dropped.
    fn enter_reading(&self) -> impl Drop {
        struct Restore<R>(Option<ConnectionId>, R);
        impl<R> Drop for Restore<R> {
            fn drop(&mut self) {
                READING.with(|reading| reading.set(self.0));
            }
        }
        Restore(READING.with(|reading| reading.replace(Some(self.id))), enter_role(Role::Connection))
    }
}

impl Borrowed<'_> {
    fn read(&mut self, shared: &Arc<Shared>, waiter: &dyn Waiter) {
        while waiter.waits() {
            let Borrowed { stage: Some((stage, gate)), .. } = self else { return };
            let receive = || {
                if !stage.poll(waiter.deadline(), First::AfterOthers, || waiter.waits()) {
                    gate.wait(waiter.deadline());
                }
                stage.receive_all()
            };
            match catch_unwind(AssertUnwindSafe(receive)) {
                Ok(Progress::Made) => {}
                Ok(Progress::Idle) if stage.stage.has_room() => {}
                Ok(Progress::Idle | Progress::Left | Progress::Ended) => return,
                Err(panic) => shared.end_panicked(panic),
            }
        }
    }
}

impl Interrupt for Shared {
    fn interrupt(&self) {
        if READING.with(Cell::get) != Some(self.id) {
            if let Some(gate) = self.drive.reading.desk.gate() {
                gate.wake();
            }
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn stage_is_wanted_where_threads_wait_in_quick_succession() {
        let wants = Wants(AtomicU64::new(0));
        let far_apart = (1..10).map(|n| n * 1000);
        assert!({ far_apart }.all(|now| !wants.is_one_of_many_at(now)));
        let last = 9000;
        let found: Vec<_> = (1..5).map(|n| wants.is_one_of_many_at(last + n * QUICK)).collect();
        assert_eq!(found, [false, false, true, true]);
        assert!(!wants.is_one_of_many_at(last + 6 * QUICK));
    }
}
