//! The answer of a call made in this vat: where it is waited for, and what may be called in it meanwhile.

use std::fmt;
use std::marker::PhantomData;
use std::mem;

use capnp::any_pointer;
use capnp::capability::FromTypelessPipeline;
use capnp::traits::Pipelined;

use super::call::Awaiting;
use super::client::{Client, Kind};
use super::contents::Payload;
use super::port::QuestionRef;
use super::promised::{PromiseCell, StandsIn};
use crate::error::Exception;
use crate::promise::{Cancel, Fulfiller, Reading, Waiter};
use crate::sync::{assert_unlocked, in_turn, Arc, Mutex, OnceLock, Rank, Weak};

/// Where the answer of a call made here arrives.
pub(crate) struct AnswerCell(Mutex<State>);

struct State {
    fulfiller: Option<Fulfiller<Payload>>,
    source: Source,
    /// The question that the call has become: it must not be finished before it is answered.
    question: Option<Arc<QuestionRef>>,
    /// Capabilities in the results that were asked for before it was known what they are.
    cells: Vec<(Box<[u16]>, Weak<PromiseCell>)>,
    /// Where the call waits, or waited last. See Note [Circles].
    waits_in: Weak<PromiseCell>,
}

/// What answers for the results' capabilities.
enum Source {
    /// Nothing yet: promises are handed out.
    Unknown,
    /// A pipeline that the callee set, or the question that the call became.
    Ahead(Pipeline),
    /// The results.
    Known(Result<Payload, Exception>),
    /// Nobody wants the results.
    Abandoned,
}

impl AnswerCell {
    pub(crate) fn new(fulfiller: Fulfiller<Payload>) -> Arc<Self> {
        let state = State {
            fulfiller: Some(fulfiller),
            source: Source::Unknown,
            question: None,
            cells: Vec::new(),
            waits_in: Weak::new(),
        };
        Arc::new(AnswerCell(Mutex::new(Rank::Promise, state)))
    }

    /// Breaks the promise for the response if it is still pending when called: for a deadline.
    pub(crate) fn time_out(&self, why: Exception) {
        let fulfiller = self.0.lock().fulfiller.take();
        if let Some(fulfiller) = fulfiller {
            fulfiller.reject(why);
        }
    }

    fn client_at(self: &Arc<Self>, path: &[u16], handle: &Arc<CallHandle>) -> Client {
        let mut state = self.0.lock();
        // One promise for each place, so that all who ask share its embargo.
        state.cells.retain(|(_, cell)| cell.strong_count() > 0);
        let known = state.cells.iter().filter(|(p, _)| **p == *path).find_map(|(_, c)| c.upgrade());
        if let Some(cell) = known {
            return Client(Kind::Promise(cell));
        }
        match &state.source {
            Source::Ahead(pipeline) => {
                let pipeline = pipeline.clone();
                drop(state);
                pipeline.client_at(path)
            }
            Source::Known(Ok(payload)) => payload.client_at(path),
            Source::Known(Err(why)) => Client::broken(why.clone()),
            Source::Unknown => {
                let cell = PromiseCell::new(Some(handle.clone()));
                state.cells.push((path.into(), Arc::downgrade(&cell)));
                Client(Kind::Promise(cell))
            }
            Source::Abandoned => Client::broken(abandoned()),
        }
    }

    /// Nobody wants the results.
    fn abandon(&self) {
        let mut state = self.0.lock();
        if matches!(state.source, Source::Known(_)) {
            return;
        }
        let old = (mem::replace(&mut state.source, Source::Abandoned), state.question.take());
        let fulfiller = state.fulfiller.take();
        drop(state);
        drop(old);
        // What was registered with the promise, as a function that maps it, is not run for an answer that comes
        // all the same.
        if let Some(fulfiller) = fulfiller {
            fulfiller.reject(abandoned());
        }
    }
}

impl Awaiting for AnswerCell {
    fn answer(&self, mut outcome: Result<Payload, Exception>) {
        assert_unlocked();
        let mut state = self.0.lock();
        if matches!(state.source, Source::Known(_)) {
            return;
        }
        let cells = live(mem::take(&mut state.cells));
        let resolutions = match &mut outcome {
            Ok(payload) => substitute(payload, &cells),
            Err(why) => cells.into_iter().map(|(_, c)| (c, Client::broken(why.clone()))).collect(),
        };
        let old = mem::replace(&mut state.source, Source::Known(outcome.clone()));
        let (fulfiller, question) = (state.fulfiller.take(), state.question.take());
        drop(state);
        drop((old, question));
        for (cell, client) in resolutions {
            cell.resolve(client);
        }
        if let Some(fulfiller) = fulfiller {
            fulfiller.set(outcome);
        }
    }

    fn set_pipeline(&self, pipeline: Pipeline) {
        assert_unlocked();
        let mut state = self.0.lock();
        if !matches!(state.source, Source::Unknown) {
            return;
        }
        state.source = Source::Ahead(pipeline.clone());
        let cells = live(state.cells.clone());
        drop(state);
        for (path, cell) in cells {
            cell.resolve(pipeline.at(&path).client());
        }
    }

    fn forwarded(&self, question: Arc<QuestionRef>) {
        let mut state = self.0.lock();
        if !matches!(state.source, Source::Unknown | Source::Ahead(_)) {
            return;
        }
        state.question = Some(question.clone());
        let known = matches!(state.source, Source::Ahead(_));
        if !known && state.cells.is_empty() {
            state.source = Source::Ahead(Pipeline::of_question(question));
            return;
        }
        drop(state);
        self.set_pipeline(Pipeline::of_question(question));
    }

    fn wait_in(&self, promise: Weak<PromiseCell>) -> bool {
        let mut state = self.0.lock();
        state.waits_in = promise;
        !state.cells.is_empty()
    }

    fn waits_in(&self) -> Option<Arc<PromiseCell>> {
        self.0.lock().waits_in.upgrade()
    }
}

fn abandoned() -> Exception {
    static ABANDONED: OnceLock<Exception> = OnceLock::new();
    ABANDONED.get_or_init(|| Exception::failed("the call was canceled")).clone()
}

type Cell = (Box<[u16]>, Arc<PromiseCell>);

fn live(cells: Vec<(Box<[u16]>, Weak<PromiseCell>)>) -> Vec<Cell> {
    cells.into_iter().filter_map(|(path, cell)| Some((path, cell.upgrade()?))).collect()
}

/// Puts the promises that were handed out for places in the results where the results had what they resolve
/// to: so that who takes a capability out of the response stays behind calls that were made ahead of it.
/// Returns what each is resolved to.
fn substitute(payload: &mut Payload, cells: &[Cell]) -> Vec<(Arc<PromiseCell>, Client)> {
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

/// Held by everybody who wants something of a call made here: its response, or a capability in it. The last
/// one that goes cancels the call.
pub(crate) struct CallHandle {
    pub(crate) cell: Arc<AnswerCell>,
    pub(crate) cancel: Cancel,
}

impl Reading for CallHandle {
    fn read_for(&self, waiter: &dyn Waiter) {
        let question = self.cell.0.lock().question.clone();
        if let Some(question) = question {
            question.port.read_for(question.generation, waiter);
        }
    }
}

impl StandsIn for CallHandle {
    fn call(&self) -> Arc<dyn Awaiting> {
        self.cell.clone()
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        // The call may be what keeps the call that it was made ahead on, and so on.
        let (cell, cancel) = (self.cell.clone(), self.cancel.clone());
        in_turn(move || {
            cell.abandon();
            cancel.cancel(false);
        });
    }
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
    Call(Arc<CallHandle>),
    /// A question to a peer.
    Question(Arc<QuestionRef>),
    /// Results that are known.
    Known(Arc<Payload>),
    Broken(Exception),
}

impl Root {
    fn client_at(&self, path: &[u16]) -> Client {
        match self {
            Root::Call(handle) => handle.cell.client_at(path, handle),
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

    pub(crate) fn of_call(handle: Arc<CallHandle>) -> Self {
        Self::new(Root::Call(handle))
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

    /// The same place, taken to hold an `R`.
    pub fn cast<R>(self) -> Pipeline<R> {
        Pipeline { root: self.root, path: self.path, marker: PhantomData }
    }

    /// The place that `path` leads to from here.
    pub(crate) fn at(&self, path: &[u16]) -> Self {
        let mut at = self.clone();
        at.path.extend_from_slice(path);
        at
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
        let untyped = Pipeline { root: self.root.clone(), path: self.path.clone(), marker: PhantomData };
        FromTypelessPipeline::new(any_pointer::Pipeline::new(Box::new(untyped)))
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
