//! Questions: calls that this vat sends.
//!
//! ```text
//! Note [Question lifecycle]
//! =========================
//! A question is asked for somebody (`on_return`), and lives as long as somebody wants something of it: its
//! results, or calls on them. Whoever does holds the `QuestionRef`; when the last one lets go, Finish is sent.
//!
//! - Return first: the results are handed on, promises for capabilities in them are resolved, and all who
//!   held the question for that let go; then Finish goes, and the ID is free.
//! - Finish first: the call is canceled, and the peer told to release what its results will hold. The ID is
//!   free when the Return has come; what that describes was never ours.
//! - A Return with `noFinishNeeded` ends the question at once.
//! - Calls pipelined on a question hold it, so none is sent behind its Finish.
//! - A call that came over another connection and goes on here counts there until its Return has come, canceled
//!   or not: see Note [Backpressure].
//! - Which places in the results were called is remembered until those are there, or nobody wants them any more. A peer can
//!   have us call as many as it likes, and all of those calls returned. So the first call on each place that came over
//!   another connection counts there for as long as the place is remembered.
//! ```

mod calls;

use im::Vector;

use super::all_parts::AllParts;
use super::descriptors::Accepted;
use super::effects::{Callback, Effects};
use super::entry::Entry;
use super::imports::Pending;
use super::moment::Moment;
use super::owed::Owed;
use super::said::Said;
use super::State;
use crate::cap::answer::PendingCall;
use crate::cap::call::{Responder, Route, TakeOnce};
use crate::cap::client::{Client, Kind};
use crate::cap::port::{Awaited, ConnectionId, Generation, QuestionRef, RefId, RemoteTarget};
use crate::cap::request;
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::{AnswerId, ExportId, QuestionId};
use crate::promise::Attachment;
use crate::short::Short;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Weak};
use crate::table::ByPath;
use crate::wire::message::{Finish, Message, Outgoing, Path};

pub(crate) use calls::CallDisposition;

/// The top bit marks the IDs of questions asked for pipelining alone.
pub(super) const PIPELINE_BIT: u32 = 1 << 31;

/// A call that we sent. See Note [Question lifecycle].
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(super) entry: Entry<Ended, Finish<Outgoing>, Short<OnReturn>, OnFinish>,
    pub(super) generation: Generation,
    /// What the params gave to the peer, until a Return has said whether it keeps that.
    pub(super) param_exports: Vec<ExportId>,
    /// `sendResultsTo.yourself`: a tail call back to the peer.
    pub(super) tail: bool,
    /// The results are those of this answer of ours, which is not there yet.
    pub(super) taking: Option<Awaited>,
    pub(super) handle: Weak<QuestionRef>,
    /// Places in the results that somebody has asked for, while those are not there.
    pub(super) places: Option<Box<Places>>,
    /// The method called, of which interface; `None` for a bootstrap.
    pub(super) method_id: Option<u16>,
    pub(super) interface_id: u64,
    pub(super) since: Moment,
    /// What the call counts towards the limit on incoming calls, where it came in.
    pub(super) share: Option<TakeOnce<Arc<dyn Attachment>>>,
}

/// Places in results that are to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Promises for the capabilities there.
    pub(super) promised: ByPath<RefId>,
    /// Where calls were sent to by promises that are gone.
    pub(super) used: ByPath<()>,
    /// What the first call on each place counts towards the limit on incoming calls, where it came in.
    pub(super) charged: Vector<TakeOnce<Arc<dyn Attachment>>>,
    /// Once the results are there, what the peer has said of each capability in them.
    pub(super) said: Short<Said>,
}

impl Places {
    /// Promises for the capabilities there, in the order in which they were asked for.
    pub(super) fn promised_in_order(&self) -> Vec<(Path, RefId)> {
        let mut promised: Vec<_> = self.promised.iter().map(|(path, id)| (path.clone(), *id)).collect();
        promised.sort_unstable_by_key(|(_, id)| *id);
        promised
    }
}

impl Question {
    /// The places in the results are remembered no longer.
    pub(super) fn take_places(&mut self, fx: &mut Effects) -> Option<Box<Places>> {
        self.give_back_places(fx);
        self.places.take()
    }

    /// Places count no longer. (Their shares are taken out of all snapshots too.)
    fn give_back_places(&self, fx: &mut Effects) {
        let charged = self.places.iter().flat_map(|places| &places.charged);
        charged.for_each(|share| fx.discard(share.take()));
    }

    /// Promises for capabilities in the results.
    pub(super) fn promised(&self) -> impl Iterator<Item = (&Path, &RefId)> {
        self.places.iter().flat_map(|places| places.promised.iter())
    }

    /// One that has yet to get its generation and its handle.
    fn new(param_exports: Vec<ExportId>, on_return: Short<OnReturn>) -> Self {
        Question {
            entry: Entry::NewQA { on_return, on_finish: Short::new() },
            generation: 0,
            param_exports,
            tail: false,
            taking: None,
            handle: Weak::new(),
            places: None,
            method_id: None,
            interface_id: 0,
            since: Moment::now(),
            share: None,
        }
    }

    /// What the peer has said of a capability in the results, if anybody has asked for one while they were not there, and
    /// some are promises or of this vat.
    pub(super) fn said(&self, index: usize) -> Option<&Said> {
        self.places.as_ref()?.said.get(index)
    }

    fn promised_at(&self, path: &[u16]) -> Option<RefId> {
        self.places.as_ref()?.promised.get(path).copied()
    }

    /// Whether what is in the results is yet to be known, or never will be.
    pub(super) fn has_promises(&self) -> bool {
        let elsewhere = matches!(self.entry, Entry::HaveReturn { return_msg: Ended::Elsewhere, .. });
        self.entry.is_new() || elsewhere
    }

    /// Nobody serves the call any more. (Its share is taken out of all snapshots too.)
    pub(super) fn give_back_share(&mut self, fx: &mut Effects) {
        fx.discard(self.share.take().and_then(|share| share.take()));
    }
}

/// How a question was answered, for those who look at the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Results,
    Exception,
    Elsewhere,
}

/// What is to be done when a question is answered.
#[derive(Clone, Debug)]
pub(super) enum OnReturn {
    /// Tell a call made in this vat, which heeds the first answer only. It holds its question until it is answered or
    /// nobody wants the answer, so there is no duty to be kept.
    Tell(Owed<Arc<dyn PendingCall>>),
    /// Answer a call that came in: over this connection, with this ID.
    Respond(ConnectionId, AnswerId, TakeOnce<Responder>),
}

impl OnReturn {
    fn of(responder: Responder) -> Self {
        match responder.disarm() {
            Route::Here(call) => OnReturn::Tell(Owed::new(call)),
            Route::Remote(port, key) => {
                let (connection, id) = (port.connection(), key.id);
                let responder = Responder::new(Route::Remote(port, key));
                OnReturn::Respond(connection, id, TakeOnce::new(responder))
            }
        }
    }

    /// Whether it is a call made in this vat, or nobody's any more.
    pub(super) fn is_here(&self) -> bool {
        match self {
            OnReturn::Tell(_) => true,
            OnReturn::Respond(_, _, responder) => responder.look(|responder| responder.is_none()),
        }
    }

    /// The duty to answer, unless it has been taken.
    pub(super) fn take(self) -> Option<Responder> {
        match self {
            OnReturn::Tell(call) => Some(Responder::new(Route::Here(call.pay()))),
            OnReturn::Respond(_, _, responder) => responder.take(),
        }
    }
}

/// What is to be done when a question is finished: nothing so far.
#[derive(Clone, Debug)]
pub(crate) enum OnFinish {}

impl State {
    /// Asks for the peer's bootstrap object. Gives the question too, unless the connection has ended.
    pub(crate) fn ask_bootstrap(&mut self, fx: &mut Effects) -> (Client, Option<Arc<QuestionRef>>) {
        let Some(port) = self.port().filter(|_| self.ended.is_none()) else { return (self.gone(), None) };
        let question = self.ask(port, false, Question::new(Vec::new(), Short::new()));
        fx.send(Message::Bootstrap { question: question.id });
        (self.pipelined(&question, &[]), Some(question))
    }

    fn ask(
        &mut self,
        port: Arc<dyn crate::cap::port::ConnectionOps>,
        for_pipeline: bool,
        mut question: Question,
    ) -> Arc<QuestionRef> {
        self.asked += 1;
        self.under_way += usize::from(!for_pipeline);
        let generation = self.asked;
        question.generation = generation;
        if for_pipeline {
            let id = self.free_pipeline_question();
            let handle = Arc::new(QuestionRef::new(port, id, generation));
            question.handle = Arc::downgrade(&handle);
            self.pipeline_questions.insert(id, question);
            return handle;
        }
        let mut handle = None;
        self.questions.insert(|id| {
            let new = Arc::new(QuestionRef::new(port, id, generation));
            question.handle = Arc::downgrade(&new);
            handle = Some(new);
            question
        });
        handle.expect("set by insert")
    }

    /// IDs of questions for pipelining alone are used in turn, as we are not told when the peer forgets one.
    fn free_pipeline_question(&mut self) -> QuestionId {
        loop {
            let id = QuestionId(PIPELINE_BIT | self.next_pipeline_question);
            self.next_pipeline_question = (self.next_pipeline_question + 1) & !PIPELINE_BIT;
            if !self.pipeline_questions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn question(&self, id: QuestionId) -> Option<&Question> {
        match id.0 & PIPELINE_BIT {
            0 => self.questions.get(id),
            _ => self.pipeline_questions.get(&id),
        }
    }

    pub(super) fn question_mut(&mut self, id: QuestionId) -> Option<&mut Question> {
        match id.0 & PIPELINE_BIT {
            0 => self.questions.get_mut(id),
            _ => self.pipeline_questions.get_mut(&id),
        }
    }

    /// Takes a question out of the table and frees its ID: its Return has come and its Finish is sent, or
    /// neither is needed any more.
    pub(super) fn forget_question(&mut self, id: QuestionId, fx: &mut Effects) {
        let question = match id.0 & PIPELINE_BIT {
            0 => self.questions.remove(id),
            _ => self.pipeline_questions.remove(&id),
        };
        let Some(mut question) = question else { return };
        self.under_way -= usize::from(id.0 & PIPELINE_BIT == 0 && question.entry.is_new());
        question.give_back_share(fx);
        question.give_back_places(fx);
        if let Some(handle) = question.handle.upgrade() {
            handle.ended.store(true, Ordering::Relaxed);
            fx.discard(handle);
        }
        fx.discard(question);
    }

    /// The client of the capability at `path` in a question's results: a promise until they are there.
    pub(crate) fn pipelined(&mut self, question: &Arc<QuestionRef>, path: &[u16]) -> Client {
        if let Some(outcome) = question.outcome.get() {
            return match outcome {
                Ok(payload) => payload.client_at(path),
                Err(why) => Client::broken(why.clone()),
            };
        }
        let entry = self.question(question.id).filter(|q| q.generation == question.generation);
        let Some(entry) = entry.filter(|q| q.has_promises()) else { return self.gone() };
        let known = entry.promised_at(path).and_then(|id| self.promises.get(&id));
        if let Some(cell) = known.and_then(|pending| pending.cell.upgrade()) {
            return Client(Kind::RemotePromise(cell));
        }
        // That its clients are gone may not have been noticed yet.
        let used = known.is_some_and(|pending| pending.used);
        let path: Path = path.into();
        let cell =
            self.promise_at(RemoteTarget::Answer(question.clone(), path.clone()), question.port.clone());
        let entry = self.question_mut(question.id).expect("found above");
        let places = entry.places.get_or_insert_default();
        let used = places.used.remove(&path).is_some() || used;
        places.promised.insert(path, cell.id);
        self.promises.get_mut(&cell.id).expect("just made").used = used;
        Client(Kind::RemotePromise(cell))
    }

    /// A promise for a capability in some results is gone. That calls were made on it is remembered: who asks
    /// for the same place again, or takes it from the results, stays behind them. See Note [Embargo].
    pub(super) fn forget_pipelined(&mut self, pending: &Pending, id: RefId) {
        let RemoteTarget::Answer(question, path) = &pending.place else { return };
        let entry = self.question_mut(question.id).filter(|entry| entry.generation == question.generation);
        let Some(places) = entry.and_then(|entry| entry.places.as_mut()) else { return };
        if places.promised.get(path) == Some(&id) {
            places.promised.remove(path);
            if pending.used {
                places.used.insert(path.clone(), ());
            }
        }
    }

    /// Nobody wants anything of a question any more. See Note [Question lifecycle].
    pub(super) fn question_dropped(&mut self, id: QuestionId, generation: Generation, fx: &mut Effects) {
        let Some(question) = self.question_mut(id).filter(|q| q.generation == generation) else { return };
        let returned = question.entry.has_returned();
        let taking = question.taking;
        let finish = Finish {
            question: id,
            release_result_caps: !returned && taking.is_none(),
            cancel_after_delivery: false,
        };
        if returned || taking.is_some() || id.0 & PIPELINE_BIT != 0 {
            fx.send(Message::Finish(finish));
            self.forget_question(id, fx);
        } else if let Some(on_return) = question.entry.mark_finished(finish.clone()) {
            // No promises are left, as they would hold the question.
            drop(question.take_places(fx));
            self.under_way -= 1;
            fx.discard(on_return);
            fx.send(Message::Finish(finish));
        }
        if let Some(answer) = taking {
            self.stop_waiting(answer, fx);
        }
    }

    /// A question was not answered in time: it fails, and is canceled.
    pub(super) fn question_late(&mut self, id: QuestionId, generation: Generation, fx: &mut Effects) {
        let known = self.question(id).filter(|q| q.generation == generation && q.entry.is_new());
        let Some(handle) = known.map(|q| q.handle.upgrade()) else { return };
        // Whoever asked is told as if it had been answered; to the peer it looks like any canceled call.
        self.question_dropped_for(id, request::deadline_passed(), fx);
        fx.discard(handle);
    }

    fn question_dropped_for(&mut self, id: QuestionId, why: Exception, fx: &mut Effects) {
        let Some(question) = self.question_mut(id) else { return };
        let generation = question.generation;
        let places = question.take_places(fx);
        let on_return = question.entry.on_return_mut().map(std::mem::take).unwrap_or_default();
        if let Some(handle) = question.handle.upgrade() {
            let set = handle.outcome.set(Err(why.clone()));
            debug_assert!(set.is_ok(), "a question is answered once");
            fx.discard(handle);
        }
        for (_, promise) in places.iter().flat_map(|places| places.promised_in_order()) {
            let to = Accepted::settled(Client::broken(why.clone()));
            let resolved = self.resolve_promise(promise, to, fx);
            fx.discard(resolved);
        }
        for responder in on_return.into_iter().filter_map(OnReturn::take) {
            fx.later(Callback::Respond { responder, outcome: Err(why.clone()) });
        }
        self.question_dropped(id, generation, fx);
    }

    /// The peer does not implement the message that asked this question.
    pub(super) fn question_refused(&mut self, id: QuestionId, fx: &mut Effects) -> Result<(), ProtocolError> {
        let Some(question) = self.question(id) else { return Ok(()) };
        if question.entry.has_returned() || question.taking.is_some() {
            return Err(ProtocolError::DuplicateReturn(id));
        }
        let exports = question.param_exports.clone();
        self.release_exports(&exports, fx)?;
        self.question_mut(id).expect("found above").param_exports = Vec::new();
        let why = Exception::unimplemented("the peer does not implement the message that asked this");
        self.answered(id, Err(why), Short::new(), Ended::Exception, true, fx);
        // If it had been finished, it was not answered just now.
        self.forget_question(id, fx);
        Ok(())
    }

    pub(super) fn end_questions(&mut self, why: &Exception, fx: &mut Effects) {
        let asked: Vec<QuestionId> =
            self.questions.iter().chain(self.pipeline_questions.iter()).map(|(id, _)| id).collect();
        let mut all = AllParts::default();
        for id in asked {
            all.part(|| self.end_question(id, why, fx));
            // Unless that has panicked, nothing is left to be told.
            let left = self.question_mut(id).and_then(|question| question.entry.on_return_mut());
            for responder in
                left.map(std::mem::take).unwrap_or_default().into_iter().filter_map(OnReturn::take)
            {
                all.part(|| fx.later(Callback::Respond { responder, outcome: Err(why.clone()) }));
            }
        }
        all.finish();
    }

    fn end_question(&mut self, id: QuestionId, why: &Exception, fx: &mut Effects) {
        let question = self.question(id);
        let why = match question.and_then(|asked| Some((asked.interface_id, asked.method_id?))) {
            Some((interface, method)) => {
                why.clone().with_context(format_args!("calling method {method} of interface {interface:#x}"))
            }
            None => why.clone(),
        };
        self.answered(id, Err(why), Short::new(), Ended::Exception, true, fx);
        self.forget_question(id, fx);
    }
}

pub(super) fn closed() -> Exception {
    Exception::disconnected("the connection has been closed")
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::cap::port::ConnectionOps;
    use crate::cap::testing::Posts;
    use crate::limits::Limits;

    /// In a debug build, this would take minutes if each place were looked for among all others.
    #[test]
    fn a_question_of_which_many_places_are_called_costs_near_linear_time() {
        const COUNT: u32 = 100_000;
        let (port, mut fx): (Arc<dyn ConnectionOps>, _) = (Arc::new(Posts::default()), Effects::default());
        let bootstrap = Client::null();
        let mut state = State::new(ConnectionId(0), Arc::downgrade(&port), &Limits::default(), bootstrap);
        let (_client, question) = state.ask_bootstrap(&mut fx);
        let question = question.expect("asked");
        let path = |n: u32| [(n >> 16) as u16, n as u16];
        // As long as they are held, there is one promise for each; when they are gone, it is known which were called.
        let held: Vec<_> = (0..COUNT).map(|n| state.pipelined(&question, &path(n))).collect();
        for (n, client) in (0..).zip(&held) {
            assert_eq!(*client, state.pipelined(&question, &path(n)));
            let Kind::RemotePromise(promise) = &client.0 else { panic!("a promise") };
            state.promises.get_mut(&promise.id).unwrap().used = n % 2 == 0;
            state.promise_dropped(promise.id, &mut fx);
        }
        let places = state.question(question.id).and_then(|asked| asked.places.as_ref()).unwrap();
        assert_eq!((places.promised.len(), places.used.len()), (1, COUNT as usize / 2));
        for n in 0..COUNT {
            let Kind::RemotePromise(promise) = state.pipelined(&question, &path(n)).0 else {
                panic!("a promise")
            };
            assert_eq!(state.promises.get(&promise.id).unwrap().used, n % 2 == 0);
        }
    }
}
