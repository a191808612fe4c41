//! Code generated from `schema/*.capnp` beside this folder by `schema/generate.sh`. It expects to be the module
//! `generated` at the root of its crate.
#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, clippy::nursery)]

#[rustfmt::skip]
pub mod abroad_capnp;
#[rustfmt::skip]
pub mod chain_base_capnp;
#[rustfmt::skip]
pub mod chain_middle_capnp;
#[rustfmt::skip]
pub mod generics_capnp;
#[rustfmt::skip]
pub mod inherit_capnp;
#[rustfmt::skip]
pub mod methods_capnp;
#[rustfmt::skip]
pub mod odd_shapes_capnp;
#[rustfmt::skip]
pub mod others_capnp;
#[rustfmt::skip]
pub mod places_capnp;
#[rustfmt::skip]
pub mod rust_capnp;
#[rustfmt::skip]
pub mod work_capnp;

/// Where the schema itself says that its code belongs.
#[path = "."]
pub mod elsewhere {
    #[rustfmt::skip]
    pub mod annotated_capnp;
}
