//! Cap'n Proto RPC for Rust programs that block.

pub mod error;
pub mod id;
mod sync;
