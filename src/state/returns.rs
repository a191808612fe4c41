//! Returns: how questions are answered.

use super::descriptors::Accepted;
use super::effects::{Callback, Effects};
use super::named::Named;
use super::questions::{Ended, OnReturn, Places, PIPELINE_BIT};
use super::State;
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{QuestionRef, RefId, RemoteTarget};
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::QuestionId;
use crate::short::Short;
use crate::sync::Arc;
use crate::wire::message::{Incoming, Message, Outcome, Path, Payload as WirePayload, Return};

impl State {
    pub(super) fn receive_return(
        &mut self,
        ret: Return<Incoming>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let for_pipeline = ret.answer.0 & PIPELINE_BIT != 0;
        let Some(question) = self.question(ret.answer) else {
            // Finished questions for pipelining alone are forgotten, whether or not a Return will come.
            self.peer_ignores_pipeline_hint |= for_pipeline;
            return if for_pipeline { Ok(()) } else { Err(ProtocolError::UnknownQuestion(ret.answer)) };
        };
        self.check_return(question, &ret)?;
        let Return { answer: id, release_param_caps, no_finish_needed, outcome } = ret;
        let question = self.question_mut(id).expect("found above");
        question.give_back_share(fx);
        let exports = std::mem::take(&mut question.param_exports);
        let canceled = question.entry.has_finished();
        self.peer_ignores_pipeline_hint |= for_pipeline;
        if canceled {
            // Finish has told the peer to release what these results hold: none of it was ever ours.
            if let Outcome::TakeFromOtherQuestion(answer) = outcome {
                self.abandon_kept(answer, fx);
            }
            self.forget_question(id, fx);
        } else {
            self.receive_outcome(id, outcome, no_finish_needed, fx);
        }
        if release_param_caps {
            // Last: the results may name what the params gave.
            self.release_counted(&exports, fx);
        }
        Ok(())
    }

    /// A question has been answered, in a way that was checked before.
    fn receive_outcome(
        &mut self,
        id: QuestionId,
        outcome: Outcome<Incoming>,
        no_finish_needed: bool,
        fx: &mut Effects,
    ) {
        let why = match outcome {
            Outcome::Results(results) => return self.receive_results(id, results, no_finish_needed, fx),
            Outcome::TakeFromOtherQuestion(answer) => return self.take_kept(id, answer, fx),
            Outcome::ResultsSentElsewhere if no_finish_needed => {
                // Results without capabilities.
                let why = super::targets::closed();
                return self.answered(id, Err(why), Short::new(), Ended::Elsewhere, true, fx);
            }
            Outcome::ResultsSentElsewhere => return self.answered_elsewhere(id),
            Outcome::Exception(why) => why,
            Outcome::Canceled => Exception::canceled("the callee says that the call was canceled"),
            Outcome::Unknown(variant, whole) => {
                fx.send(Message::Unimplemented(whole));
                Exception::unimplemented(format!("the peer returned in an unknown way ({variant})"))
            }
        };
        self.answered(id, Err(why), Short::new(), Ended::Exception, no_finish_needed, fx);
    }

    fn receive_results(
        &mut self,
        id: QuestionId,
        results: WirePayload<Incoming>,
        no_finish_needed: bool,
        fx: &mut Effects,
    ) {
        let promised = self.question(id).is_some_and(|question| question.places.is_some());
        let mut accepted = Short::new();
        let caps = match promised {
            false => self.accept_all(results.descriptors, fx),
            true => results.descriptors.map(|descriptor| {
                accepted.push(self.accept_as(descriptor, fx));
                Client::null()
            }),
        };
        let payload = Payload::new(results.content, caps);
        self.answered(id, Ok(payload), accepted, Ended::Results, no_finish_needed, fx);
    }

    /// A question has its outcome: promises for capabilities in it are resolved, and whoever asked is told.
    ///
    /// If there are promises for any, `accepted` is what the peer has said of each capability, and their clients are
    /// made here. Where it is empty, all are of this vat, and no promises to the peer.
    pub(super) fn answered(
        &mut self,
        id: QuestionId,
        mut outcome: Result<Payload, Exception>,
        accepted: Short<Accepted>,
        ended: Ended,
        no_finish_needed: bool,
        fx: &mut Effects,
    ) {
        let Some(question) = self.question_mut(id) else { return };
        question.taking = None;
        let Some(on_return) = question.entry.mark_returned(ended) else { return };
        let places = question.take_places(fx);
        let handle = question.handle.upgrade();
        self.under_way -= usize::from(id.0 & PIPELINE_BIT == 0);
        if let Some(places) = places {
            self.settle_places(id, *places, &handle, (&mut outcome, accepted), fx);
        }
        if let Some(handle) = handle {
            let set = handle.outcome.set(outcome.clone());
            debug_assert!(set.is_ok(), "a question is answered once");
            fx.discard(handle);
        }
        match on_return {
            Short::Few(Some(only)) => match only.take() {
                Some(responder) => fx.later(Callback::Respond { responder, outcome }),
                None => fx.discard(outcome),
            },
            on_return => {
                for responder in on_return.into_iter().filter_map(OnReturn::take) {
                    fx.later(Callback::Respond { responder, outcome: outcome.clone() });
                }
                fx.discard(outcome);
            }
        }
        if no_finish_needed {
            self.forget_question(id, fx);
        }
    }

    /// Results are there: promises for capabilities in them are resolved, and the results hold what those have become.
    fn settle_places(
        &mut self,
        id: QuestionId,
        places: Places,
        handle: &Option<Arc<QuestionRef>>,
        (outcome, mut accepted): (&mut Result<Payload, Exception>, Short<Accepted>),
        fx: &mut Effects,
    ) {
        if let (Ok(payload), true) = (&*outcome, accepted.is_empty()) {
            let ours = |client: &Client| Accepted::Ours(Named::Capability(client.clone()));
            accepted = payload.caps.iter().map(ours).collect();
        }
        let mut made: Short<Option<Client>> = accepted.iter().map(|_| None).collect();
        for (path, promise) in places.promised_in_order() {
            self.resolve_pipelined(promise, path, outcome, (handle, &mut accepted, &mut made), fx);
        }
        if let (Some(handle), Ok(payload)) = (handle, &*outcome) {
            for (path, ()) in places.used.iter() {
                self.keep_behind(handle, path.clone(), payload, (&mut accepted, &mut made), fx);
            }
        }
        let Ok(payload) = outcome else { return };
        if accepted.iter().any(|accepted| !accepted.is_settled()) {
            let said = accepted.iter().map(Accepted::said).collect();
            if let Some(question) = self.question_mut(id) {
                question.places = Some(Box::new(Places { said, ..Places::default() }));
            }
        }
        for ((cap, made), to) in payload.caps.iter_mut().zip(made).zip(accepted) {
            let client = match made {
                Some(client) => {
                    fx.discard(to);
                    client
                }
                None => self.client_for(to, fx),
            };
            fx.discard(std::mem::replace(cap, client));
        }
    }

    /// The peer has the results of a tail call. They can be called there until our Finish, and we are never told
    /// what is in them: so promises for what is stay what they are, and more can be made.
    fn answered_elsewhere(&mut self, id: QuestionId) {
        let entry = self.question_mut(id).map(|question| &mut question.entry);
        let on_return = entry.and_then(|entry| entry.mark_returned(Ended::Elsewhere));
        self.under_way -= usize::from(on_return.is_some());
        debug_assert!(
            on_return.is_some_and(|then| then.is_empty()),
            "nobody waits for a tail call's results"
        );
    }

    /// Resolves a promise for a capability in some results, and notes what its holders have now for that place of the
    /// results: whoever takes the capability from there stays behind the calls that were sent ahead.
    fn resolve_pipelined(
        &mut self,
        promise: RefId,
        path: Path,
        outcome: &Result<Payload, Exception>,
        (question, accepted, made): (&Option<Arc<QuestionRef>>, &mut [Accepted], &mut [Option<Client>]),
        fx: &mut Effects,
    ) {
        let index = match outcome {
            Ok(payload) => payload.index_at(&path),
            Err(why) => Err(why.clone()),
        };
        let client = match index {
            Ok(Some(index)) => {
                if let Some(question) = question {
                    let place = RemoteTarget::Answer(question.clone(), path);
                    accepted[index] = self.without_circle(&place, accepted[index].clone(), fx);
                    fx.discard(place);
                }
                let client = self.resolve_promise(promise, accepted[index].clone(), fx);
                return fx.discard(made[index].replace(client));
            }
            Ok(None) => Client::null(),
            Err(why) => Client::broken(why),
        };
        let client = self.resolve_promise(promise, Accepted::settled(client), fx);
        fx.discard(client);
    }

    /// Keeps whoever takes a capability from some results behind the calls that promises for it sent ahead, which
    /// are gone.
    fn keep_behind(
        &mut self,
        question: &Arc<QuestionRef>,
        path: Path,
        payload: &Payload,
        (accepted, made): (&mut [Accepted], &mut [Option<Client>]),
        fx: &mut Effects,
    ) {
        let Ok(Some(index)) = payload.index_at(&path) else { return };
        let place = RemoteTarget::Answer(question.clone(), path);
        accepted[index] = self.without_circle(&place, accepted[index].clone(), fx);
        let client = self.stay_behind(&place, accepted[index].clone(), fx);
        fx.discard((made[index].replace(client), place));
    }
}
