//! The room that a message of the peer's needs to be handled, found out without decoding it.

use capnp::message::{Reader, ReaderOptions};

use crate::generated::rpc_capnp::message;
use crate::wire::frame::Frame;

/// The room that a message of the peer's needs to be handled. See Note [Backpressure].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It is a call: room among those in service, and room to send its answer.
    Service,
    /// Room to send the message that it leaves to be sent.
    Output,
    /// It takes up no room that is not taken already, and may make some.
    Nothing,
}

impl Needs {
    /// The room that a message needs. A malformed one needs nothing: it ends the connection.
    pub(crate) fn of(frame: &Frame) -> Needs {
        let reader = Reader::new(frame, ReaderOptions::new());
        let Ok(root) = reader.get_root::<message::Reader<'_>>() else { return Needs::Nothing };
        match root.which() {
            Ok(message::Call(_)) => Needs::Service,
            Ok(
                message::Unimplemented(_)
                | message::Abort(_)
                | message::Return(_)
                | message::Finish(_)
                | message::Release(_),
            ) => Needs::Nothing,
            // A Bootstrap is answered, a Disembargo is sent back, a Resolve may have something released, and what is
            // not implemented comes back.
            Ok(_) | Err(_) => Needs::Output,
        }
    }
}

/// Whether a message is an Abort.
pub(crate) fn is_abort(frame: &Frame) -> bool {
    let reader = Reader::new(frame, ReaderOptions::new());
    let root = reader.get_root::<message::Reader<'_>>();
    root.is_ok_and(|root| matches!(root.which(), Ok(message::Abort(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exception;
    use crate::id::{AnswerId, QuestionId};
    use crate::wire::encode::encode;
    use crate::wire::message::{Finish, Message, Outcome, Outgoing, Return};
    use crate::wire::testing::{receive, receive_segments};

    fn frame(message: Message<Outgoing>) -> Frame {
        receive(&encode(message).unwrap())
    }

    #[test]
    fn messages_that_may_make_room_need_none() {
        let ret = Return {
            answer: AnswerId(1),
            release_param_caps: false,
            no_finish_needed: false,
            outcome: Outcome::Canceled,
        };
        let finish =
            Finish { question: QuestionId(1), release_result_caps: true, cancel_after_delivery: false };
        let abort = frame(Message::Abort(Exception::failed("enough")));
        assert!(is_abort(&abort));
        let ours = [frame(Message::Return(ret)), frame(Message::Finish(finish)), abort];
        for frame in &ours {
            assert_eq!(Needs::of(frame), Needs::Nothing);
        }
    }

    #[test]
    fn messages_that_are_answered_need_room_to_send() {
        let bootstrap = frame(Message::Bootstrap { question: QuestionId(1) });
        assert_eq!(Needs::of(&bootstrap), Needs::Output);
        assert!(!is_abort(&bootstrap));
    }

    #[test]
    fn a_malformed_message_needs_nothing() {
        assert_eq!(Needs::of(&receive_segments(&[&[0xff; 8]])), Needs::Nothing);
        assert_eq!(Needs::of(&receive_segments(&[])), Needs::Nothing);
    }

    #[test]
    fn a_variant_of_the_future_needs_room_to_send_it_back() {
        let mut bytes = [0; 24];
        // A root of one data word, whose discriminant nobody knows, and one pointer.
        bytes[4] = 1;
        bytes[6] = 1;
        bytes[8] = 200;
        assert_eq!(Needs::of(&receive_segments(&[&bytes])), Needs::Output);
    }
}
