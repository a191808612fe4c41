//! Cap'n Proto RPC for Rust programs that block.

pub mod error;
pub mod id;
pub mod limits;
mod promise;
mod sync;

pub use error::{Error, Exception, ExceptionKind, Result};
pub use promise::{Cancel, Promise};
