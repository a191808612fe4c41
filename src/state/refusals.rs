//! Calls that are refused, because there is no room for them.
//!
//! Nothing is kept of such a call but its ID, for as long as the peer may not know of the refusal: what it calls or names
//! in the results, and a question of ours that is to take them, get the same exception.

use super::effects::Effects;
use super::rules::import_of;
use super::State;
use crate::cap::client::Client;
use crate::cap::Capability;
use crate::error::{Exception, ProtocolError};
use crate::id::AnswerId;
use crate::wire::message::{Call, Incoming, Message, Outcome, Return};

impl State {
    /// Answers a call at once, without doing anything of it: there is no room for it.
    ///
    /// The Return tells the peer that its params gave us nothing. A call for pipelining alone gets no Return: then a Release
    /// gives back what they gave.
    pub(crate) fn refuse_call(
        &mut self,
        call: &Call<Incoming>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        if call.keep_results || !call.only_promise_pipeline {
            return self.refuse(call.question, fx);
        }
        self.note_refusal(call.question, fx)?;
        let mut given: Vec<_> = call.params.descriptors.iter().filter_map(import_of).collect();
        given.sort_unstable();
        for same in given.chunk_by(|a, b| a == b) {
            fx.send(Message::Release { id: same[0], count: u32::try_from(same.len()).unwrap_or(u32::MAX) });
        }
        Ok(())
    }

    /// Answers a call without params, or one whose Return gives them back.
    pub(crate) fn refuse(&mut self, id: AnswerId, fx: &mut Effects) -> Result<(), ProtocolError> {
        self.note_refusal(id, fx)?;
        fx.send(Message::Return(Return {
            answer: id,
            release_param_caps: true,
            no_finish_needed: true,
            outcome: Outcome::Exception(refused()),
        }));
        Ok(())
    }

    fn note_refusal(&mut self, id: AnswerId, fx: &mut Effects) -> Result<(), ProtocolError> {
        self.check_new_answer(id)?;
        self.new_answer(id);
        fx.discard(self.take_answer(id));
        self.ended_answers.insert(id.0);
        self.refused_answers.insert(id.0);
        Ok(())
    }

    /// Whether a call may have been refused of which the peer does not know that.
    pub(super) fn may_be_refused(&self, id: AnswerId) -> bool {
        self.refused_answers.may_contain(id.0)
    }

    /// What stands for the capabilities in the results of an answer that is no longer in the table, if it can have been:
    /// one that was returned with `noFinishNeeded`, which the peer did not know when it named the answer.
    pub(super) fn was_in_answer(&self, id: AnswerId) -> Option<Client> {
        match self.ended_answers.may_contain(id.0) {
            true if self.refused_answers.contains(id.0) => Some(Client::broken(refused())),
            true => Some(Client::null()),
            false => None,
        }
    }
}

/// Why a call is refused, and with it those that are pipelined on it.
pub(super) fn refused() -> Exception {
    Exception::overloaded("too many calls are in service")
}
