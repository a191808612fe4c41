//! Calls, Returns with results, Finishes and Releases in the shape that every implementation sends, read word by word.
//!
//! What it buys: of the instructions of a call of 16 B (`throughput-16B`), both sides together, an eighth; of those for
//! decoding a call, two thirds (`benches/HISTORY.md`).
//!
//! ```text
//! Note [Usual messages]
//! =====================
//! Nearly all messages that arrive are Calls, Returns with results, Finishes and Releases, in one segment, of structs as
//! large as the schema says that are led to by near pointers. Those are read here, each word once. Any other message (other
//! variants, sizes and pointers, what is out of bounds, and limits so narrow that reading might cross them) is given back,
//! and `decode` reads it with the `capnp` crate's readers. So there are two ways to read a message, and this one may only
//! say what the other says: tests compare them, with whole messages and with damaged ones.
//!
//! Note [A content is lifted]
//! ==========================
//! Of a usual message that has been read, only the content is needed any more. So the pointer to it takes the place of
//! the message's root, with its offset counted from there, and nothing else changes: all that the content leads to
//! stays where it is, and the content is the root of a message of its own, which takes no steps to get to. The reader
//! of that allows for as many levels of nesting less as there are from a message's root to a content.
//!
//!     word  0     1        ... p
//!     was   root  Message  ... content  capTable  what the content points to ...
//!     is    content, moved by p         capTable  what the content points to ...
//!
//! (A content that leads back to the first word is no tree, and nobody writes such; it would see the new root there.)
//! ```

use super::schema;
use crate::id::{AnswerId, ExportId, ImportId, QuestionId};
use crate::limits::Limits;
use crate::short::Short;
use crate::wire::content::Content;
use crate::wire::frame::Frame;
use crate::wire::message::{
    Call, Descriptor, Finish, Incoming, Message, Outcome, Path, Payload, PromisedAnswer, Return, Target,
    MAX_STEPS,
};
use crate::wire::pointer::{words_at, ElementSize, Pointer, PointerKind, StructSize, WORD};

/// Decodes a usual message, or gives it back. See Note [Usual messages].
pub(crate) fn decode(mut frame: Frame, limits: &Limits) -> Result<Message<Incoming>, Frame> {
    let Some((mut message, content)) = read(&frame, limits) else { return Err(frame) };
    if let (Some(content), Some(payload)) = (content, payload(&mut message)) {
        let Some(root) = content.pointer.moved(content.at, 0) else { return Err(frame) };
        frame.set_root(root);
        payload.content = Content::lifted(frame, limits);
    }
    Ok(message)
}

/// The levels of structs from a message's root to a content in it.
pub(in crate::wire) const LEVELS: i32 = 3;

/// More levels than there are in the largest usual message.
const ENOUGH_NESTING: i32 = 16;

/// More words than a usual message has, but for its content and table of capabilities.
const ENOUGH_WORDS: usize = 128;

/// A pointer of a segment, and the word where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlacedPointer {
    at: usize,
    pointer: Pointer,
}

impl PlacedPointer {
    fn new(at: usize, word: u64) -> Self {
        PlacedPointer { at, pointer: Pointer(word) }
    }

    fn target(self) -> Option<usize> {
        self.pointer.target(self.at)
    }
}

/// The message, with null for its content, and the pointer to that.
fn read(frame: &Frame, limits: &Limits) -> Option<(Message<Incoming>, Option<PlacedPointer>)> {
    let segment = OnlySegment(frame.only_segment()?);
    if limits.nesting < ENOUGH_NESTING || limits.traversal_words < frame.words() + ENOUGH_WORDS {
        return None;
    }
    let [root] = segment.words(0)?;
    let (at, [kind, body]) = segment.structure(PlacedPointer::new(0, root), schema::MESSAGE)?;
    let body = PlacedPointer::new(at + 1, body);
    match u64::from(half(kind)) {
        schema::MESSAGE_CALL => segment.call(body),
        schema::MESSAGE_RETURN => segment.return_(body),
        schema::MESSAGE_FINISH => Some((Message::Finish(segment.finish(body)?), None)),
        schema::MESSAGE_RELEASE => {
            let (_, [release]) = segment.structure(body, schema::RELEASE)?;
            Some((Message::Release { id: low(release).into(), count: high(release) }, None))
        }
        _ => None,
    }
}

fn payload(message: &mut Message<Incoming>) -> Option<&mut Payload<Incoming>> {
    match message {
        Message::Call(call) => Some(&mut call.params),
        Message::Return(Return { outcome: Outcome::Results(results), .. }) => Some(results),
        _ => None,
    }
}

/// The only segment of a message.
#[derive(Clone, Copy)]
struct OnlySegment<'a>(&'a [u8]);

impl OnlySegment<'_> {
    fn words<const N: usize>(self, at: usize) -> Option<[u64; N]> {
        words_at(self.0, at)
    }

    /// A struct of `N` words, of this size: where it is, and its words.
    fn structure<const N: usize>(
        self,
        pointer: PlacedPointer,
        size: StructSize,
    ) -> Option<(usize, [u64; N])> {
        debug_assert_eq!(N, size.words());
        if pointer.pointer.kind() != PointerKind::Struct || pointer.pointer.struct_size() != size {
            return None;
        }
        let at = pointer.target()?;
        Some((at, self.words(at)?))
    }

    /// A list of structs of this size: where the first is, and how many there are.
    fn list(self, list: PlacedPointer, size: StructSize) -> Option<(usize, usize)> {
        let pointer = list.pointer;
        if pointer.is_null() {
            return Some((0, 0));
        }
        if pointer.kind() != PointerKind::List || pointer.element_size() != ElementSize::Composite {
            return None;
        }
        let words = pointer.element_count();
        let at = list.target()?;
        let [tag] = self.words(at)?;
        let len = words / size.words();
        let fits = len * size.words() == words && self.0.len() / WORD - at > words;
        (fits && Pointer(tag) == Pointer::tag(len, size)).then_some((at + 1, len))
    }

    fn call(self, pointer: PlacedPointer) -> Option<(Message<Incoming>, Option<PlacedPointer>)> {
        let (at, words) = self.structure(pointer, schema::CALL)?;
        let [numbers, interface_id, hints, target, params, _] = words;
        let send_results_to = numbers >> 48;
        if send_results_to > 1 {
            return None;
        }
        let target = self.target(PlacedPointer::new(at + 3, target))?;
        let (params, content) = self.payload(PlacedPointer::new(at + 4, params))?;
        let call = Call {
            question: low(numbers).into(),
            target,
            interface_id,
            method_id: half(numbers >> 32),
            params,
            keep_results: send_results_to == 1,
            no_promise_pipelining: hints & 2 != 0,
            only_promise_pipeline: hints & 4 != 0,
        };
        Some((Message::Call(call), content))
    }

    fn target(self, pointer: PlacedPointer) -> Option<Target<Incoming>> {
        let (at, [target, promised]) = self.structure(pointer, schema::MESSAGE_TARGET)?;
        match half(target >> 32) {
            0 => Some(Target::ImportedCap(ExportId(low(target)))),
            1 => self.promised_answer(PlacedPointer::new(at + 1, promised)).map(Target::PromisedAnswer),
            _ => None,
        }
    }

    fn promised_answer(self, pointer: PlacedPointer) -> Option<PromisedAnswer<AnswerId>> {
        let (at, [question, transform]) = self.structure(pointer, schema::PROMISED_ANSWER)?;
        let (first, len) = self.list(PlacedPointer::new(at + 1, transform), schema::OP)?;
        if len > MAX_STEPS {
            return None;
        }
        let (mut fields, mut steps) = ([0; MAX_STEPS], 0);
        for at in first..first + len {
            let [op] = self.words(at)?;
            match half(op) {
                0 => {}
                1 => {
                    fields[steps] = half(op >> 16);
                    steps += 1;
                }
                _ => return None,
            }
        }
        Some(PromisedAnswer { question: low(question).into(), path: Path::from(&fields[..steps]) })
    }

    fn payload(self, pointer: PlacedPointer) -> Option<(Payload<Incoming>, Option<PlacedPointer>)> {
        let (at, [content, table]) = self.structure(pointer, schema::PAYLOAD)?;
        let (first, len) = self.list(PlacedPointer::new(at + 1, table), schema::DESCRIPTOR)?;
        let mut descriptors = Short::with_capacity(len);
        for i in 0..len {
            descriptors.push(descriptor(self.words(first + 2 * i)?)?);
        }
        let content = (content != 0).then_some(PlacedPointer::new(at, content));
        Some((Payload { content: Content::null(), descriptors }, content))
    }

    fn return_(self, pointer: PlacedPointer) -> Option<(Message<Incoming>, Option<PlacedPointer>)> {
        let (at, [numbers, _, results]) = self.structure(pointer, schema::RETURN)?;
        let which = numbers >> 48;
        if which != 0 {
            return None;
        }
        let (results, content) = self.payload(PlacedPointer::new(at + 2, results))?;
        let ret = Return {
            answer: QuestionId(low(numbers)),
            // What is true by default is stored upside down.
            release_param_caps: numbers & 1 << 32 == 0,
            no_finish_needed: numbers & 1 << 33 != 0,
            outcome: Outcome::Results(results),
        };
        Some((Message::Return(ret), content))
    }

    fn finish(self, pointer: PlacedPointer) -> Option<Finish<Incoming>> {
        let (_, [numbers]) = self.structure(pointer, schema::FINISH)?;
        Some(Finish {
            question: low(numbers).into(),
            release_result_caps: numbers & 1 << 32 == 0,
            cancel_after_delivery: numbers & 1 << 33 == 0,
        })
    }
}

fn descriptor([word, _]: [u64; 2]) -> Option<Descriptor<Incoming>> {
    let id = high(word);
    match half(word) {
        0 => Some(Descriptor::None),
        1 => Some(Descriptor::SenderHosted(ImportId(id))),
        2 => Some(Descriptor::SenderPromise(ImportId(id))),
        3 => Some(Descriptor::ReceiverHosted(ExportId(id))),
        _ => None,
    }
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn half(word: u64) -> u16 {
    word as u16
}

#[cfg(test)]
mod tests;
