//! The four stages: what a connection's threads do, one step at a time.
//!
//! A step takes from the queue in front, does one thing, and puts into the queues behind. A dedicated thread drives each
//! stage step by step (`threads.rs`); a test or a model checker can drive them in any order instead.
//!
//! | file | what |
//! | --- | --- |
//! | [`receive`] | reads what arrives, and hands on what there is room for |
//! | [`coordinator`] | handles each message in a transaction |
//! | [`callback`] | does what transactions have left to be done outside the lock |
//! | [`send`] | writes what is queued |

mod callback;
mod coordinator;
mod receive;
mod send;

pub(crate) use callback::CallbackStage;
pub(crate) use coordinator::CoordinatorStage;
pub(crate) use receive::ReceiveStage;
pub(crate) use send::SendStage;
pub(super) use send::{Sender, SenderSlot};

use super::drive::Receive;
use super::shared::Shared;
use crate::sync::{Arc, Duration, Lane, Turn, Waited};
use crate::transport::Source;

/// Whether a step waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
    /// Only where more is to come at once. With nothing to do, this thread leaves the stage, and another one is started when
    /// there is something.
    OrLeave,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something.
    Made,
    /// Nothing: there is nothing to do now.
    Idle,
    /// Nothing, and this thread has left the stage.
    Left,
    /// Nothing, and there never will be. The caller ends the stage.
    Ended,
}

/// The four stages of a connection.
pub(crate) struct Stages {
    pub(crate) send: SendStage,
    pub(crate) receive: Receive,
    pub(crate) coordinator: CoordinatorStage,
    pub(crate) callback: CallbackStage,
}

impl Stages {
    pub(super) fn new(shared: &Arc<Shared>, source: Source, first_message: Option<Duration>) -> Self {
        Stages {
            send: SendStage::new(shared),
            receive: Receive::new(shared, ReceiveStage::new(shared, source, first_message)),
            coordinator: CoordinatorStage::new(shared),
            callback: CallbackStage::new(shared),
        }
    }
}

/// The turn of a lane, for one step of the stage behind it.
fn turn<T>(lane: &Lane<T>, wait: Wait) -> Result<Turn<'_, T>, Progress> {
    let waited = match wait {
        Wait::No => return lane.take_turn().ok_or(Progress::Idle),
        Wait::Yes => lane.wait_turn(),
        Wait::OrLeave => lane.turn_or_leave(),
    };
    match waited {
        Waited::Turn(turn) => Ok(turn),
        Waited::Left => Err(Progress::Left),
        Waited::Closed => Err(Progress::Ended),
    }
}

/// Takes one step with each item of a lane; with one, if it is not to wait.
fn work_off<T>(lane: &Lane<T>, wait: Wait, mut step: impl FnMut(T)) -> Progress {
    match turn(lane, wait) {
        Ok(mut turn) => {
            while let Some(item) = turn.next() {
                step(item);
                if wait == Wait::No {
                    return Progress::Made;
                }
            }
            match turn.ends_stage() {
                true => Progress::Ended,
                false => Progress::Made,
            }
        }
        Err(progress) => progress,
    }
}
