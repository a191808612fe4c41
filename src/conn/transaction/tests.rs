//! A panic at each point of each transaction of a conversation: its connection ends in order, and nothing else does.
//!
//! There are some 800 points for each side and thread mode. Every `STRIDE`th is tried, or, if the environment variable
//! `FAULT_STRIDE` is set, every so many: 1 tries them all, in a minute or two.

use std::panic;

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use crate::cap::{Call, Capability, Client, Pool, Request, Server};
use crate::conn::{Connection, Options, Threads};
use crate::error::{Error, ExceptionKind, Result};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{fault, spawn, Arc, Duration, Mutex, OnceLock, Rank, Role};
use crate::transport::Transport;

/// Where a connection's transactions are to panic.
pub(in crate::conn) struct Faults(Mutex<Option<u32>>);

impl Default for Faults {
    fn default() -> Self {
        Faults(Mutex::new(Rank::Queue, None))
    }
}

impl Faults {
    /// After so many points from now on.
    fn after(&self, points: u32) {
        *self.0.lock() = Some(points);
    }

    fn left(&self) -> Option<u32> {
        *self.0.lock()
    }

    /// A transaction begins, and ends when the result is dropped. Both are points.
    pub(in crate::conn) fn enter(&self) -> impl Drop + '_ {
        struct Entered<'a>(&'a Faults);
        impl Drop for Entered<'_> {
            fn drop(&mut self) {
                *self.0 .0.lock() = fault::set(None);
            }
        }
        fault::set(self.left());
        let entered = Entered(self);
        fault::point();
        entered
    }
}

/// Turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interface of all objects here.
const TEST: u64 = 0x7e57;

/// The objects of one run: how many were made, and where each says that it is dropped.
#[derive(Clone)]
struct World {
    pool: Pool,
    made: Arc<AtomicUsize>,
    dropped: Sender<()>,
}

impl World {
    fn node(&self) -> Client {
        self.made.fetch_add(1, Ordering::SeqCst);
        Client::with_pool(Node(self.clone()), &self.pool)
    }
}

/// An object whose methods make each kind of transaction. Most are given a capability, and give it back.
struct Node(World);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.dropped.send(());
    }
}

const NOTHING: u16 = 0;
const GIVE_BACK: u16 = 1;
const CALL: u16 = 2;
const TAIL_CALL: u16 = 3;
const RESOLVE: u16 = 4;
const WAIT: u16 = 5;

impl Server for Node {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let given: Client = call.params().get()?.get_as_capability()?;
        match call.method_id() {
            NOTHING => Ok(()),
            GIVE_BACK => {
                call.results().set_as_capability(Box::new(given));
                call.set_pipeline()
            }
            // What is given may be this very object.
            CALL => {
                call.allow_next();
                drop(request(&given, NOTHING, &given).send().wait()?);
                call.results().set_as_capability(Box::new(given));
                Ok(())
            }
            TAIL_CALL => call.tail_call(request(&given, GIVE_BACK, &self.0.node())),
            // Gives a promise away, which is fulfilled on another thread with what was given.
            RESOLVE => {
                let (promise, fulfiller) = Client::promise();
                call.results().set_as_capability(Box::new(promise));
                let fulfills = spawn("fulfills", Role::User, move || fulfiller.fulfill(given));
                fulfills.map(drop).map_err(|e| Error::failed(e.to_string()))
            }
            WAIT => {
                call.allow_next();
                call.cancellation().wait()
            }
            other => panic!("no such method: {other}"),
        }
    }
}

fn request(client: &Client, method: u16, given: &Client) -> Request {
    let mut request = client.request(TEST, method);
    request.get().set_as_capability(Box::new(given.clone()));
    request
}

/// Calls of each kind. All of them are answered, whatever becomes of the connection.
fn talk(peer: &Client, ours: &World) {
    let mut answers = Vec::new();
    let mut kept = Vec::new();
    let waits = request(peer, WAIT, &ours.node()).send();
    for method in [NOTHING, GIVE_BACK, CALL, TAIL_CALL, RESOLVE] {
        let mine = ours.node();
        let sent = request(peer, method, &mine).send();
        let ahead = sent.pipeline.client();
        answers.push(request(&ahead, NOTHING, &mine).send().into_channel());
        // Nobody wants what this one gives.
        drop(request(&ahead, GIVE_BACK, &mine).send());
        answers.push(sent.into_channel());
        answers.push(request(&ahead, CALL, &ahead).send().into_channel());
        let (tell, resolved) = bounded(1);
        let promise = ahead.clone();
        spawn("resolves", Role::User, move || _ = tell.send(promise.resolve().map(drop))).unwrap();
        kept.push((ahead, resolved));
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let answered =
            answer.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("call {number} is not answered"));
        drop(answered);
    }
    for (_, resolved) in &kept {
        let _ = resolved.recv_timeout(PATIENCE).expect("a promise is resolved");
    }
    // It runs by now, and is canceled.
    drop(waits);
    let given_back = request(peer, GIVE_BACK, &kept[1].0).send();
    drop(kept);
    drop(given_back.wait());
}

/// Waits until a connection has ended, and all its threads.
fn closed(connection: Connection) -> String {
    let (tell, told) = bounded(1);
    spawn("waits", Role::User, move || _ = tell.send(connection.wait_closed())).unwrap();
    let why = told.recv_timeout(PATIENCE).expect("a connection ends").unwrap();
    assert_eq!(why.kind(), ExceptionKind::Disconnected);
    why.to_string()
}

/// Two vats talk, and a transaction of one of them panics at this point, if they come so far. Whether they do.
fn run(threads: Threads, fault_there: bool, point: u32) -> bool {
    let (dropped, drops): (_, Receiver<()>) = unbounded();
    let world = World { pool: Pool::with_limit(8), made: Arc::default(), dropped };
    let (a, b) = Transport::in_memory();
    let options = |bootstrap| Options { bootstrap, threads, ..Options::default() };
    let here = Connection::start(a, options(world.node())).unwrap();
    let there = Connection::start(b, options(world.node())).unwrap();
    let faulty = if fault_there { &there } else { &here };
    faulty.faults().after(point);
    let objects = [here.bootstrap::<Client>(), there.bootstrap::<Client>()];
    objects.iter().for_each(|object| talk(object, &world));
    drop(objects);
    let panicked = faulty.faults().left().is_none();
    if panicked {
        let why = faulty.disconnect_reason().map(|why| why.to_string()).unwrap_or_default();
        assert!(why.contains(fault::PANIC), "{why}");
    } else {
        faulty.close(PATIENCE).unwrap();
    }
    for connection in [here, there] {
        assert!(closed(connection.clone()).contains("the connection has ended"));
        assert!(connection.snapshot().is_empty());
    }
    // Nothing is held any more, and the pool still has threads for others.
    let nothing = request(&world.node(), NOTHING, &Client::null()).send();
    nothing.into_channel().recv_timeout(PATIENCE).unwrap().unwrap();
    for _ in 0..world.made.load(Ordering::SeqCst) {
        drops.recv_timeout(PATIENCE).expect("an object is dropped");
    }
    panicked
}

/// Keeps the panics of this test out of its output.
fn hush() {
    static HUSHED: OnceLock<()> = OnceLock::new();
    HUSHED.get_or_init(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&fault::PANIC) {
                hook(info);
            }
        }));
    });
}

/// A prime, so that over the two sides and modes different points are tried.
const STRIDE: usize = 7;

fn panics_at_each_point(threads: Threads) {
    hush();
    let stride = std::env::var("FAULT_STRIDE").ok().and_then(|set| set.parse().ok()).unwrap_or(STRIDE);
    for fault_there in [false, true] {
        // Which transactions there are differs a little from run to run. So the end is where none has come for a while.
        let mut quiet = 0;
        let points = (0..).step_by(stride).take_while(|point| {
            quiet = if run(threads, fault_there, *point) { 0 } else { quiet + 1 };
            quiet < 8
        });
        assert!(points.count() * stride > 400, "each transaction has points");
    }
}

#[test]
fn a_panic_in_a_transaction_ends_its_connection_in_order() {
    panics_at_each_point(Threads::Lending);
}

#[test]
fn a_panic_in_a_transaction_ends_its_connection_in_order_with_strict_threads() {
    panics_at_each_point(Threads::Strict);
}
