//! Capabilities in messages: how ours are described to the peer, and what the peer's descriptions mean.

use super::effects::{Callback, Destination, Effects};
use super::entry::Few;
use super::exports::Described;
use super::outcome::Told;
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{Awaited, Name, Place};
use crate::cap::promised::{Keeps, PromiseCell};
use crate::error::Exception;
use crate::id::{AnswerId, ExportId};
use crate::short::Short;
use crate::wire::message::{Descriptor, Incoming, Outgoing, PromisedAnswer, Target};

/// The capabilities of a payload, described for the peer.
pub(super) struct DescribedAll {
    pub(super) descriptors: Short<Descriptor<Outgoing>>,
    /// Empty if all were told as themselves.
    pub(super) told: Vec<Told>,
    /// The exports that the descriptors count one reference each of.
    pub(super) exports: Few<ExportId>,
}

impl DescribedAll {
    fn push(&mut self, Described { descriptor, told, export }: Described) {
        if !self.told.is_empty() || !matches!(told, Told::Itself) {
            self.told.resize(self.descriptors.len(), Told::Itself);
            self.told.push(told);
        }
        self.descriptors.push(descriptor);
        if let Some(id) = export {
            self.exports.push(id);
        }
    }
}

/// A capability that the peer described.
pub(super) struct Accepted {
    pub(super) client: Client,
    /// The peer named something of ours. A promise that it resolves so needs an embargo even if what it named
    /// turns out to lead back to the peer: see Note [Embargo].
    pub(super) reflected: bool,
}

impl State {
    /// Describes a client to the peer, counting a reference if it is exported.
    pub(super) fn describe(&mut self, client: &Client, fx: &mut Effects) -> Result<Described, Exception> {
        if let Kind::Local(_) = &client.0 {
            return self.export_settled(client.clone(), Told::Itself);
        }
        let client = self.named_as(client);
        let settled = || Told::Settled(Destination::Client(client.clone()));
        match &client.0 {
            Kind::Null => Ok(Described { descriptor: Descriptor::None, told: settled(), export: None }),
            // A broken capability is a promise, which is told to be broken right after.
            Kind::Broken(_) | Kind::Promise(_) => self.export_promise(client, fx),
            Kind::Local(_) => self.export_settled(client.clone(), settled()),
            Kind::Import(import) if import.port.connection() == self.connection => {
                Ok(reflect(Place::Import(import.clone())))
            }
            Kind::Fixed(place) if place.port().connection() == self.connection => {
                Ok(reflect((**place).clone()))
            }
            Kind::Import(_) | Kind::Fixed(_) => self.export_settled(client.clone(), settled()),
            Kind::Remote(promise) if promise.port.connection() == self.connection => {
                match self.promises.get(&promise.id) {
                    Some(pending) => Ok(reflect(pending.place.clone())),
                    None => self.describe(&self.gone(), fx),
                }
            }
            Kind::Remote(_) => self.export_promise(client, fx),
        }
    }

    /// What a client is to be described as: what it has become, and not a place whose name is no longer its own.
    pub(super) fn named_as(&self, client: &Client) -> Client {
        let client = client.resolved();
        match &client.0 {
            Kind::Fixed(place) if place.port().connection() == self.connection => {
                self.was_at(place).map_or(client, |was| was.resolved())
            }
            _ => client,
        }
    }

    /// Describes all capabilities of a payload; if one can't be, none is counted.
    pub(super) fn describe_all(
        &mut self,
        clients: &[Client],
        fx: &mut Effects,
    ) -> Result<DescribedAll, Exception> {
        let descriptors = Short::with_capacity(clients.len());
        let mut all = DescribedAll { descriptors, told: Vec::new(), exports: Few::None };
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
            Kind::Remote(promise) => promise.port.connection() != self.connection,
            _ => false,
        }
    }

    /// A client for a capability that the peer described, counting a reference if it is the peer's. The caller
    /// has checked that what is named is there.
    pub(super) fn accept(&mut self, descriptor: Descriptor<Incoming>, fx: &mut Effects) -> Accepted {
        let theirs = |client| Accepted { client, reflected: false };
        let ours = |client| Accepted { client, reflected: true };
        match descriptor {
            Descriptor::None => theirs(Client::null()),
            Descriptor::SenderHosted(id) => theirs(self.import_settled(id)),
            Descriptor::SenderPromise(id) => theirs(self.import_promise(id)),
            // At level 1 the vine is all that we use of an introduction. It forwards calls.
            Descriptor::ThirdPartyHosted { vine } => theirs(self.import_settled(vine)),
            Descriptor::ReceiverHosted(id) => {
                let export = self.exports.get(id).expect("checked before");
                ours(export.destination().client())
            }
            Descriptor::ReceiverAnswer(answer) => ours(self.promised(answer, fx)),
            Descriptor::Unknown(variant) => theirs(Client::broken(Exception::unimplemented(format!(
                "capability descriptor of unknown kind {variant}"
            )))),
        }
    }

    /// Clients for all capabilities of a payload.
    pub(super) fn accept_all(
        &mut self,
        descriptors: Short<Descriptor<Incoming>>,
        fx: &mut Effects,
    ) -> Short<Client> {
        descriptors.map(|descriptor| self.accept(descriptor, fx).client)
    }

    /// The capability in an answer of ours that the peer's descriptor names.
    fn promised(&mut self, promised: PromisedAnswer<AnswerId>, fx: &mut Effects) -> Client {
        let PromisedAnswer { question: id, path } = promised;
        let Some(answer) = self.answers.get(&id) else {
            // One whose results held no capability.
            return Client::null();
        };
        if let Some(returned) = answer.returned() {
            return returned.destination(&path).client();
        }
        if let Some(pipeline) = answer.pipeline() {
            let (cell, to) = (PromiseCell::new(None), Destination::Pipeline(pipeline.at(&path)));
            fx.later(Callback::Resolve { cell: cell.clone(), to });
            return Client(Kind::Promise(cell));
        }
        let awaited = Awaited { answer: id, ticket: self.generation() };
        let cell = PromiseCell::new(Some(Keeps::Answer(Name::new(self.port.clone(), awaited))));
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.resolve_on_return(awaited.ticket, &cell, path);
        }
        Client(Kind::Promise(cell))
    }

    pub(super) fn gone(&self) -> Client {
        Client::broken(self.ended.clone().unwrap_or_else(|| Exception::disconnected("the promise is gone")))
    }
}

fn reflect(place: Place) -> Described {
    let descriptor = match target(&place) {
        Target::ImportedCap(id) => Descriptor::ReceiverHosted(id),
        Target::PromisedAnswer(promised) => Descriptor::ReceiverAnswer(promised),
    };
    Described { descriptor, told: Told::Settled(Destination::Reflect(place)), export: None }
}

/// How a place in the peer is addressed.
pub(super) fn target(place: &Place) -> Target<Outgoing> {
    match place {
        Place::Import(import) => Target::ImportedCap(import.id),
        Place::Answer(question, path) => {
            Target::PromisedAnswer(PromisedAnswer { question: question.id, path: path.clone() })
        }
    }
}
