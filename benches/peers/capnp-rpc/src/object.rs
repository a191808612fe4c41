//! The object that serves `Bench`.

use std::cell::Cell;
use std::rc::Rc;

use capnp::{Error, Result};

use crate::bench_capnp::bench;

#[derive(Default)]
struct Object {
    /// Bytes pushed so far.
    bytes: Cell<u64>,
    /// Calls of `sequence` so far.
    count: Cell<u32>,
}

/// A new object.
pub(crate) fn new() -> bench::Client {
    capnp_rpc::new_client(Object::default())
}

impl bench::Server for Object {
    async fn echo(self: Rc<Self>, params: bench::EchoParams, mut results: bench::EchoResults) -> Result<()> {
        results.get().set_data(params.get()?.get_data()?);
        Ok(())
    }

    async fn next(self: Rc<Self>, _: bench::NextParams, mut results: bench::NextResults) -> Result<()> {
        results.get().set_next(new());
        Ok(())
    }

    async fn callback(
        self: Rc<Self>,
        params: bench::CallbackParams,
        mut results: bench::CallbackResults,
    ) -> Result<()> {
        let params = params.get()?;
        let mut request = params.get_target()?.echo_request();
        request.get().set_data(params.get_data()?);
        let echoed = request.send().promise.await?;
        results.get().set_data(echoed.get()?.get_data()?);
        Ok(())
    }

    async fn push(self: Rc<Self>, params: bench::PushParams) -> Result<()> {
        let pushed = params.get()?.get_data()?.len() as u64;
        self.bytes.set(self.bytes.get() + pushed);
        Ok(())
    }

    async fn pushed(self: Rc<Self>, _: bench::PushedParams, mut results: bench::PushedResults) -> Result<()> {
        results.get().set_bytes(self.bytes.get());
        Ok(())
    }

    async fn hang(self: Rc<Self>, _: bench::HangParams, _: bench::HangResults) -> Result<()> {
        std::future::pending().await
    }

    async fn fail(self: Rc<Self>, params: bench::FailParams, _: bench::FailResults) -> Result<()> {
        Err(Error::failed(params.get()?.get_reason()?.to_string()?))
    }

    async fn identity(
        self: Rc<Self>,
        params: bench::IdentityParams,
        mut results: bench::IdentityResults,
    ) -> Result<()> {
        results.get().set_cap(params.get()?.get_cap()?);
        Ok(())
    }

    async fn sequence(
        self: Rc<Self>,
        params: bench::SequenceParams,
        _: bench::SequenceResults,
    ) -> Result<()> {
        let expected = params.get()?.get_expected();
        let count = self.count.get();
        if expected != count {
            return Err(Error::failed(format!("out of order: {expected} at {count}")));
        }
        self.count.set(count + 1);
        Ok(())
    }
}
