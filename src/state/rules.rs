//! Rules that a message can break half-way, looked at before it changes anything. See Note [Rollback].

use std::collections::BTreeMap;

use super::answers::Kept;
use super::effects::Destination;
use super::imports::Import;
use super::outcome::Returned;
use super::questions::Question;
use super::State;
use crate::cap::Capability;
use crate::error::ProtocolError;
use crate::id::{AnswerId, ExportId, ImportId};
use crate::wire::message::{Descriptor, Incoming, Outcome, Return};

impl State {
    /// Whether all that descriptors name is there. `begun` is the answer that their message begins.
    pub(super) fn check_descriptors(
        &self,
        descriptors: &[Descriptor<Incoming>],
        begun: Option<AnswerId>,
    ) -> Result<(), ProtocolError> {
        if descriptors.is_empty() {
            return Ok(());
        }
        for descriptor in descriptors {
            match descriptor {
                Descriptor::None | Descriptor::Unknown(_) => {}
                Descriptor::SenderHosted(id) | Descriptor::ThirdPartyHosted { vine: id } => {
                    self.check_import(*id, false, descriptors)?;
                }
                Descriptor::SenderPromise(id) => self.check_import(*id, true, descriptors)?,
                Descriptor::ReceiverHosted(id) => {
                    self.exports.get(*id).ok_or(ProtocolError::UnknownExport(*id))?;
                }
                Descriptor::ReceiverAnswer(promised) => {
                    let id = promised.question;
                    let here = begun == Some(id) || self.answers.contains_key(&id);
                    if !here && self.was_in_answer(id).is_none() {
                        return Err(ProtocolError::UnknownPromisedAnswer(id));
                    }
                }
            }
        }
        check_new_imports(descriptors, |id| self.imports.contains_key(&id))
    }

    /// Whether an import may be named once more, and as a promise, if it is.
    fn check_import(
        &self,
        id: ImportId,
        promise: bool,
        descriptors: &[Descriptor<Incoming>],
    ) -> Result<(), ProtocolError> {
        let Some(import) = self.imports.get(&id) else { return Ok(()) };
        if promise && import.promise.is_none() {
            return Err(ProtocolError::PromiseMismatch(id));
        }
        let left = (u32::MAX - import.references) as usize;
        if left < descriptors.len() && left < descriptors.iter().filter(|d| import_of(d) == Some(id)).count()
        {
            let reason = format!("more than {} references to one import", u32::MAX);
            return Err(ProtocolError::Limit(reason));
        }
        Ok(())
    }

    /// Whether a descriptor stands for the null capability, as far as is known.
    fn is_null(&self, descriptor: &Descriptor<Incoming>) -> bool {
        let to = match descriptor {
            Descriptor::None => return true,
            Descriptor::Unknown(_) => return false,
            Descriptor::SenderHosted(id)
            | Descriptor::SenderPromise(id)
            | Descriptor::ThirdPartyHosted { vine: id } => {
                let resolved = self.imports.get(id).and_then(Import::resolved);
                return resolved.is_some_and(|client| client.is_null());
            }
            Descriptor::ReceiverHosted(id) => self.exports.get(*id).map(|export| export.destination()),
            Descriptor::ReceiverAnswer(promised) => match self.answers.get(&promised.question) {
                Some(answer) => answer.returned().map(|returned| returned.destination(&promised.path)),
                None => return self.was_in_answer(promised.question).is_some_and(|was| was.is_null()),
            },
        };
        matches!(to, Some(Destination::Client(client)) if client.is_null())
    }

    /// Whether the peer may give up these references, one for each time that an export is named.
    pub(super) fn check_release(&self, ids: &[ExportId]) -> Result<(), ProtocolError> {
        let sorted;
        let ids = match ids {
            [] | [_] => ids,
            _ => {
                sorted = sorted_copy(ids);
                &sorted
            }
        };
        for same in ids.chunk_by(|a, b| a == b) {
            let held = self.exports.get(same[0]).map_or(0, |export| export.references);
            if (held as usize) < same.len() {
                return Err(ProtocolError::UnknownExport(same[0]));
            }
        }
        Ok(())
    }

    /// Whether a Return may come for a question, and what it brings is there.
    pub(super) fn check_return(
        &self,
        question: &Question,
        ret: &Return<Incoming>,
    ) -> Result<(), ProtocolError> {
        let id = ret.answer;
        if question.entry.has_returned() || question.taking.is_some() {
            return Err(ProtocolError::DuplicateReturn(id));
        }
        if ret.release_param_caps {
            self.check_release(&question.param_exports)?;
        }
        if question.entry.has_finished() {
            // What it brings was never ours.
            return Ok(());
        }
        match &ret.outcome {
            Outcome::Results(_) if question.tail => Err(ProtocolError::ResultsNotKept(id)),
            Outcome::Results(results) => {
                self.check_descriptors(&results.descriptors, None)?;
                match ret.no_finish_needed && results.descriptors.iter().any(|d| !self.is_null(d)) {
                    true => Err(ProtocolError::NoFinishWithCapabilities(id)),
                    false => Ok(()),
                }
            }
            Outcome::ResultsSentElsewhere if !question.tail => Err(ProtocolError::ResultsSentElsewhere(id)),
            Outcome::TakeFromOtherQuestion(kept) => self.check_take(*kept),
            _ => Ok(()),
        }
    }

    /// Whether there are results that the peer wanted kept, and has not taken yet; or were to be, of a call that was refused.
    fn check_take(&self, id: AnswerId) -> Result<(), ProtocolError> {
        let answer = self.answers.get(&id);
        if answer.is_none() && self.may_be_refused(id) {
            return Ok(());
        }
        let kept = answer.filter(|answer| answer.kept == Some(Kept::Untaken));
        match kept.map(|answer| answer.returned()) {
            None | Some(Some(Returned::Tail(_))) => Err(ProtocolError::NothingToTake(id)),
            Some(_) => Ok(()),
        }
    }
}

/// Whether a message that brings an import as a settled capability names it as a promise further on.
fn check_new_imports(
    descriptors: &[Descriptor<Incoming>],
    is_known: impl Fn(ImportId) -> bool,
) -> Result<(), ProtocolError> {
    let is_promise = |d: &Descriptor<Incoming>| matches!(d, Descriptor::SenderPromise(_));
    if descriptors.len() < 2 || !descriptors.iter().any(is_promise) {
        return Ok(());
    }
    let mut first_as_promise = BTreeMap::new();
    for descriptor in descriptors {
        let Some(id) = import_of(descriptor).filter(|id| !is_known(*id)) else { continue };
        let first = *first_as_promise.entry(id).or_insert(is_promise(descriptor));
        if is_promise(descriptor) && !first {
            return Err(ProtocolError::PromiseMismatch(id));
        }
    }
    Ok(())
}

pub(super) fn import_of(descriptor: &Descriptor<Incoming>) -> Option<ImportId> {
    match descriptor {
        Descriptor::SenderHosted(id)
        | Descriptor::SenderPromise(id)
        | Descriptor::ThirdPartyHosted { vine: id } => Some(*id),
        _ => None,
    }
}

fn sorted_copy(ids: &[ExportId]) -> Vec<ExportId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}
