//! A program on one end of a connection: objects, references and promises, and what it does with them by numbers.

use std::sync::{Arc, Mutex, MutexGuard};

use capnp_threads::testing::{record, Side, Stage};
use capnp_threads::{
    Call, Capability, Client, ClientFulfiller, Deferred, Error, Options, Pipeline, Pool, Promise, Response,
    Result, Server, WaitError,
};

/// The most of each kind that is kept: so that a run stays small.
const MOST: usize = 12;
/// More steps than any run takes.
const MANY_STEPS: usize = 200_000;

/// What a program holds. Its objects share it; never locked while anything of the library's is called or dropped.
#[derive(Default)]
struct Things {
    clients: Vec<Client>,
    fulfillers: Vec<ClientFulfiller>,
    deferred: Vec<Deferred>,
    promises: Vec<Promise<Response>>,
    pipelines: Vec<Pipeline>,
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<Things>>);

impl World {
    fn lock(&self) -> MutexGuard<'_, Things> {
        self.0.lock().expect("no panic under the lock")
    }

    fn client(&self, which: u8) -> Client {
        let things = self.lock();
        match things.clients.len() {
            0 => Client::null(),
            count => things.clients[usize::from(which) % count].clone(),
        }
    }

    /// Drops what is taken out, with the lock released.
    fn drop_one<T>(&self, take: impl FnOnce(&mut Things) -> Option<T>) {
        let taken = take(&mut self.lock());
        drop(taken);
    }

    /// Up to three references.
    fn some(&self, seed: u8) -> Vec<Client> {
        (0..seed % 4).map(|i| self.client(seed / 4 + i * 7)).collect()
    }

    fn keep(&self, client: Client) {
        let over = {
            let mut things = self.lock();
            things.clients.push(client);
            (things.clients.len() > MOST).then(|| things.clients.remove(0))
        };
        drop(over);
    }
}

/// What does with a call as its method's number says.
struct Object {
    world: World,
    pool: Pool,
}

impl Server for Object {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let method = call.method_id() as u8;
        let caps = match call.params().get().and_then(record::read) {
            Ok((_, caps)) => caps,
            Err(e) if method & 1 == 0 => return Err(e),
            Err(_) => Vec::new(),
        };
        let world = &self.world;
        match method % 12 {
            0 => Ok(()),
            1 => give(call, &caps),
            2 => {
                caps.into_iter().for_each(|client| world.keep(client));
                give(call, &world.some(method / 12))
            }
            3 => give(
                call,
                &[Client::with_pool(Object { world: world.clone(), pool: self.pool.clone() }, &self.pool)],
            ),
            4 => {
                let (client, fulfiller) = Client::promise();
                world.lock().fulfillers.push(fulfiller);
                give(call, &[client])
            }
            5 => defer(world, call),
            6 => {
                give(call, &caps)?;
                call.set_pipeline()?;
                defer(world, call)
            }
            7 => {
                let mut request = caps.first().unwrap_or(&world.client(method)).request(1, 1);
                record::write(request.get(), 0, &caps);
                call.tail_call(request)
            }
            8 => Err(Error::failed("as told")),
            9 => {
                // A call whose outcome nobody wants.
                let mut request = world.client(method).request(1, u16::from(method / 12));
                record::write(request.get(), 0, &caps);
                drop(request.send());
                Ok(())
            }
            10 => {
                call.allow_next();
                defer(world, call)
            }
            _ => {
                caps.into_iter().for_each(|client| world.keep(client));
                Ok(())
            }
        }
    }
}

fn give(call: &mut Call, caps: &[Client]) -> Result<()> {
    record::write(call.results(), 1, &caps[..caps.len().min(usize::from(record::FIELDS))]);
    Ok(())
}

fn defer(world: &World, call: &mut Call) -> Result<()> {
    let deferred = call.defer()?;
    world.lock().deferred.push(deferred);
    Ok(())
}

/// A program, and its end of the connection.
pub struct Program {
    pub side: Side,
    world: World,
    pool: Pool,
}

impl Program {
    /// A program on an end that `connect` makes.
    pub fn new(connect: impl FnOnce(Options) -> Side) -> Self {
        let (world, pool) = (World::default(), Pool::manual());
        let object = Client::with_pool(Object { world: world.clone(), pool: pool.clone() }, &pool);
        world.keep(object.clone());
        let mut options = Options::new().bootstrap(object);
        // Small: bytes of an input should reach them.
        options.limits.exports = 64;
        options.limits.call_words = 512;
        Program { side: connect(options), world, pool }
    }

    /// Does one thing, chosen by three numbers.
    pub fn act(&mut self, what: u8, a: u8, b: u8) {
        match what % 14 {
            0 => self.world.keep(self.side.connection().bootstrap()),
            1..=3 => self.call(a, b),
            4 => {
                let pipeline = pick(&self.world.lock().pipelines, a).cloned();
                if let Some(pipeline) = pipeline {
                    self.world.keep(pipeline.field(u16::from(b % 4)).client());
                }
            }
            5 => {
                let promise = take(&mut self.world.lock().promises, a);
                match promise.map(Promise::try_take) {
                    Some(Ok(response)) => {
                        let caps = response.get().and_then(record::read).map_or(Vec::new(), |(_, caps)| caps);
                        drop(response);
                        caps.into_iter().for_each(|client| self.world.keep(client));
                    }
                    Some(Err(WaitError::Failed(_))) | None => {}
                    Some(Err(WaitError::Pending(promise))) if b & 1 == 0 => {
                        self.world.lock().promises.push(promise);
                    }
                    Some(Err(WaitError::Pending(promise))) => drop(promise),
                }
            }
            6 => self.world.drop_one(|things| take(&mut things.clients, a)),
            7 => self.world.drop_one(|things| take(&mut things.pipelines, a)),
            8 => {
                let (client, fulfiller) = Client::promise();
                self.world.lock().fulfillers.push(fulfiller);
                self.world.keep(client);
            }
            9 => {
                let fulfiller = take(&mut self.world.lock().fulfillers, a);
                let to = self.world.client(b);
                if let Some(fulfiller) = fulfiller {
                    fulfiller.fulfill(to);
                }
            }
            10 => self.world.drop_one(|things| take(&mut things.fulfillers, a)),
            11 | 12 => self.answer(a, b),
            _ => {
                let client = self.world.client(a);
                let _ = (client.is_promise(), client.broken_reason(), client == self.world.client(b));
                self.world.keep(client);
            }
        }
    }

    fn call(&self, a: u8, b: u8) {
        let mut request = self.world.client(a).request(1, u16::from(b));
        record::write(request.get(), 2, &self.world.some(a ^ b));
        let (promise, pipeline) = match a % 5 {
            4 => (None, Some(request.send_for_pipeline())),
            3 => (Some(request.no_pipelining().send().promise), None),
            _ => {
                let sent = request.send();
                (Some(sent.promise), Some(sent.pipeline))
            }
        };
        let over = {
            let mut things = self.world.lock();
            things.promises.extend(promise);
            things.pipelines.extend(pipeline);
            let promise = (things.promises.len() > MOST).then(|| things.promises.remove(0));
            (promise, (things.pipelines.len() > MOST).then(|| things.pipelines.remove(0)))
        };
        drop(over);
    }

    fn answer(&self, a: u8, b: u8) {
        let Some(deferred) = take(&mut self.world.lock().deferred, a) else { return };
        let clients = self.world.some(b);
        match b % 5 {
            0 => deferred.fail(Error::failed("as told")),
            1 => drop(deferred),
            2 => {
                let mut request = self.world.client(b).request(1, u16::from(a));
                record::write(request.get(), 3, &clients);
                deferred.tail_call(request);
            }
            _ => deferred.answer(|root| {
                record::write(root, 4, &clients);
                Ok(())
            }),
        }
    }

    /// Takes a step of a stage, or runs a method.
    pub fn step(&mut self, which: u8) -> bool {
        match usize::from(which % 5) {
            4 => self.run_method(which / 5),
            stage => self.side.step(Stage::ALL[stage]),
        }
    }

    fn run_method(&self, which: u8) -> bool {
        let count = self.pool.tasks();
        if count > 0 {
            self.pool.run_task(usize::from(which) % count);
        }
        count > 0
    }

    /// Takes steps until there is none. True if there was one.
    pub fn settle(&mut self) -> bool {
        for steps in 0..MANY_STEPS {
            let moved = (0..5).fold(false, |moved, which| self.step(which) | moved);
            if !moved {
                return steps > 0;
            }
        }
        panic!("steps are taken without end");
    }

    /// Drops all that is held and answers nothing.
    pub fn drop_all(&mut self) -> bool {
        let things = std::mem::take(&mut *self.world.lock());
        let Things { clients, fulfillers, deferred, promises, pipelines } = &things;
        !(clients.is_empty()
            && fulfillers.is_empty()
            && deferred.is_empty()
            && promises.is_empty()
            && pipelines.is_empty())
    }

    /// What must hold once the connection has ended and `settle` has run, with everything dropped.
    pub fn check_ended(&mut self) {
        assert!(!self.side.connection().is_connected(), "the line was cut");
        // A dropped object may have held references, and a canceled call may run and make new ones.
        for _ in 0..MANY_STEPS {
            let held = self.drop_all();
            if !(self.settle() | held) {
                let tables = self.side.connection().snapshot();
                assert!(tables.is_empty(), "after the end there are entries:\n{tables}");
                assert_eq!(Arc::strong_count(&self.world.0), 1, "an object is still held");
                return;
            }
        }
        panic!("things are held without end");
    }

    /// All promises of calls over the ended connection that are held have their outcome, once what waits for something
    /// of this program's own is dropped.
    pub fn check_nobody_waits(&mut self) {
        loop {
            let (deferred, fulfillers) = {
                let mut things = self.world.lock();
                (std::mem::take(&mut things.deferred), std::mem::take(&mut things.fulfillers))
            };
            let done = deferred.is_empty() && fulfillers.is_empty();
            drop((deferred, fulfillers));
            if !self.settle() && done {
                break;
            }
        }
        let waiting = self.world.lock().promises.iter().filter(|promise| !promise.is_ready()).count();
        assert_eq!(waiting, 0, "calls of an ended connection wait");
    }
}

fn pick<T>(all: &[T], which: u8) -> Option<&T> {
    (!all.is_empty()).then(|| &all[usize::from(which) % all.len()])
}

fn take<T>(all: &mut Vec<T>, which: u8) -> Option<T> {
    (!all.is_empty()).then(|| all.remove(usize::from(which) % all.len()))
}
