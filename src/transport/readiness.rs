//! Waiting for a descriptor without holding the source that reads it, on Linux.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Readiness;
use crate::sync::{Arc, Instant};

/// The [`Readiness`] of a socket, a pipe, or whatever else `epoll` can watch. It takes two file descriptors.
///
/// [`wait_armed`](Readiness::wait_armed) waits at an `epoll` that reports the descriptor once each time it is armed.
/// [`wait`](Readiness::wait) polls the descriptor itself.
pub struct DescriptorReadiness<S> {
    stream: Arc<S>,
    epoll: Epoll,
    woken: EventFd,
}

impl<S: AsFd> DescriptorReadiness<S> {
    /// The readiness of `stream`, disarmed.
    ///
    /// # Errors
    /// When the system has no descriptors left, or the stream is a file, which is always ready.
    pub fn new(stream: Arc<S>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let woken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&*stream, EpollEvent::new(EpollFlags::EPOLLONESHOT, 0))?;
        epoll.add(&woken, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1))?;
        Ok(DescriptorReadiness { stream, epoll, woken })
    }

    fn watch(&self, flags: EpollFlags) {
        let changed =
            self.epoll.modify(&*self.stream, &mut EpollEvent::new(flags | EpollFlags::EPOLLONESHOT, 0));
        debug_assert!(changed.is_ok(), "the epoll knows the stream: {changed:?}");
    }
}

impl<S: AsFd + Send + Sync> Readiness for DescriptorReadiness<S> {
    fn wait_armed(&self) {
        // An error is a signal's.
        let _ = self.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE);
    }

    fn arm(&self) {
        self.watch(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
    }

    fn disarm(&self) {
        self.watch(EpollFlags::empty());
    }

    fn wait(&self, deadline: Option<Instant>) {
        let mut either = [
            PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        // An error is a signal's.
        let _ = poll(&mut either, deadline.map_or(PollTimeout::NONE, until));
        if either[1].any().unwrap_or(false) {
            let _ = self.woken.read();
        }
    }

    fn wake(&self) {
        // It can only fail where the event is there already.
        let _ = self.woken.write(1);
    }
}

impl<S> fmt::Debug for DescriptorReadiness<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DescriptorReadiness").finish_non_exhaustive()
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

    fn readiness() -> (Arc<DescriptorReadiness<UnixStream>>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Arc::new(DescriptorReadiness::new(Arc::new(near)).unwrap()), far)
    }

    #[test]
    fn input_that_is_there_ends_one_wait_each_time_it_is_armed() {
        let (readiness, mut far) = readiness();
        far.write_all(b"x").unwrap();
        readiness.arm();
        readiness.wait_armed();
        let waits = readiness.clone();
        let again = spawn("again", Role::User, move || waits.wait_armed()).unwrap();
        readiness.arm();
        again.join().unwrap();
    }

    #[test]
    fn end_of_the_stream_ends_an_armed_wait() {
        let (readiness, far) = readiness();
        drop(far);
        readiness.arm();
        readiness.wait_armed();
    }

    #[test]
    fn wake_up_ends_the_next_wait_of_each_kind_once() {
        let (readiness, _far) = readiness();
        readiness.disarm();
        readiness.wake();
        readiness.wait_armed();
        readiness.wait(None);
        let soon = Instant::now() + Duration::from_millis(2);
        readiness.wait(Some(soon));
        assert!(Instant::now() >= soon, "it is not woken twice");
    }

    #[test]
    fn input_that_arrives_ends_a_wait() {
        let (readiness, mut far) = readiness();
        let waits = readiness.clone();
        let waiting = spawn("waiting", Role::User, move || waits.wait(None)).unwrap();
        far.write_all(b"x").unwrap();
        waiting.join().unwrap();
    }
}
