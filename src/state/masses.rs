//! Tests of what a peer may send a great many of. They drive the state itself: in a debug build, a connection checks all of
//! its tables after each transaction.

use super::{Callback, Effects, ReceivedMessage, State};
use crate::cap::client::{Client, Kind};
use crate::cap::contents::Payload as Results;
use crate::cap::port::{AnswerKey, ConnectionId, ConnectionOps};
use crate::cap::promised::PromiseCell;
use crate::cap::testing::Posts;
use crate::cap::Capability;
use crate::id::{AnswerId, ExportId};
use crate::limits::Limits;
use crate::short::Short;
use crate::sync::Arc;
use crate::wire::content::Content;
use crate::wire::message::{Call, Finish, Incoming, Message, Payload, Target};

/// More than there are IDs of ended answers that a connection remembers (131,072).
const CALLS: u32 = 140_000;

/// A connection, and the one capability that the peer holds.
struct Connected {
    state: State,
    _port: Arc<dyn ConnectionOps>,
    object: ExportId,
}

impl Connected {
    fn new() -> Self {
        let port: Arc<dyn ConnectionOps> = Arc::new(Posts::default());
        let weak = Arc::downgrade(&port);
        let mut state = State::new(ConnectionId(0), weak, &Limits::default(), Client::null());
        let object = Client(Kind::Promise(PromiseCell::new(None)));
        let described = state.describe(&object, &mut Effects::default()).expect("there is room");
        Connected { state, _port: port, object: described.export.expect("it is of this vat") }
    }

    fn receive(&mut self, message: Message<Incoming>, fx: &mut Effects) {
        self.state.receive(ReceivedMessage { message, share: None }, fx).unwrap();
    }

    /// The peer calls, and is answered.
    fn call(&mut self, id: AnswerId) {
        let mut fx = Effects::default();
        let call = Call {
            question: id,
            target: Target::ImportedCap(self.object),
            interface_id: 1,
            method_id: 1,
            params: Payload { content: Content::null(), descriptors: Short::new() },
            keep_results: false,
            no_promise_pipelining: false,
            only_promise_pipeline: false,
        };
        self.receive(Message::Call(call), &mut fx);
        assert!(matches!(fx.callbacks.pop(), Some(Callback::Deliver { .. })), "call {id} is delivered");
        let generation = self.state.answers.get(&id).unwrap().generation;
        let results = Results::new(Content::null(), Short::new());
        self.state.answer(AnswerKey { id, generation }, Ok(results), &mut fx);
        let sent = fx.send.pop().map(|departure| departure.message);
        let Some(Message::Return(ret)) = sent else { panic!("call {id} is answered") };
        assert!(ret.answer == id && ret.no_finish_needed, "{ret:?}");
    }

    fn finish(&mut self, id: AnswerId, workaround: bool) {
        let finish = Finish { question: id, release_result_caps: true, cancel_after_delivery: workaround };
        self.receive(Message::Finish(finish), &mut Effects::default());
    }
}

/// A peer makes all its calls before it looks at an answer: no Finish comes before all are answered. Then it does so once
/// more, with the same IDs.
#[test]
fn late_finishes_of_more_calls_than_are_remembered_are_ignored() {
    let mut connected = Connected::new();
    for (last_first, workaround) in [(false, true), (true, false)] {
        (0..CALLS).for_each(|id| connected.call(AnswerId(id)));
        for n in 0..CALLS {
            let id = if last_first { CALLS - 1 - n } else { n };
            connected.finish(AnswerId(id), workaround);
        }
        assert!(connected.state.answers.is_empty());
        connected.state.check();
    }
}
