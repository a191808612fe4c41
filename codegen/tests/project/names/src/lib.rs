//! The schema that others import.

capnp::generated_code!(pub mod people_capnp);
