//! Waiting for a socket without holding it, on Linux.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Gate;
use crate::sync::{Arc, Instant};

/// What the receive thread waits at is an `epoll` that knows the socket, once each time the gate is opened; what a
/// borrower waits for is the socket itself.
pub(super) struct SocketGate<S> {
    socket: Arc<S>,
    epoll: Epoll,
    interrupt: EventFd,
}

impl<S: AsFd> SocketGate<S> {
    pub(super) fn new(socket: Arc<S>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interrupt = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&*socket, EpollEvent::new(EpollFlags::EPOLLONESHOT, 0))?;
        epoll.add(&interrupt, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1))?;
        Ok(SocketGate { socket, epoll, interrupt })
    }

    fn watch(&self, flags: EpollFlags) {
        let changed =
            self.epoll.modify(&*self.socket, &mut EpollEvent::new(flags | EpollFlags::EPOLLONESHOT, 0));
        debug_assert!(changed.is_ok(), "the epoll knows the socket: {changed:?}");
    }
}

impl<S: AsFd + Send + Sync> Gate for SocketGate<S> {
    fn wait_open(&self) {
        // An error is a signal's.
        let _ = self.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE);
    }

    fn open(&self) {
        self.watch(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
    }

    fn shut(&self) {
        self.watch(EpollFlags::empty());
    }

    fn wait(&self, deadline: Option<Instant>) {
        let mut either = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.interrupt.as_fd(), PollFlags::POLLIN),
        ];
        // An error is a signal's.
        let _ = poll(&mut either, deadline.map_or(PollTimeout::NONE, until));
        if either[1].any().unwrap_or(false) {
            let _ = self.interrupt.read();
        }
    }

    fn interrupt(&self) {
        // It can only fail where the event is there already.
        let _ = self.interrupt.write(1);
    }
}

/// In whole milliseconds, so that it has passed then.
fn until(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.as_micros().div_ceil(1000);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sync::{spawn, Duration, Role};

    fn gate() -> (Arc<SocketGate<UnixStream>>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Arc::new(SocketGate::new(Arc::new(near)).unwrap()), far)
    }

    #[test]
    fn an_open_gate_is_passed_once_when_something_is_there() {
        let (gate, mut far) = gate();
        far.write_all(b"x").unwrap();
        gate.open();
        gate.wait_open();
        let passed = gate.clone();
        let again = spawn("again", Role::User, move || passed.wait_open()).unwrap();
        gate.open();
        again.join().unwrap();
    }

    #[test]
    fn the_end_of_the_stream_passes_the_gate() {
        let (gate, far) = gate();
        drop(far);
        gate.open();
        gate.wait_open();
    }

    #[test]
    fn an_interrupt_ends_the_next_waits_once() {
        let (gate, _far) = gate();
        gate.shut();
        gate.interrupt();
        gate.wait_open();
        gate.wait(None);
        let soon = Instant::now() + Duration::from_millis(2);
        gate.wait(Some(soon));
        assert!(Instant::now() >= soon, "it is not interrupted twice");
    }

    #[test]
    fn a_wait_ends_with_what_arrives() {
        let (gate, mut far) = gate();
        let waits = gate.clone();
        let waiting = spawn("waiting", Role::User, move || waits.wait(None)).unwrap();
        far.write_all(b"x").unwrap();
        waiting.join().unwrap();
    }
}
