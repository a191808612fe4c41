//! Our capabilities that the peer may call.

use super::effects::{Callback, Destination, Effects};
use super::moment::Moment;
use super::outcome::PinnedDestination;
use super::State;
use crate::cap::client::{null_call, Client, Kind};
use crate::cap::port::Generation;
use crate::cap::watchers::Watcher;
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::ExportId;
use crate::sync::{Arc, OnceLock};
use crate::wire::message::{Descriptor, Message, Outgoing, Resolution, Resolve};

/// Where calls to a promise that we exported go once its resolution has been told. Shared with the results
/// that named the promise, which may outlive the export. See Note [Tribble].
pub(crate) type Frozen = Arc<OnceLock<Destination>>;

/// A capability of ours that the peer holds.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(super) client: Client,
    /// How many references the peer holds: one for each time that a descriptor named it.
    pub(super) references: u32,
    pub(super) generation: Generation,
    pub(super) since: Moment,
    /// Set for a promise.
    pub(super) promise: Option<Frozen>,
    /// The peer was told what the promise has become: `promise` says where calls go.
    pub(super) resolve_sent: bool,
    /// What is told when the promise is resolved, as long as the export is there.
    watcher: Option<Watcher>,
}

impl Export {
    pub(super) fn destination(&self) -> Destination {
        match self.promise.as_ref().and_then(|frozen| frozen.get()) {
            Some(destination) => destination.clone(),
            None => Destination::Client(self.client.clone()),
        }
    }

    fn is_unresolved(&self) -> bool {
        self.promise.as_ref().is_some_and(|frozen| frozen.get().is_none())
    }
}

/// A descriptor, what it fixes, and the export that it counts, if it does.
pub(super) struct DescribedCap {
    pub(super) descriptor: Descriptor<Outgoing>,
    pub(super) pinned: PinnedDestination,
    pub(super) export: Option<ExportId>,
}

impl State {
    /// Exports a settled capability of this vat, or counts one more reference to it.
    pub(super) fn export_settled(
        &mut self,
        client: Client,
        pinned: PinnedDestination,
    ) -> Result<DescribedCap, Exception> {
        let id = self.export(client, false)?;
        Ok(DescribedCap { descriptor: Descriptor::SenderHosted(id), pinned, export: Some(id) })
    }

    /// Exports a promise, or counts one more reference to it, and sees to it that its resolution is told.
    pub(super) fn export_promise(
        &mut self,
        client: Client,
        fx: &mut Effects,
    ) -> Result<DescribedCap, Exception> {
        let id = self.export(client.clone(), true)?;
        let port = &self.port;
        let export = self.exports.get_mut(id).expect("just exported");
        let frozen = export.promise.clone().expect("exported as a promise");
        if export.references == 1 {
            let watcher = Watcher::export(port.clone(), id, export.generation);
            export.watcher = Some(watcher.clone());
            fx.later(Callback::Watch { client: client.clone(), watcher });
        }
        let pinned = PinnedDestination::Promise(client, frozen);
        Ok(DescribedCap { descriptor: Descriptor::SenderPromise(id), pinned, export: Some(id) })
    }

    fn export(&mut self, client: Client, promise: bool) -> Result<ExportId, Exception> {
        // Broken clients are all alike, and never shared.
        let shared = !matches!(client.0, Kind::Broken(_));
        let address = client.address();
        if let Some(id) = self.export_ids.get(address).copied().filter(|_| shared) {
            let export = self.exports.get_mut(id).expect("export_ids names exports");
            export.references = export.references.checked_add(1).ok_or_else(too_many_references)?;
            return Ok(id);
        }
        if self.exports.len() >= self.limits.exports {
            let reason = format!("the limit of {} exported capabilities is reached", self.limits.exports);
            return Err(Exception::overloaded(reason));
        }
        let generation = self.generation();
        let promise = promise.then(Frozen::default);
        let id = self.exports.insert(|_| Export {
            client,
            references: 1,
            generation,
            since: Moment::now(),
            promise,
            resolve_sent: false,
            watcher: None,
        });
        if shared {
            self.export_ids.insert(address, id);
        }
        Ok(id)
    }

    /// The peer has given up `count` references (or a Return or Finish says that it has).
    pub(super) fn release_export(
        &mut self,
        id: ExportId,
        count: u32,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let held = self.exports.get(id).ok_or(ProtocolError::UnknownExport(id))?.references;
        if count > held {
            return Err(ProtocolError::ReleaseBelowZero { id, released: count, held });
        }
        self.release_held(id, count, fx);
        Ok(())
    }

    /// Takes back references that the caller knows to be there.
    fn release_held(&mut self, id: ExportId, count: u32, fx: &mut Effects) {
        let export = self.exports.get_mut(id).expect("the caller found it");
        export.references -= count;
        if export.references == 0 {
            let export = self.exports.remove(id).expect("found above");
            self.forget_export_id(&export.client, id);
            fx.discard(export);
        }
    }

    /// Takes back references that this vat counted for a message: all, or none if the peer has given up some.
    pub(crate) fn release_exports(
        &mut self,
        ids: &[ExportId],
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        self.check_release(ids)?;
        self.release_counted(ids, fx);
        Ok(())
    }

    /// Takes back references that are known to be there.
    pub(super) fn release_counted(&mut self, ids: &[ExportId], fx: &mut Effects) {
        ids.iter().for_each(|id| self.release_held(*id, 1, fx));
    }

    fn forget_export_id(&mut self, client: &Client, id: ExportId) {
        let address = client.address();
        if self.export_ids.get(address) == Some(&id) {
            self.export_ids.remove(address);
        }
    }

    /// A promise that we exported may have become something that can be told: then the peer is told, once,
    /// and where calls to the promise go is fixed. See Note [Tribble].
    pub(super) fn export_resolved(&mut self, id: ExportId, generation: Generation, fx: &mut Effects) {
        let Some(export) = self.exports.get(id) else { return };
        if export.generation != generation || !export.is_unresolved() {
            return;
        }
        let (promise, frozen, watcher) =
            (export.client.clone(), export.promise.clone(), export.watcher.clone());
        let client = promise.resolved();
        if self.is_promise_elsewhere(&client) {
            // Not ours to name to this peer yet: wait until it has become something that is.
            fx.later(Callback::Watch { client, watcher: watcher.expect("a promise is watched") });
            return;
        }
        self.forget_export_id(&promise, id);
        let (to, destination) = match &client.0 {
            Kind::Broken(why) => (Resolution::Exception(why.clone()), broken(why)),
            // C++ and capnp-rpc end the connection at a Resolve to `none`.
            Kind::Null => (Resolution::Exception(null_call()), broken(&null_call())),
            _ => match self.describe(&client, fx) {
                Ok(described) => {
                    (Resolution::Cap(described.descriptor), described.pinned.destination(&client))
                }
                Err(why) => (Resolution::Exception(why.clone()), broken(&why)),
            },
        };
        let frozen = frozen.expect("a promise, as checked above");
        let set = frozen.set(destination);
        debug_assert!(set.is_ok(), "a resolution is told once");
        self.exports.get_mut(id).expect("found above").resolve_sent = true;
        fx.send(Message::Resolve(Resolve { promise: id, to }));
    }

    /// The peer does not understand a Resolve: it does not hold what the Resolve brought it.
    pub(super) fn resolve_refused(
        &mut self,
        resolve: Resolve<Outgoing>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        match resolve.to {
            Resolution::Cap(Descriptor::SenderHosted(id) | Descriptor::SenderPromise(id)) => {
                self.release_export(id, 1, fx)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn end_exports(&mut self, fx: &mut Effects) {
        fx.discard(self.exports.clear());
        self.export_ids.clear();
    }
}

fn too_many_references() -> Exception {
    Exception::overloaded(format!(
        "the peer holds {} references to a capability, and can't get more",
        u32::MAX
    ))
}

fn broken(why: &Exception) -> Destination {
    Destination::Client(Client::broken(why.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cap::object::Server;
    use crate::cap::port::ConnectionId;
    use crate::cap::promised::PromiseCell;
    use crate::cap::serving::Call;
    use crate::cap::testing::no_port;
    use crate::error::Result;
    use crate::limits::Limits;

    struct Nothing;

    impl Server for Nothing {
        fn dispatch(&self, _: &mut Call) -> Result<()> {
            Ok(())
        }
    }

    /// The peer is sent the same capability again and again, and never gives a reference back.
    #[test]
    fn an_export_with_as_many_references_as_can_be_counted_is_not_sent_again() {
        let settled = Client::new(Nothing);
        let promise = Client(Kind::Promise(PromiseCell::new(None)));
        for client in [settled.clone(), promise] {
            let mut state = State::new(ConnectionId(0), no_port(), &Limits::default(), Client::null());
            let mut fx = Effects::default();
            let id = state.describe(&client, &mut fx).ok().and_then(|described| described.export).unwrap();
            state.exports.get_mut(id).unwrap().references = u32::MAX - 2;
            // Of several in one message none is counted.
            let why =
                state.describe_all(&[client.clone(), client.clone(), client.clone()], &mut fx).err().unwrap();
            assert!(why.reason().contains("references"), "{why}");
            assert_eq!(state.exports.get(id).unwrap().references, u32::MAX - 2);
            assert!(state.describe_all(&[client.clone(), client.clone()], &mut fx).is_ok());
            assert!(state.describe(&client, &mut fx).is_err());
            state.release_export(id, u32::MAX, &mut fx).unwrap();
            assert_eq!(state.exports.len(), 0);
            assert!(state.describe(&client, &mut fx).is_ok());
        }
    }
}
