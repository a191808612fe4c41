//! Calls and Returns around their contents, word by word.
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
//! pointers inside the content stay as they are.
//!
//! A Finish and a Release are four words: the root, `Message`, and one word of data.
//! ```

use capnp::any_pointer;
use capnp::private::layout::{PointerBuilder, PointerReader, StructSize};
use capnp::traits::{FromPointerBuilder, FromPointerReader};
use capnp::Word;

use super::content::PayloadKind;
use super::message::{Descriptor, Finish, Outgoing, PromisedAnswer, Target};
use crate::error::Exception;

/// The words before a content: see Note [Envelopes].
const CALL_WORDS: usize = 13;
const RETURN_WORDS: usize = 8;

impl PayloadKind {
    /// How many words go before a content at this place.
    pub(super) const fn words_before(self) -> usize {
        match self {
            PayloadKind::CallParams => CALL_WORDS,
            PayloadKind::ReturnResults => RETURN_WORDS,
        }
    }

    const fn size(self) -> StructSize {
        // Without the root pointer, and the two of the payload.
        StructSize { data: self.words_before() as u16 - 3, pointers: 2 }
    }
}

/// The root of a message that a call's params are built in.
pub(super) struct InCall<P>(pub(super) P);

/// The root of a message that a return's results are built in.
pub(super) struct InReturn<P>(pub(super) P);

macro_rules! root {
    ($name:ident, $place:expr) => {
        impl<'a> FromPointerBuilder<'a> for $name<any_pointer::Builder<'a>> {
            fn init_pointer(builder: PointerBuilder<'a>, _: u32) -> Self {
                $name(any_pointer::Builder::new(builder.init_struct($place.size()).get_pointer_field(0)))
            }

            fn get_from_pointer(
                builder: PointerBuilder<'a>,
                default: Option<&'a [Word]>,
            ) -> capnp::Result<Self> {
                let envelope = builder.get_struct($place.size(), default)?;
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

/// What is written before and behind the content in the first segment of a message.
pub(crate) struct Envelope {
    head: [Word; CALL_WORDS],
    /// How many words of the first segment the head takes the place of.
    replaced: usize,
    tail: Vec<Word>,
    /// Where the tail begins, in words.
    tail_at: usize,
}

pub(super) const STRUCT: u64 = 0;
pub(super) const LIST: u64 = 1;
pub(super) const LIST_OF_STRUCTS: u64 = 7;

/// The word that tells the sizes of a struct: words of data, pointers.
const fn sizes(data: u64, pointers: u64) -> u64 {
    data << 32 | pointers << 48
}

pub(super) const MESSAGE: u64 = sizes(1, 1);
pub(super) const CALL: u64 = sizes(3, 3);
pub(super) const RETURN: u64 = sizes(2, 1);
pub(super) const TARGET: u64 = sizes(1, 1);
pub(super) const PAYLOAD: u64 = sizes(0, 2);
pub(super) const PROMISED_ANSWER: u64 = sizes(1, 1);
pub(super) const OP: u64 = sizes(1, 0);
pub(super) const DESCRIPTOR: u64 = sizes(1, 1);

/// The low half of a pointer: its kind, and the way from behind the word `at` to the word `to`.
const fn way(at: usize, to: usize, kind: u64) -> u64 {
    ((to - at - 1) as u64) << 2 | kind
}

/// The fields of a `Call` that are numbers.
pub(super) struct CallFields {
    pub(super) question: u32,
    pub(super) interface_id: u64,
    pub(super) method_id: u16,
    pub(super) keep_results: bool,
    pub(super) no_promise_pipelining: bool,
    pub(super) only_promise_pipeline: bool,
}

/// The fields of a `Return` with results that are numbers.
pub(super) struct ReturnFields {
    pub(super) answer: u32,
    pub(super) release_param_caps: bool,
    pub(super) no_finish_needed: bool,
}

impl Envelope {
    /// A `Call`, around the content in a first segment.
    pub(super) fn call(
        segment: &[u8],
        fields: &CallFields,
        target: &Target<Outgoing>,
        descriptors: &[Descriptor<Outgoing>],
    ) -> Result<Self, Exception> {
        let mut envelope = Envelope::new(segment, CALL_WORDS);
        let (target, promised) = match target {
            Target::ImportedCap(id) => (u64::from(u32::from(*id)), 0),
            Target::PromisedAnswer(answer) => (1 << 32, envelope.promised_answer(10, answer)),
        };
        let CallFields { question, interface_id, method_id, .. } = *fields;
        let numbers = u64::from(question) | u64::from(method_id) << 32 | u64::from(fields.keep_results) << 48;
        let hints =
            u64::from(fields.no_promise_pipelining) << 1 | u64::from(fields.only_promise_pipeline) << 2;
        envelope.head[..11].copy_from_slice(
            &[
                way(0, 1, STRUCT) | MESSAGE,
                2,
                way(2, 3, STRUCT) | CALL,
                numbers,
                interface_id,
                hints,
                way(6, 9, STRUCT) | TARGET,
                way(7, 11, STRUCT) | PAYLOAD,
                0,
                target,
                promised,
            ]
            .map(word),
        );
        envelope.cap_table(descriptors)?;
        Ok(envelope)
    }

    /// A `Return` with results, around the content in a first segment.
    pub(super) fn results(
        segment: &[u8],
        fields: &ReturnFields,
        descriptors: &[Descriptor<Outgoing>],
    ) -> Result<Self, Exception> {
        let mut envelope = Envelope::new(segment, RETURN_WORDS);
        // `releaseParamCaps` is true by default, so it is stored upside down.
        let flags = u64::from(!fields.release_param_caps) << 32 | u64::from(fields.no_finish_needed) << 33;
        envelope.head[..6].copy_from_slice(
            &[
                way(0, 1, STRUCT) | MESSAGE,
                3,
                way(2, 3, STRUCT) | RETURN,
                u64::from(fields.answer) | flags,
                0,
                way(5, 6, STRUCT) | PAYLOAD,
            ]
            .map(word),
        );
        envelope.cap_table(descriptors)?;
        Ok(envelope)
    }

    fn new(segment: &[u8], replaced: usize) -> Self {
        let mut head = [word(0); CALL_WORDS];
        let content = replaced - 2;
        head[content] = word(word_at(segment, content));
        Envelope { head, replaced, tail: Vec::new(), tail_at: segment.len() / WORD }
    }

    /// Appends words; tells where they are.
    fn append(&mut self, words: impl IntoIterator<Item = u64>) -> usize {
        let at = self.tail_at + self.tail.len();
        self.tail.extend(words.into_iter().map(word));
        at
    }

    fn set(&mut self, at: usize, to: u64) {
        self.tail[at - self.tail_at] = word(to);
    }

    /// A list of structs is about to be appended: the pointer to it, from the word `at`.
    fn list(&mut self, at: usize, len: usize, size: u64, words: usize) -> u64 {
        let list = self.append([(len as u64) << 2 | size]);
        way(at, list, LIST) | LIST_OF_STRUCTS << 32 | (words as u64) << 35
    }

    /// Appends a `PromisedAnswer`; gives the pointer to it, from the word `at`.
    fn promised_answer<Q: Copy + Into<u32>>(&mut self, at: usize, answer: &PromisedAnswer<Q>) -> u64 {
        let here = self.append([u64::from(answer.question.into()), 0]);
        if !answer.path.is_empty() {
            let ops = answer.path.len();
            let list = self.list(here + 1, ops, OP, ops);
            self.set(here + 1, list);
            self.append(answer.path.iter().map(|&field| 1 | u64::from(field) << 16));
        }
        way(at, here, STRUCT) | PROMISED_ANSWER
    }

    /// Appends the descriptors of the capabilities in the content.
    fn cap_table(&mut self, descriptors: &[Descriptor<Outgoing>]) -> Result<(), Exception> {
        if descriptors.is_empty() {
            return Ok(());
        }
        let at = self.replaced - 1;
        self.head[at] = word(self.list(at, descriptors.len(), DESCRIPTOR, 2 * descriptors.len()));
        let mut here = self.append(std::iter::repeat_n(0, 2 * descriptors.len()));
        for descriptor in descriptors {
            let (kind, id) = match descriptor {
                Descriptor::None => (0, 0),
                Descriptor::SenderHosted(id) => (1, u32::from(*id)),
                Descriptor::SenderPromise(id) => (2, u32::from(*id)),
                Descriptor::ReceiverHosted(id) => (3, u32::from(*id)),
                Descriptor::ReceiverAnswer(answer) => {
                    let pointer = self.promised_answer(here + 1, answer);
                    self.set(here + 1, pointer);
                    (4, 0)
                }
                Descriptor::ThirdPartyHosted { .. } | Descriptor::Unknown(_) => {
                    return Err(super::encode::never_sent("a descriptor of a third party or of unknown kind"))
                }
            };
            self.set(here, kind | u64::from(id) << 32);
            here += 2;
        }
        Ok(())
    }

    /// The parts of the segment, as it is to be written.
    pub(super) fn parts<'a>(&'a self, segment: &'a [u8]) -> [&'a [u8]; 3] {
        let head = Word::words_to_bytes(&self.head[..self.replaced]);
        [head, &segment[self.replaced * WORD..], Word::words_to_bytes(&self.tail)]
    }

    /// How many words it adds to the segment.
    pub(super) fn added(&self) -> usize {
        self.tail.len()
    }
}

/// A message that holds a struct of one word of data: the pointer to it is `Message`'s.
fn of_one_word(which: u64, data: u64) -> [Word; 4] {
    [way(0, 1, STRUCT) | MESSAGE, which, way(2, 3, STRUCT) | sizes(1, 0), data].map(word)
}

/// A `Finish`.
pub(super) fn finish(finish: &Finish<Outgoing>) -> [Word; 4] {
    // Both flags are true by default, so they are stored upside down.
    let flags = u64::from(!finish.release_result_caps) | u64::from(!finish.cancel_after_delivery) << 1;
    of_one_word(4, u64::from(u32::from(finish.question)) | flags << 32)
}

/// A `Release`.
pub(super) fn release(id: u32, count: u32) -> [Word; 4] {
    of_one_word(6, u64::from(id) | u64::from(count) << 32)
}

fn word(number: u64) -> Word {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    capnp::word(a, b, c, d, e, f, g, h)
}

const WORD: usize = 8;

fn word_at(segment: &[u8], at: usize) -> u64 {
    let bytes = segment.get(at * WORD..).and_then(|bytes| bytes.first_chunk());
    u64::from_le_bytes(*bytes.expect("the content was built in an envelope"))
}
