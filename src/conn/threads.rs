//! The four threads of a connection, as `handleConn` of the Haskell module starts them, and the loop of each.

use std::panic::{catch_unwind, AssertUnwindSafe};

use super::drive::Receive;
use super::shared::Shared;
use super::stages::{CallbackStage, CoordinatorStage, Progress, SendStage, Stages, Wait};
use crate::error::{Error, Result, TransportError};
use crate::sync::{Arc, Reservation, Role};

/// Which threads drive the stages of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// The threads that would have to wake a stage's own do its work themselves where that can't make them wait:
    /// fewer wake-ups, so calls take less time.
    ///
    /// A stage has a thread only while it has something to do for one. All connections share these threads, which end after
    /// five seconds without work. So an idle connection over a socket (on Linux) has none: one thread of the
    /// process waits for the input of all, and handles it. What runs there should be short, or it holds up other connections
    /// too, for some milliseconds. A transport that can only block has a thread for each such half.
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
        thread(places, shared, "send", |shared| send_loop(shared, send, Wait::Yes)),
        thread(places, shared, "receive", |shared| receive_loop(shared, receive)),
        thread(places, shared, "coordinator", |shared| coordinator_loop(shared, coordinator, Wait::Yes)),
        thread(places, shared, "callback", |shared| callback_loop(shared, callback, Wait::Yes)),
    ];
    all_started(shared, started)
}

/// Writes what is queued; at the end shuts the transport down.
pub(super) fn send_loop(shared: &Arc<Shared>, mut stage: SendStage, wait: Wait) {
    if repeat(shared, || stage.step(wait)) == Progress::Ended {
        shared.end_send();
    }
}

/// Receives messages, and queues those that there is room for.
fn receive_loop(shared: &Arc<Shared>, mut receive: Receive) {
    repeat(shared, || receive.step(Wait::Yes));
    drop(receive);
    shared.ending.stage_ended();
}

/// Handles each message in a transaction.
pub(super) fn coordinator_loop(shared: &Arc<Shared>, mut stage: CoordinatorStage, wait: Wait) {
    if repeat(shared, || stage.step(wait)) == Progress::Ended {
        shared.ending.stage_ended();
    }
}

/// Runs what transactions have left to be done, in the order of their commits; at last the callbacks for the end.
pub(super) fn callback_loop(shared: &Arc<Shared>, mut stage: CallbackStage, wait: Wait) {
    if repeat(shared, || stage.step(wait)) == Progress::Ended {
        shared.end_callbacks();
    }
}

/// Takes steps until this thread has nothing more to do for the stage, or there will never be another. A panic in one ends
/// the connection, and the stage goes on to its end in order: all that wait for it must hear.
pub(super) fn repeat(shared: &Shared, mut step: impl FnMut() -> Progress) -> Progress {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut step)) {
            Ok(last @ (Progress::Ended | Progress::Left)) => return last,
            Ok(Progress::Made | Progress::Idle) => {}
            Err(panic) => shared.end_panicked(panic),
        }
    }
}

/// Starts the thread of a stage.
pub(super) fn thread(
    places: &mut Reservation,
    shared: &Arc<Shared>,
    name: &str,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> std::io::Result<()> {
    let shared = shared.clone();
    places.spawn(format!("capnp-{name}"), Role::Connection, move || run(&shared)).map(drop)
}

/// Ends the connection if the system had no thread for one of its stages.
pub(super) fn all_started(
    shared: &Shared,
    started: impl IntoIterator<Item = std::io::Result<()>>,
) -> Result<()> {
    let Some(e) = started.into_iter().find_map(std::io::Result::err) else { return Ok(()) };
    let error = Error::Transport(TransportError::io("start a thread of a connection", e));
    shared.end(error.clone(), false);
    Err(error)
}
