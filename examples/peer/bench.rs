//! The interface `Bench` as plain functions: what a generator of typed clients would write.

use capnp::traits::HasTypeId;
use capnp::MessageSize;
use capnp_threads::{Client, Pipeline, RemotePromise, Request, Response, Result};

use crate::generated::bench_capnp::{bench, unserved};

/// The ID of the interface `Bench`.
pub(crate) const BENCH: u64 = <bench::Client as HasTypeId>::TYPE_ID;
/// The ID of the interface `Unserved`.
const UNSERVED: u64 = <unserved::Client as HasTypeId>::TYPE_ID;

/// The methods of `Bench`, by their ordinals.
pub(crate) mod method {
    pub(crate) const ECHO: u16 = 0;
    pub(crate) const NEXT: u16 = 1;
    pub(crate) const CALLBACK: u16 = 2;
    pub(crate) const PUSH: u16 = 3;
    pub(crate) const PUSHED: u16 = 4;
    pub(crate) const HANG: u16 = 5;
    pub(crate) const FAIL: u16 = 6;
    pub(crate) const IDENTITY: u16 = 7;
    pub(crate) const SEQUENCE: u16 = 8;
}

/// Room for a struct with a few fields, `bytes` of data, and so many capabilities.
pub(crate) fn room(bytes: usize, capabilities: u32) -> Option<MessageSize> {
    Some(MessageSize { word_count: 4 + bytes.div_ceil(8) as u64, cap_count: capabilities })
}

/// A client of an object that serves `Bench`.
#[derive(Clone)]
pub(crate) struct BenchClient(pub(crate) Client);

impl BenchClient {
    pub(crate) fn echo_request(&self, data: &[u8]) -> Request {
        let mut request = self.0.request_sized(BENCH, method::ECHO, room(data.len(), 0));
        request.init::<bench::echo_params::Builder>().set_data(data);
        request
    }

    pub(crate) fn echo(&self, data: &[u8]) -> RemotePromise {
        self.echo_request(data).send()
    }

    pub(crate) fn next(&self) -> RemotePromise {
        self.0.request_sized(BENCH, method::NEXT, room(0, 0)).send()
    }

    pub(crate) fn callback(&self, target: Client, data: &[u8]) -> RemotePromise {
        let mut request = self.0.request_sized(BENCH, method::CALLBACK, room(data.len(), 1));
        let mut params = request.init::<bench::callback_params::Builder>();
        params.set_target(target.into_typed());
        params.set_data(data);
        request.send()
    }

    pub(crate) fn push_request(&self, data: &[u8]) -> Request {
        let mut request = self.0.request_sized(BENCH, method::PUSH, room(data.len(), 0));
        request.init::<bench::push_params::Builder>().set_data(data);
        request
    }

    /// How many bytes have been pushed.
    pub(crate) fn pushed(&self) -> Result<u64> {
        let response = self.0.request_sized(BENCH, method::PUSHED, room(0, 0)).send().wait()?;
        Ok(response.get_as::<bench::pushed_results::Reader>()?.get_bytes())
    }

    pub(crate) fn hang(&self) -> RemotePromise {
        self.0.request_sized(BENCH, method::HANG, room(0, 0)).send()
    }

    pub(crate) fn fail(&self, reason: &str) -> RemotePromise {
        let mut request = self.0.request_sized(BENCH, method::FAIL, room(reason.len(), 0));
        request.init::<bench::fail_params::Builder>().set_reason(reason);
        request.send()
    }

    pub(crate) fn identity(&self, cap: Client) -> RemotePromise {
        let mut request = self.0.request_sized(BENCH, method::IDENTITY, room(0, 1));
        request.init::<bench::identity_params::Builder>().set_cap(cap.into_typed());
        request.send()
    }

    pub(crate) fn sequence(&self, expected: u32) -> RemotePromise {
        let mut request = self.0.request_sized(BENCH, method::SEQUENCE, room(0, 0));
        request.init::<bench::sequence_params::Builder>().set_expected(expected);
        request.send()
    }

    /// Calls a method of an interface that the object does not serve.
    pub(crate) fn unserved(&self) -> RemotePromise {
        self.0.request(UNSERVED, 0).send()
    }
}

/// The object in the results of `next`, or of `identity`, before they are there.
pub(crate) fn object(results: &Pipeline) -> BenchClient {
    BenchClient(results.field(0).client())
}

/// The data in the results of `echo`, or of `callback`.
pub(crate) fn data(response: &Response) -> Result<&[u8]> {
    Ok(response.get_as::<bench::echo_results::Reader>()?.get_data()?)
}
