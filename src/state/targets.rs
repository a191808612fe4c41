//! Where an incoming call goes.

use super::effects::Destination;
use super::State;
use crate::cap::client::Client;
use crate::error::{Exception, ProtocolError};
use crate::id::AnswerId;
use crate::wire::message::{Incoming, Path, Target};

/// What an incoming call is addressed to, by our tables.
pub(super) enum Addressee {
    /// It can go there now.
    Known(Destination),
    /// It waits for an answer of ours.
    Awaits(AnswerId, Path),
}

impl State {
    pub(super) fn addressee(&self, target: Target<Incoming>) -> Result<Addressee, ProtocolError> {
        match target {
            Target::ImportedCap(id) => {
                let export = self.exports.get(id).ok_or(ProtocolError::UnknownExport(id))?;
                Ok(Addressee::Known(export.destination()))
            }
            Target::PromisedAnswer(promised) => {
                let id = promised.question;
                let Some(answer) = self.answers.get(&id) else {
                    // It was returned with `noFinishNeeded`, which the peer did not know when it called.
                    return match self.ended_answers.contains(id.0) {
                        true => Ok(Addressee::Known(Destination::Client(Client::broken(closed())))),
                        false => Err(ProtocolError::UnknownPromisedAnswer(id)),
                    };
                };
                Ok(match (answer.returned(), answer.pipeline()) {
                    (Some(returned), _) => Addressee::Known(returned.destination(&promised.path)),
                    (None, Some(pipeline)) => {
                        Addressee::Known(Destination::Pipeline(pipeline.at(&promised.path)))
                    }
                    (None, None) => Addressee::Awaits(id, promised.path),
                })
            }
        }
    }
}

/// The exception of a call on results without capabilities, whose entry is gone.
pub(super) fn closed() -> Exception {
    Exception::failed("called a capability in results that hold none")
}
