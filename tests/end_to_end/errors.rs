//! Exceptions on their way, and what cannot be sent at all.

use std::error::Error as _;

use capnp::any_pointer;
use capnp::capability::{self, FromClientHook, Promise};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::MessageSize;
use capnp_threads::{Capability, Client, Error, Exception, ExceptionKind, Vat};
use socket2::{Domain, Socket, Type};

use crate::support::wires::{Two, Wire};
use crate::support::{ask, echo, object, reply, send, text, why, Soon, TEST};

const KINDS: [ExceptionKind; 4] = [
    ExceptionKind::Failed,
    ExceptionKind::Overloaded,
    ExceptionKind::Disconnected,
    ExceptionKind::Unimplemented,
];

/// Fails with the exception whose number it is called with, in every kind.
fn failing() -> Client {
    object(|call| {
        let kind: usize = text(call)?.parse().unwrap();
        let source = std::io::Error::other("does not travel");
        let why = Exception::new(KINDS[kind], format!("reason {kind} \u{1f980}"))
            .with_trace("at the far end\nof the wire")
            .with_detail(0xdead_beef, [0, 1, 255])
            .with_detail(2, [])
            .with_source(source);
        Err(why.into())
    })
}

#[test]
fn exception_reaches_the_caller_with_all_its_parts() {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &failing());
        let remote = two.here.bootstrap::<Client>();
        for (n, kind) in KINDS.into_iter().enumerate() {
            let error = Exception::from(ask(&remote, 0, &n.to_string()).unwrap_err());
            assert_eq!(error.kind(), kind);
            assert!(error.reason().contains(&format!("reason {n} \u{1f980}")), "{error}");
            assert_eq!(error.trace(), "at the far end\nof the wire");
            let details: Vec<_> = error.details().iter().map(|d| (d.id, &*d.data)).collect();
            assert_eq!(details, [(0xdead_beef, &[0, 1, 255][..]), (2, &[][..])]);
            assert!(error.source().is_none());
        }
    }
}

/// In one vat an exception keeps its cause too, and through however many hands.
#[test]
fn exception_within_a_vat_keeps_its_cause() {
    let inner = failing();
    let outer = object(move |call| {
        let answer = ask(&inner, 0, &text(call)?)?;
        reply(call, &answer)
    });
    let error = Exception::from(ask(&outer, 0, "1").unwrap_err());
    assert_eq!(error.kind(), ExceptionKind::Overloaded);
    assert_eq!(error.source().unwrap().to_string(), "does not travel");
}

/// Over two connections an exception is the same as over one.
#[test]
fn exception_through_a_proxy_is_the_same_as_over_one_connection() {
    let far = Two::offering(Wire::Tcp, &failing());
    let near = Two::offering(Wire::Tcp, &far.here.bootstrap::<Client>());
    for (n, kind) in KINDS.into_iter().enumerate() {
        let direct = Exception::from(ask(&far.here.bootstrap::<Client>(), 0, &n.to_string()).unwrap_err());
        let error = Exception::from(ask(&near.here.bootstrap::<Client>(), 0, &n.to_string()).unwrap_err());
        assert_eq!(error.kind(), kind);
        assert_eq!(error, direct);
    }
}

#[test]
fn calls_pipelined_on_a_failed_call_fail_with_the_same_exception() {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &failing());
        let call = send(&two.here.bootstrap::<Client>(), 0, "3");
        let ahead = send(&call.pipeline.client(), 0, "0");
        let (call, ahead) = (call.soon().unwrap_err(), ahead.soon().unwrap_err());
        assert_eq!((call.kind(), ahead.kind()), (ExceptionKind::Unimplemented, ExceptionKind::Unimplemented));
        assert!(ahead.to_string().contains("reason 3"), "{ahead}");
    }
}

/// A vat that offers nothing says so.
#[test]
fn bootstrap_of_a_vat_that_offers_nothing_fails() {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &Client::null());
        let remote = two.here.bootstrap::<Client>();
        assert!(why(ask(&remote, 0, "")).contains("offers no bootstrap"));
        assert!(why(remote.resolve()).contains("offers no bootstrap"));
        assert!(two.here.is_connected());
    }
}

/// A capability of some other implementation of the `capnp` crate's hooks. It says of itself what ours might.
struct Foreign;

impl ClientHook for Foreign {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Foreign)
    }

    fn new_call(
        &self,
        _: u64,
        _: u16,
        _: Option<MessageSize>,
    ) -> capability::Request<any_pointer::Owned, any_pointer::Owned> {
        panic!("nobody calls it")
    }

    fn call(
        &self,
        _: u64,
        _: u16,
        _: Box<dyn ParamsHook>,
        _: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        Promise::err(capnp::Error::failed("nobody calls it".into()))
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        0
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, capnp::Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), capnp::Error> {
        Promise::ok(())
    }
}

#[test]
fn foreign_hooks_are_refused() {
    let giving = object(|call| {
        if call.method_id() == 1 {
            call.results().set_as_capability(Box::new(Foreign));
        }
        if call.method_id() == 2 {
            call.results().set_as_capability(Box::new(Foreign));
            return call.set_pipeline();
        }
        Ok(())
    });
    let test = |client: &Client| {
        let mut request = client.request(TEST, 0);
        request.get().set_as_capability(Box::new(Foreign));
        let refused = why(request.send().soon());
        assert!(refused.contains("another Cap'n Proto implementation"), "{refused}");
        for method in [1, 2] {
            let refused = why(client.request(TEST, method).send().soon());
            assert!(refused.contains("another Cap'n Proto implementation"), "{refused}");
        }
        // The object is as good as before.
        send(client, 0, "").soon().unwrap();
    };
    test(&giving);
    for wire in Wire::ALL {
        let two = Two::offering(wire, &giving);
        test(&two.here.bootstrap::<Client>());
        two.both_empty();
    }
    let taken: Client = FromClientHook::new(Box::new(Foreign));
    assert!(taken.broken_reason().unwrap().reason().contains("another Cap'n Proto implementation"));
    let typed: Typed = FromClientHook::new(Box::new(Foreign));
    assert!(why(Client::from_typed(typed)).contains("another Cap'n Proto implementation"));
}

/// A typed client as the `capnp` crate's generated code has them.
struct Typed(Box<dyn ClientHook>);

impl FromClientHook for Typed {
    fn new(hook: Box<dyn ClientHook>) -> Self {
        Typed(hook)
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        self.0
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        &*self.0
    }
}

/// Results that are no capability, called as if they were one.
#[test]
fn results_that_are_no_capability_can_not_be_called() {
    for wire in Wire::ALL {
        let two = Two::offering(wire, &echo());
        let call = send(&two.here.bootstrap::<Client>(), 0, "a text");
        let called = send(&call.pipeline.client(), 0, "");
        let deeper = send(&call.pipeline.field(3).client(), 0, "");
        assert!(called.soon().is_err() && deeper.soon().is_err());
        assert!(call.soon().is_ok());
        assert_eq!(ask(&two.here.bootstrap::<Client>(), 0, "alive").unwrap(), "alive");
        two.both_empty();
    }
}

/// Errors of the system are of the transport, and say what was being done.
#[test]
fn error_of_connecting_says_what_was_tried() {
    // Nobody listens there, and nobody else can have it.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = bound.local_addr().unwrap().as_socket().unwrap();
    let refused = Vat::new().connect(address).unwrap_err();
    assert!(matches!(refused, Error::Transport(_)));
    assert_eq!(refused.kind(), ExceptionKind::Disconnected);
    assert!(refused.to_string().contains("connect over TCP"), "{refused}");
    let missing = Vat::new().connect_unix("/nowhere/at/all").unwrap_err();
    assert!(missing.to_string().contains("connect to a Unix socket"), "{missing}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Vat::new().listen(taken.local_addr().unwrap()).unwrap_err();
    assert!(taken.to_string().contains("listen for TCP"), "{taken}");
}
