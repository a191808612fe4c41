//! What the fuzz targets run: plain functions of bytes, so that the committed corpus runs as a test too, on any
//! toolchain (`cargo test` in this folder).
//!
//! | target | what the bytes are | what must hold |
//! | --- | --- | --- |
//! | [`frames`] | a stream, and where reads of it end | read whole or in pieces, it gives the same messages and the same end; every message is decoded or refused |
//! | [`message`] | one message | the fast decoder and the plain one agree |
//! | [`sequence`] | messages of a hostile peer, and what the program does meanwhile | no panic; after the end all tables are empty, and nobody waits |
//! | [`line`] | what two programs do, and what a line between them delays, flips and cuts | the same |
//!
//! Fuzzing builds run with debug assertions: the connection checks its tables after each transaction.

#[path = "../../tests/conformance/support/content.rs"]
#[allow(dead_code)]
mod content;
mod frames;
mod line;
#[path = "../../tests/conformance/support/message.rs"]
#[allow(dead_code)]
mod message;
mod program;
mod sequence;

pub use frames::{frames, message};
pub use line::line;
pub use sequence::sequence;
