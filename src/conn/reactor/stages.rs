//! The reactor of this process: receive stages rest there, and an `epoll` tells of their input.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::{Driven, Key, Next, Poller, Reactor, Told};
use crate::conn::stages::{Progress, ReceiveStage};
use crate::sync::{processors, Arc, Duration, OnceLock};
use crate::transport::Epoll;

type Stage = Box<ReceiveStage>;

/// How many batches of one connection's are dealt with before it is others' turn.
const MOST_BATCHES: usize = 8;

/// Leaves the stage with the reactor of this process until there is something to do for its own thread. Given back as
/// an error if nobody else can wait for its input.
pub(in crate::conn) fn rest(mut stage: Stage) -> Result<Stage, Stage> {
    static REACTOR: OnceLock<Option<Arc<Reactor<Epoll, Stage>>>> = OnceLock::new();
    let made = || Epoll::new().ok().map(|epoll| Reactor::new(epoll, processors().div_ceil(2)));
    match (stage.descriptor(), REACTOR.get_or_init(made)) {
        (Some(_), Some(reactor)) => {
            stage.rest();
            reactor.rest(stage)
        }
        _ => Err(stage),
    }
}

impl Driven for Stage {
    fn drive(&mut self, ended: bool) -> Next {
        for _ in 0..MOST_BATCHES {
            let progress = match catch_unwind(AssertUnwindSafe(|| self.receive_all())) {
                Ok(progress) => progress,
                Err(panic) => {
                    self.shared().end_panicked(panic);
                    return Next::Back;
                }
            };
            if progress == Progress::Ended || self.shared().reading.is_wanted() || !self.has_room() {
                return Next::Back;
            }
            if progress == Progress::Idle || (self.is_drained() && !ended) {
                self.rest();
                return Next::Rests;
            }
        }
        Next::Again
    }

    fn polls_for(&self) -> Duration {
        self.shared().limits.polling
    }
}

impl Poller<Stage> for Epoll {
    fn add(&self, key: Key, of: &Stage) -> io::Result<()> {
        self.add(key, of.descriptor().ok_or(io::ErrorKind::Unsupported)?)
    }

    fn remove(&self, of: &Stage) {
        if let Some(descriptor) = of.descriptor() {
            self.remove(descriptor);
        }
    }

    fn poll(&self, waits: bool, found: &mut Vec<Told>) -> io::Result<()> {
        self.poll(waits, |key, ended| found.push(Told { key, ended }))
    }
}
