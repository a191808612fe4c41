//! Each limit of a connection and of a listener: what crosses it fails with a clear error, and nothing else is
//! lost.

#![allow(missing_docs)]

mod crowds;
mod gone;
mod held;
mod incoming;
mod listening;
mod methods;
mod outgoing;
mod pools;
mod proxies;
mod room;
mod sizes;
mod streams;
mod support;
mod unread;
mod values;
