//! Snapshots as text for people, one entry a line.

use std::fmt;

use super::*;

impl QaState {
    pub(super) fn name(self) -> &'static str {
        match self {
            QaState::NewQA => "NewQA",
            QaState::HaveReturn => "HaveReturn",
            QaState::HaveFinish => "HaveFinish",
        }
    }
}

impl Contents {
    pub(super) fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.connection)?;
        if let Some(why) = &self.ended {
            write!(f, ", ended: {why}")?;
        }
        writeln!(f)?;
        lines(f, &self.questions, |entry| entry.age)?;
        lines(f, &self.answers, |entry| entry.age)?;
        lines(f, &self.exports, |entry| entry.age)?;
        lines(f, &self.imports, |entry| entry.age)?;
        lines(f, &self.promises, |entry| entry.age)?;
        lines(f, &self.embargoes, |entry| entry.age)
    }
}

/// A line for each entry, with its age if the format is `{:#}`.
fn lines<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    entries: &[T],
    age: impl Fn(&T) -> Duration,
) -> fmt::Result {
    for entry in entries {
        write!(f, "{entry}")?;
        if f.alternate() {
            write!(f, ", {} ms old", age(entry).as_millis())?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Things one after the other, with commas between them.
struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The way from the root of some results to a capability: nothing for the root itself.
struct At<'a>(&'a [u16]);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|field| write!(f, ".{field}"))
    }
}

/// What an entry is called for.
struct Called<'a>(&'a Option<Method>, &'a str);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(method) => write!(f, "{method}"),
            None => f.write_str(self.1),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "method {} of {:#x}", self.method_id, self.interface_id)
    }
}

impl fmt::Display for QaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for QuestionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "question {}: {}, {}", self.id, self.state, Called(&self.method, "bootstrap"))?;
        if let Some(outcome) = &self.outcome {
            let outcome = match outcome {
                QuestionOutcome::Results => "results",
                QuestionOutcome::Exception => "exception",
                QuestionOutcome::Elsewhere => "results that stay in the peer",
            };
            write!(f, ", {outcome}")?;
        }
        if self.is_tail_call {
            f.write_str(", tail call")?;
        }
        if let Some(answer) = self.takes_from {
            write!(f, ", takes the results of answer {answer}")?;
        }
        if !self.on_return.is_empty() {
            write!(f, ", on Return: {}", List(&self.on_return))?;
        }
        if !self.param_exports.is_empty() {
            write!(f, ", params hold exports {}", List(&self.param_exports))?;
        }
        if !self.promises.is_empty() {
            write!(f, ", results hold promises {}", List(&self.promises))?;
        }
        Ok(())
    }
}

impl fmt::Display for OnQuestionReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnQuestionReturn::RespondHere => f.write_str("respond to a local caller"),
            OnQuestionReturn::RespondTo { connection, answer } => {
                write!(f, "return answer {answer} of connection {connection}")
            }
        }
    }
}

impl fmt::Display for AnswerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = Called(&self.method, "bootstrap or refused call");
        write!(f, "answer {}: {}, {called}", self.id, self.state)?;
        if let Some(outcome) = &self.outcome {
            write!(f, ", {outcome}")?;
        }
        if let Some(answer) = self.waits_for {
            write!(f, ", waits for answer {answer}")?;
        }
        if !self.names.is_empty() {
            write!(f, ", params name answers {}", List(&self.names))?;
        }
        if let Some(HandedOn { connection, question }) = self.handed_on {
            write!(f, ", handed on as question {question} of connection {connection}")?;
        }
        let flags = [
            (self.has_pipeline, "pipeline known"),
            (self.keeps_results, "results stay here"),
            (self.pipeline_only, "no Return"),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
            write!(f, ", {flag}")?;
        }
        if !self.on_return.is_empty() {
            write!(f, ", on Return: {}", List(&self.on_return))?;
        }
        if !self.on_finish.is_empty() {
            write!(f, ", on Finish: release exports {}", List(&self.on_finish))?;
        }
        Ok(())
    }
}

impl fmt::Display for AnswerOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerOutcome::Results { capabilities } => write!(f, "results with {capabilities} capabilities"),
            AnswerOutcome::Exception { reason } => write!(f, "exception ({reason})"),
            AnswerOutcome::TakenFrom { question } => write!(f, "taken from question {question}"),
        }
    }
}

impl fmt::Display for OnAnswerReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            OnAnswer::Deliver { answer, path } => write!(f, "deliver call {answer} to results{}", At(path)),
            OnAnswer::Resolve { path } => write!(f, "resolve a promise to results{}", At(path)),
            OnAnswer::Respond { question } => write!(f, "answer question {question}"),
            OnAnswer::Keep => f.write_str("nothing (an embargo)"),
        }?;
        f.write_str(if self.wants { "" } else { " (not wanted)" })
    }
}

impl fmt::Display for ExportEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_promise { "promise, " } else { "" };
        write!(f, "export {}: references {}, {kind}{}", self.id, self.references, self.destination)?;
        match &self.told {
            Some(told) => write!(f, ", told to be {told}"),
            None => Ok(()),
        }
    }
}

/// Without addresses: the text is the same in each run of a program.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Null => f.write_str("null"),
            Destination::Broken { reason } => write!(f, "broken ({reason})"),
            Destination::Object { .. } => f.write_str("object"),
            Destination::Promise { waiting_calls, .. } => {
                write!(f, "local promise with {waiting_calls} calls")
            }
            Destination::Import { connection, import } => {
                write!(f, "import {import} of connection {connection}")
            }
            Destination::RemotePromise { connection, promise } => {
                write!(f, "promise {promise} of connection {connection}")
            }
            Destination::Results { connection, question, path } => {
                write!(f, "results{} of question {question} of connection {connection}", At(path))
            }
            Destination::Pipeline => f.write_str("results of a method"),
        }
    }
}

impl fmt::Display for ImportEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "import {}: references {}, ", self.id, self.references)?;
        match &self.promise {
            ImportedPromise::Settled => f.write_str("settled"),
            ImportedPromise::Pending { promise } => write!(f, "promise {promise}"),
            ImportedPromise::Resolved { to } => write!(f, "promise, resolved to {to}"),
        }
    }
}

impl fmt::Display for PromiseEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}: ", self.id)?;
        match &self.place {
            Place::Import(import) => write!(f, "import {import}"),
            Place::Results { question, path } => write!(f, "results{} of question {question}", At(path)),
        }?;
        if self.is_called {
            f.write_str(", called")?;
        }
        match self.watchers {
            0 => Ok(()),
            watchers => write!(f, ", watchers {watchers}"),
        }
    }
}

impl fmt::Display for EmbargoEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "embargo {}: calls held {}, for ", self.id, self.held_calls)?;
        match &self.target {
            EmbargoTarget::Export(to) => write!(f, "{to}"),
            EmbargoTarget::Answer { answer, path } => write!(f, "results{} of answer {answer}", At(path)),
        }
    }
}
