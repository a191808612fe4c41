//! Building and sending a call.

use std::fmt;

use capnp::any_pointer;
use capnp::traits::{FromPointerBuilder, ImbueMut, Owned, SetterInput};
use capnp::MessageSize;
use crossbeam_channel::Receiver;

use super::answer::{AnswerCell, CallHandle, Pipeline};
use super::call::{CallInfo, Hints, Mode, Responder, Route};
use super::client::Client;
use super::contents::{Payload, Response};
use super::hook::{take_clients, BuildTable};
use crate::error::{Exception, Result};
use crate::promise::{promise, Cancel, Promise};
use crate::sync::{self, role, Arc, Duration, Instant, Role, Timer, TimerKey};
use crate::wire::content::{Content, ContentBuilder, Place};

/// A call that has not been sent: fill in the params, then [`send`](Self::send).
///
/// Stays on the thread that made it, because a builder may hold capabilities of the `capnp` crate's making,
/// which are bound to their thread.
pub struct Request {
    target: Client,
    interface_id: u64,
    method_id: u16,
    params: Builder,
    hints: Hints,
    timeout: Option<Duration>,
}

impl Request {
    pub(crate) fn new(
        target: Client,
        interface_id: u64,
        method_id: u16,
        size_hint: Option<MessageSize>,
    ) -> Self {
        Request {
            target,
            interface_id,
            method_id,
            params: Builder::new(Place::CallParams, size_hint),
            hints: Hints::default(),
            timeout: None,
        }
    }

    /// The params, to be filled in.
    pub fn get(&mut self) -> any_pointer::Builder<'_> {
        self.params.get()
    }

    /// The params as a new struct of a type that `capnpc` generated, as in `init::<add_params::Builder>()`.
    pub fn init<'a, T: FromPointerBuilder<'a>>(&'a mut self) -> T {
        self.params.get().init_as()
    }

    /// Copies the params from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set<T: Owned>(&mut self, params: impl SetterInput<T>) -> Result<()> {
        Ok(self.params.get().set_as(params)?)
    }

    /// Has the call fail as `overloaded`, and be canceled, unless it is answered within `timeout` of being
    /// sent. The time spent waiting for room to send it counts.
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
    pub fn send(self) -> RemotePromise {
        let (promise, fulfiller) = promise();
        let cell = AnswerCell::new(fulfiller);
        let handle = Arc::new(CallHandle { cell: cell.clone(), cancel: Cancel::new() });
        let mut promise = promise.attach(handle.clone());
        let deadline = self.timeout.map(sync::deadline);
        if let Some(at) = deadline {
            promise = promise.attach(time_out(at, &cell));
        }
        let pipeline = Pipeline::of_call(handle.clone());
        let responder = Responder::new(Route::Here(cell));
        self.deliver(responder, handle.cancel.clone(), deadline);
        RemotePromise { promise, pipeline }
    }

    /// Sends the call for the sake of calls on its results alone: the response itself can't be waited for, and
    /// the callee need not send it. `rpc.capnp`'s `Call.onlyPromisePipeline`.
    ///
    /// # Blocking
    /// As [`send`](Self::send).
    pub fn send_for_pipeline(mut self) -> Pipeline {
        self.hints.only_promise_pipeline = true;
        self.send().pipeline
    }

    /// Sends the call with its answer going where `responder` says.
    pub(crate) fn deliver(self, responder: Responder, cancel: Cancel, deadline: Option<Instant>) {
        let Request { target, interface_id, method_id, params, hints, .. } = self;
        let params = match params.finish() {
            Ok(params) => params,
            Err(why) => return responder.answer(Err(why)),
        };
        let call = CallInfo { interface_id, method_id, params, responder, cancel, hints, waits_on: None };
        let mode = if role() == Role::User { Mode::Block(deadline) } else { Mode::Queue };
        target.deliver(call, mode);
    }
}

/// Takes the deadline back when dropped.
fn time_out(at: Instant, cell: &Arc<AnswerCell>) -> TimeOut {
    let cell = Arc::downgrade(cell);
    TimeOut(Timer::global().at(at, move || {
        if let Some(cell) = cell.upgrade() {
            cell.time_out(deadline_passed());
        }
    }))
}

/// The exception of a call whose deadline passed.
pub(crate) fn deadline_passed() -> Exception {
    Exception::overloaded("the call's deadline has passed")
}

struct TimeOut(TimerKey);

impl Drop for TimeOut {
    fn drop(&mut self) {
        Timer::global().cancel(self.0);
    }
}

impl fmt::Debug for Request {
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
    pub(crate) fn new(place: Place, size_hint: Option<MessageSize>) -> Self {
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
    pub(crate) fn snapshot(&mut self, place: Place) -> Result<Payload, Exception> {
        let mut copy = Builder::new(place, None);
        let reader = self.get().into_reader();
        copy.get().set_as(reader)?;
        copy.finish()
    }
}

/// A payload without content.
pub(crate) fn empty() -> Payload {
    Payload::new(Content::null(), Vec::new())
}

/// A call that was sent: the promise for its response, and the capabilities in that.
///
/// Dropping it whole cancels the call. Taking out the pipeline, or a client of it, keeps the call going.
#[must_use = "dropping what a call returned cancels the call"]
#[derive(Debug)]
pub struct RemotePromise {
    /// The response, once it is there.
    pub promise: Promise<Response>,
    /// The capabilities in the response, now.
    pub pipeline: Pipeline,
}

impl RemotePromise {
    /// Waits for the response: [`Promise::wait`].
    pub fn wait(self) -> Result<Response> {
        self.promise.wait()
    }

    /// Waits for the response for at most `timeout`: [`Promise::wait_timeout`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<Response>, Self> {
        let RemotePromise { promise, pipeline } = self;
        promise.wait_timeout(timeout).map_err(|promise| RemotePromise { promise, pipeline })
    }

    /// The response if it is there: [`Promise::try_take`].
    pub fn try_take(self) -> Result<Result<Response>, Self> {
        let RemotePromise { promise, pipeline } = self;
        promise.try_take().map_err(|promise| RemotePromise { promise, pipeline })
    }

    /// Has `callback` called with the response: [`Promise::on_ready`].
    pub fn on_ready(self, callback: impl FnOnce(Result<Response>) + Send + 'static) {
        self.promise.on_ready(callback);
    }

    /// The response as a channel: [`Promise::into_channel`].
    pub fn into_channel(self) -> Receiver<Result<Response>> {
        self.promise.into_channel()
    }
}

/// A payload that is one capability: the results of a bootstrap.
pub(crate) fn single_capability(client: &Client) -> Result<Payload, Exception> {
    let mut results = Builder::new(Place::ReturnResults, None);
    results.get().set_as_capability(Box::new(client.clone()));
    results.finish()
}
