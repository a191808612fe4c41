//! The raw peer's own account of both sides: questions asked and ended, references given and given back.
//!
//! Every message, either way, is entered; one that no well-behaved vat sends is refused. What the tables of
//! our side hold must agree with it at the end of each test.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Call, Cap, Context, Msg, Outcome, Return, Target};

/// Questions of either side with this bit are asked for pipelining alone: a Return need not come.
const PIPELINE_BIT: u32 = 1 << 31;

/// What one side has asked and given.
#[derive(Debug, Default)]
struct Side {
    questions: BTreeMap<u32, Question>,
    /// References to its capabilities that the other side holds.
    given: BTreeMap<u32, u32>,
    /// Disembargoes that have not come back.
    embargoes: BTreeSet<u32>,
}

#[derive(Debug, Default)]
struct Question {
    /// What the params gave to the callee.
    params: Vec<u32>,
    /// What the results gave, once returned.
    returned: Option<Vec<u32>>,
    /// Whether the Finish gave that back, once finished.
    finished: Option<bool>,
}

/// The account of a connection.
#[derive(Debug, Default)]
pub struct Account {
    peer: Side,
    vat: Side,
}

impl Account {
    /// Enters a message that the raw peer sent.
    pub fn sent(&mut self, message: &Msg) {
        enter(&mut self.peer, &mut self.vat, message).unwrap_or_else(|why| panic!("sent {message:?}: {why}"));
    }

    /// Enters a message that our side sent.
    pub fn received(&mut self, message: &Msg) -> Result<(), String> {
        enter(&mut self.vat, &mut self.peer, message)
    }

    /// Questions of the peer's that were returned and are not finished.
    pub fn returned(&self) -> Vec<u32> {
        let returned = self.peer.questions.iter().filter(|(_, q)| q.returned.is_some());
        returned.map(|(id, _)| *id).collect()
    }

    /// Questions of the peer's that it has not finished.
    #[allow(dead_code, reason = "the property tests use it")]
    pub fn unfinished(&self) -> Vec<u32> {
        let unfinished = self.peer.questions.iter().filter(|(_, q)| q.finished.is_none());
        unfinished.map(|(id, _)| *id).collect()
    }

    /// The IDs of the peer's questions that are in use.
    #[allow(dead_code, reason = "the property tests use it")]
    pub fn asked(&self) -> Vec<u32> {
        self.peer.questions.keys().copied().collect()
    }

    /// Whether the peer still holds all that the params of a question of our side's gave to it, beside what is in
    /// results that it has not finished.
    #[allow(dead_code, reason = "the property tests use it")]
    pub fn holds_params(&self, question: u32) -> bool {
        let params = self.vat.questions.get(&question).map_or(&[][..], |question| &*question.params);
        let times = |id: &u32| params.iter().filter(|param| *param == id).count();
        let held: BTreeMap<u32, u32> = self.held().into_iter().collect();
        params.iter().all(|id| held.get(id).is_some_and(|held| *held as usize >= times(id)))
    }

    /// Capabilities of our side's that the peer holds beside those in results it has not finished.
    pub fn held(&self) -> Vec<(u32, u32)> {
        let mut held = self.vat.given.clone();
        for id in self.peer.questions.values().flat_map(|q| q.returned.iter().flatten()) {
            *held.get_mut(id).expect("given with the results") -= 1;
        }
        held.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// References to a capability of the peer's that our side holds.
    pub fn given(&self, id: u32) -> u32 {
        self.peer.given.get(&id).copied().unwrap_or(0)
    }

    /// What is left over, if anything is.
    pub fn unbalanced(&self) -> Option<String> {
        let is_empty = |s: &Side| s.questions.is_empty() && s.given.is_empty() && s.embargoes.is_empty();
        (!is_empty(&self.peer) || !is_empty(&self.vat)).then(|| format!("{self:#?}"))
    }
}

fn enter(from: &mut Side, to: &mut Side, message: &Msg) -> Result<(), String> {
    match message {
        Msg::Abort(_) | Msg::Other(_) => Ok(()),
        Msg::Unimplemented(inner) => bounced(from, to, inner),
        Msg::Bootstrap(question) => ask(from, *question, Vec::new()),
        Msg::Call(call) => {
            check_target(from, to, &call.target)?;
            let params = give(from, to, &call.params.caps)?;
            let Call { question, .. } = call;
            ask(from, *question, params)
        }
        Msg::Return(ret) => enter_return(from, to, ret),
        Msg::Finish { question, release, .. } => {
            let entry = from.questions.get_mut(question).ok_or("no such question")?;
            if entry.finished.is_some() {
                return Err("finished twice".into());
            }
            entry.finished = Some(*release);
            let returned = entry.returned.take();
            if returned.is_some() || question & PIPELINE_BIT != 0 {
                from.questions.remove(question);
            }
            let back = returned.filter(|_| *release).unwrap_or_default();
            back.iter().try_for_each(|id| take_back(to, *id, 1))
        }
        Msg::Resolve { to: Ok(cap), .. } => give(from, to, std::slice::from_ref(cap)).map(drop),
        Msg::Resolve { .. } => Ok(()),
        Msg::Release { id, count } => take_back(to, *id, *count),
        Msg::Disembargo { target, context } => match context {
            Context::Sender(id) => {
                check_target(from, to, target)?;
                from.embargoes.insert(*id).then_some(()).ok_or_else(|| "embargo ID in use".into())
            }
            Context::Receiver(id) => {
                to.embargoes.remove(id).then_some(()).ok_or_else(|| "no such embargo".into())
            }
        },
    }
}

fn enter_return(from: &mut Side, to: &mut Side, ret: &Return) -> Result<(), String> {
    let caps = match &ret.outcome {
        Outcome::Results(results) => &*results.caps,
        _ => &[],
    };
    let results = give(from, to, caps)?;
    let Some(question) = to.questions.get_mut(&ret.answer) else {
        // It was finished; what came was told to be released before.
        let known = ret.answer & PIPELINE_BIT != 0;
        results.iter().try_for_each(|id| take_back(from, *id, 1))?;
        return known.then_some(()).ok_or_else(|| "no such question".into());
    };
    if question.returned.is_some() {
        return Err("returned twice".into());
    }
    let params = std::mem::take(&mut question.params);
    let finished = question.finished;
    if finished.is_none() && !ret.no_finish {
        question.returned = Some(results);
    } else {
        to.questions.remove(&ret.answer);
        if finished == Some(true) {
            results.iter().try_for_each(|id| take_back(from, *id, 1))?;
        } else if !results.is_empty() && ret.no_finish {
            return Err("noFinishNeeded with capabilities".into());
        }
    }
    if ret.release_params {
        params.iter().try_for_each(|id| take_back(to, *id, 1))?;
    }
    Ok(())
}

/// `from` does not implement a message of `to`.
fn bounced(_from: &mut Side, to: &mut Side, message: &Msg) -> Result<(), String> {
    match message {
        Msg::Call(Call { question, .. }) | Msg::Bootstrap(question) => {
            let question = to.questions.remove(question).ok_or("no such question")?;
            question.params.iter().try_for_each(|id| take_back(to, *id, 1))
        }
        Msg::Resolve { to: Ok(cap), .. } => cap.counts().map_or(Ok(()), |id| take_back(to, id, 1)),
        Msg::Disembargo { context: Context::Sender(id), .. } => {
            to.embargoes.remove(id).then_some(()).ok_or_else(|| "no such embargo".into())
        }
        _ => Ok(()),
    }
}

fn ask(from: &mut Side, question: u32, params: Vec<u32>) -> Result<(), String> {
    let asked = Question { params, ..Question::default() };
    match from.questions.insert(question, asked) {
        None => Ok(()),
        Some(_) => Err("question ID in use".into()),
    }
}

/// Counts what the descriptors give; what they name of the other side's must be there.
fn give(from: &mut Side, to: &Side, caps: &[Cap]) -> Result<Vec<u32>, String> {
    for cap in caps {
        match cap {
            Cap::Yours(id) => check_target(from, to, &Target::Import(*id))?,
            Cap::YourAnswer(question, _) => check_target(from, to, &Target::Answer(*question, Vec::new()))?,
            _ => {}
        }
    }
    let given: Vec<u32> = caps.iter().filter_map(Cap::counts).collect();
    for id in &given {
        *from.given.entry(*id).or_insert(0) += 1;
    }
    Ok(given)
}

fn take_back(owner: &mut Side, id: u32, count: u32) -> Result<(), String> {
    let given = owner.given.get_mut(&id).ok_or_else(|| format!("capability {id} is not held"))?;
    *given = given.checked_sub(count).ok_or_else(|| format!("capability {id}: released below zero"))?;
    if *given == 0 {
        owner.given.remove(&id);
    }
    Ok(())
}

fn check_target(from: &Side, to: &Side, target: &Target) -> Result<(), String> {
    match target {
        Target::Import(id) if to.given.contains_key(id) => Ok(()),
        Target::Import(id) => Err(format!("capability {id} is not held")),
        Target::Answer(question, _) => match from.questions.get(question) {
            Some(question) if question.finished.is_none() => Ok(()),
            _ => Err(format!("question {question} is over")),
        },
    }
}
