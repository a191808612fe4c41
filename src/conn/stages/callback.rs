//! The callback stage: does what transactions have left to be done outside the lock.

use super::{work_off, Progress, Wait};
use crate::cap::call::{CallInfo, Mode};
use crate::cap::port::TableEvent;
use crate::cap::Client;
use crate::conn::shared::Shared;
use crate::conn::transaction::{Broken, Failed};
use crate::error::{Error, Exception};
use crate::promise::count_sleep;
use crate::state::{Callback, Destination};
use crate::sync::Arc;

/// Does what transactions left to be done outside the lock, in the order of their commits.
pub(crate) struct CallbackStage {
    shared: Arc<Shared>,
}

impl CallbackStage {
    pub(in crate::conn) fn new(shared: &Arc<Shared>) -> Self {
        CallbackStage { shared: shared.clone() }
    }

    /// Runs what is queued.
    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        let progress = work_off(&self.shared.callbacks, wait, |callback| self.run(callback));
        // What this thread does next comes after a wait.
        count_sleep();
        progress
    }

    /// Looks after what is noted, for those who take the steps themselves. True if there was anything.
    #[cfg(feature = "test-util")]
    pub(crate) fn look(&self) -> bool {
        self.shared.see_to_drops()
    }

    pub(in crate::conn) fn run(&self, callback: Callback) {
        match callback {
            Callback::Deliver { call, to } => self.deliver(call, to),
            Callback::Respond { responder, outcome } => responder.answer(outcome),
            Callback::Resolve { cell, to } => cell.resolve(self.client_of(to)),
            Callback::Tell { watchers, client } => watchers.resolved(&client),
            Callback::Watch { client, watcher } => client.watch(watcher),
            Callback::Echo { embargo, to } => {
                self.shared.transact_or_end(|state, fx| state.send_echo(embargo, &to, fx));
            }
            Callback::Cancel { key, token, after_start } => {
                let shared = self.shared.clone();
                token.on_cancel(move || shared.post(TableEvent::AnswerCanceled(key)));
                token.cancel(after_start);
                let doomed = || self.shared.transact(|state, fx| state.call_doomed(key, fx));
                if token.is_doomed() && doomed().unwrap_or(false) {
                    token.cancel(false);
                }
            }
            Callback::Release(exports) => {
                // A peer that released them twice has broken the protocol.
                let released = self.shared.try_transact(|state, fx| state.release_exports(&exports, fx));
                if let Err(Failed::Rule(e)) = released {
                    self.shared.end(e.into(), true);
                }
            }
            Callback::Discard(garbage) => drop(garbage),
            Callback::TableEvent(TableEvent::Unused) => {
                // The peer is told of what was dropped before.
                self.shared.see_to_drops();
                let why = Exception::disconnected("nobody uses the connection any more");
                self.shared.end(Error::Exception(why), false);
            }
            Callback::TableEvent(notice) => self.shared.transact_or_end(|state, fx| state.notice(notice, fx)),
        }
    }

    /// A client on which calls stay behind those that went to the destination before. See Note [Named by the peer].
    fn client_of(&self, to: Destination) -> Client {
        match to {
            Destination::Client(client) => client,
            Destination::Pipeline(pipeline) => pipeline.client(),
            Destination::Reflect(place) => {
                let followed = self.shared.transact(|state, fx| state.follow(&place, fx));
                followed.unwrap_or_else(Broken::client)
            }
        }
    }

    /// Hands a call on. See Note [Order across callbacks].
    fn deliver(&self, call: CallInfo, to: Destination) {
        let ended = self.shared.flow.is_closed().then(|| self.shared.why_ended());
        if let Some(why) = ended.flatten() {
            return call.fail(why);
        }
        match to {
            Destination::Client(client) => client.deliver(call, Mode::Queue),
            Destination::Pipeline(pipeline) => pipeline.client().deliver(call, Mode::Queue),
            Destination::Reflect(place) => place.deliver(call),
        }
    }
}
