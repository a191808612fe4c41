//! Giving memory back to the system.
//!
//! ```text
//! Note [Memory is given back]
//! ===========================
//! The allocator of glibc keeps what is freed, between what is in use and in an arena for each thread. After a peer has had
//! much held, that is hundreds of megabytes, and so it is after ten thousand connections that each held little. So when
//! connections are gone that have held at least `MUCH` together, the allocator is asked to give its free pages back
//! (`malloc_trim`), `DELAY` later: by then the last messages have been dropped, and one call does for all connections that
//! have gone meanwhile. That takes some milliseconds for each hundred megabytes, and allocations of an arena wait while its
//! pages are looked through. So it is done by a thread of its own, which holds no lock of ours, and never by one that makes
//! or serves calls. Other allocators give memory back by themselves.
//!
//! What that leaves is the free end of each arena: up to the trim threshold of glibc, which is twice the largest block that
//! was ever freed (64 MiB at most). To set it is the program's business, as it is for all of the process: see the guide.
//!
//! This and `cap::hook` are the modules that may use `unsafe`.
//! ```
#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::{deadline, spawn, Duration, ProcessCounter, Role, Timer};

/// How many bytes connections must have held together for their end to matter.
const MUCH: u64 = 1 << 20;
/// How many bytes a connection counts for itself.
const CONNECTION: u64 = 4 << 10;
/// How long after the end of a connection memory is given back.
const DELAY: Duration = Duration::from_millis(500);

/// A connection is gone which has held so many bytes. The caller holds no lock.
pub(crate) fn trim_soon(held: usize) {
    /// One while memory is to be given back.
    static PENDING: ProcessCounter = ProcessCounter::new(0);
    /// What those have held that are gone since memory was given back.
    static GONE: ProcessCounter = ProcessCounter::new(0);
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let held = held as u64 + CONNECTION;
    if GONE.fetch_add(held, Ordering::Relaxed) + held < MUCH {
        return;
    }
    if PENDING.swap(1, Ordering::SeqCst) == 1 {
        return;
    }
    Timer::global().at(deadline(DELAY), || {
        PENDING.store(0, Ordering::SeqCst);
        GONE.store(0, Ordering::Relaxed);
        // Without a thread for it, the end of another connection has to do.
        if let Err(e) = spawn("capnp-trim", Role::User, trim) {
            log::warn!("no thread to give memory back: {e}");
        }
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: `malloc_trim` is declared as in malloc.h, takes any number, and may be called by any thread at any time. It
    // changes no memory that is in use.
    unsafe {
        malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
