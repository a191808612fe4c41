//! What a proxy has in service: the calls that it has taken on and handed to another vat, until that has answered
//! them. Without threads, so that all that can happen has happened when it is looked at.

use std::sync::{Arc, Mutex};

use capnp_threads::testing::{pair, Side, Stage};
use capnp_threads::{Capability, Client, Exception, Limits, Options, Pipeline, Pool, RemotePromise};

use crate::support::{limits, object_in, request, send, text};

/// A vat that calls, a proxy, and the vat that serves: each connection has two ends.
struct Proxied {
    calling: [Side; 2],
    serving: [Side; 2],
    pool: Pool,
    remote: Client,
}

/// The proxy's end of a connection with the caller, and of that with the server.
const PROXY: usize = 1;
const TO_SERVER: usize = 0;
const SERVER: usize = 1;

impl Proxied {
    /// A proxy with limits on what the caller sends, and a server that answers when a task of its pool is run.
    fn new(limits: Limits) -> Self {
        let pool = Pool::manual();
        let bootstrap = object_in(&pool, |call| Ok(call.results().set_as("done")?));
        Self::of(limits, pool, bootstrap)
    }

    /// The same with a server of this object, whose methods run in this pool.
    fn of(limits: Limits, pool: Pool, bootstrap: Client) -> Self {
        let serving = pair(Options::default(), with(|o| o.bootstrap = bootstrap), |_| {});
        let proxy = with(|o| {
            o.bootstrap = serving[TO_SERVER].connection().bootstrap::<Client>();
            o.limits = limits;
        });
        let calling = pair(Options::default(), proxy, |_| {});
        let remote = calling[0].connection().bootstrap::<Client>();
        let mut this = Proxied { calling, serving, pool, remote };
        this.settle();
        assert!(!this.remote.is_promise());
        this
    }

    /// Takes all steps but those of the server.
    fn run_without_server(&mut self) {
        let step = |this: &mut Self| this.step_connection() | step(&mut this.serving[TO_SERVER]);
        while step(self) {}
    }

    /// Takes all steps, but runs no method.
    fn run_without_methods(&mut self) {
        loop {
            self.run_without_server();
            if !step(&mut self.serving[SERVER]) {
                return;
            }
        }
    }

    /// Takes a step of each stage of the connection with the caller.
    fn step_connection(&mut self) -> bool {
        let [caller, proxy] = &mut self.calling;
        step(caller) | step(proxy)
    }

    fn settle(&mut self) {
        self.run_without_methods();
        while self.pool.tasks() > 0 {
            self.pool.run_task(0);
            self.run_without_methods();
        }
    }

    /// How many calls of the caller's the proxy has taken on.
    fn taken(&self) -> usize {
        self.calling[PROXY].connection().snapshot().answers()
    }

    fn send(&self, count: usize) -> Vec<RemotePromise> {
        (0..count).map(|_| send(&self.remote, &large())).collect()
    }

    /// All calls are answered in the end, and nothing is left.
    #[track_caller]
    fn end(mut self, calls: Vec<RemotePromise>) {
        self.settle();
        for call in calls {
            let response = call.try_take().expect("it is answered");
            assert_eq!(response.get_as::<capnp::text::Reader>().unwrap(), "done");
        }
        drop(std::mem::take(&mut self.remote));
        self.settle();
        assert!(self.calling[0].connection().snapshot().is_empty());
        assert_eq!(self.taken(), 0);
    }
}

fn step(side: &mut Side) -> bool {
    Stage::ALL.map(|stage| side.step(stage)).contains(&true)
}

fn with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

/// The params of calls of which twenty are at the limit: 1,000 words each, and about 108 for the call.
fn large() -> String {
    "x".repeat(8000)
}

fn twenty_calls() -> Limits {
    limits(|l| l.call_words = 21_600)
}

#[test]
fn a_proxy_takes_on_no_more_than_its_limit_while_the_next_vat_does_not_read() {
    let mut proxied = Proxied::new(twenty_calls());
    let calls = proxied.send(60);
    proxied.run_without_server();
    assert_eq!(proxied.taken(), 20);
    proxied.end(calls);
}

#[test]
fn a_proxy_takes_on_no_more_than_its_limit_while_the_next_vat_does_not_answer() {
    let mut proxied = Proxied::new(twenty_calls());
    let calls = proxied.send(60);
    proxied.run_without_methods();
    assert_eq!(proxied.taken(), 20);
    proxied.pool.run_task(0);
    proxied.run_without_methods();
    assert_eq!(calls.iter().filter(|call| call.promise.is_ready()).count(), 1);
    assert_eq!(proxied.taken(), 20, "one more was read");
    proxied.end(calls);
}

/// The proxy has told the peer that it wants no answer, but that may not even have read the call.
#[test]
fn a_canceled_call_counts_until_it_is_returned() {
    let mut proxied = Proxied::new(twenty_calls());
    let canceled = proxied.send(10);
    proxied.run_without_server();
    drop(canceled);
    proxied.run_without_server();
    assert_eq!(proxied.taken(), 0);
    let calls = proxied.send(60);
    proxied.run_without_server();
    assert_eq!(proxied.taken(), 10);
    proxied.run_without_methods();
    assert_eq!(proxied.taken(), 20, "those that were canceled have been returned");
    proxied.end(calls);
}

/// A call for pipelining alone is never returned: it counts until it is sent on.
#[test]
fn a_call_for_pipelining_alone_counts_until_it_is_sent() {
    let mut proxied = Proxied::new(twenty_calls());
    let held: Vec<_> =
        (0..60).map(|_| request(&proxied.remote, &large()).send_for_pipeline().client()).collect();
    while proxied.step_connection() {}
    assert_eq!(proxied.taken(), 20);
    proxied.settle();
    assert_eq!(proxied.taken(), 60, "they are held, and take no room");
    drop(held);
    proxied.end(Vec::new());
}

/// A snapshot keeps no room taken.
#[test]
fn a_snapshot_of_a_proxy_takes_no_room() {
    let mut proxied = Proxied::new(twenty_calls());
    let calls = proxied.send(60);
    proxied.run_without_methods();
    let snapshot = proxied.serving[TO_SERVER].connection().snapshot();
    assert_eq!(snapshot.questions(), 20);
    proxied.end(calls);
    drop(snapshot);
}

/// Calls on results that are to come: the proxy remembers each place that was called until they are there, and so does the
/// first call on it count until then, though it has been returned.
#[test]
fn a_proxy_remembers_no_more_called_places_than_its_limit() {
    let (pool, session) = (Pool::manual(), Arc::new(Mutex::new(None)));
    let kept = session.clone();
    let bootstrap = object_in(&pool, move |call| {
        if text(call)? != "session" {
            return Ok(call.results().set_as("done")?);
        }
        call.set_pipeline_to(Pipeline::broken(Exception::failed("nothing is here")))?;
        *kept.lock().unwrap() = Some(call.defer()?);
        Ok(())
    });
    let mut proxied = Proxied::of(limits(|l| l.call_words = 10_000), pool, bootstrap);
    for answered in [true, false] {
        let base = send(&proxied.remote, "session");
        proxied.settle();
        let place = |n| base.pipeline.field(n).client();
        let call = |proxied: &mut Proxied, n| {
            let call = send(&place(n), "x");
            proxied.settle();
            call.promise.is_ready().then_some(()).ok_or(call)
        };
        for _ in 0..300 {
            call(&mut proxied, 0).expect("one place takes the room of one call");
        }
        let first_held = (1..300).find_map(|n| call(&mut proxied, n).err().map(|call| (n, call)));
        let (places, held) = first_held.expect("each place takes the room of a call");
        assert!((50..120).contains(&places), "{places} places");
        let proxy = proxied.serving[TO_SERVER].connection();
        assert_eq!(proxy.snapshot().questions(), 1, "the calls themselves have been returned");
        // Answered or canceled, the results are not awaited any more.
        let deferred = session.lock().unwrap().take().expect("the method runs");
        match answered {
            true => deferred.answer(|mut results| Ok(results.set_as("done")?)),
            false => drop((base, deferred)),
        }
        proxied.settle();
        assert!(held.promise.is_ready(), "there is room again");
        drop(held);
        proxied.settle();
    }
    proxied.end(Vec::new());
}
