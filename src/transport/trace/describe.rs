//! Messages in one line each.

use std::fmt;

use capnp::message::{ReaderOptions, SegmentArray};

use super::{parts, untyped, TraceOptions};
use crate::generated::rpc_capnp::{message, return_};

/// Which message of `rpc.capnp` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the schema's.
#[non_exhaustive]
pub enum MessageKind {
    Unimplemented,
    Abort,
    Bootstrap,
    Call,
    Return,
    Finish,
    Resolve,
    Release,
    Disembargo,
    ObsoleteSave,
    ObsoleteDelete,
    Provide,
    Accept,
    Join,
    ThirdPartyAnswer,
    /// A message of the future, with its ordinal in the union.
    Unknown(u16),
    /// No message of `rpc.capnp`.
    Malformed,
}

/// A message as it was on the wire, in short. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceMessage {
    words: usize,
    kind: MessageKind,
    question_id: Option<u32>,
    interface_id: Option<u64>,
    method_id: Option<u16>,
    /// Whether it is a `Return` of results.
    has_results: bool,
    text: String,
}

impl TraceMessage {
    /// The size of the message, without its segment table.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Which message it is.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The question that the message asks, answers or finishes, as numbered by the vat that asks it.
    pub fn question_id(&self) -> Option<u32> {
        self.question_id
    }

    /// The interface that a `Call` calls a method of.
    pub fn interface_id(&self) -> Option<u64> {
        self.interface_id
    }

    /// The method that a `Call` calls.
    pub fn method_id(&self) -> Option<u16> {
        self.method_id
    }

    pub(super) fn new(segments: &[&[u8]], options: TraceOptions) -> Self {
        let words = segments.iter().map(|segment| segment.len() / 8).sum();
        let reader = capnp::message::Reader::new(SegmentArray::new(segments), ReaderOptions::new());
        let mut described = TraceMessage {
            words,
            kind: MessageKind::Malformed,
            question_id: None,
            interface_id: None,
            method_id: None,
            has_results: false,
            text: String::new(),
        };
        described.text = match reader.get_root().and_then(|root| described.fill(root)) {
            Ok(text) => text,
            Err(_) if matches!(described.kind, MessageKind::Unknown(_)) => String::new(),
            Err(e) if described.kind == MessageKind::Malformed => format!(": {e}"),
            Err(e) => format!(", malformed: {e}"),
        };
        if options.payloads {
            described.append_payload(segments);
        }
        described
    }

    /// Sets the kind and the IDs; gives the text that comes after them.
    fn fill(&mut self, root: message::Reader<'_>) -> capnp::Result<String> {
        self.kind = kind_of(root);
        let mut text = String::new();
        let question = match root.which()? {
            message::Unimplemented(m) => {
                text = format!(" {:?}", kind_of(m?));
                None
            }
            message::Abort(m) => {
                text = parts::exception(m?)?;
                None
            }
            message::Bootstrap(m) => Some(m?.get_question_id()),
            message::Call(m) => {
                let m = m?;
                self.interface_id = Some(m.get_interface_id());
                self.method_id = Some(m.get_method_id());
                text = parts::call(m)?;
                Some(m.get_question_id())
            }
            message::Return(m) => {
                let m = m?;
                text = parts::outcome(m)?;
                self.has_results = matches!(m.which(), Ok(return_::Results(_)));
                Some(m.get_answer_id())
            }
            message::Finish(m) => {
                let m = m?;
                text = parts::finish(m);
                Some(m.get_question_id())
            }
            message::Resolve(m) => {
                text = parts::resolution(m?)?;
                None
            }
            message::Release(m) => {
                let m = m?;
                text = format!(" of capability {}, {} references", m.get_id(), m.get_reference_count());
                None
            }
            message::Disembargo(m) => {
                text = parts::disembargo(m?)?;
                None
            }
            message::Provide(m) => Some(m?.get_question_id()),
            message::Accept(m) => Some(m?.get_question_id()),
            message::Join(m) => Some(m?.get_question_id()),
            message::ThirdPartyAnswer(m) => Some(m?.get_answer_id()),
            message::ObsoleteSave(_) | message::ObsoleteDelete(_) => None,
        };
        self.question_id = question;
        Ok(text)
    }

    fn append_payload(&mut self, segments: &[&[u8]]) {
        // Where the schema puts the pointer to the content, from the call or return.
        let path: &[usize] = match self.kind {
            MessageKind::Call => &[1, 0],
            MessageKind::Return if self.has_results => &[0, 0],
            _ => return,
        };
        self.text += ", content ";
        self.text += &untyped::show(segments, path);
    }
}

impl fmt::Display for TraceMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(question) = self.question_id {
            write!(f, " question {question}")?;
        }
        write!(f, "{} ({} words)", self.text, self.words)
    }
}

fn kind_of(root: message::Reader<'_>) -> MessageKind {
    match root.which() {
        Err(capnp::NotInSchema(ordinal)) => MessageKind::Unknown(ordinal),
        Ok(which) => match which {
            message::Unimplemented(_) => MessageKind::Unimplemented,
            message::Abort(_) => MessageKind::Abort,
            message::Bootstrap(_) => MessageKind::Bootstrap,
            message::Call(_) => MessageKind::Call,
            message::Return(_) => MessageKind::Return,
            message::Finish(_) => MessageKind::Finish,
            message::Resolve(_) => MessageKind::Resolve,
            message::Release(_) => MessageKind::Release,
            message::Disembargo(_) => MessageKind::Disembargo,
            message::ObsoleteSave(_) => MessageKind::ObsoleteSave,
            message::ObsoleteDelete(_) => MessageKind::ObsoleteDelete,
            message::Provide(_) => MessageKind::Provide,
            message::Accept(_) => MessageKind::Accept,
            message::Join(_) => MessageKind::Join,
            message::ThirdPartyAnswer(_) => MessageKind::ThirdPartyAnswer,
        },
    }
}
