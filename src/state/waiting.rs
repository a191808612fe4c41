//! What waits for an answer of ours.

use im::OrdMap;

use super::answers::OnReturn;
use super::effects::{Callback, Effects};
use super::entry::Entry;
use super::outcome::Returned;
use super::State;
use crate::cap::client::Client;
use crate::cap::port::{AnswerKey, Awaited, Ticket};
use crate::id::{AnswerId, QuestionId};
use crate::promise::cancel;

/// What is to be done when an answer is there, in order. Each entry can leave by its ticket, at a cost that does
/// not grow with the number of entries (but for a logarithm).
///
/// ```text
/// Note [Wanted answers]
/// =====================
/// The peer's Finish says that the peer does not want a call's results. Others may: the entries of `Waiting` that
/// *want* the answer. As long as there is one, the call goes on; when the last has left, the call is canceled.
///
/// - A call that is pipelined on the answer wants it until the call is delivered or canceled.
/// - A promise for a capability in the answer (the peer named the answer by `receiverAnswer`) wants it as long as
///   anything holds the promise. The table refers to the promise weakly. The promise has a `Name`, which tells the
///   connection when the promise is dropped. A call that waits in the promise holds it.
/// - An embargo for a capability in the answer wants it until the Disembargo has come back; from then on, the promise
///   does that calls were held in.
/// - A question of ours that is to get the answer wants it until the question is finished.
///
/// A call that the peer has finished with `requireEarlyCancellationWorkaround` is canceled when it reaches its
/// method. Until then it still waits for the answers that it needs, but wants none of them: neither the one that it
/// is pipelined on, nor those that its params name. Otherwise two such calls could wait for each other for ever. If it
/// waits for an answer or in a promise, and its params hold promises, it is canceled at once: those may become the
/// results of the very call that it waits for.
/// ```
#[derive(Clone, Debug, Default)]
pub(crate) enum Waiting {
    #[default]
    None,
    One(Ticket, Waiter),
    /// In a box, as few answers have more than one.
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(super) then: OnReturn,
    pub(super) wants: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Many {
    waiters: OrdMap<Ticket, Waiter>,
    /// How many of them want the answer.
    wanting: usize,
}

impl Waiting {
    /// Adds an entry that wants the answer. Tickets only grow.
    pub(super) fn push(&mut self, ticket: Ticket, then: OnReturn) {
        let new = Waiter { then, wants: true };
        *self = match std::mem::take(self) {
            Waiting::None => Waiting::One(ticket, new),
            Waiting::One(first, waiter) => {
                let wanting = 1 + usize::from(waiter.wants);
                let waiters = OrdMap::from_iter([(first, waiter), (ticket, new)]);
                Waiting::Many(Box::new(Many { waiters, wanting }))
            }
            Waiting::Many(mut many) => {
                many.wanting += 1;
                many.waiters.insert(ticket, new);
                Waiting::Many(many)
            }
        };
    }

    /// Takes an entry out, and tells whether it wanted the answer.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<(OnReturn, bool)> {
        let waiter = match self {
            Waiting::One(only, _) if *only == ticket => match std::mem::take(self) {
                Waiting::One(_, waiter) => waiter,
                Waiting::None | Waiting::Many(_) => return None,
            },
            Waiting::Many(many) => {
                let waiter = many.waiters.remove(&ticket)?;
                many.wanting -= usize::from(waiter.wants);
                waiter
            }
            Waiting::None | Waiting::One(..) => return None,
        };
        Some((waiter.then, waiter.wants))
    }

    /// An entry stays, but wants the answer no longer. False if it did not, or is gone.
    pub(super) fn stop_wanting(&mut self, ticket: Ticket) -> bool {
        match self {
            Waiting::One(only, waiter) if *only == ticket => std::mem::take(&mut waiter.wants),
            Waiting::Many(many) => {
                let waiter = many.waiters.get_mut(&ticket);
                let wanted = waiter.is_some_and(|waiter| std::mem::take(&mut waiter.wants));
                many.wanting -= usize::from(wanted);
                wanted
            }
            Waiting::None | Waiting::One(..) => false,
        }
    }

    /// Whether any entry wants the answer.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Waiting::None => false,
            Waiting::One(_, waiter) => waiter.wants,
            Waiting::Many(many) => many.wanting > 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Waiting::None => true,
            Waiting::One(..) => false,
            Waiting::Many(many) => many.waiters.is_empty(),
        }
    }

    /// The entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        let (one, many) = match self {
            Waiting::None => (None, None),
            Waiting::One(_, waiter) => (Some(waiter), None),
            Waiting::Many(many) => (None, Some(many.waiters.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// What is to be done, in order.
    pub(super) fn each(self) -> impl Iterator<Item = OnReturn> {
        let (one, many) = match self {
            Waiting::None => (None, None),
            Waiting::One(_, waiter) => (Some(waiter), None),
            Waiting::Many(many) => (None, Some(many.waiters)),
        };
        let many = many.into_iter().flatten().map(|(_, waiter)| waiter);
        one.into_iter().chain(many).map(|waiter| waiter.then)
    }

    /// Panics unless those that want the answer are counted.
    pub(super) fn check(&self) {
        if let Waiting::Many(many) = self {
            let wanting = many.waiters.values().filter(|waiter| waiter.wants).count();
            assert_eq!(many.wanting, wanting, "those that want an answer are counted");
        }
    }
}

impl State {
    /// Notes which answers the params of a call name. If that is the call's own, the call does not want it: nobody
    /// but the call itself can use it.
    pub(super) fn note_names(&mut self, id: AnswerId, params: &[Client]) {
        let named: Box<[_]> = params.iter().filter_map(Client::awaited_answer).collect();
        for own in named.iter().filter(|named| named.answer == id) {
            self.stop_wanting(*own);
        }
        let answer = self.answers.get_mut(&id).expect("the caller entered it");
        answer.names = named;
    }

    /// Cancels a call that the peer has finished if nothing here wants its answer. See Note [Wanted answers].
    pub(super) fn cancel_if_unwanted(&mut self, id: AnswerId, fx: &mut Effects) {
        let Some(answer) = self.answers.get(&id) else { return };
        if let Entry::HaveFinish { finish_msg, on_return } = &answer.entry {
            if !on_return.is_wanted() {
                let key = AnswerKey { id, generation: answer.generation };
                let after_start = finish_msg.cancel_after_delivery;
                fx.later(Callback::Cancel { key, token: answer.cancel.clone(), after_start });
            }
        }
    }

    /// A call that the peer has finished is canceled now: it gets its last Return.
    pub(super) fn answer_canceled(&mut self, key: AnswerKey, fx: &mut Effects) {
        let Some(answer) = self.answer_mut(key) else { return };
        if !matches!(&answer.entry, Entry::HaveFinish { on_return, .. } if !on_return.is_wanted()) {
            return;
        }
        let mut answer = self.take_answer(key.id).expect("found above");
        self.send_last_return(key.id, &answer, fx);
        if let Some(awaited) = answer.awaits {
            self.stop_waiting(awaited, fx);
        }
        let left = answer.entry.on_return_mut().map(std::mem::take).unwrap_or_default();
        if !left.is_empty() {
            self.run_on_return(left, &Returned::Failed(cancel::canceled()), fx);
        }
        fx.discard(answer);
    }

    /// A call that the peer has finished is canceled when it reaches its method. So it wants no answers any more. True if it
    /// is to be canceled at once.
    pub(crate) fn call_doomed(&mut self, key: AnswerKey, fx: &mut Effects) -> bool {
        let Some(answer) = self.answer_mut(key) else { return false };
        if answer.awaits.is_some() && answer.holds_promises {
            return true;
        }
        let names = std::mem::take(&mut answer.names).into_vec();
        let wanted = answer.awaits.into_iter().chain(names);
        for awaited in wanted {
            if self.stop_wanting(awaited) {
                self.cancel_if_unwanted(awaited.answer, fx);
            }
        }
        false
    }

    /// Whether an answer will be that of a question of ours: the call was handed on to the peer by that question, or by one
    /// that takes the results of an answer of which the same is true, and so on.
    ///
    /// ```text
    /// Note [Answers that are taken]
    /// =============================
    /// The peer can have the results of each of many calls taken from the next one, in any order, and each time it is asked
    /// whether that is a circle. So whoever has gone along such a chain leaves in each answer which one is the last, as in
    /// Note [Chains of what was said]. An answer on the way can be canceled: then those before it fail, and what is said of
    /// the last one is of no use any more, and does no harm.
    /// ```
    pub(super) fn waits_for_question(&mut self, id: AnswerId, question: QuestionId) -> bool {
        let (mut passed, mut at) = (Vec::new(), id);
        let found = loop {
            #[cfg(test)]
            tests::STEPS.with(|steps| steps.set(steps.get() + 1));
            let next = match self.taken_from(at) {
                Ok(next) => next,
                Err(handed_on) => break handed_on == Some(question),
            };
            passed.push(at);
            at = next;
        };
        // The last of them leads there by itself.
        passed.pop();
        let last = self.answers.get(&at).map(|answer| AnswerKey { id: at, generation: answer.generation });
        for id in passed {
            if let Some(answer) = self.answers.get_mut(&id) {
                answer.onward().furthest = last;
            }
        }
        found
    }

    /// An answer that another one will be taken from, the furthest that is known. If there is none, the question of ours
    /// that the call was handed on by, if it was handed on to this peer.
    fn taken_from(&self, id: AnswerId) -> Result<AnswerId, Option<QuestionId>> {
        let onward = self.answers.get(&id).and_then(|answer| answer.onward.as_ref()).ok_or(None)?;
        if let Some(furthest) = onward.furthest {
            let known = self.answers.get(&furthest.id);
            if known.is_some_and(|answer| answer.generation == furthest.generation) {
                return Ok(furthest.id);
            }
        }
        let handed_on = onward.question.as_ref();
        let asked_here = handed_on.filter(|asked| asked.port.connection() == self.connection).ok_or(None)?;
        let asked = self.question(asked_here.id).filter(|asked| asked.generation == asked_here.generation);
        asked.and_then(|asked| asked.taking).map(|taken| taken.answer).ok_or(Some(asked_here.id))
    }

    /// What waits for an answer wants it no longer. False if it did not, or waits no longer.
    fn stop_wanting(&mut self, Awaited { answer, ticket }: Awaited) -> bool {
        let on_return = self.answers.get_mut(&answer).and_then(|answer| answer.entry.on_return_mut());
        on_return.is_some_and(|on_return| on_return.stop_wanting(ticket))
    }

    /// What waited for an answer has gone: a call of the peer's or a question of ours that has been canceled, or a
    /// promise that has been dropped.
    pub(super) fn stop_waiting(&mut self, Awaited { answer, ticket }: Awaited, fx: &mut Effects) {
        let on_return = self.answers.get_mut(&answer).and_then(|answer| answer.entry.on_return_mut());
        let Some((then, wanted)) = on_return.and_then(|on_return| on_return.remove(ticket)) else { return };
        if let OnReturn::Deliver { call, .. } = then {
            fx.discard(call.take());
        }
        if wanted {
            self.cancel_if_unwanted(answer, fx);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::{CallDisposition, ReceivedMessage};
    use super::*;
    use crate::cap::client::Kind;
    use crate::cap::port::{ConnectionId, ConnectionOps, RemoteTarget};
    use crate::cap::promised::PromiseCell;
    use crate::cap::testing::Posts;
    use crate::cap::Capability;
    use crate::id::ImportId;
    use crate::limits::Limits;
    use crate::short::Short;
    use crate::sync::Arc;
    use crate::wire::content::Content;
    use crate::wire::message::{Call, Message, Outcome, Payload, Return, Target};

    type Order = fn(u32, u32) -> u32;

    thread_local! {
        /// How many answers have been looked at that others may be taken from.
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Each of so many calls of the peer's is handed on to the peer. Gives the questions that they have become.
    fn handed_on(state: &mut State, calls: u32) -> Vec<QuestionId> {
        let mut fx = Effects::default();
        let promise = Client(Kind::Promise(PromiseCell::new(None)));
        let export = state.describe(&promise, &mut fx).ok().and_then(|described| described.export);
        let Kind::Import(theirs) = state.import_settled(ImportId(0)).0 else { panic!("settled") };
        let place = RemoteTarget::Import(theirs);
        let mut questions = Vec::new();
        for id in 0..calls {
            let mut fx = Effects::default();
            let call = Call {
                question: AnswerId(id),
                target: Target::ImportedCap(export.expect("exported")),
                interface_id: 1,
                method_id: 1,
                params: Payload { content: Content::null(), descriptors: Short::new() },
                keep_results: true,
                no_promise_pipelining: false,
                only_promise_pipeline: false,
            };
            state.receive(ReceivedMessage { message: Message::Call(call), share: None }, &mut fx).unwrap();
            let Some(Callback::Deliver { call, .. }) = fx.callbacks.pop() else { panic!("a call") };
            let CallDisposition::Question(question, _) = state.call(&place, call, &mut fx) else {
                panic!("a question")
            };
            questions.push(question.id);
            let generation = state.answers.get(&AnswerId(id)).unwrap().generation;
            state.forwarded(AnswerKey { id: AnswerId(id), generation }, question, &mut fx);
        }
        questions
    }

    /// The results of each call are to be taken from the next one's, in an order; at last it is tried to close the circle.
    /// Gives the steps for each call.
    fn take_from_next(calls: u32, order: Order) -> f64 {
        let port: Arc<dyn ConnectionOps> = Arc::new(Posts::default());
        let limits = Limits { answer_bytes: usize::MAX, ..Limits::default() };
        let mut state = State::new(ConnectionId(0), Arc::downgrade(&port), &limits, Client::null());
        let questions = handed_on(&mut state, calls + 1);
        STEPS.with(|steps| steps.set(0));
        let last = (calls, 0);
        for (from, to) in (0..calls).map(|n| order(n, calls)).map(|n| (n, n + 1)).chain([last]) {
            let outcome = Outcome::TakeFromOtherQuestion(AnswerId(to));
            let answer = questions[from as usize];
            let ret = Return { answer, release_param_caps: false, no_finish_needed: false, outcome };
            let arrival = ReceivedMessage { message: Message::Return(ret), share: None };
            state.receive(arrival, &mut Effects::default()).unwrap();
            let takes = state.question(answer).unwrap().taking.is_some();
            assert_eq!(takes, (from, to) != last, "{from} of {calls} calls takes results of {to}");
        }
        STEPS.with(|steps| steps.get()) as f64 / f64::from(calls)
    }

    #[test]
    fn a_chain_of_answers_that_are_taken_costs_near_linear_time_in_any_order() {
        let orders: [(&str, Order); 4] = [
            ("first first", |n, _| n),
            ("last first", |n, all| all - 1 - n),
            ("mixed", |n, all| n * 7919 % all),
            ("from both ends", |n, all| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 }),
        ];
        for (name, order) in orders {
            let [few, many] = [1 << 8, 1 << 12].map(|calls| take_from_next(calls, order));
            assert!(many < 2.0 * few.max(4.0), "{name}: {few} and {many} steps for each call");
        }
    }

    fn take(id: u32) -> OnReturn {
        OnReturn::Take(QuestionId(id))
    }

    fn questions(waiting: Waiting) -> Vec<u32> {
        let question = |then| match then {
            OnReturn::Take(question) => question.0,
            _ => unreachable!("only these were added"),
        };
        waiting.each().map(question).collect()
    }

    #[test]
    fn entries_leave_by_ticket_and_the_others_stay_in_order() {
        let mut waiting = Waiting::default();
        (0..5).for_each(|n| waiting.push(10 + n, take(n as u32)));
        assert!(matches!(waiting.remove(12), Some((OnReturn::Take(_), true))));
        assert!(waiting.remove(12).is_none() && waiting.remove(15).is_none());
        waiting.check();
        assert_eq!(questions(waiting.clone()), [0, 1, 3, 4]);
        [14, 10, 13, 11].into_iter().for_each(|ticket| assert!(waiting.remove(ticket).is_some()));
        assert!(waiting.is_empty() && !waiting.is_wanted());
    }

    #[test]
    fn an_answer_is_wanted_until_the_last_entry_stops_wanting_it() {
        for entries in 1..4 {
            let mut waiting = Waiting::default();
            (0..entries).for_each(|n| waiting.push(n, take(n as u32)));
            for n in 0..entries {
                assert!(waiting.is_wanted());
                assert!(waiting.stop_wanting(n) && !waiting.stop_wanting(n));
            }
            assert!(!waiting.is_wanted() && !waiting.is_empty());
            assert_eq!(waiting.remove(0).map(|(_, wanted)| wanted), Some(false));
        }
    }
}
