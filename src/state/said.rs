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
mod tests {
    use std::cell::Cell;

    use super::super::imports::ImportedPromise;
    use super::super::{Callback, ReceivedMessage, State};
    use super::*;
    use crate::cap::masses::shuffled;
    use crate::cap::port::{ConnectionId, ConnectionOps};
    use crate::cap::promised::PromiseCell;
    use crate::cap::resolution;
    use crate::cap::testing::Posts;
    use crate::cap::watchers::Watcher;
    use crate::id::{AnswerId, ImportId};
    use crate::limits::Limits;
    use crate::promise::{self, Promise};
    use crate::wire::message::{Descriptor, Incoming, Message, PromisedAnswer, Resolution, Resolve};

    thread_local! {
        /// How many links have been followed.
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// How the peer names the next promise.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Name {
        /// As its own.
        Theirs,
        /// By a promise of ours that has become the next one, as the peer was told.
        Export,
        /// By an answer of ours that holds the next one.
        Answer,
        /// By each of those in turn.
        Mixed,
    }

    const NAMES: [Name; 4] = [Name::Theirs, Name::Export, Name::Answer, Name::Mixed];

    /// A connection, and the peer's promises that are held here.
    struct Chain {
        state: State,
        _port: Arc<dyn ConnectionOps>,
        clients: Vec<Client>,
        places: Vec<RemoteTarget>,
        /// How each promise can be named.
        names: Vec<Descriptor<Incoming>>,
    }

    impl Chain {
        fn new(count: usize, name: Name, used: bool) -> Self {
            let port: Arc<dyn ConnectionOps> = Arc::new(Posts::default());
            let limits = Limits { exports: usize::MAX, ..Limits::default() };
            let mut state = State::new(ConnectionId(0), Arc::downgrade(&port), &limits, Client::null());
            let (mut clients, mut places, mut names) = (Vec::new(), Vec::new(), Vec::new());
            for n in 0..count as u32 {
                let client = state.import_promise(ImportId(n));
                let Kind::RemotePromise(promise) = &client.0 else { panic!("a promise") };
                let pending = state.promises.get_mut(&promise.id).unwrap();
                pending.used = used;
                places.push(pending.place.clone());
                let name = if name == Name::Mixed { NAMES[n as usize % 3] } else { name };
                names.push(named(&mut state, name, n, &client));
                clients.push(client);
            }
            Chain { state, _port: port, clients, places, names }
        }

        /// The peer says that a promise is the other one.
        fn says(&mut self, promise: usize, other: usize) {
            self.resolves(promise, Resolution::Cap(self.names[other].clone()));
        }

        fn resolves(&mut self, promise: usize, to: Resolution<Incoming>) {
            let resolve = Resolve { promise: ImportId(promise as u32), to };
            let arrival = ReceivedMessage { message: Message::Resolve(resolve), share: None };
            let mut fx = Effects::default();
            self.state.receive(arrival, &mut fx).unwrap();
            for callback in fx.callbacks.drain(..) {
                if let Callback::Tell { watchers, client } = callback {
                    watchers.resolved(&client);
                }
            }
        }

        /// A promise for what a promise of the peer's turns out to be.
        fn watch(&mut self, promise: usize) -> Promise<Client> {
            let Kind::RemotePromise(remote) = self.clients[promise].0.clone() else { panic!("a promise") };
            let (told, fulfiller) = promise::promise();
            let watcher = self.state.watch(&remote, Watcher::waiter(fulfiller), &mut Effects::default());
            assert!(watcher.is_none(), "it is pending");
            told
        }

        fn follow(&mut self, promise: usize) -> Client {
            self.state.follow(&self.places[promise], &mut Effects::default())
        }

        fn is_circle(&self, promise: usize) -> bool {
            let import = self.state.imports.get(&ImportId(promise as u32)).unwrap();
            import.resolved().and_then(Client::broken_with).is_some()
        }
    }

    fn named(state: &mut State, name: Name, n: u32, client: &Client) -> Descriptor<Incoming> {
        let mut fx = Effects::default();
        match name {
            Name::Theirs | Name::Mixed => Descriptor::SenderPromise(ImportId(n)),
            Name::Export => {
                let cell = PromiseCell::new(None);
                let described = state
                    .describe(&Client(Kind::Promise(cell.clone())), &mut fx)
                    .unwrap_or_else(|e| panic!("{e}"));
                let id = described.export.unwrap();
                cell.resolve(client.clone());
                let generation = state.exports.get(id).unwrap().generation;
                state.export_resolved(id, generation, &mut fx);
                Descriptor::ReceiverHosted(id)
            }
            Name::Answer => {
                state.bootstrap = client.clone();
                let arrival =
                    ReceivedMessage { message: Message::Bootstrap { question: AnswerId(n) }, share: None };
                state.receive(arrival, &mut fx).unwrap();
                Descriptor::ReceiverAnswer(PromisedAnswer { question: AnswerId(n), path: [].into() })
            }
        }
    }

    type Order = fn(usize, usize) -> usize;

    const ORDERS: [(&str, Order); 4] = [
        ("first first", |n, _| n),
        ("last first", |n, all| all - 1 - n),
        ("mixed", |n, all| n * 7919 % all),
        ("from both ends", |n, all| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 }),
    ];

    /// The peer says of each promise, in an order, that it is the next one, and what was said of some is followed each
    /// time; then all are followed. Gives the steps for each promise.
    fn steps(count: usize, name: Name, used: bool, order: Order) -> f64 {
        let mut chain = Chain::new(count + 1, name, used);
        STEPS.with(|steps| steps.set(0));
        for n in 0..count {
            let at = order(n, count);
            chain.says(at, at + 1);
            assert!(!chain.is_circle(at), "promise {at} of {count} was said to be the next one");
            chain.follow(order(n / 2, count));
        }
        for n in 0..count {
            assert!(chain.follow(n).broken_with().is_none(), "the chain is no circle");
        }
        STEPS.with(|steps| steps.get()) as f64 / count as f64
    }

    #[test]
    fn a_chain_of_what_was_said_costs_near_linear_time_in_any_order() {
        for (what, order) in ORDERS {
            for name in NAMES {
                for used in [false, true] {
                    let [few, many] = [1 << 8, 1 << 12].map(|count| steps(count, name, used, order));
                    let found = format!("{few} and {many} steps for each promise");
                    assert!(many < 2.0 * few.max(8.0), "{what}, by {name:?}, used {used}: {found}");
                }
            }
        }
    }

    /// Those that watch are few where there are many promises: to have them watch the next one costs the logarithm of their
    /// number, but much of that.
    #[test]
    fn a_hundred_thousand_promises_that_are_each_other_cost_near_linear_time() {
        let orders = ORDERS.map(|(what, order)| (what, Some(order))).into_iter().chain([("shuffled", None)]);
        for (what, order) in orders {
            let many = if what == "last first" { 100_000 } else { 20_000 };
            let promises = |count: usize| match order {
                Some(order) => (0..count).map(|n| order(n, count)).collect(),
                None => shuffled(count),
            };
            let few = whole(promises(1 << 10), 1, usize::MAX);
            whole(promises(many), 1 << 10, 2 * few);
        }
    }

    /// The peer's promises, all of which are held here and one of so many watched, turn out to be each other, in an order,
    /// and at last an object of the peer's. Gives the steps for each promise, links and promises that were followed, which
    /// may be so many at most.
    fn whole(order: Vec<usize>, one_of: usize, most: usize) -> usize {
        let count = order.len();
        let mut chain = Chain::new(count + 1, Name::Theirs, false);
        let watching: Vec<_> = (0..count).step_by(one_of).map(|n| chain.watch(n)).collect();
        STEPS.with(|steps| steps.set(0));
        resolution::STEPS.with(|steps| steps.set(0));
        let steps = || STEPS.with(|steps| steps.get()) + resolution::STEPS.with(|steps| steps.get());
        let most = most.saturating_mul(count);
        for (times, n) in order.into_iter().enumerate() {
            chain.says(n, n + 1);
            assert!(steps() <= most, "{} steps when {times} of {count} promises were another one", steps());
        }
        chain.resolves(count, Resolution::Cap(Descriptor::SenderHosted(ImportId(count as u32 + 1))));
        let end = chain.clients[count].resolved();
        assert!(matches!(end.0, Kind::Import(_)));
        assert!(chain.clients.iter().all(|client| client.resolved() == end), "all are the object");
        for told in watching {
            let told = told.try_take().expect("all that watch are told");
            assert!(told == end, "none is told before it is known what its promise is");
        }
        assert!(steps() <= most, "{} steps in the end for {count} promises", steps());
        steps().div_ceil(count)
    }

    #[test]
    fn a_circle_of_any_length_is_found_where_it_is_closed() {
        for (_, order) in ORDERS {
            for name in NAMES {
                for count in [1, 2, 3, 8, 9, 100] {
                    closes_a_circle(count, name, order);
                }
            }
        }
    }

    fn closes_a_circle(count: usize, name: Name, order: Order) {
        let mut chain = Chain::new(count, name, true);
        for n in 0..count {
            let at = order(n, count);
            chain.says(at, (at + 1) % count);
            assert_eq!(chain.is_circle(at), n == count - 1, "{n} of {count} promises by {name:?}");
        }
        if name == Name::Theirs {
            // By what is ours there are embargoes, which have not ended.
            assert!(chain.clients.iter().all(|client| client.broken_with().is_some()));
            assert!(chain.follow(0).broken_with().is_some());
        }
    }

    #[test]
    fn a_chain_of_more_than_ten_thousand_promises_is_a_circle_only_if_it_is_closed() {
        for name in NAMES {
            closes_a_circle(12_000, name, |n, all| all - 1 - n);
        }
    }

    /// What was said leads into a circle that was closed otherwise: it is found, and is short for those who come again.
    #[test]
    fn a_circle_that_is_there_is_found_in_few_steps_the_next_time() {
        const COUNT: usize = 12_000;
        for tail in [0, 1, 1000] {
            let chain = Chain::new(COUNT, Name::Theirs, true);
            let mut state = chain.state;
            let mut fx = Effects::default();
            for (n, place) in chain.places.iter().enumerate() {
                let next = if n + 1 < COUNT { n + 1 } else { tail };
                let said = Said::promise(chain.places[next].clone());
                let RemoteTarget::Import(import) = place else { panic!("an import") };
                let import = state.imports.get_mut(&import.id).unwrap();
                import.promise = Some(ImportedPromise::Resolved { client: Client::null(), said });
            }
            for most in [4 * COUNT, 8, 8] {
                STEPS.with(|steps| steps.set(0));
                let said = state.known(&chain.places[0]).unwrap();
                assert!(state.leads_back(&chain.places[0], said, &mut fx));
                let steps = STEPS.with(|steps| steps.get());
                assert!(steps <= most, "{steps} steps, where {most} are enough");
            }
        }
    }
}
