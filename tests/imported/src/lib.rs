//! What a crate of its own has to offer: interfaces that the schemas of other crates extend, and structs that
//! they use. The build script generates the code from `schema/stored.request`.

// The code brings no documentation and no regard for lints.
#![allow(missing_docs, unreachable_pub, unused, clippy::pedantic, clippy::nursery)]

capnp::generated_code!(pub mod postal_capnp);
