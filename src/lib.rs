//! Cap'n Proto RPC for Rust programs that block: object capabilities, promise pipelining and callbacks over a
//! network, on plain threads, without an async runtime.
//!
//! A program that offers an object, and one that calls it (here over a pipe in memory; [`Vat::listen`] and
//! [`Vat::connect`] do it over a network):
//!
//! ```
//! use capnp_threads::transport::Transport;
//! use capnp_threads::{Call, Client, Result, Server, Vat};
//!
//! const ECHO: u64 = 0xa93fc509624c72d9; // the interface's ID, from its schema
//!
//! struct Echo;
//!
//! impl Server for Echo {
//!     fn dispatch(&self, call: &mut Call) -> Result<()> {
//!         match (call.interface_id(), call.method_id()) {
//!             (ECHO, 0) => {
//!                 let text = call.params_as::<capnp::text::Reader>()?.to_string()?;
//!                 call.results().set_as(&*text)?;
//!                 Ok(())
//!             }
//!             _ => call.unimplemented(),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let (here, there) = Transport::in_memory();
//! let server = Vat::new().bootstrap(Client::new(Echo)).over(there)?;
//! let connection = Vat::new().over(here)?;
//!
//! let mut request = connection.bootstrap::<Client>().request(ECHO, 0);
//! request.get().set_as("hello")?;
//! let response = request.send().wait()?;
//! assert_eq!(response.get_as::<capnp::text::Reader>()?, "hello");
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! - [`Vat`] connects, listens, and offers a bootstrap object; it makes [`Connection`]s.
//! - [`Client`] is a reference to an object, wherever that is. Any thread can hold and share one.
//! - [`Request`] builds a call; sending it gives a [`RemotePromise`]: a [`Promise`] to wait for, and a
//!   [`Pipeline`] of the capabilities in the results, which can be called before the results are there.
//! - [`Server`] is what an object implements; [`Call`] is a call as its method sees it. Methods are plain
//!   functions, run by an elastic [`Pool`] of threads, one call of an object at a time.
//! - [`Stream`] sends many calls ahead, within a window.
//! - [`transport`] moves messages: sockets, any reader and writer, memory; and shows them to a callback.
//!
//! # Threads
//!
//! Each connection has four: *send* and *receive* do I/O, the *coordinator* handles messages one by one, and
//! *callback* does what handling them left to be done. They never wait for a user's code, and methods do not
//! run on them. What is registered with [`Promise::on_ready`], [`Cancel::on_cancel`] or
//! [`Connection::on_disconnect`] does, where it is about a call over a connection: it must be short, and waiting
//! there is refused. Calls can be made anywhere. In methods everything may wait. See [`guide::threads`].
//!
//! NOTES.md, in the repository, is the map of the source.

mod cap;
mod conn;
pub mod error;
#[doc(hidden)]
#[rustfmt::skip]
pub mod generated;
pub mod guide;
pub mod id;
mod limits;
mod peer;
mod promise;
mod state;
mod sync;
mod table;
#[doc(hidden)]
pub mod testing;
pub mod transport;
mod vat;
mod wire;

pub use cap::{
    Call, Capability, Client, ClientFulfiller, ConnectionId, Deferred, Filled, FromServer, Params, Pipeline,
    Pool, RemotePromise, Request, Response, Results, Server, Stream, StreamingRequest,
};
pub use conn::{Connection, Options};
pub use error::{Error, Exception, ExceptionKind, ProtocolError, Result, TransportError};
pub use limits::Limits;
pub use peer::{Peer, PeerCredentials};
pub use promise::{Cancel, Fulfiller, Promise};
pub use state::Snapshot;
pub use vat::{Listener, Vat};
