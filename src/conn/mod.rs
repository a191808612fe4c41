//! A connection: the state behind its lock, the four threads that drive it, and how it ends.
//!
//! In the order in which to read them:
//!
//! | file | what |
//! | --- | --- |
//! | [`threads`] | starts the four threads, and has the loop of each |
//! | [`stages`] | the steps of those loops |
//! | [`shared`] | what the threads share |
//! | [`transaction`] | what runs under the lock of the state, and its commit |
//! | [`shutdown`] | how a connection ends |
//! | [`backpressure`] | what bounds the memory that is held for the peer, and what waits at each bound |
//! | [`port`] | the connection as capabilities see it |
//! | [`connection`] | the handle that users hold |
//! | [`drive`] | for speed alone: other threads take the stages' steps |

mod backpressure;
mod connection;
mod drive;
mod port;
mod shared;
mod shutdown;
mod stages;
mod threads;
mod transaction;

pub use connection::{Connection, Options};
pub use drive::thread_shortages;
#[cfg(feature = "test-util")]
pub(crate) use stages::{Progress, Stages, Wait};
pub use threads::Threads;
