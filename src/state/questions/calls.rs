//! Calls that are sent: each becomes a question.

use super::super::effects::Effects;
use super::super::{descriptors, targets, State};
use super::{closed, OnReturn, Question};
use crate::cap::call::{CallInfo, Responder, Route, TakeOnce};
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{QuestionRef, RefId, RemoteTarget};
use crate::cap::Capability;
use crate::error::Exception;
use crate::promise::Attachment;
use crate::short::Short;
use crate::sync::Arc;
use crate::wire::message::{Call, Message, Payload as WirePayload};

/// What became of a call that was to be sent.
pub(crate) enum CallDisposition {
    /// It was sent. Whoever asked is to hold the question, and may send calls on its results ahead.
    Question(Arc<QuestionRef>, Route),
    /// It was not: this is to be answered.
    Refused(Responder, Exception),
    /// It was sent back to the peer as a tail call.
    Reflected,
    /// It has been answered.
    Answered,
    /// The promise is resolved; this is what to call instead.
    Redirect(CallInfo),
}

impl State {
    /// Sends a call to a promise of the peer's, unless that has been resolved.
    pub(crate) fn call_promise(
        &mut self,
        promise: RefId,
        call: CallInfo,
        fx: &mut Effects,
    ) -> CallDisposition {
        match self.promises.get_mut(&promise) {
            Some(pending) => {
                let first = !std::mem::replace(&mut pending.used, true);
                let place = pending.place.clone();
                if let (true, Some(share)) = (first, &call.params.share) {
                    self.charge_place(&place, share);
                }
                self.call(&place, call, fx)
            }
            None => CallDisposition::Redirect(call),
        }
    }

    /// A place is called for the first time, by a call that counts where it came in.
    fn charge_place(&mut self, place: &RemoteTarget, share: &Arc<dyn Attachment>) {
        let RemoteTarget::Answer(question, _) = place else { return };
        let entry = self.question_mut(question.id).filter(|entry| entry.generation == question.generation);
        if let Some(places) = entry.and_then(|entry| entry.places.as_mut()) {
            places.charged.push_back(TakeOnce::new(share.clone()));
        }
    }

    /// Sends a call to a place in the peer. A call that came from the peer goes back as a tail call.
    pub(crate) fn call(&mut self, place: &RemoteTarget, call: CallInfo, fx: &mut Effects) -> CallDisposition {
        let CallInfo { interface_id, method_id, params, responder, cancel, hints } = call;
        fx.discard(cancel);
        if let Some(why) = self.ended.clone() {
            fx.discard(params);
            return CallDisposition::Refused(responder, why);
        }
        let Some(port) = self.port() else {
            fx.discard(params);
            return CallDisposition::Refused(responder, closed());
        };
        if let Some(why) = self.why_unreachable(place) {
            fx.discard(params);
            return CallDisposition::Refused(responder, why);
        }
        let tail = responder.route().answer_on(self.connection).filter(|key| self.may_tail_call(*key));
        let described = match self.describe_all(&params.caps, fx) {
            Ok(described) => described,
            Err(why) => {
                fx.discard(params);
                return CallDisposition::Refused(responder, why);
            }
        };
        let for_pipeline = hints.only_promise_pipeline && tail.is_none() && !self.peer_ignores_pipeline_hint;
        let Payload { content, caps, share } = params;
        fx.discard(caps);
        let route = responder.route().clone();
        let on_return = match tail {
            Some(_) => {
                responder.disarm();
                Short::new()
            }
            None => Short::of(OnReturn::of(responder)),
        };
        let mut asking = Question::new(described.exports.into_vec(), on_return);
        (asking.interface_id, asking.method_id) = (interface_id, Some(method_id));
        asking.tail = tail.is_some();
        // No Return would give back what a question for pipelining alone holds.
        asking.share = share.clone().filter(|_| !for_pipeline).map(TakeOnce::new);
        let question = self.ask(port, for_pipeline, asking);
        let call = Call {
            question: question.id,
            target: descriptors::target(place),
            interface_id,
            method_id,
            params: WirePayload { content, descriptors: described.descriptors },
            keep_results: tail.is_some(),
            no_promise_pipelining: hints.no_promise_pipelining,
            only_promise_pipeline: for_pipeline,
        };
        fx.send_on(Message::Call(call), share);
        if let Some(key) = tail {
            self.return_tail(key, question, fx);
            return CallDisposition::Reflected;
        }
        CallDisposition::Question(question, route)
    }

    /// Why a place in the peer can't be called any more. Whoever was told that calls are reflected there may still
    /// send some.
    ///
    /// - It is known to be broken. Without this, calls would go round for ever where two vats have made their
    ///   promises each other.
    /// - It was in the results of a question that is over.
    fn why_unreachable(&self, place: &RemoteTarget) -> Option<Exception> {
        if let Some(was) = self.was_at(place) {
            return Some(was.broken_with().unwrap_or_else(targets::closed));
        }
        match place {
            RemoteTarget::Import(import) => self.imports.get(&import.id)?.resolved()?.broken_with(),
            RemoteTarget::Answer(question, path) => match question.outcome.get()? {
                Ok(payload) => payload.client_at(path).broken_with(),
                Err(why) => Some(why.clone()),
            },
        }
    }

    /// What was at a place in the results of a question that is over: null, or broken. Its ID may name another question
    /// by now, so it must not be used. `None` for any other place.
    pub(in crate::state) fn was_at(&self, place: &RemoteTarget) -> Option<Client> {
        let RemoteTarget::Answer(question, path) = place else { return None };
        let known = self.question(question.id).filter(|q| q.generation == question.generation);
        if known.is_some_and(|q| !q.entry.has_finished()) {
            return None;
        }
        Some(match question.outcome.get() {
            Some(Ok(payload)) => payload.client_at(path),
            Some(Err(why)) => Client::broken(why.clone()),
            None => Client::broken(targets::closed()),
        })
    }
}
