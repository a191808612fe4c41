//! Code generated from `schema/*.capnp` by `schema/generate.sh`. Not part of the interface of this crate that
//! stays the same from version to version.
#![allow(missing_docs, unreachable_pub, unnameable_types, unused, clippy::all, clippy::pedantic, clippy::nursery)]

pub mod persistent_capnp;
pub mod rpc_capnp;
pub mod rpc_twoparty_capnp;
