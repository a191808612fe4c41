//! Answers: calls that the peer sent.
//!
//! ```text
//! Note [Answer lifecycle]
//! =======================
//! A call is entered when its message is handled, and handed to its object by the callback thread. Whoever
//! has it then (a mailbox, a method, another connection) answers it by its key, from any thread.
//!
//! - Return first: results without capabilities are sent with `noFinishNeeded`, and the entry is gone. Else
//!   it stays, for calls pipelined on the results, until the peer's Finish.
//! - Finish first: if nothing else wants the results (Note [Wanted answers]), the call is canceled: the method is
//!   told, and the peer gets `canceled` at once. Else it goes on, and is canceled when nothing wants them any more.
//! - Results that the peer wants kept (`sendResultsTo.yourself`) stay here until a Return of the peer's
//!   takes them for a question of ours, or the Finish drops them.
//! ```

mod returning;

use super::all_parts::AllParts;
use super::effects::{Callback, Destination, Effects};
use super::entry::Entry;
use super::moment::Moment;
use super::outcome::Returned;
use super::owed::Owed;
use super::questions::Ended;
use super::refusals::refused;
use super::targets::Addressee;
use super::waiting::Waiting;
use super::State;
use crate::cap::answer::Pipeline;
use crate::cap::call::{CallInfo, Hints, Responder, Route, TakeOnce};
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{AnswerKey, Awaited, Generation, QuestionRef, Ticket};
use crate::cap::promised::PromiseCell;
use crate::cap::request;
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::{AnswerId, ExportId, QuestionId};
use crate::promise::{Attachment, Cancel};
use crate::short::Short;
use crate::sync::{Arc, Weak};
use crate::wire::message::{Call, Descriptor, Finish, Incoming, Message, Outcome, Path};

/// A message that has arrived, with its share of the limit on incoming calls.
pub(crate) struct ReceivedMessage {
    pub(crate) message: Message<Incoming>,
    pub(crate) share: Option<Arc<dyn Attachment>>,
}

/// A call that the peer sent. See Note [Answer lifecycle].
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(super) entry: Entry<Returned, Finish<Incoming>, Waiting, OnFinish>,
    pub(super) generation: Generation,
    pub(super) since: Moment,
    /// The method called, of which interface; `None` for a bootstrap.
    pub(super) method_id: Option<u16>,
    pub(super) interface_id: u64,
    pub(super) cancel: Cancel,
    /// In a box, as few calls are, and entries are moved.
    pub(super) onward: Option<Box<Onward>>,
    /// The results stay here.
    pub(super) kept: Option<Kept>,
    /// `onlyPromisePipeline`: no Return is sent.
    pub(super) silent: bool,
    /// The answer of ours that this call waits for.
    pub(super) awaits: Option<Awaited>,
    /// The answers of ours that the params named when they were not there yet.
    pub(super) names: Box<[Awaited]>,
    /// Whether the params hold promises.
    pub(super) holds_promises: bool,
    /// How many bytes what it was returned with takes.
    pub(super) bytes: usize,
}

/// Where a call has been handed on to.
#[derive(Clone, Debug, Default)]
pub(super) struct Onward {
    /// What calls pipelined on the results go to until they are there.
    pub(super) pipeline: Option<Pipeline>,
    /// What the call has become in another vat: finished with the answer.
    pub(super) question: Option<Arc<QuestionRef>>,
    /// The furthest answer that is known to become this one. See Note [Answers that are taken].
    pub(super) furthest: Option<AnswerKey>,
}

/// What has become of results that the peer wants kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Untaken,
    Taken,
}

/// What is to be done when an answer is there.
#[derive(Clone, Debug)]
pub(crate) enum OnReturn {
    /// Hand on a call that the peer pipelined on it.
    Deliver { waiting: AnswerId, call: TakeOnce<CallInfo>, path: Path },
    /// Say what a promise for a capability in it is, if anything holds that promise.
    Resolve { cell: Owed<Weak<PromiseCell>>, path: Path },
    /// It is the outcome of this question.
    Take(QuestionId),
    /// Nothing: an embargo is for a capability in it.
    Keep,
}

/// What is to be done when the peer finishes an answer.
#[derive(Clone, Debug)]
pub(crate) enum OnFinish {
    /// Take back the references that the results gave, if the peer says so.
    Release(Short<ExportId>),
}

impl Answer {
    fn new(generation: Generation) -> Self {
        Answer {
            entry: Entry::new(),
            generation,
            since: Moment::now(),
            method_id: None,
            interface_id: 0,
            cancel: Cancel::new(),
            onward: None,
            kept: None,
            silent: false,
            awaits: None,
            names: Box::default(),
            holds_promises: false,
            bytes: 0,
        }
    }

    pub(super) fn returned(&self) -> Option<&Returned> {
        match &self.entry {
            Entry::HaveReturn { return_msg, .. } => Some(return_msg),
            _ => None,
        }
    }

    /// What calls pipelined on the results go to until they are there, if that is known.
    pub(super) fn pipeline(&self) -> Option<&Pipeline> {
        self.onward.as_ref()?.pipeline.as_ref()
    }

    pub(super) fn onward(&mut self) -> &mut Onward {
        self.onward.get_or_insert_default()
    }

    /// Has the call go on until the name is dropped.
    pub(super) fn keep(&mut self, ticket: Ticket) {
        if let Some(on_return) = self.entry.on_return_mut() {
            on_return.push(ticket, OnReturn::Keep);
        }
    }

    /// Has a promise resolved when the answer is there.
    pub(super) fn resolve_on_return(&mut self, ticket: Ticket, cell: &Arc<PromiseCell>, path: Path) {
        if let Some(on_return) = self.entry.on_return_mut() {
            on_return.push(ticket, OnReturn::Resolve { cell: Owed::new(Arc::downgrade(cell)), path });
        }
    }
}

impl State {
    pub(super) fn receive_bootstrap(&mut self, id: AnswerId, fx: &mut Effects) -> Result<(), ProtocolError> {
        if self.is_full(false, &[]) {
            return self.refuse(id, fx);
        }
        self.check_new_answer(id)?;
        let key = self.new_answer(id);
        let outcome = match self.bootstrap.is_null() {
            true => Err(Exception::failed("this vat offers no bootstrap object to this connection")),
            false => Ok(request::single_capability(&self.bootstrap)),
        };
        self.answer(key, outcome, fx);
        Ok(())
    }

    pub(super) fn receive_call(
        &mut self,
        call: Call<Incoming>,
        share: Option<Arc<dyn Attachment>>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let Some(port) = self.port() else { return Ok(()) };
        if self.is_full(call.keep_results, &call.params.descriptors) {
            return self.refuse_call(&call, fx);
        }
        let addressee = self.addressee(call.target)?;
        self.check_new_answer(call.question)?;
        self.check_descriptors(&call.params.descriptors, Some(call.question))?;
        let mut answer = Answer::new(self.generation());
        (answer.interface_id, answer.method_id) = (call.interface_id, Some(call.method_id));
        answer.kept = call.keep_results.then_some(Kept::Untaken);
        answer.silent = call.only_promise_pipeline && !call.keep_results;
        let (silent, cancel) = (answer.silent, answer.cancel.clone());
        let key = self.enter(call.question, answer);
        let names = call.params.descriptors.iter().any(|d| matches!(d, Descriptor::ReceiverAnswer(_)));
        let caps = self.accept_all(call.params.descriptors, fx);
        if names {
            self.note_names(key.id, &caps);
        }
        if caps.iter().any(Client::may_be_promise) {
            self.answers.get_mut(&key.id).expect("just entered").holds_promises = true;
        }
        let info = CallInfo {
            interface_id: call.interface_id,
            method_id: call.method_id,
            params: Payload { content: call.params.content, caps, share },
            responder: Responder::new(Route::Remote(port, key)),
            cancel,
            hints: Hints { no_promise_pipelining: call.no_promise_pipelining, only_promise_pipeline: silent },
        };
        match addressee {
            Addressee::Known(to) => fx.later(Callback::Deliver { call: info, to }),
            Addressee::Awaits(awaited, path) => {
                let ticket = self.generation();
                let answer = self.answers.get_mut(&key.id).expect("just entered");
                answer.awaits = Some(Awaited { answer: awaited, ticket });
                let waiting = OnReturn::Deliver { waiting: key.id, call: TakeOnce::new(info), path };
                let awaited = self.answers.get_mut(&awaited).expect("addressee found it");
                awaited.entry.on_return_mut().expect("addressee says so").push(ticket, waiting);
            }
        }
        Ok(())
    }

    pub(super) fn check_new_answer(&self, id: AnswerId) -> Result<(), ProtocolError> {
        match self.answers.contains_key(&id) {
            true => Err(ProtocolError::DuplicateQuestion(id)),
            false => Ok(()),
        }
    }

    pub(super) fn new_answer(&mut self, id: AnswerId) -> AnswerKey {
        let answer = Answer::new(self.generation());
        self.enter(id, answer)
    }

    fn enter(&mut self, id: AnswerId, answer: Answer) -> AnswerKey {
        self.ended_answers.remove(id.0);
        self.refused_answers.remove(id.0);
        self.highest_answer = self.highest_answer.max(Some(id));
        let generation = answer.generation;
        self.under_way += 1;
        self.answers.insert(id, answer);
        AnswerKey { id, generation }
    }

    /// Takes an answer out of the table.
    pub(super) fn take_answer(&mut self, id: AnswerId) -> Option<Answer> {
        let answer = self.answers.remove(&id)?;
        self.answer_bytes -= answer.bytes;
        self.under_way -= usize::from(answer.entry.is_new());
        Some(answer)
    }

    pub(super) fn answer_mut(&mut self, key: AnswerKey) -> Option<&mut Answer> {
        self.answers.get_mut(&key.id).filter(|answer| answer.generation == key.generation)
    }

    pub(super) fn run_on_return(&mut self, on_return: Waiting, returned: &Returned, fx: &mut Effects) {
        for question in self.go_on(on_return, |path| returned.destination(path), fx) {
            let outcome = match returned {
                Returned::Results { payload, .. } => Ok(payload.clone()),
                Returned::Failed(why) => Err(why.clone()),
                Returned::Tail(_) => Err(Exception::failed("kept results were passed on")),
            };
            self.answered(question, outcome, Short::new(), Ended::Results, false, fx);
        }
    }

    /// It is known where calls pipelined on an answer go. Those that waited are handed on, and the promises for its
    /// capabilities are resolved, in the order in which they came: see Note [Order across callbacks]. Gives the questions
    /// that wait for the outcome.
    fn go_on(
        &mut self,
        on_return: Waiting,
        to: impl Fn(&[u16]) -> Destination,
        fx: &mut Effects,
    ) -> Vec<QuestionId> {
        let mut questions = Vec::new();
        for then in on_return.each() {
            match then {
                OnReturn::Deliver { waiting, call, path } => {
                    self.deliver_waiting(waiting, &call, to(&path), fx);
                }
                OnReturn::Resolve { cell, path } => {
                    if let Some(cell) = cell.pay().upgrade() {
                        fx.later(Callback::Resolve { cell, to: to(&path) });
                    }
                }
                OnReturn::Take(question) => questions.push(question),
                OnReturn::Keep => {}
            }
        }
        questions
    }

    fn deliver_waiting(
        &mut self,
        waiting: AnswerId,
        call: &TakeOnce<CallInfo>,
        to: Destination,
        fx: &mut Effects,
    ) {
        let Some(call) = call.take() else { return };
        if let Some(answer) = self.answers.get_mut(&waiting) {
            answer.awaits = None;
        }
        fx.later(Callback::Deliver { call, to });
    }

    /// Calls pipelined on an answer need not wait for it: those that did go on.
    pub(crate) fn set_pipeline(&mut self, key: AnswerKey, pipeline: Pipeline, fx: &mut Effects) {
        let Some(answer) = self.answer_mut(key) else { return fx.discard(pipeline) };
        let known = answer.pipeline().is_some();
        let Some(on_return) = answer.entry.on_return_mut().filter(|_| !known) else {
            return fx.discard(pipeline);
        };
        let waiting = std::mem::take(on_return);
        answer.onward().pipeline = Some(pipeline.clone());
        let questions = self.go_on(waiting, |path| Destination::Pipeline(pipeline.at(path)), fx);
        questions.into_iter().for_each(|question| self.take_on_return(key.id, question));
        self.cancel_if_unwanted(key.id, fx);
    }

    /// A call was handed on to another vat, where it is this question. Pipelined calls go there too, unless a
    /// method has said where they go.
    pub(crate) fn forwarded(&mut self, key: AnswerKey, question: Arc<QuestionRef>, fx: &mut Effects) {
        match self.answer_mut(key).filter(|answer| !answer.entry.has_returned()) {
            Some(answer) => fx.discard(answer.onward().question.replace(question.clone())),
            None => return fx.discard(question),
        }
        self.set_pipeline(key, Pipeline::of_question(question), fx);
    }

    /// Whether a call that the peer sent may be answered by one sent back to it.
    pub(super) fn may_tail_call(&self, key: AnswerKey) -> bool {
        self.answers.get(&key.id).is_some_and(|answer| {
            answer.generation == key.generation
                && answer.entry.is_new()
                && answer.kept.is_none()
                && !answer.silent
        })
    }

    /// Answers a call of the peer's with the results of one that was sent back to it and that it keeps.
    pub(super) fn return_tail(&mut self, key: AnswerKey, question: Arc<QuestionRef>, fx: &mut Effects) {
        self.send_return(key.id, Outcome::TakeFromOtherQuestion(question.id), fx);
        self.returned(key.id, Returned::Tail(question), Short::new(), fx);
    }

    /// A question of ours is answered by results that we keep for the peer, which the caller has checked.
    pub(super) fn take_kept(&mut self, question: QuestionId, id: AnswerId, fx: &mut Effects) {
        let circle = self.waits_for_question(id, question);
        let Some(answer) = self.answers.get_mut(&id) else {
            return self.answered(question, Err(refused()), Short::new(), Ended::Exception, false, fx);
        };
        answer.kept = Some(Kept::Taken);
        let outcome = match answer.returned() {
            Some(Returned::Results { payload, .. }) => Ok(payload.clone()),
            Some(Returned::Failed(why)) => Err(why.clone()),
            Some(Returned::Tail(_)) => Err(Exception::failed("kept results were passed on")),
            None if circle => Err(Exception::failed("a call is to be answered by its own results")),
            None => return self.take_on_return(id, question),
        };
        self.answered(question, outcome, Short::new(), Ended::Results, false, fx);
    }

    /// A question of ours is answered when an answer of ours is there, which it is not.
    fn take_on_return(&mut self, id: AnswerId, question: QuestionId) {
        let ticket = self.generation();
        let Some(asked) = self.question_mut(question) else { return };
        asked.taking = Some(Awaited { answer: id, ticket });
        let on_return = self.answers.get_mut(&id).and_then(|answer| answer.entry.on_return_mut());
        on_return.expect("not returned, as the caller has seen").push(ticket, OnReturn::Take(question));
    }

    /// Results that we keep for the peer are for a question of ours that has been canceled.
    pub(super) fn abandon_kept(&mut self, id: AnswerId, fx: &mut Effects) {
        if let Some(answer) = self.answers.get_mut(&id).filter(|a| a.kept == Some(Kept::Untaken)) {
            answer.kept = Some(Kept::Taken);
            self.cancel_if_unwanted(id, fx);
        }
    }

    pub(super) fn receive_finish(
        &mut self,
        finish: Finish<Incoming>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let id = finish.question;
        match self.answers.get(&id).map(|answer| answer.entry.has_finished()) {
            Some(false) => {}
            // It changes nothing.
            Some(true) => return Ok(()),
            // It is late: the answer was returned with `noFinishNeeded`, or has been finished before.
            None if self.highest_answer >= Some(id) => {
                self.ended_answers.remove(id.0);
                self.refused_answers.remove(id.0);
                return Ok(());
            }
            None => return Err(ProtocolError::UnknownAnswer(id)),
        }
        let answer = self.answers.get_mut(&id).expect("just found");
        match &mut answer.entry {
            Entry::HaveFinish { .. } => {}
            Entry::HaveReturn { on_finish, .. } => {
                let on_finish = std::mem::take(on_finish);
                fx.discard(self.take_answer(id));
                for OnFinish::Release(exports) in on_finish.into_iter() {
                    if finish.release_result_caps {
                        fx.later(Callback::Release(exports.into_vec()));
                    }
                }
            }
            Entry::NewQA { on_return, .. } => {
                let on_return = std::mem::take(on_return);
                answer.entry = Entry::HaveFinish { finish_msg: finish, on_return };
                self.under_way -= 1;
                self.cancel_if_unwanted(id, fx);
            }
        }
        Ok(())
    }

    pub(super) fn end_answers(&mut self, why: &Exception, fx: &mut Effects) {
        let answers = self.answers.take();
        self.answer_bytes = 0;
        self.ended_answers.clear();
        self.refused_answers.clear();
        let mut all = AllParts::default();
        for (id, answer) in answers.iter() {
            let key = AnswerKey { id, generation: answer.generation };
            fx.later(Callback::Cancel { key, token: answer.cancel.clone(), after_start: false });
            all.part(|| {
                let on_return = match &answer.entry {
                    Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } => on_return.clone(),
                    Entry::HaveReturn { .. } => Waiting::default(),
                };
                self.run_on_return(on_return, &Returned::Failed(why.clone()), fx);
                self.under_way -= usize::from(answer.entry.is_new());
            });
        }
        fx.discard(answers);
        all.finish();
    }
}
