//! Embargoes: keeping calls in order when a promise of the peer's turns out to be here.
//!
//! ```text
//! Note [Embargo]
//! ==============
//! Calls on a promise of the peer's go to the peer. If the promise turns out to be an object of ours (or one
//! behind another connection), those that are under way come back to us, and a new call must not overtake
//! them. So we send a Disembargo after them, hold new calls back in a promise of our own, and let them go
//! when the Disembargo has come back: it comes behind the last call that was under way.
//!
//! - The embargo belongs to the reference: all clones of the promise's client share it. A place in results is
//!   one reference, however often, and for however short a time, a client for it is taken from the pipeline.
//! - None is needed if no call was made, or if the promise is null, broken, or still in the peer by a way that
//!   calls on the promise took anyway. A promise that resolves to another of the peer's passes on whether it
//!   was used.
//! - What the peer names as ours (`receiverHosted`, `receiverAnswer`) needs one even if it leads back to the
//!   peer: the peer has sent the calls to us, and we have sent them back.
//! - When the Disembargo has come back, the calls go where those that came back go: see Note [Named by the peer].
//! ```

use super::descriptors::{target, Accepted};
use super::effects::{Callback, Destination, Effects};
use super::imports::Pending;
use super::moment::Moment;
use super::named::Named;
use super::owed::Owed;
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{Name, RemoteTarget};
use crate::cap::promised::PromiseCell;
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::EmbargoId;
use crate::sync::Arc;
use crate::wire::message::{
    Disembargo, DisembargoContext, Incoming, Message, Outgoing, PeerEmbargoId, Target,
};

/// A Disembargo of ours that has not come back.
#[derive(Clone)]
pub(crate) struct Embargo {
    /// Where calls are held.
    pub(super) cell: Owed<Arc<PromiseCell>>,
    /// What the peer has named: where that leads then is where they go.
    pub(super) to: Named,
    pub(super) since: Moment,
    /// The call goes on in whose results that is.
    pub(super) keeps: Option<Arc<Name>>,
}

impl State {
    /// What the holders of a resolved promise get: what it was resolved to, at once or behind an embargo.
    pub(super) fn settle(&mut self, pending: Pending, to: Accepted, fx: &mut Effects) -> Client {
        let Pending { place, used, .. } = pending;
        let client = match used {
            true => self.stay_behind(&place, to, fx),
            false => self.client_for(to, fx).resolved(),
        };
        fx.discard(place);
        client
    }

    /// A client for what `place` has become, on which calls stay behind those that were sent there.
    pub(super) fn stay_behind(&mut self, place: &RemoteTarget, to: Accepted, fx: &mut Effects) -> Client {
        let client = self.behind(place, to.said(), fx);
        fx.discard(to);
        client
    }

    /// Holds calls on what the peer has named back until those that were sent to `place` have come.
    pub(super) fn embargo(&mut self, place: &RemoteTarget, to: Named, fx: &mut Effects) -> Client {
        let (cell, keeps) = (PromiseCell::new(None), self.keep_answer(&to));
        let since = Moment::now();
        let id = self.embargoes.insert(|_| Embargo { cell: Owed::new(cell.clone()), to, since, keeps });
        fx.send(Message::Disembargo(Disembargo {
            target: target(place),
            context: DisembargoContext::SenderLoopback(id),
        }));
        Client(Kind::Promise(cell))
    }

    pub(super) fn receive_disembargo(
        &mut self,
        disembargo: Disembargo<Incoming>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        match disembargo.context {
            DisembargoContext::SenderLoopback(id) => self.echo(disembargo.target, id, fx),
            DisembargoContext::ReceiverLoopback(id) => self.lift(id, fx),
        }
    }

    /// Sends the peer's Disembargo back, behind all calls that came before it: see Note [Order across
    /// callbacks].
    fn echo(
        &mut self,
        target: Target<Incoming>,
        embargo: PeerEmbargoId,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let to = match target {
            Target::ImportedCap(id) => {
                self.exports.get(id).ok_or(ProtocolError::UnknownExport(id))?.destination()
            }
            Target::PromisedAnswer(promised) => {
                let id = promised.question;
                let answer = self.answers.get(&id).ok_or(ProtocolError::UnknownPromisedAnswer(id))?;
                let returned = answer.returned().ok_or(ProtocolError::DisembargoNotReflected)?;
                returned.destination(&promised.path)
            }
        };
        let to = match to {
            Destination::Reflect(place) => place,
            Destination::Client(client) => self.reflected(&client)?,
            Destination::Pipeline(_) => return Err(ProtocolError::DisembargoNotReflected),
        };
        fx.later(Callback::Echo { embargo, to });
        Ok(())
    }

    /// The place in the peer that a client leads to, if it leads there.
    fn reflected(&self, client: &Client) -> Result<RemoteTarget, ProtocolError> {
        match client.resolved().0 {
            Kind::Import(import) if import.port.connection() == self.connection => {
                Ok(RemoteTarget::Import(import))
            }
            _ => Err(ProtocolError::DisembargoNotReflected),
        }
    }

    /// The second half of [`echo`](Self::echo), when the calls before it have been handed on.
    pub(crate) fn send_echo(&mut self, embargo: PeerEmbargoId, to: &RemoteTarget, fx: &mut Effects) {
        if self.ended.is_none() {
            fx.send(Message::Disembargo(Disembargo {
                target: target(to),
                context: DisembargoContext::ReceiverLoopback(embargo),
            }));
        }
    }

    /// A Disembargo of ours has come back: what was held goes on.
    fn lift(&mut self, id: EmbargoId, fx: &mut Effects) -> Result<(), ProtocolError> {
        let embargo = self.embargoes.remove(id).ok_or(ProtocolError::UnknownEmbargo(id))?;
        let Embargo { cell, to, keeps, .. } = embargo;
        let to = self.destination_named(to, fx);
        fx.later(Callback::Resolve { cell: cell.pay(), to });
        drop(keeps);
        Ok(())
    }

    /// The peer does not understand Disembargo: what was held can't go on in order.
    pub(super) fn disembargo_refused(
        &mut self,
        disembargo: Disembargo<Outgoing>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        match disembargo.context {
            DisembargoContext::SenderLoopback(id) => {
                let embargo = self.embargoes.remove(id).ok_or(ProtocolError::UnknownEmbargo(id))?;
                let why = Exception::unimplemented("the peer does not implement Disembargo");
                let to = Destination::Client(Client::broken(why));
                fx.later(Callback::Resolve { cell: embargo.cell.pay(), to });
                fx.discard(embargo.to);
                Ok(())
            }
            DisembargoContext::ReceiverLoopback(_) => {
                Err(ProtocolError::Unimplemented("the Disembargo that it asked for"))
            }
        }
    }

    pub(super) fn end_embargoes(&mut self, why: &Exception, fx: &mut Effects) {
        let embargoes = self.embargoes.clear();
        for (_, embargo) in embargoes.iter() {
            let to = Destination::Client(Client::broken(why.clone()));
            fx.later(Callback::Resolve { cell: embargo.cell.clone().pay(), to });
        }
        fx.discard(embargoes);
    }
}
