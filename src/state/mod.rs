//! The state of a connection: four tables and the embargoes, as pure transitions.
//!
//! A transition takes a message of the peer's (or something that this vat wants) and changes the tables;
//! what is to be done beyond them it writes into [`Effects`]. There is no lock, thread or I/O here.
//!
//! ```text
//! Note [Four tables]
//! ==================
//!            we choose the IDs      the peer chooses the IDs
//! calls      questions: sent        answers: received
//! objects    exports: ours          imports: the peer's
//!
//! Our questions are the peer's answers, our exports its imports. Beside them stand `promises` (promises of
//! the peer's that somebody here holds: imports to be resolved, and capabilities in results to come) and
//! `embargoes` (Disembargoes that have not come back).
//!
//! Note [Rollback]
//! ===============
//! A transaction that handles a message fails if the message breaks a rule, and leaves no trace then: nothing of
//! the message is left but the abort. So a transition looks first, at all that the message names, and changes the
//! tables only when nothing can fail any more (`rules.rs` has what takes more than a line). There is no old
//! version to be put back: keeping one would make every change copy what it changes. Debug builds compare what
//! a failed transaction found and left, and panic where it was not the same.
//!
//! The tables are persistent maps all the same: that lets a snapshot read all entries of one moment while the connection
//! goes on (Note [Snapshots]).
//! ```

mod all_parts;
mod answers;
mod check;
mod cost;
mod descriptors;
mod effects;
mod embargoes;
mod entry;
mod exports;
mod garbage;
mod imports;
#[cfg(all(test, not(any(shuttle, loom))))]
mod masses;
mod moment;
mod named;
mod outcome;
mod owed;
mod questions;
mod refusals;
mod returns;
mod rules;
mod said;
pub mod snapshot;
mod targets;
mod waiting;

use all_parts::AllParts;
use answers::Answer;
use embargoes::Embargo;
use exports::Export;
use imports::{Import, Pending};
use questions::Question;

pub(crate) use effects::{Callback, Destination, Effects, QueuedMessage};
pub(crate) use questions::CallDisposition;
pub use snapshot::Snapshot;
pub(crate) use snapshot::Tables;

use crate::cap::client::Client;
use crate::cap::port::{ConnectionId, ConnectionOps, Generation, RefId, TableEvent};
use crate::error::{Exception, ProtocolError};
use crate::id::{AnswerId, EmbargoId, ExportId, ImportId, QuestionId};
use crate::limits::Limits;
use crate::sync::{Arc, Weak};
use crate::table::{ByAddress, LocalTable, PeerTable, RetiredIds};
use crate::wire::message::{Message, Outgoing};

pub(crate) use answers::ReceivedMessage;

/// The state of a connection. See Note [Four tables].
pub(crate) struct State {
    connection: ConnectionId,
    port: Weak<dyn ConnectionOps>,
    limits: Limits,
    /// What the peer gets when it asks for our bootstrap object.
    bootstrap: Client,
    questions: LocalTable<QuestionId, Question>,
    /// Questions asked for the sake of pipelining alone; their IDs have the top bit set.
    pipeline_questions: PeerTable<QuestionId, Question>,
    next_pipeline_question: u32,
    /// The peer answers questions asked for pipelining alone, against the hint: it is not given any more.
    peer_ignores_pipeline_hint: bool,
    answers: PeerTable<AnswerId, Answer>,
    /// How many bytes the answers take besides their entries.
    answer_bytes: usize,
    /// Answers that were returned with `noFinishNeeded`, until the peer uses the ID again or finishes it.
    ended_answers: RetiredIds,
    /// Those of them that were refused.
    refused_answers: RetiredIds,
    /// The highest ID that the peer has used for a question.
    highest_answer: Option<AnswerId>,
    exports: LocalTable<ExportId, Export>,
    /// The export of each client that has one, by the client's address.
    export_ids: ByAddress<ExportId>,
    imports: PeerTable<ImportId, Import>,
    promises: PeerTable<RefId, Pending>,
    /// How many of the promises somebody watches.
    watched: usize,
    embargoes: LocalTable<EmbargoId, Embargo>,
    /// How many questions and answers have neither been returned nor finished, without those asked for pipelining alone.
    under_way: usize,
    next_generation: Generation,
    /// How many questions have been asked, which is the generation of the last.
    asked: Generation,
    next_ref: u64,
    /// Why the connection has ended, once it has.
    ended: Option<Exception>,
}

impl State {
    pub(crate) fn new(
        connection: ConnectionId,
        port: Weak<dyn ConnectionOps>,
        limits: &Limits,
        bootstrap: Client,
    ) -> Self {
        State {
            connection,
            port,
            limits: limits.clone(),
            bootstrap,
            questions: LocalTable::new(),
            pipeline_questions: PeerTable::default(),
            next_pipeline_question: 0,
            peer_ignores_pipeline_hint: false,
            answers: PeerTable::default(),
            answer_bytes: 0,
            ended_answers: RetiredIds::default(),
            refused_answers: RetiredIds::default(),
            highest_answer: None,
            exports: LocalTable::new(),
            export_ids: ByAddress::default(),
            imports: PeerTable::default(),
            promises: PeerTable::default(),
            watched: 0,
            embargoes: LocalTable::new(),
            under_way: 0,
            next_generation: 0,
            asked: 0,
            next_ref: 0,
            ended: None,
        }
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Exception> {
        self.ended.as_ref()
    }

    /// How many questions are outstanding.
    pub(crate) fn outstanding(&self) -> usize {
        self.questions.len() + self.pipeline_questions.len()
    }

    /// How much the peer is still to send that calls here may wait for: answers, Disembargoes that come back, and
    /// what promises are that somebody watches.
    pub(crate) fn awaited(&self) -> usize {
        self.outstanding() + self.embargoes.len() + self.watched
    }

    /// Whether no call is under way in either direction. What has been answered, and is held for calls on the
    /// results, is not; nor is what was canceled, or asked for pipelining alone. Calls behind an embargo are.
    pub(crate) fn is_idle(&self) -> bool {
        self.embargoes.len() == 0 && self.under_way == 0
    }

    /// Handles a message of the peer's.
    pub(crate) fn receive(
        &mut self,
        arrival: ReceivedMessage,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let ReceivedMessage { message, share } = arrival;
        if self.ended.is_some() {
            return Ok(());
        }
        match message {
            Message::Unimplemented(ours) => self.receive_unimplemented(*ours, fx),
            // The connection handles it: nothing in the tables is concerned.
            Message::Abort(_) => Ok(()),
            Message::Bootstrap { question } => self.receive_bootstrap(question, fx),
            Message::Call(call) => self.receive_call(call, share, fx),
            Message::Return(ret) => self.receive_return(ret, fx),
            Message::Finish(finish) => self.receive_finish(finish, fx),
            Message::Resolve(resolve) => self.receive_resolve(resolve, fx),
            Message::Release { id, count } => self.release_export(id, count, fx),
            Message::Disembargo(disembargo) => self.receive_disembargo(disembargo, fx),
            Message::Unknown(whole) => {
                fx.send(Message::Unimplemented(whole));
                Ok(())
            }
        }
    }

    /// The peer has sent back a message of ours that it does not implement.
    fn receive_unimplemented(
        &mut self,
        ours: Message<Outgoing>,
        fx: &mut Effects,
    ) -> Result<(), ProtocolError> {
        match ours {
            Message::Call(call) => self.question_refused(call.question, fx),
            Message::Bootstrap { question } => self.question_refused(question, fx),
            Message::Resolve(resolve) => self.resolve_refused(resolve, fx),
            Message::Disembargo(disembargo) => self.disembargo_refused(disembargo, fx),
            // A peer that keeps no references, or bounces what bounced: its own affair. So is what it does with a
            // question that was returned: capnp-rpc sends `resultsSentElsewhere` back, and, for a question that
            // it has canceled, `takeFromOtherQuestion`.
            Message::Finish(_) | Message::Release { .. } | Message::Return(_) | Message::Unimplemented(_) => {
                Ok(())
            }
            Message::Abort(_) => Err(ProtocolError::Unimplemented("Abort, which was never sent")),
            Message::Unknown(_) => Err(ProtocolError::Unimplemented("a message that was never sent")),
        }
    }

    /// Looks at something that changed outside. What has been overtaken does nothing.
    pub(crate) fn notice(&mut self, notice: TableEvent, fx: &mut Effects) {
        match notice {
            // The connection's affair.
            TableEvent::Unused => {}
            TableEvent::ImportDropped(id, generation) => self.import_dropped(id, generation, fx),
            TableEvent::PromiseDropped(id) => self.promise_dropped(id, fx),
            TableEvent::NameDropped(awaited) => self.stop_waiting(awaited, fx),
            TableEvent::QuestionDropped(id, generation) => self.question_dropped(id, generation, fx),
            TableEvent::QuestionLate(id, generation) => self.question_late(id, generation, fx),
            TableEvent::ExportResolved(id, generation) => self.export_resolved(id, generation, fx),
            TableEvent::AnswerCanceled(key) => self.answer_canceled(key, fx),
        }
    }

    /// The connection is gone: all that wait for something are told, and the tables are emptied.
    ///
    /// # Panics
    /// If the tables contradict each other, when all that is done. See Note [Panics in transactions].
    pub(crate) fn end(&mut self, why: Exception, fx: &mut Effects) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(why.clone());
        let mut all = AllParts::default();
        all.part(|| self.end_promises(&why, fx));
        all.part(|| self.end_questions(&why, fx));
        all.part(|| self.end_embargoes(&why, fx));
        all.part(|| self.end_answers(&why, fx));
        all.part(|| self.end_exports(fx));
        all.part(|| fx.discard(self.imports.take()));
        all.part(|| fx.discard(std::mem::take(&mut self.bootstrap)));
        if all.has_panicked() {
            // What could not be ended entry by entry. All that was owed by it has been paid.
            all.part(|| fx.discard(self.questions.clear()));
            all.part(|| fx.discard(self.pipeline_questions.take()));
            self.export_ids.clear();
            (self.watched, self.under_way) = (0, 0);
        }
        all.finish();
    }

    fn port(&self) -> Option<Arc<dyn ConnectionOps>> {
        self.port.upgrade()
    }

    fn generation(&mut self) -> Generation {
        self.next_generation += 1;
        self.next_generation
    }
}
