//! Backpressure: what bounds the memory that a connection holds for its peer, and what waits at each bound.
//!
//! | file | what |
//! | --- | --- |
//! | [`flow`] | the counts of what is queued and in service, and the wait of the receive thread (Note [Backpressure]) |
//! | [`callers`] | the wait of a caller for room under the limits on questions and bytes to be sent |
//! | [`line`] | the order in which callers wait (Note [Room for callers]) |
//! | [`crowd`] | calls that wait in mailboxes which many connections call (Note [Crowds]) |

mod callers;
mod crowd;
mod flow;
mod line;

pub(super) use flow::{Flow, Found, Sending, Share};
pub(super) use line::Line;
