//! Waiting for many sockets at once, on Linux.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many sockets are told of at once.
const MOST: usize = 64;

const ENDED: EpollFlags = EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

/// Tells of each descriptor that was added: once if there is something to read by then, and once each time that more
/// comes, or that the end does. (`epoll`'s edges: what is told of has to be read until nothing is left. For a stream that
/// is so where a read gives less than there is room for, says its manual; but not if the end has come behind that.)
pub(crate) struct Epoll(epoll::Epoll);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Epoll(epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub(crate) fn add(&self, key: u64, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let input = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.0.add(descriptor, EpollEvent::new(input, key))?)
    }

    pub(crate) fn remove(&self, descriptor: BorrowedFd<'_>) {
        let removed = self.0.delete(descriptor);
        debug_assert!(removed.is_ok(), "the epoll knows the socket: {removed:?}");
    }

    /// Gives the keys of those that are to be told of, and whether their end has come; waits until there are some if
    /// `waits`. May give none all the same.
    pub(crate) fn poll(&self, waits: bool, mut found: impl FnMut(u64, bool)) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); MOST];
        let timeout = if waits { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        match self.0.wait(&mut events, timeout) {
            Ok(n) => {
                events[..n].iter().for_each(|event| found(event.data(), event.events().intersects(ENDED)))
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn told(epoll: &Epoll) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        epoll.poll(false, |key, ended| found.push((key, ended))).unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn it_tells_once_of_what_is_there_and_of_what_comes() {
        let epoll = Epoll::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"before").unwrap();
        epoll.add(7, near.as_fd()).unwrap();
        assert_eq!((told(&epoll), told(&epoll)), (vec![(7, false)], vec![]));
        far.write_all(b"after").unwrap();
        assert_eq!((told(&epoll), told(&epoll)), (vec![(7, false)], vec![]), "though nothing was read");
    }

    #[test]
    fn it_tells_of_an_end_that_comes_after_all_was_read() {
        let epoll = Epoll::new().unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        epoll.add(7, near.as_fd()).unwrap();
        far.write_all(b"last").unwrap();
        assert_eq!(told(&epoll), [(7, false)]);
        near.read_exact(&mut [0; 4]).unwrap();
        drop(far);
        assert_eq!(told(&epoll), [(7, true)]);
    }

    #[test]
    fn it_tells_of_an_end_that_comes_with_the_last() {
        let epoll = Epoll::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        epoll.add(7, near.as_fd()).unwrap();
        far.write_all(b"last").unwrap();
        drop(far);
        assert_eq!((told(&epoll), told(&epoll)), (vec![(7, true)], vec![]));
    }

    #[test]
    fn it_tells_of_many_but_not_of_what_was_removed() {
        let epoll = Epoll::new().unwrap();
        let mut pairs: Vec<_> = (0..10).map(|_| UnixStream::pair().unwrap()).collect();
        for (key, (near, far)) in pairs.iter_mut().enumerate() {
            epoll.add(key as u64, near.as_fd()).unwrap();
            far.write_all(b"x").unwrap();
        }
        epoll.remove(pairs[3].0.as_fd());
        let keys: Vec<_> = told(&epoll).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    }
}
