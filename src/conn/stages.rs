//! The four stages: what a connection's threads do, one step at a time.
//!
//! A step takes from the queue in front, does one thing, and puts into the queues behind. A dedicated thread
//! drives each stage step by step; a test or a model checker can drive them in any order instead.

use std::collections::vec_deque::Drain;
use std::mem;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
use std::os::fd::BorrowedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::backpressure::{Found, Sending, Share};
use super::drops::Watch;
use super::lending::handling;
use super::polling::{First, Polling};
use super::shared::{Incoming, Shared};
use super::transaction::{Broken, Failed};
use crate::cap::call::{CallInfo, Mode};
use crate::cap::port::Notice;
use crate::cap::Client;
use crate::error::{Error, Exception, TransportError};
use crate::promise::{count_sleep, Attachment};
use crate::state::{Arrival, Callback, Departure, Destination};
use crate::sync::{self, Arc, Foreign, Instant, Lane, Turn, Waited};
use crate::transport::{Arrived, EndWatch, Gate, MessageSink, MessageSource};
use crate::wire::decode::decode;
use crate::wire::encode::encode;
use crate::wire::frame::{Frame, Outbound};
use crate::wire::message::Message;
use crate::wire::needs::{is_abort, Needs};

/// Whether a step waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something.
    Made,
    /// Nothing: there is nothing to do now.
    Idle,
    /// Nothing, and there never will be.
    Ended,
}

/// Takes steps until there will never be another. A panic in one ends the connection, and the stage goes on to
/// its end in order: those who wait for it must hear.
pub(super) fn drive(shared: &Arc<Shared>, mut step: impl FnMut(Wait) -> Progress) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| step(Wait::Yes))) {
            Ok(Progress::Ended) => return,
            Ok(Progress::Made | Progress::Idle) => {}
            Err(panic) => shared.end_panicked(panic),
        }
    }
}

/// The four stages of a connection.
pub(crate) struct Stages {
    pub(crate) send: SendStage,
    pub(crate) receive: ReceiveStage,
    pub(crate) coordinator: CoordinatorStage,
    pub(crate) callback: CallbackStage,
}

impl Stages {
    pub(super) fn new(shared: &Arc<Shared>, source: Box<dyn MessageSource>) -> Self {
        Stages {
            send: SendStage { shared: shared.clone() },
            receive: ReceiveStage {
                shared: shared.clone(),
                source: Foreign::new(source),
                polling: Polling::new(),
                polled: None,
                held: None,
                refuses: false,
                end_watch: None,
                last: false,
                coordinator: CoordinatorStage { shared: shared.clone() },
                callback: CallbackStage::new(shared),
            },
            coordinator: CoordinatorStage { shared: shared.clone() },
            callback: CallbackStage::new(shared),
        }
    }
}

/// What writes: whoever has the turn of what is queued uses it.
pub(super) struct Sender {
    sink: Foreign<Box<dyn MessageSink>>,
    /// Why nothing more can be sent, and until when what has arrived may say more about it.
    pub(super) failed: Option<(TransportError, Instant)>,
    /// Why the connection is to be ended.
    broken: Option<Exception>,
    /// Empty: its memory is used again.
    messages: Vec<Outbound>,
}

/// The memory of a longer list is not kept.
const KEPT_MESSAGES: usize = 64;

impl Sender {
    pub(super) fn new(sink: Box<dyn MessageSink>) -> Self {
        Sender { sink: Foreign::new(sink), failed: None, broken: None, messages: Vec::new() }
    }

    pub(super) fn sends_now(&self) -> bool {
        self.sink.sends_now()
    }

    /// Encodes a batch, and gives it to the sink. `None` if nothing can be sent.
    fn write<R>(
        &mut self,
        shared: &Shared,
        batch: Drain<'_, Departure>,
        send: impl FnOnce(&mut dyn MessageSink, &[Outbound]) -> Result<R, TransportError>,
    ) -> Option<R> {
        if self.failed.is_some() {
            shared.sent(batch.fold(Sending::default(), |all, departure| all.and(&departure)));
            return None;
        }
        let mut all = Sending::default();
        let mut messages = mem::take(&mut self.messages);
        let mut shares = Vec::new();
        for departure in batch {
            all = all.and(&departure);
            let Departure { message, share, .. } = departure;
            shares.extend(share);
            match encode(message) {
                Ok(message) => messages.push(message),
                // Contents were checked before they were queued: see `Content::prepare`.
                Err(e) => self.broken = Some(e.with_context("a message that was queued can't be encoded")),
            }
        }
        let sent = send(&mut **self.sink, &messages);
        messages.clear();
        messages.shrink_to(KEPT_MESSAGES);
        self.messages = messages;
        drop(shares);
        shared.sent(all);
        sent.map_err(|e| self.failed = Some((e, sync::deadline(shared.limits.linger)))).ok()
    }

    /// Sends a batch without waiting. False if the send thread has to go on.
    pub(super) fn send_now(&mut self, shared: &Shared, batch: Drain<'_, Departure>) -> bool {
        let sent = self.write(shared, batch, |sink, messages| sink.send_now(messages));
        sent == Some(true) && self.broken.is_none()
    }
}

/// Writes what is queued.
pub(crate) struct SendStage {
    shared: Arc<Shared>,
}

impl SendStage {
    /// Sends all that is queued, as one batch, and what a borrower has left. What can't be sent is dropped, until
    /// the receive stage finds the end too. See Note [Shutdown].
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let failed = self.shared.sender.failed();
        let until = failed.as_ref().map(|(_, until)| *until);
        let mut turn = match (turn(&self.shared.outgoing, wait, until), failed) {
            (Ok(turn), _) => turn,
            (Err(Progress::Idle), Some((why, _))) if wait == Wait::Yes => {
                self.shared.end(why.into(), false);
                return Progress::Made;
            }
            (Err(progress), _) => return progress,
        };
        let Some(mut sender) = self.shared.sender.take() else { return Progress::Ended };
        sender.write(&self.shared, turn.rest(), |sink, messages| sink.send(messages));
        let broken = sender.broken.take();
        self.shared.sender.put(sender);
        drop(turn);
        if let Some(why) = broken {
            self.shared.end(why.into(), true);
        }
        Progress::Made
    }
}

/// The turn of a lane, for one step of the stage behind it.
fn turn<T>(lane: &Lane<T>, wait: Wait, until: Option<Instant>) -> Result<Turn<'_, T>, Progress> {
    match wait {
        Wait::No => lane.take_turn().ok_or(Progress::Idle),
        Wait::Yes => match lane.wait_turn(until) {
            Waited::Turn(turn) => Ok(turn),
            Waited::TimedOut => Err(Progress::Idle),
            Waited::Closed => Err(Progress::Ended),
        },
    }
}

/// Takes one step with each item of a lane; with one, if it is not to wait.
fn work_off<T>(lane: &Lane<T>, wait: Wait, until: Option<Instant>, mut step: impl FnMut(T)) -> Progress {
    match turn(lane, wait, until) {
        Ok(mut turn) => {
            while let Some(item) = turn.next() {
                step(item);
                if wait == Wait::No {
                    break;
                }
            }
            Progress::Made
        }
        Err(progress) => progress,
    }
}

/// Reads what arrives.
pub(crate) struct ReceiveStage {
    shared: Arc<Shared>,
    source: Foreign<Box<dyn MessageSource>>,
    polling: Polling,
    /// What polling has found.
    polled: Option<Result<Arrived, TransportError>>,
    /// A message that waits for room, and what it needs. Nothing behind it is read.
    held: Option<(Frame, Needs)>,
    /// Room was waited for in vain. Calls are refused until there is some.
    refuses: bool,
    end_watch: Option<Arc<dyn EndWatch>>,
    /// The input has ended: what is left of it is there.
    last: bool,
    /// The stages behind this one, as far as they are lent to it.
    coordinator: CoordinatorStage,
    callback: CallbackStage,
}

impl ReceiveStage {
    /// Receives one message, and hands it on once there is room for it.
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        if self.shared.flow.is_closed() {
            return Progress::Ended;
        }
        match self.next(wait).and_then(|(frame, needs)| self.admit(frame, needs, wait)) {
            Ok(message) => self.hand_on(message),
            Err(progress) => progress,
        }
    }

    /// The message that is next, and what it needs, if that matters now.
    fn next(&mut self, wait: Wait) -> Result<(Frame, Option<Needs>), Progress> {
        if let Some((frame, needs)) = self.held.take() {
            return Ok((frame, Some(needs)));
        }
        let frame = self.receive(wait)?;
        let needs = (!self.last && !self.shared.flow.may_read()).then(|| Needs::of(&frame));
        Ok((frame, needs))
    }

    /// Receives one message.
    fn receive(&mut self, wait: Wait) -> Result<Frame, Progress> {
        let received = match (self.polled.take(), wait) {
            (Some(polled), _) => polled,
            (None, Wait::No) => self.source.receive_now(),
            (None, Wait::Yes) => {
                self.source.receive().map(|frame| frame.map_or(Arrived::End, Arrived::Message))
            }
        };
        let frame = match received {
            Ok(Arrived::Message(frame)) => frame,
            Ok(Arrived::Nothing) => return Err(Progress::Idle),
            Ok(Arrived::End) => {
                let gone = Exception::disconnected("the peer has closed the connection");
                return Err(self.end(Error::Exception(gone)));
            }
            Err(e) => return Err(self.end(e.into())),
        };
        let (words, limit) = (frame.words() as u64, self.shared.limits.message_words as u64);
        if words > limit {
            // A transport of bytes has seen to it before; others need not know of limits.
            return Err(self.end(TransportError::TooLarge { words, limit }.into()));
        }
        Ok(frame)
    }

    /// Waits until there is room for a message, or the input has ended. See Note [Backpressure].
    fn admit(&mut self, frame: Frame, needs: Option<Needs>, wait: Wait) -> Result<Incoming, Progress> {
        let ReceiveStage { shared, source, held, refuses, end_watch, .. } = self;
        let flow = &shared.flow;
        *refuses = *refuses && !flow.has(Needs::Service);
        let Some(needs) = needs.filter(|needs| flow.holds(*needs)) else { return Ok(shared.admitted(frame)) };
        let room_timeout = shared.limits.room_timeout.filter(|_| needs == Needs::Service);
        if *refuses && room_timeout.is_some() && flow.may_send() {
            return Ok(Incoming::Refused(frame));
        }
        shared.reading.goes_on(false);
        if wait == Wait::No {
            *held = Some((frame, needs));
            return Err(Progress::Idle);
        }
        // What was held back may be what makes room.
        shared.see_to_drops();
        shared.send_queued();
        if flow.holds_for_crowd(needs) {
            flow.wait_for_crowd();
        }
        if end_watch.is_none() {
            *end_watch = source.end_watch();
        }
        match flow.wait_for_room(needs, end_watch.as_ref(), room_timeout) {
            Found::Room => Ok(shared.admitted(frame)),
            Found::Closed => Err(Progress::Ended),
            Found::End => {
                self.last = true;
                self.before_end(frame).map(|frame| self.shared.admitted(frame))
            }
            Found::Late => {
                *refuses = true;
                Ok(Incoming::Refused(frame))
            }
        }
    }

    /// What is to be handled of the input that has ended: all, while answers to questions of ours may be there, and else
    /// no more than an Abort.
    fn before_end(&mut self, mut frame: Frame) -> Result<Frame, Progress> {
        while self.shared.flow.awaited() == 0 && !is_abort(&frame) {
            frame = self.receive(Wait::Yes)?;
        }
        Ok(frame)
    }

    /// Hands a message on.
    fn hand_on(&mut self, message: Incoming) -> Progress {
        if !self.shared.lends {
            return self.shared.incoming.push(message).map_or(Progress::Ended, |()| Progress::Made);
        }
        match self.shared.incoming.take_turn_with(message) {
            Ok(turn) => self.go_on(turn),
            Err(_) => return Progress::Ended,
        }
        match self.is_ready() {
            true => self.shared.reading.goes_on(true),
            false => self.end_batch(),
        }
        Progress::Made
    }

    /// Sends what the messages since the last batch have left to be sent. More may be at hand all the same.
    pub(super) fn end_batch(&self) {
        self.shared.reading.goes_on(false);
        self.shared.see_to_drops();
        self.shared.send_queued();
        // What this thread does next comes after a wait for input.
        count_sleep();
    }

    /// Polls for as long as that pays and `waits` says so. Whether there is something to receive, or no need to wait.
    /// See Note [Polling].
    pub(super) fn poll(&mut self, deadline: Option<Instant>, first: First, waits: impl Fn() -> bool) -> bool {
        if self.polled.is_some() || self.holds_message() {
            return true;
        }
        if !self.shared.lends || !self.source.receives_now() {
            return false;
        }
        let ReceiveStage { shared, polling, source, polled, .. } = self;
        polling.poll(shared.limits.polling, deadline, first, || match source.receive_now() {
            Ok(Arrived::Nothing) => !waits(),
            found => {
                *polled = Some(found);
                true
            }
        })
    }

    /// It may pay to poll now, whatever was so before.
    pub(super) fn poll_anew(&mut self) {
        self.polling.retry();
    }

    /// Receives what is there, without waiting.
    pub(super) fn receive_all(&mut self) -> Progress {
        loop {
            let progress = self.step(Wait::No);
            if progress != Progress::Made || !self.shared.reading.is_in_batch() {
                return progress;
            }
        }
    }

    /// Whether another message is there for certain.
    pub(super) fn is_ready(&mut self) -> bool {
        self.polled.is_some() || self.held.is_some() || self.source.is_ready()
    }

    /// Whether another message may be read: none waits for room, or there is what it needs.
    pub(super) fn has_room(&self) -> bool {
        self.held.as_ref().is_none_or(|(_, needs)| !self.shared.flow.holds(*needs))
    }

    /// Whether a message has been received that waits for room, or did.
    pub(crate) fn holds_message(&self) -> bool {
        self.held.is_some()
    }

    /// Nothing may arrive for a while.
    pub(super) fn rest(&mut self) {
        self.source.rest();
    }

    /// What the source is waited for at, if more than one thread may.
    pub(super) fn gate(&mut self) -> Option<Arc<dyn Gate>> {
        self.source.gate()
    }

    /// Handles what has arrived, and does what that leaves to be done. See Note [Lending].
    fn go_on(&self, turn: Option<Turn<'_, Incoming>>) {
        let handling = handling(self.shared.id);
        if let Some(mut turn) = turn {
            while let Some(item) = turn.next() {
                self.coordinator.one(item);
            }
        }
        if handling.called_back() {
            self.callback.lent();
        }
    }

    /// Nothing more will come. See Note [Shutdown].
    fn end(&self, why: Error) -> Progress {
        // If the queue is closed, the connection has ended before.
        let _ = self.shared.incoming.push(Incoming::End(why));
        Progress::Ended
    }
}

/// What the reactor asks of it.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
impl ReceiveStage {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What becomes readable when there is something to receive, if this may rest with the reactor.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.source.descriptor().filter(|_| self.shared.lends && self.source.receives_now())
    }

    /// Whether nothing can be there that has not come since it was looked for.
    pub(super) fn is_drained(&self) -> bool {
        self.source.is_drained()
    }
}

/// Handles what was read: one transaction for each message.
pub(crate) struct CoordinatorStage {
    shared: Arc<Shared>,
}

impl CoordinatorStage {
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        work_off(&self.shared.incoming, wait, None, |item| self.one(item))
    }

    fn one(&self, item: Incoming) {
        let handled = match item {
            Incoming::Message(frame, share) => self.handle(frame, share, false),
            Incoming::Refused(frame) => self.handle(frame, None, true),
            Incoming::End(why) => return self.shared.end(why, false),
        };
        if let Err(Failed::Rule(e)) = handled {
            self.shared.end(e.into(), true);
        }
    }

    fn handle(&self, frame: Frame, share: Option<Share>, refused: bool) -> Result<(), Failed> {
        let words = frame.words();
        let message = decode(frame, &self.shared.limits).map_err(Failed::Rule)?;
        if let Message::Abort(why) = message {
            self.shared.end(Error::Exception(why.with_context("the peer aborted")), false);
            return Ok(());
        }
        if let Message::Bootstrap { question } = message {
            // Its answer stays until the Finish.
            if self.shared.flow.is_above_process() {
                return self.shared.try_transact(|state, fx| state.refuse(question, fx));
            }
        }
        // Only calls stay in service; anything else is done when this returns.
        let mut in_service = None;
        if let Message::Call(call) = &message {
            let caps = call.params.descriptors.len();
            let share = self.shared.flow.serve_decoded(share, words, caps);
            // Kept results are for a question of ours: see Note [Backpressure].
            if (refused || self.shared.flow.refuses_call(&share)) && !call.keep_results {
                return self.shared.try_transact(|state, fx| state.refuse_call(call, fx));
            }
            in_service = Some(Arc::new(share) as Arc<dyn Attachment>);
        }
        let arrival = Arrival { message, share: in_service };
        self.shared.try_transact(|state, fx| state.receive(arrival, fx))
    }
}

/// Does what transactions left to be done outside the lock, in the order of their commits.
pub(crate) struct CallbackStage {
    shared: Arc<Shared>,
    watch: Watch,
}

impl CallbackStage {
    fn new(shared: &Arc<Shared>) -> Self {
        CallbackStage { shared: shared.clone(), watch: Watch::default() }
    }

    /// Runs what is queued, and looks after what is noted. See Note [Drops are noted].
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let until = self.watch.until();
        let progress = work_off(&self.shared.callbacks, wait, until, |callback| self.run(callback));
        // What this thread does next comes after a wait.
        count_sleep();
        match (wait, progress) {
            (Wait::Yes, Progress::Made) => self.watch.woken(&self.shared),
            (Wait::Yes, Progress::Idle) => self.watch.look(&self.shared),
            _ => {}
        }
        progress
    }

    /// Looks after what is noted, for those who take the steps themselves. True if there was anything.
    pub(crate) fn look(&self) -> bool {
        self.shared.see_to_drops()
    }

    /// Works off what is there, on the receive thread, if nobody is at it.
    fn lent(&self) {
        let Some(mut turn) = self.shared.callbacks.take_turn() else { return };
        while let Some(callback) = turn.next() {
            self.run(callback);
        }
    }

    fn run(&self, callback: Callback) {
        match callback {
            Callback::Deliver { call, to } => self.deliver(call, to),
            Callback::Respond { responder, outcome } => responder.answer(outcome),
            Callback::Resolve { cell, to } => cell.resolve(self.client_of(to)),
            Callback::Tell { watchers, client } => watchers.resolved(&client),
            Callback::Watch { client, watcher } => client.watch(watcher),
            Callback::Echo { embargo, to } => {
                self.shared.transact_or_end(|state, fx| state.send_echo(embargo, &to, fx));
            }
            Callback::Cancel { key, token, after_start } => {
                let shared = self.shared.clone();
                token.on_cancel(move || shared.post(Notice::AnswerCanceled(key)));
                token.cancel(after_start);
                let doomed = || self.shared.transact(|state, fx| state.call_doomed(key, fx));
                if token.is_doomed() && doomed().unwrap_or(false) {
                    token.cancel(false);
                }
            }
            Callback::Release(exports) => {
                // A peer that released them twice has broken the protocol.
                let released = self.shared.try_transact(|state, fx| state.release_exports(&exports, fx));
                if let Err(Failed::Rule(e)) = released {
                    self.shared.end(e.into(), true);
                }
            }
            Callback::Discard(garbage) => drop(garbage),
            Callback::Notice(Notice::Unused) => {
                // The peer is told of what was dropped before.
                self.shared.see_to_drops();
                let why = Exception::disconnected("nobody uses the connection any more");
                self.shared.end(Error::Exception(why), false);
            }
            Callback::Notice(notice) => self.shared.transact_or_end(|state, fx| state.notice(notice, fx)),
        }
    }

    /// A client on which calls stay behind those that went to the destination before. See Note [Named by the peer].
    fn client_of(&self, to: Destination) -> Client {
        match to {
            Destination::Client(client) => client,
            Destination::Pipeline(pipeline) => pipeline.client(),
            Destination::Reflect(place) => {
                let followed = self.shared.transact(|state, fx| state.follow(&place, fx));
                followed.unwrap_or_else(Broken::client)
            }
        }
    }

    /// Hands a call on. See Note [Order across callbacks].
    fn deliver(&self, call: CallInfo, to: Destination) {
        let ended = self.shared.flow.is_closed().then(|| self.shared.why_ended());
        if let Some(why) = ended.flatten() {
            return call.fail(why);
        }
        match to {
            Destination::Client(client) => client.deliver(call, Mode::Queue),
            Destination::Pipeline(pipeline) => pipeline.client().deliver(call, Mode::Queue),
            Destination::Reflect(place) => place.deliver(call),
        }
    }
}
