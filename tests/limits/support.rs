//! What the tests of limits share: objects out of closures, and wires that can be held up and looked at.

use std::error::Error as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capnp_threads::transport::{Frame, MessageSink, MessageSource, Outbound, Sink, Source, Transport};
use capnp_threads::{
    Call, Capability, Client, Connection, Error, Exception, Limits, Pool, RemotePromise, Request, Response,
    Result, Server, Snapshot, TransportError, Vat,
};
use crossbeam_channel::{bounded, Receiver, Sender};

/// Turns a hang into a failure.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The interface of all objects here.
pub const TEST: u64 = 0x11a1_7511_a175_11a1;

/// The default limits, but for what `change` sets.
pub fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

struct Object<F>(F);

impl<F: Fn(&mut Call) -> Result<()> + Send + Sync + 'static> Server for Object<F> {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        (self.0)(call)
    }
}

pub fn object(answer: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> Client {
    Client::new(Object(answer))
}

pub fn object_in(pool: &Pool, answer: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> Client {
    Client::with_pool(Object(answer), pool)
}

/// Returns the text that it is called with.
pub fn echo() -> Client {
    object(|call| {
        let text = text(call)?;
        Ok(call.results().set_as(&*text)?)
    })
}

pub fn text(call: &Call) -> Result<String> {
    Ok(call.params_as::<capnp::text::Reader>()?.to_string()?)
}

/// The capability in a call's params.
pub fn cap(call: &Call) -> Result<Client> {
    Ok(call.params().get()?.get_as_capability()?)
}

/// A call with a text.
pub fn request(client: &Client, text: &str) -> Request {
    let mut request = client.request(TEST, 0);
    request.get().set_as(text).unwrap();
    request
}

pub fn send(client: &Client, text: &str) -> RemotePromise {
    request(client, text).send()
}

/// A call with a capability.
pub fn give(client: &Client, cap: &Client) -> RemotePromise {
    let mut request = client.request(TEST, 0);
    request.get().set_as_capability(Box::new(cap.clone()));
    request.send()
}

/// Waits for an answer that comes.
#[track_caller]
pub fn answer(promise: RemotePromise) -> Result<Response> {
    promise.wait_timeout(DEADLINE).map_err(|why| why.into_failed().expect("an answer in time"))
}

#[track_caller]
pub fn ask(client: &Client, text: &str) -> Result<String> {
    let response = answer(send(client, text))?;
    let text: capnp::text::Reader = response.get_as()?;
    Ok(text.to_string()?)
}

/// The exception that a call has failed with.
#[track_caller]
pub fn failure<T>(outcome: Result<T>) -> Exception {
    match outcome {
        Ok(_) => panic!("the call did not fail"),
        Err(e) => e.into(),
    }
}

#[track_caller]
pub fn soon<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(DEADLINE).unwrap_or_else(|e| panic!("nothing came: {e}"))
}

#[track_caller]
pub fn until(connection: &Connection, wanted: impl Fn(&Snapshot) -> bool) {
    assert!(connection.wait_until(Instant::now() + DEADLINE, wanted), "{}", connection.snapshot());
}

/// Waits for the end of a connection, and gives what the transport ended it with.
#[track_caller]
pub fn transport_error(connection: &Connection) -> TransportError {
    let why = connection.wait_closed().unwrap();
    match why.source().and_then(|source| source.downcast_ref::<Error>()) {
        Some(Error::Transport(e)) => e.clone(),
        other => panic!("{other:?} in {why}"),
    }
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

/// Two connected vats, of which the second offers an object, and the first has it.
pub struct Two {
    pub here: Connection,
    pub there: Connection,
    pub remote: Client,
}

impl Two {
    pub fn in_memory(mine: Limits, theirs: Limits, offered: &Client) -> Two {
        let (a, b) = Transport::in_memory();
        Two::over([a, b], Vat::new().limits(mine), Vat::new().limits(theirs), offered)
    }

    pub fn over([a, b]: [Transport; 2], here: Vat, there: Vat, offered: &Client) -> Two {
        let there = there.bootstrap(offered.clone()).over(b).unwrap();
        let here = here.over(a).unwrap();
        let remote = here.bootstrap::<Client>().resolve().unwrap();
        let two = Two { here, there, remote };
        two.settle();
        two
    }

    /// Waits until no call is in either table.
    #[track_caller]
    pub fn settle(&self) {
        for connection in [&self.here, &self.there] {
            until(connection, |tables| tables.questions() == 0 && tables.answers() == 0);
        }
    }
}

/// A vat with an object that two others call: one that gives it an object of its own, and another.
pub fn shared(mine: Limits, hub: &Client, subscriber: &Client) -> (Two, Two, Gate) {
    let gate = Gate::default();
    let (a, b) = Transport::in_memory();
    let subscribed = Two::over([a, gate.before(b)], Vat::new(), Vat::new().limits(mine), hub);
    let (a, b) = Transport::in_memory();
    let other = Two::over([a, b], Vat::new(), Vat::new(), hub);
    answer(give(&subscribed.remote, subscriber)).unwrap();
    subscribed.settle();
    (subscribed, other, gate)
}

/// Holds up what a transport sends, from when it is shut until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Option<Receiver<()>>>>);

impl Gate {
    /// Lets nothing more through until the result is dropped.
    pub fn shut(&self) -> Shut {
        let (open, opened) = bounded(0);
        *self.0.lock().unwrap() = Some(opened);
        Shut(open)
    }

    pub fn before(&self, transport: Transport) -> Transport {
        let sink = Sink::blocking(Gated { gate: self.clone(), sink: transport.sink });
        Transport { sink, ..transport }
    }
}

/// A gate is shut while this is held.
pub struct Shut(Sender<()>);

impl Shut {
    pub fn open(self) {
        drop(self.0);
    }
}

struct Gated {
    gate: Gate,
    sink: Sink,
}

impl MessageSink for Gated {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        let shut = self.gate.0.lock().unwrap().clone();
        if let Some(opened) = shut {
            // Nothing is ever sent: it ends when the gate is opened.
            assert!(opened.recv().is_err());
        }
        self.sink.send(batch)
    }
}

/// What happened, in order: messages that were read, and what a test did.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    pub const READ: &'static str = "read";

    pub fn add(&self, event: &'static str) {
        self.0.lock().unwrap().push(event);
    }

    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Notes each message that the transport receives.
    pub fn of(&self, transport: Transport) -> Transport {
        let source = Source::blocking(Logged { log: self.clone(), source: transport.source });
        Transport { source, ..transport }
    }
}

struct Logged {
    log: Log,
    source: Source,
}

impl MessageSource for Logged {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        let received = self.source.receive();
        self.log.add(Log::READ);
        received
    }
}

/// An object whose calls tell that they have started, and return when they are let go.
pub struct Holding {
    pub object: Client,
    pub started: Receiver<String>,
    pub let_go: Sender<()>,
}

impl Holding {
    pub fn new() -> Self {
        let (start, started) = crossbeam_channel::unbounded();
        let (let_go, wait) = crossbeam_channel::unbounded::<()>();
        let object = object(move |call| {
            start.send(text(call)?).unwrap();
            // Also when the test has ended.
            let _ = wait.recv();
            Ok(())
        });
        Holding { object, started, let_go }
    }
}
