//! What calls that wait in promises cost, in steps, and that they are handed on in order, canceled and failed.

use std::cell::Cell;

use super::super::object::Server;
use super::super::pool::Pool;
use super::super::request::RemotePromise;
use super::super::serving::Call;
use super::*;
use crate::error::Result;
use crate::sync::{spawn, Role};

thread_local! {
    /// How many calls have been moved from promise to promise, or handed on; and how many promises have been passed in
    /// order to find circles.
    pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// An order in which things are done: of `all`, the place of the `n`th.
type Order = fn(usize, usize) -> usize;

const ORDERS: [(&str, Order); 4] = [
    ("first first", |n, _| n),
    ("last first", |n, all| all - 1 - n),
    ("mixed", |n, all| n * 7919 % all),
    ("from both ends", |n, all| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 }),
];

/// Notes the numbers of the methods that are called.
struct Notes(Arc<Mutex<Vec<u16>>>);

impl Server for Notes {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        self.0.lock().push(call.method_id());
        Ok(())
    }
}

fn notes() -> (Client, Arc<Mutex<Vec<u16>>>) {
    let noted = Arc::new(Mutex::new(Rank::Queue, Vec::new()));
    (Client::with_pool(Notes(noted.clone()), Pool::in_place()), noted)
}

fn send(client: &Client, method: usize) -> RemotePromise {
    client.request(1, u16::try_from(method).unwrap()).send()
}

/// Each promise of a chain becomes the next one, in an order, while calls wait in the first and one in each. Gives the
/// steps for each call and promise.
fn chain_with_calls(calls: usize, promises: usize, order: Order) -> f64 {
    let (object, noted) = notes();
    let mut chain: Vec<_> = (0..=promises).map(|_| Client::promise()).map(|(c, f)| (c, Some(f))).collect();
    let mut sent: Vec<_> = (0..calls).map(|n| send(&chain[0].0, n)).collect();
    sent.extend((1..=promises).map(|n| send(&chain[n].0, calls + n)));
    STEPS.with(|steps| steps.set(0));
    for n in (0..promises).map(|n| order(n, promises)) {
        let to = chain[n + 1].0.clone();
        chain[n].1.take().unwrap().fulfill(to);
    }
    sent.push(send(&chain[0].0, calls));
    chain[promises].1.take().unwrap().fulfill(object);
    assert!(sent.iter().all(RemotePromise::is_ready));
    let noted = noted.lock();
    assert_eq!(noted.len(), sent.len(), "each call is delivered once");
    let through_first = noted.iter().filter(|n| usize::from(**n) <= calls);
    assert!(through_first.is_sorted(), "calls through one promise come in order");
    STEPS.with(|steps| steps.get()) as f64 / (calls + promises) as f64
}

#[test]
fn calls_that_wait_in_promises_that_become_each_other_cost_near_linear_time_in_any_order() {
    for (name, order) in ORDERS {
        let [few, many] = [1 << 7, 1 << 11].map(|count| chain_with_calls(count, count, order));
        assert!(many < 2.0 * few.max(4.0), "{name}: {few} and {many} steps for each call and promise");
    }
}

/// Calls each of which is to be answered by the next one's results: each waits in a promise that becomes a capability in
/// those. The last step closes a circle. Gives the steps for each call.
fn circle_of_calls(count: usize, order: Order) -> f64 {
    let mut promises: Vec<_> = (0..count).map(|_| Client::promise()).map(|(c, f)| (c, Some(f))).collect();
    let calls: Vec<_> = promises.iter().map(|(client, _)| send(client, 0)).collect();
    let results: Vec<_> = calls.iter().map(|call| call.pipeline.field(0).client()).collect();
    STEPS.with(|steps| steps.set(0));
    for (done, n) in (0..count).map(|n| (n, order(n, count))) {
        promises[n].1.take().unwrap().fulfill(results[(n + 1) % count].clone());
        assert_eq!(calls[0].is_ready(), done + 1 == count, "{} of {count} promises are resolved", done + 1);
    }
    let steps = STEPS.with(|steps| steps.get()) as f64 / count as f64;
    for call in calls {
        let why = call.promise.wait().expect_err("it is to be answered by itself").to_string();
        assert!(why.contains("resolved to itself"), "{why}");
    }
    steps
}

#[test]
fn a_circle_of_calls_of_any_length_is_broken_in_near_linear_time_in_any_order() {
    for (name, order) in ORDERS {
        let [few, many] = [1 << 7, 1 << 14].map(|count| circle_of_calls(count, order));
        assert!(many < 2.0 * few.max(8.0), "{name}: {few} and {many} steps for each call");
    }
}

/// Calls of two promises, of which the first becomes the second: the longer list or the shorter one is moved.
#[test]
fn calls_that_were_moved_leave_when_they_are_canceled() {
    for (in_front, behind) in [(3, 10), (10, 3), (0, 5), (5, 0), (100, 100)] {
        let (object, noted) = notes();
        let (one, fulfill_one) = Client::promise();
        let (two, fulfill_two) = Client::promise();
        let mut sent: Vec<_> = (0..behind).map(|n| Some(send(&one, in_front + n))).collect();
        sent.splice(0..0, (0..in_front).map(|n| Some(send(&two, n))));
        drop(sent[1].take());
        fulfill_one.fulfill(two);
        (0..sent.len()).rev().filter(|n| n % 3 == 0).for_each(|n| drop(sent[n].take()));
        fulfill_two.fulfill(object);
        assert!(sent.iter().flatten().all(RemotePromise::is_ready));
        let left = (0..in_front + behind).filter(|n| n % 3 != 0 && *n != 1);
        assert!(noted.lock().iter().map(|n| usize::from(*n)).eq(left), "{in_front} and {behind} calls");
    }
}

/// Calls on the results of a call hold that, wherever they are moved to; so do those that waited in a promise of nothing
/// before.
#[test]
fn calls_that_were_moved_hold_the_call_that_they_wait_for() {
    for waits_already in [false, true] {
        let (object, noted) = notes();
        let (of_nothing, fulfill) = Client::promise();
        let (slow, fulfill_slow) = Client::promise();
        let call = send(&slow, 1);
        let results = call.pipeline.field(0).client();
        let first = waits_already.then(|| send(&results, 2));
        let moved = send(&of_nothing, 3);
        fulfill.fulfill(results);
        drop((of_nothing, call, first));
        fulfill_slow.fulfill(object.clone());
        assert_eq!(*noted.lock(), [1], "the call is wanted by the one that was moved");
        assert!(moved.is_ready(), "its results hold no capability");
        // And when that is canceled, nothing holds the first call.
        let (of_nothing, fulfill) = Client::promise();
        let (slow, fulfill_slow) = Client::promise();
        let call = send(&slow, 1);
        let results = call.pipeline.field(0).client();
        let moved = send(&of_nothing, 3);
        fulfill.fulfill(results);
        drop((of_nothing, call, moved));
        fulfill_slow.fulfill(object);
        assert_eq!(*noted.lock(), [1], "the second call was canceled");
    }
}

/// Threads cancel calls while what they wait in becomes the next promise.
#[test]
fn calls_that_are_canceled_while_they_are_moved_are_answered() {
    for _ in 0..200 {
        let (object, noted) = notes();
        let mut chain: Vec<_> = (0..5).map(|_| Client::promise()).collect();
        let sent: Vec<_> = (0..50).map(|n| send(&chain[n % 5].0, n)).collect();
        let (last, fulfill_last) = chain.pop().unwrap();
        let next: Vec<_> = chain.iter().skip(1).map(|(client, _)| client.clone()).chain([last]).collect();
        let run = |body: Box<dyn FnOnce() + Send>| spawn("resolves", Role::User, body).unwrap();
        let mut threads: Vec<_> = (chain.into_iter().zip(next))
            .map(|((_, fulfiller), next)| run(Box::new(|| fulfiller.fulfill(next))))
            .collect();
        threads.push(run(Box::new(|| drop(sent))));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        fulfill_last.fulfill(object);
        assert!(noted.lock().is_empty(), "all were canceled");
    }
}
