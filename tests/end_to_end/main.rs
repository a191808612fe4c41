//! Whole vats, two or three of them, connected in every way: what users rely on, from one end to the other.

#![allow(missing_docs)]

mod acceptors;
mod auto_traits;
mod cancellation;
mod child;
mod connected;
mod deadlines;
mod drops;
mod ending;
mod error_tests;
mod errors;
mod in_place;
mod killed;
mod listening;
mod long_chains;
mod many;
mod no_descriptors;
mod panicking_drops;
mod peers;
mod promises;
mod proxies;
mod reactor;
mod serving;
mod streaming;
mod support;
mod thread_limit;
mod transports;
mod waiting;
