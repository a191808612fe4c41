//! What each holds the next of, as long as a peer likes to make it: it is dropped, and answered, on a thread with a
//! small stack.

use std::cell::RefCell;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use capnp_threads::{
    Call, Capability, Client, ClientFulfiller, Deferred, ExceptionKind, Pipeline, Pool, Promise, Response,
    Result, Stream, Threads, Vat,
};

use crate::support::wires::{reaches, Two, Wire};
use crate::support::*;

/// How long the chains are.
const LENGTH: usize = 100_000;
/// The same of chains whose links are made by calls, so that they are made in time. 26 bytes of the stack for each link
/// would be too much.
const CALLS: usize = 10_000;

/// Runs `body` on a thread whose stack is small, and waits for its end.
#[track_caller]
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let run = move || {
        body();
        tell.send(()).unwrap();
    };
    let small = thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap();
    told.recv_timeout(DEADLINE).expect("the thread gets to its end");
    small.join().unwrap();
}

/// An object that holds something, and answers with nothing.
fn holding<T: Send + Sync + 'static>(held: T) -> Client {
    object(move |call| {
        let _ = &held;
        reply(call, "")
    })
}

/// The end of a chain, and what tells that it has been dropped.
fn end() -> (Client, crossbeam_channel::Receiver<()>) {
    let (alive, gone) = crossbeam_channel::bounded::<()>(0);
    (holding(alive), gone)
}

#[track_caller]
fn assert_gone(gone: &crossbeam_channel::Receiver<()>) {
    assert_eq!(gone.recv_timeout(DEADLINE), Err(crossbeam_channel::RecvTimeoutError::Disconnected));
}

/// Makes a chain of links, each out of the one before, drops it on a small stack, and sees that its end has gone.
#[track_caller]
fn goes(length: usize, link: impl Fn(Client) -> Client) {
    let (last, gone) = end();
    let first = (0..length).fold(last, |next, _| link(next));
    on_a_small_stack(move || drop(first));
    assert_gone(&gone);
}

/// A call of an object in place with a capability, which is given to `keep`.
fn called<K: Send + 'static>(
    next: &Client,
    keep: fn(&mut Call) -> Result<K>,
) -> (capnp_threads::RemotePromise, K) {
    let kept: Arc<Mutex<Option<K>>> = Arc::default();
    let keeps = kept.clone();
    let keeping = move |call: &mut Call| {
        *keeps.lock().unwrap() = Some(keep(call)?);
        Ok(())
    };
    let sent = with_cap(&Client::with_pool(server(keeping), Pool::in_place()), 0, next).send();
    let kept = kept.lock().unwrap().take().expect("it was called in place");
    (sent, kept)
}

/// Gives back the capability that it is called with.
fn giving(call: &mut Call) -> Result<()> {
    let given = cap(call)?;
    reply_cap(call, &given);
    Ok(())
}

#[test]
fn chain_of_objects_is_dropped_on_a_small_stack() {
    goes(LENGTH, holding);
}

#[test]
fn chain_of_objects_in_place_is_dropped_on_a_small_stack() {
    goes(LENGTH, |next| {
        let object = server(move |call| {
            let _ = &next;
            reply(call, "")
        });
        Client::with_pool(object, Pool::in_place())
    });
}

/// Promises, each of which is the next, and the last of which is `last`.
fn promises(last: Client) -> Client {
    let (first, fulfiller) = Client::promise();
    let fulfiller = (0..LENGTH).fold(fulfiller, |fulfiller, _| {
        let (next, fulfill_next) = Client::promise();
        fulfiller.fulfill(next);
        fulfill_next
    });
    fulfiller.fulfill(last);
    first
}

#[test]
fn chain_of_fulfilled_promises_is_dropped_on_a_small_stack() {
    let (last, gone) = end();
    let first = promises(last);
    on_a_small_stack(move || drop(first));
    assert_gone(&gone);
}

#[test]
fn chain_of_objects_and_fulfilled_promises_is_dropped_on_a_small_stack() {
    goes(LENGTH, |next| {
        let (promise, fulfiller) = Client::promise();
        fulfiller.fulfill(next);
        holding(promise)
    });
}

fn holding_a_promise_that_is_waited_in(next: Client) -> Client {
    let (promise, fulfiller) = Client::promise();
    let sent: Promise<Response> = with_cap(&promise, 0, &next).send().promise;
    let held: (ClientFulfiller, Mutex<Promise<Response>>) = (fulfiller, Mutex::new(sent));
    holding(held)
}

/// Promises with calls that wait in them, whose params hold the next.
#[test]
fn chain_of_promises_with_waiting_calls_is_dropped_on_a_small_stack() {
    goes(CALLS, holding_a_promise_that_is_waited_in);
}

#[test]
fn chain_of_objects_that_hold_results_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, ()) = called(&next, giving);
        let response: Response = sent.soon().unwrap();
        holding(response)
    });
}

fn holding_a_promise_for_results(next: Client) -> Client {
    let (sent, ()) = called(&next, giving);
    holding(Mutex::new(sent.promise))
}

#[test]
fn chain_of_objects_that_hold_unanswered_calls_is_dropped_on_a_small_stack() {
    goes(CALLS, holding_a_promise_for_results);
}

#[test]
fn chain_of_objects_that_hold_pipelines_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, ()) = called(&next, giving);
        let pipeline: Pipeline = sent.pipeline;
        holding(pipeline)
    });
}

/// Capabilities in results that have yet to come.
#[test]
fn chain_of_objects_that_hold_pipelined_clients_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, deferred) = called(&next, |call| call.defer());
        let ahead = sent.pipeline.client();
        deferred.answer(|results| {
            put(results, &next);
            Ok(())
        });
        holding(ahead)
    });
}

/// The duty to answer a call whose params hold the next.
#[test]
fn chain_of_objects_that_hold_deferred_calls_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, deferred): (_, Deferred) = called(&next, |call| call.defer());
        holding(Mutex::new((sent.promise, deferred)))
    });
}

/// Closures that wait for an answer, and hold the next.
#[test]
fn chain_of_answer_callbacks_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (promise, fulfiller) = Client::promise();
        send(&promise, 0, "").on_ready(move |_| drop(next));
        holding(fulfiller)
    });
}

/// Closures that are told of a cancellation, and hold the next.
#[test]
fn chain_of_cancellation_callbacks_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, deferred) = called(&Client::null(), |call| call.defer());
        deferred.cancellation().on_cancel(move || drop(next));
        holding(Mutex::new((deferred, sent.promise)))
    });
}

/// Values that a closure made of an answer, and that no thread took.
#[test]
fn chain_of_mapped_values_is_dropped_on_a_small_stack() {
    goes(CALLS, |next| {
        let (sent, ()) = called(&Client::null(), |call| reply(call, ""));
        let made: Promise<Client> = sent.map(move |_| Ok(next));
        holding(Mutex::new(made))
    });
}

/// Promises that are made out of promises, one after the other.
#[test]
fn chain_of_mapped_promises_is_dropped_on_a_small_stack() {
    let (promise, fulfiller) = Client::promise();
    let first: Promise<usize> = send(&promise, 0, "").map(|_| Ok(0));
    let last = (0..LENGTH).fold(first, |promise, _| promise.map(|n| Ok(n + 1)));
    on_a_small_stack(move || fulfiller.fulfill(echo()));
    assert_eq!(last.soon().unwrap(), LENGTH);
    let (promise, fulfiller) = Client::promise();
    let first: Promise<usize> = send(&promise, 0, "").map(|_| Ok(0));
    let last = (0..LENGTH).fold(first, |promise, _| promise.map(|n| Ok(n + 1)));
    on_a_small_stack(move || drop(last));
    drop(fulfiller);
}

/// Errors that hold clients which are broken with errors, and so on.
#[test]
fn chain_of_errors_with_sources_is_dropped_on_a_small_stack() {
    #[derive(Debug, thiserror::Error)]
    #[error("a capability is missing")]
    struct Missing(Client);
    goes(LENGTH, |next| {
        Client::broken(capnp_threads::Exception::failed("broken").with_source(Missing(next)))
    });
}

/// At the end of its thread, when what belongs to the thread is gone.
#[test]
fn chain_in_a_thread_local_is_dropped_at_the_end_of_its_thread() {
    thread_local! {
        static KEPT: RefCell<Option<Client>> = const { RefCell::new(None) };
    }
    let (last, gone) = end();
    let first = (0..LENGTH).fold(last, |next, _| holding(next));
    let run = move || {
        // It is there before anything of the crate's is used on this thread, and goes after it.
        KEPT.with(|kept| *kept.borrow_mut() = Some(first));
        assert_eq!(ask(&echo(), 0, "used").unwrap(), "used");
    };
    thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
    assert_gone(&gone);
}

/// Objects that pass each call on to the next, and its answer back.
#[test]
fn answer_passes_through_a_chain_of_objects_on_a_small_stack() {
    let last = Client::with_pool(server(|call| reply(call, "the end")), Pool::in_place());
    let first = (0..CALLS).fold(last, |next, _| {
        let passing_on = server(move |call| {
            let deferred = call.defer()?;
            send(&next, 0, "").on_ready(move |answer| match answer {
                Ok(answer) => deferred.answer(|mut results| Ok(results.set_as(&*said(&answer))?)),
                Err(e) => deferred.fail(e),
            });
            Ok(())
        });
        Client::with_pool(passing_on, Pool::in_place())
    });
    on_a_small_stack(move || assert_eq!(ask(&first, 0, "").unwrap(), "the end"));
}

/// A canceled call that went through many objects is canceled in all.
#[test]
fn cancellation_passes_through_a_chain_of_objects_on_a_small_stack() {
    let (tell, told) = crossbeam_channel::bounded(1);
    let last = server(move |call| {
        let (deferred, tell) = (call.defer()?, tell.clone());
        let canceled = deferred.cancellation().clone();
        canceled.on_cancel(move || {
            drop(deferred);
            tell.send(()).unwrap();
        });
        Ok(())
    });
    let last = Client::with_pool(last, Pool::in_place());
    let first = (0..CALLS).fold(last, |next, _| {
        let passing_on = server(move |call| {
            let deferred = call.defer()?;
            let sent = send(&next, 0, "");
            deferred.cancellation().clone().on_cancel(move || drop((sent, deferred)));
            Ok(())
        });
        Client::with_pool(passing_on, Pool::in_place())
    });
    on_a_small_stack(move || {
        drop(send(&first, 0, ""));
        told.soon();
    });
}

/// A client is printed as what it has become.
#[test]
fn chain_of_promises_is_printed_on_a_small_stack() {
    let first = promises(echo());
    on_a_small_stack(move || assert!(format!("{first:?}").starts_with("Client(promise")));
}

/// A peer has objects made that hold each other, and lets them go at once. Its connection goes on, or ends.
#[test]
fn chain_made_by_a_peer_is_dropped_when_released_or_disconnected() {
    const LENGTH: usize = 4_000;
    for threads in [Threads::Lending, Threads::Strict] {
        for released in [true, false] {
            let (last, gone) = end();
            let last = Mutex::new(Some(last));
            let wrapping = object(move |call| {
                let next = cap(call)?;
                let next = if next.is_null() { last.lock().unwrap().take().unwrap() } else { next };
                reply_cap(call, &holding(next));
                Ok(())
            });
            let vat = |vat: Vat| vat.threads(threads);
            let there = vat(Vat::new()).bootstrap(wrapping);
            let two = Two::new(Wire::Tcp, vat(Vat::new()), there, &capnp_threads::Limits::default());
            let remote = two.here.bootstrap::<Client>();
            let first = (0..LENGTH).fold(Client::null(), |next, _| {
                given_back(&with_cap(&remote, 0, &next).send().soon().unwrap())
            });
            assert!(reaches(&two.there, |tables| tables.exports() <= 2));
            if released {
                drop(first);
                assert_gone(&gone);
                assert!(!given_back(&with_cap(&remote, 0, &echo()).send().soon().unwrap()).is_null());
            } else {
                two.cut.cut();
                assert_gone(&gone);
                two.there.wait_closed().unwrap();
            }
        }
    }
}

/// An object that asks something when it is dropped, and tells what it has heard; and the objects that it holds.
struct Asking {
    asks: fn(&Client) -> Result<String>,
    asked: Client,
    heard: crossbeam_channel::Sender<Result<String>>,
}

impl capnp_threads::Server for Asking {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        reply(call, "")
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.heard.send((self.asks)(&self.asked));
    }
}

/// The ways to ask, and to wait for the answer.
const WAYS: [fn(&Client) -> Result<String>; 4] = [
    |asked| ask(asked, 0, "asked"),
    |asked| {
        let stream = Stream::new();
        stream.send(request(asked, 0, "streamed"))?;
        stream.finish().map(|()| "asked".into())
    },
    |asked| {
        let (promise, fulfiller) = Client::promise();
        let answer = send(&promise, 0, "asked");
        fulfiller.fulfill(asked.clone());
        answer.soon().map(|answer| said(&answer))
    },
    |asked| send(asked, 0, "asked").map(|answer| Ok(said(&answer))).soon(),
];

/// However deep it lies, what an object asks when it is dropped is answered: by objects on threads, in place, and
/// behind connections, and behind promises that yet others are.
#[test]
fn call_in_a_drop_at_any_depth_is_answered() {
    let in_place = Client::with_pool(server(|call| reply(call, &text(call)?)), Pool::in_place());
    let two = [Threads::Lending, Threads::Strict].map(|threads| {
        let vat = Vat::new().threads(threads);
        Two::new(Wire::Tcp, vat.clone(), vat.bootstrap(in_place.clone()), &capnp_threads::Limits::default())
    });
    let links: [fn(Client) -> Client; 3] =
        [holding, holding_a_promise_for_results, holding_a_promise_that_is_waited_in];
    for asked in [echo(), in_place, two[0].here.bootstrap(), two[1].here.bootstrap()] {
        let all = links.map(|link| (WAYS[0], link)).into_iter().chain(WAYS.map(|asks| (asks, links[2])));
        for (asks, link) in all {
            for depth in (1..=3).chain(13..=18).chain(29..=34) {
                let (heard, hears) = crossbeam_channel::unbounded();
                let asking = Asking { asks, asked: asked.clone(), heard };
                let first = (1..depth).fold(Client::new(asking), |next, _| link(next));
                thread::spawn(move || drop(first));
                let heard = hears.recv_timeout(DEADLINE).unwrap_or_else(|e| panic!("at depth {depth}: {e}"));
                assert_eq!(heard.unwrap(), "asked", "at depth {depth}");
            }
        }
    }
}

/// Many objects that ask when they are dropped, and that one object holds. Where they lie so deep that all but one of
/// them are put off, some ask while others wait, but so many that the stack would not hold them are refused.
#[test]
fn calls_in_many_drops_side_by_side_are_answered_or_refused() {
    const MANY: usize = 200;
    for depth in [1, 10, 20] {
        let (heard, hears) = crossbeam_channel::unbounded();
        let asking = |_| Client::new(Asking { asks: WAYS[0], asked: echo(), heard: heard.clone() });
        let all: Vec<_> = (0..MANY).map(asking).collect();
        let first = (1..depth).fold(holding(all), |next, _| holding(next));
        on_a_small_stack(move || drop(first));
        drop(heard);
        let (answered, refused): (Vec<_>, Vec<_>) = hears.iter().partition(Result::is_ok);
        assert_eq!(answered.len() + refused.len(), MANY);
        assert!(depth == 20 || refused.is_empty(), "{refused:?}");
        for why in refused {
            assert_eq!(why.unwrap_err().kind(), ExceptionKind::Overloaded);
        }
    }
}
