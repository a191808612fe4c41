//! The connection as capabilities see it.

use super::shared::Shared;
use super::transaction::Broken;
use crate::cap::answer::Pipeline;
use crate::cap::call::{CallInfo, Mode};
use crate::cap::contents::Payload;
use crate::cap::object::Crowd;
use crate::cap::permits::Permits;
use crate::cap::port::{
    AnswerKey, CallTarget, ConnectionId, ConnectionOps, Generation, QuestionRef, RemoteRef, Sent, TableEvent,
};
use crate::cap::watchers::Watcher;
use crate::cap::{Capability, Client};
use crate::error::Exception;
use crate::peer::Peer;
use crate::promise::{cancel, Attachment, Waiter};
use crate::state::{CallDisposition, Effects, State};
use crate::sync::{self, Arc, Duration, Timer};
use crate::wire::content::{too_large, PayloadKind};

/// What a message needs beside its content, at most, for a few capabilities.
const HEADER_WORDS: usize = 64;

/// The right to use a connection: held by its handles and by all references that lead over it. When the last
/// one goes, nobody can use the connection any more, and it is closed.
pub(super) struct ConnectionRef(pub(super) Arc<Shared>);

impl Drop for ConnectionRef {
    fn drop(&mut self) {
        // The last reference may go anywhere, under a lock too.
        self.0.post(TableEvent::Unused);
    }
}

impl ConnectionRef {
    /// Makes a payload what will be sent. It must be small enough.
    fn prepare(&self, payload: &mut Payload, place: PayloadKind) -> Result<(), Exception> {
        let limit = self.0.limits.message_words;
        payload.prepare(place, limit)?;
        let words = payload.content.words() + HEADER_WORDS + 4 * payload.caps.len();
        match words > limit {
            true => Err(too_large(words, limit)),
            false => Ok(()),
        }
    }

    fn ask(
        &self,
        to: CallTarget<'_>,
        mut call: CallInfo,
        mode: Mode,
    ) -> Result<CallDisposition, Box<(CallInfo, Exception)>> {
        if call.cancel.is_canceled() {
            return Err(Box::new((call, cancel::canceled())));
        }
        if let Err(why) = self.prepare(&mut call.params, PayloadKind::CallParams) {
            return Err(Box::new((call, why)));
        }
        // It leaves this vat: for the canceling of a call that must be delivered first, it is delivered.
        call.cancel.start();
        let bytes = call.params.content.words() * 8;
        let mut call = Some(call);
        let body = |state: &mut State, fx: &mut Effects| {
            let call = call.take().expect("a transaction's body is run once");
            match to {
                CallTarget::Remote(place) => state.call(place, call, fx),
                CallTarget::Promise(promise) => state.call_promise(promise.id, call, fx),
            }
        };
        let asked = match mode {
            Mode::Queue => self.0.transact(body).map_err(Exception::from),
            Mode::Block(deadline) => self.0.transact_with_room(bytes, deadline, body),
        };
        match (asked, call) {
            (Ok(asked), _) => Ok(asked),
            (Err(why), Some(call)) => Err(Box::new((call, why))),
            // The transaction has panicked, and the call was answered when that dropped it.
            (Err(_), None) => Ok(CallDisposition::Answered),
        }
    }

    /// Has a question fail if it is not answered within the time that all have, if there is such a limit.
    pub(super) fn limit_time(&self, question: &Arc<QuestionRef>) {
        if let Some(timeout) = self.0.call_timeout {
            let (shared, id, generation) = (Arc::downgrade(&self.0), question.id, question.generation);
            let key = Timer::global().at(sync::deadline(timeout), move || {
                if let Some(shared) = shared.upgrade() {
                    shared.post(TableEvent::QuestionLate(id, generation));
                }
            });
            let set = question.deadline.set(key);
            debug_assert!(set.is_ok(), "a question has one deadline");
        }
    }
}

impl ConnectionOps for ConnectionRef {
    fn connection(&self) -> ConnectionId {
        self.0.id
    }

    fn peer(&self) -> &Peer {
        &self.0.peer
    }

    fn why_ended(&self) -> Option<Exception> {
        self.0.why_ended()
    }

    fn room_timeout(&self) -> Option<Duration> {
        self.0.limits.room_timeout
    }

    fn permits(&self) -> &Arc<Permits> {
        &self.0.permits
    }

    fn in_crowd(&self, crowd: &Arc<Crowd>) -> Box<dyn Attachment> {
        Box::new(self.0.flow.in_crowd(crowd))
    }

    fn call(&self, to: CallTarget<'_>, call: CallInfo, mode: Mode) -> Sent {
        let promise = match to {
            CallTarget::Promise(promise) => Some(promise),
            CallTarget::Remote(_) => None,
        };
        match self.ask(to, call, mode) {
            Ok(CallDisposition::Question(question, route)) => {
                self.0.after_question(question.generation);
                self.limit_time(&question);
                route.forwarded(question);
            }
            Ok(CallDisposition::Reflected | CallDisposition::Answered) => {}
            Ok(CallDisposition::Refused(responder, why)) => responder.answer(Err(why)),
            Ok(CallDisposition::Redirect(call)) => {
                let resolved = promise.and_then(|promise| promise.resolved.get()).cloned();
                let gone = || Client::broken(Exception::disconnected("the promise is gone"));
                return Sent::redirect(resolved.unwrap_or_else(gone), call);
            }
            Err(refused) => {
                let (call, why) = *refused;
                call.fail(why);
            }
        }
        Sent::Done
    }

    fn pipelined(&self, question: &Arc<QuestionRef>, path: &[u16]) -> Client {
        self.0.transact(|state, _| state.pipelined(question, path)).unwrap_or_else(Broken::client)
    }

    fn watch(&self, promise: &RemoteRef, watcher: Watcher) {
        // After a panic the end of the connection has told all that watch.
        if let Ok(Some(watcher)) = self.0.transact(|state, fx| state.watch(promise, watcher, fx)) {
            let gone = || Client::broken(Exception::disconnected("the promise is gone"));
            watcher.resolved(&promise.resolved.get().cloned().unwrap_or_else(gone));
        }
    }

    fn answer(&self, key: AnswerKey, outcome: Result<Payload, Exception>) {
        let outcome = outcome.and_then(|mut payload| {
            self.prepare(&mut payload, PayloadKind::ReturnResults)?;
            self.0.flow.check_results(payload.content.words() * 8)?;
            Ok(payload)
        });
        self.0.transact_or_end(|state, fx| state.answer(key, outcome, fx));
    }

    fn set_pipeline(&self, key: AnswerKey, pipeline: Pipeline) {
        self.0.transact_or_end(|state, fx| state.set_pipeline(key, pipeline, fx));
    }

    fn forwarded(&self, key: AnswerKey, question: Arc<QuestionRef>) {
        self.0.transact_or_end(|state, fx| state.forwarded(key, question, fx));
    }

    fn read_for(&self, question: Generation, waiter: &dyn Waiter) {
        self.0.wait_for_answer(question, waiter);
    }

    fn post(&self, notice: TableEvent) {
        self.0.post(notice);
    }
}
