//! What an entry of a table owes to others.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::cap::answer::PendingCall;
use crate::cap::call::{Responder, Route};
use crate::cap::promised::PromiseCell;
use crate::cap::watchers::Watchers;
use crate::cap::{Capability, Client};
use crate::error::Exception;
use crate::sync::{in_turn, unwinds_in_transaction, Arc, Weak};

/// Others that wait for what an entry of a table has to tell them. A transaction takes this out of the table, and
/// records in its effects what they are told. Should it panic between the two, this is dropped while it unwinds, and
/// tells them then that they wait in vain. See Note [Panics in transactions].
///
/// Tables are cloned, and what is dropped at any other time is a clone.
#[derive(Clone)]
pub(super) struct Owed<T: Waits>(Option<T>);

/// Others that wait for something.
pub(super) trait Waits: Clone + Send + 'static {
    /// They wait in vain.
    fn fail(self);
}

impl<T: Waits> Owed<T> {
    pub(super) fn new(to: T) -> Self {
        Owed(Some(to))
    }

    /// Whoever takes this out of the table is to tell them.
    pub(super) fn pay(mut self) -> T {
        self.0.take().expect("it is there until it is paid, which consumes this")
    }
}

impl<T: Waits> Deref for Owed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is paid, which consumes this")
    }
}

impl<T: Waits> DerefMut for Owed<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is paid, which consumes this")
    }
}

impl<T: Waits + Default> Default for Owed<T> {
    fn default() -> Self {
        Owed::new(T::default())
    }
}

impl<T: Waits + fmt::Debug> fmt::Debug for Owed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Waits> Drop for Owed<T> {
    fn drop(&mut self) {
        if self.0.is_some() && unwinds_in_transaction() {
            if let Some(to) = self.0.take() {
                in_turn(move || to.fail());
            }
        }
    }
}

/// What stands for a client that nobody will learn of any more.
fn lost() -> Client {
    Client::broken(Exception::disconnected("the connection has ended in the middle of a transaction"))
}

impl Waits for Arc<dyn PendingCall> {
    fn fail(self) {
        drop(Responder::new(Route::Here(self)));
    }
}

impl Waits for Arc<PromiseCell> {
    fn fail(self) {
        self.resolve(lost());
    }
}

impl Waits for Weak<PromiseCell> {
    fn fail(self) {
        if let Some(cell) = self.upgrade() {
            cell.resolve(lost());
        }
    }
}

impl Waits for Watchers {
    fn fail(self) {
        self.resolved(&lost());
    }
}
