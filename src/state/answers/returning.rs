//! Returns that are sent: the outcome of a call goes to the peer, or stays here.

use super::super::effects::Effects;
use super::super::entry::Entry;
use super::super::outcome::Returned;
use super::super::{cost, State};
use super::{Answer, OnFinish};
use crate::cap::contents::Payload;
use crate::cap::port::AnswerKey;
use crate::cap::request;
use crate::error::Exception;
use crate::id::{AnswerId, ExportId};
use crate::short::Short;
use crate::wire::content::Content;
use crate::wire::message::{Descriptor, Message, Outcome, Outgoing, Payload as WirePayload, Return};

impl State {
    /// Answers a call of the peer's. Does nothing if it has been answered.
    pub(crate) fn answer(&mut self, key: AnswerKey, outcome: Result<Payload, Exception>, fx: &mut Effects) {
        let known = self.answers.get(&key.id).filter(|answer| answer.generation == key.generation);
        let Some(answer) = known else { return fx.discard(outcome) };
        let (kept, silent) = (answer.kept.is_some(), answer.silent);
        match &answer.entry {
            Entry::HaveReturn { .. } => fx.discard(outcome),
            Entry::HaveFinish { .. } => self.answer_unwanted(key.id, outcome, fx),
            Entry::NewQA { .. } if kept || silent => self.answer_here(key.id, outcome, fx),
            Entry::NewQA { .. } => self.answer_peer(key.id, outcome, fx),
        }
    }

    /// The usual way: the outcome goes to the peer.
    pub(super) fn answer_peer(
        &mut self,
        id: AnswerId,
        outcome: Result<Payload, Exception>,
        fx: &mut Effects,
    ) {
        let payload = match outcome {
            Ok(payload) if payload.caps.is_empty() => return self.answer_whole(id, payload, fx),
            Ok(payload) => payload,
            Err(why) => return self.return_exception(id, why, fx),
        };
        let described = match self.describe_all(&payload.caps, fx) {
            Ok(described) => described,
            Err(why) => {
                fx.discard(payload);
                return self.return_exception(id, why, fx);
            }
        };
        let Payload { content, caps, share } = payload;
        fx.discard(share);
        self.send_results(id, content.clone(), described.descriptors, fx);
        let returned = Returned::for_calls(Payload::new(content, caps), described.pinned);
        self.returned(id, returned, described.exports, fx);
    }

    /// Results in which nothing can be called are sent as they lie, and nothing of the answer is kept.
    pub(super) fn answer_whole(&mut self, id: AnswerId, payload: Payload, fx: &mut Effects) {
        let Payload { content, share, .. } = payload;
        fx.discard(share);
        self.send_results(id, content, Short::new(), fx);
        let mut answer = self.take_answer(id).expect("the caller found it");
        self.ended_answers.insert(id.0);
        let on_return = answer.entry.on_return_mut().map(std::mem::take).unwrap_or_default();
        if !on_return.is_empty() {
            let nothing = Returned::whole(request::empty());
            self.run_on_return(on_return, &nothing, fx);
        }
        fx.discard(answer);
    }

    pub(super) fn send_results(
        &self,
        answer: AnswerId,
        content: Content,
        descriptors: Short<Descriptor<Outgoing>>,
        fx: &mut Effects,
    ) {
        fx.send(Message::Return(Return {
            answer,
            release_param_caps: false,
            no_finish_needed: descriptors.is_empty(),
            outcome: Outcome::Results(WirePayload { content, descriptors }),
        }));
    }

    pub(super) fn return_exception(&mut self, id: AnswerId, why: Exception, fx: &mut Effects) {
        // A Finish is needed, so that calls pipelined on the answer get this exception until then.
        self.send_return(id, Outcome::Exception(why.clone()), fx);
        self.returned(id, Returned::Failed(why), Short::new(), fx);
    }

    /// The outcome stays here: the peer wants it kept, or wants only to call what is in it.
    pub(super) fn answer_here(
        &mut self,
        id: AnswerId,
        outcome: Result<Payload, Exception>,
        fx: &mut Effects,
    ) {
        let answer = self.answers.get(&id).expect("the caller found it");
        if !answer.silent {
            self.send_return(id, Outcome::ResultsSentElsewhere, fx);
        }
        let returned = match outcome {
            Ok(payload) if answer.kept.is_some() => Returned::whole(payload),
            Ok(payload) => Returned::for_calls(payload, Vec::new()),
            Err(why) => Returned::Failed(why),
        };
        self.returned(id, returned, Short::new(), fx);
    }

    /// The peer has finished the call, so this is for those who wait for the answer here.
    pub(super) fn answer_unwanted(
        &mut self,
        id: AnswerId,
        outcome: Result<Payload, Exception>,
        fx: &mut Effects,
    ) {
        let answer = self.take_answer(id).expect("the caller found it");
        if let Entry::HaveFinish { on_return, .. } = &answer.entry {
            let returned = match outcome {
                Ok(payload) => Returned::whole(payload),
                Err(why) => Returned::Failed(why),
            };
            self.run_on_return(on_return.clone(), &returned, fx);
            fx.discard(returned);
        }
        self.send_last_return(id, &answer, fx);
        fx.discard(answer);
    }

    /// The Return for a call that was canceled.
    pub(in crate::state) fn send_last_return(&mut self, id: AnswerId, answer: &Answer, fx: &mut Effects) {
        match (answer.silent, answer.kept) {
            (true, _) => {}
            (false, Some(_)) => self.send_return(id, Outcome::ResultsSentElsewhere, fx),
            (false, None) => self.send_return(id, Outcome::Canceled, fx),
        }
    }

    pub(super) fn send_return(&self, answer: AnswerId, outcome: Outcome<Outgoing>, fx: &mut Effects) {
        fx.send(Message::Return(Return {
            answer,
            release_param_caps: false,
            no_finish_needed: false,
            outcome,
        }));
    }

    /// Enters what an answer was returned with, and does what waited for that.
    pub(super) fn returned(
        &mut self,
        id: AnswerId,
        returned: Returned,
        exports: Short<ExportId>,
        fx: &mut Effects,
    ) {
        let answer = self.answers.get_mut(&id).expect("the caller found it");
        fx.discard(answer.onward.take());
        answer.bytes = returned.bytes() + exports.iter().count() * cost::EXPORT_ID;
        self.answer_bytes += answer.bytes;
        let on_return = answer.entry.mark_returned(returned).expect("the caller knows that it is new");
        self.under_way -= 1;
        let Entry::HaveReturn { return_msg, on_finish } = &mut answer.entry else { return };
        if !exports.is_empty() {
            on_finish.push(OnFinish::Release(exports));
        }
        if !on_return.is_empty() {
            let returned = return_msg.clone();
            self.run_on_return(on_return, &returned, fx);
            fx.discard(returned);
        }
    }
}
