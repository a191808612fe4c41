//! What each stage does with messages of each kind: a transaction, mostly, and what is around it.

use std::sync::{Arc, Mutex};

use capnp_threads::testing::{record, Stage};
use capnp_threads::{Call, Client, ClientFulfiller, Pool, Result, Server, Threads};

use crate::generated::bench_capnp::bench;
use crate::meter::{Meter, Part, Run};
use crate::world::{echo, object, taken, World, CLIENT, SERVER};

/// How many messages are handled one after the other.
const BATCH: u32 = 64;

pub(crate) const PARTS: &[Part] = &[
    part("call: made", || echoes(None)),
    part("call: sent", || echoes(Some((CLIENT, Stage::Send)))),
    part("call: received", || echoes(Some((SERVER, Stage::Receive)))),
    part("call: handled", || echoes(Some((SERVER, Stage::Coordinator)))),
    part("call: served and answered", || echoes(Some((SERVER, Stage::Callback)))),
    part("return: sent", || echoes(Some((SERVER, Stage::Send)))),
    part("return: received", || echoes(Some((CLIENT, Stage::Receive)))),
    part("return: handled", || echoes(Some((CLIENT, Stage::Coordinator)))),
    part("return: told to the caller", || echoes(Some((CLIENT, Stage::Callback)))),
    part("finish: handled", || finishes((SERVER, Stage::Coordinator))),
    part("release: made", || releases((CLIENT, Stage::Callback))),
    part("release: handled", || releases((SERVER, Stage::Coordinator))),
    part("resolve: made", || resolves((SERVER, Stage::Callback))),
    part("resolve: handled", || resolves((CLIENT, Stage::Coordinator))),
];

const fn part(name: &'static str, make: fn() -> Run) -> Part {
    Part::new(name, make).operations(BATCH)
}

/// A stage of one of the vats.
type At = (usize, Stage);

/// From a vat's stages to the other's, in the order in which messages pass them.
fn way(from: usize, to: usize) -> [At; 4] {
    [(from, Stage::Send), (to, Stage::Receive), (to, Stage::Coordinator), (to, Stage::Callback)]
}

/// Takes the steps of these stages, one stage after the other, and measures those of one.
fn pass(world: &mut World, stages: impl IntoIterator<Item = At>, measured: Option<At>, meter: &mut Meter) {
    for (side, stage) in stages {
        match measured == Some((side, stage)) {
            true => assert!(meter.measure(|| world.steps(side, stage)), "there was nothing to measure"),
            false => drop(world.steps(side, stage)),
        }
    }
}

/// Calls, of which each stage passes all before the next begins. Measures that stage, or else the making.
fn echoes(measured: Option<At>) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let requests: Vec<_> = (0..BATCH).map(|_| echo(&bench)).collect();
        let mut calls = Vec::with_capacity(requests.len());
        let make = || calls.extend(requests.into_iter().map(|request| request.send()));
        match measured {
            None => meter.measure(make),
            Some(_) => make(),
        }
        pass(&mut world, way(CLIENT, SERVER).into_iter().chain(way(SERVER, CLIENT)), measured, meter);
        calls.into_iter().for_each(|call| drop(taken(call)));
        world.settle();
    })
}

/// Calls that give capabilities: their Finishes go when their callers have been told.
fn finishes(measured: At) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let calls: Vec<_> = (0..BATCH).map(|_| bench.next()).collect();
        pass(&mut world, way(CLIENT, SERVER).into_iter().chain(way(SERVER, CLIENT)), None, meter);
        pass(&mut world, way(CLIENT, SERVER), Some(measured), meter);
        drop(calls);
        world.settle();
    })
}

/// Capabilities that are dropped after those Finishes.
fn releases(measured: At) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let calls: Vec<_> = (0..BATCH).map(|_| bench.next()).collect();
        world.settle();
        calls.into_iter().for_each(|call| drop(taken(call)));
        let stages = [(CLIENT, Stage::Callback)].into_iter().chain(way(CLIENT, SERVER));
        pass(&mut world, stages, Some(measured), meter);
        world.settle();
    })
}

/// Promises of the server's that the client has, and that are resolved to new objects.
fn resolves(measured: At) -> Run {
    let fulfillers = Arc::new(Mutex::new(Vec::new()));
    let promises = Client::with_pool(Promises(fulfillers.clone()), Pool::in_place());
    let mut world = World::new(Threads::Strict, promises);
    let promises: Client = world.bootstrap();
    Box::new(move |meter| {
        let calls: Vec<_> = (0..BATCH).map(|_| promises.request(1, 1).send()).collect();
        world.settle();
        let held: Vec<_> =
            calls.into_iter().map(|call| record::read(taken(call).get().expect("results"))).collect();
        world.settle();
        let fulfillers = std::mem::take(&mut *fulfillers.lock().expect("nobody panicked"));
        fulfillers.into_iter().for_each(|fulfiller: ClientFulfiller| fulfiller.fulfill(object().into()));
        let stages = [(SERVER, Stage::Callback)].into_iter().chain(way(SERVER, CLIENT));
        pass(&mut world, stages, Some(measured), meter);
        drop(held);
        world.settle();
    })
}

/// Gives a new promise for each call.
struct Promises(Arc<Mutex<Vec<ClientFulfiller>>>);

impl Server for Promises {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let (promise, fulfiller) = Client::promise();
        record::write(call.results(), 0, &[promise]);
        self.0.lock().expect("nobody panicked").push(fulfiller);
        Ok(())
    }
}
