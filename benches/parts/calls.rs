//! Whole calls, there and back, with both vats and all that is between them on one thread.

use capnp_threads::{Capability, Threads};

use crate::generated::bench_capnp::bench;
use crate::meter::{Part, Run};
use crate::server::{callback, Bench};
use crate::world::{echo, object, taken, World};

/// How many calls are under way at once where more than one is.
const BATCH: u32 = 64;

pub(crate) const PARTS: &[Part] = &[
    Part::new("a call", || calls(1)),
    Part::new("a call, 64 at once", || calls(BATCH)).operations(BATCH),
    Part::new("nine pipelined calls", nine_pipelined),
    Part::new("a capability made and dropped", churn),
    Part::new("a callback", call_back),
    Part::new("a canceled call", canceled),
    Part::new("a call in the vat, in place", in_place),
    Part::new("a call in the vat, by a thread of a pool", by_a_pool).uncounted(),
];

/// Two vats, and the one's client of the other's object.
fn connected() -> (World, bench::Client) {
    let mut world = World::new(Threads::Lending, object().into());
    let bench = world.bootstrap();
    (world, bench)
}

fn calls(batch: u32) -> Run {
    let (mut world, bench) = connected();
    let mut calls = Vec::new();
    Box::new(move |meter| {
        meter.measure(|| {
            calls.extend((0..batch).map(|_| echo(&bench).send()));
            world.settle();
            calls.drain(..).for_each(|call| drop(taken(call)));
        })
    })
}

fn nine_pipelined() -> Run {
    let (mut world, bench) = connected();
    Box::new(move |meter| {
        meter.measure(|| {
            let last = (0..8).fold(bench.clone(), |cap, _| cap.next().pipeline.get().get_next());
            let call = echo(&last).send();
            world.settle();
            taken(call);
            drop(last);
            world.settle();
        })
    })
}

fn churn() -> Run {
    let (mut world, bench) = connected();
    Box::new(move |meter| {
        meter.measure(|| {
            let call = bench.next();
            world.settle();
            taken(call);
            world.settle();
        })
    })
}

fn call_back() -> Run {
    let (mut world, bench) = connected();
    Box::new(move |meter| {
        meter.measure(|| {
            let call = callback(&bench, object(), &[7; 16]);
            world.settle();
            taken(call);
            world.settle();
        })
    })
}

/// The caller loses interest once the call is there.
fn canceled() -> Run {
    let (mut world, bench) = connected();
    Box::new(move |meter| {
        meter.measure(|| {
            let call = bench.hang();
            world.settle();
            drop(call);
            world.settle();
        })
    })
}

fn in_place() -> Run {
    let bench = object();
    Box::new(move |meter| {
        meter.measure(|| {
            taken(echo(&bench).send());
        })
    })
}

fn by_a_pool() -> Run {
    let bench = bench::Client::new(Bench::default());
    Box::new(move |meter| {
        meter.measure(|| {
            echo(&bench).send().wait().expect("it answers");
        })
    })
}
