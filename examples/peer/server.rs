//! The object that serves `Bench`, and what its callers share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use capnp::MessageSize;
use capnp_threads::{Capability, Error, Exception, Pool, RemotePromise, Result};

use crate::generated::bench_capnp::bench;

/// Room for a struct with a few fields, `bytes` of data, and so many capabilities.
pub(crate) fn room(bytes: usize, capabilities: u32) -> MessageSize {
    MessageSize { word_count: 4 + bytes.div_ceil(8) as u64, cap_count: capabilities }
}

/// What `target` echoes to the server.
pub(crate) fn callback(
    bench: &bench::Client,
    target: bench::Client,
    data: &[u8],
) -> RemotePromise<bench::callback_results::Owned> {
    let mut request = bench.callback_request();
    let mut params = request.get_sized(room(data.len(), 1));
    params.set_target(target);
    params.set_data(data);
    request.send()
}

#[derive(Default)]
pub(crate) struct Bench {
    /// Bytes pushed so far.
    bytes: AtomicU64,
    /// Calls of `sequence` so far.
    count: AtomicU32,
}

impl bench::Server for Bench {
    fn echo(&self, params: bench::EchoParams, mut results: bench::EchoResults) -> Result<()> {
        let data = params.get()?.get_data()?;
        results.get_sized(room(data.len(), 0)).set_data(data);
        Ok(())
    }

    fn next(&self, _: bench::NextParams, mut results: bench::NextResults) -> Result<()> {
        results.get_sized(room(0, 1)).set_next(bench::Client::with_pool(Bench::default(), Pool::in_place()));
        Ok(())
    }

    /// Answers when the target has: calls of ours that come meanwhile do not wait for it.
    ///
    /// A tail call would do the same with fewer messages, but some callers never answer one that leads back to
    /// them: the `capnp-rpc` crate (0.27) does not run a call whose results it is to keep.
    fn callback(&self, params: bench::CallbackParams, results: bench::CallbackResults) -> Result<()> {
        let params = params.get()?;
        let data = params.get_data()?;
        let mut request = params.get_target()?.echo_request();
        request.get_sized(room(data.len(), 0)).set_data(data);
        let echoed = request.send();
        let deferred = results.defer()?;
        echoed.on_ready(|response| {
            deferred.answer(|mut results| {
                results.set_data(response?.get()?.get_data()?);
                Ok(())
            })
        });
        Ok(())
    }

    fn push(&self, params: bench::PushParams, _: bench::PushResults) -> Result<()> {
        self.bytes.fetch_add(params.get()?.get_data()?.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn pushed(&self, _: bench::PushedParams, mut results: bench::PushedResults) -> Result<()> {
        results.get_sized(room(0, 0)).set_bytes(self.bytes.load(Ordering::Relaxed));
        Ok(())
    }

    /// The call is kept by its own cancellation, and so by nobody once that has come.
    fn hang(&self, _: bench::HangParams, results: bench::HangResults) -> Result<()> {
        let deferred = results.defer()?;
        let cancellation = deferred.cancellation().clone();
        cancellation.on_cancel(move || deferred.fail(Exception::failed("canceled")));
        Ok(())
    }

    fn fail(&self, params: bench::FailParams, _: bench::FailResults) -> Result<()> {
        Err(Error::failed(params.get()?.get_reason()?.to_str()?))
    }

    fn identity(&self, params: bench::IdentityParams, mut results: bench::IdentityResults) -> Result<()> {
        results.get_sized(room(0, 1)).set_cap(params.get()?.get_cap()?);
        Ok(())
    }

    fn sequence(&self, params: bench::SequenceParams, _: bench::SequenceResults) -> Result<()> {
        let expected = params.get()?.get_expected();
        // One call at a time: nobody counts between these two.
        let count = self.count.load(Ordering::Relaxed);
        if expected != count {
            return Err(Error::failed(format!("out of order: {expected} at {count}")));
        }
        self.count.store(count + 1, Ordering::Relaxed);
        Ok(())
    }
}
