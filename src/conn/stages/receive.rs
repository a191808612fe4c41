//! The receive stage: reads what arrives, and hands on what there is room for.

#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
use std::os::fd::BorrowedFd;

use super::{Progress, Wait};
use crate::conn::backpressure::Found;
use crate::conn::shared::{Incoming, Shared};
use crate::error::{Error, Exception, TransportError};
use crate::sync::{deadline, Arc, Duration, Foreign, Timer, TimerKey};
use crate::transport::{Arrived, EndWatch, Readiness, Source};
use crate::wire::frame::Frame;
use crate::wire::needs::{is_abort, Needs};

/// How long a call that there is no room for waits at a time for messages in front of it to be handled.
const HANDLING: Duration = Duration::from_millis(1);

/// Reads what arrives.
pub(crate) struct ReceiveStage {
    shared: Arc<Shared>,
    source: Foreign<Source>,
    /// Until the first message has come: the deadline for it, if there is one.
    first_message: Option<FirstMessage>,
    /// What has been received and not handed on, because it was only looked for.
    seen: Option<Result<Arrived, TransportError>>,
    /// A message that waits for room, and what it needs. Nothing behind it is read.
    held: Option<(Frame, Needs)>,
    /// Room was waited for in vain. Calls are refused until there is some.
    refuses: bool,
    end_watch: Option<Arc<dyn EndWatch>>,
    /// The input has ended: what is left of it is there.
    last: bool,
}

impl ReceiveStage {
    pub(super) fn new(shared: &Arc<Shared>, source: Source, first_message: Option<Duration>) -> Self {
        ReceiveStage {
            shared: shared.clone(),
            source: Foreign::new(source),
            first_message: first_message.map(|timeout| FirstMessage::expect(shared, timeout)),
            seen: None,
            held: None,
            refuses: false,
            end_watch: None,
            last: false,
        }
    }

    /// Receives one message, and queues it once there is room for it.
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let message = match self.next(wait) {
            Ok(Incoming::Message(frame, _)) => {
                // It counts from now on, so that no more than the limit waits in the queue.
                let share = self.shared.flow.serve(frame.words(), 0);
                Incoming::Message(frame, Some(share))
            }
            Ok(other) => other,
            Err(progress) => return progress,
        };
        self.shared.incoming.push(message).map_or(Progress::Ended, |()| Progress::Made)
    }

    /// Receives one message that there is room for.
    pub(in crate::conn) fn next(&mut self, wait: Wait) -> Result<Incoming, Progress> {
        if self.shared.flow.is_closed() {
            return Err(Progress::Ended);
        }
        let (frame, needs) = self.next_frame(wait)?;
        self.admit(frame, needs, wait)
    }

    /// The message that is next, and what it needs, if that matters now.
    fn next_frame(&mut self, wait: Wait) -> Result<(Frame, Option<Needs>), Progress> {
        if let Some((frame, needs)) = self.held.take() {
            return Ok((frame, Some(needs)));
        }
        let frame = self.receive(wait)?;
        let needs = (!self.last && !self.shared.flow.may_read()).then(|| Needs::of(&frame));
        Ok((frame, needs))
    }

    /// Receives one message.
    fn receive(&mut self, wait: Wait) -> Result<Frame, Progress> {
        let received = match (self.seen.take(), wait) {
            (Some(seen), _) => seen,
            (None, Wait::No) => match self.source.as_nonblocking() {
                Some(source) => source.receive_now(),
                None => return Err(Progress::Idle),
            },
            (None, Wait::Yes | Wait::OrLeave) => {
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
        self.first_message = None;
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
        let Some(needs) = needs.filter(|needs| flow.holds(*needs)) else {
            return Ok(Incoming::Message(frame, None));
        };
        let room_timeout = shared.limits.room_timeout.filter(|_| needs == Needs::Service);
        if *refuses && room_timeout.is_some() && flow.may_send() {
            return Ok(Incoming::Refused(frame));
        }
        if wait == Wait::No {
            *held = Some((frame, needs));
            return Err(Progress::Idle);
        }
        // What was held back may be what makes room.
        shared.before_sleep();
        if flow.holds_for_crowd(needs) {
            flow.wait_for_crowd();
        }
        if end_watch.is_none() {
            *end_watch = source.as_nonblocking().and_then(|source| source.end_watch());
        }
        let mut within = room_timeout;
        let found = loop {
            match flow.wait_for_room(needs, end_watch.as_ref(), within) {
                // What is still to be handled counts, though it may not stay.
                Found::Late if shared.incoming.is_in_use() => within = Some(HANDLING),
                found => break found,
            }
        };
        match found {
            Found::Room => Ok(Incoming::Message(frame, None)),
            Found::Closed => Err(Progress::Ended),
            Found::End => {
                self.last = true;
                self.before_end(frame).map(|frame| Incoming::Message(frame, None))
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

    /// Looks for a message without waiting. True if something is there, for the next call of [`next`](Self::next).
    pub(in crate::conn) fn look(&mut self) -> bool {
        if self.seen.is_none() {
            match self.source.as_nonblocking().map(|source| source.receive_now()) {
                None | Some(Ok(Arrived::Nothing)) => return false,
                found => self.seen = found,
            }
        }
        true
    }

    /// Whether a message has been received that was not handed on.
    pub(in crate::conn) fn has_seen(&self) -> bool {
        self.seen.is_some() || self.held.is_some()
    }

    /// Whether [`look`](Self::look) may be called.
    pub(in crate::conn) fn can_look(&self) -> bool {
        matches!(*self.source, Source::Nonblocking(_))
    }

    /// Whether another message is there for certain.
    pub(in crate::conn) fn is_ready(&mut self) -> bool {
        self.has_seen() || self.source.as_nonblocking().is_some_and(|source| source.is_ready())
    }

    /// Whether another message may be read: none waits for room, or there is what it needs.
    pub(in crate::conn) fn has_room(&self) -> bool {
        self.held.as_ref().is_none_or(|(_, needs)| !self.shared.flow.holds(*needs))
    }

    /// Whether a message has been received that waits for room, or did.
    pub(crate) fn holds_message(&self) -> bool {
        self.held.is_some()
    }

    /// Nothing may arrive for a while.
    pub(in crate::conn) fn rest(&mut self) {
        if let Some(source) = self.source.as_nonblocking() {
            source.release_buffers();
        }
    }

    /// What the source is waited for at, if more than one thread may.
    pub(in crate::conn) fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        self.source.as_nonblocking().and_then(|source| source.readiness())
    }

    /// Nothing more will come. See Note [Shutdown].
    fn end(&self, why: Error) -> Progress {
        // If the queue is closed, the connection has ended before.
        let _ = self.shared.incoming.push(Incoming::End(why));
        Progress::Ended
    }
}

/// A deadline that ends the connection, until this is dropped.
struct FirstMessage(TimerKey);

impl FirstMessage {
    fn expect(shared: &Arc<Shared>, timeout: Duration) -> Self {
        let shared = Arc::downgrade(shared);
        FirstMessage(Timer::global().at(deadline(timeout), move || {
            if let Some(shared) = shared.upgrade() {
                // If the queue is closed, the connection has ended before.
                let late = TransportError::FirstMessageLate(timeout);
                let _ = shared.incoming.push(Incoming::End(late.into()));
            }
        }))
    }
}

impl Drop for FirstMessage {
    fn drop(&mut self) {
        Timer::global().cancel(self.0);
    }
}

/// What the reactor asks of it.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(any(shuttle, loom))))]
impl ReceiveStage {
    /// What becomes readable when there is something to receive, if this may rest with the reactor.
    pub(in crate::conn) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &*self.source {
            Source::Blocking(_) => None,
            Source::Nonblocking(source) => source.descriptor(),
        }
    }

    /// Whether nothing can be there that has not come since it was looked for.
    pub(in crate::conn) fn is_drained(&self) -> bool {
        matches!(&*self.source, Source::Nonblocking(source) if source.is_drained())
    }
}
