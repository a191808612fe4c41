//! Snapshots as JSON: see [`Snapshot::to_json`](super::Snapshot::to_json).

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use super::*;

/// What can be written as JSON.
trait Json {
    fn write(&self, out: &mut String);
}

/// Writes an object of these fields.
macro_rules! object {
    ($out:expr, $($name:literal: $value:expr),* $(,)?) => {{
        let out: &mut String = $out;
        out.push('{');
        $(
            out.push_str(concat!("\"", $name, "\":"));
            Json::write(&$value, out);
            out.push(',');
        )*
        out.pop();
        out.push('}');
    }};
}

macro_rules! numbers {
    ($($ty:ty),*) => {$(
        impl Json for $ty {
            fn write(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}

numbers!(u16, u32, u64, u128, usize, bool);
numbers!(ConnectionId, QuestionId, AnswerId, ExportId, ImportId, EmbargoId);

impl Json for str {
    fn write(&self, out: &mut String) {
        out.push('"');
        for c in self.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

impl Json for String {
    fn write(&self, out: &mut String) {
        self.as_str().write(out);
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }
}

impl<T: Json> Json for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: Json> Json for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (n, item) in self.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            item.write(out);
        }
        out.push(']');
    }
}

impl Contents {
    pub(super) fn json(&self) -> String {
        let mut out = String::new();
        let taken = self.taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        object!(&mut out,
            "version": 1_u32,
            "connection": self.connection,
            "taken_ms": taken.as_millis(),
            "ended": self.ended,
            "questions": self.questions,
            "answers": self.answers,
            "exports": self.exports,
            "imports": self.imports,
            "promises": self.promises,
            "embargoes": self.embargoes,
        );
        out
    }
}

impl Json for Method {
    fn write(&self, out: &mut String) {
        let interface = format!("{:#018x}", self.interface_id);
        object!(out, "interface_id": interface, "method_id": self.method_id);
    }
}

impl Json for QaState {
    fn write(&self, out: &mut String) {
        self.name().write(out);
    }
}

impl Json for QuestionOutcome {
    fn write(&self, out: &mut String) {
        match self {
            QuestionOutcome::Results => "Results",
            QuestionOutcome::Exception => "Exception",
            QuestionOutcome::Elsewhere => "Elsewhere",
        }
        .write(out);
    }
}

impl Json for QuestionEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "method": self.method,
            "state": self.state,
            "outcome": self.outcome,
            "on_return": self.on_return,
            "is_tail_call": self.is_tail_call,
            "takes_from": self.takes_from,
            "param_exports": self.param_exports,
            "promises": self.promises,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for OnQuestionReturn {
    fn write(&self, out: &mut String) {
        match self {
            OnQuestionReturn::RespondHere => object!(out, "kind": "RespondHere"),
            OnQuestionReturn::RespondTo { connection, answer } => {
                object!(out, "kind": "RespondTo", "connection": connection, "answer": answer);
            }
        }
    }
}

impl Json for AnswerEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "method": self.method,
            "state": self.state,
            "outcome": self.outcome,
            "on_return": self.on_return,
            "on_finish": self.on_finish,
            "waits_for": self.waits_for,
            "names": self.names,
            "handed_on": self.handed_on,
            "has_pipeline": self.has_pipeline,
            "keeps_results": self.keeps_results,
            "pipeline_only": self.pipeline_only,
            "bytes": self.bytes,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for AnswerOutcome {
    fn write(&self, out: &mut String) {
        match self {
            AnswerOutcome::Results { capabilities } => {
                object!(out, "kind": "Results", "capabilities": capabilities);
            }
            AnswerOutcome::Exception { reason } => object!(out, "kind": "Exception", "reason": reason),
            AnswerOutcome::TakenFrom { question } => object!(out, "kind": "TakenFrom", "question": question),
        }
    }
}

impl Json for OnAnswerReturn {
    fn write(&self, out: &mut String) {
        object!(out, "action": self.action, "wants": self.wants);
    }
}

impl Json for OnAnswer {
    fn write(&self, out: &mut String) {
        match self {
            OnAnswer::Deliver { answer, path } => {
                object!(out, "kind": "Deliver", "answer": answer, "path": path);
            }
            OnAnswer::Resolve { path } => object!(out, "kind": "Resolve", "path": path),
            OnAnswer::Respond { question } => object!(out, "kind": "Respond", "question": question),
            OnAnswer::Keep => object!(out, "kind": "Keep"),
        }
    }
}

impl Json for HandedOn {
    fn write(&self, out: &mut String) {
        object!(out, "connection": self.connection, "question": self.question);
    }
}

impl Json for ExportEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "references": self.references,
            "destination": self.destination,
            "is_promise": self.is_promise,
            "told": self.told,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for Destination {
    fn write(&self, out: &mut String) {
        match self {
            Destination::Null => object!(out, "kind": "Null"),
            Destination::Broken { reason } => object!(out, "kind": "Broken", "reason": reason),
            Destination::Object { address } => object!(out, "kind": "Object", "address": address),
            Destination::Promise { address, waiting_calls } => {
                object!(out, "kind": "Promise", "address": address, "waiting_calls": waiting_calls);
            }
            Destination::Import { connection, import } => {
                object!(out, "kind": "Import", "connection": connection, "import": import);
            }
            Destination::RemotePromise { connection, promise } => {
                object!(out, "kind": "RemotePromise", "connection": connection, "promise": promise);
            }
            Destination::Results { connection, question, path } => object!(out,
                "kind": "Results", "connection": connection, "question": question, "path": path),
            Destination::Pipeline => object!(out, "kind": "Pipeline"),
        }
    }
}

impl Json for ImportEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "references": self.references,
            "promise": self.promise,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for ImportedPromise {
    fn write(&self, out: &mut String) {
        match self {
            ImportedPromise::Settled => object!(out, "kind": "Settled"),
            ImportedPromise::Pending { promise } => object!(out, "kind": "Pending", "promise": promise),
            ImportedPromise::Resolved { to } => object!(out, "kind": "Resolved", "to": to),
        }
    }
}

impl Json for PromiseEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "place": self.place,
            "is_called": self.is_called,
            "watchers": self.watchers,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for Place {
    fn write(&self, out: &mut String) {
        match self {
            Place::Import(import) => object!(out, "kind": "Import", "import": import),
            Place::Results { question, path } => {
                object!(out, "kind": "Results", "question": question, "path": path);
            }
        }
    }
}

impl Json for EmbargoEntry {
    fn write(&self, out: &mut String) {
        object!(out,
            "id": self.id,
            "target": self.target,
            "held_calls": self.held_calls,
            "age_ms": self.age.as_millis(),
        );
    }
}

impl Json for EmbargoTarget {
    fn write(&self, out: &mut String) {
        match self {
            EmbargoTarget::Export(to) => object!(out, "kind": "Export", "to": to),
            EmbargoTarget::Answer { answer, path } => {
                object!(out, "kind": "Answer", "answer": answer, "path": path);
            }
        }
    }
}
