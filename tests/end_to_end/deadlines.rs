//! Calls that must be answered in time: one by one, and all of a connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use capnp_threads::{Call, Capability, Client, ExceptionKind, Limits, Result, Vat};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{ask, echo, object, reply, request, said, send, text, with_cap, Soon};

/// Too short for anything that waits, and long enough to be told from none.
const SHORT: Duration = Duration::from_millis(5);

/// An object that answers at once, or (method 1) not before it is canceled.
struct Slow {
    client: Client,
    begun: Arc<AtomicUsize>,
    canceled: Receiver<()>,
}

impl Slow {
    fn new() -> Self {
        let (tell, canceled) = unbounded();
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let client = object(move |call: &mut Call| {
            if call.method_id() == 1 {
                count.fetch_add(1, Ordering::SeqCst);
                call.allow_next();
                call.cancellation().wait()?;
                tell.send(()).unwrap();
            }
            let text = text(call)?;
            reply(call, &text)
        });
        Slow { client, begun, canceled }
    }

    /// Every call that had been begun by its deadline is canceled. To be asked when no call is on its way.
    fn assert_canceled(&self) {
        ask(&self.client, 0, "behind all of them").unwrap();
        for _ in 0..self.begun.swap(0, Ordering::SeqCst) {
            (&self.canceled).soon();
        }
    }
}

fn assert_late<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ExceptionKind::Overloaded, "{error}");
    assert!(error.to_string().contains("deadline"), "{error}");
}

/// The caller hears of it, the method is canceled, and the object and connection go on.
#[test]
fn call_that_exceeds_its_deadline_fails_and_its_method_is_canceled() {
    let slow = Slow::new();
    let test = |client: &Client| {
        assert_late(request(client, 1, "").timeout(SHORT).send().soon());
        let in_time = request(client, 0, "in time").timeout(Duration::from_secs(3600));
        assert_eq!(said(&in_time.send().soon().unwrap()), "in time");
    };
    test(&slow.client);
    slow.assert_canceled();
    for wire in Wire::ALL {
        let two = Two::offering(wire, &slow.client);
        test(&two.here.bootstrap::<Client>());
        two.both_empty();
        slow.assert_canceled();
    }
}

/// However the answer is waited for.
#[test]
fn a_deadline_applies_to_a_callback_and_to_a_channel() {
    let slow = Slow::new();
    let two = Two::offering(Wire::Tcp, &slow.client);
    let remote = two.here.bootstrap::<Client>();
    assert_late((&request(&remote, 1, "").timeout(SHORT).send().into_channel()).soon());
    let (put, got) = unbounded();
    request(&remote, 1, "").timeout(SHORT).send().on_ready(move |result| put.send(result.map(drop)).unwrap());
    assert_late((&got).soon());
    drop(remote);
    two.both_empty();
    slow.assert_canceled();
}

#[test]
fn call_timeout_of_a_vat_applies_to_all_calls_of_a_connection() {
    let slow = Slow::new();
    for wire in Wire::ALL {
        let here = Vat::new().call_timeout(SHORT);
        let two = Two::new(wire, here, Vat::new().bootstrap(slow.client.clone()), &Limits::default());
        // So that the first call does not spend its time waiting for this, which has no more time itself.
        let remote = std::iter::repeat_with(|| two.here.bootstrap::<Client>().resolve());
        let remote = remote.take(1000).flatten().next().unwrap();
        let late = send(&remote, 1, "");
        let ahead = send(&late.pipeline.client(), 0, "");
        assert_late(late.soon());
        assert_late(ahead.soon());
        drop(remote);
        two.both_empty();
        slow.assert_canceled();
    }
}

/// A call that is forwarded over a connection with a deadline has that too.
#[test]
fn a_proxied_call_has_the_deadline_of_the_connection_beyond() {
    let slow = Slow::new();
    let far = Two::new(
        Wire::Tcp,
        Vat::new().call_timeout(SHORT),
        Vat::new().bootstrap(slow.client.clone()),
        &Limits::default(),
    );
    let near = Two::offering(Wire::Tcp, &far.here.bootstrap::<Client>());
    assert_late(send(&near.here.bootstrap::<Client>(), 1, "").soon());
    assert!(reaches(&far.there, |tables| tables.answers() == 0));
    slow.assert_canceled();
}

/// Time that a method spends on a nested call is its own: the inner call has a deadline, the outer none.
#[test]
fn deadline_of_a_nested_call_does_not_apply_to_the_outer_call() {
    let slow = Slow::new();
    let outer = object(move |call| {
        let inner: Client = crate::support::cap(call)?;
        let late = request(&inner, 1, "").timeout(SHORT).send().wait();
        reply(call, &late.unwrap_err().to_string())
    });
    let two = Two::offering(Wire::Tcp, &outer);
    let answer = with_cap(&two.here.bootstrap::<Client>(), 0, &slow.client).send().soon().unwrap();
    assert!(said(&answer).contains("deadline"));
    two.both_empty();
    slow.assert_canceled();
}

/// A call to a promise that is never fulfilled, and one that no thread begins.
#[test]
fn deadline_ends_waits_in_a_promise_and_in_a_mailbox() {
    let (promised, _fulfiller) = Client::promise();
    assert_late(request(&promised, 0, "").timeout(SHORT).send().soon());
    let (go, gone): (Sender<()>, Receiver<()>) = unbounded();
    let held = object(move |_| {
        // Fails when it is let go.
        gone.recv().unwrap_err();
        Ok(())
    });
    let first = send(&held, 0, "");
    assert_late(request(&held, 0, "").timeout(SHORT).send().soon());
    drop(go);
    first.soon().unwrap();
}

/// A deadline that does not pass is no matter.
#[test]
fn deadline_that_has_not_passed_changes_nothing() {
    let two = Two::new(
        Wire::Memory,
        Vat::new().call_timeout(Duration::from_secs(3600)),
        Vat::new().bootstrap(echo()),
        &Limits::default(),
    );
    let remote = two.here.bootstrap::<Client>();
    for n in 0..1000 {
        let n = n.to_string();
        assert_eq!(ask(&remote, 0, &n).unwrap(), n);
    }
    drop(remote);
    two.both_empty();
}
