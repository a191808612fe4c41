//! Building and sending a call.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::any_pointer;
use capnp::traits::{FromPointerBuilder, ImbueMut, Owned, SetterInput};
use capnp::MessageSize;
use crossbeam_channel::Receiver;

use super::answer::{LocalCall, PendingCall, Pipeline};
use super::call::{CallInfo, Hints, Mode, Responder, Route};
use super::client::Client;
use super::contents::{Payload, Response};
use super::hook::{take_clients, BuildTable};
use crate::error::{Exception, Result};
use crate::promise::{Cancel, Interest, Promise, Reading, WaitError};
use crate::short::Short;
use crate::sync::{self, role, Arc, Duration, Instant, Role, Timer, TimerKey};
use crate::wire::content::{Content, ContentBuilder, PayloadKind};

/// A call that has not been sent: fill in the params, then [`send`](Self::send).
///
/// `P` and `R` are the types that the compiler generated for the params and the results.
///
/// Stays on the thread that made it, because a builder may hold capabilities of the `capnp` crate's making,
/// which are bound to their thread.
pub struct Request<P = any_pointer::Owned, R = any_pointer::Owned> {
    bound: BoundToItsThread,
    target: Client,
    interface_id: u64,
    method_id: u16,
    /// `None` until there is something in them.
    params: Option<Builder>,
    hints: Hints,
    timeout: Option<Duration>,
    marker: PhantomData<fn() -> (P, R)>,
}

/// Makes what holds it stay on its thread, as a builder in it must, and says so in the compiler's messages.
pub(crate) type BoundToItsThread = PhantomData<Rc<StaysOnItsThread>>;

pub(crate) struct StaysOnItsThread;

impl Request {
    pub(crate) fn new(
        target: Client,
        interface_id: u64,
        method_id: u16,
        size_hint: Option<MessageSize>,
    ) -> Self {
        Request {
            bound: PhantomData,
            target,
            interface_id,
            method_id,
            params: size_hint.map(|size| Builder::new(PayloadKind::CallParams, Some(size))),
            hints: Hints::default(),
            timeout: None,
            marker: PhantomData,
        }
    }

    /// The params as a new struct of a type that the compiler generated, as in `init::<add_params::Builder>()`.
    pub fn init<'a, T: FromPointerBuilder<'a>>(&'a mut self) -> T {
        self.params(None).init_as()
    }

    /// The same call, taken to be of a method with these params and results.
    pub fn cast<P, R>(self) -> Request<P, R> {
        let Request { bound, target, interface_id, method_id, params, hints, timeout, .. } = self;
        Request { bound, target, interface_id, method_id, params, hints, timeout, marker: PhantomData }
    }
}

impl<P: Owned, R: 'static> Request<P, R> {
    /// The params, to be filled in.
    ///
    /// # Panics
    /// If they were set as something that is not a `P`, before a [`cast`](Request::cast).
    pub fn get(&mut self) -> P::Builder<'_> {
        self.params(None).get_as().expect("the params are what was built here")
    }

    /// As [`get`](Self::get), with a hint of their size, which saves segments. Only the first hint counts.
    ///
    /// # Panics
    /// As there.
    pub fn get_sized(&mut self, size_hint: MessageSize) -> P::Builder<'_> {
        self.params(Some(size_hint)).get_as().expect("the params are what was built here")
    }

    /// Copies the params from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set(&mut self, params: impl SetterInput<P>) -> Result<()> {
        Ok(self.params(None).set_as::<P>(params)?)
    }

    /// Fills the params in with `fill`, and sends the call: [`send`](Self::send). If `fill` fails, its error is
    /// the answer, and nothing is sent.
    pub fn send_with<F: Filled>(mut self, fill: impl FnOnce(P::Builder<'_>) -> F) -> RemotePromise<R> {
        let filled = fill(self.get()).into_result();
        self.send_if(filled)
    }
}

impl<P, R: 'static> Request<P, R> {
    /// Has the call fail as `overloaded` unless it is answered within `timeout` of being sent. The time spent
    /// waiting for room to send it, or in a promise, counts. Once it has failed, the call is canceled when nobody
    /// holds its promise, its pipeline or a client of that any more.
    ///
    /// Bounds the wait for a response: without effect where there is none, in
    /// [`send_for_pipeline`](Self::send_for_pipeline) (but for the wait for room) and in
    /// [`Call::tail_call`](super::Call::tail_call).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Promises the callee that no calls will be pipelined on the results: `rpc.capnp`'s
    /// `Call.noPromisePipelining`.
    #[must_use]
    pub fn no_pipelining(mut self) -> Self {
        self.hints.no_promise_pipelining = true;
        self
    }

    /// Sends the call.
    ///
    /// # Blocking
    /// While the connection has as many questions or bytes outstanding as [`Limits`](crate::Limits) allow,
    /// until there is room, the timeout has passed, or the connection has ended. On a connection's own threads
    /// (in callbacks) it never blocks.
    pub fn send(self) -> RemotePromise<R> {
        self.send_if(Ok(()))
    }

    /// Sends the call for the sake of calls on its results alone: the response itself can't be waited for, and
    /// the callee need not send it. `rpc.capnp`'s `Call.onlyPromisePipeline`.
    ///
    /// # Blocking
    /// As [`send`](Self::send).
    pub fn send_for_pipeline(mut self) -> Pipeline<R> {
        self.hints.only_promise_pipeline = true;
        self.send().pipeline
    }

    fn send_if(self, filled: Result<()>) -> RemotePromise<R> {
        let made = LocalCall::<R>::new();
        let call: Arc<dyn PendingCall> = made.clone();
        let mut promise = Promise::new(made.clone(), Some(Interest::new(made.clone())));
        let deadline = self.deadline();
        if let Some(at) = deadline {
            promise = promise.attach(time_out(at, &call));
        }
        let pipeline = Pipeline::of_call(Interest::new(call.clone())).cast();
        let responder = Responder::new(Route::Here(call));
        match filled {
            Ok(()) => self.deliver(responder, Cancel::of(made), deadline),
            Err(why) => responder.answer(Err(why.into())),
        }
        RemotePromise { promise, pipeline }
    }

    fn params(&mut self, size_hint: Option<MessageSize>) -> any_pointer::Builder<'_> {
        self.params.get_or_insert_with(|| Builder::new(PayloadKind::CallParams, size_hint)).get()
    }

    /// How many bytes the params take so far.
    pub(crate) fn size(&mut self) -> usize {
        let size = self.params.as_mut().and_then(|params| params.get().target_size().ok());
        size.map_or(0, |size| size.word_count as usize * 8)
    }

    /// Until when the call is to be answered, if it is sent now.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timeout.map(sync::deadline)
    }

    /// Has the call fail unless it is answered by then.
    pub(crate) fn due(mut self, deadline: Option<Instant>) -> Self {
        self.timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        self
    }

    /// For how long its caller waits for room, by the limits of the connection that it would go over now.
    pub(crate) fn room_timeout(&self) -> Option<Duration> {
        self.target.room_timeout()
    }

    /// Sends the call with its answer going where `responder` says.
    pub(crate) fn deliver(self, responder: Responder, cancel: Cancel, deadline: Option<Instant>) {
        let Request { target, interface_id, method_id, params, hints, .. } = self;
        let params = params.unwrap_or_else(|| Builder::new(PayloadKind::CallParams, Some(NOTHING)));
        let params = match params.finish() {
            Ok(params) => params,
            Err(why) => return responder.answer(Err(why)),
        };
        let call = CallInfo { interface_id, method_id, params, responder, cancel, hints };
        let mode = if role() == Role::User { Mode::Block(deadline) } else { Mode::Queue };
        target.deliver(call, mode);
    }
}

/// The size of params that were never looked at.
const NOTHING: MessageSize = MessageSize { word_count: 0, cap_count: 0 };

/// What a closure that fills a struct in may return: nothing, or what the setters of generated structs do. (No
/// other results: so the compiler knows the type of the error where a block uses `?` and ends with `Ok(())`.) Sealed.
#[diagnostic::on_unimplemented(
    message = "a closure that fills in a struct returns nothing or `capnp::Result<()>`, not `{Self}`",
    note = "in a block, write `?` after what can fail, and `Ok(())` at the end"
)]
pub trait Filled: FillOutcome {}

/// What such a closure returned, as a result. Not exported, which seals [`Filled`].
#[expect(unnameable_types, reason = "so nothing outside can implement it")]
pub trait FillOutcome {
    /// Why the struct could not be filled in, if so.
    fn into_result(self) -> Result<()>;
}

impl Filled for () {}

impl FillOutcome for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl Filled for capnp::Result<()> {}

impl FillOutcome for capnp::Result<()> {
    fn into_result(self) -> Result<()> {
        Ok(self?)
    }
}

/// Takes the deadline back when dropped.
fn time_out(at: Instant, call: &Arc<dyn PendingCall>) -> TimeOut {
    let call = Arc::downgrade(call);
    TimeOut(Timer::global().at(at, move || {
        if let Some(call) = call.upgrade() {
            call.time_out(deadline_passed());
        }
    }))
}

/// The exception of a call whose deadline passed.
pub(crate) fn deadline_passed() -> Exception {
    Exception::timed_out("the call's deadline has passed")
}

struct TimeOut(TimerKey);

impl Drop for TimeOut {
    fn drop(&mut self) {
        Timer::global().cancel(self.0);
    }
}

impl<P, R> fmt::Debug for Request<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:#x}.{} on {:?})", self.interface_id, self.method_id, self.target)
    }
}

/// Content that is being built, with the capabilities put into it. Bound to its thread.
pub(crate) struct Builder {
    content: ContentBuilder,
    table: BuildTable,
}

impl Builder {
    pub(crate) fn new(place: PayloadKind, size_hint: Option<MessageSize>) -> Self {
        Builder { content: ContentBuilder::new(place, size_hint), table: Vec::new() }
    }

    pub(crate) fn get(&mut self) -> any_pointer::Builder<'_> {
        let mut builder = self.content.content();
        builder.imbue_mut(&mut self.table);
        builder
    }

    /// What was built.
    ///
    /// # Errors
    /// If it holds a capability that is not of this crate.
    pub(crate) fn finish(self) -> Result<Payload, Exception> {
        Ok(Payload::new(self.content.freeze(), take_clients(self.table)?))
    }

    /// A copy of what has been built so far.
    pub(crate) fn snapshot(&mut self, place: PayloadKind) -> Result<Payload, Exception> {
        let mut copy = Builder::new(place, None);
        let reader = self.get().into_reader();
        copy.get().set_as(reader)?;
        copy.finish()
    }
}

/// A payload without content.
pub(crate) fn empty() -> Payload {
    Payload::new(Content::null(), Short::new())
}

/// A call that was sent: the promise for its response, and the capabilities in that.
///
/// Dropping it whole cancels the call. Taking out the pipeline, or a client of it, keeps the call going.
///
/// It is a [`Future`] too: async code can await it on any executor.
#[must_use = "dropping what a call returned cancels the call"]
pub struct RemotePromise<R = any_pointer::Owned> {
    /// The response, once it is there.
    pub promise: Promise<Response<R>>,
    /// The capabilities in the response, now.
    pub pipeline: Pipeline<R>,
}

impl<R: 'static> RemotePromise<R> {
    /// Waits for the response: [`Promise::wait`].
    pub fn wait(self) -> Result<Response<R>> {
        self.promise.wait()
    }

    /// Waits for the response for at most `timeout`: [`Promise::wait_timeout`].
    ///
    /// # Errors
    /// As there, with this whole.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Response<R>, WaitError<Self>> {
        self.wait_until(sync::deadline(timeout))
    }

    /// Waits for the response until `deadline`: [`Promise::wait_until`].
    ///
    /// # Errors
    /// As there, with this whole.
    pub fn wait_until(self, deadline: Instant) -> Result<Response<R>, WaitError<Self>> {
        let RemotePromise { promise, pipeline } = self;
        promise
            .wait_until(deadline)
            .map_err(|why| why.map_pending(|promise| RemotePromise { promise, pipeline }))
    }

    /// The response if it is there: [`Promise::try_take`].
    ///
    /// # Errors
    /// As there, with this whole.
    pub fn try_take(self) -> Result<Response<R>, WaitError<Self>> {
        let RemotePromise { promise, pipeline } = self;
        promise.try_take().map_err(|why| why.map_pending(|promise| RemotePromise { promise, pipeline }))
    }

    /// Whether the response is there: [`Promise::is_ready`].
    pub fn is_ready(&self) -> bool {
        self.promise.is_ready()
    }

    /// Where the response is read from.
    pub(crate) fn reading(&self) -> Option<Interest<dyn Reading>> {
        self.promise.reading()
    }

    /// Has `callback` called with the response: [`Promise::on_ready`].
    pub fn on_ready(self, callback: impl FnOnce(Result<Response<R>>) + Send + 'static) {
        self.promise.on_ready(callback);
    }

    /// The response as a channel: [`Promise::into_channel`].
    pub fn into_channel(self) -> Receiver<Result<Response<R>>> {
        self.promise.into_channel()
    }

    /// A promise for what `f` makes of the response: [`Promise::map`].
    pub fn map<U: Send + 'static>(
        self,
        f: impl FnOnce(Response<R>) -> Result<U> + Send + 'static,
    ) -> Promise<U> {
        self.promise.map(f)
    }
}

impl<R: 'static> Future for RemotePromise<R> {
    type Output = Result<Response<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.promise).poll(cx)
    }
}

impl<R> fmt::Debug for RemotePromise<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePromise")
            .field("promise", &self.promise)
            .field("pipeline", &self.pipeline)
            .finish()
    }
}

/// A payload that is one capability: the results of a bootstrap.
pub(crate) fn single_capability(client: &Client) -> Payload {
    let mut results = Builder::new(PayloadKind::ReturnResults, None);
    results.get().set_as_capability(Box::new(client.clone()));
    // What was put in is known, and may not be asked what it is: this may be called under a lock.
    Payload::new(results.content.freeze(), [client.clone()].into_iter().collect())
}
