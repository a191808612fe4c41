//! Where an incoming call goes.

use super::effects::Destination;
use super::State;
use crate::cap::client::Client;
use crate::cap::Capability;
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
                    let was = self.was_in_answer(id).ok_or(ProtocolError::UnknownPromisedAnswer(id))?;
                    let why = was.broken_reason().unwrap_or_else(closed);
                    return Ok(Addressee::Known(Destination::Client(Client::broken(why))));
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

#[cfg(test)]
mod tests {
    use super::super::{Effects, ReceivedMessage};
    use super::*;
    use crate::cap::port::ConnectionId;
    use crate::cap::testing::no_port;
    use crate::limits::Limits;
    use crate::wire::message::{Finish, Message, PromisedAnswer};

    /// More questions than are remembered: what the peer says of them late is not taken for an error.
    #[test]
    fn what_is_late_for_a_forgotten_answer_is_accepted() {
        const MANY: u32 = 200_000;
        let mut state = State::new(ConnectionId(0), no_port(), &Limits::default(), Client::null());
        let mut fx = Effects::default();
        for id in 0..MANY {
            state.refuse(AnswerId(id), &mut fx).unwrap();
            fx.send.clear();
        }
        for id in (0..MANY).rev() {
            let target = Target::PromisedAnswer(PromisedAnswer { question: AnswerId(id), path: [].into() });
            state.addressee(target).map(drop).unwrap();
            let finish =
                Finish { question: AnswerId(id), release_result_caps: true, cancel_after_delivery: false };
            let arrival = ReceivedMessage { message: Message::Finish(finish), share: None };
            state.receive(arrival, &mut fx).unwrap();
        }
        let finish =
            Finish { question: AnswerId(MANY), release_result_caps: true, cancel_after_delivery: false };
        let arrival = ReceivedMessage { message: Message::Finish(finish), share: None };
        assert_eq!(state.receive(arrival, &mut fx), Err(ProtocolError::UnknownAnswer(AnswerId(MANY))));
    }
}
