//! Capabilities in messages: how ours are described to the peer, and what the peer's descriptions mean.

use super::effects::{Destination, Effects};
use super::exports::DescribedCap;
use super::named::Named;
use super::outcome::PinnedDestination;
use super::said::Said;
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::RemoteTarget;
use crate::cap::Capability;
use crate::error::Exception;
use crate::id::ExportId;
use crate::short::Short;
use crate::wire::message::{Descriptor, Incoming, Outgoing, PromisedAnswer, Target};

/// The capabilities of a payload, described for the peer.
pub(super) struct DescribedCaps {
    pub(super) descriptors: Short<Descriptor<Outgoing>>,
    /// Empty if all were told as themselves.
    pub(super) pinned: Vec<PinnedDestination>,
    /// The exports that the descriptors count one reference each of.
    pub(super) exports: Short<ExportId>,
}

impl DescribedCaps {
    fn push(&mut self, DescribedCap { descriptor, pinned, export }: DescribedCap) {
        if !self.pinned.is_empty() || !matches!(pinned, PinnedDestination::Itself) {
            self.pinned.resize(self.descriptors.len(), PinnedDestination::Itself);
            self.pinned.push(pinned);
        }
        self.descriptors.push(descriptor);
        if let Some(id) = export {
            self.exports.push(id);
        }
    }
}

/// What the peer has described as what a promise of its has become.
#[derive(Clone)]
pub(super) enum Accepted {
    /// Something of its own, null, or broken.
    Theirs { client: Client, said: Said },
    /// Something of ours. There is no client for it yet, as that depends on whether an embargo is needed.
    Ours(Named),
}

impl Accepted {
    /// What is in the peer and no promise, or null or broken.
    pub(super) fn settled(client: Client) -> Self {
        Accepted::Theirs { said: Said::Theirs(client.clone()), client }
    }

    /// Whether it is in the peer and no promise, or null or broken.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Accepted::Theirs { said: Said::Theirs(_), .. })
    }

    pub(super) fn said(&self) -> Said {
        match self {
            Accepted::Theirs { said, .. } => said.clone(),
            Accepted::Ours(named) => Said::ours(named.clone()),
        }
    }
}

impl State {
    /// Describes a client to the peer, counting a reference if it is exported.
    pub(super) fn describe(&mut self, client: &Client, fx: &mut Effects) -> Result<DescribedCap, Exception> {
        if let Kind::Local(_) = &client.0 {
            return self.export_settled(client.clone(), PinnedDestination::Itself);
        }
        let client = client.resolved();
        let settled = || PinnedDestination::Settled(Destination::Client(client.clone()));
        match &client.0 {
            Kind::Null => Ok(DescribedCap { descriptor: Descriptor::None, pinned: settled(), export: None }),
            // A broken capability is a promise, which is told to be broken right after.
            Kind::Broken(_) | Kind::Promise(_) => self.export_promise(client, fx),
            Kind::Local(_) => self.export_settled(client.clone(), settled()),
            Kind::Import(import) if import.port.connection() == self.connection => {
                Ok(reflect(RemoteTarget::Import(import.clone())))
            }
            Kind::Import(_) => self.export_settled(client.clone(), settled()),
            Kind::RemotePromise(promise) if promise.port.connection() == self.connection => {
                match self.promises.get(&promise.id) {
                    Some(pending) => Ok(reflect(pending.place.clone())),
                    None => self.describe(&self.gone(), fx),
                }
            }
            Kind::RemotePromise(_) => self.export_promise(client, fx),
        }
    }

    /// Describes all capabilities of a payload; if one can't be, none is counted.
    pub(super) fn describe_all(
        &mut self,
        clients: &[Client],
        fx: &mut Effects,
    ) -> Result<DescribedCaps, Exception> {
        let descriptors = Short::with_capacity(clients.len());
        let mut all = DescribedCaps { descriptors, pinned: Vec::new(), exports: Short::new() };
        for client in clients {
            match self.describe(client, fx) {
                Ok(described) => all.push(described),
                Err(why) => {
                    all.exports.iter().for_each(|id| self.release_counted(&[*id], fx));
                    return Err(why);
                }
            }
        }
        Ok(all)
    }

    /// Whether a client is a promise that can't be named to this peer but as a promise of ours.
    pub(super) fn is_promise_elsewhere(&self, client: &Client) -> bool {
        match &client.0 {
            Kind::Promise(_) => true,
            Kind::RemotePromise(promise) => promise.port.connection() != self.connection,
            _ => false,
        }
    }

    /// A client for a capability that the peer described, counting a reference if it is the peer's. The caller
    /// has checked that what is named is there.
    pub(super) fn accept(&mut self, descriptor: Descriptor<Incoming>, fx: &mut Effects) -> Client {
        match descriptor {
            Descriptor::None => Client::null(),
            Descriptor::SenderHosted(id) => self.import_settled(id),
            Descriptor::SenderPromise(id) => self.import_promise(id),
            // At level 1 the vine is all that we use of an introduction. It forwards calls.
            Descriptor::ThirdPartyHosted { vine } => self.import_settled(vine),
            Descriptor::ReceiverHosted(id) => {
                let named = self.export_named(id);
                self.client_named(named, fx)
            }
            Descriptor::ReceiverAnswer(answer) => {
                let named = self.answer_named(answer);
                self.client_named(named, fx)
            }
            Descriptor::Unknown(variant) => Client::broken(Exception::unimplemented(format!(
                "capability descriptor of unknown kind {variant}"
            ))),
        }
    }

    /// The same for what a promise of the peer's has become.
    pub(super) fn accept_as(&mut self, descriptor: Descriptor<Incoming>, fx: &mut Effects) -> Accepted {
        match descriptor {
            Descriptor::ReceiverHosted(id) => Accepted::Ours(self.export_named(id)),
            Descriptor::ReceiverAnswer(answer) => Accepted::Ours(self.answer_named(answer)),
            Descriptor::SenderHosted(id)
            | Descriptor::SenderPromise(id)
            | Descriptor::ThirdPartyHosted { vine: id } => {
                let client = self.accept(descriptor, fx);
                let said = self.imports.get(&id).map(|import| import.said(&client));
                Accepted::Theirs { said: said.unwrap_or_else(|| Said::Theirs(client.clone())), client }
            }
            Descriptor::None | Descriptor::Unknown(_) => Accepted::settled(self.accept(descriptor, fx)),
        }
    }

    /// Clients for all capabilities of a payload.
    pub(super) fn accept_all(
        &mut self,
        descriptors: Short<Descriptor<Incoming>>,
        fx: &mut Effects,
    ) -> Short<Client> {
        descriptors.map(|descriptor| self.accept(descriptor, fx))
    }

    pub(super) fn gone(&self) -> Client {
        Client::broken(self.ended.clone().unwrap_or_else(|| Exception::disconnected("the promise is gone")))
    }
}

fn reflect(place: RemoteTarget) -> DescribedCap {
    let descriptor = match target(&place) {
        Target::ImportedCap(id) => Descriptor::ReceiverHosted(id),
        Target::PromisedAnswer(promised) => Descriptor::ReceiverAnswer(promised),
    };
    DescribedCap { descriptor, pinned: PinnedDestination::Settled(Destination::Reflect(place)), export: None }
}

/// How a place in the peer is addressed.
pub(super) fn target(place: &RemoteTarget) -> Target<Outgoing> {
    match place {
        RemoteTarget::Import(import) => Target::ImportedCap(import.id),
        RemoteTarget::Answer(question, path) => {
            Target::PromisedAnswer(PromisedAnswer { question: question.id, path: path.clone() })
        }
    }
}
