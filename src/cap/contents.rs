//! Params and results as their reader sees them: content, and the clients that its capability pointers mean.

use std::fmt;
use std::marker::PhantomData;

use capnp::any_pointer;
use capnp::traits::{FromPointerReader, Imbue, Owned};

use super::capability::Capability;
use super::client::Client;
use super::hook::ReadTable;
use crate::error::{Exception, Result};
use crate::promise::Attachment;
use crate::short::Short;
use crate::sync::{Arc, OnceLock};
use crate::wire::content::{Content, PayloadKind};

/// Content with the clients that it refers to: the truth, which crosses threads.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) content: Content,
    pub(crate) caps: Short<Client>,
    /// What is given back when the payload goes: a share of the limit on incoming calls.
    pub(crate) share: Option<Arc<dyn Attachment>>,
}

impl Payload {
    pub(crate) fn new(content: Content, caps: Short<Client>) -> Self {
        Payload { content, caps, share: None }
    }

    /// Makes the content ready to be sent from `place`; see [`Content::copy_received`].
    pub(crate) fn prepare(&mut self, place: PayloadKind, most_words: usize) -> Result<(), Exception> {
        if let Some((content, indices)) = self.content.copy_received(place, self.caps.len(), most_words)? {
            self.content = content;
            self.caps = indices.iter().map(|i| self.caps[*i as usize].clone()).collect();
        }
        Ok(())
    }

    /// Which capability stands at `path`: an index into `caps`, or `None` for a null pointer.
    pub(crate) fn index_at(&self, path: &[u16]) -> Result<Option<usize>, Exception> {
        if self.caps.is_empty() && path.is_empty() {
            return Ok(None);
        }
        Ok(self.content.cap_index_at(path, self.caps.len())?.map(|i| i as usize))
    }

    /// The client at `path`.
    pub(crate) fn client_at(&self, path: &[u16]) -> Client {
        match self.index_at(path) {
            Ok(Some(index)) => self.caps[index].clone(),
            Ok(None) => Client::null(),
            Err(e) => Client::broken(e),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} words, {:?})", self.content.words(), self.caps)
    }
}

struct Contents {
    payload: Payload,
    /// Made when the first reader asks for it.
    table: OnceLock<ReadTable>,
}

impl Contents {
    fn new(payload: Payload) -> Self {
        Contents { payload, table: OnceLock::new() }
    }

    fn get(&self) -> Result<any_pointer::Reader<'_>> {
        let mut reader = self.payload.content.reader()?;
        let table = match &*self.payload.caps {
            [] => ReadTable::empty(),
            caps => self.table.get_or_init(|| ReadTable::new(caps)),
        };
        reader.imbue(table.get());
        Ok(reader)
    }
}

macro_rules! contents {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Owns its message; clones share it. `Send + Sync`: any thread can read it, and it stays valid
        /// whatever becomes of the connection.
        ///
        /// `T` is the type that the compiler generated for the struct, or what holds any.
        pub struct $name<T = any_pointer::Owned>(Contents, PhantomData<fn() -> T>);

        impl<T> $name<T> {
            /// The size of the content's message in words.
            pub fn words(&self) -> usize {
                self.0.payload.content.words()
            }
        }

        impl<T: Owned> $name<T> {
            /// The content: a struct.
            ///
            /// # Errors
            /// If the message is malformed.
            pub fn get(&self) -> Result<T::Reader<'_>> {
                Ok(self.0.get()?.get_as()?)
            }
        }

        impl $name {
            /// The content as a type that the compiler generated, as in `get_as::<add_params::Reader>()`.
            ///
            /// # Errors
            /// If the message is malformed.
            pub fn get_as<'a, T: FromPointerReader<'a>>(&'a self) -> Result<T> {
                Ok(self.0.get()?.get_as()?)
            }

            /// The same content, taken to be of type `T`. That it is shows when it is read.
            pub fn cast<T>(self) -> $name<T> {
                $name(self.0, PhantomData)
            }
        }

        impl<T> From<Payload> for $name<T> {
            fn from(payload: Payload) -> Self {
                $name(Contents::new(payload), PhantomData)
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                $name(Contents::new(self.0.payload.clone()), PhantomData)
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} words)"), self.words())
            }
        }
    };
}

contents! {
    /// The params of a call, in its method.
    Params
}

contents! {
    /// The results of a call, at its caller.
    Response
}
