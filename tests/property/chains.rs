//! Chains of promises through both vats, each fulfilled with the next: directly, or with what the peer gives back.
//! Between the steps calls are made on the first promise and on other references to the chain. Each arrives at the object
//! at the end, once, in the order made on its reference; every reference settles; all tables are empty in the end.
//!
//! A round is made from one number, and is the same each time where the connection's stages are stepped.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use capnp_threads::testing::{record, untraced_pair, Side, Stage};
use capnp_threads::transport::Transport;
use capnp_threads::{
    Call, Capability, Client, ClientFulfiller, Connection, Deferred, Options, Pool, Promise, Response,
    Server, Threads, WaitError,
};

const INTERFACE: u64 = 0xc4a1;
/// Gives back what it is given.
const GIVE: u16 = 0;
/// The same, when the round says so.
const HOLD: u16 = 1;
/// The same, and says ahead what it will give.
const AHEAD: u16 = 2;
/// Tail-calls `GIVE` of the first object that it is given, with the second.
const BACK: u16 = 3;
/// The same, when the round says so.
const HOLD_BACK: u16 = 4;
/// Keeps what it is given, as a reference of its vat.
const KEEP: u16 = 5;
/// Makes a promise, which is the end of the chain then.
const PROMISE: u16 = 6;
/// Gives the object of its vat that may be at the end of the chain.
const SINK: u16 = 7;
/// How long a threaded round may take. Never part of what is tested.
const DEADLINE: Duration = Duration::from_secs(60);

/// The numbers of one round.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A reference to the chain.
struct Reference {
    side: usize,
    client: Option<Client>,
    sent: u64,
    /// What the object at the end has seen.
    arrived: u64,
    /// The call whose results it stands in, as long as the response has not been taken.
    response: Option<Promise<Response>>,
}

/// A call whose method is to go on when the round says so.
struct Waiting {
    deferred: Deferred,
    caps: Vec<Client>,
    tail: bool,
}

#[derive(Default)]
struct World {
    references: Vec<Reference>,
    /// The promise at the end of the chain, and the vat that made it.
    end: Option<(usize, ClientFulfiller)>,
    waiting: Vec<Waiting>,
    failures: Vec<String>,
    log: Vec<String>,
}

/// Never locked while anything of the library's is called or dropped.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn log(&self, text: impl FnOnce() -> String) {
        self.lock().log.push(text());
    }

    fn add(&self, side: usize, client: Client, response: Option<Promise<Response>>) -> usize {
        let mut world = self.lock();
        world.references.push(Reference { side, client: Some(client), sent: 0, arrived: 0, response });
        world.references.len() - 1
    }
}

/// The object that a vat offers to the other.
struct Door {
    side: usize,
    world: Shared,
    sink: Client,
}

impl Server for Door {
    fn dispatch(&self, call: &mut Call) -> capnp_threads::Result<()> {
        let (_, caps) = record::read(call.params().get()?)?;
        match call.method_id() {
            GIVE => record::write(call.results(), 0, &caps),
            AHEAD => {
                record::write(call.results(), 0, &caps);
                call.set_pipeline()?;
                self.wait(call, caps, false)?;
            }
            HOLD => self.wait(call, caps, false)?,
            BACK => return call.tail_call(give_back(&caps)),
            HOLD_BACK => self.wait(call, caps, true)?,
            KEEP => {
                let reference = self.world.add(self.side, caps[0].clone(), None);
                self.world.log(|| format!("vat {} keeps reference {reference}", self.side));
            }
            PROMISE => {
                let (client, fulfiller) = Client::promise();
                record::write(call.results(), 0, &[client]);
                self.world.lock().end = Some((self.side, fulfiller));
            }
            SINK => record::write(call.results(), 0, std::slice::from_ref(&self.sink)),
            _ => return call.unimplemented(),
        }
        Ok(())
    }
}

impl Door {
    fn wait(&self, call: &mut Call, caps: Vec<Client>, tail: bool) -> capnp_threads::Result<()> {
        let deferred = call.defer()?;
        self.world.lock().waiting.push(Waiting { deferred, caps, tail });
        Ok(())
    }
}

fn give_back(caps: &[Client]) -> capnp_threads::Request {
    let mut request = caps[0].request(INTERFACE, GIVE);
    record::write(request.get(), 0, &caps[1..2]);
    request
}

/// The object at the end of the chain. The number of a call is the reference's and the call's.
struct Sink {
    side: usize,
    world: Shared,
}

impl Server for Sink {
    fn dispatch(&self, call: &mut Call) -> capnp_threads::Result<()> {
        let (number, _) = record::read(call.params().get()?)?;
        let (reference, number) = ((number >> 32) as usize, number & 0xffff_ffff);
        let mut world = self.world.lock();
        world.log.push(format!("call {number} of reference {reference} arrives"));
        let expected = world.references[reference].arrived;
        if number != expected {
            world.failures.push(format!("reference {reference}: call {number} before call {expected}"));
        }
        world.references[reference].arrived = number + 1;
        Ok(())
    }
}

/// What takes the steps of the connection.
enum Drive {
    Stepped { sides: Box<[Side; 2]>, pool: Pool },
    Threaded { connections: [Connection; 2] },
}

struct Round {
    numbers: Numbers,
    world: Shared,
    drive: Drive,
    /// The object that a vat has for the other, as that sees it, and as itself does.
    doors: [Client; 2],
    own_doors: [Client; 2],
    sinks: [Client; 2],
    /// No method tail-calls back: so all is told in the end.
    told: bool,
    answers: Vec<Promise<Response>>,
    /// A promise that is to be fulfilled with what a response brings.
    late: Vec<(usize, ClientFulfiller, Promise<Response>)>,
}

/// A round in which a test takes every step of every stage, in an order that the seed gives. What went wrong, if
/// anything did.
pub fn stepped(seed: u64) -> Result<(), String> {
    let mut numbers = Numbers(seed);
    let (pool, world) = (Pool::manual(), Shared::default());
    let (own_doors, sinks) = objects(&world, &pool);
    let threads = if numbers.one_in(2) { Threads::Strict } else { Threads::Lending };
    let options = |side: usize| Options::new().bootstrap(own_doors[side].clone()).threads(threads);
    let sides = untraced_pair(options(0), options(1));
    let doors = [sides[1].connection().bootstrap(), sides[0].connection().bootstrap()];
    Round::new(numbers, world, Drive::Stepped { sides: Box::new(sides), pool }, doors, own_doors, sinks).run()
}

/// A round in which threads take the steps.
pub fn threaded(seed: u64, threads: Threads) -> Result<(), String> {
    let mut numbers = Numbers(seed);
    let world = Shared::default();
    let pool = if numbers.one_in(2) { Pool::in_place() } else { Pool::global() };
    let (own_doors, sinks) = objects(&world, pool);
    let options = |side: usize| Options::new().bootstrap(own_doors[side].clone()).threads(threads);
    let (a, b) = Transport::in_memory();
    let start =
        |transport, side| Connection::start(transport, options(side)).expect("threads can be started");
    let connections = [start(a, 0), start(b, 1)];
    let doors = [connections[1].bootstrap(), connections[0].bootstrap()];
    Round::new(numbers, world, Drive::Threaded { connections }, doors, own_doors, sinks).run()
}

fn objects(world: &Shared, pool: &Pool) -> ([Client; 2], [Client; 2]) {
    let sinks = [0, 1].map(|side| Client::with_pool(Sink { side, world: world.clone() }, pool));
    let door = |side: usize| Door { side, world: world.clone(), sink: sinks[side].clone() };
    ([0, 1].map(|side| Client::with_pool(door(side), pool)), sinks)
}

impl Round {
    fn new(
        mut numbers: Numbers,
        world: Shared,
        drive: Drive,
        doors: [Client; 2],
        own_doors: [Client; 2],
        sinks: [Client; 2],
    ) -> Self {
        let told = numbers.one_in(2);
        Round { numbers, world, drive, doors, own_doors, sinks, told, answers: Vec::new(), late: Vec::new() }
    }

    fn run(mut self) -> Result<(), String> {
        let outcome = self.all();
        let world = self.world.clone();
        let outcome = outcome.and_then(|()| self.end());
        let world = world.lock();
        outcome.map_err(|why| format!("{why}\n{}", world.log.join("\n")))
    }

    fn all(&mut self) -> Result<(), String> {
        let side = self.numbers.below(2);
        let (client, fulfiller) = Client::promise();
        self.world.add(side, client, None);
        self.world.lock().end = Some((side, fulfiller));
        if self.numbers.one_in(2) {
            self.settle()?;
        }
        let operations = 4 + self.numbers.below(60);
        for _ in 0..operations {
            match self.numbers.below(16) {
                0..5 => self.call(),
                5..9 => self.advance(),
                9 => self.share(),
                10 => self.send_round(),
                11 => self.take_response(),
                12 => self.answer(),
                13 if self.numbers.one_in(4) => self.drop_reference(),
                _ => {}
            }
            self.steps();
        }
        self.finish()?;
        self.check_order()
    }

    fn check_order(&self) -> Result<(), String> {
        let world = self.world.lock();
        match world.failures.first() {
            Some(first) => Err(first.clone()),
            None => Ok(()),
        }
    }

    /// Calls on a reference: half of them on the first.
    fn call(&mut self) {
        let count = self.world.lock().references.len();
        let reference = if self.numbers.one_in(2) { 0 } else { self.numbers.below(count) };
        for _ in 0..=self.numbers.below(3) {
            let mut world = self.world.lock();
            let Reference { client, sent, .. } = &mut world.references[reference];
            let (Some(client), number) = (client.clone(), *sent) else { return };
            *sent += 1;
            world.log.push(format!("call {number} of reference {reference}"));
            drop(world);
            let mut request = client.request(INTERFACE, 0);
            record::write(request.get(), (reference as u64) << 32 | number, &[]);
            self.answers.push(request.send().promise);
        }
    }

    /// A method that gives back what it is given, of the peer's or, seldom, of the own vat's; and the call.
    fn send_back(&mut self, side: usize, client: &Client) -> capnp_threads::RemotePromise {
        let door = match self.numbers.one_in(8) {
            true => &self.own_doors[side],
            false => &self.doors[1 - side],
        };
        let method =
            [GIVE, GIVE, HOLD, AHEAD, BACK, HOLD_BACK][self.numbers.below(if self.told { 4 } else { 6 })];
        let caps = match method {
            BACK | HOLD_BACK => vec![self.own_doors[side].clone(), client.clone()],
            _ => vec![client.clone()],
        };
        self.world.log(|| format!("vat {side} calls method {method}"));
        let mut request = door.request(INTERFACE, method);
        record::write(request.get(), 0, &caps);
        request.send()
    }

    /// The chain gets longer by one promise.
    fn advance(&mut self) {
        let Some((side, fulfiller)) = self.world.lock().end.take() else { return };
        if self.numbers.one_in(5) {
            self.world.log(|| format!("vat {side} goes on with a promise of the other's"));
            let sent = self.doors[1 - side].request(INTERFACE, PROMISE).send();
            fulfiller.fulfill(sent.pipeline.field(0).client());
            self.answers.push(sent.promise);
            return;
        }
        let (next, end) = Client::promise();
        match self.numbers.below(4) {
            0 => {
                self.world.log(|| format!("vat {side} goes on directly"));
                fulfiller.fulfill(next);
            }
            1 => {
                let sent = self.send_back(side, &next);
                self.world.log(|| format!("vat {side} goes on with the response"));
                self.late.push((side, fulfiller, sent.promise));
            }
            _ => {
                let sent = self.send_back(side, &next);
                self.world.log(|| format!("vat {side} goes on"));
                let client = sent.pipeline.field(0).client();
                if self.numbers.one_in(4) {
                    let reference = self.world.add(side, client.clone(), Some(sent.promise));
                    self.world.log(|| format!("by reference {reference}"));
                } else {
                    self.answers.push(sent.promise);
                }
                fulfiller.fulfill(client);
            }
        }
        self.world.lock().end = Some((side, end));
    }

    fn pick(&mut self) -> Option<(usize, Client)> {
        let count = self.world.lock().references.len();
        let at = self.numbers.below(count);
        let world = self.world.lock();
        Some((world.references[at].side, world.references[at].client.clone()?))
    }

    /// The peer gets a reference.
    fn share(&mut self) {
        let Some((side, client)) = self.pick() else { return };
        self.world.log(|| format!("vat {side} shares"));
        let mut request = self.doors[1 - side].request(INTERFACE, KEEP);
        record::write(request.get(), 0, &[client]);
        self.answers.push(request.send().promise);
    }

    /// What comes back is a new reference.
    fn send_round(&mut self) {
        let Some((side, client)) = self.pick() else { return };
        let sent = self.send_back(side, &client);
        let client = sent.pipeline.field(0).client();
        let reference = self.world.add(side, client, Some(sent.promise));
        self.world.log(|| format!("reference {reference} is what comes back"));
    }

    /// A reference is used by the capability in the response from now on.
    fn take_response(&mut self) {
        let mut world = self.world.lock();
        let taken = world.references.iter_mut().enumerate().find_map(|(at, reference)| {
            let ready = reference.response.take_if(|response| response.is_ready());
            Some((at, ready?))
        });
        drop(world);
        let Some((at, response)) = taken else { return };
        let client = capability(response);
        let mut world = self.world.lock();
        let old = world.references[at].client.as_mut().map(|held| std::mem::replace(held, client));
        world.log.push(format!("reference {at} by its response"));
        drop(world);
        drop(old);
    }

    /// Lets a method go on, and promises be what responses have brought.
    fn answer(&mut self) {
        let mut world = self.world.lock();
        let count = world.waiting.len();
        if count > 0 {
            let Waiting { deferred, caps, tail } = world.waiting.swap_remove(self.numbers.below(count));
            world.log.push("a method goes on".into());
            drop(world);
            match tail {
                true => deferred.tail_call(give_back(&caps)),
                false => deferred.answer(|results| {
                    record::write(results, 0, &caps);
                    Ok(())
                }),
            }
        } else {
            drop(world);
        }
        if let Some(at) = self.late.iter().position(|(_, _, response)| response.is_ready()) {
            let (side, fulfiller, response) = self.late.remove(at);
            self.world.log(|| format!("vat {side} has the response"));
            fulfiller.fulfill(capability(response));
        }
    }

    fn drop_reference(&mut self) {
        let count = self.world.lock().references.len();
        let at = self.numbers.below(count);
        let mut world = self.world.lock();
        let reference = &mut world.references[at];
        let dropped = (reference.client.take(), reference.response.take());
        world.log.push(format!("reference {at} is dropped"));
        drop(world);
        drop(dropped);
    }

    /// Some steps.
    fn steps(&mut self) {
        let count = if self.numbers.one_in(4) { 0 } else { self.numbers.below(12) };
        match &mut self.drive {
            Drive::Threaded { .. } => (0..count / 4).for_each(|_| std::thread::yield_now()),
            Drive::Stepped { sides, pool } => {
                for _ in 0..count {
                    let stage = Stage::ALL[self.numbers.below(4)];
                    sides[self.numbers.below(2)].step(stage);
                    if self.numbers.one_in(16) {
                        sides[self.numbers.below(2)].look();
                    }
                    if self.numbers.one_in(2) && pool.tasks() > 0 {
                        let task = self.numbers.below(pool.tasks());
                        pool.run_task(task);
                    }
                }
            }
        }
    }

    /// All steps that there are; of threads, until all is quiet that is waited for.
    fn settle(&mut self) -> Result<(), String> {
        match &mut self.drive {
            Drive::Threaded { .. } => {}
            Drive::Stepped { sides, pool } => {
                for _ in 0..200_000 {
                    let mut moved = pool.tasks() > 0;
                    if moved {
                        pool.run_task(0);
                    }
                    for side in sides.iter_mut() {
                        for stage in Stage::ALL {
                            moved |= side.step(stage);
                        }
                        moved |= side.look();
                    }
                    if !moved {
                        return self.check_order();
                    }
                }
                return Err("steps are taken without end".into());
            }
        }
        self.check_order()
    }

    /// The chain ends, and all that waits goes on.
    fn finish(&mut self) -> Result<(), String> {
        // The end may be about to be made in the other vat.
        let end = self.goes_on(|round| round.world.lock().end.take())?;
        let (side, fulfiller) = end;
        let there = self.numbers.one_in(3);
        self.world.log(|| format!("vat {side} ends the chain, in the other: {there}"));
        match there {
            true => {
                let sent = self.doors[1 - side].request(INTERFACE, SINK).send();
                fulfiller.fulfill(sent.pipeline.field(0).client());
                self.answers.push(sent.promise);
            }
            false => fulfiller.fulfill(self.sinks[side].clone()),
        }
        for _ in 0..self.numbers.below(8) {
            self.call();
            self.steps();
        }
        let sunk = if there { 1 - side } else { side };
        self.goes_on(|round| (round.late.is_empty() && round.world.lock().waiting.is_empty()).then_some(()))?;
        // What the methods that went on last have made.
        for answer in std::mem::take(&mut self.answers) {
            self.wait(answer)?.map_err(|e| format!("a call failed: {e}"))?;
        }
        self.check_order()?;
        let world = self.world.lock();
        for (at, reference) in world.references.iter().enumerate() {
            if reference.sent != reference.arrived {
                return Err(format!(
                    "reference {at}: of {} calls {} arrived",
                    reference.sent, reference.arrived
                ));
            }
        }
        drop(world);
        self.check_settled(sunk)
    }

    /// Takes steps, and answers, until there is what is wanted.
    fn goes_on<T>(&mut self, wanted: impl Fn(&Self) -> Option<T>) -> Result<T, String> {
        let start = std::time::Instant::now();
        loop {
            self.settle()?;
            self.let_methods_run()?;
            if let Some(found) = wanted(self) {
                return Ok(found);
            }
            match &self.drive {
                Drive::Stepped { .. } if self.world.lock().waiting.is_empty() && !self.is_late() => {
                    return Err("the chain does not go on".into());
                }
                Drive::Threaded { .. } if start.elapsed() > DEADLINE => {
                    return Err("the chain does not go on".into());
                }
                _ => {}
            }
            self.answer();
        }
    }

    /// With threads: waits until all methods have begun that were called by now, but those that wait in the chain.
    fn let_methods_run(&mut self) -> Result<(), String> {
        if let Drive::Threaded { .. } = self.drive {
            for door in [self.doors.clone(), self.own_doors.clone()].into_iter().flatten() {
                let mut request = door.request(INTERFACE, GIVE);
                record::write(request.get(), 0, &[]);
                let answer = self.wait(request.send().promise)?;
                answer.map_err(|e| format!("a call failed: {e}"))?;
            }
        }
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.late.iter().any(|(_, _, response)| response.is_ready())
    }

    fn wait(&mut self, answer: Promise<Response>) -> Result<capnp_threads::Result<Response>, String> {
        if let Drive::Stepped { .. } = self.drive {
            return match answer.try_take() {
                Ok(response) => Ok(Ok(response)),
                Err(WaitError::Failed(why)) => Ok(Err(why)),
                Err(WaitError::Pending(_)) => Err("a call has no answer".to_owned()),
            };
        }
        let (start, mut answer) = (std::time::Instant::now(), answer);
        while start.elapsed() < DEADLINE {
            answer = match answer.wait_timeout(Duration::from_millis(1)) {
                Ok(response) => return Ok(Ok(response)),
                Err(WaitError::Failed(why)) => return Ok(Err(why)),
                Err(WaitError::Pending(answer)) => answer,
            };
            // A method that has been called meanwhile may wait for this.
            self.answer();
        }
        Err("a call has no answer".to_owned())
    }

    /// Every reference is of the object at the end.
    fn check_settled(&mut self, sunk: usize) -> Result<(), String> {
        let count = self.world.lock().references.len();
        for at in 0..count {
            let mut world = self.world.lock();
            let (side, client) = (world.references[at].side, world.references[at].client.clone());
            let response = world.references[at].response.take();
            drop(world);
            let Some(client) = client else { continue };
            let mut clients = vec![client];
            if let Some(response) = response {
                clients.push(capability_of(self.wait(response)?));
            }
            for client in clients {
                self.check_client(at, side, client, sunk)?;
            }
        }
        Ok(())
    }

    fn check_client(&self, at: usize, side: usize, client: Client, sunk: usize) -> Result<(), String> {
        if !self.told {
            return Ok(());
        }
        let client = match &self.drive {
            Drive::Stepped { .. } if client.is_promise() => {
                return Err(format!("reference {at} is still a promise: {client:?}"));
            }
            Drive::Stepped { .. } => client,
            Drive::Threaded { .. } => client.resolve().map_err(|e| format!("reference {at}: {e}"))?,
        };
        let local = client.local_server::<Sink>();
        let local = local.map(|sink| sink.side);
        match local == Some(sunk).filter(|sunk| *sunk == side) {
            true => Ok(()),
            false => Err(format!("reference {at} of vat {side} is {client:?}, the object is in {sunk}")),
        }
    }

    /// Drops all: nothing is left.
    fn end(mut self) -> Result<(), String> {
        let world = std::mem::take(&mut *self.world.lock());
        drop((world.references, world.waiting, world.end));
        self.world.lock().log = world.log;
        self.late.clear();
        self.answers.clear();
        self.doors = [Client::null(), Client::null()];
        self.settle()?;
        let tables = match &self.drive {
            Drive::Stepped { sides, .. } => sides.each_ref().map(|side| side.connection().snapshot()),
            Drive::Threaded { connections } => connections.each_ref().map(|connection| {
                connection.wait_until(std::time::Instant::now() + DEADLINE, |tables| tables.is_empty());
                connection.snapshot()
            }),
        };
        match tables.iter().find(|tables| !tables.is_empty()) {
            Some(tables) => Err(format!("tables are not empty:\n{tables}")),
            None => Ok(()),
        }
    }
}

fn capability(response: Promise<Response>) -> Client {
    capability_of(response.try_take().map_err(|why| why.into_failed().expect("it is ready")))
}

fn capability_of(response: capnp_threads::Result<Response>) -> Client {
    let read = response.and_then(|response| record::read(response.get()?));
    read.expect("a capability is given back").1.swap_remove(0)
}
