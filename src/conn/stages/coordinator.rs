//! The coordinator: handles each message that was read in a transaction of its own.

use super::{work_off, Progress, Wait};
use crate::conn::backpressure::Share;
use crate::conn::shared::{Incoming, Shared};
use crate::conn::transaction::Failed;
use crate::error::Error;
use crate::promise::Attachment;
use crate::state::ReceivedMessage;
use crate::sync::Arc;
use crate::wire::decode::decode;
use crate::wire::frame::Frame;
use crate::wire::message::Message;

/// Handles what was read: one transaction for each message.
pub(crate) struct CoordinatorStage {
    shared: Arc<Shared>,
}

impl CoordinatorStage {
    pub(in crate::conn) fn new(shared: &Arc<Shared>) -> Self {
        CoordinatorStage { shared: shared.clone() }
    }

    pub(crate) fn step(&mut self, wait: Wait) -> Progress {
        work_off(&self.shared.incoming, wait, |item| self.one(item))
    }

    pub(in crate::conn) fn one(&self, item: Incoming) {
        let handled = match item {
            Incoming::Message(frame, share) => self.handle(frame, share, false),
            Incoming::Refused(frame) => self.handle(frame, None, true),
            Incoming::End(why) => return self.shared.end(why, false),
        };
        if let Err(Failed::Rule(e)) = handled {
            self.shared.end(e.into(), true);
        }
    }

    fn handle(&self, frame: Frame, share: Option<Share>, refused: bool) -> Result<(), Failed> {
        let words = frame.words();
        let message = decode(frame, &self.shared.limits).map_err(Failed::Rule)?;
        if let Message::Abort(why) = message {
            self.shared.end(Error::Exception(why.with_context("the peer aborted")), false);
            return Ok(());
        }
        if let Message::Bootstrap { question } = message {
            // Its answer stays until the Finish.
            if self.shared.flow.is_above_process() {
                return self.shared.try_transact(|state, fx| state.refuse(question, fx));
            }
        }
        // Only calls stay in service; anything else is done when this returns.
        let mut in_service = None;
        if let Message::Call(call) = &message {
            let caps = call.params.descriptors.len();
            let share = self.shared.flow.serve_decoded(share, words, caps);
            // Kept results are for a question of ours: see Note [Backpressure].
            if (refused || self.shared.flow.refuses_call(&share)) && !call.keep_results {
                return self.shared.try_transact(|state, fx| state.refuse_call(call, fx));
            }
            in_service = Some(Arc::new(share) as Arc<dyn Attachment>);
        }
        let arrival = ReceivedMessage { message, share: in_service };
        self.shared.try_transact(|state, fx| state.receive(arrival, fx))
    }
}
