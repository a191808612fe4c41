//! A process that has no file descriptors left.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, Limits, Threads, Vat};
use crossbeam_channel::unbounded;

use crate::support::alone::alone;
use crate::support::wires::tcp_pair;
use crate::support::{object, send, text, DEADLINE};

/// Opens as many files as there are descriptors.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Calls are at the limit, and what sees the end behind them finds no descriptors.
#[test]
fn a_peer_that_closes_is_noticed_while_calls_are_at_the_limit() {
    alone(
        "no_descriptors::a_peer_that_closes_is_noticed_while_calls_are_at_the_limit",
        &["--nofile=64"],
        || {
            for threads in [Threads::Lending, Threads::Strict] {
                let (tell, told) = unbounded();
                let waits = object(move |call| {
                    call.allow_next();
                    let text = text(call)?;
                    tell.send(format!("{text} entered")).unwrap();
                    call.cancellation().wait()?;
                    tell.send(format!("{text} canceled")).unwrap();
                    Ok(())
                });
                let mut limits = Limits::default();
                (limits.call_words, limits.room_timeout) = (1, None);
                let (here, there) = tcp_pair();
                let [here, there] = [here, there].map(|socket| Transport::tcp(socket, &limits).unwrap());
                let there = Vat::new().limits(limits).threads(threads).bootstrap(waits).over(there).unwrap();
                let here = Vat::new().over(here).unwrap();
                let remote = here.bootstrap::<Client>().resolve().unwrap();
                let first = send(&remote, 0, "first");
                assert_eq!(told.recv_timeout(DEADLINE).unwrap(), "first entered");
                let done = AtomicBool::new(false);
                thread::scope(|scope| {
                    // What is freed meanwhile is taken, too.
                    let all = take_all();
                    assert!(!all.is_empty());
                    scope.spawn(|| {
                        let mut all = vec![all];
                        while !done.load(Ordering::Relaxed) {
                            all.push(take_all());
                            thread::yield_now();
                        }
                    });
                    let others: Vec<_> = (0..50).map(|_| send(&remote, 0, "other")).collect();
                    here.close(Duration::ZERO).unwrap();
                    let next = told.recv_timeout(DEADLINE);
                    done.store(true, Ordering::Relaxed);
                    assert_eq!(next.unwrap(), "first canceled");
                    drop(others);
                });
                there.wait_closed().unwrap();
                drop(first);
            }
        },
    );
}
