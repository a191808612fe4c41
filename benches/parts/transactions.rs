//! What each stage does with messages of each kind: a transaction, mostly, and what is around it.

use std::sync::{Arc, Mutex};

use capnp_threads::testing::{record, Stage};
use capnp_threads::{Call, Capability, Client, ClientFulfiller, Pool, Result, Server, Threads};

use crate::generated::bench_capnp::bench;
use crate::meter::{Meter, Part, Run};
use crate::world::{echo, object, taken, World, CLIENT, SERVER};

pub(crate) const PARTS: &[Part] = &[
    Part::new("call: made", || echoes(None)),
    Part::new("call: sent", || echoes(Some((CLIENT, Stage::Send)))),
    Part::new("call: received", || echoes(Some((SERVER, Stage::Receive)))),
    Part::new("call: handled", || echoes(Some((SERVER, Stage::Coordinator)))),
    Part::new("call: served and answered", || echoes(Some((SERVER, Stage::Callback)))),
    Part::new("return: sent", || echoes(Some((SERVER, Stage::Send)))),
    Part::new("return: received", || echoes(Some((CLIENT, Stage::Receive)))),
    Part::new("return: handled", || echoes(Some((CLIENT, Stage::Coordinator)))),
    Part::new("return: told to the caller", || echoes(Some((CLIENT, Stage::Callback)))),
    Part::new("finish: handled", || finishes((SERVER, Stage::Coordinator))),
    Part::new("release: made", || releases((CLIENT, Stage::Callback))),
    Part::new("release: handled", || releases((SERVER, Stage::Coordinator))),
    Part::new("resolve: made", || resolves((SERVER, Stage::Callback))),
    Part::new("resolve: handled", || resolves((CLIENT, Stage::Coordinator))),
];

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

/// A call that passes one stage after the other. Measures one of them, or else its making.
fn echoes(measured: Option<At>) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let request = echo(&bench);
        let call = match measured {
            None => meter.measure(|| request.send()),
            Some(_) => request.send(),
        };
        pass(&mut world, way(CLIENT, SERVER).into_iter().chain(way(SERVER, CLIENT)), measured, meter);
        taken(call);
        world.settle();
    })
}

/// A call that gives a capability: its Finish goes when its caller has been told.
fn finishes(measured: At) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let call = bench.next();
        pass(&mut world, way(CLIENT, SERVER).into_iter().chain(way(SERVER, CLIENT)), None, meter);
        pass(&mut world, way(CLIENT, SERVER), Some(measured), meter);
        drop(call);
        world.settle();
    })
}

/// A capability that is dropped after that Finish.
fn releases(measured: At) -> Run {
    let mut world = World::new(Threads::Strict, object().into());
    let bench: bench::Client = world.bootstrap();
    Box::new(move |meter| {
        let call = bench.next();
        world.settle();
        taken(call);
        let stages = [(CLIENT, Stage::Callback)].into_iter().chain(way(CLIENT, SERVER));
        pass(&mut world, stages, Some(measured), meter);
        world.settle();
    })
}

/// A promise of the server's that the client has, and that is resolved to a new object.
fn resolves(measured: At) -> Run {
    let fulfiller = Arc::new(Mutex::new(None));
    let promises = Client::with_pool(Promises(fulfiller.clone()), Pool::in_place());
    let mut world = World::new(Threads::Strict, promises);
    let promises: Client = world.bootstrap();
    Box::new(move |meter| {
        let call = promises.request(1, 1).send();
        world.settle();
        let held = record::read(taken(call).get().expect("results"));
        world.settle();
        let fulfiller = fulfiller.lock().expect("nobody panicked").take();
        fulfiller.expect("a promise was made").fulfill(object().into());
        let stages = [(SERVER, Stage::Callback)].into_iter().chain(way(SERVER, CLIENT));
        pass(&mut world, stages, Some(measured), meter);
        drop(held);
        world.settle();
    })
}

/// Gives a new promise for each call.
struct Promises(Arc<Mutex<Option<ClientFulfiller>>>);

impl Server for Promises {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let (promise, fulfiller) = Client::promise();
        record::write(call.results(), 0, &[promise]);
        *self.0.lock().expect("nobody panicked") = Some(fulfiller);
        Ok(())
    }
}
