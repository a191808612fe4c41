//! What the peer has named of ours, and what it has said of its promises: kept as it was said, so that every client
//! stays behind the calls that come by the same name.
//!
//! ```text
//! Note [Named by the peer]
//! ========================
//! The peer names a promise of ours (an export, or a capability in an answer) before it knows what we have told of it.
//! So where a name leads changes with our own messages: until the Resolve or Return that tells of the promise, calls
//! that arrive for the name go by the promise; after that, they go where that message said, and for ever (Note
//! [Tribble]). If that is a place in the peer, they go there even when we know that the place has become an object here.
//!
//! The invariant: **a client of this vat goes past a call that came by a name only if that call has been handed on for
//! good, or waits ahead of it in the same promise.** Three rules keep it.
//!
//! 1. A client that needs an embargo asks where the name leads when the echo has come, and not when the peer named it:
//!    the calls that it has to stay behind have arrived by then, and no more will come. If the name was not told of yet,
//!    all of them went by the promise, and so does the client, without any further step. If it was, they went where
//!    that said, some of them after the promise had become something else here.
//! 2. A client for a place in the peer that calls were reflected to is made by the callback thread, so behind those
//!    calls (`State::follow`). It is the promise that stands at that place, and counts as called. So when the peer says
//!    what it is, the client gets an embargo of its own, and after that it is what the peer said. If the peer has said
//!    so before, the embargo begins at once. So a client that the peer leads round settles in the end.
//! 3. What the peer has said of a promise (`Said`) is kept as it was said for as long as calls may be sent there, and
//!    not as the client that it was for the holders of the promise: their embargo may be over, and that of a later client
//!    is not.
//!
//! What the peer has said is followed from promise to promise as long as that is in the peer (Note [Chains of what was
//! said]). Calls that were sent to one of those places go the same way, in order; the Disembargo goes to the last.
//! ```

use super::answers::Answer;
use super::descriptors::Accepted;
use super::effects::{Callback, Destination, Effects};
use super::exports::Frozen;
use super::said::{circle, LinkTarget, Said};
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{AnswerKey, Awaited, Name, RemoteTarget};
use crate::cap::promised::{Keeps, PromiseCell};
use crate::cap::Capability;
use crate::id::{AnswerId, ExportId};
use crate::sync::Arc;
use crate::wire::message::{Path, PromisedAnswer};

/// Something of ours, by the name that the peer has used. See Note [Named by the peer].
#[derive(Clone, Debug)]
pub(super) enum Named {
    /// A capability that is no promise to the peer.
    Capability(Client),
    /// An exported promise.
    Export(Client, Frozen),
    /// A capability in an answer.
    Answer(AnswerKey, Path),
}

impl State {
    /// The name of an export, which is there.
    pub(super) fn export_named(&self, id: ExportId) -> Named {
        let export = self.exports.get(id).expect("the descriptors were checked");
        let client = export.client.clone();
        match &export.promise {
            Some(frozen) => Named::Export(client, frozen.clone()),
            None => Named::Capability(client),
        }
    }

    /// The name of a capability in an answer.
    pub(super) fn answer_named(&self, promised: PromisedAnswer<AnswerId>) -> Named {
        let PromisedAnswer { question: id, path } = promised;
        match self.answers.get(&id) {
            Some(answer) => Named::Answer(AnswerKey { id, generation: answer.generation }, path),
            None => Named::Capability(self.was_in_answer(id).unwrap_or_default()),
        }
    }

    /// A client for something that the peer has named.
    pub(super) fn client_named(&mut self, named: Named, fx: &mut Effects) -> Client {
        let to = self.destination_named(named, fx);
        match &to {
            Destination::Client(client) => return client.clone(),
            Destination::Reflect(place) => {
                if let Some(Said::Theirs(client)) = self.known(place) {
                    return client;
                }
            }
            Destination::Pipeline(_) => {}
        }
        // Behind all calls that have arrived.
        let cell = PromiseCell::new(None);
        fx.later(Callback::Resolve { cell: cell.clone(), to });
        Client(Kind::Promise(cell))
    }

    /// Where calls on something that the peer has named go from now on.
    pub(super) fn destination_named(&mut self, named: Named, fx: &mut Effects) -> Destination {
        match (self.leads_to(&named), named) {
            (Some(to), named) => {
                fx.discard(named);
                to
            }
            (None, Named::Answer(key, path)) => self.promised(key, path),
            (None, Named::Capability(client) | Named::Export(client, _)) => Destination::Client(client),
        }
    }

    /// A client for what a promise of the peer's has become; no calls are under way that it has to stay behind.
    pub(super) fn client_for(&mut self, to: Accepted, fx: &mut Effects) -> Client {
        match to {
            Accepted::Theirs { client, said } => {
                fx.discard(said);
                client
            }
            Accepted::Ours(named) => self.client_named(named, fx),
        }
    }

    /// Where calls on a capability in an answer that has not been returned go.
    fn promised(&mut self, key: AnswerKey, path: Path) -> Destination {
        let Some(answer) = self.answers.get(&key.id) else { return Destination::Client(Client::null()) };
        if let Some(pipeline) = answer.pipeline() {
            return Destination::Pipeline(pipeline.at(&path));
        }
        let name = self.new_name(key);
        let awaited = name.awaited();
        let cell = PromiseCell::new(Some(Keeps::Answer(name)));
        if let Some(answer) = self.answers.get_mut(&key.id) {
            answer.resolve_on_return(awaited.ticket, &cell, path);
        }
        Destination::Client(Client(Kind::Promise(cell)))
    }

    fn new_name(&mut self, key: AnswerKey) -> Name {
        let awaited = Awaited { answer: key.id, ticket: self.generation() };
        Name::new(self.port.clone(), awaited)
    }

    /// Has the call go on whose answer is named, as long as the result is held. See Note [Wanted answers].
    pub(super) fn keep_answer(&mut self, named: &Named) -> Option<Arc<Name>> {
        let Named::Answer(key, _) = named else { return None };
        let name = self.new_name(*key);
        let answer = self.answers.get_mut(&key.id).filter(|answer| answer.generation == key.generation)?;
        answer.keep(name.awaited().ticket);
        Some(Arc::new(name))
    }

    /// Where a name leads by now; `None` for an answer that has not been returned.
    pub(super) fn leads_to(&self, named: &Named) -> Option<Destination> {
        match named {
            Named::Capability(client) => Some(Destination::Client(client.clone())),
            Named::Export(client, frozen) => {
                Some(frozen.get().cloned().unwrap_or_else(|| Destination::Client(client.clone())))
            }
            Named::Answer(key, path) => {
                let known = self.answers.get(&key.id).filter(|answer| answer.generation == key.generation);
                match known.map(Answer::returned) {
                    Some(returned) => returned.map(|returned| returned.destination(path)),
                    // The peer has finished it, although it uses the name.
                    None => Some(Destination::Client(Client::broken(super::targets::closed()))),
                }
            }
        }
    }

    /// What the peer has said of a place, if it has.
    pub(super) fn known(&self, place: &RemoteTarget) -> Option<Said> {
        if let Some(was) = self.was_at(place) {
            return Some(Said::Theirs(was));
        }
        match place {
            RemoteTarget::Import(import) => self.imports.get(&import.id)?.known(import),
            RemoteTarget::Answer(question, path) => {
                let payload = match question.outcome.get()? {
                    Ok(payload) => payload,
                    Err(why) => return Some(Said::Theirs(Client::broken(why.clone()))),
                };
                match payload.index_at(path) {
                    Ok(Some(index)) => {
                        let said = self.question(question.id).and_then(|question| question.said(index));
                        Some(said.cloned().unwrap_or_else(|| Said::Theirs(payload.caps[index].clone())))
                    }
                    Ok(None) => Some(Said::Theirs(Client::null())),
                    Err(why) => Some(Said::Theirs(Client::broken(why))),
                }
            }
        }
    }

    /// A client for a place in the peer, on which calls stay behind those that have been sent there by now.
    pub(crate) fn follow(&mut self, place: &RemoteTarget, fx: &mut Effects) -> Client {
        if self.ended.is_some() {
            return self.gone();
        }
        let Some(said) = self.known(place) else { return self.called_promise(place) };
        // A circle that the peer has closed by one message that says what several places are.
        if self.leads_back(place, said.clone(), fx) {
            fx.discard(said);
            return circle();
        }
        self.behind(place, said, fx)
    }

    /// A client for what the peer has said of `place`, on which calls stay behind those that were sent to `place`.
    pub(super) fn behind(&mut self, place: &RemoteTarget, said: Said, fx: &mut Effects) -> Client {
        let (last, said) = self.last_in_peer(place, said, fx);
        let client = match &said {
            None => self.called_promise(&last),
            Some(Said::Theirs(client)) => client.clone(),
            Some(said) => match said.to() {
                Some(LinkTarget::Ours(named)) => self.behind_name(&last, named.clone(), fx),
                _ => circle(),
            },
        };
        fx.discard((last, said));
        client
    }

    /// The same where the peer has said that `place` is something of ours.
    fn behind_name(&mut self, place: &RemoteTarget, named: Named, fx: &mut Effects) -> Client {
        match self.leads_to(&named) {
            Some(Destination::Client(client)) if fails(&client.resolved()) => {
                fx.discard(named);
                client.resolved()
            }
            _ => self.embargo(place, named, fx),
        }
    }

    /// The promise of the peer's at a place. Calls have been sent there.
    fn called_promise(&mut self, place: &RemoteTarget) -> Client {
        let client = match place {
            RemoteTarget::Import(import) => self.promise_of(import),
            RemoteTarget::Answer(question, path) => self.pipelined(question, path),
        };
        if let Kind::RemotePromise(promise) = &client.0 {
            if let Some(pending) = self.promises.get_mut(&promise.id) {
                pending.used = true;
            }
        }
        client
    }
}

/// Whether calls on it fail at once.
fn fails(client: &Client) -> bool {
    matches!(client.0, Kind::Null | Kind::Broken(_))
}
