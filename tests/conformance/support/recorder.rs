//! An object of ours that writes down what is called, in order, and answers as it is told.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use capnp_threads::{Call, Capability, Client, Deferred, RemotePromise, Request, Response, Result, Server};
use crossbeam_channel::{Receiver, Sender};

use super::content;
use super::message::INTERFACE;
use super::peer::DEADLINE;

/// Answers with the tag of the params.
pub const NOTE: u16 = 0;
/// Is kept, for the test to answer.
pub const HOLD: u16 = 1;
/// Answers with the tag and the capabilities of the params.
pub const GIVE: u16 = 2;
/// Says that the capabilities of the params will be those of the results, and is kept.
pub const AHEAD: u16 = 3;
/// Is answered, and not written down.
const PING: u16 = 4;

/// The handle of an object that writes down its calls.
pub struct Recorder {
    client: Client,
    shared: Arc<Shared>,
    held: Receiver<Held>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<u64>>,
    changed: Condvar,
}

struct Object {
    shared: Arc<Shared>,
    held: Sender<Held>,
}

impl Recorder {
    pub fn new() -> Self {
        let (to, held) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared::default());
        let client = Client::new(Object { shared: shared.clone(), held: to });
        Recorder { client, shared, held }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The tags of all calls that have been delivered to the object by now, in order.
    #[track_caller]
    pub fn log(&self) -> Vec<u64> {
        // Comes behind all that waits in the object's mailbox.
        wait(send(&self.client, PING, 0, &[])).unwrap();
        self.shared.log.lock().unwrap().clone()
    }

    /// Waits until as many calls have come as `tags` has, and compares.
    #[track_caller]
    pub fn expect(&self, tags: &[u64]) {
        let log = self.shared.log.lock().unwrap();
        let few = |log: &mut Vec<u64>| log.len() < tags.len();
        drop(self.shared.changed.wait_timeout_while(log, DEADLINE, few).unwrap());
        assert_eq!(self.log(), tags, "calls in the order of their arrival");
    }

    /// The next call that is kept.
    #[track_caller]
    pub fn held(&self) -> Held {
        self.held.recv_deadline(Instant::now() + DEADLINE).expect("a call to be kept")
    }
}

impl Server for Object {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let content = call.params().get()?;
        if call.method_id() == PING {
            return Ok(());
        }
        let (tag, caps) = (content::tag(content), content::caps(content)?);
        self.shared.log.lock().unwrap().push(tag);
        self.shared.changed.notify_all();
        match call.method_id() {
            NOTE => content::fill(call.results(), tag, &[]),
            GIVE => content::fill(call.results(), tag, &caps),
            HOLD => drop(self.held.send(Held { deferred: call.defer()?, caps })),
            AHEAD => {
                content::fill(call.results(), tag, &caps);
                call.set_pipeline()?;
                drop(self.held.send(Held { deferred: call.defer()?, caps }));
            }
            _ => return call.unimplemented(),
        }
        Ok(())
    }
}

/// A call that is kept until the test answers it.
pub struct Held {
    deferred: Deferred,
    pub caps: Vec<Client>,
}

impl Held {
    pub fn answer(self, tag: u64, caps: &[Client]) {
        self.deferred.answer(|results| {
            content::fill(results, tag, caps);
            Ok(())
        });
    }

    pub fn fail(self, why: &str) {
        self.deferred.fail(capnp_threads::Exception::failed(why));
    }

    /// Hands the call on to another object, as a note with this tag.
    pub fn tail_call(self, to: &Client, method: u16, tag: u64, caps: &[Client]) {
        self.deferred.tail_call(request(to, method, tag, caps));
    }

    /// Waits until the call is canceled.
    pub fn wait_canceled(&self) {
        self.deferred.cancellation().wait().unwrap();
    }

    pub fn is_canceled(&self) -> bool {
        self.deferred.cancellation().is_canceled()
    }
}

/// A call of ours that is yet to be sent.
pub fn request(client: &Client, method: u16, tag: u64, caps: &[Client]) -> Request {
    let mut request = client.request(INTERFACE, method);
    content::fill(request.get(), tag, caps);
    request
}

/// Calls a method.
pub fn send(client: &Client, method: u16, tag: u64, caps: &[Client]) -> RemotePromise {
    request(client, method, tag, caps).send()
}

/// Waits for an answer: its tag and capabilities.
#[track_caller]
pub fn wait(promise: RemotePromise) -> Result<(u64, Vec<Client>)> {
    let outcome = promise.wait_timeout(DEADLINE);
    let response: Response = outcome.map_err(|why| why.into_failed().expect("an answer in time"))?;
    let content = response.get()?;
    Ok((content::tag(content), content::caps(content)?))
}

/// Waits for an answer that is an exception: its reason.
#[track_caller]
pub fn wait_failed(promise: RemotePromise) -> String {
    let why = promise.wait_timeout(DEADLINE).expect_err("an exception");
    why.into_failed().expect("an answer in time").to_string()
}
