//! The four threads of a connection, as `handleConn` of the Haskell module starts them, and the loop of each.

use std::panic::{catch_unwind, AssertUnwindSafe};

use super::drive::Receive;
use super::shared::Shared;
use super::stages::{CallbackStage, CoordinatorStage, Progress, SendStage, Stages, Wait};
use crate::error::{Error, Result, TransportError};
use crate::sync::{finally, Arc, Reservation, Role};

/// Which threads drive the stages of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// The threads that would have to wake a stage's own do its work themselves where that can't make them wait:
    /// fewer wake-ups, so calls take less time.
    ///
    /// In a process with at least four connections over sockets (on Linux), one thread more waits for the input of those
    /// whose own would sleep, and handles it: so what runs there should be short, or it holds up other connections too,
    /// for some milliseconds.
    ///
    /// After a thread has made calls in quick succession, what arrives while it does not wait for an answer (a call of
    /// the peer's, an answer that a callback is to get) may be seen up to five milliseconds late, once.
    #[default]
    Lending,
    /// Each stage by its own thread alone, as in the Haskell implementation.
    Strict,
}

/// How many threads a connection has: one for each stage.
pub(super) const THREADS: usize = 4;

/// Starts the threads. If the system does not give them all, the connection ends, and with it those that have started.
pub(super) fn start(shared: &Arc<Shared>, stages: Stages, places: &mut Reservation) -> Result<()> {
    let Stages { send, receive, coordinator, callback } = stages;
    let started = [
        thread(places, shared, "send", |shared| send_loop(shared, send)),
        thread(places, shared, "receive", |shared| receive_loop(shared, receive)),
        thread(places, shared, "coordinator", |shared| coordinator_loop(shared, coordinator)),
        thread(places, shared, "callback", |shared| callback_loop(shared, callback)),
    ];
    for outcome in started {
        if let Err(e) = outcome {
            let error = Error::Transport(TransportError::io("start a thread of a connection", e));
            shared.end(error.clone(), false);
            return Err(error);
        }
    }
    Ok(())
}

/// Writes what is queued; then shuts the transport down.
fn send_loop(shared: &Arc<Shared>, mut stage: SendStage) {
    let _shut_down = finally(|| {
        drop(shared.sender.take());
        shared.ending.shut_down();
    });
    repeat(shared, || stage.step(Wait::Yes));
}

/// Receives messages, and queues those that there is room for.
fn receive_loop(shared: &Arc<Shared>, mut receive: Receive) {
    repeat(shared, || receive.step(Wait::Yes));
}

/// Handles each message in a transaction.
fn coordinator_loop(shared: &Arc<Shared>, mut stage: CoordinatorStage) {
    repeat(shared, || stage.step(Wait::Yes));
}

/// Runs what transactions have left to be done, in the order of their commits; at last the callbacks for the end.
fn callback_loop(shared: &Arc<Shared>, mut stage: CallbackStage) {
    let _told = finally(|| shared.tell_disconnect());
    repeat(shared, || stage.step(Wait::Yes));
}

/// Takes steps until there will never be another. A panic in one ends the connection, and the stage goes on to its end
/// in order: all that wait for it must hear.
fn repeat(shared: &Arc<Shared>, mut step: impl FnMut() -> Progress) {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut step)) {
            Ok(Progress::Ended) => return,
            Ok(Progress::Made | Progress::Idle) => {}
            Err(panic) => shared.end_panicked(panic),
        }
    }
}

/// Starts the thread of a stage.
fn thread(
    places: &mut Reservation,
    shared: &Arc<Shared>,
    name: &str,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> std::io::Result<()> {
    let shared = shared.clone();
    let started = places.spawn(format!("capnp-{name}"), Role::Connection, move || {
        let _ended = finally(|| shared.ending.stage_ended());
        run(&shared);
    });
    started.map(drop)
}
