//! The peer dies, or the connection is ended in some other way, while somebody waits: in every state that one
//! can wait in, the wait ends with `disconnected`, and nothing is left in the tables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use capnp_threads::transport::{MessageSink, Outbound, Sink, Transport};
use capnp_threads::{
    Call, Capability, Client, Connection, Exception, ExceptionKind, Limits, Result, Stream, TransportError,
    Vat,
};
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use crate::support::gate::Gate;
use crate::support::wires::{reaches, Two, Wire};
use crate::support::{
    cap, object, reply, reply_cap, request, said, send, text, text_in, unexpected, with_cap, Soon, DEADLINE,
    TEST,
};

const HANG: u16 = 0;
const IDENTITY: u16 = 1;
const CALL_BACK: u16 = 2;

/// Two vats, and a hold on what the second one does.
struct Scene {
    two: Two,
    /// Whether the second vat reads.
    gate: Gate,
    /// A method has been entered.
    entered: Receiver<u16>,
    /// Lets one call of `IDENTITY` return.
    go: Sender<()>,
}

impl Scene {
    fn new(wire: Wire, limits: &Limits) -> Self {
        let (enter, entered) = unbounded();
        let (go, gone) = unbounded::<()>();
        let served = object(move |call: &mut Call| {
            call.allow_next();
            enter.send(call.method_id()).unwrap();
            match call.method_id() {
                HANG => call.cancellation().wait(),
                IDENTITY => {
                    let given = cap(call)?;
                    reply_cap(call, &given);
                    // Fails when the test is over.
                    let _ = gone.recv();
                    Ok(())
                }
                CALL_BACK => send(&cap(call)?, 0, "").wait().map(drop),
                _ => unexpected(call),
            }
        });
        let (a, b, cut) = wire.ends([limits, limits]);
        let gate = Gate::open();
        let b = gate.before_receiving(b);
        let here = Vat::new().limits(limits.clone()).over(a).unwrap();
        let there = Vat::new().limits(limits.clone()).bootstrap(served).over(b).unwrap();
        Scene { two: Two { here, there, cut }, gate, entered, go }
    }

    fn remote(&self) -> Client {
        self.two.here.bootstrap::<Client>()
    }
}

/// Something that waits, and must not for ever.
type Wait = fn(&Scene) -> Result<()>;
/// Blocks until the wait has begun, as far as can be seen from outside; or ends the connection.
type Begun = fn(&Scene);

/// How a connection can end.
const ENDS: [(&str, Begun); 6] = [
    ("the peer dies", |scene| scene.two.cut.cut()),
    ("the peer aborts", |scene| scene.two.there.abort(Exception::failed("enough"))),
    ("we abort", |scene| scene.two.here.abort(Exception::failed("enough"))),
    ("the peer closes", |scene| scene.two.there.close(Duration::ZERO).unwrap()),
    ("we close", |scene| scene.two.here.close(Duration::ZERO).unwrap()),
    ("both end at once", |scene| {
        std::thread::scope(|scope| {
            scope.spawn(|| scene.two.there.abort(Exception::failed("enough")));
            scope.spawn(|| scene.two.cut.cut());
        });
    }),
];

fn ends_with_the_connection(limits: &Limits, wait: Wait, begun: Begun) {
    let memory = ENDS.iter().map(|end| (Wire::Memory, end));
    let others = Wire::ALL.into_iter().filter(|wire| *wire != Wire::Memory).map(|wire| (wire, &ENDS[0]));
    for (wire, (name, end)) in memory.chain(others) {
        let scene = Scene::new(wire, limits);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(&scene));
            begun(&scene);
            end(&scene);
            // What the peer had read by then, it may handle now: it has ended, too.
            scene.gate.set_open(true);
            let error = waiter.join().unwrap().expect_err(name);
            assert_eq!(error.kind(), ExceptionKind::Disconnected, "{name} over {wire:?}: {error}");
        });
        all_over(&scene.two.here);
        all_over(&scene.two.there);
    }
}

fn all_over(connection: &Connection) {
    assert_eq!(connection.wait_closed().unwrap().kind(), ExceptionKind::Disconnected);
    assert!(connection.snapshot().is_empty(), "{}", connection.snapshot());
}

fn any(wait: Wait, begun: Begun) {
    ends_with_the_connection(&Limits::default(), wait, begun);
}

fn entered(scene: &Scene) {
    (&scene.entered).soon();
}

fn asked(scene: &Scene) {
    assert!(reaches(&scene.two.here, |tables| tables.questions() > 0));
}

#[test]
fn end_of_connection_fails_a_call_that_waits_for_its_answer() {
    any(|scene| send(&scene.remote(), HANG, "").soon().map(drop), entered);
}

#[test]
fn end_of_connection_fails_a_pipelined_call() {
    any(
        |scene| {
            let first = send(&scene.remote(), HANG, "");
            send(&first.pipeline.client(), HANG, "").soon().map(drop)
        },
        entered,
    );
}

#[test]
fn end_of_connection_fails_a_wait_for_an_imported_promise() {
    any(
        |scene| {
            let first = send(&scene.remote(), HANG, "");
            first.pipeline.client().resolve().map(drop)
        },
        entered,
    );
}

#[test]
fn end_of_connection_fails_a_bootstrap() {
    fn unread(scene: &Scene) -> Result<()> {
        scene.gate.set_open(false);
        scene.remote().resolve().map(drop)
    }
    any(unread, asked);
    fn called(scene: &Scene) -> Result<()> {
        scene.gate.set_open(false);
        send(&scene.remote(), HANG, "").soon().map(drop)
    }
    any(called, asked);
}

/// Calls are held behind a Disembargo that has not come back.
#[test]
fn end_of_connection_fails_a_call_held_by_an_embargo() {
    any(
        |scene| {
            let mine = object(|call| unexpected(call));
            let round = with_cap(&scene.remote(), IDENTITY, &mine).send();
            let ahead = round.pipeline.client();
            let _used = send(&ahead, 7, "ahead");
            (&scene.entered).soon();
            scene.gate.set_open(false);
            scene.go.send(()).unwrap();
            round.soon()?;
            send(&ahead, 7, "held").soon().map(drop)
        },
        |scene| assert!(reaches(&scene.two.here, |tables| tables.embargoes() == 1)),
    );
}

#[test]
fn end_of_connection_fails_a_caller_that_waits_for_a_question() {
    let mut limits = Limits::default();
    limits.questions = 2;
    ends_with_the_connection(
        &limits,
        |scene| {
            let remote = scene.remote().resolve()?;
            let _first = send(&remote, HANG, "");
            let _second = send(&remote, HANG, "");
            send(&remote, HANG, "").soon().map(drop)
        },
        |scene| {
            entered(scene);
            entered(scene);
        },
    );
}

#[test]
fn end_of_connection_fails_a_caller_that_waits_for_a_streams_window() {
    any(
        |scene| {
            let (remote, stream) = (scene.remote(), Stream::with_window(1));
            // One that fits, one that the window is widened by, and one that waits.
            stream.send(request(&remote, HANG, "more than one"))?;
            stream.send(request(&remote, HANG, "more than one"))?;
            stream.send(request(&remote, HANG, "more than one"))
        },
        entered,
    );
    any(
        |scene| {
            let (remote, stream) = (scene.remote(), Stream::new());
            stream.send(request(&remote, HANG, ""))?;
            stream.finish()
        },
        entered,
    );
}

#[test]
fn end_of_connection_fails_a_channel_a_callback_and_a_future() {
    any(|scene| (&send(&scene.remote(), HANG, "").into_channel()).soon().map(drop), entered);
    any(
        |scene| {
            let (put, got) = bounded(1);
            send(&scene.remote(), HANG, "").on_ready(move |result| put.send(result.map(drop)).unwrap());
            (&got).soon()
        },
        entered,
    );
    any(|scene| crate::waiting::block_on(send(&scene.remote(), HANG, "").promise).map(drop), entered);
}

/// The peer's method has called us back, and we wait in it; the peer waits for us.
#[test]
fn end_of_connection_fails_a_wait_in_a_method_that_called_back() {
    any(
        |scene| {
            let mine = object(|call| call.cancellation().wait());
            with_cap(&scene.remote(), CALL_BACK, &mine).send().soon().map(drop)
        },
        |scene| {
            entered(scene);
            asked(scene);
            assert!(reaches(&scene.two.here, |tables| tables.answers() > 0));
        },
    );
}

/// A call that was made on a promise of ours, which is never fulfilled, and one on it at the peer.
#[test]
fn end_of_connection_fails_a_call_whose_method_calls_an_unfulfilled_promise() {
    any(
        |scene| {
            let (mine, _fulfiller) = Client::promise();
            with_cap(&scene.remote(), CALL_BACK, &mine).send().soon().map(drop)
        },
        |scene| {
            entered(scene);
            assert!(reaches(&scene.two.here, |tables| tables.answers() > 0));
        },
    );
}

/// The caller dies while the method runs: the method learns of it, keeps its params, and may go on.
#[test]
fn death_of_the_caller_cancels_its_method_which_keeps_its_params() {
    for wire in Wire::ALL {
        let (enter, entered) = bounded(0);
        let (tell, told) = unbounded();
        let served = object(move |call| {
            let caller = call.params().clone();
            enter.send(()).unwrap();
            call.cancellation().wait()?;
            tell.send((call.is_canceled(), text_in(&caller)?, reply(call, "to nobody"))).unwrap();
            Ok(())
        });
        let two = Two::offering(wire, &served);
        let answer = send(&two.here.bootstrap::<Client>(), 0, "still readable");
        (&entered).soon();
        two.cut.cut();
        assert_eq!(answer.soon().unwrap_err().kind(), ExceptionKind::Disconnected);
        let (canceled, params, replied) = (&told).soon();
        assert!(canceled && replied.is_ok());
        assert_eq!(params, "still readable");
        // The object is as good as before, for others.
        let again = Two::offering(wire, &served);
        let _answer = send(&again.here.bootstrap::<Client>(), 0, "");
        (&entered).soon();
    }
}

/// What the method calls on the dead caller's connection fails, and so does what it had called.
#[test]
fn method_that_calls_a_dead_caller_gets_disconnected() {
    let (enter, entered) = bounded(0);
    let (go, gone) = bounded::<()>(0);
    let (tell, told) = unbounded();
    let served = object(move |call| {
        let caller = cap(call)?;
        let under_way = send(&caller, 0, "");
        enter.send(()).unwrap();
        gone.recv().unwrap();
        // On a thread of its own: here every wait ends because this call is canceled.
        let tell = tell.clone();
        std::thread::spawn(move || {
            tell.send(under_way.soon().unwrap_err()).unwrap();
            tell.send(send(&caller, 0, "").soon().unwrap_err()).unwrap();
        });
        Ok(())
    });
    let two = Two::offering(Wire::Tcp, &served);
    let mine = object(|call| call.cancellation().wait());
    let answer = with_cap(&two.here.bootstrap::<Client>(), 0, &mine).send();
    (&entered).soon();
    two.cut.cut();
    assert_eq!(answer.soon().unwrap_err().kind(), ExceptionKind::Disconnected);
    go.send(()).unwrap();
    for _ in 0..2 {
        assert_eq!((&told).soon().kind(), ExceptionKind::Disconnected);
    }
}

/// A deferred answer to a peer that is gone goes nowhere and does no harm.
#[test]
fn deferred_answer_to_a_dead_caller_is_dropped() {
    let (keep, kept) = unbounded();
    let served = object(move |call| {
        keep.send(call.defer()?).unwrap();
        Ok(())
    });
    let two = Two::offering(Wire::Unix, &served);
    let answer = send(&two.here.bootstrap::<Client>(), 0, "kept");
    let deferred = (&kept).soon();
    two.cut.cut();
    assert_eq!(answer.soon().unwrap_err().kind(), ExceptionKind::Disconnected);
    all_over(&two.there);
    assert!(deferred.cancellation().is_canceled());
    assert_eq!(text_in(deferred.params()).unwrap(), "kept");
    deferred.answer(|mut results| Ok(results.set_as("late")?));
}

/// Whatever was called when the connection had ended fails at once, and says why it ended.
#[test]
fn calls_after_the_end_fail_at_once_with_its_reason() {
    let two = Two::offering(Wire::Memory, &object(|call| text(call).map(drop)));
    let remote = two.here.bootstrap::<Client>();
    send(&remote, 0, "").soon().unwrap();
    let unresolved = remote.request(TEST, 0).send();
    two.there.abort(Exception::failed("had enough"));
    all_over(&two.here);
    drop(unresolved);
    let errors = [
        send(&remote, 0, "").soon().map(drop),
        send(&two.here.bootstrap::<Client>(), 0, "").soon().map(drop),
        two.here.bootstrap::<Client>().resolve().map(drop),
        send(&send(&remote, 0, "").pipeline.client(), 0, "").soon().map(drop),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Disconnected);
        assert!(error.to_string().contains("had enough"), "{error}");
    }
}

/// Fails from when it is told to, and tells when it did.
struct Failing {
    sink: Sink,
    fail: Arc<AtomicBool>,
    failed: Sender<()>,
}

impl MessageSink for Failing {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        if self.fail.load(Ordering::SeqCst) {
            self.failed.send(()).unwrap();
            return Err(TransportError::io("sending", std::io::ErrorKind::BrokenPipe.into()));
        }
        self.sink.send(batch)
    }
}

/// The peer answers and goes: what we write then fails, but the answer counts.
#[test]
fn answer_that_was_received_counts_after_a_failed_write() {
    let mut limits = Limits::default();
    limits.linger = DEADLINE;
    let (a, b, _cut) = Wire::Memory.ends([&limits, &limits]);
    let (gate, fail) = (Gate::open(), Arc::new(AtomicBool::new(false)));
    let (failed, has_failed) = unbounded();
    let a = gate.before_receiving(a);
    let sink = Sink::blocking(Failing { sink: a.sink, fail: fail.clone(), failed });
    let here = Vat::new().limits(limits.clone()).over(Transport { sink, ..a }).unwrap();
    let (answer, answered) = unbounded();
    let served = object(move |call| {
        reply(call, "in time")?;
        answer.send(()).unwrap();
        Ok(())
    });
    let there = Vat::new().bootstrap(served).over(b).unwrap();
    let remote = here.bootstrap::<Client>().resolve().unwrap();
    gate.set_open(false);
    let first = send(&remote, 0, "");
    (&answered).soon();
    fail.store(true, Ordering::SeqCst);
    let second = send(&remote, 0, "");
    (&has_failed).soon();
    gate.set_open(true);
    assert_eq!(said(&first.soon().unwrap()), "in time");
    there.abort(Exception::failed("had enough"));
    let error = second.soon().unwrap_err();
    assert!(error.to_string().contains("had enough"), "{error}");
}

/// A peer that sends nothing within `Limits::linger` after a failed write is given up.
#[test]
fn failed_write_ends_a_connection_on_which_nothing_arrives() {
    let mut limits = Limits::default();
    limits.linger = Duration::from_millis(1);
    let (a, _b, _cut) = Wire::Memory.ends([&limits, &limits]);
    let (failed, _has_failed) = unbounded();
    let sink = Sink::blocking(Failing { sink: a.sink, fail: Arc::new(AtomicBool::new(true)), failed });
    let here = Vat::new().limits(limits).over(Transport { sink, ..a }).unwrap();
    let error = send(&here.bootstrap::<Client>(), 0, "").soon().unwrap_err();
    assert_eq!(error.kind(), ExceptionKind::Disconnected);
    assert!(error.to_string().contains("sending"), "{error}");
}
