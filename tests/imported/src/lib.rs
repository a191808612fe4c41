//! What a crate of its own has to offer: interfaces that the schemas of other crates extend, and structs that
//! they use. The code is generated from `schema/*.capnp` by `schema/generate.sh` of the repository.

#[allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, clippy::nursery)]
#[path = "generated/postal_capnp.rs"]
#[rustfmt::skip]
pub mod postal_capnp;
