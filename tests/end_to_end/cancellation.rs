//! A caller that no longer wants an answer: how its callee learns of it, and what it does not end.

use capnp_threads::{Call, Capability, Client, RemotePromise, Result, Stream};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{ask, cap, object, reply, reply_cap, request, said, send, text, why, with_cap, Soon};

/// What a method tells of itself.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Entered,
    Canceled(String),
}
use Event::{Canceled, Entered};

fn near_and_far(object: &Client, test: impl Fn(&Client)) {
    test(object);
    for wire in [Wire::Memory, Wire::Tcp] {
        let two = Two::offering(wire, object);
        test(&two.here.bootstrap::<Client>());
        two.both_empty();
    }
}

/// An object whose method waits in its own way until it is canceled, and tells.
fn waiting(wait: impl Fn(&mut Call) -> String + Send + Sync + 'static) -> (Client, Receiver<Event>) {
    let (put, got) = unbounded();
    let object = object(move |call| {
        put.send(Entered).unwrap();
        let how = wait(call);
        put.send(Canceled(how)).unwrap();
        Ok(())
    });
    (object, got)
}

fn dropped_call_is_canceled((object, got): (Client, Receiver<Event>), how: &str) {
    near_and_far(&object, |client| {
        let call = send(client, 0, "");
        assert_eq!((&got).soon(), Entered);
        drop(call);
        assert_eq!((&got).soon(), Canceled(how.into()));
    });
}

#[test]
fn canceled_call_sets_the_flag_that_its_method_sees() {
    let polling = waiting(|call| {
        while !call.is_canceled() {
            std::thread::yield_now();
        }
        "flag".into()
    });
    dropped_call_is_canceled(polling, "flag");
}

#[test]
fn canceled_call_ends_its_methods_wait_for_a_cancellation() {
    let waits = waiting(|call| match call.cancellation().wait() {
        Ok(()) => "waited".into(),
        Err(e) => e.to_string(),
    });
    dropped_call_is_canceled(waits, "waited");
}

#[test]
fn canceled_call_runs_the_callback_that_its_method_registered() {
    let registers = waiting(|call| {
        let (put, got) = unbounded();
        call.cancellation().on_cancel(move || put.send("callback".to_owned()).unwrap());
        (&got).soon()
    });
    dropped_call_is_canceled(registers, "callback");
}

/// The method waits for another call, which fails for it, and is canceled in turn.
#[test]
fn canceled_call_ends_its_methods_nested_wait_and_cancels_that_call() {
    let (inner, events) = waiting(|call| {
        call.allow_next();
        call.cancellation().wait().unwrap();
        "inner".into()
    });
    let (put, got) = unbounded();
    let outer = object(move |_| {
        let call = send(&inner, 0, "");
        assert_eq!((&events).soon(), Entered);
        put.send(Entered).unwrap();
        let error = why(call.wait());
        assert!(error.contains("canceled by its caller"), "{error}");
        // The call is dropped with its promise, so that one is canceled too.
        assert_eq!((&events).soon(), Canceled("inner".into()));
        put.send(Canceled("nested".into())).unwrap();
        Ok(())
    });
    dropped_call_is_canceled((outer, got), "nested");
}

/// The method waits for a promise, for the window of a stream, or for the end of a stream.
#[test]
fn canceled_call_ends_every_kind_of_wait_in_its_method() {
    let waits: [fn(&Client) -> Result<()>; 3] = [
        |inner| send(inner, 0, "").pipeline.client().resolve().map(drop),
        |inner| {
            let stream = Stream::with_window(1);
            stream.send(request(inner, 0, "a text"))?;
            stream.send(request(inner, 0, "a text"))?;
            stream.send(request(inner, 0, "a text"))
        },
        |inner| {
            let stream = Stream::new();
            stream.send(request(inner, 0, "a text"))?;
            stream.finish()
        },
    ];
    for wait in waits {
        let inner = object(|call| {
            call.allow_next();
            call.cancellation().wait()
        });
        let two = Two::offering(Wire::Tcp, &inner);
        let remote = two.here.bootstrap::<Client>();
        let outer = waiting(move |_| {
            let error = why(wait(&remote));
            assert!(error.contains("canceled"), "{error}");
            "nested".into()
        });
        dropped_call_is_canceled(outer, "nested");
    }
}

/// Methods wait for the same promise, of this vat or of a peer's, 40 times one after the other.
#[test]
fn repeated_waits_for_a_pending_promise_end_when_their_methods_are_canceled() {
    let (mine, _mine) = Client::promise();
    let (theirs, _theirs) = Client::promise();
    let two = Two::offering(Wire::Tcp, &theirs);
    for promise in [mine, two.here.bootstrap::<Client>()] {
        let (waits, got) = waiting(move |_| why(promise.resolve()));
        for _ in 0..40 {
            let call = send(&waits, 0, "");
            assert_eq!((&got).soon(), Entered);
            drop(call);
            let Canceled(how) = (&got).soon() else { panic!("it is canceled once") };
            assert!(how.contains("canceled"), "{how}");
        }
    }
}

/// A call that waits behind another is never begun once it is canceled.
#[test]
fn call_canceled_in_the_mailbox_never_begins() {
    let (enter, entered) = unbounded();
    let (go, gone) = unbounded::<()>();
    let held = object(move |call| {
        enter.send(text(call)?).unwrap();
        gone.recv().unwrap();
        reply(call, "done")
    });
    let two = Two::offering(Wire::Tcp, &held);
    let remote = two.here.bootstrap::<Client>().resolve().unwrap();
    assert!(reaches(&two.here, |tables| tables.questions() == 0));
    let first = send(&remote, 0, "first");
    assert_eq!((&entered).soon(), "first");
    let second = send(&remote, 0, "second");
    let third = send(&remote, 0, "third");
    drop(second);
    // Its Return, which says that it was canceled, has come.
    assert!(reaches(&two.here, |tables| tables.questions() == 2));
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(said(&first.soon().unwrap()), "done");
    assert_eq!(said(&third.soon().unwrap()), "done");
    assert_eq!(entered.try_iter().collect::<Vec<_>>(), ["third"]);
}

/// Keeping the pipeline, or a client of it, keeps the call going; so does a callback or a channel.
#[test]
fn pipeline_client_callback_or_channel_keeps_a_call_running() {
    let keeps: [fn(RemotePromise) -> Box<dyn std::any::Any>; 5] = [
        |call| Box::new(call.promise),
        |call| Box::new(call.pipeline),
        |call| Box::new(call.pipeline.client()),
        |call| Box::new(call.into_channel()),
        |call| Box::new(send(&call.pipeline.client(), 1, "")),
    ];
    let (enter, entered) = unbounded();
    let (go, gone) = unbounded::<()>();
    let (tell, told) = unbounded();
    let held = object(move |call| {
        enter.send(()).unwrap();
        gone.recv().unwrap();
        tell.send(call.is_canceled()).unwrap();
        reply_cap(call, &object(|call| reply(call, "ahead")));
        Ok(())
    });
    near_and_far(&held, |client| {
        for keep in keeps {
            let kept = keep(send(client, 0, ""));
            (&entered).soon();
            // A round trip behind: had the call been finished, its method would know by the answer to this.
            let behind = with_cap(client, 0, client).send();
            go.send(()).unwrap();
            assert!(!(&told).soon());
            (&entered).soon();
            go.send(()).unwrap();
            behind.soon().unwrap();
            (&told).soon();
            drop(kept);
        }
    });
}

/// A client of the object can go while a call on it is under way.
#[test]
fn dropping_a_client_cancels_no_call_on_it() {
    let (enter, entered) = unbounded();
    let (go, gone) = unbounded::<()>();
    let held = object(move |call| {
        enter.send(()).unwrap();
        gone.recv().unwrap();
        assert!(!call.is_canceled());
        reply(call, "done")
    });
    for wire in Wire::ALL {
        let two = Two::offering(wire, &held);
        let remote = two.here.bootstrap::<Client>();
        let call = send(&remote, 0, "");
        (&entered).soon();
        drop(remote);
        assert!(reaches(&two.there, |tables| tables.exports() == 0));
        go.send(()).unwrap();
        assert_eq!(said(&call.soon().unwrap()), "done");
    }
}

/// A pipelined call that is dropped no longer keeps the call that it waits for.
#[test]
fn dropping_a_pipelined_call_cancels_the_call_that_it_waits_for() {
    dropped_pipeline(waiting(|call| {
        call.cancellation().wait().unwrap();
        "waited".into()
    }));
}

fn dropped_pipeline((object, got): (Client, Receiver<Event>)) {
    near_and_far(&object, |client| {
        let call = send(client, 0, "");
        assert_eq!((&got).soon(), Entered);
        let ahead = send(&call.pipeline.client(), 0, "");
        let further = send(&ahead.pipeline.client(), 0, "");
        drop((call, ahead, further));
        assert_eq!((&got).soon(), Canceled("waited".into()));
    });
}

/// However long the chain is that each call of keeps the one before.
#[test]
fn dropping_a_long_chain_of_pipelined_calls_cancels_the_first() {
    let (object, got) = waiting(|call| {
        call.cancellation().wait().unwrap();
        "waited".into()
    });
    let first = send(&object, 0, "");
    assert_eq!((&got).soon(), Entered);
    let mut last = first;
    for _ in 0..20_000 {
        last = send(&last.pipeline.client(), 0, "");
    }
    assert!(got.try_recv().is_err());
    drop(last);
    assert_eq!((&got).soon(), Canceled("waited".into()));
}

/// The failure of a long chain takes no deep stack.
#[test]
fn a_long_chain_of_pipelined_calls_fails_with_the_first() {
    let (go, gone) = unbounded::<()>();
    let object = object(move |_| {
        gone.recv().unwrap();
        Err(capnp_threads::Error::failed("on purpose"))
    });
    let mut last = send(&object, 0, "");
    for _ in 0..20_000 {
        last = send(&last.pipeline.client(), 0, "");
    }
    go.send(()).unwrap();
    assert!(why(last.soon()).contains("on purpose"));
}

/// What waits in a promise, and is canceled, no longer counts for anything.
#[test]
fn a_canceled_call_no_longer_waits_in_a_promise() {
    let (promised, fulfiller) = Client::promise();
    let two = Two::offering(Wire::Tcp, &promised);
    let kept = std::sync::Arc::new(());
    let held = kept.clone();
    let mine = object(move |_| {
        let _held = &held;
        Ok(())
    });
    let remote = two.here.bootstrap::<Client>();
    let call = with_cap(&remote, 0, &mine).send();
    drop(mine);
    assert!(reaches(&two.there, |tables| tables.imports() == 1));
    drop(call);
    assert!(reaches(&two.here, |tables| tables.exports() == 0), "its params are gone");
    drop(fulfiller);
}

/// Cancellation goes the way that the call went: forwarded, over two connections, or handed on.
#[test]
fn canceled_call_is_canceled_where_it_was_forwarded_or_handed_on() {
    let (inner, got) = waiting(|call| {
        call.cancellation().wait().unwrap();
        "far away".into()
    });
    let far = Two::offering(Wire::Tcp, &inner);
    let proxied = far.here.bootstrap::<Client>();
    let handing_on = {
        let proxied = proxied.clone();
        object(move |call| call.tail_call(request(&proxied, 0, "")))
    };
    let (promised, fulfiller) = Client::promise();
    fulfiller.fulfill(proxied.clone());
    for offered in [&proxied, &handing_on, &promised] {
        near_and_far(offered, |client| {
            let call = send(client, 0, "");
            assert_eq!((&got).soon(), Entered);
            drop(call);
            assert_eq!((&got).soon(), Canceled("far away".into()));
        });
    }
}

/// The call's own method calls back: both calls end when the first is canceled.
#[test]
fn canceled_call_cancels_its_methods_call_back_to_the_caller() {
    let outer = object(|call| send(&cap(call)?, 0, "").wait().map(drop));
    near_and_far(&outer, |client| {
        let (mine, got) = waiting(|call| {
            call.cancellation().wait().unwrap();
            "called back".into()
        });
        let call = with_cap(client, 0, &mine).send();
        assert_eq!((&got).soon(), Entered);
        drop(call);
        assert_eq!((&got).soon(), Canceled("called back".into()));
    });
}

/// A callback that is registered after the call was canceled runs at once; one of a call that ends, never.
#[test]
fn late_cancellation_callback_runs_at_once_and_none_runs_for_a_call_that_ends() {
    let (keep, kept) = unbounded();
    let (tell, told): (Sender<&str>, _) = unbounded();
    let object = object(move |call| {
        let tell = tell.clone();
        keep.send(call.cancellation().clone()).unwrap();
        if call.method_id() == 0 {
            call.cancellation().wait()?;
        }
        call.cancellation().on_cancel(move || tell.send("told").unwrap());
        reply(call, "done")
    });
    near_and_far(&object, |client| {
        let call = send(client, 0, "");
        let cancel = (&kept).soon();
        drop(call);
        assert_eq!((&told).soon(), "told");
        assert!(cancel.is_canceled());
        assert_eq!(ask(client, 1, "").unwrap(), "done");
        assert!(!(&kept).soon().is_canceled());
        assert!(told.try_recv().is_err());
    });
}
