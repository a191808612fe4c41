//! Cap'n Proto RPC for Rust programs that block: object capabilities, promise pipelining and callbacks over a
//! network, on plain threads, without an async runtime.
//!
//! A file that many programs can read, and one that reads it (here over a pipe in memory; [`Vat::listen`] and
//! [`Vat::connect`] do it over a network):
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/guide/archive.rs"));
//! struct Poem(&'static str);
//!
//! impl file::Server for Poem {
//!     fn read(&self, _: file::ReadParams, mut results: file::ReadResults) -> Result<()> {
//!         results.get().set_text(self.0);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let (here, there) = Transport::in_memory();
//! let server = Vat::new().bootstrap(file::Client::new(Poem("Roses are red."))).over(there)?;
//!
//! let file: file::Client = Vat::new().over(here)?.bootstrap();
//! let response = file.read().wait()?;
//! assert_eq!(response.get()?.get_text()?, "Roses are red.");
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! The module `file`, with the trait `Server` and the type `Client`, is what the schema compiler plugin
//! `capnpc-threads` makes of an interface. **The [`guide`] begins with [a program of your
//! own](guide::first_program).**
//!
//! # What there is
//!
//! - [`Vat`] connects, listens, and offers a bootstrap object; it makes [`Connection`]s.
//! - Generated `Client`s are references to objects, wherever those are. Any thread can hold and share one.
//!   [`Capability`] is what they have in common; the untyped [`Client`] is for programs that know interfaces only
//!   when they run.
//! - [`Request`] builds a call; sending it gives a [`RemotePromise`]: a [`Promise`] to wait for, and a
//!   [`Pipeline`] of the capabilities in the results, which can be called before the results are there.
//! - Generated `Server` traits are what objects implement (and [`Server`], untyped). Methods are plain functions of
//!   [`Params`] and [`Results`], run by an elastic [`Pool`] of threads, one call of an object at a time.
//! - [`Stream`] sends many calls ahead, within a window.
//! - [`transport`] moves messages: sockets, any reader and writer, memory; and shows them to a callback.
//!
//! # Settings
//!
//! Each setting of a [`Vat`], of [`Limits`], [`Options`], a [`Request`] or a [`Stream`] is a method of its name that takes
//! and gives back what is set, from `new()` on. One that may be absent takes a value or `None`. A [`Pool`] is a handle, which
//! does not change: it has a constructor for each kind.
//!
//! # Threads
//!
//! Each connection has four: *send* and *receive* do I/O, the *coordinator* handles messages one by one, and
//! *callback* does what handling them left to be done. They never wait for a user's code, and methods do not
//! run on them. What is registered with [`Promise::on_ready`], [`Cancel::on_cancel`] or
//! [`Connection::on_disconnect`] does, where it is about a call over a connection: it must be short, and waiting
//! there is refused. Calls can be made anywhere. In methods everything may wait. See [`guide::threads`].
//!
//! Each of the four is driven by whichever thread has something for it to do, if that can't make that thread wait: so
//! a call wakes fewer threads. [`Threads::Strict`] turns that off.
//!
//! NOTES.md, in the repository, is the map of the source.

#![deny(unnameable_types)]

mod cap;
mod conn;
pub mod error;
#[cfg(not(feature = "test-util"))]
#[rustfmt::skip]
mod generated;
#[cfg(feature = "test-util")]
#[doc(hidden)]
#[rustfmt::skip]
pub mod generated;
pub mod guide;
pub mod id;
mod limits;
mod memory;
mod peer;
mod promise;
mod queue;
mod short;
mod state;
mod sync;
mod table;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod testing;
pub mod transport;
mod vat;
mod wire;

pub use cap::{
    Call, Capability, Client, ClientFulfiller, ConnectionId, Deferred, Filled, FromServer, LocalServer,
    Params, Pipeline, Pool, RemotePromise, Request, Response, Results, Server, Stream, StreamingRequest,
    WeakClient,
};
pub use conn::{thread_shortages, Connection, Options, Threads};
pub use error::{Error, Exception, ExceptionKind, ProtocolError, Result, TransportError};
pub use limits::{InvalidLimits, Limits};
pub use memory::{process_memory, set_process_memory, ProcessMemory};
pub use peer::{Peer, PeerAddress, PeerCredentials};
pub use promise::{Cancel, Promise, WaitError};
pub use state::{snapshot, Snapshot};
pub use sync::{set_thread_limit, thread_count};
#[cfg(unix)]
pub use vat::UnixAcceptor;
pub use vat::{Accepted, Acceptor, Listener, TcpAcceptor, Vat};
