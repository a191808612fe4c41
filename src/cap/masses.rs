//! Tests of what a program, or its peers, may have a great many of: what that costs is counted in steps, not in time.

use super::capability::Capability;
use super::client::Client;
use super::object::Server;
use super::pool::Pool;
use super::promised::ClientFulfiller;
use super::request::RemotePromise;
use super::serving::Call;
use crate::error::Result;
use crate::queue;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::Arc;

/// So many calls wait in one place, in the order that is the worst where the last is looked for from the front.
const MOST: usize = 80_000;
/// So many do in each other case: quadratic cost would be seen just as well.
const MANY: usize = 8_000;
const FEW: usize = 500;

type Order = fn(usize) -> Vec<usize>;

const ORDERS: [(&str, Order); 4] = [
    ("first first", |all| (0..all).collect()),
    ("last first", |all| (0..all).rev().collect()),
    ("from both ends", |all| (0..all).map(|n| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 }).collect()),
    ("shuffled", shuffled),
];

/// The numbers below `all` in an order that looks random, and is the same each time.
pub(crate) fn shuffled(all: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..all).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for n in (1..all).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(n, (random >> 33) as usize % (n + 1));
    }
    numbers
}

/// Counts its calls.
struct Counts(Arc<AtomicUsize>);

impl Server for Counts {
    fn dispatch(&self, _: &mut Call) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

type NewPlace = fn() -> Place;

/// A place where calls wait.
struct Place {
    client: Client,
    /// Ends the wait, and gives the number of calls that were served.
    end: Box<dyn FnOnce() -> usize>,
}

fn send(client: &Client) -> RemotePromise {
    client.request(1, 1).send()
}

/// A call that leaves a mailbox when it is canceled, as its params hold a promise.
fn send_promise(client: &Client, promise: &Client) -> RemotePromise {
    let mut request = client.request(1, 1);
    request.get().set_as_capability(Box::new(promise.clone()));
    request.send()
}

/// A promise, or one for the results of a call that waits in a promise.
fn promise(pipelined: bool) -> Place {
    let (promise, fulfiller): (Client, ClientFulfiller) = Client::promise();
    let first = pipelined.then(|| send(&promise));
    let client = first.as_ref().map_or(promise, |first| first.pipeline.client());
    let served = Arc::new(AtomicUsize::new(0));
    let object = Client::with_pool(Counts(served.clone()), Pool::in_place());
    let end = Box::new(move || {
        fulfiller.fulfill(object);
        let before = usize::from(first.is_some());
        served.load(Ordering::Relaxed) - before
    });
    Place { client, end }
}

/// The mailbox of an object whose turn does not come.
fn mailbox() -> Place {
    let pool = Pool::manual();
    let served = Arc::new(AtomicUsize::new(0));
    let client = Client::with_pool(Counts(served.clone()), &pool);
    let end = Box::new(move || {
        while pool.tasks() > 0 {
            pool.run_task(0);
        }
        served.load(Ordering::Relaxed)
    });
    Place { client, end }
}

const PLACES: [(&str, NewPlace); 3] =
    [("a promise", || promise(false)), ("a promise for results", || promise(true)), ("a mailbox", mailbox)];

/// So many calls wait in a place and are canceled in an order. Gives the steps for each.
fn steps_of_cancellation(place: NewPlace, all: usize, order: Order) -> f64 {
    let Place { client, end } = place();
    let (given, _fulfiller): (Client, ClientFulfiller) = Client::promise();
    let mut calls: Vec<_> = (0..all).map(|_| Some(send_promise(&client, &given))).collect();
    queue::STEPS.set(0);
    for n in order(all) {
        drop(calls[n].take());
    }
    let steps = queue::STEPS.get();
    assert!(steps >= all, "each call leaves its place");
    assert_eq!(end(), 0, "no call is served that was canceled");
    steps as f64 / all as f64
}

#[test]
fn calls_that_wait_in_one_place_are_canceled_in_near_linear_time_in_any_order() {
    for (what, place) in PLACES {
        for (name, order) in ORDERS {
            let many = if (what, name) == ("a promise", "last first") { MOST } else { MANY };
            let [few, many] = [FEW, many].map(|all| steps_of_cancellation(place, all, order));
            assert!(many <= 2.0 * few, "in {what}, {name}: {few} and {many} steps for each call");
        }
    }
}
