//! An object that does whatever a test wants of a call: the server behind the scenarios of behaviour.

use capnp_threads::{Cancel, Capability, Deferred, Error, Exception, ExceptionKind, Response, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

pub use crate::generated::work_capnp::*;
use crate::support::{text, Soon, DEADLINE};

/// What a worker has to say of its calls.
pub enum Event {
    /// A call of `later`, to be answered by whoever takes it.
    Later(Deferred<worker::later_results::Owned>),
    /// A call of `linger`, which has begun.
    Lingering(String, Cancel),
    /// A call of `linger`, which has been canceled.
    Canceled(String),
    /// A call of `ahead` goes on when told to.
    Ahead(Sender<()>),
    /// A call of `beside` goes on when told to.
    Beside(String, Sender<()>),
    /// A worker is gone.
    Dropped,
}

pub struct Worker {
    events: Sender<Event>,
    kept: std::sync::Mutex<worker::Client>,
}

impl Worker {
    pub fn new(events: &Sender<Event>) -> Self {
        Worker { events: events.clone(), kept: worker::Client::null().into() }
    }

    fn tell(&self, event: Event) {
        // Nobody listens where the test is not about events.
        let _ = self.events.send(event);
    }

    fn sibling(&self) -> worker::Client {
        worker::Client::new(Worker::new(&self.events))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell(Event::Dropped);
    }
}

/// A worker, and what it says.
pub fn worker() -> (worker::Client, Receiver<Event>) {
    let (events, told) = unbounded();
    (worker::Client::new(Worker::new(&events)), told)
}

/// A worker whose events nobody hears.
pub fn silent() -> worker::Client {
    worker().0
}

/// A call of `add`.
pub fn add(worker: &worker::Client, a: i64, b: i64) -> Result<i64> {
    let sum = worker.add(|mut params| {
        params.set_a(a);
        params.set_b(b);
    });
    sum.soon().map(sum_in)
}

pub fn sum_in(response: Response<sum::Owned>) -> i64 {
    response.get().unwrap().get_sum()
}

/// The text of an answer of `later`.
pub fn said(response: &Response<worker::later_results::Owned>) -> String {
    text(response.get().unwrap().get_text())
}

/// The next event, which is a deferred call.
#[track_caller]
pub fn deferred(told: &Receiver<Event>) -> Deferred<worker::later_results::Owned> {
    match told.soon() {
        Event::Later(deferred) => deferred,
        _ => panic!("another event"),
    }
}

/// Answers a deferred call.
pub fn answer(deferred: Deferred<worker::later_results::Owned>, with: &str) {
    deferred.answer(|mut results| {
        results.set_text(with);
        Ok(())
    });
}

impl worker::Server for Worker {
    fn add(&self, params: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
        let params = params.get()?;
        results.get().set_sum(params.get_a() + params.get_b());
        Ok(())
    }

    fn fail(&self, params: worker::FailParams, _: worker::FailResults<'_>) -> Result<()> {
        let params = params.get()?;
        let kind = match params.get_kind()? {
            Kind::Failed => ExceptionKind::Failed,
            Kind::Overloaded => ExceptionKind::Overloaded,
            Kind::Disconnected => ExceptionKind::Disconnected,
            Kind::Unimplemented => ExceptionKind::Unimplemented,
        };
        Err(Exception::new(kind, params.get_why()?.to_str()?).into())
    }

    fn panic(&self, params: worker::PanicParams, _: worker::PanicResults<'_>) -> Result<()> {
        panic!("{}", params.get()?.get_with()?.to_str()?);
    }

    fn read(&self, params: worker::ReadParams, mut results: worker::ReadResults<'_>) -> Result<()> {
        let text = params.get()?.get_what().get_as::<capnp::text::Reader<'_>>()?.to_str()?.to_owned();
        results.get().set_text(&*text);
        Ok(())
    }

    fn open(&self, params: worker::OpenParams, mut results: worker::OpenResults<'_>) -> Result<()> {
        let mut results = results.get();
        results.set_name(params.get()?.get_name()?);
        let mut room = results.reborrow().init_room();
        room.set_door(self.sibling());
        room.init_next().set_door(self.sibling());
        let mut group = results.init_group();
        group.set_worker(self.sibling());
        group.init_deeper().init_room().set_door(self.sibling());
        Ok(())
    }

    fn later(&self, _: worker::LaterParams, results: worker::LaterResults<'_>) -> Result<()> {
        self.tell(Event::Later(results.defer()?));
        Ok(())
    }

    fn forward(&self, params: worker::ForwardParams, results: worker::ForwardResults<'_>) -> Result<()> {
        let params = params.get()?;
        let mut request = params.get_to()?.add_request();
        request.get().set_a(params.get_a());
        request.get().set_b(params.get_b());
        results.tail_call(request)
    }

    fn linger(&self, params: worker::LingerParams, results: worker::LingerResults<'_>) -> Result<()> {
        let note = params.get()?.get_note()?.to_string()?;
        self.tell(Event::Lingering(note.clone(), results.cancellation().clone()));
        results.cancellation().wait()?;
        assert!(results.is_canceled());
        self.tell(Event::Canceled(note));
        Err(Error::failed("nobody hears this"))
    }

    fn ahead(&self, _: worker::AheadParams, mut results: worker::AheadResults<'_>) -> Result<()> {
        results.get().init_room().set_door(self.sibling());
        results.set_pipeline()?;
        let (go, gone) = unbounded();
        self.tell(Event::Ahead(go));
        gone.recv_timeout(DEADLINE).expect("told to go on");
        results.get().set_name("after all");
        Ok(())
    }

    fn beside(&self, params: worker::BesideParams, mut results: worker::BesideResults<'_>) -> Result<()> {
        results.allow_next();
        let text = params.get()?.get_text()?.to_string()?;
        let (go, gone) = unbounded();
        self.tell(Event::Beside(text.clone(), go));
        gone.recv_timeout(DEADLINE).expect("told to go on");
        results.get().set_text(&*text);
        Ok(())
    }

    fn who(&self, _: worker::WhoParams, mut results: worker::WhoResults<'_>) -> Result<()> {
        let (connection, peer) = (results.connection(), results.peer());
        let mut results = results.get();
        results.set_connected(connection.is_some());
        if let Some(peer) = peer {
            results.set_peer(&*peer.to_string());
        }
        Ok(())
    }

    fn call(&self, params: worker::CallParams, mut results: worker::CallResults<'_>) -> Result<()> {
        let params = params.get()?;
        let sum = params.get_callback()?.add(|mut request| {
            request.set_a(params.get_a());
            request.set_b(params.get_b());
        });
        results.set(sum.wait()?.get()?)
    }

    fn next(&self, _: worker::NextParams, mut results: worker::NextResults<'_>) -> Result<()> {
        results.get().set_worker(self.sibling());
        Ok(())
    }

    fn keep(&self, params: worker::KeepParams, mut results: worker::KeepResults<'_>) -> Result<()> {
        let mut kept = self.kept.lock().unwrap();
        results.get().set_kept(std::mem::replace(&mut *kept, params.get()?.get_worker()?));
        Ok(())
    }
}
