//! Who is at the other end, and what goes over the wire: bootstrap factories, credentials, traces.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use capnp_threads::transport::{Direction, MessageKind, TraceEvent, TraceOptions, Transport};
use capnp_threads::{
    Capability, Client, Error, ExceptionKind, Limits, Peer, PeerAddress, Pool, Threads, Vat,
};
use crossbeam_channel::unbounded;

use crate::support::wires::{Two, Wire};
use crate::support::{ask, echo, object, reply, said, send, text, why, Soon, DEADLINE, TEST};

/// An object that says who it was made for.
fn greeter(peer: &Peer) -> Client {
    let peer = peer.to_string();
    object(move |call| reply(call, &peer))
}

#[test]
fn a_factory_sees_the_address_of_each_peer() {
    let listener = Vat::new().bootstrap_with(|peer| Ok(greeter(peer))).listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr();
    for _ in 0..3 {
        let connection = Vat::new().connect(address).unwrap();
        let PeerAddress::Tcp { local, remote } = connection.peer().address else {
            panic!("{:?}", connection.peer())
        };
        assert_eq!(remote, address);
        assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "").unwrap(), format!("tcp {local}"));
    }
}

#[test]
fn a_factory_sees_the_credentials_of_each_peer() {
    let path = std::env::temp_dir().join(format!("capnp-threads-peers-{}", std::process::id()));
    let (put, got) = unbounded();
    let vat = Vat::new().bootstrap_with(move |peer| {
        put.send(peer.clone()).unwrap();
        Ok(greeter(peer))
    });
    let _listener = vat.listen_unix(&path).unwrap();
    let connection = Vat::new().connect_unix(&path).unwrap();
    let greeting = ask(&connection.bootstrap::<Client>(), 0, "").unwrap();
    let peer = (&got).soon();
    assert_eq!(peer.address, PeerAddress::Unix { path: Some(path) });
    let credentials = peer.credentials.expect("this system tells");
    assert_eq!(credentials.pid, Some(std::process::id() as i32));
    assert!(greeting.contains(&format!("uid {}", credentials.uid)), "{greeting}");
}

/// What a transport that was made outside knows of its peer.
struct Badge(&'static str);

#[test]
fn factory_and_method_see_the_identity_that_a_transport_has_set() {
    let by_badge = |peer: &Peer| {
        let Some(&Badge(name)) = peer.identity() else { return Err(Error::failed("no badge")) };
        Ok(object(move |call| {
            let peer = call.peer().expect("it came over a connection");
            let Badge(caller) = peer.identity().expect("the factory saw it");
            reply(call, &format!("{caller} calls what is {name}'s"))
        }))
    };
    let vat = Vat::new().bootstrap_with(by_badge);
    for threads in [Threads::Lending, Threads::Strict] {
        let connect = |peer: Peer| {
            let (near, far) = Transport::in_memory();
            let server = vat.clone().threads(threads).over(Transport { peer, ..far }).unwrap();
            let client = Vat::new().threads(threads).over(near).unwrap();
            let said = ask(&client.bootstrap::<Client>(), 0, "");
            client.close(DEADLINE).unwrap();
            server.wait_closed().unwrap();
            said
        };
        let known = Peer::new(PeerAddress::Other("a wire".into()));
        for name in ["Ada", "Grace"] {
            let said = connect(known.clone().with_identity(Badge(name))).unwrap();
            assert_eq!(said, format!("{name} calls what is {name}'s"));
        }
        for stranger in [known.clone(), known.with_identity("Ada")] {
            assert!(why(connect(stranger)).contains("no badge"));
        }
    }
}

#[test]
fn a_factory_makes_an_object_for_each_connection() {
    for wire in Wire::ALL {
        let made = Arc::new(Mutex::new(0));
        let count = made.clone();
        let there = Vat::new().bootstrap_with(move |_| {
            *count.lock().unwrap() += 1;
            Ok(echo())
        });
        for n in 1..4 {
            let two = Two::new(wire, Vat::new(), there.clone(), &Limits::default());
            let (first, second) = (two.here.bootstrap::<Client>(), two.here.bootstrap::<Client>());
            assert_eq!(ask(&first, 0, "x").unwrap(), ask(&second, 0, "x").unwrap());
            assert!(first.resolve().unwrap() == second.resolve().unwrap());
            assert_eq!(*made.lock().unwrap(), n);
        }
    }
}

/// A factory may take its time, and fail, and panic: calls wait for it, and fail with it.
#[test]
fn factory_that_waits_fails_or_panics_delays_or_fails_the_calls_on_its_object() {
    let (go, gone) = unbounded::<u8>();
    let there = Vat::new().bootstrap_with(move |_| match gone.recv().unwrap() {
        0 => Ok(echo()),
        1 => Err(capnp_threads::Exception::overloaded("not for you").into()),
        2 => panic!("no object today"),
        n => panic!("no object {n}"),
    });
    let two = || Two::new(Wire::Tcp, Vat::new(), there.clone(), &Limits::default());
    let waiting = two();
    let call = send(&waiting.here.bootstrap::<Client>(), 0, "waited")
        .wait_timeout(Duration::from_millis(1))
        .unwrap_err()
        .into_pending()
        .unwrap();
    go.send(0).unwrap();
    assert_eq!(said(&call.soon().unwrap()), "waited");
    let refused = two();
    go.send(1).unwrap();
    let error = ask(&refused.here.bootstrap::<Client>(), 0, "").unwrap_err();
    assert_eq!(error.kind(), ExceptionKind::Overloaded);
    assert!(error.to_string().contains("not for you"));
    for (n, text) in [(2, "no object today"), (3, "no object 3")] {
        let panicked = two();
        go.send(n).unwrap();
        let error = ask(&panicked.here.bootstrap::<Client>(), 0, "").unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Failed);
        assert!(error.to_string().contains(&format!("the bootstrap factory panicked: {text}")), "{error}");
        assert!(panicked.here.is_connected());
    }
}

/// A factory whose pool has no thread for it is overloaded, as a method would be.
#[test]
fn factory_whose_pool_has_no_thread_fails_as_overloaded() {
    let pool = Pool::with_limit(1);
    let (_never, gone) = unbounded::<()>();
    let there = Vat::new().pool(&pool).bootstrap_with(move |_| Ok(echo()));
    let (promised, fulfiller) = Client::promise();
    let asleep =
        Client::with_pool(crate::support::server(move |_| send(&promised, 0, "").wait().map(drop)), &pool);
    let sleeping = send(&asleep, 0, "");
    let deadline = std::time::Instant::now() + DEADLINE;
    while !format!("{pool:?}").contains("1 asleep") {
        assert!(std::time::Instant::now() < deadline, "{pool:?}");
        std::thread::yield_now();
    }
    let two = Two::new(Wire::Memory, Vat::new(), there, &Limits::default());
    let error = ask(&two.here.bootstrap::<Client>(), 0, "").unwrap_err();
    assert_eq!(error.kind(), ExceptionKind::Overloaded, "{error}");
    fulfiller.reject(capnp_threads::Exception::failed("enough"));
    assert!(sleeping.soon().is_err());
    drop(gone);
}

#[test]
fn a_method_sees_its_caller() {
    let asked = object(|call| {
        let who = match (call.connection(), call.peer()) {
            (Some(_), Some(peer)) => peer.to_string(),
            (None, None) => "this vat".into(),
            other => format!("{other:?}"),
        };
        reply(call, &who)
    });
    assert_eq!(ask(&asked, 0, "").unwrap(), "this vat");
    for wire in Wire::ALL {
        let two = Two::offering(wire, &asked);
        assert_eq!(ask(&two.here.bootstrap::<Client>(), 0, "").unwrap(), two.there.peer().to_string());
    }
}

/// All messages of a live connection are shown in order, and are the same on both sides.
#[test]
fn trace_shows_all_messages_of_a_live_connection_in_order() {
    for wire in Wire::ALL {
        let limits = Limits::default();
        let (a, b, _cut) = wire.ends([&limits, &limits]);
        let (traced, events): (Vec<Transport>, Vec<_>) = [a, b]
            .into_iter()
            .map(|transport| {
                let (put, got) = unbounded::<TraceEvent>();
                let trace = move |event: &TraceEvent| put.send(event.clone()).unwrap();
                (transport.traced(trace, TraceOptions::new().payloads(true)), got)
            })
            .unzip();
        let [a, b]: [Transport; 2] = traced.try_into().unwrap();
        let here = Vat::new().over(a).unwrap();
        let there = Vat::new().bootstrap(echo()).over(b).unwrap();
        assert_eq!(ask(&here.bootstrap::<Client>(), 0, "traced text").unwrap(), "traced text");
        here.close(DEADLINE).unwrap();
        there.wait_closed().unwrap();
        let [mine, theirs]: [Vec<TraceEvent>; 2] =
            events.iter().map(|got| got.try_iter().collect()).collect::<Vec<_>>().try_into().unwrap();
        for (sent, received) in [(&mine, &theirs), (&theirs, &mine)] {
            assert_eq!(kinds(sent, Direction::Sent), kinds(received, Direction::Received), "over {wire:?}");
        }
        let sent = kinds(&mine, Direction::Sent);
        // The answer to the Bootstrap, and so its Finish, may come before the call.
        let asked = sent.iter().filter(|kind| **kind != MessageKind::Finish);
        assert!(asked.take(2).eq(&[MessageKind::Bootstrap, MessageKind::Call]), "{sent:?}");
        let call = mine.iter().find(|e| e.kind() == Some(MessageKind::Call)).unwrap();
        assert_eq!((call.interface_id(), call.method_id()), (Some(TEST), Some(0)));
        assert!(call.to_string().contains("traced text"), "{call}");
        let mut returned = mine.iter().filter(|e| e.kind() == Some(MessageKind::Return));
        assert!(returned.next_back().unwrap().to_string().contains("traced text"));
    }
}

fn kinds(events: &[TraceEvent], direction: Direction) -> Vec<MessageKind> {
    events.iter().filter(|e| e.direction == direction).filter_map(TraceEvent::kind).collect()
}

#[test]
fn trace_that_panics_changes_nothing() {
    let (a, b) = Transport::in_memory();
    let here = Vat::new().over(a.traced(|_| panic!("on purpose"), TraceOptions::new())).unwrap();
    let _there = Vat::new().bootstrap(echo()).over(b).unwrap();
    assert_eq!(ask(&here.bootstrap::<Client>(), 0, "unharmed").unwrap(), "unharmed");
}

/// What a vat offers is what it was when the connection was made.
#[test]
fn bootstrap_object_set_after_connecting_does_not_change_the_connections() {
    let one = object(|call| reply(call, "one"));
    let other = object(|call| reply(call, "other"));
    let vat = Vat::new().bootstrap(one);
    let first = Two::new(Wire::Memory, Vat::new(), vat.clone(), &Limits::default());
    let second = Two::new(Wire::Memory, Vat::new(), vat.bootstrap(other), &Limits::default());
    assert_eq!(ask(&first.here.bootstrap::<Client>(), 0, "").unwrap(), "one");
    assert_eq!(ask(&second.here.bootstrap::<Client>(), 0, "").unwrap(), "other");
}

/// An offered promise, and one that is broken.
#[test]
fn offered_promise_serves_calls_when_fulfilled_and_fails_them_when_broken() {
    let (promised, fulfiller) = Client::promise();
    let two = Two::offering(Wire::Tcp, &promised);
    let early = send(&two.here.bootstrap::<Client>(), 0, "early");
    fulfiller.fulfill(object(|call| {
        let text = text(call)?;
        reply(call, &text)
    }));
    assert_eq!(said(&early.soon().unwrap()), "early");
    let two = Two::offering(Wire::Tcp, &Client::broken(Error::failed("never was")));
    assert!(why(ask(&two.here.bootstrap::<Client>(), 0, "")).contains("never was"));
}
