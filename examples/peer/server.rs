//! The object that serves `Bench`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use capnp_threads::{Call, Client, Error, Exception, Result, Server};

use crate::bench::{data, method, room, BenchClient, BENCH};
use crate::generated::bench_capnp::bench;

#[derive(Default)]
pub(crate) struct Bench {
    /// Bytes pushed so far.
    bytes: AtomicU64,
    /// Calls of `sequence` so far.
    count: AtomicU32,
}

impl Server for Bench {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        if call.interface_id() != BENCH {
            return call.unimplemented();
        }
        match call.method_id() {
            method::ECHO => echo(call),
            method::NEXT => next(call),
            method::CALLBACK => callback(call),
            method::PUSH => self.push(call),
            method::PUSHED => self.pushed(call),
            method::HANG => hang(call),
            method::FAIL => fail(call),
            method::IDENTITY => identity(call),
            method::SEQUENCE => self.sequence(call),
            _ => call.unimplemented(),
        }
    }
}

impl Bench {
    fn push(&self, call: &mut Call) -> Result<()> {
        let data = call.params_as::<bench::push_params::Reader>()?.get_data()?;
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn pushed(&self, call: &mut Call) -> Result<()> {
        let mut results = call.results_sized(room(0, 0)).init_as::<bench::pushed_results::Builder>();
        results.set_bytes(self.bytes.load(Ordering::Relaxed));
        Ok(())
    }

    fn sequence(&self, call: &mut Call) -> Result<()> {
        let expected = call.params_as::<bench::sequence_params::Reader>()?.get_expected();
        // One call at a time: nobody counts between these two.
        let count = self.count.load(Ordering::Relaxed);
        if expected != count {
            return Err(Error::failed(format!("out of order: {expected} at {count}")));
        }
        self.count.store(count + 1, Ordering::Relaxed);
        Ok(())
    }
}

fn echo(call: &mut Call) -> Result<()> {
    let params = call.params().clone();
    let data = params.get_as::<bench::echo_params::Reader>()?.get_data()?;
    let results = call.results_sized(room(data.len(), 0));
    results.init_as::<bench::echo_results::Builder>().set_data(data);
    Ok(())
}

fn next(call: &mut Call) -> Result<()> {
    let object = Client::new(Bench::default());
    let results = call.results_sized(room(0, 1));
    results.init_as::<bench::next_results::Builder>().set_next(object.into_typed());
    Ok(())
}

/// Answers when the target has: calls of ours that come meanwhile do not wait for it.
///
/// A tail call would do the same with fewer messages, but some callers never answer one that leads back to
/// them: the `capnp-rpc` crate (0.27) does not run a call whose results it is to keep.
fn callback(call: &mut Call) -> Result<()> {
    let deferred = call.defer()?;
    let echoed = {
        let params = deferred.params().get_as::<bench::callback_params::Reader>()?;
        let target = BenchClient(Client::from_typed(params.get_target()?)?);
        target.echo(params.get_data()?)
    };
    echoed.on_ready(|response| match response {
        Ok(response) => deferred.answer(|results| {
            results.init_as::<bench::callback_results::Builder>().set_data(data(&response)?);
            Ok(())
        }),
        Err(e) => deferred.fail(e),
    });
    Ok(())
}

/// The call is kept by its own cancellation, and so by nobody once that has come.
fn hang(call: &mut Call) -> Result<()> {
    let deferred = call.defer()?;
    let cancellation = deferred.cancellation().clone();
    cancellation.on_cancel(move || deferred.fail(Exception::failed("canceled")));
    Ok(())
}

fn fail(call: &mut Call) -> Result<()> {
    let reason = call.params_as::<bench::fail_params::Reader>()?.get_reason()?;
    Err(Error::failed(reason.to_string()?))
}

fn identity(call: &mut Call) -> Result<()> {
    let params = call.params().clone();
    let cap = params.get_as::<bench::identity_params::Reader>()?.get_cap()?;
    call.results_sized(room(0, 1)).init_as::<bench::identity_results::Builder>().set_cap(cap);
    Ok(())
}
