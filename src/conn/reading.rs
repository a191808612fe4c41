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
//! While it is free, the receive thread waits at the open gate, which it passes when something has arrived: so
//! nothing is left unread, and nobody is woken to hand the role on. (While answers are awaited, whoever may borrow the
//! stage again is given a moment to come.) A borrower opens the gate after it has put the stage back, with no whole
//! message left in the buffer, where the gate does not see it. The receive thread lends the stage once somebody has
//! found it busy, and keeps it after it was lent some times for nothing.
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

use super::lending::LINGER;
use super::polling::Polling;
use super::shared::Shared;
use super::stages::{Progress, ReceiveStage, Wait};
use crate::cap::port::ConnectionId;
use crate::promise::cancel::without_current;
use crate::promise::{Interrupt, Waiter};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{enter_role, per_thread, Arc, Condvar, Instant, Mutex, OnceLock, Rank, Role};
use crate::transport::Gate;

/// Who reads. See Note [Reading is lent].
pub(super) struct Reading {
    /// `None` within for a source that can't be waited for by turns.
    gate: OnceLock<Option<Arc<dyn Gate>>>,
    free: Mutex<Free>,
    /// Never notified: to wait for a moment.
    nothing: Condvar,
    /// Somebody would have borrowed the stage.
    wanted: AtomicBool,
    /// How many threads wait for an answer, or have not run since it came.
    waiting: AtomicUsize,
    /// Whoever reads has more messages at hand, and sends what is queued after them.
    batch: AtomicBool,
}

struct Free {
    stage: Option<ReceiveStage>,
    /// How many times more the receive thread lends it without anybody's borrowing it.
    chances: u8,
}

/// How many times in a row the stage is lent for nothing before the receive thread keeps it.
const CHANCES: u8 = 8;

per_thread! {
    /// How it went when this thread polled for its answer, while another one read.
    static POLLING: Cell<Polling> = Cell::new(Polling::new());
    /// The connection that this thread reads from in the place of its receive thread.
    static READING: Cell<Option<ConnectionId>> = Cell::new(None);
}

impl Reading {
    pub(super) fn new() -> Self {
        let free = Mutex::new(Rank::Queue, Free { stage: None, chances: 0 });
        Reading {
            gate: OnceLock::new(),
            free,
            nothing: Condvar::new(),
            wanted: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            batch: AtomicBool::new(false),
        }
    }

    /// How many threads wait for an answer, or have not run since it came.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether whoever reads has more messages at hand, and sends what is queued after them.
    pub(super) fn is_in_batch(&self) -> bool {
        self.batch.load(Ordering::Relaxed)
    }

    /// Another message is at hand, or none is.
    pub(super) fn goes_on(&self, more: bool) {
        self.batch.store(more, Ordering::Relaxed);
    }

    /// Counts this thread as one that waits until the result is dropped.
    fn wait(&self) -> impl Drop + '_ {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }

    /// Whether the receive thread is to lend its stage.
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn put(&self, stage: ReceiveStage) {
        let before = self.free.lock().stage.replace(stage);
        debug_assert!(before.is_none(), "one reads");
    }

    /// The stage, if it is free, and whether to lend it again. For the receive thread.
    fn take_back(&self) -> Option<(ReceiveStage, bool)> {
        let mut free = self.free.lock();
        let stage = free.stage.take()?;
        free.chances = free.chances.saturating_sub(1);
        Some((stage, free.chances > 0))
    }

    /// Waits a moment for somebody to borrow the stage.
    fn linger(&self) {
        let mut free = self.free.lock();
        if let Some(linger) = LINGER {
            self.nothing.wait_until(&mut free, Instant::now().checked_add(linger));
        }
    }

    fn borrow(&self) -> Option<Borrowed<'_>> {
        let mut free = self.free.lock();
        let Some(stage) = free.stage.take() else {
            drop(free);
            self.wanted.store(!matches!(self.gate.get(), Some(None)), Ordering::Relaxed);
            return None;
        };
        free.chances = CHANCES;
        drop(free);
        let gate = self.gate.get().and_then(Option::as_deref).expect("it was lent at a gate");
        gate.shut();
        Some(Borrowed { reading: self, gate, stage: Some(stage) })
    }
}

/// What the receive thread runs.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    /// `None` after a panic.
    stage: Option<ReceiveStage>,
}

impl Receiver {
    pub(super) fn new(shared: &Arc<Shared>, stage: ReceiveStage) -> Self {
        Receiver { shared: shared.clone(), stage: Some(stage) }
    }

    /// Receives one message, and then lends the stage if somebody may borrow it.
    pub(super) fn step(&mut self, wait: Wait) -> Progress {
        let Some(mut stage) = self.stage.take() else { return Progress::Ended };
        let mut progress = stage.step(wait);
        if progress == Progress::Made && self.shared.reading.is_wanted() && !stage.is_ready() {
            (stage, progress) = self.lend(stage);
        }
        self.stage = Some(stage);
        progress
    }

    /// Lends the stage until something has arrived that nobody waited for.
    fn lend(&self, mut stage: ReceiveStage) -> (ReceiveStage, Progress) {
        let reading = &self.shared.reading;
        let Some(gate) = reading.gate.get_or_init(|| stage.gate()) else {
            reading.wanted.store(false, Ordering::Relaxed);
            return (stage, Progress::Made);
        };
        reading.free.lock().chances = CHANCES;
        loop {
            reading.put(stage);
            gate.open();
            let again;
            (stage, again) = loop {
                gate.wait_open();
                if self.shared.flow.awaits() {
                    reading.linger();
                }
                if let Some(back) = reading.take_back() {
                    break back;
                }
            };
            let progress = stage.receive_all();
            if !again {
                reading.wanted.store(false, Ordering::Relaxed);
            }
            if !again || progress == Progress::Ended || !stage.has_room() {
                return (stage, progress);
            }
        }
    }
}

/// The receive stage, borrowed. Given back when dropped.
struct Borrowed<'a> {
    reading: &'a Reading,
    gate: &'a dyn Gate,
    stage: Option<ReceiveStage>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some(mut stage) = self.stage.take() else { return };
        // There are, for want of room. The gate does not see them.
        let messages_left = stage.is_ready();
        self.reading.put(stage);
        self.gate.open();
        if messages_left {
            self.gate.interrupt();
        }
    }
}

impl Shared {
    /// Reads for a thread that waits. See Note [Reading is lent].
    pub(super) fn read_for(self: &Arc<Self>, waiter: &dyn Waiter) {
        if !self.lends {
            return;
        }
        self.see_to_drops();
        let _waiting = self.reading.wait();
        self.send_left();
        let Some(mut borrowed) = self.borrow_in_time(waiter) else { return waiter.sleep_on() };
        let _reading = self.enter_reading();
        waiter.interrupts(self.clone());
        without_current(|| borrowed.read(self, waiter));
    }

    /// The stage, if it is free, or becomes so while this thread polls for its answer. See Note [Polling].
    fn borrow_in_time(&self, waiter: &dyn Waiter) -> Option<Borrowed<'_>> {
        let mut borrowed = self.reading.borrow();
        if borrowed.is_none() {
            let mut polling = POLLING.with(Cell::take);
            polling.poll(self.limits.polling, waiter.deadline(), || {
                borrowed = self.reading.borrow();
                borrowed.is_some() || !waiter.waits()
            });
            POLLING.with(|kept| kept.set(polling));
        }
        borrowed
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
            let Borrowed { gate, stage: Some(stage), .. } = self else { return };
            let receive = || {
                if !stage.poll(waiter.deadline(), || waiter.waits()) {
                    gate.wait(waiter.deadline());
                }
                stage.receive_all()
            };
            match catch_unwind(AssertUnwindSafe(receive)) {
                Ok(Progress::Made) => {}
                Ok(Progress::Idle) if stage.has_room() => {}
                Ok(Progress::Idle | Progress::Ended) => return,
                Err(_) => shared.end_panicked(),
            }
        }
    }
}

impl Interrupt for Shared {
    fn interrupt(&self) {
        if READING.with(Cell::get) != Some(self.id) {
            if let Some(Some(gate)) = self.reading.gate.get() {
                gate.interrupt();
            }
        }
    }
}
