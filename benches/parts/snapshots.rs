//! Snapshots of a connection with 100,000 entries in a table, and what they cost its calls. The server keeps 100,000 calls.

use std::sync::Mutex;

use capnp_threads::testing::parts::SharedTables;
use capnp_threads::{
    set_process_memory, Call, Capability, Client, Deferred, Limits, Pool, Result, Server, Threads,
};

use crate::meter::{Part, Run};
use crate::world::{World, CLIENT, SERVER};

/// Pages are not full behind this many calls: each further one is entered beside half a page of others.
const CALLS: usize = 100_016;

const KEPT: u16 = 0;
const ANSWERED: u16 = 1;

pub(crate) const PARTS: &[Part] = &[
    Part::new("100,000 calls: tables taken, under the lock", taken).uncounted(),
    Part::new("100,000 calls: a snapshot, for each entry", snapshot).operations(CALLS as u32).uncounted(),
    Part::new("100,000 calls: one more call", || call(false)).uncounted(),
    Part::new("100,000 calls: one more, tables are shared", || call(true)).uncounted(),
];

/// Keeps some of its calls.
#[derive(Default)]
struct Keeper(Mutex<Vec<Deferred>>);

impl Server for Keeper {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        if call.method_id() == KEPT {
            self.0.lock().expect("nobody panicked").push(call.defer()?);
        }
        Ok(())
    }
}

fn crowded() -> (World, Client, impl Sized) {
    set_process_memory(usize::MAX);
    let mut unlimited = Limits::default();
    unlimited.questions = usize::MAX;
    unlimited.call_words = usize::MAX;
    unlimited.send_bytes = usize::MAX;
    unlimited.answer_bytes = usize::MAX;
    let keeper = Client::with_pool(Keeper::default(), Pool::in_place());
    let mut world = World::with_limits(Threads::Strict, keeper, unlimited);
    let keeper: Client = world.bootstrap();
    let mut calls = Vec::new();
    for n in 0..CALLS {
        calls.push(keeper.request(1, KEPT).send());
        if n % 64 == 0 {
            world.settle();
        }
    }
    world.settle();
    let counts =
        (world.connection(CLIENT).snapshot().questions(), world.connection(SERVER).snapshot().answers());
    assert_eq!(counts, (CALLS, CALLS));
    (world, keeper, calls)
}

fn taken() -> Run {
    let (world, keeper, calls) = crowded();
    Box::new(move |meter| {
        let _held = (&keeper, &calls);
        let tables = meter.measure(|| SharedTables::of(world.connection(CLIENT)));
        drop(tables);
    })
}

fn snapshot() -> Run {
    let (world, keeper, calls) = crowded();
    Box::new(move |meter| {
        let _held = (&keeper, &calls);
        let snapshot = meter.measure(|| world.connection(CLIENT).snapshot());
        assert_eq!(snapshot.questions(), CALLS);
    })
}

fn call(shared: bool) -> Run {
    let (mut world, keeper, calls) = crowded();
    Box::new(move |meter| {
        let _held = &calls;
        let tables = [CLIENT, SERVER].map(|side| shared.then(|| SharedTables::of(world.connection(side))));
        let call = meter.measure(|| {
            let call = keeper.request(1, ANSWERED).send();
            world.settle();
            call
        });
        drop((tables, call));
        world.settle();
    })
}
