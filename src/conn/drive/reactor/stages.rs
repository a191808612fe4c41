//! The reactor of this process: receive stages rest there, and an `epoll` tells of their input.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::{Driven, Key, Left, Next, Poller, Reactor, Told};
use crate::conn::drive::on_demand::{submit, Task};
use crate::conn::drive::reading::Receiver;
use crate::conn::drive::receive::InlineReceiver;
use crate::conn::stages::{Progress, Wait};
use crate::sync::{processors, Arc, Duration, Instant, OnceLock};
use crate::transport::{Epoll, Source};

type Stage = Box<InlineReceiver>;

/// How many messages of one connection's are handled before it is the next connection's turn, and for how long. A message
/// that is being handled is not interrupted.
const TURN_MESSAGES: usize = 64;
const TURN_TIME: Duration = Duration::from_micros(250);

/// The reactor of this process. `None` if the system can't have one.
fn reactor() -> Option<&'static Arc<Reactor<Epoll, Stage>>> {
    static REACTOR: OnceLock<Option<Arc<Reactor<Epoll, Stage>>>> = OnceLock::new();
    let made = || Epoll::new().ok().map(|epoll| Reactor::new(epoll, processors().div_ceil(2)));
    REACTOR.get_or_init(made).as_ref()
}

/// Whether the reactor can wait for the input of this.
pub(in crate::conn) fn can_be_left(source: &Source) -> bool {
    matches!(source, Source::Nonblocking(source) if source.descriptor().is_some()) && reactor().is_some()
}

/// Leaves the stage with the reactor of this process until there is something to do for a thread of its own.
pub(in crate::conn) fn leave(mut stage: Stage) -> Left<Stage> {
    match (stage.stage.descriptor(), reactor()) {
        (Some(_), Some(reactor)) => {
            stage.stage.rest();
            reactor.leave(stage)
        }
        _ => Left::Unsupported(stage),
    }
}

impl Driven for Stage {
    fn drive(&mut self, ended: bool) -> Next {
        let until = Instant::now() + TURN_TIME;
        // Whether the source was read in this turn. Before that it may say that it is drained, and have been told of since.
        let mut has_read = !self.stage.is_ready();
        for _ in 0..TURN_MESSAGES {
            let progress = match catch_unwind(AssertUnwindSafe(|| self.step(Wait::No))) {
                Ok(progress) => progress,
                Err(panic) => {
                    self.shared.end_panicked(panic);
                    return Next::Back;
                }
            };
            let between_batches = progress != Progress::Made || !self.shared.drive.reading.is_in_batch();
            if between_batches {
                if progress == Progress::Ended {
                    return Next::Ended;
                }
                if self.shared.drive.reading.is_wanted() || !self.stage.has_room() {
                    return Next::Back;
                }
                let nothing_left = has_read && self.stage.is_drained() && !ended;
                if (progress == Progress::Idle || nothing_left) && !self.stage.holds_message() {
                    self.stage.rest();
                    return Next::Rests;
                }
                has_read = true;
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.end_batch();
        Next::Again
    }

    fn go_back(self) {
        submit(Task::Receive(Receiver::given(self)));
    }

    fn end(self) {
        let shared = self.shared.clone();
        drop(self);
        shared.ending.stage_ended();
    }

    fn polls_for(&self) -> Duration {
        self.shared.limits.polling
    }
}

impl Poller<Stage> for Epoll {
    fn add(&self, key: Key, of: &Stage) -> io::Result<()> {
        self.add(key, of.stage.descriptor().ok_or(io::ErrorKind::Unsupported)?)
    }

    fn remove(&self, of: &Stage) {
        if let Some(descriptor) = of.stage.descriptor() {
            self.remove(descriptor);
        }
    }

    fn poll(&self, waits: bool, found: &mut Vec<Told>) -> io::Result<()> {
        self.poll(waits, |key, ended| found.push(Told { key, ended }))
    }
}
