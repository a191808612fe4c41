//! The messages that come with every call, in the shape in which everybody sends them, read word by word.
//!
//! ```text
//! Note [Usual messages]
//! =====================
//! Nearly all that arrives are Calls, Returns with results, Finishes and Releases, in one segment, of structs as large
//! as the schema says that are led to by near pointers. Those are read here, each word once. Of anything else (other
//! variants, sizes and pointers, what is out of bounds, and limits so narrow that reading might cross them) nothing is
//! said here: `decode` finds out what it is with the `capnp` crate's readers. So there are two ways to read a message,
//! and this one may only say what the other says: tests compare them, with whole messages and with damaged ones.
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

use crate::id::{AnswerId, ExportId, ImportId, QuestionId};
use crate::limits::Limits;
use crate::short::Short;
use crate::wire::content::Content;
use crate::wire::envelope::{
    CALL, DESCRIPTOR, LIST, LIST_OF_STRUCTS, MESSAGE, OP, PAYLOAD, PROMISED_ANSWER, RETURN, STRUCT, TARGET,
};
use crate::wire::frame::Frame;
use crate::wire::message::{
    Call, Descriptor, Finish, Incoming, Message, Outcome, Path, Payload, PromisedAnswer, Return, Target,
};

/// Reads a usual message, or gives it back. See Note [Usual messages].
pub(crate) fn decode(mut frame: Frame, limits: &Limits) -> Result<Message<Incoming>, Frame> {
    let Some((mut message, content)) = read(&frame, limits) else { return Err(frame) };
    if let (Some(Pointer { at, to }), Some(payload)) = (content, payload(&mut message)) {
        let Some(lifted) = lift(to, at) else { return Err(frame) };
        frame.set_root(lifted);
        payload.content = Content::lifted(frame, limits);
    }
    Ok(message)
}

/// How many levels of structs there are from a message's root to a content in it.
pub(super) const LEVELS: i32 = 3;

/// More levels than there are in the largest usual message.
const ENOUGH_NESTING: i32 = 16;

/// More words than a usual message has, but for its content and table of capabilities.
const ENOUGH_WORDS: usize = 128;

/// The most steps that the way from a result's root to a capability may have.
pub(super) const MAX_STEPS: usize = 64;

/// A pointer, and where it stands, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    at: usize,
    to: u64,
}

/// The message, with null for its content, and the pointer to that.
fn read(frame: &Frame, limits: &Limits) -> Option<(Message<Incoming>, Option<Pointer>)> {
    let segment = Segment(frame.only_segment()?);
    if limits.nesting < ENOUGH_NESTING || limits.traversal_words < frame.words() + ENOUGH_WORDS {
        return None;
    }
    let [root] = segment.words(0)?;
    let (at, [kind, body]) = segment.structure(Pointer { at: 0, to: root }, MESSAGE)?;
    let body = Pointer { at: at + 1, to: body };
    match half(kind) {
        2 => segment.call(body),
        3 => segment.return_(body),
        4 => Some((Message::Finish(segment.finish(body)?), None)),
        6 => {
            let (_, [release]) = segment.structure(body, RELEASE)?;
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

/// The sizes of a `Finish` and of a `Release`.
const FINISH: u64 = 1 << 32;
const RELEASE: u64 = 1 << 32;

/// The only segment of a message.
#[derive(Clone, Copy)]
struct Segment<'a>(&'a [u8]);

impl Segment<'_> {
    /// Some words from a place on.
    fn words<const N: usize>(self, at: usize) -> Option<[u64; N]> {
        let bytes = self.0.get(at * WORD..)?.get(..N * WORD)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
            *word = u64::from_le_bytes(*bytes.first_chunk()?);
        }
        Some(words)
    }

    /// A struct of `N` words, of these sizes: where it is, and its words.
    fn structure<const N: usize>(self, pointer: Pointer, sizes: u64) -> Option<(usize, [u64; N])> {
        if kind(pointer.to) != STRUCT || high(pointer.to) != high(sizes) {
            return None;
        }
        let at = target(pointer)?;
        Some((at, self.words(at)?))
    }

    /// A list of structs of these sizes, `words` words each: where the first is, and how many there are.
    fn list(self, pointer: Pointer, sizes: u64, words: usize) -> Option<(usize, usize)> {
        if pointer.to == 0 {
            return Some((0, 0));
        }
        let list = LIST | LIST_OF_STRUCTS << 32;
        if (kind(pointer.to) | pointer.to & 7 << 32) != list {
            return None;
        }
        let size = (pointer.to >> 35) as usize;
        let at = target(pointer)?;
        let [tag] = self.words(at)?;
        let len = size / words;
        let fits = len * words == size && self.0.len() / WORD - at > size;
        (fits && tag == sizes | (len as u64) << 2).then_some((at + 1, len))
    }

    fn call(self, pointer: Pointer) -> Option<(Message<Incoming>, Option<Pointer>)> {
        let (at, [numbers, interface_id, hints, target, params, _]) = self.structure(pointer, CALL)?;
        let send_results_to = numbers >> 48;
        if send_results_to > 1 {
            return None;
        }
        let target = self.target(Pointer { at: at + 3, to: target })?;
        let (params, content) = self.payload(Pointer { at: at + 4, to: params })?;
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

    fn target(self, pointer: Pointer) -> Option<Target<Incoming>> {
        let (at, [target, promised]) = self.structure(pointer, TARGET)?;
        match half(target >> 32) {
            0 => Some(Target::ImportedCap(ExportId(low(target)))),
            1 => self.promised_answer(Pointer { at: at + 1, to: promised }).map(Target::PromisedAnswer),
            _ => None,
        }
    }

    fn promised_answer(self, pointer: Pointer) -> Option<PromisedAnswer<AnswerId>> {
        let (at, [question, transform]) = self.structure(pointer, PROMISED_ANSWER)?;
        let (first, len) = self.list(Pointer { at: at + 1, to: transform }, OP, 1)?;
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

    fn payload(self, pointer: Pointer) -> Option<(Payload<Incoming>, Option<Pointer>)> {
        let (at, [content, table]) = self.structure(pointer, PAYLOAD)?;
        let (first, len) = self.list(Pointer { at: at + 1, to: table }, DESCRIPTOR, 2)?;
        let mut descriptors = Short::with_capacity(len);
        for i in 0..len {
            descriptors.push(descriptor(self.words(first + 2 * i)?)?);
        }
        let content = (content != 0).then_some(Pointer { at, to: content });
        Some((Payload { content: Content::null(), descriptors }, content))
    }

    fn return_(self, pointer: Pointer) -> Option<(Message<Incoming>, Option<Pointer>)> {
        let (at, [numbers, _, results]) = self.structure(pointer, RETURN)?;
        let which = numbers >> 48;
        if which != 0 {
            return None;
        }
        let (results, content) = self.payload(Pointer { at: at + 2, to: results })?;
        let ret = Return {
            answer: QuestionId(low(numbers)),
            // What is true by default is stored upside down.
            release_param_caps: numbers & 1 << 32 == 0,
            no_finish_needed: numbers & 1 << 33 != 0,
            outcome: Outcome::Results(results),
        };
        Some((Message::Return(ret), content))
    }

    fn finish(self, pointer: Pointer) -> Option<Finish<Incoming>> {
        let (_, [numbers]) = self.structure(pointer, FINISH)?;
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

const WORD: usize = 8;

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn half(word: u64) -> u16 {
    word as u16
}

/// The kind of a pointer.
fn kind(pointer: u64) -> u64 {
    pointer & 3
}

/// How far from behind itself a near pointer leads, in words.
fn offset(pointer: u64) -> i64 {
    i64::from(low(pointer) as i32 >> 2)
}

/// Where a near pointer leads.
fn target(Pointer { at, to }: Pointer) -> Option<usize> {
    usize::try_from(at as i64 + 1 + offset(to)).ok()
}

/// A pointer that leads from the first word of a segment to where this one leads from the word `at`. See Note
/// [A content is lifted].
fn lift(pointer: u64, at: usize) -> Option<u64> {
    const FURTHEST: i64 = 1 << 29;
    const CAPABILITY: u32 = 3;
    match kind(pointer) {
        STRUCT | LIST => {
            let offset = offset(pointer) + at as i64;
            let near = (-FURTHEST..FURTHEST).contains(&offset);
            let lifted = pointer & !0xffff_ffff | kind(pointer) | u64::from((offset as u32) << 2);
            // An empty struct at the second word would be null.
            (near && lifted != 0).then_some(lifted)
        }
        _ => (low(pointer) == CAPABILITY).then_some(pointer),
    }
}

#[cfg(test)]
mod tests;
