//! Streaming calls: many in flight, as many as a window allows.

use std::fmt;
use std::mem;

use capnp::any_pointer;
use capnp::traits::{Owned, SetterInput};
use capnp::MessageSize;

use super::request::{Filled, Request};
use crate::error::{Exception, Result};
use crate::promise::{
    cancel, enter_blocking, enter_wait, Cancel, Interrupt, Reading, Sleeper, Stake, Waiter,
};
use crate::sync::{Arc, Condvar, Duration, Instant, Mutex, Rank};

/// How many bytes of streaming calls are in flight by default: 1 MiB, about what the C++ implementation has on a
/// connection of TCP (there it is the size of the socket's buffer). A smaller window than what the callee can work
/// off while an answer is on its way makes sender and callee wait for each other by turns: see the guide.
pub const DEFAULT_WINDOW: usize = 1 << 20;

/// A window for streaming calls, mostly on one object: each call is sent ahead of the answers to those before
/// it, until more bytes of params are unanswered than the window has; then sending blocks.
///
/// The first failure is reported by the next [`send`](Self::send) and by [`finish`](Self::finish). Streaming
/// and other calls on the same client arrive in the order made. Any thread can share a stream.
pub struct Stream {
    window: usize,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Flow>,
    changed: Condvar,
}

struct Flow {
    /// Bytes sent and not answered.
    in_flight: usize,
    /// The largest call so far, which the window is widened by, as in C++: else calls of its size would go one
    /// by one.
    largest: usize,
    calls: usize,
    failed: Option<Exception>,
    /// Threads that wait and have not got what they want.
    waiting: Vec<Waiting>,
    next_waiting: u64,
    /// Where the answer to the last call comes from, while any is to come. Whoever waits may read there.
    reading: Option<Stake<dyn Reading>>,
}

/// A thread that waits.
struct Waiting {
    number: u64,
    wanted: Wanted,
    /// For threads of pools.
    sleeper: Option<Arc<Sleeper>>,
    /// If it reads meanwhile.
    reader: Option<Arc<dyn Interrupt>>,
}

/// What a thread waits for.
#[derive(Clone, Copy)]
enum Wanted {
    /// Room for one more call in a window of so many bytes.
    Room(usize),
    /// The answers to all calls.
    Answers,
}

impl Flow {
    /// Whether a thread has what it wants: nothing is sent after a failure.
    fn has(&self, wanted: Wanted) -> bool {
        let room = |window: usize| self.in_flight <= window.saturating_add(self.largest);
        match wanted {
            _ if self.failed.is_some() || self.calls == 0 => true,
            Wanted::Room(window) => room(window),
            Wanted::Answers => false,
        }
    }

    fn outcome(&self) -> Result<()> {
        match &self.failed {
            Some(why) => Err(why.clone().into()),
            None => Ok(()),
        }
    }

    /// No longer waits for whoever is `gone`. They count as awake, and are to be woken when the lock has been released.
    fn wake(&mut self, gone: impl Fn(&Flow, &Waiting) -> bool) -> Vec<Waiting> {
        let (woken, waiting) = mem::take(&mut self.waiting).into_iter().partition(|each| gone(self, each));
        self.waiting = waiting;
        for Waiting { sleeper, .. } in &woken {
            sleeper.iter().for_each(|sleeper| sleeper.woken());
        }
        woken
    }

    fn waits(&self, number: u64) -> bool {
        self.waiting.iter().any(|each| each.number == number)
    }
}

impl Shared {
    /// Wakes those who are `gone`, after what `change` does.
    fn change<R>(&self, change: impl FnOnce(&mut Flow) -> R, gone: impl Fn(&Flow, &Waiting) -> bool) -> R {
        let mut flow = self.state.lock();
        let changed = change(&mut flow);
        let woken = flow.wake(gone);
        drop(flow);
        // Who reads may have given that up by now, and sleep.
        if !woken.is_empty() {
            self.changed.notify_all();
        }
        woken.into_iter().filter_map(|each| each.reader).for_each(|reader| reader.interrupt());
        changed
    }
}

impl Stream {
    /// A stream with the default window.
    pub fn new() -> Self {
        Self::with_window(DEFAULT_WINDOW)
    }

    /// A stream with a window of `bytes`, and the size of the largest call more. One call is always let through,
    /// however large.
    pub fn with_window(bytes: usize) -> Self {
        let state = Flow {
            in_flight: 0,
            largest: 0,
            calls: 0,
            failed: None,
            waiting: Vec::new(),
            next_waiting: 0,
            reading: None,
        };
        let shared = Shared { state: Mutex::new(Rank::Promise, state), changed: Condvar::new() };
        Stream { window: bytes, shared: Arc::new(shared) }
    }

    /// Sends a streaming call.
    ///
    /// # Blocking
    /// While the window is full, until answers have made room; the end of the connection ends the wait. And
    /// as [`Request::send`].
    ///
    /// # Errors
    /// The first failure of an earlier call of this stream; the request is not sent then. As
    /// [`Promise::wait`](crate::Promise::wait) if the wait itself fails.
    pub fn send<P, R: 'static>(&self, mut request: Request<P, R>) -> Result<()> {
        let bytes = request.size();
        self.wait(Wanted::Room(self.window))?;
        let mut flow = self.shared.state.lock();
        flow.in_flight += bytes;
        flow.largest = flow.largest.max(bytes);
        flow.calls += 1;
        drop(flow);
        let shared = self.shared.clone();
        let promise = request.no_pipelining().send();
        let before = mem::replace(&mut self.shared.state.lock().reading, promise.reading());
        drop(before);
        promise.on_ready(move |outcome| {
            let answered = |flow: &mut Flow| {
                flow.in_flight -= bytes;
                flow.calls -= 1;
                if let Err(e) = outcome {
                    flow.failed.get_or_insert(e.into());
                }
                if flow.calls == 0 {
                    flow.reading.take()
                } else {
                    None
                }
            };
            drop(shared.change(answered, |flow, each| flow.has(each.wanted)));
        });
        Ok(())
    }

    /// Waits until every call sent so far has been answered.
    ///
    /// # Blocking
    /// Until then, or until the connection has ended.
    ///
    /// # Errors
    /// The first failure of a call of this stream, which stays: a stream that failed has failed.
    pub fn finish(&self) -> Result<()> {
        self.wait(Wanted::Answers)
    }

    fn wait(&self, wanted: Wanted) -> Result<()> {
        let current = cancel::current();
        let mut in_wait = None;
        loop {
            let mut flow = self.shared.state.lock();
            if flow.has(wanted) {
                return flow.outcome();
            }
            if in_wait.is_none() {
                drop(flow);
                in_wait = Some(enter_wait()?);
                continue;
            }
            if current.as_ref().is_some_and(Cancel::is_canceled) {
                return Err(cancel::canceled().into());
            }
            // Under the lock: whoever brings an answer finds who has been counted as asleep.
            let asleep = enter_blocking()?;
            let number = flow.next_waiting;
            flow.next_waiting += 1;
            flow.waiting.push(Waiting { number, wanted, sleeper: asleep.sleeper(), reader: None });
            let reading = flow.reading.clone();
            drop(flow);
            self.wait_as(number, reading, current.as_ref());
            // Another thread may have taken what this one was woken for.
        }
    }

    /// Waits, counted as asleep, until there was what is wanted, or the method that waits was canceled.
    fn wait_as(&self, number: u64, reading: Option<Stake<dyn Reading>>, current: Option<&Cancel>) {
        let _watch = current.map(|c| {
            let shared = self.shared.clone();
            c.watch_while(move || shared.change(|_| (), |_, each| each.number == number))
        });
        let waits = Waits { shared: &self.shared, number };
        if let Some(reading) = reading {
            reading.read_for(&waits);
        }
        waits.sleep_on();
    }
}

/// A wait for answers, by a thread that reads meanwhile.
struct Waits<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Waiter for Waits<'_> {
    fn waits(&self) -> bool {
        self.shared.state.lock().waits(self.number)
    }

    fn sleep_on(&self) {
        let mut flow = self.shared.state.lock();
        while flow.waits(self.number) {
            self.shared.changed.wait(&mut flow);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn interrupts(&self, reader: Arc<dyn Interrupt>) {
        let mut flow = self.shared.state.lock();
        if let Some(each) = flow.waiting.iter_mut().find(|each| each.number == self.number) {
            each.reader = Some(reader);
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.shared.state.lock();
        write!(f, "Stream({} calls, {} bytes of {})", flow.calls, flow.in_flight, self.window)
    }
}

/// A call of a streaming method that has not been sent: fill in the params, then [`send`](Self::send).
pub struct StreamingRequest<P = any_pointer::Owned>(Request<P, ()>);

impl<P> StreamingRequest<P> {
    /// Sends the call within `stream`'s window: [`Stream::send`].
    ///
    /// # Blocking
    /// As there.
    ///
    /// # Errors
    /// As there.
    pub fn send(self, stream: &Stream) -> Result<()> {
        stream.send(self.0)
    }

    /// Has the call fail as `overloaded` unless it is answered in time: [`Request::timeout`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        StreamingRequest(self.0.timeout(timeout))
    }
}

impl<P: Owned> StreamingRequest<P> {
    /// The params, to be filled in.
    pub fn get(&mut self) -> P::Builder<'_> {
        self.0.get()
    }

    /// As [`get`](Self::get), with a hint of their size: [`Request::get_sized`].
    pub fn get_sized(&mut self, size_hint: MessageSize) -> P::Builder<'_> {
        self.0.get_sized(size_hint)
    }

    /// Copies the params from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set(&mut self, params: impl SetterInput<P>) -> Result<()> {
        self.0.set(params)
    }

    /// Fills the params in with `fill`, and sends the call: [`send`](Self::send).
    ///
    /// # Blocking
    /// As there.
    ///
    /// # Errors
    /// As there, and those of `fill`.
    pub fn send_with<F: Filled>(
        mut self,
        stream: &Stream,
        fill: impl FnOnce(P::Builder<'_>) -> F,
    ) -> Result<()> {
        fill(self.get()).into_result()?;
        self.send(stream)
    }
}

impl<P> From<Request<P, ()>> for StreamingRequest<P> {
    fn from(request: Request<P, ()>) -> Self {
        StreamingRequest(request)
    }
}

impl<P> fmt::Debug for StreamingRequest<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, spawn, Role};

    struct NobodyReads;

    impl Interrupt for NobodyReads {
        fn interrupt(&self) {}
    }

    /// Whoever brings the answer takes it for a thread that reads, but it has given that up.
    #[test]
    fn loom_who_has_stopped_reading_is_woken() {
        check_all(|| {
            let shared = Stream::new().shared;
            let reader = Some(Arc::new(NobodyReads) as Arc<dyn Interrupt>);
            let waiting = Waiting { number: 0, wanted: Wanted::Answers, sleeper: None, reader };
            let mut flow = shared.state.lock();
            flow.calls = 1;
            flow.waiting.push(waiting);
            drop(flow);
            let waits = shared.clone();
            let waiter =
                spawn("waiter", Role::User, move || Waits { shared: &waits, number: 0 }.sleep_on()).unwrap();
            shared.change(|flow| flow.calls = 0, |flow, each| flow.has(each.wanted));
            waiter.join().unwrap();
        });
    }
}
