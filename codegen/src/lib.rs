//! Generates Rust code for [Cap'n Proto](https://capnproto.org) schemas whose interfaces are served and
//! called with the crate `capnp-threads`.
//!
//! Structs, enums, constants and annotations come out as the stock `capnpc` crate writes them; only what
//! belongs to an interface (its client, its server trait, its dispatch) is ours.
//!
//! # In a build script, with the `capnp` tool
//!
//! ```no_run
//! // in the `main` of build.rs
//! capnpc_threads::CompilerCommand::new()
//!     .src_prefix("schema")
//!     .file("schema/foo.capnp")
//!     .run()
//!     .expect("compiling schemas");
//! ```
//!
//! ```text
//! // src/lib.rs
//! capnp::generated_code!(pub mod foo_capnp);
//! ```
//!
//! # In a build script, without it
//!
//! `capnpc-rust-threads store` (see the program's `--help`) keeps what the `capnp` tool made of the schemas
//! in a file. Whoever builds from that file needs nothing but cargo:
//!
//! ```no_run
//! // in the `main` of build.rs
//! let stored = std::fs::File::open("schema/stored.request").expect("the stored request");
//! capnpc_threads::CodeGenerationCommand::new().run(stored).expect("generating code");
//! ```
//!
//! # As a plugin
//!
//! `capnp compile -orust-threads:DIR foo.capnp` runs the program `capnpc-rust-threads` of this crate.

#[doc(hidden)]
pub mod cli;
pub mod codegen;
mod compiler;
mod conflicts;
mod error;
mod left_out;
mod prepare;
mod request;
mod splice;
mod stock;

pub use codegen::CodeGenerationCommand;
pub use compiler::CompilerCommand;
pub use error::Error;

/// The examples of the README are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
