//! Cap'n Proto RPC for Rust programs that block.

pub mod error;
#[doc(hidden)]
#[rustfmt::skip]
pub mod generated;
pub mod id;
mod limits;
mod sync;
pub mod transport;
mod wire;

pub use limits::Limits;
