//! A call as its method sees it.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use capnp::any_pointer;
use capnp::traits::{FromPointerBuilder, FromPointerReader, Owned, SetterInput};
use capnp::MessageSize;

use super::answer::{LocalCall, Pipeline};
use super::call::{unanswered, CallInfo, Responder, Route};
use super::client::{Client, Kind};
use super::contents::{Params, Payload, Response};
use super::object::{LocalObject, StreamTurn};
use super::port::ConnectionId;
use super::request::{Builder, Request};
use super::results::Results;
use crate::error::{Error, Exception, Result};
use crate::peer::Peer;
use crate::promise::{Cancel, Interest, Promise};
use crate::sync::{foreign, Arc};
use crate::wire::content::PayloadKind;

/// A call, in the method that answers it.
///
/// The method returns `Ok` to send the [`results`](Self::results), or an error to send that. Before, it may
/// let the next call start, make the pipeline known early, hand the call on, or keep it to answer later.
pub struct Call {
    object: Arc<LocalObject>,
    interface_id: u64,
    method_id: u16,
    params: Params,
    results: Option<Builder>,
    /// `None` once somebody else has the duty to answer.
    responder: Option<Responder>,
    cancel: Cancel,
    holds_turn: bool,
    streams: bool,
    /// If a streaming call is answered later than its method returns.
    stream: Option<Arc<StreamTurn>>,
}

impl Call {
    pub(crate) fn new(object: Arc<LocalObject>, call: CallInfo) -> Self {
        Call {
            object,
            interface_id: call.interface_id,
            method_id: call.method_id,
            params: call.params.into(),
            results: None,
            responder: Some(call.responder),
            cancel: call.cancel,
            holds_turn: true,
            streams: false,
            stream: None,
        }
    }

    /// The ID of the interface that the method belongs to.
    pub fn interface_id(&self) -> u64 {
        self.interface_id
    }

    /// The method's ordinal within its interface.
    pub fn method_id(&self) -> u16 {
        self.method_id
    }

    /// The params. They can be cloned and kept, and sent to other threads; while they are kept, they count
    /// towards [`Limits::call_words`](crate::Limits::call_words).
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The params as a type that `capnpc` generated.
    ///
    /// # Errors
    /// If the message is malformed.
    pub fn params_as<'a, T: FromPointerReader<'a>>(&'a self) -> Result<T> {
        self.params.get_as()
    }

    /// The results, to be filled in.
    pub fn results(&mut self) -> any_pointer::Builder<'_> {
        self.results_sized(None)
    }

    /// As [`results`](Self::results), with a hint of their size, which saves copying. Only the first hint counts.
    pub fn results_sized(&mut self, size_hint: Option<MessageSize>) -> any_pointer::Builder<'_> {
        self.results.get_or_insert_with(|| Builder::new(PayloadKind::ReturnResults, size_hint)).get()
    }

    /// The results as a new struct of a type that `capnpc` generated.
    pub fn init_results<'a, T: FromPointerBuilder<'a>>(&'a mut self) -> T {
        self.results().init_as()
    }

    /// Copies the results from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set_results<T: Owned>(&mut self, results: impl SetterInput<T>) -> Result<()> {
        Ok(self.results().set_as(results)?)
    }

    /// The call as a method with these params and results sees it.
    pub fn typed<P, R>(&mut self) -> (Params<P>, Results<'_, R>) {
        (self.params.clone().cast(), Results::new(self))
    }

    /// The call as a streaming method with these params sees it: the object's next call starts when it has been
    /// answered, also if that is later than its method returns. If it fails (and was not canceled), so do all later
    /// calls of the object. Both are as in the C++ implementation: who sends ahead relies on what was sent before.
    pub fn streaming<P>(&mut self) -> (Params<P>, Results<'_, ()>) {
        self.streams = true;
        self.typed()
    }

    /// The error of a method that this object does not have.
    ///
    /// # Errors
    /// Always: of kind `unimplemented`.
    pub fn unimplemented(&self) -> Result<()> {
        Err(Error::unimplemented(format!(
            "method {} of interface {:#x} is not implemented here",
            self.method_id, self.interface_id
        )))
    }

    /// Lets the object's next call start now, beside this one, on another thread.
    pub fn allow_next(&mut self) {
        if std::mem::take(&mut self.holds_turn) {
            if let Some(stream) = &self.stream {
                stream.give_away();
            }
            self.object.pass_turn();
        }
    }

    /// Says that the capabilities in the [`results`](Self::results) so far are those that the results will
    /// have: calls pipelined on them go there now instead of waiting for the method to end. The final results
    /// must have the same capabilities in the same places.
    ///
    /// # Errors
    /// If the results hold a capability of another implementation, or the call was handed on already.
    pub fn set_pipeline(&mut self) -> Result<()> {
        let payload = match &mut self.results {
            Some(results) => results.snapshot(PayloadKind::ReturnResults)?,
            None => super::request::empty(),
        };
        self.set_pipeline_to(Pipeline::of_payload(payload))
    }

    /// As [`set_pipeline`](Self::set_pipeline), with the capabilities that `pipeline` leads to: of a call to another
    /// object, say, out of whose results this call's are made. The first time counts.
    ///
    /// # Errors
    /// If the call was handed on already.
    pub fn set_pipeline_to<R>(&mut self, pipeline: Pipeline<R>) -> Result<()> {
        let responder = self.responder.as_ref().ok_or_else(handed_on)?;
        responder.route().set_pipeline(pipeline.cast());
        Ok(())
    }

    /// Hands the call on: `request`'s answer becomes this call's answer, and pipelined calls go to it at once.
    /// Where both lead over the same connection, the results do not even come here (`sendResultsTo.yourself`).
    /// The caller waits, so a timeout of the request's has no effect.
    ///
    /// If this is a [streaming](Self::streaming) call, the object's next call starts when the other has been answered.
    ///
    /// # Blocking
    /// As [`Request::send`].
    ///
    /// # Errors
    /// If the call was handed on already.
    pub fn tail_call<P, R: 'static>(&mut self, request: Request<P, R>) -> Result<()> {
        self.hand_over()?.tail_call(request);
        Ok(())
    }

    /// Takes the duty to answer out of the method: what returns can be sent to any thread and answers from
    /// there. The method then returns `Ok`, and the next call may start; if this is a [streaming](Self::streaming)
    /// call, it starts when this one has been answered or canceled.
    ///
    /// # Errors
    /// If the call was handed on already.
    pub fn defer(&mut self) -> Result<Deferred> {
        let duty = self.hand_over()?;
        Ok(Deferred { duty, params: self.params.clone(), marker: PhantomData })
    }

    /// The duty to answer leaves the method.
    fn hand_over(&mut self) -> Result<Duty> {
        let responder = self.responder.take().ok_or_else(handed_on)?;
        let stream = self.streams.then(|| StreamTurn::new(self.object.clone(), &self.cancel));
        self.stream = stream.clone();
        if let Some(stream) = stream.as_ref().filter(|_| !self.holds_turn) {
            stream.give_away();
        }
        Ok(Duty { responder: Some(responder), cancel: self.cancel.clone(), stream })
    }

    /// Whether the caller has canceled the call.
    pub fn is_canceled(&self) -> bool {
        self.cancel.is_canceled()
    }

    /// The call's cancellation, to be kept, waited for, or registered with.
    pub fn cancellation(&self) -> &Cancel {
        &self.cancel
    }

    /// A client of the object that is being called: what `thisCap` is in C++. A method that gives it away makes no
    /// circle; a server value that would keep it takes a [`WeakClient`](super::WeakClient).
    pub fn this_client(&self) -> Client {
        Client(Kind::Local(self.object.clone()))
    }

    /// The connection that the call came over, or `None` if it was made in this vat.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.port(|port, _| port)
    }

    /// Who is at the other end of that connection.
    pub fn peer(&self) -> Option<Peer> {
        self.port(|_, peer| peer.clone())
    }

    fn port<R>(&self, f: impl FnOnce(ConnectionId, &Peer) -> R) -> Option<R> {
        match self.responder.as_ref()?.route() {
            Route::Remote(port, _) => Some(f(port.connection(), port.peer())),
            Route::Here(_) => None,
        }
    }

    /// Answers the call, unless the method has passed that duty on.
    pub(crate) fn answer(&mut self, outcome: Result<()>) {
        #[cfg(all(test, not(any(shuttle, loom))))]
        crate::sync::fault::point();
        if let Some(responder) = self.responder.take() {
            let results = if outcome.is_ok() { self.results.take() } else { None };
            let outcome = outcome.map_err(Exception::from).and_then(|()| built(results));
            if let (true, Err(why), false) = (self.streams, &outcome, self.cancel.is_canceled()) {
                self.object.break_stream(why);
            }
            self.cancel.end();
            responder.answer(outcome);
        }
        if let Some(unused) = self.results.take() {
            // It may hold capabilities of another implementation.
            foreign("the drop of results", || drop(unused));
        }
    }

    /// The method has returned. True if its thread has the object's turn now.
    pub(crate) fn returned(&self) -> bool {
        self.holds_turn && self.stream.as_ref().is_none_or(|stream| stream.returned())
    }
}

fn built(results: Option<Builder>) -> Result<Payload, Exception> {
    results.map_or_else(|| Ok(super::request::empty()), Builder::finish)
}

fn handed_on() -> Error {
    Error::failed("the call was handed on already")
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({:#x}.{})", self.interface_id, self.method_id)
    }
}

/// The duty to answer a call that has left its method.
struct Duty {
    /// `None` once the call has been answered.
    responder: Option<Responder>,
    cancel: Cancel,
    /// If the call streams. See Note [A streaming call holds the turn].
    stream: Option<Arc<StreamTurn>>,
}

impl Duty {
    fn answer(&mut self, outcome: Result<Payload, Exception>) {
        let Some(responder) = self.responder.take() else { return };
        if let (Some(stream), Err(why), false) = (&self.stream, &outcome, self.cancel.is_canceled()) {
            stream.failed(why);
        }
        self.cancel.end();
        responder.answer(outcome);
        if let Some(stream) = &self.stream {
            stream.answered();
        }
    }

    /// Hands the call on. The answer to a streaming call comes through here: its failure breaks the object.
    fn tail_call<P, R: 'static>(mut self, request: Request<P, R>) {
        let cancel = self.cancel.clone();
        if self.stream.is_none() {
            if let Some(responder) = self.responder.take() {
                request.deliver(responder, cancel, None);
            }
            return;
        }
        let made = LocalCall::<R>::new();
        let wanted = Interest::new(made.clone());
        let answered: Promise<Response<R>> = Promise::new(made.clone(), None);
        answered.on_ready(move |outcome| {
            self.answer(outcome.map(|_| super::request::empty()).map_err(Exception::from));
        });
        cancel.on_cancel(move || drop(wanted));
        request.deliver(Responder::new(Route::Here(made.clone())), Cancel::of(made), None);
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.answer(Err(unanswered()));
    }
}

/// The duty to answer a call later, from any thread. Dropped unused, it answers with an exception, as if the method had
/// failed: so if the call [streams](Call::streaming), all later calls of the object fail too, unless it was canceled.
///
/// `R` is the type that the compiler generated for the results.
pub struct Deferred<R = any_pointer::Owned> {
    duty: Duty,
    params: Params,
    marker: PhantomData<fn() -> R>,
}

impl<R: 'static> Deferred<R> {
    /// The params of the call.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The call's cancellation.
    pub fn cancellation(&self) -> &Cancel {
        &self.duty.cancel
    }

    /// Answers with results in which nothing is set: for methods without results, as streaming ones are.
    pub fn done(mut self) {
        self.duty.answer(Ok(super::request::empty()));
    }

    /// Answers with an exception.
    pub fn fail(mut self, why: impl Into<Exception>) {
        self.duty.answer(Err(why.into()));
    }

    /// Hands the call on: [`Call::tail_call`].
    ///
    /// # Blocking
    /// As [`Request::send`].
    pub fn tail_call<P>(self, request: Request<P, R>) {
        self.duty.tail_call(request);
    }

    /// The same duty, taken to be that of a method with these results.
    pub(crate) fn cast<T>(self) -> Deferred<T> {
        Deferred { duty: self.duty, params: self.params, marker: PhantomData }
    }
}

impl<R: Owned + 'static> Deferred<R> {
    /// Answers with the results that `fill` fills in, or with its error.
    ///
    /// # Panics
    /// If `fill` does. The caller is told so.
    pub fn answer(mut self, fill: impl FnOnce(R::Builder<'_>) -> Result<()>) {
        let mut results = Builder::new(PayloadKind::ReturnResults, None);
        let body = || results.get().get_as().map_err(Error::from).and_then(fill);
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(filled) => {
                let outcome = filled.map_err(Exception::from).and_then(|()| results.finish());
                self.duty.answer(outcome);
            }
            Err(panic) => {
                self.duty.answer(Err(Exception::panicked("the function that fills in the results", &*panic)));
                resume_unwind(panic);
            }
        }
    }
}

impl<R> fmt::Debug for Deferred<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;
    use crate::cap::{Capability, Pool, Server};
    use crate::sync::fault;

    struct Nothing;

    impl Server for Nothing {
        fn dispatch(&self, _: &mut Call) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_in_an_answer_fails_that_call_and_the_next_one_runs() {
        let pool = Pool::manual();
        let object = Client::with_pool(Nothing, &pool);
        let [first, second] = [0, 1].map(|method| object.request(1, method).send());
        fault::set(Some(0));
        pool.run_task(0);
        assert_eq!(fault::set(None), None, "it has panicked");
        let why = first.wait().map(drop).unwrap_err();
        assert!(why.to_string().contains("dropped without an answer"), "{why}");
        pool.run_task(0);
        second.wait().map(drop).unwrap();
        assert_eq!(pool.tasks(), 0);
    }
}
