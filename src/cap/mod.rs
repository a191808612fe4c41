//! Capabilities: what a program holds, calls, and serves, whichever connection it is behind.
//!
//! | file | what |
//! | --- | --- |
//! | [`client`] | [`Client`] and its kinds |
//! | [`capability`] | what clients have in common, typed or not |
//! | [`request`] | building and sending a call |
//! | [`contents`] | params and results as their reader sees them |
//! | [`hook`] | the bridge to the `capnp` crate's capability types |
//! | [`call`] | a call under way, and where its answer goes |
//! | [`answer`] | the answer of a call made here, and its pipeline |
//! | [`promised`] | promise clients |
//! | [`waiting`] | the calls that wait in them |
//! | [`resolution`] | what promises were resolved to, and how chains of them are followed |
//! | [`port`] | a connection as capabilities see it |
//! | [`serving`] | a call as its method sees it |
//! | [`results`] | its results, and what a method may do with its call, typed |
//! | [`object`] | objects and their mailboxes |
//! | [`watchers`] | what is told when a promise is resolved |
//! | [`weak`] | references that do not keep their object alive |
//! | [`pool`] | the threads that run methods |
//! | [`permits`] | how many of them run those of one connection's calls |
//! | [`stream`] | streaming calls |
//! | [`window`] | how many of them are under way, and who waits for room |
//! | `testing` | what tests use in place of a connection |

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod capability;
pub(crate) mod client;
pub(crate) mod contents;
pub(crate) mod hook;
#[cfg(all(test, not(any(shuttle, loom))))]
pub(crate) mod masses;
pub(crate) mod object;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod port;
pub(crate) mod promised;
pub(crate) mod request;
pub(crate) mod resolution;
pub(crate) mod results;
pub(crate) mod serving;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod waiting;
pub(crate) mod watchers;
pub(crate) mod weak;
mod window;

pub use answer::Pipeline;
pub use capability::{Capability, FromServer};
pub use client::{Client, LocalServer};
pub use contents::{Params, Response};
pub use object::Server;
pub use pool::Pool;
pub use port::ConnectionId;
pub use promised::ClientFulfiller;
pub use request::{Filled, RemotePromise, Request};
pub use results::Results;
pub use serving::{Call, Deferred};
pub use stream::{Stream, StreamingRequest};
pub use weak::WeakClient;
