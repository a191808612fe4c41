//! Code generated from `schema/*.capnp` by `schema/generate.sh`, for the examples. It expects to be the module
//! `generated` at the root of its crate.
#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, clippy::nursery)]

pub mod bench_capnp;
pub mod calculator_capnp;
pub mod chat_capnp;
pub mod hello_capnp;
