//! How much of a stream is under way, and the line of threads that wait for room, or for the answers.
//!
//! ```text
//! Note [Room in a stream]
//! =======================
//! A sender that finds room in the window, and no other sender in line, takes a place and sends its call. Else it goes to
//! the end of the line. The thread that brings an answer gives the place that this has freed to the first sender in line,
//! or to as many as there is room for, and wakes those threads only. A place counts as taken from then on.
//!
//!            enter                 grant
//!   sender ---------> in line ---------------> has a place, and sends
//!                        | the stream has failed, canceled, too late
//!                        '---------------------------------------> gone
//!
//! All of this is done under the lock of the window. How a wait ends is decided once, by the thread that takes the sender
//! out of the line. So a sender that is canceled or too late after it was granted a place has the place, and uses it.
//!
//! If a sender has waited for the whole of its room timeout, and no place was granted meanwhile, the line is stalled: a
//! sender that comes then takes a place or is refused at once, until half of the window is free. So a peer that answers
//! nothing stops one thread for that time, once. It is the rule of Note [Room for callers].
//!
//! Threads that wait for all answers (`finish`) stand in the same line. They are woken when none is outstanding, before
//! the places that are free then are granted: what they wait for has been sent.
//! ```

use std::collections::VecDeque;

use super::request::deadline_passed;
use crate::error::{Exception, Result};
use crate::promise::{
    cancel, enter_blocking, enter_wait, Cancel, Interest, Interrupt, Reading, Sleeper, Waiter,
};
use crate::sync::{deadline, Arc, Condvar, Duration, Instant, Mutex, MutexGuard, OnceLock, Rank};

/// The window of a stream. See Note [Room in a stream].
pub(super) struct Window {
    bytes: usize,
    state: Mutex<WindowState>,
}

#[derive(Default)]
struct WindowState {
    /// Bytes of params of the calls that have a place.
    in_flight: usize,
    /// The largest call so far, which the window is widened by, as in C++: else calls of its size would go one
    /// by one.
    largest: usize,
    /// Calls that have a place: sent and not answered, or about to be sent.
    calls: usize,
    failed: Option<Exception>,
    line: VecDeque<Waiting>,
    next_number: u64,
    /// How many places have been granted in all.
    grants: u64,
    stalled: bool,
    /// Where the answer to the last call comes from, while any is to come. A thread that waits may read there.
    reading: Option<Interest<dyn Reading>>,
}

/// A thread in line. Numbers rise from the front to the end.
struct Waiting {
    number: u64,
    wanted: Wanted,
    wake_up: Arc<WakeUp>,
    /// For threads of pools.
    sleeper: Option<Arc<Sleeper>>,
    /// If it reads meanwhile.
    reader: Option<Arc<dyn Interrupt>>,
}

/// What a thread in line sleeps at.
struct WakeUp {
    changed: Condvar,
    /// Set under the lock of the window.
    end: OnceLock<End>,
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// A place for a call of so many bytes.
    Place(usize),
    /// The answers to all calls.
    Answers,
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The place is taken, or all calls have been answered.
    Found,
    Failed,
    Canceled,
    Late,
}

/// For how long a sender waits for a place.
#[derive(Clone, Copy, Default)]
pub(super) struct Patience {
    /// The deadline of its call.
    pub(super) deadline: Option<Instant>,
    /// The longest that any sender waits.
    pub(super) room_timeout: Option<Duration>,
}

impl WindowState {
    fn has_room(&self, window: usize) -> bool {
        self.calls == 0 || self.in_flight <= window.saturating_add(self.largest)
    }

    /// Whether senders may wait again, if the line was stalled.
    fn moves(&self, window: usize) -> bool {
        self.calls == 0 || self.in_flight <= window / 2
    }

    fn take_place(&mut self, bytes: usize) {
        self.in_flight += bytes;
        self.largest = self.largest.max(bytes);
        self.calls += 1;
    }

    fn senders_wait(&self) -> bool {
        self.line.iter().any(|each| each.wanted != Wanted::Answers)
    }

    /// What a thread wants, if it need not wait for that. Nothing is sent after a failure.
    fn find(&mut self, wanted: Wanted, window: usize) -> Option<Result<(), Exception>> {
        if let Some(why) = &self.failed {
            return Some(Err(why.clone()));
        }
        match wanted {
            Wanted::Place(bytes) if self.has_room(window) && !self.senders_wait() => self.take_place(bytes),
            Wanted::Answers if self.calls == 0 => {}
            _ => return None,
        }
        Some(Ok(()))
    }

    fn enter(&mut self, wanted: Wanted, sleeper: Option<Arc<Sleeper>>) -> (u64, Arc<WakeUp>) {
        let wake_up = Arc::new(WakeUp { changed: Condvar::new(), end: OnceLock::new() });
        let number = self.next_number;
        self.next_number += 1;
        self.line.push_back(Waiting { number, wanted, wake_up: wake_up.clone(), sleeper, reader: None });
        (number, wake_up)
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.line.binary_search_by_key(&number, |each| each.number).ok()
    }

    /// Ends the wait of the thread at this position, which counts as awake from now on.
    fn end(&mut self, position: usize, end: End, woken: &mut Vec<Waiting>) {
        let Some(waiting) = self.line.remove(position) else { return };
        let ended = waiting.wake_up.end.set(end);
        debug_assert!(ended.is_ok(), "a wait ends once");
        waiting.sleeper.iter().for_each(|sleeper| sleeper.woken());
        waiting.wake_up.changed.notify_one();
        woken.push(waiting);
    }

    /// Ends the waits of those that have what they want now.
    fn grant(&mut self, window: usize, woken: &mut Vec<Waiting>) {
        while self.failed.is_some() && !self.line.is_empty() {
            self.end(0, End::Failed, woken);
        }
        while self.calls == 0 {
            let Some(at) = self.line.iter().position(|each| each.wanted == Wanted::Answers) else { break };
            self.end(at, End::Found, woken);
        }
        self.stalled &= !self.moves(window);
        while self.has_room(window) {
            let next = self.line.iter().enumerate().find_map(|(at, each)| match each.wanted {
                Wanted::Place(bytes) => Some((at, bytes)),
                Wanted::Answers => None,
            });
            let Some((at, bytes)) = next else { break };
            self.grants += 1;
            self.take_place(bytes);
            self.end(at, End::Found, woken);
        }
    }
}

impl Window {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Window { bytes, state: Mutex::new(Rank::Promise, WindowState::default()) })
    }

    /// Takes a place for a call of so many bytes, waiting for it. The call must be sent then, and its answer told with
    /// [`answered`](Self::answered).
    pub(super) fn take_place(self: &Arc<Self>, bytes: usize, patience: Patience) -> Result<()> {
        let wanted = Wanted::Place(bytes);
        let Patience { deadline: own, room_timeout } = patience;
        let begin = |state: &WindowState| match state.stalled {
            true => Err(self.no_room(state, room_timeout)),
            false => Ok(state.grants),
        };
        let Some((grants, until, end)) =
            self.wait(wanted, begin, || own.into_iter().chain(room_timeout.map(deadline)).min())?
        else {
            return Ok(());
        };
        match end {
            End::Late if own.is_some() && own == until => Err(deadline_passed().into()),
            End::Late => {
                let mut state = self.state.lock();
                state.stalled |= state.grants == grants && !state.has_room(self.bytes);
                Err(self.no_room(&state, room_timeout).into())
            }
            end => self.outcome(end),
        }
    }

    /// Waits until all calls have been answered, or until the time has passed.
    pub(super) fn wait_answers(self: &Arc<Self>, timeout: Option<Duration>) -> Result<()> {
        match self.wait(Wanted::Answers, |_| Ok(()), || timeout.map(deadline))? {
            None => Ok(()),
            Some((_, _, End::Late)) => {
                let calls = self.state.lock().calls;
                let time = timeout.unwrap_or_default();
                let why = format!("{calls} streaming calls have not been answered in {time:?}");
                Err(Exception::timed_out(why).into())
            }
            Some((_, _, end)) => self.outcome(end),
        }
    }

    fn outcome(&self, end: End) -> Result<()> {
        match end {
            End::Found => Ok(()),
            End::Canceled => Err(cancel::canceled().into()),
            End::Failed | End::Late => match &self.state.lock().failed {
                Some(why) => Err(why.clone().into()),
                None => unreachable!("a wait fails because the stream has"),
            },
        }
    }

    /// The last call has been sent: its answer is read there.
    pub(super) fn reads(&self, reading: Option<Interest<dyn Reading>>) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.reading, reading);
        drop(state);
        drop(before);
    }

    /// A call of so many bytes has been answered.
    pub(super) fn answered(&self, bytes: usize, outcome: Result<(), Exception>) {
        let mut state = self.state.lock();
        state.in_flight -= bytes;
        state.calls -= 1;
        let late = match outcome {
            Err(why) if state.failed.is_none() => state.failed.replace(why),
            other => other.err(),
        };
        let mut woken = Vec::new();
        state.grant(self.bytes, &mut woken);
        let reading = if state.calls == 0 { state.reading.take() } else { None };
        wake(state, woken);
        drop((reading, late));
    }

    fn cancel(&self, number: u64) {
        let (mut state, mut woken) = (self.state.lock(), Vec::new());
        if let Some(at) = state.position(number) {
            state.end(at, End::Canceled, &mut woken);
        }
        wake(state, woken);
    }

    /// Waits for what is wanted. `None` if that was there; else what `begin` found, until when it waited, and how the
    /// wait ended.
    fn wait<B>(
        self: &Arc<Self>,
        wanted: Wanted,
        begin: impl Fn(&WindowState) -> Result<B, Exception>,
        until: impl Fn() -> Option<Instant>,
    ) -> Result<Option<(B, Option<Instant>, End)>> {
        let current = cancel::current();
        let mut in_wait = None;
        let (mut state, begun) = loop {
            let mut state = self.state.lock();
            if let Some(found) = state.find(wanted, self.bytes) {
                return Ok(found.map(|()| None)?);
            }
            let begun = begin(&state)?;
            if in_wait.is_some() {
                break (state, begun);
            }
            drop(state);
            in_wait = Some(enter_wait()?);
        };
        if current.as_ref().is_some_and(Cancel::is_canceled) {
            return Err(cancel::canceled().into());
        }
        // Under the lock: the thread that brings an answer finds the one that has been counted as asleep.
        let asleep = enter_blocking()?;
        let (number, wake_up) = state.enter(wanted, asleep.sleeper());
        let reading = state.reading.clone();
        drop(state);
        let _watch = current.map(|current| {
            let this = self.clone();
            current.watch_while(move || this.cancel(number))
        });
        let waits = Waits { window: self, number, wake_up, until: until() };
        if let Some(reading) = reading {
            reading.read_for(&waits);
        }
        let end = waits.end();
        Ok(Some((begun, waits.until, end)))
    }

    fn no_room(&self, state: &WindowState, room_timeout: Option<Duration>) -> Exception {
        let (window, WindowState { calls, in_flight, .. }) = (self.bytes, state);
        Exception::timed_out(format!(
            "no room in the window of a stream in {:?}: {calls} streaming calls of {in_flight} bytes have not been \
             answered, where {window} bytes may be under way",
            room_timeout.unwrap_or_default(),
        ))
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        write!(f, "Stream({} calls, {} bytes of {})", state.calls, state.in_flight, self.bytes)
    }
}

/// Releases the lock. Then has those that were woken look, if they read: what is to be called may be foreign.
fn wake(state: MutexGuard<'_, WindowState>, woken: Vec<Waiting>) {
    drop(state);
    // A thread that reads may have given that up by now, and sleep: it has been notified, too.
    woken.into_iter().filter_map(|each| each.reader).for_each(|reader| reader.interrupt());
}

/// A wait, by a thread that may read meanwhile.
struct Waits<'a> {
    window: &'a Window,
    number: u64,
    wake_up: Arc<WakeUp>,
    until: Option<Instant>,
}

impl Waits<'_> {
    /// Sleeps until the wait has ended, and says how.
    fn end(&self) -> End {
        let mut state = self.window.state.lock();
        let mut late = false;
        loop {
            if let Some(end) = self.wake_up.end.get() {
                return *end;
            }
            if late {
                let left = state.position(self.number).and_then(|at| state.line.remove(at));
                drop(state);
                drop(left);
                return End::Late;
            }
            late = self.wake_up.changed.wait_until(&mut state, self.until);
        }
    }
}

impl Waiter for Waits<'_> {
    fn waits(&self) -> bool {
        self.wake_up.end.get().is_none() && self.until.is_none_or(|until| Instant::now() < until)
    }

    fn sleep_on(&self) {
        let mut state = self.window.state.lock();
        while self.wake_up.end.get().is_none() && !self.wake_up.changed.wait_until(&mut state, self.until) {}
    }

    fn deadline(&self) -> Option<Instant> {
        self.until
    }

    fn interrupts(&self, reader: Arc<dyn Interrupt>) {
        let mut state = self.window.state.lock();
        if let Some(at) = state.position(self.number) {
            let before = state.line[at].reader.replace(reader);
            drop(state);
            drop(before);
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    const PATIENT: Patience = Patience { deadline: None, room_timeout: None };
    const HASTY: Patience = Patience { deadline: None, room_timeout: Some(Duration::ZERO) };

    fn enter(window: &Window, wanted: Wanted) -> Arc<WakeUp> {
        window.state.lock().enter(wanted, None).1
    }

    fn ended(waits: &[Arc<WakeUp>]) -> Vec<bool> {
        waits.iter().map(|wait| wait.end.get() == Some(&End::Found)).collect()
    }

    #[test]
    fn one_answer_wakes_one_sender_first_come_first() {
        let window = Window::new(0);
        (0..2).for_each(|_| window.take_place(10, PATIENT).unwrap());
        let senders = [0, 1, 2].map(|_| enter(&window, Wanted::Place(10)));
        for (n, wanted) in [[true, false, false], [true, true, false], [true; 3]].iter().enumerate() {
            window.answered(10, Ok(()));
            assert_eq!(ended(&senders), wanted, "after answer {n}");
            assert_eq!(window.state.lock().calls, 2, "a place counts as taken once it is granted");
        }
    }

    #[test]
    fn a_large_answer_makes_room_for_several() {
        let window = Window::new(0);
        window.take_place(100, PATIENT).unwrap();
        window.take_place(10, PATIENT).unwrap();
        let senders = [0, 1, 2].map(|_| enter(&window, Wanted::Place(40)));
        window.answered(100, Ok(()));
        assert_eq!(ended(&senders), [true; 3], "the window has the size of the largest call");
        assert_eq!(window.state.lock().in_flight, 130);
    }

    #[test]
    fn a_sender_does_not_overtake_those_in_line() {
        let window = Window::new(0);
        (0..2).for_each(|_| window.take_place(10, PATIENT).unwrap());
        let first = enter(&window, Wanted::Place(10));
        let mut state = window.state.lock();
        state.in_flight = 0;
        assert!(state.find(Wanted::Place(10), 0).is_none(), "it is behind the first in line");
        assert!(first.end.get().is_none());
    }

    #[test]
    fn those_that_wait_for_all_answers_are_woken_before_more_is_sent() {
        let window = Window::new(0);
        window.take_place(10, PATIENT).unwrap();
        window.state.lock().in_flight = 100;
        let (sends, finishes) = (enter(&window, Wanted::Place(10)), enter(&window, Wanted::Answers));
        window.state.lock().in_flight = 10;
        window.answered(10, Ok(()));
        assert_eq!(ended(&[sends, finishes]), [true, true]);
        assert_eq!(window.state.lock().calls, 1);
    }

    #[test]
    fn a_failure_ends_all_waits() {
        let window = Window::new(0);
        (0..2).for_each(|_| window.take_place(10, PATIENT).unwrap());
        let waits = [Wanted::Place(1), Wanted::Answers, Wanted::Place(1)].map(|each| enter(&window, each));
        window.answered(10, Err(Exception::failed("first")));
        assert!(waits.iter().all(|wait| wait.end.get() == Some(&End::Failed)));
        window.answered(10, Err(Exception::failed("second")));
        assert!(window.take_place(1, PATIENT).unwrap_err().to_string().contains("first"));
    }

    #[test]
    fn in_a_stalled_window_nobody_waits_until_half_of_it_is_free() {
        let window = Window::new(25);
        (0..4).for_each(|_| window.take_place(10, PATIENT).unwrap());
        let why = window.take_place(10, HASTY).unwrap_err().to_string();
        assert!(
            why.contains("no room in the window of a stream in 0ns: 4 streaming calls of 40 bytes"),
            "{why}"
        );
        // They would wait for ever if they waited. A peer that answers one call now and then makes nobody wait.
        for _ in 0..3 {
            window.take_place(10, PATIENT).unwrap_err();
            assert!(window.state.lock().line.is_empty());
            window.answered(10, Ok(()));
            window.take_place(10, PATIENT).unwrap();
        }
        (0..2).for_each(|_| window.answered(10, Ok(())));
        assert!(window.state.lock().stalled);
        window.answered(10, Ok(()));
        assert!(!window.state.lock().stalled);
    }

    #[test]
    fn a_call_whose_own_time_has_passed_stalls_nothing() {
        let window = Window::new(0);
        (0..2).for_each(|_| window.take_place(10, PATIENT).unwrap());
        let own = Patience { deadline: Some(Instant::now()), room_timeout: Some(Duration::MAX) };
        let why = window.take_place(10, own).unwrap_err();
        assert_eq!(why.to_string(), "overloaded: the call's deadline has passed");
        assert!(!window.state.lock().stalled);
    }
}

/// Every order of the threads' steps: no place is lost, and no thread waits while there is one.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{check_all, check_most, spawn, JoinHandle, Role};

    struct NobodyReads;

    impl Interrupt for NobodyReads {
        fn interrupt(&self) {}
    }

    const SIZE: usize = 1;

    /// A window in which there is no room: two calls are under way.
    fn full() -> Arc<Window> {
        let window = Window::new(0);
        (0..2).for_each(|_| window.take_place(SIZE, Patience::default()).unwrap());
        window
    }

    fn on_its_own_thread(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        spawn("other", Role::User, run).unwrap()
    }

    fn enter(window: &Arc<Window>) -> (u64, Arc<WakeUp>) {
        window.state.lock().enter(Wanted::Place(SIZE), None)
    }

    fn end(window: &Arc<Window>, (number, wake_up): (u64, Arc<WakeUp>)) -> End {
        Waits { window, number, wake_up, until: None }.end()
    }

    /// The thread that brings the answer takes the other one for a thread that reads, but it has given that up.
    #[test]
    fn loom_a_thread_that_has_stopped_reading_is_woken() {
        check_all(|| {
            let window = full();
            let (number, wake_up) = enter(&window);
            let waiting = window.clone();
            let waiter = on_its_own_thread(move || {
                let waits = Waits { window: &waiting, number, wake_up, until: None };
                waits.interrupts(Arc::new(NobodyReads));
                waits.sleep_on();
            });
            window.answered(SIZE, Ok(()));
            waiter.join().unwrap();
        });
    }

    /// Two senders, each of which is answered at once: the second one's place is made by the first one's answer.
    #[test]
    fn loom_each_sender_gets_a_place() {
        check_most(|| {
            let window = full();
            let senders = [0, 1].map(|_| {
                let window = window.clone();
                on_its_own_thread(move || {
                    window.take_place(SIZE, Patience::default()).unwrap();
                    window.answered(SIZE, Ok(()));
                })
            });
            window.answered(SIZE, Ok(()));
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert_eq!(window.state.lock().calls, 1);
        });
    }

    /// The first in line is canceled while there comes to be room: it has the place, or the second one has.
    #[test]
    fn loom_the_place_of_a_sender_that_is_canceled_goes_to_the_next() {
        check_most(|| {
            let window = full();
            let [first, second] = [enter(&window), enter(&window)];
            let number = first.0;
            let sender = {
                let window = window.clone();
                on_its_own_thread(move || {
                    if end(&window, first) == End::Found {
                        window.answered(SIZE, Ok(()));
                    }
                })
            };
            let canceler = {
                let window = window.clone();
                on_its_own_thread(move || window.cancel(number))
            };
            window.answered(SIZE, Ok(()));
            assert_eq!(end(&window, second), End::Found);
            sender.join().unwrap();
            canceler.join().unwrap();
            assert!(window.state.lock().line.is_empty());
        });
    }
}
