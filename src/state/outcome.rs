//! What an answer holds once it has been returned.
//!
//! ```text
//! Note [What is kept of results]
//! ==============================
//! Results that hold capabilities stay until the peer's Finish, for calls pipelined on them. Such a call needs the
//! capability at a path of pointer fields and nothing else. So the content is dropped as soon as it has been sent, and the
//! paths that lead to capabilities are kept in its place. A path that leads to none is taken to lead to null. Only results
//! that the peer wants kept here (`sendResultsTo.yourself`) are kept whole.
//! ```

use super::cost;
use super::effects::Destination;
use super::exports::Frozen;
use crate::cap::client::Client;
use crate::cap::contents::Payload;
use crate::cap::port::{QuestionRef, RemoteTarget};
use crate::error::Exception;
use crate::sync::Arc;
use crate::wire::content::Content;
use crate::wire::places::{self, Places};

/// What an answer was returned with: what calls pipelined on it go to.
#[derive(Clone, Debug)]
pub(crate) enum Returned {
    Results {
        payload: Payload,
        /// Where the capabilities stood in the content, if that is not kept: see Note [What is kept of results].
        places: Option<Places>,
        /// For each capability, how it was told to the peer, if it was; `None` if all were as themselves.
        told: Option<Arc<Vec<PinnedDestination>>>,
    },
    Failed(Exception),
    /// The results are those of a question that the peer keeps: a tail call back to it.
    Tail(Arc<QuestionRef>),
}

/// How a capability was described to the peer, which fixes where calls go. See Note [Tribble].
#[derive(Clone, Debug)]
pub(crate) enum PinnedDestination {
    /// As itself: it is no promise.
    Itself,
    /// As what it has become.
    Settled(Destination),
    /// As a promise of ours: where its resolution leads, once that has been told.
    Promise(Client, Frozen),
}

impl PinnedDestination {
    /// Where calls on `client`, which was described so, go.
    pub(super) fn destination(&self, client: &Client) -> Destination {
        match self {
            PinnedDestination::Itself => Destination::Client(client.clone()),
            PinnedDestination::Settled(destination) => destination.clone(),
            PinnedDestination::Promise(client, frozen) => {
                frozen.get().cloned().unwrap_or_else(|| Destination::Client(client.clone()))
            }
        }
    }
}

impl Returned {
    /// All of some results.
    pub(super) fn whole(payload: Payload) -> Self {
        Returned::Results { payload, places: None, told: None }
    }

    /// What calls pipelined on some results need.
    pub(super) fn for_calls(mut payload: Payload, told: Vec<PinnedDestination>) -> Self {
        let places = payload.content.places();
        if places.is_some() {
            payload.content = Content::null();
        }
        let told = (!told.is_empty()).then(|| Arc::new(told));
        Returned::Results { payload, places, told }
    }

    /// How many bytes this keeps, about, besides the entry that it stands in. The memory of an object that a capability
    /// is of does not count here.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Returned::Results { payload, places, told } => {
                let paths = places.iter().flatten().map(|(path, _)| cost::PLACE + 2 * path.len());
                let told = told.as_ref().map_or(0, |told| told.len() * cost::TOLD);
                payload.content.words() * 8 + payload.caps.len() * cost::CAP + paths.sum::<usize>() + told
            }
            Returned::Failed(why) => cost::EXCEPTION + why.bytes(),
            Returned::Tail(_) => 0,
        }
    }

    /// Where a call pipelined on `path` goes.
    pub(super) fn destination(&self, path: &[u16]) -> Destination {
        match self {
            Returned::Results { payload, places, told } => match index_at(payload, places, path) {
                Ok(Some(index)) => match told.as_ref().and_then(|told| told.get(index)) {
                    Some(told) => told.destination(&payload.caps[index]),
                    None => Destination::Client(payload.caps[index].clone()),
                },
                Ok(None) => Destination::Client(Client::null()),
                Err(why) => Destination::Client(Client::broken(why)),
            },
            Returned::Failed(why) => Destination::Client(Client::broken(why.clone())),
            Returned::Tail(question) => {
                Destination::Reflect(RemoteTarget::Answer(question.clone(), path.into()))
            }
        }
    }
}

/// Which capability stands at a path of some results.
fn index_at(payload: &Payload, places: &Option<Places>, path: &[u16]) -> Result<Option<usize>, Exception> {
    match places {
        Some(places) => Ok(places::index_at(places, path)),
        None => payload.index_at(path),
    }
}
