//! References that do not keep their object alive.

use std::fmt;
use std::marker::PhantomData;

use super::client::{Client, Kind};
use super::object::LocalObject;
use crate::sync::Weak;

/// A client of an object of this vat that does not keep the object alive: for an object that hands itself out, which would
/// never be dropped if it held a [`Client`] of itself. [`Capability::new_cyclic`](super::Capability::new_cyclic) gives an
/// object its own.
///
/// `C` is the type of the client: untyped, or one that the compiler generated for an interface.
pub struct WeakClient<C = Client> {
    object: Weak<LocalObject>,
    marker: PhantomData<fn() -> C>,
}

impl<C> WeakClient<C> {
    pub(super) fn new(object: Weak<LocalObject>) -> Self {
        WeakClient { object, marker: PhantomData }
    }
}

impl<C: From<Client>> WeakClient<C> {
    /// A client of the object, unless it is gone, or not there yet: it is there when `new_cyclic` has returned.
    pub fn upgrade(&self) -> Option<C> {
        self.object.upgrade().map(|object| Client(Kind::Local(object)).into())
    }
}

impl<C> Clone for WeakClient<C> {
    fn clone(&self) -> Self {
        WeakClient::new(self.object.clone())
    }
}

impl<C> fmt::Debug for WeakClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakClient({:p})", self.object.as_ptr())
    }
}
