//! Many connections, whose input one thread waits for.

#![cfg(any(target_os = "linux", target_os = "android"))]

use std::thread;
use std::time::{Duration, Instant};

use capnp_threads::transport::Transport;
use capnp_threads::{Call, Capability, Client, Connection, Deferred, Limits, Pool, Result, Vat};
use crossbeam_channel::{bounded, unbounded};

use crate::support::wires::tcp_pair;
use crate::support::*;

/// Two ends of a TCP connection. Neither polls, so that their stages rest at once.
struct Ends {
    server: Connection,
    client: Connection,
    remote: Client,
}

impl Ends {
    fn offering(bootstrap: &Client, set: impl FnOnce(&mut Limits)) -> Self {
        let (near, far) = tcp_pair();
        let mut still = Limits::default();
        still.polling = Duration::ZERO;
        let mut limits = still.clone();
        set(&mut limits);
        let server = Vat::new().limits(limits.clone()).bootstrap(bootstrap.clone());
        let server = server.over(Transport::tcp(far, &limits).unwrap()).unwrap();
        let client = Vat::new().limits(still.clone()).over(Transport::tcp(near, &still).unwrap()).unwrap();
        let remote = client.bootstrap();
        Ends { server, client, remote }
    }

    /// Calls until the reactor has the server's stage.
    fn until_it_rests(&self) {
        let deadline = Instant::now() + DEADLINE;
        while ask(&self.remote, WHERE, "").unwrap() != "capnp-reactor" {
            assert!(Instant::now() < deadline, "it rests");
        }
    }
}

/// The method that says which thread it runs on.
const WHERE: u16 = 0;

/// An object in place with one method more.
fn in_place(other: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> Client {
    let object = server(move |call| match call.method_id() {
        WHERE => reply(call, thread::current().name().unwrap_or("?")),
        _ => other(call),
    });
    Client::with_pool(object, Pool::in_place())
}

/// So many connections that the reactor is in use.
fn crowd() -> Vec<Ends> {
    let nothing = in_place(|_| Ok(()));
    (0..4).map(|_| Ends::offering(&nothing, |_| {})).collect()
}

#[test]
fn many_connections_are_served_by_one_thread() {
    let crowd = crowd();
    crowd.iter().for_each(Ends::until_it_rests);
    thread::scope(|scope| {
        for ends in &crowd {
            scope.spawn(|| (0..100).for_each(|_| drop(ask(&ends.remote, WHERE, "").unwrap())));
        }
    });
}

/// A method in place must not wait. One that does so all the same makes only others of its own connection wait.
#[test]
fn long_method_in_place_stops_no_other_connection() {
    let _crowd = crowd();
    let (come, has_come) = bounded(0);
    let stuck = in_place(move |call| {
        has_come.recv().unwrap();
        reply(call, "free")
    });
    let frees = in_place(move |call| {
        come.send(()).unwrap();
        reply(call, "done")
    });
    let (stuck, frees) = (Ends::offering(&stuck, |_| {}), Ends::offering(&frees, |_| {}));
    for _ in 0..3 {
        stuck.until_it_rests();
        frees.until_it_rests();
        let waiting = send(&stuck.remote, 1, "");
        assert_eq!(ask(&frees.remote, 1, "").unwrap(), "done");
        assert_eq!(said(&waiting.soon().unwrap()), "free");
    }
}

#[test]
fn an_end_that_comes_with_the_last_message_is_seen() {
    let _crowd = crowd();
    let nothing = in_place(|_| Ok(()));
    for _ in 0..50 {
        let ends = Ends::offering(&nothing, |_| {});
        ends.until_it_rests();
        let (told, tells) = unbounded();
        ends.server.on_disconnect(move |why| told.send(why.to_string()).unwrap());
        ends.client.abort(capnp_threads::Exception::failed("on purpose"));
        assert!((&tells).soon().contains("on purpose"));
    }
}

#[test]
fn connection_that_waits_for_room_reads_on_when_there_is_room() {
    let _crowd = crowd();
    let (hold, held) = unbounded::<Deferred>();
    let keeps = in_place(move |call| {
        hold.send(call.defer()?).unwrap();
        Ok(())
    });
    let ends = Ends::offering(&keeps, |limits| limits.call_words = 1);
    for _ in 0..3 {
        ends.until_it_rests();
        let calls: Vec<_> = (0..20).map(|_| send(&ends.remote, 1, "")).collect();
        for call in calls {
            (&held).soon().answer(|mut results| Ok(results.set_as("at last")?));
            assert_eq!(said(&call.soon().unwrap()), "at last");
        }
    }
}

/// Windows of more calls than one turn handles: what comes while a connection waits for its next turn is seen, too.
#[test]
fn windows_of_calls_on_many_connections_are_all_answered() {
    let nothing = in_place(|call| reply(call, ""));
    let crowd: Vec<_> = (0..8).map(|_| Ends::offering(&nothing, |_| {})).collect();
    thread::scope(|scope| {
        for ends in &crowd {
            scope.spawn(|| {
                for _ in 0..40 {
                    let window: Vec<_> = (0..150).map(|_| send(&ends.remote, 1, "")).collect();
                    for call in window {
                        call.soon().unwrap();
                    }
                }
            });
        }
    });
}
