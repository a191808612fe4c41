//! The end of a connection: rule 13. Whatever waits, in whatever state, is ended, each time with the first cause as
//! its source.

use std::error::Error as _;
use std::thread;
use std::time::Duration;

use capnp_threads::{
    Call as Served, Capability, Client, Error, Exception, ExceptionKind, Limits, Promise, Result, Server,
    Stream, Vat,
};
use crossbeam_channel::{bounded, Sender};

use crate::support::*;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The peer closes it.
    Closed,
    /// The peer sends an Abort.
    Aborted,
    /// Our side sends one.
    AbortedHere,
    /// The peer breaks a rule.
    Broken,
    /// Our side closes it.
    ClosedHere,
}

const ALL: [End; 5] = [End::Closed, End::Aborted, End::AbortedHere, End::Broken, End::ClosedHere];

impl End {
    /// Brings the end about.
    fn bring(self, peer: &mut Peer) {
        match self {
            End::Closed => peer.close(),
            End::Aborted => peer.send(Msg::Abort("the peer's reason".into())),
            End::AbortedHere => peer.vat.abort(Exception::overloaded("our reason")),
            End::Broken => {
                peer.send_wrong(Msg::Finish { question: 99, release: true, workaround: false });
            }
            End::ClosedHere => peer.vat.close(Duration::ZERO).unwrap(),
        }
    }

    /// The error is of this end: `disconnected`, for the cause that was first.
    #[track_caller]
    fn check(self, why: &Error) {
        assert_eq!(why.kind(), ExceptionKind::Disconnected, "{self:?}: {why}");
        let cause = why.source().and_then(|source| source.downcast_ref::<Error>());
        let cause = cause.unwrap_or_else(|| panic!("{self:?}: no cause of {why}"));
        let (kind, reason) = match self {
            End::Closed => (ExceptionKind::Disconnected, "the peer has closed the connection"),
            End::Aborted => (ExceptionKind::Failed, "the peer aborted: the peer's reason"),
            End::AbortedHere => (ExceptionKind::Overloaded, "our reason"),
            End::Broken => (ExceptionKind::Failed, "Finish for question 99"),
            End::ClosedHere => (ExceptionKind::Disconnected, "the connection was closed here"),
        };
        assert_eq!(cause.kind(), kind, "{self:?}: {cause}");
        assert!(cause.to_string().contains(reason), "{self:?}: {cause}");
        assert!(why.to_string().contains(reason), "the reason names the cause: {why}");
    }

    /// What a connection that has ended so looks like, and that the peer was told what it should be.
    #[track_caller]
    fn check_peer(self, mut peer: Peer) {
        peer.vat.wait_closed().unwrap();
        self.check(&peer.vat.disconnect_reason().unwrap().into());
        peer.drain();
        match self {
            End::AbortedHere => peer.expect_abort("our reason"),
            End::Broken => peer.expect_abort("Finish for question 99"),
            _ => peer.expect_end(),
        }
    }
}

/// What ends when a connection does, with an error that is checked.
type Waiter = Box<dyn FnOnce() -> Error>;

/// Ends a connection in each way, with the waiters that `start` makes; all must end.
#[track_caller]
fn on_each_end(vat: &Vat, start: impl Fn(&mut Peer, &Client) -> Vec<Waiter>) {
    for end in ALL {
        let mut peer = Peer::of(vat);
        let client = peer.introduce(Cap::Hosted(7));
        let waiters = start(&mut peer, &client);
        end.bring(&mut peer);
        for waiter in waiters {
            end.check(&waiter());
        }
        // What is tried later fails at once, for the same cause.
        end.check(&failed(send(&client, NOTE, 1, &[]).promise));
        end.check(&failed(send(&peer.vat.bootstrap::<Client>(), NOTE, 1, &[]).promise));
        end.check_peer(peer);
    }
}

/// A question that waits for its Return; in each way that one can wait for it.
/// Rules: 13.
#[test]
fn disconnect_fails_every_kind_of_wait_for_a_question() {
    on_each_end(&Vat::new(), |peer, client| {
        let waiting = send(client, NOTE, 1, &[]);
        let waits = on_thread(|| waiting.wait().expect_err("no answer"));
        let with_timeout = send(client, NOTE, 2, &[]);
        let (to, told) = bounded(1);
        send(client, NOTE, 3, &[]).on_ready(move |outcome| to.send(outcome).unwrap());
        let channel = send(client, NOTE, 4, &[]).into_channel();
        let plain = request(client, NOTE, 5, &[]).no_pipelining().send();
        (1..=5).for_each(|tag| drop(peer.expect_call_of(tag)));
        vec![
            waits,
            Box::new(|| {
                let why = with_timeout.wait_timeout(peer::DEADLINE).expect_err("no answer");
                why.into_failed().expect("in time")
            }),
            Box::new(move || told.recv_timeout(peer::DEADLINE).expect("told").expect_err("no answer")),
            Box::new(move || channel.recv_timeout(peer::DEADLINE).expect("told").expect_err("no answer")),
            Box::new(|| failed(plain.promise)),
        ]
    });
}

/// Calls pipelined on a question, sent ahead or held; and waits for what the promise becomes.
/// Rules: 13.
#[test]
fn disconnect_fails_pipelined_calls_that_were_sent_or_held() {
    on_each_end(&Vat::new(), |peer, client| {
        let answer = send(client, NOTE, 1, &[]);
        let promised = answer.pipeline.field(0).client();
        let pipelined = send(&promised, NOTE, 2, &[]);
        let resolves = on_thread({
            let promised = promised.clone();
            move || promised.resolve().expect_err("never resolved")
        });
        let alone = request(client, NOTE, 3, &[]).send_for_pipeline();
        let on_alone = send(&alone.field(1).client(), NOTE, 4, &[]);
        (1..=4).for_each(|tag| drop(peer.expect_call_of(tag)));
        vec![
            Box::new(|| failed(pipelined.promise)),
            resolves,
            Box::new(|| failed(on_alone.promise)),
            Box::new(move || failed(send(&promised, NOTE, 5, &[]).promise)),
            Box::new(move || failed(send(&answer.pipeline.field(1).client(), NOTE, 6, &[]).promise)),
            Box::new(move || failed(send(&alone.field(2).client(), NOTE, 7, &[]).promise)),
        ]
    });
}

/// A Bootstrap that was not answered, and calls on it.
/// Rules: 13.
#[test]
fn disconnect_fails_an_unanswered_bootstrap_and_the_calls_on_it() {
    on_each_end(&Vat::new(), |peer, _| {
        let client = peer.vat.bootstrap::<Client>();
        peer.expect_bootstrap();
        let answer = send(&client, NOTE, 1, &[]);
        peer.expect_call_of(1);
        let resolves = on_thread({
            let client = client.clone();
            move || client.resolve().expect_err("never resolved")
        });
        vec![
            Box::new(|| failed(answer.promise)),
            resolves,
            Box::new(move || failed(send(&client, NOTE, 2, &[]).promise)),
        ]
    });
}

/// A promise of the peer's that was not resolved.
/// Rules: 13.
#[test]
fn disconnect_breaks_imported_promises_that_are_not_resolved() {
    on_each_end(&Vat::new(), |peer, _| {
        let promise = peer.introduce(Cap::Promise(5));
        let resolves = on_thread({
            let promise = promise.clone();
            move || promise.resolve().expect_err("never resolved")
        });
        vec![resolves, Box::new(move || promise.broken_reason().expect("broken").into())]
    });
}

/// Calls held behind an embargo.
/// Rules: 13.
#[test]
fn disconnect_fails_calls_held_by_an_embargo() {
    let recorder = Recorder::new();
    on_each_end(&Vat::new().bootstrap(recorder.client()), |peer, _| {
        let object = peer.get_bootstrap();
        let promise = peer.introduce(Cap::Promise(5));
        let first = send(&promise, NOTE, 1, &[]);
        peer.expect_call_of(1);
        peer.resolve(5, Cap::Yours(object));
        peer.expect_disembargo();
        let held = send(&promise, NOTE, 2, &[]);
        assert_eq!(peer.vat.snapshot().embargoes(), 1);
        vec![Box::new(|| failed(first.promise)), Box::new(|| failed(held.promise))]
    });
    recorder.expect(&[]);
}

/// Callers that wait for a question to be free.
/// Rules: 13.
#[test]
fn disconnect_fails_callers_that_wait_for_a_question_id() {
    let mut limits = Limits::default();
    limits.questions = 1;
    on_each_end(&Vat::new().limits(limits), |peer, client| {
        let answer = send(client, NOTE, 1, &[]);
        peer.expect_call_of(1);
        let waiters = [2, 3].map(|tag| calls_on_thread(client, tag));
        peer.sync();
        let mut all: Vec<Waiter> = vec![Box::new(|| failed(answer.promise))];
        all.extend(waiters);
        all
    });
}

/// Callers that wait until what is queued has been sent, while the peer reads nothing.
/// Rules: 13.
#[test]
fn disconnect_fails_callers_that_wait_for_room_in_the_send_queue() {
    let mut limits = Limits::default();
    (limits.send_bytes, limits.linger) = (128, Duration::from_millis(1));
    for end in [End::Closed, End::Aborted] {
        let gate = Gate::default();
        let mut peer = Peer::over(&Vat::new().limits(limits.clone()), |ours| gate.wrap(ours));
        let client = peer.introduce(Cap::Hosted(7));
        peer.sync();
        gate.close();
        let queued = send(&client, NOTE, 1, &[]);
        gate.wait_reached();
        let waiter = calls_on_thread(&client, 2);
        end.bring(&mut peer);
        end.check(&failed(queued.promise));
        end.check(&waiter());
        peer.vat.wait_closed().unwrap();
        assert_eq!(peer.vat.snapshot().questions(), 0);
        peer.close();
    }
}

/// Streams: a caller that waits for room in the window, and one that waits for the last answer.
/// Rules: 13.
#[test]
fn disconnect_fails_waits_for_the_window_and_for_the_end_of_a_stream() {
    on_each_end(&Vat::new(), |peer, client| {
        let [narrow, wide] = [1, 1 << 20].map(Stream::with_window);
        for (tag, stream) in [(1, &narrow), (2, &narrow), (3, &wide)] {
            stream.send(request(client, NOTE, tag, &[])).unwrap();
            assert!(peer.expect_call_of(tag).no_pipelining);
        }
        let blocked = on_thread({
            let client = client.clone();
            move || narrow.send(request(&client, NOTE, 4, &[])).expect_err("never any room")
        });
        let finishes = on_thread(move || {
            let why = wide.finish().expect_err("never finished");
            // A stream that failed has failed.
            assert_eq!(wide.finish().unwrap_err().to_string(), why.to_string());
            why
        });
        vec![blocked, finishes]
    });
}

/// The calls of the peer's are canceled: those in a method, those kept for later, those that wait for another
/// answer. What they are answered with later goes nowhere.
/// Rules: 13.
#[test]
fn disconnect_cancels_calls_from_the_peer_in_every_state() {
    for end in ALL {
        let recorder = Recorder::new();
        let mut peer = Peer::new(recorder.client());
        let object = peer.get_bootstrap();
        let first = peer.call(Target::Import(object), HOLD, 1).caps(&[Cap::Hosted(8)]).send();
        peer.call(Target::Answer(first, vec![0]), NOTE, 2).send();
        let held = recorder.held();
        let nested = send(&held.caps[0], NOTE, 3, &[]);
        peer.expect_call_of(3);
        end.bring(&mut peer);
        held.wait_canceled();
        end.check(&failed(nested.promise));
        held.answer(1, &[recorder.client()]);
        end.check_peer(peer);
        assert_eq!(recorder.log(), [1], "the pipelined call went nowhere");
    }
}

/// A call that was forwarded to a vat that is gone fails where it came from, and that connection lives on.
/// Rules: 13.
#[test]
fn disconnect_of_the_next_vat_fails_forwarded_calls_and_no_other_connection() {
    for end in ALL {
        let mut far = Peer::new(Client::null());
        let mut near = Peer::new(far.introduce(Cap::Hosted(7)));
        let proxy = near.get_bootstrap();
        let first = near.call(Target::Import(proxy), NOTE, 1).send();
        let pipelined = near.call(Target::Answer(first, vec![0]), NOTE, 2).send();
        far.expect_call_of(1);
        far.expect_call_of(2);
        end.bring(&mut far);
        near.expect_exception(first, "the connection has ended");
        near.expect_exception(pipelined, "the connection has ended");
        let later = near.call(Target::Import(proxy), NOTE, 3).send();
        near.expect_exception(later, "the connection has ended");
        near.finish_clean();
        end.check_peer(far);
    }
}

/// A running method is told, and its wait for the peer ends. What it owns stays its own.
/// Rules: 13.
#[test]
fn disconnect_ends_waits_in_running_methods() {
    for end in ALL {
        let (to, outcome) = bounded(1);
        let mut peer = Peer::new(Client::new(Waits(to)));
        let object = peer.get_bootstrap();
        peer.call(Target::Import(object), NOTE, 1).caps(&[Cap::Hosted(8)]).send();
        peer.expect_call_of(2);
        end.bring(&mut peer);
        let why = outcome.recv_timeout(peer::DEADLINE).expect("the method goes on");
        // The connection's end cancels the method's call and fails its own: whichever it sees first.
        assert!(why.contains("canceled") || why.contains("the connection has ended"), "{why}");
        end.check_peer(peer);
    }
}

/// Callbacks that are registered for the end run when everything that waited has been told.
/// Rules: 13.
#[test]
fn disconnect_callbacks_run_after_all_waiters_are_told() {
    for end in ALL {
        let mut peer = Peer::new(Client::null());
        let client = peer.introduce(Cap::Hosted(7));
        let (to, order) = crossbeam_channel::unbounded();
        let answered = to.clone();
        send(&client, NOTE, 1, &[]).on_ready(move |_| answered.send("answered").unwrap());
        peer.expect_call_of(1);
        let before = to.clone();
        peer.vat.on_disconnect(move |_| before.send("disconnected").unwrap());
        end.bring(&mut peer);
        let why = peer.vat.wait_closed().unwrap();
        end.check(&why.into());
        peer.vat.on_disconnect(move |_| to.send("at once").unwrap());
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["answered", "disconnected", "at once"]);
        end.check_peer(peer);
    }
}

/// An object whose method calls the capability in its params, waits for that, and then for its own cancellation.
struct Waits(Sender<String>);

impl Server for Waits {
    fn dispatch(&self, call: &mut Served) -> Result<()> {
        let theirs = control::caps_of(call)?;
        let why = send(&theirs[0], NOTE, 2, &[]).wait().expect_err("never answered");
        call.cancellation().wait()?;
        self.0.send(why.to_string()).unwrap();
        Ok(())
    }
}

/// A caller on a thread of its own that makes a call for which there is no room.
fn calls_on_thread(client: &Client, tag: u64) -> Waiter {
    let (client, (entered, has_entered)) = (client.clone(), bounded(1));
    let caller = on_thread(move || {
        entered.send(()).unwrap();
        failed(send(&client, NOTE, tag, &[]).promise)
    });
    has_entered.recv().unwrap();
    caller
}

/// A thread that waits, without a deadline of its own.
fn on_thread(wait: impl FnOnce() -> Error + Send + 'static) -> Waiter {
    let (to, outcome) = bounded(1);
    thread::spawn(move || to.send(wait()));
    Box::new(move || outcome.recv_timeout(peer::DEADLINE).expect("the thread goes on"))
}

#[track_caller]
fn failed<T: Send + 'static>(promise: Promise<T>) -> Error {
    let why = promise.wait_timeout(peer::DEADLINE).map(drop).expect_err("never answered");
    why.into_failed().expect("in time")
}
