//! The peer's capabilities that this vat holds, and its promises.

use super::all_parts::AllParts;
use super::descriptors::Accepted;
use super::effects::{Callback, Effects};
use super::moment::Moment;
use super::owed::Owed;
use super::said::Said;
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{Generation, ImportRef, RefId, RemoteRef, RemoteTarget};
use crate::cap::resolution::ResolvedTo;
use crate::cap::watchers::{Watcher, Watchers};
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::ImportId;
use crate::sync::{Arc, Weak};
use crate::wire::message::{Incoming, Message, Resolution, Resolve};

/// A capability of the peer's.
///
/// ```text
/// Note [Import counts]
/// ====================
/// The peer counts one reference for each descriptor of its that named the capability, and so do we, in
/// `references`. When the last local reference goes, one Release gives them all back and the entry goes. If
/// a new descriptor has come by then, a new local reference has been made for the entry, of a later
/// generation, and the notice of the old one's end is overtaken: nothing is released. If the descriptor
/// comes after the Release was sent, it makes a new entry, and counts from one: the peer's count never
/// reaches zero in between, since it saw its own descriptor go out before our Release came in.
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(super) references: u32,
    pub(super) generation: Generation,
    pub(super) since: Moment,
    pub(super) handle: Weak<ImportRef>,
    pub(super) promise: Option<ImportedPromise>,
}

/// What a promise among the imports is.
#[derive(Clone, Debug)]
pub(super) enum ImportedPromise {
    Pending(RefId),
    Resolved {
        /// What it is for those who held it.
        client: Client,
        said: Said,
    },
}

impl Import {
    /// What a promise among the imports has become, if it has.
    pub(super) fn resolved(&self) -> Option<&Client> {
        match &self.promise {
            Some(ImportedPromise::Resolved { client, .. }) => Some(client),
            _ => None,
        }
    }

    /// What the peer has said of the import, which this is a reference to.
    pub(super) fn known(&self, import: &Arc<ImportRef>) -> Option<Said> {
        match &self.promise {
            None => Some(Said::Theirs(Client(Kind::Import(import.clone())))),
            Some(ImportedPromise::Pending(_)) => None,
            Some(ImportedPromise::Resolved { said, .. }) => Some(said.clone()),
        }
    }

    /// What the peer says when it names the import; `client` has been made for that.
    pub(super) fn said(&self, client: &Client) -> Said {
        match (&self.promise, self.handle.upgrade()) {
            (Some(ImportedPromise::Pending(_)), Some(import)) => Said::promise(RemoteTarget::Import(import)),
            (Some(ImportedPromise::Resolved { said, .. }), _) => said.clone(),
            _ => Said::Theirs(client.clone()),
        }
    }
}

/// A promise of the peer's that somebody here holds.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Where calls on it go.
    pub(super) place: RemoteTarget,
    /// Whether calls have gone there: then its resolution may need an embargo.
    pub(super) used: bool,
    pub(super) since: Moment,
    pub(super) watchers: Owed<Watchers>,
    pub(super) cell: Weak<RemoteRef>,
}

impl State {
    /// A client for a settled import, counting one more reference. A promise that is named so stays one:
    /// capnp-rpc, and C++ before 0.8, call every capability hosted that they have exported before.
    pub(super) fn import_settled(&mut self, id: ImportId) -> Client {
        if self.imports.get(&id).is_some_and(|import| import.promise.is_some()) {
            return self.import_promise(id);
        }
        match self.import(id) {
            Some(handle) => Client(Kind::Import(handle)),
            None => self.gone(),
        }
    }

    /// A client for a promise among the imports, counting one more reference. All clients share one reference,
    /// and so one embargo.
    pub(super) fn import_promise(&mut self, id: ImportId) -> Client {
        match self.import(id) {
            Some(handle) => self.promise_of(&handle),
            None => self.gone(),
        }
    }

    /// A client for a promise among the imports.
    pub(super) fn promise_of(&mut self, handle: &Arc<ImportRef>) -> Client {
        let id = handle.id;
        let mut used = false;
        match self.imports.get(&id).and_then(|import| import.promise.as_ref()) {
            Some(ImportedPromise::Resolved { client, .. }) => return client.clone(),
            Some(ImportedPromise::Pending(promise)) => {
                let pending = self.promises.get(promise);
                if let Some(cell) = pending.and_then(|pending| pending.cell.upgrade()) {
                    return Client(Kind::RemotePromise(cell));
                }
                // That its clients are gone has not been noticed yet.
                used = pending.is_some_and(|pending| pending.used);
            }
            None => {}
        }
        let cell = self.promise_at(RemoteTarget::Import(handle.clone()), handle.port.clone());
        if let Some(import) = self.imports.get_mut(&id) {
            import.promise = Some(ImportedPromise::Pending(cell.id));
        }
        self.promises.get_mut(&cell.id).expect("just made").used = used;
        Client(Kind::RemotePromise(cell))
    }

    /// Counts a reference to an import; `None` once the connection is being closed.
    fn import(&mut self, id: ImportId) -> Option<Arc<ImportRef>> {
        let port = self.port()?;
        let generation = self.generation();
        let new = || {
            let handle = Arc::new(ImportRef { port, id, generation });
            (Arc::downgrade(&handle), handle)
        };
        let Some(entry) = self.imports.get_mut(&id) else {
            let (handle, held) = new();
            let since = Moment::now();
            self.imports.insert(id, Import { references: 1, generation, since, handle, promise: None });
            return Some(held);
        };
        entry.references += 1;
        if let Some(handle) = entry.handle.upgrade() {
            return Some(handle);
        }
        let (handle, held) = new();
        (entry.generation, entry.handle) = (generation, handle);
        Some(held)
    }

    /// A new reference to a promise of the peer's.
    pub(super) fn promise_at(
        &mut self,
        place: RemoteTarget,
        port: Arc<dyn crate::cap::port::ConnectionOps>,
    ) -> Arc<RemoteRef> {
        let id = RefId(self.next_ref);
        self.next_ref += 1;
        let cell = Arc::new(RemoteRef { port, id, resolved: ResolvedTo::default() });
        let (since, watchers) = (Moment::now(), Owed::default());
        let pending = Pending { place, used: false, since, watchers, cell: Arc::downgrade(&cell) };
        self.promises.insert(id, pending);
        cell
    }

    /// The last local reference to an import is gone. See Note [Import counts].
    pub(super) fn import_dropped(&mut self, id: ImportId, generation: Generation, fx: &mut Effects) {
        let Some(import) = self.imports.get(&id) else { return };
        if import.generation != generation {
            return;
        }
        fx.send(Message::Release { id, count: import.references });
        fx.discard(self.imports.remove(&id));
    }

    /// The last client of a promise of the peer's is gone.
    pub(super) fn promise_dropped(&mut self, id: RefId, fx: &mut Effects) {
        let Some(pending) = self.take_promise(id) else { return };
        self.forget_pipelined(&pending, id);
        let Pending { place, watchers, .. } = pending;
        if !watchers.is_empty() {
            fx.garbage.push(Box::new(watchers));
        }
        // If nobody else holds the place, that is noted in turn.
        if let RemoteTarget::Answer(question, _) = place {
            let outcome = Arc::into_inner(question).and_then(|mut question| question.outcome.take());
            fx.discard(outcome);
        }
    }

    /// Takes a promise out of the table.
    fn take_promise(&mut self, id: RefId) -> Option<Pending> {
        let pending = self.promises.remove(&id)?;
        self.watched -= usize::from(!pending.watchers.is_empty());
        Some(pending)
    }

    /// Has `watcher` told when the promise is resolved, or gives it back if it is.
    pub(crate) fn watch(
        &mut self,
        promise: &RemoteRef,
        watcher: Watcher,
        fx: &mut Effects,
    ) -> Option<Watcher> {
        match self.promises.get_mut(&promise.id) {
            Some(pending) => {
                self.watched += usize::from(pending.watchers.is_empty());
                fx.discard(pending.watchers.push(watcher));
                None
            }
            None => Some(watcher),
        }
    }

    /// A promise of the peer's has become something.
    pub(super) fn receive_resolve(
        &mut self,
        resolve: Resolve<Incoming>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let Resolve { promise: id, to } = resolve;
        let promise = match self.imports.get(&id).map(|import| &import.promise) {
            // Released; the peer did not know yet.
            None => None,
            Some(None) => return Err(ProtocolError::ResolveOfSettled(id)),
            Some(Some(ImportedPromise::Resolved { .. })) => return Err(ProtocolError::DuplicateResolve(id)),
            Some(Some(ImportedPromise::Pending(promise))) => Some(*promise),
        };
        let to = match to {
            Resolution::Cap(descriptor) => {
                self.check_descriptors(std::slice::from_ref(&descriptor), None)?;
                self.accept_as(descriptor, fx)
            }
            Resolution::Exception(why) => Accepted::settled(Client::broken(why)),
        };
        let handle = self.imports.get(&id).and_then(|import| import.handle.upgrade());
        let (Some(promise), Some(handle)) = (promise, handle) else {
            // Nobody holds the promise: what the Resolve brings is dropped, and so released.
            fx.discard(to);
            return Ok(());
        };
        let place = RemoteTarget::Import(handle);
        let to = self.without_circle(&place, to, fx);
        let said = to.said();
        let client = self.resolve_promise(promise, to, fx);
        if let Some(import) = self.imports.get_mut(&id) {
            import.promise = Some(ImportedPromise::Resolved { client, said });
        }
        fx.discard(place);
        Ok(())
    }

    /// Resolves a promise of the peer's; gives what its clients are now. The promise may have no clients any more,
    /// while its place is held.
    pub(super) fn resolve_promise(&mut self, id: RefId, to: Accepted, fx: &mut Effects) -> Client {
        let Some(mut pending) = self.take_promise(id) else { return self.client_for(to, fx) };
        let Some(cell) = pending.cell.upgrade() else {
            // The results of a question are there for others, too.
            let client = match (&pending.place, pending.used) {
                (RemoteTarget::Answer(..), true) => self.stay_behind(&pending.place, to, fx),
                _ => self.client_for(to, fx),
            };
            fx.discard(pending);
            return client;
        };
        let watchers = std::mem::take(&mut pending.watchers);
        let client = self.settle(pending, to, fx);
        let set = cell.resolved.set(client.clone());
        debug_assert!(set.is_ok(), "a promise is resolved once");
        if !watchers.is_empty() {
            self.tell(watchers, client.clone(), fx);
        }
        fx.discard(cell);
        client
    }

    /// Has those told that watch a promise of the peer's, which has become `client`. If that is another pending promise of
    /// the peer's, they watch that one instead.
    fn tell(&mut self, watchers: Owed<Watchers>, client: Client, fx: &mut Effects) {
        let next = match &client.0 {
            Kind::RemotePromise(next) if next.port.connection() == self.connection => {
                self.promises.get_mut(&next.id)
            }
            _ => None,
        };
        let Some(next) = next else { return fx.later(Callback::Tell { watchers: watchers.pay(), client }) };
        // Those that were of no use are dropped, and that may be all.
        self.watched -= usize::from(!next.watchers.is_empty());
        let useless = next.watchers.append(watchers.pay());
        self.watched += usize::from(!next.watchers.is_empty());
        fx.discard(useless);
        fx.discard(client);
    }

    pub(super) fn end_promises(&mut self, why: &Exception, fx: &mut Effects) {
        let promises = self.promises.take();
        self.watched = 0;
        let mut all = AllParts::default();
        for (_, pending) in promises.iter() {
            all.part(|| {
                let broken = Client::broken(why.clone());
                if !pending.watchers.is_empty() {
                    let (watchers, client) = (pending.watchers.clone().pay(), broken.clone());
                    fx.later(Callback::Tell { watchers, client });
                }
                if let Some(cell) = pending.cell.upgrade() {
                    let set = cell.resolved.set(broken);
                    debug_assert!(set.is_ok(), "a promise is resolved once");
                    fx.discard(cell);
                }
            });
        }
        fx.discard(promises);
        all.finish();
    }
}
