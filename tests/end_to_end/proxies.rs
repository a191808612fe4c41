//! Three vats: B gives A what C hosts, and stands between them.

use capnp_threads::{Capability, Client, ExceptionKind, Stream};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::wires::{reaches, Two, Wire};
use crate::support::{
    ask, cap, echo, exchange, given_back, object, reply_cap, request, send, text, with_cap, Soon,
};

/// A and B are connected by `near`, B and C by `far`. B offers what C offers.
struct Three {
    near: Two,
    far: Two,
}

impl Three {
    fn offering(wire: Wire, object: &Client) -> Self {
        let far = Two::offering(wire, object);
        let near = Two::offering(wire, &far.here.bootstrap::<Client>());
        Three { near, far }
    }

    fn all_empty(self) {
        self.near.both_empty();
        // B offers C's object as long as the connection to A is there.
        drop(self.near);
        self.far.both_empty();
    }
}

fn collecting() -> (Client, Receiver<String>) {
    let (put, got) = unbounded();
    let object = object(move |call| {
        put.send(text(call)?).unwrap();
        Ok(())
    });
    (object, got)
}

fn identity() -> Client {
    object(|call| {
        let given = cap(call)?;
        reply_cap(call, &given);
        Ok(())
    })
}

#[test]
fn calls_and_capabilities_pass_through_a_proxy() {
    for wire in Wire::ALL {
        let three = Three::offering(wire, &identity());
        let remote = three.near.here.bootstrap::<Client>();
        let mine = echo();
        let round = exchange(&remote, 0, &mine).unwrap();
        assert!(round.resolve().unwrap() == mine);
        assert_eq!(ask(&round, 0, "round").unwrap(), "round");
        let ahead = with_cap(&remote, 0, &mine).send().pipeline.client();
        assert_eq!(ask(&ahead, 0, "ahead").unwrap(), "ahead");
        assert!(exchange(&remote, 0, &remote.resolve().unwrap()).unwrap().resolve().is_ok());
        drop((remote, round, ahead));
        three.all_empty();
    }
}

/// Calls through two connections arrive in the order made, while promises are resolved on the way.
#[test]
fn order_holds_through_a_proxy() {
    for wire in Wire::ALL {
        let (object, got) = collecting();
        let giver = {
            let object = object.clone();
            crate::support::object(move |call| {
                reply_cap(call, &object);
                Ok(())
            })
        };
        let three = Three::offering(wire, &giver);
        let call = send(&three.near.here.bootstrap::<Client>(), 0, "");
        let ahead = call.pipeline.client();
        let mut answers: Vec<_> = (0..20).map(|n| send(&ahead, 0, &n.to_string())).collect();
        let settled = given_back(&call.soon().unwrap());
        answers.extend((20..40).map(|n| send(&settled, 0, &n.to_string())));
        let resolved = settled.resolve().unwrap();
        answers.extend((40..60).map(|n| send(&resolved, 0, &n.to_string())));
        answers.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        let order: Vec<_> = got.try_iter().collect();
        assert_eq!(order, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
        drop((ahead, settled, resolved));
        three.all_empty();
    }
}

/// C gives back what A had sent: calls come all the way back to A, in order.
#[test]
fn order_holds_when_a_proxied_call_leads_back() {
    for wire in Wire::ALL {
        let three = Three::offering(wire, &identity());
        let (mine, got) = collecting();
        let call = with_cap(&three.near.here.bootstrap::<Client>(), 0, &mine).send();
        let ahead = call.pipeline.client();
        let mut answers: Vec<_> = (0..20).map(|n| send(&ahead, 0, &n.to_string())).collect();
        let settled = given_back(&call.soon().unwrap());
        answers.extend((20..40).map(|n| send(&settled, 0, &n.to_string())));
        answers.extend((40..60).map(|n| send(&ahead, 0, &n.to_string())));
        answers.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        let order: Vec<_> = got.try_iter().collect();
        assert_eq!(order, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
        drop((ahead, settled));
        three.all_empty();
    }
}

/// Streaming and plain calls, mixed, through a proxy.
#[test]
fn a_stream_through_a_proxy_keeps_its_order() {
    for wire in Wire::ALL {
        let (object, got) = collecting();
        let three = Three::offering(wire, &object);
        let remote = three.near.here.bootstrap::<Client>();
        let stream = Stream::with_window(200);
        let mut plain = Vec::new();
        for n in 0..200 {
            match n % 5 {
                0 => plain.push(send(&remote, 0, &n.to_string())),
                _ => stream.send(request(&remote, 0, &n.to_string())).unwrap(),
            }
        }
        stream.finish().unwrap();
        plain.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        let order: Vec<_> = got.try_iter().collect();
        assert_eq!(order, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
        drop((remote, stream));
        three.all_empty();
    }
}

/// Tells that it is dropped.
struct Gone(Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // Nobody listens any more at the end of a test.
        let _ = self.0.send(());
    }
}

/// When A lets go of C's object, B does, and C drops it.
#[test]
fn release_through_a_proxy_drops_the_object() {
    for wire in Wire::ALL {
        let (tell, dropped) = unbounded();
        let giver = object(move |call| {
            let gone = Gone(tell.clone());
            let given = object(move |call| {
                let Gone(_) = &gone;
                crate::support::reply(call, "given")
            });
            reply_cap(call, &given);
            Ok(())
        });
        let three = Three::offering(wire, &giver);
        let given = given_back(&send(&three.near.here.bootstrap::<Client>(), 0, "").soon().unwrap());
        assert_eq!(ask(&given, 0, "").unwrap(), "given");
        // The bootstrap object and the given one, on the way from C to B; the first is offered by B.
        assert!(reaches(&three.far.there, |tables| tables.exports() == 2 && tables.answers() == 0));
        drop(given);
        (&dropped).soon();
        assert!(reaches(&three.far.there, |tables| tables.exports() == 1));
        three.near.both_empty();
        three.all_empty();
    }
}

/// A promise of C's, passed on by B to A, is resolved to an object of A's: all calls come home.
#[test]
fn a_promise_through_a_proxy_resolves_to_what_is_here() {
    for wire in Wire::ALL {
        let (promised, fulfiller) = Client::promise();
        let giver = {
            let promised = promised.clone();
            object(move |call| {
                reply_cap(call, &promised);
                Ok(())
            })
        };
        let (keep, kept) = unbounded();
        let keeper = object(move |call| {
            keep.send(cap(call)?).unwrap();
            Ok(())
        });
        let both = object(move |call| {
            let next = match call.method_id() {
                0 => request(&giver, 0, ""),
                _ => with_cap(&keeper, 0, &cap(call)?),
            };
            call.tail_call(next)
        });
        let three = Three::offering(wire, &both);
        let remote = three.near.here.bootstrap::<Client>();
        let given = given_back(&send(&remote, 0, "").soon().unwrap());
        let (mine, got) = collecting();
        with_cap(&remote, 1, &mine).send().soon().unwrap();
        let mut answers: Vec<_> = (0..20).map(|n| send(&given, 0, &n.to_string())).collect();
        fulfiller.fulfill((&kept).soon());
        answers.extend((20..40).map(|n| send(&given, 0, &n.to_string())));
        assert!(given.resolve().unwrap() == mine);
        answers.extend((40..60).map(|n| send(&given, 0, &n.to_string())));
        answers.into_iter().for_each(|answer| drop(answer.soon().unwrap()));
        let order: Vec<_> = got.try_iter().collect();
        assert_eq!(order, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

/// Each of the three goes: the others hear of what concerns them, and of nothing else.
#[test]
fn death_of_one_of_three_vats_fails_only_what_leads_to_it() {
    for wire in Wire::ALL {
        let (enter, entered) = unbounded();
        let hanging = object(move |call| {
            call.allow_next();
            enter.send(()).unwrap();
            call.cancellation().wait()
        });
        // C dies: A's call fails, the connection to B stays.
        let three = Three::offering(wire, &hanging);
        let call = send(&three.near.here.bootstrap::<Client>(), 0, "");
        (&entered).soon();
        three.far.cut.cut();
        assert_eq!(call.soon().unwrap_err().kind(), ExceptionKind::Disconnected);
        assert!(three.near.here.is_connected());
        // A dies: C's method is canceled, its connection to B stays.
        let three = Three::offering(wire, &hanging);
        let _call = send(&three.near.here.bootstrap::<Client>(), 0, "");
        (&entered).soon();
        three.near.cut.cut();
        assert!(reaches(&three.far.there, |tables| tables.answers() == 0));
        assert!(three.far.here.is_connected());
        // B dies: both hear of it.
        let three = Three::offering(wire, &hanging);
        let call = send(&three.near.here.bootstrap::<Client>(), 0, "");
        (&entered).soon();
        three.near.cut.cut();
        three.far.cut.cut();
        assert_eq!(call.soon().unwrap_err().kind(), ExceptionKind::Disconnected);
        three.far.there.wait_closed().unwrap();
    }
}

/// A chain of ten vats: a capability goes to its end and comes back, and so do calls.
#[test]
fn calls_and_a_capability_pass_through_a_chain_of_ten_vats() {
    for wire in Wire::ALL {
        let mut links = vec![Two::offering(wire, &identity())];
        for _ in 1..10 {
            let offered = links.last().unwrap().here.bootstrap::<Client>();
            links.push(Two::offering(wire, &offered));
        }
        let remote = links.last().unwrap().here.bootstrap::<Client>();
        let mine = echo();
        let ahead = with_cap(&remote, 0, &mine).send().pipeline.client();
        assert_eq!(ask(&ahead, 0, "ahead").unwrap(), "ahead");
        assert!(exchange(&remote, 0, &mine).unwrap().resolve().unwrap() == mine);
        assert!(ahead.resolve().unwrap() == mine);
        drop((remote, ahead));
        while let Some(link) = links.pop() {
            link.both_empty();
        }
    }
}
