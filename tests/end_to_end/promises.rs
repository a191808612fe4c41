//! Promise clients, and what clients are: equal or not, null, broken, resolved, and the server behind them.

use std::sync::Arc;

use capnp_threads::{
    Call, Capability, Client, Exception, ExceptionKind, LocalServer, Pool, Result, Server, WeakClient,
};
use crossbeam_channel::{unbounded, Sender};

use crate::support::wires::{Two, Wire};
use crate::support::{
    ask, cap, echo, exchange, given_back, object, reply_cap, said, send, text, why, with_cap, Soon,
};

/// An object that collects texts, and what it got.
fn collecting() -> (Client, crossbeam_channel::Receiver<String>) {
    let (put, got) = unbounded();
    let object = object(move |call| {
        put.send(text(call)?).unwrap();
        Ok(())
    });
    (object, got)
}

/// Returns the capability that it is called with.
fn identity() -> Client {
    object(|call| {
        let given = cap(call)?;
        reply_cap(call, &given);
        Ok(())
    })
}

/// A promise as it is, and one that has come back from a peer whom it was sent to.
fn promises(test: impl Fn(&Client)) {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &identity());
        let remote = two.here.bootstrap::<Client>();
        test(&remote);
        drop(remote);
        two.both_empty();
    }
}

#[test]
fn calls_wait_in_a_promise_and_keep_their_order() {
    promises(|remote| {
        let (promised, fulfiller) = Client::promise();
        let (object, got) = collecting();
        let round = exchange(remote, 0, &promised).unwrap();
        assert!(promised.is_promise());
        let mut answers: Vec<_> = (0..10).map(|n| send(&promised, 0, &n.to_string())).collect();
        fulfiller.fulfill(object);
        answers.extend((10..20).map(|n| send(&promised, 0, &n.to_string())));
        answers.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        assert_eq!(got.try_iter().collect::<Vec<_>>(), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(round.resolve().unwrap() == promised.resolve().unwrap());
    });
}

/// The peer calls a promise of ours: its calls wait here.
#[test]
fn calls_of_a_peer_wait_in_a_promise_until_it_is_fulfilled() {
    let calling = object(|call: &mut Call| {
        let promised = cap(call)?;
        let first = send(&promised, 0, "first");
        let second = send(&promised, 0, "second");
        first.wait()?;
        second.wait().map(drop)
    });
    for wire in Wire::ALL {
        let two = Two::offering(wire, &calling);
        let (promised, fulfiller) = Client::promise();
        let answer = with_cap(&two.here.bootstrap::<Client>(), 0, &promised).send();
        let (object, got) = collecting();
        assert!(crate::support::wires::reaches(&two.here, |tables| tables.answers() == 2));
        fulfiller.fulfill(object);
        answer.soon().unwrap();
        assert_eq!(got.try_iter().collect::<Vec<_>>(), ["first", "second"]);
        drop(promised);
        two.both_empty();
    }
}

#[test]
fn a_promise_that_is_rejected_or_dropped_is_broken() {
    promises(|remote| {
        let ends = [
            (Some(Exception::overloaded("not now")), "not now", ExceptionKind::Overloaded),
            (None, "dropped by the side that was to fulfill it", ExceptionKind::Failed),
        ];
        for (rejected, reason, kind) in ends {
            let (promised, fulfiller) = Client::promise();
            let round = exchange(remote, 0, &promised).unwrap();
            let waiting = [send(&promised, 0, ""), send(&round, 0, "")];
            match rejected {
                Some(why) => fulfiller.reject(why),
                None => drop(fulfiller),
            }
            for waiting in waiting {
                let error = waiting.soon().unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(reason), "{error}");
            }
            for broken in [&promised, &round] {
                assert!(why(broken.resolve()).contains(reason));
                assert!(broken.broken_reason().unwrap().reason().contains(reason));
                assert!(why(ask(broken, 0, "")).contains(reason));
                assert!(!broken.is_promise() && !broken.is_null());
            }
        }
    });
}

#[test]
fn a_promise_of_null_is_null() {
    promises(|remote| {
        let (promised, fulfiller) = Client::promise();
        let round = exchange(remote, 0, &promised).unwrap();
        let waiting = send(&promised, 0, "");
        fulfiller.fulfill(Client::null());
        assert!(why(waiting.soon()).contains("null"));
        for null in [&promised, &round] {
            assert!(null.resolve().unwrap().is_null() && null.is_null());
        }
    });
}

/// Promises that are each other, themselves, or lead in a circle through the peer: broken, and no wait hangs.
#[test]
fn promises_in_a_circle_are_broken() {
    let (promised, fulfiller) = Client::promise();
    let waiting = send(&promised, 0, "");
    fulfiller.fulfill(promised.clone());
    assert!(why(waiting.soon()).contains("itself"));
    let (one, to_one) = Client::promise();
    let (other, to_other) = Client::promise();
    let waiting = [send(&one, 0, ""), send(&other, 0, "")];
    to_one.fulfill(other.clone());
    to_other.fulfill(one.clone());
    for waiting in waiting {
        assert!(waiting.soon().is_err());
    }
    assert!(one.resolve().is_err() && other.resolve().is_err());
    promises(|remote| {
        let (promised, fulfiller) = Client::promise();
        let round = exchange(remote, 0, &promised).unwrap();
        let waiting = [send(&promised, 0, ""), send(&round, 0, "")];
        fulfiller.fulfill(round.clone());
        for waiting in waiting {
            assert!(waiting.soon().is_err());
        }
        assert!(promised.resolve().is_err());
    });
}

/// Promises that lead to promises, fulfilled from the last to the first, and the other way round.
#[test]
fn chain_of_promises_fulfilled_from_either_end_leads_to_its_end() {
    for forwards in [true, false] {
        promises(|remote| {
            let (clients, mut fulfillers): (Vec<_>, Vec<_>) = (0..20).map(|_| Client::promise()).unzip();
            let rounds: Vec<_> = clients.iter().map(|c| exchange(remote, 0, c).unwrap()).collect();
            let waiting: Vec<_> = clients.iter().chain(&rounds).map(|c| send(c, 0, "waited")).collect();
            let mut targets: Vec<Client> = clients[1..].to_vec();
            let last = echo();
            targets.push(last.clone());
            if !forwards {
                targets.reverse();
                fulfillers.reverse();
            }
            for (fulfiller, target) in fulfillers.into_iter().zip(targets) {
                fulfiller.fulfill(target);
            }
            for waiting in waiting {
                assert_eq!(said(&waiting.soon().unwrap()), "waited");
            }
            for client in clients.iter().chain(&rounds) {
                assert!(client.resolve().unwrap() == last);
            }
        });
    }
}

/// A promise is fulfilled with a capability of another connection's, and of the one that holds it.
#[test]
fn promise_fulfilled_with_a_remote_object_equals_that() {
    for wire in Wire::ALL {
        let far = Two::offering(wire, &echo());
        let near = Two::offering(wire, &identity());
        let remote = near.here.bootstrap::<Client>();
        for target in [far.here.bootstrap::<Client>(), exchange(&remote, 0, &remote).unwrap()] {
            let (promised, fulfiller) = Client::promise();
            let round = exchange(&remote, 0, &promised).unwrap();
            fulfiller.fulfill(target.clone());
            assert!(promised.resolve().unwrap() == target.resolve().unwrap());
            assert!(round.resolve().is_ok());
        }
        drop(remote);
        near.both_empty();
        far.both_empty();
    }
}

/// Waiting for a promise is over at its end, on however many threads.
#[test]
fn fulfilled_promise_ends_the_waits_of_many_threads() {
    promises(|remote| {
        let (promised, fulfiller) = Client::promise();
        let round = exchange(remote, 0, &promised).unwrap();
        let object = echo();
        std::thread::scope(|scope| {
            let waiters: Vec<_> =
                [&promised, &round].repeat(5).into_iter().map(|c| scope.spawn(|| c.resolve())).collect();
            fulfiller.fulfill(object.clone());
            for waiter in waiters {
                assert!(waiter.join().unwrap().unwrap() == object);
            }
        });
    });
}

/// Calls by many threads while the promise is fulfilled: each thread's calls arrive in its order.
#[test]
fn promise_fulfilled_while_many_threads_call_keeps_each_threads_order() {
    for _ in 0..20 {
        let (promised, fulfiller) = Client::promise();
        let (object, got) = collecting();
        let start = std::sync::Barrier::new(5);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (promised, start) = (&promised, &start);
                scope.spawn(move || {
                    start.wait();
                    let sent: Vec<_> = (0..50).map(|n| send(promised, 0, &format!("{thread} {n}"))).collect();
                    sent.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
                });
            }
            start.wait();
            fulfiller.fulfill(object);
        });
        let mut next = [0; 4];
        for said in got.try_iter() {
            let (thread, n) = said.split_once(' ').unwrap();
            let thread: usize = thread.parse().unwrap();
            assert_eq!(n, next[thread].to_string());
            next[thread] += 1;
        }
        assert_eq!(next, [50; 4]);
    }
}

#[test]
fn null_and_broken_clients_fail_calls_and_are_passed_on_as_they_are() {
    let null = Client::null();
    assert!(null.is_null() && !null.is_promise() && null == Client::default());
    assert!(null.broken_reason().is_none() && null.resolve().unwrap().is_null());
    assert!(why(ask(&null, 0, "")).contains("null"));
    assert!(why(ask(&send(&null, 0, "").pipeline.client(), 0, "")).contains("null"));
    let broken = Client::broken(Exception::overloaded("broken on purpose"));
    assert!(!broken.is_null() && !broken.is_promise() && broken != null);
    assert!(why(ask(&broken, 0, "")).contains("on purpose"));
    assert!(why(broken.resolve()).contains("on purpose"));
    promises(|remote| {
        assert!(exchange(remote, 0, &null).unwrap().is_null());
        let round = exchange(remote, 0, &broken).unwrap();
        let error = ask(&round, 0, "").unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("on purpose"), "{error}");
    });
}

#[test]
fn clients_of_one_object_are_equal() {
    let (one, other) = (echo(), echo());
    assert!(one == one.clone() && one != other && one != Client::null());
    let (promised, fulfiller) = Client::promise();
    assert!(promised == promised.clone() && promised != one);
    fulfiller.fulfill(one.clone());
    assert!(promised == one && promised != other);
    promises(|remote| {
        let theirs = remote.resolve().unwrap();
        assert!(theirs == remote.resolve().unwrap());
        assert!(theirs != one);
        assert!(exchange(remote, 0, &one).unwrap().resolve().unwrap() == one);
        assert!(exchange(remote, 0, &theirs).unwrap().resolve().unwrap() == theirs);
        let pipelined = with_cap(remote, 0, &one).send();
        let ahead = pipelined.pipeline.client();
        let settled = given_back(&pipelined.soon().unwrap());
        assert!(ahead == settled && ahead == one);
    });
}

struct Named(&'static str);

impl Server for Named {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        crate::support::reply(call, self.0)
    }
}

/// The value behind a client can be had in its own vat, however the client came by, and nowhere else.
#[test]
fn server_behind_a_client_is_found_in_its_own_vat_only() {
    let named = Client::new(Named("the value"));
    let found: Arc<Named> = named.wait_local_server().unwrap().unwrap();
    assert_eq!(found.0, "the value");
    assert!(echo().wait_local_server::<Named>().unwrap().is_none());
    assert!(Client::null().wait_local_server::<Named>().unwrap().is_none());
    let (promised, fulfiller) = Client::promise();
    assert!(matches!(promised.try_local_server::<Named>(), LocalServer::NotYet));
    assert!(promised.local_server::<Named>().is_none());
    fulfiller.fulfill(named.clone());
    assert!(Arc::ptr_eq(&promised.try_local_server::<Named>().here().unwrap(), &found));
    assert!(Arc::ptr_eq(&promised.local_server::<Named>().unwrap(), &found));
    assert!(Arc::ptr_eq(&promised.wait_local_server::<Named>().unwrap().unwrap(), &found));
    promises(|remote| {
        let round = exchange(remote, 0, &named).unwrap().resolve().unwrap();
        assert!(Arc::ptr_eq(&round.wait_local_server::<Named>().unwrap().unwrap(), &found));
        assert_eq!(ask(&round, 0, "").unwrap(), "the value");
        let remote = remote.resolve().unwrap();
        assert!(remote.wait_local_server::<Named>().unwrap().is_none());
        assert!(matches!(remote.try_local_server::<Named>(), LocalServer::Elsewhere));
    });
}

/// An object that is had back through a pipeline is found whether or not the answer has come.
#[test]
fn the_server_behind_a_promise_is_waited_for() {
    let named = Client::new(Named("the value"));
    let found: Arc<Named> = named.wait_local_server().unwrap().unwrap();
    promises(|remote| {
        for _ in 0..50 {
            let ahead = with_cap(remote, 0, &named).send().pipeline.client();
            assert!(Arc::ptr_eq(&ahead.wait_local_server::<Named>().unwrap().unwrap(), &found));
            assert!(ahead.wait_local_server::<String>().unwrap().is_none());
            // Now it is known.
            assert!(Arc::ptr_eq(&ahead.try_local_server::<Named>().here().unwrap(), &found));
        }
    });
    let (promised, fulfiller) = Client::promise();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| promised.wait_local_server::<Named>());
        fulfiller.fulfill(named.clone());
        assert!(Arc::ptr_eq(&waiting.join().unwrap().unwrap().unwrap(), &found));
    });
    let (promised, fulfiller) = Client::promise();
    fulfiller.reject(Exception::failed("torn up"));
    assert!(why(promised.wait_local_server::<Named>().map(|_| ())).contains("torn up"));
    assert!(matches!(promised.try_local_server::<Named>(), LocalServer::Elsewhere));
}

/// Where nothing may wait, only what is known can be had.
#[test]
fn waiting_for_the_server_behind_a_promise_is_refused_in_a_callback() {
    let (promised, _fulfiller) = Client::promise();
    let two = Two::offering(Wire::Tcp, &echo());
    let (put, got) = unbounded();
    send(&two.here.bootstrap::<Client>(), 0, "").on_ready(move |_| {
        let refused = why(promised.wait_local_server::<Named>().map(|_| ()));
        put.send((refused, matches!(promised.try_local_server::<Named>(), LocalServer::NotYet))).unwrap();
    });
    let (refused, not_yet) = (&got).soon();
    assert!(refused.contains("own thread") && not_yet, "{refused}");
}

/// An object that knows itself, and hands itself out.
struct Knowing(WeakClient, Sender<()>);

impl Server for Knowing {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let this = match call.method_id() {
            0 => call.this_client(),
            _ => self.0.upgrade().expect("it is being called"),
        };
        crate::support::reply_cap(call, &this);
        Ok(())
    }
}

impl Drop for Knowing {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
    }
}

#[test]
fn an_object_hands_itself_out_and_is_dropped_all_the_same() {
    for pool in [Pool::global(), Pool::in_place()] {
        for far in [false, true] {
            let (drops, dropped) = unbounded();
            let mut outside = None;
            let object = Client::with_pool_cyclic(pool, |this| {
                assert!(this.upgrade().is_none(), "it is not there yet");
                outside = Some(this.clone());
                Knowing(this.clone(), drops)
            });
            let outside = outside.unwrap();
            assert!(outside.upgrade().unwrap() == object);
            let two = far.then(|| Two::offering(Wire::Tcp, &object));
            let client = two.as_ref().map_or(object, |two| two.here.bootstrap());
            for method in [0, 1] {
                let itself = given_back(&send(&client, method, "").soon().unwrap());
                assert!(itself.resolve().unwrap() == client.resolve().unwrap());
            }
            assert!(dropped.is_empty());
            drop(client);
            drop(two);
            (&dropped).soon();
            assert!(outside.upgrade().is_none());
        }
    }
}

/// The value outlives its object while a handle to it is held, and the object outlives the handles while a client
/// is held.
#[test]
fn server_and_its_clients_outlive_each_other() {
    let named = Client::new(Named("the value"));
    let found: Arc<Named> = named.wait_local_server().unwrap().unwrap();
    let weak = Arc::downgrade(&found);
    drop(named);
    assert_eq!(found.0, "the value");
    drop(found);
    assert!(weak.upgrade().is_none());
}
