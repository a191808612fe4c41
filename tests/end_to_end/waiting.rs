//! All the ways to wait for an answer: blocking, with a deadline, by callback, channel, and future.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use capnp_threads::{
    Capability, Client, Connection, Limits, Promise, RemotePromise, Response, Result, Threads, Vat,
};
use crossbeam_channel::{bounded, select, unbounded, Receiver, Sender};

use crate::support::wires::{Two, Wire};
use crate::support::{ask, cap, echo, object, reply, said, send, text, why, with_cap, Soon, DEADLINE};

struct Woken(Sender<()>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Nobody listens any more once the future has been polled to its end.
        let _ = self.0.send(());
    }
}

/// The smallest executor: polls a future when it says that it can go on.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let (wake, woken) = unbounded();
    let waker = Waker::from(Arc::new(Woken(wake)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        (&woken).soon();
    }
}

/// An object that answers each call with its text when it is told to, and the telling.
fn held() -> (Client, Sender<()>) {
    let (go, gone) = unbounded::<()>();
    let held = object(move |call| {
        gone.recv().unwrap();
        let text = text(call)?;
        reply(call, &text)
    });
    (held, go)
}

fn near_and_far(object: &Client, test: impl Fn(&Client)) {
    test(object);
    let two = Two::offering(Wire::Tcp, object);
    test(&two.here.bootstrap::<Client>());
    two.both_empty();
}

#[test]
fn a_wait_with_a_deadline_gives_the_promise_back() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let call = send(client, 0, "late");
        let call = call.wait_timeout(Duration::ZERO).unwrap_err().into_pending().unwrap();
        let call = call.wait_timeout(Duration::from_millis(2)).unwrap_err().into_pending().unwrap();
        let RemotePromise { promise, pipeline } = call.try_take().unwrap_err().into_pending().unwrap();
        let promise = promise.wait_until(Instant::now()).unwrap_err().into_pending().unwrap();
        assert!(!promise.is_ready());
        go.send(()).unwrap();
        assert_eq!(said(&promise.soon().unwrap()), "late");
        assert!(pipeline.client().is_null(), "a text has no capability");
    });
}

/// No time is too long to be named.
#[test]
fn wait_with_the_longest_time_ends_with_the_answer() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let call = send(client, 0, "x");
        go.send(()).unwrap();
        assert!(call.wait_timeout(Duration::MAX).is_ok());
        go.send(()).unwrap();
        let request = crate::support::request(client, 0, "x").timeout(Duration::MAX);
        assert!(request.send().soon().is_ok());
    });
    let two = Two::offering(Wire::Memory, &echo());
    two.here.close(Duration::MAX).unwrap();
}

#[test]
fn a_callback_gets_the_answer_once() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let (put, got) = unbounded();
        send(client, 0, "called").on_ready(move |result| put.send(said(&result.unwrap())).unwrap());
        assert!(got.try_recv().is_err());
        go.send(()).unwrap();
        assert_eq!((&got).soon(), "called");
        assert!(got.recv().is_err(), "the callback is dropped after it ran");
    });
}

/// What is there already is given at once, on the thread that asks.
#[test]
fn callback_on_an_answer_that_has_come_runs_at_once_on_the_same_thread() {
    let call = send(&echo(), 0, "there");
    let promise = call.promise.map(|response| Ok(said(&response)));
    let deadline = Instant::now() + DEADLINE;
    while !promise.is_ready() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let (put, got) = unbounded();
    let me = std::thread::current().id();
    promise.on_ready(move |result| put.send((result.unwrap(), std::thread::current().id())).unwrap());
    assert_eq!(got.try_recv().unwrap(), ("there".to_owned(), me));
}

#[test]
fn channels_can_be_selected() {
    let (slow, go) = held();
    let two = Two::offering(Wire::Tcp, &slow);
    let one: Receiver<Result<Response>> = send(&two.here.bootstrap::<Client>(), 0, "slow").into_channel();
    let other = send(&echo(), 0, "quick").into_channel();
    let first = select! {
        recv(one) -> answer => answer,
        recv(other) -> answer => answer,
        default(DEADLINE) => panic!("no answer"),
    };
    assert_eq!(said(&first.unwrap().unwrap()), "quick");
    go.send(()).unwrap();
    select! {
        recv(one) -> answer => assert_eq!(said(&answer.unwrap().unwrap()), "slow"),
        default(DEADLINE) => panic!("no answer"),
    }
    assert!(one.recv().is_err(), "there is only one answer");
}

#[test]
fn futures_are_polled_to_their_end() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let first = send(client, 0, "one");
        let second = send(client, 0, "two");
        let both = async {
            let ahead = first.promise.await?;
            Ok::<_, capnp_threads::Error>((said(&ahead), said(&second.promise.await?)))
        };
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(block_on(both).unwrap(), ("one".to_owned(), "two".to_owned()));
    });
}

/// The future moves between threads and between tasks.
#[test]
fn future_wakes_the_task_that_polled_it_last() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let (wake, woken) = unbounded();
        let mut promise = send(client, 0, "moved").promise;
        let mut poll = |waker: &Waker| std::pin::Pin::new(&mut promise).poll(&mut Context::from_waker(waker));
        let (forgotten, not_woken) = unbounded();
        assert!(poll(&Waker::from(Arc::new(Woken(forgotten)))).is_pending());
        assert!(not_woken.try_recv().is_err());
        assert!(poll(&Waker::from(Arc::new(Woken(wake)))).is_pending());
        go.send(()).unwrap();
        (&woken).soon();
        assert!(not_woken.recv().is_err(), "its waker is dropped unused");
        let Poll::Ready(Ok(response)) = poll(Waker::noop()) else { panic!("woken too early") };
        assert_eq!(said(&response), "moved");
    });
}

/// A way to wait, given a connection and a client over it.
type Wait = fn(&Connection, &Client) -> Result<()>;

/// Each of them, to be tried on a connection's callback thread.
const WAITS: [(&str, Wait); 5] = [
    ("an answer", |_, remote| send(remote, 0, "").wait().map(drop)),
    ("a promise", |_, remote| remote.resolve().map(drop)),
    ("the end", |connection, _| connection.wait_closed().map(drop)),
    ("a stream", |_, remote| {
        let stream = capnp_threads::Stream::new();
        stream.send(crate::support::request(remote, 0, ""))?;
        stream.finish()
    }),
    ("an answer for a while", |_, remote| {
        let outcome = send(remote, 0, "").wait_timeout(DEADLINE);
        outcome.map(drop).map_err(|why| why.into_failed().expect("refused at once"))
    }),
];

#[test]
fn waiting_in_a_callback_is_refused() {
    for (name, wait) in WAITS {
        let (held, go) = held();
        let two = Two::offering(Wire::Tcp, &held);
        let (put, got) = bounded(1);
        let (connection, remote) = (two.here.clone(), two.here.bootstrap::<Client>());
        send(&remote.clone(), 0, "").on_ready(move |_| {
            let unresolved = send(&remote, 0, "").pipeline.client();
            let remote = if name == "a promise" { unresolved } else { remote };
            put.send(wait(&connection, &remote).map(drop)).unwrap();
        });
        go.send(()).unwrap();
        let refused = why((&got).soon());
        assert!(refused.contains("own thread"), "{name}: {refused}");
        // The connection goes on.
        drop(go);
        assert!(two.here.is_connected());
    }
}

/// Calls made in a callback are sent, and their answers come.
#[test]
fn calls_made_in_a_callback_are_answered() {
    let two = Two::offering(Wire::Tcp, &echo());
    let (put, got) = unbounded();
    let remote = two.here.bootstrap::<Client>();
    let again = remote.clone();
    send(&remote, 0, "first").on_ready(move |_| {
        send(&again, 0, "second").on_ready(move |second| put.send(said(&second.unwrap())).unwrap());
    });
    assert_eq!((&got).soon(), "second");
}

/// A callback that panics harms neither the connection nor the object that answered.
#[test]
fn callback_that_panics_leaves_connection_and_object_working() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        send(client, 0, "").on_ready(|_| panic!("on purpose"));
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(ask(client, 0, "alive").unwrap(), "alive");
    });
}

/// A thread that makes calls in quick succession reads what arrives, and then does not come again: what arrives after that
/// comes all the same, to callbacks and to objects.
#[test]
fn messages_that_arrive_after_quick_calls_are_delivered() {
    for wire in Wire::ALL {
        let (hold, held) = unbounded();
        let asked = object(move |call| match call.method_id() {
            0 => text(call).and_then(|text| reply(call, &text)),
            _ => {
                hold.send((cap(call)?, call.defer()?)).unwrap();
                Ok(())
            }
        });
        let two = Two::offering(wire, &asked);
        let remote = two.here.bootstrap::<Client>();
        let (told, tells) = unbounded();
        let told_of = told.clone();
        let listener = object(move |call| {
            told_of.send(text(call)?).unwrap();
            Ok(())
        });
        with_cap(&remote, 1, &listener).send().on_ready(move |answer| {
            told.send(said(&answer.unwrap())).unwrap();
        });
        let (listener, deferred) = (&held).soon();
        for i in 0..100 {
            ask(&remote, 0, &i.to_string()).unwrap();
        }
        let answered = send(&listener, 0, "called");
        assert_eq!((&tells).soon(), "called", "over {wire:?}");
        answered.soon().unwrap();
        for i in 0..100 {
            ask(&remote, 0, &i.to_string()).unwrap();
        }
        deferred.answer(|mut results| Ok(results.set_as("answered")?));
        assert_eq!((&tells).soon(), "answered", "over {wire:?}");
    }
}

/// Whether the value is there already, comes from this vat, or comes over a connection.
#[test]
fn a_panic_in_map_is_the_error_of_the_mapped_promise() {
    let (held, go) = held();
    near_and_far(&held, |client| {
        let mapped = send(client, 0, "x").map(|_| -> Result<()> { panic!("bad map") });
        go.send(()).unwrap();
        assert!(why(mapped.soon()).contains("the function given to `map` panicked: bad map"));
        let call = send(client, 0, "x");
        go.send(()).unwrap();
        while !call.is_ready() {
            std::thread::yield_now();
        }
        let mapped = call.map(|_| -> Result<()> { std::panic::panic_any(7) }).map(Ok);
        assert!(why(mapped.soon()).contains("panicked: (no message)"));
    });
}

/// The thread that answers panics; its caller is told of that.
#[test]
fn a_panic_in_filling_results_in_later_is_the_answer() {
    let (tell, told) = unbounded();
    let later = object(move |call| {
        tell.send(call.defer()?).unwrap();
        Ok(())
    });
    near_and_far(&later, |client| {
        let call = send(client, 0, "");
        let duty = (&told).soon();
        let answering = std::thread::spawn(move || duty.answer(|_| panic!("bad results")));
        assert!(answering.join().is_err());
        assert!(why(call.soon()).contains("panicked: bad results"));
    });
}

/// The answer comes while a task gives the future up for another one. Five connections in each mode, so that the reactor
/// reads for some of them.
#[test]
fn a_future_that_changes_hands_while_its_answer_comes_is_woken() {
    for threads in [Threads::Lending, Threads::Strict] {
        let vat = Vat::new().threads(threads);
        let offer = vat.clone().bootstrap(echo());
        let connect = |_| Two::new(Wire::Tcp, vat.clone(), offer.clone(), &Limits::default());
        let twos: Vec<Two> = (0..5).map(connect).collect();
        std::thread::scope(|scope| {
            for two in &twos {
                scope.spawn(|| {
                    let client = two.here.bootstrap::<Client>();
                    (0..400).for_each(|n| change_hands(send(&client, 0, "moved").promise, n));
                });
            }
        });
    }
}

/// Polls for two tasks, after as many looks at the promise each as `n` says: the second is woken unless the value is
/// found before.
fn change_hands(mut promise: Promise<Response>, n: u32) {
    let (forgotten, _not_woken) = unbounded();
    let (wake, woken) = unbounded();
    for (sender, looks) in [(forgotten, n % 7), (wake.clone(), n % 50)] {
        (0..looks).for_each(|_| {
            std::hint::black_box(promise.is_ready());
        });
        let waker = Waker::from(Arc::new(Woken(sender)));
        if std::pin::Pin::new(&mut promise).poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
    }
    (&woken).soon();
    assert!(promise.is_ready());
}
