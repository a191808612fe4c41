//! What an answer holds once it has been returned.

use super::effects::Destination;
use super::exports::Frozen;
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{Place, QuestionRef};
use crate::error::Exception;
use crate::sync::Arc;

/// What an answer was returned with: what calls pipelined on it go to.
#[derive(Clone, Debug)]
pub(crate) enum Returned {
    Results {
        payload: Payload,
        /// For each capability, how it was told to the peer, if it was; `None` if all were as themselves.
        told: Option<Arc<Vec<Told>>>,
    },
    Failed(Exception),
    /// The results are those of a question that the peer keeps: a tail call back to it.
    Tail(Arc<QuestionRef>),
}

/// How a capability was described to the peer, which fixes where calls go. See Note [Tribble].
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// As itself: it is no promise.
    Itself,
    /// As what it has become.
    Settled(Destination),
    /// As a promise of ours: where its resolution leads, once that has been told.
    Promise(Client, Frozen),
}

impl Told {
    /// Where calls on `client`, which was described so, go.
    pub(super) fn destination(&self, client: &Client) -> Destination {
        match self {
            Told::Itself => Destination::Client(client.clone()),
            Told::Settled(destination) => destination.clone(),
            Told::Promise(client, frozen) => {
                frozen.get().cloned().unwrap_or_else(|| Destination::Client(client.clone()))
            }
        }
    }
}

impl Returned {
    /// Where a call pipelined on `path` goes.
    pub(super) fn destination(&self, path: &[u16]) -> Destination {
        match self {
            Returned::Results { payload, told } => match payload.index_at(path) {
                Ok(Some(index)) => match told.as_ref().and_then(|told| told.get(index)) {
                    Some(told) => told.destination(&payload.caps[index]),
                    None => Destination::Client(payload.caps[index].clone()),
                },
                Ok(None) => Destination::Client(Client::null()),
                Err(why) => Destination::Client(Client::broken(why)),
            },
            Returned::Failed(why) => Destination::Client(Client::broken(why.clone())),
            Returned::Tail(question) => Destination::Reflect(Place::Answer(question.clone(), path.into())),
        }
    }
}
