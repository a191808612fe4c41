//! Many calls of one connection on an object that others call too.

use std::sync::{Arc, Mutex};

use capnp_threads::testing::{untraced_pair, Side, Stage};
use capnp_threads::{Capability, Client, Limits, Options, Pool, RemotePromise};
use crossbeam_channel::unbounded;

use crate::support::{answer, limits, object, object_in, send, text, Two};

/// How many calls make a crowd, and how many more of each connection wait in it.
const CROWD: usize = 256;
const PART: usize = 32;

/// An object that notes what it is called with, and connections to it, without threads.
struct Shared {
    pool: Pool,
    log: Arc<Mutex<Vec<String>>>,
    callers: Vec<Caller>,
}

struct Caller {
    sides: [Side; 2],
    remote: Client,
}

impl Caller {
    fn step(&mut self) -> bool {
        let step = |side: &mut Side| Stage::ALL.map(|stage| side.step(stage)).contains(&true);
        let [here, there] = &mut self.sides;
        step(here) | step(there)
    }

    fn send(&self, texts: impl Iterator<Item = String>) -> Vec<RemotePromise> {
        texts.map(|text| send(&self.remote, &text)).collect()
    }
}

impl Shared {
    fn new(callers: usize) -> Self {
        let (pool, log) = (Pool::manual(), Arc::<Mutex<Vec<String>>>::default());
        let noted = log.clone();
        let object = object_in(&pool, move |call| {
            noted.lock().unwrap().push(text(call)?);
            Ok(())
        });
        let caller = |_| {
            let options = |bootstrap: Client, limits| Options::new().bootstrap(bootstrap).limits(limits);
            let many = limits(|l| l.questions = 100_000);
            let sides =
                untraced_pair(options(Client::null(), many), options(object.clone(), Limits::default()));
            let remote = sides[0].connection().bootstrap::<Client>();
            Caller { sides, remote }
        };
        let mut this = Shared { pool, log, callers: (0..callers).map(caller).collect() };
        this.run_without_methods();
        this
    }

    fn run_without_methods(&mut self) {
        while self.callers.iter_mut().fold(false, |any, caller| caller.step() | any) {}
    }

    /// Takes all steps until all is done. What the object was called with, in order.
    fn run(&mut self) -> Vec<String> {
        self.run_without_methods();
        while self.pool.tasks() > 0 {
            self.pool.run_task(0);
            self.run_without_methods();
        }
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn numbers(of: usize) -> impl Iterator<Item = String> {
    (0..of).map(|n| n.to_string())
}

/// A flood goes in no further than a crowd and a part of it, so the call of another connection waits behind no more.
#[test]
fn a_flood_leaves_room_for_others_on_the_same_object() {
    let mut shared = Shared::new(2);
    let flood = shared.callers[0].send(numbers(5000));
    shared.run_without_methods();
    let polite = shared.callers[1].send(["polite".into()].into_iter());
    let log = shared.run();
    assert_eq!(log.iter().position(|text| text == "polite"), Some(CROWD + PART));
    let others: Vec<_> = log.into_iter().filter(|text| text != "polite").collect();
    assert_eq!(others, numbers(5000).collect::<Vec<_>>(), "in order, and none is lost");
    for call in flood.into_iter().chain(polite) {
        call.try_take().expect("it is answered");
    }
}

/// So it is beside many floods, over and over again.
#[test]
fn each_of_many_floods_has_no_more_than_its_part_of_an_object() {
    const FLOODS: usize = 10;
    let mut shared = Shared::new(FLOODS + 1);
    let floods: Vec<_> = (0..FLOODS).map(|n| shared.callers[n].send(numbers(1000))).collect();
    shared.run_without_methods();
    let mut since = 0;
    for round in 0..10 {
        let polite = shared.callers[FLOODS].send(["polite".into()].into_iter());
        shared.run_without_methods();
        let at = loop {
            if let Some(at) = shared.log.lock().unwrap().iter().rposition(|text| text == "polite") {
                if at >= since {
                    break at;
                }
            }
            shared.pool.run_task(0);
            shared.run_without_methods();
        };
        assert!(at - since <= CROWD + FLOODS * PART, "round {round}: {} were before it", at - since);
        since = shared.log.lock().unwrap().len();
        polite.into_iter().for_each(|call| drop(call.try_take().expect("it is answered")));
    }
    shared.run();
    for call in floods.into_iter().flatten() {
        call.try_take().expect("it is answered");
    }
}

/// Canceled calls leave the crowd in their turn, too: nothing is held for ever.
#[test]
fn canceled_calls_leave_the_crowd() {
    let mut shared = Shared::new(1);
    let flood = shared.callers[0].send(numbers(2000));
    shared.run_without_methods();
    drop(flood);
    let last = shared.callers[0].send(["last".into()].into_iter());
    shared.run();
    last.into_iter().for_each(|call| drop(call.try_take().expect("it is answered")));
}

/// The method that keeps the crowd waiting waits itself for a call that comes behind all others, to another object.
#[test]
fn call_that_a_crowd_waits_for_is_served() {
    let (open, opened) = unbounded::<()>();
    let crowded = object(move |_| {
        let _ = opened.recv();
        Ok(())
    });
    let opens = object(move |_| {
        open.send(()).unwrap();
        Ok(())
    });
    let either = object(move |call| {
        let which = if text(call)? == "crowded" { &crowded } else { &opens };
        call.results().set_as_capability(Box::new(which.clone()));
        Ok(())
    });
    let two = Two::in_memory(Limits::default(), Limits::default(), &either);
    let object =
        |name| answer(send(&two.remote, name)).unwrap().get().unwrap().get_as_capability::<Client>().unwrap();
    let (crowded, opens) = (object("crowded"), object("opens"));
    let calls: Vec<_> = (0..1000).map(|n| send(&crowded, &n.to_string())).collect();
    (0..1000).for_each(|_| ask_nothing(&opens));
    calls.into_iter().for_each(|call| drop(answer(call).unwrap()));
}

fn ask_nothing(client: &Client) {
    answer(send(client, "")).unwrap();
}
