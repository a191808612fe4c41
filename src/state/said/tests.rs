//! Tests of `said`: what chains cost, and which are circles.

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
