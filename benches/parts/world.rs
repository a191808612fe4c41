//! Two vats in one thread.

use capnp_threads::testing::{untraced_pair, Side, Stage};
use capnp_threads::{
    Capability, Client, Connection, Limits, Options, Pool, RemotePromise, Request, Response, Threads,
};

use crate::generated::bench_capnp::bench::{self, echo_params, echo_results};
use crate::server::{room, Bench};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// A vat that calls and one that serves, with a connection in memory whose stages this thread drives.
pub(crate) struct World([Side; 2]);

impl World {
    /// The server's bootstrap object is `object`.
    pub(crate) fn new(threads: Threads, object: Client) -> Self {
        World::with_limits(threads, object, Limits::default())
    }

    pub(crate) fn with_limits(threads: Threads, object: Client, limits: Limits) -> Self {
        let client = Options::new().threads(threads).limits(limits.clone());
        let server = Options::new().threads(threads).limits(limits).bootstrap(object);
        World(untraced_pair(client, server))
    }

    /// The client's or the server's end.
    pub(crate) fn connection(&self, side: usize) -> &Connection {
        self.0[side].connection()
    }

    /// The server's bootstrap object, which has come.
    pub(crate) fn bootstrap<C: Capability>(&mut self) -> C {
        let client = self.0[CLIENT].connection().bootstrap();
        self.settle();
        client
    }

    /// Takes the steps of a stage until there are no more. True if there were any.
    pub(crate) fn steps(&mut self, side: usize, stage: Stage) -> bool {
        let before = self.0[side].step(stage);
        while before && self.0[side].step(stage) {}
        before
    }

    /// Takes all steps until there are no more.
    pub(crate) fn settle(&mut self) {
        while [CLIENT, SERVER].into_iter().fold(false, |any, side| {
            Stage::ALL.into_iter().fold(any, |any, stage| self.steps(side, stage) || any)
        }) {}
    }
}

/// An object that runs on the thread that has the call.
pub(crate) fn object() -> bench::Client {
    bench::Client::with_pool(Bench::default(), Pool::in_place())
}

/// An echo of 16 bytes, to be sent.
pub(crate) fn echo(bench: &bench::Client) -> Request<echo_params::Owned, echo_results::Owned> {
    let mut request = bench.echo_request();
    request.get_sized(room(16, 0)).set_data(&[7; 16]);
    request
}

/// The response, which has come.
pub(crate) fn taken<R: 'static>(call: RemotePromise<R>) -> Response<R> {
    call.try_take().expect("it has been answered, with results")
}
