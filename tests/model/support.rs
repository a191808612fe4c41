//! What the scenarios share: running one, two vats with a connection in memory, and objects made of closures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capnp_threads::testing::record;
use capnp_threads::transport::{Shutdown, Transport};
use capnp_threads::{
    Call, Capability, Client, Connection, Limits, Options, Pool, RemotePromise, Response, Result, Server,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// How many changes of priority the scheduler for rare orders makes.
const DEPTH: usize = 4;

/// Runs a scenario under so many random schedules, and as many that look for rare orders.
pub fn check(schedules: usize, scenario: fn()) {
    let config = || {
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        config.silence_warnings = true;
        config
    };
    Runner::new(RandomScheduler::new(schedules), config()).run(scenario);
    Runner::new(PctScheduler::new(DEPTH, schedules), config()).run(scenario);
}

/// An object made of a closure.
pub struct Serve<F>(pub F);

impl<F: Fn(&mut Call) -> Result<()> + Send + Sync + 'static> Server for Serve<F> {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        (self.0)(call)
    }
}

/// An object made of a closure on numbers.
pub fn numbers(pool: &Pool, method: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Client {
    let serve = move |call: &mut Call| {
        let number = params(call)?.0;
        record::write(call.results(), method(number), &[]);
        Ok(())
    };
    Client::with_pool(Serve(serve), pool)
}

/// An object made of a closure.
pub fn object(pool: &Pool, method: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> Client {
    Client::with_pool(Serve(method), pool)
}

/// The number and the capabilities that a call brought.
pub fn params(call: &Call) -> Result<(u64, Vec<Client>)> {
    record::read(call.params().get()?)
}

/// Sends a call.
pub fn send(client: &Client, number: u64, caps: &[Client]) -> RemotePromise {
    let mut request = client.request(1, 1);
    record::write(request.get(), number, caps);
    request.send()
}

/// Calls, and waits for the number that comes back.
pub fn ask(client: &Client, number: u64) -> Result<u64> {
    number_in(&send(client, number, &[]).wait()?)
}

/// The number in a response.
pub fn number_in(response: &Response) -> Result<u64> {
    Ok(record::read(response.get()?)?.0)
}

/// The capability in the first field of a response.
pub fn client_in(response: &Response) -> Result<Client> {
    Ok(record::read(response.get()?)?.1.swap_remove(0))
}

/// Two connected vats; each offers one object.
pub fn connect(first: Client, second: Client) -> [Connection; 2] {
    connect_with(first, second, Limits::default())
}

/// The same; the first with limits.
pub fn connect_with(first: Client, second: Client, limits: Limits) -> [Connection; 2] {
    let (a, b) = Transport::in_memory();
    let first = Options::new().bootstrap(first).limits(limits);
    let second = Options::new().bootstrap(second);
    [(a, first), (b, second)].map(|(transport, options)| Connection::start(transport, options).unwrap())
}

/// Ends a transport that a connection has.
#[derive(Clone)]
pub struct Cut(Arc<dyn Shutdown>);

impl Cut {
    pub fn cut(&self) {
        self.0.shutdown();
    }
}

impl Shutdown for Cut {
    fn shutdown(&self) {
        self.cut();
    }
}

/// Two connected vats, of which the second offers an object, and what cuts the line between them.
pub fn connect_to_cut(second: Client) -> ([Connection; 2], Cut) {
    let (a, b) = Transport::in_memory();
    let cut = Cut(b.shutdown.into());
    let b = Transport { shutdown: Box::new(cut.clone()), ..b };
    let second = Options::new().bootstrap(second);
    let started = [(a, Options::default()), (b, second)];
    let vats = started.map(|(transport, options)| Connection::start(transport, options).unwrap());
    (vats, cut)
}

/// Waits until both connections hold nothing, closes the first, and waits for the end of the second.
pub fn close([first, second]: [Connection; 2]) {
    let never = Instant::now() + Duration::from_secs(3600);
    assert!(first.wait_until(never, |tables| tables.is_empty()));
    assert!(second.wait_until(never, |tables| tables.is_empty()));
    first.close(Duration::ZERO).unwrap();
    second.wait_closed().unwrap();
}
