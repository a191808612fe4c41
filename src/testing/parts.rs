//! Parts of the crate that nothing public reaches by themselves, for the benchmarks: opaque, and as thin as can be.

use capnp::MessageSize;

use crate::error::{Exception, Result};
use crate::id::QuestionId;
use crate::limits::Limits;
use crate::short::Short;
use crate::sync::{Lane, Waited};
use crate::table::Allocated;
use crate::transport::{Frame, Outbound};
use crate::wire::content::{ContentBuilder, Place};
use crate::wire::message::{Call, Finish, Message, Outcome, Outgoing, Payload, Return, Target};
use crate::wire::{decode, encode};

/// A message that has not been encoded.
pub struct Unsent(Message<Outgoing>);

impl Unsent {
    /// A call of an imported capability.
    pub fn call(params: &[u8]) -> Self {
        Unsent(Message::Call(Call {
            question: 3.into(),
            target: Target::ImportedCap(4.into()),
            interface_id: 5,
            method_id: 6,
            params: payload(Place::CallParams, params),
            keep_results: false,
            no_promise_pipelining: false,
            only_promise_pipeline: false,
        }))
    }

    /// A Return with results.
    pub fn results(results: &[u8]) -> Self {
        Unsent(Message::Return(Return {
            answer: 3.into(),
            release_param_caps: false,
            no_finish_needed: true,
            outcome: Outcome::Results(payload(Place::ReturnResults, results)),
        }))
    }

    /// A Finish.
    pub fn finish() -> Self {
        let question = 3.into();
        Unsent(Message::Finish(Finish { question, release_result_caps: true, cancel_after_delivery: false }))
    }

    /// The message as bytes.
    ///
    /// # Errors
    /// None, for these messages.
    pub fn encode(self) -> Result<Outbound, Exception> {
        encode::encode(self.0)
    }
}

fn payload(place: Place, data: &[u8]) -> Payload<Outgoing> {
    let size = MessageSize { word_count: 2 + data.len().div_ceil(8) as u64, cap_count: 0 };
    let mut content = ContentBuilder::new(place, Some(size));
    content.content().initn_as::<capnp::data::Builder<'_>>(data.len() as u32).copy_from_slice(data);
    Payload { content: content.freeze(), descriptors: Short::new() }
}

/// Decodes a message that has arrived.
///
/// # Errors
/// If it is malformed.
pub fn decode(frame: Frame, limits: &Limits) -> Result<impl Sized> {
    Ok(decode::decode(frame, limits)?)
}

/// A table whose IDs we choose, with entries of about a question's size.
pub struct Table(Allocated<QuestionId, [u64; 16]>);

impl Table {
    /// A table of so many entries.
    pub fn new(entries: u32) -> Self {
        let mut table = Allocated::new();
        for _ in 0..entries {
            table.insert(entry);
        }
        Table(table)
    }

    /// Takes an entry out, puts another in at the lowest free ID, which is that one, and looks at it. True if it is
    /// the right one.
    pub fn replace(&mut self, id: u32) -> bool {
        let taken = self.0.remove(id.into());
        let put = self.0.insert(entry);
        taken.is_some() && self.0.get(put).is_some_and(|entry| entry[0] == u64::from(id))
    }
}

fn entry(id: QuestionId) -> [u64; 16] {
    [u64::from(id.0); 16]
}

/// The queue in front of a stage.
pub struct Queue(Lane<u64>);

impl Queue {
    /// An empty queue.
    #[expect(clippy::new_without_default, reason = "nobody needs one by default")]
    pub fn new() -> Self {
        Queue(Lane::new())
    }

    /// Hands an item over to whoever waits. False if nobody will any more.
    pub fn push(&self, item: u64) -> bool {
        self.0.push(item).is_ok()
    }

    /// Takes an item without waiting, as a borrower does.
    pub fn take(&self) -> Option<u64> {
        self.0.take_turn()?.next()
    }

    /// Waits for an item, as the stage's own thread does. `None` once it is closed.
    pub fn wait(&self) -> Option<u64> {
        match self.0.wait_turn(None) {
            Waited::Turn(mut turn) => turn.next(),
            Waited::TimedOut | Waited::Closed => None,
        }
    }

    /// Lets nothing more in.
    pub fn close(&self) {
        self.0.close();
    }
}
