//! Everything a user holds of a call is dropped in every order. Nothing hangs, nothing panics, and nothing is
//! left on either side.

use std::any::Any;
use std::sync::Arc;

use capnp_threads::{Client, Connection, Vat};

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{echo, given_back, object, reply_cap, said, send, Soon};

/// One of the things that are dropped.
type Held = Box<dyn Any>;

/// All orders of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(n - 1) {
        for at in 0..n {
            let mut longer = order.clone();
            longer.insert(at, n - 1);
            all.push(longer);
        }
    }
    all
}

/// An object that hands out others and is held by `alive`.
fn giver(alive: &Arc<()>) -> Client {
    let alive = alive.clone();
    object(move |call| {
        let alive = alive.clone();
        let given = object(move |call| {
            let _held = &alive;
            crate::support::reply(call, "given")
        });
        reply_cap(call, &given);
        Ok(())
    })
}

/// A call that was answered, one that was not looked at, and what came of both.
fn hold(connection: Connection) -> Vec<Held> {
    let remote = connection.bootstrap::<Client>();
    let response = send(&remote, 0, "").soon().unwrap();
    let given = given_back(&response);
    let under_way = send(&remote, 0, "");
    let ahead = under_way.pipeline.client();
    let called_ahead = send(&ahead, 0, "");
    vec![
        Box::new(connection),
        Box::new((remote, given)),
        Box::new(under_way.promise),
        Box::new(under_way.pipeline),
        Box::new((ahead, called_ahead)),
        Box::new(response),
    ]
}

fn drop_in(order: &[usize], mut held: Vec<Option<Held>>) {
    for index in order {
        drop(held[*index].take());
    }
}

#[test]
fn connection_and_its_clients_dropped_in_every_order_leave_nothing() {
    for order in orders(6) {
        let alive = Arc::new(());
        let two = Two::offering(Wire::Memory, &giver(&alive));
        let Two { here, there, .. } = two;
        drop_in(&order, hold(here).into_iter().map(Some).collect());
        let why = there.wait_closed().unwrap();
        assert!(there.snapshot().is_empty(), "{order:?}, {why}: {}", there.snapshot());
    }
}

/// The connection stays, and both tables come to nothing.
#[test]
fn clients_dropped_in_every_order_leave_empty_tables_on_a_live_connection() {
    for wire in Wire::ALL {
        let alive = Arc::new(());
        let two = Two::offering(wire, &giver(&alive));
        for order in orders(5) {
            let mut held = hold(two.here.clone());
            drop(held.remove(0));
            drop_in(&order, held.into_iter().map(Some).collect());
            assert!(two.here.is_connected());
        }
        two.both_empty();
        assert_eq!(
            said(
                &send(&given_back(&send(&two.here.bootstrap::<Client>(), 0, "").soon().unwrap()), 0, "")
                    .soon()
                    .unwrap()
            ),
            "given"
        );
    }
}

/// A listener among them, dropped before, between and after.
#[test]
fn listener_and_connection_dropped_in_every_order_leave_nothing() {
    for order in orders(3) {
        let alive = Arc::new(());
        let listener = Vat::new().bootstrap(giver(&alive)).listen("127.0.0.1:0").unwrap();
        let here = Vat::new().connect(listener.local_addr()).unwrap();
        let mut held = hold(here);
        let rest = held.split_off(1);
        held.push(Box::new(rest));
        held.push(Box::new(listener));
        drop_in(&order, held.into_iter().map(Some).collect());
        assert_gone(alive);
    }
}

/// Waits until nobody holds the object any more: the threads that did have let go.
fn assert_gone(alive: Arc<()>) {
    let weak = Arc::downgrade(&alive);
    drop(alive);
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    while weak.upgrade().is_some() {
        assert!(std::time::Instant::now() < deadline, "the object is still held");
        std::thread::yield_now();
    }
}

/// The server's object is dropped with the last reference to it, wherever that was.
#[test]
fn object_is_dropped_with_its_last_reference() {
    for wire in Wire::ALL {
        let alive = Arc::new(());
        let giver = giver(&alive);
        let two = Two::offering(wire, &giver);
        let given = given_back(&send(&two.here.bootstrap::<Client>(), 0, "").soon().unwrap());
        let again = given.clone();
        drop(given);
        assert_eq!(said(&send(&again, 0, "").soon().unwrap()), "given");
        drop(again);
        two.both_empty();
        drop((two, giver));
        assert_gone(alive);
    }
}

/// A connection that only a client keeps open.
#[test]
fn a_client_keeps_its_connection_open() {
    for wire in Wire::ALL {
        let Two { here, there, .. } = Two::offering(wire, &echo());
        let remote = here.bootstrap::<Client>();
        drop(here);
        assert_eq!(said(&send(&remote, 0, "still here").soon().unwrap()), "still here");
        assert!(there.is_connected());
        drop(remote);
        there.wait_closed().unwrap();
    }
}

/// The last reference goes inside a method that was called over the very connection.
#[test]
fn last_connection_handle_dropped_in_a_method_still_sends_its_answer() {
    let (keep, kept) = crossbeam_channel::unbounded::<Connection>();
    let served = object(move |_| {
        drop(kept.recv());
        Ok(())
    });
    let Two { here, there, .. } = Two::offering(Wire::Tcp, &served);
    let remote = here.bootstrap::<Client>();
    keep.send(there).unwrap();
    // The answer still goes out.
    send(&remote, 0, "").soon().unwrap();
    here.wait_closed().unwrap();
    assert!(reaches(&here, |tables| tables.is_empty()));
}
