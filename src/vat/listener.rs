//! Listening: a thread that accepts, and the set of connections that it made.

use std::fmt;
use std::net::SocketAddr;

use super::acceptor::{Accepted, Acceptor, Handshake, Kind};
use super::connections::{Connections, HandshakeEnd, Pending};
use super::Vat;
use crate::conn::Connection;
use crate::error::{catch_panic, Error, Exception, Result, TransportError};
use crate::limits::Limits;
use crate::promise::{enter_blocking, enter_wait};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{
    self, foreign, Arc, Budget, Condvar, Duration, Foreign, Instant, Mutex, Purpose, Rank, Role, Timer,
};
use crate::transport::{Shutdown, Transport};

/// How long a listener waits at most after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, and serves each. `A` is what it listens on: a [`SocketAddr`] for TCP, a path for a
/// Unix socket, whatever the [`Acceptor`] says for others.
///
/// Dropping it closes the socket and ends its connections; to let them go on without it, [`detach`](Self::detach). When the
/// drop is done, the same address can be listened on again. The path of a Unix socket is removed, unless another file
/// stands there by then.
pub struct Listener<A = SocketAddr> {
    shared: Arc<Shared>,
    address: A,
    detached: bool,
}

struct Shared {
    vat: Vat,
    stop: Foreign<Box<dyn Shutdown>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// ```text
/// Note [Closing a listener]
/// =========================
/// The acceptor is in one of three places, which the lock guards: here (`Idle`), with the accepting thread while that is in
/// `accept` (`Accepting`), or nowhere (`Closed`). What is accepted is served in `Idle`: so a bootstrap factory that runs on
/// the accepting thread may drop the listener.
///
/// A thread that stops the listener takes the acceptor out of `Idle` and drops it, which closes its socket. If the acceptor
/// is in `Accepting`, that thread has `accept` return (`Acceptor::stop`), and waits. The accepting thread finds that it is to
/// stop, drops the acceptor and says so. So `stop` returns when the socket is closed. For the sockets of this crate it waits
/// for two or three system calls at most.
/// ```
struct State {
    connections: Connections,
    acceptor: AcceptorState,
    closing: bool,
    /// The accepting thread has ended.
    ended: bool,
}

/// What accepts, whatever it listens on.
type Accept = Foreign<Box<dyn FnMut(&Limits) -> Result<Option<Accepted>> + Send>>;

enum AcceptorState {
    Idle(Accept),
    Accepting,
    Closed,
}

impl<A> Listener<A> {
    pub(super) fn start(vat: Vat, mut acceptor: impl Acceptor<Address = A>) -> Result<Self> {
        let (address, stop) = (acceptor.local_addr(), Foreign::new(acceptor.stop()));
        let accept: Accept = Foreign::new(Box::new(move |limits: &Limits| acceptor.accept(limits)));
        let acceptor = AcceptorState::Idle(accept);
        let state = State { connections: Connections::default(), acceptor, closing: false, ended: false };
        let state = Mutex::new(Rank::Vat, state);
        let shared = Arc::new(Shared { vat, stop, state, changed: Condvar::new() });
        let accepting = shared.clone();
        sync::spawn("capnp-accept", Role::User, move || accepting.accept_all())
            .map_err(|e| TransportError::io("start a thread of a listener", e))?;
        Ok(Listener { shared, address, detached: false })
    }

    /// What is listened on: of a TCP socket the address, with the port that the system chose if it was 0.
    pub fn local_addr(&self) -> A
    where
        A: Clone,
    {
        self.address.clone()
    }

    /// The same listener, which says in another way what it listens on: so that listeners of several kinds can be kept in
    /// one list.
    #[must_use = "the listener ends when it is dropped"]
    pub fn map_addr<B>(mut self, convert: impl FnOnce(&A) -> B) -> Listener<B> {
        let address = convert(&self.address);
        self.detached = true;
        Listener { shared: self.shared.clone(), address, detached: false }
    }

    /// The connections that were accepted and have not ended.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.state.lock().connections.open()
    }

    /// Closes the socket, ends handshakes, lets calls that are under way end for at most `drain`, and closes all connections. The same
    /// address can be listened on as soon as the socket is closed, which comes first.
    ///
    /// # Blocking
    /// As [`Connection::close`], for all connections together: for at most `drain`, and the longest
    /// [`Limits::linger`](crate::Limits::linger) once.
    ///
    /// # Errors
    /// As [`Connection::close`].
    pub fn close(self, drain: Duration) -> Result<()> {
        self.shared.stop();
        Connection::close_all(&self.connections(), drain)
    }

    /// Waits until the listener has stopped accepting: for a server that runs until it is killed, for ever.
    ///
    /// # Errors
    /// On a connection's own threads, where nothing may wait.
    pub fn wait(&self) -> Result<()> {
        let _in_wait = enter_wait()?;
        let _asleep = enter_blocking()?;
        let mut state = self.shared.state.lock();
        while !state.ended {
            self.shared.changed.wait(&mut state);
        }
        Ok(())
    }

    /// Lets the socket and its connections go on, until the process ends.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl<A> Drop for Listener<A> {
    fn drop(&mut self) {
        if !self.detached {
            self.shared.stop();
            let connections = self.shared.state.lock().connections.take_open();
            connections.into_values().for_each(end);
        }
    }
}

fn end(connection: Connection) {
    connection.end(Error::Exception(Exception::disconnected("the listener was closed")));
}

impl Shared {
    fn accept_all(self: &Arc<Self>) {
        let _ended = sync::finally(|| {
            self.state.lock().ended = true;
            self.changed.notify_all();
        });
        while let Some(accepted) = self.accept() {
            let served = accepted.and_then(|accepted| match accepted.0.into_inner() {
                Kind::Ready(transport) => self.serve(transport, self.vat.limits.first_message, None),
                Kind::Pending(handshake) => self.begin(handshake),
            });
            if let Err(e) = served {
                not_accepted(&e);
                self.pause();
            }
        }
    }

    /// Accepts the next peer, once another one may be served. `None`: no more. See Note [Closing a listener].
    fn accept(&self) -> Option<Result<Accepted>> {
        let mut state = self.state.lock();
        while !state.closing && state.connections.len() >= self.vat.limits.connections {
            self.changed.wait(&mut state);
        }
        let AcceptorState::Idle(mut accept) =
            std::mem::replace(&mut state.acceptor, AcceptorState::Accepting)
        else {
            state.acceptor = AcceptorState::Closed;
            return None;
        };
        drop(state);
        let accepted = catch_panic("an acceptor", || accept(&self.vat.limits)).transpose();
        let mut state = self.state.lock();
        if !state.closing && accepted.is_some() {
            state.acceptor = AcceptorState::Idle(accept);
            return accepted;
        }
        drop(state);
        drop((accepted, accept));
        self.state.lock().acceptor = AcceptorState::Closed;
        self.changed.notify_all();
        None
    }

    /// Gives the system time to have what it lacked (descriptors, threads): until a connection ends, and not
    /// for long.
    fn pause(&self) {
        let deadline = Instant::now() + PAUSE;
        self.changed.wait_until(&mut self.state.lock(), Some(deadline));
    }

    /// Has a handshake done on a thread of its own, within the time for the first message.
    fn begin(self: &Arc<Self>, Handshake { complete, shutdown }: Handshake) -> Result<()> {
        let complete = Foreign::new(complete);
        let end = HandshakeEnd::new(shutdown);
        let place = Budget::of_process().reserve(1, Purpose::Connection);
        let mut place =
            place.map_err(|e| Exception::overloaded(format!("a handshake needs a thread: {e}")))?;
        let mut state = self.state.lock();
        if state.closing {
            drop(state);
            end.shut_down();
            return Ok(());
        }
        let pending = state.connections.begin(end.clone());
        drop(state);
        let this = self.clone();
        let run = move || {
            if let Err(e) = this.complete(complete, &end, pending) {
                not_accepted(&e);
            }
        };
        place.spawn("capnp-handshake", Role::User, run).map(drop).map_err(|e| {
            self.give_place_back(pending);
            Error::Transport(TransportError::io("start a thread for a handshake", e))
        })
    }

    /// Runs a handshake, and serves the transport that it makes.
    fn complete(
        self: &Arc<Self>,
        complete: Foreign<Box<dyn FnOnce() -> Result<Transport> + Send>>,
        end: &Arc<HandshakeEnd>,
        pending: Pending,
    ) -> Result<()> {
        let late = Arc::new(AtomicBool::new(false));
        let limit = self.vat.limits.first_message;
        let deadline = limit.map(sync::deadline);
        let timer = deadline.map(|deadline| {
            let (late, end) = (late.clone(), end.clone());
            Timer::global().at(deadline, move || {
                late.store(true, Ordering::Relaxed);
                end.shut_down();
            })
        });
        let made = catch_panic("a handshake", complete.into_inner()).map(Foreign::new);
        if let Some(timer) = timer {
            Timer::global().cancel(timer);
        }
        let made = match limit.filter(|_| late.load(Ordering::Relaxed)) {
            Some(limit) => Err(TransportError::FirstMessageLate(limit).into()),
            None => made,
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let served = made.and_then(|transport| self.serve(transport.into_inner(), left, Some(pending)));
        if served.is_err() {
            self.give_place_back(pending);
        }
        served
    }

    /// No connection comes of a handshake.
    fn give_place_back(&self, pending: Pending) {
        let end = self.state.lock().connections.fail(pending);
        self.changed.notify_all();
        drop(end);
    }

    /// Starts a connection, which takes the place of the handshake that it came from.
    fn serve(
        self: &Arc<Self>,
        mut transport: Transport,
        first_message: Option<Duration>,
        from: Option<Pending>,
    ) -> Result<()> {
        transport.first_message = transport.first_message.or(first_message);
        let connection = catch_panic("a transport", || self.vat.over(transport))?;
        let id = connection.id();
        let mut state = self.state.lock();
        if state.closing {
            drop(state);
            end(connection);
            return Ok(());
        }
        let handshake = state.connections.insert(connection.clone(), from);
        drop(state);
        drop(handshake);
        let this = Arc::downgrade(self);
        connection.on_disconnect(move |_| {
            if let Some(this) = this.upgrade() {
                let ended = this.state.lock().connections.remove(id);
                this.changed.notify_all();
                drop(ended);
            }
        });
        Ok(())
    }

    /// Closes the socket, ends handshakes, and has the accepting thread end. See Note [Closing a listener].
    fn stop(&self) {
        foreign("the stop of an acceptor", || self.stop.shutdown());
        let mut state = self.state.lock();
        state.closing = true;
        self.changed.notify_all();
        let handshakes = state.connections.pending();
        match std::mem::replace(&mut state.acceptor, AcceptorState::Closed) {
            AcceptorState::Idle(accept) => {
                drop(state);
                drop(accept);
            }
            AcceptorState::Accepting => {
                state.acceptor = AcceptorState::Accepting;
                while matches!(state.acceptor, AcceptorState::Accepting) {
                    self.changed.wait(&mut state);
                }
                drop(state);
            }
            AcceptorState::Closed => drop(state),
        }
        handshakes.iter().for_each(|handshake| handshake.shut_down());
    }
}

fn not_accepted(why: &Error) {
    log::warn!("a connection could not be accepted: {why}");
}

impl<A: fmt::Debug> fmt::Debug for Listener<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({:?})", self.address)
    }
}
