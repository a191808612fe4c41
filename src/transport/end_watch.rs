//! Seeing the end of a socket or pipe behind what has not been read, on Linux.

use std::fmt;
use std::os::fd::AsFd;

use nix::libc::POLLRDHUP;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::EndWatch;
use crate::sync::{deadline, Arc, Duration, Instant};

/// The [`EndWatch`] of a socket or a pipe. It takes one file descriptor, and works without one where there is none left.
pub struct DescriptorEndWatch<S> {
    stream: Arc<S>,
    /// Tells of a wake-up. `None` for want of descriptors: then a wait ends after `AGAIN`.
    woken: Option<EventFd>,
}

/// How long a wait takes at most that nothing can end.
const AGAIN: Duration = Duration::from_millis(50);

impl<S: AsFd> DescriptorEndWatch<S> {
    /// Sees the end of `stream`.
    pub fn new(stream: Arc<S>) -> Self {
        let woken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok();
        DescriptorEndWatch { stream, woken }
    }
}

impl<S> fmt::Debug for DescriptorEndWatch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DescriptorEndWatch").finish_non_exhaustive()
    }
}

impl<S: AsFd> DescriptorEndWatch<S> {
    /// Whether the stream has ended, and whether there was a wake-up.
    fn look(&self, timeout: PollTimeout) -> [bool; 2] {
        // The peer has closed its direction, whatever is left to be read. That both are closed, or that the connection has
        // failed (a reset, or a keepalive that was not answered), is told of without being asked for.
        let end = PollFd::new(self.stream.as_fd(), PollFlags::from_bits_retain(POLLRDHUP));
        // `None` is an event that `nix` has no name for: the one that was asked for. An error of `poll` is a signal's.
        let happened = |polled: &PollFd<'_>| polled.any() != Some(false);
        match &self.woken {
            Some(woken) => {
                let mut either = [end, PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
                poll(&mut either, timeout).map_or([false; 2], |_| either.each_ref().map(happened))
            }
            None => {
                let mut end = [end];
                [poll(&mut end, timeout).is_ok_and(|_| happened(&end[0])), false]
            }
        }
    }
}

impl<S: AsFd + Send + Sync> EndWatch for DescriptorEndWatch<S> {
    fn has_ended(&self) -> bool {
        let [ended, _] = self.look(PollTimeout::ZERO);
        ended
    }

    fn wait_end(&self, until: Option<Instant>) {
        let again = self.woken.is_none().then(|| deadline(AGAIN));
        let first = until.into_iter().chain(again).min();
        let [_, woken] = self.look(first.map_or(PollTimeout::NONE, left));
        if let (true, Some(event)) = (woken, &self.woken) {
            let _ = event.read();
        }
    }

    fn wake(&self) {
        if let Some(event) = &self.woken {
            // It can only fail where the event is there already.
            let _ = event.write(1);
        }
    }
}

/// In whole milliseconds, so that it has passed then.
fn left(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sync::{spawn, Role};

    fn end() -> (Arc<dyn EndWatch>, Arc<UnixStream>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let near = Arc::new(near);
        (Arc::new(DescriptorEndWatch::new(near.clone())), near, far)
    }

    /// Waits on another thread until the stream has ended.
    fn waits(end: &Arc<dyn EndWatch>) -> crate::sync::JoinHandle<()> {
        let end = end.clone();
        let wait = move || {
            while !end.has_ended() {
                end.wait_end(None);
            }
        };
        spawn("waits", Role::User, wait).unwrap()
    }

    #[test]
    fn an_end_behind_unread_bytes_is_seen() {
        let (end, _near, mut far) = end();
        far.write_all(b"unread").unwrap();
        assert!(!end.has_ended());
        let waiting = waits(&end);
        far.shutdown(Shutdown::Write).unwrap();
        waiting.join().unwrap();
    }

    /// As where a keepalive is not answered, the system says that the connection has failed.
    #[test]
    fn a_reset_behind_unread_bytes_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let end = Arc::new(listener.accept().unwrap().0);
        let end: Arc<dyn EndWatch> = Arc::new(DescriptorEndWatch::new(end));
        far.write_all(b"unread").unwrap();
        assert!(!end.has_ended());
        let waiting = waits(&end);
        socket2::SockRef::from(&far).set_linger(Some(crate::sync::Duration::ZERO)).unwrap();
        drop(far);
        waiting.join().unwrap();
    }

    #[test]
    fn a_shutdown_here_is_seen() {
        let (end, near, _far) = end();
        let waiting = waits(&end);
        near.shutdown(Shutdown::Both).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_wake_up_ends_the_next_wait_once() {
        let (end, _near, mut far) = end();
        far.write_all(b"unread").unwrap();
        end.wake();
        end.wait_end(None);
        let soon = crate::sync::deadline(crate::sync::Duration::from_millis(2));
        end.wait_end(Some(soon));
        assert!(Instant::now() >= soon, "it is not woken twice");
    }

    /// As where there are no descriptors left.
    #[test]
    fn without_a_descriptor_for_wake_ups_the_end_is_seen_and_a_wait_ends() {
        let (near, far) = UnixStream::pair().unwrap();
        let end: Arc<dyn EndWatch> = Arc::new(DescriptorEndWatch { stream: Arc::new(near), woken: None });
        end.wake();
        end.wait_end(None);
        assert!(!end.has_ended());
        let waiting = waits(&end);
        far.shutdown(Shutdown::Write).unwrap();
        waiting.join().unwrap();
    }
}
