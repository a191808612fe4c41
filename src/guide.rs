//! A guide: how programs call, serve and pass objects, what may block where, and how this crate is built.
//!
//! Read [`first_program`] first; the pages after it can be read in any order. All but that one are about one
//! service, an archive of files, whose schema is
//!
//! ```capnp
#![doc = include_str!("../schema/archive.capnp")]
//! ```
//!
//! and where a page's code says `archive()?` it gets a client of one that runs in memory.
//!
//! | page | what |
//! | --- | --- |
//! | [`first_program`] | a server and a client, from an empty folder |
//! | [`calling`] | requests, responses, and the ways to wait |
//! | [`serving`] | objects, methods, and what a method may do with its call |
//! | [`pipelining`] | calls on results that have yet to come |
//! | [`passing_objects`] | callbacks, promises for objects, and how long objects live |
//! | [`canceling`] | dropping, deadlines, and noticing it in a method |
//! | [`streaming`] | many calls ahead, within a window |
//! | [`errors`] | what can fail, and of which kind it is |
//! | [`threads`] | which thread runs what, what may block where, and locks |
//! | [`limits`] | what a peer can make this process hold |
//! | [`testing`] | a service without a network |
//! | [`from_capnp_rpc`] | for those who come from `capnp-rpc` |
//! | [`from_haskell`] | for those who come from the Haskell library |
//! | [`source`] | how to read the source |

macro_rules! pages {
    ($($name:ident)*) => {
        $(
            #[doc = include_str!(concat!("../guide/", stringify!($name), ".md"))]
            pub mod $name {}
        )*
    };
}

pages! {
    first_program calling serving pipelining passing_objects canceling streaming errors threads limits
    testing from_capnp_rpc from_haskell source
}
