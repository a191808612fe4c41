//! What clients have in common: typed ones, which the compiler generates, and the untyped [`Client`].

use std::any::Any;
use std::fmt;

use capnp::capability::DynClientHook;

use super::client::{Client, Kind, LocalServer};
use super::object::{LocalObject, Server};
use super::pool::Pool;
use super::promised::ClientFulfiller;
use super::serving::Call;
use super::weak::WeakClient;
use crate::error::{Exception, Result};
use crate::sync::Arc;

/// A client, typed or not: a reference to an object, wherever it is.
///
/// The compiler generates a `Client` for each interface, which has the interface's methods; what all clients
/// can do besides stands here. Typed clients are [`Client`]s underneath: cheap to clone, usable from any thread,
/// equal if they are of the same object. `From` leads from a client to those of the interfaces that its own
/// extends, and to and from the untyped one.
///
/// Implemented for [`Client`] and by generated code, and by nothing else: it may get more methods in any version.
pub trait Capability:
    From<Client> + Into<Client> + AsRef<Client> + Clone + Eq + fmt::Debug + Send + Sync + 'static
{
    /// A client of an object of this vat, which `server` is: any value that implements the interface's
    /// `Server`. Its methods run on the process's common [`Pool`], one at a time and in order, unless one lets
    /// the next start ([`Results::allow_next`](super::Results::allow_next)).
    fn new<S: Any + Send + Sync>(server: S) -> Self
    where
        Self: FromServer<S>,
    {
        Self::with_pool(server, Pool::global())
    }

    /// As [`new`](Self::new), with methods run on the given pool.
    fn with_pool<S: Any + Send + Sync>(server: S, pool: &Pool) -> Self
    where
        Self: FromServer<S>,
    {
        Client::of_object::<S, Self>(server, pool).into()
    }

    /// As [`new`](Self::new), for a server value that knows its own client: `make` makes it, given a reference that does
    /// not keep the object alive. (In a method there is also [`Results::this_client`](super::Results::this_client).)
    fn new_cyclic<S: Any + Send + Sync>(make: impl FnOnce(&WeakClient<Self>) -> S) -> Self
    where
        Self: FromServer<S>,
    {
        Self::with_pool_cyclic(Pool::global(), make)
    }

    /// As [`new_cyclic`](Self::new_cyclic), with methods run on the given pool.
    fn with_pool_cyclic<S: Any + Send + Sync>(pool: &Pool, make: impl FnOnce(&WeakClient<Self>) -> S) -> Self
    where
        Self: FromServer<S>,
    {
        let object = Arc::new_cyclic(|this| {
            LocalObject::new::<S, Self>(make(&WeakClient::new(this.clone())), pool.clone())
        });
        Client(Kind::Local(object)).into()
    }

    /// The null capability: what a pointer field that was never set holds. Calls on it fail.
    fn null() -> Self {
        Client(Kind::Null).into()
    }

    /// A client on which every call fails with `why`.
    fn broken(why: impl Into<Exception>) -> Self {
        Client(Kind::Broken(why.into())).into()
    }

    /// A client of an object that is not known yet, and the right to say which it is. Calls wait until then.
    fn promise() -> (Self, ClientFulfiller<Self>) {
        let (client, fulfiller) = Client::promised();
        (client.into(), fulfiller)
    }

    /// Whether this is the null capability, or a promise that was resolved to it.
    fn is_null(&self) -> bool {
        matches!(self.as_ref().resolved().0, Kind::Null)
    }

    /// Why calls on this client fail, if it is known that they do: the client is broken, or the connection to the object
    /// has ended.
    fn broken_reason(&self) -> Option<Exception> {
        match self.as_ref().resolved().0 {
            Kind::Import(import) => import.port.why_ended(),
            Kind::RemotePromise(promise) => promise.port.why_ended(),
            Kind::Broken(why) => Some(why),
            Kind::Null | Kind::Local(_) | Kind::Promise(_) => None,
        }
    }

    /// Whether this is a promise that has not been resolved yet.
    fn is_promise(&self) -> bool {
        matches!(self.as_ref().resolved().0, Kind::Promise(_) | Kind::RemotePromise(_))
    }

    /// Waits until it is known which object this client is of, and gives a client of that.
    ///
    /// There is no need to wait before making calls: they are sent ahead.
    ///
    /// # Blocking
    /// Until every promise on the way is resolved, or its connection has ended. May be called inside a method.
    ///
    /// # Errors
    /// If the client is broken: a promise was, or the connection to the object has ended. And as
    /// [`Promise::wait`](crate::Promise::wait).
    fn resolve(&self) -> Result<Self> {
        let mut client = self.as_ref().resolved();
        while let Some(promise) = client.next_resolution() {
            client = promise.wait()?.resolved();
        }
        match client.broken_reason() {
            Some(why) => Err(why.into()),
            None => Ok(client.into()),
        }
    }

    /// The server value behind this client, if it is known now that the client is of an object of this vat which was made
    /// from an `S`: what a `CapabilityServerSet` is for in other implementations. Whoever holds the client cannot forge
    /// that.
    ///
    /// Never waits: `None` for a promise too, which a client from a pipeline, or from params that were sent ahead, is until
    /// it is resolved. A server that is given back its own object uses [`wait_local_server`](Self::wait_local_server).
    fn local_server<S: Any + Send + Sync>(&self) -> Option<Arc<S>> {
        self.as_ref().resolved().server()
    }

    /// Waits until it is known which object this client is of, and gives the server value behind it, as
    /// [`local_server`](Self::local_server) does.
    ///
    /// # Blocking
    /// As [`resolve`](Self::resolve). Where nothing may wait: [`try_local_server`](Self::try_local_server).
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    fn wait_local_server<S: Any + Send + Sync>(&self) -> Result<Option<Arc<S>>> {
        Ok(self.resolve()?.as_ref().server())
    }

    /// What is known now of the server value behind this client: for callbacks, and methods of objects that run in
    /// place, where nothing may wait. Never waits.
    fn try_local_server<S: Any + Send + Sync>(&self) -> LocalServer<S> {
        let client = self.as_ref().resolved();
        match client.0 {
            Kind::Promise(_) | Kind::RemotePromise(_) => LocalServer::NotYet,
            _ => client.server().map_or(LocalServer::Elsewhere, LocalServer::Here),
        }
    }

    /// This client as the `capnp` crate holds clients, where that asks for it: to set an element of a list, or a pointer of any
    /// type.
    fn into_hook(self) -> Box<DynClientHook> {
        Box::new(self.into())
    }

    /// This client as one of another interface, unchecked: if the object does not have that, calls are answered
    /// with `unimplemented`.
    fn cast_to<C: Capability>(&self) -> C {
        C::from(self.as_ref().clone())
    }
}

/// Which server values a client can be of, and how a call is led to their methods.
///
/// The compiler implements this for the client of each interface and all values that implement the interface's
/// `Server`. For [`Client`] it is all that implement [`Server`]. Nothing else implements it, or calls its method: that is between
/// this crate and the code that is generated for it.
pub trait FromServer<S>: Capability {
    /// Calls the method of `server` that `call` names.
    ///
    /// # Errors
    /// The method's; of kind `unimplemented` if there is no such method.
    #[doc(hidden)]
    fn dispatch(server: &S, call: &mut Call) -> Result<()>;
}

impl Capability for Client {}

impl AsRef<Client> for Client {
    fn as_ref(&self) -> &Client {
        self
    }
}

impl<S: Server> FromServer<S> for Client {
    fn dispatch(server: &S, call: &mut Call) -> Result<()> {
        server.dispatch(call)
    }
}
