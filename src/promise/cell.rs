//! A value that is not there yet, and the right to put it there.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crossbeam_channel::Receiver;

use super::blocking::{Asleep, Sleeper};
use super::cancel::{self, canceled, Cancel, Unwatch};
use super::reading::{Interest, Interrupt, Reading, Waiter};
use super::{enter_blocking, enter_wait, WaitError};
use crate::error::{catch_panic, Error, Exception, Result};
use crate::sync::{
    self, assert_unlocked, foreign, in_turn, Arc, Condvar, Duration, Foreign, Instant, Mutex, Rank,
};

/// Something that lives as long as somebody wants a promise's value.
pub(crate) trait Attachment: Send + Sync {}
impl<T: Send + Sync> Attachment for T {}

/// Where a promise's value arrives.
pub(crate) struct Cell<T> {
    state: Mutex<CellState<T>>,
    changed: Condvar,
}

/// What a promise's cell is in: a cell of its own, or what else there is of a call. So a call takes one allocation.
pub(crate) trait HoldsCell<T>: Send + Sync {
    fn cell(&self) -> &Cell<T>;
}

/// ```text
///             settle                take
///  Pending ------------> Settled --------> Taken
///     | on_ready                             ^
///     '-----------> Called ------------------'
///                            settle (runs the callback)
/// ```
enum CellState<T> {
    Pending(Option<Waiting>),
    Called(Callback<T>),
    Settled(Result<T, Exception>),
    Taken,
}

/// Who waits for a promise.
enum Waiting {
    Task(Waker),
    Thread(Arc<Sleeper>),
    /// A thread that reads meanwhile.
    Reader(Option<Arc<Sleeper>>, Arc<dyn Interrupt>),
}

type Callback<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// A promise and the right to settle it.
pub(crate) fn promise<T: Send + 'static>() -> (Promise<T>, Fulfiller<T>) {
    let cell = Arc::new(OwnCell(Cell::new()));
    (Promise::new(cell.clone(), None), Fulfiller { cell: Some(cell) })
}

/// A promise's cell that is not part of anything else. Its value may be a user's.
struct OwnCell<T: Send + 'static>(Cell<T>);

impl<T: Send> HoldsCell<T> for OwnCell<T> {
    fn cell(&self) -> &Cell<T> {
        &self.0
    }
}

impl<T: Send + 'static> Drop for OwnCell<T> {
    fn drop(&mut self) {
        if let Some(Ok(value)) = take(self.0.state.get_mut()) {
            drop(Foreign::new(value));
        }
    }
}

/// A value that will come, or the reason why it won't. One thread waits for it, takes it, or registers for
/// it; dropping it says that nobody wants it, which cancels the call behind it.
///
/// It is a [`Future`] too: async code can await it on any executor. Whichever task has polled it last is woken. Polled
/// again after it has given its value, it panics.
#[must_use = "dropping a promise cancels the call that it stands for"]
pub struct Promise<T> {
    holder: Arc<dyn HoldsCell<T>>,
    attached: Vec<Box<dyn Attachment>>,
    /// Where the value comes from; kept as what is attached is.
    reading: Option<Interest<dyn Reading>>,
}

impl<T> Promise<T> {
    /// A promise for what arrives in a cell. Whoever waits for it may read where that comes from.
    pub(crate) fn new(holder: Arc<dyn HoldsCell<T>>, reading: Option<Interest<dyn Reading>>) -> Self {
        Promise { holder, attached: Vec::new(), reading }
    }

    fn cell(&self) -> &Cell<T> {
        self.holder.cell()
    }
}

impl<T: Send + 'static> Promise<T> {
    /// Waits for the value.
    ///
    /// # Blocking
    /// Until the value is there, the call has failed (the end of the connection fails it), or the method that
    /// this thread runs was itself canceled. May be called inside a method; other objects go on meanwhile.
    ///
    /// # Errors
    /// Why the call failed; that the method that waits was canceled; that this is one of a connection's own
    /// threads (a callback), where nothing may wait; that a bounded pool has no thread left.
    pub fn wait(self) -> Result<T> {
        self.wait_for(None).map_err(|why| {
            why.into_failed().unwrap_or_else(|| unreachable!("a wait without a deadline ends with a value"))
        })
    }

    /// Waits for the value for at most `timeout`.
    ///
    /// # Blocking
    /// As [`wait`](Self::wait).
    ///
    /// # Errors
    /// [`WaitError::Pending`] with the promise if the value has not come by then. Else as [`wait`](Self::wait).
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, WaitError<Self>> {
        self.wait_until(sync::deadline(timeout))
    }

    /// Waits for the value until `deadline`.
    ///
    /// # Blocking
    /// As [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_until(self, deadline: Instant) -> Result<T, WaitError<Self>> {
        self.wait_for(Some(deadline))
    }

    /// The value if it is there. Never waits.
    ///
    /// # Errors
    /// [`WaitError::Pending`] with the promise if the value is not there. Else why the call failed.
    pub fn try_take(self) -> Result<T, WaitError<Self>> {
        let taken = take(&mut self.cell().state.lock());
        match taken {
            Some(result) => result.map_err(WaitError::Failed),
            None => Err(WaitError::Pending(self)),
        }
    }

    /// Whether the value is there.
    pub fn is_ready(&self) -> bool {
        matches!(*self.cell().state.lock(), CellState::Settled(_))
    }

    /// Has `callback` called with the value; at once, on this thread, if it is there already. The call is no
    /// longer canceled by dropping anything.
    ///
    /// The callback runs on the thread that brings the value. For a call over a connection that is one of the
    /// connection's own, or one that reads in its place while it waits: calls may be made there (they are queued),
    /// waits for promises fail. For one to an object of this process it is the thread that answers, where calls may
    /// block and waits are not refused; but the object answers no other call meanwhile, so a wait for it would be one
    /// for itself. So the callback must be short, and must not wait. Where a callback leads to the next in a long chain,
    /// they are called one after the other. A panic ends the callback alone, and is logged.
    pub fn on_ready(self, callback: impl FnOnce(Result<T>) + Send + 'static) {
        let Promise { holder, attached, reading } = self;
        let mut state = holder.cell().state.lock();
        if let Some(result) = take(&mut state) {
            drop(state);
            return call(callback, result);
        }
        let called = CellState::Called(Box::new(move |result| {
            drop((attached, reading));
            callback(result);
        }));
        let before = mem::replace(&mut *state, called);
        drop(state);
        drop(before);
    }

    /// The promise as a channel, for `crossbeam_channel::select!`. The call goes on if the channel is dropped.
    pub fn into_channel(self) -> Receiver<Result<T>> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        // Whoever has the channel may have gone already.
        let send = move |result| drop(sender.send(result));
        match self.try_take() {
            // At once, however deep this is in other callbacks: this thread may be about to wait at the channel.
            Ok(value) => send(Ok(value)),
            Err(WaitError::Failed(why)) => send(Err(why)),
            Err(WaitError::Pending(promise)) => promise.on_ready(send),
        }
        receiver
    }

    /// A promise for what `f` makes of the value. `f` runs where [`on_ready`](Self::on_ready)'s callback does; if it
    /// panics, the new promise fails, and says so. Dropping the new promise cancels as dropping this one would have.
    pub fn map<U: Send + 'static>(mut self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Promise<U> {
        let (mut mapped, fulfiller) = promise();
        mapped.attached = mem::take(&mut self.attached);
        mapped.reading = self.reading.take();
        self.on_ready(move |result| {
            let outcome = catch_panic("the function given to `map`", || result.and_then(f));
            fulfiller.settle_with(outcome.map_err(Exception::from));
        });
        mapped
    }

    /// Keeps `attachment` until the promise is settled and taken, or dropped.
    pub(crate) fn attach(mut self, attachment: impl Attachment + 'static) -> Self {
        self.attached.push(Box::new(attachment));
        self
    }

    /// Where the value is read from.
    pub(crate) fn reading(&self) -> Option<Interest<dyn Reading>> {
        self.reading.clone()
    }

    fn wait_for(self, deadline: Option<Instant>) -> Result<T, WaitError<Self>> {
        assert_unlocked();
        let mut state = self.cell().state.lock();
        let mut settled = take(&mut state);
        let _in_wait = if settled.is_none() && sync::is_in_turn() {
            drop(state);
            let in_wait = match enter_wait() {
                Ok(in_wait) => in_wait,
                Err(why) => return Err(WaitError::Failed(why.into())),
            };
            state = self.cell().state.lock();
            settled = take(&mut state);
            in_wait
        } else {
            None
        };
        if let Some(result) = settled {
            return result.map_err(WaitError::Failed);
        }
        // Under the lock: whoever settles the promise finds who has been counted as asleep.
        let current = cancel::current();
        let (asleep, _watch) = match self.fall_asleep(current.as_ref()) {
            Ok(asleep) => asleep,
            Err(why) => return Err(WaitError::Failed(why.into())),
        };
        let before = wake_with(&mut state, asleep.sleeper().map(Waiting::Thread));
        drop(state);
        drop(before);
        let awaiting =
            CellWaiter { cell: self.cell(), call: current.as_ref(), deadline, sleeper: asleep.sleeper() };
        if let Some(reading) = &self.reading {
            reading.read_for(&awaiting);
        }
        awaiting.sleep_on();
        if let Some(result) = take(&mut self.cell().state.lock()) {
            return result.map_err(WaitError::Failed);
        }
        if current.as_ref().is_some_and(Cancel::is_canceled) {
            return Err(WaitError::Failed(canceled().into()));
        }
        Err(WaitError::Pending(self))
    }

    /// Asks whether this thread may sleep. It wakes if `call`, whose method it runs, is canceled.
    fn fall_asleep(&self, call: Option<&Cancel>) -> Result<(Asleep, Option<Unwatch>), Exception> {
        let Some(call) = call else { return Ok((enter_blocking()?, None)) };
        let (asleep, watch) = call.enter_blocking(|asleep| {
            let (holder, sleeper) = (self.holder.clone(), asleep.sleeper());
            move || {
                if let Some(sleeper) = sleeper {
                    sleeper.woken();
                }
                let cell = holder.cell();
                // Under the lock, so that the waiter is either asleep or has yet to look.
                let reader = match &*cell.state.lock() {
                    CellState::Pending(Some(Waiting::Reader(_, reader))) => Some(reader.clone()),
                    _ => None,
                };
                cell.changed.notify_all();
                if let Some(reader) = reader {
                    reader.interrupt();
                }
            }
        })?;
        Ok((asleep, Some(watch)))
    }
}

/// A wait for a promise, by a thread that reads meanwhile.
struct CellWaiter<'a, T> {
    cell: &'a Cell<T>,
    /// The call whose method it is that waits.
    call: Option<&'a Cancel>,
    deadline: Option<Instant>,
    sleeper: Option<Arc<Sleeper>>,
}

impl<T> CellWaiter<'_, T> {
    fn pends(&self, state: &CellState<T>) -> bool {
        matches!(state, CellState::Pending(_)) && !self.call.is_some_and(Cancel::is_canceled)
    }
}

impl<T> Waiter for CellWaiter<'_, T> {
    fn waits(&self) -> bool {
        self.pends(&self.cell.state.lock()) && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    fn sleep_on(&self) {
        let mut state = self.cell.state.lock();
        while self.pends(&state) && !self.cell.changed.wait_until(&mut state, self.deadline) {}
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn interrupts(&self, reader: Arc<dyn Interrupt>) {
        let waiting = Waiting::Reader(self.sleeper.clone(), reader);
        let before = wake_with(&mut self.cell.state.lock(), Some(waiting));
        drop(before);
    }
}

/// Has `waiter` woken when the promise is settled. Gives who was to be woken before, to be dropped outside the lock.
fn wake_with<T>(state: &mut CellState<T>, mut waiter: Option<Waiting>) -> Option<Waiting> {
    if let CellState::Pending(known) = state {
        mem::swap(known, &mut waiter);
    }
    waiter
}

/// Calls a callback with what has come.
fn call<T: Send + 'static>(callback: impl FnOnce(Result<T>) + 'static, result: Result<T>) {
    in_turn(move || foreign("a callback of a promise", || callback(result)));
}

fn take<T>(state: &mut CellState<T>) -> Option<Result<T>> {
    match mem::replace(state, CellState::Taken) {
        CellState::Settled(result) => Some(result.map_err(Error::from)),
        other => {
            *state = other;
            None
        }
    }
}

impl<T: Send + 'static> Future for Promise<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloning and dropping a waker is foreign code: outside the lock.
        let waiter = Some(Waiting::Task(cx.waker().clone()));
        let mut state = self.cell().state.lock();
        if let Some(result) = take(&mut state) {
            drop(state);
            return Poll::Ready(result);
        }
        let taken = matches!(*state, CellState::Taken);
        let before = wake_with(&mut state, waiter);
        drop(state);
        drop(before);
        assert!(!taken, "a promise was polled after it had given its value");
        Poll::Pending
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.cell().state.lock() {
            CellState::Pending(_) | CellState::Called(_) => "Promise(pending)",
            CellState::Settled(_) => "Promise(settled)",
            CellState::Taken => "Promise(taken)",
        })
    }
}

/// The right to settle a [`Promise`], once. Dropped unused, it breaks the promise.
pub(crate) struct Fulfiller<T: Send + 'static> {
    cell: Option<Arc<OwnCell<T>>>,
}

impl<T: Send> Fulfiller<T> {
    /// Whether the promise is there.
    pub(crate) fn is_awaited(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| Arc::strong_count(cell) > 1)
    }

    /// Gives the promise its value.
    pub(crate) fn fulfill(self, value: T) {
        self.settle_with(Ok(value));
    }

    /// Gives the promise its value, or breaks it.
    fn settle_with(mut self, result: Result<T, Exception>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<T, Exception>) {
        let Some(cell) = self.cell.take() else { return };
        cell.0.settle(result);
    }
}

impl<T: Send + 'static> Cell<T> {
    pub(crate) fn new() -> Self {
        Cell { state: Mutex::new(Rank::Promise, CellState::Pending(None)), changed: Condvar::new() }
    }

    /// Nobody wants the value any more. Who has registered for it is told why; what has come is dropped.
    pub(crate) fn abandon(&self, why: impl FnOnce() -> Exception) {
        let mut state = self.state.lock();
        let settled = take(&mut state);
        let taken = matches!(*state, CellState::Taken);
        drop(state);
        drop(settled);
        if !taken {
            self.settle(Err(why()));
            let settled = take(&mut self.state.lock());
            drop(settled);
        }
    }

    /// The first to settle wins. What runs here (a callback, a waker) is foreign: no lock may be held.
    pub(crate) fn settle(&self, result: Result<T, Exception>) {
        assert_unlocked();
        let mut state = self.state.lock();
        match mem::replace(&mut *state, CellState::Taken) {
            CellState::Pending(waiter) => {
                *state = CellState::Settled(result);
                if let Some(Waiting::Thread(sleeper) | Waiting::Reader(Some(sleeper), _)) = &waiter {
                    sleeper.woken();
                }
                drop(state);
                self.changed.notify_all();
                match waiter {
                    Some(Waiting::Task(waker)) => in_turn(|| foreign("a waker", || waker.wake())),
                    Some(Waiting::Reader(_, reader)) => reader.interrupt(),
                    Some(Waiting::Thread(_)) | None => {}
                }
            }
            CellState::Called(callback) => {
                drop(state);
                call(callback, result.map_err(Error::from));
            }
            settled @ CellState::Settled(_) => *state = settled,
            CellState::Taken => {}
        }
    }
}

impl<T: Send> Drop for Fulfiller<T> {
    fn drop(&mut self) {
        if self.cell.is_some() {
            self.settle(Err(Exception::failed("the promise was dropped by the side that was to fulfill it")));
        }
    }
}

impl<T: Send> fmt::Debug for Fulfiller<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fulfiller")
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::sync::{enter_role, spawn, Role};

    #[test]
    fn waits_across_threads() {
        let (p, f) = promise();
        let t = spawn("fulfiller", Role::User, move || f.fulfill(7)).unwrap();
        assert_eq!(p.wait().unwrap(), 7);
        t.join().unwrap();
    }

    #[test]
    fn a_deadline_gives_the_promise_back() {
        let (p, f) = promise();
        let p = p.wait_until(Instant::now()).unwrap_err().into_pending().unwrap();
        let p = p.try_take().unwrap_err().into_pending().unwrap();
        f.fulfill(1);
        assert_eq!(p.try_take().unwrap(), 1);
    }

    /// Nobody would ever wake whoever polls it.
    #[test]
    #[should_panic(expected = "polled after it had given its value")]
    fn polling_a_promise_that_has_given_its_value_panics() {
        let (mut p, f) = promise();
        f.fulfill(7);
        let mut poll = || Pin::new(&mut p).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll(), Poll::Ready(Ok(7))));
        let _ = poll();
    }

    #[test]
    fn a_dropped_fulfiller_breaks_the_promise() {
        let (p, f) = promise::<()>();
        drop(f);
        assert!(p.wait().unwrap_err().to_string().contains("dropped"));
    }

    #[test]
    fn waiting_on_a_connections_thread_is_refused() {
        let (p, _f) = promise::<()>();
        let _role = enter_role(Role::Connection);
        assert!(p.wait().unwrap_err().to_string().contains("own thread"));
    }

    #[test]
    fn a_canceled_method_stops_waiting() {
        let cancel = Cancel::new();
        let (p, _f) = promise::<()>();
        cancel.start();
        let c = cancel.clone();
        let t = spawn("canceler", Role::User, move || c.cancel(false)).unwrap();
        let got = cancel::with_current(cancel, || p.wait());
        assert!(got.unwrap_err().to_string().contains("canceled"));
        t.join().unwrap();
    }

    #[test]
    fn callbacks_channels_and_maps() {
        let (p, f) = promise();
        let r = p.map(|n: u32| Ok(n + 1)).into_channel();
        f.fulfill(1);
        assert_eq!(r.recv().unwrap().unwrap(), 2);
        let (p, f) = promise::<u32>();
        f.settle_with(Err(Exception::overloaded("x")));
        let r = p.into_channel();
        assert_eq!(r.recv().unwrap().unwrap_err().kind(), crate::error::ExceptionKind::Overloaded);
    }

    #[test]
    fn doomed_calls_are_canceled_when_they_start() {
        let c = Cancel::new();
        c.cancel(true);
        assert!(!c.is_canceled());
        c.start();
        assert!(c.is_canceled());
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
