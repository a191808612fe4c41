//! Threads, and what a thread is for: some must never wait.

use std::cell::Cell;

use super::per_thread;

/// What the current thread is for, which decides what it may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A thread of the user's or of a pool: it may wait for anything.
    User,
    /// One of the four threads of a connection, which waits for its own queue (or for its socket) alone; or of the reactor,
    /// which waits for all sockets.
    Connection,
    /// The timer, which waits for the next deadline alone.
    #[cfg(not(any(shuttle, loom)))]
    Timer,
}

per_thread! {
    static ROLE: Cell<Role> = Cell::new(Role::User);
}

/// What the current thread is for.
pub(crate) fn role() -> Role {
    ROLE.with(Cell::get)
}

/// Gives the current thread a role until the result is dropped.
pub(crate) fn enter_role(role: Role) -> impl Drop {
    struct Restore(Role);
    impl Drop for Restore {
        fn drop(&mut self) {
            ROLE.with(|r| r.set(self.0));
        }
    }
    Restore(ROLE.with(|r| r.replace(role)))
}

#[cfg(not(any(shuttle, loom)))]
use std::thread as raw;

#[cfg(loom)]
use loom::thread as raw;

#[cfg(shuttle)]
use shuttle::thread as raw;

pub(crate) use raw::{yield_now, JoinHandle};

/// Starts a named thread with a role, which has its place (see Note [Thread budget]). Fails if the system has no thread to
/// give.
pub(super) fn start(
    name: String,
    role: Role,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let body = move || {
        let _role = enter_role(role);
        run();
    };
    raw::Builder::new().name(name).spawn(body)
}

/// Whether the current thread unwinds.
pub(crate) fn is_panicking() -> bool {
    std::thread::panicking()
}

/// How many threads can run at once.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn processors() -> usize {
    raw::available_parallelism().map_or(1, usize::from)
}
