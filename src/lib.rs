//! Cap'n Proto RPC for Rust programs that block.

pub mod error;
pub mod id;
pub mod limits;
mod sync;
pub mod transport;
pub mod wire;
