//! The limit on what all connections of the process hold together. It is the process's, so this has a process of its own.

use capnp_threads::transport::Transport;
use capnp_threads::{
    process_memory, set_process_memory, Call, Capability, Client, Connection, Limits, Result, Server, Vat,
};
use crossbeam_channel::{unbounded, Receiver, Sender};

const TEST: u64 = 0x11a1_7511_a175_11a1;

/// Tells that a call has started, and returns when it is let go.
struct Holding(Sender<()>, Receiver<()>);

impl Server for Holding {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        call.allow_next();
        self.0.send(()).unwrap();
        // Also when the test has ended.
        let _ = self.1.recv();
        Ok(())
    }
}

struct User {
    object: Client,
    _ends: [Connection; 2],
}

impl User {
    fn of(object: Client) -> Self {
        let (a, b) = Transport::in_memory();
        let mut limits = Limits::default();
        // However long the test takes.
        limits.room_timeout = None;
        let there = Vat::new().limits(limits).bootstrap(object).over(b).unwrap();
        let here = Vat::new().over(a).unwrap();
        User { object: here.bootstrap::<Client>().resolve().unwrap(), _ends: [here, there] }
    }

    fn call(&self, bytes: usize) -> capnp_threads::RemotePromise {
        let mut request = self.object.request(TEST, 0);
        request.get().initn_as::<capnp::data::Builder<'_>>(bytes as u32);
        request.send()
    }
}

/// With a limit of 6 MB, a connection may hold a third of what is free: two calls of 1 MB are read beside nobody, and a
/// third one when it holds less. Beside it, small calls of another connection are not even late.
#[test]
fn the_largest_user_waits_and_a_small_one_does_not() {
    const MEGABYTE: usize = 1_000_000;
    set_process_memory(6 * MEGABYTE);
    let (start, started) = unbounded();
    let (let_go, wait) = unbounded::<()>();
    let large = User::of(Client::new(Holding(start, wait)));
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(large.call(MEGABYTE));
        started.recv().unwrap();
    }
    calls.extend((0..2).map(|_| large.call(MEGABYTE)));

    let (start, small_started) = unbounded();
    let (small_let_go, wait) = unbounded::<()>();
    let small = User::of(Client::new(Holding(start, wait)));
    drop(small_let_go);
    for _ in 0..100 {
        small.call(1000).wait().unwrap();
        small_started.recv().unwrap();
    }
    assert!(started.is_empty(), "two calls of four are read");
    let memory = process_memory();
    assert!(memory.held > 2 * MEGABYTE && memory.held < memory.limit, "{memory:?}");

    drop(let_go);
    calls.into_iter().for_each(|call| drop(call.wait().unwrap()));
    drop((large, small));
}
