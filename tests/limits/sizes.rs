//! Limits on the size and shape of messages.

use std::io::{Read, Write};

use capnp_threads::generated::rpc_capnp::message;
use capnp_threads::transport::Transport;
use capnp_threads::{Call, Client, ExceptionKind, Limits, Result, TransportError, Vat};

use crate::support::{
    answer, ask, echo, failure, limits, object, send, tcp_pair, text, transport_error, Two, TEST,
};

#[test]
fn a_call_that_is_too_large_fails() {
    let two = Two::in_memory(limits(|l| l.message_words = 1000), Limits::default(), &echo());
    let why = failure(answer(send(&two.remote, &"x".repeat(8000))));
    assert_eq!(why.kind(), ExceptionKind::Failed);
    assert!(why.reason().starts_with("a message of 1"), "{why}");
    assert!(why.reason().ends_with(" words, where 1000 are allowed"), "{why}");
    assert_eq!(ask(&two.remote, "still here").unwrap(), "still here");
    two.settle();
}

#[test]
fn an_answer_that_is_too_large_fails() {
    let server = object(|call| {
        let length = text(call)?.parse().unwrap();
        Ok(call.results().set_as(&*"x".repeat(length))?)
    });
    let two = Two::in_memory(Limits::default(), limits(|l| l.message_words = 1000), &server);
    let why = failure(ask(&two.remote, "8000"));
    assert_eq!(why.kind(), ExceptionKind::Failed);
    assert!(why.reason().ends_with(" words, where 1000 are allowed"), "{why}");
    assert_eq!(ask(&two.remote, "7000").unwrap().len(), 7000);
    two.settle();
}

/// The reason of an exception is as long as its method likes.
#[test]
fn an_exception_that_is_too_large_is_cut_short() {
    let failing = object(|_| Err(capnp_threads::Error::failed("é".repeat(100_000))));
    let small = limits(|l| l.message_words = 1000);
    let (a, b) = tcp_pair();
    let ends = [a, b].map(|end| Transport::tcp(end, &small).unwrap());
    let two = Two::over(ends, Vat::new().limits(small.clone()), Vat::new().limits(small), &failing);
    let why = failure(answer(send(&two.remote, "")));
    assert_eq!(why.kind(), ExceptionKind::Failed, "{why}");
    assert!(why.reason().starts_with("éééé"), "{why}");
    assert!(why.reason().ends_with("[cut short]"), "{why}");
    assert!(two.here.is_connected() && two.there.is_connected());
    two.settle();
}

/// A message that is too large, from a peer with greater limits, on each kind of transport.
#[test]
fn a_message_of_the_peers_that_is_too_large_ends_the_connection() {
    let (a, b) = tcp_pair();
    let small = limits(|l| l.message_words = 1000);
    let tcp = [Transport::tcp(a, &Limits::default()).unwrap(), Transport::tcp(b, &small).unwrap()];
    let memory: [Transport; 2] = Transport::in_memory().into();
    for ends in [tcp, memory] {
        let two = Two::over(ends, Vat::new(), Vat::new().limits(small.clone()), &echo());
        assert_eq!(ask(&two.remote, &"x".repeat(7000)).unwrap().len(), 7000);
        let why = failure(answer(send(&two.remote, &"x".repeat(8000))));
        assert_eq!(why.kind(), ExceptionKind::Disconnected);
        match transport_error(&two.there) {
            TransportError::TooLarge { words, limit: 1000 } => assert!(words > 1000),
            other => panic!("{other}"),
        }
    }
}

/// `Message.unimplemented` nests as deep as one likes.
fn nest(call: message::Builder<'_>, depth: usize) {
    match depth {
        0 => drop(call.init_finish()),
        _ => nest(call.init_unimplemented(), depth - 1),
    }
}

fn depth(call: &Call) -> Result<usize> {
    let mut message = call.params_as::<message::Reader>()?;
    let mut depth = 0;
    while let message::Unimplemented(inner) = message.which()? {
        message = inner?;
        depth += 1;
    }
    Ok(depth)
}

#[test]
fn params_that_nest_too_deep_can_not_be_read() {
    let server = object(|call| {
        let answer = depth(call)?.to_string();
        Ok(call.results().set_as(&*answer)?)
    });
    let two = Two::in_memory(Limits::default(), limits(|l| l.nesting = 30), &server);
    let nested = |depth| {
        let mut request = two.remote.request(TEST, 0);
        nest(request.init(), depth);
        answer(request.send())
    };
    let why = failure(nested(40));
    assert_eq!(why.kind(), ExceptionKind::Failed);
    assert!(why.reason().contains("nest"), "{why}");
    let deep = nested(20).unwrap();
    assert_eq!(deep.get_as::<capnp::text::Reader>().unwrap(), "20");
    two.settle();
}

/// The most that `Limits::nesting` can be, where all stacks are as large as they are by default: a proxy copies what it passes
/// on, the method copies its params, and who called reads them.
#[test]
fn params_that_nest_as_deep_as_can_be_allowed_are_copied_and_passed_on() {
    let deepest = limits(|l| l.nesting = 256);
    let server = object(|call| {
        let (params, mut results) = call.typed::<message::Owned, message::Owned>();
        results.set(params.get()?)
    });
    let (behind, before) = (Two::in_memory(deepest.clone(), deepest.clone(), &server), deepest.clone());
    let two = Two::in_memory(before, deepest, &behind.remote);
    let nested = |depth| {
        let mut request = two.remote.request(TEST, 0);
        nest(request.init(), depth);
        answer(request.send())
    };
    let response = nested(250).unwrap();
    let (mut at, mut depth) = (response.get_as::<message::Reader>().unwrap(), 0);
    while let message::Unimplemented(inner) = at.which().unwrap() {
        (at, depth) = (inner.unwrap(), depth + 1);
    }
    assert_eq!(depth, 250);
    assert!(failure(nested(256)).reason().contains("nest"));
}

/// The params are read repeatedly, as a message would have it whose pointers all lead to one place.
#[test]
fn params_read_beyond_the_traversal_limit_fail() {
    let server = object(|call| {
        let times: usize = text(call)?.len() / 1000;
        (0..times).try_for_each(|_| text(call).map(drop))
    });
    let two = Two::in_memory(Limits::default(), limits(|l| l.traversal_words = 4000), &server);
    let why = failure(answer(send(&two.remote, &"x".repeat(8000))));
    assert_eq!(why.kind(), ExceptionKind::Failed);
    assert!(why.reason().to_lowercase().contains("limit"), "{why}");
    answer(send(&two.remote, &"x".repeat(2000))).unwrap();
    two.settle();
}

#[test]
fn results_read_beyond_the_traversal_limit_fail() {
    let two = Two::in_memory(limits(|l| l.traversal_words = 4000), Limits::default(), &echo());
    let response = answer(send(&two.remote, &"x".repeat(8000))).unwrap();
    let mut reads = (0..10).map(|_| response.get_as::<capnp::text::Reader>().map(|text| text.len()));
    assert_eq!(reads.next().unwrap().unwrap(), 8000);
    let why = failure(reads.find(|read| read.is_err()).expect("10000 words are read, of 4000"));
    assert!(why.reason().to_lowercase().contains("limit"), "{why}");
    assert_eq!(ask(&two.remote, "still here").unwrap(), "still here");
}

/// The first word of a message claims 2^32 segments: nothing more needs to come, and no table is made.
#[test]
fn a_message_that_claims_too_many_segments_ends_its_connection_alone() {
    let claim = [0xff; 8];
    let (mut a, b) = tcp_pair();
    let server = Vat::new().over(Transport::tcp(b, &Limits::default()).unwrap()).unwrap();
    a.write_all(&claim).unwrap();
    match transport_error(&server) {
        TransportError::BadFrame(why) => assert_eq!(why, "4294967296 segments, where 512 are allowed"),
        other => panic!("{other}"),
    }
    let offering: Client = echo();
    let listener = Vat::new().bootstrap(offering).listen("127.0.0.1:0").unwrap();
    let other = Vat::new().connect(listener.local_addr()).unwrap();
    let remote = other.bootstrap::<Client>();
    assert_eq!(ask(&remote, "before").unwrap(), "before");
    let mut raw = std::net::TcpStream::connect(listener.local_addr()).unwrap();
    raw.write_all(&claim).unwrap();
    assert_eq!(raw.read(&mut [0; 8]).unwrap(), 0, "the connection is closed");
    assert_eq!(ask(&remote, "after").unwrap(), "after");
}
