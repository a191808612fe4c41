//! The handle of a connection.

use std::fmt;

use super::drive;
use super::port::ConnectionRef;
use super::shared::Shared;
use super::stages::{Sender, Stages};
use super::threads::{self, Threads, THREADS};
use crate::cap::port::{ConnectionId, ConnectionOps};
use crate::cap::{Capability, Client};
use crate::error::{Error, Exception, Result};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::promise::{enter_blocking, enter_wait};
use crate::state::Snapshot;
use crate::sync::{self, Arc, Duration, Weak};
use crate::transport::Transport;

/// What a connection is started with. Each option is set by the method of its name, as those of a [`Vat`](crate::Vat) are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// What the connection may use.
    pub limits: Limits,
    /// What the peer gets when it asks for our bootstrap object; null for nothing.
    pub bootstrap: Client,
    /// How long any call over this connection may take before it fails as `overloaded`. `None`: for ever.
    pub call_timeout: Option<Duration>,
    /// Which threads drive the connection's stages.
    pub threads: Threads,
}

impl Options {
    /// Default limits, nothing offered, no time limit for calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limits. [`Connection::start`] checks them.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Offers a bootstrap object.
    #[must_use]
    pub fn bootstrap(mut self, client: impl Into<Client>) -> Self {
        self.bootstrap = client.into();
        self
    }

    /// Sets how long any call may take. [`Connection::start`] refuses zero.
    #[must_use]
    pub fn call_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.call_timeout = timeout.into();
        self
    }

    /// Says which threads drive the connection's stages.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }
}

/// A connection to another vat.
///
/// A handle: clones are of the same connection. It stays open while a handle, or any client of an object in
/// the peer, is held; when the last of those goes, it is closed. A vat that only serves its peer must keep a
/// handle.
#[derive(Clone)]
pub struct Connection(Arc<ConnectionRef>);

impl Connection {
    /// Starts a connection over a transport.
    ///
    /// With [`Threads::Strict`] it has four threads. With [`Threads::Lending`] it has one for each half of the transport that can
    /// only wait, and else none of its own.
    ///
    /// # Errors
    /// As `overloaded` if there is no room for its threads, or, where it needs none, for one thread more: see
    /// [`set_thread_limit`](crate::set_thread_limit). If the system has no thread to give. If the options hold limits that
    /// can't work ([`Limits::check`]), or a call timeout of zero.
    pub fn start(transport: Transport, options: Options) -> Result<Self> {
        options.limits.check()?;
        if options.call_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::failed("a call timeout of zero lets no call be answered"));
        }
        let own = match options.threads {
            Threads::Strict => THREADS,
            Threads::Lending => drive::own_threads(&transport),
        };
        // Where there is room for none, those that there are have enough to do.
        let mut places = drive::reserve(own.max(1))?;
        let threads = options.threads;
        let (lease, stages) = prepare(transport, options);
        match threads {
            Threads::Strict => threads::start(&lease.0, stages, &mut places)?,
            Threads::Lending => drive::start(&lease.0, stages, &mut places)?,
        }
        Ok(Connection(lease))
    }

    /// A connection without threads: whoever made it drives its stages. For tests.
    #[cfg(feature = "test-util")]
    pub(crate) fn stepped(transport: Transport, options: Options) -> (Self, Stages) {
        let (lease, stages) = prepare(transport, options);
        (Connection(lease), stages)
    }

    /// Where its transactions are to panic.
    #[cfg(all(test, not(any(shuttle, loom))))]
    pub(super) fn faults(&self) -> &super::transaction::tests::Faults {
        &self.0 .0.faults
    }

    /// Which connection this is.
    pub fn id(&self) -> ConnectionId {
        self.0 .0.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0 .0.peer
    }

    /// The peer's bootstrap object, as the client that the caller expects, typed or not; which interfaces the
    /// object has shows when it is called. Calls on it can be made at once; they are sent ahead of the answer.
    ///
    /// Each use asks the peer anew. Never blocks.
    pub fn bootstrap<C: Capability>(&self) -> C {
        let (client, question) = match self.0 .0.transact(|state, fx| state.ask_bootstrap(fx)) {
            Ok(asked) => asked,
            Err(broken) => (broken.client(), None),
        };
        if let Some(question) = question {
            self.0.limit_time(&question);
        }
        C::from(client)
    }

    /// Whether the connection has not ended.
    pub fn is_connected(&self) -> bool {
        self.disconnect_reason().is_none()
    }

    /// Why the connection has ended, if it has: of kind `disconnected`, with the first cause as its source.
    pub fn disconnect_reason(&self) -> Option<Exception> {
        self.0 .0.why_ended()
    }

    /// Has `callback` run when the connection has ended and all who waited for something have been told; at
    /// once, on this thread, if that is so.
    ///
    /// The callback runs on the connection's callback thread: it must not wait.
    pub fn on_disconnect(&self, callback: impl FnOnce(&Exception) + Send + 'static) {
        self.0 .0.ending.on_disconnect(Box::new(callback));
    }

    /// What stands in the connection's tables at this moment: every question, answer, export, import, promise and embargo.
    ///
    /// May be called at any time, on any thread. It copies the entries on the calling thread, which
    /// takes about 0.2 µs for each. The connection is held up for as long as a few hundred reference counts take: about 1 µs
    /// with 100,000 entries. While the entries are copied, a change of one of them first copies the 32 that it stands
    /// with.
    ///
    /// The snapshot is plain data: it keeps nothing alive, and does not change. But if the connection ends while the entries are
    /// copied, objects that only its tables held may be dropped on the calling thread. So it should hold no lock that their
    /// `Drop` takes.
    pub fn snapshot(&self) -> Snapshot {
        self.0 .0.snapshot()
    }

    /// What a snapshot takes under the lock. For benchmarks.
    #[cfg(feature = "test-util")]
    pub(crate) fn tables(&self) -> crate::state::Tables {
        self.0 .0.tables()
    }

    /// Waits until the tables are as `wanted`, looking when they have changed. False if the deadline passes or
    /// the connection ends before. For tests.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn wait_until(&self, deadline: sync::Instant, wanted: impl Fn(&Snapshot) -> bool) -> bool {
        self.0 .0.wait_until(deadline, wanted)
    }

    /// Closes the connection: waits until no call is under way in either direction, for at most `drain`, then
    /// ends it, and waits for its threads.
    ///
    /// # Blocking
    /// For at most `drain`, and [`Limits::linger`](crate::Limits::linger) for what is left to be sent. May be
    /// called inside a method; a method of this connection's waits for itself then, until `drain` is over.
    ///
    /// # Errors
    /// On one of a connection's own threads, where nothing may wait: the connection is ended without waiting.
    pub fn close(&self, drain: Duration) -> Result<()> {
        Self::close_all(std::slice::from_ref(self), drain)
    }

    /// Closes connections as [`close`](Self::close) does, all at the same time: each has its `drain`, and after that its
    /// linger, from the same moment as the others.
    pub(crate) fn close_all(connections: &[Connection], drain: Duration) -> Result<()> {
        let end = |connection: &Connection| {
            connection.end(Error::Exception(Exception::disconnected("the connection was closed here")));
        };
        let asleep = match enter_wait().and_then(|in_wait| Ok((in_wait, enter_blocking()?))) {
            Ok(asleep) => asleep,
            Err(e) => {
                connections.iter().for_each(end);
                return Err(e.into());
            }
        };
        let deadline = sync::deadline(drain);
        for connection in connections {
            connection.0 .0.wait_idle(deadline);
            end(connection);
        }
        let linger = connections.iter().map(|connection| connection.0 .0.limits.linger).max();
        let deadline = sync::deadline(linger.unwrap_or_default().saturating_mul(2));
        for connection in connections {
            connection.0 .0.ending.wait(Some(deadline));
        }
        drop(asleep);
        Ok(())
    }

    /// Ends the connection at once, telling the peer why: `rpc.capnp`'s `Abort`. Does not wait.
    pub fn abort(&self, why: impl Into<Exception>) {
        self.0 .0.end(Error::Exception(why.into()), true);
    }

    /// Ends the connection at once, without telling the peer why. Does not wait.
    pub(crate) fn end(&self, why: Error) {
        self.0 .0.end(why, false);
    }

    /// Waits until the connection has ended, for whatever reason, and all its callbacks have run.
    ///
    /// # Blocking
    /// Until then. The connection stays open meanwhile, since this handle is held.
    ///
    /// # Errors
    /// On one of a connection's own threads, where nothing may wait.
    pub fn wait_closed(&self) -> Result<Exception> {
        let _in_wait = enter_wait()?;
        let _asleep = enter_blocking()?;
        self.0 .0.ending.wait(None);
        Ok(self.disconnect_reason().expect("its stages end after it has"))
    }
}

/// A connection whose stages nobody drives yet.
fn prepare(transport: Transport, options: Options) -> (Arc<ConnectionRef>, Stages) {
    let Transport { sink, source, shutdown, peer, first_message } = transport;
    let lease = Arc::new_cyclic(|lease: &Weak<ConnectionRef>| {
        let port = |_: &Weak<Shared>| lease.clone() as Weak<dyn ConnectionOps>;
        ConnectionRef(Shared::new(peer, options, Sender::new(sink), shutdown, port))
    });
    let stages = Stages::new(&lease.0, source, first_message);
    (lease, stages)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} to {})", self.id(), self.peer())
    }
}
