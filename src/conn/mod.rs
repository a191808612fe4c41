//! A connection: the state behind its lock, the four threads that drive it, and how it ends.
//!
//! | file | what |
//! | --- | --- |
//! | [`shared`] | the lock, transactions and their commit |
//! | [`stages`] | what the four threads do, one step at a time |
//! | [`flow`] | the limits on what is queued and in service |
//! | [`crowd`] | calls that wait in mailboxes where many wait, and what is held for their sake |
//! | [`room`] | the line of callers that wait for room |
//! | [`lending`] | which threads take those steps |
//! | [`polling`] | looking for input over and over before sleeping |
//! | [`reading`] | the receive stage, on a thread that waits for what it reads |
//! | [`desk`] | where that stage is borrowed |
//! | [`reactor`] | one thread that waits for the input of all connections whose receive threads would sleep |
//! | [`keeper`] | who looks after both |
//! | [`drops`] | references that users have dropped |
//! | [`port`] | the connection as capabilities see it |
//! | [`connection`] | the handle that users hold |

mod connection;
mod crowd;
mod desk;
mod drops;
mod flow;
mod keeper;
mod lending;
mod polling;
mod port;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(shuttle), any(not(loom), test)))]
mod reactor;
mod reading;
mod room;
mod shared;
mod stages;

pub use connection::{Connection, Options};
pub use lending::Threads;
pub(crate) use stages::{Progress, Stages, Wait};
