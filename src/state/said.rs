//! What the peer has said of its promises, and how a chain of that is followed.
//!
//! ```text
//! Note [Chains of what was said]
//! ==============================
//! The peer says of a promise that it is another promise of the peer's, or something of ours, which may lead back to a
//! place in the peer, and so on. It can make such a chain as long as it likes, in any order, and has it followed by each
//! message that lengthens it. So whoever has followed one leaves a shortcut to its end in each link on the way, as in a
//! union-find structure: to make a chain of n links, and to follow it each time, takes O(n log n) steps in all.
//!
//! - There are two ways to follow a chain, with a shortcut each: from promise to promise in the peer, as the calls do that
//!   were sent to the first one; and by way of what is ours, too, to find out whether it is a circle.
//! - A shortcut is made only over steps that last: what was said of a promise is never said otherwise, and no more is
//!   where a Resolve or Return of ours has said that something of ours leads (Note [Tribble]). Such a step can end, when
//!   the peer finishes the answer that it leads over. All behind it is broken then; a shortcut over it can only make that
//!   a circle, which is broken as well.
//! - A shortcut keeps nothing alive. If its place is gone, the chain is followed link by link.
//! - By one Return the peer can close a circle of places in the results. It is found by Brent's method: at each power of
//!   two of the steps it is noted where the walk is, and a walk that comes there again goes in a circle. The shortcuts
//!   then lead to a place of the circle, so that it is short for the next walk.
//! ```

use std::fmt;

use super::descriptors::Accepted;
use super::effects::{Destination, Effects};
use super::named::Named;
use super::State;
use crate::cap::client::{Client, Kind};
use crate::cap::port::{ImportRef, QuestionRef, RemoteTarget};
use crate::cap::Capability;
use crate::error::Exception;
use crate::sync::{Arc, Mutex, Rank, Weak};
use crate::wire::message::Path;

/// What the peer has said that a promise of its is.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// A capability in the peer that is no promise, a broken one, or null: calls need no embargo.
    Theirs(Client),
    /// Something that may lead further. Clones share the shortcuts.
    Link(Arc<Link>),
}

/// What the peer has said of a promise. See Note [Chains of what was said].
pub(super) struct Link {
    to: LinkTarget,
    shortcuts: Mutex<Shortcuts>,
}

#[derive(Clone, Debug)]
pub(super) enum LinkTarget {
    /// Another promise of the peer's.
    Promise(RemoteTarget),
    Ours(Named),
}

/// The furthest place that is known, by each way.
#[derive(Default)]
struct Shortcuts {
    in_peer: Option<WeakTarget>,
    anywhere: Option<WeakTarget>,
}

/// A way to follow a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From promise to promise of the peer's.
    InPeer,
    /// By way of what is ours, too.
    Anywhere,
}

/// A place in the peer, as long as anything else holds it.
#[derive(Clone)]
enum WeakTarget {
    Import(Weak<ImportRef>),
    Answer(Weak<QuestionRef>, Path),
}

impl Said {
    fn new(to: LinkTarget) -> Self {
        Said::Link(Arc::new(Link { to, shortcuts: Mutex::new(Rank::Queue, Shortcuts::default()) }))
    }

    pub(super) fn promise(place: RemoteTarget) -> Self {
        Said::new(LinkTarget::Promise(place))
    }

    pub(super) fn ours(named: Named) -> Self {
        Said::new(LinkTarget::Ours(named))
    }

    /// What it leads to, if it may lead further.
    pub(super) fn to(&self) -> Option<&LinkTarget> {
        match self {
            Said::Theirs(_) => None,
            Said::Link(link) => Some(&link.to),
        }
    }
}

impl Link {
    fn shortcut(&self, way: Way) -> Option<RemoteTarget> {
        self.shortcuts.lock().by(way).as_ref().and_then(WeakTarget::upgrade)
    }

    fn shorten(&self, way: Way, to: &WeakTarget) {
        *self.shortcuts.lock().by(way) = Some(to.clone());
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to.fmt(f)
    }
}

impl Shortcuts {
    fn by(&mut self, way: Way) -> &mut Option<WeakTarget> {
        match way {
            Way::InPeer => &mut self.in_peer,
            Way::Anywhere => &mut self.anywhere,
        }
    }
}

impl WeakTarget {
    fn of(place: &RemoteTarget) -> Self {
        match place {
            RemoteTarget::Import(import) => WeakTarget::Import(Arc::downgrade(import)),
            RemoteTarget::Answer(question, path) => {
                WeakTarget::Answer(Arc::downgrade(question), path.clone())
            }
        }
    }

    fn upgrade(&self) -> Option<RemoteTarget> {
        Some(match self {
            WeakTarget::Import(import) => RemoteTarget::Import(import.upgrade()?),
            WeakTarget::Answer(question, path) => RemoteTarget::Answer(question.upgrade()?, path.clone()),
        })
    }
}

/// Where a chain ends, or that it does not.
struct Walk {
    /// The last place, if there is any.
    place: Option<RemoteTarget>,
    /// What the peer has said of that, if it has; of what the walk began with, if there was no place.
    said: Option<Said>,
    is_circle: bool,
}

impl State {
    /// Follows what the peer has said to the end.
    fn walk(&self, said: Said, way: Way, fx: &mut Effects) -> Walk {
        let mut walk = Walk { place: None, said: Some(said), is_circle: false };
        // The links from which only lasting steps have been taken, down to `walk.place`.
        let mut passed: Vec<Arc<Link>> = Vec::new();
        let (mut steps, mut noted) = (0_usize, None);
        while let Some(said) = &walk.said {
            let Some((next, lasts)) = self.next_place(said, way) else { break };
            #[cfg(all(test, not(any(shuttle, loom))))]
            tests::STEPS.with(|steps| steps.set(steps.get() + 1));
            match said {
                Said::Link(link) if lasts => passed.push(link.clone()),
                _ => shorten(&mut passed, way, walk.place.as_ref(), false),
            }
            if let Some(before) = walk.place.take() {
                fx.discard(before);
            }
            steps += 1;
            walk.is_circle = noted.as_ref().is_some_and(|noted| next.is(noted));
            if steps.is_power_of_two() {
                fx.discard(noted.replace(next.clone()));
            }
            fx.discard(std::mem::replace(&mut walk.said, self.known(&next)));
            walk.place = Some(next);
            if walk.is_circle {
                break;
            }
        }
        shorten(&mut passed, way, walk.place.as_ref(), walk.is_circle);
        fx.discard(noted);
        walk
    }

    /// The place in the peer that something leads to next, as far as is known, and whether that lasts.
    fn next_place(&self, said: &Said, way: Way) -> Option<(RemoteTarget, bool)> {
        let link = match (said, way) {
            (Said::Link(link), _) => link,
            (Said::Theirs(client), Way::Anywhere) => return Some((self.place_of(client)?, false)),
            (Said::Theirs(_), Way::InPeer) => return None,
        };
        if let Some(place) = link.shortcut(way) {
            return Some((place, true));
        }
        match (&link.to, way) {
            (LinkTarget::Promise(place), _) => Some((place.clone(), true)),
            (LinkTarget::Ours(_), Way::InPeer) => None,
            (LinkTarget::Ours(named), Way::Anywhere) => match self.leads_to(named)? {
                Destination::Reflect(place) => Some((place, true)),
                Destination::Client(client) => Some((self.place_of(&client)?, false)),
                Destination::Pipeline(_) => None,
            },
        }
    }

    /// The place in this peer that a client stands for, as far as it has been resolved.
    fn place_of(&self, client: &Client) -> Option<RemoteTarget> {
        match client.resolved().0 {
            Kind::RemotePromise(promise) if promise.port.connection() == self.connection => {
                self.promises.get(&promise.id).map(|pending| pending.place.clone())
            }
            _ => None,
        }
    }

    /// Whether what the peer has said of a place leads back to that place, by all that we know, or in another circle.
    pub(super) fn leads_back(&self, place: &RemoteTarget, said: Said, fx: &mut Effects) -> bool {
        let Walk { place: last, said, is_circle } = self.walk(said, Way::Anywhere, fx);
        let leads_back = is_circle || last.as_ref().is_some_and(|last| last.is(place));
        fx.discard((last, said));
        leads_back
    }

    /// What the peer has said of a place; that it is broken if that leads back to the place.
    pub(super) fn without_circle(&self, place: &RemoteTarget, to: Accepted, fx: &mut Effects) -> Accepted {
        if !self.leads_back(place, to.said(), fx) {
            return to;
        }
        fx.discard(to);
        Accepted::settled(circle())
    }

    /// Follows what the peer has said of `place` from promise to promise, as long as that is in the peer. Gives the last
    /// place, and what the peer has said of that, if it has.
    pub(super) fn last_in_peer(
        &self,
        place: &RemoteTarget,
        said: Said,
        fx: &mut Effects,
    ) -> (RemoteTarget, Option<Said>) {
        let walk = self.walk(said, Way::InPeer, fx);
        (walk.place.unwrap_or_else(|| place.clone()), walk.said)
    }
}

/// Has each of the links that were passed lead to the place where the walk is.
fn shorten(passed: &mut Vec<Arc<Link>>, way: Way, place: Option<&RemoteTarget>, is_circle: bool) {
    // The last of them leads there by itself. In a circle it leads away from there, too, so that the next walk finds the
    // circle at once.
    if !is_circle {
        passed.pop();
    }
    if let (false, Some(place)) = (passed.is_empty(), place) {
        let place = WeakTarget::of(place);
        passed.iter().for_each(|link| link.shorten(way, &place));
    }
    passed.clear();
}

pub(super) fn circle() -> Client {
    Client::broken(Exception::failed("a promise was resolved to itself"))
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
