//! What a method may do: panic, answer later, let others go ahead, and hand its call on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use capnp::MessageSize;
use capnp_threads::generated::rpc_capnp::exception;
use capnp_threads::{Call, Client, Deferred, ExceptionKind, Limits, Result, Vat};
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use crate::support::wires::{Two, Wire};
use crate::support::{
    ask, cap, echo, given_back, object, reply, reply_cap, request, said, send, text, text_in, unexpected,
    why, with_cap, Soon, TEST,
};

/// An object here and the same one there: what a method does must not depend on that.
fn near_and_far(object: &Client, test: impl Fn(&Client)) {
    test(object);
    for wire in [Wire::Memory, Wire::Tcp] {
        let two = Two::offering(wire, object);
        test(&two.here.bootstrap::<Client>());
        two.both_empty();
    }
}

#[test]
fn a_panic_is_an_answer_and_the_object_lives_on() {
    let calls = AtomicUsize::new(0);
    let panicking = object(move |call| {
        let text = text(call)?;
        match calls.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => panic!("a static reason"),
            1 => panic!("a reason with {text}"),
            2 => std::panic::panic_any(7),
            _ => reply(call, &text),
        }
    });
    near_and_far(&panicking, |client| {
        assert!(why(ask(client, 0, "x")).contains("a static reason"));
        let error = ask(client, 0, "details").unwrap_err();
        assert!(error.to_string().contains("a reason with details"), "{error}");
        assert_eq!(error.kind(), ExceptionKind::Failed);
        assert!(why(ask(client, 0, "x")).contains("panicked"));
        assert_eq!(ask(client, 0, "alive").unwrap(), "alive");
    });
}

/// Calls that wait behind one that panics are served, and what was pipelined on it fails.
#[test]
fn panic_in_a_method_fails_pipelined_calls_and_leaves_waiting_calls_served() {
    let (go, gone) = bounded::<()>(0);
    let panicking = object(move |call| match call.method_id() {
        0 => {
            gone.recv().unwrap();
            panic!("on purpose");
        }
        _ => reply(call, "fine"),
    });
    near_and_far(&panicking, |client| {
        let first = send(client, 0, "");
        let ahead = send(&first.pipeline.client(), 1, "");
        let behind = send(client, 1, "");
        go.send(()).unwrap();
        assert!(why(first.soon()).contains("on purpose"));
        assert!(why(ahead.soon()).contains("on purpose"));
        assert_eq!(said(&behind.soon().unwrap()), "fine");
    });
}

/// A method that panics after it has let the next call start, deferred its answer, or handed its call on.
#[test]
fn panic_after_allow_next_defer_or_tail_call_leaves_the_answer_as_it_was_given() {
    let (keep, kept) = unbounded::<Deferred>();
    let target = echo();
    let panicking = object(move |call| {
        match call.method_id() {
            0 => call.allow_next(),
            1 => keep.send(call.defer()?).unwrap(),
            2 => call.tail_call(request(&target, 0, "handed on"))?,
            _ => return reply(call, "alive"),
        }
        panic!("on purpose");
    });
    near_and_far(&panicking, |client| {
        assert!(why(ask(client, 0, "")).contains("on purpose"));
        let deferred = send(client, 1, "");
        (&kept).soon().answer(|mut results| Ok(results.set_as("later")?));
        assert_eq!(said(&deferred.soon().unwrap()), "later");
        assert_eq!(ask(client, 2, "").unwrap(), "handed on");
        assert_eq!(ask(client, 3, "").unwrap(), "alive");
    });
}

fn keeper() -> (Client, Receiver<Deferred>) {
    let (keep, kept) = unbounded();
    let keeper = object(move |call| {
        keep.send(call.defer()?).unwrap();
        Ok(())
    });
    (keeper, kept)
}

/// The object is free for the next call meanwhile, and answers may come in any order.
#[test]
fn deferred_answers_come_from_other_threads_in_any_order() {
    let (keeper, kept) = keeper();
    near_and_far(&keeper, |client| {
        let answers: Vec<_> = (0..10).map(|n| send(client, 0, &n.to_string())).collect();
        let mut deferred: Vec<_> = (0..10).map(|_| (&kept).soon()).collect();
        deferred.reverse();
        std::thread::scope(|scope| {
            for deferred in deferred {
                scope.spawn(move || {
                    let text = text_in(deferred.params()).unwrap();
                    deferred.answer(|mut results| Ok(results.set_as(&*text)?));
                });
            }
        });
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(said(&answer.soon().unwrap()), n.to_string());
        }
    });
}

#[test]
fn a_deferred_answer_may_be_an_error_or_another_call() {
    let (keeper, kept) = keeper();
    let target = echo();
    near_and_far(&keeper, |client| {
        let answer = send(client, 0, "");
        (&kept).soon().fail(capnp_threads::Exception::overloaded("not today"));
        assert_eq!(answer.soon().unwrap_err().kind(), ExceptionKind::Overloaded);
        let answer = send(client, 0, "");
        (&kept).soon().answer(|_| Err(capnp_threads::Error::failed("could not build")));
        assert!(why(answer.soon()).contains("could not build"));
        let answer = send(client, 0, "");
        (&kept).soon().tail_call(request(&target, 0, "handed on"));
        assert_eq!(said(&answer.soon().unwrap()), "handed on");
    });
}

#[test]
fn a_dropped_deferred_answers_with_an_exception() {
    let (keeper, kept) = keeper();
    near_and_far(&keeper, |client| {
        let answer = send(client, 0, "");
        let ahead = send(&answer.pipeline.client(), 0, "");
        drop((&kept).soon());
        assert!(why(answer.soon()).contains("without an answer"));
        assert!(why(ahead.soon()).contains("without an answer"));
    });
}

/// One call at a time unless the method says otherwise.
#[test]
fn calls_on_one_object_run_one_at_a_time() {
    let running = AtomicUsize::new(0);
    let object = object(move |call| {
        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        let text = text(call)?;
        running.fetch_sub(1, Ordering::SeqCst);
        reply(call, &text)
    });
    near_and_far(&object, |client| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(ask(client, 0, "x").unwrap(), "x")));
            }
        });
    });
}

/// Each of these waits until all have been entered: they must run beside each other.
#[test]
fn allow_next_lets_calls_run_beside_each_other() {
    let together = Arc::new(std::sync::Barrier::new(5));
    let object = object(move |call| {
        call.allow_next();
        call.allow_next();
        together.wait();
        reply(call, "together")
    });
    near_and_far(&object, |client| {
        let answers: Vec<_> = (0..5).map(|_| send(client, 0, "")).collect();
        for answer in answers {
            assert_eq!(said(&answer.soon().unwrap()), "together");
        }
    });
}

/// Calls still start in the order in which they came.
#[test]
fn allow_next_keeps_the_order_of_starts() {
    let (put, got) = unbounded();
    let object = object(move |call| {
        put.send(text(call)?).unwrap();
        call.allow_next();
        Ok(())
    });
    near_and_far(&object, |client| {
        let answers: Vec<_> = (0..200).map(|n| send(client, 0, &n.to_string())).collect();
        answers.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        let order: Vec<String> = got.try_iter().collect();
        assert_eq!(order, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

/// Calls that were sent ahead go where the method says, before it has returned.
#[test]
fn set_pipeline_serves_calls_ahead_of_the_answer() {
    let (go, gone) = bounded::<()>(0);
    let early = object(move |call| {
        reply_cap(call, &echo());
        call.set_pipeline()?;
        gone.recv().unwrap();
        Ok(())
    });
    near_and_far(&early, |client| {
        let call = send(client, 0, "");
        let ahead = call.pipeline.client();
        assert_eq!(ask(&ahead, 0, "before").unwrap(), "before");
        assert!(!call.promise.is_ready());
        go.send(()).unwrap();
        let settled = given_back(&call.soon().unwrap());
        assert_eq!(ask(&ahead, 0, "after").unwrap(), "after");
        assert_eq!(ask(&settled, 0, "settled").unwrap(), "settled");
        assert!(ahead == settled);
    });
}

/// A method fails after it has said where pipelined calls go: they went there, the call itself fails.
#[test]
fn error_after_set_pipeline_fails_the_call_and_not_its_pipelined_calls() {
    let early = object(move |call| {
        reply_cap(call, &echo());
        call.set_pipeline()?;
        Err(capnp_threads::Error::failed("after all"))
    });
    near_and_far(&early, |client| {
        assert!(why(send(client, 0, "").soon()).contains("after all"));
    });
}

#[test]
fn a_call_can_be_handed_on_only_once() {
    let target = echo();
    let (tell, told) = unbounded();
    let object = object(move |call: &mut Call| {
        call.tail_call(request(&target, 0, "first"))?;
        tell.send(why(call.tail_call(request(&target, 0, "second")))).unwrap();
        tell.send(why(call.defer())).unwrap();
        tell.send(why(call.set_pipeline())).unwrap();
        // Nobody sees this: the answer is the other's.
        Err(capnp_threads::Error::failed("too late"))
    });
    near_and_far(&object, |client| {
        assert_eq!(ask(client, 0, "").unwrap(), "first");
        for _ in 0..3 {
            assert!((&told).soon().contains("handed on already"));
        }
    });
}

/// Hands calls of method 0 on to method 1 of what it was given by a call of method 9.
fn forwarder() -> Client {
    let (give, given): (Sender<Client>, Receiver<Client>) = unbounded();
    object(move |call| match call.method_id() {
        9 => {
            give.send(cap(call)?).unwrap();
            Ok(())
        }
        _ => {
            let target = given.recv().unwrap();
            let next = request(&target, 1, &text(call)?);
            call.tail_call(next)
        }
    })
}

/// The target of tail calls: texts, capabilities, and errors come back through the forwarder.
fn target() -> Client {
    object(|call| match &*text(call)? {
        "fail" => Err(capnp_threads::Exception::unimplemented("not this").with_trace("here").into()),
        "give" => {
            reply_cap(call, &echo());
            Ok(())
        }
        other => reply(call, &format!("target of {other}")),
    })
}

fn try_forwarding(forwarder: &Client, target: &Client) {
    for (asked, expected) in [("a text", Ok("target of a text")), ("fail", Err(ExceptionKind::Unimplemented))]
    {
        with_cap(forwarder, 9, target).send().soon().unwrap();
        let answer = ask(forwarder, 0, asked);
        assert_eq!(answer.as_deref().map_err(|e| e.kind()), expected);
    }
    with_cap(forwarder, 9, target).send().soon().unwrap();
    let call = send(forwarder, 0, "give");
    let ahead = call.pipeline.client();
    assert_eq!(ask(&ahead, 0, "ahead").unwrap(), "ahead");
    assert_eq!(ask(&given_back(&call.soon().unwrap()), 0, "settled").unwrap(), "settled");
}

/// Caller, forwarder and target in every distribution over two vats.
#[test]
fn tail_calls_within_and_between_two_vats_are_answered() {
    try_forwarding(&forwarder(), &target());
    for wire in [Wire::Memory, Wire::Tcp] {
        // The forwarder there: the target here (the call comes back), there, or with the forwarder.
        let two = Two::offering(wire, &forwarder());
        let remote = two.here.bootstrap::<Client>();
        try_forwarding(&remote, &target());
        drop(remote);
        two.both_empty();
        // The target there, the forwarder here.
        let two = Two::offering(wire, &target());
        try_forwarding(&forwarder(), &two.here.bootstrap::<Client>());
        two.both_empty();
    }
}

/// The caller, the forwarder and the target in three vats: a tail call over another connection.
#[test]
fn tail_call_across_two_connections_is_answered() {
    for wire in [Wire::Memory, Wire::Tcp] {
        let far = Two::offering(wire, &target());
        let near = Two::new(
            wire,
            Vat::new(),
            Vat::new().bootstrap(forwarder_to(&far.here.bootstrap::<Client>())),
            &Limits::default(),
        );
        let remote = near.here.bootstrap::<Client>();
        assert_eq!(ask(&remote, 0, "three").unwrap(), "target of three");
        assert_eq!(ask(&remote, 0, "fail").unwrap_err().kind(), ExceptionKind::Unimplemented);
        let call = send(&remote, 0, "give");
        assert_eq!(ask(&call.pipeline.client(), 0, "ahead").unwrap(), "ahead");
        assert_eq!(ask(&given_back(&call.soon().unwrap()), 0, "settled").unwrap(), "settled");
        drop(remote);
        near.both_empty();
    }
}

fn forwarder_to(target: &Client) -> Client {
    let target = target.clone();
    object(move |call| {
        let next = request(&target, 1, &text(call)?);
        call.tail_call(next)
    })
}

/// Nothing that is called lacks an answer: methods that exist nowhere, and interfaces too.
#[test]
fn unknown_methods_and_interfaces_are_unimplemented() -> Result<()> {
    let object = object(|call| call.unimplemented());
    near_and_far(&object, |client| {
        assert_eq!(ask(client, 5, "").unwrap_err().kind(), ExceptionKind::Unimplemented);
    });
    near_and_far(&crate::support::object(|call| unexpected(call)), |client| {
        assert!(why(ask(client, 5, "")).contains("method 5"));
    });
    Ok(())
}

/// Params and results whose size is known beforehand are built in one piece, so without a far pointer.
#[test]
fn a_hint_of_the_size_saves_a_segment() {
    const SIZE: MessageSize = MessageSize { word_count: 600, cap_count: 0 };
    let object = object(|call| {
        let sized = call.method_id() == 1;
        let (params, mut results) = call.typed::<exception::Owned, exception::Owned>();
        let mut filled = if sized { results.get_sized(SIZE) } else { results.get() };
        filled.set_reason(params.get()?.get_reason()?);
        filled.set_trace(params.words().to_string());
        Ok(())
    });
    near_and_far(&object, |client| {
        let words = |method| {
            let mut request = client.request(TEST, method).cast::<exception::Owned, exception::Owned>();
            let mut params = if method == 1 { request.get_sized(SIZE) } else { request.get() };
            params.set_reason("x".repeat(4000));
            let response = request.send().promise.soon().unwrap();
            let params_words = response.get().unwrap().get_trace().unwrap().to_str().unwrap();
            (params_words.parse::<usize>().unwrap(), response.words())
        };
        let (plain, sized) = (words(0), words(1));
        assert!(plain.0 > sized.0 && plain.1 > sized.1, "plain {plain:?}, sized {sized:?}");
    });
}
