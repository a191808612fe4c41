//! Messages: as Rust values, as content that may hold capabilities, and the way between those and the bytes of
//! `rpc.capnp`.
//!
//! In the order in which to read them:
//!
//! - [`message`]: the messages as Rust values.
//! - [`content`]: params and results. They stay in the message that they were received or built in.
//! - [`frame`]: a whole message as bytes, received ([`Frame`](frame::Frame)) or to be sent ([`Outbound`](frame::Outbound)).
//! - [`decode`], [`encode`]: from bytes to values, and back.
//! - [`cap_index`], [`remap_caps`], [`cap_paths`]: indices of capabilities, which the `capnp` crate does not show; what they
//!   know of pointers they have from [`pointer`].
//! - [`needs`]: what a message needs to be handled, found out without decoding it.
//! - [`fast`]: speed, and nothing else. Each of its files stands in for a plain function, which does the same.

pub(crate) mod cap_index;
pub(crate) mod cap_paths;
pub(crate) mod content;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fast;
pub mod frame;
pub(crate) mod message;
pub(crate) mod needs;
pub(crate) mod pointer;
mod remap_caps;
#[cfg(test)]
mod testing;
