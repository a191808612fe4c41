//! Code generated from `schema/*.capnp` by `schema/generate.sh`, for the examples. It expects to be the module
//! `generated` at the root of its crate.
#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, clippy::nursery)]

#[rustfmt::skip]
pub mod bench_capnp;
#[rustfmt::skip]
pub mod calculator_capnp;
#[rustfmt::skip]
pub mod chat_capnp;
#[rustfmt::skip]
pub mod hello_capnp;
