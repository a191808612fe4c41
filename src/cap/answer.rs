//! The answer of a call made in this vat: where it is waited for, and what may be called in it meanwhile.

use std::fmt;
use std::marker::PhantomData;
use std::mem;

use capnp::any_pointer;
use capnp::capability::FromTypelessPipeline;
use capnp::traits::Pipelined;

use super::capability::Capability;
use super::client::{Client, Kind};
use super::contents::{Payload, Response};
use super::hook::Hook;
use super::port::QuestionRef;
use super::promised::{Keeps, PromiseCell};
use crate::error::Exception;
use crate::promise::{
    Cancel, Cancelable, Cell, HoldsCell, Interest, InterestCounted, Reading, Token, Waiter,
};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{assert_unlocked, in_turn, Arc, Mutex, OnceLock, Rank, Weak};
use crate::table::ByPath;

/// A call made in this vat, whose results are of type `R`: all that there is of it, in one allocation.
///
/// ```text
/// Note [Calls made here]
/// ======================
/// Those who want something of the call, its response or a capability in it, are counted: each has an `Interest`. When
/// the last one lets go, the call is canceled. Others only refer to it: who has the duty to answer it, and who holds
/// its `Cancel`, which may be kept for ever. So what is in the results must not live as long as the call does: it is
/// dropped when nobody wants it any more, and nothing that comes after that is kept.
/// ```
pub(crate) struct LocalCall<R> {
    answer: AnswerCell,
    response: Cell<Response<R>>,
}

/// A call made in this vat. A trait object, so that the compiler need not look through calls, their answers and all
/// that is called ahead on those to see that a `Client` is `Send` and `Sync`: it would reach its recursion limit in
/// the crates of users.
pub(crate) trait PendingCall: Reading {
    /// Where its answer arrives.
    fn answer_cell(&self) -> &AnswerCell;

    /// Settles the promise for its response. The first time counts.
    fn respond(&self, outcome: Result<Payload, Exception>);

    /// Nobody wants its response any more.
    fn abandon_response(&self);
}

/// Where the answer of a call made here arrives.
pub(crate) struct AnswerCell {
    state: Mutex<AnswerState>,
    /// How many want something of it. See Note [Calls made here].
    wants: AtomicUsize,
    cancel: Token,
}

struct AnswerState {
    source: AnswerSource,
    /// The question that the call has become: it must not be finished before it is answered.
    question: Option<Arc<QuestionRef>>,
    /// Capabilities in the results that were asked for before it was known what they are.
    cells: Cells,
}

/// What answers for the results' capabilities.
enum AnswerSource {
    /// Nothing yet: promises are handed out.
    Unknown,
    /// A pipeline that the callee set, or the question that the call became.
    Ahead(Pipeline),
    /// The results.
    Known(Result<Payload, Exception>),
    /// Nobody wants the results.
    Abandoned,
}

impl<R: 'static> LocalCall<R> {
    pub(crate) fn new() -> Arc<Self> {
        let state = AnswerState { source: AnswerSource::Unknown, question: None, cells: Cells::default() };
        let state = Mutex::new(Rank::Promise, state);
        let answer = AnswerCell { state, wants: AtomicUsize::new(0), cancel: Token::new() };
        Arc::new(LocalCall { answer, response: Cell::new() })
    }
}

impl<R: 'static> PendingCall for LocalCall<R> {
    fn answer_cell(&self) -> &AnswerCell {
        &self.answer
    }

    fn respond(&self, outcome: Result<Payload, Exception>) {
        self.response.settle(outcome.map(Response::from));
    }

    fn abandon_response(&self) {
        self.response.abandon(abandoned);
    }
}

impl<R: 'static> HoldsCell<Response<R>> for LocalCall<R> {
    fn cell(&self) -> &Cell<Response<R>> {
        &self.response
    }
}

impl<R: 'static> Cancelable for LocalCall<R> {
    fn token(&self) -> &Token {
        &self.answer.cancel
    }
}

impl<R: 'static> InterestCounted for LocalCall<R> {
    fn wants(&self) -> &AtomicUsize {
        &self.answer.wants
    }

    fn unwanted(self: Arc<Self>) {
        // The call may be what keeps the call that it was made ahead on, and so on.
        in_turn(move || {
            let call: &dyn PendingCall = &*self;
            call.abandon();
            Cancel::of(self).cancel(false);
        });
    }
}

impl<R: 'static> Reading for LocalCall<R> {
    fn read_for(&self, waiter: &dyn Waiter) {
        let question = self.answer.state.lock().question.clone();
        if let Some(question) = question {
            question.port.read_for(question.generation, waiter);
        }
    }
}

impl Interest<dyn PendingCall> {
    fn client_at(&self, path: &[u16]) -> Client {
        let mut state = self.answer_cell().state.lock();
        // One promise for each place, so that all who ask share its embargo.
        if let Some(cell) = state.cells.get(path) {
            return Client(Kind::Promise(cell));
        }
        match &state.source {
            AnswerSource::Ahead(pipeline) => {
                let pipeline = pipeline.clone();
                drop(state);
                pipeline.client_at(path)
            }
            AnswerSource::Known(Ok(payload)) => payload.client_at(path),
            AnswerSource::Known(Err(why)) => Client::broken(why.clone()),
            AnswerSource::Unknown => {
                let cell = PromiseCell::new(Some(Keeps::Call(self.clone())));
                state.cells.insert(path, &cell);
                Client(Kind::Promise(cell))
            }
            AnswerSource::Abandoned => Client::broken(abandoned()),
        }
    }
}

impl dyn PendingCall {
    /// The answer is there.
    pub(crate) fn answer(&self, mut outcome: Result<Payload, Exception>) {
        assert_unlocked();
        let mut state = self.answer_cell().state.lock();
        if matches!(state.source, AnswerSource::Known(_) | AnswerSource::Abandoned) {
            return;
        }
        let resolutions = match mem::take(&mut state.cells) {
            cells if cells.is_empty() => Vec::new(),
            cells => resolutions(&mut outcome, &cells.live()),
        };
        let old = mem::replace(&mut state.source, AnswerSource::Known(outcome.clone()));
        let question = state.question.take();
        drop(state);
        drop((old, question));
        for (cell, client) in resolutions {
            cell.resolve(client);
        }
        self.respond(outcome);
    }

    /// Breaks the promise for the response if it is still pending when called: for a deadline.
    pub(crate) fn time_out(&self, why: Exception) {
        self.respond(Err(why));
    }

    /// Nobody wants the results. What was registered with the promise, as a function that maps it, is not run for an
    /// answer that comes all the same.
    fn abandon(&self) {
        let mut state = self.answer_cell().state.lock();
        let old = (mem::replace(&mut state.source, AnswerSource::Abandoned), state.question.take());
        drop(state);
        drop(old);
        self.abandon_response();
    }

    /// Pipelined calls need not wait for the answer: `pipeline` knows where they go. The first one counts.
    pub(crate) fn set_pipeline(&self, pipeline: Pipeline) {
        assert_unlocked();
        let mut state = self.answer_cell().state.lock();
        if !matches!(state.source, AnswerSource::Unknown) {
            return;
        }
        state.source = AnswerSource::Ahead(pipeline.clone());
        let cells = state.cells.live();
        drop(state);
        for (path, cell) in cells {
            cell.resolve(pipeline.at(&path).client());
        }
    }

    /// The call has become a question, which is held until it is answered, or nobody wants the answer.
    pub(crate) fn forwarded(&self, question: Arc<QuestionRef>) {
        let mut state = self.answer_cell().state.lock();
        if !matches!(state.source, AnswerSource::Unknown | AnswerSource::Ahead(_)) {
            return;
        }
        state.question = Some(question.clone());
        let known = matches!(state.source, AnswerSource::Ahead(_));
        if !known && state.cells.is_empty() {
            state.source = AnswerSource::Ahead(Pipeline::of_question(question));
            return;
        }
        drop(state);
        self.set_pipeline(Pipeline::of_question(question));
    }

    /// Whether anything may wait for the answer that promises for its capabilities were handed out for.
    pub(super) fn has_promises(&self) -> bool {
        !self.answer_cell().state.lock().cells.is_empty()
    }

    /// Tells where the call waits.
    pub(super) fn token(&self) -> &Token {
        &self.answer_cell().cancel
    }
}

impl fmt::Debug for dyn PendingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingCall")
    }
}

fn abandoned() -> Exception {
    static ABANDONED: OnceLock<Exception> = OnceLock::new();
    ABANDONED.get_or_init(|| Exception::failed("the call was canceled")).clone()
}

/// A place in the results, and the promise that was handed out for it.
type Handed = (Arc<[u16]>, Arc<PromiseCell>);

/// The promises that were handed out for places in the results. Those that are gone are dropped when there are twice as
/// many as were left the last time.
#[derive(Default)]
struct Cells {
    by_path: ByPath<Weak<PromiseCell>>,
    clean_at: usize,
}

/// So few are kept, gone or not.
const FEW: usize = 8;

impl Cells {
    fn get(&self, path: &[u16]) -> Option<Arc<PromiseCell>> {
        self.by_path.get(path)?.upgrade()
    }

    fn insert(&mut self, path: &[u16], cell: &Arc<PromiseCell>) {
        if self.by_path.len() >= self.clean_at.max(FEW) {
            self.by_path.retain(|cell| cell.strong_count() > 0);
            self.clean_at = 2 * self.by_path.len();
        }
        self.by_path.insert(path.into(), Arc::downgrade(cell));
    }

    fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    fn live(&self) -> Vec<Handed> {
        let live = |(path, cell): (&Arc<[u16]>, &Weak<PromiseCell>)| Some((path.clone(), cell.upgrade()?));
        self.by_path.iter().filter_map(live).collect()
    }
}

/// What each of the promises that were handed out for places in the results is resolved to.
fn resolutions(
    outcome: &mut Result<Payload, Exception>,
    cells: &[Handed],
) -> Vec<(Arc<PromiseCell>, Client)> {
    match outcome {
        Ok(payload) => substitute(payload, cells),
        Err(why) => cells.iter().map(|(_, cell)| (cell.clone(), Client::broken(why.clone()))).collect(),
    }
}

/// Puts the promises that were handed out for places in the results where the results had what they resolve
/// to: so that who takes a capability out of the response stays behind calls that were made ahead of it.
/// Returns what each is resolved to.
fn substitute(payload: &mut Payload, cells: &[Handed]) -> Vec<(Arc<PromiseCell>, Client)> {
    let found: Vec<_> = cells.iter().map(|(path, cell)| (payload.index_at(path), cell.clone())).collect();
    let mut resolutions = Vec::with_capacity(found.len());
    for (index, cell) in &found {
        resolutions.push((
            cell.clone(),
            match index {
                Ok(Some(index)) => payload.caps[*index].clone(),
                Ok(None) => Client::null(),
                Err(e) => Client::broken(e.clone()),
            },
        ));
    }
    for (index, cell) in found {
        if let Ok(Some(index)) = index {
            if cell.resolved.get().is_none() {
                payload.caps[index] = Client(Kind::Promise(cell));
            }
        }
    }
    resolutions
}

/// The capabilities in results that have yet to come: calls on them are sent ahead.
///
/// As long as a pipeline, or a client taken from it, is held, the call goes on. `Send + Sync`.
///
/// `R` is the type that the compiler generated for the results; [`get`](Self::get) gives its getters.
pub struct Pipeline<R = any_pointer::Owned> {
    root: Root,
    path: Vec<u16>,
    marker: PhantomData<fn() -> R>,
}

#[derive(Clone)]
enum Root {
    /// A call made here.
    Call(Interest<dyn PendingCall>),
    /// A question to a peer.
    Question(Arc<QuestionRef>),
    /// Results that are known.
    Known(Arc<Payload>),
    Broken(Exception),
}

impl Root {
    fn client_at(&self, path: &[u16]) -> Client {
        match self {
            Root::Call(call) => call.client_at(path),
            Root::Question(question) => question.port.pipelined(question, path),
            Root::Known(payload) => payload.client_at(path),
            Root::Broken(why) => Client::broken(why.clone()),
        }
    }
}

impl Pipeline {
    fn new(root: Root) -> Self {
        Pipeline { root, path: Vec::new(), marker: PhantomData }
    }

    pub(crate) fn of_call(call: Interest<dyn PendingCall>) -> Self {
        Self::new(Root::Call(call))
    }

    pub(crate) fn of_question(question: Arc<QuestionRef>) -> Self {
        Self::new(Root::Question(question))
    }

    pub(crate) fn of_payload(payload: Payload) -> Self {
        Self::new(Root::Known(Arc::new(payload)))
    }

    /// A pipeline in which every capability is broken.
    pub fn broken(why: impl Into<Exception>) -> Self {
        Self::new(Root::Broken(why.into()))
    }

    /// The pointer field with the given index, of the struct at this place.
    #[must_use]
    pub fn field(&self, index: u16) -> Self {
        let mut field = self.clone();
        field.path.push(index);
        field
    }

    /// The capability at this place. Calls on it need not wait for the results.
    pub fn client(&self) -> Client {
        self.root.client_at(&self.path)
    }

    /// The capability at the place that `path` leads to from here.
    pub(crate) fn client_at(&self, path: &[u16]) -> Client {
        match &*self.path {
            [] => self.root.client_at(path),
            here => self.root.client_at(&[here, path].concat()),
        }
    }

    /// The place that `path` leads to from here.
    pub(crate) fn at(&self, path: &[u16]) -> Self {
        let mut at = self.clone();
        at.path.extend_from_slice(path);
        at
    }
}

impl<R> Pipeline<R> {
    /// The same place, taken to hold a `T`: a struct of another type, or (`any_pointer::Owned`) one of which no more is
    /// known.
    pub fn cast<T>(self) -> Pipeline<T> {
        Pipeline { root: self.root, path: self.path, marker: PhantomData }
    }
}

impl<R: Pipelined> Pipeline<R>
where
    R::Pipeline: FromTypelessPipeline,
{
    /// The getters of the results' capabilities, and of the structs that hold some, as in
    /// `promise.pipeline.get().get_file()`.
    ///
    /// What they are called on is bound to its thread; the clients that they give are not.
    pub fn get(&self) -> R::Pipeline {
        let untyped: Pipeline = self.clone().cast();
        FromTypelessPipeline::new(any_pointer::Pipeline::new(Box::new(Hook(untyped))))
    }
}

impl<R> Clone for Pipeline<R> {
    fn clone(&self) -> Self {
        Pipeline { root: self.root.clone(), path: self.path.clone(), marker: PhantomData }
    }
}

impl<R> fmt::Debug for Pipeline<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({:?})", self.path)
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    /// In a debug build, this would take minutes if each place were looked for among all others.
    #[test]
    fn a_call_of_which_many_places_are_asked_for_costs_near_linear_time() {
        const COUNT: u32 = 100_000;
        let made = LocalCall::<any_pointer::Owned>::new();
        let call: Arc<dyn PendingCall> = made.clone();
        let stake = Interest::new(call.clone());
        let path = |n: u32| [(n >> 16) as u16, n as u16];
        let held: Vec<_> = (0..COUNT).map(|n| stake.client_at(&path(n))).collect();
        for (n, client) in (0..).zip(&held) {
            assert_eq!(*client, stake.client_at(&path(n)), "one promise for each place");
        }
        drop(held);
        for n in 0..COUNT {
            drop(stake.client_at(&[1, 2, n as u16]));
        }
        assert!(made.answer.state.lock().cells.by_path.len() <= 2 * FEW, "those that are gone are dropped");
        call.answer(Err(Exception::failed("the end")));
    }
}
