//! Generated code, called: every feature of the schema language, over TCP, over a transport in memory, and within
//! one vat.
//!
//! Each scenario is a function of the setting that it runs in, and asserts the same in all of them. The schemas are
//! in `typed/schema`, their code in `typed/generated` (made by `schema/generate.sh`).

#[path = "typed/support.rs"]
#[macro_use]
mod support;

#[path = "typed/annotated.rs"]
mod annotated;
#[path = "typed/answering.rs"]
mod answering;
#[path = "typed/brands.rs"]
mod brands;
#[path = "typed/clients.rs"]
mod clients;
#[path = "typed/failures.rs"]
mod failures;
#[path = "typed/foreign.rs"]
mod foreign;
#[path = "typed/generated/mod.rs"]
mod generated;
#[path = "typed/generics.rs"]
mod generics;
#[path = "typed/imports.rs"]
mod imports;
#[path = "typed/inherit.rs"]
mod inherit;
#[path = "typed/methods.rs"]
mod methods;
#[path = "typed/names.rs"]
mod names;
#[path = "typed/odd.rs"]
mod odd;
#[path = "typed/others/mod.rs"]
mod others;
#[path = "typed/pipelines.rs"]
mod pipelines;
#[path = "typed/places.rs"]
mod places;
#[path = "typed/streams.rs"]
mod streams;
#[path = "typed/traits.rs"]
mod traits;
#[path = "typed/waiting.rs"]
mod waiting;
#[path = "typed/work.rs"]
mod work;
