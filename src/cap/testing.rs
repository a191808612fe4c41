//! What tests of the state use in place of a connection.

use super::answer::Pipeline;
use super::call::{CallInfo, Mode};
use super::client::Client;
use super::contents::Payload;
use super::permits::Permits;
use super::port::{AnswerKey, ConnectionId, Generation, Notice, Port, QuestionRef, RemoteRef, Sent, To};
use super::promised::Watcher;
use crate::error::Exception;
use crate::peer::Peer;
use crate::promise::Waiter;
use crate::sync::{Arc, Weak};

/// The port of a connection that is gone.
pub(crate) fn no_port() -> Weak<dyn Port> {
    Weak::<NoPort>::new()
}

/// There is none.
enum NoPort {}

impl Port for NoPort {
    fn connection(&self) -> ConnectionId {
        match *self {}
    }

    fn peer(&self) -> &Peer {
        match *self {}
    }

    fn why_ended(&self) -> Option<Exception> {
        match *self {}
    }

    fn permits(&self) -> &Arc<Permits> {
        match *self {}
    }

    fn call(&self, _: To<'_>, _: CallInfo, _: Mode) -> Sent {
        match *self {}
    }

    fn pipelined(&self, _: &Arc<QuestionRef>, _: &[u16]) -> Client {
        match *self {}
    }

    fn watch(&self, _: &RemoteRef, _: Watcher) {
        match *self {}
    }

    fn answer(&self, _: AnswerKey, _: Result<Payload, Exception>) {
        match *self {}
    }

    fn set_pipeline(&self, _: AnswerKey, _: Pipeline) {
        match *self {}
    }

    fn forwarded(&self, _: AnswerKey, _: Arc<QuestionRef>) {
        match *self {}
    }

    fn read_for(&self, _: Generation, _: &dyn Waiter) {
        match *self {}
    }

    fn post(&self, _: Notice) {
        match *self {}
    }
}
