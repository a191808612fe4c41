//! Objects, and other things of users', whose `Drop` panics. The panic ends that `Drop` alone: connections go on, or get to
//! their end, threads of pools go on, and a thread that unwinds already does not abort the process.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use capnp_threads::transport::Frame;
use capnp_threads::transport::{MessageSink, MessageSource, Outbound, Shutdown, Sink, Source, Transport};
use capnp_threads::{
    Capability, Client, Connection, Exception, ExceptionKind, Limits, Pool, Promise, Threads, TransportError,
    Vat,
};
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use crate::support::wires::{reaches, tcp_pair, Two, Wire};
use crate::support::*;

const MODES: [Threads; 2] = [Threads::Lending, Threads::Strict];

/// Tells that it is dropped, and panics.
struct Bomb(Sender<()>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        panic!("a drop panics on purpose");
    }
}

/// A bomb, and what tells when it has gone off.
fn bomb() -> (Bomb, Receiver<()>) {
    let (tell, told) = unbounded();
    (Bomb(tell), told)
}

/// An object that holds a bomb.
fn object_with(pool: &Pool, bomb: Bomb) -> Client {
    let held = server(move |call| {
        let _ = &bomb;
        reply(call, "not yet")
    });
    Client::with_pool(held, pool)
}

/// The pools on which an object may be: threads, one thread, and none.
fn pools() -> [Pool; 3] {
    [Pool::new(), Pool::with_limit(1), Pool::in_place().clone()]
}

/// Two connected vats, of which `there` offers an object that gives a bomb away once, and else answers with an echo.
struct Armed {
    two: Two,
    given: Client,
    gone_off: Receiver<()>,
}

fn armed(threads: Threads, pool: &Pool) -> Armed {
    let (bomb, gone_off) = bomb();
    let bomb = Mutex::new(Some(bomb));
    let objects = pool.clone();
    let offered = server(move |call| match bomb.lock().unwrap().take() {
        Some(bomb) => {
            reply_cap(call, &object_with(&objects, bomb));
            Ok(())
        }
        None => reply(call, "well"),
    });
    let offered = Client::with_pool(offered, pool);
    let vat = Vat::new().threads(threads);
    let two = Two::new(Wire::Tcp, vat.clone(), vat.bootstrap(offered), &Limits::default());
    let given = given_back(&send(&two.here.bootstrap::<Client>(), 0, "").soon().unwrap());
    Armed { two, given, gone_off }
}

/// The connection ends and all waits end with it, although the drop of an object panics meanwhile.
#[test]
fn panicking_drop_at_the_end_of_a_connection_leaves_all_told() {
    for threads in MODES {
        for pool in pools() {
            for how in ["cut", "aborted by the peer", "closed by the peer", "closed", "dropped"] {
                let Armed { two, given, gone_off } = armed(threads, &pool);
                let Two { here, there, cut } = two;
                let (tell, told) = bounded(1);
                there.on_disconnect(move |why| tell.send(why.clone()).unwrap());
                match how {
                    "cut" => cut.cut(),
                    "aborted by the peer" => here.abort(Exception::failed("on purpose")),
                    "closed by the peer" => here.close(Duration::ZERO).unwrap(),
                    "closed" => there.close(Duration::ZERO).unwrap(),
                    _ => drop((here, given)),
                }
                gone_off.soon();
                assert_eq!(told.soon().kind(), ExceptionKind::Disconnected, "{how}");
                assert_eq!(ended(&there).kind(), ExceptionKind::Disconnected, "{how}");
                assert!(there.snapshot().is_empty());
            }
        }
    }
}

/// Waits for the end of a connection.
fn ended(connection: &Connection) -> Exception {
    let (tell, told) = bounded(1);
    let connection = connection.clone();
    thread::spawn(move || tell.send(connection.wait_closed().unwrap()));
    told.soon()
}

/// The bootstrap object's drop panics when the connection that alone held it ends.
#[test]
fn panicking_drop_of_the_bootstrap_object_leaves_the_connection_ended() {
    for threads in MODES {
        let (bomb, gone_off) = bomb();
        let vat = Vat::new().threads(threads);
        let offering = vat.clone().bootstrap(object_with(&Pool::new(), bomb));
        let two = Two::new(Wire::Tcp, vat, offering, &Limits::default());
        assert_eq!(ask(&two.here.bootstrap(), 0, "").unwrap(), "not yet");
        two.cut.cut();
        gone_off.soon();
        ended(&two.there);
    }
}

#[test]
fn panicking_drop_by_a_release_leaves_the_connection_working() {
    for threads in MODES {
        for pool in pools() {
            let Armed { two, given, gone_off } = armed(threads, &pool);
            assert_eq!(ask(&given, 0, "").unwrap(), "not yet");
            drop(given);
            gone_off.soon();
            assert_eq!(ask(&two.here.bootstrap(), 0, "").unwrap(), "well");
            two.both_empty();
        }
    }
}

/// The results hold the object, and the caller does not take it out of them.
#[test]
fn panicking_drop_by_a_finish_leaves_the_connection_working() {
    for threads in MODES {
        for pool in pools() {
            let (bomb, gone_off) = bomb();
            let bomb = Mutex::new(Some(bomb));
            let objects = pool.clone();
            let giving = server(move |call| {
                if let Some(bomb) = bomb.lock().unwrap().take() {
                    reply_cap(call, &object_with(&objects, bomb));
                }
                Ok(())
            });
            let vat = Vat::new().threads(threads);
            let offering = vat.clone().bootstrap(Client::with_pool(giving, &pool));
            let two = Two::new(Wire::Tcp, vat, offering, &Limits::default());
            let remote = two.here.bootstrap::<Client>();
            drop(send(&remote, 0, "").soon().unwrap());
            gone_off.soon();
            send(&remote, 0, "").soon().unwrap();
            drop(remote);
            two.both_empty();
        }
    }
}

/// A listener's place for a connection becomes free again, and it can be closed.
#[test]
fn panicking_drop_leaves_the_listener_working_and_closable() {
    for threads in MODES {
        for dropped in [true, false] {
            let bombs = Arc::new(Mutex::new(Vec::new()));
            let (tell, gone_off) = unbounded();
            let armory = bombs.clone();
            let giving = object(move |call| {
                let bomb: Bomb = armory.lock().unwrap().pop().unwrap();
                reply_cap(call, &object_with(Pool::global(), bomb));
                Ok(())
            });
            let mut limits = Limits::default();
            limits.connections = 1;
            let vat = Vat::new().threads(threads).limits(limits).bootstrap(giving);
            let listener = vat.listen("127.0.0.1:0").unwrap();
            let connect = || {
                bombs.lock().unwrap().push(Bomb(tell.clone()));
                let here = Vat::new().connect(listener.local_addr()).unwrap();
                let given = given_back(&send(&here.bootstrap::<Client>(), 0, "").soon().unwrap());
                (here, given)
            };
            for _ in 0..3 {
                let (here, _given) = connect();
                here.abort(Exception::failed("on purpose"));
                gone_off.soon();
            }
            let (_here, _given) = connect();
            let there = listener.connections().pop().unwrap();
            match dropped {
                true => drop(listener),
                false => listener.close(Duration::ZERO).unwrap(),
            }
            gone_off.soon();
            ended(&there);
        }
    }
}

/// Calls some healthy objects of a pool that may have lost its threads.
fn assert_serves(pool: &Pool) {
    for _ in 0..3 {
        let healthy = Client::with_pool(server(|call| reply(call, "well")), pool);
        assert_eq!(ask(&healthy, 0, "").unwrap(), "well");
    }
}

/// The params that a method ignores are the last that hold the object.
#[test]
fn panicking_drop_in_ignored_params_leaves_the_pools_thread_working() {
    for pool in pools() {
        let ignoring = Client::with_pool(server(|call| reply(call, "")), &pool);
        for _ in 0..3 {
            let (bomb, gone_off) = bomb();
            let request = with_cap(&ignoring, 0, &object_with(&pool, bomb));
            request.send().soon().unwrap();
            gone_off.soon();
            assert_serves(&pool);
        }
        assert!(pool.threads() <= 4, "{pool:?}");
    }
}

/// The params hold an object that came from a peer and goes back to it.
#[test]
fn panicking_drop_in_params_from_a_peer_leaves_the_pools_thread_working() {
    for threads in MODES {
        let pool = Pool::with_limit(1);
        let (bomb, gone_off) = bomb();
        let bomb = Mutex::new(Some(bomb));
        let (go, goes) = bounded::<()>(0);
        let objects = pool.clone();
        let offered = server(move |call| {
            match bomb.lock().unwrap().take() {
                Some(bomb) => reply_cap(call, &object_with(&objects, bomb)),
                None if cap(call).is_ok_and(|cap| !cap.is_null()) => goes.recv().unwrap(),
                None => {}
            }
            Ok(())
        });
        let vat = Vat::new().threads(threads);
        let offering = vat.clone().bootstrap(Client::with_pool(offered, &pool));
        let two = Two::new(Wire::Tcp, vat, offering, &Limits::default());
        let remote = two.here.bootstrap::<Client>();
        let given = given_back(&send(&remote, 0, "").soon().unwrap());
        let ignored = with_cap(&remote, 0, &given).send();
        drop(given);
        // The object is named by the call alone.
        assert!(reaches(&two.there, |tables| tables.exports() == 1 && tables.answers() == 1));
        go.send(()).unwrap();
        ignored.soon().unwrap();
        gone_off.soon();
        assert_serves(&pool);
        assert_eq!(pool.threads(), 1);
        assert!(two.here.is_connected() && two.there.is_connected());
    }
}

/// The object that has answered is dropped by the thread that ran its method.
#[test]
fn panicking_drop_of_the_served_object_leaves_the_pools_thread_working() {
    for pool in [Pool::new(), Pool::with_limit(1)] {
        let (bomb, gone_off) = bomb();
        let (entered, enters) = bounded::<()>(1);
        let (go, goes) = bounded::<()>(1);
        let object = server(move |call| {
            let _ = &bomb;
            entered.send(()).unwrap();
            goes.recv().unwrap();
            reply(call, "done")
        });
        let object = Client::with_pool(object, &pool);
        let sent = send(&object, 0, "");
        enters.soon();
        drop(object);
        go.send(()).unwrap();
        assert_eq!(said(&sent.soon().unwrap()), "done");
        gone_off.soon();
        assert_serves(&pool);
    }
}

/// A method that drops the last client of another object.
#[test]
fn panicking_drop_in_a_method_leaves_the_method_running() {
    for pool in pools() {
        let (bomb, gone_off) = bomb();
        let held = Mutex::new(Some(object_with(&pool, bomb)));
        let dropping = server(move |call| {
            drop(held.lock().unwrap().take());
            reply(call, "dropped")
        });
        assert_eq!(ask(&Client::with_pool(dropping, &pool), 0, "").unwrap(), "dropped");
        gone_off.soon();
        assert_serves(&pool);
    }
}

/// Calls that a pool refuses for want of a thread drop what they hold, and all are answered.
#[test]
fn panicking_drops_in_calls_that_a_pool_refuses_leave_all_answered() {
    let pool = Pool::with_limit(1);
    let (never, fulfiller) = Client::promise();
    let (entered, enters) = bounded::<()>(1);
    let waiting = server(move |call| {
        entered.send(()).unwrap();
        reply(call, &ask(&never, 0, "").unwrap_or_default())
    });
    let waiting = send(&Client::with_pool(waiting, &pool), 0, "");
    enters.soon();
    let until = Instant::now() + DEADLINE;
    while !format!("{pool:?}").contains("1 asleep") {
        assert!(Instant::now() < until, "{pool:?}");
        thread::yield_now();
    }
    let other = Client::with_pool(server(|call| reply(call, "")), &pool);
    for _ in 0..3 {
        let (bomb, gone_off) = bomb();
        let refused = with_cap(&other, 0, &object_with(&pool, bomb)).send();
        gone_off.soon();
        assert!(why(refused.soon()).contains("bounded pool"));
    }
    fulfiller.fulfill(echo());
    waiting.soon().unwrap();
    assert_serves(&pool);
}

/// A user's thread that drops a client, and one that does so while it unwinds.
#[test]
fn panicking_drop_on_an_unwinding_thread_does_not_abort() {
    let (bombs, gone_off): (Vec<_>, Vec<_>) = (0..3).map(|_| bomb()).unzip();
    let clients: Vec<_> = bombs.into_iter().map(|bomb| object_with(Pool::global(), bomb)).collect();
    let unwinding = thread::spawn(move || {
        let _clients = clients;
        panic!("first");
    });
    assert!(unwinding.join().is_err());
    gone_off.iter().for_each(|gone_off| gone_off.soon());
    let (bomb, gone_off) = bomb();
    let client = object_with(Pool::global(), bomb);
    drop(client);
    gone_off.soon();
}

/// A connection that a thread holds alone goes while that thread unwinds.
#[test]
fn panicking_drop_by_an_unwinding_thread_ends_its_connection_in_order() {
    for threads in MODES {
        let Armed { two, given, gone_off } = armed(threads, &Pool::new());
        let Two { here, there, .. } = two;
        let unwinding = thread::spawn(move || {
            let _held = (here, given);
            panic!("first");
        });
        assert!(unwinding.join().is_err());
        gone_off.soon();
        ended(&there);
    }
}

/// Closures that are no longer called, callbacks that panic while they hold clients of such objects, and values
/// that were made of answers.
#[test]
fn panicking_drops_in_closures_and_mapped_values_leave_pools_serving() {
    for pool in pools() {
        // A callback of a cancellation that does not come, beside another one; the call is answered.
        let (first, first_gone_off) = bomb();
        let (second, second_gone_off) = bomb();
        let bombs = Mutex::new(Some([first, second]));
        let watched = server(move |call| {
            for bomb in bombs.lock().unwrap().take().into_iter().flatten() {
                call.cancellation().on_cancel(move || drop(bomb));
            }
            reply(call, "done")
        });
        assert_eq!(ask(&Client::with_pool(watched, &pool), 0, "").unwrap(), "done");
        first_gone_off.soon();
        second_gone_off.soon();
        assert_serves(&pool);

        // A callback that panics, and whose client goes while it unwinds.
        let (bomb_held, gone_off) = bomb();
        let held = object_with(&pool, bomb_held);
        let answering = Client::with_pool(server(|call| reply(call, "")), &pool);
        send(&answering, 0, "").on_ready(move |_| {
            let _held = held;
            panic!("the callback panics too");
        });
        gone_off.soon();
        assert_serves(&pool);

        // What was made of an answer, and nobody takes.
        let (bomb_made, gone_off) = bomb();
        let made: Promise<Bomb> = send(&answering, 0, "").map(move |_| Ok(bomb_made));
        let until = Instant::now() + DEADLINE;
        while !made.is_ready() {
            assert!(Instant::now() < until);
            thread::yield_now();
        }
        drop(made);
        gone_off.soon();
    }
}

/// A panic can carry what panics itself.
#[test]
fn panicking_drop_of_a_panics_payload_leaves_the_pool_serving() {
    for pool in pools() {
        let (bomb, gone_off) = bomb();
        let bomb = Mutex::new(Some(bomb));
        let throwing = Client::with_pool(
            server(move |call| match bomb.lock().unwrap().take() {
                Some(bomb) => std::panic::panic_any(bomb),
                None => reply(call, "well"),
            }),
            &pool,
        );
        assert!(why(send(&throwing, 0, "").soon()).contains("the method panicked"));
        gone_off.soon();
        assert_serves(&pool);
    }
}

/// Errors that a method returns, the cause of which is a user's.
#[test]
fn panicking_drop_of_an_errors_cause_leaves_the_object_serving() {
    #[derive(thiserror::Error)]
    #[error("a cause")]
    struct Cause(#[allow(dead_code)] Bomb);
    impl std::fmt::Debug for Cause {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cause")
        }
    }
    for threads in MODES {
        let (bomb, gone_off) = bomb();
        let bomb = Mutex::new(Some(bomb));
        let failing = object(move |call| match bomb.lock().unwrap().take() {
            Some(bomb) => Err(Exception::failed("caused").with_source(Cause(bomb)).into()),
            None => reply(call, "well"),
        });
        let vat = Vat::new().threads(threads);
        let two = Two::new(Wire::Tcp, vat.clone(), vat.bootstrap(failing), &Limits::default());
        let remote = two.here.bootstrap::<Client>();
        assert!(why(send(&remote, 0, "").soon()).contains("caused"));
        gone_off.soon();
        assert_eq!(ask(&remote, 0, "").unwrap(), "well");
    }
}

/// A transport of a user's, all parts of which panic when they are dropped, as does the end of it.
struct Explosive<T> {
    part: T,
    _bomb: Bomb,
}

impl MessageSink for Explosive<Sink> {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        self.part.send(batch)
    }
}

impl MessageSource for Explosive<Source> {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        self.part.receive()
    }
}

impl Shutdown for Explosive<Box<dyn Shutdown>> {
    fn shutdown(&self) {
        self.part.shutdown();
        panic!("the end panics too");
    }
}

#[test]
fn panicking_drops_of_a_transports_parts_leave_the_connection_ended() {
    for threads in MODES {
        for ended_here in [true, false] {
            let (tell, gone_off) = unbounded();
            let (a, b) = tcp_pair();
            let tcp = |stream| Transport::tcp(stream, &Limits::default()).unwrap();
            let Transport { sink, source, shutdown, peer, .. } = tcp(a);
            let explosive = Transport::new(
                Sink::blocking(Explosive { part: sink, _bomb: Bomb(tell.clone()) }),
                Source::blocking(Explosive { part: source, _bomb: Bomb(tell.clone()) }),
                Explosive { part: shutdown, _bomb: Bomb(tell.clone()) },
                peer.with_identity(Bomb(tell)),
            );
            let vat = Vat::new().threads(threads).bootstrap(echo());
            let (here, there) = (vat.over(explosive).unwrap(), vat.over(tcp(b)).unwrap());
            assert_eq!(ask(&here.bootstrap(), 0, "one").unwrap(), "one");
            assert_eq!(ask(&there.bootstrap(), 0, "other").unwrap(), "other");
            let (tell, told) = bounded(1);
            here.on_disconnect(move |_| tell.send(()).unwrap());
            match ended_here {
                true => here.close(Duration::ZERO).unwrap(),
                false => there.abort(Exception::failed("on purpose")),
            }
            ended(&there);
            ended(&here);
            told.soon();
            drop(here);
            (0..4).for_each(|_| gone_off.soon());
        }
    }
}

/// Callbacks of the end that panic, and one behind them that does not.
#[test]
fn panicking_disconnect_callbacks_leave_later_ones_called() {
    for threads in MODES {
        let Armed { two, gone_off, .. } = armed(threads, &Pool::new());
        let there = two.there.clone();
        let (bomb, callback_gone_off) = bomb();
        let bomb = object_with(Pool::global(), bomb);
        there.on_disconnect(move |_| {
            let _held = bomb;
            panic!("on purpose");
        });
        let (tell, told) = bounded(1);
        there.on_disconnect(move |_| tell.send(()).unwrap());
        two.cut.cut();
        gone_off.soon();
        callback_gone_off.soon();
        told.soon();
        ended(&there);
        // At once, on this thread: it ends the callback alone.
        let at_once = AssertUnwindSafe(|| there.on_disconnect(|_| panic!("on purpose")));
        assert!(catch_unwind(at_once).is_ok());
    }
}

/// The calls that wait in a promise hold objects whose drops panic, and fail together.
#[test]
fn panicking_drops_in_calls_on_a_rejected_promise_leave_all_answered() {
    let (promise, fulfiller) = Client::promise();
    let (sent, gone_off): (Vec<_>, Vec<_>) = (0..5)
        .map(|_| {
            let (bomb, gone_off) = bomb();
            (with_cap(&promise, 0, &object_with(Pool::global(), bomb)).send(), gone_off)
        })
        .unzip();
    fulfiller.reject(Exception::failed("broken"));
    for sent in sent {
        assert!(why(sent.soon()).contains("broken"));
    }
    gone_off.iter().for_each(|gone_off| gone_off.soon());
}
