//! Cap'n Proto RPC for Rust programs that block.

#![recursion_limit = "256"]

mod cap;
mod conn;
pub mod error;
#[doc(hidden)]
#[rustfmt::skip]
pub mod generated;
pub mod id;
pub mod limits;
mod peer;
mod promise;
mod state;
mod sync;
mod table;
pub mod transport;
mod vat;
mod wire;

pub use cap::{
    Call, Client, ClientFulfiller, ConnectionId, Deferred, Params, Pipeline, Pool, RemotePromise, Request,
    Response, Server, Stream,
};
pub use conn::{Connection, Options};
pub use error::{Error, Exception, ExceptionKind, Result};
pub use limits::Limits;
pub use peer::{Peer, PeerCredentials};
pub use promise::{Cancel, Promise};
pub use state::Snapshot;
pub use vat::{Listener, Vat};
