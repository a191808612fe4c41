//! A connection: the state behind its lock, the four threads that drive it, and how it ends.
//!
//! | file | what |
//! | --- | --- |
//! | [`shared`] | what the threads share |
//! | [`transaction`] | what runs under the lock of the state, and its commit |
//! | [`stages`] | what the four threads do, one step at a time |
//! | [`backpressure`] | what bounds the memory that is held for the peer, and what waits at each bound |
//! | [`shutdown`] | how a connection ends |
//! | [`lending`] | which threads take those steps |
//! | [`polling`] | looking for input over and over before sleeping |
//! | [`reading`] | the receive stage, on a thread that waits for what it reads |
//! | [`desk`] | where that stage is borrowed |
//! | [`reactor`] | one thread that waits for the input of all connections whose receive threads would sleep |
//! | [`keeper`] | who looks after both |
//! | [`drops`] | references that users have dropped |
//! | [`port`] | the connection as capabilities see it |
//! | [`connection`] | the handle that users hold |

mod backpressure;
mod connection;
mod desk;
mod drops;
mod keeper;
mod lending;
mod polling;
mod port;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(shuttle), any(not(loom), test)))]
mod reactor;
mod reading;
mod shared;
mod shutdown;
mod stages;
mod transaction;

pub use connection::{Connection, Options};
pub use lending::Threads;
pub(crate) use stages::{Progress, Stages, Wait};
