//! Calls, Returns with results, Finishes and Releases, written word by word.
//!
//! What it buys: of the instructions of a call of 16 B (`throughput-16B`), both sides together, a sixth; of those for
//! building and encoding a call, two thirds (`benches/HISTORY.md`). No content is copied.
//!
//! ```text
//! Note [Envelopes]
//! ================
//! Every call takes a `Call` and a `Return` with a payload, which look the same but for a few numbers. So these two are
//! not built with the `capnp` crate: a content is built in a message whose root is an *envelope*, a struct with as many
//! words of data as the rpc structs before the payload's two pointers take, and with these two pointers. When the
//! message goes out, the words up to there are replaced:
//!
//!     word  0    1 2        3 4 5      6 7 8      9 10          11       12
//!     Call  root Message    Call data  3 pointers MessageTarget content  capTable   content, as it was built ...
//!     word  0    1 2        3 4        5          6        7
//!     Return root Message   Return data pointer   content  capTable                 content, as it was built ...
//!
//! and what varies in size (the path of a target, the descriptors) is appended to the first segment. All offsets of
//! pointers inside the content stay as they are. So the content is not copied, and the message that it was built in stays
//! as it is: results may be sent and kept for pipelined calls at the same time.
//!
//! A Finish and a Release are four words: the root, `Message`, and one word of data.
//! ```

use capnp::any_pointer;
use capnp::private::layout::{PointerBuilder, PointerReader};
use capnp::traits::{FromPointerBuilder, FromPointerReader};
use capnp::Word;

use super::schema;
use super::scratch_pool::ScratchBuilder;
use crate::sync::Arc;
use crate::wire::content::{BuiltContent, Content, PayloadKind};
use crate::wire::frame::Outbound;
use crate::wire::message::{
    Call, Descriptor, Finish, Message, Outcome, Outgoing, Payload, PromisedAnswer, Return, Target,
};
use crate::wire::pointer::{word_at, ElementSize, Pointer, StructSize, WORD};

/// The words before a content: see Note [Envelopes].
const CALL_WORDS: usize = 13;
const RETURN_WORDS: usize = 8;

impl PayloadKind {
    /// The number of words before a content of this kind.
    pub(in crate::wire) const fn words_before(self) -> usize {
        match self {
            PayloadKind::CallParams => CALL_WORDS,
            PayloadKind::ReturnResults => RETURN_WORDS,
        }
    }

    const fn envelope_size(self) -> capnp::private::layout::StructSize {
        // Without the root pointer, and the two of the payload.
        capnp::private::layout::StructSize { data: self.words_before() as u16 - 3, pointers: 2 }
    }
}

/// The content in an envelope that is being built. The first call makes the envelope.
pub(in crate::wire) fn content_mut(
    message: &mut ScratchBuilder,
    kind: PayloadKind,
) -> any_pointer::Builder<'_> {
    let content = match kind {
        PayloadKind::CallParams => message.get_root::<InCall<_>>().map(|root| root.0),
        PayloadKind::ReturnResults => message.get_root::<InReturn<_>>().map(|root| root.0),
    };
    content.expect("the root is what was made here, the first time")
}

/// The content in an envelope that was built.
pub(in crate::wire) fn content(
    message: &ScratchBuilder,
    kind: PayloadKind,
) -> capnp::Result<any_pointer::Reader<'_>> {
    Ok(match kind {
        PayloadKind::CallParams => message.get_root_as_reader::<InCall<_>>()?.0,
        PayloadKind::ReturnResults => message.get_root_as_reader::<InReturn<_>>()?.0,
    })
}

/// The root of a message that a call's params are built in.
struct InCall<P>(P);

/// The root of a message that a return's results are built in.
struct InReturn<P>(P);

macro_rules! root {
    ($name:ident, $kind:expr) => {
        impl<'a> FromPointerBuilder<'a> for $name<any_pointer::Builder<'a>> {
            fn init_pointer(builder: PointerBuilder<'a>, _: u32) -> Self {
                let envelope = builder.init_struct($kind.envelope_size());
                $name(any_pointer::Builder::new(envelope.get_pointer_field(0)))
            }

            fn get_from_pointer(
                builder: PointerBuilder<'a>,
                default: Option<&'a [Word]>,
            ) -> capnp::Result<Self> {
                let envelope = builder.get_struct($kind.envelope_size(), default)?;
                Ok($name(any_pointer::Builder::new(envelope.get_pointer_field(0))))
            }
        }

        impl<'a> FromPointerReader<'a> for $name<any_pointer::Reader<'a>> {
            fn get_from_pointer(
                reader: &PointerReader<'a>,
                default: Option<&'a [Word]>,
            ) -> capnp::Result<Self> {
                Ok($name(any_pointer::Reader::new(reader.get_struct(default)?.get_pointer_field(0))))
            }
        }
    };
}

root!(InCall, PayloadKind::CallParams);
root!(InReturn, PayloadKind::ReturnResults);

/// Encodes a Finish, a Release, or a message with a content that was built for it, and takes that content out. `None` for any
/// other message, which is left as it is.
pub(in crate::wire) fn encode(message: &mut Message<Outgoing>) -> Option<Outbound> {
    match message {
        Message::Call(call) => {
            let built = call.params.content.built(PayloadKind::CallParams)?;
            let envelope = Envelope::call(built, call)?;
            Some(Outbound::enclosed(take(&mut call.params.content)?, envelope))
        }
        Message::Return(ret) => {
            let Outcome::Results(Payload { content, descriptors }) = &ret.outcome else { return None };
            let envelope = Envelope::results(content.built(PayloadKind::ReturnResults)?, ret, descriptors)?;
            let Outcome::Results(results) = &mut ret.outcome else { return None };
            Some(Outbound::enclosed(take(&mut results.content)?, envelope))
        }
        Message::Finish(finish) => Some(encode_finish(finish)),
        Message::Release { id, count } => Some(encode_release((*id).into(), *count)),
        _ => None,
    }
}

fn take(content: &mut Content) -> Option<Arc<BuiltContent>> {
    std::mem::replace(content, Content::null()).into_built()
}

/// What is written before and behind the content in the first segment of a message.
pub(in crate::wire) struct Envelope {
    head: [Word; CALL_WORDS],
    /// How many words of the first segment the head takes the place of.
    replaced: usize,
    tail: Vec<Word>,
    /// Where the tail begins, in words.
    tail_at: usize,
}

impl Envelope {
    /// A `Call` around its params. `None` if a descriptor is of a kind that is never sent.
    fn call(built: &BuiltContent, call: &Call<Outgoing>) -> Option<Self> {
        let mut envelope = Envelope::new(built.first_segment(), CALL_WORDS);
        let (target, promised) = match &call.target {
            Target::ImportedCap(id) => (u64::from(u32::from(*id)), Pointer::NULL),
            Target::PromisedAnswer(answer) => (1 << 32, envelope.promised_answer(10, answer)),
        };
        let numbers = u64::from(u32::from(call.question))
            | u64::from(call.method_id) << 32
            | u64::from(call.keep_results) << 48;
        let hints = u64::from(call.no_promise_pipelining) << 1 | u64::from(call.only_promise_pipeline) << 2;
        envelope.head[..11].copy_from_slice(
            &[
                Pointer::to_struct(0, 1, schema::MESSAGE).0,
                schema::MESSAGE_CALL,
                Pointer::to_struct(2, 3, schema::CALL).0,
                numbers,
                call.interface_id,
                hints,
                Pointer::to_struct(6, 9, schema::MESSAGE_TARGET).0,
                Pointer::to_struct(7, 11, schema::PAYLOAD).0,
                0,
                target,
                promised.0,
            ]
            .map(word),
        );
        envelope.cap_table(&call.params.descriptors)?;
        Some(envelope)
    }

    /// A `Return` with results, around these. `None` if a descriptor is of a kind that is never sent.
    fn results(
        built: &BuiltContent,
        ret: &Return<Outgoing>,
        descriptors: &[Descriptor<Outgoing>],
    ) -> Option<Self> {
        let mut envelope = Envelope::new(built.first_segment(), RETURN_WORDS);
        // `releaseParamCaps` is true by default, so it is stored upside down.
        let flags = u64::from(!ret.release_param_caps) << 32 | u64::from(ret.no_finish_needed) << 33;
        envelope.head[..6].copy_from_slice(
            &[
                Pointer::to_struct(0, 1, schema::MESSAGE).0,
                schema::MESSAGE_RETURN,
                Pointer::to_struct(2, 3, schema::RETURN).0,
                u64::from(u32::from(ret.answer)) | flags,
                0,
                Pointer::to_struct(5, 6, schema::PAYLOAD).0,
            ]
            .map(word),
        );
        envelope.cap_table(descriptors)?;
        Some(envelope)
    }

    fn new(segment: &[u8], replaced: usize) -> Self {
        let mut head = [word(0); CALL_WORDS];
        let content = replaced - 2;
        head[content] = word(word_at(segment, content).expect("the content was built in an envelope"));
        Envelope { head, replaced, tail: Vec::new(), tail_at: segment.len() / WORD }
    }

    /// Appends words. Returns the position of the first one.
    fn append(&mut self, words: impl IntoIterator<Item = u64>) -> usize {
        let at = self.tail_at + self.tail.len();
        self.tail.extend(words.into_iter().map(word));
        at
    }

    fn set(&mut self, at: usize, to: u64) {
        self.tail[at - self.tail_at] = word(to);
    }

    /// Appends the tag of a list of structs, which the caller appends next. Returns the pointer to the list, from the word
    /// `at`.
    fn list(&mut self, at: usize, len: usize, size: StructSize) -> Pointer {
        let list = self.append([Pointer::tag(len, size).0]);
        Pointer::to_list(at, list, ElementSize::Composite, len * size.words())
    }

    /// Appends a `PromisedAnswer`. Returns the pointer to it, from the word `at`.
    fn promised_answer<Q: Copy + Into<u32>>(&mut self, at: usize, answer: &PromisedAnswer<Q>) -> Pointer {
        let here = self.append([u64::from(answer.question.into()), 0]);
        if !answer.path.is_empty() {
            let list = self.list(here + 1, answer.path.len(), schema::OP);
            self.set(here + 1, list.0);
            self.append(answer.path.iter().map(|&field| 1 | u64::from(field) << 16));
        }
        Pointer::to_struct(at, here, schema::PROMISED_ANSWER)
    }

    /// Appends the descriptors of the capabilities in the content. `None` if one is of a kind that is never sent.
    fn cap_table(&mut self, descriptors: &[Descriptor<Outgoing>]) -> Option<()> {
        if descriptors.is_empty() {
            return Some(());
        }
        let at = self.replaced - 1;
        self.head[at] = word(self.list(at, descriptors.len(), schema::DESCRIPTOR).0);
        let mut here = self.append(std::iter::repeat_n(0, descriptors.len() * schema::DESCRIPTOR.words()));
        for descriptor in descriptors {
            let (kind, id) = match descriptor {
                Descriptor::None => (0, 0),
                Descriptor::SenderHosted(id) => (1, u32::from(*id)),
                Descriptor::SenderPromise(id) => (2, u32::from(*id)),
                Descriptor::ReceiverHosted(id) => (3, u32::from(*id)),
                Descriptor::ReceiverAnswer(answer) => {
                    let pointer = self.promised_answer(here + 1, answer);
                    self.set(here + 1, pointer.0);
                    (4, 0)
                }
                Descriptor::ThirdPartyHosted { .. } | Descriptor::Unknown(_) => return None,
            };
            self.set(here, kind | u64::from(id) << 32);
            here += schema::DESCRIPTOR.words();
        }
        Some(())
    }

    /// The parts of the segment, as it is to be written.
    pub(in crate::wire) fn parts<'a>(&'a self, segment: &'a [u8]) -> [&'a [u8]; 3] {
        let head = Word::words_to_bytes(&self.head[..self.replaced]);
        [head, &segment[self.replaced * WORD..], Word::words_to_bytes(&self.tail)]
    }

    /// The number of words that it adds to the segment.
    pub(in crate::wire) fn added(&self) -> usize {
        self.tail.len()
    }
}

/// A message that holds a struct of one word of data.
fn of_one_word(which: u64, data: u64) -> [Word; 4] {
    let one_word = StructSize::new(1, 0);
    [Pointer::to_struct(0, 1, schema::MESSAGE).0, which, Pointer::to_struct(2, 3, one_word).0, data].map(word)
}

#[inline]
pub(in crate::wire) fn encode_finish(finish: &Finish<Outgoing>) -> Outbound {
    // Both flags are true by default, so they are stored upside down.
    let flags = u64::from(!finish.release_result_caps) | u64::from(!finish.cancel_after_delivery) << 1;
    of_one_word(schema::MESSAGE_FINISH, u64::from(u32::from(finish.question)) | flags << 32).into()
}

#[inline]
pub(in crate::wire) fn encode_release(id: u32, count: u32) -> Outbound {
    of_one_word(schema::MESSAGE_RELEASE, u64::from(id) | u64::from(count) << 32).into()
}

fn word(number: u64) -> Word {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    capnp::word(a, b, c, d, e, f, g, h)
}

#[cfg(test)]
mod tests;
