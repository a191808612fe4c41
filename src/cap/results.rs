//! The results of a call as a method of a known type sees them.

use std::fmt;
use std::marker::PhantomData;

use capnp::any_pointer;
use capnp::traits::{Owned, SetterInput};
use capnp::MessageSize;

use super::answer::Pipeline;
use super::capability::Capability;
use super::port::ConnectionId;
use super::request::{BoundToItsThread, Request};
use super::serving::{Call, Deferred};
use crate::error::Result;
use crate::peer::Peer;
use crate::promise::Cancel;

/// The results that a method is to fill in, and what else a method may do with its call: answer later, hand it
/// on, let the next one start.
///
/// The method returns `Ok` to send the results, or an error to send that. `R` is the type that the compiler
/// generated for the results; a streaming method has none.
pub struct Results<'a, R = any_pointer::Owned> {
    bound: BoundToItsThread,
    call: &'a mut Call,
    marker: PhantomData<fn() -> R>,
}

impl<'a, R> Results<'a, R> {
    pub(super) fn new(call: &'a mut Call) -> Self {
        Results { bound: PhantomData, call, marker: PhantomData }
    }
}

impl<R: Owned> Results<'_, R> {
    /// The results, to be filled in.
    ///
    /// # Panics
    /// If they were set as something that is not an `R`, through [`Call`].
    pub fn get(&mut self) -> R::Builder<'_> {
        self.call.results().get_as().expect("the results are what was built here")
    }

    /// As [`get`](Self::get), with a hint of their size, which saves segments. Only the first hint counts.
    ///
    /// # Panics
    /// As there.
    pub fn get_sized(&mut self, size_hint: MessageSize) -> R::Builder<'_> {
        let results = self.call.results_sized(Some(size_hint));
        results.get_as().expect("the results are what was built here")
    }

    /// Copies the results from a reader.
    ///
    /// # Errors
    /// If what is read is malformed.
    pub fn set(&mut self, results: impl SetterInput<R>) -> Result<()> {
        self.call.set_results(results)
    }

    /// Says that the capabilities in the results so far are those that they will have: [`Call::set_pipeline`].
    ///
    /// # Errors
    /// As there.
    pub fn set_pipeline(&mut self) -> Result<()> {
        self.call.set_pipeline()
    }

    /// Says that the capabilities in the results will be those that `pipeline` leads to: [`Call::set_pipeline_to`].
    ///
    /// # Errors
    /// As there.
    pub fn set_pipeline_to(&mut self, pipeline: Pipeline<R>) -> Result<()> {
        self.call.set_pipeline_to(pipeline)
    }
}

impl<R: 'static> Results<'_, R> {
    /// Lets the object's next call start now, beside this one, on another thread.
    pub fn allow_next(&mut self) {
        self.call.allow_next();
    }

    /// Hands the call on: `request`'s answer becomes this call's answer: [`Call::tail_call`].
    ///
    /// # Blocking
    /// As [`Request::send`].
    ///
    /// # Errors
    /// If the call was handed on already.
    pub fn tail_call<P>(self, request: Request<P, R>) -> Result<()> {
        self.call.tail_call(request)
    }

    /// Takes the duty to answer out of the method: [`Call::defer`].
    ///
    /// # Errors
    /// If the call was handed on already.
    pub fn defer(self) -> Result<Deferred<R>> {
        Ok(self.call.defer()?.cast())
    }

    /// Whether the caller has canceled the call.
    pub fn is_canceled(&self) -> bool {
        self.call.is_canceled()
    }

    /// The call's cancellation, to be kept, waited for, or registered with.
    pub fn cancellation(&self) -> &Cancel {
        self.call.cancellation()
    }

    /// A client of the object that is being called: [`Call::this_client`]. Unchecked: it is for the method to know which
    /// interfaces its object has.
    pub fn this_client<C: Capability>(&self) -> C {
        self.call.this_client().into()
    }

    /// The connection that the call came over, or `None` if it was made in this vat.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.call.connection()
    }

    /// Who is at the other end of that connection.
    pub fn peer(&self) -> Option<Peer> {
        self.call.peer()
    }
}

impl<R> fmt::Debug for Results<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({:?})", self.call)
    }
}
