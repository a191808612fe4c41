//! The same things over every kind of connection: calls, pipelines, callbacks, and capabilities that go round.

use std::sync::Arc;

use capnp_threads::{Call, Capability, Client, Limits, Result, Vat};
use crossbeam_channel::unbounded;

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{
    ask, cap, echo, exchange, given_back, object, reply, reply_cap, request, said, send, text, unexpected,
    with_cap, Soon,
};

const ECHO: u16 = 0;
const DEEPER: u16 = 1;
const CALL_BACK: u16 = 2;
const IDENTITY: u16 = 3;
const LENGTH: u16 = 4;

/// An object with a method for each thing that is tried here.
fn kit(depth: usize) -> Client {
    object(move |call| match call.method_id() {
        ECHO => {
            let answer = format!("{depth}: {}", text(call)?);
            reply(call, &answer)
        }
        DEEPER => {
            reply_cap(call, &kit(depth + 1));
            Ok(())
        }
        CALL_BACK => {
            let answer = ask(&cap(call)?, ECHO, "from afar")?;
            reply(call, &answer)
        }
        IDENTITY => {
            let given = cap(call)?;
            reply_cap(call, &given);
            Ok(())
        }
        LENGTH => {
            let length = text(call)?.len().to_string();
            reply(call, &length)
        }
        _ => unexpected(call),
    })
}

fn everywhere(test: impl Fn(&Two)) {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &kit(0));
        test(&two);
        two.both_empty();
    }
}

#[test]
fn calls_are_answered() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        for n in 0..100 {
            assert_eq!(ask(&remote, ECHO, &n.to_string()).unwrap(), format!("0: {n}"));
        }
    });
}

#[test]
fn calls_in_flight_are_answered_in_order() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        let sent: Vec<_> = (0..500).map(|n| send(&remote, ECHO, &n.to_string())).collect();
        for (n, answer) in sent.into_iter().enumerate() {
            assert_eq!(said(&answer.soon().unwrap()), format!("0: {n}"));
        }
    });
}

#[test]
fn pipelines_run_ahead_of_their_answers() {
    everywhere(|two| {
        let mut client = two.here.bootstrap::<Client>();
        for _ in 0..50 {
            client = client.request(crate::support::TEST, DEEPER).send().pipeline.client();
        }
        assert_eq!(ask(&client, ECHO, "hello").unwrap(), "50: hello");
    });
}

#[test]
fn the_callee_calls_back() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        let answer = with_cap(&remote, CALL_BACK, &echo()).send().soon().unwrap();
        assert_eq!(said(&answer), "from afar");
    });
}

#[test]
fn capability_sent_to_the_peer_and_back_is_the_same_object() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        let mine = echo();
        assert!(exchange(&remote, IDENTITY, &mine).unwrap().resolve().unwrap() == mine);
        let theirs = exchange(&remote, IDENTITY, &remote.resolve().unwrap()).unwrap();
        assert!(theirs.resolve().unwrap() == remote.resolve().unwrap());
        assert!(exchange(&remote, IDENTITY, &Client::null()).unwrap().is_null());
    });
}

/// Calls that went ahead to what turns out to be here come back, and later ones do not overtake them.
#[test]
fn order_holds_when_a_pipeline_leads_back() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        let (put, got) = unbounded();
        let mine = object(move |call| {
            put.send(text(call)?).unwrap();
            Ok(())
        });
        let round = with_cap(&remote, IDENTITY, &mine).send();
        let ahead = round.pipeline.client();
        let mut answers: Vec<_> = (0..20).map(|n| send(&ahead, ECHO, &n.to_string())).collect();
        let settled = given_back(&round.soon().unwrap());
        answers.extend((20..40).map(|n| send(&settled, ECHO, &n.to_string())));
        answers.extend((40..60).map(|n| send(&ahead, ECHO, &n.to_string())));
        for answer in answers {
            answer.soon().unwrap();
        }
        let order: Vec<String> = got.try_iter().collect();
        assert_eq!(order, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn large_messages_pass_both_ways() {
    everywhere(|two| {
        let remote = two.here.bootstrap::<Client>();
        let large = "x".repeat(5 << 20);
        assert_eq!(ask(&remote, LENGTH, &large).unwrap(), large.len().to_string());
        assert_eq!(ask(&remote, ECHO, &large).unwrap().len(), large.len() + 3);
    });
}

/// Both vats are equal: each offers an object, and each calls the other's, at the same time.
#[test]
fn both_sides_call_each_other() {
    for wire in Wire::ALL {
        let offering = || Vat::new().bootstrap(kit(0));
        let two = Two::new(wire, offering(), offering(), &Limits::default());
        std::thread::scope(|scope| {
            for connection in [&two.here, &two.there] {
                scope.spawn(|| {
                    let other = connection.bootstrap::<Client>();
                    for n in 0..200 {
                        assert_eq!(ask(&other, ECHO, &n.to_string()).unwrap(), format!("0: {n}"));
                    }
                });
            }
        });
        two.both_empty();
    }
}

/// What a server keeps, and calls later on a thread of its own.
#[test]
fn a_kept_capability_is_called_after_its_call_has_ended() {
    let (keep, kept) = unbounded::<Client>();
    let keeper = object(move |call: &mut Call| -> Result<()> {
        keep.send(cap(call)?).unwrap();
        Ok(())
    });
    for wire in Wire::ALL {
        let two = Two::offering(wire, &keeper);
        let (put, got) = unbounded();
        let put = Arc::new(put);
        let mine = object(move |call| {
            put.send(text(call)?).unwrap();
            Ok(())
        });
        with_cap(&two.here.bootstrap::<Client>(), 0, &mine).send().soon().unwrap();
        drop(mine);
        let theirs = kept.soon();
        assert!(reaches(&two.here, |tables| tables.exports() == 1 && tables.questions() == 0));
        request(&theirs, 0, "later").send().soon().unwrap();
        assert_eq!((&got).soon(), "later");
        drop(theirs);
        assert!(got.recv().is_err(), "the object is dropped with its last reference");
        two.both_empty();
    }
}
