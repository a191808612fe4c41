//! Clients: what a program holds of an object, wherever it is.

use std::any::Any;
use std::fmt;

use capnp::MessageSize;

use super::call::{CallInfo, Mode};
use super::capability::FromServer;
use super::object::{LocalObject, Server};
use super::pool::Pool;
use super::port::{Awaited, CallTarget, ImportRef, RemoteRef, RemoteTarget, Sent};
use super::promised::{ClientFulfiller, PromiseCell};
use super::request::Request;
use super::resolution::circle;
use super::watchers::Watcher;
use crate::error::{Exception, Result};
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
    /// A client of an object of this vat, whose methods run on the process's common [`Pool`].
    ///
    /// Calls are delivered in order and one at a time, unless a method lets the next one start
    /// ([`Call::allow_next`](super::Call::allow_next)).
    pub fn new<S: Server>(server: S) -> Self {
        Self::with_pool(server, Pool::global())
    }

    /// As [`new`](Self::new), with methods run on the given pool.
    pub fn with_pool<S: Server>(server: S, pool: &Pool) -> Self {
        Client::of_object::<S, Client>(server, pool)
    }

    pub(crate) fn of_object<S: Any + Send + Sync, C: FromServer<S>>(server: S, pool: &Pool) -> Self {
        Client(Kind::Local(Arc::new(LocalObject::new::<S, C>(server, pool.clone()))))
    }

    /// The null capability: what a pointer field that was never set holds. Calls on it fail.
    pub fn null() -> Self {
        Client(Kind::Null)
    }

    /// A client on which every call fails with `why`.
    pub fn broken(why: impl Into<Exception>) -> Self {
        Client(Kind::Broken(why.into()))
    }

    /// A client of an object that is not known yet, and the right to say which it is. Calls wait until then.
    pub fn promise() -> (Self, ClientFulfiller) {
        Self::promised()
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

    /// Whether this is the null capability, or a promise that was resolved to it.
    pub fn is_null(&self) -> bool {
        matches!(self.resolved().0, Kind::Null)
    }

    /// Why calls on this client fail, if it is known that they do: the client is broken, or the connection to the object
    /// has ended.
    pub fn broken_reason(&self) -> Option<Exception> {
        match self.resolved().0 {
            Kind::Import(import) => import.port.why_ended(),
            Kind::RemotePromise(promise) => promise.port.why_ended(),
            Kind::Broken(_) | Kind::Null | Kind::Local(_) | Kind::Promise(_) => self.broken_with(),
        }
    }

    /// The exception that this client was broken with, if it is. Looks at no connection: for transactions.
    pub(crate) fn broken_with(&self) -> Option<Exception> {
        match self.resolved().0 {
            Kind::Broken(why) => Some(why),
            _ => None,
        }
    }

    /// Whether this is a promise that has not been resolved yet.
    pub fn is_promise(&self) -> bool {
        matches!(self.resolved().0, Kind::Promise(_) | Kind::RemotePromise(_))
    }

    /// Waits until it is known which object this client is of, and gives a client of that.
    ///
    /// There is no need to wait before making calls: they are sent ahead.
    ///
    /// # Blocking
    /// Until every promise on the way is resolved, or its connection has ended. May be called inside a method.
    ///
    /// # Errors
    /// If the client is broken: a promise was, or the connection to the object has ended. And as [`Promise::wait`].
    pub fn resolve(&self) -> Result<Client> {
        let mut client = self.resolved();
        while let Some(promise) = client.next_resolution() {
            client = promise.wait()?.resolved();
        }
        match client.broken_reason() {
            Some(why) => Err(why.into()),
            None => Ok(client),
        }
    }

    /// Waits until it is known which object this client is of, and gives the server value behind it, if that is an object
    /// of this vat which was made from an `S`.
    ///
    /// # Blocking
    /// As [`resolve`](Self::resolve). Where nothing may wait: [`try_local_server`](Self::try_local_server).
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn wait_local_server<S: Any + Send + Sync>(&self) -> Result<Option<Arc<S>>> {
        Ok(self.resolve()?.server())
    }

    /// The server value behind this client, if it is known now that the client is of an object of this vat which was made
    /// from an `S`. Never waits: `None` for a promise too.
    pub fn local_server<S: Any + Send + Sync>(&self) -> Option<Arc<S>> {
        self.resolved().server()
    }

    /// What is known now of the server value behind this client. Never waits.
    pub fn try_local_server<S: Any + Send + Sync>(&self) -> LocalServer<S> {
        let client = self.resolved();
        match client.0 {
            Kind::Promise(_) | Kind::RemotePromise(_) => LocalServer::NotYet,
            _ => client.server().map_or(LocalServer::Elsewhere, LocalServer::Here),
        }
    }

    /// The server value of an object of this vat that was made from an `S`.
    fn server<S: Any + Send + Sync>(&self) -> Option<Arc<S>> {
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
