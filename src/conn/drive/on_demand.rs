//! What a connection starts with, and what its stages do on the threads that all connections share. See
//! Note [Stage threads].

use std::io;

use super::pool::Work;
use super::reading::{Left, Receiver};
use super::Receive;
use crate::conn::shared::Shared;
use crate::conn::stages::{CallbackStage, CoordinatorStage, Progress, SendStage, Stages, Wait};
use crate::conn::threads::{all_started, callback_loop, coordinator_loop, send_loop, thread};
use crate::error::{Exception, Result};
use crate::sync::{Arc, Budget, Lane, Purpose, Reservation};
use crate::transport::{Sink, Transport};

/// How many threads a connection over this transport has of its own: one for each half that can only wait.
pub(in crate::conn) fn own_threads(transport: &Transport) -> usize {
    let waits_to_send = matches!(transport.sink, Sink::Blocking(_));
    let waits_for_input = !super::reading::can_be_left(&transport.source);
    usize::from(waits_to_send) + usize::from(waits_for_input)
}

/// Starts the connection. If the system has no thread for what can only wait, it ends.
pub(in crate::conn) fn start(shared: &Arc<Shared>, stages: Stages, places: &mut Reservation) -> Result<()> {
    start_pool()?;
    shared.drive.started();
    own_on_demand(shared, &shared.incoming, Task::Coordinator);
    own_on_demand(shared, &shared.callbacks, Task::Callback);
    let Stages { send, receive, .. } = stages;
    let Receive::Inline(receiver) = receive else { unreachable!("only strict threads receive otherwise") };
    let sends = match shared.drive.sends_now {
        true => {
            own_on_demand(shared, &shared.outgoing, Task::Send);
            Ok(())
        }
        false => thread(places, shared, "send", |shared| send_loop(shared, send, Wait::Yes)),
    };
    let receives = match receiver.leave() {
        Left::Resting => Ok(()),
        Left::Ready(receiver) => {
            submit(Task::Receive(receiver));
            Ok(())
        }
        Left::Unsupported(receiver) => {
            let start =
                |places: &mut Reservation| thread(places, shared, "receive", |_| receiver.run(Wait::Yes));
            match places.is_empty() {
                // A source that could be left when places were reserved, and can't be now.
                true => reserve(1)
                    .map_err(|e| io::Error::other(e.to_string()))
                    .and_then(|mut more| start(&mut more)),
                false => start(places),
            }
        }
    };
    all_started(shared, [sends, receives])
}

/// Takes places for so many threads of a connection.
pub(in crate::conn) fn reserve(threads: usize) -> Result<Reservation> {
    let places = Budget::of_process().reserve(threads, Purpose::Connection);
    let plural = if threads == 1 { "" } else { "s" };
    let refused = |e| Exception::overloaded(format!("a connection needs {threads} thread{plural}: {e}"));
    Ok(places.map_err(refused)?)
}

/// From now on the stage behind the lane has a thread when there is something to do for it.
fn own_on_demand<T>(shared: &Arc<Shared>, lane: &Lane<T>, task: fn(Arc<Shared>) -> Task) {
    let shared = Arc::downgrade(shared);
    lane.own_on_demand(move || {
        if let Some(shared) = shared.upgrade() {
            submit(task(shared));
        }
    });
}

/// A stage that has something to do.
pub(super) enum Task {
    Send(Arc<Shared>),
    Coordinator(Arc<Shared>),
    Callback(Arc<Shared>),
    Receive(Receiver),
    /// Looks at noted drops.
    #[cfg(any(shuttle, loom))]
    Drops(Arc<Shared>),
}

impl Work for Task {
    fn run(self) {
        match self {
            Task::Send(shared) => send_loop(&shared, SendStage::new(&shared), Wait::OrLeave),
            Task::Coordinator(shared) => {
                coordinator_loop(&shared, CoordinatorStage::new(&shared), Wait::OrLeave);
            }
            Task::Callback(shared) => callback_loop(&shared, CallbackStage::new(&shared), Wait::OrLeave),
            Task::Receive(receiver) => receiver.run(Wait::OrLeave),
            #[cfg(any(shuttle, loom))]
            Task::Drops(shared) => shared.look_at_drops(),
        }
    }

    fn advance(self) -> Option<Self> {
        match self {
            Task::Send(shared) => match SendStage::new(&shared).advance() {
                Progress::Made | Progress::Idle => Some(Task::Send(shared)),
                Progress::Left => None,
                Progress::Ended => {
                    shared.end_send();
                    None
                }
            },
            Task::Receive(receiver) => receiver.advance().map(Task::Receive),
            // These do not wait for anything.
            other => {
                other.run();
                None
            }
        }
    }
}

#[cfg(not(any(shuttle, loom)))]
pub use of_the_process::thread_shortages;
#[cfg(not(any(shuttle, loom)))]
pub(super) use of_the_process::{start_pool, submit};

#[cfg(not(any(shuttle, loom)))]
mod of_the_process {
    use super::*;
    use crate::conn::drive::pool::StagePool;
    use crate::error::TransportError;
    use crate::sync::{OnceLock, Role};

    fn pool() -> &'static Arc<StagePool<Task>> {
        static POOL: OnceLock<Arc<StagePool<Task>>> = OnceLock::new();
        POOL.get_or_init(|| {
            StagePool::new(|pool: Arc<StagePool<Task>>| {
                let place = Budget::of_process().reserve(1, Purpose::Connection);
                let mut place = place.map_err(|e| io::Error::other(e.to_string()))?;
                place.spawn("capnp-stage", Role::Connection, move || pool.work()).map(drop)
            })
        })
    }

    /// Makes sure that stages can have threads.
    pub(in crate::conn::drive) fn start_pool() -> Result<()> {
        let started = pool().start();
        started.map_err(|e| TransportError::io("start a thread for the stages of connections", e).into())
    }

    /// Has a thread do this. May be called under any lock of lower rank than that of a queue.
    pub(in crate::conn::drive) fn submit(task: Task) {
        pool().submit(task);
    }

    /// How often, in this process, a stage of an established connection needed a thread and the system, or
    /// [`set_thread_limit`](crate::set_thread_limit), had none for it.
    ///
    /// Such a stage is served by the threads that there are, without waiting in it: its connection goes on, and more slowly
    /// while this number grows. Connections that would be new are refused as `overloaded` at such times. Counted only for
    /// [`Threads::Lending`](crate::Threads::Lending): a connection with [`Threads::Strict`](crate::Threads::Strict) has its
    /// threads from the start.
    pub fn thread_shortages() -> u64 {
        pool().shortages()
    }
}

/// Model checkers have no threads that outlive an execution.
#[cfg(any(shuttle, loom))]
pub(super) fn start_pool() -> Result<()> {
    Ok(())
}

/// Model checkers have a thread for each task.
#[cfg(any(shuttle, loom))]
pub(super) fn submit(task: Task) {
    let started = crate::sync::spawn("capnp-stage", crate::sync::Role::Connection, move || task.run());
    started.expect("a model checker has a thread for each task");
}

/// Nothing is counted under a model checker.
#[cfg(any(shuttle, loom))]
pub fn thread_shortages() -> u64 {
    0
}
