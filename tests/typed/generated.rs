//! The code of `schema/*.capnp`, which the build script has made of `schema/stored.request`. It expects to be the
//! module `generated` at the root of its crate.
#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, clippy::nursery)]

use capnp::generated_code;

generated_code!(pub mod abroad_capnp);
generated_code!(pub mod chain_base_capnp);
generated_code!(pub mod chain_middle_capnp);
generated_code!(pub mod generics_capnp);
generated_code!(pub mod inherit_capnp);
generated_code!(pub mod methods_capnp);
generated_code!(pub mod odd_shapes_capnp);
generated_code!(pub mod others_capnp);
generated_code!(pub mod places_capnp);
generated_code!(pub mod rust_capnp);
generated_code!(pub mod work_capnp);

/// Where the schema itself says that its code belongs.
pub mod elsewhere {
    capnp::generated_code!(pub mod annotated_capnp);
}
