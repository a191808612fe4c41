//! What crosses threads, as the compiler sees it.

use std::future::Future;

use capnp_threads::transport::{Frame, TraceEvent, Transport};
use capnp_threads::{
    Call, Cancel, Client, ClientFulfiller, Connection, ConnectionId, Deferred, Error, Exception, Limits,
    Listener, Options, Params, Peer, Pipeline, Pool, Promise, ProtocolError, RemotePromise, Request,
    Response, Result, Server, Snapshot, Stream, TransportError, Vat,
};

const fn shared<T: Send + Sync + 'static>() {}
const fn sent<T: Send + 'static>() {}
const fn cloned<T: Clone>() {}
const fn awaited<T: Future<Output = Result<Response>> + Unpin>() {}

const _: () = {
    shared::<Client>();
    shared::<Pipeline>();
    shared::<Params>();
    shared::<Response>();
    shared::<Cancel>();
    shared::<Pool>();
    shared::<Stream>();
    shared::<Connection>();
    shared::<ConnectionId>();
    shared::<Listener>();
    shared::<Vat>();
    shared::<Options>();
    shared::<Limits>();
    shared::<Peer>();
    shared::<Snapshot>();
    shared::<ClientFulfiller>();
    shared::<Deferred>();
    shared::<Error>();
    shared::<Exception>();
    shared::<ProtocolError>();
    shared::<TransportError>();
    shared::<TraceEvent>();
    shared::<Frame>();
    shared::<Promise<Response>>();
    shared::<RemotePromise>();
    sent::<Transport>();
};

const _: () = {
    cloned::<Client>();
    cloned::<Pipeline>();
    cloned::<Params>();
    cloned::<Response>();
    cloned::<Cancel>();
    cloned::<Pool>();
    cloned::<Connection>();
    cloned::<Vat>();
    cloned::<Exception>();
    cloned::<Error>();
    cloned::<Snapshot>();
};

const _: () = awaited::<Promise<Response>>();

/// Answers `false` where a type is not `Send`: an inherent constant is preferred over the trait's.
struct IsSend<T>(std::marker::PhantomData<T>);

trait NotSend {
    const ANSWER: bool = false;
}

impl<T> NotSend for IsSend<T> {}

impl<T: Send> IsSend<T> {
    const ANSWER: bool = true;
}

/// What is being built may hold hooks of the `capnp` crate's kind, which are bound to their thread.
const _: () = {
    assert!(IsSend::<Client>::ANSWER);
    assert!(!IsSend::<Request>::ANSWER);
    assert!(!IsSend::<Call>::ANSWER);
};

/// Servers are objects, and may be kept as such.
const _: fn(Box<dyn Server>) = drop;
