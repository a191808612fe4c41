//! Generated code, called: every feature of the schema language, over TCP, over a transport in memory, and within
//! one vat.
//!
//! Each scenario is a function of the setting that it runs in, and asserts the same in all of them. The schemas are
//! in `schema`; the build script makes their code of `schema/stored.request`.

#[macro_use]
mod support;

mod annotated;
mod answering;
mod brands;
mod clients;
mod failures;
mod foreign;
mod generated;
mod generics;
mod imports;
mod inherit;
mod methods;
mod names;
mod odd;
mod others;
mod pipelines;
mod places;
mod streams;
mod traits;
mod waiting;
mod work;
