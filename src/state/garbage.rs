//! What is to be dropped outside the lock. See Note [Effects run after unlock].

use std::fmt;

use super::answers::{Answer, Onward};
use super::descriptors::Accepted;
use super::embargoes::Embargo;
use super::entry::Entry;
use super::exports::Export;
use super::imports::{Import, ImportedPromise, Pending};
use super::named::Named;
use super::outcome::Returned;
use super::questions::{self, Question};
use super::said::Said;
use super::waiting::Waiting;
use crate::cap::answer::Pipeline;
use crate::cap::call::CallInfo;
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{QuestionRef, RemoteRef, RemoteTarget};
use crate::cap::watchers::Useless;
use crate::error::Exception;
use crate::promise::{Attachment, Cancel};
use crate::short::Short;
use crate::sync::Arc;
use crate::table::PeerTable;

/// Values to be dropped.
#[derive(Default)]
pub(crate) struct Garbage(Vec<Waste>);

/// Something whose drop may run foreign code. The kinds that every call leaves are here as they are.
enum Waste {
    Question(Arc<QuestionRef>),
    Outcome(Result<Payload, Exception>),
    Client(Client),
    Clients(Short<Client>),
    Cancel(Cancel),
    Attachment(Arc<dyn Attachment>),
    /// Who would have been told of a question's outcome.
    Asked(Short<questions::OnReturn>),
    Other(Box<dyn Send>),
}

impl Waste {
    /// Whether nothing but this crate's own code runs when it is dropped: its drop may happen on any thread.
    fn is_own(&self) -> bool {
        match self {
            // A call made here holds its question until it is answered or nobody wants the answer. So what was
            // registered for the answer is gone.
            Waste::Asked(asked) => asked.iter().all(questions::OnReturn::is_here),
            _ => false,
        }
    }
}

impl fmt::Debug for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Garbage({})", self.0.len())
    }
}

impl Garbage {
    /// Drops all. Its memory can be used again.
    pub(crate) fn clear(&mut self) {
        if self.is_empty() {
            return;
        }
        for waste in self.0.drain(..) {
            // Said one by one, as they are there for nothing else.
            match waste {
                Waste::Question(question) => drop(question),
                Waste::Outcome(outcome) => drop(outcome),
                Waste::Client(client) => drop(client),
                Waste::Clients(clients) => drop(clients),
                Waste::Cancel(cancel) => drop(cancel),
                Waste::Attachment(attachment) => drop(attachment),
                Waste::Asked(asked) => drop(asked),
                Waste::Other(other) => drop(other),
            }
        }
    }

    /// For how much there is memory.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn push(&mut self, waste: Box<dyn Send>) {
        self.0.push(Waste::Other(waste));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out what is there from `before` on, if its drop may run foreign code.
    pub(crate) fn take_foreign(&mut self, before: usize) -> Option<Garbage> {
        let foreign = self.0[before..].iter().any(|waste| !waste.is_own());
        foreign.then(|| Garbage(self.0.split_off(before)))
    }
}

/// What can become garbage: all of it, or those parts whose drop may run foreign code.
pub(crate) trait Discard {
    fn discard(self, garbage: &mut Garbage);
}

macro_rules! discard {
    (as $kind:ident: $($ty:ty),*) => {$(
        impl Discard for $ty {
            fn discard(self, garbage: &mut Garbage) {
                garbage.0.push(Waste::$kind(self));
            }
        }
    )*};
    (boxed: $($ty:ty),*) => {$(
        impl Discard for $ty {
            fn discard(self, garbage: &mut Garbage) {
                garbage.push(Box::new(self));
            }
        }
    )*};
}

discard!(as Question: Arc<QuestionRef>);
discard!(as Outcome: Result<Payload, Exception>);
discard!(as Client: Client);
discard!(as Cancel: Cancel);
discard!(as Attachment: Arc<dyn Attachment>);
discard!(boxed: RemoteTarget, Pipeline, CallInfo, Arc<RemoteRef>, Named, Said);

impl<T: Discard> Discard for Option<T> {
    fn discard(self, garbage: &mut Garbage) {
        if let Some(waste) = self {
            waste.discard(garbage);
        }
    }
}

impl<A: Discard, B: Discard> Discard for (A, B) {
    fn discard(self, garbage: &mut Garbage) {
        self.0.discard(garbage);
        self.1.discard(garbage);
    }
}

impl<K: Ord + Clone + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Discard for PeerTable<K, V> {
    fn discard(self, garbage: &mut Garbage) {
        garbage.push(Box::new(self));
    }
}

impl Discard for Short<Client> {
    fn discard(self, garbage: &mut Garbage) {
        if !self.is_empty() {
            garbage.0.push(Waste::Clients(self));
        }
    }
}

impl Discard for Payload {
    fn discard(self, garbage: &mut Garbage) {
        Ok(self).discard(garbage);
    }
}

impl Discard for Returned {
    fn discard(self, garbage: &mut Garbage) {
        match self {
            Returned::Results { payload, pinned, .. } => {
                payload.discard(garbage);
                if let Some(pinned) = pinned {
                    garbage.push(Box::new(pinned));
                }
            }
            Returned::Failed(why) => Err(why).discard(garbage),
            Returned::Tail(question) => question.discard(garbage),
        }
    }
}

impl Discard for Box<Onward> {
    fn discard(self, garbage: &mut Garbage) {
        (self.pipeline, self.question).discard(garbage);
    }
}

impl Discard for Answer {
    fn discard(self, garbage: &mut Garbage) {
        self.cancel.discard(garbage);
        self.onward.discard(garbage);
        match self.entry {
            Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } => {
                on_return.discard(garbage)
            }
            Entry::HaveReturn { return_msg, .. } => return_msg.discard(garbage),
        }
    }
}

impl Discard for Question {
    fn discard(self, garbage: &mut Garbage) {
        self.share.and_then(|share| share.take()).discard(garbage);
        match self.entry {
            Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } => {
                on_return.discard(garbage)
            }
            Entry::HaveReturn { .. } => {}
        }
        if let Some(places) = self.places {
            garbage.push(places);
        }
    }
}

impl Discard for Waiting {
    fn discard(self, garbage: &mut Garbage) {
        if !self.is_empty() {
            garbage.push(Box::new(self));
        }
    }
}

impl Discard for Useless {
    fn discard(self, garbage: &mut Garbage) {
        if !self.is_empty() {
            garbage.push(Box::new(self));
        }
    }
}

impl Discard for Short<questions::OnReturn> {
    fn discard(self, garbage: &mut Garbage) {
        if !self.is_empty() {
            garbage.0.push(Waste::Asked(self));
        }
    }
}

impl Discard for Export {
    fn discard(self, garbage: &mut Garbage) {
        self.client.discard(garbage);
        if let Some(frozen) = self.promise {
            garbage.push(Box::new(frozen));
        }
    }
}

impl Discard for Import {
    fn discard(self, garbage: &mut Garbage) {
        if let Some(ImportedPromise::Resolved { client, said }) = self.promise {
            (client, said).discard(garbage);
        }
    }
}

impl Discard for Pending {
    fn discard(self, garbage: &mut Garbage) {
        self.place.discard(garbage);
        if !self.watchers.is_empty() {
            garbage.push(Box::new(self.watchers));
        }
    }
}

impl Discard for Accepted {
    fn discard(self, garbage: &mut Garbage) {
        match self {
            Accepted::Theirs { client, said } => (client, said).discard(garbage),
            Accepted::Ours(named) => named.discard(garbage),
        }
    }
}

impl Discard for Embargo {
    fn discard(self, garbage: &mut Garbage) {
        garbage.push(Box::new(self));
    }
}
