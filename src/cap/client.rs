//! Clients: what a program holds of an object, wherever it is.

use std::any::Any;
use std::fmt;

use capnp::MessageSize;

use super::call::{CallInfo, Mode};
use super::capability::Capability;
use super::capability::FromServer;
use super::object::LocalObject;
use super::pool::Pool;
use super::port::{Awaited, CallTarget, ImportRef, RemoteRef, RemoteTarget, Sent};
use super::promised::{ClientFulfiller, PromiseCell};
use super::request::Request;
use super::resolution::circle;
use super::watchers::Watcher;
use crate::error::Exception;
use crate::limits::ROOM_TIMEOUT;
use crate::promise::{promise, Promise};
use crate::sync::{Arc, Duration};

/// How many times a call is delivered to a promise that is resolved meanwhile, before the promises are taken to be a circle
/// that two connections closed at the same moment.
const MAX_HOPS: usize = 10_000;

/// A reference to an object: in this vat, in a peer, promised, broken or null.
///
/// Cheap to clone, and usable from any thread. Calls made through one client, or through clones of it by
/// threads that agree on an order, arrive in the order made. When the last clone is dropped, the object's
/// host is told; calls that are under way go on.
///
/// Equality is by object: a promise equals what it has been resolved to.
///
/// What a typed client can do too is in [`Capability`]: to make one, to wait for what it is of. Here stands what only the untyped
/// one can: to call methods by their numbers.
#[derive(Clone)]
pub struct Client(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Null,
    Broken(Exception),
    /// An object of this vat.
    Local(Arc<LocalObject>),
    /// A promise of this vat; calls wait in it.
    Promise(Arc<PromiseCell>),
    /// A settled capability in a peer.
    Import(Arc<ImportRef>),
    /// A promise in a peer; calls go there until it is resolved.
    RemotePromise(Arc<RemoteRef>),
}

impl Client {
    pub(crate) fn of_object<S: Any + Send + Sync, C: FromServer<S>>(server: S, pool: &Pool) -> Self {
        Client(Kind::Local(Arc::new(LocalObject::new::<S, C>(server, pool.clone()))))
    }

    pub(crate) fn promised<C>() -> (Self, ClientFulfiller<C>) {
        let cell = PromiseCell::new(None);
        (Client(Kind::Promise(cell.clone())), ClientFulfiller::new(cell))
    }

    /// Begins a call: a request whose params are to be filled in and which is then sent.
    pub fn request(&self, interface_id: u64, method_id: u16) -> Request {
        self.request_sized(interface_id, method_id, None)
    }

    /// As [`request`](Self::request), with a hint of the size of the params, which saves copying.
    pub fn request_sized(
        &self,
        interface_id: u64,
        method_id: u16,
        size_hint: Option<MessageSize>,
    ) -> Request {
        Request::new(self.clone(), interface_id, method_id, size_hint)
    }

    /// The exception that this client was broken with, if it is. Looks at no connection: for transactions.
    pub(crate) fn broken_with(&self) -> Option<Exception> {
        match self.resolved().0 {
            Kind::Broken(why) => Some(why),
            _ => None,
        }
    }

    /// The server value of an object of this vat that was made from an `S`.
    pub(super) fn server<S: Any + Send + Sync>(&self) -> Option<Arc<S>> {
        match &self.0 {
            Kind::Local(object) => Arc::clone(&object.server).downcast().ok(),
            _ => None,
        }
    }

    /// A promise for what this client is resolved to next, or `None` if it is settled.
    pub(crate) fn next_resolution(&self) -> Option<Promise<Client>> {
        let client = self.resolved();
        if !matches!(client.0, Kind::Promise(_) | Kind::RemotePromise(_)) {
            return None;
        }
        let (promise, fulfiller) = promise();
        client.watch(Watcher::waiter(fulfiller));
        Some(promise)
    }

    /// Has `watcher` told when this client is resolved one step further; at once if it is no pending promise.
    pub(crate) fn watch(&self, watcher: Watcher) {
        match &self.0 {
            Kind::Promise(cell) => cell.watch(watcher),
            Kind::RemotePromise(promise) => match promise.resolved.get() {
                Some(client) => watcher.resolved(client),
                None => promise.port.watch(promise, watcher),
            },
            _ => watcher.resolved(self),
        }
    }

    /// For how long a caller waits for room: what the connection to the object says, if calls go over one.
    pub(super) fn room_timeout(&self) -> Option<Duration> {
        match &self.last().0 {
            Kind::Import(import) => import.port.room_timeout(),
            Kind::RemotePromise(promise) => promise.port.room_timeout(),
            Kind::Null | Kind::Broken(_) | Kind::Local(_) | Kind::Promise(_) => ROOM_TIMEOUT,
        }
    }

    /// Whether this was a promise, which may have been resolved.
    pub(crate) fn may_be_promise(&self) -> bool {
        matches!(self.0, Kind::Promise(_) | Kind::RemotePromise(_))
    }

    /// The answer to the peer that this client is a promise for a capability of, as long as that is not there.
    pub(crate) fn awaited_answer(&self) -> Option<Awaited> {
        match &self.0 {
            Kind::Promise(cell) => cell.awaited_answer(),
            _ => None,
        }
    }

    /// Delivers a call to the object, or as far towards it as it can go now.
    pub(crate) fn deliver(&self, call: CallInfo, mode: Mode) {
        let mut sent = self.deliver_once(call, mode);
        for _ in 1..MAX_HOPS {
            let Sent::Redirect(follow) = sent else { return };
            let (client, call) = *follow;
            sent = client.deliver_once(call, mode);
        }
        if let Sent::Redirect(follow) = sent {
            follow.1.fail(circle());
        }
    }

    /// Delivers a call, unless what it is delivered to has been resolved meanwhile.
    fn deliver_once(&self, call: CallInfo, mode: Mode) -> Sent {
        let to = self.last();
        match &to.0 {
            Kind::Null => call.fail(null_call()),
            Kind::Broken(why) => call.fail(why.clone()),
            Kind::Local(object) => object.deliver(call),
            Kind::Promise(cell) => return cell.deliver(call),
            Kind::Import(import) => {
                return import.port.call(
                    CallTarget::Remote(&RemoteTarget::Import(import.clone())),
                    call,
                    mode,
                )
            }
            Kind::RemotePromise(promise) => {
                return promise.port.call(CallTarget::Promise(promise), call, mode)
            }
        }
        Sent::Done
    }

    /// A number that tells this object from others of this process as long as it lives.
    pub(crate) fn address(&self) -> usize {
        match &self.0 {
            Kind::Null => 0,
            Kind::Broken(_) => 1,
            Kind::Local(object) => Arc::as_ptr(object) as usize,
            Kind::Promise(cell) => Arc::as_ptr(cell) as usize,
            Kind::Import(import) => Arc::as_ptr(import) as usize,
            Kind::RemotePromise(promise) => Arc::as_ptr(promise) as usize,
        }
    }
}

/// What [`Capability::try_local_server`](super::Capability::try_local_server) knows of the server value behind a client.
pub enum LocalServer<S> {
    /// The value: the object is of this vat, and was made from an `S`.
    Here(Arc<S>),
    /// The object is of another vat, or was made from another type; or the client is null or broken.
    Elsewhere,
    /// The client is a promise that has not been resolved.
    NotYet,
}

impl<S> LocalServer<S> {
    /// The value, if it is here.
    pub fn here(self) -> Option<Arc<S>> {
        match self {
            LocalServer::Here(server) => Some(server),
            LocalServer::Elsewhere | LocalServer::NotYet => None,
        }
    }
}

impl<S> fmt::Debug for LocalServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LocalServer::Here(_) => "LocalServer(here)",
            LocalServer::Elsewhere => "LocalServer(elsewhere)",
            LocalServer::NotYet => "LocalServer(not yet)",
        })
    }
}

/// Why calls on the null capability fail.
pub(crate) fn null_call() -> Exception {
    Exception::failed("called a null capability")
}

impl Default for Client {
    fn default() -> Self {
        Client::null()
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.resolved(), other.resolved());
        match (&a.0, &b.0) {
            (Kind::Broken(a), Kind::Broken(b)) => a == b,
            _ => a.address() == b.address(),
        }
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Null => f.write_str("Client(null)"),
            Kind::Broken(why) => write!(f, "Client(broken, {why})"),
            Kind::Local(object) => write!(f, "Client(local {:p})", Arc::as_ptr(object)),
            // What it is in the end: a chain may be long.
            Kind::Promise(cell) => match cell.resolved.get() {
                Some(to) => write!(f, "Client(promise {:p} -> {:?})", Arc::as_ptr(cell), to.resolved()),
                None => write!(f, "Client(promise {:p})", Arc::as_ptr(cell)),
            },
            Kind::Import(i) => write!(f, "Client(import {} of connection {})", i.id, i.port.connection()),
            Kind::RemotePromise(p) => match p.resolved.get() {
                Some(to) => {
                    write!(f, "Client(promise of connection {} -> {:?})", p.port.connection(), to.resolved())
                }
                None => write!(f, "Client(promise of connection {})", p.port.connection()),
            },
        }
    }
}
