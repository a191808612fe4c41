//! Who holds what for how long: handles, held clients, params of canceled calls, promises.

use std::sync::Arc;

use capnp_threads::{Capability, Exception, ExceptionKind, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

use super::harbour::*;
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(
    handles_are_released,
    a_handle_in_results_that_nobody_wants_is_released,
    a_canceled_call_lets_go_of_its_params,
    cancellation_lets_go_of_what_the_method_holds,
    a_held_client_is_called_and_given_back,
    one_client_is_sent_often,
    a_promise_is_called_before_it_is_resolved,
    a_held_promise_is_rejected,
    one_promise_is_sent_often,
);

fn harbour(ship: &ship::Client) -> harbour::Client {
    ship.harbour().pipeline.get().get_harbour()
}

fn count(harbour: &harbour::Client) -> u32 {
    let counter = counter::Client::from(harbour.clone());
    counter.count(|_| ()).soon().unwrap().get().unwrap().get_number()
}

/// A boat that says when it is dropped.
struct Watched(Boat, Sender<()>);

impl ship::Server for Watched {
    fn hail(&self, params: ship::HailParams, results: ship::HailResults<'_>) -> Result<()> {
        self.0.hail(params, results)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

fn watched() -> (ship::Client, Arc<Books>, Receiver<()>) {
    let ((dropped, is_dropped), books) = (unbounded(), Books::new());
    (ship::Client::new(Watched(Boat(books.clone()), dropped)), books, is_dropped)
}

/// Waits until so many ropes are left. Each round goes to the harbour and back, behind what releases them.
#[track_caller]
fn ropes_become(books: &Books, harbour: &harbour::Client, left: u32) {
    for _ in 0..10_000 {
        if books.ropes() == left {
            return;
        }
        count(harbour);
    }
    panic!("{} ropes, not {left}", books.ropes());
}

fn handles_are_released(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let first = harbour.rope().soon().unwrap().get().unwrap().get_rope().unwrap();
        let response = harbour.rope().soon().unwrap();
        let second = response.get().unwrap().get_rope().unwrap();
        assert_eq!(books.ropes(), 2);
        drop(first);
        ropes_become(&books, &harbour, 1);
        drop(second);
        // The response holds it.
        count(&harbour);
        assert_eq!(books.ropes(), 1);
        drop(response);
        ropes_become(&books, &harbour, 0);
    });
}

fn a_handle_in_results_that_nobody_wants_is_released(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        harbour.resolve().unwrap();
        for _ in 0..50 {
            // The cancellation and the results cross, or not.
            drop(harbour.rope());
        }
        // Behind them all: those that have begun have ended.
        count(&harbour);
        ropes_become(&books, &harbour, 0);
    });
    assert_eq!(books.ropes(), 0);
}

fn a_canceled_call_lets_go_of_its_params(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, _, is_dropped) = watched();
        let harbour = harbour(&ship);
        let call = harbour.never_return(|mut params| params.set_ship(mine));
        let cancel = (&books.told).soon();
        assert_eq!(count(&harbour), 1);
        assert!(is_dropped.is_empty());
        assert!(!cancel.is_canceled());
        drop(call);
        (&is_dropped).soon();
        assert!(cancel.is_canceled());
    });
}

fn cancellation_lets_go_of_what_the_method_holds(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, _, is_dropped) = watched();
        let harbour = harbour(&ship);
        let (sender, returned) = unbounded();
        let call = harbour.until_canceled(|mut params| params.set_ship(mine));
        let call = call.map(move |_| {
            sender.send(()).unwrap();
            Ok(())
        });
        (&books.told).soon();
        assert!(is_dropped.is_empty() && returned.is_empty());
        drop(call);
        (&is_dropped).soon();
        // It was canceled, and has not returned.
        assert!(returned.is_empty());
    });
}

fn a_held_client_is_called_and_given_back(setting: Setting) {
    let (object, books) = boat();
    let (mine, my_books, is_dropped) = watched();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        harbour.moor(|mut params| params.set_ship(mine.clone())).soon().unwrap();
        let held = mine.clone();
        drop(mine);
        assert_eq!(count(&harbour), 1);
        assert!(is_dropped.is_empty());
        let called = harbour.hail_moored(|mut params| params.set_call(0)).soon().unwrap();
        assert_eq!(text(called.get().unwrap().get_note()), "hailed");
        let given = harbour.moored().soon().unwrap();
        let copy = given.get().unwrap().get_ship().unwrap().resolve().unwrap();
        drop(given);
        assert_eq!(copy, held);
        drop(held);
        // It is the object itself: no call to the harbour is made.
        assert!(copy.wait_local_server::<Watched>().unwrap().is_some());
        let calls = books.calls();
        assert_eq!(hail(&copy).unwrap(), AYE);
        assert_eq!((books.calls(), my_books.calls()), (calls, 2));
        let called = harbour.hail_from(|mut params| params.set_ship(copy)).soon().unwrap();
        assert_eq!(text(called.get().unwrap().get_note()), "hailed");
        assert_eq!(count(&harbour), 5);
        assert!(is_dropped.is_empty());
        // Without the harbour nobody holds it.
        drop((harbour, ship, called));
        (&is_dropped).soon();
    });
}

fn one_client_is_sent_often(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let (mine, my_books, is_dropped) = watched();
        let harbour = harbour(&ship);
        harbour.hail_from(|mut params| params.set_ship(mine.clone())).soon().unwrap();
        assert_eq!(count(&harbour), 1);
        let calls = [
            harbour.hail_from(|mut params| params.set_ship(mine.clone())),
            harbour.hail_from(|mut params| params.set_ship(mine.clone())),
        ];
        drop(mine);
        for call in calls {
            assert_eq!(text(call.soon().unwrap().get().unwrap().get_note()), "hailed");
        }
        (&is_dropped).soon();
        assert_eq!(my_books.calls(), 3);
    });
}

fn a_promise_is_called_before_it_is_resolved(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let (promise, fulfiller) = ship::Client::promise();
        let calls = [
            harbour
                .hail_from(|mut params| params.set_ship(promise.clone()))
                .map(|r| Ok(text(r.get()?.get_note()))),
            harbour
                .hail_when_resolved(|mut params| params.set_ship(promise))
                .map(|r| Ok(text(r.get()?.get_note()))),
        ];
        assert_eq!(count(&harbour), 2);
        assert!(calls.iter().all(|call| !call.is_ready()));
        let (mine, my_books) = boat();
        fulfiller.fulfill(mine);
        assert!(calls.into_iter().all(|call| call.soon().unwrap() == "hailed"));
        assert_eq!((books.calls(), my_books.calls()), (3, 2));
    });
}

fn a_held_promise_is_rejected(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let (promise, fulfiller) = ship::Client::promise();
        harbour.moor(|mut params| params.set_ship(promise)).soon().unwrap();
        let call = harbour.hail_moored(|_| ());
        assert_eq!(count(&harbour), 2);
        assert!(!call.is_ready());
        fulfiller.reject(Exception::overloaded("sunk"));
        let error = call.soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("sunk"), "{error}");
        // The connection has not ended.
        assert_eq!(count(&harbour), 3);
    });
}

fn one_promise_is_sent_often(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let (promise, fulfiller) = ship::Client::promise();
        let (other, other_fulfiller) = ship::Client::promise();
        let ask = |ship: &ship::Client| harbour.hail_from(|mut params| params.set_ship(ship.clone()));
        let (mine, my_books) = boat();
        let pending = [ask(&promise), ask(&promise), ask(&other)];
        // Others, which are settled, need not wait for those.
        for call in [ask(&mine), ask(&mine), ask(&boat().0)] {
            call.soon().unwrap();
        }
        assert!(pending.iter().all(|call| !call.is_ready()));
        fulfiller.fulfill(mine.clone());
        other_fulfiller.fulfill(mine);
        pending.into_iter().for_each(|call| drop(call.soon().unwrap()));
        assert_eq!(my_books.calls(), 5);
    });
}
