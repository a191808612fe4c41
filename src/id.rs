//! Identifiers of the four tables and of embargoes, one type each.
//!
//! An ID names an entry of a table, and every table has two sides: what one vat calls its question, the
//! other calls its answer. A type from this module always speaks from *our* side.
//!
//! ```text
//! Note [IDs flip on receipt]
//! ==========================
//! A number that the peer sends is read from the peer's side: its `senderHosted` 7 is an export of the
//! peer's, hence our import 7. The flip happens once, where a message is decoded (`wire::message::Side`):
//! past that point every ID in the program names an entry of one of our own tables.
//! ```

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl From<u32> for $name {
            fn from(id: u32) -> Self {
                $name(id)
            }
        }

        impl From<$name> for u32 {
            fn from(id: $name) -> u32 {
                id.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

ids! {
    /// A call (or bootstrap) that we sent: an entry of our question table. We choose the number.
    QuestionId;
    /// A call (or bootstrap) that the peer sent: an entry of our answer table. The peer chooses the number.
    AnswerId;
    /// A capability of ours that the peer may call: an entry of our export table. We choose the number.
    ExportId;
    /// A capability of the peer's that we may call: an entry of our import table. The peer chooses the number.
    ImportId;
    /// A `Disembargo` of ours that has not come back: an entry of our embargo table. We choose the number.
    EmbargoId;
}
