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
use crate::cap::Capability;
use crate::error::Exception;
use crate::sync::Arc;
use crate::wire::cap_paths::{self, CapPaths};
use crate::wire::content::Content;

/// What an answer was returned with: what calls pipelined on it go to.
#[derive(Clone, Debug)]
pub(crate) enum Returned {
    Results {
        payload: Payload,
        /// Where the capabilities stood in the content, if that is not kept: see Note [What is kept of results].
        paths: Option<CapPaths>,
        /// For each capability, how it was told to the peer, if it was; `None` if all were as themselves.
        pinned: Option<Arc<Vec<PinnedDestination>>>,
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
        Returned::Results { payload, paths: None, pinned: None }
    }

    /// What calls pipelined on some results need.
    pub(super) fn for_calls(mut payload: Payload, pinned: Vec<PinnedDestination>) -> Self {
        let paths = payload.content.cap_paths();
        if paths.is_some() {
            payload.content = Content::null();
        }
        let pinned = (!pinned.is_empty()).then(|| Arc::new(pinned));
        Returned::Results { payload, paths, pinned }
    }

    /// How many bytes this keeps, about, besides the entry that it stands in. The memory of an object that a capability
    /// is of does not count here.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Returned::Results { payload, paths, pinned } => {
                let bytes_of_paths = paths.iter().flatten().map(|(path, _)| cost::CAP_PATH + 2 * path.len());
                let pinned = pinned.as_ref().map_or(0, |pinned| pinned.len() * cost::PINNED);
                payload.content.words() * 8
                    + payload.caps.len() * cost::CAP
                    + bytes_of_paths.sum::<usize>()
                    + pinned
            }
            Returned::Failed(why) => cost::EXCEPTION + why.bytes(),
            Returned::Tail(_) => 0,
        }
    }

    /// Where a call pipelined on `path` goes.
    pub(super) fn destination(&self, path: &[u16]) -> Destination {
        match self {
            Returned::Results { payload, paths, pinned } => match index_at(payload, paths, path) {
                Ok(Some(index)) => match pinned.as_ref().and_then(|pinned| pinned.get(index)) {
                    Some(pinned) => pinned.destination(&payload.caps[index]),
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
fn index_at(payload: &Payload, paths: &Option<CapPaths>, path: &[u16]) -> Result<Option<usize>, Exception> {
    match paths {
        Some(paths) => Ok(cap_paths::index_at(paths, path)),
        None => payload.index_at(path),
    }
}
