//! Messages: as Rust values ([`message`]), as content that may hold capabilities ([`content`]), and the
//! way between those and the bytes of `rpc.capnp` ([`encode`], [`decode`]).

pub(crate) mod content;
pub(crate) mod decode;
pub(crate) mod encode;
mod envelope;
pub mod frame;
mod index;
pub(crate) mod message;
pub(crate) mod needs;
mod patch;
pub(crate) mod places;
mod segments;
pub(crate) mod spare;
#[cfg(test)]
mod testing;
pub(crate) mod usual;
