//! What unit tests use in place of a connection.

use super::answer::Pipeline;
use super::call::{CallInfo, Mode};
use super::client::Client;
use super::contents::Payload;
use super::object::Crowd;
use super::permits::Permits;
use super::port::{
    AnswerKey, CallTarget, ConnectionId, ConnectionOps, Generation, QuestionRef, RemoteRef, Sent, TableEvent,
};
use super::watchers::Watcher;
use crate::error::Exception;
use crate::peer::Peer;
use crate::promise::{Attachment, Waiter};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Duration, Weak};

/// The port of a connection that is gone.
pub(crate) fn no_port() -> Weak<dyn ConnectionOps> {
    Weak::<Posts>::new()
}

/// A port that counts notices, and does nothing else.
#[derive(Default)]
pub(crate) struct Posts(AtomicUsize);

impl Posts {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const ONLY_NOTICES: &str = "only notices are posted in unit tests";

impl ConnectionOps for Posts {
    fn connection(&self) -> ConnectionId {
        ConnectionId(0)
    }

    fn peer(&self) -> &Peer {
        unreachable!("{ONLY_NOTICES}")
    }

    fn why_ended(&self) -> Option<Exception> {
        None
    }

    fn room_timeout(&self) -> Option<Duration> {
        unreachable!("{ONLY_NOTICES}")
    }

    fn permits(&self) -> &Arc<Permits> {
        unreachable!("{ONLY_NOTICES}")
    }

    fn in_crowd(&self, _: &Arc<Crowd>) -> Box<dyn Attachment> {
        unreachable!("{ONLY_NOTICES}")
    }

    fn call(&self, _: CallTarget<'_>, _: CallInfo, _: Mode) -> Sent {
        unreachable!("{ONLY_NOTICES}")
    }

    fn pipelined(&self, _: &Arc<QuestionRef>, _: &[u16]) -> Client {
        unreachable!("{ONLY_NOTICES}")
    }

    fn watch(&self, _: &RemoteRef, _: Watcher) {
        unreachable!("{ONLY_NOTICES}")
    }

    fn answer(&self, _: AnswerKey, _: Result<Payload, Exception>) {}

    fn set_pipeline(&self, _: AnswerKey, _: Pipeline) {
        unreachable!("{ONLY_NOTICES}")
    }

    fn forwarded(&self, _: AnswerKey, _: Arc<QuestionRef>) {
        unreachable!("{ONLY_NOTICES}")
    }

    fn read_for(&self, _: Generation, _: &dyn Waiter) {
        unreachable!("{ONLY_NOTICES}")
    }

    fn post(&self, _: TableEvent) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
