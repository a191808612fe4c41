//! Seeing the end of a socket or pipe behind what has not been read, on Linux.

use std::io;
use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::EndWatch;
use crate::sync::{Arc, Instant};

/// The end of a stream that has a descriptor.
pub(super) struct DescriptorEnd<S> {
    /// Tells of the end of the stream, for ever once it has come, and of the wake-up.
    epoll: Epoll,
    woken: EventFd,
    _stream: Arc<S>,
}

/// How `epoll` tells of each.
const END: u64 = 0;
const WOKEN: u64 = 1;

impl<S: AsFd + Send + Sync + 'static> DescriptorEnd<S> {
    /// `None` for want of descriptors.
    pub(super) fn of(stream: Arc<S>) -> Option<Arc<dyn EndWatch>> {
        Some(Arc::new(DescriptorEnd::new(stream).ok()?))
    }

    fn new(stream: Arc<S>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let woken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // The peer has closed its direction, whatever is left to be read. That both are closed, or that the connection has
        // failed (a reset, or a keepalive that was not answered), is told of without being asked for.
        epoll.add(&*stream, EpollEvent::new(EpollFlags::EPOLLRDHUP, END))?;
        epoll.add(&woken, EpollEvent::new(EpollFlags::EPOLLIN, WOKEN))?;
        Ok(DescriptorEnd { epoll, woken, _stream: stream })
    }
}

impl<S> DescriptorEnd<S> {
    /// Whether the stream has ended, and whether there was a wake-up.
    fn look(&self, timeout: EpollTimeout) -> [bool; 2] {
        let mut events = [EpollEvent::empty(); 2];
        // An error is a signal's.
        let n = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        [END, WOKEN].map(|one| events[..n].iter().any(|event| event.data() == one))
    }
}

impl<S: Send + Sync> EndWatch for DescriptorEnd<S> {
    fn has_ended(&self) -> bool {
        let [ended, _] = self.look(EpollTimeout::ZERO);
        ended
    }

    fn wait_end(&self, deadline: Option<Instant>) {
        let [_, woken] = self.look(deadline.map_or(EpollTimeout::NONE, until));
        if woken {
            let _ = self.woken.read();
        }
    }

    fn wake(&self) {
        // It can only fail where the event is there already.
        let _ = self.woken.write(1);
    }
}

/// In whole milliseconds, so that it has passed then.
fn until(deadline: Instant) -> EpollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    EpollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(EpollTimeout::MAX)
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
        (DescriptorEnd::of(near.clone()).unwrap(), near, far)
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
        let end = DescriptorEnd::of(Arc::new(listener.accept().unwrap().0)).unwrap();
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
}
