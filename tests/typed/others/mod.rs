//! The calls that the tests of other implementations make, with schemas and words of our own.

mod basics;
mod harbour;
mod holding;
mod order;
mod shapes;
mod tails;
