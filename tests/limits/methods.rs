//! How many methods run for the calls of one connection, and of all: what is above waits or is refused, and harms nobody
//! else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use capnp_threads::transport::Transport;
use capnp_threads::{
    Capability, Client, Connection, ExceptionKind, Limits, Pool, RemotePromise, Threads, Vat,
};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::{
    answer, ask, cap, failure, give, limits, object_in, request, send, soon, text, until, DEADLINE,
};

/// Runs a test with both kinds of threads, for the vat that serves.
fn with_all_threads(test: impl Fn(Vat)) {
    for threads in [Threads::Lending, Threads::Strict] {
        test(Vat::new().threads(threads));
    }
}

fn methods(methods: usize) -> Limits {
    limits(|l| l.methods = methods)
}

/// A connection to a vat, which ends with the first of the two.
struct Peer {
    here: Connection,
    there: Connection,
    remote: Client,
}

fn connect(serving: &Vat) -> Peer {
    let (a, b) = Transport::in_memory();
    let there = serving.over(b).unwrap();
    let here = Vat::new().over(a).unwrap();
    let remote = here.bootstrap::<Client>().resolve().unwrap();
    Peer { here, there, remote }
}

/// Objects whose methods tell that they have started, and return when they are let go.
#[derive(Clone)]
struct Blocking {
    pool: Pool,
    start: Sender<String>,
    started: Receiver<String>,
    let_go: Sender<()>,
    wait: Receiver<()>,
}

impl Blocking {
    fn new(pool: &Pool) -> Self {
        let (start, started) = unbounded();
        let (let_go, wait) = unbounded();
        Blocking { pool: pool.clone(), start, started, let_go, wait }
    }

    /// One whose calls run beside each other. Asked for `quick`, it answers at once.
    fn object(&self) -> Client {
        let Blocking { pool, start, wait, .. } = self.clone();
        object_in(&pool, move |call| {
            call.allow_next();
            let text = text(call)?;
            if text != "quick" {
                start.send(text).unwrap();
                wait.recv().unwrap();
            }
            Ok(call.results().set_as("done")?)
        })
    }

    /// What gives a new one for each call, and needs no thread.
    fn giver(&self) -> Client {
        let this = self.clone();
        object_in(Pool::in_place(), move |call| {
            call.results().set_as_capability(Box::new(this.object()));
            Ok(())
        })
    }

    fn let_go(&self, calls: usize) {
        (0..calls).for_each(|_| self.let_go.send(()).unwrap());
    }
}

#[track_caller]
fn overloaded(call: RemotePromise, reason: &str) {
    let why = failure(answer(call));
    assert_eq!(why.kind(), ExceptionKind::Overloaded, "{why}");
    assert!(why.reason().contains(reason), "{why}");
}

#[test]
fn calls_beyond_the_methods_of_a_connection_wait_for_their_turn() {
    with_all_threads(|vat| {
        for objects in [1, 50] {
            let blocking = Blocking::new(&Pool::new());
            let peer = connect(&vat.clone().limits(methods(3)).bootstrap(blocking.giver()));
            let objects: Vec<_> = (0..objects).map(|_| send(&peer.remote, "").pipeline.client()).collect();
            let calls: Vec<_> = (0..50).map(|n| send(&objects[n % objects.len()], &n.to_string())).collect();
            until(&peer.there, |tables| tables.answers() >= 50);
            (0..3).for_each(|_| drop(soon(&blocking.started)));
            for _ in 0..47 {
                assert!(blocking.started.is_empty(), "three run");
                blocking.let_go(1);
                soon(&blocking.started);
            }
            blocking.let_go(3);
            calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
        }
    });
}

#[test]
fn waiting_calls_on_one_object_start_in_order() {
    with_all_threads(|vat| {
        let blocking = Blocking::new(&Pool::new());
        let peer = connect(&vat.limits(methods(2)).bootstrap(blocking.object()));
        let calls: Vec<_> = (0..20).map(|n| send(&peer.remote, &n.to_string())).collect();
        // The first two run beside each other.
        let mut first = [soon(&blocking.started), soon(&blocking.started)];
        first.sort();
        assert_eq!(first, ["0", "1"]);
        for n in 2..20 {
            blocking.let_go(1);
            assert_eq!(soon(&blocking.started), n.to_string());
        }
        blocking.let_go(2);
        calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
    });
}

#[test]
fn a_connection_that_uses_up_its_methods_stops_no_other_on_a_shared_object() {
    with_all_threads(|vat| {
        let blocking = Blocking::new(&Pool::new());
        let serving = vat.limits(methods(4)).bootstrap(blocking.object());
        let (greedy, polite) = (connect(&serving), connect(&serving));
        let running: Vec<_> = (0..4).map(|_| send(&greedy.remote, "")).collect();
        (0..4).for_each(|_| drop(soon(&blocking.started)));
        for _ in 0..10 {
            let waiting: Vec<_> = (0..10).map(|_| send(&greedy.remote, "")).collect();
            // What has not reached the object yet waits there when the polite call is done.
            let until = Instant::now() + DEADLINE;
            while !waiting.iter().all(|call| call.promise.is_ready()) {
                assert!(Instant::now() < until);
                assert_eq!(ask(&polite.remote, "quick").unwrap(), "done");
            }
            for call in waiting {
                overloaded(
                    call,
                    "4 calls of this connection run, and calls of others wait for the same object",
                );
            }
        }
        blocking.let_go(4);
        running.into_iter().for_each(|call| drop(answer(call).unwrap()));
        assert_eq!(ask(&greedy.remote, "quick").unwrap(), "done", "it has its methods back");
        // The process's own calls are others' too.
        let own = blocking.object();
        assert_eq!(ask(&own, "quick").unwrap(), "done");
    });
}

#[test]
fn a_flood_of_blocking_calls_with_default_limits_leaves_others_served() {
    let pool = Pool::new();
    let blocking = Blocking::new(&pool);
    let serving = Vat::new().bootstrap(blocking.giver());
    let (greedy, polite) = (connect(&serving), connect(&serving));
    let most = Limits::default().methods;
    let calls: Vec<_> =
        (0..most + 500).map(|_| send(&send(&greedy.remote, "").pipeline.client(), "")).collect();
    (0..most).for_each(|_| drop(soon(&blocking.started)));
    let object = send(&polite.remote, "").pipeline.client();
    assert_eq!(ask(&object, "quick").unwrap(), "done");
    assert!(pool.threads() <= most + 8, "{pool:?}");
    blocking.let_go(calls.len());
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
}

#[test]
fn a_pool_that_is_full_still_serves_a_few_calls_of_each_connection() {
    with_all_threads(|vat| {
        let blocking = Blocking::new(&Pool::with_call_limit(10));
        let serving = vat.limits(methods(100)).bootstrap(blocking.giver());
        let peers = [(); 3].map(|()| connect(&serving));
        let flood = |peer: &Peer, calls: usize| -> Vec<_> {
            (0..calls).map(|_| send(&send(&peer.remote, "").pipeline.client(), "")).collect()
        };
        let mut calls = flood(&peers[0], 30);
        (0..10).for_each(|_| drop(soon(&blocking.started)));
        for peer in &peers[1..] {
            calls.extend(flood(peer, 30));
            (0..8).for_each(|_| drop(soon(&blocking.started)));
        }
        until(&peers[2].there, |tables| tables.answers() >= 30);
        assert!(blocking.started.is_empty());
        blocking.let_go(calls.len());
        calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
    });
}

/// The peer's method calls back, and the method here calls the peer's again, and so on.
#[test]
fn calls_that_nest_through_the_peer_are_refused_where_no_method_is_left() {
    with_all_threads(|vat| {
        for most in [1, 2, 5] {
            let back = Arc::new(OnceLock::<Client>::new());
            let theirs = back.clone();
            let here = object_in(&Pool::new(), move |call| {
                call.allow_next();
                let depth: usize = text(call)?.parse().unwrap();
                let next = request(theirs.get().unwrap(), &(depth + 1).to_string());
                answer(next.send()).map(drop)
            });
            let deepest = Arc::new(AtomicUsize::new(0));
            let seen = deepest.clone();
            let introduced = Arc::new(OnceLock::<Client>::new());
            let its = introduced.clone();
            let there = object_in(&Pool::new(), move |call| {
                call.allow_next();
                if its.get().is_none() {
                    its.set(cap(call)?).unwrap();
                    return Ok(());
                }
                let depth = text(call)?;
                seen.fetch_max(depth.parse().unwrap(), Ordering::SeqCst);
                answer(send(its.get().unwrap(), &depth)).map(drop)
            });
            let peer = connect(&vat.clone().limits(methods(most)).bootstrap(there));
            back.set(peer.remote.clone()).unwrap();
            answer(give(&peer.remote, &here)).unwrap();
            overloaded(send(&peer.remote, "1"), &format!("all {most} methods that may run"));
            // Where the next call comes before the method counts as asleep, it is the method that is refused, and that call
            // goes on.
            assert!(deepest.load(Ordering::SeqCst) >= most);
            peer.here.abort(capnp_threads::Exception::failed("the clients know each other"));
        }
    });
}

/// It may be what the waiting method waits for.
#[test]
fn the_last_method_that_is_awake_may_not_wait_while_a_call_waits() {
    with_all_threads(|vat| {
        let pool = Pool::new();
        let (promise, fulfiller) = Client::promise();
        let (start, started) = unbounded();
        let (let_wait, wait) = unbounded::<()>();
        let waits = object_in(&pool, move |call| {
            call.allow_next();
            start.send(text(call)?).unwrap();
            wait.recv().unwrap();
            promise.resolve().map(drop)
        });
        let gives = object_in(Pool::in_place(), move |call| {
            call.results().set_as_capability(Box::new(waits.clone()));
            Ok(())
        });
        let peer = connect(&vat.limits(methods(2)).bootstrap(gives));
        let waits = send(&peer.remote, "").pipeline.client().resolve().unwrap();
        let first = [send(&waits, "first"), send(&waits, "second")];
        (0..2).for_each(|_| drop(soon(&started)));
        let third = send(&waits, "third");
        // What comes after it is answered: so it has reached its object.
        answer(send(&peer.remote, "")).unwrap();
        let_wait.send(()).unwrap();
        let_wait.send(()).unwrap();
        // One of the two goes on to wait. The other may not, and makes room for the third.
        assert_eq!(soon(&started), "third");
        fulfiller.fulfill(object_in(&pool, |_| Ok(())));
        let_wait.send(()).unwrap();
        let outcomes = first.map(answer);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let refused = outcomes.into_iter().find(Result::is_err).unwrap();
        assert_eq!(failure(refused).kind(), ExceptionKind::Overloaded);
        answer(third).unwrap();
    });
}

#[test]
fn a_waiting_call_that_is_canceled_keeps_no_method_from_waiting() {
    with_all_threads(|vat| {
        let pool = Pool::new();
        let (promise, fulfiller) = Client::promise();
        let (start, started) = unbounded();
        let (let_wait, wait) = unbounded::<()>();
        let waits = object_in(&pool, move |call| {
            call.allow_next();
            start.send(()).unwrap();
            wait.recv().unwrap();
            promise.resolve().map(drop)
        });
        let gives = object_in(Pool::in_place(), move |call| {
            call.results().set_as_capability(Box::new(waits.clone()));
            Ok(())
        });
        let peer = connect(&vat.limits(methods(1)).bootstrap(gives));
        let waits = send(&peer.remote, "").pipeline.client().resolve().unwrap();
        let running = send(&waits, "");
        soon(&started);
        // A promise in its params may be what it is canceled for, so it leaves its place in the mailbox.
        let (pending, _keep) = Client::promise();
        let canceled = give(&waits, &pending);
        answer(send(&peer.remote, "")).unwrap();
        drop(canceled);
        until(&peer.there, |tables| tables.answers() == 1);
        let_wait.send(()).unwrap();
        let until = Instant::now() + DEADLINE;
        while !format!("{pool:?}").contains("1 asleep") && !running.promise.is_ready() {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        fulfiller.fulfill(object_in(&pool, |_| Ok(())));
        answer(running).expect("nothing waits for its permit");
    });
}

#[test]
fn nested_calls_of_objects_here_need_no_permit() {
    let pool = Pool::new();
    let bottom = object_in(&pool, |call| Ok(call.results().set_as("the end")?));
    let top = (0..50).fold(bottom, |next, _| {
        object_in(&pool, move |call| {
            let answer = ask(&next, "")?;
            Ok(call.results().set_as(&*answer)?)
        })
    });
    with_all_threads(|vat| {
        let peer = connect(&vat.limits(methods(1)).bootstrap(top.clone()));
        assert_eq!(ask(&peer.remote, "").unwrap(), "the end");
    });
}

#[test]
fn waiting_calls_that_are_canceled_or_lose_their_connection_leave_the_object_to_others() {
    with_all_threads(|vat| {
        let blocking = Blocking::new(&Pool::new());
        let serving = vat.limits(methods(1)).bootstrap(blocking.object());
        let (first, second) = (connect(&serving), connect(&serving));
        let running = send(&first.remote, "");
        soon(&blocking.started);
        let canceled: Vec<_> = (0..5).map(|_| send(&first.remote, "canceled")).collect();
        until(&first.there, |tables| tables.answers() == 6);
        drop(canceled);
        until(&first.there, |tables| tables.answers() == 1);
        let waiting = send(&first.remote, "after those");
        blocking.let_go(1);
        answer(running).unwrap();
        assert_eq!(soon(&blocking.started), "after those");
        let lost: Vec<_> = (0..5).map(|_| send(&first.remote, "lost")).collect();
        until(&first.there, |tables| tables.answers() == 6);
        first.there.abort(capnp_threads::Exception::failed("on purpose"));
        for call in lost.into_iter().chain([waiting]) {
            assert_eq!(failure(answer(call)).kind(), ExceptionKind::Disconnected);
        }
        assert_eq!(ask(&second.remote, "quick").unwrap(), "done");
        blocking.let_go(1);
        assert!(blocking.started.is_empty());
    });
}
