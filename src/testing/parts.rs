//! Parts of the crate that nothing public reaches by themselves, for benchmarks and fuzz targets: opaque, and as thin as
//! can be.

use capnp::{MessageSize, Word};

use crate::conn::Connection;
use crate::error::{Exception, Result};
use crate::id::QuestionId;
use crate::limits::Limits;
use crate::short::Short;
use crate::state::Tables;
use crate::sync::{Arc, Lane, Waited};
use crate::table::LocalTable;
use crate::transport::{Frame, Outbound};
use crate::wire::content::{Content, ContentBuilder, PayloadKind, Received};
use crate::wire::fast::fast_decode;
use crate::wire::message::{Call, Finish, Incoming, Message, Outcome, Outgoing, Payload, Return, Target};
use crate::wire::{decode, encode};

/// A message that has not been encoded.
pub struct Unsent(Message<Outgoing>);

impl Unsent {
    /// A call of an imported capability.
    pub fn call(params: &[u8]) -> Self {
        Unsent(call_of(payload(PayloadKind::CallParams, params)))
    }

    /// A Return with results.
    pub fn results(results: &[u8]) -> Self {
        Unsent(return_of(payload(PayloadKind::ReturnResults, results)))
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

fn call_of(params: Payload<Outgoing>) -> Message<Outgoing> {
    Message::Call(Call {
        question: 3.into(),
        target: Target::ImportedCap(4.into()),
        interface_id: 5,
        method_id: 6,
        params,
        keep_results: false,
        no_promise_pipelining: false,
        only_promise_pipeline: false,
    })
}

fn return_of(results: Payload<Outgoing>) -> Message<Outgoing> {
    Message::Return(Return {
        answer: 3.into(),
        release_param_caps: false,
        no_finish_needed: true,
        outcome: Outcome::Results(results),
    })
}

fn payload(place: PayloadKind, data: &[u8]) -> Payload<Outgoing> {
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

/// Decodes a message of one segment in both ways, the fast one and the plain one, and compares what they say. True if
/// the fast one knows the message, so that there was something to compare.
///
/// # Panics
/// If the two differ.
pub fn decode_both(words: &[Word], limits: &Limits) -> bool {
    let frame = || Frame::new(words.to_vec(), [words.len()]);
    let Ok(mut fast) = fast_decode::decode(frame(), limits) else { return false };
    let plain = decode::decode_plain(Arc::new(Received::new(frame(), limits)));
    let mut plain = plain.expect("a message that the fast decoder reads can be read");
    let contents = (take_content(&mut fast), take_content(&mut plain));
    assert_eq!(format!("{fast:?}"), format!("{plain:?}"));
    if may_read_root(words) {
        return true;
    }
    // Each way has read another share of the limits on its way to the content: so one may reach them where the other
    // does not.
    if let (Some((fast, place, caps)), Some((plain, _, _))) = contents {
        if let (Some(fast), Some(plain)) = (copied(fast, place, caps), copied(plain, place, caps)) {
            assert_eq!(fast, plain);
        }
    }
    true
}

/// Whether some word may be a pointer to the first one, which the fast way overwrites. No honest content has one.
fn may_read_root(words: &[Word]) -> bool {
    Word::words_to_bytes(words).chunks_exact(8).enumerate().any(|(at, word)| {
        let (low, high) = word.split_at(4);
        let [low, high] = [low, high].map(|half| u32::from_le_bytes(half.try_into().expect("four bytes")));
        let leads_to = at as i64 + 1 + i64::from(low as i32 >> 2);
        match low & 3 {
            0 | 1 => at > 0 && leads_to == 0,
            // A far pointer, in the one segment that there is. Of one with two steps the second may lead anywhere.
            2 => high == 0 && (low >> 3 == 0 || low & 4 != 0),
            _ => false,
        }
    })
}

/// The content of a payload, where it stands, and how many capabilities it may name.
fn take_content(message: &mut Message<Incoming>) -> Option<(Content, PayloadKind, usize)> {
    let (payload, place) = match message {
        Message::Call(call) => (&mut call.params, PayloadKind::CallParams),
        Message::Return(Return { outcome: Outcome::Results(results), .. }) => {
            (results, PayloadKind::ReturnResults)
        }
        _ => return None,
    };
    let caps = payload.descriptors.len();
    Some((std::mem::replace(&mut payload.content, Content::null()), place, caps))
}

/// A copy of the content as it would be sent on, and the capabilities that it names; `None` if it can't be read.
fn copied(content: Content, place: PayloadKind, caps: usize) -> Option<(Vec<u8>, Vec<u32>)> {
    let Some((content, indices)) = content.copy_received(place, caps, usize::MAX).ok()? else {
        return Some(Default::default());
    };
    let payload = Payload { content, descriptors: Short::new() };
    let message = match place {
        PayloadKind::CallParams => call_of(payload),
        PayloadKind::ReturnResults => return_of(payload),
    };
    let bytes = encode::encode(message).ok()?.with_segments(|segments| segments.concat());
    Some((bytes, indices))
}

/// A table whose IDs we choose, with entries of about a question's size.
pub struct Table(LocalTable<QuestionId, [u64; 16]>);

impl Table {
    /// A table of so many entries.
    pub fn new(entries: u32) -> Self {
        let mut table = LocalTable::new();
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

/// All tables of a connection, shared with it: what a snapshot takes under the lock.
pub struct SharedTables(#[expect(dead_code, reason = "it is held")] Tables);

impl SharedTables {
    /// Takes them.
    pub fn of(connection: &Connection) -> Self {
        SharedTables(connection.tables())
    }
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
        match self.0.wait_turn() {
            Waited::Turn(mut turn) => turn.next(),
            Waited::Left | Waited::Closed => None,
        }
    }

    /// Lets nothing more in.
    pub fn close(&self) {
        let _ = self.0.close();
    }
}
