//! Conformance to the protocol: a peer made of raw messages drives one connection of ours, message by message,
//! and sees each message that comes back. One file for each type of message. The line `Rules: …` above a test names
//! the rules that it holds us to; `RULES.md` has each rule with its tests.

mod abort;
mod bootstrap;
mod call;
mod circles;
mod disconnect;
mod disembargo;
mod embargo;
mod finish;
mod haskell;
mod hints;
mod ids;
mod masses;
mod named;
mod order;
mod promises;
mod refused;
mod release;
mod resolve;
mod results;
mod snapshot;
mod support;
mod tail_calls;
mod third_parties;
mod tribble;
mod unimplemented;
mod wanted;
